//! A slow, far or lossy second uplink never makes things worse than the best alone.

use marline_sim::event::{Plan, UplinkSpec};
use marline_sim::link::LinkParams;
use marline_sim::tcp::Algorithm;
use marline_sim::workload::Direction;

use crate::harness::{bulk, pings, play_beside_native};

/// The goodput with a companion, against the best link natively.
fn beside(companion: LinkParams) -> f64 {
    let uplinks = vec![
        UplinkSpec::new("good", LinkParams::new(30.0, 10.0)),
        UplinkSpec::new("companion", companion),
    ];
    let flows = vec![bulk(Direction::Down, Algorithm::Cubic)];
    let plan = Plan {
        measure_from_s: 1.0,
        ..Plan::new("companion", 12.0, uplinks, flows)
    };
    let report = play_beside_native(&plan);
    report.flows[0]
        .ratio_to_best_single
        .expect("an endless TCP flow has one")
}

// A tunnel's own bytes take 7 % of what a link carries natively.

#[test]
fn a_far_uplink_does_not_hurt() {
    let ratio = beside(LinkParams::new(5.0, 150.0));
    assert!(ratio >= 0.9, "{ratio:.3}");
}

#[test]
fn a_very_slow_uplink_does_not_hurt() {
    let ratio = beside(LinkParams::new(1.0, 40.0));
    assert!(ratio >= 0.9, "{ratio:.3}");
}

#[test]
fn a_lossy_uplink_does_not_hurt() {
    let ratio = beside(LinkParams {
        loss: 0.05,
        loss_burst: 4.0,
        ..LinkParams::new(10.0, 30.0)
    });
    assert!(ratio >= 0.9, "{ratio:.3}");
}

/// The acknowledgements of the fat uplink's download are more than the quick one carries.
#[test]
fn a_thin_quick_uplink_does_not_hold_up_the_acknowledgements_of_a_fat_far_one() {
    let uplinks = vec![
        UplinkSpec::new("fat", LinkParams::new(70.0, 75.0)),
        UplinkSpec::new("thin", LinkParams::new(2.0, 15.0)),
    ];
    let mut flow = bulk(Direction::Down, Algorithm::Bbr);
    flow.start_s = 2.0;
    let plan = Plan {
        measure_from_s: 5.0,
        ..Plan::new("thin and quick", 15.0, uplinks, vec![flow])
    };
    let report = play_beside_native(&plan);
    let ratio = report.flows[0].ratio_to_best_single;
    assert!(ratio >= Some(1.0), "{ratio:?}");
}

#[test]
fn pings_stay_quick_beside_a_download() {
    let deep = |rate, delay| LinkParams {
        queue_ms: 500.0,
        ..LinkParams::new(rate, delay)
    };
    let uplinks = vec![
        UplinkSpec::new("fast", deep(50.0, 7.5)),
        UplinkSpec::new("slow", deep(20.0, 30.0)),
    ];
    let flows = vec![pings(), bulk(Direction::Down, Algorithm::Cubic)];
    let report = crate::harness::play(&Plan::new("latency", 10.0, uplinks, flows));
    let [p50, p95, _] = report.flows[0].percentiles_ms.expect("pings were answered");
    assert!(p50 <= 15.0 + 10.0, "{}", report.text());
    assert!(p95 <= 15.0 + 25.0, "{}", report.text());
}

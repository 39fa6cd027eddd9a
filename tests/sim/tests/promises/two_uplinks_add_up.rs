//! One flow gets the sum of the uplinks, whichever way and whatever its algorithm.

use marline_sim::event::{Event, LinkChange, Plan, UplinkSpec, Way};
use marline_sim::link::LinkParams;
use marline_sim::tcp::Algorithm;
use marline_sim::workload::{Direction, FlowSpec};

use crate::harness::{bulk, fast_and_slow, play_beside_native, share};

/// `least` is a share of the native sum. The simulator's BBR is simpler than the
/// kernel's and stays near the best link, where the kernel's reaches the sum
/// (docs/benchmarks.md): here it only guards against falling below that.
fn adds_up(direction: Direction, cc: Algorithm, least: f64) {
    let plan = Plan {
        measure_from_s: 1.0,
        ..Plan::new(
            "two uplinks",
            12.0,
            fast_and_slow(),
            vec![bulk(direction, cc)],
        )
    };
    let report = play_beside_native(&plan);
    let share = share(&report.flows[0]);
    assert!(share >= least, "{share:.3}\n{}", report.text());
}

#[test]
fn one_download_gets_the_sum_with_cubic() {
    adds_up(Direction::Down, Algorithm::Cubic, 0.85);
}

#[test]
fn one_download_gets_the_sum_with_bbr() {
    adds_up(Direction::Down, Algorithm::Bbr, 0.60);
}

#[test]
fn one_upload_gets_the_sum_with_cubic() {
    adds_up(Direction::Up, Algorithm::Cubic, 0.85);
}

#[test]
fn one_upload_gets_the_sum_with_bbr() {
    adds_up(Direction::Up, Algorithm::Bbr, 0.60);
}

fn loses(share: f64) -> Event {
    Event::Link(LinkChange {
        loss: Some(share),
        ..LinkChange::of("slow", Way::Up)
    })
}

/// A path that carried next to nothing during a download loses much of that and of an upload's first packets.
#[test]
fn one_upload_gets_the_sum_after_a_download_though_first_packets_are_lost() {
    let download = FlowSpec {
        start_s: 1.7,
        stop_s: Some(8.5),
        ..bulk(Direction::Down, Algorithm::Cubic)
    };
    let upload = FlowSpec {
        start_s: 8.7,
        ..bulk(Direction::Up, Algorithm::Cubic)
    };
    let plan = Plan {
        measure_from_s: 9.0,
        ..Plan::new(
            "upload after a download",
            16.0,
            fast_and_slow(),
            vec![download, upload],
        )
    }
    .with(8.0, loses(0.4))
    .with(8.95, loses(0.0));
    let report = play_beside_native(&plan);
    let share = share(&report.flows[1]);
    assert!(share >= 0.9, "{share:.3}\n{}", report.text());
}

/// The second of two flows to one place, with round trips of 20 and 120 ms.
fn knows_the_place(cc: Algorithm) {
    let uplinks = vec![
        UplinkSpec::new("near", LinkParams::new(50.0, 10.0)),
        UplinkSpec::new("far", LinkParams::new(50.0, 60.0)),
    ];
    let first = FlowSpec {
        stop_s: Some(9.0),
        ..bulk(Direction::Down, cc)
    };
    let second = FlowSpec {
        start_s: 10.0,
        ..bulk(Direction::Down, cc)
    };
    let plan = Plan {
        measure_from_s: 11.0,
        ..Plan::new("known place", 20.0, uplinks, vec![first, second])
    };
    let report = play_beside_native(&plan);
    let share = share(&report.flows[1]);
    assert!(share >= 0.85, "{share:.3}\n{}", report.text());
}

#[test]
fn a_second_download_from_a_known_place_gets_the_sum_of_far_apart_uplinks_with_bbr() {
    knows_the_place(Algorithm::Bbr);
}

#[test]
fn one_uplink_alone_costs_only_the_tunnels_bytes() {
    let uplinks = vec![UplinkSpec::new("only", LinkParams::new(20.0, 20.0))];
    let flows = vec![bulk(Direction::Down, Algorithm::Cubic)];
    let plan = Plan {
        measure_from_s: 1.0,
        ..Plan::new("one uplink", 12.0, uplinks, flows)
    };
    let report = play_beside_native(&plan);
    let share = share(&report.flows[0]);
    assert!(share >= 0.88, "{share:.3}\n{}", report.text());
}

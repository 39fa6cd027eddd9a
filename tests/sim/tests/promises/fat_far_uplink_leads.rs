//! Where the quick uplink is thin and the fat one far away, a long flow gets both, and never less than the fat one alone.

use marline_sim::event::{Plan, UplinkSpec, Way};
use marline_sim::link::LinkParams;
use marline_sim::report;
use marline_sim::tcp::Algorithm;
use marline_sim::workload::{Direction, FlowSpec, Kind};

use crate::harness::{blackhole, play, play_beside_native, share};

const ALGORITHMS: [Algorithm; 2] = [Algorithm::Cubic, Algorithm::Bbr];

fn thin_and_fat(fat_delay_ms: f64) -> Vec<UplinkSpec> {
    vec![
        UplinkSpec::new("thin", LinkParams::new(8.0, 7.5)),
        UplinkSpec::new("fat", LinkParams::new(40.0, fat_delay_ms)),
    ]
}

/// The first download of a bond that is up.
fn first(cc: Algorithm) -> Vec<FlowSpec> {
    vec![FlowSpec {
        start_s: 2.0,
        ..FlowSpec::bulk(Direction::Down, cc)
    }]
}

#[test]
fn the_first_download_gets_the_sum() {
    for cc in ALGORITHMS {
        let plan = Plan {
            measure_from_s: 6.0,
            ..Plan::new("thin and fat", 16.0, thin_and_fat(50.0), first(cc))
        };
        let report = play_beside_native(&plan);
        assert!(share(&report.flows[0]) >= 0.85, "{}", report.text());
    }
}

/// A transfer ends, its last packets are lost, and while they are missed the next one begins. The uplink is only suspected
/// then, or was out of service for so short a time that it is on trial again. After 0.5 s and more CUBIC gets four fifths.
#[test]
fn a_download_that_begins_while_the_fat_uplink_is_silent_for_a_moment_gets_the_sum_too() {
    for cc in ALGORITHMS {
        for begin_s in [6.15, 6.2, 6.24, 6.25, 6.35] {
            let mut flows = first(Algorithm::Cubic);
            flows[0].stop_s = Some(6.0);
            flows.push(FlowSpec {
                start_s: begin_s,
                ..FlowSpec::bulk(Direction::Down, cc)
            });
            let plan = Plan {
                measure_from_s: 10.0,
                ..Plan::new("suspected", 20.0, thin_and_fat(50.0), flows)
            }
            .with(5.97, blackhole("fat", Way::Down, true))
            .with(begin_s + 0.05, blackhole("fat", Way::Down, false));
            let report = play_beside_native(&plan);
            let what = format!("{cc:?}, {begin_s} s");
            assert!(share(&report.flows[1]) >= 0.85, "{what}\n{}", report.text());
        }
    }
}

#[test]
fn one_uplink_too_far_to_be_hidden_carries_as_much_as_alone() {
    // Ten seconds after its begin a BBR looks for its shortest round trip, and one packet over the near uplink in that
    // moment gives it a window for that one alone (decision 20): so far it is promised until then.
    for (cc, seconds) in [(Algorithm::Cubic, 20.0), (Algorithm::Bbr, 12.0)] {
        let plan = Plan {
            measure_from_s: 8.0,
            ..Plan::new("far", seconds, thin_and_fat(170.0), first(cc))
        };
        let alone = Plan {
            uplink: vec![plan.uplink[1].clone()],
            ..plan.clone()
        };
        let alone = report::run(&alone, 1, "test").flows[0].goodput_mbit_s;
        let report = play(&plan);
        let ratio = report.flows[0].goodput_mbit_s / alone;
        assert!(ratio >= 0.98, "{ratio:.3} of {alone:.1}\n{}", report.text());
    }
}

#[test]
fn pages_of_a_place_that_brings_short_flows_take_the_quick_uplink() {
    let pages = FlowSpec {
        start_s: 2.0,
        ..FlowSpec::new(Kind::Web {
            interval_ms: 500.0,
            size_bytes: 30_000,
        })
    };
    let alone = |uplinks: Vec<UplinkSpec>| {
        let plan = Plan {
            measure_from_s: 5.0,
            ..Plan::new("pages", 20.0, uplinks, vec![pages.clone()])
        };
        let report = play(&plan);
        report.flows[0].percentiles_ms.expect("pages came")[0]
    };
    let (both, quick) = (
        alone(thin_and_fat(50.0)),
        alone(vec![thin_and_fat(50.0).remove(0)]),
    );
    assert!(both <= 1.1 * quick, "{both:.0} ms, {quick:.0} ms alone");
}

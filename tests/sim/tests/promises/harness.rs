//! The verbs of the promises.

use marline_sim::event::{Event, LinkChange, Plan, UplinkSpec, Way};
use marline_sim::link::LinkParams;
use marline_sim::report::{self, FlowReport, Report};
use marline_sim::tcp::Algorithm;
use marline_sim::workload::{Direction, FlowSpec, Kind};
use marline_sim::world::Totals;

/// 50 Mbit/s with a round trip of 15 ms, and 20 Mbit/s with one of 60 ms.
pub fn fast_and_slow() -> Vec<UplinkSpec> {
    vec![
        UplinkSpec::new("fast", LinkParams::new(50.0, 7.5)),
        UplinkSpec::new("slow", LinkParams::new(20.0, 30.0)),
    ]
}

/// An endless download or upload that begins when the bond is up.
pub fn bulk(direction: Direction, cc: Algorithm) -> FlowSpec {
    FlowSpec {
        start_s: 0.5,
        ..FlowSpec::bulk(direction, cc)
    }
}

/// A call that begins when the bond is up, and ends before the run does, so that
/// nothing of it is on its way at the end.
pub fn call(stop_s: f64) -> FlowSpec {
    FlowSpec {
        start_s: 0.5,
        stop_s: Some(stop_s),
        ..FlowSpec::new(Kind::Voice {})
    }
}

/// Pings that begin when the bond is up.
pub fn pings() -> FlowSpec {
    FlowSpec {
        start_s: 0.5,
        ..FlowSpec::new(Kind::Ping { interval_ms: 20.0 })
    }
}

/// A link begins or stops to swallow everything in silence.
pub fn blackhole(uplink: &str, way: Way, on: bool) -> Event {
    Event::Link(LinkChange {
        blackhole: Some(on),
        ..LinkChange::of(uplink, way)
    })
}

/// Plays a plan in which nothing may happen that must not.
pub fn play(plan: &Plan) -> Report {
    let report = report::run(plan, 1, "test");
    assert!(report.violations.is_empty(), "{}", report.text());
    report
}

/// Plays a plan and compares with what the links carry without a tunnel.
pub fn play_beside_native(plan: &Plan) -> Report {
    let mut report = play(plan);
    report::compare_with_native(&mut report, plan, 1);
    report
}

/// The goodput of a flow as a share of the native sum.
pub fn share(flow: &FlowReport) -> f64 {
    flow.share_of_native_sum
        .expect("an endless TCP flow has one")
}

/// What an end counted under this name.
pub fn counted(end: &Totals, name: &str) -> u64 {
    end.counters.get(name).copied().unwrap_or_default()
}

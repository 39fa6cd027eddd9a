//! What each mode promises, also when it is chosen in mid-traffic and for one class.

use marline_proto::{Class, Mode, Modes};
use marline_sim::event::{Event, Plan, Way};
use marline_sim::report::Report;
use marline_sim::tcp::Algorithm;
use marline_sim::workload::{Direction, FlowSpec};

use crate::harness::{blackhole, bulk, call, counted, fast_and_slow, play};

fn plan(modes: Modes, flows: Vec<FlowSpec>) -> Plan {
    Plan {
        measure_from_s: 1.0,
        modes,
        ..Plan::new("mode", 10.0, fast_and_slow(), flows)
    }
}

fn call_and_download() -> Vec<FlowSpec> {
    vec![call(9.0), bulk(Direction::Down, Algorithm::Cubic)]
}

/// Bytes that the slow uplink carried: up, down.
fn over_slow(report: &Report) -> [u64; 2] {
    let slow = &report.uplinks[1];
    [slow.up.delivered_bytes, slow.down.delivered_bytes]
}

#[test]
fn redundant_loses_nothing_when_an_uplink_dies() {
    let plan = plan(Modes::all(Mode::Redundant), call_and_download())
        .with(4.0, blackhole("fast", Way::Both, true))
        .with(7.0, blackhole("fast", Way::Both, false));
    let report = play(&plan);
    let (call, download) = (&report.flows[0], &report.flows[1]);
    assert_eq!(call.missing, 0, "{}", report.text());
    assert!(call.gap_ms_max <= 43.0, "{}", report.text());
    assert!(download.gap_ms_max <= 100.0, "{}", report.text());
    // Both uplinks carry all of it, so it is as fast as the slower one.
    assert!(download.goodput_mbit_s >= 14.0, "{}", report.text());
}

#[test]
fn interactive_sends_twice_what_is_not_bulk() {
    let report = play(&plan(Modes::all(Mode::Interactive), call_and_download()));
    // A call of 8.5 s, 50 packets a second; the download's first 64 KiB.
    let copies = counted(&report.server, "duplicated");
    assert!((425..=500).contains(&copies), "{copies}");
    assert!(report.flows[1].goodput_mbit_s >= 50.0, "{}", report.text());
}

#[test]
fn handover_uses_one_uplink_at_a_time() {
    let calm = play(&plan(Modes::all(Mode::Handover), call_and_download()));
    let idle = over_slow(&calm);
    assert!(idle.iter().all(|&bytes| bytes < 10_000), "{idle:?}");
    assert!(calm.flows[1].goodput_mbit_s >= 40.0, "{}", calm.text());
}

#[test]
fn handover_changes_over_when_the_uplink_dies_and_back() {
    let plan = plan(Modes::all(Mode::Handover), call_and_download())
        .with(4.0, blackhole("fast", Way::Both, true))
        .with(6.0, blackhole("fast", Way::Both, false));
    let report = play(&plan);
    assert_eq!(report.flows[0].missing, 0, "{}", report.text());
    assert!(report.flows[0].gap_ms_max <= 150.0, "{}", report.text());
    let [_, down] = over_slow(&report);
    // Two seconds at 20 Mbit/s are 5 MB.
    assert!((2_000_000..6_500_000).contains(&down), "{}", report.text());
}

#[test]
fn a_mode_chosen_in_mid_traffic_holds_for_both_directions() {
    let chosen = |class, mode| {
        let plan = plan(Modes::default(), call_and_download());
        play(&plan.with(4.0, Event::SetMode { mode, class }))
    };
    let bulk = Some(Class::Bulk);
    let before = chosen(bulk, Mode::Aggregate);
    let one_path = chosen(bulk, Mode::Handover);
    let saved = over_slow(&before)[1] - over_slow(&one_path)[1];
    assert!(saved > over_slow(&before)[1] / 3, "{}", one_path.text());
    // Beside a download the server sends the call twice; the client copies what is missed.
    let copies = |report: &Report| counted(&report.server, "duplicated");
    let (usual, still) = (copies(&before), copies(&one_path));
    assert!(still > usual * 9 / 10, "{still} of {usual}");
    let no_copies = copies(&chosen(Some(Class::Realtime), Mode::Handover));
    assert!(no_copies < usual * 2 / 3, "{no_copies} of {usual}");
}

//! What is awaited goes over a second path before a call misses it, within a budget.

use marline_proto::Role;
use marline_sim::event::{Plan, UplinkSpec, Way};
use marline_sim::link::LinkParams;
use marline_sim::report::Report;
use marline_sim::tcp::Algorithm;
use marline_sim::workload::{Direction, FlowSpec, Kind};

use crate::harness::{blackhole, bulk, call, counted, fast_and_slow, play};

/// A packet comes every 20 ms, and the slow path is 22.5 ms slower than the fast one.
const GAP_MS: f64 = 43.0;
/// Where it is copied only when an acknowledgement is missed: 15 ms and a margin later.
const MISSED_GAP_MS: f64 = 63.0;

fn dies(flows: Vec<FlowSpec>) -> Report {
    dies_over([7.5, 30.0], flows)
}

/// The same over uplinks with such one-way delays.
fn dies_over(delays_ms: [f64; 2], flows: Vec<FlowSpec>) -> Report {
    let mut uplinks = fast_and_slow();
    for (uplink, delay_ms) in uplinks.iter_mut().zip(delays_ms) {
        uplink.up.delay_ms = delay_ms;
        uplink.down.delay_ms = delay_ms;
    }
    let plan = Plan {
        measure_from_s: 1.0,
        ..Plan::new("death", 12.0, uplinks, flows)
    }
    .with(4.0, blackhole("fast", Way::Both, true))
    .with(8.0, blackhole("fast", Way::Both, false));
    play(&plan)
}

/// Copies as a share of the bytes that an end sent, in per cent.
fn copies_per_cent(report: &Report) -> [f64; 2] {
    let up: u64 = report.uplinks.iter().map(|u| u.up.delivered_bytes).sum();
    let down: u64 = report.uplinks.iter().map(|u| u.down.delivered_bytes).sum();
    [
        100.0 * counted(&report.client, "duplicated_bytes") as f64 / up as f64,
        100.0 * counted(&report.server, "duplicated_bytes") as f64 / down as f64,
    ]
}

#[test]
fn a_call_does_not_notice_that_its_uplink_died() {
    let report = dies(vec![call(11.0)]);
    let call = &report.flows[0];
    assert_eq!(call.missing, 0, "{}", report.text());
    assert_eq!(call.late, 0, "{}", report.text());
    assert!(call.gap_ms_max <= MISSED_GAP_MS, "{}", report.text());
    let copies = copies_per_cent(&report);
    assert!(copies.iter().all(|&c| c <= 3.0), "{copies:?}");
}

#[test]
fn a_call_between_far_uplinks_is_sent_twice_as_nothing_later_would_help() {
    let report = dies_over([40.0, 60.0], vec![call(11.0)]);
    let call = &report.flows[0];
    assert_eq!((call.missing, call.late), (0, 0), "{}", report.text());
    assert!(call.gap_ms_max <= 41.0, "{}", report.text());
}

#[test]
fn a_call_over_uplinks_that_jitter_is_hardly_sent_twice() {
    for jitter_ms in [0.5, 2.0, 5.0] {
        let mut uplinks = fast_and_slow();
        for uplink in &mut uplinks {
            uplink.up.jitter_ms = jitter_ms;
            uplink.down.jitter_ms = jitter_ms;
        }
        let report = play(&Plan::new("jitter", 20.0, uplinks, vec![call(19.0)]));
        let copies = copies_per_cent(&report);
        assert!(copies.iter().all(|&c| c <= 5.0), "{jitter_ms}: {copies:?}");
    }
}

#[test]
fn beside_a_download_copies_stay_within_their_budget() {
    let report = dies(vec![
        call(11.0),
        bulk(Direction::Down, Algorithm::Cubic),
        bulk(Direction::Up, Algorithm::Cubic),
    ]);
    let call = &report.flows[0];
    assert_eq!(call.missing, 0, "{}", report.text());
    assert!(call.gap_ms_max <= GAP_MS, "{}", report.text());
    let copies = copies_per_cent(&report);
    assert!(copies.iter().all(|&c| c <= 5.0), "{copies:?}");
}

#[test]
fn many_calls_between_far_uplinks_are_not_all_sent_twice() {
    let mut uplinks = fast_and_slow();
    for (uplink, delay_ms) in uplinks.iter_mut().zip([40.0, 60.0]) {
        uplink.up.delay_ms = delay_ms;
        uplink.down.delay_ms = delay_ms;
    }
    let flows = (0..20).map(|_| call(9.0)).collect();
    let report = play(&Plan::new("calls", 10.0, uplinks, flows));
    for end in [&report.client, &report.server] {
        let copied = counted(end, "duplicated_bytes");
        // 200 kbit/s, and what was saved before.
        assert!(
            copied > 100_000 && copied <= 9 * 25_000 + 32_000,
            "{copied}"
        );
    }
}

#[test]
fn an_uplink_with_reservations_carries_no_copies() {
    for role in [Role::Secondary, Role::Backup] {
        let mut uplinks = fast_and_slow();
        uplinks[1].role = role;
        let report = play(&Plan::new("reserved", 10.0, uplinks, vec![call(9.0)]));
        assert_eq!(report.flows[0].missing, 0, "{}", report.text());
        for end in [&report.client, &report.server] {
            assert_eq!(counted(end, "duplicated"), 0, "{role:?} {}", report.text());
        }
    }
}

#[test]
fn a_lossy_uplink_does_not_make_a_call_wait_for_repairs() {
    let mut uplinks = fast_and_slow();
    uplinks[0].up.loss = 0.02;
    uplinks[0].down.loss = 0.02;
    let report = play(&Plan::new("loss", 20.0, uplinks, vec![call(19.0)]));
    let call = &report.flows[0];
    assert_eq!(call.missing, 0, "{}", report.text());
    // The slower path's 30 ms, where a repair takes a round trip of the faster one at best.
    let [_, _, p99] = call.percentiles_ms.expect("a call has delays");
    assert!(p99 <= 30.5, "{}", report.text());
}

#[test]
fn a_page_does_not_wait_for_its_lost_end() {
    let mut uplinks = fast_and_slow();
    uplinks[0].up.loss = 0.01;
    uplinks[0].down.loss = 0.01;
    let pages = FlowSpec {
        start_s: 0.5,
        stop_s: Some(58.0),
        ..FlowSpec::new(Kind::Web {
            interval_ms: 200.0,
            size_bytes: 30_000,
        })
    };
    let report = play(&Plan::new("pages", 60.0, uplinks, vec![pages]));
    // Without loss 96 ms; a timeout of the inner sender takes 200 ms more, so that is what three pages in a
    // hundred take without copies.
    let [_, _, p99] = report.flows[0]
        .percentiles_ms
        .expect("pages have durations");
    assert!(p99 <= 250.0, "{}", report.text());
}

/// A call for a minute over one uplink with such a one-way delay and loss.
fn alone(delay_ms: f64, loss: f64) -> Report {
    let mut only = UplinkSpec::new("only", LinkParams::new(20.0, delay_ms));
    only.up.loss = loss;
    only.down.loss = loss;
    play(&Plan::new("alone", 60.0, vec![only], vec![call(59.0)]))
}

#[test]
fn over_a_single_far_and_lossy_uplink_a_call_is_its_own_second_copy() {
    let report = alone(60.0, 0.03);
    assert_eq!(report.flows[0].missing, 0, "{}", report.text());
    // 60 ms, and 20 ms more for what follows itself; a repair takes a round trip more than that.
    let [_, _, p99] = report.flows[0].percentiles_ms.expect("a call has delays");
    assert!(p99 <= 81.0, "{}", report.text());
}

#[test]
fn nothing_follows_itself_over_a_clean_uplink_or_one_that_is_repaired_in_time() {
    for (delay_ms, loss) in [(60.0, 0.0), (15.0, 0.03)] {
        let report = alone(delay_ms, loss);
        for end in [&report.client, &report.server] {
            assert_eq!(counted(end, "duplicated"), 0, "{}", report.text());
        }
    }
}

//! A sender that understands congestion marks is marked where another would lose packets (RFC 3168, RFC 9331).
//!
//! Marks that nobody asked for, and any other change of a packet, are faults in every run ([`play`]).

use marline_sim::event::Plan;
use marline_sim::packet::Version;
use marline_sim::report::Report;
use marline_sim::tcp::Algorithm;
use marline_sim::workload::{Direction, FlowSpec};

use crate::harness::{bulk, fast_and_slow, play, play_beside_native, share};

/// What the sender's queue dropped, for whatever reason.
fn dropped(report: &Report, direction: Direction) -> u64 {
    let end = match direction {
        Direction::Down => &report.server,
        Direction::Up => &report.client,
    };
    ["queue_aqm", "queue_expired", "queue_full"]
        .iter()
        .map(|name| end.drops.get(*name).copied().unwrap_or_default())
        .sum()
}

fn plan(flow: FlowSpec) -> Plan {
    Plan {
        measure_from_s: 2.0,
        ..Plan::new("marks", 12.0, fast_and_slow(), vec![flow])
    }
}

/// Its share of the native sum.
fn marked_and_not_dropped(direction: Direction, version: Version, cc: Algorithm) -> f64 {
    let flow = FlowSpec {
        version,
        ..bulk(direction, cc)
    };
    let report = play_beside_native(&plan(flow));
    assert!(report.flows[0].marked > 0, "{}", report.text());
    assert_eq!(dropped(&report, direction), 0, "{}", report.text());
    share(&report.flows[0])
}

#[test]
fn a_download_that_understands_marks_gets_the_sum_and_loses_nothing_to_our_queue() {
    for version in [Version::V4, Version::V6] {
        let share = marked_and_not_dropped(Direction::Down, version, Algorithm::CubicEcn);
        assert!(share >= 0.85, "{version:?}: {share:.3}");
    }
}

#[test]
fn an_upload_that_understands_marks_gets_the_sum_and_loses_nothing_to_our_queue() {
    for version in [Version::V4, Version::V6] {
        let share = marked_and_not_dropped(Direction::Up, version, Algorithm::CubicEcn);
        assert!(share >= 0.85, "{version:?}: {share:.3}");
    }
}

/// The sum is not promised to it: this one does not pace, its bursts are marked after a millisecond, and it hardly
/// ever asks for more than the best path.
#[test]
fn a_scalable_sender_is_marked_so_early_that_it_loses_nothing_to_our_queue() {
    for direction in [Direction::Down, Direction::Up] {
        marked_and_not_dropped(direction, Version::V4, Algorithm::Prague);
    }
}

#[test]
fn who_does_not_ask_for_marks_gets_none_and_is_told_a_lower_window() {
    let report = play(&plan(bulk(Direction::Down, Algorithm::Cubic)));
    let lowered = report.server.counters["windows_lowered"];
    assert!(lowered > 0, "{}", report.text());
    assert_eq!(dropped(&report, Direction::Down), 0, "{}", report.text());
    assert_eq!(report.flows[0].marked, 0);
}

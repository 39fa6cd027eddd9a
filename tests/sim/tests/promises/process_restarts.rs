//! A killed process comes back without inner connections being lost, and the other end takes it for a new one: what it
//! knew of the paths was told by another clock, and perhaps of another uplink.

use marline_proto::PathState;
use marline_sim::event::{Event, Plan, UplinkSpec};
use marline_sim::link::{LinkParams, Nanos};
use marline_sim::packet::Side;
use marline_sim::report;
use marline_sim::tcp::Algorithm;
use marline_sim::workload::{Direction, FlowSpec};
use marline_sim::world::World;

use crate::harness::{bulk, fast_and_slow, pings, play};

/// What the processes' clocks show depends on the seed.
const SEEDS: std::ops::Range<u64> = 1..4;
const RATES_MBIT: [f64; 2] = [50.0, 10.0];
const DELAYS_MS: [f64; 2] = [7.5, 30.0];

/// A flow from 0.5 to 4.5 s and one from 7 s on, over uplinks that differ in all. In between something may happen.
fn before_and_after(direction: Direction, event: Option<&Event>) -> Plan {
    let uplink = |at: usize| LinkParams::new(RATES_MBIT[at], DELAYS_MS[at]);
    let uplinks = vec![
        UplinkSpec::new("fast", uplink(0)),
        UplinkSpec::new("slow", uplink(1)),
    ];
    let before = FlowSpec {
        stop_s: Some(4.5),
        ..bulk(direction, Algorithm::Cubic)
    };
    let after = FlowSpec {
        start_s: 7.0,
        ..bulk(direction, Algorithm::Cubic)
    };
    let flows = vec![before, after, pings()];
    let plan = Plan {
        measure_from_s: 7.0,
        ..Plan::new("restart", 9.0, uplinks, flows)
    };
    match event {
        Some(event) => plan.with(5.0, event.clone()),
        None => plan,
    }
}

/// What the second flow gets in its first two seconds, Mbit/s.
fn second_flow_gets(direction: Direction, event: Option<&Event>, seed: u64) -> f64 {
    let report = report::run(&before_and_after(direction, event), seed, "test");
    assert!(report.violations.is_empty(), "{}", report.text());
    report.flows[1].goodput_mbit_s
}

fn flows_begin_as_if_nothing_had_happened_after(event: &Event) {
    for direction in [Direction::Down, Direction::Up] {
        let undisturbed = second_flow_gets(direction, None, 1);
        for seed in SEEDS {
            let after = second_flow_gets(direction, Some(event), seed);
            assert!(
                after > 0.9 * undisturbed,
                "{direction:?}, seed {seed}: {after} Mbit/s instead of {undisturbed}"
            );
        }
    }
}

fn uplinks_are_known_for_what_they_are_after(event: &Event) {
    const BEFORE_THE_SECOND: Nanos = 6_900_000_000;
    for seed in SEEDS {
        let plan = before_and_after(Direction::Down, Some(event));
        let mut world = World::new(&plan, seed);
        world.run_until(BEFORE_THE_SECOND);
        for side in [Side::Client, Side::Server] {
            let paths = &world.snapshot(side).bonds[0].paths;
            assert_eq!(paths.len(), 2);
            for path in paths {
                let at = match side {
                    Side::Client => usize::from(path.name == "slow"),
                    Side::Server => usize::from(path.remote.ip().to_string() == "100.64.2.1"),
                };
                let carries = path.capacity_bit_s as f64 / 1e6 / RATES_MBIT[at];
                assert!((0.4..1.1).contains(&carries), "{side:?}: {path:?}");
                let there_and_back = 2.0 * DELAYS_MS[at];
                let quickest = DELAYS_MS[at] + DELAYS_MS[0];
                let rtt = quickest - 1.0..there_and_back + 5.0;
                assert!(rtt.contains(&path.rtt_min_ms), "{side:?}: {path:?}");
                let behind = path.behind_ms.expect("something passed over it");
                let really = DELAYS_MS[at] - DELAYS_MS[0];
                assert!((behind - really).abs() < 2.0, "{side:?}: {path:?}");
            }
        }
    }
}

#[test]
fn flows_begin_as_if_the_client_had_not_been_killed_though_it_finds_its_uplinks_in_another_order() {
    flows_begin_as_if_nothing_had_happened_after(&Event::RestartClient {});
}

#[test]
fn flows_begin_as_if_the_server_had_not_been_killed() {
    flows_begin_as_if_nothing_had_happened_after(&Event::RestartServer {});
}

#[test]
fn no_uplink_is_taken_for_another_after_the_client_was_killed() {
    uplinks_are_known_for_what_they_are_after(&Event::RestartClient {});
}

#[test]
fn no_uplink_is_taken_for_another_after_the_server_was_killed() {
    uplinks_are_known_for_what_they_are_after(&Event::RestartServer {});
}

#[test]
fn a_client_that_was_killed_is_answered_where_it_is_now() {
    for seed in SEEDS {
        let plan = Plan {
            measure_from_s: 4.8,
            ..before_and_after(Direction::Down, Some(&Event::RestartClient {}))
        };
        let report = report::run(&plan, seed, "test");
        // Four round trips: the handshake, the greeting, and a ping that waited for them.
        assert!(report.flows[2].gap_ms_max < 80.0, "{}", report.text());
    }
}

fn goes_on_after(event: Event) {
    let flows = vec![pings(), bulk(Direction::Down, Algorithm::Cubic)];
    let plan = Plan {
        measure_from_s: 1.0,
        ..Plan::new("restart", 16.0, fast_and_slow(), flows)
    }
    .with(5.0, event);
    let report = play(&plan);
    assert!(report.flows[0].gap_ms_max <= 5000.0, "{}", report.text());
    assert!(report.flows[1].gap_ms_max <= 8000.0, "{}", report.text());
}

#[test]
fn the_server_may_be_killed() {
    goes_on_after(Event::RestartServer {});
}

#[test]
fn the_client_may_be_killed() {
    goes_on_after(Event::RestartClient {});
}

#[test]
fn the_client_may_sleep() {
    goes_on_after(Event::Sleep { for_ms: 3000.0 });
}

#[test]
fn a_server_that_was_killed_between_a_handshake_and_its_greeting_is_found_within_seconds() {
    // Of an uplink with a round trip of 15 ms.
    for at_ms in [4, 10, 18, 22, 28] {
        let restart = (f64::from(at_ms) / 1e3, Event::RestartServer {});
        let plan =
            Plan::new("early", 10.0, fast_and_slow(), vec![pings()]).with(restart.0, restart.1);
        let mut world = World::new(&plan, 1);
        world.run_until(6_000_000_000);
        for path in &world.snapshot(Side::Client).bonds[0].paths {
            assert_eq!(path.state, PathState::Active, "{at_ms} ms: {path:?}");
        }
    }
}

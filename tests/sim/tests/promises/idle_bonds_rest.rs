//! Who asks for nothing pays next to nothing, and is reached all the same.

use marline_proto::Role;
use marline_sim::event::{Event, Plan, UplinkSpec, Way};
use marline_sim::link::Nanos;
use marline_sim::report::Report;
use marline_sim::tcp::Algorithm;
use marline_sim::workload::{Direction, FlowSpec, Kind};
use marline_sim::world::World;

use crate::harness::{blackhole, bulk, call, fast_and_slow, play};

const S: Nanos = 1_000_000_000;

/// The slower uplink stands by.
fn with_backup() -> Vec<UplinkSpec> {
    let [fast, slow] = fast_and_slow().try_into().expect("two uplinks");
    let role = Role::Backup;
    vec![fast, UplinkSpec { role, ..slow }]
}

/// Bytes that both directions of each uplink carry from one moment to another, seconds.
fn carried(plan: &Plan, from_s: u64, to_s: u64) -> Vec<u64> {
    let mut world = World::new(plan, 1);
    let carried = |world: &World| -> Vec<u64> {
        let both = |spec: &UplinkSpec| {
            let (up, down) = world.link_stats(&spec.name).expect("it exists");
            up.delivered_bytes + down.delivered_bytes
        };
        plan.uplink.iter().map(both).collect()
    };
    world.run_until(from_s * S);
    let before = carried(&world);
    world.run_until(to_s * S);
    let after = carried(&world);
    after.iter().zip(before).map(|(a, b)| a - b).collect()
}

#[test]
fn a_path_of_an_idle_bond_costs_less_than_ten_kilobytes_an_hour() {
    let plan = Plan::new("idle", 4_000.0, fast_and_slow(), Vec::new());
    let carried = carried(&plan, 400, 4_000);
    eprintln!("{carried:?} bytes in an idle hour");
    for bytes in carried {
        assert!((1..10_000).contains(&bytes), "{bytes} bytes");
    }
}

#[test]
fn a_backup_of_an_idle_bond_carries_no_byte() {
    let plan = Plan::new("idle", 4_000.0, with_backup(), Vec::new());
    let carried = carried(&plan, 200, 4_000);
    assert!((1..11_000).contains(&carried[0]), "{carried:?}");
    assert_eq!(carried[1], 0);
}

#[test]
fn a_backup_carries_no_byte_while_the_bond_is_in_use() {
    let plan = Plan::new("in use", 400.0, with_backup(), vec![call(400.0)]);
    assert_eq!(carried(&plan, 30, 400)[1], 0);
}

/// Datagrams for a client to whom nothing was sent for twenty minutes.
fn late_datagrams(uplinks: Vec<UplinkSpec>, events: &[(f64, Event)]) -> Report {
    let late = FlowSpec {
        start_s: 1_200.0,
        stop_s: Some(1_202.0),
        ..FlowSpec::new(Kind::Udp {
            direction: Direction::Down,
            rate_mbit: 0.5,
        })
    };
    let plan = Plan::new("late", 1_204.0, uplinks, vec![late]);
    let plan = events
        .iter()
        .fold(plan, |plan, (at, event)| plan.with(*at, event.clone()));
    play(&plan)
}

#[test]
fn a_client_that_rested_is_reached_without_a_lost_packet() {
    let report = late_datagrams(fast_and_slow(), &[]);
    assert_eq!(report.flows[0].missing, 0, "{}", report.text());
    for end in [&report.client, &report.server] {
        assert_eq!(end.events.get("PathDown"), None, "{}", report.text());
    }
}

#[test]
fn so_it_is_over_the_uplink_that_is_left() {
    for dead in ["fast", "slow"] {
        let report = late_datagrams(
            fast_and_slow(),
            &[(600.0, blackhole(dead, Way::Both, true))],
        );
        assert_eq!(report.flows[0].missing, 0, "{}", report.text());
    }
}

#[test]
fn so_it_is_half_a_minute_after_the_nat_or_the_server_forgot_it() {
    let rebind = |uplink: &str| Event::Rebind {
        uplink: uplink.to_owned(),
    };
    for events in [
        vec![(1_170.0, rebind("fast")), (1_170.0, rebind("slow"))],
        vec![(1_170.0, Event::RestartServer {})],
    ] {
        let report = late_datagrams(fast_and_slow(), &events);
        assert_eq!(report.flows[0].missing, 0, "{}", report.text());
    }
}

#[test]
fn what_a_client_that_rested_sends_first_waits_for_one_handshake() {
    let late = FlowSpec {
        start_s: 1_200.0,
        stop_s: Some(1_200.5),
        ..FlowSpec::new(Kind::Ping { interval_ms: 20.0 })
    };
    let report = play(&Plan::new("late", 1_203.0, fast_and_slow(), vec![late]));
    let ping = &report.flows[0];
    assert_eq!(ping.missing, 0, "{}", report.text());
    // The first one takes two round trips of 15 ms.
    let [_, _, worst] = ping.percentiles_ms.expect("pings have some");
    assert!(worst <= 35.0, "{worst} ms: {}", report.text());
}

#[test]
fn a_backup_takes_over_when_the_other_uplink_falls_silent_and_rests_again_after_that() {
    for direction in [Direction::Down, Direction::Up] {
        let later = |flow| FlowSpec {
            start_s: 200.0,
            ..flow
        };
        let flows = vec![later(bulk(direction, Algorithm::Cubic)), later(call(222.0))];
        let plan = Plan {
            measure_from_s: 201.0,
            ..Plan::new("backup", 224.0, with_backup(), flows)
        }
        .with(205.3, blackhole("fast", Way::Both, true))
        .with(208.3, blackhole("fast", Way::Both, false));
        let report = play(&plan);
        let [transfer, call] = &report.flows[..] else {
            panic!("two flows")
        };
        let gaps = [transfer.gap_ms_max, call.gap_ms_max];
        eprintln!(
            "{direction:?}: gaps {gaps:?} ms, {} of a call missing",
            call.missing
        );
        for flow in &report.flows {
            assert!(flow.gap_ms_max <= 250.0, "{}", report.text());
        }
        assert!(call.missing <= 8, "{}", report.text());
        assert_eq!(carried(&plan, 215, 224)[1], 0, "it rests again");
    }
}

#[test]
fn an_uplink_that_died_while_nobody_looked_costs_the_others_no_suspicion_without_end() {
    // What the server says to the client it does not know any more asks for answers, and those may take the dead one.
    let plan = Plan::new("died idle", 430.0, fast_and_slow(), Vec::new())
        .with(100.0, blackhole("fast", Way::Both, true))
        .with(300.0, Event::RestartServer {});
    let report = play(&plan);
    for end in [&report.client, &report.server] {
        let downs = end.events.get("PathDown").copied().unwrap_or_default();
        assert!(downs <= 6, "{}", report.text());
    }
}

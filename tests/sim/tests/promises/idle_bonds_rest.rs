//! Who asks for nothing pays next to nothing, and is reached all the same.

use marline_proto::PathState;
use marline_sim::event::{Event, Plan, UplinkSpec, Way};
use marline_sim::link::LinkParams;
use marline_sim::packet::{Side, Version};
use marline_sim::workload::FlowSpec;
use marline_sim::world::World;

use crate::harness::{
    S, blackhole, carried, fast_and_slow, late_datagrams, pings_between, play, play_late_datagrams,
};

#[test]
fn a_path_of_an_idle_bond_costs_less_than_ten_kilobytes_an_hour() {
    for version in [Version::V4, Version::V6] {
        let over = |spec| UplinkSpec { version, ..spec };
        let uplinks = fast_and_slow().into_iter().map(over).collect();
        let plan = Plan::new("idle", 4_000.0, uplinks, Vec::new());
        let carried = carried(&plan, 400, 4_000);
        eprintln!("{version:?}: {carried:?} bytes in an idle hour");
        for bytes in carried {
            assert!((1..10_000).contains(&bytes), "{bytes} bytes");
        }
    }
}

#[test]
fn a_client_that_rested_is_reached_without_a_lost_packet() {
    let report = play_late_datagrams(fast_and_slow(), &[]);
    assert_eq!(report.flows[0].missing, 0, "{}", report.text());
    for end in [&report.client, &report.server] {
        assert_eq!(end.events.get("PathDown"), None, "{}", report.text());
    }
}

#[test]
fn so_it_is_over_the_uplink_that_is_left() {
    for dead in ["fast", "slow"] {
        let report = play_late_datagrams(
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
        let report = play_late_datagrams(fast_and_slow(), &events);
        assert_eq!(report.flows[0].missing, 0, "{}", report.text());
    }
}

#[test]
fn what_a_client_that_rested_sends_first_waits_for_one_handshake() {
    let late = pings_between(1_200.0, 1_200.5, 20.0);
    let report = play(&Plan::new("late", 1_203.0, fast_and_slow(), vec![late]));
    let ping = &report.flows[0];
    assert_eq!(ping.missing, 0, "{}", report.text());
    // The first one takes two round trips of 15 ms.
    let [_, _, worst] = ping.percentiles_ms.expect("pings have some");
    assert!(worst <= 35.0, "{worst} ms: {}", report.text());
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

#[test]
fn an_uplink_that_dies_in_silence_while_nobody_looks_is_down_within_six_minutes_and_up_soon_after_its_return()
 {
    let plan = Plan::new("died idle", 2_000.0, fast_and_slow(), Vec::new())
        .with(600.0, blackhole("fast", Way::Both, true))
        .with(1_500.0, blackhole("fast", Way::Both, false));
    let mut world = World::new(&plan, 1);
    let mut fast_and_slow_at = |second: u64| {
        world.run_until(second * S);
        let paths = &world.snapshot(Side::Client).bonds[0].paths;
        [paths[0].state, paths[1].state]
    };
    const RESTING: PathState = PathState::Resting;
    assert_eq!(fast_and_slow_at(599), [RESTING, RESTING]);
    assert_eq!(fast_and_slow_at(960), [PathState::Connecting, RESTING]);
    assert_eq!(fast_and_slow_at(1_530), [PathState::Active, RESTING]);
    assert_eq!(fast_and_slow_at(2_000), [RESTING, RESTING]);
}

/// One uplink of 50 Mbit/s with this round trip.
fn lone(rtt_ms: f64) -> Vec<UplinkSpec> {
    vec![UplinkSpec::new("lone", LinkParams::new(50.0, rtt_ms / 2.0))]
}

#[test]
fn a_rest_ends_within_a_handshake_however_far_the_server_is() {
    for rtt_ms in [200.0, 260.0, 300.0, 600.0] {
        let pings = pings_between(600.0, 603.0, 200.0);
        let report = play(&Plan::new("far", 605.0, lone(rtt_ms), vec![pings]));
        // What is as urgent as a ping waits 150 ms and no longer.
        let in_a_round_trip = (rtt_ms / 200.0).ceil() as u64;
        let missing = report.flows[0].missing;
        assert!(missing <= in_a_round_trip, "{}", report.text());
    }
}

#[test]
fn nobody_is_called_a_forger_or_down_who_is_woken_just_after_a_session_ended() {
    for start_s in (0..14).map(|half| 179.75 + f64::from(half) / 2.0) {
        let sent = FlowSpec {
            start_s,
            stop_s: Some(start_s + 0.1),
            ..late_datagrams()
        };
        let report = play(&Plan::new("just ended", 190.0, lone(120.0), vec![sent]));
        let client = &report.client;
        assert_eq!(client.events.get("PathDown"), None, "{}", report.text());
        assert_eq!(client.drops.get("wake_forged"), None, "{}", report.text());
        assert_eq!(report.flows[0].missing, 0, "{}", report.text());
    }
}

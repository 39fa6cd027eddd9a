//! A backup costs nothing while another uplink serves, and is there when none does.

use marline_proto::{Mode, PathState};
use marline_sim::event::{Event, Plan, UplinkSpec, Way};
use marline_sim::link::LinkParams;
use marline_sim::packet::Side;
use marline_sim::tcp::Algorithm;
use marline_sim::workload::{Direction, FlowSpec};
use marline_sim::world::World;

use crate::harness::{
    S, blackhole, bulk, call, carried, late_datagrams, pings_between, play, play_late_datagrams,
    with_backup,
};

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

/// The carrier of an uplink goes or comes.
fn carrier(uplink: &str, up: bool) -> Event {
    let uplink = uplink.to_owned();
    Event::Carrier { uplink, up }
}

/// What the client's end of an uplink is in, and the bytes that it said over it.
fn seen_from_the_client(world: &World, uplink: &str) -> (PathState, u64) {
    let snapshot = world.snapshot(Side::Client);
    let mut paths = snapshot.bonds[0].paths.iter();
    let path = paths.find(|path| path.name == uplink).expect("it exists");
    (path.state, path.sent_bytes)
}

#[test]
fn a_client_whose_uplink_lost_its_carrier_while_it_rested_is_reached_over_its_backup() {
    let lost = [
        (1_140.0, carrier("fast", false)),
        (1_140.0, blackhole("fast", Way::Both, true)),
    ];
    let report = play_late_datagrams(with_backup(), &lost);
    assert_eq!(report.flows[0].missing, 0, "{}", report.text());
}

#[test]
fn so_is_one_whose_uplink_died_before_its_session_could_be_renewed() {
    let pings = pings_between(0.0, 100.0, 200.0);
    let flows = vec![late_datagrams(), pings];
    let plan = Plan::new("unrenewed", 1_204.0, with_backup(), flows)
        .with(120.0, blackhole("fast", Way::Both, true));
    let mut world = World::new(&plan, 1);
    world.run_until(290 * S);
    // Nobody takes it for one that rests.
    let (state, _) = seen_from_the_client(&world, "fast");
    assert_eq!(state, PathState::Connecting);
    let report = play(&plan);
    assert_eq!(report.flows[0].missing, 0, "{}", report.text());
}

#[test]
fn so_is_one_whose_uplink_died_in_silence_while_it_rested() {
    let died = [(600.0, blackhole("fast", Way::Both, true))];
    let report = play_late_datagrams(with_backup(), &died);
    assert_eq!(report.flows[0].missing, 0, "{}", report.text());
}

#[test]
fn a_backup_that_came_back_from_the_dead_costs_no_more_than_its_return() {
    let plan = Plan::new("returned", 100.0, with_backup(), vec![call(100.0)])
        .with(30.0, carrier("slow", false))
        .with(30.0, blackhole("slow", Way::Both, true))
        .with(35.0, blackhole("slow", Way::Both, false))
        .with(35.0, carrier("slow", true));
    let bytes = carried(&plan, 34, 100)[1];
    assert!((1..3_000).contains(&bytes), "{bytes} bytes");
}

#[test]
fn a_backup_that_did_not_answer_when_it_was_needed_costs_next_to_nothing_once_it_is_not() {
    let plan = Plan::new("in vain", 1_500.0, with_backup(), vec![call(1_500.0)])
        .with(200.0, blackhole("slow", Way::Both, true))
        .with(300.0, blackhole("fast", Way::Both, true))
        .with(310.0, blackhole("fast", Way::Both, false))
        .with(1_200.0, blackhole("slow", Way::Both, false));
    let mut world = World::new(&plan, 1);
    world.run_until(330 * S);
    let (_, before) = seen_from_the_client(&world, "slow");
    world.run_until(930 * S);
    let (state, after) = seen_from_the_client(&world, "slow");
    assert_ne!(state, PathState::Active);
    let an_hour = (after - before) * 6;
    assert!((1..40_000).contains(&an_hour), "{an_hour} bytes in an hour");
    // It is told as one that works soon after it does, and costs nothing once its session is over.
    world.run_until(1_230 * S);
    assert!(matches!(
        seen_from_the_client(&world, "slow").0,
        PathState::Active | PathState::Resting
    ));
    assert_eq!(carried(&plan, 1_450, 1_500)[1], 0);
}

#[test]
fn a_backup_joins_six_hundred_milliseconds_after_the_others_were_called_in_vain() {
    let late = pings_between(1_200.0, 1_202.0, 500.0);
    let plan = Plan::new("late", 1_203.0, with_backup(), vec![late])
        .with(1_190.0, blackhole("fast", Way::Both, true));
    let mut world = World::new(&plan, 1);
    let mut said_at = |ms: u64| {
        world.run_until(ms * (S / 1_000));
        seen_from_the_client(&world, "slow").1
    };
    let before = said_at(1_199_000);
    assert_eq!(said_at(1_200_595), before);
    assert_ne!(said_at(1_200_605), before);
}

#[test]
fn a_backup_is_not_called_because_the_other_uplink_is_far() {
    for rtt_ms in [300.0, 600.0] {
        let mut uplinks = with_backup();
        uplinks[0] = UplinkSpec::new("far", LinkParams::new(50.0, rtt_ms / 2.0));
        let pings = pings_between(600.0, 601.0, 400.0);
        let plan = Plan::new("far", 900.0, uplinks, vec![pings]);
        assert_eq!(carried(&plan, 500, 890)[1], 0);
    }
}

#[test]
fn a_backup_that_died_in_silence_is_told_of_a_mode_ever_more_rarely() {
    let plan = Plan::new("told", 240.0, with_backup(), vec![call(240.0)])
        .with(30.0, blackhole("slow", Way::Both, true))
        .with(
            40.0,
            Event::SetMode {
                mode: Mode::Redundant,
                class: None,
            },
        );
    let mut world = World::new(&plan, 1);
    world.run_until(39 * S);
    let (_, before) = seen_from_the_client(&world, "slow");
    world.run_until(240 * S);
    let (_, after) = seen_from_the_client(&world, "slow");
    assert!(
        (1..15_000).contains(&(after - before)),
        "{}",
        after - before
    );
}

//! An uplink that comes and goes leaves the others alone, and is used again.

use marline_proto::{Mode, Modes};
use marline_sim::event::{Event, Plan, Way};
use marline_sim::packet::Side;
use marline_sim::tcp::Algorithm;
use marline_sim::workload::Direction;
use marline_sim::world::World;

use crate::harness::{blackhole, bulk, call, fast_and_slow, play};

const S: u64 = 1_000_000_000;

#[test]
fn a_flapping_uplink_costs_no_more_than_itself() {
    let flows = vec![bulk(Direction::Down, Algorithm::Cubic)];
    let mut plan = Plan {
        measure_from_s: 1.0,
        ..Plan::new("flaps", 15.0, fast_and_slow(), flows)
    };
    for flap in 0..4 {
        let at_s = 2.0 + 3.0 * f64::from(flap);
        plan = plan
            .with(at_s, blackhole("slow", Way::Both, true))
            .with(at_s + 1.0, blackhole("slow", Way::Both, false));
    }
    let report = play(&plan);
    // The fast link alone carries 44 Mbit/s of TCP through a tunnel.
    assert!(report.flows[0].goodput_mbit_s >= 40.0, "{}", report.text());
    assert_eq!(report.flows[0].timeouts, 0, "{}", report.text());
}

/// A download and a call while the fast uplink is silent every second `half_period_s`, this way.
fn flapping(half_period_s: f64, way: Way) -> Plan {
    const END_S: f64 = 16.0;
    let flows = vec![bulk(Direction::Down, Algorithm::Cubic), call(END_S - 1.0)];
    let mut plan = Plan {
        measure_from_s: 2.0,
        ..Plan::new("flaps", END_S, fast_and_slow(), flows)
    };
    let mut at_s = 3.0;
    while at_s + half_period_s < END_S {
        plan = plan
            .with(at_s, blackhole("fast", way, true))
            .with(at_s + half_period_s, blackhole("fast", way, false));
        at_s += 2.0 * half_period_s;
    }
    plan
}

#[test]
fn the_best_uplink_may_flap_and_is_still_worth_having() {
    let mut plan = flapping(1.0, Way::Both);
    plan.uplink.remove(0);
    plan.event.clear();
    let alone = play(&plan).flows[0].goodput_mbit_s;
    for half_period_s in [0.25, 0.5, 1.0, 2.5] {
        for way in [Way::Both, Way::Up, Way::Down] {
            let report = play(&flapping(half_period_s, way));
            let told = format!("{half_period_s} s {way:?}: {}", report.text());
            assert!(report.flows[0].goodput_mbit_s > alone, "{told}");
            let call = &report.flows[1];
            assert_eq!(call.missing, 0, "{told}");
            assert!(call.gap_ms_max <= 100.0, "{told}");
        }
    }
}

#[test]
fn an_uplink_that_flaps_is_not_relied_on_before_it_is_proven() {
    // With one path at a time nothing is sent twice.
    for half_period_s in [0.5, 1.0, 2.0] {
        let plan = Plan {
            modes: Modes::all(Mode::Handover),
            ..flapping(half_period_s, Way::Both)
        };
        let report = play(&plan);
        let told = format!("{half_period_s} s: {}", report.text());
        let call = &report.flows[1];
        assert_eq!(call.missing, 0, "{told}");
        assert!(call.gap_ms_max <= 100.0, "{told}");
    }
}

#[test]
fn an_uplink_that_came_back_carries_its_share_within_three_seconds() {
    let flows = vec![bulk(Direction::Down, Algorithm::Cubic)];
    let plan = Plan::new("return", 12.0, fast_and_slow(), flows)
        .with(4.0, blackhole("slow", Way::Both, true))
        .with(6.0, blackhole("slow", Way::Both, false));
    let mut world = World::new(&plan, 1);
    world.run_until(9 * S);
    let before = world
        .link_stats("slow")
        .expect("it exists")
        .1
        .delivered_bytes;
    world.run_until(11 * S);
    let carried = world
        .link_stats("slow")
        .expect("it exists")
        .1
        .delivered_bytes
        - before;
    // Half of what it can carry in two seconds.
    assert!(carried > 2_500_000, "{carried} bytes; {:?}", world.news());
    assert_eq!(world.violations(), []);
}

/// BBR asks for no more than the other uplink carries, so nothing but its low delay speaks for the one that came back.
#[test]
fn an_uplink_that_one_direction_lost_carries_again_whatever_is_asked_for() {
    for (way, direction) in [(Way::Down, Direction::Down), (Way::Up, Direction::Up)] {
        for algorithm in [Algorithm::Bbr, Algorithm::Cubic] {
            for third in 0..3 {
                let off_s = 4.0 + 0.17 * f64::from(third);
                let plan = Plan {
                    measure_from_s: off_s + 6.0,
                    ..Plan::new(
                        "return",
                        16.0,
                        fast_and_slow(),
                        vec![bulk(direction, algorithm)],
                    )
                }
                .with(off_s, blackhole("fast", way, true))
                .with(off_s + 3.0, blackhole("fast", way, false));
                let report = play(&plan);
                // Far more than the slow link's 20.
                let goodput = report.flows[0].goodput_mbit_s;
                assert!(
                    goodput >= 40.0,
                    "{way:?} {algorithm:?} {off_s}: {}",
                    report.text()
                );
            }
        }
    }
}

#[test]
fn carrier_news_are_obeyed_at_once() {
    let flows = vec![bulk(Direction::Up, Algorithm::Cubic)];
    let event = |up| Event::Carrier {
        uplink: "fast".to_owned(),
        up,
    };
    let plan = Plan {
        measure_from_s: 1.0,
        ..Plan::new("carrier", 10.0, fast_and_slow(), flows)
    }
    .with(4.0, event(false))
    .with(6.0, event(true));
    let report = play(&plan);
    assert!(report.flows[0].gap_ms_max <= 250.0, "{}", report.text());
}

#[test]
fn with_every_uplink_gone_the_bond_waits_and_resumes() {
    let flows = vec![crate::harness::pings()];
    let mut plan = Plan::new("tunnel", 16.0, fast_and_slow(), flows);
    for uplink in ["fast", "slow"] {
        plan = plan
            .with(3.0, blackhole(uplink, Way::Both, true))
            .with(9.0, blackhole(uplink, Way::Both, false));
    }
    let mut world = World::new(&plan, 1);
    world.run_until(16 * S);
    assert_eq!(world.violations(), []);
    let gap = world.traffic().stats()[0].longest_gap(S, 16 * S);
    assert!((6 * S..9 * S).contains(&gap), "{gap}");
    assert!(world.snapshot(Side::Client).bonds[0].up);
}

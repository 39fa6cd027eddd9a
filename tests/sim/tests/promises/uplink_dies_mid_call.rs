//! An uplink that dies in silence interrupts neither a call nor a download.

use marline_proto::Event as News;
use marline_sim::event::{Event, Plan, UplinkSpec, Way};
use marline_sim::link::LinkParams;
use marline_sim::packet::Side;
use marline_sim::report;
use marline_sim::tcp::Algorithm;
use marline_sim::workload::Direction;
use marline_sim::world::World;

use crate::harness::{blackhole, bulk, call, fast_and_slow, play};

fn dies(uplink: &str, way: Way) {
    let flows = vec![call(9.0), bulk(Direction::Down, Algorithm::Cubic)];
    let plan = Plan {
        measure_from_s: 1.0,
        ..Plan::new("death", 10.0, fast_and_slow(), flows)
    }
    .with(4.0, blackhole(uplink, way, true))
    .with(7.0, blackhole(uplink, way, false));
    let report = play(&plan);
    let (call, download) = (&report.flows[0], &report.flows[1]);
    assert!(call.missing <= 5, "{}", report.text());
    assert!(download.gap_ms_max <= 500.0, "{}", report.text());
}

#[test]
fn the_faster_uplink_may_die() {
    dies("fast", Way::Both);
}

#[test]
fn the_slower_uplink_may_die() {
    dies("slow", Way::Both);
}

#[test]
fn one_direction_may_die() {
    dies("fast", Way::Down);
    dies("fast", Way::Up);
}

#[test]
fn a_call_alone_survives_as_well() {
    let plan = Plan::new("death", 10.0, fast_and_slow(), vec![call(9.0)])
        .with(4.0, blackhole("fast", Way::Both, true))
        .with(7.0, blackhole("fast", Way::Both, false));
    let report = play(&plan);
    assert!(report.flows[0].missing <= 5, "{}", report.text());
}

#[test]
fn an_uplink_whose_interface_goes_is_not_missed() {
    let flows = vec![call(9.0), bulk(Direction::Up, Algorithm::Cubic)];
    let plan = Plan {
        measure_from_s: 1.0,
        ..Plan::new("removal", 10.0, fast_and_slow(), flows)
    }
    .with(
        4.0,
        Event::Remove {
            uplink: "fast".to_owned(),
        },
    )
    .with(
        6.0,
        Event::Add {
            uplink: "fast".to_owned(),
        },
    );
    let report = play(&plan);
    assert!(report.flows[0].missing <= 5, "{}", report.text());
    assert!(report.flows[1].gap_ms_max <= 500.0, "{}", report.text());
}

#[test]
fn an_uplink_that_goes_casts_no_suspicion_on_the_others() {
    for seed in 1..=5 {
        for direction in [Direction::Down, Direction::Up] {
            let flows = vec![bulk(direction, Algorithm::Cubic)];
            let gone = Event::Remove {
                uplink: "fast".to_owned(),
            };
            let at_s = 4.0 + 0.013 * seed as f64;
            let plan = Plan::new("removal", 6.0, fast_and_slow(), flows).with(at_s, gone);
            let mut world = World::new(&plan, seed);
            world.run_until(plan.duration());
            for side in [Side::Client, Side::Server] {
                // An acknowledgement that was under way may raise hope for it once more.
                let downs: Vec<u8> = world
                    .news()
                    .iter()
                    .filter(|(_, s, _)| *s == side)
                    .filter_map(|(_, _, news)| match news {
                        News::PathDown { path, .. } => Some(*path),
                        _ => None,
                    })
                    .collect();
                let told = format!("seed {seed}, {direction:?}: {downs:?}");
                assert!(matches!(downs[..], [0] | [0, 0]), "{told}");
            }
        }
    }
}

/// The queue is suddenly as long as what the dead uplink carried: its sender is told a lower window, not by losses.
#[test]
fn no_tcp_sender_loses_a_packet_to_the_queue_that_a_death_leaves_behind() {
    for cc in [Algorithm::Cubic, Algorithm::Bbr] {
        for direction in [Direction::Down, Direction::Up] {
            let plan = Plan::new("death", 12.0, fast_and_slow(), vec![bulk(direction, cc)])
                .with(6.0, blackhole("fast", Way::Both, true))
                .with(10.0, blackhole("fast", Way::Both, false));
            let report = play(&plan);
            let flow = &report.flows[0];
            assert_eq!(flow.retransmitted, 0, "{}", report.text());
            assert!(flow.gap_ms_max <= 150.0, "{}", report.text());
        }
    }
}

#[test]
fn a_link_that_jitters_is_hardly_ever_suspected_where_a_flow_begins() {
    let jitters = LinkParams {
        jitter_ms: 20.0,
        ..LinkParams::new(50.0, 20.0)
    };
    let uplinks = ["one", "other"].map(|name| UplinkSpec::new(name, jitters.clone()));
    let downs = |seed| {
        let flows = vec![bulk(Direction::Down, Algorithm::Cubic)];
        let plan = Plan::new("jitter", 6.0, uplinks.to_vec(), flows);
        let report = report::run(&plan, seed, "test");
        let downs = [&report.client, &report.server].map(|end| end.events.get("PathDown").copied());
        downs.into_iter().flatten().sum::<u64>()
    };
    let downs: u64 = (1..=10).map(downs).sum();
    assert!(downs <= 8, "{downs} suspicions in ten runs");
}

//! A far uplink adds what it carries to a flow that can fill it, and is found out at nobody's cost.

use marline_sim::event::{Plan, UplinkSpec};
use marline_sim::link::LinkParams;
use marline_sim::tcp::Algorithm;
use marline_sim::workload::Direction;
use marline_sim::world::World;

use crate::harness::{bulk, call, fast_and_slow, play_beside_native, share};

const S: u64 = 1_000_000_000;
const SEEDS: [u64; 3] = [1, 2, 3];

/// The two usual uplinks, and one with 10 Mbit/s and a round trip of 150 ms.
fn three() -> Vec<UplinkSpec> {
    let mut uplinks = fast_and_slow();
    uplinks.push(UplinkSpec::new("far", LinkParams::new(10.0, 75.0)));
    uplinks
}

fn carried_by_far(world: &World) -> u64 {
    let stats = world.link_stats("far").expect("it exists");
    stats.1.delivered_bytes
}

#[test]
fn one_download_fills_an_uplink_that_is_far_behind() {
    for seed in SEEDS {
        let flows = vec![bulk(Direction::Down, Algorithm::Cubic)];
        let mut world = World::new(&Plan::new("three", 20.0, three(), flows), seed);
        world.run_until(13 * S);
        let before = carried_by_far(&world);
        world.run_until(19 * S);
        let mbit_s = (carried_by_far(&world) - before) as f64 * 8e-6 / 6.0;
        assert!(mbit_s > 8.0, "seed {seed}: {mbit_s:.1} Mbit/s");
        assert_eq!(world.violations(), []);
    }
}

/// A BBR keeps twice its first round trip under way for ten seconds, and the far uplink's is ten times as long. When
/// it forgets the first, it is on all of them at once.
#[test]
fn one_bbr_flow_is_led_over_to_an_uplink_beyond_its_window_after_ten_seconds() {
    for direction in [Direction::Down, Direction::Up] {
        let plan = Plan {
            measure_from_s: 13.0,
            ..Plan::new(
                "three",
                20.0,
                three(),
                vec![bulk(direction, Algorithm::Bbr)],
            )
        };
        let report = play_beside_native(&plan);
        assert!(share(&report.flows[0]) >= 0.9, "{}", report.text());
    }
}

#[test]
fn nothing_is_tried_without_a_flow_that_asks_for_more() {
    for seed in SEEDS {
        let mut world = World::new(&Plan::new("call", 10.0, three(), vec![call(9.0)]), seed);
        world.run_until(2 * S);
        // Greetings, and two trains that guess the rate.
        let first = carried_by_far(&world);
        assert!(first < 100_000, "seed {seed}: {first} bytes");
        world.run_until(10 * S);
        // A sign of life each second, no copies.
        let later = carried_by_far(&world) - first;
        assert!(later < 4_000, "seed {seed}: {later} bytes");
        assert_eq!(world.violations(), []);
    }
}

#[test]
fn what_a_trial_costs_is_bounded() {
    for seed in SEEDS {
        let flows = vec![bulk(Direction::Down, Algorithm::Cubic)];
        let mut world = World::new(&Plan::new("trial", 3.0, three(), flows), seed);
        world.run_until(3 * S);
        // The whole link for a second at most.
        let bytes = carried_by_far(&world);
        assert!(
            (100_000..1_250_000).contains(&bytes),
            "seed {seed}: {bytes} bytes"
        );
        assert_eq!(world.violations(), []);
    }
}

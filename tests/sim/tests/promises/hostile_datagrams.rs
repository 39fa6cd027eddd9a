//! Rubbish and copies from the network change nothing.

use marline_sim::event::{Event, Plan};
use marline_sim::packet::Side;
use marline_sim::world::World;

use crate::harness::{bulk, fast_and_slow, pings, play};
use marline_sim::tcp::Algorithm;
use marline_sim::workload::Direction;

#[test]
fn rubbish_is_counted_and_hurts_nobody() {
    let mut plan = Plan::new("rubbish", 4.0, fast_and_slow(), vec![pings()]);
    for uplink in ["fast", "slow"] {
        plan = plan.with(
            2.0,
            Event::Rubbish {
                uplink: uplink.to_owned(),
                datagrams: 2000,
            },
        );
    }
    let mut world = World::new(&plan, 1);
    world.run_until(4_000_000_000);
    assert_eq!(world.violations(), []);
    for side in [Side::Client, Side::Server] {
        let dropped: u64 = world.totals(side).drops.values().sum();
        assert!(dropped >= 2000, "{side:?}: {dropped}");
    }
    let gap = world.traffic().stats()[0].longest_gap(1_000_000_000, 3_900_000_000);
    assert!(gap < 60_000_000, "{gap}");
}

#[test]
fn datagrams_that_come_twice_are_delivered_once() {
    let mut uplinks = fast_and_slow();
    for uplink in &mut uplinks {
        uplink.duplicates = 0.2;
    }
    let flows = vec![bulk(Direction::Down, Algorithm::Cubic), pings()];
    let report = play(&Plan::new("copies", 4.0, uplinks, flows));
    assert_eq!(report.faults.twice, 0);
}

//! After an outage of every uplink all goes on as soon as the first is back, and nothing stale comes out.

use marline_sim::event::{Plan, Way};
use marline_sim::tcp::Algorithm;
use marline_sim::workload::Direction;
use marline_sim::world::World;

use crate::harness::{blackhole, bulk, call, fast_and_slow};

const MS: u64 = 1_000_000;
/// Each link falls silent, and comes back, this much later than the one before.
const STAGGER_S: f64 = 0.3;

struct Resumed {
    /// From the return of the first link to the first bytes of the transfer.
    transfer_ms: u64,
    /// The greatest age at which a packet of the call came out.
    oldest_ms: f64,
}

fn outage(links: usize, seconds: f64, way: Way, direction: Direction, cc: Algorithm) -> Resumed {
    let (from_s, to_s) = (4.0, 4.0 + seconds);
    let mut uplinks = fast_and_slow();
    uplinks.truncate(links);
    let names: Vec<_> = uplinks.iter().map(|u| u.name.clone()).collect();
    let flows = vec![bulk(direction, cc), call(to_s + 2.0)];
    let mut plan = Plan::new("outage", to_s + 3.0, uplinks, flows);
    for (name, later) in names.iter().zip([0.0, STAGGER_S]) {
        plan = plan
            .with(from_s + later, blackhole(name, way, true))
            .with(to_s + later, blackhole(name, way, false));
    }
    let mut world = World::new(&plan, 1);
    world.run_until(plan.duration());
    assert_eq!(world.violations(), []);
    let stats = world.traffic().stats();
    let back = (to_s * 1e9) as u64;
    let resumed = stats[0].progress.iter().find(|(at, _)| *at >= back);
    Resumed {
        transfer_ms: (resumed.expect("it goes on").0 - back) / MS,
        oldest_ms: stats[1].samples_ms.iter().copied().fold(0.0, f64::max),
    }
}

/// The transfer goes on within 300 ms of the first link.
fn goes_on(links: usize, seconds: f64, way: Way, direction: Direction, cc: Algorithm) {
    let transfer_ms = outage(links, seconds, way, direction, cc).transfer_ms;
    let what = format!("{links} links, {seconds} s, {way:?}, {direction:?}, {cc:?}");
    assert!(transfer_ms <= 300, "{what}: {transfer_ms}");
}

#[test]
fn a_transfer_goes_on_within_300_ms_of_the_first_link() {
    for seconds in [3.0, 8.0, 20.0] {
        for direction in [Direction::Down, Direction::Up] {
            for cc in [Algorithm::Cubic, Algorithm::Bbr] {
                goes_on(2, seconds, Way::Both, direction, cc);
            }
        }
    }
}

#[test]
fn so_it_does_over_one_link_and_after_the_silence_of_one_direction() {
    for links in [1, 2] {
        for way in [Way::Both, Way::Down, Way::Up] {
            goes_on(links, 8.0, way, Direction::Down, Algorithm::Cubic);
        }
    }
}

#[test]
fn a_call_gets_nothing_older_than_a_fifth_of_a_second() {
    for links in [1, 2] {
        for seconds in [0.5, 3.0, 8.0] {
            let resumed = outage(links, seconds, Way::Both, Direction::Down, Algorithm::Cubic);
            let what = format!("{links} links, {seconds} s");
            assert!(resumed.oldest_ms <= 200.0, "{what}: {}", resumed.oldest_ms);
        }
    }
}

//! A path carries what its link carries, of whatever kind the link is.

use marline_sim::event::{Plan, UplinkSpec};
use marline_sim::kinds::{self, Kind, Table};
use marline_sim::link::LinkParams;
use marline_sim::packet::Side;
use marline_sim::report;
use marline_sim::tcp::Algorithm;
use marline_sim::workload::{Direction, FlowSpec, Kind as Traffic};
use marline_sim::world::World;

use crate::harness::{bulk, pings};

fn table(kinds: &[Kind], rate_mbit: f64) -> Table {
    Table {
        kinds: kinds.to_vec(),
        rates_mbit: vec![rate_mbit],
        rtts_ms: vec![30.0],
        cc: vec![Algorithm::Cubic, Algorithm::Bbr],
        duration_s: 12.0,
        seed: 7,
        jobs: 2,
    }
}

/// Every cell carries more than this share of native, and no path dies.
#[track_caller]
fn carry(kinds: &[Kind], rate_mbit: f64, share: f64) {
    for cell in kinds::run(&table(kinds, rate_mbit), "test") {
        assert!(cell.share_of_native > share, "{cell:?}");
        assert_eq!(cell.deaths, 0, "{cell:?}");
    }
}

#[test]
fn a_link_that_bursts_lumps_stands_still_or_changes_its_route_carries_its_share_and_never_dies() {
    let kinds = [
        Kind::Bucket16,
        Kind::Bucket256,
        Kind::Lumps10,
        Kind::Routes,
        Kind::Shallow,
    ];
    carry(&kinds, 8.0, 0.8);
}

#[test]
fn a_slow_link_carries_its_share_and_never_dies() {
    carry(&[Kind::Steady, Kind::Deep], 0.5, 0.8);
}

#[test]
fn a_slow_link_with_a_deep_queue_keeps_it_short() {
    // Half a second fits in, and a full packet takes 24 ms.
    for cell in kinds::run(&table(&[Kind::Deep], 0.5), "test") {
        assert!(cell.ping_ms_p95 < 150.0, "{cell:?}");
    }
}

#[test]
fn a_link_that_drops_what_exceeds_its_rate_is_used_at_its_rate() {
    carry(&[Kind::Policer], 10.0, 0.9);
}

#[test]
fn a_link_whose_delays_scatter_carries_its_share() {
    let kinds = [
        Kind::Jitter3,
        Kind::Jitter5,
        Kind::Jitter10,
        Kind::Overtaking,
    ];
    carry(&kinds, 8.0, 0.7);
}

/// What CUBIC downloads over one link with a round trip of 100 ms, delays that scatter by 20 ms each way, and losses.
fn scattered(loss: f64, seed: u64) -> f64 {
    let link = LinkParams {
        jitter_ms: 20.0,
        loss,
        ..LinkParams::new(20.0, 50.0)
    };
    let uplinks = vec![UplinkSpec::new("far", link)];
    let flows = vec![bulk(Direction::Down, Algorithm::Cubic)];
    let plan = Plan {
        measure_from_s: 5.0,
        ..Plan::new("scattered", 15.0, uplinks, flows)
    };
    report::run(&plan, seed, "test").flows[0].goodput_mbit_s
}

#[test]
fn an_inner_sender_that_begins_slowly_is_not_starved_by_a_link_that_jitters() {
    // What jitter adds to the delay is no queue, and a sender with a small window proves nothing about the link.
    for seed in 1..=6 {
        let clean = scattered(0.0, seed);
        assert!(clean > 5.0, "seed {seed}: {clean} Mbit/s");
        let lossy = scattered(0.02, seed);
        assert!(lossy > 1.0, "seed {seed}: {lossy} Mbit/s");
    }
}

/// Two links of 50 Mbit/s whose delays scatter, and flows over them.
fn two_scattered(jitter_ms: f64, flows: Vec<FlowSpec>) -> Plan {
    let link = LinkParams {
        jitter_ms,
        ..LinkParams::new(50.0, 20.0)
    };
    let uplinks = ["one", "two"].map(|name| UplinkSpec::new(name, link.clone()));
    Plan::new("scattered", 30.0, uplinks.to_vec(), flows)
}

/// What both ends believe of their paths, Mbit/s.
fn believed(world: &World) -> Vec<f64> {
    let ends = [Side::Client, Side::Server].map(|side| world.snapshot(side));
    let paths = ends.iter().flat_map(|end| &end.bonds[0].paths);
    paths.map(|p| p.capacity_bit_s as f64 / 1e6).collect()
}

#[test]
fn an_idle_link_that_jitters_is_not_taken_for_a_slow_one() {
    for jitter_ms in [5.0, 10.0, 20.0] {
        // Nothing but greetings, probes and pings.
        let plan = two_scattered(jitter_ms, vec![pings()]);
        let slow = |seed| {
            let mut world = World::new(&plan, seed);
            world.run_until(1_500_000_000);
            believed(&world).iter().filter(|&&mbit| mbit < 2.5).count()
        };
        let slow: usize = (1..=10).map(slow).sum();
        assert_eq!(slow, 0, "{jitter_ms} ms, of 40 paths");
    }
}

#[test]
fn pings_over_a_link_that_jitters_do_not_wear_down_what_it_is_believed_to_carry() {
    let pings = FlowSpec {
        start_s: 0.5,
        ..FlowSpec::new(Traffic::Ping { interval_ms: 50.0 })
    };
    let download = FlowSpec {
        start_s: 1.0,
        stop_s: Some(8.0),
        ..bulk(Direction::Down, Algorithm::Bbr)
    };
    let plan = two_scattered(20.0, vec![pings, download]);
    for seed in 1..=2 {
        let mut world = World::new(&plan, seed);
        world.run_until(12_000_000_000);
        let before = believed(&world);
        world.run_until(29_000_000_000);
        for (before, after) in before.iter().zip(believed(&world)) {
            assert!(
                after > 0.7 * before,
                "seed {seed}: {before}, then {after} Mbit/s"
            );
        }
    }
}

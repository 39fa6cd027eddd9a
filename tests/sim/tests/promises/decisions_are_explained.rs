//! Whoever asks is told what is decided about each path and each busy flow, and why.

use marline_proto::{
    BondSnapshot, Class, CopyReason, FlowReason, FlowSnapshot, FlowWay, PathSnapshot, Rank,
    RateReason,
};
use marline_sim::event::{Plan, UplinkSpec, Way};
use marline_sim::link::LinkParams;
use marline_sim::packet::Side;
use marline_sim::tcp::Algorithm;
use marline_sim::workload::{Direction, FlowSpec};
use marline_sim::world::World;

use crate::harness::{blackhole, bulk, call, fast_and_slow};

const MS: u64 = 1_000_000;

/// The server's picture at a moment.
fn at(plan: &Plan, ms: u64) -> BondSnapshot {
    let mut world = World::new(plan, 1);
    world.run_until(ms * MS);
    picture(&world)
}

fn picture(world: &World) -> BondSnapshot {
    world.snapshot(Side::Server).bonds.remove(0)
}

/// Its path over an uplink, in the order in which the plan names them.
fn path(bond: &BondSnapshot, uplink: usize) -> &PathSnapshot {
    let mut paths: Vec<&PathSnapshot> = bond.paths.iter().collect();
    paths.sort_by_key(|path| path.id);
    paths[uplink]
}

fn busiest(bond: &BondSnapshot) -> &FlowSnapshot {
    bond.busiest.first().expect("a flow")
}

#[test]
fn a_download_says_that_it_uses_both_uplinks_and_why() {
    let flows = vec![bulk(Direction::Down, Algorithm::Cubic), call(9.0)];
    let bond = at(&Plan::new("two", 10.0, fast_and_slow(), flows), 8_000);
    let download = busiest(&bond);
    assert_eq!(download.class, Class::Bulk);
    assert_eq!(download.protocol, 6);
    assert_eq!(download.paths.len(), 2, "{download:?}");
    assert_ne!(download.way, FlowWay::Best, "{download:?}");
    let mbit_s = download.rate_bit_s as f64 / 1e6;
    assert!((40.0..75.0).contains(&mbit_s), "{download:?}");
    let call = &bond.busiest[1];
    assert_eq!((call.class, call.way), (Class::Realtime, FlowWay::Best));
    assert_eq!(call.reason, FlowReason::Class);
    assert_eq!(call.copied, Some(CopyReason::Thin));
    assert_eq!(call.paths.len(), 1, "{call:?}");
    for (uplink, rank) in [(0, Rank::Best), (1, Rank::Wide)] {
        let path = path(&bond, uplink);
        assert_eq!((path.rank, path.carries_bulk), (rank, true), "{path:?}");
        let pace = path.pace_bit_s as f64 / path.capacity_bit_s as f64;
        assert!((0.7..1.1).contains(&pace), "{path:?}");
    }
    let behind = path(&bond, 1).behind_ms.expect("both are known");
    assert!((17.5..27.5).contains(&behind), "{behind} ms of 22.5");
}

/// Thin and quick beside fat and far: what may become long begins on the set, at its latency.
#[test]
fn a_flow_that_keeps_the_latency_of_a_far_set_says_so() {
    let uplinks = vec![
        UplinkSpec::new("thin", LinkParams::new(8.0, 7.5)),
        UplinkSpec::new("fat", LinkParams::new(40.0, 50.0)),
    ];
    let flows = vec![FlowSpec {
        start_s: 2.0,
        ..FlowSpec::bulk(Direction::Down, Algorithm::Bbr)
    }];
    let bond = at(&Plan::new("thin and fat", 8.0, uplinks, flows), 6_000);
    let download = busiest(&bond);
    assert_eq!(
        (download.way, download.reason),
        (FlowWay::Steady, FlowReason::FarSet)
    );
    assert!((40.0..70.0).contains(&download.latency_ms), "{download:?}");
    assert!(bond.paths.iter().all(|path| path.in_set));
}

#[test]
fn a_rate_that_losses_gave_a_start_and_a_memory_are_told_apart() {
    let policed = LinkParams {
        rate_mbit: None,
        policer_mbit: Some(10.0),
        policer_burst_bytes: 100_000,
        ..LinkParams::new(10.0, 15.0)
    };
    let uplinks = vec![UplinkSpec::new("policed", policed)];
    let flows = vec![bulk(Direction::Down, Algorithm::Bbr)];
    let mut world = World::new(&Plan::new("policed", 12.0, uplinks, flows), 1);
    let reason = |ms| {
        world.run_until(ms * MS);
        path(&picture(&world), 0).rate_reason
    };
    let reasons: Vec<RateReason> = (600..6_000).step_by(100).map(reason).collect();
    assert!(reasons.contains(&RateReason::Losses), "{reasons:?}");

    let uplinks = vec![UplinkSpec::new("only", LinkParams::new(20.0, 15.0))];
    let plan = Plan::new("outage", 8.0, uplinks, Vec::new())
        .with(3.0, blackhole("only", Way::Both, true))
        .with(5.0, blackhole("only", Way::Both, false));
    let reason = |ms| path(&at(&plan, ms), 0).rate_reason;
    assert_eq!(reason(2_500), RateReason::Guessed);
    assert_eq!(reason(7_900), RateReason::Memory);
}

#[test]
fn a_path_that_carries_nothing_says_why() {
    let mut uplinks = fast_and_slow();
    uplinks[1].role = marline_proto::Role::Backup;
    let flows = vec![bulk(Direction::Down, Algorithm::Cubic)];
    let plan = Plan::new("backup", 8.0, uplinks, flows.clone());
    let bond = at(&plan, 4_000);
    assert_eq!(path(&bond, 1).rank, Rank::Backup);
    assert!(!path(&bond, 1).carries_bulk);
    assert_eq!(busiest(&bond).paths, [path(&bond, 0).id]);

    let dead = Plan::new("dead", 8.0, fast_and_slow(), flows)
        .with(3.0, blackhole("fast", Way::Both, true));
    let bond = at(&dead, 6_000);
    assert_eq!(path(&bond, 0).rank, Rank::Down);
    assert_eq!(path(&bond, 1).rank, Rank::Best);
}

#[test]
fn trials_and_leads_are_counted() {
    let mut uplinks = fast_and_slow();
    uplinks.push(UplinkSpec::new("far", LinkParams::new(10.0, 75.0)));
    let flows = vec![bulk(Direction::Down, Algorithm::Bbr)];
    let bond = at(&Plan::new("three", 26.0, uplinks, flows), 25_000);
    assert!(bond.counters["trials"] > 0, "{:?}", bond.counters);
    assert_eq!(bond.counters["led"], 1, "{:?}", bond.counters);
    let download = busiest(&bond);
    assert!(
        matches!(download.way, FlowWay::Led | FlowWay::Steady),
        "{download:?}"
    );
    assert!(download.latency_ms > 0.0, "{download:?}");
}

/// Looking must not be acting: a picture is no reason to decide anew.
#[test]
fn whoever_looks_changes_nothing() {
    let flows = vec![bulk(Direction::Down, Algorithm::Cubic), call(3.0)];
    let plan = Plan::new("looked at", 4.0, fast_and_slow(), flows);
    let fingerprint = |look: bool| {
        let mut world = World::new(&plan, 3);
        for ms in (0..4_000).step_by(7) {
            world.run_until(ms * MS);
            if look {
                world.snapshot(Side::Client);
                world.snapshot(Side::Server);
            }
        }
        world.fingerprint()
    };
    assert_eq!(fingerprint(true), fingerprint(false));
}

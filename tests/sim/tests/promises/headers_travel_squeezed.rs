//! What the other side knows of a header is not sent again, whatever happens to the processes and sessions at both ends.

use marline_sim::event::{Event, Plan, UplinkSpec};
use marline_sim::link::LinkParams;
use marline_sim::packet::Side;
use marline_sim::tcp::Algorithm;
use marline_sim::workload::Direction;
use marline_sim::world::{Totals, World};

use crate::harness::{bulk, fast_and_slow, play};

const SECOND: u64 = 1_000_000_000;

fn count(totals: &Totals, name: &str) -> u64 {
    totals.counters.get(name).copied().unwrap_or(0)
}

fn unknown(totals: &Totals) -> u64 {
    totals
        .drops
        .get("squeezed_base_unknown")
        .copied()
        .unwrap_or(0)
}

#[test]
fn nearly_all_packets_of_a_long_download_are_squeezed_though_they_take_two_ways() {
    let mut uplinks = fast_and_slow();
    uplinks[1].down.loss = 0.02;
    let flows = vec![bulk(Direction::Down, Algorithm::Cubic)];
    let report = play(&Plan::new("download", 10.0, uplinks, flows));
    let offered: u64 = report.uplinks.iter().map(|u| u.down.offered).sum();
    // Over each uplink, the pings of two trains that guess its rate, and as many answers.
    let sent = offered - 2 * 2 * 74;
    let squeezed = count(&report.server, "squeezed");
    assert!(squeezed * 100 > sent * 95, "{squeezed} of {sent}");
    assert_eq!(unknown(&report.client), 0, "{}", report.text());
    assert_eq!(unknown(&report.server), 0, "{}", report.text());
}

#[test]
fn a_base_outlives_the_session_that_brought_it() {
    // Sessions are replaced after two minutes.
    let uplinks = vec![
        UplinkSpec::new("one", LinkParams::new(4.0, 10.0)),
        UplinkSpec::new("other", LinkParams::new(4.0, 40.0)),
    ];
    let flows = vec![bulk(Direction::Down, Algorithm::Cubic)];
    let plan = Plan::new("rekey", 260.0, uplinks, flows);
    let mut world = World::new(&plan, 1);
    world.run_until(260 * SECOND);
    let server = world.totals(Side::Server);
    let squeezed = count(&server, "squeezed");
    let sent = world.snapshot(Side::Server).bonds[0].packets_in;
    assert!(squeezed * 100 > sent * 97, "{squeezed} of {sent}");
    assert_eq!(unknown(&server) + unknown(&world.totals(Side::Client)), 0);
    assert!(world.violations().is_empty(), "{:?}", world.violations());
}

fn is_squeezed_again_after(event: Event) {
    let flows = vec![bulk(Direction::Down, Algorithm::Cubic)];
    let plan = Plan::new("restart", 16.0, fast_and_slow(), flows).with(5.0, event);
    let mut world = World::new(&plan, 1);
    let squeezed = |world: &World| count(&world.totals(Side::Server), "squeezed");
    world.run_until(5 * SECOND);
    assert!(squeezed(&world) > 1_000);
    world.run_until(15 * SECOND);
    let before = squeezed(&world);
    world.run_until(16 * SECOND);
    assert!(squeezed(&world) > before + 1_000, "of the last second");
    assert!(world.violations().is_empty(), "{:?}", world.violations());
}

#[test]
fn a_restarted_server_begins_anew() {
    is_squeezed_again_after(Event::RestartServer {});
}

#[test]
fn a_restarted_client_begins_anew() {
    is_squeezed_again_after(Event::RestartClient {});
}

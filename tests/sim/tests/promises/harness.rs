//! The verbs of the promises.

use marline_proto::Role;
use marline_sim::event::{Event, LinkChange, Plan, UplinkSpec, Way};
use marline_sim::link::{LinkParams, Nanos};
use marline_sim::report::{self, FlowReport, Report};
use marline_sim::tcp::Algorithm;
use marline_sim::workload::{Direction, FlowSpec, Kind};
use marline_sim::world::{Totals, World};

/// A second of a world.
pub const S: Nanos = 1_000_000_000;

/// 50 Mbit/s with a round trip of 15 ms, and 20 Mbit/s with one of 60 ms.
pub fn fast_and_slow() -> Vec<UplinkSpec> {
    vec![
        UplinkSpec::new("fast", LinkParams::new(50.0, 7.5)),
        UplinkSpec::new("slow", LinkParams::new(20.0, 30.0)),
    ]
}

/// The slower uplink stands by.
pub fn with_backup() -> Vec<UplinkSpec> {
    let [fast, slow] = fast_and_slow().try_into().expect("two uplinks");
    let role = Role::Backup;
    vec![fast, UplinkSpec { role, ..slow }]
}

/// An endless download or upload that begins when the bond is up.
pub fn bulk(direction: Direction, cc: Algorithm) -> FlowSpec {
    FlowSpec {
        start_s: 0.5,
        ..FlowSpec::bulk(direction, cc)
    }
}

/// A call that begins when the bond is up, and ends before the run does, so that
/// nothing of it is on its way at the end.
pub fn call(stop_s: f64) -> FlowSpec {
    FlowSpec {
        start_s: 0.5,
        stop_s: Some(stop_s),
        ..FlowSpec::new(Kind::Voice {})
    }
}

/// Pings that begin when the bond is up.
pub fn pings() -> FlowSpec {
    FlowSpec {
        start_s: 0.5,
        ..FlowSpec::new(Kind::Ping { interval_ms: 20.0 })
    }
}

/// Pings between two moments, seconds, so many milliseconds apart.
pub fn pings_between(start_s: f64, stop_s: f64, interval_ms: f64) -> FlowSpec {
    FlowSpec {
        start_s,
        stop_s: Some(stop_s),
        ..FlowSpec::new(Kind::Ping { interval_ms })
    }
}

/// A link begins or stops to swallow everything in silence.
pub fn blackhole(uplink: &str, way: Way, on: bool) -> Event {
    Event::Link(LinkChange {
        blackhole: Some(on),
        ..LinkChange::of(uplink, way)
    })
}

/// Plays a plan in which nothing may happen that must not.
pub fn play(plan: &Plan) -> Report {
    let report = report::run(plan, 1, "test");
    assert!(report.violations.is_empty(), "{}", report.text());
    report
}

/// Plays a plan and compares with what the links carry without a tunnel.
pub fn play_beside_native(plan: &Plan) -> Report {
    let mut report = play(plan);
    report::compare_with_native(&mut report, plan, 1);
    report
}

/// The goodput of a flow as a share of the native sum.
pub fn share(flow: &FlowReport) -> f64 {
    flow.share_of_native_sum
        .expect("an endless TCP flow has one")
}

/// What an end counted under this name.
pub fn counted(end: &Totals, name: &str) -> u64 {
    end.counters.get(name).copied().unwrap_or_default()
}

/// Bytes that both directions of each uplink carry from one moment to another, seconds.
pub fn carried(plan: &Plan, from_s: u64, to_s: u64) -> Vec<u64> {
    let mut world = World::new(plan, 1);
    let carried = |world: &World| -> Vec<u64> {
        let both = |spec: &UplinkSpec| {
            let (up, down) = world.link_stats(&spec.name).expect("it exists");
            up.delivered_bytes + down.delivered_bytes
        };
        plan.uplink.iter().map(both).collect()
    };
    world.run_until(from_s * S);
    let before = carried(&world);
    world.run_until(to_s * S);
    let after = carried(&world);
    after.iter().zip(before).map(|(a, b)| a - b).collect()
}

/// Datagrams for a client, in the twenty-first minute.
pub fn late_datagrams() -> FlowSpec {
    FlowSpec {
        start_s: 1_200.0,
        stop_s: Some(1_202.0),
        ..FlowSpec::new(Kind::Udp {
            direction: Direction::Down,
            rate_mbit: 0.5,
        })
    }
}

/// Plays those for a client that nobody used before, over uplinks to which things happen at moments, seconds.
pub fn play_late_datagrams(uplinks: Vec<UplinkSpec>, events: &[(f64, Event)]) -> Report {
    let plan = Plan::new("late", 1_204.0, uplinks, vec![late_datagrams()]);
    let plan = events
        .iter()
        .fold(plan, |plan, (at, event)| plan.with(*at, event.clone()));
    play(&plan)
}

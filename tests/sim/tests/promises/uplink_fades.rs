//! A call and a transfer survive a walk out of the range of Wi-Fi.

use marline_sim::event::{Event, LinkChange, Plan, UplinkSpec, Way};
use marline_sim::link::LinkParams;
use marline_sim::tcp::Algorithm;
use marline_sim::workload::{Direction, FlowStats};
use marline_sim::world::World;

use crate::harness::{blackhole, bulk, call};

const MS: u64 = 1_000_000;

/// Within `seconds`, from 70 Mbit/s to 1, from no loss to a fifth, from 2 ms of jitter to 60; then silence.
fn walk(seconds: u32, direction: Direction, seed: u64) -> Vec<FlowStats> {
    let link = |rate, delay| LinkParams {
        jitter_ms: 2.0,
        ..LinkParams::new(rate, delay)
    };
    let uplinks = vec![
        UplinkSpec::new("wifi", link(70.0, 4.0)),
        UplinkSpec::new("lte", link(20.0, 25.0)),
    ];
    let end_s = 4.0 + f64::from(seconds);
    let flows = vec![bulk(direction, Algorithm::Cubic), call(end_s + 4.0)];
    let mut plan = Plan::new("walk", end_s + 5.0, uplinks, flows);
    for second in 0..seconds {
        let far = f64::from(second + 1) / f64::from(seconds);
        let fades = Event::Link(LinkChange {
            rate_mbit: Some(70.0 * (1.0f64 / 70.0).powf(far)),
            jitter_ms: Some(2.0 * 30.0f64.powf(far)),
            loss: Some(0.2 * far),
            ..LinkChange::of("wifi", Way::Both)
        });
        plan = plan.with(4.0 + f64::from(second), fades);
    }
    plan = plan.with(end_s, blackhole("wifi", Way::Both, true));
    let mut world = World::new(&plan, seed);
    world.run_until(plan.duration());
    assert_eq!(world.violations(), []);
    world.traffic().stats()
}

/// Slow and quick walks, each way.
fn walks() -> impl Iterator<Item = (u32, Direction, u64)> {
    [3, 8].into_iter().flat_map(|seconds| {
        [Direction::Down, Direction::Up]
            .into_iter()
            .flat_map(move |direction| (1..=10).map(move |seed| (seconds, direction, seed)))
    })
}

#[test]
fn the_call_hardly_notices() {
    let (mut sent, mut missed) = (0, 0);
    for (seconds, direction, seed) in walks() {
        let stats = walk(seconds, direction, seed);
        let (call, what) = (
            &stats[1],
            format!("{seconds} s, {direction:?}, seed {seed}"),
        );
        let idle_ms = call.samples_ms.iter().copied().fold(f64::MAX, f64::min);
        let late = call.samples_ms.iter().filter(|ms| **ms > idle_ms + 60.0);
        sent += call.sent;
        missed += call.sent - call.arrived + late.count() as u64;
        let gap_ms = call.longest_gap(1_000 * MS, u64::from(seconds + 8) * 1_000 * MS) / MS;
        assert!(gap_ms <= 100, "{what}: {gap_ms}");
    }
    assert!(missed * 100 < sent, "{missed} of {sent} late or lost");
}

#[test]
fn a_transfer_pauses_for_less_than_a_second_and_seldom_for_half_of_one() {
    let mut pauses_ms: Vec<u64> = walks()
        .map(|(seconds, direction, seed)| {
            let stats = walk(seconds, direction, seed);
            stats[0].longest_gap(1_000 * MS, u64::from(seconds + 8) * 1_000 * MS) / MS
        })
        .collect();
    pauses_ms.sort_unstable();
    let longest = pauses_ms[pauses_ms.len() - 1];
    let four_of_five = pauses_ms[pauses_ms.len() * 4 / 5];
    assert!(longest < 1_000 && four_of_five < 500, "{pauses_ms:?}");
}

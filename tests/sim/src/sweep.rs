//! One bulk flow over many random links: does the bond carry the sum, everywhere?
//!
//! A figure from one pair of links says little about the next pair. So a sweep
//! draws, from each seed, one to five links that stand still for the whole run
//! (rates from 2 to 500 Mbit/s, round trips from 5 to 300 ms, loss up to 3 %,
//! jitter), and plays one download over them with each congestion control: through
//! the bond, through a bond of each link alone, and natively on each link alone,
//! all in the simulator. What comes out is a distribution ([`summary`]), and the
//! worst seeds with their links, to be looked at one by one with
//! `marline-sim sweep --show-plan`.
//!
//! Random links are rarely alike. [`Links::Grid`] draws two to four links from a grid
//! instead ([`grid`]), without jitter, where a mark is set that each cell is to reach.
//!
//! Rates are drawn on a logarithmic scale. Where their sum passes
//! [`SUM_MBIT_MAX`], all of a seed are scaled down together, though none below
//! [`RATE_MBIT_MIN`]: what matters to the bond are ratios and round trips, and a
//! run's price is its number of packets.

mod grid;
mod summary;

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use serde::Serialize;

use crate::event::{Plan, UplinkSpec};
use crate::link::{Jitter, LinkParams, Nanos};
use crate::packet::Side;
use crate::report;
use crate::rng::Rng;
use crate::tcp::Algorithm;
use crate::workload::{Direction, FlowSpec};
use crate::world::World;

pub use summary::{Quantiles, Summary, summarise};

/// Sum of the rates that one seed is scaled down to, Mbit/s.
pub const SUM_MBIT_MAX: f64 = 80.0;
/// Least rate of a link, Mbit/s.
pub const RATE_MBIT_MIN: f64 = 2.0;
/// Greatest rate of a link before scaling, Mbit/s.
const RATE_MBIT_MAX: f64 = 500.0;
/// When the flow begins, seconds: also a path with a round trip of 300 ms has shaken hands and guessed its rate.
const START_S: f64 = 2.0;
/// Share of the run that is measured, at its end: slow start is over.
const MEASURED_SHARE: f64 = 2.0 / 3.0;
/// What native TCP carries of an Ethernet frame of 1,514 bytes.
const TCP_SHARE_OF_WIRE: f64 = 1448.0 / 1514.0;

/// What kind of links a seed draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Links {
    /// One to five, of any rate, round trip, loss and jitter.
    Random,
    /// Two to four, of a few rates, round trips and losses.
    Grid,
}

/// What to sweep over.
#[derive(Clone, Debug)]
pub struct Sweep {
    /// What is drawn.
    pub links: Links,
    /// Seeds, the last not included.
    pub seeds: (u64, u64),
    /// Congestion controls of the flow, in turn.
    pub cc: Vec<Algorithm>,
    /// Virtual length of each run, seconds.
    pub duration_s: f64,
    /// Threads to play on. The figures do not depend on it.
    pub jobs: usize,
}

/// One link of a cell.
#[derive(Clone, Debug, Serialize)]
pub struct LinkCell {
    /// Rate, Mbit/s.
    pub rate_mbit: f64,
    /// Round trip of the empty link, milliseconds.
    pub rtt_ms: f64,
    /// Standard deviation of its delay, one way, milliseconds.
    pub jitter_ms: f64,
    /// Share of packets lost, each way.
    pub loss: f64,
    /// What the flow gets on it without any tunnel, Mbit/s.
    pub native_mbit_s: f64,
    /// What the flow gets through a bond of this link alone, Mbit/s.
    pub tunnel_mbit_s: f64,
    /// How much of its rate it carried in the bond of all links while measured.
    pub used: f64,
}

/// One seed with one congestion control.
#[derive(Clone, Debug, Serialize)]
pub struct Cell {
    /// The seed.
    pub seed: u64,
    /// The flow's congestion control.
    pub cc: Algorithm,
    /// The links.
    pub links: Vec<LinkCell>,
    /// What the flow got through the bond, Mbit/s.
    pub goodput_mbit_s: f64,
    /// Divided by the sum of what it gets natively on each link alone.
    pub share_of_native_sum: f64,
    /// Divided by what the links could carry of TCP after their losses: a flow that random
    /// loss stops natively makes the native sum small, but not this.
    pub share_of_capacity: f64,
    /// Divided by the sum of what it gets on each link alone, each through the same tunnel.
    pub share_of_tunnel_sum: f64,
    /// Divided by the best of the links alone, each through the same tunnel.
    pub ratio_to_best_single: f64,
    /// Longest time without anything for the application while measured, milliseconds.
    pub gap_ms_max: f64,
    /// Reductions of the inner sender's window in the whole run.
    pub reductions: u64,
    /// Its retransmission timeouts.
    pub timeouts: u64,
    /// Packets that the bond's sender dropped for having waited.
    pub queue_dropped: u64,
    /// Packets that the bond sent again.
    pub retransmitted: u64,
    /// Holes that the bond's receiver gave up.
    pub skipped: u64,
}

impl Cell {
    /// Difference between the longest and the shortest round trip of its links, milliseconds.
    pub fn spread_ms(&self) -> f64 {
        let rtt = |link: &LinkCell| link.rtt_ms;
        let longest = self.links.iter().map(rtt).fold(0.0, f64::max);
        longest - self.links.iter().map(rtt).fold(longest, f64::min)
    }

    /// The greatest loss among its links.
    pub fn loss(&self) -> f64 {
        self.links.iter().map(|link| link.loss).fold(0.0, f64::max)
    }

    /// The share of the tunnel sum that it is to reach, where one is asked.
    pub fn mark(&self) -> Option<f64> {
        let one_way_spread_ms = self.spread_ms() / 2.0;
        let several = self.links.len() > 1 && one_way_spread_ms <= 100.0;
        match self.loss() {
            loss if several && loss <= 0.005 => Some(0.95),
            loss if several && loss <= 0.02 => Some(0.85),
            _ => None,
        }
    }
}

/// The plan of a seed: its links, and one download.
pub fn plan(links: Links, seed: u64, cc: Algorithm, duration_s: f64) -> Plan {
    let (kind, links) = match links {
        Links::Random => ("sweep", random_links(seed)),
        Links::Grid => ("grid", grid::links(seed)),
    };
    let uplinks = links
        .into_iter()
        .enumerate()
        .map(|(index, link)| UplinkSpec::new(&format!("u{}", index + 1), link))
        .collect();
    let flow = FlowSpec {
        start_s: START_S,
        ..FlowSpec::bulk(Direction::Down, cc)
    };
    let name = format!("{kind} {seed} {cc:?}").to_lowercase();
    Plan {
        measure_from_s: duration_s * (1.0 - MEASURED_SHARE),
        ..Plan::new(&name, duration_s, uplinks, vec![flow])
    }
}

fn random_links(seed: u64) -> Vec<LinkParams> {
    let mut rng = Rng::new(seed).fork(0x5eed);
    let mut links: Vec<LinkParams> = (0..rng.between(1, 5)).map(|_| link(&mut rng)).collect();
    scale_down(&mut links);
    links
}

/// Scales rates to a sum that a run can afford.
fn scale_down(links: &mut [LinkParams]) {
    let sum: f64 = links.iter().filter_map(|link| link.rate_mbit).sum();
    let scale = (SUM_MBIT_MAX / sum).min(1.0);
    for link in links {
        link.rate_mbit = link
            .rate_mbit
            .map(|rate| round((rate * scale).max(RATE_MBIT_MIN), 100.0));
    }
}

fn link(rng: &mut Rng) -> LinkParams {
    let rate_mbit = logarithmic(rng, RATE_MBIT_MIN, RATE_MBIT_MAX);
    let delay_ms = round(logarithmic(rng, 5.0, 300.0) / 2.0, 10.0);
    let loss = if rng.happens(0.5) {
        round(rng.between_f64(0.0, 0.03), 10_000.0)
    } else {
        0.0
    };
    let jitter_ms = if rng.happens(0.5) {
        round(rng.between_f64(0.0, (delay_ms / 3.0).min(15.0)), 10.0)
    } else {
        0.0
    };
    LinkParams {
        loss,
        jitter_ms,
        jitter: Jitter::Normal,
        ..LinkParams::new(rate_mbit, delay_ms)
    }
}

fn logarithmic(rng: &mut Rng, low: f64, high: f64) -> f64 {
    low * (high / low).powf(rng.unit())
}

fn round(value: f64, steps: f64) -> f64 {
    (value * steps).round() / steps
}

/// Plays every cell, in order of seed and congestion control.
pub fn run(sweep: &Sweep, commit: &str) -> Vec<Cell> {
    let jobs: Vec<(u64, Algorithm)> = (sweep.seeds.0..sweep.seeds.1)
        .flat_map(|seed| sweep.cc.iter().map(move |cc| (seed, *cc)))
        .collect();
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let Some((seed, cc)) = jobs.get(next.fetch_add(1, Relaxed)) {
            let plan = plan(sweep.links, *seed, *cc, sweep.duration_s);
            done.push(cell(&plan, *seed, *cc, commit));
        }
        done
    };
    let mut cells: Vec<Cell> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..sweep.jobs.max(1)).map(|_| scope.spawn(work)).collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined
            .flat_map(|done| done.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    cells.sort_by_key(|cell| {
        let cc = sweep.cc.iter().position(|cc| *cc == cell.cc);
        (cell.seed, cc)
    });
    cells
}

/// Plays one seed with one congestion control.
fn cell(plan: &Plan, seed: u64, cc: Algorithm, commit: &str) -> Cell {
    let mut world = World::new(plan, seed);
    // On the wire: with what each packet costs there besides its own bytes.
    let delivered = |world: &World| -> Vec<u64> {
        let bytes = plan.uplink.iter().map(|uplink| {
            let stats = world.link_stats(&uplink.name);
            stats.map_or(0, |(_, down)| {
                down.delivered_bytes + down.delivered * uplink.down.overhead_bytes
            })
        });
        bytes.collect()
    };
    world.run_until((plan.measure_from_s * 1e9) as Nanos);
    let before = delivered(&world);
    world.run_until(plan.duration());
    let after = delivered(&world);
    let measured_s = plan.duration_s - plan.measure_from_s;
    let report = report::of_world(plan, seed, commit, &world);
    let goodput_mbit_s = report.flows[0].goodput_mbit_s;
    let links: Vec<LinkCell> = (0..plan.uplink.len())
        .map(|index| {
            let alone = Plan {
                uplink: vec![plan.uplink[index].clone()],
                ..plan.clone()
            };
            let mut single = report::run(&alone, seed, commit);
            report::compare_with_native(&mut single, &alone, seed);
            let link = &plan.uplink[index].down;
            let rate_mbit = link.rate_mbit.unwrap_or_default();
            let carried_mbit_s = (after[index] - before[index]) as f64 * 8e-6 / measured_s;
            LinkCell {
                rate_mbit,
                rtt_ms: 2.0 * link.delay_ms,
                jitter_ms: link.jitter_ms,
                loss: link.loss,
                native_mbit_s: single.flows[0].native_sum_mbit_s.unwrap_or_default(),
                tunnel_mbit_s: single.flows[0].goodput_mbit_s,
                used: carried_mbit_s / rate_mbit,
            }
        })
        .collect();
    let native_sum: f64 = links.iter().map(|link| link.native_mbit_s).sum();
    let tunnel_sum: f64 = links.iter().map(|link| link.tunnel_mbit_s).sum();
    let capacity: f64 = links
        .iter()
        .map(|link| link.rate_mbit * (1.0 - link.loss) * TCP_SHARE_OF_WIRE)
        .sum();
    let best = links
        .iter()
        .map(|link| link.tunnel_mbit_s)
        .fold(0.0, f64::max);
    let server = world.totals(Side::Server);
    let count = |of: &std::collections::BTreeMap<String, u64>, name: &str| {
        of.get(name).copied().unwrap_or(0)
    };
    Cell {
        seed,
        cc,
        goodput_mbit_s,
        share_of_native_sum: goodput_mbit_s / native_sum.max(f64::MIN_POSITIVE),
        share_of_capacity: goodput_mbit_s / capacity,
        share_of_tunnel_sum: goodput_mbit_s / tunnel_sum.max(f64::MIN_POSITIVE),
        ratio_to_best_single: goodput_mbit_s / best.max(f64::MIN_POSITIVE),
        gap_ms_max: report.flows[0].gap_ms_max,
        reductions: report.flows[0].reductions,
        timeouts: report.flows[0].timeouts,
        queue_dropped: server
            .drops
            .iter()
            .filter(|(reason, _)| reason.starts_with("queue"))
            .map(|(_, dropped)| dropped)
            .sum(),
        retransmitted: count(&server.counters, "retransmitted"),
        skipped: report.skipped,
        links,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_draws_links_within_the_grid_and_the_same_ones_again() {
        for seed in 0..300 {
            let drawn = plan(Links::Random, seed, Algorithm::Cubic, 15.0);
            drawn.check().unwrap();
            assert_eq!(drawn, plan(Links::Random, seed, Algorithm::Cubic, 15.0));
            assert!((1..=5).contains(&drawn.uplink.len()));
            let links = || drawn.uplink.iter().map(|uplink| &uplink.down);
            let sum: f64 = links().filter_map(|link| link.rate_mbit).sum();
            assert!(sum <= SUM_MBIT_MAX + 4.0 * RATE_MBIT_MIN, "seed {seed}");
            for link in links() {
                assert!(link.rate_mbit >= Some(RATE_MBIT_MIN), "seed {seed}");
                assert!((2.5..=150.0).contains(&link.delay_ms), "seed {seed}");
                assert!((0.0..=0.03).contains(&link.loss), "seed {seed}");
            }
        }
    }

    #[test]
    fn congestion_controls_meet_the_same_links() {
        let cubic = plan(Links::Random, 7, Algorithm::Cubic, 15.0);
        let bbr = plan(Links::Random, 7, Algorithm::Bbr, 15.0);
        assert_eq!(cubic.uplink, bbr.uplink);
    }

    #[test]
    fn threads_do_not_change_the_figures() {
        let sweep = |jobs| Sweep {
            links: Links::Random,
            seeds: (1, 4),
            cc: vec![Algorithm::Cubic, Algorithm::Bbr],
            duration_s: 3.0,
            jobs,
        };
        let text = |jobs| format!("{:?}", run(&sweep(jobs), "test"));
        assert_eq!(text(1), text(3));
    }
}

//! One uplink of every kind: does a path carry what its link carries, with how long a queue?
//!
//! [`crate::sweep`] draws many links of one kind, a smooth one. Real links differ in kind: they hold
//! packets together, let bursts through, stop and go on, change their rate and their route, have
//! queues of half a second or of none. A table plays, for each kind, rate, round trip and congestion
//! control, a download and pings over a bond of that one link, and the same natively. It says what
//! share of the native goodput came through, and how much longer pings took than on the idle link.
//!
//! Every link of the table stands in [`Kind::link`]; `--show-plan` prints any cell for `--plan`.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use serde::Serialize;

use crate::cellular;
use crate::event::{Plan, UplinkSpec};
use crate::link::{LinkParams, Nanos, Step, Trace};
use crate::native;
use crate::report;
use crate::sweep::Quantiles;
use crate::tcp::Algorithm;
use crate::workload::{Direction, FlowSpec, Kind as Traffic};

/// When the flows begin, seconds: the path has shaken hands.
const START_S: f64 = 0.5;
/// Share of the run that is measured, at its end.
const MEASURED_SHARE: f64 = 2.0 / 3.0;
/// Between two pings, milliseconds. No divisor of any period in the table.
const PING_MS: f64 = 37.0;
/// Share of native at which a cell counts as well carried.
const WELL: f64 = 0.9;

/// A kind of link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// One packet after the other; a queue of 100 ms.
    Steady,
    /// A queue of 500 ms.
    Deep,
    /// A queue of 10 ms, though never of fewer than five packets.
    Shallow,
    /// Delay with a normal scatter of 1 ms, in order.
    Jitter1,
    /// Of 3 ms.
    Jitter3,
    /// Of 5 ms.
    Jitter5,
    /// Of 10 ms.
    Jitter10,
    /// Of 3 ms, and packets overtake each other.
    Overtaking,
    /// A token bucket of 16 kB in front of the rate.
    Bucket16,
    /// Of 256 kB.
    Bucket256,
    /// A policer with a bucket of 100 kB, no queue.
    Policer,
    /// All packets of 4 ms in one lump.
    Lumps4,
    /// Of 10 ms.
    Lumps10,
    /// Of 30 ms.
    Lumps30,
    /// A rate that steps between a third and twice the mean every two seconds.
    Steps,
    /// A route that changes every five seconds, with an outage of 20 to 80 ms each time.
    Routes,
    /// A mobile link's trace.
    Mobile,
    /// 1 % of the packets are lost.
    Loss,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 18] = [
        Kind::Steady,
        Kind::Deep,
        Kind::Shallow,
        Kind::Jitter1,
        Kind::Jitter3,
        Kind::Jitter5,
        Kind::Jitter10,
        Kind::Overtaking,
        Kind::Bucket16,
        Kind::Bucket256,
        Kind::Policer,
        Kind::Lumps4,
        Kind::Lumps10,
        Kind::Lumps30,
        Kind::Steps,
        Kind::Routes,
        Kind::Mobile,
        Kind::Loss,
    ];

    /// For people and for the command line.
    pub fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    /// The kind of that name.
    pub fn parse(name: &str) -> Result<Kind, String> {
        let found = Kind::ALL.into_iter().find(|kind| kind.name() == name);
        found.ok_or_else(|| {
            let names: Vec<String> = Kind::ALL.into_iter().map(Kind::name).collect();
            format!("give one of {}", names.join(", "))
        })
    }

    /// Such a link with a rate and a round trip.
    pub fn link(self, rate_mbit: f64, rtt_ms: f64, seed: u64) -> LinkParams {
        let plain = LinkParams::new(rate_mbit, rtt_ms / 2.0);
        let jitter = |jitter_ms| LinkParams {
            jitter_ms,
            ..plain.clone()
        };
        let lump = |lump_ms| LinkParams {
            lump_ms,
            ..plain.clone()
        };
        let bucket = |burst_bytes| LinkParams {
            burst_bytes,
            ..plain.clone()
        };
        let step = |hold_ms, rate, delay| Step {
            hold_ms,
            rate_mbit: Some(rate * rate_mbit),
            delay_ms: Some(rtt_ms / 2.0 + delay),
            loss: None,
        };
        match self {
            Kind::Steady => plain,
            Kind::Deep => LinkParams {
                queue_ms: 500.0,
                ..plain
            },
            Kind::Shallow => LinkParams {
                queue_bytes: Some(((rate_mbit * 1e6 / 8.0 * 0.01) as u64).max(5 * 1514)),
                ..plain
            },
            Kind::Jitter1 => jitter(1.0),
            Kind::Jitter3 => jitter(3.0),
            Kind::Jitter5 => jitter(5.0),
            Kind::Jitter10 => jitter(10.0),
            Kind::Overtaking => LinkParams {
                jitter_reorders: true,
                ..jitter(3.0)
            },
            Kind::Bucket16 => bucket(16_000),
            Kind::Bucket256 => bucket(256_000),
            Kind::Policer => LinkParams {
                rate_mbit: None,
                policer_mbit: Some(rate_mbit),
                policer_burst_bytes: 100_000,
                ..plain
            },
            Kind::Lumps4 => lump(4.0),
            Kind::Lumps10 => lump(10.0),
            Kind::Lumps30 => lump(30.0),
            Kind::Steps => LinkParams {
                steps: [1.0 / 3.0, 2.0, 0.7, 1.0]
                    .map(|rate| step(2_000.0, rate, 0.0))
                    .to_vec(),
                ..plain
            },
            Kind::Routes => LinkParams {
                steps: [(0.0, 80.0), (25.0, 20.0), (5.0, 50.0), (15.0, 30.0)]
                    .into_iter()
                    .flat_map(|(delay, outage)| {
                        [step(5_000.0 - outage, 1.0, delay), step(outage, 0.0, delay)]
                    })
                    .collect(),
                ..plain
            },
            Kind::Mobile => {
                let text = cellular::text(seed, 20_000, rate_mbit);
                LinkParams {
                    rate_mbit: None,
                    trace: Trace::parse("made", &text).ok(),
                    queue_ms: 300.0,
                    ..plain
                }
            }
            Kind::Loss => LinkParams {
                loss: 0.01,
                ..plain
            },
        }
    }
}

/// What to play.
#[derive(Clone, Debug)]
pub struct Table {
    /// Kinds of links.
    pub kinds: Vec<Kind>,
    /// Rates, Mbit/s.
    pub rates_mbit: Vec<f64>,
    /// Round trips of the empty link, milliseconds.
    pub rtts_ms: Vec<f64>,
    /// Congestion controls of the flow.
    pub cc: Vec<Algorithm>,
    /// Virtual length of each run, seconds.
    pub duration_s: f64,
    /// Of what is random about the links.
    pub seed: u64,
    /// Threads to play on. The figures do not depend on it.
    pub jobs: usize,
}

/// One link with one congestion control.
#[derive(Clone, Debug, Serialize)]
pub struct Cell {
    /// The kind of link.
    pub kind: Kind,
    /// Rate, Mbit/s.
    pub rate_mbit: f64,
    /// Round trip of the empty link, milliseconds.
    pub rtt_ms: f64,
    /// The flow's congestion control.
    pub cc: Algorithm,
    /// What the flow got through the bond, Mbit/s.
    pub goodput_mbit_s: f64,
    /// Divided by what it gets natively on the same link.
    pub share_of_native: f64,
    /// How much longer a ping took than on the idle link at the median, milliseconds.
    pub ping_ms_p50: f64,
    /// The same at the 95th percentile.
    pub ping_ms_p95: f64,
    /// Pings without an answer.
    pub pings_lost: u64,
    /// How often an end believed the path dead.
    pub deaths: u64,
    /// Longest time without anything for the application while measured, milliseconds.
    pub gap_ms_max: f64,
}

/// The plan of a cell.
pub fn plan(
    kind: Kind,
    rate_mbit: f64,
    rtt_ms: f64,
    cc: Algorithm,
    duration_s: f64,
    seed: u64,
) -> Plan {
    let link = kind.link(rate_mbit, rtt_ms, seed);
    let starts = |flow: FlowSpec| FlowSpec {
        start_s: START_S,
        ..flow
    };
    let flows = vec![
        starts(FlowSpec::bulk(Direction::Down, cc)),
        starts(FlowSpec::new(Traffic::Ping {
            interval_ms: PING_MS,
        })),
    ];
    let name = format!(
        "{} {rate_mbit} Mbit/s {rtt_ms} ms {}",
        kind.name(),
        format!("{cc:?}").to_lowercase()
    );
    Plan {
        measure_from_s: duration_s * (1.0 - MEASURED_SHARE),
        ..Plan::new(
            &name,
            duration_s,
            vec![UplinkSpec::new("link", link)],
            flows,
        )
    }
}

/// The cells of a table, in its order.
pub fn cells(table: &Table) -> Vec<(Kind, f64, f64, Algorithm)> {
    let mut cells = Vec::new();
    for &kind in &table.kinds {
        for &rate_mbit in &table.rates_mbit {
            for &rtt_ms in &table.rtts_ms {
                cells.extend(table.cc.iter().map(|&cc| (kind, rate_mbit, rtt_ms, cc)));
            }
        }
    }
    cells
}

/// Plays every cell.
pub fn run(table: &Table, commit: &str) -> Vec<Cell> {
    let jobs = cells(table);
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Relaxed);
            let Some(&(kind, rate_mbit, rtt_ms, cc)) = jobs.get(index) else {
                return done;
            };
            let plan = plan(kind, rate_mbit, rtt_ms, cc, table.duration_s, table.seed);
            done.push((
                index,
                cell(&plan, (kind, rate_mbit, rtt_ms, cc), table.seed, commit),
            ));
        }
    };
    let mut cells: Vec<(usize, Cell)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..table.jobs.max(1)).map(|_| scope.spawn(work)).collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined
            .flat_map(|done| done.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    cells.sort_by_key(|(index, _)| *index);
    cells.into_iter().map(|(_, cell)| cell).collect()
}

fn cell(
    plan: &Plan,
    (kind, rate_mbit, rtt_ms, cc): (Kind, f64, f64, Algorithm),
    seed: u64,
    commit: &str,
) -> Cell {
    let report = report::run(plan, seed, commit);
    let link = &plan.uplink[0].down;
    let (from, to) = (
        (plan.measure_from_s * 1e9) as Nanos,
        (plan.duration_s * 1e9) as Nanos,
    );
    let natively = |flows: &[FlowSpec]| native::run(flows, link, link, &[], to, seed);
    let native = natively(&plan.flow)[0].bytes_between(from, to) as f64;
    let native_mbit_s = native * 8e3 / (to - from) as f64;
    let idle = natively(&plan.flow[1..]);
    let idle = Quantiles::of(idle[0].samples_ms.iter().copied());
    let loaded = report.flows[1].percentiles_ms.unwrap_or([f64::NAN; 3]);
    let [p50, p95] = idle.map_or([f64::NAN; 2], |q| [q.p50, q.p95]);
    let down = |events: &std::collections::BTreeMap<String, u64>| {
        events.get("PathDown").copied().unwrap_or(0)
    };
    Cell {
        kind,
        rate_mbit,
        rtt_ms,
        cc,
        goodput_mbit_s: report.flows[0].goodput_mbit_s,
        share_of_native: report.flows[0].goodput_mbit_s / native_mbit_s.max(f64::MIN_POSITIVE),
        ping_ms_p50: loaded[0] - p50,
        ping_ms_p95: loaded[1] - p95,
        pings_lost: report.flows[1].missing,
        deaths: down(&report.client.events) + down(&report.server.events),
        gap_ms_max: report.flows[0].gap_ms_max,
    }
}

/// The cells as lines for people: one for each, then one for each kind, then one for all.
pub fn text(cells: &[Cell], commit: &str) -> String {
    let mut out = format!("commit {commit}\n");
    for cell in cells {
        let _ = writeln!(
            out,
            "{:<10} {:>6} Mbit/s {:>4} ms {:<5} {:>6.1} % of native, ping p50 {:>+7.1} p95 {:>+7.1} ms, lost {:>3}, deaths {:>3}, gap {:>5.0} ms",
            cell.kind.name(),
            cell.rate_mbit,
            cell.rtt_ms,
            format!("{:?}", cell.cc).to_lowercase(),
            cell.share_of_native * 100.0,
            cell.ping_ms_p50,
            cell.ping_ms_p95,
            cell.pings_lost,
            cell.deaths,
            cell.gap_ms_max
        );
    }
    let _ = writeln!(
        out,
        "\n| kind | cells | % of native: min | p5 | p25 | median | below 90 | ping p50: median, ms | ping p95: median, ms | max, ms | deaths |"
    );
    let _ = writeln!(
        out,
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
    );
    for kind in Kind::ALL {
        let of: Vec<&Cell> = cells.iter().filter(|cell| cell.kind == kind).collect();
        out.extend(group(&kind.name(), &of));
    }
    out.extend(group("all", &cells.iter().collect::<Vec<_>>()));
    out
}

fn group(name: &str, cells: &[&Cell]) -> Option<String> {
    let of = |figure: fn(&Cell) -> f64| Quantiles::of(cells.iter().map(|cell| figure(cell)));
    let share = of(|cell| cell.share_of_native * 100.0)?;
    let below = cells.iter().filter(|cell| cell.share_of_native < WELL);
    let (p50, p95) = (of(|cell| cell.ping_ms_p50)?, of(|cell| cell.ping_ms_p95)?);
    let longest = cells
        .iter()
        .map(|cell| cell.ping_ms_p95)
        .fold(0.0, f64::max);
    Some(format!(
        "| {name} | {} | {:.0} | {:.0} | {:.0} | {:.0} | {} | {:+.1} | {:+.1} | {:+.0} | {} |\n",
        cells.len(),
        share.min,
        share.p5,
        share.p25,
        share.p50,
        below.count(),
        p50.p50,
        p95.p50,
        longest,
        cells.iter().map(|cell| cell.deaths).sum::<u64>()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_makes_a_plan_at_every_rate_and_has_a_name_that_finds_it() {
        for kind in Kind::ALL {
            assert_eq!(Kind::parse(&kind.name()), Ok(kind));
            for rate_mbit in [0.25, 500.0] {
                plan(kind, rate_mbit, 40.0, Algorithm::Bbr, 3.0, 1)
                    .check()
                    .unwrap();
            }
        }
        assert!(Kind::parse("wet").is_err());
    }

    #[test]
    fn threads_do_not_change_the_table() {
        let table = |jobs| Table {
            kinds: vec![Kind::Steady, Kind::Lumps4, Kind::Mobile],
            rates_mbit: vec![2.0],
            rtts_ms: vec![20.0],
            cc: vec![Algorithm::Cubic],
            duration_s: 2.0,
            seed: 3,
            jobs,
        };
        let one = text(&run(&table(1), "test"), "test");
        assert_eq!(one, text(&run(&table(3), "test"), "test"));
        assert!(one.contains("| all | 3 |"), "{one}");
    }
}

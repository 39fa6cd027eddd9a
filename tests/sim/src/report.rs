//! What a run says at its end, for people and as JSON.

use std::fmt::Write as _;

use serde::Serialize;

use crate::check::Violation;
use crate::event::Plan;
use crate::link::{LinkStats, Nanos};
use crate::native;
use crate::packet::Side;
use crate::workload::{Faults, FlowStats, Kind};
use crate::world::{Totals, World};

/// Everything about one run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The plan's name.
    pub plan: String,
    /// The seed.
    pub seed: u64,
    /// The commit that the simulator was run from.
    pub commit: String,
    /// The run in one number, hexadecimal: equal runs, equal numbers.
    pub fingerprint: String,
    /// Virtual length, seconds.
    pub duration_s: f64,
    /// The flows, as the plan lists them.
    pub flows: Vec<FlowReport>,
    /// The uplinks, as the plan lists them.
    pub uplinks: Vec<UplinkReport>,
    /// What the client counted.
    pub client: Totals,
    /// What the server counted.
    pub server: Totals,
    /// Packets invented, delivered twice, or late.
    pub faults: Faults,
    /// Holes that were given up.
    pub skipped: u64,
    /// Most bytes that ever waited for a path in one bond.
    pub queue_bytes_max: u64,
    /// Most packets that were ever held back in one bond.
    pub held_packets_max: u64,
    /// What must not have happened. Empty: all is well.
    pub violations: Vec<Violation>,
}

/// One flow's fate.
#[derive(Clone, Debug, Default, Serialize)]
pub struct FlowReport {
    /// What it was.
    pub kind: String,
    /// What the application got, Mbit/s.
    pub goodput_mbit_s: f64,
    /// The sum of what flows of this kind get on each link alone, without tunnel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub native_sum_mbit_s: Option<f64>,
    /// Goodput as a share of that sum.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share_of_native_sum: Option<f64>,
    /// Goodput against the best single link without tunnel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio_to_best_single: Option<f64>,
    /// Longest time without anything for the application, milliseconds.
    pub gap_ms_max: f64,
    /// Median, 95th and 99th percentile of round trips (ping), one-way delays
    /// (calls) or durations (pages), milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percentiles_ms: Option<[f64; 3]>,
    /// Packets sent and not arrived at the end, both ends.
    pub missing: u64,
    /// Segments that the inner sender sent again.
    pub retransmitted: u64,
    /// Its retransmission timeouts.
    pub timeouts: u64,
    /// Reductions of its window.
    pub reductions: u64,
    /// Packets that arrived with a congestion mark.
    pub marked: u64,
    /// Packets of a call that came more than [`CALL_LATE_MS`] later than the quickest.
    pub late: u64,
}

/// How much later than the quickest a call's packet may come, milliseconds: what usual jitter buffers take up.
pub const CALL_LATE_MS: f64 = 60.0;

/// One uplink's work.
#[derive(Clone, Debug, Serialize)]
pub struct UplinkReport {
    /// Its name.
    pub name: String,
    /// From the client.
    pub up: LinkStats,
    /// To the client.
    pub down: LinkStats,
}

/// Plays a plan to its end.
pub fn run(plan: &Plan, seed: u64, commit: &str) -> Report {
    let mut world = World::new(plan, seed);
    world.run_until(plan.duration());
    of_world(plan, seed, commit, &world)
}

/// The report of a world that has run.
pub fn of_world(plan: &Plan, seed: u64, commit: &str, world: &World) -> Report {
    let from = (plan.measure_from_s * 1e9) as Nanos;
    let stats = world.traffic().stats();
    let flows = plan.flow.iter().zip(&stats).map(|(spec, stats)| {
        let from = from.max((spec.start_s * 1e9) as Nanos);
        let to = spec
            .stop_s
            .map_or(plan.duration(), |s| (s * 1e9) as Nanos)
            .min(plan.duration());
        // A flow that ended before measuring began is measured over its whole life.
        let from = if from < to {
            from
        } else {
            (spec.start_s * 1e9) as Nanos
        };
        flow_report(&spec.kind, stats, from, to)
    });
    let uplinks = plan.uplink.iter().filter_map(|spec| {
        let (up, down) = world.link_stats(&spec.name)?;
        Some(UplinkReport {
            name: spec.name.clone(),
            up,
            down,
        })
    });
    let (client, server) = (world.totals(Side::Client), world.totals(Side::Server));
    let (queue_bytes_max, held_packets_max) = world.peaks();
    Report {
        plan: plan.name.clone(),
        seed,
        commit: commit.to_owned(),
        fingerprint: format!("{:016x}", world.fingerprint()),
        duration_s: plan.duration_s,
        flows: flows.collect(),
        uplinks: uplinks.collect(),
        skipped: client.skipped() + server.skipped(),
        client,
        server,
        faults: world.traffic().faults(),
        queue_bytes_max,
        held_packets_max,
        violations: world.violations().to_vec(),
    }
}

/// Adds what each endless TCP flow would have got on each link alone.
pub fn compare_with_native(report: &mut Report, plan: &Plan, seed: u64) {
    let from = (plan.measure_from_s * 1e9) as Nanos;
    for (spec, flow) in plan.flow.iter().zip(&mut report.flows) {
        if !matches!(
            spec.kind,
            Kind::Tcp {
                size_bytes: None,
                ..
            }
        ) {
            continue;
        }
        let alone: Vec<f64> = plan
            .uplink
            .iter()
            .map(|uplink| {
                let own = |event: &&crate::event::TimedEvent| {
                    event.event.uplink() == Some(uplink.name.as_str())
                };
                let events: Vec<_> = plan.event.iter().filter(own).cloned().collect();
                let specs = [spec.clone()];
                let end = plan.duration();
                let stats = native::run(&specs, &uplink.up, &uplink.down, &events, end, seed);
                let from = from.max((spec.start_s * 1e9) as Nanos);
                flow_report(&spec.kind, &stats[0], from, end).goodput_mbit_s
            })
            .collect();
        let sum: f64 = alone.iter().sum();
        let best = alone.iter().copied().fold(0.0, f64::max);
        flow.native_sum_mbit_s = Some(sum);
        flow.share_of_native_sum = (sum > 0.0).then(|| flow.goodput_mbit_s / sum);
        flow.ratio_to_best_single = (best > 0.0).then(|| flow.goodput_mbit_s / best);
    }
}

fn flow_report(kind: &Kind, stats: &FlowStats, from: Nanos, to: Nanos) -> FlowReport {
    let seconds = (to.saturating_sub(from)) as f64 / 1e9;
    let name = match kind {
        Kind::Tcp {
            direction,
            cc,
            size_bytes,
        } => {
            let size = size_bytes.map_or(String::new(), |bytes| format!(" {bytes} bytes"));
            format!("tcp {direction:?} {cc:?}{size}").to_lowercase()
        }
        Kind::Voice {} => "call".to_owned(),
        Kind::Ping { .. } => "ping".to_owned(),
        Kind::Web { .. } => "pages".to_owned(),
        Kind::Fragments { size_bytes, .. } => format!("fragments of {size_bytes} bytes"),
        Kind::Udp {
            direction,
            rate_mbit,
        } => format!("udp {direction:?} {rate_mbit} Mbit/s").to_lowercase(),
    };
    FlowReport {
        kind: name,
        goodput_mbit_s: stats.bytes_between(from, to) as f64 * 8.0 / 1e6 / seconds.max(1e-9),
        gap_ms_max: stats.longest_gap(from, to) as f64 / 1e6,
        percentiles_ms: percentiles(&stats.samples_ms),
        missing: stats.sent - stats.arrived,
        retransmitted: stats.retransmitted,
        timeouts: stats.timeouts,
        reductions: stats.reductions,
        marked: stats.marked,
        late: match kind {
            Kind::Voice {} => late(&stats.samples_ms),
            _ => 0,
        },
        ..FlowReport::default()
    }
}

fn percentiles(samples: &[f64]) -> Option<[f64; 3]> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |share: f64| sorted[((sorted.len() - 1) as f64 * share).round() as usize];
    (!sorted.is_empty()).then(|| [at(0.5), at(0.95), at(0.99)])
}

fn late(delays_ms: &[f64]) -> u64 {
    let quickest = delays_ms.iter().copied().fold(f64::MAX, f64::min);
    let late = delays_ms.iter().filter(|ms| **ms > quickest + CALL_LATE_MS);
    late.count() as u64
}

impl Report {
    /// Second copies as a share of the bytes that arrived over the links, both ways, per cent.
    pub fn copies_per_cent(&self) -> f64 {
        let arrived = |u: &UplinkReport| u.up.delivered_bytes + u.down.delivered_bytes;
        let all: u64 = self.uplinks.iter().map(arrived).sum();
        let copies: u64 = [&self.client, &self.server]
            .iter()
            .filter_map(|end| end.counters.get("duplicated_bytes"))
            .sum();
        100.0 * copies as f64 / (all as f64).max(1.0)
    }

    /// The report in lines for people.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let _ = writeln!(
            out,
            "{}: {} s, seed {}, commit {}, run {}",
            self.plan, self.duration_s, self.seed, self.commit, self.fingerprint
        );
        for flow in &self.flows {
            let _ = write!(
                out,
                "  {:<16} {:>7.2} Mbit/s",
                flow.kind, flow.goodput_mbit_s
            );
            if let (Some(sum), Some(share), Some(ratio)) = (
                flow.native_sum_mbit_s,
                flow.share_of_native_sum,
                flow.ratio_to_best_single,
            ) {
                let share = share * 100.0;
                let _ = write!(
                    out,
                    " = {share:.1} % of the native sum {sum:.2}, {ratio:.2} x best"
                );
            }
            let _ = write!(out, ", longest gap {:.0} ms", flow.gap_ms_max);
            if let Some([p50, p95, p99]) = flow.percentiles_ms {
                let _ = write!(out, ", p50/p95/p99 {p50:.1}/{p95:.1}/{p99:.1} ms");
            }
            let _ = write!(
                out,
                ", missing {}, sent again {}, timeouts {}, reductions {}",
                flow.missing, flow.retransmitted, flow.timeouts, flow.reductions
            );
            if flow.late > 0 {
                let _ = write!(out, ", late {}", flow.late);
            }
            if flow.marked > 0 {
                let _ = write!(out, ", marked {}", flow.marked);
            }
            out.push('\n');
        }
        for uplink in &self.uplinks {
            for (way, link) in [("up", &uplink.up), ("down", &uplink.down)] {
                let _ = writeln!(
                    out,
                    "  {} {way}: {} delivered ({:.1} MB), {} dropped at the queue, {} lost, {} swallowed, {} too large, queue max {} kB",
                    uplink.name,
                    link.delivered,
                    link.delivered_bytes as f64 / 1e6,
                    link.dropped_queue,
                    link.lost,
                    link.dropped_blackhole,
                    link.dropped_mtu,
                    link.queue_bytes_max / 1000
                );
            }
        }
        for (who, totals) in [("client", &self.client), ("server", &self.server)] {
            let _ = writeln!(
                out,
                "  {who}: counters {:?}, drops {:?}, news {:?}",
                totals.counters, totals.drops, totals.events
            );
        }
        let _ = writeln!(
            out,
            "  late {}, skipped {}, at most {} bytes waited and {} packets were held",
            self.faults.out_of_order, self.skipped, self.queue_bytes_max, self.held_packets_max
        );
        for violation in &self.violations {
            let _ = writeln!(
                out,
                "  VIOLATION at {:.3} s: {}",
                violation.at as f64 / 1e9,
                violation.what
            );
        }
        out
    }
}

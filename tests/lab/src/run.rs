//! One run: the workloads of a scenario once, with its timeline, sampled on one clock.
//!
//! The calling thread is the conductor. It resets the wires, starts the workloads, then wakes for
//! whatever comes first, the next sample or the next event, until the run is over. From what was
//! recorded it makes the run's figures.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::refusal::Refusal;
use crate::results::{CallPacket, Direction, Gap, LinkLabel, Mark, Observer, Sample, Series};
use crate::scenario::{Cc, Change, Event, Kind, LinkPlan, Measure, Workload};
use crate::stats::{MachineTime, percentile, process_cpu_s};
use crate::topology::{Lab, wan};
use crate::workload::{BulkFlow, Ends, Part, Span, Traffic, Way};

/// Time between two samples.
const SAMPLE_EVERY_S: f64 = 0.02;
/// Gaps shorter than this are not listed.
const LEAST_GAP_MS: usize = 20;
/// A run is spoiled when the whole machine was busier than this.
const BUSY_SHARE_MAX: f64 = 0.8;
/// A run is spoiled when the emulator was later than this.
const LATENESS_MS_P99_MAX: f64 = 2.0;
/// A link is in use again when it carries this share of its rate …
const RETURN_SHARE: f64 = 0.1;
/// … over this stretch of time.
const RETURN_WINDOW_MS: f64 = 100.0;

/// What to run.
#[derive(Clone)]
pub struct RunPlan<'a> {
    /// For people.
    pub title: String,
    /// The traffic.
    pub workloads: &'a [Workload],
    /// What happens to the links.
    pub events: &'a [Event],
    /// How it is measured.
    pub measure: &'a Measure,
    /// How long, s.
    pub seconds: f64,
    /// How traffic leaves the client.
    pub way: Way,
    /// Congestion control of TCP flows.
    pub cc: Option<Cc>,
    /// Direction of bulk flows.
    pub direction: Direction,
    /// Seed of everything random.
    pub seed: u64,
    /// Processes whose processor time is the tunnel's.
    pub tunnel_pids: Vec<u32>,
}

/// One figure of one run.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// What, with its unit as the last word.
    pub metric: Cow<'static, str>,
    /// Its unit.
    pub unit: &'static str,
    /// The value.
    pub value: f64,
}

impl Figure {
    /// A figure.
    pub fn new(metric: impl Into<Cow<'static, str>>, unit: &'static str, value: f64) -> Figure {
        Figure {
            metric: metric.into(),
            unit,
            value,
        }
    }
}

/// What one run gave.
#[derive(Clone, Debug)]
pub struct RunOutcome {
    /// All that was recorded.
    pub series: Series,
    /// The figures.
    pub figures: Vec<Figure>,
    /// Why the machine spoiled the run, if it did.
    pub spoiled: Option<String>,
    /// Why flows broke, if any did.
    pub broken: Vec<String>,
}

impl RunOutcome {
    /// A figure by its name.
    pub fn figure(&self, metric: &str) -> Option<f64> {
        self.figures
            .iter()
            .find(|figure| figure.metric == metric)
            .map(|figure| figure.value)
    }
}

/// Set by SIGINT and SIGTERM.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Catches the signals from now on.
    pub fn install() -> Result<Interrupt> {
        let interrupt = Interrupt::default();
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            // The second one ends the process on the spot, should the first be stuck.
            signal_hook::flag::register_conditional_default(signal, interrupt.0.clone())?;
            signal_hook::flag::register(signal, interrupt.0.clone())?;
        }
        Ok(interrupt)
    }

    /// Fails if the user asked to stop.
    pub fn check(&self) -> Result<()> {
        if self.0.load(Relaxed) {
            Err(Refusal::Interrupted.into())
        } else {
            Ok(())
        }
    }

    /// Sleeps until a moment, or fails when the user asks to stop.
    pub fn sleep_until(&self, moment: Instant) -> Result<()> {
        loop {
            self.check()?;
            match moment.checked_duration_since(Instant::now()) {
                Some(left) => std::thread::sleep(left.min(Duration::from_millis(50))),
                None => return Ok(()),
            }
        }
    }
}

/// Runs once.
pub fn run_once(
    lab: &Lab,
    plan: &RunPlan<'_>,
    interrupt: &Interrupt,
    observer: &mut dyn Observer,
) -> Result<RunOutcome> {
    lab.reset(plan.seed)?;
    let tunnel_cpu_s = |plan: &RunPlan<'_>| -> f64 {
        plan.tunnel_pids
            .iter()
            .filter_map(|pid| process_cpu_s(*pid))
            .sum()
    };
    let machine_before = MachineTime::now();
    let tunnel_before_s = tunnel_cpu_s(plan);
    let counters_before = link_counters(lab);
    let span = Span {
        origin: Instant::now(),
        seconds: plan.seconds,
    };
    let ends = Ends {
        client: lab.client(),
        host: lab.host(),
        way: &plan.way,
    };
    let mut traffic = Traffic::start(
        plan.workloads,
        ends,
        plan.cc,
        plan.direction,
        span,
        plan.seed,
    )?;
    let mut series = Series {
        title: plan.title.clone(),
        links: labels(lab.links()),
        flows: traffic.flows.iter().map(|flow| flow.name.clone()).collect(),
        ..Series::default()
    };
    observer.begin(&series, plan.seconds);

    let mut events = plan.events.iter().peekable();
    let mut next_sample_s = 0.0;
    let mut machine_last = machine_before;
    loop {
        let next_event_s = events.peek().map_or(f64::INFINITY, |event| event.time_s);
        let next_s = next_event_s.min(next_sample_s);
        if next_s > plan.seconds {
            break;
        }
        interrupt.sleep_until(span.at(next_s))?;
        if let Some(failure) = lab.emulator().failure() {
            bail!("the emulator stopped: {failure}");
        }
        if next_event_s <= next_sample_s {
            if let Some(event) = events.next() {
                let mark = apply(lab, event, span)?;
                observer.event(&mark);
                series.events.push(mark);
            }
            continue;
        }
        let machine_now = MachineTime::now();
        let sample = take_sample(
            &traffic,
            span,
            &counters_before,
            lab,
            machine_now,
            machine_last,
        );
        machine_last = machine_now;
        observer.sample(&sample);
        series.samples.push(sample);
        next_sample_s += SAMPLE_EVERY_S;
    }
    let machine_after = MachineTime::now();
    let tunnel_s = tunnel_cpu_s(plan) - tunnel_before_s;
    let lateness = lab.emulator().lateness();
    traffic.finish();

    series.cpu_busy = machine_after.busy_share_since(machine_before);
    series.lateness_ms_p99 = lateness.p99_ms;
    let mut figures = Vec::new();
    add_bulk_figures(plan, &traffic, &mut series, &mut figures);
    add_return_figure(plan, &series, &mut figures);
    add_call_figures(plan, &traffic, &mut series, &mut figures);
    add_ping_figures(&traffic, &mut series, &mut figures);
    add_web_figures(&traffic, &mut figures);
    add_idle_figures(plan, &series, &mut figures);
    let mut add = |metric, unit, value| figures.push(Figure::new(metric, unit, value));
    if !plan.tunnel_pids.is_empty() {
        add("tunnel_cpu_s", "s", tunnel_s);
        let tunnelled = traffic
            .flows
            .iter()
            .filter(|flow| flow.part != Part::Foreign);
        let bytes: u64 = tunnelled.map(|flow| flow.deliveries.total()).sum();
        if bytes > 0 {
            add(
                "tunnel_cpu_s_per_gb",
                "s/GB",
                tunnel_s / (bytes as f64 / 1e9),
            );
        }
    }
    add("cpu_busy", "share", series.cpu_busy);
    if lateness.frames > 0 {
        add("emulator_late_ms_p99", "ms", lateness.p99_ms);
        add("emulator_late_ms_max", "ms", lateness.max_ms);
    }
    let spoiled = spoiled(&series, lab.links().iter().all(|link| link.direct));
    let broken = traffic
        .flows
        .iter()
        .filter_map(|flow| {
            let reason = flow.outcome.broken.lock().ok()?.clone()?;
            Some(format!("{}: {reason}", flow.name))
        })
        .collect();
    observer.end(&series);
    Ok(RunOutcome {
        series,
        figures,
        spoiled,
        broken,
    })
}

/// What the links are called in plots.
pub fn labels(links: &[LinkPlan]) -> Vec<LinkLabel> {
    let mbit = |rate: Option<u64>| rate.map(|bit_s| bit_s as f64 / 1e6);
    links
        .iter()
        .enumerate()
        .map(|(index, link)| {
            let down = mbit(link.down.mean_rate_bit_s());
            let up = mbit(link.up.mean_rate_bit_s());
            let rtt_ms = link.down.delay_ms + link.up.delay_ms;
            let text = match (down, up) {
                (Some(down), Some(up)) if down == up => format!("{down} Mbit/s, {rtt_ms} ms"),
                (Some(down), Some(up)) => format!("{down}/{up} Mbit/s, {rtt_ms} ms"),
                _ => String::from("no limit"),
            };
            LinkLabel {
                name: wan(index),
                text,
                rate_down_mbit_s: down,
                rate_up_mbit_s: up,
                rtt_ms,
            }
        })
        .collect()
}

fn spoiled(series: &Series, unlimited: bool) -> Option<String> {
    if series.lateness_ms_p99 > LATENESS_MS_P99_MAX {
        return Some(format!(
            "emulator {:.1} ms late (p99)",
            series.lateness_ms_p99
        ));
    }
    // Without a limit the flow takes the whole machine, which is what is measured.
    if series.cpu_busy > BUSY_SHARE_MAX && !unlimited {
        return Some(format!("machine {:.0} % busy", series.cpu_busy * 100.0));
    }
    None
}

fn link_counters(lab: &Lab) -> Vec<[u64; 2]> {
    (0..lab.links().len())
        .map(|index| {
            let counters = lab.emulator().counters(index);
            [
                counters.down_bytes.load(Relaxed),
                counters.up_bytes.load(Relaxed),
            ]
        })
        .collect()
}

fn take_sample(
    traffic: &Traffic,
    span: Span,
    counters_before: &[[u64; 2]],
    lab: &Lab,
    machine_now: MachineTime,
    machine_last: MachineTime,
) -> Sample {
    let since = |direction: usize| {
        link_counters(lab)
            .iter()
            .zip(counters_before)
            .map(|(now, before)| now[direction] - before[direction])
            .collect()
    };
    Sample {
        t_ms: span.now_ms(),
        flow_bytes: traffic
            .flows
            .iter()
            .map(|flow| flow.deliveries.total())
            .collect(),
        link_down_bytes: since(0),
        link_up_bytes: since(1),
        call_latency_ms: traffic.call.as_ref().and_then(|call| call.worst.take_ms()),
        call_sent: traffic
            .call
            .as_ref()
            .map_or(0, |call| call.sent.load(Relaxed)),
        call_received: traffic
            .call
            .as_ref()
            .map_or(0, |call| call.received.load(Relaxed)),
        ping_ms: traffic
            .pings
            .as_ref()
            .and_then(|pings| pings.worst.take_ms()),
        cpu_busy: machine_now.busy_share_since(machine_last),
    }
}

fn apply(lab: &Lab, event: &Event, span: Span) -> Result<Mark> {
    let emulator = lab.emulator();
    let index = event.link;
    match &event.change {
        Change::Params { down, up } => {
            emulator.set(index, down.as_deref().cloned(), up.as_deref().cloned());
        }
        Change::Blackhole { down, up } => {
            emulator.blackhole(index, Direction::Down, *down);
            emulator.blackhole(index, Direction::Up, *up);
        }
        Change::Carrier(plugged) => emulator.carrier(index, *plugged),
        Change::Device(true) => lab.restore_link(index)?,
        Change::Device(false) => lab.delete_link(index)?,
        Change::Addresses(true) => lab.restore_addresses(index)?,
        Change::Addresses(false) => lab.remove_addresses(index)?,
    }
    Ok(Mark {
        t_ms: span.now_ms(),
        text: event.change.text(&wan(index)),
        link: Some(index),
    })
}

fn add_bulk_figures(
    plan: &RunPlan<'_>,
    traffic: &Traffic,
    series: &mut Series,
    figures: &mut Vec<Figure>,
) {
    let (measured, beside): (Vec<&BulkFlow>, Vec<&BulkFlow>) = traffic
        .flows
        .iter()
        .partition(|flow| flow.part == Part::Measured);
    if traffic.flows.is_empty() {
        return;
    }
    let to_ms = (plan.seconds * 1000.0) as usize;
    let from_ms = (plan.measure.warmup_s * 1000.0) as usize;
    let goodput = |flows: &[&BulkFlow]| {
        let bytes = flows
            .iter()
            .map(|flow| flow.deliveries.between(from_ms, to_ms));
        bytes.sum::<u64>() as f64 * 8.0 / 1000.0 / (to_ms - from_ms) as f64
    };
    let goodput_mbit_s = goodput(&measured);
    series.goodput_mbit_s = Some(goodput_mbit_s);
    let gaps = |at_least_ms: usize| {
        let flows = traffic.flows.iter().enumerate();
        flows
            .filter(|(_, flow)| flow.part == Part::Measured)
            .flat_map(move |(index, flow)| {
                // A flow that starts late gets the same time to come into motion.
                let from_ms = from_ms.max(((flow.start_s + 1.0) * 1000.0) as usize);
                flow.deliveries.gaps(index, from_ms, to_ms, at_least_ms)
            })
    };
    series.gaps = gaps(LEAST_GAP_MS).collect();
    series
        .gaps
        .sort_by(|left, right| left.start_ms.total_cmp(&right.start_ms));
    // The longest gap may be shorter than what is worth listing.
    let gap_ms_max = gaps(1).map(|gap| gap.length_ms).fold(0.0, f64::max);
    let retransmits: u64 = measured
        .iter()
        .map(|flow| flow.outcome.retransmits.load(Relaxed))
        .sum();
    let is_broken = |flow: &&BulkFlow| flow.outcome.broken.lock().is_ok_and(|why| why.is_some());
    let broken = traffic.flows.iter().filter(is_broken).count();
    let mut add = |metric, unit, value| figures.push(Figure::new(metric, unit, value));
    add("goodput_mbit_s", "Mbit/s", goodput_mbit_s);
    if !beside.is_empty() {
        add("beside_mbit_s", "Mbit/s", goodput(&beside));
    }
    add("gap_ms_max", "ms", gap_ms_max);
    if plan
        .workloads
        .iter()
        .any(|workload| workload.kind == Kind::Tcp)
    {
        add("tcp_retransmits", "segments", retransmits as f64);
    }
    add("flows_broken", "flows", broken as f64);
}

/// Time from a link's return until it carries a tenth of its rate again; the longest of all
/// returns. A link that is not used again in the run counts with the rest of the run.
fn add_return_figure(plan: &RunPlan<'_>, series: &Series, figures: &mut Vec<Figure>) {
    if !plan
        .workloads
        .iter()
        .any(|workload| matches!(workload.kind, Kind::Tcp | Kind::Quic))
    {
        return;
    }
    let longest_s = plan
        .events
        .iter()
        .filter(|event| event.change.gives_back())
        .map(|event| {
            let back_ms = event.time_s * 1000.0;
            let rate_mbit_s = match plan.direction {
                Direction::Down => series.links[event.link].rate_down_mbit_s,
                Direction::Up => series.links[event.link].rate_up_mbit_s,
            }
            .unwrap_or(10.0);
            let bytes = |sample: &Sample| match plan.direction {
                Direction::Down => sample.link_down_bytes[event.link],
                Direction::Up => sample.link_up_bytes[event.link],
            };
            let mut window_start = 0;
            for (index, sample) in series.samples.iter().enumerate() {
                if sample.t_ms <= back_ms {
                    window_start = index;
                    continue;
                }
                while series.samples[window_start + 1].t_ms <= sample.t_ms - RETURN_WINDOW_MS {
                    window_start += 1;
                }
                let carried = bytes(sample) - bytes(&series.samples[window_start]);
                let needed = rate_mbit_s * 1e6 / 8.0 * RETURN_WINDOW_MS / 1000.0 * RETURN_SHARE;
                if carried as f64 >= needed {
                    return (sample.t_ms - back_ms) / 1000.0;
                }
            }
            plan.seconds - event.time_s
        })
        .reduce(f64::max);
    if let Some(value) = longest_s {
        figures.push(Figure::new("return_s", "s", value));
    }
}

fn add_call_figures(
    plan: &RunPlan<'_>,
    traffic: &Traffic,
    series: &mut Series,
    figures: &mut Vec<Figure>,
) {
    let Some(call) = &traffic.call else { return };
    let mut gap_ms_max: f64 = 0.0;
    let (mut lost, mut late) = (0, 0);
    let mut latencies: Vec<f64> = Vec::new();
    for (packets, arrivals) in call.packets.iter().zip(&call.arrivals_ms) {
        let (Ok(packets), Ok(arrivals)) = (packets.lock(), arrivals.lock()) else {
            continue;
        };
        lost += packets
            .iter()
            .filter(|packet| packet.latency_ms.is_none())
            .count();
        let arrived: Vec<f64> = packets
            .iter()
            .filter_map(|packet| packet.latency_ms)
            .collect();
        let fastest = arrived.iter().copied().fold(f64::INFINITY, f64::min);
        late += arrived
            .iter()
            .filter(|latency| **latency > fastest + plan.measure.call_late_ms)
            .count();
        latencies.extend(&arrived);
        for pair in arrivals.windows(2) {
            let length_ms = pair[1] - pair[0];
            gap_ms_max = gap_ms_max.max(length_ms);
            if length_ms >= 2.5 * LEAST_GAP_MS as f64 {
                series.gaps.push(Gap {
                    flow: None,
                    start_ms: pair[0],
                    length_ms,
                });
            }
        }
        // Silence that lasts to the end.
        let last_sent = packets
            .last()
            .map_or(0.0, |packet: &CallPacket| packet.sent_ms);
        gap_ms_max = gap_ms_max.max(last_sent - arrivals.last().copied().unwrap_or(0.0));
        series.call.extend(packets.iter().copied());
    }
    series
        .call
        .sort_by(|left, right| left.sent_ms.total_cmp(&right.sent_ms));
    series
        .gaps
        .sort_by(|left, right| left.start_ms.total_cmp(&right.start_ms));
    let mut add = |metric, unit, value| figures.push(Figure::new(metric, unit, value));
    add("call_sent", "packets", series.call.len() as f64);
    add("call_lost", "packets", lost as f64);
    add("call_late", "packets", late as f64);
    add("call_gap_ms_max", "ms", gap_ms_max);
    for (metric, share) in [("call_ms_p50", 0.5), ("call_ms_p99", 0.99)] {
        if let Some(value) = percentile(&latencies, share) {
            add(metric, "ms", value);
        }
    }
}

fn add_ping_figures(traffic: &Traffic, series: &mut Series, figures: &mut Vec<Figure>) {
    let Some(log) = &traffic.pings else { return };
    let Ok(pings) = log.pings.lock() else { return };
    let round_trips: Vec<f64> = pings.iter().filter_map(|ping| ping.rtt_ms).collect();
    for (metric, share) in [
        ("ping_ms_p50", 0.5),
        ("ping_ms_p95", 0.95),
        ("ping_ms_p99", 0.99),
    ] {
        if let Some(value) = percentile(&round_trips, share) {
            figures.push(Figure::new(metric, "ms", value));
        }
    }
    let lost = (pings.len() - round_trips.len()) as f64;
    figures.push(Figure::new("ping_lost", "packets", lost));
    series.pings.clone_from(&pings);
}

fn add_web_figures(traffic: &Traffic, figures: &mut Vec<Figure>) {
    let Some(log) = &traffic.fetches_ms else {
        return;
    };
    let Ok(fetches) = log.lock() else { return };
    for (metric, share) in [("fetch_ms_p50", 0.5), ("fetch_ms_p95", 0.95)] {
        if let Some(value) = percentile(&fetches, share) {
            figures.push(Figure::new(metric, "ms", value));
        }
    }
    figures.push(Figure::new("fetches", "fetches", fetches.len() as f64));
}

/// Bytes per hour while nothing is asked of the tunnel: on each link, and on the busiest.
fn add_idle_figures(plan: &RunPlan<'_>, series: &Series, figures: &mut Vec<Figure>) {
    let idle = plan
        .workloads
        .iter()
        .all(|workload| workload.kind == Kind::Idle);
    let from_ms = plan.measure.warmup_s * 1e3;
    let first = series.samples.iter().find(|sample| sample.t_ms >= from_ms);
    let (true, Some(first), Some(last)) = (idle, first, series.samples.last()) else {
        return;
    };
    let hours = (last.t_ms - first.t_ms) / 3.6e6;
    let both = |sample: &Sample, link: usize| {
        (sample.link_down_bytes[link] + sample.link_up_bytes[link]) as f64
    };
    let per_hour: Vec<f64> = (0..series.links.len())
        .map(|link| (both(last, link) - both(first, link)) / hours)
        .collect();
    let most = per_hour.iter().copied().fold(0.0, f64::max);
    figures.push(Figure::new("idle_bytes_per_hour", "bytes", most));
    for (link, value) in series.links.iter().zip(per_hour) {
        let metric = format!("idle_{}_bytes_per_hour", link.name);
        figures.push(Figure::new(metric, "bytes", value));
    }
}

//! What a run leaves behind: the figures of a scenario and the time series of one run.
//!
//! Two kinds of data live here, and everything that shows results (table, JSON file, live
//! terminal view, HTML page) reads these types and nothing else.
//!
//! * [`ScenarioResult`] is the short form: one object per scenario with a list of [`Measured`]
//!   figures, each a median and a range over several runs. This is what `--json` writes, and
//!   fields that do not apply are left out of it.
//! * [`Series`] is the long form: what happened during one run, sampled on one clock, so that
//!   bytes, latencies and events can be drawn above each other. [`DemoResult`] is a list of
//!   named series.
//!
//! **Clock.** Every `*_ms` time in a [`Series`] counts from the start of that series (the moment
//! its workload starts), as a fraction where the source is finer. Byte counters are cumulative
//! from the same moment: a rate is the difference of two samples over the difference of their
//! times, so a sample that comes late falsifies nothing.
//!
//! **What is counted where.** `flow_bytes` are application bytes at the receiver. `link_*_bytes`
//! are IP packets (layer 3 and up) which came out of the emulated wire at its far end: what was
//! swallowed by a blackhole, lost or dropped from a queue is not in them.

use serde::{Deserialize, Serialize};

/// Which way application data goes, seen from the client.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From the internet host to the client: a download.
    Down,
    /// From the client to the internet host: an upload.
    Up,
}

impl Direction {
    /// The word used in files, tables and on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Direction::Down => "down",
            Direction::Up => "up",
        }
    }
}

impl std::fmt::Display for Direction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.word())
    }
}

/// All figures of one scenario.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScenarioResult {
    /// Name of the scenario, as in its file.
    pub scenario: String,
    /// The commit that was measured, with `-dirty` behind it if the tree had changes.
    pub commit: String,
    /// Seed of the emulated links' randomness in the first run; run `k` uses `seed + k`.
    pub seed: u64,
    /// The figures, in the order of measuring.
    pub results: Vec<Measured>,
}

/// One figure over several runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// What was measured, with its unit as the last word: `goodput_mbit_s`, `gap_ms_max`,
    /// `return_s`, `ping_ms_p50`, `call_lost`, `call_gap_ms_max`, `cpu_busy`, …
    pub metric: String,
    /// What carried the traffic: left out for Marline, else `native wan1`, `mptcp`, or the name
    /// of an external command hook.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub through: Option<String>,
    /// Congestion control of the inner flow, where there is one: `cubic`, `bbr`, `quic`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cc: Option<String>,
    /// Which way the data went, where the metric has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// Unit of `median`, `min` and `max`: `Mbit/s`, `ms`, `s`, `packets`, `share`.
    pub unit: String,
    /// Median over the runs.
    pub median: f64,
    /// Smallest of the runs.
    pub min: f64,
    /// Largest of the runs.
    pub max: f64,
    /// Nine of ten runs are not above; only where the timeline had a phase of its own in each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p90: Option<f64>,
    /// Number of runs behind these figures; runs that the machine spoiled are not in it.
    pub runs: u32,
    /// Median divided by the sum of what the same flow reached natively on each link alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share_of_native_sum: Option<f64>,
    /// Median divided by what the same flow reached natively on the best single link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratio_to_best_single: Option<f64>,
}

/// How an emulated link is labelled in plots.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinkLabel {
    /// Name of the client's interface on this link: `wan1`, `wan2`, …
    pub name: String,
    /// What it stands for, for people: `50 Mbit/s, 15 ms`.
    pub text: String,
    /// Rate towards the client at the start, in Mbit/s; absent on a wire without a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_down_mbit_s: Option<f64>,
    /// Rate from the client at the start, in Mbit/s; absent on a wire without a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_up_mbit_s: Option<f64>,
    /// Round-trip time of the empty link, in ms.
    pub rtt_ms: f64,
}

/// State of everything at one moment; taken every 10 to 50 ms.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Moment of the sample.
    pub t_ms: f64,
    /// Application bytes delivered so far, one entry per entry of [`Series::flows`].
    pub flow_bytes: Vec<u64>,
    /// Bytes that came out of each link at the client's end so far.
    pub link_down_bytes: Vec<u64>,
    /// Bytes that came out of each link at the server's end so far.
    pub link_up_bytes: Vec<u64>,
    /// The newest call packet's one-way latency in ms, when a call runs and a packet arrived
    /// since the last sample (the worst of those that did).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call_latency_ms: Option<f64>,
    /// Call packets sent so far, both directions together.
    #[serde(default)]
    pub call_sent: u64,
    /// Call packets received so far, both directions together.
    #[serde(default)]
    pub call_received: u64,
    /// The newest ping's round trip in ms, when pings run and one came back since the last
    /// sample (the worst of those that did).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ping_ms: Option<f64>,
    /// Share of the whole machine that was busy since the last sample, 0 to 1.
    #[serde(default)]
    pub cpu_busy: f64,
}

/// One packet of the call workload.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CallPacket {
    /// Which way it went.
    pub direction: Direction,
    /// Its number within its direction, from 0.
    pub sequence: u32,
    /// When it was sent.
    pub sent_ms: f64,
    /// How long it was under way; absent if it never arrived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<f64>,
}

/// One round trip of the ping workload.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ping {
    /// When it was sent.
    pub sent_ms: f64,
    /// Its round trip; absent if no answer came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<f64>,
}

/// Something that happened and belongs beside the curves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mark {
    /// When.
    pub t_ms: f64,
    /// What, as a short fact: `wan1 falls silent`.
    pub text: String,
    /// The link it is about, as an index into [`Series::links`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<usize>,
}

/// A stretch in which a flow that should be moving delivered nothing.
///
/// Found on a timeline of 1 ms; stretches shorter than 20 ms are not listed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gap {
    /// The flow, as an index into [`Series::flows`]; absent when it is the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flow: Option<usize>,
    /// Last delivery before it.
    pub start_ms: f64,
    /// How long until the next delivery.
    pub length_ms: f64,
}

/// What happened during one run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// For people: `Both uplinks, 50 Mbit/s link dies at 5 s`.
    pub title: String,
    /// The links that were there, in the order of the byte counters.
    pub links: Vec<LinkLabel>,
    /// Names of the bulk flows, in the order of the byte counters: `download 1 (cubic)`.
    pub flows: Vec<String>,
    /// Samples in order of time.
    pub samples: Vec<Sample>,
    /// All call packets in order of sending, both directions mixed; empty without a call.
    pub call: Vec<CallPacket>,
    /// All pings in order of sending; empty without pings.
    pub pings: Vec<Ping>,
    /// Events in order of time.
    pub events: Vec<Mark>,
    /// Gaps of at least 20 ms, in order of time.
    pub gaps: Vec<Gap>,
    /// Goodput of all bulk flows together over the measured stretch, Mbit/s; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goodput_mbit_s: Option<f64>,
    /// Busy share of the whole machine over the run, 0 to 1.
    #[serde(default)]
    pub cpu_busy: f64,
    /// Lateness of the emulator, 99th percentile in ms: how late packets left its wires against
    /// the model.
    #[serde(default)]
    pub lateness_ms_p99: f64,
}

/// One part of the demonstration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// What it shows.
    pub kind: PhaseKind,
    /// What was recorded; its title is the phase's title.
    pub series: Series,
}

/// What a part of the demonstration shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PhaseKind {
    /// A download natively over one link alone, without Marline.
    SingleLink {
        /// Index of the link.
        link: usize,
    },
    /// A download through the bond of all links.
    Bond,
    /// A download and a call through the bond while a link falls silent and comes back.
    SilentDeath {
        /// Index of the link that dies.
        link: usize,
    },
}

/// Everything the demonstration found, for the HTML page.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DemoResult {
    /// The commit that was run, with `-dirty` behind it if the tree had changes.
    pub commit: String,
    /// Kernel, processor and number of cores, one line.
    pub machine: String,
    /// When it started, as UTC text: `2026-01-31 12:00 UTC`.
    pub started: String,
    /// The parts in order of running.
    pub phases: Vec<Phase>,
}

impl DemoResult {
    /// Sum of what the single links carried natively, in Mbit/s.
    pub fn native_sum_mbit_s(&self) -> f64 {
        self.phases
            .iter()
            .filter(|phase| matches!(phase.kind, PhaseKind::SingleLink { .. }))
            .filter_map(|phase| phase.series.goodput_mbit_s)
            .sum()
    }
}

/// Who wants to see a run while it happens.
///
/// The runner calls these from one thread, in order of time, and never waits for anything but
/// the call itself: an observer that draws must be quick (a few ms).
pub trait Observer {
    /// A new run starts. `series` has title, links and flows filled in; `seconds` is how long
    /// the run will take.
    fn begin(&mut self, series: &Series, seconds: f64);
    /// A new sample is there.
    fn sample(&mut self, sample: &Sample);
    /// Something happened.
    fn event(&mut self, mark: &Mark);
    /// The run is over; `series` is complete.
    fn end(&mut self, series: &Series);
}

//! What an emulated link can be told to be, as it stands in scenario files.

use serde::{Deserialize, Serialize};

use super::trace::Trace;

/// How the delay of single packets scatters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Jitter {
    /// Normal: `jitter_ms` is the standard deviation.
    #[default]
    Normal,
    /// Uniform: up to `jitter_ms` earlier or later.
    Uniform,
}

/// One stretch of a schedule. What it leaves out stays as the link says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// How long the stretch lasts, milliseconds.
    pub hold_ms: f64,
    /// Rate during the stretch, Mbit/s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_mbit: Option<f64>,
    /// One-way delay during the stretch, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<f64>,
    /// Share of packets lost during the stretch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
}

/// Everything that one direction of a link can be told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LinkParams {
    /// Rate on the wire, Mbit/s, counting `overhead_bytes` for each packet. Left
    /// out: unlimited. 0: the link stands still and keeps what it has queued.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_mbit: Option<f64>,
    /// Bytes the wire adds to each packet (14: an Ethernet header).
    pub overhead_bytes: u64,
    /// One-way delay, milliseconds.
    pub delay_ms: f64,
    /// How far the delay of single packets scatters, milliseconds.
    pub jitter_ms: f64,
    /// The distribution of the scatter.
    pub jitter: Jitter,
    /// Whether scattered packets may overtake each other. If not, a packet that
    /// was delayed holds up those behind it.
    pub jitter_reorders: bool,
    /// Share of packets lost behind the queue, 0 to 1.
    pub loss: f64,
    /// Mean number of packets lost in a row (Gilbert-Elliott). 1: each packet is
    /// lost or not independently of the others.
    pub loss_burst: f64,
    /// How long a packet may have to wait in the queue, milliseconds at the
    /// current rate; a packet that would wait longer is dropped.
    pub queue_ms: f64,
    /// The queue's size in bytes on the wire, in place of `queue_ms`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_bytes: Option<u64>,
    /// Swallows everything in silence, also what is on its way.
    pub blackhole: bool,
    /// Bytes of the largest packet that passes, from its IP header on. Larger
    /// ones are swallowed in silence: a hop further on is narrower, and nobody tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u64>,
    /// Depth of a token bucket that is filled at the rate, bytes: after a pause so much leaves at once, and only
    /// then the rate holds (a shaper such as Linux's `tbf`). 0: each packet takes its time.
    pub burst_bytes: u64,
    /// What was sent within such a stretch of time arrives in one lump at its end, milliseconds (Wi-Fi's aggregates,
    /// a modem's upstream grants). 0: each packet travels alone.
    pub lump_ms: f64,
    /// Rate above which packets are dropped at the entrance, Mbit/s (a token bucket).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policer_mbit: Option<f64>,
    /// Depth of that bucket, bytes.
    pub policer_burst_bytes: u64,
    /// A schedule, repeated from the moment these parameters come into force.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
    /// A Mahimahi trace that is replayed in place of a rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace: Option<Trace>,
}

impl Default for LinkParams {
    fn default() -> Self {
        LinkParams {
            rate_mbit: None,
            overhead_bytes: 14,
            delay_ms: 0.0,
            jitter_ms: 0.0,
            jitter: Jitter::Normal,
            jitter_reorders: false,
            loss: 0.0,
            loss_burst: 1.0,
            queue_ms: 100.0,
            queue_bytes: None,
            blackhole: false,
            mtu: None,
            burst_bytes: 0,
            lump_ms: 0.0,
            policer_mbit: None,
            policer_burst_bytes: 64_000,
            steps: Vec::new(),
            trace: None,
        }
    }
}

impl LinkParams {
    /// A plain link: so many Mbit/s, so many milliseconds one way, a queue of 100 ms.
    pub fn new(rate_mbit: f64, delay_ms: f64) -> Self {
        LinkParams {
            rate_mbit: Some(rate_mbit),
            delay_ms,
            ..LinkParams::default()
        }
    }

    /// A busy LTE cell: a rate that moves within a second, scattered delay, a deep queue.
    pub fn lte() -> Self {
        let rates_mbit = [24.0, 18.0, 31.0, 12.0, 27.0, 35.0, 16.0, 9.0, 22.0, 30.0];
        LinkParams {
            jitter_ms: 4.0,
            queue_ms: 400.0,
            steps: rates_mbit.map(|rate| Step::rate(300.0, rate)).to_vec(),
            ..LinkParams::new(22.0, 28.0)
        }
    }

    /// A satellite link whose delay and rate step every 15 seconds, with a short
    /// burst of loss at each step.
    pub fn starlink() -> Self {
        let stretches = [(22.0, 90.0), (31.0, 60.0), (19.0, 120.0), (38.0, 45.0)];
        let steps = stretches.into_iter().flat_map(|(delay_ms, rate_mbit)| {
            let step = |hold_ms, loss| Step {
                hold_ms,
                rate_mbit: Some(rate_mbit),
                delay_ms: Some(delay_ms),
                loss: Some(loss),
            };
            [step(120.0, 0.4), step(14_880.0, 0.001)]
        });
        LinkParams {
            jitter_ms: 3.0,
            loss: 0.001,
            loss_burst: 4.0,
            queue_ms: 150.0,
            steps: steps.collect(),
            ..LinkParams::new(80.0, 25.0)
        }
    }

    /// A quiet DSL line: slow, steady, with a deep queue.
    pub fn dsl() -> Self {
        LinkParams {
            queue_ms: 250.0,
            ..LinkParams::new(16.0, 12.0)
        }
    }

    /// Wi-Fi at the edge of its range: short delay, much scatter, bursts of loss.
    pub fn wifi_lossy() -> Self {
        LinkParams {
            jitter_ms: 3.0,
            loss: 0.02,
            loss_burst: 5.0,
            queue_ms: 60.0,
            ..LinkParams::new(40.0, 4.0)
        }
    }

    /// Complains about the first value that makes no sense, naming its field.
    pub fn check(&self) -> Result<(), String> {
        let not_negative = |field: &str, value: f64| {
            if value.is_finite() && value >= 0.0 {
                Ok(())
            } else {
                Err(format!(
                    "{field} = {value}: give a number that is not negative"
                ))
            }
        };
        let share = |field: &str, value: f64| {
            if (0.0..=1.0).contains(&value) {
                Ok(())
            } else {
                Err(format!("{field} = {value}: give a share between 0 and 1"))
            }
        };
        for (field, value) in [
            ("rate_mbit", self.rate_mbit.unwrap_or(0.0)),
            ("delay_ms", self.delay_ms),
            ("jitter_ms", self.jitter_ms),
            ("queue_ms", self.queue_ms),
            ("lump_ms", self.lump_ms),
            ("policer_mbit", self.policer_mbit.unwrap_or(0.0)),
        ] {
            not_negative(field, value)?;
        }
        share("loss", self.loss)?;
        if !(self.loss_burst.is_finite() && self.loss_burst >= 1.0) {
            return Err(format!(
                "loss_burst = {}: give the mean number of packets lost in a row, at least 1",
                self.loss_burst
            ));
        }
        for step in &self.steps {
            if !(step.hold_ms.is_finite() && step.hold_ms > 0.0) {
                return Err(format!(
                    "hold_ms = {}: a step lasts longer than 0",
                    step.hold_ms
                ));
            }
            not_negative("rate_mbit", step.rate_mbit.unwrap_or(0.0))?;
            not_negative("delay_ms", step.delay_ms.unwrap_or(0.0))?;
            share("loss", step.loss.unwrap_or(0.0))?;
        }
        match &self.trace {
            Some(_) if self.rate_mbit.is_some() => {
                Err("trace and rate_mbit: a link has one or the other".to_owned())
            }
            Some(trace) if !trace.is_loaded() => Err("trace: the file was not read yet".to_owned()),
            _ => Ok(()),
        }
    }

    /// The mean rate in bits per second, over the schedule or the trace; None if unlimited.
    pub fn mean_rate_bit_s(&self) -> Option<u64> {
        if let Some(trace) = &self.trace {
            return Some(trace.mean_rate_bit_s());
        }
        let total_ms: f64 = self.steps.iter().map(|step| step.hold_ms).sum();
        if total_ms == 0.0 {
            return self.rate_mbit.map(bit_s);
        }
        let mut sum = 0.0;
        for step in &self.steps {
            sum += step.rate_mbit.or(self.rate_mbit)? * step.hold_ms;
        }
        Some(bit_s(sum / total_ms))
    }
}

impl Step {
    fn rate(hold_ms: f64, rate_mbit: f64) -> Self {
        Step {
            hold_ms,
            rate_mbit: Some(rate_mbit),
            delay_ms: None,
            loss: None,
        }
    }
}

/// Mbit/s in bits per second.
pub(super) fn bit_s(mbit: f64) -> u64 {
    (mbit * 1e6).round() as u64
}

/// Milliseconds in nanoseconds.
pub(super) fn nanos(ms: f64) -> u64 {
    (ms * 1e6).round() as u64
}

//! How fast a sender goes: Reno, CUBIC with HyStart, a simple BBR; and how it yields to losses and marks.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::marks::Yield;
use crate::link::Nanos;

const MS: Nanos = 1_000_000;

/// A congestion control algorithm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    /// Halves on loss, adds one segment per round trip.
    Reno,
    /// The default of Linux, with HyStart.
    #[default]
    Cubic,
    /// Measures the rate and the shortest round trip.
    Bbr,
    /// CUBIC that asks for marks in place of losses (RFC 3168).
    #[serde(rename = "cubic-ecn")]
    CubicEcn,
    /// Adds one segment per round trip and yields in proportion to marks (RFC 9331): the simplest scalable sender.
    Prague,
}

impl Algorithm {
    /// The ECN field of its segments: not capable, ECT(0) or ECT(1).
    pub fn ecn(self) -> u8 {
        match self {
            Algorithm::Reno | Algorithm::Cubic | Algorithm::Bbr => 0,
            Algorithm::CubicEcn => 2,
            Algorithm::Prague => 1,
        }
    }
}

/// What an acknowledgement brought, as the algorithms need it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    pub now: Nanos,
    /// Segments newly known to have arrived.
    pub delivered: u64,
    /// All segments that ever arrived.
    pub delivered_in_all: u64,
    /// A round-trip sample.
    pub rtt: Option<Nanos>,
    pub rtt_min: Nanos,
    /// Segments on their way now.
    pub pipe: u64,
    /// Whether the window, and not the application, held the sender back.
    pub cwnd_limited: bool,
    pub in_recovery: bool,
    /// First segment not acknowledged, first not sent.
    pub una: u64,
    pub next: u64,
    pub rate: Option<RateSample>,
}

/// One measurement of the delivery rate.
#[derive(Clone, Copy, Debug)]
pub(super) struct RateSample {
    /// Segments per second.
    pub rate: f64,
    /// Segments that had been delivered when the measured one was sent.
    pub prior_delivered: u64,
    /// Segments delivered now.
    pub delivered: u64,
    pub app_limited: bool,
}

/// The window and what moves it. Windows count segments.
#[derive(Clone, Debug)]
pub(super) struct Congestion {
    pub cwnd: f64,
    pub ssthresh: f64,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Reno,
    Cubic(Cubic),
    Bbr(Box<Bbr>),
}

impl Congestion {
    pub fn new(algorithm: Algorithm) -> Self {
        let kind = match algorithm {
            Algorithm::Reno | Algorithm::Prague => Kind::Reno,
            Algorithm::Cubic | Algorithm::CubicEcn => Kind::Cubic(Cubic::default()),
            Algorithm::Bbr => Kind::Bbr(Box::default()),
        };
        Congestion {
            cwnd: 10.0,
            ssthresh: f64::INFINITY,
            kind,
        }
    }

    /// Whether losses shrink the window (through proportional rate reduction).
    pub fn yields_to_loss(&self) -> bool {
        !matches!(self.kind, Kind::Bbr(_))
    }

    /// Segments per second that may leave; None: no pacing.
    pub fn pacing_rate(&self) -> Option<f64> {
        match &self.kind {
            Kind::Bbr(bbr) => bbr.pacing_rate(self.cwnd),
            Kind::Reno | Kind::Cubic(_) => None,
        }
    }

    /// Whether it sends next to nothing to see the shortest round trip: what arrives meanwhile says nothing about the rate.
    pub fn holds_back(&self) -> bool {
        matches!(&self.kind, Kind::Bbr(bbr) if bbr.phase == Phase::ProbeRtt)
    }

    /// How many segments leave together when they are paced.
    pub fn segments_at_once(&self) -> u64 {
        match &self.kind {
            Kind::Bbr(bbr) => bbr.segments_at_once() as u64,
            Kind::Reno | Kind::Cubic(_) => 1,
        }
    }

    pub fn on_ack(&mut self, progress: &Progress) {
        if let Kind::Bbr(bbr) = &mut self.kind {
            self.cwnd = bbr.on_ack(progress, self.cwnd);
            return;
        }
        if let Kind::Cubic(cubic) = &mut self.kind
            && let Some(rtt) = progress.rtt
            && self.cwnd < self.ssthresh
            && cubic.hystart(progress, rtt, self.cwnd)
        {
            self.ssthresh = self.cwnd;
        }
        if progress.in_recovery || !progress.cwnd_limited {
            return;
        }
        let mut acked = progress.delivered as f64;
        if self.cwnd < self.ssthresh {
            let grown = (self.cwnd + acked).min(self.ssthresh);
            acked -= grown - self.cwnd;
            self.cwnd = grown;
        }
        if acked > 0.0 {
            self.cwnd += match &mut self.kind {
                Kind::Cubic(cubic) => cubic.growth(progress, self.cwnd, acked),
                _ => acked / self.cwnd,
            };
        }
    }

    /// Where the window goes after a loss.
    pub fn reduce(&mut self) {
        self.ssthresh = match &mut self.kind {
            Kind::Cubic(cubic) => cubic.on_loss(self.cwnd),
            Kind::Reno => (self.cwnd / 2.0).max(2.0),
            Kind::Bbr(_) => self.ssthresh,
        };
    }

    /// Where it goes after a mark: nothing has to be sent again, so it is there at once.
    pub fn yield_to_mark(&mut self, how: Yield) {
        match how {
            Yield::AsToLoss => self.reduce(),
            Yield::To(share) => self.ssthresh = (self.cwnd * share).max(2.0),
        }
        self.cwnd = self.cwnd.min(self.ssthresh);
    }

    pub fn on_timeout(&mut self) {
        self.reduce();
        self.cwnd = if self.yields_to_loss() { 1.0 } else { 4.0 };
    }
}

/// CUBIC as in RFC 9438, HyStart as in Linux.
#[derive(Clone, Debug, Default)]
struct Cubic {
    w_max: f64,
    /// Beginning of the current climb, the window to come back to, and when.
    epoch: Option<Nanos>,
    origin: f64,
    k_s: f64,
    w_reno: f64,

    round_end: u64,
    round_start: Nanos,
    round_rtt_min: Nanos,
    round_samples: u32,
    last_ack: Nanos,
}

impl Cubic {
    const C: f64 = 0.4;
    const BETA: f64 = 0.7;
    const HYSTART_LOW_WINDOW: f64 = 16.0;

    /// Whether slow start should end: the queue begins to fill.
    fn hystart(&mut self, progress: &Progress, rtt: Nanos, cwnd: f64) -> bool {
        if progress.una >= self.round_end {
            self.round_end = progress.next;
            self.round_start = progress.now;
            self.last_ack = progress.now;
            self.round_rtt_min = Nanos::MAX;
            self.round_samples = 0;
        }
        if cwnd < Self::HYSTART_LOW_WINDOW {
            return false;
        }
        // A train of closely spaced acknowledgements that spans half a round trip.
        if progress.now - self.last_ack <= 2 * MS {
            self.last_ack = progress.now;
            if progress.now - self.round_start > progress.rtt_min / 2 {
                return true;
            }
        }
        self.round_rtt_min = self.round_rtt_min.min(rtt);
        self.round_samples += 1;
        let margin = (progress.rtt_min / 8).clamp(4 * MS, 16 * MS);
        self.round_samples >= 8 && self.round_rtt_min > progress.rtt_min + margin
    }

    fn growth(&mut self, progress: &Progress, cwnd: f64, acked: f64) -> f64 {
        let epoch = *self.epoch.get_or_insert_with(|| {
            self.origin = self.w_max.max(cwnd);
            self.k_s = ((self.origin - cwnd) / Self::C).cbrt();
            self.w_reno = cwnd;
            progress.now
        });
        let t = (progress.now - epoch + progress.rtt_min) as f64 / 1e9;
        let target = self.origin + Self::C * (t - self.k_s).powi(3);
        self.w_reno += 3.0 * (1.0 - Self::BETA) / (1.0 + Self::BETA) * acked / cwnd;
        let target = target.max(self.w_reno).min(1.5 * cwnd);
        if target > cwnd {
            (target - cwnd) / cwnd * acked
        } else {
            acked / (100.0 * cwnd)
        }
    }

    fn on_loss(&mut self, cwnd: f64) -> f64 {
        self.epoch = None;
        self.w_max = if cwnd < self.w_max {
            cwnd * (1.0 + Self::BETA) / 2.0
        } else {
            cwnd
        };
        (cwnd * Self::BETA).max(2.0)
    }
}

/// BBR's first version, as in Linux (`tcp_bbr.c`), without its long-term policer model.
#[derive(Clone, Debug)]
struct Bbr {
    phase: Phase,
    /// Best rate of each of the last rounds, with the round.
    rates: VecDeque<(u64, f64)>,
    round: u64,
    round_ends_at: u64,
    full_rate: f64,
    full_rounds: u32,
    rtt_min: Nanos,
    rtt_min_at: Nanos,
    phase_since: Nanos,
    cwnd_before_probe: f64,
    /// When the shortest round trip has been looked for, and the round that must end before.
    probe_ends: Option<(Nanos, u64)>,
    aggregation: Aggregation,
}

/// How much more than expected is acknowledged at once. Links and receivers that
/// hold acknowledgements together would otherwise starve the window; the kernel
/// adds the most of the last five to ten rounds to it.
#[derive(Clone, Debug, Default)]
struct Aggregation {
    since: Nanos,
    acked: f64,
    most: [f64; 2],
    window_began: u64,
}

impl Aggregation {
    const ROUNDS: u64 = 5;

    fn note(&mut self, now: Nanos, round: u64, delivered: f64, rate: f64, cwnd: f64) {
        if round >= self.window_began + Self::ROUNDS {
            self.window_began = round;
            self.most = [0.0, self.most[0]];
        }
        let expected = rate * (now - self.since) as f64 / 1e9;
        if self.acked <= expected {
            self.since = now;
            self.acked = 0.0;
        }
        let expected = rate * (now - self.since) as f64 / 1e9;
        self.acked += delivered;
        self.most[0] = self.most[0].max((self.acked - expected).min(cwnd));
    }

    /// Packets to add to the window: at most 100 ms of the rate.
    fn window(&self, rate: f64) -> f64 {
        self.most[0].max(self.most[1]).min(rate / 10.0)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    Startup,
    Drain,
    Cycle(usize),
    ProbeRtt,
}

impl Default for Bbr {
    fn default() -> Self {
        Bbr {
            phase: Phase::Startup,
            rates: VecDeque::new(),
            round: 0,
            round_ends_at: 0,
            full_rate: 0.0,
            full_rounds: 0,
            rtt_min: Nanos::MAX,
            rtt_min_at: 0,
            phase_since: 0,
            cwnd_before_probe: 0.0,
            probe_ends: None,
            aggregation: Aggregation::default(),
        }
    }
}

impl Bbr {
    const CYCLE: [f64; 8] = [1.25, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0];
    const ROUNDS_KEPT: u64 = 10;
    const STARTUP_GAIN: f64 = 2.885;
    const LEAST_WINDOW: f64 = 4.0;

    fn rate(&self) -> f64 {
        self.rates.iter().map(|(_, rate)| *rate).fold(0.0, f64::max)
    }

    fn pacing_rate(&self, cwnd: f64) -> Option<f64> {
        let gain = match self.phase {
            Phase::Startup => Self::STARTUP_GAIN,
            Phase::Drain => 1.0 / Self::STARTUP_GAIN,
            Phase::Cycle(step) => Self::CYCLE[step],
            Phase::ProbeRtt => 1.0,
        };
        if self.rates.is_empty() {
            // Before the first sample: the first window within a round trip, or a millisecond.
            let rtt = if self.rtt_min == Nanos::MAX {
                MS
            } else {
                self.rtt_min
            };
            return Some(gain * cwnd * 1e9 / rtt as f64);
        }
        Some(0.99 * gain * self.rate())
    }

    /// What the kernel hands to the network at once: a millisecond of the rate, 64 kB at most. The window has room for three of
    /// them.
    fn segments_at_once(&self) -> f64 {
        let rate = self.pacing_rate(0.0).filter(|_| !self.rates.is_empty());
        rate.map_or(2.0, |rate| (rate / 1024.0).floor().clamp(2.0, 44.0))
    }

    fn bdp(&self) -> f64 {
        if self.rtt_min == Nanos::MAX {
            10.0
        } else {
            self.rate() * self.rtt_min as f64 / 1e9
        }
    }

    fn on_ack(&mut self, progress: &Progress, cwnd: f64) -> f64 {
        let now = progress.now;
        let mut new_round = false;
        if let Some(sample) = progress.rate {
            if sample.prior_delivered >= self.round_ends_at {
                self.round_ends_at = sample.delivered;
                self.round += 1;
                new_round = true;
            }
            if !sample.app_limited || sample.rate > self.rate() {
                self.rates.push_back((self.round, sample.rate));
                let oldest = self.round.saturating_sub(Self::ROUNDS_KEPT);
                while self.rates.front().is_some_and(|(at, _)| *at < oldest) {
                    self.rates.pop_front();
                }
                self.keep_only_maxima();
            }
        }
        let expired = now.saturating_sub(self.rtt_min_at) > 10_000 * MS;
        if let Some(rtt) = progress.rtt
            && (rtt < self.rtt_min || expired)
        {
            self.rtt_min = rtt;
            self.rtt_min_at = now;
        }
        self.step_phase(progress, new_round, expired, cwnd);
        self.window(progress, cwnd)
    }

    /// Older samples that a later one outdoes can never be the maximum again.
    fn keep_only_maxima(&mut self) {
        if let Some((at, rate)) = self.rates.pop_back() {
            while self.rates.back().is_some_and(|(_, older)| *older <= rate) {
                self.rates.pop_back();
            }
            self.rates.push_back((at, rate));
        }
    }

    fn step_phase(&mut self, progress: &Progress, new_round: bool, expired: bool, cwnd: f64) {
        let now = progress.now;
        if self.phase == Phase::Startup && new_round {
            let app_limited = progress.rate.is_some_and(|sample| sample.app_limited);
            if self.rate() >= 1.25 * self.full_rate {
                self.full_rate = self.rate();
                self.full_rounds = 0;
            } else if !app_limited {
                self.full_rounds += 1;
            }
            if self.full_rounds >= 3 {
                self.phase = Phase::Drain;
            }
        }
        if self.phase == Phase::Drain && progress.pipe as f64 <= self.bdp() {
            self.enter(Phase::Cycle(2), now);
        }
        if let Phase::Cycle(step) = self.phase {
            let lasted = now - self.phase_since > self.rtt_min;
            let drained = step == 1 && progress.pipe as f64 <= self.bdp();
            let filled = step != 0 || progress.pipe as f64 >= 1.25 * self.bdp();
            if (lasted && filled) || drained || now - self.phase_since > 4 * self.rtt_min {
                self.enter(Phase::Cycle((step + 1) % Self::CYCLE.len()), now);
            }
        }
        if expired && self.phase != Phase::ProbeRtt {
            self.cwnd_before_probe = cwnd;
            self.enter(Phase::ProbeRtt, now);
            self.probe_ends = None;
        }
        if self.phase != Phase::ProbeRtt {
            return;
        }
        let Some((until, round)) = self.probe_ends else {
            if progress.pipe <= Self::LEAST_WINDOW as u64 {
                self.probe_ends = Some((now + 200 * MS, self.round));
                self.round_ends_at = progress.delivered_in_all;
            }
            return;
        };
        if now >= until && self.round > round {
            self.rtt_min_at = now;
            let full = self.full_rounds >= 3;
            self.enter(
                if full {
                    Phase::Cycle(2)
                } else {
                    Phase::Startup
                },
                now,
            );
        }
    }

    fn enter(&mut self, phase: Phase, now: Nanos) {
        self.phase = phase;
        self.phase_since = now;
    }

    fn window(&mut self, progress: &Progress, cwnd: f64) -> f64 {
        if self.phase == Phase::ProbeRtt {
            return cwnd.min(Self::LEAST_WINDOW);
        }
        let cwnd = cwnd.max(std::mem::take(&mut self.cwnd_before_probe));
        let gain = match self.phase {
            Phase::Startup | Phase::Drain => Self::STARTUP_GAIN,
            _ => 2.0,
        };
        let mut target = gain * self.bdp() + 3.0 * self.segments_at_once();
        if self.phase == Phase::Cycle(0) {
            target += 2.0;
        }
        let (rate, delivered) = (self.rate(), progress.delivered as f64);
        self.aggregation
            .note(progress.now, self.round, delivered, rate, cwnd);
        if self.full_rounds >= 3 {
            target += self.aggregation.window(rate);
        }
        let grown = cwnd + progress.delivered as f64;
        if self.full_rounds >= 3 {
            grown.min(target)
        } else {
            grown.min(target.max(cwnd)).max(cwnd)
        }
        .max(Self::LEAST_WINDOW)
    }
}

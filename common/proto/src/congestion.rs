//! The rate of a path: as much as the link carries, with next to no queue in it.
//!
//! A window that halves on loss is the wrong tool below other people's
//! congestion control: random loss is repaired here and is no signal, and the
//! signal to the inner flow comes from our own queue in front of the paths. What
//! is needed per path is its capacity, and to stay at it.
//!
//! Three facts come with each acknowledgement, all by the *receiver's* clock, so
//! that nothing that happens to acknowledgements on their way back disturbs
//! them: how many bytes arrived until when (a delivery rate), the lowest one-way
//! delay since the last one (the clocks differ, but the offset cancels in
//! differences), and how much was lost.
//!
//! * While the delay is above its base, the link is busy: the estimate follows the
//!   delivery rate upwards, and downwards when the same datagrams arrived more
//!   slowly than they had been sent. When they came as they went, it may have
//!   been our own restraint, and that says nothing about the link. Nor, where the delay jitters, does what little an idle
//!   path is given: it arrives late by chance.
//! * While the delay is at its base, the link has room: the estimate grows,
//!   slowly at first and faster with every round trip without a queue, and only
//!   when there was something to send, for an idle path proves nothing. On a link
//!   that jitters, where a busy path never sees its base, it is enough that things
//!   arrive as fast as they are sent.
//! * The pace is the estimate, corrected so that a queue of a few milliseconds
//!   remains. It is this small standing queue that keeps the link busy and the
//!   estimate true. While a longer one stands, the estimate is no higher than the most that arrived of late
//!   (`congestion/carried.rs`).
//! * A link that drops what exceeds its rate, a policer, never shows a queue. There the losses tell
//!   (`congestion/loss.rs`): what arrived beside far more than the usual ones, for longer than a burst of them lasts, is its
//!   rate. What it drops is not learnt as usual.
//! * A time in which the link stood still is no rate (`congestion/delivery.rs`).
//!
//! The base is the lowest delay of ten seconds. A standing queue would slowly
//! become the base, so the queue is let run empty for a moment when it has not
//! been empty for five seconds. A delay that is far too high makes the pace fall
//! below what arrives. A queue then shrinks; when it would be gone and the delay is
//! still there, the route has become longer and the base is taken anew.

mod carried;
mod delay;
mod delivery;
mod loss;
mod reason;
mod sending;
mod start;
#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::time::Time;
use carried::Carried;
use delay::Delay;
use delivery::{Delivery, Rates};
use loss::{Losses, Share};
pub use reason::RateReason;
use sending::Sending;

/// Rates below this are not measured but assumed, bytes per second: 160 kbit/s.
const FLOOR: f64 = 20_000.0;
/// Bytes per second before anything is known: ten packets (RFC 6928) in a round trip of 150 ms.
const UNKNOWN: f64 = 100_000.0;
/// Pace over capacity while starting: doubles per round trip.
const STARTUP_GAIN: f64 = 2.0;
/// On a link that jitters, a delay so many times its noise above the rest is no noise.
const FAR_ABOVE: f64 = 8.0;
/// Bounds of a rate that was guessed are believed when they are no farther apart than this.
const SURE: f64 = 1.5;
/// Growth per round trip after the first without a queue.
const GROWTH_MIN: f64 = 0.03;
/// Growth per round trip at most; BBR's probing gain (draft-ietf-ccwg-bbr) twice over.
const GROWTH_MAX: f64 = 0.5;
/// Share of the pace that must have been used before more is tried.
const USED: f64 = 0.8;
/// Half of the time a base delay is believed.
const BASE_BUCKET: Duration = Duration::from_secs(5);
/// Over how long a rate is taken, µs.
const SPAN_US: u64 = 60_000;
/// The same while the queue is far above its target and time is short.
const HASTY_SPAN_US: u64 = 20_000;
/// The same on a link that jitters, µs: what arrives in a short span is a matter of luck.
const NOISY_SPAN_US: u64 = 200_000;
/// Over how long what a busy link carries is taken at most, µs: less than arrivals are remembered for.
const SETTLED_MAX_US: u64 = 900_000;
/// What leaves at once arrives one after the other, milliseconds ([`crate::path`]).
const TRAIN_MS: f64 = 1.0;
/// A share of losses in a start that nothing but a rate far below the pace explains: all of the pace used on a link of half
/// of it loses a half.
const LOST_TOO_MUCH: f64 = 0.25;
/// For how long a rate that was found by its losses is kept; doubled whenever the same is found again.
const HOLD_MIN: Duration = Duration::from_secs(1);
const HOLD_MAX: Duration = Duration::from_secs(30);
/// So often may a rate be found lower though no more is sent: the first time, a policer's bucket had yet to run empty.
const IN_VAIN: u32 = 1;
/// A rate counts as found again within this: twice the longest time for which one is kept.
const FOUND_AGAIN: Duration = Duration::from_secs(60);
/// Found rates that are no farther apart are the same.
const SAME_RATE: f64 = 0.25;
/// Acknowledgements may come this late without stopping the path.
const ACK_SLACK: Duration = Duration::from_millis(25);

/// What the controller is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Doubling until a queue or a plateau shows.
    Startup,
    /// At capacity, with a small queue.
    Cruise,
    /// Letting the queue run empty to see the base delay.
    Drain,
}

impl Phase {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Startup => "startup",
            Phase::Cruise => "cruise",
            Phase::Drain => "drain",
        }
    }
}

/// What one acknowledgement tells the controller.
#[derive(Clone, Copy, Debug)]
pub struct RateSample {
    /// Receiver's clock at the last arrival, µs, mod 2³².
    pub arrival_us: u32,
    /// Bytes that had arrived by then, mod 2³².
    pub bytes: u32,
    /// Lowest arrival stamp minus send stamp since the last acknowledgement.
    pub min_delay: u32,
    /// Lowest round trip of late.
    pub rtt_min: Duration,
    /// Smoothed round trip.
    pub rtt: Duration,
    /// The sender had less to send than the path would have carried.
    pub limited: bool,
    /// When the newest datagram that arrived was sent.
    pub sent_at: Time,
    /// Bytes sent on the path by then, with it.
    pub sent: u64,
    /// Datagrams newly acknowledged.
    pub acked: u32,
    /// Datagrams newly declared lost.
    pub lost: u32,
}

/// A rate that was found by what was lost beyond it.
#[derive(Clone, Copy, Debug)]
struct Policed {
    rate: f64,
    /// What was believed before.
    before: f64,
    since: Time,
    hold: Duration,
    /// How often it was found again though no more was sent.
    vain: u32,
}

/// Above this a queue is not the one that is aimed at, milliseconds.
fn too_high_ms(target_ms: f64) -> f64 {
    2.0 * target_ms + 2.0
}

/// A rate controller for one path and direction.
#[derive(Debug)]
pub struct RateController {
    phase: Phase,
    capacity: f64,
    pace: f64,
    growth: f64,
    sent: Sending,
    delivery: Delivery,
    delay: Delay,
    /// The base delay before the last restart.
    base_before: Option<u32>,
    busy_since_us: Option<u64>,
    carried: Carried,
    last_update: Time,
    last_empty: Time,
    drain_until: Time,
    seen: f64,
    /// The start began with what a restart left.
    remembers: bool,
    startup_over: u32,
    round_at: Time,
    round_rate: f64,
    flat_rounds: u32,
    round_acked: u32,
    round_limited: u32,
    losses: Losses,
    /// The share before was far above the usual.
    doubt: Option<Share>,
    policed: Option<Policed>,
    room: bool,
}

impl Default for RateController {
    fn default() -> Self {
        Self::new()
    }
}

impl RateController {
    /// Knows nothing yet.
    pub fn new() -> Self {
        RateController {
            phase: Phase::Startup,
            capacity: 0.0,
            pace: 0.0,
            growth: GROWTH_MIN,
            sent: Sending::default(),
            delivery: Delivery::default(),
            delay: Delay::new(Time::ZERO),
            base_before: None,
            busy_since_us: None,
            carried: Carried::default(),
            last_update: Time::ZERO,
            last_empty: Time::ZERO,
            drain_until: Time::ZERO,
            seen: 0.0,
            remembers: false,
            startup_over: 0,
            round_at: Time::ZERO,
            round_rate: 0.0,
            flat_rounds: 0,
            round_acked: 0,
            round_limited: 0,
            losses: Losses::default(),
            doubt: None,
            policed: None,
            room: false,
        }
    }

    /// The first round trip is known: begin with three times what a TCP sender dares (RFC 6928), and so stay ahead of
    /// it. Were the pace no more than the sender's, the first packets would queue up in front of the path, and CUBIC
    /// takes that for a full link (HyStart).
    pub fn begin(&mut self, now: Time, rtt: Duration) {
        if self.capacity == 0.0 {
            self.capacity = (32.0 * 1_500.0 / rtt.as_secs_f64().max(0.001)).clamp(FLOOR, 2.5e6);
            self.pace = self.capacity * STARTUP_GAIN;
            self.last_update = now;
            self.last_empty = now;
            self.delay = Delay::new(now);
            self.round_at = now;
        }
    }

    /// Something else than traffic says that the link carries no less and no more than this, and that its delays lie so
    /// far apart: begin within these bounds. Only what traffic proves is doubled. Were this doubled too, the first flow
    /// would fill the link's queue instead of asking for the other paths, and an inner BBR that began so stays on this
    /// one.
    ///
    /// An upper bound far above the lower one is made of jitter, and then it may be anything. What a restart left is younger
    /// than any bounds.
    pub fn suppose(&mut self, low: f64, high: f64, scatter_ms: f64) {
        if self.phase == Phase::Startup && self.capacity > 0.0 {
            self.delay.expect_scatter(scatter_ms);
            if self.remembers {
                return;
            }
            let mut supposed = self.capacity.max(low / STARTUP_GAIN);
            if high < SURE * low {
                supposed = supposed.min(high / STARTUP_GAIN);
            }
            self.capacity = supposed.max(self.seen).max(FLOOR);
            self.pace = self.capacity * STARTUP_GAIN;
        }
    }

    /// The most that arrived so far in the start, bytes per second.
    pub fn seen(&self) -> f64 {
        self.seen
    }

    /// By how much the delay goes up and down, milliseconds.
    pub fn noise_ms(&self) -> f64 {
        self.delay.noise_ms()
    }

    /// After an outage, or when only the size was wrong: keep half, look anew.
    pub fn restart(&mut self, now: Time) {
        let capacity = (self.capacity / 2.0).max(FLOOR);
        let known = self.capacity > 0.0;
        let base_before = self.base_delay();
        *self = RateController::new();
        self.base_before = base_before;
        if known {
            self.remembers = true;
            self.capacity = capacity;
            self.pace = capacity;
            self.last_update = now;
            self.last_empty = now;
            self.delay = Delay::new(now);
            self.round_at = now;
        }
    }

    /// Whether the estimate rests on a link that was seen busy.
    pub fn is_measured(&self) -> bool {
        self.phase != Phase::Startup
    }

    /// What it is doing.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Estimated capacity, bytes per second; zero when nothing is known.
    pub fn capacity(&self) -> f64 {
        self.capacity
    }

    /// Bytes per second at which to send now.
    pub fn pace(&self) -> f64 {
        if self.capacity == 0.0 {
            return UNKNOWN;
        }
        self.pace.max(FLOOR)
    }

    /// Standing queue in the path beyond the base delay, milliseconds.
    pub fn queue_ms(&self) -> f64 {
        self.delay.queue_ms()
    }

    /// The base delay as a difference of stamps: comparable between paths of one direction.
    ///
    /// After an outage the former one stands until traffic shows another. Were it unknown, the path would count as far, and
    /// beside flows that are content with the other paths no traffic would ever show it.
    pub fn base_delay(&self) -> Option<u32> {
        self.delay.base().or(self.base_before)
    }

    /// Bytes that may be in flight.
    pub fn inflight_max(&self, rtt_min: Duration, rtt: Duration) -> u64 {
        // What is no queue of ours is a longer route, perhaps only of the way back.
        let queued = Duration::from_secs_f64(self.queue_ms().max(0.0) / 1e3);
        let rtt = rtt_min.max(rtt.saturating_sub(queued)).as_secs_f64();
        let time = match self.phase {
            Phase::Startup => 2.5 * rtt + 2.0 * ACK_SLACK.as_secs_f64(),
            Phase::Cruise | Phase::Drain => 1.25 * rtt + ACK_SLACK.as_secs_f64(),
        };
        (self.capacity.max(FLOOR) * time) as u64 + 6_000
    }

    /// What one packet takes on the link, milliseconds.
    fn packet_ms(&self) -> f64 {
        1_500.0 / self.capacity.max(FLOOR) * 1e3
    }

    /// The same as far as arrivals bear it out. What is believed may be far too low, and then all jitter would look like the
    /// work of our own packets, for ever.
    fn seen_packet_ms(&self) -> f64 {
        1_500.0 / self.delivery.fastest().max(self.capacity).max(FLOOR) * 1e3
    }

    /// Whether a single look at the delay says little.
    fn is_noisy(&self) -> bool {
        self.delay.is_noisy(self.seen_packet_ms())
    }

    /// The queue that is aimed at, milliseconds.
    fn target_ms(&self, rtt_min: Duration) -> f64 {
        (rtt_min.as_secs_f64() * 1e3 / 20.0).clamp(2.5, 6.0)
            + self.packet_ms()
            + self.delay.noise_ms().min(10.0)
    }

    /// Takes in an acknowledgement.
    pub fn on_ack(&mut self, now: Time, s: &RateSample) {
        self.begin(now, s.rtt);
        self.delivery.note(s);
        self.delay.note(now, s, self.seen_packet_ms());
        self.round_acked += s.acked;
        self.round_limited += if s.limited { s.acked } else { 0 };
        let target = self.target_ms(s.rtt_min);
        // On a link that jitters a part of what is seen is always there.
        let low = if self.is_noisy() {
            target
        } else {
            0.4 * target
        };
        let busy = self.queue_ms() > low;
        match (busy, self.busy_since_us) {
            (true, None) => self.busy_since_us = Some(self.delivery.clock_us()),
            (false, _) => self.busy_since_us = None,
            _ => {}
        }
        if self.queue_ms() <= 0.3 * target {
            self.last_empty = now;
        }
        let dt = now.since(self.last_update).as_secs_f64().min(0.1);
        self.last_update = now;
        if self.phase == Phase::Startup {
            self.startup(now, s, target);
        } else {
            self.cruise(now, s, target, low, dt);
        }
        self.sent.note(now, self.pace);
        let queue_ms = self.queue_ms();
        if let Some(share) = self.losses.note(now, s, queue_ms, self.delivery.clock_us()) {
            self.judge_losses(now, s, &share, target);
        }
        self.end_round(now, s);
    }

    fn cruise(&mut self, now: Time, s: &RateSample, target: f64, low: f64, dt: f64) {
        let rtt = s.rtt.as_secs_f64().max(0.005);
        let queue = self.queue_ms();
        let high = too_high_ms(target);
        self.room = self.shows_room(queue, low, high);
        if queue > target && !self.room {
            self.growth = GROWTH_MIN;
        }
        if queue > low {
            let (span, settle) = if self.is_noisy() {
                (NOISY_SPAN_US, 0.2)
            } else if queue > high {
                (HASTY_SPAN_US, 0.02)
            } else {
                (SPAN_US, 0.1)
            };
            // On a slow link that much has to be some packets.
            let span = span.max((8e3 * self.packet_ms()) as u64);
            let since = self.busy_since_us.unwrap_or(self.delivery.clock_us());
            if let Some(rates) = self.delivery.rates(span, since) {
                // Over as long as the correction takes, a packet more or less leaves no more than a packet in the queue.
                let settled = ((3e6 * rtt) as u64).clamp(span, SETTLED_MAX_US);
                let whole = self.delivery.rates(settled, since);
                let whole = whole.filter(|rates| rates.span_s * 1e6 >= settled as f64);
                let most = self.carried.note(now, whole.map_or(0.0, |r| r.arrived));
                let jitters = self.is_noisy() || self.delay.is_scattered();
                let stands = queue > target && most > 0.0 && !jitters;
                // Where the delay jitters, what little is sent arrives late by chance.
                let chance = self.is_noisy() && !self.was_asked(&rates);
                let told = !chance || queue > high + self.far_ms();
                let falls = told && self.falls_short(&rates) && !self.delay.is_doubtful();
                if rates.arrived > self.capacity || falls {
                    self.capacity += (rates.arrived - self.capacity) * (dt / settle).min(1.0);
                } else if stands && most < self.capacity {
                    // An excess that the correction makes up for: things arrive as fast as they are sent, and too much stands.
                    self.capacity += (most - self.capacity) * (dt / settle).min(1.0);
                }
            }
        }
        if self.room && !s.limited && !self.is_held(now) {
            // Room is proven only by a round trip in which the pace was used.
            let span = (s.rtt.as_micros() as u64).clamp(15_000, 100_000);
            let used = self.delivery.rate(span, 0).unwrap_or(0.0);
            let pace = self.sent.pace_at(self.delivery.sent_at());
            if used > USED * pace.unwrap_or(self.pace) {
                self.capacity *= 1.0 + self.growth * (dt / rtt).min(1.0);
            }
        }
        self.capacity = self.capacity.max(FLOOR);
        let mut correction = ((target - queue) / 1e3 / (3.0 * rtt).max(0.03)).clamp(-0.3, 0.08);
        let idle_ms = self.delivery.step_ms() - self.delivery.step_bytes() / self.capacity * 1e3;
        if self.is_held(now) {
            // No queue shows there: more than what passes would only be lost.
            correction = correction.min(0.0);
        }
        self.delay.watch_step(now, s.rtt, idle_ms);
        let span = if self.is_noisy() {
            NOISY_SPAN_US
        } else {
            SPAN_US
        };
        let rates = self.delivery.rates(span, 0);
        let rates = rates.map(|rates| (rates, self.allowed(&rates)));
        let step_ms = self.delivery.step_ms();
        let packet_ms = self.seen_packet_ms();
        let route = self
            .delay
            .watch_route(now, high, packet_ms, self.capacity, rates, step_ms);
        if let Some(before) = route {
            self.capacity = self.capacity.max(0.9 * before);
        }
        correction = self.drain(now, s, queue, target).unwrap_or(correction);
        self.pace = self.capacity * (1.0 + correction);
        if queue > high || self.phase == Phase::Drain {
            // Whatever is believed: less than what arrives lets a queue shrink, and leaves a longer route as it is.
            let span = (s.rtt.as_micros() as u64).clamp(20_000, 100_000);
            let arrived = self.delivery.rate(span, 0).unwrap_or(self.capacity);
            self.pace = self
                .pace
                .min(arrived * (1.0 + correction))
                .max(0.4 * self.capacity);
        }
    }

    /// What jitter does not add to a delay, milliseconds.
    fn far_ms(&self) -> f64 {
        FAR_ABOVE * self.delay.noise_ms()
    }

    /// Whether the link could carry more. On one that jitters the delay of a busy path is never at its base: there it
    /// is enough that things arrive as fast as they are sent.
    fn shows_room(&self, queue: f64, low: f64, high: f64) -> bool {
        let as_sent = || {
            let rates = self.delivery.rates(NOISY_SPAN_US, 0);
            rates.is_some_and(|rates| !self.falls_short(&rates))
        };
        queue <= low || self.is_noisy() && queue <= high + self.delay.noise_ms() && as_sent()
    }

    /// Whether much was asked of the path: what was hardly asked says nothing about the link.
    fn was_asked(&self, rates: &Rates) -> bool {
        let pace = self.sent.pace_at(self.delivery.sent_at());
        rates.sent > 0.5 * pace.unwrap_or(self.pace)
    }

    /// Whether datagrams arrived clearly more slowly than they were sent: a queue grew, so the link was busy, and as
    /// fast as they arrived. When they came as they went it may have been our own restraint.
    fn falls_short(&self, rates: &Rates) -> bool {
        // What is usually lost is no sign of it.
        let kept = 1.0 - self.losses.usual();
        rates.arrived < rates.sent * kept * (1.0 - self.allowed(rates))
    }

    /// How far both rates may differ on a link that is not busy: what jitter can do to a span.
    fn allowed(&self, rates: &Rates) -> f64 {
        // One packet more or less, and what jitter does to the moment of the last.
        let jitter = self.delay.noise_ms().max(TRAIN_MS) + self.packet_ms();
        0.01 + (jitter / 1e3 / rates.span_s).min(0.5)
    }

    /// Lets the queue run empty when it has not been for long.
    fn drain(&mut self, now: Time, s: &RateSample, queue: f64, target: f64) -> Option<f64> {
        if self.phase == Phase::Drain {
            if queue <= 0.25 * target || now >= self.drain_until {
                if self.is_noisy() {
                    self.delay.take_floor(0.25 * target);
                }
                self.phase = Phase::Cruise;
                self.last_empty = now;
                return None;
            }
            return Some(-0.25);
        }
        let patience = if self.is_noisy() {
            (s.rtt * 10).clamp(BASE_BUCKET / 5, BASE_BUCKET)
        } else {
            BASE_BUCKET
        };
        if now.since(self.last_empty) > patience {
            self.phase = Phase::Drain;
            self.drain_until = now + s.rtt + Duration::from_micros((queue * 5_000.0) as u64);
            return Some(-0.25);
        }
        None
    }

    /// Whether more was lost of late, and the rate found so is kept.
    fn is_held(&self, now: Time) -> bool {
        self.policed.is_some_and(|p| now.since(p.since) < p.hold)
    }

    /// A policer or a buffer of next to nothing never shows a queue: it drops what exceeds its rate. Loss far above the
    /// usual, with clearly less arriving than was sent, is the sign; random loss is usual. A burst of it fills one share; what
    /// exceeds a rate is lost in the next one too. The same rate found again is no
    /// chance, and is kept for longer each time. Losses that go on though no more is sent than arrived have another cause.
    ///
    /// What a policer drops is not learnt as usual: it would hide the policer.
    fn judge_losses(&mut self, now: Time, s: &RateSample, share: &Share, target: f64) {
        let enough = match self.phase {
            Phase::Startup => LOST_TOO_MUCH,
            Phase::Cruise => 2.0 * share.usual + 0.05 + share.chance,
            Phase::Drain => return self.learn_losses(now, share, target),
        };
        if self
            .policed
            .is_some_and(|p| share.since < p.since + s.rtt * 2)
        {
            // Sent before it was found.
            return;
        }
        let doubt = self.doubt.take();
        let span = self.delivery.clock_us().saturating_sub(share.since_us);
        let rates = self.delivery.rates(span, 0).filter(|rates| {
            // In the start the pace is a guess.
            let asked = self.was_asked(rates) || self.phase == Phase::Startup;
            let short = rates.arrived < 0.93 * rates.sent && asked;
            share.lost > enough && share.queue_ms <= target && short
        });
        let Some(rates) = rates else {
            if let Some(burst) = doubt {
                self.losses.learn(&burst);
            }
            return self.learn_losses(now, share, target);
        };
        if doubt.is_none() && self.phase == Phase::Cruise {
            self.doubt = Some(*share);
            self.growth = GROWTH_MIN;
            return;
        }
        let rate = rates.arrived;
        let found = Policed {
            rate,
            before: self.capacity,
            since: now,
            hold: HOLD_MIN,
            vain: 0,
        };
        self.policed = match self.policed {
            Some(p) if self.is_held(now) && p.vain >= IN_VAIN => {
                self.capacity = self.capacity.max(p.before);
                self.policed = None;
                self.losses.suppose(share);
                return;
            }
            Some(p) if self.is_held(now) => Some(Policed {
                rate,
                since: now,
                vain: p.vain + 1,
                ..p
            }),
            Some(p)
                if (rate / p.rate - 1.0).abs() < SAME_RATE && now.since(p.since) < FOUND_AGAIN =>
            {
                Some(Policed {
                    hold: (p.hold * 2).min(HOLD_MAX),
                    ..found
                })
            }
            _ => Some(found),
        };
        self.capacity = rate.max(FLOOR);
        self.pace = self.pace.min(self.capacity);
        self.growth = GROWTH_MIN;
        self.phase = Phase::Cruise;
    }

    /// What a full buffer drops is not usual: it would hide how much less arrives than was sent. Nor is what is lost beside
    /// a rate that was found a little too high.
    fn learn_losses(&mut self, now: Time, share: &Share, target: f64) {
        let explained = self.is_held(now) && share.lost > share.usual;
        if !explained && share.queue_ms <= too_high_ms(target) {
            self.losses.learn(share);
        }
    }

    /// Once per round trip: grows faster, notices a plateau.
    fn end_round(&mut self, now: Time, s: &RateSample) {
        if now.since(self.round_at) < s.rtt.max(Duration::from_millis(10)) {
            return;
        }
        let span = (s.rtt.as_micros() as u64).clamp(15_000, 100_000);
        let rates = self.delivery.rates(span, 0);
        let rate = rates.map_or(0.0, |rates| rates.arrived);
        let short = rates.is_some_and(|rates| self.falls_short(&rates));
        let limited = self.round_limited * 4 > self.round_acked;
        self.round_at = now;
        self.round_acked = 0;
        self.round_limited = 0;
        if limited {
            return;
        }
        match self.phase {
            Phase::Startup => {
                if rate >= self.round_rate * 1.25 {
                    self.flat_rounds = 0;
                    self.round_rate = rate;
                } else if short {
                    self.flat_rounds += 1;
                }
            }
            Phase::Cruise if self.room => self.growth = (self.growth * 1.7).min(GROWTH_MAX),
            Phase::Cruise | Phase::Drain => {}
        }
    }
}

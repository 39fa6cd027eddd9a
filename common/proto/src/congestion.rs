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
//! * While the delay is above its base, the link is busy all the time, so the
//!   delivery rate *is* the capacity: the estimate follows it.
//! * While the delay is at its base, the link has room: the estimate grows,
//!   slowly at first and faster with every round trip without a queue, and only
//!   when there was something to send, for an idle path proves nothing.
//! * The pace is the estimate, corrected so that a queue of a few milliseconds
//!   remains. It is this small standing queue that keeps the link busy and the
//!   estimate true.
//!
//! The base is the lowest delay of ten seconds. A standing queue would slowly
//! become the base, so the queue is let run empty for a moment when it has not
//! been empty for five seconds. When the delay stays high though we send less
//! than arrives, the route has changed and the base is taken anew.

mod delay;
mod delivery;
mod sending;

use std::time::Duration;

use crate::time::Time;
use delay::Delay;
use delivery::Delivery;
use sending::Sending;

/// Rates below this are not measured but assumed: 160 kbit/s.
const FLOOR: f64 = 20_000.0;
/// Pace over capacity while starting: doubles per round trip.
const STARTUP_GAIN: f64 = 2.0;
/// Growth per round trip after the first without a queue.
const GROWTH_MIN: f64 = 0.03;
/// Growth per round trip at most; BBR's probing gain (draft-ietf-ccwg-bbr) twice over.
const GROWTH_MAX: f64 = 0.5;
/// Share of the pace that must have been used before more is tried.
const USED: f64 = 0.8;
/// How many round trips without 25 % growth end the start (BBR).
const FULL_PIPE_ROUNDS: u32 = 3;
/// Half of the time a base delay is believed.
const BASE_BUCKET: Duration = Duration::from_secs(5);
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
    /// Bytes sent on the path so far.
    pub sent: u64,
    /// Datagrams newly acknowledged.
    pub acked: u32,
    /// Datagrams newly declared lost.
    pub lost: u32,
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
    busy_since_us: Option<u64>,
    last_update: Time,
    last_empty: Time,
    drain_until: Time,
    seen: f64,
    startup_over: u32,
    round_at: Time,
    round_rate: f64,
    flat_rounds: u32,
    round_acked: u32,
    round_lost: u32,
    loss_usual: f64,
    hold_growth_until: Time,
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
            busy_since_us: None,
            last_update: Time::ZERO,
            last_empty: Time::ZERO,
            drain_until: Time::ZERO,
            seen: 0.0,
            startup_over: 0,
            round_at: Time::ZERO,
            round_rate: 0.0,
            flat_rounds: 0,
            round_acked: 0,
            round_lost: 0,
            loss_usual: 0.0,
            hold_growth_until: Time::ZERO,
        }
    }

    /// The first round trip is known: begin with what a TCP sender would dare, a
    /// little over ten packets per round trip.
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

    /// Something else than traffic says that the link carries this much: begin there.
    pub fn suppose(&mut self, capacity: f64) {
        if self.phase == Phase::Startup && self.capacity > 0.0 {
            self.capacity = capacity.max(self.seen).max(FLOOR);
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

    /// After an outage or a change of the address: keep half, look anew.
    pub fn restart(&mut self, now: Time) {
        let capacity = (self.capacity / 2.0).max(FLOOR);
        let known = self.capacity > 0.0;
        *self = RateController::new();
        if known {
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
        self.pace.max(FLOOR)
    }

    /// Standing queue in the path beyond the base delay, milliseconds.
    pub fn queue_ms(&self) -> f64 {
        self.delay.queue_ms()
    }

    /// The base delay as a difference of stamps: comparable between paths of one direction.
    pub fn base_delay(&self) -> Option<u32> {
        self.delay.base()
    }

    /// Bytes that may be in flight.
    pub fn inflight_max(&self, rtt_min: Duration) -> u64 {
        let rtt = rtt_min.as_secs_f64();
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

    /// Whether a single look at the delay says little.
    fn is_noisy(&self) -> bool {
        self.delay.is_noisy(self.packet_ms())
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
        self.delay.note(now, s, self.packet_ms());
        self.round_acked += s.acked;
        self.round_lost += s.lost;
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
        self.sent.note(now, self.pace, s.sent);
        self.end_round(now, s);
    }

    fn startup(&mut self, now: Time, s: &RateSample, target: f64) {
        let span = (s.rtt_min.as_micros() as u64 / 2).clamp(8_000, 40_000);
        let rate = self.delivery.rate(span, 0);
        if let Some(rate) = rate {
            self.seen = self.seen.max(rate);
            self.capacity = self.capacity.max(rate);
        }
        self.pace = self.capacity * STARTUP_GAIN;
        let threshold = (target + 1.5).max(s.rtt_min.as_secs_f64() * 1e3 / 8.0);
        let short = rate.is_some_and(|rate| self.falls_short(now, s, rate, span));
        let sure = short || !self.is_noisy();
        self.startup_over = if self.queue_ms() > threshold && sure {
            self.startup_over + 1
        } else {
            0
        };
        if self.startup_over >= 2 || self.flat_rounds >= FULL_PIPE_ROUNDS {
            // The queue proves that the link was busy: what arrived last is its rate.
            if let Some(rate) = self
                .delivery
                .rate(15_000, 0)
                .filter(|_| self.startup_over >= 2)
            {
                // A window that was half idle shows less than earlier ones did.
                self.capacity = rate.max(self.capacity / 2.0);
            }
            self.phase = Phase::Cruise;
            self.pace = self.capacity;
            self.last_empty = now;
        }
    }

    fn cruise(&mut self, now: Time, s: &RateSample, target: f64, low: f64, dt: f64) {
        let rtt = s.rtt.as_secs_f64().max(0.005);
        let queue = self.queue_ms();
        let high = 2.0 * target + 2.0;
        if queue > target {
            self.growth = GROWTH_MIN;
        }
        if queue > low {
            let (span, settle) = if self.is_noisy() {
                // What arrives in a short span is a matter of luck.
                (200_000, 0.2)
            } else if queue > high {
                (20_000, 0.02)
            } else {
                (60_000, 0.1)
            };
            let since = self.busy_since_us.unwrap_or(self.delivery.clock_us());
            if let Some(rate) = self.delivery.rate(span, since) {
                // Less than we sent is the link's doing; as much as we sent may
                // be our own restraint, and then says nothing.
                let falls = self.falls_short(now, s, rate, span) && !self.delay.is_doubtful();
                if rate > self.capacity || falls {
                    self.capacity += (rate - self.capacity) * (dt / settle).min(1.0);
                }
            }
        } else if !s.limited && now >= self.hold_growth_until {
            // Room is proven only by a round trip in which the pace was used.
            let span = (s.rtt.as_micros() as u64).clamp(15_000, 100_000);
            let used = self.delivery.rate(span, 0).unwrap_or(0.0);
            if used > USED * self.sent.pace_at(now - s.rtt).unwrap_or(self.pace) {
                self.capacity *= 1.0 + self.growth * (dt / rtt).min(1.0);
            }
        }
        self.capacity = self.capacity.max(FLOOR);
        let mut correction = ((target - queue) / 1e3 / (3.0 * rtt).max(0.03)).clamp(-0.3, 0.08);
        self.delay.watch_step(now, s.rtt);
        let route = self.delay.watch_route(now, s.rtt, high, self.capacity);
        if let Some(before) = route {
            self.capacity = self.capacity.max(0.9 * before);
        }
        correction = self.drain(now, s, queue, target).unwrap_or(correction);
        self.pace = self.capacity * (1.0 + correction);
    }

    /// Whether clearly less arrived over the last `span` µs than was sent for it: only then was the link busy
    /// because of us. What jitter and the size of a packet can do to such a short span is allowed for.
    fn falls_short(&self, now: Time, s: &RateSample, rate: f64, span: u64) -> bool {
        let queued = Duration::from_secs_f64(self.queue_ms().max(0.0) / 1e3);
        let span = Duration::from_micros(span);
        let then = now - s.rtt_min - queued;
        // Held back by a full flight alone, it would have sent at its pace.
        let sent = if s.limited {
            self.sent.rate(then, span)
        } else {
            self.sent.pace_at(then)
        };
        let Some(sent) = sent else { return false };
        let span_s = span.as_secs_f64();
        let mut allowed = 0.02;
        if self.is_noisy() {
            allowed += (self.delay.noise_ms() / 1e3 / span_s).min(0.1);
        }
        let packet = if s.limited { 1_500.0 / span_s } else { 0.0 };
        rate < (1.0 - allowed) * sent - packet
    }

    /// Lets the queue run empty when it has not been for long.
    fn drain(&mut self, now: Time, s: &RateSample, queue: f64, target: f64) -> Option<f64> {
        if self.phase == Phase::Drain {
            if queue <= 0.25 * target || now >= self.drain_until {
                if self.is_noisy() {
                    // What is still there is none of ours.
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

    /// Once per round trip: grows faster, notices a plateau.
    fn end_round(&mut self, now: Time, s: &RateSample) {
        if now.since(self.round_at) < s.rtt.max(Duration::from_millis(10)) {
            return;
        }
        let rate = self
            .delivery
            .rate((s.rtt.as_micros() as u64).clamp(15_000, 100_000), 0);
        let rate = rate.unwrap_or(0.0);
        let total = self.round_acked + self.round_lost;
        let loss = if total == 0 {
            0.0
        } else {
            f64::from(self.round_lost) / f64::from(total)
        };
        self.round_at = now;
        self.round_acked = 0;
        self.round_lost = 0;
        if s.limited {
            return;
        }
        match self.phase {
            Phase::Startup => {
                if rate < self.round_rate * 1.25 {
                    self.flat_rounds += 1;
                } else {
                    self.flat_rounds = 0;
                    self.round_rate = rate;
                }
            }
            Phase::Cruise => {
                // A shallow buffer or a policer never shows a queue: it drops what
                // exceeds its rate. Loss far above the usual, with clearly less
                // arriving than was sent, is the sign; random loss is usual.
                let excess = loss > 2.0 * self.loss_usual + 0.05;
                self.loss_usual += (loss - self.loss_usual) / 16.0;
                if excess && self.queue_ms() <= 1.0 && rate > 0.0 && rate < 0.93 * self.pace {
                    self.capacity = rate;
                    self.growth = GROWTH_MIN;
                    self.hold_growth_until = now + Duration::from_secs(1);
                } else if self.queue_ms() <= 0.4 * self.target_ms(s.rtt_min) {
                    self.growth = (self.growth * 1.7).min(GROWTH_MAX);
                }
            }
            Phase::Drain => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// A link with one bottleneck: the sender obeys the controller, the receiver
    /// acknowledges every 5 ms.
    struct Bench {
        c: RateController,
        now_us: u64,
        delay_us: u64,
        rate: f64,
        credit: f64,
        busy_until_us: f64,
        arrivals: VecDeque<(u64, u64)>,
        acks: VecDeque<(u64, RateSample)>,
        received: u64,
        inflight: u64,
        sent: u64,
        unacked: u64,
        next_ack_us: u64,
        min_delay: u64,
        queue_ms_max: f64,
    }

    impl Bench {
        fn new(rate: f64, delay_us: u64) -> Self {
            let mut c = RateController::new();
            c.begin(Time::ZERO, Duration::from_micros(2 * delay_us));
            Bench {
                c,
                now_us: 0,
                delay_us,
                rate,
                credit: 0.0,
                busy_until_us: 0.0,
                arrivals: VecDeque::new(),
                acks: VecDeque::new(),
                received: 0,
                inflight: 0,
                sent: 0,
                unacked: 0,
                next_ack_us: 0,
                min_delay: u64::MAX,
                queue_ms_max: 0.0,
            }
        }

        /// Runs for a while and returns the share of the rate that arrived.
        fn run(&mut self, millis: u64) -> f64 {
            let before = self.received;
            let end = self.now_us + millis * 1_000;
            let rtt = Duration::from_micros(2 * self.delay_us + 5_000);
            while self.now_us < end {
                self.now_us += 100;
                self.credit =
                    (self.credit + self.c.pace() / 1e4).min(3_000.0 + self.c.pace() / 1e3);
                while self.credit >= 1_500.0 && self.inflight + 1_500 < self.c.inflight_max(rtt) {
                    self.credit -= 1_500.0;
                    self.inflight += 1_500;
                    self.sent += 1_500;
                    let start = self.busy_until_us.max(self.now_us as f64);
                    self.busy_until_us = start + 1_500.0 / self.rate * 1e6;
                    let delay = self.busy_until_us as u64 + self.delay_us - self.now_us;
                    self.arrivals.push_back((self.now_us + delay, delay));
                }
                while self.arrivals.front().is_some_and(|a| a.0 <= self.now_us) {
                    let (_, delay) = self.arrivals.pop_front().unwrap();
                    self.received += 1_500;
                    self.unacked += 1_500;
                    self.min_delay = self.min_delay.min(delay);
                }
                let queue = (self.busy_until_us - self.now_us as f64) / 1e3;
                self.queue_ms_max = self.queue_ms_max.max(queue);
                if self.now_us >= self.next_ack_us && self.unacked > 0 {
                    self.next_ack_us = self.now_us + 5_000;
                    let sample = RateSample {
                        arrival_us: self.now_us as u32,
                        bytes: self.received as u32,
                        min_delay: (self.min_delay / 8) as u32,
                        rtt_min: rtt,
                        rtt,
                        limited: false,
                        acked: (self.unacked / 1_500) as u32,
                        lost: 0,
                        sent: self.sent,
                    };
                    self.min_delay = u64::MAX;
                    self.acks.push_back((self.now_us + self.delay_us, sample));
                    self.unacked = 0;
                }
                while self.acks.front().is_some_and(|a| a.0 <= self.now_us) {
                    let (_, sample) = self.acks.pop_front().unwrap();
                    self.inflight -= u64::from(sample.acked) * 1_500;
                    self.c
                        .on_ack(Time::from_nanos(self.now_us * 1_000), &sample);
                }
            }
            (self.received - before) as f64 / (self.rate * millis as f64 / 1e3)
        }
    }

    const MBIT: f64 = 1e6 / 8.0;

    #[test]
    fn it_finds_the_rate_of_any_link_and_keeps_its_queue_short() {
        for (mbit, delay_ms) in [
            (1.0, 20),
            (10.0, 75),
            (20.0, 30),
            (50.0, 7),
            (300.0, 5),
            (100.0, 150),
        ] {
            let mut b = Bench::new(mbit * MBIT, delay_ms * 1_000);
            b.run(4_000);
            b.queue_ms_max = 0.0;
            let share = b.run(10_000);
            assert!(share > 0.98, "{mbit} Mbit/s, {delay_ms} ms: {share:.3}");
            // The queue answers a round trip later than it is asked.
            let bound = 12.0 + 30.0 / mbit + f64::from(delay_ms as u32) / 5.0;
            assert!(
                b.queue_ms_max < bound,
                "{mbit} Mbit/s, {delay_ms} ms: {:.1}",
                b.queue_ms_max
            );
        }
    }

    #[test]
    fn it_starts_within_a_dozen_round_trips() {
        let mut b = Bench::new(50.0 * MBIT, 15_000);
        b.run(400);
        assert!(b.run(300) > 0.9);
    }

    #[test]
    fn it_follows_a_rate_that_rises_and_falls() {
        let mut b = Bench::new(10.0 * MBIT, 8_000);
        b.run(3_000);
        b.rate = 60.0 * MBIT;
        b.run(400);
        assert!(b.run(1_000) > 0.95, "after the rise");
        b.rate = 10.0 * MBIT;
        b.run(500);
        b.queue_ms_max = 0.0;
        assert!(b.run(1_000) > 0.95, "after the fall");
        assert!(b.queue_ms_max < 20.0, "{}", b.queue_ms_max);
    }

    #[test]
    fn a_longer_route_is_not_taken_for_a_queue_for_long() {
        let mut b = Bench::new(20.0 * MBIT, 10_000);
        b.run(3_000);
        b.delay_us = 40_000;
        b.run(2_000);
        assert!(b.run(3_000) > 0.95);
    }
}

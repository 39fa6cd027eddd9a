//! The queue in the path: the one-way delay above its base.
//!
//! The base is the lowest delay of five to ten seconds. It can be wrong in one
//! direction only, too low, when the route became longer. Two signs tell that
//! from a queue: a delay that leaps and then stays level (a queue grows and
//! shrinks, but never stands still), and a delay that stays high though less
//! was sent for long enough. Either way the base is taken anew.
//!
//! On a link that jitters the lowest delay of ten seconds is a rare one, and
//! what usually lies above it is no queue. Such a link is looked at through an
//! average, and what remains when the queue was let run empty is a floor from
//! which the queue is counted, until the delay falls below it.

use std::time::Duration;

use super::{BASE_BUCKET, RateSample};
use crate::stamp;
use crate::time::Time;

/// A leap of the delay from one acknowledgement to the next, ms.
const LEAP_MS: f64 = 4.0;

/// Noise below this needs no smoothing.
const QUIET_MS: f64 = 1.0;
/// A larger change is not noise but an event.
const NOISE_JUMP_MS: f64 = 12.0;

/// Base delay, queue, noise, and the watch over all three.
#[derive(Debug)]
pub(super) struct Delay {
    reference: Option<u32>,
    base_now: Option<i32>,
    base_before: Option<i32>,
    base_since: Time,
    excess_ms: f64,
    floor_ms: f64,
    queue_ms: f64,
    leap_ms: f64,
    leaps: u32,
    noise_ms: f64,
    high: Option<(Time, f64, f64)>,
    step: Option<(Time, f64)>,
}

impl Delay {
    /// Nothing is known; the first base is believed from now on.
    pub fn new(now: Time) -> Self {
        Delay {
            reference: None,
            base_now: None,
            base_before: None,
            base_since: now,
            excess_ms: 0.0,
            floor_ms: 0.0,
            queue_ms: 0.0,
            leap_ms: 0.0,
            leaps: 0,
            noise_ms: 0.0,
            high: None,
            step: None,
        }
    }

    /// Delay above the base, milliseconds.
    pub fn queue_ms(&self) -> f64 {
        self.queue_ms
    }

    /// How much the queue changes between acknowledgements for no reason, milliseconds.
    pub fn noise_ms(&self) -> f64 {
        self.noise_ms
    }

    /// The delay leapt of late and has yet to show whether it is a queue.
    pub fn is_doubtful(&self) -> bool {
        self.step.is_some()
    }

    /// The base as a difference of stamps.
    pub fn base(&self) -> Option<u32> {
        let base = self.base_offset()?;
        self.reference.map(|r| stamp::add(r, base))
    }

    fn base_offset(&self) -> Option<i32> {
        match (self.base_now, self.base_before) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Takes in the lowest delay since the last acknowledgement. One packet takes `packet_ms` on the link.
    pub fn note(&mut self, now: Time, s: &RateSample, packet_ms: f64) {
        let reference = *self.reference.get_or_insert(s.min_delay);
        let delay = stamp::difference(s.min_delay, reference);
        if now.since(self.base_since) > BASE_BUCKET {
            self.base_since = now;
            self.base_before = self.base_now.take().or(self.base_before);
        }
        self.base_now = Some(self.base_now.map_or(delay, |b| b.min(delay)));
        let base = self.base_offset().unwrap_or(delay);
        let excess = stamp::millis(delay - base);
        self.leap_ms = excess - self.excess_ms;
        let jump = self.leap_ms.abs();
        if jump < NOISE_JUMP_MS {
            self.noise_ms += (jump - self.noise_ms) / 64.0;
        }
        // The noisier, the more acknowledgements it takes to see the queue.
        self.excess_ms += self.leap_ms / (1.0 + (self.noise_ms - QUIET_MS - packet_ms).max(0.0));
        if self.excess_ms < self.floor_ms {
            self.floor_ms += (self.excess_ms - self.floor_ms) / 8.0;
        }
        self.queue_ms = (self.excess_ms - self.floor_ms).max(0.0);
    }

    /// No more than `left` ms of what is taken for a queue is one.
    pub fn take_floor(&mut self, left: f64) {
        self.floor_ms = self.floor_ms.max(self.excess_ms - left);
        self.queue_ms = (self.excess_ms - self.floor_ms).max(0.0);
    }

    /// A delay that leaps and then stays level is a longer route.
    pub fn watch_step(&mut self, now: Time, rtt: Duration) {
        let queue = self.excess_ms;
        if self.leap_ms > LEAP_MS {
            self.leaps += 1;
            // A queue that fills quickly leaps again and again.
            self.step = (self.leaps == 1).then_some((now, queue));
        } else {
            self.leaps = 0;
        }
        let Some((since, level)) = self.step else {
            return;
        };
        if (queue - level).abs() > 0.1 * level + 1.0 {
            self.step = None;
        } else if now.since(since) > rtt * 3 / 2 {
            self.rebase(now);
        }
    }

    /// A delay that stays above `high` ms though we sent less for long enough is
    /// the route's. Returns the capacity that was believed when it began: what
    /// was taken for a shrinking link since then was our own restraint.
    pub fn watch_route(
        &mut self,
        now: Time,
        rtt: Duration,
        high: f64,
        capacity: f64,
    ) -> Option<f64> {
        let queue = self.queue_ms;
        if queue <= high {
            self.high = None;
            return None;
        }
        let (since, was, before) = *self.high.get_or_insert((now, queue, capacity));
        // Still filling, or already draining as it should: no news of the route.
        if queue > 1.1 * was + 1.0 || queue < 0.7 * was {
            self.high = Some((now, queue, before));
            return None;
        }
        let patience = rtt * 3 + Duration::from_micros((was * 4_000.0) as u64);
        (now.since(since) > patience).then(|| {
            self.rebase(now);
            before
        })
    }

    fn rebase(&mut self, now: Time) {
        self.base_now = None;
        self.base_before = None;
        self.base_since = now;
        self.floor_ms = 0.0;
        self.high = None;
        self.step = None;
    }
}

//! How fast bytes arrive, by the receiver's clock, beside how fast the same bytes were sent.
//!
//! Acknowledgements say how many bytes had arrived until when. Rates are taken
//! between two of these points, so nothing that delays or bunches
//! acknowledgements on their way back changes them.
//!
//! Each point also knows when its newest datagram was sent, and how much had been sent by then. So
//! what arrived in a stretch of time is compared with the sending of the very same datagrams, and no
//! round trip has to be guessed for it: when they arrive more slowly than they were sent, or faster,
//! a queue on the way grew or shrank, and the link was busy.

use std::collections::VecDeque;

use super::RateSample;
use crate::time::Time;

/// Points older than this are forgotten.
const KEEP_US: u64 = 1_000_000;
/// Shorter spans say more about bunching than about rates.
const SHORTEST_US: u64 = 6_000;
/// Nothing for so many times as long as usual, and this much more, is a pause: the link stood still, and what comes
/// before it says nothing about the rate.
const PAUSE: f64 = 3.0;
const PAUSE_SHORTEST_US: f64 = 15_000.0;

/// Smaller ones say little about the time of a packet, bytes.
const FULL_PACKET: u64 = 1_200;

#[derive(Clone, Copy, Debug)]
struct Point {
    clock_us: u64,
    bytes: u64,
    sent_at: Time,
    sent: u64,
}

/// What became of some datagrams, bytes per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rates {
    /// How fast they arrived.
    pub arrived: f64,
    /// How fast they were sent; infinite when all at once.
    pub sent: f64,
    /// Over how long they arrived, seconds.
    pub span_s: f64,
}

/// The points of the last second.
#[derive(Debug, Default)]
pub(super) struct Delivery {
    points: VecDeque<Point>,
    last_arrival_us: Option<u32>,
    last_bytes: u32,
    clock_us: u64,
    bytes: u64,
    step_us: u64,
    step_bytes: u32,
    usual_step_us: f64,
    fastest: f64,
    pause_ended_us: u64,
}

impl Delivery {
    /// Takes in a point; one that is overtaken changes nothing.
    pub fn note(&mut self, s: &RateSample) {
        let step = s
            .arrival_us
            .wrapping_sub(self.last_arrival_us.unwrap_or(s.arrival_us));
        if step > u32::MAX / 2 {
            return;
        }
        if self.last_arrival_us.is_some() {
            self.step_bytes = s.bytes.wrapping_sub(self.last_bytes);
            self.clock_us += u64::from(step);
            self.bytes += u64::from(self.step_bytes);
        }
        self.last_arrival_us = Some(s.arrival_us);
        self.last_bytes = s.bytes;
        self.note_step(u64::from(step));
        let before = self.points.back();
        let point = Point {
            clock_us: self.clock_us,
            bytes: self.bytes,
            sent_at: before.map_or(s.sent_at, |p| p.sent_at.max(s.sent_at)),
            sent: before.map_or(s.sent, |p| p.sent.max(s.sent)),
        };
        if step == 0 {
            // More of the same lump.
            self.points.pop_back();
        }
        self.points.push_back(point);
        self.note_fastest();
        while self.points.len() > 2 && self.points[1].clock_us + KEEP_US < self.clock_us {
            self.points.pop_front();
        }
    }

    fn note_step(&mut self, step_us: u64) {
        self.step_us = step_us;
        if step_us as f64 > PAUSE * self.usual_step_us + PAUSE_SHORTEST_US {
            self.pause_ended_us = self.clock_us;
        }
        // Grows at once, decays over some hundred acknowledgements.
        self.usual_step_us = (self.usual_step_us * 0.98).max(step_us as f64);
    }

    /// The fastest that a packet was seen to pass of late.
    fn note_fastest(&mut self) {
        let Some(end) = self.points.back() else {
            return;
        };
        let earlier = |p: &&Point| p.bytes + FULL_PACKET <= end.bytes;
        let passed = self.points.iter().rev().find(earlier).map_or(0.0, |p| {
            (end.bytes - p.bytes) as f64 * 1e6 / (end.clock_us - p.clock_us) as f64
        });
        // Grows at once, decays over some hundred acknowledgements.
        self.fastest = (self.fastest * 0.98).max(passed);
    }

    /// The fastest that a whole packet was seen to pass of late, bytes per second. A link that sends one packet after the
    /// other never passes any faster than it carries.
    pub fn fastest(&self) -> f64 {
        self.fastest
    }

    /// Between the last two arrivals that were told of, milliseconds.
    pub fn step_ms(&self) -> f64 {
        self.step_us as f64 / 1e3
    }

    /// What arrived in that time, bytes.
    pub fn step_bytes(&self) -> f64 {
        f64::from(self.step_bytes)
    }

    /// The receiver's clock at the last arrival, µs since the first.
    pub fn clock_us(&self) -> u64 {
        self.clock_us
    }

    /// When the newest datagram that is known to have arrived was sent.
    pub fn sent_at(&self) -> Time {
        self.points.back().map_or(Time::ZERO, |p| p.sent_at)
    }

    /// Bytes per second that arrived over the last `span` µs, see [`Self::rates`].
    pub fn rate(&self, span: u64, since: u64) -> Option<f64> {
        self.rates(span, since).map(|rates| rates.arrived)
    }

    /// Over the last `span` µs or a little more, but nothing before `since`. `None` when that is too
    /// short to say, and about a time in which the link stood still.
    pub fn rates(&self, span: u64, since: u64) -> Option<Rates> {
        let end = self.points.back()?;
        let since = since.max(self.pause_ended_us);
        let start = self
            .points
            .iter()
            .rev()
            .find(|p| p.clock_us + span <= end.clock_us || p.clock_us <= since)?;
        let time = end.clock_us - start.clock_us;
        (time >= SHORTEST_US).then(|| {
            let span_s = time as f64 / 1e6;
            Rates {
                arrived: (end.bytes - start.bytes) as f64 / span_s,
                sent: (end.sent - start.sent) as f64
                    / end.sent_at.since(start.sent_at).as_secs_f64(),
                span_s,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// The newest datagram arrived at `at_ms` and was sent at `sent_ms`, as the last of `bytes`.
    fn note(delivery: &mut Delivery, at_ms: u32, sent_ms: u64, bytes: u32) {
        delivery.note(&RateSample {
            arrival_us: at_ms * 1_000,
            bytes,
            min_delay: 0,
            rtt_min: Duration::ZERO,
            rtt: Duration::ZERO,
            limited: false,
            sent_at: Time::from_millis(sent_ms),
            sent: u64::from(bytes),
            acked: 1,
            lost: 0,
        });
    }

    #[test]
    fn what_arrived_is_compared_with_the_sending_of_the_same_datagrams() {
        let mut delivery = Delivery::default();
        note(&mut delivery, 1_000, 100, 0);
        note(&mut delivery, 1_010, 105, 5_000);
        let rates = delivery.rates(10_000, 0).unwrap();
        assert_eq!((rates.arrived, rates.sent), (500_000.0, 1_000_000.0));
        assert_eq!(delivery.sent_at(), Time::from_millis(105));
    }

    #[test]
    fn a_lump_that_is_acknowledged_in_parts_counts_at_its_moment() {
        let mut delivery = Delivery::default();
        note(&mut delivery, 1_000, 100, 0);
        note(&mut delivery, 1_000, 105, 5_000);
        note(&mut delivery, 1_010, 115, 10_000);
        assert_eq!(delivery.rate(10_000, 0), Some(500_000.0));
    }

    #[test]
    fn a_pause_is_no_rate() {
        let mut delivery = Delivery::default();
        for i in 0..10 {
            note(&mut delivery, 1_000 + 5 * i, 100, 5_000 * i);
        }
        assert_eq!(delivery.rate(20_000, 0), Some(1e6));
        note(&mut delivery, 1_100, 100, 50_000);
        assert_eq!(delivery.rate(20_000, 0), None);
        note(&mut delivery, 1_110, 100, 60_000);
        assert_eq!(delivery.rate(20_000, 0), Some(1e6));
    }
}

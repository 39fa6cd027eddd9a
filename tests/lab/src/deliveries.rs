//! When application data arrived: bytes per millisecond.
//!
//! The receiver of a flow notes every read here. From the notes come the two things an
//! application would notice: how much arrived over a stretch of time, and the longest stretch in
//! which nothing did.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use crate::results::Gap;

/// Delivered bytes of one flow, in steps of 1 ms from a common origin.
///
/// One thread notes, any thread may read.
#[derive(Debug)]
pub struct Deliveries {
    origin: Instant,
    steps: Vec<AtomicU64>,
    total: AtomicU64,
}

impl Deliveries {
    /// Room for `seconds`; what arrives later only counts towards the total.
    pub fn new(origin: Instant, seconds: f64) -> Deliveries {
        let steps = (seconds * 1000.0).ceil() as usize;
        Deliveries {
            origin,
            steps: (0..steps).map(|_| AtomicU64::new(0)).collect(),
            total: AtomicU64::new(0),
        }
    }

    /// Notes that `bytes` have just been handed to the application.
    pub fn note(&self, bytes: usize) {
        let step = self.origin.elapsed().as_millis() as usize;
        if let Some(slot) = self.steps.get(step) {
            slot.fetch_add(bytes as u64, Relaxed);
        }
        self.total.fetch_add(bytes as u64, Relaxed);
    }

    /// Bytes so far.
    pub fn total(&self) -> u64 {
        self.total.load(Relaxed)
    }

    /// Bytes delivered between two moments, ms from the origin.
    pub fn between(&self, from_ms: usize, to_ms: usize) -> u64 {
        self.steps
            .iter()
            .take(to_ms)
            .skip(from_ms)
            .map(|slot| slot.load(Relaxed))
            .sum()
    }

    /// Stretches of at least `least_ms` in which nothing was delivered, between the first
    /// delivery at or after `from_ms` and `to_ms`. One that lasts to the end is among them.
    pub fn gaps(&self, flow: usize, from_ms: usize, to_ms: usize, least_ms: usize) -> Vec<Gap> {
        let mut gaps = Vec::new();
        let end = to_ms.min(self.steps.len());
        let Some(mut last) = (from_ms..end).find(|step| self.steps[*step].load(Relaxed) > 0) else {
            // Nothing at all: the whole stretch is one gap.
            let length_ms = end.saturating_sub(from_ms) as f64;
            return vec![Gap {
                flow: Some(flow),
                start_ms: from_ms as f64,
                length_ms,
            }];
        };
        for step in last + 1..=end {
            let delivered = step == end || self.steps[step].load(Relaxed) > 0;
            if delivered {
                if step - last >= least_ms {
                    gaps.push(Gap {
                        flow: Some(flow),
                        start_ms: last as f64,
                        length_ms: (step - last) as f64,
                    });
                }
                last = step;
            }
        }
        gaps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_bytes_at(steps_ms: &[usize]) -> Deliveries {
        let deliveries = Deliveries::new(Instant::now(), 1.0);
        for step in steps_ms {
            deliveries.steps[*step].store(100, Relaxed);
        }
        deliveries
    }

    #[test]
    fn gaps_are_found_between_deliveries_and_before_the_end() {
        let deliveries = with_bytes_at(&[10, 11, 60, 990]);
        let gaps = deliveries.gaps(0, 0, 1000, 20);
        let found: Vec<_> = gaps
            .iter()
            .map(|gap| (gap.start_ms, gap.length_ms))
            .collect();
        assert_eq!(found, [(11.0, 49.0), (60.0, 930.0)]);
        assert_eq!(deliveries.gaps(0, 0, 1000, 10).len(), 3);
    }

    #[test]
    fn a_flow_that_never_delivers_is_one_long_gap() {
        let gaps = with_bytes_at(&[]).gaps(0, 200, 1000, 20);
        assert_eq!((gaps[0].start_ms, gaps[0].length_ms), (200.0, 800.0));
    }

    #[test]
    fn bytes_are_counted_within_the_asked_stretch_only() {
        let deliveries = with_bytes_at(&[10, 500, 501, 900]);
        assert_eq!(deliveries.between(500, 900), 200);
    }
}

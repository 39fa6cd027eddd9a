//! How fast bytes arrive, by the receiver's clock.
//!
//! Acknowledgements say how many bytes had arrived until when. Rates are taken
//! between two of these points, so nothing that delays or bunches
//! acknowledgements on their way back changes them.

use std::collections::VecDeque;

use super::RateSample;

/// Points older than this are forgotten.
const KEEP_US: u64 = 250_000;
/// Shorter spans say more about bunching than about rates.
const SHORTEST_US: u64 = 6_000;

/// The points of the last quarter of a second.
#[derive(Debug, Default)]
pub(super) struct Delivery {
    points: VecDeque<(u64, u64)>,
    last_arrival_us: Option<u32>,
    last_bytes: u32,
    clock_us: u64,
    bytes: u64,
}

impl Delivery {
    /// Takes in a point; one that is overtaken or no news changes nothing.
    pub fn note(&mut self, s: &RateSample) {
        if let Some(last) = self.last_arrival_us {
            let step = s.arrival_us.wrapping_sub(last);
            if step == 0 || step > u32::MAX / 2 {
                return;
            }
            self.clock_us += u64::from(step);
            self.bytes += u64::from(s.bytes.wrapping_sub(self.last_bytes));
        }
        self.last_arrival_us = Some(s.arrival_us);
        self.last_bytes = s.bytes;
        self.points.push_back((self.clock_us, self.bytes));
        while self.points.len() > 2 && self.points[1].0 + KEEP_US < self.clock_us {
            self.points.pop_front();
        }
    }

    /// The receiver's clock at the last arrival, µs since the first.
    pub fn clock_us(&self) -> u64 {
        self.clock_us
    }

    /// Bytes per second over the last `span` µs or a little more, but nothing
    /// before `since`. `None` when that is too short to say.
    pub fn rate(&self, span: u64, since: u64) -> Option<f64> {
        let &(end, bytes) = self.points.back()?;
        let start = self
            .points
            .iter()
            .rev()
            .find(|p| p.0 + span <= end || p.0 <= since)?;
        let time = end - start.0;
        (time >= SHORTEST_US).then(|| (bytes - start.1) as f64 / time as f64 * 1e6)
    }
}

//! What was sent, and how much was allowed, over the last second.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::Time;

/// Points older than this are forgotten.
const KEEP: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug)]
struct Point {
    at: Time,
    pace: f64,
    bytes: u64,
}

/// One point for each acknowledgement.
#[derive(Debug, Default)]
pub(super) struct Sending {
    points: VecDeque<Point>,
}

impl Sending {
    /// From now on the pace is this; `bytes` were sent so far.
    pub fn note(&mut self, at: Time, pace: f64, bytes: u64) {
        self.points.push_back(Point { at, pace, bytes });
        while self.points.len() > 1 && at.since(self.points[1].at) > KEEP {
            self.points.pop_front();
        }
    }

    /// The pace at a moment.
    pub fn pace_at(&self, at: Time) -> Option<f64> {
        let then = self.points.iter().rev().find(|p| p.at <= at);
        then.or(self.points.front()).map(|p| p.pace)
    }

    /// Bytes per second that were sent in the `span` up to `until`, or in a little more.
    pub fn rate(&self, until: Time, span: Duration) -> Option<f64> {
        let end = self.points.iter().rposition(|p| p.at <= until)?;
        let last = self.points[end];
        let first = self
            .points
            .range(..end)
            .rev()
            .find(|p| last.at.since(p.at) >= span)?;
        let bytes = last.bytes - first.bytes;
        (bytes > 0).then(|| bytes as f64 / last.at.since(first.at).as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_span_before_the_moment() {
        let mut sending = Sending::default();
        for i in 0..10 {
            let bytes = if i < 5 { i * 1_000 } else { 5_000 };
            sending.note(Time::from_millis(10 * i), i as f64, bytes);
        }
        let at = |ms, span| sending.rate(Time::from_millis(ms), Duration::from_millis(span));
        assert_eq!(at(45, 20), Some(100_000.0));
        assert_eq!(at(90, 20), None, "nothing was sent");
        assert_eq!(at(5, 20), None, "nothing is known of that time");
        assert_eq!(sending.pace_at(Time::from_millis(45)), Some(4.0));
    }
}

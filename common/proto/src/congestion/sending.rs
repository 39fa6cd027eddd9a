//! How much was allowed to be sent, over the last second.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::Time;

/// Points older than this are forgotten.
const KEEP: Duration = Duration::from_secs(1);

/// One point for each acknowledgement.
#[derive(Debug, Default)]
pub(super) struct Sending {
    points: VecDeque<(Time, f64)>,
}

impl Sending {
    /// From now on the pace is this, bytes per second.
    pub fn note(&mut self, at: Time, pace: f64) {
        self.points.push_back((at, pace));
        while self.points.len() > 1 && at.since(self.points[1].0) > KEEP {
            self.points.pop_front();
        }
    }

    /// The pace at a moment.
    pub fn pace_at(&self, at: Time) -> Option<f64> {
        let then = self.points.iter().rev().find(|p| p.0 <= at);
        then.or(self.points.front()).map(|p| p.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_that_of_the_moment() {
        let mut sending = Sending::default();
        for i in 0..10 {
            sending.note(Time::from_millis(10 * i), i as f64);
        }
        assert_eq!(sending.pace_at(Time::from_millis(45)), Some(4.0));
        assert_eq!(sending.pace_at(Time::from_millis(900)), Some(9.0));
    }
}

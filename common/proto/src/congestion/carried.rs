//! The most that a busy link carried of late.
//!
//! An estimate that is too high leaves a queue above its target, and the correction of the pace makes up for the
//! excess: things then arrive as fast as they are sent, so nothing falls short, and the estimate and the queue would stay.
//! But while a queue stands, the link is busy, and what arrives is its rate. So the estimate is no higher than the most that
//! arrived, over spans in which a queue stood throughout.
//!
//! The most, and of as long as the base delay is believed: when what is taken for a queue is a longer route or jitter, what
//! arrives is no more than our own restraint. Taken from one stretch of time to the next, that would be a spiral; so it costs
//! the correction once.

use super::BASE_BUCKET;
use crate::time::Time;

/// The highest rate of five to ten seconds.
#[derive(Debug, Default)]
pub(super) struct Carried {
    now: f64,
    before: f64,
    since: Time,
}

impl Carried {
    /// Takes in what arrived while a queue stood, and returns the most of late, bytes per second; zero when nothing is known.
    pub fn note(&mut self, now: Time, rate: f64) -> f64 {
        if now.since(self.since) > BASE_BUCKET {
            self.since = now;
            self.before = std::mem::take(&mut self.now);
        }
        self.now = self.now.max(rate);
        self.now.max(self.before)
    }
}

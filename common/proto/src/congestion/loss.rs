//! What share of the datagrams is lost, and what is usual.
//!
//! A share is told when a round trip is over and enough datagrams met their fate: on a slow link one of two says nothing.

use super::RateSample;
use crate::time::Time;

/// Fewer datagrams make no share.
const ENOUGH: u32 = 16;

/// The fate of some datagrams.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Share {
    /// Of all.
    pub lost: f64,
    /// What was usual before.
    pub usual: f64,
    /// What chance may add to that at most: three standard deviations.
    pub chance: f64,
    /// The longest queue meanwhile or shortly before, milliseconds: a loss is told of a round trip after the queue that
    /// caused it.
    pub queue_ms: f64,
    /// When it began.
    pub since: Time,
    /// The receiver's clock then, µs since the first arrival.
    pub since_us: u64,
}

/// Counts them.
#[derive(Debug, Default)]
pub(super) struct Losses {
    since: Time,
    since_us: u64,
    acked: u32,
    lost: u32,
    queue_ms: f64,
    queue_before_ms: f64,
    usual: f64,
}

impl Losses {
    /// The share that is usually lost.
    pub fn usual(&self) -> f64 {
        self.usual
    }

    /// Takes in an acknowledgement. `clock_us` is the receiver's clock at the last arrival.
    pub fn note(
        &mut self,
        now: Time,
        s: &RateSample,
        queue_ms: f64,
        clock_us: u64,
    ) -> Option<Share> {
        self.acked += s.acked;
        self.lost += s.lost;
        self.queue_ms = self.queue_ms.max(queue_ms);
        let total = self.acked + self.lost;
        if total < ENOUGH || now.since(self.since) < s.rtt {
            return None;
        }
        let share = Share {
            lost: f64::from(self.lost) / f64::from(total),
            usual: self.usual,
            chance: 3.0 * (self.usual * (1.0 - self.usual) / f64::from(total)).sqrt(),
            queue_ms: self.queue_ms.max(self.queue_before_ms),
            since: self.since,
            since_us: self.since_us,
        };
        *self = Losses {
            since: now,
            since_us: clock_us,
            queue_before_ms: self.queue_ms,
            usual: self.usual + (share.lost - self.usual) / 16.0,
            ..Losses::default()
        };
        Some(share)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn note(losses: &mut Losses, at_ms: u64, acked: u32, lost: u32) -> Option<Share> {
        let sample = RateSample {
            arrival_us: 0,
            bytes: 0,
            min_delay: 0,
            rtt_min: Duration::from_millis(20),
            rtt: Duration::from_millis(20),
            limited: false,
            sent_at: Time::ZERO,
            sent: 0,
            acked,
            lost,
        };
        losses.note(
            Time::from_millis(at_ms),
            &sample,
            at_ms as f64,
            at_ms * 1_000,
        )
    }

    #[test]
    fn a_share_is_told_of_enough_datagrams_and_a_whole_round_trip() {
        let mut losses = Losses::default();
        assert_eq!(note(&mut losses, 10, 30, 10), None, "no round trip yet");
        let first = note(&mut losses, 20, 0, 0).unwrap();
        assert_eq!((first.lost, first.usual, first.since_us), (0.25, 0.0, 0));
        assert_eq!(note(&mut losses, 60, 1, 1), None, "one of two says nothing");
        let second = note(&mut losses, 70, 14, 0).unwrap();
        assert_eq!((second.lost, second.since_us), (1.0 / 16.0, 20_000));
        assert!(second.usual > 0.0 && second.usual < 0.25);
    }

    #[test]
    fn the_queue_that_caused_a_loss_is_remembered() {
        let mut losses = Losses::default();
        assert_eq!(note(&mut losses, 500, 40, 0).unwrap().queue_ms, 500.0);
        losses.queue_ms = 0.0;
        losses.since = Time::ZERO;
        assert_eq!(note(&mut losses, 40, 40, 0).unwrap().queue_ms, 500.0);
    }
}

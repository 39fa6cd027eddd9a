//! What share of the datagrams is lost, and what is usual.
//!
//! A share is told when a round trip is over and enough datagrams met their fate: on a slow link one of two says nothing.
//! Only datagrams of a path that was asked for all it gives count. While it has next to nothing to carry, a few losses make
//! a large share, and what arrived meanwhile is our own restraint: taken for a policer's rate after a minute of
//! acknowledgements and pings, it would be next to nothing.

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
    limited: u32,
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
        if self.acked == 0 {
            // Since the last one nothing may have been sent for long.
            (self.since, self.since_us) = (now, clock_us);
        }
        self.acked += s.acked;
        self.limited += if s.limited { s.acked } else { 0 };
        self.lost += s.lost;
        self.queue_ms = self.queue_ms.max(queue_ms);
        if self.limited * 4 > self.acked {
            *self = Losses {
                queue_before_ms: self.queue_ms,
                usual: self.usual,
                ..Losses::default()
            };
            return None;
        }
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
            queue_before_ms: self.queue_ms,
            usual: self.usual,
            ..Losses::default()
        };
        Some(share)
    }

    /// What a share was counts for what is usual.
    pub fn learn(&mut self, share: &Share) {
        self.usual += (share.lost - self.usual) / 16.0;
    }

    /// So much is lost whatever is sent: it is usual from now on.
    pub fn suppose(&mut self, share: &Share) {
        self.usual = share.lost;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn sample(acked: u32, lost: u32, limited: bool) -> RateSample {
        RateSample {
            arrival_us: 0,
            bytes: 0,
            min_delay: 0,
            rtt_min: Duration::from_millis(20),
            rtt: Duration::from_millis(20),
            limited,
            sent_at: Time::ZERO,
            sent: 0,
            acked,
            lost,
        }
    }

    fn note(losses: &mut Losses, at_ms: u64, acked: u32, lost: u32) -> Option<Share> {
        let s = sample(acked, lost, false);
        let now = Time::from_millis(at_ms);
        losses.note(now, &s, at_ms as f64, at_ms * 1_000)
    }

    #[test]
    fn a_share_is_told_of_enough_datagrams_and_a_whole_round_trip() {
        let mut losses = Losses::default();
        assert_eq!(note(&mut losses, 10, 30, 10), None, "no round trip yet");
        let first = note(&mut losses, 30, 0, 0).unwrap();
        assert_eq!(
            (first.lost, first.usual, first.since_us),
            (0.25, 0.0, 10_000)
        );
        losses.learn(&first);
        assert_eq!(note(&mut losses, 60, 1, 1), None, "one of two says nothing");
        let second = note(&mut losses, 80, 14, 0).unwrap();
        assert_eq!((second.lost, second.since_us), (1.0 / 16.0, 60_000));
        assert!(second.usual > 0.0 && second.usual < 0.25);
    }

    #[test]
    fn the_queue_that_caused_a_loss_is_remembered() {
        let mut losses = Losses::default();
        let mut share = |at_ms: u64, queue_ms: f64| {
            let now = Time::from_millis(at_ms);
            let begun = losses.note(now, &sample(20, 0, false), queue_ms, 0);
            assert_eq!(begun, None);
            let now = Time::from_millis(at_ms + 20);
            let share = losses.note(now, &sample(20, 0, false), 0.0, 0);
            share.map(|share| share.queue_ms)
        };
        assert_eq!(share(500, 90.0), Some(90.0));
        assert_eq!(share(530, 0.0), Some(90.0), "just before");
        assert_eq!(share(560, 0.0), Some(0.0));
    }

    #[test]
    fn what_a_path_with_nothing_to_carry_loses_is_no_share() {
        let mut losses = Losses::default();
        for at in 1..100 {
            let now = Time::from_millis(at * 20);
            let share = losses.note(now, &sample(1, 10, true), 0.0, at * 20_000);
            assert_eq!(share, None);
        }
        assert_eq!(losses.usual(), 0.0);
        assert_eq!(note(&mut losses, 9_000, 10, 0), None);
        let share = note(&mut losses, 9_020, 10, 0).unwrap();
        assert_eq!((share.lost, share.since_us), (0.0, 9_000_000));
    }
}

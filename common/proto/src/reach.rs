//! How far behind the best path a flow's packets may travel.
//!
//! A flow is put in order at the other end, so a packet on a path that is 70 ms
//! behind makes everything later wait 70 ms, and the flow then needs that much
//! more under way to be as fast as before. A flow whose window has yet to grow
//! loses by such a path; one that has more under way than the nearer paths can
//! carry gains all that the path carries. The flow's own queue tells them apart:
//!
//! * A flow **reaches** a far path when it has kept a queue for some time that is
//!   long enough to fill the nearer paths while it waits for the far one. The
//!   waiting moves from our queue to the other end, and nothing is lost.
//! * It gives the far path up again when the nearer ones run idle **and** would carry all that it
//!   gets now. Idle nearer paths alone prove nothing: a window that still grows leaves room on
//!   all paths, and a flow that went back to the nearer ones for that would fill its queue, be asked
//!   to slow down, and never grow into the sum.
//!
//! A sender that keeps no queue never reaches a far path like that; it is led over in steps
//! ([`crate::lead`]).
//!
//! While a far path is worth being reached, the queue may become as long as that
//! takes before the sender is asked to slow down. It is the flow's own queue;
//! others do not wait in it.

use std::time::Duration;

use crate::time::Time;

/// A path no farther behind than this needs no queue: less than what a flow keeps under way anyhow.
pub const NEAR_MS: f64 = 35.0;
/// The queue that reaches a path, as a share of its distance from the nearer ones. A flow that
/// keeps this much gains from the path though it then waits for all of the distance.
const NEEDED: f64 = 0.8;
/// How much longer than needed the queue may become.
const SLACK: Duration = Duration::from_millis(15);
/// Half of the time for which a queue must have stood.
const WINDOW: Duration = Duration::from_millis(75);
/// For how long a longer queue is still allowed after a far path was last asked for and not reached.
const PATIENCE_FOR: Duration = Duration::from_millis(500);

/// The reach of one flow.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reach {
    reach_ms: f64,
    window_start: Time,
    least_now: Option<Duration>,
    least_before: Option<Duration>,
    patience: Duration,
    patience_until: Time,
}

impl Reach {
    /// A packet of the flow leaves the queue after `sojourn`.
    pub fn note_wait(&mut self, now: Time, sojourn: Duration) {
        let passed = now.since(self.window_start);
        if passed > WINDOW {
            self.window_start = now;
            // After a pause nothing is known of the time before.
            self.least_before = self.least_now.take().filter(|_| passed < 2 * WINDOW);
        }
        self.least_now = Some(self.least_now.map_or(sojourn, |least| least.min(sojourn)));
    }

    /// The queue that stood all the time of late.
    fn standing(&self) -> Duration {
        match (self.least_now, self.least_before) {
            (Some(a), Some(b)) => a.min(b),
            _ => Duration::ZERO,
        }
    }

    /// How long its packets may wait before the sender is asked to slow down.
    pub fn patience(&self, now: Time) -> Duration {
        if now < self.patience_until {
            self.patience
        } else {
            Duration::ZERO
        }
    }

    /// Whether it used a path `spread_ms` behind the best, the last time it was asked.
    pub fn reached(&self, spread_ms: f64) -> bool {
        spread_ms <= NEAR_MS || spread_ms <= self.reach_ms
    }

    /// Whether it may use a path `spread_ms` behind the best; the nearer paths are `near_ms` behind it at most, and
    /// would carry all that it gets or not.
    pub fn reaches(&mut self, now: Time, spread_ms: f64, near_ms: f64, near_suffice: bool) -> bool {
        if spread_ms <= NEAR_MS {
            return true;
        }
        if near_suffice {
            self.reach_ms = self.reach_ms.min(near_ms);
        }
        let needed = Duration::from_secs_f64(NEEDED * (spread_ms - near_ms).max(0.0) / 1e3);
        if spread_ms > self.reach_ms && self.standing() < needed {
            self.patience = needed + SLACK;
            self.patience_until = now + PATIENCE_FOR;
            return false;
        }
        self.reach_ms = self.reach_ms.max(spread_ms + 5.0);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(sojourn_ms: u64) -> Reach {
        let mut reach = Reach::default();
        for ms in 0..400 {
            reach.note_wait(Time::from_millis(ms), Duration::from_millis(sojourn_ms));
        }
        reach
    }

    const NOW: Time = Time::from_millis(400);

    #[test]
    fn a_near_path_needs_no_queue() {
        assert!(after(0).reaches(NOW, 20.0, 0.0, false));
    }

    #[test]
    fn a_far_path_is_reached_by_a_queue_that_stands() {
        assert!(!after(40).reaches(NOW, 70.0, 0.0, false));
        assert!(
            after(40).reaches(NOW, 70.0, 20.0, false),
            "nearer ones are behind too"
        );
        assert!(after(60).reaches(NOW, 70.0, 0.0, false));
        let mut bursts = after(60);
        bursts.note_wait(NOW, Duration::ZERO);
        assert!(!bursts.reaches(NOW, 70.0, 0.0, false), "it ran empty");
    }

    #[test]
    fn it_is_kept_without_a_queue_until_the_nearer_paths_run_idle() {
        let mut reach = after(60);
        assert!(reach.reaches(NOW, 70.0, 0.0, false));
        reach.note_wait(NOW, Duration::ZERO);
        assert!(reach.reaches(NOW, 70.0, 0.0, false));
        assert!(!reach.reaches(NOW, 70.0, 0.0, true));
    }

    #[test]
    fn while_a_path_is_in_reach_the_queue_may_grow_to_it() {
        let mut reach = after(40);
        assert_eq!(reach.patience(NOW), Duration::ZERO);
        reach.reaches(NOW, 100.0, 0.0, false);
        assert_eq!(reach.patience(NOW), Duration::from_millis(95));
    }
}

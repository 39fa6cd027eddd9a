//! The trial of a path whose rate nobody knows, at no risk for anyone.
//!
//! The rate of a path is found by sending more than it carries for a moment.
//! With packets that somebody waits for, that moment costs every flow on the
//! path: what piles up on a slow, far link holds up all that was sent later on
//! the others. So a path that is far behind the best, or has just come back,
//! first carries *copies* of what goes over other paths (duplicates, which the
//! other side knows). They fill it like real traffic and nobody misses them.
//! The trial ends when the rate is known, or when there was not enough to copy.
//!
//! Copies flow only beside a flow that asks for more than the best path, so an
//! idle bond sends none, and one path at a time is tried.

use std::time::Duration;

use crate::time::Time;

/// A trial lasts no longer than this, and no longer than some round trips.
const SHORTEST: Duration = Duration::from_millis(150);
const LONGEST: Duration = Duration::from_millis(1_000);
const ROUND_TRIPS: u32 = 4;
/// A path that came back carries what must not wait only after this long, unless its rate is known before.
const PROBATION: Duration = Duration::from_secs(1);

/// Where a path stands with its trial.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Trial {
    returned: Option<Time>,
    until: Option<Time>,
    /// The last packet that was copied to it, by the bond's count.
    pub copied: u64,
}

impl Trial {
    /// For a path that comes back from the dead.
    pub fn of_returned(now: Time) -> Self {
        Trial {
            returned: Some(now),
            ..Trial::default()
        }
    }

    /// The first copy makes the clock run. Says whether this was it.
    pub fn started(&mut self, now: Time, rtt: Duration) -> bool {
        let first = self.until.is_none();
        if first {
            self.until = Some(now + (rtt * ROUND_TRIPS).clamp(SHORTEST, LONGEST));
        }
        first
    }

    /// Whether there is anything left to try.
    pub fn is_open(&self, now: Time) -> bool {
        self.until.is_none_or(|until| now < until)
    }

    /// Until when nothing may depend on a path that came back.
    pub fn probation_end(&self) -> Option<Time> {
        self.returned.map(|at| at + PROBATION)
    }

    /// Whether it came back so recently that nothing may depend on it.
    pub fn is_probation(&self, now: Time) -> bool {
        self.is_open(now) && self.probation_end().is_some_and(|end| now < end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_waits_for_traffic_and_then_ends_by_itself() {
        let mut trial = Trial::default();
        assert!(trial.is_open(Time::from_millis(60_000)));
        trial.started(Time::from_millis(60_000), Duration::from_millis(60));
        assert!(trial.is_open(Time::from_millis(60_239)));
        assert!(!trial.is_open(Time::from_millis(60_240)));
    }

    #[test]
    fn a_path_that_came_back_is_on_probation_for_a_second() {
        let trial = Trial::of_returned(Time::from_millis(5_000));
        assert!(trial.is_probation(Time::from_millis(5_999)));
        assert!(!trial.is_probation(Time::from_millis(6_000)));
        assert!(!Trial::default().is_probation(Time::ZERO));
    }
}

//! Why the rate is what it is, in one word.

use serde::{Deserialize, Serialize};

use super::{Phase, RateController};
use crate::time::Time;

/// What the present rate of a path rests on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RateReason {
    /// Nothing: not even a round trip is known.
    #[default]
    Unknown,
    /// The distances between the answers to a few pings; nothing was carried yet that would prove it.
    Guessed,
    /// The most that arrived so far, or a guess from the first round trip: it doubles until a queue or a plateau shows.
    Start,
    /// Half of what it was before an outage, or before datagrams proved too large for the path; it is found anew from there.
    Memory,
    /// What arrived while the link was busy.
    Estimate,
    /// The same; the link shows room, and what is asked of it may let it grow.
    Probing,
    /// The same; a little less is sent for a moment, so that the queue runs empty and the base delay shows.
    Drain,
    /// What arrived beside losses far above the usual ones, as behind a policer. Kept for some time.
    Losses,
}

impl RateController {
    /// Why the rate is what it is, as far as the rate knows: that a start began with a guess is its path's business.
    pub fn reason(&self, now: Time) -> RateReason {
        match self.phase {
            Phase::Startup if self.capacity == 0.0 => RateReason::Unknown,
            Phase::Startup if self.remembers => RateReason::Memory,
            Phase::Startup => RateReason::Start,
            Phase::Drain => RateReason::Drain,
            Phase::Cruise if self.is_held(now) => RateReason::Losses,
            Phase::Cruise if self.room => RateReason::Probing,
            Phase::Cruise => RateReason::Estimate,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_rate_that_begins_anew_with_half_of_what_it_was_says_so_and_one_that_was_never_known_does_not()
     {
        let now = Time::from_millis(1_000);
        let mut rate = RateController::new();
        rate.restart(now);
        assert_eq!(rate.reason(now), RateReason::Unknown);
        rate.begin(now, Duration::from_millis(30));
        assert_eq!(rate.reason(now), RateReason::Start);
        rate.restart(now);
        assert_eq!(rate.reason(now), RateReason::Memory);
    }
}

//! Leading a running flow over to a set of paths that lies beyond its sender's window.
//!
//! A BBR sender keeps twice its shortest round trip under way, the shortest of the last ten
//! seconds. A path that makes its packets wait for longer than that is of no use to it: the
//! window is used up, the rate falls, and the flow goes back to the path on which it began,
//! without a queue that would say that it wants more ([`crate::reach`]).
//!
//! Its round trip can be raised, though, by less than twofold at once: that fits into the
//! window. When the sender has forgotten the shorter one, its window is larger, and the next
//! step fits. So a flow that fills its best path for eight seconds, while all paths would carry more,
//! gets a constant latency in steps, until the whole set ([`crate::span`]) is within it. Then it
//! is a flow of that set like any other.
//!
//! The price is latency, and only a stream that asks for all of its best path pays it. One that
//! already gets nearly all that there is, as CUBIC does whose queue reached the far paths, is left
//! alone.

use std::time::Duration;

use crate::time::Time;

/// The share of the best path's capacity that a flow fills when it asks for all of it. Less than one because a
/// capacity that was doubled at the start of a path and never reached is too high by a quarter.
const FILLS: f64 = 0.7;
/// A rate so far above that of the windows before is still growing: a CUBIC on its way needs no leading, its own queue
/// will tell that it wants more.
const GROWS: f64 = 1.04;
/// In how many more windows it must have filled it, without growing, than not ([`Lead::note_rate`]).
const LASTS: u8 = 4;
/// How much more than the flow gets the set must carry.
const WORTH: f64 = 1.1;
/// The time for which a BBR believes its shortest round trip, and in which it then looks for the next: 10 s and 200 ms
/// with a few round trips (Linux, `bbr_min_rtt_win_sec` and `bbr_probe_rtt_mode_ms`).
const REMEMBERED_FOR: Duration = Duration::from_millis(10_500);
/// By how much a round trip may grow in a step: less than twofold, with room for a queue.
const STEP: f64 = 1.8;

/// What there is for a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Prospect {
    /// The round trip of the best path.
    pub rtt: Duration,
    /// What it carries, bytes per second.
    pub best: f64,
    /// What the whole set carries, bytes per second.
    pub carries: f64,
    /// The latency of the set.
    pub latency: Duration,
}

impl Prospect {
    /// The most that the latency of a flow may become that begins with this: a window that was made for a shorter round
    /// trip is twice too large for it at most.
    pub fn latency_max(&self) -> Duration {
        self.latency + (self.latency + self.rtt) / 2
    }
}

/// How far a flow has been led.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Lead {
    latency: Duration,
    step: Option<Time>,
    filled: u8,
    /// Of the windows in which it filled its path. It begins at nothing and comes near a rate that stands still in six
    /// seconds; with the windows of [`LASTS`] that is eight until the first step.
    usual: f64,
}

impl Lead {
    /// The constant latency of its packets.
    pub fn latency(&self) -> Duration {
        self.latency
    }

    /// A stream had this rate for a window of half a second, bytes per second. Says whether all of the set is within
    /// its latency now.
    pub fn note_rate(&mut self, now: Time, rate: f64, prospect: &Prospect) -> bool {
        let fills = rate >= FILLS * prospect.best;
        let grows = rate > GROWS * self.usual;
        if fills {
            self.usual += (rate - self.usual) / 4.0;
        }
        // Single windows below are no sign of less: BBR itself pauses for 200 ms, and capacities jump.
        self.filled = if fills && !grows {
            (self.filled + 1).min(2 * LASTS)
        } else {
            self.filled.saturating_sub(1)
        };
        let rests = self
            .step
            .is_some_and(|step| now.since(step) < REMEMBERED_FOR);
        let nowhere = prospect.latency.is_zero() || rate * WORTH > prospect.carries;
        if self.filled < LASTS || rests || nowhere {
            return false;
        }
        let longest = (prospect.rtt + self.latency).mul_f64(STEP) - prospect.rtt;
        self.latency = longest.min(prospect.latency);
        self.step = Some(now);
        self.latency == prospect.latency
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW_MS: u64 = 500;

    /// 50 Mbit/s with 15 ms, of a set of 80 Mbit/s that takes 70 ms more.
    fn prospect() -> Prospect {
        Prospect {
            rtt: Duration::from_millis(15),
            best: 50.0,
            carries: 80.0,
            latency: Duration::from_millis(70),
        }
    }

    /// The steps of a flow of these rates, with their moments in milliseconds, and when it arrived.
    fn steps(rates: impl IntoIterator<Item = f64>) -> (Vec<(u64, Duration)>, Option<u64>) {
        let (mut lead, mut steps) = (Lead::default(), Vec::new());
        for (window, rate) in (1..).zip(rates) {
            let (before, ms) = (lead.latency(), window * WINDOW_MS);
            let arrived = lead.note_rate(Time::from_millis(ms), rate, &prospect());
            if lead.latency() != before {
                steps.push((ms, lead.latency()));
            }
            if arrived {
                return (steps, Some(ms));
            }
        }
        (steps, None)
    }

    #[test]
    fn a_flow_that_fills_its_best_path_is_led_to_the_set_in_steps_that_a_window_of_twice_its_round_trip_holds()
     {
        let (steps, arrived) = steps([47.0; 100]);
        let rtt = prospect().rtt;
        let mut round_trip = rtt;
        for pair in steps.windows(2) {
            assert!(pair[1].0 - pair[0].0 > 10_200, "{steps:?}");
        }
        for (_, latency) in &steps {
            assert!(rtt + *latency < round_trip * 2, "{steps:?}");
            round_trip = rtt + *latency;
        }
        assert_eq!(round_trip, rtt + prospect().latency);
        assert_eq!(arrived, steps.last().map(|step| step.0));
    }

    #[test]
    fn a_flow_that_asks_for_less_or_gets_nearly_all_is_left_alone() {
        assert_eq!(steps([30.0; 100]), (vec![], None), "less than its path");
        assert_eq!(steps([75.0; 100]), (vec![], None), "nearly all");
        assert_eq!(steps([47.0; 15]), (vec![], None), "not for long");
        assert_eq!(steps([47.0; 16]).0.len(), 1, "for eight seconds");
    }

    #[test]
    fn where_there_is_nothing_but_the_best_path_nobody_is_led() {
        let alone = Prospect {
            carries: 50.0,
            latency: Duration::ZERO,
            ..prospect()
        };
        let mut lead = Lead::default();
        for window in 1..100 {
            let now = Time::from_millis(window * WINDOW_MS);
            assert!(!lead.note_rate(now, 40.0, &alone));
        }
    }

    #[test]
    fn a_flow_that_still_grows_is_left_alone() {
        let growing = (0..12).map(|i| 35.0 * 1.05f64.powi(i));
        assert_eq!(steps(growing), (vec![], None));
    }

    #[test]
    fn a_pause_does_not_end_what_lasted() {
        let with_pauses = (0..100).map(|i| if i % 8 == 7 { 20.0 } else { 47.0 });
        assert!(steps(with_pauses).1.is_some());
    }
}

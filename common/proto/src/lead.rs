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
//! At one moment the whole way fits into a single step: when the sender forgets. It then takes the next round trip that it
//! sees for the shortest, however long that is, and sends next to nothing for 200 ms anyhow to look for a shorter one. What is
//! shorter must not come any more by then, and must not be missing for long before, as the window is still the small one.
//! We know that moment for a **young flow**: the shortest round trip is that of its first, smallest packets on empty
//! paths, and they are forgotten ten seconds after them. So just before that it **leaps**. Whether it landed shows soon: a sender that
//! still believes the short round trip is starved, and the flow goes back to the steps.
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
/// Before a step a flow must have filled its best path, without growing, for so many windows. One in which it did not
/// takes one of them away ([`Lead::note_rate`]).
const LASTS: u8 = 4;
/// How much more than the flow gets the set must carry.
const WORTH: f64 = 1.1;
/// The time for which a BBR believes its shortest round trip, and in which it then looks for the next: 10 s and 200 ms
/// with a few round trips (Linux, `bbr_min_rtt_win_sec` and `bbr_probe_rtt_mode_ms`).
const REMEMBERED_FOR: Duration = Duration::from_millis(10_500);
/// How long after its first packet a sender believes the round trip of that at least (`bbr_min_rtt_win_sec`; the ten seconds begin when
/// the packet was answered).
const BELIEVED_FOR: Duration = Duration::from_secs(10);
/// How much earlier a leap is taken, on top of the round trip by which its sender's ten seconds end later than ours: for what is under
/// way over the near paths ([`crate::reach::NEAR_MS`]) and the 25 ms for which acknowledgements may wait.
const LEAPS_BEFORE: Duration = Duration::from_millis(60);
/// When a leap must have landed: what is left of the ten seconds and the look for a shorter round trip, and round trips of the set, a few
/// for that look and the others for the window to grow to it. After twelve also a BBR that missed has forgotten its rate (ten rounds).
const LANDS_AFTER: Duration = Duration::from_millis(500);
const LANDS_IN: u32 = 12;
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
    /// How much more a flow begins with.
    pub headroom: Duration,
}

impl Prospect {
    /// The most that the latency of a flow may become that begins with this: a window that was made for a shorter round
    /// trip is twice too large for it at most.
    pub fn latency_max(&self) -> Duration {
        self.latency + (self.latency + self.rtt) / 2
    }

    /// Whether there is a set, and it carries more by enough than a flow of this rate gets.
    fn gains(&self, rate: f64) -> bool {
        !self.latency.is_zero() && rate * WORTH <= self.carries
    }
}

/// The one step over all of the way.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Leap {
    /// It has not filled its path for long enough yet.
    #[default]
    Ahead,
    /// It is to be taken then.
    At(Time),
    /// It was taken then, and has yet to land.
    Taken(Time),
    /// It landed or missed, or the flow was too old.
    Past,
}

/// How far a flow has been led.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Lead {
    latency: Duration,
    step: Option<Time>,
    leap: Leap,
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

    /// A stream that began then had this rate for a window of half a second, bytes per second. Says whether all of the set is within
    /// its latency now.
    pub fn note_rate(&mut self, now: Time, began: Time, rate: f64, prospect: &Prospect) -> bool {
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
        if self.filled < LASTS || rests || !prospect.gains(rate) {
            return false;
        }
        if self.leap == Leap::Ahead {
            let at = began + (BELIEVED_FOR - LEAPS_BEFORE);
            self.leap = if at > now { Leap::At(at) } else { Leap::Past };
        }
        let longest = (prospect.rtt + self.latency).mul_f64(STEP) - prospect.rtt;
        self.latency = longest.min(prospect.latency);
        self.step = Some(now);
        self.latency == prospect.latency
    }

    /// Whether it is time for the leap, and it still goes somewhere.
    pub fn leaps(&mut self, now: Time, prospect: &Prospect) -> bool {
        if !matches!(self.leap, Leap::At(at) if now >= at) {
            return false;
        }
        let leaps = self.filled >= LASTS && prospect.gains(self.usual);
        self.leap = if leaps { Leap::Taken(now) } else { Leap::Past };
        leaps
    }

    /// A flow that may have leapt had this rate for a window, bytes per second. Says whether the leap missed.
    pub fn missed(&mut self, now: Time, rate: f64, prospect: &Prospect) -> bool {
        let Leap::Taken(at) = self.leap else {
            return false;
        };
        let round_trip = prospect.rtt + prospect.latency;
        if now.since(at) < LANDS_AFTER + LANDS_IN * round_trip {
            return false;
        }
        // The next step counts from what was before.
        self.leap = Leap::Past;
        rate < FILLS * self.usual
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
            headroom: Duration::ZERO,
        }
    }

    /// The steps of a flow of these rates, with their moments in milliseconds, and when it arrived.
    fn steps(rates: impl IntoIterator<Item = f64>) -> (Vec<(u64, Duration)>, Option<u64>) {
        let (mut lead, mut steps) = (Lead::default(), Vec::new());
        for (window, rate) in (1..).zip(rates) {
            let (before, ms) = (lead.latency(), window * WINDOW_MS);
            let arrived = lead.note_rate(Time::from_millis(ms), Time::ZERO, rate, &prospect());
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
            headroom: Duration::ZERO,
            ..prospect()
        };
        let mut lead = Lead::default();
        for window in 1..100 {
            let now = Time::from_millis(window * WINDOW_MS);
            assert!(!lead.note_rate(now, Time::ZERO, 40.0, &alone));
        }
    }

    #[test]
    fn a_flow_that_still_grows_is_left_alone() {
        let growing = (0..12).map(|i| 35.0 * 1.05f64.powi(i));
        assert_eq!(steps(growing), (vec![], None));
    }

    /// A flow that began at [`Time::ZERO`] and fills its path up to now.
    fn young(prospect: &Prospect, until_ms: u64) -> Lead {
        let mut lead = Lead::default();
        for window in 1..=until_ms / WINDOW_MS {
            let now = Time::from_millis(window * WINDOW_MS);
            assert!(!lead.note_rate(now, Time::ZERO, 47.0, prospect));
        }
        lead
    }

    #[test]
    fn a_young_flow_leaps_once_just_before_its_sender_forgets_the_first_round_trip() {
        let mut lead = young(&prospect(), 9_500);
        let leaps = |lead: &mut Lead, ms| lead.leaps(Time::from_millis(ms), &prospect());
        assert!(!leaps(&mut lead, 9_900));
        assert!(leaps(&mut lead, 9_950));
        assert!(!leaps(&mut lead, 9_951));
        let mut old = Lead::default();
        for window in 1..100 {
            let (now, began) = (Time::from_millis(20_000 + window * 500), Time::ZERO);
            old.note_rate(now, began, 47.0, &prospect());
            assert!(!old.leaps(now, &prospect()), "its moment passed");
        }
    }

    #[test]
    fn a_flow_leaps_nowhere_when_the_set_is_gone_by_then() {
        let mut lead = young(&prospect(), 9_500);
        let gone = Prospect {
            carries: 50.0,
            latency: Duration::ZERO,
            headroom: Duration::ZERO,
            ..prospect()
        };
        assert!(!lead.leaps(Time::from_millis(9_950), &gone));
        assert!(!lead.leaps(Time::from_millis(9_960), &prospect()));
    }

    #[test]
    fn a_leap_that_starves_its_sender_is_taken_back_and_one_that_lands_is_not() {
        for (rate, missed) in [(20.0, true), (50.0, false)] {
            let mut lead = young(&prospect(), 9_500);
            assert!(lead.leaps(Time::from_millis(9_950), &prospect()));
            let latency = lead.latency();
            let mut at = |ms, rate| lead.missed(Time::from_millis(ms), rate, &prospect());
            assert!(!at(10_500, 5.0), "the sender looks for a shorter one");
            assert_eq!(at(11_500, rate), missed);
            assert!(!at(12_000, 5.0), "once");
            assert!(latency > Duration::ZERO, "it has the steps before it");
        }
    }

    #[test]
    fn a_pause_does_not_end_what_lasted() {
        let with_pauses = (0..100).map(|i| if i % 8 == 7 { 20.0 } else { 47.0 });
        assert!(steps(with_pauses).1.is_some());
    }
}

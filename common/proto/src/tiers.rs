//! How much of a path the upper classes may take while a lower one waits.
//!
//! Realtime goes before interactive, and interactive before bulk. Strictly so,
//! or a call would wait behind a page; but not without bound, or a thousand
//! calls, or one sender that marks everything as one, would stop all else. So
//! each of the two upper classes has a credit that fills at its share of the
//! best path's capacity. While the credit lasts, or nobody below waits, the
//! order is strict; without credit the class takes its turn after the others, and
//! realtime waits for the pacer as everybody does, or it would fill the link's own
//! queue, where nothing goes before anything.
//! What is left for bulk is never less than a fifth.

use std::time::Duration;

use crate::classify::Class;
use crate::time::Time;

/// Share of the best path that realtime packets may take before others.
const REALTIME_SHARE: f64 = 0.3;
/// The same for interactive packets.
const INTERACTIVE_SHARE: f64 = 0.5;
/// How long a burst at full rate may last on saved credit and credit on account.
const BURST: Duration = Duration::from_millis(25);
/// A burst that is always allowed, bytes: an initial window of TCP (RFC 6928).
const BURST_MIN: f64 = 15_000.0;

const _: () = assert!(REALTIME_SHARE + INTERACTIVE_SHARE <= 0.8);

/// The credit of one class.
#[derive(Clone, Copy, Debug)]
struct Credit {
    bytes: f64,
    at: Time,
}

impl Default for Credit {
    fn default() -> Self {
        Credit {
            bytes: BURST_MIN,
            at: Time::ZERO,
        }
    }
}

impl Credit {
    fn fill(&mut self, now: Time, rate: f64) {
        let burst = (rate * BURST.as_secs_f64()).max(BURST_MIN);
        let earned = rate * now.since(self.at).as_secs_f64();
        self.bytes = (self.bytes + earned).clamp(-burst, burst);
        self.at = now;
    }
}

/// The credits of a bond.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tiers {
    realtime: Credit,
    interactive: Credit,
}

impl Tiers {
    fn credit(&mut self, class: Class) -> Option<(&mut Credit, f64)> {
        match class {
            Class::Realtime => Some((&mut self.realtime, REALTIME_SHARE)),
            Class::Interactive => Some((&mut self.interactive, INTERACTIVE_SHARE)),
            Class::Bulk => None,
        }
    }

    /// Whether packets of this class still go before those of lower ones.
    /// `capacity` is that of the best path, bytes per second.
    pub fn goes_first(&mut self, now: Time, class: Class, capacity: f64) -> bool {
        self.credit(class).is_none_or(|(credit, share)| {
            credit.fill(now, share * capacity);
            credit.bytes > 0.0
        })
    }

    /// A packet of this class left.
    pub fn took(&mut self, class: Class, bytes: usize) {
        if let Some((credit, _)) = self.credit(class) {
            credit.bytes -= bytes as f64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_that_wants_all_goes_first_with_its_share_of_the_packets() {
        const CAPACITY: f64 = 1_000_000.0;
        for (class, share) in [
            (Class::Realtime, 0.3),
            (Class::Interactive, 0.5),
            (Class::Bulk, 1.0),
        ] {
            let mut tiers = Tiers::default();
            let mut first = 0;
            // A thousand packets a second fill the path, for ten seconds.
            for ms in 1..=10_000 {
                if tiers.goes_first(Time::from_millis(ms), class, CAPACITY) {
                    tiers.took(class, 1_000);
                    first += 1;
                }
            }
            let got = f64::from(first) / 10_000.0;
            assert!((got - share).abs() < 0.02, "{class:?} {got}");
        }
    }

    #[test]
    fn a_first_burst_goes_before_everything() {
        let mut tiers = Tiers::default();
        for _ in 0..10 {
            assert!(tiers.goes_first(Time::from_millis(1_000), Class::Interactive, 100_000.0));
            tiers.took(Class::Interactive, 1_400);
        }
    }
}

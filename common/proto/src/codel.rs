//! CoDel (RFC 8289): when to drop from the head of a queue so that no standing
//! queue remains.
//!
//! Bulk flows get a wider target than the RFC's 5 ms. Fair queueing already
//! keeps their queue from everyone else, and a lone flow that is cut at 5 ms
//! leaves the links idle after each cut.

use std::time::Duration;

use crate::time::Time;

/// Target and interval of one class.
#[derive(Clone, Copy, Debug)]
pub struct CodelParams {
    /// Sojourn time that is always fine.
    pub target: Duration,
    /// How long it may be exceeded before the first drop.
    pub interval: Duration,
    /// How long after the first drop the others come no closer together than an interval.
    pub steady: Duration,
}

impl CodelParams {
    /// The same for a queue that may stand for longer than the usual target.
    pub fn with_patience(&self, patience: Duration) -> Self {
        CodelParams {
            target: self.target.max(patience),
            ..*self
        }
    }
}

/// For realtime and interactive flows: the RFC's values.
pub const THIN: CodelParams = CodelParams {
    target: Duration::from_millis(5),
    interval: Duration::from_millis(100),
    steady: Duration::ZERO,
};
/// For bulk flows. A window answers one drop per round trip, and more of them say nothing more. A BBR answers none: it
/// forgets the rate that it took for the link's after ten round trips, and its queue is gone with that. Until then, ten
/// intervals, drops do not come faster.
pub const BULK: CodelParams = CodelParams {
    target: Duration::from_millis(30),
    interval: Duration::from_millis(120),
    steady: Duration::from_millis(10 * 120),
};

/// The state of one queue.
#[derive(Clone, Copy, Debug, Default)]
pub struct Codel {
    first_above: Option<Time>,
    /// Since when it drops.
    dropping: Option<Time>,
    drop_next: Time,
    count: u32,
    last_count: u32,
}

impl Codel {
    /// Whether the packet at the head, which waited `sojourn`, shall be dropped
    /// (or marked). `backlog` is what remains behind it, in bytes.
    pub fn should_drop(
        &mut self,
        now: Time,
        sojourn: Duration,
        backlog: usize,
        params: &CodelParams,
    ) -> bool {
        let above = self.is_above(now, sojourn, backlog, params);
        if let Some(since) = self.dropping {
            if !above {
                self.dropping = None;
                return false;
            }
            if now < self.drop_next {
                return false;
            }
            if now.since(since) < params.steady {
                self.drop_next = now + params.interval;
            } else {
                self.count += 1;
                self.drop_next += control_law(params.interval, self.count);
            }
            return true;
        }
        if !above {
            return false;
        }
        self.dropping = Some(now);
        // Resume near the old drop rate when the last episode is not long ago.
        let recent = now.since(self.drop_next) < params.interval * 16;
        let delta = self.count.saturating_sub(self.last_count);
        self.count = if recent && delta > 1 { delta } else { 1 };
        self.last_count = self.count;
        let next = if params.steady.is_zero() {
            control_law(params.interval, self.count)
        } else {
            params.interval
        };
        self.drop_next = now + next;
        true
    }

    fn is_above(&mut self, now: Time, sojourn: Duration, backlog: usize, p: &CodelParams) -> bool {
        if sojourn < p.target || backlog <= 1_514 {
            self.first_above = None;
            return false;
        }
        match self.first_above {
            None => {
                self.first_above = Some(now + p.interval);
                false
            }
            Some(at) => now >= at,
        }
    }
}

fn control_law(interval: Duration, count: u32) -> Duration {
    interval.div_f64(f64::from(count.max(1)).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drops(sojourn_ms: u64, millis: u64) -> usize {
        let mut codel = Codel::default();
        let sojourn = Duration::from_millis(sojourn_ms);
        (0..millis)
            .filter(|&ms| codel.should_drop(Time::from_millis(ms), sojourn, 100_000, &BULK))
            .count()
    }

    #[test]
    fn a_queue_below_its_target_is_left_alone() {
        assert_eq!(drops(29, 10_000), 0);
    }

    #[test]
    fn a_standing_queue_is_cut_after_one_interval_and_then_ever_faster() {
        assert_eq!(drops(31, 120), 0);
        assert_eq!(drops(31, 122), 1);
        assert!(drops(31, 4_000) > 2 * drops(31, 2_000));
    }

    #[test]
    fn a_bulk_flow_loses_one_packet_an_interval_for_ten_intervals() {
        let by = |intervals: u64| drops(31, intervals * 120 + 60);
        assert!((1..=10).all(|intervals| by(intervals) == intervals as usize));
        assert!(by(30) > 40);
    }

    #[test]
    fn the_last_packet_of_a_queue_is_never_dropped() {
        let mut codel = Codel::default();
        let late = Duration::from_secs(1);
        assert!((0..5_000).all(|ms| !codel.should_drop(Time::from_millis(ms), late, 0, &BULK)));
    }
}

//! Round trips of a path: smoothed, varying, lowest (RFC 6298 and RFC 9002).
//!
//! A round trip here goes out over the path and comes back over whichever path
//! carried the acknowledgement, usually the fastest. That is the time after
//! which a repair can be decided, which is what it is used for.

use std::time::Duration;

use crate::time::Time;

/// What to assume before anything was measured.
const INITIAL: Duration = Duration::from_millis(150);
/// How long a minimum is believed.
const MIN_WINDOW: Duration = Duration::from_secs(10);

/// Round-trip statistics.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rtt {
    smoothed: Option<Duration>,
    variance: Duration,
    min_now: Option<Duration>,
    min_before: Option<Duration>,
    window_start: Time,
}

impl Rtt {
    /// A new sample.
    pub fn sample(&mut self, now: Time, rtt: Duration) {
        if now.since(self.window_start) > MIN_WINDOW / 2 {
            self.window_start = now;
            self.min_before = self.min_now.take();
        }
        self.min_now = Some(self.min_now.map_or(rtt, |m| m.min(rtt)));
        match self.smoothed {
            None => {
                self.smoothed = Some(rtt);
                self.variance = rtt / 2;
            }
            Some(srtt) => {
                let deviation = srtt.abs_diff(rtt);
                self.variance = self.variance * 3 / 4 + deviation / 4;
                self.smoothed = Some(srtt * 7 / 8 + rtt / 8);
            }
        }
    }

    /// Whether anything was measured.
    pub fn is_known(&self) -> bool {
        self.smoothed.is_some()
    }

    /// The smoothed round trip.
    pub fn smoothed(&self) -> Duration {
        self.smoothed.unwrap_or(INITIAL)
    }

    /// Its mean deviation.
    pub fn variance(&self) -> Duration {
        self.variance
    }

    /// The lowest of the last five to ten seconds.
    pub fn min(&self) -> Duration {
        match (self.min_now, self.min_before) {
            (Some(a), Some(b)) => a.min(b),
            (Some(a), None) | (None, Some(a)) => a,
            (None, None) => INITIAL,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_minimum_is_forgotten_after_its_window() {
        let mut rtt = Rtt::default();
        rtt.sample(Time::ZERO, Duration::from_millis(10));
        for ms in (100..20_000).step_by(100) {
            rtt.sample(Time::from_millis(ms), Duration::from_millis(50));
        }
        assert_eq!(rtt.min(), Duration::from_millis(50));
        assert!(rtt.smoothed().abs_diff(Duration::from_millis(50)) < Duration::from_micros(100));
    }
}

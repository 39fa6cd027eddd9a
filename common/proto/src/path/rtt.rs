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

/// How long it takes until an acknowledgement is there: a round trip, and the time for which the other side let it wait.
/// The deviation moves more slowly than that of [`Rtt`], so a single late one changes it less.
#[derive(Clone, Copy, Debug, Default)]
pub struct AnswerTime {
    usual: Option<Duration>,
    deviation: Duration,
}

impl AnswerTime {
    /// An acknowledgement came. Of the datagrams that it is the first to tell of, the oldest waited this long.
    pub fn sample(&mut self, waited: Duration) {
        let Some(usual) = self.usual else {
            self.usual = Some(waited);
            self.deviation = waited / 8;
            return;
        };
        self.deviation = self.deviation * 7 / 8 + usual.abs_diff(waited) / 8;
        self.usual = Some(usual * 7 / 8 + waited / 8);
    }

    /// As it is on the mean; unknown before the first.
    pub fn usual(&self) -> Option<Duration> {
        self.usual
    }

    /// After so long nearly every acknowledgement is there; unknown before the first.
    pub fn at_most(&self) -> Option<Duration> {
        /// Covers the ups and downs of a normal distribution but for one in a hundred.
        const DEVIATIONS: u32 = 3;
        /// Timers are not on time.
        const MARGIN_MIN: Duration = Duration::from_millis(3);
        let margin = (self.deviation * DEVIATIONS).max(MARGIN_MIN);
        Some(self.usual? + margin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_missed_soon_where_all_take_as_long_and_later_where_they_scatter() {
        let (mut even, mut uneven) = (AnswerTime::default(), AnswerTime::default());
        assert_eq!(even.at_most(), None);
        for i in 0..100 {
            even.sample(Duration::from_millis(20));
            uneven.sample(Duration::from_millis(if i % 2 == 0 { 15 } else { 25 }));
        }
        let at_most = |answers: AnswerTime| answers.at_most().map(|t| t.as_millis());
        assert_eq!(at_most(even), Some(23));
        assert!((33..=37).contains(&at_most(uneven).unwrap()), "{uneven:?}");
    }

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

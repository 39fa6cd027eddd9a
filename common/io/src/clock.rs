//! The daemons' clock.
//!
//! The core counts [`Time`] from an origin of the driver's choice. Here it is the
//! moment the process started, on a clock that never goes back and, on Linux,
//! goes on while the machine sleeps (CLOCK_BOOTTIME): after a night in a bag the
//! core must see that eight hours have passed, or it would trust sessions and
//! estimates that are long stale.
#![allow(unsafe_code)] // one call of clock_gettime

use marline_proto::Time;

/// A clock with its own origin. Copies share the origin.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: imp::Moment,
}

impl Clock {
    /// A clock whose origin is now.
    pub fn start() -> Self {
        Clock { origin: imp::now() }
    }

    /// The present moment.
    pub fn now(&self) -> Time {
        Time::from_nanos(imp::nanos_between(self.origin, imp::now()))
    }

    /// What the operating system's boot-time clock shows at `time`, in nanoseconds; for
    /// timers that are set to an absolute moment.
    #[cfg(target_os = "linux")]
    pub(crate) fn boottime_nanos(&self, time: Time) -> u64 {
        self.origin.saturating_add(time.as_nanos())
    }
}

#[cfg(target_os = "linux")]
mod imp {
    pub(super) type Moment = u64;

    pub(super) fn now() -> Moment {
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: the pointer is to a live timespec, and the clock exists since Linux 2.6.39.
        let result = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut time) };
        assert_eq!(
            result, 0,
            "CLOCK_BOOTTIME exists on every Linux that Rust supports"
        );
        time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
    }

    pub(super) fn nanos_between(from: Moment, to: Moment) -> u64 {
        to.saturating_sub(from)
    }
}

#[cfg(not(target_os = "linux"))]
mod imp {
    pub(super) type Moment = std::time::Instant;

    pub(super) fn now() -> Moment {
        std::time::Instant::now()
    }

    pub(super) fn nanos_between(from: Moment, to: Moment) -> u64 {
        u64::try_from(to.saturating_duration_since(from).as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_starts_near_zero_and_never_goes_back() {
        let clock = Clock::start();
        let mut last = clock.now();
        assert!(last < Time::from_millis(10_000));
        for _ in 0..1000 {
            let now = clock.now();
            assert!(now >= last);
            last = now;
        }
        assert!(last > Time::ZERO);
    }
}

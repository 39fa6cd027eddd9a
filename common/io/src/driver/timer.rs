//! A timer that is on time.
//!
//! The runtime's own timers tick in whole milliseconds, at which a 100 Mbit/s path
//! sends nine datagrams: pacing would go out in clumps. On Linux the kernel's
//! timerfd is used, which wakes within tens of microseconds, on the same clock as
//! the daemon's, so that it also fires at once after the machine slept.
//!
//! Under load the moment to wake at moves on with every turn of the loop, mostly before it has
//! come. So the kernel is told when the moment comes nearer; when it has moved away, the timer
//! fires at the old one, sets itself anew, and nobody notices.

#[cfg(target_os = "linux")]
pub(super) use linux::Timer;
#[cfg(not(target_os = "linux"))]
pub(super) use other::Timer;

#[cfg(target_os = "linux")]
mod linux {
    #![allow(unsafe_code)] // timerfd has no safe form in the crates at hand

    use std::io;
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
    use std::task::Context;

    use marline_proto::Time;
    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;

    use crate::clock::Clock;

    /// Wakes its task at one moment.
    #[derive(Debug)]
    pub(in crate::driver) struct Timer {
        fd: AsyncFd<OwnedFd>,
        clock: Clock,
        /// When to wake.
        wanted: Option<Time>,
        /// When the kernel does.
        armed: Option<Time>,
    }

    impl Timer {
        pub(in crate::driver) fn new(clock: Clock) -> io::Result<Self> {
            // SAFETY: it takes plain numbers and returns a descriptor or -1.
            let fd = unsafe {
                libc::timerfd_create(libc::CLOCK_BOOTTIME, libc::TFD_NONBLOCK | libc::TFD_CLOEXEC)
            };
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            // SAFETY: the descriptor has just been made, so nobody else owns it.
            let fd = unsafe { OwnedFd::from_raw_fd(fd) };
            // SAFETY: the descriptor is owned, and stays the same until the timer is dropped.
            let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?;
            Ok(Timer {
                fd,
                clock,
                wanted: None,
                armed: None,
            })
        }

        /// Sets the moment to wake at.
        pub(in crate::driver) fn set(&mut self, at: Time) -> io::Result<()> {
            self.wanted = Some(at);
            if self.armed.is_some_and(|armed| armed <= at) {
                return Ok(());
            }
            self.arm(at)
        }

        fn arm(&mut self, at: Time) -> io::Result<()> {
            // All zeros would disarm it; a moment of zero cannot be meant, as the machine has
            // booted.
            let nanos = self.clock.boottime_nanos(at).max(1);
            let setting = libc::itimerspec {
                it_interval: libc::timespec {
                    tv_sec: 0,
                    tv_nsec: 0,
                },
                it_value: libc::timespec {
                    tv_sec: (nanos / 1_000_000_000).min(i32::MAX as u64) as libc::time_t,
                    tv_nsec: (nanos % 1_000_000_000) as libc::c_long,
                },
            };
            // SAFETY: the descriptor is a timer, the setting is alive, no old one is asked for.
            let result = unsafe {
                libc::timerfd_settime(
                    self.fd.as_raw_fd(),
                    libc::TFD_TIMER_ABSTIME,
                    &raw const setting,
                    std::ptr::null_mut(),
                )
            };
            if result != 0 {
                return Err(io::Error::last_os_error());
            }
            self.armed = Some(at);
            Ok(())
        }

        /// Whether the moment has come; tells it once.
        pub(in crate::driver) fn poll_elapsed(&mut self, cx: &mut Context<'_>) -> bool {
            while self.fd.poll_read_ready(cx).is_ready() {
                let mut expirations = [0u8; 8];
                let read = self.fd.try_io(Interest::READABLE, |fd| {
                    // SAFETY: the buffer is alive and as long as it says.
                    let len =
                        unsafe { libc::read(fd.as_raw_fd(), expirations.as_mut_ptr().cast(), 8) };
                    if len < 0 {
                        Err(io::Error::last_os_error())
                    } else {
                        Ok(())
                    }
                });
                match read {
                    Ok(()) => {
                        self.armed = None;
                        let wanted = self.wanted;
                        match wanted {
                            // If it cannot be set, waking now is the safe side.
                            Some(at) if at > self.clock.now() && self.arm(at).is_ok() => {}
                            _ => {
                                self.wanted = None;
                                return true;
                            }
                        }
                    }
                    // Set anew since the runtime saw it: ask again, which leaves word to be woken.
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => return true,
                }
            }
            false
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod other {
    use std::io;
    use std::pin::Pin;
    use std::task::Context;

    use marline_proto::Time;

    use crate::clock::Clock;

    /// Wakes its task at one moment, to the runtime's millisecond.
    #[derive(Debug)]
    pub(in crate::driver) struct Timer {
        sleep: Option<Pin<Box<tokio::time::Sleep>>>,
        clock: Clock,
        armed: Option<Time>,
    }

    impl Timer {
        #[allow(clippy::unnecessary_wraps)] // as on Linux
        pub(in crate::driver) fn new(clock: Clock) -> io::Result<Self> {
            Ok(Timer {
                sleep: None,
                clock,
                armed: None,
            })
        }

        #[allow(clippy::unnecessary_wraps)] // as on Linux
        pub(in crate::driver) fn set(&mut self, at: Time) -> io::Result<()> {
            if self.armed != Some(at) {
                let wait = at.since(self.clock.now());
                self.sleep = Some(Box::pin(tokio::time::sleep(wait)));
                self.armed = Some(at);
            }
            Ok(())
        }

        pub(in crate::driver) fn poll_elapsed(&mut self, cx: &mut Context<'_>) -> bool {
            let Some(sleep) = &mut self.sleep else {
                return false;
            };
            let elapsed = sleep.as_mut().poll(cx).is_ready();
            if elapsed {
                self.sleep = None;
                self.armed = None;
            }
            elapsed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use std::task::Poll;
    use std::time::Duration;

    async fn elapsed(timer: &mut Timer) {
        std::future::poll_fn(|cx| match timer.poll_elapsed(cx) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
    }

    #[tokio::test]
    async fn it_never_wakes_early_and_mostly_within_half_a_millisecond() {
        let clock = Clock::start();
        let mut timer = Timer::new(clock).expect("the system has timers");
        let mut late = Vec::new();
        for _ in 0..50 {
            let at = clock.now() + Duration::from_micros(700);
            timer.set(at).expect("set");
            elapsed(&mut timer).await;
            let now = clock.now();
            assert!(now >= at, "woken at {now:?}, set to {at:?}");
            late.push(now.since(at));
        }
        late.sort();
        // The best quarter says what the timer can do; the rest, how busy the machine is.
        assert!(
            !cfg!(target_os = "linux") || late[12] < Duration::from_micros(500),
            "{late:?}"
        );
    }

    #[tokio::test]
    async fn a_moment_in_the_past_wakes_at_once_and_a_later_setting_counts() {
        let clock = Clock::start();
        let mut timer = Timer::new(clock).expect("the system has timers");
        timer
            .set(clock.now() + Duration::from_secs(3600))
            .expect("set");
        timer.set(marline_proto::Time::ZERO).expect("set");
        elapsed(&mut timer).await;
        timer
            .set(clock.now() + Duration::from_micros(100))
            .expect("set");
        timer
            .set(clock.now() + Duration::from_secs(3600))
            .expect("set");
        let waited = tokio::time::timeout(Duration::from_millis(5), elapsed(&mut timer)).await;
        assert!(waited.is_err(), "it was set to a later moment");
    }
}

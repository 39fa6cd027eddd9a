//! When a packet of a spread flow leaves the receiver: in order at once, or at a
//! constant latency.
//!
//! A sender of TCP judges a path by its shortest round trip. When a flow begins
//! on the quickest path and slower ones join, its round trip grows in a step,
//! and what the step does to it is bad: slow start ends early (HyStart, RFC
//! 9406), and BBR keeps a window for the short round trip for ten seconds. If
//! every packet from the first one on takes as long as the slowest path of the
//! set needs, there is no step, and the flow finds the sum of the links as if it
//! were one link.
//!
//! The price is latency, and a flow that turns out short pays it for nothing. So
//! it is asked only of flows that will most likely be long, those with a remote
//! address and port whose last flows were ([`Habits`]), and of those of which nothing is
//! known where the best single path lies that far away anyhow ([`crate::span`]). All others
//! are put in order as soon as that is possible.
//!
//! The sender says with each packet how long after the lowest delay it is to be
//! released ([`Latency`]); the receiver turns that into a moment with what it knows
//! of the paths' delays. Both ends' clocks differ, but the difference cancels.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::packet::FlowKey;
use crate::time::Time;

/// A flow that carried this much was long.
pub const LONG_AFTER_BYTES: u64 = 1 << 20;
/// Remote ends that are remembered.
const REMEMBERED: usize = 1_024;
/// A remote end not seen for so long is judged anew.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3_600);
/// Flows that tell that a remote end brings short ones.
const SHORT_AFTER_FLOWS: u16 = 3;
/// Flows after which the older half of the experience counts half.
const EXPERIENCE: u16 = 16;
/// Unit of the wire's field, milliseconds.
const UNIT_MS: f64 = 2.0;
/// The latency falls no faster than this, or packets would overtake their own acknowledgements.
const FALL_MS_PER_S: f64 = 50.0;

/// The end of a flow that is not ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Remote {
    address: IpAddr,
    port: u16,
    protocol: u8,
}

impl Remote {
    /// Of a flow that we send towards it (`ours` is the source) or from it.
    pub fn of(key: &FlowKey, ours_is_source: bool) -> Self {
        let (address, port) = if ours_is_source {
            (key.destination, key.ports.1)
        } else {
            (key.source, key.ports.0)
        };
        Remote {
            address,
            port,
            protocol: key.protocol,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Habit {
    flows: u16,
    long: u16,
    seen: Time,
}

/// What a flow will probably be, by what the earlier ones with its remote end were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// At least half of them were long.
    Long,
    /// There were some, and less than a quarter was long.
    Short,
    /// There is too little to tell.
    Unknown,
}

/// What became of earlier flows, by their remote end.
#[derive(Debug, Default)]
pub struct Habits {
    by_remote: HashMap<Remote, Habit>,
}

impl Habits {
    /// A flow begins. Says what it will probably be.
    pub fn begin(&mut self, now: Time, remote: Remote) -> Expected {
        if self.by_remote.len() >= REMEMBERED && !self.by_remote.contains_key(&remote) {
            self.forget(now);
        }
        let habit = self.by_remote.entry(remote).or_insert(Habit {
            flows: 0,
            long: 0,
            seen: now,
        });
        if now.since(habit.seen) > FORGOTTEN_AFTER {
            (habit.flows, habit.long) = (0, 0);
        }
        habit.seen = now;
        let expected = if habit.long > 0 && habit.long * 2 >= habit.flows {
            Expected::Long
        } else if habit.flows >= SHORT_AFTER_FLOWS && habit.long * 4 < habit.flows {
            Expected::Short
        } else {
            Expected::Unknown
        };
        if habit.flows >= EXPERIENCE {
            habit.flows /= 2;
            habit.long /= 2;
        }
        habit.flows += 1;
        expected
    }

    /// A flow to this remote end turned out to be long.
    pub fn was_long(&mut self, remote: Remote) {
        if let Some(habit) = self.by_remote.get_mut(&remote) {
            habit.long = (habit.long + 1).min(habit.flows);
        }
    }

    /// Makes room: the half that was seen the longest ago goes.
    fn forget(&mut self, now: Time) {
        let mut ages: Vec<Duration> = self.by_remote.values().map(|h| now.since(h.seen)).collect();
        let half = ages.len() / 2;
        let (_, &mut middle, _) = ages.select_nth_unstable(half);
        self.by_remote.retain(|_, h| now.since(h.seen) < middle);
        if self.by_remote.len() >= REMEMBERED {
            self.by_remote.clear();
        }
    }
}

/// How long after the lowest delay a spread flow's packets are released.
#[derive(Debug, Default)]
pub struct Latency {
    ms: f64,
    since: Time,
}

impl Latency {
    /// Follows what the set of paths needs ([`crate::span`]): up at once, down slowly.
    pub fn update(&mut self, now: Time, wanted_ms: f64) {
        let elapsed = now.since(self.since).as_secs_f64();
        self.since = now;
        self.ms = wanted_ms.max(self.ms - FALL_MS_PER_S * elapsed);
    }

    /// Stays what it was.
    pub fn keep(&mut self, now: Time) {
        self.since = now;
    }

    /// It now.
    pub fn get(&self) -> Duration {
        Duration::from_secs_f64(self.ms / 1e3)
    }
}

/// What a packet of this latency that was first sent so long ago still has to wait, as the wire says it.
pub fn units(latency: Duration, age: Duration) -> u8 {
    let left = latency.saturating_sub(age).as_secs_f64() * 1e3;
    (left / UNIT_MS).ceil().min(254.0) as u8
}

/// When a packet is due: `units` after the lowest delay, if it took `late` longer than that.
pub fn due(now: Time, units: u8, late: Duration) -> Time {
    let wait = Duration::from_secs_f64(f64::from(units) * UNIT_MS / 1e3);
    now + wait.saturating_sub(late)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn remote(n: u32) -> Remote {
        Remote {
            address: IpAddr::V4(Ipv4Addr::from(n)),
            port: 443,
            protocol: 6,
        }
    }

    #[test]
    fn a_remote_end_whose_flows_were_long_is_expected_to_bring_another_long_one() {
        let mut habits = Habits::default();
        let now = Time::from_millis(0);
        assert_eq!(habits.begin(now, remote(1)), Expected::Unknown);
        habits.was_long(remote(1));
        assert_eq!(habits.begin(now, remote(1)), Expected::Long);
        assert_eq!(
            habits.begin(now, remote(2)),
            Expected::Unknown,
            "another one"
        );
    }

    #[test]
    fn a_remote_end_with_mostly_short_flows_is_expected_to_bring_another_short_one() {
        let mut habits = Habits::default();
        let now = Time::from_millis(0);
        for _ in 0..5 {
            habits.begin(now, remote(1));
        }
        habits.was_long(remote(1));
        assert_eq!(habits.begin(now, remote(1)), Expected::Short);
    }

    #[test]
    fn old_experience_is_forgotten_and_memory_is_bounded() {
        let mut habits = Habits::default();
        habits.begin(Time::from_millis(0), remote(0));
        habits.was_long(remote(0));
        let later = Time::from_millis(0) + FORGOTTEN_AFTER * 2;
        assert_eq!(habits.begin(later, remote(0)), Expected::Unknown);
        for n in 0..10_000 {
            habits.begin(later + Duration::from_millis(n), remote(n as u32));
            assert!(habits.by_remote.len() <= REMEMBERED);
        }
        assert!(habits.by_remote.contains_key(&remote(9_999)));
    }

    #[test]
    fn the_latency_rises_at_once_and_falls_slowly() {
        let mut latency = Latency::default();
        let mut now = Time::from_millis(1_000);
        latency.update(now, 28.0);
        assert_eq!(units(latency.get(), Duration::ZERO), 14);
        now += Duration::from_millis(20);
        latency.update(now, 4.0);
        assert_eq!(
            units(latency.get(), Duration::ZERO),
            14,
            "27 ms of 28 are left"
        );
        now += Duration::from_millis(1_000);
        latency.update(now, 4.0);
        assert_eq!(units(latency.get(), Duration::ZERO), 2);
    }

    #[test]
    fn a_packet_that_is_sent_again_is_due_when_it_was_at_first() {
        let mut latency = Latency::default();
        latency.update(Time::from_millis(1), 40.0);
        assert_eq!(units(latency.get(), Duration::ZERO), 20);
        assert_eq!(units(latency.get(), Duration::from_millis(30)), 5);
        assert_eq!(units(latency.get(), Duration::from_millis(90)), 0);
    }

    #[test]
    fn a_packet_that_took_the_slow_path_waits_no_longer() {
        let now = Time::from_millis(100);
        let at = |units, late| due(now, units, Duration::from_millis(late)).since(now);
        assert_eq!(at(10, 0), Duration::from_millis(20));
        assert_eq!(at(10, 15), Duration::from_millis(5));
        assert_eq!(at(10, 30), Duration::ZERO);
    }
}

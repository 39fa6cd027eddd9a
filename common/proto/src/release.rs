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
//! it is asked only of flows that will most likely be long: those with a remote
//! address and port whose last flows were ([`Habits`]). All others are put in order as
//! soon as that is possible.
//!
//! The sender says with each packet how long after the lowest delay it is to be
//! released ([`Latency`]); the receiver turns that into a moment with what it knows
//! of the paths' delays. Both ends' clocks differ, but the difference cancels.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::limits;
use crate::packet::FlowKey;
use crate::schedule::Order;
use crate::time::Time;

/// A flow that carried this much was long.
pub const LONG_AFTER_BYTES: u64 = 1 << 20;
/// Remote ends that are remembered.
const REMEMBERED: usize = 1_024;
/// A remote end not seen for so long is judged anew.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3_600);
/// Flows after which the older half of the experience counts half.
const EXPERIENCE: u16 = 16;
/// Unit of the wire's field, milliseconds.
const UNIT_MS: f64 = 2.0;
/// Above the spread: jitter of timers and of the standing queues.
const MARGIN_MS: f64 = 3.0;
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

/// What became of earlier flows, by their remote end.
#[derive(Debug, Default)]
pub struct Habits {
    by_remote: HashMap<Remote, Habit>,
}

impl Habits {
    /// A flow begins. Says whether it is expected to be long: at least half of the earlier ones were.
    pub fn begin(&mut self, now: Time, remote: Remote) -> bool {
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
        let expected = habit.long > 0 && habit.long * 2 >= habit.flows;
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
    /// Follows the paths that bulk may use: up at once, down slowly. `repair` is
    /// how long the repair of a loss takes, if losses are to be expected.
    pub fn update(&mut self, now: Time, order: &Order, repair: Option<Duration>) {
        let elapsed = now.since(self.since).as_secs_f64();
        self.since = now;
        let wide = &order.usable[..order.wide];
        let delays = || wide.iter().map(|v| v.delay_ms);
        let (low, high) = (
            delays().fold(f64::INFINITY, f64::min),
            delays().fold(0.0, f64::max),
        );
        let spread = (high - low).max(0.0);
        let wanted = if wide.len() < 2 {
            0.0
        } else {
            spread + MARGIN_MS + repair.map_or(0.0, |r| r.as_secs_f64() * 1e3)
        };
        let cap = limits::HOLD_MAX.as_secs_f64() * 1e3;
        self.ms = wanted.max(self.ms - FALL_MS_PER_S * elapsed).min(cap);
    }

    /// What a packet that was first sent so long ago still has to wait, as the wire says it.
    pub fn units(&self, age: Duration) -> u8 {
        let left = self.ms - age.as_secs_f64() * 1e3;
        (left / UNIT_MS).ceil().clamp(0.0, 254.0) as u8
    }
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
    use crate::config::Role;
    use crate::schedule::PathView;

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
        assert!(!habits.begin(now, remote(1)), "nothing is known");
        habits.was_long(remote(1));
        assert!(habits.begin(now, remote(1)));
        assert!(!habits.begin(now, remote(2)), "another one is not");
    }

    #[test]
    fn a_remote_end_with_mostly_short_flows_is_not_expected_to_bring_a_long_one() {
        let mut habits = Habits::default();
        let now = Time::from_millis(0);
        for _ in 0..4 {
            habits.begin(now, remote(1));
        }
        habits.was_long(remote(1));
        assert!(!habits.begin(now, remote(1)));
    }

    #[test]
    fn old_experience_is_forgotten_and_memory_is_bounded() {
        let mut habits = Habits::default();
        habits.begin(Time::from_millis(0), remote(0));
        habits.was_long(remote(0));
        let later = Time::from_millis(0) + FORGOTTEN_AFTER * 2;
        assert!(!habits.begin(later, remote(0)));
        for n in 0..10_000 {
            habits.begin(later + Duration::from_millis(n), remote(n as u32));
            assert!(habits.by_remote.len() <= REMEMBERED);
        }
        assert!(habits.by_remote.contains_key(&remote(9_999)));
    }

    fn order(delays: &[f64]) -> Order {
        let view = |(index, &delay_ms): (usize, &f64)| PathView {
            index,
            role: Role::Always,
            active: true,
            base_ms: delay_ms,
            delay_ms,
            capacity: 1e6,
            on_trial: false,
            on_probation: false,
            has_room: false,
            ready_in: Duration::ZERO,
            full: false,
        };
        Order {
            usable: delays.iter().enumerate().map(view).collect(),
            wide: delays.len(),
            ..Order::default()
        }
    }

    #[test]
    fn the_latency_covers_the_spread_and_falls_slowly() {
        let mut latency = Latency::default();
        let mut now = Time::from_millis(1_000);
        latency.update(now, &order(&[10.0, 35.0]), None);
        assert_eq!(latency.units(Duration::ZERO), 14);
        now += Duration::from_millis(20);
        latency.update(now, &order(&[10.0, 11.0]), None);
        assert_eq!(latency.units(Duration::ZERO), 14, "27 ms of 28 are left");
        now += Duration::from_millis(1_000);
        latency.update(now, &order(&[10.0, 11.0]), None);
        assert_eq!(latency.units(Duration::ZERO), 2);
    }

    #[test]
    fn a_lone_path_asks_for_no_latency() {
        let mut latency = Latency::default();
        latency.update(Time::from_millis(1), &order(&[10.0]), None);
        assert_eq!(latency.units(Duration::ZERO), 0);
    }

    #[test]
    fn a_packet_that_is_sent_again_is_due_when_it_was_at_first() {
        let mut latency = Latency::default();
        latency.update(Time::from_millis(1), &order(&[0.0, 37.0]), None);
        assert_eq!(latency.units(Duration::ZERO), 20);
        assert_eq!(latency.units(Duration::from_millis(30)), 5);
        assert_eq!(latency.units(Duration::from_millis(90)), 0);
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

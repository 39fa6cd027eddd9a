//! When a path may send next, and whether it is used.
//!
//! Each datagram moves the next moment on by its length at the present pace. A
//! little credit may be saved up; time beyond that is time in which the path
//! could have sent and nobody had anything for it. The share of such time tells
//! a link that had room from one that was not asked: only when the pace was
//! used do deliveries say anything about the link.
//!
//! What does not wait for the pacer (calls, copies) is charged to it all the same, and puts it in
//! debt: bulk makes room until the link is through with it. What is known to have arrived occupies the
//! link no longer, so the debt is never more than what is under way. Else a path of which too little was
//! believed when it was given copies would pay for them long after they arrived, with nothing under way, and
//! nothing that could correct the belief.

use std::time::Duration;

use crate::time::Time;

/// Credit that a path may save up, for a late driver and for the bursts in which
/// flows arrive. With less, every burst spills over to slower paths and makes
/// its flow wait for them, which an inner BBR takes for a slower network.
const CREDIT: Duration = Duration::from_millis(3);
/// Above this share of idle time the path is not in use to its pace.
const IDLE_MAX: f64 = 0.2;
/// Over how long that share is taken: a train and its pause weigh little.
const WINDOW: Duration = Duration::from_millis(20);
/// The same for a judgement that is to last: several round trips.
const LONG_WINDOW: Duration = Duration::from_millis(200);
/// Above this share a path had room all the time.
const ROOM_MIN: f64 = 0.1;

/// The pacer of one path.
#[derive(Debug)]
pub struct Pacer {
    next_send: Time,
    last: Time,
    idle_share: f64,
    idle_of_late: f64,
    full: bool,
    was_full: bool,
}

impl Pacer {
    /// Free to send, and idle so far.
    pub fn new(now: Time) -> Self {
        Pacer {
            next_send: now,
            last: now,
            idle_share: 1.0,
            idle_of_late: 1.0,
            full: false,
            was_full: false,
        }
    }

    /// When it may send.
    pub fn next_send(&self) -> Time {
        self.next_send
    }

    /// Notes whether the flight is full, so that only an acknowledgement makes room.
    pub fn set_full(&mut self, full: bool) {
        self.full = full;
        self.was_full |= full;
    }

    /// Whether the flight was full when it was last looked at.
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// Whether less was asked of the path than its pace allows.
    pub fn is_idle(&self) -> bool {
        self.idle_share > IDLE_MAX
    }

    /// Whether it could have carried more over the last round trips.
    pub fn has_room(&self) -> bool {
        self.idle_of_late > ROOM_MIN
    }

    /// No more than `under_way` bytes have not arrived: what was sent before them holds up nothing any more. The last
    /// datagram, of `packet` at most, keeps its time all the same, or acknowledgements would set the pace.
    pub fn arrived(&mut self, now: Time, under_way: u64, packet: Duration, pace: f64) {
        let owed = Duration::from_secs_f64(under_way as f64 / pace.max(1.0));
        self.next_send = self.next_send.min(now + owed.max(packet));
    }

    /// A datagram of `len` bytes leaves at `pace` bytes per second.
    pub fn charge(&mut self, now: Time, len: usize, pace: f64) {
        let earliest = now - CREDIT;
        let passed = now.since(self.last).as_secs_f64();
        if passed > 0.0 {
            // Waiting for acknowledgements is not idleness.
            let idle = if self.was_full {
                0.0
            } else {
                (earliest.since(self.next_send).as_secs_f64() / passed).min(1.0)
            };
            let weight = |window: Duration| (passed / window.as_secs_f64()).min(1.0);
            self.idle_share += (idle - self.idle_share) * weight(WINDOW);
            self.idle_of_late += (idle - self.idle_of_late) * weight(LONG_WINDOW);
            self.last = now;
            self.was_full = self.full;
        }
        // To the nanosecond; what std does for any number of seconds takes many times as long.
        let nanoseconds = (len as f64 / pace * 1e9 + 0.5) as u64;
        self.next_send = self.next_send.max(earliest) + Duration::from_nanos(nanoseconds);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends for a second at a share of 100 datagrams of 1,000 bytes.
    fn send(share: f64, full: bool) -> Pacer {
        let mut pacer = Pacer::new(Time::ZERO);
        for i in 0..100 {
            let now = Time::ZERO + Duration::from_secs_f64(f64::from(i) * 0.01 / share);
            pacer.set_full(full);
            pacer.charge(now, 1_000, 100_000.0);
        }
        pacer
    }

    #[test]
    fn a_path_is_idle_when_less_is_asked_of_it_than_its_pace() {
        assert!(!send(1.0, false).is_idle());
        assert!(!send(0.9, false).is_idle());
        assert!(send(0.7, false).is_idle());
    }

    #[test]
    fn waiting_for_acknowledgements_is_not_idleness() {
        assert!(!send(0.5, true).is_idle());
    }

    #[test]
    fn what_has_arrived_is_owed_no_longer() {
        let packet = Duration::from_millis(15);
        let next_ms = |under_way| {
            let mut pacer = Pacer::new(Time::ZERO);
            (0..100).for_each(|_| pacer.charge(Time::ZERO, 1_000, 100_000.0));
            pacer.arrived(Time::from_millis(100), under_way, packet, 100_000.0);
            pacer.next_send().since(Time::ZERO).as_millis()
        };
        assert_eq!(next_ms(100_000), 1_000, "what is under way is owed");
        assert_eq!(next_ms(20_000), 300);
        assert_eq!(next_ms(0), 115, "the pace is kept");
    }

    #[test]
    fn credit_is_bounded() {
        let mut pacer = Pacer::new(Time::ZERO);
        let now = Time::from_millis(1_000);
        pacer.charge(now, 1_000, 100_000.0);
        assert_eq!(pacer.next_send(), Time::from_millis(1_007));
    }
}

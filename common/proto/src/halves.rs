//! A packet that is too large for its path travels as two datagrams.
//!
//! One uplink with a small MTU must not make the packets of all others small, and nothing is ever fragmented by IP: a
//! NAT box may drop fragments, and the loss of one costs all. So a data frame that does not fit is cut in the middle,
//! and each **half** is a frame of its own: sealed, numbered and acknowledged like any other. The halves are equal, for
//! then they pass wherever half a packet passes, and leave as one train.
//!
//! Both are sealed one directly after the other, so the second has the number that follows the first's. That is all
//! that names a pair: nothing can be mixed up, and the session's replay window bounds how long one can wait for the
//! other. When a half is lost, the packet is sent again like any other lost packet, as a whole where it fits.
//!
//! Why two and not more: base (1,200 bytes) holds half of the largest packet on any path, and each further piece would
//! double again what a lost datagram costs.

use std::collections::VecDeque;
use std::time::Duration;

use crate::buffer::{PacketBuf, Pool};
use crate::frame::{self, COMMON_LEN, HALF_AT};
use crate::limits;
use crate::session::{Number, OVERHEAD};
use crate::time::Time;

/// A half whose other has not come by now is not waited for: its packet was sent again long ago.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// Bytes of the larger datagram when one of `len` bytes is cut.
pub fn datagram_len(len: usize) -> usize {
    let rest = len.saturating_sub(COMMON_LEN + OVERHEAD);
    rest.div_ceil(2) + HALF_AT + OVERHEAD
}

/// Writes one half of a data frame. Both together carry what follows the common header.
pub fn cut(whole: &[u8], second: bool, out: &mut Vec<u8>) {
    let (common, rest) = whole.split_at(COMMON_LEN);
    let (front, back) = rest.split_at(rest.len().div_ceil(2));
    out.clear();
    out.extend_from_slice(common);
    out.push(u8::from(second));
    out.extend_from_slice(if second { back } else { front });
    frame::mark_half(out);
}

#[derive(Debug)]
struct Waiting {
    /// The number of the pair's first half.
    pair: Number,
    second: bool,
    since: Time,
    frame: PacketBuf,
    len: usize,
}

/// Halves whose other half has not come yet.
#[derive(Debug, Default)]
pub struct Joiner {
    waiting: VecDeque<Waiting>,
    /// Packets that were made whole again.
    pub joined: u64,
    /// Halves that were given up.
    pub given_up: u64,
}

impl Joiner {
    /// Takes in a half of `len` bytes, opened into a buffer. When it is the pair's later one, the data frame as it was
    /// before it was cut, and its length.
    pub fn take(
        &mut self,
        now: Time,
        number: Number,
        second: bool,
        (frame, len): (PacketBuf, usize),
        pool: &mut Pool,
    ) -> Option<(PacketBuf, usize)> {
        self.make_room(now, pool);
        let Some(counter) = number.counter.checked_sub(u64::from(second)) else {
            self.given_up += 1;
            pool.put(frame);
            return None;
        };
        let pair = Number { counter, ..number };
        let other = |w: &Waiting| w.pair == pair && w.second != second;
        // Mostly the other came just before.
        let Some(at) = self.waiting.iter().rposition(other) else {
            self.waiting.push_back(Waiting {
                pair,
                second,
                since: now,
                frame,
                len,
            });
            return None;
        };
        let other = self.waiting.remove(at)?;
        let (mut first, second) = if second {
            ((other.frame, other.len), (frame, len))
        } else {
            ((frame, len), (other.frame, other.len))
        };
        let joined = join(&mut first, second, pool);
        if joined.is_none() {
            self.given_up += 2;
            pool.put(first.0);
            return None;
        }
        self.joined += 1;
        Some((first.0, joined?))
    }

    fn make_room(&mut self, now: Time, pool: &mut Pool) {
        while let Some(oldest) = self.waiting.front() {
            let late = now.since(oldest.since) > WAIT_MAX;
            if !late && self.waiting.len() < limits::HALVES {
                return;
            }
            if let Some(oldest) = self.waiting.pop_front() {
                pool.put(oldest.frame);
                self.given_up += 1;
            }
        }
    }

    /// The other side forgot everything.
    pub fn restart(&mut self, pool: &mut Pool) {
        while let Some(waiting) = self.waiting.pop_front() {
            pool.put(waiting.frame);
        }
    }
}

/// Puts the second half behind the first. The length of the whole; `None` when they do not belong together.
fn join(
    first: &mut (PacketBuf, usize),
    (mut second, second_len): (PacketBuf, usize),
    pool: &mut Pool,
) -> Option<usize> {
    let (front, back) = (first.0.frame_room(), second.frame_room());
    let len = first.1 - (HALF_AT - COMMON_LEN) + second_len - HALF_AT;
    // Everything but type and length is the same in both.
    let same = front[1] == back[1] && front[4..COMMON_LEN] == back[4..COMMON_LEN];
    let fits = same && len <= front.len();
    if fits {
        front.copy_within(HALF_AT..first.1, COMMON_LEN);
        front[len + HALF_AT - second_len..len].copy_from_slice(&back[HALF_AT..second_len]);
        frame::mark_whole(&mut front[..len]);
    }
    pool.put(second);
    fits.then_some(len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classify::Class;
    use crate::frame::{DataHeader, Frame};

    const HEADER: DataHeader = DataHeader {
        more: true,
        duplicate: false,
        retransmitted: false,
        ordered: true,
        class: Class::Bulk,
        flow: 7,
        seq: 9,
        release: 3,
        opens: None,
        begun: false,
    };

    fn whole(len: usize) -> Vec<u8> {
        let inner: Vec<u8> = (0..len).map(|i| i as u8).collect();
        let mut out = Vec::new();
        frame::encode(&Frame::Data(HEADER, &inner), 500, &mut out);
        out
    }

    fn half(whole: &[u8], second: bool) -> (PacketBuf, usize) {
        let mut bytes = Vec::new();
        cut(whole, second, &mut bytes);
        let mut buf = PacketBuf::new();
        buf.frame_room()[..bytes.len()].copy_from_slice(&bytes);
        (buf, bytes.len())
    }

    fn number(counter: u64) -> Number {
        Number {
            session: 0x700,
            counter,
        }
    }

    #[test]
    fn what_was_cut_is_whole_again_in_either_order() {
        let mut pool = Pool::default();
        for len in [600, 601, 1_399, 1_400] {
            let whole = whole(len);
            for order in [[false, true], [true, false]] {
                let mut joiner = Joiner::default();
                let mut out = None;
                for second in order {
                    let half = half(&whole, second);
                    assert!(half.1 + OVERHEAD <= datagram_len(whole.len() + OVERHEAD));
                    let at = number(40 + u64::from(second));
                    out = joiner.take(Time::ZERO, at, second, half, &mut pool);
                }
                let (mut buf, len) = out.expect("both came");
                assert_eq!(buf.frame_room()[..len], whole);
            }
        }
    }

    #[test]
    fn halves_of_different_packets_never_meet() {
        let mut pool = Pool::default();
        let mut joiner = Joiner::default();
        let whole = whole(1_400);
        for at in [10, 20, 30] {
            let half = half(&whole, false);
            assert!(
                joiner
                    .take(Time::ZERO, number(at), false, half, &mut pool)
                    .is_none()
            );
        }
        let stranger = half(&whole, true);
        assert!(
            joiner
                .take(Time::ZERO, number(12), true, stranger, &mut pool)
                .is_none()
        );
        assert!(
            joiner
                .take(Time::ZERO, number(21), true, half(&whole, true), &mut pool)
                .is_some()
        );
    }

    #[test]
    fn what_waits_is_bounded_in_count_and_time() {
        let mut pool = Pool::default();
        let mut joiner = Joiner::default();
        let whole = whole(1_400);
        for n in 0..2_000 {
            joiner.take(
                Time::ZERO,
                number(n * 2),
                false,
                half(&whole, false),
                &mut pool,
            );
        }
        assert_eq!(joiner.waiting.len(), limits::HALVES);
        let later = Time::ZERO + WAIT_MAX + Duration::from_millis(1);
        joiner.take(later, number(9_000), false, half(&whole, false), &mut pool);
        assert_eq!(joiner.waiting.len(), 1);
        assert_eq!(joiner.given_up, 2_000);
    }

    /// The layout as `docs/protocol.md` gives it.
    #[test]
    fn a_half_has_the_documented_bytes() {
        let header = DataHeader {
            flow: 0x0102,
            seq: 0x0003_0405,
            release: 6,
            ..HEADER
        };
        let mut whole = Vec::new();
        let inner = [0xe0, 0xe1, 0xe2, 0xe3, 0xe4, 0xe5, 0xe6];
        frame::encode(&Frame::Data(header, &inner), 0x000a_0b0c, &mut whole);
        let mut out = Vec::new();
        cut(&whole, false, &mut out);
        assert_eq!(
            out,
            [
                0x44, 0x29, 0, 21, 0x0a, 0x0b, 0x0c, 1, 2, 3, 4, 5, 0, 6, 0, 0, 0, 0, 0, 0, 0
            ]
        );
        cut(&whole, true, &mut out);
        assert_eq!(
            out,
            [
                0x44, 0x29, 0, 20, 0x0a, 0x0b, 0x0c, 1, 2, 3, 4, 5, 1, 0xe0, 0xe1, 0xe2, 0xe3,
                0xe4, 0xe5, 0xe6
            ]
        );
    }
}

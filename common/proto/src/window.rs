//! The window that a receiver lends, lowered in passing: a TCP sender slows down and loses nothing.
//!
//! A queue that stands has to be taken back by its sender. Told by a drop, it sends a packet again, and everything behind
//! that packet waits for a round trip; where the queue is longer than a round trip the repair either waits in it as well or
//! overtakes it, and then the sender takes all that was overtaken for lost (RACK, RFC 8985) and sends it again for nothing.
//! A sender that understands ECN is marked; most have not negotiated it.
//!
//! There is one more word that every TCP understands at once: the receiver's window. Acknowledgements pass the end where
//! the queue is, so their window can be lowered there, as virtual switches do for their guests (AC/DC TCP, SIGCOMM
//! 2016; explicit window adaptation, Kalampoukas et al., 2002). What the sender may have on its way ends a little behind
//! the first byte that still waits:
//!
//! ```text
//!   acknowledged        on its way           waits here      edge
//!   ─────────────┼────────────────────────┼──────────────┼──────▶ sequence numbers
//!                │◀──────────── lowered window ──────────▶│
//!                                         │◀─── a queue ─▶│ of at most the target
//! ```
//!
//! So the queue is drained to its target within the time that it is long, and then stands there: room for the sender grows
//! as the paths carry more, by the target's worth per round trip. For that the target is half a round trip at least, which is
//! measured between what leaves and what acknowledges it: a BBR takes a link for full that gives it less than a quarter more
//! per round trip. The sender's congestion window is not touched, and where the paths carry more again it has all of it.
//!
//! It begins where [`crate::codel`] would drop, in place of the drop, and ends when the queue is gone. Windows count in units
//! that both ends named in their SYN (RFC 7323), so it takes a flow whose beginning was seen, and whose acknowledgements
//! come this way; what is signed (RFC 2385, RFC 5925) is left alone. A sender that does not heed it loses packets, as
//! ever. So does one that would be left less than four segments in the queue: where many share a thin uplink, windows that small
//! would decide who gets how much, and no longer the turns of the queue. A window is only ever lowered; where the same byte
//! is acknowledged again, the same window is told, or a sender would not take it for a duplicate (RFC 5681). MPTCP's
//! windows count what all subflows carry, so they are left alone as well.

use std::time::Duration;

use crate::buffer::PacketBuf;
use crate::mss;
use crate::time::Time;

/// The smallest window that is told, and the smallest queue that a sender may be left, bytes. Four segments are enough for
/// an acknowledgement of every other one to come back.
const LEAST: u32 = 4 * 1_514;
/// How long a sender may take to heed a window: to drain what was sent before, and a round trip.
const HEEDS_WITHIN: Duration = Duration::from_secs(1);
/// A sender whose queue was nearly gone for this long is held back by something else.
const FREE_AFTER: Duration = Duration::from_millis(100);
/// What leaves the queue is counted over this long at least: many packets, and quicker than a bond's paths change for good.
const RATE_OVER: Duration = Duration::from_millis(50);
/// The most of so many such counts is what the paths carry: a sender may pause for longer than one.
const RATES: usize = 4;
/// Largest shift of a window (RFC 7323, section 2.3).
const SHIFT_MAX: u8 = 14;

/// What a SYN says of windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Syn {
    /// It answers another.
    pub answer: bool,
    /// How far its sender's windows are shifted, if it offers that.
    pub shift: Option<u8>,
    /// The connection's windows are not to be touched: its headers are signed, or it is part of an MPTCP one.
    pub is_fixed: bool,
}

impl Syn {
    /// Reads a SYN's options. `answer`: it acknowledges another. By hand, as etherparse's iterator ends at a kind that it does
    /// not know, and signatures and MPTCP are of such kinds.
    pub fn read(answer: bool, options: &[u8]) -> Syn {
        const END: u8 = 0;
        const NOTHING: u8 = 1;
        const SHIFT: u8 = 3;
        const MD5: u8 = 19;
        const AUTHENTICATION: u8 = 29;
        const MULTIPATH: u8 = 30;
        let mut syn = Syn {
            answer,
            shift: None,
            is_fixed: false,
        };
        let mut rest = options;
        while let Some((&kind, behind)) = rest.split_first() {
            if kind == END {
                break;
            }
            if kind == NOTHING {
                rest = behind;
                continue;
            }
            let len = behind.first().map_or(0, |&len| usize::from(len));
            let Some(option) = rest.get(..len).filter(|_| len >= 2) else {
                break;
            };
            match kind {
                SHIFT if len == 3 => syn.shift = Some(option[2].min(SHIFT_MAX)),
                MD5 | AUTHENTICATION | MULTIPATH => syn.is_fixed = true,
                _ => {}
            }
            rest = &rest[len..];
        }
        syn
    }
}

/// The window of one flow's receiver, as far as it is lowered here.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lent {
    sender: Option<Syn>,
    receiver: Option<Syn>,
    /// Since when it is lowered.
    since: Option<Time>,
    /// When its sender was last told.
    told: Option<Time>,
    /// When the queue last stood.
    stood: Time,
    /// When it last was not much longer than it may be.
    heeded: Time,
    /// How long the queue may stand.
    target: Duration,
    left: Outflow,
    /// A packet that left and is not acknowledged: the end of it, and when.
    timed: Option<(u32, Time)>,
    /// From leaving the queue until the acknowledgement.
    round_trip: Option<Duration>,
    /// What was acknowledged last, and the window told with it.
    told_with: Option<(u32, u16)>,
}

/// A packet that leaves the queue.
#[derive(Clone, Copy, Debug)]
pub struct Left {
    /// Its length.
    pub bytes: usize,
    /// [`crate::flow::Queued::stream_end`].
    pub end: u32,
}

/// How fast packets leave a queue.
#[derive(Clone, Copy, Debug, Default)]
struct Outflow {
    since: Time,
    bytes: u64,
    /// Bytes per second, the latest first.
    rates: [f64; RATES],
}

impl Outflow {
    fn note(&mut self, now: Time, bytes: usize) {
        let span = now.since(self.since);
        if span >= RATE_OVER {
            self.rates.rotate_right(1);
            self.rates[0] = self.bytes as f64 / span.as_secs_f64();
            self.since = now;
            self.bytes = 0;
        }
        self.bytes += bytes as u64;
    }

    fn rate(&self) -> f64 {
        self.rates.into_iter().fold(0.0, f64::max)
    }
}

impl Lent {
    /// A connection begins: a SYN of the sender of data passed, and perhaps the receiver's before.
    pub fn begin(sender: Syn, receiver: Option<Syn>) -> Lent {
        Lent {
            sender: Some(sender),
            receiver,
            ..Lent::default()
        }
    }

    /// The receiver of data answered the sender's SYN.
    pub fn note_answer(&mut self, receiver: Syn) {
        self.receiver.get_or_insert(receiver);
    }

    /// Whether it counts as this SYN of the receiver says.
    pub fn is_of(&self, receiver: Syn) -> bool {
        self.receiver == Some(receiver)
    }

    /// How far the receiver's windows are shifted, once that is agreed.
    fn shift(&self) -> Option<u8> {
        let (sender, receiver) = (self.sender?, self.receiver?);
        if sender.is_fixed || receiver.is_fixed {
            return None;
        }
        // One that does not offer it gets none (RFC 7323, section 2.2).
        Some(sender.shift.and(receiver.shift).unwrap_or(0))
    }

    /// A packet leaves the queue, in which the next may stand for `target`.
    pub fn note_left(&mut self, now: Time, left: Left, sojourn: Duration, target: Duration) {
        self.left.note(now, left.bytes);
        if now.since(self.stood) >= HEEDS_WITHIN {
            self.since = None;
        }
        if self.since.is_none() {
            return;
        }
        self.timed.get_or_insert((left.end, now));
        self.target = target;
        if sojourn < self.may_stand() * 2 {
            self.heeded = now;
        }
        if sojourn >= target / 4 {
            self.stood = now;
        } else if !self.is_lowered(now) {
            self.since = None;
        }
    }

    /// How long the queue is left while the window is lowered.
    fn may_stand(&self) -> Duration {
        // A little less than what counts as too long, so that it does not exceed that by a little all the time.
        let target = self.target.mul_f64(0.9);
        target.max(self.round_trip.unwrap_or_default() / 2)
    }

    /// Bytes that the queue is left, unless that is so little that the window would decide what the sender gets.
    fn may_wait(&self) -> Option<u32> {
        let bytes = (self.left.rate() * self.may_stand().as_secs_f64()) as u32;
        (bytes >= LEAST).then_some(bytes)
    }

    /// The queue stood for too long. Whether its sender is told so by a lower window, so that it need not lose a packet.
    pub fn lower(&mut self, now: Time, target: Duration) -> bool {
        if self.since.is_none() {
            self.target = target;
        }
        if self.shift().is_none() || self.may_wait().is_none() {
            return false;
        }
        let Some(since) = self.since else {
            self.since = Some(now);
            (self.stood, self.heeded) = (now, now);
            (self.told, self.timed, self.round_trip) = (None, None, None);
            self.told_with = None;
            return true;
        };
        let told = self.told.unwrap_or(since);
        now.since(told.min(self.heeded)) < HEEDS_WITHIN
    }

    /// Whether acknowledgements are to be told a lower window.
    pub fn is_lowered(&self, now: Time) -> bool {
        self.since.is_some() && now.since(self.stood) < FREE_AFTER
    }

    /// Lowers the window of an acknowledgement on its way to the sender, so that it has no more than the target's worth
    /// behind `left`, the sequence number up to which everything left the queue, where the first has waited for `waits`.
    /// Whether there was anything to lower.
    pub fn tell(&mut self, now: Time, packet: &mut PacketBuf, left: u32, waits: Duration) -> bool {
        let (Some(_), Some(shift)) = (self.since, self.shift()) else {
            return false;
        };
        let Some(answer) = Answer::read(packet.bytes()) else {
            return false;
        };
        if let Some((end, then)) = self.timed
            && (answer.acknowledged.wrapping_sub(end) as i32) >= 0
        {
            self.round_trip = Some(now.since(then).min(HEEDS_WITHIN));
            self.timed = None;
        }
        if waits >= self.target / 4 {
            self.stood = now;
        }
        if self.round_trip.is_none() || !self.is_lowered(now) {
            return false;
        }
        let Some(window) = self
            .may_wait()
            .and_then(|queue| answer.window_to(left.wrapping_add(queue), shift))
        else {
            return false;
        };
        self.told = Some(now);
        let again = self.told_with.filter(|told| told.0 == answer.acknowledged);
        let window = again.map_or(window, |told| told.1);
        self.told_with = Some((answer.acknowledged, window));
        answer.lower(packet, window)
    }
}

/// A segment that acknowledges something.
struct Answer {
    /// Where its TCP header begins.
    tcp: usize,
    acknowledged: u32,
    window: u16,
}

impl Answer {
    const WINDOW: usize = 14;
    const CHECKSUM: usize = 16;

    fn read(packet: &[u8]) -> Option<Answer> {
        const ACK: u8 = 0x10;
        const SYN_OR_RESET: u8 = 0x06;
        let (tcp, _) = mss::tcp_at(packet)?;
        let header = packet.get(tcp..tcp + 20)?;
        let acknowledges = header[13] & ACK != 0 && header[13] & SYN_OR_RESET == 0;
        acknowledges.then(|| Answer {
            tcp,
            acknowledged: u32::from_be_bytes([header[8], header[9], header[10], header[11]]),
            window: u16::from_be_bytes([header[Self::WINDOW], header[Self::WINDOW + 1]]),
        })
    }

    /// The window that ends at `edge`. None if it acknowledges more than was ever sent here.
    fn window_to(&self, edge: u32, shift: u8) -> Option<u16> {
        let room = edge.wrapping_sub(self.acknowledged);
        let units = room.max(LEAST).div_ceil(1 << shift);
        (room <= i32::MAX as u32).then(|| u16::try_from(units).unwrap_or(u16::MAX))
    }

    /// Lowers its window. Whether it was not as low already.
    fn lower(&self, packet: &mut PacketBuf, window: u16) -> bool {
        if window >= self.window {
            return false;
        }
        let at = self.tcp + Self::WINDOW;
        if packet.is_begun() {
            // Its checksum covers the addresses alone so far.
            packet.bytes_mut()[at..at + 2].copy_from_slice(&window.to_be_bytes());
        } else {
            let sum = self.tcp + Self::CHECKSUM;
            mss::replace_word(packet.bytes_mut(), sum, at, window);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;
    use crate::checksum;

    const SHIFT: u8 = 7;
    const TARGET: Duration = Duration::from_millis(30);
    const LEFT: u32 = 5_000_000;
    const LEAVES: Left = Left {
        bytes: 1_250,
        end: 1_000,
    };

    fn syn(answer: bool, shift: Option<u8>) -> Syn {
        Syn {
            answer,
            shift,
            is_fixed: false,
        }
    }

    fn ms(ms: u64) -> Time {
        Time::from_millis(ms)
    }

    /// 10 Mbit/s leave the queue from 0 to 200 ms, by when it was lowered and a round trip of 40 ms was seen.
    fn lowered(sender: Syn, receiver: Syn) -> Lent {
        let mut lent = Lent::begin(sender, Some(receiver));
        for at in 0..200 {
            lent.note_left(ms(at), LEAVES, TARGET, TARGET);
            if at == 100 {
                lent.lower(ms(at), TARGET);
            }
        }
        lent.tell(
            ms(141),
            &mut answer(1_000, 64_000, true),
            LEFT,
            Duration::ZERO,
        );
        // That is not one of a duplicate.
        lent.told_with = None;
        lent
    }

    fn usual() -> Lent {
        lowered(syn(false, Some(SHIFT)), syn(true, Some(SHIFT)))
    }

    fn answer(acknowledged: u32, window: u16, v4: bool) -> PacketBuf {
        let mut bytes = Vec::new();
        let tcp = if v4 {
            PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).tcp(80, 1_000, 7, window)
        } else {
            PacketBuilder::ipv6([1; 16], [2; 16], 64).tcp(80, 1_000, 7, window)
        };
        tcp.ack(acknowledged).write(&mut bytes, b"x").unwrap();
        PacketBuf::copy_of(&bytes)
    }

    fn window(packet: &PacketBuf) -> u32 {
        u32::from(
            Answer::read(packet.bytes())
                .expect("it acknowledges")
                .window,
        )
    }

    #[test]
    fn a_window_ends_a_queue_behind_what_left_and_the_checksum_stays_right() {
        for v4 in [true, false] {
            let mut packet = answer(LEFT - 100_000, 64_000, v4);
            assert!(usual().tell(ms(200), &mut packet, LEFT, Duration::ZERO));
            // 100 kB are on their way; nine tenths of 30 ms at 10 Mbit/s may wait.
            let granted = window(&packet) << SHIFT;
            assert!((132_000..136_000).contains(&granted), "{granted}");
            let mended = packet.bytes().to_vec();
            let mut whole = answer(LEFT - 100_000, window(&packet) as u16, v4);
            whole.complete();
            assert_eq!(mended, whole.bytes());
        }
    }

    #[test]
    fn a_begun_checksum_stays_begun() {
        let mut packet = answer(LEFT, 64_000, true);
        let begun = checksum::begun(&packet.bytes()[..20], true, 6, 21);
        packet.bytes_mut()[36..38].copy_from_slice(&begun.to_be_bytes());
        packet.set_begun();
        assert!(usual().tell(ms(200), &mut packet, LEFT, Duration::ZERO));
        packet.complete();
        let whole = answer(LEFT, window(&packet) as u16, true);
        assert_eq!(packet.bytes(), whole.bytes());
    }

    #[test]
    fn a_window_is_never_raised() {
        let mut small = answer(LEFT - 100_000, 1_000, true);
        assert!(!usual().tell(ms(200), &mut small, LEFT, Duration::ZERO));
        assert_eq!(window(&small), 1_000);
    }

    #[test]
    fn windows_count_as_both_ends_agreed() {
        let granted = |sender, receiver| {
            let mut packet = answer(LEFT, 64_000, true);
            let told = lowered(syn(false, sender), syn(true, receiver)).tell(
                ms(200),
                &mut packet,
                LEFT,
                Duration::ZERO,
            );
            told.then(|| window(&packet))
        };
        let scaled = granted(Some(2), Some(SHIFT)).unwrap();
        let unscaled = granted(None, Some(SHIFT)).unwrap();
        assert_eq!(scaled, unscaled.div_ceil(1 << SHIFT));
        assert_eq!(granted(Some(2), None), Some(unscaled));
    }

    #[test]
    fn what_is_fixed_or_whose_beginning_was_not_seen_is_left_alone() {
        let signed = Syn {
            is_fixed: true,
            ..syn(true, Some(SHIFT))
        };
        for mut lent in [
            lowered(syn(false, Some(SHIFT)), signed),
            Lent::begin(syn(false, Some(SHIFT)), None),
            Lent::default(),
        ] {
            assert!(!lent.lower(ms(200), TARGET), "it loses a packet");
            let mut packet = answer(LEFT, 64_000, true);
            assert!(!lent.tell(ms(200), &mut packet, LEFT, Duration::ZERO));
        }
    }

    #[test]
    fn a_sender_that_does_not_heed_its_window_loses_packets_after_a_second() {
        let mut lent = usual();
        let mut dropped = None;
        for at in 200..3_000 {
            lent.note_left(ms(at), LEAVES, TARGET * 4, TARGET);
            lent.tell(
                ms(at),
                &mut answer(LEFT, 64_000, true),
                LEFT,
                Duration::ZERO,
            );
            if !lent.lower(ms(at), TARGET) {
                dropped.get_or_insert(at);
            }
        }
        assert!((1_190..1_210).contains(&dropped.unwrap()), "{dropped:?}");
        let heeds = |at| {
            let mut lent = usual();
            lent.note_left(ms(at), LEAVES, TARGET, TARGET);
            lent.tell(
                ms(at),
                &mut answer(LEFT, 64_000, true),
                LEFT,
                Duration::ZERO,
            );
            lent.lower(ms(at), TARGET)
        };
        assert!((200..300).all(heeds));
    }

    #[test]
    fn a_sender_that_would_be_left_less_than_four_segments_loses_packets() {
        let mut lent = usual();
        lent.left = Outflow::default();
        assert!(!lent.lower(ms(200), TARGET));
        let mut packet = answer(LEFT, 64_000, true);
        assert!(!lent.tell(ms(200), &mut packet, LEFT, TARGET));
    }

    #[test]
    fn duplicates_are_told_the_same_window() {
        let mut lent = usual();
        let mut told = |acknowledged, left| {
            let mut packet = answer(acknowledged, 64_000, true);
            assert!(lent.tell(ms(200), &mut packet, left, TARGET));
            window(&packet)
        };
        let first = told(LEFT - 9_000, LEFT);
        assert_eq!(told(LEFT - 9_000, LEFT + 40_000), first);
        assert!(told(LEFT - 8_000, LEFT + 40_000) > first);
    }

    #[test]
    fn who_paused_is_not_held_back_by_what_was_before() {
        let mut lent = usual();
        let at = ms(200) + HEEDS_WITHIN;
        lent.note_left(at, LEAVES, TARGET / 2, TARGET);
        let mut packet = answer(LEFT, 64_000, true);
        assert!(!lent.tell(at, &mut packet, LEFT, TARGET / 2));
    }

    #[test]
    fn a_window_stays_lowered_while_the_first_in_the_queue_waits() {
        let at = ms(199) + FREE_AFTER * 2;
        let mut packet = answer(LEFT, 64_000, true);
        assert!(!usual().tell(at, &mut packet, LEFT, Duration::ZERO));
        assert!(usual().tell(at, &mut packet, LEFT, FREE_AFTER * 2));
    }

    #[test]
    fn what_was_agreed_is_not_changed_by_another_answer() {
        let mut lent = usual();
        lent.note_answer(syn(true, Some(SHIFT_MAX)));
        assert_eq!(lent.shift(), Some(SHIFT));
    }

    #[test]
    fn nobody_is_told_anything_once_the_queue_is_gone() {
        let mut lent = usual();
        let at = ms(200) + FREE_AFTER;
        lent.note_left(at, LEAVES, Duration::ZERO, TARGET);
        assert!(!lent.is_lowered(at));
        assert!(!lent.tell(at, &mut answer(LEFT, 64_000, true), LEFT, Duration::ZERO));
    }

    #[test]
    fn options_are_read_as_far_as_they_make_sense() {
        let shift = |options: &[u8]| Syn::read(false, options).shift;
        assert_eq!(shift(&[2, 4, 5, 180, 1, 3, 3, 9]), Some(9));
        assert_eq!(shift(&[3, 3, 200]), Some(SHIFT_MAX));
        assert_eq!(shift(&[0, 3, 3, 9]), None, "behind the end");
        assert_eq!(shift(&[3, 4, 9, 9]), None, "of another length");
        for cut in [&[3][..], &[3, 3], &[2, 0, 3, 3, 9], &[2, 1, 3, 3, 9]] {
            assert_eq!(shift(cut), None);
        }
        assert!(Syn::read(true, &[1, 1, 19, 2]).is_fixed);
        assert!(Syn::read(true, &[29, 4, 0, 0]).is_fixed);
    }
}

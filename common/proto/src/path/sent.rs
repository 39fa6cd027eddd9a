//! What was sent on a path: in flight, acknowledged, lost, lost by mistake.
//!
//! A path is FIFO in practice, so a datagram is lost when later ones arrived
//! (RFC 9002's packet threshold of 3) and it is older than the reordering this
//! path has shown, or when it is older than a round trip and a margin after any
//! later one arrived (RACK, RFC 8985). When it turns up after all, the margin
//! grows.
//!
//! Numbers are those of the WireGuard session. A session is replaced every two
//! minutes and its counter starts again, so each session gets a base, and a
//! datagram's number is base + counter: one growing number per path.

use std::collections::VecDeque;
use std::time::Duration;

use crate::frame::PathAck;
use crate::limits;
use crate::path::mtu::Sizes;
use crate::path::rtt::Rtt;
use crate::session::Number;
use crate::stamp;
use crate::store::PacketKey;
use crate::time::Time;

const PACKET_THRESHOLD: u64 = 3;
const REORDER_MARGIN_MIN: Duration = Duration::from_millis(1);
const REORDER_MARGIN_MAX: Duration = Duration::from_millis(60);
/// A lost datagram is remembered for this long, to notice that it was not.
const LOST_MEMORY: Duration = Duration::from_millis(1_000);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A number that we did not use ourselves (a keepalive of the session).
    Unused,
    InFlight,
    Acked,
    Lost,
}

/// What a datagram is to the packet it carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// It carries the whole packet, or none.
    #[default]
    Whole,
    /// The first half; the second has the next number.
    FirstHalf,
    /// The second half.
    SecondHalf,
    /// Nothing but a size to be tried.
    Probe,
}

/// What is known of the other half of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Other {
    Open,
    Arrived,
    Lost,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    at: Time,
    len: u16,
    /// Bytes that had been sent with it.
    total: u64,
    state: State,
    eliciting: bool,
    /// The path had nothing better to do: this says nothing about its capacity.
    limited: bool,
    packet: Option<PacketKey>,
    kind: Kind,
    other: Other,
}

#[derive(Clone, Copy, Debug)]
struct Epoch {
    session: u32,
    base: u64,
}

/// A datagram as it is sent.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing {
    /// Its length in bytes.
    pub len: usize,
    /// Whether the receiver will acknowledge it.
    pub eliciting: bool,
    /// Whether it left because there was nothing else to send.
    pub limited: bool,
    /// The packet it carries.
    pub packet: Option<PacketKey>,
    /// What it is to that packet.
    pub kind: Kind,
}

/// What an acknowledgement told.
#[derive(Clone, Copy, Debug, Default)]
pub struct AckOutcome {
    /// Bytes newly acknowledged.
    pub bytes: u64,
    /// Datagrams newly acknowledged.
    pub datagrams: u32,
    /// Of these, how many were sent for want of anything better.
    pub limited: u32,
    /// When the newest of them was sent.
    pub newest_sent: Option<Time>,
    /// Bytes that had been sent on the path by then, with it.
    pub sent: u64,
    /// Round trip of the highest number, when it was acknowledged just now.
    pub rtt: Option<Duration>,
    /// How long the one that waited longest for this acknowledgement had been under way.
    pub waited: Option<Duration>,
    /// Bytes of a probe that arrived.
    pub probe: Option<u16>,
}

/// The record of one path.
#[derive(Debug, Default)]
pub struct SentLog {
    log: VecDeque<Sent>,
    first: u64,
    epochs: VecDeque<Epoch>,
    largest_acked: Option<u64>,
    largest_acked_sent: Time,
    inflight_bytes: u64,
    inflight: u32,
    total: u64,
    margin: Duration,
    /// Which sizes arrive.
    pub sizes: Sizes,
    /// Datagrams declared lost.
    pub lost: u64,
    /// Of these, how many arrived after all.
    pub spurious: u64,
}

impl SentLog {
    fn next(&self) -> u64 {
        self.first + self.log.len() as u64
    }

    /// Records a datagram.
    pub fn on_sent(&mut self, now: Time, number: Number, out: Outgoing) {
        if self
            .epochs
            .back()
            .is_none_or(|e| e.session != number.session)
        {
            // Every session starts at zero, whether or not we saw its first number.
            let base = self.next();
            self.epochs.push_back(Epoch {
                session: number.session,
                base,
            });
            if self.epochs.len() > 4 {
                self.epochs.pop_front();
            }
        }
        let base = self.epochs.back().map_or(0, |e| e.base);
        let pn = base + number.counter;
        let unused = Sent {
            at: now,
            len: 0,
            total: self.total,
            state: State::Unused,
            eliciting: false,
            limited: true,
            packet: None,
            kind: Kind::Whole,
            other: Other::Open,
        };
        if pn < self.next() {
            return;
        }
        // A jump larger than the log means a session we know nothing of.
        if pn - self.next() > limits::INFLIGHT_DATAGRAMS as u64 {
            self.log.clear();
            self.first = pn;
        }
        while self.next() < pn {
            self.log.push_back(unused);
        }
        if out.eliciting {
            self.inflight_bytes += out.len as u64;
            self.inflight += 1;
        }
        self.total += out.len as u64;
        self.log.push_back(Sent {
            at: now,
            len: out.len as u16,
            total: self.total,
            state: State::InFlight,
            eliciting: out.eliciting,
            limited: out.limited,
            packet: out.packet,
            kind: out.kind,
            other: Other::Open,
        });
    }

    /// When the latest datagram was sent that is known to have arrived.
    pub fn latest_arrived(&self) -> Time {
        self.largest_acked_sent
    }

    /// Bytes that are in flight and will be acknowledged.
    pub fn inflight_bytes(&self) -> u64 {
        self.inflight_bytes
    }

    /// Whether the log can take more.
    pub fn has_room(&self) -> bool {
        self.log.len() < limits::INFLIGHT_DATAGRAMS
    }

    /// Whether anything is in flight that will be acknowledged.
    pub fn has_inflight(&self) -> bool {
        self.inflight > 0
    }

    fn settle(&mut self, index: usize, state: State) -> Sent {
        let sent = &mut self.log[index];
        if sent.state == State::InFlight && sent.eliciting {
            self.inflight_bytes -= u64::from(sent.len);
            self.inflight -= 1;
        }
        sent.state = state;
        *sent
    }

    /// A half has arrived or is lost, which is noted with its other half. Returns what became of the other half so far.
    fn tell_other(&mut self, index: usize, fate: Other) -> Other {
        let sent = self.log[index];
        let at = match sent.kind {
            Kind::FirstHalf => index.checked_add(1),
            Kind::SecondHalf => index.checked_sub(1),
            Kind::Whole | Kind::Probe => None,
        };
        if let Some(other) = at.and_then(|at| self.log.get_mut(at)) {
            other.other = fate;
        }
        sent.other
    }

    /// A datagram is lost. Its packet goes to `lost`, once for both halves.
    fn lose(&mut self, index: usize, lost: &mut Vec<PacketKey>) {
        let sent = self.settle(index, State::Lost);
        self.sizes
            .on_lost(self.first + index as u64, usize::from(sent.len));
        let known = self.tell_other(index, Other::Lost) == Other::Lost;
        if !known {
            lost.extend(sent.packet);
        }
    }

    /// The system refused datagrams of this size and more: they were never sent, so none of them is lost. Their packets
    /// go to `refused`.
    pub fn take_back(&mut self, len: usize, refused: &mut Vec<PacketKey>) {
        for index in 0..self.log.len() {
            let sent = self.log[index];
            if sent.state == State::InFlight && usize::from(sent.len) >= len {
                self.settle(index, State::Unused);
                refused.extend(sent.packet);
            }
        }
    }

    /// Takes in one path's entry of an acknowledgement that was sent `age` ago
    /// in addition to its own delay. Packets that arrived go to `arrived`.
    pub fn on_ack(&mut self, now: Time, ack: &PathAck, arrived: &mut Vec<PacketKey>) -> AckOutcome {
        let mut outcome = AckOutcome::default();
        let Some(&epoch) = self
            .epochs
            .iter()
            .rev()
            .find(|e| e.session as u8 == ack.epoch)
        else {
            return outcome;
        };
        let next = self.next();
        let near = next.saturating_sub(epoch.base);
        let largest = epoch.base + stamp::extend(u64::from(ack.largest), 32, near);
        if largest >= next {
            return outcome;
        }
        let mut high = largest;
        for (i, &(gap, run)) in ack.ranges.iter().enumerate() {
            if i > 0 {
                match high.checked_sub(u64::from(gap)) {
                    Some(h) if h >= epoch.base => high = h,
                    _ => break,
                }
            }
            let Some(low) = (high + 1).checked_sub(u64::from(run)) else {
                break;
            };
            let low = low.max(epoch.base);
            for pn in low.max(self.first)..=high {
                self.acknowledge(now, pn, arrived, &mut outcome);
            }
            if low <= self.first || low == epoch.base {
                break;
            }
            high = low - 1;
        }
        if largest >= self.first && self.largest_acked.is_none_or(|l| largest > l) {
            let sent = self.log[(largest - self.first) as usize];
            self.largest_acked = Some(largest);
            self.largest_acked_sent = sent.at;
            if sent.state == State::Acked && sent.len > 0 {
                let delay = Duration::from_nanos(u64::from(ack.largest_age) * 2 * stamp::UNIT_NS);
                outcome.rtt = Some(now.since(sent.at).saturating_sub(delay));
            }
        }
        self.forget(now);
        outcome
    }

    fn acknowledge(
        &mut self,
        now: Time,
        pn: u64,
        arrived: &mut Vec<PacketKey>,
        outcome: &mut AckOutcome,
    ) {
        let index = (pn - self.first) as usize;
        let before = self.log[index].state;
        if !matches!(before, State::InFlight | State::Lost) {
            return;
        }
        let sent = self.settle(index, State::Acked);
        if before == State::Lost {
            self.spurious += 1;
            let late = self.largest_acked_sent.since(sent.at);
            self.margin = (self.margin.max(late) * 5 / 4).min(REORDER_MARGIN_MAX);
        }
        if sent.eliciting {
            outcome.bytes += u64::from(sent.len);
            outcome.datagrams += 1;
            outcome.limited += u32::from(sent.limited);
            if before == State::InFlight {
                outcome.waited = outcome.waited.max(Some(now.since(sent.at)));
            }
        }
        outcome.newest_sent = outcome.newest_sent.max(Some(sent.at));
        outcome.sent = outcome.sent.max(sent.total);
        self.sizes.on_arrived(pn, usize::from(sent.len));
        match sent.kind {
            Kind::Whole => arrived.extend(sent.packet),
            Kind::Probe => outcome.probe = outcome.probe.max(Some(sent.len)),
            Kind::FirstHalf | Kind::SecondHalf => {
                if self.tell_other(index, Other::Arrived) == Other::Arrived {
                    arrived.extend(sent.packet);
                }
            }
        }
    }

    fn forget(&mut self, now: Time) {
        while let Some(front) = self.log.front() {
            let done = match front.state {
                State::Unused | State::Acked => true,
                State::Lost => now.since(front.at) > LOST_MEMORY,
                // What elicits no acknowledgement is only ever known by luck.
                State::InFlight => !front.eliciting && now.since(front.at) > LOST_MEMORY,
            };
            if !done {
                break;
            }
            self.log.pop_front();
            self.first += 1;
        }
    }

    /// The bond is idle: gives back memory.
    pub fn rest(&mut self, now: Time) {
        self.forget(now);
        self.log.shrink_to(limits::IDLE_ENTRIES);
    }

    fn margin(&self, rtt: &Rtt) -> Duration {
        self.margin
            .max(REORDER_MARGIN_MIN)
            .min(rtt.smoothed() / 2 + REORDER_MARGIN_MIN)
    }

    /// How long after it was sent a datagram counts as lost, once a later one arrived.
    pub fn time_threshold(&self, rtt: &Rtt) -> Duration {
        rtt.smoothed()
            + (rtt.smoothed() / 8)
                .max(Duration::from_millis(2))
                .max(self.margin(rtt))
    }

    /// Declares lost what later arrivals prove lost. Their packets go to
    /// `lost`. Returns their number and when to look again.
    pub fn detect_losses(
        &mut self,
        now: Time,
        rtt: &Rtt,
        lost: &mut Vec<PacketKey>,
    ) -> (u32, Option<Time>) {
        let Some(largest) = self.largest_acked else {
            return (0, None);
        };
        let margin = self.margin(rtt);
        let threshold = self.time_threshold(rtt);
        let mut count = 0;
        let mut again: Option<Time> = None;
        for index in 0..self.log.len() {
            let pn = self.first + index as u64;
            if pn >= largest {
                break;
            }
            let sent = self.log[index];
            if sent.state != State::InFlight || !sent.eliciting {
                continue;
            }
            let by_count = largest - pn >= PACKET_THRESHOLD
                && self.largest_acked_sent.since(sent.at) >= margin;
            let due = sent.at + threshold;
            if by_count || now >= due {
                self.lose(index, lost);
                self.lost += 1;
                count += 1;
            } else {
                again = Some(again.map_or(due, |t| t.min(due)));
            }
        }
        self.forget(now);
        (count, again)
    }

    /// When the oldest datagram was sent that should have been acknowledged.
    pub fn oldest_inflight(&self) -> Option<Time> {
        if self.inflight == 0 {
            return None;
        }
        self.log
            .iter()
            .find(|s| s.state == State::InFlight && s.eliciting)
            .map(|s| s.at)
    }

    /// The path is doubtful: everything in flight counts as lost, and its
    /// packets go to `lost`. Later acknowledgements still find them.
    pub fn give_up(&mut self, lost: &mut Vec<PacketKey>) -> u32 {
        let mut count = 0;
        for index in 0..self.log.len() {
            let sent = self.log[index];
            if sent.state == State::InFlight && sent.eliciting {
                self.lose(index, lost);
                count += 1;
            }
        }
        self.lost += u64::from(count);
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use crate::store::tests::stored;

    fn number(counter: u64) -> Number {
        Number {
            session: 0x0700,
            counter,
        }
    }

    fn ack(largest: u32, ranges: &[(u16, u16)]) -> PathAck {
        PathAck {
            epoch: 0,
            largest,
            ranges: ranges.to_vec(),
            ..PathAck::default()
        }
    }

    fn out() -> Outgoing {
        Outgoing {
            len: 100,
            eliciting: true,
            limited: false,
            packet: None,
            kind: Kind::Whole,
        }
    }

    fn log_of(n: u64) -> SentLog {
        let mut log = SentLog::default();
        for counter in 0..n {
            log.on_sent(Time::from_millis(counter), number(counter), out());
        }
        log
    }

    #[test]
    fn what_was_in_flight_takes_no_room_once_the_bond_is_idle() {
        let mut log = SentLog::default();
        for n in 0..1_000 {
            let ping = Outgoing {
                eliciting: false,
                ..out()
            };
            log.on_sent(Time::ZERO, number(n), ping);
        }
        log.rest(Time::ZERO + LOST_MEMORY * 2);
        assert!(log.log.capacity() <= limits::IDLE_ENTRIES);
        // The numbers go on.
        log.on_sent(Time::from_millis(9_000), number(1_000), out());
        assert_eq!(log.next(), 1_001);
    }

    #[test]
    fn acknowledged_datagrams_leave_the_flight() {
        let mut log = log_of(10);
        let outcome = log.on_ack(Time::from_millis(20), &ack(9, &[(0, 10)]), &mut Vec::new());
        assert_eq!((outcome.datagrams, outcome.bytes), (10, 1_000));
        assert_eq!(outcome.rtt, Some(Duration::from_millis(11)));
        assert_eq!(log.inflight_bytes(), 0);
    }

    #[test]
    fn a_hole_is_lost_once_three_later_ones_arrived() {
        let rtt = Rtt::default();
        let mut log = log_of(10);
        log.on_ack(
            Time::from_millis(20),
            &ack(3, &[(0, 1), (1, 2)]),
            &mut Vec::new(),
        );
        assert_eq!(
            log.detect_losses(Time::from_millis(20), &rtt, &mut Vec::new())
                .0,
            0
        );
        log.on_ack(
            Time::from_millis(20),
            &ack(5, &[(0, 3), (1, 2)]),
            &mut Vec::new(),
        );
        assert_eq!(
            log.detect_losses(Time::from_millis(20), &rtt, &mut Vec::new())
                .0,
            1
        );
        assert_eq!(log.lost, 1);
    }

    #[test]
    fn a_mistaken_loss_is_noticed_and_widens_the_margin() {
        let rtt = Rtt::default();
        let mut log = log_of(10);
        log.on_ack(
            Time::from_millis(20),
            &ack(9, &[(0, 7), (1, 2)]),
            &mut Vec::new(),
        );
        log.detect_losses(Time::from_millis(20), &rtt, &mut Vec::new());
        let before = log.margin(&rtt);
        log.on_ack(Time::from_millis(21), &ack(9, &[(0, 10)]), &mut Vec::new());
        assert_eq!(log.spurious, 1);
        assert!(log.margin(&rtt) > before);
    }

    #[test]
    fn numbers_go_on_when_the_session_is_replaced() {
        let mut log = log_of(3);
        for counter in 0..3 {
            let number = Number {
                session: 0x0701,
                counter,
            };
            log.on_sent(Time::from_millis(10), number, out());
        }
        let new = PathAck {
            epoch: 1,
            largest: 2,
            ranges: vec![(0, 3)],
            ..PathAck::default()
        };
        assert_eq!(
            log.on_ack(Time::from_millis(20), &new, &mut Vec::new())
                .datagrams,
            3
        );
        let old = log.on_ack(Time::from_millis(20), &ack(2, &[(0, 3)]), &mut Vec::new());
        assert_eq!(old.datagrams, 3);
        assert_eq!(log.inflight_bytes(), 0);
    }

    /// Two halves of one packet with numbers 0 and 1, and three more datagrams.
    fn log_of_halves() -> (SentLog, PacketKey) {
        let key = Store::default().insert(stored(1));
        let mut log = SentLog::default();
        for (counter, kind) in [(0, Kind::FirstHalf), (1, Kind::SecondHalf)] {
            let half = Outgoing {
                kind,
                packet: Some(key),
                ..out()
            };
            log.on_sent(Time::from_millis(counter), number(counter), half);
        }
        for counter in 2..5 {
            log.on_sent(Time::from_millis(counter), number(counter), out());
        }
        (log, key)
    }

    #[test]
    fn a_packet_in_halves_has_arrived_when_both_have() {
        let (mut log, key) = log_of_halves();
        let mut arrived = Vec::new();
        log.on_ack(Time::from_millis(20), &ack(0, &[(0, 1)]), &mut arrived);
        assert!(arrived.is_empty());
        log.on_ack(Time::from_millis(21), &ack(1, &[(0, 2)]), &mut arrived);
        assert_eq!(arrived, [key]);
    }

    #[test]
    fn a_packet_in_halves_is_lost_once_whichever_half_is() {
        for ranges in [vec![(0, 3)], vec![(0, 4)], vec![(0, 3), (1, 1)]] {
            let (mut log, key) = log_of_halves();
            let (mut arrived, mut lost) = (Vec::new(), Vec::new());
            log.on_ack(Time::from_millis(20), &ack(4, &ranges), &mut arrived);
            log.detect_losses(Time::from_millis(900), &Rtt::default(), &mut lost);
            assert_eq!((arrived, lost), (vec![], vec![key]), "{ranges:?}");
        }
    }

    #[test]
    fn a_lost_probe_is_no_loss_and_an_arrived_one_is_reported() {
        let probe = Outgoing {
            eliciting: false,
            len: 1_452,
            kind: Kind::Probe,
            ..out()
        };
        for (ranges, found) in [(vec![(0, 3)], None), (vec![(0, 4)], Some(1_452))] {
            let mut log = SentLog::default();
            log.on_sent(Time::ZERO, number(0), probe);
            assert_eq!(log.oldest_inflight(), None);
            for counter in 1..4 {
                log.on_sent(Time::from_millis(counter), number(counter), out());
            }
            let outcome = log.on_ack(Time::from_millis(20), &ack(3, &ranges), &mut Vec::new());
            assert_eq!(outcome.probe, found);
            log.detect_losses(Time::from_millis(900), &Rtt::default(), &mut Vec::new());
            assert_eq!(log.lost, 0);
        }
    }

    #[test]
    fn an_ack_for_what_was_never_sent_is_ignored() {
        let mut log = log_of(3);
        let outcome = log.on_ack(Time::from_millis(20), &ack(50, &[(0, 51)]), &mut Vec::new());
        assert_eq!(outcome.datagrams, 0);
        assert_eq!(log.inflight_bytes(), 300);
    }
}

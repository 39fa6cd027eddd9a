//! The queue in front of the paths: fair between flows, CoDel inside each.
//!
//! Deficit round robin in three rounds, one per class (RFC 8290 has two):
//! realtime before interactive before bulk. A flow that takes much leaves the
//! upper classes ([`crate::classify`]), and together they cannot take all
//! ([`crate::tiers`]).
//!
//! A sender that understands ECN is marked where another would lose a packet
//! (RFC 3168). One that says it reacts to every mark (ECT(1), RFC 9331) is marked
//! as soon as its packets wait for a millisecond, and so never builds a queue.
//! RFC 9332 couples such a queue with the one of classic flows; here each flow
//! has a queue of its own and its turn in the round, so there is nothing to
//! couple. The mark is set in the inner packet and arrives with it. A sender that
//! does not heed marks, and so waits ever longer, loses packets after all.
//!
//! A packet leaves the queue only when a path can take
//! it, so this is the one place where packets wait, and the one place where
//! they are dropped for having waited.

use std::collections::VecDeque;
use std::time::Duration;

use crate::classify::Class;
use crate::codel;
use crate::flow::{Flow, FlowTable, Queued, Standing};
use crate::limits;
use crate::time::Time;
use crate::window::Left;

/// Bytes a flow may send per round, at least: one full packet.
const QUANTUM: i64 = 1_514;
/// What a TCP sender sends again overtakes a queue that is older than this and that an uplink's death left behind.
/// Overtaking has a price: once the segment is acknowledged, all that it overtook and that is not acknowledged a quarter
/// of a round trip later counts as lost (RACK, RFC 8985) and is sent again for nothing. An ordinary queue
/// ([`codel::BULK`]) is gone sooner than that costs. That of a BBR after a fall of the rate stays as long as it
/// remembers the higher one, and each packet dropped from it would make it send the whole queue again.
const OVERTAKES_AFTER: Duration = Duration::from_millis(80);
/// For how long after a death a queue counts as left behind by it: as long as a BBR remembers the round trip of before,
/// and until a CUBIC has lost a first packet to the smaller sum.
const LEFT_BEHIND: Duration = Duration::from_secs(10);
/// While a path is about to carry more, the queue of a flow that began a moment ago may stand for this long: the shortest
/// time after which a TCP sends again on its own (200 ms in Linux), so what waits is not sent twice. A drop would end a
/// slow start at what there is now, and a CUBIC would take many seconds from there to what there is a moment later.
const MORE_TO_COME: Duration = Duration::from_millis(200);
/// How long a flow may be in slow start: a dozen round trips of 150 ms make any window.
const SLOW_START_MAX: Duration = Duration::from_secs(2);
/// Time of the best path's rate that a flow may take at a stretch. What comes in one stretch is joined into one packet for
/// the kernel at the far end; packets of many flows in turn would each cost it as much as a joined one. From 120 Mbit/s on
/// this is more than a packet.
const STRETCH: Duration = Duration::from_micros(100);
/// Bytes of a stretch at most: no more is joined.
const STRETCH_MAX: f64 = 65_535.0;
/// Flows looked at, at most, for one that may use the path at hand.
const LOOKS: usize = 64;

/// Why a packet was dropped from the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum QueueDrop {
    /// CoDel asked its sender to slow down.
    Aqm,
    /// It waited until it was of no use.
    Expired,
    /// The queue was full.
    Full,
}

impl QueueDrop {
    /// The name under which it is counted.
    pub fn name(self) -> &'static str {
        match self {
            QueueDrop::Aqm => "queue_aqm",
            QueueDrop::Expired => "queue_expired",
            QueueDrop::Full => "queue_full",
        }
    }
}

/// The rounds, and the sum of what waits.
#[derive(Debug, Default)]
pub struct Queue {
    rounds: [VecDeque<u16>; 3],
    bytes: usize,
    /// Bytes a flow may send per round, unless [`QUANTUM`] is more.
    stretch: i64,
    outage_end: Time,
    death: Option<Time>,
    more_to_come: bool,
    marks: Marks,
}

/// Packets that arrive with "congestion experienced" because they waited here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// Those whose senders take a mark for a loss (RFC 3168).
    pub classic: u64,
    /// Those whose senders react to each a little (RFC 9331).
    pub scalable: u64,
}

/// What left the queue.
#[derive(Debug)]
pub struct Popped {
    /// The flow's slot.
    pub slot: u16,
    /// The packet.
    pub queued: Queued,
}

impl Queue {
    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What was marked so far.
    pub fn marks(&self) -> Marks {
        self.marks
    }

    /// Says how fast the best path is, bytes per second.
    pub fn set_rate(&mut self, rate: f64) {
        let stretch = rate * STRETCH.as_secs_f64();
        self.stretch = stretch.min(STRETCH_MAX) as i64;
    }

    /// Says when something could pass again after nothing could. Patient packets that waited for that count as new.
    pub fn set_outage_end(&mut self, outage_end: Time) {
        self.outage_end = outage_end;
    }

    /// Says whether a path is about to carry more than it does, on trial or on its way back.
    pub fn set_more_to_come(&mut self, more_to_come: bool) {
        self.more_to_come = more_to_come;
    }

    /// A path is down: what it carried comes on top of what waits.
    pub fn note_death(&mut self, now: Time) {
        self.death = Some(now);
    }

    /// Whether a packet of this class waits.
    pub fn has(&self, class: Class) -> bool {
        !self.rounds[round_of(class)].is_empty()
    }

    /// Appends a packet to its flow. What has to go for it goes to `dropped`.
    pub fn push(
        &mut self,
        flows: &mut FlowTable,
        slot: u16,
        mut queued: Queued,
        dropped: &mut Vec<(QueueDrop, Queued)>,
    ) {
        let flow = flows
            .get_mut(slot)
            .expect("a slot that was just admitted exists");
        let len = queued.packet.len();
        if flow.queue_bytes + len > limits::FLOW_QUEUE_BYTES
            || self.bytes + len > limits::QUEUE_BYTES
        {
            dropped.push((QueueDrop::Full, queued));
            return;
        }
        flow.queue_bytes += len;
        self.bytes += len;
        let first = flow.queue.get(flow.overtakers);
        let waited = first.map(|f| queued.since.since(f.since));
        let left_behind = |death| queued.since.since(death) < LEFT_BEHIND;
        if queued.again && waited >= Some(OVERTAKES_AFTER) && self.death.is_some_and(left_behind) {
            // Its own flow cannot go on without it, so it waits for none of it, and what comes behind does not wait for more.
            queued.stream_end = None;
            flow.queue.insert(flow.overtakers, queued);
            flow.overtakers += 1;
        } else {
            flow.queue.push_back(queued);
        }
        if flow.standing == Standing::Out {
            flow.standing = Standing::In;
            flow.deficit = QUANTUM;
            self.rounds[round_of(flow.class)].push_back(slot);
        }
    }

    /// Takes the next packet of `class` whose flow `may` use the path at hand.
    pub fn pop(
        &mut self,
        now: Time,
        flows: &mut FlowTable,
        class: Class,
        mut may: impl FnMut(&mut Flow) -> bool,
        dropped: &mut Vec<(QueueDrop, Queued)>,
    ) -> Option<Popped> {
        let round = round_of(class);
        let mut refused = 0;
        while refused < self.rounds[round].len().min(LOOKS) {
            let slot = *self.rounds[round].front()?;
            let flow = flows
                .get_mut(slot)
                .expect("only existing slots are in a round");
            if round_of(flow.class) != round {
                // It behaves differently now: on to the round of its new class.
                self.rounds[round].pop_front();
                self.rounds[round_of(flow.class)].push_back(slot);
                continue;
            }
            if !may(flow) {
                self.rounds[round].rotate_left(1);
                refused += 1;
                continue;
            }
            if flow.deficit <= 0 {
                flow.deficit += self.stretch.max(QUANTUM);
                self.rounds[round].rotate_left(1);
                continue;
            }
            let account = (&mut self.bytes, &mut self.marks);
            let taken = take(
                flow,
                now,
                (self.outage_end, self.more_to_come),
                account,
                dropped,
            );
            if flow.queue.is_empty() {
                flow.standing = Standing::Out;
                self.rounds[round].pop_front();
            }
            let Some(queued) = taken else {
                flow.waiting_since = None;
                continue;
            };
            flow.deficit -= queued.packet.len() as i64;
            if flow.window.is_lowered(now) {
                flows.note_lowered(now);
            }
            return Some(Popped { slot, queued });
        }
        None
    }
}

fn round_of(class: Class) -> usize {
    match class {
        Class::Realtime => 0,
        Class::Interactive => 1,
        Class::Bulk => 2,
    }
}

/// Takes a flow's next packet that is neither too old nor dropped by CoDel.
fn take(
    flow: &mut Flow,
    now: Time,
    (outage_end, more_to_come): (Time, bool),
    (bytes, marks): (&mut usize, &mut Marks),
    dropped: &mut Vec<(QueueDrop, Queued)>,
) -> Option<Queued> {
    let (params, expiry) = match flow.class {
        Class::Realtime => (&codel::THIN, limits::REALTIME_EXPIRY),
        Class::Interactive => (&codel::THIN, limits::BULK_EXPIRY),
        Class::Bulk => (&codel::BULK, limits::BULK_EXPIRY),
    };
    let awaited = if more_to_come && flow.age(now) < SLOW_START_MAX {
        MORE_TO_COME
    } else {
        Duration::ZERO
    };
    let patience = flow.reach.patience(now).max(flow.patience).max(awaited);
    let params = &params.with_patience(patience);
    while let Some(mut queued) = flow.queue.pop_front() {
        flow.queue_bytes -= queued.packet.len();
        *bytes -= queued.packet.len();
        let sojourn = if queued.patient {
            now.since(queued.since.max(outage_end))
        } else {
            now.since(queued.since)
        };
        let overtook = flow.overtakers > 0;
        flow.overtakers -= usize::from(overtook);
        if sojourn > expiry || now.since(queued.since) > limits::PACKET_LIFE {
            dropped.push((QueueDrop::Expired, queued));
            continue;
        }
        if overtook {
            // It says nothing about the queue, and dropped twice it costs a timeout.
            return Some(queued);
        }
        if let Some(end) = queued.stream_end {
            let left = Left {
                bytes: queued.packet.len(),
                end,
            };
            flow.window.note_left(now, left, sojourn, params.target);
        }
        note_wait(flow, now, sojourn);
        flow.reach.note_wait(now, sojourn);
        let drop = flow
            .codel
            .should_drop(now, sojourn, flow.queue_bytes, params);
        let scalable = queued.ecn == ECT_1;
        let step = scalable && sojourn > SCALABLE_STEP && flow.queue_bytes > SCALABLE_BACKLOG;
        let heeds = queued.ecn != 0 && sojourn <= HEEDS_MARKS;
        if heeds && (step || drop && !scalable) {
            mark_congestion(&mut queued);
            *if scalable {
                &mut marks.scalable
            } else {
                &mut marks.classic
            } += 1;
        } else if drop
            && !heeds
            && !queued.again
            && (queued.stream_end.is_none() || !flow.window.lower(now, params.target))
        {
            // What is sent again is spared: dropped twice, it costs a timeout.
            dropped.push((QueueDrop::Aqm, queued));
            continue;
        }
        return Some(queued);
    }
    None
}

/// ECN: the sender reacts to every mark, a little to each (RFC 9331).
const ECT_1: u8 = 1;
/// Wait above which a scalable sender is marked (RFC 9332, appendix A).
const SCALABLE_STEP: Duration = Duration::from_millis(1);
/// It is not marked for less than this behind the packet: two full packets (the same).
const SCALABLE_BACKLOG: usize = 2 * 1_514;
/// A flow whose packets wait longer than this does not heed its marks, or one
/// round trip is too long for it to do so in time.
const HEEDS_MARKS: Duration = Duration::from_millis(250);

/// A wait this long says that the flow wants more than it is given.
const WAIT_MARK: Duration = Duration::from_millis(3);

fn note_wait(flow: &mut Flow, now: Time, sojourn: Duration) {
    if sojourn < WAIT_MARK {
        flow.waiting_since = None;
    } else if flow.waiting_since.is_none() {
        flow.waiting_since = Some(now);
    }
}

/// Sets "congestion experienced" in the inner packet (RFC 3168).
fn mark_congestion(queued: &mut Queued) {
    queued.ecn = 3;
    let bytes = queued.packet.bytes_mut();
    match bytes[0] >> 4 {
        4 => {
            let old = u16::from_be_bytes([bytes[0], bytes[1]]);
            bytes[1] |= 3;
            let new = u16::from_be_bytes([bytes[0], bytes[1]]);
            let sum = u16::from_be_bytes([bytes[10], bytes[11]]);
            // RFC 1624, equation 3: HC' = ~(~HC + ~m + m').
            let mut x = u32::from(!sum) + u32::from(!old) + u32::from(new);
            x = (x & 0xffff) + (x >> 16);
            x = (x & 0xffff) + (x >> 16);
            bytes[10..12].copy_from_slice(&(!(x as u16)).to_be_bytes());
        }
        _ => bytes[1] |= 0x30,
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{Ipv4Header, Ipv4HeaderSlice, PacketBuilder};

    use super::*;
    use crate::buffer::PacketBuf;
    use crate::packet::inspect;

    struct Bench {
        flows: FlowTable,
        queue: Queue,
        dropped: Vec<(QueueDrop, Queued)>,
        again: bool,
    }

    fn header(bytes: &[u8]) -> Ipv4Header {
        Ipv4HeaderSlice::from_slice(bytes).unwrap().to_header()
    }

    fn set_ecn(bytes: &mut [u8], ecn: u8) {
        bytes[1] |= ecn;
        let sum = header(bytes).calc_header_checksum();
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    }

    impl Bench {
        fn new() -> Self {
            Bench {
                flows: FlowTable::default(),
                queue: Queue::default(),
                dropped: Vec::new(),
                again: false,
            }
        }

        fn push(&mut self, now: Time, port: u16, len: usize) -> u16 {
            self.push_with_ecn(now, port, len, 0)
        }

        fn push_with_ecn(&mut self, now: Time, port: u16, len: usize, ecn: u8) -> u16 {
            let mut bytes = Vec::new();
            let packet = PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).udp(port, 9);
            packet.write(&mut bytes, &vec![0; len - 28]).unwrap();
            set_ecn(&mut bytes, ecn);
            let info = inspect(&bytes).unwrap();
            let admitted = self.flows.admit(now, &info, 1e6).unwrap();
            let packet = PacketBuf::copy_of(&bytes);
            let queued = Queued {
                packet,
                since: now,
                ordered: admitted.ordered,
                ecn,
                worth: admitted.worth,
                again: self.again,
                stream_end: admitted.stream_end,
                patient: admitted.patient,
            };
            self.queue
                .push(&mut self.flows, admitted.slot, queued, &mut self.dropped);
            admitted.slot
        }

        fn pop(&mut self, now: Time, class: Class) -> Option<Popped> {
            self.queue
                .pop(now, &mut self.flows, class, |_| true, &mut self.dropped)
        }
    }

    const BEGIN: Time = Time::from_millis(13_000);
    const IN_TURN: [u32; 6] = [10_000, 11_000, 12_000, 8_000, 9_000, 13_000];

    #[test]
    fn what_a_tcp_sender_sends_again_overtakes_a_long_queue_of_its_own_flow_that_a_death_left_behind()
     {
        let death = Some(BEGIN + Duration::from_millis(5));
        assert_eq!(order_after_resending(20, death), IN_TURN);
        assert_eq!(
            order_after_resending(90, death),
            [8_000, 9_000, 10_000, 11_000, 12_000, 13_000]
        );
        let long_ago = Some(Time::from_millis(3_050));
        assert_eq!(order_after_resending(90, long_ago), IN_TURN);
    }

    #[test]
    fn what_a_tcp_sender_sends_again_waits_its_turn_where_no_path_died() {
        assert_eq!(order_after_resending(90, None), IN_TURN);
    }

    /// Three segments, then two that come again and a new one, all that `wait_ms` later.
    fn order_after_resending(wait_ms: u64, death: Option<Time>) -> Vec<u32> {
        let mut b = Bench::new();
        let later = BEGIN + Duration::from_millis(wait_ms);
        if let Some(death) = death {
            b.queue.note_death(death);
        }
        let segment = |seq: u32| {
            let mut bytes = Vec::new();
            let packet = PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).tcp(1, 2, seq, 9);
            packet.write(&mut bytes, &[0; 1_000]).unwrap();
            bytes
        };
        for (i, seq) in [10_000, 11_000, 12_000, 8_000, 9_000, 13_000]
            .into_iter()
            .enumerate()
        {
            let now = if i < 3 { BEGIN } else { later };
            let bytes = segment(seq);
            let info = inspect(&bytes).unwrap();
            let admitted = b.flows.admit(now, &info, 1e6).unwrap();
            let queued = Queued {
                packet: PacketBuf::copy_of(&bytes),
                since: now,
                ordered: admitted.ordered,
                ecn: 0,
                worth: admitted.worth,
                again: admitted.again,
                stream_end: admitted.stream_end,
                patient: admitted.patient,
            };
            b.queue
                .push(&mut b.flows, admitted.slot, queued, &mut b.dropped);
        }
        let mut out = Vec::new();
        while let Some(popped) = b.queue.pop(
            later,
            &mut b.flows,
            Class::Interactive,
            |_| true,
            &mut b.dropped,
        ) {
            let bytes = popped.queued.packet.bytes();
            out.push(u32::from_be_bytes(bytes[24..28].try_into().unwrap()));
        }
        out
    }

    /// How many packets of 1,000 bytes come from one flow at a stretch, of two flows on a path of this rate.
    fn stretch(mbit_s: f64) -> usize {
        let mut b = Bench::new();
        b.queue.set_rate(mbit_s * 1e6 / 8.0);
        for _ in 0..200 {
            b.push(Time::ZERO, 1, 1_000);
            b.push(Time::ZERO, 2, 1_000);
        }
        let early = b.pop(Time::ZERO, Class::Interactive);
        assert!(early.is_none(), "both moved on to bulk");
        let mut turns = 0;
        let mut last = None;
        let mut taken = 0usize;
        while taken < 300 {
            let popped = b
                .pop(Time::from_millis(1), Class::Bulk)
                .expect("both have more");
            turns += usize::from(last.replace(popped.slot) != Some(popped.slot));
            taken += 1;
        }
        taken.div_ceil(turns)
    }

    #[test]
    fn flows_take_turns_by_the_packet_on_a_slow_path_and_by_the_stretch_on_a_fast_one() {
        assert!(stretch(0.0) <= 2);
        assert!(stretch(100.0) <= 2);
        // A tenth of a millisecond.
        assert!((18..=20).contains(&stretch(1_600.0)));
        assert!(stretch(1e6) <= 65, "no more than is joined");
    }

    #[test]
    fn two_bulk_flows_share_evenly_though_one_has_more_to_send() {
        let mut b = Bench::new();
        let mut slots = [0; 2];
        for _ in 0..100 {
            slots[0] = b.push(Time::ZERO, 1, 1_400);
        }
        for _ in 0..300 {
            slots[1] = b.push(Time::ZERO, 2, 1_400);
        }
        let mut seen = [0u32; 2];
        for _ in 0..100 {
            assert!(
                b.pop(Time::ZERO, Class::Interactive).is_none(),
                "both moved on to bulk"
            );
            let slot = b.pop(Time::ZERO, Class::Bulk).unwrap().slot;
            seen[slots.iter().position(|&s| s == slot).unwrap()] += 1;
        }
        assert!(seen[0].abs_diff(seen[1]) <= 2, "{seen:?}");
    }

    #[test]
    fn packets_of_a_flow_leave_in_the_order_they_came() {
        let mut b = Bench::new();
        for len in 100..200 {
            b.push(Time::ZERO, 1, len);
        }
        let lens: Vec<_> = std::iter::from_fn(|| b.pop(Time::ZERO, Class::Realtime))
            .map(|p| p.queued.packet.len())
            .collect();
        assert_eq!(lens, (100..200).collect::<Vec<_>>());
        assert_eq!(b.queue.bytes(), 0);
    }

    #[test]
    fn a_flow_that_may_not_use_the_path_is_passed_over() {
        let mut b = Bench::new();
        let a = b.push(Time::ZERO, 1, 200);
        let c = b.push(Time::ZERO, 2, 250);
        let may = |f: &mut Flow| f.queue_bytes == 250;
        let popped = b.queue.pop(
            Time::ZERO,
            &mut b.flows,
            Class::Realtime,
            may,
            &mut b.dropped,
        );
        assert_eq!(popped.unwrap().slot, c);
        assert_eq!(b.pop(Time::ZERO, Class::Realtime).unwrap().slot, a);
    }

    #[test]
    fn what_waited_too_long_is_dropped_and_named() {
        let mut b = Bench::new();
        b.push(Time::ZERO, 1, 200);
        assert!(b.pop(Time::from_millis(301), Class::Realtime).is_none());
        assert_eq!(b.dropped[0].0, QueueDrop::Expired);
    }

    #[test]
    fn a_flow_cannot_fill_the_whole_queue() {
        let mut b = Bench::new();
        for _ in 0..limits::QUEUE_BYTES / 1_400 {
            b.push(Time::ZERO, 1, 1_400);
        }
        assert!(b.queue.bytes() <= limits::FLOW_QUEUE_BYTES);
        assert!(b.dropped.iter().all(|d| d.0 == QueueDrop::Full));
    }

    /// What becomes of a bulk flow whose packets wait this long, packet after
    /// packet for two seconds: how many are marked and how many dropped.
    fn marked_and_dropped(ecn: u8, wait_ms: u64) -> (usize, usize) {
        marked_and_dropped_by(Bench::new(), ecn, wait_ms)
    }

    fn marked_and_dropped_by(mut b: Bench, ecn: u8, wait_ms: u64) -> (usize, usize) {
        let mut marked = 0;
        for ms in 0..2_000 {
            for _ in 0..2 {
                b.push_with_ecn(Time::from_millis(ms), 1, 1_400, ecn);
            }
            if ms >= wait_ms {
                while b.queue.bytes() > wait_ms as usize * 2_800 {
                    let popped = b.pop(Time::from_millis(ms), Class::Bulk);
                    let popped =
                        popped.or_else(|| b.pop(Time::from_millis(ms), Class::Interactive));
                    let Some(popped) = popped else { break };
                    let header = header(popped.queued.packet.bytes());
                    assert_eq!(header.header_checksum, header.calc_header_checksum());
                    marked += usize::from(header.ecn.value() == 3);
                }
            }
        }
        (marked, b.dropped.len())
    }

    #[test]
    fn what_a_tcp_sender_sends_again_is_not_dropped_a_second_time() {
        let mut b = Bench::new();
        b.again = true;
        assert_eq!(marked_and_dropped_by(b, 0, 50), (0, 0));
    }

    #[test]
    fn who_understands_marks_is_marked_and_loses_nothing() {
        let (marked, dropped) = marked_and_dropped(0, 50);
        assert!(marked == 0 && dropped > 5, "{marked} {dropped}");
        let (marked, dropped) = marked_and_dropped(2, 50);
        assert!(marked > 5 && dropped == 0, "{marked} {dropped}");
    }

    #[test]
    fn who_reacts_to_every_mark_is_marked_after_a_millisecond() {
        let (marked, dropped) = marked_and_dropped(1, 4);
        assert!(marked > 3_000 && dropped == 0, "{marked} {dropped}");
        let others = marked_and_dropped(2, 4);
        assert_eq!(others, (0, 0), "the others are left alone that early");
    }

    #[test]
    fn who_does_not_heed_marks_loses_packets() {
        for ecn in [1, 2] {
            let (_, dropped) = marked_and_dropped(ecn, 400);
            assert!(dropped > 5, "{dropped}");
        }
    }
}

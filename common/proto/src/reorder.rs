//! Puts each flow back in order, and lets nobody wait longer than that takes.
//!
//! The order domain is the sender's flow slot: a packet waits only for earlier
//! packets of its own flow. Four things end a wait:
//!
//! 1. the missing packet comes;
//! 2. the sender says that it gave up on it (SKIP);
//! 3. every path that still promises data has delivered something sent later
//!    ([`crate::path::ReceivedLog::may_still_bring`]), so the packet is lost, and the
//!    time that a repair takes has passed as well;
//! 4. the cap: [`limits::HOLD_MAX`].
//!
//! A packet may also be due only later ([`crate::release`]): then it leaves in order
//! and at its moment.
//!
//! The timer alone would be wrong both ways, too short for unequal paths and
//! too long for a loss; so the evidence decides and the cap is the backstop.
//!
//! What piled up behind a hole does not leave in one lump when that would do harm: the
//! buffer of a datagram socket is small (212,992 bytes by Linux's default, some ninety
//! full packets), and nothing slows down a sender of datagrams when it overflows. So a
//! flow of datagrams leaves in bursts of [`BURST`] packets with a pause between them, or
//! of a share of what waits, so that any backlog is gone soon. TCP has a window that
//! holds all of it.
//!
//! Packets that need no order (calls, acknowledgements) pass at once. They
//! keep their place in the sequence, so that duplicates are recognised. A packet
//! that comes after its place was given up is still delivered, once: the inner
//! TCP can use it.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::buffer::{PacketBuf, Pool};
use crate::limits;
use crate::stamp;
use crate::time::Time;

/// Places given up that are remembered per flow, to deliver a late packet once: what is under way at 100 Mbit/s for
/// 250 ms. All of it may be given up here and come after all, when no path works for a while.
const GIVEN_UP: usize = 2_048;
/// Places of unordered packets that are remembered behind a hole.
const PASSED: usize = 2_048;

/// Packets due within this time leave together, or each would need a wake-up of its own.
const RELEASE_SLACK: Duration = Duration::from_micros(500);

/// Datagrams that leave at once: a third of what the smallest usual buffer holds.
const BURST: usize = 32;
/// The pause after that; a reader needs a fraction of it to empty its buffer.
const BURST_EVERY: Duration = Duration::from_millis(1);
/// A backlog is gone after about this many bursts: much faster than it grew.
const BURSTS: usize = 16;

#[derive(Debug)]
enum Place {
    Missing,
    Passed,
    Held {
        packet: PacketBuf,
        stamp: u32,
        due: Time,
    },
}

#[derive(Debug, Default)]
struct FlowOrder {
    next: u64,
    /// Places from `next` on; the first is missing unless it is empty.
    window: VecDeque<Place>,
    held: usize,
    given_up: VecDeque<u64>,
    /// Since when the hole at the front keeps something waiting (or open).
    blocked_since: Option<Time>,
    /// Since when the hole is known to be a loss.
    lost_since: Option<Time>,
    /// Whether what waited leaves in small bursts.
    in_bursts: bool,
    burst_since: Time,
    burst_left: usize,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was delivered, at once.
    Delivered,
    /// It waits for earlier ones.
    Held,
    /// It had been delivered before.
    Duplicate,
}

/// Counters for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReorderCounters {
    /// Places given up because repair took too long.
    pub skipped_late: u64,
    /// Places given up because the sender said so.
    pub skipped_by_peer: u64,
    /// Places given up because too much was held.
    pub skipped_full: u64,
    /// Packets delivered after their place had been given up.
    pub late: u64,
    /// Copies of what had been delivered.
    pub duplicates: u64,
}

/// All flows of one bond in one direction.
#[derive(Debug, Default)]
pub struct Reorder {
    flows: HashMap<u16, FlowOrder>,
    blocked: Vec<u16>,
    held: usize,
    /// Counters for people.
    pub counters: ReorderCounters,
}

/// A data packet as it arrived.
#[derive(Debug)]
pub struct Arrived {
    /// The sender's flow slot.
    pub slot: u16,
    /// Low 24 bits of its number.
    pub seq: u32,
    /// Send stamp.
    pub stamp: u32,
    /// Whether it waits for earlier ones.
    pub ordered: bool,
    /// Whether it goes to a small buffer: a datagram.
    pub datagram: bool,
    /// Not to be delivered before, if it is ordered.
    pub due: Time,
    /// The inner packet.
    pub packet: PacketBuf,
}

impl Reorder {
    /// Packets held now.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Takes in a packet; what may be delivered now is appended to `ready`.
    pub fn on_packet(
        &mut self,
        now: Time,
        arrived: Arrived,
        ready: &mut VecDeque<PacketBuf>,
        pool: &mut Pool,
    ) -> Verdict {
        if self.held >= limits::HELD_PACKETS {
            self.release_oldest(now, ready);
        }
        let flow = self.flows.entry(arrived.slot).or_default();
        let seq = stamp::extend(u64::from(arrived.seq), 24, flow.next);
        if seq < flow.next {
            let Ok(at) = flow.given_up.binary_search(&seq) else {
                self.counters.duplicates += 1;
                pool.put(arrived.packet);
                return Verdict::Duplicate;
            };
            flow.given_up.remove(at);
            self.counters.late += 1;
            ready.push_back(arrived.packet);
            return Verdict::Delivered;
        }
        let mut at = (seq - flow.next) as usize;
        let room = if flow.held > 0 {
            limits::HELD_PACKETS_PER_FLOW
        } else {
            PASSED
        };
        if at >= room {
            let target = seq - room as u64 / 2;
            self.counters.skipped_full += flow.advance_to(target, ready, &mut self.held);
            at = (seq - flow.next) as usize;
        }
        while flow.window.len() <= at {
            flow.window.push_back(Place::Missing);
        }
        if !matches!(flow.window[at], Place::Missing) {
            self.counters.duplicates += 1;
            pool.put(arrived.packet);
            return Verdict::Duplicate;
        }
        flow.in_bursts = arrived.datagram;
        let early = arrived.due > now + RELEASE_SLACK;
        let verdict = if arrived.ordered && (at > 0 || early) {
            flow.window[at] = Place::Held {
                packet: arrived.packet,
                stamp: arrived.stamp,
                due: arrived.due.min(now + limits::HOLD_MAX),
            };
            flow.held += 1;
            self.held += 1;
            Verdict::Held
        } else {
            flow.window[at] = Place::Passed;
            ready.push_back(arrived.packet);
            Verdict::Delivered
        };
        if at == 0 {
            flow.drain(now, ready, &mut self.held);
        } else if flow.starts_with_hole() && flow.blocked_since.is_none() {
            flow.blocked_since = Some(now);
        }
        if !flow.window.is_empty() && !self.blocked.contains(&arrived.slot) {
            self.blocked.push(arrived.slot);
        }
        verdict
    }

    /// The sender gave up on one packet of a flow: nobody waits for it.
    pub fn on_skip(&mut self, now: Time, slot: u16, seq: u32, ready: &mut VecDeque<PacketBuf>) {
        let Some(flow) = self.flows.get_mut(&slot) else {
            return;
        };
        let seq = stamp::extend(u64::from(seq), 24, flow.next);
        let Some(at) = seq.checked_sub(flow.next) else {
            return;
        };
        let Some(place) = flow.window.get_mut(at as usize) else {
            return;
        };
        if matches!(place, Place::Missing) {
            *place = Place::Passed;
            self.counters.skipped_by_peer += 1;
            if at == 0 {
                flow.drain(now, ready, &mut self.held);
            }
        }
    }

    /// Ends every wait at once, in order within each flow.
    pub fn end_all(&mut self, ready: &mut VecDeque<PacketBuf>) {
        for slot in self.blocked.drain(..) {
            let flow = self.flows.get_mut(&slot).expect("a blocked flow exists");
            while !flow.window.is_empty() {
                flow.pass_front(ready, &mut self.held);
            }
            flow.blocked_since = None;
            flow.lost_since = None;
        }
    }

    /// Ends the waits that have lasted long enough. `may_bring` tells whether a
    /// path may still bring something that was sent before a stamp; `repair` is
    /// how long a repair takes once the loss is known.
    pub fn on_time(
        &mut self,
        now: Time,
        repair: Duration,
        may_bring: impl Fn(u32) -> bool,
        ready: &mut VecDeque<PacketBuf>,
    ) {
        let mut i = 0;
        while i < self.blocked.len() {
            let slot = self.blocked[i];
            let flow = self.flows.get_mut(&slot).expect("a blocked flow exists");
            if !flow.starts_with_hole() {
                flow.drain(now, ready, &mut self.held);
            } else if flow.lost_since.is_none() && flow.first_stamp().is_some_and(|s| !may_bring(s))
            {
                flow.lost_since = Some(now);
            }
            if flow.starts_with_hole() && flow.due(repair).is_some_and(|due| due <= now) {
                self.counters.skipped_late += flow.skip_hole(now, ready, &mut self.held);
                // The next hole gets its own look.
                continue;
            }
            if flow.window.is_empty() {
                self.blocked.swap_remove(i);
            } else {
                i += 1;
            }
        }
    }

    /// When [`Self::on_time`] is needed next.
    pub fn next_due(&self, repair: Duration) -> Option<Time> {
        self.blocked
            .iter()
            .filter_map(|slot| self.flows.get(slot)?.due(repair))
            .min()
    }

    /// Whether any flow waits for something.
    pub fn is_blocked(&self) -> bool {
        !self.blocked.is_empty()
    }

    /// The bond is idle: gives back memory.
    #[expect(
        clippy::iter_over_hash_type,
        reason = "each flow is looked at by itself, whatever the order"
    )]
    pub fn rest(&mut self) {
        for flow in self.flows.values_mut() {
            flow.window.shrink_to(limits::IDLE_ENTRIES);
            flow.given_up.shrink_to(limits::IDLE_ENTRIES);
        }
    }

    /// The sender forgot everything: deliver what is here and start from zero.
    pub fn restart(&mut self, ready: &mut VecDeque<PacketBuf>) {
        for slot in std::mem::take(&mut self.blocked) {
            let Some(flow) = self.flows.get_mut(&slot) else {
                continue;
            };
            let end = flow.next + flow.window.len() as u64;
            flow.advance_to(end, ready, &mut self.held);
        }
        self.flows.clear();
    }

    fn release_oldest(&mut self, now: Time, ready: &mut VecDeque<PacketBuf>) {
        let oldest = self.blocked.iter().copied().min_by_key(|slot| {
            self.flows
                .get(slot)
                .and_then(|f| f.blocked_since)
                .unwrap_or(Time::NEVER)
        });
        if let Some(flow) = oldest.and_then(|slot| self.flows.get_mut(&slot)) {
            self.counters.skipped_full += if flow.starts_with_hole() {
                flow.skip_hole(now, ready, &mut self.held)
            } else {
                let half = flow.next + flow.window.len() as u64 / 2;
                flow.advance_to(half, ready, &mut self.held)
            };
        }
    }
}

impl FlowOrder {
    /// The stamp of the first packet that waits.
    fn first_stamp(&self) -> Option<u32> {
        self.window.iter().find_map(|p| match p {
            Place::Held { stamp, .. } => Some(*stamp),
            Place::Missing | Place::Passed => None,
        })
    }

    fn starts_with_hole(&self) -> bool {
        matches!(self.window.front(), Some(Place::Missing))
    }

    /// When the hole at the front is given up, or the packet at the front may leave.
    fn due(&self, repair: Duration) -> Option<Time> {
        if let Some(Place::Held { due, .. }) = self.window.front() {
            let pause = self.in_bursts && self.burst_left == 0;
            return Some(if pause {
                (*due).max(self.burst_since + BURST_EVERY)
            } else {
                *due
            });
        }
        let since = self.blocked_since?;
        if self.held == 0 {
            // Nobody waits; the place is kept as long as a repair may come.
            return Some(since + limits::RETRANSMIT_AGE_MAX);
        }
        let cap = since + limits::HOLD_MAX;
        Some(self.lost_since.map_or(cap, |lost| cap.min(lost + repair)))
    }

    /// Delivers what is next in order.
    fn drain(&mut self, now: Time, ready: &mut VecDeque<PacketBuf>, held: &mut usize) {
        while let Some(front) = self.window.front() {
            match front {
                Place::Missing => break,
                Place::Held { due, .. } if *due > now + RELEASE_SLACK => break,
                Place::Held { .. } => {
                    if !self.burst_has_room(now) {
                        break;
                    }
                }
                Place::Passed => {}
            }
            self.pass_front(ready, held);
        }
        // Another hole, another wait.
        self.lost_since = None;
        self.blocked_since = self.starts_with_hole().then_some(now);
    }

    /// Counts one more held packet into the present burst, if it may leave yet.
    fn burst_has_room(&mut self, now: Time) -> bool {
        if !self.in_bursts {
            return true;
        }
        if now.since(self.burst_since) >= BURST_EVERY {
            self.burst_since = now;
            self.burst_left = BURST.max(self.held / BURSTS);
        }
        let room = self.burst_left > 0;
        self.burst_left = self.burst_left.saturating_sub(1);
        room
    }

    /// Moves past the place at the front; true when it was missing.
    fn pass_front(&mut self, ready: &mut VecDeque<PacketBuf>, held: &mut usize) -> bool {
        let place = self
            .window
            .pop_front()
            .expect("only called on a place that exists");
        let seq = self.next;
        self.next += 1;
        match place {
            Place::Passed => false,
            Place::Held { packet, .. } => {
                ready.push_back(packet);
                self.held -= 1;
                *held -= 1;
                false
            }
            Place::Missing => {
                if self.given_up.len() == GIVEN_UP {
                    self.given_up.pop_front();
                }
                self.given_up.push_back(seq);
                true
            }
        }
    }

    /// Gives up the hole at the front and delivers what waited for it only.
    fn skip_hole(&mut self, now: Time, ready: &mut VecDeque<PacketBuf>, held: &mut usize) -> u64 {
        let mut skipped = 0;
        while matches!(self.window.front(), Some(Place::Missing)) {
            skipped += u64::from(self.pass_front(ready, held));
        }
        self.drain(now, ready, held);
        skipped
    }

    /// Gives up every hole below `target`. Returns how many places were missing.
    fn advance_to(
        &mut self,
        target: u64,
        ready: &mut VecDeque<PacketBuf>,
        held: &mut usize,
    ) -> u64 {
        let mut skipped = 0;
        while self.next < target && !self.window.is_empty() {
            skipped += u64::from(self.pass_front(ready, held));
        }
        if self.next < target {
            skipped += target - self.next;
            self.next = target;
        }
        skipped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bench {
        reorder: Reorder,
        ready: VecDeque<PacketBuf>,
        pool: Pool,
        datagrams: bool,
    }

    const REPAIR: Duration = Duration::from_millis(30);

    impl Bench {
        fn new() -> Self {
            Bench {
                reorder: Reorder::default(),
                ready: VecDeque::new(),
                pool: Pool::default(),
                datagrams: false,
            }
        }

        fn packet(&mut self, ms: u64, seq: u32, ordered: bool) -> Verdict {
            self.packet_due(ms, seq, ordered, 0)
        }

        fn packet_due(&mut self, ms: u64, seq: u32, ordered: bool, due: u64) -> Verdict {
            let packet = PacketBuf::copy_of(&seq.to_be_bytes());
            let arrived = Arrived {
                slot: 1,
                seq,
                stamp: seq * 10,
                ordered,
                datagram: self.datagrams,
                due: Time::from_millis(due),
                packet,
            };
            let now = Time::from_millis(ms);
            self.reorder
                .on_packet(now, arrived, &mut self.ready, &mut self.pool)
        }

        fn time(&mut self, ms: u64, may_bring: bool) {
            let now = Time::from_millis(ms);
            self.reorder
                .on_time(now, REPAIR, |_| may_bring, &mut self.ready);
        }

        fn delivered(&mut self) -> Vec<u32> {
            let take = |p: PacketBuf| u32::from_be_bytes(p.bytes().try_into().unwrap());
            self.ready.drain(..).map(take).collect()
        }
    }

    #[test]
    fn packets_leave_in_order_as_soon_as_they_can() {
        let mut b = Bench::new();
        assert_eq!(b.packet(0, 1, true), Verdict::Held);
        assert_eq!(b.packet(0, 2, true), Verdict::Held);
        assert_eq!(b.packet(5, 0, true), Verdict::Delivered);
        assert_eq!(b.delivered(), [0, 1, 2]);
        assert_eq!(b.reorder.held(), 0);
    }

    #[test]
    fn a_duplicate_is_dropped_whether_its_first_copy_waits_or_left() {
        let mut b = Bench::new();
        b.packet(0, 0, true);
        b.packet(0, 2, true);
        assert_eq!(b.packet(1, 0, true), Verdict::Duplicate);
        assert_eq!(b.packet(1, 2, true), Verdict::Duplicate);
        assert_eq!(b.delivered(), [0]);
    }

    #[test]
    fn packets_leave_in_order_and_not_before_they_are_due() {
        let mut b = Bench::new();
        assert_eq!(b.packet_due(0, 0, true, 20), Verdict::Held);
        assert_eq!(b.packet_due(1, 1, true, 21), Verdict::Held);
        assert_eq!(b.reorder.next_due(REPAIR), Some(Time::from_millis(20)));
        b.time(19, true);
        assert_eq!(b.delivered(), []);
        b.time(20, true);
        assert_eq!(b.delivered(), [0]);
        b.time(21, true);
        assert_eq!(b.delivered(), [1]);
        assert_eq!(b.packet_due(30, 2, true, 25), Verdict::Delivered, "late");
        assert!(!b.reorder.is_blocked() || b.reorder.next_due(REPAIR).is_none());
    }

    #[test]
    fn what_waited_leaves_at_once_for_tcp_and_in_small_bursts_for_datagrams() {
        for datagrams in [false, true] {
            let mut b = Bench::new();
            b.datagrams = datagrams;
            (1..=400).for_each(|seq| assert_eq!(b.packet(0, seq, true), Verdict::Held));
            b.packet(40, 0, true);
            let mut left: Vec<_> = vec![b.delivered()];
            for ms in 41..60 {
                b.time(ms, true);
                left.push(b.delivered());
            }
            assert_eq!(left.concat(), (0..=400).collect::<Vec<_>>());
            let most = left.iter().map(Vec::len).max();
            let at_once = left.iter().filter(|l| !l.is_empty()).count() == 1;
            assert_eq!(at_once, !datagrams);
            assert!(!datagrams || most <= Some(BURST + 1), "{most:?}");
            assert!(!b.reorder.is_blocked());
        }
    }

    #[test]
    fn datagrams_that_come_in_order_are_not_held_up_by_a_pause() {
        let mut b = Bench::new();
        b.datagrams = true;
        for seq in 0..200 {
            assert_eq!(b.packet(0, seq, true), Verdict::Delivered);
        }
    }

    #[test]
    fn the_end_of_a_pause_is_named_as_the_next_deadline() {
        let mut b = Bench::new();
        b.datagrams = true;
        (1..=50).for_each(|seq| assert_eq!(b.packet(0, seq, true), Verdict::Held));
        b.packet(40, 0, true);
        assert_eq!(b.reorder.next_due(REPAIR), Some(Time::from_millis(41)));
    }

    #[test]
    fn a_hole_before_packets_that_are_not_due_is_judged_by_evidence() {
        let mut b = Bench::new();
        b.packet_due(0, 1, true, 50);
        b.time(10, false);
        b.time(40, false);
        assert_eq!(b.reorder.counters.skipped_late, 1);
        assert_eq!(b.delivered(), [], "the hole is given up, the moment is not");
        b.time(50, false);
        assert_eq!(b.delivered(), [1]);
    }

    #[test]
    fn a_hole_is_waited_for_while_a_path_may_bring_it() {
        let mut b = Bench::new();
        b.packet(0, 1, true);
        let cap = limits::HOLD_MAX.as_millis() as u64;
        b.time(cap - 1, true);
        assert_eq!(b.delivered(), []);
        b.time(cap, true);
        assert_eq!(b.delivered(), [1], "the cap ends it");
    }

    #[test]
    fn a_proven_loss_is_waited_for_as_long_as_its_repair_takes() {
        let mut b = Bench::new();
        b.packet(0, 1, true);
        b.time(10, false);
        b.time(39, false);
        assert_eq!(b.delivered(), []);
        b.time(40, false);
        assert_eq!(b.delivered(), [1]);
        assert_eq!(b.reorder.counters.skipped_late, 1);
    }

    #[test]
    fn a_packet_whose_place_was_given_up_is_delivered_once() {
        let mut b = Bench::new();
        b.packet(0, 1, true);
        b.time(200, true);
        assert_eq!(b.packet(201, 0, true), Verdict::Delivered);
        assert_eq!(b.packet(202, 0, true), Verdict::Duplicate);
        assert_eq!(b.delivered(), [1, 0]);
    }

    #[test]
    fn a_skip_from_the_sender_ends_the_wait_at_once() {
        let mut b = Bench::new();
        b.packet(0, 2, true);
        b.reorder.on_skip(Time::from_millis(1), 1, 1, &mut b.ready);
        assert_eq!(b.delivered(), [], "an earlier one may still come");
        b.reorder.on_skip(Time::from_millis(1), 1, 0, &mut b.ready);
        assert_eq!(b.delivered(), [2]);
        b.reorder
            .on_skip(Time::from_millis(1), 1, 9_000, &mut b.ready);
        assert_eq!(
            b.packet(2, 3, true),
            Verdict::Delivered,
            "what was never seen is no hole"
        );
    }

    #[test]
    fn unordered_packets_pass_at_once_and_ordered_ones_wait_for_them() {
        let mut b = Bench::new();
        assert_eq!(b.packet(0, 1, false), Verdict::Delivered);
        assert_eq!(b.packet(0, 2, true), Verdict::Held);
        assert_eq!(b.packet(0, 0, false), Verdict::Delivered);
        assert_eq!(b.delivered(), [1, 0, 2]);
    }

    #[test]
    fn a_hole_in_a_call_is_forgotten_and_costs_nobody_anything() {
        let mut b = Bench::new();
        for seq in 1..400 {
            assert_eq!(
                b.packet(u64::from(seq) * 20, seq, false),
                Verdict::Delivered
            );
            b.time(u64::from(seq) * 20, false);
        }
        assert!(!b.reorder.is_blocked());
    }

    #[test]
    fn a_jump_far_ahead_is_bounded() {
        let mut b = Bench::new();
        b.packet(0, 0, true);
        b.packet(0, 1_000_000, true);
        b.packet(0, 1_000_001, true);
        assert!(b.reorder.flows[&1].window.len() <= limits::HELD_PACKETS_PER_FLOW);
        b.time(200, true);
        assert_eq!(b.delivered(), [0, 1_000_000, 1_000_001]);
    }

    #[test]
    fn after_a_restart_numbers_begin_at_zero() {
        let mut b = Bench::new();
        b.packet(0, 0, true);
        b.packet(0, 5, true);
        b.reorder.restart(&mut b.ready);
        assert_eq!(b.packet(1, 0, true), Verdict::Delivered);
        assert_eq!(b.delivered(), [0, 5, 0]);
        assert_eq!(b.reorder.held(), 0);
    }
}

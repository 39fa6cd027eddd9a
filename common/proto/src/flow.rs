//! The flows a bond sends: from a 5-tuple to a slot with a sequence number, a
//! class and a queue.
//!
//! The slot's number and the sequence within it travel with each packet. When a
//! slot passes to another flow its sequence goes on where it was, so the other
//! side needs no message about it: it puts a *slot* in order and never learns
//! which flow sits in it.

mod answers;
mod picture;

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::buffer::PacketBuf;
use crate::classify::{Behaviour, Class, REALTIME_MEAN_LEN, Worth, classify, worth};
use crate::codel::Codel;
use crate::lead::{Lead, Prospect};
use crate::limits;
use crate::packet::{FlowKey, PacketInfo, Transport};
use crate::reach::Reach;
use crate::release::{self, Expected, Habits, Remote};
use crate::stats::FlowReason;
use crate::time::Time;
use crate::window::Lent;
use answers::Answers;

/// A packet that waits for a path.
#[derive(Debug)]
pub struct Queued {
    /// The inner packet.
    pub packet: PacketBuf,
    /// When it came.
    pub since: Time,
    /// Whether it must be delivered after everything earlier of its slot.
    pub ordered: bool,
    /// Its ECN field.
    pub ecn: u8,
    /// What a second copy of it is worth.
    pub worth: Worth,
    /// Its sender sent it before: everything behind it waits for it.
    pub again: bool,
    /// Only for a TCP segment with data: where the data of its flow ends, by all segments that came up to this one.
    pub stream_end: Option<u32>,
    /// Its sender waits for it, however long that takes.
    pub patient: bool,
}

/// What became of a packet that was sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// Its flow's slot.
    pub slot: u16,
    /// Whether it must be delivered after everything earlier of its slot.
    pub ordered: bool,
    /// What a second copy of it is worth.
    pub worth: Worth,
    /// Its sender sent it before.
    pub again: bool,
    /// As in [`Queued::stream_end`].
    pub stream_end: Option<u32>,
    /// Its sender waits for it, however long that takes.
    pub patient: bool,
}

/// Where a flow stands in the queue's rounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// It has nothing to send.
    #[default]
    Out,
    /// It waits its turn in its class's round.
    In,
}

/// One flow.
#[derive(Debug)]
pub struct Flow {
    key: FlowKey,
    next_seq: u64,
    /// Its class, by the last packet.
    pub class: Class,
    bytes: u64,
    packets: u64,
    mean_len: f64,
    rate: f64,
    window_start: Time,
    window_bytes: u64,
    last_seen: Time,
    /// Packets that wait.
    pub queue: VecDeque<Queued>,
    /// How many at the front of the queue overtook the others.
    pub overtakers: usize,
    tcp_end: Option<u32>,
    /// Their bytes.
    pub queue_bytes: usize,
    /// Drop decisions for its queue.
    pub codel: Codel,
    /// Bytes it may still send in this round (deficit round robin).
    pub deficit: i64,
    /// Whether it is in a round.
    pub standing: Standing,
    /// Since when its head has waited longer than a lone path should make it.
    pub waiting_since: Option<Time>,
    /// Until when it may use every path, not only the best.
    pub wide_until: Time,
    /// Whether it is a stream in datagrams: it began as QUIC does.
    streams: bool,
    /// Why it uses a set of paths at a constant latency from its first packet on ([`crate::span`]), if it does.
    pub steady: Option<FlowReason>,
    began: Time,
    /// How long its packets may wait before the sender is asked to slow down, for its latency's sake.
    pub patience: Duration,
    /// The latency that it began with, and the most that it may become.
    latency_first: Duration,
    latency_max: Duration,
    /// How far it was led towards a set beyond its sender's window.
    pub lead: Lead,
    /// How far behind the best path its packets may travel, and what it waits for.
    pub reach: Reach,
    /// Its receiver's window, by which it is slowed down.
    pub window: Lent,
}

/// How long a flow may take to show that it is long, as was expected, and keeps the latency that it began with.
const STEADY_AT_LEAST: Duration = Duration::from_secs(2);
/// The window over which a flow's rate is measured.
const RATE_WINDOW: Duration = Duration::from_millis(500);

impl Flow {
    fn new(key: FlowKey, next_seq: u64, now: Time) -> Self {
        Flow {
            key,
            next_seq,
            class: Class::default(),
            bytes: 0,
            packets: 0,
            mean_len: 0.0,
            rate: 0.0,
            window_start: now,
            window_bytes: 0,
            last_seen: now,
            queue: VecDeque::new(),
            overtakers: 0,
            tcp_end: None,
            queue_bytes: 0,
            codel: Codel::default(),
            deficit: 0,
            standing: Standing::Out,
            waiting_since: None,
            wide_until: Time::ZERO,
            streams: false,
            steady: None,
            began: now,
            patience: Duration::ZERO,
            latency_first: Duration::ZERO,
            latency_max: Duration::ZERO,
            lead: Lead::default(),
            reach: Reach::default(),
            window: Lent::default(),
        }
    }

    /// Takes a packet into account, and says what a second copy of it is worth.
    fn note(
        &mut self,
        now: Time,
        packet: &PacketInfo,
        bulk_rate: f64,
        prospect: &Prospect,
        led: &mut Led,
    ) -> Worth {
        let len = packet.len as u64;
        self.last_seen = now;
        self.bytes += len;
        self.packets += 1;
        let weight = if self.mean_len == 0.0 {
            1.0
        } else {
            1.0 / 16.0
        };
        self.mean_len += (packet.len as f64 - self.mean_len) * weight;
        let span = now.since(self.window_start);
        if span >= RATE_WINDOW {
            self.rate = self.window_bytes as f64 / span.as_secs_f64();
            self.window_start = now;
            self.window_bytes = 0;
            // It was expected to be long and is not: no more latency for nothing.
            if self.rate < bulk_rate && now.since(self.began) >= STEADY_AT_LEAST {
                self.steady = None;
            }
            let stream = self.is_stream() || matches!(packet.transport, Transport::Tcp { .. });
            if self.class != Class::Bulk {
                self.lead = Lead::default();
            } else if stream && self.steady.is_none() {
                self.follow_lead(now, prospect, led);
            } else if self.steady == Some(FlowReason::Led)
                && self.lead.missed(now, self.rate, prospect)
            {
                self.steady = None;
            }
        }
        if self.steady.is_none() && self.lead.leaps(now, prospect) {
            self.arrive(prospect, led);
        }
        self.window_bytes += len;
        // A flow that already sent more in this window than it used to is
        // taken at its word at once; slowing down is believed after a window.
        let so_far = self.window_bytes as f64 / RATE_WINDOW.as_secs_f64();
        let behaviour = Behaviour {
            bytes: self.bytes,
            packets: self.packets,
            rate: self.rate.max(so_far),
            mean_len: self.mean_len,
            bulk_rate,
        };
        self.class = match packet.transport {
            // It is not waited for, and the quickest path takes it.
            Transport::Tcp { pure_ack: true, .. } => classify(packet, &behaviour),
            // All of it travels alike from the first packet on.
            _ if self.steady.is_some() => Class::Bulk,
            _ => classify(packet, &behaviour),
        };
        worth(packet, &behaviour, self.class)
    }

    /// Leads a stream that fills its best path a step farther, when it is time to.
    fn follow_lead(&mut self, now: Time, prospect: &Prospect, led: &mut Led) {
        let led_before = !self.lead.latency().is_zero();
        let arrived = self.lead.note_rate(now, self.began, self.rate, prospect);
        led.flows += u64::from(!led_before && !self.lead.latency().is_zero());
        if arrived {
            self.arrive(prospect, led);
        }
    }

    /// It is on the whole set from now on.
    fn arrive(&mut self, prospect: &Prospect, led: &mut Led) {
        led.arrived += 1;
        self.steady = Some(FlowReason::Led);
        self.latency_max = prospect.latency_max();
    }

    /// How long after the lowest delay a packet is released that was sent as one of a steady flow or not, where the set
    /// needs `set`.
    pub fn latency(&self, now: Time, steady: bool, set: Duration) -> Duration {
        if !steady {
            return self.lead.latency().min(set);
        }
        // A slow start would take a step for a full link.
        if now.since(self.began) < STEADY_AT_LEAST {
            return self.latency_first;
        }
        self.latency_max.min(set)
    }

    /// Whether a TCP segment lies before one that came earlier: its sender sends it again, or it was overtaken.
    fn is_again(&mut self, end: u32) -> bool {
        /// Farther back it is another connection.
        const WINDOW: u32 = 1 << 30;
        match self.tcp_end {
            Some(highest) if highest.wrapping_sub(end) < WINDOW => true,
            _ => {
                self.tcp_end = Some(end);
                false
            }
        }
    }

    /// Its rate over the last half second, bytes per second.
    pub fn rate(&self) -> f64 {
        self.rate
            .max(self.window_bytes as f64 / RATE_WINDOW.as_secs_f64())
    }

    /// How long ago its first packet came.
    pub fn age(&self, now: Time) -> Duration {
        now.since(self.began)
    }

    /// The number of its next packet.
    pub fn take_seq(&mut self) -> u64 {
        let seq = self.next_seq;
        self.next_seq += 1;
        seq
    }

    /// Whether a packet must be delivered in order. TCP data, QUIC and bulk datagrams
    /// suffer from reordering; acknowledgements are cumulative, and a call would rather
    /// have what came than wait. QUIC suffers most at its start: a packet that three
    /// later ones overtook counts as lost (RFC 9002, section 6.1.1), and the first loss
    /// ends its slow start.
    fn is_ordered(&self, packet: &PacketInfo) -> bool {
        match packet.transport {
            Transport::Tcp { pure_ack, .. } => !pure_ack,
            // Fragments are put together by their receiver, but what they carry suffers like the rest.
            Transport::Udp | Transport::Other | Transport::Fragment => {
                self.steady.is_some() || self.is_stream() || self.class == Class::Bulk
            }
            Transport::Icmp => false,
        }
    }

    fn is_stream(&self) -> bool {
        self.streams && self.mean_len > REALTIME_MEAN_LEN
    }

    /// Whether a packet is still wanted after an outage: the sender of a stream repeats what was not acknowledged, ever
    /// more rarely, and goes on as soon as it is. Anybody else has moved on.
    fn is_patient(&self, packet: &PacketInfo) -> bool {
        match packet.transport {
            Transport::Tcp { .. } => true,
            Transport::Udp => self.is_stream(),
            Transport::Other | Transport::Icmp | Transport::Fragment => false,
        }
    }
}

/// Whether a flow that begins with this packet may become long. QUIC's first packets are padded (RFC 9000,
/// section 14.1), those of calls, games and DNS are small.
fn may_be_long(first: &PacketInfo) -> bool {
    match first.transport {
        Transport::Tcp { .. } => true,
        Transport::Udp => first.len >= 1_200,
        Transport::Other | Transport::Icmp | Transport::Fragment => false,
    }
}

/// All flows of one bond in one direction.
#[derive(Debug, Default)]
pub struct FlowTable {
    slots: Vec<Flow>,
    by_key: HashMap<FlowKey, u16>,
    /// Where the last packet belonged: packets of a flow come in runs, and comparing two keys is
    /// cheaper than looking one up.
    last: u16,
    hand: usize,
    habits: Habits,
    ours_is_source: bool,
    expect_long: bool,
    prospect: Prospect,
    led: Led,
    answers: Answers,
}

/// How often flows were led ([`crate::lead`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Led {
    /// Flows that began to be.
    pub flows: u64,
    /// Those of them that arrived.
    pub arrived: u64,
}

impl FlowTable {
    /// An empty table. `ours_is_source`: the end of each flow that belongs to the
    /// bond's user is its source (client), not its destination (server).
    pub fn new(ours_is_source: bool) -> Self {
        FlowTable {
            ours_is_source,
            ..FlowTable::default()
        }
    }

    /// Whether a flow of which nothing is known is treated as one that will be long, and what there is for flows.
    pub fn set_prospect(&mut self, expect: bool, prospect: Prospect) {
        self.expect_long = expect;
        self.prospect = prospect;
    }

    /// Finds or makes the packet's flow and sorts the packet. `None` when every
    /// slot is in use.
    pub fn admit(&mut self, now: Time, packet: &PacketInfo, bulk_rate: f64) -> Option<Admitted> {
        let last = self.slots.get(usize::from(self.last));
        let known = match last.filter(|flow| flow.key == packet.key) {
            Some(_) => Some(self.last),
            None => self.by_key.get(&packet.key).copied(),
        };
        let slot = match known {
            Some(slot) => slot,
            None => self.make(now, packet.key)?,
        };
        self.last = slot;
        let flow = &mut self.slots[usize::from(slot)];
        if matches!(packet.transport, Transport::Tcp { .. } | Transport::Udp) {
            let remote = Remote::of(&packet.key, self.ours_is_source);
            let len = packet.len as u64;
            if known.is_none() {
                flow.streams = packet.transport == Transport::Udp && may_be_long(packet);
                flow.steady = match self.habits.begin(now, remote) {
                    Expected::Long => Some(FlowReason::Habit),
                    Expected::Unknown => {
                        (self.expect_long && may_be_long(packet)).then_some(FlowReason::FarSet)
                    }
                    Expected::Short => None,
                };
            } else if (release::LONG_AFTER_BYTES..release::LONG_AFTER_BYTES + len)
                .contains(&(flow.bytes + len))
            {
                self.habits.was_long(remote);
            }
        }
        if known.is_none() {
            flow.latency_first = self.prospect.latency + self.prospect.headroom;
            flow.latency_max = self.prospect.latency_max();
        }
        if let Some(syn) = packet.syn {
            self.answers.begin(flow, syn);
        }
        flow.patience = if flow.steady.is_some() {
            self.prospect.latency.min(flow.latency_max) / 2
        } else {
            Duration::ZERO
        };
        let worth = flow.note(now, packet, bulk_rate, &self.prospect, &mut self.led);
        Some(Admitted {
            slot,
            ordered: flow.is_ordered(packet),
            worth,
            again: packet.tcp_end.is_some_and(|end| flow.is_again(end)),
            stream_end: flow.tcp_end.filter(|_| packet.tcp_end.is_some()),
            patient: flow.is_patient(packet),
        })
    }

    fn make(&mut self, now: Time, key: FlowKey) -> Option<u16> {
        let slot = self.idle_slot(now).or_else(|| {
            (self.slots.len() < limits::FLOWS).then(|| {
                self.slots.push(Flow::new(key, 0, now));
                self.slots.len() - 1
            })
        })?;
        let old = &mut self.slots[slot];
        if self.by_key.get(&old.key) == Some(&(slot as u16)) {
            self.by_key.remove(&old.key);
        }
        *old = Flow::new(key, old.next_seq, now);
        self.by_key.insert(key, slot as u16);
        Some(slot as u16)
    }

    /// Looks at a few slots, clock-wise, for one that has been idle. When the
    /// table is full it looks at all of them.
    fn idle_slot(&mut self, now: Time) -> Option<usize> {
        let full = self.slots.len() >= limits::FLOWS;
        let looks = if full {
            self.slots.len()
        } else {
            self.slots.len().min(8)
        };
        for _ in 0..looks {
            self.hand = (self.hand + 1) % self.slots.len();
            let flow = &self.slots[self.hand];
            if flow.queue.is_empty() && now.since(flow.last_seen) > limits::FLOW_IDLE {
                return Some(self.hand);
            }
        }
        None
    }

    /// A flow by its slot.
    pub fn get_mut(&mut self, slot: u16) -> Option<&mut Flow> {
        self.slots.get_mut(usize::from(slot))
    }

    /// The bond is idle: gives back memory.
    pub fn rest(&mut self) {
        for flow in &mut self.slots {
            flow.queue.shrink_to(limits::IDLE_ENTRIES);
        }
        self.answers.rest();
    }

    /// How often flows were led.
    pub fn led(&self) -> Led {
        self.led
    }

    /// How many flows are remembered.
    pub fn count(&self) -> usize {
        self.by_key.len()
    }

    /// Every slot starts from zero again: the other side forgot all of them.
    pub fn restart_sequences(&mut self) {
        for flow in &mut self.slots {
            flow.next_seq = 0;
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    pub fn packet(port: u16, len: usize) -> PacketInfo {
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let key = FlowKey {
            source: ip,
            destination: ip,
            protocol: 17,
            ports: (port, 1),
        };
        PacketInfo {
            key,
            transport: Transport::Udp,
            tcp_end: None,
            syn: None,
            dscp: 0,
            ecn: 0,
            len,
        }
    }

    #[test]
    fn a_flow_keeps_its_slot_and_counts_on() {
        let mut flows = FlowTable::default();
        let a = flows.admit(Time::ZERO, &packet(1, 100), 1e6).unwrap().slot;
        let b = flows.admit(Time::ZERO, &packet(2, 100), 1e6).unwrap().slot;
        assert_ne!(a, b);
        let again = flows.admit(Time::ZERO, &packet(1, 100), 1e6).unwrap();
        assert_eq!(again.slot, a);
        let flow = flows.get_mut(a).unwrap();
        assert_eq!((flow.take_seq(), flow.take_seq()), (0, 1));
    }

    #[test]
    fn a_slot_passes_on_after_it_was_idle_and_its_sequence_goes_on() {
        let mut flows = FlowTable::default();
        let a = flows.admit(Time::ZERO, &packet(1, 100), 1e6).unwrap().slot;
        flows.get_mut(a).unwrap().take_seq();
        let later = Time::ZERO + limits::FLOW_IDLE + Duration::from_millis(1);
        let b = flows.admit(later, &packet(2, 100), 1e6).unwrap().slot;
        assert_eq!(a, b);
        assert_eq!(flows.count(), 1);
        assert_eq!(flows.get_mut(b).unwrap().take_seq(), 1);
    }

    /// Whether each of `count` packets every `gap` is ordered, of a flow whose first is `first` bytes long.
    fn ordered(first: usize, len: usize, gap: Duration, count: usize) -> Vec<bool> {
        let mut flows = FlowTable::default();
        let lens = std::iter::once(first).chain(std::iter::repeat_n(len, count - 1));
        lens.enumerate()
            .map(|(i, len)| {
                let now = Time::ZERO + gap * i as u32;
                flows.admit(now, &packet(1, len), 1e6).unwrap().ordered
            })
            .collect()
    }

    #[test]
    fn a_call_is_not_ordered_quic_is_from_its_start_and_other_datagrams_once_they_are_bulk() {
        let call = ordered(200, 200, Duration::from_millis(20), 200);
        assert!(call.iter().all(|&ordered| !ordered));
        let quic = ordered(1_228, 1_300, Duration::from_micros(200), 2_000);
        assert!(quic.iter().all(|&ordered| ordered));
        let other = ordered(100, 1_300, Duration::from_micros(200), 2_000);
        assert!(!other[10] && other[1_999]);
        let acks_of_quic = ordered(1_228, 60, Duration::from_millis(1), 200);
        assert!(acks_of_quic[100..].iter().all(|&ordered| !ordered));
    }

    #[test]
    fn many_fragments_are_one_bulk_flow_in_order_and_a_few_are_not() {
        let mut flows = FlowTable::default();
        let mut now = Time::ZERO;
        let fragment = PacketInfo {
            transport: Transport::Fragment,
            ..packet(0, 1_400)
        };
        let first = flows.admit(now, &fragment, 1e6).unwrap();
        assert!(!first.ordered);
        let mut last = first;
        for _ in 0..2_000 {
            now += Duration::from_micros(200);
            last = flows.admit(now, &fragment, 1e6).unwrap();
        }
        assert!(last.ordered);
        assert_eq!((last.slot, flows.count()), (first.slot, 1));
    }

    #[test]
    fn where_a_far_set_pays_what_may_become_long_begins_on_it() {
        let begins_steady = |pays, protocol, len| {
            let mut flows = FlowTable::default();
            flows.set_prospect(pays, Prospect::default());
            let mut first = packet(1, len);
            first.key.protocol = protocol;
            if protocol == 6 {
                first.transport = Transport::Tcp {
                    control: true,
                    pure_ack: false,
                };
            }
            let slot = flows.admit(Time::ZERO, &first, 1e6).unwrap().slot;
            flows.get_mut(slot).unwrap().steady.is_some()
        };
        assert!(begins_steady(true, 6, 60), "TCP");
        assert!(begins_steady(true, 17, 1_200), "QUIC");
        assert!(!begins_steady(true, 17, 200), "a call, a game, DNS");
        assert!(!begins_steady(false, 6, 60), "it does not pay");
    }

    #[test]
    fn a_full_table_refuses_rather_than_grows() {
        let mut flows = FlowTable::default();
        for n in 0..limits::FLOWS as u32 {
            let mut p = packet((n & 0xffff) as u16, 100);
            p.key.protocol = (n >> 16) as u8;
            assert!(flows.admit(Time::ZERO, &p, 1e6).is_some());
        }
        let mut p = packet(1, 100);
        p.key.protocol = 200;
        assert_eq!(flows.admit(Time::ZERO, &p, 1e6), None);
    }
}

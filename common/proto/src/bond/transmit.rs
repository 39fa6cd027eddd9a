//! What is sent next, and over which path.
//!
//! In this order: handshake messages, frames that steer and measure,
//! acknowledgements, realtime packets, interactive packets, copies, repairs,
//! bulk. The first three, realtime packets and copies do not wait for the pacer:
//! they are small, and late they are worth nothing. They are charged to it all
//! the same, so bulk makes room for them. When realtime or interactive packets
//! ask for more than their share, they are paced like all others, and while
//! others wait, they come last ([`crate::tiers`]).
//!
//! Datagrams of one path and one size leave as a train that the kernel cuts
//! apart. A train is short, at most a millisecond of the path's rate.

use std::time::Duration;

use super::copies::FirstSent;
use super::{Bond, Context};
use crate::classify::{Class, Worth};
use crate::flow::{Flow, Queued};
use crate::frame::{self, Ack, DataHeader, Frame, MAX_ACK_PATHS, Probe};
use crate::halves;
use crate::path::{Address, Kind, MessageContent, Outgoing, Path, lengthen};
use crate::release;
use crate::schedule::{self, Choice, PathView};
use crate::session::{Number, OVERHEAD};
use crate::squeeze::{Form, Head};
use crate::stamp;
use crate::stats::FlowReason;
use crate::store::{PacketKey, Stored};
use crate::time::Time;
use crate::transmit::Transmit;

/// An acknowledgement is sent at once for this many datagrams.
const ACK_EVERY: u32 = 64;
/// Shortest and longest wait before an acknowledgement.
const ACK_MIN: Duration = Duration::from_millis(2);
const ACK_MAX: Duration = Duration::from_millis(10);
/// A new hole is told at once, but not more often than this.
const ACK_HOLE: Duration = Duration::from_millis(1);
/// Share of the way back that acknowledgements may take.
const ACK_SHARE: f64 = 0.03;
/// Wire bytes of a typical acknowledgement, UDP and IP included.
const ACK_LEN: f64 = 140.0;
/// Received runs that all paths of one acknowledgement may report together: with
/// 16 sessions' entries they stay below 1,200 bytes.
const ACK_RUNS: usize = 180;
/// A flow whose packets wait this long wants more than its path gives.
const WANTS_MORE_AFTER: Duration = Duration::from_millis(30);
/// A flow that uses this much of the best path is given the others before it waits.
const WANTS_MORE_SHARE: f64 = 0.5;
/// How long a flow keeps the wide path set after it last needed it.
const WIDE_FOR: Duration = Duration::from_secs(2);

/// Bytes of a train at most: the kernel cuts apart what one IP packet holds, its headers included.
const TRAIN_BYTES: usize = 65_000;

/// The classes that go before repairs and bulk.
const UPPER: [Class; 2] = [Class::Realtime, Class::Interactive];

/// A packet that was chosen to be sent.
#[derive(Debug)]
pub(super) enum Pick {
    /// From the queue.
    New {
        /// Its flow's slot.
        slot: u16,
        /// The packet.
        queued: Queued,
    },
    /// Lost, to be sent again.
    Repair(PacketKey),
    /// A second copy.
    Copy(PacketKey),
}

impl Bond {
    /// The next train of datagrams, sealed into the front of `out`.
    pub fn poll_transmit(
        &mut self,
        now: Time,
        out: &mut Vec<u8>,
        max_segments: usize,
        ctx: &mut Context<'_>,
    ) -> Option<Transmit> {
        self.tick_sessions(now, ctx);
        if let Some(transmit) = self.poll_raw(now, out) {
            return Some(transmit);
        }
        if let Some(transmit) = self.poll_message(now, out, ctx) {
            return Some(transmit);
        }
        if let Some(transmit) = self.poll_probe_train(now, out, ctx) {
            return Some(transmit);
        }
        self.reorder_paths(now);
        self.copy_tails(now);
        self.send_echoes(now);
        if self.ack_due().is_some_and(|due| due <= now)
            && let Some(transmit) = self.poll_ack(now, out, ctx)
        {
            return Some(transmit);
        }
        self.poll_train(now, out, max_segments, ctx)
    }

    fn poll_raw(&mut self, now: Time, out: &mut [u8]) -> Option<Transmit> {
        for path in &mut self.paths {
            let Some((datagram, to)) = path.raw.pop_front() else {
                continue;
            };
            out[..datagram.len()].copy_from_slice(&datagram);
            path.count_sent(now, datagram.len());
            return Some(transmit(to.unwrap_or(path.address), datagram.len()));
        }
        None
    }

    fn poll_message(
        &mut self,
        now: Time,
        out: &mut [u8],
        ctx: &mut Context<'_>,
    ) -> Option<Transmit> {
        let path = self
            .paths
            .iter_mut()
            .find(|p| !p.messages.is_empty() && p.session.is_established())?;
        let message = path.messages.pop_front()?;
        ctx.scratch.clear();
        let frame = message.content.frame();
        if let Some(frame) = &frame {
            frame::encode(frame, stamp::stamp(now), ctx.scratch);
        }
        let (len, number) = path.session.seal(ctx.scratch, out)?;
        let tick = message.content == MessageContent::Probe(Probe::Tick);
        // Nobody waits for a probe of a size, and nobody minds when it is lost.
        let probe = matches!(message.content, MessageContent::Probe(Probe::Size { .. }));
        let outgoing = Outgoing {
            len,
            eliciting: frame.is_some() && !probe,
            limited: true,
            packet: None,
            kind: if probe { Kind::Probe } else { Kind::Whole },
        };
        path.on_sealed(now, number, outgoing, tick.then_some(false));
        Some(transmit(message.to.unwrap_or(path.address), len))
    }

    /// The next ping of a train that guesses a path's rate. It waits for no pacer: a train is back to back.
    fn poll_probe_train(
        &mut self,
        now: Time,
        out: &mut [u8],
        ctx: &mut Context<'_>,
    ) -> Option<Transmit> {
        let mut paths = self.paths.iter_mut();
        let path = paths.find(|p| p.train.has_next() && p.session.is_established())?;
        let id = path.train.poll_next()?;
        let ping = Frame::Probe(Probe::Ping { id });
        frame::encode(&ping, stamp::stamp(now), ctx.scratch);
        lengthen(ctx.scratch);
        let (len, number) = path.session.seal(ctx.scratch, out)?;
        path.on_train_sealed(now, number, len);
        Some(transmit(path.address, len))
    }

    /// How long acknowledgements may wait: a quarter of a round trip, and no
    /// more often than the way back bears.
    fn ack_delay(&self) -> Duration {
        let active = || self.paths.iter().filter(|p| p.health.is_active());
        let rtt = active()
            .filter(|p| p.rtt.is_known())
            .map(|p| p.rtt.min())
            .min();
        let usual = (rtt.unwrap_or(ACK_MAX) / 4).clamp(ACK_MIN, ACK_MAX);
        let back = self.order.best().map_or(0.0, |v| v.capacity);
        if back <= 0.0 {
            return usual;
        }
        let bearable = Duration::from_secs_f64((ACK_LEN / (ACK_SHARE * back)).min(0.025));
        usual.max(bearable)
    }

    pub(super) fn ack_due(&self) -> Option<Time> {
        if !self.paths.iter().any(|p| p.session.is_established()) {
            return None;
        }
        let delay = self.ack_delay();
        self.paths
            .iter()
            .filter_map(|path| {
                let (since, count) = path.received.pending()?;
                if path.received.has_new_hole() {
                    return Some((since + delay).min(self.last_ack + ACK_HOLE));
                }
                Some(if count >= ACK_EVERY {
                    since
                } else {
                    since + delay
                })
            })
            .min()
    }

    /// The path for the next acknowledgement.
    fn ack_path(&self, now: Time) -> Option<usize> {
        let works = |&i: &usize| self.paths[i].health.works();
        let mut best = self.best_paths().filter(works);
        let Some(quickest) = best.next() else {
            // None works: the one that spoke last hears us soonest.
            return (0..self.paths.len())
                .filter(|&i| self.paths[i].session.is_established())
                .max_by_key(|&i| self.paths[i].received.last_arrival());
        };
        // Of a doubtful path only every other one depends: when it dies, the others shall not look dead as well.
        let spread = self.paths[quickest].is_doubtful(now) && !self.ack_seq.is_multiple_of(2);
        best.next().filter(|_| spread).or(Some(quickest))
    }

    fn poll_ack(&mut self, now: Time, out: &mut [u8], ctx: &mut Context<'_>) -> Option<Transmit> {
        let index = self.ack_path(now)?;
        let mut ack = Ack {
            seq: self.ack_seq,
            paths: Vec::with_capacity(self.paths.len()),
        };
        for path in &mut self.paths {
            path.received.report(now, path.tag, &mut ack.paths);
        }
        ack.paths.truncate(MAX_ACK_PATHS);
        // However many paths report, one acknowledgement fits into one datagram.
        let runs_each = ACK_RUNS / ack.paths.len().max(1);
        ack.paths
            .iter_mut()
            .for_each(|p| p.ranges.truncate(runs_each));
        self.ack_seq = self.ack_seq.wrapping_add(1);
        self.last_ack = now;
        frame::encode(&Frame::Ack(ack), stamp::stamp(now), ctx.scratch);
        let path = &mut self.paths[index];
        let (len, number) = path.session.seal(ctx.scratch, out)?;
        let outgoing = Outgoing {
            len,
            eliciting: false,
            limited: true,
            packet: None,
            kind: Kind::Whole,
        };
        path.on_sealed(now, number, outgoing, None);
        self.counters.acks_sent += 1;
        self.counters.ack_bytes += len as u64;
        Some(transmit(path.address, len))
    }

    fn poll_train(
        &mut self,
        now: Time,
        out: &mut Vec<u8>,
        max_segments: usize,
        ctx: &mut Context<'_>,
    ) -> Option<Transmit> {
        let (tag, first) = match self.stashed.take() {
            Some(stashed) => stashed,
            None => self.pick(now, None, ctx)?,
        };
        let index = self
            .path_index(tag)
            .expect("a pick whose path is gone was put back");
        let first = self.send(now, index, first, (out, 0, usize::MAX), ctx)?;
        let (mut len, segment_len) = (first.len, first.segment_len);
        let train = self.paths[index].train().min(TRAIN_BYTES);
        let mut segments = 1;
        // A shorter datagram ends the train, and two halves are one of their own.
        while len == segments * segment_len && segments < max_segments && len + segment_len <= train
        {
            let ready =
                self.paths[index].ready_in(now).is_zero() && !self.paths[index].check_full();
            if !ready {
                break;
            }
            let Some((_, next)) = self.pick(now, Some(index), ctx) else {
                break;
            };
            let Some(sent) = self.send(now, index, next, (out, len, segment_len), ctx) else {
                break;
            };
            len += sent.len;
            segments += 1;
        }
        let mut transmit = transmit(self.paths[index].address, len);
        transmit.segment_len = segment_len;
        Some(transmit)
    }

    /// Chooses the next packet, for any path or for one.
    fn pick(
        &mut self,
        now: Time,
        only: Option<usize>,
        ctx: &mut Context<'_>,
    ) -> Option<(u8, Pick)> {
        let best = *self.order.best()?;
        let may_use = |index: usize| only.is_none_or(|o| o == index);
        let mut deferred = [None; 2];
        if may_use(best.index) {
            for (class, deferred) in UPPER.into_iter().zip(&mut deferred) {
                if !self.queue.has(class) {
                    continue;
                }
                let first = self.tiers.goes_first(now, class, best.capacity);
                let unpaced = first && class == Class::Realtime;
                if !first && self.is_below(class) {
                    *deferred = Some(class);
                } else if (unpaced || self.can_send(now, best.index))
                    && let Some(pick) = self.pop(now, class, |_| true, ctx)
                {
                    return Some((self.paths[best.index].tag, pick));
                }
            }
        }
        if let Some(pick) = self.pick_overflow(now, only, ctx) {
            return Some(pick);
        }
        if let Some(pick) = self.pick_copy(only) {
            return Some(pick);
        }
        if let Some(pick) = self.pick_repair(now, only, ctx) {
            return Some(pick);
        }
        let mut nearer = Nearer::default();
        for at in 0..self.order.usable.len() {
            let view = self.order.usable[at];
            let index = view.index;
            let (in_wide, in_span) = (at < self.order.wide, self.span.has(index));
            if !in_wide && !in_span {
                continue;
            }
            let spread_ms = view.base_ms - best.base_ms;
            let before = nearer.and(spread_ms, &view);
            let ready = may_use(index) && self.can_send(now, index);
            if !ready || !self.bulk_may_leave(now, index) {
                continue;
            }
            let is_best = index == best.index;
            let may = |flow: &mut Flow| {
                if flow.steady.is_some() {
                    return in_span;
                }
                is_best
                    || in_wide
                        && wants_more(flow, now, best.capacity)
                        && before.is_reached_beyond(now, flow, spread_ms)
            };
            if let Some(pick) = self.pop(now, Class::Bulk, may, ctx) {
                return Some((self.paths[index].tag, pick));
            }
        }
        for class in deferred.into_iter().flatten() {
            if self.can_send(now, best.index)
                && let Some(pick) = self.pop(now, class, |_| true, ctx)
            {
                return Some((self.paths[best.index].tag, pick));
            }
        }
        self.pick_for_trial(now, only)
    }

    /// Whether anything waits that comes after this class.
    fn is_below(&self, class: Class) -> bool {
        self.queue.has(Class::Bulk)
            || !self.retransmits.is_empty()
            || class == Class::Realtime && self.queue.has(Class::Interactive)
    }

    pub(super) fn can_send(&mut self, now: Time, index: usize) -> bool {
        self.paths[index].ready_in(now).is_zero() && !self.paths[index].check_full()
    }

    pub(super) fn pop(
        &mut self,
        now: Time,
        class: Class,
        may: impl FnMut(&mut Flow) -> bool,
        ctx: &mut Context<'_>,
    ) -> Option<Pick> {
        let popped = self
            .queue
            .pop(now, &mut self.flows, class, may, &mut self.dropped);
        self.count_queue_drops(ctx.pool);
        popped.map(|p| {
            self.tiers.took(class, p.queued.packet.len());
            Pick::New {
                slot: p.slot,
                queued: p.queued,
            }
        })
    }

    /// Gives up what waited for its repair for too long, as no path worked.
    fn drop_stale_repairs(&mut self, now: Time, ctx: &mut Context<'_>) {
        if self.retransmits.is_empty() {
            return;
        }
        let mut given_up = Vec::new();
        let (outage_end, rtt) = (self.outage.end(now), self.quickest_rtt());
        while let Some(&key) = self.retransmits.front() {
            match self.store.get_mut(key) {
                Some(stored) if !stored.is_stale(now, outage_end, rtt) => break,
                Some(_) => given_up.extend(self.store.remove(key, ctx.pool)),
                None => {}
            }
            self.retransmits.pop_front();
        }
        if !given_up.is_empty() {
            self.skip(given_up);
        }
    }

    fn pick_repair(
        &mut self,
        now: Time,
        only: Option<usize>,
        ctx: &mut Context<'_>,
    ) -> Option<(u8, Pick)> {
        self.drop_stale_repairs(now, ctx);
        let &key = self.retransmits.front()?;
        let Choice::Send(index) = schedule::repair(&self.order) else {
            return None;
        };
        if only.is_some_and(|o| o != index) {
            return None;
        }
        // The views are as old as the train; the pacer has the last word.
        if !self.paths[index].session.is_established() {
            return None;
        }
        self.retransmits.pop_front();
        Some((self.paths[index].tag, Pick::Repair(key)))
    }

    /// Seals a packet into `out` at `at`, in halves when its path asks for it. One that would be longer than `most`, or
    /// would have to be cut in the middle of a train, is put aside instead.
    fn send(
        &mut self,
        now: Time,
        index: usize,
        pick: Pick,
        (out, at, most): (&mut Vec<u8>, usize, usize),
        ctx: &mut Context<'_>,
    ) -> Option<Sealed> {
        let (key, duplicate, worth) = match pick {
            Pick::New { slot, queued } => {
                let worth = queued.worth;
                let key = self.remember(now, slot, queued);
                self.note_recent(now, key, slot);
                (key, false, worth)
            }
            Pick::Repair(key) => (key, false, Worth::Nothing),
            Pick::Copy(key) => (key, true, Worth::Nothing),
        };
        // Nobody is to wait for a path on trial.
        let on_trial = self.order.trial == Some(index);
        let waits = self.queue.has(Class::Bulk) || !self.retransmits.is_empty();
        let stored = self.store.get_mut(key)?;
        if !self.peer_completes {
            stored.packet.complete();
        }
        let more = waits && (!on_trial || stored.steady);
        let again = stored.copies > 0;
        let flow = self.flows.get_mut(stored.slot);
        let latency = flow.map_or(Duration::ZERO, |flow| flow.latency(stored.steady));
        let release = if latency.is_zero() {
            0
        } else {
            // The set may need less by now, or be gone.
            let latency = latency.min(self.latency.get());
            release::units(latency, now.since(stored.first_sent))
        };
        let mut header = DataHeader {
            more,
            duplicate,
            retransmitted: again && !duplicate,
            ordered: stored.ordered,
            class: stored.class,
            flow: stored.slot,
            seq: stored.seq as u32 & 0x00ff_ffff,
            release,
            opens: None,
            begun: stored.packet.is_begun(),
        };
        let stamp = stamp::stamp(now);
        let mut head = Head::default();
        // A packet that opened a base does so with each copy.
        let form = match stored.opens {
            Some(opening) => Form::Opens(opening),
            None => {
                let bytes = stored.packet.bytes();
                self.squeezer
                    .form(now, &header, stamp, bytes, !again, &mut head)
            }
        };
        let inner_len = stored.packet.len();
        let frame_len = |head: &Head| head.len + inner_len - head.skip;
        if form == Form::Squeezed {
            let len = frame_len(&head);
            frame::write_squeezed_header(&mut head.bytes, &header, len, stamp);
            self.counters.squeezed += 1;
        } else {
            if let Form::Opens(opening) = form {
                stored.opens = Some(opening);
                header.opens = Some(opening);
            }
            frame::write_data_header(head.whole(), &header, inner_len, stamp);
        }
        let frame_len = frame_len(&head);
        let datagram_max = self.paths[index].mtu.datagram_max();
        let cut = frame_len + OVERHEAD > datagram_max && self.peer_joins == Some(true);
        let len = frame_len + OVERHEAD;
        let path = &mut self.paths[index];
        let train = path.train();
        if len > most || cut && at > 0 {
            if !cut {
                path.fit.was_too_long(len, most);
            }
            let pick = if duplicate {
                Pick::Copy(key)
            } else {
                Pick::Repair(key)
            };
            self.stashed = Some((self.paths[index].tag, pick));
            return None;
        }
        // Two halves are a train of their own, and as long as they are.
        let padded = match at {
            _ if cut => len,
            0 => path.fit.first(len, datagram_max, train),
            _ => path.fit.next(len, most, train),
        };
        let pad = (padded - len).min(stored.packet.room_behind());
        stored.copies = stored.copies.saturating_add(1);
        stored.in_flight = stored.in_flight.saturating_add(1);
        if !duplicate {
            stored.queued = false;
        }
        let (slot, class, losses) = (stored.slot, stored.class, stored.losses);
        let needed = at + 2 * halves::datagram_len(padded);
        if out.len() < needed {
            out.resize(needed, 0);
        }
        let limited = path.is_idle();
        let sealed = stored
            .packet
            .with_head(&head.bytes[..head.len], head.skip, pad, |frame| {
                seal(path, frame, cut, &mut out[at..], ctx.scratch)
            });
        let Some(parts) = sealed else {
            // The session ended under us; the packet takes another path.
            self.lost.push(key);
            self.requeue_lost(now, true, ctx);
            return None;
        };
        let (mut len, mut segment_len) = (0, 0);
        for part in parts.into_iter().flatten() {
            let outgoing = Outgoing {
                len: part.len,
                eliciting: true,
                limited,
                packet: Some(key),
                kind: part.kind,
            };
            path.on_sealed(now, part.number, outgoing, Some(more));
            len += part.len;
            segment_len = segment_len.max(part.len);
        }
        if cut {
            path.mtu.search(now);
            self.counters.cut += 1;
        }
        let counters = &mut self.counters;
        if duplicate {
            counters.duplicated += 1;
            counters.duplicated_bytes += len as u64;
        } else if again {
            counters.retransmitted += 1;
            counters.retransmitted_bytes += len as u64;
            // What was lost twice goes out twice.
            if losses >= 2 {
                self.add_copy(now, key, index);
            }
        } else {
            counters.first_bytes += inner_len as u64;
            let sent = FirstSent {
                key,
                slot,
                class,
                worth,
                index,
                len,
            };
            self.consider_copy(now, sent);
        }
        Some(Sealed { len, segment_len })
    }

    fn remember(&mut self, now: Time, slot: u16, queued: Queued) -> PacketKey {
        let flow = self
            .flows
            .get_mut(slot)
            .expect("a queued packet's flow exists");
        self.store.insert(Stored {
            packet: queued.packet,
            slot,
            seq: flow.take_seq(),
            class: flow.class,
            ordered: queued.ordered,
            steady: flow.steady.is_some(),
            patient: queued.patient,
            since: queued.since,
            first_sent: now,
            copies: 0,
            losses: 0,
            in_flight: 0,
            queued: false,
            opens: None,
        })
    }

    /// When a path with something to send may send again. Bulk waits until a train may leave:
    /// waking for each packet costs more than the packet does. Nothing else waits for company.
    pub(super) fn pace_due(&self, now: Time) -> Option<Time> {
        let urgent = !self.retransmits.is_empty()
            || self.queue.has(Class::Interactive)
            || self.queue.has(Class::Realtime);
        let bulk = self.queue.has(Class::Bulk);
        let trial = self.order.trial.filter(|&i| i < self.paths.len());
        let trial = trial.filter(|&i| self.fresh_for_trial(i) > 0);
        let usable = self.order.usable.iter();
        usable
            .filter(|v| !v.full && (urgent || bulk || trial == Some(v.index)))
            .filter_map(|v| self.paths.get(v.index))
            .filter(|p| p.next_send() > now)
            .map(|p| {
                if urgent {
                    p.next_send()
                } else {
                    p.next_train()
                }
            })
            .min()
    }
}

/// The paths before one in the order of delay.
#[derive(Clone, Copy, Debug, Default)]
struct Nearer {
    spread_ms: f64,
    capacity: f64,
    has_room: bool,
}

impl Nearer {
    /// Adds a path; returns what was before it.
    fn and(&mut self, spread_ms: f64, view: &PathView) -> Nearer {
        let before = *self;
        self.spread_ms = spread_ms;
        self.capacity += view.capacity;
        self.has_room |= view.has_room;
        before
    }

    /// Whether a flow reaches a path that comes after these.
    fn is_reached_beyond(&self, now: Time, flow: &mut Flow, spread_ms: f64) -> bool {
        /// A flow this far below what the nearer paths carry loses by a farther one.
        const SUFFICE: f64 = 0.85;
        let suffice = self.has_room && flow.rate() < SUFFICE * self.capacity;
        flow.reach.reaches(now, spread_ms, self.spread_ms, suffice)
    }
}

/// Whether a bulk flow may use more than the best path.
pub(super) fn wants_more(flow: &mut Flow, now: Time, best_capacity: f64) -> bool {
    if asks(flow, now, best_capacity).is_some() {
        flow.wide_until = now + WIDE_FOR;
    }
    flow.steady.is_some() || flow.wide_until > now
}

/// By what a flow shows now that the best path is not enough for it.
pub(super) fn asks(flow: &Flow, now: Time, best_capacity: f64) -> Option<FlowReason> {
    let waits = flow
        .waiting_since
        .is_some_and(|t| now.since(t) >= WANTS_MORE_AFTER);
    if waits {
        return Some(FlowReason::Waits);
    }
    (flow.rate() > WANTS_MORE_SHARE * best_capacity).then_some(FlowReason::Fills)
}

/// A packet as it lies in the train: one datagram, or two of which the first has `segment_len` bytes.
#[derive(Clone, Copy, Debug)]
struct Sealed {
    len: usize,
    segment_len: usize,
}

/// A sealed datagram, and what it is to its packet.
#[derive(Clone, Copy, Debug)]
struct Part {
    kind: Kind,
    len: usize,
    number: Number,
}

/// Seals a data frame as one datagram, or as two of which one lies behind the other.
fn seal(
    path: &mut Path,
    frame: &[u8],
    cut: bool,
    out: &mut [u8],
    scratch: &mut Vec<u8>,
) -> Option<[Option<Part>; 2]> {
    let mut part = |kind, frame: &[u8], out: &mut [u8]| {
        let (len, number) = path.session.seal(frame, out)?;
        Some(Part { kind, len, number })
    };
    if !cut {
        return Some([Some(part(Kind::Whole, frame, out)?), None]);
    }
    halves::cut(frame, false, scratch);
    let first = part(Kind::FirstHalf, scratch, out)?;
    halves::cut(frame, true, scratch);
    let second = part(Kind::SecondHalf, scratch, &mut out[first.len..])?;
    Some([Some(first), Some(second)])
}

fn transmit(to: Address, len: usize) -> Transmit {
    Transmit {
        socket: to.socket,
        remote: to.remote,
        local: to.local,
        len,
        segment_len: len,
    }
}

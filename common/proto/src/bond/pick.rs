//! Which packet leaves next, and over which path.
//!
//! Classes come before paths: what is realtime or interactive takes the best path as soon as that can send, and only what
//! they leave is shared out. A bulk packet goes over the nearest path that has room and that its flow reaches
//! ([`crate::reach`]); a flow with one latency of its own takes any path of its set ([`crate::span`]).

use std::time::Duration;

use super::{Bond, Context};
use crate::classify::Class;
use crate::flow::{Flow, Queued};
use crate::schedule::{self, Choice, PathView};
use crate::stats::FlowReason;
use crate::store::PacketKey;
use crate::time::Time;

/// A flow whose packets wait this long wants more than its path gives.
const WANTS_MORE_AFTER: Duration = Duration::from_millis(30);
/// A flow that uses this much of the best path is given the others before it waits.
const WANTS_MORE_SHARE: f64 = 0.5;
/// How long a flow keeps the wide path set after it last needed it.
const WIDE_FOR: Duration = Duration::from_secs(2);

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
    /// Chooses the next packet, for any path or for one.
    pub(super) fn pick(
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

/// How a flow shows now that the best path is not enough for it: its packets wait for too long, or it fills much of that
/// path. None if it does neither.
pub(super) fn asks(flow: &Flow, now: Time, best_capacity: f64) -> Option<FlowReason> {
    let waits = flow
        .waiting_since
        .is_some_and(|t| now.since(t) >= WANTS_MORE_AFTER);
    if waits {
        return Some(FlowReason::Waits);
    }
    (flow.rate() > WANTS_MORE_SHARE * best_capacity).then_some(FlowReason::Fills)
}

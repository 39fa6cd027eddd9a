//! Which paths there are for whom: views are made of them, and from the views the
//! order ([`crate::schedule`]) and the set for long flows ([`crate::span`]).

use std::time::Duration;

use super::Bond;
use crate::config::Mode;
use crate::lead::Prospect;
use crate::path::Path;
use crate::schedule::{self, PathView};
use crate::span::Span;
use crate::stats::PathState;
use crate::time::Time;

impl Bond {
    /// Brings the order of paths up to date.
    pub(super) fn reorder_paths(&mut self, now: Time) {
        self.views.clear();
        let zero = self.paths.iter().find_map(|p| p.rate.base_delay());
        for (index, path) in self.paths.iter_mut().enumerate() {
            // Before a delay is known, a path is assumed to be slow.
            const UNKNOWN_MS: f64 = 500.0;
            let base = match (path.rate.base_delay(), zero) {
                (Some(base), Some(zero)) => {
                    crate::stamp::millis(crate::stamp::difference(base, zero))
                }
                _ => UNKNOWN_MS,
            };
            path.limit_flight();
            let full = path.check_full();
            // With nothing of ours under way, none of it waits either.
            let queue = if path.sent.has_inflight() {
                path.rate.queue_ms()
            } else {
                0.0
            };
            let guess = path.guess();
            self.views.push(PathView {
                index,
                role: path.role,
                active: path.health.is_active() && path.session.is_established(),
                base_ms: base,
                delay_ms: base + queue,
                jitter_ms: path.jitter_ms(),
                loss_known_ms: path.loss_known_ms(),
                rtt_ms: path.rtt.min().as_secs_f64() * 1e3,
                capacity: guess.map_or(path.rate.capacity(), |g| g.low),
                at_most: guess.map(|g| g.high),
                on_trial: path.is_on_trial(now),
                on_probation: path.is_on_trial(now) && path.trial.is_probation(now),
                has_room: path.has_room(),
                ready_in: path.ready_in(now),
                full,
            });
        }
        let previous = self.best.and_then(|tag| self.path_index(tag));
        // One path at a time for everything, or only for bulk.
        let mode = self.modes.single().unwrap_or_default();
        schedule::order(&self.views, mode, previous, &mut self.order);
        if self.modes.bulk == Mode::Handover {
            self.order.wide = self.order.wide.min(1);
        }
        self.best = self.order.best().map(|v| self.paths[v.index].tag);
        self.queue.set_outage_end(self.outage.end(now));
        let more_to_come =
            |p: &Path| p.health.state() == PathState::Returning || p.is_on_trial(now);
        let adds_up = !matches!(self.modes.bulk, Mode::Redundant | Mode::Handover);
        self.queue
            .set_more_to_come(adds_up && self.paths.iter().any(more_to_come));
        self.queue
            .set_rate(self.order.best().map_or(0.0, |v| v.capacity));
        self.choose_span(now);
    }

    /// Chooses the set of paths for long flows, now and then: estimates change over round trips, not over packets.
    fn choose_span(&mut self, now: Time) {
        const EVERY: Duration = Duration::from_millis(5);
        let paths = self.order.usable.len();
        if now.since(self.span_since) < EVERY && self.span_among == paths {
            return;
        }
        (self.span_since, self.span_among) = (now, paths);
        let repair = if self.paths.iter().any(Path::is_lossy) {
            self.repair_time() / 2
        } else {
            Duration::ZERO
        };
        let repair_ms = repair.as_secs_f64() * 1e3;
        self.span = Span::of(&self.order.usable, self.order.wide, repair_ms);
        // A suspicion is mostly refuted a round trip later. What a flow should begin with stays as it was meanwhile: one
        // that began on a thin, quick path would keep a window for it.
        let suspected = |p: &Path| p.health.state() == PathState::Suspect;
        if self.paths.iter().any(suspected) {
            self.latency.keep(now);
            return;
        }
        self.latency.update(now, self.span.latency_ms);
        let rtt_ms = self.order.best().map_or(0.0, |v| v.rtt_ms);
        let rtt = Duration::from_secs_f64(rtt_ms / 1e3);
        let best = self.order.best();
        // Nobody is led to what carries no bulk, or only the overflow.
        let mut members = (0..).zip(&self.order.usable);
        let leads = members.all(|(at, v)| {
            let carries_bulk = at < self.order.wide && best.is_some_and(|b| v.role == b.role);
            carries_bulk || !self.span.has(v.index)
        });
        let prospect = Prospect {
            rtt,
            best: best.map_or(0.0, |v| v.capacity),
            carries: if leads { self.span.carries } else { 0.0 },
            latency: self.latency.get(),
            headroom: Duration::from_secs_f64(self.span.headroom_ms / 1e3),
        };
        self.flows.set_prospect(self.span.pays(), prospect);
    }
}

//! A picture of the bond, for people and for measuring.
//!
//! What it says of decisions is what was decided last: the order of the paths and the set for long flows are as old as
//! the last look for something to send, and are not made anew for a picture. Whoever looks changes nothing.

use std::net::SocketAddr;

use super::pick::asks;
use super::{Bond, Side};
use crate::classify::Class;
use crate::flow::Flow;
use crate::limits;
use crate::path::Place;
use crate::schedule;
use crate::stats::{BondSnapshot, Detail, Direction, FlowReason, FlowSnapshot, FlowWay};
use crate::time::Time;

impl Bond {
    /// A picture of it, with its flows if they are asked for.
    pub fn snapshot(&self, now: Time, peer: String, detail: &Detail) -> BondSnapshot {
        let c = &self.counters;
        let r = &self.reorder.counters;
        let (marks, led) = (self.queue.marks(), self.flows.led());
        let counters = [
            ("retransmitted", c.retransmitted),
            ("reinjected", c.reinjected),
            ("duplicated", c.duplicated),
            ("first_bytes", c.first_bytes),
            ("retransmitted_bytes", c.retransmitted_bytes),
            ("duplicated_bytes", c.duplicated_bytes),
            ("duplicates_refused", self.copies.refused),
            ("copies_received", c.copies_received),
            ("copies_first", c.copies_first),
            ("given_up", c.given_up),
            ("acks_sent", c.acks_sent),
            ("ack_bytes", c.ack_bytes),
            ("peer_restarts", c.peer_restarts),
            ("silences_reported", c.silences),
            ("squeezed", c.squeezed),
            ("cut", c.cut),
            ("marked", marks.classic),
            ("marked_scalable", marks.scalable),
            ("windows_lowered", self.flows.windows_lowered()),
            ("trials", c.trials),
            ("led", led.flows),
            ("led_arrived", led.arrived),
            ("joined", self.joiner.joined),
            ("halves_given_up", self.joiner.given_up),
            ("skipped_late", r.skipped_late),
            ("skipped_by_peer", r.skipped_by_peer),
            ("skipped_full", r.skipped_full),
            ("delivered_late", r.late),
            ("duplicates_received", r.duplicates),
            ("packets_under_way", self.store.count() as u64),
        ];
        BondSnapshot {
            name: self.peer.name.clone(),
            peer,
            addresses: self.peer.addresses().collect(),
            up: self.up,
            modes: self.modes,
            mtu: self.mtu,
            paths: (0..self.paths.len())
                .map(|index| self.paths[index].snapshot(now, self.place(index)))
                .collect(),
            packets_in: c.packets_in,
            bytes_in: c.bytes_in,
            packets_out: c.packets_out,
            bytes_out: c.bytes_out,
            flows: self.flows.count() as u64,
            busiest: if detail.has_flows_of(&self.peer.name) {
                self.busiest(now)
            } else {
                Vec::new()
            },
            set_latency_ms: self.latency.get().as_secs_f64() * 1e3,
            queue_bytes: self.queue.bytes() as u64,
            held_packets: self.reorder.held() as u64,
            drops: self
                .drops
                .iter()
                .map(|(&k, &v)| (k.to_owned(), v))
                .collect(),
            counters: counters
                .into_iter()
                .map(|(k, v)| (k.to_owned(), v))
                .collect(),
        }
    }

    /// What the order makes of a path.
    fn place(&self, index: usize) -> Place {
        let works = self.paths[index].health.is_active();
        let Some(view) = self.views.iter().find(|v| v.index == index && works) else {
            return Place::default();
        };
        let working = self.order.usable.iter().filter(|v| self.is_known(v.index));
        let quickest = working.map(|v| v.base_ms).min_by(f64::total_cmp);
        let behind = quickest.filter(|_| self.is_known(index));
        Place {
            rank: schedule::rank(&self.order, view),
            in_set: self.span.has(index),
            behind_ms: behind.map(|quickest| view.base_ms - quickest),
        }
    }

    fn is_known(&self, index: usize) -> bool {
        let path = self.paths.get(index);
        path.is_some_and(|p| p.rate.base_delay().is_some())
    }

    fn busiest(&self, now: Time) -> Vec<FlowSnapshot> {
        let flows = self.flows.busiest(now, limits::FLOWS_SHOWN).into_iter();
        flows
            .map(|(slot, flow)| self.flow_snapshot(now, slot, flow))
            .collect()
    }

    fn flow_snapshot(&self, now: Time, slot: u16, flow: &Flow) -> FlowSnapshot {
        let key = flow.key();
        let (way, reason) = self.way(now, flow);
        let latency = flow.latency(now, flow.steady.is_some(), self.latency.get());
        FlowSnapshot {
            slot,
            direction: match self.side {
                Side::Client => Direction::Up,
                Side::Server => Direction::Down,
            },
            protocol: key.protocol,
            source: SocketAddr::new(key.source, key.ports.0),
            destination: SocketAddr::new(key.destination, key.ports.1),
            class: flow.class,
            bytes: flow.bytes(),
            rate_bit_s: (flow.rate_at(now) * 8.0) as u64,
            queue_bytes: flow.queue_bytes as u64,
            paths: self.paths_of(way, flow),
            way,
            reason,
            latency_ms: latency.as_secs_f64() * 1e3,
            copied: self.copy_reason(now, flow),
        }
    }

    fn way(&self, now: Time, flow: &Flow) -> (FlowWay, FlowReason) {
        if flow.class != Class::Bulk {
            return (FlowWay::Best, FlowReason::Class);
        }
        if let Some(reason) = flow.steady {
            return (FlowWay::Steady, reason);
        }
        let best = self.order.best().map_or(0.0, |v| v.capacity);
        let asks = asks(flow, now, best);
        if !flow.lead.latency().is_zero() {
            return (FlowWay::Led, asks.unwrap_or(FlowReason::Lately));
        }
        match asks {
            Some(reason) => (FlowWay::Wide, reason),
            None if flow.wide_until > now => (FlowWay::Wide, FlowReason::Lately),
            None => (FlowWay::Best, FlowReason::Suffices),
        }
    }

    /// The paths that a flow may use, by their tags, the best first.
    fn paths_of(&self, way: FlowWay, flow: &Flow) -> Vec<u8> {
        let Some(best) = self.order.best() else {
            return Vec::new();
        };
        let may = |at: usize| {
            let view = &self.order.usable[at];
            let reached =
                || at < self.order.wide && flow.reach.reached(view.base_ms - best.base_ms);
            match way {
                FlowWay::Best => at == 0,
                FlowWay::Wide | FlowWay::Led => at == 0 || reached(),
                FlowWay::Steady => self.span.has(view.index),
            }
        };
        (0..self.order.usable.len())
            .filter(|&at| may(at))
            .filter_map(|at| self.paths.get(self.order.usable[at].index))
            .map(|path| path.tag)
            .collect()
    }
}

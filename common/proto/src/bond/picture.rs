//! A picture of the bond, for people and for measuring.

use super::Bond;
use crate::path::Path;
use crate::stats::BondSnapshot;

impl Bond {
    /// A picture of it.
    pub fn snapshot(&self, peer: String) -> BondSnapshot {
        let c = &self.counters;
        let r = &self.reorder.counters;
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
            addresses: self.peer_addresses().collect(),
            up: self.up,
            modes: self.modes,
            mtu: self.mtu,
            paths: self.paths.iter().map(Path::snapshot).collect(),
            packets_in: c.packets_in,
            bytes_in: c.bytes_in,
            packets_out: c.packets_out,
            bytes_out: c.bytes_out,
            flows: self.flows.count() as u64,
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
}

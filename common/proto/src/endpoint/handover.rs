//! Several endpoints of one server, and what they hand to each other.
//!
//! A server may run several workers: loops with an endpoint each, which share its
//! key, its port and its TUN device. Each peer belongs to exactly one of them, so a
//! bond still has one owner and nothing of it is shared. Every worker is told of
//! every peer and whose it is.
//!
//! Whose a datagram is stands in it: the top bits of our session indices are the
//! worker's number, and whoever steers datagrams to workers can read them without a
//! key. Only a stranger's initiation carries no index of ours. Any worker may open
//! it, since all ask the same gate, and hands it to the peer's worker. A packet for a
//! peer is told by its destination.
//!
//! So whatever arrives at the wrong worker reaches the right one, once: what was
//! handed over is never handed on. It waits for the driver in a queue with an edge,
//! and the driver has one between two workers; what does not fit is dropped as
//! `handover_full`. What arrives at the right worker is never asked about any of this.

use std::net::IpAddr;

use super::Endpoint;
use crate::buffer::PacketBuf;
use crate::config::Key;
use crate::limits;
use crate::packet;
use crate::session::{Outer, outer};
use crate::time::Time;
use crate::transmit::Arrival;

/// A worker among those of its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Worker {
    /// Its number, from 0.
    pub(super) number: u8,
    /// How many there are.
    pub(super) of: u8,
}

impl Worker {
    /// The only one.
    pub(super) const ALONE: Worker = Worker { number: 0, of: 1 };
    /// Bits of a session index on the wire behind the worker's number.
    const SHIFT: u32 = 32 - limits::WORKER_BITS;

    /// A 24-bit session index of this worker, from a random one.
    pub(super) fn mark(self, index: u32) -> u32 {
        if self.of == 1 {
            return index;
        }
        // The wire has eight bits more behind the index.
        let bits = Self::SHIFT - 8;
        index & ((1 << bits) - 1) | u32::from(self.number) << bits
    }

    /// The other worker that a session index on the wire belongs to.
    fn other(self, receiver: u32) -> Option<u8> {
        let number = (receiver >> Self::SHIFT) as u8;
        (number != self.number && number < self.of).then_some(number)
    }
}

/// What one worker hands to another.
#[derive(Debug)]
pub enum Handover {
    /// A packet from the TUN.
    Packet(PacketBuf),
    /// A datagram from the wire.
    Datagram {
        /// Where it came from and on which of the server's addresses it arrived.
        arrival: Arrival,
        /// The datagram.
        datagram: PacketBuf,
        /// The peer that claims to have sent it, where it is an initiation that the gate let in.
        claimed: Option<Key>,
    },
}

impl Endpoint {
    /// Something for the worker with this number; give it to that one's
    /// [`Self::handle_handover`], or back to [`Self::handle_handover_refused`].
    pub fn poll_handover(&mut self) -> Option<(u8, Handover)> {
        self.handovers.pop_front()
    }

    /// What another worker of this server got and is for us.
    pub fn handle_handover(&mut self, now: Time, handover: Handover) {
        match handover {
            Handover::Packet(packet) => {
                let bond = packet::addresses(packet.bytes())
                    .and_then(|(_, destination)| self.bond_of(destination));
                match bond {
                    Some(at) => {
                        self.with_bond(at, |bond, ctx| bond.handle_packet(now, packet, ctx));
                    }
                    None => {
                        self.drop_reason("packet_no_peer");
                        self.pool.put(packet);
                    }
                }
            }
            Handover::Datagram {
                arrival,
                datagram,
                claimed,
            } => {
                match (claimed, outer(datagram.bytes())) {
                    (Some(key), Some(Outer::Initiation { sender })) => {
                        self.welcome(now, arrival, (key, sender), datagram.bytes());
                    }
                    (None, Some(outer)) if outer.receiver().is_some() => {
                        if !self.pass_on(now, arrival, outer, datagram.bytes()) {
                            self.answer_stranger(arrival, outer);
                        }
                    }
                    _ => self.drop_reason("datagram_malformed"),
                }
                self.pool.put(datagram);
            }
        }
    }

    /// There was no room for what [`Self::poll_handover`] gave.
    pub fn handle_handover_refused(&mut self, handover: Handover) {
        self.drop_reason("handover_full");
        match handover {
            Handover::Packet(buf) | Handover::Datagram { datagram: buf, .. } => self.pool.put(buf),
        }
    }

    /// The other worker whose peer has this inner address.
    pub(super) fn worker_of(&self, inner: IpAddr) -> Option<u8> {
        let peer = self.peers.get(self.by_inner.get(&inner)?)?;
        (peer.worker != self.worker.number).then_some(peer.worker)
    }

    /// A datagram for an index that is none of ours.
    pub(super) fn lost_datagram(&mut self, arrival: Arrival, outer: Outer, datagram: &[u8]) {
        match outer.receiver().and_then(|index| self.worker.other(index)) {
            Some(worker) => self.hand_datagram_over(worker, arrival, datagram, None),
            None => self.answer_stranger(arrival, outer),
        }
    }

    pub(super) fn hand_over(&mut self, worker: u8, handover: Handover) {
        if self.handovers.len() < limits::HANDOVERS {
            self.handovers.push_back((worker, handover));
        } else {
            self.handle_handover_refused(handover);
        }
    }

    /// The same for a datagram, which is copied.
    pub(super) fn hand_datagram_over(
        &mut self,
        worker: u8,
        arrival: Arrival,
        datagram: &[u8],
        claimed: Option<Key>,
    ) {
        let mut buf = self.pool.take();
        buf.fill_from(datagram);
        let handover = Handover::Datagram {
            arrival,
            datagram: buf,
            claimed,
        };
        self.hand_over(worker, handover);
    }
}

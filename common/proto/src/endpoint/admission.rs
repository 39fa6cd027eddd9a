//! Who may have a bond with a server, and how a stranger's handshake becomes one of its paths.

use rand::Rng;

use super::{Endpoint, Peer, REPLIES};
use crate::bond::news;
use crate::config::{Key, Modes, PeerConfig};
use crate::event::Event;
use crate::limits;
use crate::session::{Admission, HANDSHAKE_MAX};
use crate::stats::PathState;
use crate::time::Time;
use crate::transmit::Arrival;

impl Endpoint {
    /// Server: somebody wants to shake hands.
    pub(super) fn admit(&mut self, now: Time, arrival: Arrival, sender: u32, datagram: &[u8]) {
        let mut out = [0; HANDSHAKE_MAX];
        let key = match self.identity.admit(arrival.remote.ip(), datagram, &mut out) {
            Admission::Claimed(key) => key,
            Admission::Refused(e) => return self.drop_reason(e.name()),
            Admission::Reply(len) => {
                self.drop_reason("handshake_cookie_sent");
                if self.replies.len() < REPLIES {
                    self.replies
                        .push_back((out[..len].to_vec(), arrival.into()));
                }
                return;
            }
        };
        match self.peers.get(&key).map(|peer| peer.worker) {
            None => self.drop_reason("handshake_unknown_peer"),
            Some(worker) if worker != self.worker.number => {
                self.hand_datagram_over(worker, arrival, datagram, Some(key));
            }
            Some(_) => self.welcome(now, arrival, (key, sender), datagram),
        }
    }

    /// The gate let this initiation in, which claims to be from the peer `key` of ours.
    pub(super) fn welcome(
        &mut self,
        now: Time,
        arrival: Arrival,
        (key, sender): (Key, u32),
        datagram: &[u8],
    ) {
        let Some(peer) = self.peers.get(&key) else {
            return self.drop_reason("handshake_unknown_peer");
        };
        let at = match peer.bond {
            Some(at) => at,
            None => {
                let config = peer.config.clone();
                let at = self.seat_bond(config, Modes::default());
                self.peers
                    .get_mut(&key)
                    .expect("the peer was just found")
                    .bond = Some(at);
                at
            }
        };
        // The tag is a hint: HELLO confirms it inside the session.
        let tag = (sender >> 8) as u8;
        let known = self.seats[at]
            .as_ref()
            .is_some_and(|s| s.bond.path_index(tag).is_some());
        if !known && !self.half_open(now, at, key, tag, arrival) {
            return self.drop_reason("handshake_too_many_paths");
        }
        self.with_bond(at, |bond, ctx| {
            bond.handle_datagram(now, tag, arrival, datagram, ctx)
        });
    }

    fn half_open(&mut self, now: Time, at: usize, key: Key, tag: u8, arrival: Arrival) -> bool {
        let Some(seat) = &self.seats[at] else {
            return false;
        };
        let open = seat.bond.paths().iter();
        let open = open
            .filter(|p| p.health.state() == PathState::Connecting)
            .count();
        if open >= limits::HALF_OPEN_PER_PEER {
            return false;
        }
        let index = self.free_index(None);
        let session = self.identity.session(key, index);
        let added = self.with_bond(at, |bond, ctx| {
            bond.add_path(now, tag, arrival.into(), (session, index), ctx)
                .is_some()
        });
        if added == Some(true) {
            self.by_index.insert(index, (at, tag));
            return true;
        }
        false
    }

    /// A 24-bit session index that is not in use; on a client its low byte is
    /// the path's tag, and among several workers its top bits are the worker's number.
    pub(super) fn free_index(&mut self, tag: Option<u8>) -> u32 {
        loop {
            let random = self.rng.next_u32() >> 8;
            let index = tag.map_or(random, |t| random & 0x00ff_ff00 | u32::from(t));
            let index = self.worker.mark(index);
            if !self.by_index.contains_key(&index) {
                return index;
            }
        }
    }

    pub(super) fn add_peer(&mut self, now: Time, config: PeerConfig, worker: u8) {
        if self
            .peers
            .get(&config.public)
            .is_some_and(|p| p.config == config && p.worker == worker)
        {
            return;
        }
        self.remove_peer(now, &config.public);
        for address in config.addresses() {
            self.by_inner.insert(address, config.public);
        }
        self.peers.insert(
            config.public,
            Peer {
                config,
                worker,
                bond: None,
            },
        );
    }

    pub(super) fn remove_peer(&mut self, now: Time, key: &Key) {
        let Some(peer) = self.peers.remove(key) else {
            return;
        };
        self.by_inner.retain(|_, owner| owner != key);
        self.last_inner = None;
        let Some(at) = peer.bond else { return };
        self.with_bond(at, |bond, ctx| bond.expel(now, ctx));
        if let Some((due, _)) = self.seats[at].take().and_then(|seat| seat.due) {
            self.timers.remove(&(due, at));
        }
        self.restless.retain(|&r| r != at);
        news(&mut self.events, Event::BondDown { peer: *key });
    }
}

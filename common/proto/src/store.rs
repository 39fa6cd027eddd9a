//! Packets that were sent and are not known to have arrived.
//!
//! A packet stays here from its first transmission until some copy of it is
//! acknowledged or it is given up. Paths refer to it by key; a key that has
//! outlived its packet finds nothing, so a late acknowledgement is harmless.

use std::time::Duration;

use crate::buffer::{PacketBuf, Pool};
use crate::classify::Class;
use crate::frame::Opening;
use crate::limits;
use crate::time::Time;

/// Refers to a stored packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketKey {
    index: u32,
    generation: u32,
}

/// A packet under way.
#[derive(Debug)]
pub struct Stored {
    /// The inner packet.
    pub packet: PacketBuf,
    /// Its flow's slot.
    pub slot: u16,
    /// Its number within the slot.
    pub seq: u64,
    /// Its class when it was first sent.
    pub class: Class,
    /// Whether it is delivered in order.
    pub ordered: bool,
    /// Whether it is released at a constant latency.
    pub steady: bool,
    /// Whether its sender waits for it, however long that takes.
    pub patient: bool,
    /// When it came.
    pub since: Time,
    /// When it was first sent.
    pub first_sent: Time,
    /// Transmissions so far.
    pub copies: u8,
    /// How often it was declared lost.
    pub losses: u8,
    /// Copies that may still arrive.
    pub in_flight: u8,
    /// Whether it waits to be sent again.
    pub queued: bool,
    /// The base that its header opened.
    pub opens: Option<Opening>,
}

impl Stored {
    /// Whether it is too old to be sent again. Nothing could pass before `outage_end`; `rtt` is the best round trip.
    pub fn is_stale(&self, now: Time, outage_end: Time, rtt: Duration) -> bool {
        let age = now.since(self.first_sent);
        match self.class {
            // Where two repairs take longer than that, they are still worth it: who listens is used to the delay.
            Class::Realtime => age > limits::REALTIME_EXPIRY.max(rtt * 3),
            Class::Interactive | Class::Bulk if self.patient => {
                let waited = now.since(self.first_sent.max(outage_end));
                // Its life began when it came, so what it waited for a path counts as well.
                waited > limits::RETRANSMIT_AGE_MAX || now.since(self.since) > limits::PACKET_LIFE
            }
            Class::Interactive | Class::Bulk => age > limits::RETRANSMIT_AGE_MAX,
        }
    }
}

#[derive(Debug)]
struct Cell {
    generation: u32,
    stored: Option<Stored>,
}

/// All packets under way of one bond.
#[derive(Debug, Default)]
pub struct Store {
    cells: Vec<Cell>,
    free: Vec<u32>,
    /// That of a new cell.
    generation: u32,
}

impl Store {
    /// Keeps a packet.
    pub fn insert(&mut self, stored: Stored) -> PacketKey {
        let index = self.free.pop().unwrap_or_else(|| {
            self.cells.push(Cell {
                generation: self.generation,
                stored: None,
            });
            (self.cells.len() - 1) as u32
        });
        let cell = &mut self.cells[index as usize];
        cell.stored = Some(stored);
        PacketKey {
            index,
            generation: cell.generation,
        }
    }

    /// The packet, while it is kept.
    pub fn get_mut(&mut self, key: PacketKey) -> Option<&mut Stored> {
        let cell = self.cells.get_mut(key.index as usize)?;
        if cell.generation == key.generation {
            cell.stored.as_mut()
        } else {
            None
        }
    }

    /// Forgets a packet; its buffer goes back to the pool.
    pub fn remove(&mut self, key: PacketKey, pool: &mut Pool) -> Option<(u16, u64)> {
        let cell = self.cells.get_mut(key.index as usize)?;
        if cell.generation != key.generation {
            return None;
        }
        let stored = cell.stored.take()?;
        cell.generation = cell.generation.wrapping_add(1);
        self.free.push(key.index);
        pool.put(stored.packet);
        Some((stored.slot, stored.seq))
    }

    /// The bond is idle: gives back memory, unless a packet is under way.
    pub fn rest(&mut self) {
        if self.count() > 0 {
            return;
        }
        // Keys of packets that are gone may still be around, and shall find nothing later either.
        let newest = self.cells.iter().map(|cell| cell.generation).max();
        self.generation = newest.unwrap_or(self.generation);
        self.cells = Vec::new();
        self.free = Vec::new();
    }

    /// Packets under way.
    pub fn count(&self) -> usize {
        self.cells.len() - self.free.len()
    }

    /// Forgets everything.
    pub fn clear(&mut self, pool: &mut Pool) {
        for (index, cell) in self.cells.iter_mut().enumerate() {
            if let Some(stored) = cell.stored.take() {
                cell.generation = cell.generation.wrapping_add(1);
                self.free.push(index as u32);
                pool.put(stored.packet);
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A packet that is under way once.
    pub(crate) fn stored(seq: u64) -> Stored {
        Stored {
            packet: PacketBuf::new(),
            slot: 0,
            seq,
            class: Class::Bulk,
            ordered: true,
            steady: false,
            patient: false,
            since: Time::ZERO,
            first_sent: Time::ZERO,
            copies: 1,
            losses: 0,
            in_flight: 1,
            queued: false,
            opens: None,
        }
    }

    #[test]
    fn a_packet_lives_from_when_it_came_however_often_nothing_could_pass() {
        let rtt = Duration::from_millis(50);
        let first_sent = Time::ZERO + limits::PACKET_LIFE - Duration::from_secs(1);
        let packet = Stored {
            patient: true,
            first_sent,
            ..stored(1)
        };
        let again_at = |now| packet.is_stale(now, now, rtt);
        assert!(!again_at(first_sent + Duration::from_millis(500)));
        assert!(again_at(first_sent + Duration::from_secs(2)));
    }

    #[test]
    fn a_key_that_outlived_its_packet_finds_nothing() {
        let (mut store, mut pool) = (Store::default(), Pool::default());
        let old = store.insert(stored(1));
        assert_eq!(store.remove(old, &mut pool), Some((0, 1)));
        let new = store.insert(stored(2));
        assert!(store.get_mut(old).is_none());
        assert_eq!(store.remove(old, &mut pool), None);
        assert_eq!(store.get_mut(new).map(|s| s.seq), Some(2));
        assert_eq!(store.count(), 1);
    }

    #[test]
    fn a_key_that_outlived_its_packet_finds_nothing_after_a_rest_either() {
        let (mut store, mut pool) = (Store::default(), Pool::default());
        let old: Vec<_> = (0..3).map(|seq| store.insert(stored(seq))).collect();
        for key in &old {
            store.remove(*key, &mut pool);
        }
        store.rest();
        for seq in 3..6 {
            store.insert(stored(seq));
        }
        assert!(old.iter().all(|key| store.get_mut(*key).is_none()));
        // What is under way stays.
        store.rest();
        assert_eq!(store.count(), 3);
    }
}

//! Copies for a path whose rate nobody knows ([`crate::path::Trial`]): which packets, and when.
//!
//! What goes over the other paths for a flow that asks for more than the best
//! path is remembered for a moment; when nothing else is to be sent, the path on
//! trial gets a copy of it.

use std::collections::VecDeque;

use super::Bond;
use super::pick::{Pick, wants_more};
use crate::classify::Class;
use crate::limits;
use crate::store::PacketKey;
use crate::time::Time;

/// Packets that are remembered: a train for each round of the driver.
const RECENT: usize = 64;

/// What was sent of late, for a path on trial.
#[derive(Debug, Default)]
pub(super) struct Recent {
    keys: VecDeque<PacketKey>,
    /// How many there ever were.
    count: u64,
}

impl Recent {
    /// Forgets the packets.
    pub fn clear(&mut self) {
        self.keys.clear();
    }

    /// The bond is idle: gives back memory.
    pub fn rest(&mut self) {
        self.keys.shrink_to(limits::IDLE_ENTRIES);
    }

    fn push(&mut self, key: PacketKey) {
        if self.keys.len() >= RECENT {
            self.keys.pop_front();
        }
        self.keys.push_back(key);
        self.count += 1;
    }

    /// How many came after the first `copied`.
    fn fresh(&self, copied: u64) -> usize {
        self.keys.len().min((self.count - copied) as usize)
    }
}

impl Bond {
    /// A copy of something recent, for the path that is on trial.
    pub(super) fn pick_for_trial(&mut self, now: Time, only: Option<usize>) -> Option<(u8, Pick)> {
        let index = self.order.trial.filter(|&i| only.is_none_or(|o| o == i))?;
        if self.fresh_for_trial(index) == 0 || !self.can_send(now, index) {
            return None;
        }
        while let fresh @ 1.. = self.fresh_for_trial(index) {
            let path = &mut self.paths[index];
            path.trial.copied = self.recent.count - fresh as u64 + 1;
            let key = self.recent.keys[self.recent.keys.len() - fresh];
            if self.store.get_mut(key).is_some() {
                let first = path.trial.started(now, path.rtt.smoothed());
                self.counters.trials += u64::from(first);
                return Some((path.tag, Pick::Copy(key)));
            }
        }
        None
    }

    /// How many of the recent packets have not been copied to the path on trial.
    pub(super) fn fresh_for_trial(&self, index: usize) -> usize {
        self.recent.fresh(self.paths[index].trial.copied)
    }

    /// Remembers what a flow that asks for more than the best path has sent, for a path on trial.
    pub(super) fn note_recent(&mut self, now: Time, key: PacketKey, slot: u16) {
        let asks = self.order.best().is_some_and(|best| {
            let flow = self.flows.get_mut(slot);
            flow.is_some_and(|f| f.class == Class::Bulk && wants_more(f, now, best.capacity))
        });
        if !asks || self.order.trial.is_none() {
            return;
        }
        self.recent.push(key);
    }
}

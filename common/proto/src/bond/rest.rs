//! An idle bond gives back the memory that its last burst took.
//!
//! Lists grow to what the worst moment needed: the answers to a train of pings, a second of datagrams in flight, what a
//! hole held back. While packets pass, that is what makes them cost no allocation. A server has many more peers that
//! are idle than peers that are not, and for those it would be most of what they weigh. So a bond that carried nothing
//! for [`limits::FLOW_IDLE`], after which nothing of its last packets is under way, keeps small lists only. It is done
//! when the bond is called for the timers of its sessions anyway, so nobody wakes for it, and no packet pays.

use super::Bond;
use crate::limits;
use crate::time::Time;

impl Bond {
    /// Gives memory back, once for each time that the bond falls idle, and that of paths each time: they are measured
    /// and greeted while no packet passes.
    pub(super) fn rest(&mut self, now: Time) {
        if now.since(self.last_packet) < limits::FLOW_IDLE {
            return;
        }
        for path in &mut self.paths {
            path.rest(now);
        }
        // A sender that waits for a repair for minutes keeps everything.
        if self.rested == Some(self.last_packet) || self.store.count() > 0 {
            return;
        }
        self.rested = Some(self.last_packet);
        self.store.rest();
        self.flows.rest();
        self.reorder.rest();
        self.copies.rest();
        self.recent.rest();
        self.retransmits.shrink_to(limits::IDLE_ENTRIES);
        self.arrived.shrink_to(limits::IDLE_ENTRIES);
        self.lost.shrink_to(limits::IDLE_ENTRIES);
        self.dropped.shrink_to(limits::IDLE_ENTRIES);
    }
}

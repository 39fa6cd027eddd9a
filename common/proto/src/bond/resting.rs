//! Who may rest, and what ends it: [`crate::path::Path`] says how.
//!
//! A path that nobody needs is not kept alive ([`path/resting.rs`](crate::path)). Whether it is needed shows only beside
//! the others: a backup is not while another uplink serves, be the bond as busy as it likes; any other path is not while
//! no inner packet passes.

use super::{Bond, Context, Side};
use crate::config::Role;
use crate::path::{Address, BUSY, Path, RENEW_WITHIN, Standing};
use crate::time::Time;
use crate::transmit::Arrival;

impl Bond {
    /// Where a path stands among the others.
    pub(super) fn standing(&self, now: Time, index: usize) -> Standing {
        let idle = now.since(self.last_packet);
        let stands_by = self.stands_by(now, index);
        Standing {
            alone: self.is_alone(index),
            idle,
            rests: stands_by || idle >= BUSY,
            renews: !stands_by && idle < RENEW_WITHIN,
            keeps: self.side == Side::Client && !stands_by,
        }
    }

    /// Whether it is a backup, and another path serves or will when it is asked to.
    fn stands_by(&self, now: Time, index: usize) -> bool {
        let serves = |p: &Path| {
            p.role != Role::Backup
                && (p.health.works() || p.rests_calmly(now))
                && !p.received.is_silent(now)
        };
        self.paths[index].role == Role::Backup && self.paths.iter().any(serves)
    }

    /// What a WAKE must return, for a path's next KEEP.
    pub(super) fn next_cookie(&mut self) -> u32 {
        let [a, b, c, d, ..] = self.next_token();
        u32::from_be_bytes([a, b, c, d])
    }

    /// Server: a client at rest shows itself.
    pub fn handle_keep(
        &mut self,
        now: Time,
        tag: u8,
        arrival: Arrival,
        sender: u32,
        cookie: u32,
        ctx: &mut Context<'_>,
    ) {
        let Some(index) = self.path_index(tag).filter(|_| self.side == Side::Server) else {
            return self.drop_packet("keep_unexpected");
        };
        self.tick_session(now, index, ctx);
        let busy = now.since(self.last_packet) < BUSY;
        self.paths[index].on_keep(now, Address::from(arrival), sender, cookie, busy);
    }

    /// A session came to be over a path at rest. The handshake came from there: it is the path's address.
    pub(super) fn end_rest(&mut self, now: Time, index: usize, arrival: Arrival) {
        let path = &mut self.paths[index];
        if path.end_rest(now) && self.side == Side::Server {
            path.address = Address::from(arrival);
        }
    }

    /// Client: packets for us wait at the server, or it lost track of us.
    pub fn handle_wake(&mut self, now: Time, tag: u8, cookie: u32) {
        let Some(index) = self.path_index(tag).filter(|_| self.side == Side::Client) else {
            return self.drop_packet("wake_unexpected");
        };
        if !self.paths[index].on_wake(now, cookie) {
            return self.drop_packet("wake_forged");
        }
        // Each is good for one.
        let next = self.next_cookie();
        self.paths[index].set_cookie(next);
    }
}

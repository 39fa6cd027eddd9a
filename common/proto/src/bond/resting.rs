//! Who may rest, and what ends it: [`crate::path::Path`] says how.
//!
//! A path that nobody needs is not kept alive ([`path/resting.rs`](crate::path)). Whether it is needed shows only beside
//! the others: a backup is not while another uplink serves, be the bond as busy as it likes; any other path is not while
//! no inner packet passes.

use rand::Rng;

use super::{Bond, Context, Side};
use crate::config::Role;
use crate::path::{Address, Mark, Path, Standing};
use crate::session::Keep;
use crate::time::Time;
use crate::transmit::Arrival;

impl Bond {
    /// Where a path stands among the others.
    pub(super) fn standing(&self, now: Time, index: usize) -> Standing {
        Standing {
            alone: self.is_alone(index),
            idle: now.since(self.last_packet),
            stands_by: self.stands_by(now, index),
        }
    }

    /// Whether it is a backup that nobody needs: another path serves. For a client one at rest is as good, since it can be
    /// roused. A server cannot rouse it, so it wakes the client over the backup as well, if the client showed itself there.
    pub(super) fn stands_by(&self, now: Time, index: usize) -> bool {
        let will = |p: &Path| self.side == Side::Client && p.rests_calmly(now);
        let serves = |p: &Path| {
            p.role != Role::Backup && (p.health.works() || will(p)) && !p.received.is_silent(now)
        };
        self.paths[index].role == Role::Backup && self.paths.iter().any(serves)
    }

    /// Server: when a path at rest was heard of last. A backup shows itself by what is said over the others.
    pub(super) fn last_sign(&self, path: &Path) -> Time {
        let told = |p: &&Path| path.role == Role::Backup && p.role != Role::Backup;
        let others = self.paths.iter().filter(told).map(Path::last_sign);
        others.fold(path.last_sign(), Time::max)
    }

    /// Server: a client at rest shows itself.
    pub fn handle_keep(
        &mut self,
        now: Time,
        tag: u8,
        arrival: Arrival,
        keep: Keep,
        ctx: &mut Context<'_>,
    ) {
        let Some(index) = self.path_index(tag).filter(|_| self.side == Side::Server) else {
            return self.drop_packet("keep_unexpected");
        };
        self.tick_session(now, index, ctx);
        let mark = Mark {
            address: Address::from(arrival),
            keep,
            at: now,
        };
        let standing = self.standing(now, index);
        if !self.paths[index].on_keep(mark, &standing) {
            self.drop_packet("keep_forged");
        }
    }

    /// A session came to be over a path at rest. The handshake came from there: it is the path's address.
    pub(super) fn end_rest(&mut self, now: Time, index: usize, arrival: Arrival) {
        let path = &mut self.paths[index];
        if path.end_rest(now) && self.side == Side::Server {
            path.address = Address::from(arrival);
        }
    }

    /// Client: the server was asked whether it sees us, and does.
    pub fn handle_seen(&mut self, now: Time, tag: u8, cookie: u32) {
        let Some(index) = self.path_index(tag).filter(|_| self.side == Side::Client) else {
            return self.drop_packet("seen_unexpected");
        };
        if !self.paths[index].on_seen(now, cookie) {
            self.drop_packet("seen_forged");
        }
    }

    /// Client: packets for us wait at the server, or it lost track of us.
    pub fn handle_wake(&mut self, now: Time, tag: u8, cookie: u32, ctx: &mut Context<'_>) {
        let Some(index) = self.path_index(tag).filter(|_| self.side == Side::Client) else {
            return self.drop_packet("wake_unexpected");
        };
        self.tick_session(now, index, ctx);
        if !self.paths[index].on_wake(now, cookie, ctx.rng.next_u32()) {
            self.drop_packet("wake_forged");
        }
    }
}

//! Packets and paths that do not fit each other.
//!
//! Two limits hold for inner packets. The *inner MTU* is the smaller of what both sides were told to take, and paths
//! have no say in it: what does not fit one of them goes over it in halves. Only when the other side cannot join halves
//! does the narrowest interface decide. What is larger than the inner MTU is cut (IPv4 without DF) or answered.
//!
//! The *worthwhile* size is what TCP is told ([`mss::worthwhile`]): a second datagram per packet costs more than
//! slightly smaller packets do, so new connections follow a narrow path that carries much, and not one that carries
//! little.

use super::{Bond, Context};
use crate::buffer::PacketBuf;
use crate::config::Role;
use crate::mss;
use crate::session::OVERHEAD;
use crate::time::Time;

impl Bond {
    /// The largest inner packet that this side takes.
    pub(super) fn own_fit(&self) -> u16 {
        if self.peer_joins != Some(false) {
            return self.own_mtu;
        }
        let paths = self.paths.iter().map(|p| p.mtu.interface_fit()).min();
        self.own_mtu.min(paths.unwrap_or(u16::MAX))
    }

    /// The largest inner packet that both sides take.
    pub(super) fn fitting_mtu(&self) -> u16 {
        self.own_fit().min(self.peer_mtu)
    }

    /// A path came or went: what fits may have changed.
    pub fn refit(&mut self, now: Time) {
        let mtu = self.fitting_mtu();
        if mtu != self.mtu {
            self.mtu = mtu;
            self.greet_all(now);
        }
    }

    /// A path came up: looks how large its datagrams may be. One that stands by is asked when it is needed.
    pub(super) fn search_sizes(&mut self, now: Time, index: usize) {
        let path = &mut self.paths[index];
        if path.role != Role::Backup {
            path.mtu.begin(now);
        }
    }

    /// The system refused to send datagrams of this size. None of them is lost; their packets are sent again.
    pub fn refuse_size(&mut self, now: Time, index: usize, len: usize, ctx: &mut Context<'_>) {
        self.paths[index].on_refused(now, len, &mut self.lost);
        self.requeue_lost(now, false, ctx);
    }

    /// The inner packet that TCP is told to fill.
    pub(super) fn worthwhile_mtu(&self) -> u16 {
        let used = self.paths.iter().filter(|p| p.health.is_active());
        let fits = used.filter(|p| p.role != Role::Backup).map(|p| mss::Fit {
            // Squeezing saves a TCP segment at least the bytes of its frame header.
            len: p.mtu.expected_max().saturating_sub(OVERHEAD),
            around: p.mtu.headers() + OVERHEAD,
            capacity: p.rate.capacity(),
        });
        let fits: Vec<mss::Fit> = fits.collect();
        mss::worthwhile(self.mtu, &fits)
    }

    /// An inner packet from the TUN that is larger than both sides agreed to.
    pub(super) fn handle_too_big(
        &mut self,
        now: Time,
        mut packet: PacketBuf,
        ctx: &mut Context<'_>,
    ) {
        // What is cut or quoted has to be right by itself.
        packet.complete();
        let pieces = mss::fragments(packet.bytes(), self.mtu);
        if pieces.is_empty() {
            self.drop_packet("packet_too_big");
            if let Some(reply) = mss::too_big(packet.bytes(), self.mtu) {
                ctx.ready.push_back(PacketBuf::copy_of(&reply));
            }
        }
        ctx.pool.put(packet);
        for piece in pieces {
            let mut buf = ctx.pool.take();
            buf.fill_from(&piece);
            self.handle_packet(now, buf, ctx);
        }
    }
}

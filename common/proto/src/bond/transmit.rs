//! What is sent next: its order, and the trains that it leaves in.
//!
//! In this order: handshake messages, frames that steer and measure,
//! acknowledgements, realtime packets, interactive packets, copies, repairs,
//! bulk. The first three, realtime packets and copies do not wait for the pacer:
//! they are small, and late they are worth nothing. They are charged to it all
//! the same, so bulk makes room for them. When realtime or interactive packets
//! ask for more than their share, they are paced like all others, and while
//! others wait, they come last ([`crate::tiers`]).
//!
//! Datagrams of one path and one size leave as a train that the kernel cuts
//! apart. A train is short, at most a millisecond of the path's rate.

use super::{Bond, Context};
use crate::classify::Class;
use crate::frame::{self, Frame, Probe};
use crate::path::{Address, Kind, MessageContent, Outgoing, lengthen};
use crate::stamp;
use crate::time::Time;
use crate::transmit::Transmit;

/// Bytes of a train at most: the kernel cuts apart what one IP packet holds, its headers included.
const TRAIN_BYTES: usize = 65_000;

impl Bond {
    /// The next train of datagrams, sealed into the front of `out`.
    pub fn poll_transmit(
        &mut self,
        now: Time,
        out: &mut Vec<u8>,
        max_segments: usize,
        ctx: &mut Context<'_>,
    ) -> Option<Transmit> {
        self.tick_sessions(now, ctx);
        if let Some(transmit) = self.poll_raw(now, out) {
            return Some(transmit);
        }
        if let Some(transmit) = self.poll_message(now, out, ctx) {
            return Some(transmit);
        }
        if let Some(transmit) = self.poll_probe_train(now, out, ctx) {
            return Some(transmit);
        }
        self.reorder_paths(now);
        self.copy_tails(now);
        self.copy_unanswered(now);
        self.send_echoes(now);
        if self.ack_due().is_some_and(|due| due <= now)
            && let Some(transmit) = self.poll_ack(now, out, ctx)
        {
            return Some(transmit);
        }
        self.poll_train(now, out, max_segments, ctx)
    }

    fn poll_raw(&mut self, now: Time, out: &mut [u8]) -> Option<Transmit> {
        for path in &mut self.paths {
            let Some((datagram, to)) = path.raw.pop_front() else {
                continue;
            };
            out[..datagram.len()].copy_from_slice(&datagram);
            path.count_sent(now, datagram.len());
            return Some(transmit(to.unwrap_or(path.address), datagram.len()));
        }
        None
    }

    fn poll_message(
        &mut self,
        now: Time,
        out: &mut [u8],
        ctx: &mut Context<'_>,
    ) -> Option<Transmit> {
        let path = self
            .paths
            .iter_mut()
            .find(|p| !p.messages.is_empty() && p.session.is_established())?;
        let message = path.messages.pop_front()?;
        frame::encode(&message.content.frame(), stamp::stamp(now), ctx.scratch);
        let (len, number) = path.session.seal(ctx.scratch, out)?;
        let tick = message.content == MessageContent::Probe(Probe::Tick);
        // Nobody waits for a probe of a size, and nobody minds when it is lost.
        let probe = matches!(message.content, MessageContent::Probe(Probe::Size { .. }));
        let outgoing = Outgoing {
            len,
            eliciting: !probe,
            limited: true,
            packet: None,
            kind: if probe { Kind::Probe } else { Kind::Whole },
        };
        path.on_sealed(now, number, outgoing, tick.then_some(false));
        Some(transmit(message.to.unwrap_or(path.address), len))
    }

    /// The next ping of a train that guesses a path's rate. It waits for no pacer: a train is back to back.
    fn poll_probe_train(
        &mut self,
        now: Time,
        out: &mut [u8],
        ctx: &mut Context<'_>,
    ) -> Option<Transmit> {
        let mut paths = self.paths.iter_mut();
        let path = paths.find(|p| p.train.has_next() && p.session.is_established())?;
        let id = path.train.poll_next()?;
        let ping = Frame::Probe(Probe::Ping { id });
        frame::encode(&ping, stamp::stamp(now), ctx.scratch);
        lengthen(ctx.scratch);
        let (len, number) = path.session.seal(ctx.scratch, out)?;
        path.on_train_sealed(now, number, len);
        Some(transmit(path.address, len))
    }

    fn poll_train(
        &mut self,
        now: Time,
        out: &mut Vec<u8>,
        max_segments: usize,
        ctx: &mut Context<'_>,
    ) -> Option<Transmit> {
        let (tag, first) = match self.stashed.take() {
            Some(stashed) => stashed,
            None => self.pick(now, None, ctx)?,
        };
        let index = self
            .path_index(tag)
            .expect("a pick whose path is gone was put back");
        let first = self.send(now, index, first, (out, 0, usize::MAX), ctx)?;
        let (mut len, segment_len) = (first.len, first.segment_len);
        let train = self.paths[index].train().min(TRAIN_BYTES);
        let mut segments = 1;
        // A shorter datagram ends the train, and two halves are one of their own.
        while len == segments * segment_len && segments < max_segments && len + segment_len <= train
        {
            let ready =
                self.paths[index].ready_in(now).is_zero() && !self.paths[index].check_full();
            if !ready {
                break;
            }
            let Some((_, next)) = self.pick(now, Some(index), ctx) else {
                break;
            };
            let Some(sent) = self.send(now, index, next, (out, len, segment_len), ctx) else {
                break;
            };
            len += sent.len;
            segments += 1;
        }
        let mut transmit = transmit(self.paths[index].address, len);
        transmit.segment_len = segment_len;
        Some(transmit)
    }

    /// When a path with something to send may send again. Bulk waits until a train may leave:
    /// waking for each packet costs more than the packet does. Nothing else waits for company.
    pub(super) fn pace_due(&self, now: Time) -> Option<Time> {
        let urgent = !self.retransmits.is_empty()
            || self.queue.has(Class::Interactive)
            || self.queue.has(Class::Realtime);
        let bulk = self.queue.has(Class::Bulk);
        let trial = self.order.trial.filter(|&i| i < self.paths.len());
        let trial = trial.filter(|&i| self.fresh_for_trial(i) > 0);
        let usable = self.order.usable.iter();
        usable
            .filter(|v| !v.full && (urgent || bulk || trial == Some(v.index)))
            .filter_map(|v| self.paths.get(v.index))
            .filter(|p| p.next_send() > now)
            .map(|p| {
                if urgent {
                    p.next_send()
                } else {
                    p.next_train()
                }
            })
            .min()
    }
}

pub(super) fn transmit(to: Address, len: usize) -> Transmit {
    Transmit {
        socket: to.socket,
        remote: to.remote,
        local: to.local,
        len,
        segment_len: len,
    }
}

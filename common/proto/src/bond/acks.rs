//! When an acknowledgement is sent, and over which path.
//!
//! One acknowledgement speaks for all paths and travels over whichever is quickest, so a path's own way back matters to
//! nobody. It waits until there is more to acknowledge: a quarter of a round trip, as the sender's rate control bears, and
//! longer where the way back is too thin for so many of them. A realtime packet that comes alone after a pause is
//! acknowledged at once: the next is far off, and its sender copies it when it hears nothing.

use std::time::Duration;

use super::transmit::transmit;
use super::{Bond, Context};
use crate::frame::{self, Ack, Frame, MAX_ACK_PATHS};
use crate::path::{Kind, Outgoing};
use crate::stamp;
use crate::time::Time;
use crate::transmit::Transmit;

/// An acknowledgement is sent at once for this many datagrams.
const ACK_EVERY: u32 = 64;
/// Shortest and longest wait before an acknowledgement.
const ACK_MIN: Duration = Duration::from_millis(2);
const ACK_MAX: Duration = Duration::from_millis(10);
/// A new hole is told at once, but not more often than this.
const ACK_HOLE: Duration = Duration::from_millis(1);
/// Share of the way back that acknowledgements may take.
const ACK_SHARE: f64 = 0.03;
/// Wire bytes of a typical acknowledgement, UDP and IP included.
const ACK_LEN: f64 = 140.0;
/// Received runs that all paths of one acknowledgement may report together: with
/// 16 sessions' entries they stay below 1,200 bytes.
const ACK_RUNS: usize = 180;

impl Bond {
    /// How long acknowledgements may wait: a quarter of a round trip, and no
    /// more often than the way back bears.
    fn ack_delay(&self) -> Duration {
        let active = || self.paths.iter().filter(|p| p.health.is_active());
        let rtt = active()
            .filter(|p| p.rtt.is_known())
            .map(|p| p.rtt.min())
            .min();
        let usual = (rtt.unwrap_or(ACK_MAX) / 4).clamp(ACK_MIN, ACK_MAX);
        let back = self.order.best().map_or(0.0, |v| v.capacity);
        if back <= 0.0 {
            return usual;
        }
        let bearable = Duration::from_secs_f64((ACK_LEN / (ACK_SHARE * back)).min(0.025));
        usual.max(bearable)
    }

    pub(super) fn ack_due(&self) -> Option<Time> {
        if !self.paths.iter().any(|p| p.session.is_established()) {
            return None;
        }
        let delay = self.ack_delay();
        self.paths
            .iter()
            .filter_map(|path| {
                let (since, count) = path.received.pending()?;
                if path.received.has_new_hole() {
                    return Some((since + delay).min(self.last_ack + ACK_HOLE));
                }
                let after_pause = since >= self.last_ack + delay * 3 / 2;
                let alone = count == 1 && path.received.has_realtime() && after_pause;
                Some(if alone || count >= ACK_EVERY {
                    since
                } else {
                    since + delay
                })
            })
            .min()
    }

    /// The path for the next acknowledgement.
    fn ack_path(&self, now: Time) -> Option<usize> {
        let works = |&i: &usize| self.paths[i].health.works();
        let mut best = self.best_paths().filter(works);
        let Some(quickest) = best.next() else {
            // None works: the one that spoke last hears us soonest.
            return (0..self.paths.len())
                .filter(|&i| self.paths[i].session.is_established())
                .max_by_key(|&i| self.paths[i].received.last_arrival());
        };
        // A doubtful path carries every other one only. When it dies, acknowledgements still arrive over another, and the
        // paths that work do not look dead as well.
        let spread = self.paths[quickest].is_doubtful(now) && !self.ack_seq.is_multiple_of(2);
        best.next().filter(|_| spread).or(Some(quickest))
    }

    pub(super) fn poll_ack(
        &mut self,
        now: Time,
        out: &mut [u8],
        ctx: &mut Context<'_>,
    ) -> Option<Transmit> {
        let index = self.ack_path(now)?;
        let mut ack = Ack {
            seq: self.ack_seq,
            paths: Vec::with_capacity(self.paths.len()),
        };
        for path in &mut self.paths {
            path.received.report(now, path.tag, &mut ack.paths);
        }
        ack.paths.truncate(MAX_ACK_PATHS);
        // However many paths report, one acknowledgement fits into one datagram.
        let runs_each = ACK_RUNS / ack.paths.len().max(1);
        ack.paths
            .iter_mut()
            .for_each(|p| p.ranges.truncate(runs_each));
        self.ack_seq = self.ack_seq.wrapping_add(1);
        self.last_ack = now;
        frame::encode(&Frame::Ack(ack), stamp::stamp(now), ctx.scratch);
        let path = &mut self.paths[index];
        let (len, number) = path.session.seal(ctx.scratch, out)?;
        let outgoing = Outgoing {
            len,
            eliciting: false,
            limited: true,
            packet: None,
            kind: Kind::Whole,
        };
        path.on_sealed(now, number, outgoing, None);
        self.counters.acks_sent += 1;
        self.counters.ack_bytes += len as u64;
        Some(transmit(path.address, len))
    }
}

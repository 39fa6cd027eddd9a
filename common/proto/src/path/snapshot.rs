//! A path as figures.

use super::Path;
use crate::congestion::RateReason;
use crate::schedule::Rank;
use crate::stats::PathSnapshot;
use crate::time::Time;

/// What is decided about a path by comparing it with the others of its bond.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Place {
    /// What it is to bulk.
    pub rank: Rank,
    /// Whether long flows use it from their first packet on.
    pub in_set: bool,
    /// How much longer its base delay is than that of the quickest, milliseconds.
    pub behind_ms: Option<f64>,
}

impl Path {
    /// A picture of it.
    pub fn snapshot(&self, now: Time, place: Place) -> PathSnapshot {
        PathSnapshot {
            id: self.tag,
            name: self.name.clone(),
            socket: self.address.socket,
            remote: self.address.remote,
            role: self.role,
            state: self.health.state(),
            reason: self.health.reason(),
            rtt_ms: if self.rtt.is_known() {
                self.rtt.smoothed().as_secs_f64() * 1e3
            } else {
                0.0
            },
            rtt_min_ms: if self.rtt.is_known() {
                self.rtt.min().as_secs_f64() * 1e3
            } else {
                0.0
            },
            queue_ms: self.rate.queue_ms(),
            jitter_ms: self.jitter_ms(),
            behind_ms: place.behind_ms,
            capacity_bit_s: (self.rate.capacity() * 8.0) as u64,
            pace_bit_s: (self.rate.pace() * 8.0) as u64,
            rate_reason: self.rate_reason(now),
            carries_bulk: place.rank.carries_bulk(),
            rank: place.rank,
            in_set: place.in_set,
            control: self.rate.phase().name().to_owned(),
            loss: self.loss_share,
            inflight_bytes: self.sent.inflight_bytes(),
            sent: self.sent_datagrams,
            sent_bytes: self.sent_bytes,
            received: self.received.datagrams,
            received_bytes: self.received.bytes_total,
            lost: self.sent.lost,
            lost_spurious: self.sent.spurious,
            mtu: self.mtu.packet_max(),
            black_holes: self.black_holes,
        }
    }

    /// Whether as much arrived once as it is believed to carry.
    fn is_seen(&self) -> bool {
        self.rate.seen() >= self.rate.capacity()
    }

    /// Why its rate is what it is. The rate itself does not know that it was begun with a guess.
    fn rate_reason(&self, now: Time) -> RateReason {
        match self.rate.reason(now) {
            RateReason::Start if self.train.guess().is_some() && !self.is_seen() => {
                RateReason::Guessed
            }
            reason => reason,
        }
    }
}

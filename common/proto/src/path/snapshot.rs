//! A path as figures.

use super::Path;
use crate::stats::PathSnapshot;

impl Path {
    /// A picture of it.
    pub fn snapshot(&self) -> PathSnapshot {
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
            capacity_bit_s: (self.rate.capacity() * 8.0) as u64,
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
        }
    }
}

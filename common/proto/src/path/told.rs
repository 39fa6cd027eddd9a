//! What acknowledgements and answers tell of a path, and what that makes of it.
//!
//! They settle what was sent, feed the rate and the round trip, end a suspicion, and show losses and sizes that do
//! not pass. What came back after an outage, or lost nothing but large datagrams, has a rate that begins anew.

use std::time::Duration;

use super::{Change, MessageContent, Path, Trial};
use crate::congestion::RateSample;
use crate::event::PathReason;
use crate::frame::{PathAck, Probe};
use crate::stats::PathState;
use crate::store::PacketKey;
use crate::time::Time;

/// A path that was out of service for less than this was suspected wrongly.
const FALSE_SUSPICION: Duration = Duration::from_millis(400);
/// Weight of one datagram in the loss share that people see.
const LOSS_WEIGHT: f64 = 1.0 / 256.0;

impl Path {
    /// Takes in one acknowledgement entry. What arrived and what was lost is
    /// appended to the lists. `alone`: no other path works.
    pub fn on_ack(
        &mut self,
        now: Time,
        ack: &PathAck,
        alone: bool,
        arrived: &mut Vec<PacketKey>,
        lost: &mut Vec<PacketKey>,
    ) -> Option<Change> {
        let outcome = self.sent.on_ack(now, ack, arrived);
        if let Some(len) = outcome.probe {
            self.mtu.on_probe_arrived(now, usize::from(len));
        }
        // A train waits in its own queue: its round trips are no one else's.
        if let Some(rtt) = outcome.rtt.filter(|_| outcome.datagrams > 0) {
            self.rtt.sample(now, rtt);
        }
        if let Some(waited) = outcome.waited {
            self.answers.sample(waited);
        }
        let (count, again) = self.sent.detect_losses(now, &self.rtt, lost);
        self.loss_check = again;
        self.watch_sizes(now);
        self.note_losses(outcome.datagrams, count);
        if outcome.datagrams == 0 {
            return None;
        }
        // What a silent path is asked now and then says nothing about its rate.
        let in_use = matches!(
            self.health.state(),
            PathState::Active | PathState::Connecting
        );
        if self.rtt.is_known() && in_use && self.blind_since.is_none() {
            let sample = RateSample {
                arrival_us: ack.last_arrival_us,
                bytes: ack.bytes,
                min_delay: ack.min_delay,
                rtt_min: self.rtt.min(),
                rtt: self.rtt.smoothed(),
                limited: outcome.limited * 4 > outcome.datagrams,
                sent_at: outcome.newest_sent.unwrap_or(now),
                sent: outcome.sent,
                acked: outcome.datagrams,
                lost: std::mem::take(&mut self.lost_since_ack),
            };
            self.rate.on_ack(now, &sample);
        }
        let under_way = self.sent.inflight_bytes();
        let pace = self.rate.pace();
        self.pacer.arrived(now, under_way, self.packet_time(), pace);
        let change = self.health.progressed(now, alone);
        self.on_change(now, change)
    }

    /// An answer to a ping, with the stamp at which it left. It came over this very path, so it ends a suspicion even
    /// while acknowledgements are lost on another.
    pub fn on_pong(&mut self, now: Time, id: u32, sent: u32, alone: bool) -> Option<Change> {
        self.train.on_pong(id, sent);
        if let Some(guess) = self.train.guess().filter(|_| self.rtt.is_known()) {
            self.rate.begin(now, self.rtt.smoothed());
            self.rate.suppose(guess.low, guess.high, guess.scatter_ms);
        }
        let asked = id.wrapping_sub(self.trusted_pings).wrapping_sub(1)
            < self.pings.wrapping_sub(self.trusted_pings);
        if self.health.state() != PathState::Suspect || !asked {
            return None;
        }
        let change = self.health.progressed(now, alone);
        self.on_change(now, change)
    }

    /// HELLO was exchanged over it. If that ends an outage, the packets that it swallowed go to `lost`, and what the
    /// path usually loses stays as it was before.
    pub fn connected(&mut self, now: Time, lost: &mut Vec<PacketKey>) -> Option<Change> {
        let change = self.health.connected(now)?;
        self.sent.give_up(lost);
        self.lost_since_ack = 0;
        self.loss_share = self.trusted_loss_share;
        Some(change)
    }

    /// Something besides an acknowledgement says that the path is doubtful.
    pub fn doubt(
        &mut self,
        now: Time,
        reason: PathReason,
        lost: &mut Vec<PacketKey>,
    ) -> Option<Change> {
        if self.health.state() == PathState::Resting && self.initiator {
            // There is no session to ask over: it begins anew.
            self.start_handshake(now);
            return self.health.disconnected(now, reason);
        }
        let change = self.health.doubt(now, reason)?;
        self.sent.give_up(lost);
        Some(change)
    }

    /// It may work again. A backup at rest that stands by is left alone.
    pub fn hope(&mut self, now: Time, stands_by: bool) {
        if self.session.is_established() {
            self.ping();
        }
        match self.health.state() {
            PathState::Active => {}
            PathState::Resting if stands_by => {}
            _ if !self.initiator => {}
            PathState::Resting => self.rouse(now),
            _ => self.start_handshake(now),
        }
    }

    /// A path back from the dead is on trial; a false suspicion changes nothing.
    fn on_change(&mut self, now: Time, change: Option<Change>) -> Option<Change> {
        let down = self.health.last_down();
        let returned = change.is_some() && down.is_some_and(|t| now.since(t) > FALSE_SUSPICION);
        if returned {
            // What an outage swallowed says nothing about the rate, nor about what is lost from now on.
            self.lost_since_ack = 0;
            self.loss_share = self.trusted_loss_share;
            self.rate.restart(now);
            self.trial = Trial::of_returned(now);
        }
        change
    }

    pub(super) fn note_losses(&mut self, arrived: u32, lost: u32) {
        if self.blind_since.is_some() {
            return;
        }
        self.lost_since_ack += lost;
        let total = arrived + lost;
        if total > 0 {
            let share = f64::from(lost) / f64::from(total);
            let weight = (f64::from(total) * LOSS_WEIGHT).min(1.0);
            self.loss_share += (share - self.loss_share) * weight;
        }
        if self.health.is_active() {
            self.trusted_loss_share = self.loss_share;
        }
    }

    /// The system refused to send datagrams of this size. Their packets are appended to the list.
    pub fn on_refused(&mut self, now: Time, len: usize, refused: &mut Vec<PacketKey>) {
        self.sent.take_back(len, refused);
        self.mtu.on_refused(now, len);
        self.sent.sizes.watch(self.mtu.watched());
    }

    /// Falls back to smaller datagrams when only the large ones vanish. That is no congestion: until something arrives
    /// that was sent after it, the rate learns nothing, and then it begins anew.
    pub(super) fn watch_sizes(&mut self, now: Time) {
        let heard = self.sent.latest_arrived();
        if self.blind_since.is_some_and(|since| heard > since) {
            self.blind_since = None;
            self.lost_since_ack = 0;
            self.rate.restart(now);
        }
        if self.sent.sizes.is_black_hole() {
            self.mtu.fall(now);
            self.black_holes += 1;
            self.blind_since = Some(now);
        }
        self.sent.sizes.watch(self.mtu.watched());
    }

    /// Tries a size when it is time to.
    pub(super) fn probe_sizes(&mut self, now: Time) {
        if !self.may_probe_sizes() {
            return;
        }
        let rtt = (self.rtt.is_known()).then(|| (self.rtt.smoothed(), self.rtt.variance()));
        let heard = self.sent.latest_arrived();
        if let Some(ask) = self.mtu.on_time(now, rtt, heard) {
            let len = ask.frame_len as u16;
            self.say(MessageContent::Probe(Probe::Size { len }));
            if ask.follow {
                self.ping();
            }
        }
    }

    pub(super) fn may_probe_sizes(&self) -> bool {
        self.health.is_active() && self.session.is_established()
    }

    /// Whether what is sent over it now may well be lost or late: it lost
    /// packets lately, its round trips vary, or it is out of service again and again.
    pub fn is_doubtful(&self, now: Time) -> bool {
        const LOSS: f64 = 0.003;
        const DEVIATION: Duration = Duration::from_millis(10);
        self.loss_share > LOSS
            || self.rtt.is_known() && self.rtt.variance() > DEVIATION
            || self.health.falls_often(now)
    }

    /// An acknowledgement of what was sent at this moment stays away.
    pub fn note_unanswered(&mut self, sent: Time) {
        self.unanswered_since = self.unanswered_since.max(Some(sent));
    }

    /// Whether an acknowledgement stays away, and none came for anything later.
    pub fn is_unanswered(&self) -> bool {
        let since = self.unanswered_since;
        since.is_some_and(|sent| self.sent.latest_arrived() < sent)
    }

    /// Whether losses are to be expected.
    pub fn is_lossy(&self) -> bool {
        const LOSSY: f64 = 0.001;
        self.loss_share > LOSSY
    }

    /// Whether it loses more than a call bears, and what is sent over it again comes too late for one.
    pub fn repairs_late(&self) -> bool {
        const LOSS: f64 = 0.005;
        /// A repair is a round trip late, and the time until the next packet, 20 ms in most calls: 60 ms, which is about
        /// what their buffers take up.
        const FAR: Duration = Duration::from_millis(40);
        self.loss_share > LOSS && self.rtt.is_known() && self.rtt.min() > FAR
    }

    /// After how long a packet that it loses is known to be lost, milliseconds; nothing when it loses none.
    pub fn loss_known_ms(&self) -> f64 {
        if self.is_lossy() && self.rtt.is_known() {
            self.sent.time_threshold(&self.rtt).as_secs_f64() * 1e3
        } else {
            0.0
        }
    }
}

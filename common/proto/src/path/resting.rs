//! A path at rest: its session has ended, and it can be had back at any moment.
//!
//! Keeping a session alive that nobody uses costs two handshakes' bytes every three minutes on every uplink, and a ping a
//! second on a backup beside a busy bond. So no session is renewed for nobody's sake: it ends, and the path rests. What was
//! learned of it stays. Both ends know how to get it back:
//!
//! * **The client** shakes hands when a packet wants to leave, over all uplinks at once (a backup: when none of the others
//!   works), and goes on where it was one round trip later. No greeting is waited for: both ends know each other.
//! * **The server** cannot: it starts no handshake, and a NAT may stand before the client. So the client shows itself
//!   every 25 s with a KEEP, a datagram of 16 bytes that opens the NAT and names a cookie. When a packet for the client
//!   waits, the server sends the cookie back in a WAKE, over every path of which it has one, and the client shakes hands.
//! * **Whether the path still works** nobody would know for as long as it rests. So a KEEP asks for an answer every five
//!   minutes, which is SEEN; without one the path is down, and a backup shows itself in its place.
//! * **A server that was started anew** knows neither path nor client, so it answers a KEEP whose index is none of its own
//!   with a WAKE at once. It does the same while the session still stands and the KEEP comes from another address than the
//!   path's: the NAT forgot the old one.
//!
//! None of these is authentic. All that a WAKE brings about is one handshake, which is; only who saw the cookie can
//! forge one, and once, as each is good for one. A KEEP brings about one answer, which is shorter, or a few while packets
//! wait: who saw the indices can have those sent elsewhere until the client's own next KEEP. Who saw the cookie can
//! hide with a SEEN that the path is dead, until something is sent. On a backup there are none of them while another
//! uplink serves: no byte is sent over it.
//!
//! RFC 3948, section 4, keeps the mapping of a NAT with a datagram of one byte in the same manner.

use std::time::Duration;

use super::{Address, Change, Path, Standing};
use crate::event::PathReason;
use crate::session::{Keep, keep, seen, wake};
use crate::stats::PathState;
use crate::time::Time;

/// Inner traffic within this time means that the bond is in use.
pub(super) const BUSY: Duration = Duration::from_secs(5);
/// A path of an idle bond shows itself so often, which keeps a NAT's mapping (RFC 4787 asks for two minutes, many give 30 s).
pub(super) const KEEP_EVERY: Duration = Duration::from_secs(25);
/// A session is renewed before it ends while inner packets passed within this time: who speaks every other minute waits
/// for no handshake.
pub(super) const RENEW_WITHIN: Duration = Duration::from_secs(120);
/// A roused path that has not answered for this long does not work.
const PATIENCE: Duration = Duration::from_secs(3);
/// A backup is left alone for so long while other paths are being roused: a round trip, and a handshake that was repeated.
const HEAD_START: Duration = Duration::from_millis(600);
/// A client that was not seen for this long is not there any more, or its NAT forgot it: two KEEPs may be lost.
const SEEN_WITHIN: Duration = Duration::from_secs(80);
/// A client asks so often whether it is seen, which costs an idle path a tenth more; if there is no answer, it asks again
/// after a while, this many times in all.
const ASK_EVERY: Duration = Duration::from_secs(300);
const ASK_AGAIN: Duration = Duration::from_secs(2);
const ASKS: u8 = 3;
/// A KEEP is good for so many WAKEs, the second after this wait, which doubles. The next KEEP is good for more; and where
/// a forged one sends them, there are few.
const WAKES: u32 = 4;
const WAKE_AGAIN: Duration = Duration::from_millis(250);

/// Where a client at rest was seen last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Where its KEEP came from.
    pub address: Address,
    /// What it said.
    pub keep: Keep,
    /// When.
    pub at: Time,
}

/// What is known of a path's rest.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rest {
    /// Client: what the next WAKE must return, and what the last one did.
    cookie: u32,
    spent: Option<u32>,
    /// Client: since when it shakes hands to end the rest.
    roused: Option<Time>,
    /// Client: how often it asked whether it is seen and got no answer, and when it is to ask.
    asked: u8,
    next_ask: Time,
    /// Server: where the client was seen.
    mark: Option<Mark>,
    /// Server: WAKEs sent for the last KEEP, and when the next is due.
    wakes: u32,
    next_wake: Time,
}

impl Path {
    /// Whether it rests, and nobody waits for it to come back. Beside such a path a backup rests as well.
    pub fn rests_calmly(&self, now: Time) -> bool {
        let waits = |since| now.since(since) >= self.head_start();
        self.health.state() == PathState::Resting && !self.rest.roused.is_some_and(waits)
    }

    /// How long backups wait for it: longer where an answer takes long.
    fn head_start(&self) -> Duration {
        let answer = if self.rtt.is_known() {
            self.rtt.smoothed() * 2
        } else {
            Duration::ZERO
        };
        answer.max(HEAD_START)
    }

    /// Whether its session may end without anything being wrong.
    pub(super) fn may_rest(&self) -> bool {
        // One that is being renewed in vain works no more.
        let unanswered = self.next_handshake.is_some() || self.sent.has_inflight();
        self.greeting.is_done() && self.health.is_active() && !unanswered
    }

    /// Its session ended while nobody used it.
    pub(super) fn begin_rest(&mut self, now: Time) {
        self.health.rest(now);
        self.rest.roused = None;
        self.rest.asked = 0;
        self.rest.next_ask = now;
        self.rest.wakes = 0;
        self.rest.next_wake = now;
        // What waited to be said concerned what is over.
        self.messages.clear();
    }

    /// There is a session again. Whether it rested.
    pub fn end_rest(&mut self, now: Time) -> bool {
        let rested = self.health.state() == PathState::Resting;
        if rested {
            self.rest.roused = None;
            // Nobody is told: it was trusted meanwhile.
            let _ = self.health.connected(now);
        }
        rested
    }

    /// Whether it shows itself to the other end while nobody uses it.
    pub(super) fn keeps(&self, standing: &Standing) -> bool {
        self.initiator && !standing.stands_by
    }

    /// When [`Self::look_after_rest`] is needed next.
    pub(super) fn rest_due(&self, now: Time, standing: &Standing) -> Option<Time> {
        if self.health.state() != PathState::Resting {
            return None;
        }
        if !self.initiator {
            let seen = |mark: Mark| now.since(mark.at) < SEEN_WITHIN;
            let may = self.rest.wakes < WAKES && self.rest.mark.is_some_and(seen);
            return (may && !standing.rests()).then_some(self.rest.next_wake);
        }
        match self.rest.roused {
            // Backups wait for this moment.
            Some(since) if now < since + self.head_start() => Some(since + self.head_start()),
            Some(since) => Some(since + PATIENCE.max(self.head_start())),
            None if !standing.rests() => Some(Time::ZERO),
            None => {
                let awaits = self.rest.asked > 0;
                let wait = if awaits { ASK_AGAIN } else { KEEP_EVERY };
                self.keeps(standing).then_some(self.last_sent + wait)
            }
        }
    }

    /// A path at rest shows itself, is roused or rouses the other end.
    pub(super) fn look_after_rest(&mut self, now: Time, standing: &Standing) -> Option<Change> {
        if !self.keeps(standing) {
            self.rest.asked = 0;
        }
        if self.rest_due(now, standing).is_none_or(|due| due > now) {
            return None;
        }
        match self.rest.roused {
            _ if !self.initiator => {
                self.wake(now);
                None
            }
            Some(_) => self.health.disconnected(now, PathReason::AckOverdue),
            None if standing.rests() && self.rest.asked == ASKS => {
                self.start_handshake(now);
                self.health.disconnected(now, PathReason::AckOverdue)
            }
            None if !standing.rests() => {
                self.rouse(now);
                None
            }
            None => {
                self.keep(now);
                None
            }
        }
    }

    /// Client: has its session back.
    pub(super) fn rouse(&mut self, now: Time) {
        if self.rest.roused.is_none() {
            self.rest.roused = Some(now);
            self.start_handshake(now);
        }
    }

    /// Client: shows where it can be reached.
    pub(super) fn keep(&mut self, now: Time) {
        let asks = self.health.state() == PathState::Resting && now >= self.rest.next_ask;
        self.rest.asked += u8::from(asks);
        if let Some(receiver) = self.session.receiver() {
            let said = Keep {
                sender: self.index << 8,
                cookie: self.rest.cookie,
                asks,
            };
            self.raw.push_back((keep(receiver, said), None));
        }
    }

    /// Client: the server saw the last KEEP. Whether that is to be believed.
    pub fn on_seen(&mut self, now: Time, cookie: u32) -> bool {
        if cookie != self.rest.cookie || !self.initiator {
            return self.rest.spent == Some(cookie);
        }
        if self.rest.asked > 0 {
            self.rest.asked = 0;
            self.rest.next_ask = now + ASK_EVERY;
        }
        true
    }

    /// Client: what the first WAKE must return.
    pub fn set_cookie(&mut self, cookie: u32) {
        self.rest.cookie = cookie;
    }

    /// Client: something waits for us at the server. Whether that is to be believed; then the next one needs the `next`
    /// cookie. What comes once more, as the server had no answer yet, changes nothing.
    pub fn on_wake(&mut self, now: Time, cookie: u32, next: u32) -> bool {
        if cookie != self.rest.cookie || !self.initiator {
            return self.rest.spent == Some(cookie);
        }
        (self.rest.cookie, self.rest.spent) = (next, Some(cookie));
        if self.health.state() == PathState::Resting {
            self.rouse(now);
        } else {
            self.ensure_handshake(now);
        }
        true
    }

    /// Server: a client shows itself. Whether it is the one whose path this is.
    pub fn on_keep(&mut self, mark: Mark, standing: &Standing) -> bool {
        let of = |index: u32| index >> 8;
        if self.session.receiver().map(of) != Some(of(mark.keep.sender)) {
            return false;
        }
        self.rest.mark = Some(mark);
        self.rest.wakes = 0;
        let moved = mark.address.remote != self.address.remote;
        let waits = !self.session.is_established() && standing.is_busy();
        if self.session.is_established() && moved || waits {
            self.wake(mark.at);
        } else if mark.keep.asks {
            let seen = seen(mark.keep.sender, mark.keep.cookie);
            self.raw.push_back((seen, Some(mark.address)));
        }
        true
    }

    /// Server: asks the client to shake hands, if it is known where it is.
    fn wake(&mut self, now: Time) {
        self.rest.next_wake = now + WAKE_AGAIN * 2u32.saturating_pow(self.rest.wakes);
        self.rest.wakes += 1;
        if let Some(mark) = self.rest.mark {
            let wake = wake(mark.keep.sender, mark.keep.cookie);
            self.raw.push_back((wake, Some(mark.address)));
        }
    }

    /// When there was the last sign of the other side.
    pub fn last_sign(&self) -> Time {
        let heard = self.received.last_arrival();
        let seen = self.rest.mark.map(|mark| mark.at);
        let signs = heard.into_iter().chain(seen);
        signs.fold(self.health.since(), Time::max)
    }
}

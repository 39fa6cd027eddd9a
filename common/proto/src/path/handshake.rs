//! A path's session: how it comes to be, is renewed, and ends.
//!
//! The client alone starts handshakes. One that is not answered is tried again at growing intervals, and after some of them
//! under another tag: the server may remember the path of this one from a life whose clock was ahead.

use std::time::Duration;

use super::resting::KEEP_EVERY;
use super::{Change, Greeting, Path, Standing};
use crate::event::PathReason;
use crate::session::{HANDSHAKE_MAX, Session};
use crate::time::Time;

/// Shortest wait for the answer to a HELLO.
const GREETING_WAIT_MIN: Duration = Duration::from_millis(10);
/// First and longest wait before a handshake or HELLO is tried again.
pub(super) const RETRY_MIN: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// Longest wait while nobody needs the path: as long as one at rest goes without a word.
const RETRY_UNHURRIED: Duration = KEEP_EVERY;
/// Initiations of a new path that go unanswered before it takes another tag: those that come at growing intervals. A
/// round trip of two seconds is behind them by then.
const INITIATIONS_PER_TAG: u8 = 4;
/// How old the session's own clock may be when something is sent or arrives: far less than the shortest of its timers, a second.
const SESSION_CLOCK: Duration = Duration::from_millis(250);

impl Path {
    /// Begins a handshake now and keeps trying (client).
    pub fn start_handshake(&mut self, now: Time) {
        self.next_handshake = Some(now);
        self.handshake_wait = self.first_wait();
    }

    /// Begins a handshake unless one is being tried.
    pub(super) fn ensure_handshake(&mut self, now: Time) {
        if self.next_handshake.is_none() {
            self.start_handshake(now);
        }
    }

    /// Only the latest attempt can be answered, so none is made before the one before it could be.
    fn first_wait(&self) -> Duration {
        if self.rtt.is_known() {
            (self.rtt.smoothed() * 3 / 2).clamp(RETRY_MIN, RETRY_MAX)
        } else {
            RETRY_MIN
        }
    }

    /// The handshake is done.
    pub fn handshake_done(&mut self) {
        self.next_handshake = None;
        self.unanswered = None;
        self.hellos = 0;
    }

    /// Whether nobody ever answered on this path and the next attempt, which is due, should be made under another tag: the
    /// server may remember the path of that tag from a former life of ours, whose clock was ahead of ours, and refuse
    /// handshakes that seem older than its last one.
    pub fn wants_other_tag(&self, now: Time) -> bool {
        let due = self.next_handshake.is_some_and(|at| at <= now);
        due && self.unanswered.is_some_and(|n| n >= INITIATIONS_PER_TAG)
    }

    /// Goes on under another tag, with a session that is as new. Returns the index that is free now.
    pub fn take_tag(&mut self, tag: u8, session: Session, index: u32) -> u32 {
        self.tag = tag;
        self.session = session;
        self.unanswered = Some(0);
        std::mem::replace(&mut self.index, index)
    }

    /// Whether the session's clock is to be set before anything is sealed or opened.
    pub fn session_clock_is_due(&self, now: Time) -> bool {
        now.since(self.last_session_tick) >= SESSION_CLOCK
    }

    /// Lets the session's timers run. To be called before anything is sealed or opened: the session
    /// notes all times by the clock that this sets, and keys that are too old are gone afterwards.
    /// `renews`: whether the session may make itself anew.
    pub fn tick_session(&mut self, now: Time, renews: bool) -> Option<Change> {
        self.last_session_tick = now;
        let was = self.session.is_established();
        let mut out = [0; HANDSHAKE_MAX];
        let tick = self.session.tick(now, &mut out);
        // A responder's session may ask for a handshake too; ours never starts one. Nor does an initiator's for the sake of
        // what was said in greeting, or it would never end.
        if let Some(len) = tick
            .send
            .filter(|_| self.initiator && renews || out[0] == 4)
        {
            self.raw.push_back((out[..len].to_vec(), None));
        }
        if !was || tick.established {
            return None;
        }
        if self.may_rest() {
            self.begin_rest(now);
            return None;
        }
        self.greeting = Greeting::Idle;
        if self.initiator {
            self.start_handshake(now);
        }
        self.health.disconnected(now, PathReason::SessionLost)
    }

    /// Makes the attempt that is due, if one is.
    pub(super) fn shake_hands(&mut self, now: Time, standing: &Standing, scratch: &mut [u8]) {
        if standing.renews() && self.session_is_old(now) {
            self.ensure_handshake(now);
        }
        if self.is_needed_at_last(standing) {
            self.start_handshake(now);
        }
        if self.next_handshake.is_some_and(|at| at <= now) {
            let most = if standing.rests() {
                RETRY_UNHURRIED
            } else {
                RETRY_MAX
            };
            self.next_handshake = Some(now + self.handshake_wait);
            self.handshake_wait = (self.handshake_wait * 2).min(most);
            self.initiate(now, scratch);
        }
    }

    /// When [`Self::shake_hands`] is needed next.
    pub(super) fn handshake_due(&self, standing: &Standing) -> Option<Time> {
        if self.is_needed_at_last(standing) {
            return Some(Time::ZERO);
        }
        self.next_handshake
    }

    /// Whether its attempts came rarely, as nobody needed it, and now somebody does.
    fn is_needed_at_last(&self, standing: &Standing) -> bool {
        let unhurried = self.next_handshake.is_some() && self.handshake_wait > RETRY_MAX;
        unhurried && !standing.rests()
    }

    /// Only what is sent renews a session, and little may be sent over this path.
    fn session_is_old(&self, now: Time) -> bool {
        /// Below the three minutes after which a session is no longer accepted, by time for some attempts.
        const OLD: Duration = Duration::from_secs(165);
        self.initiator && self.session.age(now).is_some_and(|age| age >= OLD)
    }

    fn initiate(&mut self, now: Time, scratch: &mut [u8]) {
        if let Some(len) = self.session.initiate(now, scratch) {
            self.unanswered = self.unanswered.map(|n| n.saturating_add(1));
            // Only the latest can be answered.
            self.raw.retain(|(d, _)| d.first() != Some(&1));
            self.raw.push_back((scratch[..len].to_vec(), None));
        }
    }

    /// A HELLO is said; how long to wait for its answer. The longer, the more of them had none.
    pub fn greeting_wait(&mut self) -> Duration {
        // Never nothing: over a wire without delay it would be said again and again at once.
        let first = if self.rtt.is_known() {
            (self.rtt.smoothed() * 2).max(GREETING_WAIT_MIN)
        } else {
            RETRY_MIN
        };
        let wait = first * 2u32.saturating_pow(self.hellos);
        self.hellos += 1;
        wait.min(RETRY_MAX.max(first))
    }

    /// What was said in greeting so far is settled, or something else is to be said.
    pub fn greets_anew(&mut self) {
        self.hellos = 0;
    }

    /// A HELLO has had no answer for so long that the server may have forgotten the session: another one is tried.
    pub(super) fn doubt_session(&mut self, now: Time) {
        /// More than a round trip and some HELLOs.
        const DOUBTED: Duration = Duration::from_secs(3);
        let old = self.session.age(now).is_some_and(|age| age >= DOUBTED);
        if old && self.initiator && !self.health.is_active() {
            self.ensure_handshake(now);
        }
    }
}

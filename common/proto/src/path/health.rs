//! Whether a path works: from the first handshake to silence and back.
//!
//! Only evidence about the *forward* direction counts: acknowledgements of what
//! was sent on the path, over whichever path they come. A dead way back must not
//! look like a dead way there.
//!
//! ```text
//!  Connecting ──hello──► Active ──overdue──► Suspect ──400 ms──► Dead
//!                          ▲  ▲──any ack──────┘                    │ any ack
//!                          └────three acks──── Returning ◄─────────┘
//!        Active ──session ended unused──► Resting ──session──► Active
//! ```
//!
//! While no other path works there is nothing to lose: the first acknowledgement makes a dead path active.
//!
//! A path that came back is on probation for a moment ([`crate::path::trial`]) and goes on being asked as long, so that it
//! is not relied on when it has died again in silence.
//!
//! A suspect path costs little when the suspicion was wrong: what it carried is
//! sent again elsewhere, the copies are recognised, and the first
//! acknowledgement ends the matter. So suspicion may be quick.

use std::time::Duration;

use crate::event::PathReason;
use crate::path::falls::Falls;
use crate::path::resting::KEEP_EVERY;
use crate::path::rtt::Rtt;
use crate::stats::PathState;
use crate::time::Time;

/// Probes of a suspect path, after the suspicion.
const SUSPECT_PROBES_MS: [u64; 5] = [0, 20, 40, 80, 160];
/// Suspicion becomes certainty after this long.
const SUSPECT_MAX: Duration = Duration::from_millis(400);
/// First and longest interval between probes of a dead path while the bond is in use.
const DEAD_PROBE_MIN: Duration = Duration::from_millis(100);
const DEAD_PROBE_MAX: Duration = Duration::from_millis(400);
/// Probes of a dead path that nobody needs.
const DEAD_PROBE_IDLE: Duration = Duration::from_secs(5);
/// While no path works, all traffic waits for the answer to a probe. Its interval grows with the silence, so that an
/// outage becomes longer by a third of a percent at most: a hundred milliseconds up to half a minute, and about 1,700
/// probes in the first hour. Senders that wait for us fall silent themselves, so whether they speak counts for little.
const DEAD_PROBE_ALONE: u32 = 300;
/// What comes over a path that is not trusted is a reason to ask, but not more often than this.
const HEARD_PROBE: Duration = Duration::from_millis(20);
/// Acknowledged probes in a row that make a path trusted again.
const RETURN_PROOFS: u8 = 3;
const RETURN_PROBE: Duration = Duration::from_millis(20);
/// A path that is the only one is given up only after this long without an answer.
const ALONE_PATIENCE: Duration = Duration::from_millis(1_500);
/// It is asked this often meanwhile, at least.
const ALONE_PROBE_MAX: Duration = Duration::from_millis(100);
/// The receiver may wait this long before it acknowledges.
const ACK_DELAY: Duration = Duration::from_millis(12);
/// Acknowledgements of a busy path are never further apart without a reason.
const PROGRESS_GAP_MIN: Duration = Duration::from_millis(25);
/// How many full packets' time an answer may take beyond that: on a slow link one is being sent when ours comes, and the
/// next one that tells of progress has yet to be sent.
const PACKETS_BEFORE: u32 = 2;
/// How much longer than two round trips the acknowledgements of a path may stay away when another went down.
const EXCUSE: Duration = Duration::from_millis(25);
/// A path that was silent for this long while the bond is in use is asked for a sign.
const IDLE_PROBE_BUSY: Duration = Duration::from_secs(1);

/// What the health of a path asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Send a ping.
    Probe,
    /// Show where we can be reached.
    Keep,
    /// Send a ping and try a new handshake (client).
    ProbeAndHandshake,
    /// Everything in flight is to be sent again elsewhere, and a ping sent.
    GiveUpFlight,
}

/// A change that others may want to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It carries packets now.
    Up(PathReason),
    /// It no longer does.
    Down(PathReason),
}

/// The state machine of one path.
#[derive(Debug)]
pub struct Health {
    state: PathState,
    reason: Option<PathReason>,
    since: Time,
    probes: u32,
    next_probe: Time,
    heard_probe: Time,
    proofs: u8,
    last_progress: Time,
    progress_gap: Duration,
    falls: Falls,
    excused_until: Time,
    overdue: bool,
}

/// What [`Health::on_time`] looks at.
#[derive(Clone, Copy, Debug)]
pub struct Signs {
    /// When the oldest unacknowledged datagram was sent.
    pub oldest_inflight: Option<Time>,
    /// When anything was sent or received last.
    pub last_traffic: Time,
    /// What one full packet takes at the path's rate.
    pub packet: Duration,
    /// No other path works.
    pub alone: bool,
    /// For how long no inner packet passed.
    pub idle: Duration,
    /// Nobody needs it now: it is not asked for signs.
    pub rests: bool,
    /// It shows itself: a NAT may stand before this side, and forget who is behind it.
    pub keeps: bool,
    /// It came back from the dead, and nothing depends on it until then.
    pub probation_end: Option<Time>,
}

/// Between two questions to a path that came back.
fn return_gap(rtt: &Rtt) -> Duration {
    RETURN_PROBE.max(rtt.smoothed() / 4)
}

impl Health {
    /// A path that has yet to shake hands.
    pub fn new(now: Time) -> Self {
        Health {
            state: PathState::Connecting,
            reason: None,
            since: now,
            probes: 0,
            next_probe: now,
            heard_probe: Time::ZERO,
            proofs: 0,
            last_progress: now,
            progress_gap: Duration::ZERO,
            falls: Falls::default(),
            excused_until: Time::ZERO,
            overdue: false,
        }
    }

    /// What it showed so far was shown by another process at the other end, perhaps over another network. Only its state
    /// stays.
    pub fn forget(&mut self, now: Time) {
        *self = Health {
            state: self.state,
            reason: self.reason,
            since: self.since,
            ..Health::new(now)
        };
    }

    /// Its state.
    pub fn state(&self) -> PathState {
        self.state
    }

    /// Why it came into its state.
    pub fn reason(&self) -> Option<PathReason> {
        self.reason
    }

    /// Since when it is in its state.
    pub fn since(&self) -> Time {
        self.since
    }

    /// Whether it carries packets.
    pub fn is_active(&self) -> bool {
        self.state == PathState::Active
    }

    /// Whether it carries packets, or would a round trip after it is asked to.
    pub fn is_trusted(&self) -> bool {
        matches!(self.state, PathState::Active | PathState::Resting)
    }

    /// Whether it carries packets and is known to: it is not only trusted for want of another.
    pub fn works(&self) -> bool {
        self.is_active() && !self.overdue
    }

    /// When it last stopped carrying packets.
    pub fn last_down(&self) -> Option<Time> {
        self.falls.last()
    }

    /// Whether it stopped again and again of late.
    pub fn falls_often(&self, now: Time) -> bool {
        self.falls.are_many(now)
    }

    fn enter(&mut self, now: Time, state: PathState, reason: PathReason) {
        if self.state == PathState::Active && state != PathState::Active {
            self.falls.note(now);
        }
        self.state = state;
        self.reason = Some(reason);
        self.since = now;
        self.probes = 0;
        self.next_probe = now;
        self.proofs = 0;
        self.overdue = false;
    }

    /// Its session ended as nobody used it.
    pub fn rest(&mut self, now: Time) {
        self.state = PathState::Resting;
        self.reason = None;
        self.since = now;
    }

    /// The first exchange over it (or over a new session) succeeded.
    pub fn connected(&mut self, now: Time) -> Option<Change> {
        self.last_progress = now;
        if self.is_active() {
            return None;
        }
        let was_trusted = self.is_trusted();
        self.enter(now, PathState::Active, PathReason::Connected);
        (!was_trusted).then_some(Change::Up(PathReason::Connected))
    }

    /// Something arrived over it. The other direction may work again, too.
    pub fn heard(&mut self, now: Time) {
        if !self.is_active() && now.since(self.heard_probe) >= HEARD_PROBE {
            self.heard_probe = now;
            self.next_probe = self.next_probe.min(now);
        }
    }

    /// Something sent over it was acknowledged. `alone`: no other path works.
    pub fn progressed(&mut self, now: Time, alone: bool) -> Option<Change> {
        let gap = now.since(self.last_progress);
        // Decays over some hundred acknowledgements, grows at once.
        self.progress_gap = if gap < Duration::from_millis(500) {
            self.progress_gap.mul_f64(0.98).max(gap)
        } else {
            self.progress_gap
        };
        self.last_progress = now;
        self.overdue = false;
        match self.state {
            PathState::Active | PathState::Connecting | PathState::Resting => None,
            PathState::Suspect => {
                self.enter(now, PathState::Active, PathReason::Answered);
                Some(Change::Up(PathReason::Answered))
            }
            PathState::Dead if !alone => {
                self.enter(now, PathState::Returning, PathReason::Answered);
                self.proofs = 1;
                None
            }
            PathState::Dead | PathState::Returning => {
                self.proofs += 1;
                if self.proofs < RETURN_PROOFS && !alone {
                    return None;
                }
                self.enter(now, PathState::Active, PathReason::Answered);
                Some(Change::Up(PathReason::Answered))
            }
        }
    }

    /// Its acknowledgements may have been lost on another path's way back: it gets the time in which the other side
    /// notices and sends them over this one. The way back over this one can take as long as the way out, and its round
    /// trip was measured over a quicker way back: twice that.
    pub fn excuse(&mut self, now: Time, rtt: &Rtt) {
        self.excused_until = now + rtt.smoothed() * 2 + EXCUSE;
    }

    /// Outside evidence that it does not work.
    pub fn doubt(&mut self, now: Time, reason: PathReason) -> Option<Change> {
        if !self.is_active() {
            return None;
        }
        self.enter(now, PathState::Suspect, reason);
        Some(Change::Down(reason))
    }

    /// It is certain that it does not work.
    pub fn dead(&mut self, now: Time, reason: PathReason) -> Option<Change> {
        let was_trusted = self.is_trusted();
        self.enter(now, PathState::Dead, reason);
        was_trusted.then_some(Change::Down(reason))
    }

    /// Its session is gone: it begins anew.
    pub fn disconnected(&mut self, now: Time, reason: PathReason) -> Option<Change> {
        let was_trusted = self.is_trusted();
        self.enter(now, PathState::Connecting, reason);
        was_trusted.then_some(Change::Down(reason))
    }

    /// When an acknowledgement of the oldest datagram in flight is overdue.
    fn overdue_at(&self, oldest: Time, rtt: &Rtt, packet: Duration) -> Time {
        let packets = packet * PACKETS_BEFORE;
        let guard = (rtt.variance() * 4)
            .max(rtt.smoothed() / 8)
            .max(Duration::from_millis(10));
        let by_age = oldest + rtt.smoothed() + guard + ACK_DELAY + packets;
        // While acknowledgements still come, the path is slow, not dead.
        let by_progress =
            self.last_progress + PROGRESS_GAP_MIN.max(self.progress_gap * 2) + packets;
        by_age.max(by_progress).max(self.excused_until)
    }

    fn dead_interval(&self, now: Time, signs: &Signs) -> Duration {
        let most = if signs.rests {
            DEAD_PROBE_IDLE
        } else {
            DEAD_PROBE_MAX
        };
        if signs.alone {
            let silence = now.since(self.last_progress).max(signs.idle);
            return (silence / DEAD_PROBE_ALONE).clamp(DEAD_PROBE_MIN, most);
        }
        if signs.rests {
            return DEAD_PROBE_IDLE;
        }
        (DEAD_PROBE_MIN * 2u32.saturating_pow(self.probes.min(4))).min(DEAD_PROBE_MAX)
    }

    /// When a path that came back is asked again. Nothing else is sent over it meanwhile, so if it dies anew, nobody would
    /// notice before everything depends on it, acknowledgements of the others included.
    fn proof_due(&self, rtt: &Rtt, signs: &Signs) -> Option<Time> {
        let end = signs.probation_end.filter(|_| !signs.rests)?;
        let due = signs.last_traffic + return_gap(rtt);
        Some(due.max(self.next_probe)).filter(|due| *due < end)
    }

    /// When [`Self::on_time`] is needed next.
    pub fn next_due(&self, rtt: &Rtt, signs: &Signs) -> Option<Time> {
        match self.state {
            PathState::Connecting | PathState::Resting => None,
            PathState::Suspect | PathState::Returning => Some(self.next_probe),
            PathState::Dead => Some(self.next_probe),
            PathState::Active => {
                let idle = if signs.rests {
                    signs.keeps.then_some(KEEP_EVERY)
                } else {
                    Some(IDLE_PROBE_BUSY)
                };
                match signs.oldest_inflight {
                    None => {
                        let idle =
                            idle.map(|idle| (signs.last_traffic + idle).max(self.next_probe));
                        self.proof_due(rtt, signs).or(idle)
                    }
                    Some(oldest) if signs.alone => Some(
                        self.overdue_at(oldest, rtt, signs.packet)
                            .max(self.next_probe),
                    ),
                    Some(oldest) => Some(self.overdue_at(oldest, rtt, signs.packet)),
                }
            }
        }
    }

    /// Time has passed.
    pub fn on_time(
        &mut self,
        now: Time,
        rtt: &Rtt,
        signs: &Signs,
    ) -> (Option<Wish>, Option<Change>) {
        if self.next_due(rtt, signs).is_none_or(|due| due > now) {
            return (None, None);
        }
        match self.state {
            PathState::Connecting | PathState::Resting => (None, None),
            PathState::Active => match signs.oldest_inflight {
                None => {
                    self.next_probe = now + RETURN_PROBE;
                    let wish = if signs.rests { Wish::Keep } else { Wish::Probe };
                    (Some(wish), None)
                }
                Some(_) if signs.alone => self.alone_overdue(now, rtt),
                Some(_) => {
                    let change = self.doubt(now, PathReason::AckOverdue);
                    (Some(Wish::GiveUpFlight), change)
                }
            },
            PathState::Suspect => {
                if now.since(self.since) >= SUSPECT_MAX {
                    self.enter(
                        now,
                        PathState::Dead,
                        self.reason.unwrap_or(PathReason::AckOverdue),
                    );
                    self.next_probe = now + DEAD_PROBE_MIN;
                    return (Some(Wish::Probe), None);
                }
                self.probes += 1;
                let next = SUSPECT_PROBES_MS
                    .get(self.probes as usize)
                    .copied()
                    .unwrap_or(400);
                self.next_probe = self.since + Duration::from_millis(next);
                (Some(Wish::Probe), None)
            }
            PathState::Dead => {
                self.probes += 1;
                self.next_probe = now + self.dead_interval(now, signs);
                // A new session helps when the other side forgot the old one.
                let wish = if self.probes.is_multiple_of(2) {
                    Wish::Probe
                } else {
                    Wish::ProbeAndHandshake
                };
                (Some(wish), None)
            }
            PathState::Returning => {
                // No answer for long: it was a last gasp.
                if now.since(self.last_progress) > rtt.smoothed() * 4 + SUSPECT_MAX {
                    self.enter(now, PathState::Dead, PathReason::AckOverdue);
                    return (Some(Wish::Probe), None);
                }
                self.next_probe = now + return_gap(rtt);
                (Some(Wish::Probe), None)
            }
        }
    }

    /// The only path is silent: keep it, ask more and more rarely, and at last start anew.
    fn alone_overdue(&mut self, now: Time, rtt: &Rtt) -> (Option<Wish>, Option<Change>) {
        if now.since(self.last_progress) > ALONE_PATIENCE.max(rtt.smoothed() * 4) {
            let change = self.dead(now, PathReason::AckOverdue);
            return (Some(Wish::GiveUpFlight), change);
        }
        self.overdue = true;
        let silent = now.since(self.last_progress);
        self.next_probe = now
            + silent
                .max(rtt.smoothed())
                .clamp(Duration::from_millis(20), ALONE_PROBE_MAX);
        (Some(Wish::Probe), None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signs(oldest_ms: Option<u64>, alone: bool) -> Signs {
        Signs {
            oldest_inflight: oldest_ms.map(Time::from_millis),
            last_traffic: Time::from_millis(oldest_ms.unwrap_or(0)),
            packet: Duration::ZERO,
            alone,
            idle: Duration::ZERO,
            rests: false,
            keeps: true,
            probation_end: None,
        }
    }

    fn active() -> (Health, Rtt) {
        let mut health = Health::new(Time::ZERO);
        let mut rtt = Rtt::default();
        assert_eq!(
            health.connected(Time::ZERO),
            Some(Change::Up(PathReason::Connected))
        );
        for ms in 0..50 {
            rtt.sample(Time::from_millis(ms), Duration::from_millis(20));
            health.progressed(Time::from_millis(ms), false);
        }
        (health, rtt)
    }

    /// Runs until the health asks for something; returns when.
    fn until_wish(h: &mut Health, rtt: &Rtt, s: Signs, from: u64) -> (u64, Wish, Option<Change>) {
        (from..from + 60_000)
            .find_map(|ms| {
                let (wish, change) = h.on_time(Time::from_millis(ms), rtt, &s);
                wish.map(|w| (ms, w, change))
            })
            .expect("a path always asks for something within a minute")
    }

    #[test]
    fn silence_is_noticed_within_a_round_trip_and_a_guard() {
        let (mut h, rtt) = active();
        let (at, wish, change) = until_wish(&mut h, &rtt, signs(Some(45), false), 50);
        assert!((75..=100).contains(&at), "{at}");
        assert_eq!(wish, Wish::GiveUpFlight);
        assert_eq!(change, Some(Change::Down(PathReason::AckOverdue)));
    }

    #[test]
    fn a_slow_link_gets_the_time_of_its_packets() {
        let (mut h, rtt) = active();
        let slow = Signs {
            packet: Duration::from_millis(48),
            ..signs(Some(45), false)
        };
        let (at, ..) = until_wish(&mut h, &rtt, slow, 50);
        assert!((171..=196).contains(&at), "{at}");
    }

    #[test]
    fn a_path_is_excused_for_a_moment_when_another_goes_down() {
        let (mut h, rtt) = active();
        h.excuse(Time::from_millis(70), &rtt);
        let (at, ..) = until_wish(&mut h, &rtt, signs(Some(45), false), 70);
        assert_eq!(at, 70 + 2 * 20 + 25);
    }

    #[test]
    fn a_wrong_suspicion_ends_with_the_first_acknowledgement() {
        let (mut h, rtt) = active();
        until_wish(&mut h, &rtt, signs(Some(45), false), 50);
        assert_eq!(h.state(), PathState::Suspect);
        assert_eq!(
            h.progressed(Time::from_millis(120), false),
            Some(Change::Up(PathReason::Answered))
        );
        assert!(h.is_active());
    }

    #[test]
    fn a_dead_path_is_probed_and_returns_after_three_proofs() {
        let (mut h, rtt) = active();
        let mut now = 50;
        while h.state() != PathState::Dead {
            now = until_wish(&mut h, &rtt, signs(Some(45), false), now + 1).0;
        }
        assert!(now < 600, "{now}");
        let mut last = now;
        for _ in 0..20 {
            let at = until_wish(&mut h, &rtt, signs(None, false), last + 1).0;
            assert!(at - last <= 400, "{}", at - last);
            last = at;
        }
        assert_eq!(h.progressed(Time::from_millis(last + 1), false), None);
        assert_eq!(h.progressed(Time::from_millis(last + 2), false), None);
        assert!(matches!(
            h.progressed(Time::from_millis(last + 3), false),
            Some(Change::Up(_))
        ));
    }

    #[test]
    fn a_path_that_came_back_is_asked_until_something_may_depend_on_it() {
        let (mut h, rtt) = active();
        let returned = Signs {
            last_traffic: Time::from_millis(50),
            probation_end: Some(Time::from_millis(1_000)),
            ..signs(None, false)
        };
        let (at, wish, _) = until_wish(&mut h, &rtt, returned, 50);
        assert_eq!((at, wish), (70, Wish::Probe));
        let proven = Signs {
            last_traffic: Time::from_millis(985),
            ..returned
        };
        let (at, ..) = until_wish(&mut h, &rtt, proven, 985);
        assert_eq!(at, 1_985);
    }

    #[test]
    fn the_only_path_is_kept_through_a_short_silence_and_started_anew_after_a_long_one() {
        let (mut h, rtt) = active();
        let mut now = 50;
        while h.is_active() {
            now = until_wish(&mut h, &rtt, signs(Some(45), true), now + 1).0;
        }
        assert!((1_400..2_500).contains(&now), "{now}");
        assert_eq!(h.state(), PathState::Dead);
        let (_, wish, _) = until_wish(&mut h, &rtt, signs(None, true), now + 1);
        assert_eq!(wish, Wish::ProbeAndHandshake);
    }

    #[test]
    fn only_who_may_be_behind_a_nat_speaks_up_in_an_idle_bond_and_asks_for_no_answer() {
        let (mut h, rtt) = active();
        let idle = |keeps| Signs {
            rests: true,
            keeps,
            ..signs(None, false)
        };
        let (at, wish, _) = until_wish(&mut h, &rtt, idle(true), 50);
        assert_eq!((at, wish), (25_000, Wish::Keep));
        assert_eq!(h.next_due(&rtt, &idle(false)), None);
    }

    #[test]
    fn slow_acknowledgements_are_not_silence() {
        let (mut h, rtt) = active();
        // The oldest datagram is 200 ms old, yet something is acknowledged all the time.
        for ms in (60..260).step_by(10) {
            h.progressed(Time::from_millis(ms), false);
            let (wish, _) = h.on_time(Time::from_millis(ms + 9), &rtt, &signs(Some(45), false));
            assert_eq!(wish, None);
        }
    }
}

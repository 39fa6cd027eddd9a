//! What is due on a path as time passes.
//!
//! Handshakes and greetings that were not answered, losses that only time proves, probes of sizes, the end of a promise
//! that more follows, and what its health wishes.

use std::time::Duration;

use super::{Change, Greeting, MessageContent, Path, Signs, Standing, Wish};
use crate::frame::Probe;
use crate::store::PacketKey;
use crate::time::Time;

/// After this long without a successor the promise "more follows" is taken back, but not while the pacer holds the
/// successor back: a packet's time and a quarter, well before the other side takes two for silence.
const TICK_AFTER: Duration = Duration::from_millis(5);
/// How often an idle session's timers are looked at: the shortest that matters while nothing passes takes 10 s (a
/// keepalive; lost handshakes are repeated by the path itself, sooner than boringtun's 5 s), and a machine that runs on a battery is to
/// sleep.
const SESSION_TICK: Duration = Duration::from_secs(5);

/// What a path wants from its bond after time passed.
#[derive(Debug, Default)]
pub struct TimeOutcome {
    /// A change of its health.
    pub change: Option<Change>,
    /// A handshake or HELLO retry is due (client).
    pub greet: bool,
}

impl Path {
    /// When [`Self::on_time`] is needed next.
    pub fn next_due(&self, now: Time, standing: &Standing) -> Time {
        let greet = match self.greeting {
            Greeting::Waiting(at) | Greeting::Repeating(at) => Some(at),
            Greeting::Idle | Greeting::Done => None,
        };
        [
            Some(self.last_session_tick + SESSION_TICK),
            self.loss_check,
            self.health.next_due(&self.rtt, &self.signs(standing)),
            self.rest_due(now, standing),
            self.tick_due(),
            self.handshake_due(standing),
            greet,
            self.mtu.next_due().filter(|_| self.may_probe_sizes()),
        ]
        .into_iter()
        .flatten()
        .min()
        .unwrap_or(Time::NEVER)
    }

    /// Time has passed. What was lost is appended to the list.
    pub fn on_time(
        &mut self,
        now: Time,
        standing: &Standing,
        lost: &mut Vec<PacketKey>,
        scratch: &mut [u8],
    ) -> TimeOutcome {
        let mut outcome = TimeOutcome::default();
        let gone = self.look_after_rest(now, standing);
        self.shake_hands(now, standing, scratch);
        if let Greeting::Waiting(at) | Greeting::Repeating(at) = self.greeting {
            outcome.greet = at <= now && self.session.is_established();
            if outcome.greet {
                self.doubt_session(now);
            }
            if at <= now && !outcome.greet {
                self.greeting = Greeting::Idle;
            }
        }
        if self.loss_check.is_some_and(|at| at <= now) {
            let (count, again) = self.sent.detect_losses(now, &self.rtt, lost);
            self.loss_check = again;
            self.watch_sizes(now);
            self.note_losses(0, count);
        }
        self.probe_sizes(now);
        if self.tick_due().is_some_and(|at| at <= now) {
            self.promised_more = false;
            self.say(MessageContent::Probe(Probe::Tick));
        }
        let (wish, change) = self.health.on_time(now, &self.rtt, &self.signs(standing));
        outcome.change = change.or(gone);
        match wish {
            None => {}
            Some(Wish::Probe) => self.ping(),
            Some(Wish::Keep) => self.keep(now),
            Some(Wish::ProbeAndHandshake) => {
                self.ping();
                if self.initiator {
                    self.ensure_handshake(now);
                }
            }
            Some(Wish::GiveUpFlight) => {
                self.sent.give_up(lost);
                self.ping();
            }
        }
        outcome
    }

    fn tick_due(&self) -> Option<Time> {
        let successor = self.packet_time() * 5 / 4;
        (self.promised_more && self.health.is_active())
            .then(|| self.last_sent + TICK_AFTER.max(successor))
    }

    fn signs(&self, standing: &Standing) -> Signs {
        let heard = self.received.last_arrival().unwrap_or(Time::ZERO);
        Signs {
            oldest_inflight: self.sent.oldest_inflight(),
            last_traffic: self.last_sent.max(heard),
            packet: self.packet_time(),
            alone: standing.alone,
            idle: standing.idle,
            rests: standing.rests(),
            keeps: self.keeps(standing),
            probation_end: self.trial.probation_end(),
        }
    }
}

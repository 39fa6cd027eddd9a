//! A path: one uplink to one server address, with its own session, and all that
//! is observed of it.
//!
//! The parts do not know each other; this file holds them together: what was
//! sent ([`sent`]), what arrived ([`received`]), how long it takes ([`rtt`]), at
//! which rate to send ([`crate::congestion`], [`pacer`]), whether it works ([`health`]), how
//! large its datagrams may be ([`mtu`]). What the operator asked (`role`) and what is observed are different fields.

mod fit;
mod health;
mod mtu;
mod pacer;
mod received;
mod rtt;
mod said;
mod sent;
mod snapshot;
mod train;
mod trial;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

pub use fit::Fit;
pub use health::{Change, Health, Signs, Wish};
pub use mtu::PathMtu;
use pacer::Pacer;
pub use received::{Incoming, ReceivedLog};
pub use rtt::Rtt;
pub use said::{Address, Candidate, Greeting, Message, MessageContent};
pub use sent::{Kind, Outgoing, SentLog};
pub use snapshot::Place;
pub use train::{Guess, ProbeTrain, lengthen};
pub use trial::Trial;

use crate::config::Role;
use crate::congestion::{RateController, RateSample};
use crate::event::PathReason;
use crate::frame::{PathAck, Probe};
use crate::limits;
use crate::session::{HANDSHAKE_MAX, Number, Session};
use crate::stats::PathState;
use crate::store::PacketKey;
use crate::time::Time;

/// Longest train of datagrams handed over at once, in time of the path's rate.
const TRAIN: Duration = Duration::from_millis(1);
/// After this long without a successor the promise "more follows" is taken back, but not while the pacer holds the
/// successor back: a packet's time and a quarter, well before the other side takes two for silence.
const TICK_AFTER: Duration = Duration::from_millis(5);
/// Shortest wait for the answer to a HELLO.
const GREETING_WAIT_MIN: Duration = Duration::from_millis(10);
/// First and longest wait before a handshake or HELLO is tried again.
const RETRY_MIN: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// Initiations of a new path that go unanswered before it takes another tag: those that come at growing intervals. A
/// round trip of two seconds is behind them by then.
const INITIATIONS_PER_TAG: u8 = 4;
/// How old the session's own clock may be when something is sent or arrives: far less than the shortest of its timers, a second.
const SESSION_CLOCK: Duration = Duration::from_millis(250);
/// How often an idle session's timers are looked at: the shortest that matters while nothing passes takes 10 s (a
/// keepalive; lost handshakes are repeated by the path itself, sooner than boringtun's 5 s), and a machine that runs on a battery is to
/// sleep.
const SESSION_TICK: Duration = Duration::from_secs(5);
/// A path that was out of service for less than this was suspected wrongly.
const FALSE_SUSPICION: Duration = Duration::from_millis(400);
/// Weight of one datagram in the loss share that people see.
const LOSS_WEIGHT: f64 = 1.0 / 256.0;

/// One path of a bond.
#[derive(Debug)]
pub struct Path {
    /// Names it within the bond.
    pub tag: u8,
    /// The uplink's name, for people.
    pub name: String,
    /// Where its datagrams go.
    pub address: Address,
    /// What the operator allows.
    pub role: Role,
    /// How large its datagrams may be.
    pub mtu: PathMtu,
    /// Its session.
    pub session: Session,
    /// What was sent.
    pub sent: SentLog,
    /// What arrived.
    pub received: ReceivedLog,
    /// How long it takes.
    pub rtt: Rtt,
    /// How fast to send.
    pub rate: RateController,
    /// Whether it works.
    pub health: Health,
    /// What is left to find out before it carries its share.
    pub trial: Trial,
    /// A first guess of its rate.
    pub train: ProbeTrain,
    /// How long the datagrams of its trains are.
    pub fit: Fit,
    /// Where HELLO stands.
    pub greeting: Greeting,
    /// The life of the other side that greeted over it last, by its boot number.
    pub life: Option<u64>,
    /// Sessions that began before this one belong to a former life of the other side.
    pub first_session: Option<u32>,
    /// A new address on trial.
    pub candidate: Option<Candidate>,
    /// Handshake messages and keepalives, already sealed.
    pub raw: VecDeque<(Vec<u8>, Option<Address>)>,
    /// Frames that steer and measure.
    pub messages: VecDeque<Message>,
    /// The session's index on the wire, for the endpoint's table.
    pub index: u32,
    /// Whether this side starts handshakes.
    pub initiator: bool,
    /// Datagrams sent.
    pub sent_datagrams: u64,
    /// Wire bytes sent.
    pub sent_bytes: u64,
    /// How often only its large datagrams vanished.
    black_holes: u64,
    pacer: Pacer,
    flight_max: u64,
    last_sent: Time,
    promised_more: bool,
    loss_check: Option<Time>,
    loss_share: f64,
    /// The same when it was last trusted.
    trusted_loss_share: f64,
    lost_since_ack: u32,
    /// Since when what is lost and delivered says nothing of the rate: only the size was wrong.
    blind_since: Option<Time>,
    next_handshake: Option<Time>,
    handshake_wait: Duration,
    /// Initiations under this tag, until one is answered.
    unanswered: Option<u8>,
    last_session_tick: Time,
    pings: u32,
    /// How many of these were sent while it was trusted: an answer to one says nothing of a suspicion.
    trusted_pings: u32,
}

/// What a path wants from its bond after time passed.
#[derive(Debug, Default)]
pub struct TimeOutcome {
    /// A change of its health.
    pub change: Option<Change>,
    /// A handshake or HELLO retry is due (client).
    pub greet: bool,
}

impl Path {
    /// A path that has yet to shake hands.
    pub fn new(now: Time, tag: u8, address: Address, session: Session, index: u32) -> Self {
        Path {
            tag,
            name: String::new(),
            address,
            role: Role::default(),
            mtu: PathMtu::new(headers(address.remote)),
            session,
            sent: SentLog::default(),
            received: ReceivedLog::default(),
            rtt: Rtt::default(),
            rate: RateController::new(),
            health: Health::new(now),
            trial: Trial::default(),
            train: ProbeTrain::default(),
            fit: Fit::default(),
            greeting: Greeting::Idle,
            life: None,
            first_session: None,
            candidate: None,
            raw: VecDeque::new(),
            messages: VecDeque::new(),
            index,
            initiator: false,
            sent_datagrams: 0,
            sent_bytes: 0,
            black_holes: 0,
            pacer: Pacer::new(now),
            flight_max: 0,
            last_sent: now,
            promised_more: false,
            loss_check: None,
            loss_share: 0.0,
            trusted_loss_share: 0.0,
            lost_since_ack: 0,
            blind_since: None,
            next_handshake: None,
            handshake_wait: RETRY_MIN,
            unanswered: Some(0),
            last_session_tick: now,
            pings: 0,
            trusted_pings: 0,
        }
    }

    /// The process at the other end was started anew, and is found there: whatever was observed is over. What stays is the
    /// session, and what this side decided or was told by its own system.
    pub fn begun_anew(mut self, now: Time, address: Address) -> Self {
        self.health.forget(now);
        Path {
            name: self.name,
            role: self.role,
            mtu: self.mtu.begun_anew(headers(address.remote)),
            health: self.health,
            life: self.life,
            first_session: self.first_session,
            raw: self.raw,
            initiator: self.initiator,
            sent_datagrams: self.sent_datagrams,
            sent_bytes: self.sent_bytes,
            next_handshake: self.next_handshake,
            handshake_wait: self.handshake_wait,
            unanswered: self.unanswered,
            last_session_tick: self.last_session_tick,
            pings: self.pings,
            trusted_pings: self.trusted_pings,
            ..Path::new(now, self.tag, address, self.session, self.index)
        }
    }

    /// Whether a session began before the present life of the other side did.
    pub fn is_former(&self, session: u32) -> bool {
        // The low byte counts a path's sessions and wraps.
        self.first_session
            .is_some_and(|first| (session as u8).wrapping_sub(first as u8) as i8 <= -1)
    }

    /// Begins a handshake now and keeps trying (client).
    pub fn start_handshake(&mut self, now: Time) {
        self.next_handshake = Some(now);
        self.handshake_wait = RETRY_MIN;
    }

    /// The handshake is done.
    pub fn handshake_done(&mut self) {
        self.next_handshake = None;
        self.handshake_wait = RETRY_MIN;
        self.unanswered = None;
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

    /// Queues a message; the oldest goes when there are too many.
    pub fn say(&mut self, content: MessageContent) {
        self.say_to(content, None);
    }

    /// Queues a message for an address that is not the path's own.
    pub fn say_to(&mut self, content: MessageContent, to: Option<Address>) {
        if self.messages.len() >= limits::CONTROL_FRAMES {
            self.messages.pop_front();
        }
        self.messages.push_back(Message { content, to });
    }

    /// Queues a ping.
    pub fn ping(&mut self) {
        self.pings = self.pings.wrapping_add(1);
        if self.health.is_active() {
            self.trusted_pings = self.pings;
        }
        // One that still waits serves as well.
        let ping = MessageContent::Probe(Probe::Ping { id: self.pings });
        self.messages
            .retain(|m| !matches!(m.content, MessageContent::Probe(Probe::Ping { .. })));
        self.say(ping);
    }

    /// Its bond is idle: gives back memory.
    pub fn rest(&mut self, now: Time) {
        self.sent.rest(now);
        self.messages.shrink_to(limits::IDLE_ENTRIES);
        self.raw.shrink_to(limits::IDLE_ENTRIES);
    }

    /// Lets the trains leave that guess its rate, once. A backup is left alone.
    pub fn begin_train(&mut self) {
        if matches!(self.role, Role::Always | Role::Secondary) {
            self.train.begin();
        }
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

    /// After how long a packet that it loses is known to be lost, milliseconds; nothing when it loses none.
    pub fn loss_known_ms(&self) -> f64 {
        if self.is_lossy() && self.rtt.is_known() {
            self.sent.time_threshold(&self.rtt).as_secs_f64() * 1e3
        } else {
            0.0
        }
    }

    /// Accounts for a ping of a train. It says nothing about the rate and takes no room from others.
    pub fn on_train_sealed(&mut self, now: Time, number: Number, len: usize) {
        let out = Outgoing {
            len,
            eliciting: false,
            limited: true,
            packet: None,
            kind: Kind::Whole,
        };
        self.sent.on_sent(now, number, out);
        self.count_sent(now, len);
    }

    /// What it may carry, bytes per second, if anything of that was seen.
    pub fn guess(&self) -> Option<Guess> {
        let capacity = self.rate.capacity();
        if self.rate.is_measured() {
            return Some(Guess {
                low: capacity,
                high: capacity,
                scatter_ms: 0.0,
            });
        }
        let guess = self.train.guess()?;
        Some(Guess {
            low: guess.low.max(self.rate.seen()),
            high: guess.high.max(self.rate.seen()),
            ..guess
        })
    }

    /// How far above its lowest delay nearly all of its packets are, milliseconds.
    pub fn jitter_ms(&self) -> f64 {
        /// The mean of the ups and downs, times this, covers a normal distribution from its lowest to its
        /// highest hundredth.
        const COVERS: f64 = 4.0;
        let scatter = self.guess().map_or(0.0, |guess| guess.scatter_ms);
        (COVERS * self.rate.noise_ms()).max(scatter)
    }

    /// How long until the pacer lets it send; zero when it may now.
    pub fn ready_in(&self, now: Time) -> Duration {
        self.pacer.next_send().since(now)
    }

    /// When the pacer lets it send.
    pub fn next_send(&self) -> Time {
        self.pacer.next_send()
    }

    /// When the pacer lets it send as much as fits into one train.
    pub fn next_train(&self) -> Time {
        // The first packet of the train may leave when the credit is there for all before it.
        self.pacer.next_send() + TRAIN.saturating_sub(self.packet_time())
    }

    /// What one full packet takes at its pace.
    fn packet_time(&self) -> Duration {
        Duration::from_secs_f64(1_500.0 / self.rate.pace())
    }

    /// Sets the limit of its flight. It changes with what is acknowledged, not from packet to packet.
    pub fn limit_flight(&mut self) {
        self.flight_max = self.rate.inflight_max(self.rtt.min(), self.rtt.smoothed());
    }

    /// Looks whether its flight is full.
    pub fn check_full(&mut self) -> bool {
        let full = self.sent.inflight_bytes() >= self.flight_max || !self.sent.has_room();
        self.pacer.set_full(full);
        full
    }

    /// Whether its flight was full when it was last looked at.
    pub fn is_full(&self) -> bool {
        self.pacer.is_full()
    }

    /// Whether what is sent over it now may well be lost or late: it lost
    /// packets lately, its round trips vary, or it was out of service.
    pub fn is_doubtful(&self, now: Time) -> bool {
        const LOSS: f64 = 0.003;
        const DEVIATION: Duration = Duration::from_millis(10);
        const LATELY: Duration = Duration::from_secs(10);
        let fell = self.health.last_down();
        self.loss_share > LOSS
            || self.rtt.is_known() && self.rtt.variance() > DEVIATION
            || fell.is_some_and(|at| now.since(at) < LATELY)
    }

    /// Bytes that may leave in one train.
    pub fn train(&self) -> usize {
        ((self.rate.pace() * TRAIN.as_secs_f64()) as usize).max(2 * 1_500)
    }

    /// Whether it could have carried more over the last round trips.
    pub fn has_room(&self) -> bool {
        self.pacer.has_room()
    }

    /// Whether its rate has yet to be found.
    pub fn is_on_trial(&self, now: Time) -> bool {
        !self.rate.is_measured() && self.trial.is_open(now)
    }

    /// Whether less is asked of it than its pace allows.
    pub fn is_idle(&self) -> bool {
        self.pacer.is_idle()
    }

    /// Accounts for a sealed datagram that carries or asks for an acknowledgement.
    pub fn on_sealed(&mut self, now: Time, number: Number, out: Outgoing, more: Option<bool>) {
        self.sent.on_sent(now, number, out);
        self.count_sent(now, out.len);
        if let Some(more) = more {
            self.promised_more = more;
        }
        if out.eliciting {
            self.pacer.charge(now, out.len, self.rate.pace());
        }
    }

    /// Accounts for a datagram that went out.
    pub fn count_sent(&mut self, now: Time, len: usize) {
        self.last_sent = now;
        self.sent_datagrams += 1;
        self.sent_bytes += len as u64;
    }

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

    /// Falls back to smaller datagrams when only the large ones vanish. That is no congestion: until something arrives
    /// that was sent after it, the rate learns nothing, and then it begins anew.
    fn watch_sizes(&mut self, now: Time) {
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

    /// The system refused to send datagrams of this size. Their packets are appended to the list.
    pub fn on_refused(&mut self, now: Time, len: usize, refused: &mut Vec<PacketKey>) {
        self.sent.take_back(len, refused);
        self.mtu.on_refused(now, len);
        self.sent.sizes.watch(self.mtu.watched());
    }

    /// Tries a size when it is time to.
    fn probe_sizes(&mut self, now: Time) {
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

    fn may_probe_sizes(&self) -> bool {
        self.health.is_active() && self.session.is_established()
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

    fn note_losses(&mut self, arrived: u32, lost: u32) {
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

    /// Something besides an acknowledgement says that the path is doubtful.
    pub fn doubt(
        &mut self,
        now: Time,
        reason: PathReason,
        lost: &mut Vec<PacketKey>,
    ) -> Option<Change> {
        let change = self.health.doubt(now, reason)?;
        self.sent.give_up(lost);
        Some(change)
    }

    fn signs(&self, alone: bool, idle: Duration) -> Signs {
        let heard = self.received.last_arrival().unwrap_or(Time::ZERO);
        Signs {
            oldest_inflight: self.sent.oldest_inflight(),
            last_traffic: self.last_sent.max(heard),
            packet: self.packet_time(),
            alone,
            idle,
            keeps: self.initiator,
            probation_end: self.trial.probation_end(),
        }
    }

    fn tick_due(&self) -> Option<Time> {
        let successor = self.packet_time() * 5 / 4;
        (self.promised_more && self.health.is_active())
            .then(|| self.last_sent + TICK_AFTER.max(successor))
    }

    /// When [`Self::on_time`] is needed next.
    pub fn next_due(&self, alone: bool, idle: Duration) -> Time {
        let greet = match self.greeting {
            Greeting::Waiting(at) | Greeting::Repeating(at) => Some(at),
            Greeting::Idle | Greeting::Done => None,
        };
        [
            Some(self.last_session_tick + SESSION_TICK),
            self.loss_check,
            self.health.next_due(&self.rtt, &self.signs(alone, idle)),
            self.tick_due(),
            self.next_handshake,
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
        alone: bool,
        idle: Duration,
        lost: &mut Vec<PacketKey>,
        scratch: &mut [u8],
    ) -> TimeOutcome {
        let mut outcome = TimeOutcome::default();
        if self.session_is_old(now) && self.next_handshake.is_none() {
            self.start_handshake(now);
        }
        if self.next_handshake.is_some_and(|at| at <= now) {
            self.next_handshake = Some(now + self.handshake_wait);
            self.handshake_wait = (self.handshake_wait * 2).min(RETRY_MAX);
            self.initiate(now, scratch);
        }
        if let Greeting::Waiting(at) | Greeting::Repeating(at) = self.greeting {
            outcome.greet = at <= now && self.session.is_established();
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
        let (wish, change) = self
            .health
            .on_time(now, &self.rtt, &self.signs(alone, idle));
        outcome.change = change;
        match wish {
            None => {}
            Some(Wish::Probe) => self.ping(),
            Some(Wish::Keep) => self.say(MessageContent::Keep),
            Some(Wish::ProbeAndHandshake) => {
                self.ping();
                if self.initiator {
                    self.next_handshake.get_or_insert(now);
                }
            }
            Some(Wish::GiveUpFlight) => {
                self.sent.give_up(lost);
                self.ping();
            }
        }
        outcome
    }

    /// An idle bond sends nothing that would renew its session, and is to be reachable all the same.
    fn session_is_old(&self, now: Time) -> bool {
        /// Below the three minutes after which a session is no longer accepted, by time for some attempts.
        const OLD: Duration = Duration::from_secs(165);
        self.initiator && self.session.age(now).is_some_and(|age| age >= OLD)
    }

    /// Lets the session's timers run, unless they just did. To be called before anything is sealed or opened: the session
    /// notes all times by the clock that this sets, and keys that are too old are gone afterwards.
    pub fn tick_session(&mut self, now: Time) -> Option<Change> {
        if now.since(self.last_session_tick) < SESSION_CLOCK {
            return None;
        }
        self.last_session_tick = now;
        let was = self.session.is_established();
        let mut out = [0; HANDSHAKE_MAX];
        let tick = self.session.tick(now, &mut out);
        // A responder's session may ask for a handshake too; ours never starts one.
        if let Some(len) = tick.send.filter(|_| self.initiator || out[0] == 4) {
            self.raw.push_back((out[..len].to_vec(), None));
        }
        if !was || tick.established {
            return None;
        }
        self.greeting = Greeting::Idle;
        if self.initiator {
            self.start_handshake(now);
        }
        self.health.disconnected(now, PathReason::SessionLost)
    }

    fn initiate(&mut self, now: Time, scratch: &mut [u8]) {
        if let Some(len) = self.session.initiate(now, scratch) {
            self.unanswered = self.unanswered.map(|n| n.saturating_add(1));
            // Only the latest can be answered.
            self.raw.retain(|(d, _)| d.first() != Some(&1));
            self.raw.push_back((scratch[..len].to_vec(), None));
        }
    }

    /// How long to wait for the answer to a HELLO.
    pub fn greeting_wait(&self) -> Duration {
        // Never nothing: over a wire without delay it would be said again and again at once.
        if self.rtt.is_known() {
            (self.rtt.smoothed() * 2).max(GREETING_WAIT_MIN)
        } else {
            RETRY_MIN
        }
    }
}

/// Bytes of the IP and UDP header of a datagram to there.
fn headers(remote: SocketAddr) -> usize {
    8 + if remote.is_ipv4() { 20 } else { 40 }
}

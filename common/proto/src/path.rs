//! A path: one uplink to one server address, with its own session, and all that
//! is observed of it.
//!
//! The parts do not know each other; this file holds them together: what was
//! sent ([`sent`]), what arrived ([`received`]), how long it takes ([`rtt`]), at
//! which rate to send ([`crate::congestion`], [`pacer`]), whether it works ([`health`]) and how often it
//! did not of late ([`falls`]), how large its datagrams may be ([`mtu`]), and how long those of a train are ([`fit`]).
//! Before data depends on it, a [`train`] of pings guesses its rate and a [`trial`] with copies finds it. What is said over
//! it besides data is in [`said`]; [`snapshot`] shows it as figures.
//! What the operator asked (`role`) and what is observed are different fields.
//! Four occasions call several of them, each in a file of its own: handshakes ([`handshake`]), what acknowledgements and
//! answers tell ([`told`]), the passing of time ([`due`]), and that nobody needs it ([`resting`]).

mod due;
mod falls;
mod fit;
mod handshake;
mod health;
mod mtu;
mod pacer;
mod received;
mod resting;
mod rtt;
mod said;
mod sent;
mod snapshot;
mod told;
mod train;
mod trial;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

pub use fit::Fit;
use handshake::RETRY_MIN;
pub use health::{Change, Health, Signs, Wish};
pub use mtu::PathMtu;
use pacer::Pacer;
pub use received::{Incoming, ReceivedLog};
pub use resting::Mark;
use resting::Rest;
pub use rtt::{AnswerTime, Rtt};
pub use said::{Address, Candidate, Greeting, Message, MessageContent, Standing};
pub use sent::{Kind, Outgoing, SentLog};
pub use snapshot::Place;
pub use train::{Guess, ProbeTrain, lengthen};
pub use trial::Trial;

use crate::config::Role;
use crate::congestion::RateController;
use crate::frame::Probe;
use crate::limits;
use crate::session::{KEYS_LIVE, Number, Session};
use crate::time::Time;

/// Longest train of datagrams handed over at once, in time of the path's rate.
const TRAIN: Duration = Duration::from_millis(1);

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
    /// How long it takes until an acknowledgement is there.
    pub answers: AnswerTime,
    /// How fast to send.
    pub rate: RateController,
    /// Whether it works.
    pub health: Health,
    /// How it rests, and what ends that.
    rest: Rest,
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
    /// The session over which the other side's present life greeted first, and when. Sessions that began before it belong
    /// to a former life. Their numbers come round again, so an older number means that only while the keys of that life
    /// may still be around.
    pub first_session: Option<(u32, Time)>,
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
    /// When what was sent for which an acknowledgement stayed away.
    unanswered_since: Option<Time>,
    loss_share: f64,
    /// The same when it was last trusted.
    trusted_loss_share: f64,
    lost_since_ack: u32,
    /// Since when what is lost and delivered says nothing of the rate: only the size was wrong.
    blind_since: Option<Time>,
    next_handshake: Option<Time>,
    handshake_wait: Duration,
    /// HELLOs without an answer.
    hellos: u32,
    /// Initiations under this tag, until one is answered.
    unanswered: Option<u8>,
    last_session_tick: Time,
    pings: u32,
    /// How many of these were sent while it was trusted: an answer to one says nothing of a suspicion.
    trusted_pings: u32,
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
            answers: AnswerTime::default(),
            rate: RateController::new(),
            health: Health::new(now),
            rest: Rest::default(),
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
            unanswered_since: None,
            loss_share: 0.0,
            trusted_loss_share: 0.0,
            lost_since_ack: 0,
            blind_since: None,
            next_handshake: None,
            handshake_wait: RETRY_MIN,
            hellos: 0,
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
            rest: self.rest,
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
    pub fn is_former(&self, now: Time, session: u32) -> bool {
        // The low byte counts a path's sessions and wraps: after 128 of them a new one looks like an old one.
        self.first_session.is_some_and(|(first, since)| {
            let earlier = (session as u8).wrapping_sub(first as u8) as i8 <= -1;
            earlier && now.since(since) < KEYS_LIVE
        })
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
}

/// Bytes of the IP and UDP header of a datagram to there.
fn headers(remote: SocketAddr) -> usize {
    8 + if remote.is_ipv4() { 20 } else { 40 }
}

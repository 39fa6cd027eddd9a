//! A bond: all paths between one client and one server, seen as one pipe.
//!
//! This file holds the parts and calls them in order; the parts decide. Its
//! sides live in files of their own:
//!
//! * [`order`]: which paths there are for whom, as of now;
//! * [`transmit`]: what is sent next;
//! * [`acks`]: when an acknowledgement is sent, and over which path;
//! * [`pick`]: which packet leaves next, and over which path;
//! * [`overflow`]: what leaves over another path when the best one does not keep up;
//! * [`seal`]: a chosen packet becomes a datagram;
//! * [`copies`]: what is sent twice;
//! * [`unanswered`]: what is sent twice when its acknowledgement stays away;
//! * [`trial`]: copies that find the rate of a path;
//! * [`receive`]: what a datagram means;
//! * [`silence`]: what is said of a path that brings nothing any more;
//! * [`sizes`]: packets and paths that do not fit each other;
//! * [`greet`]: who the other side is, and whether it started anew;
//! * [`rest`]: what memory an idle bond gives back;
//! * [`resting`]: which paths nobody needs now, and what ends that;
//! * [`picture`]: all of it as figures.
//!
//! A packet that comes from the TUN is only sorted and queued here. It gets a
//! path in `poll_transmit`, when that path can take it.

mod acks;
mod copies;
mod greet;
mod order;
mod overflow;
mod pick;
mod picture;
mod receive;
mod rest;
mod resting;
mod seal;
mod silence;
mod sizes;
mod transmit;
mod trial;
mod unanswered;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;

use crate::buffer::{PacketBuf, Pool};
use crate::config::{Key, Modes, PeerConfig};
use crate::endpoint::WakeReason;
use crate::event::{Event, PathReason, SocketId};
use crate::flow::{Admitted, FlowTable, Queued};
use crate::frame::{CloseReason, Control};
use crate::halves::Joiner;
use crate::limits;
use crate::mss;
use crate::packet::{self, Transport};
use crate::path::{Address, Change, MessageContent, Path};
use crate::queue::{Queue, QueueDrop};
use crate::release::Latency;
use crate::reorder::Reorder;
use crate::schedule::{Order, PathView};
use crate::session::Session;
use crate::span::Span;
use crate::squeeze::{Restorer, Squeezer};
use crate::stats::PathState;
use crate::store::{PacketKey, Store};
use crate::tiers::Tiers;
use crate::time::Time;
use copies::Copies;
use pick::Pick;
use silence::Outage;
use trial::Recent;

/// A silent path of a client that does not come back is forgotten by the server.
const FORGET_PATH: Duration = Duration::from_secs(180);
/// Evidence for held packets is looked at no more often than this.
const EVIDENCE_EVERY: Duration = Duration::from_millis(1);
/// Share of the best path's capacity that makes a flow bulk.
const BULK_SHARE: f64 = 0.15;
/// The same while no capacity is known: 2 Mbit/s.
const BULK_RATE_MIN: f64 = 250_000.0;

/// Which end this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Starts handshakes and owns the uplinks.
    Client,
    /// Answers.
    Server,
}

/// What a bond borrows from its endpoint for the length of a call.
#[derive(Debug)]
pub struct Context<'a> {
    /// Buffers.
    pub pool: &'a mut Pool,
    /// Packets for the TUN.
    pub ready: &'a mut VecDeque<PacketBuf>,
    /// News.
    pub events: &'a mut VecDeque<Event>,
    /// Room to open and build datagrams in.
    pub scratch: &'a mut Vec<u8>,
    /// Session indices that are free again.
    pub freed: &'a mut Vec<u32>,
    /// What nobody can foretell.
    pub rng: &'a mut StdRng,
}

/// One bond.
#[derive(Debug)]
pub struct Bond {
    side: Side,
    peer: PeerConfig,
    modes: Modes,
    mtu: u16,
    own_mtu: u16,
    peer_mtu: u16,
    /// Whether the other side joins halves, once it said so.
    peer_joins: Option<bool>,
    boot: u64,
    peer_boot: Option<u64>,
    /// Boot numbers that the other side had before, the latest last.
    former_boots: VecDeque<u64>,
    paths: Vec<Path>,
    flows: FlowTable,
    queue: Queue,
    tiers: Tiers,
    store: Store,
    retransmits: VecDeque<PacketKey>,
    outage: Outage,
    copies: Copies,
    recent: Recent,
    stashed: Option<(u8, Pick)>,
    reorder: Reorder,
    span: Span,
    span_since: Time,
    span_among: usize,
    latency: Latency,
    squeezer: Squeezer,
    /// The other side takes begun checksums.
    peer_completes: bool,
    restorer: Restorer,
    joiner: Joiner,
    order: Order,
    views: Vec<PathView>,
    best: Option<u8>,
    ack_seq: u16,
    peer_ack_seq: Option<u16>,
    last_ack: Time,
    last_evidence: Time,
    last_packet: Time,
    /// The last packet after which it gave memory back.
    rested: Option<Time>,
    up: bool,
    arrived: Vec<PacketKey>,
    lost: Vec<PacketKey>,
    dropped: Vec<(QueueDrop, Queued)>,
    drops: BTreeMap<&'static str, u64>,
    counters: Counters,
}

/// Plain counters of a bond.
#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    packets_in: u64,
    bytes_in: u64,
    packets_out: u64,
    bytes_out: u64,
    retransmitted: u64,
    reinjected: u64,
    duplicated: u64,
    first_bytes: u64,
    retransmitted_bytes: u64,
    duplicated_bytes: u64,
    copies_received: u64,
    copies_first: u64,
    given_up: u64,
    acks_sent: u64,
    ack_bytes: u64,
    peer_restarts: u64,
    silences: u64,
    squeezed: u64,
    cut: u64,
    trials: u64,
}

impl Bond {
    /// A bond without a path. `boot` names this process.
    pub fn new(side: Side, peer: PeerConfig, modes: Modes, mtu: u16, boot: u64) -> Self {
        Bond {
            side,
            peer,
            modes,
            mtu,
            own_mtu: mtu,
            peer_mtu: u16::MAX,
            peer_joins: None,
            boot,
            peer_boot: None,
            former_boots: VecDeque::new(),
            paths: Vec::new(),
            flows: FlowTable::new(side == Side::Client),
            queue: Queue::default(),
            tiers: Tiers::default(),
            store: Store::default(),
            retransmits: VecDeque::new(),
            outage: Outage::default(),
            copies: Copies::default(),
            recent: Recent::default(),
            stashed: None,
            reorder: Reorder::default(),
            span: Span::default(),
            span_since: Time::ZERO,
            span_among: 0,
            latency: Latency::default(),
            squeezer: Squeezer::default(),
            peer_completes: false,
            restorer: Restorer::default(),
            joiner: Joiner::default(),
            order: Order::default(),
            views: Vec::new(),
            best: None,
            ack_seq: 0,
            peer_ack_seq: None,
            last_ack: Time::ZERO,
            last_evidence: Time::ZERO,
            last_packet: Time::ZERO,
            rested: None,
            up: false,
            arrived: Vec::new(),
            lost: Vec::new(),
            dropped: Vec::new(),
            drops: BTreeMap::new(),
            counters: Counters::default(),
        }
    }

    /// Its paths.
    pub fn paths(&self) -> &[Path] {
        &self.paths
    }

    /// How paths are used from now on.
    pub fn set_modes(&mut self, now: Time, modes: Modes) {
        if self.modes != modes {
            self.modes = modes;
            self.greet_all(now);
        }
    }

    fn drop_packet(&mut self, reason: &'static str) {
        *self.drops.entry(reason).or_default() += 1;
    }

    /// Adds a path with its session and the index that names it. When there are too many, one makes room that does not
    /// work, on a server one that rests if there is none; `None` when all work.
    pub fn add_path(
        &mut self,
        now: Time,
        tag: u8,
        address: Address,
        (session, index): (Session, u32),
        ctx: &mut Context<'_>,
    ) -> Option<&mut Path> {
        if self.paths.len() >= limits::PATHS {
            let health = |i: usize| &self.paths[i].health;
            // An uplink of ours that rests is not given up for a new one; a client's may be one that is no more.
            let spare = |&i: &usize| match self.side {
                Side::Client => !health(i).is_trusted(),
                Side::Server => !health(i).is_active(),
            };
            let oldest = (0..self.paths.len())
                .filter(spare)
                .min_by_key(|&i| (health(i).is_trusted(), health(i).since()))?;
            self.remove_path(now, oldest, PathReason::SessionLost, ctx);
        }
        let mut path = Path::new(now, tag, address, session, index);
        path.initiator = self.side == Side::Client;
        path.set_cookie(ctx.rng.next_u32());
        self.paths.push(path);
        self.paths.last_mut()
    }

    /// A path that was never answered goes on under another tag.
    pub fn change_tag(
        &mut self,
        old: u8,
        tag: u8,
        (session, index): (Session, u32),
        ctx: &mut Context<'_>,
    ) {
        if let Some(at) = self.path_index(old) {
            ctx.freed.push(self.paths[at].take_tag(tag, session, index));
        }
    }

    /// The path with a tag.
    pub fn path_index(&self, tag: u8) -> Option<usize> {
        self.paths.iter().position(|p| p.tag == tag)
    }

    /// The path over a socket (client).
    pub fn path_on(&self, socket: SocketId) -> Option<usize> {
        self.paths.iter().position(|p| p.address.socket == socket)
    }

    /// Removes a path; what it carried is sent again on the others.
    pub fn remove_path(
        &mut self,
        now: Time,
        index: usize,
        reason: PathReason,
        ctx: &mut Context<'_>,
    ) {
        let mut path = self.paths.remove(index);
        ctx.freed.push(path.index);
        path.sent.give_up(&mut self.lost);
        if self
            .stashed
            .as_ref()
            .is_some_and(|(tag, _)| *tag == path.tag)
        {
            self.unstash();
        }
        if path.health.is_trusted() {
            if reason == PathReason::UplinkRemoved {
                self.say_silent(path.tag, path.received.latest());
            }
            self.note_death(now);
            self.changed(path.tag, Change::Down(reason), ctx);
        }
        self.requeue_lost(now, true, ctx);
        self.refit(now);
    }

    /// A pick whose path is gone goes back to where it came from.
    fn unstash(&mut self) {
        match self.stashed.take() {
            Some((_, Pick::Repair(key) | Pick::Copy(key))) => self.lost.push(key),
            Some((_, Pick::New { slot, queued })) => {
                self.queue
                    .push(&mut self.flows, slot, queued, &mut self.dropped);
            }
            None => {}
        }
    }

    /// Something outside says that a path is doubtful.
    pub fn doubt_path(
        &mut self,
        now: Time,
        index: usize,
        reason: PathReason,
        ctx: &mut Context<'_>,
    ) {
        let tag = self.paths[index].tag;
        if let Some(change) = self.paths[index].doubt(now, reason, &mut self.lost) {
            if matches!(
                reason,
                PathReason::SendFailed | PathReason::CarrierLost | PathReason::UplinkRemoved
            ) {
                self.say_silent(tag, self.paths[index].received.latest());
            }
            self.note_death(now);
            self.changed(tag, change, ctx);
            self.requeue_lost(now, true, ctx);
        }
    }

    /// A path may work again: ask it.
    pub fn hope_for_path(&mut self, now: Time, index: usize) {
        let stands_by = self.stands_by(now, index);
        self.paths[index].hope(now, stands_by);
    }

    /// The machine slept: every path has to prove itself.
    pub fn woke(&mut self, now: Time, ctx: &mut Context<'_>) {
        if now.since(self.last_packet) > limits::PACKET_LIFE {
            // What was held then may not come out now.
            let mut stale = VecDeque::new();
            self.reorder.end_all(&mut stale);
            stale.into_iter().for_each(|packet| ctx.pool.put(packet));
        }
        for i in 0..self.paths.len() {
            if self.paths[i].health.is_active() {
                self.doubt_path(now, i, PathReason::SessionLost, ctx);
            }
            self.hope_for_path(now, i);
        }
    }

    /// Says goodbye on every path.
    pub fn close(&mut self, reason: CloseReason) {
        for path in &mut self.paths {
            path.say(MessageContent::Control(Control::Close(reason)));
        }
    }

    /// An inner packet from the TUN.
    pub fn handle_packet(&mut self, now: Time, mut packet: PacketBuf, ctx: &mut Context<'_>) {
        let Some(info) = packet::inspect(packet.bytes()) else {
            self.drop_packet("packet_malformed");
            ctx.pool.put(packet);
            return;
        };
        if info.len > usize::from(self.mtu) {
            return self.handle_too_big(now, packet, ctx);
        }
        if let Transport::Tcp { control: true, .. } = info.transport {
            packet.complete();
            mss::clamp(packet.bytes_mut(), self.worthwhile_mtu());
        }
        self.counters.packets_in += 1;
        self.counters.bytes_in += info.len as u64;
        self.last_packet = now;
        let bulk_rate = self.bulk_rate();
        let Some(admitted) = self.flows.admit(now, &info, bulk_rate) else {
            self.drop_packet("flow_table_full");
            ctx.pool.put(packet);
            return;
        };
        let Admitted {
            slot,
            ordered,
            worth,
            again,
            stream_end,
            patient,
        } = admitted;
        let queued = Queued {
            packet,
            since: now,
            ordered,
            ecn: info.ecn,
            worth,
            again,
            stream_end,
            patient,
        };
        self.queue
            .push(&mut self.flows, slot, queued, &mut self.dropped);
        self.count_queue_drops(ctx.pool);
    }

    fn bulk_rate(&self) -> f64 {
        let best = self.order.best().map_or(0.0, |v| v.capacity);
        (best * BULK_SHARE).max(BULK_RATE_MIN)
    }

    fn count_queue_drops(&mut self, pool: &mut Pool) {
        for (reason, queued) in self.dropped.drain(..) {
            *self.drops.entry(reason.name()).or_default() += 1;
            pool.put(queued.packet);
        }
    }

    /// Lost packets wait to be sent again, or are given up.
    fn requeue_lost(&mut self, now: Time, reinjection: bool, ctx: &mut Context<'_>) {
        if self.lost.is_empty() {
            return;
        }
        let mut given_up = Vec::new();
        let (outage_end, rtt) = (self.outage.end(now), self.quickest_rtt());
        for key in self.lost.drain(..) {
            let Some(stored) = self.store.get_mut(key) else {
                continue;
            };
            stored.in_flight = stored.in_flight.saturating_sub(1);
            stored.losses = stored.losses.saturating_add(1);
            if stored.in_flight > 0 || stored.queued {
                continue;
            }
            let hopeless = stored.copies >= limits::COPIES_MAX
                || stored.is_stale(now, outage_end, rtt)
                || self.retransmits.len() >= limits::RETRANSMITS;
            if hopeless {
                given_up.extend(self.store.remove(key, ctx.pool));
                continue;
            }
            stored.queued = true;
            self.retransmits.push_back(key);
            if reinjection {
                self.counters.reinjected += 1;
            }
        }
        self.skip(given_up);
    }

    /// Tells the other side not to wait for packets that were given up.
    fn skip(&mut self, given_up: Vec<(u16, u64)>) {
        self.counters.given_up += given_up.len() as u64;
        let best = self.best.and_then(|tag| self.path_index(tag));
        let Some(path) = best.map(|i| &mut self.paths[i]) else {
            return;
        };
        for chunk in given_up.chunks(crate::frame::MAX_SKIPS) {
            let skips = chunk
                .iter()
                .map(|&(slot, seq)| (slot, seq as u32 & 0x00ff_ffff))
                .collect();
            path.say(MessageContent::Control(Control::Skip(skips)));
        }
    }

    /// Passes a change of a path on, and what it means for the bond.
    fn changed(&mut self, path: u8, change: Change, ctx: &mut Context<'_>) {
        let peer = self.peer.public;
        news(
            ctx.events,
            match change {
                Change::Up(reason) => Event::PathUp { peer, path, reason },
                Change::Down(reason) => Event::PathDown { peer, path, reason },
            },
        );
        let up = self.paths.iter().any(|p| p.health.is_trusted());
        if up != self.up {
            self.up = up;
            news(
                ctx.events,
                if up {
                    Event::BondUp { peer }
                } else {
                    Event::BondDown { peer }
                },
            );
        }
    }

    fn is_alone(&self, index: usize) -> bool {
        !self
            .paths
            .iter()
            .enumerate()
            .any(|(i, p)| i != index && p.health.works())
    }

    /// How long a repair takes once a loss is known: there and back on the best
    /// path, twice, because the repair may be lost too.
    fn repair_time(&self) -> Duration {
        (self.quickest_rtt() * 5 / 2 + Duration::from_millis(20)).min(limits::HOLD_MAX)
    }

    /// The shortest round trip of an active path, as it is now.
    fn quickest_rtt(&self) -> Duration {
        let active = self.paths.iter().filter(|p| p.health.is_active());
        active
            .map(|p| p.rtt.smoothed())
            .min()
            .unwrap_or(limits::HOLD_MAX)
    }

    /// Ends waits of held packets for which there is evidence or no time left.
    fn release_held(&mut self, now: Time, ctx: &mut Context<'_>) {
        self.last_evidence = now;
        let before = ctx.ready.len();
        let repair = self.repair_time();
        let paths = &self.paths;
        let may_bring = |sent| paths.iter().any(|p| p.received.may_still_bring(now, sent));
        self.reorder.on_time(now, repair, may_bring, ctx.ready);
        self.account_ready(before, ctx);
    }

    /// Counts what was appended to the packets for the TUN.
    fn account_ready(&mut self, before: usize, ctx: &mut Context<'_>) {
        for packet in ctx.ready.iter().skip(before) {
            self.counters.packets_out += 1;
            self.counters.bytes_out += packet.len() as u64;
        }
    }

    /// Sets the clocks of the sessions of all paths; what is sent, arrives or is due next relies on them.
    fn tick_sessions(&mut self, now: Time, ctx: &mut Context<'_>) {
        for i in 0..self.paths.len() {
            self.tick_session(now, i, ctx);
        }
    }

    fn tick_session(&mut self, now: Time, index: usize, ctx: &mut Context<'_>) {
        if !self.paths[index].session_clock_is_due(now) {
            return;
        }
        let renews = self.standing(now, index).renews();
        if let Some(change) = self.paths[index].tick_session(now, renews) {
            self.changed(self.paths[index].tag, change, ctx);
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Time, ctx: &mut Context<'_>) {
        self.tick_sessions(now, ctx);
        let mut scratch = [0; 256];
        let mut i = 0;
        while i < self.paths.len() {
            let standing = self.standing(now, i);
            let path = &mut self.paths[i];
            let tag = path.tag;
            let outcome = path.on_time(now, &standing, &mut self.lost, &mut scratch);
            if let Some(change) = outcome.change {
                if matches!(change, Change::Down(_)) {
                    self.note_death(now);
                }
                self.changed(tag, change, ctx);
            }
            if outcome.greet {
                self.greet(now, i);
            }
            let reinjection = !self.paths[i].health.is_active();
            self.requeue_lost(now, reinjection, ctx);
            if self.is_forgotten(now, i) {
                self.remove_path(now, i, PathReason::SessionLost, ctx);
            } else {
                i += 1;
            }
        }
        self.report_silence(now);
        if self
            .reorder
            .next_due(self.repair_time())
            .is_some_and(|due| due <= now)
        {
            self.release_held(now, ctx);
        }
        self.rest(now);
    }

    /// Server: half-open paths live for seconds, dead ones for minutes.
    fn is_forgotten(&self, now: Time, index: usize) -> bool {
        let path = &self.paths[index];
        let age = now.since(path.health.since());
        self.side == Side::Server
            && match path.health.state() {
                PathState::Connecting => age > limits::HALF_OPEN_AGE,
                PathState::Dead => age > FORGET_PATH,
                PathState::Resting => now.since(self.last_sign(path)) > FORGET_PATH,
                PathState::Active | PathState::Suspect | PathState::Returning => false,
            }
    }

    /// Active paths, the quickest first, as of the last scheduling.
    fn best_paths(&self) -> impl Iterator<Item = usize> + '_ {
        self.order.usable.iter().map(|v| v.index).filter(|&i| {
            self.paths
                .get(i)
                .is_some_and(|p| p.health.is_active() && p.session.is_established())
        })
    }

    /// When [`Self::handle_timeout`] or `poll_transmit` is needed next, and why.
    pub fn poll_timeout(&self, now: Time) -> Option<(Time, WakeReason)> {
        let mut next: Option<(Time, WakeReason)> = None;
        let mut offer = |at: Option<Time>, reason| {
            if let Some(at) = at.filter(|at| next.is_none_or(|(t, _)| *at < t)) {
                next = Some((at, reason));
            }
        };
        for (i, path) in self.paths.iter().enumerate() {
            offer(
                Some(path.next_due(now, &self.standing(now, i))),
                WakeReason::Maintenance,
            );
            offer(path.received.silence_at(), WakeReason::Loss);
        }
        offer(self.ack_due(), WakeReason::Ack);
        offer(
            self.reorder.next_due(self.repair_time()),
            WakeReason::Release,
        );
        offer(self.pace_due(now), WakeReason::Pace);
        offer(self.copies.next_due(), WakeReason::Pace);
        next
    }

    /// The key of the other side.
    pub fn peer_key(&self) -> Key {
        self.peer.public
    }
}

/// Appends news; the oldest goes when nobody listens.
pub(crate) fn news(events: &mut VecDeque<Event>, event: Event) {
    if events.len() >= limits::EVENTS {
        events.pop_front();
    }
    events.push_back(event);
}

//! An endpoint: one side's sockets, and the bonds behind them.
//!
//! From a datagram to its bond by session index, from an inner packet to its
//! bond by address; handshakes are admitted here. A client's endpoint has one
//! bond; a server's has one per peer that was ever heard.
//!
//! # Calling contract
//! After any `handle_*`, drain [`Endpoint::poll_transmit`], [`Endpoint::poll_packet`],
//! [`Endpoint::poll_event`] and, where a server has several workers,
//! [`Endpoint::poll_handover`] until each gives `None`, then sleep no longer
//! than [`Endpoint::poll_timeout`] says and call [`Endpoint::handle_timeout`].
//! Read the sockets before calling `handle_timeout`, so that the driver's own
//! lateness is not taken for a path's silence.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::bond::{Bond, Context, Side};
use crate::buffer::{PacketBuf, Pool};
use crate::config::{ClientConfig, Key, Modes, PeerConfig, Role, ServerConfig};
use crate::event::{Command, Event, PathReason, SocketId};
use crate::frame::CloseReason;
use crate::limits;
use crate::packet;
use crate::path::Address;
use crate::session::{Identity, Outer, Session, outer, wake};
use crate::stats::{Detail, Snapshot};
use crate::time::Time;
use crate::transmit::{Arrival, Transmit};

mod admission;
mod handover;

pub use handover::Handover;
use handover::Worker;

/// Bytes that one train of datagrams may fill; the kernel's limit for one batch is 64 KiB.
const TRAIN_BYTES: usize = 66_000;

/// Why the endpoint wants to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WakeReason {
    /// A path may send again.
    Pace,
    /// An acknowledgement is due.
    Ack,
    /// Something may be lost, or a path silent.
    Loss,
    /// A held packet is due.
    Release,
    /// Sessions, probes and other slow matters.
    Maintenance,
}

#[derive(Debug)]
struct Peer {
    config: PeerConfig,
    /// Whose it is.
    worker: u8,
    bond: Option<usize>,
}

#[derive(Debug)]
struct Seat {
    bond: Bond,
    due: Option<(Time, WakeReason)>,
    /// It may have something to send.
    restless: bool,
}

/// One side of Marline.
#[derive(Debug)]
pub struct Endpoint {
    side: Side,
    worker: Worker,
    identity: Identity,
    mtu: u16,
    boot: u64,
    rng: StdRng,
    peers: HashMap<Key, Peer>,
    by_inner: HashMap<IpAddr, Key>,
    by_index: HashMap<u32, (usize, u8)>,
    /// What was found last for a packet and for a datagram: they come in runs, and a run is hashed once.
    last_inner: Option<(IpAddr, usize)>,
    last_index: Option<(u32, (usize, u8))>,
    seats: Vec<Option<Seat>>,
    restless: VecDeque<usize>,
    timers: BTreeSet<(Time, usize)>,
    next_tag: u8,
    replies: VecDeque<(Vec<u8>, Address)>,
    handovers: VecDeque<(u8, Handover)>,
    pool: Pool,
    ready: VecDeque<PacketBuf>,
    events: VecDeque<Event>,
    scratch: Vec<u8>,
    freed: Vec<u32>,
    drops: BTreeMap<&'static str, u64>,
}

/// Answers to strangers that may wait to be sent.
const REPLIES: usize = 64;

impl Endpoint {
    /// A client's endpoint: one bond to one server. `seed` is fresh randomness.
    pub fn client(config: ClientConfig, seed: [u8; 32]) -> Self {
        let identity = Identity::new(config.secret);
        Self::client_with(identity, config, seed)
    }

    /// A server's endpoint: a bond per peer. `seed` is fresh randomness.
    pub fn server(config: ServerConfig, seed: [u8; 32]) -> Self {
        Self::new(Side::Server, Identity::new(config.secret), config.mtu, seed)
    }

    /// The endpoints of a server with a worker for each of `seeds`, which are fresh randomness;
    /// at most [`limits::WORKERS`]. A lone one is [`Self::server`].
    pub fn workers(config: &ServerConfig, seeds: &[[u8; 32]]) -> Vec<Self> {
        let identity = Identity::new(config.secret);
        Self::workers_with(&identity, config, seeds)
    }

    /// A client without cryptography, for simulations.
    #[cfg(feature = "test-session")]
    pub fn client_for_test(config: ClientConfig, seed: [u8; 32]) -> Self {
        let identity = Identity::for_test(config.secret);
        Self::client_with(identity, config, seed)
    }

    /// A server without cryptography, for simulations.
    #[cfg(feature = "test-session")]
    pub fn server_for_test(config: ServerConfig, seed: [u8; 32]) -> Self {
        Self::new(
            Side::Server,
            Identity::for_test(config.secret),
            config.mtu,
            seed,
        )
    }

    /// The endpoints of a server with several workers without cryptography.
    #[cfg(feature = "test-session")]
    pub fn workers_for_test(config: &ServerConfig, seeds: &[[u8; 32]]) -> Vec<Self> {
        let identity = Identity::for_test(config.secret);
        Self::workers_with(&identity, config, seeds)
    }

    /// They share one identity, and with it one gate for handshakes.
    fn workers_with(identity: &Identity, config: &ServerConfig, seeds: &[[u8; 32]]) -> Vec<Self> {
        assert!(
            seeds.len() <= limits::WORKERS,
            "an index has room for no more workers"
        );
        let of = seeds.len() as u8;
        let endpoint = |(number, seed): (u8, &[u8; 32])| {
            let mut this = Self::new(Side::Server, identity.clone(), config.mtu, *seed);
            this.worker = Worker { number, of };
            this
        };
        (0..).zip(seeds).map(endpoint).collect()
    }

    fn client_with(identity: Identity, config: ClientConfig, seed: [u8; 32]) -> Self {
        let mut this = Self::new(Side::Client, identity, config.mtu, seed);
        let server = PeerConfig {
            public: config.server,
            name: String::new(),
            v4: None,
            v6: None,
        };
        this.seat_bond(server, config.modes);
        this
    }

    fn new(side: Side, identity: Identity, mtu: u16, seed: [u8; 32]) -> Self {
        let mut rng = StdRng::from_seed(seed);
        // Zero means "unknown" on the wire.
        let boot = rng.next_u64() | 1;
        Endpoint {
            side,
            worker: Worker::ALONE,
            identity,
            mtu,
            boot,
            rng,
            peers: HashMap::new(),
            by_inner: HashMap::new(),
            by_index: HashMap::new(),
            last_inner: None,
            last_index: None,
            seats: Vec::new(),
            restless: VecDeque::new(),
            timers: BTreeSet::new(),
            next_tag: 0,
            replies: VecDeque::new(),
            handovers: VecDeque::new(),
            pool: Pool::default(),
            ready: VecDeque::new(),
            events: VecDeque::new(),
            scratch: Vec::new(),
            freed: Vec::new(),
            drops: BTreeMap::new(),
        }
    }

    fn seat_bond(&mut self, peer: PeerConfig, modes: Modes) -> usize {
        let bond = Bond::new(self.side, peer, modes, self.mtu, self.boot);
        let seat = Some(Seat {
            bond,
            due: None,
            restless: false,
        });
        match self.seats.iter().position(Option::is_none) {
            Some(free) => {
                self.seats[free] = seat;
                free
            }
            None => {
                self.seats.push(seat);
                self.seats.len() - 1
            }
        }
    }

    fn drop_reason(&mut self, reason: &'static str) {
        *self.drops.entry(reason).or_default() += 1;
    }

    /// Calls into a bond with what it may borrow, and notes that it may have
    /// something to say.
    fn with_bond<R>(
        &mut self,
        at: usize,
        f: impl FnOnce(&mut Bond, &mut Context<'_>) -> R,
    ) -> Option<R> {
        let seat = self.seats.get_mut(at)?.as_mut()?;
        let mut ctx = Context {
            pool: &mut self.pool,
            ready: &mut self.ready,
            events: &mut self.events,
            scratch: &mut self.scratch,
            freed: &mut self.freed,
            rng: &mut self.rng,
        };
        let result = f(&mut seat.bond, &mut ctx);
        if !seat.restless {
            seat.restless = true;
            self.restless.push_back(at);
        }
        for index in self.freed.drain(..) {
            self.by_index.remove(&index);
            self.last_index = None;
        }
        Some(result)
    }

    /// A buffer for [`Self::handle_packet`].
    pub fn buffer(&mut self) -> PacketBuf {
        self.pool.take()
    }

    /// Gives back a buffer that came from [`Self::poll_packet`] or [`Self::buffer`].
    pub fn recycle(&mut self, buf: PacketBuf) {
        self.pool.put(buf);
    }

    /// An inner packet from the TUN: sorted and queued, nothing is sent yet.
    pub fn handle_packet(&mut self, now: Time, packet: PacketBuf) {
        let Some((_, destination)) = packet::addresses(packet.bytes()) else {
            self.drop_reason("packet_malformed");
            return self.pool.put(packet);
        };
        if !is_routable(destination) {
            self.drop_reason("packet_not_routable");
            return self.pool.put(packet);
        }
        let at = match self.side {
            Side::Client => Some(0),
            Side::Server => self.bond_of(destination),
        };
        let Some(at) = at else {
            if let Some(worker) = self.worker_of(destination) {
                return self.hand_over(worker, Handover::Packet(packet));
            }
            self.drop_reason("packet_no_peer");
            return self.pool.put(packet);
        };
        self.with_bond(at, |bond, ctx| bond.handle_packet(now, packet, ctx));
    }

    /// One datagram from the wire.
    pub fn handle_datagram(&mut self, now: Time, arrival: Arrival, datagram: &[u8]) {
        let Some(outer) = outer(datagram) else {
            return self.drop_reason("datagram_malformed");
        };
        if let Outer::Initiation { sender } = outer {
            if self.side == Side::Client {
                return self.drop_reason("handshake_unexpected");
            }
            return self.admit(now, arrival, sender, datagram);
        }
        if !self.pass_on(now, arrival, outer, datagram) {
            self.lost_datagram(arrival, outer, datagram);
        }
    }

    /// Whether a datagram was for a path of ours, which has it now.
    fn pass_on(&mut self, now: Time, arrival: Arrival, outer: Outer, datagram: &[u8]) -> bool {
        let path = outer.receiver().and_then(|index| self.path_of(index >> 8));
        let Some((at, tag)) = path else {
            return false;
        };
        self.with_bond(at, |bond, ctx| match outer {
            Outer::Keep { keep, .. } => bond.handle_keep(now, tag, arrival, keep, ctx),
            Outer::Seen { cookie, .. } => bond.handle_seen(now, tag, cookie),
            Outer::Wake { cookie, .. } => bond.handle_wake(now, tag, cookie, ctx),
            Outer::Initiation { .. } | Outer::ToIndex { .. } => {
                bond.handle_datagram(now, tag, arrival, datagram, ctx);
            }
        });
        true
    }

    /// Something for an index that nobody has. A client whose server was started anew is told so by its first KEEP.
    fn answer_stranger(&mut self, arrival: Arrival, outer: Outer) {
        match outer {
            Outer::Keep { keep, .. } if self.side == Side::Server => {
                self.drop_reason("keep_unknown");
                if self.replies.len() < REPLIES {
                    self.replies
                        .push_back((wake(keep.sender, keep.cookie), arrival.into()));
                }
            }
            _ => self.drop_reason("datagram_no_session"),
        }
    }

    /// Server: the bond of the peer that has this inner address.
    fn bond_of(&mut self, inner: IpAddr) -> Option<usize> {
        if let Some((address, at)) = self.last_inner
            && address == inner
        {
            return Some(at);
        }
        let at = self.peers.get(self.by_inner.get(&inner)?)?.bond?;
        self.last_inner = Some((inner, at));
        Some(at)
    }

    /// The bond and the path with this session index.
    fn path_of(&mut self, index: u32) -> Option<(usize, u8)> {
        if let Some((known, path)) = self.last_index
            && known == index
        {
            return Some(path);
        }
        let path = *self.by_index.get(&index)?;
        self.last_index = Some((index, path));
        Some(path)
    }

    /// The operating system refused to send to `remote` over `socket`
    /// (unreachable, interface gone, not permitted). Not for a full send buffer.
    pub fn handle_send_failed(&mut self, now: Time, socket: SocketId, remote: SocketAddr) {
        self.on_paths_to(socket, remote, |bond, index, ctx| {
            bond.doubt_path(now, index, PathReason::SendFailed, ctx);
        });
    }

    /// The operating system refused to send datagrams of `len` bytes to `remote` over
    /// `socket`, as they are too large for the interface.
    pub fn handle_send_too_large(
        &mut self,
        now: Time,
        socket: SocketId,
        remote: SocketAddr,
        len: usize,
    ) {
        self.on_paths_to(socket, remote, |bond, index, ctx| {
            bond.refuse_size(now, index, len, ctx);
        });
    }

    fn on_paths_to(
        &mut self,
        socket: SocketId,
        remote: SocketAddr,
        mut f: impl FnMut(&mut Bond, usize, &mut Context<'_>),
    ) {
        for at in 0..self.seats.len() {
            let Some(seat) = &self.seats[at] else {
                continue;
            };
            let hit = |p: &crate::path::Path| {
                p.address.socket == socket && p.address.remote == remote && p.health.is_trusted()
            };
            if let Some(index) = seat.bond.paths().iter().position(hit) {
                self.with_bond(at, |bond, ctx| f(bond, index, ctx));
            }
        }
    }

    /// Something the outside world wants or has seen.
    pub fn handle_command(&mut self, now: Time, command: Command) {
        match command {
            Command::AddUplink {
                socket,
                name,
                remote,
                mtu,
                role,
            } => {
                self.add_uplink(now, socket, name, remote, mtu, role);
            }
            Command::RemoveUplink { socket } => {
                self.on_uplink(socket, |bond, index, ctx| {
                    bond.remove_path(now, index, PathReason::UplinkRemoved, ctx);
                });
            }
            Command::UplinkCarrier { socket, up } => {
                self.on_uplink(socket, |bond, index, ctx| {
                    if up {
                        bond.hope_for_path(now, index);
                    } else {
                        bond.doubt_path(now, index, PathReason::CarrierLost, ctx);
                    }
                });
            }
            Command::SetModes(modes) => {
                self.with_bond(0, |bond, _| bond.set_modes(now, modes));
            }
            Command::AddPeer(config) => self.add_peer(now, config, self.worker.number),
            Command::NotePeer { peer, worker } => self.add_peer(now, peer, worker),
            Command::RemovePeer(key) => self.remove_peer(now, &key),
            Command::Woke => {
                for at in 0..self.seats.len() {
                    self.with_bond(at, |bond, ctx| bond.woke(now, ctx));
                }
            }
            Command::Close => {
                for at in 0..self.seats.len() {
                    self.with_bond(at, |bond, _| bond.close(CloseReason::Stopped));
                }
            }
        }
    }

    fn on_uplink(&mut self, socket: SocketId, f: impl FnOnce(&mut Bond, usize, &mut Context<'_>)) {
        self.with_bond(0, |bond, ctx| {
            if let Some(index) = bond.path_on(socket) {
                f(bond, index, ctx);
            }
        });
    }

    fn add_uplink(
        &mut self,
        now: Time,
        socket: SocketId,
        name: String,
        remote: SocketAddr,
        mtu: u16,
        role: Role,
    ) {
        if role == Role::Never {
            return;
        }
        self.on_uplink(socket, |bond, index, ctx| {
            bond.remove_path(now, index, PathReason::UplinkRemoved, ctx);
        });
        let Some(Some(seat)) = self.seats.first() else {
            return;
        };
        let server = seat.bond.peer_key();
        let (tag, session, index) = self.new_tag(server);
        let address = Address {
            socket,
            remote,
            local: None,
        };
        let added = self.with_bond(0, |bond, ctx| {
            let path = bond.add_path(now, tag, address, (session, index), ctx);
            path.map(|p| {
                p.name = name;
                p.role = role;
                p.mtu.limit(mtu);
                p.start_handshake(now);
            })
        });
        if added.flatten().is_some() {
            self.by_index.insert(index, (0, tag));
            self.with_bond(0, |bond, _| bond.refit(now));
        } else {
            self.drop_reason("uplink_too_many");
        }
    }

    /// Client: a tag that no path has, with the session of a path that is called so, and its index.
    fn new_tag(&mut self, server: Key) -> (u8, Session, u32) {
        let seat = self.seats.first().and_then(Option::as_ref);
        while seat.is_some_and(|seat| seat.bond.path_index(self.next_tag).is_some()) {
            self.next_tag = self.next_tag.wrapping_add(1);
        }
        let tag = self.next_tag;
        self.next_tag = self.next_tag.wrapping_add(1);
        let index = self.free_index(Some(tag));
        (tag, self.identity.session(server, index), index)
    }

    /// Client: paths that nobody answers try another tag.
    fn change_tags(&mut self, now: Time) {
        while let Some(Some(seat)) = self.seats.first()
            && let Some(path) = seat.bond.paths().iter().find(|p| p.wants_other_tag(now))
        {
            let (old, server) = (path.tag, seat.bond.peer_key());
            let (tag, session, index) = self.new_tag(server);
            self.with_bond(0, |bond, ctx| {
                bond.change_tag(old, tag, (session, index), ctx)
            });
            self.by_index.insert(index, (0, tag));
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Time) {
        if self.side == Side::Client {
            self.change_tags(now);
        }
        while let Some(&(due, at)) = self.timers.first() {
            if due > now {
                break;
            }
            self.timers.remove(&(due, at));
            if let Some(Some(seat)) = self.seats.get_mut(at) {
                seat.due = None;
            }
            self.with_bond(at, |bond, ctx| bond.handle_timeout(now, ctx));
        }
    }

    /// The next train of at most `max_segments` datagrams to send, in the front
    /// of `out`, which is made large enough.
    pub fn poll_transmit(
        &mut self,
        now: Time,
        out: &mut Vec<u8>,
        max_segments: usize,
    ) -> Option<Transmit> {
        if out.len() < TRAIN_BYTES {
            out.resize(TRAIN_BYTES, 0);
        }
        if let Some((reply, to)) = self.replies.pop_front() {
            out[..reply.len()].copy_from_slice(&reply);
            let len = reply.len();
            let Address {
                socket,
                remote,
                local,
            } = to;
            return Some(Transmit {
                socket,
                remote,
                local,
                len,
                segment_len: len,
            });
        }
        let max_segments = max_segments.max(1);
        while let Some(&at) = self.restless.front() {
            let transmit = self.with_bond(at, |bond, ctx| {
                bond.poll_transmit(now, out, max_segments, ctx)
            });
            if let Some(transmit) = transmit.flatten() {
                // Take turns between bonds.
                self.restless.rotate_left(1);
                return Some(transmit);
            }
            self.restless.pop_front();
            if let Some(Some(seat)) = self.seats.get_mut(at) {
                seat.restless = false;
                let was = seat.due.map(|(due, _)| due);
                seat.due = seat.bond.poll_timeout(now);
                let is = seat.due.map(|(due, _)| due);
                if is != was {
                    // In this order the set of a lone bond never runs empty and keeps its memory.
                    self.timers.extend(is.map(|due| (due, at)));
                    if let Some(due) = was {
                        self.timers.remove(&(due, at));
                    }
                }
            }
        }
        None
    }

    /// The next inner packet for the TUN; give the buffer back with [`Self::recycle`].
    pub fn poll_packet(&mut self) -> Option<PacketBuf> {
        self.ready.pop_front()
    }

    /// The next piece of news.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Self::handle_timeout`] wants to be called next, and why.
    pub fn poll_timeout(&mut self) -> Option<(Time, WakeReason)> {
        let &(due, at) = self.timers.first()?;
        let reason = self.seats.get(at)?.as_ref()?.due?.1;
        Some((due, reason))
    }

    /// A picture of everything, with flows as far as they are asked for.
    pub fn snapshot(&self, now: Time, detail: &Detail) -> Snapshot {
        let bonds = self.seats.iter().flatten();
        Snapshot {
            bonds: bonds
                .map(|s| {
                    let peer = BASE64.encode(s.bond.peer_key());
                    s.bond.snapshot(now, peer, detail)
                })
                .collect(),
            drops: self
                .drops
                .iter()
                .map(|(&k, &v)| (k.to_owned(), v))
                .collect(),
        }
    }
}

/// Multicast, broadcast and link-local packets concern the local link, and a
/// bond is none.
fn is_routable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            !(v4.is_multicast() || v4.is_broadcast() || v4.is_link_local() || v4.is_unspecified())
        }
        IpAddr::V6(v6) => !(v6.is_multicast() || v6.is_unicast_link_local() || v6.is_unspecified()),
    }
}

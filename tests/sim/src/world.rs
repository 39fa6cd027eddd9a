//! A client, a server and what lies between, in virtual time.
//!
//! ```text
//! apps ─ client endpoint ─ uplink ─ NAT ─ link up ──► server endpoint ─ hosts
//!                                    ◄─ link down ─
//! ```
//!
//! Nothing happens between two deadlines, so time jumps from one to the next. At
//! each moment the order is fixed: the plan's events, arrivals, timers, and then
//! everything that the endpoints and the traffic have to hand out, until nobody
//! has anything left. Hence the same plan and seed give the same run, and the
//! run's fingerprint, taken over every datagram and packet with its moment,
//! proves it.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use marline_proto::{
    Arrival, ClientConfig, Command, Detail, Endpoint, Event as News, Modes, PacketBuf, PeerConfig,
    ServerConfig, Snapshot, SocketId, Time,
};

use crate::check::{Checker, Violation};
use crate::event::{Event, Plan, UplinkSpec, Way};
use crate::link::{Link, LinkParams, LinkStats, Nanos};
use crate::nat::Nat;
use crate::packet::{CLIENT_V4, CLIENT_V6, Side, Version, fingerprint, mix};
use crate::rng::Rng;
use crate::workload::Traffic;

const CLIENT_SECRET: [u8; 32] = [0x11; 32];
const SERVER_SECRET: [u8; 32] = [0x22; 32];
const SERVER_SOCKET: SocketId = SocketId(0);
const SERVER_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const SERVER_PORT: u16 = 51_820;
/// Datagrams per call of `poll_transmit`: what a driver would pass.
const MAX_SEGMENTS: usize = 16;
/// Bytes of the largest IP packet on an uplink.
const UPLINK_MTU: u16 = 1500;
/// How often the endpoints are looked at from outside.
const SAMPLE_EVERY: Nanos = 100_000_000;
/// Rounds at one moment after which somebody must be running in circles.
const ROUNDS_MAX: u32 = 20_000;

/// A datagram on its way.
#[derive(Clone, Debug)]
struct Datagram {
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
}

#[derive(Debug)]
struct Uplink {
    spec: UplinkSpec,
    socket: SocketId,
    local: SocketAddr,
    nat: Option<Nat>,
    up: Link<Datagram>,
    down: Link<Datagram>,
    present: bool,
    carrier: bool,
    rng: Rng,
    used_bytes: [u64; 2],
}

/// What an endpoint told about itself, added up over its lives.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Totals {
    /// Counters of all bonds, by name.
    pub counters: BTreeMap<String, u64>,
    /// Drops of all bonds and before them, by reason.
    pub drops: BTreeMap<String, u64>,
    /// News, by name.
    pub events: BTreeMap<String, u64>,
}

/// The whole world of one run.
pub struct World {
    now: Nanos,
    seed: u64,
    lives: u64,
    /// By how much the clocks of client and server are ahead of the world's.
    ahead: [Nanos; 2],
    mtu: u16,
    modes: Modes,
    client: Endpoint,
    server: Endpoint,
    totals: [Totals; 2],
    uplinks: Vec<Uplink>,
    next_socket: u16,
    traffic: Traffic,
    events: VecDeque<(Nanos, Event)>,
    asleep_until: Option<Nanos>,
    next_sample: Nanos,
    checker: Checker,
    fingerprint: u64,
    news: Vec<(Nanos, Side, News)>,
    scratch: Vec<u8>,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World")
            .field("now", &self.now)
            .finish_non_exhaustive()
    }
}

/// Where what is kept of each side stands.
fn place(side: Side) -> usize {
    usize::from(side == Side::Server)
}

fn seed_bytes(seed: u64, life: u64) -> [u8; 32] {
    let mut rng = Rng::new(seed).fork(life);
    let mut bytes = [0; 32];
    for chunk in bytes.chunks_mut(8) {
        chunk.copy_from_slice(&rng.next_u64().to_le_bytes());
    }
    bytes
}

impl World {
    /// The beginning of a plan.
    ///
    /// # Panics
    /// If the plan does not pass [`Plan::check`].
    pub fn new(plan: &Plan, seed: u64) -> Self {
        if let Err(complaint) = plan.check() {
            panic!("a plan is checked where it is read: {complaint}");
        }
        let mut events: Vec<_> = plan
            .event
            .iter()
            .map(|timed| (timed.at(), timed.event.clone()))
            .collect();
        events.sort_by_key(|(at, _)| *at);
        let root = Rng::new(seed);
        let uplinks = plan.uplink.iter().enumerate();
        let mut world = World {
            now: 0,
            seed,
            lives: 1,
            ahead: [0, 0],
            mtu: plan.mtu,
            modes: plan.modes,
            client: new_client(plan.modes, plan.mtu, seed_bytes(seed, 0)),
            server: new_server(plan.mtu, seed_bytes(seed, 1), Time::ZERO),
            totals: Default::default(),
            uplinks: uplinks
                .map(|(id, spec)| Uplink::new(id, spec, &root))
                .collect(),
            next_socket: 1,
            traffic: Traffic::new(&plan.flow, usize::from(plan.mtu)),
            events: events.into(),
            asleep_until: None,
            next_sample: 0,
            checker: Checker::new(plan.uplink.len()),
            fingerprint: 0,
            news: Vec::new(),
            scratch: Vec::new(),
        };
        for index in 0..world.uplinks.len() {
            if world.uplinks[index].present {
                world.add_uplink(index);
            }
        }
        world.drain();
        world
    }

    /// The time.
    pub fn now(&self) -> Nanos {
        self.now
    }

    /// What the clock of this side's process shows.
    fn clock(&self, side: Side) -> Time {
        Time::from_nanos(self.now + self.ahead[place(side)])
    }

    /// The traffic and what it got.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// What went wrong so far.
    pub fn violations(&self) -> &[Violation] {
        self.checker.violations()
    }

    /// Most bytes that ever waited in one bond, most packets that were ever held back.
    pub fn peaks(&self) -> (u64, u64) {
        self.checker.peaks()
    }

    /// The run up to now in one number.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// What the endpoints reported, in order.
    pub fn news(&self) -> &[(Nanos, Side, News)] {
        &self.news
    }

    /// What an endpoint says of itself now.
    pub fn snapshot(&self, side: Side) -> Snapshot {
        match side {
            Side::Client => self.client.snapshot(self.clock(side), &Detail::Flows),
            Side::Server => self.server.snapshot(self.clock(side), &Detail::Flows),
        }
    }

    /// What an endpoint counted, over all its lives.
    pub fn totals(&self, side: Side) -> Totals {
        let mut totals = self.totals[place(side)].clone();
        totals.add(&self.snapshot(side));
        totals
    }

    /// What the links of an uplink did: up, down.
    pub fn link_stats(&self, uplink: &str) -> Option<(LinkStats, LinkStats)> {
        let uplink = self
            .uplinks
            .iter()
            .find(|candidate| candidate.spec.name == uplink)?;
        Some((uplink.up.stats(), uplink.down.stats()))
    }

    /// Lets time pass. Stops early when somebody runs in circles.
    pub fn run_until(&mut self, until: Nanos) {
        let mut rounds = 0;
        while let Some(next) = self.next_deadline().filter(|next| *next <= until) {
            if next > self.now {
                self.now = next;
                rounds = 0;
            }
            rounds += 1;
            if rounds > ROUNDS_MAX {
                let due = format!(
                    "client {:?}, server {:?}",
                    self.client.poll_timeout(),
                    self.server.poll_timeout()
                );
                self.checker
                    .violated(self.now, format!("time stands still: {due}"));
                return;
            }
            self.step();
        }
        self.now = until;
        self.sample();
    }

    /// Something happens now.
    pub fn happen(&mut self, event: &Event) {
        self.fingerprint = mix(self.fingerprint, self.now);
        let index = event.uplink().and_then(|name| {
            self.uplinks
                .iter()
                .position(|uplink| uplink.spec.name == name)
        });
        match (event, index) {
            (Event::Link(change), Some(index)) => {
                let uplink = &mut self.uplinks[index];
                for (way, link) in [(Way::Up, &mut uplink.up), (Way::Down, &mut uplink.down)] {
                    if let Some(params) = change.applied(way, link.params()) {
                        link.set(self.now, params);
                    }
                }
            }
            (Event::Carrier { up, .. }, Some(index)) => {
                let uplink = &mut self.uplinks[index];
                uplink.carrier = *up;
                if uplink.present {
                    let socket = uplink.socket;
                    self.tell_client(Command::UplinkCarrier { socket, up: *up });
                }
            }
            (Event::Remove { .. }, Some(index)) => {
                if std::mem::take(&mut self.uplinks[index].present) {
                    let socket = self.uplinks[index].socket;
                    self.tell_client(Command::RemoveUplink { socket });
                }
            }
            (Event::Add { .. }, Some(index)) => {
                if !std::mem::replace(&mut self.uplinks[index].present, true) {
                    self.uplinks[index].carrier = true;
                    self.add_uplink(index);
                }
            }
            (Event::Rebind { .. }, Some(index)) => {
                if let Some(nat) = &mut self.uplinks[index].nat {
                    nat.rebind();
                }
            }
            (Event::Rubbish { datagrams, .. }, Some(index)) => self.rubbish(index, *datagrams),
            (Event::RestartServer {}, _) => self.restart_server(),
            (Event::RestartClient {}, _) => self.restart_client(),
            (Event::Sleep { for_ms }, _) => {
                let until = self.now + (for_ms * 1e6) as Nanos;
                self.asleep_until = Some(self.asleep_until.unwrap_or(0).max(until));
                self.checker.disturbed(self.now);
            }
            (Event::SetMode { mode, class }, _) => {
                self.modes = self.modes.with(*class, *mode);
                self.tell_client(Command::SetModes(self.modes));
            }
            (
                Event::Link(_)
                | Event::Carrier { .. }
                | Event::Remove { .. }
                | Event::Add { .. }
                | Event::Rebind { .. }
                | Event::Rubbish { .. },
                None,
            ) => unreachable!("the plan's check found every name"),
        }
    }

    fn next_deadline(&mut self) -> Option<Nanos> {
        let core = |side, due: Option<(Time, _)>| {
            due.map(|(at, _)| at.as_nanos().saturating_sub(self.ahead[place(side)]))
        };
        let links = self.uplinks.iter();
        let arrival = links
            .flat_map(|uplink| [uplink.up.next_deadline(), uplink.down.next_deadline()])
            .flatten()
            .min();
        let client = match self.asleep_until {
            Some(until) => Some(until),
            None => core(Side::Client, self.client.poll_timeout()),
        };
        [
            self.events.front().map(|(at, _)| *at),
            arrival,
            self.traffic.next_deadline(),
            client,
            core(Side::Server, self.server.poll_timeout()),
            Some(self.next_sample),
        ]
        .into_iter()
        .flatten()
        .min()
        .map(|next| next.max(self.now))
    }

    fn step(&mut self) {
        let now = self.now;
        while self.events.front().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, event)) = self.events.pop_front() {
                self.happen(&event);
            }
        }
        if self.asleep_until.is_some_and(|until| until <= now) {
            self.asleep_until = None;
            self.tell_client(Command::Woke);
        }
        for index in 0..self.uplinks.len() {
            while let Some(datagram) = self.uplinks[index].up.poll_deliver(now) {
                self.arrive_at_server(&datagram);
            }
            while let Some(datagram) = self.uplinks[index].down.poll_deliver(now) {
                self.arrive_at_client(index, &datagram);
            }
        }
        self.traffic.handle_timeout(now);
        for side in [Side::Client, Side::Server] {
            let (clock, sleeps) = (self.clock(side), self.asleep_until.is_some());
            let endpoint = self.endpoint(side);
            let due = endpoint.poll_timeout().is_some_and(|(at, _)| at <= clock);
            if due && !(sleeps && side == Side::Client) {
                endpoint.handle_timeout(clock);
            }
        }
        self.drain();
        if now >= self.next_sample {
            self.next_sample = now + SAMPLE_EVERY;
            self.sample();
        }
    }

    /// Moves what everybody has to hand out, until nobody has anything left.
    fn drain(&mut self) {
        loop {
            let mut moved = false;
            while let Some((from, packet)) = self.traffic.poll_packet() {
                moved = true;
                self.enter_tunnel(from, &packet);
            }
            for side in [Side::Client, Side::Server] {
                if side == Side::Client && self.asleep_until.is_some() {
                    continue;
                }
                moved |= self.drain_endpoint(side);
            }
            if !moved {
                return;
            }
        }
    }

    fn enter_tunnel(&mut self, from: Side, packet: &[u8]) {
        if from == Side::Client && self.asleep_until.is_some() {
            return;
        }
        let clock = self.clock(from);
        let endpoint = self.endpoint(from);
        let mut buffer = endpoint.buffer();
        buffer.fill_from(packet);
        endpoint.handle_packet(clock, buffer);
    }

    fn endpoint(&mut self, side: Side) -> &mut Endpoint {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }

    fn drain_endpoint(&mut self, side: Side) -> bool {
        let (now, clock) = (self.now, self.clock(side));
        let mut moved = false;
        let mut run = std::mem::take(&mut self.scratch);
        while let Some(transmit) = self
            .endpoint(side)
            .poll_transmit(clock, &mut run, MAX_SEGMENTS)
        {
            moved = true;
            for datagram in run[..transmit.len].chunks(transmit.segment_len) {
                match side {
                    Side::Client => self.leave_client(transmit.socket, transmit.remote, datagram),
                    Side::Server => self.leave_server(transmit.remote, datagram),
                }
            }
        }
        self.scratch = run;
        while let Some(packet) = self.endpoint(side).poll_packet() {
            moved = true;
            self.leave_tunnel(side, packet);
        }
        while let Some(news) = self.endpoint(side).poll_event() {
            moved = true;
            let name = format!("{news:?}");
            let name = name.split([' ', '{']).next().unwrap_or_default().to_owned();
            let totals = &mut self.totals[place(side)];
            *totals.events.entry(name).or_default() += 1;
            self.news.push((now, side, news));
        }
        moved
    }

    fn leave_tunnel(&mut self, side: Side, packet: PacketBuf) {
        self.fingerprint = mix(mix(self.fingerprint, self.now), fingerprint(packet.bytes()));
        self.traffic.handle_packet(self.now, side, packet.bytes());
        self.endpoint(side).recycle(packet);
    }

    fn leave_client(&mut self, socket: SocketId, remote: SocketAddr, bytes: &[u8]) {
        let now = self.now;
        let found = self
            .uplinks
            .iter()
            .position(|uplink| uplink.socket == socket);
        let Some(uplink) = found
            .map(|index| &mut self.uplinks[index])
            .filter(|u| u.present)
        else {
            self.checker.violated(
                now,
                format!("the client sent from {socket:?}, which is gone"),
            );
            return;
        };
        if !uplink.carrier {
            let clock = self.clock(Side::Client);
            self.client.handle_send_failed(clock, socket, remote);
            return;
        }
        let from = match &mut uplink.nat {
            Some(nat) => nat.outbound(now, uplink.local, remote),
            None => uplink.local,
        };
        let datagram = Datagram {
            from,
            to: remote,
            bytes: bytes.to_vec(),
        };
        uplink.carry(
            now,
            Side::Client,
            datagram,
            &mut self.fingerprint,
            &mut self.checker,
        );
    }

    fn leave_server(&mut self, remote: SocketAddr, bytes: &[u8]) {
        let now = self.now;
        let found = self
            .uplinks
            .iter_mut()
            .find(|uplink| uplink.public_ip() == remote.ip());
        let Some(uplink) = found else {
            self.checker
                .violated(now, format!("the server sent to {remote}, which is nobody"));
            return;
        };
        let from = server_address(uplink.spec.version);
        let datagram = Datagram {
            from,
            to: remote,
            bytes: bytes.to_vec(),
        };
        uplink.carry(
            now,
            Side::Server,
            datagram,
            &mut self.fingerprint,
            &mut self.checker,
        );
    }

    fn arrive_at_server(&mut self, datagram: &Datagram) {
        let arrival = Arrival {
            socket: SERVER_SOCKET,
            remote: datagram.from,
            local: Some(datagram.to.ip()),
        };
        let clock = self.clock(Side::Server);
        self.server.handle_datagram(clock, arrival, &datagram.bytes);
    }

    fn arrive_at_client(&mut self, index: usize, datagram: &Datagram) {
        let uplink = &mut self.uplinks[index];
        let local = match &mut uplink.nat {
            Some(nat) => nat.inbound(self.now, datagram.from, datagram.to),
            None => Some(datagram.to),
        };
        let listens = uplink.present && uplink.carrier && local == Some(uplink.local);
        if listens && self.asleep_until.is_none() {
            let arrival = Arrival {
                socket: uplink.socket,
                remote: datagram.from,
                local: Some(uplink.local.ip()),
            };
            let clock = self.clock(Side::Client);
            self.client.handle_datagram(clock, arrival, &datagram.bytes);
        }
    }

    fn tell_client(&mut self, command: Command) {
        self.client
            .handle_command(self.clock(Side::Client), command);
    }

    /// Opens a new socket on an uplink and tells the client.
    fn add_uplink(&mut self, index: usize) {
        let uplink = &mut self.uplinks[index];
        uplink.socket = SocketId(self.next_socket);
        uplink.local.set_port(30_000 + self.next_socket);
        self.next_socket += 1;
        let command = Command::AddUplink {
            socket: uplink.socket,
            name: uplink.spec.name.clone(),
            remote: server_address(uplink.spec.version),
            mtu: UPLINK_MTU,
            role: uplink.spec.role,
        };
        let (socket, carrier) = (uplink.socket, uplink.carrier);
        self.tell_client(command);
        if !carrier {
            self.tell_client(Command::UplinkCarrier { socket, up: false });
        }
    }

    fn restart_server(&mut self) {
        let snapshot = self.snapshot(Side::Server);
        self.totals[1].add(&snapshot);
        let seed = self.new_life(Side::Server);
        self.server = new_server(self.mtu, seed, self.clock(Side::Server));
        self.forgotten();
    }

    fn restart_client(&mut self) {
        let snapshot = self.snapshot(Side::Client);
        self.totals[0].add(&snapshot);
        let seed = self.new_life(Side::Client);
        self.client = new_client(self.modes, self.mtu, seed);
        // Nobody promises the order in which a new process finds its uplinks.
        for index in (0..self.uplinks.len()).rev() {
            if self.uplinks[index].present {
                self.add_uplink(index);
            }
        }
        self.forgotten();
    }

    /// The seed of a process that starts anew, whose clock has another origin. It is ahead of that of the process before,
    /// or its handshakes would be taken for old ones; real ones are stamped by the clock on the wall.
    fn new_life(&mut self, side: Side) -> [u8; 32] {
        /// Any difference of two clocks that the wire can tell: 32 bits of microseconds.
        const ORIGINS: Nanos = (1 << 32) * 1_000;
        self.lives += 1;
        let mut rng = Rng::new(self.seed).fork(!self.lives);
        self.ahead[place(side)] += rng.below(ORIGINS);
        seed_bytes(self.seed, self.lives)
    }

    fn forgotten(&mut self) {
        self.traffic.amnesty(self.now);
        self.checker.disturbed(self.now);
    }

    fn rubbish(&mut self, index: usize, datagrams: u16) {
        for _ in 0..datagrams {
            let uplink = &mut self.uplinks[index];
            let len = uplink.rng.between(1, 200) as usize;
            let mut bytes: Vec<u8> = (0..len).map(|_| uplink.rng.next_u64() as u8).collect();
            if uplink.rng.happens(0.7) {
                // Looks like one of the four messages at first sight.
                bytes[0] = 1 + uplink.rng.below(4) as u8;
                for byte in bytes.iter_mut().take(4).skip(1) {
                    *byte = 0;
                }
            }
            let stranger = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7)), 4_000);
            let (from, to) = (server_address(uplink.spec.version), uplink.local);
            let socket = uplink.socket;
            let present = uplink.present;
            let at_server = Datagram {
                from: stranger,
                to: from,
                bytes: bytes.clone(),
            };
            self.arrive_at_server(&at_server);
            if present && self.asleep_until.is_none() {
                let arrival = Arrival {
                    socket,
                    remote: from,
                    local: Some(to.ip()),
                };
                let clock = self.clock(Side::Client);
                self.client.handle_datagram(clock, arrival, &bytes);
            }
        }
    }

    fn sample(&mut self) {
        let client = self.snapshot(Side::Client);
        let server = self.snapshot(Side::Server);
        let now = self.now;
        self.checker.bounds(now, "client", &client);
        self.checker.bounds(now, "server", &server);
        let asleep = self.asleep_until.is_some();
        let working = self
            .uplinks
            .iter()
            .map(|uplink| !asleep && uplink.works())
            .collect();
        let skipped = self.totals(Side::Client).skipped() + self.totals(Side::Server).skipped();
        self.checker.traffic(now, working, &self.traffic, skipped);
    }
}

impl Totals {
    fn add(&mut self, snapshot: &Snapshot) {
        let counters = snapshot.bonds.iter().flat_map(|bond| &bond.counters);
        for (name, count) in counters {
            *self.counters.entry(name.clone()).or_default() += count;
        }
        let drops = snapshot
            .bonds
            .iter()
            .flat_map(|bond| &bond.drops)
            .chain(&snapshot.drops);
        for (reason, count) in drops {
            *self.drops.entry(reason.clone()).or_default() += count;
        }
    }

    /// Holes that the receiving half gave up waiting for.
    pub fn skipped(&self) -> u64 {
        let named = self
            .counters
            .iter()
            .filter(|(name, _)| name.contains("skip"));
        named.map(|(_, count)| count).sum()
    }
}

impl Uplink {
    fn new(id: usize, spec: &UplinkSpec, root: &Rng) -> Self {
        let salt = 16 * (id as u64 + 1);
        let seed = |offset| root.fork(salt + offset).next_u64();
        let byte = id as u8 + 1;
        let (local, nat) = match spec.version {
            Version::V4 => {
                let public = IpAddr::V4(Ipv4Addr::new(100, 64, byte, 1));
                let timeout = (spec.nat_timeout_s * 1e9) as Nanos;
                (
                    IpAddr::V4(Ipv4Addr::new(10, byte, 0, 2)),
                    Some(Nat::new(public, timeout)),
                )
            }
            Version::V6 => {
                let global = Ipv6Addr::new(0x2001, 0xdb8, 0x100, u16::from(byte), 0, 0, 0, 2);
                (IpAddr::V6(global), None)
            }
        };
        Uplink {
            spec: spec.clone(),
            socket: SocketId(u16::MAX),
            local: SocketAddr::new(local, 30_000),
            nat,
            up: Link::new(spec.up.clone(), seed(1)),
            down: Link::new(spec.down.clone(), seed(2)),
            present: spec.present,
            carrier: true,
            rng: root.fork(salt + 3),
            used_bytes: [0, 0],
        }
    }

    fn public_ip(&self) -> IpAddr {
        match self.spec.version {
            Version::V4 => IpAddr::V4(Ipv4Addr::new(100, 64, self.index_byte(), 1)),
            Version::V6 => self.local.ip(),
        }
    }

    fn index_byte(&self) -> u8 {
        match self.local.ip() {
            IpAddr::V4(address) => address.octets()[1],
            IpAddr::V6(address) => address.segments()[3] as u8,
        }
    }

    fn carry(
        &mut self,
        now: Nanos,
        from: Side,
        datagram: Datagram,
        trace: &mut u64,
        checker: &mut Checker,
    ) {
        *trace = mix(mix(*trace, now), fingerprint(&datagram.bytes));
        let len = datagram.bytes.len() + self.spec.version.header_len() + 8;
        if len > usize::from(UPLINK_MTU) {
            checker.violated(now, format!("a datagram makes an IP packet of {len} bytes"));
            return;
        }
        self.used_bytes[usize::from(from == Side::Server)] += len as u64;
        let copies = 1 + usize::from(self.rng.happens(self.spec.duplicates));
        let link = if from == Side::Client {
            &mut self.up
        } else {
            &mut self.down
        };
        for _ in 0..copies {
            // What the link drops is lost in silence, as it should be.
            let _ = link.enqueue(now, len, datagram.clone());
        }
    }

    /// Whether a bond should be able to work over this uplink now.
    fn works(&self) -> bool {
        let passes = |link: &LinkParams| {
            !link.blackhole && link.loss <= 0.3 && link.rate_mbit.is_none_or(|rate| rate >= 0.5)
        };
        self.present
            && self.carrier
            && self.spec.role != marline_proto::Role::Never
            && passes(self.up.params())
            && passes(self.down.params())
    }
}

fn server_address(version: Version) -> SocketAddr {
    let ip = match version {
        Version::V4 => IpAddr::V4(SERVER_V4),
        Version::V6 => IpAddr::V6(SERVER_V6),
    };
    SocketAddr::new(ip, SERVER_PORT)
}

fn new_client(modes: Modes, mtu: u16, seed: [u8; 32]) -> Endpoint {
    let server = marline_proto::public_key(&SERVER_SECRET);
    let config = ClientConfig {
        secret: CLIENT_SECRET,
        server,
        modes,
        mtu,
    };
    Endpoint::client_for_test(config, seed)
}

fn new_server(mtu: u16, seed: [u8; 32], now: Time) -> Endpoint {
    let config = ServerConfig {
        secret: SERVER_SECRET,
        mtu,
    };
    let mut server = Endpoint::server_for_test(config, seed);
    let peer = PeerConfig {
        public: marline_proto::public_key(&CLIENT_SECRET),
        name: "client".to_owned(),
        v4: Some(CLIENT_V4),
        v6: Some(CLIENT_V6),
    };
    server.handle_command(now, Command::AddPeer(peer));
    server
}

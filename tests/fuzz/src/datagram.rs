//! Whole endpoints under hostile datagrams: no panic, no endless loop, nothing malformed comes out.
//!
//! A client and a server are connected over two uplinks, with sessions that do not encrypt, so that
//! an input reaches everything behind the seal: it is what an authenticated but hostile peer could
//! send. The input is a little program; each step is an opcode byte, mostly followed by a length
//! and that many bytes:
//!
//! | low 3 bits | step |
//! |---|---|
//! | 0 | these bytes arrive at the server, just as they are |
//! | 1 | these bytes arrive at the server as the content of a sealed datagram of a path |
//! | 2 | the same, at the client |
//! | 3 | time passes (8 ms × the next byte) and both exchange what they have to say |
//! | 4 | time passes and all that they say is lost |
//! | 5 | these bytes come out of the client's TUN |
//! | 6 | these bytes come out of the server's TUN |
//! | 7 | a command: the next byte tells which |
//!
//! A length of 255 says that two bytes follow with a longer one, up to 64 KiB, and then as much as is written down of
//! it, again a length and that many bytes; the rest is zeros.
//!
//! Bit 3 of the opcode chooses the path. A content's length field is put right before it is sent,
//! as no search would ever get past it otherwise; `frame` searches with wrong ones.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::Duration;

use marline_proto::buffer::CAPACITY;
use marline_proto::{
    Arrival, ClientConfig, Command, Detail, Endpoint, Key, Mode, Modes, PacketBuf, PeerConfig, Role, ServerConfig,
    SocketId, Time, public_key,
};

/// Bytes of a sealed datagram in front of its content: type, index, counter.
const DATA_HEADER: usize = 16;
/// Bytes behind it.
const TAG: usize = 16;
/// The longest payload of UDP over IPv4.
const DATAGRAM_MAX: usize = 65_507;
/// The length that is refused on an interface that turns out narrow, bytes.
const NARROW: usize = 1_400;
/// The shortest frame.
const FRAME_MIN: usize = 20;
/// Turns in which an endpoint must come to rest without time passing.
const TURNS_MAX: usize = 1_000;
/// Steps of one input that are carried out; more only make it slow.
const STEPS_MAX: usize = 200;

const CLIENT_SECRET: Key = [1; 32];
const SERVER_SECRET: Key = [2; 32];

/// Checks one input.
pub fn check(bytes: &[u8]) {
    let mut world = World::connected();
    let mut input = Input(bytes);
    for _ in 0..STEPS_MAX {
        let Some(opcode) = input.byte() else { break };
        let path = usize::from(opcode >> 3 & 1);
        match opcode & 7 {
            0 => world.arrives_at_server(path, &input.chunk()),
            1 => world.sealed_to_server(path, &input.chunk()),
            2 => world.sealed_to_client(path, &input.chunk()),
            3 => world.pass(input.byte().unwrap_or(0), true),
            4 => world.pass(input.byte().unwrap_or(0), false),
            5 => world.client.packet(world.now, &input.chunk()),
            6 => world.server.packet(world.now, &input.chunk()),
            _ => world.command(path, input.byte().unwrap_or(0)),
        }
        world.exchange(true);
    }
    world.pass(60, true);
    for side in [&world.client, &world.server] {
        let snapshot = side.endpoint.snapshot(world.now, &Detail::Flows);
        assert!(snapshot.bonds.len() <= 1, "one peer has one bond");
    }
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// A length byte and that many bytes, or as many as are left; or a long chunk, of which only the beginning is
    /// written down.
    fn chunk(&mut self) -> Cow<'a, [u8]> {
        const LONG: u8 = 255;
        match self.byte().unwrap_or(0) {
            LONG => {
                let [high, low] = [(); 2].map(|()| self.byte().unwrap_or(0));
                let head = self.byte().unwrap_or(0);
                let mut chunk = self.take(head).to_vec();
                chunk.resize(usize::from(u16::from_be_bytes([high, low])), 0);
                chunk.into()
            }
            len => self.take(len).into(),
        }
    }

    fn take(&mut self, len: u8) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(usize::from(len).min(self.0.len()));
        self.0 = rest;
        taken
    }
}

struct World {
    now: Time,
    client: Side,
    server: Side,
}

struct Side {
    endpoint: Endpoint,
    /// Per path: the other side's session index and the last counter, as seen on the wire.
    sessions: [Option<(u32, u64)>; 2],
    buffer: Vec<u8>,
}

impl World {
    fn connected() -> World {
        let now = Time::from_millis(1_000);
        let client = ClientConfig {
            secret: CLIENT_SECRET,
            server: public_key(&SERVER_SECRET),
            modes: Modes::default(),
            mtu: 1400,
        };
        let server = ServerConfig {
            secret: SERVER_SECRET,
            mtu: 1400,
        };
        let mut world = World {
            now,
            client: Side::new(Endpoint::client_for_test(client, [3; 32])),
            server: Side::new(Endpoint::server_for_test(server, [4; 32])),
        };
        let peer = PeerConfig {
            public: public_key(&CLIENT_SECRET),
            name: "laptop".to_owned(),
            v4: Some([10, 77, 0, 2].into()),
            v6: Some("fd00::2".parse().expect("an address")),
        };
        world
            .server
            .endpoint
            .handle_command(now, Command::AddPeer(peer));
        for path in 0..2 {
            world.add_uplink(path);
        }
        for _ in 0..20 {
            world.pass(6, true);
        }
        let up = |side: &Side| side.endpoint.snapshot(world.now, &Detail::Paths).bonds.iter().any(|bond| bond.up);
        assert!(
            up(&world.client) && up(&world.server),
            "an undisturbed handshake succeeds"
        );
        world
    }

    fn add_uplink(&mut self, path: usize) {
        let command = Command::AddUplink {
            socket: SocketId(path as u16 + 1),
            name: format!("wan{}", path + 1),
            remote: server_address(),
            mtu: 1500,
            role: Role::Always,
        };
        self.client.endpoint.handle_command(self.now, command);
    }

    fn arrives_at_server(&mut self, path: usize, datagram: &[u8]) {
        self.server
            .endpoint
            .handle_datagram(self.now, at_server(path), datagram);
    }

    fn sealed_to_server(&mut self, path: usize, content: &[u8]) {
        if let Some(datagram) = self.client.seal(path, content) {
            self.arrives_at_server(path, &datagram);
        }
    }

    fn sealed_to_client(&mut self, path: usize, content: &[u8]) {
        if let Some(datagram) = self.server.seal(path, content) {
            self.client
                .endpoint
                .handle_datagram(self.now, at_client(path), &datagram);
        }
    }

    fn command(&mut self, path: usize, which: u8) {
        let socket = SocketId(path as u16 + 1);
        let peer = public_key(&CLIENT_SECRET);
        match which % 14 {
            0 => self
                .client
                .command(self.now, Command::UplinkCarrier { socket, up: false }),
            1 => self
                .client
                .command(self.now, Command::UplinkCarrier { socket, up: true }),
            2 => self
                .client
                .command(self.now, Command::RemoveUplink { socket }),
            3 => self.add_uplink(path),
            4 => self
                .client
                .command(self.now, Command::SetModes(Modes::all(Mode::Redundant))),
            5 => self.client.command(self.now, Command::Woke),
            6 => self.server.command(self.now, Command::Woke),
            7 => self
                .client
                .endpoint
                .handle_send_failed(self.now, socket, server_address()),
            // The interface is narrower than it said: what is long goes in halves from now on.
            8 => self.client.endpoint.handle_send_too_large(
                self.now,
                socket,
                server_address(),
                NARROW,
            ),
            9 => self.server.endpoint.handle_send_too_large(
                self.now,
                SocketId(0),
                client_address(path),
                NARROW,
            ),
            10 => self.server.command(self.now, Command::RemovePeer(peer)),
            11 => self.rest(),
            // A KEEP of a client at rest, as somebody who saw the indices could make one. Every other one asks.
            12 => {
                let [to, from] = [&self.client, &self.server].map(|side| side.index(path));
                let kind = if which / 14 % 2 == 0 { 5 } else { 0x105 };
                let keep = words([kind, to, from, u32::from(which)]);
                self.arrives_at_server(path, &keep);
            }
            // An answer to one: WAKE or SEEN.
            _ => {
                let kind = if which / 14 % 2 == 0 { 6 } else { 7 };
                let answer = words([kind, self.server.index(path), u32::from(which)]);
                self.client
                    .endpoint
                    .handle_datagram(self.now, at_client(path), &answer);
            }
        }
    }

    /// Nobody uses the bond until its sessions have ended.
    fn rest(&mut self) {
        for _ in 0..190 {
            self.now += Duration::from_secs(1);
            self.exchange(true);
        }
    }

    /// Lets 8 ms × `units` pass, in steps of 8 ms.
    fn pass(&mut self, units: u8, delivered: bool) {
        for _ in 0..units {
            self.now += Duration::from_millis(8);
            self.exchange(delivered);
        }
    }

    /// Both say what they have to say now, and hear it if it is delivered, until both are at rest.
    fn exchange(&mut self, delivered: bool) {
        for _ in 0..TURNS_MAX {
            let up = self.client.speak(self.now);
            let down = self.server.speak(self.now);
            if up.is_empty() && down.is_empty() {
                return;
            }
            if delivered {
                for (path, datagram) in up {
                    self.server
                        .endpoint
                        .handle_datagram(self.now, at_server(path), &datagram);
                }
                for (path, datagram) in down {
                    self.client
                        .endpoint
                        .handle_datagram(self.now, at_client(path), &datagram);
                }
            }
        }
        panic!("two endpoints talk without end while no time passes");
    }
}

/// A plain message of such words.
fn words<const N: usize>(words: [u32; N]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

impl Side {
    fn new(endpoint: Endpoint) -> Side {
        Side {
            endpoint,
            sessions: [None; 2],
            buffer: Vec::new(),
        }
    }

    fn command(&mut self, now: Time, command: Command) {
        self.endpoint.handle_command(now, command);
    }

    fn packet(&mut self, now: Time, bytes: &[u8]) {
        let mut packet = self.endpoint.buffer();
        // The TUN's reader refuses what does not fit into a buffer.
        packet.fill_from(&bytes[..bytes.len().min(CAPACITY)]);
        self.endpoint.handle_packet(now, packet);
    }

    /// The other side's index, as of what this side said last on the path.
    fn index(&self, path: usize) -> u32 {
        self.sessions[path].map_or(0, |(index, _)| index)
    }

    /// A datagram as this side would seal it; None before it has spoken on the path.
    fn seal(&mut self, path: usize, content: &[u8]) -> Option<Vec<u8>> {
        let (index, counter) = self.sessions[path].as_mut()?;
        *counter += 1;
        let mut datagram = vec![4, 0, 0, 0];
        datagram.extend(index.to_le_bytes());
        datagram.extend(counter.to_le_bytes());
        datagram.extend_from_slice(content);
        datagram.resize(datagram.len().max(DATA_HEADER + FRAME_MIN), 0);
        // No datagram is longer than UDP lets it be.
        datagram.truncate(DATAGRAM_MAX - TAG);
        let len = (datagram.len() - DATA_HEADER) as u16;
        datagram[DATA_HEADER + 2..DATA_HEADER + 4].copy_from_slice(&len.to_be_bytes());
        datagram.resize(datagram.len() + TAG, 0x5a);
        Some(datagram)
    }

    /// Lets its timers run and drains it; gives its datagrams with their paths.
    fn speak(&mut self, now: Time) -> Vec<(usize, Vec<u8>)> {
        let mut said = Vec::new();
        for _ in 0..TURNS_MAX {
            if self
                .endpoint
                .poll_timeout()
                .is_some_and(|(due, _)| due <= now)
            {
                self.endpoint.handle_timeout(now);
            }
            while let Some(run) = self.endpoint.poll_transmit(now, &mut self.buffer, 16) {
                assert!(
                    run.segment_len > 0 && run.len <= 65_535,
                    "a run the kernel refuses"
                );
                assert!(
                    run.len <= self.buffer.len(),
                    "a run is longer than its buffer"
                );
                let path = path_of(run.socket, run.remote);
                for datagram in self.buffer[..run.len].chunks(run.segment_len) {
                    if let Some(session) = session_of(datagram) {
                        self.sessions[path] = Some(session);
                    }
                    said.push((path, datagram.to_vec()));
                }
                assert!(said.len() < 100_000, "an endpoint speaks without end");
            }
            while let Some(packet) = self.endpoint.poll_packet() {
                check_packet(&packet);
                self.endpoint.recycle(packet);
            }
            while self.endpoint.poll_event().is_some() {}
            if self
                .endpoint
                .poll_timeout()
                .is_none_or(|(due, _)| due > now)
            {
                return said;
            }
        }
        let due = self.endpoint.poll_timeout();
        panic!("an endpoint wants to be woken in the past, again and again: {due:?} at {now:?}");
    }
}

/// Under which index a sealed datagram addresses the other side, and its counter.
fn session_of(datagram: &[u8]) -> Option<(u32, u64)> {
    let (header, _) = datagram.split_first_chunk::<DATA_HEADER>()?;
    let [4, _, _, _, i0, i1, i2, i3, counter @ ..] = *header else {
        return None;
    };
    Some((
        u32::from_le_bytes([i0, i1, i2, i3]),
        u64::from_le_bytes(counter),
    ))
}

fn check_packet(packet: &PacketBuf) {
    let bytes = packet.bytes();
    assert!(bytes.len() <= CAPACITY, "a packet larger than its buffer");
    let version = bytes.first().map(|first| first >> 4);
    assert!(
        matches!(version, Some(4 | 6)),
        "the TUN is given what is not IP: {version:?}"
    );
}

fn server_address() -> SocketAddr {
    ([192, 0, 2, 1], 51900).into()
}

fn client_address(path: usize) -> SocketAddr {
    ([198, 51, 100, path as u8 + 1], 40_000).into()
}

fn at_server(path: usize) -> Arrival {
    Arrival {
        socket: SocketId(0),
        remote: client_address(path),
        local: None,
    }
}

fn at_client(path: usize) -> Arrival {
    Arrival {
        socket: SocketId(path as u16 + 1),
        remote: server_address(),
        local: None,
    }
}

/// Which path a run belongs to: a client has a socket per path, a server an address per path.
fn path_of(socket: SocketId, remote: SocketAddr) -> usize {
    match socket {
        SocketId(0) => usize::from(remote == client_address(1)),
        SocketId(number) => usize::from(number == 2),
    }
}

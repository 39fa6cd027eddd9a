//! A client and a server joined by function calls: no socket and no TUN takes part.

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use marline_proto::{
    Arrival, ClientConfig, Command, Endpoint, Modes, PeerConfig, Role, ServerConfig, SocketId,
    Time, public_key,
};

/// The client's inner address.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// The largest inner packet, bytes.
pub const MTU: u16 = 1400;
/// Bytes of payload in a [`segment`]: what the headers and the timestamps leave.
pub const SEGMENT: u16 = MTU - 52;
/// Packets per round: a quarter of a millisecond's worth at 1.4 Gbit/s.
pub const ROUND: usize = 32;

const CLIENT_SECRET: [u8; 32] = [1; 32];
const SERVER_SECRET: [u8; 32] = [2; 32];

fn configs() -> (ClientConfig, ServerConfig) {
    let client = ClientConfig {
        secret: CLIENT_SECRET,
        server: public_key(&SERVER_SECRET),
        modes: Modes::default(),
        mtu: MTU,
    };
    let server = ServerConfig {
        secret: SERVER_SECRET,
        mtu: MTU,
    };
    (client, server)
}

/// A bond with traffic from the client to the server.
pub struct Pair {
    client: Endpoint,
    server: Endpoint,
    now: Time,
    out: Vec<u8>,
    packet: Vec<u8>,
    /// Packets that came out at the server.
    pub delivered: usize,
}

impl Pair {
    /// A bond over so many paths that has carried traffic for most of a second.
    pub fn connected(paths: u16) -> Self {
        let (client, server) = configs();
        let ends = (
            Endpoint::client(client, [3; 32]),
            Endpoint::server(server, [4; 32]),
        );
        Self::of(ends, paths)
    }

    /// The same without cryptography: what is left is the core's own work.
    pub fn connected_unsealed(paths: u16) -> Self {
        let (client, server) = configs();
        let ends = (
            Endpoint::client_for_test(client, [3; 32]),
            Endpoint::server_for_test(server, [4; 32]),
        );
        Self::of(ends, paths)
    }

    fn of((mut client, mut server): (Endpoint, Endpoint), paths: u16) -> Self {
        let now = Time::from_millis(1);
        let public = public_key(&CLIENT_SECRET);
        let name = String::from("bench");
        let peer = PeerConfig {
            public,
            name,
            v4: Some(CLIENT),
            v6: None,
        };
        server.handle_command(now, Command::AddPeer(peer));
        for socket in 0..paths {
            let remote = SocketAddr::from(([192, 0, 2, 1], 51_900));
            let name = format!("uplink{socket}");
            let socket = SocketId(socket);
            let role = Role::Always;
            let uplink = Command::AddUplink {
                socket,
                name,
                remote,
                mtu: 1500,
                role,
            };
            client.handle_command(now, uplink);
        }
        let mut pair = Pair {
            client,
            server,
            now,
            out: Vec::new(),
            packet: udp_packet(CLIENT, MTU),
            delivered: 0,
        };
        for _ in 0..3_000 {
            pair.round();
        }
        assert!(pair.delivered > 0, "the bond stands");
        pair
    }

    /// One quarter of a millisecond: packets in, datagrams across, acknowledgements back.
    pub fn round(&mut self) {
        self.now += Duration::from_micros(250);
        for _ in 0..ROUND {
            let mut buf = self.client.buffer();
            buf.fill_from(&self.packet);
            self.client.handle_packet(self.now, buf);
        }
        self.client.handle_timeout(self.now);
        self.server.handle_timeout(self.now);
        carry(&mut self.client, &mut self.server, self.now, &mut self.out);
        while let Some(packet) = self.server.poll_packet() {
            self.delivered += 1;
            self.server.recycle(black_box(packet));
        }
        carry(&mut self.server, &mut self.client, self.now, &mut self.out);
    }
}

/// Carries all that one side has to send to the other, at once.
fn carry(from: &mut Endpoint, to: &mut Endpoint, now: Time, out: &mut Vec<u8>) {
    while let Some(transmit) = from.poll_transmit(now, out, 40) {
        // Each uplink looks like an address of its own to the server.
        let port = 40_000 + transmit.socket.0;
        let remote = SocketAddr::from(([198, 51, 100, 7], port));
        let socket = match transmit.remote.port() {
            51_900 => SocketId(0),
            port => SocketId(port - 40_000),
        };
        let arrival = Arrival {
            socket,
            remote,
            local: None,
        };
        for datagram in out[..transmit.len].chunks(transmit.segment_len) {
            to.handle_datagram(now, arrival, datagram);
        }
    }
}

/// A UDP packet of this length from `source` to somewhere in the internet.
pub fn udp_packet(source: Ipv4Addr, len: u16) -> Vec<u8> {
    let mut bytes = vec![0; usize::from(len)];
    bytes[0] = 0x45;
    bytes[2..4].copy_from_slice(&len.to_be_bytes());
    bytes[8] = 64;
    bytes[9] = 17;
    bytes[12..16].copy_from_slice(&source.octets());
    bytes[16..20].copy_from_slice(&[203, 0, 113, 2]);
    bytes[20..24].copy_from_slice(&[0x9c, 0x40, 0x01, 0xbb]);
    bytes[24..26].copy_from_slice(&(len - 20).to_be_bytes());
    mend(&mut bytes);
    bytes
}

/// A TCP segment with timestamps that fills the MTU, the `n`th of a download.
pub fn segment(n: u32) -> Vec<u8> {
    let mut bytes = udp_packet(CLIENT, MTU);
    bytes[9] = 6;
    bytes[20..24].copy_from_slice(&[0x01, 0xbb, 0x9c, 0x40]);
    bytes[24..28].copy_from_slice(&(n * u32::from(SEGMENT)).to_be_bytes());
    bytes[32..34].copy_from_slice(&[0x80, 0x10]);
    bytes[40..44].copy_from_slice(&[1, 1, 8, 10]);
    bytes[44..48].copy_from_slice(&(n / 5).to_be_bytes());
    mend(&mut bytes);
    bytes
}

/// Puts the IPv4 checksum right: a wrong one is carried as it is, so such a header is never squeezed.
pub fn mend(bytes: &mut [u8]) {
    bytes[10..12].fill(0);
    let words = bytes[..20]
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    bytes[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

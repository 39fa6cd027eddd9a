//! A packet's whole way through the core: queued by the client, sealed, opened by the
//! server, put in order and handed out, over one path and over two, acknowledgements
//! included. No socket and no TUN takes part. And one header, squeezed and restored.

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use marline_proto::frame::SQUEEZED_AT;
use marline_proto::squeeze::{Base, Head, Place, Widths};
use marline_proto::{
    Arrival, ClientConfig, Command, Endpoint, Modes, PeerConfig, Role, ServerConfig, SocketId,
    Time, public_key,
};

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const MTU: u16 = 1400;
/// Packets per round: a quarter of a millisecond's worth at 1.4 Gbit/s.
const ROUND: usize = 32;

struct Pair {
    client: Endpoint,
    server: Endpoint,
    now: Time,
    out: Vec<u8>,
    packet: Vec<u8>,
    delivered: usize,
}

impl Pair {
    fn connected(paths: u16) -> Self {
        let (secret, server_secret) = ([1; 32], [2; 32]);
        let config = ClientConfig {
            secret,
            server: public_key(&server_secret),
            modes: Modes::default(),
            mtu: MTU,
        };
        let now = Time::from_millis(1);
        let mut client = Endpoint::client(config, [3; 32], now);
        let server_config = ServerConfig {
            secret: server_secret,
            mtu: MTU,
        };
        let mut server = Endpoint::server(server_config, [4; 32], now);
        let public = public_key(&secret);
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
            packet: udp_packet(),
            delivered: 0,
        };
        for _ in 0..3_000 {
            pair.round();
        }
        assert!(pair.delivered > 0, "the bond stands");
        pair
    }

    /// One quarter of a millisecond: packets in, datagrams across, acknowledgements back.
    fn round(&mut self) {
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

/// A UDP packet of a bulk flow that fills the MTU.
fn udp_packet() -> Vec<u8> {
    let len = usize::from(MTU);
    let mut bytes = vec![0; len];
    bytes[0] = 0x45;
    bytes[2..4].copy_from_slice(&MTU.to_be_bytes());
    bytes[8] = 64;
    bytes[9] = 17;
    bytes[12..16].copy_from_slice(&CLIENT.octets());
    bytes[16..20].copy_from_slice(&[203, 0, 113, 2]);
    bytes[20..24].copy_from_slice(&[0x9c, 0x40, 0x01, 0xbb]);
    bytes[24..26].copy_from_slice(&((len - 20) as u16).to_be_bytes());
    mend(&mut bytes);
    bytes
}

/// Puts the IPv4 checksum right: a wrong one is carried as it is, so such a header is never squeezed.
fn mend(bytes: &mut [u8]) {
    bytes[10..12].fill(0);
    let words = bytes[..20]
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    bytes[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

/// A segment with timestamps that fills the MTU, `n` segments after the first.
fn segment(n: u32) -> Vec<u8> {
    let mut bytes = udp_packet();
    bytes[9] = 6;
    bytes[20..24].copy_from_slice(&[0x01, 0xbb, 0x9c, 0x40]);
    bytes[24..28].copy_from_slice(&(n * (u32::from(MTU) - 52)).to_be_bytes());
    bytes[32..34].copy_from_slice(&[0x80, 0x10]);
    bytes[40..44].copy_from_slice(&[1, 1, 8, 10]);
    bytes[44..48].copy_from_slice(&(n / 5).to_be_bytes());
    mend(&mut bytes);
    bytes
}

/// One header of a run of segments, to its squeezed form and whole again.
fn squeezed(c: &mut Criterion) {
    let place = |n: u32| Place {
        number: n,
        stamp: n * 25,
    };
    let base = Base::of(&segment(0), place(0)).expect("a usual header");
    let (packet, at) = (segment(1_001), place(1_001));
    let mut widths = Widths::default();
    let mut head = Head::default();
    let mut group = c.benchmark_group("header");
    group.bench_function("squeeze", |b| {
        b.iter(|| {
            let packet = black_box(&packet[..]);
            base.squeeze(packet, at, (1, 0), &mut widths, &mut head)
        });
    });
    let mut rest = head.bytes[SQUEEZED_AT + 1..head.len].to_vec();
    rest.extend_from_slice(&packet[head.skip..]);
    group.bench_function("restore", |b| {
        b.iter(|| base.restore(at, black_box(&rest[..])).map(|r| r.len));
    });
    group.finish();
}

fn through_the_core(c: &mut Criterion) {
    let mut group = c.benchmark_group("bond");
    group.throughput(Throughput::Elements(ROUND as u64));
    for paths in [1, 2] {
        let mut pair = Pair::connected(paths);
        group.bench_function(format!("{paths} path(s), both ends, per packet"), |b| {
            b.iter(|| pair.round());
        });
    }
    group.finish();
}

criterion_group!(benches, through_the_core, squeezed);
criterion_main!(benches);

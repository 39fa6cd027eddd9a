//! A checksum that the kernel only began is nobody's work, and comes out as it went in or complete.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use marline_proto::{
    Arrival, ClientConfig, Command, Detail, Endpoint, Modes, PacketBuf, PeerConfig, Role,
    ServerConfig, SocketId, Time, public_key,
};

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const MTU: u16 = 1400;
const TCP: u8 = 6;
const ICMP: u8 = 1;
const ACK: u8 = 0x10;
const SYN: u8 = 0x02;

/// Where things stand in a datagram of the session without cryptography (docs/protocol.md).
const FRAME: usize = 16;
const CONTROL: u8 = 0x42;
const CAPABILITIES: usize = FRAME + 26;

/// Both ends, and a wire that may change or lose what passes.
struct Pair<W> {
    client: Endpoint,
    server: Endpoint,
    now: Time,
    wire: W,
}

impl<W: FnMut(&mut [u8]) -> bool> Pair<W> {
    /// `wire` gets every datagram, and says whether it arrives.
    fn new(wire: W) -> Self {
        let (secret, server_secret) = ([1; 32], [2; 32]);
        let now = Time::from_millis(1);
        let client = ClientConfig {
            secret,
            server: public_key(&server_secret),
            modes: Modes::default(),
            mtu: MTU,
        };
        let server = ServerConfig {
            secret: server_secret,
            mtu: MTU,
        };
        let mut pair = Pair {
            client: Endpoint::client_for_test(client, [3; 32]),
            server: Endpoint::server_for_test(server, [4; 32]),
            now,
            wire,
        };
        let peer = PeerConfig {
            public: public_key(&secret),
            name: String::from("laptop"),
            v4: Some(CLIENT),
            v6: None,
        };
        pair.server.handle_command(now, Command::AddPeer(peer));
        let uplink = Command::AddUplink {
            socket: SocketId(0),
            name: String::from("wan"),
            remote: SocketAddr::from(([192, 0, 2, 1], 51_900)),
            mtu: 1500,
            role: Role::Always,
        };
        pair.client.handle_command(now, uplink);
        for _ in 0..100 {
            assert_eq!(pair.step().len(), 0, "nothing was sent yet");
        }
        pair
    }

    fn send(&mut self, packet: PacketBuf) {
        self.client.handle_packet(self.now, packet);
    }

    /// A millisecond; returns what came out at the server.
    fn step(&mut self) -> Vec<PacketBuf> {
        self.now += Duration::from_millis(1);
        self.client.handle_timeout(self.now);
        self.server.handle_timeout(self.now);
        carry(&mut self.client, &mut self.server, self.now, &mut self.wire);
        let mut out = Vec::new();
        while let Some(packet) = self.server.poll_packet() {
            out.push(packet);
        }
        carry(&mut self.server, &mut self.client, self.now, &mut self.wire);
        out
    }

    fn drops(&self, name: &str) -> u64 {
        let bond = &self.server.snapshot(self.now, &Detail::Paths).bonds[0];
        bond.drops.get(name).copied().unwrap_or(0)
    }
}

fn carry(
    from: &mut Endpoint,
    to: &mut Endpoint,
    now: Time,
    wire: &mut impl FnMut(&mut [u8]) -> bool,
) {
    let mut out = Vec::new();
    while let Some(transmit) = from.poll_transmit(now, &mut out, 40) {
        let arrival = Arrival {
            socket: SocketId(0),
            remote: SocketAddr::from(([198, 51, 100, 7], 40_000)),
            local: None,
        };
        for datagram in out[..transmit.len].chunks_mut(transmit.segment_len) {
            if wire(datagram) {
                to.handle_datagram(now, arrival, datagram);
            }
        }
    }
}

/// The one's complement sum of 16-bit words (RFC 1071).
fn sum(bytes: &[u8], from: u32) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| u32::from(low)));
    let mut sum = from + words.sum::<u32>();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn pseudo_sum(packet: &[u8]) -> u16 {
    sum(
        &packet[12..20],
        u32::from(packet[9]) + packet.len() as u32 - 20,
    )
}

/// A packet of a flow, with the checksum that a kernel leaves to its card.
fn begun(protocol: u8, flags: u8, number: u32, options: &[u8], payload: usize) -> PacketBuf {
    let header = 20 + 20 + options.len();
    let mut bytes = vec![0; header + payload];
    let len = bytes.len() as u16;
    bytes[0] = 0x45;
    bytes[2..4].copy_from_slice(&len.to_be_bytes());
    bytes[6] = 0x40;
    bytes[8] = 64;
    bytes[9] = protocol;
    bytes[12..16].copy_from_slice(&CLIENT.octets());
    bytes[16..20].copy_from_slice(&[203, 0, 113, 2]);
    let ip = !sum(&bytes[..20], 0);
    bytes[10..12].copy_from_slice(&ip.to_be_bytes());
    bytes[20..24].copy_from_slice(&[0x9c, 0x40, 0x01, 0xbb]);
    bytes[24..28].copy_from_slice(&(number * payload as u32).to_be_bytes());
    bytes[32] = ((20 + options.len()) * 4) as u8;
    bytes[33] = flags;
    bytes[40..header].copy_from_slice(options);
    for (at, byte) in bytes[header..].iter_mut().enumerate() {
        *byte = (at as u32 * 7 + number) as u8;
    }
    let pseudo = pseudo_sum(&bytes);
    bytes[36..38].copy_from_slice(&pseudo.to_be_bytes());
    let mut packet = PacketBuf::copy_of(&bytes);
    packet.set_begun();
    packet
}

fn is_complete(packet: &[u8]) -> bool {
    sum(&packet[20..], u32::from(pseudo_sum(packet))) == 0xffff
}

fn is_data(datagram: &[u8]) -> bool {
    datagram[0] == 4 && datagram.len() > FRAME + 20 && datagram[FRAME] == 0x40
}

/// Whether a datagram brings a packet whose checksum is only begun: squeezed in form 3, or whole with the bit.
fn says_begun(datagram: &[u8]) -> bool {
    is_data(datagram)
        && match datagram[FRAME + 1] >> 6 {
            0 | 1 => datagram[FRAME + 17] & 1 != 0,
            form => form == 3,
        }
}

/// 300 segments of a transfer and what came of them.
fn transfer(wire: impl FnMut(&mut [u8]) -> bool) -> (Vec<PacketBuf>, Vec<PacketBuf>, u64) {
    let mut pair = Pair::new(wire);
    let sent: Vec<_> = (0..300).map(|n| begun(TCP, ACK, n, &[], 1000)).collect();
    let mut got = Vec::new();
    for packet in &sent {
        pair.send(packet.clone());
        got.extend(pair.step());
    }
    for _ in 0..300 {
        got.extend(pair.step());
    }
    let counters = &pair.client.snapshot(pair.now, &Detail::Paths).bonds[0].counters;
    let squeezed = counters.get("squeezed").copied().unwrap_or(0);
    (sent, got, squeezed)
}

#[test]
fn a_begun_checksum_comes_out_as_it_went_in_though_datagrams_are_lost() {
    let mut count = 0;
    let (sent, got, squeezed) = transfer(|datagram| {
        count += u32::from(datagram.len() > 900);
        datagram.len() <= 900 || count % 7 != 0
    });
    assert!(squeezed > 200, "{squeezed} headers were squeezed");
    assert_eq!(got.len(), sent.len());
    for (got, sent) in got.iter().zip(&sent) {
        assert!(got.is_begun());
        assert_eq!(got.bytes(), sent.bytes());
    }
}

#[test]
fn who_cannot_complete_a_checksum_is_given_none_that_is_begun() {
    let (sent, got, squeezed) = transfer(|datagram| {
        if datagram.len() > CAPABILITIES + 4
            && datagram[FRAME] == CONTROL
            && matches!(datagram[FRAME + 7], 1 | 2)
        {
            datagram[CAPABILITIES + 3] &= !4;
        }
        assert!(!says_begun(datagram), "not understood there");
        true
    });
    assert!(squeezed > 200, "{squeezed} headers were squeezed");
    assert_eq!(got.len(), sent.len());
    for (got, sent) in got.iter().zip(&sent) {
        assert!(!got.is_begun() && is_complete(got.bytes()));
        assert_eq!(got.bytes()[..36], sent.bytes()[..36]);
        assert_eq!(got.bytes()[38..], sent.bytes()[38..]);
    }
}

#[test]
fn a_lowered_segment_size_has_a_sound_checksum() {
    let mut pair = Pair::new(|_| true);
    pair.send(begun(TCP, SYN, 0, &[2, 4, 0x05, 0xb4], 0));
    let got: Vec<_> = (0..30).flat_map(|_| pair.step()).collect();
    let [syn] = &got[..] else {
        panic!("{} packets", got.len())
    };
    assert_eq!(syn.bytes()[40..44], [2, 4, 0x05, 0x50], "1,360 bytes");
    assert!(!syn.is_begun() && is_complete(syn.bytes()));
}

#[test]
fn a_checksum_that_cannot_be_begun_is_refused() {
    let mut pair = Pair::new(|datagram| {
        if is_data(datagram) {
            datagram[FRAME + 17] |= 1;
        }
        true
    });
    let mut ping = begun(ICMP, 0, 0, &[], 50);
    ping.complete();
    pair.send(ping);
    let got: Vec<_> = (0..30).flat_map(|_| pair.step()).collect();
    assert_eq!(got.len(), 0);
    assert_eq!(pair.drops("inner_malformed"), 1);
}

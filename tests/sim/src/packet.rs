//! Real IP packets for traffic that is only modelled.
//!
//! The core reads headers to sort packets into flows, so the headers are true:
//! addresses, ports, flags, sequence numbers and checksums. Each packet carries a
//! number of its own (in the TCP timestamp, or in the payload), so that no two
//! packets of a run are equal, and a payload that depends on that number, so that
//! a byte in the wrong place is noticed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::tcp::WINDOW_BYTES;

/// Which end of a flow: behind the client, or on the internet behind the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// Behind the client.
    Client,
    /// Behind the server.
    Server,
}

impl Side {
    /// The other end.
    pub fn other(self) -> Self {
        match self {
            Side::Client => Side::Server,
            Side::Server => Side::Client,
        }
    }
}

/// The version of IP that a flow uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Version {
    /// IPv4.
    #[default]
    V4,
    /// IPv6.
    V6,
}

/// The inner IPv4 address of the client.
pub const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
/// The inner IPv6 address of the client.
pub const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x99, 0, 0, 0, 0, 0, 2);
/// The host on the internet that the client talks to.
pub const HOST_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// The same host over IPv6.
pub const HOST_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 1);

/// Bytes of a TCP header with its timestamp option, as everybody sends it.
pub const TCP_HEADER_LEN: usize = 32;

/// How far windows are shifted, as each SYN says.
const WINDOW_SHIFT: u8 = 6;
/// Where the window and the checksum stand in a TCP header.
const WINDOW_AT: usize = 14;
const CHECKSUM_AT: usize = 16;

const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;
const PROTOCOL_ICMPV6: u8 = 58;

/// The ends of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// IPv4 or IPv6.
    pub version: Version,
    /// The client's port.
    pub client_port: u16,
    /// The port of the host on the internet.
    pub host_port: u16,
}

/// The fields of a TCP header that differ from packet to packet.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpFields {
    /// Sequence number.
    pub seq: u32,
    /// Acknowledged sequence number.
    pub ack: u32,
    /// SYN.
    pub syn: bool,
    /// ACK.
    pub has_ack: bool,
    /// FIN.
    pub fin: bool,
    /// Bytes of payload.
    pub payload_len: usize,
    /// The ECN field of the IP header.
    pub ecn: u8,
}

/// The window that every packet grants.
const WINDOW: u16 = (WINDOW_BYTES >> WINDOW_SHIFT) as u16;
/// Four segments: nobody is given less.
const LEAST_WINDOW: u64 = 4 * 1_514;
/// No operation, then the option that says how far windows are shifted.
const SHIFT_OPTION: [u8; 4] = [1, 3, 3, WINDOW_SHIFT];

impl Version {
    /// Bytes of its IP header.
    pub fn header_len(self) -> usize {
        match self {
            Version::V4 => 20,
            Version::V6 => 40,
        }
    }
}

impl Ends {
    /// A TCP packet that leaves `from`; `number` is its own alone.
    pub fn tcp(&self, from: Side, number: u32, fields: TcpFields) -> Vec<u8> {
        let mut l4 = Vec::with_capacity(TCP_HEADER_LEN + SHIFT_OPTION.len() + fields.payload_len);
        let shift_option: &[u8] = if fields.syn { &SHIFT_OPTION } else { &[] };
        let (source, destination) = self.ports(from);
        l4.extend_from_slice(&source.to_be_bytes());
        l4.extend_from_slice(&destination.to_be_bytes());
        l4.extend_from_slice(&fields.seq.to_be_bytes());
        l4.extend_from_slice(&fields.ack.to_be_bytes());
        l4.push(((TCP_HEADER_LEN + shift_option.len()) as u8 / 4) << 4);
        let flags = u8::from(fields.fin)
            | u8::from(fields.syn) << 1
            | u8::from(fields.payload_len > 0) << 3
            | u8::from(fields.has_ack) << 4;
        l4.push(flags);
        l4.extend_from_slice(&WINDOW.to_be_bytes());
        l4.extend_from_slice(&[0; 4]);
        // Two no-operations, then the timestamp option.
        l4.extend_from_slice(&[1, 1, 8, 10]);
        l4.extend_from_slice(&number.to_be_bytes());
        l4.extend_from_slice(&[0; 4]);
        l4.extend_from_slice(shift_option);
        fill(&mut l4, fields.payload_len, u64::from(number));
        let mut packet = self.wrap(from, PROTOCOL_TCP, l4, Some(CHECKSUM_AT));
        set_ecn(&mut packet, fields.ecn);
        packet
    }

    /// A UDP packet of `payload_len` bytes (at least 8) that leaves `from`.
    pub fn udp(&self, from: Side, number: u32, payload_len: usize) -> Vec<u8> {
        let payload_len = payload_len.max(8);
        let mut l4 = Vec::with_capacity(8 + payload_len);
        let (source, destination) = self.ports(from);
        l4.extend_from_slice(&source.to_be_bytes());
        l4.extend_from_slice(&destination.to_be_bytes());
        l4.extend_from_slice(&((8 + payload_len) as u16).to_be_bytes());
        l4.extend_from_slice(&[0; 2]);
        l4.extend_from_slice(&u64::from(number).to_be_bytes());
        fill(&mut l4, payload_len - 8, u64::from(number));
        self.wrap(from, PROTOCOL_UDP, l4, Some(6))
    }

    /// The same in fragments of at most `mtu` bytes, as its sender makes them when it is larger.
    pub fn fragmented_udp(
        &self,
        from: Side,
        number: u32,
        payload_len: usize,
        mtu: usize,
    ) -> Vec<Vec<u8>> {
        let whole = self.udp(from, number, payload_len);
        let (head, l4) = whole.split_at(self.version.header_len());
        let extra = match self.version {
            Version::V4 => 0,
            Version::V6 => 8,
        };
        let most = (mtu - head.len() - extra) & !7;
        // The middle of two datagrams with the same number looks the same but for this.
        let id = number ^ u32::from(self.client_port);
        let pieces = l4.chunks(most).enumerate();
        let fragment = |(at, piece): (usize, &[u8])| {
            let more = (at + 1) * most < l4.len();
            let mut packet = head.to_vec();
            match self.version {
                Version::V4 => {
                    let field = (at * most / 8) as u16 | u16::from(more) << 13;
                    packet[2..4].copy_from_slice(&((20 + piece.len()) as u16).to_be_bytes());
                    packet[4..6].copy_from_slice(&(id as u16).to_be_bytes());
                    packet[6..8].copy_from_slice(&field.to_be_bytes());
                    packet[10..12].fill(0);
                    let checksum = finish(sum(0, &packet));
                    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
                }
                Version::V6 => {
                    let field = (at * most) as u16 | u16::from(more);
                    packet[4..6].copy_from_slice(&((8 + piece.len()) as u16).to_be_bytes());
                    let protocol = std::mem::replace(&mut packet[6], 44);
                    packet.extend_from_slice(&[protocol, 0]);
                    packet.extend_from_slice(&field.to_be_bytes());
                    packet.extend_from_slice(&id.to_be_bytes());
                }
            }
            packet.extend_from_slice(piece);
            packet
        };
        pieces.map(fragment).collect()
    }

    /// An echo request (from the client) or its reply (from the host), 64 bytes of ICMP.
    pub fn ping(&self, from: Side, number: u32) -> Vec<u8> {
        let mut l4 = Vec::with_capacity(64);
        l4.push(match (self.version, from) {
            (Version::V4, Side::Client) => 8,
            (Version::V4, Side::Server) => 0,
            (Version::V6, Side::Client) => 128,
            (Version::V6, Side::Server) => 129,
        });
        l4.extend_from_slice(&[0; 3]);
        l4.extend_from_slice(&self.client_port.to_be_bytes());
        l4.extend_from_slice(&(number as u16).to_be_bytes());
        l4.extend_from_slice(&u64::from(number).to_be_bytes());
        fill(&mut l4, 48, u64::from(number));
        match self.version {
            Version::V4 => {
                let checksum = finish(sum(0, &l4));
                l4[2..4].copy_from_slice(&checksum.to_be_bytes());
                self.wrap(from, PROTOCOL_ICMP, l4, None)
            }
            Version::V6 => self.wrap(from, PROTOCOL_ICMPV6, l4, Some(2)),
        }
    }

    fn ports(&self, from: Side) -> (u16, u16) {
        match from {
            Side::Client => (self.client_port, self.host_port),
            Side::Server => (self.host_port, self.client_port),
        }
    }

    /// Puts the IP header in front, and the checksum with its pseudo header at `checksum_at`.
    fn wrap(
        &self,
        from: Side,
        protocol: u8,
        mut l4: Vec<u8>,
        checksum_at: Option<usize>,
    ) -> Vec<u8> {
        let (client, host) = match self.version {
            Version::V4 => (IpAddr::V4(CLIENT_V4), IpAddr::V4(HOST_V4)),
            Version::V6 => (IpAddr::V6(CLIENT_V6), IpAddr::V6(HOST_V6)),
        };
        let (source, destination) = if from == Side::Client {
            (client, host)
        } else {
            (host, client)
        };
        let addresses: Vec<u8> = [source, destination].into_iter().flat_map(octets).collect();
        if let Some(at) = checksum_at {
            let pseudo = sum(sum(0, &addresses), &[0, protocol]) + l4.len() as u64;
            let checksum = match finish(sum(pseudo, &l4)) {
                0 => 0xffff,
                checksum => checksum,
            };
            l4[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        }
        let mut packet = Vec::with_capacity(self.version.header_len() + l4.len());
        match self.version {
            Version::V4 => {
                packet.extend_from_slice(&[0x45, 0]);
                packet.extend_from_slice(&((20 + l4.len()) as u16).to_be_bytes());
                // Identification 0, do not fragment, 64 hops.
                packet.extend_from_slice(&[0, 0, 0x40, 0, 64, protocol, 0, 0]);
                packet.extend_from_slice(&addresses);
                let checksum = finish(sum(0, &packet));
                packet[10..12].copy_from_slice(&checksum.to_be_bytes());
            }
            Version::V6 => {
                packet.extend_from_slice(&[0x60, 0, 0, 0]);
                packet.extend_from_slice(&(l4.len() as u16).to_be_bytes());
                packet.extend_from_slice(&[protocol, 64]);
                packet.extend_from_slice(&addresses);
            }
        }
        packet.append(&mut l4);
        packet
    }
}

/// Congestion experienced: what a queue writes into the ECN field of a packet whose sender understands it.
const CE: u8 = 3;

/// What a packet was before a queue marked it, if its ECN field was `ecn`. None when it carries no mark, or not a
/// right one.
pub fn unmarked(packet: &[u8], ecn: u8) -> Option<Vec<u8>> {
    let mut before = packet.to_vec();
    match packet.first()? >> 4 {
        4 if packet.len() >= 20 && packet[1] & 3 == CE && finish(sum(0, &packet[..20])) == 0 => {}
        6 if packet.len() >= 40 && packet[1] >> 4 & 3 == CE => {}
        _ => return None,
    }
    set_ecn(&mut before, ecn);
    Some(before)
}

/// An acknowledgement as it was before somebody on its way lowered its window, and that lower window in bytes. None when its
/// checksum is wrong, or the window is one that nobody may make of it.
pub fn unlowered(packet: &[u8]) -> Option<(Vec<u8>, u64)> {
    let (addresses, tcp) = match packet.first()? >> 4 {
        4 if packet.len() >= 40 && packet[9] == PROTOCOL_TCP => (12..20, 20),
        6 if packet.len() >= 60 && packet[6] == PROTOCOL_TCP => (8..40, 40),
        _ => return None,
    };
    let checksum = |packet: &[u8]| {
        let pseudo = u64::from(PROTOCOL_TCP) + (packet.len() - tcp) as u64;
        finish(sum(sum(pseudo, &packet[addresses.clone()]), &packet[tcp..]))
    };
    const SYN_AND_ACK: u8 = 0x12;
    const ACK: u8 = 0x10;
    if checksum(packet) != 0 || packet[tcp + 13] & SYN_AND_ACK != ACK {
        return None;
    }
    let mut before = packet.to_vec();
    let field = tcp + WINDOW_AT..tcp + CHECKSUM_AT;
    let window = u16::from_be_bytes(packet[field.clone()].try_into().ok()?);
    let bytes = u64::from(window) << WINDOW_SHIFT;
    if window >= WINDOW || bytes < LEAST_WINDOW {
        return None;
    }
    before[field].copy_from_slice(&WINDOW.to_be_bytes());
    before[tcp + CHECKSUM_AT..tcp + CHECKSUM_AT + 2].fill(0);
    // As all senders here write it.
    let whole = match checksum(&before) {
        0 => 0xffffu16,
        whole => whole,
    };
    before[tcp + CHECKSUM_AT..tcp + CHECKSUM_AT + 2].copy_from_slice(&whole.to_be_bytes());
    Some((before, bytes))
}

/// Sets the ECN field and puts the header's checksum right.
fn set_ecn(packet: &mut [u8], ecn: u8) {
    if packet[0] >> 4 == 6 {
        packet[1] = packet[1] & !0x30 | ecn << 4;
        return;
    }
    packet[1] = packet[1] & !3 | ecn;
    packet[10..12].fill(0);
    let checksum = finish(sum(0, &packet[..20]));
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
}

/// A fingerprint of bytes: equal bytes, equal fingerprint, in every run.
pub fn fingerprint(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325 ^ bytes.len() as u64;
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let word = chunk
            .iter()
            .fold(0u64, |word, byte| word << 8 | u64::from(*byte));
        hash = mix(hash, word);
    }
    chunks
        .remainder()
        .iter()
        .fold(hash, |hash, byte| mix(hash, u64::from(*byte)))
}

/// Adds one number to a fingerprint.
pub fn mix(hash: u64, word: u64) -> u64 {
    let product = (hash ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    product ^ (product >> 29)
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn fill(packet: &mut Vec<u8>, len: usize, number: u64) {
    let end = packet.len() + len;
    let mut word = number;
    while packet.len() < end {
        word = mix(word, 1);
        packet.extend_from_slice(&word.to_be_bytes());
    }
    packet.truncate(end);
}

fn sum(start: u64, bytes: &[u8]) -> u64 {
    let mut chunks = bytes.chunks_exact(2);
    let mut total = start;
    for pair in &mut chunks {
        total += u64::from(u16::from_be_bytes([pair[0], pair[1]]));
    }
    match chunks.remainder() {
        [last] => total + (u64::from(*last) << 8),
        _ => total,
    }
}

fn finish(mut total: u64) -> u16 {
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    !(total as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_right() {
        // The IPv4 header of RFC 1071's usual example: sums to 0xffff with its checksum in place.
        let header = [
            0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8,
            0x00, 0x01, 0xc0, 0xa8, 0x00, 0xc7,
        ];
        assert_eq!(finish(sum(0, &header)), 0);

        let ends = Ends {
            version: Version::V4,
            client_port: 40_000,
            host_port: 443,
        };
        let fields = TcpFields {
            seq: 9,
            payload_len: 101,
            ..TcpFields::default()
        };
        let packet = ends.tcp(Side::Client, 5, fields);
        assert_eq!(packet.len(), 20 + TCP_HEADER_LEN + 101);
        assert_eq!(finish(sum(0, &packet[..20])), 0);
        let pseudo = sum(0, &packet[12..20]) + 6 + (packet.len() as u64 - 20);
        assert_eq!(finish(sum(pseudo, &packet[20..])), 0);
    }

    #[test]
    fn fragments_carry_what_the_packet_carried() {
        for version in [Version::V4, Version::V6] {
            let ends = Ends {
                version,
                client_port: 40_000,
                host_port: 443,
            };
            let whole = ends.udp(Side::Client, 7, 3_000);
            let fragments = ends.fragmented_udp(Side::Client, 7, 3_000, 1_400);
            assert_eq!(fragments.len(), 3);
            assert!(fragments.iter().all(|f| f.len() <= 1_400));
            let head = whole.len() - 3_008;
            let at = match version {
                Version::V4 => 20,
                Version::V6 => 48,
            };
            let put_together: Vec<u8> = fragments.iter().flat_map(|f| f[at..].to_vec()).collect();
            assert_eq!(put_together, whole[head..]);
        }
    }

    #[test]
    fn packets_with_different_numbers_differ() {
        let ends = Ends {
            version: Version::V6,
            client_port: 40_000,
            host_port: 443,
        };
        for make in [
            |ends: &Ends, number| ends.tcp(Side::Client, number, TcpFields::default()),
            |ends: &Ends, number| ends.udp(Side::Server, number, 100),
            |ends: &Ends, number| ends.ping(Side::Client, number),
        ] {
            assert_eq!(make(&ends, 1), make(&ends, 1));
            assert_ne!(
                fingerprint(&make(&ends, 1)),
                fingerprint(&make(&ends, 65_537))
            );
        }
    }
}

//! From a packet and its flow's recent behaviour to a class. Pure.
//!
//! No payload is looked at and no list of applications is kept: what a flow
//! does decides. Three classes share the bond (RFC 8290 calls the first
//! "sparse"): realtime flows send small packets at a modest pace, interactive
//! flows are short or thin, everything else is bulk. A marking (DSCP) is
//! believed only while the flow behaves like it.

use serde::{Deserialize, Serialize};

use crate::packet::{PacketInfo, Transport};

/// How a flow is treated.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Small packets at a modest pace: calls, games, ping, DNS.
    Realtime,
    /// Short or thin: the first kilobytes of anything, acknowledgements, shells.
    #[default]
    Interactive,
    /// Wants all there is.
    Bulk,
}

impl Class {
    /// The two bits on the wire.
    pub fn code(self) -> u8 {
        match self {
            Class::Realtime => 0,
            Class::Interactive => 1,
            Class::Bulk => 2,
        }
    }

    /// From the two bits on the wire; the reserved value counts as bulk.
    pub fn from_code(code: u8) -> Self {
        match code {
            0 => Class::Realtime,
            1 => Class::Interactive,
            _ => Class::Bulk,
        }
    }
}

/// What a flow has done of late.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Behaviour {
    /// Bytes since the flow began.
    pub bytes: u64,
    /// Packets since the flow began.
    pub packets: u64,
    /// Rate over the last half second, bytes per second.
    pub rate: f64,
    /// Mean packet length, bytes.
    pub mean_len: f64,
    /// Share of the best path's capacity above which a flow is bulk, bytes per second.
    pub bulk_rate: f64,
}

/// A flow that has sent no more than this is not bulk yet: a web page's first
/// objects, a QUIC handshake.
pub const BULK_AFTER_BYTES: u64 = 64 * 1024;

/// Calls and games stay below this, in bytes per packet on the mean.
pub const REALTIME_MEAN_LEN: f64 = 300.0;
/// 200 packets a second of 300 bytes.
const REALTIME_RATE: f64 = 60_000.0;

/// The class of a packet's flow.
pub fn classify(packet: &PacketInfo, flow: &Behaviour) -> Class {
    let thin = flow.rate <= flow.bulk_rate;
    if packet.transport == Transport::Icmp {
        return if thin { Class::Realtime } else { Class::Bulk };
    }
    let small = flow.mean_len <= REALTIME_MEAN_LEN && flow.rate <= REALTIME_RATE;
    let marked = matches!(packet.dscp, 34 | 36 | 38 | 40 | 46 | 48);
    let is_tcp = matches!(packet.transport, Transport::Tcp { .. });
    if thin && !is_tcp && (small || marked) {
        return Class::Realtime;
    }
    // Short so far, or thin: acknowledgements, an old shell.
    let slow_tcp = is_tcp && flow.rate <= REALTIME_RATE;
    if flow.bytes <= BULK_AFTER_BYTES || thin && (flow.mean_len <= REALTIME_MEAN_LEN || slow_tcp) {
        return Class::Interactive;
    }
    Class::Bulk
}

/// What a second copy of a packet is worth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Worth {
    /// Nothing: the next packet says the same, or there are many of its kind.
    #[default]
    Nothing,
    /// Something while the path is doubtful.
    InDoubt,
    /// Something as soon as it may be lost: somebody waits for this very packet.
    InTime,
    /// Something always: the same, and it is small and rare.
    Always,
}

/// A flow below this rate is thin, bytes per second: 200 kbit/s.
pub const THIN_RATE: f64 = 25_000.0;
/// The first packets of a flow are waited for, one after the other.
const FIRST_PACKETS: u64 = 4;
/// DNS. A question that is lost is repeated after seconds.
const DNS_PORT: u16 = 53;

/// What a second copy of this packet is worth; `class` is its flow's.
pub fn worth(packet: &PacketInfo, flow: &Behaviour, class: Class) -> Worth {
    if class == Class::Bulk {
        return Worth::Nothing;
    }
    match packet.transport {
        // Acknowledgements are cumulative.
        Transport::Tcp { pure_ack: true, .. } => Worth::Nothing,
        Transport::Tcp { control: true, .. } => Worth::Always,
        _ => {
            let (from, to) = packet.key.ports;
            if from == DNS_PORT || to == DNS_PORT {
                Worth::Always
            } else if flow.packets <= FIRST_PACKETS || flow.rate <= THIN_RATE {
                Worth::InTime
            } else {
                Worth::InDoubt
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::packet::FlowKey;

    fn packet(transport: Transport, dscp: u8) -> PacketInfo {
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let key = FlowKey {
            source: ip,
            destination: ip,
            protocol: 0,
            ports: (1, 2),
        };
        PacketInfo {
            key,
            transport,
            tcp_end: None,
            syn: None,
            dscp,
            ecn: 0,
            len: 100,
        }
    }

    fn flow(bytes: u64, rate: f64, mean_len: f64) -> Behaviour {
        Behaviour {
            bytes,
            packets: bytes / 100,
            rate,
            mean_len,
            bulk_rate: 1_000_000.0,
        }
    }

    const TCP: Transport = Transport::Tcp {
        control: false,
        pure_ack: false,
    };

    #[test]
    fn flows_are_sorted_by_what_they_do() {
        let table = [
            (
                "a call",
                packet(Transport::Udp, 0),
                flow(1_000_000, 10_000.0, 200.0),
                Class::Realtime,
            ),
            (
                "ping",
                packet(Transport::Icmp, 0),
                flow(100, 100.0, 84.0),
                Class::Realtime,
            ),
            (
                "a flood of pings",
                packet(Transport::Icmp, 0),
                flow(9_999_999, 5e6, 84.0),
                Class::Bulk,
            ),
            (
                "a marked video call",
                packet(Transport::Udp, 34),
                flow(9_999_999, 3e5, 1_100.0),
                Class::Realtime,
            ),
            (
                "a marked flood",
                packet(Transport::Udp, 46),
                flow(9_999_999, 5e6, 1_100.0),
                Class::Bulk,
            ),
            (
                "a new QUIC flow",
                packet(Transport::Udp, 0),
                flow(30_000, 3e5, 1_200.0),
                Class::Interactive,
            ),
            (
                "a QUIC download",
                packet(Transport::Udp, 0),
                flow(300_000, 3e6, 1_200.0),
                Class::Bulk,
            ),
            (
                "a new TCP flow",
                packet(TCP, 0),
                flow(30_000, 3e6, 1_400.0),
                Class::Interactive,
            ),
            (
                "a TCP download",
                packet(TCP, 0),
                flow(300_000, 3e6, 1_400.0),
                Class::Bulk,
            ),
            (
                "its acknowledgements",
                packet(TCP, 0),
                flow(300_000, 9e4, 52.0),
                Class::Interactive,
            ),
            (
                "an old shell",
                packet(TCP, 0),
                flow(5_000_000, 2_000.0, 400.0),
                Class::Interactive,
            ),
        ];
        for (name, packet, flow, class) in table {
            assert_eq!(classify(&packet, &flow), class, "{name}");
        }
    }

    #[test]
    fn a_class_survives_its_two_bits() {
        for class in [Class::Realtime, Class::Interactive, Class::Bulk] {
            assert_eq!(Class::from_code(class.code()), class);
        }
    }

    #[test]
    fn a_copy_is_worth_most_where_somebody_waits_for_one_small_packet() {
        let syn = Transport::Tcp {
            control: true,
            pure_ack: false,
        };
        let pure_ack = Transport::Tcp {
            control: false,
            pure_ack: true,
        };
        let mut dns = packet(Transport::Udp, 0);
        dns.key.ports = (40_000, 53);
        let fast = flow(1_000_000, 50_000.0, 290.0);
        let slow = flow(1_000_000, 10_000.0, 200.0);
        let new = flow(300, 60_000.0, 100.0);
        for (name, packet, flow, class, expected) in [
            (
                "a call",
                packet(Transport::Udp, 0),
                slow,
                Class::Realtime,
                Worth::InTime,
            ),
            (
                "a video call",
                packet(Transport::Udp, 34),
                fast,
                Class::Realtime,
                Worth::InDoubt,
            ),
            ("a question", dns, fast, Class::Realtime, Worth::Always),
            (
                "a SYN",
                packet(syn, 0),
                fast,
                Class::Interactive,
                Worth::Always,
            ),
            (
                "a first packet",
                packet(TCP, 0),
                new,
                Class::Interactive,
                Worth::InTime,
            ),
            (
                "a web page",
                packet(TCP, 0),
                fast,
                Class::Interactive,
                Worth::InDoubt,
            ),
            (
                "its acknowledgements",
                packet(pure_ack, 0),
                slow,
                Class::Interactive,
                Worth::Nothing,
            ),
            (
                "a download",
                packet(TCP, 0),
                fast,
                Class::Bulk,
                Worth::Nothing,
            ),
        ] {
            assert_eq!(worth(&packet, &flow, class), expected, "{name}");
        }
    }
}

//! What the core needs to know of an inner packet, read once.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{IpNumber, LaxIpSlice, TcpSlice, UdpSlice};

use crate::window::Syn;

/// What names a flow: the inner 5-tuple, or what stands in for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// Who sent it.
    pub source: IpAddr,
    /// Whom to.
    pub destination: IpAddr,
    /// The transport protocol's number.
    pub protocol: u8,
    /// Source and destination port; for an ICMP echo its identifier twice; for a
    /// fragment zeroes, so that all fragments of a pair of hosts stay together.
    pub ports: (u16, u16),
}

/// The transport of a packet, as far as it matters for sorting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp {
        /// It opens, closes or resets a connection.
        control: bool,
        /// It carries no data.
        pure_ack: bool,
    },
    /// UDP.
    Udp,
    /// ICMP or ICMPv6.
    Icmp,
    /// A fragment, whose ports are unknown.
    Fragment,
    /// Anything else.
    Other,
}

/// What is known of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketInfo {
    /// Its flow.
    pub key: FlowKey,
    /// Its transport.
    pub transport: Transport,
    /// Sequence number behind the last byte of a TCP segment that carries data.
    pub tcp_end: Option<u32>,
    /// What a SYN says of windows.
    pub syn: Option<Syn>,
    /// Differentiated services code point.
    pub dscp: u8,
    /// ECN field: 0 not capable, 1 ECT(1), 2 ECT(0), 3 CE.
    pub ecn: u8,
    /// Length in bytes.
    pub len: usize,
}

impl FlowKey {
    /// That of the packets which answer it.
    pub fn reversed(&self) -> FlowKey {
        FlowKey {
            source: self.destination,
            destination: self.source,
            ports: (self.ports.1, self.ports.0),
            ..*self
        }
    }
}

/// Only the addresses of an inner packet: source, destination.
pub fn addresses(bytes: &[u8]) -> Option<(IpAddr, IpAddr)> {
    match bytes.first()? >> 4 {
        4 => {
            let at = |i: usize| <[u8; 4]>::try_from(bytes.get(i..i + 4)?).ok();
            Some((
                Ipv4Addr::from(at(12)?).into(),
                Ipv4Addr::from(at(16)?).into(),
            ))
        }
        6 => {
            let at = |i: usize| <[u8; 16]>::try_from(bytes.get(i..i + 16)?).ok();
            Some((
                Ipv6Addr::from(at(8)?).into(),
                Ipv6Addr::from(at(24)?).into(),
            ))
        }
        _ => None,
    }
}

/// Reads an inner packet. `None` when it is not an IP packet.
pub fn inspect(bytes: &[u8]) -> Option<PacketInfo> {
    let (ip, _) = LaxIpSlice::from_slice(bytes).ok()?;
    let (source, destination, dscp, ecn) = match &ip {
        LaxIpSlice::Ipv4(v4) => {
            let h = v4.header();
            if usize::from(h.total_len()) > bytes.len() {
                return None;
            }
            (
                IpAddr::V4(Ipv4Addr::from(h.source())),
                IpAddr::V4(Ipv4Addr::from(h.destination())),
                h.dcp().value(),
                h.ecn().value(),
            )
        }
        LaxIpSlice::Ipv6(v6) => {
            let h = v6.header();
            if usize::from(h.payload_length()) + 40 > bytes.len() {
                return None;
            }
            (
                IpAddr::V6(Ipv6Addr::from(h.source())),
                IpAddr::V6(Ipv6Addr::from(h.destination())),
                h.dscp().value(),
                h.ecn().value(),
            )
        }
    };
    let payload = ip.payload();
    let (transport, ports, tcp_end, syn) = if payload.fragmented {
        (Transport::Fragment, (0, 0), None, None)
    } else {
        transport_of(payload.ip_number, payload.payload)
    };
    let key = FlowKey {
        source,
        destination,
        protocol: payload.ip_number.0,
        ports,
    };
    Some(PacketInfo {
        key,
        transport,
        tcp_end,
        syn,
        dscp,
        ecn,
        len: bytes.len(),
    })
}

/// A packet's transport, its ports, [`PacketInfo::tcp_end`] and [`PacketInfo::syn`].
type Content = (Transport, (u16, u16), Option<u32>, Option<Syn>);

fn transport_of(number: IpNumber, payload: &[u8]) -> Content {
    let other = (Transport::Other, (0, 0), None, None);
    match number {
        IpNumber::TCP => match TcpSlice::from_slice(payload) {
            Ok(tcp) => {
                let control = tcp.syn() || tcp.fin() || tcp.rst();
                let len = tcp.payload().len();
                let pure_ack = !control && len == 0;
                let ports = (tcp.source_port(), tcp.destination_port());
                let end = (len > 0).then(|| tcp.sequence_number().wrapping_add(len as u32));
                let syn = tcp.syn().then(|| Syn::read(tcp.ack(), tcp.options()));
                (Transport::Tcp { control, pure_ack }, ports, end, syn)
            }
            Err(_) => other,
        },
        IpNumber::UDP => match UdpSlice::from_slice_lax(payload) {
            Ok(udp) => {
                let ports = (udp.source_port(), udp.destination_port());
                (Transport::Udp, ports, None, None)
            }
            Err(_) => other,
        },
        IpNumber::ICMP | IpNumber::IPV6_ICMP => {
            // Bytes 4 and 5 are the identifier of an echo; for other messages
            // any value does, they are alone in their flow.
            let id = payload
                .get(4..6)
                .map_or(0, |b| u16::from_be_bytes([b[0], b[1]]));
            (Transport::Icmp, (id, id), None, None)
        }
        _ => other,
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    fn tcp(
        flags: impl Fn(etherparse::PacketBuilderStep<etherparse::TcpHeader>) -> Vec<u8>,
    ) -> Vec<u8> {
        flags(PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).tcp(1000, 80, 1, 100))
    }

    fn write(b: etherparse::PacketBuilderStep<etherparse::TcpHeader>, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        b.write(&mut out, payload).unwrap();
        out
    }

    #[test]
    fn tcp_segments_are_told_apart_by_what_they_do() {
        let data = inspect(&tcp(|b| write(b.ack(1), b"x"))).unwrap();
        assert_eq!(
            data.transport,
            Transport::Tcp {
                control: false,
                pure_ack: false
            }
        );
        assert_eq!(data.key.ports, (1000, 80));
        let ack = inspect(&tcp(|b| write(b.ack(1), b""))).unwrap();
        assert_eq!(
            ack.transport,
            Transport::Tcp {
                control: false,
                pure_ack: true
            }
        );
        let syn = inspect(&tcp(|b| write(b.syn(), b""))).unwrap();
        assert_eq!(
            syn.transport,
            Transport::Tcp {
                control: true,
                pure_ack: false
            }
        );
    }

    #[test]
    fn ipv6_udp_is_read_with_its_addresses() {
        let mut out = Vec::new();
        PacketBuilder::ipv6([1; 16], [2; 16], 9)
            .udp(5, 6)
            .write(&mut out, b"abc")
            .unwrap();
        let info = inspect(&out).unwrap();
        assert_eq!(info.transport, Transport::Udp);
        assert_eq!(info.key.ports, (5, 6));
        assert_eq!(info.key.source, IpAddr::from([1u8; 16]));
    }

    #[test]
    fn all_fragments_of_two_hosts_are_one_flow_the_first_included() {
        let fragment = |offset: u8, id: u8| {
            let mut bytes = Vec::new();
            PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 9)
                .udp(5, 6)
                .write(&mut bytes, &[0; 100])
                .unwrap();
            (bytes[5], bytes[6], bytes[7]) = (id, 0x20, offset);
            inspect(&bytes).unwrap()
        };
        let first = fragment(0, 1);
        assert_eq!(first.transport, Transport::Fragment);
        for other in [fragment(50, 1), fragment(0, 2)] {
            assert_eq!((other.key, other.transport), (first.key, first.transport));
        }
    }

    #[test]
    fn what_is_not_ip_or_is_cut_short_is_refused() {
        assert_eq!(inspect(&[]), None);
        assert_eq!(inspect(&[0; 60]), None);
        let whole = tcp(|b| write(b.ack(1), &[7; 100]));
        assert_eq!(inspect(&whole[..whole.len() - 1]), None);
    }
}

//! Inner packets that would not fit: TCP is told before (MSS), others after (ICMP).
//!
//! A SYN names the largest segment its sender takes. When that is more than the
//! bond carries it is lowered in passing, in both directions, so no TCP
//! connection ever depends on ICMP. Whatever else is too big is answered with
//! "fragmentation needed" (RFC 1191) or "packet too big" (RFC 8201).

use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::icmpv4::DestUnreachableHeader;
use etherparse::{Icmpv4Type, Icmpv6Type, PacketBuilder, TcpOptionElement, TcpOptionsIterator};

/// Bytes of the offending packet that are quoted in an answer.
const QUOTED: usize = 512;

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Where the TCP header of an unfragmented packet begins, and the length of the
/// headers that a segment loses to.
fn tcp_at(bytes: &[u8]) -> Option<(usize, u16)> {
    match bytes.first()? >> 4 {
        4 => {
            let ihl = usize::from(bytes[0] & 0x0f) * 4;
            let whole = bytes.len() >= ihl + 20 && ihl >= 20;
            (whole && bytes[9] == 6 && word(bytes, 6) & 0x3fff == 0).then_some((ihl, 40))
        }
        6 => (bytes.len() >= 60 && bytes[6] == 6).then_some((40, 60)),
        _ => None,
    }
}

/// Lowers the MSS option of a SYN to what an inner packet of `mtu` bytes can carry.
pub fn clamp(bytes: &mut [u8], mtu: u16) {
    const SYN: u8 = 0x02;
    let Some((tcp, headers)) = tcp_at(bytes) else {
        return;
    };
    let end = tcp + usize::from(bytes[tcp + 12] >> 4) * 4;
    if bytes[tcp + 13] & SYN == 0 || end < tcp + 20 || end > bytes.len() {
        return;
    }
    let most = mtu.saturating_sub(headers).max(536);
    let mut options = TcpOptionsIterator::from_slice(&bytes[tcp + 20..end]);
    while let Some(Ok(option)) = options.next() {
        let next = end - options.rest().len();
        if let TcpOptionElement::MaximumSegmentSize(mss) = option {
            if mss > most {
                replace_word(bytes, tcp + 16, next - 2, most);
            }
            return;
        }
    }
}

/// Replaces a 16-bit field and mends the checksum at `sum` (RFC 1624).
fn replace_word(bytes: &mut [u8], sum: usize, at: usize, new: u16) {
    let old = word(bytes, at);
    bytes[at..at + 2].copy_from_slice(&new.to_be_bytes());
    // A field at an odd offset from the TCP header counts with its bytes swapped.
    let (old, new) = if (at - sum).is_multiple_of(2) {
        (old, new)
    } else {
        (old.swap_bytes(), new.swap_bytes())
    };
    let mut x = u32::from(!word(bytes, sum)) + u32::from(!old) + u32::from(new);
    x = (x & 0xffff) + (x >> 16);
    x = (x & 0xffff) + (x >> 16);
    bytes[sum..sum + 2].copy_from_slice(&(!(x as u16)).to_be_bytes());
}

/// The answer to a packet that is larger than `mtu`. `None` when none may be
/// given: to an ICMP error, a fragment, or something not sent to one host.
pub fn too_big(bytes: &[u8], mtu: u16) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    match bytes.first()? >> 4 {
        4 if bytes.len() >= 28 => {
            let source = Ipv4Addr::new(bytes[12], bytes[13], bytes[14], bytes[15]);
            let target = Ipv4Addr::new(bytes[16], bytes[17], bytes[18], bytes[19]);
            let later_fragment = word(bytes, 6) & 0x1fff != 0;
            let icmp_error = bytes[9] == 1 && !matches!(bytes[20], 0 | 8);
            if later_fragment || icmp_error || target.is_multicast() || source.is_unspecified() {
                return None;
            }
            let header = DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: mtu };
            let builder = PacketBuilder::ipv4(target.octets(), source.octets(), 64)
                .icmpv4(Icmpv4Type::DestinationUnreachable(header));
            builder
                .write(&mut out, &bytes[..bytes.len().min(QUOTED)])
                .ok()?;
        }
        6 if bytes.len() >= 48 => {
            let address = |at: usize| <[u8; 16]>::try_from(&bytes[at..at + 16]).ok();
            let (source, target) = (address(8)?, address(24)?);
            let icmp_error = bytes[6] == 58 && bytes[40] < 128;
            let from = Ipv6Addr::from(source);
            if icmp_error || Ipv6Addr::from(target).is_multicast() || from.is_unspecified() {
                return None;
            }
            let builder =
                PacketBuilder::ipv6(target, source, 64).icmpv6(Icmpv6Type::PacketTooBig {
                    mtu: u32::from(mtu),
                });
            builder
                .write(&mut out, &bytes[..bytes.len().min(QUOTED)])
                .ok()?;
        }
        _ => return None,
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use etherparse::{IpHeaders, SlicedPacket, TcpOptionElement as Opt, TransportSlice};

    use super::*;

    fn syn(v6: bool, options: &[Opt]) -> Vec<u8> {
        let mut out = Vec::new();
        let b = if v6 {
            PacketBuilder::ipv6([1; 16], [2; 16], 9).tcp(1, 2, 3, 4)
        } else {
            PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 9).tcp(1, 2, 3, 4)
        };
        b.syn()
            .options(options)
            .unwrap()
            .write(&mut out, &[])
            .unwrap();
        out
    }

    fn mss_and_sum(bytes: &[u8]) -> (u16, bool) {
        let sliced = SlicedPacket::from_ip(bytes).unwrap();
        let Some(TransportSlice::Tcp(tcp)) = sliced.transport else {
            panic!("it is TCP")
        };
        let header = tcp.to_header();
        let (ip, _) = IpHeaders::from_slice(bytes).unwrap();
        let sum = match ip {
            IpHeaders::Ipv4(v4, _) => header.calc_checksum_ipv4(&v4, &[]).unwrap(),
            IpHeaders::Ipv6(v6, _) => header.calc_checksum_ipv6(&v6, &[]).unwrap(),
        };
        let mss = tcp.options_iterator().find_map(|o| match o {
            Ok(Opt::MaximumSegmentSize(mss)) => Some(mss),
            _ => None,
        });
        (mss.unwrap(), sum == tcp.checksum())
    }

    #[test]
    fn a_large_mss_is_lowered_and_the_checksum_stays_right() {
        let layouts: [&[Opt]; 3] = [
            &[Opt::MaximumSegmentSize(1460)],
            &[
                Opt::Noop,
                Opt::MaximumSegmentSize(1460),
                Opt::WindowScale(7),
            ],
            &[Opt::Timestamp(1, 2), Opt::MaximumSegmentSize(1460)],
        ];
        for options in layouts {
            let mut v4 = syn(false, options);
            clamp(&mut v4, 1420);
            assert_eq!(mss_and_sum(&v4), (1380, true), "{options:?}");
            let mut v6 = syn(true, options);
            clamp(&mut v6, 1420);
            assert_eq!(mss_and_sum(&v6), (1360, true), "{options:?}");
        }
    }

    #[test]
    fn a_small_mss_is_left_alone() {
        let mut bytes = syn(false, &[Opt::MaximumSegmentSize(1200)]);
        let before = bytes.clone();
        clamp(&mut bytes, 1420);
        assert_eq!(bytes, before);
    }

    #[test]
    fn what_is_too_big_is_answered_to_its_sender_with_the_size_that_fits() {
        let mut v4 = Vec::new();
        PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 9)
            .udp(1, 2)
            .write(&mut v4, &[0; 1500])
            .unwrap();
        let answer = too_big(&v4, 1400).unwrap();
        assert_eq!(answer[16..20], [10, 0, 0, 1]);
        assert_eq!((answer[20], answer[21], word(&answer, 26)), (3, 4, 1400));
        let mut v6 = Vec::new();
        PacketBuilder::ipv6([1; 16], [2; 16], 9)
            .udp(1, 2)
            .write(&mut v6, &[0; 1500])
            .unwrap();
        let answer = too_big(&v6, 1400).unwrap();
        assert_eq!((answer[40], word(&answer, 46)), (2, 1400));
    }

    #[test]
    fn an_icmp_error_is_never_answered() {
        let mut v4 = Vec::new();
        PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 9)
            .udp(1, 2)
            .write(&mut v4, &[0; 1500])
            .unwrap();
        let mut error = too_big(&v4, 1400).unwrap();
        error.resize(1500, 0);
        assert_eq!(too_big(&error, 1400), None);
    }
}

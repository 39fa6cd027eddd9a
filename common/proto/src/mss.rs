//! Inner packets that would not fit: TCP is told before (MSS), others after (ICMP).
//!
//! A SYN names the largest segment its sender takes. When that is more than the
//! bond carries it is lowered in passing, in both directions, so no TCP
//! connection ever depends on ICMP. Whatever else is too big is answered with
//! "fragmentation needed" (RFC 1191) or "packet too big" (RFC 8201), unless its sender allows
//! that it is fragmented on the way, as IPv4 without DF does.
//!
//! How large a segment should be depends on the paths. One that does not fit a path goes over it
//! in two datagrams ([`crate::halves`]), which costs that path the bytes around a datagram once
//! more. Smaller segments cost every path a little. [`worthwhile`] weighs one against the other.

use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::icmpv4::DestUnreachableHeader;
use etherparse::{
    Icmpv4Type, Icmpv6Type, Ipv4HeaderSlice, PacketBuilder, TcpOptionElement, TcpOptionsIterator,
};

/// Bytes of the offending packet that are quoted in an answer.
const QUOTED: usize = 512;

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Where the TCP header of an unfragmented packet begins, and the length of the
/// headers that a segment loses to.
pub(crate) fn tcp_at(bytes: &[u8]) -> Option<(usize, u16)> {
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

/// What one path makes of the size of segments.
#[derive(Clone, Copy, Debug)]
pub struct Fit {
    /// The largest segment, from its IP header on, that goes over it in one datagram, bytes.
    pub len: usize,
    /// Bytes around each datagram.
    pub around: usize,
    /// Its capacity, bytes per second.
    pub capacity: f64,
}

/// The size of inner packets, up to `mtu`, at which the fewest bytes are spent around them: `mtu` itself, or what fits
/// one of the paths.
pub fn worthwhile(mtu: u16, paths: &[Fit]) -> u16 {
    let most = usize::from(mtu);
    let cost = |len: usize| -> f64 {
        let of = |p: &Fit| {
            let datagrams = if len > p.len { 2.0 } else { 1.0 };
            p.capacity * datagrams * p.around as f64 / len as f64
        };
        paths.iter().map(of).sum()
    };
    let sizes = paths.iter().map(|p| p.len.min(most));
    let best = sizes.min_by(|a, b| cost(*a).total_cmp(&cost(*b)));
    match best {
        Some(best) if cost(best) < cost(most) => best as u16,
        _ => mtu,
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
pub(crate) fn replace_word(bytes: &mut [u8], sum: usize, at: usize, new: u16) {
    let old = word(bytes, at);
    bytes[at..at + 2].copy_from_slice(&new.to_be_bytes());
    // A field at an odd offset from the TCP header counts with its bytes swapped.
    let (old, new) = if at.abs_diff(sum).is_multiple_of(2) {
        (old, new)
    } else {
        (old.swap_bytes(), new.swap_bytes())
    };
    let mut x = u32::from(!word(bytes, sum)) + u32::from(!old) + u32::from(new);
    x = (x & 0xffff) + (x >> 16);
    x = (x & 0xffff) + (x >> 16);
    bytes[sum..sum + 2].copy_from_slice(&(!(x as u16)).to_be_bytes());
}

/// An IPv4 packet whose sender allows it, as fragments of at most `mtu` bytes (RFC 791). None for any other packet.
pub fn fragments(bytes: &[u8], mtu: u16) -> Vec<Vec<u8>> {
    const DONT_FRAGMENT: u16 = 0x4000;
    const MORE_FRAGMENTS: u16 = 0x2000;
    const OFFSET: u16 = 0x1fff;
    let Ok(header) = Ipv4HeaderSlice::from_slice(bytes) else {
        return Vec::new();
    };
    let head = &bytes[..header.slice().len()];
    let flags = word(bytes, 6);
    let end = usize::from(header.total_len()).min(bytes.len());
    // All but the last carry a multiple of 8 bytes.
    let most = usize::from(mtu).saturating_sub(head.len()) & !7;
    if flags & DONT_FRAGMENT != 0 || most == 0 || end <= head.len() {
        return Vec::new();
    }
    let count = (end - head.len()).div_ceil(most);
    let pieces = bytes[head.len()..end].chunks(most).enumerate();
    let fragment = |(number, piece): (usize, &[u8])| {
        let mut out = [head, piece].concat();
        let more = number + 1 < count || flags & MORE_FRAGMENTS != 0;
        let offset = (flags & OFFSET) + (number * most / 8) as u16;
        let len = out.len() as u16;
        out[2..4].copy_from_slice(&len.to_be_bytes());
        let field = offset & OFFSET | if more { MORE_FRAGMENTS } else { 0 };
        out[6..8].copy_from_slice(&field.to_be_bytes());
        out[10..12].fill(0);
        let sum = checksum(&out[..head.len()]);
        out[10..12].copy_from_slice(&sum.to_be_bytes());
        out
    };
    pieces.map(fragment).collect()
}

/// The internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes.chunks(2).map(|pair| u32::from(word(pair, 0))).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
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
            let kind = bytes.get(usize::from(bytes[0] & 0x0f) * 4);
            let icmp_error = bytes[9] == 1 && !matches!(kind, Some(0 | 8));
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
        assert_eq!(answer[12..20], [10, 0, 0, 2, 10, 0, 0, 1]);
        assert_eq!((checksum(&answer[..20]), checksum(&answer[20..])), (0, 0));
        assert_eq!(answer[28..], v4[..QUOTED], "the packet itself is quoted");
        assert_eq!((answer[20], answer[21], word(&answer, 26)), (3, 4, 1400));
        let mut v6 = Vec::new();
        PacketBuilder::ipv6([1; 16], [2; 16], 9)
            .udp(1, 2)
            .write(&mut v6, &[0; 1500])
            .unwrap();
        let answer = too_big(&v6, 1400).unwrap();
        assert_eq!((answer[40], word(&answer, 46)), (2, 1400));
        let length = (answer.len() as u32 - 40).to_be_bytes();
        let pseudo = [&answer[8..40], &length, &[0, 0, 0, 58], &answer[40..]].concat();
        assert_eq!(checksum(&pseudo), 0);
        assert_eq!(answer[48..], v6[..QUOTED]);
    }

    fn udp(len: usize, dont_fragment: bool) -> Vec<u8> {
        let mut bytes = Vec::new();
        let payload: Vec<u8> = (0..len).map(|i| (i * 7) as u8).collect();
        PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 9)
            .udp(1, 2)
            .write(&mut bytes, &payload)
            .unwrap();
        bytes[4..6].copy_from_slice(&[0xab, 0xcd]);
        bytes[6] = if dont_fragment { 0x40 } else { 0 };
        bytes[10..12].fill(0);
        let sum = checksum(&bytes[..20]);
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    /// What a receiver makes of fragments.
    fn put_together(pieces: &[Vec<u8>]) -> Vec<u8> {
        let mut payload = Vec::new();
        for (number, piece) in pieces.iter().enumerate() {
            assert_eq!(checksum(&piece[..20]), 0);
            assert_eq!(usize::from(word(piece, 2)), piece.len());
            assert_eq!(usize::from(word(piece, 6) & 0x1fff) * 8, payload.len());
            let more = word(piece, 6) & 0x2000 != 0;
            assert_eq!(more, number + 1 < pieces.len());
            payload.extend_from_slice(&piece[20..]);
        }
        payload
    }

    #[test]
    fn without_df_a_packet_is_cut_into_fragments_that_fit_also_one_that_is_a_fragment() {
        let whole = udp(3_000, false);
        let pieces = fragments(&whole, 1_400);
        assert!(pieces.iter().all(|p| p.len() <= 1_400));
        assert_eq!(put_together(&pieces), whole[20..]);
        let smaller: Vec<Vec<u8>> = pieces.iter().flat_map(|p| fragments(p, 600)).collect();
        assert!(smaller.iter().all(|p| p.len() <= 600));
        assert_eq!(put_together(&smaller), whole[20..]);
        assert!(fragments(&udp(3_000, true), 1_400).is_empty());
    }

    #[test]
    fn segments_follow_a_narrow_path_that_carries_much_and_no_other() {
        let fit = |len, capacity| Fit {
            len,
            around: 60,
            capacity,
        };
        let size = |paths: &[Fit]| worthwhile(1_400, paths);
        assert_eq!(size(&[]), 1_400);
        assert_eq!(size(&[fit(1_420, 1e6), fit(1_452, 5e6)]), 1_400);
        assert_eq!(size(&[fit(1_200, 1e6)]), 1_200, "it is the only one");
        assert_eq!(size(&[fit(1_200, 5e5), fit(1_420, 1e7)]), 1_400);
        assert_eq!(size(&[fit(1_200, 1e7), fit(1_420, 1e6)]), 1_200);
        assert_eq!(size(&[fit(1_340, 2e6), fit(1_420, 1e7)]), 1_340);
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

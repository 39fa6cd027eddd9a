//! The checksum of an inner packet's TCP or UDP header: whole, or only begun.
//!
//! A kernel that hands packets to a card leaves the sum over the payload to it: in the field stands
//! no more than the sum over the pseudo-header (addresses, protocol, length). Such a **begun**
//! checksum says that the packet was made by this kernel or was checked on its way in. It travels
//! as it is, and the kernel at the far end knows what to do with it: a packet for that machine
//! itself counts as good, one that goes on through a card is completed there. So neither daemon
//! touches the payload for it. On the wire between, the datagram's own authentication protects it.
//!
//! Only what is usual can be begun: [`position`] says what that is.

/// Where the checksum of a usual packet stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The first byte that is summed up: that of the TCP or UDP header.
    pub start: usize,
    /// The field's first byte, counted from `start`.
    pub offset: usize,
}

const TCP: u8 = 6;
const UDP: u8 = 17;

/// Where the checksum stands, if the packet is of a kind whose checksum may be begun: a whole TCP
/// segment or UDP datagram behind an IPv4 header without options or an IPv6 header without
/// extensions, as long as the headers say.
pub fn position(packet: &[u8]) -> Option<Position> {
    let (start, protocol) = match packet.first()? >> 4 {
        4 if packet.len() >= 20
            && packet[0] == 0x45
            && be16(packet, 6) & 0x3fff == 0
            && usize::from(be16(packet, 2)) == packet.len() =>
        {
            (20, packet[9])
        }
        6 if packet.len() >= 40 && usize::from(be16(packet, 4)) + 40 == packet.len() => {
            (40, packet[6])
        }
        _ => return None,
    };
    let rest = &packet[start..];
    let offset = match protocol {
        TCP if rest.len() >= 20 => 16,
        UDP if rest.len() >= 8 && usize::from(be16(rest, 4)) == rest.len() => 6,
        _ => return None,
    };
    Some(Position { start, offset })
}

/// Finishes a begun checksum; a packet that cannot have one is left alone.
pub fn complete(packet: &mut [u8]) {
    if let Some(Position { start, offset }) = position(packet) {
        complete_at(packet, start, start + offset);
    }
}

/// Finishes the begun checksum at `at`, which counts from `start` on.
///
/// # Panics
/// If that is outside of the packet.
pub fn complete_at(packet: &mut [u8], start: usize, at: usize) {
    // The begun sum stands in the field itself and so is part of what is summed up.
    let sum = !fold(sum_of(&packet[start..]));
    // UDP keeps zero for "no checksum", and writes all ones instead.
    let sum = if sum == 0 { 0xffff } else { sum };
    packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

/// What stands in the field of a begun checksum, for a packet with these IP headers.
///
/// # Panics
/// If `headers` are shorter than an IP header of that version.
pub fn begun(headers: &[u8], v4: bool, protocol: u8, transport_len: u16) -> u16 {
    fold(pseudo_sum(headers, v4, protocol, transport_len))
}

/// The sum over the pseudo-header, in the byte order of [`sum_of`].
///
/// # Panics
/// If `packet` is shorter than an IP header of that version.
pub fn pseudo_sum(packet: &[u8], v4: bool, protocol: u8, transport_len: u16) -> u64 {
    let addresses = if v4 { &packet[12..20] } else { &packet[8..40] };
    let rest = u64::from(u16::from(protocol).to_be()) + u64::from(transport_len.to_be());
    sum_of(addresses) + rest
}

/// The sum of all 16-bit words, not folded yet, words in the machine's byte order: the one's
/// complement sum comes out right in any order as long as it is swapped at the end (RFC 1071).
pub fn sum_of(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let mut sum: u64 = words
        .iter()
        .map(|word| u64::from(u32::from_ne_bytes(*word)))
        .sum();
    let (pairs, rest) = rest.as_chunks::<2>();
    for pair in pairs {
        sum += u64::from(u16::from_ne_bytes(*pair));
    }
    if let [last] = rest {
        sum += u64::from(u16::from_ne_bytes([*last, 0]));
    }
    sum
}

/// Folds a sum to 16 bits, in network byte order as a number.
pub fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::from_be(sum as u16)
}

fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    fn packets() -> Vec<Vec<u8>> {
        let payload: Vec<u8> = (0..=254).collect();
        let mut all = vec![Vec::new(); 4];
        PacketBuilder::ipv4([10, 0, 0, 1], [10, 9, 8, 7], 9)
            .tcp(1, 2, 3, 4)
            .write(&mut all[0], &payload)
            .unwrap();
        PacketBuilder::ipv6([1; 16], [2; 16], 9)
            .tcp(1, 2, 3, 4)
            .write(&mut all[1], &[])
            .unwrap();
        PacketBuilder::ipv4([10, 0, 0, 1], [10, 9, 8, 7], 9)
            .udp(1, 2)
            .write(&mut all[2], &payload[..9])
            .unwrap();
        PacketBuilder::ipv6([1; 16], [2; 16], 9)
            .udp(1, 2)
            .write(&mut all[3], &payload)
            .unwrap();
        all
    }

    #[test]
    fn what_was_begun_is_completed_to_what_others_calculate() {
        for whole in packets() {
            let Position { start, offset } = position(&whole).expect("it is usual");
            let v4 = whole[0] >> 4 == 4;
            let protocol = if v4 { whole[9] } else { whole[6] };
            let mut packet = whole.clone();
            let sum = begun(&packet, v4, protocol, (whole.len() - start) as u16);
            packet[start + offset..start + offset + 2].copy_from_slice(&sum.to_be_bytes());
            assert_ne!(packet, whole);
            complete(&mut packet);
            assert_eq!(packet, whole);
        }
    }

    #[test]
    fn udp_never_says_that_it_has_no_checksum() {
        let mut packet = Vec::new();
        // The payload makes the sum come out as all ones, whose complement is zero.
        PacketBuilder::ipv4([0, 0, 0, 0], [0, 0, 0, 0], 9)
            .udp(0xffff - 17 - 20, 0)
            .write(&mut packet, &[0, 0])
            .unwrap();
        let sum = begun(&packet, true, UDP, 10);
        packet[26..28].copy_from_slice(&sum.to_be_bytes());
        complete(&mut packet);
        assert_eq!(packet[26..28], [0xff, 0xff]);
    }

    #[test]
    fn only_what_is_whole_and_usual_can_be_begun() {
        for whole in packets() {
            assert_eq!(position(&whole[..whole.len() - 1]), None);
            assert_eq!(position(&[]), None);
            let mut strange = whole.clone();
            if whole[0] >> 4 == 4 {
                strange[6] |= 0x20; // more fragments
                assert_eq!(position(&strange), None);
                strange = whole.clone();
                strange[9] = 1; // ICMP
            } else {
                strange[6] = 0; // hop-by-hop options
            }
            assert_eq!(position(&strange), None);
            complete(&mut strange);
        }
    }
}

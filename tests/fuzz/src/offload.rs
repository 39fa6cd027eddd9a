//! Super-packets: whatever the TUN hands over, splitting neither panics nor makes packets that do
//! not fit, and joining what came out and splitting it again gives the same packets.
//!
//! An input is a list of frames, each behind two bytes of length. The pieces of all of them go
//! through one joiner, so that flows meet there.

use marline_io::tun::offload::{Frame, Joiner, Sink, split};
use marline_proto::PacketBuf;
use marline_proto::buffer::CAPACITY;

/// Checks one input.
pub fn check(bytes: &[u8]) {
    let mut packets: Vec<PacketBuf> = Vec::new();
    let mut rest = bytes;
    while let Some((len, after)) = rest.split_first_chunk::<2>() {
        let len = usize::from(u16::from_be_bytes(*len)).min(after.len());
        let (frame, after) = after.split_at(len);
        rest = after;
        let mut pieces = Pieces::default();
        let taken = split(frame, &mut pieces).is_ok();
        assert_eq!(
            taken,
            !pieces.0.is_empty(),
            "a frame gives packets, or is refused as a whole"
        );
        packets.extend(pieces.0);
    }
    for packet in &packets {
        assert!(
            !packet.is_empty() && packet.len() <= CAPACITY,
            "a piece of {} bytes",
            packet.len()
        );
    }
    for udp in [false, true] {
        let mut again = Pieces::default();
        let mut take_apart = |frame: Frame<'_>| {
            let mut whole = frame.header.to_vec();
            for (k, packet) in frame.packets.iter().enumerate() {
                whole.extend_from_slice(&packet.bytes()[if k == 0 { 0 } else { frame.skip }..]);
            }
            frame.packets.clear();
            split(&whole, &mut again).expect("what we joined can be split");
        };
        let mut joiner = Joiner::new(udp);
        for packet in &packets {
            joiner.push(packet.clone(), &mut take_apart);
        }
        joiner.flush(&mut take_apart);
        // Flows may overtake each other.
        assert_eq!(
            in_order(&again.0),
            in_order(&packets),
            "joining changed a packet"
        );
    }
}

#[derive(Default)]
struct Pieces(Vec<PacketBuf>);

impl Sink for Pieces {
    fn take(&mut self) -> PacketBuf {
        PacketBuf::new()
    }

    fn give(&mut self, packet: PacketBuf) {
        self.0.push(packet);
    }
}

/// The packets with whole checksums, and without what joining may change: the number of an IPv4 packet that must not be
/// fragmented (it means nothing), and the header checksum that covers it.
fn in_order(packets: &[PacketBuf]) -> Vec<Vec<u8>> {
    let complete = |packet: &PacketBuf| {
        let mut packet = packet.clone();
        packet.complete();
        packet.bytes().to_vec()
    };
    let mut packets: Vec<Vec<u8>> = packets.iter().map(complete).collect();
    for packet in &mut packets {
        if packet.len() >= 20 && packet[0] >> 4 == 4 && packet[6] & 0x40 != 0 {
            packet[4..6].fill(0);
            packet[10..12].fill(0);
        }
    }
    packets.sort();
    packets
}

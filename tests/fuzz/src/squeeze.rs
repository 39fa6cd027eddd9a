//! Squeezed headers: what is restored from any bytes fits its buffer, and what was squeezed comes
//! out as it went in.
//!
//! An input is a packet whose header is the base, and then steps; each is an opcode byte, which also
//! says how far flow number and stamp have moved on, and a chunk. Packet and chunks stand behind two
//! bytes of length.
//!
//! | low bit | step |
//! |---|---|
//! | 0 | the chunk is a packet: it is squeezed if it can be, and restored |
//! | 1 | the chunk is what a hostile peer wrote behind the generation: it is restored |
//!
//! Both is done for a whole and for a begun checksum.

use marline_proto::PacketBuf;
use marline_proto::buffer::CAPACITY;
use marline_proto::checksum::{self, Position};
use marline_proto::frame::SQUEEZED_AT;
use marline_proto::squeeze::{Base, Head, Marks, Place, Widths};

/// Checks one input.
pub fn check(bytes: &[u8]) {
    let mut rest = bytes;
    let packet = chunk(&mut rest);
    let mut place = Place {
        number: 0x00ff_fff0,
        stamp: 0x00ff_f000,
    };
    let Some(base) = Base::of(packet, place) else {
        return;
    };
    let mut widths = Widths::default();
    while let Some((&opcode, after)) = rest.split_first() {
        rest = after;
        let steps = u32::from(opcode >> 1);
        place.number = (place.number + steps) & 0x00ff_ffff;
        place.stamp = (place.stamp + steps * 125) & 0x00ff_ffff;
        let content = chunk(&mut rest);
        let content = &content[..content.len().min(CAPACITY)];
        for begun in [false, true] {
            if opcode & 1 == 1 {
                restored(&base, place, begun, content);
                continue;
            }
            let mut content = content.to_vec();
            if begun && !begin(&mut content) {
                continue;
            }
            let marks = Marks {
                generation: 7,
                release: opcode,
                begun,
            };
            let mut head = Head::default();
            if !base.squeeze(&content, place, marks, &mut widths, &mut head) {
                continue;
            }
            // The generation is the table's.
            let mut written = head.bytes[SQUEEZED_AT + 1..head.len].to_vec();
            written.extend_from_slice(&content[head.skip..]);
            let whole =
                restored(&base, place, begun, &written).expect("what was squeezed can be restored");
            assert_eq!(whole, content, "squeezing changed a packet");
        }
    }
}

/// Makes a packet's checksum one that is only begun; false when there can be none.
fn begin(packet: &mut [u8]) -> bool {
    let Some(Position { start, offset }) = checksum::position(packet) else {
        return false;
    };
    let v4 = packet[0] >> 4 == 4;
    let protocol = if v4 { packet[9] } else { packet[6] };
    let sum = checksum::begun(packet, v4, protocol, (packet.len() - start) as u16);
    packet[start + offset..start + offset + 2].copy_from_slice(&sum.to_be_bytes());
    true
}

fn restored(base: &Base, place: Place, begun: bool, written: &[u8]) -> Option<Vec<u8>> {
    let restored = base.restore(place, begun, written).ok()?;
    let mut buf = PacketBuf::new();
    let from = SQUEEZED_AT + 1 + restored.read;
    let payload = &written[restored.read..];
    buf.frame_room()[from..from + payload.len()].copy_from_slice(payload);
    buf.set_content(restored.header(), from, from + payload.len());
    assert_eq!(buf.len(), restored.len + payload.len());
    Some(buf.bytes().to_vec())
}

fn chunk<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let Some((len, after)) = rest.split_first_chunk::<2>() else {
        return &[];
    };
    let len = usize::from(u16::from_be_bytes(*len)).min(after.len());
    let (chunk, after) = after.split_at(len);
    *rest = after;
    chunk
}

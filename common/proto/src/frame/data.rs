//! Data frames: an inner packet behind its header, whole, squeezed, or as one of two halves.
//!
//! All begin alike, up to [`COMMON_LEN`]: which flow, which number, how it is treated. Two bits of the flags, the form,
//! say how the rest is to be read. In the two whole forms the packet follows after [`HEADER_LEN`] bytes, and one of them
//! makes its header a base for later packets; the two squeezed forms go on with fields of their own
//! ([`crate::squeeze`]). A half has a type of its own, the form of the whole, and one byte between what is common and
//! its piece ([`crate::halves`]).
//!
//! On a packet's way the header is written into the room in front of a packet that lies there already, so data frames
//! have writers of their own beside [`super::encode`].

use super::{Frame, FrameError, HEADER_LEN, TYPE_DATA, TYPE_HALF};
use crate::classify::Class;
use crate::wire::Reader;

/// Bytes that data frames of every form and both halves of one begin with.
pub const COMMON_LEN: usize = 12;

/// Bytes of a squeezed data frame in front of its own fields ([`crate::squeeze`]).
pub const SQUEEZED_AT: usize = COMMON_LEN;

/// Bytes of a half in front of its piece ([`crate::halves`]).
pub const HALF_AT: usize = COMMON_LEN + 1;

const FLAG_MORE: u8 = 1 << 0;
const FLAG_DUP: u8 = 1 << 1;
const FLAG_RTX: u8 = 1 << 2;
const FLAG_ORDERED: u8 = 1 << 3;
const CLASS_SHIFT: u8 = 4;
const CLASS_BITS: u8 = 0b11 << CLASS_SHIFT;
const FORM_SHIFT: u8 = 6;
const FORM_WHOLE: u8 = 0;
const FORM_OPENS: u8 = 1;
pub(super) const FORM_SQUEEZED: u8 = 2;
/// In the whole forms' byte of marks: the packet's checksum is only begun.
const BEGUN: u8 = 1;
/// Squeezed, of a packet whose checksum is only begun. The whole forms have a byte for that.
const FORM_SQUEEZED_BEGUN: u8 = 3;

/// A packet's header becomes a base that later ones refer to ([`crate::squeeze`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Names the base within its flow slot.
    pub generation: u8,
    /// Send stamp of the packet's first copy; that of the base.
    pub stamp: u32,
}

/// The header of a data frame; the inner packet follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataHeader {
    /// More will be sent on this path within 5 ms.
    pub more: bool,
    /// A copy of a packet that also went over another path.
    pub duplicate: bool,
    /// Sent before, on this path or another.
    pub retransmitted: bool,
    /// To be delivered after everything earlier of its flow.
    pub ordered: bool,
    /// How the sender treats the flow.
    pub class: Class,
    /// The sender's flow slot.
    pub flow: u16,
    /// Number within the flow slot, low 24 bits.
    pub seq: u32,
    /// How long after the lowest delay it shall be released, in 2 ms units; 0 = as soon as in order.
    pub release: u8,
    /// Whether it opens a base.
    pub opens: Option<Opening>,
    /// The inner packet's checksum is only begun ([`crate::checksum`]).
    pub begun: bool,
}

/// One half of a data frame that did not fit its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Half<'a> {
    /// What both halves and the whole begin with; `release` and `opens` stand in the pieces.
    pub header: DataHeader,
    /// The two bits that say how the whole is to be read.
    pub form: u8,
    /// Whether it is the second.
    pub second: bool,
    /// Its piece of what follows the common header.
    pub piece: &'a [u8],
}

/// Writes a data frame's header into the 20 bytes in front of an inner packet.
pub fn write_data_header(out: &mut [u8; HEADER_LEN], h: &DataHeader, inner_len: usize, stamp: u32) {
    let form = if h.opens.is_some() {
        FORM_OPENS
    } else {
        FORM_WHOLE
    };
    write_common(out, h, form, HEADER_LEN + inner_len, stamp);
    out[12] = h.release;
    out[13..].fill(0);
    if let Some(opening) = h.opens {
        out[13] = opening.generation;
        out[14..17].copy_from_slice(&opening.stamp.to_be_bytes()[1..]);
    }
    out[17] = if h.begun { BEGUN } else { 0 };
}

/// Writes the first [`SQUEEZED_AT`] bytes of a squeezed data frame of `len` bytes.
pub fn write_squeezed_header(out: &mut [u8], h: &DataHeader, len: usize, stamp: u32) {
    let form = if h.begun {
        FORM_SQUEEZED_BEGUN
    } else {
        FORM_SQUEEZED
    };
    write_common(out, h, form, len, stamp);
}

/// Makes a frame that begins like a data frame one half of it.
pub fn mark_half(frame: &mut [u8]) {
    mark(frame, TYPE_HALF);
}

/// Makes the joined halves of a data frame one again.
pub fn mark_whole(frame: &mut [u8]) {
    mark(frame, TYPE_DATA);
}

fn mark(frame: &mut [u8], kind: u8) {
    frame[0] = 0x40 | kind;
    let len = frame.len() as u16;
    frame[2..4].copy_from_slice(&len.to_be_bytes());
}

fn write_common(out: &mut [u8], h: &DataHeader, form: u8, len: usize, stamp: u32) {
    let flags = flag(h.more, FLAG_MORE)
        | flag(h.duplicate, FLAG_DUP)
        | flag(h.retransmitted, FLAG_RTX)
        | flag(h.ordered, FLAG_ORDERED)
        | h.class.code() << CLASS_SHIFT
        | form << FORM_SHIFT;
    out[0] = 0x40 | TYPE_DATA;
    out[1] = flags;
    out[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    out[4..7].copy_from_slice(&stamp.to_be_bytes()[1..]);
    out[7..9].copy_from_slice(&h.flow.to_be_bytes());
    out[9..12].copy_from_slice(&h.seq.to_be_bytes()[1..]);
}

fn flag(on: bool, bit: u8) -> u8 {
    if on { bit } else { 0 }
}

/// Appends a whole data frame.
pub(super) fn write(h: &DataHeader, inner: &[u8], stamp: u32, out: &mut Vec<u8>) {
    let mut head = [0; HEADER_LEN];
    write_data_header(&mut head, h, inner.len(), stamp);
    out.extend_from_slice(&head);
    out.extend_from_slice(inner);
}

/// Makes `out`, which is empty, a squeezed data frame with what follows its common header.
pub(super) fn write_squeezed(h: &DataHeader, rest: &[u8], stamp: u32, out: &mut Vec<u8>) {
    out.resize(SQUEEZED_AT, 0);
    out.extend_from_slice(rest);
    let len = out.len();
    write_squeezed_header(out, h, len, stamp);
}

/// Makes `out`, which is empty, a half.
pub(super) fn write_half(half: &Half<'_>, stamp: u32, out: &mut Vec<u8>) {
    out.resize(COMMON_LEN, 0);
    out.push(u8::from(half.second));
    out.extend_from_slice(half.piece);
    write_common(
        out,
        &half.header,
        half.form,
        HALF_AT + half.piece.len(),
        stamp,
    );
    mark_half(out);
}

/// Reads a whole or squeezed data frame of which `r` has what follows the stamp.
pub(super) fn read<'a>(
    flags: u8,
    mut r: Reader<'_>,
    frame: &'a [u8],
) -> Result<Frame<'a>, FrameError> {
    let mut header = read_common(flags, &mut r)?;
    match flags >> FORM_SHIFT {
        FORM_WHOLE => {
            header.release = r.u8()?;
            r.take(4)?;
        }
        FORM_OPENS => {
            header.release = r.u8()?;
            header.opens = Some(Opening {
                generation: r.u8()?,
                stamp: r.u24()?,
            });
        }
        form => {
            header.begun = form == FORM_SQUEEZED_BEGUN;
            return Ok(Frame::Squeezed(header, &frame[SQUEEZED_AT..]));
        }
    }
    header.begun = r.u8()? & BEGUN != 0;
    Ok(Frame::Data(header, &frame[HEADER_LEN..]))
}

/// Reads a half of which `r` has what follows the stamp.
pub(super) fn read_half<'a>(
    flags: u8,
    mut r: Reader<'_>,
    frame: &'a [u8],
) -> Result<Half<'a>, FrameError> {
    let header = read_common(flags, &mut r)?;
    let second = match r.u8()? {
        0 => false,
        1 => true,
        _ => return Err(FrameError::Invalid),
    };
    Ok(Half {
        header,
        form: flags >> FORM_SHIFT,
        second,
        piece: &frame[HALF_AT..],
    })
}

/// What data frames of every form begin with, behind the stamp.
fn read_common(flags: u8, r: &mut Reader<'_>) -> Result<DataHeader, FrameError> {
    Ok(DataHeader {
        more: flags & FLAG_MORE != 0,
        duplicate: flags & FLAG_DUP != 0,
        retransmitted: flags & FLAG_RTX != 0,
        ordered: flags & FLAG_ORDERED != 0,
        class: Class::from_code((flags & CLASS_BITS) >> CLASS_SHIFT),
        flow: r.u16()?,
        seq: r.u24()?,
        release: 0,
        opens: None,
        begun: false,
    })
}

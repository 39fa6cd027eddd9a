//! Frames: our header and its content, before sealing. `docs/protocol.md` has
//! the same byte by byte.
//!
//! boringtun opens only what looks like an IP packet and cuts it to the IP total
//! length. A frame therefore begins like an IPv4 header whose header length
//! field is below 5, which no real header can have: so on one session a frame
//! and a stock WireGuard client's packet are told apart by the first byte.
//!
//! ```text
//!  0        1        2        3        4        5        6        7
//! +--------+--------+--------+--------+--------+--------+--------+----
//! |0x40|typ| flags  |  total length   |   send stamp, 8 µs units |  ...
//! +--------+--------+--------+--------+--------+--------+--------+----
//! ```
//!
//! Every frame carries its send stamp: whatever arrives on a path proves that
//! all that was sent earlier on it has arrived or is lost.
//!
//! This file knows what all frames begin with and which types there are; what
//! follows is the business of each type: [`data`], [`ack`], [`control`] and
//! [`probe`] hold its values beside how they are written and read.

mod ack;
mod control;
mod data;
mod probe;

use thiserror::Error;

pub use ack::{Ack, MAX_ACK_PATHS, MAX_RANGES, PathAck};
pub use control::{
    CAN_COMPLETE, CAN_JOIN, CAN_RESTORE, CloseReason, Control, Hello, MAX_SKIPS, VERSION,
};
pub use data::{
    COMMON_LEN, DataHeader, HALF_AT, Half, Opening, SQUEEZED_AT, mark_half, mark_whole,
    write_data_header, write_squeezed_header,
};
pub use probe::Probe;

use crate::wire::{Reader, Truncated, Writer};

/// Bytes of a data frame in front of the inner packet; also the shortest frame.
pub const HEADER_LEN: usize = 20;

const TYPE_DATA: u8 = 0;
const TYPE_ACK: u8 = 1;
const TYPE_CONTROL: u8 = 2;
const TYPE_PROBE: u8 = 3;
const TYPE_HALF: u8 = 4;

/// Why bytes are not a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// Too short for what it claims to be.
    #[error("the frame is shorter than its fields")]
    Truncated,
    /// A type or kind that this version does not know.
    #[error("the frame is of an unknown type")]
    Unknown,
    /// A field has a value that it must not have.
    #[error("a field of the frame has an impossible value")]
    Invalid,
}

impl From<Truncated> for FrameError {
    fn from(_: Truncated) -> Self {
        FrameError::Truncated
    }
}

/// A decoded frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// An inner packet.
    Data(DataHeader, &'a [u8]),
    /// An inner packet whose header is squeezed; `release` stands in there.
    Squeezed(DataHeader, &'a [u8]),
    /// Half of either.
    Half(Half<'a>),
    /// Acknowledgements.
    Ack(Ack),
    /// Steering.
    Control(Control),
    /// Measuring.
    Probe(Probe),
}

impl Frame<'_> {
    /// Whether the receiver acknowledges it. An ack is not, or acks would never end.
    pub fn is_ack_eliciting(&self) -> bool {
        !matches!(self, Frame::Ack(_))
    }
}

/// Whether an opened message is one of our frames rather than a real IP packet.
pub fn is_frame(opened: &[u8]) -> bool {
    opened.first().is_some_and(|b| b >> 4 == 4 && b & 0x0f < 5)
}

/// Encodes a frame. The result is at least [`HEADER_LEN`] bytes, as boringtun asks. On a packet's way data frames are
/// not copied but get their header in place ([`write_data_header`]).
pub fn encode(frame: &Frame<'_>, stamp: u32, out: &mut Vec<u8>) {
    out.clear();
    match frame {
        Frame::Data(header, inner) => return data::write(header, inner, stamp, out),
        Frame::Squeezed(header, rest) => return data::write_squeezed(header, rest, stamp, out),
        Frame::Half(half) => return data::write_half(half, stamp, out),
        Frame::Ack(ack) => {
            begin(out, TYPE_ACK, stamp);
            ack::write(ack, out);
        }
        Frame::Control(control) => {
            begin(out, TYPE_CONTROL, stamp);
            control::write(control, out);
        }
        Frame::Probe(probe) => {
            begin(out, TYPE_PROBE, stamp);
            probe::write(*probe, out);
        }
    }
    if out.len() < HEADER_LEN {
        out.resize(HEADER_LEN, 0);
    }
    let len = out.len() as u16;
    out[2..4].copy_from_slice(&len.to_be_bytes());
}

fn begin(out: &mut Vec<u8>, kind: u8, stamp: u32) {
    Writer::new(out).u8(0x40 | kind).u8(0).u16(0).u24(stamp);
}

/// Takes a frame apart. Returns it with its send stamp.
///
/// # Errors
/// When the bytes are not a frame of this version; the caller counts and drops.
pub fn decode(bytes: &[u8]) -> Result<(u32, Frame<'_>), FrameError> {
    let mut r = Reader::new(bytes);
    let first = r.u8()?;
    let flags = r.u8()?;
    let len = usize::from(r.u16()?);
    let stamp = r.u24()?;
    if first >> 4 != 4 || len > bytes.len() || len < HEADER_LEN {
        return Err(FrameError::Invalid);
    }
    let frame = match first & 0x0f {
        TYPE_DATA => data::read(flags, r, &bytes[..len])?,
        TYPE_ACK => Frame::Ack(ack::read(r)?),
        TYPE_CONTROL => Frame::Control(control::read(r)?),
        TYPE_PROBE => Frame::Probe(probe::read(r, len)?),
        TYPE_HALF => Frame::Half(data::read_half(flags, r, &bytes[..len])?),
        _ => return Err(FrameError::Unknown),
    };
    Ok((stamp, frame))
}

#[cfg(test)]
mod tests;

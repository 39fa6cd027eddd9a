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

use thiserror::Error;

use crate::classify::Class;
use crate::config::{Mode, Modes, Role};
use crate::wire::{Reader, Truncated, Writer};

/// Bytes of a data frame in front of the inner packet; also the shortest frame.
pub const HEADER_LEN: usize = 20;

/// Bytes that data frames of every form and both halves of one begin with.
pub const COMMON_LEN: usize = 12;

/// Bytes of a squeezed data frame in front of its own fields ([`crate::squeeze`]).
pub const SQUEEZED_AT: usize = COMMON_LEN;

/// Bytes of a half in front of its piece ([`crate::halves`]).
pub const HALF_AT: usize = COMMON_LEN + 1;

/// The protocol version that HELLO carries.
pub const VERSION: u8 = 1;

const TYPE_DATA: u8 = 0;
const TYPE_ACK: u8 = 1;
const TYPE_CONTROL: u8 = 2;
const TYPE_PROBE: u8 = 3;
const TYPE_HALF: u8 = 4;

const FLAG_MORE: u8 = 1 << 0;
const FLAG_DUP: u8 = 1 << 1;
const FLAG_RTX: u8 = 1 << 2;
const FLAG_ORDERED: u8 = 1 << 3;
const CLASS_SHIFT: u8 = 4;
const CLASS_BITS: u8 = 0b11 << CLASS_SHIFT;
const FORM_SHIFT: u8 = 6;
const FORM_WHOLE: u8 = 0;
const FORM_OPENS: u8 = 1;
const FORM_SQUEEZED: u8 = 2;
/// In the whole forms' byte of marks: the packet's checksum is only begun.
const BEGUN: u8 = 1;
/// Squeezed, of a packet whose checksum is only begun. The whole forms have a byte for that.
const FORM_SQUEEZED_BEGUN: u8 = 3;

/// Capability: headers may travel squeezed ([`crate::squeeze`]).
pub const CAN_RESTORE: u32 = 1 << 0;
/// Capability: packets may come in halves ([`crate::halves`]), and probes of a size are acknowledged.
pub const CAN_JOIN: u32 = 1 << 1;
/// Capability: checksums may travel only begun ([`crate::checksum`]).
pub const CAN_COMPLETE: u32 = 1 << 2;

/// Received runs that one path's entry in an ack can carry.
pub const MAX_RANGES: usize = 32;
/// Path entries that one ack can carry.
pub const MAX_ACK_PATHS: usize = 16;
/// Flows that one SKIP can name.
pub const MAX_SKIPS: usize = 64;

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

/// What one path's receiver has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathAck {
    /// The path.
    pub path: u8,
    /// Which session of the path: low byte of the receiver index on the wire.
    pub epoch: u8,
    /// Highest counter received, low 32 bits.
    pub largest: u32,
    /// How long ago the highest arrived, in 16 µs units, saturating.
    pub largest_age: u16,
    /// Arrival stamp minus send stamp of the highest (clocks are not synchronised).
    pub largest_delay: u32,
    /// The lowest such difference since the last ack.
    pub min_delay: u32,
    /// Datagram bytes received on the path since the bond began, mod 2³².
    pub bytes: u32,
    /// Receiver's clock at the last arrival, µs, mod 2³².
    pub last_arrival_us: u32,
    /// Runs received, newest first: `(gap, run)`; the first gap is zero and its run ends at `largest`.
    pub ranges: Vec<(u16, u16)>,
}

/// State of all paths that changed since the last ack.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ack {
    /// Counts acks, so that an overtaken one is recognised.
    pub seq: u16,
    /// One entry per path session.
    pub paths: Vec<PathAck>,
}

/// The first thing said on a new session, by the client; answered by the server with its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Protocol version.
    pub version: u8,
    /// Names the sender's process; another value means it forgot everything.
    pub boot: u64,
    /// The other side's boot, as last heard; zero when unknown.
    pub peer_boot: u64,
    /// The path's tag.
    pub path: u8,
    /// Capabilities of the sender: [`CAN_RESTORE`], [`CAN_JOIN`], [`CAN_COMPLETE`]; others are ignored.
    pub capabilities: u32,
    /// Largest inner packet the sender takes.
    pub mtu: u16,
    /// What the operator allows for the path.
    pub role: Role,
    /// How paths shall be used, by class.
    pub modes: Modes,
}

/// Why a side said goodbye.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// It stops.
    Stopped,
    /// It does not speak the other's protocol version.
    Version,
    /// The peer was removed.
    Removed,
}

/// Rare messages that steer a bond.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// First message on a session.
    Hello(Hello),
    /// The answer.
    HelloAck(Hello),
    /// "Prove that you receive at this address."
    PathChallenge([u8; 8]),
    /// The proof.
    PathResponse([u8; 8]),
    /// "Nothing arrives from you on this path any more, though you said more would."
    Silent {
        /// The path.
        path: u8,
        /// Highest counter that did arrive on its present session, low 32 bits.
        largest: u32,
    },
    /// "These will never come": flow slot and number of each packet.
    Skip(Vec<(u16, u32)>),
    /// "I lack the base that you refer to."
    Forgotten {
        /// The sender's flow slot.
        flow: u16,
        /// The base's generation.
        generation: u8,
    },
    /// Goodbye.
    Close(CloseReason),
}

/// Messages that measure a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Asks for a pong on the same path.
    Ping {
        /// Returned in the pong.
        id: u32,
    },
    /// The answer.
    Pong {
        /// The ping's number.
        id: u32,
    },
    /// Carries only its stamp: "nothing more is on its way on this path".
    Tick,
    /// Nothing but its size: whether the path carries that.
    Size {
        /// Bytes of the frame.
        len: u16,
    },
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

/// Encodes anything but data. The result is at least [`HEADER_LEN`] bytes, as boringtun asks.
pub fn encode(frame: &Frame<'_>, stamp: u32, out: &mut Vec<u8>) {
    out.clear();
    match frame {
        Frame::Data(header, inner) => {
            let mut head = [0; HEADER_LEN];
            write_data_header(&mut head, header, inner.len(), stamp);
            out.extend_from_slice(&head);
            out.extend_from_slice(inner);
            return;
        }
        Frame::Squeezed(header, rest) => {
            out.resize(SQUEEZED_AT, 0);
            out.extend_from_slice(rest);
            let len = out.len();
            write_squeezed_header(out, header, len, stamp);
            return;
        }
        Frame::Half(half) => {
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
            return mark_half(out);
        }
        Frame::Ack(ack) => {
            begin(out, TYPE_ACK, stamp);
            write_ack(ack, out);
        }
        Frame::Control(control) => {
            begin(out, TYPE_CONTROL, stamp);
            write_control(control, out);
        }
        Frame::Probe(probe) => {
            begin(out, TYPE_PROBE, stamp);
            let (kind, id) = match *probe {
                Probe::Ping { id } => (1, id),
                Probe::Pong { id } => (2, id),
                Probe::Tick => (3, 0),
                Probe::Size { .. } => (4, 0),
            };
            Writer::new(out).u8(kind).u32(id);
            if let Probe::Size { len } = *probe {
                out.resize(out.len().max(usize::from(len)), 0);
            }
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

fn write_ack(ack: &Ack, out: &mut Vec<u8>) {
    let mut w = Writer::new(out);
    w.u16(ack.seq).u8(ack.paths.len() as u8);
    for p in &ack.paths {
        w.u8(p.path).u8(p.epoch).u32(p.largest).u16(p.largest_age);
        w.u24(p.largest_delay)
            .u24(p.min_delay)
            .u32(p.bytes)
            .u32(p.last_arrival_us);
        w.u8(p.ranges.len() as u8);
        for &(gap, run) in &p.ranges {
            w.u16(gap).u16(run);
        }
    }
}

fn write_control(control: &Control, out: &mut Vec<u8>) {
    let mut w = Writer::new(out);
    match control {
        Control::Hello(h) => write_hello(w.u8(1), h),
        Control::HelloAck(h) => write_hello(w.u8(2), h),
        Control::PathChallenge(bytes) => {
            w.u8(3).bytes(bytes);
        }
        Control::PathResponse(bytes) => {
            w.u8(4).bytes(bytes);
        }
        Control::Silent { path, largest } => {
            w.u8(5).u8(*path).u32(*largest);
        }
        Control::Skip(skips) => {
            w.u8(6).u8(skips.len() as u8);
            for &(flow, seq) in skips {
                w.u16(flow).u24(seq);
            }
        }
        Control::Forgotten { flow, generation } => {
            w.u8(8).u16(*flow).u8(*generation);
        }
        Control::Close(reason) => {
            w.u8(7).u8(match reason {
                CloseReason::Stopped => 0,
                CloseReason::Version => 1,
                CloseReason::Removed => 2,
            });
        }
    }
}

fn write_hello(w: &mut Writer<'_>, h: &Hello) {
    w.u8(h.version)
        .u64(h.boot)
        .u64(h.peer_boot)
        .u8(h.path)
        .u32(h.capabilities)
        .u16(h.mtu);
    w.u8(match h.role {
        Role::Always => 0,
        Role::Secondary => 1,
        Role::Backup => 2,
        Role::Never => 3,
    });
    let Modes {
        realtime,
        interactive,
        bulk,
    } = h.modes;
    let code = |mode: Mode| Mode::ALL.iter().position(|&m| m == mode).unwrap_or(0) as u8;
    w.u8(code(realtime) | code(interactive) << 2 | code(bulk) << 4);
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
        TYPE_DATA => {
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
                    return Ok((stamp, Frame::Squeezed(header, &bytes[SQUEEZED_AT..len])));
                }
            }
            header.begun = r.u8()? & BEGUN != 0;
            Frame::Data(header, &bytes[HEADER_LEN..len])
        }
        TYPE_ACK => Frame::Ack(read_ack(r)?),
        TYPE_CONTROL => Frame::Control(read_control(r)?),
        TYPE_PROBE => Frame::Probe(match (r.u8()?, r.u32()?) {
            (1, id) => Probe::Ping { id },
            (2, id) => Probe::Pong { id },
            (3, _) => Probe::Tick,
            (4, _) => Probe::Size { len: len as u16 },
            _ => return Err(FrameError::Unknown),
        }),
        TYPE_HALF => {
            let header = read_common(flags, &mut r)?;
            let form = flags >> FORM_SHIFT;
            let second = match r.u8()? {
                0 => false,
                1 => true,
                _ => return Err(FrameError::Invalid),
            };
            Frame::Half(Half {
                header,
                form,
                second,
                piece: &bytes[HALF_AT..len],
            })
        }
        _ => return Err(FrameError::Unknown),
    };
    Ok((stamp, frame))
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

fn read_ack(mut r: Reader<'_>) -> Result<Ack, FrameError> {
    let seq = r.u16()?;
    let n = usize::from(r.u8()?);
    if n > MAX_ACK_PATHS {
        return Err(FrameError::Invalid);
    }
    let mut paths = Vec::with_capacity(n);
    for _ in 0..n {
        let mut p = PathAck {
            path: r.u8()?,
            epoch: r.u8()?,
            largest: r.u32()?,
            largest_age: r.u16()?,
            largest_delay: r.u24()?,
            min_delay: r.u24()?,
            bytes: r.u32()?,
            last_arrival_us: r.u32()?,
            ranges: Vec::new(),
        };
        let runs = usize::from(r.u8()?);
        if runs == 0 || runs > MAX_RANGES {
            return Err(FrameError::Invalid);
        }
        for _ in 0..runs {
            p.ranges.push((r.u16()?, r.u16()?));
        }
        paths.push(p);
    }
    Ok(Ack { seq, paths })
}

fn read_control(mut r: Reader<'_>) -> Result<Control, FrameError> {
    Ok(match r.u8()? {
        1 => Control::Hello(read_hello(r)?),
        2 => Control::HelloAck(read_hello(r)?),
        3 => Control::PathChallenge(r.u64()?.to_be_bytes()),
        4 => Control::PathResponse(r.u64()?.to_be_bytes()),
        5 => Control::Silent {
            path: r.u8()?,
            largest: r.u32()?,
        },
        6 => {
            let n = usize::from(r.u8()?);
            if n > MAX_SKIPS {
                return Err(FrameError::Invalid);
            }
            let mut skips = Vec::with_capacity(n);
            for _ in 0..n {
                skips.push((r.u16()?, r.u24()?));
            }
            Control::Skip(skips)
        }
        8 => Control::Forgotten {
            flow: r.u16()?,
            generation: r.u8()?,
        },
        7 => Control::Close(match r.u8()? {
            0 => CloseReason::Stopped,
            1 => CloseReason::Version,
            2 => CloseReason::Removed,
            _ => return Err(FrameError::Invalid),
        }),
        _ => return Err(FrameError::Unknown),
    })
}

fn read_hello(mut r: Reader<'_>) -> Result<Hello, FrameError> {
    Ok(Hello {
        version: r.u8()?,
        boot: r.u64()?,
        peer_boot: r.u64()?,
        path: r.u8()?,
        capabilities: r.u32()?,
        mtu: r.u16()?,
        role: match r.u8()? {
            0 => Role::Always,
            1 => Role::Secondary,
            2 => Role::Backup,
            3 => Role::Never,
            _ => return Err(FrameError::Invalid),
        },
        modes: match r.u8()? {
            codes @ 0..64 => {
                let mode = |shift: u8| Mode::ALL[usize::from(codes >> shift & 3)];
                Modes {
                    realtime: mode(0),
                    interactive: mode(2),
                    bulk: mode(4),
                }
            }
            _ => return Err(FrameError::Invalid),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        Hello {
            version: VERSION,
            boot: 0x0102_0304_0506_0708,
            peer_boot: 9,
            path: 3,
            capabilities: 0,
            mtu: 1420,
            role: Role::Backup,
            modes: Modes {
                realtime: Mode::Redundant,
                interactive: Mode::Interactive,
                bulk: Mode::Handover,
            },
        }
    }

    fn samples() -> Vec<Frame<'static>> {
        let path_ack = PathAck {
            path: 1,
            epoch: 2,
            largest: 77,
            largest_age: 5,
            largest_delay: 0x00ab_cdef,
            min_delay: 7,
            bytes: u32::MAX,
            last_arrival_us: 12,
            ranges: vec![(0, 3), (1, 40)],
        };
        let header = DataHeader {
            more: true,
            duplicate: false,
            retransmitted: true,
            ordered: true,
            class: Class::Interactive,
            flow: 0xbeef,
            seq: 0x00fe_dcba,
            release: 9,
            opens: None,
            begun: false,
        };
        let opens = DataHeader {
            opens: Some(Opening {
                generation: 200,
                stamp: 0x00ab_cdef,
            }),
            ..header
        };
        let squeezed = DataHeader {
            release: 0,
            ..header
        };
        vec![
            Frame::Data(header, b"inner"),
            Frame::Data(opens, b"inner"),
            Frame::Squeezed(squeezed, b"eight or more"),
            Frame::Data(
                DataHeader {
                    begun: true,
                    ..opens
                },
                b"inner",
            ),
            Frame::Squeezed(
                DataHeader {
                    begun: true,
                    ..squeezed
                },
                b"eight or more",
            ),
            Frame::Ack(Ack {
                seq: 4,
                paths: vec![path_ack.clone(), path_ack],
            }),
            Frame::Control(Control::Hello(hello())),
            Frame::Control(Control::HelloAck(hello())),
            Frame::Control(Control::PathChallenge(*b"12345678")),
            Frame::Control(Control::PathResponse(*b"abcdefgh")),
            Frame::Control(Control::Silent {
                path: 2,
                largest: 99,
            }),
            Frame::Control(Control::Skip(vec![(1, 2), (3, 0x00ff_ffff)])),
            Frame::Control(Control::Forgotten {
                flow: 0x0102,
                generation: 255,
            }),
            Frame::Control(Control::Close(CloseReason::Removed)),
            Frame::Probe(Probe::Ping { id: 8 }),
            Frame::Probe(Probe::Pong { id: 8 }),
            Frame::Probe(Probe::Tick),
            Frame::Probe(Probe::Size { len: 1_420 }),
            Frame::Half(Half {
                header: squeezed,
                form: FORM_SQUEEZED,
                second: true,
                piece: b"seven or more",
            }),
        ]
    }

    #[test]
    fn every_frame_survives_the_wire_with_its_stamp() {
        for frame in samples() {
            let mut out = Vec::new();
            encode(&frame, 0x0012_3456, &mut out);
            assert!(is_frame(&out), "{frame:?}");
            assert_eq!(decode(&out), Ok((0x0012_3456, frame)));
        }
    }

    #[test]
    fn a_cut_frame_is_refused_at_every_length() {
        for frame in samples() {
            let mut out = Vec::new();
            encode(&frame, 1, &mut out);
            for len in 0..out.len() {
                assert!(decode(&out[..len]).is_err(), "{frame:?} cut to {len}");
            }
        }
    }

    #[test]
    fn a_real_ip_header_is_never_taken_for_a_frame() {
        for ihl in 5..16 {
            assert!(!is_frame(&[0x40 | ihl; 40]));
        }
        assert!(!is_frame(&[0x60; 40]));
        assert!(!is_frame(&[]));
    }

    /// The layout as `docs/protocol.md` gives it.
    #[test]
    fn a_data_header_has_the_documented_bytes() {
        let header = DataHeader {
            more: true,
            duplicate: false,
            retransmitted: false,
            ordered: true,
            class: Class::Bulk,
            flow: 0x0102,
            seq: 0x0003_0405,
            release: 6,
            opens: None,
            begun: false,
        };
        let mut out = Vec::new();
        encode(&Frame::Data(header, &[0xee]), 0x000a_0b0c, &mut out);
        let expected = [
            0x40, 0x29, 0, 21, 0x0a, 0x0b, 0x0c, 1, 2, 3, 4, 5, 6, 0, 0, 0, 0, 0, 0, 0, 0xee,
        ];
        assert_eq!(out, expected);
        let begun = DataHeader {
            begun: true,
            ..header
        };
        encode(&Frame::Data(begun, &[0xee]), 0x000a_0b0c, &mut out);
        assert_eq!(out[17], 1);
        out[17] = 0;
        assert_eq!(out, expected);
    }

    /// The layout as `docs/protocol.md` gives it.
    #[test]
    fn a_probe_of_a_size_has_the_documented_bytes() {
        let mut out = Vec::new();
        encode(
            &Frame::Probe(Probe::Size { len: 24 }),
            0x000a_0b0c,
            &mut out,
        );
        let expected = [0x43, 0, 0, 24, 0x0a, 0x0b, 0x0c, 4];
        assert_eq!(out[..8], expected);
        assert_eq!(out[8..], [0; 16]);
    }

    #[test]
    fn a_half_that_is_neither_the_first_nor_the_second_is_refused() {
        let half = |which: u8, flags: u8| {
            let mut bytes = [0; 30];
            (bytes[0], bytes[1], bytes[3], bytes[12]) = (0x44, flags, 30, which);
            decode(&bytes).map(|_| ())
        };
        assert_eq!(half(1, 0), Ok(()));
        assert_eq!(half(2, 0), Err(FrameError::Invalid));
        assert_eq!(half(0, 0xc0), Ok(()), "squeezed, with a begun checksum");
    }
}

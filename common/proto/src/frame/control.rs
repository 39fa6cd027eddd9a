//! Control frames: the rare messages that steer a bond.
//!
//! HELLO and its answer say who speaks, what it is capable of and how the path shall be used. The others tell what no
//! data tells: that an address receives, that nothing arrives on a path, that a packet will never come, that a base is
//! not known, that it is over.

use super::FrameError;
use crate::config::{Mode, Modes, Role};
use crate::wire::{Reader, Writer};

/// The protocol version that HELLO carries.
pub const VERSION: u8 = 1;

/// Capability: headers may travel squeezed ([`crate::squeeze`]).
pub const CAN_RESTORE: u32 = 1 << 0;
/// Capability: packets may come in halves ([`crate::halves`]), and probes of a size are acknowledged.
pub const CAN_JOIN: u32 = 1 << 1;
/// Capability: checksums may travel only begun ([`crate::checksum`]).
pub const CAN_COMPLETE: u32 = 1 << 2;

/// Flows that one SKIP can name.
pub const MAX_SKIPS: usize = 64;

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

/// Appends what follows the stamp.
pub(super) fn write(control: &Control, out: &mut Vec<u8>) {
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

/// Reads what follows the stamp.
pub(super) fn read(mut r: Reader<'_>) -> Result<Control, FrameError> {
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

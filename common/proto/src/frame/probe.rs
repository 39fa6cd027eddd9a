//! Probes: messages that measure a path, by their answer, their stamp or their size.

use super::FrameError;
use crate::wire::{Reader, Writer};

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

/// Appends what follows the stamp.
pub(super) fn write(probe: Probe, out: &mut Vec<u8>) {
    let (kind, id) = match probe {
        Probe::Ping { id } => (1, id),
        Probe::Pong { id } => (2, id),
        Probe::Tick => (3, 0),
        Probe::Size { .. } => (4, 0),
    };
    Writer::new(out).u8(kind).u32(id);
    if let Probe::Size { len } = probe {
        out.resize(out.len().max(usize::from(len)), 0);
    }
}

/// Reads what follows the stamp of a frame of `len` bytes.
pub(super) fn read(mut r: Reader<'_>, len: usize) -> Result<Probe, FrameError> {
    Ok(match (r.u8()?, r.u32()?) {
        (1, id) => Probe::Ping { id },
        (2, id) => Probe::Pong { id },
        (3, _) => Probe::Tick,
        (4, _) => Probe::Size { len: len as u16 },
        _ => return Err(FrameError::Unknown),
    })
}

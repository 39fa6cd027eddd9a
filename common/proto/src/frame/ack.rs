//! Acknowledgements: what the receiver of each path has seen.
//!
//! One ack reports every path on which something new arrived. Each path's entry names the highest counter with its age
//! and delays, and the runs that were received up to it, newest first. Acks name numbers, so they may be lost, overtaken
//! or repeated without harm.

use super::FrameError;
use crate::wire::{Reader, Writer};

/// Received runs that one path's entry in an ack can carry.
pub const MAX_RANGES: usize = 32;
/// Path entries that one ack can carry.
pub const MAX_ACK_PATHS: usize = 16;

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

/// Appends what follows the stamp.
pub(super) fn write(ack: &Ack, out: &mut Vec<u8>) {
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

/// Reads what follows the stamp.
pub(super) fn read(mut r: Reader<'_>) -> Result<Ack, FrameError> {
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

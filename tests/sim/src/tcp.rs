//! A model of TCP as Linux speaks it, with segments in place of bytes.
//!
//! It is close where the bond can help or hurt: selective acknowledgements, RACK
//! loss detection that begins with a threshold of three and tolerates reordering
//! once it has seen some, proportional rate reduction, undo of a reduction that
//! turns out to be needless, tail loss probes, a retransmission timeout of at
//! least 200 ms, delayed acknowledgements, CUBIC with HyStart, Reno, a simple
//! BBR, and two that heed congestion marks. The receiver grants the same window all the time, which may be lowered on its
//! way. It leaves out what does not matter here: byte counts within a segment, Nagle, keepalives.

mod congestion;
mod marks;
mod receiver;
mod sender;

pub use congestion::Algorithm;
pub use receiver::Receiver;
pub use sender::Sender;

use crate::link::Nanos;

/// Receive window and send buffer: what Linux grows to by default, in bytes.
pub const WINDOW_BYTES: u64 = 3 << 20;

/// An acknowledgement. Numbers count segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// Everything below has arrived.
    pub cumulative: u64,
    /// Up to three ranges above it that have arrived, latest news first.
    pub selective: Vec<(u64, u64)>,
    /// A segment that came a second time.
    pub duplicate: Option<u64>,
    /// When the segment that caused this acknowledgement was sent.
    pub echo: Nanos,
    /// Segments that came with a congestion mark so far.
    pub marked: u64,
}

//! What the core hands to the driver to be sent.

use std::net::{IpAddr, SocketAddr};

use crate::event::SocketId;

/// A run of datagrams for one destination, sealed into the driver's buffer.
///
/// All have `segment_len` bytes but the last, which may be shorter, so that the
/// kernel can cut the run apart (UDP GSO).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// The socket to send from.
    pub socket: SocketId,
    /// Where to.
    pub remote: SocketAddr,
    /// The local address to send from, where it matters (multi-homed server).
    pub local: Option<IpAddr>,
    /// Bytes of the buffer that belong to this run.
    pub len: usize,
    /// Bytes per datagram.
    pub segment_len: usize,
}

/// Where a datagram came from and where it arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The socket it arrived on.
    pub socket: SocketId,
    /// Who sent it.
    pub remote: SocketAddr,
    /// The local address it was sent to, where the driver knows it.
    pub local: Option<IpAddr>,
}

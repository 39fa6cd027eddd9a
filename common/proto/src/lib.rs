//! The pure core of Marline: it is given packets, datagrams, commands and the
//! time, and answers what to do. It opens no socket, reads no clock and draws no
//! randomness of its own, so a simulator can drive whole bonds in virtual time
//! and a daemon can drive the same code on real sockets.
//!
//! # The packet's way
//!
//! ```text
//! out   handle_packet ─► packet ─► flow (classify) ─► queue            (waits here)
//!       poll_transmit ─► schedule ─► queue ─► store ─► frame ─► session ─► Transmit
//!
//! in    handle_datagram ─► session ─► path (received) ─► frame ─┬─ data    ─► reorder
//!                                                               ├─ ack     ─► path (sent, rtt, rate)
//!                                                               └─ control ─► health, greet
//!       poll_packet ─► TUN
//!
//! time  handle_timeout ◄─ poll_timeout          news  poll_event, handle_command
//! ```
//!
//! Two calls out, on purpose: `handle_packet` only sorts and queues;
//! `poll_transmit` decides. A packet is tied to a path as late as possible, when
//! that path has room, so there is one place where packets wait and one place
//! where they are dropped.
//!
//! The contract for callers is on [`Endpoint`].

#![deny(clippy::disallowed_methods, clippy::iter_over_hash_type)]

mod bond;
pub mod buffer;
pub mod checksum;
pub mod classify;
pub mod codel;
pub mod config;
pub mod congestion;
mod endpoint;
mod event;
pub mod flow;
pub mod frame;
pub mod halves;
mod lead;
pub mod limits;
pub mod mss;
pub mod packet;
mod path;
pub mod queue;
mod reach;
mod release;
pub mod reorder;
pub mod schedule;
pub mod session;
pub mod span;
pub mod squeeze;
mod stamp;
mod stats;
mod store;
mod tiers;
mod time;
mod transmit;
mod window;
mod wire;

pub use buffer::{PacketBuf, Pool};
pub use classify::Class;
pub use config::{ClientConfig, Key, Mode, Modes, PeerConfig, Role, ServerConfig};
pub use congestion::RateReason;
pub use endpoint::{Endpoint, Handover, WakeReason};
pub use event::{Command, Event, PathReason, SocketId};
pub use schedule::Rank;
pub use session::public_key;
pub use stats::{
    BondSnapshot, CopyReason, Detail, Direction, FlowReason, FlowSnapshot, FlowWay, PathSnapshot,
    PathState, Snapshot,
};
pub use time::Time;
pub use transmit::{Arrival, Transmit};

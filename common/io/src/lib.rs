//! What both daemons need from the machine: a TUN device, UDP sockets bound to
//! uplinks, netlink, a control socket, files, a clock; and the one loop that
//! drives the pure core with them.
//!
//! Nothing here decides anything about paths or packets: that is
//! `marline-proto`'s work. Nothing here knows whether it serves a client or a
//! server either.
//!
//! Linux does everything. Elsewhere the same modules compile and answer with a
//! [`failure::Failure`] that says what is not supported yet.

pub mod answer;
pub mod clock;
pub mod config_file;
pub mod control;
pub mod driver;
pub mod explain;
pub mod failure;
pub mod join_code;
pub mod key;
pub mod log;
pub mod netlink;
pub mod signal;
pub mod state_file;
pub mod tun;
pub mod udp;

#[cfg(all(test, target_os = "linux"))]
mod netns;

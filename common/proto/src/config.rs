//! Settings of the core, as types that cannot be wrong. No file format lives here.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// A Curve25519 key, secret or public, as 32 raw bytes.
pub type Key = [u8; 32];

/// How a client's bond uses its paths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The sum of the links for bulk, the lowest latency for the rest.
    #[default]
    Aggregate,
    /// A second uplink only when the first is bad or gone.
    Handover,
    /// The lowest latency; small flows are sent twice.
    Interactive,
    /// Everything on two paths.
    Redundant,
}

/// What the operator allows an uplink to be used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Used whenever it helps.
    #[default]
    Always,
    /// Used for what the `always` uplinks cannot carry.
    Secondary,
    /// Used only while no other works.
    Backup,
    /// Not used.
    Never,
}

/// What both ends of a bond need to know of themselves.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The client's secret key.
    pub secret: Key,
    /// The server's public key.
    pub server: Key,
    /// The mode to start in.
    pub mode: Mode,
    /// Largest inner packet, in bytes, that is ever put on the wire.
    pub mtu: u16,
}

/// What a server needs to know of itself.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// The server's secret key.
    pub secret: Key,
    /// Largest inner packet, in bytes, that is ever put on the wire.
    pub mtu: u16,
}

/// What a server knows of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// The client's public key.
    pub public: Key,
    /// The name an operator gave it.
    pub name: String,
    /// Its inner IPv4 address.
    pub v4: Option<Ipv4Addr>,
    /// Its inner IPv6 address.
    pub v6: Option<Ipv6Addr>,
}

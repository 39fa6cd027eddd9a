//! Plain counters, and the one picture of the core that everybody reads:
//! `status`, plots, metrics and tests all see the same [`Snapshot`].

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::config::{Modes, Role};
use crate::event::{PathReason, SocketId};

/// Everything that can be seen of an endpoint at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// One entry per bond; a client has exactly one.
    pub bonds: Vec<BondSnapshot>,
    /// Datagrams and packets that were dropped before they reached a bond, by reason.
    pub drops: BTreeMap<String, u64>,
}

impl Snapshot {
    /// Takes the bonds and drops of another worker of the same server in.
    pub fn add(&mut self, other: Snapshot) {
        self.bonds.extend(other.bonds);
        for (reason, count) in other.drops {
            *self.drops.entry(reason).or_default() += count;
        }
    }
}

/// One bond.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BondSnapshot {
    /// The peer's name (server) or empty (client).
    pub name: String,
    /// The other side's public key, base64.
    pub peer: String,
    /// Inner addresses of the client's end.
    pub addresses: Vec<IpAddr>,
    /// Whether packets can pass now.
    pub up: bool,
    /// How paths are used, by class.
    pub modes: Modes,
    /// Largest inner packet in bytes.
    pub mtu: u16,
    /// Its paths.
    pub paths: Vec<PathSnapshot>,
    /// Inner packets taken from the TUN.
    pub packets_in: u64,
    /// Inner bytes taken from the TUN.
    pub bytes_in: u64,
    /// Inner packets given to the TUN.
    pub packets_out: u64,
    /// Inner bytes given to the TUN.
    pub bytes_out: u64,
    /// Flows known now.
    pub flows: u64,
    /// Bytes waiting for a path.
    pub queue_bytes: u64,
    /// Packets held back until they are in order.
    pub held_packets: u64,
    /// Packets and datagrams dropped, by reason.
    pub drops: BTreeMap<String, u64>,
    /// Other counters, by name: `retransmitted`, `reinjected`, `duplicates_received`, ...
    pub counters: BTreeMap<String, u64>,
}

/// What a path does at present.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PathState {
    /// Shaking hands.
    #[default]
    Connecting,
    /// Carries packets.
    Active,
    /// Overdue; what it carried was sent again elsewhere.
    Suspect,
    /// Silent; probed now and then.
    Dead,
    /// Answers again; on trial.
    Returning,
}

/// One path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PathSnapshot {
    /// The tag that names it within its bond.
    pub id: u8,
    /// The uplink's name (client) or empty (server).
    pub name: String,
    /// The local socket.
    pub socket: SocketId,
    /// The other side's address.
    pub remote: SocketAddr,
    /// What the operator allows.
    pub role: Role,
    /// What it does now.
    pub state: PathState,
    /// Why it came into that state.
    pub reason: Option<PathReason>,
    /// Smoothed round-trip time, milliseconds.
    pub rtt_ms: f64,
    /// Lowest round-trip time of late, milliseconds.
    pub rtt_min_ms: f64,
    /// Standing queue in this direction beyond the base delay, milliseconds.
    pub queue_ms: f64,
    /// Estimated capacity in this direction, bits per second.
    pub capacity_bit_s: u64,
    /// What the rate controller is doing: `startup`, `cruise`, `drain`.
    pub control: String,
    /// Share of recent datagrams that were lost, 0 to 1.
    pub loss: f64,
    /// Bytes sent that are not acknowledged yet.
    pub inflight_bytes: u64,
    /// Datagrams sent.
    pub sent: u64,
    /// Wire bytes sent (UDP payload).
    pub sent_bytes: u64,
    /// Datagrams received.
    pub received: u64,
    /// Wire bytes received (UDP payload).
    pub received_bytes: u64,
    /// Datagrams declared lost.
    pub lost: u64,
    /// Declared lost, yet acknowledged later.
    pub lost_spurious: u64,
    /// Largest IP packet that is known to pass in this direction, bytes.
    pub mtu: u16,
}

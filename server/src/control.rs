//! What the command line and the daemon say to each other over the control socket.
//!
//! All types here are also what `--json` prints, so their fields are an interface:
//! they are added to, not renamed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use marline_io::driver::DriverStats;
use marline_io::join_code::ServerEndpoint;
use marline_proto::Snapshot;
use serde::{Deserialize, Serialize};

use crate::invitation::Invitation;
use crate::peers::{Moment, Peer, PublicKey, Standing};

/// What the daemon can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// How everything stands, without anybody's flows.
    Status,
    /// The same of one peer alone, with its flows.
    StatusOf {
        /// Its name.
        peer: String,
    },
    /// One of both again and again.
    Watch {
        /// Time between two replies, milliseconds.
        interval_ms: u64,
        /// Of this peer alone.
        #[serde(default)]
        peer: Option<String>,
    },
    /// All peers.
    PeerList,
    /// Add a peer and make its join code.
    PeerAdd {
        /// The name it gets.
        name: String,
        /// How long its code may wait for its first use, seconds.
        code_life_s: u64,
    },
    /// Give a peer a new key and a new join code.
    PeerRenew {
        /// Its name.
        name: String,
        /// How long its code may wait for its first use, seconds.
        code_life_s: u64,
    },
    /// Remove a peer; its bond ends at once.
    PeerRemove {
        /// Its name.
        name: String,
    },
    /// Read the peer store again after it was edited by hand.
    Reload,
}

/// What the daemon answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// To `Status`, `StatusOf` and `Watch`.
    Status(Box<Status>),
    /// To `PeerList`.
    Peers(Vec<PeerView>),
    /// To `PeerAdd` and `PeerRenew`.
    Invitation(Box<Invitation>),
    /// To `PeerRemove`.
    Removed(PeerView),
    /// To `Reload`: how many peers are admitted now.
    Reloaded {
        /// Peers that may connect.
        admitted: usize,
    },
}

/// How the server stands.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The program's version.
    pub version: String,
    /// The daemon's process id.
    pub pid: u32,
    /// How long it runs, seconds.
    pub uptime_s: u64,
    /// The server's public key.
    pub public_key: PublicKey,
    /// The TUN interface.
    pub interface: String,
    /// The server's inner addresses.
    pub addresses: Vec<IpAddr>,
    /// The largest inner packet, bytes.
    pub mtu: u16,
    /// Whether clients go out under the server's own addresses.
    pub nat: bool,
    /// Where datagrams are received.
    pub listen: Vec<SocketAddr>,
    /// What stands in join codes.
    pub endpoints: Vec<ServerEndpoint>,
    /// Peers in the store.
    pub peers: usize,
    /// Peers that may connect.
    pub peers_admitted: usize,
    /// How many loops move packets.
    pub workers: usize,
    /// What these loops have counted, all together.
    pub driver: DriverStats,
    /// Bonds, paths and drop counters. A bond carries its peer's name.
    pub snapshot: Snapshot,
}

/// A peer, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerView {
    /// Its name.
    pub name: String,
    /// Its public key.
    pub public_key: PublicKey,
    /// Its inner IPv4 address.
    pub v4: Option<Ipv4Addr>,
    /// Its inner IPv6 address.
    pub v6: Option<Ipv6Addr>,
    /// When it was added.
    pub created: Moment,
    /// Until when its join code may be used for the first time.
    pub code_expires: Option<Moment>,
    /// When it first connected with its present key.
    pub first_seen: Option<Moment>,
    /// How it stands.
    pub standing: Standing,
    /// Whether its bond is up; `None` when no daemon was there to say.
    pub connected: Option<bool>,
}

impl PeerView {
    /// The peer as it stands at `now`.
    pub fn of(peer: &Peer, now: Moment, connected: Option<bool>) -> Self {
        PeerView {
            name: peer.name.clone(),
            public_key: peer.public_key,
            v4: peer.v4,
            v6: peer.v6,
            created: peer.created,
            code_expires: peer.code_expires,
            first_seen: peer.first_seen,
            standing: peer.standing(now),
            connected,
        }
    }
}

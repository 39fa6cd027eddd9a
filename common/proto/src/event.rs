//! What the core is told (`Command`) and what it tells (`Event`): the life
//! stories of paths and bonds, with their reasons.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::config::{Key, Modes, PeerConfig, Role};

/// Names one UDP socket of the driver. On a client every uplink has its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SocketId(pub u16);

/// Something the outside world wants or has seen.
#[derive(Clone, Debug)]
pub enum Command {
    /// Client: an uplink can be used; open a path over it.
    AddUplink {
        /// The socket that is bound to the uplink.
        socket: SocketId,
        /// The interface's name, for people.
        name: String,
        /// The server's address over this uplink.
        remote: SocketAddr,
        /// The interface's MTU in bytes.
        mtu: u16,
        /// What the operator allows.
        role: Role,
    },
    /// Client: an uplink is gone for good (interface or address removed).
    RemoveUplink {
        /// The socket it had.
        socket: SocketId,
    },
    /// Client: an uplink's carrier went or came while its socket stayed.
    UplinkCarrier {
        /// The uplink's socket.
        socket: SocketId,
        /// Whether there is a carrier now.
        up: bool,
    },
    /// Client: use the paths in another way from now on.
    SetModes(Modes),
    /// Server: this peer may connect, and belongs to this worker.
    AddPeer(PeerConfig),
    /// Server: this peer may connect, and belongs to another worker.
    NotePeer {
        /// The peer.
        peer: PeerConfig,
        /// The number of its worker.
        worker: u8,
    },
    /// Server: this peer may not connect any more; its bond ends.
    RemovePeer(Key),
    /// The machine slept or its clock jumped: distrust every estimate.
    Woke,
    /// Say goodbye on every path; the driver stops soon.
    Close,
}

/// Why a path changed its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathReason {
    /// The handshake and the first exchange over it succeeded.
    Connected,
    /// An acknowledgement that was due did not come.
    AckOverdue,
    /// The other side reported that nothing arrives from it any more.
    PeerHeardSilence,
    /// The local machine refused to send.
    SendFailed,
    /// The uplink lost its carrier.
    CarrierLost,
    /// The uplink was removed.
    UplinkRemoved,
    /// Something sent over it was acknowledged again.
    Answered,
    /// The other side said goodbye.
    PeerClosed,
    /// The session ended and had to be made anew.
    SessionLost,
}

/// Something the outside world may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A bond carries packets now. On a server `peer` is the client's key; on a client, the server's.
    BondUp {
        /// The other side.
        peer: Key,
    },
    /// No path of a bond works any more.
    BondDown {
        /// The other side.
        peer: Key,
    },
    /// A path carries packets (again).
    PathUp {
        /// The other side.
        peer: Key,
        /// The path's tag within its bond.
        path: u8,
        /// Why.
        reason: PathReason,
    },
    /// A path stopped carrying packets.
    PathDown {
        /// The other side.
        peer: Key,
        /// The path's tag within its bond.
        path: u8,
        /// Why.
        reason: PathReason,
    },
    /// The other side started anew and forgot what it knew.
    PeerRestarted {
        /// The other side.
        peer: Key,
    },
    /// Server: the peer's first authenticated message ever in this process.
    PeerSeen {
        /// The peer's key.
        peer: Key,
    },
}

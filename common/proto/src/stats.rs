//! Plain counters, and the one picture of the core that everybody reads:
//! `status`, plots, metrics and tests all see the same [`Snapshot`].
//!
//! Decisions are in it as values, each with its reason in one word: what the rate of a path rests on, whether it carries
//! bulk, which paths a flow may use. They are put together when somebody asks and cost a packet nothing.
//!
//! Flows tell who talks to whom. They are in a picture only if whoever takes it asks for them ([`Detail`]): a client's
//! owner sees those of its own machine, a server's operator those of one peer whom they named. Neither logs nor news
//! have any.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::classify::Class;
use crate::config::{Modes, Role};
use crate::congestion::RateReason;
use crate::event::{PathReason, SocketId};
use crate::schedule::Rank;

/// Whose flows a picture shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Nobody's.
    Paths,
    /// Everybody's.
    Flows,
    /// Those of the peer with this name.
    FlowsOf(String),
}

impl Detail {
    /// Whether it covers the flows of a peer.
    pub fn has_flows_of(&self, name: &str) -> bool {
        match self {
            Detail::Paths => false,
            Detail::Flows => true,
            Detail::FlowsOf(peer) => peer == name,
        }
    }
}

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
    /// Those of them that send the most from this end, the busiest first, if they were asked for ([`Detail`]); no more
    /// than [`crate::limits::FLOWS_SHOWN`].
    pub busiest: Vec<FlowSnapshot>,
    /// How long after the lowest delay of all paths the packets of flows are released that keep one latency,
    /// milliseconds.
    pub set_latency_ms: f64,
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
    /// Nobody uses it, so its session was not renewed. It takes a round trip to have it back.
    Resting,
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
    /// How far nearly all of its packets scatter above their lowest delay, milliseconds.
    pub jitter_ms: f64,
    /// By how much its base delay in this direction, the one of an empty path, is longer than that of the quickest path
    /// that works, milliseconds. Clocks of the two ends differ, so there are only differences; none before both are known.
    pub behind_ms: Option<f64>,
    /// Estimated capacity in this direction, bits per second.
    pub capacity_bit_s: u64,
    /// The rate at which it may send now, bits per second.
    pub pace_bit_s: u64,
    /// What that rate rests on.
    pub rate_reason: RateReason,
    /// Whether it carries bulk flows that ask for more than the best path.
    pub carries_bulk: bool,
    /// What it is to bulk, and if it carries none, why.
    pub rank: Rank,
    /// Whether it belongs to the set for long flows, which keep one latency from their first packet on.
    pub in_set: bool,
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
    /// How often large datagrams vanished while small ones arrived, so that it fell back to smaller ones.
    pub black_holes: u64,
}

/// One flow, as this end sends it. What comes back is a flow of the other end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlowSnapshot {
    /// Its slot, by which the other end knows it.
    pub slot: u16,
    /// Which way it goes.
    pub direction: Direction,
    /// The number of its transport protocol.
    pub protocol: u8,
    /// Who sends it. The port is the identifier of an ICMP echo, and 0 where there is none.
    pub source: SocketAddr,
    /// Whom to.
    pub destination: SocketAddr,
    /// How it is treated.
    pub class: Class,
    /// Bytes since it began.
    pub bytes: u64,
    /// Its rate over the last half second or more, bits per second.
    pub rate_bit_s: u64,
    /// Bytes of it that wait for a path.
    pub queue_bytes: u64,
    /// Which paths it may use, by their numbers, the best first.
    pub paths: Vec<u8>,
    /// How it uses them.
    pub way: FlowWay,
    /// Why.
    pub reason: FlowReason,
    /// How long after the lowest delay of all paths its packets are released, milliseconds; 0: as soon as they are in
    /// order.
    pub latency_ms: f64,
    /// Why its packets are sent twice; none if they are not.
    pub copied: Option<CopyReason>,
}

/// Which way a flow goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// From the client.
    Up,
    /// To the client.
    Down,
}

/// How a flow uses the paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowWay {
    /// The best path alone.
    Best,
    /// Every path that it reaches, in order as soon as possible.
    Wide,
    /// The same at a latency that is raised step by step, until the set is within it.
    Led,
    /// The set for long flows, at its latency.
    Steady,
}

/// Why a flow uses the paths as it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowReason {
    /// Its class has the best path.
    Class,
    /// The best path is enough for it.
    Suffices,
    /// Its packets wait for the best path.
    Waits,
    /// It takes a good part of the best path.
    Fills,
    /// It asked for more than the best path a moment ago.
    Lately,
    /// Earlier flows with its remote end were long.
    Habit,
    /// Nothing is known of its remote end, and what may become long begins on the set: the quick paths carry less
    /// than the best one.
    FarSet,
    /// It was led there.
    Led,
}

/// Why the packets of a flow are sent twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CopyReason {
    /// The mode says so.
    Mode,
    /// It is thin, so each packet is waited for, and a copy that is sent when one is missed would be too late, or those of
    /// all thin flows are next to nothing beside the rest.
    Thin,
    /// It is thin, and only what is not acknowledged in time is sent twice.
    Unanswered,
    /// Its path is doubtful.
    Doubt,
}

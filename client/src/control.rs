//! What the command line asks a running client, and what it answers.
//!
//! The words here are the JSON that `--json` prints, too: whatever a person can
//! see, a script can read under the same name.

use std::time::{SystemTime, UNIX_EPOCH};

use marline_io::driver::DriverStats;
use marline_io::failure::{Class, Failure};
use marline_proto::{Class as FlowClass, Mode, Modes, Snapshot};
use serde::{Deserialize, Serialize};

use crate::uplinks::UplinkReport;

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// A picture of everything.
    Status,
    /// A picture of everything, again and again.
    Watch,
    /// The uplinks.
    Uplinks,
    /// How the paths are used.
    Modes,
    /// Use the paths in another way from now on.
    SetMode {
        /// In which.
        mode: Mode,
        /// For which class of flows; without one, for all.
        class: Option<FlowClass>,
    },
    /// Stop; answered when the machine is as it was before.
    Down,
}

/// The answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// To [`Request::Status`] and [`Request::Watch`].
    Status(Box<Status>),
    /// To [`Request::Uplinks`].
    Uplinks(Vec<UplinkReport>),
    /// To [`Request::Modes`] and [`Request::SetMode`].
    Modes(Modes),
    /// To [`Request::Down`].
    Down(Stopped),
}

/// How a client stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// How many changes to the machine were put back.
    pub put_back: usize,
}

/// A picture of a running client.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Whether packets can pass now.
    pub up: bool,
    /// Whether the machine's traffic goes through the bond.
    pub routed: bool,
    /// The TUN interface.
    pub interface: String,
    /// How the paths are used, by class of flows.
    pub modes: Modes,
    /// The process.
    pub pid: u32,
    /// When the client started, seconds since 1970.
    pub started_unix_s: u64,
    /// The machine's interfaces and what becomes of them.
    pub uplinks: Vec<UplinkReport>,
    /// What happened lately, oldest first.
    pub news: Vec<News>,
    /// The core's counters.
    pub snapshot: Snapshot,
    /// The driver's counters.
    pub driver: DriverStats,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct News {
    /// When, seconds since 1970.
    pub at_unix_s: u64,
    /// What and why.
    pub text: String,
}

/// A failure for a reply that belongs to another question.
pub fn unexpected() -> Failure {
    Failure::new(
        Class::Other,
        "the running client gave an answer to another question",
    )
    .with_advice("the command and the running client may be of different versions; restart it")
}

/// The time by the wall clock, seconds since 1970.
pub fn now_unix_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

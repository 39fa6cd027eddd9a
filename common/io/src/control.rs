//! How a command line talks to a running daemon: a Unix socket that carries one
//! JSON object per line.
//!
//! One connection carries one request. The daemon answers with one line, or with
//! many (live figures) until it has no more to say or the asker hangs up. Each
//! line is either `{"reply": ...}` or `{"failure": ...}`, and a failure that the
//! daemon meets is shown by the command line as if it had happened there, exit
//! code included. A shell with `socat` can use it too, and so can any language.
//!
//! Who may ask is decided by the socket file's permissions alone.
//!
//! Edges: a request is at most [`REQUEST_MAX`] bytes and must come within
//! [`REQUEST_WITHIN`]; at most [`CONNECTIONS_MAX`] connections are served at once,
//! further ones wait in the kernel's queue.

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::failure::{Class, Failure};

#[cfg(not(unix))]
#[path = "control/other.rs"]
mod imp;
#[cfg(unix)]
#[path = "control/unix.rs"]
mod imp;

pub use imp::{ControlClient, ControlServer, Replies};

/// The longest request, in bytes: several times what a join code or a peer list needs.
pub const REQUEST_MAX: usize = 1 << 20;
/// How long an asker may take to write its request; a stuck one must not hold a place for ever.
pub const REQUEST_WITHIN: Duration = Duration::from_secs(10);
/// Connections that are served at once: more than a person and a few monitors ever open.
pub const CONNECTIONS_MAX: usize = 64;

/// What a daemon's handler answers.
#[derive(Debug)]
pub enum Answer<Rep> {
    /// One reply.
    Once(Rep),
    /// Many replies, until the sender is dropped. The receiver is dropped when the asker hangs up.
    Stream(mpsc::Receiver<Rep>),
}

/// The request that a line holds.
pub fn read_request<Req: DeserializeOwned>(line: &[u8]) -> Result<Req, Failure> {
    serde_json::from_slice(line).map_err(|error| {
        Failure::usage(format!("the request is not understood: {error}")).with_advice(VERSIONS)
    })
}

/// The reply that a line of the daemon's holds, or the failure that it met.
pub fn read_reply<Rep: DeserializeOwned>(line: &[u8]) -> Result<Rep, Failure> {
    match serde_json::from_slice(line) {
        Ok(Line::Reply(reply)) => Ok(reply),
        Ok(Line::Failure(failure)) => Err(failure),
        Err(error) => {
            let what = format!("the daemon's answer is not understood: {error}");
            Err(Failure::new(Class::Other, what).with_advice(VERSIONS))
        }
    }
}

const VERSIONS: &str = "the command and the daemon may be of different versions";

/// One line from the daemon.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line<Rep> {
    Reply(Rep),
    Failure(Failure),
}

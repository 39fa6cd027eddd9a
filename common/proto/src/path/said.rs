//! What is said over a path besides data, where to, and how far the greeting is.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::resting::{BUSY, RENEW_WITHIN};
use crate::event::SocketId;
use crate::frame::{Control, Frame, Probe};
use crate::time::Time;
use crate::transmit::Arrival;

/// Where a path's datagrams go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The local socket.
    pub socket: SocketId,
    /// The other side.
    pub remote: SocketAddr,
    /// The local address, where it matters.
    pub local: Option<IpAddr>,
}

impl From<Arrival> for Address {
    fn from(a: Arrival) -> Self {
        Address {
            socket: a.socket,
            remote: a.remote,
            local: a.local,
        }
    }
}

/// A frame that steers or measures, waiting to be sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// What to say.
    pub content: MessageContent,
    /// Where to, when not to the path's present address.
    pub to: Option<Address>,
}

/// The two kinds of such frames.
#[derive(Clone, Debug, PartialEq)]
pub enum MessageContent {
    /// Steering.
    Control(Control),
    /// Measuring.
    Probe(Probe),
}

impl MessageContent {
    /// As a frame.
    pub fn frame(&self) -> Frame<'static> {
        match self {
            MessageContent::Control(c) => Frame::Control(c.clone()),
            MessageContent::Probe(p) => Frame::Probe(*p),
        }
    }
}

/// Where the exchange of HELLO stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Greeting {
    /// Nothing to say (server), or nothing yet.
    Idle,
    /// Said, not answered; say it again then.
    Waiting(Time),
    /// Both sides know each other.
    Done,
    /// They do, and something changed that was said and not answered yet.
    Repeating(Time),
}

impl Greeting {
    /// Whether the other side is known, so that data may pass.
    pub fn is_done(self) -> bool {
        matches!(self, Greeting::Done | Greeting::Repeating(_))
    }
}

/// A new address that asked to be used and has yet to prove itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The address.
    pub address: Address,
    /// What it must return.
    pub token: [u8; 8],
    /// When it appeared.
    pub since: Time,
}

/// Where a path stands among the others of its bond.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// No other path works.
    pub alone: bool,
    /// For how long no inner packet passed.
    pub idle: Duration,
    /// It is a backup, and another one serves, or will when it is asked to.
    pub stands_by: bool,
}

impl Standing {
    /// Inner packets passed within the last seconds.
    pub fn is_busy(&self) -> bool {
        self.idle < BUSY
    }

    /// Nobody needs it now: it is not asked for signs, and its session may end.
    pub fn rests(&self) -> bool {
        self.stands_by || !self.is_busy()
    }

    /// Its session is renewed before it ends.
    pub fn renews(&self) -> bool {
        !self.stands_by && self.idle < RENEW_WITHIN
    }
}

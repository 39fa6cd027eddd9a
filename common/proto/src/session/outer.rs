//! What a datagram says before it is opened: the plain header of a WireGuard message.
//!
//! Nothing of it is believed: it tells which session may open the datagram. Once that succeeded, the counter of a data
//! message is the path's packet number.
//!
//! Three kinds are our own and are never opened, as they are for paths whose session has ended (`path/resting.rs`): KEEP,
//! SEEN and WAKE. All that somebody can do who forges one is to have a path shake hands once too often, or to hide that a
//! path is dead which nobody uses.

use super::OVERHEAD;

/// What kind of message a datagram claims to be, from its plain header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outer {
    /// A handshake initiation with the initiator's index.
    Initiation {
        /// The index that the initiator chose for itself.
        sender: u32,
    },
    /// Anything addressed to one of our indices.
    ToIndex {
        /// Our index.
        receiver: u32,
    },
    /// A client at rest shows where it can be reached.
    Keep {
        /// Our index.
        receiver: u32,
        /// What it says.
        keep: Keep,
    },
    /// A client at rest was seen.
    Seen {
        /// Our index.
        receiver: u32,
        /// What we said in the last KEEP.
        cookie: u32,
    },
    /// Something waits for a client at rest.
    Wake {
        /// Our index.
        receiver: u32,
        /// What we said in the last KEEP.
        cookie: u32,
    },
}

impl Outer {
    /// Our index, if it names one.
    pub fn receiver(self) -> Option<u32> {
        match self {
            Outer::Initiation { .. } => None,
            Outer::ToIndex { receiver }
            | Outer::Keep { receiver, .. }
            | Outer::Seen { receiver, .. }
            | Outer::Wake { receiver, .. } => Some(receiver),
        }
    }
}

/// What a client at rest says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// The client's index, to which an answer is addressed.
    pub sender: u32,
    /// What an answer must return.
    pub cookie: u32,
    /// Whether it wants one in any case.
    pub asks: bool,
}

/// Bytes of a KEEP.
const KEEP_LEN: usize = 16;
/// Bytes of a SEEN and of a WAKE: fewer than of what they answer, so that nobody can multiply traffic with them.
const ANSWER_LEN: usize = 12;
/// In the type of a KEEP that wants an answer.
const ASKS: u32 = 1 << 8;

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// A KEEP.
pub fn keep(receiver: u32, keep: Keep) -> Vec<u8> {
    let kind = if keep.asks { 5 | ASKS } else { 5 };
    words(&[kind, receiver, keep.sender, keep.cookie])
}

/// A SEEN.
pub fn seen(receiver: u32, cookie: u32) -> Vec<u8> {
    words(&[7, receiver, cookie])
}

/// A WAKE.
pub fn wake(receiver: u32, cookie: u32) -> Vec<u8> {
    words(&[6, receiver, cookie])
}

/// Reads the plain header of a datagram. `None` when it is neither a WireGuard message nor one of ours.
pub fn outer(datagram: &[u8]) -> Option<Outer> {
    let word = |at: usize| {
        datagram
            .get(at..at + 4)
            .map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    };
    match (word(0)?, datagram.len()) {
        (1, 148) => Some(Outer::Initiation { sender: word(4)? }),
        (2, 92) => Some(Outer::ToIndex { receiver: word(8)? }),
        (3, 64) => Some(Outer::ToIndex { receiver: word(4)? }),
        (4, OVERHEAD..) => Some(Outer::ToIndex { receiver: word(4)? }),
        (kind, KEEP_LEN) if kind & !ASKS == 5 => Some(Outer::Keep {
            receiver: word(4)?,
            keep: Keep {
                sender: word(8)?,
                cookie: word(12)?,
                asks: kind & ASKS != 0,
            },
        }),
        (6, ANSWER_LEN) => Some(Outer::Wake {
            receiver: word(4)?,
            cookie: word(8)?,
        }),
        (7, ANSWER_LEN) => Some(Outer::Seen {
            receiver: word(4)?,
            cookie: word(8)?,
        }),
        _ => None,
    }
}

/// Which message of which session: the plain header of a data message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number {
    /// The receiver's index: names the session.
    pub session: u32,
    /// Counts the messages of the session.
    pub counter: u64,
}

/// The number of a data message.
pub(super) fn number(datagram: &[u8]) -> Number {
    let mut session = [0; 4];
    session.copy_from_slice(&datagram[4..8]);
    let mut counter = [0; 8];
    counter.copy_from_slice(&datagram[8..16]);
    Number {
        session: u32::from_le_bytes(session),
        counter: u64::from_le_bytes(counter),
    }
}

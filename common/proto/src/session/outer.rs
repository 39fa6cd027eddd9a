//! What a datagram says before it is opened: the plain header of a WireGuard message.
//!
//! Nothing of it is believed: it tells which session may open the datagram. Once that succeeded, the counter of a data
//! message is the path's packet number.

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
}

/// Reads the plain header of a datagram. `None` when it is no WireGuard message.
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

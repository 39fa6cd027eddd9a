//! Sessions: WireGuard through boringtun, one per path. Nothing outside this module names it.
//!
//! Every datagram on the wire is a WireGuard message, so nothing here is home-made
//! cryptography. The exceptions are KEEP, WAKE and SEEN, three plain words of paths
//! at rest, which bring about a handshake at most ([`outer`](mod@outer)). What is
//! added around boringtun:
//!
//! * it silently queues packets while there is no session, so [`Session::seal`]
//!   refuses instead;
//! * it retries a lost handshake after 5 s, so the path asks for a fresh
//!   initiation itself, sooner;
//! * its timers have no deadline to ask for, and it notes all times by a clock that only
//!   they set, so [`Session::tick`] is called before anything is sealed or opened, some
//!   times a second at most, and every few seconds while nothing is;
//! * the counter of each message is the path's packet number, read from the
//!   plain header ([`outer`](mod@outer)).
//!
//! Sessions are made from an [`identity`], which is also the gate that strangers'
//! handshakes pass.
//!
//! With the feature `test-session` a session without cryptography can stand in
//! (`test_session.rs`). Production code never enables it.

mod identity;
mod outer;
#[cfg(feature = "test-session")]
mod test_session;

use std::net::IpAddr;
use std::time::Duration;

use boringtun::noise::errors::WireGuardError;
use boringtun::noise::{Tunn, TunnResult};

pub use identity::{Admission, Identity, public_key};
use outer::number;
pub use outer::{Keep, Number, Outer, keep, outer, seen, wake};
#[cfg(feature = "test-session")]
use test_session::TestSession;

use crate::time::Time;

/// Bytes that sealing adds to a frame: type, index, counter, tag.
pub const OVERHEAD: usize = 32;
/// How long a session is accepted after its handshake (WireGuard's REJECT_AFTER_TIME).
pub const KEYS_LIVE: Duration = Duration::from_secs(180);
/// Bytes of the largest handshake message.
pub const HANDSHAKE_MAX: usize = 148;

/// What came out of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// A frame or packet of this many bytes is in the buffer.
    Content {
        /// Its length in bytes.
        len: usize,
        /// Its number.
        number: Number,
    },
    /// An authenticated message without content.
    Keepalive {
        /// Its number.
        number: Number,
    },
    /// A handshake message; this many bytes in the buffer are to be sent back.
    Reply {
        /// The answer's length in bytes.
        len: usize,
        /// Whether we may send now.
        established: bool,
    },
    /// A handshake message that needs no answer.
    Quiet,
}

/// Why a datagram was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OpenError {
    /// It does not authenticate.
    Forged,
    /// Its counter was seen or is too old.
    Replayed,
    /// Its session is not known here (any more).
    NoSession,
    /// It is not shaped like a message or its content not like a packet.
    Malformed,
    /// A handshake older than one already seen, or the clock of the sender went back.
    OldHandshake,
    /// A handshake for another key.
    WrongKey,
}

impl OpenError {
    /// The name under which it is counted.
    pub fn name(self) -> &'static str {
        match self {
            OpenError::Forged => "datagram_forged",
            OpenError::Replayed => "datagram_replayed",
            OpenError::NoSession => "datagram_no_session",
            OpenError::Malformed => "datagram_malformed",
            OpenError::OldHandshake => "handshake_old",
            OpenError::WrongKey => "handshake_wrong_key",
        }
    }
}

impl From<WireGuardError> for OpenError {
    fn from(e: WireGuardError) -> Self {
        use WireGuardError as E;
        match e {
            E::InvalidAeadTag => OpenError::Forged,
            E::InvalidCounter | E::DuplicateCounter => OpenError::Replayed,
            E::WrongIndex | E::NoCurrentSession | E::ConnectionExpired => OpenError::NoSession,
            E::WrongTai64nTimestamp | E::InvalidTai64nTimestamp => OpenError::OldHandshake,
            E::WrongKey | E::InvalidMac => OpenError::WrongKey,
            E::DestinationBufferTooSmall
            | E::IncorrectPacketLength
            | E::UnexpectedPacket
            | E::WrongPacketType
            | E::InvalidPacket
            | E::LockFailed
            | E::UnderLoad => OpenError::Malformed,
        }
    }
}

/// What a tick wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick {
    /// Bytes of the buffer to send, if any.
    pub send: Option<usize>,
    /// Whether we may seal now.
    pub established: bool,
}

/// One path's session.
#[derive(Debug)]
pub struct Session {
    kind: Kind,
    established: bool,
    /// The other side's index, as of the last datagram sealed for it.
    receiver: Option<u32>,
}

enum Kind {
    Wireguard(Box<Tunn>),
    #[cfg(feature = "test-session")]
    Test(TestSession),
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Kind::Wireguard(_) => f.write_str("Wireguard"),
            #[cfg(feature = "test-session")]
            Kind::Test(_) => f.write_str("Test"),
        }
    }
}

impl Session {
    /// Whether frames can be sealed.
    pub fn is_established(&self) -> bool {
        self.established
    }

    /// The other side's index in the last session that something was sealed in, also after its end.
    pub fn receiver(&self) -> Option<u32> {
        self.receiver
    }

    /// Seals a frame into the front of `out`, which has [`OVERHEAD`] more room
    /// than the frame. `None` while there is no session.
    pub fn seal(&mut self, frame: &[u8], out: &mut [u8]) -> Option<(usize, Number)> {
        if !self.established {
            return None;
        }
        let len = match &mut self.kind {
            Kind::Wireguard(tunn) => match tunn.encapsulate(frame, out) {
                TunnResult::WriteToNetwork(datagram) => datagram.len(),
                _ => return None,
            },
            #[cfg(feature = "test-session")]
            Kind::Test(session) => session.seal(frame, out)?,
        };
        let number = number(out);
        self.receiver = Some(number.session);
        Some((len, number))
    }

    /// Opens a datagram into `out`, which is at least as long and no shorter
    /// than [`HANDSHAKE_MAX`].
    ///
    /// # Errors
    /// When it is not authentic, replayed or malformed.
    pub fn open(
        &mut self,
        now: Time,
        from: IpAddr,
        datagram: &[u8],
        out: &mut [u8],
    ) -> Result<Opened, OpenError> {
        let is_data = datagram.first() == Some(&4);
        match &mut self.kind {
            Kind::Wireguard(tunn) => {
                let _ = now;
                match tunn.decapsulate(Some(from), datagram, out) {
                    TunnResult::Done if is_data => {
                        self.established = true;
                        Ok(Opened::Keepalive {
                            number: number(datagram),
                        })
                    }
                    TunnResult::Done => Ok(Opened::Quiet),
                    TunnResult::Err(e) => Err(e.into()),
                    TunnResult::WriteToNetwork(reply) => {
                        let len = reply.len();
                        // The initiator has the session once the response is
                        // in; the responder once the initiator used it.
                        if datagram.first() == Some(&2) {
                            self.established = true;
                        }
                        Ok(Opened::Reply {
                            len,
                            established: self.established,
                        })
                    }
                    TunnResult::WriteToTunnelV4(content, _)
                    | TunnResult::WriteToTunnelV6(content, _) => {
                        self.established = true;
                        Ok(Opened::Content {
                            len: content.len(),
                            number: number(datagram),
                        })
                    }
                }
            }
            #[cfg(feature = "test-session")]
            Kind::Test(session) => {
                let opened = session.open(now, datagram, out)?;
                self.established |= is_data || datagram.first() == Some(&2);
                Ok(match opened {
                    Opened::Reply { len, .. } => Opened::Reply {
                        len,
                        established: self.established,
                    },
                    other => other,
                })
            }
        }
    }

    /// Starts a handshake now, whether or not one is under way.
    pub fn initiate(&mut self, now: Time, out: &mut [u8]) -> Option<usize> {
        match &mut self.kind {
            Kind::Wireguard(tunn) => {
                let _ = now;
                match tunn.format_handshake_initiation(out, true) {
                    TunnResult::WriteToNetwork(datagram) => Some(datagram.len()),
                    _ => None,
                }
            }
            #[cfg(feature = "test-session")]
            Kind::Test(session) => Some(session.initiate(now, out)),
        }
    }

    /// How long ago its keys were agreed.
    pub fn age(&self, now: Time) -> Option<Duration> {
        match &self.kind {
            Kind::Wireguard(tunn) => {
                let _ = now;
                tunn.time_since_last_handshake()
            }
            #[cfg(feature = "test-session")]
            Kind::Test(session) => session.age(now),
        }
    }

    /// Lets the session's own timers run and sets its clock.
    pub fn tick(&mut self, now: Time, out: &mut [u8]) -> Tick {
        match &mut self.kind {
            Kind::Wireguard(tunn) => {
                let _ = now;
                let send = match tunn.update_timers(out) {
                    TunnResult::WriteToNetwork(datagram) => Some(datagram.len()),
                    _ => None,
                };
                // Keys older than three minutes are gone after this call.
                self.established &= tunn.time_since_last_handshake().is_some();
                Tick {
                    send,
                    established: self.established,
                }
            }
            #[cfg(feature = "test-session")]
            Kind::Test(session) => {
                let send = session.tick(now, out);
                self.established &= session.age(now).is_some();
                Tick {
                    send,
                    established: self.established,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Key;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn shake(client: &mut Session, server: &mut Session) {
        let (mut a, mut b) = ([0; 256], [0; 256]);
        let len = client.initiate(Time::ZERO, &mut a).unwrap();
        let Ok(Opened::Reply { len, established }) =
            server.open(Time::ZERO, HERE, &a[..len], &mut b)
        else {
            panic!("the server answers")
        };
        assert!(
            !established,
            "nothing is proven before the initiator uses the session"
        );
        let Ok(Opened::Reply { len, established }) =
            client.open(Time::ZERO, HERE, &b[..len], &mut a)
        else {
            panic!("the client confirms")
        };
        assert!(established);
        let opened = server.open(Time::ZERO, HERE, &a[..len], &mut b).unwrap();
        assert!(matches!(opened, Opened::Keepalive { .. }));
    }

    fn both(identity: impl Fn(Key) -> Identity) {
        let (c, s) = ([1; 32], [2; 32]);
        let mut client = identity(c).session(public_key(&s), 7);
        let mut server = identity(s).session(public_key(&c), 9);
        assert_eq!(client.seal(&[0x40; 20], &mut [0; 256]), None);
        shake(&mut client, &mut server);
        assert!(server.is_established());
        let mut frame = [0x40; 30];
        frame[2..4].copy_from_slice(&30u16.to_be_bytes());
        let (mut wire, mut out) = ([0; 256], [0; 256]);
        let (len, number) = client.seal(&frame, &mut wire).unwrap();
        assert_eq!(len, 30 + OVERHEAD);
        let opened = server.open(Time::ZERO, HERE, &wire[..len], &mut out);
        assert_eq!(opened, Ok(Opened::Content { len: 30, number }));
        assert_eq!(&out[..30], &frame);
        assert_eq!(number.session >> 8, 9);
        // Zeros behind it, as in a train of datagrams of one length, are cut off.
        let padded = [&frame[..], &[0; 16]].concat();
        let (len, number) = client.seal(&padded, &mut wire).unwrap();
        assert_eq!(len, 46 + OVERHEAD);
        let opened = server.open(Time::ZERO, HERE, &wire[..len], &mut out);
        assert_eq!(opened, Ok(Opened::Content { len: 30, number }));
    }

    #[test]
    fn a_frame_goes_through_a_wireguard_session_unchanged() {
        both(Identity::new);
    }

    #[cfg(feature = "test-session")]
    #[test]
    fn the_test_session_behaves_like_the_real_one() {
        both(Identity::for_test);
    }

    #[test]
    fn a_replayed_or_damaged_datagram_is_refused() {
        let (c, s) = ([1; 32], [2; 32]);
        let mut client = Identity::new(c).session(public_key(&s), 7);
        let mut server = Identity::new(s).session(public_key(&c), 9);
        shake(&mut client, &mut server);
        let mut frame = [0x40; 20];
        frame[2..4].copy_from_slice(&20u16.to_be_bytes());
        let (mut wire, mut out) = ([0; 256], [0; 256]);
        let (len, _) = client.seal(&frame, &mut wire).unwrap();
        let mut bad = wire;
        bad[20] ^= 1;
        assert_eq!(
            server.open(Time::ZERO, HERE, &bad[..len], &mut out),
            Err(OpenError::Forged)
        );
        assert!(
            server
                .open(Time::ZERO, HERE, &wire[..len], &mut out)
                .is_ok()
        );
        assert_eq!(
            server.open(Time::ZERO, HERE, &wire[..len], &mut out),
            Err(OpenError::Replayed)
        );
    }
}

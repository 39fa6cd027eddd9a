//! Sessions: WireGuard through boringtun, one per path. The only file that names it.
//!
//! Every datagram on the wire is a plain WireGuard message, so nothing here is
//! home-made cryptography. What is added around boringtun:
//!
//! * it silently queues packets while there is no session, so [`Session::seal`]
//!   refuses instead;
//! * it retries a lost handshake after 5 s, so the path asks for a fresh
//!   initiation itself, sooner;
//! * its timers have no deadline to ask for, and it notes all times by a clock that only
//!   they set, so [`Session::tick`] is called before anything is sealed or opened, some
//!   times a second at most, and every few seconds while nothing is;
//! * the counter of each message is the path's packet number, read from the
//!   plain header.
//!
//! With the feature `test-session` a session without cryptography can stand in,
//! with the same messages and sizes, so that a simulation has the same bytes in
//! every run. Production code never enables it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use boringtun::noise::errors::WireGuardError;
use boringtun::noise::handshake::parse_handshake_anon;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Packet, Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};

use crate::config::Key;
use crate::time::Time;

/// Bytes that sealing adds to a frame: type, index, counter, tag.
pub const OVERHEAD: usize = 32;
/// Bytes of the largest handshake message.
pub const HANDSHAKE_MAX: usize = 148;

/// Handshake initiations per second that are answered without asking the
/// initiator to prove its address first (a cookie). Each costs about 150 µs.
const HANDSHAKES_PER_SECOND: u64 = 300;

/// The public key that belongs to a secret key.
pub fn public_key(secret: &Key) -> Key {
    PublicKey::from(&StaticSecret::from(*secret)).to_bytes()
}

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

fn number(datagram: &[u8]) -> Number {
    let mut session = [0; 4];
    session.copy_from_slice(&datagram[4..8]);
    let mut counter = [0; 8];
    counter.copy_from_slice(&datagram[8..16]);
    Number {
        session: u32::from_le_bytes(session),
        counter: u64::from_le_bytes(counter),
    }
}

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

/// Our own identity, from which sessions are made.
#[derive(Clone)]
pub struct Identity {
    secret: Key,
    kind: IdentityKind,
}

#[derive(Clone)]
enum IdentityKind {
    Wireguard {
        /// Admits handshakes before any expensive computation.
        gate: Arc<RateLimiter>,
        /// Sessions check again; this one never says no.
        open: Arc<RateLimiter>,
    },
    #[cfg(feature = "test-session")]
    Test,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

/// What the gate says to a handshake initiation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It claims to be from this peer; the session will prove it.
    Claimed(Key),
    /// Under load: these bytes of the buffer ask it to prove its address.
    Reply(usize),
    /// Refused.
    Refused(OpenError),
}

impl Identity {
    /// The owner of a secret key.
    pub fn new(secret: Key) -> Self {
        let public = PublicKey::from(public_key(&secret));
        let kind = IdentityKind::Wireguard {
            gate: Arc::new(RateLimiter::new(&public, HANDSHAKES_PER_SECOND)),
            open: Arc::new(RateLimiter::new(&public, u64::MAX)),
        };
        Identity { secret, kind }
    }

    /// The owner of a secret key whose sessions are not encrypted; for simulations.
    #[cfg(feature = "test-session")]
    pub fn for_test(secret: Key) -> Self {
        Identity {
            secret,
            kind: IdentityKind::Test,
        }
    }

    /// Looks at a handshake initiation from a stranger.
    pub fn admit(&self, from: IpAddr, datagram: &[u8], out: &mut [u8]) -> Admission {
        match &self.kind {
            IdentityKind::Wireguard { gate, .. } => {
                // It counts anew once a second has passed since it last did.
                gate.reset_count();
                let init = match gate.verify_packet(Some(from), datagram, out) {
                    Ok(Packet::HandshakeInit(init)) => init,
                    Ok(_) => return Admission::Refused(OpenError::Malformed),
                    Err(TunnResult::WriteToNetwork(cookie)) => {
                        return Admission::Reply(cookie.len());
                    }
                    Err(TunnResult::Err(e)) => return Admission::Refused(e.into()),
                    Err(_) => return Admission::Refused(OpenError::Malformed),
                };
                let secret = StaticSecret::from(self.secret);
                let public = PublicKey::from(&secret);
                match parse_handshake_anon(&secret, &public, &init) {
                    Ok(half) => Admission::Claimed(half.peer_static_public),
                    Err(e) => Admission::Refused(e.into()),
                }
            }
            #[cfg(feature = "test-session")]
            IdentityKind::Test => {
                let mut key = [0; 32];
                key.copy_from_slice(&datagram[8..40]);
                Admission::Claimed(key)
            }
        }
    }

    /// A session with `peer`. The low 24 bits of `index` name it on the wire.
    pub fn session(&self, peer: Key, index: u32) -> Session {
        let index = index & 0x00ff_ffff;
        let kind = match &self.kind {
            IdentityKind::Wireguard { open, .. } => Kind::Wireguard(Box::new(Tunn::new(
                StaticSecret::from(self.secret),
                PublicKey::from(peer),
                None,
                None,
                index,
                Some(Arc::clone(open)),
            ))),
            #[cfg(feature = "test-session")]
            IdentityKind::Test => Kind::Test(test::TestSession::new(
                public_key(&self.secret),
                peer,
                index,
            )),
        };
        Session {
            kind,
            established: false,
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
}

enum Kind {
    Wireguard(Box<Tunn>),
    #[cfg(feature = "test-session")]
    Test(test::TestSession),
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
        Some((len, number(out)))
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
                Tick {
                    send,
                    established: self.established,
                }
            }
        }
    }
}

#[cfg(feature = "test-session")]
mod test {
    //! The same messages without cryptography.

    use super::{HANDSHAKE_MAX, Number, OVERHEAD, OpenError, Opened, number};
    use crate::config::Key;
    use crate::time::Time;
    use std::time::Duration;

    const REKEY_AFTER: Duration = Duration::from_secs(120);

    #[derive(Clone, Copy, Debug)]
    struct Keys {
        local: u32,
        remote: u32,
        counter: u64,
    }

    #[derive(Debug)]
    pub(super) struct TestSession {
        own: Key,
        peer: Key,
        index: u32,
        pending: Option<u32>,
        current: Option<Keys>,
        next: Option<Keys>,
        previous: Option<Keys>,
        newest_handshake: u64,
        established_at: Time,
        initiator: bool,
        has_sent: bool,
    }

    impl TestSession {
        pub(super) fn new(own: Key, peer: Key, index: u32) -> Self {
            TestSession {
                own,
                peer,
                index: index << 8,
                pending: None,
                current: None,
                next: None,
                previous: None,
                newest_handshake: 0,
                established_at: Time::ZERO,
                initiator: false,
                has_sent: false,
            }
        }

        fn next_index(&mut self) -> u32 {
            self.index = self.index & !0xff | (self.index.wrapping_add(1) & 0xff);
            self.index
        }

        pub(super) fn initiate(&mut self, now: Time, out: &mut [u8]) -> usize {
            let local = self.next_index();
            self.pending = Some(local);
            self.initiator = true;
            out[..HANDSHAKE_MAX].fill(0);
            out[0] = 1;
            out[4..8].copy_from_slice(&local.to_le_bytes());
            out[8..40].copy_from_slice(&self.own);
            out[40..48].copy_from_slice(&now.as_nanos().to_le_bytes());
            HANDSHAKE_MAX
        }

        pub(super) fn seal(&mut self, frame: &[u8], out: &mut [u8]) -> Option<usize> {
            let keys = self.current.as_mut()?;
            let len = frame.len() + OVERHEAD;
            out[..4].copy_from_slice(&4u32.to_le_bytes());
            out[4..8].copy_from_slice(&keys.remote.to_le_bytes());
            out[8..16].copy_from_slice(&keys.counter.to_le_bytes());
            out[16..16 + frame.len()].copy_from_slice(frame);
            out[16 + frame.len()..len].fill(0x5a);
            keys.counter += 1;
            self.has_sent |= !frame.is_empty();
            Some(len)
        }

        pub(super) fn age(&self, now: Time) -> Option<Duration> {
            self.current.map(|_| now.since(self.established_at))
        }

        fn establish(&mut self, now: Time, keys: Keys) {
            self.previous = self.current.replace(keys);
            self.established_at = now;
            self.has_sent = false;
        }

        pub(super) fn open(
            &mut self,
            now: Time,
            datagram: &[u8],
            out: &mut [u8],
        ) -> Result<Opened, OpenError> {
            let word = |at: usize| {
                u32::from_le_bytes([
                    datagram[at],
                    datagram[at + 1],
                    datagram[at + 2],
                    datagram[at + 3],
                ])
            };
            match datagram[0] {
                1 => {
                    let mut at = [0; 8];
                    at.copy_from_slice(&datagram[40..48]);
                    let at = u64::from_le_bytes(at);
                    if datagram[8..40] != self.peer {
                        return Err(OpenError::WrongKey);
                    }
                    if at <= self.newest_handshake && self.newest_handshake != 0 {
                        return Err(OpenError::OldHandshake);
                    }
                    self.newest_handshake = at;
                    let local = self.next_index();
                    self.next = Some(Keys {
                        local,
                        remote: word(4),
                        counter: 0,
                    });
                    out[..92].fill(0);
                    out[0] = 2;
                    out[4..8].copy_from_slice(&local.to_le_bytes());
                    out[8..12].copy_from_slice(&word(4).to_le_bytes());
                    Ok(Opened::Reply {
                        len: 92,
                        established: false,
                    })
                }
                2 => {
                    if self.pending.take() != Some(word(8)) {
                        return Err(OpenError::NoSession);
                    }
                    self.establish(
                        now,
                        Keys {
                            local: word(8),
                            remote: word(4),
                            counter: 0,
                        },
                    );
                    let len = self.seal(&[], out).ok_or(OpenError::NoSession)?;
                    Ok(Opened::Reply {
                        len,
                        established: true,
                    })
                }
                4 => {
                    let n: Number = number(datagram);
                    if self.next.is_some_and(|k| k.local == n.session) {
                        let keys = self.next.take().ok_or(OpenError::NoSession)?;
                        self.establish(now, keys);
                    }
                    let known = [self.current, self.previous];
                    if !known.iter().flatten().any(|k| k.local == n.session) {
                        return Err(OpenError::NoSession);
                    }
                    let content = &datagram[16..datagram.len() - 16];
                    if content.is_empty() {
                        return Ok(Opened::Keepalive { number: n });
                    }
                    let claimed = match (content[0] >> 4, content.len()) {
                        (4, 20..) => usize::from(u16::from_be_bytes([content[2], content[3]])),
                        (6, 40..) => 40 + usize::from(u16::from_be_bytes([content[4], content[5]])),
                        _ => return Err(OpenError::Malformed),
                    };
                    if claimed > content.len() {
                        return Err(OpenError::Malformed);
                    }
                    out[..claimed].copy_from_slice(&content[..claimed]);
                    Ok(Opened::Content {
                        len: claimed,
                        number: n,
                    })
                }
                _ => Ok(Opened::Quiet),
            }
        }

        pub(super) fn tick(&mut self, now: Time, out: &mut [u8]) -> Option<usize> {
            let old = self.current.is_some() && now.since(self.established_at) > REKEY_AFTER;
            let due = old && self.has_sent;
            (due && self.initiator && self.pending.is_none()).then(|| self.initiate(now, out))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn the_gate_reads_the_claimed_key_and_refuses_another_servers_handshake() {
        let (c, s) = ([1; 32], [2; 32]);
        let mut client = Identity::new(c).session(public_key(&s), 7);
        let (mut wire, mut out) = ([0; 256], [0; 256]);
        let len = client.initiate(Time::ZERO, &mut wire).unwrap();
        let admission = Identity::new(s).admit(HERE, &wire[..len], &mut out);
        assert_eq!(admission, Admission::Claimed(public_key(&c)));
        let other = Identity::new([3; 32]).admit(HERE, &wire[..len], &mut out);
        assert_eq!(other, Admission::Refused(OpenError::WrongKey));
        assert!(
            matches!(outer(&wire[..len]), Some(Outer::Initiation { sender }) if sender >> 8 == 7)
        );
    }
}

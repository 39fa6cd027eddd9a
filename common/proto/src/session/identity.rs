//! Our own identity: what sessions are made from, and the gate that strangers' handshakes pass first.
//!
//! A stranger's handshake costs time before anything is known of the stranger. So there is one gate for all of them: it
//! reads whose a handshake claims to be, and when too many come it asks for a proof of the sender's address first. The
//! session that is then made for the claimed peer proves the claim.

use std::net::IpAddr;
use std::sync::Arc;

use boringtun::noise::handshake::parse_handshake_anon;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Packet, Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};

#[cfg(feature = "test-session")]
use super::test_session::TestSession;
use super::{Kind, OpenError, Session};
use crate::config::Key;

/// Handshake initiations per second that are answered without asking the
/// initiator to prove its address first (a cookie). Each costs about 150 µs.
const HANDSHAKES_PER_SECOND: u64 = 300;

/// The public key that belongs to a secret key.
pub fn public_key(secret: &Key) -> Key {
    PublicKey::from(&StaticSecret::from(*secret)).to_bytes()
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
            IdentityKind::Test => {
                Kind::Test(TestSession::new(public_key(&self.secret), peer, index))
            }
        };
        Session {
            kind,
            established: false,
            receiver: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Outer, outer};
    use super::*;
    use crate::time::Time;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

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

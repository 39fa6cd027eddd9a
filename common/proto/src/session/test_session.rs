//! The same messages and sizes without cryptography, so that a simulation has the same bytes in every run.
//!
//! It keeps time by what it is given and draws nothing. Sessions are replaced in the same order as WireGuard's: what a
//! responder made counts once the initiator used it, and the one before stays good for what is still on its way.

use std::time::Duration;

use super::{HANDSHAKE_MAX, KEYS_LIVE, Number, OVERHEAD, OpenError, Opened, number};
use crate::config::Key;
use crate::time::Time;

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
        if now.since(self.established_at) > KEYS_LIVE {
            self.current = None;
            self.previous = None;
        }
        let old = self.current.is_some() && now.since(self.established_at) > REKEY_AFTER;
        let due = old && self.has_sent;
        (due && self.initiator && self.pending.is_none()).then(|| self.initiate(now, out))
    }
}

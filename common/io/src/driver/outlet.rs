//! A socket together with what it could not send yet.
//!
//! The core has accounted for a datagram when it hands it out. If the kernel has no
//! room just then, the datagram waits here and goes first as soon as there is room:
//! dropping it would look like loss on the path, and a path is judged by its
//! losses. The core paces what it sends, so little gathers; past [`WAITING_MAX`] the
//! newest is dropped and counted.

use std::collections::VecDeque;
use std::time::Duration;

use marline_proto::{SocketId, Time, Transmit};

use super::DriverStats;
use crate::udp::{ActiveSocket, Sent};

/// Bytes that may wait for one socket: 40 ms at 200 Mbit/s. A socket that is stuck for longer
/// belongs to a path that is about to be declared dead.
const WAITING_MAX: usize = 1 << 20;

/// How long a full queue below the socket is left alone; a Wi-Fi card's drains in about this.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(2);

/// Why a train was not sent and never will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The kernel does not send to that address this way.
    Unreachable,
    /// The interface does not carry datagrams of that length.
    TooLarge,
}

#[derive(Debug)]
pub(super) struct Outlet {
    pub(super) id: SocketId,
    pub(super) socket: ActiveSocket,
    waiting: VecDeque<(Transmit, Vec<u8>)>,
    waiting_bytes: usize,
    /// When to try again, where nobody tells that there is room.
    retry: Option<Time>,
}

impl Outlet {
    pub(super) fn new(id: SocketId, socket: ActiveSocket) -> Self {
        Outlet {
            id,
            socket,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            retry: None,
        }
    }

    /// When [`Self::resume`] wants to be called although nothing happened.
    pub(super) fn retry_at(&self) -> Option<Time> {
        self.retry
    }

    /// Whether it waits for the socket to become writable.
    pub(super) fn wants_room(&self) -> bool {
        !self.waiting.is_empty() && self.retry.is_none()
    }

    /// Whether anything waits.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Sends a train, or keeps it if there is no room. Tells when the kernel will not take it at all.
    pub(super) fn send(
        &mut self,
        now: Time,
        transmit: &Transmit,
        datagrams: &[u8],
        stats: &mut DriverStats,
    ) -> Result<(), Refusal> {
        if !self.waiting.is_empty() {
            self.keep(transmit, datagrams, stats);
            return Ok(());
        }
        match self.socket.send(transmit, datagrams) {
            Sent::All => {}
            Sent::Blocked(sent) => {
                stats.sends_blocked += 1;
                self.keep(transmit, &datagrams[sent..], stats);
            }
            Sent::QueueFull(sent) => {
                stats.sends_queue_full += 1;
                self.retry = Some(now + QUEUE_FULL_PAUSE);
                self.keep(transmit, &datagrams[sent..], stats);
            }
            Sent::TooLarge => {
                stats.sends_too_large += 1;
                return Err(Refusal::TooLarge);
            }
            Sent::Refused(why) => {
                stats.sends_refused += 1;
                tracing::trace!("sending to {} is refused: {why}", transmit.remote);
                return Err(Refusal::Unreachable);
            }
        }
        Ok(())
    }

    /// Sends what waited, as far as there is room now. Calls `refused` for trains that the kernel
    /// will not take at all.
    pub(super) fn resume(
        &mut self,
        now: Time,
        stats: &mut DriverStats,
        mut refused: impl FnMut(&Transmit, Refusal),
    ) {
        if self.retry.is_some_and(|at| now < at) {
            return;
        }
        self.retry = None;
        while let Some((transmit, mut datagrams)) = self.waiting.pop_front() {
            self.waiting_bytes -= datagrams.len();
            let (sent, pause) = match self.socket.send(&transmit, &datagrams) {
                Sent::All => continue,
                Sent::TooLarge => {
                    stats.sends_too_large += 1;
                    refused(&transmit, Refusal::TooLarge);
                    continue;
                }
                Sent::Refused(_) => {
                    stats.sends_refused += 1;
                    refused(&transmit, Refusal::Unreachable);
                    continue;
                }
                Sent::Blocked(sent) => (sent, None),
                Sent::QueueFull(sent) => (sent, Some(now + QUEUE_FULL_PAUSE)),
            };
            datagrams.drain(..sent);
            self.waiting_bytes += datagrams.len();
            self.waiting.push_front((transmit, datagrams));
            self.retry = pause;
            return;
        }
    }

    fn keep(&mut self, transmit: &Transmit, datagrams: &[u8], stats: &mut DriverStats) {
        if self.waiting_bytes + datagrams.len() > WAITING_MAX {
            stats.sends_dropped += 1;
            return;
        }
        self.waiting_bytes += datagrams.len();
        self.waiting.push_back((*transmit, datagrams.to_vec()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::udp::UplinkSocket;
    use std::io::IoSliceMut;

    /// What a kept train carries arrives, in order and once, when the socket has room again.
    #[tokio::test]
    async fn what_had_to_wait_goes_first_and_nothing_is_lost() {
        let address = "127.0.0.1:0".parse().expect("an address");
        let receiver = UplinkSocket::listen(address).expect("bound");
        let remote = receiver.local_addr().expect("bound");
        let receiver = receiver.start().expect("started");
        let socket = UplinkSocket::listen(address)
            .expect("bound")
            .start()
            .expect("started");
        let mut outlet = Outlet::new(SocketId(1), socket);
        let mut stats = DriverStats::default();
        let train = |number: u8| {
            let transmit = Transmit {
                socket: SocketId(1),
                remote,
                local: None,
                len: 200,
                segment_len: 100,
            };
            (transmit, vec![number; 200])
        };
        // As if the first had met a full queue.
        let start = Time::from_millis(10);
        let (transmit, datagrams) = train(0);
        outlet.keep(&transmit, &datagrams, &mut stats);
        outlet.retry = Some(start + QUEUE_FULL_PAUSE);
        for number in 1..4 {
            let (transmit, datagrams) = train(number);
            assert_eq!(
                outlet.send(start, &transmit, &datagrams, &mut stats),
                Ok(())
            );
        }
        let mut buf = [0; 65_536];
        let mut meta = [quinn_udp::RecvMeta::default()];
        outlet.resume(start, &mut stats, |_, _| panic!("nothing is refused"));
        assert!(
            receiver
                .recv_now(&mut [IoSliceMut::new(&mut buf)], &mut meta)
                .is_err()
        );
        outlet.resume(start + QUEUE_FULL_PAUSE, &mut stats, |_, _| {
            panic!("nothing is refused")
        });
        assert!(!outlet.is_waiting() && outlet.waiting_bytes == 0);
        let mut got = Vec::new();
        while receiver
            .recv_now(&mut [IoSliceMut::new(&mut buf)], &mut meta)
            .is_ok()
        {
            got.extend(
                buf[..meta[0].len]
                    .chunks(meta[0].stride)
                    .map(|d| (d.len(), d[0])),
            );
        }
        assert_eq!(got, [0, 0, 1, 1, 2, 2, 3, 3].map(|number| (100, number)));
        assert_eq!(stats.sends_dropped, 0);
    }

    #[tokio::test]
    async fn what_waits_is_bounded_and_what_is_dropped_is_counted() {
        let address = "127.0.0.1:0".parse().expect("an address");
        let socket = UplinkSocket::listen(address)
            .expect("bound")
            .start()
            .expect("started");
        let mut outlet = Outlet::new(SocketId(1), socket);
        let mut stats = DriverStats::default();
        let remote = "127.0.0.1:9".parse().expect("an address");
        let transmit = Transmit {
            socket: SocketId(1),
            remote,
            local: None,
            len: 60_000,
            segment_len: 1000,
        };
        for _ in 0..20 {
            outlet.keep(&transmit, &[0; 60_000], &mut stats);
        }
        assert!(outlet.waiting_bytes <= WAITING_MAX);
        assert_eq!(stats.sends_dropped, 3);
    }
}

//! UDP as fast as it goes: one sender that never waits, one receiver that counts.
//!
//! Both move many packets per system call, so that they take little of the machine from the
//! tunnel between them. Most of what is sent is dropped at the TUN device's queue; what counts is
//! what comes out at the other end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use socket2::Socket;

use super::{Measured, Window};
use crate::results::Direction;
use crate::sys;
use crate::workload::Ends;

/// Packets per system call.
const TOGETHER: usize = 64;

/// How long the first packet may take: WireGuard tries a handshake again after 5 s, when its first
/// came before the other side listened.
const FIRST_WITHIN: Duration = Duration::from_secs(12);
/// How often it is sent again: a queue that an earlier flood left behind may swallow it.
const AGAIN_EVERY: Duration = Duration::from_millis(100);

/// Floods packets with `bytes` of payload.
pub fn measure(
    ends: Ends<'_>,
    bytes: usize,
    direction: Direction,
    window: &Window<'_>,
) -> Result<Measured> {
    let (host, client) = introduce(ends, window)?;
    let (sender, receiver) = match direction {
        Direction::Down => (host, client),
        Direction::Up => (client, host),
    };
    receiver.set_recv_buffer_size(4 << 20)?;
    receiver.set_read_timeout(Some(Duration::from_millis(100)))?;
    // Whatever becomes of the tunnel, the sender sees that it has to end.
    sender.set_write_timeout(Some(Duration::from_millis(100)))?;
    let stop = Arc::new(AtomicBool::new(false));
    let packets = Arc::new(AtomicU64::new(0));
    let sending = {
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || {
            while !stop.load(Relaxed) {
                if sys::send_many(&sender, &vec![0x5a; bytes], TOGETHER).is_err() {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        })
    };
    let receiving = {
        let (stop, packets) = (Arc::clone(&stop), Arc::clone(&packets));
        std::thread::spawn(move || {
            while !stop.load(Relaxed) {
                if let Ok(count) = sys::receive_many(&receiver, TOGETHER) {
                    packets.fetch_add(count as u64, Relaxed);
                }
            }
        })
    };
    let measured = window.measure(|| {
        let packets = packets.load(Relaxed);
        (packets * bytes as u64, Some(packets))
    });
    stop.store(true, Relaxed);
    for thread in [sending, receiving] {
        // It only fails when the thread panicked, and then there are no figures.
        let _ = thread.join();
    }
    measured
}

/// Two connected sockets, the host's and the client's: packets get through, and the host has learnt
/// where the client is through whatever translates addresses on the way.
pub fn introduce(ends: Ends<'_>, window: &Window<'_>) -> Result<(Socket, Socket)> {
    let (host, client, target) = ends.udp_pair(false)?;
    client.connect(&target.into())?;
    host.set_read_timeout(Some(AGAIN_EVERY))?;
    let give_up = Instant::now() + FIRST_WITHIN;
    while Instant::now() < give_up {
        window.interrupt.check()?;
        // An error is that of an earlier packet, or goes away like a tunnel that is not up yet.
        let _ = client.send(&[0]);
        if let Ok((_, back)) = host.recv_from(&mut [std::mem::MaybeUninit::uninit(); 16]) {
            host.connect(&back)?;
            return Ok((host, client));
        }
    }
    bail!("no packet came through in {} s", FIRST_WITHIN.as_secs());
}

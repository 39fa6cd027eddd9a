//! UDP as fast as it goes: one sender that never waits, one receiver that counts.
//!
//! Both move many packets per system call, so that they take little of the machine from the
//! tunnel between them. Most of what is sent is dropped at the TUN device's queue; what counts is
//! what comes out at the other end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::Result;
use socket2::{Domain, Protocol, Type};

use super::{Measured, Window};
use crate::results::Direction;
use crate::sys;
use crate::workload::Ends;

/// Packets per system call.
const TOGETHER: usize = 64;

/// Floods packets with `bytes` of payload.
pub fn measure(
    ends: Ends<'_>,
    bytes: usize,
    direction: Direction,
    window: &Window<'_>,
) -> Result<Measured> {
    let (host, target) = ends.host_socket(false, Type::DGRAM, Protocol::UDP)?;
    let client = ends.client_socket(Domain::for_address(target), Type::DGRAM, Protocol::UDP)?;
    client.connect(&target.into())?;
    // The host learns where the client is, through whatever translates addresses on the way.
    client.send(&[0])?;
    host.set_read_timeout(Some(Duration::from_secs(5)))?;
    let (_, back) = host.recv_from(&mut [std::mem::MaybeUninit::uninit(); 16])?;
    host.connect(&back)?;
    let (sender, receiver) = match direction {
        Direction::Down => (host, client),
        Direction::Up => (client, host),
    };
    receiver.set_recv_buffer_size(4 << 20)?;
    receiver.set_read_timeout(Some(Duration::from_millis(100)))?;
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

//! Short fetches, one after the other, each over a new TCP connection, as a web page makes them.

use std::io::{Read, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Result;
use marline_sim::rng::Rng;
use socket2::{Domain, Socket, Type};

use super::{Ends, Shared, Traffic};
use crate::netns::Namespace;
use crate::scenario::Workload;

/// Sizes of the answers, bytes: from an image to a script bundle.
const SIZES: std::ops::Range<u64> = 30_000..300_000;
/// Pause between two fetches.
const PAUSE: Duration = Duration::from_millis(50);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A fetch in which nothing arrives for this long has failed.
const READ_TIMEOUT: Duration = Duration::from_secs(20);

pub(super) fn start(
    traffic: &mut Traffic,
    shared: &Shared,
    ends: Ends<'_>,
    workload: &Workload,
    seed: u64,
) -> Result<()> {
    let log: Arc<Mutex<Vec<f64>>> = Arc::default();
    let protocol = ends.stream_protocol();
    let (listener, target) = ends.host_socket(workload.ipv6, Type::STREAM, protocol)?;
    listener.listen(16)?;
    shared.remember(&listener);
    let host = shared.clone();
    traffic.spawn("web-host", move || {
        while !host.stopped() {
            let Ok((socket, _)) = listener.accept() else {
                break;
            };
            host.remember(&socket);
            // One fetch at a time is what the client does.
            let _ = answer(&socket);
        }
    })?;
    let start = shared.span.at(workload.start_s);
    let (shared, fetches) = (shared.clone(), log.clone());
    let (name, device) = (ends.client.name().to_owned(), ends.way.device.clone());
    traffic.spawn("web-client", move || {
        // This thread makes a socket per fetch, so it moves into the namespace for good.
        if Namespace::enter_named(&name).is_err() || !shared.sleep_until(start) {
            return;
        }
        let mut rng = Rng::new(seed);
        while !shared.stopped() {
            let size = SIZES.start + rng.below(SIZES.end - SIZES.start);
            let begun = Instant::now();
            let fetched = Socket::new(Domain::for_address(target), Type::STREAM, Some(protocol))
                .and_then(|socket| {
                    if let Some(device) = &device {
                        socket.bind_device(Some(device.as_bytes()))?;
                    }
                    shared.remember(&socket);
                    socket.connect_timeout(&target.into(), CONNECT_TIMEOUT)?;
                    socket.set_read_timeout(Some(READ_TIMEOUT))?;
                    fetch(&socket, size)
                });
            let took_ms = begun.elapsed().as_secs_f64() * 1000.0;
            if shared.stopped() {
                return;
            }
            if let Ok(mut fetches) = fetches.lock() {
                // A failed fetch counts with the time the user waited in vain.
                let failed_ms = READ_TIMEOUT.as_secs_f64() * 1000.0;
                fetches.push(if fetched.is_ok() {
                    took_ms
                } else {
                    took_ms.max(failed_ms)
                });
            }
            shared.sleep_until(Instant::now() + PAUSE);
        }
    })?;
    traffic.fetches_ms = Some(log);
    Ok(())
}

fn answer(mut socket: &Socket) -> std::io::Result<()> {
    socket.set_read_timeout(Some(READ_TIMEOUT))?;
    let mut size = [0; 8];
    socket.read_exact(&mut size)?;
    let data = [0x5a; 16 * 1024];
    let mut left = u64::from_be_bytes(size).min(SIZES.end) as usize;
    while left > 0 {
        let now = left.min(data.len());
        socket.write_all(&data[..now])?;
        left -= now;
    }
    socket.shutdown(std::net::Shutdown::Write)
}

fn fetch(mut socket: &Socket, size: u64) -> std::io::Result<()> {
    socket.write_all(&size.to_be_bytes())?;
    let mut buffer = vec![0; 64 * 1024];
    let mut got = 0;
    loop {
        match socket.read(&mut buffer)? {
            0 if got == size => return Ok(()),
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            bytes => got += bytes as u64,
        }
    }
}

//! Round trips of small UDP packets that the internet host echoes.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::Result;

use super::{Ends, PingLog, Shared, Traffic};
use crate::results::Ping;
use crate::scenario::Workload;

/// Payload of one packet: that of an ordinary ping.
const PACKET_BYTES: usize = 56;
const LOOK_UP: Duration = Duration::from_millis(50);

pub(super) fn start(
    traffic: &mut Traffic,
    shared: &Shared,
    ends: Ends<'_>,
    workload: &Workload,
) -> Result<()> {
    let log = Arc::new(PingLog::default());
    let (host, client, target) = ends.udp_pair(workload.ipv6)?;
    let (host, client): (UdpSocket, UdpSocket) = (host.into(), client.into());
    for socket in [&host, &client] {
        socket.set_read_timeout(Some(LOOK_UP))?;
    }
    let interval = Duration::from_secs_f64(1.0 / workload.per_second);
    let start = shared.span.at(workload.start_s);

    let echo = shared.clone();
    traffic.spawn("ping-echo", move || {
        let mut buffer = [0; 2048];
        while !echo.stop.load(Relaxed) {
            if let Ok((length, from)) = host.recv_from(&mut buffer) {
                let _ = host.send_to(&buffer[..length], from);
            }
        }
    })?;
    let receiver = (shared.clone(), log.clone(), client.try_clone()?);
    traffic.spawn("ping-receive", move || {
        let (shared, log, client) = receiver;
        let mut buffer = [0; 2048];
        while !shared.stop.load(Relaxed) {
            let Ok(length) = client.recv(&mut buffer) else {
                continue;
            };
            let now_ms = shared.span.now_ms();
            let Some(number) = buffer[..length].first_chunk::<4>() else {
                continue;
            };
            if let Ok(mut pings) = log.pings.lock()
                && let Some(ping) = pings.get_mut(u32::from_be_bytes(*number) as usize)
                && ping.rtt_ms.is_none()
            {
                let rtt_ms = now_ms - ping.sent_ms;
                ping.rtt_ms = Some(rtt_ms);
                log.worst.see(rtt_ms);
            }
        }
    })?;
    let sender = (shared.clone(), log.clone());
    traffic.spawn("ping-send", move || {
        let (shared, log) = sender;
        let mut packet = [0; PACKET_BYTES];
        if !shared.sleep_until(start) || client.connect(target).is_err() {
            return;
        }
        let mut next = std::time::Instant::now();
        for sequence in 0u32.. {
            if !shared.sleep_until(next) || shared.stopped() {
                return;
            }
            packet[..4].copy_from_slice(&sequence.to_be_bytes());
            if let Ok(mut pings) = log.pings.lock() {
                pings.push(Ping {
                    sent_ms: shared.span.now_ms(),
                    rtt_ms: None,
                });
            }
            let _ = client.send(&packet);
            next += interval;
        }
    })?;
    traffic.pings = Some(log);
    Ok(())
}

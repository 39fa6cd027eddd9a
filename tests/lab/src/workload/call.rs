//! A call: small packets at a steady pace in both directions at the same time.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;

use super::{CallLog, Ends, Shared, Traffic};
use crate::results::{CallPacket, Direction};
use crate::scenario::Workload;

/// Payload of one packet: 20 ms of good voice with its RTP header.
const PACKET_BYTES: usize = 172;
/// How long a receiver waits before it looks whether the run is over.
const LOOK_UP: Duration = Duration::from_millis(50);

pub(super) fn start(
    traffic: &mut Traffic,
    shared: &Shared,
    ends: Ends<'_>,
    workload: &Workload,
) -> Result<()> {
    let log = Arc::new(CallLog::default());
    let (host, client, target) = ends.udp_pair(workload.ipv6)?;
    let (host, client): (UdpSocket, UdpSocket) = (host.into(), client.into());
    for socket in [&host, &client] {
        socket.set_read_timeout(Some(LOOK_UP))?;
    }
    let interval = Duration::from_secs_f64(1.0 / workload.per_second);
    let start = shared.span.at(workload.start_s);

    // The host answers to wherever the caller's first packet came from.
    let (found, caller) = channel::<SocketAddr>();
    let receivers = [
        (Direction::Up, host.try_clone()?, Some(found)),
        (Direction::Down, client.try_clone()?, None),
    ];
    for (direction, socket, mut found) in receivers {
        let (shared, log) = (shared.clone(), log.clone());
        traffic.spawn("call-receive", move || {
            let mut buffer = [0; 2048];
            // Runs on past the end of the run for what is still under way.
            while !shared.stop.load(Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut buffer) else {
                    continue;
                };
                if let Some(found) = found.take() {
                    let _ = found.send(from);
                }
                log.note_arrival(direction, &buffer[..length], shared.span.now_ms());
            }
        })?;
    }
    let sender = (shared.clone(), log.clone());
    traffic.spawn("call-send", move || {
        let (shared, log) = sender;
        // A bond without a way out refuses the packet: it is sent, and lost.
        if shared.sleep_until(start) && client.connect(target).is_ok() {
            log.send_all(Direction::Up, &shared, interval, |packet| {
                let _ = client.send(packet);
            });
        }
    })?;
    let sender = (shared.clone(), log.clone());
    traffic.spawn("call-send", move || {
        let (shared, log) = sender;
        while !shared.stopped() {
            if let Ok(caller) = caller.recv_timeout(LOOK_UP) {
                log.send_all(Direction::Down, &shared, interval, |packet| {
                    let _ = host.send_to(packet, caller);
                });
                return;
            }
        }
    })?;
    traffic.call = Some(log);
    Ok(())
}

impl CallLog {
    fn slot<T>(slots: &[Mutex<T>; 2], direction: Direction) -> &Mutex<T> {
        &slots[usize::from(direction == Direction::Up)]
    }

    fn send_all(
        &self,
        direction: Direction,
        shared: &Shared,
        interval: Duration,
        send: impl Fn(&[u8]),
    ) {
        let mut packet = [0; PACKET_BYTES];
        let mut next = std::time::Instant::now();
        for sequence in 0u32.. {
            if !shared.sleep_until(next) || shared.stopped() {
                return;
            }
            packet[..4].copy_from_slice(&sequence.to_be_bytes());
            if let Ok(mut packets) = Self::slot(&self.packets, direction).lock() {
                let sent_ms = shared.span.now_ms();
                packets.push(CallPacket {
                    direction,
                    sequence,
                    sent_ms,
                    latency_ms: None,
                });
            }
            self.sent.fetch_add(1, Relaxed);
            send(&packet);
            next += interval;
        }
    }

    fn note_arrival(&self, direction: Direction, packet: &[u8], now_ms: f64) {
        let Some(number) = packet.first_chunk::<4>() else {
            return;
        };
        let sequence = u32::from_be_bytes(*number) as usize;
        let Ok(mut packets) = Self::slot(&self.packets, direction).lock() else {
            return;
        };
        // A second copy changes nothing.
        let Some(sent) = packets
            .get_mut(sequence)
            .filter(|sent| sent.latency_ms.is_none())
        else {
            return;
        };
        let latency_ms = now_ms - sent.sent_ms;
        sent.latency_ms = Some(latency_ms);
        self.worst.see(latency_ms);
        self.received.fetch_add(1, Relaxed);
        if let Ok(mut arrivals) = Self::slot(&self.arrivals_ms, direction).lock() {
            arrivals.push(now_ms);
        }
    }
}

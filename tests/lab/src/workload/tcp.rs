//! Bulk TCP: flows that always have something to send.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::Result;
use socket2::{Domain, Socket, Type};

use super::{Ends, Outcome, Shared, Traffic};
use crate::deliveries::Deliveries;
use crate::results::Direction;
use crate::scenario::{Cc, Workload};
use crate::sys;

/// Bytes per write; with the kernel's own send buffer behind it, never the limit.
const WRITE_BYTES: usize = 256 * 1024;
/// Bytes per read.
const READ_BYTES: usize = 1024 * 1024;
/// A connection that needs longer to come about has failed.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) fn start(
    traffic: &mut Traffic,
    shared: &Shared,
    ends: Ends<'_>,
    workload: &Workload,
    cc: Option<Cc>,
    direction: Direction,
) -> Result<()> {
    let cc = cc.unwrap_or(Cc::Cubic);
    for number in 1..=workload.flows {
        let (deliveries, outcome) =
            traffic.add_flow(workload, (number, cc.name()), direction, shared.span);
        let (listener, target) =
            ends.host_socket(workload.ipv6, Type::STREAM, ends.stream_protocol())?;
        listener.listen(1)?;
        shared.remember(&listener);
        let caller = ends.client_socket(
            Domain::for_address(target),
            Type::STREAM,
            ends.stream_protocol(),
        )?;
        // Congestion control is a matter of the sender; set before the connection begins, on
        // the listener too, whose children inherit it.
        let sender_template = if direction == Direction::Down {
            &listener
        } else {
            &caller
        };
        sender_template.set_tcp_congestion(cc.name().as_bytes())?;
        shared.remember(&caller);

        let start = shared.span.at(workload.start_s);
        let host_side = Flow {
            shared: shared.clone(),
            deliveries: deliveries.clone(),
            outcome: outcome.clone(),
        };
        let client_side = Flow {
            shared: shared.clone(),
            deliveries,
            outcome,
        };
        traffic.spawn("tcp-host", move || match listener.accept() {
            Ok((socket, _)) => {
                host_side.shared.remember(&socket);
                match direction {
                    Direction::Down => host_side.send(&socket),
                    Direction::Up => host_side.receive(&socket),
                }
            }
            Err(error) => {
                if !host_side.shared.stopped() {
                    host_side.outcome.broke(format!("not accepted: {error}"));
                }
            }
        })?;
        traffic.spawn("tcp-client", move || {
            if !client_side.shared.sleep_until(start) {
                return;
            }
            if let Err(error) = caller.connect_timeout(&target.into(), CONNECT_TIMEOUT) {
                client_side
                    .outcome
                    .broke(format!("cannot connect: {error}"));
                return;
            }
            match direction {
                Direction::Down => client_side.receive(&caller),
                Direction::Up => client_side.send(&caller),
            }
        })?;
    }
    Ok(())
}

struct Flow {
    shared: Shared,
    deliveries: Arc<Deliveries>,
    outcome: Arc<Outcome>,
}

impl Flow {
    fn send(&self, socket: &Socket) {
        let data = vec![0x5a; WRITE_BYTES];
        // What still waits when the run ends is thrown away with the connection.
        let _ = socket.set_linger(Some(Duration::ZERO));
        while !self.shared.stopped() {
            if let Err(error) = (&mut &*socket).write(&data) {
                if !self.shared.stopped() {
                    self.outcome.broke(format!("sender: {error}"));
                }
                break;
            }
        }
        if let Ok(retransmits) = sys::tcp_retransmits(socket) {
            self.outcome.retransmits.store(retransmits, Relaxed);
        }
    }

    fn receive(&self, socket: &Socket) {
        let mut buffer = vec![0; READ_BYTES];
        let _ = socket.set_linger(Some(Duration::ZERO));
        while !self.shared.stopped() {
            match (&mut &*socket).read(&mut buffer) {
                Ok(0) => break,
                Ok(bytes) => self.deliveries.note(bytes),
                Err(error) => {
                    if !self.shared.stopped() {
                        self.outcome.broke(format!("receiver: {error}"));
                    }
                    break;
                }
            }
        }
    }
}

//! The traffic of real applications between the client and the internet host.
//!
//! All of it runs in this process: a socket belongs to the namespace it was made in, so one
//! process can hold both ends, and both ends share one clock. One-way latency is therefore exact
//! without any synchronisation, and "delivered" means handed to the receiving thread.
//!
//! [`Traffic::start`] starts every workload of a scenario at once; they end by themselves at the
//! end of the run. What they note can be read at any time.

mod call;
mod ping;
mod quic;
mod tcp;
mod web;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};

use crate::deliveries::Deliveries;
use crate::netns::Namespace;
use crate::results::{CallPacket, Direction, Ping};
use crate::scenario::{Cc, Kind, Workload};
use crate::topology::{HOST_V4, HOST_V6, wan};

/// How long after the end of a run packets under way may still arrive.
pub const GRACE: Duration = Duration::from_millis(800);

/// How traffic leaves the client.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Way {
    /// The client's sockets are bound to this device: natively over one link.
    pub device: Option<String>,
    /// TCP flows use the kernel's MPTCP.
    pub mptcp: bool,
    /// Address that stands for the internet host, where a tunnel needs another.
    pub target: Option<IpAddr>,
}

/// The two namespaces that traffic runs between, and how it leaves the client.
#[derive(Clone, Copy)]
pub struct Ends<'a> {
    /// Where connections begin.
    pub client: &'a Namespace,
    /// Where they are accepted.
    pub host: &'a Namespace,
    /// How they leave the client.
    pub way: &'a Way,
}

/// When a run begins and ends.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// Origin of all times of the run.
    pub origin: Instant,
    /// Length, s.
    pub seconds: f64,
}

impl Span {
    /// The moment so many seconds into the run.
    pub fn at(&self, seconds: f64) -> Instant {
        self.origin + Duration::from_secs_f64(seconds)
    }

    /// The end of the run.
    pub fn end(&self) -> Instant {
        self.at(self.seconds)
    }

    /// Milliseconds since the origin.
    pub fn now_ms(&self) -> f64 {
        self.origin.elapsed().as_secs_f64() * 1000.0
    }
}

/// One bulk flow.
#[derive(Debug)]
pub struct BulkFlow {
    /// Its name in plots.
    pub name: String,
    /// When it starts, s from the start of the run.
    pub start_s: f64,
    /// Whether it is what is measured, or what it is measured beside.
    pub part: Part,
    /// What arrived when.
    pub deliveries: Arc<Deliveries>,
    /// How it ended.
    pub outcome: Arc<Outcome>,
}

/// What a bulk flow is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Measured.
    Measured,
    /// Goes the same way, so that the rest is measured beside it.
    Beside,
    /// The same over one link without the tunnel: somebody else.
    Foreign,
}

/// How a bulk flow ended.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Segments its TCP sender sent again.
    pub retransmits: AtomicU64,
    /// Why it broke before the end of the run.
    pub broken: Mutex<Option<String>>,
}

impl Outcome {
    fn broke(&self, what: impl std::fmt::Display) {
        if let Ok(mut slot) = self.broken.lock() {
            slot.get_or_insert_with(|| what.to_string());
        }
    }
}

/// What a call has recorded.
#[derive(Debug, Default)]
pub struct CallLog {
    /// Packets of each direction (down, up) in order of sending.
    pub packets: [Mutex<Vec<CallPacket>>; 2],
    /// Packets received, both directions.
    pub received: AtomicU64,
    /// Packets sent, both directions.
    pub sent: AtomicU64,
    /// Moments of arrival per direction (down, up), ms.
    pub arrivals_ms: [Mutex<Vec<f64>>; 2],
    /// Worst latency since somebody last took it.
    pub worst: Worst,
}

/// What pings have recorded.
#[derive(Debug, Default)]
pub struct PingLog {
    /// Pings in order of sending.
    pub pings: Mutex<Vec<Ping>>,
    /// Worst round trip since somebody last took it.
    pub worst: Worst,
}

/// The worst of the latencies seen since the last look.
#[derive(Debug, Default)]
pub struct Worst {
    micros: AtomicU64,
}

impl Worst {
    fn see(&self, ms: f64) {
        self.micros
            .fetch_max((ms * 1000.0).max(1.0) as u64, Relaxed);
    }

    /// The worst so far, ms, and forgets it; None when nothing was seen.
    pub fn take_ms(&self) -> Option<f64> {
        let micros = self.micros.swap(0, Relaxed);
        (micros > 0).then_some(micros as f64 / 1000.0)
    }
}

/// The running workloads of one run.
#[derive(Default)]
pub struct Traffic {
    /// Bulk flows in order of the scenario.
    pub flows: Vec<BulkFlow>,
    /// The call, if one runs.
    pub call: Option<Arc<CallLog>>,
    /// Pings, if they run.
    pub pings: Option<Arc<PingLog>>,
    /// Completion times of web fetches, ms, if they run.
    pub fetches_ms: Option<Arc<Mutex<Vec<f64>>>>,
    stop: Arc<AtomicBool>,
    sockets: Arc<Mutex<Vec<Socket>>>,
    threads: Vec<JoinHandle<()>>,
}

/// What every workload's threads share.
#[derive(Clone)]
struct Shared {
    span: Span,
    stop: Arc<AtomicBool>,
    sockets: Arc<Mutex<Vec<Socket>>>,
}

impl Shared {
    fn stopped(&self) -> bool {
        self.stop.load(Relaxed) || Instant::now() >= self.span.end()
    }

    /// Sleeps until a moment of the run; false when the run was stopped meanwhile.
    fn sleep_until(&self, moment: Instant) -> bool {
        while let Some(left) = moment.checked_duration_since(Instant::now()) {
            if self.stop.load(Relaxed) {
                return false;
            }
            std::thread::sleep(left.min(Duration::from_millis(100)));
        }
        true
    }

    /// Keeps a handle of a socket, so that a thread blocked in it can be woken at the end.
    fn remember(&self, socket: &Socket) {
        if let (Ok(copy), Ok(mut sockets)) = (socket.try_clone(), self.sockets.lock()) {
            sockets.push(copy);
        }
    }
}

impl Traffic {
    /// Starts the workloads; bulk flows go in `direction`, TCP flows use `cc`.
    pub fn start(
        workloads: &[Workload],
        ends: Ends<'_>,
        cc: Option<Cc>,
        direction: Direction,
        span: Span,
        seed: u64,
    ) -> Result<Traffic> {
        let mut traffic = Traffic::default();
        let shared = Shared {
            span,
            stop: traffic.stop.clone(),
            sockets: traffic.sockets.clone(),
        };
        for workload in workloads {
            let context = || format!("cannot start the workload {:?}", workload.kind);
            let foreign = workload.link.map(|link| Way {
                device: Some(wan(link - 1)),
                ..Way::default()
            });
            let ends = Ends {
                way: foreign.as_ref().unwrap_or(ends.way),
                ..ends
            };
            let direction = workload.direction.unwrap_or(direction);
            match workload.kind {
                Kind::Tcp => {
                    tcp::start(&mut traffic, &shared, ends, workload, cc, direction)
                        .with_context(context)?;
                }
                Kind::Quic => {
                    quic::start(&mut traffic, &shared, ends, workload, direction)
                        .with_context(context)?;
                }
                Kind::Call => {
                    call::start(&mut traffic, &shared, ends, workload).with_context(context)?;
                }
                Kind::Ping => {
                    ping::start(&mut traffic, &shared, ends, workload).with_context(context)?;
                }
                Kind::Web => {
                    web::start(&mut traffic, &shared, ends, workload, seed)
                        .with_context(context)?;
                }
                Kind::Idle => {}
            }
        }
        Ok(traffic)
    }

    /// Waits for packets under way, ends every thread and closes every socket.
    pub fn finish(&mut self) {
        if self.call.is_some() || self.pings.is_some() {
            std::thread::sleep(GRACE);
        }
        self.stop_now();
    }

    fn stop_now(&mut self) {
        self.stop.store(true, Relaxed);
        if let Ok(sockets) = self.sockets.lock() {
            for socket in sockets.iter() {
                let _ = socket.shutdown(std::net::Shutdown::Both);
            }
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        if let Ok(mut sockets) = self.sockets.lock() {
            sockets.clear();
        }
    }

    /// A flow of a bulk workload; `what` names its transport.
    fn add_flow(
        &mut self,
        workload: &Workload,
        (number, what): (usize, &str),
        direction: Direction,
        span: Span,
    ) -> (Arc<Deliveries>, Arc<Outcome>) {
        let word = match direction {
            Direction::Down => "download",
            Direction::Up => "upload",
        };
        let mut name = format!("{word} {number} ({what})");
        let part = match workload.link {
            Some(link) => {
                name += &format!(" of others on {}", wan(link - 1));
                Part::Foreign
            }
            None if workload.is_beside() => Part::Beside,
            None => Part::Measured,
        };
        let deliveries = Arc::new(Deliveries::new(span.origin, span.seconds + 1.0));
        let outcome = Arc::new(Outcome::default());
        self.flows.push(BulkFlow {
            name,
            start_s: workload.start_s,
            part,
            deliveries: deliveries.clone(),
            outcome: outcome.clone(),
        });
        (deliveries, outcome)
    }

    fn spawn(&mut self, name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let thread = std::thread::Builder::new().name(name.into()).spawn(work)?;
        self.threads.push(thread);
        Ok(())
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop_now();
    }
}

impl Ends<'_> {
    /// The address workloads connect to.
    fn target(&self, ipv6: bool) -> IpAddr {
        let host = if ipv6 { HOST_V6 } else { HOST_V4 };
        match (self.way.target, host.parse()) {
            (Some(target), _) => target,
            (None, Ok(address)) => address,
            (None, Err(_)) => unreachable!("the host's addresses are constants"),
        }
    }

    /// A fresh socket in the client's namespace, bound to the way's device.
    pub fn client_socket(
        &self,
        domain: Domain,
        kind: Type,
        protocol: Protocol,
    ) -> io::Result<Socket> {
        self.client.run(|| {
            let socket = Socket::new(domain, kind, Some(protocol))?;
            if let Some(device) = &self.way.device {
                socket.bind_device(Some(device.as_bytes()))?;
            }
            Ok(socket)
        })?
    }

    /// A fresh socket in the host's namespace, bound to every address and a free port.
    pub fn host_socket(
        &self,
        ipv6: bool,
        kind: Type,
        protocol: Protocol,
    ) -> io::Result<(Socket, SocketAddr)> {
        let target = self.target(ipv6);
        let socket = self.host.run(|| {
            Socket::new(
                Domain::for_address((target, 0).into()),
                kind,
                Some(protocol),
            )
        })??;
        let any: IpAddr = match target {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        socket.bind(&SocketAddr::new(any, 0).into())?;
        let port = socket
            .local_addr()?
            .as_socket()
            .map_or(0, |address| address.port());
        Ok((socket, SocketAddr::new(target, port)))
    }

    /// Fresh UDP sockets, the host's and the client's, and the address of the host's.
    pub fn udp_pair(&self, ipv6: bool) -> io::Result<(Socket, Socket, SocketAddr)> {
        let (host, target) = self.host_socket(ipv6, Type::DGRAM, Protocol::UDP)?;
        let domain = Domain::for_address(target);
        let client = self.client_socket(domain, Type::DGRAM, Protocol::UDP)?;
        Ok((host, client, target))
    }

    fn stream_protocol(&self) -> Protocol {
        if self.way.mptcp {
            Protocol::MPTCP
        } else {
            Protocol::TCP
        }
    }
}

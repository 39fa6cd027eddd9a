//! The emulated wires, driven in real time.
//!
//! A wire joins two TAP devices, one in the client's namespace and one in the server's. What a
//! kernel sends into its TAP is read as single Ethernet frames with finished checksums; the frame
//! is offered to the pure link model of its direction (`marline_sim::link`), and when the model
//! says that it has arrived it is written into the other TAP.
//!
//! One thread owns all wires. It waits in `poll` until a frame comes or the earliest model
//! deadline, at the lowest real-time priority so that busy neighbours on the machine do not delay
//! it. Commands reach it over a channel with an eventfd as its bell; counters leave it through
//! atomics, so nobody ever makes it wait for a lock.
//!
//! **Lateness** is how much later a frame was written than the model said, for every frame. It is
//! kept in a histogram with steps of 10 µs and reported with every run: a run on a machine that
//! could not keep up tells so.
//!
//! ARP and neighbour discovery pass beside the model, at once and always, as if a modem at the
//! client's end answered them. So a silent wire is silent in the strictest sense: its kernel
//! never gets the hint of an unreachable neighbour.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use marline_sim::link::{Link, LinkParams};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};

use crate::results::Direction;
use crate::sys;

/// Length of an Ethernet header; the model counts packets from their IP header on.
const ETHERNET_HEADER_BYTES: usize = 14;
/// Frames read from one TAP before the others get their turn.
const FRAMES_PER_TURN: usize = 64;
/// Histogram of lateness: this many steps of this many nanoseconds, the last takes all above.
const LATENESS_STEPS: usize = 1000;
const LATENESS_STEP_NANOS: u64 = 10_000;

/// Parameters of a wire in both directions.
#[derive(Clone, Debug, PartialEq)]
pub struct WireParams {
    /// Towards the client.
    pub down: LinkParams,
    /// From the client.
    pub up: LinkParams,
}

/// What a wire has delivered; updated by the emulator, read by anyone.
#[derive(Debug, Default)]
pub struct Counters {
    /// Bytes of IP packets that came out at the client.
    pub down_bytes: AtomicU64,
    /// Bytes of IP packets that came out at the server's side.
    pub up_bytes: AtomicU64,
}

/// How well the emulator kept its times since the last [`Emulator::reset_lateness`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Lateness {
    /// 99th percentile over all frames, ms.
    pub p99_ms: f64,
    /// The latest frame, ms.
    pub max_ms: f64,
    /// Frames behind these figures.
    pub frames: u64,
}

struct LatenessCounters {
    steps: Vec<AtomicU64>,
    max_nanos: AtomicU64,
}

enum Order {
    Lay {
        index: usize,
        client: File,
        server: File,
        params: WireParams,
        seed: u64,
    },
    Remove {
        index: usize,
    },
    Replace {
        index: usize,
        client: File,
    },
    Renew {
        index: usize,
        params: WireParams,
        seed: u64,
    },
    Params {
        index: usize,
        down: Option<LinkParams>,
        up: Option<LinkParams>,
    },
    Blackhole {
        index: usize,
        direction: Direction,
        silent: bool,
    },
    Carrier {
        index: usize,
        plugged: bool,
    },
    Stop,
}

/// Handle of the running emulator; stops it on drop.
pub struct Emulator {
    orders: Sender<Order>,
    bell: Arc<OwnedFd>,
    counters: Vec<Arc<Counters>>,
    lateness: Arc<LatenessCounters>,
    cpu_nanos: Arc<AtomicU64>,
    realtime: Arc<AtomicBool>,
    failure: Arc<Mutex<Option<String>>>,
    thread: Option<JoinHandle<()>>,
}

impl Emulator {
    /// Starts an emulator with room for `wires` wires, none laid yet.
    pub fn start(wires: usize) -> Result<Emulator> {
        let (orders, inbox) = channel();
        let bell = Arc::new(
            rustix::event::eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)
                .context("cannot make an eventfd")?,
        );
        let counters: Vec<Arc<Counters>> = (0..wires).map(|_| Arc::default()).collect();
        let lateness = Arc::new(LatenessCounters {
            steps: (0..LATENESS_STEPS).map(|_| AtomicU64::new(0)).collect(),
            max_nanos: AtomicU64::new(0),
        });
        let cpu_nanos = Arc::new(AtomicU64::new(0));
        let realtime = Arc::new(AtomicBool::new(false));
        let failure = Arc::new(Mutex::new(None));
        let worker = Worker {
            origin: Instant::now(),
            wires: (0..wires).map(|_| None).collect(),
            counters: counters.clone(),
            lateness: lateness.clone(),
            inbox,
            bell: bell.clone(),
            cpu_nanos: cpu_nanos.clone(),
        };
        let thread = std::thread::Builder::new().name("emulator".into()).spawn({
            let (failure, realtime) = (failure.clone(), realtime.clone());
            move || {
                // Without the priority the emulator still works; its lateness then tells.
                realtime.store(sys::become_realtime().is_ok(), Relaxed);
                if let Err(error) = worker.run()
                    && let Ok(mut slot) = failure.lock()
                {
                    *slot = Some(format!("{error:#}"));
                }
            }
        })?;
        Ok(Emulator {
            orders,
            bell,
            counters,
            lateness,
            cpu_nanos,
            realtime,
            failure,
            thread: Some(thread),
        })
    }

    /// Lays wire `index`, with everything new, between the devices behind these two files.
    pub fn lay(&self, index: usize, ends: (File, File), params: WireParams, seed: u64) {
        let (client, server) = ends;
        self.order(Order::Lay {
            index,
            client,
            server,
            params,
            seed,
        });
    }

    /// Takes the client's end of wire `index` away; its device vanishes, the far end stays.
    pub fn remove(&self, index: usize) {
        self.order(Order::Remove { index });
    }

    /// Gives wire `index` a new device at the client's end.
    pub fn replace(&self, index: usize, client: File) {
        self.order(Order::Replace { index, client });
    }

    /// Empties wire `index` and starts its model anew.
    pub fn renew(&self, index: usize, params: WireParams, seed: u64) {
        self.order(Order::Renew {
            index,
            params,
            seed,
        });
    }

    /// Changes the parameters of wire `index` in the directions given. A blackhole stays.
    pub fn set(&self, index: usize, down: Option<LinkParams>, up: Option<LinkParams>) {
        self.order(Order::Params { index, down, up });
    }

    /// Lets one direction of wire `index` swallow everything, or stops that.
    pub fn blackhole(&self, index: usize, direction: Direction, silent: bool) {
        self.order(Order::Blackhole {
            index,
            direction,
            silent,
        });
    }

    /// Pulls or plugs the cable at the client's end: its kernel sees it.
    pub fn carrier(&self, index: usize, plugged: bool) {
        self.order(Order::Carrier { index, plugged });
    }

    /// Live counters of wire `index`.
    pub fn counters(&self, index: usize) -> &Arc<Counters> {
        &self.counters[index]
    }

    /// Processor time the emulator thread has used, with the kernel's work for its frames.
    pub fn cpu_time(&self) -> Duration {
        Duration::from_nanos(self.cpu_nanos.load(Relaxed))
    }

    /// Whether the emulator got its real-time priority.
    pub fn is_realtime(&self) -> bool {
        self.realtime.load(Relaxed)
    }

    /// Forgets the lateness seen so far.
    pub fn reset_lateness(&self) {
        for step in &self.lateness.steps {
            step.store(0, Relaxed);
        }
        self.lateness.max_nanos.store(0, Relaxed);
    }

    /// Lateness since the last reset.
    pub fn lateness(&self) -> Lateness {
        let counts: Vec<u64> = self
            .lateness
            .steps
            .iter()
            .map(|step| step.load(Relaxed))
            .collect();
        let frames: u64 = counts.iter().sum();
        let wanted = frames - frames / 100;
        let mut seen = 0;
        let mut p99_ms = 0.0;
        for (index, count) in counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                p99_ms = ((index as u64 + 1) * LATENESS_STEP_NANOS) as f64 / 1e6;
                break;
            }
        }
        let max_ms = self.lateness.max_nanos.load(Relaxed) as f64 / 1e6;
        Lateness {
            p99_ms: if frames == 0 { 0.0 } else { p99_ms },
            max_ms,
            frames,
        }
    }

    /// Why the emulator ended by itself, if it did.
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().ok().and_then(|slot| slot.clone())
    }

    fn order(&self, order: Order) {
        // A failed worker is found through `failure`; an order to it has no effect.
        let _ = self.orders.send(order);
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.order(Order::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

type Frame = Box<[u8]>;

struct Wire {
    /// None while the client's device is gone.
    client: Option<File>,
    server: File,
    /// Whether the cable at the client's end is in.
    plugged: bool,
    down: Link<Frame>,
    up: Link<Frame>,
}

struct Worker {
    origin: Instant,
    wires: Vec<Option<Wire>>,
    counters: Vec<Arc<Counters>>,
    lateness: Arc<LatenessCounters>,
    inbox: Receiver<Order>,
    bell: Arc<OwnedFd>,
    cpu_nanos: Arc<AtomicU64>,
}

impl Worker {
    fn run(mut self) -> Result<()> {
        let mut buffer = vec![0; 65_536];
        let mut next_cpu_report = 0;
        loop {
            self.deliver();
            if self.now() >= next_cpu_report {
                self.cpu_nanos
                    .store(sys::thread_cpu_time().as_nanos() as u64, Relaxed);
                next_cpu_report = self.now() + 20_000_000;
            }
            let (bell_rang, ready) = self.wait()?;
            if bell_rang {
                let mut value = [0; 8];
                let _ = rustix::io::read(&self.bell, &mut value);
                while let Ok(order) = self.inbox.try_recv() {
                    if matches!(order, Order::Stop) {
                        return Ok(());
                    }
                    self.obey(order);
                }
            }
            for (index, direction) in ready {
                self.take_in(index, direction, &mut buffer);
            }
        }
    }

    fn now(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }

    /// Waits for a frame, the bell, or the next deadline; names the ends that have frames.
    fn wait(&self) -> Result<(bool, Vec<(usize, Direction)>)> {
        let mut names = Vec::new();
        let mut polled = vec![PollFd::new(&*self.bell, PollFlags::IN)];
        let mut deadline: Option<u64> = None;
        for (index, wire) in self.wires.iter().enumerate() {
            let Some(wire) = wire else { continue };
            let ends = [
                (wire.client.as_ref(), Direction::Up),
                (Some(&wire.server), Direction::Down),
            ];
            for (file, direction) in ends {
                let Some(file) = file else { continue };
                polled.push(PollFd::from_borrowed_fd(file.as_fd(), PollFlags::IN));
                names.push((index, direction));
            }
            for next in [wire.down.next_deadline(), wire.up.next_deadline()]
                .into_iter()
                .flatten()
            {
                deadline = Some(deadline.map_or(next, |earliest| earliest.min(next)));
            }
        }
        let timeout = deadline.map(|at| {
            let left = Duration::from_nanos(at.saturating_sub(self.now()));
            Timespec {
                tv_sec: left.as_secs() as i64,
                tv_nsec: left.subsec_nanos().into(),
            }
        });
        match rustix::event::poll(&mut polled, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("poll on the wires failed"),
        }
        let ready = names
            .into_iter()
            .zip(&polled[1..])
            .filter(|(_, fd)| !fd.revents().is_empty())
            .map(|(name, _)| name)
            .collect();
        Ok((!polled[0].revents().is_empty(), ready))
    }

    /// Reads what one kernel sent and offers it to the link of that direction.
    fn take_in(&mut self, index: usize, direction: Direction, buffer: &mut [u8]) {
        for _ in 0..FRAMES_PER_TURN {
            let now = self.now();
            let Some(wire) = self.wires[index].as_mut() else {
                return;
            };
            let (file, link) = match direction {
                Direction::Up => (wire.client.as_mut(), &mut wire.up),
                Direction::Down => (Some(&mut wire.server), &mut wire.down),
            };
            let Some(file) = file else { return };
            let length = match file.read(buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // Somebody deleted the device; an end left in the poll set would be reported as
                // ready for ever.
                Err(_) if direction == Direction::Up => {
                    wire.client = None;
                    return;
                }
                Err(_) => {
                    self.wires[index] = None;
                    return;
                }
            };
            if finds_neighbours(&buffer[..length]) {
                let far = match direction {
                    Direction::Up => Some(&mut wire.server),
                    Direction::Down => wire.client.as_mut().filter(|_| wire.plugged),
                };
                // Refused only by a device that is down or gone, which answers no question.
                let _ = far.map(|far| far.write(&buffer[..length]));
                continue;
            }
            let frame: Frame = buffer[..length].into();
            let packet_bytes = length.saturating_sub(ETHERNET_HEADER_BYTES);
            // A refusal is counted in the link's own statistics.
            let _ = link.enqueue(now, packet_bytes, frame);
        }
    }

    /// Writes out everything that has arrived by now.
    fn deliver(&mut self) {
        for index in 0..self.wires.len() {
            for direction in [Direction::Down, Direction::Up] {
                self.deliver_one_way(index, direction);
            }
        }
    }

    fn deliver_one_way(&mut self, index: usize, direction: Direction) {
        loop {
            let now = self.now();
            let Some(wire) = self.wires[index].as_mut() else {
                return;
            };
            let plugged = wire.plugged;
            let (file, link) = match direction {
                Direction::Up => (Some(&mut wire.server), &mut wire.up),
                Direction::Down => (wire.client.as_mut().filter(|_| plugged), &mut wire.down),
            };
            let Some(due) = link.next_deadline().filter(|due| *due <= now) else {
                return;
            };
            let Some(frame) = link.poll_deliver(now) else {
                return;
            };
            // No device, or one that is down: the frame is lost, as on a cable to nowhere.
            if file.is_none_or(|file| file.write(&frame).is_err()) {
                continue;
            }
            let late = now - due;
            let step = (late / LATENESS_STEP_NANOS).min(LATENESS_STEPS as u64 - 1) as usize;
            self.lateness.steps[step].fetch_add(1, Relaxed);
            self.lateness.max_nanos.fetch_max(late, Relaxed);
            let bytes = frame.len().saturating_sub(ETHERNET_HEADER_BYTES) as u64;
            let counters = &self.counters[index];
            match direction {
                Direction::Down => &counters.down_bytes,
                Direction::Up => &counters.up_bytes,
            }
            .fetch_add(bytes, Relaxed);
        }
    }

    fn obey(&mut self, order: Order) {
        let now = self.now();
        match order {
            Order::Lay {
                index,
                client,
                server,
                params,
                seed,
            } => {
                let [down, up] = new_links(now, params, seed);
                self.wires[index] = Some(Wire {
                    client: Some(client),
                    server,
                    plugged: true,
                    down,
                    up,
                });
            }
            Order::Renew {
                index,
                params,
                seed,
            } => {
                if let Some(wire) = self.wires[index].as_mut() {
                    [wire.down, wire.up] = new_links(now, params, seed);
                }
            }
            Order::Remove { index } => {
                if let Some(wire) = self.wires[index].as_mut() {
                    wire.client = None;
                }
            }
            Order::Replace { index, client } => {
                if let Some(wire) = self.wires[index].as_mut() {
                    wire.client = Some(client);
                    wire.plugged = true;
                }
            }
            Order::Params { index, down, up } => {
                if let Some(wire) = self.wires[index].as_mut() {
                    for (link, params) in [(&mut wire.down, down), (&mut wire.up, up)] {
                        let blackhole = link.params().blackhole;
                        if let Some(params) = params {
                            link.set(
                                now,
                                LinkParams {
                                    blackhole,
                                    ..params
                                },
                            );
                        }
                    }
                }
            }
            Order::Blackhole {
                index,
                direction,
                silent,
            } => {
                if let Some(wire) = self.wires[index].as_mut() {
                    let link = match direction {
                        Direction::Down => &mut wire.down,
                        Direction::Up => &mut wire.up,
                    };
                    let params = LinkParams {
                        blackhole: silent,
                        ..link.params().clone()
                    };
                    link.set(now, params);
                }
            }
            Order::Carrier { index, plugged } => {
                if let Some(wire) = self.wires[index].as_mut() {
                    wire.plugged = plugged;
                    if let Some(client) = &wire.client {
                        let _ = sys::set_tap_carrier(client, plugged);
                    }
                }
            }
            Order::Stop => {}
        }
    }
}

/// Empty links for both directions (down, up), whose schedules begin now.
fn new_links(now: u64, params: WireParams, seed: u64) -> [Link<Frame>; 2] {
    let start = |params, seed| {
        let mut link = Link::new(LinkParams::default(), seed);
        link.set(now, params);
        link
    };
    [
        start(params.down, seed.wrapping_mul(2)),
        start(params.up, seed.wrapping_mul(2).wrapping_add(1)),
    ]
}

/// Whether a frame is ARP or IPv6 neighbour discovery.
fn finds_neighbours(frame: &[u8]) -> bool {
    const ARP: &[u8] = &[0x08, 0x06];
    const IPV6: &[u8] = &[0x86, 0xdd];
    const ICMPV6: u8 = 58;
    match frame.get(12..ETHERNET_HEADER_BYTES) {
        Some(ARP) => true,
        // Next header at 6, and the ICMPv6 type behind the 40 bytes of the IPv6 header.
        Some(IPV6) => {
            frame.get(20) == Some(&ICMPV6)
                && frame.get(54).is_some_and(|kind| (133..=137).contains(kind))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbour_discovery_is_told_from_other_packets() {
        let frame = |ether_type: [u8; 2], next_header, icmp_type| {
            let mut frame = vec![0; 60];
            frame[12..14].copy_from_slice(&ether_type);
            frame[20] = next_header;
            frame[54] = icmp_type;
            frame
        };
        assert!(finds_neighbours(&frame([0x08, 0x06], 0, 0)), "ARP");
        assert!(
            finds_neighbours(&frame([0x86, 0xdd], 58, 135)),
            "neighbour solicitation"
        );
        assert!(
            !finds_neighbours(&frame([0x86, 0xdd], 58, 128)),
            "an echo request"
        );
        assert!(!finds_neighbours(&frame([0x86, 0xdd], 17, 135)), "UDP");
        assert!(!finds_neighbours(&frame([0x08, 0x00], 58, 135)), "IPv4");
        assert!(!finds_neighbours(&[0; 8]), "a torn frame");
    }
}

//! The loop that owns the core and moves its packets.
//!
//! One task owns an [`Endpoint`]; nobody else touches it, so there is no lock.
//! Everybody else talks to it through a [`Handle`]. Each turn of the loop does, in
//! this order:
//!
//! 1. sockets: what arrived goes to the core, up to a budget, and what comes of it to the TUN,
//!    each batch before the next is received, while it is in the cache;
//! 2. TUN: what applications want to send goes to the core, up to a budget;
//! 3. orders: sockets and commands from outside;
//! 4. time: `handle_timeout`, if it is due;
//! 5. out: what the core wants to send, until it has no more, trains at a time;
//! 6. in: packets for applications, joined into runs, to the TUN;
//! 7. news: events to whoever listens.
//!
//! A server may run several such loops, its workers: each has an endpoint with a part
//! of the peers, sockets of its own on the same port and a queue of its own of the
//! TUN, and they share nothing. What arrived at one and is another's is passed on
//! between steps 1 and 3; a lone loop has nobody to pass anything to.
//!
//! Sockets come before time on purpose. When this process was late — the machine
//! slept, another one held the processor — the acknowledgements that a path's
//! timeout waits for may lie in the socket already, and the core must see them
//! before it hears how late it is, or our own sloth would be taken for the path's
//! death. For the same reason a late turn looks into every socket itself instead of
//! trusting what the runtime has seen, and time has to wait while a socket still
//! holds datagrams, for at most [`POSTPONED_MAX`] turns.
//!
//! Nothing waits for company: a lone packet passes in the turn it came in. Batches
//! form by themselves when much arrives at once.
//!
//! Give the loop a thread of its own ([`Driver::spawn`]): a status page being
//! written must not delay a packet.

use std::io::{self, IoSliceMut};
use std::task::Poll;
use std::time::Duration;

use marline_proto::{Arrival, Command, Endpoint, Event, PacketBuf, Time, Transmit, limits};
use quinn_udp::RecvMeta;
use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, mpsc};

pub use self::handle::Handle;
use self::handle::Order;
use self::neighbours::Neighbours;
use self::outlet::{Outlet, Refusal};
use self::timer::Timer;
use crate::clock::Clock;
use crate::tun::offload::{self, FRAME_MAX, Joiner};
use crate::tun::{ActiveTun, Tun};

mod handle;
mod neighbours;
mod outlet;
mod timer;

/// Orders that may wait for the loop; who has more waits for room.
const ORDERS_MAX: usize = 64;
/// Events that a listener may lag behind before it misses some.
const EVENTS_MAX: usize = 1024;
/// Messages taken from a socket by one system call, each up to a train of datagrams: these, and the
/// packets that are made of them, fit a processor's second-level cache until they are given to the TUN.
const RECEIVE_BATCH: usize = 4;
/// Bytes that one received train can have.
const RECEIVE_LEN: usize = 65_536;
/// System calls in one turn on one socket: with full trains 4 MiB, or a few milliseconds' work.
const RECEIVES_PER_TURN: usize = 16;
/// Frames read from the TUN in one turn, each up to 64 KiB.
const READS_PER_TURN: usize = 8;
/// Trains sent in one turn.
const TRAINS_PER_TURN: usize = 64;
/// Packets written to the TUN in one turn.
const PACKETS_PER_TURN: usize = 1024;
/// Datagrams asked for at a time: the kernel cuts a train into no more (`UDP_MAX_SEGMENTS` of linux/udp.h).
const TRAIN_SEGMENTS: usize = 64;
/// Turns that time may have to wait for sockets that hold more than their budget.
const POSTPONED_MAX: u32 = 4;
/// Lateness from which the runtime's view of the sockets is not trusted, and is counted.
const LATE: Duration = Duration::from_micros(500);
/// Lateness that only a sleeping machine or a stopped process explains. An idle bond asks for time every five seconds, so a sleep
/// may last so much longer before it is noticed.
const SLEPT: Duration = Duration::from_secs(3);
/// The device is asked itself at least so often whether it is still there, as the runtime does not tell; a little less
/// often than a bond asks for time, so that this alone wakes nobody who has one.
const LOOK_EVERY: Duration = Duration::from_secs(6);
/// How long goodbyes may wait for room in a socket when the driver stops.
const GOODBYE: Duration = Duration::from_millis(100);

/// What the loop has counted since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriverStats {
    /// Turns of the loop.
    pub turns: u64,
    /// Timeouts handled.
    pub timeouts: u64,
    /// Timeouts handled more than half a millisecond late.
    pub timeouts_late: u64,
    /// The latest a timeout was ever handled, in microseconds.
    pub late_us_max: u64,
    /// Times that the machine must have slept.
    pub slept: u64,
    /// Trains sent, of one or more datagrams.
    pub trains: u64,
    /// Trains that had to wait for room in the socket.
    pub sends_blocked: u64,
    /// Trains that had to wait for a queue below the socket.
    pub sends_queue_full: u64,
    /// Trains dropped as too long for the interface: mostly probes of a size.
    pub sends_too_large: u64,
    /// Trains that the kernel refused to send at all.
    pub sends_refused: u64,
    /// Trains dropped as too many waited already.
    pub sends_dropped: u64,
    /// Trains for a socket that is gone.
    pub sends_without_socket: u64,
    /// Frames from the TUN that were not understood or too long.
    pub tun_reads_refused: u64,
    /// Frames that the TUN did not take (it is down, or memory is short).
    pub tun_writes_refused: u64,
    /// Packets and datagrams passed on to the worker whose they were.
    pub handed_over: u64,
}

impl DriverStats {
    /// Takes the counts of another loop in.
    fn add(&mut self, other: &DriverStats) {
        let DriverStats {
            turns,
            timeouts,
            timeouts_late,
            late_us_max,
            slept,
            trains,
            sends_blocked,
            sends_queue_full,
            sends_too_large,
            sends_refused,
            sends_dropped,
            sends_without_socket,
            tun_reads_refused,
            tun_writes_refused,
            handed_over,
        } = *other;
        self.turns += turns;
        self.timeouts += timeouts;
        self.timeouts_late += timeouts_late;
        self.late_us_max = self.late_us_max.max(late_us_max);
        self.slept = self.slept.max(slept);
        self.trains += trains;
        self.sends_blocked += sends_blocked;
        self.sends_queue_full += sends_queue_full;
        self.sends_too_large += sends_too_large;
        self.sends_refused += sends_refused;
        self.sends_dropped += sends_dropped;
        self.sends_without_socket += sends_without_socket;
        self.tun_reads_refused += tun_reads_refused;
        self.tun_writes_refused += tun_writes_refused;
        self.handed_over += handed_over;
    }
}

/// The loop, before it runs.
#[derive(Debug)]
pub struct Driver {
    endpoint: Endpoint,
    tun: Tun,
    clock: Clock,
    orders: mpsc::Receiver<Order>,
    events: broadcast::Sender<Event>,
    /// The other workers, if there are any.
    neighbours: Option<Neighbours>,
}

impl Driver {
    /// A driver and the handle that others talk to it by.
    pub fn new(endpoint: Endpoint, tun: Tun, clock: Clock) -> (Driver, Handle) {
        let (mut drivers, handle) = Self::workers(vec![(endpoint, tun)], clock);
        (drivers.pop().expect("one was made"), handle)
    }

    /// The drivers of a server's workers, each with its endpoint ([`Endpoint::workers`]) and its
    /// queue of the TUN, and the one handle to all of them.
    pub fn workers(parts: Vec<(Endpoint, Tun)>, clock: Clock) -> (Vec<Driver>, Handle) {
        let (events, _) = broadcast::channel(EVENTS_MAX);
        let neighbours: Vec<Option<Neighbours>> = match parts.len() {
            1 => vec![None],
            count => Neighbours::among(count).into_iter().map(Some).collect(),
        };
        let (drivers, orders) = parts
            .into_iter()
            .zip(neighbours)
            .map(|((endpoint, tun), neighbours)| {
                let (order, orders) = mpsc::channel(ORDERS_MAX);
                let driver = Driver {
                    endpoint,
                    tun,
                    clock,
                    orders,
                    events: events.clone(),
                    neighbours,
                };
                (driver, order)
            })
            .unzip();
        let handle = Handle::new(orders, events.downgrade());
        (drivers, handle)
    }

    /// Runs until it is stopped, on the calling thread's runtime.
    ///
    /// An error means that the TUN device is gone or the runtime is broken.
    pub async fn run(self) -> io::Result<()> {
        let mut running = Running::start(self)?;
        while running.turn()? {
            running.wait().await?;
        }
        running.say_goodbye().await;
        Ok(())
    }

    /// Runs on a new thread with a runtime of its own, in the caller's network namespace.
    pub fn spawn(self) -> io::Result<std::thread::JoinHandle<io::Result<()>>> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        std::thread::Builder::new()
            .name("marline-driver".to_owned())
            .spawn(move || runtime.block_on(self.run()))
    }
}

/// The loop's state while it runs.
struct Running {
    endpoint: Endpoint,
    clock: Clock,
    tun: ActiveTun,
    outlets: Vec<Outlet>,
    orders: mpsc::Receiver<Order>,
    /// The order that ended the last wait.
    next_order: Option<Order>,
    events: broadcast::Sender<Event>,
    neighbours: Option<Neighbours>,
    timer: Timer,
    joiner: Joiner,
    stats: DriverStats,
    /// Something is left to do that nobody will wake us for.
    busy: bool,
    postponed: u32,
    /// When the device was last asked itself.
    looked: Time,
    stopping: bool,
    receive_buf: Box<[u8]>,
    frame_buf: Box<[u8]>,
    train_buf: Vec<u8>,
}

/// Where packets from the TUN go to.
struct Inbound<'a> {
    endpoint: &'a mut Endpoint,
    now: Time,
}

impl offload::Sink for Inbound<'_> {
    fn take(&mut self) -> PacketBuf {
        self.endpoint.buffer()
    }

    fn give(&mut self, packet: PacketBuf) {
        self.endpoint.handle_packet(self.now, packet);
    }
}

impl Running {
    fn start(driver: Driver) -> io::Result<Self> {
        let joiner = Joiner::new(driver.tun.udp_offload());
        Ok(Running {
            endpoint: driver.endpoint,
            clock: driver.clock,
            tun: driver.tun.start()?,
            outlets: Vec::new(),
            orders: driver.orders,
            next_order: None,
            events: driver.events,
            neighbours: driver.neighbours,
            timer: Timer::new(driver.clock)?,
            joiner,
            stats: DriverStats::default(),
            busy: false,
            postponed: 0,
            looked: driver.clock.now(),
            stopping: false,
            receive_buf: vec![0; RECEIVE_BATCH * RECEIVE_LEN].into_boxed_slice(),
            frame_buf: vec![0; FRAME_MAX].into_boxed_slice(),
            train_buf: Vec::with_capacity(RECEIVE_LEN),
        })
    }

    /// One turn, as the module's first page tells it; false when the driver is to stop.
    fn turn(&mut self) -> io::Result<bool> {
        self.stats.turns += 1;
        self.busy = false;
        let now = self.clock.now();
        let late = self.lateness(now);
        if late.is_some_and(|late| late >= SLEPT) {
            self.stats.slept += 1;
            self.endpoint.handle_command(now, Command::Woke);
        }
        let drained = self.drain_sockets(late.is_some_and(|late| late >= LATE));
        self.drain_neighbours();
        if late.is_some() || now.since(self.looked) >= LOOK_EVERY {
            self.looked = now;
        }
        self.drain_tun(self.looked == now)?;
        self.hand_over();
        self.follow_orders();
        self.pass_time(drained);
        self.send();
        self.deliver();
        self.tell();
        Ok(!self.stopping)
    }

    /// Until something is to be done.
    async fn wait(&mut self) -> io::Result<()> {
        let due = self.endpoint.poll_timeout().map(|(at, _)| at);
        let retry = self.outlets.iter().filter_map(Outlet::retry_at).min();
        let look = self.looked + LOOK_EVERY;
        let wake = [due, retry].into_iter().flatten().fold(look, Time::min);
        if self.busy || wake <= self.clock.now() {
            // Lets the runtime look at the sockets, and other tasks have their turn.
            tokio::task::yield_now().await;
            return Ok(());
        }
        self.timer.set(wake)?;
        std::future::poll_fn(|cx| {
            // All are asked, as only those that were asked will wake us.
            let mut ready = self.tun.poll_readable(cx);
            for outlet in &self.outlets {
                ready |= outlet.socket.poll_readable(cx);
                ready |= outlet.wants_room() && outlet.socket.poll_writable(cx);
            }
            if let Some(neighbours) = &mut self.neighbours {
                ready |= neighbours.poll_any(cx);
            }
            ready |= self.timer.poll_elapsed(cx);
            if let Poll::Ready(order) = self.orders.poll_recv(cx) {
                // No handle is left: nobody could ever stop us.
                self.next_order = Some(order.unwrap_or(Order::Stop));
                ready = true;
            }
            if ready {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
        Ok(())
    }

    /// How long the core's timeout has been due; `None` when it is not.
    fn lateness(&mut self, now: Time) -> Option<Duration> {
        let (due, _) = self.endpoint.poll_timeout()?;
        (due <= now).then(|| now.since(due))
    }

    /// Takes what arrived; false when a socket still held more at the end of its budget.
    fn drain_sockets(&mut self, look_myself: bool) -> bool {
        let mut drained = true;
        for at in 0..self.outlets.len() {
            let mut left = RECEIVES_PER_TURN;
            loop {
                let mut meta = [RecvMeta::default(); RECEIVE_BATCH];
                let mut rest = self.receive_buf.chunks_mut(RECEIVE_LEN);
                let mut bufs: [IoSliceMut<'_>; RECEIVE_BATCH] = std::array::from_fn(|_| {
                    IoSliceMut::new(rest.next().expect("the buffer holds a batch"))
                });
                let outlet = &self.outlets[at];
                let received = if look_myself {
                    outlet.socket.recv_now(&mut bufs, &mut meta)
                } else {
                    outlet.socket.try_recv(&mut bufs, &mut meta)
                };
                let count = match received {
                    Ok(count) => count,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => {
                        // What went wrong with an earlier datagram; the next call is not affected.
                        tracing::debug!("receiving on socket {} failed: {error}", outlet.id.0);
                        break;
                    }
                };
                let now = self.clock.now();
                for (meta, buf) in meta[..count]
                    .iter()
                    .zip(self.receive_buf.chunks(RECEIVE_LEN))
                {
                    let arrival = Arrival {
                        socket: outlet.id,
                        remote: meta.addr,
                        local: meta.dst_ip,
                    };
                    for datagram in buf[..meta.len].chunks(meta.stride.max(1)) {
                        self.endpoint.handle_datagram(now, arrival, datagram);
                    }
                }
                self.join();
                left -= 1;
                if left == 0 {
                    drained = false;
                    break;
                }
            }
        }
        self.deliver();
        self.busy |= !drained;
        drained
    }

    /// Takes what arrived at other workers and is ours.
    fn drain_neighbours(&mut self) {
        let Some(neighbours) = &mut self.neighbours else {
            return;
        };
        let now = self.clock.now();
        for _ in 0..limits::HANDOVERS {
            let Some(handover) = neighbours.take() else {
                return;
            };
            self.endpoint.handle_handover(now, handover);
        }
        self.busy = true;
    }

    /// Passes on what arrived here and is another worker's.
    fn hand_over(&mut self) {
        let Some(neighbours) = &self.neighbours else {
            return;
        };
        while let Some((worker, handover)) = self.endpoint.poll_handover() {
            match neighbours.give(worker, handover) {
                None => self.stats.handed_over += 1,
                Some(refused) => self.endpoint.handle_handover_refused(refused),
            }
        }
    }

    /// Takes what applications want to send.
    ///
    /// Now and then the device is asked itself, as the runtime does not tell that it was deleted.
    fn drain_tun(&mut self, look_myself: bool) -> io::Result<()> {
        for number in 0..READS_PER_TURN {
            let read = if look_myself && number == 0 {
                self.tun.read_now(&mut self.frame_buf)
            } else {
                self.tun.try_read(&mut self.frame_buf)
            };
            let len = match read {
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    let what = format!("the TUN device is gone: {error}");
                    return Err(io::Error::new(error.kind(), what));
                }
            };
            let now = self.clock.now();
            let mut inbound = Inbound {
                endpoint: &mut self.endpoint,
                now,
            };
            if let Err(error) = offload::split(&self.frame_buf[..len], &mut inbound) {
                self.stats.tun_reads_refused += 1;
                tracing::trace!("a frame of {len} bytes from the TUN is refused: {error:?}");
            }
        }
        self.busy = true;
        Ok(())
    }

    /// Does what was asked for from outside.
    fn follow_orders(&mut self) {
        for _ in 0..ORDERS_MAX {
            let Some(order) = self
                .next_order
                .take()
                .or_else(|| self.orders.try_recv().ok())
            else {
                return;
            };
            let now = self.clock.now();
            match order {
                Order::AddSocket(id, socket) => {
                    self.outlets.retain(|outlet| outlet.id != id);
                    match socket.start() {
                        Ok(socket) => self.outlets.push(Outlet::new(id, socket)),
                        Err(error) => tracing::error!("socket {} cannot be used: {error}", id.0),
                    }
                }
                Order::RemoveSocket(id) => self.outlets.retain(|outlet| outlet.id != id),
                Order::Command(command) => self.endpoint.handle_command(now, command),
                // Whoever asked may have gone away meanwhile.
                Order::Snapshot(detail, answer) => {
                    drop(answer.send(self.endpoint.snapshot(now, &detail)));
                }
                Order::Stats(answer) => drop(answer.send(self.stats)),
                Order::Stop => {
                    self.endpoint.handle_command(now, Command::Close);
                    self.stopping = true;
                    return;
                }
            }
        }
        self.busy = true;
    }

    /// Tells the core that its time has come, if it has.
    fn pass_time(&mut self, drained: bool) {
        let now = self.clock.now();
        let Some(late) = self.lateness(now) else {
            return;
        };
        if !drained && self.postponed < POSTPONED_MAX {
            self.postponed += 1;
            return;
        }
        self.postponed = 0;
        self.stats.timeouts += 1;
        self.stats.timeouts_late += u64::from(late >= LATE);
        let late_us = u64::try_from(late.as_micros()).unwrap_or(u64::MAX);
        self.stats.late_us_max = self.stats.late_us_max.max(late_us);
        self.endpoint.handle_timeout(now);
    }

    /// Sends what waited for room, then what the core has to send now.
    fn send(&mut self) {
        let now = self.clock.now();
        for outlet in self.outlets.iter_mut().filter(|outlet| outlet.is_waiting()) {
            outlet.resume(now, &mut self.stats, |train, why| {
                report(&mut self.endpoint, now, train, why);
            });
        }
        for _ in 0..TRAINS_PER_TURN {
            let now = self.clock.now();
            let Some(train) = self
                .endpoint
                .poll_transmit(now, &mut self.train_buf, TRAIN_SEGMENTS)
            else {
                return;
            };
            let Some(outlet) = self
                .outlets
                .iter_mut()
                .find(|outlet| outlet.id == train.socket)
            else {
                self.stats.sends_without_socket += 1;
                continue;
            };
            self.stats.trains += 1;
            let datagrams = &self.train_buf[..train.len.min(self.train_buf.len())];
            if let Err(why) = outlet.send(now, &train, datagrams, &mut self.stats) {
                report(&mut self.endpoint, now, &train, why);
            }
        }
        self.busy = true;
    }

    /// Gives applications their packets.
    fn deliver(&mut self) {
        self.join();
        self.joiner
            .flush(|frame| write(&self.tun, &mut self.stats, &mut self.endpoint, frame));
    }

    /// Joins what the core has for applications, and gives them the runs that are complete.
    fn join(&mut self) {
        let mut left = PACKETS_PER_TURN;
        while left > 0 {
            let Some(packet) = self.endpoint.poll_packet() else {
                break;
            };
            self.joiner.push(packet, |frame| {
                write(&self.tun, &mut self.stats, &mut self.endpoint, frame);
            });
            left -= 1;
        }
        self.busy |= left == 0;
    }

    /// Passes the core's news on.
    fn tell(&mut self) {
        while let Some(event) = self.endpoint.poll_event() {
            // It only fails when nobody listens.
            let _ = self.events.send(event);
        }
    }

    /// Sends what is left, as far as it goes in a short time.
    async fn say_goodbye(&mut self) {
        let give_up = self.clock.now() + GOODBYE;
        loop {
            self.send();
            self.tell();
            let waiting = self.outlets.iter().any(Outlet::is_waiting);
            if !(self.busy || waiting) || self.clock.now() >= give_up {
                return;
            }
            self.busy = false;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Writes a frame to the TUN; its packets' buffers go back to the core.
fn write(
    tun: &ActiveTun,
    stats: &mut DriverStats,
    endpoint: &mut Endpoint,
    frame: offload::Frame<'_>,
) {
    if let Err(error) = tun.write(&frame) {
        stats.tun_writes_refused += 1;
        tracing::trace!("the TUN did not take a packet: {error}");
    }
    for packet in frame.packets.drain(..) {
        endpoint.recycle(packet);
    }
}

/// Tells the core what the kernel thinks of a train.
fn report(endpoint: &mut Endpoint, now: Time, train: &Transmit, why: Refusal) {
    match why {
        Refusal::Unreachable => endpoint.handle_send_failed(now, train.socket, train.remote),
        Refusal::TooLarge => {
            endpoint.handle_send_too_large(now, train.socket, train.remote, train.segment_len);
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests;

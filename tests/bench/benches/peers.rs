//! One server with 1, 10, 100 and 1,000 peers: memory, the cost of a packet, and how long it
//! takes until everybody is back after the server began anew.
//!
//! Server and clients are endpoints in this process, joined by function calls. What is weighed and
//! timed is what happens inside the server's calls; the clients only see to it that it happens.
//! Handshakes are waited for in real time, which the gate that limits them reads by itself. Idle
//! time and traffic pass in virtual time, so that no other load of the machine makes a queue
//! overflow, and a packet costs processor time of this thread.
//!
//! A packet may come alone among those of all other peers, or in a run, as the kernel hands over
//! the segments of one flow. Alone it pays for all that is done once per train, and finds the
//! cache cold.
//!
//! `cargo bench -p marline-bench --bench peers [-- COUNT…]`

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use marline_bench::pair::{MTU, udp_packet};
use marline_proto::{
    Arrival, ClientConfig, Command, Detail, Endpoint, Event, Modes, PeerConfig, Role, ServerConfig,
    SocketId, Time, Transmit, public_key,
};
use rustix::time::{ClockId, clock_gettime};

const SERVER: [u8; 32] = [2; 32];
const PORT: u16 = 51_900;
/// Trains and datagrams that are handed over at once, as a driver does.
const AT_ONCE: usize = 32;
/// Room for a train, bytes.
const TRAIN_BYTES: usize = 66_000;
/// Nobody should need longer for anything here.
const PATIENCE: Duration = Duration::from_secs(60);
/// Packets for the clients per round.
const ROUND: usize = 32;
/// What a round takes: 1.4 Gbit/s to all clients together.
const ROUND_TIME: Duration = Duration::from_micros(250);
/// Rounds before packets are timed, and while they are: most of a second in which paths get to know their rate, and at
/// least 64 packets for each of a thousand peers.
const WARM_UP: usize = 3_000;
const TIMED: usize = 2_000;
/// How often a client in use sends a packet.
const USE_EVERY: Duration = Duration::from_secs(1);
/// After so long without a packet a bond is idle, in these steps.
const IDLE: Duration = Duration::from_secs(30);
const IDLE_STEP: Duration = Duration::from_millis(50);

fn main() {
    let chosen: Vec<usize> = std::env::args()
        .filter_map(|word| word.parse().ok())
        .collect();
    let counts = if chosen.is_empty() {
        vec![1, 10, 100, 1000]
    } else {
        chosen
    };
    println!(
        "| peers | up after s | B per peer, idle | ns per packet, in runs | alone | B per peer, used | idle again | back after a stop, s | after a kill, s |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    for count in counts {
        let mut town = Town::new(count);
        let up = town.until_all_up();
        town.be_idle();
        let idle = town.weight / count as i64;
        let runs = town.carry_traffic(ROUND);
        let alone = town.carry_traffic(1);
        let used = town.weight / count as i64;
        town.be_idle();
        let again = town.weight / count as i64;
        town.ask_server(|server, now| server.handle_command(now, Command::Close));
        while town.drain_server() > 0 {}
        town.restart();
        let stopped = town.until_all_up();
        town.restart();
        let killed = town.until_all_up();
        println!(
            "| {count} | {:.2} | {idle} | {runs:.0} | {alone:.0} | {used} | {again} | {:.2} | {:.2} |",
            up.as_secs_f64(),
            stopped.as_secs_f64(),
            killed.as_secs_f64()
        );
    }
}

/// Processor time that this thread has taken.
fn processor_time() -> Duration {
    let spent = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(spent.tv_sec as u64, spent.tv_nsec as u32)
}

struct Town {
    /// What the clock shows, or showed when it was started.
    clock: Time,
    /// Since when it follows real time.
    running: Option<Instant>,
    server: Endpoint,
    clients: Vec<Endpoint>,
    last_used: Vec<Time>,
    /// Bytes that the server's calls took and did not give back.
    weight: i64,
    /// Processor time inside the server's calls.
    spent: Duration,
    /// Packets that came out at clients.
    delivered: u64,
    up: usize,
    out: Vec<u8>,
    /// What the server sent, each train with room of its own.
    trains: Vec<(Vec<u8>, Option<Transmit>)>,
    /// Datagrams for the server and who sent them.
    for_server: Vec<(usize, Vec<u8>)>,
}

fn secret(client: usize) -> [u8; 32] {
    let mut secret = [9; 32];
    // Not the first bytes: the curve ignores some of their bits.
    secret[8..16].copy_from_slice(&(client as u64).to_le_bytes());
    secret
}

fn inner(client: usize) -> Ipv4Addr {
    let [.., high, low] = (client as u32 + 2).to_be_bytes();
    Ipv4Addr::new(10, 77, high, low)
}

fn outer(client: usize) -> SocketAddr {
    let [.., high, low] = (client as u32).to_be_bytes();
    SocketAddr::from(([198, 18, high, low], 40_000))
}

fn arrival(remote: SocketAddr) -> Arrival {
    Arrival {
        socket: SocketId(0),
        remote,
        local: None,
    }
}

impl Town {
    fn new(count: usize) -> Self {
        let now = Time::from_millis(1);
        let clients = (0..count)
            .map(|number| {
                let config = ClientConfig {
                    secret: secret(number),
                    server: public_key(&SERVER),
                    modes: Modes::default(),
                    mtu: MTU,
                };
                let mut client = Endpoint::client(config, secret(number + 1_000_000));
                let uplink = Command::AddUplink {
                    socket: SocketId(0),
                    name: String::from("uplink"),
                    remote: SocketAddr::from(([192, 0, 2, 1], PORT)),
                    mtu: 1500,
                    role: Role::Always,
                };
                client.handle_command(now, uplink);
                client
            })
            .collect();
        let mut town = Town {
            clock: now,
            running: None,
            server: Endpoint::server(
                ServerConfig {
                    secret: SERVER,
                    mtu: MTU,
                },
                [4; 32],
            ),
            clients,
            last_used: vec![Time::ZERO; count],
            weight: 0,
            spent: Duration::ZERO,
            delivered: 0,
            up: 0,
            out: Vec::new(),
            trains: vec![(vec![0; TRAIN_BYTES], None); AT_ONCE],
            for_server: Vec::new(),
        };
        town.restart();
        for number in 0..count {
            town.drain_client(number);
        }
        town
    }

    fn now(&self) -> Time {
        self.clock + self.running.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// The server forgets everything but who its peers are.
    fn restart(&mut self) {
        let config = ServerConfig {
            secret: SERVER,
            mtu: MTU,
        };
        self.server = Endpoint::server(config, [5; 32]);
        self.up = 0;
        self.weight = 0;
        for number in 0..self.clients.len() {
            let peer = PeerConfig {
                public: public_key(&secret(number)),
                name: format!("peer{number}"),
                v4: Some(inner(number)),
                v6: None,
            };
            self.ask_server(|server, now| server.handle_command(now, Command::AddPeer(peer)));
        }
    }

    /// Calls of the server, weighed and timed.
    fn ask_server<R>(&mut self, calls: impl FnOnce(&mut Endpoint, Time) -> R) -> R {
        let now = self.now();
        let server = &mut self.server;
        let mut result = None;
        let before = processor_time();
        let counted = allocation_counter::measure(|| result = Some(calls(server, now)));
        self.spent += processor_time() - before;
        self.weight += counted.bytes_current;
        result.expect("the calls were made")
    }

    /// Carries everything that is there to be carried.
    fn turn(&mut self) {
        let now = self.now();
        for number in 0..self.clients.len() {
            let client = &mut self.clients[number];
            if client.poll_timeout().is_some_and(|(due, _)| due <= now) {
                client.handle_timeout(now);
                self.drain_client(number);
            }
        }
        loop {
            for datagrams in std::mem::take(&mut self.for_server).chunks(AT_ONCE) {
                self.ask_server(|server, now| {
                    for (number, datagram) in datagrams {
                        server.handle_datagram(now, arrival(outer(*number)), datagram);
                    }
                });
            }
            if self.drain_server() == 0 && self.for_server.is_empty() {
                return;
            }
        }
    }

    fn drain_client(&mut self, number: usize) {
        let now = self.now();
        let client = &mut self.clients[number];
        while let Some(sent) = client.poll_transmit(now, &mut self.out, 40) {
            for datagram in self.out[..sent.len].chunks(sent.segment_len) {
                self.for_server.push((number, datagram.to_vec()));
            }
        }
        while let Some(packet) = client.poll_packet() {
            self.delivered += 1;
            client.recycle(packet);
        }
        while client.poll_event().is_some() {}
    }

    /// Takes what the server has now and gives its datagrams to the clients; returns how many trains there were.
    fn drain_server(&mut self) -> usize {
        let mut trains = std::mem::take(&mut self.trains);
        self.ask_server(|server, now| {
            if server.poll_timeout().is_some_and(|(due, _)| due <= now) {
                server.handle_timeout(now);
            }
        });
        let count = self.ask_server(|server, now| {
            let polled = trains.iter_mut().map(|(out, sent)| {
                *sent = server.poll_transmit(now, out, 40);
                sent.is_some()
            });
            polled.take_while(|filled| *filled).count()
        });
        self.ask_server(|server, _| {
            while let Some(packet) = server.poll_packet() {
                server.recycle(packet);
            }
        });
        while let Some(event) = self.server.poll_event() {
            match event {
                Event::BondUp { .. } => self.up += 1,
                Event::BondDown { .. } => self.up -= 1,
                _ => {}
            }
        }
        for (out, sent) in &trains[..count] {
            let Some(Transmit {
                remote: SocketAddr::V4(remote),
                len,
                segment_len,
                ..
            }) = *sent
            else {
                continue;
            };
            let [_, _, high, low] = remote.ip().octets();
            let number = usize::from(u16::from_be_bytes([high, low]));
            let from = arrival(SocketAddr::from(([192, 0, 2, 1], PORT)));
            for datagram in out[..len].chunks(segment_len) {
                let now = self.now();
                self.clients[number].handle_datagram(now, from, datagram);
            }
            self.drain_client(number);
        }
        self.trains = trains;
        count
    }

    /// Clients in use send a packet now and then.
    fn be_in_use(&mut self) {
        let now = self.now();
        for number in 0..self.clients.len() {
            if now.since(self.last_used[number]) < USE_EVERY {
                continue;
            }
            self.last_used[number] = now;
            let client = &mut self.clients[number];
            let mut buf = client.buffer();
            buf.fill_from(&udp_packet(inner(number), 100));
            client.handle_packet(now, buf);
            self.drain_client(number);
        }
    }

    /// How long it takes until the server knows everybody.
    fn until_all_up(&mut self) -> Duration {
        let start = Instant::now();
        self.running = Some(start);
        while self.up < self.clients.len() {
            assert!(
                start.elapsed() < PATIENCE,
                "{} of {} are up; the server: {:?}",
                self.up,
                self.clients.len(),
                self.server.snapshot(self.now(), &Detail::Paths).drops
            );
            self.be_in_use();
            self.turn();
            std::thread::sleep(Duration::from_micros(500));
        }
        self.clock = self.now();
        self.running = None;
        start.elapsed()
    }

    /// Nobody sends anything for a while.
    fn be_idle(&mut self) {
        let end = self.clock + IDLE;
        while self.clock < end {
            self.clock += IDLE_STEP;
            self.turn();
        }
    }

    /// Full-sized packets for all clients in turn, so many in a row; returns the nanoseconds that one takes in the
    /// server, from the TUN to the wire, acknowledgements included.
    fn carry_traffic(&mut self, in_a_row: usize) -> f64 {
        let mut packet = udp_packet(Ipv4Addr::new(203, 0, 113, 2), MTU);
        let clients = self.clients.len();
        let mut packets = 0;
        for round in 0..WARM_UP + TIMED {
            if round == WARM_UP {
                self.spent = Duration::ZERO;
                self.delivered = 0;
            }
            self.clock += ROUND_TIME;
            self.ask_server(|server, now| {
                for _ in 0..ROUND {
                    let to = inner(packets / in_a_row % clients);
                    packet[16..20].copy_from_slice(&to.octets());
                    let mut buf = server.buffer();
                    buf.fill_from(&packet);
                    server.handle_packet(now, buf);
                    packets += 1;
                }
            });
            self.turn();
        }
        let sent = (TIMED * ROUND) as u64;
        assert!(
            self.delivered > sent * 9 / 10,
            "{} of {sent} packets arrive",
            self.delivered
        );
        self.spent.as_nanos() as f64 / self.delivered as f64
    }
}

//! One server with 1, 10, 100 and 1,000 peers: memory, the cost of a packet, and how long it
//! takes until everybody is back after the server began anew.
//!
//! Server and clients are endpoints in this process, joined by function calls and driven in real
//! time, because real sessions read the clock. What is weighed and timed is what happens inside
//! the server's calls; the clients only see to it that it happens.
//!
//! `cargo bench -p marline-bench --bench peers [-- COUNT…]`

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use marline_bench::pair::{MTU, udp_packet};
use marline_proto::{
    Arrival, ClientConfig, Command, Endpoint, Event, Modes, PeerConfig, Role, ServerConfig,
    SocketId, Time, public_key,
};

const SERVER: [u8; 32] = [2; 32];
const PORT: u16 = 51_900;
/// Nobody should need longer for anything here.
const PATIENCE: Duration = Duration::from_secs(60);
/// Packets for the clients per round, dealt out in turn.
const ROUND: usize = 32;
/// Packets for clients that may be on their way.
const UNDER_WAY: u64 = 1_024;
/// After this long they are taken for lost.
const STALLED: Duration = Duration::from_millis(50);
/// How often a client in use sends a packet.
const USE_EVERY: Duration = Duration::from_secs(1);

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
        "| peers | up after s | B per peer, idle | ns per packet | B per peer, used | back after a stop, s | after a kill, s |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|");
    for count in counts {
        let mut town = Town::new(count);
        let up = town.until_all_up();
        let idle = town.weight / count as i64;
        let ns = town.carry_traffic();
        let used = town.weight / count as i64;
        town.server.handle_command(town.now(), Command::Close);
        town.turn();
        town.restart();
        let stopped = town.until_all_up();
        town.restart();
        let killed = town.until_all_up();
        println!(
            "| {count} | {:.2} | {idle} | {ns:.0} | {used} | {:.2} | {:.2} |",
            up.as_secs_f64(),
            stopped.as_secs_f64(),
            killed.as_secs_f64()
        );
    }
}

struct Town {
    began: Instant,
    server: Endpoint,
    clients: Vec<Endpoint>,
    last_used: Vec<Time>,
    /// Bytes that the server's calls took and did not give back.
    weight: i64,
    /// Time inside the server's calls.
    spent: Duration,
    /// Packets that came out at clients.
    delivered: u64,
    up: usize,
    out: Vec<u8>,
    /// Datagrams for the server and who sent them.
    for_server: Vec<(usize, Vec<u8>)>,
    for_clients: Vec<(usize, Vec<u8>)>,
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
        let began = Instant::now();
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
            began,
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
            for_server: Vec::new(),
            for_clients: Vec::new(),
        };
        town.restart();
        for number in 0..count {
            town.drain_client(number);
        }
        town
    }

    fn now(&self) -> Time {
        Time::from_millis(1) + self.began.elapsed()
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

    /// A call of the server, weighed and timed.
    fn ask_server(&mut self, call: impl FnOnce(&mut Endpoint, Time)) {
        let now = self.now();
        let server = &mut self.server;
        let before = Instant::now();
        let counted = allocation_counter::measure(|| call(server, now));
        self.spent += before.elapsed();
        self.weight += counted.bytes_current;
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
            for (number, datagram) in std::mem::take(&mut self.for_server) {
                let from = arrival(outer(number));
                self.ask_server(|server, now| server.handle_datagram(now, from, &datagram));
            }
            self.drain_server();
            if self.for_clients.is_empty() {
                return;
            }
            for (number, datagram) in std::mem::take(&mut self.for_clients) {
                let from = arrival(SocketAddr::from(([192, 0, 2, 1], PORT)));
                let now = self.now();
                self.clients[number].handle_datagram(now, from, &datagram);
                self.drain_client(number);
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

    fn drain_server(&mut self) {
        self.ask_server(|server, now| {
            if server.poll_timeout().is_some_and(|(due, _)| due <= now) {
                server.handle_timeout(now);
            }
        });
        let mut out = std::mem::take(&mut self.out);
        loop {
            let mut sent = None;
            self.ask_server(|server, now| sent = server.poll_transmit(now, &mut out, 40));
            let Some(sent) = sent else { break };
            let SocketAddr::V4(remote) = sent.remote else {
                continue;
            };
            let [_, _, high, low] = remote.ip().octets();
            let number = usize::from(u16::from_be_bytes([high, low]));
            for datagram in out[..sent.len].chunks(sent.segment_len) {
                self.for_clients.push((number, datagram.to_vec()));
            }
        }
        self.out = out;
        while let Some(packet) = self.server.poll_packet() {
            self.server.recycle(packet);
        }
        while let Some(event) = self.server.poll_event() {
            match event {
                Event::BondUp { .. } => self.up += 1,
                Event::BondDown { .. } => self.up -= 1,
                _ => {}
            }
        }
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
        while self.up < self.clients.len() {
            assert!(
                start.elapsed() < PATIENCE,
                "{} of {} are up; the server: {:?}",
                self.up,
                self.clients.len(),
                self.server.snapshot()
            );
            self.be_in_use();
            self.turn();
            std::thread::sleep(Duration::from_micros(500));
        }
        start.elapsed()
    }

    /// Full-sized packets for all clients in turn for a while; returns the nanoseconds that one
    /// takes in the server, from the TUN to the wire, acknowledgements included.
    fn carry_traffic(&mut self) -> f64 {
        let mut next = 0;
        let mut packets = 0u64;
        for round in 0..3_000 {
            if round == 1_000 {
                self.spent = Duration::ZERO;
                self.delivered = 0;
                packets = 0;
            }
            for _ in 0..ROUND {
                let mut bytes = udp_packet(Ipv4Addr::new(203, 0, 113, 2), MTU);
                bytes[16..20].copy_from_slice(&inner(next).octets());
                next = (next + 1) % self.clients.len();
                self.ask_server(|server, now| {
                    let mut buf = server.buffer();
                    buf.fill_from(&bytes);
                    server.handle_packet(now, buf);
                });
                packets += 1;
            }
            self.turn();
            // As fast as the paths are judged to be, or the queue would drop it.
            let start = Instant::now();
            while packets - self.delivered > UNDER_WAY && start.elapsed() < STALLED {
                self.turn();
            }
        }
        assert!(self.delivered > packets / 2, "most of it arrives");
        self.spent.as_nanos() as f64 / self.delivered as f64
    }
}

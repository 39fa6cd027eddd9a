//! A server of several workers is one server: whichever of them a datagram or a packet reaches, it
//! gets to the bond it belongs to, and to no other.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use marline_proto::{
    Arrival, ClientConfig, Command, Detail, Endpoint, Modes, PacketBuf, PathState, PeerConfig,
    Role, ServerConfig, SocketId, Time, public_key,
};

const MTU: u16 = 1400;
const INTERNET: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
/// Uplinks of each client.
const UPLINKS: u8 = 2;

/// A server of several workers, its clients, and the way between them, which loses nothing.
struct Town {
    workers: Vec<Endpoint>,
    clients: Vec<Endpoint>,
    now: Time,
    /// Which worker a datagram arrives at.
    steer: fn(&[u8], usize) -> usize,
    /// What came out of the workers' TUN, with their numbers, and out of the clients'.
    internet: Vec<(usize, PacketBuf)>,
    homes: Vec<(usize, PacketBuf)>,
}

/// As docs/protocol.md says a worker is named: by the top four bits of the index that a message is
/// for; who has none yet goes to the first.
fn by_index(datagram: &[u8], _workers: usize) -> usize {
    match datagram[0] {
        2 => usize::from(datagram[11] >> 4),
        3..=5 => usize::from(datagram[7] >> 4),
        _ => 0,
    }
}

/// Always wrong.
fn beside(datagram: &[u8], workers: usize) -> usize {
    (by_index(datagram, workers) + 1) % workers
}

fn secret(client: usize) -> [u8; 32] {
    [10 + client as u8; 32]
}

fn inner(client: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, 2 + client as u8)
}

fn outer(client: usize, uplink: u16) -> SocketAddr {
    SocketAddr::from((
        [198, 51, 100, 10 * (1 + client as u8) + uplink as u8],
        40_000,
    ))
}

fn peer(client: usize) -> PeerConfig {
    PeerConfig {
        public: public_key(&secret(client)),
        name: format!("peer-{client}"),
        v4: Some(inner(client)),
        v6: None,
    }
}

/// A UDP packet with a number.
fn packet(from: Ipv4Addr, to: Ipv4Addr, number: u8) -> PacketBuf {
    let mut bytes = vec![0; 20 + 8 + 100];
    let len = bytes.len() as u16;
    bytes[0] = 0x45;
    bytes[2..4].copy_from_slice(&len.to_be_bytes());
    bytes[8..10].copy_from_slice(&[64, 17]);
    bytes[12..16].copy_from_slice(&from.octets());
    bytes[16..20].copy_from_slice(&to.octets());
    bytes[20..24].copy_from_slice(&[0x12, 0x34, 0x00, 0x35]);
    bytes[24..26].copy_from_slice(&(len - 20).to_be_bytes());
    bytes[28..].fill(number);
    PacketBuf::copy_of(&bytes)
}

fn ends(packet: &PacketBuf) -> (IpAddr, IpAddr) {
    marline_proto::packet::addresses(packet.bytes()).expect("what comes out is IP")
}

impl Town {
    /// Peer `n` belongs to worker `n % workers`. No client has an uplink yet.
    fn new(workers: usize, clients: usize, steer: fn(&[u8], usize) -> usize) -> Self {
        let now = Time::from_millis(1);
        let server = ServerConfig {
            secret: [2; 32],
            mtu: MTU,
        };
        let seeds: Vec<[u8; 32]> = (0..workers).map(|number| [40 + number as u8; 32]).collect();
        let client = |number| {
            let config = ClientConfig {
                secret: secret(number),
                server: public_key(&[2; 32]),
                modes: Modes::default(),
                mtu: MTU,
            };
            Endpoint::client_for_test(config, [70 + number as u8; 32])
        };
        let mut town = Town {
            workers: Endpoint::workers_for_test(&server, &seeds),
            clients: (0..clients).map(client).collect(),
            now,
            steer,
            internet: Vec::new(),
            homes: Vec::new(),
        };
        for number in 0..clients {
            town.admit(number);
        }
        town
    }

    fn admit(&mut self, client: usize) {
        let owner = client % self.workers.len();
        for (number, worker) in self.workers.iter_mut().enumerate() {
            let command = match number == owner {
                true => Command::AddPeer(peer(client)),
                false => Command::NotePeer {
                    peer: peer(client),
                    worker: owner as u8,
                },
            };
            worker.handle_command(self.now, command);
        }
    }

    fn connect(&mut self, client: usize) {
        for uplink in 0..UPLINKS {
            let command = Command::AddUplink {
                socket: SocketId(uplink.into()),
                name: format!("wan{uplink}"),
                remote: SocketAddr::from(([192, 0, 2, 1], 51_900)),
                mtu: 1500,
                role: Role::Always,
            };
            self.clients[client].handle_command(self.now, command);
        }
    }

    /// All clients connect, and a tenth of a second passes.
    fn up(workers: usize, clients: usize, steer: fn(&[u8], usize) -> usize) -> Self {
        let mut town = Town::new(workers, clients, steer);
        for client in 0..clients {
            town.connect(client);
        }
        town.run(100);
        town
    }

    fn run(&mut self, milliseconds: u32) {
        for _ in 0..milliseconds {
            self.step(Duration::from_millis(1));
        }
    }

    fn step(&mut self, time: Duration) {
        self.now += time;
        let now = self.now;
        let mut out = Vec::new();
        let sides = self.clients.iter_mut().chain(&mut self.workers);
        sides.for_each(|endpoint| endpoint.handle_timeout(now));
        for client in 0..self.clients.len() {
            while let Some(train) = self.clients[client].poll_transmit(now, &mut out, 40) {
                let arrival = Arrival {
                    socket: SocketId(0),
                    remote: outer(client, train.socket.0),
                    local: None,
                };
                for datagram in out[..train.len].chunks(train.segment_len) {
                    let at = (self.steer)(datagram, self.workers.len());
                    self.workers[at].handle_datagram(now, arrival, datagram);
                }
            }
        }
        self.hand_over();
        for worker in &mut self.workers {
            while let Some(train) = worker.poll_transmit(now, &mut out, 40) {
                let (client, uplink) = (0..self.clients.len())
                    .flat_map(|client| (0..u16::from(UPLINKS)).map(move |uplink| (client, uplink)))
                    .find(|&(client, uplink)| outer(client, uplink) == train.remote)
                    .expect("workers answer clients only");
                let arrival = Arrival {
                    socket: SocketId(uplink),
                    remote: SocketAddr::from(([192, 0, 2, 1], 51_900)),
                    local: None,
                };
                for datagram in out[..train.len].chunks(train.segment_len) {
                    self.clients[client].handle_datagram(now, arrival, datagram);
                }
            }
        }
        for (number, worker) in self.workers.iter_mut().enumerate() {
            let packets = std::iter::from_fn(|| worker.poll_packet());
            self.internet.extend(packets.map(|packet| (number, packet)));
        }
        for (number, client) in self.clients.iter_mut().enumerate() {
            let packets = std::iter::from_fn(|| client.poll_packet());
            self.homes.extend(packets.map(|packet| (number, packet)));
        }
    }

    /// What the workers have for each other; nothing of it may be handed on again.
    fn hand_over(&mut self) {
        let mut all = Vec::new();
        for worker in &mut self.workers {
            all.extend(std::iter::from_fn(|| worker.poll_handover()));
        }
        for (number, handover) in all {
            let worker = &mut self.workers[usize::from(number)];
            worker.handle_handover(self.now, handover);
            assert!(worker.poll_handover().is_none(), "once is enough");
        }
    }

    /// Each client and the internet send each other a packet with the client's number; the
    /// internet's arrive at worker `at` of them.
    fn everybody_sends(&mut self, at: fn(usize, usize) -> usize) {
        let workers = self.workers.len();
        for client in 0..self.clients.len() {
            let number = client as u8;
            let up = packet(inner(client), INTERNET, number);
            self.clients[client].handle_packet(self.now, up);
            let down = packet(INTERNET, inner(client), number);
            self.workers[at(client % workers, workers)].handle_packet(self.now, down);
        }
        self.hand_over();
        self.run(50);
    }

    /// Each packet came out once, at its own client and at the worker whose peer that is.
    fn everybody_got_his(&mut self) {
        for (client, packet) in self.homes.drain(..) {
            assert_eq!(ends(&packet), (INTERNET.into(), inner(client).into()));
            assert_eq!(packet.bytes()[28], client as u8);
        }
        let workers = self.workers.len();
        let mut seen: Vec<usize> = Vec::new();
        for (worker, packet) in self.internet.drain(..) {
            let client = usize::from(packet.bytes()[28]);
            assert_eq!(ends(&packet), (inner(client).into(), INTERNET.into()));
            assert_eq!(worker, client % workers);
            seen.push(client);
        }
        seen.sort_unstable();
        assert_eq!(seen, Vec::from_iter(0..self.clients.len()));
    }

    fn drops(&self, worker: usize, reason: &str) -> u64 {
        let drops = self.workers[worker]
            .snapshot(self.now, &Detail::Paths)
            .drops;
        drops.get(reason).copied().unwrap_or(0)
    }

    /// Paths of each bond, worker by worker.
    fn paths(&self) -> Vec<Vec<usize>> {
        let paths = |worker: &Endpoint| {
            let bonds = worker.snapshot(self.now, &Detail::Paths).bonds;
            bonds.iter().map(|bond| bond.paths.len()).collect()
        };
        self.workers.iter().map(paths).collect()
    }
}

#[test]
fn peers_of_different_workers_reach_the_internet_and_get_only_what_is_theirs() {
    let mut town = Town::up(2, 4, by_index);
    town.homes.clear();
    town.everybody_sends(|owner, _| owner);
    assert_eq!(town.homes.len(), 4);
    town.everybody_got_his();
    assert_eq!(town.paths(), [[2, 2], [2, 2]]);
}

#[test]
fn an_initiation_that_arrives_at_any_worker_brings_the_bond_up() {
    let arrivals: [fn(&[u8], usize) -> usize; 3] = [
        by_index,
        |datagram, workers| match datagram[0] {
            1 => 1,
            _ => by_index(datagram, workers),
        },
        |datagram, workers| match datagram[0] {
            1 => 2,
            _ => by_index(datagram, workers),
        },
    ];
    for steer in arrivals {
        let mut town = Town::up(3, 3, steer);
        assert_eq!(town.paths(), [[2], [2], [2]]);
        town.everybody_sends(|owner, _| owner);
        town.everybody_got_his();
    }
}

#[test]
fn all_paths_of_a_bond_meet_in_one_worker_even_if_every_datagram_arrives_at_another() {
    let mut town = Town::up(3, 3, beside);
    assert_eq!(town.paths(), [[2], [2], [2]]);
    town.everybody_sends(|owner, workers| (owner + 1) % workers);
    assert_eq!(town.homes.len(), 3);
    town.everybody_got_his();
}

#[test]
fn a_client_at_rest_is_woken_though_every_datagram_and_packet_arrives_at_another_worker() {
    let mut town = Town::up(3, 3, beside);
    for _ in 0..30_000 {
        town.step(Duration::from_millis(10));
    }
    town.homes.clear();
    for client in 0..3 {
        let down = packet(INTERNET, inner(client), client as u8);
        town.workers[(client + 1) % 3].handle_packet(town.now, down);
    }
    town.hand_over();
    let resting = |end: &Endpoint| {
        let bonds = end.snapshot(Time::ZERO, &Detail::Paths).bonds;
        let mut paths = bonds.iter().flat_map(|bond| &bond.paths);
        paths.all(|path| path.state == PathState::Resting)
    };
    assert!(town.workers.iter().all(resting));
    town.run(50);
    assert_eq!(town.homes.len(), 3);
}

#[test]
fn a_peer_that_is_admitted_or_expelled_meanwhile_is_so_with_every_worker() {
    let mut town = Town::up(2, 1, by_index);
    town.clients.push({
        let config = ClientConfig {
            secret: secret(1),
            server: public_key(&[2; 32]),
            modes: Modes::default(),
            mtu: MTU,
        };
        Endpoint::client_for_test(config, [99; 32])
    });
    town.connect(1);
    town.run(100);
    assert_eq!(town.paths(), [vec![2], vec![]]);
    assert!(town.drops(0, "handshake_unknown_peer") > 0);
    town.admit(1);
    // Longer than the client waits before it tries again.
    town.run(5_000);
    assert_eq!(town.paths(), [[2], [2]]);
    town.everybody_sends(|_, _| 0);
    assert_eq!(town.homes.len(), 2);
    town.everybody_got_his();
    for worker in &mut town.workers {
        worker.handle_command(town.now, Command::RemovePeer(public_key(&secret(1))));
    }
    assert_eq!(town.paths(), [vec![2], vec![]]);
    let before = town.drops(0, "packet_no_peer");
    town.everybody_sends(|_, _| 0);
    assert_eq!(town.homes.len(), 1, "the other peer's only");
    assert_eq!(town.drops(0, "packet_no_peer"), before + 1);
}

#[test]
fn what_does_not_fit_between_two_workers_is_dropped_under_its_name_and_the_rest_arrives() {
    let mut town = Town::up(2, 2, by_index);
    town.homes.clear();
    let room = marline_proto::limits::HANDOVERS;
    for _ in 0..room + 7 {
        let down = packet(INTERNET, inner(1), 1);
        town.workers[0].handle_packet(town.now, down);
    }
    assert_eq!(town.drops(0, "handover_full"), 7);
    // The driver has no room for some of the others either.
    for _ in 0..3 {
        let (_, refused) = town.workers[0].poll_handover().expect("they wait");
        town.workers[0].handle_handover_refused(refused);
    }
    assert_eq!(town.drops(0, "handover_full"), 10);
    town.hand_over();
    town.run(1_000);
    assert_eq!(town.homes.len(), room - 3);
    town.homes.clear();
    town.everybody_sends(|owner, workers| (owner + 1) % workers);
    assert_eq!(town.homes.len(), 2);
    town.everybody_got_his();
    assert_eq!(town.drops(0, "handover_full"), 10);
}

/// The bound of docs/protocol.md is one for the server, with real cryptography.
#[test]
fn a_flood_of_initiations_costs_no_more_with_several_workers_than_with_one() {
    let now = Time::from_millis(1);
    let server = ServerConfig {
        secret: [2; 32],
        mtu: MTU,
    };
    let cookies = |workers: usize| {
        let seeds: Vec<[u8; 32]> = (0..workers).map(|number| [number as u8; 32]).collect();
        let mut workers = Endpoint::workers(&server, &seeds);
        let mut client = Endpoint::client(
            ClientConfig {
                secret: secret(0),
                server: public_key(&[2; 32]),
                modes: Modes::default(),
                mtu: MTU,
            },
            [3; 32],
        );
        let uplink = Command::AddUplink {
            socket: SocketId(0),
            name: "wan".to_owned(),
            remote: SocketAddr::from(([192, 0, 2, 1], 51_900)),
            mtu: 1500,
            role: Role::Always,
        };
        client.handle_command(now, uplink);
        let mut out = Vec::new();
        let train = (1..1_000).find_map(|millisecond| {
            let now = Time::from_millis(millisecond);
            client.handle_timeout(now);
            client.poll_transmit(now, &mut out, 1)
        });
        let train = train.expect("it begins");
        let arrival = Arrival {
            socket: SocketId(0),
            remote: outer(0, 0),
            local: None,
        };
        for number in 0..400 {
            let at = number % workers.len();
            workers[at].handle_datagram(now, arrival, &out[..train.len]);
        }
        let drops = |name: &str| -> u64 {
            let of = |worker: &Endpoint| {
                let snapshot = worker.snapshot(now, &Detail::Paths);
                snapshot.drops.get(name).copied()
            };
            workers.iter().filter_map(of).sum()
        };
        (
            drops("handshake_unknown_peer"),
            drops("handshake_cookie_sent"),
        )
    };
    assert_eq!(cookies(1), (300, 100));
    assert_eq!(cookies(3), (300, 100));
}

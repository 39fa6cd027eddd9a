//! A server of several workers with real sockets on one port and a real TUN of several queues.

use std::net::UdpSocket;

use marline_proto::{Detail, Key, PathState, Snapshot};

use super::super::handle::Order;
use super::*;

const CLIENTS: [&str; 3] = ["10.77.0.11", "10.77.0.12", "10.77.0.13"];

/// Some clients with two uplinks each, and a server of two workers.
struct Town {
    clients: Vec<End>,
    server: End,
    server_secret: Key,
    listening: SocketAddr,
    clock: Clock,
    _outside: TestNetns,
}

impl Town {
    /// All clients of [`CLIENTS`] exist, the first `admitted` of them for the server, and are up.
    async fn up(admitted: usize) -> Self {
        let outside = TestNetns::enter();
        let netlink = Netlink::connect().expect("netlink");
        loopback_up(&netlink).await;
        let address = "127.0.0.1:0".parse().expect("an address");
        let sockets = UplinkSocket::listen_together(address, 2).expect("bound");
        let listening = sockets[0].local_addr().expect("bound");
        let clock = Clock::start();
        let server_secret = key::generate().expect("randomness");
        let server = start_server(server_secret, clock, sockets).await;
        let mut town = Town {
            clients: Vec::new(),
            server,
            server_secret,
            listening,
            clock,
            _outside: outside,
        };
        for number in 0..CLIENTS.len() {
            let secret = secret(number);
            let client = Endpoint::client(
                ClientConfig {
                    secret,
                    server: key::public_of(&server_secret),
                    modes: Modes::default(),
                    mtu: 1360,
                },
                key::fresh_seed().expect("randomness"),
            );
            let client = End::start(vec![client], clock, &CLIENTS[number..=number], &[SERVER]);
            town.clients.push(client.await);
        }
        for number in 0..admitted {
            town.admit(number).await;
            town.connect(number).await;
        }
        town
    }

    async fn admit(&self, client: usize) {
        let peer = PeerConfig {
            public: key::public_of(&secret(client)),
            name: format!("peer-{client}"),
            v4: CLIENTS[client].parse().ok(),
            v6: None,
        };
        self.server.handle.command(Command::AddPeer(peer)).await;
    }

    /// Gives a client its uplinks and waits until both paths are up.
    async fn connect(&self, client: usize) {
        let handle = &self.clients[client].handle;
        let mut news = handle.events();
        let bind = || UplinkSocket::bound_to_device("lo", Family::V4, Some(1));
        let sockets = [(); 2].map(|()| bind().expect("root may"));
        for (id, socket) in (0..).map(SocketId).zip(sockets) {
            handle.add_socket(id, socket).await;
            let command = Command::AddUplink {
                socket: id,
                name: format!("uplink{}", id.0),
                remote: self.listening,
                mtu: 1500,
                role: Role::Always,
            };
            handle.command(command).await;
        }
        let up = async {
            let mut paths = 0;
            while paths < 2 {
                let event = news.recv().await.expect("the client runs");
                paths += usize::from(matches!(event, Event::PathUp { .. }));
            }
        };
        let up = tokio::time::timeout(Duration::from_secs(20), up).await;
        up.expect("both paths");
    }

    /// What each worker sees.
    async fn parts(&self) -> Vec<Snapshot> {
        let parts = self
            .server
            .handle
            .ask(|answer| Order::Snapshot(Detail::Paths, answer))
            .await;
        parts
            .into_iter()
            .map(|part| part.expect("it runs"))
            .collect()
    }

    async fn handed_over(&self) -> u64 {
        let stats = self.server.handle.stats().await.expect("they run");
        stats.handed_over
    }

    async fn stop(self) {
        for client in self.clients {
            client.stop().await;
        }
        self.server.stop().await;
    }
}

async fn start_server(secret: Key, clock: Clock, sockets: Vec<UplinkSocket>) -> End {
    let seeds = [(); 2].map(|()| key::fresh_seed().expect("randomness"));
    let config = ServerConfig { secret, mtu: 1360 };
    let endpoints = Endpoint::workers(&config, &seeds);
    let server = End::start(endpoints, clock, &[SERVER], &CLIENTS).await;
    server.handle.add_sockets(SocketId(0), sockets).await;
    server
}

fn secret(client: usize) -> Key {
    [client as u8 + 1; 32]
}

/// Does something in another network namespace.
fn in_namespace<T: Send + 'static>(
    namespace: &NetnsHandle,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let namespace = namespace.clone();
    let thread = std::thread::spawn(move || {
        namespace.join();
        work()
    });
    thread.join().expect("no panic")
}

#[tokio::test]
async fn clients_of_different_workers_pass_tcp_whole_at_once_each_bond_in_one_worker() {
    if !root("several workers") {
        return;
    }
    let town = Town::up(3).await;
    let mut transfers = Vec::new();
    for (client, address) in town.clients.iter().zip(CLIENTS) {
        transfers.push(transfer(client, &town.server, SERVER, payload(2_000_000)));
        transfers.push(transfer(&town.server, client, address, payload(2_000_000)));
    }
    done(transfers).await;
    let parts = town.parts().await;
    let names = parts.iter().map(|part| {
        let bonds = part.bonds.iter();
        Vec::from_iter(bonds.map(|bond| bond.name.as_str()))
    });
    assert_eq!(
        Vec::from_iter(names),
        [vec!["peer-0", "peer-2"], vec!["peer-1"]]
    );
    for bond in parts.iter().flat_map(|part| &part.bonds) {
        assert!(bond.up && bond.bytes_in >= 2_000_000 && bond.bytes_out >= 2_000_000);
        let active = |path: &&marline_proto::PathSnapshot| path.state == PathState::Active;
        assert_eq!(bond.paths.iter().filter(active).count(), 2, "{}", bond.name);
    }
    let whole = town.server.snapshot().await;
    assert_eq!(whole.bonds.len(), 3, "one server for whoever asks");
    // The initiations of the second worker's peer, and what opens a flow before the kernel has seen
    // whose it is; not the ten thousand packets and more behind it.
    let handed_over = town.handed_over().await;
    assert!((1..100).contains(&handed_over), "{handed_over}");
    town.stop().await;
}

#[tokio::test]
async fn a_packet_that_the_kernel_puts_into_another_workers_queue_still_arrives() {
    if !root("several workers") {
        return;
    }
    let town = Town::up(2).await;
    let before = town.handed_over().await;
    // Nothing came from the client for these flows, so the kernel has no reason to prefer a queue.
    const FLOWS: u8 = 64;
    for (client, address) in town.clients.iter().zip(&CLIENTS[..2]) {
        let address: IpAddr = address.parse().expect("an address");
        let socket = in_namespace(&client.inside, move || {
            UdpSocket::bind((address, 7000)).expect("bound")
        });
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("set");
        in_namespace(&town.server.inside, move || {
            for flow in 0..FLOWS {
                let sender = UdpSocket::bind((SERVER, 0)).expect("bound");
                sender.send_to(&[flow; 100], (address, 7000)).expect("sent");
            }
        });
        let received = tokio::task::spawn_blocking(move || {
            let mut buf = [0; 200];
            let flow = |_| {
                let (len, _) = socket.recv_from(&mut buf).expect("it arrives");
                assert_eq!(len, 100);
                buf[0]
            };
            let mut flows = Vec::from_iter((0..FLOWS).map(flow));
            flows.sort_unstable();
            flows
        });
        assert_eq!(received.await.expect("no panic"), Vec::from_iter(0..FLOWS));
    }
    assert!(town.handed_over().await > before, "some took the long way");
    town.stop().await;
}

#[tokio::test]
async fn a_peer_that_is_admitted_while_the_workers_run_works_at_once_and_one_that_is_expelled_no_more()
 {
    if !root("several workers") {
        return;
    }
    let town = Town::up(1).await;
    town.admit(1).await;
    town.connect(1).await;
    let (client, server) = (&town.clients[1], &town.server);
    done(vec![
        transfer(client, server, SERVER, payload(500_000)),
        transfer(server, client, CLIENTS[1], payload(500_000)),
    ])
    .await;
    let gone = Command::RemovePeer(key::public_of(&secret(1)));
    town.server.handle.command(gone).await;
    let snapshot = town.server.snapshot().await;
    let names = snapshot.bonds.iter().map(|bond| bond.name.as_str());
    assert_eq!(Vec::from_iter(names), ["peer-0"]);
    town.stop().await;
}

#[tokio::test]
async fn a_server_that_starts_again_gets_all_its_clients_back() {
    if !root("several workers") {
        return;
    }
    let mut town = Town::up(3).await;
    let listening = town.listening;
    let clients = town.clients.iter();
    let mut news = Vec::from_iter(clients.map(|client| client.handle.events()));
    town.server.handle.stop().await;
    for thread in town.server.threads {
        thread.join().expect("no panic").expect("stopped in peace");
    }
    let sockets = UplinkSocket::listen_together(listening, 2).expect("the port is free again");
    town.server = start_server(town.server_secret, town.clock, sockets).await;
    for number in 0..3 {
        town.admit(number).await;
    }
    for news in &mut news {
        let back = async { while !matches!(news.recv().await, Ok(Event::PeerRestarted { .. })) {} };
        let back = tokio::time::timeout(Duration::from_secs(30), back).await;
        back.expect("the client is back");
    }
    let transfers = town
        .clients
        .iter()
        .map(|client| transfer(client, &town.server, SERVER, payload(300_000)));
    done(transfers.collect()).await;
    town.stop().await;
}

#[tokio::test]
async fn a_tun_that_is_deleted_ends_every_worker() {
    if !root("several workers") {
        return;
    }
    let town = Town::up(1).await;
    let deleted = town.server.netlink.delete_link(town.server.index).await;
    deleted.expect("deleted");
    for thread in town.server.threads {
        let error = end_of(vec![thread]).await.expect_err("it cannot go on");
        assert!(error.to_string().contains("TUN device is gone"), "{error}");
    }
}

//! Two drivers, two TUN devices, real sockets: a whole bond on one machine.
//!
//! Descriptors stay in the network namespace they were made in, whoever uses them.
//! So the UDP sockets live in one namespace and meet over its loopback, and each
//! TUN lives in one of its own with the applications that talk through it.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;

use marline_proto::{
    ClientConfig, Detail, Modes, PeerConfig, Role, ServerConfig, Snapshot, SocketId,
};

use super::*;
use crate::key;
use crate::netlink::{Netlink, Route};
use crate::netns::{NetnsHandle, TestNetns, loopback_up, root};
use crate::tun::{Offload, TunOptions};
use crate::udp::{Family, UplinkSocket};

mod plain;
mod workers;

const CLIENT: &str = "10.77.0.1";
const SERVER: &str = "10.77.0.2";
const CLIENT_V6: &str = "fd00:77::1";
const SERVER_V6: &str = "fd00:77::2";

/// How packets pass between the kernel and the drivers.
#[derive(Clone, Copy, Debug)]
struct Ways {
    /// Of the TUN.
    offload: Offload,
    /// Of the sockets.
    trains: bool,
}

/// As much at once as the kernel has.
const USUAL: Ways = Ways {
    offload: Offload::All,
    trains: true,
};

/// One end of the bond.
struct End {
    handle: Handle,
    threads: Vec<JoinHandle<io::Result<()>>>,
    netlink: Netlink,
    index: u32,
    /// The namespace of its TUN and its applications.
    inside: NetnsHandle,
}

impl End {
    /// Makes a TUN with `ours` in a new namespace, routes to `theirs`, and runs `endpoints` there.
    async fn start(endpoints: Vec<Endpoint>, clock: Clock, ours: &[&str], theirs: &[&str]) -> Self {
        Self::start_by(USUAL.offload, endpoints, clock, ours, theirs).await
    }

    async fn start_by(
        offload: Offload,
        endpoints: Vec<Endpoint>,
        clock: Clock,
        ours: &[&str],
        theirs: &[&str],
    ) -> Self {
        let namespace = TestNetns::enter();
        let options = TunOptions {
            name: "mrl0".to_owned(),
            mtu: 1360,
            txqueuelen: 1000,
            offload,
        };
        let queues = Tun::open_queues(&options, endpoints.len()).await;
        let queues = queues.expect("root may");
        let netlink = Netlink::connect().expect("netlink");
        let index = queues[0].index();
        let parse = |address: &&str| -> (IpAddr, u8) {
            let address: IpAddr = address.parse().expect("an address");
            (address, if address.is_ipv4() { 32 } else { 128 })
        };
        for (address, whole) in ours.iter().map(parse) {
            let added = netlink.add_address(index, address, whole).await;
            added.expect("added");
        }
        for (address, whole) in theirs.iter().map(parse) {
            let added = netlink.add_route(&Route::to(address, whole, index)).await;
            added.expect("added");
        }
        let parts = endpoints.into_iter().zip(queues).collect();
        let (drivers, handle) = Driver::workers(parts, clock);
        let threads = drivers.into_iter().map(|driver| driver.spawn());
        End {
            handle,
            threads: threads.map(|thread| thread.expect("a thread")).collect(),
            netlink,
            index,
            inside: namespace.handle(),
        }
    }

    /// What it sees, without flows.
    async fn snapshot(&self) -> Snapshot {
        self.handle.snapshot(&Detail::Paths).await.expect("it runs")
    }

    async fn stop(self) {
        self.handle.stop().await;
        assert!(
            self.handle.snapshot(&Detail::Paths).await.is_none(),
            "nobody answers any more"
        );
        for thread in self.threads {
            let ended = thread.join().expect("no panic");
            ended.expect("stopped in peace");
        }
    }
}

/// How a lone driver ended by itself.
async fn end_of(mut threads: Vec<JoinHandle<io::Result<()>>>) -> io::Result<()> {
    let thread = threads.pop().expect("there is one");
    let ended = tokio::task::spawn_blocking(move || thread.join());
    ended.await.expect("joined").expect("no panic")
}

/// A client with two uplinks, one of each IP version, and a server.
struct Bond {
    client: End,
    server: End,
    news: broadcast::Receiver<Event>,
    /// Where the sockets meet, and the loopback's index there.
    outside: Netlink,
    lo: u32,
    _outside: TestNetns,
}

impl Bond {
    async fn up() -> Self {
        Self::up_by(USUAL).await
    }

    async fn up_by(Ways { offload, trains }: Ways) -> Self {
        let outside = TestNetns::enter();
        let netlink = Netlink::connect().expect("netlink");
        let lo = loopback_up(&netlink).await;
        let listening = ["127.0.0.1:0", "[::1]:0"].map(|address| {
            let socket = UplinkSocket::listen(address.parse().expect("an address"));
            socket.expect("bound").with_trains(trains)
        });
        let remotes = listening
            .each_ref()
            .map(|socket| socket.local_addr().expect("bound"));
        let uplinks = [Family::V4, Family::V6].map(|family| {
            let socket = UplinkSocket::bound_to_device("lo", family, Some(1));
            socket.expect("root may").with_trains(trains)
        });

        let clock = Clock::start();
        let secrets = [(); 2].map(|()| key::generate().expect("randomness"));
        let [client_secret, server_secret] = secrets;
        let mtu = 1360;
        let server = Endpoint::server(
            ServerConfig {
                secret: server_secret,
                mtu,
            },
            key::fresh_seed().expect("randomness"),
        );
        let client = Endpoint::client(
            ClientConfig {
                secret: client_secret,
                server: key::public_of(&server_secret),
                modes: Modes::default(),
                mtu,
            },
            key::fresh_seed().expect("randomness"),
        );
        let (clients, servers) = ([CLIENT, CLIENT_V6], [SERVER, SERVER_V6]);
        let server = End::start_by(offload, vec![server], clock, &servers, &clients).await;
        let client = End::start_by(offload, vec![client], clock, &clients, &servers).await;
        let peer = PeerConfig {
            public: key::public_of(&client_secret),
            name: "laptop".to_owned(),
            v4: CLIENT.parse().ok(),
            v6: CLIENT_V6.parse().ok(),
        };
        server.handle.command(Command::AddPeer(peer)).await;
        for (number, socket) in listening.into_iter().enumerate() {
            server
                .handle
                .add_socket(SocketId(number as u16), socket)
                .await;
        }
        let news = client.handle.events();
        let mut bond = Bond {
            client,
            server,
            news,
            outside: netlink,
            lo,
            _outside: outside,
        };
        for (number, (socket, remote)) in uplinks.into_iter().zip(remotes).enumerate() {
            bond.add_uplink(number as u16, socket, remote).await;
        }
        bond.wait_for("both paths", 2, |event| {
            matches!(event, Event::PathUp { .. })
        })
        .await;
        bond
    }

    async fn add_uplink(&self, number: u16, socket: UplinkSocket, remote: SocketAddr) {
        let handle = &self.client.handle;
        handle.add_socket(SocketId(number), socket).await;
        handle
            .command(Command::AddUplink {
                socket: SocketId(number),
                name: format!("uplink{number}"),
                remote,
                mtu: 1500,
                role: Role::Always,
            })
            .await;
    }

    /// Waits until `count` events that `wanted` likes have come.
    async fn wait_for(&mut self, what: &str, count: usize, wanted: impl Fn(&Event) -> bool) {
        let news = &mut self.news;
        let waiting = async {
            let mut seen = 0;
            while seen < count {
                seen += usize::from(wanted(&news.recv().await.expect("the client runs")));
            }
        };
        // A bound for a broken build, not a part of the promise.
        tokio::time::timeout(Duration::from_secs(20), waiting)
            .await
            .expect(what);
    }

    /// Sends `payload` from one end's applications to the other's over TCP.
    fn transfer(&self, up: bool, address: &str, payload: Vec<u8>) -> JoinHandle<()> {
        match up {
            true => transfer(&self.client, &self.server, address, payload),
            false => transfer(&self.server, &self.client, address, payload),
        }
    }

    async fn stop(self) {
        self.client.stop().await;
        self.server.stop().await;
    }
}

/// Sends `payload` from one end's applications to the other's at `address` over TCP.
fn transfer(from: &End, to: &End, address: &str, payload: Vec<u8>) -> JoinHandle<()> {
    let (from, to) = (from.inside.clone(), to.inside.clone());
    let address = SocketAddr::new(address.parse().expect("an address"), 0);
    std::thread::spawn(move || {
        to.join();
        let listener = TcpListener::bind(address).expect("bound");
        let address = listener.local_addr().expect("bound");
        let sent = payload.clone();
        let sender = std::thread::spawn(move || {
            from.join();
            let mut stream = TcpStream::connect(address).expect("connected");
            stream.write_all(&sent).expect("sent");
        });
        let mut got = Vec::new();
        listener
            .accept()
            .expect("accepted")
            .0
            .read_to_end(&mut got)
            .expect("received");
        sender.join().expect("no panic");
        assert!(got == payload, "every byte arrived, in order");
    })
}

fn payload(len: usize) -> Vec<u8> {
    (0..len)
        .map(|number| (number.wrapping_mul(31) >> 3) as u8)
        .collect()
}

/// Waits for threads without holding up the runtime.
async fn done(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        let joined = tokio::task::spawn_blocking(move || thread.join());
        let joined = tokio::time::timeout(Duration::from_secs(60), joined).await;
        joined
            .expect("in time")
            .expect("the runtime lives")
            .expect("the transfer is whole");
    }
}

#[tokio::test]
async fn tcp_passes_whole_in_both_directions_and_both_ip_versions() {
    if !root("a whole bond") {
        return;
    }
    let bond = Bond::up().await;
    done(vec![
        bond.transfer(true, SERVER, payload(3_000_000)),
        bond.transfer(false, CLIENT, payload(3_000_000)),
        bond.transfer(true, SERVER_V6, payload(1_000_000)),
        bond.transfer(false, CLIENT_V6, payload(1_000_000)),
    ])
    .await;
    let snapshot = bond.client.snapshot().await;
    assert_eq!(snapshot.bonds.len(), 1);
    let stats = bond.client.handle.stats().await.expect("it runs");
    assert!(stats.trains > 0 && stats.timeouts > 0, "{stats:?}");
    assert_eq!(
        (stats.sends_dropped, stats.tun_reads_refused),
        (0, 0),
        "{stats:?}"
    );
    bond.stop().await;
}

#[tokio::test]
async fn a_socket_that_is_taken_away_under_load_costs_no_byte() {
    if !root("a whole bond") {
        return;
    }
    let mut bond = Bond::up().await;
    let transfers = vec![
        bond.transfer(true, SERVER, payload(4_000_000)),
        bond.transfer(false, CLIENT, payload(4_000_000)),
    ];
    let handle = bond.client.handle.clone();
    handle
        .command(Command::RemoveUplink {
            socket: SocketId(0),
        })
        .await;
    handle.remove_socket(SocketId(0)).await;
    bond.wait_for("the path's end", 1, |event| {
        matches!(event, Event::PathDown { .. })
    })
    .await;
    done(transfers).await;
    bond.stop().await;
}

#[tokio::test]
async fn a_tun_that_is_down_for_a_while_ends_nothing() {
    if !root("a whole bond") {
        return;
    }
    let bond = Bond::up().await;
    let (netlink, index) = (&bond.server.netlink, bond.server.index);
    netlink.set_link_up(index, false).await.expect("set down");
    // One packet towards the TUN that is down: the write is refused and counted.
    let inside = bond.client.inside.clone();
    let knocking = std::thread::spawn(move || {
        inside.join();
        let socket = std::net::UdpSocket::bind((CLIENT, 0)).expect("bound");
        socket.send_to(b"knock", (SERVER, 9)).expect("sent");
    });
    done(vec![knocking]).await;
    let mut refused = 0;
    while refused == 0 {
        refused = bond
            .server
            .handle
            .stats()
            .await
            .expect("it runs")
            .tun_writes_refused;
        tokio::task::yield_now().await;
    }
    netlink.set_link_up(index, true).await.expect("set up");
    let client: IpAddr = CLIENT.parse().expect("an address");
    netlink
        .add_route(&Route::to(client, 32, index))
        .await
        .expect("the kernel had removed it");
    done(vec![bond.transfer(true, SERVER, payload(100_000))]).await;
    bond.stop().await;
}

#[tokio::test]
async fn an_interface_that_becomes_narrower_than_was_said_costs_no_byte() {
    if !root("a whole bond") {
        return;
    }
    let bond = Bond::up().await;
    done(vec![bond.transfer(true, SERVER, payload(1_000_000))]).await;
    let narrow = bond.outside.set_link_mtu(bond.lo, 1300).await;
    narrow.expect("set");
    done(vec![
        bond.transfer(true, SERVER, payload(1_000_000)),
        bond.transfer(false, CLIENT_V6, payload(1_000_000)),
    ])
    .await;
    let stats = bond.client.handle.stats().await.expect("it runs");
    assert!(stats.sends_too_large > 0, "{stats:?}");
    let snapshot = bond.client.snapshot().await;
    let client = &snapshot.bonds[0];
    assert!(client.paths.iter().any(|path| path.mtu <= 1300));
    assert!(client.counters["cut"] > 0, "{:?}", client.counters);
    bond.stop().await;
}

#[tokio::test]
async fn a_driver_whose_last_handle_is_dropped_stops() {
    if !root("a whole bond") {
        return;
    }
    let bond = Bond::up().await;
    let Bond { client, server, .. } = bond;
    drop(client.handle);
    let ended = end_of(client.threads).await;
    ended.expect("without handles it stops in peace");
    server.stop().await;
}

#[tokio::test]
async fn a_tun_that_is_deleted_ends_the_driver_with_an_error() {
    if !root("a whole bond") {
        return;
    }
    let Bond { client, server, .. } = Bond::up().await;
    client
        .netlink
        .delete_link(client.index)
        .await
        .expect("deleted");
    let error = end_of(client.threads).await.expect_err("it cannot go on");
    assert!(error.to_string().contains("TUN device is gone"), "{error}");
    server.stop().await;
}

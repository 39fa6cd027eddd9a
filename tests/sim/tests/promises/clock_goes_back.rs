//! A client whose clock was set back while it did not run gets in all the same.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use marline_proto::{
    Arrival, ClientConfig, Command, Detail, Endpoint, Modes, PathState, PeerConfig, Role,
    ServerConfig, SocketId, Time, public_key,
};

const SECRET: [u8; 32] = [1; 32];
const SERVER_SECRET: [u8; 32] = [2; 32];
const STEP: Duration = Duration::from_millis(1);

/// One end and the time that its own clock shows.
struct End {
    endpoint: Endpoint,
    now: Time,
}

impl End {
    fn server() -> Self {
        let now = Time::from_millis(1);
        let config = ServerConfig {
            secret: SERVER_SECRET,
            mtu: 1400,
        };
        let mut endpoint = Endpoint::server_for_test(config, [4; 32]);
        let peer = PeerConfig {
            public: public_key(&SECRET),
            name: String::from("laptop"),
            v4: Some(Ipv4Addr::new(10, 77, 0, 2)),
            v6: None,
        };
        endpoint.handle_command(now, Command::AddPeer(peer));
        End { endpoint, now }
    }

    /// A client's process that begins when its clock shows `now`, with two uplinks.
    fn client(now: Time, seed: u8) -> Self {
        let config = ClientConfig {
            secret: SECRET,
            server: public_key(&SERVER_SECRET),
            modes: Modes::default(),
            mtu: 1400,
        };
        let mut endpoint = Endpoint::client_for_test(config, [seed; 32]);
        for uplink in 0..2 {
            let command = Command::AddUplink {
                socket: SocketId(uplink),
                name: format!("wan{uplink}"),
                remote: SocketAddr::from(([192, 0, 2, 1], 51_900)),
                mtu: 1500,
                role: Role::Always,
            };
            endpoint.handle_command(now, command);
        }
        End { endpoint, now }
    }

    fn carry(&mut self, to: &mut End) {
        let mut out = Vec::new();
        while let Some(transmit) = self.endpoint.poll_transmit(self.now, &mut out, 40) {
            let arrival = Arrival {
                socket: transmit.socket,
                remote: SocketAddr::from(([198, 51, 100, 7], 40_000)),
                local: None,
            };
            for datagram in out[..transmit.len].chunks(transmit.segment_len) {
                to.endpoint.handle_datagram(to.now, arrival, datagram);
            }
        }
    }

    fn active_paths(&self) -> usize {
        let bonds = self.endpoint.snapshot(self.now, &Detail::Paths).bonds;
        let paths = bonds.iter().flat_map(|bond| &bond.paths);
        paths.filter(|p| p.state == PathState::Active).count()
    }

    fn refused(&self) -> u64 {
        let bonds = self.endpoint.snapshot(self.now, &Detail::Paths).bonds;
        let refused = |drops: &std::collections::BTreeMap<_, u64>| {
            drops.get("handshake_old").copied().unwrap_or(0)
        };
        bonds.iter().map(|bond| refused(&bond.drops)).sum()
    }
}

/// Lets time pass until the client's bond has two paths, at most a minute; returns how long that took.
fn until_up(client: &mut End, server: &mut End) -> Duration {
    let begin = client.now;
    while client.active_paths() < 2 && client.now.since(begin) < Duration::from_secs(60) {
        for end in [&mut *client, &mut *server] {
            end.now += STEP;
            end.endpoint.handle_timeout(end.now);
        }
        client.carry(server);
        server.carry(client);
    }
    client.now.since(begin)
}

#[test]
fn a_client_with_its_clock_set_back_is_let_in_within_seconds() {
    let mut server = End::server();
    let mut before = End::client(Time::from_millis(100_000_000), 3);
    assert!(until_up(&mut before, &mut server) < Duration::from_millis(100));

    // Killed, and started again a day earlier by its own clock.
    drop(before);
    let mut after = End::client(Time::from_millis(13_600_000), 5);
    let took = until_up(&mut after, &mut server);
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(server.refused() > 0, "the clock did not matter");
}

#[test]
fn a_client_whose_clock_goes_on_is_let_in_at_once() {
    let mut server = End::server();
    let mut before = End::client(Time::from_millis(100_000_000), 3);
    until_up(&mut before, &mut server);
    let mut after = End::client(before.now, 5);
    let took = until_up(&mut after, &mut server);
    assert!(took < Duration::from_millis(100), "{took:?}");
    assert_eq!(server.refused(), 0);
}

//! Two endpoints whose datagrams a test holds in its own hands.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use marline_proto::{
    Arrival, BondSnapshot, ClientConfig, Command, Detail, Endpoint, Modes, PathState, PeerConfig,
    Role, ServerConfig, SocketId, Time, public_key,
};

const SECRET: [u8; 32] = [1; 32];
const SERVER_SECRET: [u8; 32] = [2; 32];

/// One end and the time that its own clock shows.
pub struct End {
    pub endpoint: Endpoint,
    pub now: Time,
}

impl End {
    /// A server's process that knows the client and listens.
    pub fn server(now: Time, seed: u8) -> Self {
        let config = ServerConfig {
            secret: SERVER_SECRET,
            mtu: 1400,
        };
        let mut endpoint = Endpoint::server_for_test(config, [seed; 32]);
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
    pub fn client(now: Time, seed: u8) -> Self {
        let config = ClientConfig {
            secret: SECRET,
            server: public_key(&SERVER_SECRET),
            modes: Modes::default(),
            mtu: 1400,
        };
        let endpoint = Endpoint::client_for_test(config, [seed; 32]);
        let mut end = End { endpoint, now };
        (0..2).for_each(|uplink| end.add_uplink(uplink));
        end
    }

    /// One more uplink, over this socket.
    pub fn add_uplink(&mut self, uplink: u16) {
        let command = Command::AddUplink {
            socket: SocketId(uplink),
            name: format!("wan{uplink}"),
            remote: SocketAddr::from(([192, 0, 2, 1], 51_900)),
            mtu: 1500,
            role: Role::Always,
        };
        self.endpoint.handle_command(self.now, command);
    }

    /// Lets time pass on its clock.
    pub fn wait(&mut self, time: Duration) {
        self.now += time;
        self.endpoint.handle_timeout(self.now);
    }

    /// What it has to say now, and over which uplink.
    pub fn speak(&mut self) -> Vec<(SocketId, Vec<u8>)> {
        let mut said = Vec::new();
        let mut out = Vec::new();
        while let Some(transmit) = self.endpoint.poll_transmit(self.now, &mut out, 40) {
            let train = out[..transmit.len].chunks(transmit.segment_len);
            said.extend(train.map(|datagram| (transmit.socket, datagram.to_vec())));
        }
        said
    }

    /// A datagram arrives over an uplink.
    pub fn hear(&mut self, socket: SocketId, datagram: &[u8]) {
        let arrival = Arrival {
            socket,
            remote: SocketAddr::from(([198, 51, 100, 7], 40_000)),
            local: None,
        };
        self.endpoint.handle_datagram(self.now, arrival, datagram);
    }

    /// Its first bond; none on a server that heard of nobody.
    pub fn bond(&self) -> Option<BondSnapshot> {
        let bonds = self.endpoint.snapshot(self.now, &Detail::Paths).bonds;
        bonds.into_iter().next()
    }

    /// How many of its paths are in this state.
    pub fn paths(&self, state: PathState) -> usize {
        let paths = self.bond().into_iter().flat_map(|bond| bond.paths);
        paths.filter(|p| p.state == state).count()
    }

    /// How many datagrams its bond dropped for this reason.
    pub fn dropped(&self, reason: &str) -> u64 {
        let drops = self.bond().map(|bond| bond.drops).unwrap_or_default();
        drops.get(reason).copied().unwrap_or_default()
    }
}

/// Lets time pass on both clocks, and brings to each what the other says.
pub fn pass(client: &mut End, server: &mut End, time: Duration) {
    pass_if(client, server, time, |_, _, _| true);
}

/// The same for those datagrams alone that a network lets through: by whether the client said it, and over which uplink.
pub fn pass_if(
    client: &mut End,
    server: &mut End,
    time: Duration,
    mut through: impl FnMut(Said, SocketId, &[u8]) -> bool,
) {
    client.wait(time);
    server.wait(time);
    for (socket, datagram) in client.speak() {
        if through(Said::ByClient, socket, &datagram) {
            server.hear(socket, &datagram);
        }
    }
    for (socket, datagram) in server.speak() {
        if through(Said::ByServer, socket, &datagram) {
            client.hear(socket, &datagram);
        }
    }
}

/// Who said a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    ByClient,
    ByServer,
}

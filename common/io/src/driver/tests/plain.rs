//! The plain ways, which some kernels and cards leave as the only ones: packets and datagrams one by one.

use marline_proto::checksum;
use socket2::{Domain, Protocol, Socket, Type};

use super::*;

/// Every way but the usual one, which all other tests take.
const PLAIN: [Ways; 4] = [
    Ways {
        offload: Offload::Tcp,
        trains: true,
    },
    Ways {
        offload: Offload::Off,
        trains: true,
    },
    Ways {
        offload: Offload::All,
        trains: false,
    },
    Ways {
        offload: Offload::Off,
        trains: false,
    },
];

#[tokio::test]
async fn tcp_and_pings_pass_whole_without_any_help_of_the_kernel() {
    if !root("a whole bond") {
        return;
    }
    for ways in PLAIN {
        let bond = Bond::up_by(ways).await;
        done(vec![
            bond.transfer(true, SERVER, payload(1_500_000)),
            bond.transfer(false, CLIENT, payload(1_500_000)),
            bond.transfer(true, SERVER_V6, payload(500_000)),
            bond.transfer(false, CLIENT_V6, payload(500_000)),
            ping(&bond.client, SERVER),
            ping(&bond.server, CLIENT),
            ping(&bond.client, SERVER_V6),
            ping(&bond.server, CLIENT_V6),
        ])
        .await;
        for end in [&bond.client, &bond.server] {
            let stats = end.handle.stats().await.expect("it runs");
            let refused = [
                stats.sends_refused,
                stats.sends_dropped,
                stats.tun_reads_refused,
                stats.tun_writes_refused,
            ];
            assert_eq!(refused, [0; 4], "{ways:?}: {stats:?}");
        }
        bond.stop().await;
    }
}

/// Pings that address from the end's machine, small and large, one after the other.
fn ping(from: &End, address: &str) -> JoinHandle<()> {
    const ID: [u8; 2] = *b"ma";
    /// A header alone, what `ping` sends, an odd length, and as much as the TUN carries.
    const PAYLOADS: [usize; 4] = [0, 56, 555, 1300];
    let from = from.inside.clone();
    let address: IpAddr = address.parse().expect("an address");
    std::thread::spawn(move || {
        from.join();
        let (domain, protocol, request, reply) = match address {
            IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, 8, 0),
            IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, 128, 129),
        };
        let socket = Socket::new(domain, Type::RAW, Some(protocol)).expect("root may");
        // A bound for a broken build, not a part of the promise.
        let patience = Some(Duration::from_secs(20));
        socket.set_read_timeout(patience).expect("set");
        for (number, len) in PAYLOADS.into_iter().enumerate() {
            let mut message = vec![request, 0, 0, 0, ID[0], ID[1], 0, number as u8];
            message.extend(payload(len));
            if address.is_ipv4() {
                // The kernel does it for IPv6 alone.
                let sum = !checksum::fold(checksum::sum_of(&message));
                message[2..4].copy_from_slice(&sum.to_be_bytes());
            }
            let to = SocketAddr::new(address, 0).into();
            socket.send_to(&message, &to).expect("sent");
            loop {
                let mut room = [0; 2048];
                let len = (&socket).read(&mut room).expect("an answer");
                // IPv4 gives its header too; and everybody's messages come here.
                let got = &room[if address.is_ipv4() { 20 } else { 0 }..len];
                if got[0] == reply && got[4..8] == message[4..8] {
                    assert_eq!(got[8..], message[8..], "what was asked comes back");
                    break;
                }
            }
        }
    })
}

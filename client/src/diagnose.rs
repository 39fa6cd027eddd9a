//! Why is the bond not up: one sentence, for somebody who waits in front of a
//! terminal.
//!
//! WireGuard's handshake stays silent towards strangers on purpose, so a wrong
//! key, a client that the server does not know and a firewall look the same from
//! here. Three cheap questions tell most cases apart: is there an uplink at all;
//! does the server's machine refuse the UDP port; does it answer anything else,
//! as shown by a TCP connection to the same port, which a living machine accepts
//! or refuses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use marline_io::failure::{Class, Failure};
use marline_io::join_code::ServerEndpoint;
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::uplinks::UplinkReport;

/// How long the server's machine has for each answer: three times a slow satellite's round trip.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the server's machine was seen to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Seen {
    /// Nothing at all.
    Silence,
    /// It answers, but not to our handshake.
    Alive,
    /// It says that nothing listens on the UDP port.
    PortClosed,
}

/// The failure that explains best why the server's answer does not come.
pub async fn why_not_up(
    uplinks: &[UplinkReport],
    named: &[ServerEndpoint],
    resolved: &[SocketAddr],
) -> Failure {
    if resolved.is_empty() {
        return Failure::new(
            Class::Network,
            format!("the server's name cannot be looked up: {}", list(named)),
        )
        .with_advice("check the name and this machine's DNS, or write addresses into `endpoints`");
    }
    if !uplinks.iter().any(|uplink| uplink.used) {
        return no_uplink(uplinks);
    }
    let used: Vec<SocketAddr> = resolved
        .iter()
        .filter(|at| {
            uplinks
                .iter()
                .any(|uplink| uplink.way.as_ref().is_some_and(|w| w.remote == **at))
        })
        .copied()
        .collect();
    let mut best = (Seen::Silence, used.first().copied().unwrap_or(resolved[0]));
    for &remote in &used {
        best = best.max((look_at(remote).await, remote));
    }
    sentence(best.0, best.1)
}

fn sentence(seen: Seen, remote: SocketAddr) -> Failure {
    let (ip, port) = (remote.ip(), remote.port());
    let (sentence, advice) = match seen {
        Seen::PortClosed => (
            format!("the machine at {ip} says that nothing listens on its UDP port {port}"),
            "start marline-server there, or correct `endpoints` in the configuration",
        ),
        Seen::Alive => (
            format!("the machine at {ip} answers, but not to our handshake on UDP port {port}"),
            "the keys do not belong together (compare `public_key` with `marline-server status` \
             and this client with `marline-server peer list`), or a firewall drops that port; a \
             new join code settles the keys",
        ),
        Seen::Silence => (
            format!("the server cannot be reached: nothing comes back from {ip}, UDP port {port}"),
            "check that the server runs, that its address is right, and that no firewall drops \
             that port; wrong keys look the same",
        ),
    };
    Failure::new(Class::Network, sentence).with_advice(advice)
}

fn no_uplink(uplinks: &[UplinkReport]) -> Failure {
    let reasons: Vec<String> = uplinks
        .iter()
        .filter_map(|uplink| Some(format!("{} {}", uplink.name, uplink.why.as_ref()?)))
        .collect();
    let seen = if reasons.is_empty() {
        "this machine has no network interface".to_owned()
    } else {
        reasons.join(", ")
    };
    Failure::new(Class::Network, format!("there is no usable uplink: {seen}"))
        .with_advice("connect one; it is used as soon as it has an address and a route")
}

fn list(named: &[ServerEndpoint]) -> String {
    named
        .iter()
        .map(ServerEndpoint::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

async fn look_at(remote: SocketAddr) -> Seen {
    let (udp, tcp) = tokio::join!(udp_is_refused(remote), tcp_is_answered(remote));
    match (udp, tcp) {
        (true, _) => Seen::PortClosed,
        (false, true) => Seen::Alive,
        (false, false) => Seen::Silence,
    }
}

/// Whether an ICMP "port unreachable" comes back. One byte is no WireGuard message: a server
/// that listens ignores it.
async fn udp_is_refused(remote: SocketAddr) -> bool {
    let any: IpAddr = match remote {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let ask = async {
        let socket = UdpSocket::bind((any, 0)).await?;
        socket.connect(remote).await?;
        socket.send(&[0]).await?;
        socket.recv(&mut [0; 16]).await
    };
    matches!(
        timeout(PATIENCE, ask).await,
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused
    )
}

/// Whether a connection is accepted or refused; both take a living machine.
async fn tcp_is_answered(remote: SocketAddr) -> bool {
    match timeout(PATIENCE, TcpStream::connect(remote)).await {
        Ok(Ok(_)) => true,
        Ok(Err(error)) => error.kind() == std::io::ErrorKind::ConnectionRefused,
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uplinks::select::Way;
    use marline_proto::Role;

    fn uplink(remote: Option<SocketAddr>, why: Option<&str>) -> UplinkReport {
        UplinkReport {
            name: "eth0".to_owned(),
            role: Role::Always,
            used: why.is_none(),
            way: remote.map(|remote| Way {
                source: Ipv4Addr::LOCALHOST.into(),
                remote,
            }),
            why: why.map(str::to_owned),
        }
    }

    async fn told(remote: SocketAddr) -> String {
        let failure = why_not_up(&[uplink(Some(remote), None)], &[], &[remote]).await;
        assert_eq!(failure.exit_code(), 5);
        failure.to_string()
    }

    /// A UDP and a TCP socket that share a port, which is free again when they are dropped.
    async fn port() -> (UdpSocket, tokio::net::TcpListener, SocketAddr) {
        loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
            let at = udp.local_addr().expect("bound");
            if let Ok(tcp) = tokio::net::TcpListener::bind(at).await {
                return (udp, tcp, at);
            }
        }
    }

    #[tokio::test]
    async fn a_closed_port_is_told_from_a_server_that_ignores_us() {
        let (udp, tcp, at) = port().await;
        let ignored = told(at).await;
        assert!(
            ignored.contains("not to our handshake") && ignored.contains("keys"),
            "{ignored}"
        );
        drop(tcp);
        assert!(told(at).await.contains("not to our handshake"));
        drop(udp);
        let closed = told(at).await;
        assert!(
            closed.contains("nothing listens") && closed.contains("marline-server"),
            "{closed}"
        );
    }

    #[tokio::test]
    async fn without_uplinks_each_interface_is_named_with_its_reason() {
        let at = "198.51.100.1:51900".parse().expect("an address");
        let uplinks = [uplink(None, Some("has no carrier"))];
        let failure = why_not_up(&uplinks, &[], &[at]).await;
        assert!(
            failure
                .to_string()
                .contains("no usable uplink: eth0 has no carrier"),
            "{failure}"
        );
        assert_eq!(failure.exit_code(), 5);
    }

    #[tokio::test]
    async fn a_name_that_is_not_found_is_named() {
        let named = ["vpn.example.org:51900".parse().expect("an endpoint")];
        let failure = why_not_up(&[], &named, &[]).await;
        assert!(failure.to_string().contains("vpn.example.org"), "{failure}");
    }
}

//! Which interfaces are uplinks, and how each reaches the server: a pure
//! function from what the kernel shows and what the operator wishes.
//!
//! An interface is an uplink when it is up, has a carrier, has an address that
//! may be used as a source, and has a route in the main table that covers one
//! of the server's endpoints: a default route or a specific one. Interfaces
//! that could only carry our datagrams back to ourselves or twice over the same
//! wire (our own TUN, loopback, other tunnels) are left out, unless an
//! `[[uplink]]` section names a tunnel on purpose.
//!
//! Every interface gets a verdict with a reason, because "why is my LTE stick
//! not used" is the question that people ask.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use marline_io::netlink::{Address, Link, Route, RouteKind, Scope};
use marline_proto::Role;
use serde::{Deserialize, Serialize};

/// The number of the main routing table, where DHCP and friends put their routes.
pub const MAIN_TABLE: u32 = 254;

/// Kinds of interfaces whose packets leave by another interface, as the kernel calls them.
/// PPP is missing on purpose: there it is the modem.
const TUNNEL_KINDS: [&str; 16] = [
    "tun",
    "wireguard",
    "ipip",
    "sit",
    "gre",
    "gretap",
    "erspan",
    "ip6tnl",
    "ip6gre",
    "ip6gretap",
    "vti",
    "vti6",
    "xfrm",
    "vxlan",
    "geneve",
    "ovpn",
];

/// What the kernel shows at one moment.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The interfaces.
    pub links: Vec<Link>,
    /// Their addresses.
    pub addresses: Vec<Address>,
    /// The routes; only the main table matters here.
    pub routes: Vec<Route>,
}

/// What the operator and the configuration say about uplinks.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// Name of our own TUN interface.
    pub interface: String,
    /// The server's addresses, best first.
    pub endpoints: Vec<SocketAddr>,
    /// What each named interface may be used for.
    pub roles: BTreeMap<String, Role>,
    /// Interfaces that are never used; `*` at the end stands for anything.
    pub ignore: Vec<String>,
}

/// A way to the server over one interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Way {
    /// The address that datagrams leave from.
    pub source: IpAddr,
    /// The server's address.
    pub remote: SocketAddr,
}

/// Why an interface is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unfit {
    /// It is Marline's own TUN, or the loopback interface.
    Ours,
    /// It is a tunnel that no `[[uplink]]` section names.
    Tunnel,
    /// The configuration's `ignore` names it.
    Ignored,
    /// Its role is `never`.
    RoleNever,
    /// It is part of a bridge or of a bonded interface.
    Member,
    /// It is switched off.
    Down,
    /// It has no carrier.
    NoCarrier,
    /// It has no address that can be used.
    NoAddress,
    /// None of its routes leads to the server, in an IP version it has an address for.
    NoRoute,
}

impl Unfit {
    /// Whether the interface is only out of service, so that a socket on it may be kept.
    pub fn is_passing(self) -> bool {
        matches!(self, Unfit::Down | Unfit::NoCarrier | Unfit::NoRoute)
    }
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unfit::Ours => "is this machine's own",
            Unfit::Tunnel => "is a tunnel; an [[uplink]] section with its name would allow it",
            Unfit::Ignored => "is in the configuration's ignore list",
            Unfit::RoleNever => "has the role never",
            Unfit::Member => "is part of a bridge or bonded interface",
            Unfit::Down => "is switched off",
            Unfit::NoCarrier => "has no carrier",
            Unfit::NoAddress => "has no usable address",
            Unfit::NoRoute => "has no route to the server",
        })
    }
}

/// What became of one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// What the operator allows.
    pub role: Role,
    /// The ways it offers, best first; or why it offers none.
    pub ways: Result<Vec<Way>, Unfit>,
}

/// Judges every interface, in the order of their indexes.
pub fn select(facts: &Facts, wish: &Wish) -> Vec<Candidate> {
    let mut candidates: Vec<Candidate> = facts
        .links
        .iter()
        .map(|link| Candidate {
            name: link.name.clone(),
            index: link.index,
            mtu: link.mtu,
            role: wish.roles.get(&link.name).copied().unwrap_or_default(),
            ways: judge(link, facts, wish),
        })
        .collect();
    candidates.sort_by_key(|candidate| candidate.index);
    candidates
}

/// Whether `source` on interface `index` may be a datagram's source address now.
pub fn is_usable_source(facts: &Facts, index: u32, source: IpAddr) -> bool {
    facts
        .addresses
        .iter()
        .any(|address| address.index == index && address.address == source && is_usable(address))
}

fn judge(link: &Link, facts: &Facts, wish: &Wish) -> Result<Vec<Way>, Unfit> {
    let named = wish.roles.get(&link.name);
    if link.loopback || link.name == wish.interface {
        return Err(Unfit::Ours);
    }
    if named == Some(&Role::Never) {
        return Err(Unfit::RoleNever);
    }
    if wish
        .ignore
        .iter()
        .any(|pattern| matches(pattern, &link.name))
    {
        return Err(Unfit::Ignored);
    }
    let tunnel = link
        .kind
        .as_deref()
        .is_some_and(|kind| TUNNEL_KINDS.contains(&kind));
    if tunnel && named.is_none() {
        return Err(Unfit::Tunnel);
    }
    if link.master.is_some() && !has_address(link, facts) {
        return Err(Unfit::Member);
    }
    if !link.up {
        return Err(Unfit::Down);
    }
    if !link.carrier {
        return Err(Unfit::NoCarrier);
    }
    if !has_address(link, facts) {
        return Err(Unfit::NoAddress);
    }
    // A source of local scope (fd00::/8) towards a global endpoint is tried last: most
    // networks throw such datagrams away, yet some translate them.
    let mut ways = Vec::new();
    let mut doubtful = Vec::new();
    for &remote in &wish.endpoints {
        if let Some(source) = source_towards(link, facts, remote.ip()) {
            let list = if is_local(source) && !is_local(remote.ip()) {
                &mut doubtful
            } else {
                &mut ways
            };
            list.push(Way { source, remote });
        }
    }
    ways.append(&mut doubtful);
    if ways.is_empty() {
        Err(Unfit::NoRoute)
    } else {
        Ok(ways)
    }
}

/// Whether `pattern`, which may end in `*`, covers `name`.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == pattern,
    }
}

fn has_address(link: &Link, facts: &Facts) -> bool {
    facts
        .addresses
        .iter()
        .any(|address| address.index == link.index && is_usable(address))
}

fn is_usable(address: &Address) -> bool {
    let link_local = match address.address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let reach = matches!(address.scope, Scope::Global | Scope::Other(_));
    reach && !link_local && !address.tentative && !address.deprecated
}

fn is_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(v6) if v6.is_unique_local())
}

/// The source address with which the interface reaches `remote`, if a route leads there.
fn source_towards(link: &Link, facts: &Facts, remote: IpAddr) -> Option<IpAddr> {
    let route = facts
        .routes
        .iter()
        .filter(|route| {
            route.table == MAIN_TABLE
                && route.kind == RouteKind::Unicast
                && route.interface == Some(link.index)
                && covers(route, remote)
        })
        .max_by_key(|route| (route.prefix, std::cmp::Reverse(route.metric)))?;
    if let Some(source) = route.source
        && is_usable_source(facts, link.index, source)
    {
        return Some(source);
    }
    let sources = || {
        facts.addresses.iter().filter(|address| {
            address.index == link.index
                && address.address.is_ipv4() == remote.is_ipv4()
                && is_usable(address)
        })
    };
    let beside_gateway = |address: &&Address| {
        route.gateway.is_some_and(|gateway| {
            IpNet::new(address.address, address.prefix).is_ok_and(|net| net.contains(&gateway))
        })
    };
    let alike = |address: &&Address| is_local(address.address) == is_local(remote);
    sources()
        .find(beside_gateway)
        .or_else(|| sources().find(alike))
        .or_else(|| sources().next())
        .map(|address| address.address)
}

fn covers(route: &Route, remote: IpAddr) -> bool {
    route.destination.is_ipv4() == remote.is_ipv4()
        && IpNet::new(route.destination, route.prefix).is_ok_and(|net| net.contains(&remote))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A made-up machine, described a line at a time.
    #[derive(Default)]
    pub(crate) struct Machine(pub(crate) Facts);

    impl Machine {
        pub(crate) fn link(mut self, index: u32, name: &str) -> Self {
            self.0.links.push(Link {
                index,
                name: name.to_owned(),
                up: true,
                carrier: true,
                loopback: name == "lo",
                point_to_point: false,
                mtu: 1500,
                kind: None,
                master: None,
            });
            self
        }

        pub(crate) fn change(mut self, change: impl FnOnce(&mut Link)) -> Self {
            change(self.0.links.last_mut().expect("a link was added"));
            self
        }

        /// An address on the last link.
        pub(crate) fn address(mut self, net: &str) -> Self {
            let net: IpNet = net.parse().expect("a network");
            self.0.addresses.push(Address {
                index: self.last(),
                address: net.addr(),
                prefix: net.prefix_len(),
                scope: Scope::Global,
                tentative: false,
                deprecated: false,
            });
            self
        }

        /// A route over the last link.
        pub(crate) fn route(mut self, destination: &str, gateway: &str) -> Self {
            let net: IpNet = destination.parse().expect("a network");
            let mut route = Route::to(net.addr(), net.prefix_len(), self.last());
            route.gateway = gateway.parse().ok();
            self.0.routes.push(route);
            self
        }

        fn last(&self) -> u32 {
            self.0.links.last().expect("a link was added").index
        }

        /// An ordinary interface with an IPv4 address and a default route.
        pub(crate) fn ordinary(self, index: u32, name: &str) -> Self {
            self.link(index, name)
                .address(&format!("192.0.2.{index}/24"))
                .route("0.0.0.0/0", "192.0.2.254")
        }
    }

    pub(crate) const V4: &str = "198.51.100.1:51900";
    pub(crate) const V6: &str = "[2001:db8::1]:51900";

    pub(crate) fn wish(endpoints: &[&str]) -> Wish {
        Wish {
            interface: "marline0".to_owned(),
            endpoints: endpoints
                .iter()
                .map(|e| e.parse().expect("an address"))
                .collect(),
            ..Wish::default()
        }
    }

    fn way(source: &str, remote: &str) -> Way {
        Way {
            source: source.parse().expect("an address"),
            remote: remote.parse().expect("an address"),
        }
    }

    /// The verdict on the last link of the machine.
    fn verdict(machine: &Machine, wish: &Wish) -> Result<Vec<Way>, Unfit> {
        select(&machine.0, wish)
            .pop()
            .expect("a link was added")
            .ways
    }

    #[test]
    fn an_interface_with_address_and_default_route_is_an_uplink() {
        let machine = Machine::default()
            .link(1, "lo")
            .address("127.0.0.1/8")
            .ordinary(2, "eth0");
        let candidates = select(&machine.0, &wish(&[V4]));
        assert_eq!(candidates[0].ways, Err(Unfit::Ours));
        assert_eq!(candidates[1].ways, Ok(vec![way("192.0.2.2", V4)]));
        assert_eq!(candidates[1].role, Role::Always);
    }

    #[test]
    fn each_uplink_gets_the_ip_versions_it_has_a_route_for_in_the_order_of_the_endpoints() {
        let both = Machine::default()
            .ordinary(2, "eth0")
            .address("2001:db8:7::2/64")
            .route("::/0", "fe80::1");
        let v6_first = verdict(&both, &wish(&[V6, V4]));
        assert_eq!(
            v6_first,
            Ok(vec![way("2001:db8:7::2", V6), way("192.0.2.2", V4)])
        );
        let v4_first = verdict(&both, &wish(&[V4, V6]));
        assert_eq!(
            v4_first,
            Ok(vec![way("192.0.2.2", V4), way("2001:db8:7::2", V6)])
        );
        let only_v4 = Machine::default()
            .ordinary(2, "eth0")
            .address("2001:db8:7::2/64");
        assert_eq!(
            verdict(&only_v4, &wish(&[V6, V4])),
            Ok(vec![way("192.0.2.2", V4)])
        );
    }

    #[test]
    fn a_specific_route_to_the_server_is_enough() {
        let machine = Machine::default()
            .link(2, "eth0")
            .address("192.0.2.2/24")
            .route("198.51.100.0/24", "192.0.2.254");
        assert_eq!(
            verdict(&machine, &wish(&[V4])),
            Ok(vec![way("192.0.2.2", V4)])
        );
        let elsewhere = Machine::default()
            .link(2, "eth0")
            .address("192.0.2.2/24")
            .route("203.0.113.0/24", "192.0.2.254");
        assert_eq!(verdict(&elsewhere, &wish(&[V4])), Err(Unfit::NoRoute));
    }

    #[test]
    fn routes_of_other_tables_and_routes_that_refuse_do_not_count() {
        let mut machine = Machine::default().ordinary(2, "eth0");
        machine.0.routes[0].table = 100;
        assert_eq!(verdict(&machine, &wish(&[V4])), Err(Unfit::NoRoute));
        machine.0.routes[0].table = MAIN_TABLE;
        machine.0.routes[0].kind = RouteKind::Unreachable;
        assert_eq!(verdict(&machine, &wish(&[V4])), Err(Unfit::NoRoute));
    }

    #[test]
    fn what_keeps_an_interface_out_is_named() {
        let ordinary = || Machine::default().ordinary(2, "eth0");
        let wish = wish(&[V4]);
        let cases = [
            (ordinary().change(|l| l.up = false), Unfit::Down),
            (ordinary().change(|l| l.carrier = false), Unfit::NoCarrier),
            (
                ordinary().change(|l| l.name = "marline0".to_owned()),
                Unfit::Ours,
            ),
            (
                ordinary().change(|l| l.kind = Some("wireguard".to_owned())),
                Unfit::Tunnel,
            ),
            (Machine::default().link(2, "eth0"), Unfit::NoAddress),
            (
                Machine::default()
                    .link(2, "eth0")
                    .change(|l| l.master = Some(9)),
                Unfit::Member,
            ),
            (
                Machine::default().link(2, "eth0").address("192.0.2.2/24"),
                Unfit::NoRoute,
            ),
        ];
        for (machine, unfit) in cases {
            assert_eq!(verdict(&machine, &wish), Err(unfit));
        }
    }

    #[test]
    fn the_operator_decides_by_name() {
        let machine = Machine::default()
            .ordinary(2, "wg0")
            .change(|l| l.kind = Some("wireguard".to_owned()));
        let mut wish = wish(&[V4]);
        wish.roles.insert("wg0".to_owned(), Role::Backup);
        let candidates = select(&machine.0, &wish);
        assert_eq!(candidates[0].role, Role::Backup);
        assert!(candidates[0].ways.is_ok(), "a tunnel that is named is used");
        wish.roles.insert("wg0".to_owned(), Role::Never);
        assert_eq!(verdict(&machine, &wish), Err(Unfit::RoleNever));
        wish.roles.clear();
        wish.ignore = vec!["w*".to_owned()];
        assert_eq!(verdict(&machine, &wish), Err(Unfit::Ignored));
        wish.ignore = vec!["w".to_owned()];
        assert_eq!(verdict(&machine, &wish), Err(Unfit::Tunnel));
    }

    #[test]
    fn addresses_that_lead_nowhere_are_no_source() {
        for address in ["169.254.3.4/16", "fe80::2/64"] {
            let machine = Machine::default().link(2, "eth0").address(address);
            assert_eq!(
                verdict(&machine, &wish(&[V4])),
                Err(Unfit::NoAddress),
                "{address}"
            );
        }
        let mut machine = Machine::default().ordinary(2, "eth0");
        machine.0.addresses[0].tentative = true;
        assert_eq!(verdict(&machine, &wish(&[V4])), Err(Unfit::NoAddress));
        machine.0.addresses[0].tentative = false;
        machine.0.addresses[0].deprecated = true;
        assert_eq!(verdict(&machine, &wish(&[V4])), Err(Unfit::NoAddress));
    }

    #[test]
    fn the_source_is_the_one_the_route_prefers_or_the_one_beside_the_gateway() {
        let mut machine = Machine::default()
            .link(2, "eth0")
            .address("203.0.113.9/24")
            .address("192.0.2.2/24")
            .route("0.0.0.0/0", "192.0.2.254");
        assert_eq!(
            verdict(&machine, &wish(&[V4])),
            Ok(vec![way("192.0.2.2", V4)])
        );
        machine.0.routes[0].source = Some([203, 0, 113, 9].into());
        assert_eq!(
            verdict(&machine, &wish(&[V4])),
            Ok(vec![way("203.0.113.9", V4)])
        );
    }

    #[test]
    fn a_local_source_towards_a_global_endpoint_is_the_last_resort() {
        let machine = Machine::default()
            .ordinary(2, "eth0")
            .address("fd00::2/64")
            .route("::/0", "fe80::1");
        let ways = verdict(&machine, &wish(&[V6, V4]));
        assert_eq!(ways, Ok(vec![way("192.0.2.2", V4), way("fd00::2", V6)]));
    }
}

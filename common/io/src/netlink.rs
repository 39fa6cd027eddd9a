//! The kernel's interfaces, addresses, routes and rules, as plain values: asked
//! for, changed, and watched.
//!
//! Nothing is decided here. What should be there is worked out by pure functions
//! in the daemons, from the values that this module reads; this module then makes
//! the changes. Adding what is there already and removing what is gone are no
//! errors, so a plan can be applied twice, and undone after a crash without
//! knowing how far it had come.
//!
//! All of it happens in the network namespace of the thread that connects.

use serde::{Deserialize, Serialize};
use std::net::IpAddr;

use crate::udp::Family;

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
pub use linux::{Netlink, Watch};

#[cfg(not(target_os = "linux"))]
mod other;
#[cfg(not(target_os = "linux"))]
pub use other::{Netlink, Watch};

/// The number of the table that ordinary routes are in.
pub const TABLE_MAIN: u32 = 254;

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Whether the administrator has it up (IFF_UP).
    pub up: bool,
    /// Whether it can carry packets now (carrier there and operational state not down).
    pub carrier: bool,
    /// Whether it is a loopback interface.
    pub loopback: bool,
    /// Whether it is point to point (tunnels, PPP, LTE modems).
    pub point_to_point: bool,
    /// MTU in bytes.
    pub mtu: u32,
    /// What the kernel calls its kind ("veth", "tun", "wireguard", "bridge"); `None` for hardware.
    pub kind: Option<String>,
    /// The index of the bridge or bond it is part of.
    pub master: Option<u32>,
}

/// How far an address or a route reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Everywhere.
    Global,
    /// This link only.
    Link,
    /// This machine only.
    Host,
    /// Another number.
    Other(u8),
}

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The interface's index.
    pub index: u32,
    /// The address.
    pub address: IpAddr,
    /// The length of its prefix in bits.
    pub prefix: u8,
    /// How far it reaches.
    pub scope: Scope,
    /// Duplicate address detection is not finished, or failed: cannot be used.
    pub tentative: bool,
    /// Not to be used for anything new.
    pub deprecated: bool,
}

/// What a route does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RouteKind {
    /// Sends it on.
    Unicast,
    /// It is for this machine.
    Local,
    /// Drops it.
    Blackhole,
    /// Refuses it with "unreachable".
    Unreachable,
    /// Refuses it with "prohibited".
    Prohibit,
    /// Looks no further in this table.
    Throw,
    /// Another kind (broadcast, anycast, multicast, NAT).
    Other(u8),
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The destination's address; unspecified together with prefix 0 for a default route.
    pub destination: IpAddr,
    /// The length of the destination's prefix in bits.
    pub prefix: u8,
    /// The next hop.
    pub gateway: Option<IpAddr>,
    /// The interface it leaves by.
    pub interface: Option<u32>,
    /// The table it is in (254 is main).
    pub table: u32,
    /// The metric: lower wins. Where 0 is asked for, the kernel takes 1024 for IPv6.
    pub metric: u32,
    /// Who put it there (2 kernel, 3 boot, 4 static, 9 router advertisement, 16 DHCP, 186 BGP ...).
    pub protocol: u8,
    /// What it does.
    pub kind: RouteKind,
    /// How far the destination is.
    pub scope: Scope,
    /// The source address that the kernel prefers with it.
    pub source: Option<IpAddr>,
}

/// A routing rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// The IP version it is for.
    pub family: Family,
    /// Lower numbers are asked first.
    pub priority: u32,
    /// Matches packets whose mark, after the mask, is this.
    pub mark: Option<u32>,
    /// The mask for `mark`; `None` means all bits, which is also how the kernel tells it.
    pub mask: Option<u32>,
    /// Matches what does NOT match.
    pub invert: bool,
    /// Matches this source prefix.
    pub from: Option<(IpAddr, u8)>,
    /// Matches this destination prefix.
    pub to: Option<(IpAddr, u8)>,
    /// Matches packets that came in by this interface ("lo" for our own).
    pub incoming: Option<String>,
    /// Matches packets of sockets bound to this interface.
    pub outgoing: Option<String>,
    /// The table to look in; 0 when the rule does something else than looking up.
    pub table: u32,
    /// Ignores routes whose prefix is this long or shorter.
    pub suppress_prefix_length: Option<u8>,
    /// Who put it there.
    pub protocol: u8,
}

/// Something that changed in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// An interface appeared or changed.
    LinkSet(Link),
    /// An interface is gone.
    LinkGone(Link),
    /// An address appeared or changed.
    AddressSet(Address),
    /// An address is gone.
    AddressGone(Address),
    /// A route appeared or changed.
    RouteSet(Route),
    /// A route is gone.
    RouteGone(Route),
    /// The kernel had more to tell than we could take: look at everything anew.
    Overrun,
}

impl Route {
    /// A unicast route out of `interface`, in the main table, without gateway, metric or preferred
    /// source, as an administrator would add it (protocol `static`).
    pub fn to(destination: IpAddr, prefix: u8, interface: u32) -> Self {
        // What is directly on a link has that scope in IPv4; IPv6 knows no scopes of routes.
        let scope = if destination.is_ipv4() {
            Scope::Link
        } else {
            Scope::Global
        };
        Route {
            destination,
            prefix,
            gateway: None,
            interface: Some(interface),
            table: TABLE_MAIN,
            metric: 0,
            protocol: 4,
            kind: RouteKind::Unicast,
            scope,
            source: None,
        }
    }

    /// The same route through a gateway.
    #[must_use]
    pub fn via(self, gateway: IpAddr) -> Self {
        Route {
            gateway: Some(gateway),
            scope: Scope::Global,
            ..self
        }
    }

    /// The IP version it is for.
    pub fn family(&self) -> Family {
        Family::of(self.destination)
    }
}

impl Rule {
    /// A rule that looks up `table` for every packet, as an administrator would add it.
    pub fn lookup(family: Family, priority: u32, table: u32) -> Self {
        Rule {
            family,
            priority,
            mark: None,
            mask: None,
            invert: false,
            from: None,
            to: None,
            incoming: None,
            outgoing: None,
            table,
            suppress_prefix_length: None,
            protocol: 4,
        }
    }
}

//! Netlink on Linux, on the crates of the rtnetlink family.
//!
//! Requests and the watch use sockets of their own. The watch reads its socket
//! only when it is asked for the next change: what piles up waits in the kernel,
//! in a buffer of known size, and when that is full the kernel says so, which
//! becomes [`Change::Overrun`].

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::StreamExt;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload,
};
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags, AddressMessage, AddressScope,
};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkMessage, State};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols};

use super::{Address, Change, Link, Route, RouteKind, Rule, Scope};
use crate::failure::{Class, Context, Failure};
use crate::udp::Family;

/// A connection to the kernel's routing netlink. Clones share it.
#[derive(Clone, Debug)]
pub struct Netlink {
    handle: rtnetlink::Handle,
}

impl Netlink {
    /// Connects, in the calling thread's network namespace. Must be called within a tokio runtime,
    /// where a small task of its own lives as long as the last clone.
    pub fn connect() -> Result<Self, Failure> {
        let (connection, handle, _) =
            rtnetlink::new_connection().context("cannot open a netlink socket")?;
        tokio::spawn(connection);
        Ok(Netlink { handle })
    }

    /// Starts to watch interfaces, addresses and routes, in the calling thread's network
    /// namespace. What happens from this call on is told, or an [`Change::Overrun`] is.
    pub fn watch() -> Result<Watch, Failure> {
        Watch::open().context("cannot watch the kernel's interfaces and routes")
    }

    /// All interfaces.
    pub async fn links(&self) -> Result<Vec<Link>, Failure> {
        self.dump(
            "interfaces",
            RouteNetlinkMessage::GetLink(LinkMessage::default()),
            |message| match message {
                RouteNetlinkMessage::NewLink(link) => Some(read_link(&link)),
                _ => None,
            },
        )
        .await
    }

    /// The interface called `name`, if there is one.
    pub async fn link(&self, name: &str) -> Result<Option<Link>, Failure> {
        Ok(self
            .links()
            .await?
            .into_iter()
            .find(|link| link.name == name))
    }

    /// All addresses, IPv4 and IPv6.
    pub async fn addresses(&self) -> Result<Vec<Address>, Failure> {
        self.dump(
            "addresses",
            RouteNetlinkMessage::GetAddress(AddressMessage::default()),
            |message| match message {
                RouteNetlinkMessage::NewAddress(address) => read_address(&address),
                _ => None,
            },
        )
        .await
    }

    /// All routes of all tables, IPv4 and IPv6. A route with several next hops becomes several.
    pub async fn routes(&self) -> Result<Vec<Route>, Failure> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut ask = RouteMessage::default();
            ask.header.address_family = family;
            let found = self
                .dump(
                    "routes",
                    RouteNetlinkMessage::GetRoute(ask),
                    |message| match message {
                        RouteNetlinkMessage::NewRoute(route) => Some(read_routes(&route)),
                        _ => None,
                    },
                )
                .await?;
            routes.extend(found.into_iter().flatten());
        }
        Ok(routes)
    }

    /// All rules, IPv4 and IPv6, in the order in which they are asked.
    pub async fn rules(&self) -> Result<Vec<Rule>, Failure> {
        let mut rules = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut ask = RuleMessage::default();
            ask.header.family = family;
            rules.extend(
                self.dump(
                    "routing rules",
                    RouteNetlinkMessage::GetRule(ask),
                    |message| match message {
                        RouteNetlinkMessage::NewRule(rule) => read_rule(&rule),
                        _ => None,
                    },
                )
                .await?,
            );
        }
        Ok(rules)
    }

    /// Puts an address on an interface, usable at once. No error if it is there already.
    pub async fn add_address(
        &self,
        index: u32,
        address: IpAddr,
        prefix: u8,
    ) -> Result<(), Failure> {
        let mut message = address_message(index, address, prefix);
        if address.is_ipv6() {
            // Nobody else can have it: there is no need to wait for the check of duplicates.
            message
                .attributes
                .push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        self.change(
            || format!("cannot put the address {address}/{prefix} on interface {index}"),
            RouteNetlinkMessage::NewAddress(message),
            NLM_F_CREATE | NLM_F_REPLACE,
            &[libc::EEXIST],
        )
        .await
    }

    /// Takes an address off an interface. No error if it is not there.
    pub async fn del_address(
        &self,
        index: u32,
        address: IpAddr,
        prefix: u8,
    ) -> Result<(), Failure> {
        self.change(
            || format!("cannot take the address {address}/{prefix} off interface {index}"),
            RouteNetlinkMessage::DelAddress(address_message(index, address, prefix)),
            0,
            &[libc::EADDRNOTAVAIL, libc::ENODEV],
        )
        .await
    }

    /// Adds a route, or replaces the one with the same destination, table and metric.
    pub async fn add_route(&self, route: &Route) -> Result<(), Failure> {
        self.change(
            || format!("cannot add the route {}", describe(route)),
            RouteNetlinkMessage::NewRoute(route_message(route)),
            NLM_F_CREATE | NLM_F_REPLACE,
            &[],
        )
        .await
    }

    /// Removes a route. No error if it is not there.
    pub async fn del_route(&self, route: &Route) -> Result<(), Failure> {
        self.change(
            || format!("cannot remove the route {}", describe(route)),
            RouteNetlinkMessage::DelRoute(route_message(route)),
            0,
            &[libc::ESRCH, libc::ENOENT, libc::ENODEV],
        )
        .await
    }

    /// Adds a rule. No error if the very same is there already.
    pub async fn add_rule(&self, rule: &Rule) -> Result<(), Failure> {
        self.change(
            || {
                format!(
                    "cannot add the routing rule {} for table {}",
                    rule.priority, rule.table
                )
            },
            RouteNetlinkMessage::NewRule(rule_message(rule)),
            NLM_F_CREATE | NLM_F_EXCL,
            &[libc::EEXIST],
        )
        .await
    }

    /// Removes a rule. No error if it is not there.
    pub async fn del_rule(&self, rule: &Rule) -> Result<(), Failure> {
        self.change(
            || {
                format!(
                    "cannot remove the routing rule {} for table {}",
                    rule.priority, rule.table
                )
            },
            RouteNetlinkMessage::DelRule(rule_message(rule)),
            0,
            &[libc::ENOENT],
        )
        .await
    }

    /// Sets an interface up or down.
    pub async fn set_link_up(&self, index: u32, up: bool) -> Result<(), Failure> {
        let mut message = link_message(index);
        message.header.change_mask = LinkFlags::Up;
        message.header.flags = if up {
            LinkFlags::Up
        } else {
            LinkFlags::empty()
        };
        let state = if up { "up" } else { "down" };
        self.set_link(message, || format!("cannot set interface {index} {state}"))
            .await
    }

    /// Sets an interface's MTU, in bytes.
    pub async fn set_link_mtu(&self, index: u32, mtu: u32) -> Result<(), Failure> {
        let mut message = link_message(index);
        message.attributes.push(LinkAttribute::Mtu(mtu));
        self.set_link(message, || {
            format!("cannot set the MTU of interface {index} to {mtu}")
        })
        .await
    }

    /// Sets how many packets an interface may queue.
    pub async fn set_link_txqueuelen(&self, index: u32, packets: u32) -> Result<(), Failure> {
        let mut message = link_message(index);
        message.attributes.push(LinkAttribute::TxQueueLen(packets));
        self.set_link(message, || {
            format!("cannot set the queue of interface {index} to {packets} packets")
        })
        .await
    }

    /// Deletes an interface; for tests, as nobody else has a reason to.
    #[cfg(test)]
    pub(crate) async fn delete_link(&self, index: u32) -> Result<(), Failure> {
        let message = RouteNetlinkMessage::DelLink(link_message(index));
        self.change(
            || format!("cannot delete interface {index}"),
            message,
            0,
            &[],
        )
        .await
    }

    async fn set_link(
        &self,
        message: LinkMessage,
        what: impl Fn() -> String,
    ) -> Result<(), Failure> {
        self.change(what, RouteNetlinkMessage::SetLink(message), 0, &[])
            .await
    }

    /// Asks for everything of a kind; `read` picks from each message what was asked for.
    async fn dump<T>(
        &self,
        kind: &str,
        message: RouteNetlinkMessage,
        read: impl Fn(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Vec<T>, Failure> {
        let what = || format!("cannot list the {kind}");
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        let mut answers = self
            .handle
            .clone()
            .request(request)
            .map_err(|_| gone(what()))?;
        let mut found = Vec::new();
        while let Some(answer) = answers.next().await {
            match answer.payload {
                NetlinkPayload::InnerMessage(message) => found.extend(read(message)),
                NetlinkPayload::Error(error) if error.code.is_some() => {
                    return Err(refused(what(), &error.to_io()));
                }
                _ => {}
            }
        }
        Ok(found)
    }

    /// Asks for a change; the error numbers in `fine` mean that it is so already.
    async fn change(
        &self,
        what: impl Fn() -> String,
        message: RouteNetlinkMessage,
        flags: u16,
        fine: &[i32],
    ) -> Result<(), Failure> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        let mut answers = self
            .handle
            .clone()
            .request(request)
            .map_err(|_| gone(what()))?;
        while let Some(answer) = answers.next().await {
            if let NetlinkPayload::Error(error) = answer.payload {
                return match error.raw_code() {
                    0 => Ok(()),
                    code if fine.contains(&-code) => Ok(()),
                    _ => Err(refused(what(), &error.to_io())),
                };
            }
        }
        // An acknowledgement without an error only ends the stream.
        Ok(())
    }
}

fn refused(what: String, error: &io::Error) -> Failure {
    let failure = Failure::io(what, error);
    match failure.class() {
        Class::Privilege => failure.with_advice("run it as root or give it CAP_NET_ADMIN"),
        _ => failure,
    }
}

fn gone(what: String) -> Failure {
    Failure::new(
        Class::Other,
        format!("{what}: the connection to the kernel is closed"),
    )
}

fn describe(route: &Route) -> String {
    let via = route
        .gateway
        .map(|gateway| format!(" via {gateway}"))
        .unwrap_or_default();
    let out = route
        .interface
        .map(|index| format!(" through interface {index}"))
        .unwrap_or_default();
    format!(
        "{}/{}{via}{out} in table {}",
        route.destination, route.prefix, route.table
    )
}

/// A stream of changes to interfaces, addresses and routes.
pub struct Watch {
    socket: TokioSocket,
    ready: VecDeque<Change>,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Watch({} ready)", self.ready.len())
    }
}

impl Watch {
    /// Bytes of changes that may wait in the kernel: several thousand routes at once.
    const BUFFER: u32 = 4 << 20;

    fn open() -> io::Result<Self> {
        let mut socket = TokioSocket::new(protocols::NETLINK_ROUTE)?;
        socket.socket_mut().set_rx_buf_sz(Self::BUFFER)?;
        let groups = [
            libc::RTNLGRP_LINK,
            libc::RTNLGRP_IPV4_IFADDR,
            libc::RTNLGRP_IPV6_IFADDR,
            libc::RTNLGRP_IPV4_ROUTE,
            libc::RTNLGRP_IPV6_ROUTE,
        ];
        let groups = groups.iter().fold(0, |mask, group| mask | 1 << (group - 1));
        socket.socket_mut().bind(&SocketAddr::new(0, groups))?;
        Ok(Watch {
            socket,
            ready: VecDeque::new(),
        })
    }

    /// The next change; `None` when the connection to the kernel broke. May be dropped while it
    /// waits without losing anything.
    pub async fn next(&mut self) -> Option<Change> {
        loop {
            if let Some(change) = self.ready.pop_front() {
                return Some(change);
            }
            match self.socket.recv_from_full().await {
                Ok((bytes, from)) if from.port_number() == 0 => self.read(&bytes),
                Ok(_) => {} // not from the kernel
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    return Some(Change::Overrun);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::warn!("watching the kernel's interfaces and routes failed: {error}");
                    return None;
                }
            }
        }
    }

    /// Takes apart what one read gave; a message that is not understood is passed over.
    fn read(&mut self, mut bytes: &[u8]) {
        while bytes.len() >= 16 {
            match NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes) {
                Ok(message) => {
                    if let NetlinkPayload::InnerMessage(inner) = message.payload {
                        self.ready.extend(read_changes(inner));
                    }
                }
                Err(error) => tracing::debug!("a netlink message is not understood: {error}"),
            }
            let length = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
            let next = length.next_multiple_of(4).max(16);
            bytes = bytes.get(next..).unwrap_or_default();
        }
    }
}

fn read_changes(message: RouteNetlinkMessage) -> Vec<Change> {
    match message {
        RouteNetlinkMessage::NewLink(link) => vec![Change::LinkSet(read_link(&link))],
        RouteNetlinkMessage::DelLink(link) => vec![Change::LinkGone(read_link(&link))],
        RouteNetlinkMessage::NewAddress(address) => read_address(&address)
            .map(Change::AddressSet)
            .into_iter()
            .collect(),
        RouteNetlinkMessage::DelAddress(address) => read_address(&address)
            .map(Change::AddressGone)
            .into_iter()
            .collect(),
        RouteNetlinkMessage::NewRoute(route) => read_routes(&route)
            .into_iter()
            .map(Change::RouteSet)
            .collect(),
        RouteNetlinkMessage::DelRoute(route) => read_routes(&route)
            .into_iter()
            .map(Change::RouteGone)
            .collect(),
        _ => Vec::new(),
    }
}

fn link_message(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

fn read_link(message: &LinkMessage) -> Link {
    let flags = message.header.flags;
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::LowerUp),
        loopback: flags.contains(LinkFlags::Loopback),
        point_to_point: flags.contains(LinkFlags::Pointopoint),
        mtu: 0,
        kind: None,
        master: None,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Controller(master) => link.master = Some(*master),
            LinkAttribute::OperState(
                State::Down | State::LowerLayerDown | State::NotPresent | State::Dormant,
            ) => link.carrier = false,
            LinkAttribute::LinkInfo(infos) => {
                link.kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    link
}

fn family_of(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn scope_from(number: u8) -> Scope {
    match number {
        libc::RT_SCOPE_UNIVERSE => Scope::Global,
        libc::RT_SCOPE_LINK => Scope::Link,
        libc::RT_SCOPE_HOST => Scope::Host,
        other => Scope::Other(other),
    }
}

fn scope_number(scope: Scope) -> u8 {
    match scope {
        Scope::Global => libc::RT_SCOPE_UNIVERSE,
        Scope::Link => libc::RT_SCOPE_LINK,
        Scope::Host => libc::RT_SCOPE_HOST,
        Scope::Other(other) => other,
    }
}

fn address_message(index: u32, address: IpAddr, prefix: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family_of(address);
    message.header.prefix_len = prefix;
    message.header.index = index;
    message.header.scope = AddressScope::Universe;
    message.attributes.push(AddressAttribute::Local(address));
    message.attributes.push(AddressAttribute::Address(address));
    message
}

fn read_address(message: &AddressMessage) -> Option<Address> {
    let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
    let (mut local, mut other) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) => other = Some(*address),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    Some(Address {
        index: message.header.index,
        // On a point-to-point link "address" is the other end.
        address: local.or(other)?,
        prefix: message.header.prefix_len,
        scope: scope_from(u8::from(message.header.scope)),
        tentative: flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed)
            && !flags.contains(AddressFlags::Optimistic),
        deprecated: flags.contains(AddressFlags::Deprecated),
    })
}

fn route_message(route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    let header = &mut message.header;
    header.address_family = family_of(route.destination);
    header.destination_prefix_length = route.prefix;
    header.table = u8::try_from(route.table).unwrap_or(libc::RT_TABLE_UNSPEC);
    header.protocol = RouteProtocol::from(route.protocol);
    header.scope = RouteScope::from(scope_number(route.scope));
    header.kind = match route.kind {
        RouteKind::Unicast => RouteType::Unicast,
        RouteKind::Local => RouteType::Local,
        RouteKind::Blackhole => RouteType::BlackHole,
        RouteKind::Unreachable => RouteType::Unreachable,
        RouteKind::Prohibit => RouteType::Prohibit,
        RouteKind::Throw => RouteType::Throw,
        RouteKind::Other(number) => RouteType::from(number),
    };
    let attributes = &mut message.attributes;
    attributes.push(RouteAttribute::Table(route.table));
    if route.prefix > 0 {
        attributes.push(RouteAttribute::Destination(route.destination.into()));
    }
    if let Some(gateway) = route.gateway {
        attributes.push(RouteAttribute::Gateway(gateway.into()));
    }
    if let Some(interface) = route.interface {
        attributes.push(RouteAttribute::Oif(interface));
    }
    if let Some(source) = route.source {
        attributes.push(RouteAttribute::PrefSource(source.into()));
    }
    if route.metric > 0 {
        attributes.push(RouteAttribute::Priority(route.metric));
    }
    message
}

fn ip_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}

fn read_routes(message: &RouteMessage) -> Vec<Route> {
    let header = &message.header;
    let unspecified = match header.address_family {
        AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return Vec::new(),
    };
    if header.flags.contains(RouteFlags::Cloned) {
        return Vec::new(); // what the kernel learned for one destination, not a route
    }
    let mut route = Route {
        destination: unspecified,
        prefix: header.destination_prefix_length,
        gateway: None,
        interface: None,
        table: u32::from(header.table),
        metric: 0,
        protocol: u8::from(header.protocol),
        kind: match header.kind {
            RouteType::Unicast => RouteKind::Unicast,
            RouteType::Local => RouteKind::Local,
            RouteType::BlackHole => RouteKind::Blackhole,
            RouteType::Unreachable => RouteKind::Unreachable,
            RouteType::Prohibit => RouteKind::Prohibit,
            RouteType::Throw => RouteKind::Throw,
            other => RouteKind::Other(u8::from(other)),
        },
        scope: scope_from(u8::from(header.scope)),
        source: None,
    };
    let mut hops = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => {
                route.destination = ip_of(address).unwrap_or(unspecified);
            }
            RouteAttribute::Gateway(address) => route.gateway = ip_of(address),
            RouteAttribute::Oif(index) => route.interface = Some(*index),
            RouteAttribute::Table(table) => route.table = *table,
            RouteAttribute::Priority(metric) => route.metric = *metric,
            RouteAttribute::PrefSource(address) => route.source = ip_of(address),
            RouteAttribute::MultiPath(several) => hops = Some(several),
            _ => {}
        }
    }
    let Some(hops) = hops else { return vec![route] };
    let through = |hop: &rtnetlink::packet_route::route::RouteNextHop| {
        let gateway = hop.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Gateway(address) => ip_of(address),
            _ => None,
        });
        Route {
            gateway,
            interface: Some(hop.interface_index),
            ..route.clone()
        }
    };
    hops.iter().map(through).collect()
}

fn rule_message(rule: &Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = match rule.family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    };
    message.header.action = RuleAction::ToTable;
    message.header.table = u8::try_from(rule.table).unwrap_or(libc::RT_TABLE_UNSPEC);
    if rule.invert {
        message.header.flags |= RuleFlags::Invert;
    }
    let attributes = &mut message.attributes;
    attributes.push(RuleAttribute::Table(rule.table));
    attributes.push(RuleAttribute::Priority(rule.priority));
    attributes.push(RuleAttribute::Protocol(RouteProtocol::from(rule.protocol)));
    if let Some(mark) = rule.mark {
        attributes.push(RuleAttribute::FwMark(mark));
    }
    if let Some(mask) = rule.mask {
        attributes.push(RuleAttribute::FwMask(mask));
    }
    if let Some(length) = rule.suppress_prefix_length {
        attributes.push(RuleAttribute::SuppressPrefixLen(u32::from(length)));
    }
    if let Some(name) = &rule.incoming {
        attributes.push(RuleAttribute::Iifname(name.clone()));
    }
    if let Some(name) = &rule.outgoing {
        attributes.push(RuleAttribute::Oifname(name.clone()));
    }
    if let Some((address, prefix)) = rule.from {
        attributes.push(RuleAttribute::Source(address));
        message.header.src_len = prefix;
    }
    if let Some((address, prefix)) = rule.to {
        attributes.push(RuleAttribute::Destination(address));
        message.header.dst_len = prefix;
    }
    message
}

fn read_rule(message: &RuleMessage) -> Option<Rule> {
    let header = &message.header;
    let family = match header.family {
        AddressFamily::Inet => Family::V4,
        AddressFamily::Inet6 => Family::V6,
        _ => return None,
    };
    let mut rule = Rule::lookup(family, 0, u32::from(header.table));
    rule.protocol = 0;
    rule.invert = header.flags.contains(RuleFlags::Invert);
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(priority) => rule.priority = *priority,
            RuleAttribute::Table(table) => rule.table = *table,
            RuleAttribute::FwMark(mark) => rule.mark = Some(*mark),
            RuleAttribute::FwMask(u32::MAX) => rule.mask = None,
            RuleAttribute::FwMask(mask) => rule.mask = Some(*mask),
            // The kernel tells "do not suppress" as all ones.
            RuleAttribute::SuppressPrefixLen(length) => {
                rule.suppress_prefix_length = u8::try_from(*length).ok();
            }
            RuleAttribute::Iifname(name) => rule.incoming = Some(name.clone()),
            RuleAttribute::Oifname(name) => rule.outgoing = Some(name.clone()),
            RuleAttribute::Source(address) => rule.from = Some((*address, header.src_len)),
            RuleAttribute::Destination(address) => rule.to = Some((*address, header.dst_len)),
            RuleAttribute::Protocol(protocol) => rule.protocol = u8::from(*protocol),
            _ => {}
        }
    }
    if header.action != RuleAction::ToTable {
        rule.table = 0;
    }
    Some(rule)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns::{TestNetns, root};

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// Netlink in a fresh namespace that holds one TUN device's worth of nothing: `lo`, brought up.
    async fn in_namespace<Fut: Future<Output = ()>>(test: impl FnOnce(Netlink, u32) -> Fut) {
        let _namespace = TestNetns::enter();
        let netlink = Netlink::connect().expect("netlink is there");
        let lo = netlink
            .link("lo")
            .await
            .expect("listed")
            .expect("every namespace has it");
        assert!(lo.loopback && !lo.up);
        netlink.set_link_up(lo.index, true).await.expect("set up");
        test(netlink, lo.index).await;
    }

    #[tokio::test]
    async fn addresses_come_and_go_and_doing_it_twice_is_no_error() {
        if !root("addresses") {
            return;
        }
        in_namespace(async |netlink, lo| {
            for (address, prefix) in [(ip("10.9.8.7"), 24), (ip("fd00:77::1"), 64)] {
                netlink
                    .add_address(lo, address, prefix)
                    .await
                    .expect("added");
                netlink
                    .add_address(lo, address, prefix)
                    .await
                    .expect("it was there");
                let all = netlink.addresses().await.expect("listed");
                let ours = all
                    .iter()
                    .find(|found| found.address == address)
                    .expect("it is listed");
                assert_eq!(
                    (ours.index, ours.prefix, ours.scope),
                    (lo, prefix, Scope::Global)
                );
                assert!(!ours.tentative && !ours.deprecated);
                netlink
                    .del_address(lo, address, prefix)
                    .await
                    .expect("removed");
                netlink
                    .del_address(lo, address, prefix)
                    .await
                    .expect("it was gone");
                let all = netlink.addresses().await.expect("listed");
                assert!(all.iter().all(|found| found.address != address));
            }
        })
        .await;
    }

    #[tokio::test]
    async fn a_route_is_read_back_as_it_was_added() {
        if !root("routes") {
            return;
        }
        in_namespace(async |netlink, lo| {
            netlink
                .add_address(lo, ip("10.9.8.7"), 24)
                .await
                .expect("added");
            netlink
                .add_address(lo, ip("fd00:77::1"), 64)
                .await
                .expect("added");
            let default4 = Route {
                table: 51820,
                ..Route::to(ip("0.0.0.0"), 0, lo)
            };
            let via4 = Route {
                metric: 77,
                ..Route::to(ip("192.0.2.0"), 24, lo).via(ip("10.9.8.1"))
            };
            let blackhole = Route {
                kind: RouteKind::Blackhole,
                interface: None,
                scope: Scope::Global,
                ..Route::to(ip("198.51.100.0"), 24, lo)
            };
            let default6 = Route {
                table: 51820,
                metric: 5,
                ..Route::to(ip("::"), 0, lo)
            };
            let source6 = Route {
                metric: 9,
                source: Some(ip("fd00:77::1")),
                ..Route::to(ip("2001:db8::"), 32, lo)
            };
            for route in [default4, via4, blackhole, default6, source6] {
                netlink.add_route(&route).await.expect("added");
                netlink.add_route(&route).await.expect("it was there");
                let all = netlink.routes().await.expect("listed");
                assert!(all.contains(&route), "{route:?} is not among {all:#?}");
                netlink.del_route(&route).await.expect("removed");
                netlink.del_route(&route).await.expect("it was gone");
                assert!(!netlink.routes().await.expect("listed").contains(&route));
            }
        })
        .await;
    }

    #[tokio::test]
    async fn a_rule_is_read_back_as_it_was_added() {
        if !root("rules") {
            return;
        }
        in_namespace(async |netlink, _| {
            let before = netlink.rules().await.expect("listed");
            for family in [Family::V4, Family::V6] {
                let all = if family == Family::V4 {
                    ip("10.0.0.0")
                } else {
                    ip("fd00::")
                };
                let plain = Rule::lookup(family, 1000, 254);
                let marked = Rule {
                    mark: Some(0x4d52),
                    ..Rule::lookup(family, 1001, 51820)
                };
                let masked = Rule {
                    mark: Some(0x100),
                    mask: Some(0xff00),
                    ..marked.clone()
                };
                let suppressing = Rule {
                    suppress_prefix_length: Some(0),
                    ..Rule::lookup(family, 1002, 254)
                };
                let inverted = Rule {
                    invert: true,
                    ..marked.clone()
                };
                let narrow = Rule {
                    from: Some((all, 16)),
                    to: Some((all, 24)),
                    incoming: Some("lo".to_owned()),
                    ..Rule::lookup(family, 1003, 51820)
                };
                for rule in [plain, marked, masked, suppressing, inverted, narrow] {
                    netlink.add_rule(&rule).await.expect("added");
                    netlink.add_rule(&rule).await.expect("it was there");
                    let all = netlink.rules().await.expect("listed");
                    let times = all.iter().filter(|found| **found == rule).count();
                    assert_eq!(times, 1, "{rule:?} in {all:#?}");
                    netlink.del_rule(&rule).await.expect("removed");
                    netlink.del_rule(&rule).await.expect("it was gone");
                }
            }
            assert_eq!(netlink.rules().await.expect("listed"), before);
        })
        .await;
    }

    #[tokio::test]
    async fn changes_are_told_as_they_happen() {
        if !root("watching") {
            return;
        }
        let _namespace = TestNetns::enter();
        let netlink = Netlink::connect().expect("netlink is there");
        let lo = netlink
            .link("lo")
            .await
            .expect("listed")
            .expect("there")
            .index;
        let mut watch = Netlink::watch().expect("watching");
        netlink.set_link_up(lo, true).await.expect("set up");
        netlink.set_link_mtu(lo, 9000).await.expect("set");
        netlink
            .add_address(lo, ip("10.9.8.7"), 24)
            .await
            .expect("added");
        let route = Route {
            table: 99,
            ..Route::to(ip("192.0.2.0"), 24, lo)
        };
        netlink.add_route(&route).await.expect("added");
        netlink.del_route(&route).await.expect("removed");
        netlink
            .del_address(lo, ip("10.9.8.7"), 24)
            .await
            .expect("removed");

        let mut seen = Vec::new();
        loop {
            let change = watch.next().await.expect("the kernel goes on telling");
            let last =
                matches!(&change, Change::AddressGone(gone) if gone.address == ip("10.9.8.7"));
            seen.push(change);
            if last {
                break;
            }
        }
        let up = |change: &Change| matches!(change, Change::LinkSet(link) if link.up && link.index == lo);
        assert!(seen.iter().any(up), "{seen:#?}");
        let wide = |change: &Change| matches!(change, Change::LinkSet(link) if link.mtu == 9000);
        assert!(seen.iter().any(wide), "{seen:#?}");
        assert!(seen.contains(&Change::RouteSet(route.clone())), "{seen:#?}");
        assert!(seen.contains(&Change::RouteGone(route)), "{seen:#?}");
    }

    #[tokio::test]
    async fn what_the_kernel_refuses_is_said_in_a_sentence() {
        let netlink = Netlink::connect().expect("netlink is there");
        let failure = netlink
            .set_link_mtu(u32::MAX >> 1, 1400)
            .await
            .expect_err("no such interface");
        assert!(
            failure
                .to_string()
                .starts_with("cannot set the MTU of interface"),
            "{failure}"
        );
    }
}

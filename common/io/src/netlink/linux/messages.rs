//! Our values as the kernel's messages, and back: a pair of functions each for links, addresses, routes and rules.
//!
//! A route or rule that was written is read back as the same value, so that a plan can be compared with what is there.
//! What we have no value for is passed over.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags, AddressMessage, AddressScope,
};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkMessage, State};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};

use crate::netlink::{Address, Link, Route, RouteKind, Rule, Scope};
use crate::udp::Family;

pub(super) fn link_message(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

pub(super) fn read_link(message: &LinkMessage) -> Link {
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

pub(super) fn address_message(index: u32, address: IpAddr, prefix: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family_of(address);
    message.header.prefix_len = prefix;
    message.header.index = index;
    message.header.scope = AddressScope::Universe;
    message.attributes.push(AddressAttribute::Local(address));
    message.attributes.push(AddressAttribute::Address(address));
    message
}

pub(super) fn read_address(message: &AddressMessage) -> Option<Address> {
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

pub(super) fn route_message(route: &Route) -> RouteMessage {
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

pub(super) fn read_routes(message: &RouteMessage) -> Vec<Route> {
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

pub(super) fn rule_message(rule: &Rule) -> RuleMessage {
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

pub(super) fn read_rule(message: &RuleMessage) -> Option<Rule> {
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

fn ip_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}

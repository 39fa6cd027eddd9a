//! Netlink on Linux, on the crates of the rtnetlink family.
//!
//! Requests go over one socket that all clones share; the [`watch`] has one of
//! its own. How our values stand in the kernel's messages is known to
//! [`messages`] alone.

mod messages;
mod watch;

use std::io;
use std::net::IpAddr;

use futures_util::StreamExt;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload,
};
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::packet_route::route::RouteMessage;
use rtnetlink::packet_route::rule::RuleMessage;
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use self::messages::{
    address_message, link_message, read_address, read_link, read_routes, read_rule, route_message,
    rule_message,
};
pub use self::watch::Watch;
use super::{Address, Link, Route, Rule};
use crate::failure::{Class, Context, Failure};

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
    /// namespace. What happens from this call on is told, or an [`Overrun`](super::Change::Overrun) is.
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

#[cfg(test)]
mod tests;

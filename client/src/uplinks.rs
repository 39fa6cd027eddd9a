//! Which uplinks there are now, and what changed since the last look.
//!
//! [`select`](select::select) judges a moment; [`Uplinks`] remembers. An uplink
//! keeps its socket as long as the interface, the source address and the
//! server's address it started with remain: a carrier that goes and comes, or a
//! route that DHCP renews, only pauses it. When one of the three is gone for
//! good, so are the socket and the path, and the same interface comes back as a
//! new uplink with a new socket.
//!
//! The source address is kept although a better one may appear, because IPv6
//! privacy addresses change daily, and a working path is worth more than a
//! fresh address. Once the kernel calls the address deprecated, a new socket
//! follows.

pub mod select;
#[cfg(target_os = "linux")]
pub mod watch;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use marline_proto::{Role, SocketId};
use serde::{Deserialize, Serialize};

use select::{Candidate, Facts, Unfit, Way, Wish, is_usable_source, select};

/// An uplink in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// The socket that is bound to it.
    pub socket: SocketId,
    /// The interface's name.
    pub name: String,
    /// The interface's index.
    pub index: u32,
    /// Its MTU in bytes.
    pub mtu: u16,
    /// What the operator allows.
    pub role: Role,
    /// How it reaches the server.
    pub way: Way,
    /// Why it is paused, if it is.
    pub paused: Option<Unfit>,
}

/// Why an uplink's socket was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The interface is gone, or another one has its name.
    InterfaceGone,
    /// The source address is gone or deprecated.
    AddressGone,
    /// The server's address cannot be reached over it any more, another one can.
    OtherEndpoint,
    /// The interface's MTU changed.
    MtuChanged,
    /// It may not be used any more.
    Unfit(Unfit),
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lost::InterfaceGone => f.write_str("the interface is gone"),
            Lost::AddressGone => f.write_str("its address is gone"),
            Lost::OtherEndpoint => f.write_str("it moves to another address of the server"),
            Lost::MtuChanged => f.write_str("its MTU changed"),
            Lost::Unfit(unfit) => write!(f, "it {unfit}"),
        }
    }
}

/// What the rest of the client must do about the uplinks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UplinkChange {
    /// A new one: make a socket and tell the core.
    Added(Uplink),
    /// It is gone for good: close its socket and tell the core.
    Removed {
        /// The socket it had.
        socket: SocketId,
        /// The interface's name.
        name: String,
        /// Why.
        why: Lost,
    },
    /// It is out of service, its socket stays.
    Paused {
        /// Its socket.
        socket: SocketId,
        /// The interface's name.
        name: String,
        /// Why.
        why: Unfit,
    },
    /// It is in service again.
    Resumed {
        /// Its socket.
        socket: SocketId,
        /// The interface's name.
        name: String,
    },
}

/// One interface as `marline uplinks` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UplinkReport {
    /// The interface's name.
    pub name: String,
    /// What the operator allows.
    pub role: Role,
    /// Whether it is, or would be, used now.
    pub used: bool,
    /// How it reaches the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub way: Option<Way>,
    /// Why it is not used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// The uplinks in use, and the memory that [`UplinkChange`]s come from.
#[derive(Debug, Default)]
pub struct Uplinks {
    held: BTreeMap<String, Uplink>,
    /// Uplinks over which the server does not answer at this address.
    leaving: BTreeMap<String, SocketAddr>,
    next_socket: u16,
}

impl Uplinks {
    /// The uplinks in use, by name.
    pub fn held(&self) -> impl Iterator<Item = &Uplink> {
        self.held.values()
    }

    /// Compares a moment with the last and says what to do.
    pub fn update(&mut self, facts: &Facts, wish: &Wish) -> Vec<UplinkChange> {
        let candidates = select(facts, wish);
        let mut changes = Vec::new();
        for name in self.held.keys().cloned().collect::<Vec<_>>() {
            let candidate = candidates.iter().find(|candidate| candidate.name == name);
            self.review(&name, candidate, facts, &mut changes);
        }
        for candidate in &candidates {
            if let Ok(ways) = &candidate.ways
                && !self.held.contains_key(&candidate.name)
            {
                let left = self.leaving.remove(&candidate.name);
                let uplink = Uplink {
                    socket: self.fresh_socket(),
                    name: candidate.name.clone(),
                    index: candidate.index,
                    mtu: mtu(candidate),
                    role: candidate.role,
                    way: way_after(ways, left).clone(),
                    paused: None,
                };
                self.held.insert(uplink.name.clone(), uplink.clone());
                changes.push(UplinkChange::Added(uplink));
            }
        }
        changes
    }

    /// Gives up an uplink whose socket could not be made, so that the next look tries again.
    pub fn forget(&mut self, name: &str) {
        self.held.remove(name);
    }

    /// The server does not answer over this uplink: the next [`Self::update`] moves it to the
    /// interface's next way, if it has another.
    pub fn try_next_way(&mut self, name: &str) {
        if let Some(uplink) = self.held.get(name) {
            self.leaving.insert(name.to_owned(), uplink.way.remote);
        }
    }

    /// Decides what becomes of an uplink in use.
    fn review(
        &mut self,
        name: &str,
        candidate: Option<&Candidate>,
        facts: &Facts,
        changes: &mut Vec<UplinkChange>,
    ) {
        let Some(uplink) = self.held.get_mut(name) else {
            return;
        };
        let leaving = self.leaving.contains_key(name);
        let lost = match candidate {
            None => Some(Lost::InterfaceGone),
            Some(candidate) if candidate.index != uplink.index => Some(Lost::InterfaceGone),
            Some(candidate) => match &candidate.ways {
                Err(unfit) if *unfit == Unfit::NoAddress => Some(Lost::AddressGone),
                Err(unfit) if !unfit.is_passing() => Some(Lost::Unfit(*unfit)),
                _ if !is_usable_source(facts, uplink.index, uplink.way.source) => {
                    Some(Lost::AddressGone)
                }
                Err(_) => None,
                Ok(_) if mtu(candidate) != uplink.mtu => Some(Lost::MtuChanged),
                Ok(ways) => {
                    let offered = ways.iter().any(|way| way.remote == uplink.way.remote);
                    let moves = leaving && ways.len() > 1;
                    (!offered || moves).then_some(Lost::OtherEndpoint)
                }
            },
        };
        if let Some(why) = lost {
            let socket = uplink.socket;
            self.held.remove(name);
            if why != Lost::OtherEndpoint {
                self.leaving.remove(name);
            }
            changes.push(UplinkChange::Removed {
                socket,
                name: name.to_owned(),
                why,
            });
            return;
        }
        let now = candidate.and_then(|candidate| candidate.ways.as_ref().err().copied());
        let (socket, name) = (uplink.socket, name.to_owned());
        match (uplink.paused, now) {
            (None, Some(why)) => changes.push(UplinkChange::Paused { socket, name, why }),
            (Some(_), None) => changes.push(UplinkChange::Resumed { socket, name }),
            (None, None) | (Some(_), Some(_)) => {}
        }
        uplink.paused = now;
    }

    /// A number that no socket in use has. Numbers are not reused soon, so that late news about
    /// a closed socket cannot be taken for news about its successor.
    fn fresh_socket(&mut self) -> SocketId {
        loop {
            let id = SocketId(self.next_socket);
            self.next_socket = self.next_socket.wrapping_add(1);
            if self.held.values().all(|uplink| uplink.socket != id) {
                return id;
            }
        }
    }
}

/// The first way, or the one that follows the way to `left`, round and round.
fn way_after(ways: &[Way], left: Option<SocketAddr>) -> &Way {
    let at = left.and_then(|left| ways.iter().position(|way| way.remote == left));
    &ways[at.map_or(0, |at| (at + 1) % ways.len())]
}

/// The interface's MTU as far as a datagram can use it.
fn mtu(candidate: &Candidate) -> u16 {
    u16::try_from(candidate.mtu).unwrap_or(u16::MAX)
}

/// Every interface but our own, with what becomes of it.
pub fn report(facts: &Facts, wish: &Wish, held: &Uplinks) -> Vec<UplinkReport> {
    select(facts, wish)
        .into_iter()
        .filter(|candidate| candidate.ways != Err(Unfit::Ours))
        .map(|candidate| {
            let in_use = held.held.get(&candidate.name);
            let way = match (&in_use, &candidate.ways) {
                (Some(uplink), _) => Some(uplink.way.clone()),
                (None, Ok(ways)) => ways.first().cloned(),
                (None, Err(_)) => None,
            };
            UplinkReport {
                name: candidate.name,
                role: candidate.role,
                used: candidate.ways.is_ok(),
                way,
                why: candidate.ways.err().map(|unfit| unfit.to_string()),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::select::tests::{Machine, V4, V6, wish};
    use super::*;

    fn both_ways() -> Machine {
        Machine::default()
            .ordinary(2, "eth0")
            .address("2001:db8:7::2/64")
            .route("::/0", "fe80::1")
    }

    fn added(changes: &[UplinkChange]) -> Vec<(&str, u16, String)> {
        changes
            .iter()
            .filter_map(|change| match change {
                UplinkChange::Added(u) => Some((&*u.name, u.socket.0, u.way.remote.to_string())),
                _ => None,
            })
            .collect()
    }

    fn removed(changes: &[UplinkChange]) -> Vec<(u16, Lost)> {
        changes
            .iter()
            .filter_map(|change| match change {
                UplinkChange::Removed { socket, why, .. } => Some((socket.0, *why)),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn every_uplink_is_added_once_with_its_own_socket() {
        let machine = Machine::default().ordinary(2, "eth0").ordinary(3, "wwan0");
        let mut uplinks = Uplinks::default();
        let changes = uplinks.update(&machine.0, &wish(&[V4]));
        assert_eq!(
            added(&changes),
            [("eth0", 0, V4.into()), ("wwan0", 1, V4.into())]
        );
        assert_eq!(uplinks.update(&machine.0, &wish(&[V4])), []);
    }

    #[test]
    fn a_carrier_that_goes_and_comes_keeps_the_socket() {
        let wish = wish(&[V4]);
        let mut uplinks = Uplinks::default();
        let good = Machine::default().ordinary(2, "eth0");
        uplinks.update(&good.0, &wish);
        let bad = Machine::default()
            .ordinary(2, "eth0")
            .change(|l| l.carrier = false);
        let socket = SocketId(0);
        let name = || "eth0".to_owned();
        let why = Unfit::NoCarrier;
        let paused = [UplinkChange::Paused {
            socket,
            name: name(),
            why,
        }];
        assert_eq!(uplinks.update(&bad.0, &wish), paused);
        assert_eq!(uplinks.update(&bad.0, &wish), []);
        let resumed = [UplinkChange::Resumed {
            socket,
            name: name(),
        }];
        assert_eq!(uplinks.update(&good.0, &wish), resumed);
    }

    #[test]
    fn a_default_route_that_goes_and_comes_keeps_the_socket() {
        let wish = wish(&[V4]);
        let mut uplinks = Uplinks::default();
        let good = Machine::default().ordinary(2, "eth0");
        uplinks.update(&good.0, &wish);
        let bad = Machine::default().link(2, "eth0").address("192.0.2.2/24");
        let changes = uplinks.update(&bad.0, &wish);
        assert!(matches!(
            changes[..],
            [UplinkChange::Paused {
                why: Unfit::NoRoute,
                ..
            }]
        ));
        let changes = uplinks.update(&good.0, &wish);
        assert!(matches!(changes[..], [UplinkChange::Resumed { .. }]));
    }

    #[test]
    fn a_changed_address_makes_a_new_socket() {
        let wish = wish(&[V4]);
        let mut uplinks = Uplinks::default();
        uplinks.update(&Machine::default().ordinary(2, "eth0").0, &wish);
        let moved = Machine::default()
            .link(2, "eth0")
            .address("203.0.113.7/24")
            .route("0.0.0.0/0", "203.0.113.1");
        let changes = uplinks.update(&moved.0, &wish);
        assert_eq!(removed(&changes), [(0, Lost::AddressGone)]);
        assert_eq!(added(&changes), [("eth0", 1, V4.into())]);
    }

    #[test]
    fn a_second_address_changes_nothing() {
        let wish = wish(&[V6]);
        let first = || Machine::default().link(2, "eth0").route("::/0", "fe80::1");
        let mut uplinks = Uplinks::default();
        uplinks.update(&first().address("2001:db8:7::2/64").0, &wish);
        let two = first()
            .address("2001:db8:7::beef/64")
            .address("2001:db8:7::2/64");
        assert_eq!(uplinks.update(&two.0, &wish), []);
    }

    #[test]
    fn an_interface_that_is_deleted_and_made_again_is_a_new_uplink() {
        let wish = wish(&[V4]);
        let mut uplinks = Uplinks::default();
        uplinks.update(&Machine::default().ordinary(2, "usb0").0, &wish);
        let changes = uplinks.update(&Machine::default().0, &wish);
        assert_eq!(removed(&changes), [(0, Lost::InterfaceGone)]);
        let changes = uplinks.update(&Machine::default().ordinary(9, "usb0").0, &wish);
        assert_eq!(added(&changes), [("usb0", 1, V4.into())]);
        // The deletion itself may be missed when both happen between two looks.
        let changes = uplinks.update(&Machine::default().ordinary(10, "usb0").0, &wish);
        assert_eq!(removed(&changes), [(1, Lost::InterfaceGone)]);
        assert_eq!(added(&changes), [("usb0", 2, V4.into())]);
    }

    #[test]
    fn an_uplink_that_loses_one_ip_version_moves_to_the_other() {
        let wish = wish(&[V6, V4]);
        let mut uplinks = Uplinks::default();
        assert_eq!(
            added(&uplinks.update(&both_ways().0, &wish)),
            [("eth0", 0, V6.into())]
        );
        let mut only_v4 = both_ways();
        only_v4.0.routes.retain(|route| route.destination.is_ipv4());
        let changes = uplinks.update(&only_v4.0, &wish);
        assert_eq!(removed(&changes), [(0, Lost::OtherEndpoint)]);
        assert_eq!(added(&changes), [("eth0", 1, V4.into())]);
        // It stays there when the first choice comes back: a working path is not disturbed.
        assert_eq!(uplinks.update(&both_ways().0, &wish), []);
    }

    #[test]
    fn an_endpoint_that_does_not_answer_is_left_for_the_next_and_returned_to_later() {
        let wish = wish(&[V6, V4]);
        let mut uplinks = Uplinks::default();
        uplinks.update(&both_ways().0, &wish);
        for (socket, remote) in [(1, V4), (2, V6), (3, V4)] {
            uplinks.try_next_way("eth0");
            let changes = uplinks.update(&both_ways().0, &wish);
            assert_eq!(removed(&changes), [(socket - 1, Lost::OtherEndpoint)]);
            assert_eq!(added(&changes), [("eth0", socket, remote.into())]);
        }
        let only_one = Machine::default().ordinary(2, "eth0");
        let mut uplinks = Uplinks::default();
        uplinks.update(&only_one.0, &wish);
        uplinks.try_next_way("eth0");
        assert_eq!(uplinks.update(&only_one.0, &wish), []);
    }

    #[test]
    fn the_report_names_every_interface_and_the_reason() {
        let machine = Machine::default()
            .link(1, "lo")
            .ordinary(2, "eth0")
            .ordinary(3, "eth1")
            .change(|l| l.carrier = false);
        let report = report(&machine.0, &wish(&[V4]), &Uplinks::default());
        assert_eq!(report.len(), 2);
        assert!(report[0].used && report[0].why.is_none());
        assert!(!report[1].used);
        assert_eq!(report[1].why.as_deref(), Some("has no carrier"));
    }
}

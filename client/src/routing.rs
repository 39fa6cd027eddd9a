//! How the machine's traffic gets into the bond and our own datagrams do not: a
//! [`RoutePlan`], made by a pure function, that can be printed before it is
//! applied.
//!
//! Nothing that DHCP or a network manager put there is touched. Two rules per IP
//! version stand before the system's own, and one routing table is ours:
//!
//! ```text
//! 31900: from all lookup main suppress_prefixlength 0
//! 31901: not from all fwmark 0x6d61 lookup 28001
//! ```
//!
//! The first finds everything that the main table knows better than "by
//! default": the LAN, a printer, another VPN's networks. The second sends the
//! rest into our table, whose default route is the TUN; what carries our mark
//! passes it by and sees the system's own rules, as if we were not there. So a
//! tunnelled packet cannot end in the tunnel, and DHCP may change the default
//! route at any time.
//!
//! An IP version for which the bond has no address is captured all the same, and
//! refused with "unreachable": a program then uses the other version at once,
//! instead of leaking past the bond. (When the client is killed, that refusal
//! stays until the next start or `marline restore`; routes by the TUN vanish
//! with it.)
//!
//! Answers from the server reach an uplink although the way to the server, for
//! packets without our mark, leads into the TUN. A strict reverse-path filter
//! (`rp_filter` 1) drops them, so uplinks get the loose one (2). The kernel uses
//! the larger of `all` and the interface's own value, and 2 is the largest:
//! setting the interface's value is enough, and `src_valid_mark` is not needed.
//! The loose filter still wants some route back. In an IPv4 bond without IPv4
//! addresses "unreachable" would be none, so there the server's own addresses
//! point to the TUN.

#[cfg(target_os = "linux")]
pub mod apply;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use marline_io::failure::{Class, Failure};
use marline_io::netlink::{Route, RouteKind, Rule};
use marline_io::udp::Family;
use serde::{Deserialize, Serialize};

use crate::settings::Routes;
use crate::uplinks::select::MAIN_TABLE;

/// Priority of the rule that keeps specific routes working; the next number is the rule that
/// captures. After other tools' rules that pick out traffic on purpose (most stand below
/// 30000), before the system's main table (32766).
pub const PRIORITY: u32 = 31900;

/// The loose reverse-path filter.
const LOOSE: u8 = 2;

/// Metric of a route that refuses: the highest, so that any other route wins.
const LAST_METRIC: u32 = u32::MAX;

/// What routing shall achieve.
#[derive(Clone, Debug)]
pub struct RouteWish {
    /// The TUN interface's name.
    pub interface: String,
    /// The TUN interface's index; 0 in a plan that is only printed.
    pub index: u32,
    /// The mark of our own datagrams.
    pub mark: u32,
    /// Our table.
    pub table: u32,
    /// What goes through the bond.
    pub routes: Routes,
    /// The bond's inner addresses.
    pub addresses: Vec<IpNet>,
    /// The server's outer addresses.
    pub servers: Vec<IpAddr>,
    /// The uplinks' names.
    pub uplinks: Vec<String>,
}

/// What is there before.
#[derive(Clone, Debug, Default)]
pub struct Present {
    /// The rules.
    pub rules: Vec<Rule>,
    /// The routes of all tables.
    pub routes: Vec<Route>,
    /// `net.ipv4.conf.*.rp_filter` by interface, and `all`.
    pub rp_filter: BTreeMap<String, u8>,
    /// Whether the kernel has IPv6.
    pub has_v6: bool,
}

/// One change to the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Step {
    /// A routing rule is added.
    Rule(Rule),
    /// A route is added.
    Route {
        /// The interface's name, for people.
        interface: String,
        /// The route.
        route: Route,
    },
    /// A kernel setting is changed.
    Sysctl {
        /// Its path below `/proc/sys`.
        key: String,
        /// What it is.
        from: String,
        /// What it becomes.
        to: String,
    },
}

/// What `up` changes in rules, routes and kernel settings, in order. Undone in reverse.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoutePlan {
    /// The changes.
    pub steps: Vec<Step>,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Rule(rule) => {
                let version = if rule.family == Family::V4 { 4 } else { 6 };
                write!(f, "ip -{version} rule add priority {}", rule.priority)?;
                if let Some(mark) = rule.mark {
                    let not = if rule.invert { " not" } else { "" };
                    write!(f, "{not} fwmark {mark:#x}")?;
                }
                match rule.table {
                    MAIN_TABLE => f.write_str(" lookup main")?,
                    table => write!(f, " lookup {table}")?,
                }
                match rule.suppress_prefix_length {
                    Some(length) => write!(f, " suppress_prefixlength {length}"),
                    None => Ok(()),
                }
            }
            Step::Route { interface, route } => {
                let version = if route.destination.is_ipv4() { 4 } else { 6 };
                write!(f, "ip -{version} route add ")?;
                if route.kind == RouteKind::Unreachable {
                    f.write_str("unreachable ")?;
                }
                match route.prefix {
                    0 => f.write_str("default")?,
                    prefix => write!(f, "{}/{prefix}", route.destination)?,
                }
                if route.kind != RouteKind::Unreachable {
                    write!(f, " dev {interface}")?;
                }
                write!(f, " table {}", route.table)?;
                if route.metric != 0 {
                    write!(f, " metric {}", route.metric)
                } else {
                    Ok(())
                }
            }
            Step::Sysctl { key, from, to } => {
                write!(f, "sysctl {}={to} (is {from})", key.replace('/', "."))
            }
        }
    }
}

impl RoutePlan {
    /// The plan that leads from `present` to `wish`; a failure when somebody else uses our table
    /// or our places among the rules.
    pub fn new(wish: &RouteWish, present: &Present) -> Result<RoutePlan, Failure> {
        refuse_foreign(wish, present)?;
        let mut steps: Vec<Step> = wish
            .uplinks
            .iter()
            .filter_map(|name| loosen(name, present))
            .collect();
        let families: &[Family] = if present.has_v6 {
            &[Family::V4, Family::V6]
        } else {
            &[Family::V4]
        };
        // Routes first: once the rules are there, the table must be complete.
        for &family in families {
            steps.extend(routes(wish, family));
        }
        for &family in families {
            if steps.iter().any(|step| is_route_of(step, family)) {
                steps.extend(rules(wish, family).map(Step::Rule));
            }
        }
        Ok(RoutePlan { steps })
    }
}

/// The change that lets an uplink hear the server although replies would leave by the TUN;
/// `None` when nothing is in the way.
pub fn loosen(uplink: &str, present: &Present) -> Option<Step> {
    let own = *present.rp_filter.get(uplink)?;
    let all = present.rp_filter.get("all").copied().unwrap_or(0);
    (own.max(all) == 1).then(|| Step::Sysctl {
        key: format!("net/ipv4/conf/{uplink}/rp_filter"),
        from: own.to_string(),
        to: LOOSE.to_string(),
    })
}

fn is_route_of(step: &Step, family: Family) -> bool {
    matches!(step, Step::Route { route, .. } if Family::of(route.destination) == family)
}

fn refuse_foreign(wish: &RouteWish, present: &Present) -> Result<(), Failure> {
    let table = wish.table;
    let advice = "set `table` in the configuration to a number that nobody uses";
    if present.routes.iter().any(|route| route.table == table) {
        return Err(Failure::new(
            Class::Conflict,
            format!("routing table {table} has routes that are not Marline's"),
        )
        .with_advice(advice));
    }
    if let Some(rule) = present.rules.iter().find(|rule| rule.table == table) {
        return Err(Failure::new(
            Class::Conflict,
            format!(
                "the rule with priority {} uses routing table {table}",
                rule.priority
            ),
        )
        .with_advice(advice));
    }
    Ok(())
}

fn rules(wish: &RouteWish, family: Family) -> impl Iterator<Item = Rule> {
    let specific = Rule {
        suppress_prefix_length: Some(0),
        ..Rule::lookup(family, PRIORITY, MAIN_TABLE)
    };
    let capture = Rule {
        mark: Some(wish.mark),
        invert: true,
        ..Rule::lookup(family, PRIORITY + 1, wish.table)
    };
    [specific, capture].into_iter()
}

fn routes(wish: &RouteWish, family: Family) -> Vec<Step> {
    let has_address = wish
        .addresses
        .iter()
        .any(|net| Family::of(net.addr()) == family);
    let destinations: Vec<IpNet> = match &wish.routes {
        Routes::Default => vec![everything(family)],
        Routes::Networks(networks) => networks
            .iter()
            .filter(|net| Family::of(net.addr()) == family)
            .copied()
            .collect(),
    };
    let mut routes: Vec<Route> = Vec::new();
    if family == Family::V4 && !has_address && !destinations.is_empty() {
        let servers = wish.servers.iter().filter(|ip| Family::of(**ip) == family);
        routes.extend(servers.map(|ip| through(wish, (*ip).into())));
    }
    for destination in destinations {
        let mut route = through(wish, destination);
        if !has_address {
            route.kind = RouteKind::Unreachable;
            route.interface = None;
            route.metric = LAST_METRIC;
        }
        routes.push(route);
    }
    routes
        .into_iter()
        .map(|route| Step::Route {
            interface: wish.interface.clone(),
            route,
        })
        .collect()
}

fn through(wish: &RouteWish, destination: IpNet) -> Route {
    let mut route = Route::to(destination.addr(), destination.prefix_len(), wish.index);
    route.table = wish.table;
    route
}

fn everything(family: Family) -> IpNet {
    match family {
        Family::V4 => IpNet::new_assert(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
        Family::V6 => IpNet::new_assert(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().expect("a network")
    }

    fn wish() -> RouteWish {
        RouteWish {
            interface: "marline0".to_owned(),
            index: 7,
            mark: 0x6d61,
            table: 28001,
            routes: Routes::Default,
            addresses: vec![net("10.77.0.2/32"), net("fd77::2/128")],
            servers: vec![[198, 51, 100, 1].into()],
            uplinks: vec!["eth0".to_owned(), "wwan0".to_owned()],
        }
    }

    fn present() -> Present {
        Present {
            has_v6: true,
            ..Present::default()
        }
    }

    fn printed(wish: &RouteWish, present: &Present) -> Vec<String> {
        let plan = RoutePlan::new(wish, present).expect("no conflict");
        plan.steps.iter().map(Step::to_string).collect()
    }

    #[test]
    fn everything_goes_into_the_tun_except_our_datagrams_and_what_main_knows_better() {
        assert_eq!(
            printed(&wish(), &present()),
            [
                "ip -4 route add default dev marline0 table 28001",
                "ip -6 route add default dev marline0 table 28001",
                "ip -4 rule add priority 31900 lookup main suppress_prefixlength 0",
                "ip -4 rule add priority 31901 not fwmark 0x6d61 lookup 28001",
                "ip -6 rule add priority 31900 lookup main suppress_prefixlength 0",
                "ip -6 rule add priority 31901 not fwmark 0x6d61 lookup 28001",
            ]
        );
    }

    #[test]
    fn ipv6_is_refused_rather_than_leaked_when_the_bond_has_no_ipv6_address() {
        let wish = RouteWish {
            addresses: vec![net("10.77.0.2/32")],
            ..wish()
        };
        let plan = printed(&wish, &present());
        let refused = "ip -6 route add unreachable default table 28001 metric 4294967295";
        assert_eq!(plan[1], refused);
        assert!(
            plan.iter()
                .any(|step| step.starts_with("ip -6 rule add priority 31901"))
        );
    }

    #[test]
    fn an_ipv4_refusal_leaves_the_reverse_path_filter_a_way_to_the_server() {
        let wish = RouteWish {
            addresses: vec![net("fd77::2/128")],
            ..wish()
        };
        let plan = printed(&wish, &present());
        assert_eq!(
            plan[0],
            "ip -4 route add 198.51.100.1/32 dev marline0 table 28001"
        );
        let refused = "ip -4 route add unreachable default table 28001 metric 4294967295";
        assert_eq!(plan[1], refused);
    }

    #[test]
    fn listed_networks_only_are_captured() {
        let wish = RouteWish {
            routes: Routes::Networks(vec![net("10.0.0.0/8")]),
            ..wish()
        };
        assert_eq!(
            printed(&wish, &present()),
            [
                "ip -4 route add 10.0.0.0/8 dev marline0 table 28001",
                "ip -4 rule add priority 31900 lookup main suppress_prefixlength 0",
                "ip -4 rule add priority 31901 not fwmark 0x6d61 lookup 28001",
            ]
        );
    }

    #[test]
    fn a_kernel_without_ipv6_gets_no_ipv6_steps() {
        let plan = printed(&wish(), &Present::default());
        assert!(
            plan.len() == 3 && plan.iter().all(|step| step.contains("-4")),
            "{plan:?}"
        );
    }

    #[test]
    fn the_reverse_path_filter_is_loosened_exactly_where_it_is_strict() {
        for (all, own, expected) in [
            (0, 0, None),
            (0, 1, Some("sysctl net.ipv4.conf.eth0.rp_filter=2 (is 1)")),
            (1, 0, Some("sysctl net.ipv4.conf.eth0.rp_filter=2 (is 0)")),
            (2, 1, None),
            (0, 2, None),
            (1, 2, None),
        ] {
            let rp_filter = [("all", all), ("eth0", own), ("lan0", 1)];
            let rp_filter = rp_filter
                .map(|(name, value)| (name.to_owned(), value))
                .into();
            let plan = printed(
                &wish(),
                &Present {
                    rp_filter,
                    ..present()
                },
            );
            let sysctls: Vec<&String> = plan.iter().filter(|s| s.starts_with("sysctl")).collect();
            assert_eq!(
                sysctls.first().map(|s| s.as_str()),
                expected,
                "all {all}, own {own}"
            );
            assert!(
                sysctls.len() <= 1,
                "an interface that is no uplink stays as it is"
            );
        }
    }

    #[test]
    fn a_table_that_somebody_else_uses_is_refused() {
        let mut foreign = Route::to([10, 0, 0, 0].into(), 8, 3);
        foreign.table = 28001;
        let routes = Present {
            routes: vec![foreign],
            ..present()
        };
        let rules = Present {
            rules: vec![Rule::lookup(Family::V4, 99, 28001)],
            ..present()
        };
        for present in [routes, rules] {
            let failure = RoutePlan::new(&wish(), &present).expect_err("a conflict");
            assert_eq!(failure.exit_code(), 6);
            assert!(failure.to_string().contains("28001"), "{failure}");
        }
    }
}

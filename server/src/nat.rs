//! What has to change in the kernel so that clients reach the internet, as a plan.
//!
//! Nothing here touches the machine. [`plan`] compares what is ([`Facts`]) with
//! what should be ([`Wanted`]) and answers with a value that can be printed,
//! tested and applied ([`apply`]). Three things are planned:
//!
//! * **Forwarding**, through sysctls. `ip_forward` and IPv6's `forwarding` have side
//!   effects that would not be undone by setting them back: each overwrites the
//!   same switch of every interface, IPv4's also flips `accept_redirects`, and
//!   IPv6's makes the kernel drop the default route it learned from router
//!   advertisements, which would cut a rented server off. So advertisements are
//!   kept alive first (`accept_ra` 2), and every switch that could flip along is
//!   noted beforehand.
//! * **Filter and translation**, as one nftables table of our own, so that removing
//!   the table removes everything. It lets clients out and answers in, hides the
//!   clients behind the server's addresses (NAT44 and NAT66), lowers the MSS of
//!   TCP connections to what the tunnel carries, and drops packets for clients
//!   that would leave by another interface.
//! * **What was there before**, as a [`Journal`] that is written before the first
//!   change and outlives `kill -9`.
//!
//! That last filter rule matters for restarts. A daemon that is killed takes the TUN with
//! it, while table and sysctls stay. Answers from the internet are then still
//! translated back to the clients' inner addresses; without the rule they would
//! follow the default route, and a router out there would tell the far end that
//! its peer is gone. Dropped, they are merely late, and the connection goes on when the new
//! daemon is there. For the same reason a new daemon that finds a journal does
//! not undo and redo: it replaces the table in one transaction, leaves the sysctls
//! as they are and keeps the older memory. Connection tracking is never flushed.

use std::collections::BTreeMap;
use std::fmt;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use marline_io::failure::{Class, Failure};
use serde::{Deserialize, Serialize};

use crate::settings::Settings;

#[cfg(target_os = "linux")]
pub mod apply;
#[cfg(not(target_os = "linux"))]
#[path = "nat/unsupported.rs"]
pub mod apply;

/// Sysctls are named by their path below `/proc/sys`, because an interface's name may hold dots.
const IP_FORWARD: &str = "net/ipv4/ip_forward";
const V6_FORWARDING: &str = "net/ipv6/conf/all/forwarding";
const V4_ACCEPT_REDIRECTS: &str = "net/ipv4/conf/all/accept_redirects";

/// What the settings ask for.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The TUN interface's name.
    pub interface: String,
    /// Inner IPv4 addresses.
    pub v4: Option<Ipv4Net>,
    /// Inner IPv6 addresses.
    pub v6: Option<Ipv6Net>,
    /// Whether clients go out under the server's own addresses.
    pub nat: bool,
}

impl Wanted {
    /// What these settings ask for.
    pub fn by(settings: &Settings) -> Self {
        Wanted {
            interface: settings.interface.clone(),
            v4: settings.pool_v4,
            v6: settings.pool_v6,
            nat: settings.nat,
        }
    }

    fn pools(&self) -> impl Iterator<Item = IpNet> {
        let v4 = self.v4.map(IpNet::V4);
        v4.into_iter().chain(self.v6.map(IpNet::V6))
    }
}

/// What is, as far as the plan depends on it.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Values of the sysctls about forwarding, redirects and router advertisements.
    pub sysctls: BTreeMap<String, String>,
    /// Destinations of the routes in the main table, with the interface they leave by.
    pub routes: Vec<(IpNet, String)>,
    /// Base chains of others at the forward hook whose policy is to drop, as
    /// "family table chain".
    pub dropping_chains: Vec<String>,
}

/// A chain of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Chain {
    /// At the forward hook, before filters: changes TCP options.
    Clamp,
    /// At the forward hook: filters.
    Forward,
    /// At the postrouting hook: translates source addresses.
    Masquerade,
}

/// A rule of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// Lower the MSS of connections from clients.
    ClampFromClients,
    /// Lower the MSS of connections to clients.
    ClampToClients,
    /// Drop packets to this pool that would leave by another interface than the TUN.
    DropStrays(IpNet),
    /// Let clients out.
    AcceptFromClients,
    /// Let answers in.
    AcceptAnswers,
    /// Let nothing else in.
    DropUninvited,
    /// Let everything in: without translation the clients' addresses are public.
    AcceptToClients,
    /// Hide this pool behind the address of the interface a packet leaves by.
    Masquerade(IpNet),
}

impl Rule {
    /// The chain it stands in.
    pub fn chain(self) -> Chain {
        match self {
            Rule::ClampFromClients | Rule::ClampToClients => Chain::Clamp,
            Rule::DropStrays(_)
            | Rule::AcceptFromClients
            | Rule::AcceptAnswers
            | Rule::DropUninvited
            | Rule::AcceptToClients => Chain::Forward,
            Rule::Masquerade(_) => Chain::Masquerade,
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rule::ClampFromClients => {
                f.write_str("lower the MSS of clients' TCP connections to the route's MTU")
            }
            Rule::ClampToClients => {
                f.write_str("lower the MSS of TCP connections to clients to the tunnel's MTU")
            }
            Rule::DropStrays(pool) => write!(
                f,
                "drop packets to {pool} that would leave by another interface (while the server restarts)"
            ),
            Rule::AcceptFromClients => f.write_str("let clients out"),
            Rule::AcceptAnswers => f.write_str("let answers to clients in"),
            Rule::DropUninvited => f.write_str("let nothing else in to clients"),
            Rule::AcceptToClients => f.write_str("let everything in to clients"),
            Rule::Masquerade(pool) => {
                write!(
                    f,
                    "send {pool} out under the server's own addresses (masquerade)"
                )
            }
        }
    }
}

/// A sysctl that gets another value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SysctlChange {
    /// Its path below `/proc/sys`.
    pub key: String,
    /// Its value now.
    pub from: String,
    /// The value it gets.
    pub to: String,
}

/// Everything that is to change in the kernel besides the TUN itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The TUN interface's name.
    pub interface: String,
    /// The nftables table, of family inet, that holds the rules.
    pub table: String,
    /// The rules in their order.
    pub rules: Vec<Rule>,
    /// The sysctls in the order in which they are set.
    pub sysctls: Vec<SysctlChange>,
    /// Sysctls that the kernel flips along, with the values they have now.
    pub side_effects: BTreeMap<String, String>,
    /// What a person should know, one sentence each.
    pub warnings: Vec<String>,
}

/// What has to change; refuses a pool that is in use on this machine already.
pub fn plan(wanted: &Wanted, facts: &Facts) -> Result<Plan, Failure> {
    let mut warnings = Vec::new();
    for pool in wanted.pools() {
        warnings.extend(check_routes(pool, wanted, facts)?);
    }
    for chain in &facts.dropping_chains {
        warnings.push(format!(
            "the chain \"{chain}\" drops forwarded packets that no rule of its own accepts: if clients \
             reach the server but not the internet, accept \"{}\" there",
            wanted.interface
        ));
    }

    let mut rules = vec![Rule::ClampFromClients, Rule::ClampToClients];
    rules.extend(wanted.pools().map(Rule::DropStrays));
    rules.push(Rule::AcceptFromClients);
    if wanted.nat {
        rules.extend([Rule::AcceptAnswers, Rule::DropUninvited]);
        rules.extend(wanted.pools().map(Rule::Masquerade));
    } else {
        rules.push(Rule::AcceptToClients);
    }

    let (sysctls, side_effects) = plan_sysctls(wanted, facts);
    Ok(Plan {
        interface: wanted.interface.clone(),
        table: table_name(&wanted.interface),
        rules,
        sysctls,
        side_effects,
        warnings,
    })
}

/// One table per interface, so that two servers on one machine do not share one.
fn table_name(interface: &str) -> String {
    format!("marline-server-{interface}")
}

/// A route into the pool that is not ours would take packets away from the tunnel.
fn check_routes(pool: IpNet, wanted: &Wanted, facts: &Facts) -> Result<Vec<String>, Failure> {
    let mut warnings = Vec::new();
    for (route, interface) in &facts.routes {
        if *interface == wanted.interface || route.prefix_len() == 0 {
            continue;
        }
        let field = if pool.addr().is_ipv4() {
            "pool_v4"
        } else {
            "pool_v6"
        };
        if pool.contains(route) {
            return Err(Failure::new(
                Class::Conflict,
                format!("the address pool {pool} overlaps the route {route} of \"{interface}\""),
            )
            .with_advice(format!("choose another \"{field}\" in the configuration")));
        }
        if route.contains(&pool) {
            warnings.push(format!(
                "the address pool {pool} lies inside the route {route} of \"{interface}\": that part of \
                 the network cannot be reached while the server runs"
            ));
        }
    }
    Ok(warnings)
}

fn plan_sysctls(wanted: &Wanted, facts: &Facts) -> (Vec<SysctlChange>, BTreeMap<String, String>) {
    let mut changes = Vec::new();
    let mut side_effects = BTreeMap::new();
    let mut flip = |key: &str, from: &str, to: &str| {
        changes.push(SysctlChange {
            key: key.to_owned(),
            from: from.to_owned(),
            to: to.to_owned(),
        });
    };
    let is_off = |key: &str| facts.sysctls.get(key).is_some_and(|value| value == "0");

    if wanted.v4.is_some() && is_off(IP_FORWARD) {
        flip(IP_FORWARD, "0", "1");
        side_effects.extend(per_interface(facts, "net/ipv4/conf/", "/forwarding"));
        if let Some(value) = facts.sysctls.get(V4_ACCEPT_REDIRECTS) {
            side_effects.insert(V4_ACCEPT_REDIRECTS.to_owned(), value.clone());
        }
    }
    if wanted.v6.is_some() && is_off(V6_FORWARDING) {
        for (key, value) in per_interface(facts, "net/ipv6/conf/", "/accept_ra") {
            // 1 means "while not forwarding", 2 means "always"; "all" is not consulted by the kernel.
            if value == "1" && key != "net/ipv6/conf/all/accept_ra" {
                flip(&key, "1", "2");
            }
        }
        flip(V6_FORWARDING, "0", "1");
        side_effects.extend(per_interface(facts, "net/ipv6/conf/", "/forwarding"));
        side_effects.remove(V6_FORWARDING);
    }
    (changes, side_effects)
}

fn per_interface(facts: &Facts, prefix: &str, suffix: &str) -> BTreeMap<String, String> {
    facts
        .sysctls
        .iter()
        .filter(|(key, _)| key.starts_with(prefix) && key.ends_with(suffix))
        // The same switch under another name.
        .filter(|(key, _)| *key != "net/ipv4/conf/all/forwarding")
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "nftables table inet {} with the rules:", self.table)?;
        for rule in &self.rules {
            writeln!(f, "  {rule}")?;
        }
        match self.sysctls.as_slice() {
            [] => writeln!(f, "no sysctl has to change")?,
            _ => writeln!(f, "sysctls, put back when the server stops:")?,
        }
        for change in &self.sysctls {
            writeln!(f, "  {} from {} to {}", change.key, change.from, change.to)?;
        }
        for warning in &self.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        Ok(())
    }
}

/// A sysctl that was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedSysctl {
    /// Its path below `/proc/sys`.
    pub key: String,
    /// The value it had.
    pub before: String,
    /// The value it was given.
    pub ours: String,
}

/// What is needed to put everything back, whatever happens to the daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    /// The nftables tables, of family inet, that were made.
    pub tables: Vec<String>,
    /// The sysctls that were set, in that order.
    pub sysctls: Vec<ChangedSysctl>,
    /// Sysctls that the kernel may have flipped along, with the values they had.
    pub side_effects: BTreeMap<String, String>,
}

impl Journal {
    /// What to remember when `plan` is applied on top of what an earlier daemon left behind.
    /// Where both know a value, the older one is from before Marline.
    pub fn of(plan: &Plan, left_behind: Option<Journal>) -> Self {
        let mut journal = left_behind.unwrap_or_default();
        if !journal.tables.contains(&plan.table) {
            journal.tables.push(plan.table.clone());
        }
        for change in &plan.sysctls {
            if !journal.sysctls.iter().any(|known| known.key == change.key) {
                journal.sysctls.push(ChangedSysctl {
                    key: change.key.clone(),
                    before: change.from.clone(),
                    ours: change.to.clone(),
                });
            }
        }
        for (key, value) in &plan.side_effects {
            journal
                .side_effects
                .entry(key.clone())
                .or_insert_with(|| value.clone());
        }
        journal
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> Wanted {
        Wanted {
            interface: "marline0".to_owned(),
            v4: Some("10.77.0.0/16".parse().unwrap()),
            v6: Some("fd00:77::/64".parse().unwrap()),
            nat: true,
        }
    }

    fn fresh_machine() -> Facts {
        let sysctls = [
            (IP_FORWARD, "0"),
            ("net/ipv4/conf/all/forwarding", "0"),
            ("net/ipv4/conf/eth0.100/forwarding", "0"),
            ("net/ipv4/conf/eth1/forwarding", "1"),
            (V4_ACCEPT_REDIRECTS, "0"),
            (V6_FORWARDING, "0"),
            ("net/ipv6/conf/eth0/forwarding", "0"),
            ("net/ipv6/conf/all/accept_ra", "1"),
            ("net/ipv6/conf/eth0/accept_ra", "1"),
            ("net/ipv6/conf/eth1/accept_ra", "0"),
            ("net/ipv6/conf/eth2/accept_ra", "2"),
        ];
        Facts {
            sysctls: sysctls
                .iter()
                .map(|(k, v)| (k.to_string(), v.to_string()))
                .collect(),
            routes: vec![
                ("0.0.0.0/0".parse().unwrap(), "eth0".to_owned()),
                ("192.0.2.0/24".parse().unwrap(), "eth0".to_owned()),
            ],
            dropping_chains: Vec::new(),
        }
    }

    /// What the machine would look like after the plan, side effects included.
    fn after(facts: &Facts, plan: &Plan) -> Facts {
        let mut facts = facts.clone();
        for change in &plan.sysctls {
            facts.sysctls.insert(change.key.clone(), change.to.clone());
        }
        for key in plan
            .side_effects
            .keys()
            .filter(|key| key.ends_with("/forwarding"))
        {
            facts.sysctls.insert(key.clone(), "1".to_owned());
        }
        facts
    }

    #[test]
    fn forwarding_is_switched_on_and_router_advertisements_are_kept_alive_first() {
        let plan = plan(&wanted(), &fresh_machine()).unwrap();
        let order: Vec<_> = plan
            .sysctls
            .iter()
            .map(|c| (c.key.as_str(), c.from.as_str(), c.to.as_str()))
            .collect();
        assert_eq!(
            order,
            [
                (IP_FORWARD, "0", "1"),
                ("net/ipv6/conf/eth0/accept_ra", "1", "2"),
                (V6_FORWARDING, "0", "1"),
            ]
        );
    }

    #[test]
    fn every_switch_that_flips_along_is_remembered() {
        let plan = plan(&wanted(), &fresh_machine()).unwrap();
        let remembered: Vec<_> = plan
            .side_effects
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect();
        assert_eq!(
            remembered,
            [
                (V4_ACCEPT_REDIRECTS, "0"),
                ("net/ipv4/conf/eth0.100/forwarding", "0"),
                ("net/ipv4/conf/eth1/forwarding", "1"),
                ("net/ipv6/conf/eth0/forwarding", "0"),
            ]
        );
    }

    #[test]
    fn a_machine_that_forwards_already_keeps_its_sysctls() {
        let mut facts = fresh_machine();
        facts.sysctls.insert(IP_FORWARD.to_owned(), "1".to_owned());
        facts
            .sysctls
            .insert(V6_FORWARDING.to_owned(), "1".to_owned());
        let plan = plan(&wanted(), &facts).unwrap();
        assert_eq!(plan.sysctls, []);
        assert!(plan.side_effects.is_empty());
    }

    #[test]
    fn a_family_without_a_pool_is_left_alone() {
        let plan = plan(
            &Wanted {
                v6: None,
                ..wanted()
            },
            &fresh_machine(),
        )
        .unwrap();
        assert!(plan.sysctls.iter().all(|change| change.key == IP_FORWARD));
        let v6 = |rule: &&Rule| {
            matches!(
                rule,
                Rule::Masquerade(IpNet::V6(_)) | Rule::DropStrays(IpNet::V6(_))
            )
        };
        assert_eq!(plan.rules.iter().filter(v6).count(), 0);
    }

    #[test]
    fn without_nat_nothing_is_translated_and_clients_can_be_reached() {
        let plan = plan(
            &Wanted {
                nat: false,
                ..wanted()
            },
            &fresh_machine(),
        )
        .unwrap();
        assert!(
            !plan
                .rules
                .iter()
                .any(|rule| rule.chain() == Chain::Masquerade)
        );
        assert!(!plan.rules.contains(&Rule::DropUninvited));
        assert!(plan.rules.contains(&Rule::AcceptToClients));
    }

    #[test]
    fn a_pool_that_is_in_use_on_the_machine_is_refused() {
        for route in ["10.77.0.0/16", "10.77.3.0/24"] {
            let mut facts = fresh_machine();
            facts
                .routes
                .push((route.parse().unwrap(), "docker0".to_owned()));
            let failure = plan(&wanted(), &facts).unwrap_err();
            assert_eq!(failure.class(), Class::Conflict);
            let text = failure.to_string();
            assert!(text.contains(route) && text.contains("docker0"), "{text}");
            assert!(text.contains("pool_v4"), "{text}");
        }
    }

    #[test]
    fn our_own_route_and_the_default_route_are_no_conflict_but_a_wider_one_is_worth_a_warning() {
        let mut facts = fresh_machine();
        facts
            .routes
            .push(("10.77.0.0/16".parse().unwrap(), "marline0".to_owned()));
        assert_eq!(plan(&wanted(), &facts).unwrap().warnings, [""; 0]);
        facts
            .routes
            .push(("10.0.0.0/8".parse().unwrap(), "eth1".to_owned()));
        let warnings = plan(&wanted(), &facts).unwrap().warnings;
        assert!(warnings[0].contains("10.0.0.0/8"), "{warnings:?}");
    }

    #[test]
    fn another_firewall_that_drops_is_named() {
        let mut facts = fresh_machine();
        facts.dropping_chains.push("ip filter FORWARD".to_owned());
        let plan = plan(&wanted(), &facts).unwrap();
        assert!(plan.warnings[0].contains("\"ip filter FORWARD\""));
        assert!(plan.to_string().contains("warning: the chain"));
    }

    #[test]
    fn a_second_start_after_a_crash_remembers_what_was_before_the_first() {
        let facts = fresh_machine();
        let first = plan(&wanted(), &facts).unwrap();
        let journal = Journal::of(&first, None);

        let second = plan(&wanted(), &after(&facts, &first)).unwrap();
        assert_eq!(second.sysctls, [], "nothing is left to change");
        assert_eq!(Journal::of(&second, Some(journal.clone())), journal);
    }

    #[test]
    fn a_second_start_under_another_name_remembers_both_tables() {
        let first = plan(&wanted(), &fresh_machine()).unwrap();
        let renamed = Wanted {
            interface: "vpn0".to_owned(),
            ..wanted()
        };
        let second = plan(&renamed, &after(&fresh_machine(), &first)).unwrap();
        let journal = Journal::of(&second, Some(Journal::of(&first, None)));
        assert_eq!(
            journal.tables,
            ["marline-server-marline0", "marline-server-vpn0"]
        );
    }
}

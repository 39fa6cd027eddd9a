//! The plan, carried out: `/proc/sys` for the sysctls, the `nft` program (through its
//! JSON interface) for the table.
//!
//! Everything here may be repeated. The table is replaced in one transaction, so
//! there is no moment without its rules; a sysctl is written only when its value
//! differs; undoing what is not there is no error. The journal is written before
//! the first change and removed after the last one is undone, so whichever
//! moment a process dies in, the next one knows what to put back.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use marline_io::failure::{Class, Context, Failure};
use marline_io::netlink::Netlink;
use marline_io::state_file;
use nftables::batch::Batch;
use nftables::expr::{
    BinaryOperation, CT, Expression, Meta, MetaKey, NamedExpression, Payload, PayloadField, Prefix,
    RT, RTKey, TcpOption,
};
use nftables::helper::{self, DEFAULT_ARGS, DEFAULT_NFT, NftablesError};
use nftables::schema::{self, NfListObject, NfObject, Nftables, Table};
use nftables::stmt::{Mangle, Match, Operator, Statement};
use nftables::types::{NfChainPolicy, NfChainType, NfFamily, NfHook};

use super::{Chain, Facts, Journal, Plan, Rule};

/// The main routing table.
const MAIN_TABLE: u32 = 254;

/// Looks at the machine.
pub async fn facts() -> Result<Facts, Failure> {
    let netlink = Netlink::connect()?;
    let links: BTreeMap<u32, String> = netlink
        .links()
        .await?
        .into_iter()
        .map(|link| (link.index, link.name))
        .collect();
    let routes = netlink.routes().await?;
    let routes = routes
        .into_iter()
        .filter(|route| route.table == MAIN_TABLE)
        .filter_map(|route| {
            let destination = IpNet::new(route.destination, route.prefix).ok()?;
            Some((destination, links.get(&route.interface?)?.clone()))
        })
        .collect();
    let (sysctls, dropping_chains) =
        tokio::task::spawn_blocking(|| Ok::<_, Failure>((read_sysctls(), dropping_chains()?)))
            .await
            .map_err(io::Error::other)??;
    Ok(Facts {
        sysctls,
        routes,
        dropping_chains,
    })
}

/// Carries the plan out and remembers in `journal_file` how to undo it.
pub fn apply(plan: &Plan, journal_file: &Path) -> Result<(), Failure> {
    let left_behind: Option<Journal> = state_file::read(journal_file)?;
    let outdated: Vec<String> = left_behind
        .iter()
        .flat_map(|journal| &journal.tables)
        .filter(|table| **table != plan.table)
        .cloned()
        .collect();
    state_file::write(journal_file, &Journal::of(plan, left_behind))?;
    // The rules come first: the machine never forwards without them.
    nft(ruleset(plan, &outdated))?;
    for change in &plan.sysctls {
        write_sysctl(&change.key, &change.to)?;
    }
    Ok(())
}

/// Puts back what the journal remembers, and says what was done. Goes on after an error, and
/// keeps the journal if there was one, so that it can be tried again.
pub fn undo(journal_file: &Path) -> Result<Vec<String>, Failure> {
    let Some(journal) = state_file::read::<Journal>(journal_file)? else {
        return Ok(Vec::new());
    };
    let mut done = Vec::new();
    let mut first_failure = None;
    let mut note = |result: Result<Option<String>, Failure>| match result {
        Ok(sentence) => done.extend(sentence),
        Err(failure) => {
            first_failure.get_or_insert(failure);
        }
    };

    note(remove_tables(&journal.tables));
    for change in journal.sysctls.iter().rev() {
        note(restore_sysctl(
            &change.key,
            Some(&change.ours),
            &change.before,
        ));
    }
    for (key, before) in &journal.side_effects {
        note(restore_sysctl(key, None, before));
    }

    match first_failure {
        Some(failure) => Err(failure),
        None => {
            state_file::remove(journal_file)?;
            Ok(done)
        }
    }
}

/// Sets `key` back to `before`, unless somebody else has given it another value than ours.
fn restore_sysctl(key: &str, ours: Option<&str>, before: &str) -> Result<Option<String>, Failure> {
    let current = match fs::read_to_string(sysctl_path(key)) {
        Ok(value) => value.trim().to_owned(),
        // The interface is gone, and its switches with it.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(Failure::io(
                format_args!("cannot read the sysctl {key}"),
                &error,
            ));
        }
    };
    if current == before {
        return Ok(None);
    }
    if ours.is_some_and(|ours| ours != current) {
        return Ok(Some(format!(
            "left {key} at {current}, which is not our value"
        )));
    }
    write_sysctl(key, before)?;
    Ok(Some(format!("set {key} back to {before}")))
}

fn sysctl_path(key: &str) -> PathBuf {
    Path::new("/proc/sys").join(key)
}

fn write_sysctl(key: &str, value: &str) -> Result<(), Failure> {
    fs::write(sysctl_path(key), value).map_err(|error| {
        let failure = Failure::io(
            format_args!("cannot set the sysctl {key} to {value}"),
            &error,
        );
        match error.kind() {
            ErrorKind::PermissionDenied => failure.with_advice("start the server as root"),
            ErrorKind::ReadOnlyFilesystem => failure.in_class(Class::Facility).with_advice(
                format!("in a container, set {} from outside", key.replace('/', ".")),
            ),
            _ => failure,
        }
    })
}

/// What the plan depends on; an IP version that the kernel lacks simply has no entries.
fn read_sysctls() -> BTreeMap<String, String> {
    let mut keys = vec![
        super::IP_FORWARD.to_owned(),
        super::V4_ACCEPT_REDIRECTS.to_owned(),
    ];
    for (directory, leaves) in [
        ("net/ipv4/conf", &["forwarding"][..]),
        ("net/ipv6/conf", &["forwarding", "accept_ra"][..]),
    ] {
        let interfaces = fs::read_dir(sysctl_path(directory))
            .into_iter()
            .flatten()
            .flatten();
        for interface in interfaces.filter_map(|entry| entry.file_name().into_string().ok()) {
            keys.extend(
                leaves
                    .iter()
                    .map(|leaf| format!("{directory}/{interface}/{leaf}")),
            );
        }
    }
    keys.into_iter()
        .filter_map(|key| {
            let value = fs::read_to_string(sysctl_path(&key)).ok()?;
            Some((key, value.trim().to_owned()))
        })
        .collect()
}

/// Base chains at the forward hook that drop by policy.
fn dropping_chains() -> Result<Vec<String>, Failure> {
    let listing = helper::get_current_ruleset_with_args(DEFAULT_NFT, ["list", "chains"])
        .map_err(|error| complaint(&error))?;
    let chains = listing.objects.iter().filter_map(|object| match object {
        NfObject::ListObject(NfListObject::Chain(chain)) => Some(chain),
        _ => None,
    });
    Ok(chains
        .filter(|chain| {
            chain.hook == Some(NfHook::Forward) && chain.policy == Some(NfChainPolicy::Drop)
        })
        .map(|chain| {
            let family = serde_json::to_value(chain.family).unwrap_or_default();
            format!(
                "{} {} {}",
                family.as_str().unwrap_or_default(),
                chain.table,
                chain.name
            )
        })
        .collect())
}

fn remove_tables(tables: &[String]) -> Result<Option<String>, Failure> {
    if tables.is_empty() {
        return Ok(None);
    }
    let mut batch = Batch::new();
    tables
        .iter()
        .for_each(|table| delete_table(&mut batch, table));
    nft(batch.to_nftables())?;
    Ok(Some(format!(
        "removed the nftables table inet {}",
        tables.join(", inet ")
    )))
}

/// The whole table as one transaction that also removes the tables in `outdated`.
fn ruleset(plan: &Plan, outdated: &[String]) -> Nftables<'static> {
    let mut batch = Batch::new();
    outdated
        .iter()
        .for_each(|table| delete_table(&mut batch, table));
    delete_table(&mut batch, &plan.table);
    batch.add(table(&plan.table));
    let mut chains = Vec::new();
    for rule in &plan.rules {
        let chain = rule.chain();
        if !chains.contains(&chain) {
            chains.push(chain);
            batch.add(NfListObject::Chain(base_chain(chain, &plan.table)));
        }
        batch.add(NfListObject::Rule(schema::Rule {
            family: NfFamily::INet,
            table: plan.table.clone().into(),
            chain: chain_name(chain).into(),
            expr: statements(*rule, &plan.interface).into(),
            ..Default::default()
        }));
    }
    batch.to_nftables()
}

/// Removes a table whether it is there or not: deleting is an error when it is not, adding is none when it is.
fn delete_table(batch: &mut Batch<'static>, name: &str) {
    batch.add(table(name));
    batch.delete(table(name));
}

fn table(name: &str) -> NfListObject<'static> {
    NfListObject::Table(Table {
        family: NfFamily::INet,
        name: name.to_owned().into(),
        ..Default::default()
    })
}

fn chain_name(chain: Chain) -> &'static str {
    match chain {
        Chain::Clamp => "clamp",
        Chain::Forward => "forward",
        Chain::Masquerade => "masquerade",
    }
}

/// The priorities are those that nft calls mangle, filter and srcnat.
fn base_chain(chain: Chain, table: &str) -> schema::Chain<'static> {
    let (kind, hook, priority) = match chain {
        Chain::Clamp => (NfChainType::Filter, NfHook::Forward, -150),
        Chain::Forward => (NfChainType::Filter, NfHook::Forward, 0),
        Chain::Masquerade => (NfChainType::NAT, NfHook::Postrouting, 100),
    };
    schema::Chain {
        family: NfFamily::INet,
        table: table.to_owned().into(),
        name: chain_name(chain).into(),
        _type: Some(kind),
        hook: Some(hook),
        prio: Some(priority),
        policy: Some(NfChainPolicy::Accept),
        ..Default::default()
    }
}

fn statements(rule: Rule, interface: &str) -> Vec<Statement<'static>> {
    let comes_from_clients = || matches(meta(MetaKey::Iifname), Operator::EQ, text(interface));
    let goes_to_clients = || matches(meta(MetaKey::Oifname), Operator::EQ, text(interface));
    let goes_elsewhere = || matches(meta(MetaKey::Oifname), Operator::NEQ, text(interface));
    match rule {
        Rule::ClampFromClients => vec![comes_from_clients(), is_syn(), clamp_mss()],
        Rule::ClampToClients => vec![goes_to_clients(), is_syn(), clamp_mss()],
        Rule::DropStrays(pool) => {
            vec![
                address("daddr", pool),
                goes_elsewhere(),
                Statement::Drop(None),
            ]
        }
        Rule::AcceptFromClients => vec![comes_from_clients(), Statement::Accept(None)],
        Rule::AcceptAnswers => vec![goes_to_clients(), is_answer(), Statement::Accept(None)],
        Rule::DropUninvited => vec![goes_to_clients(), Statement::Drop(None)],
        Rule::AcceptToClients => vec![goes_to_clients(), Statement::Accept(None)],
        Rule::Masquerade(pool) => {
            vec![
                address("saddr", pool),
                goes_elsewhere(),
                Statement::Masquerade(None),
            ]
        }
    }
}

fn matches(
    left: NamedExpression<'static>,
    op: Operator,
    right: Expression<'static>,
) -> Statement<'static> {
    Statement::Match(Match {
        left: Expression::Named(left),
        right,
        op,
    })
}

fn meta(key: MetaKey) -> NamedExpression<'static> {
    NamedExpression::Meta(Meta { key })
}

fn text(text: &str) -> Expression<'static> {
    Expression::String(text.to_owned().into())
}

fn field(protocol: &'static str, field: &'static str) -> NamedExpression<'static> {
    let field = PayloadField {
        protocol: protocol.into(),
        field: field.into(),
    };
    NamedExpression::Payload(Payload::PayloadField(field))
}

fn address(direction: &'static str, pool: IpNet) -> Statement<'static> {
    let protocol = if pool.addr().is_ipv4() { "ip" } else { "ip6" };
    let prefix = Prefix {
        addr: Box::new(text(&pool.network().to_string())),
        len: u32::from(pool.prefix_len()),
    };
    let prefix = Expression::Named(NamedExpression::Prefix(prefix));
    matches(field(protocol, direction), Operator::EQ, prefix)
}

/// SYN set and RST not set: the first two segments of a TCP connection, which carry the MSS.
fn is_syn() -> Statement<'static> {
    let syn_and_rst = BinaryOperation::OR(vec![text("syn"), text("rst")]);
    let masked = BinaryOperation::AND(
        Expression::Named(field("tcp", "flags")),
        Expression::BinaryOperation(Box::new(syn_and_rst)),
    );
    Statement::Match(Match {
        left: Expression::BinaryOperation(Box::new(masked)),
        right: text("syn"),
        op: Operator::EQ,
    })
}

/// The kernel takes the smaller MTU of the two directions, less the headers, and never raises.
fn clamp_mss() -> Statement<'static> {
    let mss = TcpOption {
        name: "maxseg".into(),
        field: Some("size".into()),
    };
    Statement::Mangle(Mangle {
        key: Expression::Named(NamedExpression::TcpOption(mss)),
        value: Expression::Named(NamedExpression::RT(RT {
            key: RTKey::MTU,
            family: None,
        })),
    })
}

fn is_answer() -> Statement<'static> {
    let state = NamedExpression::CT(CT {
        key: "state".into(),
        family: None,
        dir: None,
    });
    let answers = Expression::List(vec![text("established"), text("related")]);
    matches(state, Operator::IN, answers)
}

fn nft(ruleset: Nftables<'static>) -> Result<(), Failure> {
    helper::apply_ruleset_with_args(&ruleset, DEFAULT_NFT, DEFAULT_ARGS)
        .map_err(|error| complaint(&error))
        .context("cannot set up forwarding")
}

/// What went wrong with `nft`, for a person.
fn complaint(error: &NftablesError) -> Failure {
    match error {
        NftablesError::NftExecution { inner, .. } if inner.kind() == ErrorKind::NotFound => {
            Failure::new(Class::Facility, "the program \"nft\" is not installed")
                .with_advice("install nftables (\"apt install nftables\"), then start again")
        }
        NftablesError::NftExecution { inner, .. } => Failure::io("cannot run \"nft\"", inner),
        NftablesError::NftFailed { stderr, .. } if stderr.contains("Operation not permitted") => {
            Failure::new(Class::Privilege, "\"nft\" may not change the firewall")
                .with_advice("start the server as root or with CAP_NET_ADMIN")
        }
        NftablesError::NftFailed { stderr, .. } => {
            let first = stderr
                .lines()
                .find(|line| !line.trim().is_empty())
                .unwrap_or("no reason given");
            Failure::new(
                Class::Facility,
                format!("\"nft\" refused: {}", first.trim()),
            )
            .with_advice("check that the kernel has nftables with NAT (nf_tables, nft_masq)")
        }
        NftablesError::NftOutputEncoding { .. } | NftablesError::NftInvalidJson(_) => Failure::new(
            Class::Facility,
            format!("the answer of \"nft\" is not understood: {error}"),
        )
        .with_advice("install nftables 1.0 or later"),
    }
}

#[cfg(test)]
mod tests;

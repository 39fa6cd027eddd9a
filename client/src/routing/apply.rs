//! A [`Step`] to the kernel and back again, and the look at what is there.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use marline_io::failure::{Context, Failure};
use marline_io::netlink::{Netlink, Route, Rule};

use super::{Present, Step};

/// What is there now.
pub async fn look(netlink: &Netlink) -> Result<Present, Failure> {
    Ok(Present {
        rules: netlink.rules().await?,
        routes: netlink.routes().await?,
        rp_filter: rp_filters(),
        has_v6: Path::new("/proc/sys/net/ipv6").exists(),
    })
}

/// Makes the change.
pub async fn make(netlink: &Netlink, step: &Step) -> Result<(), Failure> {
    let result = match step {
        Step::Rule(rule) => netlink.add_rule(rule).await,
        Step::Route { route, .. } => netlink.add_route(route).await,
        Step::Sysctl { key, to, .. } => {
            fs::write(sysctl(key), to).context(format!("cannot set {key} to {to}"))
        }
    };
    result.context(format!("`{step}` failed"))
}

/// Takes the change back, if it is still there.
pub async fn take_back(netlink: &Netlink, step: &Step) -> Result<(), Failure> {
    let result = match step {
        Step::Rule(rule) => netlink.del_rule(rule).await,
        Step::Route { route, .. } => netlink.del_route(route).await,
        Step::Sysctl { key, from, to } => restore_sysctl(key, from, to),
    };
    result.context(format!("taking back `{step}` failed"))
}

/// The changes that somebody else took back behind our back. Some network managers remove rules
/// that they do not know when they restart.
pub fn missing<'a>(steps: impl Iterator<Item = &'a Step>, present: &Present) -> Vec<Step> {
    steps
        .filter(|step| match step {
            Step::Rule(rule) => !present.rules.iter().any(|other| same_rule(rule, other)),
            Step::Route { route, .. } => {
                !present.routes.iter().any(|other| same_route(route, other))
            }
            // Somebody who sets a kernel setting means it.
            Step::Sysctl { .. } => false,
        })
        .cloned()
        .collect()
}

fn same_rule(ours: &Rule, other: &Rule) -> bool {
    ours.family == other.family
        && ours.priority == other.priority
        && ours.table == other.table
        && ours.mark == other.mark
        && ours.invert == other.invert
}

fn same_route(ours: &Route, other: &Route) -> bool {
    ours.destination == other.destination
        && ours.prefix == other.prefix
        && ours.table == other.table
        && ours.kind == other.kind
}

/// Puts the old value back unless somebody changed the setting meanwhile or the interface is gone.
fn restore_sysctl(key: &str, from: &str, to: &str) -> Result<(), Failure> {
    let path = sysctl(key);
    match fs::read_to_string(&path) {
        Ok(now) if now.trim() == to => {
            fs::write(&path, from).context(format!("cannot set {key} to {from}"))
        }
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Failure::io(format!("cannot read {key}"), &error)),
    }
}

fn sysctl(key: &str) -> PathBuf {
    Path::new("/proc/sys").join(key)
}

/// The reverse-path filter of every interface, and `all`. What cannot be read is left out.
pub fn rp_filters() -> BTreeMap<String, u8> {
    let Ok(entries) = fs::read_dir("/proc/sys/net/ipv4/conf") else {
        return BTreeMap::new();
    };
    entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let value = fs::read_to_string(entry.path().join("rp_filter")).ok()?;
            Some((
                entry.file_name().into_string().ok()?,
                value.trim().parse().ok()?,
            ))
        })
        .collect()
}

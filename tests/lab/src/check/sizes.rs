//! Packets of any size over uplinks whose interface says more than their path carries.

use std::path::Path;
use std::process::Stdio;

use anyhow::Result;
use marline_sim::link::LinkParams;

use super::Promises;
use super::programs::Servers;
use crate::run::Interrupt;
use crate::scenario::LinkPlan;
use crate::topology::{HOST_V4, HOST_V6, Lab};
use crate::tunnel;

/// Bytes of the largest IP packet that passes the narrow hop behind an interface of 1,500.
const NARROW: u64 = 1_400;
/// Pings of each kind.
const PINGS: u64 = 20;

pub(super) fn check(promises: &mut Promises, binaries: &Path, interrupt: &Interrupt) -> Result<()> {
    let narrow = LinkParams {
        mtu: Some(NARROW),
        ..LinkParams::new(50.0, 7.5)
    };
    let wide = LinkParams::new(20.0, 30.0);
    for (what, links) in [
        ("a narrow uplink alone", vec![narrow.clone()]),
        ("a narrow and a wide uplink", vec![narrow, wide]),
    ] {
        let plan = |params: LinkParams| LinkPlan {
            down: params.clone(),
            up: params,
            direct: false,
        };
        let plans: Vec<LinkPlan> = links.into_iter().map(plan).collect();
        let lab = Lab::build(&plans, 17)?;
        let _tunnel = tunnel::marline(&lab, binaries, interrupt)?;
        let servers = Servers::start(&lab, 12_000_000)?;
        for (version, host) in [("IPv4", HOST_V4), ("IPv6", HOST_V6)] {
            servers
                .download(lab.client(), host)?
                .finish(interrupt)?
                .note(promises, &format!("curl over {version}, {what},"), &servers);
            for bytes in [1_300, 3_000, 20_000] {
                let answered = ping(&lab, host, bytes)?;
                promises.note(
                    format!("ping of {bytes} bytes over {version}, {what}"),
                    // A host's first large answer may tell it the MTU of the tunnel.
                    answered + 1 >= PINGS,
                    format!("{answered} of {PINGS} answered"),
                );
            }
        }
    }
    Ok(())
}

/// How many of some pings with so many bytes are answered.
fn ping(lab: &Lab, host: &str, bytes: u32) -> Result<u64> {
    let output = lab
        .client()
        .command("ping")
        .args(["-n", "-i", "0.1", "-W", "2", "-c", &PINGS.to_string()])
        .args(["-s", &bytes.to_string(), host])
        .stdin(Stdio::null())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let answers = text.lines().filter(|line| line.contains(" bytes from "));
    Ok(answers.count() as u64)
}

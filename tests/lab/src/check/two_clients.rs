//! Two clients whose outer addresses are the same, each behind a NAT of its own.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Result, bail};

use super::Promises;
use super::programs::Servers;
use crate::netns::Namespace;
use crate::run::Interrupt;
use crate::topology::{HOST_V4, HOST_V6, Lab};
use crate::tunnel::{self, Home};

pub(super) fn check(promises: &mut Promises, binaries: &Path, interrupt: &Interrupt) -> Result<()> {
    let lab = Lab::build(&[], 11)?;
    let [one, two] = [Site::build(&lab, 1)?, Site::build(&lab, 2)?];
    let server = Home::new(&lab, lab.server(), "server", binaries)?;
    tunnel::init(&server)?;
    let serving = tunnel::serve(&server, interrupt)?;
    let mut daemons = vec![serving];
    let sites = [("client-1", &one), ("client-2", &two)];
    for (name, site) in sites {
        let home = Home::new(&lab, &site.client, name, binaries)?;
        home.call("marline", &["join", &tunnel::invite(&server, name, &[])?])?;
        daemons.push(tunnel::connect(&home, interrupt)?);
    }
    let servers = Servers::start(&lab, 8_000_000)?;
    for (version, host) in [("IPv4", HOST_V4), ("IPv6", HOST_V6)] {
        // Both are started before either is waited for.
        let gets = [
            servers.download(&one.client, host)?,
            servers.download(&two.client, host)?,
        ];
        for ((name, _), get) in sites.iter().zip(gets) {
            get.finish(interrupt)?.note(
                promises,
                &format!("{name} over {version} beside the other"),
                &servers,
            );
        }
        let flag = if version == "IPv4" { "-4" } else { "-6" };
        let inner = [one.inner(flag)?, two.inner(flag)?];
        promises.note(
            format!("each client has an inner {version} address of its own"),
            inner[0] != inner[1] && inner.iter().all(|address| !address.is_empty()),
            inner.join(", "),
        );
    }
    for daemon in daemons.into_iter().rev() {
        daemon.stop();
    }
    Ok(())
}

/// A client in a home network, and the router that hides it.
pub(super) struct Site {
    client: Namespace,
    router: Namespace,
    number: u8,
}

impl Site {
    pub(super) fn build(lab: &Lab, number: u8) -> Result<Site> {
        let client = lab.namespace(&format!("client{number}"))?;
        let router = lab.namespace(&format!("router{number}"))?;
        lab.server().ip(&format!(
            "link add site{number} type veth peer name dsl netns {}\n\
             addr add 10.202.{number}.1/24 dev site{number}\n\
             link set site{number} up",
            router.name()
        ))?;
        router.ip(&format!(
            "link set dsl up\n\
             addr add 10.202.{number}.2/24 dev dsl\n\
             route add default via 10.202.{number}.1\n\
             link add lan type veth peer name wan1 netns {}\n\
             addr add 192.168.1.1/24 dev lan\n\
             link set lan up",
            client.name()
        ))?;
        client.ip("link set wan1 up\n\
             addr add 192.168.1.2/24 dev wan1\n\
             route add default via 192.168.1.1")?;
        router.sysctl(&[("ipv4/ip_forward", "1")])?;
        let mut nft = router
            .command("nft")
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .spawn()?;
        if let Some(mut rules) = nft.stdin.take() {
            rules.write_all(
                b"table ip nat {\n chain post {\n  type nat hook postrouting priority srcnat;\n  \
                  oifname \"dsl\" masquerade;\n }\n}\n",
            )?;
        }
        if !nft.wait()?.success() {
            bail!("nft refuses the rules of a NAT");
        }
        Ok(Site {
            client,
            router,
            number,
        })
    }

    /// The client's namespace.
    pub(super) fn client(&self) -> &Namespace {
        &self.client
    }

    /// Gives the router another address, as providers do every night. The kernel forgets what was masqueraded behind the
    /// old one. Returns the new one.
    pub(super) fn change_public_address(&self) -> Result<String> {
        let number = self.number;
        let address = format!("10.202.{number}.3");
        self.router.ip(&format!(
            "addr flush dev dsl scope global\n\
             addr add {address}/24 dev dsl\n\
             route add default via 10.202.{number}.1"
        ))?;
        Ok(address)
    }

    /// The address of the tunnel's interface, "" if there is none.
    fn inner(&self, family: &str) -> Result<String> {
        let output = self
            .client
            .command("ip")
            .args([family, "-o", "addr", "show", "dev", "marline0"])
            .args(["scope", "global"])
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(text.split_whitespace().nth(3).unwrap_or("").to_owned())
    }
}

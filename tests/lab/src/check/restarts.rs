//! The daemons are killed under load and started again, and in the end nothing of them is left.

use std::fs;
use std::path::Path;

use anyhow::{Result, bail};

use super::stream::Stream;
use super::{Promises, ms, pause, two_uplinks};
use crate::netns::Namespace;
use crate::run::Interrupt;
use crate::topology::{HOST_V4, Lab};
use crate::tunnel::{self, Home};

/// How long inner connections may stand still when a daemon was killed and started again, s.
const GAP_MAX_S: f64 = 5.0;

pub(super) fn check(promises: &mut Promises, binaries: &Path, interrupt: &Interrupt) -> Result<()> {
    let lab = Lab::build(&two_uplinks(), 3)?;
    let server = Home::new(&lab, lab.server(), "server", binaries)?;
    let client = Home::new(&lab, lab.client(), "client", binaries)?;
    let before = [state(&client, lab.client())?, state(&server, lab.server())?];

    tunnel::init(&server)?;
    let mut serving = tunnel::serve(&server, interrupt)?;
    client.call("marline", &["join", &tunnel::invite(&server, "lab", &[])?])?;
    // A resolver is set, so that there is a file to be put back.
    let file = client.path().join("etc/marline/client.toml");
    let text = fs::read_to_string(&file)?;
    fs::write(&file, format!("dns = [\"{HOST_V4}\"]\n{text}"))?;
    let mut connected = tunnel::connect(&client, interrupt)?;
    pause(interrupt, 1.0)?;
    let during = [state(&client, lab.client())?, state(&server, lab.server())?];
    for (who, (during, before)) in ["client", "server"].iter().zip(during.iter().zip(&before)) {
        let changed: Vec<&str> = during
            .iter()
            .zip(before)
            .filter(|(now, then)| now.text != then.text)
            .map(|(now, _)| now.what)
            .collect();
        promises.note(
            format!("the {who} changes what it must"),
            !changed.is_empty(),
            changed.join(", "),
        );
    }

    let stream = Stream::start(&lab, lab.client())?;
    pause(interrupt, 1.5)?;
    stream.mark();
    connected.kill()?;
    connected = client.daemon("marline", &["up", "--foreground"])?;
    goes_on(promises, &stream, "client", interrupt)?;

    stream.mark();
    serving.kill()?;
    serving = server.daemon("marline-server", &["run"])?;
    goes_on(promises, &stream, "server", interrupt)?;

    connected.check()?;
    serving.check()?;
    connected.stop();
    serving.stop();
    drop(stream);
    compare(promises, "a stop", &lab, &before, [&client, &server])?;

    serving = tunnel::serve(&server, interrupt)?;
    connected = tunnel::connect(&client, interrupt)?;
    connected.kill()?;
    serving.kill()?;
    client.call("marline", &["restore"])?;
    server.call("marline-server", &["restore"])?;
    compare(
        promises,
        "SIGKILL and restore",
        &lab,
        &before,
        [&client, &server],
    )
}

/// Whether bytes flow again on the same connection, and how long they did not.
fn goes_on(
    promises: &mut Promises,
    stream: &Stream,
    who: &str,
    interrupt: &Interrupt,
) -> Result<()> {
    // Longer than the connection may stand still, so that "never again" is told from "late".
    pause(interrupt, GAP_MAX_S + 1.0)?;
    let (bytes, gap, end) = stream.look();
    pause(interrupt, 1.0)?;
    let (later, _, _) = stream.look();
    promises.note(
        format!("a TCP connection goes on within {GAP_MAX_S} s after SIGKILL of the {who}"),
        gap.as_secs_f64() <= GAP_MAX_S && end.is_none() && later > bytes,
        match end {
            Some(end) => format!("it broke: {end}"),
            None => format!("longest gap {}", ms(gap)),
        },
    );
    Ok(())
}

/// One thing that Marline might leave changed.
struct Setting {
    what: &'static str,
    text: String,
}

fn state(home: &Home<'_>, namespace: &Namespace) -> Result<Vec<Setting>> {
    let commands: [(&'static str, &[&str]); 5] = [
        ("ip -4 rule", &["ip", "-4", "rule"]),
        ("ip -6 rule", &["ip", "-6", "rule"]),
        (
            "ip -4 route show table all",
            &["ip", "-4", "route", "show", "table", "all"],
        ),
        (
            "ip -6 route show table all",
            &["ip", "-6", "route", "show", "table", "all"],
        ),
        ("nft list ruleset", &["nft", "list", "ruleset"]),
    ];
    let mut all = Vec::new();
    for (what, words) in commands {
        let output = namespace.command(words[0]).args(&words[1..]).output()?;
        if !output.status.success() {
            bail!("{what}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        all.push(Setting { what, text });
    }
    all.push(Setting {
        what: "/etc/resolv.conf",
        text: fs::read_to_string(home.path().join("etc/resolv.conf")).unwrap_or_default(),
    });
    all.push(Setting {
        what: "sysctls",
        text: namespace.run(sysctls)??,
    });
    Ok(all)
}

/// The kernel settings of the calling thread's network namespace that a VPN might touch.
fn sysctls() -> Result<String> {
    let mut lines = Vec::new();
    let mut read = |key: String| {
        let path = Path::new("/proc/sys/net").join(&key);
        if let Ok(value) = fs::read_to_string(path) {
            lines.push(format!("net/{key} = {}\n", value.trim()));
        }
    };
    read("ipv4/ip_forward".into());
    for (family, names) in [
        (
            "ipv4",
            &["rp_filter", "forwarding", "src_valid_mark", "arp_filter"][..],
        ),
        ("ipv6", &["forwarding", "accept_ra", "disable_ipv6"]),
    ] {
        for entry in fs::read_dir(format!("/proc/sys/net/{family}/conf"))? {
            let device = entry?.file_name();
            for name in names {
                read(format!("{family}/conf/{}/{name}", device.to_string_lossy()));
            }
        }
    }
    lines.sort();
    Ok(lines.concat())
}

fn compare(
    promises: &mut Promises,
    when: &str,
    lab: &Lab,
    before: &[Vec<Setting>; 2],
    homes: [&Home<'_>; 2],
) -> Result<()> {
    let sides = [("client", lab.client()), ("server", lab.server())];
    for ((who, namespace), (home, before)) in sides.iter().zip(homes.iter().zip(before)) {
        let after = state(home, namespace)?;
        let differences: Vec<String> = before
            .iter()
            .zip(&after)
            .filter(|(then, now)| then.text != now.text)
            .map(|(then, now)| format!("{} differs\n{}", then.what, difference(then, now)))
            .collect();
        let figure = if differences.is_empty() {
            let lines: usize = after.iter().map(|one| one.text.lines().count()).sum();
            format!("{} things, {lines} lines, equal", after.len())
        } else {
            differences.join("\n")
        };
        promises.note(
            format!("after {when} the {who}'s system is what it was"),
            differences.is_empty(),
            figure,
        );
    }
    Ok(())
}

/// The lines that only one of the two has; with none, the order is what differs.
fn difference(then: &Setting, now: &Setting) -> String {
    let only = |these: &str, those: &str, sign: char| -> Vec<String> {
        these
            .lines()
            .filter(|line| !those.lines().any(|other| other == *line))
            .map(|line| format!("         {sign} {line}"))
            .collect()
    };
    let mut lines = only(&then.text, &now.text, '-');
    lines.extend(only(&now.text, &then.text, '+'));
    if lines.is_empty() {
        lines.push("         the order or the number of equal lines is another".into());
    }
    lines.join("\n")
}

//! What is wrong is said in one sentence, and the exit code tells its class.

use std::fs;
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{Promises, Running, find, pause};
use crate::run::Interrupt;
use crate::scenario::LinkPlan;
use crate::topology::{Lab, SERVER_V4};
use crate::tunnel::{self, Home, PORT};

/// How long a complaint may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// The user and the group that may do nothing.
const NOBODY: u32 = 65_534;
/// A field that does not exist, and the line it is in.
const FIELD: (&str, usize) = ("# A remark\ncolour = \"red\"\n", 2);
/// The characters of a join code; their places are the five-bit numbers they stand for.
const ALPHABET: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";

pub(super) fn check(promises: &mut Promises, binaries: &Path, interrupt: &Interrupt) -> Result<()> {
    let link = LinkPlan {
        direct: true,
        ..LinkPlan::default()
    };
    let lab = Lab::build(&[link], 13)?;
    let server = Home::new(&lab, lab.server(), "server", binaries)?;
    let client = Home::new(&lab, lab.client(), "client", binaries)?;
    tunnel::init(&server)?;

    let taken = lab.server().run(|| UdpSocket::bind(("0.0.0.0", PORT)))??;
    let mut run = server.command("marline-server", &["run"])?;
    let port = PORT.to_string();
    expect(promises, "a port in use", &mut run, 6, &[&port])?;
    drop(taken);

    let settings = server.path().join("etc/marline/server.toml");
    let text = fs::read_to_string(&settings)?;
    fs::write(&settings, format!("{}{text}", FIELD.0))?;
    let mut run = server.command("marline-server", &["run"])?;
    let place = format!("server.toml:{}", FIELD.1);
    let what = "an unknown field in the server's settings";
    expect(promises, what, &mut run, 2, &[&place, "colour"])?;
    fs::write(&settings, &text)?;

    let mut serving = tunnel::serve(&server, interrupt)?;
    let code = tunnel::invite(&server, "laptop", &[])?;
    let short = tunnel::invite(&server, "phone", &["--expires", "1s"])?;
    let mut damaged = code.clone().into_bytes();
    let place = damaged.len() / 2;
    damaged[place] = if damaged[place] == b'q' { b'p' } else { b'q' };
    let damaged = String::from_utf8(damaged)?;
    pause(interrupt, 2.1)?;
    for (what, code, words) in [
        ("a damaged join code", &damaged, &["damaged"][..]),
        ("an expired join code", &short, &["expired"]),
        (
            "a join code of another version",
            &of_version(&code, 2)?,
            &["version"],
        ),
    ] {
        let mut join = client.command("marline", &["join", code])?;
        expect(promises, what, &mut join, 2, words)?;
    }

    client.call("marline", &["join", &code])?;
    let settings = client.path().join("etc/marline/client.toml");
    let text = fs::read_to_string(&settings)?;
    let up = ["up", "--foreground", "--wait", "3"];
    fs::write(&settings, format!("{}{text}", FIELD.0))?;
    let mut command = client.command("marline", &up)?;
    let place = format!("client.toml:{}", FIELD.1);
    let what = "an unknown field in the client's configuration";
    expect(promises, what, &mut command, 2, &[&place, "colour"])?;

    let other = client.call("marline", &["keygen", "--json"])?;
    let other: serde_json::Value = serde_json::from_str(&other)?;
    let other = other["public_key"]
        .as_str()
        .with_context(|| format!("no public_key in {other}"))?;
    let wrong: Vec<String> = text
        .lines()
        .map(|line| match line.trim_start().starts_with("public_key") {
            true => format!("public_key = \"{other}\""),
            false => line.to_owned(),
        })
        .collect();
    fs::write(&settings, wrong.join("\n"))?;
    let mut command = client.command("marline", &up)?;
    expect(promises, "a wrong key", &mut command, 5, &["key"])?;

    fs::write(&settings, &text)?;
    serving.check()?;
    serving.stop();
    let mut command = client.command("marline", &up)?;
    let what = "a server that does not answer";
    expect(promises, what, &mut command, 5, &[SERVER_V4])?;

    if let Some(setpriv) = find("setpriv") {
        let setpriv = setpriv.to_string_lossy();
        let etc = server.path().join("etc/marline");
        for (program, word, config) in [
            ("marline", "up", &settings),
            ("marline-server", "run", &etc.join("server.toml")),
        ] {
            // Copies that nobody may read, in what is /var/lib to the program.
            for (name, file) in [
                (program, &binaries.join(program)),
                ("settings.toml", config),
                ("server.key", &etc.join("server.key")),
            ] {
                let copy = client.path().join("lib").join(name);
                fs::copy(file, &copy)?;
                std::os::unix::fs::chown(&copy, Some(NOBODY), Some(NOBODY))?;
            }
            let nobody = [format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")];
            let inside = format!("/var/lib/{program}");
            let words = [
                &nobody[0],
                &nobody[1],
                "--clear-groups",
                &inside,
                "--config",
                "/var/lib/settings.toml",
                word,
            ];
            let mut command = client.command(&setpriv, &words)?;
            let what = format!("{program} without root");
            expect(promises, &what, &mut command, 3, &["root"])?;
        }
    }
    Ok(())
}

/// Runs a program that must end with this code and say these words, and no more than a sentence
/// and an advice.
fn expect(
    promises: &mut Promises,
    what: &str,
    command: &mut Command,
    code: i32,
    words: &[&str],
) -> Result<()> {
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut running = Running::start(command)?;
    let Ok(status) = running.wait(PATIENCE) else {
        promises.note(what, false, "it does not end");
        return Ok(());
    };
    let mut said = String::new();
    if let Some(mut stderr) = running.0.stderr.take() {
        std::io::Read::read_to_string(&mut stderr, &mut said)?;
    }
    let missing: Vec<&&str> = words.iter().filter(|word| !said.contains(**word)).collect();
    let kept = status.code() == Some(code) && missing.is_empty() && !said.contains("panicked");
    let mut figure = format!("{status}, \"{}\"", said.trim());
    if !kept {
        figure.push_str(&format!("; expected were code {code} and {words:?}"));
    }
    promises.note(what, kept, figure);
    Ok(())
}

/// The same join code as if another version had written it, with a checksum that is right.
fn of_version(code: &str, version: u8) -> Result<String> {
    let Some((prefix, data)) = code.rsplit_once('1') else {
        bail!("a join code without a separator: {code}");
    };
    let mut values: Vec<u8> = data
        .bytes()
        .filter_map(|letter| ALPHABET.iter().position(|one| *one == letter))
        .map(|value| value as u8)
        .collect();
    if values.len() != data.len() || values.len() < 8 {
        bail!("a join code with other letters: {code}");
    }
    // The first byte lies in the first five bits and the upper three of the next.
    values[0] = version >> 3;
    values[1] = (version & 7) << 2 | values[1] & 3;
    values.truncate(values.len() - 6);
    let name = prefix.bytes();
    let mut all: Vec<u8> = name.clone().map(|letter| letter >> 5).collect();
    all.push(0);
    all.extend(name.map(|letter| letter & 31));
    all.extend(&values);
    all.extend([0; 6]);
    let sum = checksum(&all) ^ 0x2bc8_30a3;
    values.extend((0..6).map(|place| (sum >> (5 * (5 - place)) & 31) as u8));
    let data = values
        .iter()
        .map(|value| ALPHABET[usize::from(*value)] as char);
    Ok(format!("{prefix}1{}", data.collect::<String>()))
}

/// The remainder of Bech32.
fn checksum(values: &[u8]) -> u32 {
    const GENERATOR: [u32; 5] = [
        0x3b6a_57b2,
        0x2650_8e6d,
        0x1ea1_19fa,
        0x3d42_33dd,
        0x2a14_62b3,
    ];
    values.iter().fold(1, |sum, value| {
        let shifted = (sum & 0x01ff_ffff) << 5 ^ u32::from(*value);
        (0..5)
            .filter(|bit| sum >> (25 + bit) & 1 == 1)
            .fold(shifted, |sum, bit| sum ^ GENERATOR[bit])
    })
}

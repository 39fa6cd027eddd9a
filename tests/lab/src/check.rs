//! What Marline promises, proved with programs that everybody has.
//!
//! Figures say how fast something is; this says whether it works at all: real servers and clients
//! ([`programs`]) through the bond, while uplinks go and come ([`uplinks`]), while addresses change and the client
//! stands still ([`moves`]), while the daemons are killed ([`restarts`]), over paths that carry less than they say ([`sizes`]), with two clients at once ([`two_clients`]), and when somebody types
//! something wrong ([`bad_input`]). One line per promise; a part that cannot be finished is a
//! broken promise too.

mod bad_input;
mod moves;
mod programs;
mod restarts;
mod sizes;
mod stream;
mod two_clients;
mod uplinks;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use marline_sim::link::LinkParams;
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;

use crate::refusal::Refusal;
use crate::run::Interrupt;
use crate::say::sayln;
use crate::scenario::LinkPlan;

/// What can be checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Part {
    /// The daemons are killed and started again; everything is put back in the end
    Restarts,
    /// curl, ssh, ping and WireGuard through the bond
    Programs,
    /// The same while an uplink goes and comes back
    Uplinks,
    /// Other addresses, of an uplink and of a NAT, and a client that stands still
    Moves,
    /// curl and large pings where the path carries less than the interface says
    Sizes,
    /// Two clients with the same address behind two NATs
    TwoClients,
    /// One sentence and the right exit code for what is wrong
    BadInput,
}

impl Part {
    /// What it needs besides what the lab always needs: commands and their Debian packages.
    fn tools(self) -> &'static [(&'static str, &'static str)] {
        const NFT: (&str, &str) = ("nft", "nftables");
        const CURL: (&str, &str) = ("curl", "curl");
        const NGINX: (&str, &str) = ("nginx", "nginx-light");
        match self {
            Part::Programs | Part::Uplinks => &[
                NFT,
                CURL,
                NGINX,
                ("ssh", "openssh-client"),
                ("sshd", "openssh-server"),
                ("ping", "iputils-ping"),
                ("wg", "wireguard-tools"),
                ("wireguard-go", "wireguard-go"),
            ],
            Part::TwoClients => &[NFT, CURL, NGINX],
            Part::Sizes => &[NFT, CURL, NGINX, ("ping", "iputils-ping")],
            Part::Restarts | Part::Moves | Part::BadInput => &[NFT],
        }
    }
}

/// One promise and whether it was kept.
#[derive(Serialize)]
struct Line {
    part: String,
    promise: String,
    kept: bool,
    figure: String,
}

/// The promises so far.
pub struct Promises {
    part: String,
    lines: Vec<Line>,
}

impl Promises {
    /// Notes and prints one promise. `figure` says what was seen, kept or not.
    fn note(&mut self, promise: impl Into<String>, kept: bool, figure: impl Into<String>) {
        let line = Line {
            part: self.part.clone(),
            promise: promise.into(),
            kept,
            figure: figure.into(),
        };
        let word = if kept { "ok    " } else { "FAILED" };
        sayln!("  {word} {}: {}", line.promise, line.figure);
        self.lines.push(line);
    }
}

/// Checks these parts, or all.
pub fn run(
    only: &[Part],
    json: Option<&Path>,
    binaries: &Path,
    interrupt: &Interrupt,
) -> Result<()> {
    let parts: Vec<Part> = Part::value_variants()
        .iter()
        .copied()
        .filter(|part| only.is_empty() || only.contains(part))
        .collect();
    for (command, package) in parts.iter().flat_map(|part| part.tools()) {
        if find(command).is_none() {
            return Err(Refusal::Facility(format!(
                "the command {command} is missing; install the Debian package {package}"
            ))
            .into());
        }
    }
    let mut promises = Promises {
        part: String::new(),
        lines: Vec::new(),
    };
    let begin = Instant::now();
    for part in parts {
        promises.part = part
            .to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned());
        sayln!("{}", promises.part);
        let done = match part {
            Part::Restarts => restarts::check(&mut promises, binaries, interrupt),
            Part::Programs => programs::check(&mut promises, binaries, interrupt),
            Part::Uplinks => uplinks::check(&mut promises, binaries, interrupt),
            Part::Moves => moves::check(&mut promises, binaries, interrupt),
            Part::Sizes => sizes::check(&mut promises, binaries, interrupt),
            Part::TwoClients => two_clients::check(&mut promises, binaries, interrupt),
            Part::BadInput => bad_input::check(&mut promises, binaries, interrupt),
        };
        if let Err(error) = done {
            if matches!(error.downcast_ref(), Some(Refusal::Interrupted)) {
                return Err(error);
            }
            promises.note("the check can be finished", false, format!("{error:#}"));
        }
    }
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&promises.lines)?;
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let broken = promises.lines.iter().filter(|line| !line.kept).count();
    let all = promises.lines.len();
    if broken > 0 {
        bail!("{broken} of {all} promises broken");
    }
    sayln!(
        "all {all} promises kept, in {:.0} s",
        begin.elapsed().as_secs_f64()
    );
    Ok(())
}

/// The full path of a command, looked for where root's commands are too.
fn find(command: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|directory| directory.join(command))
        .find(|candidate| candidate.is_file())
}

/// Longest time that what runs through the bond may stand still when an uplink goes or changes, ms. Far above what an
/// idle machine shows, since this must hold on a busy one.
const STALL_MAX_MS: u128 = 2_500;

/// The lab's two uplinks: 50 Mbit/s with 15 ms and 20 Mbit/s with 60 ms of round trip.
fn two_uplinks() -> [LinkPlan; 2] {
    [(50.0, 7.5), (20.0, 30.0)].map(|(rate_mbit, delay_ms)| {
        let params = LinkParams::new(rate_mbit, delay_ms);
        LinkPlan {
            down: params.clone(),
            up: params,
            direct: false,
        }
    })
}

/// A pause that Ctrl-C ends.
fn pause(interrupt: &Interrupt, seconds: f64) -> Result<()> {
    interrupt.sleep_until(Instant::now() + Duration::from_secs_f64(seconds))
}

/// A duration for people.
fn ms(duration: Duration) -> String {
    format!("{} ms", duration.as_millis())
}

/// A program of somebody else that stays; ended on drop.
struct Running(std::process::Child);

impl Running {
    fn start(command: &mut Command) -> Result<Running> {
        let program = command.get_program().to_owned();
        let child = command
            .spawn()
            .with_context(|| format!("cannot run {}", program.to_string_lossy()))?;
        Ok(Running(child))
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.0.id() as i32) {
            let _ = kill_process(pid, signal);
        }
    }

    /// Waits for its end, and fails if that does not come in time.
    fn wait(&mut self, at_most: Duration) -> Result<std::process::ExitStatus> {
        let until = Instant::now() + at_most;
        loop {
            if let Some(status) = self.0.try_wait()? {
                return Ok(status);
            }
            if Instant::now() >= until {
                bail!("it does not end");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(Some(_))) {
            return;
        }
        self.signal(Signal::TERM);
        if self.wait(Duration::from_secs(2)).is_err() {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

//! `marline-server`: the aggregation server of Marline.
//!
//! A client's bond ends here. The core (`marline-proto`) puts the packets back in
//! order, this program gives them a way to the internet: a TUN interface,
//! forwarding with NAT, and a store of who may connect.
//!
//! | file | owns |
//! |---|---|
//! | `cli.rs` | what may be typed |
//! | `settings.rs` | what may stand in the settings |
//! | `init.rs` | the settings of a new server |
//! | `peers.rs`, `addresses.rs` | the peer store, and the pools of inner addresses |
//! | `invitation.rs` | a new peer and its join code |
//! | `nat.rs`, `nat/apply.rs` | what changes in the kernel, as a plan; the plan carried out and undone |
//! | `daemon.rs` | start and stop, in order, and what the running server answers |
//! | `admission.rs` | keeps the core's peers equal to the peer store's |
//! | `control.rs`, `report.rs` | what daemon and command line say to each other, and to people |
//!
//! This file only calls them and prints how it ended.

mod addresses;
mod admission;
mod cli;
mod control;
mod daemon;
mod init;
mod invitation;
// Elsewhere the plan compiles, and its tests run, but nothing carries it out yet.
#[cfg_attr(not(target_os = "linux"), allow(dead_code))]
mod nat;
mod peers;
mod report;
mod settings;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser};
use marline_io::answer::{self, print};
use marline_io::control::ControlClient;
use marline_io::failure::{Class, Context, Failure};
use marline_io::{key, log};
use serde::Serialize;

use crate::cli::{Cli, Command, Common, Invite, Peer};
use crate::control::{PeerView, Reply, Request};
use crate::invitation::{For, Invitation};
use crate::peers::{Moment, PeerStore, PublicKey};
use crate::settings::Settings;

fn main() -> ExitCode {
    let json = answer::is_json_typed();
    let done = match Cli::try_parse() {
        Ok(cli) => run(cli),
        // Help and version are asked for as text; what was typed wrongly is a failure like others.
        Err(error) if json && error.use_stderr() => Err(answer::not_understood(&error.to_string())),
        Err(error) => error.exit(),
    };
    answer::end("marline-server", json, done)
}

fn run(cli: Cli) -> Result<(), Failure> {
    log::init(cli.common.verbosity());
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")
        .and_then(|runtime| runtime.block_on(dispatch(cli)))
}

async fn dispatch(cli: Cli) -> Result<(), Failure> {
    let common = &cli.common;
    match cli.command {
        Command::Init(typed) => init(common, typed).await,
        Command::Run => {
            let settings = Settings::load(&common.config)?;
            daemon::run(settings, &common.state_dir, &common.control()).await
        }
        Command::Status {
            peer,
            watch: true,
            interval,
        } => watch(common, interval, peer).await,
        Command::Status { peer, .. } => {
            let request = peer.map_or(Request::Status, |peer| Request::StatusOf { peer });
            let explained = matches!(request, Request::StatusOf { .. });
            match ask(common, &request).await? {
                Reply::Status(status) => {
                    show(common, &status, || Ok(report::status(&status, explained)))
                }
                other => Err(unexpected(&other)),
            }
        }
        Command::Peer(command) => peer(common, command).await,
        Command::Reload => match ask(common, &Request::Reload).await? {
            reply @ Reply::Reloaded { admitted } => show(common, &reply, || {
                Ok(format!("{admitted} peers may connect\n"))
            }),
            other => Err(unexpected(&other)),
        },
        Command::Plan => {
            let settings = Settings::load(&common.config)?;
            let plan = daemon::plan(&settings).await?;
            show(common, &plan, || Ok(describe(&settings, &plan)))
        }
        Command::Restore => restore(common).await,
        Command::Keygen { out } => keygen(common, out),
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "marline-server", &mut text);
            print(&text)
        }
        Command::Man { dir: Some(dir) } => {
            std::fs::create_dir_all(&dir).context(format_args!("cannot make {}", dir.display()))?;
            clap_mangen::generate_to(Cli::command(), &dir)
                .context(format_args!("cannot write into {}", dir.display()))
        }
        Command::Man { dir: None } => {
            let mut text = Vec::new();
            clap_mangen::Man::new(Cli::command())
                .render(&mut text)
                .context("cannot make the page")?;
            print(&text)
        }
    }
}

async fn init(common: &Common, typed: cli::Init) -> Result<(), Failure> {
    let wishes = init::Wishes {
        endpoints: typed.endpoints,
        port: typed.port,
        pool_v4: typed.pool_v4,
        pool_v6: typed.pool_v6,
        interface: typed.interface,
        nat: !typed.no_nat,
        peers: typed.peers,
        force: typed.force,
    };
    let local = init::local_addresses().await;
    let made = init::init(&common.config, &wishes, &local)?;
    show(common, &made, || Ok(report::made(&made)))
}

async fn watch(common: &Common, interval: Duration, peer: Option<String>) -> Result<(), Failure> {
    let interval_ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
    let explained = peer.is_some();
    let request = Request::Watch { interval_ms, peer };
    let mut replies = ControlClient::stream::<_, Reply>(&common.control(), &request)
        .await
        .map_err(not_running)?;
    let to_terminal = std::io::stdout().is_terminal();
    while let Some(reply) = replies.next().await {
        match reply? {
            Reply::Status(status) => show(common, &status, || {
                // Home, and clear what is below: less flicker than clearing first.
                let clear = if to_terminal { "\x1b[H\x1b[J" } else { "" };
                Ok(format!("{clear}{}", report::status(&status, explained)))
            })?,
            other => return Err(unexpected(&other)),
        }
    }
    Err(Failure::new(Class::NotRunning, "the server has stopped"))
}

async fn peer(common: &Common, command: Peer) -> Result<(), Failure> {
    let now = Moment::now();
    match command {
        Peer::Add(Invite { name, expires, qr }) => {
            let request = Request::PeerAdd {
                name: name.clone(),
                code_life_s: expires.as_secs(),
            };
            let invitation = invite(common, &request, For::New(&name), expires).await?;
            show(common, &invitation, || {
                report::invitation(&invitation, now, qr)
            })
        }
        Peer::Renew(Invite { name, expires, qr }) => {
            let request = Request::PeerRenew {
                name: name.clone(),
                code_life_s: expires.as_secs(),
            };
            let invitation = invite(common, &request, For::Known(&name), expires).await?;
            show(common, &invitation, || {
                report::invitation(&invitation, now, qr)
            })
        }
        Peer::List => {
            let all = all_peers(common).await?;
            show(common, &all, || Ok(report::peers(&all, now)))
        }
        Peer::Show { name } => {
            let all = all_peers(common).await?;
            let peer = all.iter().find(|peer| peer.name == name);
            let peer = peer.ok_or_else(|| peers::unknown(&name))?;
            show(common, peer, || Ok(report::peer(peer, now)))
        }
        Peer::Remove { name } => {
            let request = Request::PeerRemove { name: name.clone() };
            let removed = match ask_if_running(common, &request).await? {
                Some(Reply::Removed(removed)) => removed,
                Some(other) => return Err(unexpected(&other)),
                None => {
                    let store = PeerStore::at(Settings::load(&common.config)?.peers);
                    let removed = store.change(|all| peers::remove(all, &name))?;
                    PeerView::of(&removed, now, None)
                }
            };
            show(common, &removed, || {
                Ok(format!("\"{}\" may not connect any more\n", removed.name))
            })
        }
    }
}

/// Through the daemon when one runs, so that the code works at once; else in the store alone.
async fn invite(
    common: &Common,
    request: &Request,
    whom: For<'_>,
    code_life: Duration,
) -> Result<Invitation, Failure> {
    match ask_if_running(common, request).await? {
        Some(Reply::Invitation(invitation)) => Ok(*invitation),
        Some(other) => Err(unexpected(&other)),
        None => {
            let settings = Settings::load(&common.config)?;
            invitation::invite(&settings, whom, code_life, Moment::now())
        }
    }
}

async fn all_peers(common: &Common) -> Result<Vec<PeerView>, Failure> {
    match ask_if_running(common, &Request::PeerList).await? {
        Some(Reply::Peers(all)) => Ok(all),
        Some(other) => Err(unexpected(&other)),
        None => {
            let all = PeerStore::at(Settings::load(&common.config)?.peers).read()?;
            let now = Moment::now();
            Ok(all
                .iter()
                .map(|peer| PeerView::of(peer, now, None))
                .collect())
        }
    }
}

async fn restore(common: &Common) -> Result<(), Failure> {
    if ask_if_running(common, &Request::Status).await?.is_some() {
        return Err(Failure::new(Class::Conflict, "the server is running")
            .with_advice("stop it: it puts back what it changed"));
    }
    let done = nat::apply::undo(&daemon::journal_file(&common.state_dir))?;
    show(common, &done, || {
        Ok(match done.as_slice() {
            [] => "there was nothing to put back\n".to_owned(),
            done => done
                .iter()
                .map(|sentence| format!("{sentence}\n"))
                .collect(),
        })
    })
}

fn keygen(common: &Common, out: Option<PathBuf>) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Pair {
        #[serde(skip_serializing_if = "Option::is_none")]
        private_key: Option<String>,
        public_key: PublicKey,
    }
    let secret = key::generate()?;
    let mut pair = Pair {
        private_key: Some(key::encode(&secret)),
        public_key: PublicKey(key::public_of(&secret)),
    };
    if let Some(file) = out {
        if file.exists() {
            return Err(Failure::new(
                Class::Conflict,
                format!("{} exists already", file.display()),
            )
            .with_advice("choose another file: a key that is overwritten is lost"));
        }
        init::write_private(&file, &format!("{}\n", key::encode(&secret)))?;
        pair.private_key = None;
    }
    show(common, &pair, || {
        Ok(match &pair.private_key {
            Some(private) => format!("private key  {private}\npublic key   {}\n", pair.public_key),
            None => format!("{}\n", pair.public_key),
        })
    })
}

fn describe(settings: &Settings, plan: &nat::Plan) -> String {
    let listen: Vec<String> = settings.listen.iter().map(ToString::to_string).collect();
    let own: Vec<String> = settings
        .own_addresses()
        .iter()
        .map(|(address, prefix)| format!("{address}/{prefix}"))
        .collect();
    format!(
        "UDP sockets on {}\nTUN interface {} with {}, MTU {}\nworkers: {}\n{plan}",
        listen.join(", "),
        settings.interface,
        own.join(", "),
        settings.mtu,
        settings.workers
    )
}

async fn ask(common: &Common, request: &Request) -> Result<Reply, Failure> {
    ControlClient::call(&common.control(), request)
        .await
        .map_err(not_running)
}

/// The failure for a command that needs a running server.
fn not_running(failure: Failure) -> Failure {
    match failure.class() {
        Class::NotRunning => failure
            .while_doing("the server is not running")
            .with_advice(
                "start it with \"systemctl start marline-server\" or \"marline-server run\"",
            ),
        _ => failure,
    }
}

/// The daemon's answer; `None` when no daemon runs.
async fn ask_if_running(common: &Common, request: &Request) -> Result<Option<Reply>, Failure> {
    match ask(common, request).await {
        Ok(reply) => Ok(Some(reply)),
        Err(failure) if failure.class() == Class::NotRunning => Ok(None),
        Err(failure) => Err(failure),
    }
}

fn unexpected(reply: &Reply) -> Failure {
    Failure::new(
        Class::Other,
        format!("the server answered something else than was asked: {reply:?}"),
    )
    .with_advice("use the same version of the program for the server and the command line")
}

/// Prints `value` as JSON on one line, or the text.
fn show<T: Serialize + ?Sized>(
    common: &Common,
    value: &T,
    text: impl FnOnce() -> Result<String, Failure>,
) -> Result<(), Failure> {
    if common.json {
        let line = serde_json::to_string(value).map_err(std::io::Error::from)?;
        print(format!("{line}\n").as_bytes())
    } else {
        print(text()?.as_bytes())
    }
}

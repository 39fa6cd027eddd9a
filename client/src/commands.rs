//! One function per command: ask or do, then print for people or as JSON.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use marline_io::answer::print;
use marline_io::control::ControlClient;
use marline_io::failure::{Class, Context, Failure};
use marline_io::join_code::JoinCode;
use marline_io::{key, log};
use serde::Serialize;
use serde_json::json;

use crate::cli::{self, ClassWord, Cli, Command, Common, ModeWord};
use crate::control::{Reply, Request, now_unix_s, unexpected};
use crate::settings::{self, Typed};
use crate::show;

/// How long a client that put everything back may take to disappear.
const GONE_WITHIN: Duration = Duration::from_secs(5);

/// Does what was typed.
pub fn run(cli: Cli) -> Result<(), Failure> {
    let common = cli.common;
    log::init(match (common.quiet, &cli.command) {
        (true, _) => -1,
        // A command that answers at once shows its answer; a daemon shows what happens.
        (false, Command::Up(_)) => i8::try_from(common.verbose).unwrap_or(i8::MAX),
        (false, _) => i8::try_from(common.verbose).unwrap_or(i8::MAX) - 1,
    });
    match cli.command {
        Command::Join { code, force } => join(&common, &code, force),
        Command::Keygen => keygen(&common),
        Command::Completions { shell } => print(&cli::completions(shell)),
        Command::Man => print(&cli::man().context("cannot make the man page")?),
        Command::Status { watch } => on_runtime(status(&common, watch)),
        Command::Up(up) => machine::up(&common, &up),
        Command::Down => on_runtime(down(&common)),
        Command::Mode { mode, class } => on_runtime(mode_command(&common, mode, class)),
        Command::Uplinks => on_runtime(uplinks(&common)),
        Command::Plan => on_runtime(machine::plan(&common)),
        Command::Restore => on_runtime(restore(&common)),
    }
}

/// Where the running client listens.
fn control(common: &Common) -> PathBuf {
    common
        .control
        .clone()
        .unwrap_or_else(|| common.state_dir.join("client.sock"))
}

fn on_runtime<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")?
        .block_on(work)
}

/// Prints an answer: `value` as JSON, or `text` for people.
fn answer(common: &Common, value: &impl Serialize, text: &str) -> Result<(), Failure> {
    if common.json {
        let json = serde_json::to_string(value)
            .map_err(|error| Failure::new(Class::Other, format!("cannot write JSON: {error}")))?;
        print(format!("{json}\n").as_bytes())
    } else {
        print(text.as_bytes())
    }
}

fn join(common: &Common, code: &str, force: bool) -> Result<(), Failure> {
    let mut typed = code.to_owned();
    if code == "-" {
        typed.clear();
        std::io::stdin()
            .read_to_string(&mut typed)
            .context("cannot read the join code from standard input")?;
    }
    let code = JoinCode::decode(&typed, now_unix_s())?;
    write_config(&common.config, &settings::file_from_join_code(&code), force)?;
    let path = common.config.display();
    let value = json!({
        "config": common.config,
        "public_key": key::encode(&key::public_of(&code.secret)),
        "endpoints": code.endpoints,
    });
    answer(
        common,
        &value,
        &format!("Wrote {path}. Now run `marline up`.\n"),
    )
}

/// Writes the configuration so that nobody else can read it and a crash leaves the old or the new. What `up` could not
/// read does not take the place of anything.
fn write_config(path: &Path, text: &str, force: bool) -> Result<(), Failure> {
    let shown = path.display();
    if path.exists() && !force {
        return Err(Failure::new(
            Class::Conflict,
            format!("there is a configuration at {shown} already"),
        )
        .with_advice("use --force to replace it; its private key is lost then"));
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).context(format!("cannot make {}", parent.display()))?;
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let mut options = OpenOptions::new();
    options.create(true).write(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let write = || {
        // A leftover of ours might have been readable; a new file never is.
        if new.exists() {
            fs::remove_file(&new)?;
        }
        let mut file = options.open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().context(format!("cannot write {shown}"))?;
    if let Err(failure) = settings::load(&new, &Typed::default()) {
        let _ = fs::remove_file(&new);
        return Err(failure
            .while_doing("the join code makes no configuration that can be used")
            .with_advice("ask the server's operator for a new one"));
    }
    fs::rename(&new, path).context(format!("cannot write {shown}"))
}

fn keygen(common: &Common) -> Result<(), Failure> {
    let secret = key::generate()?;
    let (secret, public) = (key::encode(&secret), key::encode(&key::public_of(&secret)));
    let value = json!({ "private_key": secret, "public_key": public });
    answer(
        common,
        &value,
        &format!("private_key = \"{secret}\"\npublic_key = \"{public}\"\n"),
    )
}

/// The failure for a command that needs a running client.
fn not_running(failure: Failure) -> Failure {
    match failure.class() {
        Class::NotRunning => Failure::new(Class::NotRunning, "Marline is not running")
            .with_advice("start it with `marline up`"),
        _ => failure,
    }
}

async fn status(common: &Common, watch: bool) -> Result<(), Failure> {
    let request = if watch {
        Request::Watch
    } else {
        Request::Status
    };
    let mut replies = ControlClient::stream(&control(common), &request)
        .await
        .map_err(not_running)?;
    while let Some(reply) = replies.next().await {
        let Reply::Status(status) = reply? else {
            return Err(unexpected());
        };
        let text = show::status(&status, common.verbose > 0);
        // A live picture starts in the upper left corner of an empty screen.
        let text = if watch {
            format!("\x1b[H\x1b[2J{text}")
        } else {
            text
        };
        answer(common, &status, &text)?;
        if !watch {
            return Ok(());
        }
    }
    if watch { Ok(()) } else { Err(unexpected()) }
}

async fn mode_command(
    common: &Common,
    mode: Option<ModeWord>,
    class: Option<ClassWord>,
) -> Result<(), Failure> {
    let request = match mode {
        None => Request::Modes,
        Some(mode) => Request::SetMode {
            mode: mode.into(),
            class: class.map(marline_proto::Class::from),
        },
    };
    match ControlClient::call(&control(common), &request)
        .await
        .map_err(not_running)?
    {
        Reply::Modes(modes) => answer(common, &modes, &format!("{modes}\n")),
        _ => Err(unexpected()),
    }
}

async fn down(common: &Common) -> Result<(), Failure> {
    let control = control(common);
    match ControlClient::call(&control, &Request::Down).await {
        Ok(Reply::Down(stopped)) => {
            // The next `up` must not meet the end of this one.
            let end = Instant::now() + GONE_WITHIN;
            while control.exists() && Instant::now() < end {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let text = format!("Stopped, {}.\n", put_back(stopped.put_back));
            answer(common, &stopped, &text)
        }
        Ok(_) => Err(unexpected()),
        Err(failure) if failure.class() == Class::NotRunning => {
            if !machine::left_behind(common) {
                let sentence =
                    "Marline is not running, and no killed run left anything to put back";
                return Err(Failure::new(Class::NotRunning, sentence).with_advice(
                    "if it was started with --state-dir, type the same here or with `marline restore`",
                ));
            }
            let count = machine::restore(common).await?;
            let text = format!("It was not running any more; {}.\n", put_back(count));
            answer(common, &json!({ "put_back": count }), &text)
        }
        Err(failure) => Err(failure),
    }
}

async fn restore(common: &Common) -> Result<(), Failure> {
    match ControlClient::call::<_, Reply>(&control(common), &Request::Uplinks).await {
        Err(failure) if failure.class() == Class::NotRunning => {
            let count = machine::restore(common).await?;
            let mut text = put_back(count);
            text[..1].make_ascii_uppercase();
            answer(common, &json!({ "put_back": count }), &format!("{text}.\n"))
        }
        Err(failure) => Err(failure),
        Ok(_) => Err(Failure::new(Class::Conflict, "Marline is running")
            .with_advice("stop it with `marline down`, which puts everything back")),
    }
}

fn put_back(count: usize) -> String {
    match count {
        0 => "nothing was left to put back".to_owned(),
        1 => "1 change was put back".to_owned(),
        count => format!("{count} changes were put back"),
    }
}

async fn uplinks(common: &Common) -> Result<(), Failure> {
    let uplinks = match ControlClient::call(&control(common), &Request::Uplinks).await {
        Ok(Reply::Uplinks(uplinks)) => uplinks,
        Ok(_) => return Err(unexpected()),
        Err(failure) if failure.class() == Class::NotRunning => machine::uplinks(common).await?,
        Err(failure) => return Err(failure),
    };
    answer(common, &uplinks, &show::uplinks(&uplinks))
}

/// What needs this machine's network, on Linux.
#[cfg(target_os = "linux")]
mod machine {
    use super::*;
    use crate::background::{self, Report};
    use crate::cli::Up;
    use crate::daemon::{self, Places};
    use crate::journal::Journal;
    use crate::service;
    use crate::settings::Settings;
    use crate::uplinks::UplinkReport;

    fn places(common: &Common) -> Places {
        Places {
            state_dir: common.state_dir.clone(),
            control: control(common),
        }
    }

    fn load(common: &Common) -> Result<Settings, Failure> {
        settings::load(&common.config, &Typed::default())
    }

    pub(super) fn up(common: &Common, up: &Up) -> Result<(), Failure> {
        let typed = Typed {
            mode: up.mode.map(Into::into),
        };
        let started = settings::load(&common.config, &typed);
        if !up.foreground {
            started?;
            on_runtime(daemon::refuse_if_running(&control(common)))?;
            let status = background::start(common, up, &control(common))?;
            let names: Vec<&str> = status
                .uplinks
                .iter()
                .filter(|u| u.used)
                .map(|u| u.name.as_str())
                .collect();
            let text = format!("Marline is up over {}.\n", names.join(" and "));
            return answer(common, &status, &text);
        }
        let result = started.and_then(|settings| {
            on_runtime(async {
                let places = places(common);
                let on_up = |status| {
                    if up.report {
                        background::report(&Report::Up(Box::new(status)));
                    }
                };
                daemon::run(settings, &places, up.patience(), service::ready, on_up).await
            })
        });
        if up.report
            && let Err(failure) = &result
        {
            background::report(&Report::Failed(failure.clone()));
        }
        result
    }

    pub(super) async fn plan(common: &Common) -> Result<(), Failure> {
        let plan = daemon::plan(&load(common)?).await?;
        let mut text = format!("interface {} with MTU {}", plan.interface, plan.mtu);
        for address in &plan.addresses {
            text.push_str(&format!(", {address}"));
        }
        text.push('\n');
        for step in &plan.routing.steps {
            text.push_str(&format!("{step}\n"));
        }
        if let Some(dns) = &plan.dns {
            text.push_str(&format!("{dns}\n"));
        }
        text.push_str(&show::uplinks(&plan.uplinks));
        answer(common, &plan, &text)
    }

    pub(super) fn left_behind(common: &Common) -> bool {
        Journal::is_left_in(&common.state_dir)
    }

    pub(super) async fn restore(common: &Common) -> Result<usize, Failure> {
        daemon::restore(&places(common)).await
    }

    pub(super) async fn uplinks(common: &Common) -> Result<Vec<UplinkReport>, Failure> {
        daemon::uplinks(&load(common)?).await
    }
}

/// What needs a machine's network, where it is not written yet.
#[cfg(not(target_os = "linux"))]
mod machine {
    use super::*;
    use crate::cli::Up;
    use crate::uplinks::UplinkReport;

    fn unsupported<T>() -> Result<T, Failure> {
        Err(Failure::new(
            Class::Facility,
            format!(
                "the Marline client is not supported on this system yet ({})",
                std::env::consts::OS
            ),
        )
        .with_advice("use Linux"))
    }

    pub(super) fn up(_common: &Common, _up: &Up) -> Result<(), Failure> {
        unsupported()
    }

    pub(super) async fn plan(_common: &Common) -> Result<(), Failure> {
        unsupported()
    }

    pub(super) fn left_behind(_common: &Common) -> bool {
        false
    }

    pub(super) async fn restore(_common: &Common) -> Result<usize, Failure> {
        unsupported()
    }

    pub(super) async fn uplinks(_common: &Common) -> Result<Vec<UplinkReport>, Failure> {
        unsupported()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_up_could_not_read_replaces_no_configuration() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("client.toml");
        let key = key::encode(&[7; 32]);
        let usable = |mtu: u16| {
            format!(
                "private_key = \"{key}\"\naddresses = [\"10.77.0.2/32\"]\nmtu = {mtu}\n\
                 [server]\npublic_key = \"{key}\"\nendpoints = [\"192.0.2.1:51900\"]\n"
            )
        };
        write_config(&path, &usable(1500), false).unwrap();
        let refused = write_config(&path, &usable(2000), true).unwrap_err();
        assert!(refused.to_string().contains("mtu"), "{refused}");
        assert_eq!(fs::read_to_string(&path).unwrap(), usable(1500));
        let left: Vec<_> = fs::read_dir(directory.path()).unwrap().flatten().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }
}

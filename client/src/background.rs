//! `marline up` without `--foreground`: the client is started as a process of
//! its own, and the command waits until the bond is up or it knows why not.
//!
//! The new process runs the same program with `up --foreground --report` and
//! writes one line of JSON to its standard output, which is a pipe to us: that
//! traffic flows, or the failure. It belongs to a process group of its own, so
//! that Ctrl-C in the terminal does not reach it later; its log goes to a file.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use marline_io::failure::{Class, Context, Failure};
use marline_proto::Mode;
use serde::{Deserialize, Serialize};

use crate::cli::{Common, Up};
use crate::control::Status;
use crate::daemon::check_machine;

/// The log of a client in the background, within the state directory.
const LOG: &str = "client.log";

/// What the new process tells.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// Traffic flows.
    Up(Box<Status>),
    /// It does not, and the process ends.
    Failed(Failure),
}

/// Tells the process that started this one.
pub fn report(report: &Report) {
    let Ok(mut line) = serde_json::to_vec(report) else {
        return;
    };
    line.push(b'\n');
    // If the other side has gone, there is nobody to tell.
    let _ = std::io::stdout().write_all(&line);
    let _ = std::io::stdout().flush();
}

/// Starts a client in the background and waits for its report. Make sure before that none runs:
/// its log would be overwritten.
pub fn start(common: &Common, up: &Up, control: &Path) -> Result<Status, Failure> {
    // Before the first file is written: "permission denied" would not say what to do.
    check_machine()?;
    fs::create_dir_all(&common.state_dir).context(format!(
        "cannot make the directory {}",
        common.state_dir.display()
    ))?;
    let log_path = common.state_dir.join(LOG);
    let log = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(&log_path)
        .context(format!("cannot write the log {}", log_path.display()))?;
    let program = std::env::current_exe().context("cannot find the program's own file")?;
    let absolute = |path: &Path| {
        std::path::absolute(path).context(format!("cannot resolve {}", path.display()))
    };
    let mut command = Command::new(program);
    command
        .args(["up", "--foreground", "--report"])
        .arg("--config")
        .arg(absolute(&common.config)?)
        .arg("--state-dir")
        .arg(absolute(&common.state_dir)?)
        .arg("--control")
        .arg(absolute(control)?)
        .args(std::iter::repeat_n("-v", common.verbose.into()))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .process_group(0);
    if let Some(patience) = up.patience() {
        command.arg("--wait").arg(patience.as_secs().to_string());
    }
    if let Some(mode) = up.mode {
        command.arg("--mode").arg(Mode::from(mode).name());
    }
    let mut child = command
        .spawn()
        .context("cannot start the client in the background")?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout)
            .read_line(&mut line)
            .context("cannot hear from the client in the background")?;
    }
    match serde_json::from_str(&line) {
        Ok(Report::Up(status)) => Ok(*status),
        Ok(Report::Failed(failure)) => {
            // It has put everything back when it ends; until then nothing else may start.
            let _ = child.wait();
            Err(failure)
        }
        Err(_) => {
            let _ = child.wait();
            Err(Failure::new(
                Class::Other,
                "the client in the background ended without a word",
            )
            .with_advice(format!("look into {}", log_path.display())))
        }
    }
}

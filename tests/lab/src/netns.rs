//! Network namespaces: making them, working inside them, and never leaving one behind.
//!
//! A [`Den`] is one running lab's place in the world: a directory `/run/marline-lab/<pid>` with a
//! locked file in it, and any number of namespaces called `mlab<pid>-<role>`. The kernel drops
//! the lock with the process, however it ends, so the next lab that starts can tell the leftovers
//! of a killed one from the property of a living one and clears them away ([`clear_leftovers`]).
//!
//! A socket belongs for ever to the namespace in which it was made, whichever thread uses it
//! later. So the lab's workloads run in this process: [`Namespace::run`] makes their sockets in
//! a short-lived thread which has moved into the namespace.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use rustix::fs::FlockOperation;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

const DENS: &str = "/run/marline-lab";
const NAMESPACES: &str = "/run/netns";

/// One running lab's directory and name prefix.
#[derive(Debug)]
pub struct Den {
    path: PathBuf,
    prefix: String,
    _lock: File,
}

impl Den {
    /// Clears away what killed labs left, then makes this process's own den.
    pub fn new() -> Result<Den> {
        fs::create_dir_all(DENS).with_context(|| format!("cannot create {DENS}"))?;
        clear_leftovers()?;
        let pid = std::process::id();
        let path = Path::new(DENS).join(pid.to_string());
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        let lock = File::create(path.join("lock"))?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .with_context(|| format!("{} belongs to another lab", path.display()))?;
        Ok(Den {
            path,
            prefix: format!("mlab{pid}"),
            _lock: lock,
        })
    }

    /// Directory for the configuration, state and logs of what runs in this lab.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a fresh namespace with its loopback up.
    pub fn namespace(&self, role: &str) -> Result<Namespace> {
        let name = format!("{}-{role}", self.prefix);
        command("ip", &["netns", "add", &name])?;
        let namespace = Namespace { name };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }
}

impl Drop for Den {
    fn drop(&mut self) {
        // The namespaces were dropped by their owners; this catches what an error left.
        remove_all(&self.prefix);
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// One network namespace, removed on drop together with every process still in it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// The name, as `ip netns exec NAME …` takes it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` commands, one per line, inside the namespace.
    pub fn ip(&self, lines: &str) -> Result<()> {
        let mut child = Command::new("ip")
            .args(["-n", &self.name, "-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run ip (Debian package iproute2)")?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(lines.as_bytes())?;
            stdin.write_all(b"\n")?;
        }
        let output = child.wait_with_output()?;
        if !output.status.success() {
            let complaint = String::from_utf8_lossy(&output.stderr);
            bail!(
                "ip in {}: {} (of: {})",
                self.name,
                complaint.trim(),
                lines.trim()
            );
        }
        Ok(())
    }

    /// A command that will run inside the namespace.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Calls `work` in a thread that has moved into the namespace.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    self.enter()?;
                    Ok(work())
                })
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Moves the calling thread into the namespace for the rest of its life.
    pub fn enter(&self) -> io::Result<()> {
        Namespace::enter_named(&self.name)
    }

    /// As [`Namespace::enter`], by name.
    pub fn enter_named(name: &str) -> io::Result<()> {
        let file = File::open(Path::new(NAMESPACES).join(name))?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok(())
    }

    /// Sets kernel settings of this namespace: pairs of a path under `/proc/sys/net` and a value.
    pub fn sysctl(&self, settings: &[(&str, &str)]) -> Result<()> {
        self.run(|| {
            for (key, value) in settings {
                fs::write(Path::new("/proc/sys/net").join(key), value)
                    .with_context(|| format!("cannot set net/{key} to {value}"))?;
            }
            Ok(())
        })?
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// Removes the namespaces and directories of labs that were killed.
pub fn clear_leftovers() -> Result<()> {
    let Ok(entries) = fs::read_dir(DENS) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let Some(pid) = path.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        if !pid.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let Ok(lock) = File::open(path.join("lock")) else {
            continue;
        };
        if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            continue; // its owner lives
        }
        remove_all(&format!("mlab{pid}"));
        fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

fn remove_all(prefix: &str) {
    let Ok(entries) = fs::read_dir(NAMESPACES) else {
        return;
    };
    let start = format!("{prefix}-");
    for entry in entries.flatten() {
        if let Some(name) = entry.file_name().to_str()
            && name.starts_with(&start)
        {
            remove(name);
        }
    }
}

/// Ends every process in the namespace and removes it. The lab made it, so all in it is the lab's.
fn remove(name: &str) {
    // Threads of this very process count as being inside while they last: never ourselves.
    let own = std::process::id().to_string();
    if let Ok(output) = Command::new("ip").args(["netns", "pids", name]).output() {
        for pid in String::from_utf8_lossy(&output.stdout).split_whitespace() {
            if pid != own
                && let Some(pid) = pid.parse().ok().and_then(rustix::process::Pid::from_raw)
            {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
    let _ = Command::new("ip")
        .args(["netns", "del", name])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
}

/// Runs a program to its end and turns a failure into a sentence.
pub fn command(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        bail!(
            "{program} {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

//! wireguard-go between client and server, as its manual sets it up: defaults, one tunnel over
//! the first path.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};

use anyhow::{Context, Result, bail};

use crate::netns::{Namespace, command};
use crate::refusal::Refusal;
use crate::run::Interrupt;
use crate::topology::{Lab, SERVER_V4};
use crate::tunnel;

const PORT: u16 = 51820;
/// The network of the internet host.
const BEYOND: &str = "203.0.113.0/24";

/// A tunnel of two processes that end with it.
pub struct Wireguard {
    daemons: Vec<Child>,
}

impl Wireguard {
    /// Brings it up, server first.
    pub fn start(lab: &Lab, program: &Path, interrupt: &Interrupt) -> Result<Wireguard> {
        let directory = lab.directory();
        let mut publics = Vec::new();
        for side in ["server", "client"] {
            let secret = command("wg", &["genkey"]).map_err(|_| {
                Refusal::Facility(
                    "the command wg is missing; install the Debian package wireguard-tools".into(),
                )
            })?;
            let file = directory.join(format!("{side}.wg"));
            fs::write(&file, &secret)?;
            let public = command("sh", &["-c", &format!("wg pubkey < {}", file.display())])?;
            publics.push(public.trim().to_owned());
        }
        let mut wireguard = Wireguard {
            daemons: Vec::new(),
        };
        // Names differ from lab to lab: wireguard-go's control sockets lie in one directory.
        let number = std::process::id();
        for (index, namespace) in [lab.server(), lab.client()].into_iter().enumerate() {
            let side = ["server", "client"][index];
            let device = format!("wg{}{number}", &side[..1]);
            let child = namespace
                .command(program)
                .args(["-f", &device])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()?;
            wireguard.daemons.push(child);
            let secret = directory.join(format!("{side}.wg")).display().to_string();
            let port = PORT.to_string();
            let endpoint = format!("{SERVER_V4}:{PORT}");
            let mut settings = vec!["set", &device, "private-key", &secret];
            match side {
                "server" => settings.extend(["listen-port", &port, "peer", &publics[1]]),
                _ => settings.extend(["peer", &publics[0], "endpoint", &endpoint]),
            }
            settings.extend(["allowed-ips", "0.0.0.0/0"]);
            let set = tunnel::wait(interrupt, || {
                if let Ok(Some(status)) = wireguard.daemons[index].try_wait() {
                    bail!("{} ended by itself ({status})", program.display());
                }
                Ok(wg(namespace, &settings))
            })?;
            if !set {
                bail!("wireguard-go does not answer on {device}");
            }
            let own = 2 - index;
            namespace
                .ip(&format!(
                    "addr add 10.99.0.{own}/24 dev {device}\nlink set {device} up"
                ))
                .with_context(|| format!("cannot set up {device}"))?;
            if side == "client" {
                namespace.ip(&format!("route replace {BEYOND} dev {device}"))?;
            }
        }
        Ok(wireguard)
    }

    /// Fails if one of the processes has ended.
    pub fn check(&mut self) -> Result<()> {
        for daemon in &mut self.daemons {
            if let Some(status) = daemon.try_wait()? {
                bail!("wireguard-go ended by itself ({status})");
            }
        }
        Ok(())
    }

    /// The processes: the server's, then the client's.
    pub fn pids(&self) -> Vec<u32> {
        self.daemons.iter().map(Child::id).collect()
    }
}

impl Drop for Wireguard {
    fn drop(&mut self) {
        for daemon in &mut self.daemons {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

fn wg(namespace: &Namespace, arguments: &[&str]) -> bool {
    let status = namespace
        .command("wg")
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

//! What carries the client's traffic: nothing (natively over one link), Marline, kernel MPTCP, or
//! another tunnel behind the command hooks of a scenario file.
//!
//! Marline is started as a newcomer starts it, with the same commands and no setting typed in:
//! `marline-server init`, `run`, `peer add`; `marline join`, `up`. Every daemon
//! runs in its network namespace and in a mount namespace of its own, where `/etc`, `/run` and
//! `/var/lib` are directories of the lab; so several labs can run on one machine, and nothing of
//! the machine's own configuration can be touched. Both daemons write their logs into the lab's
//! directory, whose last lines are shown when something fails.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::netns::Namespace;
use crate::refusal::Refusal;
use crate::run::Interrupt;
use crate::scenario::External;
use crate::topology::{HOST_V4, Lab, SERVER_V4, SERVER_V6};
use crate::wire::Sent;
use crate::workload::Way;

/// Where the Marline server listens.
pub const PORT: u16 = 51900;
/// How long a tunnel may take to come up.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a daemon may take to end after it was asked to.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for paths to be measured after they came up.
const SETTLE: Duration = Duration::from_millis(1500);
/// A link has been used by the tunnel when it carried this much each way since the start: more
/// than neighbour discovery, as much as a handshake.
const USED_BYTES: u64 = 400;

/// Which tunnel to use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Through {
    /// None: sockets are bound to the device of this link.
    Native(usize),
    /// Marline.
    Marline,
    /// No tunnel, but the kernel's MPTCP over all links.
    Mptcp,
    /// The hooks of this name in the scenario.
    External(String),
}

impl Through {
    /// Its name in results; None for Marline itself.
    pub fn label(&self) -> Option<String> {
        match self {
            Through::Native(index) => Some(format!("native {}", crate::topology::wan(*index))),
            Through::Marline => None,
            Through::Mptcp => Some("mptcp".into()),
            Through::External(name) => Some(name.clone()),
        }
    }
}

/// A tunnel that is up; comes down on drop.
pub struct Tunnel<'a> {
    /// How traffic leaves the client while it is up.
    pub way: Way,
    daemons: Vec<Daemon>,
    homes: Vec<(Home<'a>, &'static str)>,
    stop: Option<Command>,
    mptcp: Option<&'a Lab>,
}

/// Refuses when Marline's programs are not in `directory`.
pub fn check_binaries(directory: &Path) -> Result<(), Refusal> {
    for program in ["marline", "marline-server"] {
        let binary = directory.join(program);
        if !binary.exists() {
            return Err(Refusal::Usage(format!(
                "{} is not there; build it with \"cargo build --release\" or say --bin-dir",
                binary.display()
            )));
        }
    }
    Ok(())
}

/// Brings Marline up over all links.
pub fn marline<'a>(lab: &'a Lab, binaries: &'a Path, interrupt: &Interrupt) -> Result<Tunnel<'a>> {
    start(
        lab,
        &Through::Marline,
        binaries,
        &Default::default(),
        interrupt,
    )
}

/// Brings a tunnel up.
pub fn start<'a>(
    lab: &'a Lab,
    through: &Through,
    binaries: &'a Path,
    externals: &std::collections::BTreeMap<String, External>,
    interrupt: &Interrupt,
) -> Result<Tunnel<'a>> {
    let mut tunnel = Tunnel {
        way: Way::default(),
        daemons: Vec::new(),
        homes: Vec::new(),
        stop: None,
        mptcp: None,
    };
    match through {
        Through::Native(index) => tunnel.way.device = Some(crate::topology::wan(*index)),
        Through::Marline => start_marline(lab, binaries, &mut tunnel, interrupt)?,
        Through::Mptcp => {
            tunnel.way.mptcp = true;
            start_mptcp(lab)?;
            tunnel.mptcp = Some(lab);
        }
        Through::External(name) => {
            let hooks = externals
                .get(name)
                .with_context(|| format!("the scenario has no [external.{name}]"))?;
            tunnel.way.target = hooks.target;
            let mut stop = shell(lab, &hooks.stop);
            stop.stdin(Stdio::null()).stdout(Stdio::null());
            tunnel.stop = Some(stop);
            let status = shell(lab, &hooks.start).stdin(Stdio::null()).status()?;
            if !status.success() {
                bail!("the start command of [external.{name}] failed: {status}");
            }
        }
    }
    Ok(tunnel)
}

impl Tunnel<'_> {
    /// Processes whose processor time is the tunnel's.
    pub fn pids(&self) -> Vec<u32> {
        self.daemons
            .iter()
            .map(|daemon| daemon.child.id())
            .collect()
    }

    /// What both ends of Marline have sent so far; None for other tunnels.
    pub fn sent(&self) -> Result<Option<Sent>> {
        let mut sent: Option<Sent> = None;
        for (home, program) in &self.homes {
            let one = Sent::read(&home.call(program, &["status", "--json"])?)?;
            sent = Some(sent.map_or(one, |other| other.and(one)));
        }
        Ok(sent)
    }

    /// Fails when a daemon has ended by itself, with what it said last.
    pub fn check(&mut self) -> Result<()> {
        self.daemons.iter_mut().try_for_each(Daemon::check)
    }
}

impl Drop for Tunnel<'_> {
    fn drop(&mut self) {
        // The client first, so that it can take its leave.
        for daemon in self.daemons.drain(..).rev() {
            daemon.stop();
        }
        if let Some(mut stop) = self.stop.take() {
            let _ = stop.status();
        }
        if let Some(lab) = self.mptcp {
            let _ = lab
                .client()
                .command("ip")
                .args(["mptcp", "endpoint", "flush"])
                .status();
        }
    }
}

fn start_marline<'a>(
    lab: &'a Lab,
    binaries: &'a Path,
    tunnel: &mut Tunnel<'a>,
    interrupt: &Interrupt,
) -> Result<()> {
    let server = Home::new(lab, lab.server(), "server", binaries)?;
    let client = Home::new(lab, lab.client(), "client", binaries)?;
    let used_before = link_bytes(lab);
    // The first start in a lab sets both sides up; later ones find them as after a reboot.
    let new = !client.path.join("etc/marline/client.toml").exists();
    if !server.path.join("etc/marline/server.toml").exists() {
        init(&server)?;
    }
    tunnel.daemons.push(serve(&server, interrupt)?);
    if new {
        client.call("marline", &["join", &invite(&server, "lab", &[])?])?;
    }
    tunnel
        .daemons
        .push(client.daemon("marline", &["up", "--foreground"])?);
    let up = wait(interrupt, || {
        tunnel.check()?;
        let used = link_bytes(lab);
        let every_link = lab.links().iter().enumerate().all(|(index, link)| {
            let [now, before] = [used[index], used_before[index]];
            link.direct || (0..2).all(|way| now[way] - before[way] >= USED_BYTES)
        });
        Ok(every_link && goes_through_tunnel(lab.client())?)
    })?;
    if !up {
        let words: Vec<String> = tunnel.daemons.iter().map(Daemon::last_words).collect();
        bail!(
            "the bond did not come up over every link within {} s\n{}",
            START_TIMEOUT.as_secs(),
            words.join("\n")
        );
    }
    tunnel.homes = vec![(client, "marline"), (server, "marline-server")];
    interrupt.sleep_until(Instant::now() + SETTLE)
}

/// Makes the settings of a new server, reached over both versions of IP.
pub fn init(server: &Home<'_>) -> Result<()> {
    let v4 = format!("{SERVER_V4}:{PORT}");
    let v6 = format!("[{SERVER_V6}]:{PORT}");
    server.call(
        "marline-server",
        &["init", "--endpoint", &v4, "--endpoint", &v6],
    )?;
    Ok(())
}

/// Sets up the server of a lab in which none has run yet, with so many workers.
pub fn init_with_workers(lab: &Lab, binaries: &Path, workers: usize) -> Result<()> {
    let server = Home::new(lab, lab.server(), "server", binaries)?;
    init(&server)?;
    let file = server.path.join("etc/marline/server.toml");
    let text = fs::read_to_string(&file)?;
    Ok(fs::write(&file, format!("workers = {workers}\n{text}"))?)
}

/// Starts the server and waits until its command line is answered.
pub fn serve(server: &Home<'_>, interrupt: &Interrupt) -> Result<Daemon> {
    let mut daemon = server.daemon("marline-server", &["run"])?;
    let answers = wait(interrupt, || {
        daemon.check()?;
        Ok(server.call("marline-server", &["status"]).is_ok())
    })?;
    if !answers {
        bail!("marline-server does not answer: {}", daemon.last_words());
    }
    Ok(daemon)
}

/// Starts a client and waits until traffic goes its way.
pub fn connect(client: &Home<'_>, interrupt: &Interrupt) -> Result<Daemon> {
    let mut daemon = client.daemon("marline", &["up", "--foreground"])?;
    let up = wait(interrupt, || {
        daemon.check()?;
        goes_through_tunnel(client.namespace)
    })?;
    if !up {
        bail!(
            "the {} does not connect: {}",
            client.role,
            daemon.last_words()
        );
    }
    Ok(daemon)
}

/// Adds a peer to the running server, with further options, and returns its join code.
pub fn invite(server: &Home<'_>, name: &str, options: &[&str]) -> Result<String> {
    let arguments = [&["peer", "add", name, "--json"], options].concat();
    let invitation = server.call("marline-server", &arguments)?;
    join_code(&invitation)
        .with_context(|| format!("no join code in what peer add printed: {invitation}"))
}

/// The field `code` of the answer, however deep it lies.
fn join_code(invitation: &str) -> Option<String> {
    fn find(value: &serde_json::Value) -> Option<&str> {
        let object = value.as_object()?;
        let here = object.get("code").and_then(|code| code.as_str());
        here.or_else(|| object.values().find_map(find))
    }
    find(&serde_json::from_str(invitation).ok()?).map(str::to_owned)
}

fn link_bytes(lab: &Lab) -> Vec<[u64; 2]> {
    (0..lab.links().len())
        .map(|index| {
            let counters = lab.emulator().counters(index);
            [
                counters.down_bytes.load(Relaxed),
                counters.up_bytes.load(Relaxed),
            ]
        })
        .collect()
}

/// Whether the client's way to the internet host no longer leads out of an uplink.
pub fn goes_through_tunnel(client: &Namespace) -> Result<bool> {
    let output = client
        .command("ip")
        .args(["route", "get", HOST_V4])
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let device = text
        .split_whitespace()
        .skip_while(|word| *word != "dev")
        .nth(1);
    Ok(device.is_some_and(|device| !device.starts_with("wan")))
}

/// Asks again and again until the answer is yes; false when it took too long.
pub fn wait(interrupt: &Interrupt, mut ready: impl FnMut() -> Result<bool>) -> Result<bool> {
    let until = Instant::now() + START_TIMEOUT;
    while Instant::now() < until {
        if ready()? {
            return Ok(true);
        }
        interrupt.sleep_until(Instant::now() + Duration::from_millis(50))?;
    }
    Ok(false)
}

fn start_mptcp(lab: &Lab) -> Result<()> {
    for namespace in [lab.client(), lab.host()] {
        namespace
            .sysctl(&[("mptcp/enabled", "1")])
            .map_err(|_| Refusal::Facility("this kernel has no MPTCP (CONFIG_MPTCP)".into()))?;
        mptcp(
            namespace,
            &["limits", "set", "subflow", "8", "add_addr_accepted", "8"],
        )?;
    }
    // The connection itself starts over the default route of the first link; each further link
    // gets a subflow of its own, bound to its device.
    for index in 1..lab.links().len() {
        let address = format!("10.201.{}.2", index + 1);
        let device = crate::topology::wan(index);
        mptcp(
            lab.client(),
            &["endpoint", "add", &address, "dev", &device, "subflow"],
        )?;
    }
    Ok(())
}

fn mptcp(namespace: &Namespace, arguments: &[&str]) -> Result<()> {
    let output = namespace
        .command("ip")
        .arg("mptcp")
        .args(arguments)
        .output()?;
    if !output.status.success() {
        bail!(
            "ip mptcp {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

fn shell(lab: &Lab, line: &str) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", line])
        .env("LAB_CLIENT", lab.client().name())
        .env("LAB_SERVER", lab.server().name())
        .env("LAB_HOST", lab.host().name())
        .env("LAB_LINKS", lab.links().len().to_string())
        .env("LAB_DIR", lab.directory());
    command
}

/// The private file system of one side, and how its programs are called.
pub struct Home<'a> {
    namespace: &'a Namespace,
    path: PathBuf,
    binaries: &'a Path,
    role: String,
}

impl<'a> Home<'a> {
    /// The home of this role; made by the first call, the same again for later ones.
    pub fn new(
        lab: &Lab,
        namespace: &'a Namespace,
        role: &str,
        binaries: &'a Path,
    ) -> Result<Home<'a>> {
        let path = lab.directory().join(role);
        if !path.exists() {
            for directory in ["run", "lib"] {
                fs::create_dir_all(path.join(directory))?;
            }
            let etc = path.join("etc");
            let target = etc.to_string_lossy();
            // Sockets and unreadable files among it are no reason to fail.
            let _ = Command::new("cp")
                .args(["-a", "/etc", &target])
                .stderr(Stdio::null())
                .status();
            let _ = fs::remove_dir_all(etc.join("marline"));
        }
        Ok(Home {
            namespace,
            path,
            binaries,
            role: role.to_owned(),
        })
    }

    /// A command inside the network namespace that sees this home.
    pub fn command(&self, program: &str, arguments: &[&str]) -> Result<Command> {
        let mut command = self.namespace.command("sh");
        command
            .arg("-ec")
            .arg(
                "home=$1; shift
                 mount --bind \"$home/etc\" /etc
                 mount --bind \"$home/lib\" /var/lib
                 mount --bind \"$home/run\" /run
                 exec \"$@\"",
            )
            .arg("marline-lab")
            .arg(&self.path)
            .arg(fs::canonicalize(self.binaries.join(program))?)
            .args(arguments)
            .stdin(Stdio::null());
        Ok(command)
    }

    /// Runs a program to its end and returns what it printed.
    pub fn call(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let output = self.command(program, arguments)?.output()?;
        if !output.status.success() {
            bail!(
                "{program} {}: {}",
                arguments.first().unwrap_or(&""),
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Directory that holds `etc`, `lib` and `run` of this side.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Starts a program that stays; what it says goes to the log of this role.
    pub fn daemon(&self, program: &str, arguments: &[&str]) -> Result<Daemon> {
        let log = self.path.with_extension("log");
        let file = File::options().create(true).append(true).open(&log)?;
        let child = self
            .command(program, arguments)?
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()?;
        Ok(Daemon {
            child,
            role: self.role.clone(),
            log,
        })
    }
}

/// A program of Marline that runs; whoever holds it ends it.
pub struct Daemon {
    child: Child,
    role: String,
    log: PathBuf,
}

impl Daemon {
    /// Fails when it has ended by itself, with what it said last.
    pub fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!(
                "the {} ended by itself ({status}): {}",
                self.role,
                self.last_words()
            );
        }
        Ok(())
    }

    /// The end of its log.
    pub fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }

    /// Ends it on the spot, as the kernel does when memory runs out.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to end, and ends it when it does not.
    pub fn stop(mut self) {
        // `ip netns exec` and `sh` have become the daemon itself by exec: this is its pid.
        if let Some(pid) = Pid::from_raw(self.child.id() as i32) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let until = Instant::now() + STOP_TIMEOUT;
        while Instant::now() < until {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

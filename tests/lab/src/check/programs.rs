//! curl, ssh, ping and an inner WireGuard through the bond.
//!
//! The servers run in the internet host's namespace with configuration and state of their own,
//! which they see below `/mnt` in a mount namespace of their own; nothing of the machine's
//! `/etc` or `/run` is used.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use super::{Promises, Running, find, ms, pause, two_uplinks};
use crate::netns::Namespace;
use crate::run::Interrupt;
use crate::topology::{HOST_V4, HOST_V6, Lab};
use crate::tunnel;

const HTTP_PORT: u16 = 8080;
const SSH_PORT: u16 = 2222;
const WIREGUARD_PORT: u16 = 51_999;
/// Addresses inside the inner WireGuard: the client's, and the host's.
const INNER: [[&str; 2]; 2] = [["10.99.0.1", "fd99::1"], ["10.99.0.2", "fd99::2"]];
/// How long a server may need until it answers.
const READY: Duration = Duration::from_secs(10);
/// How long a download may take.
const DOWNLOAD: Duration = Duration::from_secs(60);
/// Time between two echoes and between two pings, ms.
const BEAT_MS: u64 = 20;

pub(super) fn check(promises: &mut Promises, binaries: &Path, interrupt: &Interrupt) -> Result<()> {
    let lab = Lab::build(&two_uplinks(), 5)?;
    let _tunnel = tunnel::marline(&lab, binaries, interrupt)?;
    let servers = Servers::start(&lab, 25_000_000)?;
    for (version, host) in [("IPv4", HOST_V4), ("IPv6", HOST_V6)] {
        let get = servers.download(lab.client(), host)?;
        get.finish(interrupt)?
            .note(promises, &format!("curl over {version}"), &servers);

        let answer = servers
            .ssh(lab.client(), host, "echo $((6 * 7))")
            .output()?;
        let text = String::from_utf8_lossy(&answer.stdout).into_owned();
        promises.note(
            format!("ssh over {version} runs a command"),
            answer.status.success() && text.trim() == "42",
            format!(
                "answers \"{}\" {}",
                text.trim(),
                String::from_utf8_lossy(&answer.stderr).trim()
            ),
        );
        let session = servers.session(lab.client(), host)?;
        let ping = servers.ping(lab.client(), host)?;
        pause(interrupt, 1.5)?;
        session
            .finish()?
            .note(promises, &format!("an ssh session over {version} echoes"));
        ping.finish()?
            .note(promises, &format!("ping over {version}"));
    }
    let _wireguard = WireGuard::start(&lab, &servers)?;
    for (version, host) in [("IPv4", INNER[1][0]), ("IPv6", INNER[1][1])] {
        let ping = servers.ping(lab.client(), host)?;
        let get = servers.download(lab.client(), host)?;
        get.finish(interrupt)?.note(
            promises,
            &format!("curl over {version} inside WireGuard"),
            &servers,
        );
        ping.finish()?
            .note(promises, &format!("ping over {version} inside WireGuard"));
    }
    Ok(())
}

/// nginx and sshd on the internet host, and the file that is fetched.
pub(super) struct Servers {
    directory: PathBuf,
    sum: String,
    bytes: u64,
    _running: Vec<Running>,
}

impl Servers {
    /// Starts them; the file has this many random bytes.
    pub(super) fn start(lab: &Lab, bytes: u64) -> Result<Servers> {
        let directory = lab.directory().join("programs");
        for name in ["run/sshd", "www", "nginx"] {
            fs::create_dir_all(directory.join(name))?;
        }
        let file = directory.join("www/file");
        std::io::copy(
            &mut File::open("/dev/urandom")?.take(bytes),
            &mut File::create(&file)?,
        )?;
        let nginx = directory.join("nginx.conf");
        fs::write(&nginx, nginx_conf())?;
        for key in ["host_key", "user_key"] {
            let path = directory.join(key);
            crate::netns::command(
                "ssh-keygen",
                &[
                    "-q",
                    "-t",
                    "ed25519",
                    "-N",
                    "",
                    "-f",
                    &path.to_string_lossy(),
                ],
            )?;
        }
        let public = fs::read_to_string(directory.join("host_key.pub"))?;
        let known: String = [HOST_V4, HOST_V6]
            .map(|host| format!("[{host}]:{SSH_PORT} {public}"))
            .concat();
        fs::write(directory.join("known_hosts"), known)?;
        fs::write(directory.join("sshd.conf"), sshd_conf())?;

        // Whatever the machine's default is: the same everywhere. BBR would keep to the round trip
        // of an uplink that is gone for ten seconds, which is not what is looked at here.
        lab.host()
            .ip("route replace default via 203.0.113.1 congctl cubic\n\
             route replace default via 2001:db8:113::1 congctl cubic")?;
        let log = File::create(directory.join("servers.log"))?;
        let sshd = find("sshd").context("sshd is missing")?;
        let sshd = sshd.to_string_lossy();
        let mut running = Vec::new();
        for words in [
            &["nginx", "-p", "/mnt/nginx", "-c", "/mnt/nginx.conf"][..],
            &[&sshd, "-D", "-e", "-f", "/mnt/sshd.conf"],
        ] {
            let mut command = private(lab.host(), &directory, words);
            command.stdout(log.try_clone()?).stderr(log.try_clone()?);
            running.push(Running::start(&mut command)?);
        }
        let servers = Servers {
            sum: sha256(&file)?,
            bytes,
            _running: running,
            directory,
        };
        for port in [HTTP_PORT, SSH_PORT] {
            let until = Instant::now() + READY;
            let target = (std::net::Ipv4Addr::LOCALHOST, port);
            while lab
                .host()
                .run(|| std::net::TcpStream::connect(target))?
                .is_err()
            {
                if Instant::now() >= until {
                    let log = fs::read_to_string(servers.directory.join("servers.log"))?;
                    bail!("no server answers at port {port}: {}", log.trim());
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(servers)
    }

    /// Starts curl.
    pub(super) fn download(&self, client: &Namespace, host: &str) -> Result<Download> {
        let file = self.directory.join(format!("fetched-{}", client.name()));
        let _ = fs::remove_file(&file);
        let complaint = self.directory.join(format!("curl-{}", client.name()));
        let mut command = client.command("curl");
        command
            .args(["-sS", "--fail", "--noproxy", "*", "-o"])
            .arg(&file)
            .arg(url(host))
            .stdin(Stdio::null())
            .stderr(File::create(&complaint)?);
        let curl = Running::start(&mut command)?;
        Ok(Download {
            curl,
            file,
            complaint,
            began: Instant::now(),
        })
    }

    /// ssh, ready to run a command on the host.
    fn ssh(&self, client: &Namespace, host: &str, line: &str) -> Command {
        let mut command = client.command("ssh");
        let known = self.directory.join("known_hosts");
        command
            .args(["-F", "/dev/null", "-T", "-p", &SSH_PORT.to_string()])
            .args(["-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"])
            .args(["-o", "StrictHostKeyChecking=yes", "-o", "ConnectTimeout=10"])
            .arg("-o")
            .arg(format!("UserKnownHostsFile={}", known.display()))
            .arg("-i")
            .arg(self.directory.join("user_key"))
            .arg(format!("root@{host}"))
            .arg(line)
            .stdin(Stdio::null());
        command
    }

    /// Opens an ssh session that echoes what is typed, and types something 50 times a second.
    pub(super) fn session(&self, client: &Namespace, host: &str) -> Result<Session> {
        let mut command = self.ssh(client, host, "cat");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut ssh = Running::start(&mut command)?;
        let mut typed = ssh.0.stdin.take().context("ssh has no input")?;
        let shown = ssh.0.stdout.take().context("ssh has no output")?;
        let echoes = Arc::new(Mutex::new(Echoes::default()));
        let shared = echoes.clone();
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(shown).lines().map_while(Result::ok) {
                let mut echoes = shared.lock().unwrap_or_else(PoisonError::into_inner);
                echoes.take(&line);
            }
        });
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let writer = std::thread::spawn(move || {
            for number in 0_u64.. {
                // When the input is dropped, the session ends.
                if stopped.load(Relaxed) || writeln!(typed, "{number}").is_err() {
                    return number;
                }
                std::thread::sleep(Duration::from_millis(BEAT_MS));
            }
            unreachable!("nobody counts that far")
        });
        let until = Instant::now() + READY;
        let begun = || {
            let echoes = echoes.lock().unwrap_or_else(PoisonError::into_inner);
            echoes.last.is_some()
        };
        while !begun() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(Session {
            ssh,
            echoes,
            stop,
            reader,
            writer,
        })
    }

    /// Pings 50 times a second.
    pub(super) fn ping(&self, client: &Namespace, host: &str) -> Result<Ping> {
        let log = self.directory.join(format!("ping-{host}"));
        let mut command = client.command("ping");
        command
            .args(["-n", "-D", "-i", &format!("0.{BEAT_MS:03}"), host])
            .stdin(Stdio::null())
            .stdout(File::create(&log)?);
        let ping = Running::start(&mut command)?;
        Ok(Ping { ping, log })
    }
}

/// A server's command, with `directory` as `/mnt` and a `/run` of its own.
fn private(namespace: &Namespace, directory: &Path, words: &[&str]) -> Command {
    let mut command = namespace.command("sh");
    command
        .arg("-ec")
        .arg(
            "mount --bind \"$1\" /mnt
             mount --bind /mnt/run /run
             shift
             exec \"$@\"",
        )
        .arg("marline-lab")
        .arg(directory)
        .args(words)
        .stdin(Stdio::null());
    command
}

fn nginx_conf() -> String {
    let mut temporary = String::new();
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        temporary.push_str(&format!("  {kind}_temp_path /mnt/nginx/{kind};\n"));
    }
    format!(
        "daemon off;\nmaster_process off;\npid /mnt/nginx/pid;\nerror_log stderr;\n\
         events {{}}\nhttp {{\n  access_log off;\n  sendfile on;\n{temporary}\
         \x20 server {{\n    listen {HTTP_PORT};\n    listen [::]:{HTTP_PORT};\n    root /mnt/www;\n  }}\n}}\n"
    )
}

fn sshd_conf() -> String {
    format!(
        "Port {SSH_PORT}\nHostKey /mnt/host_key\nAuthorizedKeysFile /mnt/user_key.pub\n\
         PermitRootLogin prohibit-password\nPasswordAuthentication no\n\
         KbdInteractiveAuthentication no\nUsePAM no\nStrictModes no\nUseDNS no\nPidFile none\n"
    )
}

fn url(host: &str) -> String {
    if host.contains(':') {
        format!("http://[{host}]:{HTTP_PORT}/file")
    } else {
        format!("http://{host}:{HTTP_PORT}/file")
    }
}

fn sha256(file: &Path) -> Result<String> {
    let line = crate::netns::command("sha256sum", &[&file.to_string_lossy()])?;
    Ok(line.split_whitespace().next().unwrap_or("").to_owned())
}

/// A running curl.
pub(super) struct Download {
    curl: Running,
    file: PathBuf,
    complaint: PathBuf,
    began: Instant,
}

/// What a curl has done.
pub(super) struct Fetched {
    complaint: Option<String>,
    sum: String,
    seconds: f64,
    /// The longest time without a further byte, from the start on.
    pub(super) stall: Duration,
}

impl Download {
    /// Bytes that are there.
    fn length(&self) -> u64 {
        fs::metadata(&self.file).map_or(0, |file| file.len())
    }

    /// Waits until it is done.
    pub(super) fn finish(mut self, interrupt: &Interrupt) -> Result<Fetched> {
        self.watch(interrupt, |_| Ok(()))
    }

    /// As [`Download::finish`]; `act` is called every few milliseconds with the seconds since the
    /// start.
    pub(super) fn watch(
        &mut self,
        interrupt: &Interrupt,
        mut act: impl FnMut(f64) -> Result<()>,
    ) -> Result<Fetched> {
        let mut length = 0;
        let mut last = self.began;
        let mut stall = Duration::ZERO;
        let complaint = loop {
            interrupt.check()?;
            act(self.began.elapsed().as_secs_f64())?;
            let now = self.length();
            if now > length {
                stall = stall.max(last.elapsed());
                (length, last) = (now, Instant::now());
            }
            if let Some(status) = self.curl.0.try_wait()? {
                let words = fs::read_to_string(&self.complaint)?;
                break (!status.success()).then(|| words.trim().to_owned());
            }
            if self.began.elapsed() > DOWNLOAD {
                break Some(format!("{length} bytes after {} s", DOWNLOAD.as_secs()));
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        if complaint.is_some() {
            stall = stall.max(last.elapsed());
        }
        let seconds = self.began.elapsed().as_secs_f64();
        let sum = sha256(&self.file).unwrap_or_default();
        let _ = fs::remove_file(&self.file);
        Ok(Fetched {
            complaint,
            sum,
            seconds,
            stall,
        })
    }
}

impl Fetched {
    pub(super) fn note(&self, promises: &mut Promises, what: &str, servers: &Servers) {
        let megabytes = servers.bytes as f64 / 1e6;
        let right = self.sum == servers.sum;
        promises.note(
            format!("{what} gets {megabytes:.0} MB with the right checksum"),
            self.complaint.is_none() && right,
            match &self.complaint {
                Some(complaint) => complaint.clone(),
                None if !right => "the file is another".into(),
                None => format!(
                    "{:.1} Mbit/s, longest stall {}",
                    megabytes * 8.0 / self.seconds,
                    ms(self.stall)
                ),
            },
        );
    }
}

#[derive(Default)]
struct Echoes {
    next: u64,
    wrong: Option<String>,
    last: Option<Instant>,
    longest: Duration,
}

impl Echoes {
    fn take(&mut self, line: &str) {
        if line != self.next.to_string() && self.wrong.is_none() {
            self.wrong = Some(format!("\"{line}\" instead of \"{}\"", self.next));
        }
        self.next += 1;
        if let Some(last) = self.last {
            self.longest = self.longest.max(last.elapsed());
        }
        self.last = Some(Instant::now());
    }
}

/// An open ssh session.
pub(super) struct Session {
    ssh: Running,
    echoes: Arc<Mutex<Echoes>>,
    stop: Arc<AtomicBool>,
    reader: JoinHandle<()>,
    writer: JoinHandle<u64>,
}

/// What a session or a ping has seen.
pub(super) struct Beats {
    /// Why it counts as failed.
    complaint: Option<String>,
    sent: u64,
    answered: u64,
    /// The longest time between two answers.
    pub(super) stall: Duration,
}

impl Session {
    /// Closes it and waits for the last echo.
    pub(super) fn finish(mut self) -> Result<Beats> {
        self.stop.store(true, Relaxed);
        let sent = self.writer.join().unwrap_or(0);
        // It ends by itself once everything has been echoed.
        let ended = self.ssh.wait(READY);
        drop(self.ssh);
        let _ = self.reader.join();
        let echoes = self.echoes.lock().unwrap_or_else(PoisonError::into_inner);
        let complaint = match ended {
            Err(error) => Some(format!("the session hangs: {error}")),
            Ok(status) if !status.success() => Some(format!("ssh ended with {status}")),
            Ok(_) => echoes.wrong.clone(),
        };
        Ok(Beats {
            complaint: complaint.or_else(|| {
                (echoes.next != sent || sent == 0)
                    .then(|| format!("{} of {sent} lines echoed", echoes.next))
            }),
            sent,
            answered: echoes.next,
            stall: echoes.longest,
        })
    }
}

/// A running ping.
pub(super) struct Ping {
    ping: Running,
    log: PathBuf,
}

impl Ping {
    /// Ends it. It has failed when nothing has been answered for a second.
    pub(super) fn finish(mut self) -> Result<Beats> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        self.ping.signal(Signal::INT);
        self.ping.wait(READY)?;
        let text = fs::read_to_string(&self.log)?;
        let arrivals: Vec<Duration> = text
            .lines()
            .filter(|line| line.contains(" bytes from "))
            .filter_map(|line| line.strip_prefix('[')?.split_once(']')?.0.parse().ok())
            .map(Duration::from_secs_f64)
            .collect();
        let sent = text
            .lines()
            .find_map(|line| line.split_once(" packets transmitted")?.0.parse().ok())
            .unwrap_or(0);
        let silent = arrivals.last().map(|last| now.saturating_sub(*last));
        Ok(Beats {
            complaint: match silent {
                None => Some(format!("no answer to {sent} pings")),
                Some(silent) if silent > Duration::from_secs(1) => {
                    Some(format!("no answer in the last {}", ms(silent)))
                }
                Some(_) => None,
            },
            sent,
            answered: arrivals.len() as u64,
            stall: arrivals
                .windows(2)
                .map(|two| two[1].saturating_sub(two[0]))
                .max()
                .unwrap_or_default(),
        })
    }
}

impl Beats {
    pub(super) fn note(&self, promises: &mut Promises, what: &str) {
        promises.note(
            what,
            self.complaint.is_none(),
            self.complaint.clone().unwrap_or_else(|| {
                format!(
                    "{} of {} answered, longest stall {}",
                    self.answered,
                    self.sent,
                    ms(self.stall)
                )
            }),
        );
    }
}

/// A WireGuard between client and host, which itself goes through the bond.
pub(super) struct WireGuard {
    _ends: Vec<Running>,
}

impl WireGuard {
    /// The host's address inside.
    pub(super) const HOST: &str = INNER[1][0];

    pub(super) fn start(lab: &Lab, servers: &Servers) -> Result<WireGuard> {
        let directory = &servers.directory;
        let mut keys = Vec::new();
        for side in ["client", "host"] {
            let secret = crate::netns::command("wg", &["genkey"])?;
            let path = directory.join(format!("wg-{side}"));
            fs::write(&path, secret)?;
            let output = Command::new("wg")
                .arg("pubkey")
                .stdin(File::open(&path)?)
                .output()?;
            keys.push(String::from_utf8(output.stdout)?.trim().to_owned());
        }
        let mut ends = Vec::new();
        for (index, (side, namespace)) in [("client", lab.client()), ("host", lab.host())]
            .into_iter()
            .enumerate()
        {
            let device = format!("wg-{side}");
            let log = File::create(directory.join(format!("{device}.log")))?;
            let mut command = private(namespace, directory, &["wireguard-go", "-f", &device]);
            command.stdout(log.try_clone()?).stderr(log);
            ends.push(Running::start(&mut command)?);
            let [v4, v6] = INNER[1 - index];
            let allowed = format!("{v4}/32,{v6}/128");
            let key = format!("/mnt/wg-{side}");
            let port = WIREGUARD_PORT.to_string();
            let endpoint = format!("{HOST_V4}:{WIREGUARD_PORT}");
            let mut words = vec!["wg", "set", &device, "listen-port", &port];
            words.extend(["private-key", &key, "peer", &keys[1 - index]]);
            words.extend(["allowed-ips", &allowed]);
            if side == "client" {
                words.extend(["endpoint", &endpoint]);
            }
            let until = Instant::now() + READY;
            loop {
                let output = private(namespace, directory, &words).output()?;
                if output.status.success() {
                    break;
                }
                if Instant::now() >= until {
                    bail!("wg set: {}", String::from_utf8_lossy(&output.stderr).trim());
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            let [v4, v6] = INNER[index];
            namespace.ip(&format!(
                "addr add {v4}/24 dev {device}\naddr add {v6}/64 dev {device} nodad\n\
                 link set {device} mtu 1300 up"
            ))?;
        }
        Ok(WireGuard { _ends: ends })
    }
}

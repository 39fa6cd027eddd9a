//! The real program on a real kernel: it starts, is killed, starts again, stops,
//! and leaves the machine as it was; and where it cannot start it says why in one
//! sentence and with the right exit code.
//!
//! Each test runs in a network namespace that only its own thread and the
//! programs it starts are in. Root is needed for that: `cargo test -- --ignored`.
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::UdpSocket;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A machine of its own with a way out, and a server's files.
struct Machine {
    directory: tempfile::TempDir,
}

impl Machine {
    /// Runs `test` in a thread that has a network namespace of its own.
    fn with(test: impl FnOnce(&Machine) + Send + 'static) {
        let thread = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("a namespace can be made by root");
            tool(&["ip", "link", "set", "lo", "up"]);
            tool(&[
                "ip", "link", "add", "wan0", "type", "veth", "peer", "name", "lan0",
            ]);
            tool(&["ip", "link", "set", "wan0", "up"]);
            tool(&["ip", "link", "set", "lan0", "up"]);
            tool(&["ip", "address", "add", "198.51.100.2/24", "dev", "wan0"]);
            tool(&["ip", "route", "add", "default", "via", "198.51.100.1"]);
            test(&Machine {
                directory: tempfile::tempdir().expect("a temporary directory"),
            });
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The program with this machine's files.
    fn program(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_marline-server"));
        command.arg("--config").arg(self.path("server.toml"));
        command.arg("--state-dir").arg(self.path("run"));
        command
    }

    fn server(&self, arguments: &[&str]) -> Output {
        self.program()
            .args(arguments)
            .output()
            .expect("the program starts")
    }

    /// What the program prints when it succeeds.
    fn says(&self, arguments: &[&str]) -> String {
        let output = self.server(arguments);
        assert!(
            output.status.success(),
            "{arguments:?}: {}{}",
            complaint(&output),
            String::from_utf8_lossy(&output.stdout)
        );
        String::from_utf8(output.stdout).expect("text")
    }

    fn init(&self) {
        let peers = self.path("peers.toml");
        self.says(&["init", "--peers", peers.to_str().expect("a plain path")]);
    }

    /// Changes one setting, or adds it.
    fn set(&self, name: &str, value: &str) {
        let file = self.path("server.toml");
        let text = fs::read_to_string(&file).expect("init wrote it");
        let others = text.lines().filter(|line| !line.starts_with(name));
        let lines: Vec<String> = std::iter::once(format!("{name} = {value}"))
            .chain(others.map(str::to_owned))
            .collect();
        fs::write(&file, lines.join("\n")).expect("written");
    }

    /// Starts the daemon and returns when it says that it runs.
    fn start(&self) -> Daemon {
        let mut child = self
            .program()
            .arg("run")
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut log = BufReader::new(child.stderr.take().expect("it was piped"));
        let mut line = String::new();
        while !line.contains("the server is running") {
            line.clear();
            if log.read_line(&mut line).expect("the log is text") == 0 {
                panic!("the server ended early: {:?}", child.wait());
            }
        }
        Daemon { child, log }
    }

    /// Everything of this machine that a server may touch.
    fn picture(&self) -> BTreeMap<String, String> {
        let mut picture = BTreeMap::new();
        for command in [
            &["nft", "list", "ruleset"][..],
            &["ip", "rule", "show"],
            &["ip", "route", "show", "table", "all"],
            &["ip", "-6", "route", "show", "table", "all"],
            &["ip", "-brief", "address", "show"],
        ] {
            picture.insert(command.join(" "), tool(command));
        }
        for directory in ["/proc/sys/net/ipv4/conf", "/proc/sys/net/ipv6/conf"] {
            for interface in fs::read_dir(directory).expect("sysctls").flatten() {
                for switch in fs::read_dir(interface.path()).expect("sysctls").flatten() {
                    // Some, such as stable_secret, cannot be read before they are set.
                    if let Ok(value) = fs::read_to_string(switch.path()) {
                        picture.insert(switch.path().display().to_string(), value);
                    }
                }
            }
        }
        picture
    }
}

/// A daemon that was seen running.
struct Daemon {
    child: Child,
    log: BufReader<ChildStderr>,
}

impl Daemon {
    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"));
        kill(pid, signal).expect("the daemon is there");
    }

    /// How many threads of it move packets.
    fn workers(&self) -> usize {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("it runs");
        let names = tasks.map(|task| fs::read_to_string(task.expect("listed").path().join("comm")));
        names
            .filter(|name| name.as_ref().is_ok_and(|name| name.starts_with("data-")))
            .count()
    }

    /// Asks it to stop and returns its exit code.
    fn stop(mut self) -> Option<i32> {
        self.signal(Signal::SIGTERM);
        let mut rest = String::new();
        self.log.read_to_string(&mut rest).expect("the log is text");
        self.child.wait().expect("it ends").code()
    }

    fn kill(mut self) {
        self.signal(Signal::SIGKILL);
        self.child.wait().expect("it ends");
    }
}

/// A promise that is broken leaves no daemon behind: it would keep its namespace, and the pipes of whoever runs the tests.
impl Drop for Daemon {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn tool(command: &[&str]) -> String {
    let output = Command::new(command[0])
        .args(&command[1..])
        .output()
        .expect("the tool exists");
    assert!(
        output.status.success(),
        "{command:?}: {}",
        complaint(&output)
    );
    String::from_utf8(output.stdout).expect("text")
}

fn complaint(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The program must have ended with this code and one sentence that holds all the parts.
fn assert_refused(output: &Output, code: i32, parts: &[&str]) {
    let complaint = complaint(output);
    assert_eq!(output.status.code(), Some(code), "{complaint}");
    let sentences: Vec<&str> = complaint
        .lines()
        .filter(|line| line.starts_with("marline-server: "))
        .collect();
    assert_eq!(sentences.len(), 1, "{complaint}");
    for part in parts {
        assert!(
            sentences[0].contains(part),
            "\"{part}\" is missing in: {complaint}"
        );
    }
}

#[test]
#[ignore = "needs root"]
fn a_server_that_stops_leaves_the_machine_as_it_was() {
    Machine::with(|machine| {
        machine.init();
        let before = machine.picture();
        let daemon = machine.start();
        let addresses = tool(&["ip", "-brief", "address", "show", "dev", "marline0"]);
        assert!(addresses.contains("10.77.0.1/16"), "{addresses}");
        assert!(addresses.contains("::1/64"), "{addresses}");
        assert!(tool(&["nft", "list", "ruleset"]).contains("masquerade"));
        assert_eq!(daemon.stop(), Some(0));
        assert_eq!(machine.picture(), before);
    });
}

#[test]
#[ignore = "needs root"]
fn a_server_that_was_killed_starts_again_and_still_puts_everything_back() {
    Machine::with(|machine| {
        machine.init();
        let before = machine.picture();
        machine.start().kill();
        let rules = tool(&["nft", "list", "ruleset"]);
        assert!(
            rules.contains("masquerade"),
            "translation goes on meanwhile: {rules}"
        );
        let daemon = machine.start();
        assert_eq!(tool(&["nft", "list", "ruleset"]), rules);
        assert_eq!(daemon.stop(), Some(0));
        assert_eq!(machine.picture(), before);
    });
}

#[test]
#[ignore = "needs root"]
fn restore_puts_back_what_a_killed_server_left_but_not_under_a_running_one() {
    Machine::with(|machine| {
        machine.init();
        let before = machine.picture();
        let daemon = machine.start();
        assert_refused(&machine.server(&["restore"]), 6, &["is running", "stop it"]);
        daemon.kill();
        assert!(
            machine
                .says(&["restore"])
                .contains("removed the nftables table")
        );
        assert_eq!(machine.picture(), before);
        assert!(machine.says(&["restore"]).contains("nothing to put back"));
    });
}

#[test]
#[ignore = "needs root"]
fn peers_come_and_go_while_the_server_runs_and_keep_their_addresses_over_a_restart() {
    Machine::with(|machine| {
        machine.init();
        machine.says(&["peer", "add", "before"]);
        let daemon = machine.start();
        let added: serde_json::Value =
            serde_json::from_str(&machine.says(&["peer", "add", "during", "--json"]))
                .expect("JSON");
        assert_eq!(added["v4"], "10.77.0.3");
        assert!(
            added["code"]
                .as_str()
                .expect("a code")
                .starts_with("marline1")
        );
        let admitted = |machine: &Machine| {
            let status: serde_json::Value =
                serde_json::from_str(&machine.says(&["status", "--json"])).expect("JSON");
            status["peers_admitted"].as_u64().expect("a number")
        };
        assert_eq!(admitted(machine), 2);
        machine.says(&["peer", "remove", "before"]);
        assert_eq!(admitted(machine), 1);
        let of_one: serde_json::Value =
            serde_json::from_str(&machine.says(&["status", "during", "--json"])).expect("JSON");
        let bonds = of_one["snapshot"]["bonds"].as_array().expect("a list");
        assert_eq!(bonds.len(), 1, "{of_one}");
        assert_eq!(bonds[0]["name"], "during");
        assert!(machine.says(&["status", "during"]).contains("during down"));
        assert_refused(&machine.server(&["status", "before"]), 2, &["before"]);
        daemon.kill();

        let daemon = machine.start();
        let list = machine.says(&["peer", "list"]);
        assert!(
            list.contains("during") && list.contains("10.77.0.3"),
            "{list}"
        );
        assert_eq!(daemon.stop(), Some(0));
        let qr = machine.says(&["peer", "renew", "during", "--qr"]);
        assert!(
            qr.contains("marline join marline1") && qr.contains('█'),
            "{qr}"
        );
    });
}

#[test]
#[ignore = "needs root"]
fn a_port_in_use_and_a_second_server_are_conflicts() {
    Machine::with(|machine| {
        machine.init();
        let occupied = UdpSocket::bind("0.0.0.0:51900").expect("the port is free");
        let before = machine.picture();
        assert_refused(
            &machine.server(&["run"]),
            6,
            &["0.0.0.0:51900", "in use", "ss -ulpn"],
        );
        assert_eq!(machine.picture(), before);
        drop(occupied);

        let daemon = machine.start();
        assert_refused(&machine.server(&["run"]), 6, &["running"]);
        assert_eq!(daemon.stop(), Some(0));
        assert_refused(&machine.server(&["status"]), 7, &[]);
    });
}

#[test]
#[ignore = "needs root"]
fn a_server_of_several_workers_is_one_server_and_lets_no_second_one_in() {
    Machine::with(|machine| {
        machine.init();
        let before = machine.picture();
        for workers in [1, 3] {
            machine.set("workers", &workers.to_string());
            machine.start().kill();
            let daemon = machine.start();
            let status: serde_json::Value =
                serde_json::from_str(&machine.says(&["status", "--json"])).expect("JSON");
            assert_eq!(status["workers"], workers);
            assert_eq!(daemon.workers(), workers);
            let other = machine.path("other.sock");
            let second = ["--control", other.to_str().expect("a plain path"), "run"];
            assert_refused(&machine.server(&second), 6, &["51900", "in use"]);
            machine.set("listen", "[\"127.0.0.1:51901\"]");
            assert_refused(&machine.server(&second), 6, &["marline0"]);
            machine.set("listen", "[\"0.0.0.0:51900\", \"[::]:51900\"]");
            assert_eq!(daemon.stop(), Some(0));
            assert_eq!(machine.picture(), before);
        }
    });
}

#[test]
#[ignore = "needs root"]
fn a_pool_that_the_machine_uses_already_is_a_conflict() {
    Machine::with(|machine| {
        machine.init();
        tool(&["ip", "route", "add", "10.77.8.0/24", "dev", "lan0"]);
        let refused = machine.server(&["run"]);
        assert_refused(
            &refused,
            6,
            &["10.77.0.0/16", "10.77.8.0/24", "lan0", "pool_v4"],
        );
    });
}

#[test]
#[ignore = "needs root"]
fn what_the_system_lacks_is_named() {
    Machine::with(|machine| {
        machine.init();
        let before = machine.picture();
        let empty = machine.path("empty");
        fs::create_dir(&empty).expect("a directory");
        let without_nft = machine
            .program()
            .arg("run")
            .env("PATH", &empty)
            .output()
            .expect("starts");
        assert_refused(&without_nft, 4, &["nft", "apt install nftables"]);

        let hide = "mount -t tmpfs none /dev/net && exec \"$@\"";
        let program = machine.program();
        let without_tun = Command::new("unshare")
            .args(["--mount", "sh", "-c", hide, "sh"])
            .arg(program.get_program())
            .args(program.get_args())
            .arg("run")
            .output()
            .expect("unshare exists");
        assert_refused(&without_tun, 4, &["/dev/net/tun"]);
        assert_eq!(machine.picture(), before);
    });
}

#[test]
#[ignore = "needs root"]
fn without_privileges_the_server_says_what_it_needs() {
    Machine::with(|machine| {
        machine.init();
        // Everybody may read everything, so that only the privilege is missing.
        let everybody = ["chmod", "-R", "a+rwX"];
        let directory = machine.directory.path();
        let nobody = 65534;
        // The build's directory may be closed to others.
        let program = machine.path("marline-server");
        fs::copy(Path::new(env!("CARGO_BIN_EXE_marline-server")), &program).expect("a copy");
        tool(&[
            everybody[0],
            everybody[1],
            everybody[2],
            directory.to_str().expect("a plain path"),
        ]);
        let refused = Command::new(&program)
            .arg("--config")
            .arg(machine.path("server.toml"))
            .arg("--state-dir")
            .arg(machine.path("run"))
            .arg("run")
            .uid(nobody)
            .gid(nobody)
            .output()
            .expect("the program starts");
        assert_refused(&refused, 3, &["root"]);
    });
}

//! The parts that change or watch a machine, on a real kernel: in a network
//! namespace that each test makes and removes.
//!
//! A namespace belongs to a process here, so that it can be killed: the test
//! starts this test program once more inside, as the ignored test [`inside`],
//! which reads what to do from its environment and talks over its standard
//! input and output in lines that begin with `@`.
//!
//! Only root may make namespaces; for others the tests say that and pass.

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use marline_io::netlink::Netlink;
use marline_io::tun::{Offload, Tun, TunOptions};

use crate::dns;
use crate::journal::Journal;
use crate::routing::{RoutePlan, RouteWish, apply, loosen};
use crate::settings::Routes;
use crate::uplinks::select::Wish;
use crate::uplinks::watch::Watcher;
use crate::uplinks::{UplinkChange, Uplinks};

const TABLE: u32 = 28001;

/// A namespace with two uplinks: `wan0` (both IP versions) and `wan1` (IPv4), each a veth whose
/// other end is in the namespace too.
struct Namespace {
    name: String,
    dir: tempfile::TempDir,
}

impl Namespace {
    /// `None`, with a word about it, for those who are not root.
    fn new() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let root = std::fs::read_to_string("/proc/self/status")
            .is_ok_and(|status| status.lines().any(|line| line.starts_with("Uid:\t0\t")));
        if !root {
            println!("skipped: only root may make network namespaces");
            return None;
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("mlclient-{}-{number}", std::process::id());
        run("ip", &["netns", "add", &name]);
        let namespace = Namespace {
            name,
            dir: tempfile::tempdir().expect("a directory"),
        };
        namespace.ip("link set lo up");
        namespace.add_wan0();
        namespace.ip("link add wan1 type veth peer name isp1");
        namespace.ip("link set isp1 up");
        namespace.ip("link set wan1 up");
        namespace.ip("address add 203.0.113.2/24 dev wan1");
        namespace.ip("route add default via 203.0.113.1 dev wan1 metric 200");
        Some(namespace)
    }

    fn add_wan0(&self) {
        self.ip("link add wan0 type veth peer name isp0");
        self.ip("link set isp0 up");
        self.ip("link set wan0 up");
        self.ip("address add 192.0.2.2/24 dev wan0");
        self.ip("-6 address add 2001:db8:7::2/64 dev wan0 nodad");
        self.ip("route add default via 192.0.2.1 dev wan0 metric 100");
        self.ip("-6 route add default via 2001:db8:7::1 dev wan0 metric 100");
    }

    /// Runs `ip` in the namespace.
    fn ip(&self, arguments: &str) -> String {
        let words: Vec<&str> = ["-n", &self.name]
            .into_iter()
            .chain(arguments.split(' '))
            .collect();
        run("ip", &words)
    }

    /// Runs a shell line in the namespace.
    fn sh(&self, line: &str) -> String {
        run("ip", &["netns", "exec", &self.name, "sh", "-c", line])
    }

    /// Everything that the client may change, as the system's own tools show it.
    fn picture(&self) -> String {
        [
            self.ip("-4 rule"),
            self.ip("-6 rule"),
            self.ip("-4 route show table all"),
            self.ip("-6 route show table all"),
            self.ip("address show dev wan0"),
            self.sh("cat /proc/sys/net/ipv4/conf/*/rp_filter"),
            self.sh("cat /proc/sys/net/ipv4/conf/wan*/src_valid_mark"),
        ]
        .join("\n---\n")
    }

    fn start(&self, task: &str) -> Inside {
        let mut child = Command::new("ip")
            .args(["netns", "exec", &self.name])
            .arg(std::env::current_exe().expect("this program"))
            .args([
                "--exact",
                "namespace_tests::inside",
                "--ignored",
                "--nocapture",
            ])
            .env("MARLINE_TEST_TASK", task)
            .env("MARLINE_TEST_DIR", self.dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        let stdin = child.stdin.take().expect("piped");
        let stdout = child.stdout.take().expect("piped");
        Inside {
            child,
            stdin,
            lines: BufReader::new(stdout).lines(),
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
    }
}

/// A process within the namespace.
struct Inside {
    child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Inside {
    /// The next thing it says.
    fn hears(&mut self) -> String {
        loop {
            let line = self.lines.next().expect("it still runs").expect("text");
            if let Some((_, said)) = line.split_once("@ ") {
                return said.to_owned();
            }
        }
    }

    /// Asks it to finish, and sees that it did.
    fn finish(mut self) {
        writeln!(self.stdin, "finish").expect("it still runs");
        for line in self.lines.by_ref() {
            drop(line);
        }
        assert!(self.child.wait().expect("waited").success());
    }

    /// SIGKILL.
    fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("waited");
    }
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .expect("started");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {told}");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
#[ignore = "the other tests start it within a namespace"]
fn inside() {
    let task = std::env::var("MARLINE_TEST_TASK").expect("started by another test");
    let dir = std::env::var("MARLINE_TEST_DIR").expect("started by another test");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let work = async {
        match task.as_str() {
            "take" => take(Path::new(&dir), false).await,
            "take v4" => take(Path::new(&dir), true).await,
            "restore" => restore(Path::new(&dir)).await,
            "watch" => watch().await,
            other => panic!("what is {other}?"),
        }
    };
    // Whoever listens for a line that never comes is told so by our end.
    let limited = async { tokio::time::timeout(std::time::Duration::from_secs(30), work).await };
    runtime
        .expect("a runtime")
        .block_on(limited)
        .expect("done in time");
}

fn say(text: &str) {
    println!("@ {text}");
}

fn wait_for_a_line() {
    let mut line = String::new();
    std::io::stdin()
        .read_line(&mut line)
        .expect("standard input");
}

/// Takes the routes as the daemon does, says so, waits, and puts everything back.
async fn take(dir: &Path, only_v4: bool) {
    let netlink = Netlink::connect().expect("netlink");
    let mut journal = Journal::open(dir).expect("a journal");
    let name = "marline0".to_owned();
    let options = TunOptions {
        name: name.clone(),
        mtu: 1400,
        txqueuelen: 1000,
        offload: Offload::All,
    };
    let tun = Tun::open(&options).await.expect("a TUN");
    let mut addresses: Vec<ipnet::IpNet> = vec!["10.77.0.2/32".parse().expect("a network")];
    if !only_v4 {
        addresses.push("fd77::2/128".parse().expect("a network"));
    }
    for net in &addresses {
        netlink
            .add_address(tun.index(), net.addr(), net.prefix_len())
            .await
            .expect("added");
    }
    let wish = RouteWish {
        interface: name,
        index: tun.index(),
        mark: TABLE,
        table: TABLE,
        routes: Routes::Default,
        addresses,
        servers: vec![],
        uplinks: vec!["wan0".to_owned(), "wan1".to_owned()],
    };
    let present = apply::look(&netlink).await.expect("a look");
    let plan = RoutePlan::new(&wish, &present).expect("no conflict");
    for step in &plan.steps {
        journal.apply_step(&netlink, step).await.expect("applied");
    }
    let resolvers = [[10, 77, 0, 1].into()];
    let path = dir.join("resolv.conf");
    let change = dns::plan(&resolvers, "marline0", &path)
        .expect("a plan")
        .expect("a change");
    journal.apply_dns(&change).expect("applied");
    let present = apply::look(&netlink).await.expect("a look");
    assert_eq!(apply::missing(journal.steps(), &present), []);
    assert_eq!(loosen("wan0", &present), None, "it is loose already");
    say("taken");
    wait_for_a_line();
    // What somebody removed meanwhile is found missing and made again, without a second entry.
    let present = apply::look(&netlink).await.expect("a look");
    for step in apply::missing(journal.steps(), &present) {
        say(&format!("again: {step}"));
        journal.apply_step(&netlink, &step).await.expect("applied");
    }
    assert_eq!(journal.steps().count(), plan.steps.len());
    let undone = journal.undo_all(&netlink).await.expect("undone");
    assert_eq!(undone, plan.steps.len() + 1);
}

async fn restore(dir: &Path) {
    let netlink = Netlink::connect().expect("netlink");
    let mut journal = Journal::open(dir).expect("a journal");
    say(&format!("left: {}", !journal.is_empty()));
    journal.undo_all(&netlink).await.expect("undone");
    assert!(!Journal::is_left_in(dir));
    assert_eq!(
        journal.undo_all(&netlink).await,
        Ok(0),
        "once more is harmless"
    );
}

/// Follows the uplinks and says what changes, until its standard input ends.
async fn watch() {
    let mut watcher = Watcher::start(Netlink::connect().expect("netlink")).expect("a watch");
    let wish = Wish {
        interface: "marline0".to_owned(),
        endpoints: ["[2001:db8::1]:51900", "198.51.100.1:51900"]
            .map(|at| at.parse().expect("an address"))
            .to_vec(),
        ..Wish::default()
    };
    let mut uplinks = Uplinks::default();
    let (end_in, mut end) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        wait_for_a_line();
        end_in.send(())
    });
    loop {
        for change in uplinks.update(&watcher.facts().await.expect("facts"), &wish) {
            say(&match change {
                UplinkChange::Added(u) => {
                    format!("added {} {} {}", u.name, u.way.source, u.way.remote)
                }
                UplinkChange::Removed { name, why, .. } => format!("removed {name}: {why}"),
                UplinkChange::Paused { name, why, .. } => format!("paused {name}: it {why}"),
                UplinkChange::Resumed { name, .. } => format!("resumed {name}"),
            });
        }
        tokio::select! {
            changed = watcher.changed() => changed.expect("the watch goes on"),
            _ = &mut end => return,
        }
    }
}

fn write_resolv_conf(namespace: &Namespace) -> std::path::PathBuf {
    let path = namespace.dir.path().join("resolv.conf");
    std::fs::write(&path, "nameserver 192.0.2.53\n").expect("written");
    path
}

#[test]
fn what_was_taken_is_put_back_exactly() {
    for strict in ["0", "1"] {
        let Some(namespace) = Namespace::new() else {
            return;
        };
        namespace.sh(&format!(
            "echo {strict} > /proc/sys/net/ipv4/conf/wan0/rp_filter"
        ));
        let resolv_conf = write_resolv_conf(&namespace);
        let before = namespace.picture();
        let mut inside = namespace.start("take");
        assert_eq!(inside.hears(), "taken");

        let during = namespace.picture();
        assert_ne!(during, before);
        for (kind, address, device) in [
            ("", "198.18.0.1", "marline0"),
            ("", "192.0.2.77", "wan0"),
            ("-6 ", "2001:db8:ff::1", "marline0"),
        ] {
            let got = namespace.ip(&format!("{kind}route get {address}"));
            assert!(got.contains(&format!("dev {device}")), "{address}: {got}");
        }
        let marked = namespace.ip("route get 198.18.0.1 mark 28001");
        assert!(
            marked.contains("dev wan0"),
            "our own datagrams go round it: {marked}"
        );
        let bound = namespace.ip("route get 198.18.0.1 mark 28001 oif wan1");
        assert!(bound.contains("via 203.0.113.1 dev wan1"), "{bound}");
        let filter = namespace.sh("cat /proc/sys/net/ipv4/conf/wan0/rp_filter");
        assert_eq!(filter.trim(), if strict == "1" { "2" } else { "0" });
        let text = std::fs::read_to_string(&resolv_conf).expect("there");
        assert!(text.contains("nameserver 10.77.0.1"), "{text}");

        inside.finish();
        assert_eq!(namespace.picture(), before);
        let text = std::fs::read_to_string(&resolv_conf).expect("there");
        assert_eq!(text, "nameserver 192.0.2.53\n");
    }
}

#[test]
fn after_a_kill_everything_is_put_back_exactly() {
    let Some(namespace) = Namespace::new() else {
        return;
    };
    namespace.sh("echo 1 > /proc/sys/net/ipv4/conf/wan0/rp_filter");
    let resolv_conf = write_resolv_conf(&namespace);
    let before = namespace.picture();
    let mut inside = namespace.start("take v4");
    assert_eq!(inside.hears(), "taken");
    let refused = Command::new("ip")
        .args([
            "-n",
            &namespace.name,
            "-6",
            "route",
            "get",
            "2001:db8:ff::1",
        ])
        .output()
        .expect("started");
    assert!(!refused.status.success(), "IPv6 is refused, not leaked");
    inside.kill();
    assert_ne!(namespace.picture(), before, "the rules outlive the process");

    let mut inside = namespace.start("restore");
    assert_eq!(inside.hears(), "left: true");
    inside.finish();
    assert_eq!(namespace.picture(), before);
    let text = std::fs::read_to_string(&resolv_conf).expect("there");
    assert_eq!(text, "nameserver 192.0.2.53\n");
    let mut inside = namespace.start("restore");
    assert_eq!(inside.hears(), "left: false");
    inside.finish();
}

#[test]
fn a_rule_that_somebody_removes_is_made_again() {
    let Some(namespace) = Namespace::new() else {
        return;
    };
    write_resolv_conf(&namespace);
    let before = namespace.picture();
    let mut inside = namespace.start("take");
    assert_eq!(inside.hears(), "taken");
    namespace.ip("rule del priority 31901");
    namespace.ip("-6 route del default table 28001");
    writeln!(inside.stdin, "look").expect("it still runs");
    assert_eq!(
        inside.hears(),
        "again: ip -6 route add default dev marline0 table 28001"
    );
    let rule = "again: ip -4 rule add priority 31901 not fwmark 0x6d61 lookup 28001";
    assert_eq!(inside.hears(), rule);
    inside.finish();
    assert_eq!(namespace.picture(), before);
}

#[test]
fn uplinks_are_followed_while_they_come_and_go() {
    let Some(namespace) = Namespace::new() else {
        return;
    };
    let mut inside = namespace.start("watch");
    assert_eq!(
        inside.hears(),
        "added wan0 2001:db8:7::2 [2001:db8::1]:51900"
    );
    assert_eq!(inside.hears(), "added wan1 203.0.113.2 198.51.100.1:51900");

    namespace.ip("link set isp1 down");
    assert_eq!(inside.hears(), "paused wan1: it has no carrier");
    namespace.ip("link set isp1 up");
    assert_eq!(inside.hears(), "resumed wan1");

    namespace.ip("route del default dev wan1");
    assert_eq!(inside.hears(), "paused wan1: it has no route to the server");
    namespace.ip("route add 198.51.100.0/24 via 203.0.113.1 dev wan1");
    assert_eq!(inside.hears(), "resumed wan1");

    namespace.ip("address replace 203.0.113.3/24 dev wan1");
    namespace.ip("address del 203.0.113.2/24 dev wan1");
    assert_eq!(inside.hears(), "removed wan1: its address is gone");

    namespace.ip("link del wan0");
    let gone = inside.hears();
    let gone = if gone.starts_with("added wan1 203.0.113.3") {
        inside.hears()
    } else {
        gone
    };
    assert!(gone.starts_with("removed wan0: "), "{gone}");
    namespace.add_wan0();
    loop {
        // The addresses come one by one: IPv4 may be seen, used, and left again for IPv6.
        let said = inside.hears();
        if said == "added wan0 2001:db8:7::2 [2001:db8::1]:51900"
            || said.starts_with("added wan0 192.0.2.2")
        {
            break;
        }
    }
    inside.finish();
}

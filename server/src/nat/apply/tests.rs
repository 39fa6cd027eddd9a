//! Promises about a real kernel, each in a network namespace that only its own
//! thread is in, so that nothing of the machine is touched and nothing is left.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use ipnet::{Ipv4Net, Ipv6Net};
use nix::sched::{CloneFlags, unshare};

use super::*;
use crate::nat::{Wanted, plan};

/// Longer than any retransmission that TCP makes in a test.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs `test` in a thread with a network namespace of its own, which has two interfaces.
fn in_own_network(test: impl FnOnce(&Path) + Send + 'static) {
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a namespace can be made by root");
        run(&["ip", "link", "set", "lo", "up"]);
        run(&[
            "ip", "link", "add", "wan0", "type", "veth", "peer", "name", "lan0",
        ]);
        run(&["ip", "link", "set", "wan0", "up"]);
        run(&["ip", "link", "set", "lan0", "up"]);
        run(&["ip", "address", "add", "192.0.2.2/24", "dev", "wan0"]);
        let directory = tempfile::tempdir().unwrap();
        test(&directory.path().join("state/undo.json"));
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn run(command: &[&str]) -> String {
    let output = Command::new(command[0])
        .args(&command[1..])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

fn wanted() -> Wanted {
    Wanted {
        interface: "marline0".to_owned(),
        v4: Some("10.77.0.0/16".parse::<Ipv4Net>().unwrap()),
        v6: Some("fd00:77::/64".parse::<Ipv6Net>().unwrap()),
        nat: true,
    }
}

/// The plan for the machine as it is now.
fn planned(wanted: &Wanted) -> Plan {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    plan(wanted, &runtime.block_on(facts()).unwrap()).unwrap()
}

/// Everything in the namespace that a server might change.
fn machine() -> (String, BTreeMap<String, String>, String) {
    let mut sysctls = BTreeMap::new();
    for directory in ["net/ipv4/conf", "net/ipv6/conf"] {
        for interface in fs::read_dir(sysctl_path(directory)).unwrap() {
            for switch in fs::read_dir(interface.unwrap().path()).unwrap() {
                let path = switch.unwrap().path();
                // Some, such as stable_secret, cannot be read before they are set.
                if let Ok(value) = fs::read_to_string(&path) {
                    sysctls.insert(path.display().to_string(), value);
                }
            }
        }
    }
    let routes = run(&["ip", "route", "show", "table", "all"]);
    (run(&["nft", "list", "ruleset"]), sysctls, routes)
}

fn sysctl(key: &str) -> String {
    fs::read_to_string(sysctl_path(key))
        .unwrap()
        .trim()
        .to_owned()
}

fn set_sysctl(key: &str, value: &str) {
    fs::write(sysctl_path(key), value).unwrap();
}

#[test]
#[ignore = "needs root"]
fn applying_forwards_and_undoing_leaves_the_machine_as_it_was() {
    in_own_network(|journal| {
        set_sysctl("net/ipv4/conf/all/accept_redirects", "0");
        set_sysctl("net/ipv4/conf/lan0/forwarding", "1");
        set_sysctl("net/ipv6/conf/wan0/accept_ra", "1");
        let before = machine();

        apply(&planned(&wanted()), journal).unwrap();
        assert_eq!(sysctl("net/ipv4/ip_forward"), "1");
        assert_eq!(sysctl("net/ipv6/conf/all/forwarding"), "1");
        assert_eq!(sysctl("net/ipv6/conf/wan0/accept_ra"), "2");
        let rules = run(&["nft", "list", "ruleset"]);
        for part in [
            "table inet marline-server-marline0",
            "ip saddr 10.77.0.0/16 oifname != \"marline0\" masquerade",
            "ip6 saddr fd00:77::/64 oifname != \"marline0\" masquerade",
            "ip daddr 10.77.0.0/16 oifname != \"marline0\" drop",
            "oifname \"marline0\" ct state established,related accept",
            "iifname \"marline0\" tcp flags",
            "oifname \"marline0\" tcp flags",
            "tcp option maxseg size set rt mtu",
        ] {
            assert!(rules.contains(part), "{part} is missing in:\n{rules}");
        }

        let done = undo(journal).unwrap();
        assert!(
            done.iter()
                .any(|sentence| sentence.contains("marline-server-marline0"))
        );
        assert_eq!(machine(), before);
        assert!(!journal.exists());
        assert_eq!(
            undo(journal).unwrap(),
            [""; 0],
            "a second time there is nothing to do"
        );
    });
}

#[test]
#[ignore = "needs root"]
fn a_daemon_that_was_killed_twice_still_has_everything_put_back() {
    in_own_network(|journal| {
        let before = machine();
        apply(&planned(&wanted()), journal).unwrap();
        let first = run(&["nft", "list", "ruleset"]);
        // What a new daemon does when it finds the work of one that was killed.
        apply(&planned(&wanted()), journal).unwrap();
        assert_eq!(
            run(&["nft", "list", "ruleset"]),
            first,
            "the table is there once"
        );
        let renamed = Wanted {
            interface: "vpn0".to_owned(),
            ..wanted()
        };
        apply(&planned(&renamed), journal).unwrap();
        let rules = run(&["nft", "list", "ruleset"]);
        assert!(
            rules.contains("vpn0") && !rules.contains("marline0"),
            "{rules}"
        );

        undo(journal).unwrap();
        assert_eq!(machine(), before);
    });
}

#[test]
#[ignore = "needs root"]
fn a_crash_between_the_journal_and_the_first_change_leaves_nothing_to_stumble_over() {
    in_own_network(|journal| {
        let before = machine();
        state_file::write(journal, &Journal::of(&planned(&wanted()), None)).unwrap();
        undo(journal).unwrap();
        assert_eq!(machine(), before);
    });
}

#[test]
#[ignore = "needs root"]
fn tables_of_others_and_values_set_by_others_meanwhile_stay() {
    in_own_network(|journal| {
        run(&["nft", "add", "table", "inet", "other"]);
        run(&["nft", "add", "table", "ip", "filter2"]);
        let chain = "{ type filter hook forward priority 0; policy drop; }";
        run(&["nft", "add", "chain", "ip", "filter2", "FORWARD", chain]);
        set_sysctl("net/ipv6/conf/wan0/accept_ra", "1");
        let plan = planned(&wanted());
        assert!(
            plan.warnings[0].contains("\"ip filter2 FORWARD\""),
            "{:?}",
            plan.warnings
        );
        apply(&plan, journal).unwrap();
        set_sysctl("net/ipv6/conf/wan0/accept_ra", "0");

        let done = undo(journal).unwrap();
        assert!(
            done.iter().any(|s| s.contains("wan0/accept_ra at 0")),
            "{done:?}"
        );
        assert_eq!(sysctl("net/ipv6/conf/wan0/accept_ra"), "0");
        let rules = run(&["nft", "list", "ruleset"]);
        assert!(
            rules.contains("table inet other") && !rules.contains("marline"),
            "{rules}"
        );
    });
}

#[test]
#[ignore = "needs root"]
fn a_pool_that_a_route_of_the_machine_covers_is_found() {
    in_own_network(|_journal| {
        run(&["ip", "route", "add", "10.77.5.0/24", "dev", "lan0"]);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let failure = plan(&wanted(), &runtime.block_on(facts()).unwrap()).unwrap_err();
        assert_eq!(failure.class(), Class::Conflict);
        assert!(failure.to_string().contains("\"lan0\""), "{failure}");
    });
}

/// A thread that is a host in a namespace of its own and does what it is sent.
struct Host {
    orders: Option<Sender<Box<dyn FnOnce() + Send>>>,
    thread: Option<std::thread::JoinHandle<()>>,
    /// The thread's id, by which `ip link set ... netns` finds its namespace.
    id: String,
}

impl Host {
    fn new() -> Self {
        let (orders, received): (_, Receiver<Box<dyn FnOnce() + Send>>) = channel();
        let (say_id, id) = channel();
        let thread = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("a namespace can be made by root");
            run(&["ip", "link", "set", "lo", "up"]);
            say_id.send(nix::unistd::gettid().to_string()).unwrap();
            received.iter().for_each(|order| order());
        });
        Host {
            orders: Some(orders),
            thread: Some(thread),
            id: id.recv().unwrap(),
        }
    }

    /// Runs `order` on the host and returns what it returns.
    fn ask<T: Send + 'static>(&self, order: impl FnOnce() -> T + Send + 'static) -> T {
        let (say, answer) = channel();
        let order = Box::new(move || drop(say.send(order())));
        self.orders
            .as_ref()
            .expect("the host lives")
            .send(order)
            .expect("the host lives");
        answer.recv().expect("the order did not panic")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the host has already failed the test through `ask`.
            let _ = thread.join();
        }
    }
}

/// ```text
/// client 10.77.0.2 ── marline0 10.77.0.1 [this namespace] wan0 192.0.2.2 ── 192.0.2.1 internet
/// ```
/// The tunnel's place is taken by a veth pair of the same name: the rules see no difference.
#[test]
#[ignore = "needs root"]
fn a_connection_through_the_nat_outlives_a_daemon_that_is_killed_and_started_again() {
    in_own_network(|journal| {
        let (client, internet) = (Host::new(), Host::new());
        run(&["ip", "link", "set", "lan0", "netns", &internet.id]);
        run(&[
            "ip", "link", "add", "marline0", "type", "veth", "peer", "name", "tun0",
        ]);
        run(&["ip", "link", "set", "tun0", "netns", &client.id]);
        run(&["ip", "route", "add", "default", "via", "192.0.2.1"]);
        let tunnel_comes = || {
            run(&["ip", "link", "set", "marline0", "up"]);
            run(&["ip", "address", "add", "10.77.0.1/16", "dev", "marline0"]);
        };
        tunnel_comes();
        client.ask(|| {
            run(&["ip", "link", "set", "tun0", "up"]);
            run(&["ip", "address", "add", "10.77.0.2/16", "dev", "tun0"]);
            run(&["ip", "route", "add", "default", "via", "10.77.0.1"]);
        });
        let listener = internet.ask(|| {
            run(&["ip", "link", "set", "lan0", "up"]);
            run(&["ip", "address", "add", "192.0.2.1/24", "dev", "lan0"]);
            TcpListener::bind("192.0.2.1:80").unwrap()
        });
        apply(&planned(&wanted()), journal).unwrap();

        let mut inside = client.ask(|| TcpStream::connect("192.0.2.1:80").unwrap());
        let (mut outside, seen_from) = listener.accept().unwrap();
        assert_eq!(
            seen_from.ip().to_string(),
            "192.0.2.2",
            "the client is hidden"
        );
        // A connection that was lost must fail the test, not hold it up.
        inside.set_read_timeout(Some(PATIENCE)).unwrap();
        outside.set_read_timeout(Some(PATIENCE)).unwrap();

        // Killed: the tunnel is gone with its addresses, table and sysctls stay.
        run(&["ip", "link", "set", "marline0", "down"]);
        run(&["ip", "link", "set", "marline0", "name", "gone0"]);
        run(&["ip", "address", "flush", "dev", "gone0"]);
        outside.write_all(b"still there?").unwrap();

        // Started again.
        run(&["ip", "link", "set", "gone0", "name", "marline0"]);
        tunnel_comes();
        apply(&planned(&wanted()), journal).unwrap();
        let mut heard = [0; 12];
        inside.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"still there?");
        inside.write_all(b"yes").unwrap();
        let mut answer = [0; 3];
        outside.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"yes");
        undo(journal).unwrap();
    });
}

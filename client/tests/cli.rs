//! The built `marline`, as a person or a script meets it: words and exit codes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{SystemTime, UNIX_EPOCH};

use marline_io::join_code::JoinCode;
use marline_io::key;

/// A directory of its own, with a configuration when asked for.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Home(tempfile::tempdir().expect("a directory"))
    }

    fn joined() -> Self {
        let home = Home::new();
        let done = home.marline(&["join", &code(3600).encode().expect("a code")]);
        assert!(done.status.success(), "{}", told(&done));
        home
    }

    fn config(&self) -> PathBuf {
        self.0.path().join("etc/client.toml")
    }

    fn command(&self, program: &[&str], arguments: &[&str]) -> Command {
        let mut command = Command::new(program[0]);
        command.args(&program[1..]).args(arguments).args([
            Path::new("--config"),
            &self.config(),
            Path::new("--state-dir"),
            &self.0.path().join("run"),
        ]);
        command
    }

    fn marline(&self, arguments: &[&str]) -> Output {
        self.command(&[MARLINE], arguments)
            .output()
            .expect("started")
    }
}

const MARLINE: &str = env!("CARGO_BIN_EXE_marline");

/// A join code that is valid for so many seconds from now.
fn code(valid_s: i64) -> JoinCode {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_secs();
    JoinCode {
        expires_unix_s: now.checked_add_signed(valid_s).expect("a time"),
        secret: [7; 32],
        server: [9; 32],
        endpoints: vec!["127.0.0.1:51900".parse().expect("an endpoint")],
        v4: Some([10, 77, 0, 2].into()),
        v6: Some("fd77::2".parse().expect("an address")),
        mtu: None,
    }
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn printed(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn is_root() -> bool {
    let root = fs::read_to_string("/proc/self/status")
        .is_ok_and(|status| status.lines().any(|line| line.starts_with("Uid:\t0\t")));
    if !root {
        println!("skipped: only root may do this");
    }
    root
}

/// Asserts the exit code and one line on standard error that contains every part.
fn assert_fails(output: &Output, exit_code: i32, parts: &[&str]) {
    let told = told(output);
    assert_eq!(output.status.code(), Some(exit_code), "{told}");
    assert_eq!(told.lines().count(), 1, "one sentence: {told}");
    for part in parts {
        assert!(told.contains(part), "{part:?} is not in: {told}");
    }
}

#[test]
fn joining_writes_a_private_configuration_once() {
    use std::os::unix::fs::PermissionsExt;
    let home = Home::joined();
    let mode = fs::metadata(home.config())
        .expect("written")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let text = fs::read_to_string(home.config()).expect("text");
    assert!(text.contains("\"10.77.0.2/32\", \"fd77::2/128\""), "{text}");

    let again = code(3600).encode().expect("a code");
    assert_fails(&home.marline(&["join", &again]), 6, &["already", "--force"]);
    let done = home.marline(&["join", "--force", "--json", &again]);
    assert!(done.status.success(), "{}", told(&done));
    assert_eq!(
        printed(&done)["public_key"],
        key::encode(&key::public_of(&[7; 32]))
    );
}

#[test]
fn a_join_code_that_is_no_good_says_why() {
    let home = Home::new();
    let good = code(3600).encode().expect("a code");
    let mut damaged = good.clone().into_bytes();
    damaged[30] = if damaged[30] == b'q' { b'p' } else { b'q' };
    let damaged = String::from_utf8(damaged).expect("text");
    let expired = code(-3600).encode().expect("a code");
    assert_fails(
        &home.marline(&["join", &damaged]),
        2,
        &["damaged", "checksum"],
    );
    assert_fails(&home.marline(&["join", &good[..60]]), 2, &["damaged"]);
    assert_fails(
        &home.marline(&["join", &expired]),
        2,
        &["expired at 2", "new one"],
    );
    assert_fails(
        &home.marline(&["join", "hello"]),
        2,
        &["not a join code", "marline1"],
    );
    assert!(!home.config().exists(), "nothing was written");
}

#[test]
fn a_configuration_that_is_wrong_is_refused_with_its_line() {
    let home = Home::joined();
    let text = fs::read_to_string(home.config()).expect("text");
    let line = 1 + text
        .lines()
        .position(|line| line.starts_with("routes"))
        .expect("a line");
    fs::write(
        home.config(),
        text.replace("routes = \"default\"", "mtu = 99"),
    )
    .expect("written");
    let place = format!("client.toml:{line}");
    assert_fails(&home.marline(&["up"]), 2, &[&place, "mtu", "1280 to 1500"]);
    fs::remove_file(home.config()).expect("removed");
    assert_fails(&home.marline(&["up"]), 2, &["client.toml", "marline join"]);
}

#[test]
fn what_needs_a_running_client_says_that_there_is_none() {
    let home = Home::joined();
    assert_fails(
        &home.marline(&["status"]),
        7,
        &["not running", "marline up"],
    );
    assert_fails(&home.marline(&["status", "--watch"]), 7, &["not running"]);
    assert_fails(
        &home.marline(&["down"]),
        7,
        &["not running", "marline restore"],
    );
    assert_fails(&home.marline(&["mode"]), 7, &["not running"]);
    assert_fails(&home.marline(&["mode", "redundant"]), 7, &["not running"]);
    let json = home.marline(&["status", "--json"]);
    assert_eq!(json.status.code(), Some(7));
    assert_eq!(printed(&json)["failure"]["class"], "not_running");
}

#[test]
fn a_wrong_command_line_is_class_2() {
    assert_eq!(Home::new().marline(&["fly"]).status.code(), Some(2));
    assert_eq!(
        Home::new().marline(&["up", "--wait", "0"]).status.code(),
        Some(2)
    );
}

#[test]
fn a_wrong_command_line_is_told_in_json_when_that_is_asked_for() {
    for typed in [
        &["mode", "bogus", "--json"][..],
        &["--json", "fly"],
        &["--json", "up", "--wait"],
    ] {
        let output = Home::new().marline(typed);
        assert_eq!(output.status.code(), Some(2), "{typed:?}");
        assert_eq!(printed(&output)["failure"]["class"], "usage", "{typed:?}");
        assert_eq!(told(&output), "", "{typed:?}");
    }
    let output = Home::new().marline(&["mode", "bogus", "--json"]);
    let sentence = printed(&output)["failure"]["sentence"].to_string();
    assert!(sentence.contains("bogus") && sentence.contains("aggregate"));
}

#[test]
fn a_reader_that_went_away_ends_a_command_quietly() {
    for (arguments, code) in [
        (&["man"][..], 0),
        (&["completions", "bash"], 0),
        (&["--help"], 0),
        (&["status", "--json"], 7),
    ] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = Home::new()
            .command(&[MARLINE], arguments)
            .stdout(writer)
            .output()
            .expect("started");
        assert_eq!(output.status.code(), Some(code), "{}", told(&output));
        assert_eq!(told(&output), "", "{arguments:?}");
    }
}

#[test]
fn a_key_pair_belongs_together() {
    let pair = printed(&Home::new().marline(&["keygen", "--json"]));
    let secret = key::decode(pair["private_key"].as_str().expect("text")).expect("a key");
    assert_eq!(pair["public_key"], key::encode(&key::public_of(&secret)));
}

#[test]
fn without_the_privilege_the_start_says_so() {
    if !is_root() {
        return;
    }
    let home = Home::joined();
    let drop_it = ["setpriv", "--bounding-set", "-net_admin", MARLINE];
    let foreground = home
        .command(&drop_it, &["up", "--foreground"])
        .output()
        .expect("started");
    assert_fails(&foreground, 3, &["CAP_NET_ADMIN", "root"]);
    let background = home.command(&drop_it, &["up"]).output().expect("started");
    assert_fails(&background, 3, &["CAP_NET_ADMIN", "root"]);
}

#[test]
fn without_dev_net_tun_the_start_says_so() {
    if !is_root() {
        return;
    }
    let home = Home::joined();
    let script = "mount -t tmpfs none /dev/net && exec \"$@\"";
    let without = [
        "unshare", "--mount", "--net", "sh", "-c", script, "sh", MARLINE,
    ];
    let output = home.command(&without, &["up"]).output().expect("started");
    assert_fails(&output, 4, &["/dev/net/tun", "modprobe tun"]);
}

#[test]
fn a_machine_without_uplinks_gives_up_in_one_sentence_and_leaves_nothing() {
    if !is_root() {
        return;
    }
    let home = Home::joined();
    let alone = [
        "unshare",
        "--net",
        "sh",
        "-c",
        "\"$@\"; code=$?; ip rule; ip link; exit $code",
    ];
    let alone = [&alone[..], &["sh", MARLINE]].concat();
    let output = home
        .command(&alone, &["up", "--wait", "1"])
        .output()
        .expect("started");
    assert_fails(&output, 5, &["no usable uplink", "connect one"]);
    let left = String::from_utf8_lossy(&output.stdout);
    assert!(
        !left.contains("28001") && !left.contains("marline0"),
        "{left}"
    );
    assert!(!home.0.path().join("run/client.sock").exists());
    assert!(!home.0.path().join("run/undo.json").exists());
}

#[test]
fn the_plan_is_printed_and_nothing_is_changed() {
    if !is_root() {
        return;
    }
    let home = Home::joined();
    let script = "ip link add wan0 type veth peer name isp0 && ip link set isp0 up && \
                  ip link set wan0 up && ip address add 192.0.2.2/24 dev wan0 && \
                  ip route add default via 192.0.2.1 && ip rule > before && \"$@\" && \
                  ip rule > after && cmp before after";
    let inside = ["unshare", "--net", "sh", "-c", script, "sh", MARLINE];
    for json in [false, true] {
        let arguments: &[&str] = if json { &["plan", "--json"] } else { &["plan"] };
        let mut command = home.command(&inside, arguments);
        let output = command
            .current_dir(home.0.path())
            .output()
            .expect("started");
        assert!(output.status.success(), "{}", told(&output));
        if json {
            let plan = printed(&output);
            assert_eq!(plan["interface"], "marline0");
            assert_eq!(plan["routing"]["steps"][0]["change"], "route");
        } else {
            let text = String::from_utf8_lossy(&output.stdout);
            for line in [
                "interface marline0 with MTU 1400, 10.77.0.2/32, fd77::2/128",
                "ip -4 route add default dev marline0 table 28001",
                "ip -4 rule add priority 31901 not fwmark 0x6d61 lookup 28001",
            ] {
                assert!(
                    text.lines().any(|l| l == line),
                    "{line:?} is not in: {text}"
                );
            }
        }
    }
}

#[test]
fn man_page_and_completions_are_printed() {
    let home = Home::new();
    let man = home.marline(&["man"]);
    assert!(String::from_utf8_lossy(&man.stdout).contains(".TH marline 1"));
    for shell in ["bash", "zsh", "fish"] {
        let completions = home.marline(&["completions", shell]);
        assert!(
            completions.status.success() && completions.stdout.len() > 1000,
            "{shell}"
        );
    }
}

//! The command as its user meets it. What needs root is ignored without it:
//! `sudo -E cargo test -p marline-lab -- --ignored`.
#![cfg(target_os = "linux")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

fn lab(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_marline-lab"))
        .args(arguments)
        .output()
        .expect("it runs")
}

fn scenario(name: &str) -> String {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("scenarios")
        .join(name);
    path.to_string_lossy().into_owned()
}

fn namespaces_of(pid: u32) -> usize {
    let prefix = format!("mlab{pid}-");
    std::fs::read_dir("/run/netns").map_or(0, |entries| {
        entries
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
            .count()
    })
}

#[test]
fn a_missing_scenario_is_one_sentence_and_exit_code_2() {
    let output = lab(&["run", "/nowhere/s1.toml"]);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(complaint.lines().count(), 1, "{complaint}");
    assert!(complaint.contains("/nowhere/s1.toml"), "{complaint}");
}

#[test]
fn an_unknown_tunnel_is_refused_with_those_that_there_are() {
    let output = lab(&[
        "compare",
        &scenario("s1.toml"),
        "--through",
        "carrier-pigeon",
    ]);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    assert!(complaint.contains("marline, mptcp"), "{complaint}");
}

#[test]
#[ignore = "needs root"]
fn the_links_of_the_lab_do_what_they_are_told() {
    let output = lab(&["self-test"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("OFF"), "{said}");
}

#[test]
#[ignore = "needs root"]
fn what_a_killed_lab_left_is_cleared_by_the_next_one() {
    let mut killed = Command::new(env!("CARGO_BIN_EXE_marline-lab"))
        .args(["shell", &scenario("s1.toml")])
        .stdout(Stdio::null())
        .spawn()
        .expect("it runs");
    let patience = Instant::now() + Duration::from_secs(20);
    while namespaces_of(killed.id()) < 4 {
        assert!(Instant::now() < patience, "the topology never stood");
        std::thread::yield_now();
    }
    killed.kill().expect("killed");
    killed.wait().expect("gone");
    assert_eq!(
        namespaces_of(killed.id()),
        4,
        "a killed lab cannot clean up"
    );
    assert!(lab(&["self-test"]).status.success());
    assert_eq!(namespaces_of(killed.id()), 0);
}

//! What can be asked of the program without a running server and without root.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn server(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_marline-server"))
        .arg("--config")
        .arg(directory.join("server.toml"))
        .arg("--state-dir")
        .arg(directory.join("run"))
        .args(arguments)
        .output()
        .expect("the program starts")
}

fn printed(output: &Output) -> String {
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn init(directory: &Path) -> String {
    let peers = directory.join("peers.toml");
    let peers = peers.to_str().expect("a plain path");
    printed(&server(
        directory,
        &[
            "init",
            "--endpoint",
            "vpn.example.net:51900",
            "--peers",
            peers,
            "--pool-v6",
            "fd00:77::/64",
        ],
    ))
}

#[test]
fn a_new_server_has_a_join_code_after_two_commands() {
    let directory = tempfile::tempdir().unwrap();
    let told = init(directory.path());
    assert!(
        told.contains("marline-server peer add laptop"),
        "says what comes next: {told}"
    );
    let added = printed(&server(directory.path(), &["peer", "add", "laptop"]));
    assert!(added.contains("marline join marline1"), "{added}");
    assert!(added.contains("10.77.0.2 and fd00:77::2"), "{added}");

    let list = printed(&server(directory.path(), &["peer", "list"]));
    assert!(
        list.contains("laptop") && list.contains("join code unused"),
        "{list}"
    );
    let shown = printed(&server(
        directory.path(),
        &["peer", "show", "laptop", "--json"],
    ));
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["standing"], "invited");
    assert_eq!(shown["v6"], "fd00:77::2");

    printed(&server(directory.path(), &["peer", "remove", "laptop"]));
    let list = printed(&server(directory.path(), &["peer", "list", "--json"]));
    assert_eq!(list, "[]\n");
}

#[test]
fn a_wrong_setting_is_named_with_its_line_and_the_exit_code_says_configuration() {
    let directory = tempfile::tempdir().unwrap();
    init(directory.path());
    let file = directory.path().join("server.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("nat = true", "nta = true")).unwrap();
    let output = server(directory.path(), &["run"]);
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{complaint}");
    let line = text
        .lines()
        .position(|line| line.starts_with("nat"))
        .unwrap()
        + 1;
    assert!(
        complaint.contains(&format!("server.toml:{line}:1")),
        "{complaint}"
    );
    assert!(
        complaint.contains("nta") && complaint.contains("pool_v4"),
        "{complaint}"
    );
}

#[test]
fn failures_are_json_when_json_is_asked_for() {
    // Of a command that fails, and of one that there is not.
    for (command, code, class) in [("status", 7, "not_running"), ("fly", 2, "usage")] {
        let directory = tempfile::tempdir().unwrap();
        let output = server(directory.path(), &[command, "--json"]);
        assert_eq!(output.status.code(), Some(code));
        let failure: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(failure["failure"]["class"], class);
        assert!(failure["failure"]["sentence"].is_string());
        assert!(output.stderr.is_empty());
    }
}

#[test]
fn without_a_running_server_the_program_says_how_to_start_it() {
    let directory = tempfile::tempdir().unwrap();
    let output = server(directory.path(), &["status"]);
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(7), "{complaint}");
    assert!(complaint.contains("not running"), "{complaint}");
    assert!(complaint.contains("systemctl start"), "{complaint}");
}

#[test]
fn a_key_file_that_is_not_there_is_told_with_the_line_that_names_it() {
    let directory = tempfile::tempdir().unwrap();
    init(directory.path());
    let key = directory.path().join("server.key");
    fs::remove_file(&key).unwrap();
    let text = fs::read_to_string(directory.path().join("server.toml")).unwrap();
    let line = text
        .lines()
        .position(|line| line.starts_with("private_key_file"));
    let place = format!(
        "server.toml:{}: field `private_key_file`",
        line.unwrap() + 1
    );
    let output = server(directory.path(), &["peer", "add", "laptop"]);
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{complaint}");
    assert!(complaint.contains(&place), "{complaint}");
    let advice = format!("marline-server keygen --out {}", key.display());
    assert!(complaint.contains(&advice), "{complaint}");
}

#[test]
fn without_settings_the_program_says_how_to_get_some() {
    let directory = tempfile::tempdir().unwrap();
    let output = server(directory.path(), &["peer", "add", "laptop"]);
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{complaint}");
    assert!(complaint.contains("marline-server init"), "{complaint}");
}

#[test]
fn a_key_that_was_made_can_be_used_and_is_never_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("server.key");
    let path = file.to_str().unwrap();
    let public = printed(&server(directory.path(), &["keygen", "--out", path]));
    assert_eq!(public.trim().len(), 44);
    let private = fs::read_to_string(&file).unwrap();
    assert_eq!(private.trim().len(), 44);
    let again = server(directory.path(), &["keygen", "--out", path]);
    assert_eq!(again.status.code(), Some(6));
    assert_eq!(fs::read_to_string(&file).unwrap(), private);
}

#[test]
fn completions_and_man_pages_cover_every_command() {
    let directory = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let text = printed(&server(directory.path(), &["completions", shell]));
        assert!(text.contains("renew"), "{shell}");
    }
    assert!(printed(&server(directory.path(), &["man"])).contains(".TH"));
    let pages = directory.path().join("man");
    printed(&server(
        directory.path(),
        &["man", "--dir", pages.to_str().unwrap()],
    ));
    assert!(pages.join("marline-server-peer-add.1").exists());
}

//! The rules that keep the architecture what it is said to be.

use marline_tidy::{dependencies, files, rust_files};

/// What the core may be built from.
const CORE_MAY_USE: [&str; 7] = [
    "base64",
    "boringtun",
    "etherparse",
    "rand",
    "serde",
    "thiserror",
    "tracing",
];

/// A file of the core that grows beyond this calculates too much in one place.
const CORE_LINES_MAX: usize = 900;

/// Fails with all complaints at once.
fn none(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn the_core_depends_on_nothing_that_can_reach_the_outside() {
    let extra = dependencies("common/proto", false)
        .into_iter()
        .filter(|name| !CORE_MAY_USE.contains(&name.as_str()))
        .map(|name| format!("common/proto/Cargo.toml: {name} is not among {CORE_MAY_USE:?}"))
        .collect::<Vec<_>>();
    none(&extra);
}

#[test]
fn the_core_reads_no_clock_opens_no_socket_and_starts_no_thread() {
    // Clippy knows these by their paths, where it runs; this knows them by their
    // names, and knows whole modules.
    let forbidden = [
        ("Instant::now", "the caller passes the time"),
        ("SystemTime", "the caller passes the time"),
        ("UNIX_EPOCH", "the caller passes the time"),
        ("UdpSocket", "sockets belong to marline-io"),
        ("TcpStream", "sockets belong to marline-io"),
        ("TcpListener", "sockets belong to marline-io"),
        ("std::thread", "one owner, no threads"),
        ("thread_local!", "one owner, no hidden state"),
        ("std::env", "settings come as types"),
        ("std::fs", "files belong to the shells"),
        ("std::process", "the shells decide about processes"),
        ("std::os::", "systems belong to marline-io"),
        ("Mutex", "one owner, no lock"),
        ("RwLock", "one owner, no lock"),
        ("OsRng", "randomness comes from the seed"),
        ("from_os_rng", "randomness comes from the seed"),
        ("rand::rng()", "randomness comes from the seed"),
        ("thread_rng", "randomness comes from the seed"),
        ("println!", "the shells print"),
    ];
    let mut complaints = Vec::new();
    for file in rust_files("common/proto/src") {
        for (number, line) in file.shipped_lines() {
            for (word, reason) in forbidden {
                if line.contains(word) {
                    complaints.push(format!("{}:{number}: {word}: {reason}", file.name));
                }
            }
        }
    }
    none(&complaints);
}

#[test]
fn only_the_session_names_boringtun() {
    let allowed = |name: &str| {
        name == "common/proto/src/session.rs" || name.starts_with("common/proto/src/session/")
    };
    let mut complaints = Vec::new();
    for folder in ["common", "client", "server"] {
        for file in rust_files(folder)
            .into_iter()
            .filter(|file| !allowed(&file.name))
        {
            // Tests may measure themselves against a stock peer.
            for (number, line) in file.shipped_lines() {
                if line.contains("boringtun") && !file.name.contains("/tests/") {
                    complaints.push(format!("{}:{number}: only the session names it", file.name));
                }
            }
        }
    }
    none(&complaints);
}

#[test]
fn dependencies_point_towards_the_core() {
    // For each package of ours: which others of ours it may use.
    let allowed: [(&str, &[&str]); 8] = [
        ("common/proto", &[]),
        ("common/io", &["marline-proto"]),
        ("client", &["marline-proto", "marline-io"]),
        ("server", &["marline-proto", "marline-io"]),
        ("tests/sim", &["marline-proto"]),
        ("tests/lab", &["marline-sim"]),
        (
            "tests/bench",
            &["marline-proto", "marline-io", "marline-sim"],
        ),
        ("tests/tidy", &[]),
    ];
    let mut complaints = Vec::new();
    for (package, allowed) in allowed {
        let ours = dependencies(package, true)
            .into_iter()
            .filter(|name| name == "marline" || name.starts_with("marline-"));
        for name in ours.filter(|name| !allowed.contains(&name.as_str())) {
            complaints.push(format!(
                "{package}/Cargo.toml: {name} is not among {allowed:?}"
            ));
        }
    }
    none(&complaints);
}

#[test]
fn every_file_says_at_its_top_what_it_is_about() {
    let mut complaints = Vec::new();
    for folder in ["common", "client", "server", "tests"] {
        for file in rust_files(folder) {
            // The tests beside a module are about that module.
            if file.name.ends_with("/tests.rs") {
                continue;
            }
            let first = file.text.lines().find(|line| {
                let line = line.trim();
                !line.is_empty() && !line.starts_with("#!") && !is_plain_comment(line)
            });
            if !first.is_some_and(|line| line.starts_with("//!")) {
                complaints.push(format!("{}: begins without //! documentation", file.name));
            }
        }
    }
    none(&complaints);
}

fn is_plain_comment(line: &str) -> bool {
    line.starts_with("//") && !line.starts_with("//!") && !line.starts_with("///")
}

#[test]
fn no_file_of_the_core_grows_too_big_to_be_understood() {
    let complaints: Vec<String> = rust_files("common/proto/src")
        .into_iter()
        .filter(|file| file.text.lines().count() > CORE_LINES_MAX)
        .map(|file| format!("{}: {} lines", file.name, file.text.lines().count()))
        .collect();
    none(&complaints);
}

#[test]
fn nothing_names_the_machine_it_was_written_on() {
    // Spelt in pieces, so that this file does not accuse itself.
    let forbidden = [
        concat!("/wo", "rk/"),
        concat!("/ro", "ot/"),
        concat!("/ho", "me/"),
        concat!("/tmp/", "brief"),
        concat!("static.crates", ".io"),
        concat!("index.crates", ".io"),
        concat!("deb.debian", ".org"),
    ];
    let mut complaints = Vec::new();
    for folder in ["common", "client", "server", "tests", "deploy", "docs"] {
        if !marline_tidy::root().join(folder).is_dir() {
            continue;
        }
        for file in files(folder) {
            for (index, line) in file.text.lines().enumerate() {
                for word in forbidden.iter().filter(|word| line.contains(**word)) {
                    complaints.push(format!("{}:{}: {word}", file.name, index + 1));
                }
            }
        }
    }
    none(&complaints);
}

#[test]
fn nothing_is_left_to_be_done_later_in_the_shipped_code() {
    let forbidden = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("to", "do!("),
        "unimplemented!(",
    ];
    let mut complaints = Vec::new();
    for folder in ["common", "client", "server", "tests"] {
        for file in rust_files(folder) {
            for (index, line) in file.text.lines().enumerate() {
                // In quotes it is what a test looks for.
                let names =
                    |word: &&&str| line.replace(&format!("\"{word}\""), "").contains(**word);
                for word in forbidden.iter().filter(names) {
                    // The list above names one of them whole.
                    if file.name != "tests/tidy/tests/tidy.rs" {
                        complaints.push(format!("{}:{}: {word}", file.name, index + 1));
                    }
                }
            }
        }
    }
    none(&complaints);
}

#[test]
fn the_simulators_session_is_not_in_what_is_shipped() {
    for package in ["common/io", "client", "server"] {
        let manifest = marline_tidy::root().join(package).join("Cargo.toml");
        let text = std::fs::read_to_string(manifest).unwrap();
        assert!(
            !text.contains("test-session"),
            "{package} asks for sessions without cryptography"
        );
    }
}

#[test]
fn the_protocols_page_names_the_figures_that_the_code_has() {
    // Of each: the file, the constant, and the words around its value on the page.
    let figures = [
        ("limits.rs", "FLOWS", "at\nmost {} of them"),
        (
            "limits.rs",
            "FLOW_IDLE",
            "another flow only after {} without a packet",
        ),
        ("limits.rs", "SQUEEZED_FLOWS", "in slots from {} on"),
        ("reorder.rs", "GIVEN_UP", "the last {} such places"),
        ("limits.rs", "HOLD_MAX", "at the cap, **{}**"),
        (
            "limits.rs",
            "HELD_PACKETS_PER_FLOW",
            "Bounds: {} places behind a hole",
        ),
        ("reorder.rs", "PASSED", "({} when only unordered packets"),
        ("limits.rs", "HELD_PACKETS", "{} waiting packets per bond"),
        ("limits.rs", "RETRANSMIT_AGE_MAX", "forgotten after {}."),
        ("limits.rs", "COPIES_MAX", "given up after {} transmissions"),
        (
            "limits.rs",
            "RETRANSMIT_AGE_MAX",
            "first sent more than {} ago",
        ),
        ("limits.rs", "REALTIME_EXPIRY", "ago (realtime: {}, or"),
        ("limits.rs", "RETRANSMITS", "when {} wait already"),
        (
            "bond/silence.rs",
            "OUTAGE_MIN",
            "over any path for more than {}, packets",
        ),
        ("limits.rs", "PACKET_LIFE", "After {}, the longest"),
        ("limits.rs", "BULK_EXPIRY", "and the {} of `queue_expired`"),
        (
            "limits.rs",
            "BULK_EXPIRY",
            "waited for more than {} (realtime",
        ),
        (
            "limits.rs",
            "REALTIME_EXPIRY",
            "(realtime: {}; patient flows",
        ),
        ("limits.rs", "RECEIVE_WINDOW", "which is {} messages"),
        (
            "limits.rs",
            "HALF_OPEN_PER_PEER",
            "at most {} half-open paths",
        ),
        ("limits.rs", "HALF_OPEN_AGE", "forgotten after {}, and none"),
        ("path/health.rs", "SUSPECT_MAX", "from *suspect* after {};"),
        ("path/health.rs", "ALONE_PATIENCE", "dead after {}, or"),
        (
            "path/health.rs",
            "IDLE_PROBE_BUSY",
            "gets a PING after {} while",
        ),
        ("path/resting.rs", "KEEP_EVERY", "After {} otherwise"),
        (
            "path/resting.rs",
            "RENEW_WITHIN",
            "passed within {}, and not",
        ),
        ("path/resting.rs", "HEAD_START", "were roused {} ago"),
        ("path/resting.rs", "PATIENCE", "an answer for {} the path"),
        (
            "path/resting.rs",
            "WAKE_AGAIN",
            "at once and again {}, 750 ms",
        ),
        (
            "path/resting.rs",
            "SEEN_WITHIN",
            "not older than {}: at once",
        ),
        ("path/resting.rs", "ASK_EVERY", "and with one every {};"),
        ("path/resting.rs", "ASK_AGAIN", "again after {}, and after"),
        (
            "path/handshake.rs",
            "RETRY_MIN",
            "is repeated after {}, or one",
        ),
        (
            "path/handshake.rs",
            "RETRY_MAX",
            "each time, up to {} (25 s",
        ),
    ];
    let one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let page = marline_tidy::root().join("docs/protocol.md");
    let page = one_line(&std::fs::read_to_string(page).unwrap());
    let mut complaints = Vec::new();
    for (file, name, words) in figures {
        let Some(value) = marline_tidy::constant(&format!("common/proto/src/{file}"), name) else {
            complaints.push(format!("{file}: no plain constant {name}"));
            continue;
        };
        let words = one_line(words).replace("{}", &value);
        if !page.contains(&words) {
            complaints.push(format!(
                "docs/protocol.md lacks \"{words}\" ({name} in {file})"
            ));
        }
    }
    none(&complaints);
}

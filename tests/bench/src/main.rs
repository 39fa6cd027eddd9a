//! Each step of a packet's way, in instructions, compared with the limits in
//! `instructions.txt`. Instructions hardly differ between machines and moments, so this can fail
//! in CI where a time never may.
//!
//! A step is done a number of times and twice that number of times, each in a process of its own
//! under a counter, and the difference is divided: what the process needs to start falls out.
//! The counter is `valgrind`, whose processor has the same abilities on every machine that is not
//! older than it: the real ones' counters may not be read in most virtual machines. Code that
//! encrypts differs between processors all the same, so steps that seal or open are shown and have
//! no limit: the core's own work on the same way is counted with sessions without cryptography.
//!
//! `./x instructions [--write]`

use std::process::{Command, ExitCode};

use marline_bench::steps;

const LIMITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.txt");
/// What `--write` adds to what was counted: compilers differ a little.
const ROOM: f64 = 1.1;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [option, name, times, ..] = &arguments[..]
        && option == "--step"
    {
        do_step(name, times.parse().expect("a number"));
        return ExitCode::SUCCESS;
    }
    let limits = limits();
    let mut exceeded = 0;
    let mut lines = String::from("# Instructions per call, at most. Written by --write.\n");
    println!("{:>10} {:>10}  step", "counted", "limit");
    for name in steps::names() {
        let sealed = steps::is_sealed(name);
        let times = match name {
            // Of 32 packets each, in a process that first brings a bond up.
            name if name.starts_with("32 packets") => 25,
            _ if sealed => 500,
            name if name.contains("45 packets") => 500,
            _ => 10_000,
        };
        let (Some(once), Some(twice)) = (count(name, times), count(name, 2 * times)) else {
            println!("{:>10} {:>10}  {name}", "failed", "");
            exceeded += 1;
            continue;
        };
        let counted = twice.saturating_sub(once) as f64 / times as f64;
        if sealed {
            println!("{counted:>10.0} {:>10}  {name}", "-");
            continue;
        }
        let limit = limits.iter().find(|(known, _)| known == name);
        // A step without a limit would pass whatever it costs.
        let too_many = limit.is_none_or(|(_, limit)| counted > *limit);
        exceeded += u32::from(too_many);
        let verdict = if too_many { "  too many" } else { "" };
        let shown = limit.map_or(String::from("none"), |(_, limit)| format!("{limit:.0}"));
        println!("{counted:>10.0} {shown:>10}  {name}{verdict}");
        lines += &format!("{:.0} {name}\n", counted * ROOM + 2.0);
    }
    if arguments.iter().any(|argument| argument == "--write") {
        std::fs::write(LIMITS, lines).expect("the limits can be written");
        return ExitCode::SUCCESS;
    }
    if exceeded > 0 {
        println!(
            "{exceeded} step(s) take more than their limit, or valgrind failed: make them cheaper, or say in the \
             commit why they must cost more and write new limits (-- --write)"
        );
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn do_step(name: &str, times: usize) {
    let mut step = steps::named(name).expect("a step of this name");
    for _ in 0..times {
        step();
    }
}

/// Instructions of a process that does a step so many times.
fn count(name: &str, times: usize) -> Option<u64> {
    let output = Command::new("valgrind")
        // Of its tools the one that says how many instructions there were and does little else.
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe().ok()?)
        .args(["--step", name, &times.to_string()])
        .output()
        .ok()?;
    // What a step cost that failed half-way says nothing.
    if !output.status.success() {
        return None;
    }
    // "==123== Collected : 456"
    String::from_utf8_lossy(&output.stderr)
        .lines()
        .find_map(|line| line.split_once("Collected :"))
        .and_then(|(_, number)| number.trim().parse().ok())
}

fn limits() -> Vec<(String, f64)> {
    let text = std::fs::read_to_string(LIMITS).unwrap_or_default();
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let (limit, name) = line.split_once(' ')?;
            Some((name.to_owned(), limit.parse().ok()?))
        })
        .collect()
}

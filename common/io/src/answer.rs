//! How a command of one of our programs ends: its answer on standard output, or
//! one sentence about why there is none and the exit code of its class.
//!
//! A reader of standard output that has seen enough and went away (`| head`) is
//! no failure: the rest is for nobody, and the command ends.

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use crate::failure::{Context, Failure};

/// Prints an answer to standard output. Called last, or for each of many pictures: where nobody
/// reads them any more the process ends.
pub fn print(text: &[u8]) -> Result<(), Failure> {
    match write(text) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        written => written.context("cannot write to standard output"),
    }
}

fn write(text: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text)?;
    out.flush()
}

/// Ends `program`: tells a failure on standard error, or on standard output when `json` is asked for.
pub fn end(program: &str, json: bool, done: Result<(), Failure>) -> ExitCode {
    let Err(failure) = done else {
        return ExitCode::SUCCESS;
    };
    if json {
        let text = serde_json::json!({ "failure": failure });
        // There is nobody left to tell that this could not be told.
        let _ = write(format!("{text}\n").as_bytes());
    } else {
        eprintln!("{program}: {failure}");
    }
    ExitCode::from(failure.exit_code())
}

/// Whether `--json` was typed: known before, and even if the rest is not understood.
pub fn is_json_typed() -> bool {
    std::env::args_os()
        .skip(1)
        .take_while(|argument| argument != "--")
        .any(|argument| argument == "--json")
}

/// The complaint of the command line's parser, written for people over several lines, as a failure.
pub fn not_understood(complaint: &str) -> Failure {
    let complaint = complaint.strip_prefix("error: ").unwrap_or(complaint);
    let complaint = complaint
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join(" ");
    Failure::usage(complaint).with_advice("--help tells what can be typed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_typed_wrongly_is_told_in_one_sentence() {
        let failure = not_understood(
            "error: invalid value 'bogus' for '[MODE]'\n  [possible values: aggregate, handover]\n\n\
             Usage: marline mode [MODE]\n\nFor more information, try '--help'.\n",
        );
        assert_eq!(
            failure.sentence(),
            "invalid value 'bogus' for '[MODE]' [possible values: aggregate, handover]"
        );
        assert_eq!(failure.exit_code(), 2);
    }
}

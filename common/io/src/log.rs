//! The log: lines on standard error, so that standard output stays for answers
//! and a service manager can add its own time stamps to what it collects.

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Starts the log. A second call changes nothing.
///
/// `verbosity` is what the user typed: -1 (`-q`) shows warnings and errors only, 0 also what
/// happens to uplinks and peers, 1 (`-v`) also why, 2 (`-vv`) also single packets. The crates we
/// stand on are one step quieter than ourselves.
pub fn init(verbosity: i8) {
    let (ours, theirs) = levels(verbosity);
    let targets = tracing_subscriber::filter::Targets::new()
        .with_default(theirs)
        .with_target("marline", ours)
        .with_target("marline_io", ours)
        .with_target("marline_proto", ours)
        .with_target("marline_server", ours);
    // Under a service manager the time stamps are its own business.
    let lines = fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(verbosity > 0);
    let collected = std::env::var_os("JOURNAL_STREAM").is_some();
    let registry = tracing_subscriber::registry().with(targets);
    // An error here means that a log is running already, which is what the caller wants.
    let _ = if collected {
        registry
            .with(lines.without_time().with_ansi(false))
            .try_init()
    } else {
        let colour = std::io::IsTerminal::is_terminal(&std::io::stderr());
        registry.with(lines.with_ansi(colour)).try_init()
    };
}

/// What is shown of our own crates, and of the others.
fn levels(verbosity: i8) -> (LevelFilter, LevelFilter) {
    match verbosity {
        ..=-1 => (LevelFilter::WARN, LevelFilter::WARN),
        0 => (LevelFilter::INFO, LevelFilter::WARN),
        1 => (LevelFilter::DEBUG, LevelFilter::INFO),
        2.. => (LevelFilter::TRACE, LevelFilter::DEBUG),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_of_verbosity_shows_more_and_we_are_never_quieter_than_the_others() {
        for verbosity in -3..4 {
            let (ours, theirs) = levels(verbosity);
            assert!(ours >= theirs);
            assert!(levels(verbosity + 1).0 >= ours);
        }
        assert!(
            levels(2).0 > levels(1).0 && levels(1).0 > levels(0).0 && levels(0).0 > levels(-1).0
        );
    }

    #[test]
    fn starting_the_log_twice_is_harmless() {
        init(-1);
        init(2);
    }
}

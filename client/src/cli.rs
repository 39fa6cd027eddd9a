//! What may be typed. The one source of help, man page and completions.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use marline_proto::{Class, Mode};

use crate::settings::DEFAULT_CONFIG;

/// Several internet connections used as one.
///
/// Marline leads this machine's traffic over all of its uplinks at once (Wi-Fi,
/// LTE, Ethernet, DSL) to a server of yours, which puts it together again. One
/// download gets the sum of the links, and a call survives a link that dies.
///
/// The configuration file is TOML. `marline join` writes one; client-full.toml, beside the source in
/// deploy/examples, shows every setting with its default.
///
/// Exit codes: 0 done, 1 other failure, 2 wrong usage or configuration,
/// 3 missing privilege, 4 missing system facility, 5 network (server
/// unreachable, wrong key), 6 conflict (already running), 7 not running.
#[derive(Debug, Parser)]
#[command(name = "marline", version, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Options that every command has.
    #[command(flatten)]
    pub common: Common,
}

/// Options that every command has.
#[derive(Clone, Debug, Args)]
pub struct Common {
    /// Answer in JSON, errors too
    #[arg(long, global = true)]
    pub json: bool,
    /// The configuration file
    #[arg(long, global = true, value_name = "PATH", default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,
    /// The directory of the undo journal and the log
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        default_value = "/run/marline"
    )]
    pub state_dir: PathBuf,
    /// The control socket [default: client.sock in the state directory]
    #[arg(long, global = true, value_name = "PATH")]
    pub control: Option<PathBuf>,
    /// Say more; twice for single packets
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Say warnings only
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write the configuration from the code that the server's operator gave you
    Join {
        /// The join code; `-` reads it from standard input
        #[arg(value_name = "CODE")]
        code: String,
        /// Replace a configuration that is there
        #[arg(long)]
        force: bool,
    },
    /// Connect, and lead this machine's traffic over all uplinks
    Up(Up),
    /// Disconnect, and put everything back as it was
    Down,
    /// Show the paths, what they do and why
    ///
    /// With -v it also shows every decision and its reason: at which rate each path sends and what that rests on,
    /// whether it carries bulk; for the busiest flows their class, the paths that they may use, how and why, and when
    /// their packets are released; and all counters. Each end decides about what it sends: of a download,
    /// `marline-server status PEER` tells. With --json all of it is there always. Flows have addresses: only the
    /// owner of the control socket sees them, and nothing writes them down.
    Status {
        /// Show it again and again
        #[arg(long)]
        watch: bool,
    },
    /// Show how the uplinks are used, or use them in another way from now on
    ///
    /// Both directions follow at once, and no connection notices. It holds until the client stops;
    /// `mode` in the configuration is what it starts with.
    Mode {
        /// The way to use them; left out: only show it
        #[arg(value_enum)]
        mode: Option<ModeWord>,
        /// Only for this class of flows [default: all]
        #[arg(long, value_enum, requires = "mode")]
        class: Option<ClassWord>,
    },
    /// Show this machine's interfaces, which are used, and why the others are not
    Uplinks,
    /// Make a key pair
    Keygen,
    /// Show what `up` would change on this machine, and change nothing
    Plan,
    /// Put back what a killed run left behind
    Restore,
    /// Print completions for a shell
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Print the man page
    Man,
}

/// Options of `up`.
#[derive(Clone, Debug, Args)]
pub struct Up {
    /// Stay in the foreground (for systemd) and wait for the server as long as it takes
    #[arg(long)]
    pub foreground: bool,
    /// Fail when the server has not answered after so many seconds [default: 10 in the
    /// background, for ever in the foreground]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub wait: Option<u64>,
    /// How the uplinks are used, instead of what the configuration says
    #[arg(long, value_enum)]
    pub mode: Option<ModeWord>,
    /// Report to the process that started this one
    #[arg(long, hide = true, requires = "foreground")]
    pub report: bool,
}

impl Up {
    /// How long the server may take to answer; `None` is for ever.
    pub fn patience(&self) -> Option<Duration> {
        const BACKGROUND_S: u64 = 10;
        match (self.wait, self.foreground) {
            (Some(seconds), _) => Some(Duration::from_secs(seconds)),
            (None, true) => None,
            (None, false) => Some(Duration::from_secs(BACKGROUND_S)),
        }
    }
}

/// The modes, as words to type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ModeWord {
    /// The sum of the links for bulk, the lowest latency for the rest
    Aggregate,
    /// A second uplink only when the first is bad or gone
    Handover,
    /// The lowest latency; what is not bulk is sent twice
    Interactive,
    /// Everything on two paths
    Redundant,
}

impl From<ModeWord> for Mode {
    fn from(word: ModeWord) -> Mode {
        match word {
            ModeWord::Aggregate => Mode::Aggregate,
            ModeWord::Handover => Mode::Handover,
            ModeWord::Interactive => Mode::Interactive,
            ModeWord::Redundant => Mode::Redundant,
        }
    }
}

/// The classes of flows, as words to type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ClassWord {
    /// Calls, games, ping, DNS
    Realtime,
    /// Short or thin: the beginning of anything, shells
    Interactive,
    /// Downloads and uploads
    Bulk,
}

impl From<ClassWord> for Class {
    fn from(word: ClassWord) -> Class {
        match word {
            ClassWord::Realtime => Class::Realtime,
            ClassWord::Interactive => Class::Interactive,
            ClassWord::Bulk => Class::Bulk,
        }
    }
}

/// The completions for a shell.
pub fn completions(shell: Shell) -> Vec<u8> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "marline", &mut text);
    text
}

/// The man page: the main one, followed by those of the commands.
pub fn man() -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let mut command = Cli::command();
    command.build();
    clap_mangen::Man::new(command.clone()).render(&mut text)?;
    for sub in command
        .get_subcommands()
        .filter(|sub| !sub.is_hide_set() && sub.get_name() != "help")
    {
        let man = clap_mangen::Man::new(sub.clone());
        text.extend_from_slice(format!(".SH COMMAND {}\n", sub.get_name()).as_bytes());
        man.render_description_section(&mut text)?;
        man.render_options_section(&mut text)?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_may_stand_before_and_after_the_command() {
        let before = Cli::try_parse_from(["marline", "--json", "status"]).expect("accepted");
        let after = Cli::try_parse_from(["marline", "status", "--json"]).expect("accepted");
        assert!(before.common.json && after.common.json);
    }

    #[test]
    fn a_background_start_loses_patience_and_a_service_does_not() {
        let patience = |arguments: &[&str]| {
            let line = [&["marline", "up"], arguments].concat();
            match Cli::try_parse_from(line).expect("accepted").command {
                Command::Up(up) => up.patience(),
                _ => panic!("it is up"),
            }
        };
        assert_eq!(patience(&[]), Some(Duration::from_secs(10)));
        assert_eq!(patience(&["--foreground"]), None);
        assert_eq!(
            patience(&["--foreground", "--wait", "3"]),
            Some(Duration::from_secs(3))
        );
    }

    #[test]
    fn a_class_is_named_only_together_with_a_mode() {
        let parsed = |arguments: &[&str]| {
            Cli::try_parse_from([&["marline", "mode"], arguments].concat()).is_ok()
        };
        assert!(parsed(&[]) && parsed(&["redundant"]));
        assert!(parsed(&["redundant", "--class", "realtime"]));
        assert!(!parsed(&["--class", "realtime"]) && !parsed(&["fast"]));
    }

    #[test]
    fn man_page_and_completions_know_every_command() {
        let man = String::from_utf8(man().expect("rendered")).expect("text");
        let bash = String::from_utf8(completions(Shell::Bash)).expect("text");
        let command = Cli::command();
        for sub in command.get_subcommands() {
            let name = sub.get_name();
            assert!(
                man.contains(&format!(".SH COMMAND {name}")),
                "{name} in the man page"
            );
            assert!(bash.contains(name), "{name} in the completions");
        }
        assert!(man.contains("Exit codes") && !man.contains("\\-\\-report"));
    }
}

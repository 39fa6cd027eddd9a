//! What may be typed. Help, man pages and completions all come from here.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use ipnet::{Ipv4Net, Ipv6Net};
use marline_io::join_code::ServerEndpoint;

use crate::peers;
use crate::settings;

/// The server of Marline: joins a client's uplinks into one bond and forwards it to the internet.
#[derive(Debug, Parser)]
#[command(
    name = "marline-server",
    version,
    about,
    arg_required_else_help = true,
    after_help = "A new server in three steps:\n  \
                  marline-server init\n  \
                  marline-server run          (or: systemctl enable --now marline-server)\n  \
                  marline-server peer add laptop\n\n\
                  server-full.toml, beside the source in deploy/examples, shows every setting with its\n\
                  default.\n\n\
                  Exit codes: 0 done, 1 other failure, 2 wrong usage or configuration, 3 a privilege is\n\
                  missing, 4 the system lacks something, 5 network, 6 conflict, 7 the server is not running."
)]
pub struct Cli {
    /// What is typed before or after any command.
    #[command(flatten)]
    pub common: Common,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// What may be typed with every command.
#[derive(Debug, Args)]
pub struct Common {
    /// The settings
    #[arg(long, global = true, value_name = "FILE", default_value = settings::DEFAULT_FILE)]
    pub config: PathBuf,
    /// Where the running server keeps its control socket and what it has to put back
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        default_value = "/run/marline-server"
    )]
    pub state_dir: PathBuf,
    /// The control socket, if it is not in the state directory
    #[arg(long, global = true, value_name = "PATH")]
    control: Option<PathBuf>,
    /// Print JSON instead of text
    #[arg(long, global = true)]
    pub json: bool,
    /// Log more (-v why things happen, -vv single packets)
    #[arg(short, long, global = true, action = clap::ArgAction::Count, conflicts_with = "quiet")]
    verbose: u8,
    /// Log warnings and errors only
    #[arg(short, long, global = true)]
    quiet: bool,
}

impl Common {
    /// The control socket.
    pub fn control(&self) -> PathBuf {
        self.control
            .clone()
            .unwrap_or_else(|| self.state_dir.join("control.sock"))
    }

    /// How much is logged, as [`marline_io::log::init`] takes it.
    pub fn verbosity(&self) -> i8 {
        if self.quiet {
            -1
        } else {
            i8::try_from(self.verbose).unwrap_or(i8::MAX)
        }
    }
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a key and write the settings of a new server
    Init(Init),
    /// Run the server in the foreground
    Run,
    /// Show how the running server stands
    ///
    /// With a peer's name it shows that peer alone, with every decision about what is sent to it and its reason: at
    /// which rate each path sends and what that rests on, whether it carries bulk; for the busiest flows their class,
    /// the paths that they may use, how and why, and when their packets are released; and all counters.
    /// Flows tell who talks to whom: only this shows them, to whoever may use the control socket, and nothing writes
    /// them down.
    Status {
        /// The peer's name
        peer: Option<String>,
        /// Show it again and again
        #[arg(short, long)]
        watch: bool,
        /// Time between two looks
        #[arg(long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
        interval: Duration,
    },
    /// Add, show and remove clients
    #[command(subcommand)]
    Peer(Peer),
    /// Make the running server read the peer store again after it was edited by hand
    Reload,
    /// Print what "run" would change on this machine
    Plan,
    /// Put back what a server that was killed has changed on this machine
    Restore,
    /// Make a key pair
    Keygen {
        /// Write the private key to FILE and print the public key only
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Print completions for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the man page
    Man {
        /// Write the pages of all commands into DIR instead
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

/// The settings of a new server.
#[derive(Debug, Args)]
pub struct Init {
    /// Where clients reach this server; may be repeated; guessed from this machine's addresses if absent
    #[arg(long = "endpoint", value_name = "HOST:PORT")]
    pub endpoints: Vec<ServerEndpoint>,
    /// The UDP port to listen on
    #[arg(long, value_name = "N", default_value_t = settings::DEFAULT_PORT,
          value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,
    /// IPv4 addresses inside the tunnel
    #[arg(long, value_name = "NET", default_value = "10.77.0.0/16",
          value_parser = settings::parse_pool_v4)]
    pub pool_v4: Ipv4Net,
    /// IPv6 addresses inside the tunnel; a random unique-local /64 if absent
    #[arg(long, value_name = "NET", value_parser = settings::parse_pool_v6)]
    pub pool_v6: Option<Ipv6Net>,
    /// The tunnel's interface
    #[arg(long, value_name = "NAME", default_value = "marline0",
          value_parser = settings::parse_interface)]
    pub interface: String,
    /// Do not translate addresses: the clients' inner addresses are routed to this machine
    #[arg(long)]
    pub no_nat: bool,
    /// The peer store
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/var/lib/marline/peers.toml"
    )]
    pub peers: PathBuf,
    /// Overwrite settings that exist (the key and the peers are kept)
    #[arg(long)]
    pub force: bool,
}

/// What can be done with clients.
#[derive(Debug, Subcommand)]
pub enum Peer {
    /// Add a client and print its join code
    Add(Invite),
    /// Give a client a new key and print its new join code; the old key stops working
    Renew(Invite),
    /// List all clients
    List,
    /// Show one client
    Show {
        /// Its name
        name: String,
    },
    /// Remove a client; its connections end at once
    Remove {
        /// Its name
        name: String,
    },
}

/// Whom to invite, and how.
#[derive(Debug, Args)]
pub struct Invite {
    /// Its name
    #[arg(value_parser = |name: &str| peers::check_name(name).map(|()| name.to_owned()))]
    pub name: String,
    /// How long the join code may wait for its first use, for example 30m, 24h or 7days
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = humantime::parse_duration)]
    pub expires: Duration,
    /// Print the code as a QR code, too
    #[arg(long)]
    pub qr: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_commands_are_consistent() {
        Cli::command().debug_assert();
        let expires = Duration::from_secs(24 * 3600);
        let cli = Cli::parse_from(["marline-server", "peer", "add", "laptop"]);
        assert!(
            matches!(cli.command, Command::Peer(Peer::Add(invite)) if invite.expires == expires)
        );
    }

    #[test]
    fn common_options_may_stand_anywhere_and_the_control_socket_follows_the_state_directory() {
        let cli = Cli::parse_from([
            "marline-server",
            "peer",
            "list",
            "--json",
            "--state-dir",
            "/x",
        ]);
        assert!(cli.common.json);
        assert_eq!(cli.common.control(), PathBuf::from("/x/control.sock"));
        let cli = Cli::parse_from(["marline-server", "--control", "/y.sock", "status", "-w"]);
        assert_eq!(cli.common.control(), PathBuf::from("/y.sock"));
    }

    #[test]
    fn what_makes_no_sense_is_refused_while_it_is_typed() {
        for typed in [
            &["peer", "add", "my laptop"][..],
            &["peer", "add", "laptop", "--expires", "soon"],
            &["init", "--endpoint", "vpn.example.net"],
            &["init", "--port", "0"],
            &["init", "--pool-v4", "10.77.0.1/16"],
            &["init", "--interface", "a/b"],
            &["status", "-v", "-q"],
        ] {
            let typed = ["marline-server"].iter().chain(typed);
            assert!(Cli::try_parse_from(typed.clone()).is_err(), "{typed:?}");
        }
    }
}

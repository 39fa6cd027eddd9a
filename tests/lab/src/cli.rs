//! What may be typed, and what each command does.

use std::fs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};

use crate::refusal::Refusal;
use crate::report::table;
use crate::results::{Direction, Mark, Observer, Sample, ScenarioResult, Series};
use crate::run::Interrupt;
use crate::say::{say, sayln};
use crate::scenario::{Cc, Scenario};
use crate::session::{self, SessionPlan};
use crate::topology::Lab;
use crate::tunnel::{self, Through};
use crate::{bench, check, demo, self_test};

/// Measures Marline between network namespaces over emulated links. Needs root.
#[derive(Parser)]
#[command(name = "marline-lab", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs scenarios: each link alone, then Marline over all of them
    Run(RunArgs),
    /// Runs scenarios with Marline, kernel MPTCP and the tunnels named in the files
    Compare(CompareArgs),
    /// Measures the data plane over unlimited links, beside wireguard-go: speed and its cost
    Bench(BenchArgs),
    /// Checks the lab itself: delay, rate, loss and lateness of its links
    SelfTest,
    /// Proves with real programs what Marline promises, one line per promise
    Check(CheckArgs),
    /// Shows the bond at work in about a minute and writes an HTML page
    Demo(DemoArgs),
    /// Leaves the links of a scenario standing for experiments by hand
    Shell(ShellArgs),
}

#[derive(Args)]
struct Common {
    /// Scenario files
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Runs of each combination; figures are medians over them
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// So many runs of each combination, each with the timeline at another random phase below a
    /// second; figures have their 90th percentile as well
    #[arg(long, value_name = "N", conflicts_with = "runs", value_parser = clap::value_parser!(u32).range(1..=1000))]
    phases: Option<u32>,
    /// Only these profiles, of files that have some
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    profile: Vec<String>,
    /// Writes the results to this file as JSON, one object per scenario
    #[arg(long, value_name = "OUT")]
    json: Option<PathBuf>,
    /// Writes the tables to this file as Markdown
    #[arg(long, value_name = "OUT")]
    markdown: Option<PathBuf>,
    /// Seed of the links' randomness, in place of the file's
    #[arg(long)]
    seed: Option<u64>,
    /// Only these congestion controls
    #[arg(long, value_delimiter = ',')]
    cc: Vec<Cc>,
    /// Only these directions
    #[arg(long, value_delimiter = ',')]
    direction: Vec<Direction>,
    /// How often a run is repeated when the machine was too busy or the emulator too late
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=10))]
    repeats: u32,
    /// Leaves out the links alone, and with them the shares
    #[arg(long)]
    no_native: bool,
    /// Writes the time series of every run into this directory as JSON
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    #[command(flatten)]
    binaries: Binaries,
}

#[derive(Args)]
struct Binaries {
    /// Where marline and marline-server are; beside this program when left out
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
}

#[derive(Args)]
struct BenchArgs {
    #[command(flatten)]
    what: bench::BenchArgs,
    #[command(flatten)]
    binaries: Binaries,
}

#[derive(Args)]
struct RunArgs {
    #[command(flatten)]
    common: Common,
    /// Measures the links alone and nothing else
    #[arg(long, conflicts_with = "no_native")]
    native_only: bool,
}

#[derive(Args)]
struct CompareArgs {
    #[command(flatten)]
    common: Common,
    /// Only these: marline, mptcp, or names of [external.NAME]
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    through: Vec<String>,
}

#[derive(Args)]
struct CheckArgs {
    /// Only these parts
    #[arg(long, value_delimiter = ',', num_args = 1.., value_name = "NAME")]
    only: Vec<check::Part>,
    /// Writes the lines to this file as JSON
    #[arg(long, value_name = "OUT")]
    json: Option<PathBuf>,
    #[command(flatten)]
    binaries: Binaries,
}

#[derive(Args)]
struct DemoArgs {
    /// Where the page is written
    #[arg(long, value_name = "FILE", default_value = "marline-demo.html")]
    html: PathBuf,
    #[command(flatten)]
    binaries: Binaries,
}

#[derive(Args)]
struct ShellArgs {
    /// Scenario whose links are wanted
    file: PathBuf,
    /// Which of the file's profiles, where it has some
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Brings Marline up as well
    #[arg(long)]
    marline: bool,
    #[command(flatten)]
    binaries: Binaries,
}

impl Binaries {
    fn directory(&self) -> Result<PathBuf> {
        match &self.bin_dir {
            Some(directory) => Ok(directory.clone()),
            None => {
                let own = std::env::current_exe().context("cannot tell where this program is")?;
                Ok(own.parent().unwrap_or(Path::new(".")).to_owned())
            }
        }
    }
}

/// Does what was typed.
pub fn run() -> Result<()> {
    let cli = Cli::parse();
    // Files first: a typing error should not need root to be found.
    match cli.command {
        Command::Run(args) => {
            let through = if args.native_only {
                vec![]
            } else {
                vec![Through::Marline]
            };
            scenarios(&args.common, |_| Ok(through.clone()))
        }
        Command::Compare(args) => scenarios(&args.common, |scenario| {
            let mut all = vec![Through::Marline, Through::Mptcp];
            all.extend(scenario.external.keys().cloned().map(Through::External));
            if args.through.is_empty() {
                return Ok(all);
            }
            args.through
                .iter()
                .map(|name| {
                    all.iter()
                        .find(|one| one.label().as_deref().unwrap_or("marline") == name)
                        .cloned()
                        .ok_or_else(|| {
                            Refusal::Usage(format!(
                                "--through {name}: {} has no such tunnel; there are marline, \
                                 mptcp and its tables [external.NAME]",
                                scenario.name
                            ))
                        })
                })
                .collect()
        }),
        Command::Bench(args) => {
            session::check_machine()?;
            let binaries = args.binaries.directory()?;
            tunnel::check_binaries(&binaries)?;
            bench::run(&args.what, &binaries, &Interrupt::install()?)
        }
        Command::SelfTest => {
            session::check_machine()?;
            self_test::run(&Interrupt::install()?)
        }
        Command::Check(args) => {
            session::check_machine()?;
            let binaries = args.binaries.directory()?;
            tunnel::check_binaries(&binaries)?;
            check::run(
                &args.only,
                args.json.as_deref(),
                &binaries,
                &Interrupt::install()?,
            )
        }
        Command::Demo(args) => {
            session::check_machine()?;
            demo::run(
                &args.html,
                &args.binaries.directory()?,
                &Interrupt::install()?,
            )
        }
        Command::Shell(args) => shell(&args),
    }
}

fn scenarios(
    common: &Common,
    through: impl Fn(&Scenario) -> Result<Vec<Through>, Refusal>,
) -> Result<()> {
    let mut loaded = Vec::new();
    for file in &common.files {
        for scenario in profiles(file, &common.profile)? {
            let through = through(&scenario)?;
            loaded.push((scenario, through));
        }
    }
    session::check_machine()?;
    let binaries = common.binaries.directory()?;
    if loaded
        .iter()
        .any(|(_, through)| through.contains(&Through::Marline))
    {
        tunnel::check_binaries(&binaries)?;
    }
    let interrupt = Interrupt::install()?;
    if let Some(directory) = &common.report {
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
    }
    let mut results: Vec<ScenarioResult> = Vec::new();
    for (scenario, through) in &loaded {
        let plan = SessionPlan {
            through: through.clone(),
            runs: common.phases.unwrap_or(common.runs),
            phases: common.phases.is_some(),
            seed: common.seed.unwrap_or(scenario.seed),
            cc: chosen(&common.cc, &scenario.cc),
            direction: chosen(&common.direction, &scenario.direction),
            native: !common.no_native,
            repeats: common.repeats,
            binaries: binaries.clone(),
        };
        let mut progress = Progress::new();
        let mut remarks = |text: &str| {
            let clear = if std::io::stderr().is_terminal() {
                "\r\x1b[K"
            } else {
                ""
            };
            eprintln!("{clear}remark: {text}");
        };
        let session = session::measure(scenario, &plan, &interrupt, &mut progress, &mut remarks)?;
        say!("{}", table::terminal(std::slice::from_ref(&session.result)));
        if let Some(directory) = &common.report {
            let path = directory.join(format!("{}.json", scenario.name));
            let text = serde_json::to_string(&session.series)?;
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        results.push(session.result);
        // After each scenario: an interrupted evening keeps what it has.
        if let Some(path) = &common.json {
            let text = serde_json::to_string_pretty(&results)?;
            fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        if let Some(path) = &common.markdown {
            fs::write(path, table::markdown(&results))
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    Ok(())
}

/// The scenarios of a file, at least one: all, or those of the profiles that are wanted.
fn profiles(file: &Path, wanted: &[String]) -> Result<Vec<Scenario>, Refusal> {
    let all = Scenario::load(file)?;
    if wanted.is_empty() || all.len() == 1 {
        return Ok(all);
    }
    let profile = |scenario: &Scenario| scenario.profile.clone().unwrap_or_default();
    let names: Vec<String> = all.iter().map(profile).collect();
    let is_wanted = |scenario: &Scenario| wanted.contains(&profile(scenario));
    let chosen: Vec<Scenario> = all.into_iter().filter(is_wanted).collect();
    if chosen.is_empty() {
        return Err(Refusal::Usage(format!(
            "--profile {}: {} has none of them; there are {}",
            wanted.join(","),
            file.display(),
            names.join(", ")
        )));
    }
    Ok(chosen)
}

fn chosen<T: Copy + PartialEq>(typed: &[T], file: &[T]) -> Vec<T> {
    if typed.is_empty() {
        file.to_vec()
    } else {
        typed.to_vec()
    }
}

fn shell(args: &ShellArgs) -> Result<()> {
    let wanted: Vec<String> = args.profile.iter().cloned().collect();
    let mut scenarios = profiles(&args.file, &wanted)?;
    let scenario = scenarios.remove(0);
    if !scenarios.is_empty() {
        let what = format!(
            "{} has several profiles: say --profile NAME",
            args.file.display()
        );
        return Err(Refusal::Usage(what).into());
    }
    session::check_machine()?;
    let interrupt = Interrupt::install()?;
    let lab = Lab::build(&scenario.links, scenario.seed)?;
    let through = if args.marline {
        Through::Marline
    } else {
        Through::Native(0)
    };
    let binaries = args.binaries.directory()?;
    let tunnel = tunnel::start(&lab, &through, &binaries, &scenario.external, &interrupt)?;
    sayln!("{} stands. In another terminal, as root:", scenario.name);
    for (namespace, what) in [
        (lab.client(), "the client, with wan1, wan2, …"),
        (lab.server(), "the providers' router and the server"),
        (
            lab.host(),
            "the internet host, 203.0.113.2 and 2001:db8:113::2",
        ),
    ] {
        sayln!("  ip netns exec {} bash    # {what}", namespace.name());
    }
    sayln!(
        "Logs and private files are in {}.",
        lab.directory().display()
    );
    sayln!("Ctrl-C takes everything away again.");
    let far_away = Instant::now() + std::time::Duration::from_secs(365 * 24 * 3600);
    let ended = interrupt.sleep_until(far_away);
    drop(tunnel);
    match ended {
        Err(error) if matches!(error.downcast_ref(), Some(Refusal::Interrupted)) => Ok(()),
        other => other,
    }
}

/// One line on standard error that says what is going on.
struct Progress {
    shown: bool,
    title: String,
    seconds: f64,
    last: Option<(f64, u64)>,
}

impl Progress {
    fn new() -> Progress {
        Progress {
            shown: std::io::stderr().is_terminal(),
            title: String::new(),
            seconds: 0.0,
            last: None,
        }
    }
}

impl Observer for Progress {
    fn begin(&mut self, series: &Series, seconds: f64) {
        self.title.clone_from(&series.title);
        self.seconds = seconds;
        self.last = None;
    }

    fn sample(&mut self, sample: &Sample) {
        let bytes = sample.flow_bytes.iter().sum();
        let (last_ms, last_bytes) = *self.last.get_or_insert((sample.t_ms, bytes));
        if !self.shown || sample.t_ms - last_ms < 500.0 {
            return;
        }
        let mbit_s = (bytes - last_bytes) as f64 * 8.0 / 1000.0 / (sample.t_ms - last_ms);
        eprint!(
            "\r\x1b[K{}: {:.0} of {:.0} s, {mbit_s:.1} Mbit/s",
            self.title,
            sample.t_ms / 1000.0,
            self.seconds
        );
        self.last = Some((sample.t_ms, bytes));
    }

    fn event(&mut self, _mark: &Mark) {}

    fn end(&mut self, series: &Series) {
        if self.shown {
            eprint!("\r\x1b[K");
        } else {
            let goodput = series
                .goodput_mbit_s
                .map_or(String::new(), |goodput| format!(": {goodput:.1} Mbit/s"));
            eprintln!("{}{goodput}", series.title);
        }
    }
}

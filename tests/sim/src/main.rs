//! `marline-sim`: plays plans and seeds, and says what came of them.

use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use marline_sim::cellular;
use marline_sim::check::Violation;
use marline_sim::event::Plan;
use marline_sim::generate;
use marline_sim::kinds::{self, Kind, Table};
use marline_sim::packet::Side;
use marline_sim::phases;
use marline_sim::report::{self, Report};
use marline_sim::sweep::{self, Links, Sweep};
use marline_sim::tcp::Algorithm;
use marline_sim::world::World;

/// Plays whole bonds in virtual time.
///
/// Without a plan, each seed makes one of its own: random links, traffic and
/// trouble. The exit code is 1 if anything happened that must not.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Options {
    #[command(subcommand)]
    command: Option<Command>,
    /// Seed of the run.
    #[arg(long, default_value_t = 1, conflicts_with = "seeds")]
    seed: u64,
    /// Seeds of many runs, the last not included.
    #[arg(long, value_name = "A..B", value_parser = seed_range)]
    seeds: Option<(u64, u64)>,
    /// A plan in TOML; see tests/sim/plans.
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
    /// Play the plan with its timeline at so many random phases within a second.
    #[arg(long, value_name = "N", requires = "plan", conflicts_with_all = ["twice", "news", "paths", "show_plan"],
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    phases: Option<u32>,
    /// Print one JSON object per run.
    #[arg(long)]
    json: bool,
    /// Print the plan that a seed makes, and do not play it.
    #[arg(long)]
    show_plan: bool,
    /// Play each run twice and compare.
    #[arg(long)]
    twice: bool,
    /// Print what the endpoints reported, with the moment.
    #[arg(long)]
    news: bool,
    /// Print what both ends know of their paths, every so many milliseconds.
    #[arg(long, value_name = "MS")]
    paths: Option<u64>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One bulk flow over random links that stand still: the sum, as a distribution.
    ///
    /// For each seed, one to five links and a download over them, with each congestion
    /// control: through the bond, through each link alone with and without the tunnel.
    Sweep(SweepOptions),
    /// One bulk flow over two to four links drawn from a grid: the same figures, and a mark to reach.
    ///
    /// Rates 5 to 500 Mbit/s (scaled down to what a run can afford), round trips 10 to 150 ms, loss
    /// 0, 0.5 or 2 %.
    Grid(SweepOptions),
    /// One link of each kind, one flow and pings: the share of native, and the queue.
    ///
    /// For each kind, rate, round trip and congestion control: a download and pings over a
    /// bond of one link, and the same natively.
    Kinds(KindsOptions),
    /// Prints a trace of a mobile link that nobody recorded, in Mahimahi's format.
    Trace(TraceOptions),
}

#[derive(Debug, Args)]
struct TraceOptions {
    /// The same seed, the same trace.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Its length; it is replayed in a loop.
    #[arg(long, value_name = "S", default_value_t = 10.0, value_parser = length)]
    seconds: f64,
    /// Its mean rate, Mbit/s.
    #[arg(long, default_value_t = 12.0)]
    mbit: f64,
}

#[derive(Debug, Args)]
struct KindsOptions {
    /// Kinds of links; all when left out.
    #[arg(long, value_delimiter = ',', value_parser = Kind::parse)]
    kinds: Vec<Kind>,
    /// Rates, Mbit/s.
    #[arg(
        long,
        value_name = "MBIT",
        value_delimiter = ',',
        default_value = "0.5,2,10,50"
    )]
    rates: Vec<f64>,
    /// Round trips, milliseconds.
    #[arg(
        long,
        value_name = "MS",
        value_delimiter = ',',
        default_value = "10,40,150"
    )]
    rtts: Vec<f64>,
    /// Congestion controls: cubic, bbr, reno, cubic-ecn, prague.
    #[arg(long, value_delimiter = ',', default_value = "cubic,bbr", value_parser = algorithm)]
    cc: Vec<Algorithm>,
    /// Virtual length of each run; the last two thirds are measured.
    #[arg(long, value_name = "S", default_value_t = 20.0, value_parser = length)]
    seconds: f64,
    /// Of what is random about the links.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Threads; as many as there are processors when left out.
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Print one JSON array with every cell.
    #[arg(long)]
    json: bool,
    /// Print the plans, for --plan, and do not play them.
    #[arg(long)]
    show_plan: bool,
}

#[derive(Debug, Args)]
struct SweepOptions {
    /// Seeds, the last not included.
    #[arg(long, value_name = "A..B", value_parser = seed_range, default_value = "1..61")]
    seeds: (u64, u64),
    /// Congestion controls: cubic, bbr, reno, cubic-ecn, prague.
    #[arg(long, value_delimiter = ',', default_value = "cubic,bbr", value_parser = algorithm)]
    cc: Vec<Algorithm>,
    /// Virtual length of each run; the last two thirds are measured.
    #[arg(long, value_name = "S", default_value_t = 15.0, value_parser = length)]
    seconds: f64,
    /// Threads; as many as there are processors when left out.
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Print one JSON object with every cell.
    #[arg(long)]
    json: bool,
    /// Print the plans, for --plan, and do not play them.
    #[arg(long)]
    show_plan: bool,
}

fn algorithm(text: &str) -> Result<Algorithm, String> {
    match text {
        "cubic" => Ok(Algorithm::Cubic),
        "bbr" => Ok(Algorithm::Bbr),
        "reno" => Ok(Algorithm::Reno),
        "cubic-ecn" => Ok(Algorithm::CubicEcn),
        "prague" => Ok(Algorithm::Prague),
        _ => Err("give cubic, bbr, reno, cubic-ecn or prague".to_owned()),
    }
}

fn length(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (1.0..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("give 1 to 3600 seconds".to_owned()),
    }
}

fn seed_range(text: &str) -> Result<(u64, u64), String> {
    let bounds = text
        .split_once("..")
        .and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    match bounds {
        Some((first, end)) if first < end => Ok((first, end)),
        _ => Err("give two numbers, the first below the second, such as 1..100".to_owned()),
    }
}

/// Prints to standard output, and ends the process quietly when nobody reads it any more (`| head`).
fn say(text: fmt::Arguments<'_>) {
    let mut out = io::stdout().lock();
    match out.write_fmt(text).and_then(|()| out.flush()) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => {
            eprintln!("marline-sim: cannot write to standard output: {error}");
            std::process::exit(2);
        }
    }
}

/// `print!` that does not panic.
macro_rules! say {
    ($($what:tt)*) => { say(format_args!($($what)*)) };
}

/// `println!` that does not panic.
macro_rules! sayln {
    ($($what:tt)*) => { say(format_args!("{}\n", format_args!($($what)*))) };
}

fn main() -> ExitCode {
    let options = Options::parse();
    let done = match &options.command {
        Some(Command::Sweep(options)) => sweep(options, Links::Random).map(|()| true),
        Some(Command::Grid(options)) => sweep(options, Links::Grid).map(|()| true),
        Some(Command::Kinds(options)) => kinds(options).map(|()| true),
        Some(Command::Trace(options)) => trace(options).map(|()| true),
        None => play(&options),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(complaint) => {
            eprintln!("marline-sim: {complaint}");
            ExitCode::from(2)
        }
    }
}

/// Whether all went well.
fn play(options: &Options) -> Result<bool, String> {
    let plan = options.plan.as_deref().map(read_plan).transpose()?;
    let (first, end) = options.seeds.unwrap_or((options.seed, options.seed + 1));
    let commit = commit();
    let mut failed = Vec::new();
    for seed in first..end {
        let plan = plan.clone().unwrap_or_else(|| generate::from_seed(seed));
        if options.show_plan {
            sayln!(
                "{}",
                toml::to_string(&plan).map_err(|error| error.to_string())?
            );
            continue;
        }
        if let Some(count) = options.phases {
            let phases = phases::run(&plan, seed, count, &commit);
            if phases.violations > 0 {
                failed.push(seed);
            }
            if options.json {
                sayln!("{}", as_json(&phases)?);
            } else {
                say!("{}", phases.text());
            }
            continue;
        }
        let mut report = run(options, &plan, seed, &commit);
        if options.twice {
            let again = report::run(&plan, seed, &commit).fingerprint;
            if again != report.fingerprint {
                let what = format!("the second run differs: {again}");
                report.violations.push(Violation {
                    at: plan.duration(),
                    what,
                });
            }
        }
        if !report.violations.is_empty() {
            failed.push(seed);
        }
        print(options, &report)?;
    }
    if options.seeds.is_some() && !options.show_plan && !options.json {
        sayln!("{} runs, {} failed: {failed:?}", end - first, failed.len());
    }
    Ok(failed.is_empty())
}

fn trace(options: &TraceOptions) -> Result<(), String> {
    if !(0.1..=1000.0).contains(&options.mbit) {
        return Err(format!("--mbit {}: give 0.1 to 1000", options.mbit));
    }
    let length_ms = (options.seconds * 1e3) as u64;
    say!("{}", cellular::text(options.seed, length_ms, options.mbit));
    Ok(())
}

/// Figures have no pass mark here: a sweep says where the bond stands.
fn sweep(options: &SweepOptions, links: Links) -> Result<(), String> {
    let (first, end) = options.seeds;
    if options.show_plan {
        for seed in first..end {
            for cc in &options.cc {
                let plan = sweep::plan(links, seed, *cc, options.seconds);
                let text = toml::to_string(&plan).map_err(|error| error.to_string())?;
                sayln!("{text}");
            }
        }
        return Ok(());
    }
    let commit = commit();
    let plan = Sweep {
        links,
        seeds: options.seeds,
        cc: options.cc.clone(),
        duration_s: options.seconds,
        jobs: threads(options.jobs),
    };
    let cells = sweep::run(&plan, &commit);
    let summary = sweep::summarise(&commit, options.seeds, options.seconds, cells);
    if options.json {
        sayln!("{}", as_json(&summary)?);
    } else {
        say!("{}", summary.text());
    }
    Ok(())
}

fn threads(asked: Option<usize>) -> usize {
    let processors = std::thread::available_parallelism().map_or(1, Into::into);
    asked.unwrap_or(processors)
}

/// No pass mark either.
fn kinds(options: &KindsOptions) -> Result<(), String> {
    let table = Table {
        kinds: if options.kinds.is_empty() {
            Kind::ALL.to_vec()
        } else {
            options.kinds.clone()
        },
        rates_mbit: options.rates.clone(),
        rtts_ms: options.rtts.clone(),
        cc: options.cc.clone(),
        duration_s: options.seconds,
        seed: options.seed,
        jobs: threads(options.jobs),
    };
    let plans = kinds::cells(&table)
        .into_iter()
        .map(|(kind, rate, rtt, cc)| {
            kinds::plan(kind, rate, rtt, cc, table.duration_s, table.seed)
        });
    for plan in plans {
        plan.check()?;
        if options.show_plan {
            let text = toml::to_string(&plan).map_err(|error| error.to_string())?;
            sayln!("{text}");
        }
    }
    if options.show_plan {
        return Ok(());
    }
    let commit = commit();
    let cells = kinds::run(&table, &commit);
    if options.json {
        sayln!("{}", as_json(&cells)?);
    } else {
        say!("{}", kinds::text(&cells, &commit));
    }
    Ok(())
}

fn run(options: &Options, plan: &Plan, seed: u64, commit: &str) -> Report {
    let mut world = World::new(plan, seed);
    if let Some(every) = options.paths.filter(|every| *every > 0) {
        for at in (0..plan.duration()).step_by(every as usize * 1_000_000) {
            world.run_until(at);
            print_paths(&world);
        }
    }
    world.run_until(plan.duration());
    if options.news {
        for (at, side, news) in world.news() {
            sayln!("{:>10.3} ms {side:?}: {news:?}", *at as f64 / 1e6);
        }
    }
    let mut report = report::of_world(plan, seed, commit, &world);
    if options.plan.is_some() {
        report::compare_with_native(&mut report, plan, seed);
    }
    report
}

fn print_paths(world: &World) {
    for side in [Side::Client, Side::Server] {
        for bond in world.snapshot(side).bonds {
            for path in bond.paths {
                sayln!(
                    "{:>8.0} ms {side:?} path {} {:?} {} {:?} {:?}: capacity {:.1} Mbit/s, rtt {:.1} (min {:.1}) ms, \
                     queue {:.1} ms, in flight {} kB, loss {:.3}, lost {} ({} spurious); waiting {} kB",
                    world.now() as f64 / 1e6,
                    path.id,
                    path.state,
                    path.control,
                    path.rate_reason,
                    path.rank,
                    path.capacity_bit_s as f64 / 1e6,
                    path.rtt_ms,
                    path.rtt_min_ms,
                    path.queue_ms,
                    path.inflight_bytes / 1000,
                    path.loss,
                    path.lost,
                    path.lost_spurious,
                    bond.queue_bytes / 1000
                );
            }
            for flow in bond.busiest {
                sayln!(
                    "{:>8.0} ms {side:?} flow {} {:?}: {:.1} Mbit/s, {:?} because {:?}, paths {:?}, \
                     released after {:.0} ms, copied {:?}; waiting {} kB",
                    world.now() as f64 / 1e6,
                    flow.slot,
                    flow.class,
                    flow.rate_bit_s as f64 / 1e6,
                    flow.way,
                    flow.reason,
                    flow.paths,
                    flow.latency_ms,
                    flow.copied,
                    flow.queue_bytes / 1000
                );
            }
        }
    }
}

/// Many good runs in one line each, anything else in full.
fn print(options: &Options, report: &Report) -> Result<(), String> {
    if options.json {
        sayln!("{}", as_json(report)?);
    } else if options.seeds.is_some() && report.violations.is_empty() {
        sayln!(
            "{}: run {}, late {}, skipped {}",
            report.plan,
            report.fingerprint,
            report.faults.out_of_order,
            report.skipped
        );
    } else {
        say!("{}", report.text());
    }
    Ok(())
}

fn as_json(value: &impl serde::Serialize) -> Result<String, String> {
    serde_json::to_string(value).map_err(|error| error.to_string())
}

fn read_plan(path: &Path) -> Result<Plan, String> {
    let name = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("{name}: the plan cannot be read: {error}"))?;
    let mut plan: Plan = toml::from_str(&text).map_err(|error| format!("{name}: {error}"))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    for uplink in &mut plan.uplink {
        for link in [&mut uplink.up, &mut uplink.down] {
            if let Some(trace) = &mut link.trace {
                trace.load(folder)?;
            }
        }
    }
    plan.check()
        .map_err(|complaint| format!("{name}: {complaint}"))?;
    Ok(plan)
}

/// The commit of the working tree, marked when there are changes in it.
fn commit() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let described = std::process::Command::new("git")
        .args(["describe", "--always", "--dirty"])
        .current_dir(folder)
        .output();
    match described {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        }
        _ => "unknown".to_owned(),
    }
}

//! A scenario over several runs: natively, through tunnels, and what it comes to.
//!
//! A round is: each link alone, then each tunnel, every combination of congestion control and
//! direction each time. Rounds are repeated with the next seed, so that what is compared was
//! measured minutes and not hours apart. A run that the machine spoiled (emulator late, machine
//! too busy) is repeated at once; if it stays spoiled it counts, with a remark.
//!
//! Where phases are asked for, each round has the scenario's timeline later by another random
//! part of a second, and results tell the ninth of ten rounds besides: how long a gap is depends
//! on what was under way just then.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Result;
use marline_sim::rng::phases;

use crate::refusal::Refusal;
use crate::results::{Direction, Measured, Observer, ScenarioResult, Series};
use crate::run::{Figure, Interrupt, RunOutcome, RunPlan, run_once};
use crate::scenario::{Cc, Event, Kind, Measure, Scenario, Workload};
use crate::stats::{median, percentile};
use crate::topology::Lab;
use crate::tunnel::{self, Through, Tunnel};

/// Length of the idle ping before a run, s.
const IDLE_PING_S: f64 = 3.0;

/// How a scenario is to be measured.
#[derive(Clone, Debug)]
pub struct SessionPlan {
    /// Tunnels in order.
    pub through: Vec<Through>,
    /// Rounds.
    pub runs: u32,
    /// Whether each round has the timeline at another phase, below a second.
    pub phases: bool,
    /// Seed of the first round.
    pub seed: u64,
    /// Congestion controls.
    pub cc: Vec<Cc>,
    /// Directions.
    pub direction: Vec<Direction>,
    /// Whether each link is measured alone first.
    pub native: bool,
    /// How often a run that the machine spoiled is repeated.
    pub repeats: u32,
    /// Where the binaries are.
    pub binaries: PathBuf,
}

/// What a session leaves behind.
pub struct SessionResult {
    /// The figures.
    pub result: ScenarioResult,
    /// What was recorded in each run through a tunnel, in order.
    pub series: Vec<Series>,
}

/// Everything that names a group of results. They stand in the order of `rank` and `turn`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Column {
    /// Place of the tunnel; links alone come last.
    rank: usize,
    /// Place of the combination of congestion control and direction.
    turn: usize,
    through: Option<String>,
    cc: Option<&'static str>,
    direction: Option<Direction>,
}

/// Measures one scenario.
pub fn measure(
    scenario: &Scenario,
    plan: &SessionPlan,
    interrupt: &Interrupt,
    observer: &mut dyn Observer,
    remark: &mut dyn FnMut(&str),
) -> Result<SessionResult> {
    let lab = Lab::build(&scenario.links, plan.seed)?;
    let mut session = Session {
        scenario,
        plan,
        lab: &lab,
        interrupt,
        observer,
        remark,
        values: BTreeMap::new(),
        series: Vec::new(),
    };
    for round in 0..plan.runs {
        session.round(round)?;
    }
    Ok(session.result())
}

struct Session<'a> {
    scenario: &'a Scenario,
    plan: &'a SessionPlan,
    lab: &'a Lab,
    interrupt: &'a Interrupt,
    observer: &'a mut dyn Observer,
    remark: &'a mut dyn FnMut(&str),
    /// Values of each metric of each column, one per round; with the metric's place and unit.
    values: BTreeMap<Column, Vec<(Figure, Vec<f64>)>>,
    series: Vec<Series>,
}

impl Session<'_> {
    fn round(&mut self, round: u32) -> Result<()> {
        if self.plan.native && self.scenario.measure.native && self.scenario.has_bulk() {
            for link in 0..self.lab.links().len() {
                self.through(&Through::Native(link), round)?;
            }
        }
        for through in &self.plan.through {
            self.through(through, round)?;
        }
        Ok(())
    }

    fn through(&mut self, through: &Through, round: u32) -> Result<()> {
        // Wires as at the start of a scenario, so that the tunnel comes up on whole links.
        self.lab.reset(self.plan.seed)?;
        let externals = &self.scenario.external;
        let mut tunnel = tunnel::start(
            self.lab,
            through,
            &self.plan.binaries,
            externals,
            self.interrupt,
        )?;
        if self.scenario.measure.idle_ping && !matches!(through, Through::Native(_)) {
            self.idle_ping(through, &mut tunnel, round)?;
        }
        let events = match self.plan.phases {
            true => {
                let phases = phases(self.plan.seed, self.plan.runs);
                self.scenario.shifted_events(phases[round as usize])
            }
            false => self.scenario.events.clone(),
        };
        let directions = match self.scenario.has_bulk() {
            true => self.plan.direction.clone(),
            false => vec![Direction::Down],
        };
        let ccs: Vec<Option<Cc>> = match self.scenario.has(Kind::Tcp) {
            // MPTCP is TCP.
            true => self
                .plan
                .cc
                .iter()
                .filter(|cc| (**cc, through) != (Cc::Quic, &Through::Mptcp))
                .map(|cc| Some(*cc))
                .collect(),
            false => vec![None],
        };
        let combinations = ccs
            .iter()
            .flat_map(|cc| directions.iter().map(|direction| (*cc, *direction)));
        for (turn, (cc, direction)) in combinations.enumerate() {
            self.one(through, &mut tunnel, turn, (cc, direction), round, &events)?;
        }
        Ok(())
    }

    /// One combination in one round, repeated while the machine spoils it.
    fn one(
        &mut self,
        through: &Through,
        tunnel: &mut Tunnel<'_>,
        turn: usize,
        (cc, direction): (Option<Cc>, Direction),
        round: u32,
        events: &[Event],
    ) -> Result<()> {
        let scenario = self.scenario;
        let native = matches!(through, Through::Native(_));
        let name = through.label().unwrap_or_else(|| "marline".into());
        let cc_name = cc
            .map(Cc::name)
            .or(scenario.has(Kind::Quic).then_some("quic"));
        let mut workloads = scenario.workloads.clone();
        if native {
            let bulk = |workload: &Workload| matches!(workload.kind, Kind::Tcp | Kind::Quic);
            workloads.retain(|workload| bulk(workload) && !workload.is_beside());
        }
        if cc == Some(Cc::Quic) {
            // Others keep what they speak.
            let ours = workloads
                .iter_mut()
                .filter(|workload| workload.kind == Kind::Tcp && !workload.is_beside());
            ours.for_each(|workload| workload.kind = Kind::Quic);
        }
        let seconds = match scenario.measure.native_s.filter(|_| native) {
            Some(seconds) => seconds.clamp(scenario.measure.warmup_s + 1.0, scenario.duration_s),
            None => scenario.duration_s,
        };
        // Alone, a link is the yardstick for the whole: its own changes of rate belong to it, a
        // death would only measure itself.
        let native_events: Vec<Event> = events
            .iter()
            .filter(|event| !event.change.takes_away() && !event.change.gives_back())
            .cloned()
            .collect();
        let mut title = format!("{} through {name}", scenario.name);
        if let Some(cc_name) = cc_name {
            title += &format!(", {cc_name}");
        }
        if scenario.has_bulk() {
            title += &format!(" {direction}");
        }
        title += &format!(", run {} of {}", round + 1, self.plan.runs);
        let plan = RunPlan {
            title: title.clone(),
            workloads: &workloads,
            events: if native { &native_events } else { events },
            measure: &scenario.measure,
            seconds,
            way: tunnel.way.clone(),
            cc: cc.filter(|cc| *cc != Cc::Quic),
            direction,
            seed: self.plan.seed + u64::from(round),
            tunnel_pids: tunnel.pids(),
        };
        let column = Column {
            rank: match through {
                Through::Native(index) => 100 + index,
                other => self
                    .plan
                    .through
                    .iter()
                    .position(|one| one == other)
                    .unwrap_or(0),
            },
            turn,
            through: through.label(),
            cc: cc_name,
            direction: scenario.has_bulk().then_some(direction),
        };
        let outcome = self.run(&plan, tunnel)?;
        for reason in &outcome.broken {
            (self.remark)(&format!("{title}: {reason}"));
        }
        self.note(column, &outcome.figures);
        if !native {
            self.series.push(outcome.series);
        }
        Ok(())
    }

    fn run(&mut self, plan: &RunPlan<'_>, tunnel: &mut Tunnel<'_>) -> Result<RunOutcome> {
        let mut repeats = 0;
        loop {
            let before = tunnel.sent()?;
            let mut outcome = run_once(self.lab, plan, self.interrupt, self.observer)?;
            tunnel.check()?;
            if let (Some(before), Some(after)) = (before, tunnel.sent()?) {
                outcome.figures.extend(after.since(before).figures());
            }
            match &outcome.spoiled {
                Some(reason) if repeats < self.plan.repeats => {
                    (self.remark)(&format!("{}: {reason}; repeated", plan.title));
                    repeats += 1;
                }
                Some(reason) => {
                    (self.remark)(&format!("{}: {reason}; counted all the same", plan.title));
                    return Ok(outcome);
                }
                None => return Ok(outcome),
            }
        }
    }

    /// Round trips through the tunnel while nothing else runs.
    fn idle_ping(&mut self, through: &Through, tunnel: &mut Tunnel<'_>, round: u32) -> Result<()> {
        let ping = Workload::new(Kind::Ping);
        let measure = Measure {
            warmup_s: 0.0,
            ..self.scenario.measure.clone()
        };
        let plan = RunPlan {
            title: format!("{} idle", self.scenario.name),
            workloads: &[ping],
            events: &[],
            measure: &measure,
            seconds: IDLE_PING_S,
            way: tunnel.way.clone(),
            cc: None,
            direction: Direction::Down,
            seed: self.plan.seed + u64::from(round),
            tunnel_pids: Vec::new(),
        };
        let outcome = self.run(&plan, tunnel)?;
        let figures: Vec<Figure> = [("ping_ms_p50", "idle_ping_ms_p50")]
            .into_iter()
            .filter_map(|(from, to)| Some(Figure::new(to, "ms", outcome.figure(from)?)))
            .collect();
        let column = Column {
            rank: self
                .plan
                .through
                .iter()
                .position(|one| one == through)
                .unwrap_or(0),
            turn: 0,
            through: through.label(),
            cc: None,
            direction: None,
        };
        self.note(column, &figures);
        Ok(())
    }

    fn note(&mut self, column: Column, figures: &[Figure]) {
        let metrics = self.values.entry(column).or_default();
        for figure in figures {
            match metrics
                .iter_mut()
                .find(|(known, _)| known.metric == figure.metric)
            {
                Some((_, values)) => values.push(figure.value),
                None => metrics.push((figure.clone(), vec![figure.value])),
            }
        }
    }

    fn result(self) -> SessionResult {
        // Native goodput of every link, by congestion control and direction.
        let mut native: BTreeMap<_, Vec<f64>> = BTreeMap::new();
        for (column, metrics) in &self.values {
            let alone = column
                .through
                .as_deref()
                .is_some_and(|name| name.starts_with("native "));
            let goodput = metrics
                .iter()
                .find(|(figure, _)| figure.metric == "goodput_mbit_s");
            if let (true, Some((_, values))) = (alone, goodput)
                && let Some(value) = median(values)
            {
                native
                    .entry((column.cc, column.direction))
                    .or_default()
                    .push(value);
            }
        }
        let mut results = Vec::new();
        for (column, metrics) in &self.values {
            let alone = native
                .get(&(column.cc, column.direction))
                .filter(|_| column.rank < 100);
            let sum = alone.map(|values| values.iter().sum::<f64>());
            let best = alone.map(|values| values.iter().copied().fold(0.0, f64::max));
            for (figure, values) in metrics {
                let Some(median) = median(values) else {
                    continue;
                };
                let ratio = |to: Option<f64>| {
                    to.filter(|to| figure.metric == "goodput_mbit_s" && *to > 0.0)
                        .map(|to| rounded(median / to, 4))
                };
                results.push(Measured {
                    metric: figure.metric.to_string(),
                    through: column.through.clone(),
                    cc: column.cc.map(str::to_owned),
                    direction: column.direction,
                    unit: figure.unit.into(),
                    median: rounded(median, 3),
                    min: rounded(values.iter().copied().fold(f64::INFINITY, f64::min), 3),
                    max: rounded(values.iter().copied().fold(f64::NEG_INFINITY, f64::max), 3),
                    p90: percentile(values, 0.9)
                        .filter(|_| self.plan.phases)
                        .map(|p90| rounded(p90, 3)),
                    runs: values.len() as u32,
                    share_of_native_sum: ratio(sum),
                    ratio_to_best_single: ratio(best),
                });
            }
        }
        SessionResult {
            result: ScenarioResult {
                scenario: self.scenario.name.clone(),
                commit: commit(),
                seed: self.plan.seed,
                results,
            },
            series: self.series,
        }
    }
}

fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}

/// The commit of the tree that this program was built from, as far as git can tell.
pub fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = std::process::Command::new("git")
            .args(["-C", env!("CARGO_MANIFEST_DIR")])
            .args(arguments)
            .stderr(std::process::Stdio::null())
            .output()
            .ok()?;
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    match git(&["rev-parse", "--short=12", "HEAD"]) {
        Some(commit) => match git(&["status", "--porcelain", "--untracked-files=no"]) {
            Some(changes) if changes.is_empty() => commit,
            _ => format!("{commit}-dirty"),
        },
        None => String::from("unknown"),
    }
}

/// Refuses to go on where the machine lacks what every lab needs.
pub fn check_machine() -> Result<(), Refusal> {
    if !rustix::process::geteuid().is_root() {
        return Err(Refusal::Privilege(
            "marline-lab makes network namespaces and TAP devices, which only root may; \
             run it with sudo"
                .into(),
        ));
    }
    if !std::path::Path::new("/dev/net/tun").exists() {
        return Err(Refusal::Facility(
            "/dev/net/tun is missing; load it with \"modprobe tun\"".into(),
        ));
    }
    if std::process::Command::new("ip")
        .arg("-V")
        .stdout(std::process::Stdio::null())
        .status()
        .is_err()
    {
        return Err(Refusal::Facility(
            "the command ip is missing; install the Debian package iproute2".into(),
        ));
    }
    Ok(())
}

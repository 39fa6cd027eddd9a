//! The demonstration: two unequal uplinks, alone and together, and one of them dies in silence.
//!
//! It is the newcomer's first look, so it is short, shows figures while they come about, and
//! ends with a page that can be sent to somebody else. What it shows is measured like everything
//! else here; nothing is smoothed or chosen.

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use marline_sim::link::LinkParams;

use crate::report::live::Live;
use crate::report::page;
use crate::results::{DemoResult, Direction, Phase, PhaseKind};
use crate::run::{Interrupt, RunPlan, run_once};
use crate::scenario::{Cc, Change, Event, Kind, LinkPlan, Measure, Workload};
use crate::session::commit;
use crate::topology::Lab;
use crate::tunnel::{self, Through};

/// Length of a link alone, of the bond, and of the part with the death, s.
const ALONE_S: f64 = 8.0;
const BOND_S: f64 = 12.0;
const DEATH_S: f64 = 20.0;
/// When the faster link falls silent, and when it carries again, s into the last part.
const DIES_S: f64 = 7.0;
const RETURNS_S: f64 = 13.0;

/// Runs the demonstration and writes its page.
pub fn run(html: &Path, binaries: &Path, interrupt: &Interrupt) -> Result<()> {
    let link = |params: LinkParams| LinkPlan {
        down: params.clone(),
        up: params,
        direct: false,
    };
    let links = [
        link(LinkParams::new(50.0, 7.5)),
        link(LinkParams::new(20.0, 30.0)),
    ];
    let mut live = Live::stdout();
    live.line("A client with two uplinks, a server, and a host on the internet behind it.");
    let started = utc(SystemTime::now());
    let lab = Lab::build(&links, 1)?;
    let measure = Measure {
        warmup_s: 2.0,
        ..Measure::default()
    };
    let download = [workload(Kind::Tcp, 0.0)];
    let mut phases = Vec::new();
    let mut plan = RunPlan {
        title: String::new(),
        workloads: &download,
        events: &[],
        measure: &measure,
        seconds: ALONE_S,
        way: Default::default(),
        cc: Some(Cc::Cubic),
        direction: Direction::Down,
        seed: 1,
        tunnel_pids: Vec::new(),
    };
    let externals = Default::default();
    for link in 0..links.len() {
        let tunnel = tunnel::start(
            &lab,
            &Through::Native(link),
            binaries,
            &externals,
            interrupt,
        )?;
        plan.title = format!("Uplink {} alone, without Marline", link + 1);
        plan.way = tunnel.way.clone();
        let outcome = run_once(&lab, &plan, interrupt, &mut live)?;
        phases.push(Phase {
            kind: PhaseKind::SingleLink { link },
            series: outcome.series,
        });
    }

    lab.reset(1)?;
    let mut tunnel = tunnel::start(&lab, &Through::Marline, binaries, &externals, interrupt)?;
    plan.title = "The bond: one download over both uplinks".into();
    plan.way = tunnel.way.clone();
    plan.tunnel_pids = tunnel.pids();
    plan.seconds = BOND_S;
    let outcome = run_once(&lab, &plan, interrupt, &mut live)?;
    tunnel.check()?;
    phases.push(Phase {
        kind: PhaseKind::Bond,
        series: outcome.series,
    });

    let download_and_call = [workload(Kind::Tcp, 0.0), workload(Kind::Call, 0.0)];
    let silent = |time_s, silent| Event {
        time_s,
        link: 0,
        change: Change::Blackhole {
            down: silent,
            up: silent,
        },
    };
    let events = [silent(DIES_S, true), silent(RETURNS_S, false)];
    plan.title = "A download and a call while uplink 1 dies in silence and comes back".into();
    plan.workloads = &download_and_call;
    plan.events = &events;
    plan.seconds = DEATH_S;
    let outcome = run_once(&lab, &plan, interrupt, &mut live)?;
    tunnel.check()?;
    for reason in &outcome.broken {
        live.line(&format!("broken: {reason}"));
    }
    phases.push(Phase {
        kind: PhaseKind::SilentDeath { link: 0 },
        series: outcome.series,
    });
    drop(tunnel);

    let demo = DemoResult {
        commit: commit(),
        machine: machine(),
        started,
        phases,
    };
    fs::write(html, page::page(&demo))
        .with_context(|| format!("cannot write {}", html.display()))?;
    live.line(&format!(
        "The whole story with its curves: {}",
        html.display()
    ));
    Ok(())
}

fn workload(kind: Kind, start_s: f64) -> Workload {
    Workload {
        start_s,
        ..Workload::new(kind)
    }
}

fn machine() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown processor", |(_, model)| model.trim());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("Linux {}, {model}, {cores} cores", kernel.trim())
}

/// `2026-01-31 12:00 UTC`.
fn utc(time: SystemTime) -> String {
    let seconds = time
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let (days, minutes) = (seconds / 86_400, seconds / 60 % 1440);
    // Civil date from a day count: years are counted from March, so that the leap day is last.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02} UTC",
        minutes / 60,
        minutes % 60
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let at = |seconds| utc(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01 00:00 UTC");
        assert_eq!(at(951_782_400), "2000-02-29 00:00 UTC");
        assert_eq!(at(1_767_225_540), "2025-12-31 23:59 UTC");
    }
}

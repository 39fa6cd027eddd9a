//! A timeline at many moments: what happens at 8 s happens at 8.0 s, 8.37 s, …
//!
//! How long a gap a link's death leaves depends on what was under way just then:
//! where the timers stood, how full the queue was, which packet came next. One
//! moment is one draw. So the whole timeline is shifted by random phases of less
//! than [`PHASE_S`], everything else stays, and what comes out is a distribution.

use serde::Serialize;

use crate::event::Plan;
use crate::report::{self, FlowReport, Report};
use crate::rng;

/// Phases are below this, seconds: longer than the period of anything that a bond does
/// while it works.
pub const PHASE_S: f64 = 1.0;

/// Where the values of a figure lie.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The smallest.
    pub min: f64,
    /// Half are below.
    pub median: f64,
    /// Nine of ten are below.
    pub p90: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// Of at least one value.
    ///
    /// # Panics
    /// Without a value.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Spread {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().checked_sub(1).expect("at least one value");
        let at = |share: f64| sorted[(last as f64 * share).round() as usize];
        Spread {
            min: at(0.0),
            median: at(0.5),
            p90: at(0.9),
            max: at(1.0),
        }
    }
}

/// One flow over all phases.
#[derive(Clone, Debug, Serialize)]
pub struct FlowPhases {
    /// What it was.
    pub kind: String,
    /// What the application got, Mbit/s.
    pub goodput_mbit_s: Spread,
    /// Longest time without anything for the application, milliseconds.
    pub gap_ms_max: Spread,
    /// Packets sent and not arrived at the end.
    pub missing: Spread,
    /// Packets of a call that came too late for it.
    pub late: Spread,
    /// Retransmission timeouts of the inner sender.
    pub timeouts: Spread,
}

/// A plan at many phases.
#[derive(Clone, Debug, Serialize)]
pub struct Phases {
    /// The plan's name.
    pub plan: String,
    /// The seed that drew the phases and that every run had.
    pub seed: u64,
    /// The commit that the simulator was run from.
    pub commit: String,
    /// By how much the timeline was shifted in each run, seconds.
    pub phases_s: Vec<f64>,
    /// The flows, as the plan lists them.
    pub flows: Vec<FlowPhases>,
    /// Second copies as a share of all bytes, per cent.
    pub copies_per_cent: Spread,
    /// How often something happened that must not.
    pub violations: usize,
}

/// The phases that a seed draws, seconds.
pub fn draw(seed: u64, count: u32) -> Vec<f64> {
    let phases = rng::phases(seed, count).into_iter();
    phases.map(|phase| phase * PHASE_S).collect()
}

/// The plan with its timeline later by a phase.
pub fn shifted(plan: &Plan, phase_s: f64) -> Plan {
    let mut plan = plan.clone();
    for timed in &mut plan.event {
        timed.at_s += phase_s;
    }
    plan
}

/// Plays a plan at so many phases, at least one.
pub fn run(plan: &Plan, seed: u64, count: u32, commit: &str) -> Phases {
    let phases_s = draw(seed, count.max(1));
    let reports: Vec<_> = phases_s
        .iter()
        .map(|phase_s| report::run(&shifted(plan, *phase_s), seed, commit))
        .collect();
    let flow = |index: usize| {
        let of = |figure: fn(&FlowReport) -> f64| {
            Spread::of(reports.iter().map(|report| figure(&report.flows[index])))
        };
        FlowPhases {
            kind: reports[0].flows[index].kind.clone(),
            goodput_mbit_s: of(|flow| flow.goodput_mbit_s),
            gap_ms_max: of(|flow| flow.gap_ms_max),
            missing: of(|flow| flow.missing as f64),
            late: of(|flow| flow.late as f64),
            timeouts: of(|flow| flow.timeouts as f64),
        }
    };
    Phases {
        plan: plan.name.clone(),
        seed,
        commit: commit.to_owned(),
        flows: (0..plan.flow.len()).map(flow).collect(),
        copies_per_cent: Spread::of(reports.iter().map(Report::copies_per_cent)),
        violations: reports.iter().map(|report| report.violations.len()).sum(),
        phases_s,
    }
}

impl Phases {
    /// In lines for people.
    pub fn text(&self) -> String {
        let mut out = format!(
            "{}: {} phases, seed {}, commit {}; median, nine of ten below, all between\n",
            self.plan,
            self.phases_s.len(),
            self.seed,
            self.commit
        );
        let line = |what: &str, spread: Spread| {
            format!(
                "    {what:<17} {:>8.1} {:>8.1}  {:.1} to {:.1}\n",
                spread.median, spread.p90, spread.min, spread.max
            )
        };
        for flow in &self.flows {
            out += &format!("  {}\n", flow.kind);
            for (what, spread) in [
                ("goodput Mbit/s", flow.goodput_mbit_s),
                ("longest gap ms", flow.gap_ms_max),
                ("packets missing", flow.missing),
                ("packets late", flow.late),
                ("timeouts", flow.timeouts),
            ] {
                out += &line(what, spread);
            }
        }
        out += "  all\n";
        out += &line("copies % of bytes", self.copies_per_cent);
        if self.violations > 0 {
            out += &format!("  VIOLATIONS: {}\n", self.violations);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_are_drawn_from_the_seed_and_shift_the_whole_timeline() {
        let phases = draw(3, 20);
        assert_eq!(phases, draw(3, 20));
        assert_ne!(phases, draw(4, 20));
        assert!(phases.iter().all(|phase| (0.0..PHASE_S).contains(phase)));
        let plan = crate::generate::from_seed(1);
        let later = shifted(&plan, 0.25);
        assert_eq!(later.event.len(), plan.event.len());
        for (after, before) in later.event.iter().zip(&plan.event) {
            assert!((after.at_s - before.at_s - 0.25).abs() < 1e-9);
        }
    }

    #[test]
    fn a_spread_is_that_of_its_values() {
        let spread = Spread::of((1..=21).rev().map(f64::from));
        assert_eq!(
            (spread.min, spread.median, spread.p90, spread.max),
            (1.0, 11.0, 19.0, 21.0)
        );
    }
}

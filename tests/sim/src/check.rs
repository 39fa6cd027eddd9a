//! What must hold in every run, whatever happens.
//!
//! * Nothing is invented: each packet that comes out was sent, byte for byte, and no longer ago than a network may
//!   keep it.
//! * Nothing comes out twice. (An end that was restarted has forgotten what it
//!   delivered; what was on its way at that moment is not judged.)
//! * TCP data comes out in the order it went in, except what its sender sends
//!   again, which may overtake, and where the receiving half gave up a hole and said
//!   so in its counters.
//! * Queues and buffers keep within their bounds.
//! * What is said of decisions is possible: a flow uses paths that there are, and only one that works carries bulk, one of them as the best.
//! * While at least one uplink works, pings are answered.
//! * Time goes on: nobody wants to be woken at the same moment for ever.

use std::collections::BTreeSet;

use marline_proto::{BondSnapshot, PathSnapshot, PathState, Rank, Snapshot};

use crate::link::Nanos;
use crate::workload::{Faults, Traffic};

/// Bytes that may wait for a path, per bond.
const QUEUE_BYTES_MAX: u64 = 8 << 20;
/// Packets that may be held back, per bond.
const HELD_PACKETS_MAX: u64 = 16_384;
/// Flows that may be remembered, per bond.
const FLOWS_MAX: u64 = 16_384;
/// Paths that may exist, per bond.
const PATHS_MAX: usize = 8;
/// How long an uplink may work before pings are answered again. A dead path is
/// probed every two seconds at least, a new session takes a few round trips.
pub const RESUME_WITHIN: Nanos = 5_000_000_000;
/// Violations that are kept in words.
const KEPT: usize = 20;

/// Something that must not happen, and when it was noticed.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Violation {
    /// Nanoseconds since the beginning.
    pub at: Nanos,
    /// What.
    pub what: String,
}

/// Watches a run.
#[derive(Debug)]
pub struct Checker {
    violations: Vec<Violation>,
    /// Kinds that were reported, so that each is reported once.
    said: BTreeSet<&'static str>,
    works_since: Vec<Option<Nanos>>,
    disturbed_at: Nanos,
    /// Most bytes that ever waited, most packets that were ever held.
    peaks: (u64, u64),
}

impl Checker {
    /// Watches a world with so many uplinks.
    pub fn new(uplinks: usize) -> Self {
        Checker {
            violations: Vec::new(),
            said: BTreeSet::new(),
            works_since: vec![None; uplinks],
            disturbed_at: 0,
            peaks: (0, 0),
        }
    }

    /// What was noticed.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// Notes something that must not happen.
    pub fn violated(&mut self, at: Nanos, what: String) {
        if self.violations.len() < KEPT {
            self.violations.push(Violation { at, what });
        }
    }

    /// An end was stopped or forgot everything: progress may pause.
    pub fn disturbed(&mut self, now: Nanos) {
        self.disturbed_at = now;
        self.works_since.fill(None);
    }

    /// Looks at what an endpoint holds.
    pub fn bounds(&mut self, now: Nanos, who: &str, snapshot: &Snapshot) {
        for bond in &snapshot.bonds {
            self.peaks.0 = self.peaks.0.max(bond.queue_bytes);
            self.peaks.1 = self.peaks.1.max(bond.held_packets);
            for (what, value, bound) in [
                ("bytes wait", bond.queue_bytes, QUEUE_BYTES_MAX),
                ("packets are held", bond.held_packets, HELD_PACKETS_MAX),
                ("flows are remembered", bond.flows, FLOWS_MAX),
                ("paths exist", bond.paths.len() as u64, PATHS_MAX as u64),
            ] {
                if value > bound && self.said.insert(what) {
                    self.violated(now, format!("{who}: {value} {what}, more than {bound}"));
                }
            }
            self.decisions(now, who, bond);
        }
    }

    /// Looks whether what is said of paths and flows can be.
    fn decisions(&mut self, now: Nanos, who: &str, bond: &BondSnapshot) {
        let known = |id: &u8| bond.paths.iter().any(|path| path.id == *id);
        let mut flows = bond.busiest.iter();
        if let Some(flow) = flows.find(|flow| !flow.paths.iter().all(known))
            && self.said.insert("strange path")
        {
            self.violated(
                now,
                format!("{who}: a flow uses a path that is not: {flow:?}"),
            );
        }
        let mut bests = bond.paths.iter().filter(|path| path.rank == Rank::Best);
        let idle = |path: &&PathSnapshot| path.carries_bulk && path.state != PathState::Active;
        let idle = bond.paths.iter().find(idle);
        if let Some(path) = idle.or(bests.nth(1))
            && self.said.insert("strange rank")
        {
            self.violated(
                now,
                format!("{who}: a path cannot have this rank: {path:?}"),
            );
        }
    }

    /// Looks at what the traffic met, and whether it goes on.
    pub fn traffic(&mut self, now: Nanos, works: Vec<bool>, traffic: &Traffic, skipped: u64) {
        let Faults {
            invented,
            twice,
            out_of_order,
        } = traffic.faults();
        if invented > 0 && self.said.insert("invented") {
            self.violated(
                now,
                format!("{invented} packets came out that nobody sent of late"),
            );
        }
        if twice > 0 && self.said.insert("twice") {
            self.violated(now, format!("{twice} packets came out twice"));
        }
        if out_of_order > 0 && skipped == 0 && self.said.insert("order") {
            let what =
                format!("{out_of_order} TCP segments came out late, and no hole was skipped");
            self.violated(now, what);
        }
        for (since, works) in self.works_since.iter_mut().zip(works) {
            *since = works.then(|| since.unwrap_or(now));
        }
        let Some(last_answer) = traffic.last_ping_answer() else {
            return;
        };
        let Some(works_since) = self.works_since.iter().flatten().min() else {
            return;
        };
        let waited = now.saturating_sub((*works_since).max(last_answer).max(self.disturbed_at));
        if waited > RESUME_WITHIN && self.said.insert("stall") {
            let seconds = waited as f64 / 1e9;
            self.violated(
                now,
                format!("an uplink works, yet no ping was answered for {seconds:.1} s"),
            );
        }
    }

    /// Most bytes that ever waited for a path, most packets that were ever held back.
    pub fn peaks(&self) -> (u64, u64) {
        self.peaks
    }
}

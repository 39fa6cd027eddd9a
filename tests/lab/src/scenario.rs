//! Scenario files: links, what happens to them, what runs over them, and what is measured.
//!
//! ```toml
//! name = "s4"
//! about = "The faster uplink falls silent for 5 s in the middle of a download"
//! duration_s = 20.0
//! cc = ["cubic", "bbr"]          # congestion control of TCP flows; one set of runs for each;
//!                                # "quic": QUIC flows in place of TCP
//! direction = ["down", "up"]     # of bulk flows; one set of runs for each
//!
//! [[link]]                       # one per uplink, in order: wan1, wan2, …
//! both = { rate_mbit = 50, delay_ms = 7.5, queue_ms = 100 }   # delays are one way
//! # or down = { … } and up = { … }; or direct = true for an unlimited veth
//!
//! [[at]]                         # the timeline; seconds from the start of the workloads
//! time_s = 8.0
//! link = 1
//! blackhole = "both"             # or "up", "down", "off"
//! # or both/up/down = { … } new parameters; carrier = false; device = false; addresses = false
//! # every_s = 3.0               # and again every so many seconds until the end
//!
//! [[workload]]
//! kind = "tcp"                   # tcp, quic, call, ping, web, idle
//! flows = 1
//! # direction = "up"            # bulk beside what is measured, counted apart
//! # link = 2                    # the same without the tunnel: somebody else on this link
//!
//! [measure]
//! warmup_s = 3.0                 # left out of goodput and gaps
//! ```
//!
//! Scenarios that differ in their links alone share a file: each `[[profile]]` has a `name`, an
//! `about`, its own `link = [ … ]`, and `at = [ … ]` if anything happens; it is run as the
//! scenario `file_profile`.
//!
//! The parameters of a link are those of the emulator's model, `marline_sim::link::LinkParams`.
//! Unknown fields are refused with file, line and what is allowed.

mod file;

use std::collections::BTreeMap;
use std::path::Path;

use marline_sim::link::LinkParams;
use serde::Deserialize;

use crate::refusal::Refusal;
use crate::results::Direction;

/// A scenario, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// Its name in tables and files.
    pub name: String,
    /// Which of its file's profiles it is, where there are several.
    pub profile: Option<String>,
    /// What it shows, one line.
    pub about: String,
    /// How long one run's workloads last, s.
    pub duration_s: f64,
    /// Seed of the wires' randomness in the first run.
    pub seed: u64,
    /// Congestion controls to run TCP workloads with.
    pub cc: Vec<Cc>,
    /// Directions to run bulk workloads in.
    pub direction: Vec<Direction>,
    /// The links, in order.
    pub links: Vec<LinkPlan>,
    /// What happens to them, in order of time.
    pub events: Vec<Event>,
    /// What runs over them.
    pub workloads: Vec<Workload>,
    /// How it is measured.
    pub measure: Measure,
    /// Other tunnels to compare with, by name.
    pub external: BTreeMap<String, External>,
}

/// A TCP congestion control the lab uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Cc {
    /// The default of most of the world.
    Cubic,
    /// Paced by measured rate and round trip.
    Bbr,
    /// No TCP at all: QUIC flows run where the scenario has TCP.
    Quic,
}

impl Cc {
    /// The kernel's name of it; for QUIC that of results.
    pub fn name(self) -> &'static str {
        match self {
            Cc::Cubic => "cubic",
            Cc::Bbr => "bbr",
            Cc::Quic => "quic",
        }
    }
}

/// One link.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LinkPlan {
    /// Towards the client.
    pub down: LinkParams,
    /// From the client.
    pub up: LinkParams,
    /// A veth pair without emulator; the parameters do not apply.
    pub direct: bool,
}

/// A change of one link.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// When, in seconds from the start of the workloads.
    pub time_s: f64,
    /// Index of the link, from 0.
    pub link: usize,
    /// What happens.
    pub change: Change,
}

/// What can happen to a link.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// New parameters for each direction named.
    Params {
        /// Towards the client.
        down: Option<Box<LinkParams>>,
        /// From the client.
        up: Option<Box<LinkParams>>,
    },
    /// Which directions swallow everything from now on.
    Blackhole {
        /// Towards the client.
        down: bool,
        /// From the client.
        up: bool,
    },
    /// The cable at the client is in (`true`) or pulled.
    Carrier(bool),
    /// The client's device is there (`true`) or deleted.
    Device(bool),
    /// The client's addresses on it are there (`true`) or removed.
    Addresses(bool),
}

impl Change {
    /// Whether this takes a link away, wholly or in one direction.
    pub fn takes_away(&self) -> bool {
        match self {
            Change::Params { .. } => false,
            Change::Blackhole { down, up } => *down || *up,
            Change::Carrier(there) | Change::Device(there) | Change::Addresses(there) => !there,
        }
    }

    /// Whether this gives a link back.
    pub fn gives_back(&self) -> bool {
        !matches!(self, Change::Params { .. }) && !self.takes_away()
    }

    /// The change as a short fact about the device `name`.
    pub fn text(&self, name: &str) -> String {
        match self {
            Change::Params { .. } => format!("{name} changes"),
            Change::Blackhole {
                down: true,
                up: true,
            } => format!("{name} falls silent"),
            Change::Blackhole {
                down: true,
                up: false,
            } => format!("{name} falls silent downwards"),
            Change::Blackhole {
                down: false,
                up: true,
            } => format!("{name} falls silent upwards"),
            Change::Blackhole {
                down: false,
                up: false,
            } => format!("{name} carries again"),
            Change::Carrier(true) => format!("{name}: cable in again"),
            Change::Carrier(false) => format!("{name}: cable pulled"),
            Change::Device(true) => format!("{name} is there again"),
            Change::Device(false) => format!("{name} deleted"),
            Change::Addresses(true) => format!("{name} has its addresses again"),
            Change::Addresses(false) => format!("{name} loses its addresses"),
        }
    }
}

/// Kinds of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// TCP flows that send all the time.
    Tcp,
    /// QUIC connections with one stream each that send all the time.
    Quic,
    /// 50 packets a second both ways, as in a voice call.
    Call,
    /// Small UDP packets that are echoed.
    Ping,
    /// Short fetches over new TCP connections, one after the other.
    Web,
    /// Nothing; what the idle tunnel itself sends is counted.
    Idle,
}

/// Traffic between the client and the internet host.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// What it is.
    pub kind: Kind,
    /// How many at the same time (tcp and quic).
    #[serde(default = "one")]
    pub flows: usize,
    /// When it starts, s from the start of the run.
    #[serde(default)]
    pub start_s: f64,
    /// Packets per second (call and ping).
    #[serde(default = "fifty")]
    pub per_second: f64,
    /// Use IPv6.
    #[serde(default)]
    pub ipv6: bool,
    /// Always this way, whatever the run's direction is: counted beside what is measured.
    #[serde(default)]
    pub direction: Option<Direction>,
    /// Natively over this link (from 1) while the tunnel works: traffic of others, counted
    /// beside what is measured.
    #[serde(default)]
    pub link: Option<usize>,
}

impl Workload {
    /// One of a kind, from the start.
    pub fn new(kind: Kind) -> Workload {
        Workload {
            kind,
            flows: one(),
            start_s: 0.0,
            per_second: fifty(),
            ipv6: false,
            direction: None,
            link: None,
        }
    }

    /// Whether it is there for what it does to the rest.
    pub fn is_beside(&self) -> bool {
        self.direction.is_some() || self.link.is_some()
    }
}

/// How a scenario is measured.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Measure {
    /// Start of the measured stretch, s from the start of the run.
    pub warmup_s: f64,
    /// Whether each link is also measured alone, without Marline, as the yardstick.
    pub native: bool,
    /// How long native runs last, s; at most the duration, which is the default.
    pub native_s: Option<f64>,
    /// Whether idle round trips are measured through the tunnel before the run.
    pub idle_ping: bool,
    /// A call packet that takes this much longer than the run's fastest counts as late, ms.
    pub call_late_ms: f64,
}

impl Default for Measure {
    fn default() -> Self {
        Measure {
            warmup_s: 3.0,
            native: true,
            native_s: None,
            idle_ping: false,
            call_late_ms: 60.0,
        }
    }
}

/// Another tunnel, started and stopped by shell commands.
///
/// The commands run on the machine itself with `LAB_CLIENT`, `LAB_SERVER` and `LAB_HOST` set to
/// the names of the namespaces, `LAB_LINKS` to the number of links, and `LAB_DIR` to a directory
/// of the run; `ip netns exec "$LAB_CLIENT" …` does the rest. Traffic of the client must go
/// through the tunnel once `start` has ended.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct External {
    /// Brings the tunnel up; ends when it is usable.
    pub start: String,
    /// Takes it down again.
    pub stop: String,
    /// Address that workloads connect to; the internet host's when left out.
    #[serde(default)]
    pub target: Option<std::net::IpAddr>,
}

impl Scenario {
    /// Reads and checks a scenario file: one scenario, or one for each of its profiles.
    pub fn load(path: &Path) -> Result<Vec<Scenario>, Refusal> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Refusal::Usage(format!(
                "cannot read the scenario {}: {error}",
                path.display()
            ))
        })?;
        file::parse(path, &text)
    }

    /// The same with everything that happens later by a phase.
    pub fn shifted_events(&self, phase_s: f64) -> Vec<Event> {
        let later = |event: &Event| Event {
            time_s: event.time_s + phase_s,
            ..event.clone()
        };
        self.events.iter().map(later).collect()
    }

    /// Whether a workload of this kind runs.
    pub fn has(&self, kind: Kind) -> bool {
        self.workloads.iter().any(|workload| workload.kind == kind)
    }

    /// Whether bulk flows run.
    pub fn has_bulk(&self) -> bool {
        self.has(Kind::Tcp) || self.has(Kind::Quic)
    }
}

fn one() -> usize {
    1
}

fn fifty() -> f64 {
    50.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = r#"
name = "small"
duration_s = 10.0
[[link]]
both = { rate_mbit = 50, delay_ms = 7.5 }
[[link]]
down = { rate_mbit = 20, delay_ms = 30 }
up = { rate_mbit = 5, delay_ms = 30 }
[[at]]
time_s = 6
link = 1
blackhole = "off"
[[at]]
time_s = 5
link = 1
blackhole = "both"
[[workload]]
kind = "tcp"
"#;

    fn parse(text: &str) -> Result<Scenario, String> {
        let mut scenarios = parse_all(text)?;
        assert_eq!(scenarios.len(), 1);
        Ok(scenarios.remove(0))
    }

    fn parse_all(text: &str) -> Result<Vec<Scenario>, String> {
        file::parse(Path::new("small.toml"), text).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn a_scenario_is_read_with_its_defaults_and_its_timeline_in_order() {
        let scenario = parse(SMALL).expect("valid");
        assert_eq!(scenario.cc, [Cc::Cubic, Cc::Bbr]);
        assert_eq!(scenario.links[1].up.rate_mbit, Some(5.0));
        assert_eq!(
            scenario.events[0].change,
            Change::Blackhole {
                down: true,
                up: true
            }
        );
        assert!(scenario.events[1].change.gives_back());
    }

    #[test]
    fn an_unknown_field_is_refused_with_its_place_and_what_is_allowed() {
        let complaint = parse(&SMALL.replace("delay_ms = 7.5", "delay = 7.5")).expect_err("wrong");
        assert!(complaint.starts_with("small.toml:5:"), "{complaint}");
        assert!(
            complaint.contains("`delay`") && complaint.contains("`delay_ms`"),
            "{complaint}"
        );
    }

    #[test]
    fn values_that_make_no_sense_are_refused_with_their_table() {
        let complaint = parse(&SMALL.replace("link = 1", "link = 3")).expect_err("wrong");
        assert_eq!(complaint, "small.toml: [[at]] 1: link = 3: give 1 to 2");
        let complaint = parse(&SMALL.replace("delay_ms = 7.5", "loss = 1.5")).expect_err("wrong");
        assert!(complaint.contains("[[link]] 1: loss = 1.5"), "{complaint}");
        let complaint = parse(&SMALL.replace("blackhole = \"off\"", "")).expect_err("wrong");
        assert!(complaint.contains("exactly one change"), "{complaint}");
    }

    #[test]
    fn profiles_share_a_file_and_differ_in_their_links() {
        let profiles = SMALL.replace("[[link]]\nboth = { rate_mbit = 50, delay_ms = 7.5 }\n[[link]]\ndown = { rate_mbit = 20, delay_ms = 30 }\nup = { rate_mbit = 5, delay_ms = 30 }\n", "")
            .replace("[[at]]\ntime_s = 6\nlink = 1\nblackhole = \"off\"\n[[at]]\ntime_s = 5\nlink = 1\nblackhole = \"both\"\n", "")
            + r#"
[[profile]]
name = "thin"
about = "One thin link"
link = [{ both = { rate_mbit = 1, delay_ms = 20 } }]
[[profile]]
name = "fat"
link = [{ both = { rate_mbit = 90, delay_ms = 20 } }]
at = [{ time_s = 2, link = 1, blackhole = "both" }]
"#;
        let scenarios = parse_all(&profiles).expect("valid");
        assert_eq!(scenarios[0].name, "small_thin");
        assert_eq!(scenarios[0].about, "One thin link");
        assert_eq!(scenarios[1].links[0].down.rate_mbit, Some(90.0));
        assert_eq!(
            (scenarios[0].events.len(), scenarios[1].events.len()),
            (0, 1)
        );
        let both = format!("{profiles}[[link]]\nboth = {{ rate_mbit = 1 }}\n");
        let complaint = parse_all(&both).expect_err("wrong");
        assert!(complaint.contains("[[profile]]"), "{complaint}");
    }

    #[test]
    fn what_happens_again_and_again_fills_the_timeline() {
        let flap = SMALL.replace("time_s = 5", "time_s = 5\nevery_s = 2");
        let scenario = parse(&flap).expect("valid");
        let times: Vec<f64> = scenario.events.iter().map(|event| event.time_s).collect();
        assert_eq!(times, [5.0, 6.0, 7.0, 9.0]);
        let complaint = parse(&flap.replace("every_s = 2", "every_s = 0")).expect_err("wrong");
        assert!(complaint.contains("every_s = 0"), "{complaint}");
    }

    #[test]
    fn every_scenario_in_the_repository_is_valid() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        let mut read = 0;
        let mut names = std::collections::BTreeSet::new();
        for entry in std::fs::read_dir(directory).expect("scenarios") {
            let path = entry.expect("entry").path();
            if path
                .extension()
                .is_some_and(|extension| extension == "toml")
            {
                let scenarios = Scenario::load(&path).unwrap_or_else(|refusal| panic!("{refusal}"));
                let stem = path
                    .file_stem()
                    .and_then(|stem| stem.to_str())
                    .expect("a name");
                for scenario in &scenarios {
                    let right = match scenarios.len() {
                        1 => scenario.name == stem,
                        _ => scenario.name.starts_with(&format!("{stem}_")),
                    };
                    assert!(right, "{} in {stem}.toml", scenario.name);
                    // Names are those of files, too.
                    assert!(
                        names.insert(scenario.name.clone()),
                        "{} twice",
                        scenario.name
                    );
                }
                read += 1;
            }
        }
        assert!(read >= 8, "only {read} scenarios found");
    }
}

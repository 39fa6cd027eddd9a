//! Scenario files: links, what happens to them, what runs over them, and what is measured.
//!
//! ```toml
//! name = "s4"
//! about = "The faster uplink falls silent for 5 s in the middle of a download"
//! duration_s = 20.0
//! cc = ["cubic", "bbr"]          # congestion control of TCP flows; one set of runs for each
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
//!
//! [[workload]]
//! kind = "tcp"                   # tcp, quic, call, ping, web, idle
//! flows = 1
//!
//! [measure]
//! warmup_s = 3.0                 # left out of goodput and gaps
//! ```
//!
//! The parameters of a link are those of the emulator's model, `marline_sim::link::LinkParams`.
//! Unknown fields are refused with file, line and what is allowed.

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
}

impl Cc {
    /// The kernel's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Cc::Cubic => "cubic",
            Cc::Bbr => "bbr",
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
    /// Reads and checks a scenario file.
    pub fn load(path: &Path) -> Result<Scenario, Refusal> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Refusal::Usage(format!(
                "cannot read the scenario {}: {error}",
                path.display()
            ))
        })?;
        Scenario::parse(path, &text)
    }

    /// Whether a workload of this kind runs.
    pub fn has(&self, kind: Kind) -> bool {
        self.workloads.iter().any(|workload| workload.kind == kind)
    }

    /// Whether bulk flows run.
    pub fn has_bulk(&self) -> bool {
        self.has(Kind::Tcp) || self.has(Kind::Quic)
    }

    fn parse(path: &Path, text: &str) -> Result<Scenario, Refusal> {
        let refuse = |place: &str, what: String| {
            Refusal::Usage(format!("{}{place}: {what}", path.display()))
        };
        let file: ScenarioFile = toml::from_str(text).map_err(|error| {
            let place = error.span().map_or(String::new(), |span| {
                let before = &text[..span.start.min(text.len())];
                let line = before.matches('\n').count() + 1;
                let column = before.len() - before.rfind('\n').map_or(0, |end| end + 1) + 1;
                format!(":{line}:{column}")
            });
            refuse(&place, error.message().replace('\n', " "))
        })?;
        file.resolve(path)
            .map_err(|(place, what)| refuse(&format!(": {place}"), what))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScenarioFile {
    name: String,
    #[serde(default)]
    about: String,
    duration_s: f64,
    #[serde(default = "one_seed")]
    seed: u64,
    #[serde(default = "both_cc")]
    cc: Vec<Cc>,
    #[serde(default = "both_directions")]
    direction: Vec<Direction>,
    link: Vec<LinkTable>,
    #[serde(default)]
    at: Vec<EventTable>,
    #[serde(default)]
    workload: Vec<Workload>,
    #[serde(default)]
    measure: Measure,
    #[serde(default)]
    external: BTreeMap<String, External>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LinkTable {
    both: Option<LinkParams>,
    down: Option<LinkParams>,
    up: Option<LinkParams>,
    #[serde(default)]
    direct: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventTable {
    time_s: f64,
    link: usize,
    both: Option<LinkParams>,
    down: Option<LinkParams>,
    up: Option<LinkParams>,
    blackhole: Option<BlackholeWord>,
    carrier: Option<bool>,
    device: Option<bool>,
    addresses: Option<bool>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum BlackholeWord {
    Both,
    Up,
    Down,
    Off,
}

/// Place in the file in words, and what is wrong there.
type Complaint = (String, String);

impl ScenarioFile {
    fn resolve(self, path: &Path) -> Result<Scenario, Complaint> {
        let at_top = |what: &str| (String::from("top level"), what.to_owned());
        if !(self.duration_s > 0.0 && self.duration_s <= 3600.0) {
            return Err(at_top("duration_s must be above 0 and at most 3600"));
        }
        if self.link.is_empty() || self.link.len() > 16 {
            return Err(at_top("give 1 to 16 tables [[link]]"));
        }
        if self.workload.is_empty() {
            return Err(at_top("give at least one table [[workload]]"));
        }
        if self.cc.is_empty() || self.direction.is_empty() {
            return Err(at_top("cc and direction must name at least one each"));
        }
        if self.measure.warmup_s < 0.0 || self.measure.warmup_s >= self.duration_s {
            return Err(at_top(
                "measure.warmup_s must be at least 0 and below duration_s",
            ));
        }
        for (index, workload) in self.workload.iter().enumerate() {
            let here = || format!("[[workload]] {}", index + 1);
            if !(1..=256).contains(&workload.flows) {
                return Err((here(), "flows must be 1 to 256".into()));
            }
            if !(workload.per_second > 0.0 && workload.per_second <= 1000.0) {
                return Err((here(), "per_second must be above 0 and at most 1000".into()));
            }
            if !(workload.start_s >= 0.0 && workload.start_s < self.duration_s) {
                return Err((
                    here(),
                    "start_s must be at least 0 and below duration_s".into(),
                ));
            }
        }
        let links = self
            .link
            .into_iter()
            .enumerate()
            .map(|(index, table)| {
                table
                    .resolve(path)
                    .map_err(|what| (format!("[[link]] {}", index + 1), what))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let mut events = self
            .at
            .into_iter()
            .enumerate()
            .map(|(index, table)| {
                table
                    .resolve(path, &links)
                    .map_err(|what| (format!("[[at]] {}", index + 1), what))
            })
            .collect::<Result<Vec<_>, _>>()?;
        events.sort_by(|left, right| left.time_s.total_cmp(&right.time_s));
        Ok(Scenario {
            name: self.name,
            about: self.about,
            duration_s: self.duration_s,
            seed: self.seed,
            cc: self.cc,
            direction: self.direction,
            links,
            events,
            workloads: self.workload,
            measure: self.measure,
            external: self.external,
        })
    }
}

impl LinkTable {
    fn resolve(self, path: &Path) -> Result<LinkPlan, String> {
        let (down, up) = match (self.both, self.down, self.up) {
            (Some(both), None, None) => (both.clone(), both),
            (None, Some(down), Some(up)) => (down, up),
            (None, None, None) if self.direct => Default::default(),
            _ => return Err("give both = { … }, or down and up, or direct = true".into()),
        };
        if self.direct && (&down, &up) != (&LinkParams::default(), &LinkParams::default()) {
            return Err("a direct wire has no parameters".into());
        }
        Ok(LinkPlan {
            down: checked(path, down)?,
            up: checked(path, up)?,
            direct: self.direct,
        })
    }
}

impl EventTable {
    fn resolve(self, path: &Path, links: &[LinkPlan]) -> Result<Event, String> {
        let Some(index) = self
            .link
            .checked_sub(1)
            .filter(|index| *index < links.len())
        else {
            return Err(format!("link = {}: give 1 to {}", self.link, links.len()));
        };
        if !(self.time_s >= 0.0 && self.time_s.is_finite()) {
            return Err(format!(
                "time_s = {}: give a number that is not negative",
                self.time_s
            ));
        }
        let check = |params: Option<LinkParams>| {
            params
                .map(|params| checked(path, params).map(Box::new))
                .transpose()
        };
        let mut changes = Vec::new();
        if let Some(both) = check(self.both)? {
            changes.push(Change::Params {
                down: Some(both.clone()),
                up: Some(both),
            });
        }
        let (down, up) = (check(self.down)?, check(self.up)?);
        if down.is_some() || up.is_some() {
            changes.push(Change::Params { down, up });
        }
        if let Some(word) = self.blackhole {
            changes.push(Change::Blackhole {
                down: matches!(word, BlackholeWord::Both | BlackholeWord::Down),
                up: matches!(word, BlackholeWord::Both | BlackholeWord::Up),
            });
        }
        changes.extend(self.carrier.map(Change::Carrier));
        changes.extend(self.device.map(Change::Device));
        changes.extend(self.addresses.map(Change::Addresses));
        let (Some(change), true) = (changes.pop(), changes.is_empty()) else {
            return Err(
                "give exactly one change: both/down/up, blackhole, carrier, device, addresses"
                    .into(),
            );
        };
        let emulated_only = !matches!(change, Change::Device(_) | Change::Addresses(_));
        if links[index].direct && emulated_only {
            return Err("a direct wire knows only device and addresses".into());
        }
        Ok(Event {
            time_s: self.time_s,
            link: index,
            change,
        })
    }
}

/// Reads the trace a link names, relative to the scenario's directory, and checks the values.
fn checked(path: &Path, mut params: LinkParams) -> Result<LinkParams, String> {
    if let Some(trace) = &mut params.trace {
        trace.load(path.parent().unwrap_or(Path::new(".")))?;
    }
    params.check()?;
    Ok(params)
}

fn one() -> usize {
    1
}

fn one_seed() -> u64 {
    1
}

fn fifty() -> f64 {
    50.0
}

fn both_cc() -> Vec<Cc> {
    vec![Cc::Cubic, Cc::Bbr]
}

fn both_directions() -> Vec<Direction> {
    vec![Direction::Down, Direction::Up]
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
        Scenario::parse(Path::new("small.toml"), text).map_err(|refusal| refusal.to_string())
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
    fn every_scenario_in_the_repository_is_valid() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        let mut read = 0;
        for entry in std::fs::read_dir(directory).expect("scenarios") {
            let path = entry.expect("entry").path();
            if path
                .extension()
                .is_some_and(|extension| extension == "toml")
            {
                let scenario = Scenario::load(&path).unwrap_or_else(|refusal| panic!("{refusal}"));
                let stem = path.file_stem().and_then(|stem| stem.to_str());
                assert_eq!(Some(scenario.name.as_str()), stem);
                read += 1;
            }
        }
        assert!(read >= 8, "only {read} scenarios found");
    }
}

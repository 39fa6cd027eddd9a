//! The written form of scenarios, and what makes no sense in it.

use std::collections::BTreeMap;
use std::path::Path;

use marline_sim::link::LinkParams;
use serde::Deserialize;

use super::{Cc, Change, Event, External, Kind, LinkPlan, Measure, Scenario, Workload};
use crate::refusal::Refusal;
use crate::results::Direction;

/// Reads the text of a file; `path` names it in complaints and is where traces lie.
pub(super) fn parse(path: &Path, text: &str) -> Result<Vec<Scenario>, Refusal> {
    let refuse =
        |place: &str, what: String| Refusal::Usage(format!("{}{place}: {what}", path.display()));
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
    #[serde(default)]
    link: Vec<LinkTable>,
    #[serde(default)]
    at: Vec<EventTable>,
    #[serde(default)]
    profile: Vec<ProfileTable>,
    #[serde(default)]
    workload: Vec<Workload>,
    #[serde(default)]
    measure: Measure,
    #[serde(default)]
    external: BTreeMap<String, External>,
}

/// Links of their own for the rest of the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProfileTable {
    name: String,
    #[serde(default)]
    about: String,
    link: Vec<LinkTable>,
    #[serde(default)]
    at: Vec<EventTable>,
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
    every_s: Option<f64>,
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
    fn resolve(mut self, path: &Path) -> Result<Vec<Scenario>, Complaint> {
        self.check()?;
        let profiles = std::mem::take(&mut self.profile);
        if profiles.is_empty() {
            let (links, events) = (std::mem::take(&mut self.link), std::mem::take(&mut self.at));
            let (name, about) = (self.name.clone(), self.about.clone());
            return Ok(vec![self.scenario(path, name, about, links, events)?]);
        }
        if !(self.link.is_empty() && self.at.is_empty()) {
            let what = "a file with tables [[profile]] has its links and its timeline in them";
            return Err((String::from("top level"), what.to_owned()));
        }
        let scenario = |profile: ProfileTable| {
            let name = format!("{}_{}", self.name, profile.name);
            let scenario = self
                .scenario(path, name, profile.about, profile.link, profile.at)
                .map_err(|(place, what)| {
                    (format!("[[profile]] {}, {place}", profile.name), what)
                })?;
            Ok(Scenario {
                profile: Some(profile.name),
                ..scenario
            })
        };
        profiles.into_iter().map(scenario).collect()
    }

    /// What does not depend on the links.
    fn check(&self) -> Result<(), Complaint> {
        let at_top = |what: &str| (String::from("top level"), what.to_owned());
        if !(self.duration_s > 0.0 && self.duration_s <= 3600.0) {
            return Err(at_top("duration_s must be above 0 and at most 3600"));
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
            let refused = |what: &str| Err((format!("[[workload]] {}", index + 1), what.into()));
            if !(1..=256).contains(&workload.flows) {
                return refused("flows must be 1 to 256");
            }
            if !(workload.per_second > 0.0 && workload.per_second <= 1000.0) {
                return refused("per_second must be above 0 and at most 1000");
            }
            if !(workload.start_s >= 0.0 && workload.start_s < self.duration_s) {
                return refused("start_s must be at least 0 and below duration_s");
            }
            let bulk = matches!(workload.kind, Kind::Tcp | Kind::Quic);
            if workload.is_beside() && !bulk {
                return refused("direction and link are for tcp and quic");
            }
        }
        Ok(())
    }

    fn scenario(
        &self,
        path: &Path,
        name: String,
        about: String,
        links: Vec<LinkTable>,
        events: Vec<EventTable>,
    ) -> Result<Scenario, Complaint> {
        if links.is_empty() || links.len() > 16 {
            let what = String::from("give 1 to 16 tables [[link]]");
            return Err((String::from("top level"), what));
        }
        let in_table = |table: &str, index: usize| {
            let place = format!("[[{table}]] {}", index + 1);
            move |what: String| (place, what)
        };
        let links = links
            .into_iter()
            .enumerate()
            .map(|(index, table)| table.resolve(path).map_err(in_table("link", index)))
            .collect::<Result<Vec<_>, _>>()?;
        for (index, workload) in self.workload.iter().enumerate() {
            if let Some(link) = workload
                .link
                .filter(|link| !(1..=links.len()).contains(link))
            {
                let what = format!("link = {link}: give 1 to {}", links.len());
                return Err(in_table("workload", index)(what));
            }
        }
        let mut timeline = Vec::new();
        for (index, table) in events.into_iter().enumerate() {
            let repeated = table.resolve(path, &links, self.duration_s);
            timeline.extend(repeated.map_err(in_table("at", index))?);
        }
        timeline.sort_by(|left, right| left.time_s.total_cmp(&right.time_s));
        Ok(Scenario {
            name,
            profile: None,
            about,
            duration_s: self.duration_s,
            seed: self.seed,
            cc: self.cc.clone(),
            direction: self.direction.clone(),
            links,
            events: timeline,
            workloads: self.workload.clone(),
            measure: self.measure.clone(),
            external: self.external.clone(),
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
    fn resolve(
        self,
        path: &Path,
        links: &[LinkPlan],
        duration_s: f64,
    ) -> Result<Vec<Event>, String> {
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
        if let Some(every_s) = self
            .every_s
            .filter(|every_s| !(0.01..=3600.0).contains(every_s))
        {
            return Err(format!("every_s = {every_s}: give 0.01 to 3600"));
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
        let mut times = vec![self.time_s];
        if let Some(every_s) = self.every_s {
            let again = (1u32..).map(|turn| self.time_s + f64::from(turn) * every_s);
            times.extend(again.take_while(|time_s| *time_s < duration_s));
        }
        let event = |time_s| Event {
            time_s,
            link: index,
            change: change.clone(),
        };
        Ok(times.into_iter().map(event).collect())
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

fn one_seed() -> u64 {
    1
}

fn both_cc() -> Vec<Cc> {
    vec![Cc::Cubic, Cc::Bbr]
}

fn both_directions() -> Vec<Direction> {
    vec![Direction::Down, Direction::Up]
}

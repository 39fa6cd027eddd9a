//! Everything that may happen to a bond, as one enum, and the plan that lists it.
//!
//! A plan is what a seed is made into, and what can be written by hand in TOML:
//! uplinks, traffic, and what happens when.

use serde::{Deserialize, Serialize};

use marline_proto::{Class, Mode, Modes, Role};

use crate::link::{LinkParams, Nanos};
use crate::packet::Version;
use crate::workload::FlowSpec;

/// Which directions of an uplink's link are meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// Both.
    #[default]
    Both,
    /// From the client.
    Up,
    /// To the client.
    Down,
}

/// How a link changes. What is left out stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkChange {
    /// Whose.
    pub uplink: String,
    /// Which directions.
    #[serde(default)]
    pub way: Way,
    /// Its new rate, Mbit/s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_mbit: Option<f64>,
    /// Its new one-way delay, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<f64>,
    /// Its new jitter, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter_ms: Option<f64>,
    /// Its new share of lost packets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// Whether it swallows everything in silence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blackhole: Option<bool>,
    /// Its new MTU, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u64>,
}

impl LinkChange {
    /// Nothing changes yet.
    pub fn of(uplink: &str, way: Way) -> Self {
        LinkChange {
            uplink: uplink.to_owned(),
            way,
            ..LinkChange::default()
        }
    }

    /// What it makes of a link's parameters in the direction `way`; None if the other direction is meant.
    pub fn applied(&self, way: Way, before: &LinkParams) -> Option<LinkParams> {
        if self.way != Way::Both && self.way != way {
            return None;
        }
        let mut after = before.clone();
        after.rate_mbit = self.rate_mbit.or(before.rate_mbit);
        after.delay_ms = self.delay_ms.unwrap_or(before.delay_ms);
        after.jitter_ms = self.jitter_ms.unwrap_or(before.jitter_ms);
        after.loss = self.loss.unwrap_or(before.loss);
        after.blackhole = self.blackhole.unwrap_or(before.blackhole);
        after.mtu = self.mtu.or(before.mtu);
        Some(after)
    }
}

/// Something that happens. Uplinks go by their names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    /// A link changes.
    Link(LinkChange),
    /// The carrier goes or comes, and the client is told.
    Carrier {
        /// Whose.
        uplink: String,
        /// Whether there is one now.
        up: bool,
    },
    /// The interface is removed, and the client is told.
    Remove {
        /// Whose.
        uplink: String,
    },
    /// The interface appears (again), with a new socket.
    Add {
        /// Which.
        uplink: String,
    },
    /// The NAT box forgets its mappings: the next datagram comes from another port.
    Rebind {
        /// Whose.
        uplink: String,
    },
    /// The server's process is killed and started anew.
    RestartServer {},
    /// The client's process is killed and started anew.
    RestartClient {},
    /// The client's machine sleeps.
    Sleep {
        /// How long, milliseconds.
        for_ms: f64,
    },
    /// The client is told to use its paths in another way.
    SetMode {
        /// In which.
        mode: Mode,
        /// For which class of flows; left out: for all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        class: Option<Class>,
    },
    /// Somebody sends rubbish to both ends.
    Rubbish {
        /// Over which uplink.
        uplink: String,
        /// How many datagrams each way.
        datagrams: u16,
    },
}

impl Event {
    /// The uplink it concerns, if it is about one.
    pub fn uplink(&self) -> Option<&str> {
        match self {
            Event::Link(LinkChange { uplink, .. })
            | Event::Carrier { uplink, .. }
            | Event::Remove { uplink }
            | Event::Add { uplink }
            | Event::Rebind { uplink }
            | Event::Rubbish { uplink, .. } => Some(uplink),
            Event::RestartServer {}
            | Event::RestartClient {}
            | Event::Sleep { .. }
            | Event::SetMode { .. } => None,
        }
    }
}

/// Something and its moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TimedEvent {
    /// When, seconds.
    pub at_s: f64,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}

impl TimedEvent {
    /// When, nanoseconds.
    pub fn at(&self) -> Nanos {
        (self.at_s * 1e9) as Nanos
    }
}

/// One uplink of the client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UplinkSpec {
    /// Its name.
    pub name: String,
    /// From the client.
    pub up: LinkParams,
    /// To the client.
    pub down: LinkParams,
    /// IPv4 (behind a NAT box) or IPv6.
    #[serde(default)]
    pub version: Version,
    /// What the operator allows.
    #[serde(default)]
    pub role: Role,
    /// How long the NAT box keeps a mapping that is not used, seconds.
    #[serde(default = "nat_timeout_s")]
    pub nat_timeout_s: f64,
    /// Whether it is there from the beginning.
    #[serde(default = "yes")]
    pub present: bool,
    /// Share of datagrams that the network delivers twice.
    #[serde(default)]
    pub duplicates: f64,
}

fn nat_timeout_s() -> f64 {
    60.0
}

fn yes() -> bool {
    true
}

impl UplinkSpec {
    /// An uplink that is the same in both directions.
    pub fn new(name: &str, link: LinkParams) -> Self {
        UplinkSpec {
            name: name.to_owned(),
            up: link.clone(),
            down: link,
            version: Version::V4,
            role: Role::Always,
            nat_timeout_s: nat_timeout_s(),
            present: true,
            duplicates: 0.0,
        }
    }
}

/// A whole run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// What it is about.
    pub name: String,
    /// How long it lasts, seconds.
    pub duration_s: f64,
    /// When measuring begins, seconds.
    #[serde(default)]
    pub measure_from_s: f64,
    /// Largest inner packet, bytes.
    #[serde(default = "inner_mtu")]
    pub mtu: u16,
    /// How the client uses its paths: one mode, or a table of modes by class.
    #[serde(default, rename = "mode")]
    pub modes: Modes,
    /// The client's uplinks.
    pub uplink: Vec<UplinkSpec>,
    /// The traffic.
    #[serde(default)]
    pub flow: Vec<FlowSpec>,
    /// What happens.
    #[serde(default)]
    pub event: Vec<TimedEvent>,
}

fn inner_mtu() -> u16 {
    1400
}

impl Plan {
    /// A plan in which nothing happens.
    pub fn new(name: &str, duration_s: f64, uplink: Vec<UplinkSpec>, flow: Vec<FlowSpec>) -> Self {
        Plan {
            name: name.to_owned(),
            duration_s,
            measure_from_s: 0.0,
            mtu: inner_mtu(),
            modes: Modes::default(),
            uplink,
            flow,
            event: Vec::new(),
        }
    }

    /// Lets something happen.
    #[must_use]
    pub fn with(mut self, at_s: f64, event: Event) -> Self {
        self.event.push(TimedEvent { at_s, event });
        self
    }

    /// How long it lasts, nanoseconds.
    pub fn duration(&self) -> Nanos {
        (self.duration_s * 1e9) as Nanos
    }

    /// Complains about the first thing that makes no sense.
    pub fn check(&self) -> Result<(), String> {
        if !(self.duration_s.is_finite() && self.duration_s > 0.0) {
            return Err(format!(
                "duration_s = {}: give more than 0",
                self.duration_s
            ));
        }
        if !(0.0..self.duration_s).contains(&self.measure_from_s) {
            return Err(format!(
                "measure_from_s = {}: measuring begins within the run",
                self.measure_from_s
            ));
        }
        if !(576..=1500).contains(&self.mtu) {
            return Err(format!("mtu = {}: give 576 to 1500", self.mtu));
        }
        if self.uplink.is_empty() || self.uplink.len() > 8 {
            return Err(format!("{} uplinks: give 1 to 8", self.uplink.len()));
        }
        for uplink in &self.uplink {
            for (way, link) in [("up", &uplink.up), ("down", &uplink.down)] {
                link.check()
                    .map_err(|why| format!("uplink {}, {way}: {why}", uplink.name))?;
            }
        }
        for timed in &self.event {
            if let Some(name) = timed.event.uplink()
                && !self.uplink.iter().any(|uplink| uplink.name == name)
            {
                return Err(format!(
                    "event at {} s: there is no uplink {name}",
                    timed.at_s
                ));
            }
            if !(timed.at_s.is_finite() && timed.at_s >= 0.0) {
                return Err(format!(
                    "event at {} s: give a moment within the run",
                    timed.at_s
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: &str = r#"
        name = "two uplinks"
        duration_s = 20
        [[uplink]]
        name = "dsl"
        up = { rate_mbit = 5, delay_ms = 12 }
        down = { rate_mbit = 50, delay_ms = 12 }
        [[flow]]
        kind = "tcp"
        cc = "bbr"
        start_s = 1
        [[flow]]
        kind = "voice"
        [[event]]
        at_s = 5
        kind = "link"
        uplink = "dsl"
        way = "down"
        blackhole = true
    "#;

    #[test]
    fn a_plan_is_read_from_toml() {
        let plan: Plan = toml::from_str(PLAN).unwrap();
        plan.check().unwrap();
        assert_eq!(plan.flow.len(), 2);
        assert_eq!(plan.flow[0].start_s, 1.0);
        let down = &plan.uplink[0].down;
        let Event::Link(change) = &plan.event[0].event else {
            panic!("{:?}", plan.event[0].event);
        };
        assert!(change.applied(Way::Down, down).unwrap().blackhole);
        assert_eq!(change.applied(Way::Up, down), None);
    }

    #[test]
    fn unknown_fields_and_names_are_refused() {
        for (good, bad) in [
            ("cc = \"bbr\"", "cq = \"bbr\""),
            ("kind = \"voice\"", "kind = \"voice\"\nrate = 3"),
            ("blackhole = true", "black = true"),
            ("duration_s = 20", "duration_s = 20\nseed = 3"),
        ] {
            assert!(
                toml::from_str::<Plan>(&PLAN.replace(good, bad)).is_err(),
                "{bad}"
            );
        }
        let plan: Plan =
            toml::from_str(&PLAN.replace("uplink = \"dsl\"", "uplink = \"lte\"")).unwrap();
        assert_eq!(
            plan.check().unwrap_err(),
            "event at 5 s: there is no uplink lte"
        );
    }
}

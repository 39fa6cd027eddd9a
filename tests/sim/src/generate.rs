//! From a seed, or from a fuzzer's bytes, to a plan: links, traffic and trouble.
//!
//! Every number is drawn from a [`Choices`], so that one generator serves both:
//! with a seed the choices never end, with bytes they end in zeros, which make
//! the calmest plan. Whatever happens, the last seconds are calm: at least the
//! first uplink works, so that everything must be going again at the end.

use marline_proto::{Class, Mode, Modes, Role};

use crate::event::{Event, LinkChange, Plan, UplinkSpec, Way};
use crate::link::{Jitter, LinkParams};
use crate::packet::Version;
use crate::rng::Rng;
use crate::tcp::Algorithm;
use crate::workload::{Direction, FlowSpec, Kind};

/// The calm at the end, seconds: longer than anything may take to resume.
pub const CALM_S: f64 = 7.0;

/// Where choices come from.
#[derive(Debug)]
pub enum Choices<'a> {
    /// Without end.
    Seed(Rng),
    /// Until they end; then zeros.
    Bytes(&'a [u8]),
}

impl Choices<'_> {
    fn next(&mut self) -> u64 {
        match self {
            Choices::Seed(rng) => rng.next_u64() >> 32,
            Choices::Bytes(bytes) => {
                let take = bytes.len().min(4);
                let (head, rest) = bytes.split_at(take);
                *bytes = rest;
                head.iter()
                    .fold(0, |word, byte| word << 8 | u64::from(*byte))
            }
        }
    }

    /// A number in `0..below`.
    fn below(&mut self, below: u64) -> u64 {
        self.next() % below.max(1)
    }

    /// A number in `low..high`, in a thousand steps.
    fn between(&mut self, low: f64, high: f64) -> f64 {
        let value = low + (high - low) * self.below(1000) as f64 / 1000.0;
        (value * 1000.0).round() / 1000.0
    }

    /// One in so many.
    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == n - 1
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize].clone()
    }
}

/// The plan of a seed.
pub fn from_seed(seed: u64) -> Plan {
    generate(
        &format!("seed {seed}"),
        &mut Choices::Seed(Rng::new(seed).fork(0x9e17)),
    )
}

/// The plan that bytes make.
pub fn from_bytes(bytes: &[u8]) -> Plan {
    generate("bytes", &mut Choices::Bytes(bytes))
}

fn generate(name: &str, choices: &mut Choices<'_>) -> Plan {
    let uplinks = 1 + choices.pick(&[1, 1, 1, 2, 0, 3]);
    let uplink: Vec<_> = (0..uplinks).map(|id| self::uplink(id, choices)).collect();
    let troubled_s = choices.between(2.0, 8.0);
    let mut plan = Plan::new(name, troubled_s + CALM_S, uplink, flows(choices));
    let mode = choices.pick(&[
        Mode::Aggregate,
        Mode::Aggregate,
        Mode::Aggregate,
        Mode::Handover,
        Mode::Interactive,
        Mode::Redundant,
    ]);
    plan.modes = Modes::all(mode);
    plan.mtu = choices.pick(&[1400, 1400, 1380, 1280]);
    for _ in 0..choices.below(9) {
        let at_s = choices.between(0.0, troubled_s);
        for (after_s, event) in trouble(&plan.uplink, choices) {
            plan = plan.with((at_s + after_s).min(troubled_s), event);
        }
    }
    calm_down(narrow(plan, troubled_s, choices), troubled_s)
}

/// Some hops carry less than the interfaces say, and one may narrow on the way. Drawn last, so that nothing else of a
/// seed's plan depends on it.
fn narrow(mut plan: Plan, troubled_s: f64, choices: &mut Choices<'_>) -> Plan {
    fn mtu(choices: &mut Choices<'_>) -> u64 {
        1_280 + choices.below(221)
    }
    for uplink in &mut plan.uplink {
        if choices.one_in(3) {
            uplink.down.mtu = Some(mtu(choices));
            uplink.up.mtu = Some(mtu(choices));
        }
    }
    if !choices.one_in(3) {
        return plan;
    }
    let uplink = choices.pick(&plan.uplink).name;
    let way = choices.pick(&[Way::Both, Way::Up, Way::Down]);
    let narrows = Event::Link(LinkChange {
        mtu: Some(mtu(choices)),
        ..LinkChange::of(&uplink, way)
    });
    let at_s = choices.between(0.0, troubled_s);
    plan.with(at_s, narrows)
}

fn uplink(id: usize, choices: &mut Choices<'_>) -> UplinkSpec {
    let down = match choices.below(10) {
        0..4 => LinkParams::new(choices.between(2.0, 30.0), choices.between(1.0, 80.0)),
        4 => LinkParams::dsl(),
        5 => LinkParams {
            steps: Vec::new(),
            ..LinkParams::lte()
        },
        6 => LinkParams::wifi_lossy(),
        7 => LinkParams {
            loss: choices.between(0.0, 0.03),
            loss_burst: choices.between(1.0, 6.0),
            ..LinkParams::new(choices.between(2.0, 30.0), choices.between(1.0, 80.0))
        },
        8 => LinkParams {
            jitter_ms: choices.between(0.0, 15.0),
            jitter: Jitter::Uniform,
            jitter_reorders: choices.one_in(3),
            ..LinkParams::new(choices.between(2.0, 30.0), choices.between(10.0, 60.0))
        },
        _ => LinkParams {
            queue_ms: choices.between(20.0, 500.0),
            ..LinkParams::new(choices.between(1.0, 20.0), choices.between(1.0, 150.0))
        },
    };
    let up_share = choices.pick(&[1.0, 1.0, 0.5, 0.2]);
    let up = LinkParams {
        rate_mbit: down.rate_mbit.map(|rate| (rate * up_share).max(0.6)),
        ..down.clone()
    };
    UplinkSpec {
        up,
        down,
        version: choices.pick(&[Version::V4, Version::V4, Version::V6]),
        // The first may always be used, so that something can carry the calm.
        role: match id {
            0 => Role::Always,
            _ => choices.pick(&[Role::Always, Role::Always, Role::Secondary, Role::Backup]),
        },
        present: id == 0 || !choices.one_in(6),
        duplicates: if choices.one_in(5) {
            choices.between(0.0, 0.05)
        } else {
            0.0
        },
        ..UplinkSpec::new(&format!("u{id}"), LinkParams::default())
    }
}

fn flows(choices: &mut Choices<'_>) -> Vec<FlowSpec> {
    let version =
        |choices: &mut Choices<'_>| choices.pick(&[Version::V4, Version::V4, Version::V6]);
    let mut flows = vec![FlowSpec {
        version: version(choices),
        ..FlowSpec::new(Kind::Ping { interval_ms: 50.0 })
    }];
    for _ in 0..choices.below(4) {
        let direction = choices.pick(&[Direction::Down, Direction::Down, Direction::Up]);
        let cc = choices.pick(&[
            Algorithm::Cubic,
            Algorithm::Cubic,
            Algorithm::Bbr,
            Algorithm::Reno,
        ]);
        let kind = match choices.below(8) {
            0..4 => Kind::Tcp {
                direction,
                cc,
                size_bytes: None,
            },
            4 => Kind::Tcp {
                direction,
                cc,
                size_bytes: Some(1 + choices.below(3_000_000)),
            },
            5 => Kind::Voice {},
            6 => Kind::Web {
                interval_ms: choices.between(200.0, 1500.0),
                size_bytes: 60_000,
            },
            _ => Kind::Udp {
                direction,
                rate_mbit: choices.between(0.5, 40.0),
            },
        };
        let start_s = if choices.one_in(3) {
            choices.between(0.0, 4.0)
        } else {
            0.2
        };
        flows.push(FlowSpec {
            version: version(choices),
            start_s,
            ..FlowSpec::new(kind)
        });
    }
    flows
}

/// One misfortune: one event, or several that belong together.
fn trouble(uplinks: &[UplinkSpec], choices: &mut Choices<'_>) -> Vec<(f64, Event)> {
    let uplink = choices.pick(uplinks).name;
    let way = choices.pick(&[Way::Both, Way::Both, Way::Up, Way::Down]);
    let change = |rate_mbit, delay_ms, loss, blackhole| {
        Event::Link(LinkChange {
            rate_mbit,
            delay_ms,
            loss,
            blackhole,
            ..LinkChange::of(&uplink, way)
        })
    };
    let lasts_s = choices.between(0.05, 3.0);
    match choices.below(12) {
        0 => vec![(
            0.0,
            change(Some(choices.between(0.5, 40.0)), None, None, None),
        )],
        1 => vec![(
            0.0,
            change(None, Some(choices.between(1.0, 120.0)), None, None),
        )],
        2 => vec![(
            0.0,
            change(None, None, Some(choices.between(0.0, 0.2)), None),
        )],
        3..6 => vec![
            (0.0, change(None, None, None, Some(true))),
            (lasts_s, change(None, None, None, Some(false))),
        ],
        6 => {
            let flaps = 2 + choices.below(4);
            let (on, off) = (choices.between(0.05, 0.8), choices.between(0.05, 0.8));
            let flap = |n: u64| {
                let at = n as f64 * (on + off);
                [
                    (at, change(None, None, None, Some(true))),
                    (at + off, change(None, None, None, Some(false))),
                ]
            };
            (0..flaps).flat_map(flap).collect()
        }
        7 => vec![
            (
                0.0,
                Event::Carrier {
                    uplink: uplink.clone(),
                    up: false,
                },
            ),
            (lasts_s, Event::Carrier { uplink, up: true }),
        ],
        8 => vec![
            (
                0.0,
                Event::Remove {
                    uplink: uplink.clone(),
                },
            ),
            (lasts_s, Event::Add { uplink }),
        ],
        9 => vec![(0.0, Event::Rebind { uplink })],
        10 => match choices.below(4) {
            0 => vec![(0.0, Event::RestartServer {})],
            1 => vec![(0.0, Event::RestartClient {})],
            2 => vec![(
                0.0,
                Event::Sleep {
                    for_ms: choices.between(50.0, 5000.0),
                },
            )],
            _ => {
                let modes = [
                    Mode::Aggregate,
                    Mode::Handover,
                    Mode::Interactive,
                    Mode::Redundant,
                ];
                vec![(
                    0.0,
                    Event::SetMode {
                        mode: choices.pick(&modes),
                        class: choices.pick(&[
                            None,
                            Some(Class::Realtime),
                            Some(Class::Interactive),
                            Some(Class::Bulk),
                        ]),
                    },
                )]
            }
        },
        _ => vec![(
            0.0,
            Event::Rubbish {
                uplink,
                datagrams: 1 + choices.below(60) as u16,
            },
        )],
    }
}

/// The first uplink is there, passes packets at a fair rate, and stays so.
fn calm_down(plan: Plan, at_s: f64) -> Plan {
    let first = plan.uplink[0].name.clone();
    let healed = Event::Link(LinkChange {
        rate_mbit: Some(8.0),
        loss: Some(0.0),
        blackhole: Some(false),
        ..LinkChange::of(&first, Way::Both)
    });
    plan.with(at_s, healed)
        .with(
            at_s,
            Event::Add {
                uplink: first.clone(),
            },
        )
        .with(
            at_s,
            Event::Carrier {
                uplink: first,
                up: true,
            },
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_makes_a_plan_that_passes_its_check_and_is_the_same_again() {
        for seed in 0..500 {
            let plan = from_seed(seed);
            plan.check().unwrap();
            assert_eq!(plan, from_seed(seed));
        }
    }

    #[test]
    fn seeds_reach_every_kind_of_event_and_of_traffic() {
        let plans: Vec<_> = (0..500).map(from_seed).collect();
        let text = plans
            .iter()
            .map(|plan| format!("{plan:?}"))
            .collect::<String>();
        for kind in [
            "Link",
            "Carrier",
            "Remove",
            "Rebind",
            "RestartServer",
            "RestartClient",
            "Sleep",
            "SetMode",
            "Rubbish",
            "Voice",
            "Web",
            "Udp",
            "Bbr",
            "V6",
            "Backup",
            "Redundant",
        ] {
            assert!(text.contains(kind), "{kind}");
        }
    }

    #[test]
    fn any_bytes_make_a_plan_and_none_make_a_calm_one() {
        let calm = from_bytes(&[]);
        calm.check().unwrap();
        assert_eq!(calm.event.len(), 3);
        let mut rng = Rng::new(5);
        for len in 0..300 {
            let bytes: Vec<u8> = (0..len).map(|_| rng.next_u64() as u8).collect();
            from_bytes(&bytes).check().unwrap();
        }
    }

    #[test]
    fn a_plan_survives_being_written_as_toml_and_read_again() {
        for seed in 0..50 {
            let plan = from_seed(seed);
            let text = toml::to_string(&plan).unwrap();
            assert_eq!(toml::from_str::<Plan>(&text).unwrap(), plan, "{text}");
        }
    }
}

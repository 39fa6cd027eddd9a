//! Whatever size a packet has, and however little a hop behind an uplink carries, it gets through,
//! and one narrow uplink is nobody else's trouble.

use marline_sim::event::{Event, LinkChange, Plan, UplinkSpec, Way};
use marline_sim::link::{LinkParams, Nanos};
use marline_sim::packet::{Side, Version};
use marline_sim::tcp::Algorithm;
use marline_sim::workload::{Direction, FlowSpec, Kind};
use marline_sim::world::World;

use crate::harness::{bulk, counted, fast_and_slow, pings, play, play_beside_native, share};

const S: Nanos = 1_000_000_000;

/// A link with a hop of so many bytes.
fn narrow(link: LinkParams, mtu: u64) -> LinkParams {
    LinkParams {
        mtu: Some(mtu),
        ..link
    }
}

/// From now on a hop behind the uplink carries no more than this.
fn narrows(uplink: &str, way: Way, mtu: u64) -> Event {
    Event::Link(LinkChange {
        mtu: Some(mtu),
        ..LinkChange::of(uplink, way)
    })
}

/// Full-size datagrams at a rate that the links bear, for five seconds.
fn full_size(direction: Direction, rate_mbit: f64) -> FlowSpec {
    FlowSpec {
        start_s: 0.5,
        stop_s: Some(5.5),
        ..FlowSpec::new(Kind::Udp {
            direction,
            rate_mbit,
        })
    }
}

/// What an end takes for the MTU of each of its paths.
fn found(world: &World, side: Side) -> Vec<u16> {
    let snapshot = world.snapshot(side);
    snapshot.bonds[0].paths.iter().map(|p| p.mtu).collect()
}

#[test]
fn each_end_finds_the_mtu_of_its_own_direction_also_under_loss() {
    for version in [Version::V4, Version::V6] {
        for loss in [0.0, 0.05] {
            let link = LinkParams {
                loss,
                ..LinkParams::new(20.0, 20.0)
            };
            let uplink = UplinkSpec {
                up: narrow(link.clone(), 1_428),
                down: narrow(link, 1_400),
                version,
                ..UplinkSpec::new("only", LinkParams::default())
            };
            let flows = vec![pings()];
            let mut world = World::new(&Plan::new("search", 12.0, vec![uplink], flows), 1);
            world.run_until(12 * S);
            assert_eq!(found(&world, Side::Client), [1_428], "{version:?}, {loss}");
            assert_eq!(found(&world, Side::Server), [1_400], "{version:?}, {loss}");
        }
    }
}

#[test]
fn packets_larger_than_the_only_path_arrive_all_the_same() {
    for (version, mtu) in [
        (Version::V4, 1_280),
        (Version::V6, 1_280),
        (Version::V4, 1_400),
    ] {
        let uplink = UplinkSpec {
            version,
            ..UplinkSpec::new("only", narrow(LinkParams::new(20.0, 20.0), mtu))
        };
        let flows = vec![
            full_size(Direction::Up, 5.0),
            full_size(Direction::Down, 5.0),
        ];
        let report = play(&Plan::new("narrow", 6.5, vec![uplink], flows));
        let missing: u64 = report.flows.iter().map(|flow| flow.missing).sum();
        assert_eq!(missing, 0, "{}", report.text());
        for (end, other) in [
            (&report.client, &report.server),
            (&report.server, &report.client),
        ] {
            assert!(counted(end, "cut") > 1_000, "{}", report.text());
            assert_eq!(counted(end, "cut"), counted(other, "joined"));
        }
    }
}

#[test]
fn a_lost_half_is_repaired() {
    let link = LinkParams {
        loss: 0.02,
        ..narrow(LinkParams::new(20.0, 20.0), 1_400)
    };
    let flows = vec![
        full_size(Direction::Up, 5.0),
        full_size(Direction::Down, 5.0),
    ];
    let report = play(&Plan::new(
        "loss",
        6.5,
        vec![UplinkSpec::new("only", link)],
        flows,
    ));
    let missing: u64 = report.flows.iter().map(|flow| flow.missing).sum();
    assert_eq!(missing, 0, "{}", report.text());
    assert!(counted(&report.client, "cut") > 1_000);
}

#[test]
fn a_narrow_uplink_carries_its_share_and_takes_nothing_from_the_other() {
    let mut uplinks = fast_and_slow();
    (uplinks[1].up.mtu, uplinks[1].down.mtu) = (Some(1_400), Some(1_400));
    let plan = Plan {
        measure_from_s: 2.0,
        ..Plan::new(
            "narrow and wide",
            10.0,
            uplinks,
            vec![bulk(Direction::Down, Algorithm::Cubic)],
        )
    };
    let report = play_beside_native(&plan);
    assert!(share(&report.flows[0]) >= 0.85, "{}", report.text());
    assert!(counted(&report.server, "cut") + counted(&report.server, "squeezed") > 0);
}

#[test]
fn a_path_that_narrows_in_mid_flow_costs_a_moment() {
    for (name, uplinks) in [
        (
            "only",
            vec![UplinkSpec::new("only", LinkParams::new(20.0, 20.0))],
        ),
        ("fast", fast_and_slow()),
    ] {
        let flows = vec![bulk(Direction::Down, Algorithm::Cubic), pings()];
        let plan = Plan {
            measure_from_s: 1.0,
            ..Plan::new("narrows", 10.0, uplinks, flows)
        }
        .with(5.0, narrows(name, Way::Down, 1_300));
        let report = play(&plan);
        assert!(report.flows[0].gap_ms_max <= 400.0, "{}", report.text());
        assert!(report.flows[1].gap_ms_max <= 400.0, "{}", report.text());
    }
}

#[test]
fn an_idle_bond_does_not_probe() {
    let uplink = UplinkSpec::new("only", narrow(LinkParams::new(20.0, 20.0), 1_400));
    let mut world = World::new(&Plan::new("idle", 7_200.0, vec![uplink], Vec::new()), 1);
    let too_large = |world: &World| {
        let (up, down) = world.link_stats("only").expect("it exists");
        up.dropped_mtu + down.dropped_mtu
    };
    world.run_until(20 * S);
    let at_first = too_large(&world);
    assert!((1..=60).contains(&at_first), "{at_first}");
    world.run_until(7_200 * S);
    assert_eq!(too_large(&world), at_first);
}

#[test]
fn large_datagrams_in_fragments_pass_over_links_of_any_mtu() {
    let mut uplinks = fast_and_slow();
    (uplinks[0].up.mtu, uplinks[0].down.mtu) = (Some(1_400), Some(1_400));
    for version in [Version::V4, Version::V6] {
        // 3 Mbit/s each way, and one datagram now and then beside a download.
        let large = |interval_ms, size_bytes| FlowSpec {
            version,
            start_s: 0.5,
            stop_s: Some(5.5),
            ..FlowSpec::new(Kind::Fragments {
                interval_ms,
                size_bytes,
            })
        };
        let flows = vec![
            large(20.0, 8_000),
            large(200.0, 3_000),
            bulk(Direction::Down, Algorithm::Cubic),
        ];
        let report = play(&Plan::new("fragments", 6.5, uplinks.clone(), flows));
        for flow in &report.flows[..2] {
            assert_eq!(flow.missing, 0, "{}", report.text());
        }
    }
}

#[test]
fn data_that_comes_before_the_answer_to_hello_is_not_lost() {
    // The answer gets lost now and then, and the server's data comes without it.
    let mut early = 0;
    for loss in [0.2, 0.3, 0.4, 0.5, 0.6] {
        let lossy = LinkParams {
            loss,
            ..LinkParams::new(20.0, 30.0)
        };
        let uplinks = vec![
            UplinkSpec::new("first", LinkParams::new(4.0, 30.0)),
            UplinkSpec {
                present: false,
                down: lossy,
                ..UplinkSpec::new("second", LinkParams::new(20.0, 30.0))
            },
        ];
        let flows = vec![full_size(Direction::Down, 10.0)];
        let mut plan = Plan::new("before the answer", 7.0, uplinks, flows);
        for n in 2..11 {
            let (at_s, uplink) = (f64::from(n) * 0.5, || "second".to_owned());
            plan = plan
                .with(at_s, Event::Add { uplink: uplink() })
                .with(at_s + 0.4, Event::Remove { uplink: uplink() });
        }
        let report = play(&plan);
        let drops = &report.client.drops;
        early += drops.get("data_before_hello").copied().unwrap_or_default();
        let dropped = |(name, count): (&String, &u64)| name.starts_with("queue").then_some(*count);
        let dropped: u64 = report.server.drops.iter().filter_map(dropped).sum();
        assert_eq!(report.flows[0].missing, dropped, "{}", report.text());
    }
    assert!(early > 0, "it never came to that");
}

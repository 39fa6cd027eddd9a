//! Keys change, machines sleep, clocks leap, addresses change: flows hardly notice.

use marline_sim::event::{Event, Plan, UplinkSpec};
use marline_sim::link::LinkParams;
use marline_sim::tcp::Algorithm;
use marline_sim::workload::{Direction, FlowSpec, Kind};

use crate::harness::{bulk, fast_and_slow, pings, play};

/// One ping per second, so that hours can be played.
fn rare_pings(stop_s: f64) -> FlowSpec {
    FlowSpec {
        start_s: 0.5,
        stop_s: Some(stop_s),
        ..FlowSpec::new(Kind::Ping {
            interval_ms: 1_000.0,
        })
    }
}

#[test]
fn three_hundred_new_keys_cost_no_packet() {
    // Every two minutes on each of two uplinks: more than the byte counts that numbers the sessions of each.
    let hours = 300.0 / 2.0 * 120.0;
    let flows = vec![rare_pings(hours)];
    let plan = Plan::new("rekeys", hours + 2.0, fast_and_slow(), flows);
    let report = play(&plan);
    assert_eq!(report.flows[0].missing, 0, "{}", report.text());
    assert!(report.flows[0].gap_ms_max <= 2_100.0, "{}", report.text());
    let ups = report.client.events.get("PathUp");
    assert_eq!(ups, Some(&2), "no path went down meanwhile");
}

#[test]
fn a_download_goes_through_new_keys_without_a_lost_packet() {
    let uplinks = fast_and_slow();
    let steady = FlowSpec {
        start_s: 0.5,
        stop_s: Some(605.0),
        ..FlowSpec::new(Kind::Udp {
            direction: Direction::Down,
            rate_mbit: 4.0,
        })
    };
    let report = play(&Plan::new("rekeys", 606.0, uplinks, vec![steady]));
    assert_eq!(report.flows[0].missing, 0, "{}", report.text());
    let server = &report.server.counters;
    assert_eq!(server.get("retransmitted"), Some(&0), "{}", report.text());
}

/// The client is away for so long, with pings and a download before and after.
fn away_for(away_s: f64) -> (f64, f64) {
    let flows = vec![pings(), bulk(Direction::Down, Algorithm::Cubic)];
    let plan = Plan {
        measure_from_s: 5.0,
        ..Plan::new("away", away_s + 15.0, fast_and_slow(), flows)
    }
    .with(
        5.0,
        Event::Sleep {
            for_ms: away_s * 1e3,
        },
    );
    let report = play(&plan);
    let after = |flow: usize| report.flows[flow].gap_ms_max - away_s * 1e3;
    (after(0), after(1))
}

#[test]
fn packets_pass_within_a_second_after_ten_minutes_of_sleep() {
    let (ping, _) = away_for(600.0);
    assert!(ping <= 1_000.0, "{ping} ms after waking");
}

#[test]
fn what_waits_for_a_sleeper_comes_out_while_it_may_or_never() {
    // A sender tries again after ever longer, so each length finds its last attempt at another age.
    for away_s in [20.0, 40.0, 60.0, 80.0, 100.0, 140.0, 180.0, 220.0, 300.0] {
        let (ping, _) = away_for(away_s);
        assert!(ping <= 1_000.0, "{ping} ms after {away_s} s of sleep");
    }
}

#[test]
fn a_clock_that_leaps_by_an_hour_costs_a_second() {
    let (ping, _) = away_for(3_600.0);
    assert!(ping <= 1_000.0, "{ping} ms after the leap");
}

#[test]
fn another_port_in_mid_flow_costs_less_than_150_ms() {
    for uplinks in [
        vec![UplinkSpec::new("fast", LinkParams::new(20.0, 20.0))],
        fast_and_slow(),
    ] {
        for direction in [Direction::Down, Direction::Up] {
            let flows = vec![pings(), bulk(direction, Algorithm::Cubic)];
            let plan = Plan {
                measure_from_s: 1.0,
                ..Plan::new("rebinding", 8.0, uplinks.clone(), flows)
            }
            .with(
                4.0,
                Event::Rebind {
                    uplink: "fast".to_owned(),
                },
            );
            let report = play(&plan);
            for flow in &report.flows {
                assert!(flow.gap_ms_max <= 150.0, "{}", report.text());
            }
        }
    }
}

#[test]
fn flows_resume_within_two_seconds_when_the_server_is_killed() {
    let flows = vec![pings(), bulk(Direction::Down, Algorithm::Cubic)];
    let plan = Plan {
        measure_from_s: 1.0,
        ..Plan::new("killed", 12.0, fast_and_slow(), flows)
    }
    .with(5.0, Event::RestartServer {});
    let report = play(&plan);
    for flow in &report.flows {
        assert!(flow.gap_ms_max <= 2_000.0, "{}", report.text());
    }
}

#[test]
fn an_idle_bond_stays_up_for_whom_it_is_to_be_reachable() {
    let late = FlowSpec {
        start_s: 1_000.0,
        stop_s: Some(1_001.0),
        ..FlowSpec::new(Kind::Voice {})
    };
    let report = play(&Plan::new("late", 1_003.0, fast_and_slow(), vec![late]));
    let call = &report.flows[0];
    assert_eq!(call.missing, 0, "{}", report.text());
    assert_eq!(
        report.server.events.get("PathDown"),
        None,
        "{}",
        report.text()
    );
    assert_eq!(
        report.client.events.get("PathDown"),
        None,
        "{}",
        report.text()
    );
}

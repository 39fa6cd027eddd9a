//! A NAT box that forgets a mapping costs a moment, not a session.

use marline_sim::event::{Event, Plan, UplinkSpec};
use marline_sim::link::LinkParams;
use marline_sim::tcp::Algorithm;
use marline_sim::workload::Direction;

use crate::harness::{bulk, fast_and_slow, pings, play};

fn rebind(uplink: &str) -> Event {
    Event::Rebind {
        uplink: uplink.to_owned(),
    }
}

#[test]
fn a_download_goes_on_while_the_other_uplink_stays() {
    let flows = vec![bulk(Direction::Down, Algorithm::Cubic)];
    let plan = Plan {
        measure_from_s: 1.0,
        ..Plan::new("rebinding", 8.0, fast_and_slow(), flows)
    }
    .with(4.0, rebind("fast"));
    let report = play(&plan);
    assert!(report.flows[0].gap_ms_max <= 500.0, "{}", report.text());
}

#[test]
fn an_upload_goes_on_over_the_only_uplink() {
    let uplinks = vec![UplinkSpec::new("only", LinkParams::new(20.0, 20.0))];
    let flows = vec![pings(), bulk(Direction::Up, Algorithm::Cubic)];
    let plan = Plan {
        measure_from_s: 1.0,
        ..Plan::new("rebinding", 8.0, uplinks, flows)
    }
    .with(4.0, rebind("only"));
    let report = play(&plan);
    assert!(report.flows[0].gap_ms_max <= 1000.0, "{}", report.text());
    assert!(report.flows[1].gap_ms_max <= 1000.0, "{}", report.text());
}

#[test]
fn a_round_trip_longer_than_the_servers_patience_does_not_keep_the_new_address_out() {
    // The server asks a new address every 200 ms whether it receives.
    let uplinks = vec![UplinkSpec::new("only", LinkParams::new(20.0, 150.0))];
    let plan = Plan {
        measure_from_s: 2.0,
        ..Plan::new("rebinding", 8.0, uplinks, vec![pings()])
    }
    .with(4.0, rebind("only"));
    let report = play(&plan);
    assert!(report.flows[0].gap_ms_max <= 1500.0, "{}", report.text());
}

//! A killed process comes back without inner connections being lost.

use marline_sim::event::{Event, Plan};
use marline_sim::tcp::Algorithm;
use marline_sim::workload::Direction;

use crate::harness::{bulk, fast_and_slow, pings, play};

fn goes_on_after(event: Event) {
    let flows = vec![pings(), bulk(Direction::Down, Algorithm::Cubic)];
    let plan = Plan {
        measure_from_s: 1.0,
        ..Plan::new("restart", 16.0, fast_and_slow(), flows)
    }
    .with(5.0, event);
    let report = play(&plan);
    assert!(report.flows[0].gap_ms_max <= 5000.0, "{}", report.text());
    assert!(report.flows[1].gap_ms_max <= 8000.0, "{}", report.text());
}

#[test]
fn the_server_may_be_killed() {
    goes_on_after(Event::RestartServer {});
}

#[test]
fn the_client_may_be_killed() {
    goes_on_after(Event::RestartClient {});
}

#[test]
fn the_client_may_sleep() {
    goes_on_after(Event::Sleep { for_ms: 3000.0 });
}

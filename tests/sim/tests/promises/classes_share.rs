//! Small flows go before large ones, but cannot stop them.

use marline_sim::event::{Plan, UplinkSpec};
use marline_sim::link::LinkParams;
use marline_sim::tcp::Algorithm;
use marline_sim::workload::Direction;

use crate::harness::{bulk, call, play};

#[test]
fn more_calls_than_the_link_carries_leave_a_fifth_to_a_download() {
    let mut flows = vec![bulk(Direction::Down, Algorithm::Cubic)];
    flows.extend((0..150).map(|_| call(9.0)));
    let link = UplinkSpec::new("only", LinkParams::new(10.0, 10.0));
    let plan = Plan {
        measure_from_s: 3.0,
        ..Plan::new("flood", 9.0, vec![link], flows)
    };
    let report = play(&plan);
    assert!(report.flows[0].goodput_mbit_s >= 2.0, "{}", report.text());
}

#[test]
fn a_call_waits_behind_no_bulk_in_either_direction() {
    let flows = vec![
        call(19.0),
        bulk(Direction::Down, Algorithm::Cubic),
        bulk(Direction::Up, Algorithm::Cubic),
    ];
    let link = UplinkSpec::new("only", LinkParams::new(50.0, 10.0));
    let report = play(&Plan::new("beside", 20.0, vec![link], flows));
    let [p50, p95, _] = report.flows[0].percentiles_ms.expect("a call has delays");
    // The link's own small queue; bulk waits for 30 ms and more.
    assert!(p50 <= 10.0 + 8.0 && p95 <= 10.0 + 15.0, "{}", report.text());
}

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

#[test]
fn ten_uploads_get_the_same_of_a_thin_uplink_and_of_a_fat_one() {
    for mbit_s in [5.0, 20.0, 50.0] {
        let uplinks = vec![UplinkSpec::new("lone", LinkParams::new(mbit_s, 20.0))];
        let flows = vec![bulk(Direction::Up, Algorithm::Cubic); 10];
        let report = play(&Plan::new("ten", 20.0, uplinks, flows));
        for flow in &report.flows {
            let share = flow.goodput_mbit_s / mbit_s;
            assert!((0.08..0.12).contains(&share), "{}", report.text());
        }
    }
}

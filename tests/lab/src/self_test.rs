//! The lab checks itself: do its links do what they are told?
//!
//! A figure from an emulated link is worth what the link is worth. So each property is measured
//! from outside, with the lab's own workloads and real sockets, in both directions with different
//! values, and compared with what was asked for.

use anyhow::{Result, bail};
use marline_sim::link::LinkParams;

use crate::results::{Direction, Mark, Observer, Sample, Series};
use crate::run::{Interrupt, RunOutcome, RunPlan, run_once};
use crate::say::sayln;
use crate::scenario::{Cc, Kind, LinkPlan, Measure, Workload};
use crate::stats::percentile;
use crate::topology::{Lab, wan};
use crate::workload::Way;

/// Measures and prints one line per property; fails if one is off.
pub fn run(interrupt: &Interrupt) -> Result<()> {
    let unlike = LinkPlan {
        down: LinkParams::new(50.0, 20.0),
        up: LinkParams::new(10.0, 5.0),
        direct: false,
    };
    let lossy = LinkPlan {
        down: LinkParams {
            loss: 0.05,
            ..LinkParams::new(20.0, 2.0)
        },
        up: LinkParams {
            loss: 0.10,
            ..LinkParams::new(20.0, 2.0)
        },
        direct: false,
    };
    let lab = Lab::build(&[unlike, lossy], 7)?;
    let mut check = Checks { failed: 0 };
    if !lab.emulator().is_realtime() {
        sayln!("  note: no real-time priority for the emulator; it may be late on a busy machine");
    }

    let call = workload(Kind::Call, 50.0);
    let pings = workload(Kind::Ping, 50.0);
    let tcp = workload(Kind::Tcp, 50.0);

    let outcome = one(
        &lab,
        0,
        &[call.clone(), pings],
        Direction::Down,
        4.0,
        interrupt,
    )?;
    for (direction, asked_ms) in [(Direction::Down, 20.0), (Direction::Up, 5.0)] {
        let latencies: Vec<f64> = outcome
            .series
            .call
            .iter()
            .filter(|packet| packet.direction == direction)
            .filter_map(|packet| packet.latency_ms)
            .collect();
        let measured = percentile(&latencies, 0.5).unwrap_or(f64::NAN);
        check.within(
            &format!("one-way delay {direction}"),
            measured,
            asked_ms,
            -0.1,
            0.8,
            "ms",
        );
    }
    let rtt = outcome.figure("ping_ms_p50").unwrap_or(f64::NAN);
    check.within("round trip of a ping", rtt, 25.0, -0.2, 1.5, "ms");

    for (direction, asked) in [(Direction::Down, 50.0), (Direction::Up, 10.0)] {
        let outcome = one(
            &lab,
            0,
            std::slice::from_ref(&tcp),
            direction,
            6.0,
            interrupt,
        )?;
        let last = outcome.series.samples.last();
        let middle = outcome
            .series
            .samples
            .iter()
            .find(|sample| sample.t_ms >= 3000.0);
        let rate = match (middle, last) {
            (Some(middle), Some(last)) => {
                let bytes = |sample: &Sample| match direction {
                    Direction::Down => sample.link_down_bytes[0],
                    Direction::Up => sample.link_up_bytes[0],
                };
                // Full packets of 1,500 bytes take 1,514 on the wire.
                let carried = (bytes(last) - bytes(middle)) as f64 * 1514.0 / 1500.0;
                carried * 8.0 / 1000.0 / (last.t_ms - middle.t_ms)
            }
            _ => f64::NAN,
        };
        check.within(
            &format!("rate {direction} on the wire, filled by TCP"),
            rate,
            asked,
            -0.02 * asked,
            0.01 * asked,
            "Mbit/s",
        );
        // 1,448 of 1,514 bytes are data.
        let goodput = outcome.figure("goodput_mbit_s").unwrap_or(f64::NAN);
        let asked = asked * 1448.0 / 1514.0;
        let what = format!("goodput {direction} of one TCP flow");
        check.within(&what, goodput, asked, -0.03 * asked, 0.01 * asked, "Mbit/s");
    }

    let many = Workload {
        per_second: 1000.0,
        ..call
    };
    let outcome = one(&lab, 1, &[many], Direction::Down, 6.0, interrupt)?;
    for (direction, asked) in [(Direction::Down, 0.05), (Direction::Up, 0.10)] {
        let packets: Vec<_> = outcome
            .series
            .call
            .iter()
            .filter(|packet| packet.direction == direction)
            .collect();
        let lost = packets
            .iter()
            .filter(|packet| packet.latency_ms.is_none())
            .count();
        let measured = lost as f64 / packets.len().max(1) as f64 * 100.0;
        // Four standard deviations of so many independent draws.
        let spread = 400.0 * (asked * (1.0 - asked) / packets.len().max(1) as f64).sqrt();
        let what = format!("loss {direction} of {} packets", packets.len());
        check.within(&what, measured, asked * 100.0, -spread, spread, "%");
    }
    let late = outcome.figure("emulator_late_ms_p99").unwrap_or(f64::NAN);
    check.within("lateness of the emulator, p99", late, 0.0, 0.0, 2.0, "ms");
    let share = lab.emulator().cpu_time().as_secs_f64();
    sayln!("  the emulator used {share:.1} s of processor time, with the kernel's work inside");
    if check.failed > 0 {
        bail!(
            "{} properties of the lab's links are off; do not trust its figures",
            check.failed
        );
    }
    Ok(())
}

struct Checks {
    failed: usize,
}

impl Checks {
    fn within(
        &mut self,
        what: &str,
        measured: f64,
        asked: f64,
        below: f64,
        above: f64,
        unit: &str,
    ) {
        let good = (below..=above).contains(&(measured - asked));
        let word = if good { "ok " } else { "OFF" };
        sayln!("  {word} {what}: {measured:.2} {unit}, asked {asked:.2}");
        self.failed += usize::from(!good);
    }
}

fn workload(kind: Kind, per_second: f64) -> Workload {
    Workload {
        per_second,
        ..Workload::new(kind)
    }
}

fn one(
    lab: &Lab,
    link: usize,
    workloads: &[Workload],
    direction: Direction,
    seconds: f64,
    interrupt: &Interrupt,
) -> Result<RunOutcome> {
    let measure = Measure::default();
    let plan = RunPlan {
        title: "self-test".into(),
        workloads,
        events: &[],
        measure: &measure,
        seconds,
        way: Way {
            device: Some(wan(link)),
            ..Way::default()
        },
        cc: Some(Cc::Cubic),
        direction,
        seed: 7,
        tunnel_pids: Vec::new(),
    };
    run_once(lab, &plan, interrupt, &mut Nobody)
}

/// Looks at nothing.
struct Nobody;

impl Observer for Nobody {
    fn begin(&mut self, _series: &Series, _seconds: f64) {}
    fn sample(&mut self, _sample: &Sample) {}
    fn event(&mut self, _mark: &Mark) {}
    fn end(&mut self, _series: &Series) {}
}

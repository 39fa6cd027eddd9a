//! A made-up demonstration for the tests of the report: two links, one of which dies.
//!
//! It follows simple formulas, so a test can say what must come out of it.

use crate::results::{
    CallPacket, DemoResult, Direction, Gap, LinkLabel, Mark, Phase, PhaseKind, Ping, Sample, Series,
};

const STEP_MS: f64 = 20.0;

/// Four phases: each link alone, both, and a silent death of the first from 5 s to 10 s.
pub(crate) fn demo() -> DemoResult {
    let alone = |link: usize, rate: f64, rtt: f64| {
        let title = format!("wan{} alone", link + 1);
        let only = move |l: usize, _: f64| if l == link { rate } else { 0.0 };
        let mut series = series(&title, 8.0, only, rtt, false);
        series.goodput_mbit_s = Some(rate * 0.965);
        Phase {
            kind: PhaseKind::SingleLink { link },
            series,
        }
    };
    let mut bond = series("Both uplinks", 10.0, |l, _| [48.9, 19.5][l], 19.0, false);
    bond.goodput_mbit_s = Some(64.2);
    DemoResult {
        commit: "0123abc-dirty".to_owned(),
        machine: "Linux 6.18, <sample> processor, 2 cores".to_owned(),
        started: "2026-01-31 12:00 UTC".to_owned(),
        phases: vec![
            alone(0, 49.6, 34.0),
            alone(1, 19.8, 75.0),
            Phase {
                kind: PhaseKind::Bond,
                series: bond,
            },
            Phase {
                kind: PhaseKind::SilentDeath { link: 0 },
                series: death(),
            },
        ],
    }
}

fn death() -> Series {
    let rate = |link: usize, t: f64| match (link, t) {
        (0, t) if (5000.0..10_400.0).contains(&t) => 0.0,
        (0, _) => 48.9,
        _ => 19.5,
    };
    let mut series = series("Both uplinks, wan1 dies at 5 s", 14.0, rate, 19.0, true);
    series.events = vec![
        Mark {
            t_ms: 5000.0,
            text: "wan1 falls silent".to_owned(),
            link: Some(0),
        },
        Mark {
            t_ms: 10_000.0,
            text: "wan1 is back".to_owned(),
            link: Some(0),
        },
    ];
    series.gaps = vec![
        Gap {
            flow: None,
            start_ms: 4998.0,
            length_ms: 64.0,
        },
        Gap {
            flow: Some(0),
            start_ms: 5003.0,
            length_ms: 86.0,
        },
    ];
    // Nothing is delivered from 5,003 ms to 5,089 ms; what was held back comes at once then.
    let before = series.samples[250].flow_bytes[0];
    for sample in series
        .samples
        .iter_mut()
        .filter(|s| (5003.0..5089.0).contains(&s.t_ms))
    {
        sample.flow_bytes[0] = before;
    }
    series
}

fn series(
    title: &str,
    seconds: f64,
    rate_mbit_s: impl Fn(usize, f64) -> f64,
    ping_ms: f64,
    with_call: bool,
) -> Series {
    let label = |name: &str, rate: f64, rtt_ms: f64| LinkLabel {
        name: name.to_owned(),
        text: format!("{rate:.0} Mbit/s, {rtt_ms:.0} ms"),
        rate_down_mbit_s: Some(rate),
        rate_up_mbit_s: Some(rate),
        rtt_ms,
    };
    let mut bytes = [0.0f64; 2];
    let mut flow = 0.0f64;
    let mut samples = Vec::new();
    for k in 0..=(seconds * 1000.0 / STEP_MS) as u64 {
        let t_ms = k as f64 * STEP_MS;
        if k > 0 {
            // A slow start of half a second, then a ripple of a few per cent.
            let ramp = (t_ms / 500.0).min(1.0);
            let ripple = 1.0 - 0.03 * (1.0 + (t_ms / 180.0).sin());
            for (link, counter) in bytes.iter_mut().enumerate() {
                let step = rate_mbit_s(link, t_ms) * ramp * ripple * 125.0 * STEP_MS;
                *counter += step;
                flow += step * 0.94;
            }
        }
        samples.push(Sample {
            t_ms,
            flow_bytes: vec![flow as u64],
            link_down_bytes: bytes.iter().map(|b| *b as u64).collect(),
            link_up_bytes: bytes.iter().map(|b| (*b * 0.03) as u64).collect(),
            call_latency_ms: with_call.then_some(14.0),
            call_sent: if with_call { k * 2 } else { 0 },
            call_received: if with_call { k * 2 } else { 0 },
            ping_ms: Some(ping_ms),
            cpu_busy: 0.41,
        });
    }
    let wobble = |t: f64| 3.0 * (t / 90.0).sin().abs();
    let slow = |t: f64| {
        if with_call && (5040.0..10_100.0).contains(&t) {
            28.0
        } else {
            0.0
        }
    };
    let pings = (0..(seconds * 10.0) as u64).map(|k| {
        let sent_ms = k as f64 * 100.0;
        Ping {
            sent_ms,
            rtt_ms: Some(ping_ms + wobble(sent_ms) + 2.0 * slow(sent_ms)),
        }
    });
    let call = (0..(seconds * 50.0) as u32).flat_map(|sequence| {
        [Direction::Down, Direction::Up].map(|direction| {
            let sent_ms = f64::from(sequence) * 20.0;
            let lost = direction == Direction::Down && (5000.0..5040.0).contains(&sent_ms);
            let latency_ms = (!lost).then(|| 11.0 + wobble(sent_ms) + slow(sent_ms));
            CallPacket {
                direction,
                sequence,
                sent_ms,
                latency_ms,
            }
        })
    });
    let goodput = flow * 8.0 / seconds / 1e6;
    Series {
        title: title.to_owned(),
        links: vec![label("wan1", 50.0, 15.0), label("wan2", 20.0, 60.0)],
        flows: vec!["download 1 (cubic)".to_owned()],
        samples,
        call: if with_call {
            call.collect()
        } else {
            Vec::new()
        },
        pings: pings.collect(),
        goodput_mbit_s: Some(goodput),
        cpu_busy: 0.41,
        lateness_ms_p99: 0.3,
        ..Series::default()
    }
}

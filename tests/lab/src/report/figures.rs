//! Figures that follow from a [`Series`]: rates over time, percentiles, pauses, the return of a link.
//!
//! Byte counters are cumulative and samples come at uneven moments, so a rate is never taken from
//! two neighbouring samples: the counter is read off (by straight line) at evenly spaced moments,
//! and the rate is the difference of two readings. A sample that came late shifts nothing.

use crate::results::{DemoResult, Direction, Phase, PhaseKind, Sample, Series};

/// Width of the bins in which the return of a link is looked for, in ms.
const RETURN_BIN_MS: f64 = 100.0;

/// A link counts as in use again when a bin reaches this share of its mean before it died.
const RETURN_SHARE: f64 = 0.5;

/// The short form of one run.
#[derive(Clone, Debug, PartialEq)]
pub struct Figures {
    /// Goodput of all bulk flows, Mbit/s; absent without one.
    pub goodput_mbit_s: Option<f64>,
    /// Longest pause of a bulk flow in ms; absent without one, zero when none reached 20 ms.
    pub gap_ms_max: Option<f64>,
    /// Ping round trips, 50th, 95th and 99th percentile in ms; absent without answers.
    pub ping_ms: Option<[f64; 3]>,
    /// Pings without an answer, and pings sent.
    pub ping_lost: (u64, u64),
    /// Call packets lost, and sent, both directions together; absent without a call.
    pub call_lost: Option<(u64, u64)>,
    /// One-way latency of call packets, 50th and 99th percentile in ms; absent without a call.
    pub call_latency_ms: Option<[f64; 2]>,
    /// Longest silence of the call in ms; absent without a call.
    pub call_gap_ms_max: Option<f64>,
    /// Busy share of the machine, 0 to 1.
    pub cpu_busy: f64,
    /// How late the emulator was at the 99th percentile, ms.
    pub lateness_ms_p99: f64,
}

impl Figures {
    /// Reads them off a series.
    pub fn of(series: &Series) -> Figures {
        let longest = |of_call: bool| {
            let lengths = series
                .gaps
                .iter()
                .filter(|gap| gap.flow.is_none() == of_call);
            lengths.map(|gap| gap.length_ms).fold(0.0, f64::max)
        };
        let rtts: Vec<f64> = series.pings.iter().filter_map(|ping| ping.rtt_ms).collect();
        let latencies: Vec<f64> = series
            .call
            .iter()
            .filter_map(|call| call.latency_ms)
            .collect();
        let has_call = !series.call.is_empty();
        Figures {
            goodput_mbit_s: series.goodput_mbit_s,
            gap_ms_max: (!series.flows.is_empty()).then(|| longest(false)),
            ping_ms: percentiles(rtts.clone(), [0.50, 0.95, 0.99]),
            ping_lost: (
                (series.pings.len() - rtts.len()) as u64,
                series.pings.len() as u64,
            ),
            call_lost: has_call.then(|| {
                (
                    (series.call.len() - latencies.len()) as u64,
                    series.call.len() as u64,
                )
            }),
            call_latency_ms: percentiles(latencies, [0.50, 0.99]),
            call_gap_ms_max: has_call.then(|| longest(true)),
            cpu_busy: series.cpu_busy,
            lateness_ms_p99: series.lateness_ms_p99,
        }
    }
}

/// A link's silent death within a series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Death {
    /// The link, as an index into [`Series::links`].
    pub link: usize,
    /// When it fell silent.
    pub start_ms: f64,
    /// When it was there again; absent when it stayed away.
    pub end_ms: Option<f64>,
    /// From there until it carried at least half of what it carried before, in seconds; absent
    /// when it never did.
    pub return_s: Option<f64>,
}

/// Finds a phase's silent death: the first two events about the link that dies.
pub fn death(phase: &Phase) -> Option<Death> {
    let PhaseKind::SilentDeath { link } = phase.kind else {
        return None;
    };
    let series = &phase.series;
    let mut about_it = series.events.iter().filter(|mark| mark.link == Some(link));
    let start_ms = about_it.next()?.t_ms;
    let end_ms = about_it.next().map(|mark| mark.t_ms);
    let return_s = end_ms.and_then(|end| {
        let rates = link_rates(series, link, RETURN_BIN_MS);
        let died_in = (start_ms / RETURN_BIN_MS) as usize;
        // The first second is left out of "before": slow start says nothing about the link.
        let before: Vec<f64> = rates.iter().copied().take(died_in).skip(10).collect();
        let mean = before.iter().sum::<f64>() / before.len().max(1) as f64;
        let first = (end / RETURN_BIN_MS) as usize;
        let bin =
            (first..rates.len()).find(|&bin| mean > 0.0 && rates[bin] >= mean * RETURN_SHARE)?;
        Some((((bin + 1) as f64 * RETURN_BIN_MS - end) / 1000.0).max(0.0))
    });
    Some(Death {
        link,
        start_ms,
        end_ms,
        return_s,
    })
}

/// What the demonstration found, in a handful of numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Headline {
    /// Goodput through the bond, Mbit/s.
    pub bond_mbit_s: f64,
    /// Sum of what the uplinks carry alone, Mbit/s.
    pub sum_mbit_s: f64,
    /// The best of the uplinks alone, Mbit/s.
    pub best_mbit_s: f64,
}

impl Headline {
    /// Absent while the demonstration lacks a bond or a single link.
    pub fn of(demo: &DemoResult) -> Option<Headline> {
        let bond = demo
            .phases
            .iter()
            .find(|phase| phase.kind == PhaseKind::Bond)?;
        let best_mbit_s = demo
            .phases
            .iter()
            .filter(|phase| matches!(phase.kind, PhaseKind::SingleLink { .. }))
            .filter_map(|phase| phase.series.goodput_mbit_s)
            .fold(0.0, f64::max);
        let sum_mbit_s = demo.native_sum_mbit_s();
        (best_mbit_s > 0.0).then_some(Headline {
            bond_mbit_s: bond.series.goodput_mbit_s?,
            sum_mbit_s,
            best_mbit_s,
        })
    }
}

/// The way that most of a series' data went.
pub fn direction(series: &Series) -> Direction {
    let last = series.samples.last();
    let total = |bytes: fn(&Sample) -> &Vec<u64>| last.map_or(0, |s| bytes(s).iter().sum::<u64>());
    if total(|s| &s.link_up_bytes) > total(|s| &s.link_down_bytes) {
        Direction::Up
    } else {
        Direction::Down
    }
}

/// How long a series is, in ms.
pub fn length_ms(series: &Series) -> f64 {
    series.samples.last().map_or(0.0, |sample| sample.t_ms)
}

/// Mbit/s that came out of a link, in the series' main direction, in bins of `bin_ms`.
pub fn link_rates(series: &Series, link: usize, bin_ms: f64) -> Vec<f64> {
    let pick = match direction(series) {
        Direction::Down => |sample: &Sample, link: usize| sample.link_down_bytes.get(link).copied(),
        Direction::Up => |sample: &Sample, link: usize| sample.link_up_bytes.get(link).copied(),
    };
    rates(series, bin_ms, |sample| pick(sample, link).unwrap_or(0))
}

/// Mbit/s of a cumulative byte counter, in bins of `bin_ms`.
pub fn rates(series: &Series, bin_ms: f64, counter: impl Fn(&Sample) -> u64) -> Vec<f64> {
    let bins = (length_ms(series) / bin_ms).floor() as usize;
    let edges = readings(series, 0.0, bin_ms, bins + 1, counter);
    edges
        .windows(2)
        .map(|pair| (pair[1] - pair[0]) * 8.0 / bin_ms / 1000.0)
        .collect()
}

/// The counter's value at `count` moments, `step_ms` apart, from `from_ms` on.
pub fn readings(
    series: &Series,
    from_ms: f64,
    step_ms: f64,
    count: usize,
    counter: impl Fn(&Sample) -> u64,
) -> Vec<f64> {
    let mut samples = series.samples.iter().peekable();
    let (mut t0, mut v0) = (0.0, 0.0);
    (0..count)
        .map(|k| {
            let t = from_ms + k as f64 * step_ms;
            while let Some(next) = samples.next_if(|sample| sample.t_ms <= t) {
                (t0, v0) = (next.t_ms, counter(next) as f64);
            }
            match samples.peek() {
                Some(next) if next.t_ms > t0 => {
                    v0 + (counter(next) as f64 - v0) * (t - t0) / (next.t_ms - t0)
                }
                _ => v0,
            }
        })
        .collect()
}

/// Percentiles by nearest rank; absent when there are no values.
pub fn percentiles<const N: usize>(mut values: Vec<f64>, shares: [f64; N]) -> Option<[f64; N]> {
    if values.is_empty() {
        return None;
    }
    values.sort_by(f64::total_cmp);
    Some(shares.map(|share| {
        let rank = (share * values.len() as f64).ceil() as usize;
        values[rank.clamp(1, values.len()) - 1]
    }))
}

/// A number for people: as many digits as tell something, at most two behind the point.
pub fn number(value: f64) -> String {
    let text = match value.abs() {
        size if !size.is_finite() => return "–".to_owned(),
        size if size >= 99.95 => return format!("{value:.0}"),
        size if size >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    };
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Mbit/s for people, always with one digit so that columns line up.
pub fn mbit(value: f64) -> String {
    format!("{value:.1}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample_data;

    #[test]
    fn a_late_sample_does_not_change_the_rate() {
        let at = |t_ms: f64| Sample {
            t_ms,
            flow_bytes: vec![(t_ms * 1000.0) as u64],
            ..Sample::default()
        };
        let series = Series {
            samples: vec![at(0.0), at(50.0), at(137.0), at(200.0)],
            ..Series::default()
        };
        // 1,000 bytes per ms are 8 Mbit/s wherever the samples happened to fall.
        let rates = rates(&series, 50.0, |sample| sample.flow_bytes[0]);
        assert_eq!(rates.len(), 4);
        for rate in rates {
            assert!((rate - 8.0).abs() < 1e-9, "{rate}");
        }
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        let values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(
            percentiles(values, [0.50, 0.95, 0.99]),
            Some([50.0, 95.0, 99.0])
        );
        assert_eq!(percentiles(vec![7.0], [0.50]), Some([7.0]));
        assert_eq!(percentiles(Vec::new(), [0.50]), None);
    }

    #[test]
    fn the_death_and_the_return_of_a_link_are_found() {
        let demo = sample_data::demo();
        let phase = demo
            .phases
            .last()
            .expect("the demo ends with the silent death");
        let death = death(phase).expect("a link dies in it");
        assert_eq!(death.link, 0);
        assert_eq!(death.start_ms, 5000.0);
        assert_eq!(death.end_ms, Some(10_000.0));
        let back = death.return_s.expect("the link is used again");
        assert!((0.3..=0.6).contains(&back), "{back}");
    }

    #[test]
    fn lost_call_packets_and_pauses_are_counted() {
        let demo = sample_data::demo();
        let figures = Figures::of(&demo.phases[3].series);
        assert_eq!(figures.call_lost, Some((2, 1400)));
        assert_eq!(figures.gap_ms_max, Some(86.0));
        assert_eq!(figures.call_gap_ms_max, Some(64.0));
        let alone = Figures::of(&demo.phases[0].series);
        assert_eq!(alone.call_lost, None);
        assert_eq!(alone.gap_ms_max, Some(0.0));
    }

    #[test]
    fn numbers_keep_the_digits_that_tell_something() {
        assert_eq!(number(0.0), "0");
        assert_eq!(number(0.346), "0.35");
        assert_eq!(number(12.34), "12.3");
        assert_eq!(number(20.0), "20");
        assert_eq!(number(2.5), "2.5");
        assert_eq!(number(100.0), "100");
        assert_eq!(number(431.7), "432");
        assert_eq!(number(f64::NAN), "–");
    }
}

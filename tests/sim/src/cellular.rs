//! Traces of mobile links that nobody recorded.
//!
//! A recorded trace is somebody's, large, and one of its kind. What matters about
//! a mobile link can be drawn: its rate wanders within tens of milliseconds around
//! a mean, for seconds it is far from it, and now and then it stops. Here the
//! logarithm of the rate is the sum of a quick and a slow first-order random walk
//! that are drawn back to zero, and stops come at random. From a seed comes always
//! the same trace, in Mahimahi's format ([`crate::link::Trace`]).

use crate::link::OPPORTUNITY_BYTES;
use crate::rng::Rng;

/// How long a rate holds.
const HOLD_MS: u64 = 20;
/// Time in which the quick walk forgets, milliseconds, and its deviation (of a logarithm).
const QUICK: (f64, f64) = (150.0, 0.25);
/// The same of the slow walk.
const SLOW: (f64, f64) = (2_000.0, 0.45);
/// Stops a second, and how long they last, milliseconds.
const STOPS_A_SECOND: f64 = 0.2;
const STOP_MS: (f64, f64) = (40.0, 250.0);

/// The moments at which 1,500 bytes may pass, milliseconds, in order.
pub fn trace(seed: u64, length_ms: u64, mean_mbit: f64) -> Vec<u64> {
    let mut rng = Rng::new(seed).fork(0xce11);
    let mut walks = [0.0; 2];
    let mut stopped_until_ms = 0.0;
    let mut rates = Vec::new();
    for at_ms in (0..length_ms).step_by(HOLD_MS as usize) {
        for (walk, (forgets_ms, deviation)) in walks.iter_mut().zip([QUICK, SLOW]) {
            let keeps = (-(HOLD_MS as f64) / forgets_ms).exp();
            *walk = *walk * keeps + deviation * (1.0 - keeps * keeps).sqrt() * rng.normal();
        }
        if rng.happens(STOPS_A_SECOND * HOLD_MS as f64 / 1e3) {
            stopped_until_ms = at_ms as f64 + rng.between_f64(STOP_MS.0, STOP_MS.1);
        }
        let moves = at_ms as f64 >= stopped_until_ms;
        rates.push(if moves {
            (walks[0] + walks[1]).exp()
        } else {
            0.0
        });
    }
    // The mean is as asked for, whatever was drawn.
    let drawn: f64 = rates.iter().sum::<f64>() / rates.len().max(1) as f64;
    let per_ms = mean_mbit * 1e3 / 8.0 / OPPORTUNITY_BYTES as f64 / drawn;
    let mut owed = 0.0;
    let mut moments = Vec::new();
    for at_ms in 0..length_ms {
        owed += rates[(at_ms / HOLD_MS) as usize] * per_ms;
        while owed >= 1.0 {
            owed -= 1.0;
            moments.push(at_ms + 1);
        }
    }
    // The last moment is the length of the loop.
    if moments.last() != Some(&length_ms) {
        moments.push(length_ms);
    }
    moments
}

/// The same as a file's text, which says how it was made.
pub fn text(seed: u64, length_ms: u64, mean_mbit: f64) -> String {
    let seconds = length_ms as f64 / 1e3;
    let mut out =
        format!("# marline-sim trace --seed {seed} --seconds {seconds} --mbit {mean_mbit}\n");
    for moment in trace(seed, length_ms, mean_mbit) {
        out += &format!("{moment}\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::Trace;

    #[test]
    fn a_trace_has_the_mean_that_was_asked_for_and_wanders_around_it() {
        for seed in 0..20 {
            let text = text(seed, 10_000, 12.0);
            let trace = Trace::parse("made", &text).unwrap();
            let mean = trace.mean_rate_bit_s() as f64 / 1e6;
            assert!((mean - 12.0).abs() < 0.1, "seed {seed}: {mean}");
            let moments = super::trace(seed, 10_000, 12.0);
            let within = |from: u64| {
                moments
                    .iter()
                    .filter(|at| (from..from + 500).contains(*at))
                    .count()
            };
            let counts: Vec<usize> = (0..20).map(|turn| within(turn * 500)).collect();
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            assert!(most > &(least * 3 / 2), "seed {seed}: {counts:?}");
        }
    }

    #[test]
    fn the_labs_traces_are_those_of_their_first_line() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../lab/scenarios/traces");
        for (name, seed, mean_mbit) in [("cell_a", 1, 14.0), ("cell_b", 2, 8.0)] {
            let file = std::fs::read_to_string(format!("{folder}/{name}.trace")).unwrap();
            assert_eq!(file, text(seed, 10_000, mean_mbit), "{name}");
        }
    }
}

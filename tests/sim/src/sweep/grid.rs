//! Links of the evaluation's grid: rates, round trips and losses as people have them,
//! in every combination. All combinations of two to four links are far too many, so
//! each seed draws one.

use super::scale_down;
use crate::link::LinkParams;
use crate::rng::Rng;

/// Rates, Mbit/s.
const RATES_MBIT: [f64; 6] = [5.0, 10.0, 20.0, 50.0, 100.0, 500.0];
/// Round trips, milliseconds.
const RTTS_MS: [f64; 5] = [10.0, 30.0, 60.0, 100.0, 150.0];
/// Shares of packets lost, each way.
const LOSSES: [f64; 3] = [0.0, 0.005, 0.02];

/// The links of a seed. One loss for most cells, as the marks are asked by the greatest one: drawn
/// for each link, three cells in four would have a link that loses 2 %.
pub(super) fn links(seed: u64) -> Vec<LinkParams> {
    let mut rng = Rng::new(seed).fork(0x671d);
    let loss_most = rng.below(LOSSES.len() as u64);
    let mut links: Vec<LinkParams> = (0..rng.between(2, 4))
        .map(|_| {
            let rate = pick(&mut rng, &RATES_MBIT);
            let rtt_ms = pick(&mut rng, &RTTS_MS);
            let loss = LOSSES[rng.between(0, loss_most) as usize];
            LinkParams {
                loss,
                ..LinkParams::new(rate, rtt_ms / 2.0)
            }
        })
        .collect();
    scale_down(&mut links);
    links
}

fn pick(rng: &mut Rng, from: &[f64]) -> f64 {
    from[rng.below(from.len() as u64) as usize]
}

#[cfg(test)]
mod tests {
    use super::super::{RATE_MBIT_MIN, SUM_MBIT_MAX};
    use super::*;

    #[test]
    fn every_seed_draws_two_to_four_links_of_the_grid_and_the_same_ones_again() {
        for seed in 0..300 {
            let drawn = links(seed);
            assert_eq!(drawn, links(seed));
            assert!((2..=4).contains(&drawn.len()));
            let sum: f64 = drawn.iter().filter_map(|link| link.rate_mbit).sum();
            assert!(sum <= SUM_MBIT_MAX + 3.0 * RATE_MBIT_MIN, "seed {seed}");
            for link in drawn {
                assert!(RTTS_MS.contains(&(2.0 * link.delay_ms)), "seed {seed}");
                assert!(LOSSES.contains(&link.loss), "seed {seed}");
            }
        }
    }
}

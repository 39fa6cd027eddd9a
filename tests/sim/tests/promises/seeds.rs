//! Random links, traffic and trouble: what must always hold, holds.

use marline_sim::generate;
use marline_sim::report;

/// Enough to meet every kind of event; many more are played by `marline-sim --seeds`.
const SEEDS: std::ops::Range<u64> = 0..24;

#[test]
fn nothing_that_must_not_happen_happens() {
    let failed: Vec<String> = SEEDS
        .map(|seed| report::run(&generate::from_seed(seed), seed, "test"))
        .filter(|report| !report.violations.is_empty())
        .map(|report| report.text())
        .collect();
    assert!(
        failed.is_empty(),
        "{} failed\n{}",
        failed.len(),
        failed.join("\n")
    );
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in [3, 5] {
        let plan = generate::from_seed(seed);
        let once = report::run(&plan, seed, "test");
        let again = report::run(&plan, seed, "test");
        assert_eq!(once.fingerprint, again.fingerprint, "seed {seed}");
        assert_eq!(once.text(), again.text(), "seed {seed}");
    }
}

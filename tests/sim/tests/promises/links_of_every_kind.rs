//! A path carries what its link carries, of whatever kind the link is.

use marline_sim::kinds::{self, Kind, Table};
use marline_sim::tcp::Algorithm;

fn table(kinds: &[Kind], rate_mbit: f64) -> Table {
    Table {
        kinds: kinds.to_vec(),
        rates_mbit: vec![rate_mbit],
        rtts_ms: vec![30.0],
        cc: vec![Algorithm::Cubic, Algorithm::Bbr],
        duration_s: 12.0,
        seed: 7,
        jobs: 2,
    }
}

#[test]
fn a_link_that_bursts_lumps_stands_still_or_changes_its_route_carries_its_share_and_never_dies() {
    let kinds = [
        Kind::Bucket16,
        Kind::Bucket256,
        Kind::Lumps10,
        Kind::Routes,
        Kind::Shallow,
    ];
    for cell in kinds::run(&table(&kinds, 8.0), "test") {
        assert!(cell.share_of_native > 0.8, "{cell:?}");
        assert_eq!(cell.deaths, 0, "{cell:?}");
    }
}

#[test]
fn a_slow_link_carries_its_share_and_never_dies() {
    for cell in kinds::run(&table(&[Kind::Steady, Kind::Deep], 0.5), "test") {
        assert!(cell.share_of_native > 0.8, "{cell:?}");
        assert_eq!(cell.deaths, 0, "{cell:?}");
    }
}

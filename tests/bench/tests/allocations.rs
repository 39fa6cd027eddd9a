//! In the steady state a packet costs no memory: buffers come from the pool and go back.

use marline_bench::pair::{Pair, ROUND};

/// What remains is per acknowledgement (the two lists in one, at both ends), not per packet; an
/// acknowledgement answers many packets.
const PER_ACKNOWLEDGEMENT: u64 = 8;
/// Rounds of 0.25 ms between two acknowledgements, at least, while less than 64 datagrams wait.
const ROUNDS_PER_ACKNOWLEDGEMENT: u64 = 2;

#[test]
fn a_packet_is_carried_without_allocating() {
    for paths in [1, 2] {
        let mut pair = Pair::connected(paths);
        let before = pair.delivered;
        let rounds = 2_000;
        let counted = allocation_counter::measure(|| {
            for _ in 0..rounds {
                pair.round();
            }
        });
        let packets = (pair.delivered - before) as u64;
        assert!(packets > 0 && packets <= rounds * ROUND as u64);
        let acknowledgements = rounds / ROUNDS_PER_ACKNOWLEDGEMENT;
        eprintln!(
            "{paths} path(s): {} allocations for {packets} packets in {rounds} rounds",
            counted.count_total
        );
        assert!(
            counted.count_total <= acknowledgements * PER_ACKNOWLEDGEMENT,
            "{} allocations for {packets} packets",
            counted.count_total
        );
    }
}

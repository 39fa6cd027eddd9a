//! What a packet costs. The benchmarks stand in `benches/`; run them with
//! `cargo bench -p marline-bench`. A speed target is never a test: machines differ.

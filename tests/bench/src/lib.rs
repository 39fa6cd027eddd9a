//! What a packet costs, a peer weighs, and how both grow.
//!
//! * `cargo bench -p marline-bench --bench bond`: a packet's whole way through the core;
//! * `--bench steps`: each step of it, in nanoseconds ([`steps`]);
//! * `./x instructions`: the same steps in instructions, compared with the limits that are kept in
//!   `instructions.txt`;
//! * `--bench peers`: one server with up to a thousand peers: memory, speed, and a restart;
//! * `tests/allocations.rs`: nothing is allocated per packet.
//!
//! What applications get from the daemons is measured by `marline-lab bench`. A speed target is
//! never a test: machines differ.

pub mod pair;
pub mod steps;

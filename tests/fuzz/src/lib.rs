//! What must hold for all bytes, whoever sent them.
//!
//! Each module is one target: a function `check(&[u8])` that panics when something does not hold.
//! Two callers feed it. `cargo fuzz` (`./x fuzz TARGET`) searches for new inputs under coverage
//! feedback; what it finds is kept in `corpus/TARGET`. The test `replay` runs every kept input
//! and a fixed number of damaged copies of it on a plain stable compiler, the same ones each
//! time: that is what CI does on each change (`./x fuzz-replay`).

pub mod datagram;
pub mod frame;
pub mod join_code;
pub mod offload;
pub mod squeeze;

/// A target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, which is also the name of its corpus folder.
    pub name: &'static str,
    /// Panics when something does not hold for these bytes.
    pub check: fn(&[u8]),
    /// Damaged copies of each stored input that `replay` makes: a few seconds' worth.
    pub copies: u32,
}

/// Every target.
pub const TARGETS: &[Target] = &[
    // Two whole endpoints live through each input.
    Target {
        name: "datagram",
        check: datagram::check,
        copies: 500,
    },
    Target {
        name: "frame",
        check: frame::check,
        copies: 20_000,
    },
    Target {
        name: "join_code",
        check: join_code::check,
        copies: 20_000,
    },
    Target {
        name: "offload",
        check: offload::check,
        copies: 20_000,
    },
    Target {
        name: "squeeze",
        check: squeeze::check,
        copies: 20_000,
    },
];

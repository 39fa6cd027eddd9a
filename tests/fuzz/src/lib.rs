//! What must hold for all bytes, whoever sent them.
//!
//! Each module is one target: a function `check(&[u8])` that panics when something does not hold.
//! Two callers feed it. `cargo fuzz` (`./x fuzz TARGET`) searches for new inputs under coverage
//! feedback; what it finds is kept in `corpus/TARGET`. The test `replay` runs every kept input
//! and a fixed number of damaged copies of it on a plain stable compiler, the same ones each
//! time: that is what CI does on each change (`./x fuzz-replay`).

pub mod control;
pub mod datagram;
mod files;
pub mod frame;
pub mod join_code;
pub mod key;
pub mod offload;
pub mod settings;
pub mod squeeze;
pub mod state;

// The daemons are programs, not libraries; these parts of them read what people wrote.
#[allow(dead_code, missing_docs)]
#[path = "../../../server/src/addresses.rs"]
mod addresses;
#[allow(dead_code, missing_docs)]
#[path = "../../../client/src/settings.rs"]
mod client_settings;
#[allow(dead_code, missing_docs)]
#[path = "../../../server/src/peers.rs"]
mod peers;
#[allow(dead_code, missing_docs)]
#[path = "../../../server/src/settings.rs"]
mod server_settings;

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
    Target {
        name: "control",
        check: control::check,
        copies: 20_000,
    },
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
        name: "key",
        check: key::check,
        copies: 20_000,
    },
    Target {
        name: "offload",
        check: offload::check,
        copies: 20_000,
    },
    // A file is written for each.
    Target {
        name: "settings",
        check: settings::check,
        copies: 2_000,
    },
    Target {
        name: "squeeze",
        check: squeeze::check,
        copies: 20_000,
    },
    // A file is written for each, and another for what is accepted.
    Target {
        name: "state",
        check: state::check,
        copies: 1_000,
    },
];

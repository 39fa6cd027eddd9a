//! State files: what a crash or a person left there never makes the reader panic, and what it accepts it writes again.

use std::net::{IpAddr, SocketAddr};

use marline_io::state_file;
use marline_proto::{Key, Mode, Modes, Role};
use serde::{Deserialize, Serialize};

use crate::files;

/// The kinds of values that the daemons' journals are made of.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Entry {
    #[default]
    Nothing,
    Modes(Modes),
    Mode {
        mode: Mode,
        role: Option<Role>,
    },
    Address(IpAddr, u8),
    Server(String, SocketAddr),
    Key(Key),
    Bytes(Vec<u8>),
    Text(String),
}

/// Checks one input.
pub fn check(bytes: &[u8]) {
    let file = files::holding(bytes);
    match state_file::read::<Vec<Entry>>(file.path()) {
        Ok(entries) => {
            let entries = entries.expect("the file is there");
            state_file::write(file.path(), &entries).expect("what was read can be written");
            let again = state_file::read::<Vec<Entry>>(file.path()).expect("what was written can be read");
            assert_eq!(again, Some(entries), "what is written means something else");
        }
        Err(failure) => assert!(
            failure.to_string().contains("the file is damaged"),
            "it says what is wrong: {failure}"
        ),
    }
}

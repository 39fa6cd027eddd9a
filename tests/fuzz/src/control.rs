//! The control socket: no line makes either end panic, and what is understood is understood again when it is passed on.

use marline_io::control::{read_reply, read_request};
use marline_proto::{Class, Mode, Modes, Snapshot};
use serde::{Deserialize, Serialize};

/// The shapes that the daemons' requests have: a word, a number, a text, values of the core.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Request {
    Status,
    Watch {
        interval_ms: u64,
        #[serde(default)]
        peer: Option<String>,
    },
    PeerAdd { name: String, code_life_s: u64 },
    SetMode { mode: Mode, class: Option<Class> },
}

/// The same of their replies.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Reply {
    Status(Box<Snapshot>),
    Modes(Modes),
    Names(Vec<String>),
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Line<'a> {
    Reply(&'a Reply),
}

/// Checks one input: a line, with or without its end.
pub fn check(bytes: &[u8]) {
    match read_request::<Request>(bytes) {
        Ok(request) => {
            let line = serde_json::to_vec(&request).expect("a request can be written");
            let again = read_request::<Request>(&line).expect("what was written can be read");
            assert_eq!(again, request, "a request means something else");
        }
        Err(failure) => assert_eq!(failure.exit_code(), 2, "{failure}"),
    }
    match read_reply::<Reply>(bytes) {
        Ok(reply) => {
            let line = serde_json::to_vec(&Line::Reply(&reply)).expect("a reply can be written");
            // Equal but for the last digit of a fraction.
            assert!(read_reply::<Reply>(&line).is_ok(), "what was written can be read");
        }
        // Also one that the line itself holds: it is shown as it stands there.
        Err(failure) => assert!((1..=7).contains(&failure.exit_code()), "{failure}"),
    }
}

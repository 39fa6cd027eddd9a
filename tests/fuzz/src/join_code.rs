//! Join codes: no text makes the reader panic, and what it accepts it can also write.
//!
//! A random text never has the right checksum, so an input that begins with a zero byte is taken
//! as the *content* of a code and put into a valid envelope first; anything else is the text.

use bech32::{Bech32m, Hrp};
use marline_io::join_code::JoinCode;

/// Checks one input.
pub fn check(bytes: &[u8]) {
    let text = match bytes.split_first() {
        Some((0, content)) => {
            let prefix = Hrp::parse_unchecked("marline");
            match bech32::encode::<Bech32m>(prefix, content) {
                Ok(text) => text,
                // Longer than any code may be.
                Err(_) => return,
            }
        }
        _ => String::from_utf8_lossy(bytes).into_owned(),
    };
    let code = match JoinCode::decode(&text, 0) {
        Ok(code) => code,
        Err(complaint) => {
            assert!(!complaint.to_string().is_empty(), "a refusal says why");
            return;
        }
    };
    let written = code.encode().expect("what was read can be written");
    assert_eq!(
        JoinCode::decode(&written, 0),
        Ok(code),
        "a code changes when it is written anew"
    );
}

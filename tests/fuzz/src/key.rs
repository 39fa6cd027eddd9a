//! Keys as text: no text makes the reader panic, and a key has one spelling but for blanks around it.

use marline_io::key;

/// Checks one input.
pub fn check(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match key::decode(&text) {
        Ok(key) => assert_eq!(key::encode(&key), text.trim(), "a key has two spellings"),
        Err(failure) => assert_eq!(failure.exit_code(), 2, "{failure}"),
    }
    if let Ok(key) = bytes.try_into() {
        let again = key::decode(&key::encode(&key)).expect("what was written can be read");
        assert_eq!(again, key, "a key became another");
    }
}

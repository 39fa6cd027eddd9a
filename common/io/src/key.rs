//! Keys as people and files hold them: 32 bytes in base64, 44 characters that
//! end in `=`, the form in which WireGuard's own tools write keys.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use marline_proto::Key;

use crate::failure::{Class, Failure};

/// The key in base64.
pub fn encode(key: &Key) -> String {
    STANDARD.encode(key)
}

/// The key that `text` stands for.
pub fn decode(text: &str) -> Result<Key, Failure> {
    let text = text.trim();
    let bytes = STANDARD.decode(text).map_err(|_| {
        Failure::usage("a key contains characters that base64 does not have, or is cut off")
            .with_advice("a key is 44 characters of base64 that end in \"=\"")
    })?;
    let len = bytes.len();
    Key::try_from(bytes).map_err(|_| {
        Failure::usage(format!("a key has {len} bytes instead of 32"))
            .with_advice("a key is 44 characters of base64 that end in \"=\"")
    })
}

/// A new secret key.
pub fn generate() -> Result<Key, Failure> {
    let mut key = fresh_seed()?;
    // The three fixed bits of a Curve25519 secret, so that every tool shows the same text for it.
    key[0] &= 0b1111_1000;
    key[31] = key[31] & 0b0111_1111 | 0b0100_0000;
    Ok(key)
}

/// The public key of a secret key.
pub fn public_of(secret: &Key) -> Key {
    marline_proto::public_key(secret)
}

/// 32 random bytes from the operating system, for [`marline_proto::Endpoint`] and the like.
pub fn fresh_seed() -> Result<[u8; 32], Failure> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| {
        Failure::new(
            Class::Facility,
            format!("the system gives no random numbers: {error}"),
        )
    })?;
    Ok(seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_comes_back_from_its_text() {
        let key = generate().expect("the system has randomness");
        let text = encode(&key);
        assert_eq!(text.len(), 44);
        assert_eq!(decode(&format!(" {text}\n")).expect("our own text"), key);
    }

    #[test]
    fn two_keys_differ() {
        assert_ne!(
            generate().expect("randomness"),
            generate().expect("randomness")
        );
    }

    #[test]
    fn a_damaged_key_is_refused_with_the_form_it_should_have() {
        let short = decode("AAAA").expect_err("too short");
        assert!(
            short.to_string().contains("3 bytes instead of 32"),
            "{short}"
        );
        let damaged = decode("no key at all!").expect_err("not base64");
        assert!(damaged.to_string().contains("44 characters"), "{damaged}");
        assert_eq!(damaged.exit_code(), 2);
    }
}

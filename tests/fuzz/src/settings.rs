//! Settings and the peer store: no file makes a reader panic, and a refusal is a sentence that says where.
//!
//! The first byte tells who reads the rest: `c` the client, `s` the server, `p` the server its peer store.

use marline_io::failure::Failure;

use crate::client_settings;
use crate::files;
use crate::peers::PeerStore;
use crate::server_settings;

/// Checks one input.
pub fn check(bytes: &[u8]) {
    let Some((reader, text)) = bytes.split_first() else {
        return;
    };
    let file = files::holding(text);
    let path = file.path();
    let refused = match reader {
        b'c' => client_settings::load(path, &client_settings::Typed::default()).err(),
        b's' => server_settings::Settings::load(path).err(),
        b'p' => match PeerStore::at(path).read() {
            Ok(peers) => {
                let names: std::collections::BTreeSet<_> = peers.iter().map(|p| &p.name).collect();
                assert_eq!(names.len(), peers.len(), "two peers of one name");
                None
            }
            Err(failure) => Some(failure),
        },
        _ => return,
    };
    if let Some(failure) = refused {
        check_refusal(&failure, &path.display().to_string(), text);
    }
}

/// It is one sentence; a place that it names is in the file.
fn check_refusal(failure: &Failure, name: &str, text: &[u8]) {
    let sentence = failure.to_string();
    let lines = text.split(|byte| *byte == b'\n').count();
    assert!(!sentence.is_empty(), "a refusal says why");
    let Some(place) = sentence.strip_prefix(&format!("{name}:")) else {
        return;
    };
    let mut numbers = place.split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next().and_then(|number| number.parse::<usize>().ok());
    if let Some(line) = next() {
        assert!((1..=lines).contains(&line), "there is no such line: {sentence}");
        let column = next().unwrap_or(1);
        let longest = text.split(|byte| *byte == b'\n').nth(line - 1).map_or(0, <[u8]>::len);
        assert!((1..=longest + 1).contains(&column), "there is no such column: {sentence}");
    }
}

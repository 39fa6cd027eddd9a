//! Frames: decoding never panics, and what was decoded survives encoding.
//!
//! Bytes and their re-encoding may differ (reserved bits, padding), so the promise is about
//! meaning: decoding the encoding of a decoded frame gives the same frame again.

use marline_proto::frame::{Frame, HEADER_LEN, decode, encode, is_frame};

/// Checks one input.
pub fn check(bytes: &[u8]) {
    let Ok((stamp, frame)) = decode(bytes) else {
        return;
    };
    if let Frame::Data(_, inner) = &frame {
        assert!(
            inner.len() + HEADER_LEN <= bytes.len(),
            "an inner packet has no bytes of its own"
        );
    }
    let mut encoded = Vec::new();
    encode(&frame, stamp, &mut encoded);
    assert!(
        encoded.len() >= HEADER_LEN,
        "boringtun opens nothing that is shorter"
    );
    assert!(
        is_frame(&encoded),
        "a frame would be taken for an inner IP packet"
    );
    let total = usize::from(u16::from_be_bytes([encoded[2], encoded[3]]));
    assert_eq!(
        total,
        encoded.len(),
        "boringtun would cut the frame to its total length"
    );
    let again = decode(&encoded);
    assert_eq!(
        again,
        Ok((stamp, frame)),
        "the encoding of a frame means something else"
    );
}

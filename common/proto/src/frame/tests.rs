use super::data::FORM_SQUEEZED;
use super::*;
use crate::classify::Class;
use crate::config::{Mode, Modes, Role};

fn hello() -> Hello {
    Hello {
        version: VERSION,
        boot: 0x0102_0304_0506_0708,
        peer_boot: 9,
        path: 3,
        capabilities: 0,
        mtu: 1420,
        role: Role::Backup,
        modes: Modes {
            realtime: Mode::Redundant,
            interactive: Mode::Interactive,
            bulk: Mode::Handover,
        },
    }
}

fn samples() -> Vec<Frame<'static>> {
    let path_ack = PathAck {
        path: 1,
        epoch: 2,
        largest: 77,
        largest_age: 5,
        largest_delay: 0x00ab_cdef,
        min_delay: 7,
        bytes: u32::MAX,
        last_arrival_us: 12,
        ranges: vec![(0, 3), (1, 40)],
    };
    let header = DataHeader {
        more: true,
        duplicate: false,
        retransmitted: true,
        ordered: true,
        class: Class::Interactive,
        flow: 0xbeef,
        seq: 0x00fe_dcba,
        release: 9,
        opens: None,
        begun: false,
    };
    let opens = DataHeader {
        opens: Some(Opening {
            generation: 200,
            stamp: 0x00ab_cdef,
        }),
        ..header
    };
    let squeezed = DataHeader {
        release: 0,
        ..header
    };
    vec![
        Frame::Data(header, b"inner"),
        Frame::Data(opens, b"inner"),
        Frame::Squeezed(squeezed, b"eight or more"),
        Frame::Data(
            DataHeader {
                begun: true,
                ..opens
            },
            b"inner",
        ),
        Frame::Squeezed(
            DataHeader {
                begun: true,
                ..squeezed
            },
            b"eight or more",
        ),
        Frame::Ack(Ack {
            seq: 4,
            paths: vec![path_ack.clone(), path_ack],
        }),
        Frame::Control(Control::Hello(hello())),
        Frame::Control(Control::HelloAck(hello())),
        Frame::Control(Control::PathChallenge(*b"12345678")),
        Frame::Control(Control::PathResponse(*b"abcdefgh")),
        Frame::Control(Control::Silent {
            path: 2,
            largest: 99,
        }),
        Frame::Control(Control::Skip(vec![(1, 2), (3, 0x00ff_ffff)])),
        Frame::Control(Control::Forgotten {
            flow: 0x0102,
            generation: 255,
        }),
        Frame::Control(Control::Close(CloseReason::Removed)),
        Frame::Probe(Probe::Ping { id: 8 }),
        Frame::Probe(Probe::Pong { id: 8 }),
        Frame::Probe(Probe::Tick),
        Frame::Probe(Probe::Size { len: 1_420 }),
        Frame::Half(Half {
            header: squeezed,
            form: FORM_SQUEEZED,
            second: true,
            piece: b"seven or more",
        }),
    ]
}

#[test]
fn every_frame_survives_the_wire_with_its_stamp() {
    for frame in samples() {
        let mut out = Vec::new();
        encode(&frame, 0x0012_3456, &mut out);
        assert!(is_frame(&out), "{frame:?}");
        assert_eq!(decode(&out), Ok((0x0012_3456, frame)));
    }
}

#[test]
fn a_cut_frame_is_refused_at_every_length() {
    for frame in samples() {
        let mut out = Vec::new();
        encode(&frame, 1, &mut out);
        for len in 0..out.len() {
            assert!(decode(&out[..len]).is_err(), "{frame:?} cut to {len}");
        }
    }
}

#[test]
fn a_real_ip_header_is_never_taken_for_a_frame() {
    for ihl in 5..16 {
        assert!(!is_frame(&[0x40 | ihl; 40]));
    }
    assert!(!is_frame(&[0x60; 40]));
    assert!(!is_frame(&[]));
}

/// The layout as `docs/protocol.md` gives it.
#[test]
fn a_data_header_has_the_documented_bytes() {
    let header = DataHeader {
        more: true,
        duplicate: false,
        retransmitted: false,
        ordered: true,
        class: Class::Bulk,
        flow: 0x0102,
        seq: 0x0003_0405,
        release: 6,
        opens: None,
        begun: false,
    };
    let mut out = Vec::new();
    encode(&Frame::Data(header, &[0xee]), 0x000a_0b0c, &mut out);
    let expected = [
        0x40, 0x29, 0, 21, 0x0a, 0x0b, 0x0c, 1, 2, 3, 4, 5, 6, 0, 0, 0, 0, 0, 0, 0, 0xee,
    ];
    assert_eq!(out, expected);
    let begun = DataHeader {
        begun: true,
        ..header
    };
    encode(&Frame::Data(begun, &[0xee]), 0x000a_0b0c, &mut out);
    assert_eq!(out[17], 1);
    out[17] = 0;
    assert_eq!(out, expected);
}

/// The layout as `docs/protocol.md` gives it.
#[test]
fn a_probe_of_a_size_has_the_documented_bytes() {
    let mut out = Vec::new();
    encode(
        &Frame::Probe(Probe::Size { len: 24 }),
        0x000a_0b0c,
        &mut out,
    );
    let expected = [0x43, 0, 0, 24, 0x0a, 0x0b, 0x0c, 4];
    assert_eq!(out[..8], expected);
    assert_eq!(out[8..], [0; 16]);
}

#[test]
fn a_half_that_is_neither_the_first_nor_the_second_is_refused() {
    let half = |which: u8, flags: u8| {
        let mut bytes = [0; 30];
        (bytes[0], bytes[1], bytes[3], bytes[12]) = (0x44, flags, 30, which);
        decode(&bytes).map(|_| ())
    };
    assert_eq!(half(1, 0), Ok(()));
    assert_eq!(half(2, 0), Err(FrameError::Invalid));
    assert_eq!(half(0, 0xc0), Ok(()), "squeezed, with a begun checksum");
}

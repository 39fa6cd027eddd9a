//! Steps that not every packet takes: at the TUN, where paths are chosen, and where a packet does not fit.

use std::hint::black_box;
use std::time::Duration;

use marline_io::tun::offload::{self, HEADER_LEN as VIRTIO_LEN, Sink};
use marline_proto::checksum::{self, Position};
use marline_proto::frame::SQUEEZED_AT;
use marline_proto::halves;
use marline_proto::mss;
use marline_proto::schedule::{self, Order, PathView};
use marline_proto::session::Number;
use marline_proto::span::Span;
use marline_proto::squeeze::{Base, Head, Marks, Place, Widths};
use marline_proto::{Mode, PacketBuf, Pool, Role, Time};

use super::{SOURCE, Step, data_frame};
use crate::pair::{MTU, SEGMENT, segment, udp_packet};

/// Segments of a super-packet: some 60 KB, of the 65,535 bytes that an IP packet may have.
const SEGMENTS: usize = 45;

/// What the kernel hands over for a download: one set of headers in front of 45 segments.
fn super_packet() -> Vec<u8> {
    let mut packet = segment(0);
    packet.resize(52 + SEGMENTS * usize::from(SEGMENT), 7);
    let len = packet.len() as u16;
    packet[2..4].copy_from_slice(&len.to_be_bytes());
    let mut frame = vec![0; VIRTIO_LEN];
    // A begun checksum, and TCP over IPv4 to be cut (`struct virtio_net_hdr`).
    frame[..2].copy_from_slice(&[1, 1]);
    for (at, value) in [(2, 52), (4, SEGMENT), (6, 20), (8, 16)] {
        frame[at..at + 2].copy_from_slice(&value.to_ne_bytes());
    }
    frame.extend_from_slice(&packet);
    frame
}

#[derive(Default)]
struct Collected {
    pool: Pool,
    packets: Vec<PacketBuf>,
}

impl Sink for Collected {
    fn take(&mut self) -> PacketBuf {
        self.pool.take()
    }

    fn give(&mut self, packet: PacketBuf) {
        self.packets.push(packet);
    }
}

pub(super) fn split_super() -> Step {
    let frame = super_packet();
    let mut sink = Collected::default();
    Box::new(move || {
        offload::split(black_box(&frame), &mut sink).expect("a sound frame");
        assert_eq!(sink.packets.len(), SEGMENTS);
        for packet in sink.packets.drain(..) {
            sink.pool.put(packet);
        }
    })
}

pub(super) fn join_run(whole: bool) -> Step {
    let mut sink = Collected::default();
    offload::split(&super_packet(), &mut sink).expect("a sound frame");
    let mut packets = sink.packets;
    if whole {
        packets.iter_mut().for_each(PacketBuf::complete);
    }
    // The first of a joined run gets the headers of the whole.
    let mut headers = [0; 52];
    headers.copy_from_slice(&packets[0].bytes()[..52]);
    let mut joiner = offload::Joiner::new(true);
    let mut written = Vec::new();
    Box::new(move || {
        let mut frames = 0;
        let mut write = |frame: offload::Frame<'_>| {
            frames += 1;
            written.append(frame.packets);
        };
        for packet in packets.drain(..) {
            joiner.push(packet, &mut write);
        }
        joiner.flush(&mut write);
        assert_eq!(frames, 1, "all became one");
        std::mem::swap(&mut packets, &mut written);
        packets[0].bytes_mut()[..52].copy_from_slice(&headers);
    })
}

pub(super) fn complete_checksum() -> Step {
    let mut packet = segment(0);
    let Position { start, offset } = checksum::position(&packet).expect("a usual packet");
    let begun = checksum::begun(&packet, true, 6, MTU - 20);
    Box::new(move || {
        let at = start + offset;
        packet[at..at + 2].copy_from_slice(&begun.to_be_bytes());
        checksum::complete(black_box(&mut packet));
    })
}

pub(super) fn clamp_mss() -> Step {
    // MSS 1460, SACK permitted, timestamps, window scale: as Linux writes them.
    const OPTIONS: [u8; 20] = [
        2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7,
    ];
    let mut syn = segment(0);
    syn.truncate(40);
    syn.extend_from_slice(&OPTIONS);
    syn[3] = 60;
    syn[32..34].copy_from_slice(&[0xa0, 0x02]);
    let mut passing = syn.clone();
    Box::new(move || {
        passing.copy_from_slice(&syn);
        mss::clamp(black_box(&mut passing), MTU);
        assert_eq!(passing[42..44], (MTU - 40).to_be_bytes());
    })
}

pub(super) fn fragment() -> Step {
    let packet = udp_packet(SOURCE, MTU);
    Box::new(move || {
        let fragments = black_box(mss::fragments(black_box(&packet), 1200));
        assert_eq!(fragments.len(), 2);
    })
}

/// Wi-Fi, two mobile links and a satellite.
fn views() -> Vec<PathView> {
    let paths = [(8.0, 40.0), (25.0, 30.0), (32.0, 12.0), (300.0, 20.0)];
    let view = |(index, (base_ms, mbit)): (usize, (f64, f64))| PathView {
        index,
        role: Role::Always,
        active: true,
        base_ms,
        delay_ms: base_ms + 4.0,
        jitter_ms: 2.0,
        loss_known_ms: 0.0,
        rtt_ms: 2.0 * base_ms,
        capacity: mbit * 125_000.0,
        at_most: Some(mbit * 125_000.0),
        on_trial: false,
        on_probation: false,
        has_room: false,
        ready_in: Duration::ZERO,
        full: false,
    };
    paths.into_iter().enumerate().map(view).collect()
}

pub(super) fn order_paths() -> Step {
    let views = views();
    let mut order = Order::default();
    Box::new(move || {
        schedule::order(black_box(&views), Mode::Aggregate, Some(1), &mut order);
        black_box(&order);
    })
}

pub(super) fn choose_span() -> Step {
    let mut order = Order::default();
    schedule::order(&views(), Mode::Aggregate, None, &mut order);
    Box::new(move || {
        black_box(Span::of(black_box(&order.usable), order.wide, 10.0));
    })
}

fn place(number: u32) -> Place {
    Place {
        number,
        stamp: number * 25,
    }
}

fn base() -> Base {
    Base::of(&segment(0), place(0)).expect("a usual header")
}

pub(super) fn squeeze_header() -> Step {
    let (base, packet) = (base(), segment(1_001));
    let (mut widths, mut head) = (Widths::default(), Head::default());
    Box::new(move || {
        let packet = black_box(&packet[..]);
        let squeezed = base.squeeze(
            packet,
            place(1_001),
            Marks::default(),
            &mut widths,
            &mut head,
        );
        black_box(squeezed);
    })
}

pub(super) fn restore_header() -> Step {
    let (base, packet) = (base(), segment(1_001));
    let (mut widths, mut head) = (Widths::default(), Head::default());
    base.squeeze(
        &packet,
        place(1_001),
        Marks::default(),
        &mut widths,
        &mut head,
    );
    let mut rest = head.bytes[SQUEEZED_AT + 1..head.len].to_vec();
    rest.extend_from_slice(&packet[head.skip..]);
    Box::new(move || {
        let restored = base.restore(place(1_001), false, black_box(&rest));
        assert!(black_box(restored).is_ok());
    })
}

pub(super) fn cut_halves() -> Step {
    let whole = data_frame(MTU);
    let (mut first, mut second) = (Vec::new(), Vec::new());
    Box::new(move || {
        halves::cut(black_box(&whole), false, &mut first);
        halves::cut(black_box(&whole), true, &mut second);
        black_box((&first, &second));
    })
}

pub(super) fn join_halves() -> Step {
    let whole = data_frame(MTU);
    let pieces = [false, true].map(|second| {
        let mut piece = Vec::new();
        halves::cut(&whole, second, &mut piece);
        piece
    });
    let mut pool = Pool::default();
    let mut joiner = halves::Joiner::default();
    let mut counter = 0;
    Box::new(move || {
        let mut joined = None;
        for (second, piece) in [false, true].into_iter().zip(&pieces) {
            let mut buf = pool.take();
            buf.frame_room()[..piece.len()].copy_from_slice(piece);
            let number = Number {
                session: 7,
                counter,
            };
            counter += 1;
            let opened = (buf, piece.len());
            joined = joiner.take(Time::from_millis(1), number, second, opened, &mut pool);
        }
        let (packet, len) = joined.expect("both halves are there");
        assert_eq!(len, whole.len());
        pool.put(packet);
    })
}

//! What goes in comes out, whatever happens in between.

use std::collections::BTreeMap;

use super::*;
use crate::buffer::PacketBuf;
use crate::checksum;
use crate::classify::Class;
use crate::frame::{self, Frame, SQUEEZED_AT};
use crate::stamp;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn once_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.next() as u8).collect()
    }
}

/// A flow as some host might send it.
#[derive(Clone, Debug)]
struct Host {
    v6: bool,
    protocol: u8,
    addresses: Vec<u8>,
    ports: [u8; 4],
    id: u16,
    counts: bool,
    dont_fragment: bool,
    ttl: u8,
    tos: u8,
    label: u8,
    seq: u32,
    ack: u32,
    window: u16,
    clock: Option<(u32, u32)>,
    mss: u64,
}

impl Host {
    fn new(r: &mut Random) -> Host {
        let v6 = r.once_in(3);
        Host {
            v6,
            protocol: [6, 6, 6, 17, 17, 1, 58, 50][r.below(8) as usize],
            addresses: r.bytes(if v6 { 32 } else { 8 }),
            ports: [r.next() as u8, 1, 2, r.next() as u8],
            id: r.next() as u16 * u16::from(!r.once_in(4)),
            counts: !r.once_in(3),
            dont_fragment: !r.once_in(4),
            ttl: 64,
            tos: if r.once_in(2) { 2 } else { 0 },
            label: r.next() as u8 & 0x0f,
            seq: r.next() as u32,
            ack: r.next() as u32,
            window: r.next() as u16,
            clock: (!r.once_in(4)).then(|| (r.next() as u32, r.next() as u32)),
            mss: 1 + r.below(1_300),
        }
    }

    /// A packet after `ms` milliseconds.
    fn packet(&mut self, r: &mut Random, ms: u32) -> Vec<u8> {
        if let Some((value, echo)) = &mut self.clock {
            *value = value.wrapping_add(ms);
            *echo = echo.wrapping_add(ms + r.below(3) as u32);
        }
        if self.id != 0 {
            self.id = self
                .id
                .wrapping_add(if self.counts { 1 } else { r.next() as u16 });
        }
        let (mut tos, mut ttl) = (self.tos, self.ttl);
        if r.once_in(40) {
            tos |= 3;
        }
        if r.once_in(200) {
            ttl -= 1;
        }
        let len = match r.below(10) {
            0 => 0,
            1 => r.below(self.mss),
            _ => self.mss,
        } as usize;
        let rest = match self.protocol {
            6 => self.segment(r, len),
            17 => {
                let mut udp = self.ports.to_vec();
                udp.extend(((8 + len) as u16).to_be_bytes());
                udp.extend(r.bytes(2 + len));
                udp
            }
            _ => r.bytes(8 + len),
        };
        self.wrap(rest, tos, ttl)
    }

    fn segment(&mut self, r: &mut Random, len: usize) -> Vec<u8> {
        let mut options = Vec::new();
        if let Some((value, echo)) = self.clock {
            options.extend([1, 1, 8, 10]);
            options.extend(value.to_be_bytes());
            options.extend(echo.to_be_bytes());
        }
        if r.once_in(12) {
            // One to three blocks of a selective acknowledgement.
            let blocks = 1 + r.below(3) as usize;
            options.extend([1, 1, 5, (2 + 8 * blocks) as u8]);
            options.extend(r.bytes(8 * blocks));
        }
        let mut flags = 0x10;
        match r.below(40) {
            0 => flags = 0x02,
            1 => flags = 0x11,
            2 => flags = 0xd8,
            3..8 => flags = 0x18,
            _ => {}
        }
        if flags == 0x02 {
            options.extend([2, 4, 5, 0xb4]);
        }
        options.truncate(40);
        if r.once_in(15) {
            self.ack = self.ack.wrapping_add(r.below(100_000) as u32);
        }
        if r.once_in(60) {
            self.window = r.next() as u16;
        }
        let mut seq = self.seq;
        match r.below(60) {
            // Sent again, or from far elsewhere.
            0 => seq = seq.wrapping_sub(r.below(200_000) as u32),
            1 => seq = r.next() as u32,
            _ => self.seq = seq.wrapping_add(len as u32),
        }
        let mut tcp = self.ports.to_vec();
        tcp.extend(seq.to_be_bytes());
        tcp.extend(self.ack.to_be_bytes());
        let reserved = u8::from(r.once_in(100));
        tcp.extend([(((20 + options.len()) / 4) << 4) as u8 | reserved, flags]);
        tcp.extend(self.window.to_be_bytes());
        tcp.extend(r.bytes(2));
        let urgent = u16::from(r.once_in(150));
        tcp.extend(urgent.to_be_bytes());
        tcp.extend(options);
        tcp.extend(r.bytes(len));
        tcp
    }

    fn wrap(&self, rest: Vec<u8>, tos: u8, ttl: u8) -> Vec<u8> {
        let mut p;
        if self.v6 {
            p = vec![0x60 | tos >> 4, tos << 4 | self.label, 1, 2];
            p.extend((rest.len() as u16).to_be_bytes());
            p.extend([self.protocol, ttl]);
            p.extend(&self.addresses);
        } else {
            p = vec![0x45, tos];
            p.extend(((20 + rest.len()) as u16).to_be_bytes());
            p.extend(self.id.to_be_bytes());
            p.extend([if self.dont_fragment { 0x40 } else { 0 }, 0, ttl]);
            p.extend([self.protocol, 0, 0]);
            p.extend(&self.addresses);
            let sum: u32 = p
                .chunks(2)
                .map(|c| u32::from(c[0]) << 8 | u32::from(c[1]))
                .sum();
            let sum = (sum & 0xffff) + (sum >> 16);
            let sum = !((sum & 0xffff) as u16 + (sum >> 16) as u16);
            p[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        p.extend(rest);
        p
    }
}

fn header(flow: u16, seq: u32, opens: Option<Opening>) -> DataHeader {
    DataHeader {
        more: false,
        duplicate: false,
        retransmitted: false,
        ordered: true,
        class: Class::Bulk,
        flow,
        seq: seq & 0x00ff_ffff,
        release: 0,
        opens,
        begun: false,
    }
}

/// Leaves no more of the checksum than what is begun; false when there can be no such.
fn begin(packet: &mut [u8]) -> bool {
    let Some(at) = checksum::position(packet) else {
        return false;
    };
    let protocol = packet[if at.start == 20 { 9 } else { 6 }];
    let len = (packet.len() - at.start) as u16;
    let sum = checksum::begun(packet, at.start == 20, protocol, len);
    packet[at.start + at.offset..][..2].copy_from_slice(&sum.to_be_bytes());
    true
}

/// A packet under way, its copies, and what is known of it.
struct Under {
    packet: Vec<u8>,
    begun: bool,
    opens: Option<Opening>,
    sent: u8,
}

/// Both sides, and a network between them that does as it likes.
struct World {
    now: Time,
    squeezer: Squeezer,
    restorer: Restorer,
    under: BTreeMap<(u16, u32), Under>,
    wire: Vec<(Time, Vec<u8>)>,
    acks: Vec<(Time, (u16, u32))>,
    squeezed: u64,
    whole: u64,
    saved: usize,
    forgotten: u64,
    arrived: u64,
}

impl World {
    fn new() -> World {
        let mut squeezer = Squeezer::default();
        squeezer.enable(true);
        World {
            now: Time::from_millis(5),
            squeezer,
            restorer: Restorer::default(),
            under: BTreeMap::new(),
            wire: Vec::new(),
            acks: Vec::new(),
            squeezed: 0,
            whole: 0,
            saved: 0,
            forgotten: 0,
            arrived: 0,
        }
    }

    /// Sends a packet, or sends it again.
    fn send(&mut self, r: &mut Random, key: (u16, u32), delay_ms: u64) {
        let under = self.under.get_mut(&key).expect("it is known");
        let stamp = stamp::stamp(self.now);
        let mut head = Head::default();
        let mut h = header(key.0, key.1, under.opens);
        h.begun = under.begun;
        let form = match under.opens {
            Some(opening) => Form::Opens(opening),
            None => {
                let first = under.sent == 0;
                self.squeezer
                    .form(self.now, &h, stamp, &under.packet, first, &mut head)
            }
        };
        under.sent += 1;
        let mut buf = PacketBuf::copy_of(&under.packet);
        if form == Form::Squeezed {
            let len = head.len + under.packet.len() - head.skip;
            frame::write_squeezed_header(&mut head.bytes, &h, len, stamp);
            self.squeezed += 1;
            self.saved += head.skip + frame::HEADER_LEN - head.len;
        } else {
            if let Form::Opens(opening) = form {
                under.opens = Some(opening);
                h.opens = under.opens;
            }
            frame::write_data_header(head.whole(), &h, under.packet.len(), stamp);
            self.whole += 1;
        }
        let pad = head.len % 3;
        let bytes = buf.with_head(&head.bytes[..head.len], head.skip, pad, <[u8]>::to_vec);
        assert!(bytes.ends_with(&[0, 0][..pad]), "zeros follow the frame");
        assert_eq!(buf.bytes(), under.packet, "a packet is as before");
        assert!(bytes.len() >= frame::HEADER_LEN);
        let at = self.now + Duration::from_millis(r.below(delay_ms + 1));
        self.wire.push((at, bytes));
    }

    /// Everything arrives that is due.
    fn arrive(&mut self) {
        let due: Vec<Vec<u8>> = self
            .wire
            .extract_if(.., |(at, _)| *at <= self.now)
            .map(|(_, b)| b)
            .collect();
        for bytes in due {
            let (stamp, decoded) = frame::decode(&bytes).expect("what we wrote can be read");
            let mut buf = PacketBuf::new();
            buf.frame_room()[..bytes.len()].copy_from_slice(&bytes);
            let h = match decoded {
                Frame::Data(h, inner) => {
                    buf.set_content(&[], frame::HEADER_LEN, frame::HEADER_LEN + inner.len());
                    if let Some(opening) = h.opens {
                        self.restorer.open(&h, opening, buf.bytes());
                    }
                    h
                }
                Frame::Squeezed(h, rest) => match self.restorer.restore(&h, stamp, rest) {
                    Ok(restored) => {
                        let end = SQUEEZED_AT + rest.len();
                        buf.set_content(restored.header(), SQUEEZED_AT + restored.read, end);
                        h
                    }
                    Err(Unrestored::Forgotten(generation)) => {
                        self.forgotten += 1;
                        self.squeezer.forgotten(h.flow, generation);
                        continue;
                    }
                    Err(Unrestored::Malformed) => panic!("what we wrote can be read"),
                },
                other => panic!("{other:?} was never sent"),
            };
            let key = (h.flow, h.seq);
            let under = &self.under[&key];
            assert_eq!(
                (buf.bytes(), h.begun),
                (&under.packet[..], under.begun),
                "of {key:?}"
            );
            self.arrived += 1;
            self.acks.push((self.now + Duration::from_millis(30), key));
        }
        let acked: Vec<(u16, u32)> = self
            .acks
            .extract_if(.., |(at, _)| *at <= self.now)
            .map(|(_, k)| k)
            .collect();
        for (slot, seq) in acked {
            if let Some(opening) = self.under[&(slot, seq)].opens {
                self.squeezer.confirm(slot, opening.generation);
            }
        }
    }
}

struct Trouble {
    loss: u64,
    delay_ms: u64,
    again: u64,
    forgets: bool,
    other_flow: u64,
}

/// Plays 3,000 packets of six slots.
fn play(seed: u64, trouble: &Trouble) -> World {
    let r = &mut Random(seed);
    let mut world = World::new();
    let mut hosts: Vec<Host> = (0..6).map(|_| Host::new(r)).collect();
    // Close to where numbers wrap.
    let mut numbers = [0x00ff_ff00u32; 6];
    for _ in 0..3_000 {
        let ms = r.below(4);
        world.now += Duration::from_millis(ms);
        let slot = r.below(6) as usize;
        if r.once_in(trouble.other_flow) {
            hosts[slot] = Host::new(r);
        }
        let mut packet = hosts[slot].packet(r, ms as u32);
        let begun = r.once_in(3) && begin(&mut packet);
        numbers[slot] = (numbers[slot] + 1) & 0x00ff_ffff;
        let key = (slot as u16, numbers[slot]);
        let under = Under {
            packet,
            begun,
            opens: None,
            sent: 0,
        };
        world.under.insert(key, under);
        world.send(r, key, trouble.delay_ms);
        if r.below(100) < trouble.loss {
            world.wire.pop();
        }
        if r.below(100) < trouble.again {
            let keys: Vec<_> = world.under.keys().copied().collect();
            let key = keys[r.below(keys.len() as u64) as usize];
            world.send(r, key, trouble.delay_ms);
        }
        if trouble.forgets && r.once_in(300) {
            world.restorer.restart();
        }
        world.arrive();
    }
    world.now += Duration::from_secs(5);
    world.arrive();
    world
}

#[test]
fn every_packet_that_arrives_is_the_one_that_was_sent() {
    for seed in 0..150 {
        let trouble = Trouble {
            loss: seed % 40,
            delay_ms: [0, 5, 60, 400, 1_500][seed as usize % 5],
            again: seed % 7 * 5,
            forgets: false,
            other_flow: 100 + seed * 7,
        };
        let world = play(seed, &trouble);
        assert_eq!(
            world.forgotten, 0,
            "seed {seed}: an acknowledged base is there"
        );
        assert!(world.squeezed > 0, "seed {seed}");
    }
}

#[test]
fn a_receiver_that_forgot_never_makes_up_a_packet_and_is_helped() {
    let mut forgotten = 0;
    for seed in 1_000..1_050 {
        let trouble = Trouble {
            loss: 5,
            delay_ms: 40,
            again: 5,
            forgets: true,
            other_flow: 400,
        };
        let world = play(seed, &trouble);
        forgotten += world.forgotten;
        assert!(world.squeezed > world.forgotten * 2, "seed {seed}");
    }
    assert!(forgotten > 0, "the trouble was real");
}

#[test]
fn nothing_is_squeezed_for_one_who_cannot_restore_or_has_no_base_yet() {
    let r = &mut Random(1);
    let mut host = Host::new(r);
    let mut head = Head::default();
    let mut squeezer = Squeezer::default();
    for enabled in [false, true] {
        squeezer.enable(enabled);
        for seq in 0..100 {
            let packet = host.packet(r, 1);
            let form = squeezer.form(
                Time::from_millis(u64::from(seq)),
                &header(1, seq, None),
                0,
                &packet,
                true,
                &mut head,
            );
            assert_ne!(form, Form::Squeezed);
            assert!(enabled || form == Form::Whole);
        }
    }
}

/// A download as Linux sends it: equal segments, and a clock that ticks `hertz` times a second.
fn download(stamps: bool, v6: bool, hertz: u32) -> Vec<usize> {
    let r = &mut Random(7);
    let mut host = Host::new(r);
    host.v6 = v6;
    host.addresses = r.bytes(if v6 { 32 } else { 8 });
    host.protocol = 6;
    host.clock = stamps.then_some((1_000, 2_000));
    let mut squeezer = Squeezer::default();
    squeezer.enable(true);
    let mut heads = Vec::new();
    for seq in 0..20_000u32 {
        let now = Time::from_millis(1_000 + u64::from(seq / 5));
        let mut tcp = host.ports.to_vec();
        tcp.extend((host.seq.wrapping_add(seq * 1_348)).to_be_bytes());
        tcp.extend(host.ack.to_be_bytes());
        tcp.extend([if stamps { 0x80 } else { 0x50 }, 0x10]);
        tcp.extend([1, 2, 3, 4, 0, 0]);
        if stamps {
            tcp.extend([1, 1, 8, 10]);
            let ticks = seq / 5 * hertz / 1_000;
            tcp.extend((9_000 + ticks).to_be_bytes());
            tcp.extend((7_000 + ticks).to_be_bytes());
        }
        tcp.resize(tcp.len() + 1_348, 0);
        host.id = 500u16.wrapping_add(seq as u16);
        let packet = host.wrap(tcp, 0, 64);
        let mut head = Head::default();
        match squeezer.form(
            now,
            &header(0, seq, None),
            stamp::stamp(now),
            &packet,
            true,
            &mut head,
        ) {
            Form::Squeezed => heads.push(head.len),
            Form::Opens(opening) => squeezer.confirm(0, opening.generation),
            Form::Whole => {}
        }
    }
    heads
}

#[test]
fn a_segment_of_a_long_transfer_has_a_head_of_nineteen_bytes_at_most() {
    for (stamps, v6) in [(false, false), (true, false), (false, true), (true, true)] {
        let heads = download(stamps, v6, 1_000);
        assert!(heads.len() > 19_900, "{}", heads.len());
        assert!(
            heads.iter().all(|&len| len <= 19),
            "{:?}",
            heads.iter().max()
        );
    }
}

#[test]
fn an_unusual_clock_costs_bytes_and_sends_nothing_whole() {
    for hertz in [1, 100, 250, 10_000] {
        let heads = download(true, false, hertz);
        assert!(heads.len() > 19_900, "{hertz}: {}", heads.len());
        assert!(heads.iter().all(|&len| len <= 21), "{hertz}");
    }
}

#[test]
fn a_head_that_is_cut_or_refers_to_nothing_is_refused() {
    let r = &mut Random(3);
    let mut host = Host::new(r);
    host.protocol = 6;
    let mut restorer = Restorer::default();
    let mut tcp = host.ports.to_vec();
    tcp.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 0, 9, 7, 7, 0, 0]);
    let packet = host.wrap(tcp, 0, 64);
    let opening = Opening {
        generation: 9,
        stamp: 0,
    };
    restorer.open(&header(1, 0, None), opening, &packet);
    let h = header(1, 1, None);
    // Every field in full.
    let mut rest = vec![9, 0xfc, 0xff];
    if host.v6 {
        rest[2] = 0xfc;
    }
    rest.extend([1; 2 + 4 * 5 + 1 + 2 + 1 + 1]);
    rest.extend([4, 1, 1, 1, 1, 0]);
    for len in 0..rest.len() {
        let restored = restorer.restore(&h, 0, &rest[..len]);
        if len < rest.len() - 4 {
            assert_eq!(
                restored.map(|_| ()),
                Err(Unrestored::Malformed),
                "cut to {len}"
            );
        }
    }
    rest[0] = 8;
    let restored = restorer.restore(&h, 0, &rest).map(|_| ());
    assert_eq!(restored, Err(Unrestored::Forgotten(8)));
    let restored = restorer.restore(&header(2, 1, None), 0, &rest).map(|_| ());
    assert_eq!(restored, Err(Unrestored::Forgotten(8)));
}

/// The layout as `docs/protocol.md` gives it.
#[test]
fn a_squeezed_head_has_the_documented_bytes() {
    let host = Host {
        v6: false,
        addresses: vec![10, 0, 0, 1, 10, 0, 0, 2],
        ports: [0, 80, 0x9c, 0x40],
        id: 100,
        protocol: 6,
        dont_fragment: true,
        ..Host::new(&mut Random(1))
    };
    let packet = |seq: u32, value: u32, window: u16, id: u16| {
        let mut tcp = host.ports.to_vec();
        tcp.extend(seq.to_be_bytes());
        tcp.extend([0, 0, 0, 9, 0x80, 0x10]);
        tcp.extend(window.to_be_bytes());
        tcp.extend([0xaa, 0xbb, 0, 0, 1, 1, 8, 10]);
        tcp.extend(value.to_be_bytes());
        tcp.extend(50u32.to_be_bytes());
        tcp.extend([0xee; 1_000]);
        Host { id, ..host.clone() }.wrap(tcp, 0, 64)
    };
    let place = Place {
        number: 7,
        stamp: 0,
    };
    let base = Base::of(&packet(5_000, 30, 600, 100), place).unwrap();
    let mut head = Head::default();
    let mut widths = Widths::default();
    // Two packets and 4 ms later: its number is 300 too low, its clocks stood still.
    let later = Place {
        number: 9,
        stamp: 500,
    };
    let squeezed = packet(6_700, 30, 601, 102);
    let marks = Marks {
        generation: 3,
        ..Marks::default()
    };
    assert!(base.squeeze(&squeezed, later, marks, &mut widths, &mut head));
    let expected = [
        3, 0x09, 0x48, 0xaa, 0xbb, 0xfe, 0xd4, 0xfc, 0xfc, 0x02, 0x59,
    ];
    assert_eq!(head.bytes[SQUEEZED_AT..head.len], expected);
    assert_eq!(head.skip, 52);

    let marks = Marks {
        begun: true,
        ..marks
    };
    assert!(base.squeeze(&squeezed, later, marks, &mut widths, &mut head));
    let without: Vec<u8> = [&expected[..3], &expected[5..]].concat();
    assert_eq!(head.bytes[SQUEEZED_AT..head.len], without);
}

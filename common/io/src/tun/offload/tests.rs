//! Promises of splitting and joining. Expected checksums come from etherparse.

use etherparse::{
    IpHeaders, NetSlice, PacketBuilder, SlicedPacket, TcpHeader, TransportSlice, UdpHeader,
};

use super::*;

/// A TCP packet to be; what a test does not mention is the same in all.
#[derive(Clone)]
struct Tcp {
    v6: bool,
    seq: u32,
    ack: u32,
    window: u16,
    id: u16,
    ttl: u8,
    port: u16,
    push: bool,
    fin: bool,
    cwr: bool,
    options: bool,
    dont_fragment: bool,
    payload: Vec<u8>,
}

impl Default for Tcp {
    fn default() -> Self {
        Tcp {
            v6: false,
            seq: 1000,
            ack: 77,
            window: 512,
            id: 40,
            ttl: 63,
            port: 5001,
            push: false,
            fin: false,
            cwr: false,
            options: true,
            dont_fragment: false,
            payload: Vec::new(),
        }
    }
}

impl Tcp {
    fn build(&self) -> Vec<u8> {
        let mut tcp = TcpHeader::new(443, self.port, self.seq, self.window);
        tcp.ack = true;
        tcp.acknowledgment_number = self.ack;
        tcp.psh = self.push;
        tcp.fin = self.fin;
        tcp.cwr = self.cwr;
        if self.options {
            tcp.set_options(&[
                etherparse::TcpOptionElement::Noop,
                etherparse::TcpOptionElement::Noop,
                etherparse::TcpOptionElement::Timestamp(7, 8),
            ])
            .expect("they fit");
        }
        let mut out = Vec::new();
        let builder = if self.v6 {
            PacketBuilder::ipv6([0xfd; 16], [0xfe; 16], self.ttl)
        } else {
            let mut header = etherparse::Ipv4Header::new(
                0,
                self.ttl,
                etherparse::IpNumber::TCP,
                [10, 0, 0, 1],
                [10, 0, 0, 2],
            )
            .expect("an empty payload fits");
            header.identification = self.id;
            header.dont_fragment = self.dont_fragment;
            PacketBuilder::ip(IpHeaders::Ipv4(header, Default::default()))
        };
        builder
            .tcp_header(tcp)
            .write(&mut out, &self.payload)
            .expect("a vector takes all");
        out
    }
}

fn udp(v6: bool, port: u16, id: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let builder = if v6 {
        PacketBuilder::ipv6([0xfd; 16], [0xfe; 16], 63)
    } else {
        let mut header = etherparse::Ipv4Header::new(
            0,
            63,
            etherparse::IpNumber::UDP,
            [10, 0, 0, 1],
            [10, 0, 0, 2],
        )
        .expect("an empty payload fits");
        header.identification = id;
        header.dont_fragment = false;
        PacketBuilder::ip(IpHeaders::Ipv4(header, Default::default()))
    };
    builder
        .udp(53, port)
        .write(&mut out, payload)
        .expect("a vector takes all");
    out
}

fn bytes(len: usize, seed: u64) -> Vec<u8> {
    let mut random = Random(seed | 1);
    (0..len).map(|_| random.next() as u8).collect()
}

/// xorshift: enough to vary the cases, and the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// The packet as the kernel hands it over: checksum begun, segments of `segment_len` bytes.
fn as_super_packet(packet: &[u8], segment_len: usize) -> Vec<u8> {
    let v4 = packet[0] >> 4 == 4;
    let transport = if v4 { 20 } else { 40 };
    let protocol = if v4 { packet[9] } else { packet[6] };
    let at = if protocol == UDP { 6 } else { 16 };
    let mut packet = packet.to_vec();
    let begun = fold(pseudo_sum(
        &packet,
        v4,
        protocol,
        (packet.len() - transport) as u16,
    ));
    packet[transport + at..transport + at + 2].copy_from_slice(&begun.to_be_bytes());
    let header = VirtioHeader {
        flags: FLAG_NEEDS_CHECKSUM,
        gso_type: match (protocol, v4) {
            (UDP, _) => GSO_UDP,
            (_, true) => GSO_TCPV4,
            (_, false) => GSO_TCPV6,
        },
        header_len: 0,
        segment_len: segment_len as u16,
        checksum_start: transport as u16,
        checksum_offset: at as u16,
    };
    [&header.write()[..], &packet].concat()
}

/// What is split off, with every checksum completed.
fn split_all(frame: &[u8]) -> Result<Vec<Vec<u8>>, SplitError> {
    Ok(split_begun(frame)?.into_iter().map(completed).collect())
}

/// What is split off, as it is.
fn split_begun(frame: &[u8]) -> Result<Vec<PacketBuf>, SplitError> {
    let mut packets = Collected(Vec::new());
    split(frame, &mut packets)?;
    Ok(packets.0)
}

fn completed(mut packet: PacketBuf) -> Vec<u8> {
    packet.complete();
    packet.bytes().to_vec()
}

/// Keeps what was split.
pub(crate) struct Collected(pub(crate) Vec<PacketBuf>);

impl Sink for Collected {
    fn take(&mut self) -> PacketBuf {
        PacketBuf::new()
    }

    fn give(&mut self, packet: PacketBuf) {
        self.0.push(packet);
    }
}

/// Parses the packet with etherparse and holds all its lengths and checksums against etherparse's.
fn assert_sound(packet: &[u8]) {
    let sliced = SlicedPacket::from_ip(packet).expect("it is an IP packet");
    let net = sliced.net.expect("it has an IP header");
    let transport = sliced.transport.expect("it has a transport header");
    let expected = match (&net, &transport) {
        (NetSlice::Ipv4(ip), TransportSlice::Tcp(tcp)) => {
            tcp.calc_checksum_ipv4(ip.header().source(), ip.header().destination())
        }
        (NetSlice::Ipv6(ip), TransportSlice::Tcp(tcp)) => {
            tcp.calc_checksum_ipv6(ip.header().source(), ip.header().destination())
        }
        (NetSlice::Ipv4(ip), TransportSlice::Udp(udp)) => UdpHeader::with_ipv4_checksum(
            udp.source_port(),
            udp.destination_port(),
            &ip.header().to_header(),
            udp.payload(),
        )
        .map(|header| header.checksum),
        (NetSlice::Ipv6(ip), TransportSlice::Udp(udp)) => UdpHeader::with_ipv6_checksum(
            udp.source_port(),
            udp.destination_port(),
            &ip.header().to_header(),
            udp.payload(),
        )
        .map(|header| header.checksum),
        _ => panic!("neither TCP nor UDP"),
    };
    let found = match &transport {
        TransportSlice::Tcp(tcp) => tcp.checksum(),
        TransportSlice::Udp(udp) => {
            assert_eq!(usize::from(udp.length()), udp.payload().len() + 8);
            udp.checksum()
        }
        _ => unreachable!("handled above"),
    };
    assert_eq!(
        found,
        expected.expect("the lengths fit"),
        "transport checksum"
    );
    match net {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            assert_eq!(usize::from(header.total_len), packet.len());
            assert_eq!(header.header_checksum, header.calc_header_checksum());
        }
        NetSlice::Ipv6(ip) => {
            assert_eq!(usize::from(ip.header().payload_length()) + 40, packet.len());
        }
        NetSlice::Arp(_) => panic!("not an IP packet"),
    }
}

/// Every frame that a joiner writes for `packets`, as bytes.
fn join_all(udp: bool, packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    join_bufs(udp, packets.iter().map(|packet| PacketBuf::copy_of(packet)))
}

fn join_bufs(udp: bool, packets: impl IntoIterator<Item = PacketBuf>) -> Vec<Vec<u8>> {
    let mut joiner = Joiner::new(udp);
    let mut frames = Vec::new();
    let mut write = |frame: Frame<'_>| {
        let mut all = frame.header.to_vec();
        for (number, packet) in frame.packets.drain(..).enumerate() {
            all.extend_from_slice(&packet.bytes()[if number == 0 { 0 } else { frame.skip }..]);
        }
        frames.push(all);
    };
    for packet in packets {
        joiner.push(packet, &mut write);
    }
    joiner.flush(&mut write);
    frames
}

/// A run of TCP packets, each with `len` bytes of payload.
fn run(template: &Tcp, count: usize, len: usize) -> Vec<Vec<u8>> {
    (0..count)
        .map(|number| {
            Tcp {
                seq: template.seq.wrapping_add((number * len) as u32),
                id: template.id.wrapping_add(number as u16),
                payload: bytes(len, number as u64 + 5),
                ..template.clone()
            }
            .build()
        })
        .collect()
}

/// A copy of a sound packet whose checksum is only begun.
pub(crate) fn begun(packet: &[u8]) -> PacketBuf {
    let frame = as_super_packet(packet, packet.len());
    let mut packet = PacketBuf::copy_of(&frame[HEADER_LEN..]);
    packet.set_begun();
    packet
}

#[test]
fn a_begun_checksum_goes_through_untouched() {
    for v6 in [false, true] {
        let whole = Tcp {
            v6,
            payload: bytes(2 * 1348 + 5, 3),
            ..Tcp::default()
        };
        let frame = as_super_packet(&whole.build(), 1348);
        let pieces = split_begun(&frame).expect("sound");
        assert!(pieces.iter().all(PacketBuf::is_begun));
        for piece in &pieces {
            let apart = completed(piece.clone());
            assert_sound(&apart);
            assert_ne!(piece.bytes(), apart, "nobody summed up the payload");
        }
        let mut single = as_super_packet(&run(&whole, 1, 900)[0], 0);
        single[1] = GSO_NONE;
        let [packet] = &split_begun(&single).expect("sound")[..] else {
            panic!("it is one packet")
        };
        assert!(packet.is_begun());
        assert_eq!(packet.bytes(), &single[HEADER_LEN..]);
        // Alone again, it is what it was.
        assert_eq!(join_bufs(true, [packet.clone()]), [single]);
    }
}

#[test]
fn begun_and_whole_checksums_are_never_joined() {
    for (v6, is_udp) in [(false, false), (true, false), (false, true), (true, true)] {
        let packets = if is_udp {
            (0..4).map(|id| udp(v6, 9, id, &bytes(1000, 3))).collect()
        } else {
            run(
                &Tcp {
                    v6,
                    ..Tcp::default()
                },
                4,
                1000,
            )
        };
        let kinds = |kinds: [bool; 4]| {
            packets
                .iter()
                .zip(kinds)
                .map(|(packet, is_begun)| match is_begun {
                    true => begun(packet),
                    false => PacketBuf::copy_of(packet),
                })
        };
        for (mix, frames) in [
            ([true; 4], 1),
            ([false; 4], 1),
            ([true, true, false, false], 2),
            ([true, false, true, false], 4),
        ] {
            let joined = join_bufs(true, kinds(mix));
            assert_eq!(joined.len(), frames, "{mix:?} of {is_udp}");
            let apart = joined
                .iter()
                .flat_map(|frame| split_all(frame).expect("sound"));
            assert_eq!(apart.collect::<Vec<_>>(), packets);
        }
    }
}

#[test]
fn a_checksum_that_is_begun_in_an_unusual_place_is_finished() {
    // IPv4 with an option: 24 bytes of header.
    let plain = udp(false, 9, 1, &bytes(100, 3));
    let mut packet = plain[..20].to_vec();
    packet.extend([1, 1, 1, 0]);
    packet.extend(&plain[20..]);
    packet[0] = 0x46;
    let len = packet.len();
    packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    set_ipv4_checksum(&mut packet, 24);
    let sum = checksum::begun(&packet, true, UDP, (len - 24) as u16);
    packet[30..32].copy_from_slice(&sum.to_be_bytes());
    let header = VirtioHeader {
        flags: FLAG_NEEDS_CHECKSUM,
        checksum_start: 24,
        checksum_offset: 6,
        ..VirtioHeader::default()
    };
    let frame = [&header.write()[..], &packet].concat();
    let [packet] = &split_begun(&frame).expect("sound")[..] else {
        panic!("it is one packet")
    };
    assert!(!packet.is_begun());
    assert_sound(packet.bytes());
}

#[test]
fn a_tcp_super_packet_is_cut_into_sound_packets_with_rising_numbers() {
    for v6 in [false, true] {
        let whole = Tcp {
            v6,
            seq: u32::MAX - 2000, // wraps within the packet
            id: u16::MAX,
            push: true,
            fin: true,
            cwr: true,
            payload: bytes(3 * 1348 + 100, 3),
            ..Tcp::default()
        };
        let pieces = split_all(&as_super_packet(&whole.build(), 1348)).expect("it is sound");
        assert_eq!(pieces.len(), 4);
        let mut payload = Vec::new();
        for (number, piece) in pieces.iter().enumerate() {
            assert_sound(piece);
            let sliced = SlicedPacket::from_ip(piece).expect("sound");
            let Some(TransportSlice::Tcp(tcp)) = sliced.transport else {
                panic!("no TCP")
            };
            assert_eq!(
                tcp.sequence_number(),
                whole.seq.wrapping_add(1348 * number as u32)
            );
            assert_eq!((tcp.psh(), tcp.fin()), (number == 3, number == 3));
            assert_eq!(tcp.cwr(), number == 0);
            assert_eq!(tcp.acknowledgment_number(), whole.ack);
            if let Some(NetSlice::Ipv4(ip)) = sliced.net {
                assert_eq!(
                    ip.header().identification(),
                    whole.id.wrapping_add(number as u16)
                );
            }
            payload.extend_from_slice(tcp.payload());
        }
        assert_eq!(payload, whole.payload);
    }
}

#[test]
fn a_udp_super_packet_is_cut_into_sound_datagrams() {
    for v6 in [false, true] {
        let payload = bytes(2 * 1200 + 7, 9);
        let pieces =
            split_all(&as_super_packet(&udp(v6, 5001, 65_535, &payload), 1200)).expect("sound");
        assert_eq!(pieces.len(), 3);
        let mut joined = Vec::new();
        for (number, piece) in pieces.iter().enumerate() {
            assert_sound(piece);
            let sliced = SlicedPacket::from_ip(piece).expect("sound");
            let Some(TransportSlice::Udp(udp)) = sliced.transport else {
                panic!("no UDP")
            };
            assert_eq!(udp.payload().len(), if number < 2 { 1200 } else { 7 });
            joined.extend_from_slice(udp.payload());
        }
        assert_eq!(joined, payload);
    }
}

#[test]
fn a_begun_checksum_of_a_single_packet_is_finished() {
    for len in [0, 1, 2, 3, 1000, 1401] {
        for v6 in [false, true] {
            let tcp = Tcp {
                v6,
                payload: bytes(len, 11),
                ..Tcp::default()
            }
            .build();
            for packet in [tcp, udp(v6, 9, 1, &bytes(len, 12))] {
                let mut frame = as_super_packet(&packet, 0);
                frame[1] = GSO_NONE;
                assert_eq!(split_all(&frame), Ok(vec![packet]));
            }
        }
    }
}

#[test]
fn a_packet_without_offload_passes_unchanged() {
    let packet = bytes(900, 1);
    let frame = [&[0; HEADER_LEN][..], &packet].concat();
    assert_eq!(split_all(&frame), Ok(vec![packet]));
}

#[test]
fn a_run_of_a_flow_becomes_one_frame_that_splits_into_the_same_packets() {
    for v6 in [false, true] {
        let packets = run(
            &Tcp {
                v6,
                ..Tcp::default()
            },
            40,
            1348,
        );
        let frames = join_all(true, &packets);
        assert_eq!(frames.len(), 1);
        assert_eq!(split_all(&frames[0]), Ok(packets));

        let datagrams: Vec<_> = (0..20)
            .map(|number| udp(v6, 9, 100 + number, &bytes(1200, 4)))
            .collect();
        let frames = join_all(true, &datagrams);
        assert_eq!(frames.len(), 1);
        assert_eq!(split_all(&frames[0]), Ok(datagrams));
    }
}

#[test]
fn udp_is_left_alone_where_the_kernel_cannot_split_it() {
    let datagrams: Vec<_> = (0..4)
        .map(|number| udp(false, 9, number, &bytes(100, 4)))
        .collect();
    assert_eq!(join_all(false, &datagrams).len(), 4);
}

#[test]
fn a_lone_packet_is_written_as_it_came() {
    let packet = run(&Tcp::default(), 1, 700).remove(0);
    let frames = join_all(true, std::slice::from_ref(&packet));
    assert_eq!(frames, [[&[0; HEADER_LEN][..], &packet].concat()]);
}

#[test]
fn a_shorter_packet_and_a_pushed_one_end_the_run() {
    let mut packets = run(&Tcp::default(), 6, 1000);
    let short = Tcp {
        seq: 1000 + 6 * 1000,
        id: 46,
        payload: bytes(10, 1),
        ..Tcp::default()
    };
    packets.push(short.build());
    let after = Tcp {
        seq: 1000 + 6010,
        id: 47,
        payload: bytes(10, 1),
        ..Tcp::default()
    };
    packets.push(after.build());
    let frames = join_all(true, &packets);
    assert_eq!(frames.len(), 2);
    assert_eq!(split_all(&frames[0]).map(|pieces| pieces.len()), Ok(7));

    let mut packets = run(&Tcp::default(), 4, 1000);
    packets[1] = Tcp {
        seq: 2000,
        id: 41,
        push: true,
        payload: bytes(1000, 6),
        ..Tcp::default()
    }
    .build();
    let frames = join_all(true, &packets);
    assert_eq!(frames.len(), 2);
    let back: Vec<_> = frames
        .iter()
        .flat_map(|frame| split_all(frame).expect("sound"))
        .collect();
    assert_eq!(back, packets);
}

#[test]
fn what_differs_is_not_joined() {
    let next = Tcp {
        seq: 2000,
        id: 41,
        payload: bytes(1000, 2),
        ..Tcp::default()
    };
    let different = [
        (
            "gap",
            Tcp {
                seq: 2001,
                ..next.clone()
            },
        ),
        (
            "acknowledgement",
            Tcp {
                ack: 78,
                ..next.clone()
            },
        ),
        (
            "window",
            Tcp {
                window: 511,
                ..next.clone()
            },
        ),
        (
            "TTL",
            Tcp {
                ttl: 62,
                ..next.clone()
            },
        ),
        (
            "port",
            Tcp {
                port: 5002,
                ..next.clone()
            },
        ),
        (
            "options",
            Tcp {
                options: false,
                ..next.clone()
            },
        ),
        (
            "identification",
            Tcp {
                id: 43,
                ..next.clone()
            },
        ),
        (
            "FIN",
            Tcp {
                fin: true,
                ..next.clone()
            },
        ),
        (
            "CWR",
            Tcp {
                cwr: true,
                ..next.clone()
            },
        ),
        (
            "longer",
            Tcp {
                payload: bytes(1001, 2),
                ..next.clone()
            },
        ),
        (
            "empty",
            Tcp {
                payload: Vec::new(),
                ..next.clone()
            },
        ),
        (
            "DF",
            Tcp {
                dont_fragment: true,
                ..next.clone()
            },
        ),
        (
            "version",
            Tcp {
                v6: true,
                ..next.clone()
            },
        ),
    ];
    let first = run(&Tcp::default(), 1, 1000).remove(0);
    assert_eq!(
        join_all(true, &[first.clone(), next.build()]).len(),
        1,
        "it would fit"
    );
    for (what, packet) in different {
        let packets = [first.clone(), packet.build()];
        let frames = join_all(true, &packets);
        assert_eq!(frames.len(), 2, "{what}");
        for (frame, packet) in frames.iter().zip(packets) {
            assert_eq!(split_all(frame), Ok(vec![packet]), "{what}");
        }
    }
}

#[test]
fn the_identification_does_not_matter_where_fragments_are_forbidden() {
    let template = Tcp {
        dont_fragment: true,
        ..Tcp::default()
    };
    let mut packets = run(&template, 2, 1000);
    packets[1] = Tcp {
        seq: 2000,
        id: 0,
        payload: bytes(1000, 2),
        ..template
    }
    .build();
    assert_eq!(join_all(true, &packets).len(), 1);
}

#[test]
fn a_packet_with_a_wrong_checksum_stays_alone_and_stays_wrong() {
    for damaged in 0..3 {
        let mut packets = run(&Tcp::default(), 3, 500);
        *packets[damaged].last_mut().expect("it has bytes") ^= 1;
        let frames = join_all(true, &packets);
        let back: Vec<_> = frames
            .iter()
            .flat_map(|frame| split_all(frame).expect("sound"))
            .collect();
        assert_eq!(back, packets);
    }
}

#[test]
fn flows_that_take_turns_are_joined_side_by_side_and_keep_their_order() {
    let flows: Vec<_> = (0..4)
        .map(|flow| {
            run(
                &Tcp {
                    port: 6000 + flow,
                    ..Tcp::default()
                },
                10,
                900,
            )
        })
        .collect();
    let packets: Vec<_> = (0..10)
        .flat_map(|number| flows.iter().map(move |flow| flow[number].clone()))
        .collect();
    let frames = join_all(true, &packets);
    assert_eq!(frames.len(), 4);
    for (frame, flow) in frames.iter().zip(flows) {
        assert_eq!(split_all(frame), Ok(flow));
    }
}

#[test]
fn whatever_is_joined_comes_apart_again_complete_and_in_order_per_flow() {
    for seed in 1..200u64 {
        let mut random = Random(seed);
        let mut seqs = [1u32; 12];
        let mut packets = Vec::new();
        for _ in 0..random.below(120) {
            let flow = random.below(seqs.len() as u64) as usize;
            let v6 = flow % 2 == 1;
            if flow >= 10 {
                packets.push(udp(
                    v6,
                    7000 + flow as u16,
                    0,
                    &bytes(random.below(3) as usize * 50, 3),
                ));
                continue;
            }
            let len = [0, 100, 100, 100, 60, 1348][random.below(6) as usize];
            packets.push(
                Tcp {
                    v6,
                    port: 7000 + flow as u16,
                    seq: seqs[flow],
                    id: packets.len() as u16,
                    dont_fragment: random.below(2) == 0,
                    push: random.below(8) == 0,
                    fin: random.below(30) == 0,
                    options: random.below(9) != 0,
                    payload: bytes(len, 7),
                    ..Tcp::default()
                }
                .build(),
            );
            seqs[flow] = seqs[flow].wrapping_add(len as u32);
        }
        let back: Vec<Vec<u8>> = join_all(true, &packets)
            .iter()
            .flat_map(|f| split_all(f).expect("sound"))
            .collect();
        assert_eq!(back.len(), packets.len(), "seed {seed}");
        for flow in 0..seqs.len() {
            let of_flow = |all: &[Vec<u8>]| -> Vec<Vec<u8>> {
                let port = (7000 + flow as u16).to_be_bytes();
                let at = if flow % 2 == 1 { 42 } else { 22 };
                let version = if at == 42 { 6 } else { 4 };
                let ours =
                    |packet: &&Vec<u8>| packet[0] >> 4 == version && packet[at..at + 2] == port;
                let mut all: Vec<_> = all.iter().filter(ours).cloned().collect();
                // Numbers that mean nothing may change.
                for packet in all
                    .iter_mut()
                    .filter(|p| p[0] >> 4 == 4 && p[6] & 0x40 != 0)
                {
                    packet[4..6].fill(0);
                    packet[10..12].fill(0);
                }
                all
            };
            assert_eq!(of_flow(&back), of_flow(&packets), "seed {seed} flow {flow}");
        }
    }
}

#[test]
fn nonsense_is_refused_and_never_panics() {
    assert_eq!(split_all(&[]), Err(SplitError::Malformed));
    assert_eq!(split_all(&[0; HEADER_LEN]), Err(SplitError::Malformed));
    let long = [&[0; HEADER_LEN][..], &bytes(CAPACITY + 1, 1)].concat();
    assert_eq!(split_all(&long), Err(SplitError::TooLong));
    let whole = Tcp {
        payload: bytes(4000, 3),
        ..Tcp::default()
    }
    .build();
    let sound = as_super_packet(&whole, 1348);
    assert!(split_all(&sound).is_ok());
    let zero = as_super_packet(&whole, 0);
    assert_eq!(
        split_all(&zero),
        Err(SplitError::Malformed),
        "no segment size"
    );
    assert_eq!(
        split_all(&as_super_packet(&whole, 3000)),
        Err(SplitError::TooLong)
    );
    let mut random = Random(99);
    for _ in 0..20_000 {
        let mut frame = sound[..random.below(sound.len() as u64) as usize].to_vec();
        for _ in 0..random.below(4) {
            if !frame.is_empty() {
                let at = random.below(frame.len().min(80) as u64) as usize;
                frame[at] = random.next() as u8;
            }
        }
        let _ = split_all(&frame);
        let packets: Vec<_> = frame.chunks(100).map(<[u8]>::to_vec).collect();
        join_all(true, &packets);
    }
}

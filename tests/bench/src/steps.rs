//! The steps of a packet's way, each alone and ready to be repeated.
//!
//! A step is a closure over its own warm state; one call is one packet. The same steps are
//! timed (`benches/steps.rs`) and counted (`main.rs`).

use std::collections::VecDeque;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use marline_proto::classify::{Class, Worth, classify};
use marline_proto::flow::{FlowTable, Queued};
use marline_proto::frame::{self, Ack, DataHeader, Frame, HEADER_LEN, PathAck};
use marline_proto::packet::inspect;
use marline_proto::queue::Queue;
use marline_proto::reorder::{Arrived, Reorder};
use marline_proto::session::{Identity, OVERHEAD, Opened, Session};
use marline_proto::{Key, PacketBuf, Pool, Time, public_key};

mod edges;

use crate::pair::{MTU, Pair, ROUND, udp_packet};

/// What does a step once.
pub type Step = Box<dyn FnMut()>;

/// A step's name and what makes it ready.
type Named = (&'static str, fn() -> Step);

const SOURCE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const FROM: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The steps without cryptography, in the order of the packet: they cost the same on every machine.
const STEPS: [Named; 27] = [
    ("split a super-packet of 45 packets", edges::split_super),
    ("read a packet's headers", read_headers),
    ("clamp the MSS of a SYN", edges::clamp_mss),
    ("cut a packet into IP fragments", edges::fragment),
    ("classify a packet", classify_packet),
    ("find a packet's flow", find_flow),
    ("queue a packet and take it out", queue),
    ("order four paths", edges::order_paths),
    ("choose among four paths for long flows", edges::choose_span),
    ("squeeze a header", edges::squeeze_header),
    ("restore a header", edges::restore_header),
    ("write a data header", write_header),
    ("cut a frame into halves", edges::cut_halves),
    ("join two halves", edges::join_halves),
    ("read a data frame", read_frame),
    ("encode an acknowledgement", encode_ack),
    ("decode an acknowledgement", decode_ack),
    ("put a packet in order", in_order),
    ("put two swapped packets in order", swapped),
    ("complete the checksum of 1400 B", edges::complete_checksum),
    ("join 45 packets with begun checksums", || {
        edges::join_run(false)
    }),
    ("join 45 packets with whole checksums", || {
        edges::join_run(true)
    }),
    ("seal and open 64 B without cryptography", || {
        seal_and_open(64, Identity::for_test)
    }),
    ("seal and open 1400 B without cryptography", || {
        seal_and_open(1400, Identity::for_test)
    }),
    ("32 packets, one path, without cryptography", || {
        whole_way(Pair::connected_unsealed(1))
    }),
    ("32 packets, two paths, without cryptography", || {
        whole_way(Pair::connected_unsealed(2))
    }),
    ("32 packets, four paths, without cryptography", || {
        whole_way(Pair::connected_unsealed(4))
    }),
];

/// The steps in which a packet is sealed or opened: other processors take other code for it.
const SEALED: [Named; 8] = [
    ("seal 64 B", || seal(64)),
    ("seal 200 B", || seal(200)),
    ("seal 1400 B", || seal(1400)),
    ("seal and open 64 B", || seal_and_open(64, Identity::new)),
    ("seal and open 200 B", || seal_and_open(200, Identity::new)),
    ("seal and open 1400 B", || {
        seal_and_open(1400, Identity::new)
    }),
    ("32 packets, one path", || whole_way(Pair::connected(1))),
    ("32 packets, two paths", || whole_way(Pair::connected(2))),
];

/// The names of all steps.
pub fn names() -> impl Iterator<Item = &'static str> {
    STEPS.iter().chain(&SEALED).map(|(name, _)| *name)
}

/// Whether cryptography is part of the step of this name.
pub fn is_sealed(name: &str) -> bool {
    SEALED.iter().any(|(known, _)| *known == name)
}

/// The step of this name, made ready.
pub fn named(name: &str) -> Option<Step> {
    let mut all = STEPS.iter().chain(&SEALED);
    let (_, ready) = all.find(|(known, _)| *known == name)?;
    Some(ready())
}

fn read_headers() -> Step {
    let packet = udp_packet(SOURCE, MTU);
    Box::new(move || {
        black_box(inspect(black_box(&packet)));
    })
}

fn classify_packet() -> Step {
    let info = inspect(&udp_packet(SOURCE, MTU)).expect("a packet");
    let behaviour = marline_proto::classify::Behaviour {
        bytes: 1 << 20,
        packets: 750,
        rate: 1e6,
        mean_len: 1400.0,
        bulk_rate: 1e5,
    };
    Box::new(move || {
        black_box(classify(black_box(&info), black_box(&behaviour)));
    })
}

fn find_flow() -> Step {
    let infos: Vec<_> = (0..64u8)
        .map(|number| {
            let mut packet = udp_packet(SOURCE, MTU);
            packet[21] = number;
            inspect(&packet).expect("a packet")
        })
        .collect();
    let mut flows = FlowTable::default();
    let mut at = 0;
    Box::new(move || {
        // Packets come in runs of a flow.
        at = (at + 1) % (infos.len() * 8);
        black_box(flows.admit(Time::from_millis(1), &infos[at / 8], 1e5));
    })
}

fn queue() -> Step {
    let info = inspect(&udp_packet(SOURCE, MTU)).expect("a packet");
    let mut flows = FlowTable::default();
    let mut queue = Queue::default();
    let mut dropped = Vec::new();
    let now = Time::from_millis(1);
    // Until the flow is bulk.
    for _ in 0..200 {
        flows.admit(now, &info, 1e5);
    }
    let slot = flows.admit(now, &info, 1e5).expect("room").slot;
    let mut packet = Some(PacketBuf::copy_of(&udp_packet(SOURCE, MTU)));
    Box::new(move || {
        let queued = Queued {
            packet: packet.take().expect("it came back"),
            since: now,
            ordered: true,
            ecn: 0,
            worth: Worth::Nothing,
            again: false,
            stream_end: None,
            patient: true,
        };
        queue.push(&mut flows, slot, queued, &mut dropped);
        let popped = queue.pop(now, &mut flows, Class::Bulk, |_| true, &mut dropped);
        packet = popped.map(|popped| popped.queued.packet);
    })
}

fn header(seq: u32) -> DataHeader {
    DataHeader {
        more: true,
        duplicate: false,
        retransmitted: false,
        ordered: true,
        class: Class::Bulk,
        flow: 7,
        seq,
        release: 0,
        opens: None,
        begun: false,
    }
}

fn write_header() -> Step {
    let mut out = [0; HEADER_LEN];
    let mut seq = 0;
    Box::new(move || {
        seq = (seq + 1) & 0x00ff_ffff;
        frame::write_data_header(&mut out, &header(seq), usize::from(MTU), seq);
        black_box(&out);
    })
}

fn read_frame() -> Step {
    let mut bytes = Vec::new();
    let packet = udp_packet(SOURCE, MTU);
    frame::encode(&Frame::Data(header(9), &packet), 5, &mut bytes);
    Box::new(move || {
        let _ = black_box(frame::decode(black_box(&bytes)));
    })
}

fn ack() -> Frame<'static> {
    let path = PathAck {
        path: 1,
        largest: 1_000,
        ranges: vec![(0, 60), (2, 100), (1, 200)],
        ..PathAck::default()
    };
    Frame::Ack(Ack {
        seq: 3,
        paths: vec![path.clone(), path],
    })
}

fn encode_ack() -> Step {
    let ack = ack();
    let mut out = Vec::new();
    Box::new(move || frame::encode(black_box(&ack), 5, &mut out))
}

fn decode_ack() -> Step {
    let mut bytes = Vec::new();
    frame::encode(&ack(), 5, &mut bytes);
    Box::new(move || {
        let _ = black_box(frame::decode(black_box(&bytes)));
    })
}

/// Gives packets to an order in the sequence that `next` tells.
fn order(mut next: impl FnMut() -> u32 + 'static) -> Step {
    let mut reorder = Reorder::default();
    let (mut ready, mut pool) = (VecDeque::new(), Pool::default());
    let mut now = Time::from_millis(1);
    Box::new(move || {
        now += Duration::from_micros(10);
        let arrived = Arrived {
            slot: 3,
            seq: next() & 0x00ff_ffff,
            stamp: 0,
            ordered: true,
            datagram: false,
            due: now,
            packet: pool.take(),
        };
        reorder.on_packet(now, arrived, &mut ready, &mut pool);
        while let Some(packet) = ready.pop_front() {
            pool.put(packet);
        }
    })
}

fn in_order() -> Step {
    let mut seq = 0u32;
    order(move || {
        seq += 1;
        seq - 1
    })
}

fn swapped() -> Step {
    let mut seq = 0u32;
    order(move || {
        seq += 1;
        (seq - 1) ^ 1
    })
}

/// Two ends of a session that stands.
fn sessions(identity: fn(Key) -> Identity) -> (Session, Session) {
    let (c, s) = ([1; 32], [2; 32]);
    let mut client = identity(c).session(public_key(&s), 7);
    let mut server = identity(s).session(public_key(&c), 9);
    let (mut a, mut b) = ([0; 256], [0; 256]);
    let len = client.initiate(Time::ZERO, &mut a).expect("a handshake");
    let reply = |opened| match opened {
        Ok(Opened::Reply { len, .. }) => len,
        _ => unreachable!("the handshake was sound"),
    };
    let len = reply(server.open(Time::ZERO, FROM, &a[..len], &mut b));
    let len = reply(client.open(Time::ZERO, FROM, &b[..len], &mut a));
    server
        .open(Time::ZERO, FROM, &a[..len], &mut b)
        .expect("the first message");
    (client, server)
}

fn data_frame(len: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::encode(
        &Frame::Data(header(9), &udp_packet(SOURCE, len)),
        5,
        &mut bytes,
    );
    bytes
}

fn seal(len: u16) -> Step {
    let (mut client, _) = sessions(Identity::new);
    let bytes = data_frame(len);
    let mut wire = vec![0; bytes.len() + OVERHEAD];
    Box::new(move || {
        black_box(client.seal(black_box(&bytes), &mut wire));
    })
}

fn seal_and_open(len: u16, identity: fn(Key) -> Identity) -> Step {
    let (mut client, mut server) = sessions(identity);
    let bytes = data_frame(len);
    let mut wire = vec![0; bytes.len() + OVERHEAD];
    let mut out = vec![0; wire.len().max(256)];
    Box::new(move || {
        client.seal(&bytes, &mut wire);
        let opened = server.open(Time::ZERO, FROM, &wire, &mut out);
        assert!(opened.is_ok(), "what was sealed opens");
    })
}

/// A packet's whole way through both cores; one call carries a round.
fn whole_way(mut pair: Pair) -> Step {
    const _: () = assert!(ROUND == 32);
    Box::new(move || pair.round())
}

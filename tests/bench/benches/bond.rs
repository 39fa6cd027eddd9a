//! A packet's whole way through the core: queued by the client, sealed, opened by the
//! server, put in order and handed out, over one path and over two, acknowledgements
//! included. No socket and no TUN takes part. And one header, squeezed and restored.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

use marline_bench::pair::{CLIENT, MTU, Pair, ROUND, mend, udp_packet};
use marline_proto::frame::SQUEEZED_AT;
use marline_proto::squeeze::{Base, Head, Marks, Place, Widths};

/// A segment with timestamps that fills the MTU, `n` segments after the first.
fn segment(n: u32) -> Vec<u8> {
    let mut bytes = udp_packet(CLIENT, MTU);
    bytes[9] = 6;
    bytes[20..24].copy_from_slice(&[0x01, 0xbb, 0x9c, 0x40]);
    bytes[24..28].copy_from_slice(&(n * (u32::from(MTU) - 52)).to_be_bytes());
    bytes[32..34].copy_from_slice(&[0x80, 0x10]);
    bytes[40..44].copy_from_slice(&[1, 1, 8, 10]);
    bytes[44..48].copy_from_slice(&(n / 5).to_be_bytes());
    mend(&mut bytes);
    bytes
}

/// One header of a run of segments, to its squeezed form and whole again.
fn squeezed(c: &mut Criterion) {
    let place = |n: u32| Place {
        number: n,
        stamp: n * 25,
    };
    let base = Base::of(&segment(0), place(0)).expect("a usual header");
    let (packet, at) = (segment(1_001), place(1_001));
    let mut widths = Widths::default();
    let mut head = Head::default();
    let mut group = c.benchmark_group("header");
    group.bench_function("squeeze", |b| {
        b.iter(|| {
            let packet = black_box(&packet[..]);
            base.squeeze(packet, at, Marks::default(), &mut widths, &mut head)
        });
    });
    let mut rest = head.bytes[SQUEEZED_AT + 1..head.len].to_vec();
    rest.extend_from_slice(&packet[head.skip..]);
    group.bench_function("restore", |b| {
        b.iter(|| base.restore(at, false, black_box(&rest[..])).map(|r| r.len));
    });
    group.finish();
}

fn through_the_core(c: &mut Criterion) {
    let mut group = c.benchmark_group("bond");
    group.throughput(Throughput::Elements(ROUND as u64));
    for paths in [1, 2] {
        let mut pair = Pair::connected(paths);
        group.bench_function(format!("{paths} path(s), both ends, per packet"), |b| {
            b.iter(|| pair.round());
        });
    }
    group.finish();
}

criterion_group!(benches, through_the_core, squeezed);
criterion_main!(benches);

//! A packet's whole way through the core: queued by the client, sealed, opened by the
//! server, put in order and handed out, over one path and over two, acknowledgements
//! included. No socket and no TUN takes part.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

use marline_bench::pair::{Pair, ROUND};

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

criterion_group!(benches, through_the_core);
criterion_main!(benches);

//! Each step of a packet's way, in time.

use criterion::{Criterion, criterion_group, criterion_main};
use marline_bench::steps;

fn each(c: &mut Criterion) {
    for name in steps::names() {
        let mut step = steps::named(name).expect("a step has its name");
        c.bench_function(name, |b| b.iter(&mut step));
    }
}

criterion_group!(benches, each);
criterion_main!(benches);

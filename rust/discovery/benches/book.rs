//! Measures what it costs an application to read the address book: `make bench`.

#![allow(missing_docs, reason = "criterion's macros make functions")]

use std::{hint::black_box, sync::Arc};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use iroh_gossip_discovery::{Book, NodeRecord, proto::samples};

fn books(c: &mut Criterion) {
    let records: Vec<Arc<NodeRecord>> =
        (0..10_001).map(|number| samples::numbered(number).record().clone()).collect();
    let (last, rest) = records.split_last().expect("there are some");
    let book: Book = rest.iter().cloned().collect();
    c.bench_function("book of 10,000: snapshot", |b| b.iter(|| black_box(&book).clone()));
    c.bench_function("book of 10,000: publish a newcomer beside a snapshot", |b| {
        b.iter_batched_ref(
            || book.clone(),
            |book| book.extend([last.clone()]),
            BatchSize::SmallInput,
        );
    });
    c.bench_function("book of 10,000: get", |b| b.iter(|| book.get(black_box(&rest[5000].id))));
    c.bench_function("book of 10,000: iterate", |b| {
        b.iter(|| book.iter().map(|record| record.addresses.len()).sum::<usize>());
    });
}

criterion_group!(book, books);
criterion_main!(book);

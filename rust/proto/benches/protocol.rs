//! What the protocol costs, piece by piece: `make bench`.

#![allow(missing_docs, reason = "criterion's macros make functions")]

use std::{hint::black_box, time::Duration};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use ed25519_dalek::SigningKey;
use iroh_gossip_discovery_proto::{
    Config, Identity, InEvent, Lane, LinkId, Profile, SignedRecord, State, Status, TopicOptions,
    samples::{self, SampleBook, Steps},
};
use tokio::time::Instant;

/// A record with every field: name, three metadata entries, three addresses, one protocol.
fn records(c: &mut Criterion) {
    let steps = Steps::new();
    assert_eq!(steps.encode().as_ref(), Ok(steps.signed()), "two steps, and the record is whole");
    assert_eq!(steps.decode().as_ref(), Ok(&**steps.signed().record()));
    println!("a record of {} bytes", steps.signed().bytes().len());
    c.bench_function("record: encode", |b| b.iter(|| black_box(&steps).encode()));
    c.bench_function("record: sign", |b| b.iter(|| black_box(&steps).sign()));
    c.bench_function("record: verify", |b| b.iter(|| black_box(&steps).verify()));
    c.bench_function("record: decode", |b| b.iter(|| black_box(&steps).decode()));
}

/// Divide by the number of records, to compare with `record: verify` and `record: decode`.
fn records_together(c: &mut Criterion) {
    let all: Vec<_> = (0..256).map(samples::numbered).collect();
    for count in [1, 4, 16, 64, 256] {
        c.bench_function(format!("{count} records together: verify and decode").as_str(), |b| {
            b.iter(|| samples::verify(black_box(&all[..count]).iter().map(SignedRecord::bytes)));
        });
    }
}

fn frames(c: &mut Criterion) {
    let ten: Vec<_> = (0..10).map(samples::numbered).collect();
    let ten: Vec<_> = ten.iter().collect();
    let frame = samples::gossip(&ten);
    println!("a gossip frame of ten records has {} bytes", frame.len());
    c.bench_function("frame of 10 records: encode", |b| {
        b.iter(|| samples::gossip(black_box(&ten)));
    });
    c.bench_function("frame of 10 records: decode", |b| {
        b.iter(|| samples::decode(black_box(&frame)));
    });
}

/// A member of the samples' topic with one neighbor.
fn member(now: Instant) -> State {
    let identity = Identity {
        key: SigningKey::from_bytes(&[250; 32]),
        boot_id: 1,
        sequence: 1,
        reserved: 1 << 40,
    };
    let mut state = State::new(identity, [7; 32], now);
    let frame = |wanted: &str| -> Bytes {
        let all = samples::all();
        all.into_iter().find(|(name, _)| *name == wanted).expect("a sample of that name").1
    };
    let profile = Profile::new("me");
    let options = TopicOptions { profile, config: Config::default() };
    let peer = samples::record(1, Status::Alive).record().id;
    let received = |name| InEvent::Received(LinkId(1), Lane::Control, frame(name));
    let events = [
        InEvent::Join(samples::topic(), Box::new(options)),
        InEvent::LinkOpened { link: LinkId(1), peer, address: None, dialed: false },
        received("hello"),
        received("open"),
        received("neighbor"),
    ];
    for event in events {
        state.handle(event, now).expect("a good event");
    }
    while state.poll().is_some() {}
    state
}

/// Everything between the frame's arrival and what goes out because of it.
fn guard(c: &mut Criterion) {
    let now = Instant::now();
    let frame = samples::gossip(&[&samples::numbered(0)]);
    let receive = |mut state: State| {
        let event = InEvent::Received(LinkId(1), Lane::Control, frame.clone());
        state.handle(event, now).expect("a good frame");
        let mut out = 0;
        while state.poll().is_some() {
            out += 1;
        }
        (state, out)
    };
    assert!(receive(member(now)).1 > 0, "the record is taken, and its peer joins");
    c.bench_function("guard: a new record from a neighbor", |b| {
        b.iter_batched(|| member(now), receive, BatchSize::SmallInput);
    });
    c.bench_function("guard: the same frame again", |b| {
        b.iter_batched(|| receive(member(now)).0, receive, BatchSize::SmallInput);
    });
}

fn books(c: &mut Criterion) {
    let now = Instant::now();
    let records: Vec<_> = (0..11_000).map(samples::numbered).collect();
    let newcomer = &records[10_999];
    c.bench_function("book of 10,000: apply a newcomer", |b| {
        b.iter_batched_ref(
            || SampleBook::new(&records[..10_000], now),
            |book| book.apply(newcomer.clone(), now),
            BatchSize::NumIterations(1),
        );
    });
    let mut group = c.benchmark_group("sync of 10,000 records");
    group.sample_size(20).measurement_time(Duration::from_secs(8));
    for missing in [1, 1000, 10_000] {
        let books = || {
            (
                SampleBook::new(&records[..10_000], now),
                SampleBook::new(&records[missing..10_000], now),
            )
        };
        let (mut a, mut b) = books();
        let (sent, bytes) = b.reconcile(&mut a, now);
        assert_eq!(sent, missing);
        println!("{missing} differences: {bytes} bytes");
        group.bench_function(format!("{missing} differences"), |bencher| {
            bencher.iter_batched_ref(
                books,
                |(a, b)| b.reconcile(a, now),
                BatchSize::NumIterations(1),
            );
        });
    }
    group.finish();
}

criterion_group!(protocol, records, records_together, frames, guard, books);
criterion_main!(protocol);

//! Does one piece of the protocol's work a given number of times, for a tool that counts
//! instructions: `make bench-check`.
//!
//! `instructions CASE TIMES`; without arguments it prints each case with its number of times. For 0
//! times a case prepares the same, so the difference is the work alone.
#![allow(clippy::expect_used, reason = "a case that can't be prepared can't be counted")]

use std::{env, hint::black_box, process::ExitCode};

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use iroh_gossip_discovery_proto::{
    Config, Identity, InEvent, Lane, LinkId, Profile, SignedRecord, State, Status, TopicOptions,
    samples::{self, SampleBook, Steps},
};
use iroh_gossip_discovery_sim::scenario::{Options, Scenario, run};
use tokio::time::Instant;

/// A piece of work.
struct Case {
    name: &'static str,
    /// How often it is done to be counted.
    times: usize,
    run: fn(usize),
}

const CASES: [Case; 11] = [
    Case { name: "record-encode", times: 200, run: record_encode },
    Case { name: "record-sign", times: 20, run: record_sign },
    Case { name: "record-verify", times: 20, run: record_verify },
    Case { name: "record-decode", times: 200, run: record_decode },
    Case { name: "64-records-together", times: 2, run: records_together },
    Case { name: "frame-encode", times: 200, run: frame_encode },
    Case { name: "frame-decode", times: 200, run: frame_decode },
    Case { name: "guard", times: 50, run: guard },
    Case { name: "book-apply", times: 500, run: book_apply },
    Case { name: "sync", times: 1, run: sync },
    Case { name: "start-of-100", times: 1, run: start_of_100 },
];

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    match arguments.as_slice() {
        [] => {
            for case in &CASES {
                println!("{} {}", case.name, case.times);
            }
            ExitCode::SUCCESS
        }
        [name, times] => {
            let case = CASES.iter().find(|case| case.name == name);
            let (Some(case), Ok(times)) = (case, times.parse()) else {
                eprintln!("instructions: no case {name}, or {times} is no number of times");
                return ExitCode::FAILURE;
            };
            (case.run)(times);
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("instructions: wants nothing, or CASE TIMES");
            ExitCode::FAILURE
        }
    }
}

fn repeat<T>(times: usize, mut work: impl FnMut() -> T) {
    for _ in 0..times {
        black_box(work());
    }
}

fn record_encode(times: usize) {
    let steps = Steps::new();
    repeat(times, || black_box(&steps).encode());
}

fn record_sign(times: usize) {
    let steps = Steps::new();
    repeat(times, || black_box(&steps).sign());
}

fn record_verify(times: usize) {
    let steps = Steps::new();
    repeat(times, || black_box(&steps).verify().map(<[u8]>::len));
}

fn record_decode(times: usize) {
    let steps = Steps::new();
    repeat(times, || black_box(&steps).decode());
}

fn numbered(count: u32) -> Vec<SignedRecord> {
    (0..count).map(samples::numbered).collect()
}

fn records_together(times: usize) {
    let all = numbered(64);
    repeat(times, || samples::verify(all.iter().map(SignedRecord::bytes)));
}

fn frame_encode(times: usize) {
    let records = numbered(10);
    let records: Vec<_> = records.iter().collect();
    repeat(times, || samples::gossip(black_box(&records)));
}

fn frame_decode(times: usize) {
    let records = numbered(10);
    let frame = samples::gossip(&records.iter().collect::<Vec<_>>());
    repeat(times, || samples::decode(black_box(&frame)));
}

/// A node with a neighbor, which receives a record that is new, each in a frame of its own.
fn guard(times: usize) {
    let now = Instant::now();
    let most = CASES.iter().find(|case| case.name == "guard").map_or(0, |case| case.times);
    let frames: Vec<_> = (0..u32::try_from(most).expect("few"))
        .map(|number| samples::gossip(&[&samples::numbered(number)]))
        .collect();
    let mut state = member(now);
    for frame in frames.iter().take(times) {
        receive(&mut state, frame.clone(), now);
    }
}

fn receive(state: &mut State, frame: Bytes, now: Instant) {
    let event = InEvent::Received(LinkId(1), Lane::Control, frame);
    state.handle(event, now).expect("a good frame");
    while let Some(out) = state.poll() {
        black_box(out);
    }
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
    let options = TopicOptions { profile: Profile::new("me"), config: Config::default() };
    let peer = samples::record(1, Status::Alive).record().id;
    let before = [
        InEvent::Join(samples::topic(), Box::new(options)),
        InEvent::LinkOpened { link: LinkId(1), peer, address: None, dialed: false },
    ];
    for event in before {
        state.handle(event, now).expect("a good event");
    }
    for wanted in ["hello", "open", "neighbor"] {
        let all = samples::all();
        let (_, frame) = all.into_iter().find(|(name, _)| *name == wanted).expect("a sample");
        receive(&mut state, frame, now);
    }
    state
}

/// 500 newcomers to a book of 1,000.
fn book_apply(times: usize) {
    let now = Instant::now();
    let records = numbered(1_500);
    let mut book = SampleBook::new(&records[..1_000], now);
    for record in &records[1_000..1_000 + times] {
        book.apply(record.clone(), now);
    }
}

/// Two books of 1,000 of which one lacks 100.
fn sync(times: usize) {
    let now = Instant::now();
    let records = numbered(1_000);
    let mut whole = SampleBook::new(&records, now);
    let mut part = SampleBook::new(&records[100..], now);
    for _ in 0..times {
        let (sent, _) = part.reconcile(&mut whole, now);
        assert_eq!(sent, 100, "the books differ by 100 records");
    }
}

/// 100 nodes start at once, in the simulator.
fn start_of_100(times: usize) {
    let text = "nodes = 100\nduration = \"2s\"\n[expect]\nconverged = \"2s\"";
    let scenario = Scenario::parse(text).expect("a good scenario");
    for _ in 0..times {
        let report = run(&scenario, Options::default(), &mut |_| true).expect("a good scenario");
        assert!(report.failures.is_empty(), "{:?}", report.failures);
    }
}

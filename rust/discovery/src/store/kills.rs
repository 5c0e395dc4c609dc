//! A process that writes is killed at any instant. The next one always starts, and has all that was
//! said to be written.
//!
//! The process is this test's own binary. It says on its standard output what it has written.

use std::{
    collections::BTreeMap,
    env,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use bytes::Bytes;

use super::*;
use crate::proto::samples;

const NAME: &str = "store::kills::what_a_killed_process_had_written_is_there_after_the_next_start";
const DIRECTORY: &str = "IGD_KILLED_STORE";
const MEMBERS: u8 = 40;
/// Ten seconds of the clock that sequence numbers begin at. So the clock can't hide a reservation
/// that is lost.
const BLOCK: u64 = 10_000_000;

/// Few by default, `KILLS=1000` by hand.
fn kills() -> u64 {
    env::var("KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(10)
}

fn record(round: u64) -> Bytes {
    // As long as a record usually is, so that snapshots follow logs often.
    let mut record = vec![0xa5; 240];
    record[..8].copy_from_slice(&round.to_be_bytes());
    Bytes::from(record)
}

/// Returns the last round that is kept of each member.
fn rounds(store: &Store) -> BTreeMap<EndpointId, u64> {
    let kept = store.books.load(&samples::topic(), 10_000).into_iter();
    let round = |record: &Bytes| u64::from_be_bytes(record[..8].try_into().unwrap());
    kept.map(|(entry, _)| (entry.id, round(&entry.record))).collect()
}

/// Writes for ever, and says what is written.
fn write_until_killed(dir: &Path) {
    let store = open(dir);
    println!("@key {}", store.key().unwrap().public());
    let (sequence, mut reserved) = store.begin();
    println!("@own {sequence}");
    let first = rounds(&store).values().max().map_or(0, |round| round + 1);
    for round in first..first + 100_000 {
        for member in 0..MEMBERS {
            let change = Change::Alive(record(round));
            store.note(samples::topic(), EndpointId::from_bytes([member; 32]), change);
        }
        assert!(store.write_again());
        println!("@round {round}");
        assert!(store.reserve(reserved + BLOCK));
        reserved += BLOCK;
        println!("@own {}", reserved - 1);
    }
}

fn open(dir: &Path) -> Store {
    Store::open(dir).unwrap().unwrap()
}

/// What a process said before it was killed.
#[derive(Debug, Default)]
struct Said {
    key: Option<String>,
    own: u64,
    round: Option<u64>,
}

/// Lets a process write, and kills it some time after it has said this many lines.
fn killed_after(dir: &Path, lines: usize, then: Duration) -> Said {
    let mut process = Command::new(env::current_exe().unwrap())
        .args([NAME, "--exact", "--nocapture"])
        .env(DIRECTORY, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(process.stdout.take().unwrap()).lines();
    let mut told: Vec<_> = output.by_ref().take(lines).map(Result::unwrap).collect();
    thread::sleep(then);
    process.kill().unwrap();
    told.extend(output.map(Result::unwrap));
    process.wait().unwrap();
    let mut said = Said::default();
    for line in &told {
        match line.split_once(' ') {
            Some(("@key", key)) => said.key = Some(key.to_owned()),
            Some(("@own", own)) => said.own = own.parse().unwrap(),
            Some(("@round", round)) => said.round = Some(round.parse().unwrap()),
            _ => {}
        }
    }
    said
}

#[test]
fn what_a_killed_process_had_written_is_there_after_the_next_start() {
    if let Some(dir) = env::var_os(DIRECTORY) {
        return write_until_killed(Path::new(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    let (mut key, mut own, mut round) = (None, 0, None);
    for kill in 0..kills() {
        // Through all steps of the start, and of many rounds.
        let lines = usize::try_from(kill * 7 % 61).unwrap();
        let said = killed_after(dir.path(), lines, Duration::from_micros(kill * 613 % 4001));
        assert!(said.own == 0 || said.own >= own, "kill {kill}: {} after {own}", said.own);
        assert!(key.is_none() || said.key.is_none() || key == said.key, "kill {kill}: {said:?}");
        key = said.key.or(key);
        own = own.max(said.own);
        round = round.max(said.round);
        let store = open(dir.path());
        assert_eq!(store.damages(), Vec::<String>::new(), "kill {kill}");
        let kept = rounds(&store);
        assert_eq!(store.damages(), Vec::<String>::new(), "kill {kill}");
        if let Some(round) = round {
            assert_eq!(kept.len(), usize::from(MEMBERS), "kill {kill}");
            assert!(kept.values().all(|kept| *kept >= round), "kill {kill}: {round}, {kept:?}");
        }
        let (sequence, _) = store.begin();
        assert!(sequence > own || own == 0, "kill {kill}: {sequence} after {own}");
        own = own.max(sequence);
        if key.is_some() {
            assert_eq!(Some(store.key().unwrap().public().to_string()), key, "kill {kill}");
        }
    }
    println!("{} kills, {round:?} rounds", kills());
    assert!(round.is_some(), "nothing was written");
}

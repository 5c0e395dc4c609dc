//! What of a kept book survives: restarts, torn writes, damage of every kind.

use std::{fs, path::Path, sync::Arc};

use proptest::prelude::*;

use super::{Change, Ledger, MIN_LOG};
use crate::{
    proto::{EndpointId, TopicId, samples},
    store::{disk::RealDisk, files::Files, tests::FaultyDisk},
};

fn topic() -> TopicId {
    samples::topic()
}

fn load(dir: &Path) -> Ledger {
    Ledger::load(Files::new(dir, Arc::new(RealDisk)), &topic(), 10_000)
}

fn change(number: u32) -> (EndpointId, Change) {
    let signed = samples::numbered(number);
    (signed.record().id, Change::Alive(signed.bytes().clone()))
}

fn ids(ledger: &Ledger) -> Vec<EndpointId> {
    let mut ids: Vec<_> = ledger.entries().into_iter().map(|(entry, _)| entry.id).collect();
    ids.sort_unstable();
    ids
}

fn sorted(numbers: impl IntoIterator<Item = u32>) -> Vec<EndpointId> {
    let mut ids: Vec<_> = numbers.into_iter().map(|number| change(number).0).collect();
    ids.sort_unstable();
    ids
}

/// Two generations and a log.
fn filled(dir: &Path) {
    let mut ledger = load(dir);
    ledger.write((0..20).map(change).collect()).unwrap();
    ledger.write((20..30).map(change).collect()).unwrap();
    drop(ledger);
    let mut ledger = load(dir);
    ledger.forget(&change(0).0);
    ledger.write([change(30)].into()).unwrap();
    ledger.write((31..40).map(change).collect()).unwrap();
}

#[test]
fn a_book_survives_with_what_was_lost_or_left() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let mut ledger = load(dir.path());
    assert_eq!(ids(&ledger), sorted(1..40));
    ledger.write([(change(5).0, Change::Left(77)), (change(6).0, Change::Lost)].into()).unwrap();
    let ledger = load(dir.path());
    assert_eq!(ids(&ledger), sorted(1..40), "one that was lost, or left, may be there again");
    let left = ledger.entries().into_iter().filter(|(entry, _)| entry.left == 77);
    assert_eq!(left.map(|(entry, _)| entry.id).collect::<Vec<_>>(), [change(5).0]);
    assert!(ledger.files.damages().is_empty());
    for (entry, established) in ledger.entries() {
        assert!(!established);
        assert!(entry.record.len() > 64);
    }
}

#[test]
fn a_log_that_outgrows_its_snapshot_is_folded_into_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = load(dir.path());
    let mut written = 0;
    for round in 0..3000_u32 {
        ledger.write([change(round % 50)].into()).unwrap();
        written += 1;
    }
    assert_eq!(written, 3000);
    assert_eq!(ids(&load(dir.path())), sorted(0..50));
    let files: Vec<_> = fs::read_dir(dir.path()).unwrap().flatten().collect();
    assert!(files.len() <= 4, "{files:?}");
    let bytes: u64 = files.iter().map(|file| file.metadata().unwrap().len()).sum();
    assert!(bytes < 4 * MIN_LOG, "{bytes}");
}

#[test]
fn torn_writes_cost_only_what_is_torn() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = load(dir.path());
    ledger.write((0..5).map(change).collect()).unwrap();
    ledger.write([change(5)].into()).unwrap();
    ledger.write([change(6)].into()).unwrap();
    drop(ledger);
    let log = dir.path().join(load(dir.path()).log_name(1));
    let whole = fs::read(&log).unwrap();
    for end in (0..whole.len()).step_by(7) {
        fs::write(&log, &whole[..end]).unwrap();
        let mut ledger = load(dir.path());
        assert!(ids(&ledger).len() >= 5);
        assert!(ledger.files.damages().is_empty(), "a torn write is no damage");
        ledger.write([change(7)].into()).unwrap();
        assert!(ids(&load(dir.path())).contains(&change(7).0), "{end}");
    }
}

#[test]
fn what_a_full_disk_refused_is_written_later() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(FaultyDisk::default());
    let mut ledger = Ledger::load(Files::new(dir.path(), disk.clone()), &topic(), 100);
    ledger.write((0..5).map(change).collect()).unwrap();
    for operation in ["append", "write", "sync"] {
        disk.set(&[(operation, 28), ("create", 28)]);
        ledger.write([change(5)].into()).unwrap_err();
        assert!(ledger.is_unwritten());
        ledger.write([change(6)].into()).unwrap_err();
        assert!(ids(&load(dir.path())).len() >= 5);
        disk.set(&[]);
        ledger.write(std::collections::BTreeMap::new()).unwrap();
        assert!(!ledger.is_unwritten());
        assert_eq!(ids(&load(dir.path())), sorted(0..7));
    }
}

#[test]
fn a_book_is_bounded_and_members_stay() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::load(Files::new(dir.path(), Arc::new(RealDisk)), &topic(), 10);
    ledger.write((0..10).map(change).collect()).unwrap();
    ledger.write((0..5).map(|number| (change(number).0, Change::Lost)).collect()).unwrap();
    ledger.write((10..15).map(change).collect()).unwrap();
    assert_eq!(ids(&ledger), sorted(5..15));
}

#[test]
fn a_directory_in_the_place_of_a_file_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let ledger = load(dir.path());
    for name in [ledger.snapshot_name(2), ledger.log_name(2)] {
        let path = dir.path().join(name);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
    }
    let mut ledger = load(dir.path());
    assert_eq!(ids(&ledger), sorted(0..30), "the generation before");
    assert_eq!(ledger.files.damages().len(), 2);
    ledger.write([change(50)].into()).unwrap();
    let ledger = load(dir.path());
    assert!(ledger.files.damages().is_empty());
    assert!(ids(&ledger).contains(&change(50).0));
}

/// What happens to a file.
#[derive(Debug, Clone)]
enum Damage {
    Flip(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Insert(prop::sample::Index, Vec<u8>),
    Zero(prop::sample::Index, usize),
    Replace(Vec<u8>),
    Remove,
}

fn damage() -> impl Strategy<Value = Damage> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        (index(), 1..=u8::MAX).prop_map(|(at, bits)| Damage::Flip(at, bits)),
        index().prop_map(Damage::Cut),
        (index(), prop::collection::vec(any::<u8>(), 1..64))
            .prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        (index(), 1..4096_usize).prop_map(|(at, count)| Damage::Zero(at, count)),
        prop::collection::vec(any::<u8>(), 0..256).prop_map(Damage::Replace),
        Just(Damage::Remove),
    ]
}

fn apply(path: &Path, damage: &Damage) {
    let mut content = fs::read(path).unwrap_or_default();
    let length = content.len();
    match damage {
        _ if length == 0 => return,
        Damage::Flip(at, bits) => content[at.index(length)] ^= bits,
        Damage::Cut(at) => content.truncate(at.index(length)),
        Damage::Insert(at, bytes) => {
            let at = at.index(length);
            content.splice(at..at, bytes.iter().copied());
        }
        Damage::Zero(at, count) => {
            let at = at.index(length);
            let end = length.min(at + count);
            content[at..end].fill(0);
        }
        Damage::Replace(bytes) => content.clone_from(bytes),
        Damage::Remove => return fs::remove_file(path).unwrap(),
    }
    fs::write(path, content).unwrap();
}

/// Few by default, `PROPTEST_CASES=10000` by hand.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(48)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn no_damage_stops_a_start(
        damages in prop::collection::vec((any::<prop::sample::Index>(), damage()), 1..4)
    ) {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path());
        let store = crate::store::Store::open(dir.path()).unwrap().unwrap();
        store.key().unwrap();
        store.begin();
        store.keep_bound("id".to_owned(), vec!["0.0.0.0:1".parse().unwrap()]);
        drop(store);
        let mut paths: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        for (which, damage) in &damages {
            apply(&paths[which.index(paths.len())], damage);
        }
        for _ in 0..2 {
            let store = crate::store::Store::open(dir.path()).unwrap().unwrap();
            let key = store.key().unwrap();
            store.check_key(&key).unwrap();
            let entries = store.books.load(&topic(), 10_000);
            store.books.verify(&topic(), &entries);
            let (sequence, reserved) = store.begin();
            prop_assert!(sequence < reserved);
            let (id, change) = change(99);
            store.note(topic(), id, change);
            prop_assert!(store.write_again());
        }
        // What it wrote itself is whole.
        let ledger = load(dir.path());
        prop_assert!(ledger.files.damages().is_empty(), "{:?}", ledger.files.damages());
        prop_assert!(ids(&ledger).contains(&change(99).0));
    }
}

#[test]
fn idle_among_a_thousand_members_it_writes_less_than_a_kilobyte_a_second() {
    // 1,000 members announce themselves every 10,000 s, each at its own time.
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(FaultyDisk::default());
    let mut ledger = Ledger::load(Files::new(dir.path(), disk.clone()), &topic(), 10_000);
    ledger.write((0..1000).map(change).collect()).unwrap();
    let before = disk.written();
    for number in 0..3000 {
        ledger.write([change(number % 1000)].into()).unwrap();
    }
    // 3,000 announcements take 30,000 s.
    let (bytes, pages) = (disk.written().0 - before.0, disk.written().1 - before.1);
    assert!(bytes / 30_000 <= 1000, "{bytes} bytes");
    assert!(pages * 4096 / 30_000 <= 1000, "{pages} pages of 4 KiB");
}

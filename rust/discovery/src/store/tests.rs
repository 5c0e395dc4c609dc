//! How a start deals with every kind of disk and damage.

use std::{
    collections::BTreeMap,
    fs::{self, File, TryLockError},
};

use super::*;

/// A disk on which operations fail with the error numbers that the test sets.
#[derive(Debug, Default)]
pub(crate) struct FaultyDisk(Mutex<BTreeMap<&'static str, i32>>, Mutex<(u64, u64)>);

impl FaultyDisk {
    pub(crate) fn set(&self, faults: &[(&'static str, i32)]) {
        *self.0.lock().unwrap() = faults.iter().copied().collect();
    }

    /// Returns the number of bytes that were written, and of the pages that they touched.
    pub(crate) fn written(&self) -> (u64, u64) {
        *self.1.lock().unwrap()
    }

    fn check(&self, operation: &str) -> io::Result<()> {
        let fault = self.0.lock().unwrap().get(operation).copied();
        fault.map_or(Ok(()), |code| Err(io::Error::from_raw_os_error(code)))
    }
}

impl Disk for FaultyDisk {
    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        self.check("make_dir").and_then(|()| RealDisk.make_dir(dir))
    }

    fn create(&self, path: &Path) -> io::Result<File> {
        self.check("create").and_then(|()| RealDisk.create(path))
    }

    fn append(&self, path: &Path) -> io::Result<File> {
        self.check("append").and_then(|()| RealDisk.append(path))
    }

    fn write(&self, file: &mut File, content: &[u8]) -> io::Result<()> {
        if let Err(error) = self.check("write") {
            // Fails as a disk does that has some room, but not enough.
            RealDisk.write(file, &content[..content.len() / 2])?;
            return Err(error);
        }
        let mut written = self.1.lock().unwrap();
        written.0 += content.len() as u64;
        written.1 += content.len() as u64 / 4096 + 1;
        RealDisk.write(file, content)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        self.check("sync").and_then(|()| RealDisk.sync(file))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.check("sync_dir").and_then(|()| RealDisk.sync_dir(dir))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.check("rename").and_then(|()| RealDisk.rename(from, to))
    }

    fn open_lock(&self, path: &Path) -> io::Result<File> {
        self.check("open_lock").and_then(|()| RealDisk.open_lock(path))
    }

    fn try_lock(&self, file: &File) -> Result<(), TryLockError> {
        self.check("try_lock").map_err(TryLockError::Error)?;
        RealDisk.try_lock(file)
    }

    fn protect(&self, path: &Path) -> io::Result<Option<u32>> {
        self.check("protect").and_then(|()| RealDisk.protect(path))
    }
}

const ENOENT: i32 = 2;
const EIO: i32 = 5;
const EINVAL: i32 = 22;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;
#[cfg(target_os = "linux")]
const LACKING: [i32; 4] = [EINVAL, 38, 95, 37];
#[cfg(not(target_os = "linux"))]
const LACKING: [i32; 3] = [EINVAL, 78, 45];

fn open(dir: &Path) -> Store {
    Store::open(dir).unwrap().unwrap()
}

fn faulty(dir: &Path, faults: &[(&'static str, i32)]) -> (Store, Arc<FaultyDisk>) {
    let disk = Arc::new(FaultyDisk::default());
    disk.set(faults);
    (Store::open_on(dir, disk.clone()).unwrap().unwrap(), disk)
}

#[test]
fn key_and_sequence_survive() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b");
    let store = open(&path);
    let key = store.key().unwrap();
    assert_eq!(store.key().unwrap().to_bytes(), key.to_bytes());
    store.check_key(&key).unwrap();
    let error = store.check_key(&SecretKey::generate()).unwrap_err();
    assert!(error.to_string().contains(&key.public().to_string()), "{error}");
    let far = unix_micros() + 1_000_000_000_000;
    assert!(store.reserve(far) && store.reserve(far + 1) && store.reserve(5));
    drop(store);
    let store = open(&path);
    assert_eq!(store.begin().0, far + 1);
    assert_eq!(store.key().unwrap().to_bytes(), key.to_bytes());
    assert!(store.damages().is_empty());
}

#[test]
fn files_of_earlier_releases_are_read() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(KEY), format!("{}\n", "07".repeat(32))).unwrap();
    fs::write(dir.path().join(SEQUENCE), "4000000000000000000\n").unwrap();
    fs::write(dir.path().join("lock"), "1\n").unwrap();
    let store = open(dir.path());
    assert_eq!(store.key().unwrap().to_bytes(), [7; 32]);
    assert_eq!(store.begin().0, 4_000_000_000_000_000_000);
    assert!(store.damages().is_empty());
}

#[test]
fn a_second_holder_is_refused_and_told_who_holds_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let message = Store::open(dir.path()).unwrap_err().to_string();
    assert!(message.ends_with(&format!("in use by process {}", std::process::id())), "{message}");
    drop(store);
    open(dir.path());
}

#[cfg(target_os = "linux")]
#[test]
fn a_lock_that_outlives_its_taker_names_both() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lock");
    // This process holds the lock, and the note in the file names one that has ended.
    let mut holder = std::process::Command::new("flock")
        .args(["-F", path.to_str().unwrap(), "sh", "-c", "echo ready; exec sleep 600"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    io::BufRead::read_line(&mut io::BufReader::new(holder.stdout.as_mut().unwrap()), &mut line)
        .unwrap();
    fs::write(&path, "999999999\n").unwrap();
    let error = Store::open(dir.path()).unwrap_err();
    holder.kill().unwrap();
    holder.wait().unwrap();
    let Error::StateDirInUse { holder: Some(found), ended: Some(999_999_999), .. } = error else {
        panic!("{error}")
    };
    assert_eq!(found, holder.id(), "{error}");
    assert!(error.to_string().contains("process 999999999, that has ended"), "{error}");
}

#[cfg(unix)]
#[test]
fn the_key_file_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let key = store.key().unwrap();
    let path = dir.path().join(KEY);
    let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(store.key().unwrap().to_bytes(), key.to_bytes());
    assert_eq!(mode(), 0o600);
}

#[test]
fn what_a_file_system_lacks_stops_no_start() {
    for operation in ["sync_dir", "sync", "try_lock", "protect"] {
        for code in LACKING {
            if operation.starts_with("sync") && code == LACKING[LACKING.len() - 1] {
                continue; // what only locks answer
            }
            let dir = tempfile::tempdir().unwrap();
            let (store, _) = faulty(dir.path(), &[(operation, code)]);
            let key = store.key().unwrap();
            assert!(store.reserve(u64::MAX >> 3), "{operation} {code}");
            assert!(store.problems().list().is_empty(), "{operation} {code}");
            drop(store);
            let (store, _) = faulty(dir.path(), &[(operation, code)]);
            assert_eq!(store.key().unwrap().to_bytes(), key.to_bytes());
        }
    }
}

#[test]
fn without_locks_the_note_of_a_living_process_stands_for_one() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = faulty(dir.path(), &[("try_lock", LACKING[0])]);
    let second = || {
        let disk = Arc::new(FaultyDisk::default());
        disk.set(&[("try_lock", LACKING[0])]);
        Store::open_on(dir.path(), disk)
    };
    if cfg!(target_os = "linux") {
        let error = second().unwrap_err().to_string();
        assert!(error.ends_with(&format!("by process {}", std::process::id())), "{error}");
    }
    drop(store);
    second().unwrap();
    fs::write(dir.path().join("lock"), "999999999 7 of-another-boot\n").unwrap();
    second().unwrap();
}

#[test]
fn a_disk_that_can_t_be_written_is_said_once_until_it_can() {
    for fault in [("create", EROFS), ("create", ENOSPC), ("write", ENOSPC), ("sync", EIO)] {
        let dir = tempfile::tempdir().unwrap();
        let (store, disk) = faulty(dir.path(), &[fault, ("open_lock", fault.1)]);
        let key = store.key().unwrap();
        let (sequence, reserved) = store.begin();
        assert!(sequence < reserved);
        // At the next start, the clock shows that these numbers are used.
        assert!(store.reserve(unix_micros() - 1));
        assert!(!store.reserve(unix_micros() + 3_600_000_000), "{fault:?}");
        assert!(!store.write_again());
        let problems = store.problems().list();
        assert_eq!(problems.len(), 1, "{fault:?}");
        assert!(problems[0].what.contains("can't be written"), "{problems:?}");
        disk.set(&[]);
        assert!(store.write_again());
        assert!(store.problems().list().is_empty());
        drop(store);
        let store = open(dir.path());
        assert_eq!(store.key().unwrap().to_bytes(), key.to_bytes());
        assert!(store.begin().0 >= reserved, "{fault:?}");
        assert!(store.damages().is_empty());
    }
}

#[test]
fn without_disk_and_clock_no_sequence_number_is_used_twice() {
    let dir = tempfile::tempdir().unwrap();
    let ahead = unix_micros() + 1_000_000_000_000;
    assert!(open(dir.path()).reserve(ahead));
    let mut lives = Vec::new();
    for _ in 0..8 {
        let (store, _) = faulty(dir.path(), &[("create", EROFS)]);
        let (sequence, reserved) = store.begin();
        assert!(sequence >= ahead && reserved - sequence >= FIRST_BLOCK);
        lives.push(sequence);
    }
    lives.sort_unstable();
    assert!(lives.windows(2).all(|pair| pair[1] - pair[0] > 1_000_000), "{lives:?}");
}

#[test]
fn a_directory_that_can_t_be_made_on_a_full_disk_is_done_without() {
    let dir = tempfile::tempdir().unwrap();
    for code in [EROFS, ENOSPC] {
        let disk = Arc::new(FaultyDisk::default());
        disk.set(&[("make_dir", code)]);
        assert!(Store::open_on(&dir.path().join("none"), disk.clone()).unwrap().is_none());
        // A directory that exists is used.
        assert!(Store::open_on(dir.path(), disk).unwrap().is_some());
    }
    let disk = Arc::new(FaultyDisk::default());
    disk.set(&[("make_dir", ENOENT)]);
    Store::open_on(&dir.path().join("none"), disk).unwrap_err();
}

#[test]
fn damage_is_set_aside_and_said() {
    let limit = (MAX_SEQUENCE + 1).to_string();
    for damaged in ["", "12x", "-1", "99999999999999999999", &limit, "\u{0}", "7\ncheck 00\n"] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(SEQUENCE), damaged).unwrap();
        fs::write(dir.path().join(KEY), damaged).unwrap();
        fs::write(dir.path().join(ENDPOINT), damaged).unwrap();
        let store = open(dir.path());
        let key = store.key().unwrap();
        assert!(store.begin().0 > 1_000_000);
        let damages = store.damages();
        assert_eq!(damages.len(), 3, "{damages:?}");
        for name in [SEQUENCE, KEY, ENDPOINT] {
            let aside = dir.path().join(format!("{name}.damaged"));
            assert_eq!(fs::read_to_string(aside).unwrap(), damaged);
            assert!(damages.iter().any(|damage| damage.starts_with(name)), "{damages:?}");
        }
        drop(store);
        let store = open(dir.path());
        assert_eq!(store.key().unwrap().to_bytes(), key.to_bytes());
        assert!(store.damages().is_empty());
    }
}

#[test]
fn directories_in_the_place_of_files_are_set_aside_again_and_again() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        for name in [SEQUENCE, KEY, ENDPOINT] {
            fs::remove_file(dir.path().join(name)).ok();
            fs::create_dir_all(dir.path().join(name).join("within")).unwrap();
        }
        let store = open(dir.path());
        store.key().unwrap();
        assert!(store.reserve(u64::MAX >> 3));
        assert_eq!(store.damages().len(), 3);
        for name in fs::read_dir(dir.path()).unwrap().flatten() {
            if name.file_name().to_str().unwrap().contains("damaged.") {
                fs::remove_dir_all(name.path()).unwrap();
            }
        }
    }
}

#[test]
fn a_key_that_changed_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let key = store.key().unwrap();
    store.keep_bound(key.public().to_string(), Vec::new());
    drop(store);
    fs::write(dir.path().join(KEY), "07".repeat(32)).unwrap();
    let store = open(dir.path());
    assert_eq!(store.key().unwrap().to_bytes(), [7; 32]);
    store.check_key(&SecretKey::from_bytes(&[7; 32])).unwrap();
    assert_eq!(store.damages().len(), 1);
    assert!(store.damages()[0].contains(&key.public().to_string()));
}

#[test]
fn the_last_ports_survive() {
    let dir = tempfile::tempdir().unwrap();
    let bound: Vec<SocketAddr> =
        vec!["0.0.0.0:4433".parse().unwrap(), "[::]:4434".parse().unwrap()];
    open(dir.path()).keep_bound("id".to_owned(), bound.clone());
    assert_eq!(open(dir.path()).last_bound(), bound);
}

#[test]
fn a_leftover_temporary_file_does_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("sequence.tmp"), "9").unwrap();
    assert!(open(dir.path()).reserve(u64::MAX >> 3));
    assert_eq!(open(dir.path()).begin().0, u64::MAX >> 3);
}

#[test]
fn a_path_that_is_a_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, "").unwrap();
    let message = Store::open(&path).unwrap_err().to_string();
    assert!(message.contains("file: is no directory"), "{message}");
}

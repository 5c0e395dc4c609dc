//! The state directory: the key of the endpoint, the reserved sequence numbers, and the lock on
//! both.
//!
//! Every write goes to a temporary file that is synced and renamed. So a crash leaves either the
//! old content or the new one. All functions block: call them outside the runtime's workers.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use data_encoding::HEXLOWER;
use iroh::SecretKey;
use tracing::warn;

use crate::{error::Error, proto::MAX_SEQUENCE};

const LOCK: &str = "lock";
const KEY: &str = "secret.key";
const SEQUENCE: &str = "sequence";

/// An open state directory. It holds the lock until it is dropped.
#[derive(Debug)]
pub(crate) struct Store {
    dir: PathBuf,
    lock: File,
    /// The reservation on disk. A reservation that another one overtook must not lower it.
    reserved: Mutex<u64>,
    /// Every sequence number below this one may have been used.
    pub(crate) sequence: u64,
}

impl Store {
    /// Opens a state directory, and creates it if it is missing.
    ///
    /// # Errors
    /// [`Error::StateDirInUse`] while another node holds it; [`Error::StateDir`] if it can't be
    /// read or written.
    pub(crate) fn open(dir: &Path) -> Result<Self, Error> {
        make_dir(dir).map_err(|error| failed(dir, &error))?;
        let lock = lock(dir)?;
        let sequence = read_sequence(dir)?;
        Ok(Self { dir: dir.to_owned(), lock, reserved: Mutex::new(sequence), sequence })
    }

    /// Returns the key that is kept here. The first time, it creates one.
    pub(crate) fn key(&self) -> Result<SecretKey, Error> {
        if let Some(key) = self.stored_key()? {
            return Ok(key);
        }
        let key = SecretKey::generate();
        let path = self.dir.join(KEY);
        let text = format!("{}\n", HEXLOWER.encode(&key.to_bytes()));
        write_atomically(&path, text.as_bytes()).map_err(|error| failed(&path, &error))?;
        Ok(key)
    }

    /// Fails if another key than this one is kept here.
    pub(crate) fn check_key(&self, key: &SecretKey) -> Result<(), Error> {
        match self.stored_key()? {
            Some(stored) if stored.to_bytes() != key.to_bytes() => Err(Error::StateDir {
                path: self.dir.join(KEY),
                reason: format!(
                    "holds the key of {}, the secret key given is that of {}",
                    stored.public(),
                    key.public()
                ),
            }),
            _ => Ok(()),
        }
    }

    /// Records that every sequence number below `end` may be used.
    pub(crate) fn reserve(&self, end: u64) -> Result<(), Error> {
        let path = self.dir.join(SEQUENCE);
        // Requests may overtake each other, and they share the temporary file.
        let mut reserved = self.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        if end > *reserved {
            write_atomically(&path, format!("{end}\n").as_bytes())
                .map_err(|error| failed(&path, &error))?;
            *reserved = end;
        }
        Ok(())
    }

    fn stored_key(&self) -> Result<Option<SecretKey>, Error> {
        let path = self.dir.join(KEY);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(&path, &error)),
        };
        protect(&path).map_err(|error| failed(&path, &error))?;
        let bytes = HEXLOWER.decode(text.trim().as_bytes()).ok();
        match bytes.as_deref().and_then(|bytes| <&[u8; 32]>::try_from(bytes).ok()) {
            Some(bytes) => Ok(Some(SecretKey::from_bytes(bytes))),
            None => Err(Error::StateDir {
                path,
                reason: "does not hold a secret key (64 lower-case hex digits); \
                         restore it, or remove it to start with a new identity"
                    .to_owned(),
            }),
        }
    }
}

fn failed(path: &Path, error: &io::Error) -> Error {
    Error::StateDir { path: path.to_owned(), reason: error.to_string() }
}

fn make_dir(dir: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

fn lock(dir: &Path) -> Result<File, Error> {
    let path = dir.join(LOCK);
    let mut file = private()
        .read(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|error| failed(&path, &error))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // The holder is only for the message. If it can't be read, the message does not name
            // it.
            let _ = file.take(20).read_to_string(&mut holder);
            let holder = holder.trim().parse().ok();
            return Err(Error::StateDirInUse { path: dir.to_owned(), holder });
        }
        Err(TryLockError::Error(error)) => return Err(failed(&path, &error)),
    }
    let note = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    note(&mut file).map_err(|error| failed(&path, &error))?;
    Ok(file)
}

/// Reads the sequence number. A damaged file is set aside, and numbers start at the clock. That is
/// above all used ones, unless the clock went back.
fn read_sequence(dir: &Path) -> Result<u64, Error> {
    let path = dir.join(SEQUENCE);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(failed(&path, &error)),
    };
    let sequence = std::str::from_utf8(&bytes).ok().and_then(|text| text.trim().parse().ok());
    // The limit itself means that all numbers are used.
    if let Some(sequence) = sequence.filter(|sequence| *sequence <= MAX_SEQUENCE) {
        return Ok(sequence);
    }
    let aside = dir.join("sequence.damaged");
    fs::rename(&path, &aside).map_err(|error| failed(&path, &error))?;
    warn!(path = %aside.display(), "damaged sequence file set aside");
    Ok(0)
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Makes a key file readable by its owner only.
fn protect(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(path)?.permissions().mode();
        if mode & 0o077 != 0 {
            let mode = format!("{:o}", mode & 0o777);
            warn!(path = %path.display(), mode, "key file was open to others; now 600");
            fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        }
    }
    Ok(())
}

/// Writes a file as a whole. Only the holder of the lock writes, so the temporary name is free.
fn write_atomically(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    // Removes what a crash may have left, whatever its mode is.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = private().create_new(true).open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    #[cfg(unix)]
    if let Some(dir) = path.parent() {
        File::open(dir)?.sync_all()?;
    }
    Ok(())
}

impl Drop for Store {
    fn drop(&mut self) {
        // Unlocked explicitly, because a forked child shares the lock and would keep it. If this
        // fails, the lock ends with the process.
        let _ = self.lock.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_and_sequence_survive() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let store = Store::open(&path).unwrap();
        assert_eq!(store.sequence, 0);
        let key = store.key().unwrap();
        assert_eq!(store.key().unwrap().to_bytes(), key.to_bytes());
        store.check_key(&key).unwrap();
        let error = store.check_key(&SecretKey::generate()).unwrap_err();
        assert!(error.to_string().contains(&key.public().to_string()), "{error}");
        store.reserve(77).unwrap();
        store.reserve(78).unwrap();
        store.reserve(5).unwrap();
        drop(store);
        let store = Store::open(&path).unwrap();
        assert_eq!(store.sequence, 78);
        assert_eq!(store.key().unwrap().to_bytes(), key.to_bytes());
    }

    #[test]
    fn a_second_holder_is_refused_and_told_who_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let message = Store::open(dir.path()).unwrap_err().to_string();
        assert!(message.contains(&format!("by process {}", std::process::id())), "{message}");
        drop(store);
        Store::open(dir.path()).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn the_key_file_is_for_its_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let key = store.key().unwrap();
        let path = dir.path().join(KEY);
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(), 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(store.key().unwrap().to_bytes(), key.to_bytes());
        assert_eq!(mode(), 0o600);
    }

    #[test]
    fn damage_is_named_or_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        for damaged in ["", "12x", "-1", "99999999999999999999", "4611686018427387905", "\u{0}"] {
            fs::write(dir.path().join(SEQUENCE), damaged).unwrap();
            assert_eq!(Store::open(dir.path()).unwrap().sequence, 0, "{damaged:?}");
            assert_eq!(fs::read_to_string(dir.path().join("sequence.damaged")).unwrap(), damaged);
        }
        fs::write(dir.path().join(KEY), "abc").unwrap();
        let message = Store::open(dir.path()).unwrap().key().unwrap_err().to_string();
        assert!(message.contains(KEY) && message.contains("64 lower-case hex"), "{message}");
    }

    #[test]
    fn a_leftover_temporary_file_does_no_harm() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("sequence.tmp"), "9").unwrap();
        let store = Store::open(dir.path()).unwrap();
        store.reserve(5).unwrap();
        drop(store);
        assert_eq!(Store::open(dir.path()).unwrap().sequence, 5);
    }

    #[test]
    fn a_path_that_is_a_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "").unwrap();
        let message = Store::open(&path).unwrap_err().to_string();
        assert!(message.contains("file"), "{message}");
    }
}

//! The state directory: the key of the endpoint, the reserved sequence numbers, the last ports, the
//! access lists, the kept books, and the lock on all that.
//!
//! A disk that is full or read-only stops nothing. What can't be written stays in memory, is
//! reported once, and is tried again. All functions block, so call them off the runtime.

mod books;
mod disk;
mod files;
mod frames;
mod ledger;
mod lock;

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use data_encoding::HEXLOWER;
use iroh::SecretKey;
use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use tracing::warn;

use crate::{
    access::Marks,
    error::Error,
    problems::Problems,
    proto::{EndpointId, MAX_SEQUENCE, Revocation, TopicId},
};

use self::{
    books::Books,
    disk::{Disk, RealDisk},
    files::Files,
    lock::Lock,
};

#[cfg(test)]
pub(crate) use self::fuzz::fuzz;
pub(crate) use self::ledger::Change;

const KEY: &str = "secret.key";
const SEQUENCE: &str = "sequence";
const ENDPOINT: &str = "endpoint";
const ACCESS: &str = "access";
/// The source of problems with the disk, as the application sees it.
const PROBLEM: &str = "state directory";
/// Sequence numbers that are reserved at the start, so that the first announcement waits for no
/// disk.
const FIRST_BLOCK: u64 = 8192;
/// If neither the disk nor the clock shows which numbers were used, a life begins at a random
/// number within [`JUMP`] above the last one. It may use [`JUMP_BLOCK`] numbers.
const JUMP: u64 = 1 << 40;
const JUMP_BLOCK: u64 = 1 << 32;

/// An open state directory, which holds its lock.
#[derive(Debug)]
pub(crate) struct Store {
    files: Files,
    problems: Problems,
    inner: Mutex<Inner>,
    pub(crate) books: Books,
    /// Notified when there is something to write, or to try again.
    wake: Notify,
    _lock: Lock,
}

#[derive(Debug, Default)]
struct Inner {
    /// The disk says that every sequence number below this one may have been used.
    reserved: u64,
    /// What the disk should say. It is above `reserved` while the disk can't be written.
    wanted: u64,
    /// A new key that is not on disk.
    key: Option<SecretKey>,
    /// The last ports and the id that bound them, as on disk, and as they should be there.
    endpoint: Endpoint,
    new_endpoint: Option<Endpoint>,
    /// The peers that are allowed and denied, as on disk, and as they should be there.
    marks: Marks,
    new_marks: Option<Marks>,
}

/// What is kept of the endpoint over a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Endpoint {
    /// The id of the key, by which a key file that was replaced or damaged is noticed.
    id: Option<String>,
    bound: Vec<SocketAddr>,
}

impl Store {
    /// Opens a state directory, and makes it if it is missing. `None` if the disk has no room for
    /// it, or is read-only; then nothing is kept.
    ///
    /// # Errors
    /// [`Error::StateDirInUse`] while another node holds it; [`Error::StateDir`] if it can't be
    /// read, or if the marks of the allow and deny lists are damaged.
    pub(crate) fn open(dir: &Path) -> Result<Option<Self>, Error> {
        Self::open_on(dir, Arc::new(RealDisk))
    }

    fn open_on(dir: &Path, disk: Arc<dyn Disk>) -> Result<Option<Self>, Error> {
        // The working directory may change while the node runs.
        let dir = &std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
        let files = Files::new(dir, disk);
        match files.disk().make_dir(dir) {
            Err(error) if disk::is_unwritable(&error) && !dir.exists() => {
                let path = dir.display();
                warn!(%path, reason = %error, "the state directory can't be made: nothing is kept");
                return Ok(None);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && !dir.is_dir() => {
                let reason = "is no directory, or leads to none".to_owned();
                return Err(Error::StateDir { path: dir.clone(), reason });
            }
            // A directory that exists on a full disk is used.
            Err(error) if !dir.is_dir() => return Err(failed(dir, &error)),
            _ => {}
        }
        let lock = Lock::take(&files)?;
        let reserved = read_sequence(&files);
        let endpoint = read_endpoint(&files);
        let marks = read_marks(&files)?;
        let inner = Inner { reserved, wanted: reserved, endpoint, marks, ..Inner::default() };
        Ok(Some(Self {
            books: Books::new(files.clone()),
            files,
            problems: Problems::default(),
            inner: Mutex::new(inner),
            wake: Notify::new(),
            _lock: lock,
        }))
    }

    /// Returns the list that problems with the disk are added to.
    pub(crate) fn problems(&self) -> Problems {
        self.problems.clone()
    }

    /// Returns what was found to be damaged, and what was done about it.
    pub(crate) fn damages(&self) -> Vec<String> {
        self.files.damages()
    }

    /// Returns the key that is kept here, or makes one the first time.
    pub(crate) fn key(&self) -> Result<SecretKey, Error> {
        if let Some(key) = self.stored_key()? {
            return Ok(key);
        }
        let mut inner = self.lock();
        let key = inner.key.get_or_insert_with(SecretKey::generate).clone();
        self.write_all(&mut inner);
        Ok(key)
    }

    /// Fails if another key than this one is kept here.
    pub(crate) fn check_key(&self, key: &SecretKey) -> Result<(), Error> {
        match self.stored_key()? {
            Some(stored) if stored.to_bytes() != key.to_bytes() => Err(Error::StateDir {
                path: self.files.path(KEY),
                reason: format!(
                    "holds the key of {}, the secret key given is that of {}",
                    stored.public(),
                    key.public()
                ),
            }),
            _ => Ok(()),
        }
    }

    /// Returns the first sequence number of this life, and the end of those that are reserved for
    /// it.
    pub(crate) fn begin(&self) -> (u64, u64) {
        let clock = unix_micros();
        let mut inner = self.lock();
        let last = inner.reserved;
        let sequence = last.max(clock);
        let reserved = (sequence + FIRST_BLOCK).min(MAX_SEQUENCE);
        inner.wanted = reserved;
        if self.write_all(&mut inner) || last <= clock {
            // If the disk does not say at the next start that the numbers are used, the clock does.
            return (sequence, reserved);
        }
        // At the next start, neither the disk nor the clock will say so.
        let jump = getrandom::u64().unwrap_or(0) % JUMP;
        let sequence = (last + jump).min(MAX_SEQUENCE - 1);
        let reserved = (sequence + JUMP_BLOCK).min(MAX_SEQUENCE);
        inner.wanted = reserved;
        (sequence, reserved)
    }

    /// Writes that every sequence number below `end` may be used. Returns false if that failed, and
    /// the clock will not show it either.
    pub(crate) fn reserve(&self, end: u64) -> bool {
        let mut inner = self.lock();
        // Requests overtake each other, and share the temporary file.
        inner.wanted = inner.wanted.max(end);
        self.write_all(&mut inner) || end <= unix_micros()
    }

    /// Returns the ports that were bound last.
    pub(crate) fn last_bound(&self) -> Vec<SocketAddr> {
        self.lock().endpoint.bound.clone()
    }

    /// Keeps which ports are bound.
    pub(crate) fn keep_bound(&self, id: String, bound: Vec<SocketAddr>) {
        let mut inner = self.lock();
        let endpoint = Endpoint { id: Some(id), bound };
        inner.new_endpoint = (endpoint != inner.endpoint).then_some(endpoint);
        self.write_all(&mut inner);
    }

    /// Returns the peers that were allowed and denied while the node ran.
    pub(crate) fn marks(&self) -> Marks {
        self.lock().marks.clone()
    }

    /// Keeps which peers are allowed and denied.
    pub(crate) fn keep_marks(&self, marks: Marks) {
        let mut inner = self.lock();
        inner.new_marks = (marks != inner.marks).then_some(marks);
        self.write_all(&mut inner);
    }

    /// Writes what is not written. Returns true if nothing is left.
    pub(crate) fn write_again(&self) -> bool {
        if let Err(error) = self.books.write() {
            self.unwritable(&error);
            return false;
        }
        self.write_all(&mut self.lock())
    }

    /// Writes the small files. Returns true if nothing of them is left.
    fn write_all(&self, inner: &mut Inner) -> bool {
        let written = self.write(inner);
        match &written {
            Ok(()) if self.books.is_written() => self.problems.clear(PROBLEM),
            Ok(()) => {}
            Err(error) => self.unwritable(error),
        }
        written.is_ok()
    }

    /// Notes a change of a member of a topic, which is written soon.
    pub(crate) fn note(&self, topic: TopicId, member: EndpointId, change: Change) {
        self.books.note(topic, member, change);
        self.wake.notify_one();
    }

    /// Requests a write although no member changed.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    fn unwritable(&self, error: &io::Error) {
        let dir = self.files.dir.display();
        let what =
            format!("{dir} can't be written ({error}): what is new stays in memory till then");
        self.problems.raise(PROBLEM, what);
        self.wake.notify_one();
    }

    /// Resolves once there is something to write. One caller at a time.
    pub(crate) async fn changed(&self) {
        self.wake.notified().await;
    }

    fn write(&self, inner: &mut Inner) -> io::Result<()> {
        if inner.wanted > inner.reserved {
            self.files.replace(SEQUENCE, sequence_text(inner.wanted).as_bytes())?;
            inner.reserved = inner.wanted;
        }
        if let Some(key) = &inner.key {
            let text = format!("{}\n", HEXLOWER.encode(&key.to_bytes()));
            self.files.replace(KEY, text.as_bytes())?;
            inner.key = None;
        }
        if let Some(endpoint) = &inner.new_endpoint {
            self.files.replace(ENDPOINT, endpoint_text(endpoint).as_bytes())?;
            inner.endpoint = endpoint.clone();
            inner.new_endpoint = None;
        }
        if let Some(marks) = &inner.new_marks {
            self.files.replace(ACCESS, marks_text(marks).as_bytes())?;
            inner.marks = marks.clone();
            inner.new_marks = None;
        }
        Ok(())
    }

    fn stored_key(&self) -> Result<Option<SecretKey>, Error> {
        let path = self.files.path(KEY);
        let content = match self.files.read(KEY) {
            Ok(Some(content)) => content,
            Ok(None) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                self.new_identity(&error.to_string());
                return Ok(None);
            }
            // A key file that can't be read now must not be replaced by another key.
            Err(error) => return Err(failed(&path, &error)),
        };
        match self.files.disk().protect(&path) {
            Ok(None) => {}
            Ok(Some(mode)) => {
                let (path, mode) = (path.display(), format!("{mode:o}"));
                warn!(%path, mode, "key file was open to others; now 600");
            }
            Err(error) => self.files.lacks("modes: others may read the key file", &error),
        }
        let digits = std::str::from_utf8(&content).unwrap_or_default().trim();
        let bytes = HEXLOWER.decode(digits.as_bytes()).ok();
        let Some(bytes) = bytes.as_deref().and_then(|bytes| <&[u8; 32]>::try_from(bytes).ok())
        else {
            self.new_identity("it does not hold a secret key, which is 64 lower-case hex digits");
            return Ok(None);
        };
        let key = SecretKey::from_bytes(bytes);
        let (id, before) = (key.public().to_string(), self.lock().endpoint.id.clone());
        if let Some(before) = before.filter(|before| *before != id) {
            self.files.damaged(format!(
                "{KEY} holds the key of {id}, and held that of {before} before: it was \
                 replaced, or is damaged"
            ));
            self.lock().endpoint.id = Some(id);
        }
        Ok(Some(key))
    }

    fn new_identity(&self, reason: &str) {
        self.files.set_aside(KEY, "secret.key.damaged", reason, "this node has a new identity");
        self.lock().endpoint.id = None;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Fields are updated after the files were written, so they are true after a panic too.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn failed(path: &Path, error: &io::Error) -> Error {
    Error::StateDir { path: PathBuf::from(path), reason: error.to_string() }
}

/// Returns the time of this machine's clock, in microseconds since 1970.
pub(crate) fn unix_micros() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| u64::try_from(since.as_micros()).ok())
        .map_or(0, |micros| micros.min(MAX_SEQUENCE / 2))
}

/// Adds the checksum of a text as its last line.
fn checked(text: &str) -> String {
    format!("{text}check {}\n", HEXLOWER.encode(&Sha256::digest(text)[..8]))
}

/// Returns the text before the checksum, if the checksum is right.
fn verified(content: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(content).ok()?;
    let at = text.trim_end().rfind('\n')? + 1;
    (checked(&text[..at]) == text).then_some(&text[..at])
}

fn sequence_text(end: u64) -> String {
    checked(&format!("{end}\n"))
}

/// Reads the sequence number up to which all may be used. A damaged file is set aside, because the
/// clock is above all numbers that were used, unless it was set back.
fn read_sequence(files: &Files) -> u64 {
    let reason = match files.read(SEQUENCE) {
        Ok(None) => return 0,
        Ok(Some(content)) => {
            let text = std::str::from_utf8(&content).unwrap_or_default();
            // Earlier releases wrote no checksum.
            let number = if text.lines().count() == 1 { Some(text) } else { verified(&content) };
            let number = number.and_then(|number| number.trim().parse().ok());
            // The limit itself is allowed, and says that all numbers are used.
            if let Some(number) = number.filter(|number| *number <= MAX_SEQUENCE) {
                return number;
            }
            "it holds no sequence number with its checksum".to_owned()
        }
        Err(error) => error.to_string(),
    };
    let so = "sequence numbers go on from the clock";
    files.set_aside(SEQUENCE, "sequence.damaged", &reason, so);
    0
}

fn endpoint_text(endpoint: &Endpoint) -> String {
    let id = endpoint.id.iter().map(|id| format!("id {id}\n"));
    let bound = endpoint.bound.iter().map(|address| format!("bound {address}\n"));
    checked(&id.chain(bound).collect::<String>())
}

fn read_endpoint(files: &Files) -> Endpoint {
    let reason = match files.read(ENDPOINT) {
        Ok(None) => return Endpoint::default(),
        Ok(Some(content)) => match verified(&content) {
            Some(text) => {
                let id = text.lines().find_map(|line| line.strip_prefix("id ").map(str::to_owned));
                let bound = text.lines().filter_map(|line| line.strip_prefix("bound "));
                return Endpoint { id, bound: bound.filter_map(|at| at.parse().ok()).collect() };
            }
            None => "its checksum is wrong".to_owned(),
        },
        Err(error) => error.to_string(),
    };
    files.set_aside(ENDPOINT, "endpoint.damaged", &reason, "other ports may be bound");
    Endpoint::default()
}

fn marks_text(marks: &Marks) -> String {
    let allow = marks.allow.iter().map(|id| format!("allow {id}\n"));
    let deny = marks.deny.iter().map(|id| format!("deny {id}\n"));
    let revoked = marks.revoked.values().map(|revocation| format!("revoked {revocation}\n"));
    checked(&allow.chain(deny).chain(revoked).collect::<String>())
}

/// Reads the allow and deny lists, and the revocations. A damaged file stops the start, because
/// without it a peer that was denied would get in again.
fn read_marks(files: &Files) -> Result<Marks, Error> {
    let reason = match files.read(ACCESS) {
        Ok(None) => return Ok(Marks::default()),
        Ok(Some(content)) => match verified(&content).map(parse_marks) {
            Some(Some(marks)) => return Ok(marks),
            Some(None) => "it holds a line that is no mark".to_owned(),
            None => "its checksum is wrong".to_owned(),
        },
        // If it is no file or too large, it is damaged too.
        Err(error) if error.kind() == io::ErrorKind::InvalidData => error.to_string(),
        Err(error) => return Err(failed(&files.path(ACCESS), &error)),
    };
    let reason = format!(
        "is damaged ({reason}), and it says which peers are denied: restore it, or remove it to \
         start without its marks"
    );
    Err(Error::StateDir { path: files.path(ACCESS), reason })
}

fn parse_marks(text: &str) -> Option<Marks> {
    let mut marks = Marks::default();
    for line in text.lines() {
        let (list, id) = line.split_once(' ')?;
        if list == "revoked" {
            let revocation: Revocation = id.parse().ok()?;
            marks.revoked.insert(revocation.member, revocation);
            continue;
        }
        let list = match list {
            "allow" => &mut marks.allow,
            "deny" => &mut marks.deny,
            _ => return None,
        };
        list.insert(id.parse().ok()?);
    }
    Some(marks)
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod kills;
#[cfg(test)]
mod tests;

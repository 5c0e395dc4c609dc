//! The lock on a state directory, and what can be known about the process that holds it.
//!
//! The lock belongs to an open file, which a forked child shares. So it lasts until parent and
//! child have closed it, and the package for Python closes it in each child. If the file system has
//! no locks, the note in the file replaces them. It names the process, so a process that has ended
//! holds nothing.

use std::{
    fs::{self, File, TryLockError},
    io::{Read, Seek, Write},
    path::Path,
};

use super::files::Files;
use crate::error::Error;

const LOCK: &str = "lock";

/// A held lock. Dropping it releases it.
#[derive(Debug)]
pub(crate) struct Lock {
    file: Option<File>,
    locked: bool,
}

impl Lock {
    /// Takes the lock of a state directory.
    ///
    /// # Errors
    /// [`Error::StateDirInUse`] if another node holds it. If the file system lacks what a lock
    /// needs, a warning says so and nothing is locked.
    pub(crate) fn take(files: &Files) -> Result<Self, Error> {
        let path = files.path(LOCK);
        // On a read-only disk, an existing file can be locked, and so can the directory.
        let opened = files.disk().open_lock(&path);
        let (mut file, writable) = match opened {
            Ok(file) => (file, true),
            Err(error) => {
                let Ok(file) = File::open(&path).or_else(|_| File::open(&files.dir)) else {
                    files.lacks("a file to lock: make sure that one node uses it", &error);
                    return Ok(Self { file: None, locked: false });
                };
                (file, false)
            }
        };
        let locked = match files.disk().try_lock(&file) {
            Ok(()) => true,
            Err(TryLockError::WouldBlock) => return Err(in_use(files, &file)),
            Err(TryLockError::Error(error)) => {
                files.lacks("locks: make sure that one node uses it", &error);
                let taker = Note::read(&file);
                if let Some(taker) = taker.filter(Note::is_alive_here) {
                    let (path, holder) = (files.dir.clone(), Some(taker.process));
                    return Err(Error::StateDirInUse { path, holder, ended: None });
                }
                false
            }
        };
        if writable {
            // The note serves only for messages, and if there are no locks. So it does no harm if a
            // full disk has no room for it.
            let _ = Note::of_this_process().write(&mut file);
        }
        Ok(Self { file: Some(file), locked })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let Some(file) = &mut self.file else { return };
        if self.locked {
            // A forked child shares the lock, and would keep it. If the unlock fails, the lock ends
            // with the processes.
            let _ = file.unlock();
        } else {
            let _ = file.set_len(0);
        }
    }
}

fn in_use(files: &Files, file: &File) -> Error {
    let taker = Note::read(file);
    let (alive, ended) = match taker {
        Some(note) if note.is_alive() => (Some(note.process), None),
        Some(note) => (None, Some(note.process)),
        None => (None, None),
    };
    let holder = alive.or_else(|| holder_of(file));
    Error::StateDirInUse { path: files.dir.clone(), holder, ended }
}

/// The note that the process which took the lock wrote into the file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Note {
    process: u32,
    /// When the process began, and the boot of the machine, which distinguish it from a later
    /// process with its number. `None` if the system has no /proc.
    started: Option<(String, String)>,
}

impl Note {
    fn of_this_process() -> Self {
        let process = std::process::id();
        Self { process, started: started(process) }
    }

    fn read(mut file: &File) -> Option<Self> {
        let mut text = String::new();
        file.rewind().ok()?;
        file.take(256).read_to_string(&mut text).ok()?;
        let mut words = text.split_whitespace();
        let process = words.next()?.parse().ok()?;
        let started = words.next().zip(words.next());
        Some(Self { process, started: started.map(|(at, boot)| (at.to_owned(), boot.to_owned())) })
    }

    fn write(&self, file: &mut File) -> std::io::Result<()> {
        file.set_len(0)?;
        file.rewind()?;
        match &self.started {
            Some((at, boot)) => writeln!(file, "{} {at} {boot}", self.process),
            None => writeln!(file, "{}", self.process),
        }
    }

    /// Returns true if the process runs, or if that can't be seen.
    fn is_alive(&self) -> bool {
        let now = started(self.process);
        match &self.started {
            Some(_) => now == self.started,
            None => now.is_some() || !can_see_processes(),
        }
    }

    /// Returns true if the process certainly runs on this machine.
    fn is_alive_here(&self) -> bool {
        self.started.is_some() && self.is_alive()
    }
}

fn can_see_processes() -> bool {
    Path::new("/proc/self/stat").exists() == cfg!(target_os = "linux") && cfg!(target_os = "linux")
}

/// Returns when a process began, in ticks since the boot, and the id of the boot.
fn started(process: u32) -> Option<(String, String)> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name of the program, in parentheses, may have any character in it.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    // A zombie holds nothing.
    if fields.next()? == "Z" {
        return None;
    }
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some((fields.nth(18)?.to_owned(), boot.trim().to_owned()))
}

/// Returns a process other than this one that has the file open, if one can be seen.
#[cfg(target_os = "linux")]
fn holder_of(file: &File) -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    let wanted = file.metadata().ok()?;
    let is_it = |at: &Path| {
        fs::metadata(at).is_ok_and(|it| (it.dev(), it.ino()) == (wanted.dev(), wanted.ino()))
    };
    let has_it = |process: &u32| {
        let descriptors = fs::read_dir(format!("/proc/{process}/fd"));
        descriptors.is_ok_and(|all| all.flatten().any(|at| is_it(&at.path())))
    };
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter(|process| *process != std::process::id()).find(has_it)
}

#[cfg(not(target_os = "linux"))]
fn holder_of(_: &File) -> Option<u32> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_tells_a_process_from_a_later_one_of_its_number() {
        let mut file = tempfile::tempfile().unwrap();
        let note = Note::of_this_process();
        note.write(&mut file).unwrap();
        assert_eq!(Note::read(&file), Some(note.clone()));
        assert!(note.is_alive());
        if cfg!(target_os = "linux") {
            let (_, boot) = note.started.clone().unwrap();
            let other = Note { started: Some(("1".into(), boot)), ..note };
            assert!(!other.is_alive() && !other.is_alive_here());
        }
    }
}

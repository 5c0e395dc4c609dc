//! The files of a state directory: written whole or not at all, set aside if they are damaged.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use tracing::warn;

use super::disk::{self, Disk};

/// The files of one state directory. Clones are handles of the same files.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    pub(crate) dir: PathBuf,
    disk: Arc<dyn Disk>,
    /// What the file system lacks, as far as warnings said so.
    lacks: Arc<Mutex<BTreeSet<&'static str>>>,
    /// What was damaged, as far as warnings said so.
    damages: Arc<Mutex<Vec<String>>>,
}

impl Files {
    pub(crate) fn new(dir: &Path, disk: Arc<dyn Disk>) -> Self {
        Self { dir: dir.to_owned(), disk, lacks: Arc::default(), damages: Arc::default() }
    }

    pub(crate) fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Warns once that the file system lacks something.
    pub(crate) fn lacks(&self, what: &'static str, error: &io::Error) {
        let mut lacks = self.lacks.lock().unwrap_or_else(PoisonError::into_inner);
        if lacks.insert(what) {
            warn!(path = %self.dir.display(), reason = %error, "the file system lacks {what}");
        }
    }

    /// Reads a file. `None` if there is none.
    pub(crate) fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match self.disk.read(&self.path(name)) {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces a file. After a crash, it has either the old content or the new one.
    ///
    /// Only the holder of the lock writes, so no other process uses the temporary name.
    pub(crate) fn replace(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let (path, temporary) = (self.path(name), self.path(&format!("{name}.tmp")));
        // A crash may have left this file, with any mode.
        self.remove(&temporary)?;
        let written = self.disk.create(&temporary).and_then(|mut file| {
            self.disk.write(&mut file, content)?;
            self.sync(&file)
        });
        if let Err(error) = written {
            // On a full disk, this makes room for smaller files.
            let _ = self.disk.remove(&temporary);
            return Err(error);
        }
        self.disk.rename(&temporary, &path)?;
        self.sync_dir()
    }

    /// Removes a file, if it is there.
    pub(crate) fn remove(&self, path: &Path) -> io::Result<()> {
        match self.disk.remove(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    pub(crate) fn sync(&self, file: &std::fs::File) -> io::Result<()> {
        self.unless_lacking("fsync: a power cut may lose what was written", self.disk.sync(file))
    }

    pub(crate) fn sync_dir(&self) -> io::Result<()> {
        let synced = self.disk.sync_dir(&self.dir);
        self.unless_lacking("fsync of directories: a power cut may undo a renaming", synced)
    }

    fn unless_lacking(&self, what: &'static str, result: io::Result<()>) -> io::Result<()> {
        match result {
            Err(error) if disk::is_lacking(&error) => {
                self.lacks(what, &error);
                Ok(())
            }
            result => result,
        }
    }

    /// Renames a damaged file, over one that was set aside before, and warns why.
    pub(crate) fn set_aside(&self, name: &str, aside: &str, reason: &str, so: &str) {
        let (path, to) = (self.path(name), self.path(aside));
        let moved = self.disk.rename(&path, &to).or_else(|error| {
            // The name is that of a directory, which a file can't replace.
            if to.is_dir() {
                let other = self.path(&format!("{aside}.{}", std::process::id()));
                return self.disk.rename(&path, &other);
            }
            Err(error)
        });
        let place = match moved {
            Ok(()) => format!("and set aside as {aside}"),
            Err(error) => format!("and can't be set aside ({error})"),
        };
        self.damaged(format!("{name} is damaged ({reason}) {place}: {so}"));
    }

    /// Warns that something is damaged, once for each reason.
    pub(crate) fn damaged(&self, reason: String) {
        let mut damages = self.damages.lock().unwrap_or_else(PoisonError::into_inner);
        if !damages.contains(&reason) {
            warn!(path = %self.dir.display(), "{reason}");
            damages.push(reason);
        }
    }

    /// Returns what was damaged so far.
    pub(crate) fn damages(&self) -> Vec<String> {
        self.damages.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

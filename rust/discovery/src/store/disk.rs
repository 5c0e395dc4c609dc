//! What a disk offers to the state directory, and what some file systems lack.
//!
//! It is a trait, so that tests can use a disk that is full, is read-only or lacks an operation.

use std::{
    fmt::Debug,
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    path::Path,
};

/// The largest file that is read, in bytes. Only the kept books are large.
const MAX_FILE: u64 = 512 * 1024 * 1024;

/// The operations on files that may fail in their own ways.
pub(crate) trait Disk: Debug + Send + Sync {
    /// Makes a directory for its owner only, and those above it if they are missing.
    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        let mut builder = DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(dir)
    }

    /// Reads a file. The error is [`io::ErrorKind::InvalidData`] if it is no file, or too large.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what);
        // A read from a pipe would wait.
        let about = fs::metadata(path)?;
        if !about.is_file() {
            return Err(invalid("is no file"));
        }
        if about.len() > MAX_FILE {
            return Err(invalid("is larger than 512 MiB"));
        }
        let mut content = Vec::new();
        File::open(path)?.take(MAX_FILE).read_to_end(&mut content)?;
        Ok(content)
    }

    /// Opens a new file, for its owner only.
    fn create(&self, path: &Path) -> io::Result<File> {
        private().create_new(true).open(path)
    }

    /// Opens a file to append to it; makes it if it is missing.
    fn append(&self, path: &Path) -> io::Result<File> {
        private().create(true).append(true).open(path)
    }

    fn write(&self, file: &mut File, content: &[u8]) -> io::Result<()> {
        file.write_all(content)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        #[cfg(unix)]
        File::open(dir)?.sync_all()?;
        #[cfg(not(unix))]
        let _ = dir;
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    /// Opens the file to lock, for writing. It is made if it is missing.
    fn open_lock(&self, path: &Path) -> io::Result<File> {
        private().read(true).create(true).truncate(false).open(path)
    }

    fn try_lock(&self, file: &File) -> Result<(), TryLockError> {
        file.try_lock()
    }

    /// Closes a file to all but its owner. Returns the mode that it had if it was open to others.
    fn protect(&self, path: &Path) -> io::Result<Option<u32>> {
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(path)?.permissions().mode() & 0o777;
            if mode & 0o077 != 0 {
                fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
                return Ok(Some(mode));
            }
        }
        let _ = path;
        Ok(None)
    }
}

/// The disk of this machine.
#[derive(Debug)]
pub(crate) struct RealDisk;

impl Disk for RealDisk {}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Returns true if the file system lacks an operation, as CIFS, sshfs and other FUSE file systems
/// do.
pub(crate) fn is_lacking(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, IsADirectory, PermissionDenied, Unsupported};
    // EOPNOTSUPP is not `Unsupported` everywhere.
    let not_supported: &[i32] = if cfg!(target_os = "linux") { &[95] } else { &[45, 102] };
    matches!(error.kind(), InvalidInput | IsADirectory | PermissionDenied | Unsupported)
        || error.raw_os_error().is_some_and(|code| not_supported.contains(&code))
}

/// Returns true if nothing can be written now, because the disk is full, broken or read-only.
pub(crate) fn is_unwritable(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(error.kind(), QuotaExceeded | ReadOnlyFilesystem | StorageFull)
}

//! The home directory: who may reach it, the lock, and files that are there whole or not at all.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::StoreError;

/// The file that is locked for each operation on the store.
pub(super) const LOCK_FILE: &str = "lock";
/// Stands behind the name of a file that is not finished.
const UNFINISHED: &str = ".new";

/// How long an operation waits for those of other processes. The longest of them is a page of history
/// being opened or a new set of prekeys, well below a second on a slow machine.
pub(super) const LOCK_WAIT: Duration = Duration::from_secs(30);
/// How often a locked store is tried. A waiting `flock` would be woken at once, but cannot be bounded
/// without a signal.
const LOCK_POLL: Duration = Duration::from_millis(5);

/// The permission bits of others.
const OTHERS: u32 = 0o077;
/// The mode of the home.
const DIRECTORY_MODE: u32 = 0o700;
/// The mode of what is in it.
const FILE_MODE: u32 = 0o600;

/// Makes the home, if it is not there, for its owner alone, whatever the umask. One that is there must
/// be so.
///
/// # Errors
/// [`StoreError::Exposed`], [`StoreError::Owner`], [`StoreError::Io`].
pub fn prepare(home: &Path) -> Result<(), StoreError> {
    let missing: Vec<&Path> =
        home.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists()).collect();
    for directory in missing.into_iter().rev() {
        match DirBuilder::new().mode(DIRECTORY_MODE).create(directory) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            made => made.map_err(StoreError::io(directory))?,
        }
        let private = fs::Permissions::from_mode(DIRECTORY_MODE);
        fs::set_permissions(directory, private).map_err(StoreError::io(directory))?;
        sync_parent(directory)?;
    }
    check(home)
}

/// Whether the home is a directory that its owner alone can reach.
pub(super) fn check(home: &Path) -> Result<(), StoreError> {
    let found = match fs::metadata(home) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(StoreError::NotThere(home.to_owned())),
        found => found.map_err(StoreError::io(home))?,
    };
    if !found.is_dir() {
        return Err(StoreError::io(home)(io::ErrorKind::NotADirectory.into()));
    }
    private(home, &found, DIRECTORY_MODE)
}

/// Whether a file is there, and if so reachable by its owner alone.
pub(super) fn exists(path: &Path) -> Result<bool, StoreError> {
    match fs::metadata(path) {
        Ok(found) => private(path, &found, FILE_MODE).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(StoreError::io(path)(error)),
    }
}

fn private(path: &Path, found: &fs::Metadata, wanted: u32) -> Result<(), StoreError> {
    if found.uid() != rustix::process::geteuid().as_raw() {
        return Err(StoreError::Owner(path.to_owned()));
    }
    let mode = found.mode() & 0o777;
    if mode & OTHERS != 0 {
        return Err(StoreError::Exposed { path: path.to_owned(), mode, wanted });
    }
    Ok(())
}

/// The name under which a file is made before it gets its own.
pub(super) fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(UNFINISHED);
    name.into()
}

/// Makes an empty file that its owner alone can reach, whatever the umask; one of that name goes.
pub(super) fn make(path: &Path) -> Result<File, StoreError> {
    remove(path)?;
    let file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path);
    let file = file.map_err(StoreError::io(path))?;
    file.set_permissions(fs::Permissions::from_mode(FILE_MODE)).map_err(StoreError::io(path))?;
    Ok(file)
}

/// Writes a small file: after a crash it holds what it held or `bytes`. What it returns from is on
/// stable storage.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let new = unfinished(path);
    let mut file = make(&new)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(StoreError::io(&new))?;
    rename(&new, path)
}

/// Gives a finished file its name, on stable storage.
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    fs::rename(from, to).map_err(StoreError::io(to))?;
    sync_parent(to)
}

/// Removes a file, on stable storage, if it is there.
pub(super) fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Ok(()) => sync_parent(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(StoreError::io(path)(error)),
    }
}

fn sync_parent(path: &Path) -> Result<(), StoreError> {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => sync_directory(Path::new(".")),
        Some(parent) => sync_directory(parent),
        None => Ok(()),
    }
}

fn sync_directory(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(StoreError::io(path))
}

/// Device and inode: what tells a file from another that has taken its name.
pub(super) fn identity(path: &Path) -> Result<(u64, u64), StoreError> {
    let found = fs::metadata(path).map_err(StoreError::io(path))?;
    Ok((found.dev(), found.ino()))
}

/// Exclusive use of the home, until it is dropped. The system takes it from a process that ends, however
/// it ends.
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Waits for the lock of a home that is there, at most [`LOCK_WAIT`].
    pub(super) fn take(home: &Path) -> Result<Lock, StoreError> {
        Lock::within(home, LOCK_WAIT)
    }

    pub(super) fn within(home: &Path, wait: Duration) -> Result<Lock, StoreError> {
        let path = home.join(LOCK_FILE);
        let begun = Instant::now();
        loop {
            let file = OpenOptions::new().append(true).create(true).mode(FILE_MODE).open(&path);
            let file = file.map_err(StoreError::io(&path))?;
            match file.try_lock() {
                Ok(()) => {
                    // A home that was replaced in between has another lock, which is the one that counts.
                    let locked = file.metadata().map_err(StoreError::io(&path))?;
                    if identity(&path).is_ok_and(|named| named == (locked.dev(), locked.ino())) {
                        let private = fs::Permissions::from_mode(FILE_MODE);
                        file.set_permissions(private).map_err(StoreError::io(&path))?;
                        return Ok(Lock { _file: file });
                    }
                }
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(StoreError::io(&path)(error)),
            }
            if begun.elapsed() >= wait {
                return Err(StoreError::Busy);
            }
            std::thread::sleep(LOCK_POLL);
        }
    }
}

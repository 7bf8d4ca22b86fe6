//! The spool: what is being sent lies here, sealed, until the server has it.
//!
//! A file is sealed once, into `spool/ID` in the home, and sent from there however often the connection is
//! lost. It is never sealed a second time under its key: the source may have changed, and two texts under one
//! key and nonce would give both away. Its key stands in the store, written when the copy is whole.
//!
//! Who works at an upload holds the lock of its file. So a copy without a lock that is not whole was left by
//! a process that died, and whoever finds it removes it.

mod pack;
mod scratch;
mod seal;
mod source;
#[cfg(test)]
mod tests;

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::error::Failure;
use crate::store;

pub(crate) use self::pack::pack;
pub(crate) use self::scratch::Scratch;
pub(crate) use self::seal::{copy, digest, seal, unchanged};
pub(crate) use self::source::{Opened, mark, open};

/// The directory in the home.
const DIRECTORY: &str = "spool";
/// Bytes of a name: 64 random bits, so that no two uploads of a home share one.
const ID_BYTES: usize = 8;
/// How often an id is drawn before it is believed that something else is wrong.
const DRAWS: usize = 8;

/// What may be sent: the size that the server takes, and how the file travels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    /// As the server greeted, if it said.
    pub(crate) max_file: Option<u64>,
    /// In clear: it is then no longer than it is.
    pub(crate) plain: bool,
}

impl Limit {
    /// That a file of so many bytes can be sent.
    ///
    /// # Errors
    /// It is too large for the server, or for the encryption.
    pub(crate) fn check(self, name: &str, size: u64) -> Result<(), Failure> {
        use downstream::e2e::file::{Layout, SIZE_MAX};
        let sent = if self.plain { Some(size) } else { Layout::of(size).map(|layout| layout.ct_len) };
        let sent = sent.ok_or_else(|| Failure::usage(format!("{name} is too large: at most {SIZE_MAX} bytes")))?;
        match self.max_file {
            Some(0) => Err(Failure::usage("this server takes no files")),
            Some(max) if sent > max => {
                let sealed = if self.plain { String::new() } else { format!(" ({sent} sealed)") };
                Err(Failure::usage(format!(
                    "{name} is too large: {size} bytes{sealed}, and the server takes files of at most {max}"
                ))
                .hint("send it in parts (`split`), or ask the operator to raise max_file"))
            }
            _ => Ok(()),
        }
    }
}

/// The spool of a home.
#[derive(Debug, Clone)]
pub(crate) struct Spool {
    directory: PathBuf,
}

/// A file of the spool that this process works with, and no other as long as this is.
#[derive(Debug)]
pub(crate) struct Held {
    id: String,
    path: PathBuf,
    file: File,
}

impl Spool {
    /// The spool of a home. It need not be there yet.
    pub(crate) fn of(home: &Path) -> Spool {
        Spool { directory: home.join(DIRECTORY) }
    }

    /// Makes a new, empty file that its owner alone can read.
    ///
    /// # Errors
    /// It cannot be made.
    pub(crate) fn create(&self) -> Result<Held, Failure> {
        store::prepare(&self.directory)?;
        for _ in 0..DRAWS {
            if let Some(held) = self.hold(&draw()?, true)? {
                return Ok(held);
            }
        }
        Err(Failure::failed(format!("no file can be made in {}", self.directory.display())))
    }

    /// Takes a file; an empty one is made where there is none.
    ///
    /// # Errors
    /// Another process works with it, or it cannot be opened.
    pub(crate) fn take(&self, id: &str) -> Result<Held, Failure> {
        store::prepare(&self.directory)?;
        self.hold(id, false)?.ok_or_else(|| {
            Failure::failed("another dsc is sending this file")
                .hint("wait until it is done; `dsc resume --list` shows what is left then")
        })
    }

    /// Takes a file, if nobody has it.
    ///
    /// # Errors
    /// It cannot be opened.
    pub(crate) fn try_take(&self, id: &str) -> Result<Option<Held>, Failure> {
        store::prepare(&self.directory)?;
        self.hold(id, false)
    }

    fn hold(&self, id: &str, new: bool) -> Result<Option<Held>, Failure> {
        let path = self.directory.join(id);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).create_new(new).mode(0o600);
        let file = match options.open(&path) {
            Err(error) if new && error.kind() == ErrorKind::AlreadyExists => return Ok(None),
            file => file.map_err(|error| failed(&path, &error))?,
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(failed(&path, &error)),
        }
        let locked = file.metadata().map_err(|error| failed(&path, &error))?;
        // One that was removed before it was locked is nobody's any more.
        let named = fs::metadata(&path).is_ok_and(|named| (named.dev(), named.ino()) == (locked.dev(), locked.ino()));
        if !named {
            return Ok(None);
        }
        file.set_permissions(Permissions::from_mode(0o600)).map_err(|error| failed(&path, &error))?;
        Ok(Some(Held { id: id.to_owned(), path, file }))
    }

    /// The names of all files in it.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn ids(&self) -> Result<Vec<String>, Failure> {
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|error| failed(&self.directory, &error))?,
        };
        let mut ids = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| failed(&self.directory, &error))?;
            ids.extend(entry.file_name().into_string().ok());
        }
        ids.sort();
        Ok(ids)
    }

    /// A place for a stream of unknown length, which nobody but this process can read.
    ///
    /// # Errors
    /// It cannot be made.
    pub(crate) fn scratch(&self, name: &str, limit: Limit) -> Result<Scratch, Failure> {
        let held = self.create()?;
        // Without a name it is gone with this process, however that ends.
        held.remove()?;
        Scratch::new(held.file, held.path, name, limit)
    }
}

impl Held {
    /// Its name.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// The file, to write to its end.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// How many bytes are in it.
    ///
    /// # Errors
    /// The file system does not say.
    pub(crate) fn len(&self) -> Result<u64, Failure> {
        Ok(self.file.metadata().map_err(|error| failed(&self.path, &error))?.len())
    }

    /// Bytes from the middle of it.
    ///
    /// # Errors
    /// They are not there, or cannot be read.
    pub(crate) fn read_at(&self, offset: u64, bytes: &mut [u8]) -> Result<(), Failure> {
        self.file.read_exact_at(bytes, offset).map_err(|error| failed(&self.path, &error))
    }

    /// Makes what was written, and its name, last.
    ///
    /// # Errors
    /// The disk does not take it.
    pub(crate) fn sync(&self) -> Result<(), Failure> {
        let synced = self.file.sync_all().and_then(|()| match self.path.parent() {
            Some(directory) => File::open(directory)?.sync_all(),
            None => Ok(()),
        });
        synced.map_err(|error| self.failed(&error))
    }

    /// Takes it off the disk, with its bytes at once: as long as it is open here, they would stay, and on a full
    /// disk the store could not be told.
    ///
    /// # Errors
    /// It cannot be removed.
    pub(crate) fn remove(&self) -> Result<(), Failure> {
        self.file.set_len(0).map_err(|error| failed(&self.path, &error))?;
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(&self.path, &error)),
            _ => Ok(()),
        }
    }

    /// Why it could not be written.
    pub(crate) fn failed(&self, error: &io::Error) -> Failure {
        failed(&self.path, error)
    }
}

/// A new name.
fn draw() -> Result<String, Failure> {
    let mut bytes = [0; ID_BYTES];
    getrandom::fill(&mut bytes).map_err(|error| Failure::failed(format!("no randomness: {error}")))?;
    Ok(downstream::e2e::armour::hex(&bytes))
}

/// Why something of the file system did not work.
pub(crate) fn failed(path: &Path, error: &io::Error) -> Failure {
    let shown = path.display();
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            Failure::failed(format!("the disk is full: {shown} cannot be written"))
                .hint("what is sent is sealed into the home first, and takes its size there: free as much, or name a home with room by --home")
        }
        _ => Failure::failed(format!("{shown}: {error}")),
    }
}

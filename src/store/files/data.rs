//! Where the data of files stands: a directory of files with numbers for names, or memory.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use rustix::io::Errno;

use super::super::StoreError;
use super::super::queue::locked;
use super::super::seal::make_directory;
use crate::protocol::FileId;

/// Parts of the disk that uploads leave to messages: one fiftieth …
const RESERVE_PART: u64 = 50;
/// … but at least 256 MiB, which is the write-ahead log at its longest and some hundred thousand messages …
const RESERVE_MIN: u64 = 256 << 20;
/// … and at most 4 GiB, which is millions of them: time for an operator to notice.
const RESERVE_MAX: u64 = 4 << 30;

/// Keeps data under numbers. Names never come from a peer.
pub(in crate::store) trait Data: Send + Sync {
    /// Opens the data of an upload for writing behind its first `len` bytes, and says how many there are; makes it
    /// where `len` is 0. `None` where there is less.
    fn open(&self, file: FileId, len: u64) -> io::Result<Option<(Box<dyn Writing>, u64)>>;
    /// Puts on stable storage that data was made or removed.
    fn sync_names(&self) -> io::Result<()>;
    /// Reads all of `into` from `offset` on; `false` where there is less.
    fn read(&self, file: FileId, offset: u64, into: &mut [u8]) -> io::Result<bool>;
    /// Removes data, where there is some.
    fn remove(&self, file: FileId) -> io::Result<()>;
    /// The numbers of all data that is there.
    fn numbers(&self) -> io::Result<Numbers>;
    /// Bytes that uploads may still take.
    fn spare(&self) -> io::Result<u64>;
}

/// Numbers, as they are found.
pub(in crate::store) type Numbers = Box<dyn Iterator<Item = io::Result<FileId>>>;

/// The data of one upload.
pub(in crate::store) trait Writing: Send {
    /// Writes all of `bytes` at `offset`.
    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Cuts off what lies behind `len` bytes.
    fn cut(&mut self, len: u64) -> io::Result<()>;
    /// Puts everything written on stable storage.
    fn sync(&mut self) -> io::Result<()>;
}

/// Whether an error says that there is no room, now or under a limit; then the rest of the disk works.
pub(super) fn is_full(error: &io::Error) -> bool {
    let full = [Errno::NOSPC, Errno::DQUOT, Errno::FBIG];
    Errno::from_io_error(error).is_some_and(|error| full.contains(&error))
}

// ---- on disk -------------------------------------------------------------------------------------

/// A directory for the data alone, mode 0700.
pub(in crate::store) struct Directory(PathBuf);

impl Directory {
    /// The directory, made where there is none.
    pub(in crate::store) fn new(path: PathBuf) -> Result<Directory, StoreError> {
        make_directory(&path)?;
        Ok(Directory(path))
    }

    fn path(&self, file: FileId) -> PathBuf {
        self.0.join(file.to_string())
    }
}

impl Data for Directory {
    fn open(&self, file: FileId, len: u64) -> io::Result<Option<(Box<dyn Writing>, u64)>> {
        // Not through a link: nobody else has business in the directory.
        let nofollow = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
        let mut options = OpenOptions::new();
        options.write(true).create(len == 0).mode(0o600).custom_flags(nofollow);
        let opened = match options.open(self.path(file)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let found = opened.metadata()?.len();
        Ok((found >= len).then(|| (Box::new(opened) as Box<dyn Writing>, found)))
    }

    fn sync_names(&self) -> io::Result<()> {
        File::open(&self.0)?.sync_all()
    }

    fn read(&self, file: FileId, offset: u64, into: &mut [u8]) -> io::Result<bool> {
        match File::open(self.path(file)).and_then(|file| file.read_exact_at(into, offset)) {
            Ok(()) => Ok(true),
            Err(error) if [io::ErrorKind::NotFound, io::ErrorKind::UnexpectedEof].contains(&error.kind()) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn remove(&self, file: FileId) -> io::Result<()> {
        match fs::remove_file(self.path(file)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn numbers(&self) -> io::Result<Numbers> {
        let number = |entry: io::Result<fs::DirEntry>| {
            let found = entry.and_then(|entry| {
                let name = entry.file_name();
                let number = name.to_str().and_then(|name| name.parse().ok()).map(FileId);
                // Only what could have been made here: no 007, no directory, no link.
                let own = number.filter(|number| *name == *number.to_string());
                Ok(if own.is_some() && entry.file_type()?.is_file() { own } else { None })
            });
            found.transpose()
        };
        Ok(Box::new(fs::read_dir(&self.0)?.filter_map(number)))
    }

    fn spare(&self) -> io::Result<u64> {
        let disk = rustix::fs::statvfs(&self.0)?;
        let reserve = (disk.f_blocks.saturating_mul(disk.f_frsize) / RESERVE_PART).clamp(RESERVE_MIN, RESERVE_MAX);
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize).saturating_sub(reserve))
    }
}

impl Writing for File {
    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn cut(&mut self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

// ---- in memory -----------------------------------------------------------------------------------

/// The same without a disk, for simulations.
#[derive(Default)]
pub(in crate::store) struct Memory(Mutex<HashMap<FileId, Arc<Mutex<Vec<u8>>>>>);

/// A length or an offset of data in memory.
fn place(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|_| Errno::FBIG.into())
}

impl Data for Memory {
    fn open(&self, file: FileId, len: u64) -> io::Result<Option<(Box<dyn Writing>, u64)>> {
        let mut files = locked(&self.0);
        let data = match len {
            0 => files.entry(file).or_default().clone(),
            _ => match files.get(&file) {
                Some(data) => data.clone(),
                None => return Ok(None),
            },
        };
        let found = locked(&data).len();
        Ok((found >= place(len)?).then(|| (Box::new(data) as Box<dyn Writing>, found as u64)))
    }

    fn sync_names(&self) -> io::Result<()> {
        Ok(())
    }

    fn read(&self, file: FileId, offset: u64, into: &mut [u8]) -> io::Result<bool> {
        let Some(data) = locked(&self.0).get(&file).cloned() else { return Ok(false) };
        let data = locked(&data);
        let from = place(offset)?;
        let Some(found) = data.get(from..from.saturating_add(into.len())) else { return Ok(false) };
        into.copy_from_slice(found);
        Ok(true)
    }

    fn remove(&self, file: FileId) -> io::Result<()> {
        locked(&self.0).remove(&file);
        Ok(())
    }

    fn numbers(&self) -> io::Result<Numbers> {
        let numbers: Vec<FileId> = locked(&self.0).keys().copied().collect();
        Ok(Box::new(numbers.into_iter().map(Ok)))
    }

    fn spare(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }
}

impl Writing for Arc<Mutex<Vec<u8>>> {
    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut data = locked(self);
        let from = place(offset)?;
        let to = from.saturating_add(bytes.len());
        if data.len() < to {
            data.resize(to, 0);
        }
        data.get_mut(from..to).ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(bytes);
        Ok(())
    }

    fn cut(&mut self, len: u64) -> io::Result<()> {
        let len = place(len)?;
        locked(self).truncate(len);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

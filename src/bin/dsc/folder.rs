//! A folder of this machine into which files come whose names and bytes are others' words.
//!
//! What is on its way stands in a `.part` file that this program made, which it alone may read. A file gets its
//! name when all of it was checked and is on stable storage, and never in place of another. Every name is looked
//! up in the opened directory, and never followed: whoever else writes there can be in the way, and nothing more.

mod names;

use std::fs::{File, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::error::Failure;

pub use self::names::named;

/// Names that are tried for one file, `name`, `name (1)` and so on, before it is given up.
const TRIES: usize = 1000;
/// Stands behind the name of a file that is not whole.
const PART: &str = ".part";
/// Longest name that is made, in bytes; a file system may allow less.
const NAME_MAX: usize = 255;
/// Bytes that stay free on the disk: a machine without any is no use to anybody.
const RESERVE: u64 = 16 << 20;

/// A folder, opened.
#[derive(Debug)]
pub struct Folder {
    fd: OwnedFd,
    path: PathBuf,
    identity: (u64, u64),
    name_max: usize,
}

/// What it takes to find a part again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartId {
    /// Its name in the folder.
    pub name: String,
    /// Device and inode.
    pub inode: (u64, u64),
    /// The permissions that the whole file gets.
    pub mode: u32,
}

/// A file that is not whole, locked for this process. It stays where it is when this is dropped.
#[derive(Debug)]
pub struct Part {
    file: File,
    id: PartId,
}

/// What became of a part that was begun before.
#[derive(Debug)]
pub enum Before {
    /// There it is.
    Part(Part),
    /// It had got its name: there is nothing left to do.
    Named(PathBuf),
    /// Another process is at it.
    Busy,
    /// It is gone, or something else is in its place.
    Gone,
}

impl Folder {
    /// Opens a directory; with `make`, makes it if it is not there.
    ///
    /// # Errors
    /// It is none, or cannot be opened or made.
    pub fn open(path: &Path, make: bool) -> Result<Folder, Failure> {
        let failed = |error: io::Error| Failure::failed(format!("cannot use the folder {}: {error}", path.display()));
        if make {
            std::fs::create_dir_all(path).map_err(failed)?;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| failed(errno.into()))?;
        let found = rustix::fs::fstat(&fd).map_err(|errno| failed(errno.into()))?;
        let most = rustix::fs::fstatvfs(&fd).map_err(|errno| failed(errno.into()))?.f_namemax;
        Ok(Folder {
            fd,
            path: std::path::absolute(path).map_err(failed)?,
            identity: (found.st_dev, found.st_ino),
            name_max: usize::try_from(most).unwrap_or(NAME_MAX).min(NAME_MAX),
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Device and inode.
    pub fn identity(&self) -> (u64, u64) {
        self.identity
    }

    /// Whether something has this name, a link that leads nowhere included.
    pub fn has(&self, name: &str) -> bool {
        !matches!(rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW), Err(Errno::NOENT))
    }

    /// That so many bytes more fit on the disk. Nothing is taken up for them: their number is a stranger's word.
    ///
    /// # Errors
    /// They do not fit.
    pub fn has_room(&self, bytes: u64) -> Result<(), Failure> {
        let found = rustix::fs::fstatvfs(&self.fd).map_err(|errno| self.failed(errno.into()))?;
        let free = found.f_bavail.saturating_mul(found.f_frsize);
        if bytes.saturating_add(RESERVE) <= free {
            return Ok(());
        }
        let message = format!("{bytes} bytes do not fit into {}: {free} are free there", self.path.display());
        Err(Failure::failed(message).hint("make room, or name another folder with -o"))
    }

    /// Begins a part for a file that is to be called `name`: new, empty, for this user alone.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn begin(&self, name: &str) -> Result<Part, Failure> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let room = self.name_max.saturating_sub(PART.len());
        for n in 0..TRIES {
            let name = format!("{}{PART}", named(name, n, room));
            // With the permissions that files of this user get, which is how they become known.
            let fd = match rustix::fs::openat(&self.fd, &name, flags, Mode::from_raw_mode(0o666)) {
                Err(Errno::EXIST) => continue,
                opened => opened.map_err(|errno| self.failed(errno.into()))?,
            };
            let file = File::from(fd);
            let made = file.metadata().map_err(|error| self.failed(error))?;
            let id = PartId { name, inode: (made.dev(), made.ino()), mode: made.mode() & 0o777 };
            file.set_permissions(Permissions::from_mode(0o600)).map_err(|error| self.failed(error))?;
            lock(&file).map_err(|error| self.failed(error))?;
            return Ok(Part { file, id });
        }
        Err(self.crowded(name))
    }

    /// Finds a part that was begun before, for a file of `size` bytes that is to be called `name`.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn again(&self, id: &PartId, name: &str, size: u64) -> Result<Before, Failure> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat(&self.fd, &id.name, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(self.ended(id, name, size).map_or(Before::Gone, Before::Named)),
            // Something that cannot be opened, a link or a socket, is nothing of ours.
            Err(_) => return Ok(Before::Gone),
            Ok(fd) => fd,
        };
        let file = File::from(fd);
        let found = file.metadata().map_err(|error| self.failed(error))?;
        // Two names of one file: what is written here would be written there too.
        let ours = (found.dev(), found.ino()) == id.inode && found.is_file() && found.nlink() == 1;
        if !ours {
            return Ok(Before::Gone);
        }
        if !lock(&file).map_err(|error| self.failed(error))? {
            return Ok(Before::Busy);
        }
        let part = Part { file, id: id.clone() };
        // Between its opening and its locking another process may have finished it.
        match self.names(&part, &id.name) {
            true => Ok(Before::Part(part)),
            false => Ok(self.ended(id, name, size).map_or(Before::Gone, Before::Named)),
        }
    }

    /// Gives a part its name, or that name with a number behind it, once all of it is on stable storage.
    ///
    /// # Errors
    /// It cannot be had; the part stays.
    pub fn finish(&self, part: &Part, name: &str) -> Result<PathBuf, Failure> {
        part.file.sync_all().map_err(|error| self.failed(error))?;
        part.file.set_permissions(Permissions::from_mode(part.id.mode)).map_err(|error| self.failed(error))?;
        if !self.names(part, &part.id.name) {
            return Err(self.disturbed(&part.id.name));
        }
        for n in 0..TRIES {
            let name = named(name, n, self.name_max);
            match self.rename(&part.id.name, &name) {
                Err(Errno::EXIST) => continue,
                renamed => renamed.map_err(|errno| self.failed(errno.into()))?,
            }
            if !self.names(part, &name) {
                return Err(self.disturbed(&name));
            }
            rustix::fs::fsync(&self.fd).map_err(|errno| self.failed(errno.into()))?;
            return Ok(self.path.join(name));
        }
        Err(self.crowded(name))
    }

    /// Erases a part: its bytes are not what they should be.
    ///
    /// # Errors
    /// It cannot be erased.
    pub fn discard(&self, part: Part) -> Result<(), Failure> {
        if self.names(&part, &part.id.name) {
            let gone = rustix::fs::unlinkat(&self.fd, &part.id.name, AtFlags::empty());
            gone.map_err(|errno| self.failed(errno.into()))?;
        }
        Ok(())
    }

    /// Whether a part stands under a name.
    fn names(&self, part: &Part, name: &str) -> bool {
        self.inode(name).is_some_and(|(inode, _)| inode == part.id.inode)
    }

    /// Device, inode and size of what stands under a name.
    fn inode(&self, name: &str) -> Option<((u64, u64), u64)> {
        let found = rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some(((found.st_dev, found.st_ino), u64::try_from(found.st_size).ok()?))
    }

    /// Under which name a part was finished, by a process that could not say so any more.
    fn ended(&self, id: &PartId, name: &str, size: u64) -> Option<PathBuf> {
        let names = (0..TRIES).map(|n| named(name, n, self.name_max));
        let mut there = names.map_while(|name| self.inode(&name).map(|found| (name, found)));
        there.find(|(_, found)| *found == (id.inode, size)).map(|(name, _)| self.path.join(name))
    }

    /// Gives a file another name, if nothing has that.
    fn rename(&self, from: &str, to: &str) -> Result<(), Errno> {
        match rustix::fs::renameat_with(&self.fd, from, &self.fd, to, RenameFlags::NOREPLACE) {
            // File systems that cannot rename so: a second name is refused as well where there is one.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                rustix::fs::linkat(&self.fd, from, &self.fd, to, AtFlags::empty())?;
                rustix::fs::unlinkat(&self.fd, from, AtFlags::empty())
            }
            renamed => renamed,
        }
    }

    fn failed(&self, error: io::Error) -> Failure {
        Failure::failed(format!("cannot write into {}: {error}", self.path.display()))
    }

    fn crowded(&self, name: &str) -> Failure {
        let message = format!("{} has {TRIES} files called {name:?}", self.path.display());
        Failure::failed(message).hint("name another folder with -o")
    }

    fn disturbed(&self, name: &str) -> Failure {
        let message = format!("somebody else changed {name:?} in {}", self.path.display());
        Failure::failed(message).hint("use a folder into which nobody else writes")
    }
}

/// Locks a part for this process; false if another has it. Where a file system has no locks, it goes without.
fn lock(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => match Errno::from_io_error(&error) {
            Some(Errno::NOLCK | Errno::NOSYS | Errno::NOTSUP) => Ok(true),
            _ => Err(error),
        },
    }
}

impl Part {
    /// How to find it again.
    pub fn id(&self) -> &PartId {
        &self.id
    }

    /// How many bytes it has.
    ///
    /// # Errors
    /// What the file system says.
    pub fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Cuts it to so many bytes and goes back to its beginning.
    ///
    /// # Errors
    /// What the file system says.
    pub fn cut(&mut self, len: u64) -> io::Result<()> {
        self.file.set_len(len)?;
        io::Seek::rewind(&mut self.file)
    }
}

impl Read for Part {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.file.read(into)
    }
}

impl Write for Part {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests;

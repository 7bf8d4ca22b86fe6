//! What a person names to be sent: a file, a directory, or something that is read once.

use std::fs::{self, File, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::error::Failure;
use crate::store::Source;

/// What a path leads to.
#[derive(Debug)]
pub(crate) enum Opened {
    /// A file, with its state.
    File(File, Source),
    /// A directory.
    Directory(PathBuf),
    /// A pipe or a device: read once, of unknown length.
    Stream(File),
}

/// Opens what a path leads to.
///
/// # Errors
/// There is nothing that can be read.
pub(crate) fn open(path: &Path) -> Result<Opened, Failure> {
    let unreadable = |error| Failure::failed(format!("{}: {error}", path.display()));
    // A file by any other name is the same one.
    let path = fs::canonicalize(path).map_err(unreadable)?;
    if fs::metadata(&path).map_err(unreadable)?.is_dir() {
        return Ok(Opened::Directory(path));
    }
    let file = File::open(&path).map_err(unreadable)?;
    let found = file.metadata().map_err(unreadable)?;
    Ok(if found.is_file() { Opened::File(file, mark(&path, &found)) } else { Opened::Stream(file) })
}

/// The state of a file.
pub(crate) fn mark(path: &Path, found: &Metadata) -> Source {
    let time = |seconds: i64, nanoseconds: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
    Source {
        path: path.to_owned(),
        size: found.len(),
        inode: (found.dev(), found.ino()),
        times: (time(found.mtime(), found.mtime_nsec()), time(found.ctime(), found.ctime_nsec())),
    }
}

//! The file of servers that this home has met: `known_servers`.
//!
//! One line a server: `HOST:PORT sha256:HEX` for a certificate that was pinned, `HOST:PORT roots` for one
//! that a certificate authority vouched for. Lines that begin with `#` and empty lines are kept. Whoever
//! writes holds the lock file beside it and puts a whole new file in its place, so that readers need no
//! lock and a crash leaves the old file or the new one.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use downstream::protocol::Escaped;
use rustix::fs::{FlockOperation, flock};

use super::endpoint::Endpoint;
use super::trust::Fingerprint;

/// Largest file, in bytes: ten thousand servers.
const FILE_MAX: u64 = 1_048_576;
/// How long to wait for another process that writes. It holds the lock for one small write to the disk.
const LOCK_TIME: Duration = Duration::from_secs(10);
/// How often to look whether it has finished.
const LOCK_STEP: Duration = Duration::from_millis(20);
/// What a new file begins with.
const HEADER: &str = "# Servers that dsc has met, one a line: HOST:PORT sha256:FINGERPRINT for a certificate that is pinned,\n\
                      # HOST:PORT roots for a server that a certificate authority vouched for.\n";

/// What is known of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// It has this certificate.
    Certificate(Fingerprint),
    /// Certificate authorities vouched for it.
    Roots,
}

impl std::fmt::Display for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Known::Certificate(fingerprint) => fingerprint.fmt(f),
            Known::Roots => f.write_str("roots"),
        }
    }
}

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KnownError {
    /// It cannot be read.
    #[error("{}: cannot be read: {error}", Escaped(path.display()))]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It cannot be written.
    #[error("{}: cannot be written: {error}", Escaped(path.display()))]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It is not what it should be.
    #[error("{}: line {line} is not HOST:PORT and sha256:FINGERPRINT or roots; mend it or delete it", Escaped(path.display()))]
    Line {
        /// Which.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
}

/// How an entry is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Enter {
    /// Only where nothing is known of the server yet.
    First,
    /// In place of whatever is known.
    Replace,
}

/// What became of [`remember`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Remembered {
    /// The file says so now.
    Yes,
    /// Another process has met the server meanwhile, and noted something else.
    Otherwise(Vec<Known>),
}

/// What the file says of a server; more than one line is possible where a person wrote it. A missing file
/// knows nothing.
pub(super) fn look_up(path: &Path, endpoint: &Endpoint) -> Result<Vec<Known>, KnownError> {
    entries(path, &read(path)?, endpoint)
}

/// Notes what is known of a server from now on.
pub(super) fn remember(path: &Path, endpoint: &Endpoint, known: Known, enter: Enter) -> Result<Remembered, KnownError> {
    // A link stays a link: what it points to is written.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let lock = lock(&path).map_err(|error| KnownError::Write { path: path.clone(), error })?;
    let text = read(&path)?;
    let before = entries(&path, &text, endpoint)?;
    if before.contains(&known) && (before.len() == 1 || enter == Enter::First) {
        return Ok(Remembered::Yes);
    }
    if enter == Enter::First && !before.is_empty() {
        return Ok(Remembered::Otherwise(before));
    }
    let text = with_entry(&text, endpoint, known);
    replace(&path, text.as_bytes()).map_err(|error| KnownError::Write { path: path.clone(), error })?;
    drop(lock);
    Ok(Remembered::Yes)
}

fn read(path: &Path) -> Result<String, KnownError> {
    let unreadable = |error| KnownError::Read { path: path.to_owned(), error };
    let mut text = String::new();
    match File::open(path) {
        Ok(file) => file.take(FILE_MAX + 1).read_to_string(&mut text).map_err(unreadable)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(text),
        Err(error) => return Err(unreadable(error)),
    };
    if text.len() as u64 > FILE_MAX {
        return Err(unreadable(io::Error::other(format!("it is larger than {FILE_MAX} bytes"))));
    }
    Ok(text)
}

/// What one line says.
enum Said<'a> {
    Nothing,
    Of(Endpoint, &'a str),
}

fn read_line(line: &str) -> Option<Said<'_>> {
    let mut words = line.split_whitespace();
    let (Some(server), said) = (words.next(), words.next()) else { return Some(Said::Nothing) };
    if server.starts_with('#') {
        return Some(Said::Nothing);
    }
    let comment = words.next().is_none_or(|word| word.starts_with('#'));
    comment.then_some(Said::Of(Endpoint::parse(server).ok()?, said?))
}

/// A line that cannot be read may be this very server's: passing over it would meet the server anew and
/// believe it. Something unknown said of another server is that server's matter.
fn entries(path: &Path, text: &str, endpoint: &Endpoint) -> Result<Vec<Known>, KnownError> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let amiss = || KnownError::Line { path: path.to_owned(), line: number + 1 };
        match read_line(line).ok_or_else(amiss)? {
            Said::Of(server, said) if server == *endpoint => found.push(match said {
                "roots" => Known::Roots,
                said => Known::Certificate(Fingerprint::parse(said).ok_or_else(amiss)?),
            }),
            _ => {}
        }
    }
    Ok(found)
}

/// The text with one line for the server, where its first one was or at the end.
fn with_entry(text: &str, endpoint: &Endpoint, known: Known) -> String {
    let mut out = String::with_capacity(text.len() + 128);
    let mut entry = Some(format!("{endpoint} {known}\n"));
    if text.is_empty() {
        out.push_str(HEADER);
    }
    for line in text.lines() {
        match read_line(line) {
            Some(Said::Of(server, _)) if server == *endpoint => out.extend(entry.take()),
            _ => {
                out.push_str(line);
                out.push('\n');
            }
        }
    }
    out.extend(entry);
    out
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        _ => Path::new("."),
    }
}

/// Waits for the lock, which ends with the file that it returns.
fn lock(path: &Path) -> io::Result<File> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory(path))?;
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(beside(path, ".lock"))?;
    let patience = Instant::now() + LOCK_TIME;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < patience => std::thread::sleep(LOCK_STEP),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(io::Error::other("another process holds its lock and does not let go"));
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Puts a whole new file in the place of the old one. The lock is held.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let fresh = beside(path, ".new");
    // Left there by a process that was killed.
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    File::open(directory(path))?.sync_all()
}

#[cfg(test)]
mod tests;

//! What can go wrong outside the writes and reads themselves: all of it is the operator's to mend.

use std::io;
use std::path::{Path, PathBuf};

use super::sqlite::BatchLost;
use crate::ops::Refused;

/// Why a store cannot be opened, or an operator command not be done. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// SQLite failed.
    #[error("{what}: {source}; {}", super::sqlite::advice(source))]
    Sql {
        /// During what.
        what: &'static str,
        /// What it said.
        source: rusqlite::Error,
    },
    /// The database was written by a newer program.
    #[error(
        "{} is of version {found}, this program knows versions up to {known}: \
         run a newer downstream, or restore the backup from before the update", path.display()
    )]
    NewerSchema {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: usize,
        /// The newest that is known.
        known: usize,
    },
    /// The database must be migrated, but a daemon of an older version runs on it.
    #[error(
        "{} is of version {found} and in use by a running daemon, this program needs version {known}: \
         restart the daemon with this version first", path.display()
    )]
    OlderDaemon {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: usize,
        /// The version that is needed.
        known: usize,
    },
    /// The file is something else.
    #[error("{} is not a database of downstream: name another data directory", path.display())]
    NotOurs {
        /// The file.
        path: PathBuf,
    },
    /// Another daemon runs on the same data.
    #[error("another downstream is running on {}: end it, or name another data directory with --data", path.display())]
    InUse {
        /// The data directory.
        path: PathBuf,
    },
    /// SQLite did not accept the settings that make a commit durable.
    #[error("the database cannot be made durable (journal {mode}, synchronous {synchronous}): use a local file system")]
    NotDurable {
        /// The journal mode that it has instead of `wal`.
        mode: String,
        /// The level that it has instead of 2.
        synchronous: i64,
    },
    /// There is a database, but not the key that it was sealed with.
    #[error(
        "{} is missing, but {} was sealed with it: restore the key from where it is kept, or move the database away to begin anew",
        key.display(), database.display()
    )]
    KeyMissing {
        /// Where the key was looked for.
        key: PathBuf,
        /// The database.
        database: PathBuf,
    },
    /// The key file can be read by others.
    #[error("{} is open to other users (mode {mode:04o}): chmod 600 it, and replace it if others may have read it", path.display())]
    KeyExposed {
        /// The key file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The key file holds something else.
    #[error("{} holds {len} bytes, a server key is 32 random bytes: restore it from where it is kept", path.display())]
    KeySize {
        /// The key file.
        path: PathBuf,
        /// Its length.
        len: u64,
    },
    /// The key is not the one that the database was sealed with.
    #[error("{} was sealed with another server.key: put the key of this database in place", path.display())]
    WrongKey {
        /// The database.
        path: PathBuf,
    },
    /// The operating system gave no randomness.
    #[error("the operating system gave no random bytes")]
    Random,
    /// A backup never replaces a file.
    #[error("{} exists already: name another file", path.display())]
    BackupExists {
        /// The file.
        path: PathBuf,
    },
    /// The copy is not a whole database.
    #[error("the backup is not sound ({found}): check the database with a copy of it, and the disk")]
    BackupBroken {
        /// What the check found.
        found: String,
    },
    /// There is no such account.
    #[error("there is no user {0}")]
    NoSuchUser(String),
    /// The name is that of an account, or of one that was deleted.
    #[error("the name {0} is taken; names of deleted users are never given again")]
    NameTaken(String),
    /// A write of the operator was refused by the rules.
    #[error("refused: {0}")]
    Refused(Refused),
    /// A thread of the store ended by a defect of ours.
    #[error("the store ended unexpectedly: please report this as a defect")]
    Died,
}

impl StoreError {
    pub(super) fn io(path: &Path, source: io::Error) -> StoreError {
        StoreError::Io { path: path.to_owned(), source }
    }

    pub(super) fn sql(what: &'static str, source: rusqlite::Error) -> StoreError {
        StoreError::Sql { what, source }
    }

    pub(super) fn lost(what: &'static str, lost: BatchLost) -> StoreError {
        match lost {
            BatchLost::Engine(source) => StoreError::Sql { what, source },
            BatchLost::Unguarded => StoreError::Died,
        }
    }
}

//! Why the store cannot be opened or written.

use std::io;
use std::path::{Path, PathBuf};

use downstream::e2e::error::{Damaged, NoRandom, SealError};
use downstream::e2e::keyslot::SlotError;
use rusqlite::ErrorCode;

use super::home::{LOCK_FILE, LOCK_WAIT};
use crate::error::Failure;

/// Why the store cannot be opened or written. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no store in this home.
    #[error("there are no keys in {}", .0.display())]
    NotThere(PathBuf),
    /// There is one already.
    #[error("there are keys in {} already", .0.display())]
    Exists(PathBuf),
    /// The passphrase is wrong, or the slot file was edited: there is no telling which.
    #[error("wrong passphrase")]
    WrongPassphrase,
    /// The store has a passphrase and none was given.
    #[error("the store has a passphrase")]
    NeedsPassphrase,
    /// A passphrase was given for a store that has none: this may not be the store that was meant.
    #[error("this store has no passphrase, but one was given")]
    NoPassphrase,
    /// Another process holds the store for too long.
    #[error("another process has held the store for {} s", LOCK_WAIT.as_secs())]
    Busy,
    /// What is there is not what was written.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// The store was written by a newer program.
    #[error("the store is of version {found}, this program knows versions up to {known}")]
    Newer {
        /// Its version.
        found: u32,
        /// The newest that is known.
        known: u32,
    },
    /// Others may read or write what only the owner may.
    #[error("{} can be reached by others: its mode is {mode:03o}", path.display())]
    Exposed {
        /// The file or directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// What they should be.
        wanted: u32,
    },
    /// The home belongs to another user of this machine.
    #[error("{} belongs to another user of this machine", .0.display())]
    Owner(PathBuf),
    /// The home holds the keys and the history of another account.
    #[error("this home belongs to the account {0}")]
    OtherAccount(String),
    /// A limit of the store was reached.
    #[error("the {0} is full")]
    Full(&'static str),
    /// The random source of this machine failed.
    #[error("the random source of this machine failed")]
    Random,
    /// Not enough memory for what the slot file asks for.
    #[error("not enough memory to check the passphrase")]
    NoMemory,
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// SQLite failed.
    #[error("the store: {0}")]
    Sql(rusqlite::Error),
}

impl StoreError {
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> StoreError {
        move |source| StoreError::Io { path: path.to_owned(), source }
    }

    pub(super) fn damaged(what: impl Into<String>) -> StoreError {
        StoreError::Damaged(what.into())
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> StoreError {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::Busy,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                StoreError::damaged("store.db is no database")
            }
            _ => match error {
                // A value of another type than every row of ours has.
                rusqlite::Error::InvalidColumnType(..) | rusqlite::Error::IntegralValueOutOfRange(..) => {
                    StoreError::damaged("a row has another form than was written")
                }
                error => StoreError::Sql(error),
            },
        }
    }
}

impl From<SlotError> for StoreError {
    fn from(error: SlotError) -> StoreError {
        match error {
            SlotError::Damaged => StoreError::damaged("the slot file is not one, or asks for a cost out of bounds"),
            SlotError::WrongPassphrase => StoreError::WrongPassphrase,
            SlotError::NoMemory => StoreError::NoMemory,
            SlotError::Random => StoreError::Random,
        }
    }
}

impl From<NoRandom> for StoreError {
    fn from(NoRandom: NoRandom) -> StoreError {
        StoreError::Random
    }
}

impl From<SealError> for StoreError {
    /// Of sealing a row, which fails for one reason only.
    fn from(_: SealError) -> StoreError {
        StoreError::Random
    }
}

impl From<Damaged> for StoreError {
    fn from(Damaged: Damaged) -> StoreError {
        StoreError::damaged("a row is not what was written there")
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        let failure = Failure::failed(error.to_string());
        match error {
            StoreError::NotThere(_) => failure.hint("make them with `dsc init`, or name another home with --home"),
            StoreError::Exists(_) => failure.hint("to begin anew, name another home with --home"),
            StoreError::WrongPassphrase => failure.hint("try again; an edited slot file looks the same"),
            StoreError::NeedsPassphrase => failure.hint("run dsc in a terminal, or name --passphrase-file"),
            StoreError::NoPassphrase => {
                failure.hint("check that --home names the right store, then leave the passphrase out")
            }
            StoreError::Busy => {
                failure.hint(format!("see who has it with `fuser` on the file `{LOCK_FILE}` in the home, or try again"))
            }
            StoreError::Damaged(_) => {
                failure.hint("restore a backup of the whole home directory; sessions will be begun anew where needed")
            }
            StoreError::Newer { .. } => failure.hint("run the newer dsc"),
            StoreError::Exposed { path, wanted, .. } => {
                failure.hint(format!("type: chmod {wanted:o} {}", path.display()))
            }
            StoreError::Owner(_) => failure.hint("run dsc as the user who made it"),
            StoreError::OtherAccount(_) => failure.hint("name another home with --home"),
            StoreError::Full("outbox") => failure.hint("go online with `dsc fetch`, so that what waits goes out"),
            StoreError::Full("list of uploads" | "list of downloads") => {
                failure.hint("`dsc resume` finishes what was begun, `dsc resume --list` shows it")
            }
            StoreError::NoMemory => failure.hint("free some memory and try again"),
            StoreError::Full(_) | StoreError::Random | StoreError::Io { .. } | StoreError::Sql(_) => failure,
        }
    }
}

//! The sealed store: everything that this device knows, in `$DSC_HOME`.
//!
//! ```text
//! store.db          SQLite; every value in it is sealed
//! passphrase.slot   the key of the store under a passphrase, or
//! machine.slot      under none, for machines
//! lock              locked for each operation
//! ```
//!
//! # One operation at a time
//!
//! Several processes share a home. Each operation is a transaction ([`Store::transact`]): lock, look,
//! work, commit, unlock. What a process holds in memory is loaded anew when another has changed the
//! file, so two of them never go on from one state of a ratchet. A transaction is whole or nothing, in
//! the file (SQLite's rollback journal, on stable storage before the commit is) and in memory (what a
//! failed one has touched is thrown away and loaded anew).
//!
//! # What the file shows without the key
//!
//! Values are sealed with their table and row ([`downstream::e2e::keyslot`]); what moves does not
//! open. Names, targets and numbers of look-ups stand inside, or as keyed hashes. What remains visible:
//! how many contacts, sessions, rooms and conversations there are, how long their rows are, and of each
//! history entry its conversation (a number), the server's number in it and its time. Equal keyed hashes
//! would show equal things, but each is there once, apart from the device of a replay mark: how many
//! envelopes were opened of each device shows too.
//!
//! Whoever can write the file cannot make anything up, but can take away and put back: erase rows, or
//! the whole store as it was yesterday. That is a restored backup, after which sessions are begun anew;
//! no key is used twice for it, because every message key takes fresh random salt.

mod cache;
mod codec;
mod downloads;
mod error;
mod history;
mod home;
mod outbox;
mod profile;
mod rows;
mod schema;
mod slots;
#[cfg(test)]
mod tests;
mod tx;
mod uploads;
mod vault;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use downstream::e2e::keyslot::{Cost, Dek};
use downstream::protocol::Target;
use rusqlite::{Connection, TransactionBehavior};

use self::cache::Cache;
use self::home::Lock;
use self::slots::Slots;
use self::vault::Vault;

pub use self::downloads::{Download, FileRef, Save};
pub use self::error::StoreError;
#[cfg(test)]
pub use self::history::Recorded;
pub use self::history::{Entry, PlainFile, What};
pub use self::home::prepare;
#[cfg(test)]
pub use self::outbox::{HELD_BYTES, HELD_KEEP_MS, HELD_MAX, OUTBOX_BYTES, OUTBOX_MAX};
pub use self::outbox::{Held, Line, Outgoing};
pub use self::profile::{Profile, Token};
pub use self::slots::Passphrase;
pub use self::tx::Tx;
#[cfg(test)]
pub use self::tx::{BUNDLE_KEEP_MS, BUNDLES_MAX};
pub use self::uploads::{Source, Stage, Upload};
pub use self::vault::OsRandom;

/// The database.
const FILE: &str = "store.db";

/// What it takes to open the store of a home.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// There is none.
    Missing,
    /// A passphrase.
    NeedsPassphrase,
    /// Nothing.
    Open,
}

/// An open store. Its key is in memory as long as this is.
pub struct Store {
    home: PathBuf,
    vault: Vault,
    sql: Connection,
    /// Which file `sql` has open.
    file: (u64, u64),
    /// What was loaded; `None` where it must be loaded anew.
    cache: Option<Cache>,
    /// How far this process has shown each conversation, if it follows them.
    shown: Option<BTreeMap<Target, u64>>,
    /// Whether it saves the files that come.
    saving: bool,
}

impl Store {
    /// Makes a store in a home, which is made too if it is not there. Without a passphrase whoever can
    /// read the home can read the store. `cost` is what a guess at the passphrase costs.
    ///
    /// # Errors
    /// [`StoreError::Exists`]; [`StoreError::Exposed`], [`StoreError::Owner`] for a home that others can
    /// reach; [`StoreError::Damaged`] if there is a database, but nothing to open it with.
    pub fn create(home: &Path, passphrase: Option<&Passphrase>, cost: Cost) -> Result<Store, StoreError> {
        home::prepare(home)?;
        let _lock = Lock::take(home)?;
        if slots::found(home)? != Slots::None {
            return Err(StoreError::Exists(home.to_owned()));
        }
        let path = home.join(FILE);
        if home::exists(&path)? {
            return Err(StoreError::damaged("the slot file is missing"));
        }
        slots::tidy(home)?;
        // The database is finished first, then comes its key, then its name: with the name the store is
        // there, with the key alone `open` gives the name, and without it there is nothing to keep.
        let vault = Vault::new(Dek::draw(&mut OsRandom)?);
        let new = home::unfinished(&path);
        home::remove(&journal(&new))?;
        drop(home::make(&new)?);
        schema::create(&mut schema::connect(&new)?, &vault)?;
        slots::write(home, vault.dek(), passphrase, cost)?;
        home::rename(&new, &path)?;
        Store::ready(home, vault)
    }

    /// Opens the store of a home. Takes as long as its slot says, by default a good tenth of a second.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(home: &Path, passphrase: Option<&Passphrase>) -> Result<Store, StoreError> {
        home::check(home)?;
        let path = home.join(FILE);
        if slots::found(home)? == Slots::None && home::exists(&path)? {
            return Err(StoreError::damaged("the slot file is missing"));
        }
        let vault = Vault::new(slots::open(home, passphrase)?);
        let _lock = Lock::take(home)?;
        if !home::exists(&path)? {
            // A creation that was interrupted before its last step.
            let new = home::unfinished(&path);
            if !home::exists(&new)? {
                return Err(StoreError::damaged("store.db is missing"));
            }
            drop(connect(&new, &vault)?);
            home::rename(&new, &path)?;
        }
        slots::tidy(home)?;
        Store::ready(home, vault)
    }

    /// What it takes to open the store of a home.
    ///
    /// # Errors
    /// What the file system says, and files that others can reach.
    pub fn status(home: &Path) -> Result<Status, StoreError> {
        match home::check(home) {
            Err(StoreError::NotThere(_)) => return Ok(Status::Missing),
            found => found?,
        }
        Ok(match slots::found(home)? {
            Slots::None => Status::Missing,
            Slots::Machine => Status::Open,
            Slots::Passphrase => Status::NeedsPassphrase,
        })
    }

    /// Puts the store under another passphrase, or under none. The key of the store stays: who had both
    /// the old passphrase and the old slot file can open it still.
    ///
    /// # Errors
    /// [`StoreError::Busy`], [`StoreError::Io`], [`StoreError::Random`], [`StoreError::NoMemory`].
    pub fn change_passphrase(&mut self, new: Option<&Passphrase>, cost: Cost) -> Result<(), StoreError> {
        let _lock = Lock::take(&self.home)?;
        slots::write(&self.home, self.vault.dek(), new, cost)?;
        slots::remove_other(&self.home, new)
    }

    /// Where it lies.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Does all of `f` or nothing: when this returns `Ok`, what was done is on stable storage; when it
    /// returns an error, file and memory are what they were. No other process comes in between.
    ///
    /// # Errors
    /// Those of `f`; [`StoreError::Busy`] after 30 s; [`StoreError`] of loading and writing.
    pub fn transact<T, E: From<StoreError>>(&mut self, f: impl FnOnce(&mut Tx<'_>) -> Result<T, E>) -> Result<T, E> {
        let _lock = Lock::take(&self.home)?;
        self.follow()?;
        let sql = self.sql.transaction_with_behavior(TransactionBehavior::Immediate).map_err(StoreError::from)?;
        let version = schema::data_version(&sql)?;
        let cache = match self.cache.take().filter(|cache| cache.version == version) {
            Some(cache) => cache,
            None => Cache::load(&sql, &self.vault)?,
        };
        let mut tx = Tx::new(sql, &self.vault, cache, self.saving);
        match f(&mut tx) {
            Ok(value) => {
                self.cache = Some(tx.commit()?);
                Ok(value)
            }
            Err(error) => {
                self.cache = tx.abandon();
                Err(error)
            }
        }
    }

    /// From now on this process shows every message that comes, also one that another process which shares
    /// the home takes in first. Until then, and for who shows once, what was taken in was shown there.
    ///
    /// # Errors
    /// As [`Store::transact`].
    pub fn show_all(&mut self) -> Result<(), StoreError> {
        if self.shown.is_none() {
            self.shown = Some(self.transact(|tx| Ok::<_, StoreError>(tx.cursors()))?.into_iter().collect());
        }
        Ok(())
    }

    /// From now on a file whose message this process takes in or shows waits to be saved.
    pub fn save_files(&mut self) {
        self.saving = true;
    }

    /// How far this process has shown each conversation, if it shows every message ([`Store::show_all`]).
    pub fn shown(&mut self) -> &mut Option<BTreeMap<Target, u64>> {
        &mut self.shown
    }

    /// A home that was restored or replaced under us has another file: it is the one that counts.
    fn follow(&mut self) -> Result<(), StoreError> {
        let path = self.home.join(FILE);
        if home::identity(&path)? != self.file {
            self.cache = None;
            (self.sql, self.file) = connect(&path, &self.vault)?;
        }
        Ok(())
    }

    fn ready(home: &Path, vault: Vault) -> Result<Store, StoreError> {
        let (sql, file) = connect(&home.join(FILE), &vault)?;
        Ok(Store { home: home.to_owned(), vault, sql, file, cache: None, shown: None, saving: false })
    }
}

/// Opens a database under the lock, checks that it is of this key, and brings it to the newest version.
fn connect(path: &Path, vault: &Vault) -> Result<(Connection, (u64, u64)), StoreError> {
    let mut sql = schema::connect(path)?;
    schema::migrate(&mut sql, vault)?;
    Ok((sql, home::identity(path)?))
}

/// The rollback journal of a database.
fn journal(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push("-journal");
    name.into()
}

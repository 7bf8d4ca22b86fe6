//! The opened database file: what operator commands do with it, and how a daemon starts on it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FlockOperation, RenameFlags};

use super::files::{DIRECTORY, Data, Directory};
use super::seal::{Draft, Sealer, make_directory, sync_directory};
use super::sqlite::{Fault, Sqlite, refusal};
use super::worker::{FileAccess, Store, Wake};
use super::{DATABASE_FILE, LOCK_FILE, ServerKey, StoreError, schema};
use crate::ops::{AccountRow, AddressBlock, Sha256, Verifier};
use crate::protocol::{Timestamp, UserName};

/// How long a start waits for the lock: an operator command that is migrating holds it for a moment.
const LOCK_WAIT: Duration = Duration::from_millis(500);

/// The opened and migrated database of a data directory.
///
/// Each change is one durable transaction and may be made while a daemon runs on the same directory:
/// the daemon hears of it within a second.
pub struct Database {
    dir: PathBuf,
    sealer: Arc<Sealer>,
    sqlite: Sqlite,
}

/// What the core needs to know at the start.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// Addresses that may not connect.
    pub address_bans: Vec<AddressBlock>,
}

impl Database {
    /// Opens the database in the data directory `dir`, making both where there are none, and brings it to
    /// the newest version.
    ///
    /// # Errors
    /// A newer or foreign database, the wrong key, an older daemon that runs on a database to be
    /// migrated, and what the disk says.
    pub fn open(dir: &Path, key: &ServerKey) -> Result<Database, StoreError> {
        make_directory(dir)?;
        let path = dir.join(DATABASE_FILE);
        let sealer = Arc::new(Sealer::new(key));
        let mut sqlite = Sqlite::open(&path, Arc::clone(&sealer))?;
        let found = sqlite.version(&path)?;
        // A daemon of an older version would go on with a schema that it does not know.
        let _lock = if (1..schema::VERSION).contains(&found) {
            let older = StoreError::OlderDaemon { path: path.clone(), found, known: schema::VERSION };
            Some(lock(dir)?.ok_or(older)?)
        } else {
            None
        };
        sqlite.migrate(&path)?;
        sync_directory(dir)?;
        Ok(Database { dir: dir.to_owned(), sealer, sqlite })
    }

    fn change(
        &mut self,
        name: Option<&UserName>,
        write: impl FnOnce(&Sqlite) -> Result<(), Fault>,
    ) -> Result<(), StoreError> {
        self.sqlite.transaction(write).map_err(|fault| failed(fault, name))
    }

    /// Makes an account.
    ///
    /// # Errors
    /// [`StoreError::NameTaken`], and what the disk says.
    pub fn add_user(
        &mut self,
        name: &UserName,
        verifier: &Verifier,
        admin: bool,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.change(Some(name), |sqlite| sqlite.operator_add_user(now, name, verifier, admin))
    }

    /// Sets a password, ends every token and, in a running daemon, every session.
    ///
    /// # Errors
    /// [`StoreError::NoSuchUser`], and what the disk says.
    pub fn set_password(&mut self, name: &UserName, verifier: &Verifier, now: Timestamp) -> Result<(), StoreError> {
        self.change(Some(name), |sqlite| sqlite.operator_set_password(now, name, verifier))
    }

    /// All accounts, by name.
    ///
    /// # Errors
    /// What the disk says.
    pub fn users(&self) -> Result<Vec<AccountRow>, StoreError> {
        self.sqlite.operator_users().map_err(|fault| failed(fault, None))
    }

    /// Keeps an account from being logged in, or lets it again.
    ///
    /// # Errors
    /// [`StoreError::NoSuchUser`], and what the disk says.
    pub fn set_disabled(&mut self, name: &UserName, disabled: bool, now: Timestamp) -> Result<(), StoreError> {
        self.change(Some(name), |sqlite| sqlite.operator_set_disabled(now, name, disabled))
    }

    /// Erases an account; its name stays taken.
    ///
    /// # Errors
    /// [`StoreError::NoSuchUser`], and what the disk says.
    pub fn delete_user(&mut self, name: &UserName, now: Timestamp) -> Result<(), StoreError> {
        self.change(Some(name), |sqlite| sqlite.operator_delete_user(now, name))
    }

    /// Lets an account use `/admin`, or no longer.
    ///
    /// # Errors
    /// [`StoreError::NoSuchUser`], and what the disk says.
    pub fn set_admin(&mut self, name: &UserName, admin: bool, now: Timestamp) -> Result<(), StoreError> {
        self.change(Some(name), |sqlite| sqlite.operator_set_admin(now, name, admin))
    }

    /// Stores the hash of a new invitation code.
    ///
    /// # Errors
    /// [`StoreError::Refused`] with a quota where too many wait, and what the disk says.
    pub fn add_invite(&mut self, code: &Sha256, now: Timestamp) -> Result<(), StoreError> {
        self.change(None, |sqlite| sqlite.operator_add_invite(now, code))
    }

    /// Copies the database as it is at one moment to a new file `dest` (mode 0600), also while a daemon
    /// writes, and opens the copy to check it. The file appears when it is whole and checked. The server's
    /// key is not in it: what is sealed opens only with the `server.key` that is kept beside.
    ///
    /// # Errors
    /// [`StoreError::BackupExists`], [`StoreError::BackupBroken`], and what the disk says.
    pub fn backup(&self, dest: &Path) -> Result<(), StoreError> {
        let io = |error| StoreError::io(dest, error);
        let exists = || StoreError::BackupExists { path: dest.to_owned() };
        if fs::symlink_metadata(dest).is_ok() {
            return Err(exists());
        }
        let name = dest.file_name().ok_or_else(|| io(io::ErrorKind::InvalidInput.into()))?;
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}.part", std::process::id()));
        let draft = Draft(dest.with_file_name(hidden));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft.0).map_err(io)?;
        self.sqlite.copy_to(&draft.0)?;
        file.sync_all().map_err(io)?;
        // Never replaces a file, also not one that came meanwhile.
        match rustix::fs::renameat_with(CWD, &draft.0, CWD, dest, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            Err(rustix::io::Errno::EXIST) => return Err(exists()),
            Err(error) => return Err(io(error.into())),
        }
        let parent = dest.parent().filter(|parent| !parent.as_os_str().is_empty());
        sync_directory(parent.unwrap_or(Path::new(".")))
    }

    /// Starts the threads of a daemon on this database. `wake` is called from them, at most once a batch,
    /// after answers were put where [`Store::drain`] finds them; it must not block.
    ///
    /// # Errors
    /// [`StoreError::InUse`] where a daemon runs on the directory already, and what the system says.
    pub fn start(self, wake: Wake) -> Result<(Store, Loaded), StoreError> {
        let files = Directory::new(self.dir.join(DIRECTORY))?;
        self.start_with(wake, Arc::new(files))
    }

    /// The same with data of files that may stand elsewhere.
    pub(super) fn start_with(self, wake: Wake, data: Arc<dyn Data>) -> Result<(Store, Loaded), StoreError> {
        let lock = lock(&self.dir)?.ok_or_else(|| StoreError::InUse { path: self.dir.clone() })?;
        let loaded = Loaded { address_bans: self.sqlite.address_bans().map_err(|fault| failed(fault, None))? };
        let reader = || Sqlite::open_reader(&self.dir.join(DATABASE_FILE), Arc::clone(&self.sealer));
        let files = FileAccess { data, sealer: Arc::clone(&self.sealer), records: [reader()?, reader()?] };
        let reader = reader()?;
        Ok((Store::start(self.sqlite, reader, files, lock, wake)?, loaded))
    }
}

/// Takes the lock that marks a running daemon; `None` where another process holds it.
fn lock(dir: &Path) -> Result<Option<File>, StoreError> {
    let path = dir.join(LOCK_FILE);
    let io = |error| StoreError::io(&path, error);
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path).map_err(io)?;
    let since = Instant::now();
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Some(file)),
            Err(rustix::io::Errno::WOULDBLOCK) if since.elapsed() >= LOCK_WAIT => return Ok(None),
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => {
                // A lock has nothing that could be waited for; bounded by LOCK_WAIT, before anything runs.
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(error) => return Err(io(error.into())),
        }
    }
}

fn failed(fault: Fault, name: Option<&UserName>) -> StoreError {
    match fault {
        Fault::Refused(refused) => refusal(refused, name),
        Fault::Sql(source) => StoreError::sql("changing the database", source),
        Fault::Ours(_) => StoreError::Random,
    }
}

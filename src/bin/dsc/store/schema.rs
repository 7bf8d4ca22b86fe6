//! The file `store.db`: its shape, which is append-only migrations counted in `user_version`, and how
//! SQLite is told to treat it.
//!
//! A migration that was released is never edited; a change is a new file behind the last. Every one runs
//! in the same transaction as the step of `user_version`, so a store is always of exactly one version.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use super::StoreError;
use super::home::LOCK_WAIT;
use super::rows::Single;
use super::vault::Vault;

/// Entry `n` takes a store from version `n` to `n + 1`.
pub(super) const MIGRATIONS: [&str; 2] = [include_str!("schema/0001.sql"), include_str!("schema/0002.sql")];

/// The version that this program reads and writes.
pub(super) const VERSION: u32 = MIGRATIONS.len() as u32;

/// `PRAGMA application_id` of our files: "DwSc".
const APPLICATION_ID: i64 = 0x4477_5363;

/// Stands sealed in `single`: opens with the right key only.
const CHECK: &[u8] = b"sealed with the key of this store";

/// How long SQLite waits for processes that do not take our lock first: a backup, a person at `sqlite3`.
const BUSY_WAIT: Duration = LOCK_WAIT;

/// Opens a store's file, which must be there.
pub(super) fn connect(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let sql = Connection::open_with_flags(path, flags)?;
    sql.busy_timeout(BUSY_WAIT)?;
    // What is deleted is overwritten: keys are erased on use.
    sql.pragma_update(None, "secure_delete", true)?;
    // The journal is unlinked at commit and holds sealed rows only. EXTRA is FULL, and the unlinking is
    // on stable storage too: without that a power loss may undo a commit whose envelope is already out.
    let journal: String = sql.pragma_update_and_check(None, "journal_mode", "DELETE", |row| row.get(0))?;
    sql.pragma_update(None, "synchronous", "EXTRA")?;
    let synchronous: i64 = sql.pragma_query_value(None, "synchronous", |row| row.get(0))?;
    if journal != "delete" || synchronous != 3 {
        return Err(StoreError::damaged(format!("SQLite keeps its journal otherwise ({journal}, {synchronous})")));
    }
    sql.pragma_update(None, "temp_store", "MEMORY")?;
    // An I/O error of a mapped page is a signal that ends the process; one of a read is an error.
    sql.pragma_update(None, "mmap_size", 0)?;
    // Whoever could edit the file gets nothing run, and a page that is no page is found.
    sql.pragma_update(None, "trusted_schema", false)?;
    sql.pragma_update(None, "cell_size_check", true)?;
    sql.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    Ok(sql)
}

/// Makes a store of an empty file.
pub(super) fn create(sql: &mut Connection, vault: &Vault) -> Result<(), StoreError> {
    let tx = sql.transaction_with_behavior(TransactionBehavior::Immediate)?;
    MIGRATIONS.iter().try_for_each(|migration| tx.execute_batch(migration))?;
    let sealed = vault.seal(Single::TABLE, Single::Check.id(), CHECK)?;
    tx.execute("INSERT INTO single(id, sealed) VALUES (?1, ?2)", (Single::Check.id(), sealed))?;
    tx.pragma_update(None, "application_id", APPLICATION_ID)?;
    tx.pragma_update(None, "user_version", VERSION)?;
    Ok(tx.commit()?)
}

/// Checks that a file is a store of this key, and brings it to [`VERSION`]. An empty file is none: what
/// was there is lost, and is not to be passed over in silence.
pub(super) fn migrate(sql: &mut Connection, vault: &Vault) -> Result<(), StoreError> {
    let tx = sql.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let from: u32 = tx.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let application: i64 = tx.pragma_query_value(None, "application_id", |row| row.get(0))?;
    if application != APPLICATION_ID || from == 0 {
        return Err(StoreError::damaged("store.db is not a store of dsc"));
    }
    if from > VERSION {
        return Err(StoreError::Newer { found: from, known: VERSION });
    }
    check_key(&tx, vault)?;
    if from < VERSION {
        MIGRATIONS.iter().skip(from as usize).try_for_each(|migration| tx.execute_batch(migration))?;
        tx.pragma_update(None, "user_version", VERSION)?;
    }
    Ok(tx.commit()?)
}

/// Whether the store was made with this key.
fn check_key(sql: &Connection, vault: &Vault) -> Result<(), StoreError> {
    let found = sql.query_row("SELECT sealed FROM single WHERE id = ?1", [Single::Check.id()], |row| row.get(0));
    let sealed: Vec<u8> = match found {
        Err(rusqlite::Error::QueryReturnedNoRows) => return Err(StoreError::damaged("store.db is not whole")),
        found => found?,
    };
    match vault.open(Single::TABLE, Single::Check.id(), &sealed) {
        Ok(check) if *check == CHECK => Ok(()),
        _ => Err(StoreError::damaged("the slot file belongs to another store")),
    }
}

/// Changes whenever another connection has committed something.
pub(super) fn data_version(tx: &Transaction<'_>) -> Result<i64, StoreError> {
    Ok(tx.pragma_query_value(None, "data_version", |row| row.get(0))?)
}

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
use super::rows::Single;
use super::vault::Vault;

/// Entry `n` takes a store from version `n` to `n + 1`.
pub(super) const MIGRATIONS: [&str; 1] = [include_str!("schema/0001.sql")];

/// The version that this program reads and writes.
pub(super) const VERSION: u32 = MIGRATIONS.len() as u32;

/// `PRAGMA application_id` of our files: "DwSc".
const APPLICATION_ID: i64 = 0x4477_5363;

/// Stands sealed in `single`: opens with the right key only.
const CHECK: &[u8] = b"sealed with the key of this store";

/// How long SQLite waits for processes that do not take our lock first: a backup, a person at `sqlite3`.
const BUSY_WAIT: Duration = Duration::from_secs(10);

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
    debug_assert!(journal == "delete" && synchronous == 3);
    sql.pragma_update(None, "temp_store", "MEMORY")?;
    // An I/O error of a mapped page is a signal that ends the process; one of a read is an error.
    sql.pragma_update(None, "mmap_size", 0)?;
    // Whoever could edit the file gets nothing run, and a page that is no page is found.
    sql.pragma_update(None, "trusted_schema", false)?;
    sql.pragma_update(None, "cell_size_check", true)?;
    sql.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    Ok(sql)
}

/// Brings a store to [`VERSION`]; does nothing where it is there.
pub(super) fn migrate(sql: &mut Connection, vault: &Vault) -> Result<(), StoreError> {
    let tx = sql.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let from = version(&tx)?;
    for (step, migration) in (0..).zip(MIGRATIONS).skip(from as usize) {
        tx.execute_batch(migration)?;
        if step == 0 {
            let sealed = vault.seal(Single::TABLE, Single::Check.id(), CHECK)?;
            tx.execute("INSERT INTO single(id, sealed) VALUES (?1, ?2)", (Single::Check.id(), sealed))?;
        }
    }
    if from < VERSION {
        tx.pragma_update(None, "application_id", APPLICATION_ID)?;
        tx.pragma_update(None, "user_version", VERSION)?;
    }
    Ok(tx.commit()?)
}

/// The version of a store; 0 is an empty file.
fn version(sql: &Connection) -> Result<u32, StoreError> {
    let found: u32 = sql.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let application: i64 = sql.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let tables: i64 = sql.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    match found {
        _ if application == APPLICATION_ID && found > VERSION => Err(StoreError::Newer { found, known: VERSION }),
        _ if application == APPLICATION_ID => Ok(found),
        0 if application == 0 && tables == 0 => Ok(0),
        _ => Err(StoreError::damaged("store.db is not a store of dsc")),
    }
}

/// Whether the store was made with this key.
pub(super) fn check_key(sql: &Connection, vault: &Vault) -> Result<(), StoreError> {
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

//! The shape of the database: append-only migrations, counted in `user_version`.
//!
//! A migration that was released is never edited; a change is a new file behind the last. Every one
//! runs in the same transaction as the step of `user_version`, so a database is always of exactly one
//! version.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

use super::StoreError;
use super::seal::{Column, Sealer};

/// Entry `n` takes a database from version `n` to `n + 1`.
const MIGRATIONS: [&str; 3] =
    [include_str!("schema/0001.sql"), include_str!("schema/0002.sql"), include_str!("schema/0003.sql")];

/// The version that this program reads and writes.
pub(super) const VERSION: usize = MIGRATIONS.len();

/// `PRAGMA application_id` of our databases: "DwSt".
const APPLICATION_ID: i64 = 0x4477_5374;

/// Stands sealed in the table `meta`; opens with the right key only.
const CHECK: &[u8] = b"sealed with the key of this database";

/// The version of a database; 0 is an empty one.
pub(super) fn version(conn: &Connection, path: &Path) -> Result<usize, StoreError> {
    let sql = |error| StoreError::sql("reading the version of the database", error);
    let version: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(sql)?;
    let application: i64 = conn.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(sql)?;
    let tables: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(sql)?;
    match usize::try_from(version) {
        Ok(found) if application == APPLICATION_ID && found > VERSION => {
            Err(StoreError::NewerSchema { path: path.to_owned(), found, known: VERSION })
        }
        Ok(found) if application == APPLICATION_ID => Ok(found),
        Ok(0) if application == 0 && tables == 0 => Ok(0),
        _ => Err(StoreError::NotOurs { path: path.to_owned() }),
    }
}

/// Brings a database to [`VERSION`]; does nothing where it is there.
pub(super) fn migrate(conn: &mut Connection, sealer: &Sealer, path: &Path) -> Result<(), StoreError> {
    let sql = |error| StoreError::sql("migrating the database", error);
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sql)?;
    let from = version(&tx, path)?;
    for (step, migration) in MIGRATIONS.iter().enumerate().skip(from) {
        tx.execute_batch(migration).map_err(sql)?;
        if step == 0 {
            let sealed = sealer.key(Column::Check, 0).seal(0, CHECK).map_err(|_| StoreError::Random)?;
            tx.execute("INSERT INTO meta(key, value) VALUES ('check', ?1)", [sealed]).map_err(sql)?;
        }
        log::info!("the database is now of version {}", step + 1);
    }
    if from < VERSION {
        tx.pragma_update(None, "application_id", APPLICATION_ID).map_err(sql)?;
        tx.pragma_update(None, "user_version", VERSION as i64).map_err(sql)?;
    }
    tx.commit().map_err(sql)
}

/// Whether the database was sealed with this key.
pub(super) fn check_key(conn: &Connection, sealer: &Sealer, path: &Path) -> Result<(), StoreError> {
    let sealed: Option<Vec<u8>> = conn
        .query_row("SELECT value FROM meta WHERE key = 'check'", [], |row| row.get(0))
        .optional()
        .map_err(|error| StoreError::sql("reading the key check", error))?;
    match sealed.and_then(|sealed| sealer.key(Column::Check, 0).open(0, &sealed)) {
        Some(plain) if plain == CHECK => Ok(()),
        _ => Err(StoreError::WrongKey { path: path.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::seal::ServerKey;
    use sha2::{Digest, Sha256};

    /// A released migration is never edited: this fails where one was.
    #[test]
    fn released_migrations_are_frozen() {
        let released = [
            "4ca4f2eda791aa9770677366f8657341ac41d7eae0076f5696c65f12b0517fce",
            "572a1854019967cc6d653cc13899f86843324cad421f010ea01e9da485a2f938",
            "599e5e79ad400f0db70d88056528176f247af803f27c3042d6119784b0e58a14",
        ];
        assert_eq!(released.len(), MIGRATIONS.len());
        for (migration, digest) in MIGRATIONS.iter().zip(released) {
            let found: String = Sha256::digest(migration).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(found, digest);
        }
    }

    #[test]
    fn an_empty_database_becomes_ours_once() {
        let sealer = Sealer::new(&ServerKey::ephemeral().unwrap());
        let path = Path::new("x.db");
        let mut conn = Connection::open_in_memory().unwrap();
        assert_eq!(version(&conn, path).unwrap(), 0);
        migrate(&mut conn, &sealer, path).unwrap();
        migrate(&mut conn, &sealer, path).unwrap();
        assert_eq!(version(&conn, path).unwrap(), VERSION);
        check_key(&conn, &sealer, path).unwrap();
        let other = Sealer::new(&ServerKey::ephemeral().unwrap());
        let error = check_key(&conn, &other, path).unwrap_err();
        assert!(error.to_string().contains("server.key"), "{error}");
    }

    #[test]
    fn a_newer_or_foreign_database_is_refused() {
        let sealer = Sealer::new(&ServerKey::ephemeral().unwrap());
        let path = Path::new("x.db");
        let mut conn = Connection::open_in_memory().unwrap();
        migrate(&mut conn, &sealer, path).unwrap();
        conn.pragma_update(None, "user_version", VERSION as i64 + 1).unwrap();
        let error = migrate(&mut conn, &sealer, path).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, StoreError::NewerSchema { .. }));
        assert!(text.contains(&VERSION.to_string()) && text.contains(&(VERSION + 1).to_string()), "{text}");

        let mut foreign = Connection::open_in_memory().unwrap();
        foreign.execute_batch("CREATE TABLE t(x)").unwrap();
        assert!(matches!(migrate(&mut foreign, &sealer, path), Err(StoreError::NotOurs { .. })));
    }
}

//! Tables that are held in memory: where the row of each key stands, and what of it is to be written.

use std::collections::{BTreeMap, BTreeSet};

use downstream::e2e::error::Damaged;
use rusqlite::{Connection, OptionalExtension};
use zeroize::Zeroizing;

use super::StoreError;
use super::vault::Vault;

/// What there is one of. The numbers are ids of rows and never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Single {
    /// Shows that the key is the right one.
    Check = 1,
    /// This device.
    Identity = 2,
    /// Its private prekeys.
    Prekeys = 3,
    /// The account's identity key, on the primary device.
    AccountKey = 4,
    /// Server, user and token.
    Profile = 5,
}

impl Single {
    pub(super) const TABLE: &str = "single";

    pub(super) fn id(self) -> i64 {
        self as i64
    }

    /// Writes the row, or erases it.
    pub(super) fn write(
        self,
        sql: &Connection,
        vault: &Vault,
        plain: Option<Zeroizing<Vec<u8>>>,
    ) -> Result<(), StoreError> {
        put(sql, vault, Single::TABLE, self.id(), plain)
    }

    pub(super) fn read(self, sql: &Connection, vault: &Vault) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        let sealed: Option<Vec<u8>> = sql
            .prepare_cached("SELECT sealed FROM single WHERE id = ?1")?
            .query_row([self.id()], |row| row.get(0))
            .optional()?;
        sealed.map(|sealed| vault.open(Single::TABLE, self.id(), &sealed)).transpose()
    }
}

/// A count or a length that SQLite gives.
pub(super) fn count(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<usize> {
    let count: i64 = row.get(column)?;
    usize::try_from(count).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, count))
}

fn put(
    sql: &Connection,
    vault: &Vault,
    table: &str,
    id: i64,
    plain: Option<Zeroizing<Vec<u8>>>,
) -> Result<(), StoreError> {
    match plain {
        Some(plain) => {
            let sealed = vault.seal(table, id, &plain)?;
            let upsert = format!(
                "INSERT INTO {table}(id, sealed) VALUES (?1, ?2) ON CONFLICT(id) DO UPDATE SET sealed = excluded.sealed"
            );
            sql.prepare_cached(&upsert)?.execute((id, sealed))?;
        }
        None => {
            sql.prepare_cached(&format!("DELETE FROM {table} WHERE id = ?1"))?.execute([id])?;
        }
    }
    Ok(())
}

/// The rows of one table by their keys.
pub(super) struct Rows<K> {
    table: &'static str,
    ids: BTreeMap<K, i64>,
    last: i64,
    touched: BTreeSet<K>,
}

impl<K: Ord + Clone> Rows<K> {
    /// Reads a whole table. `read` takes in a row and says its key.
    pub(super) fn load(
        sql: &Connection,
        vault: &Vault,
        table: &'static str,
        mut read: impl FnMut(&[u8]) -> Result<K, Damaged>,
    ) -> Result<Rows<K>, StoreError> {
        let mut rows = Rows { table, ids: BTreeMap::new(), last: 0, touched: BTreeSet::new() };
        let mut found = sql.prepare_cached(&format!("SELECT id, sealed FROM {table} ORDER BY id"))?;
        let mut found = found.query([])?;
        while let Some(row) = found.next()? {
            let (id, sealed): (i64, Vec<u8>) = (row.get(0)?, row.get(1)?);
            let damaged = || StoreError::damaged(format!("row {id} of {table} is not what was written there"));
            let key = read(&vault.open(table, id, &sealed)?).map_err(|Damaged| damaged())?;
            if rows.ids.insert(key, id).is_some() {
                return Err(damaged());
            }
            rows.last = id;
        }
        Ok(rows)
    }

    /// The row of this key is to be written at the end, or erased.
    pub(super) fn touch(&mut self, key: &K) {
        self.touched.insert(key.clone());
        if !self.ids.contains_key(key) {
            self.last = self.last.saturating_add(1);
            self.ids.insert(key.clone(), self.last);
        }
    }

    pub(super) fn touch_each<'k>(&mut self, keys: impl IntoIterator<Item = &'k K>)
    where
        K: 'k,
    {
        keys.into_iter().for_each(|key| self.touch(key));
    }

    /// From now on there are these keys and no others.
    pub(super) fn replace<'k>(&mut self, keys: impl IntoIterator<Item = &'k K>)
    where
        K: 'k,
    {
        self.touched.extend(self.ids.keys().cloned());
        self.touch_each(keys);
    }

    /// The id of a key's row, which stays as long as the row.
    pub(super) fn id(&self, key: &K) -> Option<i64> {
        self.ids.get(key).copied()
    }

    /// Writes what was touched; a key without a value is erased.
    pub(super) fn write(
        &mut self,
        sql: &Connection,
        vault: &Vault,
        value: impl Fn(&K) -> Option<Zeroizing<Vec<u8>>>,
    ) -> Result<(), StoreError> {
        for key in std::mem::take(&mut self.touched) {
            let Some(id) = self.ids.get(&key).copied() else { continue };
            let plain = value(&key);
            if plain.is_none() {
                self.ids.remove(&key);
            }
            put(sql, vault, self.table, id, plain)?;
        }
        Ok(())
    }
}

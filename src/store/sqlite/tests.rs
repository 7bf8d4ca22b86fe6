//! Ways for the tests of the store to break things.

use super::*;

pub(super) fn io_error() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR_FSYNC), None)
}

impl Sqlite {
    /// Bounds the file, as a full disk does.
    pub(in crate::store) fn limit_pages(&self, pages: i64) {
        self.conn.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(())).unwrap();
    }

    /// The next commit fails before it begins.
    pub(in crate::store) fn fail_next_commit(&self) {
        self.commit_fails.set(true);
    }

    /// Every write is refused by the engine.
    pub(in crate::store) fn read_only(&self, on: bool) {
        self.conn.pragma_update(None, "query_only", on).unwrap();
    }

    /// Changes the database behind everybody's back.
    pub(in crate::store) fn change(&self, sql: &str) {
        self.conn.execute_batch(sql).unwrap();
    }

    /// The number that a query finds.
    pub(in crate::store) fn number(&self, sql: &str) -> i64 {
        self.conn.query_row(sql, [], |row| row.get(0)).unwrap()
    }

    /// How the engine would search.
    pub(in crate::store) fn plan(&self, sql: &str) -> String {
        let mut statement = self.conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        for parameter in 1..=statement.parameter_count() {
            statement.raw_bind_parameter(parameter, rusqlite::types::Null).unwrap();
        }
        let rows = statement.raw_query().mapped(|row| row.get::<_, String>(3));
        rows.collect::<Result<Vec<_>, _>>().unwrap().join("; ")
    }
}

#[test]
fn errors_of_the_disk_sink_a_batch_and_others_do_not() {
    use rusqlite::ffi;
    let error = |code| rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
    // SQLite may have rolled the whole transaction back after these.
    for code in [ffi::SQLITE_FULL, ffi::SQLITE_IOERR, ffi::SQLITE_NOMEM, ffi::SQLITE_CORRUPT, ffi::SQLITE_READONLY] {
        assert!(!is_of_one_statement(&error(code)), "{code}");
        assert!(!advice(&error(code)).is_empty());
    }
    for code in [ffi::SQLITE_CONSTRAINT_UNIQUE, ffi::SQLITE_MISMATCH, ffi::SQLITE_TOOBIG] {
        assert!(is_of_one_statement(&error(code)), "{code}");
    }
    assert!(is_of_one_statement(&rusqlite::Error::QueryReturnedNoRows));
}

#[test]
fn patterns_search_only_where_they_can_match() {
    let glob = Glob::new(Some("Ab?*")).unwrap();
    assert_eq!((glob.pattern.as_str(), glob.from.as_str()), ("ab?*", "ab"));
    assert!(glob.to.as_str() > "abzzz" && glob.to.as_str() < "ac");
}

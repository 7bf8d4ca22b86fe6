//! Deleting what has outlived its time, sizes, and copying the write-ahead log back.

use std::path::Path;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use super::messages::{row_key, split_row_key};
use super::{BatchLost, Outcomes, Sqlite};
use crate::ops::{AccountId, Answer, ConversationId, MessageId, Outcome, POST_KEY_LIFE_MS, Sweep, Totals};
use crate::protocol::{FileId, Timestamp};
use crate::store::{StoreError, schema};

/// Rows that one sweep deletes: some milliseconds of the writing thread.
const SWEEP_ROWS: usize = 1000;
/// Bytes of bodies that one sweep deletes; they are overwritten, so this much goes through the log.
const SWEEP_BYTES: usize = 4 << 20;
/// How long an announcement is kept: a running daemon reads it within a second.
const ANNOUNCEMENT_LIFE_MS: u64 = 24 * 3600 * 1000;

/// What a sweep may still do.
pub(super) struct Budget {
    rows: usize,
    bytes: usize,
}

impl Budget {
    /// That of one sweep.
    pub(super) fn new() -> Budget {
        Budget { rows: SWEEP_ROWS, bytes: SWEEP_BYTES }
    }

    /// Takes one row with a body of so many bytes off.
    pub(super) fn take(&mut self, bytes: i64) {
        self.rows = self.rows.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(usize::try_from(bytes).unwrap_or(0));
    }

    pub(super) fn is_used_up(&self) -> bool {
        self.rows == 0 || self.bytes == 0
    }

    /// Rows that are left, as SQL takes a limit.
    pub(super) fn rows(&self) -> i64 {
        i64::try_from(self.rows).unwrap_or(i64::MAX)
    }
}

impl Sqlite {
    pub(super) fn sweep(&self, now: Timestamp, sweep: &Sweep) -> Outcomes<Outcome> {
        let mut budget = Budget::new();
        self.delete_old(
            &mut budget,
            "DELETE FROM post WHERE (sender, key) IN (SELECT sender, key FROM post WHERE time <= ?1 LIMIT ?2)",
            now.earlier_by(POST_KEY_LIFE_MS),
        )?;
        self.delete_old(
            &mut budget,
            "DELETE FROM code WHERE hash IN (SELECT hash FROM code WHERE expires <= ?1 LIMIT ?2)",
            now,
        )?;
        self.sweep_announcements(&mut budget, now)?;
        self.sweep_orphans(&mut budget)?;
        self.sweep_mailboxes(&mut budget)?;
        self.sweep_signals(&mut budget, now)?;
        if let Some(before) = sweep.messages_before {
            self.sweep_messages(&mut budget, before)?;
            self.sweep_rooms(&mut budget, before)?;
        }
        if let Some(before) = sweep.uploads_before {
            self.sweep_uploads(&mut budget, before)?;
        }
        if let Some(before) = sweep.files_before {
            self.sweep_files(&mut budget, before)?;
        }
        // Behind the rooms, so that it takes those of the rooms that went now.
        self.sweep_rosters(&mut budget)?;
        Ok(Outcome::Swept { more: budget.is_used_up() })
    }

    fn delete_old(&self, budget: &mut Budget, sql: &str, before: Timestamp) -> Outcomes<()> {
        let deleted = self.execute(sql, (before, budget.rows()))?;
        budget.rows = budget.rows.saturating_sub(deleted);
        Ok(())
    }

    fn sweep_announcements(&self, budget: &mut Budget, now: Timestamp) -> Outcomes<()> {
        let before = now.earlier_by(ANNOUNCEMENT_LIFE_MS);
        let old: Vec<i64> =
            self.list("SELECT id FROM announcement WHERE time <= ?1 LIMIT ?2", (before, budget.rows()), |row| {
                row.get(0)
            })?;
        for id in old {
            self.execute("DELETE FROM announcement_room WHERE announcement = ?1", [id])?;
            self.execute("DELETE FROM announcement WHERE id = ?1", [id])?;
            budget.rows = budget.rows.saturating_sub(1);
        }
        Ok(())
    }

    /// Deletes logs that nobody can read any more, and uploads to rooms that are gone.
    fn sweep_orphans(&self, budget: &mut Budget) -> Outcomes<()> {
        while !budget.is_used_up() {
            let next = self.find("SELECT conversation FROM orphan LIMIT 1", [], |row| row.get(0))?;
            let Some(conversation) = next else { break };
            if self.delete_front(budget, conversation, None)? && self.void_uploads_to(budget, conversation)? {
                self.execute("DELETE FROM conversation WHERE id = ?1", [conversation])?;
                self.execute("DELETE FROM orphan WHERE conversation = ?1", [conversation])?;
            }
        }
        Ok(())
    }

    fn sweep_messages(&self, budget: &mut Budget, before: Timestamp) -> Outcomes<()> {
        while !budget.is_used_up() {
            let sql = "SELECT id FROM conversation WHERE oldest_time < ?1 ORDER BY oldest_time LIMIT 1";
            let Some(conversation) = self.find(sql, [before], |row| row.get(0))? else { break };
            self.delete_front(budget, conversation, Some(before))?;
        }
        Ok(())
    }

    /// Deletes messages at the front of a log, those before a point in time or all; whether it is empty.
    fn delete_front(
        &self,
        budget: &mut Budget,
        conversation: ConversationId,
        before: Option<Timestamp>,
    ) -> Outcomes<bool> {
        let from = row_key(conversation, MessageId(0));
        let to = row_key(ConversationId(conversation.0 + 1), MessageId(0));
        let mut old: Vec<(i64, AccountId, Option<FileId>)> = Vec::new();
        {
            let sql = "SELECT id, time, sender, length(body), file FROM message WHERE id > ?1 AND id < ?2 ORDER BY id";
            let mut statement = self.statement(sql)?;
            let mut rows = statement.query((from, to))?;
            while !budget.is_used_up() {
                let Some(row) = rows.next()? else { break };
                // Times never fall within a log, so the first that is young enough ends it.
                if before.is_some_and(|before| row.get(1).is_ok_and(|time: Timestamp| time >= before)) {
                    break;
                }
                old.push((row.get(0)?, row.get(2)?, row.get(4)?));
                budget.take(row.get(3)?);
            }
        }
        for (row, sender, file) in old {
            self.forget_own(sender, conversation, split_row_key(row).1)?;
            self.execute("DELETE FROM message WHERE id = ?1", [row])?;
            if let Some(file) = file {
                self.forget_file(file)?;
            }
        }
        let sql = "SELECT id, time FROM message WHERE id > ?1 AND id < ?2 ORDER BY id LIMIT 1";
        let left: Option<(i64, Timestamp)> = self.find(sql, (from, to), |row| Ok((row.get(0)?, row.get(1)?)))?;
        let oldest = left.map(|(row, _)| split_row_key(row).1);
        let sql = "UPDATE conversation SET oldest = coalesce(?2, last + 1), oldest_time = ?3 WHERE id = ?1";
        self.execute(sql, (conversation, oldest, left.map(|(_, time)| time)))?;
        Ok(left.is_none())
    }

    /// Removes rooms that have been empty for as long as messages are kept, once their logs are.
    fn sweep_rooms(&self, budget: &mut Budget, before: Timestamp) -> Outcomes<()> {
        let sql = "SELECT r.id FROM room r JOIN conversation c ON c.id = r.id
                   WHERE r.empty_since < ?1 AND c.oldest_time IS NULL LIMIT ?2";
        for room in self.list(sql, (before, budget.rows()), |row| row.get(0))? {
            self.remove_room(room)?;
            budget.rows = budget.rows.saturating_sub(1);
        }
        Ok(())
    }

    pub(super) fn totals(&self) -> Outcomes<Answer> {
        let pages: u64 = self.count("SELECT page_count FROM pragma_page_count()", [])?;
        let page_size: u64 = self.count("SELECT page_size FROM pragma_page_size()", [])?;
        Ok(Answer::Totals(Totals {
            accounts: self.count("SELECT count(*) FROM account WHERE erased = 0", [])?,
            rooms: self.count("SELECT count(*) FROM room", [])?,
            // Numbers are dense, so nothing has to be counted.
            messages: self.count("SELECT coalesce(sum(last - oldest + 1), 0) FROM conversation", [])?,
            files: self.file_use(AccountId(0))?.files,
            file_bytes: self.file_use(AccountId(0))?.bytes,
            database_bytes: pages.saturating_mul(page_size),
        }))
    }

    /// Pages in the write-ahead log.
    pub(in crate::store) fn log_pages(&self) -> Result<i64, BatchLost> {
        self.checkpoint_as("PRAGMA wal_checkpoint(NOOP)")
    }

    /// Copies the write-ahead log back to the database as far as nobody reads from it; waits for nobody.
    pub(in crate::store) fn checkpoint(&self) -> Result<(), BatchLost> {
        self.checkpoint_as("PRAGMA wal_checkpoint(PASSIVE)").map(drop)
    }

    /// Copies all of the write-ahead log back and empties it.
    pub(in crate::store) fn checkpoint_all(&self) -> Result<(), BatchLost> {
        self.checkpoint_as("PRAGMA wal_checkpoint(TRUNCATE)").map(drop)
    }

    fn checkpoint_as(&self, sql: &str) -> Result<i64, BatchLost> {
        Ok(self.conn.prepare_cached(sql)?.query_row([], |row| row.get(1))?)
    }

    /// Copies the database as it is at this moment into the empty file `dest`, as one file without a
    /// write-ahead log, and checks the copy.
    pub(in crate::store) fn copy_to(&self, dest: &Path) -> Result<(), StoreError> {
        let sql = |error| StoreError::sql("copying the database", error);
        let mut copy = Connection::open_with_flags(dest, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(sql)?;
        // The file appears under its name only when it is whole, so the copy needs no journal.
        copy.pragma_update(None, "journal_mode", "OFF").map_err(sql)?;
        {
            let backup = Backup::new(&self.conn, &mut copy).map_err(sql)?;
            // All in one step is one snapshot. In pieces, a busy daemon would make it begin again for ever.
            if backup.step(-1).map_err(sql)? != StepResult::Done {
                return Err(StoreError::BackupBroken { found: "the database was locked".to_owned() });
            }
        }
        let mode: String =
            copy.pragma_update_and_check(None, "journal_mode", "DELETE", |row| row.get(0)).map_err(sql)?;
        copy.close().map_err(|(_, error)| sql(error))?;

        let copy = Connection::open_with_flags(dest, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(sql)?;
        let found: String = copy.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(sql)?;
        if found != "ok" || mode != "delete" {
            return Err(StoreError::BackupBroken { found });
        }
        let version = schema::version(&copy, dest)?;
        if version != schema::VERSION {
            return Err(StoreError::BackupBroken { found: format!("version {version}") });
        }
        schema::check_key(&copy, &self.sealer, dest)
    }
}

//! The records in SQLite: one connection, and what each write and read does with it. The files below
//! this one are the only ones with SQL.
//!
//! [`Sqlite`] holds no state of its own beside the clock and what is known of the disk, so that a transaction rolled back leaves
//! nothing behind.

mod accounts;
mod credentials;
mod directory;
mod files;
mod listings;
mod logs;
mod markers;
mod messages;
mod moderation;
mod operator;
mod people;
mod rooms;
mod rosters;
mod signals;
mod upkeep;
mod values;

use files::Announced;
pub(super) use files::{Progress, Progressed, Step, UploadRow};
pub(super) use operator::refusal;
use values::person;

use std::cell::Cell;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{CachedStatement, Connection, ErrorCode, OpenFlags, OptionalExtension, Params, Row};

use super::StoreError;
use super::schema;
use super::seal::{Column, LogKeys, SealError, Sealer};
use crate::ops::{Answer, Op, Outcome, Query, Refused};
use crate::protocol::Timestamp;

/// Most messages of one log: half of what a sealing key may be used for, see [`super::seal`], and what
/// the lower half of a message's row key holds.
pub(super) const MESSAGES_MAX: u64 = 1 << 31;

// ---- limits of growth ----------------------------------------------------------------------------
// None of them is met in ordinary use; each keeps one account or one room from filling the disk or
// making a command slow.

/// Rooms that one account made and that still exist: names are a common good.
pub(super) const ROOMS_PER_ACCOUNT: u64 = 1000;
/// Rooms that one account is a member of: all of them are told at each login.
pub(super) const MEMBERSHIPS_PER_ACCOUNT: u64 = 1000;
/// Members of one room: a fan-out and a member list stay below a few milliseconds.
pub(super) const MEMBERS_PER_ROOM: u64 = 10_000;
/// Bans of one room.
pub(super) const BANS_PER_ROOM: u64 = 1000;
/// Invitations to one room that nobody took up yet.
pub(super) const INVITATIONS_PER_ROOM: u64 = 1000;
/// Invitations that wait for one account: all of them are told at each login.
pub(super) const INVITATIONS_PER_ACCOUNT: u64 = 1000;
/// Tokens of one account: more than anybody has devices and programs.
pub(super) const TOKENS_PER_ACCOUNT: u64 = 100;
/// Certificates of one account.
pub(super) const CERTIFICATES_PER_ACCOUNT: u64 = 16;
/// Unused invitation codes of the server.
pub(super) const CODES: u64 = 1000;
/// Banned addresses and networks: they are kept in memory and looked through at each accept.
pub(super) const ADDRESS_BANS: u64 = 10_000;
/// Longest pattern of a list, in bytes: a name with every letter as a class fits.
pub(super) const GLOB_BYTES: usize = 256;
/// Most `*` of a pattern: each may try every position of a name.
pub(super) const GLOB_STARS: usize = 8;

// ---- the connection ------------------------------------------------------------------------------

/// Page cache of the writing connection, in KiB: the leaves of the logs that are written to.
const WRITER_CACHE_KIB: i64 = 32 * 1024;
/// Page cache of the reading connection, in KiB: inner nodes; pages of logs come from the system's cache.
const READER_CACHE_KIB: i64 = 8 * 1024;
/// Prepared statements kept: all there are.
const STATEMENTS: usize = 256;
/// How long a transaction waits for one of another process. The poll is short because a busy daemon
/// leaves only small gaps.
const BUSY_WAIT: Duration = Duration::from_secs(20);
/// See [`BUSY_WAIT`].
const BUSY_POLL: Duration = Duration::from_millis(1);
/// Length to which the write-ahead log is cut after a peak, in bytes.
const WAL_KEEP: i64 = 64 << 20;

/// The newest time that is stored anywhere.
const NEWEST_TIME: &str = "SELECT max(coalesce((SELECT max(last_time) FROM conversation), 0),
                                      coalesce((SELECT max(time) FROM signal), 0))";

/// A connection and what seals its columns.
pub(super) struct Sqlite {
    conn: Connection,
    sealer: Arc<Sealer>,
    log_keys: LogKeys,
    mailbox_keys: LogKeys,
    /// The newest time of a message or signal, in milliseconds; no later one gets an earlier one.
    clock: Cell<u64>,
    /// Bytes that uploads may still take of the disk, as it was last looked at.
    spare: Cell<u64>,
    /// Files were put into the trash. Said once too often, where a batch is lost, is harmless.
    trashed: Cell<bool>,
    #[cfg(test)]
    commit_fails: Cell<bool>,
}

/// Why a write or a read did not succeed.
#[derive(Debug)]
pub(super) enum Fault {
    /// It was refused, by the rules; nothing was changed.
    Refused(Refused),
    /// The engine, the disk, or what is on it.
    Sql(rusqlite::Error),
    /// No randomness, or a record that breaks a rule of ours.
    Ours(&'static str),
}

impl From<Refused> for Fault {
    fn from(refused: Refused) -> Fault {
        Fault::Refused(refused)
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Fault {
        Fault::Sql(error)
    }
}

impl From<BatchLost> for Fault {
    fn from(lost: BatchLost) -> Fault {
        match lost {
            BatchLost::Engine(error) => Fault::Sql(error),
            BatchLost::Unguarded => Fault::Ours("a write failed in the middle"),
        }
    }
}

impl From<SealError> for Fault {
    fn from(_: SealError) -> Fault {
        Fault::Ours("no randomness to seal with")
    }
}

/// The result of everything in the files below.
type Outcomes<T> = Result<T, Fault>;

/// What is wrong with the whole batch, not with one operation.
#[derive(Debug, thiserror::Error)]
pub(super) enum BatchLost {
    /// The engine, the disk or memory failed.
    #[error("{0}")]
    Engine(#[from] rusqlite::Error),
    /// A write without a savepoint could not be done. Nothing else is wrong: with savepoints the others
    /// succeed.
    #[error("a write failed in the middle")]
    Unguarded,
}

/// Whether a write can be undone alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Guard {
    /// Every write has a savepoint.
    Always,
    /// An append has none, because it is refused before it changes anything or fails by a defect of ours;
    /// that costs the batch, which is then repeated with savepoints.
    NotForAppends,
}

impl Sqlite {
    /// Opens the database file for writing, making it where there is none.
    pub(super) fn open(path: &Path, sealer: Arc<Sealer>) -> Result<Sqlite, StoreError> {
        let sql = |error| StoreError::sql("opening the database", error);
        // SQLite gives its other files the mode of this one.
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
        drop(file.map_err(|error| StoreError::io(path, error))?);
        let mut conn = Connection::open_with_flags(path, OpenFlags::default()).map_err(sql)?;
        wait_for_others(&mut conn).map_err(sql)?;
        // Before anything is written: a file that is not ours, or newer than us, stays as it is.
        schema::version(&conn, path)?;
        let mode: String = conn.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0)).map_err(sql)?;
        conn.pragma_update(None, "synchronous", "FULL").map_err(sql)?;
        let synchronous: i64 = conn.pragma_query_value(None, "synchronous", |row| row.get(0)).map_err(sql)?;
        if mode != "wal" || synchronous != 2 {
            return Err(StoreError::NotDurable { mode, synchronous });
        }
        conn.pragma_update(None, "cache_size", -WRITER_CACHE_KIB).map_err(sql)?;
        conn.pragma_update(None, "journal_size_limit", WAL_KEEP).map_err(sql)?;
        // The log is copied back between batches, not inside a commit; see `checkpoint`.
        conn.pragma_update(None, "wal_autocheckpoint", 0).map_err(sql)?;
        // What is deleted is overwritten. Appends free nothing, so this costs sweeps and erasures only.
        conn.pragma_update(None, "secure_delete", true).map_err(sql)?;
        Sqlite::configured(conn, sealer).map_err(sql)
    }

    /// Opens the database file for reading beside a [`Sqlite::open`] one.
    pub(super) fn open_reader(path: &Path, sealer: Arc<Sealer>) -> Result<Sqlite, StoreError> {
        let sql = |error| StoreError::sql("opening the database for reading", error);
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut conn = Connection::open_with_flags(path, flags).map_err(sql)?;
        wait_for_others(&mut conn).map_err(sql)?;
        conn.pragma_update(None, "query_only", true).map_err(sql)?;
        conn.pragma_update(None, "cache_size", -READER_CACHE_KIB).map_err(sql)?;
        Sqlite::configured(conn, sealer).map_err(sql)
    }

    /// A database in memory, with the newest schema.
    pub(super) fn in_memory(sealer: Arc<Sealer>) -> Result<Sqlite, StoreError> {
        let sql = |error| StoreError::sql("opening a database in memory", error);
        let conn = Connection::open_in_memory().map_err(sql)?;
        let mut sqlite = Sqlite::configured(conn, sealer).map_err(sql)?;
        sqlite.migrate(Path::new(":memory:"))?;
        Ok(sqlite)
    }

    fn configured(conn: Connection, sealer: Arc<Sealer>) -> rusqlite::Result<Sqlite> {
        conn.set_prepared_statement_cache_capacity(STATEMENTS);
        // Savepoints journal in memory; a batch is bounded, so this is too.
        conn.pragma_update(None, "temp_store", "MEMORY")?;
        // An I/O error of a mapped page is a signal that ends the process; one of a read is an error.
        conn.pragma_update(None, "mmap_size", 0)?;
        conn.pragma_update(None, "foreign_keys", false)?;
        conn.pragma_update(None, "trusted_schema", false)?;
        // Statements are prepared once: without this, some are planned anew for each value bound to them.
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        Ok(Sqlite {
            conn,
            sealer,
            log_keys: LogKeys::new(Column::Body),
            mailbox_keys: LogKeys::new(Column::Signal),
            clock: Cell::new(0),
            spare: Cell::new(u64::MAX),
            trashed: Cell::new(false),
            #[cfg(test)]
            commit_fails: Cell::new(false),
        })
    }

    /// The version of the schema as it is.
    pub(super) fn version(&self, path: &Path) -> Result<usize, StoreError> {
        schema::version(&self.conn, path)
    }

    /// Brings the schema to the newest version and checks the key.
    pub(super) fn migrate(&mut self, path: &Path) -> Result<(), StoreError> {
        schema::migrate(&mut self.conn, &self.sealer, path)?;
        schema::check_key(&self.conn, &self.sealer, path)?;
        let newest: Option<i64> = self
            .conn
            .query_row(NEWEST_TIME, [], |row| row.get(0))
            .map_err(|error| StoreError::sql("reading the newest time", error))?;
        self.clock.set(newest.and_then(|time| time.try_into().ok()).unwrap_or(0));
        Ok(())
    }

    /// The time of what is stored now: `now`, but never before the newest message or signal.
    fn tick(&self, now: Timestamp) -> Timestamp {
        self.clock.set(self.clock.get().max(now.as_millis()));
        Timestamp::from_millis(self.clock.get())
    }

    // ---- transactions ----

    /// Begins a batch and takes the write lock.
    pub(super) fn begin(&self) -> Result<(), BatchLost> {
        self.run("BEGIN IMMEDIATE")
    }

    /// Puts a batch on stable storage.
    pub(super) fn commit(&self) -> Result<(), BatchLost> {
        #[cfg(test)]
        if self.commit_fails.take() {
            return Err(BatchLost::Engine(tests::io_error()));
        }
        self.run("COMMIT")
    }

    /// Gives a batch up, also where the engine has done so already.
    pub(super) fn rollback(&self) {
        if !self.conn.is_autocommit()
            && let Err(error) = self.run("ROLLBACK")
        {
            log::error!("rolling back: {error}");
        }
    }

    fn run(&self, sql: &str) -> Result<(), BatchLost> {
        self.conn.prepare_cached(sql)?.execute([])?;
        Ok(())
    }

    /// Whether a transaction is open.
    pub(super) fn in_batch(&self) -> bool {
        !self.conn.is_autocommit()
    }

    /// Applies one write inside a batch. What it began and did not finish is undone; other writes of the
    /// batch are untouched, except where the engine, the disk or memory failed: then all is lost.
    pub(super) fn apply(&self, now: Timestamp, op: &Op, guard: Guard) -> Result<Result<Outcome, Refused>, BatchLost> {
        if guard == Guard::NotForAppends && matches!(op, Op::Append { .. }) {
            return match self.dispatch(now, op) {
                Ok(outcome) => Ok(Ok(outcome)),
                Err(Fault::Refused(refused)) => Ok(Err(refused)),
                Err(Fault::Sql(error)) if self.sinks_the_batch(&error) => Err(error.into()),
                Err(Fault::Sql(_) | Fault::Ours(_)) => Err(BatchLost::Unguarded),
            };
        }
        self.guarded(|| self.dispatch(now, op))
    }

    /// Records how an upload went on, inside a batch, as [`Sqlite::apply`] does a write.
    pub(super) fn record(&self, progress: &Progress) -> Result<Result<Progressed, Refused>, BatchLost> {
        self.guarded(|| self.advance_upload(progress))
    }

    /// Does one thing that can be undone alone.
    fn guarded<T>(&self, act: impl FnOnce() -> Outcomes<T>) -> Result<Result<T, Refused>, BatchLost> {
        self.run("SAVEPOINT op")?;
        let refused = match act() {
            Ok(done) => {
                self.run("RELEASE op")?;
                return Ok(Ok(done));
            }
            Err(Fault::Refused(refused)) => refused,
            Err(Fault::Sql(error)) if self.sinks_the_batch(&error) => return Err(error.into()),
            Err(fault) => self.internal(&fault),
        };
        self.run("ROLLBACK TO op")?;
        self.run("RELEASE op")?;
        Ok(Err(refused))
    }

    /// Whether an error says something about the disk, memory or the file, and not about one statement.
    /// After some of them the engine has rolled the transaction back by itself.
    fn sinks_the_batch(&self, error: &rusqlite::Error) -> bool {
        !self.in_batch() || !is_of_one_statement(error)
    }

    /// Runs one write of the operator as a durable transaction of its own.
    pub(super) fn transaction<T>(&self, write: impl FnOnce(&Sqlite) -> Outcomes<T>) -> Outcomes<T> {
        self.begin()?;
        let written = write(self).and_then(|value| Ok(self.commit().map(|()| value)?));
        self.rollback();
        written
    }

    /// Logs a defect of ours or of the disk and turns it into the answer.
    fn internal(&self, fault: &Fault) -> Refused {
        match fault {
            Fault::Refused(refused) => return *refused,
            Fault::Sql(error) => log::error!("the database failed: {error}; {}", advice(error)),
            Fault::Ours(what) => log::error!("the store has a defect: {what}"),
        }
        Refused::Internal
    }

    fn dispatch(&self, now: Timestamp, op: &Op) -> Outcomes<Outcome> {
        match op {
            Op::Register { name, verifier, invite } => self.register(now, name, verifier, invite.as_ref()),
            Op::OpenSession { name, proof } => self.open_session(now, name, proof),
            Op::SeenLast { account } => self.seen_last(now, *account),
            Op::ChangePassword { account, epoch, verifier } => self.change_password(*account, *epoch, verifier),
            Op::Unregister { account, epoch } => self.unregister(now, *account, *epoch),
            Op::AddToken { account, name, hash } => self.add_token(now, *account, name.as_deref(), hash),
            Op::DropToken { account, name } => self.drop_token(*account, name),
            Op::AddCertificate { account, certificate } => self.add_certificate(*account, certificate),
            Op::DropCertificate { account, certificate } => self.drop_certificate(*account, certificate),
            Op::SetProfile { account, change } => self.set_profile(*account, change),
            Op::SetReceipts { account, on } => self.set_receipts(*account, *on),
            Op::CreateRoom { account, room, private, e2e, topic } => {
                self.create_room(*account, room, *private, *e2e, topic.as_deref())
            }
            Op::JoinRoom { account, room } => self.join_room(*account, room),
            Op::LeaveRoom { account, room } => self.leave_room(now, *account, room),
            Op::Moderate { actor, room, act, subject } => self.moderate(now, *actor, room, *act, subject),
            Op::SetTopic { actor, room, topic } => self.set_topic(*actor, room, topic),
            Op::Append { sender, targets, body, key } => self.append(now, sender, targets, body, key.as_ref()),
            Op::Ack { account, target, id } => self.ack(*account, target, *id),
            Op::AutoAck { account, marks } => self.auto_ack(*account, marks),
            Op::BanAccount { subject, banned } => self.ban_account(subject, *banned),
            Op::BanAddress { block, banned } => self.ban_address(block, *banned),
            Op::PutKeys { account, device, record } => self.put_keys(*account, device, record),
            Op::TakeBundles { subject, device } => self.take_bundles(subject, device.as_ref()),
            Op::AddSignal { sender, receiver, body } => self.add_signal(now, sender, receiver, body),
            Op::DropSignal { account, id } => self.drop_signal(*account, *id),
            Op::AddRoster { account, room, epoch, entry } => self.add_roster(*account, room, *epoch, entry),
            Op::AddInvite { code } => self.add_code(now, code).map(|()| Outcome::Nothing),
            Op::BeginUpload { sender, target, name, size, sha256, limits } => {
                self.begin_upload(now, sender, target, name, Announced { size: *size, sha256: *sha256 }, limits)
            }
            Op::WriteChunk { .. } => Err(Fault::Ours("chunks are written by the thread of files")),
            Op::DropFile { account, file } => self.drop_file(*account, *file),
            Op::Sweep(sweep) => self.sweep(now, sweep),
        }
    }

    /// Answers one read from a snapshot of its own.
    pub(super) fn answer(&self, query: &Query) -> Result<Answer, Refused> {
        let own_snapshot = !self.in_batch();
        let begun = if own_snapshot { self.run("BEGIN") } else { Ok(()) };
        let answer = begun.map_err(Fault::from).and_then(|()| self.look_up(query));
        if own_snapshot {
            self.rollback();
        }
        answer.map_err(|fault| self.internal(&fault))
    }

    fn look_up(&self, query: &Query) -> Outcomes<Answer> {
        match query {
            Query::Credentials(name) => self.credentials(name),
            Query::People(names) => self.people(names),
            Query::Users { glob, after, limit } => self.users(glob.as_deref(), after.as_ref(), *limit),
            Query::Profile { viewer, subject } => self.profile(*viewer, subject),
            Query::Tokens(account) => self.tokens(*account),
            Query::Certificates(account) => self.certificates(*account),
            Query::Rooms { account, glob, after, limit } => {
                self.rooms(*account, glob.as_deref(), after.as_ref(), *limit)
            }
            Query::Members { account, room } => self.members(*account, room),
            Query::Topic { account, room } => self.topic(*account, room),
            Query::Page { account, target, bound, limit, max_bytes } => {
                self.page(*account, target, *bound, *limit, *max_bytes)
            }
            Query::Unread { account, limit, max_bytes } => self.unread(*account, *limit, *max_bytes),
            Query::UnreadCounts { account, all } => self.unread_counts(*account, *all),
            Query::Arrival { account, behind, limit, max_bytes } => self.arrival(*account, behind, *limit, *max_bytes),
            Query::Backlog { ranges, max_bytes } => self.backlog(ranges, *max_bytes),
            Query::Accounts { glob, after, limit } => self.accounts(glob.as_deref(), after.as_ref(), *limit),
            Query::DeviceCertificates { subject, device } => self.device_certificates(subject, device.as_ref()),
            Query::Pools(account) => self.pools(*account),
            Query::Signals { account, after, limit, max_bytes } => self.signals(*account, *after, *limit, *max_bytes),
            Query::Roster { account, room, after, limit, max_bytes } => {
                self.roster(*account, room, *after, *limit, *max_bytes)
            }
            Query::FilePart { .. } => Err(Fault::Ours("files are read by a thread of their own")),
            Query::Files(wanted) => self.files(wanted),
            Query::Totals => self.totals(),
        }
    }

    // ---- statements ----

    fn statement(&self, sql: &str) -> rusqlite::Result<CachedStatement<'_>> {
        self.conn.prepare_cached(sql)
    }

    /// Runs a statement; how many rows it changed.
    fn execute(&self, sql: &str, params: impl Params) -> rusqlite::Result<usize> {
        self.statement(sql)?.execute(params)
    }

    /// The first row, if there is one.
    fn find<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Option<T>> {
        self.statement(sql)?.query_row(params, read).optional()
    }

    /// All rows.
    fn list<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Vec<T>> {
        self.statement(sql)?.query_map(params, read)?.collect()
    }

    /// What a `SELECT count(*) …` counts.
    fn count(&self, sql: &str, params: impl Params) -> rusqlite::Result<u64> {
        let count: i64 = self.statement(sql)?.query_row(params, |row| row.get(0))?;
        Ok(count.try_into().unwrap_or(0))
    }
}

fn wait_for_others(conn: &mut Connection) -> rusqlite::Result<()> {
    let polls = i32::try_from(BUSY_WAIT.as_millis() / BUSY_POLL.as_millis()).unwrap_or(i32::MAX);
    conn.busy_handler(Some(move |tried: i32| {
        // On the store's own threads or in an operator's command, never in the loop; bounded by BUSY_WAIT.
        std::thread::sleep(BUSY_POLL);
        tried < polls
    }))
}

/// Whether an error leaves the transaction as it is: a defect of ours in one write.
fn is_of_one_statement(error: &rusqlite::Error) -> bool {
    use ErrorCode::{ConstraintViolation, ParameterOutOfRange, TooBig, TypeMismatch};
    let of_one = [ConstraintViolation, ParameterOutOfRange, TooBig, TypeMismatch];
    error.sqlite_error_code().is_none_or(|code| of_one.contains(&code))
}

/// What the operator can do about an error of the database.
pub(super) fn advice(error: &rusqlite::Error) -> &'static str {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => "the disk is full: free some space, the server goes on by itself",
        Some(ErrorCode::SystemIoFailure) => "the disk failed: look into the kernel log",
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => {
            "look at the owner and the mode of the data directory"
        }
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            "the database file is damaged: stop the server and restore a backup"
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "another program holds the database: end it, the server goes on by itself"
        }
        Some(ErrorCode::OutOfMemory) => "the machine is out of memory",
        _ => "please report this as a defect",
    }
}

/// A checked pattern and the names that can match it.
struct Glob {
    pattern: String,
    /// The names from here …
    from: String,
    /// … to below here; a pattern with a literal beginning costs only the names that begin so.
    to: String,
}

impl Glob {
    fn new(pattern: Option<&str>) -> Outcomes<Glob> {
        // Names are folded to lower case, so patterns are.
        let pattern = pattern.unwrap_or("*").to_ascii_lowercase();
        if pattern.len() > GLOB_BYTES {
            return Err(Refused::TooLong(GLOB_BYTES as u64).into());
        }
        if pattern.bytes().filter(|&byte| byte == b'*').count() > GLOB_STARS {
            return Err(Refused::TooLong(GLOB_STARS as u64).into());
        }
        let literal = pattern.find(['*', '?', '[']).unwrap_or(pattern.len());
        let from = pattern.get(..literal).unwrap_or_default().to_owned();
        // Names are ASCII, so the highest character stands behind all that can follow.
        let to = format!("{from}\u{10ffff}");
        Ok(Glob { pattern, from, to })
    }
}

/// Cuts a list that was read with one row more than asked for; whether there was more.
fn cut<T>(rows: &mut Vec<T>, limit: usize) -> bool {
    let more = rows.len() > limit;
    rows.truncate(limit);
    more
}

/// A limit as SQL takes it, with one row to tell whether there is more.
fn one_more(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1)
}

#[cfg(test)]
mod tests;

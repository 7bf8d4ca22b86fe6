//! Files: beginning, advancing, finishing and dropping them, and what they take of the disk.
//!
//! The data itself is written by others ([`super::super::files`]); here is what is true about it. A finished
//! file is a message of its log, appended by the same code.

use super::super::seal::Column;
use super::messages::{Content, row_key, split_row_key};
use super::upkeep::Budget;
use super::values::bytes;
use super::{Fault, Outcomes, Sqlite};
use crate::ops::{
    AccountId, ConversationId, Destination, FILE_BYTES_MAX, FILE_BYTES_MIN, FileLimits, FileRef, Finished, MessageId,
    Outcome, Person, Refused, Role, Sha256, UPLOADS_PER_ACCOUNT, Upload,
};
use crate::protocol::file::SEALED_NAME;
use crate::protocol::{FileId, FileName, RoomName, Target, Timestamp, UserName};

/// Stands in for a name that does not open.
const NAME_UNREADABLE: &str = "[the server cannot read this name: its copy is damaged]";

/// What a sender says of a file before it sends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Announced {
    pub(super) size: u64,
    pub(super) sha256: Sha256,
}

/// An upload, as who writes its data must know it.
#[derive(Debug)]
pub(in crate::store) struct UploadRow {
    pub(in crate::store) size: u64,
    pub(in crate::store) sha256: Sha256,
    /// Bytes on stable storage; all of them where it is finished.
    pub(in crate::store) stored: u64,
    /// See [`Progress`]; `None` where nothing is stored yet.
    pub(in crate::store) rest: Option<Vec<u8>>,
    /// Nothing is left to write.
    pub(in crate::store) finished: bool,
}

/// How an upload went on.
#[derive(Debug)]
pub(in crate::store) struct Progress {
    pub(in crate::store) file: FileId,
    pub(in crate::store) account: AccountId,
    pub(in crate::store) now: Timestamp,
    /// What was stored before.
    pub(in crate::store) from: u64,
    pub(in crate::store) step: Step,
}

impl Progress {
    /// Whether it says that the data was taken away.
    pub(in crate::store) fn is_loss(&self) -> bool {
        matches!(self.step, Step::Lost)
    }
}

/// What is on stable storage now.
#[derive(Debug)]
pub(in crate::store) enum Step {
    /// So many bytes, and what to go on with, sealed.
    Grown { stored: u64, rest: Vec<u8> },
    /// All of them, and they are those that were announced.
    Whole,
    /// All of them, but they are others.
    Mismatch,
    /// Less than the row says: the data was taken away.
    Lost,
}

/// What came of a [`Progress`].
#[derive(Debug)]
pub(in crate::store) enum Progressed {
    Grown,
    Finished(Box<Finished>),
    /// The upload is gone.
    Void,
}

/// What an account's files take.
#[derive(Debug, Default)]
pub(super) struct FileUse {
    pub(super) bytes: u64,
    pub(super) uploads: u64,
    pub(super) files: u64,
}

/// Where a file goes, as it stands in its row: one of both.
#[derive(Debug, Clone, Copy)]
struct Place {
    room: Option<ConversationId>,
    receiver: Option<AccountId>,
}

/// A file's row.
struct Record {
    file: FileId,
    sender: AccountId,
    place: Place,
    announced: Announced,
    name: Vec<u8>,
    state: State,
    stored: u64,
    time: Timestamp,
    message: Option<i64>,
}

/// The numbers stand in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Partial = 0,
    Done = 1,
    Gone = 2,
}

/// Bytes that a file counts as.
fn counted(size: u64) -> i64 {
    i64::try_from(size.max(FILE_BYTES_MIN)).unwrap_or(i64::MAX)
}

impl Sqlite {
    // ---- uploads ----

    pub(super) fn begin_upload(
        &self,
        now: Timestamp,
        sender: &Person,
        target: &Target,
        name: &FileName,
        announced: Announced,
        limits: &FileLimits,
    ) -> Outcomes<Outcome> {
        self.require_account(sender.id)?;
        let Announced { size, sha256 } = announced;
        let place = match target {
            Target::Room(room) => {
                let (room, _) = self.room_of_member(room, sender.id)?;
                if room.e2e && name.as_str() != SEALED_NAME {
                    return Err(Refused::E2eRequired.into());
                }
                Place { room: Some(room.id), receiver: None }
            }
            Target::User(name) => Place { room: None, receiver: Some(self.person_named(name)?.id) },
        };
        let known = "SELECT id FROM file WHERE sha256 = ?1 AND sender = ?2 AND state < 2
                     AND size = ?3 AND room IS ?4 AND receiver IS ?5";
        let params = (sha256, sender.id, FileId(size), place.room, place.receiver);
        if let Some(file) = self.find(known, params, |row| row.get(0))? {
            let record = self.file_record(file)?.ok_or(Fault::Ours("a file is not where its index says"))?;
            let done = match record.state {
                State::Partial => {
                    // Who asks where to go on means to: it is not given up just then.
                    self.execute("UPDATE file SET time = ?2 WHERE id = ?1", (file, now))?;
                    None
                }
                State::Done | State::Gone => Some(self.finished(&record, false)?),
            };
            return Ok(Outcome::Upload(Box::new(Upload { file, offset: record.stored, done })));
        }
        if size == 0 && sha256 != Sha256::of(b"") {
            return Err(Refused::Checksum.into());
        }
        if size > FILE_BYTES_MAX {
            return Err(Refused::TooLong(FILE_BYTES_MAX).into());
        }
        self.require_space(sender.id, size, limits)?;
        let sql =
            "INSERT INTO file(sender, room, receiver, size, sha256, name, time) VALUES (?1, ?2, ?3, ?4, ?5, x'', ?6)";
        self.execute(sql, (sender.id, place.room, place.receiver, FileId(size), sha256, now))?;
        let id = self.conn.last_insert_rowid();
        let sealed = self.sealer.key(Column::FileName, id).seal(id, name.as_str().as_bytes())?;
        self.execute("UPDATE file SET name = ?2 WHERE id = ?1", (id, sealed))?;
        self.charge(sender.id, counted(size), 1, 0)?;
        let file = FileId(id.unsigned_abs());
        let done = if size == 0 { Some(self.finish(now, file)?) } else { None };
        Ok(Outcome::Upload(Box::new(Upload { file, offset: 0, done })))
    }

    /// Refuses what is over a limit, or would leave messages too little of the disk.
    fn require_space(&self, account: AccountId, size: u64, limits: &FileLimits) -> Outcomes<()> {
        let used = self.file_use(account)?;
        if used.uploads >= UPLOADS_PER_ACCOUNT {
            return Err(Refused::Quota(UPLOADS_PER_ACCOUNT).into());
        }
        let counted = size.max(FILE_BYTES_MIN);
        for (limit, used) in [(limits.quota, used.bytes), (limits.total, self.file_use(AccountId(0))?.bytes)] {
            if let Some(limit) = limit
                && used.saturating_add(counted) > limit
            {
                return Err(Refused::Quota(limit).into());
            }
        }
        if counted <= self.spare.get() { Ok(()) } else { Err(Refused::DiskLow.into()) }
    }

    /// Says how much of the disk uploads may still take.
    pub(in crate::store) fn set_spare(&self, bytes: u64) {
        self.spare.set(bytes);
    }

    /// An upload of this account, also one that it finished; `None` where there is none.
    pub(in crate::store) fn upload(&self, account: AccountId, file: FileId) -> Result<Option<UploadRow>, Refused> {
        let sql = "SELECT size, sha256, stored, rest, state FROM file WHERE id = ?1 AND sender = ?2 AND state < 2";
        let found = self.find(sql, (file, account), |row| {
            let finished = row.get::<_, i64>(4)? == State::Done as i64;
            Ok(UploadRow {
                size: bytes(row, 0)?,
                sha256: row.get(1)?,
                stored: bytes(row, 2)?,
                rest: row.get(3)?,
                finished,
            })
        });
        found.map_err(|error| self.internal(&error.into()))
    }

    /// Records how an upload went on. What is refused changes nothing: who comes back to a room goes on where
    /// it was.
    pub(super) fn advance_upload(&self, progress: &Progress) -> Outcomes<Progressed> {
        let Progress { file, account, now, from, ref step } = *progress;
        let record = self.file_record(file)?.filter(|record| record.state == State::Partial);
        let record = record.filter(|record| record.sender == account).ok_or(Refused::NotFound)?;
        if record.stored != from {
            return Err(Refused::Offset(record.stored).into());
        }
        match step {
            Step::Mismatch | Step::Lost => {
                self.void_upload(file)?;
                return Ok(Progressed::Void);
            }
            Step::Grown { .. } | Step::Whole => self.require_reach(&record)?,
        }
        match step {
            Step::Grown { stored, rest } => {
                let sql = "UPDATE file SET stored = ?2, rest = ?3, time = ?4 WHERE id = ?1";
                self.execute(sql, (file, FileId(*stored), rest, now))?;
                Ok(Progressed::Grown)
            }
            _ => Ok(Progressed::Finished(Box::new(self.finish(now, file)?))),
        }
    }

    /// Refuses where the sender may no longer send to where the file goes.
    fn require_reach(&self, record: &Record) -> Outcomes<()> {
        match self.target_of(record.place)? {
            Some(Target::Room(name)) => self.room_of_member(&name, record.sender).map(drop),
            Some(Target::User(name)) => self.person_named(&name).map(drop),
            None => Err(Refused::NotFound.into()),
        }
    }

    /// Makes an upload whose data is whole a message of its conversation.
    fn finish(&self, now: Timestamp, file: FileId) -> Outcomes<Finished> {
        let missing = Fault::Ours("an upload is not where it was");
        let Some(record) = self.file_record(file)? else { return Err(missing) };
        let target = self.target_of(record.place)?.ok_or(Refused::NotFound)?;
        let name = self.file_name(file, &record.name)?;
        let appended = self.append_to(self.tick(now), record.sender, &target, Content::File(file, &name))?;
        let sql = "UPDATE file SET state = 1, stored = size, rest = NULL, time = ?2, conversation = ?3, message = ?4
                   WHERE id = ?1";
        let message = row_key(appended.conversation, appended.id);
        self.execute(sql, (file, appended.time, appended.conversation, message))?;
        self.charge(record.sender, 0, -1, 1)?;
        let Announced { size, sha256 } = record.announced;
        Ok(Finished {
            to: appended.to,
            conversation: appended.conversation,
            id: appended.id,
            time: appended.time,
            file: FileRef { id: file, size, sha256, gone: false },
            name,
            new: true,
        })
    }

    /// A file that was finished before.
    fn finished(&self, record: &Record, new: bool) -> Outcomes<Finished> {
        let message = record.message.ok_or(Fault::Ours("a finished file has no message"))?;
        let (conversation, id): (ConversationId, MessageId) = split_row_key(message);
        let to = match self.target_of(record.place)? {
            Some(Target::Room(name)) => Destination::Room(name),
            Some(Target::User(name)) => {
                let id = record.place.receiver.ok_or(Fault::Ours("a file goes nowhere"))?;
                Destination::User(Person { id, name })
            }
            None => return Err(Fault::Ours("a finished file has no conversation")),
        };
        let Announced { size, sha256 } = record.announced;
        let file = FileRef { id: record.file, size, sha256, gone: record.state == State::Gone };
        let name = self.file_name(record.file, &record.name)?;
        Ok(Finished { to, conversation, id, time: record.time, file, name, new })
    }

    // ---- rows ----

    fn file_record(&self, file: FileId) -> Outcomes<Option<Record>> {
        let sql = "SELECT sender, room, receiver, size, sha256, name, state, stored, time, message
                   FROM file WHERE id = ?1";
        Ok(self.find(sql, [file], |row| {
            Ok(Record {
                file,
                sender: row.get(0)?,
                place: Place { room: row.get(1)?, receiver: row.get(2)? },
                announced: Announced { size: bytes(row, 3)?, sha256: row.get(4)? },
                name: row.get(5)?,
                state: match row.get(6)? {
                    0 => State::Partial,
                    1 => State::Done,
                    2 => State::Gone,
                    other => return Err(rusqlite::Error::IntegralValueOutOfRange(6, other)),
                },
                stored: bytes(row, 7)?,
                time: row.get(8)?,
                message: row.get(9)?,
            })
        })?)
    }

    /// The room, or the receiver, erased or not; `None` where the room is gone.
    fn target_of(&self, place: Place) -> Outcomes<Option<Target>> {
        Ok(match place {
            Place { room: Some(room), .. } => {
                let name = self.find("SELECT name FROM room WHERE id = ?1", [room], |row| row.get(0))?;
                name.map(|name: RoomName| Target::Room(name))
            }
            Place { receiver: Some(receiver), .. } => {
                let name = self.find("SELECT name FROM account WHERE id = ?1", [receiver], |row| row.get(0))?;
                name.map(|name: UserName| Target::User(name))
            }
            Place { room: None, receiver: None } => None,
        })
    }

    /// The name of a file; a text that says so where it does not open.
    pub(super) fn file_name(&self, file: FileId, sealed: &[u8]) -> Outcomes<FileName> {
        let id = i64::try_from(file.0).unwrap_or(0);
        let plain = self.sealer.key(Column::FileName, id).open(id, sealed);
        let name = plain.and_then(|plain| FileName::parse(std::str::from_utf8(&plain).ok()?).ok());
        if let Some(name) = name {
            return Ok(name);
        }
        log::error!("the name of file {file} does not open: the database was changed by others");
        FileName::parse(NAME_UNREADABLE).map_err(|_| Fault::Ours("a name of ours is none"))
    }

    /// A file, as its message speaks of it.
    pub(super) fn file_ref(&self, file: FileId) -> Outcomes<FileRef> {
        let sql = "SELECT size, sha256, state FROM file WHERE id = ?1";
        let found = self.find(sql, [file], |row| {
            let gone = row.get::<_, i64>(2)? == State::Gone as i64;
            Ok(FileRef { id: file, size: bytes(row, 0)?, sha256: row.get(1)?, gone })
        })?;
        found.ok_or(Fault::Ours("a message is a file that has no row"))
    }

    // ---- what goes ----

    pub(super) fn drop_file(&self, account: AccountId, file: FileId) -> Outcomes<Outcome> {
        let record = self.file_record(file)?.ok_or(Refused::NotFound)?;
        let own = record.sender == account;
        match record.state {
            State::Partial if own => self.void_upload(file)?,
            State::Done if own => self.empty_file(file)?,
            State::Done => {
                let (conversation, _) = record.message.map(split_row_key).ok_or(Refused::NotFound)?;
                self.view(account, conversation)?.ok_or(Refused::NotFound)?;
                let role = record.place.room.map(|room| self.role_in(room, account)).transpose()?.flatten();
                if role.is_none_or(|role| role < Role::Operator) {
                    return Err(Refused::Forbidden.into());
                }
                self.empty_file(file)?;
            }
            State::Partial | State::Gone => return Err(Refused::NotFound.into()),
        }
        Ok(Outcome::Nothing)
    }

    /// Takes an upload away.
    fn void_upload(&self, file: FileId) -> Outcomes<()> {
        let sql = "DELETE FROM file WHERE id = ?1 AND state = 0 RETURNING sender, size";
        if let Some((sender, size)) = self.find(sql, [file], |row| Ok((row.get(0)?, bytes(row, 1)?)))? {
            self.charge(sender, -counted(size), -1, 0)?;
            self.throw_away(file)?;
        }
        Ok(())
    }

    /// Takes the data of a whole file away; its message stays.
    fn empty_file(&self, file: FileId) -> Outcomes<()> {
        let sql = "UPDATE file SET state = 2 WHERE id = ?1 AND state = 1 RETURNING sender, size";
        if let Some((sender, size)) = self.find(sql, [file], |row| Ok((row.get(0)?, bytes(row, 1)?)))? {
            self.charge(sender, -counted(size), 0, -1)?;
            self.throw_away(file)?;
        }
        Ok(())
    }

    /// Takes a file away whose message is being deleted.
    pub(super) fn forget_file(&self, file: FileId) -> Outcomes<()> {
        self.empty_file(file)?;
        self.execute("DELETE FROM file WHERE id = ?1", [file])?;
        Ok(())
    }

    /// Takes the uploads of an account away that is being erased: at most [`UPLOADS_PER_ACCOUNT`].
    pub(super) fn void_uploads_of(&self, account: AccountId) -> Outcomes<()> {
        let sql = "SELECT id FROM file WHERE sender = ?1 AND state = 0";
        self.list(sql, [account], |row| row.get(0))?.into_iter().try_for_each(|file| self.void_upload(file))
    }

    /// Whether somebody has an upload to a room under way.
    pub(super) fn has_uploads_to(&self, room: ConversationId) -> Outcomes<bool> {
        let sql = "SELECT 1 FROM file WHERE room = ?1 AND state = 0 LIMIT 1";
        Ok(self.find(sql, [room], |_| Ok(()))?.is_some())
    }

    /// Takes uploads to a room away that is gone; whether none is left.
    pub(super) fn void_uploads_to(&self, budget: &mut Budget, room: ConversationId) -> Outcomes<bool> {
        let sql = "SELECT id FROM file WHERE room = ?1 AND state = 0 LIMIT ?2";
        self.void_all(budget, self.list(sql, (room, budget.rows()), |row| row.get(0))?)?;
        Ok(!self.has_uploads_to(room)?)
    }

    /// Takes uploads away that have neither grown nor been announced since `before`.
    pub(super) fn sweep_uploads(&self, budget: &mut Budget, before: Timestamp) -> Outcomes<()> {
        let sql = "SELECT id FROM file WHERE state = 0 AND time < ?1 LIMIT ?2";
        self.void_all(budget, self.list(sql, (before, budget.rows()), |row| row.get(0))?)
    }

    fn void_all(&self, budget: &mut Budget, uploads: Vec<FileId>) -> Outcomes<()> {
        for file in uploads {
            self.void_upload(file)?;
            budget.take(0);
        }
        Ok(())
    }

    /// Takes the data of files away that were finished before `before`.
    pub(super) fn sweep_files(&self, budget: &mut Budget, before: Timestamp) -> Outcomes<()> {
        let sql = "SELECT id FROM file WHERE state = 1 AND time < ?1 LIMIT ?2";
        for file in self.list(sql, (before, budget.rows()), |row| row.get(0))? {
            self.empty_file(file)?;
            budget.take(0);
        }
        Ok(())
    }

    // ---- the trash ----

    fn throw_away(&self, file: FileId) -> Outcomes<()> {
        self.execute("INSERT OR IGNORE INTO trash(file) VALUES (?1)", [file])?;
        self.trashed.set(true);
        Ok(())
    }

    /// Whether files were put into the trash since the last call.
    pub(in crate::store) fn take_trashed(&self) -> bool {
        self.trashed.replace(false)
    }

    /// Files behind a number whose data is to be deleted.
    pub(in crate::store) fn trash(&self, after: FileId, limit: usize) -> Result<Vec<FileId>, Refused> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.list("SELECT file FROM trash WHERE file > ?1 ORDER BY file LIMIT ?2", (after, limit), |row| row.get(0))
            .map_err(|error| self.internal(&error.into()))
    }

    /// Those of some numbers whose data no file has, and that are not in the trash: there is no row, or it has given its
    /// data up.
    pub(in crate::store) fn unknown_files(&self, files: &[FileId]) -> Result<Vec<FileId>, Refused> {
        let sql = "SELECT 1 FROM file WHERE id = ?1 AND state < 2 UNION ALL SELECT 1 FROM trash WHERE file = ?1";
        let known = |file| self.find(sql, [file], |_| Ok(()));
        let unknown = |&file: &FileId| match known(file) {
            Ok(found) => found.is_none().then_some(Ok(file)),
            Err(error) => Some(Err(self.internal(&error.into()))),
        };
        files.iter().filter_map(unknown).collect()
    }

    /// Whether a file was ever announced here.
    pub(in crate::store) fn has_had_files(&self) -> Result<bool, Refused> {
        let sql = "SELECT 1 FROM sqlite_sequence WHERE name = 'file'";
        let found = self.find(sql, [], |_| Ok(())).map_err(|error| self.internal(&error.into()))?;
        Ok(found.is_some())
    }

    /// Forgets files whose data was deleted.
    pub(in crate::store) fn empty_trash(&self, files: &[FileId]) -> Result<Result<(), Refused>, super::BatchLost> {
        self.guarded(|| {
            for file in files {
                self.execute("DELETE FROM trash WHERE file = ?1", [file])?;
            }
            Ok(())
        })
    }

    // ---- what they take ----

    /// What the files of an account take; of account 0: all files.
    pub(super) fn file_use(&self, account: AccountId) -> Outcomes<FileUse> {
        let sql = "SELECT bytes, uploads, files FROM file_use WHERE account = ?1";
        let found = self.find(sql, [account], |row| {
            Ok(FileUse { bytes: bytes(row, 0)?, uploads: bytes(row, 1)?, files: bytes(row, 2)? })
        })?;
        Ok(found.unwrap_or_default())
    }

    /// Adds to what the files of an account, and all files, take.
    fn charge(&self, account: AccountId, bytes: i64, uploads: i64, files: i64) -> Outcomes<()> {
        let sql = "INSERT INTO file_use(account, bytes, uploads, files) VALUES (?1, ?2, ?3, ?4)
                   ON CONFLICT DO UPDATE SET bytes = bytes + excluded.bytes, uploads = uploads + excluded.uploads,
                       files = files + excluded.files";
        for account in [account, AccountId(0)] {
            self.execute(sql, (account, bytes, uploads, files))?;
        }
        Ok(())
    }
}

//! The local history: what was said, by conversation and the server's number. Keys are erased on use, so
//! it is the only readable copy.

use downstream::e2e::error::Damaged;
use downstream::e2e::inner::{Body, Inner, Plain};
use downstream::e2e::name::{Address, DeviceId, Mark as Envelope, MsgId, User};
use downstream::protocol::{FileId, Target, UserName};
use rusqlite::{OptionalExtension, Row as SqlRow, ToSql};
use zeroize::Zeroizing;

use super::StoreError;
use super::cache::Cache;
use super::codec::{Fields, Row};
use super::rows::count;
use super::tx::Tx;
use super::vault::Tag;
use crate::event::Mark;

/// Entries kept at most, the oldest go first: a scan of all of them takes some seconds, which bounds
/// [`Tx::search`].
pub const HISTORY_MAX: usize = 1_000_000;

/// Entries that [`Tx::entries_of_blob`] gives, at most: honest senders make one, as nothing is sealed alike.
pub const BLOB_MAX: usize = 100;

const TABLE: &str = "history";

/// A line of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The room, or the *other* person.
    pub target: Target,
    /// The server's number in the conversation; `None` where it is not known.
    pub id: Option<u64>,
    /// When the server stored it, Unix milliseconds.
    pub time_ms: u64,
    /// Who sent it, as the server says.
    pub sender: UserName,
    /// What it was.
    pub what: What,
    /// What is said beside it.
    pub marks: Vec<Mark>,
}

/// What a line was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// Sealed end to end, and opened (or one's own).
    Sealed {
        /// The sending device.
        device: DeviceId,
        /// The whole inner message.
        inner: Plain,
    },
    /// Plain text: the server could read and change it.
    Plain {
        /// The text.
        text: String,
    },
    /// An envelope that cannot be opened.
    Failed {
        /// The code: `cannot open (code)`.
        code: String,
    },
    /// A file sent in clear: the server could read and change it.
    File(PlainFile),
}

/// A file sent in clear, as the server speaks of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlainFile {
    /// The server's number of it.
    pub file: FileId,
    /// Its bytes.
    pub size: u64,
    /// Of all of them.
    pub sha256: [u8; 32],
    /// As its sender called it: a label, never a path.
    pub name: String,
}

impl What {
    /// SHA-256 of the bytes that the server has, where this speaks of a file.
    pub fn blob(&self) -> Option<[u8; 32]> {
        match self {
            What::Sealed { inner, .. } => match Inner::parse(inner).ok()?.body {
                Body::File(file) => Some(file.blob_id),
                _ => None,
            },
            What::File(file) => Some(file.sha256),
            What::Plain { .. } | What::Failed { .. } => None,
        }
    }
}

/// Where an entry went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// Into its place.
    New,
    /// It stands there already. Nothing was changed.
    Known,
    /// Something else stands under its number: the server has given that twice. The entry is kept
    /// without a number, nothing is overwritten.
    Elsewhere,
}

/// A row with its clear columns.
struct Found {
    id: i64,
    conversation: i64,
    number: Option<i64>,
    time: i64,
    sealed: Vec<u8>,
}

impl Found {
    const COLUMNS: &str = "id, conversation, number, time, sealed";

    fn read(row: &SqlRow<'_>) -> rusqlite::Result<Found> {
        Ok(Found {
            id: row.get(0)?,
            conversation: row.get(1)?,
            number: row.get(2)?,
            time: row.get(3)?,
            sealed: row.get(4)?,
        })
    }
}

impl Tx<'_> {
    /// Writes an entry into the history. What was opened stands: only a [`What::Failed`] is replaced
    /// under its number. In place of a number that cannot be (above 2^63) there is none.
    ///
    /// # Errors
    /// [`StoreError::Sql`], [`StoreError::Random`].
    pub fn record(&mut self, entry: Entry) -> Result<Recorded, StoreError> {
        let conversation = self.conversation(&entry.target)?;
        let number = entry.id.and_then(|id| i64::try_from(id).ok());
        let mut recorded = if number == entry.id.map(u64::cast_signed) { Recorded::New } else { Recorded::Elsewhere };
        if let Some(number) = number
            && let Some(found) = self.at(conversation, number)?
        {
            let before = self.read_entry(&found)?;
            match before.what {
                What::Failed { .. } => {
                    self.put(found.id, conversation, Some(number), &entry, None)?;
                    return Ok(Recorded::New);
                }
                _ if matches!(entry.what, What::Failed { .. }) || before.what == entry.what => {
                    return Ok(Recorded::Known);
                }
                _ => recorded = Recorded::Elsewhere,
            }
        }
        let number = number.filter(|_| recorded == Recorded::New);
        let id = self.next_id()?;
        self.put(id, conversation, number, &Entry { id: number.map(i64::cast_unsigned), ..entry }, None)?;
        Ok(recorded)
    }

    /// Writes a message of this device that goes to the server by other means (`dsc seal`): its number
    /// is not known, and its envelope, by which it will come back, cannot be opened here.
    ///
    /// # Errors
    /// [`StoreError::Sql`], [`StoreError::Random`].
    pub fn record_sealed(&mut self, entry: Entry, envelope: Envelope) -> Result<(), StoreError> {
        let conversation = self.conversation(&entry.target)?;
        let id = self.next_id()?;
        let tag = self.vault.tag("envelope", &[&envelope.0]);
        self.put(id, conversation, None, &Entry { id: None, ..entry }, Some(tag))
    }

    /// Gives a message of [`Tx::record_sealed`] the number and time under which it came back.
    ///
    /// # Errors
    /// [`StoreError::Sql`], [`StoreError::Random`].
    pub fn came_back(
        &mut self,
        target: &Target,
        envelope: Envelope,
        id: u64,
        time_ms: u64,
    ) -> Result<Option<Entry>, StoreError> {
        let tag = self.vault.tag("envelope", &[&envelope.0]);
        let query = format!("SELECT {} FROM history WHERE envelope = ?1", Found::COLUMNS);
        let found = self.sql.prepare_cached(&query)?.query_row([tag], Found::read).optional()?;
        let (Some(found), Ok(number)) = (found, i64::try_from(id)) else { return Ok(None) };
        let entry = self.read_entry(&found)?;
        if entry.target != *target {
            return Ok(None);
        }
        let entry = Entry { id: Some(id), time_ms, ..entry };
        if let Some(other) = self.at(found.conversation, number)? {
            match self.read_entry(&other)?.what {
                What::Failed { .. } => {
                    self.sql.prepare_cached("DELETE FROM history WHERE id = ?1")?.execute([other.id])?;
                }
                _ => return Ok(Some(entry)),
            }
        }
        self.put(found.id, found.conversation, Some(number), &entry, None)?;
        Ok(Some(entry))
    }

    /// What stands under a number of a conversation.
    ///
    /// # Errors
    /// [`StoreError::Sql`], [`StoreError::Damaged`].
    pub fn entry(&self, target: &Target, id: u64) -> Result<Option<Entry>, StoreError> {
        let (Some(conversation), Ok(number)) = (self.cache.rows.logs.id(target), i64::try_from(id)) else {
            return Ok(None);
        };
        self.at(conversation, number)?.map(|found| self.read_entry(&found)).transpose()
    }

    /// A message of a conversation by its sender's own id; the newest, should two devices have drawn one.
    ///
    /// # Errors
    /// [`StoreError::Sql`], [`StoreError::Damaged`].
    pub fn entry_of(&self, target: &Target, msg: MsgId) -> Result<Option<Entry>, StoreError> {
        let Some(conversation) = self.cache.rows.logs.id(target) else { return Ok(None) };
        let query = format!("SELECT {} FROM history WHERE conversation = ?1 ORDER BY id DESC", Found::COLUMNS);
        let mut statement = self.sql.prepare_cached(&query)?;
        let mut rows = statement.query([conversation])?;
        while let Some(row) = rows.next()? {
            let entry = self.read_entry(&Found::read(row)?)?;
            if let What::Sealed { inner, .. } = &entry.what
                && Inner::parse(inner).is_ok_and(|inner| inner.msg_id == msg)
            {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// What was said of a file, by the SHA-256 of what the server has of it: the newest entries, at most
    /// [`BLOB_MAX`]. Anybody can speak of another's file; who has the right key shows when it is opened.
    ///
    /// # Errors
    /// [`StoreError::Sql`], [`StoreError::Damaged`].
    pub fn entries_of_blob(&self, blob: &[u8; 32]) -> Result<Vec<Entry>, StoreError> {
        let query = format!("SELECT {} FROM history WHERE blob = ?1 ORDER BY id DESC", Found::COLUMNS);
        self.entries(&query, [self.blob_tag(blob)], |_| true, BLOB_MAX)
    }

    /// A page of a conversation, by rising number: the first `limit` after a number, or else the last
    /// `limit` (before a number). What has no number is on no page.
    ///
    /// # Errors
    /// [`StoreError::Sql`], [`StoreError::Damaged`].
    #[cfg(test)]
    pub fn page(
        &self,
        target: &Target,
        before: Option<u64>,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let Some(conversation) = self.cache.rows.logs.id(target) else { return Ok(Vec::new()) };
        let order = if after.is_some() { "ASC" } else { "DESC" };
        let query = format!(
            "SELECT {} FROM history WHERE conversation = ?1 AND number > ?2 AND number < ?3 ORDER BY number {order} LIMIT ?4",
            Found::COLUMNS
        );
        let bounds = (conversation, column(after, -1), column(before, i64::MAX), limit_column(limit));
        let mut entries = self.entries(&query, bounds, |_| true, limit)?;
        if after.is_none() {
            entries.reverse();
        }
        Ok(entries)
    }

    /// The newest `limit` entries that hold all of the words (as parts of words, in whatever case), by
    /// rising time. Reads at most [`HISTORY_MAX`] entries, from the newest on.
    ///
    /// # Errors
    /// [`StoreError::Sql`], [`StoreError::Damaged`].
    pub fn search(&self, words: &[String], target: Option<&Target>, limit: usize) -> Result<Vec<Entry>, StoreError> {
        let words: Vec<String> = words.iter().map(|word| word.to_lowercase()).collect();
        let conversation = target.map(|target| self.cache.rows.logs.id(target).unwrap_or(0));
        let query = format!(
            "SELECT {} FROM history WHERE ?1 IS NULL OR conversation = ?1 ORDER BY time DESC, id DESC LIMIT ?2",
            Found::COLUMNS
        );
        let matches = |entry: &Entry| {
            text(entry).is_some_and(|text| {
                let text = Zeroizing::new(text.to_lowercase());
                words.iter().all(|word| text.contains(word.as_str()))
            })
        };
        let mut entries = self.entries(&query, (conversation, limit_column(HISTORY_MAX)), matches, limit)?;
        entries.reverse();
        Ok(entries)
    }

    /// Whether a message of a device is in the history, under whatever number.
    ///
    /// # Errors
    /// [`StoreError::Sql`].
    pub fn heard(&self, from: &Address, msg: MsgId) -> Result<bool, StoreError> {
        let tag = self.message_tag(&from.user, from.device, msg);
        Ok(self.sql.prepare_cached("SELECT 1 FROM history WHERE message = ?1")?.exists([tag])?)
    }

    /// Erases entries older than a time (as the server has stamped them), and what is above
    /// [`HISTORY_MAX`], the oldest first: at most `max` of each, so that others are not kept waiting.
    /// Returns how many.
    ///
    /// # Errors
    /// [`StoreError::Sql`].
    pub fn sweep(&mut self, before_ms: u64, max: usize) -> Result<usize, StoreError> {
        let oldest =
            "DELETE FROM history WHERE id IN (SELECT id FROM history WHERE time < ?1 ORDER BY time, id LIMIT ?2)";
        let swept = self.sql.prepare_cached(oldest)?.execute((column(Some(before_ms), 0), limit_column(max)))?;
        let left = self.sql.query_row("SELECT count(*) FROM history", [], |row| count(row, 0))?;
        let above = left.saturating_sub(HISTORY_MAX).min(max);
        let more = self.sql.prepare_cached(oldest)?.execute((i64::MAX, limit_column(above)))?;
        self.touched |= swept.saturating_add(more) > 0;
        Ok(swept.saturating_add(more))
    }

    fn entries(
        &self,
        query: &str,
        bounds: impl rusqlite::Params,
        fits: impl Fn(&Entry) -> bool,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let mut entries = Vec::new();
        let mut statement = self.sql.prepare_cached(query)?;
        let mut rows = statement.query(bounds)?;
        while entries.len() < limit
            && let Some(row) = rows.next()?
        {
            let entry = self.read_entry(&Found::read(row)?)?;
            if fits(&entry) {
                entries.push(entry);
            }
        }
        Ok(entries)
    }

    fn at(&self, conversation: i64, number: i64) -> Result<Option<Found>, StoreError> {
        let query = format!("SELECT {} FROM history WHERE conversation = ?1 AND number = ?2", Found::COLUMNS);
        Ok(self.sql.prepare_cached(&query)?.query_row((conversation, number), Found::read).optional()?)
    }

    /// The row of a conversation; made if there is none.
    fn conversation(&mut self, target: &Target) -> Result<i64, StoreError> {
        self.touched = true;
        let Cache { rows, logs, .. } = &mut self.cache;
        if rows.logs.id(target).is_none() {
            logs.entry(target.clone()).or_default();
            rows.logs.touch(target);
        }
        rows.logs.id(target).ok_or_else(|| StoreError::damaged("a conversation has no row"))
    }

    fn next_id(&self) -> Result<i64, StoreError> {
        let next = "SELECT coalesce(max(id), 0) + 1 FROM history";
        Ok(self.sql.prepare_cached(next)?.query_row([], |row| row.get(0))?)
    }

    fn message_tag(&self, user: &User, device: DeviceId, msg: MsgId) -> Tag {
        self.vault.tag("message", &[user.as_str().as_bytes(), &device.0, &msg.0])
    }

    fn blob_tag(&self, blob: &[u8; 32]) -> Tag {
        self.vault.tag("blob", &[blob])
    }

    fn put(
        &mut self,
        id: i64,
        conversation: i64,
        number: Option<i64>,
        entry: &Entry,
        envelope: Option<Tag>,
    ) -> Result<(), StoreError> {
        self.touched = true;
        let message = match &entry.what {
            What::Sealed { device, inner } => match (User::parse(entry.sender.as_str()), Inner::parse(inner)) {
                (Ok(user), Ok(inner)) => Some(self.message_tag(&user, *device, inner.msg_id)),
                _ => return Err(StoreError::damaged("what was to be written is no inner message")),
            },
            What::Plain { .. } | What::Failed { .. } | What::File(_) => None,
        };
        let blob = entry.what.blob().map(|blob| self.blob_tag(&blob));
        let time = column(Some(entry.time_ms), 0);
        let sealed = self.vault.seal(TABLE, id, &write_entry(entry, conversation, number))?;
        let mut upsert = self.sql.prepare_cached(
            "INSERT INTO history(id, conversation, number, time, message, envelope, sealed, blob)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT(id) DO UPDATE SET number = excluded.number, time = excluded.time, message = excluded.message,
                                           envelope = excluded.envelope, sealed = excluded.sealed, blob = excluded.blob",
        )?;
        let params: [&dyn ToSql; 8] = [&id, &conversation, &number, &time, &message, &envelope, &sealed, &blob];
        upsert.execute(params)?;
        Ok(())
    }

    /// Opens a row, whose clear columns must be those that it was sealed with.
    fn read_entry(&self, found: &Found) -> Result<Entry, StoreError> {
        let plain = self.vault.open(TABLE, found.id, &found.sealed)?;
        read_entry(&plain, found).map_err(|Damaged| {
            StoreError::damaged(format!("row {} of {TABLE} is not what was written there", found.id))
        })
    }
}

/// A number of the server as a column; above 2^63 it is the greatest there is.
fn column(number: Option<u64>, none: i64) -> i64 {
    number.map_or(none, |number| i64::try_from(number).unwrap_or(i64::MAX))
}

fn limit_column(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// What of an entry is searched.
fn text(entry: &Entry) -> Option<String> {
    match &entry.what {
        What::Plain { text } => Some(text.clone()),
        What::Failed { .. } => None,
        What::File(file) => Some(file.name.clone()),
        What::Sealed { inner, .. } => match Inner::parse(inner).ok()?.body {
            Body::Text(text) | Body::Change { text, .. } => Some(text),
            Body::File(file) => Some(file.name),
            _ => None,
        },
    }
}

fn write_entry(entry: &Entry, conversation: i64, number: Option<i64>) -> Zeroizing<Vec<u8>> {
    let row = Row::new()
        .number(conversation.cast_unsigned())
        .maybe_number(number.map(i64::cast_unsigned))
        .text(entry.target.as_str())
        .text(entry.sender.as_str())
        .number(entry.time_ms);
    let marks: Vec<u8> = entry.marks.iter().map(|mark| mark_code(*mark)).collect();
    let row = row.bytes(&marks);
    match &entry.what {
        What::Sealed { device, inner } => row.byte(1).array(&device.0).bytes(inner),
        What::Plain { text } => row.byte(2).text(text),
        What::Failed { code } => row.byte(3).text(code),
        What::File(PlainFile { file, size, sha256, name }) => {
            row.byte(4).number(file.0).number(*size).array(sha256).text(name)
        }
    }
    .done()
}

fn read_entry(plain: &[u8], found: &Found) -> Result<Entry, Damaged> {
    let mut fields = Fields::of(plain);
    let (conversation, id) = (fields.number()?, fields.maybe_number()?);
    let target = Target::parse(fields.text()?).map_err(|_| Damaged)?;
    let sender = UserName::parse(fields.text()?).map_err(|_| Damaged)?;
    let time_ms = fields.number()?;
    let marks = fields.bytes()?.iter().map(|code| mark_of(*code)).collect::<Result<_, _>>()?;
    let what = match fields.byte()? {
        1 => What::Sealed { device: DeviceId(fields.array()?), inner: plain_inner(fields.bytes()?)? },
        2 => What::Plain { text: fields.text()?.to_owned() },
        3 => What::Failed { code: fields.text()?.to_owned() },
        4 => What::File(PlainFile {
            file: FileId(fields.number()?),
            size: fields.number()?,
            sha256: fields.array()?,
            name: fields.text()?.to_owned(),
        }),
        _ => return Err(Damaged),
    };
    fields.end()?;
    let columns = (found.conversation.cast_unsigned(), found.number.map(i64::cast_unsigned), found.time);
    if columns != (conversation, id, column(Some(time_ms), 0)) {
        return Err(Damaged);
    }
    Ok(Entry { target, id, time_ms, sender, what, marks })
}

/// An inner message of a row.
pub(super) fn plain_inner(bytes: &[u8]) -> Result<Plain, Damaged> {
    Inner::parse(bytes).map(|inner| inner.to_bytes()).map_err(|_| Damaged)
}

/// Every mark there is.
const MARKS: [Mark; 8] = [
    Mark::Plain,
    Mark::FirstContact,
    Mark::Weak,
    Mark::IdentityChanged,
    Mark::Conflict,
    Mark::Removed,
    Mark::OldRoster,
    Mark::Late,
];

/// The number under which a mark is stored. It never changes.
fn mark_code(mark: Mark) -> u8 {
    match mark {
        Mark::Plain => 1,
        Mark::FirstContact => 2,
        Mark::Weak => 3,
        Mark::IdentityChanged => 4,
        Mark::Conflict => 5,
        Mark::Removed => 6,
        Mark::OldRoster => 7,
        Mark::Late => 8,
    }
}

fn mark_of(code: u8) -> Result<Mark, Damaged> {
    MARKS.into_iter().find(|mark| mark_code(*mark) == code).ok_or(Damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was written once is read for ever.
    #[test]
    fn a_file_in_clear_is_written_as_ever() {
        let file = PlainFile { file: FileId(7), size: 300, sha256: [9; 32], name: "a.txt".to_owned() };
        let entry = Entry {
            target: Target::parse("#ops").unwrap(),
            id: Some(5),
            time_ms: 6,
            sender: UserName::parse("bob").unwrap(),
            what: What::File(file),
            marks: vec![Mark::Plain],
        };
        let frozen = [
            "000000000000000200000008000000000000000500000004236f7073".to_owned(),
            "00000003626f6200000000000000060000000101040000000000000007000000000000012c".to_owned(),
            "09".repeat(32),
            "00000005612e747874".to_owned(),
        ];
        let row = write_entry(&entry, 2, Some(5));
        assert_eq!(downstream::e2e::armour::hex(&row), frozen.concat());
        let found = Found { id: 1, conversation: 2, number: Some(5), time: 6, sealed: Vec::new() };
        assert_eq!(read_entry(&row, &found), Ok(entry));
    }

    #[test]
    fn every_mark_has_its_own_number() {
        let schema = serde_json::to_value(schemars::schema_for!(Mark)).unwrap();
        let named: usize = schema["oneOf"].as_array().unwrap().len();
        assert_eq!(named, MARKS.len(), "a mark is missing in MARKS: {schema}");
        for mark in MARKS {
            assert_eq!(mark_of(mark_code(mark)), Ok(mark));
        }
        assert_eq!(mark_of(0), Err(Damaged));
    }
}

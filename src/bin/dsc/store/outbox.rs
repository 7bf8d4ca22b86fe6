//! What is to go out, in order, until the server has acknowledged it; and what came in and waits for a
//! key or a roster.

use downstream::e2e::error::Damaged;
use downstream::e2e::inner::Plain;
use downstream::e2e::name::RoomId;
use downstream::protocol::{PostKey, Target, UserName};
use rusqlite::{Connection, OptionalExtension};
use zeroize::Zeroizing;

use super::StoreError;
use super::cache::Volume;
use super::codec::{Fields, Row};
use super::history::plain_inner;
use super::rows::count;
use super::tx::Tx;
use super::vault::Tag;

/// Lines that wait to go out, at most: more than anybody types in a week offline.
pub const OUTBOX_MAX: usize = 10_000;
/// Their bytes, as they are sealed: all of them are in memory while they go out.
pub const OUTBOX_BYTES: usize = 64 << 20;

/// Lines that wait for a key or a roster, at most; the oldest go first. The server has those of rooms
/// still, and could as well never have sent them.
pub const HELD_MAX: usize = 1000;
/// Their bytes, as they are sealed.
pub const HELD_BYTES: usize = 32 << 20;
/// How long a line waits, in milliseconds: as long as keys of skipped messages are kept. Whoever has
/// the missing key will not have it for longer.
pub const HELD_KEEP_MS: u64 = 14 * 24 * 3600 * 1000;

/// Something to go out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The line.
    pub line: Line,
    /// The end-to-end room that it is for.
    pub room: Option<RoomId>,
    /// The room's epoch when it was sealed.
    pub epoch: u32,
    /// The inner message, to seal it again and to write it into the history.
    pub inner: Option<Plain>,
    /// When it was made, Unix milliseconds.
    pub made_ms: u64,
    /// How often it was sealed again: what the server has under its key may be an earlier sealing.
    pub tries: u32,
}

/// A line of the protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// `/post TARGET KEY BODY`.
    Post {
        /// The room or person.
        target: Target,
        /// The same for every try.
        key: PostKey,
        /// The body.
        body: String,
    },
    /// `/signal USER BODY`.
    Signal {
        /// The person.
        to: UserName,
        /// The envelope.
        body: String,
    },
}

/// A line that came and cannot be opened yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The conversation; `None`: a signal.
    pub target: Option<Target>,
    /// The server's number, of the conversation or of the signals.
    pub id: u64,
    /// When the server stored it, Unix milliseconds.
    pub time_ms: u64,
    /// Who sent it, as the server says.
    pub sender: UserName,
    /// The envelope.
    pub body: String,
    /// When it came, Unix milliseconds.
    pub since_ms: u64,
}

impl Tx<'_> {
    /// Puts a line at the end of the outbox. Its number is never used again.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Sql`], [`StoreError::Random`].
    pub fn queue(&mut self, item: Outgoing) -> Result<u64, StoreError> {
        let Volume { rows, bytes } = self.cache.outbox;
        if rows >= OUTBOX_MAX || bytes >= OUTBOX_BYTES {
            return Err(StoreError::Full("outbox"));
        }
        let id = self.next_of("outbox")?;
        let sealed = self.vault.seal("outbox", id, &item.to_row())?;
        self.touched = true;
        self.cache.outbox = Volume { rows: rows.saturating_add(1), bytes: bytes.saturating_add(sealed.len()) };
        self.sql.prepare_cached("INSERT INTO outbox(id, sealed) VALUES (?1, ?2)")?.execute((id, sealed))?;
        Ok(id.cast_unsigned())
    }

    /// Everything that waits to go out, in the order in which it was put in.
    ///
    /// # Errors
    /// [`StoreError::Sql`], [`StoreError::Damaged`].
    pub fn outbox(&self) -> Result<Vec<(u64, Outgoing)>, StoreError> {
        self.all("outbox", Outgoing::from_row)
    }

    /// Writes a line of the outbox anew, in its place: sealed again, or tried once more. Nothing
    /// happens if it is not there any more.
    ///
    /// # Errors
    /// [`StoreError::Sql`], [`StoreError::Random`].
    #[cfg(test)]
    pub fn requeue(&mut self, id: u64, item: Outgoing) -> Result<(), StoreError> {
        let id = id.cast_signed();
        let Some(before) = self.size("outbox", id)? else { return Ok(()) };
        let sealed = self.vault.seal("outbox", id, &item.to_row())?;
        self.touched = true;
        let bytes = self.cache.outbox.bytes.saturating_sub(before).saturating_add(sealed.len());
        self.cache.outbox.bytes = bytes;
        self.sql.prepare_cached("UPDATE outbox SET sealed = ?2 WHERE id = ?1")?.execute((id, sealed))?;
        Ok(())
    }

    /// Takes a line out of the outbox: the server has acknowledged it, or refused it for good.
    ///
    /// # Errors
    /// [`StoreError::Sql`].
    pub fn sent(&mut self, id: u64) -> Result<(), StoreError> {
        let freed = self.erase("outbox", id.cast_signed())?;
        self.cache.outbox.shrink(freed);
        Ok(())
    }

    /// Keeps a line until its key or roster is here; the same line again changes nothing. Returns those
    /// that had to go for it ([`HELD_MAX`], [`HELD_BYTES`]): they are to be recorded as failed.
    ///
    /// # Errors
    /// [`StoreError::Sql`], [`StoreError::Random`], [`StoreError::Damaged`].
    pub fn hold(&mut self, line: Held) -> Result<Vec<Held>, StoreError> {
        let tag = self.held_tag(&line);
        if self.sql.prepare_cached("SELECT 1 FROM held WHERE tag = ?1")?.exists([tag])? {
            return Ok(Vec::new());
        }
        let id = self.next_of("held")?;
        let sealed = self.vault.seal("held", id, &line.to_row())?;
        self.touched = true;
        let Volume { rows, bytes } = self.cache.held;
        self.cache.held = Volume { rows: rows.saturating_add(1), bytes: bytes.saturating_add(sealed.len()) };
        self.sql.prepare_cached("INSERT INTO held(id, tag, sealed) VALUES (?1, ?2, ?3)")?.execute((id, tag, sealed))?;
        let mut gone = Vec::new();
        while self.cache.held.rows > HELD_MAX || self.cache.held.bytes > HELD_BYTES {
            let oldest = "SELECT id, sealed FROM held ORDER BY id LIMIT 1";
            let oldest: Option<(i64, Vec<u8>)> =
                self.sql.prepare_cached(oldest)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
            let Some((id, sealed)) = oldest else { break };
            gone.push(Held::from_row(&self.vault.open("held", id, &sealed)?)?);
            self.release(id.cast_unsigned())?;
        }
        Ok(gone)
    }

    /// All lines that wait, in the order in which they came.
    ///
    /// # Errors
    /// [`StoreError::Sql`], [`StoreError::Damaged`].
    pub fn held(&self) -> Result<Vec<(u64, Held)>, StoreError> {
        self.all("held", Held::from_row)
    }

    /// Takes out a line that waits no more.
    ///
    /// # Errors
    /// [`StoreError::Sql`].
    pub fn release(&mut self, id: u64) -> Result<(), StoreError> {
        let freed = self.erase("held", id.cast_signed())?;
        self.cache.held.shrink(freed);
        Ok(())
    }

    /// Erases what has waited for too long: lines ([`HELD_KEEP_MS`]) and bundles
    /// (`BUNDLE_KEEP_MS`). Returns the lines: they are to be recorded as failed.
    ///
    /// # Errors
    /// [`StoreError::Sql`], [`StoreError::Damaged`].
    pub fn expire(&mut self, now_ms: u64) -> Result<Vec<Held>, StoreError> {
        self.expire_bundles(now_ms);
        let old = |line: &Held| now_ms.saturating_sub(line.since_ms) > HELD_KEEP_MS;
        let gone: Vec<_> = self.held()?.into_iter().filter(|(_, line)| old(line)).collect();
        gone.iter().try_for_each(|(id, _)| self.release(*id))?;
        Ok(gone.into_iter().map(|(_, line)| line).collect())
    }

    fn held_tag(&self, line: &Held) -> Tag {
        let target = line.target.as_ref().map_or("", Target::as_str);
        self.vault.tag("held", &[target.as_bytes(), &line.id.to_be_bytes()])
    }

    fn all<T>(&self, table: &str, read: impl Fn(&[u8]) -> Result<T, Damaged>) -> Result<Vec<(u64, T)>, StoreError> {
        let mut statement = self.sql.prepare_cached(&format!("SELECT id, sealed FROM {table} ORDER BY id"))?;
        let mut rows = statement.query([])?;
        let mut items = Vec::new();
        while let Some(row) = rows.next()? {
            let (id, sealed): (i64, Vec<u8>) = (row.get(0)?, row.get(1)?);
            items.push((id.cast_unsigned(), read(&self.vault.open(table, id, &sealed)?)?));
        }
        Ok(items)
    }

    /// The id that the table gives next.
    fn next_of(&self, table: &str) -> Result<i64, StoreError> {
        let last: Option<i64> = self
            .sql
            .prepare_cached("SELECT seq FROM sqlite_sequence WHERE name = ?1")?
            .query_row([table], |row| row.get(0))
            .optional()?;
        Ok(last.unwrap_or(0).saturating_add(1))
    }

    fn size(&self, table: &str, id: i64) -> Result<Option<usize>, StoreError> {
        let query = format!("SELECT length(sealed) FROM {table} WHERE id = ?1");
        Ok(self.sql.prepare_cached(&query)?.query_row([id], |row| count(row, 0)).optional()?)
    }

    /// Erases a row; says how long it was, if it was there.
    fn erase(&mut self, table: &str, id: i64) -> Result<Option<usize>, StoreError> {
        let size = self.size(table, id)?;
        if size.is_some() {
            self.touched = true;
            self.sql.prepare_cached(&format!("DELETE FROM {table} WHERE id = ?1"))?.execute([id])?;
        }
        Ok(size)
    }
}

impl Volume {
    fn shrink(&mut self, freed: Option<usize>) {
        if let Some(bytes) = freed {
            self.rows = self.rows.saturating_sub(1);
            self.bytes = self.bytes.saturating_sub(bytes);
        }
    }
}

/// How much a table holds.
pub(super) fn volume(sql: &Connection, table: &str) -> Result<Volume, StoreError> {
    let query = format!("SELECT count(*), coalesce(sum(length(sealed)), 0) FROM {table}");
    Ok(sql.prepare_cached(&query)?.query_row([], |row| Ok(Volume { rows: count(row, 0)?, bytes: count(row, 1)? }))?)
}

impl Outgoing {
    fn to_row(&self) -> Zeroizing<Vec<u8>> {
        let row = match &self.line {
            Line::Post { target, key, body } => Row::new().byte(1).text(target.as_str()).text(key.as_str()).text(body),
            Line::Signal { to, body } => Row::new().byte(2).text(to.as_str()).text(body),
        };
        row.maybe(self.room.as_ref().map(|room| room.0.as_slice()))
            .number(self.epoch.into())
            .maybe(self.inner.as_deref())
            .number(self.made_ms)
            .number(self.tries.into())
            .done()
    }

    fn from_row(row: &[u8]) -> Result<Outgoing, Damaged> {
        let mut fields = Fields::of(row);
        let line = match fields.byte()? {
            1 => Line::Post {
                target: Target::parse(fields.text()?).map_err(|_| Damaged)?,
                key: PostKey::parse(fields.text()?).ok_or(Damaged)?,
                body: fields.text()?.to_owned(),
            },
            2 => Line::Signal {
                to: UserName::parse(fields.text()?).map_err(|_| Damaged)?,
                body: fields.text()?.to_owned(),
            },
            _ => return Err(Damaged),
        };
        let room = fields.maybe()?.map(|id| id.try_into().map(RoomId).map_err(|_| Damaged)).transpose()?;
        let epoch = small(fields.number()?)?;
        let inner = fields.maybe()?.map(plain_inner).transpose()?;
        let (made_ms, tries) = (fields.number()?, small(fields.number()?)?);
        fields.end()?;
        Ok(Outgoing { line, room, epoch, inner, made_ms, tries })
    }
}

impl Held {
    fn to_row(&self) -> Zeroizing<Vec<u8>> {
        Row::new()
            .maybe(self.target.as_ref().map(|target| target.as_str().as_bytes()))
            .number(self.id)
            .number(self.time_ms)
            .text(self.sender.as_str())
            .text(&self.body)
            .number(self.since_ms)
            .done()
    }

    fn from_row(row: &[u8]) -> Result<Held, Damaged> {
        let mut fields = Fields::of(row);
        let target = fields.maybe_text()?.map(|target| Target::parse(target).map_err(|_| Damaged)).transpose()?;
        let (id, time_ms) = (fields.number()?, fields.number()?);
        let sender = UserName::parse(fields.text()?).map_err(|_| Damaged)?;
        let (body, since_ms) = (fields.text()?.to_owned(), fields.number()?);
        fields.end()?;
        Ok(Held { target, id, time_ms, sender, body, since_ms })
    }
}

fn small(number: u64) -> Result<u32, Damaged> {
    u32::try_from(number).map_err(|_| Damaged)
}

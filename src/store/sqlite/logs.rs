//! Reading logs: pages, what is unread, and several logs merged by time.
//!
//! A merge takes the first few of each log and the next few only as they are used, so that it costs
//! what it returns and not what there is.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;

use super::super::seal::{Column, SEAL_OVERHEAD, SealKey};
use super::markers::View;
use super::messages::{row_key, split_row_key};
use super::{Fault, Outcomes, Sqlite, one_more};
use crate::ops::{
    AccountId, Answer, Arrival, Behind, Bound, ConversationId, Entry, MessageId, Page, Person, Range, UnreadRow,
};
use crate::protocol::{FileId, RoomName, Target, Timestamp};

/// Stands in for a body that does not open, so that one damaged record does not take a page down.
pub(super) const BODY_UNREADABLE: &str = "[the server cannot read this message: its copy is damaged]";

/// Bytes of a row around its body: two names, id, time and the words of the line.
pub(super) const ROW_OVERHEAD: usize = 160;

/// Messages first taken of each log of a merge, and the most taken at once later.
const CHUNK: (usize, usize) = (4, 64);

/// A message without its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    time: Timestamp,
    row: i64,
    sender: AccountId,
    len: usize,
    file: Option<FileId>,
}

/// What is left to read of one log.
struct Source {
    after: i64,
    upto: i64,
    /// Whose messages are passed over.
    skip: Option<AccountId>,
    chunk: usize,
    waiting: VecDeque<Found>,
}

impl Source {
    fn new(conversation: ConversationId, after: u64, upto: u64, skip: Option<AccountId>) -> Source {
        let key = |number| row_key(conversation, MessageId(number));
        Source { after: key(after), upto: key(upto), skip, chunk: CHUNK.0, waiting: VecDeque::new() }
    }
}

/// What entries of one log have in common.
struct Log {
    key: SealKey,
    with: With,
}

enum With {
    Room(RoomName),
    Pair(Person, Person),
}

/// Names and keys looked up for one answer.
#[derive(Default)]
struct Lookups {
    logs: HashMap<ConversationId, Log>,
    people: HashMap<AccountId, Person>,
}

/// Counts the bytes of a page.
struct Budget(usize);

impl Budget {
    /// Whether a message still fits; the first always does.
    fn takes(&mut self, found: &Found, first: bool) -> bool {
        let bytes = found.len.saturating_sub(SEAL_OVERHEAD) + ROW_OVERHEAD;
        let fits = first || bytes <= self.0;
        self.0 = self.0.saturating_sub(bytes);
        fits
    }
}

impl Sqlite {
    // ---- one log ----

    pub(super) fn page(
        &self,
        account: AccountId,
        target: &Target,
        bound: Bound,
        limit: usize,
        max_bytes: usize,
    ) -> Outcomes<Answer> {
        let Some(conversation) = self.own_conversation(account, target)? else {
            return Ok(Answer::Page(Page { entries: Vec::new(), more: false, oldest: None }));
        };
        let (oldest, last) = self.extent(conversation)?;
        let (after, below, forward) = match bound {
            Bound::Newest => (0, u64::MAX, false),
            Bound::After(id) => (id.0, u64::MAX, true),
            Bound::Before(id) => (0, id.0, false),
        };
        let (from, to) = (oldest.max(after.saturating_add(1)), last.min(below.saturating_sub(1)));
        if from > to || limit == 0 {
            return Ok(Answer::Page(Page { entries: Vec::new(), more: from <= to, oldest: None }));
        }
        let sql = if forward {
            "SELECT time, id, sender, length(body), file FROM message WHERE id BETWEEN ?1 AND ?2 ORDER BY id LIMIT ?3"
        } else {
            "SELECT time, id, sender, length(body), file FROM message WHERE id BETWEEN ?1 AND ?2 ORDER BY id DESC LIMIT ?3"
        };
        let key = |number| row_key(conversation, MessageId(number));
        let rows = self.list(sql, (key(from), key(to), one_more(limit)), found)?;
        let mut budget = Budget(max_bytes);
        let mut lookups = Lookups::default();
        let mut entries = Vec::new();
        let mut more = false;
        for row in &rows {
            if entries.len() == limit || !budget.takes(row, entries.is_empty()) {
                more = true;
                break;
            }
            entries.push(self.entry(&mut lookups, row)?);
        }
        if !forward {
            entries.reverse();
        }
        Ok(Answer::Page(Page { entries, more, oldest: Some(MessageId(from)) }))
    }

    /// Numbers of the first message that is still there and of the last there ever was.
    fn extent(&self, conversation: ConversationId) -> Outcomes<(u64, u64)> {
        let sql = "SELECT oldest, last FROM conversation WHERE id = ?1";
        let (MessageId(oldest), MessageId(last)) =
            self.statement(sql)?.query_row([conversation], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok((oldest, last))
    }

    // ---- several logs ----

    pub(super) fn unread(&self, account: AccountId, limit: usize, max_bytes: usize) -> Outcomes<Answer> {
        let source = |view: &View| Source::new(view.conversation, view.floor, view.last, Some(account));
        let views = self.views(account)?;
        let sources = views.iter().filter(|view| view.unread() > 0).map(source).collect();
        let (entries, more) = self.merge(&mut Lookups::default(), sources, limit, max_bytes)?;
        Ok(Answer::Page(Page { entries, more, oldest: None }))
    }

    pub(super) fn backlog(&self, ranges: &[Range], max_bytes: usize) -> Outcomes<Answer> {
        let sources =
            ranges.iter().map(|range| Source::new(range.conversation, range.after.0, range.upto.0, None)).collect();
        let (entries, more) = self.merge(&mut Lookups::default(), sources, usize::MAX, max_bytes)?;
        Ok(Answer::Page(Page { entries, more, oldest: None }))
    }

    pub(super) fn arrival(
        &self,
        account: AccountId,
        behind: &[Behind],
        limit: usize,
        max_bytes: usize,
    ) -> Outcomes<Answer> {
        let mut sources = Vec::new();
        // What is unread of each log: its view, the range, how many.
        let mut waiting = Vec::new();
        for Behind { conversation, read, last } in behind {
            // A room left meanwhile is nobody's business any more.
            let Some(view) = self.view(account, *conversation)? else { continue };
            let (oldest, newest) = self.extent(*conversation)?;
            let (after, upto) = (read.0.max(oldest.saturating_sub(1)), last.0.min(newest));
            if after < upto {
                let count = self.foreign_between(&view, after, upto)?;
                if count > 0 {
                    sources.push(Source::new(*conversation, after, upto, Some(account)));
                    waiting.push((*conversation, after, upto, count));
                }
            }
        }
        let mut lookups = Lookups::default();
        let (entries, _) = self.merge(&mut lookups, sources, limit, max_bytes)?;
        let mut taken: HashMap<ConversationId, (u64, MessageId)> = HashMap::new();
        for entry in &entries {
            let (count, last) = taken.entry(entry.conversation).or_default();
            *count += 1;
            *last = entry.id;
        }
        let unread = waiting.iter().map(|(_, _, _, count)| count).sum();
        let mut rest = Vec::new();
        for (conversation, after, upto, count) in waiting {
            let (sent, last) = taken.get(&conversation).copied().unwrap_or((0, MessageId(after)));
            if count > sent {
                rest.push(self.unread_row(&mut lookups, account, conversation, last.0, upto, count - sent)?);
            }
        }
        rest.sort_by(|one, other| one.target.cmp(&other.target));
        Ok(Answer::Arrival(Arrival { unread, entries, rest }))
    }

    pub(super) fn unread_counts(&self, account: AccountId, all: bool) -> Outcomes<Answer> {
        let mut lookups = Lookups::default();
        let mut rows = Vec::new();
        for view in self.views(account)? {
            let count = view.unread();
            if count > 0 {
                let row = self.unread_row(&mut lookups, account, view.conversation, view.floor, view.last, count)?;
                rows.push(row);
            } else if all {
                rows.push(UnreadRow {
                    conversation: view.conversation,
                    target: self.other_side(&mut lookups, account, view.conversation)?,
                    count,
                    first: MessageId(view.read),
                    last: MessageId(view.last),
                });
            }
        }
        rows.sort_by(|one, other| one.target.cmp(&other.target));
        Ok(Answer::UnreadRows(rows))
    }

    /// The row for `count` unread messages of others in (`after`, `upto`].
    fn unread_row(
        &self,
        lookups: &mut Lookups,
        account: AccountId,
        conversation: ConversationId,
        after: u64,
        upto: u64,
        count: u64,
    ) -> Outcomes<UnreadRow> {
        let key = |number| row_key(conversation, MessageId(number));
        let edge = |sql| -> Outcomes<MessageId> {
            let row = self.find(sql, (key(after), key(upto), account), |row| row.get(0))?;
            Ok(row.map_or(MessageId(upto), |row| split_row_key(row).1))
        };
        Ok(UnreadRow {
            conversation,
            target: self.other_side(lookups, account, conversation)?,
            count,
            first: edge("SELECT id FROM message WHERE id > ?1 AND id <= ?2 AND sender <> ?3 ORDER BY id LIMIT 1")?,
            last: edge("SELECT id FROM message WHERE id > ?1 AND id <= ?2 AND sender <> ?3 ORDER BY id DESC LIMIT 1")?,
        })
    }

    /// The oldest messages of all sources by time, log and number; whether there are more.
    fn merge(
        &self,
        lookups: &mut Lookups,
        mut sources: Vec<Source>,
        limit: usize,
        max_bytes: usize,
    ) -> Outcomes<(Vec<Entry>, bool)> {
        // Row keys order by log, then number. The index is of the source.
        let mut next = BinaryHeap::new();
        for (index, source) in sources.iter_mut().enumerate() {
            next.extend(self.next(source)?.map(|found| Reverse((found, index))));
        }
        let mut budget = Budget(max_bytes);
        let mut entries = Vec::new();
        while let Some(Reverse((found, index))) = next.pop() {
            if entries.len() >= limit || !budget.takes(&found, entries.is_empty()) {
                return Ok((entries, true));
            }
            entries.push(self.entry(lookups, &found)?);
            if let Some(source) = sources.get_mut(index) {
                next.extend(self.next(source)?.map(|found| Reverse((found, index))));
            }
        }
        Ok((entries, false))
    }

    fn next(&self, source: &mut Source) -> Outcomes<Option<Found>> {
        if source.waiting.is_empty() && source.after < source.upto {
            let sql = "SELECT time, id, sender, length(body), file FROM message
                       WHERE id > ?1 AND id <= ?2 AND sender <> ?3 ORDER BY id LIMIT ?4";
            let skip = source.skip.unwrap_or(AccountId(0)); // nobody's
            let chunk = i64::try_from(source.chunk).unwrap_or(i64::MAX);
            let rows = self.list(sql, (source.after, source.upto, skip, chunk), found)?;
            source.after = match rows.last() {
                Some(last) if rows.len() == source.chunk => last.row,
                _ => source.upto,
            };
            source.chunk = (source.chunk * 2).min(CHUNK.1);
            source.waiting = rows.into();
        }
        Ok(source.waiting.pop_front())
    }

    // ---- entries ----

    fn entry(&self, lookups: &mut Lookups, found: &Found) -> Outcomes<Entry> {
        let (conversation, id) = split_row_key(found.row);
        let sender = self.lookup_person(lookups, found.sender)?;
        let log = self.lookup_log(lookups, conversation)?;
        let target = match &log.with {
            With::Room(name) => Target::Room(name.clone()),
            With::Pair(a, b) => Target::User(if a.id == found.sender { b.name.clone() } else { a.name.clone() }),
        };
        let sealed: Vec<u8> =
            self.statement("SELECT body FROM message WHERE id = ?1")?.query_row([found.row], |row| row.get(0))?;
        let plain = log.key.open(found.row, &sealed).and_then(|plain| String::from_utf8(plain).ok());
        let body = plain.map_or_else(
            || {
                let log = conversation.0;
                log::error!("message {id} of log {log} does not open: the database was changed by others");
                Arc::from(BODY_UNREADABLE)
            },
            Arc::from,
        );
        let file = found.file.map(|file| self.file_ref(file)).transpose()?;
        Ok(Entry { conversation, id, time: found.time, target, sender, body, file })
    }

    fn lookup_person(&self, lookups: &mut Lookups, account: AccountId) -> Outcomes<Person> {
        if let Some(person) = lookups.people.get(&account) {
            return Ok(person.clone());
        }
        let person = self.person_by_id(account)?.ok_or(Fault::Ours("a sender has no account"))?;
        lookups.people.insert(account, person.clone());
        Ok(person)
    }

    fn lookup_log<'a>(&self, lookups: &'a mut Lookups, conversation: ConversationId) -> Outcomes<&'a Log> {
        if !lookups.logs.contains_key(&conversation) {
            let sql = "SELECT c.a, c.b, r.name FROM conversation c LEFT JOIN room r ON r.id = c.id WHERE c.id = ?1";
            let row: (Option<AccountId>, Option<AccountId>, Option<RoomName>) =
                self.statement(sql)?.query_row([conversation], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
            let with = match row {
                (Some(a), Some(b), _) => With::Pair(self.lookup_person(lookups, a)?, self.lookup_person(lookups, b)?),
                (_, _, Some(name)) => With::Room(name),
                _ => return Err(Fault::Ours("a log is neither a room's nor of two people")),
            };
            let key = self.sealer.key(Column::Body, conversation.0);
            lookups.logs.insert(conversation, Log { key, with });
        }
        lookups.logs.get(&conversation).ok_or(Fault::Ours("a log was not looked up"))
    }

    /// The room, or the other person.
    fn other_side(&self, lookups: &mut Lookups, account: AccountId, conversation: ConversationId) -> Outcomes<Target> {
        Ok(match &self.lookup_log(lookups, conversation)?.with {
            With::Room(name) => Target::Room(name.clone()),
            With::Pair(a, b) => Target::User(if a.id == account { b.name.clone() } else { a.name.clone() }),
        })
    }
}

fn found(row: &rusqlite::Row<'_>) -> rusqlite::Result<Found> {
    let len: i64 = row.get(3)?;
    let len = len.try_into().unwrap_or(0);
    Ok(Found { time: row.get(0)?, row: row.get(1)?, sender: row.get(2)?, len, file: row.get(4)? })
}

//! Reading logs: pages, what is unread, and several logs merged by time.
//!
//! A merge takes the first few of each log and the next few only as they are used, so that it costs
//! what it returns and not what there is.

use std::cmp::Reverse;
use std::collections::hash_map::Entry::{Occupied, Vacant};
use std::collections::{BinaryHeap, HashMap, VecDeque};

use super::super::seal::{Column, SEAL_OVERHEAD, SealKey};
use super::markers::View;
use super::messages::{row_key, split_row_key};
use super::{Fault, Outcomes, Sqlite, one_more};
use crate::ops::{
    AccountId, Answer, Arrival, Behind, Bound, ConversationId, Entry, Form, MessageId, Page, Range, UnreadRow,
};
use crate::protocol::{FileId, RoomName, Target, Timestamp, UserName};

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
    Room(Target),
    Pair(Side, Side),
}

/// One of two people, and what a message to them names as its target.
struct Side {
    account: AccountId,
    target: Target,
}

impl With {
    /// What a message of the log names as its target; for `account` the room or the other person.
    fn target(&self, account: AccountId) -> &Target {
        match self {
            With::Room(target) => target,
            With::Pair(a, b) => {
                if a.account == account {
                    &b.target
                } else {
                    &a.target
                }
            }
        }
    }
}

/// Names and keys looked up for one answer.
#[derive(Default)]
struct Lookups {
    logs: HashMap<ConversationId, Log>,
    names: HashMap<AccountId, UserName>,
}

/// Counts the bytes of a page.
struct Budget(usize);

impl Budget {
    /// Whether a message with a sealed body of this length still fits; the first always does.
    fn takes(&mut self, len: usize, first: bool) -> bool {
        let bytes = len.saturating_sub(SEAL_OVERHEAD) + ROW_OVERHEAD;
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
            return Ok(Answer::Page(Page::default()));
        };
        let (oldest, last) = self.extent(conversation)?;
        let (after, below, forward) = match bound {
            Bound::Newest => (0, u64::MAX, false),
            Bound::After(id) => (id.0, u64::MAX, true),
            Bound::Before(id) => (0, id.0, false),
        };
        let (from, to) = (oldest.max(after.saturating_add(1)), last.min(below.saturating_sub(1)));
        if from > to || limit == 0 {
            return Ok(Answer::Page(Page { more: from <= to, ..Page::default() }));
        }
        let key = |number| row_key(conversation, MessageId(number));
        let mut page = Page { oldest: Some(MessageId(from)), ..Page::default() };
        let (mut first, mut budget) = (key(from), Budget(max_bytes));
        if !forward {
            // Read from its first message on, so that its lines are written in their order.
            (first, page.more) = self.first_of_last(key(from), key(to), limit, budget)?;
            budget = Budget(usize::MAX);
        }
        let mut lookups = Lookups::default();
        let sql = "SELECT time, id, sender, body, file FROM message WHERE id BETWEEN ?1 AND ?2 ORDER BY id LIMIT ?3";
        let mut statement = self.statement(sql)?;
        let mut rows = statement.query((first, key(to), one_more(limit)))?;
        while let Some(row) = rows.next()? {
            let sealed = row.get_ref(3)?.as_blob().map_err(rusqlite::Error::from)?;
            if page.rows.len() == limit || !budget.takes(sealed.len(), page.rows.is_empty()) {
                page.more = true;
                break;
            }
            let found = Found {
                time: row.get(0)?,
                row: row.get(1)?,
                sender: row.get(2)?,
                len: sealed.len(),
                file: row.get(4)?,
            };
            self.push(&mut lookups, &mut page, Form::Row, &found, sealed)?;
        }
        Ok(Answer::Page(page))
    }

    /// The first of the last messages of a range that fit a page; whether there are more before it.
    fn first_of_last(&self, from: i64, to: i64, limit: usize, mut budget: Budget) -> Outcomes<(i64, bool)> {
        let sql = "SELECT id, length(body) FROM message WHERE id BETWEEN ?1 AND ?2 ORDER BY id DESC LIMIT ?3";
        let mut statement = self.statement(sql)?;
        let mut rows = statement.query((from, to, one_more(limit)))?;
        let (mut first, mut count) = (to, 0);
        while let Some(row) = rows.next()? {
            if count == limit || !budget.takes(length(row, 1)?, count == 0) {
                return Ok((first, true));
            }
            first = row.get(0)?;
            count += 1;
        }
        Ok((first, false))
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
        Ok(Answer::Page(self.merge(&mut Lookups::default(), Form::Row, sources, limit, max_bytes)?))
    }

    pub(super) fn backlog(&self, ranges: &[Range], max_bytes: usize) -> Outcomes<Answer> {
        let sources =
            ranges.iter().map(|range| Source::new(range.conversation, range.after.0, range.upto.0, None)).collect();
        Ok(Answer::Page(self.merge(&mut Lookups::default(), Form::Event, sources, usize::MAX, max_bytes)?))
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
        let page = self.merge(&mut lookups, Form::Missed, sources, limit, max_bytes)?;
        let mut taken: HashMap<ConversationId, (u64, MessageId)> = HashMap::new();
        for row in &page.rows {
            let (count, last) = taken.entry(row.conversation).or_default();
            *count += 1;
            *last = row.id;
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
        Ok(Answer::Arrival(Arrival { unread, page, rest }))
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

    /// The oldest messages of all sources by time, log and number.
    fn merge(
        &self,
        lookups: &mut Lookups,
        form: Form,
        mut sources: Vec<Source>,
        limit: usize,
        max_bytes: usize,
    ) -> Outcomes<Page> {
        // Row keys order by log, then number. The index is of the source.
        let mut next = BinaryHeap::new();
        for (index, source) in sources.iter_mut().enumerate() {
            next.extend(self.next(source)?.map(|found| Reverse((found, index))));
        }
        let mut budget = Budget(max_bytes);
        let mut page = Page::default();
        if next.is_empty() {
            return Ok(page); // as for most logins: not even the statement is looked up
        }
        let mut body = self.statement("SELECT body FROM message WHERE id = ?1")?;
        while let Some(Reverse((found, index))) = next.pop() {
            if page.rows.len() >= limit || !budget.takes(found.len, page.rows.is_empty()) {
                page.more = true;
                break;
            }
            let sealed: Vec<u8> = body.query_row([found.row], |row| row.get(0))?;
            self.push(lookups, &mut page, form, &found, &sealed)?;
            if let Some(source) = sources.get_mut(index) {
                next.extend(self.next(source)?.map(|found| Reverse((found, index))));
            }
        }
        Ok(page)
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

    /// Adds a message to a page.
    fn push(&self, lookups: &mut Lookups, page: &mut Page, form: Form, found: &Found, sealed: &[u8]) -> Outcomes<()> {
        let (conversation, id) = split_row_key(found.row);
        let Lookups { logs, names } = lookups;
        let log = self.log(logs, conversation)?;
        let sender = match names.entry(found.sender) {
            Occupied(name) => name.into_mut(),
            Vacant(place) => place.insert(self.name_of(found.sender)?),
        };
        let file = found.file.map(|file| self.file_ref(file)).transpose()?;
        let target = log.with.target(found.sender);
        let entry = Entry { conversation, id, time: found.time, target, sender, file };
        page.push(form, &entry, |lines| {
            if !open_text(&log.key, found.row, sealed, lines) {
                log::error!("message {id} of log {} does not open: the database was changed by others", conversation.0);
                lines.extend_from_slice(BODY_UNREADABLE.as_bytes());
            }
        });
        Ok(())
    }

    fn name_of(&self, account: AccountId) -> Outcomes<UserName> {
        Ok(self.person_by_id(account)?.ok_or(Fault::Ours("a sender has no account"))?.name)
    }

    fn log<'a>(&self, logs: &'a mut HashMap<ConversationId, Log>, conversation: ConversationId) -> Outcomes<&'a Log> {
        let place = match logs.entry(conversation) {
            Occupied(log) => return Ok(log.into_mut()),
            Vacant(place) => place,
        };
        let sql = "SELECT c.a, c.b, r.name FROM conversation c LEFT JOIN room r ON r.id = c.id WHERE c.id = ?1";
        let row: (Option<AccountId>, Option<AccountId>, Option<RoomName>) =
            self.statement(sql)?.query_row([conversation], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        let side = |account| Ok::<_, Fault>(Side { account, target: Target::User(self.name_of(account)?) });
        let with = match row {
            (Some(a), Some(b), _) => With::Pair(side(a)?, side(b)?),
            (_, _, Some(name)) => With::Room(Target::Room(name)),
            _ => return Err(Fault::Ours("a log is neither a room's nor of two people")),
        };
        Ok(place.insert(Log { key: self.sealer.key(Column::Body, conversation.0), with }))
    }

    /// The room, or the other person.
    fn other_side(&self, lookups: &mut Lookups, account: AccountId, conversation: ConversationId) -> Outcomes<Target> {
        Ok(self.log(&mut lookups.logs, conversation)?.with.target(account).clone())
    }
}

/// Appends a body as text. Whether it opened.
fn open_text(key: &SealKey, row: i64, sealed: &[u8], lines: &mut Vec<u8>) -> bool {
    let begin = lines.len();
    let is_text =
        key.open_onto(row, sealed, lines) && lines.get(begin..).is_some_and(|body| std::str::from_utf8(body).is_ok());
    if !is_text {
        lines.truncate(begin);
    }
    is_text
}

fn found(row: &rusqlite::Row<'_>) -> rusqlite::Result<Found> {
    let len = length(row, 3)?;
    Ok(Found { time: row.get(0)?, row: row.get(1)?, sender: row.get(2)?, len, file: row.get(4)? })
}

fn length(row: &rusqlite::Row<'_>, index: usize) -> rusqlite::Result<usize> {
    row.get(index).map(|len: i64| len.try_into().unwrap_or(0))
}

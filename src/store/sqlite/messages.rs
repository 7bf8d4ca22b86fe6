//! Appending to logs: the one write that has to be fast.

use subtle::ConstantTimeEq;

use super::{Fault, MESSAGES_MAX, Outcomes, Sqlite};
use crate::ops::{
    AccountId, Appended, ConversationId, Destination, MessageId, Outcome, POST_KEY_LIFE_MS, Person, Refused,
};
use crate::protocol::file::SEALED_NAME;
use crate::protocol::{FileId, FileName, PostKey, RoomName, Target, Timestamp, UserName, is_envelope};

/// Most logs there can be: the upper half of a message's row key, which is never negative.
const CONVERSATIONS_MAX: i64 = 1 << 31;

/// The key of a message's row: rows of one log lie together, in order. A number above
/// [`MESSAGES_MAX`] counts as that, so that it stays in its log.
pub(super) fn row_key(conversation: ConversationId, id: MessageId) -> i64 {
    let number = id.0.min(MESSAGES_MAX);
    conversation.0 << 32 | i64::try_from(number).unwrap_or(0)
}

/// The log and the number of a row.
pub(super) fn split_row_key(key: i64) -> (ConversationId, MessageId) {
    (ConversationId(key >> 32), MessageId((key & 0xffff_ffff).unsigned_abs()))
}

/// What a message is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Content<'a> {
    /// An ordinary one.
    Text(&'a str),
    /// A file, by its name.
    File(FileId, &'a FileName),
}

impl<'a> Content<'a> {
    fn text(self) -> &'a str {
        match self {
            Content::Text(body) => body,
            Content::File(_, name) => name.as_str(),
        }
    }

    fn file(self) -> Option<FileId> {
        match self {
            Content::Text(_) => None,
            Content::File(file, _) => Some(file),
        }
    }

    /// Whether an end-to-end room takes it.
    fn suits_e2e(self) -> bool {
        match self {
            Content::Text(body) => is_envelope(body),
            Content::File(_, name) => name.as_str() == SEALED_NAME,
        }
    }
}

/// The place in a log where the next message goes.
struct Head {
    conversation: ConversationId,
    id: MessageId,
    /// Nothing was there before.
    first: bool,
}

impl Sqlite {
    pub(super) fn append(
        &self,
        now: Timestamp,
        sender: &Person,
        targets: &[Target],
        body: &str,
        key: Option<&PostKey>,
    ) -> Outcomes<Outcome> {
        if targets.is_empty() || (key.is_some() && targets.len() > 1) {
            return Err(Fault::Ours("an append needs a target, and one with a key exactly one"));
        }
        let time = self.tick(now);
        let mut results = Vec::with_capacity(targets.len());
        for target in targets {
            // What is refused was refused before anything was written for this target.
            results.push(match self.append_once(time, sender, target, body, key) {
                Ok(appended) => Ok(appended),
                Err(Fault::Refused(refused)) => Err(refused),
                Err(fault) => return Err(fault),
            });
        }
        Ok(Outcome::Appended(results))
    }

    fn append_once(
        &self,
        time: Timestamp,
        sender: &Person,
        target: &Target,
        body: &str,
        key: Option<&PostKey>,
    ) -> Outcomes<Appended> {
        let content = Content::Text(body);
        let Some(key) = key else { return self.append_to(time, sender.id, target, content) };
        // Before memberships are looked at: a key that worked answers the same for its whole life.
        let digest = self.sealer.digest(&[target.as_str().as_bytes(), body.as_bytes()]);
        let sql = "SELECT message, time, digest FROM post WHERE sender = ?1 AND key = ?2 AND time > ?3";
        let since = time.as_millis().checked_sub(POST_KEY_LIFE_MS).and_then(|ms| i64::try_from(ms).ok());
        let known: Option<(i64, Timestamp, Vec<u8>)> =
            self.find(sql, (sender.id, key.as_str(), since.unwrap_or(-1)), |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })?;
        if let Some((message, time, known)) = known {
            let (conversation, id) = split_row_key(message);
            if !bool::from(known.ct_eq(&digest)) {
                return Err(Refused::Conflict(id).into());
            }
            let to = match target {
                Target::Room(name) => Destination::Room(name.clone()),
                Target::User(name) => {
                    let sql = "SELECT id FROM account WHERE name = ?1";
                    let id = self.find(sql, [name], |row| row.get(0))?.ok_or(Refused::NoSuchUser)?;
                    Destination::User(Person { id, name: name.clone() })
                }
            };
            return Ok(Appended { to, conversation, id, time, duplicate: true });
        }
        let appended = self.append_to(time, sender.id, target, content)?;
        let sql = "INSERT OR REPLACE INTO post(sender, key, message, time, digest) VALUES (?1, ?2, ?3, ?4, ?5)";
        let message = row_key(appended.conversation, appended.id);
        self.execute(sql, (sender.id, key.as_str(), message, time, digest))?;
        Ok(appended)
    }

    pub(super) fn append_to(
        &self,
        time: Timestamp,
        sender: AccountId,
        target: &Target,
        content: Content<'_>,
    ) -> Outcomes<Appended> {
        let (to, head) = match target {
            Target::User(name) => {
                let (receiver, head) = self.head_of_pair(sender, name)?;
                let head = match head {
                    Some(head) => head,
                    None => self.insert_pair(sender, receiver)?,
                };
                let by_a = sender <= receiver;
                let sql = "UPDATE conversation SET last = ?2, last_time = ?3, sent_a = sent_a + ?4 WHERE id = ?1";
                self.execute(sql, (head.conversation, head.id, time, by_a))?;
                (Destination::User(Person { id: receiver, name: name.clone() }), head)
            }
            Target::Room(name) => {
                let head = self.head_of_room(sender, name, content)?;
                let sql = "UPDATE conversation SET last = ?2, last_time = ?3 WHERE id = ?1";
                self.execute(sql, (head.conversation, head.id, time))?;
                let sql = "UPDATE marker SET sent = sent + 1 WHERE account = ?1 AND conversation = ?2";
                self.execute(sql, (sender, head.conversation))?;
                (Destination::Room(name.clone()), head)
            }
        };
        let Head { conversation, id, first } = head;
        if id.0 >= MESSAGES_MAX {
            return Err(Fault::Ours("a log is full"));
        }
        if first {
            self.execute("UPDATE conversation SET oldest_time = ?2 WHERE id = ?1", (conversation, time))?;
        }
        let row = row_key(conversation, id);
        let sealed = self.log_keys.seal(&self.sealer, conversation.0, row, content.text().as_bytes())?;
        let sql = "INSERT INTO message(id, time, sender, body, file) VALUES (?1, ?2, ?3, ?4, ?5)";
        self.execute(sql, (row, time, sender, sealed, content.file()))?;
        Ok(Appended { to, conversation, id, time, duplicate: false })
    }

    /// The receiver of a direct message, and the next place in the log with them if there is one. A sender
    /// that was erased a moment ago reaches nobody.
    fn head_of_pair(&self, sender: AccountId, receiver: &UserName) -> Outcomes<(AccountId, Option<Head>)> {
        let sql = "SELECT r.id, c.id, c.last, c.oldest FROM account r JOIN account s ON s.id = ?2
                   LEFT JOIN conversation c ON c.a = min(r.id, s.id) AND c.b = max(r.id, s.id)
                   WHERE r.name = ?1 AND r.erased = 0 AND s.erased = 0";
        let found = self.find(sql, (receiver, sender), |row| {
            let conversation: Option<ConversationId> = row.get(1)?;
            Ok((row.get(0)?, conversation.map(|conversation| next(row, conversation, 2)).transpose()?))
        })?;
        found.ok_or_else(|| Refused::NoSuchUser.into())
    }

    /// Begins the log of two people.
    fn insert_pair(&self, one: AccountId, other: AccountId) -> Outcomes<Head> {
        let (a, b) = (one.min(other), one.max(other));
        let conversation = self.insert_conversation(Some((a, b)))?;
        let sql = "INSERT INTO marker(account, conversation, read) VALUES (?1, ?2, 0)";
        self.execute(sql, (a, conversation))?;
        if a != b {
            self.execute(sql, (b, conversation))?;
        }
        Ok(Head { conversation, id: MessageId(1), first: true })
    }

    /// The next place in the log of a room, for a member.
    fn head_of_room(&self, sender: AccountId, name: &RoomName, content: Content<'_>) -> Outcomes<Head> {
        let sql = "SELECT r.id, r.e2e, m.account IS NOT NULL, c.last, c.oldest
                   FROM room r JOIN conversation c ON c.id = r.id
                   LEFT JOIN marker m ON m.account = ?2 AND m.conversation = r.id WHERE r.name = ?1";
        let found = self.find(sql, (name, sender), |row| Ok((row.get(1)?, row.get(2)?, next(row, row.get(0)?, 3)?)))?;
        let (e2e, member, head): (bool, bool, Head) = found.ok_or(Refused::NoSuchRoom)?;
        if !member {
            let room = self.room_named(name)?.ok_or(Refused::NoSuchRoom)?;
            return Err(self.refusal_for_stranger(&room, sender)?.into());
        }
        if e2e && !content.suits_e2e() {
            return Err(Refused::E2eRequired.into());
        }
        Ok(head)
    }

    /// Makes a log, of a room or of two people.
    pub(super) fn insert_conversation(&self, pair: Option<(AccountId, AccountId)>) -> Outcomes<ConversationId> {
        let sql = "INSERT INTO conversation(a, b) VALUES (?1, ?2)";
        self.execute(sql, (pair.map(|(a, _)| a), pair.map(|(_, b)| b)))?;
        match self.conn.last_insert_rowid() {
            id if id < CONVERSATIONS_MAX => Ok(ConversationId(id)),
            _ => Err(Fault::Ours("no more conversations can be numbered")),
        }
    }
}

/// The place behind the last message, whose number and that of the oldest stand in two columns.
fn next(row: &rusqlite::Row<'_>, conversation: ConversationId, last: usize) -> rusqlite::Result<Head> {
    let (MessageId(last), oldest): (_, MessageId) = (row.get(last)?, row.get(last + 1)?);
    let id = MessageId(last + 1);
    Ok(Head { conversation, id, first: id == oldest })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_keys_keep_to_their_log() {
        for (conversation, id) in [(1, 1), (1, MESSAGES_MAX - 1), (CONVERSATIONS_MAX - 1, MESSAGES_MAX - 1)] {
            let (conversation, id) = (ConversationId(conversation), MessageId(id));
            let key = row_key(conversation, id);
            assert!(key > 0);
            assert_eq!(split_row_key(key), (conversation, id));
        }
        let beyond = row_key(ConversationId(1), MessageId(u64::MAX));
        assert!(beyond < row_key(ConversationId(2), MessageId(0)));
    }
}

//! Appending to logs: the one write that has to be fast.

use subtle::ConstantTimeEq;

use super::super::seal::Column;
use super::{Fault, MESSAGES_MAX, Outcomes, Sqlite};
use crate::ops::{
    AccountId, Appended, ConversationId, Destination, MessageId, Outcome, POST_KEY_LIFE_MS, Person, Refused,
};
use crate::protocol::{PostKey, RoomName, Target, Timestamp, UserName};

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

/// The head of a log after an append.
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
        let Some(key) = key else { return self.append_to(time, sender, target, body) };
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
        let appended = self.append_to(time, sender, target, body)?;
        let sql = "INSERT OR REPLACE INTO post(sender, key, message, time, digest) VALUES (?1, ?2, ?3, ?4, ?5)";
        let message = row_key(appended.conversation, appended.id);
        self.execute(sql, (sender.id, key.as_str(), message, time, digest))?;
        Ok(appended)
    }

    fn append_to(&self, time: Timestamp, sender: &Person, target: &Target, body: &str) -> Outcomes<Appended> {
        let (to, head) = match target {
            Target::User(name) => {
                let receiver = self.receiver(sender.id, name)?;
                let head = self.bump_direct(time, sender.id, receiver)?;
                (Destination::User(Person { id: receiver, name: name.clone() }), head)
            }
            Target::Room(name) => (Destination::Room(name.clone()), self.bump_room(time, sender.id, name, body)?),
        };
        let Head { conversation, id, first } = head;
        if id.0 >= MESSAGES_MAX {
            return Err(Fault::Ours("a log is full"));
        }
        if first {
            self.execute("UPDATE conversation SET oldest_time = ?2 WHERE id = ?1", (conversation, time))?;
        }
        let row = row_key(conversation, id);
        let sealed = self.sealer.key(Column::Body, conversation.0).seal(row, body.as_bytes())?;
        let sql = "INSERT INTO message(id, time, sender, body) VALUES (?1, ?2, ?3, ?4)";
        self.execute(sql, (row, time, sender.id, sealed))?;
        Ok(Appended { to, conversation, id, time, duplicate: false })
    }

    /// The receiver of a direct message. A sender that was erased a moment ago reaches nobody.
    fn receiver(&self, sender: AccountId, name: &UserName) -> Outcomes<AccountId> {
        let sql = "SELECT r.id FROM account r, account s
                   WHERE r.name = ?1 AND r.erased = 0 AND s.id = ?2 AND s.erased = 0";
        self.find(sql, (name, sender), |row| row.get(0))?.ok_or_else(|| Refused::NoSuchUser.into())
    }

    fn bump_direct(&self, time: Timestamp, sender: AccountId, receiver: AccountId) -> Outcomes<Head> {
        let (a, b) = (sender.min(receiver), sender.max(receiver));
        let sql = "UPDATE conversation SET last = last + 1, sent_a = sent_a + ?3, last_time = ?4
                   WHERE a = ?1 AND b = ?2 RETURNING id, last, oldest";
        if let Some(head) = self.find(sql, (a, b, a == sender, time), head)? {
            return Ok(head);
        }
        let conversation = self.insert_conversation(Some((a, b)))?;
        let sql = "INSERT INTO marker(account, conversation, read) VALUES (?1, ?2, 0)";
        self.execute(sql, (a, conversation))?;
        if a != b {
            self.execute(sql, (b, conversation))?;
        }
        let sql = "UPDATE conversation SET last = 1, sent_a = ?2, last_time = ?3 WHERE id = ?1";
        self.execute(sql, (conversation, a == sender, time))?;
        Ok(Head { conversation, id: MessageId(1), first: true })
    }

    fn bump_room(&self, time: Timestamp, sender: AccountId, name: &RoomName, body: &str) -> Outcomes<Head> {
        let room = self.room_named(name)?.ok_or(Refused::NoSuchRoom)?;
        if room.e2e && !is_envelope(body) {
            let sql = "SELECT 1 FROM marker WHERE account = ?1 AND conversation = ?2";
            return Err(match self.find(sql, (sender, room.id), |_| Ok(()))? {
                Some(()) => Refused::E2eRequired.into(),
                None => self.refusal_for_stranger(&room, sender)?.into(),
            });
        }
        // A member's marker is there, a stranger's is not.
        let sql = "UPDATE marker SET sent = sent + 1 WHERE account = ?1 AND conversation = ?2";
        if self.execute(sql, (sender, room.id))? == 0 {
            return Err(self.refusal_for_stranger(&room, sender)?.into());
        }
        let sql = "UPDATE conversation SET last = last + 1, last_time = ?2 WHERE id = ?1 RETURNING id, last, oldest";
        Ok(self.statement(sql)?.query_row((room.id, time), head)?)
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

fn head(row: &rusqlite::Row<'_>) -> rusqlite::Result<Head> {
    let (id, oldest): (MessageId, MessageId) = (row.get(1)?, row.get(2)?);
    Ok(Head { conversation: row.get(0)?, id, first: id == oldest })
}

/// Whether a body is an end-to-end envelope: `e2e:` and canonical base64 with padding.
fn is_envelope(body: &str) -> bool {
    use base64ct::{Base64, Encoding};
    body.strip_prefix("e2e:").is_some_and(|rest| !rest.is_empty() && Base64::decode_vec(rest).is_ok())
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

    #[test]
    fn envelopes_are_canonical_base64() {
        for good in ["e2e:aGk=", "e2e:AAAA"] {
            assert!(is_envelope(good), "{good}");
        }
        for bad in ["e2e:", "e2e:aGk", "e2e:aGl=", "e2e:a Gk=", "E2E:aGk=", "hi"] {
            assert!(!is_envelope(bad), "{bad}");
        }
    }
}

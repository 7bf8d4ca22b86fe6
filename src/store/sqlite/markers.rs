//! Read markers, and counting what lies behind them without reading it.
//!
//! Unread are the messages behind the marker that others sent. To count them, each account's own
//! messages are counted as they are appended ([`View::sent`]) and again where the marker stands
//! ([`View::own`]); what lies between is the rest. A point in between is counted from the nearer of the
//! two, so moving markers looks at each message at most once.

use super::messages::row_key;
use super::{Outcomes, Sqlite};
use crate::ops::{AccountId, Acked, ConversationId, MessageId, Outcome, Refused};
use crate::protocol::Target;

/// One account's view of one of its conversations.
#[derive(Debug, Clone, Copy)]
pub(super) struct View {
    pub(super) account: AccountId,
    pub(super) conversation: ConversationId,
    /// The marker.
    pub(super) read: u64,
    /// Everything up to here is read or was deleted.
    pub(super) floor: u64,
    /// Number of the last message there ever was.
    pub(super) last: u64,
    /// How many up to `floor` are by the account.
    own: i64,
    /// How many up to `last` are by the account; counted from the same zero as `own`.
    sent: i64,
}

macro_rules! views {
    ($condition:literal) => {
        concat!(
            "SELECT m.account, m.conversation, m.read, max(m.read, c.oldest - 1), c.last, m.own,
                CASE WHEN c.a IS NULL THEN m.sent WHEN c.a = c.b THEN c.last
                     WHEN c.a = m.account THEN c.sent_a ELSE c.last - c.sent_a END
             FROM marker m JOIN conversation c ON c.id = m.conversation WHERE ",
            $condition
        )
    };
}

fn view(row: &rusqlite::Row<'_>) -> rusqlite::Result<View> {
    let number = |index| row.get(index).map(|MessageId(number)| number);
    Ok(View {
        account: row.get(0)?,
        conversation: row.get(1)?,
        read: number(2)?,
        floor: number(3)?,
        last: number(4)?,
        own: row.get(5)?,
        sent: row.get(6)?,
    })
}

impl View {
    /// How many messages are unread.
    pub(super) fn unread(&self) -> u64 {
        foreign(self.floor, self.own, self.last, self.sent)
    }
}

/// How many of the messages in (`from`, `to`] are by others, where `own` counts those of one account.
fn foreign(from: u64, own_from: i64, to: u64, own_to: i64) -> u64 {
    to.saturating_sub(from).saturating_sub((own_to - own_from).try_into().unwrap_or(0))
}

impl Sqlite {
    /// The view of one conversation; `None` where it is not one of the account's.
    pub(super) fn view(&self, account: AccountId, conversation: ConversationId) -> Outcomes<Option<View>> {
        Ok(self.find(views!("m.account = ?1 AND m.conversation = ?2"), (account, conversation), view)?)
    }

    /// All conversations of an account.
    pub(super) fn views(&self, account: AccountId) -> Outcomes<Vec<View>> {
        Ok(self.list(views!("m.account = ?1"), [account], view)?)
    }

    /// How many messages up to `at` are by the account of the view.
    fn own_at(&self, view: &View, at: u64) -> Outcomes<i64> {
        let between = |from: u64, to: u64| -> Outcomes<i64> {
            if from >= to {
                return Ok(0);
            }
            let sql = "SELECT count(*) FROM message WHERE id > ?1 AND id <= ?2 AND sender = ?3";
            let key = |number| row_key(view.conversation, MessageId(number));
            Ok(self.statement(sql)?.query_row((key(from), key(to), view.account), |row| row.get(0))?)
        };
        if at <= view.floor {
            Ok(view.own - between(at, view.floor)?)
        } else if at - view.floor <= view.last.saturating_sub(at) {
            Ok(view.own + between(view.floor, at)?)
        } else {
            Ok(view.sent - between(at, view.last)?)
        }
    }

    /// How many messages in (`after`, `upto`] are by others. Both must be at or above the first that is
    /// still there, less one.
    pub(super) fn foreign_between(&self, view: &View, after: u64, upto: u64) -> Outcomes<u64> {
        Ok(foreign(after, self.own_at(view, after)?, upto, self.own_at(view, upto)?))
    }

    /// The conversation of a target, for who is in it.
    pub(super) fn own_conversation(&self, account: AccountId, target: &Target) -> Outcomes<Option<ConversationId>> {
        match target {
            Target::Room(name) => Ok(Some(self.room_of_member(name, account)?.0.id)),
            Target::User(name) => {
                let sql = "SELECT id, erased FROM account WHERE name = ?1";
                let found: Option<(AccountId, bool)> = self.find(sql, [name], |row| Ok((row.get(0)?, row.get(1)?)))?;
                let (other, erased) = found.ok_or(Refused::NoSuchUser)?;
                let sql = "SELECT id FROM conversation WHERE a = ?1 AND b = ?2";
                let conversation = self.find(sql, (account.min(other), account.max(other)), |row| row.get(0))?;
                // What was said with somebody who is gone stays readable; else they do not exist.
                if erased && conversation.is_none() { Err(Refused::NoSuchUser.into()) } else { Ok(conversation) }
            }
        }
    }

    pub(super) fn ack(&self, account: AccountId, target: &Target, id: MessageId) -> Outcomes<Outcome> {
        let conversation = self.own_conversation(account, target)?.ok_or(Refused::NotFound)?;
        let view = self.view(account, conversation)?.ok_or(Refused::NotFound)?;
        let unmoved = Acked { conversation, read: MessageId(view.read), tell: None };
        Ok(Outcome::Acked(vec![self.advance(&view, id)?.unwrap_or(unmoved)]))
    }

    pub(super) fn auto_ack(&self, account: AccountId, marks: &[(ConversationId, MessageId)]) -> Outcomes<Outcome> {
        let mut moved = Vec::new();
        for (conversation, id) in marks {
            if let Some(view) = self.view(account, *conversation)? {
                moved.extend(self.advance(&view, *id)?);
            }
        }
        Ok(Outcome::Acked(moved))
    }

    /// Moves a marker up to `id`, at most to the last message; `None` where it stands there already.
    fn advance(&self, view: &View, id: MessageId) -> Outcomes<Option<Acked>> {
        let read = id.0.min(view.last);
        if read <= view.read {
            return Ok(None);
        }
        let floor = read.max(view.floor);
        let own = self.own_at(view, floor)?;
        let sql = "UPDATE marker SET read = ?3, own = ?4 WHERE account = ?1 AND conversation = ?2";
        self.execute(sql, (view.account, view.conversation, MessageId(read), own))?;
        let tell = match foreign(view.floor, view.own, floor, own) {
            0 => None,
            _ => self.receipt_listener(view.account, view.conversation)?,
        };
        Ok(Some(Acked { conversation: view.conversation, read: MessageId(read), tell }))
    }

    /// Corrects the count at the marker of a message's sender, where the message stood behind it and is
    /// being deleted from the front of its log.
    pub(super) fn forget_own(&self, sender: AccountId, conversation: ConversationId, id: MessageId) -> Outcomes<()> {
        let sql = "UPDATE marker SET own = own + 1 WHERE account = ?1 AND conversation = ?2 AND read < ?3";
        self.execute(sql, (sender, conversation, id))?;
        Ok(())
    }
}

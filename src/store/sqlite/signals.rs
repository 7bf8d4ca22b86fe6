//! Signals: small envelopes that wait for one account outside every conversation.
//!
//! Numbers rise for each receiver and are never used again, also where the signal is long gone. How many
//! of each pair wait is counted as they come and go, so that the quota costs one look-up.

use std::sync::Arc;

use super::super::seal::{Column, SEAL_OVERHEAD};
use super::logs::{BODY_UNREADABLE, ROW_OVERHEAD};
use super::upkeep::Budget;
use super::{Fault, MESSAGES_MAX, Outcomes, Sqlite, person};
use crate::ops::{AccountId, Answer, Outcome, Person, Refused, SIGNAL_LIFE_MS, SIGNALS_MAX, Signal, SignalStored};
use crate::protocol::{Timestamp, UserName};

/// Most mailboxes: the upper half of a signal's row key, which is never negative.
const MAILBOXES_MAX: i64 = 1 << 31;

/// The key of a signal's row: those to one receiver lie together, in order. A number above
/// [`MESSAGES_MAX`] counts as that, so that it stays in its mailbox.
fn row_key(receiver: AccountId, number: u64) -> i64 {
    receiver.0 << 32 | i64::try_from(number.min(MESSAGES_MAX)).unwrap_or(0)
}

/// The number in a row key.
fn number(key: i64) -> u64 {
    (key & 0xffff_ffff).unsigned_abs()
}

impl Sqlite {
    pub(super) fn add_signal(
        &self,
        now: Timestamp,
        sender: &Person,
        receiver: &UserName,
        body: &str,
    ) -> Outcomes<Outcome> {
        // A sender that was erased a moment ago reaches nobody.
        let sql = "SELECT r.id, m.last, w.signals FROM account r JOIN account s ON s.id = ?2
                   LEFT JOIN mailbox m ON m.account = r.id
                   LEFT JOIN waiting w ON w.receiver = r.id AND w.sender = s.id
                   WHERE r.name = ?1 AND r.erased = 0 AND s.erased = 0";
        let found: Option<(AccountId, Option<i64>, Option<i64>)> =
            self.find(sql, (receiver, sender.id), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        let (account, last, waiting) = found.ok_or(Refused::NoSuchUser)?;
        if waiting.is_some_and(|waiting| waiting >= SIGNALS_MAX as i64) {
            return Err(Refused::Quota(SIGNALS_MAX).into());
        }
        let id = u64::try_from(last.unwrap_or(0)).unwrap_or(0) + 1;
        if id >= MESSAGES_MAX || account.0 >= MAILBOXES_MAX {
            return Err(Fault::Ours("a mailbox is full"));
        }
        let time = self.tick(now);
        let sql = "INSERT INTO mailbox(account, last) VALUES (?1, 1) ON CONFLICT DO UPDATE SET last = last + 1";
        self.execute(sql, [account])?;
        let sql = "INSERT INTO waiting(receiver, sender, signals) VALUES (?1, ?2, 1)
                   ON CONFLICT DO UPDATE SET signals = signals + 1";
        self.execute(sql, (account, sender.id))?;
        let row = row_key(account, id);
        let sealed = self.mailbox_keys.seal(&self.sealer, account.0, row, body.as_bytes())?;
        let sql = "INSERT INTO signal(id, time, sender, body) VALUES (?1, ?2, ?3, ?4)";
        self.execute(sql, (row, time, sender.id, sealed))?;
        let receiver = Person { id: account, name: receiver.clone() };
        Ok(Outcome::Signalled(SignalStored { id, time, receiver }))
    }

    pub(super) fn drop_signal(&self, account: AccountId, id: u64) -> Outcomes<Outcome> {
        let row = row_key(account, id);
        let sender = self.find("SELECT sender FROM signal WHERE id = ?1", [row], |row| row.get(0))?;
        self.delete_signal(row, sender.ok_or(Refused::NotFound)?)?;
        Ok(Outcome::Nothing)
    }

    fn delete_signal(&self, row: i64, sender: AccountId) -> Outcomes<()> {
        let receiver = row >> 32;
        self.execute("DELETE FROM signal WHERE id = ?1", [row])?;
        let last = "DELETE FROM waiting WHERE receiver = ?1 AND sender = ?2 AND signals <= 1";
        if self.execute(last, (receiver, sender))? == 0 {
            let sql = "UPDATE waiting SET signals = signals - 1 WHERE receiver = ?1 AND sender = ?2";
            self.execute(sql, (receiver, sender))?;
        }
        Ok(())
    }

    pub(super) fn signals(&self, account: AccountId, after: u64, limit: usize, max_bytes: usize) -> Outcomes<Answer> {
        let key = self.sealer.key(Column::Signal, account.0);
        let sql = "SELECT s.id, s.time, s.sender, a.name, s.body FROM signal s JOIN account a ON a.id = s.sender
                   WHERE s.id > ?1 AND s.id <= ?2 ORDER BY s.id";
        let mut statement = self.statement(sql)?;
        let mut found = statement.query((row_key(account, after), row_key(account, MESSAGES_MAX)))?;
        let (mut rows, mut left) = (Vec::new(), max_bytes);
        while let Some(row) = found.next()? {
            let sealed = row.get_ref(4)?.as_blob().map_err(rusqlite::Error::from)?;
            let bytes = sealed.len().saturating_sub(SEAL_OVERHEAD) + ROW_OVERHEAD;
            // The first always fits, so that paging goes on.
            if rows.len() >= limit || (bytes > left && !rows.is_empty()) {
                return Ok(Answer::Signals { rows, more: true });
            }
            left = left.saturating_sub(bytes);
            let at: i64 = row.get(0)?;
            let plain = key.open(at, sealed).and_then(|plain| String::from_utf8(plain).ok());
            let body = plain.map_or_else(
                || {
                    let (id, of) = (number(at), account.0);
                    log::error!("signal {id} to account {of} does not open: the database was changed by others");
                    Arc::from(BODY_UNREADABLE)
                },
                Arc::from,
            );
            rows.push(Signal { id: number(at), time: row.get(1)?, sender: person(row, 2, 3)?, body });
        }
        Ok(Answer::Signals { rows, more: false })
    }

    // ---- upkeep ----

    /// Erases the signals to an account, those behind one sweep's worth with the sweeps that follow. Those
    /// that it sent stay: they may hold the keys to what it said.
    pub(super) fn abandon_mailbox(&self, account: AccountId) -> Outcomes<()> {
        self.execute("UPDATE mailbox SET abandoned = 1 WHERE account = ?1", [account])?;
        self.sweep_mailbox(&mut Budget::new(), account)
    }

    /// Deletes signals that nobody can read any more.
    pub(super) fn sweep_mailboxes(&self, budget: &mut Budget) -> Outcomes<()> {
        while !budget.is_used_up() {
            let next = self.find("SELECT account FROM mailbox WHERE abandoned = 1 LIMIT 1", [], |row| row.get(0))?;
            let Some(account) = next else { break };
            self.sweep_mailbox(budget, account)?;
        }
        Ok(())
    }

    fn sweep_mailbox(&self, budget: &mut Budget, account: AccountId) -> Outcomes<()> {
        let sql = "SELECT id, sender, length(body) FROM signal WHERE id > ?1 AND id <= ?2 ORDER BY id";
        self.delete_signals(budget, sql, (row_key(account, 0), row_key(account, MESSAGES_MAX)))?;
        if !budget.is_used_up() {
            self.execute("DELETE FROM mailbox WHERE account = ?1", [account])?;
            budget.take(0);
        }
        Ok(())
    }

    /// Deletes signals that nobody acknowledged in time.
    pub(super) fn sweep_signals(&self, budget: &mut Budget, now: Timestamp) -> Outcomes<()> {
        let sql = "SELECT id, sender, length(body) FROM signal WHERE time <= ?1 ORDER BY time";
        self.delete_signals(budget, sql, [now.earlier_by(SIGNAL_LIFE_MS)])
    }

    /// Deletes the signals that `sql` selects, with sender and length, as far as the budget goes.
    fn delete_signals(&self, budget: &mut Budget, sql: &str, params: impl rusqlite::Params) -> Outcomes<()> {
        let mut old: Vec<(i64, AccountId)> = Vec::new();
        {
            let mut statement = self.statement(sql)?;
            let mut rows = statement.query(params)?;
            while !budget.is_used_up() {
                let Some(row) = rows.next()? else { break };
                old.push((row.get(0)?, row.get(1)?));
                budget.take(row.get(2)?);
            }
        }
        for (row, sender) in old {
            self.delete_signal(row, sender)?;
        }
        Ok(())
    }
}

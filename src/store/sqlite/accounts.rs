//! Accounts: making, entering and erasing them.

use zeroize::Zeroizing;

use super::super::seal::Column;
use super::{Outcomes, Sqlite};
use crate::ops::{
    AccountId, Answer, Behind, ConversationId, Credentials, Outcome, Person, Proof, Refused, RoomChange, SessionOpened,
    Sha256, Verifier,
};
use crate::protocol::{Timestamp, UserName};

/// An account's row, as far as writes look at it.
pub(super) struct AccountRecord {
    pub(super) id: AccountId,
    epoch: i64,
    admin: bool,
    banned: bool,
    disabled: bool,
    pub(super) receipts: bool,
}

impl Sqlite {
    /// The account of that name, unless it was erased.
    pub(super) fn account(&self, name: &UserName) -> Outcomes<Option<AccountRecord>> {
        let sql = "SELECT id, epoch, admin, banned, disabled, receipts FROM account WHERE name = ?1 AND erased = 0";
        Ok(self.find(sql, [name], |row| {
            Ok(AccountRecord {
                id: row.get(0)?,
                epoch: row.get(1)?,
                admin: row.get(2)?,
                banned: row.get(3)?,
                disabled: row.get(4)?,
                receipts: row.get(5)?,
            })
        })?)
    }

    /// The person of that name; `NoSuchUser` where there is none or it was erased.
    pub(super) fn person_named(&self, name: &UserName) -> Outcomes<Person> {
        let record = self.account(name)?.ok_or(Refused::NoSuchUser)?;
        Ok(Person { id: record.id, name: name.clone() })
    }

    /// The person of that key, erased or not.
    pub(super) fn person_by_id(&self, account: AccountId) -> Outcomes<Option<Person>> {
        let name = self.find("SELECT name FROM account WHERE id = ?1", [account], |row| row.get(0))?;
        Ok(name.map(|name| Person { id: account, name }))
    }

    /// Refuses writes of an account that was erased a moment ago and that some session still speaks for.
    pub(super) fn require_account(&self, account: AccountId) -> Outcomes<Person> {
        let name = self.find("SELECT name FROM account WHERE id = ?1 AND erased = 0", [account], |row| row.get(0))?;
        Ok(Person { id: account, name: name.ok_or(Refused::AuthFailed)? })
    }

    pub(super) fn register(
        &self,
        now: Timestamp,
        name: &UserName,
        verifier: &Verifier,
        invite: Option<&Sha256>,
    ) -> Outcomes<Outcome> {
        // Before the name is looked at: who has no code learns nothing about names.
        if let Some(code) = invite {
            self.use_code(now, code)?;
        }
        Ok(Outcome::Registered(self.insert_account(now, name, verifier, false)?))
    }

    /// Makes an account; `NameTaken` also for the name of an erased one.
    pub(super) fn insert_account(
        &self,
        now: Timestamp,
        name: &UserName,
        verifier: &Verifier,
        admin: bool,
    ) -> Outcomes<AccountId> {
        if self.find("SELECT 1 FROM account WHERE name = ?1", [name], |_| Ok(()))?.is_some() {
            return Err(Refused::NameTaken.into());
        }
        let sql = "INSERT INTO account(name, admin, created, last_seen) VALUES (?1, ?2, ?3, ?3)";
        self.execute(sql, (name, admin, now))?;
        let account = AccountId(self.conn.last_insert_rowid());
        self.store_verifier(account, verifier)?;
        Ok(account)
    }

    pub(super) fn store_verifier(&self, account: AccountId, verifier: &Verifier) -> Outcomes<()> {
        let sealed =
            self.sealer.key(Column::Verifier, account.0).seal(account.0, &super::credentials::encode(verifier))?;
        self.execute("UPDATE account SET verifier = ?2 WHERE id = ?1", (account, sealed))?;
        Ok(())
    }

    pub(super) fn credentials(&self, name: &UserName) -> Outcomes<Answer> {
        let sql = "SELECT id, epoch, verifier FROM account WHERE name = ?1 AND erased = 0";
        let found: Option<(AccountId, i64, Vec<u8>)> =
            self.find(sql, [name], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        let Some((account, epoch, sealed)) = found else { return Ok(Answer::Credentials(None)) };
        let verifier = self
            .sealer
            .key(Column::Verifier, account.0)
            .open(account.0, &sealed)
            .and_then(|plain| super::credentials::decode(&Zeroizing::new(plain)))
            .ok_or(super::Fault::Ours(
                "the verifier of an account does not open: the database was changed by others",
            ))?;
        Ok(Answer::Credentials(Some(Credentials { account, verifier, epoch })))
    }

    pub(super) fn open_session(&self, now: Timestamp, name: &UserName, proof: &Proof) -> Outcomes<Outcome> {
        let record = self.account(name)?.ok_or(Refused::AuthFailed)?;
        let account = record.id;
        let holds = match proof {
            Proof::Password { epoch, .. } => *epoch == record.epoch,
            Proof::Token(hash) => self.use_token(now, account, hash)?,
            Proof::Certificate(hash) => self.has_certificate(account, hash)?,
        };
        if !holds {
            return Err(Refused::AuthFailed.into());
        }
        if record.banned || record.disabled {
            return Err(Refused::Banned.into());
        }
        if let Proof::Password { upgraded: Some(verifier), .. } = proof {
            self.store_verifier(account, verifier)?;
        }
        self.execute("UPDATE account SET last_seen = max(last_seen, ?2) WHERE id = ?1", (account, now))?;
        Ok(Outcome::SessionOpened(Box::new(SessionOpened {
            account,
            admin: record.admin,
            receipts: record.receipts,
            rooms: self.rooms_of(account)?,
            behind: self.behind(account)?,
            invitations: self.invitations_of(account)?,
        })))
    }

    fn behind(&self, account: AccountId) -> Outcomes<Vec<Behind>> {
        let sql = "SELECT m.conversation, max(m.read, c.oldest - 1) AS floor, c.last
                   FROM marker m JOIN conversation c ON c.id = m.conversation
                   WHERE m.account = ?1 AND c.last > max(m.read, c.oldest - 1)";
        Ok(self.list(sql, [account], |row| {
            Ok(Behind { conversation: row.get(0)?, read: row.get(1)?, last: row.get(2)? })
        })?)
    }

    pub(super) fn seen_last(&self, now: Timestamp, account: AccountId) -> Outcomes<Outcome> {
        let sql = "UPDATE account SET last_seen = max(last_seen, ?2) WHERE id = ?1 AND erased = 0";
        self.execute(sql, (account, now))?;
        Ok(Outcome::Nothing)
    }

    pub(super) fn change_password(&self, account: AccountId, epoch: i64, verifier: &Verifier) -> Outcomes<Outcome> {
        self.require_epoch(account, epoch)?;
        self.replace_password(account, verifier)?;
        Ok(Outcome::Nothing)
    }

    /// Sets a password and ends every token.
    pub(super) fn replace_password(&self, account: AccountId, verifier: &Verifier) -> Outcomes<()> {
        self.execute("UPDATE account SET epoch = epoch + 1 WHERE id = ?1", [account])?;
        self.execute("DELETE FROM token WHERE account = ?1", [account])?;
        self.store_verifier(account, verifier)
    }

    fn require_epoch(&self, account: AccountId, epoch: i64) -> Outcomes<()> {
        let sql = "SELECT 1 FROM account WHERE id = ?1 AND epoch = ?2 AND erased = 0";
        self.find(sql, (account, epoch), |_| Ok(()))?.ok_or_else(|| Refused::AuthFailed.into())
    }

    pub(super) fn unregister(&self, now: Timestamp, account: AccountId, epoch: i64) -> Outcomes<Outcome> {
        self.require_epoch(account, epoch)?;
        Ok(Outcome::Unregistered(self.erase(now, account)?))
    }

    /// Erases an account but for its name, which stays taken, and what it said to others.
    pub(super) fn erase(&self, now: Timestamp, account: AccountId) -> Outcomes<Vec<RoomChange>> {
        let person = self.require_account(account)?;
        let mut left = Vec::new();
        for room in self.rooms_of(account)? {
            left.push(self.remove_member(now, &room, &person)?);
        }
        let unread_by_nobody = "INSERT OR IGNORE INTO orphan(conversation)
            SELECT m.conversation FROM marker m JOIN conversation c ON c.id = m.conversation
            WHERE m.account = ?1 AND c.a IS NOT NULL AND NOT EXISTS (
                SELECT 1 FROM marker o WHERE o.account = c.a + c.b - ?1 AND o.conversation = c.id AND c.a <> c.b)";
        self.execute(unread_by_nobody, [account])?;
        self.void_uploads_of(account)?;
        self.erase_devices(account)?;
        self.abandon_mailbox(account)?;
        for sql in [
            "DELETE FROM marker WHERE account = ?1",
            "DELETE FROM token WHERE account = ?1",
            "DELETE FROM certificate WHERE account = ?1",
            "DELETE FROM invitation WHERE account = ?1",
            "DELETE FROM ban WHERE account = ?1",
            "DELETE FROM post WHERE sender = ?1",
            "UPDATE account SET erased = 1, epoch = epoch + 1, admin = 0, banned = 0, disabled = 0, receipts = 0,
                created = 0, last_seen = 0, verifier = NULL, profile = NULL WHERE id = ?1",
        ] {
            self.execute(sql, [account])?;
        }
        Ok(left)
    }

    pub(super) fn ban_account(&self, subject: &UserName, banned: bool) -> Outcomes<Outcome> {
        let person = self.person_named(subject)?;
        self.execute("UPDATE account SET banned = ?2 WHERE id = ?1", (person.id, banned))?;
        Ok(Outcome::Account(person))
    }

    /// The other person of a direct conversation, and whether they want receipts; `None` for a room, for
    /// one's own notes and where the other was erased.
    pub(super) fn receipt_listener(
        &self,
        account: AccountId,
        conversation: ConversationId,
    ) -> Outcomes<Option<AccountId>> {
        let sql = "SELECT o.id FROM conversation c
                   JOIN account o ON o.id = c.a + c.b - ?1
                   JOIN account me ON me.id = ?1
                   WHERE c.id = ?2 AND c.a <> c.b AND o.erased = 0 AND o.receipts = 1 AND me.receipts = 1";
        Ok(self.find(sql, (account, conversation), |row| row.get(0))?)
    }
}

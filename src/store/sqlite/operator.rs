//! What the operator does on the machine, beside a running daemon, and how the daemon hears of it.

use super::{Outcomes, Sqlite, person};
use crate::ops::{AccountId, AccountRow, OutsideChange, Refused, RoomChange, RoomInfo, Sha256, Verifier};
use crate::protocol::{Timestamp, UserName};

/// What an announcement is about; the numbers stand in the database.
#[derive(Clone, Copy)]
enum Kind {
    EndSessions = 0,
    Admin = 1,
    NoAdmin = 2,
    Deleted = 3,
}

/// Operator writes. Each belongs into a [`Sqlite::transaction`].
impl Sqlite {
    pub(in crate::store) fn operator_add_user(
        &self,
        now: Timestamp,
        name: &UserName,
        verifier: &Verifier,
        admin: bool,
    ) -> Result<(), super::Fault> {
        self.insert_account(now, name, verifier, admin).map(drop)
    }

    pub(in crate::store) fn operator_set_password(
        &self,
        now: Timestamp,
        name: &UserName,
        verifier: &Verifier,
    ) -> Result<(), super::Fault> {
        let account = self.person_named(name)?.id;
        self.replace_password(account, verifier)?;
        self.announce(now, Kind::EndSessions, account).map(drop)
    }

    pub(in crate::store) fn operator_set_disabled(
        &self,
        now: Timestamp,
        name: &UserName,
        disabled: bool,
    ) -> Result<(), super::Fault> {
        let account = self.person_named(name)?.id;
        self.execute("UPDATE account SET disabled = ?2 WHERE id = ?1", (account, disabled))?;
        if disabled {
            self.announce(now, Kind::EndSessions, account)?;
        }
        Ok(())
    }

    pub(in crate::store) fn operator_set_admin(
        &self,
        now: Timestamp,
        name: &UserName,
        admin: bool,
    ) -> Result<(), super::Fault> {
        let account = self.person_named(name)?.id;
        self.execute("UPDATE account SET admin = ?2 WHERE id = ?1", (account, admin))?;
        self.announce(now, if admin { Kind::Admin } else { Kind::NoAdmin }, account).map(drop)
    }

    pub(in crate::store) fn operator_delete_user(&self, now: Timestamp, name: &UserName) -> Result<(), super::Fault> {
        let account = self.person_named(name)?.id;
        let left = self.erase(now, account)?;
        let announcement = self.announce(now, Kind::Deleted, account)?;
        let sql = "INSERT INTO announcement_room(announcement, room, name, private, e2e, heir)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        for RoomChange { room, heir, .. } in left {
            let heir = heir.map(|heir| heir.id);
            self.execute(sql, (announcement, room.id, &room.name, room.private, room.e2e, heir))?;
        }
        Ok(())
    }

    pub(in crate::store) fn operator_add_invite(&self, now: Timestamp, code: &Sha256) -> Result<(), super::Fault> {
        self.add_code(now, code)
    }

    pub(in crate::store) fn operator_users(&self) -> Result<Vec<AccountRow>, super::Fault> {
        Ok(self.account_rows(None, None, usize::MAX)?.0)
    }

    fn announce(&self, now: Timestamp, kind: Kind, account: AccountId) -> Outcomes<i64> {
        let sql = "INSERT INTO announcement(time, kind, account) VALUES (?1, ?2, ?3)";
        self.execute(sql, (now, kind as i64, account))?;
        Ok(self.conn.last_insert_rowid())
    }

    /// Changes whenever another connection has committed something.
    pub(in crate::store) fn data_version(&self) -> Result<i64, super::Fault> {
        Ok(self.statement("PRAGMA data_version")?.query_row([], |row| row.get(0))?)
    }

    /// The last announcement there is.
    pub(in crate::store) fn last_announcement(&self) -> Result<i64, super::Fault> {
        let sql = "SELECT coalesce(max(id), 0) FROM announcement";
        Ok(self.statement(sql)?.query_row([], |row| row.get(0))?)
    }

    /// The announcements behind `seen`, each with its number.
    pub(in crate::store) fn announcements(&self, seen: i64) -> Result<Vec<(i64, OutsideChange)>, super::Fault> {
        let sql = "SELECT n.id, n.kind, n.account, a.name FROM announcement n JOIN account a ON a.id = n.account
                   WHERE n.id > ?1 ORDER BY n.id";
        let rows = self.list(sql, [seen], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?, person(row, 2, 3)?)))?;
        let mut changes = Vec::new();
        for (id, kind, subject) in rows {
            let change = if kind == Kind::Deleted as i64 {
                OutsideChange::Deleted(subject.id, self.announced_rooms(id, &subject)?)
            } else if kind == Kind::Admin as i64 || kind == Kind::NoAdmin as i64 {
                OutsideChange::Admin(subject.id, kind == Kind::Admin as i64)
            } else {
                OutsideChange::EndSessions(subject.id)
            };
            changes.push((id, change));
        }
        Ok(changes)
    }

    fn announced_rooms(&self, announcement: i64, subject: &crate::ops::Person) -> Outcomes<Vec<RoomChange>> {
        let sql = "SELECT r.room, r.name, r.e2e, r.private, h.id, h.name FROM announcement_room r
                   LEFT JOIN account h ON h.id = r.heir WHERE r.announcement = ?1 ORDER BY r.name";
        Ok(self.list(sql, [announcement], |row| {
            let heir: Option<AccountId> = row.get(4)?;
            Ok(RoomChange {
                room: RoomInfo { id: row.get(0)?, name: row.get(1)?, e2e: row.get(2)?, private: row.get(3)? },
                subject: Some(subject.clone()),
                changed: true,
                was_member: true,
                heir: heir.map(|_| person(row, 4, 5)).transpose()?,
            })
        })?)
    }
}

/// What a refused write of the operator means on the machine.
pub(in crate::store) fn refusal(refused: Refused, name: Option<&UserName>) -> crate::store::StoreError {
    use crate::store::StoreError;
    let name = name.map(ToString::to_string).unwrap_or_default();
    match refused {
        Refused::NoSuchUser => StoreError::NoSuchUser(name),
        Refused::NameTaken => StoreError::NameTaken(name),
        other => StoreError::Refused(other),
    }
}

//! What owners and operators of a room do.

use super::rooms::role_number;
use super::{BANS_PER_ROOM, INVITATIONS_PER_ACCOUNT, INVITATIONS_PER_ROOM, Outcomes, Sqlite};
use crate::ops::{AccountId, Act, Outcome, Person, Refused, Role, RoomChange, RoomInfo};
use crate::protocol::{RoomName, Timestamp, UserName};

impl Sqlite {
    pub(super) fn moderate(
        &self,
        now: Timestamp,
        actor: AccountId,
        name: &RoomName,
        act: Act,
        subject: &UserName,
    ) -> Outcomes<Outcome> {
        let (room, actor_role) = self.room_of_member(name, actor)?;
        if actor_role < Role::Operator {
            return Err(Refused::Forbidden.into());
        }
        let subject = self.person_named(subject)?;
        let role = self.role_in(room.id, subject.id)?;
        let against = matches!(act, Act::Kick | Act::Ban | Act::Deop);
        if against && role == Some(Role::Owner) {
            // An owner hands the room on by leaving it, so this protects from oneself as well.
            return Err(Refused::Forbidden.into());
        }
        if matches!(act, Act::Kick | Act::Op | Act::Deop) && role.is_none() {
            return Err(Refused::SubjectNotMember.into());
        }
        let mut heir = None;
        let changed = match act {
            Act::Invite => role.is_none() && self.invite(&room, actor, subject.id)?,
            Act::Kick => {
                heir = self.remove_member(now, &room, &subject)?.heir;
                true
            }
            Act::Ban => {
                let changed = self.ban(&room, subject.id)?;
                if role.is_some() {
                    heir = self.remove_member(now, &room, &subject)?.heir;
                }
                changed
            }
            Act::Unban => {
                let sql = "DELETE FROM ban WHERE room = ?1 AND account = ?2";
                if self.execute(sql, (room.id, subject.id))? == 0 {
                    return Err(Refused::NotFound.into());
                }
                true
            }
            Act::Op => role == Some(Role::Member) && self.set_role(&room, &subject, Role::Operator)?,
            Act::Deop => role == Some(Role::Operator) && self.set_role(&room, &subject, Role::Member)?,
        };
        Ok(Outcome::RoomChanged(RoomChange { room, subject: Some(subject), changed, was_member: role.is_some(), heir }))
    }

    /// Whether the invitation is new.
    fn invite(&self, room: &RoomInfo, inviter: AccountId, subject: AccountId) -> Outcomes<bool> {
        if self.is_banned_from(room.id, subject)? {
            return Err(Refused::Banned.into());
        }
        if self.is_invited(room.id, subject)? {
            return Ok(false);
        }
        if self.count("SELECT count(*) FROM invitation WHERE room = ?1", [room.id])? >= INVITATIONS_PER_ROOM {
            return Err(Refused::Quota(INVITATIONS_PER_ROOM).into());
        }
        if self.count("SELECT count(*) FROM invitation WHERE account = ?1", [subject])? >= INVITATIONS_PER_ACCOUNT {
            return Err(Refused::Quota(INVITATIONS_PER_ACCOUNT).into());
        }
        let sql = "INSERT INTO invitation(room, account, inviter) VALUES (?1, ?2, ?3)";
        self.execute(sql, (room.id, subject, inviter))?;
        Ok(true)
    }

    /// Whether the ban is new.
    fn ban(&self, room: &RoomInfo, subject: AccountId) -> Outcomes<bool> {
        if self.is_banned_from(room.id, subject)? {
            return Ok(false);
        }
        if self.count("SELECT count(*) FROM ban WHERE room = ?1", [room.id])? >= BANS_PER_ROOM {
            return Err(Refused::Quota(BANS_PER_ROOM).into());
        }
        self.execute("INSERT INTO ban(room, account) VALUES (?1, ?2)", (room.id, subject))?;
        self.execute("DELETE FROM invitation WHERE room = ?1 AND account = ?2", (room.id, subject))?;
        Ok(true)
    }

    fn set_role(&self, room: &RoomInfo, subject: &Person, role: Role) -> Outcomes<bool> {
        let sql = "UPDATE member SET role = ?3 WHERE room = ?1 AND account = ?2";
        Ok(self.execute(sql, (room.id, subject.id, role_number(role)))? > 0)
    }

    pub(super) fn set_topic(&self, actor: AccountId, name: &RoomName, topic: &str) -> Outcomes<Outcome> {
        let (room, role) = self.room_of_member(name, actor)?;
        if role < Role::Operator {
            return Err(Refused::Forbidden.into());
        }
        let changed = self.stored_topic(room.id)?.unwrap_or_default() != topic;
        if changed {
            self.store_topic(room.id, topic)?;
        }
        Ok(Outcome::RoomChanged(RoomChange { room, subject: None, changed, was_member: true, heir: None }))
    }
}

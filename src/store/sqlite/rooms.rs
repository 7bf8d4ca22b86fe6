//! Rooms: making, entering, leaving and seeing them.

use super::super::seal::Column;
use super::{
    Glob, INVITATIONS_PER_ACCOUNT, MEMBERS_PER_ROOM, MEMBERSHIPS_PER_ACCOUNT, Outcomes, ROOMS_PER_ACCOUNT, Sqlite, cut,
    one_more, person,
};
use crate::ops::{
    AccountId, Answer, ConversationId, Joined, MemberRow, MessageId, Outcome, Person, Refused, Role, RoomChange,
    RoomInfo, RoomRow,
};
use crate::protocol::{RoomName, Timestamp, UserName};

/// Stands in for a topic that does not open.
pub(super) const TOPIC_UNREADABLE: &str = "[the server cannot read this topic: its copy is damaged]";

pub(super) fn role_number(role: Role) -> i64 {
    match role {
        Role::Member => 0,
        Role::Operator => 1,
        Role::Owner => 2,
    }
}

fn role(number: i64) -> Role {
    match number {
        0 => Role::Member,
        1 => Role::Operator,
        _ => Role::Owner,
    }
}

fn info(row: &rusqlite::Row<'_>) -> rusqlite::Result<RoomInfo> {
    Ok(RoomInfo { id: row.get(0)?, name: row.get(1)?, e2e: row.get(2)?, private: row.get(3)? })
}

impl Sqlite {
    /// The room of that name, whoever asks.
    pub(super) fn room_named(&self, name: &RoomName) -> Outcomes<Option<RoomInfo>> {
        Ok(self.find("SELECT id, name, e2e, private FROM room WHERE name = ?1", [name], info)?)
    }

    /// The role of a member.
    pub(super) fn role_in(&self, room: ConversationId, account: AccountId) -> Outcomes<Option<Role>> {
        let sql = "SELECT role FROM member WHERE room = ?1 AND account = ?2";
        Ok(self.find(sql, (room, account), |row| row.get(0))?.map(role))
    }

    pub(super) fn is_invited(&self, room: ConversationId, account: AccountId) -> Outcomes<bool> {
        let sql = "SELECT 1 FROM invitation WHERE room = ?1 AND account = ?2";
        Ok(self.find(sql, (room, account), |_| Ok(()))?.is_some())
    }

    pub(super) fn is_banned_from(&self, room: ConversationId, account: AccountId) -> Outcomes<bool> {
        let sql = "SELECT 1 FROM ban WHERE room = ?1 AND account = ?2";
        Ok(self.find(sql, (room, account), |_| Ok(()))?.is_some())
    }

    /// What somebody who is no member hears of a room: a private one is missing for strangers.
    pub(super) fn refusal_for_stranger(&self, room: &RoomInfo, account: AccountId) -> Outcomes<Refused> {
        let known = !room.private || self.is_invited(room.id, account)?;
        Ok(if known { Refused::NotMember } else { Refused::NoSuchRoom })
    }

    /// The room of that name and the role in it of a member; refused for everybody else.
    pub(super) fn room_of_member(&self, name: &RoomName, account: AccountId) -> Outcomes<(RoomInfo, Role)> {
        let room = self.room_named(name)?.ok_or(Refused::NoSuchRoom)?;
        match self.role_in(room.id, account)? {
            Some(role) => Ok((room, role)),
            None => Err(self.refusal_for_stranger(&room, account)?.into()),
        }
    }

    /// The rooms of an account, by name.
    pub(super) fn rooms_of(&self, account: AccountId) -> Outcomes<Vec<RoomInfo>> {
        let sql = "SELECT r.id, r.name, r.e2e, r.private FROM marker m JOIN room r ON r.id = m.conversation
                   WHERE m.account = ?1 ORDER BY r.name";
        Ok(self.list(sql, [account], info)?)
    }

    /// Rooms that invited an account, with who did it.
    pub(super) fn invitations_of(&self, account: AccountId) -> Outcomes<Vec<(RoomName, UserName)>> {
        let sql = "SELECT r.name, by.name FROM invitation i
                   JOIN room r ON r.id = i.room JOIN account by ON by.id = i.inviter
                   WHERE i.account = ?1 ORDER BY r.name LIMIT ?2";
        Ok(self.list(sql, (account, INVITATIONS_PER_ACCOUNT as i64), |row| Ok((row.get(0)?, row.get(1)?)))?)
    }

    pub(super) fn create_room(
        &self,
        account: AccountId,
        name: &RoomName,
        private: bool,
        e2e: bool,
        topic: Option<&str>,
    ) -> Outcomes<Outcome> {
        self.require_account(account)?;
        if let Some(room) = self.room_named(name)? {
            let seen =
                !room.private || self.role_in(room.id, account)?.is_some() || self.is_invited(room.id, account)?;
            return Err(if seen { Refused::NameTaken } else { Refused::Forbidden }.into());
        }
        let room = self.insert_room(account, name, private, e2e)?;
        if let Some(topic) = topic {
            self.store_topic(room.id, topic)?;
        }
        self.enter(account, room).map(Outcome::Joined)
    }

    fn insert_room(&self, creator: AccountId, name: &RoomName, private: bool, e2e: bool) -> Outcomes<RoomInfo> {
        let made = self.count("SELECT count(*) FROM room WHERE creator = ?1", [creator])?;
        if made >= ROOMS_PER_ACCOUNT {
            return Err(Refused::Quota(ROOMS_PER_ACCOUNT).into());
        }
        let id = self.insert_conversation(None)?;
        let sql = "INSERT INTO room(id, name, creator, private, e2e) VALUES (?1, ?2, ?3, ?4, ?5)";
        self.execute(sql, (id, name, creator, private, e2e))?;
        Ok(RoomInfo { id, name: name.clone(), e2e, private })
    }

    pub(super) fn join_room(&self, account: AccountId, name: &RoomName) -> Outcomes<Outcome> {
        self.require_account(account)?;
        let Some(room) = self.room_named(name)? else {
            let room = self.insert_room(account, name, false, false)?;
            return self.enter(account, room).map(Outcome::Joined);
        };
        if self.role_in(room.id, account)?.is_some() {
            return Ok(Outcome::Joined(self.joined(room, false)?));
        }
        if self.is_banned_from(room.id, account)? {
            return Err(if room.private { Refused::Forbidden } else { Refused::Banned }.into());
        }
        if room.private && !self.is_invited(room.id, account)? {
            return Err(Refused::Forbidden.into());
        }
        self.enter(account, room).map(Outcome::Joined)
    }

    /// Makes an account a member. Who enters an empty room owns it. Unread begins behind the last message.
    fn enter(&self, account: AccountId, room: RoomInfo) -> Outcomes<Joined> {
        let memberships = "SELECT count(*) FROM marker m JOIN room r ON r.id = m.conversation WHERE m.account = ?1";
        if self.count(memberships, [account])? >= MEMBERSHIPS_PER_ACCOUNT {
            return Err(Refused::Quota(MEMBERSHIPS_PER_ACCOUNT).into());
        }
        let sql = "UPDATE room SET members = members + 1, joins = joins + 1, empty_since = NULL
                   WHERE id = ?1 RETURNING members, joins";
        let (members, joins): (i64, i64) =
            self.statement(sql)?.query_row([room.id], |row| Ok((row.get(0)?, row.get(1)?)))?;
        if members > MEMBERS_PER_ROOM as i64 {
            return Err(Refused::Quota(MEMBERS_PER_ROOM).into());
        }
        let role = if members == 1 { Role::Owner } else { Role::Member };
        let sql = "INSERT INTO member(room, account, role, joined) VALUES (?1, ?2, ?3, ?4)";
        self.execute(sql, (room.id, account, role_number(role), joins))?;
        let sql = "INSERT INTO marker(account, conversation, read)
                   VALUES (?1, ?2, (SELECT last FROM conversation WHERE id = ?2))";
        self.execute(sql, (account, room.id))?;
        self.execute("DELETE FROM invitation WHERE room = ?1 AND account = ?2", (room.id, account))?;
        self.joined(room, true)
    }

    fn joined(&self, room: RoomInfo, entered: bool) -> Outcomes<Joined> {
        let sql = "SELECT r.members, c.last FROM room r JOIN conversation c ON c.id = r.id WHERE r.id = ?1";
        let (members, last): (i64, MessageId) =
            self.statement(sql)?.query_row([room.id], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(Joined { room, members: members.try_into().unwrap_or(0), last, entered })
    }

    pub(super) fn leave_room(&self, now: Timestamp, account: AccountId, name: &RoomName) -> Outcomes<Outcome> {
        let (room, _) = self.room_of_member(name, account)?;
        let person = self.require_account(account)?;
        self.remove_member(now, &room, &person).map(Outcome::RoomChanged)
    }

    /// Ends a membership, names an heir, and removes a room that nobody said anything in.
    pub(super) fn remove_member(&self, now: Timestamp, room: &RoomInfo, person: &Person) -> Outcomes<RoomChange> {
        self.execute("DELETE FROM member WHERE room = ?1 AND account = ?2", (room.id, person.id))?;
        self.execute("DELETE FROM marker WHERE account = ?1 AND conversation = ?2", (person.id, room.id))?;
        let sql = "UPDATE room SET members = members - 1 WHERE id = ?1 RETURNING members";
        let members: i64 = self.statement(sql)?.query_row([room.id], |row| row.get(0))?;
        let mut heir = None;
        if members > 0 {
            let owned = "SELECT 1 FROM member WHERE room = ?1 AND role = ?2";
            if self.find(owned, (room.id, role_number(Role::Owner)), |_| Ok(()))?.is_none() {
                let sql = "SELECT a.id, a.name FROM member m JOIN account a ON a.id = m.account
                           WHERE m.room = ?1 ORDER BY m.joined LIMIT 1";
                heir = self.find(sql, [room.id], person_from)?;
            }
            if let Some(heir) = &heir {
                let sql = "UPDATE member SET role = ?3 WHERE room = ?1 AND account = ?2";
                self.execute(sql, (room.id, heir.id, role_number(Role::Owner)))?;
            }
        } else if self.find("SELECT 1 FROM conversation WHERE id = ?1 AND last = 0", [room.id], |_| Ok(()))?.is_some() {
            self.remove_room(room.id)?;
        } else {
            self.execute("UPDATE room SET empty_since = ?2 WHERE id = ?1", (room.id, now))?;
        }
        Ok(RoomChange { room: room.clone(), subject: Some(person.clone()), changed: true, was_member: true, heir })
    }

    /// Removes a room without members and messages.
    pub(super) fn remove_room(&self, room: ConversationId) -> Outcomes<()> {
        self.abandon_roster(room)?;
        for sql in [
            "DELETE FROM ban WHERE room = ?1",
            "DELETE FROM invitation WHERE room = ?1",
            "DELETE FROM room WHERE id = ?1",
        ] {
            self.execute(sql, [room])?;
        }
        // The number may come again once its row is gone, so the uploads to it go first, in pieces.
        let sql = match self.has_uploads_to(room)? {
            true => "INSERT OR IGNORE INTO orphan(conversation) VALUES (?1)",
            false => "DELETE FROM conversation WHERE id = ?1",
        };
        self.execute(sql, [room])?;
        Ok(())
    }

    pub(super) fn store_topic(&self, room: ConversationId, topic: &str) -> Outcomes<()> {
        let sealed = match topic {
            "" => None,
            topic => Some(self.sealer.key(Column::Topic, room.0).seal(room.0, topic.as_bytes())?),
        };
        self.execute("UPDATE room SET topic = ?2 WHERE id = ?1", (room, sealed))?;
        Ok(())
    }

    /// The topic of a room; a text that says so where it does not open.
    pub(super) fn open_topic(&self, room: ConversationId, sealed: Option<Vec<u8>>) -> Option<String> {
        let plain = self.sealer.key(Column::Topic, room.0).open(room.0, &sealed?);
        Some(plain.and_then(|plain| String::from_utf8(plain).ok()).unwrap_or_else(|| {
            log::error!("the topic of room {} does not open: the database was changed by others", room.0);
            TOPIC_UNREADABLE.to_owned()
        }))
    }

    pub(super) fn stored_topic(&self, room: ConversationId) -> Outcomes<Option<String>> {
        let sealed = self.find("SELECT topic FROM room WHERE id = ?1", [room], |row| row.get(0))?;
        Ok(self.open_topic(room, sealed.flatten()))
    }

    pub(super) fn topic(&self, account: AccountId, name: &RoomName) -> Outcomes<Answer> {
        let (room, _) = self.room_of_member(name, account)?;
        Ok(Answer::Topic(self.stored_topic(room.id)?))
    }

    pub(super) fn rooms(
        &self,
        account: AccountId,
        glob: Option<&str>,
        after: Option<&RoomName>,
        limit: usize,
    ) -> Outcomes<Answer> {
        let glob = Glob::new(glob)?;
        let sql = "SELECT r.id, r.name, r.e2e, r.private, r.members, r.topic, m.account IS NOT NULL
                   FROM room r LEFT JOIN member m ON m.room = r.id AND m.account = ?1
                   WHERE r.name >= ?2 AND r.name < ?3 AND r.name > ?4 AND r.name GLOB ?5
                     AND (r.private = 0 OR m.account IS NOT NULL
                          OR EXISTS (SELECT 1 FROM invitation i WHERE i.room = r.id AND i.account = ?1))
                   ORDER BY r.name LIMIT ?6";
        let after = after.map_or("", RoomName::as_str);
        let params = (account, &glob.from, &glob.to, after, &glob.pattern, one_more(limit));
        let mut found = self.list(sql, params, |row| {
            Ok((info(row)?, row.get::<_, i64>(4)?, row.get::<_, Option<Vec<u8>>>(5)?, row.get(6)?))
        })?;
        let more = cut(&mut found, limit);
        let row = |(room, members, topic, joined): (RoomInfo, i64, _, _)| RoomRow {
            topic: self.open_topic(room.id, topic),
            members: members.try_into().unwrap_or(0),
            room,
            joined,
        };
        Ok(Answer::Rooms { rows: found.into_iter().map(row).collect(), more })
    }

    pub(super) fn members(&self, account: AccountId, name: &RoomName) -> Outcomes<Answer> {
        let room = self.room_named(name)?.ok_or(Refused::NoSuchRoom)?;
        if room.private && self.role_in(room.id, account)?.is_none() {
            return Err(Refused::NoSuchRoom.into());
        }
        let sql = "SELECT a.id, a.name, m.role, a.last_seen FROM member m JOIN account a ON a.id = m.account
                   WHERE m.room = ?1 ORDER BY a.name";
        Ok(Answer::Members(self.list(sql, [room.id], |row| {
            Ok(MemberRow { person: person_from(row)?, role: role(row.get(2)?), last_seen: row.get(3)? })
        })?))
    }
}

fn person_from(row: &rusqlite::Row<'_>) -> rusqlite::Result<Person> {
    person(row, 0, 1)
}

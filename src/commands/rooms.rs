//! Rooms: making, entering, leaving, and what owners and operators do.

use std::borrow::Cow;

use super::people::ROWS_MAX;
use super::{Core, Wait as AnyWait, yes_no};
use crate::ops::{
    AccountId, Act, Answer, ConversationId, Done, Joined, Op, Outcome, Person, Query, Refused, Role, RoomChange,
};
use crate::protocol::{Code, Head, Line, RoomName, Target, UserName};
use crate::session::ConnId;

/// What a command about rooms waits for.
#[derive(Debug)]
pub(super) enum Wait {
    Join,
    Leave(Option<String>),
    Rooms,
    Members(RoomName),
    Moderate(Act, Option<String>),
    ReadTopic(RoomName),
    SetTopic(String),
}

impl From<Wait> for AnyWait {
    fn from(wait: Wait) -> AnyWait {
        AnyWait::Rooms(wait)
    }
}

impl Core {
    pub(super) fn rooms(
        &mut self,
        conn: ConnId,
        head: Head,
        me: &Person,
        glob: Option<Cow<'_, str>>,
        after: Option<RoomName>,
    ) {
        let query = Query::Rooms { account: me.id, glob: glob.map(Cow::into_owned), after, limit: ROWS_MAX };
        self.ask(conn, head, Wait::Rooms, query);
    }

    pub(super) fn topic(&mut self, conn: ConnId, head: Head, me: &Person, room: RoomName, text: Option<&str>) {
        match text {
            None => {
                let query = Query::Topic { account: me.id, room: room.clone() };
                self.ask(conn, head, Wait::ReadTopic(room), query);
            }
            Some(text) => {
                let op = Op::SetTopic { actor: me.id, room, topic: text.to_owned() };
                self.persist(conn, head, Wait::SetTopic(text.to_owned()), op);
            }
        }
    }

    pub(super) fn rooms_answered(&mut self, conn: ConnId, head: Head, me: Option<Person>, wait: Wait, done: Done) {
        let Some(me) = me else { return self.misfit(conn, &head) };
        match (wait, done) {
            (wait, Done::Op(Err(refused)) | Done::Query(Err(refused))) => {
                self.room_refused(conn, &head, &wait, refused);
            }
            (Wait::Join, Done::Op(Ok(Outcome::Joined(joined)))) => self.joined(conn, &head, me, joined),
            (Wait::Leave(reason), Done::Op(Ok(Outcome::RoomChanged(change)))) => {
                self.reply(conn, Line::ok(&head).key("room", &change.room.name));
                if let Some(subject) = &change.subject {
                    self.left(subject.id, &subject.name, &change, Some(conn), reason.as_deref());
                }
            }
            (Wait::Moderate(act, reason), Done::Op(Ok(Outcome::RoomChanged(change)))) => {
                self.moderated(conn, &head, &me, act, reason.as_deref(), &change);
            }
            (Wait::SetTopic(topic), Done::Op(Ok(Outcome::RoomChanged(change)))) => {
                let name = &change.room.name;
                self.reply(conn, Line::ok(&head).key("room", name).text(&topic));
                let line = Line::event("topic").arg(name).arg(&me.name).text(&topic);
                self.tell_room(change.room.id, Some(conn), line);
            }
            (Wait::ReadTopic(room), Done::Query(Ok(Answer::Topic(topic)))) => {
                self.reply(conn, Line::ok(&head).key("room", room).maybe_text(topic.as_deref()));
            }
            (Wait::Rooms, Done::Query(Ok(Answer::Rooms { rows, more }))) => {
                let mut out = Vec::new();
                for row in &rows {
                    Line::row("room")
                        .arg(&row.room.name)
                        .key("members", row.members)
                        .key("e2e", yes_no(row.room.e2e))
                        .key("private", yes_no(row.room.private))
                        .key("joined", yes_no(row.joined))
                        .maybe_text(row.topic.as_deref())
                        .finish_into(&mut out);
                }
                Line::ok(&head).key("count", rows.len()).key("more", yes_no(more)).finish_into(&mut out);
                self.send(conn, out);
            }
            (Wait::Members(room), Done::Query(Ok(Answer::Members(rows)))) => {
                let mut out = Vec::new();
                for row in &rows {
                    let role = match row.role {
                        Role::Owner => "owner",
                        Role::Operator => "op",
                        Role::Member => "member",
                    };
                    let line = Line::row("member").arg(&row.person.name).arg(role);
                    line.arg(self.whether_online(&row.person)).finish_into(&mut out);
                }
                Line::ok(&head).key("room", room).key("count", rows.len()).finish_into(&mut out);
                self.send(conn, out);
            }
            _ => self.misfit(conn, &head),
        }
    }

    fn room_refused(&mut self, conn: ConnId, head: &Head, wait: &Wait, refused: Refused) {
        match (wait, refused) {
            (Wait::Join, Refused::Forbidden) => {
                self.error(conn, head, Code::Forbidden, "that name cannot be used");
            }
            (Wait::Join, Refused::Banned) => self.error(conn, head, Code::Banned, "you are banned from this room"),
            (Wait::Moderate(Act::Invite, _), Refused::Banned) => {
                self.error(conn, head, Code::Banned, "they are banned from the room; /unban first");
            }
            (Wait::Moderate(Act::Unban, _), Refused::NotFound) => {
                self.error(conn, head, Code::NotFound, "they are not banned from the room");
            }
            (Wait::Moderate(..) | Wait::SetTopic(_), Refused::Forbidden) => {
                self.error(
                    conn,
                    head,
                    Code::Forbidden,
                    "only the owner and operators may do that, and not to the owner",
                );
            }
            _ => self.refuse(conn, head, refused),
        }
    }

    fn joined(&mut self, conn: ConnId, head: &Head, me: Person, joined: Joined) {
        let room = joined.room;
        let line = Line::ok(head).key("room", &room.name).key("members", joined.members);
        self.reply(conn, line.key("e2e", yes_no(room.e2e)).key("last", joined.last));
        if let Some(member) = self.hub.member_mut(conn) {
            member.target = Some(Target::Room(room.name.clone()));
        }
        let (id, line) = (room.id, Line::event("join").arg(&room.name).arg(&me.name));
        self.hub.join(me.id, room);
        if joined.entered {
            self.tell_room(id, Some(conn), line);
        }
    }

    /// An account has left a room: tells the others.
    pub(super) fn left(
        &mut self,
        account: AccountId,
        name: &UserName,
        change: &RoomChange,
        except: Option<ConnId>,
        reason: Option<&str>,
    ) {
        let room = &change.room;
        self.tell_room(room.id, except, Line::event("leave").arg(&room.name).arg(name).maybe_text(reason));
        self.hub.leave(account, room.id);
    }

    fn moderated(
        &mut self,
        conn: ConnId,
        head: &Head,
        me: &Person,
        act: Act,
        reason: Option<&str>,
        change: &RoomChange,
    ) {
        let (room, Some(subject)) = (&change.room, &change.subject) else { return self.misfit(conn, head) };
        self.reply(conn, Line::ok(head).key("room", &room.name).key("user", &subject.name));
        if !change.changed {
            return;
        }
        let line = Line::event(act.as_str()).arg(&room.name);
        if act == Act::Invite {
            let sessions = self.hub.sessions_of(subject.id);
            return self.event(&sessions, Some(conn), line.arg(&me.name));
        }
        let line = line.arg(&subject.name).arg(&me.name).maybe_text(reason);
        match act {
            Act::Kick | Act::Ban => {
                self.tell_room(room.id, Some(conn), line.clone());
                if change.was_member {
                    self.hub.leave(subject.id, room.id);
                } else if !room.private {
                    let sessions = self.hub.sessions_of(subject.id);
                    self.event(&sessions, Some(conn), line);
                }
            }
            Act::Invite | Act::Unban | Act::Op | Act::Deop => self.tell_room(room.id, Some(conn), line),
        }
    }

    /// An event for everybody in a room.
    pub(super) fn tell_room(&mut self, room: ConversationId, except: Option<ConnId>, line: Line) {
        let sessions = self.hub.room(room).map(|room| room.sessions.clone()).unwrap_or_default();
        self.event(&sessions, except, line);
    }
}

//! Rosters: the signed membership log of an end-to-end room. The server keeps its order and believes nothing.

use base64ct::{Base64, Encoding as _};

use super::messages::{PAGE_BYTES, PAGE_MAX};
use super::{Core, Wait as AnyWait, yes_no};
use crate::ops::{Answer, Done, Op, Outcome, Person, Query, Refused};
use crate::protocol::{Code, Head, Line, RoomName};
use crate::session::ConnId;

/// What a command about rosters waits for.
#[derive(Debug)]
pub(super) enum Wait {
    Read(RoomName),
    Add,
}

impl From<Wait> for AnyWait {
    fn from(wait: Wait) -> AnyWait {
        AnyWait::Rosters(wait)
    }
}

impl Core {
    pub(super) fn roster(&mut self, conn: ConnId, head: Head, me: &Person, room: RoomName, after: u32) {
        let query = Query::Roster { account: me.id, room: room.clone(), after, limit: PAGE_MAX, max_bytes: PAGE_BYTES };
        self.ask(conn, head, Wait::Read(room), query);
    }

    pub(super) fn roster_add(
        &mut self,
        conn: ConnId,
        head: Head,
        me: &Person,
        room: RoomName,
        epoch: u32,
        entry: Vec<u8>,
    ) {
        self.persist(conn, head, Wait::Add, Op::AddRoster { account: me.id, room, epoch, entry });
    }

    pub(super) fn rosters_answered(&mut self, conn: ConnId, head: Head, wait: Wait, done: Done) {
        match (wait, done) {
            (_, Done::Op(Err(Refused::Forbidden)) | Done::Query(Err(Refused::Forbidden))) => {
                self.error(conn, &head, Code::Forbidden, "only a room made with e2e has a roster");
            }
            (Wait::Add, Done::Op(Err(Refused::Quota(max)))) => {
                let line = Line::err(&head, Code::Quota).key("max", max);
                self.reply(conn, line.text("the roster is full; go on in a new room"));
            }
            (_, Done::Op(Err(refused)) | Done::Query(Err(refused))) => self.refuse(conn, &head, refused),
            (Wait::Read(room), Done::Query(Ok(Answer::Roster(page)))) => {
                let mut out = Vec::new();
                for (epoch, entry) in &page.rows {
                    let line = Line::row("roster").arg(&room).arg(epoch);
                    line.arg(Base64::encode_string(entry)).finish_into(&mut out);
                }
                let line = Line::ok(&head).key("room", room).key("epoch", page.last);
                line.key("more", yes_no(page.more)).finish_into(&mut out);
                self.send(conn, out);
            }
            (Wait::Add, Done::Op(Ok(Outcome::RosterAdded(added)))) => {
                let room = &added.room.name;
                self.reply(conn, Line::ok(&head).key("room", room).key("epoch", added.epoch));
                self.tell_room(added.room.id, Some(conn), Line::event("roster").arg(room).arg(added.epoch));
            }
            _ => self.misfit(conn, &head),
        }
    }
}

//! Rooms: `rooms`, `create`, `join`, `leave`, `members`, `invite`, `kick`, `ban`, `op`, `deop`.

use downstream::protocol::{Fields, RoomName, UserName};

use super::online;
use crate::app::Member;
use crate::cli::Create;
use crate::context::Context;
use crate::error::Failure;
use crate::event::{Event, Row};

/// Pages of `/rooms` read in one go.
const PAGES: usize = 100;

/// `dsc rooms`
pub(crate) fn rooms(ctx: &mut Context, glob: Option<&str>) -> Result<(), Failure> {
    online(ctx, |client| {
        let glob = glob.map(|glob| format!(" {glob}")).unwrap_or_default();
        let mut after = String::new();
        for _ in 0..PAGES {
            let (rows, reply) = client.command(&format!("/rooms{glob}{after}"))?;
            let mut last = None;
            for row in &rows {
                let fields = Fields::parse(row);
                let Some(room) = fields.word(1) else { continue };
                let yes = |key: &str| fields.key(key) == Some("yes");
                last = Some(room.to_owned());
                (client.show)(&Event::Row(Row::Room {
                    room: room.to_owned(),
                    members: fields.key("members").and_then(|n| n.parse().ok()).unwrap_or(0),
                    e2e: yes("e2e"),
                    private: yes("private"),
                    joined: yes("joined"),
                    topic: fields.text().map(str::to_owned),
                }))?;
            }
            match last {
                Some(room) if reply.key("more") == Some("yes") => after = format!(" after={room}"),
                _ => break,
            }
        }
        Ok(())
    })
}

/// `dsc create`
pub(crate) fn create(ctx: &mut Context, create: &Create) -> Result<(), Failure> {
    let room: &RoomName = &create.room.room.0;
    online(ctx, |client| {
        client.create(room, create.open, create.plain, create.topic.as_deref())?;
        let kind = if create.plain { "a plain room: the server can read it" } else { "end to end encrypted" };
        let whose = if create.open { "open to everybody here" } else { "closed: `dsc invite` lets people in" };
        (client.show)(&done(room, format!("{room} is made, {kind}; {whose}")))
    })
}

/// `dsc join`
pub(crate) fn join(ctx: &mut Context, room: &RoomName) -> Result<(), Failure> {
    online(ctx, |client| {
        let kind = if client.join(room)? { "end to end encrypted" } else { "a plain room: the server can read it" };
        (client.show)(&done(room, format!("you are in {room}, {kind}")))
    })
}

/// `dsc leave`
pub(crate) fn leave(ctx: &mut Context, room: &RoomName, reason: &[String]) -> Result<(), Failure> {
    online(ctx, |client| {
        client.leave(room, reason_of(reason).as_deref())?;
        (client.show)(&done(room, format!("you have left {room}")))
    })
}

/// `dsc members`
pub(crate) fn members(ctx: &mut Context, room: &RoomName) -> Result<(), Failure> {
    online(ctx, |client| {
        let rows = client.members(room)?;
        rows.iter().try_for_each(|row| (client.show)(row))
    })
}

/// `dsc invite`, `kick`, `ban`, `op`, `deop`
pub(crate) fn change_member(
    ctx: &mut Context,
    room: &RoomName,
    user: &UserName,
    what: Member,
    reason: &[String],
) -> Result<(), Failure> {
    online(ctx, |client| {
        let shown = client.change_member(room, user, what, reason_of(reason).as_deref())?;
        let text = match what {
            Member::Invite => format!("{user} may enter now: `dsc join '{room}'`"),
            _ if shown => return Ok(()),
            Member::Kick => format!("{user} is not in {room}"),
            Member::Ban => format!("{user} is banned from {room}"),
            Member::Op => format!("{user} is an operator of {room}"),
            Member::Deop => format!("{user} is no operator of {room}"),
        };
        (client.show)(&done(room, text))
    })
}

fn reason_of(words: &[String]) -> Option<String> {
    (!words.is_empty()).then(|| words.join(" "))
}

fn done(room: &RoomName, text: String) -> Event {
    Event::Notice { kind: "done".to_owned(), subject: Some(room.to_string()), text }
}

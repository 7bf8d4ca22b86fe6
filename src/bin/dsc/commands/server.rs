//! What only asks the server, and needs no keys: `users`, `who`, `away`, `back`, `topic`, `unban`,
//! `unread`.

use downstream::protocol::{Fields, RoomName, Target, UnreadLine, UserName};

use crate::cli::joined;
use crate::context::Context;
use crate::error::{Exit, Failure};
use crate::event::{Event, Row};
use crate::net::Connection;
use crate::server::command;
use crate::server::{Reply, Server as _};

/// Pages of a list that are read: a million accounts. A server that always has more would never end.
const PAGES_MAX: usize = 1000;

/// `dsc users`
///
/// # Errors
/// [`Failure`].
pub fn users(ctx: &mut Context, glob: Option<&str>) -> Result<(), Failure> {
    let mut connection = begin(ctx)?;
    let mut after: Option<String> = None;
    for _ in 0..PAGES_MAX {
        let mut words = vec!["/users"];
        words.extend(glob);
        words.extend(after.as_deref());
        let (rows, reply) = ask(&mut connection, &command(&words))?;
        for row in &rows {
            let row = user_row(row)?;
            if let Row::User { user, .. } = &row {
                after = Some(format!("after={user}"));
            }
            ctx.out.show(&Event::Row(row))?;
        }
        if rows.is_empty() || reply.key("more") != Some("yes") {
            break;
        }
    }
    connection.quit();
    Ok(())
}

/// `dsc who`
///
/// # Errors
/// [`Failure`].
pub fn who(ctx: &mut Context, target: &Target) -> Result<(), Failure> {
    let mut connection = begin(ctx)?;
    let (rows, _) = ask(&mut connection, &command(&["/who", target.as_str()]))?;
    for row in &rows {
        ctx.out.show(&Event::Row(user_row(row)?))?;
    }
    connection.quit();
    Ok(())
}

/// `dsc away`
///
/// # Errors
/// [`Failure`].
pub fn away(ctx: &mut Context, words: &[String]) -> Result<(), Failure> {
    simple(
        ctx,
        &with_body("/away", joined(words)),
        "you are away, as long as this account has a session, such as that of `dsc tail`",
    )
}

/// `dsc back`
///
/// # Errors
/// [`Failure`].
pub fn back(ctx: &mut Context) -> Result<(), Failure> {
    simple(ctx, "/back", "you are back")
}

/// `dsc topic`
///
/// # Errors
/// [`Failure`].
pub fn topic(ctx: &mut Context, room: &RoomName, words: &[String]) -> Result<(), Failure> {
    let line = with_body(&format!("/topic {room}"), joined(words));
    if !words.is_empty() {
        return simple(ctx, &line, &format!("{room} has a new topic"));
    }
    let mut connection = begin(ctx)?;
    let (_, reply) = ask(&mut connection, &line)?;
    connection.quit();
    let topic = reply.text.filter(|topic| !topic.is_empty());
    ctx.out.show(&Event::Row(Row::Topic { room: room.to_string(), topic }))
}

/// `dsc unban`
///
/// # Errors
/// [`Failure`].
pub fn unban(ctx: &mut Context, room: &RoomName, user: &UserName) -> Result<(), Failure> {
    simple(ctx, &format!("/unban {room} {user}"), &format!("{user} may come back to {room}"))
}

/// `dsc unread`
///
/// # Errors
/// [`Failure`].
pub fn unread(ctx: &mut Context, all: bool) -> Result<(), Failure> {
    let mut connection = begin(ctx)?;
    let (rows, _) = ask(&mut connection, if all { "/unread all" } else { "/unread" })?;
    for row in &rows {
        let UnreadLine { target, count, first, last } =
            UnreadLine::read(&Fields::parse(row)).map_err(|error| broken(&error.to_string()))?;
        ctx.out.show(&Event::Row(Row::Unread { target: target.to_string(), count, first, last }))?;
    }
    connection.quit();
    Ok(())
}

/// A connection whose events nobody looks at.
fn begin(ctx: &mut Context) -> Result<Connection, Failure> {
    let mut connection = ctx.connect()?;
    connection.ignore_events();
    Ok(connection)
}

fn ask(connection: &mut Connection, line: &str) -> Result<(Vec<String>, Reply), Failure> {
    let answer = connection.ask(line)?;
    Ok((answer.rows, answer.reply?))
}

/// One command, and what to say when it is done.
fn simple(ctx: &mut Context, line: &str, done: &str) -> Result<(), Failure> {
    let mut connection = begin(ctx)?;
    ask(&mut connection, line)?;
    connection.quit();
    ctx.out.notice("done", done)
}

fn with_body(head: &str, body: Option<String>) -> String {
    body.map_or_else(|| head.to_owned(), |body| format!("{head} {body}"))
}

/// `user NAME online|away|offline [since=TIME] [:away text]`
fn user_row(row: &str) -> Result<Row, Failure> {
    let fields = Fields::parse(row);
    match (fields.kind(), fields.word(1), fields.word(2)) {
        ("user", Some(user), Some(presence)) => Ok(Row::User {
            user: user.to_owned(),
            presence: presence.to_owned(),
            since: fields.key("since").map(str::to_owned),
            text: fields.text().map(str::to_owned),
        }),
        _ => Err(broken(row)),
    }
}

fn broken(row: &str) -> Failure {
    Failure::new(Exit::Network, format!("the server does not keep to the protocol: {row}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_people() {
        let row = user_row("user bob away since=2026-01-02T03:04:05.000Z :at : lunch").unwrap();
        let (since, text) = (Some("2026-01-02T03:04:05.000Z".to_owned()), Some("at : lunch".to_owned()));
        assert_eq!(row, Row::User { user: "bob".to_owned(), presence: "away".to_owned(), since, text });
        let row = user_row("user bob online").unwrap();
        assert!(matches!(row, Row::User { since: None, text: None, .. }));
        for bad in ["", "user", "user bob", "member bob online"] {
            assert_eq!(user_row(bad).unwrap_err().exit, Exit::Network);
        }
    }
}

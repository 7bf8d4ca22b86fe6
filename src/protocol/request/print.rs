//! Writes a request as the line that reads back as it.

use std::borrow::Cow;
use std::fmt;

use base64ct::{Base64, Encoding as _};

use super::{Addressee, Admin, Bound, Request};
use crate::protocol::file::GET_DEFAULT;

/// An argument, quoted where it must be.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Quoted(text) = self;
        if !text.is_empty() && !text.starts_with(':') && !text.contains([' ', '"']) {
            return f.write_str(text);
        }
        f.write_str("\"")?;
        for c in text.chars() {
            if matches!(c, '"' | '\\') {
                f.write_str("\\")?;
            }
            write!(f, "{c}")?;
        }
        f.write_str("\"")
    }
}

/// A digest in hexadecimal.
struct Hex<'a>(&'a [u8; 32]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

fn arg(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    write!(f, " {}", Quoted(text))
}

fn option(f: &mut fmt::Formatter<'_>, key: &str, value: Option<impl fmt::Display>) -> fmt::Result {
    match value {
        Some(value) => arg(f, &format!("{key}={value}")),
        None => Ok(()),
    }
}

fn body(f: &mut fmt::Formatter<'_>, text: Option<&str>) -> fmt::Result {
    match text {
        Some(text) => write!(f, " {text}"),
        None => Ok(()),
    }
}

fn listing(f: &mut fmt::Formatter<'_>, glob: Option<&Cow<'_, str>>, after: Option<impl fmt::Display>) -> fmt::Result {
    if let Some(glob) = glob {
        arg(f, glob)?;
    }
    option(f, "after", after)
}

impl fmt::Display for Request<'_> {
    /// The line without its ending, unlabelled. What was read from a line reads back as the same
    /// request; a body or a text must hold no line feed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Request::Help { verb } => {
                f.write_str("/help")?;
                verb.as_deref().map_or(Ok(()), |verb| arg(f, verb))
            }
            Request::Ping { text } => {
                f.write_str("/ping")?;
                body(f, *text)
            }
            Request::Version => f.write_str("/version"),
            Request::Whoami => f.write_str("/whoami"),
            Request::Quit => f.write_str("/quit"),
            Request::Register { user, password, invite } => {
                write!(f, "/register {user} {}", Quoted(&password.0))?;
                invite.as_ref().map_or(Ok(()), |code| arg(f, &code.0))
            }
            Request::Login { user, password, takeover } => {
                write!(f, "/{} {user}", if *takeover { "takeover" } else { "login" })?;
                password.as_ref().map_or(Ok(()), |password| arg(f, &password.0))
            }
            Request::Logout => f.write_str("/logout"),
            Request::Passwd { old, new } => write!(f, "/passwd {} {}", Quoted(&old.0), Quoted(&new.0)),
            Request::Unregister { password } => write!(f, "/unregister {}", Quoted(&password.0)),
            Request::Token { name } => {
                f.write_str("/token")?;
                name.as_ref().map_or(Ok(()), |name| write!(f, " {name}"))
            }
            Request::Tokens => f.write_str("/tokens"),
            Request::Revoke { name } => write!(f, "/revoke {name}"),
            Request::CertAdd => f.write_str("/cert add"),
            Request::CertList => f.write_str("/cert list"),
            Request::CertDrop { sha256 } => {
                f.write_str("/cert drop")?;
                sha256.as_ref().map_or(Ok(()), |sha256| write!(f, " {}", Hex(sha256)))
            }
            Request::Profile { user } => {
                f.write_str("/profile")?;
                user.as_ref().map_or(Ok(()), |user| write!(f, " {user}"))
            }
            Request::ProfileSet(change) => {
                f.write_str("/profile set")?;
                option(f, "name", change.name.as_ref())?;
                option(f, "email", change.email.as_ref())?;
                option(f, "note", change.note.as_ref())?;
                option(f, "show", change.show.map(super::Show::as_str))
            }
            Request::Users { glob, after } => {
                f.write_str("/users")?;
                listing(f, glob.as_ref(), after.as_ref())
            }
            Request::Who { target } => write!(f, "/who {target}"),
            Request::Watch { users } => {
                f.write_str("/watch")?;
                users.iter().try_for_each(|user| write!(f, " {user}"))
            }
            Request::Unwatch { users } => {
                f.write_str("/unwatch")?;
                users.iter().try_for_each(|user| write!(f, " {user}"))
            }
            Request::Away { text } => {
                f.write_str("/away")?;
                body(f, *text)
            }
            Request::Back => f.write_str("/back"),
            Request::Typing { target } => write!(f, "/typing {target}"),
            Request::Create { room, private, e2e, topic } => {
                write!(f, "/create {room}")?;
                f.write_str(if *private { " private" } else { "" })?;
                f.write_str(if *e2e { " e2e" } else { "" })?;
                topic.map_or(Ok(()), |topic| write!(f, " :{topic}"))
            }
            Request::Join { room } => write!(f, "/join {room}"),
            Request::Leave { room, reason } => {
                write!(f, "/leave {room}")?;
                body(f, *reason)
            }
            Request::Rooms { glob, after } => {
                f.write_str("/rooms")?;
                listing(f, glob.as_ref(), after.as_ref())
            }
            Request::Members { room } => write!(f, "/members {room}"),
            Request::Moderate { act, room, user, reason } => {
                write!(f, "/{} {room} {user}", act.as_str())?;
                body(f, *reason)
            }
            Request::Topic { room, text } => {
                write!(f, "/topic {room}")?;
                body(f, *text)
            }
            Request::To { target } => write!(f, "/to {target}"),
            Request::Msg { targets, body } => {
                f.write_str("/msg ")?;
                for (n, target) in targets.iter().enumerate() {
                    f.write_str(if n == 0 { "" } else { "," })?;
                    match target {
                        Addressee::Target(target) => write!(f, "{target}")?,
                        Addressee::Invalid(text, _) => f.write_str(text)?,
                    }
                }
                write!(f, " {body}")
            }
            Request::Post { target, key, body } => write!(f, "/post {target} {key} {body}"),
            Request::FetchUnread => f.write_str("/fetch"),
            Request::Fetch { target, bound, limit } => {
                write!(f, "/fetch {target}")?;
                match bound {
                    Bound::Newest => {}
                    Bound::After(id) => write!(f, " after={id}")?,
                    Bound::Before(id) => write!(f, " before={id}")?,
                }
                option(f, "limit", limit.as_ref())
            }
            Request::Unread { all } => f.write_str(if *all { "/unread all" } else { "/unread" }),
            Request::Ack { target, id } => write!(f, "/ack {target} {id}"),
            Request::AckMode { manual } => f.write_str(if *manual { "/ack manual" } else { "/ack auto" }),
            Request::AckSignal { id } => write!(f, "/ack signals {id}"),
            Request::Receipts { on } => f.write_str(if *on { "/receipts on" } else { "/receipts off" }),
            Request::Signal { user, body } => write!(f, "/signal {user} {body}"),
            Request::Signals { after: 0 } => f.write_str("/signals"),
            Request::Signals { after } => write!(f, "/signals after={after}"),
            Request::SendFile { target, name, size, sha256 } => {
                write!(f, "/send-file {target} {} {size} {}", Quoted(name.as_str()), Hex(sha256))
            }
            Request::Chunk { file, offset, data } => write!(f, "/chunk {file} {offset} {data}"),
            Request::GetFile { file, offset, length } => {
                write!(f, "/get-file {file}")?;
                option(f, "offset", (*offset > 0).then_some(offset))?;
                option(f, "length", (*length != GET_DEFAULT).then_some(length))
            }
            Request::Files { target, after, sha256 } => {
                f.write_str("/files")?;
                target.as_ref().map_or(Ok(()), |target| write!(f, " {target}"))?;
                option(f, "after", (after.0 > 0).then_some(after))?;
                option(f, "sha256", sha256.as_ref().map(Hex))
            }
            Request::DropFile { file } => write!(f, "/drop-file {file}"),
            Request::KeysPut(upload) => write!(f, "/keys put {}", Base64::encode_string(&upload.to_bytes())),
            Request::KeysGet { user, device, only_certificates } => {
                write!(f, "/keys get {user}")?;
                option(f, "device", device.as_ref())?;
                f.write_str(if *only_certificates { " only=certs" } else { "" })
            }
            Request::KeysStatus => f.write_str("/keys status"),
            Request::Roster { room, after: 0 } => write!(f, "/roster {room}"),
            Request::Roster { room, after } => write!(f, "/roster {room} after={after}"),
            Request::RosterAdd { room, epoch, entry } => {
                write!(f, "/roster-add {room} {epoch} {}", Base64::encode_string(entry))
            }
            Request::Admin(admin) => write!(f, "/admin {admin}"),
        }
    }
}

impl fmt::Display for Admin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Admin::Users { glob, after } => {
                f.write_str("users")?;
                listing(f, glob.as_ref(), after.as_ref())
            }
            Admin::Sessions { user } => {
                f.write_str("sessions")?;
                user.as_ref().map_or(Ok(()), |user| write!(f, " {user}"))
            }
            Admin::Kick { user, reason } => {
                write!(f, "kick {user}")?;
                body(f, *reason)
            }
            Admin::Ban { whom } => write!(f, "ban {}", Quoted(whom)),
            Admin::Unban { whom } => write!(f, "unban {}", Quoted(whom)),
            Admin::Invite => f.write_str("invite"),
            Admin::Notice { to, text } => {
                f.write_str("notice")?;
                option(f, "to", to.as_ref())?;
                write!(f, " {text}")
            }
            Admin::Stats => f.write_str("stats"),
            Admin::Shutdown => f.write_str("shutdown"),
        }
    }
}

//! Events as lines for people.
//!
//! A message is `TIME NUMBER CONVERSATION SENDER [MARKS]> TEXT`. Everything in front of the `>` comes from
//! `dsc`; everything behind it is the sender's, so that no text can put on a mark or another name.

use anstyle::{AnsiColor, Style as Ansi};
use downstream::protocol::Timestamp;
use indicatif::DecimalBytes;

use super::escape::line as escaped;
use crate::event::{Content, Event, Mark, Message, Phase, Reply, Row};

/// How messages are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// With time, number and conversation.
    Full,
    /// The sender and what was said: where the surroundings say the rest, as in `dsc open`.
    Bare,
}

/// How an event becomes a line.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    /// With colours.
    pub paint: bool,
    /// How messages are laid out.
    pub layout: Layout,
    /// Times of this day (UTC) are shown without their date.
    pub now: Timestamp,
}

const PLACE: Ansi = AnsiColor::Cyan.on_default();
const SENDER: Ansi = AnsiColor::Green.on_default().bold();
const OWN: Ansi = AnsiColor::Blue.on_default().bold();
const MARK: Ansi = AnsiColor::Yellow.on_default();
const ALARM: Ansi = AnsiColor::Red.on_default().bold();
const ASIDE: Ansi = Ansi::new().dimmed();

impl Style {
    fn paint(&self, ansi: Ansi, text: &str) -> String {
        if self.paint && !text.is_empty() { format!("{ansi}{text}{ansi:#}") } else { text.to_owned() }
    }

    /// `14:03:05Z` today, `2026-05-30 14:03Z` otherwise: always in UTC, and it says so.
    fn time(&self, text: &str) -> String {
        let Some(time) = Timestamp::parse(text) else { return escaped(text) };
        let (time, now) = (time.to_string(), self.now.to_string());
        let part = |text: &str, range: std::ops::Range<usize>| text.get(range).unwrap_or_default().to_owned();
        match part(&time, 0..10) {
            day if day == part(&now, 0..10) => format!("{}Z", part(&time, 11..19)),
            day => format!("{day} {}Z", part(&time, 11..16)),
        }
    }
}

/// The line of an event, without its ending. One event is one line, but for the hint of an error.
pub fn line(event: &Event, style: &Style) -> String {
    match event {
        Event::Message(message) => self::message(message, style),
        Event::Sent { target, id, encrypted, duplicate } => {
            let how = if *encrypted { "end to end".to_owned() } else { style.paint(MARK, "[plain]") };
            let again = if *duplicate { " (it was there already)" } else { "" };
            format!("sent {id} to {}: {how}{again}", style.paint(PLACE, &escaped(target)))
        }
        Event::FileSent { target, name, size, id, encrypted, duplicate } => {
            let how = if *encrypted { "end to end".to_owned() } else { style.paint(MARK, "[plain]") };
            let again = if *duplicate { " (it was there already)" } else { "" };
            let place = style.paint(PLACE, &escaped(target));
            format!("sent {} ({}) as {id} to {place}: {how}{again}", escaped(name), DecimalBytes(*size))
        }
        Event::Unreadable { target, sender, id, code, text } => {
            let number = id.map(|id| style.paint(ASIDE, &format!("{id} "))).unwrap_or_default();
            let place = style.paint(PLACE, &escaped(target));
            let what = style.paint(MARK, &format!("cannot open ({})", escaped(code)));
            format!("{number}{place} {}: {what}: {}", escaped(sender), escaped(text))
        }
        Event::Notice { text, .. } => style.paint(ASIDE, &format!("-- {}", escaped(text))),
        Event::Alarm { text, .. } => style.paint(ALARM, &format!("!! {}", escaped(text))),
        Event::Missing { target, sender, device, count } => {
            let what = format!("{count} missing from {}/{}", escaped(sender), escaped(device));
            format!("{}: {}", style.paint(PLACE, &escaped(target)), style.paint(MARK, &what))
        }
        Event::Row(row) => self::row(row, style),
        Event::FileReceived { target, path, size, encrypted, .. } => {
            let plain = if *encrypted { String::new() } else { format!(" {}", style.paint(MARK, "[plain]")) };
            let target = style.paint(PLACE, &escaped(target));
            format!("{target}: saved{plain} {} ({})", escaped(path), DecimalBytes(*size))
        }
        Event::Progress { phase, target, name, done, size } => {
            let of = size.map(|size| format!(" of {size}")).unwrap_or_default();
            let what = match phase {
                Phase::Reading => "read",
                Phase::Sending => "sent",
                Phase::Receiving => "received",
            };
            format!("{}: {} {done}{of} bytes {what}", style.paint(PLACE, &escaped(target)), escaped(name))
        }
        Event::Reply(reply) => self::reply(reply, style),
        Event::Server { kind, words, text } => {
            let words: String = words.iter().map(|word| format!(" {}", escaped(word))).collect();
            let text = text.as_ref().map(|text| format!(" :{}", escaped(text))).unwrap_or_default();
            style.paint(ASIDE, &format!("* {}{words}{text}", escaped(kind)))
        }
        Event::Error { message, hint, .. } => {
            let message = format!("{} {}", style.paint(ALARM, "dsc:"), escaped(message));
            // A hint may show several lines to type.
            let hint = hint.iter().flat_map(|hint| hint.lines()).map(escaped);
            let mark = |(at, line): (usize, String)| format!("\n{}{line}", if at == 0 { "hint: " } else { "  " });
            message + &hint.enumerate().map(mark).collect::<String>()
        }
    }
}

/// As the protocol has it, but in one line: the rows, which stand in front of it there, are counted.
fn reply(reply: &Reply, style: &Style) -> String {
    let Reply { label, verb, ok, code, keys, rows, text } = reply;
    let head = if *ok { style.paint(PLACE, "OK") } else { style.paint(ALARM, "ERR") };
    let label = label.as_ref().map(|label| format!("@{}", escaped(label))).unwrap_or_default();
    let code = code.as_ref().map(|code| format!(" {}", escaped(code))).unwrap_or_default();
    let keys: String = keys.iter().map(|(key, value)| format!(" {}={}", escaped(key), escaped(value))).collect();
    let rows = if rows.is_empty() { String::new() } else { format!(" rows={}", rows.len()) };
    let text = text.as_ref().map(|text| format!(" :{}", escaped(text))).unwrap_or_default();
    format!("{head} {}{label}{code}{keys}{rows}{text}", escaped(verb))
}

fn message(message: &Message, style: &Style) -> String {
    let mut parts = Vec::new();
    let mut marks = message.marks.clone();
    if !message.encrypted && !marks.contains(&Mark::Plain) {
        marks.push(Mark::Plain);
    }
    marks.sort_unstable();
    if marks.iter().any(|mark| is_alarming(*mark)) {
        parts.push(style.paint(ALARM, "!!"));
    }
    if style.layout == Layout::Full {
        let time = message.time.as_ref().map(|time| style.time(time));
        let place = [time, message.id.map(|id| id.to_string())];
        parts.extend(place.into_iter().flatten().map(|text| style.paint(ASIDE, &text)));
        parts.push(style.paint(PLACE, &escaped(&message.target)));
    }
    let device = message.device.as_ref().map(|device| format!("/{}", escaped(device))).unwrap_or_default();
    let sender = format!("{}{device}", escaped(&message.sender));
    parts.push(style.paint(if message.own { OWN } else { SENDER }, &sender));
    parts.extend(
        marks
            .into_iter()
            .map(|mark| style.paint(if is_alarming(mark) { ALARM } else { MARK }, &format!("[{}]", mark_word(mark)))),
    );
    let (kind, said) = said(&message.content);
    let kind = kind.map(|kind| match (&message.content, message.id, style.layout) {
        (Content::File { .. }, Some(id), Layout::Full) => format!("{kind}: {}", get_file(&message.target, id)),
        _ => kind,
    });
    parts.extend(kind.map(|kind| style.paint(ASIDE, &format!("[{kind}]"))));
    let said = if said.is_empty() { said } else { format!(" {said}") };
    format!("{}>{said}", parts.join(" "))
}

/// What stands in brackets for whatever is no text, and what stands behind the `>`.
fn said(content: &Content) -> (Option<String>, String) {
    match content {
        Content::Text { text } => (None, escaped(text)),
        Content::File { name, size, mime, .. } => {
            let mime = if mime.is_empty() { String::new() } else { format!(", {}", escaped(mime)) };
            (Some("file".to_owned()), format!("{} ({}{mime})", escaped(name), DecimalBytes(*size)))
        }
        Content::React { author, msg_id, text } => {
            (Some(format!("to {} {}", escaped(author), short(msg_id))), escaped(text))
        }
        Content::Edit { msg_id, text } => (Some(format!("instead of {}", short(msg_id))), escaped(text)),
        Content::Delete { msg_id } => (Some(format!("takes back {}", short(msg_id))), String::new()),
    }
}

/// What to type for a file, in front of the `>` where no sender can write.
fn get_file(target: &str, id: u64) -> String {
    match target.starts_with('#') {
        true => format!("dsc get-file '{}/{id}'", escaped(target)),
        false => format!("dsc get-file {}/{id}", escaped(target)),
    }
}

/// The first digits of a message's id, enough to tell a few apart.
fn short(msg_id: &str) -> String {
    escaped(msg_id).chars().take(8).collect()
}

fn is_alarming(mark: Mark) -> bool {
    matches!(mark, Mark::IdentityChanged | Mark::Conflict)
}

fn mark_word(mark: Mark) -> &'static str {
    match mark {
        Mark::Plain => "plain",
        Mark::FirstContact => "first-contact",
        Mark::Weak => "weak",
        Mark::IdentityChanged => "identity-changed",
        Mark::Conflict => "conflict",
        Mark::Removed => "removed",
        Mark::OldRoster => "old-roster",
        Mark::Late => "late",
    }
}

fn row(row: &Row, style: &Style) -> String {
    // Facts with commas between them; those that do not hold are left out.
    let facts = |facts: &[Option<String>]| facts.iter().flatten().cloned().collect::<Vec<_>>().join(", ");
    let when = |holds: bool, text: &str| holds.then(|| text.to_owned());
    let shown = |text: &Option<String>, before: &str| text.as_ref().map(|text| format!("{before}{}", escaped(text)));
    let name = |ansi: Ansi, text: &str| style.paint(ansi, &escaped(text));
    match row {
        Row::Room { room, members, e2e, private, joined, topic } => {
            let members = if *members == 1 { "1 member".to_owned() } else { format!("{members} members") };
            let e2e = if *e2e { "end to end".to_owned() } else { style.paint(MARK, "plain") };
            let facts = facts(&[Some(members), Some(e2e), when(*private, "private"), when(*joined, "joined")]);
            format!("{} {facts}{}", name(PLACE, room), shown(topic, ": ").unwrap_or_default())
        }
        Row::Member { user, role, roster, online, trust } => {
            let online = if *online { "online" } else { "offline" }.to_owned();
            let role = Some(shown(role, "").unwrap_or_else(|| style.paint(MARK, "not in the room for the server")));
            let trust = trust.as_ref().map(|trust| match trust.as_str() {
                "changed" => style.paint(ALARM, "!! identity changed"),
                other => escaped(other),
            });
            let facts = facts(&[role, shown(roster, "roster "), Some(online), trust]);
            format!("{} {facts}", name(SENDER, user))
        }
        Row::User { user, presence, since, text } => {
            let since = since.as_ref().map(|since| format!(" since {}", style.time(since))).unwrap_or_default();
            let text = shown(text, ": ").unwrap_or_default();
            format!("{} {}{since}{text}", name(SENDER, user), escaped(presence))
        }
        Row::Unread { target, count: 0, .. } => format!("{} nothing unread", name(PLACE, target)),
        Row::Unread { target, count, first, last } => {
            format!("{} {count} unread, {first} to {last}", name(PLACE, target))
        }
        Row::Topic { room, topic } => {
            format!("{}{}", name(PLACE, room), shown(topic, ": ").unwrap_or_else(|| " has no topic".to_owned()))
        }
        Row::Keys { device, opk, pqk } => {
            format!("{} one-time keys left: {opk} X25519, {pqk} ML-KEM", name(PLACE, device))
        }
        Row::LinkCode { code } => {
            format!("on the account's first device, within ten minutes: dsc link --approve {}", escaped(code))
        }
        Row::Number { user, number, verified } => {
            let verified = if *verified { "verified".to_owned() } else { style.paint(MARK, "not compared yet") };
            format!("{} {} {verified}", name(SENDER, user), escaped(number))
        }
        Row::Device { user, device, name: given, this, until, current } => {
            let facts = facts(&[
                shown(given, ""),
                when(*this, "this device"),
                Some(format!("until {}", style.time(until))),
                when(!current, "not current"),
            ]);
            format!("{} {} {facts}", name(SENDER, user), escaped(device))
        }
        Row::Account { user, server, device, token, confirmed } => {
            let user = user.as_ref().map_or_else(|| "no account".to_owned(), |user| name(OWN, user));
            let facts = facts(&[
                Some(shown(device, "device ").unwrap_or_else(|| "no keys".to_owned())),
                Some(if *token { "logged in" } else { "no token" }.to_owned()),
                when(*confirmed, "confirmed by the server"),
            ]);
            format!("{user}{}: {facts}", shown(server, " on ").unwrap_or_default())
        }
        Row::File { file, target, sender, time, name: called, size, mime, id, encrypted, partial, .. } => {
            let shown_name = called.as_ref().map_or_else(|| style.paint(MARK, "sealed"), |name| escaped(name));
            let facts = facts(&[
                Some(match partial {
                    Some(done) => format!("{} of {} sent", DecimalBytes(*done), DecimalBytes(*size)),
                    None => DecimalBytes(*size).to_string(),
                }),
                shown(&mime.clone().filter(|mime| !mime.is_empty()), ""),
                when(called.is_none(), "its message was not opened here"),
                id.map(|id| format!("message {id}")),
                (!encrypted).then(|| style.paint(MARK, "plain")),
            ]);
            let time = style.time(time);
            format!("{file} {time} {} {} {shown_name} ({facts})", name(PLACE, target), name(SENDER, sender))
        }
        Row::Envelope { form, bytes, device, room, epoch, chain, n, slots } => {
            let facts = facts(&[
                Some(format!("{bytes} bytes")),
                shown(device, "device "),
                shown(room, "room "),
                epoch.map(|epoch| format!("epoch {epoch}")),
                shown(chain, "chain "),
                n.map(|n| format!("n {n}")),
                slots.map(|slots| format!("slots {slots}")),
            ]);
            format!("{} {facts}", name(PLACE, form))
        }
        Row::Slot { device, session, born, previous, n } => {
            let born = born.as_ref().map(|born| format!("begins the session, made {}", escaped(born)));
            let facts = facts(&[
                Some(format!("device {}", escaped(device))),
                Some(format!("session {}", escaped(session))),
                Some(format!("previous {previous}")),
                Some(format!("n {n}")),
                born,
            ]);
            format!("  slot {facts}")
        }
        Row::Transfer { transfer, direction, target, name: file, size, since, waits } => {
            let facts = facts(&[
                Some(format!("{} {}", escaped(direction), escaped(file))),
                size.map(|size| DecimalBytes(size).to_string()),
                Some(format!("begun {}", style.time(since))),
                shown(waits, ""),
            ]);
            format!("{} {}: {facts}", escaped(transfer), name(PLACE, target))
        }
    }
}

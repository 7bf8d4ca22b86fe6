//! Lines that are nearly right: one that makes sense, with some of it cut, doubled or exchanged.

use downstream::protocol::request::{Addressee, Request, Sentence};

use super::client::{People, Typed};
use super::oracle::{Given, Kind};
use super::rng::Rng;

/// What is put into a line: what splits one, what names something, and numbers at their ends.
const PIECES: &[&str] = &[
    " ",
    "  ",
    "/",
    "//",
    "@",
    ":",
    ",",
    ",,",
    "\"",
    "\\\"",
    "=",
    "#",
    "-",
    "*",
    "?",
    "\t",
    "\u{1b}[2J",
    "é",
    "\u{202e}",
    "'",
    "token:",
    "e2e:",
    "e2e:AAAA",
    "after=",
    "before=",
    "limit=",
    "only=certs",
    "device=",
    "show=none",
    "name=",
    "to=",
    "signals",
    "manual",
    "auto",
    "on",
    "off",
    "set",
    "put",
    "get",
    "status",
    "private",
    "e2e",
    "0",
    "1",
    "00",
    "-1",
    "999",
    "1000",
    "1001",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "u0",
    "u1",
    "U1",
    "#r0",
    "#R0",
    "u0,u1,#r0",
    "u1,u1",
    "me",
    "admin",
    "kick",
    "ban",
    "192.0.2.1",
    "192.0.2.0/24",
    "::/0",
    "0.0.0.0/0",
    "2001:db8::/32",
];
/// Commands under which what stood behind another is tried.
const VERBS: &[&str] = &[
    "/msg ",
    "/post ",
    "/fetch ",
    "/ack ",
    "/join ",
    "/leave ",
    "/create ",
    "/topic ",
    "/to ",
    "/who ",
    "/watch ",
    "/unwatch ",
    "/signal ",
    "/signals ",
    "/keys ",
    "/roster ",
    "/roster-add ",
    "/admin ",
    "/profile ",
    "/users ",
    "/rooms ",
    "/kick ",
    "/register ",
    "/login ",
    "/takeover ",
    "/passwd ",
    "/typing ",
    "/help ",
    "/send-file ",
    "/chunk ",
    "/get-file ",
    "/file ",
];

impl People {
    /// Makes a line of another one that is not quite it.
    pub fn garble(&mut self, rng: &mut Rng, typed: Typed) -> Typed {
        let Ok(mut line) = typed.line else { return typed };
        for _ in 0..rng.within(1, 3) {
            edit(rng, &mut line);
        }
        line.retain(|c| !matches!(c, '\0' | '\r' | '\n'));
        self.judged(line)
    }

    /// A line of which nothing is known but what the parser reads in it. What makes a message gets a number at its
    /// end, so that no other message is the same.
    fn judged(&mut self, mut line: String) -> Typed {
        let speaks = match Sentence::read(&line) {
            Sentence::Text(_) => true,
            Sentence::Command(command) => matches!(command.verb.name, "msg" | "post" | "signal"),
            Sentence::Blank | Sentence::Fault(..) => false,
        };
        if speaks {
            let n = self.number();
            line.push_str(&if line.contains("e2e:") { format!("{n:012}") } else { format!(" {n}") });
        }
        let given = match Sentence::read(&line) {
            Sentence::Blank => None,
            Sentence::Text(body) => Some(("msg".to_owned(), Kind::Msg { targets: Vec::new(), body: body.to_owned() })),
            Sentence::Fault(head, _) => Some((head.to_string(), Kind::Other)),
            Sentence::Command(command) => {
                Some((command.head().to_string(), command.request().map_or(Kind::Other, |request| kind(&request))))
            }
        };
        Typed { given: given.map(|(head, kind)| Given { head, kind, index: 0 }), line: Ok(line) }
    }
}

/// What a request is to the oracle.
fn kind(request: &Request<'_>) -> Kind {
    let names = |users: &[downstream::protocol::UserName]| users.iter().map(ToString::to_string).collect();
    match request {
        Request::Msg { targets, body } => {
            let name = |target: &Addressee<'_>| match target {
                Addressee::Target(target) => target.to_string(),
                Addressee::Invalid(text, _) => (*text).to_owned(),
            };
            Kind::Msg { targets: targets.iter().map(name).collect(), body: (*body).to_owned() }
        }
        Request::Post { target, body, .. } => Kind::Post { target: target.to_string(), body: (*body).to_owned() },
        Request::Login { user, password, .. } => {
            let secret = password.as_ref().map_or_else(String::new, |password| password.0.to_string());
            Kind::Enter { user: user.to_string(), secret }
        }
        Request::Register { user, .. } => Kind::Register { user: user.to_string() },
        Request::Logout | Request::Unregister { .. } => Kind::Leave,
        Request::AckMode { manual } => Kind::AckMode { manual: *manual },
        Request::Watch { users } => Kind::Watch(names(users)),
        Request::Unwatch { users } => Kind::Unwatch(names(users)),
        Request::FetchUnread => Kind::FetchUnread,
        Request::Fetch { .. } => Kind::FetchPage,
        Request::Signal { user, body } => Kind::Signal { user: user.to_string(), body: (*body).to_owned() },
        Request::Signals { .. } | Request::KeysGet { .. } | Request::KeysStatus | Request::Roster { .. } => Kind::Rows,
        _ => Kind::Other,
    }
}

/// Changes one place of a line.
fn edit(rng: &mut Rng, line: &mut String) {
    // Mostly near the beginning, where the words are.
    let near = |rng: &mut Rng, line: &str| {
        let at = if rng.percent(80) { rng.below(line.len().min(48) + 1) } else { rng.below(line.len() + 1) };
        boundary(line, at)
    };
    let at = near(rng, line);
    match rng.below(8) {
        0 => line.truncate(at),
        1 => {
            let end = boundary(line, at + rng.within(1, 16)).max(at);
            line.replace_range(at..end, "");
        }
        2 => {
            let end = boundary(line, at + rng.within(1, 16)).max(at);
            let again = line[at..end].to_owned();
            line.insert_str(at, &again);
        }
        3 => {
            let other = char::from(rng.below(256) as u8);
            line.insert(at, other);
        }
        4 => {
            let arguments = line.split_once(' ').map_or("", |(_, rest)| rest);
            *line = format!("{}{arguments}", rng.pick(VERBS).unwrap_or(&"/"));
        }
        5 => {
            let times = rng.within(1, 200);
            line.insert_str(at, &rng.pick(PIECES).unwrap_or(&"").repeat(times));
        }
        _ => line.insert_str(at, rng.pick(PIECES).unwrap_or(&"")),
    }
}

/// The last place up to `at` between two characters.
fn boundary(line: &str, at: usize) -> usize {
    (0..=at.min(line.len())).rev().find(|at| line.is_char_boundary(*at)).unwrap_or(0)
}

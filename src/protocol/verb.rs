//! The table of commands: one row each, from which the parser, `/help`, the gate before login and the
//! tables in the documents follow.

/// What may stand behind the arguments of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// Nothing.
    None,
    /// One space and a text of at least one byte, or nothing.
    Optional,
    /// One space and a text of at least one byte.
    Required,
    /// A text that begins with `:`, or nothing.
    Colon,
    /// A command of a further table ([`ADMIN_VERBS`]), which splits what stands behind it.
    Table,
}

/// One command.
#[derive(Debug)]
pub struct Verb {
    /// Its name, without the slash.
    pub name: &'static str,
    /// What stands behind it, as a person would note it; empty for nothing.
    pub usage: &'static str,
    /// What it does, in one line.
    pub about: &'static str,
    /// Works before login.
    pub before_login: bool,
    /// Fewest and most arguments.
    pub args: (usize, usize),
    /// The `key=value` arguments that it knows.
    pub options: &'static [&'static str],
    /// What may follow.
    pub body: Body,
}

impl Verb {
    /// `/name usage`.
    pub fn usage_line(&self) -> String {
        format!("/{} {}", self.name, self.usage).trim_end().to_owned()
    }
}

const fn verb(name: &'static str, usage: &'static str, args: (usize, usize), about: &'static str) -> Verb {
    Verb { name, usage, about, before_login: false, args, options: &[], body: Body::None }
}

impl Verb {
    const fn anonymous(mut self) -> Verb {
        self.before_login = true;
        self
    }

    const fn options(mut self, options: &'static [&'static str]) -> Verb {
        self.options = options;
        self
    }

    const fn body(mut self, body: Body) -> Verb {
        self.body = body;
        self
    }
}

/// Most names of one `/watch` or `/unwatch`.
pub const WATCH_MAX: usize = 100;

/// Every command, by topic.
pub const VERBS: &[Verb] = &[
    verb("help", "[VERB]", (0, 1), "lists the commands, or explains one").anonymous(),
    verb("ping", "[text]", (0, 0), "answers, with the text").anonymous().body(Body::Optional),
    verb("version", "", (0, 0), "says which server and protocol this is").anonymous(),
    verb("whoami", "", (0, 0), "says who is logged in here").anonymous(),
    verb("quit", "", (0, 0), "closes the connection").anonymous(),
    verb("register", "USER PASSWORD [INVITE]", (2, 3), "makes an account and logs in").anonymous(),
    verb("login", "USER [PASSWORD]", (1, 2), "logs in with a password, a token:… or the client certificate")
        .anonymous(),
    verb("takeover", "USER [PASSWORD]", (1, 2), "logs in; at the limit the oldest session ends").anonymous(),
    verb("logout", "", (0, 0), "back to the state before login"),
    verb("passwd", "OLD NEW", (2, 2), "changes the password; tokens and other sessions end"),
    verb("unregister", "PASSWORD", (1, 1), "erases the account; its name stays reserved"),
    verb("token", "[name]", (0, 1), "makes a token to log in with, shown once"),
    verb("tokens", "", (0, 0), "lists the tokens of the account"),
    verb("revoke", "NAME", (1, 1), "ends a token"),
    verb("cert", "add|list|drop [SHA256]", (1, 2), "binds the client certificate of this connection to the account"),
    verb(
        "profile",
        "[USER] | set [name=…] [email=…] [note=…] [show=all|rooms|none]",
        (0, 1),
        "shows or sets a profile",
    )
    .options(&["name", "email", "note", "show"]),
    verb("users", "[GLOB] [after=NAME]", (0, 1), "lists accounts").options(&["after"]),
    verb("who", "USER|ROOM", (1, 1), "says whether somebody, or who of a room, is there"),
    verb("watch", "USER…", (1, WATCH_MAX), "tells from now on when they come and go"),
    verb("unwatch", "USER…", (1, WATCH_MAX), "ends that"),
    verb("away", "[text]", (0, 0), "says that you are away").body(Body::Optional),
    verb("back", "", (0, 0), "says that you are back"),
    verb("typing", "USER|ROOM", (1, 1), "shows that you are typing; never stored"),
    verb("create", "ROOM [private] [e2e] [:topic]", (1, 3), "makes a room and owns it").body(Body::Colon),
    verb("join", "ROOM", (1, 1), "enters a room, making it where it is missing; bare text goes there"),
    verb("leave", "ROOM [reason]", (1, 1), "leaves a room").body(Body::Optional),
    verb("rooms", "[GLOB] [after=ROOM]", (0, 1), "lists rooms").options(&["after"]),
    verb("members", "ROOM", (1, 1), "lists who is in a room and what they may do"),
    verb("invite", "ROOM USER", (2, 2), "lets somebody into a room"),
    verb("kick", "ROOM USER [reason]", (2, 2), "puts somebody out of a room").body(Body::Optional),
    verb("ban", "ROOM USER [reason]", (2, 2), "puts somebody out and keeps them out").body(Body::Optional),
    verb("unban", "ROOM USER", (2, 2), "lifts a ban"),
    verb("op", "ROOM USER", (2, 2), "makes a member an operator"),
    verb("deop", "ROOM USER", (2, 2), "makes an operator a member"),
    verb("topic", "ROOM [text]", (1, 1), "shows or sets a room's topic").body(Body::Optional),
    verb("to", "USER|ROOM", (1, 1), "sends bare text there from now on"),
    verb("msg", "TARGET[,TARGET…] TEXT", (1, 1), "sends a message").body(Body::Required),
    verb("post", "TARGET KEY TEXT", (2, 2), "sends a message once, however often it is repeated").body(Body::Required),
    verb("fetch", "[TARGET [after=ID|before=ID] [limit=N]]", (0, 1), "reads unread messages, or a page of a log")
        .options(&["after", "before", "limit"]),
    verb("unread", "[all]", (0, 1), "lists conversations with unread messages"),
    verb("ack", "TARGET ID | signals ID | auto | manual", (1, 2), "marks messages as read, or says who does")
        .anonymous(),
    verb("receipts", "on|off", (1, 1), "exchanges read receipts with others that do"),
    verb("signal", "USER ENVELOPE", (1, 1), "for programs: sends an end-to-end envelope outside every conversation")
        .body(Body::Required),
    verb("signals", "[after=ID]", (0, 0), "for programs: lists what came by /signal and waits for /ack signals")
        .options(&["after"]),
    verb("send-file", "TARGET NAME SIZE SHA256", (4, 4), "begins to send a file, or goes on where it stopped"),
    verb("chunk", "F OFFSET BASE64", (3, 3), "sends the next piece of a file"),
    verb("get-file", "F [offset=N] [length=N]", (1, 1), "reads a piece of a file").options(&["offset", "length"]),
    verb("files", "[TARGET] [after=F] [sha256=HEX]", (0, 1), "lists files").options(&["after", "sha256"]),
    verb("drop-file", "F", (1, 1), "deletes a file, or gives up sending it"),
    verb(
        "keys",
        "put BASE64 | get USER [device=HEX] [only=certs] | status",
        (1, 2),
        "for programs: public keys of devices, to encrypt to them",
    )
    .options(&["device", "only"]),
    verb("roster", "ROOM [after=EPOCH]", (1, 1), "for programs: reads a room's signed membership log")
        .options(&["after"]),
    verb("roster-add", "ROOM EPOCH BASE64", (3, 3), "for programs: appends to it"),
    verb("admin", "COMMAND …", (0, 0), "administers the server; /help admin lists the commands").body(Body::Table),
];

/// What `/admin` knows; the same shapes, one word further right.
pub const ADMIN_VERBS: &[Verb] = &[
    verb("users", "[GLOB] [after=NAME]", (0, 1), "lists accounts with what only administrators see")
        .options(&["after"]),
    verb("sessions", "[USER]", (0, 1), "lists sessions with address and TLS version"),
    verb("kick", "USER [reason]", (1, 1), "ends every session of an account").body(Body::Optional),
    verb("ban", "USER|ADDRESS[/BITS]", (1, 1), "keeps an account or an address out"),
    verb("unban", "USER|ADDRESS[/BITS]", (1, 1), "lets it in again"),
    verb("invite", "", (0, 0), "makes an invitation code, good once for seven days"),
    verb("notice", "[to=USER] TEXT", (0, 0), "tells everybody, or one account").options(&["to"]).body(Body::Required),
    verb("stats", "", (0, 0), "shows what the server is doing"),
    verb("shutdown", "", (0, 0), "ends the server"),
];

/// The row of a command, by its name in lower case.
pub fn find(name: &str) -> Option<&'static Verb> {
    VERBS.iter().find(|verb| verb.name == name)
}

/// The row of a word behind `/admin`, in lower case.
pub fn find_admin(name: &str) -> Option<&'static Verb> {
    ADMIN_VERBS.iter().find(|verb| verb.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn the_tables_hold_together() {
        for table in [VERBS, ADMIN_VERBS] {
            let names: HashSet<_> = table.iter().map(|verb| verb.name).collect();
            assert_eq!(names.len(), table.len(), "a name stands once");
            for verb in table {
                assert!(verb.name.len() <= 32 && verb.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'));
                assert!(verb.args.0 <= verb.args.1);
                assert!(!verb.about.is_empty() && !verb.about.ends_with('.'));
                assert_eq!(
                    verb.usage.is_empty(),
                    verb.args.1 == 0 && verb.body == Body::None && verb.options.is_empty()
                );
                for option in verb.options {
                    assert!(verb.usage.contains(&format!("{option}=")), "{} names {option}", verb.name);
                }
            }
        }
    }
}

//! Lines from the server: `OK`, `ERR`, rows and events, and the codes of errors.

use std::borrow::Cow;
use std::fmt;
use std::io::Write as _;

use super::name::Label;

/// The stable word of an `ERR` that programs act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is the code of its name; docs/protocol.md explains them")]
pub enum Code {
    Syntax,
    UnknownCommand,
    TooLong,
    NotLoggedIn,
    AlreadyLoggedIn,
    AuthFailed,
    NameTaken,
    NameInvalid,
    WeakPassword,
    RegistrationClosed,
    InUse,
    NoSuchUser,
    NoSuchRoom,
    NotMember,
    Forbidden,
    Banned,
    E2eRequired,
    NotFound,
    Conflict,
    RateLimited,
    Quota,
    Checksum,
    Busy,
    Internal,
}

impl Code {
    /// Every code.
    pub const ALL: [Code; 24] = [
        Code::Syntax,
        Code::UnknownCommand,
        Code::TooLong,
        Code::NotLoggedIn,
        Code::AlreadyLoggedIn,
        Code::AuthFailed,
        Code::NameTaken,
        Code::NameInvalid,
        Code::WeakPassword,
        Code::RegistrationClosed,
        Code::InUse,
        Code::NoSuchUser,
        Code::NoSuchRoom,
        Code::NotMember,
        Code::Forbidden,
        Code::Banned,
        Code::E2eRequired,
        Code::NotFound,
        Code::Conflict,
        Code::RateLimited,
        Code::Quota,
        Code::Checksum,
        Code::Busy,
        Code::Internal,
    ];

    /// As it stands on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Code::Syntax => "syntax",
            Code::UnknownCommand => "unknown-command",
            Code::TooLong => "too-long",
            Code::NotLoggedIn => "not-logged-in",
            Code::AlreadyLoggedIn => "already-logged-in",
            Code::AuthFailed => "auth-failed",
            Code::NameTaken => "name-taken",
            Code::NameInvalid => "name-invalid",
            Code::WeakPassword => "weak-password",
            Code::RegistrationClosed => "registration-closed",
            Code::InUse => "in-use",
            Code::NoSuchUser => "no-such-user",
            Code::NoSuchRoom => "no-such-room",
            Code::NotMember => "not-member",
            Code::Forbidden => "forbidden",
            Code::Banned => "banned",
            Code::E2eRequired => "e2e-required",
            Code::NotFound => "not-found",
            Code::Conflict => "conflict",
            Code::RateLimited => "rate-limited",
            Code::Quota => "quota",
            Code::Checksum => "checksum",
            Code::Busy => "busy",
            Code::Internal => "internal",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which command a reply belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The verb in lower case; `*` where it could not be read.
    pub verb: Cow<'static, str>,
    /// The client's label.
    pub label: Option<Label>,
}

impl Head {
    /// For a fault that belongs to no command.
    pub fn none() -> Head {
        Head { verb: Cow::Borrowed("*"), label: None }
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.verb)?;
        match &self.label {
            Some(label) => write!(f, "@{label}"),
            None => Ok(()),
        }
    }
}

/// One line on its way to a client, put together from left to right.
///
/// Values hold no space; what may hold one comes last, through [`Line::text`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line(Vec<u8>);

impl Line {
    /// `OK verb[@label]`
    pub fn ok(head: &Head) -> Line {
        Line::begin(format_args!("OK {head}"))
    }

    /// `ERR verb[@label] code`
    pub fn err(head: &Head, code: Code) -> Line {
        Line::begin(format_args!("ERR {head} {code}"))
    }

    /// `- kind`
    pub fn row(kind: &str) -> Line {
        Line::begin(format_args!("- {kind}"))
    }

    /// `* kind`
    pub fn event(kind: &str) -> Line {
        Line::begin(format_args!("* {kind}"))
    }

    fn begin(start: fmt::Arguments<'_>) -> Line {
        // Most lines are short; a message's room is made when its text comes.
        let mut line = Vec::with_capacity(96);
        let written = line.write_fmt(start);
        debug_assert!(written.is_ok(), "memory takes everything");
        Line(line)
    }

    /// `- kind` behind whole lines: of many none is copied.
    pub fn row_behind(kind: &str, lines: Vec<u8>) -> Line {
        Line::behind(b"- ", kind, lines)
    }

    /// `* kind` behind whole lines.
    pub fn event_behind(kind: &str, lines: Vec<u8>) -> Line {
        Line::behind(b"* ", kind, lines)
    }

    fn behind(start: &[u8], kind: &str, mut lines: Vec<u8>) -> Line {
        debug_assert!(lines.last().is_none_or(|&last| last == b'\n'), "lines have endings");
        lines.extend_from_slice(start);
        lines.extend_from_slice(kind.as_bytes());
        Line(lines)
    }

    /// ` value`
    pub fn arg(mut self, value: impl fmt::Display) -> Line {
        let before = self.0.len();
        let written = write!(self.0, " {value}");
        debug_assert!(written.is_ok() && self.holds_one_word(before));
        self
    }

    /// ` key=value`
    pub fn key(mut self, key: &str, value: impl fmt::Display) -> Line {
        let before = self.0.len();
        let written = write!(self.0, " {key}={value}");
        debug_assert!(written.is_ok() && self.holds_one_word(before));
        self
    }

    /// ` value`, the last of a line and perhaps a long one: room is made for it once.
    pub fn last_arg(mut self, value: &str) -> Line {
        self.0.reserve_exact(value.len() + 2);
        self.arg(value)
    }

    /// ` :text`, the last of a line.
    pub fn text(mut self, text: &str) -> Line {
        debug_assert!(!text.contains(['\n', '\r', '\0']), "a text is one line");
        self.0.reserve_exact(text.len() + 3);
        self.text_by(|line| line.extend_from_slice(text.as_bytes()))
    }

    /// ` :` and what `write` appends, which is one line of UTF-8, the last of a line.
    pub fn text_by(mut self, write: impl FnOnce(&mut Vec<u8>)) -> Line {
        self.0.extend_from_slice(b" :");
        write(&mut self.0);
        self
    }

    /// ` :text` where there is one.
    pub fn maybe_text(self, text: Option<&str>) -> Line {
        match text {
            Some(text) => self.text(text),
            None => self,
        }
    }

    /// The bytes to send, with the ending.
    pub fn finish(mut self) -> Vec<u8> {
        self.0.push(b'\n');
        self.0
    }

    /// Appends the bytes to send, with the ending.
    pub fn finish_into(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
        out.push(b'\n');
    }

    fn holds_one_word(&self, from: usize) -> bool {
        self.0.get(from + 1..).is_some_and(|word| !word.iter().any(|byte| b" \n\r\0".contains(byte)))
    }
}

impl From<Line> for Vec<u8> {
    fn from(line: Line) -> Vec<u8> {
        line.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_read_as_the_protocol_says() {
        let head = Head { verb: "msg".into(), label: Label::parse("a1") };
        assert_eq!(Line::ok(&head).key("id", 7).key("to", "#r").finish(), b"OK msg@a1 id=7 to=#r\n");
        assert_eq!(
            Line::err(&Head::none(), Code::TooLong).key("max", 4096).text("too long").finish(),
            b"ERR * too-long max=4096 :too long\n"
        );
        assert_eq!(Line::row("user").arg("bob").arg("online").finish(), b"- user bob online\n");
        assert_eq!(Line::event("leave").arg("#r").arg("bob").maybe_text(None).finish(), b"* leave #r bob\n");
        assert_eq!(Line::event("notice").text("a  b").finish(), b"* notice :a  b\n");
    }

    #[test]
    fn codes_are_words() {
        for code in Code::ALL {
            assert!(code.as_str().bytes().all(|b| b.is_ascii_lowercase() || b == b'-' || b.is_ascii_digit()));
        }
    }
}

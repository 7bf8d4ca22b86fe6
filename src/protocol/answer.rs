//! Lines from the server, read: `OK`, `ERR`, rows and events, without a copy.
//!
//! The other end of [`super::reply`]. A reader takes what it knows and passes over the rest: unknown
//! keys, codes and kinds of events are no faults. What it does read it reads strictly, because a server
//! is a stranger like any other.

use std::fmt;

mod files;

pub use files::{ChunkLine, FileLine, UploadLine};

use super::name::{Target, UserName};
use super::time::Timestamp;
use super::{MAX_BODY, MAX_LINE, PROTOCOL};

/// Longest line that a client takes from a server, in bytes, ending included. The longest that the
/// protocol has is a message of [`MAX_BODY`] or a chunk of 64 KiB in base64, with names and numbers in
/// front of it; twice [`MAX_LINE`] leaves room for servers that allow more, and a connection's buffer
/// stays small.
pub const SERVER_LINE_MAX: usize = 2 * MAX_LINE;

/// The words of a line, and its text behind ` :`.
///
/// Words are separated by exactly one space, as servers write them; the text is whatever follows the
/// first ` :`, byte for byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fields<'a> {
    whole: &'a str,
    words: Option<&'a str>,
    text: Option<&'a str>,
}

impl<'a> Fields<'a> {
    /// Takes a line apart: for a row or an event, what stands behind `- ` or `* `.
    pub fn parse(line: &'a str) -> Fields<'a> {
        if let Some(text) = line.strip_prefix(':') {
            return Fields { whole: line, words: None, text: Some(text) };
        }
        let (words, text) = match line.split_once(" :") {
            Some((words, text)) => (words, Some(text)),
            None => (line, None),
        };
        Fields { whole: line, words: Some(words), text }
    }

    /// No words and no text.
    const EMPTY: Fields<'static> = Fields { whole: "", words: None, text: None };

    /// What stands behind a head; `None` is a line that ended with it.
    fn behind(rest: Option<&'a str>) -> Fields<'a> {
        rest.map_or(Fields::EMPTY, Fields::parse)
    }

    /// The line as it was given, for rows that are meant for people.
    pub fn whole(&self) -> &'a str {
        self.whole
    }

    /// Every word in its order, `key=value` included.
    pub fn words(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.words.into_iter().flat_map(|words| words.split(' '))
    }

    /// The word of this number, from 0. In rows and events the first is the kind.
    pub fn word(&self, number: usize) -> Option<&'a str> {
        self.words().nth(number)
    }

    /// What kind of row or event this is; empty where there is no word at all.
    pub fn kind(&self) -> &'a str {
        self.word(0).unwrap_or_default()
    }

    /// Every `key=value`, in its order.
    pub fn keys(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        self.words().filter_map(|word| word.split_once('='))
    }

    /// The value of the first `name=value`.
    pub fn key(&self, name: &str) -> Option<&'a str> {
        self.keys().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// What stands behind ` :`, if anything does; may be empty.
    pub fn text(&self) -> Option<&'a str> {
        self.text
    }
}

/// A line from the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerLine<'a> {
    /// The one reply to a command that worked.
    Ok {
        /// The command's verb.
        verb: &'a str,
        /// The label that the command had.
        label: Option<&'a str>,
        /// What it says.
        fields: Fields<'a>,
    },
    /// The one reply to a command that did not.
    Err {
        /// The command's verb; `*` where it could not be read.
        verb: &'a str,
        /// The label that the command had.
        label: Option<&'a str>,
        /// The stable word: one of [`super::Code`], or one that is newer than this program.
        code: &'a str,
        /// What it says.
        fields: Fields<'a>,
    },
    /// A row of the reply that follows.
    Row(Fields<'a>),
    /// An event.
    Event(Fields<'a>),
    /// Nothing that a server of this protocol says.
    Other,
}

impl<'a> ServerLine<'a> {
    /// Reads a line without its ending.
    pub fn parse(line: &'a str) -> ServerLine<'a> {
        if let Some(rest) = line.strip_prefix("- ") {
            ServerLine::Row(Fields::parse(rest))
        } else if let Some(rest) = line.strip_prefix("* ") {
            ServerLine::Event(Fields::parse(rest))
        } else if let Some(rest) = line.strip_prefix("OK ") {
            let (head, rest) = cut(rest);
            let Some((verb, label)) = read_head(head) else { return ServerLine::Other };
            ServerLine::Ok { verb, label, fields: Fields::behind(rest) }
        } else if let Some(rest) = line.strip_prefix("ERR ") {
            let (head, rest) = cut(rest);
            let (code, rest) = rest.map_or(("", None), cut);
            match read_head(head) {
                Some((verb, label)) if is_code(code) => {
                    ServerLine::Err { verb, label, code, fields: Fields::behind(rest) }
                }
                _ => ServerLine::Other,
            }
        } else {
            ServerLine::Other
        }
    }
}

/// The first word, and what stands behind its space.
fn cut(text: &str) -> (&str, Option<&str>) {
    match text.split_once(' ') {
        Some((word, rest)) => (word, Some(rest)),
        None => (text, None),
    }
}

/// `verb[@label]`
fn read_head(head: &str) -> Option<(&str, Option<&str>)> {
    let (verb, label) = match head.split_once('@') {
        Some((verb, label)) => (verb, Some(label)),
        None => (head, None),
    };
    let named = !verb.is_empty() && verb.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
    let labelled = label.is_none_or(|label| !label.is_empty());
    ((named || verb == "*") && labelled).then_some((verb, label))
}

fn is_code(code: &str) -> bool {
    !code.is_empty() && code.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// A row or an event that is not what its kind must be: the server's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed {
    /// The kind that was to be read.
    pub kind: &'static str,
    /// Which part of it is missing or cannot be read.
    pub part: &'static str,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a line of the kind {} has no {} that can be read", self.kind, self.part)
    }
}

impl std::error::Error for Malformed {}

/// Reads the parts of one line, and says which of them is amiss.
struct Reader<'a> {
    kind: &'static str,
    fields: Fields<'a>,
}

impl<'a> Reader<'a> {
    fn new(kind: &'static str, fields: &Fields<'a>) -> Result<Reader<'a>, Malformed> {
        let reader = Reader { kind, fields: *fields };
        reader.need("kind", (fields.kind() == kind).then_some(()))?;
        Ok(reader)
    }

    fn need<T>(&self, part: &'static str, value: Option<T>) -> Result<T, Malformed> {
        value.ok_or(Malformed { kind: self.kind, part })
    }

    fn word<T>(
        &self,
        number: usize,
        part: &'static str,
        read: impl FnOnce(&'a str) -> Option<T>,
    ) -> Result<T, Malformed> {
        self.need(part, self.fields.word(number).and_then(read))
    }

    fn key<T>(&self, name: &'static str, read: impl FnOnce(&'a str) -> Option<T>) -> Result<T, Malformed> {
        self.need(name, self.fields.key(name).and_then(read))
    }

    /// A number that may be left out.
    fn number_or(&self, name: &'static str, absent: u64) -> Result<u64, Malformed> {
        self.fields.key(name).map_or(Ok(absent), |value| self.need(name, read_number(value)))
    }

    fn text(&self, part: &'static str) -> Result<&'a str, Malformed> {
        self.need(part, self.fields.text())
    }
}

/// A decimal number in its one form: digits only, no zero in front.
pub fn read_number(text: &str) -> Option<u64> {
    let canonical = text == "0" || !text.starts_with('0');
    (canonical && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

fn read_user(text: &str) -> Option<UserName> {
    UserName::parse(text).ok()
}

fn read_target(text: &str) -> Option<Target> {
    Target::parse(text).ok()
}

/// Where a message or a file belongs: the room, or in a direct message the other person, whoever of the
/// two sent it.
fn conversation(target: &Target, sender: &UserName, me: &UserName) -> Target {
    match target {
        Target::User(receiver) if receiver == me => Target::User(sender.clone()),
        _ => target.clone(),
    }
}

/// `msg ID TIME TARGET SENDER [key=value…] :BODY`, a row or an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageLine<'a> {
    /// The number in the conversation.
    pub id: u64,
    /// When it was stored.
    pub time: Timestamp,
    /// The room, or the receiver of a direct message.
    pub target: Target,
    /// Who sent it.
    pub sender: UserName,
    /// Whether it is one of those that had been missed before the login.
    pub missed: bool,
    /// What was said, or an envelope.
    pub body: &'a str,
}

impl<'a> MessageLine<'a> {
    /// Reads a row or an event of the kind `msg`.
    ///
    /// # Errors
    /// [`Malformed`], also for another kind.
    pub fn read(fields: &Fields<'a>) -> Result<MessageLine<'a>, Malformed> {
        let reader = Reader::new("msg", fields)?;
        Ok(MessageLine {
            id: reader.word(1, "ID", read_number)?,
            time: reader.word(2, "TIME", Timestamp::parse)?,
            target: reader.word(3, "TARGET", read_target)?,
            sender: reader.word(4, "SENDER", read_user)?,
            missed: fields.key("missed") == Some("yes"),
            body: reader.text("BODY")?,
        })
    }

    /// The room, or the other person, for `me`.
    pub fn conversation(&self, me: &UserName) -> Target {
        conversation(&self.target, &self.sender, me)
    }
}

/// `signal ID TIME SENDER :BODY`, a row or an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignalLine<'a> {
    /// The number by which it is acknowledged.
    pub id: u64,
    /// When it was stored.
    pub time: Timestamp,
    /// Who sent it.
    pub sender: UserName,
    /// An envelope.
    pub body: &'a str,
}

impl<'a> SignalLine<'a> {
    /// Reads a row or an event of the kind `signal`.
    ///
    /// # Errors
    /// [`Malformed`], also for another kind.
    pub fn read(fields: &Fields<'a>) -> Result<SignalLine<'a>, Malformed> {
        let reader = Reader::new("signal", fields)?;
        Ok(SignalLine {
            id: reader.word(1, "ID", read_number)?,
            time: reader.word(2, "TIME", Timestamp::parse)?,
            sender: reader.word(3, "SENDER", read_user)?,
            body: reader.text("BODY")?,
        })
    }
}

/// `unread TARGET count=N first=ID last=ID`, a row or an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadLine {
    /// The room, or the other person.
    pub target: Target,
    /// How many messages were not read.
    pub count: u64,
    /// The first of them.
    pub first: u64,
    /// The last of them.
    pub last: u64,
}

impl UnreadLine {
    /// Reads a row or an event of the kind `unread`.
    ///
    /// # Errors
    /// [`Malformed`], also for another kind.
    pub fn read(fields: &Fields<'_>) -> Result<UnreadLine, Malformed> {
        let reader = Reader::new("unread", fields)?;
        Ok(UnreadLine {
            target: reader.word(1, "TARGET", read_target)?,
            count: reader.key("count", read_number)?,
            // A list of all conversations has those with nothing unread too, where neither says anything.
            first: reader.number_or("first", 0)?,
            last: reader.number_or("last", 0)?,
        })
    }
}

/// The greeting: `hello downstream/1 server=NAME version=V max-line=… max-body=… max-file=…
/// registration=… :text`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The server's name for itself.
    pub server: String,
    /// The version of its program.
    pub version: String,
    /// Longest line of a logged-in client, in bytes, ending included.
    pub max_line: usize,
    /// Longest body of a message, in bytes.
    pub max_body: usize,
    /// Largest file, in bytes, where the server says so.
    pub max_file: Option<u64>,
    /// `open`, `invite` or `closed`: who may register.
    pub registration: String,
}

impl Hello {
    /// Reads the event of the kind `hello`. A limit that is left out or more than this program would
    /// use is the protocol's own.
    ///
    /// # Errors
    /// [`Malformed`], also for another protocol.
    pub fn read(fields: &Fields<'_>) -> Result<Hello, Malformed> {
        let reader = Reader::new("hello", fields)?;
        reader.word(1, "protocol downstream/1", |word| (word == PROTOCOL).then_some(()))?;
        let word = |name| fields.key(name).unwrap_or_default().to_owned();
        let limit = |name, ours: usize| {
            let theirs = reader.number_or(name, ours as u64)?;
            Ok(usize::try_from(theirs).map_or(ours, |theirs| theirs.min(ours)))
        };
        Ok(Hello {
            server: word("server"),
            version: word("version"),
            max_line: limit("max-line", MAX_LINE)?,
            max_body: limit("max-body", MAX_BODY)?,
            max_file: fields.key("max-file").and_then(read_number),
            registration: word("registration"),
        })
    }
}

#[cfg(test)]
mod tests;

//! Values of arguments that are more than a text.

use std::str::FromStr;

use bytesize::ByteSize;
use clap::ValueEnum;
use downstream::e2e::armour;
use downstream::e2e::descriptor::MIME_MAX;
use downstream::e2e::name::MsgId;
use downstream::protocol::answer::read_number;
use downstream::protocol::file::FILE_NAME_MAX;
use downstream::protocol::{FileId, Label, MAX_TARGETS, MAX_TEXT, NameInvalid, RoomName, Target, UserName};

use crate::net::trust::Fingerprint;
use crate::store::FileRef;

/// When to use colours. `Auto`: where the output is a terminal that shows them, unless `NO_COLOR` is set.
// Without comments on the variants: clap would print a line for each in every help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum ColorChoice {
    #[default]
    Auto,
    Always,
    Never,
}

impl ColorChoice {
    /// Every choice, as written in the settings.
    pub const ALL: [(&str, ColorChoice); 3] =
        [("auto", ColorChoice::Auto), ("always", ColorChoice::Always), ("never", ColorChoice::Never)];
}

/// Rooms and people to send to: 1 to [`MAX_TARGETS`], each once, in the order given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Targets(pub Vec<Target>);

impl FromStr for Targets {
    type Err = String;

    fn from_str(text: &str) -> Result<Targets, String> {
        let mut targets = Vec::new();
        for part in text.split(',') {
            let target = target(part).map_err(|error| format!("{part:?}: {error}"))?;
            if !targets.contains(&target) {
                targets.push(target);
            }
        }
        match targets.len() {
            ..=MAX_TARGETS => Ok(Targets(targets)),
            count => Err(format!("{count} targets; at most {MAX_TARGETS} at once")),
        }
    }
}

/// The name of a room where only a room can stand: its `#`, which the shell makes awkward, may be left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room(pub RoomName);

impl FromStr for Room {
    type Err = NameInvalid;

    fn from_str(text: &str) -> Result<Room, NameInvalid> {
        match text.starts_with('#') {
            true => RoomName::parse(text),
            false => RoomName::parse(&format!("#{text}")),
        }
        .map(Room)
    }
}

/// A message of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageRef {
    /// By the server's number, which `fetch` and `tail` show.
    Id(u64),
    /// By the sender's own id, which `--json` shows.
    MsgId(MsgId),
}

impl FromStr for MessageRef {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<MessageRef, &'static str> {
        if let Ok(id) = armour::unhex(text) {
            return Ok(MessageRef::MsgId(MsgId(id)));
        }
        match text.parse() {
            Ok(id) if id > 0 && text.bytes().all(|b| b.is_ascii_digit()) => Ok(MessageRef::Id(id)),
            _ => Err("a message is named by its number in the conversation, or by the 32 hexadecimal digits of msg_id"),
        }
    }
}

/// A file: the server's number of it, or the message that speaks of it, as in `bob/17` and `#ops/3`.
pub(super) fn file(text: &str) -> Result<FileRef, String> {
    let number = |text: &str| read_number(text).filter(|number| *number > 0);
    let found = match text.rsplit_once('/') {
        None => number(text).map(|file| FileRef::Number(FileId(file))),
        Some((target, id)) => match (Target::parse(target), number(id)) {
            (Err(error), _) => return Err(error.to_string()),
            (Ok(target), id) => id.map(|id| FileRef::Message(target, id)),
        },
    };
    found.ok_or_else(|| "a file is named by its message, as in bob/17, or by the server's number of it".to_owned())
}

/// A number of bytes, as in `500MB` or `1GiB`.
pub(super) fn size(text: &str) -> Result<u64, String> {
    text.parse::<ByteSize>().map(|size| size.as_u64()).map_err(|_| "a size is as in 500MB, 1GiB or 4096".to_owned())
}

pub(super) fn pin(text: &str) -> Result<Fingerprint, &'static str> {
    Fingerprint::parse(text)
        .ok_or("a fingerprint is sha256: and 64 hexadecimal digits, with or without colons between the bytes")
}

pub(super) fn user(text: &str) -> Result<UserName, NameInvalid> {
    UserName::parse(text)
}

pub(super) fn target(text: &str) -> Result<Target, NameInvalid> {
    Target::parse(text)
}

/// A text that travels in one line to the server: none of the characters that end it.
pub(super) fn one_line(text: &str) -> Result<String, String> {
    match text {
        text if text.contains(['\n', '\r', '\0']) => Err("this must be one line, without a NUL".to_owned()),
        text if text.len() > MAX_TEXT => Err(format!("{} bytes; at most {MAX_TEXT}", text.len())),
        text => Ok(text.to_owned()),
    }
}

/// The name of a file, as its receivers read it.
pub(super) fn file_name(text: &str) -> Result<String, &'static str> {
    match text {
        "" => Err("a file has a name"),
        text if text.len() > FILE_NAME_MAX => Err("a name has at most 255 bytes"),
        text if text.contains('/') || text.contains(char::is_control) => {
            Err("a name is no path, and has no control characters")
        }
        text => Ok(text.to_owned()),
    }
}

/// A media type: `type/subtype`, maybe with parameters.
pub(super) fn media_type(text: &str) -> Result<String, &'static str> {
    let fits = text.len() <= MIME_MAX && text.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    match text.split_once('/') {
        Some((kind, rest)) if fits && !kind.is_empty() && !rest.is_empty() => Ok(text.to_owned()),
        _ => Err("a media type is like text/plain, ASCII, at most 127 bytes"),
    }
}

/// The server's number of a file, with or without the `file=` in front of it.
pub(super) fn file_number(text: &str) -> Result<String, &'static str> {
    let number = text.strip_prefix("file=").unwrap_or(text);
    match Label::parse(number) {
        Some(_) => Ok(number.to_owned()),
        None => Err("it is the number behind file= in the server's answer"),
    }
}

/// The ten digits with which a person accepts a new identity; spaces between them are theirs.
pub(super) fn ten_digits(text: &str) -> Result<String, &'static str> {
    let digits: String = text.chars().filter(|c| *c != ' ').collect();
    match digits.len() == 10 && digits.bytes().all(|b| b.is_ascii_digit()) {
        true => Ok(digits),
        false => Err("these are the first 10 digits of the safety number: two groups of five"),
    }
}

/// Words of the command line as one text: none is no text.
pub fn joined(words: &[String]) -> Option<String> {
    (!words.is_empty()).then(|| words.join(" "))
}

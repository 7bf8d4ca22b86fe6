//! What a client asks for: read from a line, and written as one.

use std::borrow::Cow;
use std::fmt;

use zeroize::Zeroizing;

use super::file::{FileId, FileName};
use super::keys::{DeviceName, KeyUpload};
use super::name::{Label, NameInvalid, POST_KEY_LEN, PostKey, RoomName, Target, UserName};
use super::reply::Head;
use super::verb::{self, Body, Verb};
use super::{MAX_BODY, MAX_TARGETS};

mod args;
mod files;
mod print;
mod programs;

use args::Args;
use files::{chunk, drop_file, files, get_file, send_file};
use programs::{epoch, keys, roster_add};

/// A password or token on its way. Wiped when dropped, not shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(pub Zeroizing<String>);

impl Password {
    /// Takes a copy of `text` into memory that is wiped.
    pub fn new(text: &str) -> Password {
        Password(Zeroizing::new(text.to_owned()))
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// What `/invite`, `/kick` and their kin do to a person in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the command of its name")]
pub enum Act {
    Invite,
    Kick,
    Ban,
    Unban,
    Op,
    Deop,
}

impl Act {
    /// The verb of the command, which is also the kind of the event.
    pub fn as_str(self) -> &'static str {
        match self {
            Act::Invite => "invite",
            Act::Kick => "kick",
            Act::Ban => "ban",
            Act::Unban => "unban",
            Act::Op => "op",
            Act::Deop => "deop",
        }
    }
}

/// Who else may see a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Show {
    /// Everybody with an account.
    All,
    /// Members of a common room.
    #[default]
    Rooms,
    /// Nobody.
    Nobody,
}

impl Show {
    /// As it stands on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Show::All => "all",
            Show::Rooms => "rooms",
            Show::Nobody => "none",
        }
    }

    /// Reads what [`Show::as_str`] wrote.
    pub fn parse(text: &str) -> Option<Show> {
        [Show::All, Show::Rooms, Show::Nobody].into_iter().find(|show| show.as_str() == text)
    }
}

/// The parts of a profile; `None` leaves one as it is, an empty text removes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the key of its name in /profile")]
pub struct ProfileChange {
    pub name: Option<String>,
    pub email: Option<String>,
    pub note: Option<String>,
    pub show: Option<Show>,
}

/// One of the targets of `/msg`; an ill-formed one in a list fails alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Addressee<'a> {
    /// A well-formed name.
    Target(Target),
    /// Anything else without spaces, and what was wrong with it.
    Invalid(&'a str, NameInvalid),
}

/// Which page of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// The newest.
    Newest,
    /// The first behind this id.
    After(u64),
    /// The last in front of this id.
    Before(u64),
}

/// What stands behind `/admin`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the command of its name in the table")]
pub enum Admin<'a> {
    Users { glob: Option<Cow<'a, str>>, after: Option<UserName> },
    Sessions { user: Option<UserName> },
    Kick { user: UserName, reason: Option<&'a str> },
    Ban { whom: Cow<'a, str> },
    Unban { whom: Cow<'a, str> },
    Invite,
    Notice { to: Option<UserName>, text: &'a str },
    Stats,
    Shutdown,
}

/// One command, its arguments read. Texts are borrowed from the line; the data of a chunk is base64 that was not
/// decoded yet.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the command of its name in the table")]
pub enum Request<'a> {
    Help { verb: Option<Cow<'a, str>> },
    Ping { text: Option<&'a str> },
    Version,
    Whoami,
    Quit,
    Register { user: UserName, password: Password, invite: Option<Password> },
    Login { user: UserName, password: Option<Password>, takeover: bool },
    Logout,
    Passwd { old: Password, new: Password },
    Unregister { password: Password },
    Token { name: Option<Label> },
    Tokens,
    Revoke { name: Label },
    CertAdd,
    CertList,
    CertDrop { sha256: Option<[u8; 32]> },
    Profile { user: Option<UserName> },
    ProfileSet(ProfileChange),
    Users { glob: Option<Cow<'a, str>>, after: Option<UserName> },
    Who { target: Target },
    Watch { users: Vec<UserName> },
    Unwatch { users: Vec<UserName> },
    Away { text: Option<&'a str> },
    Back,
    Typing { target: Target },
    Create { room: RoomName, private: bool, e2e: bool, topic: Option<&'a str> },
    Join { room: RoomName },
    Leave { room: RoomName, reason: Option<&'a str> },
    Rooms { glob: Option<Cow<'a, str>>, after: Option<RoomName> },
    Members { room: RoomName },
    Moderate { act: Act, room: RoomName, user: UserName, reason: Option<&'a str> },
    Topic { room: RoomName, text: Option<&'a str> },
    To { target: Target },
    Msg { targets: Vec<Addressee<'a>>, body: &'a str },
    Post { target: Target, key: PostKey, body: &'a str },
    FetchUnread,
    Fetch { target: Target, bound: Bound, limit: Option<u64> },
    Unread { all: bool },
    Ack { target: Target, id: u64 },
    AckMode { manual: bool },
    AckSignal { id: u64 },
    Receipts { on: bool },
    Signal { user: UserName, body: &'a str },
    Signals { after: u64 },
    SendFile { target: Target, name: FileName, size: u64, sha256: [u8; 32] },
    Chunk { file: FileId, offset: u64, data: &'a str },
    GetFile { file: FileId, offset: u64, length: u64 },
    Files { target: Option<Target>, after: FileId, sha256: Option<[u8; 32]> },
    DropFile { file: FileId },
    KeysPut(KeyUpload),
    KeysGet { user: UserName, device: Option<DeviceName>, only_certificates: bool },
    KeysStatus,
    Roster { room: RoomName, after: u32 },
    RosterAdd { room: RoomName, epoch: u32, entry: Vec<u8> },
    Admin(Admin<'a>),
}

/// Why a line is no [`Request`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// No command of that name.
    #[error("unknown command; /help lists them")]
    UnknownCommand,
    /// The line does not have the command's form.
    #[error("{0}")]
    Syntax(String),
    /// A name that is none.
    #[error(transparent)]
    Name(#[from] NameInvalid),
    /// More of something than the limit that is named.
    #[error("at most {0} {1}")]
    TooMany(usize, &'static str),
}

fn syntax(text: impl Into<String>) -> ParseError {
    ParseError::Syntax(text.into())
}

/// A line, as far as it can be read without knowing who sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sentence<'a> {
    /// Nothing but spaces.
    Blank,
    /// What does not begin with a slash, or the rest of what begins with two.
    Text(&'a str),
    /// A command of the table.
    Command(Command<'a>),
    /// A line that cannot be answered otherwise.
    Fault(Head, ParseError),
}

/// A command whose arguments were not read yet, so that it can be refused without looking at them.
#[derive(Debug, Clone)]
pub struct Command<'a> {
    /// Its row in the table.
    pub verb: &'static Verb,
    /// Its label, if any.
    pub label: Option<Label>,
    rest: &'a str,
}

impl PartialEq for Command<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.verb.name == other.verb.name && self.label == other.label && self.rest == other.rest
    }
}

impl Eq for Command<'_> {}

/// Longest verb that is echoed in an error.
const VERB_MAX: usize = 32;

impl<'a> Sentence<'a> {
    /// Looks at the beginning of a line without its ending.
    pub fn read(line: &'a str) -> Sentence<'a> {
        let unspaced = line.trim_start_matches(' ');
        if unspaced.is_empty() {
            return Sentence::Blank;
        }
        let Some(command) = line.strip_prefix('/') else {
            if unspaced.len() < line.len() && unspaced.starts_with('/') {
                // Very likely a command, and perhaps one with a password: not for others' eyes.
                let head = Head { verb: Cow::Borrowed("msg"), label: None };
                return Sentence::Fault(head, syntax("remove the leading space, or use /msg"));
            }
            return Sentence::Text(line);
        };
        if command.starts_with('/') {
            return Sentence::Text(command);
        }
        let (word, rest) = command.split_at(command.find(' ').unwrap_or(command.len()));
        let (name, label) = match word.split_once('@') {
            Some((name, label)) => (name, Some(label)),
            None => (word, None),
        };
        let readable =
            (1..=VERB_MAX).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphabetic() || b == b'-');
        let name = if readable { name.to_ascii_lowercase() } else { "*".to_owned() };
        let known = verb::find(&name);
        let verb = known.map_or(Cow::Owned(name), |verb| Cow::Borrowed(verb.name));
        let read_label = label.map(Label::parse);
        let head = Head { verb, label: read_label.clone().flatten() };
        match (known, read_label) {
            (None, _) => Sentence::Fault(head, ParseError::UnknownCommand),
            (Some(_), Some(None)) => Sentence::Fault(head, syntax("a label is 1 to 64 of A-Z a-z 0-9 . _ -")),
            (Some(verb), label) => Sentence::Command(Command { verb, label: label.flatten(), rest }),
        }
    }
}

/// Reads a whole line as a request; bare text, blank lines and faults are `None`.
///
/// # Errors
/// What is wrong with a known command's arguments.
pub fn parse(line: &str) -> Option<Result<Request<'_>, ParseError>> {
    match Sentence::read(line) {
        Sentence::Command(command) => Some(command.request()),
        Sentence::Blank | Sentence::Text(_) | Sentence::Fault(..) => None,
    }
}

impl<'a> Command<'a> {
    /// Which command a reply belongs to.
    pub fn head(&self) -> Head {
        Head { verb: Cow::Borrowed(self.verb.name), label: self.label.clone() }
    }

    /// Reads the arguments.
    ///
    /// # Errors
    /// What is wrong with them, in words for the person who typed them.
    pub fn request(&self) -> Result<Request<'a>, ParseError> {
        let mut args = Args::read(self.verb, self.rest)?;
        Ok(match self.verb.name {
            "help" => Request::Help { verb: args.take() },
            "ping" => Request::Ping { text: args.body },
            "version" => Request::Version,
            "whoami" => Request::Whoami,
            "quit" => Request::Quit,
            "register" => Request::Register {
                user: args.user()?,
                password: args.password()?,
                invite: args.take().map(|code| Password::new(&code)),
            },
            "login" | "takeover" => Request::Login {
                user: args.user()?,
                password: args.take().map(|password| Password::new(&password)),
                takeover: self.verb.name == "takeover",
            },
            "logout" => Request::Logout,
            "passwd" => Request::Passwd { old: args.password()?, new: args.password()? },
            "unregister" => Request::Unregister { password: args.password()? },
            "token" => Request::Token { name: args.take().map(|name| token_name(&name)).transpose()? },
            "tokens" => Request::Tokens,
            "revoke" => Request::Revoke { name: token_name(&args.next()?)? },
            "cert" => cert(&mut args)?,
            "profile" => profile(&mut args)?,
            "users" => Request::Users { glob: args.take(), after: args.option("after", UserName::parse)? },
            "who" => Request::Who { target: args.target()? },
            "watch" => Request::Watch { users: args.users()? },
            "unwatch" => Request::Unwatch { users: args.users()? },
            "away" => Request::Away { text: args.text()? },
            "back" => Request::Back,
            "typing" => Request::Typing { target: args.target()? },
            "create" => create(&mut args)?,
            "join" => Request::Join { room: args.room()? },
            "leave" => Request::Leave { room: args.room()?, reason: args.text()? },
            "rooms" => Request::Rooms { glob: args.take(), after: args.option("after", RoomName::parse)? },
            "members" => Request::Members { room: args.room()? },
            "invite" => moderate(Act::Invite, &mut args)?,
            "kick" => moderate(Act::Kick, &mut args)?,
            "ban" => moderate(Act::Ban, &mut args)?,
            "unban" => moderate(Act::Unban, &mut args)?,
            "op" => moderate(Act::Op, &mut args)?,
            "deop" => moderate(Act::Deop, &mut args)?,
            "topic" => Request::Topic { room: args.room()?, text: args.text()? },
            "to" => Request::To { target: args.target()? },
            "msg" => Request::Msg { targets: addressees(args.next()?)?, body: message_body(args.body)? },
            "post" => Request::Post {
                target: args.target()?,
                key: PostKey::parse(&args.next()?).ok_or_else(|| {
                    let (least, most) = (POST_KEY_LEN.start(), POST_KEY_LEN.end());
                    syntax(format!("a key is {least} to {most} of A-Z a-z 0-9 . _ -"))
                })?,
                body: message_body(args.body)?,
            },
            "fetch" => fetch(&mut args)?,
            "unread" => match args.take().as_deref() {
                None => Request::Unread { all: false },
                Some(word) if word.eq_ignore_ascii_case("all") => Request::Unread { all: true },
                Some(_) => return Err(args.usage()),
            },
            "ack" => ack(&mut args)?,
            "receipts" => match args.next()?.to_ascii_lowercase().as_str() {
                "on" => Request::Receipts { on: true },
                "off" => Request::Receipts { on: false },
                _ => return Err(args.usage()),
            },
            "signal" => Request::Signal { user: args.user()?, body: message_body(args.body)? },
            "signals" => Request::Signals { after: args.number("after")?.unwrap_or(0) },
            "send-file" => send_file(&mut args)?,
            "chunk" => chunk(&mut args)?,
            "get-file" => get_file(&mut args)?,
            "files" => files(&mut args)?,
            "drop-file" => drop_file(&mut args)?,
            "keys" => keys(&mut args)?,
            "roster" => Request::Roster { room: args.room()?, after: epoch(args.number("after")?.unwrap_or(0)) },
            "roster-add" => roster_add(&mut args)?,
            "admin" => Request::Admin(admin(self.rest)?),
            _ => return Err(ParseError::UnknownCommand), // not reached: a test reads every row of the table
        })
    }
}

fn token_name(text: &str) -> Result<Label, ParseError> {
    Label::parse(text).ok_or_else(|| syntax("a token's name is 1 to 64 of A-Z a-z 0-9 . _ -"))
}

/// A body of a message, whose limit is smaller than what a line can hold.
///
/// # Errors
/// Too long, or missing.
pub fn message_body(body: Option<&str>) -> Result<&str, ParseError> {
    let body = body.ok_or_else(|| syntax("a message needs a text"))?;
    if body.len() > MAX_BODY { Err(ParseError::TooMany(MAX_BODY, "bytes in a message")) } else { Ok(body) }
}

fn addressees(list: Cow<'_, str>) -> Result<Vec<Addressee<'_>>, ParseError> {
    let Cow::Borrowed(list) = list else {
        // Names need no escapes: a quoted one that has some is none.
        return Err(NameInvalid { max: super::name::USER_NAME_MAX }.into());
    };
    let (Some(first), more) = (list.split(',').next(), list.contains(',')) else {
        return Err(syntax("a message needs a target"));
    };
    if !more {
        return Ok(vec![Addressee::Target(Target::parse(first)?)]);
    }
    if list.split(',').count() > MAX_TARGETS {
        return Err(ParseError::TooMany(MAX_TARGETS, "targets"));
    }
    list.split(',')
        .map(|name| match Target::parse(name) {
            Ok(target) => Ok(Addressee::Target(target)),
            Err(_) if name.is_empty() => Err(syntax("a name is missing between two commas")),
            // It is echoed as one word of a row.
            Err(error) if name.contains(char::is_whitespace) || name.contains(char::is_control) => Err(error.into()),
            Err(error) => Ok(Addressee::Invalid(name, error)),
        })
        .collect()
}

fn cert<'a>(args: &mut Args<'a>) -> Result<Request<'a>, ParseError> {
    let word = args.next()?.to_ascii_lowercase();
    let sha256 = args.take();
    match (word.as_str(), sha256) {
        ("add", None) => Ok(Request::CertAdd),
        ("list", None) => Ok(Request::CertList),
        ("drop", None) => Ok(Request::CertDrop { sha256: None }),
        ("drop", Some(hex)) => {
            let sha256 = parse_hex(&hex).ok_or_else(|| syntax("a fingerprint is 64 hexadecimal digits"))?;
            Ok(Request::CertDrop { sha256: Some(sha256) })
        }
        _ => Err(args.usage()),
    }
}

/// 64 hexadecimal digits, with or without the colons that `openssl x509 -fingerprint` prints.
fn parse_hex(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|&c| c != ':')
        .map(|c| c.to_digit(16).and_then(|d| d.try_into().ok()))
        .collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect();
    if digits.len() == 64 { bytes.try_into().ok() } else { None }
}

/// Longest part of a profile, in bytes.
pub const PROFILE_PART_MAX: usize = 1024;

fn profile<'a>(args: &mut Args<'a>) -> Result<Request<'a>, ParseError> {
    let word = args.take();
    if !word.as_ref().is_some_and(|word| word.eq_ignore_ascii_case("set")) {
        if !args.options.is_empty() {
            return Err(args.usage());
        }
        let user = word.map(|name| UserName::parse(&name)).transpose()?;
        return Ok(Request::Profile { user });
    }
    if args.options.is_empty() {
        return Err(args.usage());
    }
    let part = |key| match args.options.iter().find(|(name, _)| *name == key) {
        Some((_, value)) if value.len() > PROFILE_PART_MAX => {
            Err(ParseError::TooMany(PROFILE_PART_MAX, "bytes in a part of a profile"))
        }
        Some((_, value)) => Ok(Some(value.clone().into_owned())),
        None => Ok(None),
    };
    let show = part("show")?.map(|text| Show::parse(&text).ok_or_else(|| syntax("show is all, rooms or none")));
    let change =
        ProfileChange { name: part("name")?, email: part("email")?, note: part("note")?, show: show.transpose()? };
    Ok(Request::ProfileSet(change))
}

fn create<'a>(args: &mut Args<'a>) -> Result<Request<'a>, ParseError> {
    let room = args.room()?;
    let (mut private, mut e2e) = (false, false);
    while let Some(word) = args.take() {
        match word.to_ascii_lowercase().as_str() {
            "private" if !private => private = true,
            "e2e" if !e2e => e2e = true,
            _ => return Err(args.usage()),
        }
    }
    Ok(Request::Create { room, private, e2e, topic: args.text()? })
}

fn moderate<'a>(act: Act, args: &mut Args<'a>) -> Result<Request<'a>, ParseError> {
    Ok(Request::Moderate { act, room: args.room()?, user: args.user()?, reason: args.text()? })
}

fn fetch<'a>(args: &mut Args<'a>) -> Result<Request<'a>, ParseError> {
    let Some(target) = args.take() else {
        return if args.options.is_empty() { Ok(Request::FetchUnread) } else { Err(args.usage()) };
    };
    let target = Target::parse(&target)?;
    let bound = match (args.number("after")?, args.number("before")?) {
        (None, None) => Bound::Newest,
        (Some(id), None) => Bound::After(id),
        (None, Some(id)) => Bound::Before(id),
        (Some(_), Some(_)) => return Err(syntax("after= and before= exclude each other")),
    };
    let limit = args.number("limit")?;
    if limit == Some(0) {
        return Err(syntax("limit= is at least 1"));
    }
    Ok(Request::Fetch { target, bound, limit })
}

fn ack<'a>(args: &mut Args<'a>) -> Result<Request<'a>, ParseError> {
    let word = args.next()?;
    let Some(id) = args.take() else {
        return match word.to_ascii_lowercase().as_str() {
            "auto" => Ok(Request::AckMode { manual: false }),
            "manual" => Ok(Request::AckMode { manual: true }),
            _ => Err(args.usage()),
        };
    };
    let number = args::number(&id).ok_or_else(|| syntax("an ID is a decimal number"));
    if word.eq_ignore_ascii_case("signals") {
        return Ok(Request::AckSignal { id: number? });
    }
    Ok(Request::Ack { target: Target::parse(&word)?, id: number? })
}

fn admin(rest: &str) -> Result<Admin<'_>, ParseError> {
    let rest = rest.trim_start_matches(' ');
    let (word, rest) = rest.split_at(rest.find(' ').unwrap_or(rest.len()));
    let Some(row) = verb::find_admin(&word.to_ascii_lowercase()) else {
        return Err(syntax("no such /admin command; /help admin lists them"));
    };
    let mut args = Args::read(row, rest).map_err(|error| match error {
        ParseError::Syntax(text) => syntax(text.replacen("usage: /", "usage: /admin ", 1)),
        other => other,
    })?;
    Ok(match row.name {
        "users" => Admin::Users { glob: args.take(), after: args.option("after", UserName::parse)? },
        "sessions" => Admin::Sessions { user: args.take().map(|name| UserName::parse(&name)).transpose()? },
        "kick" => Admin::Kick { user: args.user()?, reason: args.text()? },
        "ban" => Admin::Ban { whom: args.next()? },
        "unban" => Admin::Unban { whom: args.next()? },
        "invite" => Admin::Invite,
        "notice" => Admin::Notice {
            to: args.option("to", UserName::parse)?,
            text: args.text()?.ok_or_else(|| syntax("a notice needs a text"))?,
        },
        "stats" => Admin::Stats,
        "shutdown" => Admin::Shutdown,
        _ => return Err(ParseError::UnknownCommand), // not reached: a test reads every row of the table
    })
}

#[cfg(test)]
mod tests;

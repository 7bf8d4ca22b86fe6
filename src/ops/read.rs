//! Reads, and what they found.

use super::{
    AccountId, Behind, ConversationId, Credentials, DeviceCertificates, FilePart, FileRow, FilesWanted, MessageId,
    Page, Person, Pools, RoomInfo, RosterPage, Sha256, Signal,
};
use crate::protocol::{DeviceName, FileId, RoomName, Show, Target, Timestamp, UserName};

/// A range of a log, bounds exclusive at `after`, inclusive at `upto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// Which log.
    pub conversation: ConversationId,
    /// From the message behind this one.
    pub after: MessageId,
    /// To this one.
    pub upto: MessageId,
}

/// Which page of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// The newest.
    Newest,
    /// The first behind this id.
    After(MessageId),
    /// The last in front of this id.
    Before(MessageId),
}

/// A read.
#[derive(Debug, Clone)]
pub enum Query {
    /// → [`Answer::Credentials`]; `None` for an account that does not exist or was erased.
    Credentials(UserName),
    /// Which of these accounts exist. → [`Answer::People`], those that do.
    People(Vec<UserName>),
    /// → [`Answer::Users`]: accounts by name, at most `limit`.
    Users {
        /// A pattern with `*`, `?` and `[…]`.
        glob: Option<String>,
        /// Names behind this one.
        after: Option<UserName>,
        /// At most so many.
        limit: usize,
    },
    /// → [`Answer::Profile`]; `NoSuchUser`, `Forbidden` (it exists, but not for this viewer's eyes).
    Profile {
        /// Who looks.
        viewer: AccountId,
        /// At whom.
        subject: UserName,
    },
    /// → [`Answer::Tokens`]
    Tokens(AccountId),
    /// → [`Answer::Certificates`]
    Certificates(AccountId),
    /// Rooms that the account may see, by name. → [`Answer::Rooms`]
    Rooms {
        /// Who looks.
        account: AccountId,
        /// A pattern with `*`, `?` and `[…]` on the name with its `#`.
        glob: Option<String>,
        /// Names behind this one.
        after: Option<RoomName>,
        /// At most so many.
        limit: usize,
    },
    /// → [`Answer::Members`] by name; `NoSuchRoom`.
    Members {
        /// Who looks.
        account: AccountId,
        /// At which room.
        room: RoomName,
    },
    /// → [`Answer::Topic`]; `NoSuchRoom`, `NotMember`.
    Topic {
        /// Who looks.
        account: AccountId,
        /// At which room.
        room: RoomName,
    },
    /// A page of one log, rising. → [`Answer::Page`] of rows; `NoSuchUser`, `NoSuchRoom`, `NotMember`.
    Page {
        /// Who reads.
        account: AccountId,
        /// The room, or the other person.
        target: Target,
        /// Which page.
        bound: Bound,
        /// At most so many messages.
        limit: usize,
        /// At most so many bytes of encoded rows (counted as body + 160), but at least one message.
        max_bytes: usize,
    },
    /// Unread messages of all conversations by time, conversation, id. → [`Answer::Page`] of rows
    Unread {
        /// Who reads.
        account: AccountId,
        /// At most so many messages.
        limit: usize,
        /// As in [`Query::Page`].
        max_bytes: usize,
    },
    /// → [`Answer::UnreadRows`] by target.
    UnreadCounts {
        /// Who reads.
        account: AccountId,
        /// Also conversations with nothing unread.
        all: bool,
    },
    /// What a login is told: unread messages within `behind`, oldest first. → [`Answer::Arrival`]
    Arrival {
        /// Who reads.
        account: AccountId,
        /// From [`super::SessionOpened::behind`]: nothing behind `last` counts.
        behind: Vec<Behind>,
        /// At most so many messages; the rest becomes rows.
        limit: usize,
        /// As in [`Query::Page`].
        max_bytes: usize,
    },
    /// What a session that fell behind did not get, by time, conversation, id: a prefix of each range.
    /// → [`Answer::Page`] of events
    Backlog {
        /// The ranges.
        ranges: Vec<Range>,
        /// As in [`Query::Page`].
        max_bytes: usize,
    },
    /// → [`Answer::DeviceCertificates`]; `NoSuchUser`, `NotFound` (no such device).
    DeviceCertificates {
        /// Whose.
        subject: UserName,
        /// Only of this device.
        device: Option<DeviceName>,
    },
    /// The pools of each device of an account. → [`Answer::Pools`]
    Pools(AccountId),
    /// Waiting signals, by number. → [`Answer::Signals`]
    Signals {
        /// Whose.
        account: AccountId,
        /// Behind this number.
        after: u64,
        /// At most so many.
        limit: usize,
        /// As in [`Query::Page`].
        max_bytes: usize,
    },
    /// A page of a roster. → [`Answer::Roster`]; `NoSuchRoom`, `NotMember`, `Forbidden` (no end-to-end room).
    Roster {
        /// Who reads.
        account: AccountId,
        /// Which room.
        room: RoomName,
        /// Behind this place.
        after: u32,
        /// At most so many.
        limit: usize,
        /// As in [`Query::Page`], with the entries' length in base64.
        max_bytes: usize,
    },
    /// → [`Answer::Accounts`]: for `/admin users`, by name.
    Accounts {
        /// A pattern with `*`, `?` and `[…]`.
        glob: Option<String>,
        /// Names behind this one.
        after: Option<UserName>,
        /// At most so many.
        limit: usize,
    },
    /// A piece of a file. → [`Answer::FilePart`]; `NotFound` (no such file, one that is not whole or gone, or
    /// not for the account's eyes), `Offset` (the file ends there). Answered in an order of their own.
    FilePart {
        /// Who reads.
        account: AccountId,
        /// Which.
        file: FileId,
        /// From here; its size is an end without rows.
        offset: u64,
        /// At most so many bytes, at least 1.
        length: u64,
    },
    /// Files by number. → [`Answer::Files`]; `NoSuchUser`, `NoSuchRoom`, `NotMember`.
    Files(FilesWanted),
    /// → [`Answer::Totals`]
    Totals,
}

/// What a read found.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "each answers the query of its name")]
pub enum Answer {
    Credentials(Option<Credentials>),
    People(Vec<(Person, Timestamp)>),
    Users { rows: Vec<Person>, more: bool },
    Profile(Profile),
    Tokens(Vec<TokenRow>),
    Certificates(Vec<Sha256>),
    Rooms { rows: Vec<RoomRow>, more: bool },
    Members(Vec<MemberRow>),
    Topic(Option<String>),
    Page(Page),
    UnreadRows(Vec<UnreadRow>),
    Arrival(Arrival),
    DeviceCertificates(DeviceCertificates),
    Pools(Vec<Pools>),
    Signals { rows: Vec<Signal>, more: bool },
    Roster(RosterPage),
    Accounts { rows: Vec<AccountRow>, more: bool },
    FilePart(FilePart),
    Files { rows: Vec<FileRow>, more: bool },
    Totals(Totals),
}

/// A profile, as far as the viewer may see it; empty texts are unset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the key of its name in /profile")]
pub struct Profile {
    pub name: String,
    pub email: String,
    pub note: String,
    pub show: Show,
}

/// A row of `/tokens`.
#[derive(Debug, Clone)]
pub struct TokenRow {
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created: Timestamp,
    /// When it was last used, if ever.
    pub used: Option<Timestamp>,
}

/// A row of `/rooms`.
#[derive(Debug, Clone)]
pub struct RoomRow {
    /// The room.
    pub room: RoomInfo,
    /// How many members it has.
    pub members: u64,
    /// Whether who looks is one of them.
    pub joined: bool,
    /// Its topic, if any.
    pub topic: Option<String>,
}

/// What a member may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Speak and read.
    Member,
    /// Also invite, kick, ban, name and demote operators, set the topic.
    Operator,
    /// The same, and nobody can kick, ban or demote them.
    Owner,
}

/// A row of `/members`.
#[derive(Debug, Clone)]
pub struct MemberRow {
    /// Who.
    pub person: Person,
    /// What they may do.
    pub role: Role,
    /// When they were last there (for `/who`).
    pub last_seen: Timestamp,
}

/// A conversation's unread messages: those behind the marker that others sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadRow {
    /// Which.
    pub conversation: ConversationId,
    /// The room, or the other person.
    pub target: Target,
    /// How many; 0 only with [`Query::UnreadCounts::all`].
    pub count: u64,
    /// The first of them, or with `count` 0 the marker.
    pub first: MessageId,
    /// The last of them, or with `count` 0 the last message there is.
    pub last: MessageId,
}

/// What a login is told.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// How many unread messages there are in all.
    pub unread: u64,
    /// The oldest of them, in the form [`Form::Missed`](super::Form::Missed).
    pub page: Page,
    /// For each conversation that has more than is in `entries`: the rest.
    pub rest: Vec<UnreadRow>,
}

/// A row of `/admin users` and `downstream user list`.
#[derive(Debug, Clone)]
pub struct AccountRow {
    /// Who.
    pub person: Person,
    /// May use `/admin`.
    pub admin: bool,
    /// Banned by `/admin ban`.
    pub banned: bool,
    /// Disabled by the operator on the machine.
    pub disabled: bool,
    /// When it was made.
    pub created: Timestamp,
    /// When it was last there.
    pub last_seen: Timestamp,
}

/// Sizes for `/admin stats`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Accounts that are not erased.
    pub accounts: u64,
    /// Rooms.
    pub rooms: u64,
    /// Messages in all logs.
    pub messages: u64,
    /// Files that are whole and still there.
    pub files: u64,
    /// Their bytes, and those that uploads have announced.
    pub file_bytes: u64,
    /// Bytes of the database file.
    pub database_bytes: u64,
}

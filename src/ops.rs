//! What the core may ask of a store and of the password hasher: plain data, no SQL, no engine.
//!
//! Writes ([`Op`]) are applied one after the other, in the order in which they were submitted, and are
//! answered in that order once they are on stable storage; each stands or falls alone. Reads
//! ([`Query`]) run beside them on a snapshot that holds at least everything answered before. Rules that
//! hold between records (who may kick whom, who inherits a room) are checked by the store inside the
//! write, so that two commands in one batch cannot both win; what the core keeps in memory is only a
//! mirror of what it was told here.

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::protocol::{PostKey, RoomName, Target, Timestamp, UserName};

/// An account's key in the store; never shown to anybody and never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountId(pub i64);

/// A conversation's key in the store. A room and its log share one; a direct conversation has one for
/// each pair of people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConversationId(pub i64);

/// A message's number in its conversation: from 1, rising by one. 0 stands for "before the first".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct MessageId(pub u64);

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An account as others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// Its key.
    pub id: AccountId,
    /// Its name.
    pub name: UserName,
}

/// Names one request to the store or the hasher, so that the answer finds who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

// ---- credentials -------------------------------------------------------------------------------

/// What is kept of a password: Argon2id (RFC 9106) with these parameters, keyed with the server's
/// secret. Not shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub iterations: u32,
    /// Lanes.
    pub parallelism: u32,
    /// Random salt.
    pub salt: [u8; 16],
    /// The tag.
    pub hash: [u8; 32],
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier(..)")
    }
}

/// A password on its way to the hasher. Wiped when dropped, not shown by `Debug`.
#[derive(Clone)]
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

/// SHA-256 of a token, an invitation code or a client certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sha256(pub [u8; 32]);

/// Work for the password hasher.
#[derive(Debug, Clone)]
pub enum HashOp {
    /// Makes a verifier for a new password.
    Create(Password),
    /// Compares a password with a verifier. `None` costs the same and never matches: it stands for an
    /// account that does not exist.
    Verify(Password, Option<Verifier>),
}

/// The hasher's answer.
#[derive(Debug, Clone)]
pub enum HashDone {
    /// To [`HashOp::Create`].
    Created(Verifier),
    /// To [`HashOp::Verify`].
    Verified {
        /// Whether the password is the right one.
        matches: bool,
        /// A verifier with today's parameters, where the password matches and the old one has others.
        upgraded: Option<Verifier>,
    },
    /// Out of memory or randomness; the command is answered `internal`.
    Failed,
}

/// How a login proved whose it is; checked again inside the write that opens the session.
#[derive(Debug, Clone)]
pub enum Proof {
    /// The password matched the verifier of this [`Credentials::epoch`].
    Password {
        /// See [`Credentials::epoch`]: a password changed meanwhile refuses the login.
        epoch: i64,
        /// Replaces the verifier.
        upgraded: Option<Verifier>,
    },
    /// A token with this hash.
    Token(Sha256),
    /// The client certificate of the connection.
    Certificate(Sha256),
}

/// What a login by password needs to know.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The account.
    pub account: AccountId,
    /// What to compare the password with.
    pub verifier: Verifier,
    /// Rises with each change of the password.
    pub epoch: i64,
}

// ---- writes ------------------------------------------------------------------------------------

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

/// The parts of a profile; `None` leaves one as it is, an empty text removes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the key of its name in /profile")]
pub struct ProfileChange {
    pub name: Option<String>,
    pub email: Option<String>,
    pub note: Option<String>,
    pub show: Option<Show>,
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

/// An address or a network (prefix length in bits) that may not connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AddressBlock {
    /// The address, host bits zero.
    pub address: std::net::IpAddr,
    /// Bits that count: at most 32 or 128.
    pub prefix: u8,
}

/// A write. Every one is durable before it is answered with [`Done`].
#[derive(Debug, Clone)]
pub enum Op {
    /// Makes an account. → [`Outcome::Registered`]; `NameTaken`, `RegistrationClosed` (a code that is
    /// unknown, used or expired).
    Register {
        /// The wanted name; a name once used is never free again.
        name: UserName,
        /// The new password's verifier.
        verifier: Verifier,
        /// The hash of an invitation code to use up; `None` where registration is open.
        invite: Option<Sha256>,
    },
    /// Checks a proof and tells what a new session must know. → [`Outcome::SessionOpened`];
    /// `AuthFailed` (no such account, proof does not hold), `Banned` (the proof holds, but the account is
    /// banned or disabled).
    OpenSession {
        /// The account's name.
        name: UserName,
        /// What was proven.
        proof: Proof,
    },
    /// Remembers when an account was last there. → [`Outcome::Nothing`]
    SeenLast {
        /// Whose last session ended.
        account: AccountId,
    },
    /// Replaces the password and ends every token. → [`Outcome::Nothing`]; `AuthFailed` where the
    /// epoch is no longer the account's.
    ChangePassword {
        /// Whose.
        account: AccountId,
        /// See [`Credentials::epoch`].
        epoch: i64,
        /// The new verifier.
        verifier: Verifier,
    },
    /// Erases an account: verifier, profile, tokens, certificates, memberships, invitations and
    /// markers. The name stays taken, what was said stays in the logs of those who heard it.
    /// → [`Outcome::Unregistered`]; `AuthFailed`.
    Unregister {
        /// Whose.
        account: AccountId,
        /// See [`Credentials::epoch`].
        epoch: i64,
    },
    /// Adds a token. → [`Outcome::TokenNamed`]; `NameTaken`, `Quota`.
    AddToken {
        /// Whose.
        account: AccountId,
        /// Its name; `None` takes the next free `token-N`.
        name: Option<String>,
        /// SHA-256 of the token's text.
        hash: Sha256,
    },
    /// Removes a token. → [`Outcome::Nothing`]; `NotFound`.
    DropToken {
        /// Whose.
        account: AccountId,
        /// Its name.
        name: String,
    },
    /// Binds a client certificate. → [`Outcome::Nothing`], also where it is bound already; `Quota`.
    AddCertificate {
        /// Whose.
        account: AccountId,
        /// SHA-256 of the certificate's DER.
        certificate: Sha256,
    },
    /// Unbinds a client certificate. → [`Outcome::Nothing`]; `NotFound`.
    DropCertificate {
        /// Whose.
        account: AccountId,
        /// SHA-256 of the certificate's DER.
        certificate: Sha256,
    },
    /// Changes a profile. → [`Outcome::Nothing`]
    SetProfile {
        /// Whose.
        account: AccountId,
        /// What changes.
        change: ProfileChange,
    },
    /// Turns read receipts on or off. → [`Outcome::Nothing`]
    SetReceipts {
        /// Whose.
        account: AccountId,
        /// Wanted.
        on: bool,
    },
    /// Makes a room with its creator as owner and member. → [`Outcome::Joined`]; `NameTaken` (an open
    /// room, or a private one that the account may see), `Forbidden` (a private room of others),
    /// `Quota`.
    CreateRoom {
        /// Who makes it.
        account: AccountId,
        /// Its name.
        room: RoomName,
        /// Only by invitation, invisible to strangers.
        private: bool,
        /// Only end-to-end envelopes.
        e2e: bool,
        /// Its topic, if any.
        topic: Option<String>,
    },
    /// Enters a room, making an open one where none is. The first to enter an empty room owns it.
    /// → [`Outcome::Joined`]; `Banned`, `Forbidden` (private and not invited), `Quota`.
    JoinRoom {
        /// Who enters.
        account: AccountId,
        /// Which.
        room: RoomName,
    },
    /// Leaves a room. → [`Outcome::RoomChanged`] with the heir where the last owner left;
    /// `NoSuchRoom`, `NotMember`.
    LeaveRoom {
        /// Who leaves.
        account: AccountId,
        /// Which.
        room: RoomName,
    },
    /// Does something to a person in a room. → [`Outcome::RoomChanged`]; `NoSuchRoom`, `NotMember`
    /// (the actor), `Forbidden`, `NoSuchUser`, `SubjectNotMember`, `NotFound` (no such ban), `Quota`,
    /// `Banned` (an invitation for somebody banned).
    Moderate {
        /// Who acts.
        actor: AccountId,
        /// Where.
        room: RoomName,
        /// What.
        act: Act,
        /// To whom.
        subject: UserName,
    },
    /// Sets a topic; an empty text removes it. → [`Outcome::RoomChanged`]; `NoSuchRoom`, `NotMember`,
    /// `Forbidden`.
    SetTopic {
        /// Who acts.
        actor: AccountId,
        /// Where.
        room: RoomName,
        /// The new text.
        topic: String,
    },
    /// Appends one message to the log of each target. → [`Outcome::Appended`] with one result a target,
    /// in order: `NoSuchUser`, `NoSuchRoom`, `NotMember`, `E2eRequired`, `Conflict` (with a key).
    Append {
        /// Who speaks.
        sender: Person,
        /// To whom; at least one.
        targets: Vec<Target>,
        /// The text.
        body: Arc<str>,
        /// Makes the append happen once in 24 h: the same key with the same target and body answers the
        /// first message again. Only with a single target.
        key: Option<PostKey>,
    },
    /// Moves a read marker up, never down; an id above the last counts as the last.
    /// → [`Outcome::Acked`]; `NoSuchUser`, `NoSuchRoom`, `NotMember`, `NotFound` (no such conversation).
    Ack {
        /// Whose marker.
        account: AccountId,
        /// The room, or the other person.
        target: Target,
        /// Up to here.
        id: MessageId,
    },
    /// Moves markers as a session in auto mode has read. Conversations that are gone are passed over.
    /// → [`Outcome::Acked`]
    AutoAck {
        /// Whose markers.
        account: AccountId,
        /// Conversation and the id up to which everything was read.
        marks: Vec<(ConversationId, MessageId)>,
    },
    /// Bans or unbans an account for the whole server. → [`Outcome::Account`]; `NoSuchUser`.
    BanAccount {
        /// Who.
        subject: UserName,
        /// Ban or lift.
        banned: bool,
    },
    /// Bans or unbans an address for the whole server. → [`Outcome::Nothing`]; `NotFound`, `Quota`.
    BanAddress {
        /// Which.
        block: AddressBlock,
        /// Ban or lift.
        banned: bool,
    },
    /// Stores a single-use invitation code that ends after [`INVITE_LIFE_MS`]. → [`Outcome::Nothing`];
    /// `Quota`.
    AddInvite {
        /// SHA-256 of the code's text.
        code: Sha256,
    },
    /// Deletes a bounded piece of what has outlived its time. → [`Outcome::Swept`]
    Sweep {
        /// Messages older than this go, and with them rooms empty since before it; `None` keeps them.
        messages_before: Option<Timestamp>,
    },
}

/// How long an invitation code can be used: 7 days.
pub const INVITE_LIFE_MS: u64 = 7 * 24 * 3600 * 1000;
/// How long the key of a `/post` is remembered: 24 hours.
pub const POST_KEY_LIFE_MS: u64 = 24 * 3600 * 1000;

/// What a write did.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// Done, and there is nothing more to say.
    Nothing,
    /// To [`Op::Register`].
    Registered(AccountId),
    /// To [`Op::OpenSession`].
    SessionOpened(Box<SessionOpened>),
    /// To [`Op::Unregister`]: the rooms that were left.
    Unregistered(Vec<RoomChange>),
    /// To [`Op::AddToken`].
    TokenNamed(String),
    /// To [`Op::CreateRoom`] and [`Op::JoinRoom`].
    Joined(Joined),
    /// To [`Op::LeaveRoom`], [`Op::Moderate`] and [`Op::SetTopic`].
    RoomChanged(RoomChange),
    /// To [`Op::Append`]: one a target, in order.
    Appended(Vec<Result<Appended, Refused>>),
    /// To [`Op::Ack`] and [`Op::AutoAck`]: the markers that moved or (for `Ack`) where the one is.
    Acked(Vec<Acked>),
    /// To [`Op::BanAccount`].
    Account(Person),
    /// To [`Op::Sweep`].
    Swept {
        /// Whether there is more to delete at once.
        more: bool,
    },
}

/// What a new session must know; consistent with everything answered before and nothing after.
#[derive(Debug, Clone)]
pub struct SessionOpened {
    /// The account.
    pub account: AccountId,
    /// May use `/admin`.
    pub admin: bool,
    /// Has read receipts on.
    pub receipts: bool,
    /// The rooms it is a member of.
    pub rooms: Vec<RoomInfo>,
    /// Conversations whose log goes on after the account's marker.
    pub behind: Vec<Behind>,
    /// Rooms that invited it and that it has not entered, with who invited.
    pub invitations: Vec<(RoomName, UserName)>,
}

/// A conversation with something behind the read marker (perhaps only one's own messages).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Behind {
    /// Which.
    pub conversation: ConversationId,
    /// The marker, or the last message behind it that retention took.
    pub read: MessageId,
    /// The last message there is.
    pub last: MessageId,
}

/// A room, as the core keeps it in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomInfo {
    /// Its key, which is also that of its log.
    pub id: ConversationId,
    /// Its name.
    pub name: RoomName,
    /// Takes only end-to-end envelopes.
    pub e2e: bool,
    /// Hidden from strangers.
    pub private: bool,
}

/// A successful entry.
#[derive(Debug, Clone)]
pub struct Joined {
    /// The room.
    pub room: RoomInfo,
    /// How many members it now has.
    pub members: u64,
    /// The last message in its log.
    pub last: MessageId,
    /// False where the account was a member already and nothing changed.
    pub entered: bool,
}

/// A change to a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomChange {
    /// The room.
    pub room: RoomInfo,
    /// Whom it was about, where it was about somebody.
    pub subject: Option<Person>,
    /// False where everything was so already.
    pub changed: bool,
    /// False where the subject was no member, so that there is nobody to put out ([`Act::Ban`]).
    pub was_member: bool,
    /// Who owns the room now, where its last owner went.
    pub heir: Option<Person>,
}

/// A stored message, enough to answer its sender and to tell the others.
#[derive(Debug, Clone)]
pub struct Appended {
    /// Where it went.
    pub to: Destination,
    /// Its log.
    pub conversation: ConversationId,
    /// Its number.
    pub id: MessageId,
    /// When it was stored; never earlier than the message before it.
    pub time: Timestamp,
    /// The key was known: this is the first message again, nothing was stored.
    pub duplicate: bool,
}

/// A resolved target.
#[derive(Debug, Clone)]
pub enum Destination {
    /// A room, by its name.
    Room(RoomName),
    /// A person.
    User(Person),
}

/// Where a read marker is now.
#[derive(Debug, Clone)]
pub struct Acked {
    /// Which conversation.
    pub conversation: ConversationId,
    /// Everything up to here is read.
    pub read: MessageId,
    /// Who hears `* seen` of it: the other person of a direct conversation, where both have receipts on
    /// and the marker moved over a message of theirs.
    pub tell: Option<AccountId>,
}

// ---- reads -------------------------------------------------------------------------------------

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
    /// A page of one log, rising. → [`Answer::Page`]; `NoSuchUser`, `NoSuchRoom`, `NotMember`.
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
    /// Unread messages of all conversations by time, conversation, id. → [`Answer::Page`]
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
        /// From [`SessionOpened::behind`]: nothing behind `last` counts.
        behind: Vec<Behind>,
        /// At most so many messages; the rest becomes rows.
        limit: usize,
        /// As in [`Query::Page`].
        max_bytes: usize,
    },
    /// What a session that fell behind did not get, by time, conversation, id: a prefix of each range.
    /// → [`Answer::Page`]
    Backlog {
        /// The ranges.
        ranges: Vec<Range>,
        /// As in [`Query::Page`].
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
    Accounts { rows: Vec<AccountRow>, more: bool },
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

/// Messages of one or several logs.
#[derive(Debug, Clone)]
pub struct Page {
    /// In the order that the query names.
    pub entries: Vec<Entry>,
    /// Whether the log goes on in the direction of the query.
    pub more: bool,
    /// The first message that its log still holds behind the query's bound, where the query reads one
    /// log; a marker below it has no gap in between.
    pub oldest: Option<MessageId>,
}

/// One message as it was stored.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its log.
    pub conversation: ConversationId,
    /// Its number.
    pub id: MessageId,
    /// When it was stored.
    pub time: Timestamp,
    /// The room, or the receiver.
    pub target: Target,
    /// Who sent it.
    pub sender: Person,
    /// Its text.
    pub body: Arc<str>,
}

/// A conversation's unread messages: those behind the marker that others sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadRow {
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
    /// The oldest of them.
    pub entries: Vec<Entry>,
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
    /// Bytes of the database file.
    pub database_bytes: u64,
}

// ---- answers -----------------------------------------------------------------------------------

/// Why a write or a read was not done. Each is one reply to one peer, except `Internal`, which is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each is the code of its name, or says more in its text")]
pub enum Refused {
    #[error("no such user")]
    NoSuchUser,
    #[error("no such room")]
    NoSuchRoom,
    #[error("not a member of the room")]
    NotMember,
    #[error("the other is not a member of the room")]
    SubjectNotMember,
    #[error("not allowed")]
    Forbidden,
    #[error("banned")]
    Banned,
    #[error("the name is taken")]
    NameTaken,
    #[error("the invitation is unknown, used or too old")]
    RegistrationClosed,
    #[error("the proof does not hold")]
    AuthFailed,
    #[error("the room takes only end-to-end envelopes")]
    E2eRequired,
    #[error("nothing of that name")]
    NotFound,
    /// The key of a `/post` was used for something else: the message that it made.
    #[error("the key was used for message {0}")]
    Conflict(MessageId),
    /// More than this many would be kept.
    #[error("at most {0}")]
    Quota(u64),
    /// The disk is full or failing, or there is a defect; logged where it happened.
    #[error("internal error")]
    Internal,
}

/// The store's answer to one [`Op`] or [`Query`].
#[derive(Debug, Clone)]
pub enum Done {
    /// To an [`Op`]; on stable storage.
    Op(Result<Outcome, Refused>),
    /// To a [`Query`].
    Query(Result<Answer, Refused>),
}

/// A change that the operator made on the database beside the daemon (`downstream user …`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutsideChange {
    /// The account may no longer be logged in: disabled, deleted, or its password was changed.
    EndSessions(AccountId),
    /// The account may or may no longer use `/admin`.
    Admin(AccountId, bool),
    /// The account was deleted from the machine: it has left these rooms.
    Deleted(AccountId, Vec<RoomChange>),
}

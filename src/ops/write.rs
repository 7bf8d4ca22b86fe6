//! Writes, and what they did.

use std::sync::Arc;

use super::{
    AccountId, Bundles, ChunkWritten, ConversationId, FileLimits, MessageId, Person, Pools, Proof, Refused,
    RosterAdded, Sha256, SignalStored, Upload, Verifier,
};
use crate::protocol::{
    Act, DeviceName, FileId, FileName, KeyRecord, PostKey, ProfileChange, RoomName, Target, Timestamp, UserName,
};

/// An address or a network (prefix length in bits) that may not connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AddressBlock {
    /// The address, host bits zero.
    pub address: std::net::IpAddr,
    /// Bits that count: at most 32 or 128.
    pub prefix: u8,
}

/// A write. Every one is durable before it is answered with [`super::Done`].
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
        /// See [`super::Credentials::epoch`].
        epoch: i64,
        /// The new verifier.
        verifier: Verifier,
    },
    /// Erases an account: verifier, profile, tokens, certificates, memberships, invitations, markers, its
    /// devices' keys and the signals to it. The name stays taken; what was said stays in the logs of those
    /// who heard it, and signals that it sent stay for those who wait for them.
    /// → [`Outcome::Unregistered`]; `AuthFailed`.
    Unregister {
        /// Whose.
        account: AccountId,
        /// See [`super::Credentials::epoch`].
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
    /// Puts a record into the key directory. → [`Outcome::Pools`]; `Quota` (devices), `NotFound` (a prekey
    /// for a device without a certificate). Of one-time keys those are passed over whose id is in the pool
    /// or not above all that were handed out, and those that come when the pool is full: the answer says
    /// how many there are.
    PutKeys {
        /// Whose.
        account: AccountId,
        /// The device that it is about.
        device: DeviceName,
        /// The record.
        record: KeyRecord,
    },
    /// Takes a bundle of each device, or of one: hands every one-time key out once, lowest id first. Nothing
    /// is taken of a device without a signed prekey or any ML-KEM key. → [`Outcome::Bundles`];
    /// `NoSuchUser`, `NotFound` (no such device).
    TakeBundles {
        /// Whose.
        subject: UserName,
        /// Only of this device.
        device: Option<DeviceName>,
    },
    /// Stores a signal. → [`Outcome::Signalled`]; `NoSuchUser`, `Quota`.
    AddSignal {
        /// From whom.
        sender: Person,
        /// To whom.
        receiver: UserName,
        /// The envelope.
        body: Arc<str>,
    },
    /// Erases one signal. → [`Outcome::Nothing`]; `NotFound`.
    DropSignal {
        /// Whose.
        account: AccountId,
        /// Its number.
        id: u64,
    },
    /// Appends an entry to a room's roster. → [`Outcome::RosterAdded`]; `NoSuchRoom`, `NotMember`,
    /// `Forbidden` (no end-to-end room), `Epoch` (not the next place), `Quota`.
    AddRoster {
        /// Who appends.
        account: AccountId,
        /// Where.
        room: RoomName,
        /// The place: the last plus one.
        epoch: u32,
        /// The entry.
        entry: Vec<u8>,
    },
    /// Begins an upload, or finds the one that the sender began (or finished) before with this target, size and
    /// hash. A file of no bytes is finished at once. → [`Outcome::Upload`]; `NoSuchUser`, `NoSuchRoom`,
    /// `NotMember`, `E2eRequired`, `TooLong` (than [`FILE_BYTES_MAX`](super::FILE_BYTES_MAX)), `Quota`,
    /// `DiskLow`, `Checksum` (of no bytes).
    BeginUpload {
        /// Who sends.
        sender: Person,
        /// To whom.
        target: Target,
        /// As the sender calls it; one that was begun keeps its first name.
        name: FileName,
        /// Its bytes.
        size: u64,
        /// Of all of them.
        sha256: Sha256,
        /// What the operator allows.
        limits: FileLimits,
    },
    /// Writes the next piece of an upload; the last one makes it a message of its conversation. Answered in
    /// the order of the chunks, but not in that of other writes. → [`Outcome::ChunkWritten`]; `NotFound` (no
    /// such upload of this account), `Offset` (another is next; of one that is finished its size), `NotBase64`,
    /// `TooLong` (so many bytes fit), `NotMember` or `NoSuchRoom` (a private one), `NoSuchUser` (the receiver is
    /// gone), `Checksum`, `DiskLow`. After `NotMember`, `DiskLow` and `Internal` it goes on where it was.
    WriteChunk {
        /// Whose upload.
        account: AccountId,
        /// Which.
        file: FileId,
        /// Where the piece begins.
        offset: u64,
        /// The piece in base64, as it came.
        data: Box<str>,
    },
    /// Deletes the bytes of a file, or an upload. → [`Outcome::Nothing`]; `NotFound` (none that the account
    /// may see, or gone already), `Forbidden` (neither the sender nor an operator of the room).
    DropFile {
        /// Who wants it gone.
        account: AccountId,
        /// Which.
        file: FileId,
    },
    /// Deletes a bounded piece of what has outlived its time. → [`Outcome::Swept`]
    Sweep(Sweep),
}

/// What has outlived its time; `None` keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sweep {
    /// Messages older than this go, and with them rooms empty since before it.
    pub messages_before: Option<Timestamp>,
    /// Uploads that have not grown since before this go.
    pub uploads_before: Option<Timestamp>,
    /// The bytes of files older than this go; their messages stay.
    pub files_before: Option<Timestamp>,
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
    /// To [`Op::PutKeys`].
    Pools(Pools),
    /// To [`Op::TakeBundles`].
    Bundles(Bundles),
    /// To [`Op::AddSignal`].
    Signalled(SignalStored),
    /// To [`Op::AddRoster`].
    RosterAdded(RosterAdded),
    /// To [`Op::BeginUpload`].
    Upload(Box<Upload>),
    /// To [`Op::WriteChunk`].
    ChunkWritten(Box<ChunkWritten>),
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

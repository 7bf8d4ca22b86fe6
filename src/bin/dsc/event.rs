//! What `dsc` has to say: everything that is shown, as text to people or as one JSON object a line to
//! programs. The JSON schema is made from these types.

use schemars::JsonSchema;
use serde::Serialize;

/// One thing to show. In JSON the field `event` names the kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A message, received or of one's own.
    Message(Message),
    /// A message that was sent and stored.
    Sent {
        /// The room or person.
        target: String,
        /// The server's number of the message in the conversation.
        id: u64,
        /// Whether it was sealed end to end.
        encrypted: bool,
        /// The server had it already: an earlier try had come through.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        duplicate: bool,
    },
    /// A file that was sent: the server has all of it, and its receivers were told.
    FileSent {
        /// The room or person.
        target: String,
        /// Its name.
        name: String,
        /// Its size in bytes.
        size: u64,
        /// The server's number of its message in the conversation.
        id: u64,
        /// Whether it was sealed end to end.
        encrypted: bool,
        /// The server had it already: an earlier try had come through.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        duplicate: bool,
    },
    /// An envelope that cannot be opened.
    Unreadable {
        /// The room, or the other person; the sender of a signal.
        target: String,
        /// Who sent it, as the server says.
        sender: String,
        /// The server's number, absent for signals.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<u64>,
        /// The code: `cannot open (code)`.
        code: String,
        /// What it means for the reader.
        text: String,
    },
    /// Something to know: a new device, a session begun anew, a roster entry that was passed over.
    Notice {
        /// A stable word for programs.
        kind: String,
        /// Whom it is about.
        #[serde(skip_serializing_if = "Option::is_none")]
        subject: Option<String>,
        /// For people.
        text: String,
    },
    /// Something is wrong and somebody may be lying: a changed identity, two device lists, two histories
    /// of a room.
    Alarm {
        /// A stable word for programs.
        kind: String,
        /// Whom it is about.
        subject: String,
        /// For people: what it means and what to do.
        text: String,
    },
    /// Messages of a device that did not come.
    Missing {
        /// The room or person.
        target: String,
        /// Who sent them.
        sender: String,
        /// The device's short name.
        device: String,
        /// How many are missing now.
        count: u64,
    },
    /// A file that was received whole, checked, and has its name on this machine.
    FileReceived {
        /// The conversation: the room or the *other* person.
        target: String,
        /// The message that speaks of it, where that is known.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<u64>,
        /// The server's number of the file.
        file: u64,
        /// Where it is now.
        path: String,
        /// Its size in bytes.
        size: u64,
        /// SHA-256 of what the server has.
        blob: String,
        /// Whether it was sealed end to end; false: the server could read and change it.
        encrypted: bool,
    },
    /// How far a file is, a few times a second. To people it is a bar, on a terminal only.
    Progress {
        /// What is done with it.
        phase: Phase,
        /// The room or person.
        target: String,
        /// Its name.
        name: String,
        /// Bytes that are done; of a sealed file those of its sealed form, unless it is being read.
        done: u64,
        /// Bytes that there are to do, if that is known.
        #[serde(skip_serializing_if = "Option::is_none")]
        size: Option<u64>,
    },
    /// The answer to a line of `dsc pipe`.
    Reply(Reply),
    /// A row of a list (rooms, members, users, devices, unread counts …), with the list's own fields.
    Row(Row),
    /// An event of the server that is shown as it came: presence, joins, topics.
    Server {
        /// The event's name.
        kind: String,
        /// Its words behind the name, `key=value` included.
        words: Vec<String>,
        /// Its text, if it has one.
        #[serde(skip_serializing_if = "Option::is_none")]
        text: Option<String>,
    },
    /// Why `dsc` ends without having done what it was asked; the last line. To people it goes to standard
    /// error.
    Error {
        /// The exit code, 1 to 6.
        exit: u8,
        /// What went wrong.
        message: String,
        /// What to do about it.
        #[serde(skip_serializing_if = "Option::is_none")]
        hint: Option<String>,
    },
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Message {
    /// The conversation: the room or the *other* person.
    pub target: String,
    /// Who sent it.
    pub sender: String,
    /// The sending device: the first four hexadecimal digits of its id, or its local name. Absent for
    /// plain messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// The server's number of the message in the conversation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    /// When the server stored it, RFC 3339 in UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// The sender's own id of the message, 32 hexadecimal digits. Absent for plain messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub msg_id: Option<String>,
    /// Whether it was sealed end to end and opened; false: the server can read and forge it.
    pub encrypted: bool,
    /// Of this account.
    pub own: bool,
    /// What was said.
    pub content: Content,
    /// What is to be said beside it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub marks: Vec<Mark>,
}

/// The answer to a line of `dsc pipe`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Reply {
    /// The label that the line had.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// What was asked for.
    pub verb: String,
    /// Whether it was done.
    pub ok: bool,
    /// Why not: a code of the server or of dsc.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// `key=value` in their order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<(String, String)>,
    /// Rows of the server, with the text of envelopes that were opened.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rows: Vec<String>,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// What is done with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// It is read, and sealed on this disk.
    Reading,
    /// It goes to the server.
    Sending,
    /// It comes from the server.
    Receiving,
}

/// What a message says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Content {
    /// Text.
    Text {
        /// The text.
        text: String,
    },
    /// A file.
    File {
        /// Its name, made safe.
        name: String,
        /// Its size in bytes.
        size: u64,
        /// What it is, as the sender says.
        mime: String,
        /// SHA-256 of what the server has: of the sealed file, or of one that was sent in clear.
        blob: String,
        /// The server's number of the file, of one that was sent in clear.
        #[serde(skip_serializing_if = "Option::is_none")]
        file: Option<u64>,
    },
    /// A reaction to a message.
    React {
        /// Who wrote that message.
        author: String,
        /// That message.
        msg_id: String,
        /// The reaction.
        text: String,
    },
    /// Another text for a message of the same account.
    Edit {
        /// That message.
        msg_id: String,
        /// The new text.
        text: String,
    },
    /// A message of the same account is taken back.
    Delete {
        /// That message.
        msg_id: String,
    },
}

/// What is to be said beside a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mark {
    /// Not sealed: the server could read and change it.
    Plain,
    /// The first message of an account: its identity was pinned by it and not compared yet.
    FirstContact,
    /// The session began without a one-time key and was not answered yet.
    Weak,
    /// The sender's identity is not the pinned one; shown, not believed.
    IdentityChanged,
    /// Another message under the same number, or one that does not follow: a cloned or restored store.
    Conflict,
    /// The sender was removed from the room; sealed before, as far as can be known.
    Removed,
    /// Sealed under an older roster than the newest.
    OldRoster,
    /// Opened later than it came: its key was late.
    Late,
}

/// A row of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(tag = "list", rename_all = "kebab-case")]
pub enum Row {
    /// A room.
    Room {
        /// Its name.
        room: String,
        /// How many members the server counts.
        members: u64,
        /// End to end.
        e2e: bool,
        /// Hidden from strangers.
        private: bool,
        /// Whether this account is in it.
        joined: bool,
        /// Its topic.
        #[serde(skip_serializing_if = "Option::is_none")]
        topic: Option<String>,
    },
    /// The topic of a room.
    Topic {
        /// The room.
        room: String,
        /// Its topic, if it has one.
        #[serde(skip_serializing_if = "Option::is_none")]
        topic: Option<String>,
    },
    /// A member of a room.
    Member {
        /// The account.
        user: String,
        /// The server's word for what they may do: owner, op, member; absent if the server does not have
        /// them in the room.
        #[serde(skip_serializing_if = "Option::is_none")]
        role: Option<String>,
        /// In the signed roster: `admin` or `member`; absent where they are not in it, or in a plain room.
        #[serde(skip_serializing_if = "Option::is_none")]
        roster: Option<String>,
        /// Online.
        online: bool,
        /// The pin: `verified`, `unverified`, `unknown`, `changed`.
        #[serde(skip_serializing_if = "Option::is_none")]
        trust: Option<String>,
    },
    /// An account, and whether it is there.
    User {
        /// The account.
        user: String,
        /// `online`, `away`, `offline`.
        presence: String,
        /// Since when, RFC 3339.
        #[serde(skip_serializing_if = "Option::is_none")]
        since: Option<String>,
        /// The away text.
        #[serde(skip_serializing_if = "Option::is_none")]
        text: Option<String>,
    },
    /// A conversation with messages that this account has not read.
    Unread {
        /// The room or person.
        target: String,
        /// How many.
        count: u64,
        /// The first of them.
        first: u64,
        /// The last of them.
        last: u64,
    },
    /// How many one-time keys of a device the directory has left.
    Keys {
        /// The device's id, 32 hexadecimal digits.
        device: String,
        /// X25519.
        opk: u64,
        /// ML-KEM.
        pqk: u64,
    },
    /// The code with which a new device is linked.
    LinkCode {
        /// To be typed on the account's first device: `dsc link --approve CODE`.
        code: String,
    },
    /// A safety number.
    Number {
        /// With whom; one's own account for its own half.
        user: String,
        /// 60 digits (30 for one's own half) in groups of five.
        number: String,
        /// Whether a person has compared it.
        verified: bool,
    },
    /// A device of an account.
    Device {
        /// The account.
        user: String,
        /// The device's id, 32 hexadecimal digits.
        device: String,
        /// Its local name, if it was given one.
        #[serde(skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// This very device.
        this: bool,
        /// Certified until, RFC 3339.
        until: String,
        /// In its time and listed.
        current: bool,
    },
    /// This account on this machine.
    Account {
        /// The account, if this home has one.
        #[serde(skip_serializing_if = "Option::is_none")]
        user: Option<String>,
        /// The server, host and port.
        #[serde(skip_serializing_if = "Option::is_none")]
        server: Option<String>,
        /// This device's id, 32 hexadecimal digits, if there are keys.
        #[serde(skip_serializing_if = "Option::is_none")]
        device: Option<String>,
        /// Whether a token is kept, so that no password is needed.
        token: bool,
        /// Whether the server was asked and confirmed the account.
        confirmed: bool,
    },
    /// A file on the server.
    File {
        /// The server's number of it, for `dsc get-file`.
        file: u64,
        /// The conversation: the room or the *other* person.
        target: String,
        /// Who sends it.
        sender: String,
        /// When it was finished, RFC 3339; of one that is not, when it last grew.
        time: String,
        /// Its name, made safe; absent where it is sealed and its message was not opened here.
        #[serde(skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// Its size in bytes; without a name, that of the sealed file.
        size: u64,
        /// What it is, as the sender says.
        #[serde(skip_serializing_if = "Option::is_none")]
        mime: Option<String>,
        /// The message that speaks of it, where that is known.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<u64>,
        /// SHA-256 of what the server has.
        blob: String,
        /// Whether it is sealed end to end.
        encrypted: bool,
        /// Bytes that the server has of an upload that is not finished.
        #[serde(skip_serializing_if = "Option::is_none")]
        partial: Option<u64>,
    },
    /// The header of an envelope: what everybody on its way can read.
    Envelope {
        /// `multi`, `group`, `link-request` or `link-answer`.
        form: String,
        /// How many bytes it has.
        bytes: u64,
        /// The device that says it sealed it, 32 hexadecimal digits.
        #[serde(skip_serializing_if = "Option::is_none")]
        device: Option<String>,
        /// The room's id, 32 hexadecimal digits.
        #[serde(skip_serializing_if = "Option::is_none")]
        room: Option<String>,
        /// The roster entry under which the chain was made.
        #[serde(skip_serializing_if = "Option::is_none")]
        epoch: Option<u32>,
        /// The sender's chain, 32 hexadecimal digits.
        #[serde(skip_serializing_if = "Option::is_none")]
        chain: Option<String>,
        /// The place in the chain, from 0.
        #[serde(skip_serializing_if = "Option::is_none")]
        n: Option<u32>,
        /// How many slots follow, each for one device.
        #[serde(skip_serializing_if = "Option::is_none")]
        slots: Option<u64>,
    },
    /// The header of one slot of the envelope before.
    Slot {
        /// The device that it is for, 32 hexadecimal digits.
        device: String,
        /// The session, 32 hexadecimal digits.
        session: String,
        /// When the session was begun, RFC 3339; absent once the receiver was heard.
        #[serde(skip_serializing_if = "Option::is_none")]
        born: Option<String>,
        /// How many messages the sender's chain before had.
        previous: u32,
        /// The place in the sender's chain, from 0.
        n: u32,
    },
    /// A file whose transfer is not finished: `dsc resume` goes on with it.
    Transfer {
        /// By which `dsc resume --drop` names it.
        transfer: String,
        /// `sending` or `receiving`.
        direction: String,
        /// The room, or the other person.
        target: String,
        /// The file's name.
        name: String,
        /// Bytes of the file, if that is known.
        #[serde(skip_serializing_if = "Option::is_none")]
        size: Option<u64>,
        /// When it was begun, RFC 3339.
        since: String,
        /// Why `dsc resume` does not go on with it, if it does not.
        #[serde(skip_serializing_if = "Option::is_none")]
        waits: Option<String>,
    },
}

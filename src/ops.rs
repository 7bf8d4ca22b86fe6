//! What the core may ask of a store and of the password hasher: plain data, no SQL, no engine.
//!
//! Writes ([`Op`]) are applied one after the other, in the order in which they were submitted, and are
//! answered in that order once they are on stable storage; each stands or falls alone. Reads
//! ([`Query`]) run beside them on a snapshot that holds at least everything answered before. Rules that
//! hold between records (who may kick whom, who inherits a room) are checked by the store inside the
//! write, so that two commands in one batch cannot both win; what the core keeps in memory is only a
//! mirror of what it was told here.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

mod credentials;
mod directory;
mod files;
mod page;
mod read;
mod write;

use std::fmt;

pub use self::credentials::*;
pub use self::directory::*;
pub use self::files::*;
pub use self::page::*;
pub use self::read::*;
pub use self::write::*;
use crate::protocol::UserName;
pub use crate::protocol::{Act, Password, ProfileChange, Show};

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
    /// The roster's log has come to this epoch.
    #[error("the last epoch is {0}")]
    Epoch(u32),
    /// More than this many would be kept.
    #[error("at most {0}")]
    Quota(u64),
    /// A pattern has more bytes than this, or too many stars.
    #[error("at most {0} bytes")]
    TooLong(u64),
    /// The disk is full or failing, or there is a defect; logged where it happened.
    #[error("internal error")]
    Internal,
    /// The upload has come to this offset.
    #[error("the next offset is {0}")]
    Offset(u64),
    /// The data of a chunk is no base64.
    #[error("no base64")]
    NotBase64,
    /// The bytes are not those that were announced; the upload is void.
    #[error("the SHA-256 is another")]
    Checksum,
    /// So little is left of the disk that only messages are taken.
    #[error("the disk is nearly full")]
    DiskLow,
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

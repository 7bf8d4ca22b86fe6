//! Files: what the core asks about them, and what it is told.

use super::{AccountId, ConversationId, Destination, MessageId, Person, Sha256};
use crate::protocol::{FileId, FileName, Target, Timestamp};

/// Bytes that a small file counts as against the limits: a block of the disk and its record.
pub const FILE_BYTES_MIN: u64 = 4096;
/// Uploads of one account that are begun and not finished: more than anybody sends side by side.
pub const UPLOADS_PER_ACCOUNT: u64 = 100;

/// Bytes of the largest file: 2^31 blocks of 16 KiB, half of what a sealing key may be used for.
pub const FILE_BYTES_MAX: u64 = 1 << 45;

/// What the operator allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileLimits {
    /// Bytes that the files of one account may take, announced ones included; `None`: as many as there are.
    pub quota: Option<u64>,
    /// The same for all accounts together.
    pub total: Option<u64>,
}

/// To a `/send-file`: what was begun, found again, or finished at once.
#[derive(Debug, Clone)]
pub struct Upload {
    /// The file.
    pub file: FileId,
    /// Bytes that are on stable storage.
    pub offset: u64,
    /// Set where nothing is left to send.
    pub done: Option<Finished>,
}

/// To a `/chunk`.
#[derive(Debug, Clone)]
pub struct ChunkWritten {
    /// The file.
    pub file: FileId,
    /// Bytes that are on stable storage up to the end of this chunk.
    pub offset: u64,
    /// Set by the last chunk.
    pub done: Option<Finished>,
}

/// A file that stands whole in its conversation.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Where it went.
    pub to: Destination,
    /// Its log.
    pub conversation: ConversationId,
    /// Its number in the log.
    pub id: MessageId,
    /// When it was finished.
    pub time: Timestamp,
    /// What it is.
    pub file: FileRef,
    /// As the sender called it.
    pub name: FileName,
    /// False where it had been finished before: then there is nobody to tell.
    pub new: bool,
}

/// A file, as a message of a log speaks of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileRef {
    /// Its number.
    pub id: FileId,
    /// Its bytes.
    pub size: u64,
    /// Of all of them.
    pub sha256: Sha256,
    /// It was dropped, or outlived its time: only this is left.
    pub gone: bool,
}

/// A piece of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePart {
    /// The pieces in base64 with the offset of each; each but the last of the file stands for
    /// [`CHUNK_MAX`](crate::protocol::file::CHUNK_MAX) bytes or what was left of the length asked for.
    pub rows: Vec<(u64, String)>,
    /// The offset behind the last of them.
    pub next: u64,
    /// Bytes of the whole file.
    pub size: u64,
}

/// A row of `/files`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRow {
    /// Its number.
    pub id: FileId,
    /// When it was finished; of one that is not, when it last grew.
    pub time: Timestamp,
    /// The room, or the receiver.
    pub target: Target,
    /// Who sends it.
    pub sender: Person,
    /// Its bytes.
    pub size: u64,
    /// Of all of them.
    pub sha256: Sha256,
    /// Bytes that are there, while it is not finished.
    pub partial: Option<u64>,
    /// As the sender called it.
    pub name: FileName,
}

/// Which files `/files` lists.
#[derive(Debug, Clone)]
pub struct FilesWanted {
    /// Who asks: sees what is whole in its conversations, and what it sends or has sent itself.
    pub account: AccountId,
    /// Only of this room, or this other person.
    pub target: Option<Target>,
    /// Behind this number.
    pub after: FileId,
    /// Only of these bytes.
    pub sha256: Option<Sha256>,
    /// At most so many.
    pub limit: usize,
}

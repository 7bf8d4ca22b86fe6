//! The data of files: written by one thread, read by another, beside the threads of the database.
//!
//! ```text
//!  loop ── chunks ──▶ queue ──▶ thread of files: decode, check, seal, write · one fdatasync an upload
//!                                   │    ▲
//!                    how far each is ▼    │ what became of it
//!                             writer thread: the row, or the message ── COMMIT ──▶ answers
//! ```
//!
//! The row of an upload is the truth. A batch is on stable storage before its rows are handed to the writer, and
//! answered after their commit; meanwhile the next is written. What is found behind the bytes of a row was never
//! acknowledged and is written over; where less is found, the upload is void. It is not cut off at once: a commit that
//! failed may have reached the disk all the same, and its record come back after a crash.
//!
//! Data without a row is in the table `trash`, and deleted by the same thread, so nothing is deleted that is
//! being written.
//!
//! [`data`] keeps bytes under numbers, [`uploads`] is how they are written, [`parts`] how they are read, [`thread`]
//! what the thread of files does.

mod data;
mod parts;
mod thread;
mod uploads;

use std::collections::HashMap;
use std::sync::mpsc::Sender;

pub(super) use data::{Data, Directory, Memory};
#[cfg(test)]
pub(super) use data::{Numbers, Writing};
pub(super) use parts::read as read_part;
pub(super) use thread::FileWriter;
pub(super) use uploads::{Chunk, Taken, Uploads};

use super::sqlite::{Progress, Progressed};
use crate::ops::{AccountId, ChunkWritten, Outcome, Refused, Ticket};
use crate::protocol::{FileId, Timestamp};

/// The directory of the data, in the data directory.
pub(super) const DIRECTORY: &str = "files";

/// What the thread of files is given.
pub(super) enum FileJob {
    Chunk(ChunkJob),
    /// There is something in the trash.
    Trash,
}

/// A chunk on its way.
pub(super) struct ChunkJob {
    pub(super) ticket: Ticket,
    pub(super) now: Timestamp,
    pub(super) account: AccountId,
    pub(super) file: FileId,
    pub(super) offset: u64,
    pub(super) data: Box<str>,
}

/// What became of a chunk, but for its record.
pub(super) struct Fate {
    ticket: Ticket,
    file: FileId,
    taken: Result<Taken, Refused>,
}

impl Fate {
    /// The file whose last chunk this is.
    fn ends(&self) -> Option<FileId> {
        self.taken.is_ok_and(|taken| taken.last).then_some(self.file)
    }
}

/// Chunks on stable storage, for the writer to record and to answer.
pub(super) struct ChunkBatch {
    pub(super) fates: Vec<Fate>,
    pub(super) progress: Vec<Progress>,
    /// Where it is told what became of it.
    pub(super) reply: Sender<Recorded>,
}

/// The records that were refused.
pub(super) type Recorded = HashMap<FileId, Refused>;

/// What became of each record of a batch.
pub(super) type Results = HashMap<FileId, Result<Progressed, Refused>>;

impl ChunkBatch {
    /// The answers, in the order of the chunks.
    pub(super) fn answers(&self, results: &Results) -> Vec<(Ticket, Result<Outcome, Refused>)> {
        let answer = |fate: &Fate| (fate.ticket, fate.taken.and_then(|taken| outcome(fate.file, taken, results)));
        self.fates.iter().map(answer).collect()
    }
}

/// What a chunk is answered whose upload was recorded so.
pub(super) fn outcome(file: FileId, taken: Taken, results: &Results) -> Result<Outcome, Refused> {
    let done = match results.get(&file) {
        Some(Ok(Progressed::Grown)) => None,
        Some(Ok(Progressed::Finished(finished))) => taken.last.then(|| (**finished).clone()),
        Some(Ok(Progressed::Void)) if taken.last => return Err(Refused::Checksum),
        Some(Ok(Progressed::Void)) => None,
        Some(Err(refused)) => return Err(*refused),
        None => return Err(Refused::Internal),
    };
    Ok(Outcome::ChunkWritten(Box::new(ChunkWritten { file, offset: taken.offset, done })))
}

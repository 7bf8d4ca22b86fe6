//! Writing the data of uploads.
//!
//! Data is a row of sealed blocks of [`BLOCK`] bytes, the last one shorter, each with a nonce of its own: block
//! `n` stands at `n` times [`SLOT`]. Only whole blocks are written before the end. What has come behind the last
//! of them stands in the upload's row, sealed, together with the state of SHA-256 (`rest`), so nothing that was
//! acknowledged is ever written over. Chunks of the usual length leave nothing behind the last block.
//!
//! What is kept here is a copy of the rows, ahead of them by what is under way. Where one of both cannot be
//! written, the copy is thrown away, and the next chunk begins with the row again.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::Digest as _;
use sha2::digest::common::hazmat::{SerializableState, SerializedState};

use super::super::complaint::Complaint;
use super::super::seal::{Column, SEAL_OVERHEAD, SealError, SealKey, Sealer};
use super::super::sqlite::{Progress, Step, UploadRow};
use super::data::{Data, Writing, is_full};
use crate::ops::{AccountId, Refused, Sha256};
use crate::protocol::{FileId, Timestamp};

/// Bytes of a block before it is sealed: small enough that a piece costs little more than it has, and large
/// enough that sealing adds next to nothing. [`FILE_BYTES_MAX`](crate::ops::FILE_BYTES_MAX) is so many that a key may
/// seal.
pub(super) const BLOCK: usize = 16 * 1024;
/// Bytes of a whole block as it is stored.
pub(super) const SLOT: usize = BLOCK + SEAL_OVERHEAD;
/// Uploads that are kept open, each with a file descriptor. A further one costs a look-up when it comes again.
pub(super) const OPEN_UPLOADS: usize = 24;

/// Bytes that the first `len` bytes of a file take as whole blocks.
pub(super) fn whole_blocks(len: u64) -> u64 {
    len / BLOCK as u64 * SLOT as u64
}

/// The key of a file's blocks.
pub(super) fn block_key(sealer: &Sealer, file: FileId) -> SealKey {
    sealer.key(Column::FileBlock, row(file.0))
}

/// A number as the sealer takes it.
pub(super) fn row(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A chunk, as it came.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct Chunk<'a> {
    pub(in crate::store) account: AccountId,
    pub(in crate::store) file: FileId,
    pub(in crate::store) now: Timestamp,
    pub(in crate::store) offset: u64,
    /// In base64.
    pub(in crate::store) data: &'a str,
}

/// A chunk that is written and, after [`Uploads::sync`], on stable storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct Taken {
    /// Behind its last byte.
    pub(in crate::store) offset: u64,
    /// Nothing is left to send.
    pub(in crate::store) last: bool,
}

/// An upload as it will be once everything under way is committed.
struct Open {
    account: AccountId,
    size: u64,
    sha256: Sha256,
    key: SealKey,
    /// `None` until the first block is written.
    data: Option<Box<dyn Writing>>,
    /// Bytes that it had when it was opened. They may be more than the row says, and the row may come to say more after
    /// a crash, so they stay until they are written over.
    found: u64,
    /// As far as the row is, or will be once what was handed to the writer is committed.
    recorded: u64,
    taken: u64,
    /// Behind the last whole block.
    tail: Vec<u8>,
    hash: sha2::Sha256,
    /// Of the last chunk.
    now: Timestamp,
    /// When it was used last, in chunks.
    used: u64,
    /// Something was taken since the last [`Uploads::sync`].
    touched: bool,
    /// Something was written since then.
    written: bool,
    /// The data was made, and its name may not be on stable storage yet.
    unnamed: bool,
}

/// The uploads that are being written.
pub(in crate::store) struct Uploads {
    data: Arc<dyn Data>,
    sealer: Arc<Sealer>,
    open: HashMap<FileId, Open>,
    /// What is given up until the next [`Uploads::sync`]: what the other chunks of these files are answered.
    failed: HashMap<FileId, Refused>,
    lost: Vec<Progress>,
    /// The disk is nearly full.
    low: bool,
    /// About a disk without room, and about one that fails.
    full: Complaint,
    broken: Complaint,
    clock: u64,
    /// Plain bytes of the chunk at hand, behind the tail of its upload.
    plain: Vec<u8>,
    sealed: Vec<u8>,
}

impl Uploads {
    pub(in crate::store) fn new(data: Arc<dyn Data>, sealer: Arc<Sealer>) -> Uploads {
        Uploads {
            data,
            sealer,
            open: HashMap::new(),
            failed: HashMap::new(),
            lost: Vec::new(),
            low: false,
            full: Complaint::default(),
            broken: Complaint::default(),
            clock: 0,
            plain: Vec::new(),
            sealed: Vec::new(),
        }
    }

    /// Looks whether the disk has room for what comes; whether it has.
    pub(in crate::store) fn look_at_disk(&mut self) -> bool {
        self.low = self.data.spare().is_ok_and(|spare| spare == 0);
        !self.low
    }

    /// Whether a chunk of this file can be taken without its row.
    pub(in crate::store) fn knows(&self, file: FileId) -> bool {
        self.open.contains_key(&file) || self.failed.contains_key(&file)
    }

    /// Whether [`Uploads::sync`] must come before a chunk of another file.
    pub(in crate::store) fn is_full(&self) -> bool {
        self.open.len() >= OPEN_UPLOADS && self.open.values().all(|upload| upload.touched)
    }

    /// Takes a chunk. `look_up` finds the row where it is needed; nothing about it may be under way then.
    pub(in crate::store) fn take(
        &mut self,
        chunk: &Chunk<'_>,
        look_up: impl FnOnce() -> Result<Option<UploadRow>, Refused>,
    ) -> Result<Taken, Refused> {
        if let Some(refused) = self.failed.get(&chunk.file) {
            return Err(*refused);
        }
        if !self.open.contains_key(&chunk.file) {
            let row = look_up()?.ok_or(Refused::NotFound)?;
            if row.finished {
                return Err(if chunk.offset == row.size { Refused::TooLong(0) } else { Refused::Offset(row.size) });
            }
            self.load(chunk, row)?;
        }
        self.clock += 1;
        let Some(upload) = self.open.get_mut(&chunk.file) else { return Err(Refused::Internal) };
        upload.used = self.clock;
        if upload.account != chunk.account {
            return Err(Refused::NotFound);
        }
        if upload.taken != chunk.offset {
            return Err(Refused::Offset(upload.taken));
        }
        self.plain.clear();
        self.plain.extend_from_slice(&upload.tail);
        STANDARD.decode_vec(chunk.data, &mut self.plain).map_err(|_| Refused::NotBase64)?;
        let bytes = self.plain.len() - upload.tail.len();
        let left = upload.size - upload.taken;
        if bytes == 0 {
            return Err(Refused::NotBase64);
        }
        if bytes as u64 > left {
            return Err(Refused::TooLong(left));
        }
        if self.low {
            return Err(Refused::DiskLow);
        }
        let last = bytes as u64 == left;
        if let Err(error) = upload.write(chunk.file, &*self.data, &self.plain, last, &mut self.sealed) {
            return Err(self.failing(chunk.file, &error));
        }
        upload.hash.update(self.plain.get(upload.tail.len()..).unwrap_or_default());
        upload.taken += bytes as u64;
        let whole = if last { self.plain.len() } else { self.plain.len() / BLOCK * BLOCK };
        upload.tail.clear();
        upload.tail.extend_from_slice(self.plain.get(whole..).unwrap_or_default());
        (upload.now, upload.touched) = (chunk.now, true);
        Ok(Taken { offset: upload.taken, last })
    }

    /// Opens an upload where its row says that it is.
    fn load(&mut self, chunk: &Chunk<'_>, row: UploadRow) -> Result<(), Refused> {
        let file = chunk.file;
        let gone = |uploads: &mut Uploads, why| {
            log::error!(
                "{why} of upload {file}, of which the database has {} bytes; the sender begins anew",
                row.stored
            );
            let (account, now, from) = (chunk.account, chunk.now, row.stored);
            uploads.lost.push(Progress { file, account, now, from, step: Step::Lost });
            uploads.failed.insert(file, Refused::NotFound);
            Refused::NotFound
        };
        let Some((hash, tail)) = self.open_rest(file, &row) else {
            return Err(gone(self, "the state does not open"));
        };
        let (data, found) = match whole_blocks(row.stored) {
            // Made when there is something to write.
            0 => (None, 0),
            len => match self.data.open(file, len) {
                Ok(None) => return Err(gone(self, "the data is not there any more")),
                Ok(Some((data, found))) => (Some(data), found),
                Err(error) => return Err(self.failing(file, &error)),
            },
        };
        self.make_room();
        let upload = Open {
            account: chunk.account,
            size: row.size,
            sha256: row.sha256,
            key: block_key(&self.sealer, file),
            data,
            found,
            recorded: row.stored,
            taken: row.stored,
            tail,
            hash,
            now: chunk.now,
            used: self.clock,
            touched: false,
            written: false,
            unnamed: false,
        };
        self.open.insert(file, upload);
        Ok(())
    }

    /// Closes the upload that was not used for the longest time, where there are many. One that is being written
    /// stays: what is known of it is nowhere else yet.
    fn make_room(&mut self) {
        if self.open.len() >= OPEN_UPLOADS {
            let idle = self.open.iter().filter(|(_, upload)| !upload.touched);
            if let Some(file) = idle.min_by_key(|(_, upload)| upload.used).map(|(file, _)| *file) {
                self.open.remove(&file);
            }
        }
    }

    /// Says what a failing disk means to a chunk. Where it has no room, the upload can go on when it has;
    /// everything else casts doubt on all that was written.
    fn failing(&mut self, file: FileId, error: &io::Error) -> Refused {
        let cut = self.open.get_mut(&file).is_none_or(|upload| upload.cut().is_ok());
        if is_full(error) && cut {
            if self.full.is_due(Instant::now()) {
                log::warn!("an upload waits: {error}; free some space, or move the data directory to a larger disk");
            }
            return Refused::DiskLow;
        }
        if self.broken.is_due(Instant::now()) {
            log::error!("the data of file {file} was not written: {error}; look into the kernel log");
        }
        self.forget(file, Refused::Internal);
        Refused::Internal
    }

    /// Puts what was taken on stable storage; what to record. Chunks of files that [`Uploads::refusal`] knows
    /// then are not stored, and [`Uploads::settle`] ends that.
    pub(in crate::store) fn sync(&mut self) -> Vec<Progress> {
        let unnamed = self.open.values().any(|upload| upload.touched && upload.unnamed);
        let names = if unnamed { self.data.sync_names() } else { Ok(()) };
        let mut failed: Vec<(FileId, io::Error)> = Vec::new();
        let mut progress = std::mem::take(&mut self.lost);
        let mut finished = Vec::new();
        for (file, upload) in self.open.iter_mut().filter(|(_, upload)| upload.touched) {
            let (written, unnamed) = (std::mem::take(&mut upload.written), std::mem::take(&mut upload.unnamed));
            let synced = match (&names, &mut upload.data) {
                (Err(error), _) if unnamed => Err(io::Error::new(error.kind(), error.to_string())),
                (_, Some(data)) if written => data.sync(),
                _ => Ok(()),
            };
            let step = synced.and_then(|()| upload.step(&self.sealer, *file).map_err(|_| io::ErrorKind::Other.into()));
            match step {
                Ok(step) => {
                    if !matches!(step, Step::Grown { .. }) {
                        finished.push(*file);
                    }
                    let (account, now, from) = (upload.account, upload.now, upload.recorded);
                    progress.push(Progress { file: *file, account, now, from, step });
                    (upload.recorded, upload.touched) = (upload.taken, false);
                }
                Err(error) => failed.push((*file, error)),
            }
        }
        for file in finished {
            self.open.remove(&file);
        }
        for (file, error) in failed {
            if self.broken.is_due(Instant::now()) {
                log::error!("the data of file {file} is not on stable storage: {error}; look into the kernel log");
            }
            self.forget(file, Refused::Internal);
        }
        progress
    }

    /// Why the chunks of a file that were taken since the last [`Uploads::settle`] count for nothing, where they
    /// do.
    pub(in crate::store) fn refusal(&self, file: FileId) -> Option<Refused> {
        self.failed.get(&file).copied()
    }

    /// Everything taken so far has its answer.
    pub(in crate::store) fn settle(&mut self) {
        self.failed.clear();
    }

    /// Throws away what is known of an upload; what the chunks of it are answered that come before the next
    /// [`Uploads::settle`].
    pub(in crate::store) fn forget(&mut self, file: FileId, refused: Refused) {
        self.open.remove(&file);
        self.failed.insert(file, refused);
    }

    /// Throws away what is known of an upload that is gone, so that its disk space is free.
    pub(in crate::store) fn close(&mut self, file: FileId) {
        if self.open.get(&file).is_some_and(|upload| upload.touched) {
            self.failed.insert(file, Refused::NotFound);
        }
        self.open.remove(&file);
    }

    /// Throws away what is known of all uploads.
    pub(in crate::store) fn forget_all(&mut self) {
        self.open.clear();
        self.failed.clear();
    }

    /// The state of SHA-256, and what stands behind the last whole block.
    fn open_rest(&self, file: FileId, upload: &UploadRow) -> Option<(sha2::Sha256, Vec<u8>)> {
        let Some(sealed) = &upload.rest else {
            return (upload.stored == 0).then(|| (sha2::Sha256::new(), Vec::new()));
        };
        let rest = self.sealer.key(Column::FileRest, row(file.0)).open(row(upload.stored), sealed)?;
        let len = SerializedState::<sha2::Sha256>::default().len();
        let (state, tail) = rest.split_at_checked(len)?;
        let hash = sha2::Sha256::deserialize(&SerializedState::<sha2::Sha256>::try_from(state).ok()?).ok()?;
        (tail.len() as u64 == upload.stored % BLOCK as u64).then(|| (hash, tail.to_vec()))
    }
}

impl Open {
    /// Seals and writes the blocks that `plain`, which begins behind the last block, fills: all of it, if it is the
    /// last. What fails leaves everything but the data as it was.
    fn write(
        &mut self,
        file: FileId,
        data: &dyn Data,
        plain: &[u8],
        last: bool,
        sealed: &mut Vec<u8>,
    ) -> io::Result<()> {
        sealed.clear();
        let first = self.taken / BLOCK as u64;
        for (index, block) in (first..).zip(plain.chunks(BLOCK)) {
            if block.len() == BLOCK || last {
                let block = self.key.seal(row(index), block).map_err(|_| io::Error::other("no randomness"))?;
                sealed.extend_from_slice(&block);
            }
        }
        if sealed.is_empty() {
            return Ok(());
        }
        if self.data.is_none() {
            let (data, found) = data.open(file, 0)?.ok_or(io::ErrorKind::NotFound)?;
            (self.data, self.found, self.unnamed) = (Some(data), found, true);
        }
        let Some(data) = &mut self.data else { return Err(io::ErrorKind::NotFound.into()) };
        self.written = true;
        let from = whole_blocks(self.taken);
        data.write(from, sealed)?;
        let end = from + sealed.len() as u64;
        // What an older database had under this number may be longer.
        if last && self.found > end { data.cut(end) } else { Ok(()) }
    }

    /// Cuts off what was not taken, so that it takes no room.
    fn cut(&mut self) -> io::Result<()> {
        match &mut self.data {
            Some(data) => data.cut(whole_blocks(self.taken).max(self.found)),
            None => Ok(()),
        }
    }

    /// What to record.
    fn step(&self, sealer: &Sealer, file: FileId) -> Result<Step, SealError> {
        if self.taken == self.size {
            let whole = sha2::Sha256::finalize(self.hash.clone())[..] == self.sha256.0;
            return Ok(if whole { Step::Whole } else { Step::Mismatch });
        }
        let mut plain = self.hash.serialize().to_vec();
        plain.extend_from_slice(&self.tail);
        let rest = sealer.key(Column::FileRest, row(file.0)).seal(row(self.taken), &plain)?;
        Ok(Step::Grown { stored: self.taken, rest })
    }
}

//! The thread that writes chunks, and deletes what is in the trash and what belongs to no file.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use super::super::complaint::Complaint;
use super::super::queue::Taken as Jobs;
use super::super::sqlite::{Progress, Sqlite};
use super::super::worker::{Job, Shared};
use super::data::Data;
use super::uploads::{Chunk, Uploads};
use super::{ChunkBatch, ChunkJob, Fate, FileJob, Recorded};
use crate::ops::Refused;
use crate::protocol::FileId;

/// Most chunks that are put on stable storage together, …
const BATCH_CHUNKS: usize = 128;
/// … and most bytes of base64, so that the first of them does not wait for ever.
const BATCH_BYTES: usize = 8 << 20;
/// Files that are deleted between two records of it.
const TRASH_PAGE: usize = 256;

/// What the writer was given and has not answered yet.
struct UnderWay {
    files: HashSet<FileId>,
    reply: Receiver<Recorded>,
}

/// The thread of files.
pub(in crate::store) struct FileWriter {
    records: Sqlite,
    uploads: Uploads,
    data: Arc<dyn Data>,
    shared: Arc<Shared>,
    /// At most one batch: while it is committed, the next is written.
    under_way: Option<UnderWay>,
    /// Of the chunks that were not handed to the writer yet.
    fates: Vec<Fate>,
    /// About a disk that is nearly full.
    complaint: Complaint,
}

impl FileWriter {
    pub(in crate::store) fn new(
        records: Sqlite,
        uploads: Uploads,
        data: Arc<dyn Data>,
        shared: Arc<Shared>,
    ) -> FileWriter {
        FileWriter {
            records,
            uploads,
            data,
            shared,
            under_way: None,
            fates: Vec::new(),
            complaint: Complaint::default(),
        }
    }

    pub(in crate::store) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        self.empty_trash();
        self.delete_unknown();
        loop {
            match shared.chunks.take(BATCH_CHUNKS, BATCH_BYTES, Duration::MAX) {
                Jobs::Jobs(jobs, _) => self.batch(jobs),
                Jobs::Nothing => {}
                Jobs::Closed => return self.settle(),
            }
        }
    }

    fn batch(&mut self, jobs: Vec<FileJob>) {
        self.look_at_disk();
        self.catch_up();
        let mut trash = false;
        for job in jobs {
            match job {
                FileJob::Chunk(chunk) => self.take(&chunk),
                FileJob::Trash => trash = true,
            }
            if self.uploads.is_full() {
                self.hand_over();
            }
        }
        self.hand_over();
        if trash {
            self.empty_trash();
        }
    }

    fn look_at_disk(&mut self) {
        if self.uploads.look_at_disk() {
            self.complaint.settle();
        } else if self.complaint.is_due(Instant::now()) {
            log::warn!("the disk is nearly full: uploads are refused, so that messages go on; free some space");
        }
    }

    fn take(&mut self, job: &ChunkJob) {
        let file = job.file;
        // A row is read only when nothing about it is under way.
        if !self.uploads.knows(file) && self.under_way.as_ref().is_some_and(|batch| batch.files.contains(&file)) {
            self.settle();
        }
        let chunk = Chunk { account: job.account, file, now: job.now, offset: job.offset, data: &job.data };
        let (records, shared) = (&self.records, &self.shared);
        let taken = self.uploads.take(&chunk, || shared.gate.read(|| records.upload(chunk.account, file)));
        self.fates.push(Fate { ticket: job.ticket, file, taken });
    }

    /// Puts what was taken on stable storage and hands it to the writer.
    fn hand_over(&mut self) {
        if self.fates.is_empty() {
            return;
        }
        let mut progress = self.uploads.sync();
        // What goes on from a record that was refused counts for nothing.
        self.settle();
        progress.retain(|progress| self.counts(progress));
        let mut fates = std::mem::take(&mut self.fates);
        for fate in &mut fates {
            if let (Ok(_), Some(refused)) = (fate.taken, self.uploads.refusal(fate.file)) {
                fate.taken = Err(refused);
            }
        }
        self.uploads.settle();
        // As they are answered, and so told to others: the numbers of the messages that they become rise with it.
        let ends: HashMap<FileId, usize> =
            fates.iter().enumerate().filter_map(|(at, fate)| Some((fate.ends()?, at))).collect();
        progress.sort_by_key(|progress| ends.get(&progress.file));
        let (send, reply) = channel();
        let files = progress.iter().map(|progress| progress.file).collect();
        self.under_way = Some(UnderWay { files, reply });
        self.shared.writes.push(Job::Chunks(ChunkBatch { fates, progress, reply: send }), 0);
    }

    /// Whether a record still stands: its upload was not given up, or it is the one that says so.
    fn counts(&self, progress: &Progress) -> bool {
        progress.is_loss() || self.uploads.refusal(progress.file).is_none()
    }

    /// Hears what became of the last batch, where that is known: whoever was answered may act on it already.
    fn catch_up(&mut self) {
        match self.under_way.as_ref().map(|batch| batch.reply.try_recv()) {
            None | Some(Err(TryRecvError::Empty)) => {}
            Some(Ok(refused)) => self.learn(Some(refused)),
            Some(Err(TryRecvError::Disconnected)) => self.learn(None),
        }
        self.uploads.settle();
    }

    /// Waits for what became of the last batch.
    fn settle(&mut self) {
        if let Some(answer) = self.under_way.as_ref().map(|batch| batch.reply.recv()) {
            self.learn(answer.ok());
        }
    }

    /// Throws away what goes on from a record that was refused; all, where the writer has ended.
    fn learn(&mut self, refused: Option<Recorded>) {
        let Some(UnderWay { files, .. }) = self.under_way.take() else { return };
        let all_lost = || files.into_iter().map(|file| (file, Refused::Internal)).collect();
        for (file, refused) in refused.unwrap_or_else(all_lost) {
            self.uploads.forget(file, refused);
        }
    }

    /// Deletes what is in the trash; what cannot be deleted stays in it.
    fn empty_trash(&mut self) {
        let mut after = FileId(0);
        loop {
            let Ok(page) = self.shared.gate.read(|| self.records.trash(after, TRASH_PAGE)) else { return };
            let Some(last) = page.last() else { return };
            after = *last;
            let mut removed = Vec::with_capacity(page.len());
            for file in page {
                self.uploads.close(file);
                match self.data.remove(file) {
                    Ok(()) => removed.push(file),
                    Err(error) => log::error!("deleting the data of file {file}: {error}; it is tried again"),
                }
            }
            // Before the record goes: a name that came back would belong to nobody.
            match self.data.sync_names() {
                Ok(()) if removed.is_empty() => {}
                Ok(()) => self.shared.writes.push(Job::Emptied(removed), 0),
                Err(error) => return log::error!("deleting data of files: {error}; it is tried again"),
            }
        }
    }

    /// Deletes data that belongs to no file, as it lies there where an older copy of the database was put beside
    /// newer data. Only at the start: data is made by this thread, and never before its row is committed, so
    /// nothing that lies there now is on its way to a row.
    fn delete_unknown(&self) {
        match self.look_for_unknown() {
            Ok((0, _)) => {}
            Ok((count, true)) => {
                log::warn!(
                    "deleted the data of {count} files that are not in this database: it is older than they are"
                );
            }
            Ok((count, false)) => log::warn!(
                "there is data of {count} files, and this database never had one: it is left alone; put their database back, or delete it"
            ),
            Err(error) => log::error!("deleting data that belongs to no file: {error}; it is tried at the next start"),
        }
    }

    /// How much of the data belongs to no file, and whether that was deleted.
    fn look_for_unknown(&self) -> io::Result<(usize, bool)> {
        let failed = |_| io::Error::other("the database failed");
        // A database without a past is not the one of the data: whoever put it there may notice in time.
        let doomed = self.shared.gate.read(|| self.records.has_had_files()).map_err(failed)?;
        let (mut count, mut numbers) = (0, self.data.numbers()?);
        loop {
            let page = numbers.by_ref().take(TRASH_PAGE).collect::<io::Result<Vec<FileId>>>()?;
            if page.is_empty() {
                return Ok((count, doomed));
            }
            for file in self.shared.gate.read(|| self.records.unknown_files(&page)).map_err(failed)? {
                if doomed {
                    self.data.remove(file)?;
                }
                count += 1;
            }
        }
    }
}

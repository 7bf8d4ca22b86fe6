//! The threads of the store and the loop's handle to them. One file, because what is handed over, counted and
//! answered must be seen together.

use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::StoreError;
use super::complaint::Complaint;
use super::files::{ChunkBatch, ChunkJob, Data, FileJob, FileWriter, Recorded, Results, Uploads};
use super::queue::{Gate, Lane, Outbox, Queue, Taken, locked};
use super::readers::{read, read_parts};
use super::seal::Sealer;
use super::sqlite::{BatchLost, Fault, Guard, Sqlite, advice};
use crate::ops::{AccountId, DEVICES_MAX, Done, Op, OutsideChange, Query, Refused, Ticket};
use crate::protocol::{FileId, KeyRecord, Timestamp};

/// Most writes of one transaction: a commit's cost is shared by enough of them, and the first does not
/// wait for ever.
const BATCH_OPS: usize = 512;
/// Most bytes of bodies of one transaction, so that large ones do not make every answer late.
const BATCH_BYTES: usize = 4 << 20;
/// Writes that may be under way before the loop stops reading: some batches ahead of the disk.
const QUEUE_OPS: usize = 4096;
/// Bytes of bodies that may be under way: some batches too.
const QUEUE_BYTES: usize = 16 << 20;
/// Reads that may be under way.
const QUEUE_QUERIES: usize = 4096;
/// Bytes of answers that may wait for the loop before the reader thread pauses; one answer is at most
/// about a megabyte. Tests have less, because sealing is slow in a debug build.
pub(super) const ANSWER_BYTES: usize = if cfg!(test) { 1 << 20 } else { 8 << 20 };
/// Pages of the write-ahead log from which it is copied back to the database after a batch (16 MiB): the
/// more it holds, the more often a page was written before it is copied once. Tests have less.
const LOG_PAGES: i64 = if cfg!(test) { 64 } else { 4096 };
/// Pages from which reads are held up for it (64 MiB).
const LOG_PAGES_MAX: i64 = 4 * LOG_PAGES;
/// After so many jobs, or so many bytes, the log's length is looked at: messages let it grow by less than a quarter of
/// [`LOG_PAGES`] in between, the records of many uploads at once to less than [`LOG_PAGES_MAX`]. Looking costs as much as a
/// message. Tests look always.
const LOOK_JOBS: usize = if cfg!(test) { 1 } else { 64 };
/// See [`LOOK_JOBS`].
const LOOK_BYTES: usize = 1 << 20;
/// Bytes of one device in an answer, about: a bundle with all its keys and the longest name.
pub(super) const BUNDLE_BYTES: usize = 2048;
/// How often an idle writer looks for what operator commands changed.
const IDLE: Duration = Duration::from_secs(1);

/// Called from the threads when answers wait.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// What the store has to say, in the order in which it was committed.
#[derive(Debug)]
pub enum News {
    /// The answer to one request.
    Answer(Ticket, Done),
    /// A change that was made beside the daemon. What was answered before is older, what is answered
    /// behind it has seen it.
    Outside(OutsideChange),
}

/// Counters for `/admin stats` and tests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Transactions that are on stable storage.
    pub commits: u64,
    /// Writes in them.
    pub ops: u64,
    /// Writes in the largest of them.
    pub largest_batch: u64,
    /// Writes in the last of them.
    pub last_batch: u64,
    /// Transactions that were given up.
    pub failures: u64,
    /// Reads that were answered.
    pub queries: u64,
    /// Writes that wait or are under way.
    pub waiting_ops: u64,
    /// Reads that wait or are under way.
    pub waiting_queries: u64,
    /// Chunks that were answered.
    pub chunks: u64,
    /// Pieces of files that were read.
    pub parts: u64,
    /// Chunks that wait or are under way.
    pub waiting_chunks: u64,
    /// Pieces of files that wait or are under way.
    pub waiting_parts: u64,
}

pub(super) struct Write {
    ticket: Ticket,
    now: Timestamp,
    op: Op,
}

/// What the writer's queue holds.
pub(super) enum Job {
    Write(Write),
    /// From the thread of files.
    Chunks(ChunkBatch),
    /// From there, too: the data of these is deleted.
    Emptied(Vec<FileId>),
    /// Runs between batches, so that a test can break the disk at a known point.
    #[cfg(test)]
    Tamper(Box<dyn FnOnce(&Sqlite) + Send>),
}

/// A piece of a file that somebody wants to read.
pub(super) struct PartJob {
    pub(super) ticket: Ticket,
    pub(super) account: AccountId,
    pub(super) file: FileId,
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// One batch of answers, with what it takes off the queues.
#[derive(Default)]
pub(super) struct Delivery {
    pub(super) news: Vec<News>,
    pub(super) ops: usize,
    pub(super) op_bytes: usize,
    pub(super) queries: usize,
    pub(super) chunks: usize,
    pub(super) parts: usize,
}

/// What the data of files is reached with.
pub(super) struct FileAccess {
    pub(super) data: Arc<dyn Data>,
    pub(super) sealer: Arc<Sealer>,
    /// For the thread that writes, and the one that reads.
    pub(super) records: [Sqlite; 2],
}

pub(super) struct Shared {
    pub(super) writes: Queue<Job>,
    pub(super) reads: Queue<(Ticket, Query)>,
    pub(super) chunks: Queue<FileJob>,
    pub(super) parts: Queue<PartJob>,
    pub(super) outbox: Outbox<Delivery>,
    pub(super) stats: Mutex<StoreStats>,
    /// How long the last batch of writes took, in microseconds.
    commit_micros: AtomicU64,
    /// Every read passes it, so that the writer can make a moment without one.
    pub(super) gate: Gate,
    wake: Wake,
}

impl Shared {
    pub(super) fn deliver(&self, delivery: Delivery, lane: Lane, bytes: usize) {
        self.outbox.put(delivery, lane, bytes);
        (self.wake)();
    }
}

/// The loop's handle to the store. Ending it, also by dropping it, commits everything submitted.
pub struct Store {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<Sqlite>>,
    /// The reader, and the two threads of files: the one that writes first.
    others: Vec<JoinHandle<()>>,
    ops: usize,
    op_bytes: usize,
    queries: usize,
    chunks: usize,
    parts: usize,
    /// Held as long as the store lives: no second daemon starts on the directory.
    _lock: File,
}

impl Store {
    pub(super) fn start(
        sqlite: Sqlite,
        reader: Sqlite,
        files: FileAccess,
        lock: File,
        wake: Wake,
    ) -> Result<Store, StoreError> {
        let failed = |_| StoreError::Died;
        let shared = Arc::new(Shared {
            writes: Queue::new(),
            reads: Queue::new(),
            chunks: Queue::new(),
            parts: Queue::new(),
            outbox: Outbox::new(),
            stats: Mutex::default(),
            commit_micros: AtomicU64::new(0),
            gate: Gate::default(),
            wake,
        });
        let seen_version = sqlite.data_version().map_err(failed)?;
        let seen = sqlite.last_announcement().map_err(failed)?;
        let FileAccess { data, sealer, records: [for_writing, for_reading] } = files;
        let disk = Arc::clone(&data);
        let writer = Writer {
            sqlite,
            shared: Arc::clone(&shared),
            disk,
            seen,
            seen_version,
            unlooked: (0, 0),
            complaint: Complaint::default(),
        };
        let uploads = Uploads::new(Arc::clone(&data), Arc::clone(&sealer));
        let files = FileWriter::new(for_writing, uploads, Arc::clone(&data), Arc::clone(&shared));
        let io = |error| StoreError::io(std::path::Path::new("thread"), error);
        let spawn = |name: &str| thread::Builder::new().name(name.to_owned());
        let writer = spawn("store-writer").spawn(move || writer.run()).map_err(io)?;
        let mut store = Store {
            shared: Arc::clone(&shared),
            writer: Some(writer),
            others: Vec::new(),
            ops: 0,
            op_bytes: 0,
            queries: 0,
            chunks: 0,
            parts: 0,
            _lock: lock,
        };
        // From here on a failure ends the threads that run.
        store.others.push(spawn("store-files").spawn(move || files.run()).map_err(io)?);
        let for_parts = Arc::clone(&shared);
        let parts = move || read_parts(&for_reading, &*data, &sealer, &for_parts);
        store.others.push(spawn("store-parts").spawn(parts).map_err(io)?);
        store.others.push(spawn("store-reader").spawn(move || read(&reader, &shared)).map_err(io)?);
        Ok(store)
    }

    /// Hands a write over. It is answered with [`News::Answer`] under `ticket`, in the order of the
    /// calls; chunks of files in an order of their own. `now` may go back, stored times do not. Never blocks.
    pub fn submit(&mut self, ticket: Ticket, now: Timestamp, op: Op) {
        self.submit_all(now, std::iter::once((ticket, op)));
    }

    /// Hands several writes over, in order: the writer finds all of them at once, so that a commit that begins now
    /// has not only the first.
    pub fn submit_all(&mut self, now: Timestamp, writes: impl Iterator<Item = (Ticket, Op)>) {
        let Store { shared, ops, op_bytes, chunks, .. } = self;
        shared.writes.push_all(writes.filter_map(|(ticket, op)| {
            if let Op::WriteChunk { account, file, offset, data } = op {
                *chunks += 1;
                let weight = data.len();
                let job = ChunkJob { ticket, now, account, file, offset, data };
                shared.chunks.push(FileJob::Chunk(job), weight);
                return None;
            }
            let weight = weight(&op);
            *ops += 1;
            *op_bytes = op_bytes.saturating_add(weight);
            Some((Job::Write(Write { ticket, now, op }), weight))
        }));
    }

    /// Hands a read over. It sees at least everything answered before this call. Never blocks.
    pub fn ask(&mut self, ticket: Ticket, query: Query) {
        if let Query::FilePart { account, file, offset, length } = query {
            self.parts += 1;
            return self.shared.parts.push(PartJob { ticket, account, file, offset, length }, 0);
        }
        self.queries += 1;
        self.shared.reads.push((ticket, query), 0);
    }

    /// Whether more may be handed over. While this is false the loop reads no socket; what one turn still
    /// adds is bounded by one request for each connection. Files do not count, so that no transfer delays a
    /// message: the core bounds how many chunks and pieces are under way.
    pub fn has_room(&self) -> bool {
        self.ops < QUEUE_OPS && self.op_bytes < QUEUE_BYTES && self.queries < QUEUE_QUERIES
    }

    /// Whether something handed over was not drained yet.
    pub fn is_busy(&self) -> bool {
        self.ops > 0 || self.queries > 0 || self.chunks > 0 || self.parts > 0
    }

    /// Whether all threads live. One that does not is a defect of ours, and its requests are never
    /// answered: the daemon has to end, and to be started again.
    pub fn is_running(&self) -> bool {
        self.writer.as_ref().is_some_and(|thread| !thread.is_finished())
            && self.others.iter().all(|thread| !thread.is_finished())
    }

    /// Whether there is something to take. Costs no lock, so that it can be asked often; what comes at this
    /// very moment may be missed until the next [`Wake`].
    pub fn has_news(&self) -> bool {
        self.shared.outbox.is_filled()
    }

    /// Whether a write is under way that will probably be answered within this time, as the last was.
    pub fn commits_within(&self, limit: Duration) -> bool {
        self.ops > 0 && Duration::from_micros(self.shared.commit_micros.load(Ordering::Relaxed)) <= limit
    }

    /// Takes everything that was answered since the last call. Answers whether writes were.
    pub fn drain(&mut self, mut each: impl FnMut(News)) -> bool {
        let mut committed = false;
        for delivery in self.shared.outbox.take() {
            committed |= delivery.ops > 0;
            self.ops = self.ops.saturating_sub(delivery.ops);
            self.op_bytes = self.op_bytes.saturating_sub(delivery.op_bytes);
            self.queries = self.queries.saturating_sub(delivery.queries);
            self.chunks = self.chunks.saturating_sub(delivery.chunks);
            self.parts = self.parts.saturating_sub(delivery.parts);
            delivery.news.into_iter().for_each(&mut each);
        }
        committed
    }

    /// The counters.
    pub fn stats(&self) -> StoreStats {
        let stats = *locked(&self.shared.stats);
        StoreStats {
            waiting_ops: self.ops as u64,
            waiting_queries: self.queries as u64,
            waiting_chunks: self.chunks as u64,
            waiting_parts: self.parts as u64,
            ..stats
        }
    }

    /// Ends the store: commits and answers everything handed over, then empties the write-ahead log.
    /// Blocks until that is done; answers that were not drained go to `each`.
    ///
    /// # Errors
    /// [`StoreError::Died`] where a thread had ended before, and what the disk says to the last copying
    /// back, in which case the write-ahead log stays and is read at the next start.
    pub fn shutdown(mut self, each: impl FnMut(News)) -> Result<(), StoreError> {
        let ended = self.end();
        self.drain(each);
        ended
    }

    fn end(&mut self) -> Result<(), StoreError> {
        self.shared.reads.close();
        self.shared.chunks.close();
        self.shared.parts.close();
        self.shared.outbox.close();
        // The thread of files has its last records committed before the writer may end.
        let mut ended = true;
        for thread in self.others.drain(..) {
            ended &= thread.join().is_ok();
        }
        self.shared.writes.close();
        let Some(writer) = self.writer.take() else { return Ok(()) };
        let sqlite = writer.join().map_err(|_| StoreError::Died)?;
        if !ended {
            return Err(StoreError::Died);
        }
        sqlite.checkpoint_all().map_err(|lost| StoreError::lost("emptying the write-ahead log", lost))
    }

    #[cfg(test)]
    pub(super) fn tamper(&self, tamper: impl FnOnce(&Sqlite) + Send + 'static) {
        self.shared.writes.push(Job::Tamper(Box::new(tamper)), 0);
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            log::error!("ending the store: {error}");
        }
    }
}

/// Bytes that a write brings into the transaction, about.
fn weight(op: &Op) -> usize {
    match op {
        Op::Append { targets, body, .. } => targets.len().saturating_mul(body.len() + 128),
        Op::AutoAck { marks, .. } => marks.len() * 64,
        Op::PutKeys { record, .. } => record_bytes(record) + 256,
        // What it brings out, which waits for the loop as the others wait for the disk.
        Op::TakeBundles { device: None, .. } => DEVICES_MAX * BUNDLE_BYTES,
        Op::TakeBundles { device: Some(_), .. } => BUNDLE_BYTES,
        Op::AddSignal { body, .. } => body.len() + 128,
        Op::AddRoster { entry, .. } => entry.len() + 128,
        _ => 256,
    }
}

fn record_bytes(record: &KeyRecord) -> usize {
    match record {
        KeyRecord::Certificate(bytes) | KeyRecord::DeviceList(bytes) => bytes.len(),
        KeyRecord::SignedPrekey(key) | KeyRecord::LastResort(key) => key.bytes.len(),
        KeyRecord::OneTime(_, keys) => keys.iter().map(|key| key.bytes.len()).sum(),
        KeyRecord::Forget => 0,
    }
}

// ---- the writer ----------------------------------------------------------------------------------

struct Writer {
    sqlite: Sqlite,
    shared: Arc<Shared>,
    /// Looked at before an upload begins.
    disk: Arc<dyn Data>,
    /// The last announcement that was handed on.
    seen: i64,
    /// `PRAGMA data_version` when announcements were looked for last.
    seen_version: i64,
    /// Jobs, and bytes, since the log's length was looked at.
    unlooked: (usize, usize),
    /// About a failing disk.
    complaint: Complaint,
}

/// What a transaction answers.
struct Answers {
    answers: Vec<News>,
    /// The records that were refused, for each batch of chunks.
    recorded: Vec<Recorded>,
}

impl Job {
    fn chunks(&self) -> Option<&ChunkBatch> {
        if let Job::Chunks(batch) = self { Some(batch) } else { None }
    }
}

/// Answers a job whose transaction was lost.
fn lose(job: &Job) -> Vec<News> {
    let internal = |ticket| News::Answer(ticket, Done::Op(Err(Refused::Internal)));
    match job {
        Job::Write(write) => vec![internal(write.ticket)],
        Job::Chunks(batch) => {
            // What was refused before stays refused; all else has no record.
            let lost = batch.progress.iter().map(|progress| (progress.file, Refused::Internal)).collect();
            let _ = batch.reply.send(lost);
            let answer = |(ticket, result)| News::Answer(ticket, Done::Op(result));
            batch.answers(&Results::new()).into_iter().map(answer).collect()
        }
        _ => Vec::new(),
    }
}

/// What operator commands changed, and how far that was read.
struct Outside {
    seen: i64,
    version: i64,
    changes: Vec<OutsideChange>,
}

/// Lets nobody wait for a writer that has ended, also by a panic.
struct Ending<'a>(&'a Shared);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.writes.abandon();
    }
}

impl Writer {
    fn run(mut self) -> Sqlite {
        let shared = Arc::clone(&self.shared);
        let _end = Ending(&shared);
        loop {
            match shared.writes.take(BATCH_OPS, BATCH_BYTES, IDLE) {
                Taken::Jobs(jobs, weight) => self.batch(jobs, weight),
                Taken::Nothing => self.idle(),
                Taken::Closed => return self.sqlite,
            }
        }
    }

    /// Commits a batch, then answers it.
    fn batch(&mut self, jobs: Vec<Job>, weight: usize) {
        #[cfg(test)]
        let jobs = self.tamper(jobs);
        if jobs.is_empty() {
            return self.idle();
        }
        self.unlooked = (self.unlooked.0 + jobs.len(), self.unlooked.1 + weight);
        let ops = jobs.iter().filter(|job| matches!(job, Job::Write(_))).count();
        let chunks = jobs.iter().map(|job| if let Job::Chunks(batch) = job { batch.fates.len() } else { 0 }).sum();
        let begun = Instant::now();
        self.look_at_disk(&jobs);
        let mut outside = Outside { seen: self.seen, version: self.seen_version, changes: Vec::new() };
        let mut committed = self.transact(&jobs, Guard::NotForAppends, &mut outside);
        if matches!(committed, Err(BatchLost::Unguarded)) {
            self.sqlite.rollback();
            committed = self.transact(&jobs, Guard::Always, &mut outside);
        }
        let took = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.shared.commit_micros.store(took, Ordering::Relaxed);
        // Taken up before the answers, also where this batch failed: others committed it.
        let mut news = self.take_up(outside);
        match committed {
            Ok(Answers { answers, recorded }) => {
                news.extend(answers);
                self.recovered();
                let mut stats = locked(&self.shared.stats);
                stats.commits += 1;
                stats.ops += ops as u64;
                stats.chunks += chunks as u64;
                stats.last_batch = ops as u64;
                stats.largest_batch = stats.largest_batch.max(ops as u64);
                drop(stats);
                // Before the answers: who is answered may go on at once.
                for (batch, refused) in jobs.iter().filter_map(Job::chunks).zip(recorded) {
                    let _ = batch.reply.send(refused);
                }
            }
            Err(lost) => {
                self.sqlite.rollback();
                self.complain(ops, &lost);
                locked(&self.shared.stats).failures += 1;
                for job in &jobs {
                    news.extend(lose(job));
                }
            }
        }
        self.shared.deliver(Delivery { news, ops, op_bytes: weight, chunks, ..Delivery::default() }, Lane::Records, 0);
        if self.sqlite.take_trashed() {
            self.shared.chunks.push(FileJob::Trash, 0);
        }
        // After the answers, so that none waits for it.
        if let Err(lost) = self.checkpoint() {
            self.complain(0, &lost);
        }
    }

    /// Looks how much uploads may take, where one begins.
    fn look_at_disk(&self, jobs: &[Job]) {
        if jobs.iter().any(|job| matches!(job, Job::Write(Write { op: Op::BeginUpload { .. }, .. }))) {
            let spare = self.disk.spare().unwrap_or_else(|error| {
                log::error!("asking how much of the disk is free: {error}");
                u64::MAX
            });
            self.sqlite.set_spare(spare);
        }
    }

    #[cfg(test)]
    fn tamper(&self, jobs: Vec<Job>) -> Vec<Job> {
        let mut rest = Vec::with_capacity(jobs.len());
        for job in jobs {
            match job {
                Job::Tamper(tamper) => tamper(&self.sqlite),
                job => rest.push(job),
            }
        }
        rest
    }

    /// Copies the write-ahead log back once it has grown long.
    fn checkpoint(&mut self) -> Result<(), BatchLost> {
        let (jobs, bytes) = self.unlooked;
        if jobs < LOOK_JOBS && bytes < LOOK_BYTES {
            return Ok(());
        }
        self.unlooked = (0, 0);
        let pages = self.sqlite.log_pages()?;
        // It can begin anew only after a moment in which nobody reads from it. Reads that follow each other
        // closely leave none, so one is made. A backup that is under way is not waited for.
        match pages {
            LOG_PAGES_MAX.. => self.shared.gate.hold_up(|| self.sqlite.checkpoint()),
            LOG_PAGES.. => self.sqlite.checkpoint(),
            _ => Ok(()),
        }
    }

    /// One transaction; its answers, once they are on stable storage.
    fn transact(&self, jobs: &[Job], guard: Guard, outside: &mut Outside) -> Result<Answers, BatchLost> {
        self.sqlite.begin()?;
        // Nobody else can commit from here on, so what is found now is what lies in front of this batch.
        *outside = self.outside()?;
        let mut answers = Vec::with_capacity(jobs.len());
        let mut recorded = Vec::new();
        let answer = |(ticket, result)| News::Answer(ticket, Done::Op(result));
        for job in jobs {
            match job {
                Job::Write(Write { ticket, now, op }) => {
                    answers.push(answer((*ticket, self.sqlite.apply(*now, op, guard)?)));
                }
                Job::Chunks(batch) => {
                    let mut results = Results::new();
                    for progress in &batch.progress {
                        results.insert(progress.file, self.sqlite.record(progress)?);
                    }
                    answers.extend(batch.answers(&results).into_iter().map(answer));
                    let refused = results.into_iter().filter_map(|(file, result)| Some((file, result.err()?)));
                    recorded.push(refused.collect());
                }
                // What fails stays in the trash.
                Job::Emptied(files) => drop(self.sqlite.empty_trash(files)?),
                #[cfg(test)]
                Job::Tamper(_) => {}
            }
        }
        self.sqlite.commit()?;
        Ok(Answers { answers, recorded })
    }

    /// Goes on from what operator commands changed.
    fn take_up(&mut self, outside: Outside) -> Vec<News> {
        if outside.version != self.seen_version {
            // They may have deleted an account, and uploads with it.
            self.shared.chunks.push(FileJob::Trash, 0);
        }
        (self.seen, self.seen_version) = (outside.seen, outside.version);
        outside.changes.into_iter().map(News::Outside).collect()
    }

    /// What operator commands changed since the last look.
    fn outside(&self) -> Result<Outside, BatchLost> {
        let lost = |fault| match fault {
            Fault::Sql(error) => BatchLost::Engine(error),
            Fault::Refused(_) | Fault::Ours(_) => BatchLost::Engine(rusqlite::Error::InvalidQuery),
        };
        let version = self.sqlite.data_version().map_err(lost)?;
        if version == self.seen_version {
            return Ok(Outside { seen: self.seen, version, changes: Vec::new() });
        }
        let found = self.sqlite.announcements(self.seen).map_err(lost)?;
        let seen = found.last().map_or(self.seen, |(id, _)| *id);
        Ok(Outside { seen, version, changes: found.into_iter().map(|(_, change)| change).collect() })
    }

    /// Looks for what operator commands changed while nothing else happens.
    fn idle(&mut self) {
        match self.outside() {
            Ok(outside) => {
                let news = self.take_up(outside);
                if !news.is_empty() {
                    self.shared.deliver(Delivery { news, ..Delivery::default() }, Lane::Records, 0);
                }
            }
            Err(lost) => self.complain(0, &lost),
        }
    }

    fn complain(&mut self, ops: usize, lost: &BatchLost) {
        if self.complaint.is_due(Instant::now()) {
            let advice = match lost {
                BatchLost::Engine(error) => advice(error),
                BatchLost::Unguarded => "please report this as a defect",
            };
            log::error!("the store failed, {ops} writes were refused: {lost}; {advice}");
        }
    }

    fn recovered(&mut self) {
        if self.complaint.settle() {
            log::warn!("the store works again");
        }
    }
}

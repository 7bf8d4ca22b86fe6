//! The threads of the store and the loop's handle to them.

use std::fs::File;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::StoreError;
use super::queue::{Gate, Outbox, Queue, Taken, locked};
use super::sqlite::{BatchLost, Fault, Guard, Sqlite, advice};
use crate::ops::{Answer, DEVICES_MAX, Done, Entry, Op, OutsideChange, Query, Refused, Ticket};
use crate::protocol::{KeyRecord, Timestamp};

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
/// Bytes of one device in an answer, about: a bundle with all its keys and the longest name.
const BUNDLE_BYTES: usize = 2048;
/// How often an idle writer looks for what operator commands changed.
const IDLE: Duration = Duration::from_secs(1);
/// A disk that fails is logged at most this often.
const COMPLAINT_EVERY: Duration = Duration::from_secs(10);

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
}

struct Write {
    ticket: Ticket,
    now: Timestamp,
    op: Op,
}

/// What the writer's queue holds.
enum Job {
    Write(Write),
    /// Runs between batches, so that a test can break the disk at a known point.
    #[cfg(test)]
    Tamper(Box<dyn FnOnce(&Sqlite) + Send>),
}

/// One batch of answers, with what it takes off the queues.
struct Delivery {
    news: Vec<News>,
    ops: usize,
    op_bytes: usize,
    queries: usize,
}

struct Shared {
    writes: Queue<Job>,
    reads: Queue<(Ticket, Query)>,
    outbox: Outbox<Delivery>,
    stats: Mutex<StoreStats>,
    /// Every read passes it, so that the writer can make a moment without one.
    gate: Gate,
    wake: Wake,
}

impl Shared {
    fn deliver(&self, delivery: Delivery, bytes: usize) {
        self.outbox.put(delivery, bytes);
        (self.wake)();
    }
}

/// The loop's handle to the store. Ending it, also by dropping it, commits everything submitted.
pub struct Store {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<Sqlite>>,
    reader: Option<JoinHandle<()>>,
    ops: usize,
    op_bytes: usize,
    queries: usize,
    /// Held as long as the store lives: no second daemon starts on the directory.
    _lock: File,
}

impl Store {
    pub(super) fn start(sqlite: Sqlite, reader: Sqlite, lock: File, wake: Wake) -> Result<Store, StoreError> {
        let failed = |_| StoreError::Died;
        let shared = Arc::new(Shared {
            writes: Queue::new(),
            reads: Queue::new(),
            outbox: Outbox::new(),
            stats: Mutex::default(),
            gate: Gate::default(),
            wake,
        });
        let seen_version = sqlite.data_version().map_err(failed)?;
        let seen = sqlite.last_announcement().map_err(failed)?;
        let writer = Writer { sqlite, shared: Arc::clone(&shared), seen, seen_version, complained: None };
        let spawn = |name: &str| thread::Builder::new().name(name.to_owned());
        let io = |error| StoreError::io(std::path::Path::new("thread"), error);
        let writer = spawn("store-writer").spawn(move || writer.run()).map_err(io)?;
        let for_reader = Arc::clone(&shared);
        let reader = spawn("store-reader").spawn(move || read(&reader, &for_reader));
        let mut store =
            Store { shared, writer: Some(writer), reader: None, ops: 0, op_bytes: 0, queries: 0, _lock: lock };
        store.reader = Some(reader.map_err(io)?);
        Ok(store)
    }

    /// Hands a write over. It is answered with [`News::Answer`] under `ticket`, in the order of the
    /// calls. `now` may go back, stored times do not. Never blocks.
    pub fn submit(&mut self, ticket: Ticket, now: Timestamp, op: Op) {
        let weight = weight(&op);
        self.ops += 1;
        self.op_bytes = self.op_bytes.saturating_add(weight);
        self.shared.writes.push(Job::Write(Write { ticket, now, op }), weight);
    }

    /// Hands a read over. It sees at least everything answered before this call. Never blocks.
    pub fn ask(&mut self, ticket: Ticket, query: Query) {
        self.queries += 1;
        self.shared.reads.push((ticket, query), 0);
    }

    /// Whether more may be handed over. While this is false the loop reads no socket; what one turn still
    /// adds is bounded by one request for each connection.
    pub fn has_room(&self) -> bool {
        self.ops < QUEUE_OPS && self.op_bytes < QUEUE_BYTES && self.queries < QUEUE_QUERIES
    }

    /// Whether something handed over was not drained yet.
    pub fn is_busy(&self) -> bool {
        self.ops > 0 || self.queries > 0
    }

    /// Whether both threads live. One that does not is a defect of ours, and its requests are never
    /// answered: the daemon has to end, and to be started again.
    pub fn is_running(&self) -> bool {
        let lives = |running: bool| !running;
        self.writer.as_ref().is_some_and(|thread| lives(thread.is_finished()))
            && self.reader.as_ref().is_some_and(|thread| lives(thread.is_finished()))
    }

    /// Whether there is something to take. Costs no lock, so that it can be asked often; what comes at this
    /// very moment may be missed until the next [`Wake`].
    pub fn has_news(&self) -> bool {
        self.shared.outbox.is_filled()
    }

    /// Takes everything that was answered since the last call.
    pub fn drain(&mut self, mut each: impl FnMut(News)) {
        for delivery in self.shared.outbox.take() {
            self.ops = self.ops.saturating_sub(delivery.ops);
            self.op_bytes = self.op_bytes.saturating_sub(delivery.op_bytes);
            self.queries = self.queries.saturating_sub(delivery.queries);
            delivery.news.into_iter().for_each(&mut each);
        }
    }

    /// The counters.
    pub fn stats(&self) -> StoreStats {
        let stats = *locked(&self.shared.stats);
        StoreStats { waiting_ops: self.ops as u64, waiting_queries: self.queries as u64, ..stats }
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
        self.shared.writes.close();
        self.shared.reads.close();
        self.shared.outbox.close();
        let read = self.reader.take().map(JoinHandle::join);
        let Some(writer) = self.writer.take() else { return Ok(()) };
        let sqlite = writer.join().map_err(|_| StoreError::Died)?;
        if matches!(read, Some(Err(_))) {
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
    /// The last announcement that was handed on.
    seen: i64,
    /// `PRAGMA data_version` when announcements were looked for last.
    seen_version: i64,
    /// When a failing disk was logged last; `None` while it works.
    complained: Option<Instant>,
}

/// What operator commands changed, and how far that was read.
struct Outside {
    seen: i64,
    version: i64,
    changes: Vec<OutsideChange>,
}

impl Writer {
    fn run(mut self) -> Sqlite {
        let shared = Arc::clone(&self.shared);
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
        let mut writes = Vec::with_capacity(jobs.len());
        for job in jobs {
            match job {
                Job::Write(write) => writes.push(write),
                #[cfg(test)]
                Job::Tamper(tamper) => tamper(&self.sqlite),
            }
        }
        if writes.is_empty() {
            return self.idle();
        }
        let count = writes.len();
        let mut outside = Outside { seen: self.seen, version: self.seen_version, changes: Vec::new() };
        let mut committed = self.transact(&writes, Guard::NotForAppends, &mut outside);
        if matches!(committed, Err(BatchLost::Unguarded)) {
            self.sqlite.rollback();
            committed = self.transact(&writes, Guard::Always, &mut outside);
        }
        // Taken up before the answers, also where this batch failed: others committed it.
        (self.seen, self.seen_version) = (outside.seen, outside.version);
        let mut news: Vec<News> = outside.changes.into_iter().map(News::Outside).collect();
        match committed {
            Ok(answers) => {
                news.extend(answers);
                self.recovered();
                let mut stats = locked(&self.shared.stats);
                stats.commits += 1;
                stats.ops += count as u64;
                stats.last_batch = count as u64;
                stats.largest_batch = stats.largest_batch.max(count as u64);
            }
            Err(lost) => {
                self.sqlite.rollback();
                self.complain(count, &lost);
                locked(&self.shared.stats).failures += 1;
                let internal = |write: Write| News::Answer(write.ticket, Done::Op(Err(Refused::Internal)));
                news.extend(writes.into_iter().map(internal));
            }
        }
        self.shared.deliver(Delivery { news, ops: count, op_bytes: weight, queries: 0 }, 0);
        // After the answers, so that none waits for it.
        if let Err(lost) = self.checkpoint() {
            self.complain(0, &lost);
        }
    }

    /// Copies the write-ahead log back once it has grown long.
    fn checkpoint(&self) -> Result<(), BatchLost> {
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
    fn transact(&self, writes: &[Write], guard: Guard, outside: &mut Outside) -> Result<Vec<News>, BatchLost> {
        self.sqlite.begin()?;
        // Nobody else can commit from here on, so what is found now is what lies in front of this batch.
        *outside = self.outside()?;
        let mut answers = Vec::with_capacity(writes.len());
        for Write { ticket, now, op } in writes {
            answers.push(News::Answer(*ticket, Done::Op(self.sqlite.apply(*now, op, guard)?)));
        }
        self.sqlite.commit()?;
        Ok(answers)
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
            Ok(Outside { seen, version, changes }) => {
                (self.seen, self.seen_version) = (seen, version);
                if !changes.is_empty() {
                    let news = changes.into_iter().map(News::Outside).collect();
                    self.shared.deliver(Delivery { news, ops: 0, op_bytes: 0, queries: 0 }, 0);
                }
            }
            Err(lost) => self.complain(0, &lost),
        }
    }

    fn complain(&mut self, ops: usize, lost: &BatchLost) {
        if self.complained.is_none_or(|since| since.elapsed() >= COMPLAINT_EVERY) {
            let advice = match lost {
                BatchLost::Engine(error) => advice(error),
                BatchLost::Unguarded => "please report this as a defect",
            };
            log::error!("the store failed, {ops} writes were refused: {lost}; {advice}");
            self.complained = Some(Instant::now());
        }
    }

    fn recovered(&mut self) {
        if self.complained.take().is_some() {
            log::warn!("the store works again");
        }
    }
}

// ---- the reader ----------------------------------------------------------------------------------

fn read(sqlite: &Sqlite, shared: &Shared) {
    loop {
        match shared.reads.take(1, 1, Duration::MAX) {
            Taken::Jobs(jobs, _) => {
                for (ticket, query) in jobs {
                    shared.outbox.wait_for_room(ANSWER_BYTES);
                    let answer = shared.gate.read(|| sqlite.answer(&query));
                    let bytes = answer.as_ref().map_or(0, answer_bytes);
                    locked(&shared.stats).queries += 1;
                    let news = vec![News::Answer(ticket, Done::Query(answer))];
                    shared.deliver(Delivery { news, ops: 0, op_bytes: 0, queries: 1 }, bytes);
                }
            }
            Taken::Nothing => {}
            Taken::Closed => return,
        }
    }
}

/// Bytes that an answer holds, about.
fn answer_bytes(answer: &Answer) -> usize {
    let entries = |entries: &[Entry]| entries.iter().map(|entry| entry.body.len() + 160).sum();
    match answer {
        Answer::Page(page) => entries(&page.entries),
        Answer::Arrival(arrival) => entries(&arrival.entries),
        Answer::Rooms { rows, .. } => rows.iter().map(|row| row.topic.as_ref().map_or(0, String::len) + 160).sum(),
        Answer::Members(rows) => rows.len() * 96,
        Answer::Users { rows, .. } => rows.len() * 64,
        Answer::Accounts { rows, .. } => rows.len() * 96,
        Answer::UnreadRows(rows) => rows.len() * 96,
        Answer::Signals { rows, .. } => rows.iter().map(|row| row.body.len() + 160).sum(),
        Answer::Roster(page) => page.rows.iter().map(|(_, entry)| entry.len() + 64).sum(),
        Answer::DeviceCertificates(_) => DEVICES_MAX * BUNDLE_BYTES,
        _ => 256,
    }
}

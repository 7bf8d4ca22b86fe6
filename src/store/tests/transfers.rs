//! Files: durability, order and failing disks, on the threads and on real files.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::Ordering;
use std::time::Instant;

use rustix::io::Errno;

use super::super::files::Directory;
use super::faults::{Faults, Faulty};
use super::threads::{PATIENCE, Running, open};
use super::uploads::{begin, bytes_of, chunk, content};
use super::*;
use crate::protocol::FileId;
use crate::protocol::file::CHUNK_MAX;

impl Running {
    pub(super) fn begin(&mut self, who: &Person, to: &str, name: &str, bytes: &[u8]) -> Result<Upload, Refused> {
        self.apply(begin(who, to, name, bytes)).map(|outcome| match outcome {
            Outcome::Upload(upload) => *upload,
            other => panic!("{other:?}"),
        })
    }

    pub(super) fn chunk(
        &mut self,
        who: &Person,
        file: FileId,
        offset: usize,
        bytes: &[u8],
    ) -> Result<ChunkWritten, Refused> {
        self.apply(chunk(who, file, offset, bytes)).map(written)
    }

    /// Submits everything from `from` on, then waits.
    pub(super) fn pour(
        &mut self,
        who: &Person,
        file: FileId,
        bytes: &[u8],
        from: usize,
    ) -> Vec<Result<ChunkWritten, Refused>> {
        let pieces = bytes[from..].chunks(CHUNK_MAX);
        let count = pieces.len();
        let tickets: Vec<_> = (from..)
            .step_by(CHUNK_MAX)
            .zip(pieces)
            .map(|(at, piece)| self.submit(chunk(who, file, at, piece)))
            .collect();
        let answers = self.answers(count);
        assert_eq!(answers.iter().map(|(ticket, _)| *ticket).collect::<Vec<_>>(), tickets, "in their order");
        answers.into_iter().map(|(_, done)| op(done).map(written)).collect()
    }

    pub(super) fn send_file(&mut self, who: &Person, to: &str, name: &str, bytes: &[u8]) -> Finished {
        let upload = self.begin(who, to, name, bytes).unwrap();
        let answers = self.pour(who, upload.file, bytes, usize::try_from(upload.offset).unwrap());
        answers.into_iter().next_back().unwrap().unwrap().done.unwrap()
    }

    pub(super) fn part(&mut self, who: &Person, file: FileId, offset: u64, length: u64) -> Result<FilePart, Refused> {
        match self.ask(Query::FilePart { account: who.id, file, offset, length })? {
            Answer::FilePart(part) => Ok(part),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn read_file(&mut self, who: &Person, file: FileId) -> Vec<u8> {
        let mut bytes = Vec::new();
        loop {
            let part = self.part(who, file, bytes.len() as u64, 1 << 20).unwrap();
            bytes.extend(bytes_of(&part, bytes.len() as u64));
            if part.next == part.size {
                return bytes;
            }
        }
    }

    pub(super) fn data(&self, file: FileId) -> std::path::PathBuf {
        self.dir.path().join("files").join(file.to_string())
    }

    /// Ends the store, however it stands, and starts another on the directory.
    pub(super) fn restart(mut self) -> Running {
        drop(self.store.take());
        Running::start_in(self.dir)
    }
}

impl Running {
    fn start_faulty() -> (Running, Arc<Faults>) {
        let dir = tempfile::tempdir().unwrap();
        let (wake, rung) = bell();
        let faults = Arc::new(Faults::default());
        let data = Faulty(Directory::new(dir.path().join("files")).unwrap(), Arc::clone(&faults));
        let (store, _) = open(dir.path()).start_with(wake, Arc::new(data)).unwrap();
        (Running { dir, store: Some(store), rung, outside: Vec::new(), next: 0 }, faults)
    }

    /// Submits the pieces of some bytes; how many there are.
    fn submit_all(&mut self, who: &Person, file: FileId, bytes: &[u8], from: usize, to: usize) -> usize {
        let pieces = bytes[from..to].chunks(CHUNK_MAX);
        let count = pieces.len();
        for (at, piece) in (from..).step_by(CHUNK_MAX).zip(pieces) {
            self.submit(chunk(who, file, at, piece));
        }
        count
    }

    fn offsets(&mut self, count: usize) -> Vec<Result<u64, Refused>> {
        self.answers(count).into_iter().map(|(_, done)| op(done).map(|done| written(done).offset)).collect()
    }

    pub(super) fn wait_until(&mut self, what: &str, mut reached: impl FnMut(&mut Running) -> bool) {
        let since = Instant::now();
        while !reached(self) {
            assert!(since.elapsed() < PATIENCE, "{what}");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }

    /// Files in the trash, and data files on the disk.
    pub(super) fn remains(&mut self) -> (i64, usize) {
        let (send, receive) = std::sync::mpsc::channel();
        self.store().tamper(move |sqlite| send.send(sqlite.number("SELECT count(*) FROM trash")).unwrap());
        let trash = receive.recv_timeout(PATIENCE).unwrap();
        (trash, fs::read_dir(self.dir.path().join("files")).unwrap().count())
    }
}

fn op(done: Done) -> Result<Outcome, Refused> {
    match done {
        Done::Op(result) => result,
        Done::Query(other) => panic!("{other:?}"),
    }
}

fn written(outcome: Outcome) -> ChunkWritten {
    match outcome {
        Outcome::ChunkWritten(written) => *written,
        other => panic!("{other:?}"),
    }
}

fn raw_len(stored: u64) -> u64 {
    stored / 16_384 * (16_384 + 28)
}

#[test]
fn a_poured_file_arrives_and_is_read_back() {
    let mut running = Running::start();
    let [alice, bob, eve] = ["alice", "bob", "eve"].map(|name| running.person(name));
    let bytes = content(1, 3_000_000);
    let done = running.send_file(&alice, "bob", "a photo.jpg", &bytes);
    assert!(done.new && matches!(&done.to, Destination::User(person) if *person == bob));
    assert!(running.read_file(&bob, done.file.id) == bytes);
    assert!(running.read_file(&alice, done.file.id) == bytes);
    assert_eq!(running.part(&eve, done.file.id, 0, 10).unwrap_err(), Refused::NotFound);
    assert_eq!(running.part(&bob, done.file.id, 3_000_001, 10).unwrap_err(), Refused::Offset(3_000_000));
    assert_eq!(running.page(&bob, "alice"), ["a photo.jpg"]);
    let data = running.data(done.file.id);
    assert_eq!(fs::metadata(&data).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(fs::metadata(data.parent().unwrap()).unwrap().permissions().mode() & 0o7777, 0o700);
    let stored = fs::read(&data).unwrap();
    assert!(!stored.windows(16).any(|window| window == &bytes[..16]), "sealed");
    assert!(!running.store().is_busy());
}

#[test]
fn an_upload_survives_a_restart_wherever_it_was() {
    let mut running = Running::start();
    let [alice, bob] = ["alice", "bob"].map(|name| running.person(name));
    let bytes = content(2, 300_000);
    let file = running.begin(&alice, "bob", "x", &bytes).unwrap().file;
    let mut offset = 0;
    // Within the first block, at its end, behind it, in the middle of one, near the end.
    for to in [10, 16_384, 16_385, 100_000, 299_999] {
        let written = running.chunk(&alice, file, offset, &bytes[offset..to.min(offset + CHUNK_MAX)]).unwrap();
        offset = usize::try_from(written.offset).unwrap();
        running.pour(&alice, file, &bytes[..to], offset);
        offset = to;
        running = running.restart();
        let again = running.begin(&alice, "bob", "x", &bytes).unwrap();
        assert_eq!((again.file, again.offset), (file, to as u64));
        let stored = fs::metadata(running.data(file)).map_or(0, |data| data.len());
        assert_eq!(stored, raw_len(to as u64));
        assert_eq!(running.chunk(&alice, file, to + 1, b"x").unwrap_err(), Refused::Offset(to as u64));
    }
    let done = running.chunk(&alice, file, offset, &bytes[offset..]).unwrap().done.unwrap();
    assert!(running.read_file(&bob, done.file.id) == bytes);
    let mut running = running.restart();
    assert!(running.read_file(&bob, done.file.id) == bytes);
    assert!(!running.begin(&alice, "bob", "x", &bytes).unwrap().done.unwrap().new);
}

#[test]
fn what_was_written_and_never_acknowledged_is_written_over() {
    let mut running = Running::start();
    let [alice, bob] = ["alice", "bob"].map(|name| running.person(name));
    let bytes = content(3, 200_000);
    let file = running.begin(&alice, "bob", "x", &bytes).unwrap().file;
    running.pour(&alice, file, &bytes[..100_000], 0);
    drop(running.store.take());
    // As a kill between the writing and the commit leaves it: whole blocks, and half of one.
    let mut data = fs::read(running.data(file)).unwrap();
    data.extend([7; 20_000]);
    fs::write(running.data(file), data).unwrap();
    let mut running = Running::start_in(running.dir);
    let again = running.begin(&alice, "bob", "x", &bytes).unwrap();
    assert_eq!((again.file, again.offset), (file, 100_000));
    running.pour(&alice, file, &bytes, 100_000);
    assert!(running.read_file(&bob, file) == bytes);
    assert_eq!(fs::metadata(running.data(file)).unwrap().len(), 200_000 + 13 * 28);
}

#[test]
fn data_that_was_taken_away_is_said_and_sent_again() {
    let mut running = Running::start();
    let [alice, bob] = ["alice", "bob"].map(|name| running.person(name));
    let bytes = content(4, 200_000);
    let lost = running.begin(&alice, "bob", "x", &bytes).unwrap().file;
    running.pour(&alice, lost, &bytes[..100_000], 0);
    let whole = running.send_file(&alice, "bob", "whole", &bytes[..150_000]).file.id;
    let damaged = running.send_file(&alice, "bob", "damaged", &bytes[..150_001]).file.id;
    drop(running.store.take());
    let shorter = fs::read(running.data(lost)).unwrap();
    fs::write(running.data(lost), &shorter[..50_000]).unwrap();
    fs::remove_file(running.data(whole)).unwrap();
    let mut bits = fs::read(running.data(damaged)).unwrap();
    bits[100_000] ^= 1;
    fs::write(running.data(damaged), bits).unwrap();

    let mut running = Running::start_in(running.dir);
    assert_eq!(running.chunk(&alice, lost, 100_000, &bytes[100_000..110_000]).unwrap_err(), Refused::NotFound);
    let again = running.begin(&alice, "bob", "x", &bytes).unwrap();
    assert!(again.file != lost && again.offset == 0, "it begins anew");
    running.pour(&alice, again.file, &bytes, 0);
    assert!(running.read_file(&bob, again.file) == bytes);
    assert_eq!(running.part(&bob, whole, 0, 10).unwrap_err(), Refused::NotFound);
    assert_eq!(running.part(&bob, damaged, 98_304, 10).unwrap_err(), Refused::Internal, "no wrong bytes");
    let part = running.part(&bob, damaged, 0, 98_304).unwrap();
    assert!(bytes_of(&part, 0) == bytes[..98_304], "the other blocks are as they were");
    running.wait_until("the data of the void upload goes", |running| running.remains() == (0, 2));
}

#[test]
fn a_batch_is_one_sync_for_each_file_and_one_commit() {
    let (mut running, faults) = Running::start_faulty();
    let [alice, _] = ["alice", "bob"].map(|name| running.person(name));
    let files = [content(1, 2_000_000), content(2, 2_000_000), content(3, 500_000)];
    let ids = [0, 1, 2].map(|n| running.begin(&alice, "bob", "x", &files[n]).unwrap().file);
    // The first chunk is held in its sync, so that the others become one batch.
    faults.hold(true);
    let mut count = running.submit_all(&alice, ids[0], &files[0], 0, CHUNK_MAX);
    faults.wait_for(1);
    for at in 0..8 {
        let (from, to) = ((at + 1) * CHUNK_MAX, (at + 2) * CHUNK_MAX);
        count += running.submit_all(&alice, ids[0], &files[0], from, to);
        count += running.submit_all(&alice, ids[1], &files[1], from - CHUNK_MAX, to - CHUNK_MAX);
    }
    count += running.submit_all(&alice, ids[2], &files[2], 0, 500_000);
    assert_eq!(running.store().stats().waiting_chunks, count as u64);
    let (commits, syncs) = (running.store().stats().commits, faults.syncs.load(Ordering::SeqCst));
    faults.hold(false);
    assert!(running.answers(count).into_iter().all(|(_, done)| op(done).is_ok()));
    let stats = running.store().stats();
    assert_eq!((stats.commits - commits, faults.syncs.load(Ordering::SeqCst) - syncs), (2, 4));
    assert_eq!(faults.name_syncs.load(Ordering::SeqCst), 2, "once a batch that makes data");
    assert_eq!((stats.chunks, stats.waiting_chunks), (count as u64, 0));
}

#[test]
fn files_that_end_in_one_batch_are_told_in_the_order_of_their_numbers() {
    const FILES: usize = 8;
    let (mut running, faults) = Running::start_faulty();
    let [alice, _] = ["alice", "bob"].map(|name| running.person(name));
    let contents: Vec<Vec<u8>> = (0..=FILES).map(|n| content(n as u64, 20_000)).collect();
    let files: Vec<FileId> =
        contents.iter().map(|bytes| running.begin(&alice, "bob", "x", bytes).unwrap().file).collect();
    // The first holds up the others, so that they are one batch.
    faults.hold(true);
    running.submit(chunk(&alice, files[0], 0, &contents[0]));
    faults.wait_for(1);
    for (file, bytes) in files.iter().zip(&contents).skip(1).rev() {
        running.submit(chunk(&alice, *file, 0, bytes));
    }
    faults.hold(false);
    let answers = running.answers(FILES + 1);
    let numbers: Vec<MessageId> =
        answers.into_iter().map(|(_, done)| written(op(done).unwrap()).done.unwrap().id).collect();
    assert_eq!(numbers, (1..=FILES as u64 + 1).map(MessageId).collect::<Vec<_>>());
}

#[test]
fn a_transfer_delays_no_message_and_no_page() {
    let (mut running, faults) = Running::start_faulty();
    let [alice, bob] = ["alice", "bob"].map(|name| running.person(name));
    let bytes = content(5, 300_000);
    let done = running.send_file(&alice, "bob", "x", &bytes);
    let other = content(6, 300_000);
    let upload = running.begin(&alice, "bob", "y", &other).unwrap().file;
    faults.hold(true);
    let count = running.submit_all(&alice, upload, &other, 0, other.len());
    let query = Query::FilePart { account: bob.id, file: done.file.id, offset: 0, length: 1 << 20 };
    running.store().ask(Ticket(99), query);
    faults.wait_for(2);
    // Both disks stand still. Messages are stored, pages are read, and there is room for more.
    running.apply(append(&alice, "bob", "meanwhile")).unwrap();
    assert_eq!(running.page(&bob, "alice"), ["x", "meanwhile"]);
    let stats = running.store().stats();
    assert_eq!((stats.waiting_chunks, stats.waiting_parts, stats.waiting_ops), (count as u64, 1, 0));
    assert!(running.store().has_room() && running.store().is_busy() && running.store().is_running());
    faults.hold(false);
    assert_eq!(running.answers(count + 1).len(), count + 1);
    assert!(!running.store().is_busy());
}

#[test]
fn two_sessions_of_a_sender_race_and_one_hears_where_it_is() {
    let mut running = Running::start();
    let [alice, bob] = ["alice", "bob"].map(|name| running.person(name));
    let bytes = content(7, 20 * CHUNK_MAX);
    let file = running.begin(&alice, "bob", "x", &bytes).unwrap().file;
    for (at, piece) in bytes.chunks(CHUNK_MAX).enumerate() {
        running.submit(chunk(&alice, file, at * CHUNK_MAX, piece));
        running.submit(chunk(&alice, file, at * CHUNK_MAX, piece));
    }
    let answers = running.offsets(40);
    for (at, pair) in answers.chunks(2).enumerate() {
        let next = ((at + 1) * CHUNK_MAX) as u64;
        assert_eq!(pair, [Ok(next), Err(Refused::Offset(next))]);
    }
    assert!(running.read_file(&bob, file) == bytes);
}

#[test]
fn more_uploads_than_are_kept_open() {
    let mut running = Running::start();
    let [alice, bob] = ["alice", "bob"].map(|name| running.person(name));
    let files: Vec<_> = (0..60).map(|n| content(n, 150_000 + usize::try_from(n).unwrap())).collect();
    let ids: Vec<_> = files.iter().map(|bytes| running.begin(&alice, "bob", "x", bytes).unwrap().file).collect();
    let mut count = 0;
    for from in (0..150_060).step_by(50_000) {
        for (bytes, file) in files.iter().zip(&ids) {
            if from < bytes.len() {
                count += running.submit_all(&alice, *file, bytes, from, bytes.len().min(from + 50_000));
            }
        }
    }
    let open = fs::read_dir("/proc/self/fd").unwrap().count();
    assert!(running.answers(count).into_iter().all(|(_, done)| op(done).is_ok()));
    assert!(open < 1000);
    for (bytes, file) in files.iter().zip(&ids) {
        assert!(&running.read_file(&bob, *file) == bytes);
    }
}

// ---- what fails ----

#[test]
fn a_disk_without_room_refuses_and_lets_go_on() {
    for error in [Errno::NOSPC, Errno::DQUOT, Errno::FBIG] {
        let (mut running, faults) = Running::start_faulty();
        let [alice, bob] = ["alice", "bob"].map(|name| running.person(name));
        let bytes = content(8, 10 * CHUNK_MAX);
        let file = running.begin(&alice, "bob", "x", &bytes).unwrap().file;
        *faults.room.lock().unwrap() = Some((200_000, error));
        let answers = running.pour(&alice, file, &bytes, 0);
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 3, "196 and some KiB are three chunks");
        assert_eq!(*answers[3].as_ref().unwrap_err(), Refused::DiskLow);
        // Those behind it were sent before the answer.
        assert_eq!(*answers[4].as_ref().unwrap_err(), Refused::Offset(3 * CHUNK_MAX as u64));
        assert_eq!(running.chunk(&alice, file, 3 * CHUNK_MAX, &bytes[..CHUNK_MAX]).unwrap_err(), Refused::DiskLow);
        running.apply(append(&alice, "bob", "messages go on")).unwrap();
        assert_eq!(fs::metadata(running.data(file)).unwrap().len(), raw_len(3 * CHUNK_MAX as u64), "cut back");

        *faults.room.lock().unwrap() = None;
        let again = running.begin(&alice, "bob", "x", &bytes).unwrap();
        assert_eq!((again.file, again.offset), (file, 3 * CHUNK_MAX as u64));
        running.pour(&alice, file, &bytes, 3 * CHUNK_MAX);
        assert!(running.read_file(&bob, file) == bytes);
    }
}

#[test]
fn a_disk_that_is_nearly_full_is_left_to_messages() {
    let (mut running, faults) = Running::start_faulty();
    let [alice, bob] = ["alice", "bob"].map(|name| running.person(name));
    let bytes = content(9, 3 * CHUNK_MAX);
    let done = running.send_file(&alice, "bob", "before", &bytes[..100]);
    let file = running.begin(&alice, "bob", "x", &bytes).unwrap().file;
    faults.low.store(true, Ordering::SeqCst);
    assert_eq!(running.chunk(&alice, file, 0, &bytes[..CHUNK_MAX]).unwrap_err(), Refused::DiskLow);
    assert_eq!(running.begin(&alice, "bob", "y", &bytes[..5]).unwrap_err(), Refused::DiskLow);
    assert_eq!(running.begin(&alice, "bob", "empty", b"").unwrap_err(), Refused::DiskLow);
    running.apply(append(&alice, "bob", "messages go on")).unwrap();
    assert!(running.read_file(&bob, done.file.id) == bytes[..100]);
    faults.low.store(false, Ordering::SeqCst);
    running.pour(&alice, file, &bytes, 0);
    assert!(running.read_file(&bob, file) == bytes);
    // A disk has an end, and so has a key.
    let too_long = Refused::TooLong(FILE_BYTES_MAX);
    for (size, refused) in [(FILE_BYTES_MAX, Refused::DiskLow), (FILE_BYTES_MAX + 1, too_long), (u64::MAX, too_long)] {
        let mut huge = begin(&alice, "bob", "x", &bytes);
        if let Op::BeginUpload { size: announced, .. } = &mut huge {
            *announced = size;
        }
        assert_eq!(running.apply(huge).unwrap_err(), refused);
    }
}

#[test]
fn a_disk_that_fails_acknowledges_nothing() {
    let (mut running, faults) = Running::start_faulty();
    let [alice, bob] = ["alice", "bob"].map(|name| running.person(name));
    let bytes = content(10, 10 * CHUNK_MAX);
    let file = running.begin(&alice, "bob", "x", &bytes).unwrap().file;
    let half = 5 * CHUNK_MAX;
    let go_on = |running: &mut Running, from: usize| {
        let again = running.begin(&alice, "bob", "x", &bytes).unwrap();
        assert_eq!((again.file, again.offset), (file, from as u64));
    };
    // The name of the data.
    faults.name_sync_fails.store(true, Ordering::SeqCst);
    assert_eq!(running.chunk(&alice, file, 0, &bytes[..CHUNK_MAX]).unwrap_err(), Refused::Internal);
    faults.name_sync_fails.store(false, Ordering::SeqCst);
    go_on(&mut running, 0);
    let names = faults.name_syncs.load(Ordering::SeqCst);
    assert!(running.pour(&alice, file, &bytes[..half], 0).into_iter().all(|answer| answer.is_ok()));
    assert!(faults.name_syncs.load(Ordering::SeqCst) > names, "synced again before it is believed");

    // The data: of all that waited for the sync.
    faults.sync_fails.store(true, Ordering::SeqCst);
    for answer in running.pour(&alice, file, &bytes[..8 * CHUNK_MAX], half) {
        assert!(matches!(answer, Err(Refused::Internal | Refused::Offset(_))), "{answer:?}");
    }
    faults.sync_fails.store(false, Ordering::SeqCst);
    go_on(&mut running, half);

    // A write.
    *faults.room.lock().unwrap() = Some((100_000, Errno::IO));
    for answer in running.pour(&alice, file, &bytes[..8 * CHUNK_MAX], half).into_iter().skip(1) {
        assert!(matches!(answer, Err(Refused::Internal | Refused::Offset(_))), "{answer:?}");
    }
    *faults.room.lock().unwrap() = None;
    let upload = running.begin(&alice, "bob", "x", &bytes).unwrap();
    let from = usize::try_from(upload.offset).unwrap();
    assert!(from == half || from == half + CHUNK_MAX, "as far as a batch came before it");
    running.pour(&alice, file, &bytes, from);
    assert!(running.read_file(&bob, file) == bytes);
}

#[test]
fn a_lost_commit_takes_back_what_goes_on_from_it() {
    let (mut running, faults) = Running::start_faulty();
    let [alice, bob] = ["alice", "bob"].map(|name| running.person(name));
    let bytes = content(11, 6 * CHUNK_MAX);
    let file = running.begin(&alice, "bob", "x", &bytes).unwrap().file;
    running.pour(&alice, file, &bytes[..CHUNK_MAX], 0);
    let step = |running: &mut Running, from: usize| {
        running.submit(chunk(&alice, file, from * CHUNK_MAX, &bytes[from * CHUNK_MAX..(from + 1) * CHUNK_MAX]));
    };
    // The first batch waits for its commit, which fails; the second is written meanwhile.
    let release = running.hold();
    running.store().tamper(|sqlite| sqlite.fail_next_commit());
    faults.hold(true);
    step(&mut running, 1);
    faults.wait_for(1);
    step(&mut running, 2);
    faults.hold(false);
    let synced = faults.syncs.load(Ordering::SeqCst);
    running.wait_until("both are written", |_| faults.syncs.load(Ordering::SeqCst) >= synced.max(3));
    release.send(()).unwrap();
    assert_eq!(running.offsets(2), [Err(Refused::Internal), Err(Refused::Internal)]);
    assert_eq!(running.begin(&alice, "bob", "x", &bytes).unwrap().offset, CHUNK_MAX as u64);
    running.pour(&alice, file, &bytes, CHUNK_MAX);
    assert!(running.read_file(&bob, file) == bytes);
}

#[test]
fn a_drop_on_the_way_ends_an_upload_and_frees_the_disk() {
    let mut running = Running::start();
    let [alice, bob] = ["alice", "bob"].map(|name| running.person(name));
    let bytes = content(12, 10 * CHUNK_MAX);
    let file = running.begin(&alice, "bob", "x", &bytes).unwrap().file;
    running.pour(&alice, file, &bytes[..3 * CHUNK_MAX], 0);
    let count = running.submit_all(&alice, file, &bytes, 3 * CHUNK_MAX, 6 * CHUNK_MAX);
    running.submit(Op::DropFile { account: alice.id, file });
    let last = running.submit_all(&alice, file, &bytes, 6 * CHUNK_MAX, bytes.len());
    for (_, done) in running.answers(count + 1 + last) {
        let answer = op(done);
        assert!(matches!(answer, Ok(_) | Err(Refused::NotFound)), "{answer:?}");
    }
    assert_eq!(running.chunk(&alice, file, 10, b"x").unwrap_err(), Refused::NotFound);
    running.wait_until("the data goes", |running| running.remains() == (0, 0));
    let held = fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
    let ours = running.data(file).to_string_lossy().into_owned();
    assert!(!held.into_iter().any(|path| path.to_string_lossy().starts_with(&ours)), "nobody holds it open");

    // The same with a file that is whole, and with an account that the operator deletes.
    let done = running.send_file(&alice, "bob", "y", &bytes);
    running.apply(Op::DropFile { account: alice.id, file: done.file.id }).unwrap();
    assert_eq!(running.part(&bob, done.file.id, 0, 1).unwrap_err(), Refused::NotFound);
    running.wait_until("the data goes", |running| running.remains() == (0, 0));
    let file = running.begin(&alice, "bob", "z", &bytes).unwrap().file;
    running.pour(&alice, file, &bytes[..CHUNK_MAX], 0);
    open(running.dir.path()).delete_user(&name("alice"), at(9_000_000)).unwrap();
    running.wait_until("the data goes", |running| running.remains() == (0, 0));
}

#[test]
fn what_could_not_be_deleted_is_deleted_at_the_next_start() {
    let (mut running, faults) = Running::start_faulty();
    let [alice, _] = ["alice", "bob"].map(|name| running.person(name));
    let done = running.send_file(&alice, "bob", "x", &content(13, 100_000));
    faults.remove_fails.store(true, Ordering::SeqCst);
    let names = faults.name_syncs.load(Ordering::SeqCst);
    running.apply(Op::DropFile { account: alice.id, file: done.file.id }).unwrap();
    running.wait_until("it was tried", |_| faults.name_syncs.load(Ordering::SeqCst) > names);
    assert_eq!(running.remains(), (1, 1));
    let mut running = running.restart();
    running.wait_until("the data goes", |running| running.remains() == (0, 0));
}

#[test]
fn the_end_waits_for_every_chunk() {
    let mut running = Running::start();
    let [alice, bob] = ["alice", "bob"].map(|name| running.person(name));
    let bytes = content(14, 40 * CHUNK_MAX);
    let file = running.begin(&alice, "bob", "x", &bytes).unwrap().file;
    let count = running.submit_all(&alice, file, &bytes, 0, bytes.len());
    let (mut answered, mut done) = (0, None);
    running
        .store
        .take()
        .unwrap()
        .shutdown(|news| {
            if let super::super::News::Answer(_, Done::Op(Ok(outcome))) = news {
                answered += 1;
                done = written(outcome).done.or(done.take());
            }
        })
        .unwrap();
    assert_eq!((answered, done.unwrap().id), (count, MessageId(1)));
    assert!(Running::start_in(running.dir).read_file(&bob, file) == bytes);
}

//! Files: durability, order and failing disks, on the threads and on real files.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};

use rustix::io::Errno;

use super::super::files::{Data, Directory, Writing};
use super::threads::{Running, open};
use super::uploads::{begin, bytes_of, chunk, content};
use super::*;
use crate::protocol::FileId;
use crate::protocol::file::CHUNK_MAX;

impl Running {
    fn begin(&mut self, who: &Person, to: &str, name: &str, bytes: &[u8]) -> Result<Upload, Refused> {
        self.apply(begin(who, to, name, bytes)).map(|outcome| match outcome {
            Outcome::Upload(upload) => *upload,
            other => panic!("{other:?}"),
        })
    }

    fn chunk(&mut self, who: &Person, file: FileId, offset: usize, bytes: &[u8]) -> Result<ChunkWritten, Refused> {
        self.apply(chunk(who, file, offset, bytes)).map(written)
    }

    /// Submits everything from `from` on, then waits.
    fn pour(&mut self, who: &Person, file: FileId, bytes: &[u8], from: usize) -> Vec<Result<ChunkWritten, Refused>> {
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

    fn send_file(&mut self, who: &Person, to: &str, name: &str, bytes: &[u8]) -> Finished {
        let upload = self.begin(who, to, name, bytes).unwrap();
        let answers = self.pour(who, upload.file, bytes, usize::try_from(upload.offset).unwrap());
        answers.into_iter().next_back().unwrap().unwrap().done.unwrap()
    }

    fn part(&mut self, who: &Person, file: FileId, offset: u64, length: u64) -> Result<FilePart, Refused> {
        match self.ask(Query::FilePart { account: who.id, file, offset, length })? {
            Answer::FilePart(part) => Ok(part),
            other => panic!("{other:?}"),
        }
    }

    fn read_file(&mut self, who: &Person, file: FileId) -> Vec<u8> {
        let mut bytes = Vec::new();
        loop {
            let part = self.part(who, file, bytes.len() as u64, 1 << 20).unwrap();
            bytes.extend(bytes_of(&part, bytes.len() as u64));
            if part.next == part.size {
                return bytes;
            }
        }
    }

    fn data(&self, file: FileId) -> std::path::PathBuf {
        self.dir.path().join("files").join(file.to_string())
    }

    /// Ends the store, however it stands, and starts another on the directory.
    fn restart(mut self) -> Running {
        drop(self.store.take());
        Running::start_in(self.dir)
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

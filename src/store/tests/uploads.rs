//! Files: the rules on an engine in memory.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::protocol::file::CHUNK_MAX;
use crate::protocol::{FileId, FileName};

/// No limits.
pub(super) const FREE: FileLimits = FileLimits { quota: None, total: None };

/// Bytes that repeat nowhere near.
pub(super) fn content(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

pub(super) fn begin(sender: &Person, to: &str, name: &str, bytes: &[u8]) -> Op {
    Op::BeginUpload {
        sender: sender.clone(),
        target: target(to),
        name: FileName::parse(name).unwrap(),
        size: bytes.len() as u64,
        sha256: Sha256::of(bytes),
        limits: FREE,
    }
}

pub(super) fn chunk(who: &Person, file: FileId, offset: usize, bytes: &[u8]) -> Op {
    let data = STANDARD.encode(bytes).into();
    Op::WriteChunk { account: who.id, file, offset: offset as u64, data }
}

/// The bytes of a piece.
pub(super) fn bytes_of(part: &FilePart, offset: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (at, row) in &part.rows {
        assert_eq!(*at, offset + bytes.len() as u64);
        let piece = STANDARD.decode(row).unwrap();
        assert!(!piece.is_empty() && piece.len() <= CHUNK_MAX);
        bytes.extend(piece);
    }
    assert_eq!(part.next, offset + bytes.len() as u64);
    bytes
}

impl World {
    fn begin(&mut self, op: Op) -> Result<Upload, Refused> {
        self.apply(op).map(|outcome| match outcome {
            Outcome::Upload(upload) => *upload,
            other => panic!("{other:?}"),
        })
    }

    fn chunk(&mut self, who: &Person, file: FileId, offset: usize, bytes: &[u8]) -> Result<ChunkWritten, Refused> {
        self.apply(chunk(who, file, offset, bytes)).map(|outcome| match outcome {
            Outcome::ChunkWritten(written) => *written,
            other => panic!("{other:?}"),
        })
    }

    /// Sends a file in pieces of some length.
    fn send_file(&mut self, who: &Person, to: &str, name: &str, bytes: &[u8], piece: usize) -> Finished {
        let upload = self.begin(begin(who, to, name, bytes)).unwrap();
        if let Some(done) = upload.done {
            return done;
        }
        let mut offset = usize::try_from(upload.offset).unwrap();
        loop {
            let end = (offset + piece).min(bytes.len());
            let written = self.chunk(who, upload.file, offset, &bytes[offset..end]).unwrap();
            assert_eq!((written.file, written.offset), (upload.file, end as u64));
            offset = end;
            if let Some(done) = written.done {
                assert_eq!(offset, bytes.len());
                return done;
            }
        }
    }

    fn part(&self, who: &Person, file: FileId, offset: u64, length: u64) -> Result<FilePart, Refused> {
        match self.ask(Query::FilePart { account: who.id, file, offset, length })? {
            Answer::FilePart(part) => Ok(part),
            other => panic!("{other:?}"),
        }
    }

    fn read_file(&self, who: &Person, file: FileId, length: u64) -> Result<Vec<u8>, Refused> {
        let mut bytes = Vec::new();
        loop {
            let part = self.part(who, file, bytes.len() as u64, length)?;
            bytes.extend(bytes_of(&part, bytes.len() as u64));
            if part.next == part.size {
                return Ok(bytes);
            }
        }
    }
}

#[test]
fn a_file_of_any_length_in_pieces_of_any_length_comes_back() {
    let mut world = World::new();
    let [alice, bob] = world.people(["alice", "bob"]);
    let block = 16 * 1024;
    for (n, len) in [0, 1, 100, block - 1, block, block + 1, 5 * block, 200_000].into_iter().enumerate() {
        let pieces = [CHUNK_MAX, block + 1, block, 1000];
        // Few bytes would be the same file again.
        for piece in pieces.into_iter().take(if len < 100 { 1 } else { 4 }) {
            let bytes = content((n * 10 + piece) as u64, len);
            let name = format!("file {n} {piece}");
            let done = world.send_file(&alice, "bob", &name, &bytes, piece);
            assert!(done.new && done.name.as_str() == name && !done.file.gone);
            assert_eq!((done.file.size, done.file.sha256), (len as u64, Sha256::of(&bytes)));
            for length in [777, CHUNK_MAX as u64, 1 << 20] {
                if length > 1000 || len < 20_000 {
                    assert!(world.read_file(&bob, done.file.id, length).unwrap() == bytes, "{len} {piece} {length}");
                }
            }
        }
    }
}

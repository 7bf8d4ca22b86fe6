//! Files: the rules on an engine in memory.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::protocol::file::CHUNK_MAX;
use crate::protocol::{FileId, FileName};

/// No limits.
pub(super) const FREE: FileLimits = FileLimits { quota: None, total: None };

/// Bytes that repeat nowhere near.
pub(in crate::store) fn content(seed: u64, len: usize) -> Vec<u8> {
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

pub(in crate::store) fn begin(sender: &Person, to: &str, name: &str, bytes: &[u8]) -> Op {
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

#[test]
fn an_upload_goes_on_where_it_was() {
    let mut world = World::new();
    let [alice, _, carol] = world.people(["alice", "bob", "carol"]);
    let bytes = content(1, 100_000);
    let first = world.begin(begin(&alice, "bob", "first name", &bytes)).unwrap();
    assert_eq!((first.offset, first.done.is_none()), (0, true));
    world.chunk(&alice, first.file, 0, &bytes[..40_001]).unwrap();
    let again = world.begin(begin(&alice, "bob", "second name", &bytes)).unwrap();
    assert_eq!((again.file, again.offset), (first.file, 40_001));
    for other in [
        begin(&alice, "carol", "x", &bytes),
        begin(&carol, "bob", "x", &bytes),
        begin(&alice, "bob", "x", &bytes[..99_999]),
    ] {
        let other = world.begin(other).unwrap();
        assert!(other.file != first.file && other.offset == 0);
    }
    let done = world.send_file(&alice, "bob", "third name", &bytes, CHUNK_MAX);
    assert_eq!((done.file.id, done.name.as_str(), done.id), (first.file, "first name", MessageId(1)));
    // Once more: nothing is sent again.
    let known = world.begin(begin(&alice, "bob", "x", &bytes)).unwrap();
    let known_done = known.done.unwrap();
    assert_eq!((known.file, known.offset, known_done.new), (first.file, 100_000, false));
    assert_eq!((known_done.id, known_done.time, known_done.file), (done.id, done.time, done.file));
    assert_eq!(world.totals().messages, 1);
    assert_eq!(world.chunk(&alice, first.file, 40_001, &[1]).unwrap_err(), Refused::Offset(100_000));
    assert_eq!(world.chunk(&alice, first.file, 100_000, &[1]).unwrap_err(), Refused::TooLong(0));
}

#[test]
fn bad_chunks_are_refused_and_harm_nothing() {
    let mut world = World::new();
    let [alice, bob] = world.people(["alice", "bob"]);
    let bytes = content(2, 50_000);
    let file = world.begin(begin(&alice, "bob", "x", &bytes)).unwrap().file;
    world.chunk(&alice, file, 0, &bytes[..30_000]).unwrap();
    for (who, file) in [(&bob, file), (&alice, FileId(file.0 + 1)), (&alice, FileId(0)), (&alice, FileId(u64::MAX))] {
        assert_eq!(world.chunk(who, file, 30_000, &bytes[30_000..]).unwrap_err(), Refused::NotFound);
    }
    for offset in [0, 29_999, 30_001, usize::MAX] {
        assert_eq!(world.chunk(&alice, file, offset, &bytes[30_000..]).unwrap_err(), Refused::Offset(30_000));
    }
    for data in ["!!!!", "YQ", "YR==", "====", "Y Q=", "YQ==\n", ""] {
        let op = Op::WriteChunk { account: alice.id, file, offset: 30_000, data: data.into() };
        assert_eq!(world.refused(op), Refused::NotBase64, "{data:?}");
    }
    assert_eq!(world.chunk(&alice, file, 30_000, &[0; 20_001]).unwrap_err(), Refused::TooLong(20_000));
    let done = world.chunk(&alice, file, 30_000, &bytes[30_000..]).unwrap().done.unwrap();
    assert!(world.read_file(&bob, done.file.id, 1 << 20).unwrap() == bytes);
}

#[test]
fn other_bytes_than_announced_void_the_upload() {
    let mut world = World::new();
    let [alice, _] = world.people(["alice", "bob"]);
    let bytes = content(3, 40_000);
    let file = world.begin(begin(&alice, "bob", "x", &bytes)).unwrap().file;
    world.chunk(&alice, file, 0, &bytes[..20_000]).unwrap();
    let mut other = bytes[20_000..].to_vec();
    other[7] ^= 1;
    assert_eq!(world.chunk(&alice, file, 20_000, &other).unwrap_err(), Refused::Checksum);
    assert_eq!(world.chunk(&alice, file, 20_000, &bytes[20_000..]).unwrap_err(), Refused::NotFound);
    assert_eq!((world.rows("file"), world.rows("trash"), world.totals().file_bytes), (0, 0, 0));
    assert_eq!(world.totals().messages, 0);
    let again = world.begin(begin(&alice, "bob", "x", &bytes)).unwrap();
    assert!(again.offset == 0 && again.file > file, "numbers are never used again");

    let mut op = begin(&alice, "bob", "empty", b"");
    if let Op::BeginUpload { sha256, .. } = &mut op {
        *sha256 = Sha256([0; 32]);
    }
    assert_eq!(world.refused(op), Refused::Checksum);
    let done = world.begin(begin(&alice, "bob", "empty", b"")).unwrap().done.unwrap();
    assert_eq!((done.file.size, done.id, done.new), (0, MessageId(1), true));
    let part = world.part(&alice, done.file.id, 0, 100).unwrap();
    assert_eq!((part.rows.len(), part.next, part.size), (0, 0, 0));
}

#[test]
fn only_who_may_speak_sends_files() {
    let mut world = World::new();
    let [alice, bob, _] = world.people(["alice", "bob", "carol"]);
    let bytes = content(4, 60_000);
    assert_eq!(world.refused(begin(&alice, "nobody", "x", &bytes)), Refused::NoSuchUser);
    assert_eq!(world.refused(begin(&alice, "#none", "x", &bytes)), Refused::NoSuchRoom);
    world.join(&bob, "#open");
    world.create(&bob, "#hidden", true, false).unwrap();
    assert_eq!(world.refused(begin(&alice, "#open", "x", &bytes)), Refused::NotMember);
    assert_eq!(world.refused(begin(&alice, "#hidden", "x", &bytes)), Refused::NoSuchRoom);

    world.create(&alice, "#sealed", false, true).unwrap();
    assert_eq!(world.refused(begin(&alice, "#sealed", "x.jpg", &bytes)), Refused::E2eRequired);
    assert!(world.send_file(&alice, "#sealed", "sealed", &bytes, CHUNK_MAX).new);

    // Who leaves on the way goes on after coming back.
    world.join(&alice, "#open");
    let file = world.begin(begin(&alice, "#open", "x", &bytes)).unwrap().file;
    world.chunk(&alice, file, 0, &bytes[..20_000]).unwrap();
    world.leave(&alice, "#open");
    assert_eq!(world.chunk(&alice, file, 20_000, &bytes[20_000..40_000]).unwrap_err(), Refused::NotMember);
    assert_eq!(world.chunk(&alice, file, 20_000, &bytes[20_000..]).unwrap_err(), Refused::NotMember);
    assert_eq!(world.refused(begin(&alice, "#open", "x", &bytes)), Refused::NotMember);
    world.join(&alice, "#open");
    assert_eq!(world.begin(begin(&alice, "#open", "x", &bytes)).unwrap().offset, 20_000);
    let done = world.chunk(&alice, file, 20_000, &bytes[20_000..]).unwrap().done.unwrap();
    assert!(matches!(done.to, Destination::Room(name) if name == room("#open")));
    assert!(world.read_file(&bob, file, 1 << 20).unwrap() == bytes);

    // Who is erased on the way gets nothing, and sends nothing.
    let to_bob = world.begin(begin(&alice, "bob", "x", &bytes)).unwrap().file;
    let to_carol = world.begin(begin(&bob, "carol", "x", &bytes)).unwrap().file;
    world.chunk(&alice, to_bob, 0, &bytes[..20_000]).unwrap();
    world.unregister(&bob);
    assert_eq!(world.chunk(&alice, to_bob, 20_000, &bytes[20_000..]).unwrap_err(), Refused::NoSuchUser);
    assert_eq!(world.chunk(&bob, to_carol, 0, &bytes[..10]).unwrap_err(), Refused::NotFound);
    assert_eq!(world.refused(begin(&bob, "carol", "x", &bytes)), Refused::AuthFailed);
    world.apply(Op::DropFile { account: alice.id, file: to_bob }).unwrap();
    assert_eq!(world.rows("file"), 2, "those that are whole");
}

#[test]
fn limits_count_what_is_announced() {
    let mut world = World::new();
    let [alice, bob] = world.people(["alice", "bob"]);
    let limited = |who: &Person, seed: u64, len: usize, quota: Option<u64>, total: Option<u64>| {
        let mut op = begin(who, "bob", "x", &content(seed, len));
        if let Op::BeginUpload { limits, .. } = &mut op {
            *limits = FileLimits { quota, total };
        }
        op
    };
    let quota = Some(50_000);
    let file = world.begin(limited(&alice, 1, 40_000, quota, None)).unwrap().file;
    assert_eq!(world.refused(limited(&alice, 2, 10_001, quota, None)), Refused::Quota(50_000));
    assert!(world.begin(limited(&alice, 1, 40_000, Some(1), None)).is_ok(), "one that is there goes on");
    world.begin(limited(&alice, 3, 1, quota, None)).unwrap();
    assert_eq!(world.totals().file_bytes, 44_096, "a small file counts as a block");
    world.begin(limited(&alice, 4, 1, quota, None)).unwrap();
    assert_eq!(world.refused(limited(&alice, 5, 1, quota, None)), Refused::Quota(50_000));
    assert_eq!(world.refused(limited(&bob, 6, 60_000, None, Some(100_000))), Refused::Quota(100_000));
    world.begin(limited(&bob, 6, 50_000, None, Some(100_000))).unwrap();
    world.apply(Op::DropFile { account: alice.id, file }).unwrap();
    assert_eq!(world.totals().file_bytes, 58_192);
    let file = world.begin(limited(&alice, 2, 10_001, quota, None)).unwrap().file;
    let done = world.chunk(&alice, file, 0, &content(2, 10_001)).unwrap().done.unwrap();
    assert_eq!((world.totals().files, world.totals().file_bytes), (1, 68_193));
    world.apply(Op::DropFile { account: alice.id, file: done.file.id }).unwrap();
    assert_eq!((world.totals().files, world.totals().file_bytes), (0, 58_192));

    let mut begun = 0;
    let refused = loop {
        match world.begin(limited(&alice, 100 + begun, 16, None, None)) {
            Ok(_) => begun += 1,
            Err(refused) => break refused,
        }
    };
    assert_eq!((refused, begun), (Refused::Quota(UPLOADS_PER_ACCOUNT), UPLOADS_PER_ACCOUNT - 2));
}

#[test]
fn a_file_is_a_message_of_its_log() {
    let mut world = World::new();
    let [alice, bob] = world.people(["alice", "bob"]);
    world.join(&alice, "#a");
    world.join(&bob, "#a");
    world.say(&alice, "#a", "look:");
    let bytes = content(5, 70_000);
    let done = world.send_file(&alice, "#a", "photo.jpg", &bytes, CHUNK_MAX);
    world.say(&bob, "#a", "nice");
    assert_eq!((done.id, done.time <= at(world.now)), (MessageId(2), true));
    assert_eq!(world.counts(&bob, false), [("#a".to_owned(), 2, 1, 2)]);
    assert_eq!(world.counts(&alice, false), [("#a".to_owned(), 1, 3, 3)]);
    let check = |page: &Page, gone| {
        assert_eq!(bodies(page), ["look:", "photo.jpg", "nice"]);
        assert_eq!(shown(page)[0].file, None);
        assert_eq!(shown(page)[1].file, Some(FileRef { gone, ..done.file }));
    };
    check(&world.page(&bob, "#a", Bound::Newest, 9).unwrap(), false);
    check(&world.page(&bob, "#a", Bound::After(MessageId(0)), 9).unwrap(), false);
    assert_eq!(shown(&world.unread(&bob, 9, usize::MAX))[1].file, Some(done.file));
    let behind = world.open("bob").behind;
    assert_eq!(shown(&world.arrival(&bob, behind, 9).page)[1].file, Some(done.file));
    let range = Range { conversation: done.conversation, after: MessageId(0), upto: MessageId(3) };
    let Ok(Answer::Page(page)) = world.ask(Query::Backlog { ranges: vec![range], max_bytes: usize::MAX }) else {
        panic!()
    };
    check(&page, false);

    // It outlives its time, then its message does.
    let before = Some(at(world.now + 1));
    world.apply(Op::Sweep(Sweep { files_before: before, ..Sweep::default() })).unwrap();
    check(&world.page(&bob, "#a", Bound::Newest, 9).unwrap(), true);
    assert_eq!(world.part(&bob, done.file.id, 0, 10).unwrap_err(), Refused::NotFound);
    assert_eq!(world.chunk(&alice, done.file.id, 70_000, &[1]).unwrap_err(), Refused::NotFound);
    assert_eq!((world.totals().files, world.totals().file_bytes, world.rows("file")), (0, 0, 1));
    let again = world.send_file(&alice, "#a", "photo.jpg", &bytes, CHUNK_MAX);
    assert!(again.new && again.id == MessageId(4), "one that is gone is not found again");
    world.now += 10;
    world.sweep(Some(at(world.now)));
    assert_eq!((world.totals().messages, world.rows("file"), world.rows("trash")), (0, 0, 0));
    assert_eq!((world.totals().files, world.totals().file_bytes), (0, 0));
}

#[test]
fn uploads_that_do_not_grow_go() {
    let mut world = World::new();
    let [alice, _] = world.people(["alice", "bob"]);
    let (old, young) = (content(1, 50_000), content(2, 50_000));
    let stale = world.begin(begin(&alice, "bob", "old", &old)).unwrap().file;
    let fresh = world.begin(begin(&alice, "bob", "young", &young)).unwrap().file;
    world.chunk(&alice, stale, 0, &old[..20_000]).unwrap();
    world.now += 1000;
    let before = Some(at(world.now));
    world.chunk(&alice, fresh, 0, &young[..20_000]).unwrap();
    world.apply(Op::Sweep(Sweep { uploads_before: before, ..Sweep::default() })).unwrap();
    assert_eq!(world.chunk(&alice, stale, 20_000, &old[20_000..]).unwrap_err(), Refused::NotFound);
    assert!(world.chunk(&alice, fresh, 20_000, &young[20_000..]).unwrap().done.is_some());
    world.now += 1000;
    let before = Some(at(world.now));
    world.apply(Op::Sweep(Sweep { uploads_before: before, ..Sweep::default() })).unwrap();
    assert!(world.part(&alice, fresh, 0, 1).is_ok(), "one that is whole is no upload");
}

#[test]
fn an_upload_that_is_announced_again_is_not_given_up_then() {
    let mut world = World::new();
    let [alice, _] = world.people(["alice", "bob"]);
    let bytes = content(1, 50_000);
    let file = world.begin(begin(&alice, "bob", "x", &bytes)).unwrap().file;
    world.chunk(&alice, file, 0, &bytes[..20_000]).unwrap();
    world.now += 1000;
    let before = Some(at(world.now));
    let again = world.begin(begin(&alice, "bob", "x", &bytes)).unwrap();
    assert_eq!((again.file, again.offset), (file, 20_000));
    world.apply(Op::Sweep(Sweep { uploads_before: before, ..Sweep::default() })).unwrap();
    assert!(world.chunk(&alice, file, 20_000, &bytes[20_000..]).unwrap().done.is_some());
}

#[test]
fn the_sender_or_an_operator_drops_a_file() {
    let mut world = World::new();
    let [alice, bob, carol, eve] = world.people(["alice", "bob", "carol", "eve"]);
    for who in [&alice, &bob, &carol] {
        world.join(who, "#a");
    }
    let drop = |who: &Person, file| Op::DropFile { account: who.id, file };
    let file = |world: &mut World, who: &Person, to: &str, seed| {
        world.send_file(who, to, "x", &content(seed, 100), 100).file.id
    };
    let of_bob = file(&mut world, &bob, "#a", 1);
    assert_eq!(world.refused(drop(&eve, of_bob)), Refused::NotFound);
    assert_eq!(world.refused(drop(&carol, of_bob)), Refused::Forbidden);
    world.apply(drop(&alice, of_bob)).unwrap();
    assert_eq!(world.refused(drop(&alice, of_bob)), Refused::NotFound);
    assert_eq!(world.refused(drop(&bob, of_bob)), Refused::NotFound);
    let of_bob = file(&mut world, &bob, "#a", 2);
    world.leave(&bob, "#a");
    world.apply(drop(&bob, of_bob)).unwrap();
    let to_bob = file(&mut world, &carol, "bob", 3);
    assert_eq!(world.refused(drop(&bob, to_bob)), Refused::Forbidden, "nobody is an operator there");
    assert_eq!(world.refused(drop(&alice, to_bob)), Refused::NotFound);
    world.apply(drop(&carol, to_bob)).unwrap();
    let upload = world.begin(begin(&carol, "#a", "x", &content(4, 100))).unwrap().file;
    assert_eq!(world.refused(drop(&alice, upload)), Refused::NotFound, "nobody else sees it");
    world.apply(drop(&carol, upload)).unwrap();
    assert_eq!((world.totals().files, world.totals().file_bytes, world.rows("trash")), (0, 0, 0));
    assert_eq!((world.totals().messages, world.rows("file")), (3, 3), "what was said stays");
}

#[test]
fn a_room_that_comes_again_gets_nothing_of_the_one_before() {
    let mut world = World::new();
    let [alice, bob] = world.people(["alice", "bob"]);
    let bytes = content(6, 50_000);
    let first = world.join(&alice, "#a").room.id;
    let file = world.begin(begin(&alice, "#a", "x", &bytes)).unwrap().file;
    world.chunk(&alice, file, 0, &bytes[..20_000]).unwrap();
    world.leave(&alice, "#a");
    assert_eq!(world.totals().rooms, 0, "nobody said anything in it");
    assert_eq!(world.chunk(&alice, file, 20_000, &bytes[20_000..]).unwrap_err(), Refused::NotFound);
    let second = world.join(&bob, "#a").room.id;
    assert_ne!(first, second);
    world.join(&alice, "#a");
    assert_eq!(world.chunk(&alice, file, 20_000, &bytes[20_000..]).unwrap_err(), Refused::NotFound);
    assert!(matches!(world.ask(list(&alice, None)), Ok(Answer::Files { rows, .. }) if rows.is_empty()));
    assert_eq!(world.begin(begin(&alice, "#a", "x", &bytes)).unwrap().offset, 0, "another upload");
    world.sweep(None);
    let conversation = format!("conversation WHERE id = {}", first.0);
    assert_eq!((world.rows("file"), world.rows("orphan"), world.rows(&conversation)), (1, 0, 0));
    assert_eq!(world.totals().file_bytes, 50_000);
}

#[test]
fn what_nobody_can_read_any_more_goes() {
    let mut world = World::new();
    let [alice, bob] = world.people(["alice", "bob"]);
    let done = world.send_file(&alice, "bob", "x", &content(7, 100), 100);
    let room = world.send_file_to_room(&alice, &bob);
    world.unregister(&alice);
    world.sweep(None);
    assert!(world.part(&bob, done.file.id, 0, 1).is_ok(), "it stays as what was said does");
    assert_eq!(world.totals().files, 2);
    world.unregister(&bob);
    world.sweep(None);
    assert_eq!((world.totals().files, world.rows("file")), (1, 1), "the room's, as long as messages are kept");
    world.now += 10;
    world.sweep(Some(at(world.now)));
    assert_eq!((world.totals().files, world.totals().file_bytes, world.rows("trash")), (0, 0, 0));
    assert!(room > done.file.id);
}

fn list(who: &Person, to: Option<&str>) -> Query {
    Query::Files(FilesWanted { account: who.id, target: to.map(target), after: FileId(0), sha256: None, limit: 100 })
}

impl World {
    fn send_file_to_room(&mut self, one: &Person, other: &Person) -> FileId {
        self.join(one, "#shared");
        self.join(other, "#shared");
        self.send_file(one, "#shared", "x", &content(8, 100), 100).file.id
    }

    fn list(&self, query: Query) -> Vec<FileRow> {
        match self.ask(query).unwrap() {
            Answer::Files { rows, more: false } => rows,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn lists_show_what_one_may_read_and_what_one_sends() {
    let mut world = World::new();
    let [alice, bob, carol] = world.people(["alice", "bob", "carol"]);
    for who in [&alice, &bob] {
        world.join(who, "#a");
    }
    let bytes: Vec<_> = (0..7).map(|seed| content(seed, 30_000)).collect();
    let one = world.send_file(&alice, "bob", "one", &bytes[1], 30_000).file.id;
    let two = world.send_file(&bob, "#a", "two", &bytes[2], 30_000).file.id;
    let three = world.begin(begin(&alice, "#a", "three", &bytes[3])).unwrap().file;
    world.chunk(&alice, three, 0, &bytes[3][..20_000]).unwrap();
    let four = world.send_file(&carol, "alice", "four", &bytes[4], 30_000).file.id;
    let five = world.send_file(&bob, "bob", "five", &bytes[5], 30_000).file.id;
    let six = world.send_file(&carol, "carol", "six", &bytes[1], 30_000).file.id;
    let ids = |world: &World, query| world.list(query).iter().map(|row| row.id).collect::<Vec<_>>();
    assert_eq!(ids(&world, list(&alice, None)), [one, two, three, four]);
    assert_eq!(ids(&world, list(&bob, None)), [one, two, five]);
    assert_eq!(ids(&world, list(&carol, None)), [four, six]);
    assert_eq!(ids(&world, list(&alice, Some("#a"))), [two, three]);
    assert_eq!(ids(&world, list(&alice, Some("bob"))), [one]);
    assert_eq!(ids(&world, list(&bob, Some("carol"))), []);
    assert_eq!(world.ask(list(&carol, Some("#a"))).unwrap_err(), Refused::NotMember);
    assert_eq!(world.ask(list(&carol, Some("nobody"))).unwrap_err(), Refused::NoSuchUser);

    let row = &world.list(list(&alice, None))[2];
    assert_eq!((row.name.as_str(), row.target.to_string().as_str(), row.size), ("three", "#a", 30_000));
    assert_eq!((&row.sender, row.sha256, row.partial), (&alice, Sha256::of(&bytes[3]), Some(20_000)));
    let row = &world.list(list(&bob, None))[0];
    assert_eq!((row.partial, row.target.to_string().as_str(), &row.sender), (None, "bob", &alice));

    let of = |who: &Person, to: Option<&str>, seed: usize| {
        let Query::Files(wanted) = list(who, to) else { panic!() };
        Query::Files(FilesWanted { sha256: Some(Sha256::of(&bytes[seed])), ..wanted })
    };
    assert_eq!(ids(&world, of(&bob, None, 1)), [one]);
    assert_eq!(ids(&world, of(&carol, None, 1)), [six], "the same bytes elsewhere are no business of others");
    assert_eq!(ids(&world, of(&alice, None, 3)), [three]);
    assert_eq!(ids(&world, of(&alice, Some("#a"), 1)), []);
    assert_eq!(ids(&world, of(&alice, Some("carol"), 4)), [four]);
    assert_eq!(ids(&world, of(&bob, Some("carol"), 4)), []);

    let mut found = Vec::new();
    loop {
        let after = found.last().copied().unwrap_or_default();
        let query = FilesWanted { account: alice.id, target: None, after, sha256: None, limit: 1 };
        let Ok(Answer::Files { rows, more }) = world.ask(Query::Files(query)) else { panic!() };
        found.extend(rows.iter().map(|row| row.id));
        if !more {
            break;
        }
    }
    assert_eq!(found, [one, two, three, four]);
    world.apply(Op::DropFile { account: bob.id, file: two }).unwrap();
    assert_eq!(ids(&world, list(&alice, None)), [one, three, four], "what is gone is not listed");
}

#[test]
fn a_lost_batch_takes_its_chunks_back() {
    let mut world = World::new();
    let [alice, bob] = world.people(["alice", "bob"]);
    let bytes = content(9, 60_000);
    let file = world.begin(begin(&alice, "bob", "x", &bytes)).unwrap().file;
    world.chunk(&alice, file, 0, &bytes[..20_000]).unwrap();
    world.engine.begin().unwrap();
    world.chunk(&alice, file, 20_000, &bytes[20_000..40_000]).unwrap();
    assert!(world.chunk(&alice, file, 40_000, &bytes[40_000..]).unwrap().done.is_some());
    world.engine.rollback();
    assert_eq!(world.chunk(&alice, file, 40_000, &bytes[40_000..]).unwrap_err(), Refused::Offset(20_000));
    assert_eq!(world.totals().messages, 0);
    world.chunk(&alice, file, 20_000, &bytes[20_000..50_000]).unwrap();
    world.engine.begin().unwrap();
    world.apply(Op::DropFile { account: alice.id, file }).unwrap();
    world.engine.rollback();
    let done = world.chunk(&alice, file, 50_000, &bytes[50_000..]).unwrap().done.unwrap();
    assert_eq!(done.id, MessageId(1));
    assert!(world.read_file(&bob, file, 1 << 20).unwrap() == bytes);
}

#[test]
fn no_look_up_goes_through_all_files() {
    let world = World::new();
    for (sql, index) in [
        (
            "SELECT id FROM file WHERE sha256 = ?1 AND sender = ?2 AND state < 2 AND size = ?3 AND room IS ?4",
            "file_content",
        ),
        ("SELECT id FROM file WHERE conversation = ?1 AND state = 1 AND id > ?2 ORDER BY id LIMIT 1", "file_log"),
        ("SELECT id FROM file WHERE sender = ?1 AND state = 0", "file_sender"),
        ("SELECT id FROM file WHERE sender = ?1 AND state = 1 AND id > ?2 ORDER BY id LIMIT ?3", "file_own"),
        (
            "SELECT id FROM file WHERE sha256 = ?2 AND sender = ?1 AND state < 2 AND id > ?3
             ORDER BY id LIMIT ?4",
            "file_content",
        ),
        ("SELECT 1 FROM file WHERE room = ?1 AND state = 0 LIMIT 1", "file_room"),
        ("SELECT id FROM file WHERE state = 0 AND time < ?1 LIMIT ?2", "file_time"),
        (
            "SELECT f.id FROM file f JOIN marker m ON m.account = ?1 AND m.conversation = f.conversation
          WHERE f.sha256 = ?2 AND f.state < 2 AND f.id > ?3
            AND (?4 IS NULL OR f.conversation = ?4) ORDER BY f.id LIMIT ?5",
            "file_content",
        ),
        (
            "SELECT f.id FROM file f LEFT JOIN room r ON r.id = f.room LEFT JOIN account a ON a.id = f.receiver
          WHERE f.sender = ?1 AND f.state = 0 AND f.id > ?2
            AND (?3 IS NULL OR coalesce(r.name, a.name) = ?3) AND (?4 IS NULL OR f.sha256 = ?4)",
            "file_sender",
        ),
    ] {
        let plan = world.engine.records().plan(sql);
        assert!(plan.contains(index) && !plan.contains("SCAN"), "{sql}: {plan}");
    }
}

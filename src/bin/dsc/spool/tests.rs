use std::io::{Read, Write as _};

use downstream::e2e::file::{HEADER, Layout, Receiver};
use tempfile::TempDir;

use super::*;
use crate::error::Exit;

const NO_LIMIT: Limit = Limit { max_file: None, plain: false };

fn fresh() -> (TempDir, Spool) {
    let home = TempDir::new().unwrap();
    fs::set_permissions(home.path(), Permissions::from_mode(0o700)).unwrap();
    let spool = Spool::of(home.path());
    (home, spool)
}

fn quiet(_: u64) -> Result<(), Failure> {
    Ok(())
}

fn names() -> (&'static str, &'static str) {
    ("a.bin", "text/plain")
}

#[test]
fn what_is_sealed_opens_and_is_its_owners_alone() {
    let (_home, spool) = fresh();
    for size in [0, 1, 16_384, 100_000, 3 << 20] {
        let text: Vec<u8> = (0..size).map(|at: usize| (at / 5) as u8).collect();
        let held = spool.create().unwrap();
        let mut told = Vec::new();
        let mut tell = |done| {
            told.push(done);
            Ok(())
        };
        let file = seal(&mut &text[..], size as u64, &held, names(), &mut tell).unwrap();
        assert_eq!(told, (1..=size as u64 >> 20).map(|step| step << 20).collect::<Vec<_>>());
        assert_eq!(held.len().unwrap(), Layout::of(size as u64).unwrap().ct_len);
        assert_eq!(fs::metadata(&held.path).unwrap().permissions().mode() & 0o777, 0o600);
        let mut header = [0; HEADER];
        held.read_at(0, &mut header).unwrap();
        let mut receiver = Receiver::new(&file, &header).unwrap();
        let (mut at, mut opened) = (HEADER as u64, Vec::new());
        while let Some(count) = receiver.wants() {
            let mut sealed = vec![0; count];
            held.read_at(at, &mut sealed).unwrap();
            opened.extend_from_slice(&receiver.chunk(&sealed).unwrap());
            at += count as u64;
        }
        receiver.finish().unwrap();
        assert_eq!(opened, text);
        held.remove().unwrap();
    }
    assert_eq!(spool.ids().unwrap(), [] as [&str; 0]);
}

#[test]
fn no_two_copies_are_alike() {
    let (_home, spool) = fresh();
    let sealed: Vec<[u8; HEADER]> = (0..20)
        .map(|_| {
            let held = spool.create().unwrap();
            seal(&mut &b"the same"[..], 8, &held, names(), &mut quiet).unwrap();
            let mut header = [0; HEADER];
            held.read_at(0, &mut header).unwrap();
            header
        })
        .collect();
    for (at, header) in sealed.iter().enumerate() {
        assert!(!sealed[..at].contains(header));
    }
}

#[test]
fn a_source_that_changes_its_length_is_noticed() {
    let (_home, spool) = fresh();
    for (said, is) in [(20_000_u64, 19_999_usize), (20_000, 20_001), (16_384, 16_385), (16_384, 0), (0, 1)] {
        let held = spool.create().unwrap();
        let failure = seal(&mut &vec![7; is][..], said, &held, names(), &mut quiet).unwrap_err();
        assert!(failure.message.contains("was changed while it was read"), "{failure}");
        assert!(digest(&mut &vec![7; is][..], said, "a", &mut quiet).is_err());
    }
}

#[test]
fn a_source_that_changes_in_place_is_noticed() {
    let (home, _spool) = fresh();
    let path = home.path().join("a");
    fs::write(&path, "one").unwrap();
    let Opened::File(file, source) = open(&path).unwrap() else { panic!() };
    unchanged(&file, &source, "a").unwrap();
    // As soon as the clock of the file system has moved on.
    while fs::metadata(&path).unwrap().ctime_nsec() == source.times.1 as i64 % 1_000_000_000 {
        fs::write(&path, "two").unwrap();
    }
    unchanged(&file, &source, "a").unwrap_err();
}

#[test]
fn what_cannot_be_read_or_written_is_told() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the disk is tired"))
        }
    }
    let (_home, spool) = fresh();
    let held = spool.create().unwrap();
    let failure = seal(&mut Broken, 1, &held, names(), &mut quiet).unwrap_err();
    assert_eq!(failure.message, "a.bin cannot be read: the disk is tired");
    assert!(copy(&mut Broken, &held, "a", NO_LIMIT, &mut quiet).is_err());
    assert!(spool.scratch("a", NO_LIMIT).unwrap().fill(&mut Broken, &mut quiet).is_err());
    // A device that is always full stands for a disk that is.
    let file = OpenOptions::new().read(true).write(true).open("/dev/full").unwrap();
    let full = Held { id: String::new(), path: "/dev/full".into(), file };
    let failure = full.file().write_all(b"x").map_err(|error| full.failed(&error)).unwrap_err();
    assert!(failure.message.starts_with("the disk is full") && failure.hint.is_some(), "{failure:?}");
}

#[test]
fn streams_come_back_and_stand_on_no_disk() {
    let (home, spool) = fresh();
    for size in [0_usize, 1, 65_536, 65_537, 300_000] {
        let text: Vec<u8> =
            b"forty-two letters of clear text, over and over".iter().copied().cycle().take(size).collect();
        let mut scratch = spool.scratch("a", NO_LIMIT).unwrap();
        // In two ways, as readers and as writers give it.
        let (first, second) = text.split_at(size / 2);
        scratch.fill(&mut &first[..], &mut quiet).unwrap();
        scratch.write_all(second).unwrap();
        assert_eq!(spool.ids().unwrap(), [] as [&str; 0], "it has no name");
        let (length, mut whole) = scratch.finish().unwrap();
        let mut back = Vec::new();
        whole.read_to_end(&mut back).unwrap();
        assert_eq!((length, back), (size as u64, text));
    }
    // What is written is sealed.
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(true).open(home.path().join("x")).unwrap();
    let mut scratch = Scratch::new(file, home.path().join("x"), "a", NO_LIMIT).unwrap();
    scratch.write_all(&b"clear text ".repeat(20_000)).unwrap();
    drop(scratch.finish().unwrap());
    let written = fs::read(home.path().join("x")).unwrap();
    assert!(written.len() > 220_000 && !written.windows(11).any(|window| window == b"clear text "));
    // And no other piece opens in its place.
    let mut scratch = spool.scratch("a", NO_LIMIT).unwrap();
    scratch.write_all(&[7; 200_000]).unwrap();
    let (_, mut whole) = scratch.finish().unwrap();
    whole.skip_piece();
    assert!(whole.read_to_end(&mut Vec::new()).is_err());
}

#[test]
fn streams_end_at_what_can_be_sent() {
    let (_home, spool) = fresh();
    let limit = Limit { max_file: Some(1 << 20), plain: false };
    let mut scratch = spool.scratch("a", limit).unwrap();
    let failure = scratch.fill(&mut io::repeat(1), &mut quiet).unwrap_err();
    assert_eq!(failure.exit, Exit::Usage);
    let mut scratch = spool.scratch("a", limit).unwrap();
    io::copy(&mut io::repeat(1), &mut scratch).unwrap_err();
    assert_eq!(scratch.fault().unwrap().exit, Exit::Usage);
    let held = spool.create().unwrap();
    assert_eq!(copy(&mut io::repeat(1), &held, "a", limit, &mut quiet).unwrap_err().exit, Exit::Usage);
    // Sealed, a file is longer than it is.
    Limit { max_file: Some(328), plain: false }.check("a", 256).unwrap();
    Limit { max_file: Some(327), plain: false }.check("a", 0).unwrap_err();
    Limit { max_file: Some(327), plain: true }.check("a", 327).unwrap();
    Limit { max_file: Some(327), plain: true }.check("a", 328).unwrap_err();
    Limit { max_file: Some(0), plain: true }.check("a", 0).unwrap_err();
    Limit { max_file: None, plain: false }.check("a", u64::MAX).unwrap_err();
}

#[test]
fn one_at_a_time_has_a_file() {
    let (_home, spool) = fresh();
    assert_eq!(spool.ids().unwrap(), [] as [&str; 0], "a home that never sent anything");
    let held = spool.create().unwrap();
    let id = held.id().to_owned();
    assert!(spool.try_take(&id).unwrap().is_none());
    assert!(spool.take(&id).unwrap_err().message.contains("another dsc"));
    drop(held);
    let held = spool.take(&id).unwrap();
    held.file().write_all(b"bytes").unwrap();
    held.remove().unwrap();
    assert_eq!(held.len().unwrap(), 0, "what is open still takes no room");
    held.remove().unwrap();
    // One that was removed before it was locked is not had, but made anew.
    assert!(spool.try_take(&id).unwrap().is_some());
}

#[test]
fn a_directory_becomes_an_archive() {
    let (home, _spool) = fresh();
    let top = home.path().join("top");
    let deep = top.join("d".repeat(120)).join("e".repeat(120));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("f"), "deep").unwrap();
    fs::write(top.join("empty"), "").unwrap();
    std::os::unix::fs::symlink("..", top.join("loop")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, top.join("pipe"), rustix::fs::Mode::RUSR).unwrap();
    let mut out = Vec::new();
    assert_eq!(pack(&top, &mut out).unwrap(), (6, 1));
    let into = home.path().join("into");
    let mut archive = tar::Archive::new(&out[..]);
    for entry in archive.entries().unwrap() {
        let header = entry.unwrap().header().clone();
        assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (0, 0));
        assert!(header.username_bytes().unwrap().is_empty());
    }
    tar::Archive::new(&out[..]).unpack(&into).unwrap();
    let copy = into.join("top").join("d".repeat(120)).join("e".repeat(120)).join("f");
    assert_eq!(fs::read(copy).unwrap(), b"deep");
    assert_eq!(fs::read_link(into.join("top/loop")).unwrap(), Path::new(".."));
    // The same directory is the same archive.
    let mut again = Vec::new();
    pack(&top, &mut again).unwrap();
    assert!(out == again);
    assert!(pack(&home.path().join("missing"), &mut Vec::new()).is_err());
}

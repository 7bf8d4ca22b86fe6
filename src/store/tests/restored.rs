//! Data that fits its rows no more: after an older database was put back, and after a crash.

use std::fs;
use std::path::Path;

use super::threads::{Running, open};
use super::uploads::content;
use super::*;
use crate::protocol::file::CHUNK_MAX;

/// Names in the directory of the data.
fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir.join("files")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Ends a store and puts a copy of the database in its place.
fn put_back(mut running: Running, copy: &Path) -> Running {
    drop(running.store.take());
    for name in ["downstream.db", "downstream.db-wal", "downstream.db-shm"] {
        let _ = fs::remove_file(running.dir.path().join(name));
    }
    fs::copy(copy, running.dir.path().join("downstream.db")).unwrap();
    Running::start_in(running.dir)
}

#[test]
fn data_that_is_newer_than_the_database_goes() {
    let mut running = Running::start();
    let [alice, bob] = ["alice", "bob"].map(|name| running.person(name));
    let bytes = content(1, 200_000);
    let whole = running.send_file(&alice, "bob", "whole", &bytes[..100_000]).file.id;
    let partial = running.begin(&alice, "bob", "partial", &bytes).unwrap().file;
    running.pour(&alice, partial, &bytes[..CHUNK_MAX], 0);
    let short = running.begin(&alice, "bob", "short", &bytes[..50_000]).unwrap().file;
    running.pour(&alice, short, &bytes[..1000], 0);
    let copy = running.dir.path().join("copy.db");
    open(running.dir.path()).backup(&copy).unwrap();
    // What comes behind the copy: two files of their own, more of an upload, the first block of another.
    let newer = [2, 3].map(|seed| running.send_file(&alice, "bob", "newer", &content(seed, 100_000)).file.id);
    running.pour(&alice, partial, &bytes[..2 * CHUNK_MAX], CHUNK_MAX);
    running.pour(&alice, short, &bytes[..40_000], 1000);
    // What the daemon has not made.
    let files = running.dir.path().join("files");
    fs::create_dir(files.join("4711")).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", files.join("4712")).unwrap();
    for name in ["0815", "+99", "99.old", "x"] {
        fs::write(files.join(name), "not ours").unwrap();
    }
    let mut ours: Vec<String> = [whole, partial, short].iter().map(ToString::to_string).collect();
    ours.extend(["4711", "4712", "0815", "+99", "99.old", "x"].map(str::to_owned));
    ours.sort();

    let mut running = put_back(running, &copy);
    let dir = running.dir.path().to_owned();
    running.wait_until("the newer data goes", |_| newer.iter().all(|file| !names(&dir).contains(&file.to_string())));
    assert_eq!(names(&dir), ours, "nothing else went");
    assert!(running.read_file(&bob, whole) == bytes[..100_000]);
    for (file, bytes, from) in [(partial, &bytes[..], CHUNK_MAX), (short, &bytes[..50_000], 1000)] {
        let again = running.begin(&alice, "bob", "x", bytes).unwrap();
        assert_eq!((again.file, again.offset), (file, from as u64));
        running.pour(&alice, file, bytes, from);
        assert!(running.read_file(&bob, file) == bytes);
    }
    // The next one has a number that was used, and none of its data.
    let next = running.send_file(&alice, "bob", "next", &content(4, 20_000)).file.id;
    assert!(next == newer[0] && running.read_file(&bob, next) == content(4, 20_000));
}

#[test]
fn a_database_without_a_past_deletes_nothing() {
    let mut running = Running::start();
    let [alice, bob] = ["alice", "bob"].map(|name| running.person(name));
    let copy = running.dir.path().join("copy.db");
    open(running.dir.path()).backup(&copy).unwrap();
    let bytes = content(5, 100_000);
    let file = running.send_file(&alice, "bob", "x", &bytes).file.id;
    let newer = running.dir.path().join("newer.db");
    open(running.dir.path()).backup(&newer).unwrap();
    // By mistake, and the right one again.
    let mut running = put_back(running, &copy);
    assert_eq!(running.part(&bob, file, 0, 1).unwrap_err(), Refused::NotFound);
    let mut running = put_back(running, &newer);
    assert!(running.read_file(&bob, file) == bytes);
    // A shorter one under its number has nothing of it behind its end.
    let mut running = put_back(running, &copy);
    let short = running.send_file(&alice, "bob", "y", &content(6, 20_000)).file.id;
    assert!(short == file && running.read_file(&bob, short) == content(6, 20_000));
    assert_eq!(fs::metadata(running.data(short)).unwrap().len(), 20_000 + 2 * 28);
}

#[test]
fn a_record_that_was_lost_and_comes_back_finds_its_data() {
    let mut running = Running::start();
    let [alice, bob] = ["alice", "bob"].map(|name| running.person(name));
    let bytes = content(7, 5 * CHUNK_MAX);
    let file = running.begin(&alice, "bob", "x", &bytes).unwrap().file;
    running.pour(&alice, file, &bytes[..CHUNK_MAX], 0);
    let before = running.dir.path().join("before.db");
    open(running.dir.path()).backup(&before).unwrap();
    running.pour(&alice, file, &bytes[..3 * CHUNK_MAX], CHUNK_MAX);
    let after = running.dir.path().join("after.db");
    open(running.dir.path()).backup(&after).unwrap();
    // A commit that fails while its pages reach the disk: the store goes on from the row before it …
    let mut running = put_back(running, &before);
    let refused = running.chunk(&alice, file, 2 * CHUNK_MAX, &bytes[..1]).unwrap_err();
    assert_eq!(refused, Refused::Offset(CHUNK_MAX as u64));
    // … and after a crash the one behind it is there.
    let mut running = put_back(running, &after);
    let again = running.begin(&alice, "bob", "x", &bytes).unwrap();
    assert_eq!((again.file, again.offset), (file, 3 * CHUNK_MAX as u64));
    running.pour(&alice, file, &bytes, 3 * CHUNK_MAX);
    assert!(running.read_file(&bob, file) == bytes);
}

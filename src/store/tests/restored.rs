//! Data that fits its rows no more: after an older database was put back, and after a crash.

use std::fs;
use std::path::Path;

use super::threads::{Running, open};
use super::uploads::content;
use super::*;
use crate::protocol::file::CHUNK_MAX;

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

//! How fast appends are, against plain SQLite on the same disk. Prints, asserts no times:
//! `cargo test --release --lib store::bench -- --ignored --nocapture`. `DOWNSTREAM_BENCH_DIR` names the disk.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::tests::uploads::{begin, content};
use super::tests::{name, verifier};
use super::*;
use crate::ops::{Answer, Done, Op, Outcome, Person, Query, Ticket};
use crate::protocol::file::CHUNK_MAX;
use crate::protocol::{Target, Timestamp};

const PEOPLE: usize = 200;
const MESSAGES: usize = 200_000;
const BODY: usize = 100;
/// Appends under way: while one batch is committed, the next gathers.
const WINDOW: usize = 2 * PEOPLE;

fn place() -> tempfile::TempDir {
    match std::env::var_os("DOWNSTREAM_BENCH_DIR") {
        Some(dir) => tempfile::tempdir_in(dir).unwrap(),
        None => tempfile::tempdir().unwrap(),
    }
}

/// The same rows in one table of plain SQLite, with the same durability, 100 a transaction.
fn plain() -> f64 {
    let dir = place();
    let conn = rusqlite::Connection::open(dir.path().join("plain.db")).unwrap();
    conn.pragma_update(None, "journal_mode", "WAL").unwrap();
    conn.pragma_update(None, "synchronous", "FULL").unwrap();
    conn.execute_batch("CREATE TABLE m(id INTEGER PRIMARY KEY, time INTEGER, sender TEXT, target TEXT, body TEXT)")
        .unwrap();
    let body = "x".repeat(BODY);
    let since = Instant::now();
    for batch in 0..MESSAGES / 100 {
        conn.execute_batch("BEGIN IMMEDIATE").unwrap();
        for i in 0..100 {
            let mut insert =
                conn.prepare_cached("INSERT INTO m(time, sender, target, body) VALUES (?1,?2,?3,?4)").unwrap();
            insert.execute((batch as i64, format!("s{i}"), format!("r{i}"), &body)).unwrap();
        }
        conn.execute_batch("COMMIT").unwrap();
    }
    MESSAGES as f64 / since.elapsed().as_secs_f64()
}

fn store(label: &str, target: impl Fn(usize) -> Target) -> f64 {
    let dir = place();
    let key = ServerKey::load_or_create(dir.path(), None).unwrap();
    let mut database = Database::open(dir.path(), &key).unwrap();
    let now = Timestamp::from_millis(1_000_000);
    for i in 0..PEOPLE {
        database.add_user(&name(&format!("s{i}")), &verifier(1), false, now).unwrap();
        database.add_user(&name(&format!("r{i}")), &verifier(1), false, now).unwrap();
    }
    let users = database.users().unwrap();
    let senders: Vec<Person> = (0..PEOPLE)
        .map(|i| users.iter().find(|row| row.person.name == name(&format!("s{i}"))).unwrap().person.clone())
        .collect();
    let (bell, ring) = std::sync::mpsc::channel();
    let (mut store, _) = database.start(Arc::new(move || bell.send(()).unwrap_or(()))).unwrap();
    let body: Arc<str> = "x".repeat(BODY).into();
    for sender in &senders {
        let room = crate::protocol::RoomName::parse("#room").unwrap();
        store.submit(Ticket(0), now, Op::JoinRoom { account: sender.id, room });
    }
    while store.is_busy() {
        ring.recv_timeout(Duration::from_secs(10)).unwrap();
        store.drain(|_| ());
    }
    let before = store.stats();
    let since = Instant::now();
    let (mut sent, mut done) = (0, 0);
    while done < MESSAGES {
        while sent < MESSAGES && sent - done < WINDOW {
            let sender = senders[sent % PEOPLE].clone();
            let op = Op::Append { sender, targets: vec![target(sent % PEOPLE)], body: Arc::clone(&body), key: None };
            store.submit(Ticket(sent as u64), now, op);
            sent += 1;
        }
        ring.recv_timeout(Duration::from_secs(10)).unwrap();
        store.drain(|news| match news {
            News::Answer(_, Done::Op(Ok(Outcome::Appended(results)))) if results[0].is_ok() => done += 1,
            other => panic!("{other:?}"),
        });
    }
    let rate = MESSAGES as f64 / since.elapsed().as_secs_f64();
    let stats = store.stats();
    let average = (stats.ops - before.ops) as f64 / (stats.commits - before.commits) as f64;
    eprintln!("{label}: {rate:.0}/s, {average:.0} a commit");
    store.shutdown(|_| ()).unwrap();
    rate
}

#[test]
#[ignore = "a measurement, not a test"]
fn appends_against_plain_sqlite() {
    // Disks have moods: compared is what was measured one after the other.
    for _ in 0..3 {
        let plain = plain();
        eprintln!("plain SQLite, 100 a transaction: {plain:.0}/s");
        let direct = store("200 senders to 200 receivers", |i| Target::parse(&format!("r{i}")).unwrap());
        let room = store("200 senders to one room", |_| Target::parse("#room").unwrap());
        eprintln!("  that is {:.2} and {:.2} of plain", direct / plain, room / plain);
    }
}

/// How fast files go in and out, and what a message waits meanwhile. `DOWNSTREAM_BENCH_MIB` says how much.
#[test]
#[ignore = "a measurement, not a test"]
fn files_in_and_out() {
    let dir = place();
    let key = ServerKey::load_or_create(dir.path(), None).unwrap();
    let (bell, ring) = std::sync::mpsc::channel();
    let database = Database::open(dir.path(), &key).unwrap();
    let (mut store, _) = database.start(Arc::new(move || bell.send(()).unwrap_or(()))).unwrap();
    let now = Timestamp::from_millis(1_000_000);
    let mib: usize = std::env::var("DOWNSTREAM_BENCH_MIB").map_or(256, |mib| mib.parse().unwrap());
    let bytes = content(1, mib << 20);
    let texts: Vec<Box<str>> = bytes.chunks(CHUNK_MAX).map(|piece| STANDARD.encode(piece).into()).collect();
    let one = |store: &mut Store, op: Op| {
        store.submit(Ticket(1 << 40), now, op);
        let mut outcome = None;
        while outcome.is_none() {
            ring.recv_timeout(Duration::from_secs(10)).unwrap();
            store.drain(|news| match news {
                News::Answer(_, Done::Op(Ok(done))) => outcome = Some(done),
                other => panic!("{other:?}"),
            });
        }
        outcome.unwrap()
    };
    let person = |store: &mut Store, text: &str| match one(
        store,
        Op::Register { name: name(text), verifier: verifier(1), invite: None },
    ) {
        Outcome::Registered(id) => Person { id, name: name(text) },
        other => panic!("{other:?}"),
    };
    let [alice, bob] = ["alice", "bob"].map(|text| person(&mut store, text));
    let Outcome::Upload(upload) = one(&mut store, begin(&alice, "bob", "x", &bytes)) else { panic!() };
    let (mut sent, mut done, mut asked) = (0, 0, Instant::now());
    let mut waits = Vec::new();
    let say = |store: &mut Store| {
        let op =
            Op::Append { sender: bob.clone(), targets: vec![Target::User(name("alice"))], body: "x".into(), key: None };
        store.submit(Ticket(1 << 41), now, op);
    };
    say(&mut store);
    let since = Instant::now();
    let before = store.stats();
    while done < texts.len() {
        while sent < texts.len() && sent - done < 64 {
            let data = texts[sent].clone();
            let offset = (sent * CHUNK_MAX) as u64;
            let op = Op::WriteChunk { account: alice.id, file: upload.file, offset, data };
            store.submit(Ticket(sent as u64), now, op);
            sent += 1;
        }
        ring.recv_timeout(Duration::from_secs(10)).unwrap();
        let mut stored = false;
        store.drain(|news| match news {
            News::Answer(_, Done::Op(Ok(Outcome::ChunkWritten(_)))) => done += 1,
            News::Answer(_, Done::Op(Ok(Outcome::Appended(_)))) => stored = true,
            other => panic!("{other:?}"),
        });
        if stored {
            waits.push(asked.elapsed());
            asked = Instant::now();
            say(&mut store);
        }
    }
    let rate = mib as f64 / since.elapsed().as_secs_f64();
    waits.sort();
    let commits = store.stats().commits - before.commits;
    eprintln!(
        "in: {rate:.0} MiB/s, {commits} commits; {} messages meanwhile, median {:?}, worst {:?}",
        waits.len(),
        waits[waits.len() / 2],
        waits[waits.len() - 1]
    );
    let since = Instant::now();
    let mut offset = 0;
    while offset < bytes.len() as u64 {
        let query = Query::FilePart { account: bob.id, file: upload.file, offset, length: 1 << 20 };
        store.ask(Ticket(7), query);
        let asked = offset;
        while offset == asked {
            ring.recv_timeout(Duration::from_secs(10)).unwrap();
            store.drain(|news| match news {
                News::Answer(_, Done::Query(Ok(Answer::FilePart(part)))) => offset = part.next,
                News::Answer(_, Done::Op(Ok(_))) => {}
                other => panic!("{other:?}"),
            });
        }
    }
    eprintln!("out, one piece at a time: {:.0} MiB/s", mib as f64 / since.elapsed().as_secs_f64());
    store.shutdown(|_| ()).unwrap();
}

/// What an append costs the processor, without a disk.
#[test]
#[ignore = "a measurement, not a test"]
fn appends_in_memory() {
    let mut engine = Engine::in_memory(&ServerKey::ephemeral().unwrap()).unwrap();
    let now = Timestamp::from_millis(1_000_000);
    let person = |engine: &mut Engine, text: &str| {
        let op = Op::Register { name: name(text), verifier: verifier(1), invite: None };
        match engine.apply(now, &op) {
            Ok(Outcome::Registered(id)) => Person { id, name: name(text) },
            other => panic!("{other:?}"),
        }
    };
    let senders: Vec<Person> = (0..PEOPLE).map(|i| person(&mut engine, &format!("s{i}"))).collect();
    let receivers: Vec<Person> = (0..PEOPLE).map(|i| person(&mut engine, &format!("r{i}"))).collect();
    let body: Arc<str> = "x".repeat(BODY).into();
    let since = Instant::now();
    for batch in 0..MESSAGES / PEOPLE {
        engine.begin().unwrap();
        for (sender, receiver) in senders.iter().zip(&receivers) {
            let targets = vec![Target::User(receiver.name.clone())];
            let op = Op::Append { sender: sender.clone(), targets, body: Arc::clone(&body), key: None };
            engine.apply(now, &op).unwrap();
        }
        engine.commit().unwrap();
        assert!(batch < MESSAGES);
    }
    let each = since.elapsed() / MESSAGES as u32;
    eprintln!("in memory: {each:?} an append");
}

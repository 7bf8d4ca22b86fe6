use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rusqlite::Connection;
use sha2::Digest as _;
use sha2::digest::common::hazmat::SerializableState as _;

use super::super::files::{Chunk, Directory, Uploads};
use super::super::seal::{Column, Sealer};
use super::super::sqlite::{Guard, Sqlite};
use super::super::{Database, StoreError};
use super::threads::Running;
use super::uploads::begin;
use super::*;
use crate::protocol::{DeviceName, FileId, KeyRecord, PoolKind, PrekeyBytes};

fn open(dir: &Path) -> Result<Database, StoreError> {
    Database::open(dir, &ServerKey::load_or_create(dir, None)?)
}

/// The records of a directory, on this thread.
fn records(dir: &Path) -> Sqlite {
    let key = ServerKey::load_or_create(dir, None).unwrap();
    let path = dir.join("downstream.db");
    let mut sqlite = Sqlite::open(&path, Arc::new(Sealer::new(&key))).unwrap();
    sqlite.migrate(&path).unwrap();
    sqlite
}

fn apply(sqlite: &Sqlite, op: &Op) -> Outcome {
    sqlite.begin().unwrap();
    let outcome = sqlite.apply(at(1_000_000), op, Guard::Always).unwrap().unwrap();
    sqlite.commit().unwrap();
    outcome
}

fn account(sqlite: &Sqlite, text: &str) -> Person {
    let op = Op::Register { name: name(text), verifier: verifier(0xa5), invite: None };
    match apply(sqlite, &op) {
        Outcome::Registered(id) => Person { id, name: name(text) },
        other => panic!("{other:?}"),
    }
}

fn page(sqlite: &Sqlite, who: &Person, of: &str) -> Vec<String> {
    let (target, bound) = (target(of), Bound::Newest);
    match sqlite.answer(&Query::Page { account: who.id, target, bound, limit: 100, max_bytes: usize::MAX }).unwrap() {
        Answer::Page(page) => super::bodies(&page),
        other => panic!("{other:?}"),
    }
}

fn signals(sqlite: &Sqlite, who: &Person) -> Vec<(u64, String)> {
    match sqlite.answer(&Query::Signals { account: who.id, after: 0, limit: 100, max_bytes: usize::MAX }).unwrap() {
        Answer::Signals { rows, .. } => rows.iter().map(|row| (row.id, row.body.to_string())).collect(),
        other => panic!("{other:?}"),
    }
}

/// Whether any file of the directory holds `window`.
fn holds(dir: &Path, window: &[u8]) -> bool {
    fs::read_dir(dir).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        let bytes = if path.is_dir() { Vec::new() } else { fs::read(path).unwrap() };
        bytes.windows(window.len()).any(|found| found == window)
    })
}

#[test]
fn nothing_secret_is_plain_in_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let sqlite = records(dir.path());
    let alice = account(&sqlite, "alice");
    apply(&sqlite, &append(&alice, "alice", "the body that nobody sees"));
    apply(&sqlite, &post(&alice, "alice", "a-key-of-post", "the posted body"));
    let topic = Some("the topic of the room".to_owned());
    apply(&sqlite, &Op::CreateRoom { account: alice.id, room: room("#plain"), private: true, e2e: false, topic });
    let change = ProfileChange { email: Some("mail@example.org".to_owned()), ..ProfileChange::default() };
    apply(&sqlite, &Op::SetProfile { account: alice.id, change });

    let plain = b"the data of a file that nobody sees";
    let Outcome::Upload(upload) = apply(&sqlite, &begin(&alice, "alice", "the name of a file", plain)) else {
        panic!()
    };
    let mut uploads = Uploads::new(
        Arc::new(Directory::new(dir.path().join("files")).unwrap()),
        Arc::new(Sealer::new(&ServerKey::load_or_create(dir.path(), None).unwrap())),
    );
    let data = "dGhlIGRhdGEgb2YgYSBmaWxl"; // the first of it
    let (account, file) = (alice.id, upload.file);
    let chunk = Chunk { account, file, now: at(1), offset: 0, data };
    uploads.take(&chunk, || sqlite.upload(account, file)).unwrap();
    sqlite.begin().unwrap();
    for progress in uploads.sync() {
        sqlite.record(&progress).unwrap().unwrap();
    }
    sqlite.commit().unwrap();

    let body = "e2e:signalled".into();
    apply(&sqlite, &Op::AddSignal { sender: alice.clone(), receiver: name("alice"), body });

    let secrets: [&[u8]; 8] = [
        b"nobody sees",
        b"posted body",
        b"topic of",
        b"example.org",
        b"signalled",
        &[0xa5; 16],
        b"data of a",
        b"name of a",
    ];
    let wal = fs::metadata(dir.path().join("downstream.db-wal")).unwrap();
    assert!(wal.len() > 0, "what was written is in the write-ahead log still");
    for checkpointed in [false, true] {
        assert!(holds(dir.path(), b"a-key-of-post") && holds(dir.path(), b"#plain"), "the search finds what is plain");
        for secret in secrets {
            assert!(!holds(dir.path(), secret), "{:?} {checkpointed}", String::from_utf8_lossy(secret));
        }
        sqlite.checkpoint_all().unwrap();
    }
    for file in ["downstream.db", "downstream.db-wal", "downstream.db-shm", "server.key"] {
        let mode = fs::metadata(dir.path().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{file}");
    }
}

#[test]
fn what_was_changed_on_disk_is_told_and_takes_nothing_down() {
    let dir = tempfile::tempdir().unwrap();
    let sqlite = records(dir.path());
    let alice = account(&sqlite, "alice");
    let bob = account(&sqlite, "bob");
    for n in 1..=4 {
        apply(&sqlite, &append(&alice, "bob", &format!("m{n}")));
    }
    let topic = Some("tea".to_owned());
    apply(&sqlite, &Op::CreateRoom { account: alice.id, room: room("#a"), private: false, e2e: false, topic });

    // A flipped bit, a body moved to another message, one cut short.
    let body = |n: u32| format!("(SELECT body FROM message WHERE id & 0xffffffff = {n})");
    sqlite.change(&format!(
        "UPDATE message SET body = {} WHERE id & 0xffffffff = 3;
         UPDATE message SET body = substr(body, 1, 10) WHERE id & 0xffffffff = 2;",
        body(1)
    ));
    let unreadable = "[the server cannot read this message: its copy is damaged]";
    assert_eq!(page(&sqlite, &bob, "alice"), ["m1", unreadable, unreadable, "m4"]);

    // The same with signals; and one that was moved to another receiver.
    for (to, body) in [("alice", "e2e:aaaa"), ("bob", "e2e:bbb1"), ("bob", "e2e:bbb2"), ("bob", "e2e:bbb3")] {
        apply(&sqlite, &Op::AddSignal { sender: alice.clone(), receiver: name(to), body: body.into() });
    }
    let body = |to: AccountId, n: u32| format!("(SELECT body FROM signal WHERE id = {} << 32 | {n})", to.0);
    sqlite.change(&format!(
        "UPDATE signal SET body = {} WHERE id = {to} << 32 | 1;
         UPDATE signal SET body = {} WHERE id = {to} << 32 | 2;",
        body(alice.id, 1),
        body(bob.id, 3),
        to = bob.id.0,
    ));
    assert_eq!(signals(&sqlite, &bob), [(1, unreadable.into()), (2, unreadable.into()), (3, "e2e:bbb3".into())]);
    sqlite.change("UPDATE signal SET body = zeroblob(20)");
    assert_eq!(signals(&sqlite, &alice), [(1, unreadable.into())]);
    apply(&sqlite, &Op::DropSignal { account: alice.id, id: 1 });

    sqlite.change("UPDATE room SET topic = zeroblob(40)");
    let query = Query::Rooms { account: alice.id, glob: None, after: None, limit: 10 };
    let Ok(Answer::Rooms { rows, .. }) = sqlite.answer(&query) else { panic!() };
    assert!(rows[0].topic.as_ref().unwrap().contains("damaged"));

    // Another's verifier does not open for oneself, so one cannot give oneself another's password.
    sqlite.change("UPDATE account SET verifier = (SELECT verifier FROM account WHERE name = 'bob')");
    assert!(sqlite.answer(&Query::Credentials(name("bob"))).is_ok());
    assert_eq!(sqlite.answer(&Query::Credentials(name("alice"))).unwrap_err(), Refused::Internal);
}

#[test]
fn the_key_belongs_to_the_database() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()).unwrap());
    let other = ServerKey::ephemeral().unwrap();
    let error = Database::open(dir.path(), &other).err().unwrap();
    assert!(matches!(error, StoreError::WrongKey { .. }) && error.to_string().contains("server.key"), "{error}");
    fs::remove_file(dir.path().join("server.key")).unwrap();
    assert!(matches!(open(dir.path()), Err(StoreError::KeyMissing { .. })));
}

#[test]
fn a_newer_database_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()).unwrap());
    let path = dir.path().join("downstream.db");
    let newer = super::super::schema::VERSION as i64 + 1;
    Connection::open(&path).unwrap().pragma_update(None, "user_version", newer).unwrap();
    let before = fs::read(&path).unwrap();
    let error = open(dir.path()).err().unwrap();
    let text = error.to_string();
    assert!(matches!(error, StoreError::NewerSchema { .. }));
    assert!(text.contains(&format!("version {newer}")) && text.contains("run a newer downstream"), "{text}");
    assert_eq!(fs::read(&path).unwrap(), before);

    let foreign = tempfile::tempdir().unwrap();
    let key = ServerKey::ephemeral().unwrap();
    fs::write(foreign.path().join("downstream.db"), b"this is a letter to somebody, not a database at all ....")
        .unwrap();
    assert!(Database::open(foreign.path(), &key).is_err());
}

/// Frozen with version 1: what a database of the first release holds. Later versions must open it and
/// find everything.
const VERSION_1: &str = include_str!("../testdata/version1.sql");

/// Frozen with version 2: what it added to a database of version 1.
const VERSION_2: &str = include_str!("../testdata/version2.sql");

/// Frozen with version 3: what it added to a database of version 2, and the data of file 4.
const VERSION_3: (&str, &str) =
    (include_str!("../testdata/version3.sql"), include_str!("../testdata/version3_file4.hex"));

/// A directory with a database of an earlier version.
fn earlier(versions: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("server.key");
    fs::write(&key, [7; 32]).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let database = Connection::open(dir.path().join("downstream.db")).unwrap();
    for version in versions {
        database.execute_batch(version).unwrap();
    }
    dir
}

#[test]
fn the_first_version_is_still_understood() {
    let dir = earlier(&[VERSION_1]);
    let database = open(dir.path()).unwrap();
    let names: Vec<_> = database.users().unwrap().into_iter().map(|row| (row.person, row.admin)).collect();
    let alice = Person { id: AccountId(1), name: name("alice") };
    let bob = Person { id: AccountId(2), name: name("bob") };
    assert_eq!(names, [(alice.clone(), true), (bob.clone(), false)]);
    drop(database);

    let sqlite = records(dir.path());
    assert_eq!(sqlite.version(Path::new("x")).unwrap(), super::super::schema::VERSION);
    assert_eq!(page(&sqlite, &bob, "alice"), ["written once, read for ever"]);
    assert_eq!(page(&sqlite, &alice, "#den"), ["first"]);
    let Ok(Answer::Credentials(Some(credentials))) = sqlite.answer(&Query::Credentials(name("alice"))) else {
        panic!()
    };
    assert!(credentials.verifier == verifier(0xa5));
    let Ok(Answer::Topic(topic)) = sqlite.answer(&Query::Topic { account: alice.id, room: room("#den") }) else {
        panic!()
    };
    assert_eq!(topic.as_deref(), Some("tea"));
    let Ok(Answer::UnreadRows(rows)) = sqlite.answer(&Query::UnreadCounts { account: bob.id, all: true }) else {
        panic!()
    };
    assert_eq!((rows.len(), rows[0].count), (1, 1));
    let Outcome::Appended(results) = apply(&sqlite, &append(&bob, "alice", "reply")) else { panic!() };
    assert_eq!(results[0].as_ref().unwrap().id, MessageId(2));

    // What version 2 brought works on what version 1 left.
    let device = DeviceName([1; 16]);
    let record = KeyRecord::Certificate(vec![1; 200]);
    apply(&sqlite, &Op::PutKeys { account: alice.id, device, record });
    let Ok(Answer::Pools(pools)) = sqlite.answer(&Query::Pools(alice.id)) else { panic!() };
    assert_eq!(pools, [Pools { device, dh: 0, post_quantum: 0 }]);
    apply(&sqlite, &Op::AddSignal { sender: alice, receiver: name("bob"), body: "e2e:AAAA".into() });
    assert_eq!(signals(&sqlite, &bob), [(1, "e2e:AAAA".into())]);
}

#[test]
fn the_second_version_is_still_understood() {
    let dir = earlier(&[VERSION_1, VERSION_2]);
    assert_eq!(records(dir.path()).version(Path::new("x")).unwrap(), super::super::schema::VERSION);
    let sqlite = records(dir.path());
    let alice = Person { id: AccountId(1), name: name("alice") };
    let bob = Person { id: AccountId(2), name: name("bob") };
    assert_eq!(signals(&sqlite, &bob), [(7, "e2e:c2lnbmFs".into())]);
    let op = Op::AddSignal { sender: alice.clone(), receiver: name("bob"), body: "e2e:AAAA".into() };
    let Outcome::Signalled(stored) = apply(&sqlite, &op) else { panic!() };
    assert_eq!((stored.id, stored.time), (10, at(9_000_000)), "numbers and times go on");
    apply(&sqlite, &Op::DropSignal { account: bob.id, id: 7 });

    let keys = |ids: std::ops::RangeInclusive<u32>| {
        let keys = ids.map(|id| PrekeyBytes { id, bytes: [&id.to_be_bytes()[..], &[0xee; 104]].concat() }).collect();
        let record = KeyRecord::OneTime(PoolKind::Dh, keys);
        Op::PutKeys { account: bob.id, device: DeviceName([0xdd; 16]), record }
    };
    let Outcome::Pools(pools) = apply(&sqlite, &keys(3..=6)) else { panic!() };
    assert_eq!(pools.dh, 2, "5 waits, 3 and 4 were handed out");
    let Outcome::Bundles(taken) = apply(&sqlite, &Op::TakeBundles { subject: name("bob"), device: None }) else {
        panic!()
    };
    let wanted = [&[0, 3, 0xdc, 0xdc, 0xdc, 0x51, 1][..], &[0, 0, 0, 5, 0x0b, 0, 0, 0, 0, 8, 0x0c]].concat();
    assert_eq!((taken.list, taken.bundles), (Some(vec![0xd1]), vec![(DeviceName([0xdd; 16]), wanted)]));

    sqlite.change("UPDATE room SET e2e = 1");
    let op = Op::AddRoster { account: alice.id, room: room("#den"), epoch: 3, entry: vec![3] };
    apply(&sqlite, &op);
    let query = Query::Roster { account: alice.id, room: room("#den"), after: 0, limit: 9, max_bytes: 9999 };
    let Ok(Answer::Roster(page)) = sqlite.answer(&query) else { panic!() };
    assert_eq!(page.rows, [(1, vec![1]), (2, vec![2]), (3, vec![3])]);
}

#[test]
fn the_third_version_is_still_understood() {
    let (third, data) = VERSION_3;
    let dir = earlier(&[VERSION_1, VERSION_2, third]);
    let data: Vec<u8> = data
        .trim()
        .as_bytes()
        .chunks(2)
        .map(|hex| u8::from_str_radix(str::from_utf8(hex).unwrap(), 16).unwrap())
        .collect();
    let files = dir.path().join("files");
    fs::create_dir(&files).unwrap();
    fs::write(files.join("4"), data).unwrap();
    fs::write(files.join("3"), b"thrown away").unwrap();

    let mut running = Running::start_in(dir);
    let alice = Person { id: AccountId(1), name: name("alice") };
    let bob = Person { id: AccountId(2), name: name("bob") };
    assert_eq!(running.page(&bob, "alice"), ["written once, read for ever", "hello.txt"]);
    let part = running.part(&bob, FileId(4), 0, 10).unwrap();
    assert_eq!(part.rows, [(0, "aGVsbG8=".to_owned())]);
    // The state of the hash that was stored goes on.
    let digits = b"0123456789abcdefghij";
    let upload = running.begin(&alice, "bob", "other", digits).unwrap();
    assert_eq!((upload.file, upload.offset), (FileId(5), 10));
    let done = running.chunk(&alice, upload.file, 10, &digits[10..]).unwrap().done.unwrap();
    assert_eq!((done.id, done.name.as_str(), done.new), (MessageId(3), "digits", true));
    assert!(running.read_file(&bob, FileId(5)) == digits);
    let empty = running.begin(&alice, "bob", "empty", b"").unwrap();
    assert_eq!(empty.file, FileId(8), "numbers are never used again");
    let Ok(Answer::Totals(totals)) = running.ask(Query::Totals) else { panic!() };
    assert_eq!((totals.files, totals.file_bytes), (3, 12_288));
    running.wait_until("the trash is emptied", |running| running.remains() == (0, 2));
}

/// Prints what [`VERSION_1`] and those behind it were made from; run by hand once for each frozen version.
#[test]
#[ignore = "writes a new fixture"]
fn print_a_fixture() {
    let sealer = Sealer::new(&{
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("server.key");
        fs::write(&path, [7; 32]).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        ServerKey::load_or_create(dir.path(), None).unwrap()
    });
    let print = |what: &str, column, scope, row, plain: &[u8]| {
        let sealed = sealer.key(column, scope).seal(row, plain).unwrap();
        println!("{what}: x'{}'", sealed.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    };
    print("check", Column::Check, 0, 0, b"sealed with the key of this database");
    let mut plain = Vec::new();
    for number in [8192u32, 1, 1] {
        plain.extend_from_slice(&number.to_be_bytes());
    }
    plain.extend_from_slice(&[0xa5; 48]);
    print("verifier 1", Column::Verifier, 1, 1, &plain);
    print("verifier 2", Column::Verifier, 2, 2, &plain);
    print("topic", Column::Topic, 1, 1, b"tea");
    print("room", Column::Body, 1, 1 << 32 | 1, b"first");
    print("signal", Column::Signal, 2, 2 << 32 | 7, b"e2e:c2lnbmFs");
    print("direct", Column::Body, 2, 2 << 32 | 1, b"written once, read for ever");
    print("file's message", Column::Body, 2, 2 << 32 | 2, b"hello.txt");
    print("name 4", Column::FileName, 4, 4, b"hello.txt");
    print("name 5", Column::FileName, 5, 5, b"digits");
    print("block", Column::FileBlock, 4, 0, b"hello");
    let mut rest = sha2::Sha256::new_with_prefix(b"0123456789").serialize().to_vec();
    rest.extend_from_slice(b"0123456789");
    print("rest", Column::FileRest, 5, 10, &rest);
    println!("{} {}", Sha256::of(b"hello").to_hex(), Sha256::of(b"0123456789abcdefghij").to_hex());
}

#[test]
fn a_backup_is_whole_checked_and_never_in_the_way() {
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let database = open(dir.path()).unwrap();
    let sqlite = records(dir.path());
    let alice = account(&sqlite, "alice");
    for n in 0..500 {
        apply(&sqlite, &append(&alice, "alice", &format!("m{n}{}", "x".repeat(500))));
    }
    let dest = elsewhere.path().join("backup.db");
    // Beside a writer that does not stop.
    std::thread::scope(|scope| {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let (sqlite, alice) = (records(dir.path()), alice.clone());
        let writer = scope.spawn(move || {
            let mut written = 0;
            while stopped.try_recv().is_err() {
                apply(&sqlite, &append(&alice, "alice", "meanwhile"));
                written += 1;
            }
            written
        });
        database.backup(&dest).unwrap();
        stop.send(()).unwrap();
        writer.join().unwrap();
    });
    assert_eq!(fs::metadata(&dest).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 1, "one file, and nothing beside it");
    assert!(matches!(database.backup(&dest), Err(StoreError::BackupExists { .. })));
    let nowhere = elsewhere.path().join("none/backup.db");
    assert!(matches!(database.backup(&nowhere), Err(StoreError::Io { .. })));

    let restored = tempfile::tempdir().unwrap();
    fs::copy(&dest, restored.path().join("downstream.db")).unwrap();
    fs::copy(dir.path().join("server.key"), restored.path().join("server.key")).unwrap();
    let sqlite = records(restored.path());
    let Ok(Answer::Totals(totals)) = sqlite.answer(&Query::Totals) else { panic!() };
    assert!(totals.messages >= 500);
    let query = Query::Page {
        account: alice.id,
        target: target("alice"),
        bound: Bound::Before(MessageId(501)),
        limit: 1,
        max_bytes: usize::MAX,
    };
    let Ok(Answer::Page(page)) = sqlite.answer(&query) else { panic!() };
    assert_eq!(page.rows[0].id, MessageId(500));
}

#[test]
fn operator_errors_name_what_they_are_about() {
    let dir = tempfile::tempdir().unwrap();
    let mut database = open(dir.path()).unwrap();
    let (alice, now) = (name("alice"), at(1));
    database.add_user(&alice, &verifier(1), true, now).unwrap();
    let taken = database.add_user(&alice, &verifier(1), false, now).unwrap_err();
    assert!(matches!(taken, StoreError::NameTaken(_)) && taken.to_string().contains("alice"));
    let bob = name("bob");
    for error in [
        database.set_password(&bob, &verifier(1), now).unwrap_err(),
        database.set_disabled(&bob, true, now).unwrap_err(),
        database.set_admin(&bob, true, now).unwrap_err(),
        database.delete_user(&bob, now).unwrap_err(),
    ] {
        assert!(matches!(error, StoreError::NoSuchUser(_)) && error.to_string().contains("bob"), "{error}");
    }
    database.delete_user(&alice, now).unwrap();
    assert!(matches!(database.add_user(&alice, &verifier(1), false, now), Err(StoreError::NameTaken(_))));
    assert!(database.users().unwrap().is_empty());
    for n in 0..1000u32 {
        let mut hash = [0; 32];
        hash[..4].copy_from_slice(&n.to_be_bytes());
        database.add_invite(&Sha256(hash), now).unwrap();
    }
    assert!(matches!(database.add_invite(&Sha256([1; 32]), now), Err(StoreError::Refused(Refused::Quota(1000)))));
}

#[test]
fn bans_of_addresses_are_there_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let sqlite = records(dir.path());
    let blocks = [("192.0.2.0", 24), ("2001:db8::", 32)]
        .map(|(text, prefix)| AddressBlock { address: text.parse().unwrap(), prefix });
    for block in blocks {
        apply(&sqlite, &Op::BanAddress { block, banned: true });
    }
    drop(sqlite);
    let (wake, _rung) = bell();
    let (store, loaded) = open(dir.path()).unwrap().start(wake).unwrap();
    let mut found = loaded.address_bans;
    found.sort();
    assert_eq!(found, blocks);
    drop(store);
}

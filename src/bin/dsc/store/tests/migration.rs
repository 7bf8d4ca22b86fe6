//! Versions of the file: what was released is frozen, and is read for ever.

use std::fmt::Write as _;
use std::fs;

use downstream::e2e::armour::{hex, unhex};
use downstream::e2e::marks;
use downstream::e2e::name::{MsgId, RoomId, RoomName};
use downstream::e2e::prekeys::Prekeys;
use downstream::e2e::roster::Op;
use downstream::e2e::state::Change;
use rusqlite::types::ValueRef;
use sha2::{Digest, Sha256};

use super::damage::TABLES;
use super::world::{World, at, rows_hold, user as e2e_user};
use super::*;
use crate::store::schema::{self, MIGRATIONS};

/// The rows of a store of version 1, as SQL, and its slot.
const VERSION_1: &str = include_str!("../testdata/version1.sql");
const VERSION_1_SLOT: &str = include_str!("../testdata/version1.slot.hex");

fn frozen() -> Passphrase {
    passphrase("frozen in the year of version 1")
}

#[test]
fn a_newer_store_is_refused() {
    let (home, store) = fresh();
    drop(store);
    let sql = Connection::open(home.path().join(FILE)).unwrap();
    sql.pragma_update(None, "user_version", schema::VERSION + 1).unwrap();
    drop(sql);
    let before = bytes_of(home.path());
    let error = Store::open(home.path(), None).err().unwrap();
    assert!(
        matches!(error, StoreError::Newer { found, known } if (found, known) == (schema::VERSION + 1, schema::VERSION))
    );
    assert_eq!(bytes_of(home.path()), before);
}

/// A released migration is never edited: this fails where one was.
#[test]
fn released_migrations_are_frozen() {
    let released = [
        "0e41dce5776bf0fafdddfd307cfbb8b270a5987547575be3d1e8182fd9c1004c",
        "d329384cd463e8271984264408f8a9afe3ac9e650dc5e37029da3ef1c2947f0a",
    ];
    for (migration, digest) in MIGRATIONS.iter().zip(released) {
        assert_eq!(hex(&Sha256::digest(migration)), digest);
    }
    assert_eq!(MIGRATIONS.len(), released.len());
}

#[test]
fn a_store_of_version_1_is_read() {
    let home = temporary();
    for file in [FILE, "passphrase.slot"] {
        drop(crate::store::home::make(&home.path().join(file)).unwrap());
    }
    fs::write(home.path().join("passphrase.slot"), unhex::<126>(VERSION_1_SLOT.trim()).unwrap()).unwrap();
    let sql = Connection::open(home.path().join(FILE)).unwrap();
    sql.execute_batch(MIGRATIONS[0]).unwrap();
    sql.execute_batch(VERSION_1).unwrap();
    drop(sql);

    let mut store = Store::open(home.path(), Some(&frozen())).unwrap();
    let version: u32 = store.sql.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!(version, schema::VERSION);
    let (ops, from) = (RoomName::parse("#ops").unwrap(), device("bob", 1));
    store
        .transact(|tx| {
            let state = tx.state().unwrap();
            rows_hold(state);
            let bob = &state.contacts[&e2e_user("bob")];
            assert!(bob.verified() && bob.list_version() == 1 && state.contacts.len() == 2);
            let peer = &state.peers[bob.certs()[0].address()];
            assert_eq!(peer.active().unwrap().sid().to_string(), "c65861a81a4191a5d745ba6750d3869b");
            let room = state.room_named(&ops).unwrap();
            assert_eq!((room.roster.head().0, room.roster.members().len(), room.chains.held()), (2, 2, 0));
            assert_eq!((state.threads.len(), state.outgoing.len()), (1, 2));
            assert_eq!(state.prekeys.private_keys().count(), 2);
            assert_eq!(tx.account_key().unwrap().public(), *state.me.aik());
            assert_eq!(tx.room_pin(&ops), Some(room.roster.id()));
            assert_eq!(tx.room_pin(&RoomName::parse("#left").unwrap()), Some(RoomId([1; 16])));

            assert_eq!(tx.profile(), profile());
            assert_eq!(tx.cursors(), [(target("#ops"), 9)]);
            assert_eq!(tx.device_name(&from).as_deref(), Some("phone"));
            assert_eq!(tx.setting("checked").unwrap()[..], [1, 2, 3]);
            assert_eq!(tx.bundles(), [(from.clone(), vec![4; 40])]);
            assert!(tx.seen(&from, marks::mark(b"opened"))? && !tx.seen(&from, marks::mark(b"other"))?);

            assert_eq!(tx.page(&target("bob"), None, None, 9)?, entries()[..3]);
            assert_eq!(tx.search(&["unplaced".into()], None, 9)?, entries()[3..]);
            assert!(tx.heard(&from, MsgId([0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]))?);
            assert_eq!(tx.outbox()?, [(2, super::lines::post("bob", "abcdefgh"))]);
            assert_eq!(tx.held()?, [(1, super::lines::held(3))]);
            assert_eq!(tx.came_back(&target("bob"), marks::mark(b"by hand"), 8, 1)?.unwrap().id, Some(8));
            Done::Ok(())
        })
        .unwrap();
}

fn profile() -> Profile {
    Profile {
        server: Some("chat.example:6697".into()),
        user: Some(user("alice")),
        token: Some(Token::new(Zeroizing::new("a token".into()))),
        token_name: Some("dsc".into()),
    }
}

fn entries() -> [Entry; 4] {
    [
        entry("bob", 1, "sealed"),
        Entry { what: What::Plain { text: "plain".into() }, marks: vec![Mark::Plain], ..entry("bob", 2, "") },
        Entry { what: What::Failed { code: "auth".into() }, marks: vec![], ..entry("bob", 3, "") },
        Entry { id: None, ..entry("bob", 4, "unplaced") },
    ]
}

#[test]
#[ignore = "writes a new fixture"]
fn print_a_fixture() {
    let mut world = World::new(1);
    let (mut alice, mut bob) = (world.device("alice"), world.device("bob"));
    let line = world.say(&mut alice, "bob", "hi", at(0));
    bob.text(&line, at(0));
    let line = world.say(&mut bob, "alice", "hello", at(1));
    alice.text(&line, at(1));
    let room = world.create_room(&mut alice, "#ops", false);
    world.roster(&mut alice, &room, Op::Add, &e2e_user("bob"), at(5));
    world.read_roster(&mut alice, &room, at(5));
    world.say_room(&mut alice, &room, "to all", at(6)).unwrap();
    // A hundred and fifty keys are not needed to show how they are written.
    (alice.state.prekeys, _) = Prekeys::default().rotate(&alice.state.me, at(0), &mut alice.rng).unwrap();
    let mut verified = alice.state.contacts[&e2e_user("bob")].clone();
    verified.set_verified(true);
    let key = world.accounts[&e2e_user("alice")].aik.clone();
    let sid = alice.state.peers.values().next().unwrap().active().unwrap().sid();

    let home = temporary();
    let mut store = Store::create(home.path(), Some(&frozen()), Cost::FLOOR).unwrap();
    store
        .transact(|tx| {
            let from = device("bob", 1);
            tx.begin(alice.state, Some(key))?;
            tx.set_contact(verified);
            tx.apply(Change { mark: Some((from.clone(), marks::mark(b"opened"))), ..Change::default() });
            tx.set_room_pin(&RoomName::parse("#left").unwrap(), Some(RoomId([1; 16])));
            tx.set_profile(profile());
            tx.set_cursor(&target("#ops"), 9);
            tx.set_device_name(&from, Some("phone"));
            tx.set_setting("checked", &[1, 2, 3]);
            tx.put_bundle(vec![4; 40], &from, 5);
            let [sealed, plain, failed, unplaced] = entries();
            [sealed, plain, failed].into_iter().try_for_each(|entry| tx.record(entry).map(drop))?;
            tx.record_sealed(unplaced, marks::mark(b"by hand"))?;
            let first = tx.queue(super::lines::post("bob", "abcdefgh"))?;
            tx.sent(first)?;
            tx.queue(super::lines::post("bob", "abcdefgh"))?;
            tx.hold(super::lines::held(3))
        })
        .unwrap();

    let mut out = String::from("-- A store of version 1, written by `print_a_fixture`. Frozen.\n");
    for table in TABLES.iter().chain(&["mark"]) {
        let order = if *table == "mark" { "number" } else { "id" };
        let mut rows = store.sql.prepare(&format!("SELECT * FROM {table} ORDER BY {order}")).unwrap();
        let columns = rows.column_count();
        let mut rows = rows.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let values: Vec<String> = (0..columns)
                .map(|column| match row.get_ref(column).unwrap() {
                    ValueRef::Null => "NULL".into(),
                    ValueRef::Integer(number) => number.to_string(),
                    ValueRef::Text(text) => format!("'{}'", str::from_utf8(text).unwrap()),
                    ValueRef::Blob(blob) => format!("X'{}'", hex(blob)),
                    ValueRef::Real(_) => panic!("there are none"),
                })
                .collect();
            writeln!(out, "INSERT INTO {table} VALUES ({});", values.join(", ")).unwrap();
        }
    }
    writeln!(out, "PRAGMA application_id = 0x44775363;\nPRAGMA user_version = 1;").unwrap();
    let testdata = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bin/dsc/store/testdata");
    fs::write(testdata.join("version1.sql"), out).unwrap();
    let slot = fs::read(home.path().join("passphrase.slot")).unwrap();
    fs::write(testdata.join("version1.slot.hex"), hex(&slot) + "\n").unwrap();
    println!("the session is {sid}");
}

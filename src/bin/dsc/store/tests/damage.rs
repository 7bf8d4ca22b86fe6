//! What somebody can read in the files without the key, and what happens when they change them.

use std::collections::HashSet;
use std::fs;

use downstream::e2e::name::{Mark as Envelope, RoomId, RoomName};
use downstream::e2e::roster::Op;
use downstream::e2e::state::Change;
use rusqlite::Connection;

use super::world::{World, at, user as e2e_user};
use super::*;

const TOKEN: &str = "9f8e7d6c5b4a39281706f5e4d3c2b1a0";
const TEXT: &str = "the bridge is at the third milestone, come alone";

/// A store with something in every table.
fn full() -> (TempDir, Store, Vec<Vec<u8>>) {
    let mut world = World::new(9);
    let (mut alice, mut bob) = (world.device("alice"), world.device("bobolink-the-second"));
    let line = world.say(&mut alice, "bobolink-the-second", TEXT, at(0));
    bob.text(&line, at(0));
    let line = world.say(&mut bob, "alice", TEXT, at(1));
    alice.text(&line, at(1));
    let room = world.create_room(&mut alice, "#milestone-planning", false);
    world.roster(&mut alice, &room, Op::Add, &e2e_user("bobolink-the-second"), at(5));
    world.read_roster(&mut alice, &room, at(5));
    world.say_room(&mut alice, &room, TEXT, at(6)).unwrap();
    let account = world.accounts[&e2e_user("alice")].aik.clone();

    let (home, mut store) = fresh();
    let state = alice.state.clone();
    let mut secrets: Vec<Vec<u8>> = vec![
        store.vault.dek().bytes().expose().to_vec(),
        account.seed().expose().to_vec(),
        state.me.dsk().seed().expose().to_vec(),
        state.me.dik().private().expose().to_vec(),
        TOKEN.into(),
        TEXT.into(),
        b"bobolink-the-second".to_vec(),
        b"#milestone-planning".to_vec(),
        b"chat.milestone.example:6697".to_vec(),
        b"a phone of bobolink".to_vec(),
    ];
    secrets.extend(state.prekeys.private_keys().map(|(_, _, key)| key.to_vec()));
    // Sessions, chains and certificates whole.
    secrets.extend(state.peers.values().map(|peer| peer.to_row().to_vec()));
    secrets.extend(state.rooms.values().map(|room| room.chains.to_row().to_vec()));
    secrets.extend(state.contacts.values().map(|contact| contact.to_row()));
    store
        .transact(|tx| {
            tx.begin(state, Some(account))?;
            let from = device("bobolink-the-second", 1);
            tx.apply(Change { mark: Some((from.clone(), Envelope([1; 16]))), ..Change::default() });
            tx.set_profile(Profile {
                server: Some("chat.milestone.example:6697".into()),
                user: Some(user("alice")),
                token: Some(Token::new(Zeroizing::new(TOKEN.into()))),
                token_name: None,
            });
            tx.record(entry("bobolink-the-second", 1, TEXT))?;
            tx.record(entry("bobolink-the-second", 2, "two"))?;
            tx.record(Entry { what: What::Plain { text: TEXT.into() }, ..entry("#milestone-planning", 1, "") })?;
            let waiting =
                Outgoing { inner: Some(inner(1, TEXT)), ..super::lines::post("bobolink-the-second", "abcdefgh") };
            tx.queue(waiting.clone())?;
            tx.queue(waiting)?;
            tx.set_device_name(&from, Some("a phone of bobolink"));
            tx.set_setting("one", TEXT.as_bytes());
            tx.set_setting("two", TEXT.as_bytes());
            tx.put_bundle(TEXT.into(), &from, 1);
            tx.set_room_pin(&RoomName::parse("#other").unwrap(), Some(RoomId([1; 16])));
            tx.hold(Held {
                target: Some(target("#milestone-planning")),
                id: 1,
                time_ms: 1,
                sender: user("bobolink-the-second"),
                body: TEXT.into(),
                since_ms: 1,
            })
        })
        .unwrap();
    (home, store, secrets)
}

/// Every table with a sealed column.
pub(super) const TABLES: [&str; 15] = [
    "single",
    "contact",
    "peer",
    "roster",
    "chains",
    "thread",
    "outgoing",
    "pin",
    "conversation",
    "device_name",
    "bundle",
    "setting",
    "history",
    "outbox",
    "held",
];

/// Everything that reads every sealed row.
fn read_all(store: &mut Store) -> Done {
    store.transact(|tx| {
        tx.outbox()?;
        tx.held()?;
        tx.search(&["no such word".into()], None, 10).map(drop)
    })
}

#[test]
fn the_files_hold_no_window_of_a_secret() {
    let (home, mut store, secrets) = full();
    // What was erased is gone too.
    store
        .transact(|tx| {
            tx.sweep(u64::MAX, 1)?;
            tx.sent(tx.outbox()?[0].0)
        })
        .unwrap();
    let bytes = bytes_of(home.path());
    let windows: HashSet<&[u8]> = bytes.windows(16).collect();
    for secret in &secrets {
        for window in secret.windows(16).filter(|window| window.iter().any(|byte| *byte != 0)) {
            assert!(!windows.contains(window), "{secret:?}");
        }
    }
    for name in ["bobolink", "milestone", "alice"] {
        assert!(!bytes.windows(name.len()).any(|window| window == name.as_bytes()), "{name}");
    }
    assert!(bytes.windows(7).any(|window| window == b"history"), "the search finds what is there");
}

#[test]
fn every_table_has_a_row_to_damage() {
    let (home, _store, _) = full();
    for table in TABLES {
        assert!(super::state::count_rows(&home, table) > 0, "{table}");
    }
    let sql = Connection::open(home.path().join(FILE)).unwrap();
    let tables: Vec<String> = sql
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name <> 'mark'")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert!(tables.iter().all(|table| TABLES.contains(&table.as_str())) && tables.len() == TABLES.len());
}

#[test]
fn an_edited_or_moved_row_is_damage() {
    let (home, mut store, _) = full();
    read_all(&mut store).unwrap();
    let edits: Vec<String> = TABLES
        .iter()
        .flat_map(|table| {
            [
                // A bit of the first row.
                format!("UPDATE {table} SET sealed = CAST(substr(sealed, 1, 60) || x'00' || substr(sealed, 62) AS BLOB) WHERE id = (SELECT min(id) FROM {table})"),
                // A row of another table.
                format!("UPDATE {table} SET sealed = (SELECT sealed FROM {} WHERE id = (SELECT min(id) FROM {table})) WHERE id = (SELECT min(id) FROM {table})",
                    if *table == "history" { "outbox" } else { "history" }),
                // To another place of its table.
                format!("UPDATE {table} SET id = 12345 WHERE id = (SELECT min(id) FROM {table})"),
            ]
        })
        .chain([
            // Two rows of a table change places.
            "UPDATE setting SET id = 3 - id + 1000; UPDATE setting SET id = id - 1000".into(),
            "UPDATE outbox SET id = 3 - id + 1000; UPDATE outbox SET id = id - 1000".into(),
            // The clear columns of the history say something else.
            "UPDATE history SET number = 77 WHERE id = 1".into(),
            "UPDATE history SET conversation = conversation + 1 WHERE id = 2".into(),
            "UPDATE history SET time = time + 1 WHERE id = 1".into(),
            // A table without its other half.
            "DELETE FROM single WHERE id = 3".into(),
            "DELETE FROM roster".into(),
        ])
        .collect();
    for edit in edits {
        let copy = copy_of(home.path());
        let sql = Connection::open(copy.path().join(FILE)).unwrap();
        sql.execute_batch(&edit).unwrap();
        assert!(sql.query_row("SELECT total_changes()", [], |row| row.get::<_, i64>(0)).unwrap() > 0, "{edit}");
        drop(sql);
        let result = Store::open(copy.path(), None).and_then(|mut store| read_all(&mut store));
        assert!(matches!(result, Err(StoreError::Damaged(_))), "{edit}: {result:?}");
    }
}

#[test]
fn a_slot_of_another_store_or_with_another_cost_is_refused() {
    let home = temporary();
    let right = passphrase("correct horse");
    drop(Store::create(home.path(), Some(&right), Cost::FLOOR).unwrap());
    let open = |home: &TempDir| Store::open(home.path(), Some(&right)).map(drop);

    let other = temporary();
    drop(Store::create(other.path(), Some(&right), Cost::FLOOR).unwrap());
    let swapped = copy_of(home.path());
    fs::copy(other.path().join("passphrase.slot"), swapped.path().join("passphrase.slot")).unwrap();
    assert!(matches!(open(&swapped), Err(StoreError::Damaged(what)) if what.contains("slot")));

    let slot = fs::read(home.path().join("passphrase.slot")).unwrap();
    let edited = |at: usize, value: &[u8]| {
        let mut bytes = slot.clone();
        bytes[at..at + value.len()].copy_from_slice(value);
        let copy = copy_of(home.path());
        fs::write(copy.path().join("passphrase.slot"), bytes).unwrap();
        open(&copy)
    };
    assert!(matches!(edited(5, &1024_u32.to_be_bytes()), Err(StoreError::Damaged(_))), "below the floor");
    assert!(matches!(edited(5, &u32::MAX.to_be_bytes()), Err(StoreError::Damaged(_))), "above the ceiling");
    assert!(matches!(edited(9, &3_u32.to_be_bytes()), Err(StoreError::WrongPassphrase)));
    assert!(matches!(edited(60, &[slot[60] ^ 1]), Err(StoreError::WrongPassphrase)));
    assert!(matches!(edited(0, b"X"), Err(StoreError::Damaged(_))));

    // A passphrase's slot does not open under the other name, nor the other way round.
    let renamed = copy_of(home.path());
    fs::rename(renamed.path().join("passphrase.slot"), renamed.path().join("machine.slot")).unwrap();
    assert!(matches!(Store::open(renamed.path(), None), Err(StoreError::WrongPassphrase)));
    open(&home).unwrap();
}

#[test]
fn what_is_no_store_is_refused_and_left_alone() {
    let (home, store) = fresh();
    drop(store);
    let with = |bytes: &[u8]| {
        let copy = copy_of(home.path());
        fs::write(copy.path().join(FILE), bytes).unwrap();
        let error = Store::open(copy.path(), None).err().unwrap();
        assert_eq!(fs::read(copy.path().join(FILE)).unwrap(), bytes);
        error
    };
    assert!(matches!(with(b"not a database, but long enough to be one if it only were one, that is 100 bytes and a few more than that"), StoreError::Damaged(_)));
    let foreign = temporary();
    let sql = Connection::open(foreign.path().join("x")).unwrap();
    sql.execute_batch("CREATE TABLE t(x)").unwrap();
    drop(sql);
    assert!(matches!(with(&fs::read(foreign.path().join("x")).unwrap()), StoreError::Damaged(_)));
    assert!(matches!(with(b""), StoreError::Damaged(_)), "an empty file was a store once");
    let whole = fs::read(home.path().join(FILE)).unwrap();
    assert!(matches!(with(&whole[..4096]), StoreError::Damaged(_)));
}

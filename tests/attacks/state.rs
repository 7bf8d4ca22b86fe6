//! Attack 20: the state of a device is stolen, copied, put back, or edited.

use std::collections::BTreeSet;

use crate::common::e2e::armour;
use crate::evil::forge::{MultiParts, place_of, ratchet_at};
use crate::evil::{Caught, Dsc, Stage};

/// Alice and Bob, who have said hello both ways.
fn acquainted(s: &Stage) -> (Dsc, Dsc) {
    let (alice, bob) = (s.dsc("alice"), s.dsc("bob"));
    for (from, name, to) in [(&alice, "bob", &bob), (&bob, "alice", &alice)] {
        from.run(&["send", name, "hello"]).ok();
        assert_eq!(to.run(&["fetch"]).ok().texts(), ["hello"]);
    }
    (alice, bob)
}

/// Ratchet key, number and salt of every slot of these bodies: what key and nonce of each follow from.
fn places(bodies: &[String]) -> Vec<([u8; 32], u32, Vec<u8>)> {
    let slots = bodies.iter().flat_map(|body| MultiParts::cut(&armour::envelope(body).unwrap()).slots);
    let place = |slot: &[u8]| {
        let ((dh, n), at) = (place_of(slot), ratchet_at(slot));
        (dh, n, slot[at + 58..at + 74].to_vec())
    };
    slots.map(|(_, slot)| place(&slot)).collect()
}

/// The line under which a message came to `user`.
fn arrived(s: &Stage, user: &str, body: &str) -> String {
    let fits = |c: &Caught| c.user == user && (c.is_down("- msg ") || c.is_down("* msg ")) && c.body() == Some(body);
    s.evil.wait_line("the message", fits).line
}

#[test]
fn a20a_yesterdays_store() {
    let s = Stage::new();
    let (alice, bob) = acquainted(&s);
    alice.run(&["create", "#room"]).ok();
    alice.run(&["invite", "#room", "bob"]).ok();
    bob.run(&["join", "#room"]).ok();
    alice.run(&["send", "#room", "before"]).ok();
    bob.run(&["fetch"]).ok();
    let yesterday = alice.snapshot();
    for i in 0..3 {
        alice.run(&["send", "bob", &format!("today {i}")]).ok();
        alice.run(&["send", "#room", &format!("today {i}")]).ok();
    }
    assert_eq!(bob.run(&["fetch"]).ok().texts().len(), 6);
    alice.restore(&yesterday);
    for i in 0..3 {
        alice.run(&["send", "bob", &format!("again {i}")]).ok();
        alice.run(&["send", "#room", &format!("again {i}")]).ok();
    }
    // The counters repeat, as they must, and no key with its nonce does.
    let bodies = s.bodies("alice", "bob");
    let all = places(&bodies);
    let counters: BTreeSet<_> = all.iter().map(|(dh, n, _)| (*dh, *n)).collect();
    assert!(counters.len() < all.len(), "the store was put back");
    assert_eq!(all.iter().cloned().collect::<BTreeSet<_>>().len(), all.len());
    let groups: Vec<Vec<u8>> = s.bodies("alice", "#room").iter().map(|body| armour::envelope(body).unwrap()).collect();
    let salts: BTreeSet<_> = groups.iter().map(|raw| raw[38..74].to_vec()).collect();
    assert_eq!(salts.len(), groups.len());
    assert!(groups.iter().map(|raw| raw[38..58].to_vec()).collect::<BTreeSet<_>>().len() < groups.len());
    // Bob says that something cannot be read, for each, and begins anew once.
    let ran = bob.run(&["fetch"]);
    assert!(ran.texts().is_empty(), "{ran:?}");
    assert_eq!(ran.unreadable(), ["reused"; 6], "{ran:?}");
    assert_eq!(s.signals("bob", "alice"), 1);
    let ran = alice.run(&["fetch"]).ok();
    assert!(ran.of("notice").iter().any(|notice| notice["kind"] == "reset"), "{ran:?}");
    alice.run(&["send", "bob", "healed"]).ok();
    let ran = bob.run(&["fetch"]).ok();
    assert_eq!(ran.texts(), ["healed"]);
    // What was lost in between shows: the numbers do not fit.
    assert!(ran.of("message")[0]["marks"].to_string().contains("conflict"), "{ran:?}");
}

#[test]
fn a20b_cloned_store() {
    let s = Stage::new();
    let (alice, bob) = acquainted(&s);
    let thief = alice.stolen();
    // One round trip of the victim.
    alice.run(&["send", "bob", "ping"]).ok();
    bob.run(&["fetch"]).ok();
    bob.run(&["send", "alice", "pong"]).ok();
    alice.run(&["fetch"]).ok();
    alice.run(&["send", "bob", "ping again"]).ok();
    bob.run(&["fetch"]).ok();
    bob.run(&["send", "alice", "for alice alone"]).ok();
    let body = s.body("bob", "alice");
    assert_eq!(alice.run(&["fetch"]).ok().texts(), ["for alice alone"]);
    let ran = thief.run_with(&["open"], &format!("{}\n", arrived(&s, "alice", &body))).refused();
    assert!(ran.texts().is_empty(), "{ran:?}");
    // What the thief says is told from what Alice says.
    let mut conflict = false;
    for i in 0..3 {
        thief.run(&["send", "bob", &format!("stolen {i}")]);
        let ran = bob.run(&["fetch"]);
        let marked = |m: &serde_json::Value| m["marks"].to_string().contains("conflict");
        for message in ran.of("message") {
            assert!(marked(&message), "{message}");
            conflict = true;
        }
        assert!(!ran.unreadable().is_empty() || conflict, "{ran:?}");
        // The thief takes in the reset that was meant for Alice.
        thief.run(&["fetch"]);
    }
    assert!(conflict, "never told");
}

#[test]
fn a20c_stolen_files() {
    let s = Stage::new();
    let bob = s.dsc("bob");
    let alice = Dsc::new("alice");
    for (name, passphrase) in [("pass", "correct horse battery"), ("wrong", "incorrect horse"), ("empty", "")] {
        std::fs::write(alice.path(name), format!("{passphrase}\n")).unwrap();
    }
    let with = |name: &str, arguments: &[&str]| {
        let file = alice.path(name).to_str().unwrap().to_owned();
        let mut all = vec!["--passphrase-file", file.as_str()];
        all.extend(arguments);
        alice.run(&all)
    };
    let file = alice.path("pass").to_str().unwrap().to_owned();
    alice.run_at(s.evil.address(), s.evil.pin(), &["--passphrase-file", &file, "register"]).ok();
    with("pass", &["send", "bob", "a very distinctive secret"]).ok();
    bob.run(&["fetch"]).ok();
    let words = with("pass", &["export"]).ok();
    let words: Vec<&str> = words
        .out
        .split(|c: char| !c.is_ascii_lowercase())
        .filter(|word| bip39::Language::English.find_word(word).is_some())
        .collect();
    let seed = words.windows(24).find_map(|words| bip39::Mnemonic::parse_normalized(&words.join(" ")).ok());
    let seed = seed.expect("24 words with their check sum").to_entropy();
    let token = s.evil.wait_line("the token", |c| c.user == "alice" && c.is_down("OK token")).line;
    let token = token.split("token=").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    // Eight bytes of any of these would be too many.
    let before = alice.snapshot();
    for (what, secret) in [
        ("the seed", seed.as_slice()),
        ("the passphrase", b"correct horse battery"),
        ("the password", b"password-alice"),
        ("the token", token.trim_start_matches("token:").as_bytes()),
        ("a text", b"a very distinctive secret"),
    ] {
        for (name, bytes) in &before {
            let found = secret.windows(8).any(|window| crate::plaintext::find(bytes, window).is_some());
            assert!(!found, "{what} in {}", name.display());
        }
    }
    assert!(before.values().any(|bytes| crate::plaintext::find(bytes, b"SQLite format").is_some()), "the search works");

    // A wrong passphrase, none, an edited slot, another store's slot.
    with("wrong", &["number", "bob"]).refused();
    with("empty", &["number", "bob"]).refused();
    let slot_name = before.keys().find(|name| name.to_str() == Some("passphrase.slot")).unwrap().clone();
    let slot = &before[&slot_name];
    assert!(slot.starts_with(b"DSKS\x01"));
    let edit = |at: usize, bytes: &[u8]| {
        let mut edited = slot.clone();
        edited[at..at + bytes.len()].copy_from_slice(bytes);
        edited
    };
    let flip = |at: usize| edit(at, &[slot[at] ^ 1]);
    let mut slots = vec![
        ("no memory", edit(5, &1024_u32.to_be_bytes())),
        ("less memory", edit(5, &(19 * 1024_u32).to_be_bytes())),
        ("a terabyte", edit(5, &(1_u32 << 30).to_be_bytes())),
        ("one pass", edit(9, &1_u32.to_be_bytes())),
        ("two passes", edit(9, &2_u32.to_be_bytes())),
        ("a thousand passes", edit(9, &1000_u32.to_be_bytes())),
        ("no lane", edit(13, &[0])),
        ("one lane", edit(13, &[1])),
        ("cut", slot[..slot.len() - 1].to_vec()),
        ("longer", [&slot[..], &[0]].concat()),
        ("nothing", Vec::new()),
    ];
    // A bit in each field: magic, version, both salts, commitment, key, tag.
    slots.extend([0, 4, 14, 30, 46, 78, 110].map(|at| ("a bit", flip(at))));
    slots.push(("the last bit", flip(slot.len() - 1)));
    for (what, slot) in slots {
        let mut edited = before.clone();
        edited.insert(slot_name.clone(), slot);
        alice.restore(&edited);
        let ran = with("pass", &["number", "bob"]);
        assert!(ran.code != 0 && !ran.out.contains("SQLite"), "{what}: {ran:?}");
    }
    let other = Dsc::new("carol");
    std::fs::copy(alice.path("pass"), other.path("pass")).unwrap();
    let file = other.path("pass").to_str().unwrap().to_owned();
    other.run_at(s.evil.address(), s.evil.pin(), &["--passphrase-file", &file, "register"]).ok();
    let mut swapped = before.clone();
    swapped.insert(slot_name.clone(), other.snapshot()[&slot_name].clone());
    alice.restore(&swapped);
    with("pass", &["number", "bob"]).refused();

    // A sealed row opens under its own table and number only.
    for (what, sql) in [
        ("another table", "INSERT OR REPLACE INTO peer(id, sealed) SELECT id, sealed FROM contact"),
        ("another number", "UPDATE contact SET id = id + 100"),
        ("a bit", "UPDATE contact SET sealed = CAST(x'00' || substr(sealed, 2) AS BLOB)"),
        ("nothing", "UPDATE contact SET sealed = x''"),
    ] {
        alice.restore(&before);
        with("pass", &["number", "bob"]).ok();
        let database = rusqlite::Connection::open(alice.home().join("store.db")).unwrap();
        assert!(database.execute(sql, []).unwrap() > 0, "{what}");
        drop(database);
        let ran = with("pass", &["number", "bob"]);
        assert!(ran.code != 0, "{what}: {ran:?}");
    }
    // As it was, it opens.
    alice.restore(&before);
    with("pass", &["send", "bob", "still mine"]).ok();
    assert_eq!(bob.run(&["fetch"]).ok().texts(), ["still mine"]);
}

#[test]
fn a20d_state_opens_nothing_from_before() {
    let s = Stage::new();
    let (alice, bob) = acquainted(&s);
    alice.run(&["create", "#room"]).ok();
    alice.run(&["invite", "#room", "bob"]).ok();
    bob.run(&["join", "#room"]).ok();
    for i in 0..4 {
        alice.run(&["send", "bob", &format!("direct {i}")]).ok();
        alice.run(&["send", "#room", &format!("room {i}")]).ok();
    }
    assert_eq!(bob.run(&["fetch"]).ok().texts().len(), 8);
    let lines: String = ["bob", "#room"]
        .iter()
        .flat_map(|target| s.bodies("alice", target))
        .map(|body| format!("{}\n", arrived(&s, "bob", &body)))
        .collect();
    assert_eq!(lines.lines().count(), 9);
    // The thief of time T has every key that there is. The history, which is kept on purpose, is not what
    // this is about: it goes, and so do the marks.
    let thief = bob.stolen();
    thief.erase(&["history", "mark"]);
    let ran = thief.run_with(&["open"], &lines).fails(1);
    assert!(ran.texts().is_empty(), "{ran:?}");
    assert_eq!(ran.unreadable().len(), 9, "{ran:?}");
    // The history itself answers its owner.
    assert_eq!(bob.run_with(&["open"], &lines).ok().texts().len(), 9);
}

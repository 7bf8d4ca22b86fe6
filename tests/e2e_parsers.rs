//! Every parser, on arbitrary bytes and on valid bytes that were damaged: none panics, none takes what
//! is cut or has something behind it, and what is taken is written back as it was.
#![cfg(feature = "client")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

#[path = "e2e_common/mod.rs"]
mod common;

use common::e2e::bundle::{Bundle, Record};
use common::e2e::cert::Certificate;
use common::e2e::contact::Contact;
use common::e2e::descriptor::safe_name;
use common::e2e::device_list::DeviceList;
use common::e2e::envelope::{Envelope, Slot};
use common::e2e::error::Error;
use common::e2e::identity::Identity;
use common::e2e::inner::{Body, Inner};
use common::e2e::keyslot::{Dek, Place};
use common::e2e::link::{Code, Request};
use common::e2e::marks::Marks;
use common::e2e::prekeys::Prekeys;
use common::e2e::room::Chains;
use common::e2e::roster::{Entry, Op};
use common::e2e::roster_log::Roster;
use common::e2e::secret::Secret;
use common::e2e::sessions::Peer;
use common::e2e::thread::{Outgoing, Thread};
use common::e2e::{armour, padding};
use common::*;
use proptest::prelude::*;

/// Gives the bytes to everything that takes bytes.
fn feed(raw: &[u8], contact: &Contact) {
    let _ = (Envelope::parse(raw), Slot::parse(raw), Inner::parse(raw), padding::unpad(raw));
    let _ = (Certificate::verify(raw), DeviceList::verify(raw, contact.user(), contact.aik()));
    let _ = (Bundle::verify(raw, contact, at(0)), Record::parse(raw), Request::parse(raw));
    let _ = (Entry::verify(raw), Roster::begin(&room_name("#r"), 1, raw));
    let _ = (contact.learn(raw, &[raw]), Contact::first(contact.user(), raw, &[raw]));
    let _ = (Contact::from_row(raw), Identity::from_row(raw), Prekeys::from_row(raw), Peer::from_row(raw));
    let _ = (Marks::from_row(raw), Thread::from_row(raw), Outgoing::from_row(raw));
    let _ = (Roster::from_row(raw), Chains::from_row(raw));
    let dek = Dek::from_bytes(Secret::copy_from(&[1; 32]));
    let _ = dek.open_row(&Place { table: "t", rowid: 1, schema_version: 1 }, raw);
    if let Ok(text) = str::from_utf8(raw) {
        let _ = (armour::envelope(text), armour::unbase64(text), Code::parse(text), safe_name(text));
    }
}

/// Whether a row's parser takes the bytes.
type Reads = fn(&[u8]) -> bool;

/// One valid structure of each kind.
fn samples() -> (Vec<Vec<u8>>, Contact) {
    let mut world = World::new(1);
    let (mut a, mut b) = (world.device("alice"), world.device("bob"));
    let room = world.create_room(&mut a, "#r", false);
    world.roster(&mut a, &room, Op::Add, &user("bob"), at(1));
    world.read_roster(&mut b, &room, at(1));
    world.learn(&mut b, &user("alice"), at(1));
    let (links, message) = world.say_room(&mut a, &room, "hello", at(1)).unwrap();
    let link = b.open(&links[0], at(1)).unwrap();
    b.open(&message, at(1)).unwrap();
    let line = world.say(&mut a, "bob", "hello", at(1));
    let opened = b.open(&line, at(1)).unwrap();
    let contact = a.state.contacts[&user("bob")].clone();
    let rooms = b.state.rooms.values().next().unwrap();
    let samples = vec![
        line.bytes(),
        message.bytes(),
        opened.raw.to_vec(),
        link.raw.to_vec(),
        b.state.me.cert().bytes().to_vec(),
        contact.list().unwrap().bytes().to_vec(),
        world.directory.bundle(b.me()),
        world.rosters[&room][0].clone(),
        contact.to_row(),
        b.state.me.to_row().to_vec(),
        b.state.prekeys.to_row().to_vec(),
        b.state.peers[a.me()].to_row().to_vec(),
        b.state.marks[a.me()].to_row(),
        b.state.threads.values().next().unwrap().to_row(),
        a.state.outgoing.values().next().unwrap().to_row(),
        rooms.roster.to_row(),
        rooms.chains.to_row().to_vec(),
        a.state.rooms.values().next().unwrap().chains.to_row().to_vec(),
        Record::Certificate(b.state.me.cert().clone()).to_bytes(b.me().device),
    ];
    (samples, contact)
}

#[test]
fn rows_are_read_at_their_exact_length_only() {
    let (samples, _) = samples();
    let readers: [(usize, Reads); 10] = [
        (8, |row| Contact::from_row(row).is_ok()),
        (9, |row| Identity::from_row(row).is_ok()),
        (10, |row| Prekeys::from_row(row).is_ok()),
        (11, |row| Peer::from_row(row).is_ok()),
        (12, |row| Marks::from_row(row).is_ok()),
        (13, |row| Thread::from_row(row).is_ok()),
        (14, |row| Outgoing::from_row(row).is_ok()),
        (15, |row| Roster::from_row(row).is_ok()),
        (16, |row| Chains::from_row(row).is_ok()),
        (17, |row| Chains::from_row(row).is_ok()),
    ];
    for (i, reads) in readers {
        let row = &samples[i];
        assert!(reads(row), "{i}");
        assert!(!reads(&[&row[..], &[0]].concat()), "{i}: something behind");
        // The marks are a plain sequence of sixteens: a cut between two is a shorter row.
        let cuts = (0..row.len()).filter(|n| i != 12 || n % 16 != 1);
        assert!(cuts.take(3000).all(|n| !reads(&row[..n])), "{i}: cut");
        let mut bad = row.clone();
        bad[0] ^= 3;
        assert!(!reads(&bad), "{i}: another version");
    }
}

#[test]
fn damaged_structures_make_nothing_panic() {
    let (samples, contact) = samples();
    let mut rng = Seeded::new(9);
    for sample in &samples {
        for _ in 0..60 {
            let mut raw = sample.clone();
            for _ in 0..=rng.below(3) {
                let at = rng.below(raw.len());
                match rng.below(4) {
                    0 => raw.truncate(at.max(1)),
                    1 => raw[at] = 0xff,
                    2 => raw[at] ^= 1 << rng.below(8),
                    _ => raw.insert(at, 0),
                }
            }
            feed(&raw, &contact);
        }
    }
}

#[test]
fn what_is_opened_shows_no_key_in_debug_output() {
    let mut world = World::new(2);
    let (mut a, mut b) = (world.device("alice"), world.device("bob"));
    let line = world.say(&mut a, "bob", "hello", at(1));
    let opened = b.open(&line, at(1)).unwrap();
    assert!(matches!(&opened.inner.body, Body::Text(text) if text == "hello"));
    assert!(!format!("{opened:?}").contains(&format!("{:?}", &opened.raw[..])));
    assert_eq!(Error::Commit.to_string(), "cannot open (commit)");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn arbitrary_bytes_make_nothing_panic(raw in proptest::collection::vec(any::<u8>(), 0..600), head in any::<[u8; 2]>()) {
        let contact = Contact::pinned(&user("bob"), [1; 32]);
        feed(&raw, &contact);
        feed(&[&[1, head[0] % 0x24][..], &raw].concat(), &contact);
        feed(&[&[1][..], &raw].concat(), &contact);
    }
}

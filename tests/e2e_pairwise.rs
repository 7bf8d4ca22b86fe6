//! Two accounts and their devices: what arrives, what is refused, and that a refusal changes nothing.
#![cfg(feature = "client")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

#[path = "e2e_common/mod.rs"]
mod common;

use common::e2e::armour;
use common::e2e::error::{Error, SealError};
use common::e2e::inner::{Body, ChangeKind, Via};
use common::e2e::name::MsgId;
use common::e2e::send::Answers;
use common::e2e::sessions::Need;
use common::*;

/// Alice and Bob, one device each, who have said hello both ways.
fn acquainted(seed: u64) -> (World, Device, Device) {
    let mut world = World::new(seed);
    let (mut a, mut b) = (world.device("alice"), world.device("bob"));
    let hello = world.say(&mut a, "bob", "hello", at(1));
    assert_eq!(b.text(&hello, at(1)), "hello");
    world.learn(&mut b, &user("alice"), at(1));
    let hi = world.say(&mut b, "alice", "hi", at(2));
    assert_eq!(a.text(&hi, at(2)), "hi");
    (world, a, b)
}

#[test]
fn a_conversation() {
    let (mut world, mut a, mut b) = acquainted(1);
    for i in 0..20 {
        let line = world.say(&mut a, "bob", &format!("a{i}"), at(3));
        assert_eq!(b.text(&line, at(3)), format!("a{i}"));
        let line = world.say(&mut b, "alice", &format!("b{i}"), at(3));
        let opened = a.open(&line, at(3)).unwrap();
        assert_eq!((opened.from, opened.place.unwrap().missing), (b.me().clone(), 0));
    }
    let short = world.say(&mut a, "bob", "short", at(4));
    assert_eq!(short.bytes().len(), 543, "a short line to one known device");
}

#[test]
fn the_first_message_pins_and_says_what_it_is_worth() {
    let mut world = World::new(2);
    let (mut a, mut b) = (world.device("alice"), world.device("bob"));
    let first = world.say(&mut a, "bob", "one", at(1));
    let second = world.say(&mut a, "bob", "two", at(1));
    let opened = b.open(&first, at(1)).unwrap();
    assert!(opened.notes.first_contact && opened.notes.new_session && opened.notes.fetch_list && !opened.notes.weak);
    let opened = b.open(&second, at(1)).unwrap();
    assert!(!opened.notes.first_contact && !opened.notes.new_session && opened.notes.fetch_list);
    // Nothing is sealed to Alice before her list was fetched.
    let answer = b.state.seal_message(&user("alice"), Body::Text("x".into()), &Answers::default(), at(1), &mut b.rng);
    assert_eq!(answer.unwrap_err(), SealError::NeedList(user("alice")));
    assert_eq!(b.state.prekeys.one_time_left(), (99, 49));
}

#[test]
fn every_device_gets_a_slot_and_the_others_of_the_sender_a_copy() {
    let mut world = World::new(3);
    let (mut a1, mut b1) = (world.device("alice"), world.device("bob"));
    let mut a2 = world.device("alice");
    let mut b2 = world.device("bob");
    for device in [&mut a1, &mut a2] {
        world.learn(device, &user("alice"), at(1));
    }
    let line = world.say(&mut a1, "bob", "to all", at(1));
    for device in [&mut b1, &mut b2] {
        let opened = device.open(&line, at(1)).unwrap();
        assert!(!opened.notes.sent_copy && opened.from == *a1.me());
    }
    let opened = a2.open(&line, at(1)).unwrap();
    assert!(opened.notes.sent_copy && opened.from == *a1.me());
    assert_eq!(a1.refuses(&line, at(1)), Error::Own);

    // A device that was listed later has no slot: no alarm, no reset.
    let mut b3 = world.device("bob");
    assert_eq!(b3.refuses(&line, at(2)), Error::NotForThisDevice);
    assert!(!Error::NotForThisDevice.calls_for_reset());
    // Alice's second device answers, all hear it.
    world.learn(&mut a2, &user("bob"), at(2));
    let line = world.say(&mut a2, "bob", "from the second", at(2));
    for device in [&mut a1, &mut b1, &mut b2, &mut b3] {
        assert_eq!(device.text(&line, at(2)), "from the second");
    }
}

#[test]
fn a_note_to_oneself_reaches_the_other_devices() {
    let mut world = World::new(4);
    let mut a1 = world.device("alice");
    let alone = a1.state.seal_message(&user("alice"), Body::Text("x".into()), &Answers::default(), at(1), &mut a1.rng);
    assert_eq!(alone.unwrap_err(), SealError::NoDevice(user("alice")));
    let mut a2 = world.device("alice");
    world.learn(&mut a1, &user("alice"), at(1));
    let line = world.say(&mut a1, "alice", "milk", at(1));
    assert_eq!(a2.text(&line, at(1)), "milk");
    let line = world.say(&mut a2, "alice", "bread", at(1));
    assert_eq!(a1.text(&line, at(1)), "bread");
}

#[test]
fn all_kinds_travel() {
    let (mut world, mut a, mut b) = acquainted(5);
    let change = |kind, author: &Device| Body::Change {
        kind,
        author: author.user(),
        device: author.me().device,
        msg_id: MsgId([1; 16]),
        text: "+1".into(),
    };
    for body in [change(ChangeKind::React, &b), change(ChangeKind::Edit, &a), change(ChangeKind::Delete, &a)] {
        let line = world.say_body(&mut a, "bob", body.clone(), at(3));
        assert_eq!(b.open(&line, at(3)).unwrap().inner.body, body);
    }
    let receipt = Body::Receipt { read: true, messages: vec![MsgId([1; 16]), MsgId([2; 16])] };
    let line = world.signal(&mut a, b.me(), receipt.clone(), at(3));
    let opened = b.open(&line, at(3)).unwrap();
    assert_eq!((opened.inner.body, opened.place), (receipt.clone(), None));
    // Not in the wrong kind of line, not another's message.
    let bob = user("bob");
    let refused = a.state.seal_message(&bob, receipt, &Answers::default(), at(3), &mut a.rng).unwrap_err();
    assert_eq!(refused, SealError::Kind);
    let edit = change(ChangeKind::Edit, &b);
    assert_eq!(a.state.seal_message(&bob, edit, &Answers::default(), at(3), &mut a.rng).unwrap_err(), SealError::Kind);
    let long = Body::Text("x".repeat(16_385));
    assert!(matches!(
        a.state.seal_message(&bob, long, &Answers::default(), at(3), &mut a.rng),
        Err(SealError::TooLong(_))
    ));
}

#[test]
fn loss_and_reordering_show_and_hurt_nothing() {
    let (mut world, mut a, mut b) = acquainted(6);
    let lines: Vec<_> = (0..10).map(|i| world.say(&mut a, "bob", &i.to_string(), at(3))).collect();
    for (i, missing) in [(9, 9), (0, 8), (4, 7), (2, 6)] {
        let opened = b.open(&lines[i], at(3)).unwrap();
        assert_eq!(opened.place.unwrap().missing, missing);
        assert!(!opened.place.unwrap().conflict);
    }
    let too_far: Vec<_> = (0..1010).map(|_| world.say(&mut a, "bob", "x", at(3))).collect();
    assert_eq!(b.refuses(&too_far[1001], at(3)), Error::TooFar);
    assert_eq!(b.text(&too_far[999], at(3)), "x");
}

#[test]
fn the_same_envelope_again_is_a_replay_and_no_reset() {
    let (mut world, mut a, mut b) = acquainted(7);
    let line = world.say(&mut a, "bob", "once", at(3));
    assert_eq!(b.text(&line, at(3)), "once");
    for _ in 0..100 {
        assert_eq!(b.refuses(&line, at(3)), Error::Replay);
    }
    assert!(!Error::Replay.calls_for_reset());
    // After a new session as well.
    let line2 = world.say(&mut b, "alice", "answer", at(8 * DAY));
    assert_eq!(a.text(&line2, at(8 * DAY)), "answer");
    assert_eq!(b.refuses(&line, at(8 * DAY)), Error::Replay);
}

#[test]
fn a_prekey_message_without_one_time_key_is_weak_and_opens_once() {
    let mut world = World::new(8);
    let (mut a, mut b) = (world.device("alice"), world.device("bob"));
    world.directory.withhold = true;
    let line = world.say(&mut a, "bob", "hello", at(1));
    let empty = b.clone();
    let opened = b.open(&line, at(1)).unwrap();
    assert!(opened.notes.weak);
    // The session is lost, the replay cache is not.
    b.state.peers.clear();
    b.state.marks.clear();
    assert_eq!(b.refuses(&line, at(1)), Error::Replay);
    // Weak until answered.
    let mut b = empty;
    b.open(&line, at(1)).unwrap();
    world.learn(&mut b, &user("alice"), at(1));
    let next = world.say(&mut a, "bob", "still weak", at(1));
    assert!(b.open(&next, at(1)).unwrap().notes.weak);
    world.say(&mut b, "alice", "answer", at(1));
    let next = world.say(&mut a, "bob", "no more", at(1));
    assert!(!b.open(&next, at(1)).unwrap().notes.weak);
}

#[test]
fn a_one_time_key_serves_once() {
    let mut world = World::new(9);
    let (mut a, mut b) = (world.device("alice"), world.device("bob"));
    let line = world.say(&mut a, "bob", "hello", at(1));
    b.open(&line, at(1)).unwrap();
    b.state.peers.clear();
    b.state.marks.clear();
    assert_eq!(b.refuses(&line, at(1)), Error::NoPrekey);
}

#[test]
fn every_flipped_byte_is_refused_and_changes_nothing() {
    /// Where a PREKEY in the only slot of a MULTI has its KEM ciphertext.
    const KEM_CT: std::ops::Range<usize> = 37 + 70..37 + 1158;
    let mut world = World::new(10);
    let (mut a, mut b) = (world.device("alice"), world.device("bob"));
    let first = world.say(&mut a, "bob", "hello", at(1));
    world.learn(&mut b, &user("alice"), at(1));
    let sweep = |b: &mut Device, line: &Sent| {
        let raw = line.bytes();
        for i in 0..raw.len() {
            // One mask is enough for the bytes of a KEM ciphertext: each has the same part in the transcript.
            let opaque = raw.len() > KEM_CT.end && KEM_CT.contains(&i);
            for mask in [0x01, 0x80, 0xff].into_iter().take(if opaque { 1 } else { 3 }) {
                let mut bad = raw.clone();
                bad[i] ^= mask;
                b.refuses(&line.with(&bad), at(1));
            }
        }
        for n in [0, 1, 18, 19, 50, raw.len() - 1] {
            b.refuses(&line.with(&raw[..n]), at(1));
        }
        b.refuses(&line.with(&[&raw[..], &[0]].concat()), at(1));
    };
    sweep(&mut b, &first);
    assert_eq!(b.text(&first, at(1)), "hello");
    let answer = world.say(&mut b, "alice", "hi", at(1));
    a.open(&answer, at(1)).unwrap();
    let second = world.say(&mut a, "bob", "again", at(1));
    sweep(&mut b, &second);
    assert_eq!(b.text(&second, at(1)), "again");
}

#[test]
fn nothing_can_be_moved_elsewhere() {
    let (mut world, mut a, mut b) = acquainted(11);
    let mut c = world.device("carol");
    let mut b2 = world.device("bob");
    for name in ["alice", "bob", "carol"] {
        for device in [&mut a, &mut b, &mut b2, &mut c] {
            world.learn(device, &user(name), at(2));
        }
    }
    let line = world.say(&mut a, "bob", "for bob", at(3));
    // Back to Alice, to Carol, from Carol, as a signal, in a room.
    assert_eq!(a.refuses(&line, at(3)), Error::Own);
    assert_eq!(c.refuses(&Sent { to: "carol".into(), ..line.clone() }, at(3)), Error::NotForThisDevice);
    assert_eq!(b.refuses(&Sent { sender: user("carol"), ..line.clone() }, at(3)), Error::NoSession);
    assert_eq!(b.refuses(&Sent { via: Via::Signal, ..line.clone() }, at(3)), Error::Syntax);
    assert_eq!(b.refuses(&Sent { to: "#room".into(), ..line.clone() }, at(3)), Error::Syntax);
    // The two slots swapped.
    let raw = line.bytes();
    let n = (raw.len() - 19) / 2;
    assert!(n > 100 && raw[18] == 2);
    let first_len = 18 + usize::from(u16::from_be_bytes([raw[35], raw[36]]));
    let second_at = 19 + first_len;
    let second_len = 18 + usize::from(u16::from_be_bytes([raw[second_at + 16], raw[second_at + 17]]));
    let mut swapped = raw.clone();
    let (id1, id2) = (raw[19..35].to_vec(), raw[second_at..second_at + 16].to_vec());
    swapped[19..35].copy_from_slice(&id2);
    swapped[second_at..second_at + 16].copy_from_slice(&id1);
    let swapped = line.with(&swapped);
    let code = b.refuses(&swapped, at(3));
    assert!(matches!(code, Error::Handshake | Error::NoSession | Error::NoPrekey | Error::Commit), "{code:?}");
    b2.refuses(&swapped, at(3));
    // A slot over another payload.
    let other = world.say(&mut a, "bob", "another", at(3)).bytes();
    let head = second_at + second_len;
    let moved = [&raw[..head], &other[other.len() - (raw.len() - head)..]].concat();
    assert_eq!(b.refuses(&line.with(&moved), at(3)), Error::Payload);
    assert_eq!((b.text(&line, at(3)), b2.text(&line, at(3))), ("for bob".into(), "for bob".into()));
}

#[test]
fn a_copy_cannot_be_shown_in_another_conversation() {
    let mut world = World::new(12);
    let (mut a1, mut b) = (world.device("alice"), world.device("bob"));
    let mut a2 = world.device("alice");
    let _ = world.device("carol");
    for device in [&mut a1, &mut a2] {
        world.learn(device, &user("alice"), at(1));
    }
    let line = world.say(&mut a1, "bob", "only bob", at(1));
    // Without any pin of Carol the payload is still bound to Bob's name.
    let moved = Sent { to: "carol".into(), ..line.clone() };
    assert_eq!(a2.refuses(&moved, at(1)), Error::Payload);
    world.learn(&mut a2, &user("bob"), at(1));
    assert_eq!(a2.text(&line, at(1)), "only bob");
    assert_eq!(b.text(&line, at(1)), "only bob");
}

#[test]
fn two_identities_shown_to_two_devices_are_an_alarm() {
    let mut world = World::new(13);
    let (mut a1, mut a2) = (world.device("alice"), world.device("alice"));
    world.learn(&mut a1, &user("alice"), at(1));
    let _bob = world.device("bob");
    // The second device is shown Mallory's keys under Bob's name.
    let mut evil = World::new(14);
    let _mallory = evil.device("bob");
    evil.learn(&mut a2, &user("bob"), at(1));
    let line = world.say(&mut a1, "bob", "hello", at(1));
    assert_eq!(a2.refuses(&line, at(1)), Error::Identity);
}

#[test]
fn another_identity_is_refused_both_ways() {
    let (mut world, mut a, mut b) = acquainted(15);
    let mut evil = World::new(16);
    let mut mallory = evil.device("alice");
    // Mallory writes as Alice.
    let line = {
        let list = world.directory.clone();
        let mut mixed = World { directory: list, ..evil.clone() };
        mixed.learn(&mut mallory, &user("bob"), at(3));
        mixed.say(&mut mallory, "bob", "it is me", at(3))
    };
    assert_eq!(b.refuses(&line, at(3)), Error::Identity);
    // The server shows Mallory's keys as Alice's.
    let certs = evil.directory.certs(&user("alice"));
    let certs: Vec<&[u8]> = certs.iter().map(Vec::as_slice).collect();
    let refused = b.state.learn(&user("alice"), &evil.directory.list(&user("alice")), &certs, at(3)).unwrap_err();
    assert_eq!(refused, common::e2e::contact::ListError::Changed);
    let bundle = evil.directory.bundle(mallory.me());
    let contact = &b.state.contacts[&user("alice")];
    assert_eq!(common::e2e::bundle::Bundle::verify(&bundle, contact, at(3)), Err(Error::Identity));
    // After the person accepts it, all is new.
    let change = b.state.repin(&user("alice"), &evil.directory.list(&user("alice")), &certs, at(3)).unwrap();
    b.state.apply(change);
    assert!(!b.state.contacts[&user("alice")].verified());
    assert_eq!(b.text(&line, at(3)), "it is me");
    let old = world.say(&mut a, "bob", "old alice", at(3));
    assert_eq!(b.refuses(&old, at(3)), Error::NoSession);
}

#[test]
fn a_session_known_under_another_identity_is_refused() {
    let (mut world, mut a, mut b) = acquainted(17);
    let line = world.say(&mut a, "bob", "x", at(3));
    let contact = common::e2e::contact::Contact::pinned(&user("alice"), [7; 32]);
    b.state.contacts.insert(user("alice"), contact);
    assert_eq!(b.refuses(&line, at(3)), Error::Identity);
}

#[test]
fn an_unlisted_device_starts_no_session() {
    let mut world = World::new(18);
    let (a1, mut b) = (world.device("alice"), world.device("bob"));
    world.learn(&mut b, &user("alice"), at(1));
    let mut a2 = world.device("alice");
    let line = world.say(&mut a2, "bob", "new here", at(1));
    assert_eq!(b.refuses(&line, at(1)), Error::UnlistedDevice);
    assert_eq!(world.learn(&mut b, &user("alice"), at(1)).added, [a2.me().device]);
    assert_eq!(b.text(&line, at(1)), "new here");
    // Dropped: its sessions go, and it starts no other.
    world.drop_device(a2.me());
    let news = world.learn(&mut b, &user("alice"), at(2));
    assert_eq!(news.dropped, [a2.me().device]);
    assert!(!b.state.peers.contains_key(a2.me()));
    assert_eq!(b.refuses(&world.say(&mut a2, "bob", "still here", at(2)), at(2)), Error::UnlistedDevice);
    drop(a1);
}

#[test]
fn an_expired_certificate_starts_no_session() {
    let mut world = World::new(19);
    let (mut a, mut b) = (world.device("alice"), world.device("bob"));
    world.learn(&mut b, &user("alice"), at(1));
    let line = world.say(&mut a, "bob", "x", at(1));
    assert_eq!(b.refuses(&line, at(YEAR + 1)), Error::UnlistedDevice);
    let mut stranger = world.device("dave");
    assert_eq!(stranger.refuses(&Sent { to: "dave".into(), ..line }, at(YEAR + 1)), Error::NotForThisDevice);
}

#[test]
fn a_session_from_the_future_is_refused() {
    let mut world = World::new(20);
    let (mut a, mut b) = (world.device("alice"), world.device("bob"));
    world.learn(&mut a, &user("bob"), at(1));
    let line = world.say(&mut a, "bob", "x", at(2 * DAY));
    assert_eq!(b.refuses(&line, at(DAY - 1)), Error::Clock);
    assert_eq!(b.text(&line, at(DAY)), "x");
}

#[test]
fn sessions_started_by_both_sides_at_once_converge() {
    let mut world = World::new(21);
    let (mut a, mut b) = (world.device("alice"), world.device("bob"));
    world.learn(&mut a, &user("bob"), at(1));
    world.learn(&mut b, &user("alice"), at(1));
    let (from_a, from_b) = (world.say(&mut a, "bob", "a", at(1)), world.say(&mut b, "alice", "b", at(1)));
    assert_eq!((a.text(&from_b, at(1)), b.text(&from_a, at(1))), ("b".into(), "a".into()));
    let active = |x: &Device, y: &Device| x.state.peers[y.me()].active().unwrap().sid();
    assert_eq!(active(&a, &b), active(&b, &a));
    for i in 0..4 {
        let line = world.say(&mut a, "bob", &i.to_string(), at(2));
        assert_eq!(b.text(&line, at(2)), i.to_string());
        let line = world.say(&mut b, "alice", &i.to_string(), at(2));
        assert_eq!(a.text(&line, at(2)), i.to_string());
    }
    assert_eq!(active(&a, &b), active(&b, &a));
}

#[test]
fn a_session_is_renewed_after_a_week_and_old_ones_go() {
    let (mut world, mut a, mut b) = acquainted(22);
    let late = world.say(&mut a, "bob", "late", at(3));
    let sid = a.state.peers[b.me()].active().unwrap().sid();
    for week in 1..6 {
        let now = at(week * 7 * DAY + week);
        assert_ne!(a.state.peers[b.me()].need(now), Need::Nothing);
        // Without a bundle the old session goes on.
        let old =
            a.clone().state.seal_message(&user("bob"), Body::Text("x".into()), &Answers::default(), now, &mut a.rng);
        assert!(old.is_ok());
        let address = b.me().clone();
        let contact = a.state.contacts[&user("bob")].clone();
        // Bob's device replaces its prekeys in time.
        let (prekeys, records) = b.state.prekeys.rotate(&b.state.me, now, &mut b.rng).unwrap();
        b.state.prekeys = prekeys;
        for record in records {
            world.directory.put(&user("bob"), &record.to_bytes(address.device));
        }
        let raw = world.directory.bundle(&address);
        let bundle = common::e2e::bundle::Bundle::verify(&raw, &contact, now).unwrap();
        let sealed = a
            .state
            .seal_message(&user("bob"), Body::Text("new".into()), &Answers::of(&[bundle]), now, &mut a.rng)
            .unwrap();
        a.state.apply(sealed.change);
        let line = Sent { via: Via::Message, sender: user("alice"), to: "bob".into(), body: sealed.body };
        assert!(b.open(&line, now).unwrap().notes.new_session);
        assert!(b.state.peers[a.me()].sessions().len() <= 3);
    }
    assert!(b.state.peers[a.me()].session(sid).is_none());
    assert_eq!(b.refuses(&late, at(43 * DAY)), Error::NoSession);
}

#[test]
fn a_lost_session_is_healed_by_one_reset() {
    let (mut world, mut a, mut b) = acquainted(23);
    let active = |x: &Device, y: &Device| x.state.peers[y.me()].active().unwrap().sid();
    b.state.peers.clear();
    let lost = world.say(&mut a, "bob", "lost", at(100));
    let code = b.refuses(&lost, at(100));
    assert_eq!(code, Error::NoSession);
    let mark = common::e2e::marks::mark(&lost.bytes());
    let peer = b.state.peers.entry(a.me().clone()).or_default().reset_after(code, mark, at(100)).unwrap();
    b.state.peers.insert(a.me().clone(), peer.clone());
    let reset = world.signal(&mut b, a.me(), Body::Reset, at(100));
    let opened = a.open(&reset, at(100)).unwrap();
    assert!(opened.notes.new_session && opened.inner.body == Body::Reset);
    assert_eq!(active(&a, &b), active(&b, &a));
    let line = world.say(&mut a, "bob", "healed", at(101));
    assert_eq!(b.text(&line, at(101)), "healed");

    // The budget: once an hour, six a day, never twice for one envelope, never for what is no loss.
    let after = |secs, code, mark| b.state.peers[a.me()].reset_after(code, mark, at(secs));
    let other = common::e2e::marks::mark(b"other");
    assert!(after(200, code, other).is_none());
    assert!(after(3700, code, mark).is_none());
    for quiet in [Error::Replay, Error::Own, Error::NotForThisDevice, Error::Payload, Error::TooFar, Error::Inner] {
        assert!(after(3700, quiet, other).is_none());
    }
    let (mut peer, mut sent) = (peer, 1);
    for hour in 1..24_u64 {
        let mark = common::e2e::marks::mark(&hour.to_be_bytes());
        if let Some(next) = peer.reset_after(Error::Auth, mark, at(100 + hour * 3600)) {
            (peer, sent) = (next, sent + 1);
        }
    }
    assert_eq!(sent, 6);
}

#[test]
fn crossing_resets_end_in_one_session() {
    let (mut world, mut a, mut b) = acquainted(24);
    let reset = |world: &mut World, x: &mut Device, y: &Device| {
        let peer = x.state.peers[y.me()].reset_after(Error::Commit, common::e2e::marks::mark(b"x"), at(10)).unwrap();
        x.state.peers.insert(y.me().clone(), peer);
        world.signal(x, y.me(), Body::Reset, at(10))
    };
    let from_a = reset(&mut world, &mut a, &b);
    let from_b = reset(&mut world, &mut b, &a);
    a.open(&from_b, at(10)).unwrap();
    b.open(&from_a, at(10)).unwrap();
    let line = world.say(&mut a, "bob", "a", at(11));
    assert_eq!(b.text(&line, at(11)), "a");
    let line = world.say(&mut b, "alice", "b", at(11));
    assert_eq!(a.text(&line, at(11)), "b");
    let active = |x: &Device, y: &Device| x.state.peers[y.me()].active().unwrap().sid();
    assert_eq!(active(&a, &b), active(&b, &a));
}

#[test]
fn a_frozen_list_is_exposed_by_the_next_message() {
    let (mut world, mut a, mut b) = acquainted(25);
    let _a2 = world.device("alice");
    world.learn(&mut a, &user("alice"), at(3));
    let line = world.say(&mut a, "bob", "x", at(3));
    assert!(b.open(&line, at(3)).unwrap().notes.fetch_list);
    let refused = b.state.seal_message(&user("alice"), Body::Text("x".into()), &Answers::default(), at(3), &mut b.rng);
    assert_eq!(refused.unwrap_err(), SealError::NeedList(user("alice")));
    world.learn(&mut b, &user("alice"), at(3));
    world.say(&mut b, "alice", "to both", at(3));
}

#[test]
fn a_restored_store_repeats_no_key_and_shows_as_a_conflict() {
    let (mut world, mut a, mut b) = acquainted(26);
    let mut clone = a.clone();
    clone.rng = Seeded::new(999);
    let line = world.say(&mut a, "bob", "one", at(3));
    let twin = world.say(&mut clone, "bob", "two", at(3));
    assert_eq!(b.text(&line, at(3)), "one");
    assert_eq!(b.refuses(&twin, at(3)), Error::Reused);
    // One round trip of the victim, and the clone opens nothing more.
    let answer = world.say(&mut b, "alice", "answer", at(3));
    a.open(&answer, at(3)).unwrap();
    let line = world.say(&mut a, "bob", "three", at(3));
    b.open(&line, at(3)).unwrap();
    let answer = world.say(&mut b, "alice", "more", at(3));
    assert_eq!(a.text(&answer, at(3)), "more");
    assert_eq!(clone.refuses(&answer, at(3)), Error::Commit);
    // What the clone says in a new session is told by its numbers.
    clone.state.peers.clear();
    let twin = world.say(&mut clone, "bob", "four", at(3));
    let opened = b.open(&twin, at(3)).unwrap();
    assert!(opened.place.unwrap().conflict);
}

#[test]
fn a_failing_random_source_changes_nothing() {
    let mut world = World::new(27);
    let (mut a, mut b) = (world.device("alice"), world.device("bob"));
    let line = world.say(&mut a, "bob", "x", at(1));
    b.rng.fail_after = Some(0);
    assert_eq!(b.refuses(&line, at(1)), Error::Random);
    b.rng.fail_after = None;
    assert_eq!(b.text(&line, at(1)), "x");
    world.learn(&mut b, &user("alice"), at(1));
    for n in 0..4 {
        let before = b.fingerprint();
        b.rng.fail_after = Some(n);
        let sealed =
            b.state.seal_message(&user("alice"), Body::Text("x".into()), &Answers::default(), at(1), &mut b.rng);
        assert_eq!(sealed.unwrap_err(), SealError::Random);
        assert!(before == b.fingerprint());
    }
}

#[test]
fn junk_is_told_from_plain_text() {
    let (mut world, mut a, mut b) = acquainted(28);
    let line = world.say(&mut a, "bob", "x", at(3));
    assert_eq!(b.refuses(&Sent { body: "hello".into(), ..line.clone() }, at(3)), Error::Plain);
    for body in ["e2e:", "e2e:!", "e2e:AQI=", &line.body[..line.body.len() - 1], &format!("{} ", line.body)] {
        assert_eq!(b.refuses(&Sent { body: body.into(), ..line.clone() }, at(3)), Error::Syntax);
    }
    // Another version, another type.
    let mut raw = line.bytes();
    raw[0] = 0;
    assert_eq!(b.refuses(&line.with(&raw), at(3)), Error::Syntax);
    (raw[0], raw[1]) = (1, 9);
    assert_eq!(b.refuses(&line.with(&raw), at(3)), Error::Syntax);
    assert_eq!(armour::envelope("plain").unwrap_err().code(), "plain");
}

#[test]
fn a_handshake_is_of_the_device_that_the_header_names() {
    let mut world = World::new(29);
    let (mut a, mut b) = (world.device("alice"), world.device("bob"));
    world.learn(&mut b, &user("alice"), at(1));
    let line = world.say(&mut a, "bob", "x", at(1));
    let mut raw = line.bytes();
    raw[2] ^= 1;
    assert_eq!(b.refuses(&line.with(&raw), at(1)), Error::Identity);
    let _ = world.device("carol");
    world.learn(&mut b, &user("carol"), at(1));
    assert_eq!(b.refuses(&Sent { sender: user("carol"), ..line.clone() }, at(1)), Error::Identity);
    assert_eq!(b.text(&line, at(1)), "x");
}

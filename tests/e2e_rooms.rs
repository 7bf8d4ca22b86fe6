//! Rooms: the membership log and its rules, sender keys, rotation, removal, forks.
#![cfg(feature = "client")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

#[path = "e2e_common/mod.rs"]
mod common;

use common::e2e::error::{Error, SealError};
use common::e2e::inner::{Body, Via};
use common::e2e::roster::Op;
use common::e2e::roster_log::{Roster, Skip, Verdict};
use common::e2e::send::Answers;
use common::*;

struct Hall {
    world: World,
    a: Device,
    b: Device,
    c: Device,
    room: common::e2e::name::RoomName,
}

/// A closed room of Alice with Bob and Carol, everybody up to date.
fn hall(seed: u64) -> Hall {
    let mut world = World::new(seed);
    let (mut a, mut b, mut c) = (world.device("alice"), world.device("bob"), world.device("carol"));
    let room = world.create_room(&mut a, "#hall", false);
    for name in ["bob", "carol"] {
        assert!(accepted(&world.roster(&mut a, &room, Op::Add, &user(name), at(1))));
    }
    for device in [&mut b, &mut c] {
        assert!(world.read_roster(device, &room, at(1)).iter().all(accepted));
        for name in ["alice", "bob", "carol"] {
            world.learn(device, &user(name), at(1));
        }
    }
    Hall { world, a, b, c, room }
}

fn accepted(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Accepted(_))
}

fn not_allowed(verdict: &Verdict) -> bool {
    *verdict == Verdict::Skipped(Skip::NotAllowed)
}

/// Hands the signals out that are for a device; the others are not its.
fn hand(device: &mut Device, signals: &[Sent], now: common::e2e::time::Now) {
    let user = device.user();
    for signal in signals.iter().filter(|s| s.to == user.as_str()) {
        match device.open(signal, now) {
            Ok(_) | Err(Error::NotForThisDevice) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

impl Hall {
    /// Alice says something, all hear it.
    fn all_hear(&mut self, text: &str, now: common::e2e::time::Now) -> Sent {
        let (signals, line) = self.world.say_room(&mut self.a, &self.room, text, now).unwrap();
        for device in [&mut self.b, &mut self.c] {
            hand(device, &signals, now);
            assert_eq!(device.text(&line, now), text);
        }
        line
    }
}

#[test]
fn a_room_talks() {
    let mut h = hall(1);
    let line = h.all_hear("one", at(2));
    assert_eq!(line.bytes().len(), 442, "a short line");
    let (signals, line) = h.world.say_room(&mut h.a, &h.room, "two", at(2)).unwrap();
    assert!(signals.is_empty(), "the chain is given once");
    assert_eq!((h.b.text(&line, at(2)), h.c.text(&line, at(2))), ("two".into(), "two".into()));
    let (signals, line) = h.world.say_room(&mut h.b, &h.room, "from bob", at(2)).unwrap();
    hand(&mut h.a, &signals, at(2));
    hand(&mut h.c, &signals, at(2));
    assert_eq!((h.a.text(&line, at(2)), h.c.text(&line, at(2))), ("from bob".into(), "from bob".into()));
    assert_eq!(h.b.refuses(&line, at(2)), Error::Own);
    assert_eq!(h.c.refuses(&line, at(2)), Error::Replay);
}

#[test]
fn a_message_before_its_chain_waits() {
    let mut h = hall(2);
    let (signals, line) = h.world.say_room(&mut h.a, &h.room, "early", at(2)).unwrap();
    assert_eq!(h.b.refuses(&line, at(2)), Error::NoChain);
    hand(&mut h.b, &signals, at(2));
    assert_eq!(h.b.text(&line, at(2)), "early");
    // A chain of an epoch that was not read yet: read the roster first, send nothing until then.
    let _dave = h.world.device("dave");
    h.world.roster(&mut h.a, &h.room, Op::Add, &user("dave"), at(3));
    let (signals, line) = h.world.say_room(&mut h.a, &h.room, "hello dave", at(3)).unwrap();
    let for_bob = signals.iter().find(|s| s.to == "bob").unwrap();
    assert_eq!(h.b.refuses(for_bob, at(3)), Error::NeedRoster);
    assert_eq!(h.b.refuses(&line, at(3)), Error::NeedRoster);
    let id = h.b.state.room_named(&h.room).unwrap().roster.id();
    let change = h.b.state.hold_room(&id, 4);
    h.b.state.apply(change);
    assert_eq!(h.world.say_room(&mut h.b, &h.room, "x", at(3)).unwrap_err(), SealError::NeedRoster);
    h.world.read_roster(&mut h.b, &h.room, at(3));
    hand(&mut h.b, &signals, at(3));
    assert_eq!(h.b.text(&line, at(3)), "hello dave");
    h.world.say_room(&mut h.b, &h.room, "x", at(3)).unwrap();
}

#[test]
fn every_flipped_byte_is_refused_and_changes_nothing() {
    let mut h = hall(3);
    h.all_hear("one", at(2));
    let (_, line) = h.world.say_room(&mut h.a, &h.room, "two", at(2)).unwrap();
    let raw = line.bytes();
    for i in 0..raw.len() {
        for mask in [0x01, 0x80, 0xff] {
            let mut bad = raw.clone();
            bad[i] ^= mask;
            h.b.refuses(&line.with(&bad), at(2));
        }
    }
    for n in [0, 17, 73, 74, 120, raw.len() - 1] {
        h.b.refuses(&line.with(&raw[..n]), at(2));
    }
    assert_eq!(h.b.refuses(&line.with(&[&raw[..], &[0]].concat()), at(2)), Error::Signature);
    assert_eq!(h.b.refuses(&Sent { sender: user("carol"), ..line.clone() }, at(2)), Error::Room);
    assert_eq!(h.b.refuses(&Sent { via: Via::Signal, ..line.clone() }, at(2)), Error::Syntax);
    assert_eq!(h.b.refuses(&Sent { to: "bob".into(), ..line.clone() }, at(2)), Error::Syntax);
    assert_eq!(h.b.refuses(&Sent { to: "#other".into(), ..line.clone() }, at(2)), Error::NeedRoster);
    assert_eq!(h.b.text(&line, at(2)), "two");
}

#[test]
fn every_epoch_has_a_new_chain_and_the_old_one_is_closed() {
    let mut h = hall(4);
    h.all_hear("one", at(2));
    let (_, late) = h.world.say_room(&mut h.a, &h.room, "late", at(2)).unwrap();
    // A twin of Alice's state goes on in the old chain.
    let mut twin = h.a.clone();
    let (_, stale) = h.world.say_room(&mut twin, &h.room, "stale", at(2)).unwrap();
    h.world.roster(&mut h.a, &h.room, Op::Promote, &user("bob"), at(3));
    for device in [&mut h.b, &mut h.c] {
        h.world.read_roster(device, &h.room, at(3));
    }
    let (signals, line) = h.world.say_room(&mut h.a, &h.room, "new epoch", at(3)).unwrap();
    assert_eq!(signals.len(), 2);
    hand(&mut h.b, &signals, at(3));
    let opened = h.b.open(&late, at(3)).unwrap();
    assert!(opened.notes.room.old_roster && !opened.notes.room.removed);
    assert_eq!(h.b.text(&line, at(3)), "new epoch");
    assert_eq!(h.b.refuses(&stale, at(3)), Error::ClosedChain);
    // The same for who learns of the end before the beginning.
    let opened = h.c.open(&late, at(3)).unwrap();
    assert!(opened.notes.room.old_roster);
}

#[test]
fn a_chain_rotates_after_a_week_and_a_thousand_messages() {
    let mut h = hall(5);
    h.all_hear("one", at(2));
    let (signals, _) = h.world.say_room(&mut h.a, &h.room, "x", at(7 * DAY)).unwrap();
    assert!(signals.is_empty());
    let (signals, line) = h.world.say_room(&mut h.a, &h.room, "week", at(7 * DAY + 2)).unwrap();
    assert_eq!(signals.len(), 2);
    let now = at(7 * DAY + 3);
    hand(&mut h.b, &signals, now);
    assert_eq!(h.b.text(&line, now), "week");
    for _ in 0..999 {
        assert!(h.world.say_room(&mut h.a, &h.room, "x", now).unwrap().0.is_empty());
    }
    let (signals, line) = h.world.say_room(&mut h.a, &h.room, "thousand", now).unwrap();
    assert_eq!(signals.len(), 2);
    hand(&mut h.b, &signals, now);
    assert_eq!(h.b.text(&line, now), "thousand");
}

#[test]
fn skipped_keys_of_a_chain_are_kept_fourteen_days() {
    let mut h = hall(6);
    let (signals, _) = h.world.say_room(&mut h.a, &h.room, "first", at(2)).unwrap();
    hand(&mut h.b, &signals, at(2));
    let mut lines = Vec::new();
    for i in 0..900 {
        lines.push(h.world.say_room(&mut h.a, &h.room, &i.to_string(), at(2)).unwrap().1);
    }
    assert_eq!(h.b.text(&lines[899], at(2)), "899");
    let id = h.b.state.room_named(&h.room).unwrap().roster.id();
    assert_eq!(h.b.state.rooms[&id].chains.skipped_keys(), 900);
    assert_eq!(h.b.text(&lines[0], at(2)), "0");
    // Fourteen days later the rest is lost.
    assert_eq!(h.b.refuses(&lines[1], at(15 * DAY)), Error::Reused);
}

#[test]
fn a_device_that_joins_late_reads_from_its_link_on() {
    let mut h = hall(7);
    h.all_hear("one", at(2));
    let (_, before) = h.world.say_room(&mut h.a, &h.room, "before", at(2)).unwrap();
    let mut b2 = h.world.device("bob");
    h.world.learn(&mut h.a, &user("bob"), at(3));
    let (signals, line) = h.world.say_room(&mut h.a, &h.room, "after", at(3)).unwrap();
    assert_eq!(signals.len(), 1, "the current link for the new device only");
    h.world.read_roster(&mut b2, &h.room, at(3));
    h.world.learn(&mut b2, &user("alice"), at(3));
    hand(&mut b2, &signals, at(3));
    assert_eq!(b2.refuses(&before, at(3)), Error::BeforeChain);
    assert_eq!((b2.text(&line, at(3)), h.b.text(&line, at(3))), ("after".into(), "after".into()));
    // Dropped from the list: a new chain that it does not get.
    h.world.drop_device(b2.me());
    h.world.learn(&mut h.a, &user("bob"), at(4));
    let (signals, line) = h.world.say_room(&mut h.a, &h.room, "without", at(4)).unwrap();
    assert_eq!(signals.len(), 2);
    hand(&mut h.b, &signals, at(4));
    assert_eq!(h.b.text(&line, at(4)), "without");
    assert_eq!(b2.refuses(&line, at(4)), Error::NoChain);
    // Its own chains are a removed member's.
    h.world.learn(&mut b2, &user("carol"), at(4));
    let (signals, first) = h.world.say_room(&mut b2, &h.room, "from the dropped", at(3)).unwrap();
    assert_eq!(h.c.refuses(signals.iter().find(|s| s.to == "carol").unwrap(), at(4)), Error::UnlistedDevice);
    assert_eq!(h.c.refuses(&first, at(4)), Error::NoChain);
}

#[test]
fn a_removed_member_reads_nothing_more_and_is_soon_not_read() {
    let mut h = hall(8);
    let (signals, _) = h.world.say_room(&mut h.c, &h.room, "hello", at(2)).unwrap();
    hand(&mut h.a, &signals, at(2));
    hand(&mut h.b, &signals, at(2));
    let (_, last) = h.world.say_room(&mut h.c, &h.room, "last", at(2)).unwrap();
    let (_, later) = h.world.say_room(&mut h.c, &h.room, "later", at(2)).unwrap();
    assert!(accepted(&h.world.roster(&mut h.a, &h.room, Op::Remove, &user("carol"), at(3))));
    h.world.read_roster(&mut h.b, &h.room, at(3));
    let opened = h.b.open(&last, at(3)).unwrap();
    assert!(opened.notes.room.removed && opened.notes.room.old_roster);
    let id = h.b.state.room_named(&h.room).unwrap().roster.id();
    let mut by_time = h.b.clone();
    let change = h.b.state.read_to_end(&id);
    h.b.state.apply(change);
    assert_eq!(h.b.refuses(&later, at(3)), Error::NotMember);
    assert_eq!(by_time.refuses(&later, at(3 + DAY + 1)), Error::NotMember);
    // Carol gets no chain, and her own does not count.
    let (signals, line) = h.world.say_room(&mut h.a, &h.room, "secret", at(4)).unwrap();
    assert!(signals.iter().all(|s| s.to == "bob"));
    assert_eq!(h.c.refuses(&line, at(4)), Error::NeedRoster);
    h.world.read_roster(&mut h.c, &h.room, at(4));
    assert_eq!(h.c.refuses(&line, at(4)), Error::NoChain);
    assert_eq!(h.world.say_room(&mut h.c, &h.room, "x", at(4)).unwrap_err(), SealError::NotMember);
    // Even with a client that does not care.
    h.c.state.rooms.clear();
    let mut early = World { rosters: h.world.rosters.clone(), ..h.world.clone() };
    early.rosters.get_mut(&h.room).unwrap().truncate(3);
    early.read_roster(&mut h.c, &h.room, at(4));
    let (signals, _) = early.say_room(&mut h.c, &h.room, "still here", at(4)).unwrap();
    assert_eq!(h.b.refuses(signals.iter().find(|s| s.to == "bob").unwrap(), at(4)), Error::NotMember);
}

#[test]
fn no_member_writes_in_anothers_name() {
    let mut h = hall(9);
    let line = h.all_hear("mine", at(2));
    let (_, next) = h.world.say_room(&mut h.a, &h.room, "next", at(2)).unwrap();
    // Bob sends as Alice, from his own device and under hers.
    let (_, bobs) = h.world.say_room(&mut h.b, &h.room, "as alice", at(2)).unwrap();
    assert_eq!(h.c.refuses(&Sent { sender: user("alice"), ..bobs.clone() }, at(2)), Error::NoChain);
    let mut forged = bobs.bytes();
    forged[18..74].copy_from_slice(&next.bytes()[18..74]);
    let forged = Sent { sender: user("alice"), ..bobs.with(&forged) };
    assert_eq!(h.c.refuses(&forged, at(2)), Error::Signature);
    // The chain id of another.
    let chain = common::e2e::name::ChainId(line.bytes()[38..54].try_into().unwrap());
    let id = h.b.state.room_named(&h.room).unwrap().roster.id();
    let mut thief = h.b.clone();
    let (signals, _) = h.world.say_room(&mut h.a, &h.room, "x", at(2)).unwrap();
    assert!(signals.is_empty());
    // Bob hands Carol a link that claims Alice's chain.
    let taken = {
        let alices = h.a.state.rooms[&id].clone();
        let mut room = thief.state.rooms[&id].clone();
        room.chains = alices.chains;
        thief.state.rooms.insert(id, room);
        h.world.answer(&mut thief, h.c.me(), &id, at(2)).unwrap()
    };
    assert_eq!(h.c.refuses(&taken, at(2)), Error::ChainTaken);
    let _ = chain;
    assert_eq!(h.c.text(&next, at(2)), "next");
}

#[test]
fn a_lost_link_is_asked_for_and_given_once_an_hour() {
    let mut h = hall(10);
    let (_, line) = h.world.say_room(&mut h.a, &h.room, "one", at(2)).unwrap();
    assert_eq!(h.b.refuses(&line, at(2)), Error::NoChain);
    let id = h.a.state.room_named(&h.room).unwrap().roster.id();
    let chain = common::e2e::name::ChainId(line.bytes()[38..54].try_into().unwrap());
    let ask = h.world.signal(&mut h.b, h.a.me(), Body::ChainRequest { room: id, chain }, at(3));
    let opened = h.a.open(&ask, at(3)).unwrap();
    assert_eq!(opened.inner.body, Body::ChainRequest { room: id, chain });
    let link = h.world.answer(&mut h.a, &opened.from, &id, at(3)).unwrap();
    assert!(h.world.answer(&mut h.a, &opened.from, &id, at(3 + 3599)).is_none());
    assert!(h.world.answer(&mut h.a, &opened.from, &id, at(3 + 3600)).is_some());
    h.b.open(&link, at(3)).unwrap();
    // The link is the current one: what was before is lost to Bob, what comes is not.
    assert_eq!(h.b.refuses(&line, at(3)), Error::BeforeChain);
    let (_, line) = h.world.say_room(&mut h.a, &h.room, "two", at(4)).unwrap();
    assert_eq!(h.b.text(&line, at(4)), "two");
    let dave = h.world.device("dave");
    assert!(h.world.answer(&mut h.a, dave.me(), &id, at(4)).is_none(), "not in the room");
}

#[test]
fn an_unacknowledged_message_is_sealed_again_with_the_same_bytes() {
    let mut h = hall(11);
    h.all_hear("one", at(2));
    let id = h.a.state.room_named(&h.room).unwrap().roster.id();
    let mut rng = h.a.rng.clone();
    let sealed = h.a.state.seal_room(&id, Body::Text("again".into()), &Answers::default(), at(2), &mut rng).unwrap();
    h.a.state.apply(sealed.message.change);
    h.a.rng = rng;
    let first = Sent { via: Via::Message, sender: user("alice"), to: h.room.to_string(), body: sealed.message.body };
    h.world.roster(&mut h.a, &h.room, Op::Promote, &user("bob"), at(3));
    h.world.read_roster(&mut h.b, &h.room, at(3));
    let mut rng = h.a.rng.clone();
    let again = h.a.state.reseal_room(&id, &sealed.message.raw, &Answers::default(), at(3), &mut rng).unwrap();
    h.a.rng = rng;
    let signals: Vec<_> = again
        .signals
        .iter()
        .map(|(to, body)| Sent { via: Via::Signal, sender: user("alice"), to: to.to_string(), body: body.clone() })
        .collect();
    hand(&mut h.b, &signals, at(3));
    let second = Sent { body: again.message.body, ..first.clone() };
    let (one, two) = (h.b.open(&first, at(3)).unwrap(), h.b.open(&second, at(3)).unwrap());
    assert_eq!((one.inner.msg_id, &*one.raw), (two.inner.msg_id, &*two.raw));
    assert!(!two.place.unwrap().conflict && two.place.unwrap().missing == 0);
}

#[test]
fn the_rules_of_the_log() {
    let mut h = hall(12);
    let mut dave = h.world.device("dave");
    let mut try_op = |h: &mut Hall, who: usize, op, about: &str| {
        let by = [&mut h.a, &mut h.b, &mut h.c, &mut dave].into_iter().nth(who).unwrap();
        h.world.read_roster(by, &h.room, at(5));
        h.world.roster(by, &h.room, op, &user(about), at(5))
    };
    let (alice, bob, carol, stranger) = (0, 1, 2, 3);
    // No admin, no member.
    for op in [Op::Add, Op::Remove, Op::Promote, Op::Demote] {
        assert!(not_allowed(&try_op(&mut h, bob, op, if op == Op::Add { "dave" } else { "carol" })), "{op:?}");
        assert!(not_allowed(&try_op(&mut h, stranger, op, if op == Op::Add { "dave" } else { "carol" })), "{op:?}");
    }
    assert!(not_allowed(&try_op(&mut h, stranger, Op::Join, "dave")), "closed");
    assert!(not_allowed(&try_op(&mut h, stranger, Op::Leave, "dave")));
    assert!(not_allowed(&try_op(&mut h, stranger, Op::Devices, "dave")));
    assert!(not_allowed(&try_op(&mut h, bob, Op::Leave, "carol")), "only for oneself");
    assert!(not_allowed(&try_op(&mut h, bob, Op::Devices, "bob")), "no newer list");
    // The admin.
    assert!(not_allowed(&try_op(&mut h, alice, Op::Add, "bob")), "a member already");
    assert!(not_allowed(&try_op(&mut h, alice, Op::Remove, "alice")), "not oneself");
    assert!(not_allowed(&try_op(&mut h, alice, Op::Remove, "dave")), "no member");
    assert!(not_allowed(&try_op(&mut h, alice, Op::Demote, "bob")), "no admin");
    assert!(not_allowed(&try_op(&mut h, alice, Op::Promote, "alice")), "an admin already");
    let again = try_op(&mut h, alice, Op::CreateClosed, "alice");
    assert_eq!(again, Verdict::Skipped(Skip::Misplaced), "a room begins once");
    assert!(accepted(&try_op(&mut h, alice, Op::Promote, "bob")));
    assert!(accepted(&try_op(&mut h, bob, Op::Demote, "alice")));
    assert!(not_allowed(&try_op(&mut h, alice, Op::Add, "dave")), "not any more");
    assert!(accepted(&try_op(&mut h, bob, Op::Add, "dave")));
    assert!(accepted(&try_op(&mut h, bob, Op::Remove, "carol")));
    assert!(not_allowed(&try_op(&mut h, carol, Op::Leave, "carol")));
    // The last admin leaves: the member of the oldest standing becomes one.
    assert!(accepted(&try_op(&mut h, bob, Op::Leave, "bob")));
    let roster = |h: &Hall| h.a.state.room_named(&h.room).unwrap().roster.clone();
    h.world.read_roster(&mut h.a, &h.room, at(5));
    let members: Vec<_> = roster(&h).members().iter().map(|m| (m.user.to_string(), m.admin)).collect();
    assert_eq!(members, [("alice".into(), true), ("dave".into(), false)]);
    // A newer list of a member, by a device on it.
    let mut a2 = h.world.device("alice");
    for device in [&mut h.a, &mut a2] {
        h.world.learn(device, &user("alice"), at(6));
    }
    h.world.read_roster(&mut a2, &h.room, at(6));
    assert!(not_allowed(&h.world.roster(&mut a2, &h.room, Op::Add, &user("bob"), at(6))), "not in the roster's list");
    assert!(accepted(&h.world.roster(&mut a2, &h.room, Op::Devices, &user("alice"), at(6))));
    assert!(accepted(&h.world.roster(&mut a2, &h.room, Op::Add, &user("bob"), at(6))), "now it is");
    assert!(not_allowed(&h.world.roster(&mut a2, &h.room, Op::Devices, &user("alice"), at(6))), "not twice");
    // Everybody who reads the log comes to the same.
    let mut reader = h.world.device("eve");
    h.world.read_roster(&mut reader, &h.room, at(7));
    h.world.read_roster(&mut h.a, &h.room, at(7));
    assert_eq!(reader.state.room_named(&h.room).unwrap().roster, roster(&h));
}

#[test]
fn an_open_room_is_joined_and_who_was_put_out_stays_out() {
    let mut world = World::new(13);
    let (mut a, mut b) = (world.device("alice"), world.device("bob"));
    let room = world.create_room(&mut a, "#open", true);
    world.read_roster(&mut b, &room, at(1));
    assert!(accepted(&world.roster(&mut b, &room, Op::Join, &user("bob"), at(1))));
    assert!(not_allowed(&world.roster(&mut b, &room, Op::Join, &user("bob"), at(1))));
    assert!(accepted(&world.roster(&mut b, &room, Op::Leave, &user("bob"), at(1))));
    assert!(accepted(&world.roster(&mut b, &room, Op::Join, &user("bob"), at(1))));
    assert!(accepted(&world.roster(&mut a, &room, Op::Remove, &user("bob"), at(1))));
    assert!(not_allowed(&world.roster(&mut b, &room, Op::Join, &user("bob"), at(1))));
    assert!(accepted(&world.roster(&mut a, &room, Op::Add, &user("bob"), at(1))));
    assert!(accepted(&world.roster(&mut b, &room, Op::Leave, &user("bob"), at(1))));
    assert!(accepted(&world.roster(&mut b, &room, Op::Join, &user("bob"), at(1))));
}

#[test]
fn junk_blocks_nothing_and_every_flipped_byte_is_junk() {
    let mut h = hall(14);
    let (good, before) = {
        let roster = h.a.state.room_named(&h.room).unwrap().roster.clone();
        let bob = *h.a.state.contacts[&user("bob")].aik();
        let entry = roster.propose(&h.a.state.me, Op::Promote, (&user("bob"), &bob), None, at(2));
        (entry, roster)
    };
    for i in 0..good.len() {
        let mut bad = good.clone();
        bad[i] ^= 0x01;
        let (next, verdict) = before.append(4, &bad).unwrap();
        assert!(matches!(verdict, Verdict::Skipped(_)), "byte {i}");
        assert_eq!((next.head(), next.members()), (before.head(), before.members()));
    }
    // Junk in place 4, the same intent signed anew for place 5.
    h.world.rosters.get_mut(&h.room).unwrap().push(vec![1, 2, 3]);
    assert!(accepted(&h.world.roster(&mut h.a, &h.room, Op::Promote, &user("bob"), at(2))));
    let verdicts = h.world.read_roster(&mut h.b, &h.room, at(2));
    assert_eq!(verdicts[0], Verdict::Skipped(Skip::Broken(Error::Syntax)));
    assert!(accepted(&verdicts[1]));
    assert_eq!(h.b.state.room_named(&h.room).unwrap().roster.head().0, 5);
    h.world.read_roster(&mut h.c, &h.room, at(2));
    h.all_hear("after junk", at(3));
}

#[test]
fn a_second_entry_in_an_accepted_place_is_a_fork() {
    let mut h = hall(15);
    let entries = h.world.rosters[&h.room].clone();
    let roster = h.b.state.room_named(&h.room).unwrap().roster.clone();
    let (same, verdict) = roster.append(2, &entries[1]).unwrap();
    assert_eq!((same, verdict), (roster.clone(), Verdict::Known));
    // The admin signs another second entry.
    let start = Roster::begin(&h.room, 1, &entries[0]).unwrap();
    let dave = h.world.device("dave");
    h.world.learn(&mut h.a, &user("dave"), at(2));
    let contact = h.a.state.contacts[&user("dave")].clone();
    let twin = start.propose(&h.a.state.me, Op::Add, (&dave.user(), contact.aik()), contact.list(), at(2));
    let (change, verdict) = h.b.state.read_roster(&h.room, 2, &twin, at(2)).unwrap();
    assert_eq!(verdict, Verdict::Fork);
    h.b.state.apply(change);
    let forked = &h.b.state.room_named(&h.room).unwrap().roster;
    assert!(forked.forked() && forked.members() == roster.members(), "nothing is rolled back");
    assert_eq!(h.world.say_room(&mut h.b, &h.room, "x", at(2)).unwrap_err(), SealError::Fork);

    // Carol was shown the other history: Alice's chain under hers is refused.
    let mut c = h.world.device("carol");
    let other = World {
        rosters: [(h.room.clone(), vec![entries[0].clone(), twin, entries[2].clone()])].into(),
        ..h.world.clone()
    };
    other.read_roster(&mut c, &h.room, at(2));
    h.world.learn(&mut c, &user("alice"), at(2));
    h.world.learn(&mut h.a, &user("carol"), at(2));
    let (signals, line) = h.world.say_room(&mut h.a, &h.room, "x", at(2)).unwrap();
    let codes: Vec<_> = signals.iter().filter(|s| s.to == "carol").map(|s| c.refuses(s, at(2))).collect();
    assert!(
        codes.contains(&Error::Fork) && codes.iter().all(|e| matches!(e, Error::Fork | Error::NotForThisDevice)),
        "{codes:?}"
    );
    assert_eq!(c.refuses(&line, at(2)), Error::NoChain);
}

#[test]
fn a_create_entry_must_name_itself() {
    let mut world = World::new(16);
    let mut a = world.device("alice");
    let room = world.create_room(&mut a, "#r", false);
    let entry = world.rosters[&room][0].clone();
    assert!(Roster::begin(&room, 1, &entry).is_ok());
    assert_eq!(Roster::begin(&room, 2, &entry).unwrap_err(), Error::Room);
    assert_eq!(Roster::begin(&room_name("#s"), 1, &entry).unwrap_err(), Error::Room);
    for i in 0..entry.len() {
        let mut bad = entry.clone();
        bad[i] ^= 0x10;
        assert!(Roster::begin(&room, 1, &bad).is_err(), "byte {i}");
    }
    assert!(a.state.read_roster(&room_name("#new"), 1, b"junk", at(1)).is_err());
}

#[test]
fn a_member_whose_pin_differs_is_not_sealed_to() {
    let mut h = hall(17);
    let mut evil = World::new(18);
    evil.device("carol");
    let certs = evil.directory.certs(&user("carol"));
    let certs: Vec<&[u8]> = certs.iter().map(Vec::as_slice).collect();
    let change = h.a.state.repin(&user("carol"), &evil.directory.list(&user("carol")), &certs, at(2)).unwrap();
    h.a.state.apply(change);
    let id = h.a.state.room_named(&h.room).unwrap().roster.id();
    let audience = h.a.state.audience(&id, &[], at(2)).unwrap();
    assert_eq!(audience.differing, [user("carol")]);
    let (signals, _) = h.world.say_room(&mut h.a, &h.room, "x", at(2)).unwrap();
    assert!(signals.iter().all(|s| s.to == "bob"));
}

#[test]
fn three_chains_of_a_device_are_kept() {
    let mut h = hall(19);
    let mut lines = Vec::new();
    for op in [Op::Promote, Op::Demote, Op::Promote, Op::Demote, Op::Promote] {
        assert!(accepted(&h.world.roster(&mut h.a, &h.room, op, &user("bob"), at(2))));
        h.world.read_roster(&mut h.b, &h.room, at(2));
        let (signals, line) = h.world.say_room(&mut h.a, &h.room, "x", at(2)).unwrap();
        hand(&mut h.b, &signals, at(2));
        lines.push(line);
    }
    let id = h.b.state.room_named(&h.room).unwrap().roster.id();
    assert_eq!(h.b.state.rooms[&id].chains.held(), 3);
    assert_eq!(h.b.refuses(&lines[1], at(2)), Error::NoChain);
    assert_eq!(h.b.text(&lines[2], at(2)), "x");
}

#[test]
fn a_member_that_shows_no_list_silences_nobody() {
    let mut h = hall(20);
    let id = h.a.state.room_named(&h.room).unwrap().roster.id();
    // Carol's account is gone from the directory, and not pinned; Bob's device has no bundle just now.
    h.a.state.contacts.remove(&user("carol"));
    let say = |h: &mut Hall, answers: &Answers<'_>| {
        h.a.state.seal_room(&id, Body::Text("x".into()), answers, at(2), &mut h.a.rng)
    };
    assert_eq!(say(&mut h, &Answers::default()).unwrap_err(), SealError::NeedList(user("carol")));
    let (no_list, no_bundle) = ([user("carol")], [h.b.me().clone()]);
    let answers = Answers { no_list: &no_list, no_bundle: &no_bundle, ..Answers::default() };
    let sealed = say(&mut h, &answers).unwrap();
    assert_eq!((&sealed.audience.unlisted[..], sealed.signals.len()), (&no_list[..], 0));
    assert_eq!(sealed.message.left_out, no_bundle);
    // Who was left out for want of a bundle is given the chain next time.
    h.a.state.apply(sealed.message.change);
    let bundle = h.world.directory.bundle(h.b.me());
    let contact = &h.a.state.contacts[&user("bob")];
    let bundles = [common::e2e::bundle::Bundle::verify(&bundle, contact, at(2)).unwrap()];
    let sealed = say(&mut h, &Answers { no_list: &no_list, ..Answers::of(&bundles) }).unwrap();
    assert_eq!((sealed.signals.len(), sealed.message.left_out.len()), (1, 0));
    // To one account alone there is then nobody to seal to.
    let answers = Answers { no_bundle: &no_bundle, ..Answers::default() };
    let mut fresh = h.world.device("dave");
    h.world.learn(&mut fresh, &user("bob"), at(2));
    let nobody = fresh.state.seal_message(&user("bob"), Body::Text("x".into()), &answers, at(2), &mut fresh.rng);
    assert_eq!(nobody.unwrap_err(), SealError::NoDevice(user("bob")));
}

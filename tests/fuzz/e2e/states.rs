//! What is kept: lists, rosters, rows, and a device that opens lines. Bytes choose what happens to them.

use super::common::e2e::cert::Certificate;
use super::common::e2e::contact::{Contact, ListError};
use super::common::e2e::device_list::DeviceList;
use super::common::e2e::error::Error;
use super::common::e2e::identity::Identity;
use super::common::e2e::inner::{Body, Conversation, Inner, Via};
use super::common::e2e::marks::{Marks, mark};
use super::common::e2e::name::{Address, DeviceId, RoomName};
use super::common::e2e::prekeys::Prekeys;
use super::common::e2e::receive::Opened;
use super::common::e2e::room::Chains;
use super::common::e2e::roster::{Entry, Op};
use super::common::e2e::roster_log::{Roster, Verdict};
use super::common::e2e::send::Answers;
use super::common::e2e::sessions::Peer;
use super::common::e2e::state::Change;
use super::common::e2e::thread::{Outgoing, Thread};
use super::common::e2e::time::Now;
use super::common::{DAY, Device, Sent, T0, rows_hold, user};
use super::piece;
use super::scene::{NOW, Scene, USERS, addressed, days_later, scene};

/// Device lists shown to somebody who has pinned the account, each with some certificates. Three bytes are a
/// step: which list comes before the new one and who signs it, what it names, what is shown beside it.
pub(crate) fn learn(data: &[u8]) {
    let (owner, other) = (&scene().world.accounts[&user("alice")], &scene().world.accounts[&user("bob")]);
    let me = &scene().alice.state.me;
    let issue = |aik, name: &str, device: u8, from: u64| {
        let address = Address { user: user(name), device: DeviceId([device; 16]) };
        Certificate::issue(aik, &address, &me.dsk().public(), me.dik().public(), from, from + DAY).unwrap()
    };
    let certs = [
        issue(&owner.aik, "alice", 1, T0),
        issue(&owner.aik, "alice", 1, T0 + DAY),
        issue(&owner.aik, "alice", 2, T0),
        issue(&owner.aik, "alice", 3, T0),
        issue(&owner.aik, "bob", 4, T0),
        issue(&other.aik, "alice", 5, T0),
    ];
    let chosen = |mask: u8| certs.iter().enumerate().filter(move |(i, _)| mask >> i & 1 == 1).map(|(_, cert)| cert);

    let mut contact = Contact::pinned(&user("alice"), owner.aik.public());
    let mut made: Vec<DeviceList> = Vec::new();
    // A step costs a signature and some verifications.
    for step in data.chunks_exact(3).take(16) {
        let [how, named, shown] = step else { continue };
        let forged = how & 0xf0 == 0xf0;
        let aik = if forged { &other.aik } else { &owner.aik };
        let hashes: Vec<_> = chosen(*named).map(Certificate::hash).collect();
        let previous = made.get(usize::from(how & 15));
        let Ok(list) = DeviceList::issue(aik, &user("alice"), previous, &hashes) else { continue };
        let shown: Vec<&[u8]> = chosen(*shown).map(Certificate::bytes).collect();

        let forward = contact.list().is_none_or(|pinned| {
            let (new, old) = (list.version(), pinned.version());
            list == *pinned || new > old + 1 || (new == old + 1 && *list.prev() == pinned.hash())
        });
        match contact.learn(list.bytes(), &shown) {
            Ok((next, news)) => {
                assert!(forward && !forged && next.list() == Some(&list) && next.aik() == contact.aik());
                assert!(next.certs().iter().all(|cert| list.lists(&cert.hash()) && cert.aik() == next.aik()));
                assert!(next.certs().is_sorted_by(|a, b| a.address() < b.address()), "a device twice");
                assert_eq!(news.missing, list.certs().len() - next.certs().len());
                contact = next;
            }
            Err(ListError::Equivocation) => assert!(!forward),
            Err(error) => assert!(forged || forward, "{error}"),
        }
        made.push(list);
    }
    assert_eq!(Contact::from_row(&contact.to_row()).as_ref(), Ok(&contact));

    // The same bytes as a list and its certificates.
    let mut rest = data;
    let (list, shown) = (piece(&mut rest), [piece(&mut rest), piece(&mut rest)]);
    let first = Contact::first(&user("alice"), list, &shown);
    for (contact, _) in [first, contact.learn(list, &shown)].into_iter().flatten() {
        assert_eq!(contact.list().map(DeviceList::bytes), Some(list));
        assert_eq!(Contact::from_row(&contact.to_row()), Ok(contact));
    }
}

pub(crate) const OPS: [Op; 9] =
    [Op::CreateClosed, Op::CreateOpen, Op::Add, Op::Remove, Op::Promote, Op::Demote, Op::Join, Op::Leave, Op::Devices];

/// A room's log. Four bytes choose who signs what about whom, for now or for later; `ff` has bytes behind it
/// that are an entry as they are.
pub(crate) fn roster(data: &[u8]) {
    let [mode, rest @ ..] = data else { return };
    let (name, create) = &scene().creates[usize::from(mode & 1)];
    let mut roster = Roster::begin(name, 1, create).unwrap();
    let (mut log, mut kept, mut rest) = (vec![create.clone()], Vec::new(), rest);
    // An entry costs some signatures.
    while log.len() < 12 {
        let raw = match rest {
            [0xff, tail @ ..] => {
                rest = tail;
                piece(&mut rest).to_vec()
            }
            [how, op, about, list, tail @ ..] => {
                rest = tail;
                let raw = proposed(&roster, [*how, *op, *about, *list]);
                match how >> 2 & 3 {
                    2 => {
                        kept.push(raw);
                        continue;
                    }
                    3 => kept.pop().unwrap_or(raw),
                    _ => raw,
                }
            }
            _ => break,
        };
        let place = log.len() as u32 + 1;
        let (next, verdict) = roster.append(place, &raw).unwrap();
        match verdict {
            Verdict::Accepted(entry) => assert_eq!(next.head(), (place, entry.hash())),
            Verdict::Skipped(_) => assert_eq!((next.head(), next.members()), (roster.head(), roster.members())),
            Verdict::Known | Verdict::Fork => panic!("a new place: {verdict:?}"),
        }
        let members = next.members();
        assert!(members.is_empty() || members.iter().any(|member| member.admin), "nobody is an admin");
        for (i, one) in members.iter().enumerate() {
            let others = members.iter().skip(i + 1);
            others.for_each(|other| assert!(one.user != other.user && one.aik != other.aik, "a member twice"));
        }
        assert_eq!((next.read(), next.id(), next.forked()), (place, roster.id(), false));
        roster = next;
        log.push(raw);
    }
    agreed(name, &roster, &log);
}

/// The entry that four bytes choose, as the next of a room.
fn proposed(roster: &Roster, [how, op, about, list]: [u8; 4]) -> Vec<u8> {
    let Scene { world, alice, bob, carol, lists, .. } = scene();
    let by = [alice, bob, carol][usize::from(how & 3) % 3];
    let who = usize::from(about & 3);
    // Now and then with the identity, or the list, of somebody else.
    let whose = |byte: u8| if byte & 0xc0 == 0xc0 { 1 } else { who };
    let aik = world.accounts[&user(USERS[whose(about)])].aik.public();
    let op = OPS[usize::from(op) % OPS.len()];
    let list = op.carries_list().then(|| &lists[whose(list)][usize::from(list & 3) % 3]);
    roster.propose(&by.state.me, op, (&user(USERS[who]), &aik), list, NOW)
}

/// Whoever reads the log from its beginning comes to the same roster, and knows every accepted place again.
fn agreed(name: &RoomName, roster: &Roster, log: &[Vec<u8>]) {
    let mut other = Roster::begin(name, 1, &log[0]).unwrap();
    for (i, raw) in log.iter().enumerate().skip(1) {
        other = other.append(i as u32 + 1, raw).unwrap().0;
    }
    assert_eq!((&other, Roster::from_row(&roster.to_row()).as_ref()), (roster, Ok(roster)));
    for (i, raw) in log.iter().enumerate() {
        let place = i as u32 + 1;
        assert_eq!(roster.append(place, raw).unwrap(), (roster.clone(), Verdict::Known));
        let (forked, verdict) = roster.append(place, b"another").unwrap();
        assert_eq!(verdict == Verdict::Fork, roster.hash_at(place).is_some());
        assert_eq!((forked.head(), forked.members()), (roster.head(), roster.members()));
    }
}

// ---- rows -------------------------------------------------------------------------------------------

/// How many kinds of rows [`row`] knows.
pub(crate) const ROWS: u8 = 9;

/// A row of the store, by the first byte: if it is read it is written back as it was read, and a device that
/// goes on from it may fail, but does not panic.
pub(crate) fn row(data: &[u8]) {
    let [kind, row @ ..] = data else { return };
    let mut bob = scene().bob.clone();
    let (carol, state) = (scene().carol.me().clone(), &mut bob.state);
    let room = state.rooms.get_mut(&scene().room).unwrap();
    match kind % ROWS {
        0 => {
            let Ok(contact) = Contact::from_row(row) else { return };
            state.contacts.insert(carol.user.clone(), contact);
        }
        1 => {
            let Ok(me) = Identity::from_row(row) else { return };
            state.me = me;
        }
        2 => {
            let Ok(prekeys) = Prekeys::from_row(row) else { return };
            state.prekeys = prekeys;
        }
        3 => {
            let Ok(peer) = Peer::from_row(row) else { return };
            let _ = peer.reset_after(Error::Commit, mark(b"line"), NOW);
            state.peers.insert(carol.clone(), peer);
        }
        4 => {
            let Ok(marks) = Marks::from_row(row) else { return };
            state.marks.insert(carol.clone(), marks);
        }
        5 => {
            let Ok(thread) = Thread::from_row(row) else { return };
            let direct = state.direct(&carol.user).unwrap();
            state.threads.insert((carol.clone(), direct), thread.clone());
            state.threads.insert((carol.clone(), Conversation::Room(scene().room)), thread);
        }
        6 => {
            let Ok(outgoing) = Outgoing::from_row(row) else { return };
            let direct = state.direct(&carol.user).unwrap();
            state.outgoing.insert(direct, outgoing);
            state.outgoing.insert(Conversation::Room(scene().room), outgoing);
        }
        7 => {
            let Ok(roster) = Roster::from_row(row) else { return };
            room.roster = roster;
        }
        _ => {
            let Ok(chains) = Chains::from_row(row) else { return };
            room.chains = chains;
        }
    }
    rows_hold(&bob.state);
    for (_, line) in &scene().lines {
        let _ = opens_or_keeps(&mut bob, line, NOW);
    }
    let now = days_later(1);
    let mut rng = bob.rng.clone();
    let text = || Body::Text("text".into());
    let (state, answers) = (&bob.state, Answers::default());
    let direct = state.seal_message(&carol.user, text(), &answers, now, &mut rng).map(|sealed| sealed.change);
    let room = state.seal_room(&scene().room, text(), &answers, now, &mut rng).map(|sealed| sealed.message.change);
    let rotated = state.prekeys.rotate(&state.me, now, &mut rng);
    let rotated = rotated.map(|(prekeys, _)| Change { prekeys: Some(prekeys), ..Change::default() });
    for change in [direct, room, rotated].into_iter().flatten() {
        bob.state.apply(change);
    }
    rows_hold(&bob.state);
}

// ---- lines ------------------------------------------------------------------------------------------

/// Opens a line; refused, the state is byte for byte what it was.
fn opens_or_keeps(device: &mut Device, line: &Sent, now: Now) -> Result<Opened, Error> {
    let before = device.fingerprint();
    let result = device.open(line, now);
    if let Err(error) = &result {
        assert!(before == device.fingerprint(), "refused ({}), and the state has changed", error.code());
    }
    result
}

/// An envelope in a line to Bob: the first byte says via, sender and target, the second how many days later.
pub(crate) fn open(data: &[u8]) {
    let [how, days, raw @ ..] = data else { return };
    let (line, now) = (addressed(*how, raw), days_later(*days));
    let mut bob = scene().bob.clone();
    let Ok(opened) = opens_or_keeps(&mut bob, &line, now) else { return };
    assert_eq!(opened.from.user, line.sender);
    assert_eq!(Inner::parse(&opened.raw), Ok(opened.inner));
    rows_hold(&bob.state);
    assert_eq!(bob.refuses(&line, now), Error::Replay);
}

/// What Carol, who has an honest session with Bob, says in it: pieces, each a byte for the way and an inner
/// message, which she seals with her own count and keys.
pub(crate) fn peer(data: &[u8]) {
    let (mut carol, mut bob) = (scene().carol.clone(), scene().bob.clone());
    let (mut rest, room) = (data, scene().room);
    for _ in 0..8 {
        let [how, raw @ ..] = piece(&mut rest) else { break };
        let Ok(Inner { body, conversation, .. }) = Inner::parse(raw) else { continue };
        let (answers, rng) = (Answers::default(), &mut carol.rng);
        let (to, state) = (bob.me(), &carol.state);
        let in_room = |sealed: super::common::e2e::send::SealedRoom| (Via::Message, "#r", sealed.message);
        let sealed = match how % 4 {
            0 => state.seal_message(&to.user, body, &answers, NOW, rng).map(|sealed| (Via::Message, "bob", sealed)),
            1 => {
                let sealed = state.seal_signal(to, conversation, body, &answers, NOW, rng);
                sealed.map(|sealed| (Via::Signal, "bob", sealed))
            }
            2 => state.seal_room(&room, body, &answers, NOW, rng).map(in_room),
            _ => state.reseal_room(&room, raw, &answers, NOW, rng).map(in_room),
        };
        let Ok((via, to, sealed)) = sealed else { continue };
        carol.state.apply(sealed.change);
        let line = Sent { via, sender: carol.user(), to: to.into(), body: sealed.body };
        match opens_or_keeps(&mut bob, &line, NOW) {
            Ok(opened) => assert_eq!(opened.inner, sealed.inner),
            // What may be wrong with what she says, and what her earlier words may have done to her chains.
            Err(
                Error::Inner
                | Error::NeedRoster
                | Error::Room
                | Error::Fork
                | Error::NotMember
                | Error::ChainTaken
                | Error::ClosedChain
                | Error::NoChain,
            ) => {}
            Err(error) => panic!("refused as {}", error.code()),
        }
    }
    rows_hold(&bob.state);
}

/// The first entry of a room's log, as bytes.
pub(crate) fn entry(data: &[u8]) {
    if Entry::verify(data).is_ok() {
        assert!(Entry::verify(&[data, &[0]].concat()).is_err(), "something behind");
    }
    for (name, _) in &scene().creates {
        if let Ok(roster) = Roster::begin(name, 1, data) {
            assert_eq!((roster.members().len(), roster.members()[0].admin), (1, true));
            agreed(name, &roster, &[data.to_vec()]);
        }
    }
}

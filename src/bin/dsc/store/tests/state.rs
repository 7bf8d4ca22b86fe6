//! What is held in memory: it comes back, in another process too, and a failure undoes it.

use std::sync::{LazyLock, mpsc};

use downstream::e2e::identity::Identity;
use downstream::e2e::marks;
use downstream::e2e::name::{Mark as Envelope, RoomId, RoomName};
use downstream::e2e::roster::Op;
use downstream::e2e::state::{Change, State};
use proptest::prelude::*;

use super::world::{World, at, fingerprint, user as e2e_user};
use super::*;

/// Alice after talking to bob and carol, in rooms too; and her account key.
fn busy_alice() -> (World, super::world::Device) {
    static MADE: LazyLock<(World, super::world::Device)> = LazyLock::new(make_busy_alice);
    MADE.clone()
}

fn make_busy_alice() -> (World, super::world::Device) {
    let mut world = World::new(7);
    let (mut alice, mut bob) = (world.device("alice"), world.device("bob"));
    for n in 0..3 {
        let line = world.say(&mut alice, "bob", &format!("hi {n}"), at(n));
        bob.text(&line, at(n));
        let line = world.say(&mut bob, "alice", "hello", at(n));
        alice.text(&line, at(n));
    }
    let room = world.create_room(&mut alice, "#ops", false);
    world.roster(&mut alice, &room, Op::Add, &e2e_user("bob"), at(5));
    world.read_roster(&mut alice, &room, at(5));
    world.say_room(&mut alice, &room, "to all", at(6)).unwrap();
    alice.state.marks.clear();
    (world, alice)
}

fn seen_by(store: &mut Store) -> Vec<u8> {
    with(store, |tx| tx.state().map(fingerprint).unwrap_or_default())
}

#[test]
fn the_whole_state_comes_back_in_another_process() {
    let (world, alice) = busy_alice();
    let (home, mut store) = fresh();
    assert!(with(&mut store, |tx| tx.state().is_none() && tx.account_key().is_none()));
    let key = world.accounts[&e2e_user("alice")].aik.clone();
    store.transact(|tx| tx.begin(alice.state.clone(), Some(key.clone()))).unwrap();
    assert_eq!(seen_by(&mut store), fingerprint(&alice.state));
    let mut other = again(&home);
    assert_eq!(seen_by(&mut other), fingerprint(&alice.state));
    let public = with(&mut other, |tx| tx.account_key().unwrap().public());
    assert_eq!(public, key.public());
    with(&mut other, |tx| tx.set_account_key(None));
    assert!(with(&mut again(&home), |tx| tx.account_key().is_none()));
}

#[test]
fn changes_are_written_row_by_row() {
    let (mut world, mut alice) = busy_alice();
    let (home, mut store) = fresh();
    store.transact(|tx| tx.begin(alice.state.clone(), None)).unwrap();

    let line = world.say(&mut alice, "bob", "again", at(10));
    let me = alice.state.me.clone();
    let mut mallory = world.device("mallory");
    let line2 = world.say(&mut mallory, "alice", "psst", at(11));
    let opened = alice.open(&line2, at(11)).unwrap();
    assert!(!line.body.is_empty());
    let change = Change {
        prekeys: Some(alice.state.prekeys.clone()),
        contacts: alice.state.contacts.values().cloned().collect(),
        peers: alice.state.peers.iter().map(|(at, peer)| (at.clone(), Some(peer.clone()))).collect(),
        mark: opened.change.mark,
        rosters: alice.state.rooms.values().map(|room| room.roster.clone()).collect(),
        chains: alice.state.rooms.iter().map(|(id, room)| (*id, room.chains.clone())).collect(),
        threads: alice.state.threads.iter().map(|(key, thread)| (key.clone(), thread.clone())).collect(),
        outgoing: alice.state.outgoing.iter().map(|(key, out)| (*key, *out)).collect(),
    };
    with(&mut store, |tx| tx.apply(change));
    alice.state.marks.clear();
    assert_eq!(seen_by(&mut store), fingerprint(&alice.state));
    assert_eq!(seen_by(&mut again(&home)), fingerprint(&alice.state));

    // What is erased is gone.
    let gone = mallory.me().clone();
    with(&mut store, |tx| tx.apply(Change { peers: vec![(gone.clone(), None)], ..Change::default() }));
    alice.state.peers.remove(&gone);
    assert_eq!(seen_by(&mut again(&home)), fingerprint(&alice.state));

    // A contact by itself, and a renewed certificate.
    let mut contact = alice.state.contacts[&e2e_user("bob")].clone();
    contact.set_verified(true);
    with(&mut store, |tx| tx.set_contact(contact));
    let account = &world.accounts[&e2e_user("alice")];
    let cert = downstream::e2e::cert::Certificate::issue(
        &account.aik,
        me.address(),
        &me.dsk().public(),
        me.dik().public(),
        super::world::T0 + 1,
        super::world::T0 + super::world::YEAR,
    )
    .unwrap();
    let renewed = me.renewed(cert).unwrap();
    with(&mut store, |tx| tx.set_identity(renewed.clone()));
    let mut other = again(&home);
    let (verified, me) = other
        .transact(|tx| {
            let state = tx.state().unwrap();
            Done::Ok((state.contacts[&e2e_user("bob")].verified(), state.me.to_row()))
        })
        .unwrap();
    assert!(verified && *me == *renewed.to_row());
    assert!(*Identity::from_row(&me).unwrap().to_row() == *me);
}

#[test]
fn beginning_anew_erases_what_was_before_and_keeps_history_and_rooms() {
    let (mut world, alice) = busy_alice();
    let (home, mut store) = fresh();
    let ops = RoomName::parse("#ops").unwrap();
    let id = alice.state.room_named(&ops).unwrap().roster.id();
    let from = device("bob", 1);
    store
        .transact(|tx| {
            tx.begin(alice.state.clone(), None)?;
            tx.apply(Change { mark: Some((from.clone(), Envelope([1; 16]))), ..Change::default() });
            tx.put_bundle(vec![1], &from, 0);
            tx.record(entry("bob", 1, "kept"))
        })
        .unwrap();
    let second = world.device("alice");
    store.transact(|tx| tx.begin(second.state.clone(), None)).unwrap();
    let mut other = again(&home);
    assert_eq!(seen_by(&mut other), fingerprint(&second.state));
    other
        .transact(|tx| {
            assert!(!tx.seen(&from, Envelope([1; 16]))? && tx.bundles().is_empty());
            assert!(tx.entry(&target("bob"), 1)?.is_some());
            assert_eq!(tx.room_pin(&ops), Some(id));
            Done::Ok(())
        })
        .unwrap();
    let erased = count_rows(&home, "peer") + count_rows(&home, "chains") + count_rows(&home, "thread");
    assert_eq!(erased, 0);

    let stranger = world.device("eve");
    let error = other.transact(|tx| tx.begin(stranger.state.clone(), None)).unwrap_err();
    assert!(matches!(error, StoreError::OtherAccount(name) if name == "alice"));
    assert_eq!(seen_by(&mut other), fingerprint(&second.state));
}

pub(super) fn count_rows(home: &TempDir, table: &str) -> i64 {
    let sql = Connection::open(home.path().join(FILE)).unwrap();
    sql.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

#[test]
fn small_things_come_back() {
    let (home, mut store) = fresh();
    let profile = Profile {
        server: Some("chat.example:6697".into()),
        user: Some(user("alice")),
        token: Some(Token::new(Zeroizing::new("a token of forty characters or so".to_owned()))),
        token_name: Some("dsc".into()),
    };
    let (bob, room) = (device("bob", 2), RoomName::parse("#x").unwrap());
    store
        .transact(|tx| {
            assert_eq!(tx.profile(), Profile::default());
            tx.set_profile(profile.clone());
            tx.set_cursor(&target("bob"), 7);
            tx.set_cursor(&target("#ops"), 9);
            tx.set_device_name(&bob, Some("phone"));
            tx.set_setting("prekeys", &[1, 2, 3]);
            tx.set_room_pin(&room, Some(RoomId([4; 16])));
            tx.put_bundle(vec![9; 30], &bob, 5);
            Done::Ok(())
        })
        .unwrap();
    for store in [&mut store, &mut again(&home)] {
        store
            .transact(|tx| {
                assert_eq!(tx.profile(), profile);
                assert_eq!((tx.cursor(&target("bob")), tx.cursor(&target("carol"))), (Some(7), None));
                assert_eq!(tx.cursors(), [(target("#ops"), 9), (target("bob"), 7)]);
                assert_eq!(tx.device_name(&bob).as_deref(), Some("phone"));
                assert_eq!(tx.setting("prekeys").unwrap()[..], [1, 2, 3]);
                assert!(tx.room_pinned(&room) && !tx.room_pinned(&RoomName::parse("#y").unwrap()));
                assert_eq!(tx.bundles(), [(bob.clone(), vec![9; 30])]);
                Done::Ok(())
            })
            .unwrap();
    }
    store
        .transact(|tx| {
            tx.set_device_name(&bob, None);
            tx.set_room_pin(&room, None);
            tx.drop_bundle(&bob);
            Done::Ok(())
        })
        .unwrap();
    again(&home)
        .transact(|tx| {
            assert!(tx.device_name(&bob).is_none() && !tx.room_pinned(&room) && tx.bundles().is_empty());
            Done::Ok(())
        })
        .unwrap();
    assert!(!format!("{:?}", with(&mut store, |tx| tx.profile())).contains("forty"));
}

#[test]
fn a_room_that_was_ever_end_to_end_is_remembered() {
    let (_, alice) = busy_alice();
    let (home, mut store) = fresh();
    let ops = RoomName::parse("#ops").unwrap();
    let State { me, prekeys, contacts, .. } = alice.state.clone();
    let empty =
        State { me, prekeys, contacts, rooms: Default::default(), peers: Default::default(), ..alice.state.clone() };
    store.transact(|tx| tx.begin(empty, None)).unwrap();
    assert!(!with(&mut store, |tx| tx.room_pinned(&ops)));
    let room = alice.state.room_named(&ops).unwrap();
    let change = Change { rosters: vec![room.roster.clone()], ..Change::default() };
    with(&mut store, |tx| tx.apply(change));
    let pin = with(&mut again(&home), |tx| tx.room_pin(&ops));
    assert_eq!(pin, Some(room.roster.id()));
}

#[test]
fn what_fails_leaves_no_trace_in_memory_nor_in_the_file() {
    let (mut world, mut alice) = busy_alice();
    let (home, mut store) = fresh();
    store
        .transact(|tx| {
            tx.begin(alice.state.clone(), None)?;
            tx.record(entry("bob", 1, "first"))?;
            tx.queue(super::lines::post("bob", "aaaaaaaa"))
        })
        .unwrap();
    let (before, state) = (bytes_of(home.path()), seen_by(&mut store));

    world.say(&mut alice, "bob", "never sent", at(20));
    let peers: Vec<_> = alice.state.peers.iter().map(|(at, peer)| (at.clone(), Some(peer.clone()))).collect();
    let failed: Done = store.transact(|tx| {
        tx.apply(Change { peers, mark: Some((device("bob", 1), Envelope([3; 16]))), ..Change::default() });
        tx.record(entry("bob", 2, "second"))?;
        tx.record(entry("carol", 1, "third"))?;
        tx.set_cursor(&target("bob"), 2);
        tx.set_profile(Profile { server: Some("x".into()), ..Profile::default() });
        let (id, _) = tx.outbox()?.remove(0);
        tx.sent(id)?;
        tx.sweep(u64::MAX, 100)?;
        assert_eq!(tx.cursor(&target("bob")), Some(2), "seen within");
        Err(StoreError::Busy)
    });
    assert!(matches!(failed, Err(StoreError::Busy)));
    assert_eq!(bytes_of(home.path()), before);
    assert_eq!(seen_by(&mut store), state);
    store
        .transact(|tx| {
            assert_eq!((tx.cursor(&target("bob")), tx.outbox()?.len()), (None, 1));
            assert!(tx.entry(&target("bob"), 1)?.is_some() && tx.entry(&target("bob"), 2)?.is_none());
            assert!(!tx.seen(&device("bob", 1), Envelope([3; 16]))? && tx.profile() == Profile::default());
            Done::Ok(())
        })
        .unwrap();

    // A panic in the middle is no different.
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = store.transact(|tx| -> Done {
            tx.set_cursor(&target("bob"), 2);
            tx.record(entry("bob", 2, "second"))?;
            panic!("in the middle")
        });
    }));
    assert!(caught.is_err());
    assert_eq!(bytes_of(home.path()), before);
    assert_eq!(with(&mut store, |tx| tx.cursor(&target("bob"))), None);
}

#[test]
fn a_failure_that_touched_nothing_costs_no_loading() {
    let (_home, mut store) = fresh();
    with(&mut store, |tx| tx.set_cursor(&target("bob"), 1));
    let _: Done = store.transact(|_| Err(StoreError::Random));
    assert!(store.cache.is_some());
    let _: Done = store.transact(|tx| {
        tx.set_cursor(&target("bob"), 2);
        Err(StoreError::Random)
    });
    assert!(store.cache.is_none());
}

#[test]
fn two_handles_never_go_on_from_one_state() {
    let (home, mut store) = fresh();
    let mut other = again(&home);
    let step = |store: &mut Store| -> u64 {
        store
            .transact(|tx| {
                let next = tx.cursor(&target("bob")).unwrap_or(0) + 1;
                tx.set_cursor(&target("bob"), next);
                Done::Ok(next)
            })
            .unwrap()
    };
    // In turns, and several times each.
    let order = [0, 1, 0, 0, 1, 1, 1, 0, 1, 0];
    let taken: Vec<u64> = order.iter().map(|which| step(if *which == 0 { &mut store } else { &mut other })).collect();
    assert_eq!(taken, (1..=10).collect::<Vec<_>>());

    // All at once.
    let (sender, numbers) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let (sender, mut store) = (sender.clone(), again(&home));
            scope.spawn(move || (0..10).for_each(|_| sender.send(step(&mut store)).unwrap()));
        }
    });
    drop(sender);
    let mut numbers: Vec<u64> = numbers.iter().collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (11..=50).collect::<Vec<_>>());
    assert_eq!(step(&mut store), 51);
}

#[test]
fn marks_refuse_a_replay_after_a_restart() {
    let mut world = World::new(3);
    let (alice, mut bob) = (world.device("alice"), world.device("bob"));
    let (home, mut store) = fresh();
    store.transact(|tx| tx.begin(alice.state.clone(), None)).unwrap();
    let line = world.say(&mut bob, "alice", "once", at(1));
    let (sender, me) = (bob.user(), alice.user());
    let receive = |store: &mut Store| {
        store.transact(|tx| {
            let line = downstream::e2e::receive::Line {
                via: line.via,
                sender: &sender,
                target: downstream::e2e::receive::Target::User(&me),
                body: &line.body,
            };
            let opened = tx.state().unwrap().open(&line, at(1), &mut OsRandom);
            let mark = opened.as_ref().ok().and_then(|opened| opened.change.mark.clone());
            if let Ok(opened) = opened {
                tx.apply(opened.change);
                let (from, mark) = mark.clone().unwrap();
                assert!(tx.seen(&from, mark)?, "known within the transaction");
            }
            Done::Ok(mark)
        })
    };
    let (from, mark) = receive(&mut store).unwrap().unwrap();
    let mut other = again(&home);
    other
        .transact(|tx| {
            assert!(tx.state().unwrap().marks.is_empty());
            assert!(tx.seen(&from, mark)? && !tx.seen(&device("bob", 1), mark)?);
            assert!(tx.state().unwrap().marks[&from].contains(mark) || cfg!(feature = "break-replay-mark"));
            Done::Ok(())
        })
        .unwrap();
    assert!(receive(&mut other).unwrap().is_none());
}

#[test]
fn only_the_newest_marks_of_a_device_are_kept() {
    let (_, alice) = busy_alice();
    let (home, mut store) = fresh();
    let of = |n: usize| marks::mark(&n.to_be_bytes());
    let (bob, carol) = (device("bob", 1), device("carol", 1));
    let put = |tx: &mut Tx<'_>, from: &Address, n| {
        tx.apply(Change { mark: Some((from.clone(), of(n))), ..Change::default() });
    };
    store
        .transact(|tx| {
            tx.begin(alice.state.clone(), None)?;
            put(tx, &carol, 0);
            (0..marks::MARKS_MAX).for_each(|n| put(tx, &bob, n));
            Done::Ok(())
        })
        .unwrap();
    store
        .transact(|tx| {
            assert!(tx.seen(&bob, of(0))?);
            // One that is known takes nobody's place.
            put(tx, &bob, 5);
            Done::Ok(())
        })
        .unwrap();
    store
        .transact(|tx| {
            assert!(tx.seen(&bob, of(0))?);
            put(tx, &bob, marks::MARKS_MAX);
            Done::Ok(())
        })
        .unwrap();
    let mut other = again(&home);
    other
        .transact(|tx| {
            assert!(!tx.seen(&bob, of(0))? && tx.seen(&bob, of(1))? && tx.seen(&bob, of(marks::MARKS_MAX))?);
            assert!(tx.seen(&carol, of(0))?);
            Done::Ok(())
        })
        .unwrap();
    assert_eq!(count_rows(&home, "mark"), marks::MARKS_MAX as i64 + 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]
    #[test]
    fn marks_are_what_the_set_in_memory_says(steps in proptest::collection::vec((0_usize..3, 0_u8..40), 1..80)) {
        let (_, alice) = busy_alice();
        let (home, mut store) = fresh();
        store.transact(|tx| tx.begin(alice.state.clone(), None)).unwrap();
        let devices = [device("bob", 1), device("bob", 2), device("carol", 1)];
        let mut model = std::collections::BTreeMap::<Address, marks::Marks>::new();
        for chunk in steps.chunks(5) {
            store.transact(|tx| {
                for (from, n) in chunk {
                    let (from, mark) = (devices[*from].clone(), marks::mark(&[*n]));
                    let known = model.entry(from.clone()).or_default().clone();
                    if !cfg!(feature = "break-replay-mark") {
                        assert_eq!(tx.seen(&from, mark)?, known.contains(mark));
                    }
                    model.entry(from.clone()).or_default().insert(mark);
                    tx.apply(Change { mark: Some((from, mark)), ..Change::default() });
                }
                Done::Ok(())
            }).unwrap();
        }
        let all: usize = model.values().map(|marks| (marks.to_row().len() - 1) / 16).sum();
        prop_assert_eq!(count_rows(&home, "mark"), all as i64);
    }
}

#[test]
fn bundles_are_bounded_in_number_and_age() {
    let (home, mut store) = fresh();
    store
        .transact(|tx| {
            for n in 0..=BUNDLES_MAX {
                let mut device = device("bob", 0);
                device.device.0[..8].copy_from_slice(&(n as u64).to_be_bytes());
                tx.put_bundle(vec![1], &device, n as u64);
            }
            assert_eq!(tx.bundles().len(), BUNDLES_MAX);
            assert!(tx.bundles().iter().all(|(device, _)| device.device.0 != [0; 16]), "the oldest went");
            Done::Ok(())
        })
        .unwrap();
    store.transact(|tx| tx.expire(BUNDLE_KEEP_MS + 10)).unwrap();
    assert_eq!(with(&mut again(&home), |tx| tx.bundles().len()), BUNDLES_MAX - 9);
}

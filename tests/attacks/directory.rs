//! Attacks 1 to 4 and 14: the server lies about keys, or has them used up.

use std::collections::{BTreeMap, BTreeSet};

use crate::common::e2e::armour;
use crate::common::e2e::cert::Certificate;
use crate::common::e2e::device_list::DeviceList;
use crate::common::e2e::name::DeviceId;
use crate::common::{DAY, Seeded};
use crate::evil::forge::{self, BundleParts, MultiParts, Twist, prekey, public_of};
use crate::evil::stage::{asked, show};
use crate::evil::{Caught, Directory, Keys, Stage, Verdict, now};
use crate::support::Client;

/// The devices that an envelope is sealed to.
fn sealed_to(body: &str) -> BTreeSet<DeviceId> {
    let parts = MultiParts::cut(&armour::envelope(body).unwrap());
    parts.slots.into_iter().map(|(device, _)| device).collect()
}

#[test]
fn a01_identity_swap() {
    let s = Stage::new();
    let (alice, bob, carol) = (s.dsc("alice"), s.dsc("bob"), s.dsc("carol"));
    // Carol has met the real Bob; both see the same number.
    let honest = carol.number("bob");
    assert_eq!(honest, bob.number("carol"));
    s.evil.script(show(vec![Directory::of(&mut Keys::new("bob", 101))]));
    // At first contact the swap succeeds, and the number tells.
    alice.run(&["send", "bob", "who are you"]).ok();
    let seen = alice.number("bob");
    s.evil.honest();
    bob.run(&["fetch"]).ok();
    assert_ne!(seen, bob.number("alice"));
    // After pinning nothing is sealed to the other identity, whichever way it is tried.
    s.evil.script(show(vec![Directory::of(&mut Keys::new("bob", 102))]));
    let ran = carol.run(&["send", "bob", "for bob alone"]).fails(4);
    assert!(ran.of("sent").is_empty());
    let by_hand = carol.plain(&["seal", "--to", "bob"], b"for bob alone\n");
    assert!(by_hand.code == 4 || by_hand.code == 3, "{by_hand:?}");
    assert!(!by_hand.out.contains("e2e:"));
    assert!(s.sent_by("carol").is_empty());
    // Alice, who has pinned the impostor, is told when the real Bob is shown again.
    s.evil.honest();
    let ran = alice.run(&["trust", "bob"]);
    assert_eq!(ran.code, 4, "{ran:?}");
    assert_eq!(carol.number("bob"), honest);
    carol.run(&["send", "bob", "for bob alone"]).ok();
    assert_eq!(bob.run(&["fetch"]).ok().texts(), ["for bob alone"]);
}

#[test]
fn a02_forged_bundle() {
    let s = Stage::new();
    let alice = s.dsc("alice");
    let mut bob = s.lab("bob", 201);
    alice.number("bob");
    let me = bob.me().clone();
    let honest = BundleParts::cut(&{
        let mut carol = s.lab("carol", 202);
        carol.learn("bob");
        carol.bundle_of(&me)
    });
    let (dsk, cert) = (bob.device.state.me.dsk().clone(), honest.cert.clone());
    let mallory = BundleParts::cut(&{
        let mut keys = Keys::new("bob", 203);
        keys.bundle()
    });
    let (now, old) = (now().secs(), now().secs() - 31 * DAY);
    let spk = public_of(&honest.spk).to_vec();
    let opk = honest.opk.clone().unwrap();
    let pqk = public_of(&honest.pqk).to_vec();
    let signed = |label: &str, created: u64, public: &[u8]| prekey(&dsk, &cert, label, 900, created, public);
    let with = |f: &dyn Fn(&mut BundleParts)| {
        let mut parts = honest.clone();
        f(&mut parts);
        parts.bytes()
    };
    let raw = honest.bytes();
    let mut bundles: Vec<(String, Vec<u8>)> = vec![
        ("another device's signed prekey".into(), with(&|b| b.spk = mallory.spk.clone())),
        ("another device's ML-KEM key".into(), with(&|b| (b.pq_kind, b.pqk) = (1, mallory.pqk.clone()))),
        ("another identity".into(), mallory.bytes()),
        ("a one-time key as the signed prekey".into(), with(&|b| b.spk = opk.clone())),
        ("the signed prekey as a one-time key".into(), with(&|b| b.opk = Some(honest.spk.clone()))),
        ("a one-time ML-KEM key as the last resort".into(), with(&|b| b.pq_kind = 1)),
        ("a last resort as a one-time ML-KEM key".into(), with(&|b| b.pqk = signed("pqk-last", now, &pqk))),
        ("a signed prekey of 31 days".into(), with(&|b| b.spk = signed("spk", old, &spk))),
        ("a last resort of 31 days".into(), with(&|b| (b.pq_kind, b.pqk) = (1, signed("pqk-last", old, &pqk)))),
        ("a signed prekey of the day after tomorrow".into(), with(&|b| b.spk = signed("spk", now + 2 * DAY, &spk))),
        ("a key under another certificate".into(), with(&|b| b.spk = prekey(&dsk, b"other", "spk", 900, now, &spk))),
        ("a byte too many".into(), [&raw[..], &[0]].concat()),
        ("a byte too few".into(), raw[..raw.len() - 1].to_vec()),
        ("nothing".into(), Vec::new()),
    ];
    // One bit in each field: the certificate's, then the keys'.
    let cert_at = 2;
    let spk_at = cert_at + cert.len();
    let opk_at = spk_at + 108 + 1;
    let pqk_at = opk_at + 108 + 1;
    let cert_fields = [0, 1, 2, 3, 6, 22, 54, 86, 118, 126, 134].map(|at| cert_at + at);
    let key_fields = |at: usize, len: usize| [at, at + 4, at + 12, at + len - 64];
    let fields = [0].into_iter().chain(cert_fields).chain(key_fields(spk_at, 108));
    let fields = fields.chain([opk_at - 1]).chain(key_fields(opk_at, 108));
    for at in fields.chain([pqk_at - 1]).chain(key_fields(pqk_at, 1260)) {
        let mut bad = raw.clone();
        bad[at] ^= 1;
        bundles.push((format!("a bit of byte {at}"), bad));
    }
    let list = bob.list.bytes().to_vec();
    for (what, bundle) in bundles {
        let directory =
            Directory { user: "bob".into(), list: list.clone(), devices: vec![(me.device, cert.clone(), bundle)] };
        s.evil.script(show(vec![directory]));
        let ran = alice.run(&["send", "bob", "to nobody"]);
        assert!(ran.code != 0 && ran.of("sent").is_empty(), "{what}: {ran:?}");
        assert!(s.sent_by("alice").is_empty(), "{what}");
    }
    // A certificate that has expired is no device at all.
    let mut expired = Keys::in_time("dave", 204, now - 300 * DAY, now - DAY);
    s.evil.script(show(vec![Directory::of(&mut expired)]));
    alice.run(&["send", "dave", "to nobody"]).refused();
    assert!(s.sent_by("alice").is_empty());
    // Nothing of it has stuck: the honest bundle serves.
    s.evil.honest();
    alice.run(&["send", "bob", "hello"]).ok();
    let line = bob.event("* msg ");
    assert_eq!(bob.text(&line), "hello");
}

#[test]
fn a03_low_order_points() {
    let s = Stage::new();
    let alice = s.dsc("alice");
    // Bundles of malicious peers: everything is signed, one point is small.
    let mut directories = Vec::new();
    for (i, point) in forge::small_order_points().into_iter().enumerate() {
        for place in ["spk", "opk", "dik"] {
            let name = format!("m{i}.{place}");
            let mut keys = Keys::new(&name, 300 + i as u64);
            let mut dik = *keys.me.dik().public();
            if place == "dik" {
                dik = point;
            }
            let (from, to) = keys.me.cert().life();
            let dsk = keys.me.dsk().public();
            let cert = Certificate::issue(&keys.aik, keys.me.address(), &dsk, &dik, from, to).unwrap();
            let list = DeviceList::issue(&keys.aik, keys.me.user(), None, &[cert.hash()]).unwrap();
            let other = BundleParts::cut(&keys.bundle());
            let key = |label: &str, id: u32, public: &[u8]| {
                prekey(keys.me.dsk(), cert.bytes(), label, id, now().secs(), public)
            };
            let mut parts = BundleParts {
                cert: cert.bytes().to_vec(),
                spk: key("spk", 1, public_of(&other.spk)),
                opk: Some(key("opk", 2, public_of(&other.spk))),
                pq_kind: 1,
                pqk: key("pqk-last", 3, public_of(&other.pqk)),
            };
            match place {
                "spk" => parts.spk = key("spk", 1, &point),
                "opk" => parts.opk = Some(key("opk", 2, &point)),
                _ => {}
            }
            let devices = vec![(keys.id(), parts.cert.clone(), parts.bytes())];
            directories.push(Directory { user: name, list: list.bytes().to_vec(), devices });
        }
    }
    // One without a small point is sealed to, so that the others are refused for theirs.
    let mut fair = Keys::new("fair", 399);
    directories.push(Directory::of(&mut fair));
    let names: Vec<String> = directories.iter().map(|directory| directory.user.clone()).collect();
    s.evil.script({
        let mut shown = show(directories);
        move |caught| match shown(caught) {
            // These accounts are the server's invention: it also takes what is sent to them.
            Verdict::Pass if caught.is_command("/post") => {
                Verdict::Answer(vec!["OK post{label} id=1 time=2026-01-01T00:00:00.000Z to=fair peer=offline".into()])
            }
            verdict => verdict,
        }
    });
    for chunk in names.chunks(21) {
        let ran = alice.run(&["send", &chunk.join(","), "hello"]);
        let sent: Vec<_> = ran.of("sent").iter().map(|sent| sent["target"].as_str().unwrap().to_owned()).collect();
        let fair = chunk.contains(&"fair".to_owned());
        assert_eq!(sent, if fair { vec!["fair"] } else { vec![] }, "{ran:?}");
        assert!(fair && chunk.len() == 1 || ran.code != 0, "{ran:?}");
    }
    assert!(s.sent_by("alice").iter().all(|caught| caught.words()[1] == "fair"));
    s.evil.honest();

    // Handshakes and ratchet keys of a malicious peer. One bundle does for all: none is used up.
    let mut mallory = s.lab("mallory", 398);
    let party = mallory.device_of("alice");
    let bundle = mallory.bundle_of(&party.address);
    let conv = mallory.direct_with(&party);
    for point in forge::small_order_points() {
        for twist in [Twist { ek: Some(point), dh: None }, Twist { ek: None, dh: Some(point) }] {
            let mut rng = mallory.device.rng.clone();
            let mut session = forge::Session::start(&mallory.initiator(), &bundle, now().ms(), &twist, &mut rng);
            let text = forge::Inner::text(conv, "small", &mut rng);
            mallory.device.rng = rng;
            let envelope = mallory.forged(&party, &mut session, &text.padded());
            mallory.msg_raw("alice", &envelope);
        }
    }
    let ran = alice.run(&["fetch"]);
    assert!(ran.texts().is_empty());
    assert_eq!(ran.unreadable(), ["low-order"; 28], "{ran:?}");
    assert_eq!(s.signals("alice", "mallory"), 0, "no reset");
    // The same bundle without a twist opens.
    let mut rng = mallory.device.rng.clone();
    let mut session = forge::Session::start(&mallory.initiator(), &bundle, now().ms(), &Twist::default(), &mut rng);
    let text = forge::Inner::text(conv, "fair", &mut rng);
    mallory.device.rng = rng;
    let envelope = mallory.forged(&party, &mut session, &text.padded());
    mallory.msg_raw("alice", &envelope);
    assert_eq!(alice.run(&["fetch"]).texts(), ["fair"]);
}

#[test]
fn a04_ghost_device() {
    let s = Stage::new();
    let alice = s.dsc("alice");
    let mut keys = Keys::new("bob", 401);
    let (aik, from, to) = (keys.aik.clone(), keys.me.cert().life().0, keys.me.cert().life().1);
    let honest = Directory::of(&mut keys);
    // A device of an identity that the server has made, and one of Bob's own that he has not listed.
    let mut stranger = Keys::new("bob", 402);
    let mut unlisted = Keys::of(&aik, "bob", Seeded::new(403), from, to);
    let mut ghosts = honest.clone();
    for ghost in [&mut stranger, &mut unlisted] {
        let bundle = ghost.bundle();
        ghosts.add(ghost.id(), ghost.me.cert().bytes(), bundle);
    }
    let swallow = |mut shown: Box<dyn FnMut(&Caught) -> Verdict + Send>| {
        let mut id = 0;
        move |caught: &Caught| match shown(caught) {
            Verdict::Pass if caught.is_command("/post") => {
                id += 1;
                Verdict::Answer(vec![format!(
                    "OK post{{label}} id={id} time=2026-01-01T00:00:00.000Z to=bob peer=offline"
                )])
            }
            verdict => verdict,
        }
    };
    let scene = |directory: &Directory| s.evil.script(swallow(Box::new(show(vec![directory.clone()]))));
    scene(&ghosts);
    alice.run(&["send", "bob", "one"]).ok();
    assert_eq!(sealed_to(&s.body("alice", "bob")), BTreeSet::from([keys.id()]));

    // Bob lists a second device, and the list is learned.
    let mut second = Keys::of(&aik, "bob", Seeded::new(404), from, to);
    let both = [keys.me.cert().hash(), second.me.cert().hash()];
    let list2 = DeviceList::issue(&aik, keys.me.user(), Some(&keys.list), &both).unwrap();
    let mut newer = Directory { list: list2.bytes().to_vec(), ..honest.clone() };
    let bundle = second.bundle();
    newer.add(second.id(), second.me.cert().bytes(), bundle);
    scene(&newer);
    alice.run(&["devices", "bob"]).ok();
    alice.run(&["send", "bob", "two"]).ok();
    let devices = BTreeSet::from([keys.id(), second.id()]);
    assert_eq!(sealed_to(&s.body("alice", "bob")), devices);

    // The old list again, another list of the same number, a next list that follows another one.
    let forked = DeviceList::issue(&aik, keys.me.user(), Some(&keys.list), &[unlisted.me.cert().hash()]).unwrap();
    let unchained = DeviceList::issue(&aik, keys.me.user(), Some(&forked), &[unlisted.me.cert().hash()]).unwrap();
    for (what, list) in [("old", &keys.list), ("forked", &forked), ("unchained", &unchained)] {
        let shown = Directory { list: list.bytes().to_vec(), ..ghosts.clone() };
        scene(&shown);
        let ran = alice.run(&["devices", "bob"]).refused();
        assert_eq!(ran.of("alarm").len(), 1, "{what}: {ran:?}");
        // What is pinned stays: nothing goes to a ghost.
        alice.run(&["send", "bob", what]).ok();
        assert_eq!(sealed_to(&s.body("alice", "bob")), devices, "{what}");
    }
}

#[test]
fn a04_an_unlisted_device_starts_no_session() {
    let s = Stage::new();
    let bob = s.dsc("bob");
    let mut alice = s.lab("alice", 411);
    alice.say("bob", "from the listed one");
    assert_eq!(bob.run(&["fetch"]).ok().texts(), ["from the listed one"]);
    bob.run(&["devices", "alice"]).ok();
    let bundle = Directory::published(&s.evil, "bob").devices.remove(0).2;
    let (from, to) = alice.device.state.me.cert().life();
    let mut ghost = Keys::of(&alice.aik, "alice", Seeded::new(412), from, to);
    let envelope = ghost.seal_to(&bundle, now().ms(), "from a ghost");
    s.post("alice", "bob", &armour::body(&envelope));
    // A certificate that is listed, and out of its time.
    let mut old = Keys::in_time("dave", 413, now().secs() - 300 * DAY, now().secs() - DAY);
    s.account("dave");
    let envelope = old.seal_to(&bundle, now().ms(), "from the past");
    s.post("dave", "bob", &armour::body(&envelope));
    let ran = bob.run(&["fetch"]);
    assert_eq!((ran.texts().len(), ran.unreadable()), (0, vec!["unlisted-device".to_owned(); 2]), "{ran:?}");
    // Once it is listed, it may.
    let both = [alice.device.state.me.cert().hash(), ghost.me.cert().hash()];
    let list = DeviceList::issue(&alice.aik, ghost.me.user(), Some(&alice.list), &both).unwrap();
    let device = ghost.id();
    let certificate = crate::common::e2e::bundle::Record::Certificate(ghost.me.cert().clone()).to_bytes(device);
    alice.put(&certificate);
    alice.put(&crate::common::e2e::bundle::Record::List(list).to_bytes(device));
    let envelope = ghost.seal_to(&bundle, now().ms(), "no ghost any more");
    s.post("alice", "bob", &armour::body(&envelope));
    let ran = bob.run(&["fetch"]).ok();
    assert_eq!(ran.texts(), ["no ghost any more"]);
    assert!(ran.of("notice").iter().any(|notice| notice["kind"] == "new-device"), "{ran:?}");
}

#[test]
fn a04_a_ghost_among_ones_own_devices() {
    let s = Stage::new();
    let (alice, bob) = (s.dsc("alice"), s.dsc("bob"));
    alice.run(&["send", "bob", "one"]).ok();
    // The server adds a device to Alice's own account, to be sent a copy of all that she says: beside her
    // list, and then with a list of its own.
    let honest = Directory::published(&s.evil, "alice");
    let mut ghost = Keys::new("alice", 421);
    let (id, bundle) = (ghost.id(), ghost.bundle());
    let mut beside = honest.clone();
    beside.add(id, ghost.me.cert().bytes(), bundle);
    let listed = Directory { list: ghost.list.bytes().to_vec(), ..beside.clone() };
    for (shown, alarms) in [(beside, 0), (listed, 1)] {
        s.evil.script(show(vec![shown]));
        let ran = alice.run(&["send", "bob", "two"]).ok();
        assert_eq!(ran.of("alarm").len(), alarms, "{ran:?}");
        assert!(ran.of("notice").iter().all(|notice| notice["kind"] != "new-device"), "{ran:?}");
        assert_eq!(sealed_to(&s.body("alice", "bob")).len(), 1, "Bob's device alone");
    }
    s.evil.honest();
    assert_eq!(bob.run(&["fetch"]).ok().texts(), ["one", "two", "two"]);
}

#[test]
fn a14_prekey_exhaustion() {
    let s = Stage::new();
    let bob = s.dsc("bob");
    let device = Directory::published(&s.evil, "bob").devices[0].0;
    let command = format!("/keys get bob device={device}");
    let fetch = |client: &mut Client| -> Option<BundleParts> {
        let lines = asked(client, &command);
        let row = lines.iter().find(|line| line.starts_with("- keys "));
        row.map(|row| BundleParts::cut(&armour::unbase64(row.split(' ').next_back().unwrap()).unwrap()))
    };
    // One account alone: a thousand times, ten bundles.
    let mut mallory = s.account("mallory");
    let mut given = Vec::new();
    for _ in 0..1000 {
        given.extend(fetch(&mut mallory));
    }
    assert_eq!(given.len(), 10);
    // Eleven more at once empty the pool of one-time ML-KEM keys, none of which is given twice.
    let names: Vec<String> = (0..11).map(|i| format!("eve{i}")).collect();
    let clients: Vec<Client> = names.iter().map(|name| s.account(name)).collect();
    std::thread::scope(|scope| {
        let running: Vec<_> = clients
            .into_iter()
            .map(|mut client| {
                let fetch = &fetch;
                scope.spawn(move || (0..12).filter_map(|_| fetch(&mut client)).collect::<Vec<_>>())
            })
            .collect();
        given.extend(running.into_iter().flat_map(|thread| thread.join().unwrap()));
    });
    assert_eq!(given.len(), 120);
    let mut ids = BTreeMap::<u32, usize>::new();
    for parts in &given {
        for key in parts.opk.iter().chain((parts.pq_kind == 0).then_some(&parts.pqk)) {
            *ids.entry(u32::from_be_bytes(key[..4].try_into().unwrap())).or_default() += 1;
        }
    }
    assert!(ids.values().all(|times| *times == 1), "a one-time key was given twice");
    assert_eq!(given.iter().filter(|parts| parts.opk.is_some()).count(), 100);
    assert_eq!(given.iter().filter(|parts| parts.pq_kind == 0).count(), 50);
    assert_eq!(given.iter().filter(|parts| parts.pq_kind == 1).count(), 70, "the last resort");
    // Without any one-time key a first message still comes through, and says what it is worth.
    let alice = s.dsc("alice");
    alice.run(&["send", "bob", "over the last resort"]).ok();
    let ran = bob.run(&["fetch"]).ok();
    assert_eq!(ran.texts(), ["over the last resort"]);
    assert!(ran.of("message")[0]["marks"].to_string().contains("weak"), "{ran:?}");
    // Bob was online: he has filled the pools again, and others get one-time keys.
    let mut carol = s.account("carol");
    let parts = fetch(&mut carol).unwrap();
    assert!(parts.opk.is_some() && parts.pq_kind == 0);
    // And a running tail does so when it is told.
    let mut tail = bob.tail();
    alice.run(&["send", "bob", "are you there"]).ok();
    tail.wait_text("are you there");
    let is_put = |c: &Caught| c.user == "bob" && c.is_command("/keys") && c.words().get(1) == Some(&"put");
    let before = s.evil.captured().iter().filter(|caught| is_put(caught)).count();
    let mut more: Vec<Client> = (0..8).map(|i| s.account(&format!("frank{i}"))).collect();
    for client in &mut more {
        for _ in 0..10 {
            fetch(client);
        }
    }
    s.evil.wait_lines("a refill", before + 1, is_put);
    tail.stop();
}

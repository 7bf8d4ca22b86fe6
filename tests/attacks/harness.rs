//! The tools of the attacks do what they say, with nothing but the daemon and a plain client.

use crate::common::e2e::bundle::Bundle;
use crate::common::e2e::contact::Contact;
use crate::common::e2e::error::Error;
use crate::common::e2e::inner::{Body, Via};
use crate::common::e2e::roster::Op;
use crate::common::e2e::roster_log::Verdict as Entered;
use crate::common::{Device, Seeded, Sent, T0, World, YEAR, at, e2e, user};
use crate::evil::forge::{self, Initiator, Session, Tail, Twist};
use crate::evil::relay::pin_of;
use crate::evil::stage::show;
use crate::evil::{Directory, Evil, Keys, Lab, Stage, Verdict, Way, now};
use crate::support::{Client, Ended, Home, Link};

fn registered(evil: &Evil, name: &str) -> Client {
    let mut client = Client::connect(evil.address());
    client.ask(&format!("/register {name} password-{name}"), &format!("OK register user={name} ..."));
    client
}

#[test]
fn an_honest_relay_changes_nothing_and_sees_everything() {
    let home = Home::new("");
    let daemon = home.start();
    let evil = Evil::before(daemon.address());
    assert_eq!(pin_of(evil.address()), evil.pin());
    assert_ne!(pin_of(daemon.address()), evil.pin());
    let (mut alice, mut bob) = (registered(&evil, "alice"), registered(&evil, "bob"));
    alice.ask("/msg bob in the clear", "OK msg ...");
    bob.expect("* msg <ID> <TIME> bob alice :in the clear");
    let up = evil.wait_line("the command", |c| c.is_command("/msg"));
    assert_eq!((up.user.as_str(), up.way, up.line.as_str()), ("alice", Way::Up, "/msg bob in the clear"));
    let down = evil.wait_line("the event", |c| c.is_down("* msg "));
    assert_eq!(down.user, "bob");
    // An end on one side is one on the other.
    alice.half_close();
    alice.expect_closed();
    evil.wait_gone("alice");
    bob.ask("/quit", "OK quit");
    bob.expect_closed();
}

#[test]
fn a_script_changes_drops_repeats_holds_and_answers() {
    let home = Home::new("");
    let daemon = home.start();
    let evil = Evil::before(daemon.address());
    let (mut alice, mut bob) = (registered(&evil, "alice"), registered(&evil, "bob"));
    evil.script(|c| match c.way {
        Way::Down if c.line.ends_with(":twice") => Verdict::Instead(vec![c.line.clone(), c.line.clone()]),
        Way::Down if c.line.ends_with(":never") => Verdict::Drop,
        Way::Down if c.line.ends_with(":later") => Verdict::Hold,
        Way::Up if c.line.ends_with(" black") => Verdict::Instead(vec![c.line.replace("black", "white")]),
        Way::Up if c.verb() == "/whoami" => Verdict::Answer(vec!["- row".into(), "OK whoami{label} user=eve".into()]),
        _ => Verdict::Pass,
    });
    for text in ["twice", "never", "later", "black"] {
        alice.ask(&format!("/msg bob {text}"), "OK msg ...");
    }
    for text in ["twice", "twice", "white"] {
        bob.expect(&format!("* msg <ID> <TIME> bob alice :{text}"));
    }
    let held = evil.wait_held(1);
    evil.release(&held[0]);
    bob.expect("* msg <ID> <TIME> bob alice :later");
    // An answer of the relay's own comes in its turn.
    alice.say("/ping one");
    alice.say("/whoami@me");
    alice.say("/whoami");
    alice.say("/ping two");
    for line in ["OK ping :one", "- row", "OK whoami@me user=eve", "- row", "OK whoami user=eve", "OK ping :two"] {
        alice.expect(line);
    }
    evil.honest();
    alice.ask("/whoami", "OK whoami user=alice ...");
    // Lines of its own, both ways.
    assert_eq!(evil.inject("bob", Way::Down, "* notice :boo"), 1);
    bob.expect("* notice :boo");
    assert_eq!(evil.inject("bob", Way::Up, "/msg alice forged"), 1);
    alice.expect("* msg <ID> <TIME> alice bob :forged");
    bob.expect("OK msg ...");
}

#[test]
fn a_relay_cuts_and_is_unreachable() {
    let home = Home::new("");
    let daemon = home.start();
    let evil = Evil::before(daemon.address());
    let mut alice = registered(&evil, "alice");
    evil.cut();
    assert!(matches!(alice.drain(), (lines, Ended::Abruptly(_)) if lines.is_empty()));
    evil.wait_gone("alice");
    evil.set_unreachable(true);
    assert!(Client::try_raw(evil.address(), &Default::default()).is_err());
    evil.set_unreachable(false);
    let mut alice = Client::connect(evil.address());
    alice.ask("/login alice password-alice", "OK login user=alice unread=0 ...");
}

/// Bob of a world in memory, Alice's keys in the same time, and a session by hand between them.
fn by_hand(seed: u64, twist: &Twist) -> (World, Device, Keys, Session) {
    let mut world = World::new(seed);
    let bob = world.device("bob");
    let mut alice = Keys::in_time("alice", seed, T0, T0 + YEAR);
    let bundle = world.directory.bundle(bob.me());
    let me =
        Initiator { party: alice.me.party(), cert: alice.me.cert().bytes(), dik: *alice.me.dik().private().expose() };
    let session = Session::start(&me, &bundle, at(1).ms(), twist, &mut alice.rng);
    (world, bob, alice, session)
}

fn forged(alice: &mut Keys, bob: &Device, session: &mut Session, inner: &forge::Inner, via: Via) -> Sent {
    let tail = Tail::seal(alice.me.address(), &bob.user(), &inner.padded(), &mut alice.rng);
    let slot = session.slot(&tail.slot_text, &mut alice.rng);
    let envelope = forge::multi(alice.id(), &[(bob.me().device, slot)], &tail.bytes);
    Sent { via, sender: user("alice"), to: "bob".into(), body: e2e::armour::body(&envelope) }
}

#[test]
fn what_is_sealed_by_hand_without_a_twist_opens() {
    let (_, mut bob, mut alice, mut session) = by_hand(1, &Twist::default());
    let conv = forge::direct(alice.me.aik(), bob.state.me.aik());
    let mut first = forge::Inner::text(conv, "by hand", &mut alice.rng);
    let line = forged(&mut alice, &bob, &mut session, &first, Via::Message);
    assert_eq!(bob.text(&line, at(1)), "by hand");
    (first.seq, first.prev) = (2, forge::hash(&[&first.bytes()]));
    session.skip(7);
    let line = forged(&mut alice, &bob, &mut session, &first, Via::Message);
    let opened = bob.open(&line, at(1)).unwrap();
    assert_eq!(opened.place.unwrap(), e2e::thread::Place { missing: 0, conflict: false });
    let receipt = forge::Inner::signal(conv, 4, [&[2][..], &[7; 16]].concat(), &mut alice.rng);
    let line = forged(&mut alice, &bob, &mut session, &receipt, Via::Signal);
    assert!(bob.open(&line, at(1)).is_ok());
    // Cutting and putting together again changes nothing.
    let raw = line.bytes();
    assert_eq!(forge::MultiParts::cut(&raw).bytes(), raw);
}

#[test]
fn a_bundle_by_hand_is_a_bundle() {
    let (mut world, bob, _, _) = by_hand(2, &Twist::default());
    let raw = world.directory.bundle(bob.me());
    let mut parts = forge::BundleParts::cut(&raw);
    assert_eq!(parts.bytes(), raw);
    let (spk, dsk) = (forge::public_of(&parts.spk).to_vec(), bob.state.me.dsk());
    parts.spk = forge::prekey(dsk, &parts.cert, "spk", 77, T0, &spk);
    parts.opk = None;
    let contact = &bob.state.contacts[&user("bob")];
    assert!(Bundle::verify(&parts.bytes(), contact, at(1)).is_ok());
    parts.spk = forge::prekey(dsk, &parts.cert, "opk", 77, T0, &spk);
    assert_eq!(Bundle::verify(&parts.bytes(), contact, at(1)), Err(Error::Signature));
}

#[test]
fn a_room_by_hand_is_a_room() {
    let mut world = World::new(3);
    let (mut alice, mut bob) = (world.device("alice"), world.device("bob"));
    let room = world.create_room(&mut alice, "#hand", false);
    let create = world.rosters[&room][0].clone();
    let roster = alice.state.room_named(&room).unwrap().roster.clone();
    let entry = forge::Entry {
        room_id: roster.id().0,
        epoch: 2,
        prev: forge::hash(&[&create]),
        op: 3,
        room: room.to_string(),
        user: "bob".into(),
        aik: *bob.state.me.aik(),
        list: world.directory.list(&user("bob")),
    };
    let raw = entry.sign(alice.state.me.cert().bytes(), alice.state.me.dsk());
    world.rosters.get_mut(&room).unwrap().push(raw.clone());
    assert!(matches!(world.read_roster(&mut bob, &room, at(1))[..], [Entered::Accepted(_), Entered::Accepted(_)]));
    world.learn(&mut bob, &user("alice"), at(1));
    // A link, and a message in its chain.
    let mut rng = Seeded::new(4);
    let (mut chain, seed) = forge::Chain::fresh(roster.id().0, 2, forge::hash(&[&raw]), &mut rng);
    assert_eq!(forge::Chain::read(&chain.skdm()).skdm(), chain.skdm());
    let bundle = world.directory.bundle(bob.me());
    let me = Initiator {
        party: alice.state.me.party(),
        cert: alice.state.me.cert().bytes(),
        dik: *alice.state.me.dik().private().expose(),
    };
    let mut session = Session::start(&me, &bundle, at(1).ms(), &Twist::default(), &mut rng);
    let link = forge::Inner::signal((1, chain.room), 3, chain.skdm(), &mut rng);
    let tail = Tail::seal(alice.me(), &bob.user(), &link.padded(), &mut rng);
    let slot = session.slot(&tail.slot_text, &mut rng);
    let envelope = forge::multi(alice.me().device, &[(bob.me().device, slot)], &tail.bytes);
    let body = e2e::armour::body(&envelope);
    bob.open(&Sent { via: Via::Signal, sender: user("alice"), to: "bob".into(), body }, at(1)).unwrap();
    let text = forge::Inner::text((1, chain.room), "to the room", &mut rng);
    let envelope = chain.seal(alice.state.me.party(), &text.padded(), &seed, &mut rng);
    let body = e2e::armour::body(&envelope);
    let line = Sent { via: Via::Message, sender: user("alice"), to: room.to_string(), body };
    assert_eq!(bob.text(&line, at(1)), "to the room");
}

#[test]
fn the_points_are_of_small_order_and_the_salamander_has_two_keys() {
    for point in forge::small_order_points() {
        assert_eq!(x25519_dalek::x25519([0x42; 32], point), [0; 32], "{point:02x?}");
    }
    let (first, second) = (forge::derive(&[1; 32], &[3; 16], b"aad"), forge::derive(&[2; 32], &[3; 16], b"aad"));
    let text = [7; 16 * 5];
    for at in 0..5 {
        let body = forge::salamander(&first, &second, b"aad", &text, at);
        let open = |derived: &forge::Derived| {
            let payload = aes_gcm::aead::Payload { msg: &body, aad: b"aad" };
            aes_gcm::aead::Aead::decrypt(&derived.gcm, &aes_gcm::Nonce::from(derived.nonce), payload)
        };
        let opened = open(&first).unwrap();
        assert!((0..5).all(|i| (opened[16 * i..][..16] == text[..16]) == (i != at)), "all but the block given up");
        assert!(open(&second).is_ok());
        assert_ne!(first.com, second.com);
    }
}

#[test]
fn handshakes_of_small_order_are_refused_and_nothing_else_is_wrong_with_them() {
    // The twist is the one the receiver would derive if it did not look: only the look refuses it.
    for point in forge::small_order_points() {
        for twist in [Twist { ek: Some(point), dh: None }, Twist { ek: None, dh: Some(point) }] {
            let (_, mut bob, mut alice, mut session) = by_hand(5, &twist);
            let conv = forge::direct(alice.me.aik(), bob.state.me.aik());
            let inner = forge::Inner::text(conv, "small", &mut alice.rng);
            let line = forged(&mut alice, &bob, &mut session, &inner, Via::Message);
            if cfg!(feature = "break-contributory") {
                assert_eq!(bob.text(&line, at(1)), "small");
            } else {
                assert_eq!(bob.refuses(&line, at(1)), Error::LowOrder);
            }
        }
    }
}

#[test]
fn two_devices_in_hand_talk_over_the_daemon() {
    let stage = Stage::new();
    let (mut alice, mut bob) = (stage.lab("alice", 1), stage.lab("bob", 2));
    alice.say("bob", "hello");
    let line = bob.event("* msg ");
    assert_eq!(bob.text(&line), "hello");
    bob.say("alice", "hi");
    let line = alice.event("* msg ");
    assert_eq!(alice.text(&line), "hi");
    // Fetched again it is the same line, and a replay.
    let rows = bob.log("alice");
    assert_eq!(bob.open(&rows[0]).unwrap_err(), Error::Replay);
    // A session by hand, next to the proper one.
    let (party, mut session) = alice.forge("bob", &Twist::default());
    let conv = alice.direct_with(&party);
    let text = forge::Inner { seq: 2, prev: [9; 32], ..forge::Inner::text(conv, "by hand", &mut alice.device.rng) };
    let envelope = alice.forged(&party, &mut session, &text.padded());
    alice.msg_raw("bob", &envelope);
    let line = bob.event("* msg ");
    let opened = bob.open(&line).unwrap();
    assert_eq!(opened.inner.body, Body::Text("by hand".into()));
    assert!(opened.place.unwrap().conflict, "its number is taken");
    // A signal.
    let body = alice.seal_signal(bob.me(), None, Body::Reset);
    alice.command(&format!("/signal bob {body}"));
    let row = bob.signals().remove(0);
    assert_eq!(bob.open(&row).unwrap().inner.body, Body::Reset);
    // A room.
    let room = alice.create_room("#room", false);
    assert!(alice.roster(&room, Op::Add, "bob"));
    alice.command("/invite #room bob");
    bob.command("/join #room");
    assert_eq!(bob.read_roster(&room).len(), 2);
    alice.say_room(&room, "to all");
    for row in bob.signals() {
        bob.open(&row).unwrap();
    }
    let line = bob.event("* msg ");
    assert_eq!(bob.text(&line), "to all");
}

#[test]
fn a_directory_of_the_servers_own_is_shown_to_whom_it_wants() {
    let stage = Stage::new();
    let _bob = stage.lab("bob", 1);
    let mut alice = Lab::register(stage.evil.address(), "alice", 2);
    let mut mallory = Directory::of(&mut Keys::new("bob", 3));
    stage.evil.script(show(vec![mallory.clone()]));
    assert_eq!(alice.certs("bob").0, mallory.list);
    alice.say("bob", "who are you");
    let parts = forge::MultiParts::cut(&e2e::armour::envelope(&stage.body("alice", "bob")).unwrap());
    assert_eq!(parts.slots.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [mallory.devices[0].0]);
    stage.evil.honest();
    assert_ne!(alice.certs("bob").0, mallory.list);
    // What Alice has published, without her one-time keys.
    let published = Directory::published(&stage.evil, "alice");
    assert_eq!(published.list, alice.list.bytes());
    mallory.user = "alice".into();
    let contact = Contact::first(&user("alice"), &published.list, &[&published.devices[0].1]).unwrap().0;
    assert!(Bundle::verify(&published.devices[0].2, &contact, now()).is_ok());
}

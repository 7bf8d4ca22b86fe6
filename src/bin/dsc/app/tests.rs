//! The core of two and more people against a server that is a few maps.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test stops at the first thing that is wrong"
)]

mod download;
mod upload;
mod world;

use downstream::protocol::{RoomName, Target, UserName};

use self::world::{Person, World};
use super::{Content, Member, Reading};
use crate::error::Exit;
use crate::event::{Event, Mark};

fn user(name: &str) -> UserName {
    UserName::parse(name).unwrap()
}

fn to(name: &str) -> Target {
    Target::parse(name).unwrap()
}

fn room(name: &str) -> RoomName {
    RoomName::parse(name).unwrap()
}

fn text(text: &str) -> Content {
    Content::Text(text.to_owned())
}

/// The texts among events, as `sender: text`.
fn texts(events: &[Event]) -> Vec<String> {
    let said = |event: &Event| match event {
        Event::Message(message) => match &message.content {
            crate::event::Content::Text { text } => Some(format!("{}: {text}", message.sender)),
            other => Some(format!("{}: {other:?}", message.sender)),
        },
        Event::Unreadable { sender, code, .. } => Some(format!("{sender}: cannot open ({code})")),
        Event::Alarm { kind, .. } => Some(format!("!! {kind}")),
        _ => None,
    };
    events.iter().filter_map(said).collect()
}

fn two() -> (World, Person, Person) {
    let world = World::default();
    let (alice, bob) = (Person::begin(&world, "alice"), Person::begin(&world, "bob"));
    (world, alice, bob)
}

#[test]
fn the_first_message_reaches_somebody_who_is_offline() {
    let (world, mut alice, mut bob) = two();
    alice.send("bob", "hi bob");
    alice.send("bob", "and again");
    assert!(world.bodies().iter().all(|body| body.starts_with("e2e:")));
    let events = bob.fetch();
    assert_eq!(texts(&events), ["alice: hi bob", "alice: and again"]);
    let Event::Message(first) = events.iter().find(|e| matches!(e, Event::Message(_))).unwrap() else { panic!() };
    assert!(first.encrypted && first.marks.contains(&Mark::FirstContact));
    bob.send("alice", "hello");
    assert_eq!(texts(&alice.fetch()), ["bob: hello"]);
    assert!(texts(&bob.fetch()).is_empty() && texts(&alice.fetch()).is_empty(), "nothing is shown twice");
}

#[test]
fn a_known_peer_costs_no_key_request() {
    let (world, mut alice, mut bob) = two();
    alice.send("bob", "one");
    bob.fetch();
    world.forget_questions();
    alice.send("bob", "two");
    assert!(!world.questions().iter().any(|q| q.starts_with("/keys get bob")), "{:?}", world.questions());
}

#[test]
fn a_lost_answer_neither_loses_nor_doubles() {
    let (world, mut alice, mut bob) = two();
    alice.send("bob", "one");
    world.lose_next_answer("/post");
    let failure = alice.try_send("bob", "two").unwrap_err();
    assert_eq!(failure.exit, Exit::Network);
    world.lose_next_question("/post");
    assert_eq!(alice.try_send("bob", "three").unwrap_err().exit, Exit::Network);
    alice.send("bob", "four");
    assert_eq!(texts(&bob.fetch()), ["alice: one", "alice: two", "alice: three", "alice: four"]);
    assert_eq!(texts(&alice.page("bob")), ["alice: one", "alice: two", "alice: three", "alice: four"]);
    assert_eq!(texts(&bob.page("alice")), ["alice: one", "alice: two", "alice: three", "alice: four"]);
}

#[test]
fn a_closed_room_is_for_its_members() {
    let (_world, mut alice, mut bob) = two();
    let mut carol = Person::begin(&_world, "carol");
    alice.with(|client| client.create(&room("#r"), false, false, None)).unwrap();
    alice.with(|client| client.change_member(&room("#r"), &user("bob"), Member::Invite, None)).unwrap();
    bob.with(|client| client.join(&room("#r"))).unwrap();
    alice.send("#r", "for bob");
    assert_eq!(texts(&bob.fetch()), ["alice: for bob"]);
    bob.send("#r", "for alice");
    assert_eq!(texts(&alice.fetch()), ["bob: for alice"]);
    // Carol is let in, hears what comes from then on, and nothing after she was put out.
    bob.with(|client| client.change_member(&room("#r"), &user("carol"), Member::Invite, None)).unwrap_err();
    alice.with(|client| client.change_member(&room("#r"), &user("carol"), Member::Invite, None)).unwrap();
    carol.with(|client| client.join(&room("#r"))).unwrap();
    bob.send("#r", "welcome");
    assert_eq!(texts(&carol.fetch()), ["bob: welcome"]);
    alice.with(|client| client.change_member(&room("#r"), &user("carol"), Member::Kick, None)).unwrap();
    bob.send("#r", "without carol");
    assert_eq!(texts(&alice.fetch()), ["bob: welcome", "bob: without carol"]);
}

#[test]
fn an_open_room_is_entered_by_oneself() {
    let (_world, mut alice, mut bob) = two();
    alice.with(|client| client.create(&room("#open"), true, false, None)).unwrap();
    alice.send("#open", "nobody hears this");
    bob.with(|client| client.join(&room("#open"))).unwrap();
    bob.send("#open", "here I am");
    assert_eq!(texts(&alice.fetch()), ["bob: here I am"]);
    alice.send("#open", "hi");
    assert_eq!(texts(&bob.fetch()), ["alice: hi"]);
}

#[test]
fn a_message_before_its_key_waits_for_it() {
    let (world, mut alice, mut bob) = two();
    alice.with(|client| client.create(&room("#r"), true, false, None)).unwrap();
    bob.with(|client| client.join(&room("#r"))).unwrap();
    world.hide_signals(true);
    alice.send("#r", "early");
    assert!(texts(&bob.fetch()).is_empty());
    world.hide_signals(false);
    let events = bob.fetch();
    assert_eq!(texts(&events), ["alice: early"]);
    assert!(events.iter().any(|e| matches!(e, Event::Message(m) if m.marks.contains(&Mark::Late))));
}

#[test]
fn another_identity_is_refused_until_it_is_accepted() {
    let (world, mut alice, mut bob) = two();
    alice.send("bob", "hi");
    bob.fetch();
    world.forget_keys("bob");
    let mut again = Person::begin(&world, "bob");
    assert_eq!(again.try_send("alice", "it is me").map(drop), Ok(()));
    let events = alice.fetch();
    assert!(texts(&events).contains(&"!! identity-changed".to_owned()), "{events:?}");
    assert!(texts(&events).contains(&"bob: cannot open (identity)".to_owned()), "{events:?}");
    let bob_user = downstream::e2e::name::User::parse("bob").unwrap();
    let failure = alice.with(|client| client.trust(&bob_user, None, false)).unwrap_err();
    assert_eq!(failure.exit, Exit::IdentityChanged);
    let digits: String = failure.message.chars().filter(char::is_ascii_digit).take(10).collect();
    assert_eq!(alice.with(|client| client.trust(&bob_user, Some("1234567890"), false)).unwrap_err().exit, Exit::Usage);
    alice.with(|client| client.trust(&bob_user, Some(&digits), false)).unwrap();
    alice.send("bob", "welcome back");
    assert_eq!(texts(&again.fetch()), ["alice: welcome back"]);
}

#[test]
fn clear_text_is_marked_and_never_said_in_a_sealed_room() {
    let (world, mut alice, mut bob) = two();
    alice.with(|client| client.send_plain(&to("bob"), "in clear")).unwrap();
    let events = bob.fetch();
    assert!(matches!(&events[..], [Event::Message(m)] if !m.encrypted && m.marks == [Mark::Plain]), "{events:?}");
    alice.with(|client| client.create(&room("#r"), true, false, None)).unwrap();
    bob.with(|client| client.join(&room("#r"))).unwrap();
    assert_eq!(alice.with(|client| client.send_plain(&to("#r"), "x")).unwrap_err().exit, Exit::Usage);
    world.inject("#r", "alice", "made up by the server");
    assert_eq!(texts(&bob.fetch()), ["alice: cannot open (plain)"]);
    assert_eq!(alice.try_send("#unknown", "x").unwrap_err().exit, Exit::Usage);
}

#[test]
fn a_linked_device_reads_along_from_then_on() {
    let (world, mut alice, mut bob) = two();
    alice.send("bob", "before");
    bob.fetch();
    let mut phone = Person::without_keys(&world, "alice");
    phone.link_to(&mut alice);
    alice.send("bob", "after");
    bob.fetch();
    bob.send("alice", "to both");
    assert_eq!(texts(&phone.fetch()), ["alice: after", "bob: to both"]);
    assert_eq!(texts(&alice.fetch()), ["bob: to both"]);
    phone.send("bob", "from the phone");
    assert_eq!(texts(&bob.fetch()), ["alice: from the phone"]);
    assert_eq!(texts(&alice.fetch()), ["alice: from the phone"]);
}

#[test]
fn a_corrupted_message_begins_the_session_anew_once() {
    let (world, mut alice, mut bob) = two();
    alice.send("bob", "one");
    bob.fetch();
    bob.send("alice", "two");
    alice.fetch();
    world.corrupt_next();
    alice.send("bob", "garbled");
    assert_eq!(texts(&bob.fetch()), ["alice: cannot open (commit)"]);
    alice.fetch();
    alice.send("bob", "three");
    assert_eq!(texts(&bob.fetch()), ["alice: three"]);
    bob.send("alice", "four");
    assert_eq!(texts(&alice.fetch()), ["bob: four"]);
}

#[test]
fn by_hand_what_is_missing_is_the_command_to_type() {
    let (world, mut alice, mut bob) = two();
    let failure = alice.by_hand(|client| client.seal_direct(&user("bob"), text("hi"))).unwrap_err();
    assert_eq!(failure.exit, Exit::NoSession);
    assert!(failure.hint.unwrap().ends_with("\n/keys get bob"));
    let rows = world.answer("alice", "/keys get bob");
    alice.by_hand(|client| client.import_rows(&rows)).unwrap();
    let lines = alice.by_hand(|client| client.seal_direct(&user("bob"), text("hi"))).unwrap();
    world.answer("alice", &format!("/msg bob {}", lines.body));
    let got = world.answer("bob", "/fetch alice");
    let row = got.lines().next().unwrap();
    let super::ByHand::Opened(events) = bob.by_hand(|client| client.open_line(row)).unwrap() else { panic!() };
    assert_eq!(texts(&events), ["alice: hi"]);
    let super::ByHand::Opened(again) = bob.by_hand(|client| client.open_line(row)).unwrap() else { panic!() };
    assert_eq!(texts(&again), ["alice: hi"], "a line seen again is answered from the history");
}

#[test]
fn a_signal_to_another_device_of_the_account_is_left_for_it() {
    let (world, mut alice, mut bob) = two();
    let mut phone = Person::without_keys(&world, "alice");
    phone.link_to(&mut alice);
    alice.with(|client| client.create(&room("#r"), true, false, None)).unwrap();
    bob.with(|client| client.join(&room("#r"))).unwrap();
    alice.fetch();
    alice.send("#r", "to everybody");
    // The sender reads its signals before the phone does.
    alice.fetch();
    assert_eq!(texts(&phone.fetch()), ["alice: to everybody"]);
}

/// A room of alice and bob, to which bob has said something that the server did not get.
fn waiting_for_a_room() -> (World, Person, Person) {
    let (world, mut alice, mut bob) = two();
    alice.with(|client| client.create(&room("#r"), false, false, None)).unwrap();
    alice.with(|client| client.change_member(&room("#r"), &user("bob"), Member::Invite, None)).unwrap();
    bob.with(|client| client.join(&room("#r"))).unwrap();
    bob.send("#r", "first");
    bob.fetch();
    world.lose_next_question("/post");
    bob.try_send("#r", "waits").unwrap_err();
    (world, alice, bob)
}

#[test]
fn what_can_never_be_sent_keeps_nobody_waiting() {
    let (world, mut alice, mut bob) = waiting_for_a_room();
    assert_eq!(texts(&alice.fetch()), ["bob: first"]);
    alice.with(|client| client.change_member(&room("#r"), &user("bob"), Member::Kick, None)).unwrap();
    // The server forgets about it, so that bob reads on what was written into the roster.
    world.let_in("#r", "bob");
    let events = bob.fetch();
    assert!(events.iter().any(|e| matches!(e, Event::Notice { kind, .. } if kind == "dropped")), "{events:?}");
    bob.send("alice", "I was put out");
    assert_eq!(texts(&alice.fetch()), ["bob: I was put out"]);
}

#[test]
fn what_waited_is_sealed_again_for_those_who_are_there_now() {
    let (world, mut alice, mut bob) = waiting_for_a_room();
    let mut carol = Person::begin(&world, "carol");
    alice.with(|client| client.change_member(&room("#r"), &user("carol"), Member::Invite, None)).unwrap();
    carol.with(|client| client.join(&room("#r"))).unwrap();
    bob.fetch();
    assert_eq!(texts(&alice.fetch()), ["bob: first", "bob: waits"]);
    assert_eq!(texts(&carol.fetch()), ["bob: waits"]);
}

#[test]
fn a_key_of_another_message_is_a_conflict() {
    let (_world, mut alice, mut bob) = two();
    alice.with(|client| client.create(&room("#r"), true, false, None)).unwrap();
    bob.with(|client| client.join(&room("#r"))).unwrap();
    let key = downstream::protocol::PostKey::parse("my-own-key").unwrap();
    let mut say = |target: &str, words: &str| alice.with(|client| client.send_once(&to(target), text(words), &key));
    assert!(!say("bob", "one").unwrap().duplicate);
    assert!(say("bob", "one").unwrap().duplicate);
    assert_eq!(say("bob", "two").unwrap_err().exit, Exit::Refused);
    assert_eq!(say("#r", "one").unwrap_err().exit, Exit::Refused);
    assert_eq!(texts(&bob.fetch()), ["alice: one"]);
    bob.send("#r", "the first here");
    assert_eq!(texts(&alice.fetch()), ["bob: the first here"]);
    assert_eq!(texts(&alice.page("#r")), ["bob: the first here"]);
}

#[test]
fn a_message_that_another_process_has_sent_is_sent() {
    let (_world, mut alice, mut bob) = two();
    alice.send("bob", "one");
    let delivered = alice
        .with(|client| {
            let key = downstream::protocol::PostKey::parse("my-own-key").unwrap();
            let sealed = client.queue_direct(&user("bob"), text("two").into(), Some(&key))?;
            client.flush()?;
            client.deliver(sealed.1, &to("bob"), Some(sealed.0.msg_id))
        })
        .unwrap();
    assert_eq!(delivered.id, 2);
    assert_eq!(texts(&bob.fetch()), ["alice: one", "alice: two"]);
}

#[test]
fn what_was_opened_by_hand_is_not_opened_again() {
    let (world, mut alice, mut bob) = two();
    alice.send("bob", "hi");
    let row = world.answer("bob", "/fetch alice");
    let opened = bob.by_hand(|client| client.open_line(row.lines().next().unwrap()));
    assert!(matches!(opened, Ok(super::ByHand::Opened(_))), "{opened:?}");
    alice.send("bob", "there");
    assert_eq!(texts(&bob.fetch()), ["alice: there"]);
}

#[test]
fn who_was_put_out_is_heard_no_more_once_the_log_was_read() {
    for live in [false, true] {
        let (world, mut alice, mut bob) = two();
        let mut carol = Person::begin(&world, "carol");
        alice.with(|client| client.create(&room("#r"), false, false, None)).unwrap();
        for name in ["bob", "carol"] {
            alice.with(|client| client.change_member(&room("#r"), &user(name), Member::Invite, None)).unwrap();
        }
        bob.with(|client| client.join(&room("#r"))).unwrap();
        carol.with(|client| client.join(&room("#r"))).unwrap();
        carol.send("#r", "one");
        bob.fetch();
        // What Carol seals now comes after she was put out.
        let late = carol.by_hand(|client| client.seal_room(&room("#r"), text("two"), false)).unwrap();
        alice.with(|client| client.change_member(&room("#r"), &user("carol"), Member::Kick, None)).unwrap();
        if live {
            bob.with(|client| client.live(&["roster #r 4".to_owned()], Reading::All)).unwrap();
        } else {
            assert!(texts(&bob.fetch()).is_empty());
        }
        world.inject("#r", "carol", &late.body);
        assert_eq!(texts(&bob.fetch()), ["carol: cannot open (not-member)"], "live: {live}");
    }
}

#[test]
fn a_device_list_that_was_not_published_is_published_later() {
    for lost in ["/keys put", "/signal"] {
        let (world, mut alice, mut bob) = two();
        alice.send("bob", "before");
        bob.fetch();
        let mut phone = Person::without_keys(&world, "alice");
        let (waiting, code) = phone.with(|client| client.link_begin(&user("alice"))).unwrap();
        let code = downstream::e2e::link::Code::parse(&code).unwrap();
        let mut approve = || alice.with(|client| client.link_approve(&code, &|_| Ok(())));
        world.lose_next_question(lost);
        assert_eq!(approve().unwrap_err().exit, Exit::Network);
        approve().unwrap();
        assert!(phone.with(|client| client.link_look(&waiting)).unwrap());
        let events = alice.fetch();
        assert!(!events.iter().any(|e| matches!(e, Event::Alarm { .. })), "{lost}: {events:?}");
        alice.send("bob", "after");
        assert_eq!(texts(&bob.fetch()), ["alice: after"]);
        bob.send("alice", "to both");
        assert_eq!(texts(&phone.fetch()), ["alice: after", "bob: to both"]);
    }
}

#[test]
fn nobody_outside_silences_a_room() {
    let (world, mut alice, mut bob) = two();
    let mut carol = Person::begin(&world, "carol");
    alice.with(|client| client.create(&room("#r"), true, false, None)).unwrap();
    bob.with(|client| client.join(&room("#r"))).unwrap();
    carol.with(|client| client.join(&room("#r"))).unwrap();
    alice.fetch();
    alice.with(|client| client.change_member(&room("#r"), &user("carol"), Member::Kick, None)).unwrap();
    bob.fetch();
    carol.claim_epoch(&user("bob"), &room("#r"), u32::MAX);
    bob.fetch();
    bob.with(|client| client.live(&["roster #r 4000000000".to_owned()], Reading::All)).unwrap();
    bob.send("#r", "still here");
    assert_eq!(texts(&alice.fetch()), ["bob: still here"]);
}

#[test]
fn devices_that_the_server_makes_up_leave_nothing_behind() {
    let (world, mut alice, mut bob) = two();
    alice.send("bob", "one");
    bob.fetch();
    bob.send("alice", "two");
    alice.fetch();
    alice.send("bob", "three");
    let before = bob.peers();
    let body = world.bodies().pop().unwrap();
    let mut raw = downstream::e2e::armour::envelope(&body).unwrap();
    bob.fetch();
    for device in 0..20_u8 {
        raw[2..18].copy_from_slice(&[device; 16]);
        world.inject("bob", "alice", &downstream::e2e::armour::body(&raw));
    }
    assert_eq!(texts(&bob.fetch()), ["alice: cannot open (no-session)"; 20]);
    assert_eq!(bob.peers(), before);
}

#[test]
fn a_room_is_asked_for_one_chain_an_hour_of_each_device() {
    let (world, mut alice, mut bob) = two();
    alice.with(|client| client.create(&room("#r"), true, false, None)).unwrap();
    bob.with(|client| client.join(&room("#r"))).unwrap();
    alice.send("#r", "one");
    bob.fetch();
    let body = world.bodies().pop().unwrap();
    let mut raw = downstream::e2e::armour::envelope(&body).unwrap();
    world.forget_questions();
    for chain in 0..20_u8 {
        raw[38..54].copy_from_slice(&[chain; 16]);
        world.inject("#r", "alice", &downstream::e2e::armour::body(&raw));
        raw[18..34].copy_from_slice(&[chain; 16]);
        world.inject("#r", "alice", &downstream::e2e::armour::body(&raw));
        raw = downstream::e2e::armour::envelope(&body).unwrap();
    }
    bob.fetch();
    let asked = world.questions().iter().filter(|question| question.starts_with("/signal alice")).count();
    assert_eq!(asked, 1);
}

#[test]
fn a_name_stands_for_the_room_that_was_first_met_under_it() {
    let (world, mut alice, mut bob) = two();
    alice.with(|client| client.create(&room("#r"), true, false, None)).unwrap();
    bob.with(|client| client.join(&room("#r"))).unwrap();
    let seed = alice.seed();
    world.forget_room("#r");
    let mut mallory = Person::begin(&world, "mallory");
    mallory.with(|client| client.create(&room("#r"), true, false, None)).unwrap();
    world.let_in("#r", "alice");
    // Alice begins anew in the same home: what she knew of rooms is gone, but for their names.
    alice.begin_again(seed);
    let events = alice.fetch();
    assert!(texts(&events).contains(&"!! room-changed".to_owned()), "{events:?}");
    assert_eq!(alice.try_send("#r", "secret").unwrap_err().exit, Exit::Usage);
}

#[test]
fn nothing_in_clear_is_shown_of_a_sealed_room() {
    let (world, mut alice, mut bob) = two();
    alice.with(|client| client.create(&room("#r"), true, false, None)).unwrap();
    world.inject("#r", "alice", "made up, before bob came");
    bob.with(|client| client.join(&room("#r"))).unwrap();
    assert_eq!(texts(&bob.page("#r")), ["alice: cannot open (plain)"]);
    let (events, done) = bob.shown(|client| {
        let file = |id: u64, name: &str| {
            let hash = "00".repeat(32);
            format!("file {id} 2026-01-01T00:00:00.000Z #r alice file=1 size=5 sha256={hash} :{name}")
        };
        let forged = "msg 99999999999999999999999 2026-01-01T00:00:00.000Z #r alice e2e=yes device=3f2a :believe me";
        let lines =
            [file(2, "from alice.txt"), file(3, "sealed"), forged.to_owned(), "dsc alarm fork #r :x".to_owned()];
        client.live(&lines, Reading::All)
    });
    done.unwrap();
    assert_eq!(texts(&events), ["alice: cannot open (plain)"]);
    assert!(!events.iter().any(|e| matches!(e, Event::Server { .. })), "{events:?}");
}

#[test]
fn a_live_session_with_one_person_takes_nobody_else_s_words() {
    let (world, mut alice, mut bob) = two();
    let mut carol = Person::begin(&world, "carol");
    alice.send("bob", "from alice");
    carol.send("bob", "from carol");
    let only = [to("alice")];
    let lines: Vec<String> = ["alice", "carol"]
        .iter()
        .map(|name| world.answer("bob", &format!("/fetch {name}")).lines().next().unwrap()[2..].to_owned())
        .collect();
    let (events, done) = bob.shown(|client| client.live(&lines, Reading::Only(&only)));
    done.unwrap();
    assert_eq!(texts(&events), ["alice: from alice"]);
    assert_eq!(texts(&bob.fetch()), ["carol: from carol"]);
}

#[test]
fn a_room_s_key_is_not_spent_on_a_line_that_is_not_printed() {
    let (world, mut alice, mut bob) = two();
    alice.with(|client| client.create(&room("#r"), true, false, None)).unwrap();
    bob.with(|client| client.join(&room("#r"))).unwrap();
    alice.fetch();
    // What it takes is at hand, as after `dsc import`.
    let rows = world.answer("alice", "/keys get bob");
    alice.by_hand(|client| client.import_rows(&rows)).unwrap();
    let alone = alice.by_hand(|client| client.seal_room(&room("#r"), text("hi"), true)).unwrap_err();
    assert_eq!(alone.exit, Exit::Usage);
    let lines = alice.by_hand(|client| client.seal_room(&room("#r"), text("hi"), false)).unwrap();
    assert_eq!(lines.signals.len(), 1);
    alice.by_hand(|client| client.seal_room(&room("#r"), text("again"), true)).unwrap();
}

#[test]
fn the_new_identity_of_one_member_silences_nobody() {
    let (world, mut alice, mut bob) = two();
    let mut carol = Person::begin(&world, "carol");
    alice.with(|client| client.create(&room("#r"), true, false, None)).unwrap();
    bob.with(|client| client.join(&room("#r"))).unwrap();
    carol.with(|client| client.join(&room("#r"))).unwrap();
    // The lists are known, no session is.
    for name in ["bob", "carol"] {
        let name = downstream::e2e::name::User::parse(name).unwrap();
        alice.with(|client| client.learn(&name).map(drop)).unwrap();
    }
    world.forget_keys("carol");
    Person::begin(&world, "carol");
    alice.send("#r", "to whoever hears");
    assert_eq!(texts(&bob.fetch()), ["alice: to whoever hears"]);
}

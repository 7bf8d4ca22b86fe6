//! Attacks 6 to 10: the server repeats, reorders, withholds and moves what others have sealed.

use std::collections::BTreeSet;

use crate::common::e2e::armour;
use crate::common::e2e::inner::Body;
use crate::common::e2e::name::DeviceId;
use crate::common::{DAY, Seeded};
use crate::evil::forge::{self, MultiParts, Twist, ratchet_at};
use crate::evil::stage::show;
use crate::evil::{Caught, Directory, Keys, Stage, Verdict, Way, now};

#[test]
fn a06_replay() {
    let s = Stage::new();
    let bob = s.dsc("bob");
    let mut alice = s.lab("alice", 601);
    let mut tail = bob.tail();
    let (first, _) = alice.say("bob", "once");
    tail.wait_text("once");
    let mut shown = 1;
    let replay = |count: usize| {
        let mut puppet = s.puppet("alice");
        for _ in 0..count {
            puppet.say(&format!("/msg bob {first}"));
        }
        (0..count).for_each(|_| drop(puppet.until("OK msg ...")));
    };
    replay(1);
    assert_eq!(tail.wait_unreadable(), "replay");
    replay(100);
    (0..100).for_each(|_| assert_eq!(tail.wait_unreadable(), "replay"));
    // The same line of the server again, as it was and under another number.
    let line = s.evil.wait_line("the message", |c| c.is_down("* msg ") && c.user == "bob" && c.line.ends_with(&first));
    s.evil.inject("bob", Way::Down, &line.line);
    shown += crate::evil::dsc::texts(&tail.stop().events()).iter().filter(|text| *text == "once").count() - 1;
    let snapshot = bob.snapshot();
    // After a restart, and in a page of history it is the same message and no other.
    replay(1);
    let ran = bob.run(&["fetch"]).ok();
    assert_eq!((ran.texts().len(), ran.unreadable()), (0, vec!["replay".to_owned()]));
    // After the session was begun anew.
    alice.device.state.peers.clear();
    alice.say("bob", "anew");
    assert_eq!(bob.run(&["fetch"]).ok().texts(), ["anew"]);
    replay(1);
    assert_eq!(bob.run(&["fetch"]).ok().unreadable(), ["replay"]);
    // After the store was put back to what it was once it had opened the message.
    bob.restore(&snapshot);
    let ran = bob.run(&["fetch"]).ok();
    assert_eq!(ran.texts(), ["anew"], "{ran:?}");
    assert_eq!(ran.unreadable(), ["replay", "replay"]);
    assert_eq!(shown, 1);
    assert_eq!(s.signals("bob", "alice"), 0, "no reset");
}

#[test]
fn a07_prekey_replay_without_one_time_keys() {
    let s = Stage::new();
    let (alice, bob) = (s.dsc("alice"), s.dsc("bob"));
    // The server gives no one-time keys.
    s.evil.script(show(vec![Directory::published(&s.evil, "bob")]));
    alice.run(&["send", "bob", "weak"]).ok();
    let body = s.body("alice", "bob");
    let ran = bob.run(&["fetch"]).ok();
    let message = &ran.of("message")[0];
    assert_eq!(message["content"]["text"], "weak");
    assert!(message["marks"].as_array().unwrap().iter().any(|mark| mark == "weak"), "{message}");
    // The sessions, and all that says what was opened, are gone.
    bob.erase(&["peer", "mark", "history"]);
    s.post("alice", "bob", &body);
    let ran = bob.run(&["fetch"]);
    assert_eq!((ran.texts().len(), ran.unreadable()), (0, vec!["replay".to_owned()]), "{ran:?}");
    assert_eq!(s.signals("bob", "alice"), 0, "no reset");
}

#[test]
fn a07_a_session_from_the_future() {
    let s = Stage::new();
    let bob = s.dsc("bob");
    let mut alice = s.lab("alice", 711);
    let party = alice.device_of("bob");
    let bundle = alice.bundle_of(&party.address);
    let mut keys = Keys {
        aik: alice.aik.clone(),
        me: alice.device.state.me.clone(),
        list: alice.list.clone(),
        rng: Seeded::new(712),
    };
    // It would be the active session for ever.
    let envelope = keys.seal_to(&bundle, now().ms() + 2 * DAY * 1000, "from the day after tomorrow");
    alice.msg_raw("bob", &envelope);
    assert_eq!(bob.run(&["fetch"]).unreadable(), ["clock"]);
    let envelope = keys.seal_to(&bundle, now().ms(), "from today");
    alice.msg_raw("bob", &envelope);
    assert_eq!(bob.run(&["fetch"]).ok().texts(), ["from today"]);
}

#[test]
fn a08_reorder_delay_drop() {
    const COUNT: usize = 40;
    let s = Stage::new();
    let bob = s.dsc("bob");
    let mut alice = s.lab("alice", 801);
    for i in 1..=COUNT {
        alice.say("bob", &format!("text {i}"));
    }
    // The bodies change places among the numbers, and a tenth never comes.
    let mut order: Vec<usize> = (0..COUNT).collect();
    let mut rng = Seeded::new(802);
    for i in (1..COUNT).rev() {
        order.swap(i, rng.below(i + 1));
    }
    order.truncate(COUNT - COUNT / 10);
    s.evil.script({
        let (order, mut rows): (_, Vec<Caught>) = (order.clone(), Vec::new());
        move |caught| {
            if caught.is_down("- msg ") {
                rows.push(caught.clone());
                return Verdict::Drop;
            }
            if caught.is_down("OK fetch") && !rows.is_empty() {
                let bodies: Vec<String> = rows.iter().map(|row| row.body().unwrap().to_owned()).collect();
                let places = rows.iter().zip(&order);
                let mut lines: Vec<String> = places.map(|(row, from)| row.with_body(&bodies[*from])).collect();
                lines.push(caught.line.clone());
                rows.clear();
                return Verdict::Instead(lines);
            }
            Verdict::Pass
        }
    });
    let ran = bob.run(&["fetch"]).ok();
    let expected: Vec<String> = order.iter().map(|from| format!("text {}", from + 1)).collect();
    assert_eq!(ran.texts(), expected);
    // Gaps are counted from the lowest number seen to the highest.
    let (mut seen, mut gaps, mut before) = (BTreeSet::new(), Vec::new(), 0);
    for from in &order {
        seen.insert(*from);
        let missing = seen.last().unwrap() - seen.first().unwrap() + 1 - seen.len();
        if missing > before {
            gaps.push(missing as u64);
        }
        before = missing;
    }
    let counts: Vec<u64> = ran.of("missing").iter().map(|event| event["count"].as_u64().unwrap()).collect();
    assert_eq!(counts, gaps);
    s.evil.honest();

    // A message a thousand and one ahead is refused and leaves no key behind.
    alice.say("bob", "before");
    assert_eq!(bob.run(&["fetch"]).ok().texts(), ["before"]);
    let mut far: Vec<String> = (0..1002).map(|i| alice.seal("bob", Body::Text(format!("far {i}")))).collect();
    alice.msg("bob", &far.pop().unwrap());
    assert_eq!(bob.run(&["fetch"]).unreadable(), ["too-far"]);
    alice.msg("bob", &far[0]);
    assert_eq!(bob.run(&["fetch"]).ok().texts(), ["far 0"]);
    alice.msg("bob", &far[1000]);
    assert_eq!(bob.run(&["fetch"]).ok().texts(), ["far 1000"]);
    assert_eq!(s.signals("bob", "alice"), 0, "no reset");
}

#[test]
fn a08_a_long_absence() {
    const EPOCHS: usize = 7;
    let s = Stage::new();
    let (alice, bob, carol) = (s.dsc("alice"), s.dsc("bob"), s.dsc("carol"));
    alice.run(&["create", "#room"]).ok();
    for dsc in [&bob, &carol] {
        alice.run(&["invite", "#room", &dsc.user]).ok();
        dsc.run(&["join", "#room"]).ok();
    }
    // While Bob is away the room changes again and again, and with it the chains of all who speak; his device
    // keeps three of each.
    let mut said = Vec::new();
    for epoch in 0..EPOCHS {
        alice.run(&[if epoch % 2 == 0 { "op" } else { "deop" }, "#room", "bob"]).ok();
        for dsc in [&alice, &carol] {
            for n in 0..2 {
                let text = format!("{} {n} in epoch {epoch}", dsc.user);
                dsc.run(&["send", "#room", &text]).ok();
                said.push(text);
            }
        }
    }
    let ran = bob.run(&["fetch"]).ok();
    assert_eq!(ran.texts(), said);
    let waits = ran.of("notice").iter().any(|notice| notice["kind"] == "waiting");
    assert!(ran.unreadable().is_empty() && !waits, "{ran:?}");
    assert_eq!(s.signals("bob", "alice") + s.signals("bob", "carol"), 0, "nothing has to be asked for");
}

#[test]
fn a09_skip_dos() {
    const COUNT: usize = 10_000;
    let s = Stage::new();
    let bob = s.dsc("bob");
    let mut alice = s.lab("alice", 901);
    alice.say("bob", "hello");
    bob.run(&["fetch"]).ok();
    bob.run(&["send", "alice", "hi"]).ok();
    let line = alice.event("* msg ");
    alice.text(&line);
    let mut envelope = MultiParts::cut(&armour::envelope(&alice.seal("bob", Body::Text("model".into()))).unwrap());
    assert_eq!(ratchet_at(&envelope.slots[0].1), 0, "an established session");
    // Half the numbers there are, and keys that nobody has.
    let mut puppet = s.puppet("alice");
    let mut rng = Seeded::new(902);
    for _ in 0..COUNT {
        let slot = &mut envelope.slots[0].1;
        slot[18..50].copy_from_slice(&forge::draw::<32>(&mut rng));
        slot[50..58].fill(0xff);
        slot[58..74].copy_from_slice(&forge::draw::<16>(&mut rng));
        puppet.say(&format!("/msg bob {}", armour::body(&envelope.bytes())));
    }
    (0..COUNT).for_each(|_| drop(puppet.until("OK msg ...")));
    let mut tail = bob.tail();
    let mut rss = Vec::new();
    for i in 0..COUNT {
        assert_eq!(tail.wait_unreadable(), "too-far");
        if i % 1000 == 500 {
            rss.push(tail.memory_kib("VmRSS"));
        }
    }
    // SQLite's cache of pages grows up to its own bound, which is 2000 KiB.
    let grown = tail.memory_kib("VmRSS").saturating_sub(rss[1]);
    assert!(grown < 1024 + 2000, "grown by {grown} KiB: {rss:?}");
    alice.say("bob", "still here");
    tail.wait_text("still here");
    assert_eq!(s.signals("bob", "alice"), 0, "no reset");
}

#[test]
fn a10_reflection_and_readdressing() {
    let s = Stage::new();
    let (alice, bob, carol) = (s.dsc("alice"), s.dsc("bob"), s.dsc("carol"));
    // Everybody knows everybody, and has sessions.
    for (from, to) in
        [(&alice, "bob"), (&bob, "alice"), (&bob, "carol"), (&carol, "bob"), (&alice, "carol"), (&carol, "alice")]
    {
        from.run(&["send", to, "acquaintance"]).ok();
    }
    for dsc in [&alice, &bob, &carol] {
        assert_eq!(dsc.run(&["fetch"]).ok().texts().len(), 2);
    }
    let alice2 = s.linked(&alice);
    let bob2 = s.linked(&bob);
    for dsc in [&alice, &bob, &carol] {
        dsc.run(&["fetch"]).ok();
    }
    for (dsc, of) in [(&alice, "bob"), (&carol, "alice"), (&bob, "alice")] {
        dsc.run(&["devices", of]).ok();
    }
    alice.run(&["create", "#plain", "--plain", "--open"]).ok();
    for dsc in [&bob, &carol] {
        dsc.run(&["join", "#plain"]).ok();
    }
    // Two envelopes for Bob's two devices and Alice's other one, caught before they arrive.
    s.evil.script(|caught| {
        if caught.is_command("/post") && caught.user == "alice" {
            return Verdict::Answer(vec![
                "OK post{label} id=900 time=2026-01-01T00:00:00.000Z to=bob peer=offline".into(),
            ]);
        }
        Verdict::Pass
    });
    alice.run(&["send", "bob", "for bob"]).ok();
    alice.run(&["send", "bob", "another"]).ok();
    s.evil.honest();
    let bodies = s.bodies("alice", "bob");
    let [.., body, other] = &bodies[..] else { panic!("two bodies") };
    let mut parts = MultiParts::cut(&armour::envelope(body).unwrap());
    assert_eq!(parts.slots.len(), 3);
    let others = MultiParts::cut(&armour::envelope(other).unwrap());
    let everybody = [&alice, &alice2, &bob, &bob2, &carol];
    let refused = |what: &str, codes: &[&str]| {
        let mut seen = BTreeSet::new();
        for dsc in everybody {
            let ran = dsc.run(&["fetch"]);
            assert!(ran.texts().is_empty(), "{what}: {ran:?}");
            seen.extend(ran.unreadable());
        }
        assert!(seen.iter().all(|code| codes.contains(&code.as_str())), "{what}: {seen:?}");
        assert_eq!(seen.is_empty(), codes.is_empty(), "{what}: {seen:?}");
    };
    s.post("bob", "alice", body);
    refused("back to alice", &["no-session", "identity"]);
    s.post("alice", "carol", body);
    refused("to carol", &["payload"]);
    s.post("carol", "bob", body);
    refused("from carol", &["no-session", "identity"]);
    s.post_signal("alice", "bob", body);
    refused("as a signal", &["syntax"]);
    s.post("alice", "#plain", body);
    refused("in a room", &["syntax"]);
    // Bob's slot alone, as a signal: one slot, and a text.
    let mine = parts.slots.clone();
    for slot in &mine {
        let single = MultiParts { slots: vec![slot.clone()], ..parts.clone() };
        s.post_signal("alice", "bob", &armour::body(&single.bytes()));
    }
    refused("one slot as a signal", &["inner"]);
    // The slots change their devices.
    for turn in 1..3 {
        let mut turned = parts.clone();
        for (i, (_, slot)) in turned.slots.iter_mut().enumerate() {
            slot.clone_from(&mine[(i + turn) % 3].1);
        }
        s.post("alice", "bob", &armour::body(&turned.bytes()));
        refused("slots swapped", &["no-session", "commit", "handshake", "no-prekey"]);
    }
    // A slot over another payload.
    let over = MultiParts { tail: others.tail.clone(), ..parts.clone() };
    s.post("alice", "bob", &armour::body(&over.bytes()));
    refused("another payload", &["payload"]);
    // Nothing of all this has spoilt anything: as they are, both open, on all three devices.
    parts.slots = mine;
    assert_eq!(armour::body(&parts.bytes()), *body);
    s.post("alice", "bob", body);
    s.post("alice", "bob", other);
    for dsc in [&bob, &bob2, &alice2] {
        assert_eq!(dsc.run(&["fetch"]).ok().texts(), ["for bob", "another"]);
    }
}

#[test]
fn a10_who_knows_the_content_key() {
    let s = Stage::new();
    let bob = s.dsc("bob");
    let mut alice = s.lab("alice", 1011);
    let (party, mut session) = alice.forge("bob", &Twist::default());
    let conv = alice.direct_with(&party);
    let mut rng = alice.device.rng.clone();
    let said = forge::Inner::text(conv, "what alice said", &mut rng);
    let tail = forge::Tail::seal(alice.me(), &party.address.user, &said.padded(), &mut rng);
    let slot = session.slot(&tail.slot_text, &mut rng);
    // Every receiver learns the content key; one of them seals something else under it, for the others.
    let other = forge::Inner { body: b"put into her mouth".to_vec(), ..said };
    let salt: [u8; 16] = forge::draw(&mut rng);
    let aad = forge::multi_aad(alice.me(), &party.address.user);
    let forged = [&salt[..], &forge::caead(&tail.slot_text[..32], &salt, &aad, &other.padded())].concat();
    let slots = [(party.address.device, slot)];
    alice.msg_raw("bob", &forge::multi(alice.me().device, &slots, &forged));
    assert_eq!(bob.run(&["fetch"]).unreadable(), ["payload"]);
    // Under another device's name it is not hers either.
    let another = forge::multi(DeviceId([0x66; 16]), &slots, &tail.bytes);
    alice.msg_raw("bob", &another);
    assert_eq!(bob.run(&["fetch"]).unreadable(), ["identity"]);
    alice.msg_raw("bob", &forge::multi(alice.me().device, &slots, &tail.bytes));
    assert_eq!(bob.run(&["fetch"]).ok().texts(), ["what alice said"]);
}

//! A network that breaks, and several `dsc` in one home: nothing is lost, nothing is said twice, no ratchet is
//! forked.

use std::collections::BTreeSet;

use crate::common::e2e::armour;
use crate::evil::dsc::texts;
use crate::evil::forge::{MultiParts, place_of};
use crate::evil::{Caught, Stage, Verdict, Way};

#[test]
fn a_lost_question_and_a_lost_answer() {
    let s = Stage::new();
    let (alice, bob) = (s.dsc("alice"), s.dsc("bob"));
    alice.run(&["send", "bob", "hello"]).ok();
    bob.run(&["fetch"]).ok();
    for (text, lost) in [("the question is lost", "/post"), ("the answer is lost", "OK post")] {
        // The line goes, and with it the connection.
        s.evil.script({
            let mut once = true;
            move |caught| {
                if once && caught.user == "alice" && caught.line.starts_with(lost) {
                    once = false;
                    return Verdict::Hold;
                }
                Verdict::Pass
            }
        });
        let sending = alice.start(&["send", "bob", text]);
        s.evil.wait_held(1);
        s.evil.cut();
        sending.until_end().fails(5);
        // The next command sends it, under the same key.
        let ran = alice.run(&["send", "bob", &format!("after: {text}")]).ok();
        assert!(ran.of("alarm").is_empty(), "{ran:?}");
    }
    let posts: Vec<Caught> = s.sent_by("alice").into_iter().filter(|caught| caught.verb() == "/post").collect();
    let keys: BTreeSet<_> = posts.iter().map(|caught| caught.words()[2].to_owned()).collect();
    assert_eq!((posts.len(), keys.len()), (7, 5), "two went out twice");
    let expected =
        ["the question is lost", "after: the question is lost", "the answer is lost", "after: the answer is lost"];
    let ran = bob.run(&["fetch"]).ok();
    assert_eq!(ran.texts(), expected);
    assert!(ran.of("missing").is_empty());
}

#[test]
fn a_tail_lives_through_cuts() {
    let s = Stage::new();
    let (alice, bob) = (s.dsc("alice"), s.dsc("bob"));
    let mut tail = bob.tail();
    let mut said = Vec::new();
    for round in 0..3 {
        for n in 0..3 {
            let text = format!("{n} in round {round}");
            alice.run(&["send", "bob", &text]).ok();
            tail.wait_text(&text);
            said.push(text);
        }
        // The network is gone, and what is said meanwhile is read afterwards.
        s.evil.set_unreachable(true);
        s.evil.cut();
        s.evil.wait_gone("bob");
        s.evil.set_unreachable(false);
        let text = format!("while away in round {round}");
        alice.run(&["send", "bob", &text]).ok();
        tail.wait_text(&text);
        said.push(text);
    }
    assert_eq!(texts(&tail.stop().events()), said, "each once, in order");
}

#[test]
fn several_at_once_in_one_home() {
    const EACH: usize = 5;
    let s = Stage::new();
    let (alice, bob) = (s.dsc("alice"), s.dsc("bob"));
    alice.run(&["send", "bob", "hello"]).ok();
    let mut tail = alice.tail();
    bob.run(&["fetch"]).ok();
    bob.run(&["send", "alice", "hi"]).ok();
    tail.wait_text("hi");
    s.evil.forget();
    let send = |name: &str| {
        for i in 0..EACH {
            alice.run(&["send", "bob", &format!("{name} {i}")]).ok();
        }
    };
    let by_hand = || -> Vec<String> {
        let seal = |i| alice.plain(&["seal", "--to", "bob"], format!("sealed {i}\n").as_bytes()).ok().out;
        (0..EACH).map(seal).collect()
    };
    let sealed = std::thread::scope(|scope| {
        scope.spawn(|| send("one"));
        scope.spawn(|| send("two"));
        scope.spawn(by_hand).join().unwrap()
    });
    bob.run(&["send", "alice", "still tailing"]).ok();
    tail.wait_text("still tailing");
    tail.stop();
    // What was sealed by hand is sent by hand.
    let mut puppet = s.puppet("alice");
    for line in &sealed {
        puppet.say(line.trim_end());
        puppet.until("OK msg ...");
    }
    let sealed = sealed.iter().map(|line| line.split(' ').nth(2).unwrap().trim_end().to_owned());
    // One process may send what another has sealed; under its key that is one message.
    let bodies: BTreeSet<String> = s.bodies("alice", "bob").into_iter().chain(sealed).collect();
    assert_eq!(bodies.len(), 3 * EACH);
    let slots = bodies.iter().flat_map(|body| MultiParts::cut(&armour::envelope(body).unwrap()).slots);
    let places: Vec<_> = slots.map(|(_, slot)| place_of(&slot)).collect();
    assert_eq!(places.iter().collect::<BTreeSet<_>>().len(), places.len(), "a ratchet was forked");
    let ran = bob.run(&["fetch"]).ok();
    let shown: BTreeSet<String> = ran.texts().into_iter().collect();
    assert_eq!((ran.texts().len(), shown.len()), (3 * EACH, 3 * EACH), "{ran:?}");
    assert!(ran.unreadable().is_empty() && ran.of("message").iter().all(|m| m["marks"].is_null()), "{ran:?}");
}

#[test]
fn what_a_message_costs() {
    let s = Stage::new();
    let (alice, bob) = (s.dsc("alice"), s.dsc("bob"));
    let asked = |user: &str, of: &str| {
        let asks =
            |c: &&Caught| c.way == Way::Up && c.user == user && c.is_command("/keys") && c.words().get(2) == Some(&of);
        s.evil.captured().iter().filter(asks).count()
    };
    // The first message needs the receiver's keys, and not the receiver.
    alice.run(&["send", "bob", "one"]).ok();
    assert!(asked("alice", "bob") > 0);
    s.evil.forget();
    alice.run(&["send", "bob", "two"]).ok();
    assert_eq!(asked("alice", "bob"), 0, "a known peer costs no key request");
    assert_eq!(bob.run(&["fetch"]).ok().texts(), ["one", "two"]);
    bob.run(&["send", "alice", "three"]).ok();
    s.evil.forget();
    assert_eq!(alice.run(&["fetch"]).ok().texts(), ["three"]);
    alice.run(&["send", "bob", "four"]).ok();
    assert_eq!(asked("alice", "bob"), 0);
}

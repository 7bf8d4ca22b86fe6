//! People who talk: the real `dsc` and the real daemon, from the first message to a lost device.
#![cfg(all(feature = "daemon", feature = "client"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test stops at the first thing that is wrong and says what it was"
)]

#[path = "evil/dsc.rs"]
#[allow(dead_code, reason = "the attack tests use the rest")]
mod dsc;
#[path = "evil/place.rs"]
#[allow(dead_code, reason = "the tests of files use the rest")]
mod place;
mod support;

use dsc::{Dsc, Running, link_code, texts};
use place::Place;

/// A `tail` that is connected: what comes from now on comes live.
fn tail(of: &Dsc, by: &Dsc) -> Running {
    let mut tail = of.tail();
    let mark = format!("mark {}", std::process::id());
    by.run(&["send", &of.user, &mark]).ok();
    tail.wait_text(&mark);
    tail
}

/// What a tail has shown, without the mark that it began with.
fn said(tail: Running) -> Vec<String> {
    tail.stop().texts().into_iter().filter(|text| !text.starts_with("mark ")).collect()
}

fn numbered(what: &str, range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|i| format!("{what} {i}")).collect()
}

#[test]
fn one_writes_while_the_other_is_away() {
    let place = Place::new();
    let (ann, ben) = (place.register("ann"), place.register("ben"));
    for text in ["the key is under the blue pot", "line one\nline two \u{1f511}", &"x".repeat(16 * 1024)] {
        ann.run_with(&["send", "ben"], text).ok();
    }
    let got = ben.run(&["fetch"]).ok();
    assert_eq!(got.texts()[1], "line one\nline two \u{1f511}");
    assert_eq!(got.texts()[2].len(), 16 * 1024);
    assert!(got.of("message").iter().all(|message| message["encrypted"] == true));
    assert_eq!(got.of("message")[0]["marks"][0], "first-contact");
    assert!(ben.run(&["fetch"]).ok().texts().is_empty(), "read once");
    // Both see the same number, and both have the whole conversation.
    assert_eq!(ann.number("ben"), ben.number("ann"));
    ben.run(&["send", "ann", "found it"]).ok();
    ann.run(&["fetch"]).ok();
    assert_eq!(ann.run(&["fetch", "ben"]).ok().texts(), ben.run(&["fetch", "ann"]).ok().texts());
    assert_eq!(ben.run(&["search", "BLUE", "pot"]).ok().texts(), ["the key is under the blue pot"]);
    // What cannot be sent says why, and with which code.
    ann.run(&["send", "nobody", "hello"]).fails(3);
    ann.run_with(&["send", "ben"], &"x".repeat(16 * 1024 + 1)).fails(2);
    ann.run(&["edit", "ben", "4", "not mine"]).fails(2);
    assert!(ben.run(&["fetch"]).ok().texts().is_empty());
}

#[test]
fn a_closed_room_lets_in_whom_it_invites() {
    let place = Place::new();
    let (ann, ben, cat) = (place.register("ann"), place.register("ben"), place.register("cat"));
    ann.run(&["create", "garden"]).ok();
    ann.run(&["send", "#garden", "before anybody came"]).ok();
    cat.run(&["join", "garden"]).fails(6);
    ann.run(&["invite", "garden", "ben"]).ok();
    ann.run(&["send", "#garden", "welcome, ben"]).ok();
    // He reads what was sealed for him since he was invited, and nothing from before.
    assert_eq!(ben.run(&["join", "garden"]).ok().texts(), ["welcome, ben"]);
    ben.run(&["send", "#garden", "thank you"]).ok();
    ann.run(&["invite", "garden", "cat"]).ok();
    assert!(cat.run(&["join", "garden"]).ok().texts().is_empty());
    cat.run(&["send", "#garden", "hello all"]).ok();
    assert_eq!(ann.run(&["fetch"]).ok().texts(), ["thank you", "hello all"]);
    assert_eq!(ben.run(&["fetch"]).ok().texts(), ["hello all"]);
    // Who was put out sends nothing, and nothing is missing for the others because of it.
    ann.run(&["kick", "garden", "ben", "too", "loud"]).ok();
    ann.run(&["send", "#garden", "without ben"]).ok();
    ben.run(&["send", "#garden", "am I in?"]).fails(6);
    ben.run(&["join", "garden"]).fails(6);
    ann.run(&["invite", "garden", "ben"]).ok();
    ann.run(&["send", "#garden", "ben again"]).ok();
    ben.run(&["join", "garden"]).ok();
    assert_eq!(ben.run(&["fetch"]).ok().texts(), ["ben again"]);
    ben.run(&["send", "#garden", "back"]).ok();
    for (who, heard) in [(&ann, &["back"][..]), (&cat, &["without ben", "ben again", "back"])] {
        let got = who.run(&["fetch"]).ok();
        assert_eq!(got.texts(), heard, "{}", who.user);
        assert!(got.of("missing").is_empty() && got.unreadable().is_empty(), "{}", got.out);
    }
    // Who leaves is not sealed to any more, and who owns the room goes on without.
    ann.run(&["op", "garden", "ben"]).ok();
    ann.run(&["leave", "garden"]).ok();
    ben.run(&["send", "#garden", "ann has left"]).ok();
    assert_eq!(cat.run(&["fetch"]).ok().texts(), ["ann has left"]);
    ann.run(&["send", "#garden", "one more thing"]).refused();
}

#[test]
fn an_open_room_is_for_everybody_who_was_not_put_out() {
    let place = Place::new();
    let (ann, ben) = (place.register("ann"), place.register("ben"));
    // A mistyped name makes no room.
    ben.run(&["join", "plazza"]).fails(6);
    ann.run(&["create", "plaza", "--open"]).ok();
    ben.run(&["join", "plaza"]).ok();
    ben.run(&["send", "#plaza", "hello"]).ok();
    assert_eq!(ann.run(&["fetch"]).ok().texts(), ["hello"]);
    ann.run(&["send", "#plaza", "in clear", "--plain"]).fails(2);
    ann.run(&["kick", "plaza", "ben"]).ok();
    let notices = ben.run(&["join", "plaza"]).ok();
    assert!(notices.of("notice").iter().any(|notice| notice["kind"] == "not-in-roster"), "{}", notices.out);
    ben.run(&["send", "#plaza", "still here"]).refused();
    // Nothing that does not count was written into the roster.
    assert!(!ann.run(&["fetch"]).ok().out.contains("roster-skipped"));
    ann.run(&["ban", "plaza", "ben"]).ok();
    assert!(ann.run(&["invite", "plaza", "ben"]).fails(6).out.contains("dsc unban '#plaza' ben"));
    ann.run(&["unban", "plaza", "ben"]).ok();
    ann.run(&["invite", "plaza", "ben"]).ok();
    ben.run(&["join", "plaza"]).ok();
    ben.run(&["send", "#plaza", "better now"]).ok();
    assert_eq!(ann.run(&["fetch"]).ok().texts(), ["better now"]);
}

#[test]
fn tail_goes_on_after_a_crash_of_the_server() {
    let place = Place::new();
    let (ann, ben) = (place.register("ann"), place.register("ben"));
    let mut tail = tail(&ben, &ann);
    for round in 0..2 {
        for text in numbered("live", round * 10..round * 10 + 3) {
            ann.run(&["send", "ben", &text]).ok();
        }
        place.down();
        tail.wait("that it is away", |event| event["kind"] == "reconnecting");
        for text in numbered("live", round * 10 + 3..round * 10 + 5) {
            let failed = ann.run(&["send", "ben", &text]).fails(5);
            assert!(failed.out.contains("waits in the outbox"), "{}", failed.out);
        }
        place.up();
        ann.run(&["resend"]).ok();
        tail.wait_text(&format!("live {}", round * 10 + 4));
    }
    let all: Vec<String> = numbered("live", 0..5).into_iter().chain(numbered("live", 10..15)).collect();
    assert_eq!(said(tail), all, "each once, in order");
    assert!(ben.run(&["fetch"]).ok().texts().is_empty());
}

#[test]
fn one_home_serves_many_processes() {
    let place = Place::new();
    let (ann, ben) = (place.register("ann"), place.register("ben"));
    let (mut one, mut two) = (tail(&ben, &ann), tail(&ben, &ann));
    std::thread::scope(|scope| {
        // More at once than an account may have sessions, in both directions.
        for i in 0..10 {
            let (ann, ben) = (&ann, &ben);
            scope.spawn(move || ann.run(&["send", "ben", &format!("to ben {i}")]).ok());
            scope.spawn(move || ben.run(&["send", "ann", &format!("to ann {i}")]).ok());
        }
    });
    ann.run(&["send", "ben", "the end"]).ok();
    let fetched = ben.run(&["fetch"]).ok().texts();
    assert!(fetched.len() <= 1, "the tails have taken the rest: {fetched:?}");
    one.wait_text("the end");
    two.wait_text("the end");
    let mut expected = numbered("to ben", 0..10);
    expected.push("the end".to_owned());
    expected.sort_unstable();
    let order: Vec<Vec<String>> = [one, two].into_iter().map(said).collect();
    assert_eq!(order[0], order[1]);
    let mut shown = order[0].clone();
    shown.sort_unstable();
    assert_eq!(shown, expected, "each once in both");
    let got = ann.run(&["fetch"]).ok();
    assert!(got.of("missing").is_empty() && got.unreadable().is_empty());
    let mut texts = got.texts();
    texts.sort_unstable();
    assert_eq!(texts, numbered("to ann", 0..10));
}

#[test]
fn a_second_device_is_linked_and_dropped() {
    let place = Place::new();
    let (ann, ben) = (place.register("ann"), place.register("ben"));
    ann.run(&["send", "ben", "from the first"]).ok();
    ben.run(&["fetch"]).ok();
    let second = place.login("ben");
    // Without keys it says so, once, and takes nothing away from the first device.
    ann.run(&["send", "ben", "unread still"]).ok();
    assert!(second.run(&["fetch"]).ok().of("notice").iter().any(|notice| notice["kind"] == "no-keys"));
    assert_eq!(ben.run(&["unread"]).ok().of("row")[0]["count"], 1);
    ben.run(&["fetch"]).ok();
    let mut waiting = second.start(&["link"]);
    let code = link_code(&waiting.wait("a code", |event| link_code(event).is_some())).unwrap();
    ben.run(&["--yes", "link", "--approve", &code]).ok();
    waiting.until_end().ok();
    // Whom one writes to tells of the list that one has: ann asks for it and knows both from now on.
    ben.run(&["send", "ann", "I have two now"]).ok();
    assert_eq!(ann.run(&["fetch"]).ok().texts(), ["I have two now"]);
    ann.run(&["send", "ben", "to both"]).ok();
    for device in [&ben, &second] {
        assert!(device.run(&["fetch"]).ok().texts().contains(&"to both".to_owned()));
    }
    second.run(&["send", "ann", "from the second"]).ok();
    assert_eq!(ann.run(&["fetch"]).ok().texts(), ["from the second"]);
    let copy = ben.run(&["fetch"]).ok();
    assert_eq!((copy.texts(), &copy.of("message")[0]["own"]), (vec!["from the second".to_owned()], &true.into()));
    // The second one is lost.
    let devices = second.run(&["devices"]).ok().of("row");
    let lost = devices.iter().find(|row| row["this"] == true).unwrap()["device"].as_str().unwrap().to_owned();
    ben.run(&["--yes", "devices", "--drop", &lost]).ok();
    for command in [&["send", "ann", "dropped"][..], &["fetch"]] {
        assert!(second.run(command).fails(1).out.contains("taken off the account"));
    }
    ann.run(&["send", "ben", "to one again"]).ok();
    let got = ben.run(&["fetch"]).ok();
    assert_eq!(got.texts(), ["to one again"]);
    assert!(got.of("alarm").is_empty(), "the list of the account stands: {}", got.out);
    second.run(&["fetch"]).fails(1);
}

#[test]
fn words_bring_an_account_to_a_new_home() {
    let place = Place::new();
    let (ann, ben) = (place.register("ann"), place.register("ben"));
    ann.run(&["send", "ben", "hello"]).ok();
    ben.run(&["fetch"]).ok();
    let number = ann.number("ben");
    let words = ben.plain(&["export"], b"").ok().out;
    assert_eq!(words.split_whitespace().count(), 24, "{words}");
    let fresh = place.login("ben");
    fresh.run_with(&["import"], "apple banana").fails(2);
    fresh.run_with(&["import"], &words).ok();
    fresh.run(&["send", "ann", "it is me, at a new machine"]).ok();
    let got = ann.run(&["fetch"]).ok();
    assert_eq!(got.texts(), ["it is me, at a new machine"]);
    assert!(got.of("alarm").is_empty(), "{}", got.out);
    assert_eq!(ann.number("ben"), number, "the same identity");
    ann.run(&["send", "ben", "welcome back"]).ok();
    assert_eq!(fresh.run(&["fetch"]).ok().texts(), ["welcome back"]);
}

#[test]
fn a_program_on_a_pipe_loses_no_line() {
    let place = Place::new();
    let (ann, ben) = (place.register("ann"), place.register("ben"));
    ann.run(&["send", "ben", "a session for both"]).ok();
    let mut pipe = ann.start(&["pipe"]);
    pipe.wait("ready", |event| event["kind"] == "ready");
    let reply = |pipe: &mut Running, label: &str| pipe.wait(label, |event| event["label"] == label);
    place.down();
    pipe.wait("that it is away", |event| event["kind"] == "reconnecting");
    // What is said meanwhile is done in its order, when the server is back.
    pipe.say(r#"{"do":"send","to":"ben","text":"one","label":"a"}"#);
    pipe.say(r#"{"do":"command","line":"/whoami","label":"b"}"#);
    pipe.say(r#"{"do":"send","to":"ben,nobody","text":"two","label":"c"}"#);
    place.up();
    assert_eq!(reply(&mut pipe, "a")["ok"], true);
    assert_eq!(reply(&mut pipe, "b")["ok"], true);
    assert_eq!(reply(&mut pipe, "c")["ok"], true);
    assert_eq!(reply(&mut pipe, "c")["code"], "no-session");
    pipe.say("{wrong");
    assert_eq!(pipe.wait("syntax", |event| event["event"] == "reply")["code"], "syntax");
    let ended = pipe.until_end().ok();
    assert_eq!(texts(&ended.events()), Vec::<String>::new());
    // Half a line, of a program that died, is not sent; and not passed over in silence.
    let ended = ann.run_with(&["pipe"], "/msg ben three\n/msg ben half of a").ok();
    let replies: Vec<bool> = ended.of("reply").iter().map(|reply| reply["ok"] == true).collect();
    assert_eq!(replies, [true, false]);
    assert_eq!(ben.run(&["fetch"]).ok().texts(), ["a session for both", "one", "two", "three"]);
}

//! kill -9 of `dsc` at every write to its store, by `strace`, which kills it as it enters a system call.
//!
//! Nothing is lost, nothing is shown twice, and no counter of a ratchet is ever used for two envelopes.

use std::collections::BTreeMap;

use crate::common::e2e::armour;
use crate::common::e2e::inner::Body;
use crate::evil::dsc::{BINARY, Ran, finish, texts};
use crate::evil::forge::{MultiParts, place_of};
use crate::evil::{Dsc, Stage, Way};

/// What changes files: SQLite's writes and syncs, the journal that it removes, and the renaming of small
/// files.
const WRITES: [&str; 7] = ["pwrite64", "write", "fdatasync", "fsync", "unlink", "rename", "ftruncate"];

/// More calls than one command makes.
const MANY: usize = 2000;

/// Set where the tests may not trace processes; without it, missing strace is a failure and not a pass.
const ALLOWED_WITHOUT: &str = "DOWNSTREAM_TESTS_WITHOUT_STRACE";

/// Whether processes can be traced here.
fn can_trace() -> bool {
    let mut command = std::process::Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=none", "true"]);
    let works = command.status().is_ok_and(|status| status.success());
    if !works {
        assert!(
            std::env::var_os(ALLOWED_WITHOUT).is_some(),
            "strace does not work here (Debian: apt install strace; containers: allow ptrace); \
             set {ALLOWED_WITHOUT}=1 to do without these tests"
        );
        eprintln!("NOT TESTED: kill -9 at every write; strace does not work here");
    }
    works
}

/// Runs `dsc`, killed as it enters the `n`th call of a system call; `None` if it made no `n` calls.
fn killed_at(dsc: &Dsc, call: &str, n: usize, arguments: &[&str]) -> Result<Ran, Ran> {
    let mut command = dsc.command_of("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")]);
    command.args(["-e", &format!("inject={call}:signal=SIGKILL:when={n}")]);
    command.arg(BINARY).arg("--json").args(arguments);
    let ran = finish(command, b"");
    match ran.code {
        137 => Ok(ran),
        _ => Err(ran),
    }
}

/// No ratchet key is used with one number for two different slots.
fn no_place_twice(s: &Stage, user: &str) {
    let mut seen: BTreeMap<([u8; 32], u32), Vec<u8>> = BTreeMap::new();
    for caught in s.sent_by(user) {
        let raw = armour::envelope(caught.body().unwrap()).unwrap();
        for (_, slot) in MultiParts::cut(&raw).slots {
            if let Some(before) = seen.insert(place_of(&slot), slot.clone()) {
                // The same envelope may go out twice: under one key of /post.
                assert_eq!(before, slot, "one place, two slots");
            }
        }
    }
    assert!(!seen.is_empty());
}

fn send_is_killed(calls: &[&str]) {
    if !can_trace() {
        return;
    }
    let s = Stage::new();
    let (alice, bob) = (s.dsc("alice"), s.dsc("bob"));
    alice.run(&["send", "bob", "hello"]).ok();
    bob.run(&["fetch"]).ok();
    bob.run(&["send", "alice", "hi"]).ok();
    alice.run(&["fetch"]).ok();
    let mut wanted = Vec::new();
    let mut kills = 0;
    for call in calls {
        for n in 1.. {
            assert!(n < MANY, "{call} never comes to an end");
            let text = format!("{call} {n}");
            let ended = killed_at(&alice, call, n, &["send", "bob", &text]);
            let done = ended.is_err();
            if let Err(ran) = ended {
                ran.ok();
            } else {
                kills += 1;
            }
            wanted.push((text, done));
            if done {
                break;
            }
        }
    }
    assert!(kills > 0, "nothing was killed");
    // The store opens, and what was committed goes out.
    alice.run(&["resend"]).ok();
    let shown = bob.run(&["fetch"]).ok();
    assert!(shown.unreadable().is_empty() && shown.of("missing").is_empty(), "{:?}", shown.unreadable());
    let texts = shown.texts();
    for (text, done) in &wanted {
        let times = texts.iter().filter(|shown| *shown == text).count();
        // Killed before its commit, a message was never said; said twice it is never.
        assert!(times == 1 || (times == 0 && !done), "{text}: {times} times");
    }
    // Order is kept.
    let order: Vec<usize> =
        texts.iter().map(|text| wanted.iter().position(|(wanted, _)| wanted == text).unwrap()).collect();
    assert!(order.is_sorted(), "{texts:?}");
    assert!(texts.len() > wanted.len() / 4, "{} of {}", texts.len(), wanted.len());
    no_place_twice(&s, "alice");
    assert_eq!(s.signals("bob", "alice"), 0, "no reset");
}

#[test]
fn send_killed_at_every_page() {
    send_is_killed(&WRITES[..1]);
}

#[test]
fn send_killed_at_every_other_write() {
    send_is_killed(&WRITES[1..]);
}

fn fetch_is_killed(calls: &[&str]) {
    if !can_trace() {
        return;
    }
    let s = Stage::new();
    let bob = s.dsc("bob");
    let mut alice = s.lab("alice", 2001);
    alice.say("bob", "first");
    bob.run(&["fetch"]).ok();
    bob.run(&["send", "alice", "hi"]).ok();
    let line = alice.event("* msg ");
    alice.text(&line);
    let (mut wanted, mut shown) = (Vec::new(), Vec::new());
    let mut kills = 0;
    for call in calls {
        for n in 1.. {
            assert!(n < MANY, "{call} never comes to an end");
            let text = format!("{call} {n}");
            let body = alice.seal("bob", Body::Text(text.clone()));
            alice.msg("bob", &body);
            wanted.push(text);
            let ended = killed_at(&bob, call, n, &["fetch"]);
            let done = ended.is_err();
            let ran = match ended {
                Ok(ran) => ran,
                Err(ran) => ran.ok(),
            };
            kills += usize::from(!done);
            // A line that was cut off by the kill is none.
            let whole = ran.out.rfind('\n').map_or("", |at| &ran.out[..at]);
            let events: Vec<_> = whole.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
            shown.extend(texts(&events));
            if done {
                break;
            }
        }
    }
    assert!(kills > 0, "nothing was killed");
    shown.extend(bob.run(&["fetch"]).ok().texts());
    // Twice is never; and whatever was committed before it could be shown stands in the history.
    for text in &wanted {
        let times = shown.iter().filter(|shown| *shown == text).count();
        assert!(times <= 1, "{text}: {times} times");
    }
    let page = bob.run(&["fetch", "alice", "--limit", "1000"]).ok();
    assert!(page.unreadable().is_empty(), "{:?}", page.unreadable());
    let history: Vec<String> = page.texts().into_iter().filter(|text| wanted.contains(text)).collect();
    assert_eq!(history, wanted, "every message, once, in order");
    // The session is whole.
    bob.run(&["send", "alice", "all read"]).ok();
    let line = alice.event("* msg ");
    assert_eq!(alice.text(&line), "all read");
    assert!(
        !s.evil.captured().iter().any(|c| c.way == Way::Up && c.user == "bob" && c.verb() == "/signal"),
        "no reset"
    );
    no_place_twice(&s, "bob");
}

#[test]
fn fetch_killed_at_every_page() {
    fetch_is_killed(&WRITES[..1]);
}

#[test]
fn fetch_killed_at_every_other_write() {
    fetch_is_killed(&WRITES[1..]);
}

#[test]
fn send_to_a_room_killed_at_every_sync() {
    if !can_trace() {
        return;
    }
    let s = Stage::new();
    let (alice, bob) = (s.dsc("alice"), s.dsc("bob"));
    alice.run(&["create", "#room"]).ok();
    alice.run(&["invite", "#room", "bob"]).ok();
    bob.run(&["join", "#room"]).ok();
    let (mut wanted, mut texts, mut kills) = (Vec::new(), Vec::new(), 0);
    for n in 1.. {
        assert!(n < MANY, "it never comes to an end");
        // Each time a new epoch: a new chain, and its link to be given before the message.
        alice.run(&[if n % 2 == 1 { "op" } else { "deop" }, "#room", "bob"]).ok();
        let text = format!("sync {n}");
        let ended = killed_at(&alice, "fsync", n, &["send", "#room", &text]);
        let done = ended.is_err();
        if let Err(ran) = ended {
            ran.ok();
        }
        kills += usize::from(!done);
        wanted.push((text, done));
        if done {
            break;
        }
        // What was committed goes out; with it left, each try would have more to do than the one before.
        alice.run(&["resend"]).ok();
        let shown = bob.run(&["fetch"]).ok();
        let waits = shown.of("notice").iter().any(|notice| notice["kind"] == "waiting");
        assert!(shown.unreadable().is_empty() && shown.of("missing").is_empty() && !waits, "{shown:?}");
        texts.extend(shown.texts());
    }
    assert!(kills > 0, "nothing was killed");
    texts.extend(bob.run(&["fetch"]).ok().texts());
    for (text, done) in &wanted {
        let times = texts.iter().filter(|shown| *shown == text).count();
        assert!(times == 1 || (times == 0 && !done), "{text}: {times} times");
    }
    assert!(texts.len() > wanted.len() / 4, "{} of {}", texts.len(), wanted.len());
    // No place in a chain twice, but for the same envelope.
    let mut seen = BTreeMap::new();
    for body in s.bodies("alice", "#room") {
        let raw = armour::envelope(&body).unwrap();
        if let Some(before) = seen.insert(raw[38..58].to_vec(), raw.clone()) {
            assert_eq!(before, raw, "one place, two envelopes");
        }
    }
}

//! What only one can win: the same thing asked for on several connections at the same time.
#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first thing that is wrong")]

mod support;

use std::collections::BTreeMap;

use support::{Client, Daemon, Home, Link};

/// Sends one line on each connection before any answer is read; how often each answer came, events left out.
fn all_at_once(clients: &mut [Client], line: impl Fn(usize) -> String) -> BTreeMap<String, usize> {
    for (n, client) in clients.iter_mut().enumerate() {
        client.say(&line(n));
    }
    let mut answers = BTreeMap::new();
    for client in clients {
        let answer = loop {
            let line = client.line().unwrap();
            if !line.starts_with("* ") {
                break line;
            }
        };
        let words: Vec<&str> = answer.split(' ').take(3).collect();
        let kind = if words[0] == "ERR" { words.join(" ") } else { "OK".to_owned() };
        *answers.entry(kind).or_insert(0) += 1;
    }
    answers
}

fn connect(daemon: &Daemon, count: usize) -> Vec<Client> {
    (0..count).map(|_| Client::connect(daemon.address())).collect()
}

fn register(daemon: &Daemon, count: usize) -> Vec<Client> {
    let mut clients = connect(daemon, count);
    for (n, client) in clients.iter_mut().enumerate() {
        client.ask(&format!("/register user{n} password-user"), "OK register user=<WORD>");
    }
    clients
}

#[test]
fn one_name_is_registered_once() {
    let home = Home::new("");
    let daemon = home.start();
    let answers = all_at_once(&mut connect(&daemon, 8), |_| "/register alice password-alice".into());
    assert_eq!(answers, [("OK".into(), 1), ("ERR register name-taken".into(), 7)].into());
}

#[test]
fn one_invitation_lets_one_in() {
    let home = Home::new("[accounts]\nregistration = \"invite\"\n");
    let daemon = home.start();
    let code = String::from_utf8(home.run(&["invite"]).stdout).unwrap();
    let code = code.trim();
    let answers = all_at_once(&mut connect(&daemon, 8), |n| format!("/register user{n} password-user {code}"));
    assert_eq!(answers, [("OK".into(), 1), ("ERR register registration-closed".into(), 7)].into());
}

#[test]
fn the_limit_of_sessions_holds_for_simultaneous_logins() {
    let home = Home::new("[accounts]\nsessions_per_account = 3\n");
    let daemon = home.start();
    let mut alice = Client::connect(daemon.address());
    alice.ask("/register alice password-alice", "OK register user=alice");
    let mut clients = connect(&daemon, 8);
    let answers = all_at_once(&mut clients, |_| "/login alice password-alice".into());
    assert_eq!(answers, [("OK".into(), 2), ("ERR login in-use".into(), 6)].into());
    // Every takeover succeeds, and the limit still holds.
    let mut others = connect(&daemon, 8);
    let answers = all_at_once(&mut others, |_| "/takeover alice password-alice".into());
    assert_eq!(answers, [("OK".into(), 8)].into());
    let mut living = 0;
    for client in std::iter::once(&mut alice).chain(&mut clients).chain(&mut others) {
        client.send(b"/whoami\n");
        loop {
            match client.line() {
                Ok(line) if line.starts_with("OK whoami") => {
                    living += usize::from(line.contains("user=alice"));
                    break;
                }
                Ok(line) => assert!(line.starts_with("* "), "{line}"),
                Err(_) => break,
            }
        }
    }
    assert_eq!(living, 3);
}

#[test]
fn one_room_is_created_once_and_has_one_owner() {
    let home = Home::new("");
    let daemon = home.start();
    let mut clients = register(&daemon, 8);
    let answers = all_at_once(&mut clients, |_| "/create #room".into());
    assert_eq!(answers, [("OK".into(), 1), ("ERR create name-taken".into(), 7)].into());
    let answers = all_at_once(&mut clients, |_| "/join #other".into());
    assert_eq!(answers, [("OK".into(), 8)].into());
    let mut last = Client::connect(daemon.address());
    last.ask("/login user0 password-user", "OK login user=user0 unread=0");
    last.say("/members #other");
    let members = last.until("OK members<REST>");
    let owners = members.iter().filter(|line| line.split(' ').nth(3) == Some("owner")).count();
    assert_eq!((members.len(), owners), (9, 1), "{members:?}");
}

#[test]
fn one_key_stores_one_message() {
    let home = Home::new("");
    let daemon = home.start();
    let mut bob = Client::connect(daemon.address());
    bob.ask("/register bob password-bob", "OK register user=bob");
    let mut alice = Client::connect(daemon.address());
    alice.ask("/register alice password-alice", "OK register user=alice");
    let mut clients = connect(&daemon, 6);
    for client in &mut clients {
        client.ask("/login alice password-alice", "OK login user=alice unread=0");
    }
    let answers = all_at_once(&mut clients, |_| "/post bob key-00001 only once".into());
    assert_eq!(answers, [("OK".into(), 6)].into());
    bob.expect("* msg <ID> <TIME> bob alice :only once");
    bob.ask("/fetch alice", "- msg <ID> <TIME> bob alice :only once");
    bob.expect("OK fetch count=1 more=no");
    let answers = all_at_once(&mut clients, |n| format!("/post bob key-00002 body {n}"));
    assert_eq!(answers, [("OK".into(), 1), ("ERR post conflict".into(), 5)].into());
}

#[test]
fn whoever_is_put_out_hears_nothing_said_later() {
    let home = Home::new("");
    let daemon = home.start();
    let mut clients = register(&daemon, 3);
    for (n, client) in clients.iter_mut().enumerate() {
        client.ask("/join #room", &format!("OK join room=#room members={} e2e=no last=0", n + 1));
    }
    let [owner, talker, out] = clients.as_mut_slice() else { panic!("three") };
    let talk: String = (0..300).map(|n| format!("/msg #room {n}\n")).collect();
    talker.send(talk.as_bytes());
    owner.say("/ban #room user2");
    let before = owner.until("OK ban<REST>");
    let heard_by_owner = before.iter().filter(|line| line.starts_with("* msg ")).count();
    // The ban is in the log of events exactly between two messages, the same for everybody.
    let heard = out.until("* ban #room user2 user0<REST>");
    let heard = heard.iter().filter(|line| line.starts_with("* msg ")).count();
    assert_eq!(heard, heard_by_owner);
    for _ in 0..300 {
        talker.until("OK msg id=<ID> time=<TIME> to=#room");
    }
    out.ask("/ping nothing more", "OK ping :nothing more");
}

#[test]
fn only_failed_logins_count_however_many_come_at_once() {
    let home = Home::new("[accounts]\nsessions_per_account = 50\n[limits]\nlogins_per_minute = 3\n");
    let daemon = home.start();
    let mut alice = Client::connect(daemon.address());
    alice.ask("/register alice password-alice", "OK register user=alice");
    let mut right = connect(&daemon, 20);
    let answers = all_at_once(&mut right, |_| "/login alice password-alice".into());
    assert_eq!(answers, [("OK".into(), 20)].into());
    // Guesses side by side are no more than guesses one after the other.
    let mut wrong = connect(&daemon, 20);
    let answers = all_at_once(&mut wrong, |n| format!("/login alice password-{n}"));
    assert_eq!(answers, [("ERR login auth-failed".into(), 3), ("ERR login rate-limited".into(), 17)].into());
}

#[test]
fn codes_that_are_none_cannot_be_tried_without_end() {
    let home = Home::new("[accounts]\nregistration = \"invite\"\n[limits]\nregistrations_per_hour = 3\n");
    let daemon = home.start();
    let answers = all_at_once(&mut connect(&daemon, 8), |n| format!("/register user{n} password-user no-such-code"));
    assert_eq!(
        answers,
        [("ERR register rate-limited".into(), 5), ("ERR register registration-closed".into(), 3)].into()
    );
    let mut mallory = Client::connect(daemon.address());
    mallory.ask(
        "/register mallory password-mallory no-such-code",
        "ERR register rate-limited retry-after=<SECONDS> :<TEXT>",
    );
}

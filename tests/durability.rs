//! What `OK` promises: after kill -9 everything acknowledged is there, once, and nothing half-done is; a
//! failing disk never makes a false `OK`.
#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first thing that is wrong")]

mod support;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rustix::process::Signal;
use support::client::wait_until;
use support::{Client, Daemon, Home, Link, Options};

/// Rounds of load and kill -9.
const ROUNDS: usize = 12;
/// Commands that a pipelining sender has in flight.
const WINDOW: usize = 16;

/// What a message log holds: body by id.
type Log = BTreeMap<u64, String>;

/// What the senders know.
#[derive(Default)]
struct Ledger {
    /// Target, id and body of every message that was acknowledged to its sender.
    acknowledged: Vec<(String, u64, String)>,
    /// Every body that was ever sent.
    sent: HashSet<String>,
    /// `/post` bodies that must be there exactly once, since the sender repeated them until an answer came.
    posted: HashSet<String>,
}

/// The value of ` key=` in a line.
fn value<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    line.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
}

fn login(address: SocketAddr, user: &str) -> Option<Client> {
    let mut client = Client::try_raw(address, &Options::default()).ok()?;
    client.line().ok()?;
    client.send(format!("/ack manual\n/login {user} password-{user}\n").as_bytes());
    loop {
        let line = client.line().ok()?;
        assert!(!line.starts_with("ERR "), "{line}");
        if line.starts_with("OK login ") {
            return Some(client);
        }
    }
}

/// The next reply, past events; `None` when the connection is gone.
fn reply(client: &mut Client) -> Option<String> {
    loop {
        let line = client.line().ok()?;
        if !line.starts_with("* ") {
            return Some(line);
        }
    }
}

/// Sends messages with [`WINDOW`] in flight until the daemon is gone.
fn pipeline(
    address: SocketAddr,
    user: &str,
    target: &str,
    round: usize,
    ledger: &Mutex<Ledger>,
    progress: &AtomicUsize,
) {
    let Some(mut client) = login(address, user) else { return };
    let mut in_flight = std::collections::VecDeque::new();
    for n in 0.. {
        while in_flight.len() < WINDOW {
            let body = format!("{user} {round} {n}.{} {}", in_flight.len(), "p".repeat(n % 700));
            ledger.lock().unwrap().sent.insert(body.clone());
            if client.try_send(format!("/msg {target} {body}\n").as_bytes()).is_err() {
                break;
            }
            in_flight.push_back(body);
        }
        let Some(body) = in_flight.pop_front() else { return };
        let Some(line) = reply(&mut client) else { return };
        assert!(line.starts_with("OK msg "), "{line}");
        let id = value(&line, "id").unwrap().parse().unwrap();
        ledger.lock().unwrap().acknowledged.push((target.to_owned(), id, body));
        progress.fetch_add(1, Ordering::Relaxed);
    }
}

/// Posts messages one by one; what was not answered in the last round comes first, with its old key.
fn post(
    address: SocketAddr,
    user: &str,
    target: &str,
    round: usize,
    pending: &Mutex<HashMap<String, (String, String)>>,
    ledger: &Mutex<Ledger>,
    progress: &AtomicUsize,
) {
    let Some(mut client) = login(address, user) else { return };
    for n in 0.. {
        let retried = pending.lock().unwrap().remove(user);
        let again = retried.is_some();
        let (key, body) =
            retried.unwrap_or_else(|| (format!("key-{user}-{round}-{n}"), format!("post {user} {round} {n}")));
        ledger.lock().unwrap().sent.insert(body.clone());
        pending.lock().unwrap().insert(user.to_owned(), (key.clone(), body.clone()));
        if client.try_send(format!("/post {target} {key} {body}\n").as_bytes()).is_err() {
            return;
        }
        let Some(line) = reply(&mut client) else { return };
        assert!(line.starts_with("OK post "), "{line}");
        assert!(again || value(&line, "dup") != Some("yes"), "a fresh key was known: {line}");
        let id = value(&line, "id").unwrap().parse().unwrap();
        pending.lock().unwrap().remove(user);
        let mut ledger = ledger.lock().unwrap();
        ledger.acknowledged.push((target.to_owned(), id, body.clone()));
        ledger.posted.insert(body);
        drop(ledger);
        progress.fetch_add(1, Ordering::Relaxed);
    }
}

/// The whole log of a conversation, checked to rise.
fn fetch_all(client: &mut Client, target: &str) -> Log {
    let mut log = Log::new();
    let mut after = 0;
    loop {
        client.say(&format!("/fetch {target} after={after} limit=1000"));
        let line = loop {
            let line = client.line().unwrap();
            let Some(row) = line.strip_prefix("- msg ") else {
                if line.starts_with("* ") {
                    continue;
                }
                break line;
            };
            let (head, body) = row.split_once(" :").unwrap();
            let id: u64 = head.split(' ').next().unwrap().parse().unwrap();
            assert!(id > after, "ids do not rise: {id} after {after}");
            after = id;
            assert!(log.insert(id, body.to_owned()).is_none());
        };
        assert!(line.starts_with("OK fetch "), "{line}");
        if value(&line, "more") == Some("no") {
            return log;
        }
    }
}

fn check(address: SocketAddr, ledger: &Ledger, lowest: &mut BTreeMap<String, u64>) {
    let mut reader = login(address, "reader").unwrap();
    let mut logs: BTreeMap<String, Log> = BTreeMap::new();
    for target in ["#load", "alice", "carol"] {
        logs.insert(target.to_owned(), fetch_all(&mut reader, target));
    }
    // Direct messages go to `reader`; the reader finds them under the sender's name.
    for (target, id, body) in &ledger.acknowledged {
        let place = if target == "reader" { body.split(' ').find(|w| *w != "post").unwrap() } else { target };
        assert_eq!(logs[place].get(id), Some(body), "acknowledged in {place} as {id}, and not there");
    }
    for (place, log) in &logs {
        for body in log.values() {
            assert!(ledger.sent.contains(body), "in {place} is something that nobody sent: {body}");
        }
        let mut bodies = HashMap::new();
        for body in log.values() {
            *bodies.entry(body.as_str()).or_insert(0) += 1;
        }
        let twice: Vec<_> = bodies.iter().filter(|(_, n)| **n > 1).collect();
        assert!(twice.is_empty(), "stored twice in {place}: {twice:?}");
        for body in ledger.posted.iter().filter(|body| log.values().any(|there| there == *body)) {
            assert_eq!(bodies[body.as_str()], 1, "{body}");
        }
        let last = log.keys().next_back().copied().unwrap_or(0);
        let before = lowest.insert(place.clone(), last).unwrap_or(0);
        assert!(last >= before, "{place} went back from {before} to {last}");
    }
}

fn prepare(daemon: &Daemon) {
    for user in ["reader", "alice", "bob", "carol", "dora"] {
        let mut client = Client::connect(daemon.address());
        client.ask(&format!("/register {user} password-{user}"), &format!("OK register user={user}"));
        client.ask("/join #load", "OK join room=#load ...");
    }
}

#[test]
fn kill_nine_under_load_loses_nothing_acknowledged() {
    let home = Home::new("");
    let mut daemon = home.start();
    prepare(&daemon);
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let pending = Arc::new(Mutex::new(HashMap::new()));
    let mut lowest = BTreeMap::new();
    for round in 0..ROUNDS {
        let address = daemon.address();
        let progress = Arc::new(AtomicUsize::new(0));
        let mut threads = Vec::new();
        for (user, target) in [("alice", "#load"), ("bob", "#load"), ("alice", "reader")] {
            let (ledger, progress) = (Arc::clone(&ledger), Arc::clone(&progress));
            // Two sessions of alice must not send the same bodies.
            let round = if target == "reader" { round + 1000 } else { round };
            threads.push(std::thread::spawn(move || pipeline(address, user, target, round, &ledger, &progress)));
        }
        for (user, target) in [("carol", "reader"), ("dora", "#load")] {
            let (ledger, progress, pending) = (Arc::clone(&ledger), Arc::clone(&progress), Arc::clone(&pending));
            threads.push(std::thread::spawn(move || post(address, user, target, round, &pending, &ledger, &progress)));
        }
        // Somebody who reads live meanwhile, so that fan-out is under way when the end comes.
        let reader = std::thread::spawn(move || {
            let mut last: BTreeMap<String, u64> = BTreeMap::new();
            let Some(mut client) = login(address, "reader") else { return last };
            while let Ok(line) = client.line() {
                let Some(row) = line.strip_prefix("* msg ") else { continue };
                let words: Vec<&str> = row.splitn(5, ' ').collect();
                let place = if words[2] == "reader" { words[3] } else { words[2] };
                let id = words[0].parse().unwrap();
                let before = last.insert(place.to_owned(), id).unwrap_or(0);
                assert!(id > before, "live ids of {place} do not rise: {id} after {before}");
            }
            last
        });
        // A different moment each round.
        let until = 40 + round * 37;
        wait_until("the load runs", || {
            progress.load(Ordering::Relaxed) >= until || threads.iter().all(|t| t.is_finished())
        });
        daemon.kill();
        for thread in threads {
            thread.join().unwrap();
        }
        let seen = reader.join().unwrap();
        daemon = home.start();
        check(daemon.address(), &ledger.lock().unwrap(), &mut lowest);
        // Whatever reached somebody else was stored before.
        for (place, id) in seen {
            assert!(lowest[&place] >= id, "{place}: {id} was heard, and is not there");
        }
    }
    let acknowledged = ledger.lock().unwrap().acknowledged.len();
    assert!(acknowledged >= ROUNDS * 40, "there was hardly any load: {acknowledged}");
    daemon.stop();
}

#[test]
fn accounts_rooms_and_markers_survive_as_acknowledged() {
    let home = Home::new("");
    let mut daemon = home.start();
    prepare(&daemon);
    for round in 0..4 {
        let address = daemon.address();
        let done = Arc::new(Mutex::new(Vec::new()));
        let threads: Vec<_> = (0..3)
            .map(|n| {
                let done = Arc::clone(&done);
                std::thread::spawn(move || {
                    for m in 0.. {
                        let name = format!("u{round}-{n}-{m}");
                        let Ok(mut client) = Client::try_raw(address, &Options::default()) else { return };
                        client.send(format!("/register {name} password-{name}\n/create #{name} :{name}\n").as_bytes());
                        for what in ["* hello ", "OK register ", "OK create "] {
                            match client.line() {
                                Ok(line) if line.starts_with("* hello") => {}
                                Ok(line) if line.starts_with(what) => done.lock().unwrap().push((name.clone(), what)),
                                Ok(line) => panic!("{line}"),
                                Err(_) => return,
                            }
                        }
                    }
                })
            })
            .collect();
        wait_until("some were made", || done.lock().unwrap().len() >= 8 + round);
        daemon.kill();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        daemon = home.start();
        for (name, what) in done.lock().unwrap().iter() {
            let mut client = Client::connect(daemon.address());
            client.ask(&format!("/login {name} password-{name}"), &format!("OK login user={name} unread=0"));
            if what.starts_with("OK create") {
                client.ask(&format!("/topic #{name}"), &format!("OK topic room=#{name} :{name}"));
            }
        }
    }
}

#[test]
fn an_orderly_end_answers_whole_lines_that_were_read() {
    const LINES: usize = 300;
    let home = Home::new("");
    let mut daemon = home.start();
    prepare(&daemon);
    let mut alice = login(daemon.address(), "alice").unwrap();
    let mut lines = String::new();
    for n in 0..LINES {
        lines.push_str(&format!("/msg@{n} #load {n}\n"));
    }
    // In one record of TLS with the first line that is answered, so the daemon has them all.
    alice.send(lines.as_bytes());
    let first = reply(&mut alice).unwrap();
    assert!(first.starts_with("OK msg@0 "), "{first}");
    daemon.signal(Signal::TERM);
    let (rest, ended) = alice.drain();
    let status = daemon.wait();
    assert_eq!(status.code(), Some(0), "{}", daemon.log());
    assert_eq!(ended, support::Ended::Cleanly);
    let bye = rest.iter().position(|line| line.starts_with("* bye shutdown")).expect("a bye");
    assert_eq!(bye + 1, rest.len(), "something follows the bye: {rest:?}");
    let answered: Vec<&String> = rest.iter().filter(|line| !line.starts_with("* ")).collect();
    for (n, line) in answered.iter().enumerate() {
        assert!(line.starts_with(&format!("OK msg@{} ", n + 1)), "{line}");
    }
    assert_eq!(answered.len() + 1, LINES, "the lines fitted into one read, and not all were answered");
    let daemon = home.start();
    let mut bob = login(daemon.address(), "bob").unwrap();
    let log = fetch_all(&mut bob, "#load");
    assert_eq!(log.len(), LINES);
    assert!(log.values().enumerate().all(|(n, body)| *body == n.to_string()));
}

#[test]
fn sigint_ends_in_an_orderly_way_too() {
    let home = Home::new("");
    let mut daemon = home.start();
    let mut alice = Client::connect(daemon.address());
    alice.ask("/register alice password-alice", "OK register user=alice");
    daemon.signal(Signal::INT);
    alice.expect("* bye shutdown<REST>");
    alice.expect_closed();
    assert_eq!(daemon.wait().code(), Some(0), "{}", daemon.log());
}

#[test]
fn a_second_signal_ends_at_once() {
    let home = Home::new("");
    let mut daemon = home.start();
    let mut slow = Client::connect(daemon.address());
    slow.ask("/register slow password-slow", "OK register user=slow");
    let mut loud = Client::connect(daemon.address());
    loud.ask("/register loud password-loud", "OK register user=loud");
    // Somebody who does not read keeps the orderly end waiting.
    slow.pause();
    let filler = "x".repeat(90_000);
    for _ in 0..120 {
        loud.ask(&format!("/msg slow {filler}"), "OK msg id=<ID> time=<TIME> to=slow peer=online");
    }
    daemon.signal(Signal::TERM);
    loud.expect("* bye shutdown<REST>");
    daemon.signal(Signal::TERM);
    let status = daemon.wait();
    // Where everything had been said before the second signal came, the end was an orderly one.
    assert!(matches!(status.code(), Some(0 | 1)), "{status}\n{}", daemon.log());
}

#[test]
fn a_full_disk_never_makes_a_false_ok() {
    const LIMIT_KIB: usize = 12 * 1024;
    let home = Home::new("");
    // Writes past the limit fail with EFBIG; the signal that comes with it is ignored.
    let mut daemon = home.start_under(&format!("trap '' XFSZ; ulimit -f {LIMIT_KIB}"));
    let mut alice = Client::connect(daemon.address());
    alice.ask("/register alice password-alice", "OK register user=alice");
    alice.ask("/join #log", "OK join room=#log members=1 e2e=no last=0");
    let filler = "f".repeat(60_000);
    let mut acknowledged = Log::new();
    let mut refused = 0;
    for n in 0..2000 {
        alice.say(&format!("/msg #log {n} {filler}"));
        let line = alice.line().unwrap();
        if line.starts_with("OK msg ") {
            acknowledged.insert(value(&line, "id").unwrap().parse().unwrap(), format!("{n} {filler}"));
        } else {
            assert!(line.starts_with("ERR msg internal "), "{line}");
            refused += 1;
            if refused == 20 {
                break;
            }
        }
    }
    assert!(refused > 0, "{LIMIT_KIB} KiB were never full");
    assert!(daemon.is_alive(), "the daemon ended");
    // What needs no disk still works, and what was acknowledged can still be read.
    alice.ask("/ping", "OK ping");
    alice.ask("/whoami", "OK whoami user=alice<REST>");
    assert_eq!(fetch_all(&mut alice, "#log"), acknowledged);
    assert!(daemon.log().to_lowercase().contains("err"), "nothing was logged:\n{}", daemon.log());
    daemon.kill();
    // With space again everything goes on.
    let daemon = home.start();
    let mut alice = login(daemon.address(), "alice").unwrap();
    assert_eq!(fetch_all(&mut alice, "#log"), acknowledged);
    let got = alice.ask("/msg #log space again", "OK msg id=<ID:id> time=<TIME> to=#log");
    let last = acknowledged.keys().next_back().unwrap();
    assert!(got["id"].parse::<u64>().unwrap() > *last);
}

#[test]
fn a_disk_that_is_full_for_a_while() {
    let home = Home::new("");
    let daemon = home.start_under("trap '' XFSZ; ulimit -S -f 8192");
    let mut alice = Client::connect(daemon.address());
    alice.ask("/register alice password-alice", "OK register user=alice");
    alice.ask("/join #log", "OK join room=#log members=1 e2e=no last=0");
    let filler = "f".repeat(60_000);
    let fill = |alice: &mut Client| -> bool {
        alice.say(&format!("/msg #log {filler}"));
        alice.line().unwrap().starts_with("OK msg ")
    };
    let mut stored = 0;
    while fill(&mut alice) {
        stored += 1;
        assert!(stored < 2000, "8 MiB were never full");
    }
    // The operator makes room; the daemon goes on by itself.
    let none = rustix::process::Rlimit { current: None, maximum: None };
    rustix::process::prlimit(Some(daemon.pid()), rustix::process::Resource::Fsize, none).unwrap();
    wait_until("it stores again", || fill(&mut alice));
    assert_eq!(fetch_all(&mut alice, "#log").len(), stored + 1);
}

#[test]
fn nothing_that_is_sealed_can_be_read_from_the_disk() {
    let home = Home::new("");
    let mut daemon = home.start();
    let mut alice = Client::connect(daemon.address());
    alice.ask("/register alice secret-of-the-password", "OK register user=alice");
    let token = alice.ask("/token", "OK token name=<WORD> token=token:<WORD:token><REST>")["token"].clone();
    alice.ask("/profile set name=secret-of-the-profile note=secret-of-the-note", "OK profile<REST>");
    alice.ask("/join #log", "OK join room=#log members=1 e2e=no last=0");
    alice.ask("/msg #log secret-of-the-body", "OK msg id=<ID> time=<TIME> to=#log");
    alice.ask("/post #log key-00001 secret-of-the-post", "OK post id=<ID> time=<TIME> to=#log");
    let hash = "4b384e8d7b368a836fb285f7c6b704c196fe1da5a19649c6d27ec0f92608eced";
    let begin = format!("/send-file #log secret-of-the-name 18 {hash}");
    let file = alice.ask(&begin, "OK send-file file=<ID:file> offset=0 chunk=65536")["file"].clone();
    alice.ask(&format!("/chunk {file} 0 c2VjcmV0LW9mLXRoZS1maWxl"), "OK chunk file=<ID> offset=18 done=yes <REST>");
    alice.ask("/passwd secret-of-the-password secret-of-the-second", "OK passwd");
    let mut read = 0;
    let mut search = |when: &str| {
        let (data, files) = (home.path("data"), home.path("data/files"));
        for file in std::fs::read_dir(data).unwrap().chain(std::fs::read_dir(files).unwrap()) {
            let path = file.unwrap().path();
            if path.is_dir() {
                continue;
            }
            let bytes = std::fs::read(&path).unwrap();
            read += bytes.len();
            for secret in ["secret-of-the", token.as_str()] {
                let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
                assert!(!found, "{secret} stands in {} {when}", path.display());
            }
        }
    };
    search("while it runs");
    daemon.kill();
    search("after a crash");
    home.start().stop();
    search("after an orderly end");
    assert!(read > 10_000, "hardly anything was searched");
    let daemon = home.start();
    let mut alice = Client::connect(daemon.address());
    alice.ask("/login alice secret-of-the-second", "OK login user=alice unread=0");
    alice.ask("/fetch #log limit=1", "- file <ID> <TIME> #log alice <REST> :secret-of-the-name");
}

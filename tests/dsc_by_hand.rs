//! The dialogue by hand: `openssl s_client` is fed with what `dsc seal` prints, and `dsc open` reads what it
//! received. No `dsc` here ever talks to the server.
#![cfg(all(feature = "daemon", feature = "client"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first thing that is wrong")]

mod support;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use support::process::Program;
use support::{Home, Link};

/// Somebody with a terminal for `openssl` and a home for `dsc`.
struct Person {
    name: &'static str,
    home: PathBuf,
    openssl: Program,
}

impl Person {
    /// Makes keys without a server, and registers by typing.
    fn new(name: &'static str, directory: &Path, address: SocketAddr) -> Person {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-quiet", "-connect", &address.to_string()]);
        let mut person = Person { name, home: directory.join(name), openssl: Program::start(command) };
        assert!(person.line().starts_with("* hello "));
        assert_eq!(person.ask(&format!("/register {name} password-{name}")), [format!("OK register user={name}")]);
        let made = person.dsc(&["--user", name, "init", "--no-passphrase"], "");
        assert!(made.status.success(), "{made:?}");
        let published = text(&person.dsc(&["keys", "publish", "--print"], ""));
        assert!(published.lines().count() >= 6 && published.lines().all(|line| line.starts_with("/keys put ")));
        for line in published.lines() {
            let answer = person.ask(line);
            assert!(answer[0].starts_with("OK keys device="), "{answer:?}");
        }
        assert_eq!(person.ask("/ack manual"), ["OK ack"]);
        person
    }

    fn dsc(&self, arguments: &[&str], input: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dsc"));
        command.arg("--home").arg(&self.home).args(arguments).env_clear();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // What a command does not read, it does not want.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }

    fn line(&mut self) -> String {
        self.openssl.line().unwrap_or_else(|e| panic!("{}: {e:?}\n{}", self.name, self.openssl.complaints()))
    }

    /// Types a line; everything up to the reply, which is the last.
    fn ask(&mut self, line: &str) -> Vec<String> {
        self.openssl.send(format!("{line}\n").as_bytes());
        let mut lines = Vec::new();
        loop {
            let line = self.line();
            let ended = line.starts_with("OK ") || line.starts_with("ERR ");
            lines.push(line);
            if ended {
                return lines;
            }
        }
    }

    /// Types what dsc says is missing and gives the answer to `dsc import`, until it says no more.
    fn seal(&mut self, arguments: &[&str], said: &str) -> String {
        for _ in 0..8 {
            let sealed = self.dsc(arguments, said);
            if sealed.status.success() {
                return text(&sealed);
            }
            assert_eq!(sealed.status.code(), Some(3), "{sealed:?}");
            let complaint = String::from_utf8(sealed.stderr).unwrap();
            let command = complaint.lines().map(str::trim).find(|line| line.starts_with('/'));
            let command = command.unwrap_or_else(|| panic!("no command to type in {complaint:?}")).to_owned();
            let rows = self.ask(&command).join("\n");
            let taken = self.dsc(&["import"], &rows);
            assert!(taken.status.success(), "{command}\n{rows}\n{taken:?}");
        }
        panic!("{} never has what it takes to seal", self.name);
    }
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn two_people_talk_sealed_with_nothing_but_openssl_and_the_filters() {
    let server = Home::new("");
    let daemon = server.start();
    let homes = tempfile::tempdir().unwrap();
    let mut alice = Person::new("alice", homes.path(), daemon.address());
    let mut bob = Person::new("bob", homes.path(), daemon.address());

    // The first message names the command that is missing, and goes out as a line to type.
    let line = alice.seal(&["seal", "--to", "bob"], "hi bob\n");
    assert!(line.starts_with("/msg bob e2e:") && line.lines().count() == 1, "{line}");
    assert!(alice.ask(line.trim_end())[0].starts_with("OK msg id=1 "));
    let received = bob.line();
    assert!(received.starts_with("* msg 1 ") && received.contains(" bob alice :e2e:"), "{received}");
    let opened = text(&bob.dsc(&["open"], &format!("{received}\n")));
    assert!(opened.starts_with("alice/") && opened.ends_with("> hi bob\n") && opened.lines().count() == 1, "{opened}");
    assert_eq!(text(&bob.dsc(&["open"], &format!("{received}\n"))), opened, "seen again, it reads the same");

    // The answer, among lines that hold nothing to open.
    let line = bob.seal(&["seal", "--to", "alice"], "hello\nin two lines");
    assert!(bob.ask(line.trim_end())[0].starts_with("OK msg id=2 "));
    let received = alice.line();
    let mixed = format!("* online bob\n{received}\nalice/3f2a> not from a server \x1b[31m\n");
    let opened = text(&alice.dsc(&["open"], &mixed));
    let lines: Vec<&str> = opened.lines().collect();
    assert_eq!(lines[0], "* online bob");
    assert!(lines[1].starts_with("bob/") && lines[1].ends_with("> hello⏎in two lines"), "{opened}");
    assert_eq!(lines[2], "? alice/3f2a> not from a server \\u{1b}[31m");

    // A changed envelope is no text, and the exit code says so.
    let line = bob.seal(&["seal", "--to", "alice"], "again");
    bob.ask(line.trim_end());
    let received = alice.line();
    let (front, body) = received.rsplit_once("e2e:").unwrap();
    let changed: String = body
        .chars()
        .rev()
        .enumerate()
        .map(|(i, c)| if i == 40 { if c == 'A' { 'B' } else { 'A' } } else { c })
        .collect();
    let changed: String = changed.chars().rev().collect();
    let refused = alice.dsc(&["open"], &format!("{front}e2e:{changed}\n"));
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(!String::from_utf8_lossy(&refused.stdout).contains("again"), "{refused:?}");
    let opened = text(&alice.dsc(&["open"], &format!("{received}\n")));
    assert!(opened.ends_with("> again\n"), "nothing was spoilt by the changed one: {opened}");
}

#[test]
fn a_filter_says_what_is_missing_and_inspect_shows_no_keys() {
    let server = Home::new("");
    let daemon = server.start();
    let homes = tempfile::tempdir().unwrap();
    let mut alice = Person::new("alice", homes.path(), daemon.address());
    let bob = Person::new("bob", homes.path(), daemon.address());
    let missing = alice.dsc(&["seal", "--to", "bob"], "hi");
    assert_eq!(missing.status.code(), Some(3));
    assert!(missing.stdout.is_empty());
    assert!(String::from_utf8_lossy(&missing.stderr).contains("/keys get bob"), "{missing:?}");
    let line = alice.seal(&["seal", "--to", "bob"], "hi");
    let seen = text(&bob.dsc(&["inspect"], &line));
    assert!(seen.contains("slot") && !seen.contains("hi"), "{seen}");
    let raw = alice.dsc(&["seal", "--to", "bob", "--raw"], "hi");
    assert!(!text(&raw).contains("e2e:"));
}

#[test]
fn a_file_is_sent_with_nothing_but_openssl_and_what_dsc_prints() {
    let server = Home::new("");
    let daemon = server.start();
    let homes = tempfile::tempdir().unwrap();
    let mut alice = Person::new("alice", homes.path(), daemon.address());
    let mut bob = Person::new("bob", homes.path(), daemon.address());
    let path = homes.path().join("photo.jpg");
    let photo: Vec<u8> = (0..100_000_u32).map(|at| (at / 3) as u8).collect();
    std::fs::write(&path, &photo).unwrap();
    let path = path.to_str().unwrap();

    let opening = text(&alice.dsc(&["encode", path, "bob"], ""));
    assert!(opening.starts_with("/send-file bob sealed 100520 ") && opening.lines().count() == 1, "{opening}");
    let answer = alice.ask(opening.trim_end());
    let file = answer[0].split(' ').find_map(|word| word.strip_prefix("file=")).unwrap().to_owned();
    // Nothing is printed before everything can be.
    let lines = alice.seal(&["encode", path, "bob", "--file", &file], "");
    let lines: Vec<&str> = lines.lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(alice.ask(lines[0])[0].starts_with("OK chunk file="));
    // After an interruption only the rest.
    let rest = text(&alice.dsc(&["encode", path, "bob", "--file", &file, "--offset", "65536"], ""));
    let rest: Vec<&str> = rest.lines().collect();
    assert_eq!((rest.len(), rest[0]), (2, lines[1]));
    assert!(alice.ask(rest[0])[0].contains(" done=yes id=1"));
    assert!(alice.ask(rest[1])[0].starts_with("OK post id=2 "));
    assert!(alice.ask(lines[2])[0].starts_with("ERR post conflict id=2"), "typed again, it is there once");

    assert!(bob.line().ends_with(" :sealed"));
    let received = bob.line();
    let opened = text(&bob.dsc(&["open"], &format!("{received}\n")));
    assert!(opened.contains("photo.jpg (100.00 kB, image/jpeg)"), "{opened}");
    let kept = text(&alice.dsc(&["resume", "--list"], ""));
    let id = kept.split(' ').next().unwrap();
    text(&alice.dsc(&["resume", "--drop", id], ""));
    assert_eq!(text(&alice.dsc(&["resume", "--list"], "")), "");

    // In clear it takes no keys, and nobody has to open anything.
    let opening = text(&alice.dsc(&["encode", path, "bob", "--plain"], ""));
    let answer = alice.ask(opening.trim_end());
    let file = answer[0].split(' ').find_map(|word| word.strip_prefix("file=")).unwrap().to_owned();
    for line in text(&alice.dsc(&["encode", path, "bob", "--plain", "--file", &file], "")).lines() {
        assert!(alice.ask(line)[0].starts_with("OK chunk "));
    }
    assert!(bob.line().ends_with(" :photo.jpg"));
    let rows = bob.ask(&format!("/get-file {file} length=100000"));
    assert!(rows.len() == 3 && rows[2].ends_with(" size=100000 more=no"), "{}", rows[2]);
}

//! The basic dialogue through the programs that people really type into. They must be installed:
//! a test that is left out proves nothing.
#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first thing that is wrong")]

mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use support::process::Program;
use support::{Client, Home, Link};

fn basic() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialogues/basic.txt")
}

fn openssl(address: SocketAddr) -> Program {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-quiet", "-connect", &address.to_string()]);
    Program::start(command)
}

fn ncat(address: SocketAddr) -> Program {
    let mut command = Command::new("ncat");
    command.args(["--ssl", &address.ip().to_string(), &address.port().to_string()]);
    Program::start(command)
}

#[test]
fn openssl_s_client_speaks_the_basic_dialogue() {
    support::dialogue::run_through(&basic(), &|address, _| Box::new(openssl(address)));
}

#[test]
fn ncat_speaks_the_basic_dialogue() {
    support::dialogue::run_through(&basic(), &|address, _| Box::new(ncat(address)));
}

/// `printf '…' | ncat --ssl HOST PORT`: the end of its input is a bare FIN, and every answer still comes.
#[test]
fn a_script_piped_into_ncat_gets_every_answer() {
    let home = Home::new("");
    let daemon = home.start();
    let mut bob = Client::connect(daemon.address());
    bob.ask("/register bob password-bob", "OK register user=bob");
    let mut script = ncat(daemon.address());
    script.send(b"/register alice password-alice\n/msg bob one\n/msg bob two\n/whoami\n");
    script.half_close();
    let mut lines = Vec::new();
    while let Ok(line) = script.line() {
        lines.push(line);
    }
    let begins = ["* hello ", "OK register ", "OK msg ", "OK msg ", "OK whoami user=alice"];
    assert_eq!(lines.len(), begins.len(), "{lines:#?}\n{}", script.complaints());
    for (line, begin) in lines.iter().zip(begins) {
        assert!(line.starts_with(begin), "{line:?} should begin with {begin:?}");
    }
    bob.expect("* msg <ID> <TIME> bob alice :one");
    bob.expect("* msg <ID> <TIME> bob alice :two");
}

/// The two programs with each other.
#[test]
fn openssl_and_ncat_talk() {
    let home = Home::new("");
    let daemon = home.start();
    let mut alice = openssl(daemon.address());
    let mut bob = ncat(daemon.address());
    let said = |who: &mut Program, line: &str, answer: &str| {
        if !line.is_empty() {
            who.send(format!("{line}\n").as_bytes());
        }
        let got = who.line();
        let fits = got.as_ref().is_ok_and(|got| got.starts_with(answer));
        assert!(fits, "{line:?}: expected {answer:?}, got {got:?}\n{}", who.complaints());
    };
    said(&mut alice, "", "* hello downstream/1 ");
    said(&mut bob, "", "* hello downstream/1 ");
    said(&mut alice, "/register alice password-alice", "OK register user=alice");
    said(&mut bob, "/register bob password-bob", "OK register user=bob");
    said(&mut alice, "/join #lobby", "OK join room=#lobby");
    said(&mut bob, "/join #lobby", "OK join room=#lobby");
    said(&mut alice, "", "* join #lobby bob");
    said(&mut bob, "hello from ncat", "OK msg id=");
    said(&mut alice, "", "* msg ");
    // Typed with a carriage return, as some terminals do.
    said(&mut alice, "hello from openssl\r", "OK msg id=");
    said(&mut bob, "", "* msg ");
    said(&mut alice, "/quit", "OK quit");
    assert!(alice.line().is_err());
}

/// `ncat` can choose the address that it comes from, which the tests' own client cannot.
#[test]
fn a_banned_address_is_turned_away_also_after_a_restart() {
    let home = Home::new("");
    std::fs::write(home.path("root.pw"), "password-root\n").unwrap();
    for arguments in [&["user", "add", "root", "--password-file", "root.pw"][..], &["user", "admin", "root"]] {
        assert!(home.run(arguments).status.success());
    }
    let mut daemon = home.start();
    let from = |source: &str, address: SocketAddr| {
        let mut command = Command::new("ncat");
        command.args(["--ssl", "-s", source, &address.ip().to_string(), &address.port().to_string()]);
        Program::start(command).line()
    };
    assert!(from("127.0.0.3", daemon.address()).unwrap().starts_with("* hello "));
    let mut root = Client::connect(daemon.address());
    root.ask("/login root password-root", "OK login user=root unread=0");
    root.ask("/admin ban 127.0.0.3", "OK admin<REST>");
    root.ask("/admin ban 127.0.8.0/24", "OK admin<REST>");
    for (source, banned) in [("127.0.0.3", true), ("127.0.8.200", true), ("127.0.0.4", false), ("127.0.9.1", false)] {
        let answer = from(source, daemon.address());
        let served = answer.as_ref().is_ok_and(|line| line.starts_with("* hello "));
        assert_eq!(served, !banned, "{source}: {answer:?}");
    }
    daemon.stop();
    let daemon = home.start();
    assert!(from("127.0.0.3", daemon.address()).is_err());
    let mut root = Client::connect(daemon.address());
    root.ask("/login root password-root", "OK login user=root unread=0");
    root.ask("/admin unban 127.0.0.3", "OK admin<REST>");
    assert!(from("127.0.0.3", daemon.address()).unwrap().starts_with("* hello "));
}

//! What only shows when much comes together in few turns of the loop: a full store, lines without a pause
//! between them.
#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first thing that is wrong")]

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use support::{Client, Home, Link};

#[test]
fn lines_that_wait_for_a_full_store_are_not_forgotten() {
    // More messages than the store takes at once, on connections whose last bytes have been read.
    const CLIENTS: usize = 150;
    const LINES: usize = 150;
    let home = Home::new("");
    let daemon = home.start();
    let mut alice = Client::connect(daemon.address());
    alice.ask("/register alice password-alice", "OK register user=alice");
    drop(alice);
    let mut writers: Vec<Client> = (0..CLIENTS)
        .map(|n| {
            let mut writer = Client::connect(daemon.address());
            writer.ask(&format!("/register writer{n} password-writer"), "OK register<REST>");
            writer
        })
        .collect();
    let lines = "/msg alice x\n".repeat(LINES);
    for writer in &mut writers {
        writer.send(lines.as_bytes());
        writer.half_close();
    }
    for writer in &mut writers {
        for _ in 0..LINES {
            writer.expect("OK msg id=<ID> time=<TIME> to=alice peer=offline");
        }
        writer.expect_closed();
    }
}

#[test]
fn lines_without_a_pause_are_not_one_long_line() {
    let home = Home::new("[limits]\nline_seconds = 1\n");
    let daemon = home.start();
    let mut alice = Client::connect(daemon.address());
    alice.ask("/register alice password-alice", "OK register user=alice");
    // Every line is finished at once, but none without the beginning of the next.
    let begun = Instant::now();
    let mut sent = 0;
    alice.send(b"/ping");
    while begun.elapsed() < Duration::from_secs(3) {
        alice.send(b" x\n/ping");
        alice.expect("OK ping :x");
        sent += 1;
    }
    alice.send(b"\n");
    alice.expect("OK ping");
    assert!(sent > 0);
}

#[test]
fn a_large_audience_waits_for_a_commit_and_no_longer() {
    // So many that what they get may wait for the commit that is under way. There is nearly always one: others write
    // without a pause, a little at a time.
    const MEMBERS: usize = 40;
    const ROUNDS: usize = 100;
    const BUSY: usize = 3;
    let home = Home::new("[limits]\nmessages_per_second = 0\n");
    let daemon = home.start();
    let register = |name: &str| {
        let mut client = Client::connect(daemon.address());
        client.ask(&format!("/register {name} password-{name}"), &format!("OK register user={name}"));
        client
    };
    let mut alice = register("alice");
    drop(register("receiver"));
    alice.ask("/join #hall", "OK join room=#hall <REST>");
    let mut members: Vec<Client> = Vec::new();
    for n in 0..MEMBERS {
        let mut member = register(&format!("member{n}"));
        member.ask("/join #hall", "OK join room=#hall <REST>");
        for other in members.iter_mut().chain([&mut alice]) {
            other.expect(&format!("* join #hall member{n}"));
        }
        members.push(member);
    }
    let busy: Vec<Client> = (0..BUSY).map(|n| register(&format!("busy{n}"))).collect();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _over = Ends(&over);
        for mut writer in busy {
            let over = &over;
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    writer.ask("/msg receiver x", "OK msg id=<ID> time=<TIME> to=receiver peer=offline");
                }
            });
        }
        for round in 1..=ROUNDS {
            // The next is sent when all have this one, so nothing that follows can bring it along.
            alice.ask(&format!("/msg #hall {round}"), "OK msg id=<ID> time=<TIME> to=#hall");
            for member in &mut members {
                member.expect(&format!("* msg {round} <TIME> #hall alice :{round}"));
            }
        }
    });
}

/// Lets the others stop, also where something is wrong.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

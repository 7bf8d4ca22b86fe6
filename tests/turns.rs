//! What only shows when much comes together in few turns of the loop: a full store, lines without a pause
//! between them.
#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first thing that is wrong")]

mod support;

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

//! Files against the real daemon: many at once, slow readers, floods; memory stays bounded and nobody else waits.
#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first thing that is wrong")]

mod support;

use base64ct::{Base64, Encoding as _};
use downstream::commands::CHUNKS_MAX;
use downstream::ops::Sha256;
use downstream::protocol::file::{CHUNK_MAX, GET_MAX};
use support::{Client, Daemon, Home, Link as _, noise};

/// What the daemon may gain over transfers beside the chunks that it may hold: copies of them on the way, what is
/// read at a time, the database's cache, and room for the allocator.
const GAIN_KIB: u64 = 16 * 1024;
/// What a connection may have in its buffers: a line that waits, one that is read, TLS.
const CONNECTION_KIB: u64 = 384;

fn register(daemon: &Daemon, name: &str) -> Client {
    let mut client = Client::connect(daemon.address());
    client.ask(&format!("/register {name} password-{name}"), &format!("OK register user={name}"));
    client
}

/// Announces a file to bob; its number.
fn announce(client: &mut Client, bytes: &[u8]) -> String {
    let (size, hash) = (bytes.len(), Sha256::of(bytes).to_hex());
    let line = format!("/send-file bob noise {size} {hash}");
    client.ask(&line, "OK send-file file=<ID:file> offset=0 chunk=65536")["file"].clone()
}

/// The lines that send a file in pieces of so many bytes.
fn chunks(file: &str, bytes: &[u8], piece: usize) -> String {
    let line = |(n, data): (usize, &[u8])| format!("/chunk {file} {} {}\n", n * piece, Base64::encode_string(data));
    bytes.chunks(piece).enumerate().map(line).collect()
}

/// The answers to them, in their order.
fn answered(client: &mut Client, file: &str, bytes: &[u8], piece: usize) {
    let size = bytes.len();
    for next in (piece..size).step_by(piece) {
        client.expect(&format!("OK chunk file={file} offset={next}"));
    }
    client.expect(&format!("OK chunk file={file} offset={size} done=yes id=<ID> time=<TIME>"));
}

/// Reads a piece as it comes.
fn piece(client: &mut Client, file: &str) -> Vec<u8> {
    let lines = client.until("OK get-file <REST>");
    let row = |line: &String| {
        let data = line.strip_prefix(&format!("- chunk {file} "))?.split_once(' ')?.1;
        Some(Base64::decode_vec(data).unwrap())
    };
    lines.iter().filter_map(row).flatten().collect()
}

/// Somebody who talks to themselves while others transfer: each word is answered, and nothing else comes.
fn talk(client: &mut Client, words: usize) {
    for word in 0..words {
        client.ask(&format!("/msg talker {word}"), "OK msg <REST>");
    }
}

#[test]
fn many_uploads_at_once_are_held_within_the_bound() {
    const SENDERS: usize = 16;
    const BYTES: usize = 1 << 20;
    let home = Home::new("");
    let daemon = home.start();
    let mut talker = register(&daemon, "talker");
    let mut bob = register(&daemon, "bob");
    let mut senders: Vec<Client> = (0..SENDERS).map(|n| register(&daemon, &format!("sender{n}"))).collect();
    let before = daemon.memory_kib("VmRSS");
    std::thread::scope(|scope| {
        for (n, client) in senders.iter_mut().enumerate() {
            scope.spawn(move || {
                // All of it at once: what the daemon does not take stays in the network.
                let bytes = noise(n as u64, BYTES + n);
                let file = announce(client, &bytes);
                client.send(chunks(&file, &bytes, CHUNK_MAX).as_bytes());
                answered(client, &file, &bytes, CHUNK_MAX);
            });
        }
        scope.spawn(|| talk(&mut talker, 200));
    });
    let gain = daemon.memory_kib("VmHWM").saturating_sub(before);
    let bound = GAIN_KIB + CHUNKS_MAX as u64 / 1024 + SENDERS as u64 * CONNECTION_KIB;
    assert!(gain < bound, "{SENDERS} uploads cost {gain} KiB, not {bound}");
    // Each is there, whole.
    let event = "* file <ID> <TIME> bob <WORD:sender> file=<ID:file> size=<NUM> sha256=<HEX64:hash> :noise";
    let told: Vec<_> = (0..SENDERS).map(|_| bob.expect(event)).collect();
    for file in told {
        let mut got = Vec::new();
        for from in [0, GET_MAX] {
            bob.say(&format!("/get-file {} offset={from} length={GET_MAX}", file["file"]));
            got.extend_from_slice(&piece(&mut bob, &file["file"]));
        }
        let n: usize = file["sender"].strip_prefix("sender").unwrap().parse().unwrap();
        assert!(got == noise(n as u64, BYTES + n), "{} sent other bytes", file["sender"]);
        assert_eq!(file["hash"], Sha256::of(&got).to_hex());
    }
}

#[test]
fn one_upload_costs_less_than_sixteen_mebibytes() {
    const BYTES: usize = 16 << 20;
    let home = Home::new("");
    let daemon = home.start();
    let mut alice = register(&daemon, "alice");
    drop(register(&daemon, "bob"));
    let bytes = noise(7, BYTES);
    let before = daemon.memory_kib("VmRSS");
    let file = announce(&mut alice, &bytes);
    alice.send(chunks(&file, &bytes, CHUNK_MAX).as_bytes());
    answered(&mut alice, &file, &bytes, CHUNK_MAX);
    let gain = daemon.memory_kib("VmHWM").saturating_sub(before);
    assert!(gain < 16 * 1024, "{gain} KiB");
}

#[test]
fn chunks_whose_answers_nobody_reads_wait_in_the_network() {
    const BYTES: usize = 30_000;
    let home = Home::new("");
    let daemon = home.start();
    let mut talker = register(&daemon, "talker");
    let mut alice = register(&daemon, "alice");
    drop(register(&daemon, "bob"));
    let bytes = noise(3, BYTES);
    let file = announce(&mut alice, &bytes);
    let before = daemon.memory_kib("VmRSS");
    alice.pause();
    let gate = alice.gate();
    let lines = chunks(&file, &bytes, 1);
    std::thread::scope(|scope| {
        let alice = &mut alice;
        let sender = scope.spawn(move || alice.send(lines.as_bytes()));
        talk(&mut talker, 100);
        gate.set(false);
        sender.join().unwrap();
    });
    answered(&mut alice, &file, &bytes, 1);
    let gain = daemon.memory_kib("VmHWM").saturating_sub(before);
    assert!(gain < GAIN_KIB, "a flood of small chunks cost {gain} KiB");
}

#[test]
fn readers_that_take_nothing_hold_one_piece_each_and_miss_nothing() {
    const READERS: u64 = 4;
    // Far more than the kernels buffer.
    const PIECES: usize = 16;
    let home = Home::new("");
    let daemon = home.start();
    let mut talker = register(&daemon, "talker");
    let mut bob = register(&daemon, "bob");
    let bytes = noise(5, GET_MAX as usize);
    let file = announce(&mut bob, &bytes);
    bob.send(chunks(&file, &bytes, CHUNK_MAX).as_bytes());
    answered(&mut bob, &file, &bytes, CHUNK_MAX);
    let mut readers: Vec<Client> = (0..READERS).map(|_| Client::connect(daemon.address())).collect();
    for reader in &mut readers {
        reader.say("/login bob password-bob");
        reader.until("OK login <REST>");
    }
    let before = daemon.memory_kib("VmRSS");
    for reader in &mut readers {
        reader.pause();
        for _ in 0..PIECES {
            reader.say(&format!("/get-file {file} length={GET_MAX}"));
        }
    }
    talk(&mut talker, 200);
    let gain = daemon.memory_kib("VmHWM").saturating_sub(before);
    // A piece in base64, and what the connection has.
    let bound = GAIN_KIB + READERS * (1400 + CONNECTION_KIB);
    assert!(gain < bound, "{READERS} readers cost {gain} KiB, not {bound}");
    let reader = &mut readers[0];
    reader.resume();
    for n in 0..PIECES {
        assert!(piece(reader, &file) == bytes, "piece {n}");
    }
    talk(&mut talker, 1);
}

#[test]
fn a_disk_without_room_is_not_logged_with_each_chunk() {
    const CHUNKS: usize = 100;
    let home = Home::new("");
    // As under a quota: the disk itself has room.
    let daemon = home.start_under("trap '' XFSZ; ulimit -S -f 1024");
    let mut alice = register(&daemon, "alice");
    drop(register(&daemon, "bob"));
    let bytes = noise(9, 2 << 20);
    let file = announce(&mut alice, &bytes);
    alice.send(chunks(&file, &bytes[..1 << 19], CHUNK_MAX).as_bytes());
    (1..=8).for_each(|n| drop(alice.expect(&format!("OK chunk file={file} offset={}", n * CHUNK_MAX))));
    let rlimit = rustix::process::Rlimit { current: Some(1 << 19), maximum: None };
    rustix::process::prlimit(Some(daemon.pid()), rustix::process::Resource::Fsize, rlimit).unwrap();
    let data = Base64::encode_string(&bytes[1 << 19..][..CHUNK_MAX]);
    for _ in 0..CHUNKS {
        alice.ask(&format!("/chunk {file} {} {data}", 1 << 19), "ERR chunk busy retry-after=60 :<TEXT>");
    }
    let said = daemon.log().matches("an upload waits").count();
    assert!((1..CHUNKS / 4).contains(&said), "said {said} times of {CHUNKS}");
}

//! Files as they are got: the real `dsc`, the real daemon, kills, full names and those who lie.
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
#[allow(dead_code, reason = "people who send use the rest")]
mod place;
mod support;

use std::collections::BTreeMap;
use std::path::Path;

use dsc::{Dsc, Ran};
use place::{Place, random};
use rustix::process::{Signal, kill_process};
use serde_json::Value;
use support::client::wait_until;

/// Long enough for several pieces on their way, short enough for a slow build.
const LONG: usize = 3 << 20;

/// Sends a file; the number of its message.
fn send(from: &Dsc, to: &str, name: &str, bytes: &[u8], plain: bool) -> u64 {
    std::fs::write(from.path(name), bytes).unwrap();
    let plain: &[&str] = if plain { &["--plain"] } else { &[] };
    let ran = from.run(&[&["send-file", to, name], plain].concat()).ok();
    ran.of("file-sent")[0]["id"].as_u64().unwrap()
}

/// The files of a folder by name.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    entries.map(|path| (name(&path), std::fs::read(&path).unwrap())).collect()
}

fn named(bytes: &[(&str, &[u8])]) -> BTreeMap<String, Vec<u8>> {
    bytes.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn paths(ran: &Ran) -> Vec<String> {
    ran.of("file-received").iter().map(|event| event["path"].as_str().unwrap().to_owned()).collect()
}

/// What of a download is there when the client is killed.
const PART: usize = 500_000;

/// Gets a file, and dies with a part of it there.
fn kill_in_download(place: &Place, dsc: &Dsc, wanted: &str) {
    place.starve_after(2 << 20);
    let running = dsc.start(&["get-file", wanted]);
    place.wait_starved();
    let is_part = |(name, bytes): (&String, &Vec<u8>)| name.ends_with(".part") && bytes.len() > PART;
    let folder = dsc.path("downloads");
    wait_until("a part of it is there", || folder.is_dir() && files(&folder).iter().any(is_part));
    kill_process(running.pid(), Signal::KILL).unwrap();
    running.until_end().fails(137);
    place.open();
}

/// What it says that it ends with.
fn error(ran: &Ran) -> String {
    ran.of("error").iter().map(|event| format!("{} {}", event["message"], event["hint"])).collect()
}

#[test]
fn files_arrive_byte_for_byte_and_overwrite_nothing() {
    let place = Place::new();
    let (ann, ben) = (place.register("ann"), place.register("ben"));
    let long = random(1, LONG);
    let photo = [&[0xff, 0xd8, 0xff, 0xe0][..], &random(2, 99_996)].concat();
    for (name, bytes, plain) in [
        ("film.mkv", &long[..], false),
        ("photo.jpg", &photo, false),
        ("empty", b"", false),
        ("clear.txt", b"hello", true),
    ] {
        let id = send(&ann, "ben", name, bytes, plain);
        ben.run(&["fetch"]).ok();
        let ran = ben.run(&["get-file", &format!("ann/{id}")]).ok();
        let received = &ran.of("file-received")[0];
        assert_eq!(
            (received["size"].as_u64(), received["encrypted"].as_bool()),
            (Some(bytes.len() as u64), Some(!plain))
        );
        assert_eq!(received["id"].as_u64(), Some(id));
    }
    let rows = ben.run(&["files", "ann"]).ok().of("row");
    let listed: Vec<_> =
        rows.iter().map(|row| (row["name"].as_str().unwrap(), row["size"].as_u64().unwrap())).collect();
    assert_eq!(listed, [("film.mkv", LONG as u64), ("photo.jpg", 100_000), ("empty", 0), ("clear.txt", 5)]);
    // Where nothing says otherwise: beside where it was called.
    let all = [("film.mkv", &long[..]), ("photo.jpg", &photo), ("empty", b""), ("clear.txt", b"hello")];
    assert_eq!(files(&ben.path("downloads")), named(&all));
    // By number, several at once, and into what the settings name.
    std::fs::write(ben.home().join("dsc.toml"), {
        let settings = std::fs::read_to_string(ben.home().join("dsc.toml")).unwrap();
        format!("downloads = \"saved/here\"\n{settings}")
    })
    .unwrap();
    let numbers: Vec<String> = rows.iter().map(|row| row["file"].to_string()).collect();
    let arguments: Vec<&str> = std::iter::once("get-file").chain(numbers.iter().map(String::as_str)).collect();
    assert_eq!(paths(&ben.run(&arguments).ok()).len(), 4);
    let folder = ben.home().join("saved/here");
    assert_eq!(files(&folder), named(&all));
    // Again, beside a link that leads out of the folder.
    std::os::unix::fs::symlink(ben.path("outside"), folder.join("photo (1).jpg")).unwrap();
    assert_eq!(paths(&ben.run(&["get-file", &numbers[1]]).ok()), [text(&folder.join("photo (2).jpg"))]);
    assert!(!ben.path("outside").exists());
    std::fs::remove_file(folder.join("photo (1).jpg")).unwrap();
    assert_eq!(files(&folder).len(), 5);
    // Under a name of one's own.
    std::fs::write(ben.path("mine.jpg"), "mine").unwrap();
    let ran = ben.run(&["get-file", &numbers[1], "-o", "mine.jpg"]).fails(1);
    assert!(error(&ran).contains("is there already"), "{}", ran.out);
    assert_eq!(std::fs::read(ben.path("mine.jpg")).unwrap(), b"mine");
    ben.run(&["get-file", &numbers[1], "-o", "theirs.jpg"]).ok();
    assert_eq!(std::fs::read(ben.path("theirs.jpg")).unwrap(), photo);
    ben.run(&["get-file", &numbers[0], &numbers[1], "-o", "both"]).fails(2);
    ben.run(&["get-file", &numbers[0], "-o", "nowhere/"]).fails(2);
    ben.run(&["get-file", &numbers[0], "-o", "-"]).fails(2);
    // To standard output: the bytes and nothing else.
    let mut command = ben.command();
    let output = command.args(["get-file", &numbers[1], &numbers[3], "-o", "-"]).output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
    assert_eq!(output.stdout, [&photo[..], b"hello"].concat());
    // People get one line a file.
    let ran = ben.plain(&["get-file", &numbers[3], "-o", text(&ben.path("downloads"))], b"").ok();
    assert_eq!((ran.out.lines().count(), ran.err.as_str()), (1, ""));
    assert!(ran.out.starts_with("ann: saved [plain] /") && ran.out.contains("/clear (1).txt (5 B)"), "{}", ran.out);
    // One's own, also on a device that was not there when it was sent.
    ann.run(&["get-file", &numbers[0], "-o", text(&ann.path("back"))]).ok();
    assert_eq!(std::fs::read(ann.path("back")).unwrap(), long);
    assert_eq!(ben.run(&["resume", "--list"]).ok().out, "");
}

#[test]
fn the_desktops_download_folder_is_used() {
    let place = Place::new();
    let (ann, ben) = (place.register("ann"), place.register("ben"));
    let id = send(&ann, "ben", "a.txt", b"hello", false);
    std::fs::create_dir(ben.path(".config")).unwrap();
    std::fs::write(ben.path(".config/user-dirs.dirs"), "XDG_DOWNLOAD_DIR=\"$HOME/Mine/Loads\"\n").unwrap();
    ben.run(&["fetch"]).ok();
    ben.run(&["get-file", &format!("ann/{id}")]).ok();
    assert_eq!(files(&ben.path("Mine/Loads")), named(&[("a.txt", b"hello")]));
}

#[test]
fn a_download_outlives_the_client_and_the_daemon() {
    let place = Place::new();
    let (ann, ben) = (place.register("ann"), place.register("ben"));
    let bytes = random(3, LONG);
    let id = send(&ann, "ben", "film.mkv", &bytes, false);
    ben.run(&["fetch"]).ok();
    let wanted = format!("ann/{id}");
    let folder = ben.path("downloads");
    // The client dies with a part of it here.
    kill_in_download(&place, &ben, &wanted);
    let parts = files(&folder);
    assert!(parts.keys().all(|name| name == "film.mkv.part"), "{:?}", parts.keys());
    assert!(parts["film.mkv.part"].len() > PART && bytes.starts_with(&parts["film.mkv.part"]));
    let rows = ben.run(&["resume", "--list"]).ok().of("row");
    assert_eq!(
        (rows.len(), rows[0]["direction"].as_str(), rows[0]["size"].as_u64()),
        (1, Some("receiving"), Some(LONG as u64))
    );
    // The same command goes on, and the daemon dies under it.
    place.starve_after(1 << 20);
    let mut running = ben.start(&["get-file", &wanted]);
    place.wait_starved();
    place.down();
    place.open();
    running.wait("that it is away", |event| event["kind"] == "reconnecting");
    place.up();
    let ran = running.until_end().ok();
    assert_eq!(paths(&ran), [text(&folder.join("film.mkv"))]);
    let first = ran.of("progress")[0]["done"].as_u64().unwrap();
    assert!(first > PART as u64, "it went on where it was: {first}");
    assert_eq!(files(&folder), named(&[("film.mkv", &bytes)]));

    // Cut off again, tampered with, and gone on with by `resume`.
    kill_in_download(&place, &ben, &wanted);
    let part = folder.join("film.mkv.part");
    let mut changed = std::fs::read(&part).unwrap();
    changed[1000] ^= 1;
    std::fs::write(&part, changed).unwrap();
    let ran = ben.run(&["resume"]).ok();
    assert!(ran.of("notice").iter().any(|notice| notice["kind"] == "part-changed"), "{}", ran.out);
    assert_eq!(files(&folder), named(&[("film.mkv", &bytes), ("film (1).mkv", &bytes)]));
    // Given up: nothing is left.
    kill_in_download(&place, &ben, &wanted);
    let id = ben.run(&["resume", "--list"]).ok().of("row")[0]["transfer"].as_str().unwrap().to_owned();
    ben.run(&["resume", "--drop", &id]).ok();
    assert_eq!(ben.run(&["resume", "--list"]).ok().out, "");
    assert_eq!(files(&folder).len(), 2);
}

#[test]
fn a_picture_reaches_every_one_of_a_room_of_ten() {
    let place = Place::new();
    let ann = place.register("ann");
    ann.run(&["create", "garden", "--open"]).ok();
    let others: Vec<Dsc> = (0..9).map(|n| place.register(&format!("u{n}"))).collect();
    for who in &others {
        who.run(&["join", "garden"]).ok();
    }
    // Half of them are there when it comes, and half come later.
    let (here, away) = others.split_at(4);
    let mut tails: Vec<_> = here.iter().map(|who| who.start(&["tail", "--save", "saved"])).collect();
    ann.run(&["send", "#garden", "look"]).ok();
    for tail in &mut tails {
        tail.wait_text("look");
    }
    let photo = [&[0xff, 0xd8, 0xff, 0xe0][..], &random(4, 199_996)].concat();
    let id = send(&ann, "#garden", "photo.jpg", &photo, false);
    for (tail, who) in tails.iter_mut().zip(here) {
        tail.wait("the picture", |event| event["event"] == "file-received");
        assert_eq!(files(&who.path("saved")), named(&[("photo.jpg", &photo)]));
    }
    for who in away {
        who.run(&["fetch"]).ok();
        who.run(&["get-file", &format!("#garden/{id}")]).ok();
        assert_eq!(files(&who.path("downloads")), named(&[("photo.jpg", &photo)]));
    }
}

#[test]
fn files_are_saved_while_messages_are_shown() {
    let place = Place::new();
    let (ann, ben) = (place.register("ann"), place.register("ben"));
    send(&ann, "ben", "before.txt", b"before", false);
    ben.run(&["fetch"]).ok();
    let saved = ben.path("saved");
    let start = || ben.start(&["tail", "--save", "saved", "--save-max", "4MB"]);
    let is_saved = |name: &'static str| {
        move |event: &Value| event["event"] == "file-received" && event["path"].as_str().unwrap().ends_with(name)
    };
    let mut tail = start();
    ann.run(&["send", "ben", "hi"]).ok();
    tail.wait_text("hi");
    // In the middle of a file the line stops and the program dies: it is saved by the next one.
    let bytes = random(5, LONG);
    place.starve_after(2 << 20);
    // Ann hears nothing either, so what she sends is on its way when this is behind the gate.
    std::fs::write(ann.path("film.mkv"), &bytes).unwrap();
    let sending = ann.start(&["send-file", "ben", "film.mkv"]);
    place.wait_starved();
    place.open();
    sending.until_end().ok();
    tail.wait("the film", is_saved("/film.mkv"));
    assert_eq!(files(&saved), named(&[("film.mkv", &bytes)]));
    // What was said while it came is shown, and what comes in clear is saved too.
    send(&ann, "ben", "notes.txt", b"notes", true);
    tail.wait("the notes", is_saved("/notes.txt"));
    // What is too large, or not what was sent, is told; what follows is saved.
    let large = send(&ann, "ben", "large.bin", &random(6, 5 << 20), false);
    let small = send(&ann, "ben", "small.txt", b"small", false);
    let told = tail.wait("that it is too large", |event| event["kind"] == "not-saved");
    assert!(told["text"].as_str().unwrap().contains(&format!("dsc get-file 'ann/{large}'")), "{told}");
    tail.wait("the small one", is_saved("/small.txt"));
    // Killed while one comes: it is saved once by the next, and nothing else again.
    place.starve_after(3 << 20);
    let sending = ann.start(&["send-file", "ben", "film.mkv", "--name", "again.mkv"]);
    place.wait_starved();
    kill_process(tail.pid(), Signal::KILL).unwrap();
    tail.until_end().fails(137);
    place.open();
    sending.until_end().ok();
    let mut tail = start();
    tail.wait("the film again", is_saved("/again.mkv"));
    place.down();
    tail.wait("that it is away", |event| event["kind"] == "reconnecting");
    place.up();
    send(&ann, "ben", "last.txt", b"last", false);
    tail.wait("the last one", is_saved("/last.txt"));
    tail.stop();
    let mut tail = start();
    ann.run(&["send", "ben", "bye"]).ok();
    tail.wait_text("bye");
    let all = [
        ("film.mkv", &bytes[..]),
        ("notes.txt", b"notes"),
        ("small.txt", b"small"),
        ("again.mkv", &bytes),
        ("last.txt", b"last"),
    ];
    assert_eq!(files(&saved).keys().collect::<Vec<_>>(), named(&all).keys().collect::<Vec<_>>());
    assert_eq!(files(&saved), named(&all));
    assert!(small > large);
}

#[test]
fn what_the_server_is_told_to_call_a_file_leads_nowhere() {
    let place = Place::new();
    let (ann, ben) = (place.register("ann"), place.register("ben"));
    let sha256 = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    let (mut lines, mut numbers) = (String::new(), Vec::new());
    let names = ["../../.ssh/authorized_keys", "-rf", "/etc/passwd", "\u{202e}fdp.exe", "..", ".bashrc", "a\u{200b}b"];
    for (n, name) in (1..).zip(names) {
        // Each is another upload only by its size and hash, so they are one byte longer each time: `hello`, and x.
        let bytes = format!("hello{}", "x".repeat(n));
        use sha2::Digest as _;
        let sha256: String = sha2::Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        let base64 = base64(bytes.as_bytes());
        lines.push_str(&format!("/send-file ben {name} {} {sha256}\n/chunk {n} 0 {base64}\n", bytes.len()));
        numbers.push(n.to_string());
    }
    assert!(!lines.contains(sha256));
    let ran = ann.run_with(&["pipe"], &format!("{lines}/quit\n")).ok();
    assert_eq!(ran.of("reply").iter().filter(|reply| reply["ok"] == true).count(), 2 * names.len(), "{}", ran.out);
    ben.run(&["fetch"]).ok();
    let arguments: Vec<&str> = std::iter::once("get-file").chain(numbers.iter().map(String::as_str)).collect();
    ben.run(&arguments).ok();
    let made = files(&ben.path("downloads"));
    let want = ["_rf", "ab", "authorized_keys", "bashrc", "fdp.exe", "file", "passwd"];
    assert_eq!(made.keys().collect::<Vec<_>>(), want);
    assert!(!ben.path(".ssh").exists() && !ben.path("downloads").parent().unwrap().join("authorized_keys").exists());
}

fn base64(bytes: &[u8]) -> String {
    use base64ct::Encoding as _;
    base64ct::Base64::encode_string(bytes)
}

#[test]
fn what_cannot_be_got_ends_with_its_code() {
    let place = Place::new();
    let (ann, ben) = (place.register("ann"), place.register("ben"));
    let spoken = ann.run(&["send", "ben", "no file"]).ok().of("sent")[0]["id"].as_u64().unwrap();
    let id = send(&ann, "ben", "a.bin", &random(7, 100_000), false);
    ben.run(&["get-file", "1"]).fails(3);
    ben.run(&["get-file", &format!("ann/{id}")]).fails(3);
    ben.run(&["fetch"]).ok();
    ben.run(&["get-file", &format!("ann/{spoken}")]).fails(2);
    ben.run(&["get-file", "ann/99"]).fails(6);
    ben.run(&["get-file", "99"]).fails(6);
    // One that cannot be had keeps no other from it.
    let ran = ben.run(&["get-file", "99", &format!("ann/{id}")]).fails(6);
    assert_eq!(paths(&ran).len(), 1);
    let cat = place.register("cat");
    cat.run(&["get-file", "1"]).fails(6);
    assert_eq!(cat.run(&["files"]).ok().out, "");
    ann.run_with(&["pipe"], "/drop-file 1\n/quit\n").ok();
    ben.run(&["get-file", "1"]).fails(6);
    let ran = ben.run(&["get-file", &format!("ann/{id}")]).fails(6);
    assert!(error(&ran).contains("not on the server any more"), "{}", ran.out);
    assert_eq!(files(&ben.path("downloads")).len(), 1);
    place.down();
    ben.run(&["get-file", &format!("ann/{id}")]).fails(5);
}

//! Attack 18 on who saves files as they come (`tail --save`): whatever comes goes into the folder, once, over
//! nothing, and in the way of nobody.

use std::os::unix::fs::symlink;

use serde_json::Value;

use crate::evil::dsc::{Running, texts};
use crate::evil::file::Row;
use crate::evil::{Blob, Inbox, Lab, Stage, Verdict, Way};

/// Begins to save what comes.
fn saving(inbox: &Inbox) -> Running {
    inbox.dsc.start(&["tail", "--save", inbox.path().to_str().unwrap()])
}

/// Gives the server a sealed file and tells Bob of it.
fn send(mallory: &mut Lab, name: &str, content: &[u8]) {
    let blob = Blob::seal(content, &mut mallory.device.rng);
    mallory.upload("bob", &blob.bytes);
    mallory.announce("bob", blob.descriptor(name));
}

/// The name under which the next file was saved.
fn wait_saved(tail: &mut Running) -> String {
    let event = tail.wait("a saved file", |event| event["event"] == "file-received");
    event["path"].as_str().unwrap().rsplit('/').next().unwrap().to_owned()
}

fn wait_not_saved(tail: &mut Running) -> String {
    let event = tail.wait("a file that is not saved", |event| event["kind"] == "not-saved");
    event["text"].as_str().unwrap().to_owned()
}

fn of_kind<'e>(events: &'e [Value], kind: &str) -> Vec<&'e Value> {
    events.iter().filter(|event| event["kind"] == kind || event["event"] == kind).collect()
}

#[test]
fn a18_saved_files_stay_in_the_folder() {
    let s = Stage::new();
    let bob = Inbox::of(s.dsc("bob"));
    let mut mallory = s.lab("mallory", 1821);
    // What stands in the way: files of Bob's, and links that somebody else has laid there.
    let (inbox, keep) = (bob.path(), bob.dsc.path("keep"));
    std::fs::create_dir(&keep).unwrap();
    std::fs::write(keep.join("victim"), b"mine").unwrap();
    std::fs::write(inbox.join("report.pdf"), b"mine").unwrap();
    std::fs::create_dir(inbox.join("notes")).unwrap();
    symlink(keep.join("victim"), inbox.join("x")).unwrap();
    symlink(keep.join("victim"), inbox.join("passwd.part")).unwrap();
    symlink(keep.join("new"), inbox.join("dangling")).unwrap();
    symlink(keep.join("new"), inbox.join("dangling (1).part")).unwrap();
    symlink(&keep, inbox.join("keep")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, inbox.join("pipe"), rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    let before = bob.names();
    let mut tail = saving(&bob);
    let files = [
        ("../../.ssh/x", "x (1)"),
        ("/etc/passwd", "passwd"),
        ("dangling", "dangling (1)"),
        ("keep/../keep", "keep (1)"),
        ("notes", "notes (1)"),
        ("pipe", "pipe (1)"),
        ("report.pdf", "report (1).pdf"),
        ("report.pdf", "report (2).pdf"),
        ("-rf", "_rf"),
        ("\u{202e}fdp\0.exe", "fdp.exe"),
        ("report.pdf.part", "report.pdf.part"),
        ("report.pdf", "report (3).pdf"),
    ];
    for (i, (name, plain)) in files.into_iter().enumerate() {
        send(&mut mallory, name, format!("file {i}").as_bytes());
        assert_eq!(wait_saved(&mut tail), plain, "{name:?}");
    }
    let saved = bob.files();
    for (i, (_, plain)) in files.into_iter().enumerate() {
        assert_eq!(saved[plain], format!("file {i}").into_bytes(), "{plain}");
    }
    assert_eq!(saved.len(), before.len() + files.len(), "{:?}", bob.names());
    assert_eq!(saved["report.pdf"], b"mine");
    assert_eq!(std::fs::read(keep.join("victim")).unwrap(), b"mine");
    assert_eq!(std::fs::read_dir(&keep).unwrap().count(), 1, "nothing came through a link");
    // Told twice of one ciphertext it is two messages, and two files; begun again nothing comes twice.
    let blob = Blob::seal(b"the same", &mut mallory.device.rng);
    mallory.upload("bob", &blob.bytes);
    for name in ["same", "same (1)"] {
        mallory.announce("bob", blob.descriptor("same"));
        assert_eq!(wait_saved(&mut tail), name);
    }
    tail.stop();
    let mut tail = saving(&bob);
    send(&mut mallory, "last", b"last");
    assert_eq!(wait_saved(&mut tail), "last");
    assert_eq!(of_kind(&tail.stop().events(), "file-received").len(), 1, "that one, and no other");
    assert_eq!(bob.files().len(), saved.len() + 3);
}

#[test]
fn a18_a_flood_of_files_is_bounded() {
    const FILES: usize = 1100;
    const KEPT: usize = 1000;
    let s = Stage::new();
    let bob = Inbox::of(s.dsc("bob"));
    let mut mallory = s.lab("mallory", 1822);
    bob.dsc.run(&["fetch"]).ok();
    for i in 0..FILES {
        mallory.upload_as("bob", &format!("{i}"), format!("{i:04}").as_bytes());
    }
    mallory.say("bob", "after the flood");
    // None is got: what waits is counted.
    s.evil.script(|c| match c.is_command("/files") || c.is_command("/get-file") {
        true => Verdict::Drop,
        false => Verdict::Pass,
    });
    let mut tail = saving(&bob);
    tail.wait_text("after the flood");
    let ended = tail.stop();
    assert_eq!(of_kind(&ended.events(), "not-saved").len(), FILES - KEPT);
    assert!(bob.names().is_empty());
}

#[test]
fn a18_a_bad_file_stops_nobody() {
    let s = Stage::new();
    let bob = Inbox::of(s.dsc("bob"));
    let mut mallory = s.lab("mallory", 1823);
    let mut tail = saving(&bob);
    // Not what it says; not there; and one whose end the server does not give, however often it is asked.
    let blob = Blob::seal(&[7; 20_000], &mut mallory.device.rng);
    let bad = blob.with(|bytes| bytes[17_000] ^= 1);
    mallory.upload("bob", &bad.bytes);
    mallory.announce("bob", bad.descriptor("bad"));
    assert!(wait_not_saved(&mut tail).contains("(auth)"));
    mallory.announce("bob", blob.descriptor("nowhere"));
    assert!(wait_not_saved(&mut tail).contains("not on the server"));
    s.evil.script(|c| match Row::read(c) {
        Some(row) if row.offset > 0 && c.way == Way::Down => Verdict::Drop,
        _ => Verdict::Pass,
    });
    send(&mut mallory, "short", &[8; 200_000]);
    assert!(wait_not_saved(&mut tail).contains("less of a file"));
    assert_eq!(bob.names(), ["short.part"]);
    // Larger than is taken, by its own words.
    let claim = Blob { size: 1 << 40, ..blob.clone() };
    mallory.announce("bob", claim.descriptor("huge"));
    wait_not_saved(&mut tail);
    mallory.say("bob", "still here");
    tail.wait_text("still here");
    send(&mut mallory, "good", b"good");
    assert_eq!(wait_saved(&mut tail), "good");
    let ended = tail.stop();
    assert!(of_kind(&ended.events(), "reconnecting").is_empty(), "{ended:?}");
    // What was there of it goes on, when somebody asks for it.
    s.evil.honest();
    bob.dsc.run(&["resume"]).ok();
    assert_eq!(bob.files(), [("good".to_owned(), b"good".to_vec()), ("short".to_owned(), vec![8; 200_000])].into());
}

#[test]
fn a12_what_the_server_makes_up_is_not_saved() {
    let s = Stage::new();
    let (alice, bob) = (s.dsc("alice"), Inbox::of(s.dsc("bob")));
    alice.run(&["create", "#room"]).ok();
    alice.run(&["invite", "#room", "bob"]).ok();
    bob.dsc.run(&["join", "#room"]).ok();
    let mut tail = saving(&bob);
    alice.run(&["send", "#room", "one"]).ok();
    let message = tail.wait_text("one");
    // In a sealed room, and lines that are none.
    let id = message["id"].as_u64().unwrap();
    let hash = "0".repeat(64);
    let line = |id: u64, words: &str| format!("* file {id} 2026-01-01T00:00:00.000Z {words} :run.sh");
    let forged = [
        line(id + 1, &format!("#room alice file=1 size=3 sha256={hash}")),
        line(id + 2, &format!("#room alice file=1 size=-3 sha256={hash}")),
        line(id + 2, "#room alice file=1"),
        line(id + 2, &format!("../../x alice file=1 size=3 sha256={hash}")),
    ];
    forged.iter().for_each(|line| assert_eq!(s.evil.inject("bob", Way::Down, line), 1));
    assert_eq!(tail.wait_unreadable(), "plain");
    for _ in 1..forged.len() {
        tail.wait("a line that is none", |event| event["kind"] == "unreadable-line");
    }
    alice.run(&["send", "bob", "two"]).ok();
    tail.wait_text("two");
    let ended = tail.stop();
    assert!(bob.names().is_empty());
    assert!(texts(&ended.events()).iter().all(|text| !text.contains("run.sh")));
    assert!(s.evil.captured().iter().all(|c| !c.is_command("/get-file")), "nothing of it was asked for");
}

//! Files from one person to others: the real `dsc`, the real daemon, and everything that can die on the way.
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
#[allow(dead_code, reason = "people who talk use the rest")]
mod place;
mod support;

use std::collections::BTreeMap;
use std::path::Path;

use dsc::{Dsc, Ran};
use place::{Place, random};
use rustix::process::{Signal, kill_process};

/// Long enough for several pieces and windows, short enough for a slow build.
const LONG: usize = 3 << 20;

trait Files {
    fn write(&self, name: &str, bytes: &[u8]);
    fn saved(&self) -> BTreeMap<String, Vec<u8>>;
    fn get_all(&self, of: &str);
    fn has_nothing_left(&self);
}

impl Files for Dsc {
    fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path(name), bytes).unwrap();
    }

    /// Gets every file that a conversation speaks of.
    fn get_all(&self, of: &str) {
        std::fs::create_dir_all(self.path("got")).unwrap();
        self.run(&["fetch"]).ok();
        let page = self.run(&["fetch", of]).ok();
        for message in page.of("message").iter().filter(|message| message["content"]["kind"] == "file") {
            let file = format!("{of}/{}", message["id"]);
            self.run(&["get-file", &file, "-o", self.path("got").to_str().unwrap()]).ok();
        }
    }

    fn saved(&self) -> BTreeMap<String, Vec<u8>> {
        let entries = std::fs::read_dir(self.path("got")).unwrap().map(|entry| entry.unwrap().path());
        let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
        entries.map(|path| (name(&path), std::fs::read(&path).unwrap())).collect()
    }

    /// Neither a record nor a copy of anything.
    fn has_nothing_left(&self) {
        assert_eq!(self.run(&["resume", "--list"]).ok().out, "");
        assert_eq!(std::fs::read_dir(self.home().join("spool")).unwrap().count(), 0);
    }
}

fn named(bytes: &[(&str, &[u8])]) -> BTreeMap<String, Vec<u8>> {
    bytes.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect()
}

fn sent(ran: &Ran) -> Vec<String> {
    ran.of("file-sent").iter().map(|event| event["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn files_of_every_kind_reach_somebody_who_is_away() {
    let place = Place::new();
    let (ann, ben) = (place.register("ann"), place.register("ben"));
    let photo = random(1, 100_000);
    ann.write("photo.jpg", &photo);
    ann.write("empty", b"");
    std::fs::create_dir(ann.path("logs")).unwrap();
    ann.write("logs/today", b"nothing happened");
    let ran = ann.run(&["send-file", "ben", "photo.jpg", "empty", "logs", "--tar"]).ok();
    assert_eq!(sent(&ran), ["photo.jpg", "empty", "logs.tar"]);
    assert!(ran.of("file-sent").iter().all(|event| event["encrypted"] == true));
    assert!(ran.of("notice").iter().any(|notice| notice["kind"] == "archive"), "{}", ran.out);
    assert_eq!(sent(&ann.run_with(&["send-file", "ben", "--name", "note.txt", "-"], "by pipe").ok()), ["note.txt"]);
    ann.has_nothing_left();
    ben.get_all("ann");
    let mut saved = ben.saved();
    let archive = saved.remove("logs.tar").unwrap();
    assert_eq!(saved, named(&[("photo.jpg", &photo), ("empty", b""), ("note.txt", b"by pipe")]));
    let mut archive = tar::Archive::new(&archive[..]);
    let names: Vec<String> =
        archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect();
    assert_eq!(names, ["logs", "logs/today"]);
    // People get one line a file, and no bar where there is no terminal.
    let ran = ann.plain(&["send-file", "ben", "photo.jpg"], b"").ok();
    assert!(ran.out.starts_with("sent photo.jpg (100.00 kB) as ") && ran.out.lines().count() == 1, "{}", ran.out);
    assert_eq!(ran.err, "");
    assert_eq!(ann.plain(&["send-file", "ben", "photo.jpg", "--quiet"], b"").ok().out, "");
    // One that cannot be sent keeps no other from it, and is what the command ends with.
    let ran = ann.run(&["send-file", "ben", "missing", "photo.jpg"]).fails(1);
    assert_eq!(sent(&ran), ["photo.jpg"]);
    ann.run(&["send-file", "ben", "logs"]).fails(2);
    ann.run(&["send-file", "nobody", "photo.jpg"]).fails(3);
    ann.run(&["send-file", "ben", "photo.jpg", "empty", "--name", "x"]).fails(2);
    ann.has_nothing_left();
}

#[test]
fn a_room_and_ones_other_devices_get_a_file_too() {
    let place = Place::new();
    let (ann, ben, cat) = (place.register("ann"), place.register("ben"), place.register("cat"));
    ann.run(&["create", "garden", "--open"]).ok();
    for who in [&ben, &cat] {
        who.run(&["join", "garden"]).ok();
    }
    let photo = random(2, 70_000);
    ann.write("photo.jpg", &photo);
    ann.run(&["send-file", "#garden", "photo.jpg"]).ok();
    ann.run(&["send-file", "#garden", "photo.jpg", "--plain"]).fails(2);
    for who in [&ben, &cat] {
        who.get_all("#garden");
        assert_eq!(who.saved(), named(&[("photo.jpg", &photo)]));
    }
    // In clear, for people without dsc.
    ann.run(&["send-file", "ben", "photo.jpg", "--plain", "--name", "two words.jpg"]).ok();
    ben.get_all("ann");
    assert_eq!(ben.saved()["two words.jpg"], photo);
    ann.has_nothing_left();
}

#[test]
fn a_file_outlives_the_daemon_and_the_client() {
    let place = Place::new();
    let (ann, ben) = (place.register("ann"), place.register("ben"));
    let bytes = random(3, LONG);
    ann.write("film.mkv", &bytes);
    // The client dies with a part of it on its way.
    place.close_after(1 << 20);
    let running = ann.start(&["send-file", "ben", "film.mkv"]);
    place.wait_closed();
    kill_process(running.pid(), Signal::KILL).unwrap();
    running.until_end().fails(137);
    place.open();
    assert_eq!(ann.run(&["resume", "--list"]).ok().of("row").len(), 1);
    // The same command goes on, and the daemon dies twice under it.
    place.close_after(1 << 20);
    let mut running = ann.start(&["send-file", "ben", "film.mkv"]);
    for _ in 0..2 {
        place.wait_closed();
        place.down();
        place.open();
        running.wait("that it is away", |event| event["kind"] == "reconnecting");
        place.close_after(500_000);
        place.up();
    }
    place.open();
    let ran = running.until_end().ok();
    assert_eq!(sent(&ran), ["film.mkv"]);
    let begun = |event: &&serde_json::Value| event["phase"] == "reading";
    assert_eq!(ran.of("progress").iter().filter(begun).count(), 0, "it was sealed once");
    ann.has_nothing_left();
    ben.get_all("ann");
    assert_eq!(ben.saved(), named(&[("film.mkv", &bytes)]), "once, and every byte");
    assert!(ben.run(&["fetch"]).ok().of("missing").is_empty());
}

#[test]
fn what_waits_is_resumed_listed_and_given_up() {
    let place = Place::new();
    let (ann, ben) = (place.register("ann"), place.register("ben"));
    let cut_off = |name: &str, bytes: &[u8]| {
        ann.write(name, bytes);
        place.close_after(1 << 20);
        let running = ann.start(&["send-file", "ben", name]);
        place.wait_closed();
        kill_process(running.pid(), Signal::KILL).unwrap();
        running.until_end().fails(137);
        place.open();
    };
    cut_off("one", &random(4, LONG));
    cut_off("two", &random(5, LONG));
    let rows = ann.run(&["resume", "--list"]).ok().of("row");
    let of = |name: &str| rows.iter().find(|row| row["name"] == name).unwrap().clone();
    assert_eq!((rows.len(), of("one")["target"].as_str()), (2, Some("ben")));
    let id = of("two")["transfer"].as_str().unwrap().to_owned();
    ann.run(&["resume", "--drop", &id[..6]]).ok();
    ann.run(&["resume", "--drop", &id]).fails(2);
    assert_eq!(sent(&ann.run(&["resume"]).ok()), ["one"]);
    ann.has_nothing_left();
    ben.get_all("ann");
    assert_eq!(ben.saved().into_keys().collect::<Vec<_>>(), ["one"]);
    // What is changed meanwhile is sent anew, whole.
    cut_off("three", &random(6, LONG));
    let bytes = random(7, LONG);
    ann.write("three", &bytes);
    let ran = ann.run(&["send-file", "ben", "three"]).ok();
    assert!(ran.of("notice").iter().any(|notice| notice["kind"] == "upload-anew"), "{}", ran.out);
    ben.get_all("ann");
    assert_eq!(ben.saved()["three"], bytes);
    // Nobody there: nothing is kept, and what was kept before stays.
    cut_off("four", &random(8, LONG));
    place.down();
    let ran = ann.run(&["send-file", "ben", "one"]).fails(5);
    assert!(ran.out.contains("nothing of it was sent or kept"), "{}", ran.out);
    ann.run(&["resume"]).fails(5);
    assert_eq!(ann.run(&["resume", "--list"]).ok().of("row").len(), 1);
    let id = ann.run(&["resume", "--list"]).ok().of("row")[0]["transfer"].as_str().unwrap().to_owned();
    let ran = ann.run(&["resume", "--drop", &id]).ok();
    assert!(ran.of("notice").iter().any(|notice| notice["kind"] == "partial-left"), "{}", ran.out);
    ann.has_nothing_left();
}

#[test]
fn what_is_too_large_is_refused_before_it_is_sealed() {
    let place = Place::with("[files]\nmax_file = \"1MiB\"");
    let (ann, _ben) = (place.register("ann"), place.register("ben"));
    ann.write("large", &random(9, (1 << 20) - 1000));
    // Its sealed form is what does not fit.
    let ran = ann.run(&["send-file", "ben", "large"]).fails(2);
    assert!(ran.out.contains("takes files of at most 1048576"), "{}", ran.out);
    let ran = ann.run_with(&["send-file", "ben", "-"], &"x".repeat(2 << 20)).fails(2);
    assert!(ran.out.contains("too large"), "{}", ran.out);
    ann.has_nothing_left();
    ann.run(&["send-file", "ben", "large", "--plain"]).ok();
}

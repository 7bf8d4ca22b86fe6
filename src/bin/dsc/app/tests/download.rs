//! Getting files: whole, cut off, and from those who lie.

use std::path::{Path, PathBuf};

use downstream::e2e::descriptor::Descriptor;
use downstream::e2e::file::{CHUNK, HEADER, Layout, SEALED_CHUNK, Sealer};
use downstream::protocol::FileId;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::*;
use crate::app::{Content, Origin, Os, Saver, Sending, To};
use crate::error::Failure;
use crate::event::{Content as Said, Message, Row};
use crate::store::FileRef;

/// Several chunks, the last of them not full.
const SIZE: usize = 100_000;

fn content(seed: u8) -> Vec<u8> {
    (0..SIZE).map(|at| (at / 7) as u8 ^ seed).collect()
}

fn file(text: &str) -> FileRef {
    match text.rsplit_once('/') {
        Some((target, id)) => FileRef::Message(to(target), id.parse().unwrap()),
        None => FileRef::Number(FileId(text.parse().unwrap())),
    }
}

impl Person {
    fn downloads_folder(&self) -> PathBuf {
        let path = self.path("downloads");
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    /// The files in it, by name.
    fn downloaded(&self) -> Vec<(String, Vec<u8>)> {
        let entries = std::fs::read_dir(self.downloads_folder()).unwrap();
        let mut files: Vec<(String, Vec<u8>)> = entries
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
            .collect();
        files.sort();
        files
    }

    fn offer(&mut self, target: &str, name: &str, bytes: &[u8], plain: bool) -> u64 {
        let path = self.path("offered");
        std::fs::write(&path, bytes).unwrap();
        let target = to(target);
        self.with(|client| {
            let from = Origin::Path(&path, false);
            let sending = Sending { target: &target, name: Some(name), mime: None, plain, by_hand: false, from };
            let mut work = client.begin_upload(sending, None)?;
            client.finish_upload(&mut work)
        })
        .unwrap()
        .id
    }

    /// As `dsc get-file` does; what was shown.
    fn try_get(&mut self, wanted: &str) -> (Vec<Event>, Result<(), Failure>) {
        let path = self.downloads_folder();
        let to = To::Folder { path, make: false, name: None };
        self.shown(|client| match client.begin_download(&file(wanted), &to, None)? {
            Some(mut work) => client.download(&mut work),
            None => Ok(()),
        })
    }

    fn get(&mut self, wanted: &str) -> Vec<Event> {
        let (events, done) = self.try_get(wanted);
        done.unwrap();
        events.into_iter().filter(|event| !matches!(event, Event::Progress { .. })).collect()
    }

    fn has_nothing_begun(&mut self) {
        assert_eq!(self.with(|client| client.downloads()).unwrap(), []);
        assert!(self.downloaded().iter().all(|(name, _)| !name.ends_with(".part")));
    }
}

fn saved(events: &[Event]) -> Vec<(&str, bool, u64)> {
    let one = |event| match event {
        &Event::FileReceived { ref path, encrypted, size, .. } => {
            Some((Path::new(path).file_name().unwrap().to_str().unwrap(), encrypted, size))
        }
        _ => None,
    };
    events.iter().filter_map(one).collect()
}

/// Seals a file as an honest sender does.
fn sealed(bytes: &[u8], name: &str) -> (Vec<u8>, Descriptor) {
    let mut sealer = Sealer::new(bytes.len() as u64, &mut Os).unwrap().unwrap();
    let (mut out, mut rest) = (sealer.header().to_vec(), bytes);
    while let Some(n) = sealer.wants() {
        let (now, later) = rest.split_at(n);
        out.extend(sealer.seal(now).unwrap());
        rest = later;
    }
    (out, sealer.finish(name, "").unwrap())
}

/// A sealed file in the conversation of alice and bob, and the number of the message that bob has read.
fn offered(world: &World, alice: &mut Person, bob: &mut Person, ct: &[u8], descriptor: Descriptor) -> String {
    world.put_file("alice", "bob", "sealed", ct);
    let delivered = alice.with(|client| client.send(&to("bob"), Content::File(descriptor))).unwrap();
    bob.fetch();
    format!("alice/{}", delivered.id)
}

#[test]
fn a_sealed_file_is_got_by_its_message_and_by_its_number() {
    for bytes in [content(1), Vec::new(), vec![7], vec![0; CHUNK], vec![9; 3 * CHUNK + 1]] {
        let (world, mut alice, mut bob) = two();
        alice.send("bob", "before");
        let id = alice.offer("bob", "report.pdf", &bytes, false);
        let events = bob.fetch();
        let told = events.iter().find_map(|event| match event {
            Event::Message(Message { content: Said::File { name, size, file: None, .. }, id, .. }) => {
                Some((name.clone(), *size, id.unwrap()))
            }
            _ => None,
        });
        assert_eq!(told, Some(("report.pdf".to_owned(), bytes.len() as u64, id)));
        assert_eq!(events.iter().filter(|event| matches!(event, Event::Message(_))).count(), 2, "{events:?}");
        assert_eq!(saved(&bob.get(&format!("alice/{id}"))), [("report.pdf", true, bytes.len() as u64)]);
        assert_eq!(saved(&bob.get("1")), [("report (1).pdf", true, bytes.len() as u64)]);
        // Under the number of the ciphertext's own line too.
        assert_eq!(saved(&bob.get(&format!("alice/{}", id - 1))).len(), 1);
        // One's own file is got like another's.
        assert_eq!(saved(&alice.get(&format!("bob/{id}"))).len(), 1);
        assert!(bob.downloaded().iter().all(|(_, got)| *got == bytes) && bob.downloaded().len() == 3);
        bob.has_nothing_begun();
        assert!(!world.questions().iter().any(|question| question.contains("report")), "the server learns no name");
    }
}

#[test]
fn a_file_in_clear_is_shown_kept_and_got() {
    for bytes in [content(2), Vec::new()] {
        let (_world, mut alice, mut bob) = two();
        let id = alice.offer("bob", "notes ☃.txt", &bytes, true);
        let events = bob.fetch();
        let Some(Event::Message(message)) = events.last() else { panic!("{events:?}") };
        assert!(!message.encrypted && message.marks == [Mark::Plain]);
        assert!(matches!(&message.content, Said::File { name, file: Some(1), .. } if name == "notes ☃.txt"));
        assert_eq!(bob.page("alice"), [Event::Message(message.clone())], "it stands in the history");
        for wanted in [format!("alice/{id}"), "1".to_owned()] {
            let got = bob.get(&wanted);
            assert_eq!(saved(&got).len(), 1);
            assert!(!saved(&got)[0].1, "the server could have changed it");
        }
        assert!(bob.downloaded().iter().all(|(_, got)| *got == bytes));
    }
}

#[test]
fn a_room_and_a_linked_device_get_it() {
    let (world, mut alice, mut bob) = two();
    let mut phone = Person::without_keys(&world, "alice");
    phone.link_to(&mut alice);
    alice.with(|client| client.create(&room("#r"), true, false, None)).unwrap();
    bob.with(|client| client.join(&room("#r"))).unwrap();
    let id = alice.offer("#r", "a.jpeg", &content(3), false);
    for person in [&mut bob, &mut phone, &mut alice] {
        person.fetch();
        assert_eq!(saved(&person.get(&format!("#r/{id}"))), [("a.jpeg", true, SIZE as u64)]);
        assert_eq!(person.downloaded(), [("a.jpeg".to_owned(), content(3))]);
    }
}

#[test]
fn a_lost_connection_is_gone_on_from_where_it_was_lost() {
    let bytes: Vec<u8> = content(4).into_iter().cycle().take(1_000_000).collect();
    for plain in [false, true] {
        let (world, mut alice, mut bob) = two();
        let id = alice.offer("bob", "a.bin", &bytes, plain);
        bob.fetch();
        let wanted = format!("alice/{id}");
        world.lose_question_after("/get-file", 2);
        assert_eq!(bob.try_get(&wanted).1.unwrap_err().exit, Exit::Network);
        let [(name, part)] = &bob.downloaded()[..] else { panic!() };
        assert!(name == "a.bin.part" && part.len() > 500_000 && bytes.starts_with(part));
        let [download] = &bob.with(|client| client.downloads()).unwrap()[..] else { panic!() };
        world.forget_questions();
        // By `dsc resume` once, and once by the same command.
        let events = match plain {
            false => bob.get(&wanted),
            true => bob.shown(|client| client.finish_download(&download.id)).0,
        };
        assert_eq!(saved(&events), [("a.bin", !plain, bytes.len() as u64)]);
        let asked: u64 = world
            .questions()
            .iter()
            .filter_map(|question| question.strip_prefix("/get-file ")?.rsplit_once("length=")?.1.parse::<u64>().ok())
            .sum();
        assert!(asked > 470_000 && asked < 520_000, "only what was missing: {asked}");
        assert_eq!(bob.downloaded(), [("a.bin".to_owned(), bytes.clone())]);
        bob.has_nothing_begun();
    }
}

#[test]
fn the_same_download_goes_on_with_another_connection() {
    let (world, mut alice, mut bob) = two();
    let id = alice.offer("bob", "a.bin", &content(5).repeat(8), false);
    bob.fetch();
    let to = To::Folder { path: bob.downloads_folder(), make: false, name: None };
    let begin = bob.with(|client| client.begin_download(&file(&format!("alice/{id}")), &to, None)).unwrap();
    let mut work = begin.unwrap();
    for lost in 0..3 {
        world.lose_answer_after("/get-file", 1);
        assert_eq!(bob.with(|client| client.download(&mut work)).unwrap_err().exit, Exit::Network, "{lost}");
    }
    // The server may be too fast for itself for a while.
    world.refuse_next("/get-file", "rate-limited");
    bob.with(|client| client.download(&mut work)).unwrap();
    assert_eq!(bob.downloaded(), [("a.bin".to_owned(), content(5).repeat(8))]);
}

#[test]
fn a_second_process_keeps_away_and_a_given_up_one_leaves_nothing() {
    let (world, mut alice, mut bob) = two();
    let id = alice.offer("bob", "a.bin", &content(6).repeat(8), false);
    bob.fetch();
    let wanted = format!("alice/{id}");
    let to = To::Folder { path: bob.downloads_folder(), make: false, name: None };
    let begin = bob.with(|client| client.begin_download(&file(&wanted), &to, None)).unwrap();
    assert!(bob.try_get(&wanted).1.unwrap_err().message.contains("another dsc"));
    drop(begin);
    world.lose_question_after("/get-file", 2);
    bob.try_get(&wanted).1.unwrap_err();
    let begun = bob.with(|client| client.downloads()).unwrap();
    assert_eq!((begun.len(), bob.downloaded().len()), (1, 1), "the one that was begun is gone on with");
    assert_eq!(bob.with(|client| client.give_up_download(&begun[0].id)).unwrap(), "a.bin");
    assert_eq!(bob.downloaded(), []);
    bob.has_nothing_begun();
    assert!(bob.with(|client| client.give_up_download(&begun[0].id)).is_err());
}

#[test]
fn what_is_not_what_was_sent_is_refused_and_leaves_nothing() {
    type Change = fn(&mut Vec<u8>);
    let changes: [(&str, &str, Change); 6] = [
        ("salt", "commit", |ct| ct[3] ^= 1),
        ("commitment", "commit", |ct| ct[30] ^= 1),
        ("first chunk", "auth", |ct| ct[HEADER + 7] ^= 1),
        ("swapped", "auth", |ct| ct[HEADER..HEADER + 2 * SEALED_CHUNK].rotate_left(SEALED_CHUNK)),
        ("last byte", "auth", |ct| *ct.last_mut().unwrap() ^= 1),
        ("one chunk twice", "auth", |ct| ct.copy_within(HEADER..HEADER + SEALED_CHUNK, HEADER + SEALED_CHUNK)),
    ];
    for (what, code, change) in changes {
        let (world, mut alice, mut bob) = two();
        let id = alice.offer("bob", "a.bin", &content(7), false);
        bob.fetch();
        world.damage_file(1, change);
        let failure = bob.try_get(&format!("alice/{id}")).1.unwrap_err();
        assert!(failure.exit == Exit::Failed && failure.message.contains(&format!("({code})")), "{what}: {failure}");
        assert_eq!(bob.downloaded(), [], "{what}");
        bob.has_nothing_begun();
    }
    let (world, mut alice, mut bob) = two();
    let id = alice.offer("bob", "a.bin", &content(7), true);
    bob.fetch();
    world.damage_file(1, |bytes| bytes[SIZE / 2] ^= 1);
    let failure = bob.try_get(&format!("alice/{id}")).1.unwrap_err();
    assert!(failure.exit == Exit::Failed && failure.message.contains("(payload)"), "{failure}");
    assert_eq!(bob.downloaded(), []);
}

#[test]
fn cut_at_every_chunk_and_with_bytes_appended() {
    let (world, mut alice, mut bob) = two();
    let (ct, descriptor) = sealed(&content(8), "a.bin");
    let wanted = offered(&world, &mut alice, &mut bob, &ct, descriptor);
    let borders = (0..Layout::of(SIZE as u64).unwrap().chunks).map(|k| Layout::offset(k) as usize);
    for border in borders.chain([0, 24, ct.len() - 1]) {
        // The server says the size that it should have, and has less.
        world.damage_file(1, |bytes| bytes.truncate(border));
        let failure = bob.try_get(&wanted).1.unwrap_err();
        assert_eq!(failure.exit, Exit::Failed, "{border}: what is there stays, and it is not asked again by itself");
        assert!(bob.downloaded().iter().all(|(name, _)| name.ends_with(".part")));
        world.damage_file(1, |bytes| *bytes = ct.clone());
    }
    for size in [ct.len() as u64 - 1, ct.len() as u64 + 1, u64::MAX] {
        world.claim_size(1, size);
        assert!(bob.try_get(&wanted).1.unwrap_err().message.contains("not what was sent"), "{size}");
    }
    world.claim_size(1, ct.len() as u64);
    bob.get(&wanted);
    assert_eq!(bob.downloaded(), [("a.bin".to_owned(), content(8))]);
}

#[test]
fn one_ciphertext_has_one_key() {
    let (world, mut alice, mut bob) = two();
    let (ct, descriptor) = sealed(&content(9), "a.bin");
    let (_, other) = sealed(&content(10), "a.bin");
    let wanted = offered(&world, &mut alice, &mut bob, &ct, Descriptor { key: other.key, ..descriptor.clone() });
    let failure = bob.try_get(&wanted).1.unwrap_err();
    assert!(failure.message.contains("(commit)"), "{failure}");
    // Another ciphertext under the right key is not the one that was spoken of.
    let wanted = offered(&world, &mut alice, &mut bob, &ct, Descriptor { blob_id: [1; 32], ..descriptor });
    assert!(bob.try_get(&wanted).1.unwrap_err().message.contains("not on the server any more"));
    assert_eq!(bob.downloaded(), []);
}

#[test]
fn what_cannot_be_got_says_why() {
    let (world, mut alice, mut bob) = two();
    let text = alice.send("bob", "no file").id;
    let id = alice.offer("bob", "a.bin", &content(11), false);
    let unopened = bob.try_get("1").1.unwrap_err();
    assert_eq!(unopened.exit, Exit::NoSession);
    assert!(unopened.hint.unwrap().contains("dsc fetch 'alice'"));
    assert_eq!(bob.try_get(&format!("alice/{id}")).1.unwrap_err().exit, Exit::NoSession);
    bob.fetch();
    for (wanted, exit, why) in [
        (format!("alice/{text}"), Exit::Usage, "is no file"),
        ("alice/99".to_owned(), Exit::Refused, "has no message 99"),
        ("2".to_owned(), Exit::Refused, "no file 2"),
        ("0".to_owned(), Exit::Refused, "no file 0"),
    ] {
        let failure = bob.try_get(&wanted).1.unwrap_err();
        assert!(failure.exit == exit && failure.message.contains(why), "{wanted}: {failure}");
    }
    alice.with(|client| client.command("/drop-file 1")).unwrap();
    assert!(bob.try_get("1").1.unwrap_err().message.contains("no file 1"));
    let gone = bob.try_get(&format!("alice/{id}")).1.unwrap_err();
    assert!(gone.exit == Exit::Refused && gone.message.contains("not on the server any more"), "{gone}");

    // A claim that no disk holds costs nothing.
    world.put_file("alice", "bob", "huge.bin", b"small");
    world.claim_size(2, 1 << 60);
    assert!(bob.try_get("2").1.unwrap_err().message.contains("do not fit"));
    assert_eq!(bob.downloaded(), []);
    bob.has_nothing_begun();
}

#[test]
fn nothing_comes_in_clear_where_only_sealed_files_are_sent() {
    let (world, mut alice, mut bob) = two();
    alice.with(|client| client.create(&room("#r"), true, false, None)).unwrap();
    bob.with(|client| client.join(&room("#r"))).unwrap();
    world.put_file("alice", "#r", "report.pdf", b"made up by the server");
    let events = bob.fetch();
    assert!(matches!(&events[..], [Event::Unreadable { code, .. }] if code == "plain"), "{events:?}");
    for wanted in ["1", "#r/1"] {
        let failure = bob.try_get(wanted).1.unwrap_err();
        assert!(failure.exit == Exit::Failed && failure.message.contains("in clear"), "{failure}");
    }
    assert_eq!(bob.downloaded(), []);
}

#[test]
fn hostile_names_stay_in_the_folder() {
    let (world, mut alice, mut bob) = two();
    for (name, want) in [
        ("../../.ssh/authorized_keys", "authorized_keys"),
        ("-rf", "_rf"),
        ("a\0b", "ab"),
        ("\u{202e}fdp.exe", "fdp.exe"),
        ("..", "file"),
        ("/etc/passwd", "passwd"),
        (".bashrc", "bashrc"),
        ("a\r\n\u{1b}[2Jb", "a[2Jb"),
    ] {
        let (ct, descriptor) = sealed(name.as_bytes(), name);
        let wanted = offered(&world, &mut alice, &mut bob, &ct, descriptor);
        assert_eq!(saved(&bob.get(&wanted)), [(want, true, name.len() as u64)], "{name:?}");
    }
    let long = format!("{}.jpeg", "☃".repeat(83));
    let (ct, descriptor) = sealed(b"x", &long);
    let wanted = offered(&world, &mut alice, &mut bob, &ct, descriptor);
    assert_eq!(saved(&bob.get(&wanted)), [(long.as_str(), true, 1)]);
    assert_eq!(bob.downloaded().len(), 9);
}

#[test]
fn files_are_listed_with_what_is_known_of_them() {
    let (world, mut alice, mut bob) = two();
    let id = alice.offer("bob", "a.bin", &content(12), false);
    alice.offer("bob", "b.txt", b"hello", true);
    bob.fetch();
    world.put_file("alice", "bob", "sealed", b"no message speaks of it");
    let events = bob.shown(|client| client.show_files(Some(&to("alice")))).0;
    let rows: Vec<_> = events
        .iter()
        .map(|event| match event {
            Event::Row(Row::File { file, target, name, size, id, encrypted, .. }) => {
                (*file, target.as_str(), name.as_deref(), *size, *id, *encrypted)
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        rows,
        [
            (1, "alice", Some("a.bin"), SIZE as u64, Some(id), true),
            (2, "alice", Some("b.txt"), 5, Some(id + 1), false),
            (3, "alice", None, 23, None, true)
        ]
    );
    let all = alice.shown(|client| client.show_files(None)).0;
    assert!(
        all.len() == 3 && matches!(&all[0], Event::Row(Row::File { target, name: Some(_), .. }) if target == "bob")
    );
}

/// As `dsc tail --save` does, until nothing is left to do; what was shown.
fn save_all(person: &mut Person, saver: &mut Saver) -> Vec<Event> {
    let (events, done) = person.shown(|client| {
        client.store.save_files();
        client.catch_up(Reading::All)?;
        while saver.step(client)? {}
        Ok(())
    });
    done.unwrap();
    events.into_iter().filter(|event| !matches!(event, Event::Progress { .. })).collect()
}

#[test]
fn files_are_saved_as_they_come_and_once() {
    let (world, mut alice, mut bob) = two();
    alice.offer("bob", "before.txt", b"before", false);
    bob.fetch();
    let mut saver = Saver::new(&bob.downloads_folder(), 200_000).unwrap();
    assert_eq!(saved(&save_all(&mut bob, &mut saver)), [], "what was read before is not saved");
    alice.offer("bob", "a.bin", &content(13), false);
    let large = alice.offer("bob", "large.bin", &content(13).repeat(3), false);
    alice.offer("bob", "bad.bin", &content(13), false);
    world.damage_file(4, |ct| ct[HEADER] ^= 1);
    alice.offer("bob", "clear.txt", b"clear", true);
    let own = bob.offer("alice", "own.txt", b"own", false);
    let events = save_all(&mut bob, &mut saver);
    assert_eq!(saved(&events), [("a.bin", true, SIZE as u64), ("clear.txt", false, 5)]);
    let not: Vec<&str> = events
        .iter()
        .filter_map(|event| match event {
            Event::Notice { kind, text, .. } if kind == "not-saved" => Some(text.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(not.len(), 2, "{not:?}");
    assert!(not[0].contains("--save-max") && not[0].contains(&format!("dsc get-file 'alice/{large}'")), "{}", not[0]);
    assert!(not[1].contains("(auth)"), "{}", not[1]);
    assert!(own > large);
    // Neither the same program nor another one does it again.
    assert_eq!(saved(&save_all(&mut bob, &mut saver)), []);
    let mut again = Saver::new(&bob.downloads_folder(), 200_000).unwrap();
    assert_eq!(saved(&save_all(&mut bob, &mut again)), []);
    assert_eq!(bob.downloaded().len(), 2);
    bob.has_nothing_begun();
}

#[test]
fn what_was_not_saved_to_its_end_is_saved_later() {
    let (world, mut alice, mut bob) = two();
    alice.offer("bob", "a.bin", &content(14).repeat(8), false);
    let mut saver = Saver::new(&bob.downloads_folder(), u64::MAX).unwrap();
    world.lose_question_after("/get-file", 2);
    let (_, done) = bob.shown(|client| {
        client.store.save_files();
        client.catch_up(Reading::All)?;
        while saver.step(client)? {}
        Ok(())
    });
    assert_eq!(done.unwrap_err().exit, Exit::Network);
    // The program ends, and begins again.
    drop(saver);
    let mut again = Saver::new(&bob.downloads_folder(), u64::MAX).unwrap();
    assert_eq!(saved(&save_all(&mut bob, &mut again)).len(), 1);
    assert_eq!(bob.downloaded(), [("a.bin".to_owned(), content(14).repeat(8))]);
    bob.has_nothing_begun();
}

/// The server answers so for as long as the data of a file is damaged there: the others are not held up by it.
#[test]
fn a_file_that_the_server_cannot_read_holds_nothing_up() {
    let (world, mut alice, mut bob) = two();
    let id = alice.offer("bob", "damaged.bin", &content(16), false);
    alice.offer("bob", "a.bin", &content(17), false);
    let mut saver = Saver::new(&bob.downloads_folder(), u64::MAX).unwrap();
    world.refuse_next("/get-file", "internal");
    let events = save_all(&mut bob, &mut saver);
    assert_eq!(saved(&events), [("a.bin", true, SIZE as u64)]);
    let not = events.iter().find_map(|event| match event {
        Event::Notice { kind, text, .. } if kind == "not-saved" => Some(text.as_str()),
        _ => None,
    });
    assert!(not.is_some_and(|text| text.contains(&format!("`dsc get-file 'alice/{id}'`"))), "{not:?}");
    // What is there of it is gone on with.
    assert_eq!(saved(&bob.get(&format!("alice/{id}"))), [("damaged.bin", true, SIZE as u64)]);
    bob.has_nothing_begun();
}

/// Whatever happened to a part: the file is right in the end, and stands there once.
#[test]
fn a_part_that_was_cut_or_changed_makes_no_wrong_file() {
    let (world, mut alice, mut bob) = two();
    let strategy = (any::<bool>(), 1_usize..3, 0..5, any::<proptest::sample::Index>());
    let (mut seed, bytes) = (0_u8, content(15).repeat(6));
    let mut runner = TestRunner::new(ProptestConfig { cases: 12, failure_persistence: None, ..Default::default() });
    let people = std::cell::RefCell::new((&mut alice, &mut bob, &mut seed));
    let done = runner.run(&strategy, |(plain, after, how, at)| {
        let (alice, bob, seed) = &mut *people.borrow_mut();
        **seed += 1;
        let bytes: Vec<u8> = bytes.iter().map(|byte| byte ^ **seed).collect();
        let id = alice.offer("bob", "a.bin", &bytes, plain);
        bob.fetch();
        let wanted = format!("alice/{id}");
        world.lose_question_after("/get-file", after);
        prop_assert!(bob.try_get(&wanted).1.is_err());
        let path = bob.downloads_folder().join("a.bin.part");
        let mut part = std::fs::read(&path).unwrap();
        let place = at.index(part.len());
        match how {
            0 => part.truncate(place),
            1 => part[place] ^= 1,
            2 => part.extend(vec![7; place]),
            3 => part[place..].fill(0),
            _ => part.clear(),
        }
        // In place: it is the same file.
        std::fs::write(&path, &part).unwrap();
        let events = bob.get(&wanted);
        prop_assert_eq!(saved(&events).len(), 1);
        prop_assert!(bob.downloaded() == [("a.bin".to_owned(), bytes)]);
        bob.has_nothing_begun();
        std::fs::remove_file(bob.downloads_folder().join("a.bin")).unwrap();
        Ok(())
    });
    done.unwrap();
}

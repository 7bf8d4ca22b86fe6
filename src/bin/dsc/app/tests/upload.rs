//! Sending files, and every place where it can be cut off.

use std::path::{Path, PathBuf};

use downstream::e2e::descriptor::Descriptor;
use downstream::e2e::file::{HEADER, Receiver};
use downstream::e2e::inner::{Body, Inner};

use super::*;
use crate::app::upload::SentFile;
use crate::app::{Client, Origin, Sending};
use crate::error::Failure;
use crate::spool::Spool;
use crate::store::{Stage, Upload, What};

/// Large enough for several pieces on the wire.
const SIZE: usize = 200_000;

fn content(seed: u8) -> Vec<u8> {
    (0..SIZE).map(|at| (at / 7) as u8 ^ seed).collect()
}

impl Person {
    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn try_file(&mut self, target: &str, path: &Path) -> Result<SentFile, Failure> {
        self.with(|client| whole(client, &to(target), path, false))
    }

    fn send_file(&mut self, target: &str, path: &Path) -> SentFile {
        self.try_file(target, path).unwrap()
    }

    fn uploads(&mut self) -> Vec<Upload> {
        self.with(|client| client.uploads()).unwrap()
    }

    fn spooled(&self) -> Vec<String> {
        Spool::of(&self.path("dsc")).ids().unwrap()
    }

    /// Every file of a conversation that this device knows of.
    fn described(&mut self, target: &str) -> Vec<Descriptor> {
        let target = to(target);
        let file = |what: &What| match what {
            What::Sealed { inner, .. } => match Inner::parse(inner).unwrap().body {
                Body::File(file) => Some(file),
                _ => None,
            },
            _ => None,
        };
        let mut found = Vec::new();
        for id in 1..50 {
            let entry = self.with(|client| client.transact(|tx| Ok(tx.entry(&target, id)?))).unwrap();
            found.extend(entry.and_then(|entry| file(&entry.what)));
        }
        found
    }

    fn has_nothing_left(&mut self) {
        assert_eq!(self.uploads(), []);
        assert_eq!(self.spooled(), [] as [&str; 0]);
    }
}

fn sending<'a>(target: &'a Target, path: &'a Path, plain: bool) -> Sending<'a> {
    Sending { target, name: None, mime: None, plain, by_hand: false, from: Origin::Path(path, true) }
}

/// As `dsc send-file` does.
fn whole(client: &mut Client<'_>, target: &Target, path: &Path, plain: bool) -> Result<SentFile, Failure> {
    client.check_receiver(target, plain)?;
    let mut work = client.begin_upload(sending(target, path, plain), None)?;
    client.finish_upload(&mut work)
}

/// As `dsc resume` does.
fn resume(person: &mut Person) -> Vec<SentFile> {
    let ids: Vec<String> = person.uploads().into_iter().map(|upload| upload.id).collect();
    let go_on = |client: &mut Client<'_>| {
        let mut sent = Vec::new();
        for id in &ids {
            if let Some(mut work) = client.take_upload(id, None)? {
                sent.push(client.finish_upload(&mut work)?);
            }
        }
        Ok(sent)
    };
    person.with(go_on).unwrap()
}

fn opened(file: &Descriptor, ct: &[u8]) -> Vec<u8> {
    let (header, mut rest) = ct.split_first_chunk::<HEADER>().unwrap();
    let mut receiver = Receiver::new(file, header).unwrap();
    let mut out = Vec::new();
    while let Some(n) = receiver.wants() {
        let (now, later) = rest.split_at(n);
        out.extend_from_slice(&receiver.chunk(now).unwrap());
        rest = later;
    }
    assert!(rest.is_empty());
    receiver.finish().unwrap();
    out
}

fn asked(world: &World, verb: &str) -> usize {
    world.questions().iter().filter(|question| question.starts_with(verb)).count()
}

#[test]
fn a_file_reaches_somebody_who_is_offline() {
    for bytes in [content(1), Vec::new(), vec![7]] {
        let (world, mut alice, mut bob) = two();
        let path = alice.write("report.pdf", &bytes);
        let sent = alice.send_file("bob", &path);
        assert_eq!((sent.name.as_str(), sent.size, sent.encrypted), ("report.pdf", bytes.len() as u64, true));
        bob.fetch();
        let [file] = &bob.described("alice")[..] else { panic!() };
        assert_eq!((file.name.as_str(), file.mime.as_str()), ("report.pdf", "application/pdf"));
        assert_eq!(opened(file, &world.files()[0]), bytes);
        assert!(!world.questions().iter().any(|question| question.contains("report")), "the server learns no name");
        alice.has_nothing_left();
    }
}

#[test]
fn a_file_reaches_a_room_and_ones_own_devices() {
    let (world, mut alice, mut bob) = two();
    let mut phone = Person::without_keys(&world, "alice");
    phone.link_to(&mut alice);
    alice.with(|client| client.create(&room("#r"), true, false, None)).unwrap();
    bob.with(|client| client.join(&room("#r"))).unwrap();
    let path = alice.write("a.bin", &content(2));
    alice.send_file("#r", &path);
    alice.send_file("bob", &path);
    bob.fetch();
    phone.fetch();
    let files = world.files();
    assert_eq!(files.len(), 2);
    assert_ne!(files[0], files[1], "nothing is sealed alike");
    for (of, mine, at) in [("#r", "#r", 0), ("alice", "bob", 1)] {
        assert_eq!(opened(&bob.described(of)[0], &files[at]), content(2));
        assert_eq!(opened(&phone.described(mine)[0], &files[at]), content(2));
    }
}

#[test]
fn a_lost_connection_is_gone_on_from_where_it_was_lost() {
    for lost_answer in [true, false] {
        let (world, mut alice, mut bob) = two();
        let path = alice.write("a.bin", &content(3));
        if lost_answer {
            world.lose_answer_after("/chunk", 1);
        } else {
            world.lose_question_after("/chunk", 2);
        }
        assert_eq!(alice.try_file("bob", &path).unwrap_err().exit, Exit::Network);
        let before = alice.uploads();
        let Stage::Sealed(file) = &before[0].stage else { panic!("{before:?}") };
        let copy = std::fs::read(alice.path("dsc/spool").join(&before[0].id)).unwrap();
        assert_eq!(opened(file, &copy), content(3));
        world.forget_questions();
        alice.send_file("bob", &path);
        // Four pieces in all, and two of them were there.
        assert_eq!(asked(&world, "/chunk"), 2);
        assert_eq!(world.files(), [copy], "sealed once");
        bob.fetch();
        assert_eq!(bob.described("alice"), std::slice::from_ref(file));
        alice.has_nothing_left();
    }
}

/// Where a process can die: the next command of a kind fails, before the server has it or after.
#[test]
fn wherever_it_is_cut_off_it_is_finished_once() {
    let (world, mut alice, mut bob) = two();
    let mut sent = 0;
    for by_resume in [true, false] {
        for (verb, answer) in
            [("/send-file", true), ("/send-file", false), ("/chunk", true), ("/post", true), ("/post", false)]
        {
            for after in 0..if verb == "/chunk" { 4 } else { 1 } {
                let path = alice.write("a.bin", &content(sent as u8));
                if answer {
                    world.lose_answer_after(verb, after);
                } else {
                    world.lose_question_after(verb, after);
                }
                let case = format!("{by_resume} {verb} {answer} {after}");
                assert_eq!(alice.try_file("bob", &path).unwrap_err().exit, Exit::Network, "{case}");
                let again = if by_resume { resume(&mut alice) } else { vec![alice.send_file("bob", &path)] };
                assert_eq!((again.len(), again[0].size), (1, SIZE as u64), "{case}");
                bob.fetch();
                let (described, files) = (bob.described("alice"), world.files());
                assert_eq!((described.len(), files.len()), (sent + 1, sent + 1), "{case}");
                assert_eq!(opened(&described[sent], &files[sent]), content(sent as u8), "{case}");
                alice.has_nothing_left();
                sent += 1;
            }
        }
    }
}

#[test]
fn what_waits_in_the_outbox_needs_no_copy_and_goes_out_with_any_command() {
    let (world, mut alice, mut bob) = two();
    let path = alice.write("a.bin", &content(5));
    world.lose_next_question("/post");
    alice.try_file("bob", &path).unwrap_err();
    assert!(matches!(alice.uploads()[0].stage, Stage::Announced(_)));
    assert_eq!(alice.spooled(), [] as [&str; 0]);
    alice.send("bob", "by the way");
    alice.has_nothing_left();
    bob.fetch();
    assert_eq!(bob.described("alice").len(), 1);
}

#[test]
fn a_copy_that_was_not_finished_is_made_anew_under_another_key() {
    let (world, mut alice, mut bob) = two();
    let path = alice.write("a.bin", &content(6));
    // As a process leaves it that was killed while it sealed.
    let target = to("bob");
    let killed = |person: &mut Person, path: &Path| {
        let work = person.with(|client| client.begin_upload(sending(&target, path, false), None)).unwrap();
        let unfinished = Upload { stage: Stage::Preparing, ..work.upload.clone() };
        person.with(|client| client.transact(|tx| Ok(tx.put_upload(&unfinished)?))).unwrap();
        work.upload
    };
    let left = killed(&mut alice, &path);
    let Stage::Sealed(before) = &left.stage else { panic!() };
    let sent = resume(&mut alice);
    assert_eq!(sent.len(), 1);
    bob.fetch();
    let [file] = &bob.described("alice")[..] else { panic!() };
    assert!(file.key != before.key && file.blob_id != before.blob_id);
    assert_eq!(opened(file, &world.files()[0]), content(6));
    // Nor is it finished where the source has changed, or by the same command.
    killed(&mut alice, &path);
    std::fs::write(&path, b"other").unwrap();
    assert_eq!(resume(&mut alice), []);
    alice.has_nothing_left();
    killed(&mut alice, &path);
    assert_eq!(alice.send_file("bob", &path).size, 5);
    alice.has_nothing_left();
}

#[test]
fn a_source_that_has_changed_is_sent_anew() {
    let (world, mut alice, mut bob) = two();
    let path = alice.write("a.bin", &content(7));
    world.lose_next_question("/chunk");
    alice.try_file("bob", &path).unwrap_err();
    let Stage::Sealed(before) = alice.uploads()[0].stage.clone() else { panic!() };
    // Of the same length.
    std::fs::write(&path, content(8)).unwrap();
    let (events, sent) = alice.shown(|client| whole(client, &to("bob"), &path, false));
    sent.unwrap();
    assert!(events.iter().any(|event| matches!(event, Event::Notice { kind, .. } if kind == "upload-anew")));
    bob.fetch();
    let [file] = &bob.described("alice")[..] else { panic!() };
    assert!(file.key != before.key);
    assert_eq!(opened(file, &world.files()[0]), content(8));
    alice.has_nothing_left();
}

#[test]
fn a_damaged_copy_is_told_and_a_damaged_upload_is_repeated() {
    let (world, mut alice, mut bob) = two();
    let path = alice.write("a.bin", &content(9));
    world.lose_question_after("/chunk", 2);
    alice.try_file("bob", &path).unwrap_err();
    // On the server: what is here is still right.
    world.damage_file(1, |bytes| bytes[1000] ^= 1);
    alice.send_file("bob", &path);
    bob.fetch();
    assert_eq!(opened(&bob.described("alice")[0], &world.files()[0]), content(9));
    // Here.
    let path = alice.write("b.bin", &content(10));
    world.lose_question_after("/chunk", 2);
    alice.try_file("bob", &path).unwrap_err();
    let copy = alice.path("dsc/spool").join(&alice.uploads()[0].id);
    let mut bytes = std::fs::read(&copy).unwrap();
    bytes[150_000] ^= 1;
    std::fs::write(&copy, bytes).unwrap();
    let failure = alice.try_file("bob", &path).unwrap_err();
    assert!(failure.exit == Exit::Failed && failure.message.contains("damaged"), "{failure:?}");
    alice.has_nothing_left();
    // A copy that was cut is noticed before anything is sent.
    world.lose_question_after("/chunk", 2);
    alice.try_file("bob", &path).unwrap_err();
    let copy = alice.path("dsc/spool").join(&alice.uploads()[0].id);
    std::fs::OpenOptions::new().write(true).open(&copy).unwrap().set_len(1000).unwrap();
    alice.send_file("bob", &path);
    bob.fetch();
    assert_eq!(opened(&bob.described("alice")[1], &world.files()[1]), content(10));
    alice.has_nothing_left();
}

#[test]
fn what_the_server_says_on_the_way_is_heeded() {
    let (world, mut alice, mut bob) = two();
    for (n, (verb, code)) in
        [("/chunk", "conflict"), ("/chunk", "busy"), ("/chunk", "not-found"), ("/send-file", "rate-limited")]
            .into_iter()
            .enumerate()
    {
        let path = alice.write("a.bin", &content(20 + n as u8));
        world.refuse_next(verb, code);
        alice.send_file("bob", &path);
        bob.fetch();
        assert_eq!(opened(&bob.described("alice")[n], &world.files()[n]), content(20 + n as u8), "{code}");
    }
    // A server that forgot the end of what it had.
    let path = alice.write("b.bin", &content(30));
    world.lose_question_after("/chunk", 2);
    alice.try_file("bob", &path).unwrap_err();
    world.damage_file(5, |bytes| bytes.truncate(70_000));
    alice.send_file("bob", &path);
    for code in ["quota", "too-long", "forbidden"] {
        world.refuse_next("/send-file", code);
        let failure = alice.try_file("bob", &path).unwrap_err();
        assert!(failure.exit == Exit::Refused && failure.hint.is_some(), "{failure:?}");
        assert_eq!(alice.uploads().len(), 1, "it may be finished later");
    }
    resume(&mut alice);
    alice.has_nothing_left();
}

#[test]
fn what_cannot_be_sent_is_known_before_it_is_sealed() {
    let (_world, mut alice, _bob) = two();
    let path = alice.write("a.bin", &content(1));
    assert_eq!(alice.try_file("nobody", &path).unwrap_err().exit, Exit::NoSession);
    assert_eq!(alice.try_file("#unknown", &path).unwrap_err().exit, Exit::Usage);
    for max in [0, 1000, SIZE as u64] {
        let failure = alice
            .with(|client| client.begin_upload(sending(&to("bob"), &path, false), Some(max)).map(drop))
            .unwrap_err();
        assert_eq!(failure.exit, Exit::Usage, "{failure}");
    }
    let endless = |client: &mut Client<'_>| {
        let target = to("bob");
        let mut input = std::io::repeat(7);
        let from = Origin::Stream(&mut input);
        let sending = Sending { target: &target, name: None, mime: None, plain: false, by_hand: false, from };
        client.begin_upload(sending, Some(1 << 20)).map(drop)
    };
    assert_eq!(alice.with(endless).unwrap_err().exit, Exit::Usage);
    let missing = alice.path("missing");
    assert_eq!(alice.try_file("bob", &missing).unwrap_err().exit, Exit::Failed);
    let directory = alice.path("");
    let sent = alice.with(|client| {
        let target = to("bob");
        let from = Origin::Path(&directory, false);
        let sending = Sending { target: &target, name: None, mime: None, plain: false, by_hand: false, from };
        client.begin_upload(sending, None).map(drop)
    });
    assert_eq!(sent.unwrap_err().exit, Exit::Usage);
    alice.has_nothing_left();
}

#[test]
fn streams_and_directories_are_sealed_too() {
    let (world, mut alice, mut bob) = two();
    let bytes = content(11);
    alice
        .with(|client| {
            let target = to("bob");
            let mut input = &bytes[..];
            let (name, from) = (Some("dump.sql"), Origin::Stream(&mut input));
            let sending = Sending { target: &target, name, mime: None, plain: false, by_hand: false, from };
            let mut work = client.begin_upload(sending, None)?;
            client.finish_upload(&mut work)
        })
        .unwrap();
    let directory = alice.path("photos");
    std::fs::create_dir_all(directory.join("summer")).unwrap();
    std::fs::write(directory.join("summer/sea.jpg"), &bytes).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", directory.join("link")).unwrap();
    alice.send_file("bob", &directory);
    bob.fetch();
    let files = bob.described("alice");
    assert_eq!((files[0].name.as_str(), opened(&files[0], &world.files()[0])), ("dump.sql", bytes.clone()));
    assert_eq!((files[1].name.as_str(), files[1].mime.as_str()), ("photos.tar", "application/x-tar"));
    let archive = opened(&files[1], &world.files()[1]);
    let mut archive = tar::Archive::new(&archive[..]);
    let entry = |entry: tar::Entry<'_, &[u8]>| {
        let link = entry.link_name().unwrap().map(|link| link.display().to_string());
        (entry.path().unwrap().display().to_string(), entry.size(), link)
    };
    let found: Vec<_> = archive.entries().unwrap().map(|found| entry(found.unwrap())).collect();
    let plain = |path: &str, size: u64| (path.to_owned(), size, None);
    assert_eq!(
        found,
        [
            plain("photos", 0),
            ("photos/link".to_owned(), 0, Some("/etc/passwd".to_owned())),
            plain("photos/summer", 0),
            plain("photos/summer/sea.jpg", SIZE as u64)
        ]
    );
    alice.has_nothing_left();
}

#[test]
fn clear_files_have_their_names_and_no_place_in_sealed_rooms() {
    let (world, mut alice, mut bob) = two();
    let path = alice.write("two words.txt", &content(12));
    world.lose_question_after("/chunk", 2);
    alice.with(|client| whole(client, &to("bob"), &path, true)).unwrap_err();
    let sent = alice.with(|client| whole(client, &to("bob"), &path, true)).unwrap();
    assert!(!sent.encrypted && !sent.duplicate);
    assert_eq!(world.files(), [content(12)]);
    assert!(alice.with(|client| whole(client, &to("bob"), &path, true)).unwrap().duplicate);
    let row = world.answer("bob", "/fetch alice");
    assert!(row.contains(" :two words.txt"), "{row}");
    alice.with(|client| client.create(&room("#r"), true, false, None)).unwrap();
    let failure = alice.with(|client| whole(client, &to("#r"), &path, true)).unwrap_err();
    assert_eq!(failure.exit, Exit::Usage);
    // What changed on the way is not gone on with.
    let path = alice.write("b.txt", &content(13));
    world.lose_question_after("/chunk", 2);
    alice.with(|client| whole(client, &to("bob"), &path, true)).unwrap_err();
    std::fs::write(&path, content(14)).unwrap();
    assert_eq!(resume(&mut alice), []);
    alice.has_nothing_left();
    alice.with(|client| whole(client, &to("bob"), &path, true)).unwrap();
    assert_eq!(world.files()[1], content(14));
    bob.fetch();
    alice.has_nothing_left();
}

#[test]
fn one_process_at_a_time_works_at_an_upload() {
    let (world, mut alice, _bob) = two();
    let path = alice.write("a.bin", &content(15));
    let target = to("bob");
    let mut work = alice.with(|client| client.begin_upload(sending(&target, &path, false), None)).unwrap();
    let failure = alice.try_file("bob", &path).unwrap_err();
    assert!(failure.message.contains("another dsc"), "{failure}");
    assert_eq!(resume(&mut alice), []);
    assert_eq!(alice.uploads().len(), 1, "the sweep leaves it alone");
    alice.with(|client| client.finish_upload(&mut work)).unwrap();
    assert_eq!(world.files().len(), 1);
    drop(work);
    alice.has_nothing_left();
}

#[test]
fn an_upload_that_is_given_up_leaves_nothing_here_or_there() {
    let (world, mut alice, _bob) = two();
    let path = alice.write("a.bin", &content(16));
    world.lose_question_after("/chunk", 2);
    alice.try_file("bob", &path).unwrap_err();
    let id = alice.uploads()[0].id.clone();
    world.forget_questions();
    alice.with(|client| client.give_up_upload(&id)).unwrap();
    assert_eq!(asked(&world, "/drop-file 1"), 1);
    alice.has_nothing_left();
    // One whose message waits is as good as sent.
    world.lose_next_question("/post");
    alice.try_file("bob", &path).unwrap_err();
    let id = alice.uploads()[0].id.clone();
    alice.with(|client| client.give_up_upload(&id)).unwrap_err();
    assert_eq!(resume(&mut alice).len(), 1);
    alice.has_nothing_left();
}

/// The server names its files only to members, and `/files` of the room is refused like everything else there.
#[test]
fn an_upload_to_a_room_that_was_left_can_be_given_up() {
    let (world, mut alice, _bob) = two();
    alice.with(|client| client.create(&room("#r"), true, false, None)).unwrap();
    let path = alice.write("a.bin", &content(18));
    world.lose_question_after("/chunk", 2);
    alice.try_file("#r", &path).unwrap_err();
    let id = alice.uploads()[0].id.clone();
    world.forget_questions();
    world.refuse_next("/files #r", "not-member");
    alice.with(|client| client.give_up_upload(&id)).unwrap();
    assert_eq!(asked(&world, "/drop-file 1"), 1);
    alice.has_nothing_left();
}

/// Nobody was told how to open it, and it would take of the quota for ever.
#[test]
fn a_sealed_upload_that_was_whole_and_not_announced_is_dropped_with_it() {
    let (world, mut alice, _bob) = two();
    let path = alice.write("a.bin", &content(19));
    alice.with(|client| client.check_receiver(&to("bob"), false)).unwrap();
    world.lose_answer_after("/chunk", SIZE / downstream::protocol::file::CHUNK_MAX);
    alice.try_file("bob", &path).unwrap_err();
    let id = alice.uploads()[0].id.clone();
    assert!(matches!(alice.uploads()[0].stage, Stage::Sealed(_)));
    assert!(world.answer("alice", "/files").contains("state=done"), "the server has all of it");
    alice.with(|client| client.give_up_upload(&id)).unwrap();
    assert_eq!(asked(&world, "/drop-file 1"), 1);
    alice.has_nothing_left();
}

#[test]
fn lines_for_a_session_by_hand_send_the_same() {
    let (world, mut alice, mut bob) = two();
    alice.send("bob", "so that there is a session");
    bob.fetch();
    bob.send("alice", "yes");
    alice.fetch();
    let path = alice.write("a.bin", &content(17));
    let target = to("bob");
    let by_hand = || Sending { by_hand: true, ..sending(&target, &path, false) };
    let mut print = |_: &str| Ok(());
    let early = alice.by_hand(|client| client.print_upload(by_hand(), "1", 0, &mut print)).unwrap_err();
    assert_eq!(early.exit, Exit::Usage);
    alice.has_nothing_left();
    for no_file in [Path::new("/dev/null"), path.parent().unwrap()] {
        let sending = Sending { by_hand: true, ..sending(&target, no_file, false) };
        let failure = alice.by_hand(|client| client.begin_upload(sending, None)).err().unwrap();
        assert!(failure.exit == Exit::Usage && failure.message.contains("only files"), "{failure}");
        alice.has_nothing_left();
    }
    let opening = alice.by_hand(|client| client.begin_upload(by_hand(), None)?.opening_line()).unwrap();
    let again = alice.by_hand(|client| client.begin_upload(by_hand(), None)?.opening_line()).unwrap();
    assert_eq!(opening, again);
    world.answer("alice", &opening);
    let printed = |person: &mut Person, offset: u64| {
        let mut lines = Vec::new();
        let mut print = |line: &str| {
            lines.push(line.to_owned());
            Ok(())
        };
        person.by_hand(|client| client.print_upload(by_hand(), "1", offset, &mut print)).unwrap();
        lines
    };
    let lines = printed(&mut alice, 0);
    assert_eq!(lines.len(), 5);
    world.answer("alice", &lines[0]);
    let rest = printed(&mut alice, 65_536);
    assert_eq!(&rest[..3], &lines[1..4], "the same bytes, also from the middle");
    rest.iter().for_each(|line| drop(world.answer("alice", line)));
    bob.fetch();
    assert_eq!(opened(&bob.described("alice")[0], &world.files()[0]), content(17));
    // It is nobody else's to finish, and is removed by hand.
    assert!(alice.uploads()[0].by_hand);
    let id = alice.uploads()[0].id.clone();
    alice.by_hand(|client| client.give_up_upload(&id)).unwrap();
    alice.has_nothing_left();
}

//! Attacks 12 and 18 by the server: what it answers about files, calls them, and does with them on their way up.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::evil::file::{Row, pieces_up};
use crate::evil::stage::asked;
use crate::evil::{Caught, Dsc, Inbox, Stage, Verdict, Way};

/// Alice and Bob, both with `dsc`.
struct Scene {
    stage: Stage,
    alice: Dsc,
    bob: Inbox,
}

impl Scene {
    fn new() -> Scene {
        let stage = Stage::new();
        let (alice, bob) = (stage.dsc("alice"), Inbox::of(stage.dsc("bob")));
        Scene { stage, alice, bob }
    }

    /// The same, with an end-to-end room of both.
    fn with_room() -> Scene {
        let scene = Scene::new();
        scene.alice.run(&["create", "#room"]).ok();
        scene.alice.run(&["invite", "#room", "bob"]).ok();
        scene.bob.dsc.run(&["join", "#room"]).ok();
        scene
    }

    fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.alice.path(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Alice sends a file; the number of its message.
    fn send(&self, to: &str, name: &str, content: &[u8]) -> u64 {
        let path = self.write(name, content);
        let ran = self.alice.run(&["send-file", to, path.to_str().unwrap()]).ok();
        ran.of("file-sent")[0]["id"].as_u64().unwrap()
    }

    /// The same, and Bob takes its message in; how he gets it.
    fn sent(&self, name: &str, content: &[u8]) -> String {
        let id = self.send("bob", name, content);
        self.bob.dsc.run(&["fetch"]).ok();
        format!("alice/{id}")
    }

    /// What the server does to the answers that Bob gets.
    fn lies(&self, mut lie: impl FnMut(&Caught) -> Option<Vec<String>> + Send + 'static) {
        self.stage.evil.script(move |caught| match caught.user == "bob" && caught.way == Way::Down {
            true => lie(caught).map_or(Verdict::Pass, Verdict::Instead),
            false => Verdict::Pass,
        });
    }
}

/// Bytes of which no two pieces are alike.
fn content(n: usize, seed: usize) -> Vec<u8> {
    (0..n).map(|i| (i * 31 + i / 251 + seed) as u8).collect()
}

/// An error in the place of a reply.
fn error(caught: &Caught, code: &str) -> Option<Vec<String>> {
    Some(vec![format!("ERR {} {code} :says the server", caught.words()[1])])
}

/// What the relay does with a line.
type Deed = Box<dyn FnMut(&Caught) -> Verdict + Send>;

/// The same, of the line alone.
type Answers = fn(&Caught) -> Verdict;

/// What is sent in the place of a line of the server, if anything is.
type Lie = fn(&Caught, Option<Row>) -> Option<Vec<String>>;

#[test]
fn a18_wrong_answers_to_get_file() {
    let scene = Scene::new();
    let whole = content(150_000, 0);
    let wanted = scene.sent("report", &whole);
    // Each with the exit code: the server does not keep to the protocol, or says no.
    let lies: [(&str, i32, Lie); 14] = [
        ("another offset", 1, |_, row| row.map(|row| vec![Row { offset: row.offset + 1, ..row }.line()])),
        ("each row twice", 1, |caught, row| row.map(|_| vec![caught.line.clone(); 2])),
        ("a row left out", 1, |_, row| row.filter(|row| row.offset > 0 && row.offset < 131_072).map(|_| vec![])),
        ("no row", 1, |_, row| row.map(|_| vec![])),
        ("short rows", 1, |_, row| row.map(|row| vec![Row { bytes: row.bytes[1..].to_vec(), ..row }.line()])),
        ("a byte too much", 1, |_, row| {
            row.map(|row| vec![Row { bytes: [&row.bytes[..], &[0]].concat(), ..row }.line()])
        }),
        ("a row too much", 1, |caught, _| {
            let end: u64 = caught.words().get(3)?.strip_prefix("offset=")?.parse().ok()?;
            let file = caught.words()[2].strip_prefix("file=")?.parse().ok()?;
            Some(vec![Row { file, offset: end, bytes: vec![0; 9] }.line(), caught.line.clone()])
        }),
        ("another file", 1, |_, row| row.map(|row| vec![Row { file: row.file + 1, ..row }.line()])),
        ("no base64", 1, |_, row| row.map(|row| vec![format!("- chunk {} {} !!!!", row.file, row.offset)])),
        ("another kind of row", 1, |_, row| row.map(|_| vec!["- msg 1 2026-01-01T00:00:00.000Z bob alice :hi".into()])),
        ("half a row", 1, |_, row| row.map(|row| vec![format!("- chunk {}", row.file)])),
        ("another size", 1, |caught, _| {
            caught.is_down("OK get-file").then(|| vec![caught.line.replace(" size=", " size=1")])
        }),
        ("no size", 1, |caught, _| {
            caught.is_down("OK get-file").then(|| vec![caught.line.replace(" size=", " length=")])
        }),
        ("an error behind the rows", 6, |caught, _| {
            caught.is_down("OK get-file").then(|| error(caught, "not-found")).flatten()
        }),
    ];
    for (what, code, lie) in lies {
        scene.lies(move |caught| lie(caught, Row::read(caught)));
        let ran = scene.bob.get(&wanted);
        assert_eq!(ran.code, code, "{what}: {ran:?}");
        assert!(ran.of("file-received").is_empty(), "{what}");
        let names = scene.bob.names();
        assert!(names.iter().all(|name| name == "report.part"), "{what}: {names:?}");
    }
    scene.stage.evil.honest();
    scene.bob.takes(&wanted, &whole);
    assert_eq!(scene.bob.names(), ["report"], "nothing of all that is left");
}

#[test]
fn a18_an_answer_that_ends_the_connection() {
    // What cannot be read as the protocol ends a connection. The next one goes on.
    let lies: [(&str, Lie); 6] = [
        ("an answer to nothing", |caught, _| Some(vec!["OK drop-file file=1".into(), caught.line.clone()])),
        ("another label", |caught, _| Some(vec![caught.line.replacen("OK get-file@", "OK get-file@9", 1)])),
        ("no line", |caught, _| Some(vec!["HTTP/1.1 400 Bad Request".into(), caught.line.clone()])),
        ("a bye", |caught, _| Some(vec!["* bye error :go".into(), caught.line.replacen("OK", "NO", 1)])),
        ("a line without end", |caught, _| {
            Some(vec!["- chunk 1 0 ".to_owned() + &"A".repeat(1 << 20), caught.line.clone()])
        }),
        ("rows without end", |_, _| Some(vec![Row { file: 1, offset: 0, bytes: vec![0; 65_536] }.line(); 110])),
    ];
    let scene = Scene::new();
    for (i, (what, lie)) in lies.into_iter().enumerate() {
        let whole = content(70_000, i);
        let wanted = scene.sent(&format!("{i}"), &whole);
        let mut told = false;
        scene.lies(move |caught| match caught.is_down("OK get-file") && !std::mem::replace(&mut told, true) {
            true => lie(caught, None),
            false => None,
        });
        let path = scene.bob.takes(&wanted, &whole);
        assert_eq!(path, scene.bob.path().join(i.to_string()), "{what}");
    }
    assert_eq!(scene.bob.names().len(), 6);
}

#[test]
fn a18_wrong_answers_to_files() {
    let scene = Scene::new();
    let (whole, other) = (content(5000, 0), content(5000, 1));
    let wanted = scene.sent("report", &whole);
    scene.sent("other", &other);
    scene.sent("short", b"short");
    let rows = asked(&mut scene.stage.puppet("bob"), "/files");
    let rows: Vec<String> = rows.into_iter().filter(|row| row.starts_with("- upload ")).collect();
    let shown = |rows: &[String]| {
        let rows = rows.to_vec();
        move |caught: &Caught| match caught.line.split_once(' ') {
            Some(("-", row)) if row.starts_with("upload ") => Some(vec![]),
            Some(("OK", reply)) if reply.starts_with("files") => {
                Some([rows.clone(), vec![caught.line.replace(" more=no", " more=yes")]].concat())
            }
            _ => None,
        }
    };
    // Another file in its place, of the same length: it is not under this key.
    scene.lies(shown(&rows[1..2]));
    scene.bob.refuses("another of that length", &wanted, "commit");
    let claimed = rows[1].replace(rows[1].split(' ').find(|word| word.starts_with("sha256=")).unwrap(), {
        rows[0].split(' ').find(|word| word.starts_with("sha256=")).unwrap()
    });
    scene.lies(shown(&[claimed]));
    scene.bob.refuses("another under its hash", &wanted, "commit");
    for (what, row, code) in [
        ("another", rows[2].clone(), 1),
        ("one that is not whole", rows[0].replace("state=done", "state=partial offset=7"), 6),
        ("none", "- upload".to_owned(), 6),
        ("nothing that can be read", rows[0].replace(" size=", " size=-"), 6),
    ] {
        scene.lies(shown(&[row]));
        scene.bob.get(&wanted).fails(code);
        assert!(scene.bob.names().is_empty(), "{what}");
    }
    // A list that says for ever that there is more of the same.
    scene.lies(shown(&rows));
    let ran = scene.bob.dsc.run(&["files"]).ok();
    assert!(ran.of("row").len() <= 6, "{ran:?}");
    scene.bob.takes(&wanted, &whole);
}

/// Calls files something nice, and perhaps has the messages that speak of them vanish.
fn nice(caught: &Caught, drop: bool) -> Option<Vec<String>> {
    let of_file = ["- file ", "* file ", "- upload "].iter().any(|prefix| caught.is_down(prefix));
    if of_file && caught.line.ends_with(" :sealed") {
        return Some(vec![caught.line.replace(" :sealed", " :holiday.jpg")]);
    }
    (drop && caught.body().is_some()).then(Vec::new)
}

#[test]
fn a12_a_sealed_file_under_a_nice_name() {
    let scene = Scene::with_room();
    let whole = content(3000, 0);
    // With its message: it is what the message says.
    let id = scene.send("#room", "true name", &whole);
    scene.lies(|caught| nice(caught, false));
    let ran = scene.bob.dsc.run(&["fetch"]);
    assert_eq!(ran.unreadable(), ["plain"], "the server's own word for it");
    let shown = ran.of("message");
    assert_eq!((shown.len(), &shown[0]["content"]["name"]), (1, &"true name".into()));
    let path = scene.bob.takes(&format!("#room/{id}"), &whole);
    assert_eq!(path.file_name().unwrap(), "true name");

    // Without: it is refused, however it is named.
    scene.send("#room", "second", &content(3000, 1));
    scene.lies(|caught| nice(caught, true));
    let ran = scene.bob.dsc.run(&["fetch"]);
    assert_eq!((ran.of("message").len(), ran.unreadable()), (0, vec!["plain".to_owned()]), "{ran:?}");
    let rows = asked(&mut scene.stage.puppet("bob"), "/fetch #room");
    let file = rows.iter().rev().find(|row| row.starts_with("- file ")).unwrap();
    let words: Vec<&str> = file.split(' ').collect();
    let number = words.iter().find_map(|word| word.strip_prefix("file=")).unwrap();
    for wanted in [number.to_owned(), format!("#room/{}", words[2])] {
        let ran = scene.bob.get(&wanted).fails(1);
        assert!(ran.out.contains("in clear"), "{ran:?}");
    }
    assert_eq!(scene.bob.names(), ["true name"]);

    // Between two who have pinned each other it is shown for what it is: something in clear, by the server's word.
    scene.stage.evil.honest();
    scene.alice.run(&["send", "bob", "hello"]).ok();
    scene.bob.dsc.run(&["fetch"]);
    let secret = content(3000, 2);
    scene.send("bob", "third", &secret);
    scene.lies(|caught| nice(caught, true));
    let ran = scene.bob.dsc.run(&["fetch"]).ok();
    let shown = ran.of("message");
    assert_eq!((shown.len(), &shown[0]["encrypted"]), (1, &false.into()), "{ran:?}");
    assert_eq!(shown[0]["marks"], serde_json::json!(["plain"]));
    let ran = scene.bob.get(&format!("alice/{}", shown[0]["id"])).ok();
    assert_eq!(ran.of("file-received")[0]["encrypted"], false);
    assert_ne!(scene.bob.files()["holiday.jpg"], secret, "the ciphertext, and no more");
}

#[test]
fn a12_a_file_that_the_server_makes_up() {
    let scene = Scene::with_room();
    scene.alice.run(&["send", "#room", "sealed"]).ok();
    scene.bob.dsc.run(&["fetch"]).ok();
    let hash = crate::common::e2e::armour::hex(&crate::evil::forge::hash(&[b"#!/bin/sh\n"]));
    let keys = format!("size=10 sha256={hash}");
    scene.stage.evil.script(move |caught| {
        if caught.user != "bob" || caught.way == Way::Down {
            return Verdict::Pass;
        }
        let file = format!("- file 900 2026-01-01T00:00:00.000Z #room alice file=77 {keys} :run.sh");
        let upload = format!("- upload 77 2026-01-01T00:00:00.000Z #room alice {keys} state=done :run.sh");
        match caught.verb() {
            "/fetch" => Verdict::Answer(vec![file, "OK fetch{label} count=1 more=no".into()]),
            "/unread" => {
                Verdict::Answer(vec!["- unread #room count=1 first=900 last=900".into(), "OK unread{label}".into()])
            }
            "/files" => Verdict::Answer(vec![upload, "OK files{label} count=1 more=no".into()]),
            "/get-file" => {
                let row = Row { file: 77, offset: 0, bytes: b"#!/bin/sh\n".to_vec() }.line();
                Verdict::Answer(vec![row, "OK get-file{label} file=77 offset=10 size=10 more=no".into()])
            }
            _ => Verdict::Pass,
        }
    });
    let ran = scene.bob.dsc.run(&["fetch"]);
    assert_eq!((ran.of("message").len(), ran.unreadable()), (0, vec!["plain".to_owned()]), "{ran:?}");
    for wanted in ["77", "#room/900"] {
        let ran = scene.bob.get(wanted).fails(1);
        assert!(ran.out.contains("in clear"), "{ran:?}");
    }
    assert!(scene.bob.names().is_empty());

    // Pasted by hand it is refused as well.
    for (name, code) in [("run.sh", 1), ("sealed", 0)] {
        let line = format!("- file 900 2026-01-01T00:00:00.000Z #room alice file=77 size=10 sha256={hash} :{name}\n");
        let ran = scene.bob.dsc.plain(&["open"], line.as_bytes()).fails(code);
        assert_eq!(ran.out.contains("cannot open (plain)"), code == 1, "{ran:?}");
    }

    // Asked for a file of the room, it shows one of another conversation, where clear files are: a person's, or the
    // one that somebody else has sealed.
    scene.stage.evil.honest();
    // Under a number that the room has not.
    scene.alice.run(&["send", "bob", "one"]).ok();
    let theirs = scene.sent("theirs", b"said to Bob, and not to the room");
    let rows = asked(&mut scene.stage.puppet("bob"), "/fetch alice");
    let row = rows.iter().find(|row| row.starts_with("- file ")).unwrap().clone();
    let number = row.split(' ').nth(2).unwrap().to_owned();
    let clear = row.replace(" :sealed", " :run.sh");
    let moved = row.replace(" bob alice ", " #room alice ");
    for (row, code) in [(row, 6), (clear, 6), (moved, 3)] {
        scene.lies(move |caught| match caught.line.split_once(' ') {
            Some(("OK", reply)) if reply.starts_with("fetch") => Some(vec![row.clone(), caught.line.clone()]),
            Some(("-", row)) if row.starts_with("msg ") || row.starts_with("file ") => Some(vec![]),
            _ => None,
        });
        let ran = scene.bob.get(&format!("#room/{number}"));
        assert_eq!(ran.code, code, "{ran:?}");
        assert!(scene.bob.names().is_empty());
    }
    scene.stage.evil.honest();
    scene.bob.takes(&theirs, b"said to Bob, and not to the room");
}

#[test]
fn a12_send_file_never_falls_back() {
    const SECRET: &[u8] = b"this is not said in the clear; ";
    let scene = Scene::with_room();
    scene.alice.run(&["send", "#room", "sealed"]).ok();
    let path = scene.write("secret-plans.txt", &SECRET.repeat(100));
    let path = path.to_str().unwrap();
    let lies: [(&str, Answers); 6] = [
        ("e2e-required", |c| answered(c, "/send-file", "ERR send-file{label} e2e-required :not sealed")),
        ("an unknown room", |c| answered(c, "/send-file", "ERR send-file{label} no-such-room :none")),
        ("no such command", |c| answered(c, "/send-file", "ERR send-file{label} unknown-command :use --plain")),
        ("no keys", |c| answered(c, "/keys", "ERR keys{label} unknown-command :E2E unsupported")),
        ("no files", |c| instead(c, "* hello ", "max-file=4294967296", "max-file=0")),
        ("no encryption", |c| match c.is_command("/roster") {
            true => Verdict::Answer(vec!["ERR roster{label} unknown-command :E2E unsupported".into()]),
            false => instead(c, "", " e2e=yes", " e2e=no"),
        }),
    ];
    for (what, lie) in lies {
        scene.stage.evil.forget();
        scene.stage.evil.script(lie);
        for target in ["bob", "#room"] {
            let ran = scene.alice.run(&["send-file", target, path]);
            let plain = scene.stage.evil.captured().iter().any(|c| tells(c, SECRET));
            assert!(!plain, "{what}, {target}: {ran:?}");
            // To somebody whose keys are here already, or with a roster that is here, it may well be sent: sealed.
            assert!(ran.code == 0 || ran.of("file-sent").is_empty(), "{what}: {ran:?}");
        }
        if !matches!(what, "no keys" | "no encryption") {
            assert!(scene.stage.sent_by("alice").is_empty(), "{what}: nobody is told of it");
        }
        scene.alice.run(&["send-file", "--plain", "#room", path]).refused();
        assert!(!scene.stage.evil.captured().iter().any(|c| tells(c, SECRET)), "{what}");
    }
}

fn answered(caught: &Caught, verb: &str, line: &str) -> Verdict {
    if caught.is_command(verb) { Verdict::Answer(vec![line.into()]) } else { Verdict::Pass }
}

fn instead(caught: &Caught, prefix: &str, from: &str, to: &str) -> Verdict {
    match caught.is_down(prefix) && caught.line.contains(from) {
        true => Verdict::Instead(vec![caught.line.replace(from, to)]),
        false => Verdict::Pass,
    }
}

/// Whether a line to the server says something of a file in clear.
fn tells(caught: &Caught, secret: &[u8]) -> bool {
    let named = caught.way == Way::Up && caught.line.contains("secret-plans");
    let called = caught.is_command("/send-file") && caught.words()[2] != "sealed";
    let pieces = pieces_up(std::slice::from_ref(caught), "alice");
    named || called || pieces.iter().any(|row| row.bytes.windows(secret.len()).any(|window| window == secret))
}

#[test]
fn a18_what_happens_to_pieces_on_their_way() {
    let scene = Scene::new();
    let second = |c: &Caught| c.is_command("/chunk") && c.words()[2] == "65536";
    /// Does something to the first piece that fits, once.
    fn once(mut to: impl FnMut(&Caught) -> Option<Verdict> + Send + 'static) -> Deed {
        let mut done = false;
        Box::new(move |caught| {
            if done {
                return Verdict::Pass;
            }
            let verdict = to(caught);
            done = verdict.is_some();
            verdict.unwrap_or(Verdict::Pass)
        })
    }
    let changed = |caught: &Caught| {
        let mut row = pieces_up(std::slice::from_ref(caught), "alice").remove(0);
        row.bytes[1000] ^= 1;
        let line = row.line();
        Verdict::Instead(vec![line.replacen("- chunk", caught.line.split(' ').next().unwrap(), 1)])
    };
    let mut kept = None;
    let scripts: [(&str, Deed); 6] = [
        ("twice", once(move |c| second(c).then(|| Verdict::Instead(vec![c.line.clone(); 2])))),
        ("lost", once(move |c| second(c).then_some(Verdict::Drop))),
        (
            "lost, with an answer",
            once(move |c| {
                let line = || format!("OK chunk{{label}} file={} offset=131072", c.words()[1]);
                second(c).then(|| Verdict::Answer(vec![line()]))
            }),
        ),
        (
            "in another order",
            Box::new(move |c| match (c.is_command("/chunk"), &kept) {
                (true, None) => {
                    kept = Some(c.line.clone());
                    Verdict::Drop
                }
                (true, Some(line)) if !line.is_empty() => {
                    let lines = vec![c.line.clone(), line.clone()];
                    kept = Some(String::new());
                    Verdict::Instead(lines)
                }
                _ => Verdict::Pass,
            }),
        ),
        ("changed", once(move |c| second(c).then(|| changed(c)))),
        ("changed at the end", once(move |c| (c.is_command("/chunk") && c.words()[2] == "262144").then(|| changed(c)))),
    ];
    for (i, (what, script)) in scripts.into_iter().enumerate() {
        let whole = content(300_000, i);
        // A dropped line is noticed when the connection ends.
        if what == "lost" {
            let mut script = script;
            let evil = &scene.stage.evil;
            evil.script(move |caught| script(caught));
            let path = scene.write("lost", &whole);
            let running = scene.alice.start(&["send-file", "bob", path.to_str().unwrap()]);
            evil.wait_line("the piece behind it", |c| c.is_command("/chunk") && c.words()[2] == "262144");
            evil.cut();
            running.until_end().ok();
            let ran = scene.bob.dsc.run(&["fetch"]).ok();
            scene.bob.takes(&format!("alice/{}", ran.of("message")[0]["id"]), &whole);
            continue;
        }
        scene.stage.evil.script(script);
        let wanted = scene.sent(what, &whole);
        scene.bob.takes(&wanted, &whole);
    }
    // Changed whenever it is sent: nobody is told of it, and nothing of it is left there.
    let before = scene.stage.sent_by("alice").len();
    scene.stage.evil.script(move |c| if second(c) { changed(c) } else { Verdict::Pass });
    let path = scene.write("never", &content(300_000, 9));
    let ran = scene.alice.run(&["send-file", "bob", path.to_str().unwrap()]).fails(6);
    assert!(ran.out.contains("checksum"), "{ran:?}");
    assert_eq!(scene.stage.sent_by("alice").len(), before);
    scene.stage.evil.honest();
    let rows = asked(&mut scene.stage.puppet("alice"), "/files");
    assert!(rows.iter().all(|row| !row.contains("state=partial")), "{rows:?}");
    // What was sent under one number and place was always the same.
    let sent = pieces_up(&scene.stage.evil.captured(), "alice");
    let distinct: BTreeSet<_> = sent.iter().map(|row| (row.file, row.offset, &row.bytes)).collect();
    let places: BTreeSet<_> = sent.iter().map(|row| (row.file, row.offset)).collect();
    assert_eq!(distinct.len(), places.len());
}

#[test]
fn a18_a_server_that_does_not_get_on() {
    let scene = Scene::new();
    let path = scene.write("report", &content(300_000, 0));
    let send = ["send-file", "bob", path.to_str().unwrap()];
    // Back and forth: it has now more and now less.
    let mut asked = 0_u64;
    scene.stage.evil.script(move |c| match c.verb() {
        "/send-file" if c.way == Way::Up => {
            asked += 1;
            Verdict::Answer(vec![format!("OK send-file{{label}} file=9 offset={} chunk=65536", asked % 2 * 65_536)])
        }
        "/chunk" if c.way == Way::Up => Verdict::Answer(vec!["ERR chunk{label} conflict offset=7 :no".into()]),
        _ => Verdict::Pass,
    });
    scene.alice.run(&send).fails(6);
    // More than there is, and all of it without an end.
    for offset in [300_000_000, 328_000] {
        scene.stage.evil.script(move |c| match c.verb() {
            "/send-file" if c.way == Way::Up => {
                Verdict::Answer(vec![format!("OK send-file{{label}} file=9 offset={offset} chunk=0")])
            }
            _ => Verdict::Pass,
        });
        scene.alice.run(&send).refused();
    }
    assert!(scene.stage.sent_by("alice").is_empty(), "nobody is told of it");
    // It says that it has it, and has not: that is told, and what comes is nothing.
    scene.stage.evil.script(|c| match c.verb() {
        "/send-file" if c.way == Way::Up => {
            Verdict::Answer(vec!["OK send-file{label} file=9 offset=0 done=yes id=1".into()])
        }
        _ => Verdict::Pass,
    });
    scene.alice.run(&send).ok();
    scene.stage.evil.honest();
    let ran = scene.bob.dsc.run(&["fetch"]).ok();
    scene.bob.get(&format!("alice/{}", ran.of("message")[0]["id"])).fails(6);
    assert!(scene.bob.names().is_empty());
}

#[test]
fn a18_what_is_anothers() {
    const HELLO: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    let s = Stage::new();
    let [mut alice, mut bob, mut eve] = ["alice", "bob", "eve"].map(|name| s.account(name));
    let last = |client: &mut crate::support::Client, command: &str| asked(client, command).pop().unwrap();
    let begun = last(&mut alice, &format!("/send-file bob hello 5 {HELLO}"));
    let file = begun.split(' ').find_map(|word| word.strip_prefix("file=")).unwrap().to_owned();
    let chunk = |at: usize, text: &str| format!("/chunk {file} {at} {text}");
    // Not theirs, and not whole: as if it were not there.
    for client in [&mut eve, &mut bob] {
        for command in [chunk(0, "aGVsbG8="), format!("/get-file {file}"), format!("/drop-file {file}")] {
            assert!(last(client, &command).contains(" not-found "), "{command}");
        }
    }
    // Two at once, from two sessions: each piece has one place, and the second learns where it stands.
    let mut twin = s.puppet("alice");
    assert!(last(&mut twin, &format!("/send-file bob hello 5 {HELLO}")).contains(&format!("file={file} offset=0")));
    assert!(last(&mut alice, &chunk(0, "aGU=")).contains("offset=2"));
    assert!(last(&mut twin, &chunk(0, "aGVs")).contains("conflict offset=2"));
    assert!(last(&mut twin, &chunk(2, "bGxv")).contains("done=yes"));
    for client in [&mut alice, &mut twin] {
        let reply = last(client, &chunk(2, "bGxv"));
        assert!(reply.contains(" conflict offset=5 "), "it is whole: {reply}");
    }
    assert!(asked(&mut bob, &format!("/get-file {file}")).contains(&format!("- chunk {file} 0 aGVsbG8=")));
    for command in ["get", "drop"] {
        assert!(last(&mut eve, &format!("/{command}-file {file}")).contains(" not-found "), "{command}");
    }
    assert!(last(&mut bob, &format!("/drop-file {file}")).contains(" forbidden "));
    assert_eq!(asked(&mut eve, "/files").len(), 1);
}

#[test]
fn a18_who_was_removed_gets_no_later_file() {
    let scene = Scene::with_room();
    let carol = Inbox::of(scene.stage.dsc("carol"));
    scene.alice.run(&["invite", "#room", "carol"]).ok();
    carol.dsc.run(&["join", "#room"]).ok();
    let (early, late) = (content(4000, 0), content(4000, 1));
    let first = scene.send("#room", "early", &early);
    carol.dsc.run(&["fetch"]).ok();
    scene.alice.run(&["kick", "#room", "carol"]).ok();
    let second = scene.send("#room", "late", &late);
    scene.bob.dsc.run(&["fetch"]).ok();
    for (id, whole) in [(first, &early), (second, &late)] {
        scene.bob.takes(&format!("#room/{id}"), whole);
    }
    // The honest server gives her nothing more; one that helps her gives her bytes without a key.
    carol.get(&format!("#room/{first}")).fails(6);
    let mut puppet = scene.stage.puppet("alice");
    puppet.say("/invite #room carol");
    puppet.until("OK invite ...");
    let mut hers = scene.stage.puppet("carol");
    hers.say("/join #room");
    hers.until("OK join ...");
    carol.dsc.run(&["fetch"]);
    carol.takes(&format!("#room/{first}"), &early);
    carol.get(&format!("#room/{second}")).refused();
    assert_eq!(carol.names(), ["early"]);
    let sealed = asked(&mut hers, "/files #room");
    assert_eq!(sealed.iter().filter(|row| row.contains(" state=done :sealed")).count(), 2, "{sealed:?}");
}

use proptest::prelude::*;

use super::super::file::{CHUNK_MAX, CHUNK_TEXT_MAX, FileId};
use super::super::reply::{Code, Head, Line};
use super::super::{Label, LineSplitter};
use super::*;

fn user(name: &str) -> UserName {
    UserName::parse(name).unwrap()
}

fn fields<'a>(line: &'a str) -> Fields<'a> {
    match ServerLine::parse(line) {
        ServerLine::Row(fields) | ServerLine::Event(fields) => fields,
        other => panic!("{line:?} is {other:?}"),
    }
}

#[test]
fn the_first_characters_tell() {
    let ServerLine::Ok { verb, label, fields } = ServerLine::parse("OK msg@a1 id=7 time=T to=#r new=1 :a  b :c") else {
        panic!()
    };
    assert_eq!((verb, label), ("msg", Some("a1")));
    assert_eq!((fields.key("id"), fields.key("to"), fields.key("no")), (Some("7"), Some("#r"), None));
    assert_eq!(fields.text(), Some("a  b :c"));
    let ServerLine::Err { verb, label, code, fields } = ServerLine::parse("ERR * too-long max=4096 :too long") else {
        panic!()
    };
    assert_eq!((verb, label, code), ("*", None, "too-long"));
    assert_eq!((fields.key("max"), fields.text()), (Some("4096"), Some("too long")));
    // A code that this program does not know is a code.
    assert!(matches!(ServerLine::parse("ERR msg@x brand-new"), ServerLine::Err { code: "brand-new", .. }));
    assert!(matches!(ServerLine::parse("OK ping :"), ServerLine::Ok { fields, .. } if fields.text() == Some("")));
    assert!(matches!(ServerLine::parse("OK quit"), ServerLine::Ok { fields, .. } if fields.words().count() == 0));
    for line in ["", "OK", "OK ", "ERR", "ERR x", "ERR x ", "-", "*", "ok ping", "OK Ping", "OK ping@", "ERR ping UP"] {
        assert_eq!(ServerLine::parse(line), ServerLine::Other, "{line:?}");
    }
    for line in ["220 mail ESMTP", "HTTP/1.1 400 Bad Request", "-row", "*event", "PING :x"] {
        assert_eq!(ServerLine::parse(line), ServerLine::Other, "{line:?}");
    }
}

#[test]
fn rows_have_words_and_a_text() {
    let row = fields("- room #r members=3 e2e=yes topic= :the topic");
    assert_eq!((row.kind(), row.word(1), row.word(9)), ("room", Some("#r"), None));
    assert_eq!((row.key("topic"), row.text()), (Some(""), Some("the topic")));
    let padded = fields("- roster #r 7 AAA=");
    assert_eq!((padded.word(3), padded.text()), (Some("AAA="), None));
    assert_eq!(fields("- :text only").text(), Some("text only"));
    assert_eq!(fields("- :text only").kind(), "");
    assert_eq!(fields("- help /ping [text] — says it back").whole(), "help /ping [text] — says it back");
}

#[test]
fn messages_and_whose_they_are() {
    let time = "2023-11-14T22:13:20.001Z";
    let line = format!("* msg 12 {time} bob alice missed=yes new=key :e2e:AAAA");
    let message = MessageLine::read(&fields(&line)).unwrap();
    assert_eq!((message.id, message.time.to_string().as_str(), message.missed), (12, time, true));
    assert_eq!((message.body, message.sender.as_str()), ("e2e:AAAA", "alice"));
    assert_eq!(message.conversation(&user("bob")).as_str(), "alice", "received");
    assert_eq!(message.conversation(&user("alice")).as_str(), "bob", "sent");
    let line = format!("- msg 1 {time} #Room alice :hi  there :)");
    let message = MessageLine::read(&fields(&line)).unwrap();
    assert_eq!(message.conversation(&user("bob")).as_str(), "#room");
    assert_eq!((message.body, message.missed), ("hi  there :)", false));
    let me = format!("- msg 1 {time} alice alice :a note to oneself");
    assert_eq!(MessageLine::read(&fields(&me)).unwrap().conversation(&user("alice")).as_str(), "alice");
    for (wrong, part) in [
        (format!("* msg x {time} bob alice :b"), "ID"),
        (format!("* msg -1 {time} bob alice :b"), "ID"),
        (format!("* msg +1 {time} bob alice :b"), "ID"),
        (format!("* msg 01 {time} bob alice :b"), "ID"),
        (format!("* msg 99999999999999999999 {time} bob alice :b"), "ID"),
        ("* msg 1 now bob alice :b".into(), "TIME"),
        (format!("* msg 1 {time} b/b alice :b"), "TARGET"),
        (format!("* msg 1 {time} bob :b"), "SENDER"),
        (format!("* msg 1 {time} bob #alice :b"), "SENDER"),
        (format!("* msg 1 {time} bob alice"), "BODY"),
        (format!("* file 1 {time} bob alice :b"), "kind"),
    ] {
        assert_eq!(MessageLine::read(&fields(&wrong)), Err(Malformed { kind: "msg", part }), "{wrong}");
    }
}

#[test]
fn files_signals_and_unread_counts() {
    let time = "2023-11-14T22:13:20.001Z";
    let hash = "0f".repeat(32);
    let line = format!("- file 3 {time} alice bob file=17 size=70000 sha256={hash} missed=yes :my cat.png");
    let file = FileLine::read(&fields(&line)).unwrap();
    assert_eq!((file.file, file.size, file.sha256, file.name), (FileId(17), 70000, [15; 32], "my cat.png"));
    assert!(file.missed && !file.gone && file.conversation(&user("alice")).as_str() == "bob");
    let gone = line.replace("missed=yes", "gone=yes");
    assert!(FileLine::read(&fields(&gone)).unwrap().gone);
    for (from, to, part) in [
        ("file=17", "file=F17", "file"),
        ("size=70000", "size=1e3", "size"),
        ("sha256=0f", "sha256=0g", "sha256"),
        ("sha256=0f", "sha256=0f0f", "sha256"),
        (" :my cat.png", "", "NAME"),
    ] {
        let wrong = line.replacen(from, to, 1);
        assert_eq!(FileLine::read(&fields(&wrong)), Err(Malformed { kind: "file", part }), "{wrong}");
    }
    let line = format!("* signal 9 {time} bob :e2e:AAAA");
    let signal = SignalLine::read(&fields(&line)).unwrap();
    assert_eq!((signal.id, signal.sender.as_str(), signal.body), (9, "bob", "e2e:AAAA"));
    assert_eq!(
        SignalLine::read(&fields("* signal 9 x bob :b")).unwrap_err().to_string(),
        "a line of the kind signal has no TIME that can be read"
    );
    let unread = UnreadLine::read(&fields("- unread #r count=2 first=5 last=6")).unwrap();
    assert_eq!((unread.target.as_str(), unread.count, unread.first, unread.last), ("#r", 2, 5, 6));
    assert_eq!(UnreadLine::read(&fields("- unread #r count=0 first=0 last=6")).unwrap().count, 0);
    assert!(UnreadLine::read(&fields("- unread #r first=0 last=6")).is_err());
}

#[test]
fn uploads_and_chunks() {
    let time = "2023-11-14T22:13:20.001Z";
    let hash = "0f".repeat(32);
    let line = format!("- upload 17 {time} alice bob size=70000 sha256={hash} state=partial offset=65536 :my cat.png");
    let upload = UploadLine::read(&fields(&line)).unwrap();
    assert_eq!((upload.file, upload.size, upload.partial, upload.name), (FileId(17), 70000, Some(65536), "my cat.png"));
    assert_eq!(upload.conversation(&user("alice")).as_str(), "bob");
    let done = line.replace("state=partial offset=65536", "state=done");
    assert_eq!(UploadLine::read(&fields(&done)).unwrap().partial, None);
    for (from, to, part) in [
        ("upload 17", "upload x", "F"),
        (time, "now", "TIME"),
        ("size=70000", "size=-1", "size"),
        ("sha256=0f", "sha256=0g", "sha256"),
        ("state=partial", "state=lost", "state"),
        ("state=partial ", "", "state"),
        ("offset=65536", "offset=x", "offset"),
        (" :my cat.png", "", "NAME"),
    ] {
        let wrong = line.replacen(from, to, 1);
        assert_eq!(UploadLine::read(&fields(&wrong)), Err(Malformed { kind: "upload", part }), "{wrong}");
    }

    let chunk = ChunkLine::read(&fields("- chunk 17 65536 aGk=")).unwrap();
    assert_eq!((chunk.file, chunk.offset, chunk.bytes()), (FileId(17), 65536, Ok(b"hi".to_vec())));
    let malformed = |part| Malformed { kind: "chunk", part };
    let longest = format!("- chunk 17 0 {}A==", "A".repeat(CHUNK_TEXT_MAX - 3));
    assert_eq!(ChunkLine::read(&fields(&longest)).unwrap().bytes().unwrap().len(), CHUNK_MAX);
    let longer = longest.replace("A==", "AA=");
    assert_eq!(ChunkLine::read(&fields(&longer)).unwrap().bytes(), Err(malformed("BASE64")));
    for (wrong, part) in [
        ("- chunk x 0 aGk=".to_owned(), "F"),
        ("- chunk 17 +1 aGk=".to_owned(), "OFFSET"),
        ("- chunk 17 0".to_owned(), "BASE64"),
        ("- chunk 17 0 aGk".to_owned(), "BASE64"),
        (format!("{longest}AAAA"), "BASE64"),
    ] {
        assert_eq!(ChunkLine::read(&fields(&wrong)), Err(malformed(part)), "{wrong}");
    }
    assert_eq!(ChunkLine::read(&fields("- chunk 17 0 a!k=")).unwrap().bytes(), Err(malformed("BASE64")));
}

#[test]
fn greetings() {
    let line = "* hello downstream/1 server=home version=0.1.0 max-line=131072 max-body=98304 max-file=1000 registration=invite :hi";
    let hello = Hello::read(&fields(line)).unwrap();
    assert_eq!(
        (hello.server.as_str(), hello.version.as_str(), hello.registration.as_str()),
        ("home", "0.1.0", "invite")
    );
    assert_eq!((hello.max_line, hello.max_body, hello.max_file), (131_072, 98_304, Some(1000)));
    let bare = Hello::read(&fields("* hello downstream/1")).unwrap();
    assert_eq!((bare.max_line, bare.max_file), (MAX_LINE, None));
    // No server makes this program send, or make room for, more than it would.
    assert_eq!(Hello::read(&fields("* hello downstream/1 max-line=99999999999")).unwrap().max_line, MAX_LINE);
    for wrong in [
        "* hello",
        "* hello downstream/2",
        "* hello downstream/10",
        "* hi downstream/1",
        "* hello downstream/1 max-line=x",
    ] {
        assert!(Hello::read(&fields(wrong)).is_err(), "{wrong}");
    }
}

/// A word that [`Line::arg`] takes: no space, and not what begins a text.
fn word() -> impl Strategy<Value = String> {
    "[^ \\n\\r\\x00:][^ \\n\\r\\x00]{0,12}"
}

#[derive(Debug, Clone)]
enum Piece {
    Arg(String),
    Key(String, String),
}

fn pieces() -> impl Strategy<Value = Vec<Piece>> {
    let key = ("[a-z][a-z0-9-]{0,8}", "[^ \\n\\r\\x00]{0,12}").prop_map(|(key, value)| Piece::Key(key, value));
    proptest::collection::vec(prop_oneof![word().prop_map(Piece::Arg), key], 0..8)
}

proptest! {
    /// Whatever the server's side puts together is taken apart into the same pieces.
    #[test]
    fn what_is_written_reads_back(
        kind in 0..4u8,
        verb in "[a-z-]{1,32}",
        label in proptest::option::of("[A-Za-z0-9._-]{1,64}"),
        code in 0..Code::ALL.len(),
        pieces in pieces(),
        text in proptest::option::of("[^\\n\\r\\x00]{0,40}"),
    ) {
        let head = Head { verb: verb.clone().into(), label: label.as_deref().and_then(Label::parse) };
        let mut line = match kind {
            0 => Line::ok(&head),
            1 => Line::err(&head, Code::ALL[code]),
            2 => Line::row(&verb),
            _ => Line::event(&verb),
        };
        for piece in &pieces {
            line = match piece {
                Piece::Arg(word) => line.arg(word),
                Piece::Key(key, value) => line.key(key, value),
            };
        }
        let bytes = line.maybe_text(text.as_deref()).finish();
        let mut splitter = LineSplitter::new(SERVER_LINE_MAX);
        splitter.fill(&bytes);
        let line = splitter.next_line().unwrap().unwrap().to_owned();
        prop_assert!(splitter.is_empty());

        let (skipped, fields) = match (kind, ServerLine::parse(&line)) {
            (0, ServerLine::Ok { verb: v, label: l, fields }) => {
                prop_assert_eq!((v, l), (verb.as_str(), label.as_deref()));
                (0, fields)
            }
            (1, ServerLine::Err { verb: v, label: l, code: c, fields }) => {
                prop_assert_eq!((v, l, c), (verb.as_str(), label.as_deref(), Code::ALL[code].as_str()));
                (0, fields)
            }
            (2, ServerLine::Row(fields)) | (3, ServerLine::Event(fields)) => {
                prop_assert_eq!(fields.kind(), verb.as_str());
                (1, fields)
            }
            (_, other) => return Err(TestCaseError::fail(format!("{line:?} became {other:?}"))),
        };
        let words: Vec<String> = pieces.iter().map(|piece| match piece {
            Piece::Arg(word) => word.clone(),
            Piece::Key(key, value) => format!("{key}={value}"),
        }).collect();
        prop_assert_eq!(fields.words().skip(skipped).collect::<Vec<_>>(), words);
        prop_assert_eq!(fields.text(), text.as_deref());
        for piece in &pieces {
            if let Piece::Key(key, _) = piece {
                let first = pieces.iter().find_map(|other| match other {
                    Piece::Key(k, v) if k == key => Some(v.as_str()),
                    Piece::Arg(word) => word.split_once('=').filter(|(k, _)| k == key).map(|(_, v)| v),
                    Piece::Key(..) => None,
                });
                prop_assert_eq!(fields.key(key), first);
            }
        }
    }

    /// No line makes a reader panic.
    #[test]
    fn any_line_is_something(
        start in prop_oneof![Just(""), Just("OK "), Just("ERR "), Just("- "), Just("* "), Just("* msg "), Just("- file "), Just("- upload "), Just("- chunk 1 2 "), Just("* hello ")],
        bytes in proptest::collection::vec(prop_oneof![3 => Just(b' '), 2 => Just(b':'), 2 => Just(b'='), 1 => Just(b'@'), 4 => any::<u8>()], 0..200),
    ) {
        let line = format!("{start}{}", String::from_utf8_lossy(&bytes));
        match ServerLine::parse(&line) {
            ServerLine::Ok { fields, .. } | ServerLine::Err { fields, .. } | ServerLine::Row(fields) | ServerLine::Event(fields) => {
                let _ = (fields.words().count(), fields.keys().count(), fields.key("id"), fields.text());
                let _ = (MessageLine::read(&fields), FileLine::read(&fields), SignalLine::read(&fields));
                let _ = (UnreadLine::read(&fields), Hello::read(&fields));
                let _ = (UploadLine::read(&fields), ChunkLine::read(&fields).map(|chunk| chunk.bytes()));
            }
            ServerLine::Other => {}
        }
    }
}

use super::*;
use crate::protocol::MAX_TEXT;
use crate::protocol::file::{CHUNK_MAX, GET_DEFAULT, GET_MAX};
use crate::protocol::keys::ROSTER_ENTRY_MAX;
use crate::protocol::verb::{ADMIN_VERBS, VERBS};
use base64ct::{Base64, Encoding as _};
use proptest::prelude::*;

fn request(line: &str) -> Result<Request<'_>, ParseError> {
    parse(line).unwrap_or_else(|| panic!("{line:?} is a command"))
}

fn text_of(line: &str) -> String {
    match request(line) {
        Err(error) => error.to_string(),
        Ok(request) => panic!("{line:?} reads as {request:?}"),
    }
}

#[test]
fn every_row_of_the_tables_is_read() {
    for row in VERBS {
        let name = row.name;
        let args = vec!["#x"; row.args.0].join(" ");
        let body = if row.body == Body::Required { " text" } else { "" };
        let line = format!("/{name} {args}{body}");
        assert_ne!(request(line.trim_end()), Err(ParseError::UnknownCommand), "{name}");
    }
    for row in ADMIN_VERBS {
        let args = vec!["x"; row.args.0].join(" ");
        let body = if row.body == Body::Required { " text" } else { "" };
        let line = format!("/admin {} {args}{body}", row.name);
        assert_ne!(request(line.trim_end()), Err(ParseError::UnknownCommand), "{}", row.name);
    }
}

#[test]
fn sentences() {
    assert_eq!(Sentence::read(""), Sentence::Blank);
    assert_eq!(Sentence::read("   "), Sentence::Blank);
    assert_eq!(Sentence::read("hello there"), Sentence::Text("hello there"));
    assert_eq!(Sentence::read("  hello"), Sentence::Text("  hello"));
    assert_eq!(Sentence::read("//etc/passwd"), Sentence::Text("/etc/passwd"));
    let head =
        |verb: &'static str, label: Option<&str>| Head { verb: verb.into(), label: label.and_then(Label::parse) };
    for (line, expected) in [
        (" /login alice secret", head("msg", None)),
        ("/nope", head("nope", None)),
        ("/NoPe@a1 x", head("nope", Some("a1"))),
        ("/ping@", head("ping", None)),
        ("/ping@a!b", head("ping", None)),
        ("/", head("*", None)),
        ("/ hello", head("*", None)),
        ("/p1ng@x", head("*", Some("x"))),
    ] {
        match Sentence::read(line) {
            Sentence::Fault(head, _) => assert_eq!(head, expected, "{line:?}"),
            other => panic!("{line:?} reads as {other:?}"),
        }
    }
    match Sentence::read("/PING@A.b hi") {
        Sentence::Command(command) => assert_eq!(command.head().to_string(), "ping@A.b"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn bodies_are_kept_byte_for_byte() {
    let body = |line| match request(line) {
        Ok(Request::Msg { body, .. }) => body.to_owned(),
        other => panic!("{line:?} reads as {other:?}"),
    };
    assert_eq!(body("/msg bob hi"), "hi");
    assert_eq!(body("/msg   bob  two  spaces "), " two  spaces ");
    assert_eq!(body("/msg bob \"quotes stay\""), "\"quotes stay\"");
    assert_eq!(body("/msg \"bob\" after=1"), "after=1");
    assert_eq!(body("/msg bob  "), " ");
    for line in ["/msg bob", "/msg bob ", "/msg", "/msg ", "/ping ", "/away "] {
        assert!(matches!(request(line), Err(ParseError::Syntax(_))), "{line:?}");
    }
    assert_eq!(request("/ping"), Ok(Request::Ping { text: None }));
    assert_eq!(request("/ping  x"), Ok(Request::Ping { text: Some(" x") }));
    assert_eq!(
        request("/topic #r a b"),
        Ok(Request::Topic { room: RoomName::parse("#r").unwrap(), text: Some("a b") })
    );
    let long = format!("/msg bob {}", "x".repeat(MAX_BODY + 1));
    assert_eq!(request(&long), Err(ParseError::TooMany(MAX_BODY, "bytes in a message")));
}

#[test]
fn quotes() {
    let password = |line| match request(line) {
        Ok(Request::Login { password: Some(password), .. }) => password.0.to_string(),
        other => panic!("{line:?} reads as {other:?}"),
    };
    assert_eq!(password(r#"/login bob "a b""#), "a b");
    assert_eq!(password(r#"/login bob "a \"b\" \\c""#), r#"a "b" \c"#);
    assert_eq!(password(r#"/login bob """#), "");
    assert_eq!(password(r#"/login bob a"b\c"#), r#"a"b\c"#);
    assert_eq!(password("/login bob name=x"), "name=x");
    assert_eq!(text_of(r#"/login bob "a b"#), "a closing quote is missing");
    assert_eq!(text_of(r#"/login bob "a"b"#), "a space is missing behind the closing quote");
    assert_eq!(text_of(r#"/login bob "a\nb""#), r#"inside quotes, \ stands before " or \ only"#);
    assert_eq!(text_of("/login bob a b"), "usage: /login USER [PASSWORD]");
    assert!(!format!("{:?}", request("/login bob hunter22")).contains("hunter22"));
}

#[test]
fn options() {
    let target = Target::parse("#r").unwrap();
    assert_eq!(
        request("/fetch limit=5 #r after=7"),
        Ok(Request::Fetch { target: target.clone(), bound: Bound::After(7), limit: Some(5) })
    );
    assert_eq!(request("/fetch #R"), Ok(Request::Fetch { target, bound: Bound::Newest, limit: None }));
    for line in [
        "/fetch #r after=1 before=2",
        "/fetch #r after=x",
        "/fetch #r after=-1",
        "/fetch #r after=",
        "/fetch #r limit=0",
        "/fetch #r limit=1 limit=2",
        "/fetch #r colour=red",
        "/fetch after=1",
        "/fetch #r bob",
        "/profile bob name=x",
        "/profile set",
        "/profile set show=some",
        "/profile set nick=x",
    ] {
        assert!(matches!(request(line), Err(ParseError::Syntax(_))), "{line:?}: {:?}", request(line));
    }
    let change = ProfileChange { name: Some("Bob B".into()), note: Some(String::new()), ..ProfileChange::default() };
    assert_eq!(request(r#"/profile set "name=Bob B" note="#), Ok(Request::ProfileSet(change)));
    assert_eq!(
        request("/admin notice to=bob hi there"),
        Ok(Request::Admin(Admin::Notice { to: UserName::parse("bob").ok(), text: "hi there" }))
    );
    assert_eq!(request("/admin notice a=b c"), Ok(Request::Admin(Admin::Notice { to: None, text: "a=b c" })));
}

#[test]
fn names_and_lists() {
    assert_eq!(request("/join nothash"), Err(ParseError::Name(NameInvalid { max: 48 })));
    assert_eq!(request("/msg bo!b hi"), Err(ParseError::Name(NameInvalid { max: 32 })));
    match request("/msg bob,#r,bo!b hi") {
        Ok(Request::Msg { targets, .. }) => {
            assert_eq!(targets.len(), 3);
            assert_eq!(targets.get(2), Some(&Addressee::Invalid("bo!b", NameInvalid { max: 32 })));
        }
        other => panic!("{other:?}"),
    }
    let list = |n| (0..n).map(|n| format!("u{n}")).collect::<Vec<_>>().join(",");
    assert!(request(&format!("/msg {} x", list(100))).is_ok());
    assert_eq!(request(&format!("/msg {} x", list(101))), Err(ParseError::TooMany(100, "targets")));
    assert!(matches!(request("/msg bob,,carol x"), Err(ParseError::Syntax(_))));
    assert_eq!(
        request("/create #r e2e private :a  topic"),
        Ok(Request::Create { room: RoomName::parse("#r").unwrap(), private: true, e2e: true, topic: Some("a  topic") })
    );
    assert!(matches!(request("/create #r open"), Err(ParseError::Syntax(_))));
    assert!(matches!(request("/create #r e2e e2e"), Err(ParseError::Syntax(_))));
    assert_eq!(request("/ack AUTO"), Ok(Request::AckMode { manual: false }));
    let bob = Target::parse("bob").unwrap();
    assert_eq!(request("/ack bob 99999999999999999999"), Ok(Request::Ack { target: bob, id: u64::MAX }));
}

#[test]
fn what_programs_exchange() {
    let (bob, device) = (UserName::parse("bob").unwrap(), DeviceName::parse(&"0f".repeat(16)).unwrap());
    let get = |device, only_certificates| Ok(Request::KeysGet { user: bob.clone(), device, only_certificates });
    assert_eq!(request("/keys get Bob"), get(None, false));
    assert_eq!(request("/KEYS only=certs GET bob"), get(None, true));
    assert_eq!(request(&format!("/keys get bob device={}", "0F".repeat(16))), get(Some(device), false));
    assert_eq!(request("/keys status"), Ok(Request::KeysStatus));
    // 01 10, the device, nothing more: forget it.
    let forget = KeyUpload {
        device: DeviceName::parse("0102030405060708090a0b0c0d0e0f10").unwrap(),
        record: crate::protocol::KeyRecord::Forget,
    };
    assert_eq!(request("/keys put ARABAgMEBQYHCAkKCwwNDg8Q"), Ok(Request::KeysPut(forget)));
    for line in [
        "/keys",
        "/keys get",
        "/keys put",
        "/keys status now",
        "/keys status only=certs",
        "/keys put ARABAgMEBQYHCAkKCwwNDg8Q device=00",
        "/keys list",
        "/keys get bob device=12",
        "/keys get bob device=",
        "/keys get bob only=keys",
        "/keys get bob colour=red",
        "/keys put ARABAgMEBQYHCAkKCwwNDg8",
        "/keys put ARABAgMEBQYHCAkKCwwNDg8Q=",
        "/keys put ARABAgMEBQYHCAkKCwwNDg-_",
        "/keys put QQ==",
        "/keys put QR==",
        "/keys put \"ARABAgMEBQYH CAkKCwwNDg8Q\"",
    ] {
        assert!(matches!(request(line), Err(ParseError::Syntax(_))), "{line:?}: {:?}", request(line));
    }
    // Base64 that looks like an option is none.
    assert!(text_of("/keys put QQ==").contains("a record begins"), "{}", text_of("/keys put QQ=="));
    assert_eq!(request("/keys get #r"), Err(ParseError::Name(NameInvalid { max: 32 })));
    let many = |keys: usize| {
        let bytes = [vec![1, 0x13], vec![0; 16], vec![0; 108 * keys]].concat();
        format!("/keys put {}", Base64::encode_string(&bytes))
    };
    assert!(request(&many(100)).is_ok());
    assert!(matches!(request(&many(101)), Err(ParseError::TooMany(100, _))));

    assert_eq!(request("/signal bob e2e:QUI="), Ok(Request::Signal { user: bob, body: "e2e:QUI=" }));
    assert!(matches!(request("/signal bob"), Err(ParseError::Syntax(_))));
    assert_eq!(request("/signal #r e2e:QUI="), Err(ParseError::Name(NameInvalid { max: 32 })));
    assert!(matches!(
        request(&format!("/signal bob {}", "x".repeat(MAX_BODY + 1))),
        Err(ParseError::TooMany(MAX_BODY, _))
    ));
    assert_eq!(request("/signals"), Ok(Request::Signals { after: 0 }));
    assert_eq!(request("/signals after=7"), Ok(Request::Signals { after: 7 }));
    assert_eq!(request("/ack Signals 7"), Ok(Request::AckSignal { id: 7 }));
    for line in ["/signals 7", "/signals after=x", "/ack signals", "/ack signals x", "/ack signals 1 2"] {
        assert!(matches!(request(line), Err(ParseError::Syntax(_))), "{line:?}: {:?}", request(line));
    }

    let room = RoomName::parse("#r").unwrap();
    assert_eq!(request("/roster #r"), Ok(Request::Roster { room: room.clone(), after: 0 }));
    assert_eq!(request("/roster #R after=99999999999"), Ok(Request::Roster { room: room.clone(), after: u32::MAX }));
    let add = Request::RosterAdd { room, epoch: 3, entry: b"A".to_vec() };
    assert_eq!(request("/roster-add #r 3 QQ=="), Ok(add));
    for line in
        ["/roster-add #r 3", "/roster-add #r x QQ==", "/roster-add #r 3 QQ", "/roster-add #r 3 \"\"", "/roster #r 7"]
    {
        assert!(matches!(request(line), Err(ParseError::Syntax(_))), "{line:?}: {:?}", request(line));
    }
    let entry = |bytes| format!("/roster-add #r 1 {}", Base64::encode_string(&vec![0; bytes]));
    assert!(request(&entry(ROSTER_ENTRY_MAX)).is_ok());
    assert!(matches!(request(&entry(ROSTER_ENTRY_MAX + 1)), Err(ParseError::TooMany(ROSTER_ENTRY_MAX, _))));
}

#[test]
fn files() {
    let (bob, hash) = (Target::parse("bob").unwrap(), "0F".repeat(32));
    let name = |text| FileName::parse(text).unwrap();
    for (word, text) in
        [("cat.png", "cat.png"), ("\"my cat.png\"", "my cat.png"), ("../../x", "../../x"), ("a=b", "a=b")]
    {
        let line = format!("/send-file bob {word} 7 {hash}");
        let send = Request::SendFile { target: bob.clone(), name: name(text), size: 7, sha256: [15; 32] };
        assert_eq!(request(&line), Ok(send), "{line}");
    }
    for (line, part) in [
        (format!("/send-file bob cat.png 7 {hash}00"), "64 hexadecimal"),
        (format!("/send-file bob cat.png -7 {hash}"), "decimal number"),
        (format!("/send-file bob cat.png 1e3 {hash}"), "decimal number"),
        (format!("/send-file bob my cat.png 7 {hash}"), "usage: /send-file"),
        (format!("/send-file bob \"\" 7 {hash}"), "255"),
        (format!("/send-file bob \"a\tb\" 7 {hash}"), "255"),
        (format!("/send-file bo/b x 7 {hash}"), "name"),
        ("/chunk 1 0".to_owned(), "usage: /chunk"),
        ("/chunk x 0 QQ==".to_owned(), "number after file="),
        ("/chunk 1 x QQ==".to_owned(), "OFFSET"),
        ("/chunk 1 0 \"\"".to_owned(), "empty"),
        ("/chunk 1 0 \"Q\\\\Q\"".to_owned(), "without quotes"),
        ("/chunk 1 0 \"QQ QQ\"".to_owned(), "without quotes"),
        ("/chunk 1 0 QQ\"Q".to_owned(), "without quotes"),
        ("/chunk 1 0 QQ\\Q".to_owned(), "without quotes"),
        ("/get-file 1 length=0".to_owned(), "at least 1"),
        ("/get-file 1 offset=x".to_owned(), "decimal number"),
        ("/get-file 1 size=1".to_owned(), "unknown option"),
        ("/files bob sha256=00".to_owned(), "64 hexadecimal"),
        ("/files bob#".to_owned(), "name"),
        ("/drop-file #r".to_owned(), "number after file="),
    ] {
        assert!(text_of(&line).contains(part), "{line:?}: {}", text_of(&line));
    }
    let get = |offset, length| Ok(Request::GetFile { file: FileId(1), offset, length });
    assert_eq!(request("/get-file 1"), get(0, GET_DEFAULT));
    assert_eq!(request("/get-file 1 length=1048576 offset=5"), get(5, GET_MAX));
    assert_eq!(request("/get-file 1 length=1048577"), Err(ParseError::TooMany(1_048_576, "bytes at a time")));
    assert_eq!(request("/files"), Ok(Request::Files { target: None, after: FileId(0), sha256: None }));

    // The longest chunk has its bytes, not a byte more.
    for (bytes, fits) in [(CHUNK_MAX - 1, true), (CHUNK_MAX, true), (CHUNK_MAX + 1, false), (CHUNK_MAX + 2, false)] {
        let line = format!("/chunk 1 0 {}", Base64::encode_string(&vec![7; bytes]));
        assert_eq!(request(&line).is_ok(), fits, "{bytes}");
        assert!(fits || matches!(request(&line), Err(ParseError::TooMany(CHUNK_MAX, _))), "{bytes}");
    }
}

/// Texts that try the quoting: spaces, quotes, backslashes, equals signs, wide characters.
fn argument() -> impl Strategy<Value = String> {
    proptest::string::string_regex("[ \"\\\\=:a-zA-Z0-9#é,*@/-]{0,12}").unwrap()
}

fn line() -> impl Strategy<Value = String> {
    let verbs: Vec<String> = VERBS
        .iter()
        .map(|row| format!("/{}", row.name))
        .chain(ADMIN_VERBS.iter().map(|row| format!("/admin {}", row.name)))
        .collect();
    let word = prop_oneof![
        argument(),
        argument().prop_map(|text| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))),
        Just("bob".to_owned()),
        Just("#room".to_owned()),
        Just("12345678".to_owned()),
        Just("after=7".to_owned()),
        Just("\"name=x y\"".to_owned()),
        Just("set".to_owned()),
        Just("all".to_owned()),
        Just("on".to_owned()),
        Just("signals".to_owned()),
        Just("get".to_owned()),
        Just("put".to_owned()),
        Just(format!("device={}", "0F".repeat(16))),
        Just("only=certs".to_owned()),
        Just("ARABAgMEBQYHCAkKCwwNDg8Q".to_owned()),
        Just("QQ==".to_owned()),
        Just("0f".repeat(32)),
        Just(format!("sha256={}", "0F".repeat(32))),
        Just("offset=7".to_owned()),
        Just("length=65537".to_owned()),
    ];
    (proptest::sample::select(verbs), proptest::collection::vec(word, 0..4))
        .prop_map(|(verb, words)| format!("{verb} {}", words.join(" ")).trim_end().to_owned())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    /// What can be read is written as a line that reads the same.
    #[test]
    fn printing_reads_back(line in line()) {
        if let Some(Ok(request)) = parse(&line) {
            let printed = request.to_string();
            prop_assert_eq!(parse(&printed), Some(Ok(request)), "printed as {:?}", printed);
        }
    }

    /// Any file that can be announced is, by the line that is printed.
    #[test]
    fn files_survive(name in "[^\\pC]{1,60}", quotes in "[ \"\\\\=:]{1,9}", size in any::<u64>(), sha256 in any::<[u8; 32]>()) {
        let (target, data) = (Target::parse("#r").unwrap(), Base64::encode_string(&sha256));
        let (file, offset) = (FileId(size), size);
        let mut requests = vec![
            Request::Files { target: None, after: file, sha256: Some(sha256) },
            Request::Chunk { file, offset, data: &data },
            Request::GetFile { file, offset, length: size % GET_MAX + 1 },
        ];
        for text in [&name, &quotes, &format!("{quotes}{name}"), &format!("{name}{quotes}")] {
            let name = FileName::parse(text).unwrap();
            requests.push(Request::SendFile { target: target.clone(), name, size, sha256 });
        }
        for request in requests {
            let printed = request.to_string();
            prop_assert_eq!(parse(&printed), Some(Ok(request)), "printed as {:?}", printed);
        }
    }

    /// Any password survives its quotes.
    #[test]
    fn passwords_survive(password in "[^\n\r\0]{0,40}") {
        let request = Request::Login { user: UserName::parse("bob").unwrap(), password: Some(Password::new(&password)), takeover: false };
        let printed = request.to_string();
        prop_assert_eq!(parse(&printed), Some(Ok(request)));
    }

    /// Nothing panics.
    #[test]
    fn anything_can_be_read(line in "\\PC{0,80}") {
        let _ = Sentence::read(&line);
        let _ = parse(&line);
    }
}

#[test]
fn remarks_are_short() {
    let long = "x".repeat(MAX_TEXT + 1);
    for line in
        ["/away ", "/leave #r ", "/topic #r ", "/create #r :", "/kick #r bob ", "/ban #r bob ", "/admin kick bob "]
    {
        let fits = format!("{line}{}", &long[1..]);
        assert!(matches!(parse(&fits), Some(Ok(_))), "{line}");
        let over = format!("{line}{long}");
        assert!(matches!(parse(&over), Some(Err(ParseError::TooMany(MAX_TEXT, _)))), "{line}");
    }
}

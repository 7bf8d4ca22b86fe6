//! Every event, mark, content and row as it is printed, against `tests/dsc/events.txt`;
//! `UPDATE_GOLDEN=1 cargo test --bin dsc show` writes that anew.

use std::collections::BTreeSet;
use std::path::Path;

use super::*;
use crate::event::{Content, Mark, Message, Phase, Reply, Row};
use crate::testing::golden;

const NOW: u64 = 1_780_000_000_000; // 2026-05-28T20:26:40Z
const MARKS: [Mark; 8] = [
    Mark::Plain,
    Mark::FirstContact,
    Mark::Weak,
    Mark::IdentityChanged,
    Mark::Conflict,
    Mark::Removed,
    Mark::OldRoster,
    Mark::Late,
];

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

/// A message to a room, sealed, of today.
fn message(content: Content) -> Message {
    Message {
        target: "#ops".to_owned(),
        sender: "alice".to_owned(),
        device: some("3f2a"),
        id: Some(17),
        time: some("2026-05-28T14:03:05.123Z"),
        msg_id: some("000102030405060708090a0b0c0d0e0f"),
        encrypted: true,
        own: false,
        content,
        marks: Vec::new(),
    }
}

fn text(text: &str) -> Content {
    Content::Text { text: text.to_owned() }
}

fn messages() -> Vec<Event> {
    let msg_id = || "ffeeddccbbaa99887766554433221100".to_owned();
    let contents = [
        text("hi"),
        Content::File {
            name: "a\u{202e}b.png".to_owned(),
            size: 1234,
            mime: "image/png".to_owned(),
            blob: "0".repeat(64),
            file: None,
        },
        Content::React { author: "bob".to_owned(), msg_id: msg_id(), text: "+1".to_owned() },
        Content::Edit { msg_id: msg_id(), text: "hello".to_owned() },
        Content::Delete { msg_id: msg_id() },
    ];
    let mut messages: Vec<Message> = contents.into_iter().map(message).collect();
    messages.extend(MARKS.map(|mark| Message { marks: vec![mark], ..message(text("hi")) }));
    messages.push(Message { marks: MARKS.into_iter().rev().collect(), ..message(text("hi")) });
    // Another day, a person, plain, without the mark that says so; and one's own of which little is known.
    let (target, sender, time) = ("bob".to_owned(), "bob".to_owned(), some("2026-05-27T23:59:59.999Z"));
    let plain = message(text("hi"));
    messages.push(Message { target, sender, time, device: None, msg_id: None, encrypted: false, ..plain });
    let (name, blob) = ("notes.txt".to_owned(), "0".repeat(64));
    let file = Content::File { name, size: 0, mime: String::new(), blob, file: Some(7) };
    let (target, sender) = ("bob".to_owned(), "bob".to_owned());
    messages.push(Message { target, sender, device: None, msg_id: None, encrypted: false, ..message(file) });
    let own = message(text("hi"));
    messages.push(Message { target: "bob".to_owned(), own: true, id: None, time: None, ..own });
    // What a text may try.
    for tried in ["a\nb\r\n\u{1b}[2J\u{9b}K\t\0", "\r17 #ops bob/77aa> I owe you", "⏎ > [plain] \u{2028}\u{2066}x", ""]
    {
        messages.push(message(text(tried)));
    }
    messages.into_iter().map(Event::Message).collect()
}

fn rows() -> Vec<Row> {
    let device = || "000102030405060708090a0b0c0d0e0f".to_owned();
    let room = |members, e2e, private, joined, topic| Row::Room {
        room: "#ops".to_owned(),
        members,
        e2e,
        private,
        joined,
        topic,
    };
    let member = |role: Option<&str>, roster: Option<&str>, online, trust: Option<&str>| {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Row::Member { user: "bob".to_owned(), role: owned(role), roster: owned(roster), online, trust: owned(trust) }
    };
    let user =
        |presence: &str, since, text| Row::User { user: "bob".to_owned(), presence: presence.to_owned(), since, text };
    let file = |name, mime, id, encrypted, partial| Row::File {
        file: 7,
        target: "#ops".to_owned(),
        sender: "bob".to_owned(),
        time: "2026-05-28T14:03:05.123Z".to_owned(),
        name,
        size: 1_234_567,
        mime,
        id,
        blob: "0".repeat(64),
        encrypted,
        partial,
    };
    let transfer = |direction: &str, size, waits| Row::Transfer {
        transfer: "3078a3f5e9296d77".to_owned(),
        direction: direction.to_owned(),
        target: "#ops".to_owned(),
        name: "a\nb".to_owned(),
        size,
        since: "2026-05-28T14:03:05.123Z".to_owned(),
        waits,
    };
    let envelope = |form: &str| Row::Envelope {
        form: form.to_owned(),
        bytes: 543,
        device: None,
        room: None,
        epoch: None,
        chain: None,
        n: None,
        slots: None,
    };
    vec![
        room(3, true, true, true, some("what \u{1b}[31mwe do")),
        room(1, false, false, false, None),
        Row::Topic { room: "#ops".to_owned(), topic: some("what we do") },
        Row::Topic { room: "#ops".to_owned(), topic: None },
        member(Some("owner"), Some("admin"), true, Some("verified")),
        member(None, Some("member"), false, Some("changed")),
        member(Some("member"), None, false, None),
        user("online", some("2026-05-28T14:03:05.123Z"), None),
        user("away", some("2026-05-27T14:03:05.123Z"), some("lunch\n* notice")),
        user("offline", None, None),
        Row::Unread { target: "#ops".to_owned(), count: 3, first: 15, last: 17 },
        Row::Unread { target: "bob".to_owned(), count: 0, first: 0, last: 17 },
        Row::Keys { device: device(), opk: 88, pqk: 12 },
        Row::LinkCode { code: "ZMFQ-T6PG".to_owned() },
        Row::Number { user: "bob".to_owned(), number: "53038 54937 12373".to_owned(), verified: true },
        Row::Number { user: "bob".to_owned(), number: "53038 54937 12373".to_owned(), verified: false },
        Row::Device {
            user: "alice".to_owned(),
            device: device(),
            name: some("laptop"),
            this: true,
            until: "2027-05-28T14:03:05.000Z".to_owned(),
            current: true,
        },
        Row::Device {
            user: "alice".to_owned(),
            device: device(),
            name: None,
            this: false,
            until: "2025-05-28T14:03:05.000Z".to_owned(),
            current: false,
        },
        Row::Account {
            user: some("alice"),
            server: some("chat.example.org:7667"),
            device: Some(device()),
            token: true,
            confirmed: true,
        },
        Row::Account { user: None, server: None, device: None, token: false, confirmed: false },
        Row::Envelope {
            form: "group".to_owned(),
            bytes: 442,
            device: Some(device()),
            room: Some(device()),
            epoch: Some(4),
            chain: Some(device()),
            n: Some(0),
            slots: None,
        },
        match envelope("multi") {
            Row::Envelope { form, bytes, room, epoch, chain, n, .. } => {
                Row::Envelope { form, bytes, device: Some(device()), room, epoch, chain, n, slots: Some(2) }
            }
            other => other,
        },
        file(some("a\u{1b}b.png"), some("image/png"), Some(17), true, None),
        file(some("notes.txt"), None, None, false, Some(65_536)),
        file(None, None, None, true, None),
        transfer("sending", Some(1_234_567), some("for `dsc encode`")),
        transfer("receiving", None, None),
        envelope("link-request"),
        Row::Slot { device: device(), session: device(), born: some("2026-05-28T14:03:05.123Z"), previous: 0, n: 7 },
        Row::Slot { device: device(), session: device(), born: None, previous: 3, n: 0 },
    ]
}

fn events() -> Vec<Event> {
    let mut events = messages();
    for (encrypted, duplicate) in [(true, false), (false, true)] {
        events.push(Event::Sent { target: "bob".to_owned(), id: 18, encrypted, duplicate });
    }
    for id in [Some(19), None] {
        let code = "no-chain".to_owned();
        let text = "its key has not come yet".to_owned();
        events.push(Event::Unreadable { target: "#ops".to_owned(), sender: "bob".to_owned(), id, code, text });
    }
    for subject in [some("bob"), None] {
        events.push(Event::Notice {
            kind: "new-device".to_owned(),
            subject,
            text: "bob has a new device\n!!".to_owned(),
        });
    }
    let text = "the identity of bob has changed".to_owned();
    events.push(Event::Alarm { kind: "identity-changed".to_owned(), subject: "bob".to_owned(), text });
    events.push(Event::Missing {
        target: "#ops".to_owned(),
        sender: "alice".to_owned(),
        device: "3f2a".to_owned(),
        count: 2,
    });
    for (encrypted, duplicate) in [(true, false), (false, true)] {
        let (target, name) = ("bob".to_owned(), "a\u{202e}b.png".to_owned());
        events.push(Event::FileSent { target, name, size: 1_234_567, id: 18, encrypted, duplicate });
    }
    for (target, id, encrypted) in [("#ops", Some(17), true), ("bob", None, false)] {
        events.push(Event::FileReceived {
            target: target.to_owned(),
            id,
            file: 7,
            path: "/home/alice/Downloads/a\u{202e}b.png".to_owned(),
            size: 1_234_567,
            blob: "0".repeat(64),
            encrypted,
        });
    }
    let (target, name) = ("#ops".to_owned(), "a\nb".to_owned());
    events.push(Event::Progress { phase: Phase::Receiving, target, name, done: 65_536, size: Some(1_234_567) });
    events.push(Event::Reply(Reply {
        label: some("a1"),
        verb: "fetch".to_owned(),
        ok: true,
        code: None,
        keys: vec![("count".to_owned(), "2".to_owned()), ("more".to_owned(), "no".to_owned())],
        rows: vec!["msg 1".to_owned(), "msg 2".to_owned()],
        text: None,
    }));
    events.push(Event::Reply(Reply {
        label: None,
        verb: "msg".to_owned(),
        ok: false,
        code: some("not-member"),
        keys: vec![],
        rows: vec![],
        text: some("join first"),
    }));
    events.extend(rows().into_iter().map(Event::Row));
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    events.push(Event::Server { kind: "join".to_owned(), words: words(&["#ops", "bob"]), text: None });
    events.push(Event::Server { kind: "topic".to_owned(), words: words(&["#ops", "bob"]), text: some("a\u{7}b") });
    let message = "the server refused /msg: quota: too much".to_owned();
    events.push(Event::Error { exit: 6, message: message.clone(), hint: None });
    events.push(Event::Error { exit: 6, message, hint: some("type this:\n/keys get bob\n/keys get carol") });
    events
}

fn style(paint: bool, layout: Layout) -> Style {
    Style { paint, layout, now: Timestamp::from_millis(NOW) }
}

#[test]
fn every_event_as_it_is_printed() {
    let mut out = String::new();
    for event in events() {
        let text = line(&event, &style(false, Layout::Full));
        let bare = line(&event, &style(false, Layout::Bare));
        let painted = line(&event, &style(true, Layout::Full));
        let unpainted = anstream::adapter::strip_str(&painted).to_string();
        assert_eq!(unpainted, text, "colours change nothing else");
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
        assert!(!text.contains('\n') || matches!(event, Event::Error { .. }), "one event, one line: {text:?}");
        out.push_str(&format!("text    {text}\n"));
        if bare != text {
            out.push_str(&format!("bare    {bare}\n"));
        }
        out.push_str(&format!("colour  {}\n", painted.replace('\u{1b}', "␛")));
        let json = json(&event).unwrap();
        assert!(!json.contains(|c: char| c.is_control()), "{json:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap(), serde_json::to_value(&event).unwrap());
        out.push_str(&format!("json    {json}\n\n"));
    }
    golden(Path::new("tests/dsc/events.txt"), &out);
}

/// What a field that tells variants apart can say, by the schema.
fn constants(schema: &serde_json::Value, field: &str, into: &mut BTreeSet<String>) {
    match schema {
        serde_json::Value::Object(object) => {
            if let Some(constant) = object.get("properties").and_then(|p| p.get(field)).and_then(|f| f.get("const")) {
                into.insert(constant.as_str().unwrap().to_owned());
            }
            object.values().for_each(|value| constants(value, field, into));
        }
        serde_json::Value::Array(values) => values.iter().for_each(|value| constants(value, field, into)),
        _ => {}
    }
}

#[test]
fn no_kind_is_left_out_here() {
    let schema: serde_json::Value = serde_json::from_str(&schema().unwrap()).unwrap();
    let shown: Vec<serde_json::Value> = events().iter().map(|event| serde_json::to_value(event).unwrap()).collect();
    for field in ["event", "list"] {
        let mut known = BTreeSet::new();
        constants(&schema, field, &mut known);
        let tried: BTreeSet<String> =
            shown.iter().filter_map(|event| event.get(field)?.as_str().map(str::to_owned)).collect();
        assert!(!known.is_empty());
        assert_eq!(tried, known, "of {field}");
    }
    let marks = schema["$defs"]["Mark"]["oneOf"].as_array().unwrap().len();
    assert_eq!(MARKS.len(), marks);
}

/// Whether a value is what a schema says: as much of JSON Schema as ours uses.
fn fits(value: &serde_json::Value, schema: &serde_json::Value, root: &serde_json::Value) -> bool {
    let sub = |schema: &serde_json::Value| fits(value, schema, root);
    schema.as_object().unwrap().iter().all(|(keyword, wanted)| match keyword.as_str() {
        "$schema" | "title" | "description" | "$defs" | "format" => true,
        "$ref" => sub(root.pointer(wanted.as_str().unwrap().strip_prefix('#').unwrap()).unwrap()),
        "oneOf" => wanted.as_array().unwrap().iter().filter(|one| sub(one)).count() == 1,
        "const" => value == wanted,
        "enum" => wanted.as_array().unwrap().contains(value),
        "type" => match wanted.as_str() {
            Some("object") => value.is_object(),
            Some("string") => value.is_string(),
            Some("integer") => value.is_u64(),
            Some("boolean") => value.is_boolean(),
            Some("array") => value.is_array(),
            // An optional field that is left out where there is nothing.
            None => {
                let name = |t: &serde_json::Value| t.as_str().unwrap().to_owned();
                let types: Vec<String> = wanted.as_array().unwrap().iter().map(name).collect();
                types.contains(&"null".to_owned()) && (value.is_string() || value.is_u64())
            }
            other => panic!("{other:?} is not known here"),
        },
        "minimum" => value.as_u64().is_none_or(|n| n >= wanted.as_u64().unwrap()),
        "maximum" => value.as_u64().is_none_or(|n| n <= wanted.as_u64().unwrap()),
        "required" => wanted.as_array().unwrap().iter().all(|key| value.get(key.as_str().unwrap()).is_some()),
        "properties" => {
            let known = wanted.as_object().unwrap();
            known.iter().all(|(key, schema)| value.get(key).is_none_or(|value| fits(value, schema, root)))
        }
        "items" => value.as_array().unwrap().iter().all(|item| fits(item, wanted, root)),
        "prefixItems" => {
            let schemas = wanted.as_array().unwrap().iter();
            value.as_array().unwrap().iter().zip(schemas).all(|(item, schema)| fits(item, schema, root))
        }
        "minItems" => value.as_array().unwrap().len() as u64 >= wanted.as_u64().unwrap(),
        "maxItems" => value.as_array().unwrap().len() as u64 <= wanted.as_u64().unwrap(),
        other => panic!("{other} is not known here"),
    })
}

#[test]
fn every_line_is_what_the_schema_says() {
    let schema: serde_json::Value = serde_json::from_str(&schema().unwrap()).unwrap();
    for event in events() {
        let mut value = serde_json::to_value(&event).unwrap();
        assert!(fits(&value, &schema, &schema), "{value:#}");
        value["event"] = "nothing".into();
        assert!(!fits(&value, &schema, &schema));
    }
}

#[test]
fn nothing_that_a_sender_writes_looks_like_more_than_a_text() {
    let honest = line(&Event::Message(message(text("hi"))), &style(false, Layout::Full));
    let (front, _) = honest.split_once("> ").unwrap();
    for tried in ["\n2026 #ops bob> hi", "\u{2028}x", "\u{1b}[1A\u{1b}[2Kx", "\u{85}x", "\u{202e}x", "\rx"] {
        let shown = line(&Event::Message(message(text(tried))), &style(false, Layout::Full));
        assert!(shown.starts_with(&format!("{front}> ")), "{shown}");
        assert!(shown.lines().count() == 1 && !shown.contains(|c: char| c.is_control()), "{shown:?}");
    }
}

#[test]
fn quiet_leaves_out_what_was_not_asked_for() {
    // What is left out is not even written, so that a closed output does not matter.
    let quiet = Output::new(true, true, ColorChoice::Never);
    assert!(quiet.is_json());
    assert_eq!(quiet.notice("done", "x"), Ok(()));
}

#[test]
fn the_schema_in_the_documents_is_that_of_the_code() {
    golden(Path::new("docs/dsc.schema.json"), &schema().unwrap());
}

//! Attacks 15 to 19: a peer or a member of a room is malicious.

use crate::common::e2e::armour;
use crate::common::e2e::descriptor::Descriptor;
use crate::common::e2e::file::Layout;
use crate::common::e2e::inner::{Body, ChangeKind, Via};
use crate::common::e2e::name::{MsgId, Party, RoomName};
use crate::common::e2e::secret::Secret;
use crate::common::{Sent, user};
use crate::evil::dsc::texts;
use crate::evil::forge::{self, Chain, Inner, Tail, Twist, derive, multi_aad, salamander};
use crate::evil::{Dsc, Lab, Stage, Verdict};

/// A closed room of Alice with these members, all of whom have read its roster.
fn room_with(s: &Stage, alice: &Dsc, name: &str, devices: &[&Dsc], labs: &mut [&mut Lab]) -> RoomName {
    alice.run(&["create", name]).ok();
    for dsc in devices {
        alice.run(&["invite", name, &dsc.user]).ok();
        dsc.run(&["join", name]).ok();
    }
    let room = crate::common::room_name(name);
    for lab in labs {
        alice.run(&["invite", name, lab.user().as_str()]).ok();
        lab.command(&format!("/join {name}"));
        lab.learn("alice");
        devices.iter().for_each(|dsc| lab.learn(&dsc.user));
    }
    let _ = s;
    room
}

/// Reads roster and signals; the links of chains that came.
fn take_links(lab: &mut Lab, room: &RoomName) -> Vec<Chain> {
    lab.read_roster(room);
    let mut chains = Vec::new();
    for row in lab.signals() {
        if let Ok(opened) = lab.open(&row)
            && matches!(opened.inner.body, Body::SenderKey(_))
        {
            chains.push(Chain::read(&opened.raw[83..]));
        }
    }
    chains
}

/// What an account said in a room, as its members hear it from the server.
fn line_of(sender: &str, room: &RoomName, body: &str) -> Sent {
    Sent { via: Via::Message, sender: user(sender), to: room.to_string(), body: body.into() }
}

/// The device of an account of which `lab` knows one.
fn party_of(lab: &Lab, name: &str) -> Party {
    let contact = &lab.device.state.contacts[&user(name)];
    contact.certs()[0].party().clone()
}

/// Gives a chain, of whatever making, to the device of an account.
fn give_chain(lab: &mut Lab, to: &str, chain: &Chain) {
    let (party, mut session) = lab.forge(to, &Twist::default());
    let link = Inner::signal((1, chain.room), 3, chain.skdm(), &mut lab.device.rng);
    let envelope = lab.forged(&party, &mut session, &link.padded());
    lab.signal_raw(to, &envelope);
}

#[test]
fn a15_member_forges_member() {
    let s = Stage::new();
    let (alice, carol) = (s.dsc("alice"), s.dsc("carol"));
    let mut bob = s.lab("bob", 1501);
    let room = room_with(&s, &alice, "#room", &[&carol], &mut [&mut bob]);
    alice.run(&["send", "#room", "one"]).ok();
    let mut chains = take_links(&mut bob, &room);
    assert_eq!(chains.len(), 1);
    let mut stolen = chains.remove(0);
    assert_eq!(bob.device.text(&line_of("alice", &room, &s.body("alice", "#room")), crate::evil::now()), "one");
    assert_eq!(carol.run(&["fetch"]).ok().texts(), ["one"]);
    let alices = party_of(&bob, "alice");
    let mut rng = bob.device.rng.clone();
    let forged = Inner { seq: 2, ..Inner::text((1, stolen.room), "I am alice", &mut rng) };

    // Her chain, his signature. For Carol the server says that Alice has posted it.
    (_, stolen.ck) = forge::chain_step(&stolen.ck);
    stolen.n = 1;
    let raw = stolen.clone().seal(&alices, &forged.padded(), &[7; 32], &mut rng);
    s.post("alice", "#room", &armour::body(&raw));
    // The same a few places further on.
    let mut ahead = stolen.clone();
    (ahead.n, ahead.ck) = (5, (0..4).fold(ahead.ck, |ck, _| forge::chain_step(&ck).1));
    let raw = ahead.seal(&alices, &forged.padded(), &[7; 32], &mut rng);
    s.post("alice", "#room", &armour::body(&raw));
    // Her own message under another number.
    alice.run(&["send", "#room", "two"]).ok();
    let mut raw = armour::envelope(&s.body("alice", "#room")).unwrap();
    raw[57] ^= 4;
    s.post("alice", "#room", &armour::body(&raw));
    let ran = carol.run(&["fetch"]);
    assert_eq!((ran.texts(), ran.unreadable()), (vec!["two".to_owned()], vec!["signature".to_owned(); 3]), "{ran:?}");

    // A link of his that names her chain, with keys of his own.
    let (mut own, seed) = Chain::fresh(stolen.room, stolen.epoch, stolen.roster_hash, &mut rng);
    own.id = stolen.id;
    give_chain(&mut bob, "carol", &own);
    let ran = carol.run(&["fetch"]);
    assert_eq!(ran.unreadable(), ["chain-taken"], "{ran:?}");
    // And under his own name, in her chain.
    let me = bob.party().clone();
    let raw = own.seal(&me, &forged.padded(), &seed, &mut rng);
    bob.device.rng = rng;
    bob.msg_raw("#room", &raw);
    let ran = carol.run(&["fetch"]);
    assert!(ran.texts().is_empty(), "{ran:?}");
    assert_eq!(ran.unreadable(), ["room"], "{ran:?}");

    // Her msg_id, in a proper message of his that comes first.
    s.evil.script(|caught| if caught.is_command("/post") { Verdict::Hold } else { Verdict::Pass });
    let sending = alice.start(&["send", "#room", "hers"]);
    let held = s.evil.wait_held(1).remove(0);
    s.evil.honest();
    let hers = bob.device.open(&line_of("alice", &room, held.body().unwrap()), crate::evil::now()).unwrap();
    let mut rng = bob.device.rng.clone();
    let (mut own, seed) = Chain::fresh(stolen.room, stolen.epoch, stolen.roster_hash, &mut rng);
    let same = Inner { msg_id: hers.inner.msg_id.0, ..Inner::text((1, stolen.room), "his", &mut rng) };
    bob.device.rng = rng.clone();
    give_chain(&mut bob, "carol", &own);
    let raw = own.seal(&me, &same.padded(), &seed, &mut rng);
    bob.msg_raw("#room", &raw);
    s.evil.release(&held);
    sending.until_end().ok();
    let ran = carol.run(&["fetch"]).ok();
    let said: Vec<_> = ran.of("message").iter().map(|m| (m["sender"].clone(), m["content"]["text"].clone())).collect();
    assert_eq!(said, [("bob".into(), "his".into()), ("alice".into(), "hers".into())]);
}

#[test]
fn a16_removed_member() {
    let s = Stage::new();
    let (alice, carol) = (s.dsc("alice"), s.dsc("carol"));
    let mut mallory = s.lab("mallory", 1601);
    let room = room_with(&s, &alice, "#room", &[&carol], &mut [&mut mallory]);
    alice.run(&["send", "#room", "while she is in"]).ok();
    take_links(&mut mallory, &room);
    let now = crate::evil::now;
    assert_eq!(mallory.device.text(&line_of("alice", &room, &s.body("alice", "#room")), now()), "while she is in");
    // She has a chain that the others know, and keeps all her keys.
    mallory.say_room(&room, "hello");
    assert_eq!(carol.run(&["fetch"]).ok().texts(), ["while she is in", "hello"]);
    let before: Vec<String> = (0..3).map(|i| mallory.seal_room(&room, &format!("sealed before {i}")).1).collect();
    // Alice removes her; the server keeps her in and shows her everything.
    s.evil.script(|caught| {
        if caught.is_command("/kick") {
            Verdict::Answer(vec!["OK kick{label} room=#room user=mallory".into()])
        } else {
            Verdict::Pass
        }
    });
    alice.run(&["kick", "#room", "mallory"]).ok();
    mallory.msg("#room", &before[0]);
    s.evil.forget();
    let later: Vec<String> = (0..5)
        .map(|i| {
            alice.run(&["send", "#room", &format!("later {i}")]).ok();
            s.body("alice", "#room")
        })
        .collect();
    assert_eq!(s.signals("alice", "mallory"), 0);
    // She opens none of it, with the old state and with the new one.
    let mut careless = mallory.device.clone();
    mallory.read_roster(&room);
    for body in &later {
        assert!(careless.open(&line_of("alice", &room, body), now()).is_err());
        assert!(mallory.device.open(&line_of("alice", &room, body), now()).is_err());
    }
    for row in mallory.signals() {
        assert!(mallory.open(&row).is_err(), "no link is for her");
    }
    // Carol sees what was sealed before, marked, until she has read the log to its end.
    let ran = carol.run(&["fetch"]).ok();
    let old = ran.of("message").into_iter().find(|m| m["sender"] == "mallory").unwrap();
    assert_eq!(old["content"]["text"], "sealed before 0");
    assert!(old["marks"].as_array().unwrap().iter().any(|mark| mark == "removed"), "{old}");
    assert_eq!(ran.texts().iter().filter(|text| text.starts_with("later")).count(), 5);
    mallory.msg("#room", &before[1]);
    let ran = carol.run(&["fetch"]);
    assert_eq!((ran.texts().len(), ran.unreadable()), (0, vec!["not-member".to_owned()]), "{ran:?}");
    // A fresh chain under the present roster is no way back in.
    let roster = mallory.device.state.room_named(&room).unwrap().roster.clone();
    let mut rng = mallory.device.rng.clone();
    let (mut chain, seed) = Chain::fresh(roster.id().0, roster.head().0, roster.head().1, &mut rng);
    mallory.device.rng = rng.clone();
    give_chain(&mut mallory, "carol", &chain);
    let me = mallory.party().clone();
    let text = Inner { seq: 9, ..Inner::text((1, chain.room), "still here", &mut rng) };
    let raw = chain.seal(&me, &text.padded(), &seed, &mut rng);
    mallory.msg_raw("#room", &raw);
    let ran = carol.run(&["fetch"]);
    assert!(ran.texts().is_empty(), "{ran:?}");
    assert!(ran.unreadable().contains(&"not-member".to_owned()), "{ran:?}");
}

#[test]
fn a17_salamander() {
    let s = Stage::new();
    let (bob, carol) = (s.dsc("bob"), s.dsc("carol"));
    let mut mallory = s.lab("mallory", 1701);
    // A reaction: the 32 bytes that name a message are free, and the block that is given up lies in them.
    let reaction = |conv: (u8, [u8; 16]), rng: &mut crate::common::Seeded| {
        let body = [&[1][..], &forge::lp(b"bob"), &[1; 16], &[2; 16], b"+1"].concat();
        Inner { kind: 8, body, ..Inner::text(conv, "", rng) }
    };
    const FREE_BLOCK: usize = 96 / 16;

    // One payload that GCM opens under two content keys.
    let (party, mut session) = mallory.forge("bob", &Twist::default());
    let conv = mallory.direct_with(&party);
    let mut rng = mallory.device.rng.clone();
    let padded = reaction(conv, &mut rng).padded();
    let (keys, salt): ([[u8; 32]; 2], [u8; 16]) =
        ([forge::draw(&mut rng), forge::draw(&mut rng)], forge::draw(&mut rng));
    let aad = multi_aad(mallory.me(), &user("bob"));
    let both = keys.map(|key| derive(&key, &salt, &aad));
    let body = salamander(&both[0], &both[1], &aad, &padded, FREE_BLOCK);
    let bytes = [&salt[..], &both[0].com, &body].concat();
    for key in [keys[1], keys[0]] {
        let slot_text = [key, forge::hash(&[&bytes])].concat();
        let tail = Tail { bytes: bytes.clone(), slot_text };
        let slot = session.slot(&tail.slot_text, &mut rng);
        let envelope = forge::multi(mallory.me().device, &[(party.address.device, slot)], &tail.bytes);
        mallory.msg_raw("bob", &envelope);
    }
    mallory.device.rng = rng;
    let ran = bob.run(&["fetch"]);
    assert_eq!(ran.unreadable(), ["payload"], "the commitment, not what is inside: {ran:?}");
    let shown = ran.of("message");
    assert_eq!((shown.len(), &shown[0]["content"]["kind"]), (1, &"react".into()), "{ran:?}");

    // One message of a room, and two members who were given two keys for its chain.
    let room = mallory.create_room("#room", false);
    for dsc in [&bob, &carol] {
        assert!(mallory.roster(&room, crate::common::e2e::roster::Op::Add, &dsc.user));
        mallory.command(&format!("/invite #room {}", dsc.user));
        dsc.run(&["join", "#room"]).ok();
    }
    let roster = mallory.device.state.room_named(&room).unwrap().roster.clone();
    let mut rng = mallory.device.rng.clone();
    let (one, seed) = Chain::fresh(roster.id().0, roster.head().0, roster.head().1, &mut rng);
    let two = Chain { ck: forge::draw(&mut rng), ..one.clone() };
    mallory.device.rng = rng.clone();
    give_chain(&mut mallory, "bob", &one);
    give_chain(&mut mallory, "carol", &two);
    let me = mallory.party().clone();
    let padded = reaction((1, one.room), &mut rng).padded();
    let raw = Chain::salamander(&one, &two, &me, &padded, FREE_BLOCK, &seed, &mut rng);
    mallory.msg_raw("#room", &raw);
    let ran = bob.run(&["fetch"]).ok();
    assert_eq!(ran.of("message")[0]["content"]["kind"], "react");
    let ran = carol.run(&["fetch"]);
    assert_eq!((ran.of("message").len(), ran.unreadable()), (0, vec!["commit".to_owned()]), "{ran:?}");
}

#[test]
fn a18_malicious_file_names() {
    let s = Stage::new();
    let bob = s.dsc("bob");
    let mut mallory = s.lab("mallory", 1801);
    let names = [
        "../../.ssh/authorized_keys",
        "/etc/passwd",
        "..",
        ".bashrc",
        "-rf",
        "a\0b",
        "a\nmallory> b",
        "\u{202e}gpj.exe",
        "\u{1b}]0;title\u{7}",
        "C:\\windows\\system32",
        "plain.txt",
    ];
    for name in names {
        // A claim of one tebibyte costs nothing.
        let size = 1 << 40;
        let ct_len = Layout::of(size).unwrap().ct_len;
        let file = Descriptor {
            key: Secret::copy_from(&[9; 32]),
            blob_id: [8; 32],
            ct_len,
            size,
            name: name.into(),
            mime: "application/x-evil".into(),
        };
        let body = mallory.seal("bob", Body::File(file));
        mallory.msg("bob", &body);
    }
    let before = bob.snapshot();
    let ran = bob.run(&["fetch"]);
    let shown = ran.of("message");
    assert_eq!(shown.len() + ran.unreadable().len(), names.len(), "{ran:?}");
    for message in &shown {
        let name = message["content"]["name"].as_str().unwrap();
        let strange =
            |c: char| c.is_control() || c == '/' || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        assert!(!name.is_empty() && !name.starts_with(['.', '-']) && !name.contains(strange), "{name:?}");
    }
    assert!(shown.iter().any(|message| message["content"]["name"] == "plain.txt"));
    // Nothing was written beside the store.
    let files = |snapshot: &crate::evil::dsc::Snapshot| snapshot.keys().cloned().collect::<Vec<_>>();
    assert_eq!(files(&bob.snapshot()), files(&before));
    let page = bob.plain(&["fetch", "mallory"], b"");
    assert!(page.out.chars().all(|c| c == '\n' || !c.is_control() && c != '\u{202e}'), "{:?}", page.out);
}

#[test]
fn a19_injection() {
    let s = Stage::new();
    let bob = s.dsc("bob");
    let mut mallory = s.lab("mallory", 1901);
    let hostile = [
        "two\r\nlines".to_owned(),
        "a fake prompt\nalice/3f2a> send money".to_owned(),
        "\u{1b}[2J\u{1b}]0;owned\u{7} colours".to_owned(),
        "\u{9b}31m C1".to_owned(),
        "back\u{8}\u{8}\u{8}space".to_owned(),
        "\u{202e}right to left".to_owned(),
        "\0nul".to_owned(),
        "x".repeat(16_384),
        "OK msg id=1".to_owned(),
        "* msg 7 2026-01-01T00:00:00.000Z bob alice :forged".to_owned(),
    ];
    let lines: String = hostile
        .iter()
        .enumerate()
        .map(|(i, text)| {
            let body = mallory.seal("bob", Body::Text(text.clone()));
            format!("* msg {} 2026-01-01T00:00:00.000Z bob mallory :{body}\n", 1000 + i)
        })
        .collect();
    let opened = bob.plain(&["open"], lines.as_bytes()).ok();
    assert_eq!(opened.out.lines().count(), hostile.len(), "one line each: {:?}", opened.out);
    for line in opened.out.lines() {
        assert!(line.starts_with("mallory/"), "{line:?}");
        assert!(line.chars().all(|c| !c.is_control() && c != '\u{202e}'), "{line:?}");
    }
    // What the server says looks like no opened message.
    let server = "alice/3f2a> send money\nmallory/0000> x\n* notice :\u{1b}[2Jboo\n- row \u{7}\nOK \u{1b}c\n";
    let passed = bob.plain(&["open"], server.as_bytes()).ok();
    let passed_lines: Vec<&str> = passed.out.lines().collect();
    assert_eq!(passed_lines.len(), 5);
    assert_eq!(passed_lines[0], "? alice/3f2a> send money");
    assert!(passed_lines[1].starts_with("? mallory/0000> "));
    assert!(passed.out.chars().all(|c| c == '\n' || !c.is_control()), "{:?}", passed.out);
    // Bytes that are no text, and a line without an end.
    let junk = bob.plain(&["open"], b"* msg 1999 2026-01-01T00:00:00.000Z bob mallory :\xff\xfe\n\xff\xff\n? x");
    assert!(junk.out.lines().count() <= 4 && junk.out.chars().all(|c| c == '\n' || !c.is_control()), "{junk:?}");

    // Kinds out of their place, text that is none, and words in somebody else's mouth.
    let (party, mut session) = mallory.forge("bob", &Twist::default());
    let conv = mallory.direct_with(&party);
    let mut rng = mallory.device.rng.clone();
    let base = Inner { seq: 100, prev: [1; 32], ..Inner::text(conv, "fine", &mut rng) };
    let (chain, _) = Chain::fresh([3; 16], 1, [4; 32], &mut rng);
    let edit = |kind: ChangeKind| {
        let code = if kind == ChangeKind::Edit { 2 } else { 3 };
        [&[code][..], &forge::lp(b"bob"), &party.address.device.0, &[5; 16], b"I never said that"].concat()
    };
    let _ = MsgId([0; 16]);
    let in_log = [
        Inner { body: vec![0xff, 0xfe, 0x80], ..base.clone() },
        Inner { body: vec![b'x'; 16_385], ..base.clone() },
        Inner { kind: 3, body: chain.skdm(), ..base.clone() },
        Inner { kind: 4, body: [&[1][..], &[6; 16]].concat(), ..base.clone() },
        Inner { kind: 5, body: vec![0], ..base.clone() },
        Inner { kind: 6, ..base.clone() },
        Inner { flags: 1, ..base.clone() },
        Inner { kind: 8, body: edit(ChangeKind::Edit), ..base.clone() },
        Inner { kind: 8, body: edit(ChangeKind::Delete), ..base.clone() },
        Inner { conv_id: [9; 16], ..base.clone() },
        Inner { conv_type: 1, ..base.clone() },
        Inner { seq: 0, prev: [0; 32], ..base.clone() },
    ];
    mallory.device.rng = rng;
    for inner in &in_log {
        let envelope = mallory.forged(&party, &mut session, &inner.padded());
        mallory.msg_raw("bob", &envelope);
    }
    // Another length than the one possible.
    let mut longer = base.padded();
    longer.extend([0; 16]);
    let envelope = mallory.forged(&party, &mut session, &longer);
    mallory.msg_raw("bob", &envelope);
    let ran = bob.run(&["fetch"]);
    let mut codes = vec!["inner".to_owned(); in_log.len()];
    codes.push("padding".into());
    assert_eq!((ran.of("message").len(), ran.unreadable()), (0, codes), "{ran:?}");
    // A text in a signal.
    let text = Inner { seq: 0, prev: [0; 32], ..base.clone() };
    let envelope = mallory.forged(&party, &mut session, &text.padded());
    mallory.signal_raw("bob", &envelope);
    let ran = bob.run(&["fetch"]);
    assert_eq!((ran.texts().len(), ran.unreadable()), (0, vec!["inner".to_owned()]), "{ran:?}");
    // A link in a message of a room.
    let room = mallory.create_room("#room", false);
    assert!(mallory.roster(&room, crate::common::e2e::roster::Op::Add, "bob"));
    mallory.command("/invite #room bob");
    bob.run(&["join", "#room"]).ok();
    let roster = mallory.device.state.room_named(&room).unwrap().roster.clone();
    let mut rng = mallory.device.rng.clone();
    let (mut chain, seed) = Chain::fresh(roster.id().0, roster.head().0, roster.head().1, &mut rng);
    mallory.device.rng = rng.clone();
    give_chain(&mut mallory, "bob", &chain);
    let me = mallory.party().clone();
    let link = Inner { kind: 3, body: chain.skdm(), ..Inner::text((1, chain.room), "", &mut rng) };
    let raw = chain.seal(&me, &link.padded(), &seed, &mut rng);
    mallory.msg_raw("#room", &raw);
    let ran = bob.run(&["fetch"]);
    assert_eq!((ran.of("message").len(), ran.unreadable()), (0, vec!["inner".to_owned()]), "{ran:?}");
    // All that was of the session; a fair message still comes through, and shows no more than it says.
    let envelope = mallory.forged(&party, &mut session, &base.padded());
    mallory.msg_raw("bob", &envelope);
    assert_eq!(texts(&bob.run(&["fetch"]).events()), ["fine"]);
}

#[test]
fn a16_a_closed_chain_stays_closed() {
    let s = Stage::new();
    let bob = s.dsc("bob");
    let mut alice = s.lab("alice", 1611);
    let room = alice.create_room("#room", false);
    assert!(alice.roster(&room, crate::common::e2e::roster::Op::Add, "bob"));
    alice.command("/invite #room bob");
    bob.run(&["join", "#room"]).ok();
    alice.say_room(&room, "one");
    // A twin of Alice's state goes on in the chain that she gives up.
    let mut twin = alice.device.clone();
    twin.rng = crate::common::Seeded::new(1612);
    assert!(alice.roster(&room, crate::common::e2e::roster::Op::Promote, "bob"));
    alice.say_room(&room, "two");
    let id = alice.room_id(&room);
    let answers = crate::common::e2e::send::Answers::default();
    let body = Body::Text("stale".into());
    let mut rng = twin.rng.clone();
    let stale = twin.state.seal_room(&id, body, &answers, crate::evil::now(), &mut rng).unwrap();
    twin.rng = rng;
    alice.msg("#room", &stale.message.body);
    let ran = bob.run(&["fetch"]);
    assert_eq!(
        (ran.texts(), ran.unreadable()),
        (vec!["one".into(), "two".into()], vec!["closed-chain".to_owned()]),
        "{ran:?}"
    );
}

#[test]
fn a19_the_server_writes_to_the_terminal() {
    let s = Stage::new();
    let (alice, bob) = (s.dsc("alice"), s.dsc("bob"));
    bob.run(&["create", "#plain", "--plain", "--open"]).ok();
    // In events, in rows, in refusals: whatever it says, no control character reaches the terminal, and
    // nothing looks like a message that was opened.
    let evil = "\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}1m\u{202e}alice/3f2a> x";
    let hostile = [
        format!("* topic #plain alice :{evil}"),
        format!("* notice :{evil}"),
        format!("* join #plain {evil}"),
        format!("* leave #plain alice :{evil}"),
        format!("* {evil}"),
        format!("* typing {evil} alice"),
        format!("* away alice :{evil}"),
        format!("* msg 1 2026-01-01T00:00:00.000Z bob alice :{evil}"),
        format!("* msg 2 2026-01-01T00:00:00.000Z bob alice {evil}"),
        format!("* file 3 2026-01-01T00:00:00.000Z bob alice file=F size=1 sha256={} :{evil}", "0".repeat(64)),
        format!("* signal 4 2026-01-01T00:00:00.000Z alice :{evil}"),
        "* notice :the end".to_owned(),
    ];
    let mut command = bob.command();
    command.arg("tail");
    let mut tail = crate::evil::dsc::Running::start(command);
    s.evil.wait_line("a running tail", |c| c.user == "bob" && c.is_down("OK unread"));
    alice.run(&["send", "bob", "a fair message"]).ok();
    tail.wait_shown("a fair message");
    for line in &hostile {
        s.evil.inject("bob", crate::evil::Way::Down, line);
    }
    tail.wait_shown("the end");
    // No line of the protocol at all: the connection is given up.
    s.evil.inject("bob", crate::evil::Way::Down, &format!("? {evil}"));
    tail.wait_shown("does not keep to the protocol");
    let shown = tail.stop();
    s.evil.script(move |caught| match caught.verb() {
        "/users" => Verdict::Answer(vec![
            format!("- user {evil} online"),
            format!("- user eve offline since=2026-01-01T00:00:00.000Z :{evil}"),
            format!("ERR users{{label}} forbidden :{evil}"),
        ]),
        "/rooms" => Verdict::Answer(vec![
            format!("- room #r members=1 e2e=no private=no joined=no :{evil}"),
            "OK rooms{label} count=1 more=no".into(),
        ]),
        _ => Verdict::Pass,
    });
    let all = [shown, bob.plain(&["users"], b""), bob.plain(&["rooms"], b"")];
    for ran in all {
        for text in [&ran.out, &ran.err] {
            let strange = |c: char| c != '\n' && c.is_control() || matches!(c, '\u{202a}'..='\u{202e}');
            assert!(!text.contains(strange), "{text:?}");
        }
        for line in ran.out.lines() {
            assert!(!line.starts_with("alice/3f2a>"), "{line}");
        }
    }
}

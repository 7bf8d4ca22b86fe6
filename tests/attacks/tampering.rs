//! Attacks 5 and 11 to 13: the server puts somebody into a room, changes what passes, plays dumb, and breaks
//! sessions.

use crate::common::e2e::armour;
use crate::common::e2e::inner::Body;
use crate::common::e2e::roster::Op;
use crate::common::{DAY, Seeded};
use crate::evil::forge::{self, MultiParts, Twist, ratchet_at};
use crate::evil::{Caught, Directory, Dsc, Keys, Stage, Verdict, Way, now};

/// Changes one byte of an envelope.
fn flipped(body: &str, at: impl Fn(&[u8]) -> usize) -> String {
    let mut raw = armour::envelope(body).unwrap();
    let at = at(&raw);
    raw[at] ^= 1;
    armour::body(&raw)
}

#[test]
fn a05_ghost_member() {
    let s = Stage::new();
    let (alice, dave) = (s.dsc("alice"), s.dsc("dave"));
    let (mut bob, mut carol, mut mallory) = (s.lab("bob", 501), s.lab("carol", 502), s.lab("mallory", 503));
    alice.run(&["create", "#room"]).ok();
    for name in ["bob", "carol"] {
        alice.run(&["invite", "#room", name]).ok();
    }
    let room = crate::common::room_name("#room");
    for lab in [&mut bob, &mut carol] {
        lab.command("/join #room");
    }
    alice.run(&["op", "#room", "carol"]).ok();
    for lab in [&mut bob, &mut carol] {
        lab.read_roster(&room);
    }
    // For the server she is a member.
    let mut puppet = s.puppet("alice");
    puppet.say("/invite #room mallory");
    puppet.until("OK invite ...");
    mallory.command("/join #room");
    mallory.read_roster(&room);
    let listed = alice.run(&["members", "#room"]).ok();
    assert!(listed.of("row").iter().any(|row| row["user"] == "mallory" && row["roster"].is_null()), "{listed:?}");
    let say = |text: &str| alice.run(&["send", "#room", text]);
    say("one").ok();

    // Entries that do not count, each in a place of the log.
    let roster = bob.device.state.room_named(&room).unwrap().roster.clone();
    let aik = *mallory.party().aik.first_chunk::<32>().unwrap();
    let entry = |epoch: u32, prev: [u8; 32]| forge::Entry {
        room_id: roster.id().0,
        epoch,
        prev,
        op: 3,
        room: "#room".into(),
        user: "mallory".into(),
        aik,
        list: mallory.list.bytes().to_vec(),
    };
    let (head, hash) = roster.head();
    let bobs = bob.device.state.me.clone();
    let admins = carol.device.state.me.clone();
    let mut ghost = Keys::of(&carol.aik, "carol", Seeded::new(504), now().secs() - 3600, now().secs() + 30 * DAY);
    ghost.bundle();
    let junk = [
        ("not an admin", entry(head + 1, hash).sign(bobs.cert().bytes(), bobs.dsk())),
        ("her own", entry(head + 2, hash).sign(mallory.cert(), mallory.device.state.me.dsk())),
        ("a device that no list names", entry(head + 3, hash).sign(ghost.me.cert().bytes(), ghost.me.dsk())),
        ("another one before it", entry(head + 4, [7; 32]).sign(admins.cert().bytes(), admins.dsk())),
        ("another place", entry(head + 9, hash).sign(admins.cert().bytes(), admins.dsk())),
        ("no entry", b"junk".to_vec()),
    ];
    for (i, (_, raw)) in junk.iter().enumerate() {
        bob.roster_add(&room, head + 1 + u32::try_from(i).unwrap(), raw);
    }
    let ran = say("two").ok();
    let skipped = ran.of("notice").iter().filter(|notice| notice["kind"] == "roster-skipped").count();
    assert_eq!(skipped, junk.len(), "{ran:?}");
    // An admin that was removed signs in vain.
    alice.run(&["kick", "#room", "carol"]).ok();
    bob.read_roster(&room);
    let (_, hash) = bob.device.state.room_named(&room).unwrap().roster.head();
    let next = bob.device.state.room_named(&room).unwrap().roster.read() + 1;
    bob.roster_add(&room, next, &entry(next, hash).sign(admins.cert().bytes(), admins.dsk()));
    say("three").ok();
    assert_eq!(s.signals("alice", "mallory"), 0);
    assert!(s.signals("alice", "bob") > 0);
    // Junk blocks nothing: the next valid entry counts.
    alice.run(&["invite", "#room", "dave"]).ok();
    dave.run(&["join", "#room"]).ok();
    say("four").ok();
    assert!(dave.run(&["fetch"]).ok().texts().contains(&"four".to_owned()));
    assert_eq!(s.signals("alice", "mallory"), 0);

    // Another entry for a place that was accepted: the server shows a fork, nothing is sent any more.
    let twin = entry(2, forge::hash(&[b"other"])).sign(admins.cert().bytes(), admins.dsk());
    s.evil.script(move |caught| {
        if caught.is_command("/roster") {
            let row = format!("- roster #room 2 {}", armour::base64(&twin));
            return Verdict::Answer(vec![row, "OK roster{label} room=#room epoch=2 more=no".into()]);
        }
        Verdict::Pass
    });
    s.evil.forget();
    let ran = say("five").refused();
    assert!(ran.of("alarm").iter().any(|alarm| alarm["kind"] == "fork"), "{ran:?}");
    s.evil.honest();
    say("six").refused();
    assert!(s.sent_by("alice").is_empty(), "nothing is rolled back, nothing is sent");
}

#[test]
fn a05_who_asks_for_chains_that_there_are_not() {
    let s = Stage::new();
    let (alice, bob) = (s.dsc("alice"), s.dsc("bob"));
    let mallory = s.lab("mallory", 511);
    alice.run(&["create", "#room"]).ok();
    alice.run(&["invite", "#room", "bob"]).ok();
    bob.run(&["join", "#room"]).ok();
    alice.run(&["send", "#room", "one"]).ok();
    bob.run(&["fetch"]).ok();
    let mut puppet = s.puppet("alice");
    puppet.say("/invite #room mallory");
    puppet.until("OK invite ...");
    // Envelopes in chains that nobody has: in Alice's name, and by somebody whom the roster does not have.
    let model = armour::envelope(&s.body("alice", "#room")).unwrap();
    let mut rng = Seeded::new(512);
    let mut stranger = s.puppet("mallory");
    stranger.say("/join #room");
    stranger.until("OK join ...");
    for (client, device) in [(&mut puppet, &model[18..34]), (&mut stranger, &mallory.me().device.0[..])] {
        for _ in 0..40 {
            let mut raw = model.clone();
            raw[18..34].copy_from_slice(device);
            raw[38..54].copy_from_slice(&forge::draw::<16>(&mut rng));
            client.say(&format!("/msg #room {}", armour::body(&raw)));
        }
        (0..40).for_each(|_| drop(client.until("OK msg ...")));
    }
    s.evil.forget();
    assert!(bob.run(&["fetch"]).texts().is_empty());
    assert!(s.signals("bob", "alice") <= 1, "asks Alice {} times", s.signals("bob", "alice"));
    assert_eq!(s.signals("bob", "mallory"), 0);
    let asked = |user: &str| {
        let asks = |c: &&Caught| c.user == "bob" && c.is_command("/keys") && c.words().get(2) == Some(&user);
        s.evil.captured().iter().filter(asks).count()
    };
    assert!(asked("mallory") <= 1, "asks for her keys {} times", asked("mallory"));
    alice.run(&["send", "#room", "two"]).ok();
    assert_eq!(bob.run(&["fetch"]).ok().texts(), ["two"]);
}

/// A line of a log, as a person at `openssl s_client` sees it.
fn log_line(id: usize, target: &str, sender: &str, body: &str) -> String {
    format!("* msg {id} 2026-01-01T00:00:00.000Z {target} {sender} :{body}\n")
}

/// Every byte of an envelope, with each mask. Where a PREKEY has its KEM ciphertext one mask is enough:
/// each byte of it has the same part in the transcript.
fn sweep(raw: &[u8], masks: &[u8], opaque: std::ops::Range<usize>) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for at in 0..raw.len() {
        for mask in masks.iter().take(if opaque.contains(&at) { 1 } else { masks.len() }) {
            let mut bad = raw.to_vec();
            bad[at] ^= mask;
            all.push(bad);
        }
    }
    all
}

/// Gives lines with bad envelopes to `dsc open`: none opens.
fn none_opens(dsc: &Dsc, target: &str, sender: &str, bad: &[Vec<u8>], from_id: usize) {
    let lines: String =
        bad.iter().enumerate().map(|(i, raw)| log_line(from_id + i, target, sender, &armour::body(raw))).collect();
    let ran = dsc.plain(&["open"], lines.as_bytes());
    // 1: cannot be opened. 3: some speak of a room or a chain that is not known; their lines pass as they are.
    assert!(matches!(ran.code, 1 | 3), "{ran:?}");
    let notices = ran.err.lines().filter(|line| line.contains("sealed before this device was listed")).count();
    assert_eq!(ran.out.lines().count() + notices, bad.len(), "one line each: {}", ran.err);
    for line in ran.out.lines() {
        let closed = line.contains("cannot open") || line.starts_with("* msg ") || line.starts_with("-- ");
        assert!(closed, "{line}");
    }
}

#[test]
fn a11_bit_flips() {
    const MASKS: [u8; 3] = [0x01, 0x80, 0xff];
    let s = Stage::new();
    let bob = s.dsc("bob");
    let mut alice = s.lab("alice", 1101);
    let first = alice.seal("bob", Body::Text("handshake".into()));
    let raw = armour::envelope(&first).unwrap();
    none_opens(&bob, "bob", "alice", &sweep(&raw, &MASKS[..1], 0..0), 1000);
    alice.msg("bob", &first);
    assert_eq!(bob.run(&["fetch"]).ok().texts(), ["handshake"]);
    bob.run(&["send", "alice", "answer"]).ok();
    let line = alice.event("* msg ");
    alice.text(&line);
    let second = alice.seal("bob", Body::Text("established".into()));
    let raw = armour::envelope(&second).unwrap();
    assert_eq!(raw.len(), 543);
    none_opens(&bob, "bob", "alice", &sweep(&raw, &MASKS, 0..0), 10_000);
    alice.msg("bob", &second);
    assert_eq!(bob.run(&["fetch"]).ok().texts(), ["established"]);

    // In a room.
    let room = alice.create_room("#room", false);
    assert!(alice.roster(&room, Op::Add, "bob"));
    alice.command("/invite #room bob");
    bob.run(&["join", "#room"]).ok();
    alice.say_room(&room, "chain");
    assert_eq!(bob.run(&["fetch"]).ok().texts(), ["chain"]);
    let (_, next) = alice.seal_room(&room, "in the room");
    let raw = armour::envelope(&next).unwrap();
    assert_eq!(raw.len(), 442);
    none_opens(&bob, "#room", "alice", &sweep(&raw, &MASKS, 0..0), 20_000);
    alice.msg("#room", &next);
    assert_eq!(bob.run(&["fetch"]).ok().texts(), ["in the room"]);
}

#[test]
fn a11_bit_flips_in_what_the_directory_shows() {
    let s = Stage::new();
    let bob = s.dsc("bob");
    let mut alice = s.lab("alice", 1111);
    let (list, cert) = (alice.list.bytes().to_vec(), alice.cert().to_vec());
    let device = alice.me().device;
    let rows = |list: &[u8], cert: &[u8]| {
        format!("- devices alice {}\n- cert alice {device} {}\n", armour::base64(list), armour::base64(cert))
    };
    // Of a known account; each through the filter that a person uses.
    bob.run_with(&["import"], &rows(&list, &cert)).ok();
    let pinned = bob.number("alice");
    for at in (0..list.len()).step_by(7) {
        let mut bad = list.clone();
        bad[at] ^= 0x01;
        let ran = bob.run_with(&["import"], &rows(&bad, &cert));
        assert!(ran.code != 0, "list byte {at}: {ran:?}");
    }
    for at in (0..cert.len()).step_by(9) {
        // A certificate that does not hold is no certificate of the list: nothing is added to what is known.
        let mut bad = cert.clone();
        bad[at] ^= 0x80;
        let ran = bob.run_with(&["import"], &rows(&list, &bad));
        assert!(ran.of("notice").iter().all(|notice| notice["kind"] != "new-device"), "cert byte {at}: {ran:?}");
    }
    assert_eq!(bob.number("alice"), pinned);
    // A roster entry: junk in its place, and the next one counts.
    let room = alice.create_room("#room", false);
    assert!(alice.roster(&room, Op::Add, "bob"));
    let reply = alice.command("/roster #room after=0");
    bob.run_with(&["import"], &format!("{}\n", reply.rows[0])).ok();
    let entry = armour::unbase64(reply.rows[1].split(' ').next_back().unwrap()).unwrap();
    let mut lines = String::new();
    for at in 0..entry.len() {
        let mut bad = entry.clone();
        bad[at] ^= 0x01;
        lines.push_str(&format!("- roster #room {} {}\n", at + 2, armour::base64(&bad)));
    }
    let ran = bob.run_with(&["import"], &lines).ok();
    let skipped = ran.of("notice").iter().filter(|notice| notice["kind"] == "roster-skipped").count();
    assert_eq!(skipped, entry.len(), "{:?}", ran.err);
}

#[test]
fn a12_downgrade() {
    let s = Stage::new();
    let (alice, bob) = (s.dsc("alice"), s.dsc("bob"));
    // The server says that it does not know encryption, or that nobody has keys.
    for answer in [
        "ERR keys{label} unknown-command :E2E unsupported",
        "OK keys{label} user=bob devices=0",
        "ERR keys{label} not-found :no keys",
    ] {
        s.evil.script(move |caught| {
            let asks = caught.is_command("/keys") && caught.words().get(2) == Some(&"bob");
            if asks { Verdict::Answer(vec![answer.into()]) } else { Verdict::Pass }
        });
        let ran = alice.run(&["send", "bob", "not in the clear"]).refused();
        assert!(ran.of("sent").is_empty());
        alice.plain(&["seal", "--to", "bob"], b"not in the clear\n").refused();
    }
    assert!(s.sent_by("alice").is_empty());
    s.evil.honest();
    alice.run(&["send", "bob", "first"]).ok();
    bob.run(&["fetch"]).ok();
    // A room that was end to end stays so, whatever the server calls it.
    alice.run(&["create", "#room"]).ok();
    alice.run(&["invite", "#room", "bob"]).ok();
    bob.run(&["join", "#room"]).ok();
    alice.run(&["send", "#room", "sealed"]).ok();
    assert_eq!(bob.run(&["fetch"]).ok().texts(), ["sealed"]);
    s.evil.script(|caught| {
        if caught.way == Way::Down && caught.line.contains(" e2e=yes") {
            return Verdict::Instead(vec![caught.line.replace(" e2e=yes", " e2e=no")]);
        }
        if caught.is_command("/roster") {
            return Verdict::Answer(vec!["ERR roster{label} unknown-command :E2E unsupported".into()]);
        }
        Verdict::Pass
    });
    s.evil.forget();
    alice.run(&["send", "--plain", "#room", "not in the clear"]).refused();
    alice.run(&["send", "#room", "not in the clear"]);
    alice.run(&["join", "#room"]).refused();
    alice.run(&["send", "#room", "not in the clear"]);
    assert!(s.sent_by("alice").iter().all(|caught| caught.body().is_some()), "nothing without an envelope");
    s.evil.honest();
    bob.run(&["fetch"]);
    // What the server says in the clear there is no message of the room.
    let line = log_line(9000, "#room", "alice", "said by the server");
    let ran = bob.run_with(&["open"], &line).fails(1);
    assert_eq!((ran.texts().len(), ran.unreadable()), (0, vec!["plain".to_owned()]));

    // Envelopes of an older or a lesser make.
    let mut mallory = s.lab("mallory", 1201);
    let (party, mut session) = mallory.forge("bob", &Twist::default());
    let conv = mallory.direct_with(&party);
    let text = forge::Inner::text(conv, "lesser", &mut mallory.device.rng);
    let good = mallory.forged(&party, &mut session, &text.padded());
    let slot = MultiParts::cut(&good).slots[0].1.clone();
    let with_slot =
        |slot: Vec<u8>| MultiParts { slots: vec![(party.address.device, slot)], ..MultiParts::cut(&good) }.bytes();
    let patch = |mut raw: Vec<u8>, at: usize, bytes: &[u8]| {
        raw[at..at + bytes.len()].copy_from_slice(bytes);
        raw
    };
    let without_kem = [&slot[..70], &slot[70 + 1088..]].concat();
    let bad = [
        patch(good.clone(), 0, &[0]),
        patch(good.clone(), 0, &[2]),
        patch(good.clone(), 1, &[9]),
        patch(good.clone(), 1, &[2]),
        with_slot(without_kem),
        with_slot(patch(slot.clone(), 58, &[0xff; 4])),
        with_slot(patch(slot.clone(), 50, &[0xff; 4])),
        with_slot(patch(slot.clone(), 0, &[0])),
        with_slot(patch(slot.clone(), 70, &[0; 1088])),
        with_slot(slot[ratchet_at(&slot)..].to_vec()),
    ];
    none_opens(&bob, "bob", "mallory", &bad, 5000);
    mallory.msg_raw("bob", &good);
    assert_eq!(bob.run(&["fetch"]).texts(), ["lesser"]);
}

#[test]
fn a12_the_server_says_something_in_a_sealed_room() {
    let s = Stage::new();
    let (alice, bob) = (s.dsc("alice"), s.dsc("bob"));
    alice.run(&["create", "#room"]).ok();
    alice.run(&["invite", "#room", "bob"]).ok();
    bob.run(&["join", "#room"]).ok();
    for text in ["one", "two"] {
        alice.run(&["send", "#room", text]).ok();
    }
    // As new lines, and as old ones that this device has never seen: text, and a file in the clear.
    let hash = "0".repeat(64);
    let text = "2026-01-01T00:00:00.000Z #room alice :said by the server";
    let file = format!("2026-01-01T00:00:00.000Z #room alice file=1 size=3 sha256={hash} :run.me");
    let forged = move |from: u64| vec![format!("- msg {from} {text}"), format!("- file {} {file}", from + 1)];
    let instead = |at: u64| {
        let forged = forged.clone();
        move |caught: &Caught| {
            if caught.is_down("OK fetch") && caught.user == "bob" {
                return Verdict::Instead([forged(at), vec![caught.line.clone()]].concat());
            }
            Verdict::Pass
        }
    };
    s.evil.script(instead(100));
    let ran = bob.run(&["fetch", "#room"]);
    s.evil.script(instead(50));
    let page = bob.run(&["fetch", "#room", "--before", "90"]);
    for ran in [&ran, &page] {
        assert_eq!(ran.texts(), ["one", "two"], "{ran:?}");
        assert_eq!(ran.of("message").len(), 2, "{ran:?}");
        assert!(ran.unreadable().iter().all(|code| code == "plain"), "{ran:?}");
        assert_eq!(ran.unreadable().len(), 2, "{ran:?}");
    }
}

#[test]
fn a13_reset_storm() {
    let s = Stage::new();
    let (alice, bob) = (s.dsc("alice"), s.dsc("bob"));
    alice.run(&["send", "bob", "hello"]).ok();
    bob.run(&["fetch"]).ok();
    bob.run(&["send", "alice", "hi"]).ok();
    alice.run(&["fetch"]).ok();
    let before = s.bodies("alice", "bob").len();
    // Each message to Bob is damaged on its way, in the last byte of his slot.
    let damage = |caught: &Caught| {
        let to_bob = caught.way == Way::Down && caught.user == "bob";
        if to_bob
            && (caught.line.starts_with("* msg ") || caught.line.starts_with("- msg "))
            && caught.line.contains(" bob alice ")
        {
            let body = flipped(caught.body().unwrap(), |raw| {
                let parts = MultiParts::cut(raw);
                raw.len() - parts.tail.len() - 1
            });
            return Verdict::Instead(vec![caught.with_body(&body)]);
        }
        Verdict::Pass
    };
    s.evil.script(damage);
    let mut tail = bob.tail();
    for i in 0..8 {
        alice.run(&["send", "bob", &format!("lost {i}")]).ok();
        let code = tail.wait_unreadable();
        assert!(["auth", "commit", "no-session", "no-prekey"].contains(&code.as_str()), "{code}");
    }
    assert_eq!(s.signals("bob", "alice"), 1, "one reset an hour");
    assert_eq!(s.bodies("alice", "bob").len(), before + 8, "nothing is sent again by itself");
    let ran = alice.run(&["fetch"]).ok();
    assert_eq!(ran.of("notice").iter().filter(|notice| notice["kind"] == "reset").count(), 1, "{ran:?}");
    assert_eq!(s.bodies("alice", "bob").len(), before + 8, "nothing is sent again by itself");
    s.evil.honest();
    alice.run(&["send", "bob", "after the storm"]).ok();
    tail.wait_text("after the storm");
    assert!(!crate::evil::dsc::texts(&tail.stop().events()).iter().any(|text| text.starts_with("lost")));
    assert_eq!(s.signals("bob", "alice"), 1);

    // Somebody else's identity causes none: the server posts as Alice what Mallory has sealed.
    let mut mallory = Keys::new("alice", 1301);
    let bundle = Directory::published(&s.evil, "bob").devices.remove(0).2;
    let envelope = mallory.seal_to(&bundle, now().ms(), "it is me");
    s.post("alice", "bob", &armour::body(&envelope));
    let ran = bob.run(&["fetch"]);
    assert_eq!((ran.texts().len(), ran.unreadable()), (0, vec!["identity".to_owned()]));
    assert!(ran.of("alarm").iter().any(|alarm| alarm["kind"] == "identity-changed"), "{ran:?}");
    assert_eq!(s.signals("bob", "alice"), 1);
}

#[test]
fn a13_crossing_resets_end_in_one_session() {
    let s = Stage::new();
    let (alice, bob) = (s.dsc("alice"), s.dsc("bob"));
    for (from, name, to) in [(&alice, "bob", &bob), (&bob, "alice", &alice)] {
        from.run(&["send", name, "hello"]).ok();
        to.run(&["fetch"]).ok();
    }
    // One message each way is damaged, and both resets are on their way before either arrives.
    s.evil.script(|caught| {
        let log = caught.is_down("- msg ") || caught.is_down("* msg ");
        if log && caught.body().is_some() && (caught.line.contains(" bob alice ") != (caught.user == "alice")) {
            let body = flipped(caught.body().unwrap(), |raw| raw.len() - MultiParts::cut(raw).tail.len() - 1);
            return Verdict::Instead(vec![caught.with_body(&body)]);
        }
        if caught.is_down("- signal ") || caught.is_down("* signal ") { Verdict::Drop } else { Verdict::Pass }
    });
    alice.run(&["send", "bob", "lost"]).ok();
    bob.run(&["send", "alice", "lost"]).ok();
    for dsc in [&alice, &bob] {
        assert_eq!(dsc.run(&["fetch"]).unreadable().len(), 1);
    }
    assert_eq!((s.signals("alice", "bob"), s.signals("bob", "alice")), (1, 1));
    s.evil.honest();
    for dsc in [&alice, &bob] {
        dsc.run(&["fetch"]).ok();
    }
    for round in 0..2 {
        for (from, name, to) in [(&alice, "bob", &bob), (&bob, "alice", &alice)] {
            let text = format!("{} in round {round}", from.user);
            from.run(&["send", name, &text]).ok();
            assert_eq!(to.run(&["fetch"]).ok().texts(), [text]);
        }
    }
    let sid = |user: &str, to: &str| {
        let slot = MultiParts::cut(&armour::envelope(&s.body(user, to)).unwrap()).slots.remove(0).1;
        let at = ratchet_at(&slot) + 2;
        slot[at..at + 16].to_vec()
    };
    assert_eq!(sid("alice", "bob"), sid("bob", "alice"));
    assert_eq!((s.signals("alice", "bob"), s.signals("bob", "alice")), (1, 1));
}

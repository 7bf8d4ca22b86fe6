//! Attacks 11, 17 and 18 by a peer: files that are not what their messages say.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::common::Seeded;
use crate::common::e2e::descriptor::Descriptor;
use crate::common::e2e::error::Error;
use crate::common::e2e::file::Receiver;
use crate::common::e2e::roster::Op;
use crate::common::e2e::secret::Secret;
use crate::evil::file::{CHUNK, HEADER, Row, SEALED, changes, derive, layout, pieces_up, words};
use crate::evil::forge::{self, Inner, Twist, draw, salamander};
use crate::evil::{Blob, Dsc, Inbox, Lab, Stage, Verdict, Way};
use crate::support::client::wait_until;

/// Mallory, who has a program of her own, and Bob, who has `dsc`.
struct Scene {
    stage: Stage,
    mallory: Lab,
    bob: Inbox,
}

impl Scene {
    fn new(seed: u64) -> Scene {
        let stage = Stage::new();
        let (mallory, bob) = (stage.lab("mallory", seed), Inbox::of(stage.dsc("bob")));
        Scene { stage, mallory, bob }
    }

    fn rng(&mut self) -> &mut Seeded {
        &mut self.mallory.device.rng
    }

    /// Gives the server the bytes of a file and tells Bob something of it; how he gets it.
    fn offer(&mut self, bytes: &[u8], descriptor: Descriptor) -> String {
        self.mallory.upload("bob", bytes);
        self.tell(descriptor)
    }

    /// Tells Bob of a file; how he gets it.
    fn tell(&mut self, descriptor: Descriptor) -> String {
        let wanted = self.mallory.announce("bob", descriptor);
        self.bob.dsc.run(&["fetch"]).ok();
        wanted
    }

    /// Tells Bob of a file in words that no honest program has; why they cannot be opened.
    fn tell_by_hand(&mut self, descriptor: &Descriptor) -> Vec<String> {
        let (party, mut session) = self.mallory.forge("bob", &Twist::default());
        let conv = self.mallory.direct_with(&party);
        let text = Inner::text(conv, "", self.rng());
        let padded = Inner { kind: 2, body: words(descriptor), ..text }.padded();
        let envelope = self.mallory.forged(&party, &mut session, &padded);
        self.mallory.msg_raw("bob", &envelope);
        self.bob.dsc.run(&["fetch"]).unreadable()
    }
}

/// Bytes of which no two pieces are alike.
fn content(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i * 31 + i / 251) as u8).collect()
}

/// What the library makes of the bytes of a file.
fn opened(descriptor: &Descriptor, bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let (header, mut rest) = bytes.split_first_chunk().ok_or(Error::Syntax)?;
    let mut receiver = Receiver::new(descriptor, header)?;
    let mut out = Vec::new();
    while let Some(wanted) = receiver.wants() {
        let (now, later) = rest.split_at(wanted.min(rest.len()));
        out.extend_from_slice(&receiver.chunk(now)?);
        rest = later;
    }
    if rest.is_empty() { receiver.finish().map(|()| out) } else { Err(Error::Syntax) }
}

#[test]
fn a_file_by_hand_is_a_file() {
    let mut scene = Scene::new(1801);
    for size in [0, 1, 1000, CHUNK, 3 * CHUNK + 5] {
        let whole = content(size);
        let blob = Blob::seal(&whole, scene.rng());
        assert_eq!(opened(&blob.descriptor("x"), &blob.bytes), Ok(whole.clone()));
        let descriptor = blob.descriptor(&format!("{size}"));
        let wanted = scene.offer(&blob.bytes, descriptor);
        scene.bob.takes(&wanted, &whole);
    }
    assert_eq!(scene.bob.names().len(), 5);
}

#[test]
fn a11_bit_flips_in_a_file() {
    const MASKS: [u8; 3] = [0x01, 0x80, 0xff];
    let mut scene = Scene::new(1802);
    let whole = b"forty bytes of a file, and 216 of zeros.";
    let blob = Blob::by_library(whole, scene.rng());
    let descriptor = blob.descriptor("small");
    assert_eq!(blob.bytes.len(), 328);
    assert_eq!(opened(&descriptor, &blob.bytes).unwrap(), whole);
    for at in 0..blob.bytes.len() {
        for mask in MASKS {
            let bad = blob.with(|bytes| bytes[at] ^= mask);
            // Whatever the hash says: the peer can make it fit.
            for descriptor in [&descriptor, &bad.descriptor("small")] {
                let wrong = opened(descriptor, &bad.bytes).unwrap_err();
                assert!(matches!(wrong, Error::Commit | Error::Auth), "byte {at}: {wrong:?}");
            }
        }
    }
    // In each region, by the server, with the real dsc: salt, commitment, text, padding, tag.
    let wanted = scene.offer(&blob.bytes, descriptor);
    let regions = [(0_u64, "commit"), (23, "commit"), (24, "commit"), (55, "commit"), (56, "auth"), (95, "auth")];
    for (at, code) in regions.into_iter().chain([96, 311, 312, 327].map(|at| (at, "auth"))) {
        scene.stage.evil.script(changes("bob", move |offset, bytes| {
            if let Some(byte) = at.checked_sub(offset).and_then(|at| bytes.get_mut(at as usize)) {
                *byte ^= 0x10;
            }
        }));
        scene.bob.refuses(&format!("byte {at}"), &wanted, code);
    }
    scene.stage.evil.honest();
    scene.bob.takes(&wanted, whole);
}

#[test]
fn a17_salamander_as_a_file() {
    let mut scene = Scene::new(1701);
    let carol = Inbox::of(scene.stage.dsc("carol"));
    // Of a size that needs no padding: the zeros would give the second text away, and it is the commitment that has to.
    let whole = content(1024);
    assert_eq!(layout(1024).padded, 1024);
    let (keys, salt): ([[u8; 32]; 2], [u8; 24]) = ([draw(scene.rng()), draw(scene.rng())], draw(scene.rng()));
    let both = keys.map(|key| derive(&key, &salt));
    let body = salamander(&both[0], &both[1], &[], &whole, 5);
    let bytes = [&salt[..], &both[0].com, &body].concat();
    let mut shown = whole.clone();
    shown[5 * 16..6 * 16].copy_from_slice(&decrypted(&both[0], &body)[5 * 16..6 * 16]);
    assert_ne!(decrypted(&both[1], &body), shown, "another file under the other key");

    // One ciphertext on the server, for a room of both; to each of them another key.
    let room = scene.mallory.create_room("#room", false);
    for inbox in [&scene.bob, &carol] {
        assert!(scene.mallory.roster(&room, Op::Add, &inbox.dsc.user));
        scene.mallory.command(&format!("/invite #room {}", inbox.dsc.user));
        inbox.dsc.run(&["join", "#room"]).ok();
    }
    scene.mallory.upload("#room", &bytes);
    let said = |key: [u8; 32]| Blob { key, size: 1024, bytes: bytes.clone() }.descriptor("contract.txt");
    let descriptors = keys.map(said);
    assert_eq!(descriptors[0].blob_id, descriptors[1].blob_id);
    let to_bob = scene.tell(descriptors[0].clone());
    let to_carol = scene.mallory.announce("carol", descriptors[1].clone());
    carol.dsc.run(&["fetch"]).ok();
    scene.bob.takes(&to_bob, &shown);
    carol.refuses("the second key", &to_carol, "commit");
    assert!(carol.names().is_empty());

    // And both to Bob: what he has stays what it is.
    let second = scene.tell(descriptors[1].clone());
    scene.bob.refuses("the second key to the same", &second, "commit");
    assert_eq!(scene.bob.files(), [("contract.txt".to_owned(), shown)].into());
}

/// What a chunk says, whoever sealed it.
fn decrypted(derived: &forge::Derived, body: &[u8]) -> Vec<u8> {
    let payload = aes_gcm::aead::Payload { msg: body, aad: &[] };
    aes_gcm::aead::Aead::decrypt(&derived.gcm, &aes_gcm::Nonce::from(derived.nonce), payload).unwrap()
}

#[test]
fn a18_what_a_peer_uploads() {
    let mut scene = Scene::new(1811);
    let whole = content(2 * CHUNK + 7000);
    let blob = Blob::seal(&whole, scene.rng());
    let (padded, ct_len) = (layout(blob.size).padded as usize, blob.bytes.len());
    assert!(padded > whole.len(), "with zeros behind it");

    // Changed before the hash was made: everything else has to find it.
    for (what, code, at) in [
        ("salt", "commit", 5),
        ("commitment", "commit", 40),
        ("the first chunk", "auth", HEADER + 100),
        ("the tag of the first chunk", "auth", HEADER + SEALED - 1),
        ("the second chunk", "auth", HEADER + SEALED + 3),
        ("the last chunk", "auth", HEADER + 2 * SEALED + 9),
        ("the padding", "auth", ct_len - 17),
        ("the last tag", "auth", ct_len - 1),
    ] {
        let bad = blob.with(|bytes| bytes[at] ^= 0x04);
        let wanted = scene.offer(&bad.bytes, bad.descriptor("bad"));
        scene.bob.refuses(what, &wanted, code);
    }

    // Cut, or with bytes behind it: the server has another length than was said, or the length is none.
    for (what, bad) in [
        ("nothing but the header", blob.with(|bytes| bytes.truncate(HEADER))),
        ("one chunk", blob.with(|bytes| bytes.truncate(HEADER + SEALED))),
        ("two chunks", blob.with(|bytes| bytes.truncate(HEADER + 2 * SEALED))),
        ("all but the last byte", blob.with(|bytes| bytes.truncate(ct_len - 1))),
        ("a byte behind it", blob.with(|bytes| bytes.push(0))),
        ("a chunk behind it", blob.with(|bytes| bytes.extend_from_within(HEADER + SEALED..HEADER + 2 * SEALED))),
    ] {
        let wanted = scene.offer(&bad.bytes, bad.descriptor("bad"));
        let ran = scene.bob.get(&wanted).fails(1);
        assert!(ran.out.contains("not what was sent"), "{what}: {ran:?}");
        let honest = Descriptor { ct_len: bad.bytes.len() as u64, ..bad.descriptor("bad") };
        assert_eq!(scene.tell_by_hand(&honest), ["inner"], "{what}: no file has such a length");
    }

    // What is behind the file is not zeros, or the size is another of the same length.
    let mut text = whole.clone();
    text.resize(padded, 0);
    text[padded - 1] = 1;
    let (key, salt) = (draw(scene.rng()), draw(scene.rng()));
    let bad = Blob::of_text(&key, &salt, &text, blob.size);
    let wanted = scene.offer(&bad.bytes, bad.descriptor("bad"));
    scene.bob.refuses("a word in the padding", &wanted, "padding");
    let less = Blob { size: blob.size - 1, ..blob.clone() };
    assert_eq!(layout(less.size), crate::common::e2e::file::Layout { size: less.size, ..layout(blob.size) });
    let wanted = scene.offer(&blob.bytes, less.descriptor("bad"));
    scene.bob.refuses("a byte less", &wanted, "padding");

    // Another's key, another's hash, nobody's hash.
    let other = Blob::seal(&whole, scene.rng());
    scene.mallory.upload("bob", &other.bytes);
    let wanted = scene.tell(Descriptor { blob_id: other.descriptor("x").blob_id, ..blob.descriptor("bad") });
    scene.bob.refuses("the hash of another", &wanted, "commit");
    let wanted = scene.tell(Descriptor { key: Secret::copy_from(&other.key), ..blob.descriptor("bad") });
    scene.bob.refuses("the key of another", &wanted, "commit");
    let wanted = scene.tell(Descriptor { blob_id: [7; 32], ..blob.descriptor("bad") });
    scene.bob.get(&wanted).fails(6);

    // After all that the honest one comes, alone.
    let wanted = scene.tell(blob.descriptor("good"));
    scene.bob.takes(&wanted, &whole);
    assert_eq!(scene.bob.names(), ["good"]);
}

#[test]
fn a18_chunks_in_another_order() {
    let mut scene = Scene::new(1812);
    // Whole chunks, sealed by the library.
    let blob = Blob::by_library(&content(4 * CHUNK), scene.rng());
    let chunk = |k: usize| HEADER + k * SEALED..HEADER + (k + 1) * SEALED;
    for (what, bad) in [
        ("swapped", blob.with(|bytes| bytes[HEADER..HEADER + 2 * SEALED].rotate_left(SEALED))),
        ("turned", blob.with(|bytes| bytes[HEADER..HEADER + 4 * SEALED].rotate_left(SEALED))),
        ("one twice", blob.with(|bytes| bytes.copy_within(chunk(0), chunk(1).start))),
        ("the last first", blob.with(|bytes| bytes[HEADER..HEADER + 4 * SEALED].rotate_right(SEALED))),
    ] {
        let wanted = scene.offer(&bad.bytes, bad.descriptor("bad"));
        scene.bob.refuses(what, &wanted, "auth");
    }
    // Left out, and the rest moved up: a shorter file, whose last chunk is another's.
    let bad = Blob { size: 3 * CHUNK as u64, ..blob.with(|bytes| drop(bytes.drain(chunk(1)))) };
    let wanted = scene.offer(&bad.bytes, bad.descriptor("bad"));
    scene.bob.refuses("one left out", &wanted, "auth");
}

#[test]
fn a18_two_files_under_one_key() {
    // A peer seals two files under one key and salt, and the server gives the other one: all of it is authentic,
    // and it is not what was spoken of.
    let mut scene = Scene::new(1813);
    let (first, second) = (content(30_000), vec![7; 30_000]);
    let (key, salt) = (draw(scene.rng()), draw(scene.rng()));
    let (one, two) = (Blob::under(&key, &salt, &first), Blob::under(&key, &salt, &second));
    let wanted = scene.offer(&one.bytes, one.descriptor("one"));
    let other = two.bytes.clone();
    scene.stage.evil.script(changes("bob", move |offset, bytes| {
        let there = bytes.len();
        bytes.copy_from_slice(&other[offset as usize..][..there]);
    }));
    scene.bob.refuses("another file under its key", &wanted, "payload");
    // From some place on.
    let other = two.bytes.clone();
    scene.stage.evil.script(changes("bob", move |offset, bytes| {
        let there = bytes.len();
        let from = (HEADER + SEALED).saturating_sub(offset as usize).min(there);
        bytes[from..].copy_from_slice(&other[offset as usize..][from..there]);
    }));
    scene.bob.refuses("the end of another", &wanted, "payload");
    scene.stage.evil.honest();
    scene.bob.takes(&wanted, &first);
}

#[test]
fn a18_hostile_names() {
    let mut scene = Scene::new(1814);
    let long = "x".repeat(255);
    let wide = "☃".repeat(85);
    let names = [
        ("../../.ssh/x", "x"),
        ("../../../../../../../../tmp/dsc-was-here", "dsc-was-here"),
        ("/etc/passwd", "passwd"),
        ("..\\..\\boot.ini", "boot.ini"),
        ("-rf", "_rf"),
        ("a\0b", "ab"),
        ("\u{202e}gpj.exe", "gpj.exe"),
        ("\u{200b}\u{feff}hidden", "hidden"),
        (".bashrc", "bashrc"),
        ("..", "file"),
        (".", "file (1)"),
        ("/", "file (2)"),
        (" ", "file (3)"),
        ("\u{200b}", "file (4)"),
        ("dir/", "file (5)"),
        ("one\r\n* msg 9 x bob alice :two", "one* msg 9 x bob alice :two"),
        ("\u{1b}]0;title\u{7}\u{1b}[2Jred", "]0;title[2Jred"),
        ("$(touch pwned); `touch pwned`", "$(touch pwned); `touch pwned`"),
        ("again", "again"),
        ("again", "again (1)"),
        ("again.part", "again.part"),
        ("again", "again (2)"),
        (&long, &long),
        (&long, &format!("{} (1)", &long[..251])),
        (&wide, &wide),
    ];
    let (mut wanted, mut texts) = (Vec::new(), Vec::new());
    for (name, plain) in names {
        let whole = format!("{name:?} as {plain}").into_bytes();
        let blob = Blob::seal(&whole, scene.rng());
        scene.mallory.upload("bob", &blob.bytes);
        wanted.push(scene.mallory.announce("bob", blob.descriptor(name)));
        texts.push((plain.to_owned(), whole));
    }
    // For people they have nothing in them that a terminal obeys.
    let inbox = scene.bob.path();
    let files: Vec<&str> = wanted.iter().map(String::as_str).collect();
    let get = [&["get-file", "-o", inbox.to_str().unwrap()], &files[..]].concat();
    for command in [&["fetch"][..], &get[..], &["files"][..]] {
        let ran = scene.bob.dsc.plain(command, b"").ok();
        let shown = ran.out + &ran.err;
        assert!(shown.contains("again"), "{shown}");
        assert!(!shown.contains(['\u{1b}', '\u{7}', '\r', '\u{202e}', '\0']), "{shown:?}");
    }
    assert_eq!(scene.bob.files(), texts.into_iter().collect());
    assert_eq!(scene.bob.names().len(), names.len());
    // No name at all, and one that is too long, are no file.
    for name in ["", &"x".repeat(256)] {
        let blob = Blob::seal(b"x", scene.rng());
        let descriptor = Descriptor { name: name.to_owned(), ..blob.descriptor("x") };
        assert_eq!(scene.tell_by_hand(&descriptor), ["inner"]);
    }
}

#[test]
fn a18_a_claim_of_a_tebibyte() {
    const CLAIM: u64 = 1 << 40;
    let mut scene = Scene::new(1815);
    let small = Blob::seal(b"small", scene.rng());
    let claim = Blob { size: CLAIM, ..small.clone() };
    let wanted = scene.offer(&small.bytes, claim.descriptor("huge"));
    assert!(scene.bob.get(&wanted).fails(1).out.contains("not what was sent"));
    // The server says the same.
    let claimed = format!(" size={}", layout(CLAIM).ct_len);
    scene.stage.evil.script(move |caught| {
        let of_file = caught.is_down("- upload ") || caught.is_down("OK get-file");
        match of_file && caught.user == "bob" {
            true => Verdict::Instead(vec![caught.line.replace(" size=328", &claimed)]),
            false => Verdict::Pass,
        }
    });
    assert!(scene.bob.get(&wanted).fails(1).out.contains("do not fit"));
    assert!(scene.bob.names().is_empty());
}

#[test]
fn a18_a_stream_without_end_costs_no_memory() {
    /// Bytes after which memory is looked at.
    const SERVED: u64 = 24 << 20;
    /// What it may grow by meanwhile.
    const MEMORY_MAX_KIB: u64 = 8 << 10;
    let mut scene = Scene::new(1816);
    let file = scene.mallory.upload_as("bob", "stream", b"x");
    scene.bob.dsc.run(&["fetch"]).ok();
    // A file of the server's own making, as long as it likes.
    let row = format!("- chunk {file} {{at}} {}", crate::common::e2e::armour::base64(&[0; 65_536]));
    scene.stage.evil.script(move |caught| {
        if caught.is_down("- upload ") {
            return Verdict::Instead(vec![caught.line.replace(" size=1 ", &format!(" size={} ", 1_u64 << 40))]);
        }
        if !caught.is_command("/get-file") {
            return Verdict::Pass;
        }
        let number = |name: &str| -> u64 {
            caught.words().iter().find_map(|word| word.strip_prefix(name)).unwrap().parse().unwrap()
        };
        let (from, length) = (number("offset="), number("length="));
        let mut lines: Vec<String> =
            (from..from + length).step_by(65_536).map(|at| row.replace("{at}", &at.to_string())).collect();
        lines.push(format!("OK get-file{{label}} file={file} offset={} size={} more=yes", from + length, 1_u64 << 40));
        Verdict::Answer(lines)
    });
    let mut command = scene.bob.dsc.command();
    command.args(["get-file", &file.to_string(), "-o", "-"]);
    let mut child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null()).spawn().unwrap();
    let got = Arc::new(AtomicU64::new(0));
    let (mut out, count) = (child.stdout.take().unwrap(), Arc::clone(&got));
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(n @ 1..) = std::io::Read::read(&mut out, &mut buffer) {
            count.fetch_add(n as u64, Ordering::SeqCst);
        }
    });
    let peak = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    wait_until("the first bytes", || got.load(Ordering::SeqCst) > 0);
    let before = peak();
    wait_until("many bytes", || got.load(Ordering::SeqCst) > SERVED);
    let grown = peak() - before;
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(grown < MEMORY_MAX_KIB, "grown by {grown} KiB from {before}");
}

/// The first bytes of everything that was sent: a salt and a commitment to a key each.
fn headers(rows: &[Row]) -> Vec<Vec<u8>> {
    let mut headers: Vec<Vec<u8>> =
        rows.iter().filter(|row| row.offset == 0).map(|row| row.bytes[..HEADER].to_vec()).collect();
    headers.sort();
    headers.dedup();
    headers
}

/// The sealed copies that a home keeps.
fn spooled(dsc: &Dsc) -> Vec<Vec<u8>> {
    let spool = dsc.snapshot().into_iter().filter(|(path, _)| path.starts_with("spool"));
    spool.map(|(_, bytes)| bytes).collect()
}

#[test]
fn a18_a_source_that_changes_before_it_is_resumed() {
    let s = Stage::new();
    let (alice, bob) = (s.dsc("alice"), Inbox::of(s.dsc("bob")));
    let source = alice.path("report");
    let whole = content(300_000);
    std::fs::write(&source, &whole).unwrap();
    let send = ["send-file", "bob", source.to_str().unwrap()];
    // Cut off behind the second piece, by kill -9.
    let cut = |caught: &crate::evil::Caught| match caught.is_command("/chunk") && caught.words()[2] != "0" {
        true => Verdict::Drop,
        false => Verdict::Pass,
    };
    s.evil.script(cut);
    let running = alice.start(&send);
    s.evil.wait_line("a piece that does not arrive", |c| c.is_command("/chunk") && c.words()[2] == "65536");
    drop(running);
    s.evil.wait_gone("alice");
    let copy = spooled(&alice);
    assert_eq!((copy.len(), copy[0].len() as u64), (1, layout(300_000).ct_len));

    // The source is another, of the same length: what was sealed goes on, as it was.
    std::fs::write(&source, vec![b'!'; whole.len()]).unwrap();
    s.evil.honest();
    alice.run(&["resume"]).ok();
    assert!(spooled(&alice).is_empty());
    let sent = pieces_up(&s.evil.captured(), "alice");
    let mut sealed = vec![0; copy[0].len()];
    for row in &sent {
        let place = &mut sealed[row.offset as usize..][..row.bytes.len()];
        assert!(place.iter().all(|byte| *byte == 0) || place == row.bytes, "other bytes at {}", row.offset);
        place.copy_from_slice(&row.bytes);
    }
    assert!(sealed == copy[0], "what was sent is the copy");
    assert!(sent.iter().filter(|row| row.offset == 65_536).count() == 2, "a piece was sent twice, and alike");
    let shown = bob.dsc.run(&["fetch"]).ok();
    let id = shown.of("message")[0]["id"].as_u64().unwrap();
    bob.takes(&format!("alice/{id}"), &whole);

    // Changed and sent anew: nothing is sealed a second time under a key and salt.
    s.evil.forget();
    s.evil.script(cut);
    let mut seen = Vec::new();
    for round in 0..3 {
        std::fs::write(&source, vec![round; whole.len()]).unwrap();
        let running = alice.start(&send);
        s.evil.wait_lines("a piece of each", usize::from(round) + 1, |c| {
            c.is_command("/chunk") && c.words()[2] == "65536"
        });
        drop(running);
        s.evil.wait_gone("alice");
        let copies = spooled(&alice);
        assert_eq!(copies.len(), 1, "the copy of what is there no more is gone");
        seen.push(copies[0].clone());
    }
    s.evil.honest();
    std::fs::write(&source, [3; 10]).unwrap();
    alice.run(&send).ok();
    let headers = headers(&pieces_up(&s.evil.captured(), "alice"));
    assert_eq!(headers.len(), 4, "a salt and a key for each text");
    let salts: std::collections::BTreeSet<&[u8]> = headers.iter().map(|header| &header[..24]).collect();
    assert_eq!(salts.len(), 4);
    assert!(seen.iter().all(|copy| headers.contains(&copy[..HEADER].to_vec())));
    assert!(s.evil.captured().iter().all(|c| c.way == Way::Down || !c.line.contains(" report ")), "no name in clear");
    let shown = bob.dsc.run(&["fetch"]).ok();
    let files = shown.of("message");
    assert_eq!(files.len(), 1, "one message, of the last text: {shown:?}");
    bob.takes(&format!("alice/{}", files[0]["id"]), &[3; 10]);
    assert_eq!(bob.names(), ["report", "report (1)"]);
}

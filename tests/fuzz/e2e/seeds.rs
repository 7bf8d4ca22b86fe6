//! The seeds of the corpora: valid inputs of each target, and some damaged ones. `tests/corpora.rs` compares
//! them with the files `seed-*`, and writes those anew with `UPDATE_GOLDEN=1`.

use super::common::e2e::cert::Certificate;
use super::common::e2e::device_list::DeviceList;
use super::common::e2e::file::Sealer;
use super::common::e2e::inner::{Body, Conversation, Inner};
use super::common::e2e::keyslot::{Cost, Dek, Place};
use super::common::e2e::link::{self, Request};
use super::common::e2e::name::{Address, ChainId, ConvId, MsgId};
use super::common::e2e::padding;
use super::common::e2e::prekeys::Prekeys;
use super::common::e2e::secret::Secret;
use super::common::{DAY, Seeded, T0};
use super::scene::{NOW, Scene, addressed, how, scene};
use super::{as_piece, states};

/// An input of a target.
pub(crate) struct Seed {
    /// The target's name.
    pub(crate) target: &'static str,
    /// The file's.
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

#[derive(Default)]
struct Seeds(Vec<Seed>);

impl Seeds {
    fn add(&mut self, target: &'static str, name: &str, bytes: impl Into<Vec<u8>>) {
        self.0.push(Seed { target, name: format!("seed-{name}"), bytes: bytes.into() });
    }

    /// With copies that are cut, that have something inside them, and that have one bit changed.
    fn damaged(&mut self, target: &'static str, name: &str, bytes: &[u8]) {
        let mut rng = Seeded::new(bytes.len() as u64);
        let at = rng.below(bytes.len());
        let mut flipped = bytes.to_vec();
        flipped[at] ^= 1 << rng.below(8);
        let at = rng.below(bytes.len());
        let longer = [&bytes[..at], &[0], &bytes[at..]].concat();
        self.add(target, &format!("{name}-cut"), &bytes[..at]);
        self.add(target, &format!("{name}-longer"), longer);
        self.add(target, &format!("{name}-flipped"), flipped);
        self.add(target, name, bytes);
    }
}

/// A byte in front.
fn led(byte: u8, bytes: &[u8]) -> Vec<u8> {
    [&[byte], bytes].concat()
}

/// All seeds.
pub(crate) fn seeds() -> Vec<Seed> {
    let mut seeds = Seeds::default();
    texts(&mut seeds);
    structures(&mut seeds);
    chosen(&mut seeds);
    rows(&mut seeds);
    lines(&mut seeds);
    seeds.0
}

fn texts(seeds: &mut Seeds) {
    let code = scene().code.show();
    for (which, name, text) in [
        (0, "base64", "AQQ="),
        (0, "base64-loose", "AQR="),
        (0, "base64-unpadded", "AQQ"),
        (1, "body", "e2e:AQQ="),
        (1, "body-plain", "hello"),
        (2, "hex", "00112233445566778899aabbccddeeff"),
        (2, "hex-capitals", "00112233445566778899AABBCCDDEEFF"),
        (3, "code", &code),
        (3, "code-spaced", &code.replace('-', " ").to_lowercase()),
        (4, "user", "alice.b-c_9"),
        (4, "user-reserved", "server"),
        (4, "room", "#garden"),
        (5, "file", "report.pdf"),
        (5, "file-path", "../../.ssh/x"),
        (5, "file-reversed", "a\u{202e}fdp.exe"),
    ] {
        seeds.add("e2e_text", name, led(which, text.as_bytes()));
    }
}

fn structures(seeds: &mut Seeds) {
    let Scene { bob, lists, creates, pending, code, world, alice, .. } = scene();
    for (name, line) in scene().lines.iter().filter(|(name, _)| ["prekey", "ratchet", "group"].contains(name)) {
        seeds.damaged("e2e_envelope", name, &line.bytes());
    }
    // The first slot of an envelope of one device to another: behind 19 bytes, device and length.
    let envelope = scene().lines.iter().find(|(name, _)| *name == "receipt").unwrap().1.bytes();
    seeds.add(
        "e2e_envelope",
        "slot",
        &envelope[37..37 + usize::from(u16::from_be_bytes([envelope[35], envelope[36]]))],
    );

    seeds.damaged("e2e_certificate", "certificate", &led(0, bob.state.me.cert().bytes()));
    seeds.damaged("e2e_certificate", "list", &led(1, lists[1][0].bytes()));
    for (name, record) in scene().records() {
        seeds.add("e2e_certificate", &format!("record-{name}"), led(2, &record));
        seeds.add("key_record", name, record.as_slice());
        if ["list", "opk"].contains(&name) {
            seeds.damaged("key_record", &format!("damaged-{name}"), &record);
        }
    }
    let times = [T0.to_be_bytes(), (T0 + 400 * DAY).to_be_bytes()].concat();
    seeds.add("e2e_certificate", "times", led(3, &times));

    seeds.damaged("e2e_bundle", "one-time", &led(0, &scene().bundle(false)));
    seeds.damaged("e2e_bundle", "last", &led(0, &scene().bundle(true)));
    seeds.add("e2e_bundle", "stale", led(31, &scene().bundle(true)));
    seeds.add("e2e_bundle", "old-one-time", led(29, &scene().bundle(false)));

    let dek = Dek::from_bytes(Secret::copy_from(&[1; 32]));
    let slot = dek.to_slot(b"passphrase", Cost::FLOOR, &mut Seeded::new(4)).unwrap();
    let place = Place { table: "peers", rowid: 7, schema_version: 1 };
    seeds.damaged("e2e_keyslot", "slot", &slot);
    for (name, at, bytes) in [
        ("slot-cheap", 5, [0, 0, 0, 8]),
        ("slot-dear", 5, [0xff; 4]),
        ("slot-one-pass", 9, [0, 0, 0, 1]),
        ("slot-many-passes", 9, [0, 0, 1, 0]),
    ] {
        let mut edited = slot.clone();
        edited[at..at + 4].copy_from_slice(&bytes);
        seeds.add("e2e_keyslot", name, edited);
    }
    seeds.damaged("e2e_keyslot", "row", &dek.seal_row(&place, b"blob", &mut Seeded::new(5)).unwrap());

    let account = &world.accounts[alice.state.me.user()];
    let request = Request::parse(pending.request()).unwrap();
    let address = Address { user: alice.user(), device: request.device };
    let (from, to) = (T0, T0 + DAY);
    let cert = Certificate::issue(&account.aik, &address, &request.dsk, &request.dik, from, to).unwrap();
    let before = account.list.as_ref();
    let list = DeviceList::issue(&account.aik, &address.user, before, &[cert.hash()]).unwrap();
    let answer = link::answer(&request, code, &cert, &list, &[], &mut Seeded::new(6)).unwrap();
    seeds.damaged("e2e_link", "request", &led(0, pending.request()));
    seeds.damaged("e2e_link", "answer", &led(1, &answer));
    seeds.add("e2e_link", "code", led(2, code.show().as_bytes()));
    seeds.add("e2e_link", "pins", [3, 0, 4, 1, 5, 255]);

    seeds.damaged("e2e_roster_entry", "closed", &creates[0].1);
    seeds.damaged("e2e_roster_entry", "open", &creates[1].1);
    for (i, entry) in world.rosters.values().flatten().enumerate() {
        seeds.add("e2e_roster_entry", &format!("room-{i}"), entry.as_slice());
    }
}

/// Inputs that are choices, and files.
fn chosen(seeds: &mut Seeds) {
    for (name, steps) in [
        ("first", &[[0x0f, 0b0001, 0xff]][..]),
        ("next", &[[0x0f, 0b0001, 0xff], [0, 0b0101, 0xff]]),
        ("renewed", &[[0x0f, 0b0001, 0xff], [0, 0b0010, 0xff]]),
        ("both", &[[0x0f, 0b0011, 0xff]]),
        ("dropped", &[[0x0f, 0b1101, 0xff], [0, 0b0101, 0xff], [1, 0b0001, 0xff]]),
        ("withheld", &[[0x0f, 0b0101, 0x01], [0x0f, 0b0101, 0x04]]),
        ("skipped", &[[0x0f, 1, 0xff], [0, 4, 0xff], [1, 1, 0xff]]),
        ("forked", &[[0x0f, 1, 0xff], [0, 4, 0xff], [0, 8, 0xff]]),
        ("backwards", &[[0x0f, 1, 0xff], [0, 4, 0xff], [0x0f, 1, 0xff]]),
        ("other-user", &[[0x0f, 0b01_0001, 0xff]]),
        ("other-identity", &[[0x0f, 1, 0xff], [0xf0, 0b10_0000, 0xff]]),
    ] {
        seeds.add("e2e_learn", name, steps.concat());
    }
    let Scene { lists, alice, .. } = scene();
    let shown = [lists[0][0].bytes(), alice.state.me.cert().bytes(), &[]].map(as_piece).concat();
    seeds.add("e2e_learn", "bytes", shown);

    // how (who; 8 for later, 12 for what was kept), op, about, list
    for (name, mode, steps) in [
        ("add", 0, &[[0, 2, 1, 1]][..]),
        ("add-remove", 0, &[[0, 2, 1, 1], [0, 3, 1, 0]]),
        ("add-leave", 0, &[[0, 2, 1, 1], [1, 7, 1, 0]]),
        ("add-promote-demote", 0, &[[0, 2, 1, 1], [0, 4, 1, 0], [1, 5, 0, 0], [1, 5, 1, 0]]),
        ("admin-leaves", 0, &[[0, 2, 1, 1], [0, 2, 2, 1], [0, 7, 0, 0]]),
        ("all-leave", 0, &[[0, 2, 1, 1], [0, 7, 0, 0], [1, 7, 1, 0]]),
        ("join", 1, &[[1, 6, 1, 0], [2, 6, 2, 0]]),
        ("join-after-removal", 1, &[[1, 6, 1, 0], [0, 3, 1, 0], [1, 6, 1, 0], [0, 2, 1, 0], [0, 3, 1, 0]]),
        ("join-closed", 0, &[[1, 6, 1, 0]]),
        ("devices", 0, &[[0, 8, 0, 1], [0, 8, 0, 1], [0, 8, 0, 2], [0, 2, 1, 1]]),
        ("stale", 0, &[[8, 2, 1, 0], [0, 2, 2, 0], [12, 0, 0, 0]]),
        ("strange-identity", 0, &[[0, 2, 0xc0, 0], [0, 2, 0xc2, 0], [0, 2, 2, 0xc0]]),
        ("again-created", 0, &[[0, 0, 0, 0], [0, 1, 0, 0]]),
    ] {
        seeds.add("e2e_roster", name, led(mode, &steps.concat()));
    }
    let raw = &scene().world.rosters.values().next().unwrap()[1];
    seeds.add("e2e_roster", "bytes", [&[0, 0xff], &as_piece(raw)[..]].concat());

    for (name, size) in [("empty", 0_u64), ("chunk", 16_384), ("gib", 1 << 30), ("most", 1 << 52), ("over", u64::MAX)] {
        seeds.add("e2e_file", &format!("layout-{name}"), led(0, &size.to_be_bytes()));
    }
    for (name, text) in [("empty", &[][..]), ("small", b"some text"), ("bucket", &[7; 300])] {
        seeds.add("e2e_file", &format!("text-{name}"), [&[1, 0, 0], text].concat());
        seeds.add("e2e_file", &format!("text-{name}-flipped"), [&[1, 1, 0x80], text].concat());
    }
    let mut sealer = Sealer::new(5, &mut Seeded::new(3)).unwrap().unwrap();
    let mut sealed = sealer.header().to_vec();
    sealed.extend(sealer.seal(b"hello").unwrap());
    seeds.add("e2e_file", "ciphertext", [&[2, 0, 5], &sealed[..]].concat());
}

fn rows(seeds: &mut Seeds) {
    let Scene { bob, carol, .. } = scene();
    let state = &bob.state;
    let room = &state.rooms[&scene().room];
    let (prekeys, _) = Prekeys::default().rotate(&state.me, NOW, &mut Seeded::new(2)).unwrap();
    let thread = state.threads.values().next().unwrap().note(9, [1; 32], [2; 32]).0;
    let all = [
        ("contact", state.contacts[carol.state.me.user()].to_row()),
        ("identity", state.me.to_row().to_vec()),
        ("prekeys", prekeys.to_row().to_vec()),
        ("peer", state.peers[carol.me()].to_row().to_vec()),
        ("marks", state.marks[carol.me()].to_row()),
        ("thread", thread.to_row()),
        ("outgoing", state.outgoing.values().next().unwrap().to_row()),
        ("roster", room.roster.to_row()),
        ("chains", room.chains.to_row().to_vec()),
    ];
    assert_eq!(all.len(), usize::from(states::ROWS));
    for (kind, (name, row)) in (0..).zip(all) {
        seeds.damaged("e2e_row", name, &led(kind, &row));
    }
    let own = &carol.state.rooms[&scene().room].chains;
    seeds.add("e2e_row", "own-chain", led(8, &own.to_row()));
}

fn lines(seeds: &mut Seeds) {
    let (mut bob, mut inners) = (scene().bob.clone(), Vec::new());
    for (i, (name, line)) in scene().lines.iter().enumerate() {
        let name = format!("{i:02}-{name}");
        let bytes = line.bytes();
        assert_eq!(*line, addressed(how(line), &bytes));
        let input = [&[how(line), 0], &bytes[..]].concat();
        if i == 1 {
            seeds.damaged("e2e_open", &name, &input);
        } else {
            seeds.add("e2e_open", &name, input);
        }
        if let Ok(opened) = bob.open(line, NOW) {
            inners.push((name, opened));
        }
    }
    let carol = scene().carol.user();
    for (name, opened) in &inners {
        seeds.add("e2e_inner", name, &opened.raw[..]);
        // As she said it in a message, a signal, a room.
        let way = match (&opened.place, opened.inner.conversation) {
            (None, _) => 1,
            (Some(_), Conversation::Room(_)) => 2,
            (Some(_), Conversation::Direct(_)) => 0,
        };
        if opened.from.user == carol || way == 1 {
            seeds.add("e2e_peer", name, as_piece(&led(way, &opened.raw)));
        }
    }
    let like = inners[0].1.inner.clone();
    let padded = padding::pad(&inners[0].1.raw);
    seeds.damaged("e2e_inner", "padded", &padded);
    let room = scene().room;
    let mut sealer = Sealer::new(5, &mut Seeded::new(3)).unwrap().unwrap();
    sealer.seal(b"hello").unwrap();
    let file = sealer.finish("report.pdf", "application/pdf").unwrap();
    let chain = ChainId([3; 16]);
    for (name, way, conversation, body) in [
        ("file", 0, like.conversation, Body::File(file)),
        ("chain-request", 1, Conversation::Room(room), Body::ChainRequest { room, chain }),
        ("room-receipt", 1, Conversation::Room(room), Body::Receipt { read: false, messages: vec![MsgId([1; 16]); 3] }),
        ("stray-reset", 1, Conversation::Direct(ConvId([1; 16])), Body::Reset),
        ("room-text", 2, Conversation::Room(room), Body::Text("text".into())),
        ("room-text-again", 3, Conversation::Room(room), Body::Text("again".into())),
    ] {
        let inner = Inner { conversation, body, ..like.clone() }.to_bytes();
        seeds.add("e2e_inner", name, &inner[..]);
        seeds.add("e2e_peer", name, as_piece(&led(way, &inner)));
    }
    let twice = inners.iter().filter(|(_, opened)| opened.from.user == carol).take(2);
    let both: Vec<_> = twice.flat_map(|(_, opened)| as_piece(&led(0, &opened.raw))).collect();
    seeds.add("e2e_peer", "two", both);
}

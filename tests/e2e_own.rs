//! `tests/vectors/own.json`: made here from a fixed seed, compared, and replayed by every device from
//! its private parts alone. `tests/vectors/README.md` describes the format.
//!
//! Longer than most because it is one story: the generator, its cast, and the reader beside it.
//!
//! To write the file anew after a change of the protocol: `WRITE_VECTORS=1 cargo test --test e2e_own`.
#![cfg(feature = "client")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

#[path = "e2e_common/mod.rs"]
mod common;

use std::collections::BTreeMap;

use common::e2e::armour::{self, hex, unhex};
use common::e2e::bundle::KeyKind;
use common::e2e::cert::Certificate;
use common::e2e::dh::DhPair;
use common::e2e::error::{Error, NoRandom};
use common::e2e::file::Sealer;
use common::e2e::identity::DeviceKeys;
use common::e2e::inner::{Body, ChangeKind, Via};
use common::e2e::name::{Address, ChainId, DeviceId, MsgId, RoomName, User};
use common::e2e::prekeys::Prekeys;
use common::e2e::receive::{Line, Target};
use common::e2e::rng::Rng;
use common::e2e::roster::{Entry, Op};
use common::e2e::roster_log::{Skip, Verdict};
use common::e2e::secret::Secret;
use common::e2e::sign::SignKey;
use common::e2e::state::State;
use common::e2e::time::Now;
use common::*;
use serde_json::{Value, json};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/own.json");
const NOW: Now = Now::from_secs(T0);

/// The code of a roster row that is not taken in.
fn verdict_code(verdict: &Verdict) -> Option<&'static str> {
    match verdict {
        Verdict::Accepted(_) | Verdict::Known => None,
        Verdict::Skipped(Skip::Broken(error)) => Some(error.code()),
        Verdict::Skipped(Skip::Misplaced) => Some("room"),
        Verdict::Skipped(Skip::NotAllowed) => Some("not-member"),
        Verdict::Fork => Some("fork"),
    }
}

struct Maker {
    world: World,
    devices: Vec<Device>,
    initial: Vec<Prekeys>,
    lines: Vec<Value>,
    codes: BTreeMap<&'static str, usize>,
    /// How much of each room's roster log was written down for each device.
    written: BTreeMap<(usize, RoomName), usize>,
}

const A1: usize = 0;
const B1: usize = 1;
const C1: usize = 2;
const A2: usize = 3;
const B2: usize = 4;

impl Maker {
    fn new() -> Self {
        let mut world = World::new(2024);
        let mut devices: Vec<_> = ["alice", "bob", "carol", "alice", "bob"].map(|n| world.device(n)).into();
        for device in &mut devices {
            for name in ["alice", "bob", "carol"] {
                world.learn(device, &user(name), NOW);
            }
        }
        let initial = devices.iter().map(|d| d.state.prekeys.clone()).collect();
        Self { world, devices, initial, lines: Vec::new(), codes: BTreeMap::new(), written: BTreeMap::new() }
    }

    /// Opens without writing it down: by the initiator of a session, who cannot replay it.
    fn hear(&mut self, by: usize, line: &Sent) {
        self.devices[by].open(line, NOW).unwrap();
    }

    fn push(&mut self, by: usize, line: &Sent) -> Option<Error> {
        let device = &mut self.devices[by];
        device.rng.drawn = Some(Vec::new());
        let before = device.fingerprint();
        let result = device.open(line, NOW);
        let draws: Vec<_> = device.rng.drawn.take().unwrap().iter().map(|d| hex(d)).collect();
        let via = match (line.via, line.to.starts_with('#')) {
            (Via::Signal, _) => "signal",
            (Via::Message, true) => "room",
            (Via::Message, false) => "msg",
        };
        let mut entry = json!({
            "by": by, "via": via, "sender": line.sender.as_str(), "target": line.to, "body": line.body, "draws": draws,
        });
        match &result {
            Ok(opened) => entry["inner"] = json!(hex(&opened.raw)),
            Err(error) => {
                assert!(draws.is_empty() && before == device.fingerprint());
                entry["refused"] = json!(error.code());
            }
        }
        *self.codes.entry(result.as_ref().map_or_else(|e| e.code(), |_| "opened")).or_default() += 1;
        self.lines.push(entry);
        result.err()
    }

    fn opens(&mut self, by: usize, line: &Sent) {
        assert_eq!(self.push(by, line), None);
    }

    fn refuses(&mut self, by: usize, line: &Sent, code: Error) {
        assert_eq!(self.push(by, line), Some(code));
    }

    fn say(&mut self, from: usize, to: &str, text: &str) -> Sent {
        self.world.say(&mut self.devices[from], to, text, NOW)
    }

    fn body(&mut self, from: usize, to: &str, body: Body) -> Sent {
        self.world.say_body(&mut self.devices[from], to, body, NOW)
    }

    fn signal(&mut self, from: usize, to: usize, body: Body) -> Sent {
        let to = self.devices[to].me().clone();
        self.world.signal(&mut self.devices[from], &to, body, NOW)
    }

    fn roster(&mut self, by: usize, room: &RoomName, place: u32, raw: &[u8]) {
        let sender = self.devices[A1].user();
        let device = &mut self.devices[by];
        let result = device.state.read_roster(room, place, raw, NOW);
        let mut entry = json!({
            "by": by, "via": "roster", "sender": sender.as_str(), "target": room.as_str(), "epoch": place,
            "body": armour::base64(raw), "draws": [],
        });
        match result {
            Ok((change, verdict)) => {
                device.state.apply(change);
                // What its author has read already is written down as it is for a reader.
                let known_junk =
                    (verdict == Verdict::Known).then(|| Entry::verify(raw).err().map(Error::code)).flatten();
                match verdict_code(&verdict).or(known_junk) {
                    None => entry["inner"] = json!(""),
                    Some(code) => entry["refused"] = json!(code),
                }
            }
            Err(error) => entry["refused"] = json!(error.code()),
        }
        self.lines.push(entry);
    }

    /// Brings everybody's roster up to date, written down.
    fn rosters(&mut self, room: &RoomName) {
        for by in 0..self.devices.len() {
            let entries = self.world.rosters[room].clone();
            let written = self.written.insert((by, room.clone()), entries.len()).unwrap_or(0);
            for (i, entry) in entries.iter().enumerate().skip(written) {
                self.roster(by, room, i as u32 + 1, entry);
            }
        }
    }

    fn room(&mut self, from: usize, room: &RoomName, text: &str) -> (Vec<Sent>, Sent) {
        self.world.say_room(&mut self.devices[from], room, text, NOW).unwrap()
    }

    /// Hands out links to the devices that they are for. Who is an initiator hears them only.
    fn links(&mut self, signals: &[Sent], listeners: &[usize]) {
        for signal in signals {
            let raw = signal.bytes();
            let to = (0..self.devices.len()).find(|i| {
                self.devices[*i].me().device.0 == raw[19..35] && self.devices[*i].user().as_str() == signal.to
            });
            match to {
                Some(to) if listeners.contains(&to) => self.hear(to, signal),
                Some(to) => self.opens(to, signal),
                None => panic!("a link for nobody"),
            }
        }
    }

    fn finish(self) -> Value {
        assert!(self.codes["opened"] >= 30, "{:?}", self.codes);
        let devices: Vec<_> = self
            .devices
            .iter()
            .zip(&self.initial)
            .map(|(d, initial)| {
                let me = &d.state.me;
                let left: Vec<_> = d.state.prekeys.private_keys().map(|(_, id, _)| id).collect();
                let keys = |kind: KeyKind| -> Value {
                    let one_time = matches!(kind, KeyKind::Opk | KeyKind::Pqk);
                    initial
                        .private_keys()
                        .filter(|(k, id, _)| *k == kind && !(one_time && left.contains(id)))
                        .map(|(_, id, key)| (id.to_string(), json!(hex(key))))
                        .collect::<serde_json::Map<_, _>>()
                        .into()
                };
                json!({
                    "user": me.user().as_str(),
                    "device": me.address().device.to_string(),
                    "dsk": hex(me.dsk().seed().expose()),
                    "dik": hex(me.dik().private().expose()),
                    "certificate": hex(me.cert().bytes()),
                    "list": hex(&self.world.directory.list(me.user())),
                    "spk": keys(KeyKind::Spk),
                    "opk": keys(KeyKind::Opk),
                    "pqk": keys(KeyKind::Pqk),
                    "pqk-last": keys(KeyKind::PqkLast),
                })
            })
            .collect();
        json!({ "devices": devices, "lines": self.lines })
    }
}

fn flipped(line: &Sent, at: usize) -> Sent {
    let mut raw = line.bytes();
    raw[at] ^= 1;
    line.with(&raw)
}

fn patched(line: &Sent, at: usize, bytes: &[u8]) -> Sent {
    let mut raw = line.bytes();
    raw[at..at + bytes.len()].copy_from_slice(bytes);
    line.with(&raw)
}

/// Where the slot for a device begins in a MULTI.
fn slot_of(line: &Sent, device: &Device) -> usize {
    let raw = line.bytes();
    let (mut at, n) = (19, raw[18]);
    for _ in 0..n {
        if raw[at..at + 16] == device.me().device.0 {
            return at + 18;
        }
        at += 18 + usize::from(u16::from_be_bytes([raw[at + 16], raw[at + 17]]));
    }
    panic!("no slot")
}

fn make() -> Value {
    let mut m = Maker::new();
    direct(&mut m);
    refusals(&mut m);
    rooms(&mut m);
    m.finish()
}

fn direct(m: &mut Maker) {
    // First contact: every device of Bob, and Alice's other one. Two before the answer, out of order.
    let one = m.say(A1, "bob", "one");
    let two = m.say(A1, "bob", "two");
    m.opens(B1, &two);
    m.opens(B1, &one);
    m.opens(B2, &one);
    m.opens(A2, &one);
    m.opens(A2, &two);
    m.refuses(A1, &one, Error::Own);
    m.refuses(C1, &Sent { to: "carol".into(), ..one.clone() }, Error::NotForThisDevice);
    m.refuses(B1, &one, Error::Replay);
    // Answers turn the ratchet; the initiator hears them aside.
    for round in 0..3 {
        let answer = m.say(B1, "alice", &format!("answer {round}"));
        m.hear(A1, &answer);
        let a = m.say(A1, "bob", &format!("round {round} a"));
        let b = m.say(A1, "bob", &format!("round {round} b"));
        m.opens(B1, &b);
        if round > 0 {
            m.opens(B1, &a);
        }
        m.opens(B2, &a);
        m.opens(A2, &b);
    }
    // All kinds of the log.
    let (alice, bob) = (m.devices[A1].me().clone(), m.devices[B1].me().clone());
    let change = |kind, of: &Address, text: &str| Body::Change {
        kind,
        author: of.user.clone(),
        device: of.device,
        msg_id: MsgId([9; 16]),
        text: text.into(),
    };
    let mut rng = Seeded::new(3);
    let mut sealer = Sealer::new(1000, &mut rng).unwrap().unwrap();
    sealer.seal(&[7; 1000]).unwrap();
    let file = sealer.finish("report ☃.pdf", "application/pdf").unwrap();
    for body in [
        Body::Text(String::new()),
        Body::Text("hä\n\u{1b}[31m".into()),
        Body::Text("long ".repeat(600)),
        Body::File(file),
        change(ChangeKind::React, &bob, "👍"),
        change(ChangeKind::Edit, &alice, "better"),
        change(ChangeKind::Delete, &alice, ""),
    ] {
        let line = m.body(A1, "bob", body);
        m.opens(B1, &line);
        m.opens(A2, &line);
    }
    // Signals.
    let ids = |n: u8| (1..=n).map(|i| MsgId([i; 16])).collect();
    for body in [
        Body::Receipt { read: false, messages: ids(1) },
        Body::Receipt { read: true, messages: ids(3) },
        Body::ChainRequest { room: common::e2e::name::RoomId([1; 16]), chain: ChainId([2; 16]) },
        Body::Reset,
    ] {
        let signal = m.signal(A1, B1, body);
        m.opens(B1, &signal);
        m.refuses(B2, &signal, Error::NotForThisDevice);
    }
    // A receipt cannot be shown as a message.
    let signal = m.signal(A1, B1, Body::Receipt { read: true, messages: ids(1) });
    m.refuses(B1, &Sent { via: Via::Message, ..signal.clone() }, Error::Inner);
    m.opens(B1, &signal);
    // A session without one-time keys, and one to oneself.
    m.world.directory.withhold = true;
    let weak = m.say(C1, "bob", "without one-time keys");
    m.opens(B1, &weak);
    m.opens(B2, &weak);
    m.world.directory.withhold = false;
    let note = m.say(B1, "bob", "note to myself");
    m.opens(B2, &note);
    let from_a = m.say(A1, "carol", "from alice");
    m.opens(C1, &from_a);
    m.opens(A2, &from_a);
    let from_c = m.say(C1, "alice", "from carol");
    m.hear(A1, &from_c);
    m.opens(A2, &from_c);
}

fn refusals(m: &mut Maker) {
    let line = m.say(A1, "bob", "target of attacks");
    let slot = slot_of(&line, &m.devices[B1]);
    let raw = line.bytes();
    m.refuses(B1, &Sent { body: "hello".into(), ..line.clone() }, Error::Plain);
    m.refuses(B1, &Sent { body: "e2e:AQJ=".into(), ..line.clone() }, Error::Syntax);
    m.refuses(B1, &patched(&line, 0, &[2]), Error::Syntax);
    m.refuses(B1, &line.with(&raw[..60]), Error::Syntax);
    m.refuses(B1, &flipped(&line, slot + 2), Error::NoSession);
    m.refuses(B1, &patched(&line, slot + 18, &[0; 32]), Error::LowOrder);
    m.refuses(B1, &patched(&line, slot + 54, &[0, 1, 0, 0]), Error::TooFar);
    m.refuses(B1, &patched(&line, slot + 50, &[0xff; 4]), Error::Commit);
    m.refuses(B1, &flipped(&line, slot + 60), Error::Commit);
    m.refuses(B1, &flipped(&line, slot + 74), Error::Commit);
    m.refuses(B1, &flipped(&line, slot + 110), Error::Auth);
    m.refuses(B1, &flipped(&line, raw.len() - 1), Error::Payload);
    m.refuses(B1, &Sent { sender: user("carol"), ..line.clone() }, Error::NoSession);
    m.refuses(B1, &Sent { via: Via::Signal, ..line.clone() }, Error::Syntax);
    m.refuses(A2, &Sent { to: "carol".into(), ..line.clone() }, Error::Payload);
    // A twin of Alice's store uses the same counter.
    let mut twin = m.devices[A1].clone();
    twin.rng = Seeded::new(77);
    m.opens(B1, &line);
    let ahead = m.say(A1, "bob", "seen");
    let twins = m.world.say(&mut twin, "bob", "twin", NOW);
    m.opens(B1, &ahead);
    m.refuses(B1, &twins, Error::Reused);

    // The handshake: Carol to Alice's devices is known, so to Bob by a new device.
    let mut haunted = m.world.clone();
    let mut ghost = haunted.device("carol");
    let unlisted = haunted.say(&mut ghost, "bob", "ghost", NOW);
    m.refuses(B1, &unlisted, Error::UnlistedDevice);
    let mut evil = World::new(666);
    let mut mallory = evil.device("carol");
    let mut mixed = World { directory: m.world.directory.clone(), ..evil };
    mixed.learn(&mut mallory, &user("bob"), NOW);
    let swapped = mixed.say(&mut mallory, "bob", "it is me", NOW);
    m.refuses(B1, &swapped, Error::Identity);

    let late = Now::from_secs(T0 + 2 * DAY);
    let mut carol = m.devices[C1].clone();
    carol.state.peers.clear();
    let future = m.world.clone().say(&mut carol.clone(), "bob", "from tomorrow's morrow", late);
    m.refuses(B1, &future, Error::Clock);
    let fresh = m.world.say(&mut carol, "bob", "a new session", NOW);
    let slot = slot_of(&fresh, &m.devices[B1]);
    let cert_at = slot + 1160;
    m.refuses(B1, &flipped(&fresh, cert_at + 30), Error::Signature);
    m.refuses(B1, &patched(&fresh, slot + 50, &[0, 0, 0x10, 0]), Error::NoPrekey);
    m.refuses(B1, &patched(&fresh, slot + 18, &[0; 32]), Error::LowOrder);
    m.refuses(B1, &flipped(&fresh, slot + 100), Error::Handshake);
    m.refuses(B1, &flipped(&fresh, slot + 69), Error::Handshake);
    m.opens(B1, &fresh);
    // The receiver has no session any more: the one-time keys are gone.
    let again = m.say(A1, "bob", "goes on");
    m.opens(B1, &again);
}

fn rooms(m: &mut Maker) {
    let name = m.world.create_room(&mut m.devices[A1], "#hall", false);
    m.world.roster(&mut m.devices[A1], &name, Op::Add, &user("bob"), NOW);
    m.world.rosters.get_mut(&name).unwrap().push(vec![1, 2, 3]);
    m.world.roster(&mut m.devices[A1], &name, Op::Add, &user("carol"), NOW);
    // Alice's first device has read her own log while writing it; the others read it now.
    m.rosters(&name);

    let (links, line) = m.room(A1, &name, "welcome");
    m.refuses(B1, &line, Error::NoChain);
    m.links(&links, &[]);
    for by in [A2, B1, B2, C1] {
        m.opens(by, &line);
    }
    m.refuses(A1, &line, Error::Own);
    m.refuses(B1, &line, Error::Replay);
    let (_, two) = m.room(A1, &name, "two");
    let (_, three) = m.room(A1, &name, "three");
    m.refuses(B1, &flipped(&three, three.bytes().len() - 1), Error::Signature);
    m.refuses(B1, &flipped(&three, 57), Error::Signature);
    m.refuses(B1, &Sent { sender: user("carol"), ..three.clone() }, Error::Room);
    m.refuses(B1, &flipped(&three, 2), Error::Room);
    m.refuses(B1, &Sent { to: "#other".into(), ..three.clone() }, Error::NeedRoster);
    m.refuses(B1, &Sent { via: Via::Signal, to: "bob".into(), ..three.clone() }, Error::Syntax);
    m.opens(B1, &three);
    m.opens(B1, &two);
    m.opens(B2, &three);

    // Bob's second device is given Alice's chain late, by another link.
    let mut twin = m.devices[A1].clone();
    let (_, stale) = m.world.say_room(&mut twin, &name, "stale", NOW).unwrap();

    // Carol speaks, then is removed: a new epoch, a new chain, the old ones closed.
    let (links, hello) = m.room(C1, &name, "hello from carol");
    let (_, parting) = m.room(C1, &name, "parting words");
    m.links(&links, &[A1, A2]);
    m.opens(B1, &hello);
    m.world.roster(&mut m.devices[A1], &name, Op::Remove, &user("carol"), NOW);
    let (links, secret) = m.room(A1, &name, "without carol");
    m.refuses(
        B1,
        &links[links.len() - 1].clone(),
        match m.devices[B1].me() < m.devices[B2].me() {
            true => Error::NotForThisDevice,
            false => Error::NeedRoster,
        },
    );
    m.refuses(B1, &secret, Error::NeedRoster);
    m.rosters(&name);
    m.links(&links, &[]);
    for by in [A2, B1, B2] {
        m.opens(by, &secret);
    }
    m.refuses(C1, &secret, Error::NoChain);
    m.opens(B1, &parting);
    m.refuses(B1, &stale, Error::ClosedChain);
    let id = m.devices[B2].state.room_named(&name).unwrap().roster.id();

    // Entries that are not taken in: by no admin, of a removed member, a second one in an old place.
    let by_bob = m.devices[B1].state.rooms[&id].roster.clone();
    let carol = *m.devices[B1].state.contacts[&user("carol")].aik();
    let refused =
        by_bob.propose(&m.devices[B1].state.me, Op::Promote, (&user("bob"), m.devices[B1].state.me.aik()), None, NOW);
    m.roster(B1, &name, 6, &refused);
    let refused = m.devices[C1].state.rooms[&id].roster.propose(
        &m.devices[C1].state.me,
        Op::Leave,
        (&user("carol"), &carol),
        None,
        NOW,
    );
    m.roster(B2, &name, 6, &refused);
    let mut broken = refused.clone();
    let last = broken.len() - 1;
    broken[last] ^= 1;
    m.roster(A2, &name, 6, &broken);

    // Who was removed gives out a chain all the same.
    let mut carol = m.devices[C1].clone();
    let mut before = m.world.clone();
    before.rosters.get_mut(&name).unwrap().truncate(4);
    carol.state.rooms.clear();
    before.read_roster(&mut carol, &name, NOW);
    let (links, _) = before.say_room(&mut carol, &name, "still here", NOW).unwrap();
    for link in &links {
        let raw = link.bytes();
        if m.devices[B1].me().device.0 == raw[19..35] {
            m.refuses(B1, link, Error::NotMember);
        }
    }
    // A member gives out another's chain id.
    let mut thief = m.devices[B1].clone();
    thief.state.rooms.insert(id, m.devices[A1].state.rooms[&id].clone());
    let b2 = m.devices[B2].me().clone();
    let stolen = m.world.answer(&mut thief, &b2, &id, NOW).unwrap();
    m.refuses(B2, &stolen, Error::ChainTaken);

    // Carol's open room, which Alice joins; Carol is given the chain late; the log has a fork.
    let open = m.world.create_room(&mut m.devices[C1], "#open", true);
    m.world.read_roster(&mut m.devices[A1], &open, NOW);
    m.world.roster(&mut m.devices[A1], &open, Op::Join, &user("alice"), NOW);
    m.rosters(&open);
    let (_lost, _) = m.room(A1, &open, "early");
    let (_, on_time) = m.room(A1, &open, "on time");
    let oid = m.devices[C1].state.room_named(&open).unwrap().roster.id();
    let c1 = m.devices[C1].me().clone();
    let link = m.world.answer(&mut m.devices[A1], &c1, &oid, NOW).unwrap();
    m.opens(C1, &link);
    m.refuses(C1, &on_time, Error::BeforeChain);
    let (_, now) = m.room(A1, &open, "from the link on");
    m.opens(C1, &now);
    // Bob is shown another second entry.
    let entries = m.world.rosters[&open].clone();
    let start = common::e2e::roster_log::Roster::begin(&open, 1, &entries[0]).unwrap();
    let contact = m.devices[C1].state.contacts[&user("bob")].clone();
    let carol = &m.devices[C1].state.me;
    let other = start.propose(carol, Op::Add, (&user("bob"), contact.aik()), contact.list(), NOW);
    m.roster(B2, &open, 2, &other);
}

#[test]
fn the_file_is_what_the_seed_gives() {
    let made = serde_json::to_string_pretty(&make()).unwrap() + "\n";
    if std::env::var_os("WRITE_VECTORS").is_some() {
        std::fs::write(FILE, &made).unwrap();
    }
    assert!(std::fs::read_to_string(FILE).unwrap() == made, "own.json is out of date");
}

/// Randomness that was written down.
struct Draws(Vec<Vec<u8>>);

impl Rng for Draws {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), NoRandom> {
        let draw = self.0.pop().ok_or(NoRandom)?;
        out.copy_from_slice(&draw);
        Ok(())
    }
}

fn bytes(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap();
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

fn device_of(all: &[Value], value: &Value) -> State {
    let address = Address {
        user: User::parse(value["user"].as_str().unwrap()).unwrap(),
        device: DeviceId(unhex(value["device"].as_str().unwrap()).unwrap()),
    };
    let secret = |name: &str| Secret::copy_from(&unhex(value[name].as_str().unwrap()).unwrap());
    let (dsk, dik) = (SignKey::from_seed(&secret("dsk")), DhPair::from_private(secret("dik")));
    let cert = Certificate::verify(&bytes(&value["certificate"])).unwrap();
    let dc = cert.hash();
    let me = DeviceKeys { address, dsk, dik }.certified(cert).unwrap();
    let mut prekeys = Prekeys::default();
    for (kind, name) in
        [(KeyKind::Spk, "spk"), (KeyKind::Opk, "opk"), (KeyKind::Pqk, "pqk"), (KeyKind::PqkLast, "pqk-last")]
    {
        for (id, key) in value[name].as_object().unwrap() {
            prekeys.insert(kind, id.parse().unwrap(), &bytes(key), dc, T0).unwrap();
        }
    }
    let certs: Vec<Vec<u8>> = all.iter().map(|d| bytes(&d["certificate"])).collect();
    let certs: Vec<&[u8]> = certs.iter().map(Vec::as_slice).collect();
    let own: Vec<&[u8]> = certs.clone();
    let mut state = State::new(me, prekeys, &bytes(&value["list"]), &own).unwrap();
    for other in all {
        let user = User::parse(other["user"].as_str().unwrap()).unwrap();
        let (change, _) = state.learn(&user, &bytes(&other["list"]), &certs, NOW).unwrap();
        state.apply(change);
    }
    state
}

#[test]
fn every_device_opens_its_lines_from_its_private_parts() {
    let file: Value = serde_json::from_str(&std::fs::read_to_string(FILE).unwrap()).unwrap();
    let all = file["devices"].as_array().unwrap();
    let mut states: Vec<State> = all.iter().map(|value| device_of(all, value)).collect();
    let (mut opened, mut refused) = (0, BTreeMap::<String, usize>::new());
    for (i, line) in file["lines"].as_array().unwrap().iter().enumerate() {
        let state = &mut states[line["by"].as_u64().unwrap() as usize];
        let (sender, target) =
            (User::parse(line["sender"].as_str().unwrap()).unwrap(), line["target"].as_str().unwrap());
        let body = line["body"].as_str().unwrap();
        let result = if line["via"] == "roster" {
            let place = line["epoch"].as_u64().unwrap() as u32;
            let raw = armour::unbase64(body).unwrap();
            match state.read_roster(&room_name(target), place, &raw, NOW) {
                Ok((change, verdict)) => {
                    state.apply(change);
                    verdict_code(&verdict).map_or(Ok(String::new()), |code| Err(code.to_owned()))
                }
                Err(error) => Err(error.code().to_owned()),
            }
        } else {
            let via = if line["via"] == "signal" { Via::Signal } else { Via::Message };
            let (user, room) = (User::parse(target), RoomName::parse(target));
            let target = user.as_ref().map(Target::User).or(room.as_ref().map(Target::Room)).unwrap();
            let draws = line["draws"].as_array().unwrap().iter().rev().map(bytes).collect();
            let mut draws = Draws(draws);
            let result = state.receive(&Line { via, sender: &sender, target, body }, NOW, &mut draws);
            assert!(draws.0.is_empty(), "line {i}: not all was drawn");
            result.map(|opened| hex(&opened.raw)).map_err(|error| error.code().to_owned())
        };
        match (&line["inner"], &line["refused"]) {
            (Value::String(inner), Value::Null) => {
                assert_eq!(result.as_ref(), Ok(inner), "line {i}");
                opened += 1;
            }
            (Value::Null, Value::String(code)) => {
                assert_eq!(result.as_ref(), Err(code), "line {i}");
                *refused.entry(code.clone()).or_default() += 1;
            }
            _ => panic!("line {i}: neither"),
        }
    }
    assert!(opened > 60 && refused.len() >= 24, "{opened} {} {refused:?}", refused.len());
}

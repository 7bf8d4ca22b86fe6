//! A device in the test's own hands: the library's state, spoken over a real connection, step by step, so
//! that it can do at each point what no honest program does.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use crate::common::e2e::armour;
use crate::common::e2e::bundle::{Bundle, Record};
use crate::common::e2e::cert::Certificate;
use crate::common::e2e::device_list::DeviceList;
use crate::common::e2e::error::{Error, SealError};
use crate::common::e2e::identity::{DeviceKeys, Identity};
use crate::common::e2e::inner::{Body, Conversation, Via};
use crate::common::e2e::name::{Address, DeviceId, Party, RoomId, RoomName, User};
use crate::common::e2e::prekeys::Prekeys;
use crate::common::e2e::receive::Opened;
use crate::common::e2e::roster::{Entry, Op};
use crate::common::e2e::roster_log::Verdict;
use crate::common::e2e::send::Answers;
use crate::common::e2e::sign::SignKey;
use crate::common::e2e::state::State;
use crate::common::{DAY, Device, Seeded, Sent, room_name, user};
use crate::evil::forge::{self, BundleParts, Initiator, Session, Tail, Twist};
use crate::evil::now;
use crate::support::{Client, Link};

/// What `/msg` and `/signal` of the daemon look like when they arrive.
const EVENTS: [&str; 4] = ["* msg ", "- msg ", "* signal ", "- signal "];

/// The keys of an account and one device of it, not connected to anything.
#[derive(Clone)]
pub(crate) struct Keys {
    pub(crate) aik: SignKey,
    pub(crate) me: Identity,
    pub(crate) list: DeviceList,
    pub(crate) rng: Seeded,
}

impl Keys {
    /// New ones, in their time.
    pub(crate) fn new(name: &str, seed: u64) -> Keys {
        let from = now().secs() - 3600;
        Keys::in_time(name, seed, from, from + 365 * DAY)
    }

    /// New ones with a certificate for a given time.
    pub(crate) fn in_time(name: &str, seed: u64, from: u64, to: u64) -> Keys {
        let mut rng = Seeded::new(seed);
        let aik = SignKey::draw(&mut rng).unwrap();
        Keys::of(&aik, name, rng, from, to)
    }

    /// A first device of an identity that is there already.
    pub(crate) fn of(aik: &SignKey, name: &str, mut rng: Seeded, from: u64, to: u64) -> Keys {
        let name = user(name);
        let keys = DeviceKeys::draw(&name, &mut rng).unwrap();
        let (dsk, dik) = (keys.dsk.public(), *keys.dik.public());
        let cert = Certificate::issue(aik, &keys.address, &dsk, &dik, from, to).unwrap();
        let list = DeviceList::issue(aik, &name, None, &[cert.hash()]).unwrap();
        Keys { aik: aik.clone(), me: keys.certified(cert).unwrap(), list, rng }
    }

    /// The device's id.
    pub(crate) fn id(&self) -> DeviceId {
        self.me.address().device
    }

    /// A whole bundle of fresh prekeys, which the device itself forgets: what a server shows that has
    /// made up the identity. Without one-time keys.
    pub(crate) fn bundle(&mut self) -> Vec<u8> {
        let (_, records) = Prekeys::default().rotate(&self.me, now(), &mut self.rng).unwrap();
        let [Record::Spk(spk), Record::PqkLast(last)] = &records[..] else { panic!("two keys") };
        Bundle::assemble(self.me.cert(), spk, None, crate::common::e2e::bundle::KeyKind::PqkLast, last)
    }
}

impl Keys {
    /// A text for the device of a bundle, sealed by hand in a new session; belongs to no connection.
    pub(crate) fn seal_to(&mut self, bundle: &[u8], born_ms: u64, text: &str) -> Vec<u8> {
        let theirs = Certificate::verify(&BundleParts::cut(bundle).cert).unwrap().party().clone();
        let dik = *self.me.dik().private().expose();
        let me = Initiator { party: self.me.party(), cert: self.me.cert().bytes(), dik };
        let mut session = Session::start(&me, bundle, born_ms, &Twist::default(), &mut self.rng);
        let inner = forge::Inner::text(forge::direct(self.me.aik(), &theirs.aik), text, &mut self.rng);
        let tail = Tail::seal(self.me.address(), &theirs.address.user, &inner.padded(), &mut self.rng);
        let slot = session.slot(&tail.slot_text, &mut self.rng);
        forge::multi(self.id(), &[(theirs.address.device, slot)], &tail.bytes)
    }
}

/// A connected device.
pub(crate) struct Lab {
    pub(crate) client: Client,
    pub(crate) device: Device,
    pub(crate) aik: SignKey,
    pub(crate) list: DeviceList,
    /// What came without being asked for.
    pub(crate) events: VecDeque<String>,
}

/// The rows of a command and its reply.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) rows: Vec<String>,
    pub(crate) reply: String,
}

impl Reply {
    /// The value of a key of the reply.
    pub(crate) fn key(&self, name: &str) -> Option<&str> {
        self.reply.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }
}

impl Lab {
    /// Registers an account with fresh keys and publishes them.
    pub(crate) fn register(address: SocketAddr, name: &str, seed: u64) -> Lab {
        Lab::with_keys(address, Keys::new(name, seed))
    }

    /// Registers an account with given keys and publishes them.
    pub(crate) fn with_keys(address: SocketAddr, keys: Keys) -> Lab {
        let mut lab = Lab::silent(address, keys);
        lab.publish();
        lab
    }

    /// Registers an account with given keys, and publishes nothing.
    pub(crate) fn silent(address: SocketAddr, keys: Keys) -> Lab {
        let mut client = Client::connect(address);
        let name = keys.me.user().to_string();
        client.ask("/ack manual", "OK ack ...");
        client.ask(&format!("/register {name} password-{name}"), "OK register ...");
        Lab::on(client, keys)
    }

    /// A device on a connection that is logged in.
    pub(crate) fn on(client: Client, keys: Keys) -> Lab {
        let certs = [keys.me.cert().bytes()];
        let state = State::new(keys.me.clone(), Prekeys::default(), keys.list.bytes(), &certs).unwrap();
        let device = Device { state, rng: keys.rng };
        Lab { client, device, aik: keys.aik, list: keys.list, events: VecDeque::new() }
    }

    pub(crate) fn user(&self) -> User {
        self.device.user()
    }

    pub(crate) fn me(&self) -> &Address {
        self.device.me()
    }

    pub(crate) fn party(&self) -> &Party {
        self.device.state.me.party()
    }

    pub(crate) fn cert(&self) -> &[u8] {
        self.device.state.me.cert().bytes()
    }

    /// Publishes certificate, list and a full set of prekeys.
    pub(crate) fn publish(&mut self) {
        let cert = Record::Certificate(self.device.state.me.cert().clone());
        let mut records = vec![cert, Record::List(self.list.clone())];
        let me = self.device.state.me.clone();
        let (prekeys, more) = self.device.state.prekeys.rotate(&me, now(), &mut self.device.rng).unwrap();
        records.extend(more);
        let (prekeys, more) = prekeys.refill(&me, (0, 0), now(), &mut self.device.rng).unwrap();
        records.extend(more);
        self.device.state.prekeys = prekeys;
        records.iter().for_each(|record| self.put(&record.to_bytes(me.address().device)));
    }

    /// `/keys put`.
    pub(crate) fn put(&mut self, record: &[u8]) {
        self.command(&format!("/keys put {}", armour::base64(record)));
    }

    /// Asks; events that come meanwhile are kept.
    pub(crate) fn ask(&mut self, command: &str) -> Reply {
        self.client.say(command);
        let mut rows = Vec::new();
        loop {
            let line = self.line();
            match line.get(..2) {
                Some("* ") => self.events.push_back(line),
                Some("- ") => rows.push(line),
                _ => return Reply { rows, reply: line },
            }
        }
    }

    /// Asks; the daemon must agree.
    pub(crate) fn command(&mut self, command: &str) -> Reply {
        let reply = self.ask(command);
        assert!(reply.reply.starts_with("OK "), "{command:.100}: {}\n{}", reply.reply, self.client.transcript());
        reply
    }

    fn line(&mut self) -> String {
        match self.client.line() {
            Ok(line) => line,
            Err(ended) => panic!("{ended:?}\n{}", self.client.transcript()),
        }
    }

    /// The next event that begins so; the ones before it are passed over.
    pub(crate) fn event(&mut self, prefix: &str) -> String {
        loop {
            let line = match self.events.pop_front() {
                Some(line) => line,
                None => self.line(),
            };
            if line.starts_with(prefix) {
                return line;
            }
        }
    }

    /// All signals that wait for this account, as rows; each is acknowledged.
    pub(crate) fn signals(&mut self) -> Vec<String> {
        let rows = self.command("/signals").rows;
        for row in &rows {
            let id = row.split(' ').nth(2).unwrap().to_owned();
            self.command(&format!("/ack signals {id}"));
        }
        rows
    }

    /// Everything of a conversation, as rows.
    pub(crate) fn log(&mut self, target: &str) -> Vec<String> {
        self.command(&format!("/fetch {target} limit=1000")).rows
    }

    /// A line of the server with an envelope, as the library wants it.
    pub(crate) fn received(&self, line: &str) -> Sent {
        assert!(EVENTS.iter().any(|prefix| line.starts_with(prefix)), "no message: {line}");
        let words: Vec<&str> = line.split(' ').collect();
        let body = line.split_once(" :").unwrap().1.to_owned();
        match words[1] {
            "msg" => Sent { via: Via::Message, sender: user(words[5]), to: words[4].to_owned(), body },
            _ => Sent { via: Via::Signal, sender: user(words[4]), to: self.user().to_string(), body },
        }
    }

    /// Opens a line of the server.
    pub(crate) fn open(&mut self, line: &str) -> Result<Opened, Error> {
        let received = self.received(line);
        self.device.open(&received, now())
    }

    /// Opens a line of the server that is a text.
    pub(crate) fn text(&mut self, line: &str) -> String {
        match self.open(line).unwrap_or_else(|e| panic!("{e}: {line:.200}")).inner.body {
            Body::Text(text) => text,
            other => panic!("no text: {other:?}"),
        }
    }

    /// The directory's list and certificates of an account.
    pub(crate) fn certs(&mut self, of: &str) -> (Vec<u8>, Vec<Vec<u8>>) {
        let rows = self.command(&format!("/keys get {of} only=certs")).rows;
        let last = |row: &String| armour::unbase64(row.split(' ').next_back().unwrap()).unwrap();
        let list = rows.iter().find(|row| row.starts_with("- devices ")).map(last).unwrap();
        (list, rows.iter().filter(|row| row.starts_with("- cert ")).map(last).collect())
    }

    /// Learns the devices of an account.
    pub(crate) fn learn(&mut self, of: &str) {
        let (list, certs) = self.certs(of);
        let certs: Vec<&[u8]> = certs.iter().map(Vec::as_slice).collect();
        let (change, _) = self.device.state.learn(&user(of), &list, &certs, now()).unwrap();
        self.device.state.apply(change);
    }

    /// The only known device of an account.
    pub(crate) fn device_of(&mut self, of: &str) -> Party {
        self.learn(of);
        let contact = &self.device.state.contacts[&user(of)];
        let current: Vec<_> = contact.current(now()).collect();
        assert_eq!(current.len(), 1, "one device of {of}");
        current[0].party().clone()
    }

    /// A fresh bundle of a device, as the daemon gives it.
    pub(crate) fn bundle_of(&mut self, of: &Address) -> Vec<u8> {
        let reply = self.command(&format!("/keys get {} device={}", of.user, of.device));
        let row = reply.rows.iter().find(|row| row.starts_with("- keys ")).unwrap();
        armour::unbase64(row.split(' ').next_back().unwrap()).unwrap()
    }

    /// Repeats a sealing, fetching what it asks for.
    fn fetching<T>(
        &mut self,
        mut seal: impl FnMut(&State, &Answers<'_>, &mut Seeded) -> Result<T, SealError>,
    ) -> Result<T, SealError> {
        let mut bundles = Vec::new();
        for _ in 0..40 {
            let mut rng = self.device.rng.clone();
            let sealed = seal(&self.device.state, &Answers::of(&bundles), &mut rng);
            self.device.rng = rng;
            match sealed {
                Err(SealError::NeedList(of)) => self.learn(of.as_str()),
                Err(SealError::NeedBundles(of)) => {
                    for address in of {
                        let raw = self.bundle_of(&address);
                        let contact = &self.device.state.contacts[&address.user];
                        bundles.push(Bundle::verify(&raw, contact, now()).unwrap());
                    }
                }
                done => return done,
            }
        }
        panic!("never sealed");
    }

    /// Seals a message properly, and gives its body.
    pub(crate) fn seal(&mut self, to: &str, body: Body) -> String {
        let receiver = user(to);
        let sealed = self
            .fetching(|state, answers, rng| state.seal_message(&receiver, body.clone(), answers, now(), rng))
            .unwrap();
        self.device.state.apply(sealed.change);
        sealed.body
    }

    /// Says something to an account, properly; the body, and the message's ID.
    pub(crate) fn say(&mut self, to: &str, text: &str) -> (String, u64) {
        let body = self.seal(to, Body::Text(text.into()));
        let id = self.msg(to, &body);
        (body, id)
    }

    /// `/msg`; its ID.
    pub(crate) fn msg(&mut self, to: &str, body: &str) -> u64 {
        self.command(&format!("/msg {to} {body}")).key("id").unwrap().parse().unwrap()
    }

    /// `/msg` with an envelope.
    pub(crate) fn msg_raw(&mut self, to: &str, envelope: &[u8]) -> u64 {
        self.msg(to, &armour::body(envelope))
    }

    /// `/signal` with an envelope.
    pub(crate) fn signal_raw(&mut self, to: &str, envelope: &[u8]) {
        self.command(&format!("/signal {to} {}", armour::body(envelope)));
    }

    /// Seals a signal properly, and gives its body.
    pub(crate) fn seal_signal(&mut self, to: &Address, conversation: Option<Conversation>, body: Body) -> String {
        if !self.device.state.contacts.contains_key(&to.user) {
            self.learn(to.user.as_str());
        }
        let conversation = conversation.unwrap_or_else(|| self.device.state.direct(&to.user).unwrap());
        let sealed = self
            .fetching(|state, answers, rng| state.seal_signal(to, conversation, body.clone(), answers, now(), rng))
            .unwrap();
        self.device.state.apply(sealed.change);
        sealed.body
    }

    /// The handshake's side of this device, for the forge.
    pub(crate) fn initiator(&self) -> Initiator<'_> {
        let me = &self.device.state.me;
        Initiator { party: me.party(), cert: me.cert().bytes(), dik: *me.dik().private().expose() }
    }

    /// A session by hand with the only device of an account, over a fresh bundle.
    pub(crate) fn forge(&mut self, with: &str, twist: &Twist) -> (Party, Session) {
        let party = self.device_of(with);
        let bundle = self.bundle_of(&party.address);
        let mut rng = self.device.rng.clone();
        let session = Session::start(&self.initiator(), &bundle, now().ms(), twist, &mut rng);
        self.device.rng = rng;
        (party, session)
    }

    /// An envelope by hand for one device: any inner bytes in a session of the forge.
    pub(crate) fn forged(&mut self, to: &Party, session: &mut Session, padded: &[u8]) -> Vec<u8> {
        let me = self.me().clone();
        let tail = Tail::seal(&me, &to.address.user, padded, &mut self.device.rng);
        let slot = session.slot(&tail.slot_text, &mut self.device.rng);
        forge::multi(me.device, &[(to.address.device, slot)], &tail.bytes)
    }

    /// The direct conversation with an account, for the forge.
    pub(crate) fn direct_with(&self, other: &Party) -> (u8, [u8; 16]) {
        forge::direct(&self.party().aik, &other.aik)
    }

    /// Makes a closed (or open) room, and adds its first entry.
    pub(crate) fn create_room(&mut self, name: &str, open: bool) -> RoomName {
        self.command(&format!("/create {name} e2e"));
        let room = room_name(name);
        let list = self.device.state.contacts[&self.user()].list().unwrap().clone();
        let entry = Entry::create(&self.device.state.me, &room, open, &list, now(), &mut self.device.rng).unwrap();
        self.roster_add(&room, 1, &entry);
        self.read_roster(&room);
        room
    }

    /// `/roster-add`.
    pub(crate) fn roster_add(&mut self, room: &RoomName, epoch: u32, entry: &[u8]) {
        self.command(&format!("/roster-add {room} {epoch} {}", armour::base64(entry)));
    }

    /// The entries of a room's log behind those that were read.
    pub(crate) fn roster_rows(&mut self, room: &RoomName) -> BTreeMap<u32, Vec<u8>> {
        let read = self.device.state.room_named(room).map_or(0, |room| room.roster.read());
        let rows = self.command(&format!("/roster {room} after={read}")).rows;
        let row = |row: &String| {
            let words: Vec<&str> = row.split(' ').collect();
            (words[3].parse().unwrap(), armour::unbase64(words[4]).unwrap())
        };
        rows.iter().map(row).collect()
    }

    /// Reads what is new in a room's log.
    pub(crate) fn read_roster(&mut self, room: &RoomName) -> Vec<Verdict> {
        let rows = self.roster_rows(room);
        let read = |(place, entry): (&u32, &Vec<u8>)| {
            let (change, verdict) = self.device.state.read_roster(room, *place, entry, now()).unwrap();
            self.device.state.apply(change);
            verdict
        };
        rows.iter().map(read).collect()
    }

    /// Adds a proper entry about an account; whether it is valid.
    pub(crate) fn roster(&mut self, room: &RoomName, op: Op, about: &str) -> bool {
        if !self.device.state.contacts.contains_key(&user(about)) {
            self.learn(about);
        }
        self.read_roster(room);
        let roster = &self.device.state.room_named(room).unwrap().roster;
        let contact = &self.device.state.contacts[&user(about)];
        let list = op.carries_list().then(|| contact.list().unwrap().clone());
        let entry = roster.propose(&self.device.state.me, op, (&user(about), contact.aik()), list.as_ref(), now());
        let epoch = roster.read() + 1;
        self.roster_add(room, epoch, &entry);
        matches!(self.read_roster(room).last(), Some(Verdict::Accepted(_)))
    }

    /// The id of a room that was read.
    pub(crate) fn room_id(&self, room: &RoomName) -> RoomId {
        self.device.state.room_named(room).unwrap().roster.id()
    }

    /// Seals to a room properly: the signals with their receivers, and the message's body. Sends nothing.
    pub(crate) fn seal_room(&mut self, room: &RoomName, text: &str) -> (Vec<(User, String)>, String) {
        let id = self.room_id(room);
        let body = Body::Text(text.into());
        let sealed =
            self.fetching(|state, answers, rng| state.seal_room(&id, body.clone(), answers, now(), rng)).unwrap();
        self.device.state.apply(sealed.message.change);
        (sealed.signals, sealed.message.body)
    }

    /// Says something in a room, properly; the message's body and its ID.
    pub(crate) fn say_room(&mut self, room: &RoomName, text: &str) -> (String, u64) {
        let (signals, body) = self.seal_room(room, text);
        for (to, body) in &signals {
            self.command(&format!("/signal {to} {body}"));
        }
        let id = self.msg(room.as_str(), &body);
        (body, id)
    }
}

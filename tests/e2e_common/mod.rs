//! A little world for the tests: a key directory as the server keeps it, devices, and the steps that
//! a client takes around the pure module.
#![allow(dead_code, unreachable_pub, reason = "every test binary uses its own part")]

pub use downstream::e2e;

use std::collections::{BTreeMap, VecDeque};

use e2e::armour;
use e2e::bundle::{Bundle, KeyKind, PublicKey, Record};
use e2e::cert::Certificate;
use e2e::device_list::DeviceList;
use e2e::error::{Error, NoRandom, SealError};
use e2e::identity::{DeviceKeys, Identity};
use e2e::inner::{Body, Via};
use e2e::name::{Address, RoomId, RoomName, User};
use e2e::prekeys::Prekeys;
use e2e::receive::{Line, Opened, Target};
use e2e::rng::Rng;
use e2e::roster::{Entry, Op};
use e2e::roster_log::Verdict;
use e2e::send::Answers;
use e2e::sign::SignKey;
use e2e::state::State;
use e2e::time::Now;
use sha2::{Digest, Sha256};

/// The first second of every certificate.
pub const T0: u64 = 1_800_000_000;
pub const DAY: u64 = 24 * 3600;
pub const YEAR: u64 = 365 * DAY;

pub fn at(secs: u64) -> Now {
    Now::from_secs(T0 + secs)
}

pub fn user(name: &str) -> User {
    User::parse(name).unwrap()
}

pub fn room_name(name: &str) -> RoomName {
    RoomName::parse(name).unwrap()
}

/// Seeded randomness: SHA-256 in counter mode. Remembers what it gave, if asked to.
#[derive(Clone)]
pub struct Seeded {
    seed: [u8; 32],
    counter: u64,
    /// What was given since recording began.
    pub drawn: Option<Vec<Vec<u8>>>,
    /// How many draws succeed from now on.
    pub fail_after: Option<usize>,
}

impl Seeded {
    pub fn new(seed: u64) -> Self {
        Self { seed: Sha256::digest(seed.to_be_bytes()).into(), counter: 0, drawn: None, fail_after: None }
    }

    pub fn below(&mut self, n: usize) -> usize {
        let mut bytes = [0; 8];
        self.fill(&mut bytes).unwrap();
        (u64::from_be_bytes(bytes) % n as u64) as usize
    }
}

impl Rng for Seeded {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), NoRandom> {
        if let Some(left) = &mut self.fail_after {
            *left = left.checked_sub(1).ok_or(NoRandom)?;
        }
        for chunk in out.chunks_mut(32) {
            let block = Sha256::new().chain_update(self.seed).chain_update(self.counter.to_be_bytes()).finalize();
            self.counter += 1;
            chunk.copy_from_slice(&block[..chunk.len()]);
        }
        if let Some(drawn) = &mut self.drawn {
            drawn.push(out.to_vec());
        }
        Ok(())
    }
}

/// What the server keeps of a device.
#[derive(Clone, Default)]
struct Shelf {
    cert: Option<Certificate>,
    spk: Option<PublicKey>,
    opk: VecDeque<PublicKey>,
    pqk: VecDeque<PublicKey>,
    last: Option<PublicKey>,
}

/// The key directory.
#[derive(Clone, Default)]
pub struct Directory {
    lists: BTreeMap<User, Vec<u8>>,
    shelves: BTreeMap<Address, Shelf>,
    /// Serve no one-time keys.
    pub withhold: bool,
}

impl Directory {
    pub fn put(&mut self, user: &User, record: &[u8]) {
        let (device, record) = Record::parse(record).unwrap();
        let address = Address { user: user.clone(), device };
        let shelf = self.shelves.entry(address.clone()).or_default();
        match record {
            Record::Forget => drop(self.shelves.remove(&address)),
            Record::Certificate(cert) => *shelf = Shelf { cert: Some(cert), ..Shelf::default() },
            Record::List(list) => drop(self.lists.insert(user.clone(), list.bytes().to_vec())),
            Record::Spk(key) => shelf.spk = Some(key),
            Record::Opks(keys) => shelf.opk.extend(keys),
            Record::Pqks(keys) => shelf.pqk.extend(keys),
            Record::PqkLast(key) => shelf.last = Some(key),
        }
    }

    pub fn list(&self, user: &User) -> Vec<u8> {
        self.lists[user].clone()
    }

    pub fn certs(&self, user: &User) -> Vec<Vec<u8>> {
        let of = self.shelves.iter().filter(|(address, _)| address.user == *user);
        of.filter_map(|(_, shelf)| shelf.cert.as_ref().map(|cert| cert.bytes().to_vec())).collect()
    }

    pub fn bundle(&mut self, address: &Address) -> Vec<u8> {
        let withhold = self.withhold;
        let shelf = self.shelves.get_mut(address).expect("a device with keys");
        let opk = if withhold { None } else { shelf.opk.pop_front() };
        let pqk = if withhold { None } else { shelf.pqk.pop_front() };
        let (kind, pqk) = match pqk {
            Some(key) => (KeyKind::Pqk, key),
            None => (KeyKind::PqkLast, shelf.last.clone().unwrap()),
        };
        let cert = shelf.cert.as_ref().unwrap();
        Bundle::assemble(cert, shelf.spk.as_ref().unwrap(), opk.as_ref(), kind, &pqk)
    }

    pub fn one_time_left(&self, address: &Address) -> (usize, usize) {
        let shelf = &self.shelves[address];
        (shelf.opk.len(), shelf.pqk.len())
    }
}

/// An account's primary keys.
#[derive(Clone)]
pub struct Account {
    pub aik: SignKey,
    pub list: Option<DeviceList>,
    pub certs: Vec<Certificate>,
}

/// A device with its state.
#[derive(Clone)]
pub struct Device {
    pub state: State,
    pub rng: Seeded,
}

/// A line on its way.
#[derive(Clone, Debug, PartialEq)]
pub struct Sent {
    pub via: Via,
    pub sender: User,
    pub to: String,
    pub body: String,
}

impl Sent {
    pub fn bytes(&self) -> Vec<u8> {
        armour::envelope(&self.body).unwrap()
    }

    pub fn with(&self, bytes: &[u8]) -> Self {
        Self { body: armour::body(bytes), ..self.clone() }
    }
}

impl Device {
    pub fn me(&self) -> &Address {
        self.state.me.address()
    }

    pub fn user(&self) -> User {
        self.state.me.user().clone()
    }

    pub fn open(&mut self, line: &Sent, now: Now) -> Result<Opened, Error> {
        let mut rng = self.rng.clone();
        let (user, room) = (User::parse(&line.to), RoomName::parse(&line.to));
        let target = match (&user, &room) {
            (Ok(user), _) => Target::User(user),
            (_, Ok(room)) => Target::Room(room),
            _ => panic!("no target"),
        };
        let received = Line { via: line.via, sender: &line.sender, target, body: &line.body };
        let result = self.state.receive(&received, now, &mut rng);
        self.rng = rng;
        result
    }

    /// Opens a line that must be refused, and checks that nothing has changed.
    pub fn refuses(&mut self, line: &Sent, now: Now) -> Error {
        let before = self.fingerprint();
        let error = self.open(line, now).map(|opened| opened.inner).expect_err("refused");
        assert!(before == self.fingerprint(), "the state has changed: {error:?}");
        error
    }

    /// Opens a line and gives its text.
    pub fn text(&mut self, line: &Sent, now: Now) -> String {
        let opened = self.open(line, now).expect("opens");
        rows_hold(&self.state);
        match opened.inner.body {
            Body::Text(text) => text,
            other => panic!("no text: {other:?}"),
        }
    }

    /// All rows of the state.
    pub fn fingerprint(&self) -> Vec<u8> {
        fingerprint(&self.state)
    }
}

/// All rows of a state.
pub fn fingerprint(state: &State) -> Vec<u8> {
    let mut all = state.me.to_row().to_vec();
    all.extend_from_slice(&state.prekeys.to_row());
    all.extend(state.contacts.values().flat_map(|contact| contact.to_row()));
    for (address, peer) in &state.peers {
        all.extend(address.to_string().bytes());
        all.extend_from_slice(&peer.to_row());
    }
    for (address, marks) in &state.marks {
        all.extend(address.to_string().bytes());
        all.extend(marks.to_row());
    }
    for room in state.rooms.values() {
        all.extend(room.roster.to_row());
        all.extend_from_slice(&room.chains.to_row());
    }
    all.extend(state.threads.values().flat_map(|thread| thread.to_row()));
    all.extend(state.outgoing.values().flat_map(|outgoing| outgoing.to_row()));
    all
}

/// Every row of a state comes back out of its bytes as it was.
pub fn rows_hold(state: &State) {
    let me = state.me.to_row();
    assert!(*Identity::from_row(&me).unwrap().to_row() == *me);
    assert!(Prekeys::from_row(&state.prekeys.to_row()).unwrap() == state.prekeys);
    for contact in state.contacts.values() {
        assert!(e2e::contact::Contact::from_row(&contact.to_row()).unwrap() == *contact);
    }
    for peer in state.peers.values() {
        assert!(e2e::sessions::Peer::from_row(&peer.to_row()).unwrap() == *peer);
    }
    for marks in state.marks.values() {
        assert!(e2e::marks::Marks::from_row(&marks.to_row()).unwrap() == *marks);
    }
    for room in state.rooms.values() {
        let chains = room.chains.to_row();
        assert!(e2e::roster_log::Roster::from_row(&room.roster.to_row()).unwrap() == room.roster);
        assert!(*e2e::room::Chains::from_row(&chains).unwrap().to_row() == *chains);
    }
    for thread in state.threads.values() {
        assert!(e2e::thread::Thread::from_row(&thread.to_row()).unwrap() == *thread);
    }
    for outgoing in state.outgoing.values() {
        assert!(e2e::thread::Outgoing::from_row(&outgoing.to_row()).unwrap() == *outgoing);
    }
}

/// Accounts, devices, and the server's directory and roster logs.
#[derive(Clone)]
pub struct World {
    pub rng: Seeded,
    pub directory: Directory,
    pub accounts: BTreeMap<User, Account>,
    pub rosters: BTreeMap<RoomName, Vec<Vec<u8>>>,
}

impl World {
    pub fn new(seed: u64) -> Self {
        Self {
            rng: Seeded::new(seed),
            directory: Directory::default(),
            accounts: BTreeMap::new(),
            rosters: BTreeMap::new(),
        }
    }

    /// A new device of an account, certified, listed, with prekeys published.
    pub fn device(&mut self, name: &str) -> Device {
        self.device_with(name, true)
    }

    /// The same, with one-time keys or with the last resort alone, which is quicker.
    pub fn device_with(&mut self, name: &str, one_time: bool) -> Device {
        let user = user(name);
        let keys = DeviceKeys::draw(&user, &mut self.rng).unwrap();
        let account = self.accounts.entry(user.clone()).or_insert_with(|| Account {
            aik: SignKey::draw(&mut self.rng).unwrap(),
            list: None,
            certs: Vec::new(),
        });
        let (dsk, dik) = (keys.dsk.public(), *keys.dik.public());
        let cert = Certificate::issue(&account.aik, &keys.address, &dsk, &dik, T0, T0 + YEAR).unwrap();
        account.certs.push(cert.clone());
        self.relist(name);
        let me = keys.certified(cert.clone()).unwrap();
        let device = me.address().device;
        self.directory.put(&user, &Record::Certificate(cert).to_bytes(device));
        let (prekeys, mut records) = Prekeys::default().rotate(&me, at(0), &mut self.rng).unwrap();
        let pools = if one_time { (0, 0) } else { (usize::MAX, usize::MAX) };
        let (prekeys, more) = prekeys.refill(&me, pools, at(0), &mut self.rng).unwrap();
        records.extend(more);
        for record in records {
            self.directory.put(&user, &record.to_bytes(device));
        }
        let certs = self.directory.certs(&user);
        let certs: Vec<&[u8]> = certs.iter().map(Vec::as_slice).collect();
        let state = State::new(me, prekeys, &self.directory.list(&user), &certs).unwrap();
        let seed = self.rng.below(usize::MAX) as u64;
        Device { state, rng: Seeded::new(seed) }
    }

    /// A new list with the account's present certificates.
    pub fn relist(&mut self, name: &str) {
        let user = user(name);
        let account = self.accounts.get_mut(&user).unwrap();
        let hashes: Vec<_> = account.certs.iter().map(Certificate::hash).collect();
        let list = DeviceList::issue(&account.aik, &user, account.list.as_ref(), &hashes).unwrap();
        account.list = Some(list.clone());
        let device = account.certs[0].address().device;
        self.directory.put(&user, &Record::List(list).to_bytes(device));
    }

    /// Takes a device off its account's list.
    pub fn drop_device(&mut self, address: &Address) {
        let account = self.accounts.get_mut(&address.user).unwrap();
        account.certs.retain(|cert| cert.address() != address);
        self.relist(address.user.as_str());
        self.directory.put(&address.user, &Record::Forget.to_bytes(address.device));
    }

    /// `/keys get USER only=certs`.
    pub fn learn(&self, device: &mut Device, user: &User, now: Now) -> e2e::contact::ListChange {
        let certs = self.directory.certs(user);
        let certs: Vec<&[u8]> = certs.iter().map(Vec::as_slice).collect();
        let (change, news) = device.state.learn(user, &self.directory.list(user), &certs, now).unwrap();
        device.state.apply(change);
        news
    }

    fn bundles(&mut self, device: &Device, of: &[Address], now: Now) -> Vec<Bundle> {
        of.iter()
            .map(|address| {
                let contact = &device.state.contacts[&address.user];
                Bundle::verify(&self.directory.bundle(address), contact, now).unwrap()
            })
            .collect()
    }

    /// Repeats a sealing, fetching what it asks for.
    fn fetching<T>(
        &mut self,
        device: &mut Device,
        now: Now,
        mut seal: impl FnMut(&State, &Answers<'_>, &mut Seeded) -> Result<T, SealError>,
    ) -> Result<T, SealError> {
        let mut bundles = Vec::new();
        for _ in 0..40 {
            let mut rng = device.rng.clone();
            let sealed = seal(&device.state, &Answers::of(&bundles), &mut rng);
            device.rng = rng;
            match sealed {
                Err(SealError::NeedList(user)) => drop(self.learn(device, &user, now)),
                Err(SealError::NeedBundles(of)) => bundles.extend(self.bundles(device, &of, now)),
                done => return done,
            }
        }
        panic!("never sealed");
    }

    pub fn say(&mut self, from: &mut Device, to: &str, text: &str, now: Now) -> Sent {
        self.say_body(from, to, Body::Text(text.into()), now)
    }

    pub fn say_body(&mut self, from: &mut Device, to: &str, body: Body, now: Now) -> Sent {
        let receiver = user(to);
        let sealed = self
            .fetching(from, now, |state, answers, rng| state.seal_message(&receiver, body.clone(), answers, now, rng))
            .unwrap();
        from.state.apply(sealed.change);
        Sent { via: Via::Message, sender: from.user(), to: to.into(), body: sealed.body }
    }

    pub fn signal(&mut self, from: &mut Device, to: &Address, body: Body, now: Now) -> Sent {
        if !from.state.contacts.contains_key(&to.user) {
            self.learn(from, &to.user, now);
        }
        let conversation = from.state.direct(&to.user).unwrap();
        self.signal_in(from, to, conversation, body, now)
    }

    pub fn signal_in(
        &mut self,
        from: &mut Device,
        to: &Address,
        conversation: e2e::inner::Conversation,
        body: Body,
        now: Now,
    ) -> Sent {
        let sealed = self
            .fetching(from, now, |state, answers, rng| {
                state.seal_signal(to, conversation, body.clone(), answers, now, rng)
            })
            .unwrap();
        from.state.apply(sealed.change);
        Sent { via: Via::Signal, sender: from.user(), to: to.user.to_string(), body: sealed.body }
    }

    /// Seals to a room: the signals with their receivers, then the message.
    pub fn say_room(
        &mut self,
        from: &mut Device,
        room: &RoomName,
        text: &str,
        now: Now,
    ) -> Result<(Vec<Sent>, Sent), SealError> {
        let id = from.state.room_named(room).ok_or(SealError::NeedRoster)?.roster.id();
        let sealed = self.fetching(from, now, |state, answers, rng| {
            state.seal_room(&id, Body::Text(text.into()), answers, now, rng)
        })?;
        from.state.apply(sealed.message.change);
        let signal =
            |(to, body): (User, String)| Sent { via: Via::Signal, sender: from.user(), to: to.to_string(), body };
        let signals = sealed.signals.into_iter().map(signal).collect();
        let message = Sent { via: Via::Message, sender: from.user(), to: room.to_string(), body: sealed.message.body };
        Ok((signals, message))
    }

    /// Answers a request for the own link, fetching what is needed.
    pub fn answer(&mut self, from: &mut Device, asks: &Address, room: &RoomId, now: Now) -> Option<Sent> {
        let answered = self
            .fetching(from, now, |state, answers, rng| state.answer_chain_request(asks, room, answers, now, rng))
            .unwrap()?;
        from.state.apply(answered.0);
        Some(Sent { via: Via::Signal, sender: from.user(), to: asks.user.to_string(), body: answered.1 })
    }

    pub fn create_room(&mut self, by: &mut Device, name: &str, open: bool) -> RoomName {
        let name = room_name(name);
        let list = by.state.contacts[&by.user()].list().unwrap().clone();
        let entry = Entry::create(&by.state.me, &name, open, &list, at(0), &mut by.rng).unwrap();
        self.rosters.insert(name.clone(), vec![entry]);
        self.read_roster(by, &name, at(0));
        name
    }

    /// Appends an entry by `by` about `about` (whom `by` has pinned).
    pub fn roster(&mut self, by: &mut Device, name: &RoomName, op: Op, about: &User, now: Now) -> Verdict {
        if !by.state.contacts.contains_key(about) {
            self.learn(by, about, now);
        }
        self.read_roster(by, name, now);
        let roster = &by.state.room_named(name).unwrap().roster;
        let contact = &by.state.contacts[about];
        let list = op.carries_list().then(|| contact.list().unwrap().clone());
        let entry = roster.propose(&by.state.me, op, (about, contact.aik()), list.as_ref(), now);
        self.rosters.get_mut(name).unwrap().push(entry);
        self.read_roster(by, name, now).pop().unwrap()
    }

    /// Reads what is new in a room's roster log.
    pub fn read_roster(&self, device: &mut Device, name: &RoomName, now: Now) -> Vec<Verdict> {
        let read = device.state.room_named(name).map_or(0, |room| room.roster.read()) as usize;
        let mut verdicts = Vec::new();
        for (i, entry) in self.rosters[name].iter().enumerate().skip(read) {
            let (change, verdict) = device.state.read_roster(name, i as u32 + 1, entry, now).unwrap();
            device.state.apply(change);
            verdicts.push(verdict);
        }
        verdicts
    }
}

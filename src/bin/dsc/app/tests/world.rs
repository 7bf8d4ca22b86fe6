//! A server of a few maps, and people who use it. One file for the server's maps and the people: each test
//! uses both.

mod files;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use downstream::e2e::armour;
use downstream::e2e::bundle::Record;
use downstream::e2e::keyslot::Cost;
use downstream::e2e::link::Code;
use downstream::e2e::name::User;
use downstream::e2e::sign::SignKey;
use downstream::protocol::{Request, Target, Timestamp, UserName};
use tempfile::TempDir;

use self::files::Stored;
use crate::app::{Client, Content, Delivered, Reading};
use crate::error::Failure;
use crate::event::Event;
use crate::server::{Answer, Lost, Refusal, Reply, Server};
use crate::store::Store;

#[derive(Default)]
struct Device {
    cert: Vec<u8>,
    spk: Vec<u8>,
    last: Vec<u8>,
    opks: BTreeMap<u32, Vec<u8>>,
    pqks: BTreeMap<u32, Vec<u8>>,
}

#[derive(Default)]
struct Account {
    list: Option<Vec<u8>>,
    devices: BTreeMap<String, Device>,
    signals: Vec<(u64, String, String)>,
    posted: BTreeMap<String, (u64, String)>,
    read: BTreeMap<String, u64>,
}

#[derive(Default)]
struct Room {
    e2e: bool,
    members: BTreeSet<String>,
    invited: BTreeSet<String>,
    private: bool,
    roster: Vec<String>,
}

/// A line of a log.
#[derive(Clone)]
struct Logged {
    target: String,
    sender: String,
    what: What,
}

#[derive(Clone)]
enum What {
    Body(String),
    File(usize),
}

#[derive(Default)]
struct Maps {
    accounts: BTreeMap<String, Account>,
    rooms: BTreeMap<String, Room>,
    logs: BTreeMap<String, Vec<Logged>>,
    files: Vec<Stored>,
    next_signal: u64,
    questions: Vec<String>,
    /// Before which command the connection is lost, and after how many of its kind; and so after which.
    lose_answer: Option<(String, usize)>,
    lose_question: Option<(String, usize)>,
    /// What the next command of a kind is refused with.
    refuse: Option<(String, String)>,
    hide_signals: bool,
    corrupt: bool,
}

/// What all share.
#[derive(Default, Clone)]
pub(super) struct World(Rc<RefCell<Maps>>);

fn pair(a: &str, b: &str) -> String {
    if b.starts_with('#') { b.to_owned() } else { format!("{}+{}", a.min(b), a.max(b)) }
}

impl Maps {
    fn ok(rows: Vec<String>, keys: &[(&str, String)]) -> Answer {
        let keys = keys.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        Answer { rows, reply: Ok(Reply { keys, text: None }) }
    }

    fn err(verb: &str, code: &str, keys: &[(&str, String)]) -> Answer {
        let keys = keys.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        let refusal = Refusal { verb: verb.to_owned(), code: code.to_owned(), keys, text: code.to_owned() };
        Answer { rows: Vec::new(), reply: Err(refusal) }
    }

    fn time(n: u64) -> String {
        // After every certificate's beginning and near the clock: links look at it.
        let now = crate::app::now().ms();
        Timestamp::from_millis(now.saturating_sub(1000) + n).to_string()
    }

    fn answer(&mut self, me: &str, line: &str) -> Answer {
        self.questions.push(line.chars().take(200).collect());
        if let Some((_, code)) = self.refuse.take_if(|(verb, _)| line.starts_with(verb.as_str())) {
            let verb = line.trim_start_matches('/').split(' ').next().unwrap();
            let key = if matches!(code.as_str(), "busy" | "rate-limited") { "retry-after" } else { "max" };
            return Self::err(verb, &code, &[(key, "1".to_owned())]);
        }
        if let Ok(request) = downstream::protocol::request::parse(line).unwrap_or(Ok(Request::Quit))
            && let Some(answer) = self.files(me, &request)
        {
            return answer;
        }
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["/keys", "put", base64] => self.put(me, base64),
            ["/keys", "status"] => {
                let account = self.accounts.entry(me.to_owned()).or_default();
                let row =
                    |(id, d): (&String, &Device)| format!("keys-status {id} opk={} pqk={}", d.opks.len(), d.pqks.len());
                Self::ok(account.devices.iter().map(row).collect(), &[])
            }
            ["/keys", "get", user, options @ ..] => self.get(user, options),
            ["/signal", user, body] => {
                self.next_signal += 1;
                let (id, from) = (self.next_signal, me.to_owned());
                self.accounts.entry((*user).to_owned()).or_default().signals.push((id, from, (*body).to_owned()));
                Self::ok(Vec::new(), &[("id", id.to_string())])
            }
            ["/signals", ..] => {
                let hidden = self.hide_signals;
                let account = self.accounts.entry(me.to_owned()).or_default();
                let rows = account.signals.iter().filter(|_| !hidden);
                Self::ok(
                    rows.map(|(id, from, body)| format!("signal {id} {} {from} :{body}", Self::time(*id))).collect(),
                    &[("more", "no".into())],
                )
            }
            ["/ack", "signals", id] => {
                let id: u64 = id.parse().unwrap();
                self.accounts.entry(me.to_owned()).or_default().signals.retain(|(known, ..)| *known != id);
                Self::ok(Vec::new(), &[])
            }
            ["/ack", target, id] => {
                let log = pair(me, target);
                self.accounts.entry(me.to_owned()).or_default().read.insert(log, id.parse().unwrap());
                Self::ok(Vec::new(), &[])
            }
            ["/post", target, key, ..] => {
                let body = line.splitn(4, ' ').nth(3).unwrap();
                self.post(me, target, key, body)
            }
            ["/msg", target, ..] => {
                let body = line.splitn(3, ' ').nth(2).unwrap().to_owned();
                self.append(me, target, &body)
            }
            ["/fetch", target, options @ ..] => {
                let after: u64 =
                    options.iter().find_map(|o| o.strip_prefix("after=")).map_or(0, |n| n.parse().unwrap());
                let log = self.logs.get(&pair(me, target)).cloned().unwrap_or_default();
                let rows = (1..).zip(log).filter(|(id, _)| *id > after);
                let rows = rows.map(|(id, line)| self.row(id, &line));
                Self::ok(rows.collect(), &[("more", "no".into())])
            }
            ["/unread", "all"] => {
                let read = self.accounts.entry(me.to_owned()).or_default().read.clone();
                let mut rows = Vec::new();
                for (log, lines) in &self.logs {
                    let target = match log.split_once('+') {
                        Some((a, b)) if a == me => b.to_owned(),
                        Some((a, b)) if b == me => a.to_owned(),
                        None if self.rooms[log].members.contains(me) => log.clone(),
                        _ => continue,
                    };
                    let last = lines.len() as u64;
                    let first = read.get(log).copied().unwrap_or(0) + 1;
                    let unread = |(id, line): &(u64, &Logged)| *id >= first && line.sender != me;
                    let count = (1..).zip(lines).filter(unread).count();
                    rows.push(format!("unread {target} count={count} first={first} last={last}"));
                }
                Self::ok(rows, &[])
            }
            ["/rooms", glob @ ..] => {
                let row = |(name, r): (&String, &Room)| {
                    format!(
                        "room {name} members={} e2e={} private=no joined={}",
                        r.members.len(),
                        if r.e2e { "yes" } else { "no" },
                        if r.members.contains(me) { "yes" } else { "no" }
                    )
                };
                let rooms = self.rooms.iter().filter(|(name, _)| glob.iter().all(|glob| glob == name));
                Self::ok(rooms.map(row).collect(), &[("more", "no".into())])
            }
            ["/create", name, options @ ..] => {
                let room = Room {
                    e2e: options.contains(&"e2e"),
                    private: options.contains(&"private"),
                    members: [me.to_owned()].into(),
                    ..Room::default()
                };
                self.rooms.insert((*name).to_owned(), room);
                Self::ok(Vec::new(), &[])
            }
            ["/join", name] => {
                let last = self.logs.get(*name).map_or(0, Vec::len);
                let room = self.rooms.get_mut(*name).unwrap();
                if room.private && !room.invited.contains(me) && !room.members.contains(me) {
                    return Self::err("join", "forbidden", &[]);
                }
                room.members.insert(me.to_owned());
                Self::ok(Vec::new(), &[("e2e", if room.e2e { "yes" } else { "no" }.into()), ("last", last.to_string())])
            }
            ["/invite", name, user] => {
                self.rooms.get_mut(*name).unwrap().invited.insert((*user).to_owned());
                Self::ok(Vec::new(), &[])
            }
            ["/kick", name, user, ..] => {
                self.rooms.get_mut(*name).unwrap().members.remove(*user);
                Self::ok(Vec::new(), &[])
            }
            ["/roster", name, options @ ..] => {
                let after: usize =
                    options.iter().find_map(|o| o.strip_prefix("after=")).map_or(0, |n| n.parse().unwrap());
                let Some(room) = self.rooms.get(*name).filter(|room| room.members.contains(me)) else {
                    return Self::err("roster", "not-member", &[]);
                };
                let rows = (1..).zip(&room.roster).skip(after).map(|(at, entry)| format!("roster {name} {at} {entry}"));
                Self::ok(rows.collect(), &[("epoch", room.roster.len().to_string()), ("more", "no".into())])
            }
            ["/roster-add", name, at, entry] => {
                let room = self.rooms.get_mut(*name).unwrap();
                if at.parse::<usize>().unwrap() != room.roster.len() + 1 {
                    return Self::err("roster-add", "conflict", &[("epoch", room.roster.len().to_string())]);
                }
                room.roster.push((*entry).to_owned());
                Self::ok(Vec::new(), &[])
            }
            other => panic!("not built: {other:?}"),
        }
    }

    fn put(&mut self, me: &str, base64: &str) -> Answer {
        let raw = armour::unbase64(base64).unwrap();
        let (id, record) = Record::parse(&raw).unwrap();
        let (id, body) = (id.to_string(), raw[18..].to_vec());
        let account = self.accounts.entry(me.to_owned()).or_default();
        let keys = |body: &[u8], len: usize| -> BTreeMap<u32, Vec<u8>> {
            body.chunks(len).map(|key| (u32::from_be_bytes(key[..4].try_into().unwrap()), key.to_vec())).collect()
        };
        if let Record::List(_) = record {
            account.list = Some(body);
            return Self::ok(Vec::new(), &[]);
        }
        let device = account.devices.entry(id.clone()).or_default();
        match record {
            Record::Certificate(_) if device.cert == body => {}
            Record::Certificate(_) => *device = Device { cert: body, ..Device::default() },
            Record::Forget => drop(account.devices.remove(&id)),
            Record::Spk(_) => device.spk = body,
            Record::PqkLast(_) => device.last = body,
            Record::Opks(_) => device.opks.extend(keys(&body, 108)),
            Record::Pqks(_) => device.pqks.extend(keys(&body, 1260)),
            Record::List(_) => {}
        }
        Self::ok(Vec::new(), &[])
    }

    fn get(&mut self, user: &str, options: &[&str]) -> Answer {
        let Some(account) = self.accounts.get_mut(user) else { return Self::err("keys", "no-such-user", &[]) };
        let mut rows: Vec<String> =
            account.list.iter().map(|list| format!("devices {user} {}", armour::base64(list))).collect();
        let wanted = options.iter().find_map(|o| o.strip_prefix("device="));
        for (id, device) in &mut account.devices {
            if wanted.is_some_and(|wanted| wanted != id) {
                continue;
            }
            if options.contains(&"only=certs") {
                rows.push(format!("cert {user} {id} {}", armour::base64(&device.cert)));
                continue;
            }
            let mut bundle = u16::try_from(device.cert.len()).unwrap().to_be_bytes().to_vec();
            bundle.extend(&device.cert);
            bundle.extend(&device.spk);
            match device.opks.pop_first() {
                Some((_, key)) => {
                    bundle.push(1);
                    bundle.extend(key);
                }
                None => bundle.push(0),
            }
            match device.pqks.pop_first() {
                Some((_, key)) => {
                    bundle.push(0);
                    bundle.extend(key);
                }
                None => {
                    bundle.push(1);
                    bundle.extend(&device.last);
                }
            }
            rows.push(format!("keys {user} {id} {}", armour::base64(&bundle)));
        }
        Self::ok(rows, &[])
    }

    fn post(&mut self, me: &str, target: &str, key: &str, body: &str) -> Answer {
        let known = self.accounts.entry(me.to_owned()).or_default().posted.get(key).cloned();
        if let Some((id, before)) = known {
            return if before == body {
                Self::ok(Vec::new(), &[("id", id.to_string()), ("dup", "yes".into())])
            } else {
                Self::err("post", "conflict", &[("id", id.to_string())])
            };
        }
        let answer = self.append(me, target, body);
        if let Ok(reply) = &answer.reply {
            let id = reply.key("id").unwrap().parse().unwrap();
            self.accounts.entry(me.to_owned()).or_default().posted.insert(key.to_owned(), (id, body.to_owned()));
        }
        answer
    }

    fn append(&mut self, me: &str, target: &str, body: &str) -> Answer {
        let mut body = body.to_owned();
        if std::mem::take(&mut self.corrupt) {
            // The last slot's last byte, and nothing of the form.
            let mut raw = armour::envelope(&body).unwrap();
            let at = 19 + 16 + 2 + 80;
            raw[at] ^= 1;
            body = armour::body(&raw);
        }
        let log = self.logs.entry(pair(me, target)).or_default();
        log.push(Logged { target: target.to_owned(), sender: me.to_owned(), what: What::Body(body) });
        Self::ok(Vec::new(), &[("id", log.len().to_string())])
    }

    /// A line of a log as a row.
    fn row(&self, id: u64, line: &Logged) -> String {
        let Logged { target, sender, what } = line;
        let time = Self::time(id);
        match what {
            What::Body(body) => format!("msg {id} {time} {target} {sender} :{body}"),
            What::File(at) => {
                let Stored { name, size, sha256, .. } = &self.files[*at];
                let sha256 = armour::hex(sha256);
                format!("file {id} {time} {target} {sender} file={} size={size} sha256={sha256} :{name}", at + 1)
            }
        }
    }
}

impl World {
    pub(super) fn bodies(&self) -> Vec<String> {
        let body = |line: &Logged| match &line.what {
            What::Body(body) => Some(body.clone()),
            What::File(_) => None,
        };
        self.0.borrow().logs.values().flatten().filter_map(body).collect()
    }

    /// The bytes of every file that is whole and was not dropped.
    pub(super) fn files(&self) -> Vec<Vec<u8>> {
        let maps = self.0.borrow();
        maps.files.iter().filter(|file| !file.dropped && file.id.is_some()).map(|file| file.bytes.clone()).collect()
    }

    /// Changes the bytes that the server has of a file, as a disk or an attacker would.
    pub(super) fn damage_file(&self, file: usize, change: impl FnOnce(&mut Vec<u8>)) {
        change(&mut self.0.borrow_mut().files[file - 1].bytes);
    }

    pub(super) fn questions(&self) -> Vec<String> {
        self.0.borrow().questions.clone()
    }

    pub(super) fn forget_questions(&self) {
        self.0.borrow_mut().questions.clear();
    }

    pub(super) fn lose_next_answer(&self, verb: &str) {
        self.lose_answer_after(verb, 0);
    }

    /// Loses the connection before the answer to a command, when so many of its kind have been answered.
    pub(super) fn lose_answer_after(&self, verb: &str, count: usize) {
        self.0.borrow_mut().lose_answer = Some((verb.to_owned(), count));
    }

    pub(super) fn lose_next_question(&self, verb: &str) {
        self.lose_question_after(verb, 0);
    }

    /// The same before the command has come.
    pub(super) fn lose_question_after(&self, verb: &str, count: usize) {
        self.0.borrow_mut().lose_question = Some((verb.to_owned(), count));
    }

    /// Refuses the next command that begins so.
    pub(super) fn refuse_next(&self, verb: &str, code: &str) {
        self.0.borrow_mut().refuse = Some((verb.to_owned(), code.to_owned()));
    }

    pub(super) fn hide_signals(&self, hide: bool) {
        self.0.borrow_mut().hide_signals = hide;
    }

    pub(super) fn corrupt_next(&self) {
        self.0.borrow_mut().corrupt = true;
    }

    pub(super) fn let_in(&self, room: &str, user: &str) {
        self.0.borrow_mut().rooms.get_mut(room).unwrap().members.insert(user.to_owned());
    }

    pub(super) fn forget_room(&self, room: &str) {
        self.0.borrow_mut().rooms.remove(room);
    }

    pub(super) fn forget_keys(&self, user: &str) {
        let mut maps = self.0.borrow_mut();
        let account = maps.accounts.get_mut(user).unwrap();
        (account.list, account.devices) = (None, BTreeMap::new());
    }

    pub(super) fn inject(&self, target: &str, sender: &str, body: &str) {
        self.0.borrow_mut().append(sender, target, body);
    }

    /// What the server would print to a person who types `line`.
    pub(super) fn answer(&self, me: &str, line: &str) -> String {
        let answer = self.0.borrow_mut().answer(me, line);
        answer.rows.iter().map(|row| format!("- {row}\n")).collect()
    }
}

/// Whether the connection is to be lost now; counts what comes before.
fn is_due(when: &mut Option<(String, usize)>, command: &str) -> bool {
    if let Some((verb, count)) = when
        && command.starts_with(verb.as_str())
    {
        if *count == 0 {
            *when = None;
            return true;
        }
        *count -= 1;
    }
    false
}

struct Line {
    world: World,
    me: String,
}

impl Server for Line {
    fn ask_all(&mut self, commands: &[&str]) -> Result<Vec<Answer>, Lost> {
        let lost = || Err(Lost::Network("the connection was lost".to_owned()));
        let mut answers = Vec::new();
        for command in commands {
            let mut maps = self.world.0.borrow_mut();
            if is_due(&mut maps.lose_question, command) {
                return lost();
            }
            let answer = maps.answer(&self.me, command);
            if is_due(&mut maps.lose_answer, command) {
                return lost();
            }
            answers.push(answer);
        }
        Ok(answers)
    }
}

struct Nobody;

impl Server for Nobody {
    fn is_offline(&self) -> bool {
        true
    }

    fn ask_all(&mut self, commands: &[&str]) -> Result<Vec<Answer>, Lost> {
        Err(Lost::Offline(commands.iter().map(|command| (*command).to_owned()).collect()))
    }
}

/// Somebody with a device.
pub(super) struct Person {
    store: Store,
    line: Line,
    home: TempDir,
}

impl Person {
    pub(super) fn without_keys(world: &World, name: &str) -> Person {
        let home = TempDir::new().unwrap();
        let mut store = Store::create(&home.path().join("dsc"), None, Cost::FLOOR).unwrap();
        store
            .transact(|tx| -> Result<(), Failure> {
                let mut profile = tx.profile();
                profile.user = Some(UserName::parse(name).unwrap());
                tx.set_profile(profile);
                Ok(())
            })
            .unwrap();
        world.0.borrow_mut().accounts.entry(name.to_owned()).or_default();
        Person { store, line: Line { world: world.clone(), me: name.to_owned() }, home }
    }

    pub(super) fn begin(world: &World, name: &str) -> Person {
        let mut person = Person::without_keys(world, name);
        person.with(|client| client.begin_account(&UserName::parse(name).unwrap(), None)).unwrap();
        person
    }

    /// Works as a command does: upkeep first.
    pub(super) fn with<T>(&mut self, work: impl FnOnce(&mut Client<'_>) -> Result<T, Failure>) -> Result<T, Failure> {
        self.shown(work).1
    }

    pub(super) fn shown<T>(
        &mut self,
        work: impl FnOnce(&mut Client<'_>) -> Result<T, Failure>,
    ) -> (Vec<Event>, Result<T, Failure>) {
        let mut events = Vec::new();
        let mut show = |event: &Event| {
            events.push(event.clone());
            Ok(())
        };
        let mut client = Client { store: &mut self.store, server: &mut self.line, show: &mut show };
        let done = client.upkeep().and_then(|()| work(&mut client));
        (events, done)
    }

    pub(super) fn by_hand<T>(
        &mut self,
        work: impl FnOnce(&mut Client<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut show = |_: &Event| Ok(());
        work(&mut Client { store: &mut self.store, server: &mut Nobody, show: &mut show })
    }

    pub(super) fn seed(&mut self) -> SignKey {
        self.with(|client| client.transact(|tx| Ok(tx.account_key().cloned().unwrap()))).unwrap()
    }

    /// New keys in the old home, for the same account.
    pub(super) fn begin_again(&mut self, account: SignKey) {
        let user = User::parse(&self.line.me).unwrap();
        let keys = crate::app::new_keys(&account, &user, None).unwrap();
        self.store.transact(|tx| tx.begin(keys.state, Some(account))).unwrap();
    }

    /// A path beside the home, for files of the person's own; the home itself is `dsc`.
    pub(super) fn path(&self, name: &str) -> std::path::PathBuf {
        self.home.path().join(name)
    }

    /// How many devices this one keeps a row of.
    pub(super) fn peers(&mut self) -> usize {
        self.with(|client| client.transact(|tx| Ok(tx.state().unwrap().peers.len()))).unwrap()
    }

    /// A signal that gives the chain of a made-up epoch of a room to the first device of an account.
    pub(super) fn claim_epoch(&mut self, to: &UserName, room: &downstream::protocol::RoomName, epoch: u32) {
        use downstream::e2e::inner::Conversation;
        let body = self
            .with(|client| {
                client.seal_direct(to, Content::Text("hello".to_owned()))?;
                client.transact(|tx| {
                    let state = tx.state().unwrap();
                    let user = User::parse(to.as_str()).unwrap();
                    let device = state.contacts[&user].certs()[0].address().clone();
                    let id = state.room_named(&downstream::e2e::name::RoomName::parse(room.as_str()).unwrap());
                    let id = id.unwrap().roster.id();
                    // Nothing makes such a link but its bytes: kind 3 of an inner message.
                    let body = [&id.0[..], &epoch.to_be_bytes(), &[7; 136]].concat();
                    let raw = [&[3, 0][..], &[0; 60], &[1], &id.0, &[0; 4], &body].concat();
                    let link = downstream::e2e::inner::Inner::parse(&raw).unwrap().body;
                    let sealed = state
                        .seal_signal(
                            &device,
                            Conversation::Room(id),
                            link,
                            &Default::default(),
                            crate::app::now(),
                            &mut crate::app::Os,
                        )
                        .unwrap();
                    tx.apply(sealed.change);
                    Ok(sealed.body)
                })
            })
            .unwrap();
        self.with(|client| client.command(&format!("/signal {to} {body}"))).unwrap();
    }

    pub(super) fn try_send(&mut self, target: &str, text: &str) -> Result<Delivered, Failure> {
        let target = Target::parse(target).unwrap();
        self.with(|client| client.send(&target, Content::Text(text.to_owned())))
    }

    pub(super) fn send(&mut self, target: &str, text: &str) -> Delivered {
        self.try_send(target, text).unwrap()
    }

    pub(super) fn fetch(&mut self) -> Vec<Event> {
        let (events, done) = self.shown(|client| client.catch_up(Reading::All));
        done.unwrap();
        events
    }

    pub(super) fn page(&mut self, target: &str) -> Vec<Event> {
        let target = Target::parse(target).unwrap();
        let (events, done) = self.shown(|client| client.page(&target, None, 100));
        done.unwrap();
        events
    }

    pub(super) fn link_to(&mut self, primary: &mut Person) {
        let user = UserName::parse(&self.line.me).unwrap();
        let (waiting, code) = self.with(|client| client.link_begin(&user)).unwrap();
        assert!(!self.with(|client| client.link_look(&waiting)).unwrap());
        let code = Code::parse(&code).unwrap();
        primary.with(|client| client.link_approve(&code, &|_| Ok(()))).unwrap();
        assert!(self.with(|client| client.link_look(&waiting)).unwrap());
        assert!(User::parse(user.as_str()).is_ok());
    }
}

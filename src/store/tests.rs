//! The store as its callers see it: the rules on an engine in memory, durability on real files.

mod accounts;
mod directory;
mod faults;
mod files;
mod logs;
mod messages;
mod restored;
mod rooms;
mod rosters;
mod signals;
mod threads;
mod transfers;
pub(in crate::store) mod uploads;

use std::sync::Arc;

use super::{Engine, ServerKey};
use crate::ops::*;
use crate::protocol::answer::{FileLine, MessageLine, ServerLine};
use crate::protocol::{PostKey, RoomName, Target, Timestamp, UserName};

pub(super) fn name(text: &str) -> UserName {
    UserName::parse(text).unwrap()
}

pub(super) fn room(text: &str) -> RoomName {
    RoomName::parse(text).unwrap()
}

pub(super) fn target(text: &str) -> Target {
    Target::parse(text).unwrap()
}

pub(super) fn verifier(seed: u8) -> Verifier {
    Verifier { memory_kib: 8192, iterations: 1, parallelism: 1, salt: [seed; 16], hash: [seed; 32] }
}

pub(super) fn at(ms: u64) -> Timestamp {
    Timestamp::from_millis(ms)
}

pub(super) fn append(sender: &Person, to: &str, body: &str) -> Op {
    Op::Append { sender: sender.clone(), targets: vec![target(to)], body: body.into(), key: None }
}

pub(super) fn post(sender: &Person, to: &str, key: &str, body: &str) -> Op {
    let key = Some(PostKey::parse(key).unwrap());
    Op::Append { sender: sender.clone(), targets: vec![target(to)], body: body.into(), key }
}

/// An engine with a clock.
struct World {
    engine: Engine,
    now: u64,
}

impl World {
    fn new() -> World {
        World { engine: Engine::in_memory(&ServerKey::ephemeral().unwrap()).unwrap(), now: 1_000_000_000_000 }
    }

    fn apply(&mut self, op: Op) -> Result<Outcome, Refused> {
        self.now += 1;
        self.engine.apply(at(self.now), &op)
    }

    fn refused(&mut self, op: Op) -> Refused {
        match self.apply(op) {
            Err(refused) => refused,
            Ok(outcome) => panic!("not refused: {outcome:?}"),
        }
    }

    fn ask(&self, query: Query) -> Result<Answer, Refused> {
        self.engine.answer(&query)
    }

    fn person(&mut self, text: &str) -> Person {
        let op = Op::Register { name: name(text), verifier: verifier(1), invite: None };
        match self.apply(op).unwrap() {
            Outcome::Registered(id) => Person { id, name: name(text) },
            other => panic!("{other:?}"),
        }
    }

    fn people<const N: usize>(&mut self, names: [&str; N]) -> [Person; N] {
        names.map(|name| self.person(name))
    }

    fn join(&mut self, who: &Person, text: &str) -> Joined {
        match self.apply(Op::JoinRoom { account: who.id, room: room(text) }).unwrap() {
            Outcome::Joined(joined) => joined,
            other => panic!("{other:?}"),
        }
    }

    fn create(&mut self, who: &Person, text: &str, private: bool, e2e: bool) -> Result<Joined, Refused> {
        let op = Op::CreateRoom { account: who.id, room: room(text), private, e2e, topic: None };
        self.apply(op).map(|outcome| match outcome {
            Outcome::Joined(joined) => joined,
            other => panic!("{other:?}"),
        })
    }

    fn leave(&mut self, who: &Person, text: &str) -> RoomChange {
        self.change(Op::LeaveRoom { account: who.id, room: room(text) }).unwrap()
    }

    fn change(&mut self, op: Op) -> Result<RoomChange, Refused> {
        self.apply(op).map(|outcome| match outcome {
            Outcome::RoomChanged(change) => change,
            other => panic!("{other:?}"),
        })
    }

    fn moderate(&mut self, actor: &Person, text: &str, act: Act, subject: &str) -> Result<RoomChange, Refused> {
        self.change(Op::Moderate { actor: actor.id, room: room(text), act, subject: name(subject) })
    }

    fn send(&mut self, sender: &Person, to: &str, body: &str) -> Result<Appended, Refused> {
        self.one(append(sender, to, body))
    }

    fn one(&mut self, op: Op) -> Result<Appended, Refused> {
        match self.apply(op)? {
            Outcome::Appended(mut results) if results.len() == 1 => results.remove(0),
            other => panic!("{other:?}"),
        }
    }

    fn say(&mut self, sender: &Person, to: &str, body: &str) -> MessageId {
        self.send(sender, to, body).unwrap().id
    }

    fn open(&mut self, who: &str) -> SessionOpened {
        self.login(who, Proof::Password { epoch: self.epoch(who), upgraded: None }).unwrap()
    }

    fn epoch(&self, who: &str) -> i64 {
        match self.ask(Query::Credentials(name(who))).unwrap() {
            Answer::Credentials(Some(credentials)) => credentials.epoch,
            other => panic!("{other:?}"),
        }
    }

    fn login(&mut self, who: &str, proof: Proof) -> Result<SessionOpened, Refused> {
        self.apply(Op::OpenSession { name: name(who), proof }).map(|outcome| match outcome {
            Outcome::SessionOpened(session) => *session,
            other => panic!("{other:?}"),
        })
    }

    fn page(&self, who: &Person, of: &str, bound: Bound, limit: usize) -> Result<Page, Refused> {
        self.page_of_bytes(who, of, bound, limit, usize::MAX)
    }

    fn page_of_bytes(
        &self,
        who: &Person,
        of: &str,
        bound: Bound,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Page, Refused> {
        let query = Query::Page { account: who.id, target: target(of), bound, limit, max_bytes };
        self.ask(query).map(|answer| match answer {
            Answer::Page(page) => page,
            other => panic!("{other:?}"),
        })
    }

    fn ack(&mut self, who: &Person, of: &str, id: u64) -> Result<Acked, Refused> {
        let op = Op::Ack { account: who.id, target: target(of), id: MessageId(id) };
        self.apply(op).map(|outcome| match outcome {
            Outcome::Acked(mut acked) if acked.len() == 1 => acked.remove(0),
            other => panic!("{other:?}"),
        })
    }

    fn counts(&self, who: &Person, all: bool) -> Vec<(String, u64, u64, u64)> {
        match self.ask(Query::UnreadCounts { account: who.id, all }).unwrap() {
            Answer::UnreadRows(rows) => {
                rows.into_iter().map(|row| (row.target.to_string(), row.count, row.first.0, row.last.0)).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    fn unread(&self, who: &Person, limit: usize, max_bytes: usize) -> Page {
        match self.ask(Query::Unread { account: who.id, limit, max_bytes }).unwrap() {
            Answer::Page(page) => page,
            other => panic!("{other:?}"),
        }
    }

    fn arrival(&self, who: &Person, behind: Vec<Behind>, limit: usize) -> Arrival {
        let query = Query::Arrival { account: who.id, behind, limit, max_bytes: usize::MAX };
        match self.ask(query).unwrap() {
            Answer::Arrival(arrival) => arrival,
            other => panic!("{other:?}"),
        }
    }

    fn members(&self, who: &Person, of: &str) -> Result<Vec<(String, Role)>, Refused> {
        self.ask(Query::Members { account: who.id, room: room(of) }).map(|answer| match answer {
            Answer::Members(rows) => rows.into_iter().map(|row| (row.person.name.to_string(), row.role)).collect(),
            other => panic!("{other:?}"),
        })
    }

    fn rooms(&self, who: &Person, glob: Option<&str>) -> Vec<RoomRow> {
        let query = Query::Rooms { account: who.id, glob: glob.map(str::to_owned), after: None, limit: 1000 };
        match self.ask(query).unwrap() {
            Answer::Rooms { rows, more: false } => rows,
            other => panic!("{other:?}"),
        }
    }

    fn unregister(&mut self, who: &Person) {
        let epoch = self.epoch(who.name.as_str());
        self.apply(Op::Unregister { account: who.id, epoch }).unwrap();
    }

    /// How many rows a table has.
    fn rows(&self, table: &str) -> i64 {
        self.engine.records().number(&format!("SELECT count(*) FROM {table}"))
    }

    fn totals(&self) -> Totals {
        match self.ask(Query::Totals).unwrap() {
            Answer::Totals(totals) => totals,
            other => panic!("{other:?}"),
        }
    }

    /// Sweeps until nothing is left to do; how often.
    fn sweep(&mut self, messages_before: Option<Timestamp>) -> usize {
        let sweep = Sweep { messages_before, ..Sweep::default() };
        for sweeps in 1.. {
            match self.apply(Op::Sweep(sweep)).unwrap() {
                Outcome::Swept { more: false } => return sweeps,
                Outcome::Swept { more: true } => assert!(sweeps < 1000, "it ends"),
                other => panic!("{other:?}"),
            }
        }
        0
    }
}

/// A line of a page, as a client reads it.
#[derive(Debug)]
struct Shown {
    id: u64,
    target: Target,
    sender: UserName,
    body: String,
    file: Option<FileRef>,
}

fn shown(page: &Page) -> Vec<Shown> {
    let mut shown = Vec::new();
    let mut end = 0;
    for row in &page.rows {
        assert_eq!(row.begin, end, "lines follow each other");
        end = row.end;
        let line = std::str::from_utf8(page.line(row)).unwrap().strip_suffix('\n').unwrap();
        let (ServerLine::Row(fields) | ServerLine::Event(fields)) = ServerLine::parse(line) else { panic!("{line}") };
        let one = match fields.kind() {
            "file" => {
                let FileLine { id, target, sender, file, size, sha256, gone, name, .. } =
                    FileLine::read(&fields).unwrap();
                let (target, body) = (target.clone(), name.to_string());
                Shown { id, target, sender, body, file: Some(FileRef { id: file, size, sha256: Sha256(sha256), gone }) }
            }
            _ => {
                let MessageLine { id, target, sender, body, .. } = MessageLine::read(&fields).unwrap();
                Shown { id, target, sender, body: body.to_owned(), file: None }
            }
        };
        assert_eq!((one.id, matches!(one.target, Target::Room(_))), (row.id.0, row.in_room));
        shown.push(one);
    }
    assert_eq!(page.lines.len(), end);
    shown
}

fn bodies(page: &Page) -> Vec<String> {
    shown(page).into_iter().map(|shown| shown.body).collect()
}

fn ids(page: &Page) -> Vec<u64> {
    page.rows.iter().map(|row| row.id.0).collect()
}

/// A wake that rings a bell for whoever waits in the test.
fn bell() -> (super::Wake, std::sync::mpsc::Receiver<()>) {
    let (send, receive) = std::sync::mpsc::channel();
    (Arc::new(move || send.send(()).unwrap_or(())), receive)
}

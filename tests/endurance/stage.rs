//! Where everybody plays: the daemon of the moment, and what is known to all.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use crate::ledger::{Ledger, Shown, place, value};
use crate::shelf::Shelf;
use crate::support::{Client, Ended, Link, Options};

/// Between a piece of work and the next in a long run, so that the load does not fill the disk: some hundred
/// messages a second in all.
const PAUSE: Duration = Duration::from_millis(40);
/// How long to wait for a daemon before asking whether all is over.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// How long to wait for the others before looking again.
const SOON: Duration = Duration::from_millis(2);

/// The connection is gone, as it may be: the daemon was killed, or the play is over.
#[derive(Debug)]
pub(crate) struct Gone;

#[derive(Debug, Default)]
struct Door {
    /// Where the daemon listens, unless it is just being killed.
    address: Option<SocketAddr>,
    /// How many daemons there were.
    number: u64,
    /// Those under which the disk fails.
    ailing: HashSet<u64>,
}

#[derive(Debug, Default)]
pub(crate) struct Stage {
    door: Mutex<Door>,
    moved: Condvar,
    over: AtomicBool,
    long: bool,
    numbers: AtomicU64,
    pub(crate) ledger: Mutex<Ledger>,
    /// Messages acknowledged.
    pub(crate) stored: AtomicUsize,
    /// Commands answered `internal`.
    pub(crate) failed: AtomicUsize,
    /// What is known of files.
    pub(crate) shelf: Mutex<Shelf>,
    /// Chunks acknowledged.
    pub(crate) chunks: AtomicUsize,
    /// Commands about files answered `internal`, or `busy` because the disk has no room.
    pub(crate) files_failed: AtomicUsize,
    /// What each part has done, for the report.
    done: Mutex<HashMap<&'static str, u64>>,
}

impl Stage {
    /// In a long run everybody takes breath between two pieces of work.
    pub(crate) fn new(long: bool) -> Stage {
        Stage { long, ..Stage::default() }
    }

    /// Lets everybody in; whether the disk may fail under this daemon.
    pub(crate) fn open(&self, address: SocketAddr, ailing: bool) {
        let mut door = self.door.lock().unwrap();
        (door.address, door.number) = (Some(address), door.number + 1);
        if ailing {
            let number = door.number;
            door.ailing.insert(number);
        }
        self.over.store(false, Ordering::SeqCst);
        drop(door);
        self.moved.notify_all();
    }

    /// Whatever ends from now on may end in any way.
    pub(crate) fn close(&self) {
        self.door.lock().unwrap().address = None;
    }

    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
        self.moved.notify_all();
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// A number that nobody else has.
    pub(crate) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Counts a part of a piece of work.
    pub(crate) fn count(&self, what: &'static str) {
        *self.done.lock().unwrap().entry(what).or_default() += 1;
    }

    /// Counts a piece of work, and takes breath.
    pub(crate) fn did(&self, what: &'static str) {
        self.count(what);
        if self.long {
            std::thread::sleep(PAUSE);
        }
    }

    /// What was done, by name.
    pub(crate) fn done(&self) -> String {
        let done = self.done.lock().unwrap();
        let mut done: Vec<(&str, u64)> = done.iter().map(|(what, n)| (*what, *n)).collect();
        done.sort_unstable();
        done.iter().map(|(what, n)| format!("{n} {what}")).collect::<Vec<_>>().join(", ")
    }

    /// Which daemon it is, if there is one.
    pub(crate) fn number_here(&self) -> Option<u64> {
        let door = self.door.lock().unwrap();
        door.address.map(|_| door.number)
    }

    /// Where a daemon listens and which one it is, once there is one; `None` when all is over.
    pub(crate) fn address(&self) -> Option<(SocketAddr, u64)> {
        let mut door = self.door.lock().unwrap();
        loop {
            if self.is_over() {
                return None;
            }
            if let Some(address) = door.address {
                return Some((address, door.number));
            }
            door = self.moved.wait_timeout(door, ASK_AGAIN).unwrap().0;
        }
    }

    /// Waits until something holds, or all is over.
    pub(crate) fn until(&self, mut holds: impl FnMut() -> bool) {
        let mut door = self.door.lock().unwrap();
        while !self.is_over() {
            drop(door);
            if holds() {
                return;
            }
            door = self.moved.wait_timeout(self.door.lock().unwrap(), SOON).unwrap().0;
        }
    }

    /// A connection, with the greeting read; `None` when all is over.
    pub(crate) fn connect(&self) -> Option<Session<'_>> {
        loop {
            let (address, number) = self.address()?;
            let client = Client::try_raw(address, &Options::default());
            if let Ok(client) = client.map_err(|why| self.gone(number, &why)) {
                let mut session = Session { stage: self, client, number, user: String::new(), last: HashMap::new() };
                match session.line() {
                    Ok(hello) => {
                        assert!(hello.starts_with("* hello "), "{hello}");
                        return Some(session);
                    }
                    Err(Gone) => continue,
                }
            }
        }
    }

    /// A session of `user`. `None` when all is over.
    pub(crate) fn login(&self, user: &str) -> Option<Session<'_>> {
        self.login_with(user, &format!("password-{user}"), "manual")
    }

    /// A session, with what it logs in with, and who says what was read.
    pub(crate) fn login_with(&self, user: &str, secret: &str, ack: &str) -> Option<Session<'_>> {
        loop {
            let mut session = self.connect()?;
            user.clone_into(&mut session.user);
            let Ok(_) = session.ask(&format!("/ack {ack}")) else { continue };
            match session.ask(&format!("/login {user} {secret}")) {
                Ok(answer) if answer.starts_with("OK login ") => return Some(session),
                // A disk that fails lets nobody in; a crowd may have to wait.
                Ok(answer) => assert!(
                    ["internal", "busy"].iter().any(|code| answer.starts_with(&format!("ERR login {code} "))),
                    "{answer}"
                ),
                Err(Gone) => {}
            }
        }
    }

    /// A connection ended. The daemon that was not killed must not have done that.
    fn gone(&self, number: u64, why: &str) -> Gone {
        let lives = self.number_here() == Some(number);
        assert!(!lives || self.is_over(), "the daemon ended a connection: {why}");
        Gone
    }
}

/// A connection of somebody who checks every line.
#[derive(Debug)]
pub(crate) struct Session<'a> {
    pub(crate) stage: &'a Stage,
    pub(crate) client: Client,
    number: u64,
    pub(crate) user: String,
    /// The last message of each conversation that came by itself.
    last: HashMap<String, u64>,
}

impl Session<'_> {
    /// Whether the disk may fail under this daemon.
    pub(crate) fn is_ailing(&self) -> bool {
        self.stage.door.lock().unwrap().ailing.contains(&self.number)
    }

    /// The next line of any kind. What it shows must come in order, and be what others see.
    pub(crate) fn line(&mut self) -> Result<String, Gone> {
        match self.client.line() {
            Ok(line) => {
                if let Some(shown) = Shown::read(&line) {
                    self.stage.ledger.lock().unwrap().saw(&shown.place, shown.id, &shown.body);
                    if let Some(file) = &shown.file {
                        self.stage.shelf.lock().unwrap().saw(&shown.place, shown.id, file);
                    }
                    if line.starts_with('*') {
                        let before = self.last.insert(shown.place.clone(), shown.id).unwrap_or(0);
                        assert!(shown.id > before, "{}: {} came behind {before}", shown.place, shown.id);
                    }
                }
                Ok(line)
            }
            Err(Ended::Silent) => panic!("{} hears nothing any more\n{}", self.user, self.client.transcript()),
            Err(ended) => Err(self.stage.gone(self.number, &format!("{ended:?}\n{}", self.client.transcript()))),
        }
    }

    pub(crate) fn send(&mut self, lines: &str) -> Result<(), Gone> {
        let sent = self.client.try_send(lines.as_bytes());
        sent.map_err(|why| self.stage.gone(self.number, &why.to_string()))
    }

    /// The next reply; events before it are only checked, rows are given to `row`.
    pub(crate) fn reply(&mut self, mut row: impl FnMut(&str)) -> Result<String, Gone> {
        loop {
            let line = self.line()?;
            match line.as_bytes().first() {
                Some(b'*') => {}
                Some(b'-') => row(&line),
                _ => return Ok(line),
            }
        }
    }

    /// One command and its reply, whatever it is.
    pub(crate) fn ask(&mut self, line: &str) -> Result<String, Gone> {
        self.client.say(line);
        self.reply(|_| {})
    }

    /// Takes the answer to a message: `OK`, or refused because the disk fails or somebody has left.
    pub(crate) fn answered(&mut self, target: &str, body: &str) -> Result<Option<u64>, Gone> {
        let line = self.reply(|_| {})?;
        let mut ledger = self.stage.ledger.lock().unwrap();
        if !line.starts_with("OK ") {
            let expected =
                ["internal", "not-member", "no-such-room"].iter().any(|code| line.contains(&format!(" {code} ")));
            assert!(line.starts_with("ERR ") && expected, "{line}");
            ledger.refused(body, &line);
            self.stage.failed.fetch_add(1, Ordering::Relaxed);
            return Ok(None);
        }
        let id = value(&line, "id").unwrap().parse().unwrap();
        ledger.acknowledged(&place(target, &self.user), id, body);
        self.stage.stored.fetch_add(1, Ordering::Relaxed);
        Ok(Some(id))
    }
}

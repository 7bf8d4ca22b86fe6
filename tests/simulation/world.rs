//! The schedule: one core, its fake surroundings, and chance. Long, because it is the whole loop in
//! small: each step of it is a few lines on the same state.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use downstream::commands::Core;
use downstream::hub::effects::{Effect, Expiry, Gauges, Input, Now};
use downstream::hub::settings::{Registration, Settings};
use downstream::ops::{AddressBlock, Done, Op, Outcome, OutsideChange, Refused, Sha256, Ticket};
use downstream::protocol::{LineFault, MAX_BODY, Timestamp};
use downstream::session::{ConnId, Peer};

use super::backend::{Backend, Read, Write, Written};
use super::client::{People, Typed};
use super::oracle::{Kind, Oracle};
use super::rng::Rng;
use super::trace::Trace;

/// Connections at most; in a world of programs fewer, so that each is busier.
const CONNECTIONS: usize = 40;
const CONNECTIONS_OF_PROGRAMS: usize = 12;
/// Bytes of a page of a log.
const PAGE_BYTES: u64 = 1 << 20;
/// Bytes that may be queued above limits and pages: the replies and events of one turn.
const SLACK: u64 = 64 << 10;

/// When the world begins.
const START_MS: u64 = 1_700_000_000_000;
/// How far somebody sets the clock forward or back.
const CLOCK_JUMP_MS: i64 = 26 * 3600 * 1000;
/// One line in so many is not quite what was meant.
const GARBLED: usize = 16;

/// How the other side reads.
#[derive(Debug, Clone, Copy)]
enum Reader {
    Fast,
    Slow(usize),
    Stuck,
}

/// One connection as the loop has it.
struct Conn {
    id: ConnId,
    lines: VecDeque<Typed>,
    typed: u64,
    /// Something may have changed, so that lines are offered.
    ready: bool,
    ended: bool,
    ended_told: bool,
    taken: u64,
    sent: u64,
    /// The last piece that is longer than the queue may be: the count of bytes at its end, and its length.
    long: (u64, u64),
    reader: Reader,
    deadline: Option<Instant>,
    max_line: usize,
    closing: bool,
}

pub struct World {
    rng: Rng,
    core: Core,
    oracle: Oracle,
    backend: Backend,
    people: People,
    settings: Settings,
    conns: BTreeMap<u32, Conn>,
    generations: Vec<u32>,
    blocks: Vec<AddressBlock>,
    measures: Vec<Ticket>,
    start: Instant,
    elapsed: Duration,
    /// How far the clock on the wall is from where it would be.
    clock_off_ms: i64,
    trace: Trace,
    concerned: Vec<ConnId>,
    /// Reads and commits may fail.
    faults: bool,
    retention: bool,
    /// One read in so many fails.
    unreadable: usize,
}

impl World {
    /// `story` remembers what happens.
    pub fn new(mut rng: Rng, story: bool) -> World {
        // In some worlds most lines are of programs that encrypt, and fewer people have more of them.
        let programs = if rng.one_in(3) { 70 } else { 10 };
        let retention = rng.one_in(6);
        let throttled = rng.one_in(4);
        let settings = Settings {
            server_name: "sim".to_owned(),
            registration: Registration::Open,
            sessions_per_account: if programs > 50 { 4 } else { rng.within(1, 4) },
            messages_per_second: if throttled { 10 } else { 0 },
            message_burst: 30,
            logins_per_minute: if throttled { 10 } else { 0 },
            registrations_per_hour: if throttled { 20 } else { 0 },
            login_timeout: Some(Duration::from_secs(120)),
            idle_timeout: rng.one_in(3).then_some(Duration::from_secs(300)),
            outbound_bytes: if rng.one_in(5) { 262_144 } else { 65_536 },
            retention_days: retention.then_some(1),
            max_file: 1 << 30,
            file_limits: downstream::ops::FileLimits { quota: None, total: None },
            partial_hours: None,
            file_days: None,
        };
        let unreadable = if rng.one_in(4) { 8 } else { 200 };
        let accounts = if programs > 50 { rng.within(2, 6) } else { rng.within(6, 24) };
        let rooms = rng.within(2, if programs > 50 { 3 } else { 10 });
        let body_max = if rng.one_in(2) { 98_304 } else { 20_000 };
        let mut chance = Rng::new(rng.next());
        let random = Box::new(move |bytes: &mut [u8]| {
            bytes.iter_mut().for_each(|byte| *byte = chance.next() as u8);
            Ok(())
        });
        let start = Instant::now();
        let now = Now { monotonic: start, wall: Timestamp::from_millis(START_MS) };
        let mut world = World {
            core: Core::new(settings.clone(), Vec::new(), random, now),
            rng,
            oracle: Oracle::default(),
            backend: Backend::new(),
            people: People::new(accounts, rooms, body_max, programs),
            settings,
            conns: BTreeMap::new(),
            generations: Vec::new(),
            blocks: Vec::new(),
            measures: Vec::new(),
            start,
            elapsed: Duration::ZERO,
            clock_off_ms: 0,
            trace: Trace::new(story),
            concerned: Vec::new(),
            faults: true,
            retention,
            unreadable,
        };
        let settings = format!("{:?}", world.settings);
        world.trace.note(None, format_args!("{settings}"));
        world
    }

    /// What the next step draws.
    pub fn script(&mut self, bytes: &[u8]) {
        self.rng.follow(bytes);
    }

    fn now(&self) -> Now {
        let wall = (START_MS + self.elapsed.as_millis() as u64).saturating_add_signed(self.clock_off_ms);
        Now { monotonic: self.start + self.elapsed, wall: Timestamp::from_millis(wall) }
    }

    /// Ends the run where something is wrong.
    fn check(&mut self, conn: Option<ConnId>, result: Result<(), String>) {
        if let Err(why) = result {
            self.concerned = conn.into_iter().collect();
            let conn = conn.map(|conn| conn.to_string()).unwrap_or_default();
            panic!("step {}, connection {conn}: {why}", self.trace.step);
        }
    }

    /// What to print where the run ended early.
    pub fn story(&self) -> String {
        self.trace.show(&self.concerned)
    }

    /// A digest of everything that came out, to compare two runs of a seed.
    pub fn fingerprint(&self) -> (u64, u64, u64) {
        (self.oracle.model.index, self.oracle.delivered, self.core.hub().sessions().map(|session| session.sent).sum())
    }

    // ---- the core ----------------------------------------------------------------------------------

    fn handle(&mut self, conn: Option<ConnId>, input: Input<'_>) {
        let mut effects = Vec::new();
        self.concerned = conn.into_iter().collect();
        let now = self.now();
        self.core.handle(input, now, &mut effects);
        for effect in effects {
            self.execute(conn, effect);
        }
        for ticket in std::mem::take(&mut self.measures) {
            self.handle(conn, Input::Measured(ticket, Gauges::default()));
        }
    }

    fn execute(&mut self, owner: Option<ConnId>, effect: Effect) {
        let owner = match &effect {
            Effect::Persist(ticket, _) | Effect::Ask(ticket, _) | Effect::Hash(ticket, _) => {
                self.core.asker(*ticket).or(owner)
            }
            _ => owner,
        };
        match effect {
            Effect::Send(id, bytes) => self.queue(id, &bytes),
            Effect::Fanout(ids, lines) => {
                for id in ids {
                    self.live(id, &lines);
                    self.queue(id, &lines);
                }
            }
            Effect::Persist(ticket, op) => {
                let submitted = self.oracle.submitted(owner, &op);
                self.trace.note(owner, format_args!("persist {op:?}"));
                self.check(owner, submitted);
                self.backend.writes.push_back(Write { ticket, owner, now: self.now().wall, op });
            }
            Effect::Ask(ticket, query) => {
                self.trace.note(owner, format_args!("ask {query:?}"));
                self.backend.reads.push_back(Read { ticket, owner, what: query });
            }
            Effect::Hash(ticket, op) => self.backend.hashes.push_back(Read { ticket, owner, what: op }),
            Effect::Measure(ticket) => self.measures.push(ticket),
            Effect::Deadline(id, at) => {
                if let Some(conn) = self.conn(id) {
                    conn.deadline = at;
                }
            }
            Effect::MaxLine(id, bytes) => {
                if let Some(conn) = self.conn(id) {
                    conn.max_line = bytes;
                }
            }
            Effect::Resume(id) => {
                if let Some(conn) = self.conn(id) {
                    conn.ready = true;
                }
            }
            Effect::Close(id) => {
                self.trace.note(Some(id), format_args!("close"));
                self.oracle.closing(id);
                if let Some(conn) = self.conn(id) {
                    conn.closing = true;
                    conn.lines.clear();
                }
            }
            Effect::Blocked(blocks) => self.blocks = blocks,
            Effect::ShutDown => {} // the loop would; here the schedule does, at the end
        }
    }

    fn conn(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.conns.get_mut(&id.slot).filter(|conn| conn.id == id)
    }

    /// A message that comes by itself fits into the queue, or finds it empty; what was held while a page was read back
    /// comes behind that page, which may be one long message.
    fn live(&mut self, id: ConnId, bytes: &[u8]) {
        let limit = self.settings.outbound_bytes as u64;
        let queued = self.conn(id).map_or(0, |conn| conn.sent - conn.taken);
        if bytes.starts_with(b"* msg ") && queued > 0 && queued + bytes.len() as u64 > limit + MAX_BODY as u64 {
            self.check(Some(id), Err(format!("a message behind {queued} bytes")));
        }
    }

    fn queue(&mut self, id: ConnId, bytes: &[u8]) {
        self.trace.note(Some(id), format_args!("< {}", String::from_utf8_lossy(bytes).trim_end()));
        let judged = self.oracle.queued(id, bytes);
        self.check(Some(id), judged);
        let (limit, len) = (self.settings.outbound_bytes as u64, bytes.len() as u64);
        let Some(conn) = self.conn(id) else { return };
        conn.sent += len;
        if len > limit {
            conn.long = (conn.sent, len);
        }
        let queued = conn.sent - conn.taken;
        // What was asked for in one page may be longer than everything else together.
        let unasked = queued - conn.long.0.saturating_sub(conn.taken).min(conn.long.1);
        let within = queued <= limit * 2 + PAGE_BYTES + SLACK && unasked <= limit * 2 + SLACK;
        let kept = if within { Ok(()) } else { Err(format!("{queued} bytes are queued, {unasked} beside a page")) };
        self.check(Some(id), kept);
    }

    // ---- the schedule ------------------------------------------------------------------------------

    pub fn step(&mut self) {
        self.trace.step += 1;
        match self.rng.weighted(&[20, 30, 24, 9, 13, 8, 8, 5, 5, 1, 1, 4, 5, 5, 1, 1, 1]) {
            0 => self.type_lines(),
            1 => self.feed_some(),
            2 => (0..3).for_each(|_| self.flush_some()),
            3 => self.commit(),
            4 => (0..self.rng.within(1, 6)).for_each(|_| self.tell_write()),
            5 => self.read(),
            6 => self.tell_read(),
            7 => self.tell_hash(),
            8 => self.connect(),
            9 => self.disconnect(),
            10 => self.half_close(),
            11 => self.reap(),
            12 => self.pass_time(),
            13 => self.change_reader(),
            14 => self.stall(),
            15 => self.operator_acts(),
            _ => self.rarely(),
        }
        if self.trace.step.is_multiple_of(64) {
            self.inspect();
        }
    }

    /// A connection, by chance; one that is not being closed.
    fn some(&mut self, fits: impl Fn(&Conn) -> bool) -> Option<ConnId> {
        let open: Vec<ConnId> =
            self.conns.values().filter(|conn| !conn.closing && fits(conn)).map(|conn| conn.id).collect();
        self.rng.pick(&open).copied()
    }

    fn type_lines(&mut self) {
        let Some(id) = self.some(|conn| !conn.ended && conn.lines.len() < 100) else { return };
        let somebody = self.oracle.view(id).is_some_and(|view| view.login.is_some());
        let count = if !somebody {
            1
        } else if self.rng.one_in(12) {
            self.rng.within(10, 80)
        } else if self.people.programs > 50 {
            self.rng.within(1, 16)
        } else {
            self.rng.within(1, 3)
        };
        for _ in 0..count {
            let first = self.conn(id).is_some_and(|conn| conn.typed == 0);
            let World { people, rng, oracle, .. } = self;
            let mut typed = people.type_line(rng, id, first, oracle);
            if rng.one_in(GARBLED) {
                typed = people.garble(rng, typed);
            }
            if let Some(conn) = self.conn(id) {
                conn.typed += 1;
                conn.ready = true;
                conn.lines.push_back(typed);
            }
        }
    }

    fn feed_some(&mut self) {
        let most = self.rng.within(1, 12);
        if let Some(id) = self.some(|conn| conn.ready) {
            self.feed(id, most);
        }
    }

    /// Gives the core the lines that it takes.
    fn feed(&mut self, id: ConnId, most: usize) {
        for _ in 0..most {
            let takes = self.core.takes_line(id);
            let Some(conn) = self.conn(id).filter(|conn| !conn.closing) else { return };
            if !takes {
                conn.ready = false;
                return;
            }
            let (max_line, taken) = (conn.max_line, conn.taken);
            let Some(typed) = conn.lines.pop_front() else {
                conn.ready = false;
                if conn.ended && !std::mem::replace(&mut conn.ended_told, true) {
                    self.trace.note(Some(id), format_args!("> (end)"));
                    self.handle(Some(id), Input::Ended(id));
                }
                return;
            };
            let Typed { line, mut given } = typed;
            let line = match line {
                Ok(line) if line.len() >= max_line => {
                    given.iter_mut().for_each(|given| (given.head, given.kind) = ("*".to_owned(), Kind::Other));
                    Err(LineFault::TooLong(max_line))
                }
                Err(LineFault::TooLong(_)) => Err(LineFault::TooLong(max_line)),
                line => line,
            };
            self.trace.note(Some(id), format_args!("> {line:?}"));
            let blank = line.as_ref().is_ok_and(|line| line.trim_start_matches(' ').is_empty());
            self.oracle.given(id, given, line.is_ok() && !blank, taken);
            self.handle(Some(id), Input::Line(id, line.as_deref().map_err(|fault| *fault)));
        }
    }

    fn flush_some(&mut self) {
        let Some(id) = self.conns.values().map(|conn| conn.id).nth(self.rng.below(self.conns.len())) else { return };
        let Some(conn) = self.conn(id) else { return };
        let (queued, reader) = ((conn.sent - conn.taken) as usize, conn.reader);
        let takes = match reader {
            Reader::Fast => queued,
            Reader::Slow(most) => self.rng.below(most + 1).min(queued),
            Reader::Stuck => 0,
        };
        self.flush(id, takes as u64);
    }

    fn flush(&mut self, id: ConnId, takes: u64) {
        if takes == 0 {
            return;
        }
        let took = self.core.takes_line(id);
        let Some(conn) = self.conn(id) else { return };
        conn.taken += takes;
        let (taken, closing) = (conn.taken, conn.closing);
        if !closing {
            self.trace.note(Some(id), format_args!("flushed {taken}"));
            self.handle(Some(id), Input::Flushed(id, taken));
            if !took
                && self.core.takes_line(id)
                && let Some(conn) = self.conn(id)
            {
                conn.ready = true;
            }
        }
    }

    fn commit(&mut self) {
        if self.backend.writes.is_empty() {
            return;
        }
        let count = self.rng.within(1, self.backend.writes.len().min(40));
        let lost = self.faults && self.rng.one_in(40);
        self.backend.engine.begin().expect("no batch is open");
        let mut batch = Vec::new();
        for Write { ticket, owner, now, op } in self.backend.writes.drain(..count) {
            let result = self.backend.engine.apply(now, &op);
            batch.push(Written { ticket, owner, op, result });
        }
        if lost {
            self.backend.engine.rollback();
            batch.iter_mut().for_each(|written| written.result = Err(Refused::Internal));
        } else {
            self.backend.engine.commit().expect("a batch is open");
        }
        for written in batch {
            let (op, result) = (&written.op, &written.result);
            self.trace.note(written.owner, format_args!("{} {op:?}: {result:?}", if lost { "lost" } else { "stored" }));
            if lost {
                if let Op::AutoAck { account, .. } = written.op {
                    self.oracle.unlucky.insert(account);
                }
            } else {
                let judged = self.oracle.committed(&written, &self.backend.passwords);
                self.check(written.owner, judged);
                self.renamed(&written);
            }
            self.backend.written.push_back(written);
        }
    }

    /// The name of an erased account is taken for ever: somebody else comes instead.
    fn renamed(&mut self, written: &Written) {
        if let (Op::Unregister { account, .. }, Ok(_)) = (&written.op, &written.result) {
            let name = self.oracle.model.accounts.get(account).map(|account| account.name.clone());
            let fresh = format!("n{}", self.trace.step);
            for known in self.people.names.iter_mut().filter(|known| Some(&**known) == name.as_ref()) {
                known.clone_from(&fresh);
            }
        }
    }

    fn tell_write(&mut self) {
        let Some(Written { ticket, owner, op, result }) = self.backend.written.pop_front() else { return };
        self.trace.note(owner, format_args!("answer to {op:?}"));
        self.oracle.telling(owner, &op, &result);
        self.handle(owner, Input::Stored(ticket, Done::Op(result.clone())));
        self.oracle.told(&op, &result);
        for (name, token) in std::mem::take(&mut self.oracle.tokens) {
            self.people.secrets.entry(name).or_default().push(token);
        }
    }

    fn read(&mut self) {
        let Some(Read { ticket, owner, what }) = self.backend.reads.pop_front() else { return };
        let fails = self.faults && self.rng.one_in(self.unreadable);
        let answer = if fails { Err(Refused::Internal) } else { self.backend.engine.answer(&what) };
        if let Ok(answer) = &answer {
            let judged = self.oracle.looked_up(owner, &what, answer);
            self.check(owner, judged);
        }
        self.backend.answers.push_back(Read { ticket, owner, what: Done::Query(answer) });
    }

    fn tell_read(&mut self) {
        let Some(Read { ticket, owner, what }) = self.backend.answers.pop_front() else { return };
        self.trace.note(owner, format_args!("answer to a read: {what:?}"));
        self.handle(owner, Input::Stored(ticket, what));
    }

    fn tell_hash(&mut self) {
        let at = self.rng.below(self.backend.hashes.len());
        let Some(Read { ticket, owner, what }) = self.backend.hashes.remove(at) else { return };
        let upgrade = self.rng.one_in(10);
        let done = self.backend.hash(what, upgrade);
        self.trace.note(owner, format_args!("hashed {done:?}"));
        self.handle(owner, Input::Hashed(ticket, done));
    }

    fn connect(&mut self) {
        if self.conns.len() < if self.people.programs > 50 { CONNECTIONS_OF_PROGRAMS } else { CONNECTIONS } {
            let address = IpAddr::from(Ipv4Addr::new(192, 0, 2, self.rng.below(30) as u8));
            if !self.blocks.iter().any(|block| block.contains(address)) {
                self.open(address);
            }
        }
    }

    fn open(&mut self, address: IpAddr) -> ConnId {
        let slot = (0..).find(|slot| !self.conns.contains_key(slot)).unwrap_or_default();
        if self.generations.len() <= slot as usize {
            self.generations.resize(slot as usize + 1, 0);
        }
        let id = ConnId { slot, generation: self.generations[slot as usize] };
        let reader = self.reader();
        let certificate = self.rng.one_in(4).then(|| Sha256([self.rng.below(5) as u8; 32]));
        self.conns.insert(
            slot,
            Conn {
                id,
                lines: VecDeque::new(),
                typed: 0,
                ready: true,
                ended: false,
                ended_told: false,
                taken: 0,
                sent: 0,
                long: (0, 0),
                reader,
                deadline: None,
                max_line: 4096,
                closing: false,
            },
        );
        self.trace.note(Some(id), format_args!("opened from {address}"));
        self.oracle.opened(id);
        self.handle(Some(id), Input::Opened(id, Peer { address, tls: "1.3", certificate }));
        id
    }

    fn closed(&mut self, id: ConnId) {
        self.conns.remove(&id.slot);
        self.generations[id.slot as usize] += 1;
        self.oracle.views.remove(&id);
        self.trace.note(Some(id), format_args!("closed"));
        self.handle(Some(id), Input::Closed(id));
    }

    fn disconnect(&mut self) {
        if let Some(id) = self.some(|_| true) {
            self.closed(id);
        }
    }

    fn half_close(&mut self) {
        if self.rng.one_in(2)
            && let Some(id) = self.some(|conn| !conn.ended)
            && let Some(conn) = self.conn(id)
        {
            conn.ended = true;
            conn.ready = true;
        }
    }

    /// Frees a connection that is being closed.
    fn reap(&mut self) {
        let closing: Vec<ConnId> = self.conns.values().filter(|conn| conn.closing).map(|conn| conn.id).collect();
        if let Some(id) = self.rng.pick(&closing).copied() {
            self.closed(id);
        }
    }

    fn reader(&mut self) -> Reader {
        match self.rng.below(10) {
            0 => Reader::Stuck,
            1..4 => Reader::Slow(self.rng.within(10, 20_000)),
            _ => Reader::Fast,
        }
    }

    fn change_reader(&mut self) {
        // Often the one that is furthest behind reads again.
        let fullest = self.conns.values().filter(|conn| !conn.closing).max_by_key(|conn| conn.sent - conn.taken);
        let fullest = fullest.map(|conn| conn.id);
        if self.rng.one_in(2) {
            if let Some(conn) = fullest.and_then(|id| self.conn(id)) {
                conn.reader = Reader::Fast;
            }
            return;
        }
        let reader = self.reader();
        if let Some(id) = self.some(|_| true)
            && let Some(conn) = self.conn(id)
        {
            conn.reader = reader;
        }
    }

    fn pass_time(&mut self) {
        let ms = match self.rng.below(200) {
            0 => self.rng.below(400_000),
            1..10 => self.rng.below(5000),
            _ => self.rng.below(40),
        };
        let day = if self.retention && self.rng.one_in(400) { 13 * 3600 * 1000 } else { 0 };
        self.elapsed += Duration::from_millis((ms + day) as u64);
        let now = self.now().monotonic;
        let due: Vec<ConnId> =
            self.conns.values().filter(|conn| conn.deadline.is_some_and(|at| at <= now)).map(|conn| conn.id).collect();
        for id in due {
            if let Some(conn) = self.conn(id) {
                conn.deadline = None;
            }
            self.trace.note(Some(id), format_args!("expired"));
            self.handle(Some(id), Input::Expired(id, Expiry::Session));
        }
    }

    /// Somebody reads nothing for too long, or does not finish a line.
    fn stall(&mut self) {
        let expiry = if self.rng.one_in(6) { Expiry::Line } else { Expiry::Stalled };
        let stuck = |conn: &Conn| conn.sent > conn.taken || expiry == Expiry::Line;
        if let Some(id) = self.some(stuck) {
            self.trace.note(Some(id), format_args!("expired {expiry:?}"));
            self.handle(Some(id), Input::Expired(id, expiry));
        }
    }

    fn operator_acts(&mut self) {
        let accounts: Vec<_> = self.oracle.model.accounts.keys().copied().collect();
        let Some(account) = self.rng.pick(&accounts).copied() else { return };
        let change = match self.rng.below(20) {
            0 => OutsideChange::EndSessions(account),
            1 => return self.delete(account),
            n => OutsideChange::Admin(account, n % 3 != 0),
        };
        self.trace.note(None, format_args!("{change:?}"));
        self.handle(None, Input::Outside(change));
    }

    /// The operator deletes an account beside the daemon: the change lies behind all that was answered
    /// before, and in front of everything that comes.
    fn delete(&mut self, account: downstream::ops::AccountId) {
        let epoch = self.oracle.model.accounts.get(&account).map_or(0, |account| account.passwords.len() as i64);
        let op = Op::Unregister { account, epoch };
        if !self.rng.one_in(4) || !self.backend.written.is_empty() {
            return;
        }
        let result = self.backend.engine.apply(self.now().wall, &op);
        let written = Written { ticket: Ticket(0), owner: None, op, result };
        let judged = self.oracle.committed(&written, &self.backend.passwords);
        self.check(None, judged);
        self.renamed(&written);
        if let Ok(Outcome::Unregistered(rooms)) = &written.result {
            self.trace.note(None, format_args!("deleted {account:?}"));
            self.handle(None, Input::Outside(OutsideChange::Deleted(account, rooms.clone())));
            self.oracle.told(&written.op, &written.result);
        }
    }

    fn rarely(&mut self) {
        match self.rng.below(8) {
            0 => self.handle(None, Input::Tick),
            1 => {
                self.settings.sessions_per_account = self.rng.within(1, 4);
                self.settings.registration = if self.rng.one_in(5) { Registration::Invite } else { Registration::Open };
                let settings = self.settings.clone();
                self.trace.note(None, format_args!("{settings:?}"));
                self.handle(None, Input::Reloaded(settings));
            }
            2 => {
                let share = self.rng.below(2001) as i64 - 1000;
                self.clock_off_ms = CLOCK_JUMP_MS / 1000 * share;
                self.trace.note(None, format_args!("the clock is {} ms off", self.clock_off_ms));
            }
            3 => self.stray(),
            _ => {}
        }
    }

    /// What comes too late concerns nobody: an answer that was given, a connection that is gone.
    fn stray(&mut self) {
        let slot = self.rng.below(self.generations.len() + 1) as u32;
        let generation = self.generations.get(slot as usize).map_or(0, |next| next.wrapping_sub(1));
        let gone = ConnId { slot, generation };
        let input = match self.rng.below(7) {
            0 => Input::Closed(gone),
            1 => Input::Ended(gone),
            2 => Input::Flushed(gone, 1 << 40),
            3 => Input::Expired(gone, Expiry::Session),
            4 => Input::Expired(gone, Expiry::Stalled),
            5 => Input::Line(gone, Ok("/msg u0 from nowhere")),
            _ => Input::Stored(Ticket(u64::MAX), Done::Op(Err(Refused::Internal))),
        };
        if self.conns.get(&slot).is_some_and(|conn| conn.id == gone) {
            return;
        }
        let (said, mut effects) = (format!("{input:?}"), Vec::new());
        self.core.handle(input, self.now(), &mut effects);
        let quiet = if effects.is_empty() { Ok(()) } else { Err(format!("{said}: {effects:?}")) };
        self.check(None, quiet);
    }

    // ---- looking at the whole ----------------------------------------------------------------------

    /// The core's mirror against what it was told, and what it holds against what is under way.
    fn inspect(&mut self) {
        let hub = self.core.hub();
        let mut wrong = Ok(());
        for (id, account) in &self.oracle.model.accounts {
            let Some(online) = hub.online(*id) else { continue };
            let known: Vec<_> = self.oracle.model.known_of(*id).map(|(room, _)| room).collect();
            let mut rooms = online.rooms.clone();
            rooms.sort();
            if rooms != known {
                wrong = Err(format!("{} is mirrored in {rooms:?}, and is in {known:?}", account.name));
            }
            for room in known {
                let sessions = hub.room(room).map(|room| &room.sessions);
                if !online.sessions.iter().all(|conn| sessions.is_some_and(|sessions| sessions.contains(conn))) {
                    wrong = Err(format!("a session of {} is missing in {room:?}", account.name));
                }
            }
        }
        if let Some(ghost) = hub.sessions().find(|session| session.closing && session.member().is_some()) {
            wrong = Err(format!("connection {} is being closed, and logged in", ghost.conn));
        }
        if hub.sessions().count() != self.conns.len() || hub.online_count() > self.conns.len() {
            wrong = Err(format!("{} sessions of {} connections", hub.sessions().count(), self.conns.len()));
        }
        if self.core.waiting() != self.backend.outstanding() {
            wrong = Err(format!("{} tickets of {}", self.core.waiting(), self.backend.outstanding()));
        }
        self.check(None, wrong);
    }

    /// Lets everything come to its end: everybody reads, the store answers, nothing fails.
    pub fn quiesce(&mut self) {
        self.trace.note(None, format_args!("to the end of what is under way"));
        let faults = std::mem::replace(&mut self.faults, false);
        let mut rounds = 0;
        loop {
            let before = self.trace.step;
            while self.backend.outstanding() > 0 {
                self.commit();
                while !self.backend.written.is_empty() {
                    self.tell_write();
                }
                self.read();
                self.tell_read();
                self.tell_hash();
                self.trace.step += 1;
            }
            for id in self.conns.values().map(|conn| conn.id).collect::<Vec<_>>() {
                let Some(conn) = self.conn(id) else { continue };
                let (queued, closing, ready) = (conn.sent - conn.taken, conn.closing, conn.ready);
                if queued > 0 || closing || ready {
                    self.trace.step += 1;
                    self.flush(id, queued);
                    self.feed(id, 1000);
                }
                if closing {
                    self.closed(id);
                }
            }
            rounds += 1;
            assert!(rounds < 1_000_000, "it never ends");
            if self.trace.step == before {
                break;
            }
        }
        self.faults = faults;
        self.inspect();
        for id in self.conns.values().map(|conn| conn.id).collect::<Vec<_>>() {
            let complete = self.oracle.complete(id);
            self.check(Some(id), complete);
            let waiting = self.conn(id).is_some_and(|conn| !conn.lines.is_empty());
            let asleep = if waiting { Err("lines wait, and nothing will wake them".to_owned()) } else { Ok(()) };
            self.check(Some(id), asleep);
        }
    }

    /// Everybody types two more lines, which show that all was read: the second where the first of
    /// another session has closed a gap.
    pub fn acknowledge(&mut self) {
        for _ in 0..2 {
            for id in self.conns.values().filter(|conn| !conn.ended).map(|conn| conn.id).collect::<Vec<_>>() {
                let typed = self.people.labelled("ping", "", Kind::Other);
                if let Some(conn) = self.conn(id) {
                    conn.lines.push_back(typed);
                    conn.ready = true;
                }
            }
            self.quiesce();
        }
        for id in self.conns.values().map(|conn| conn.id).collect::<Vec<_>>() {
            let acknowledged = self.oracle.acknowledged(id);
            self.check(Some(id), acknowledged);
        }
    }

    /// All connections end: the core must be as empty as it was.
    fn all_gone(&mut self) {
        for id in self.conns.values().map(|conn| conn.id).collect::<Vec<_>>() {
            self.closed(id);
        }
        self.quiesce();
        let hub = self.core.hub();
        let left = (hub.sessions().count(), hub.online_count(), hub.active_rooms(), hub.watched(), self.core.waiting());
        let empty = if left == (0, 0, 0, 0, 0) { Ok(()) } else { Err(format!("left behind: {left:?}")) };
        self.check(None, empty);
    }

    /// The end: everybody goes, comes back to see what is unread, and the server shuts down.
    pub fn finish(&mut self) {
        self.quiesce();
        self.acknowledge();
        self.all_gone();
        self.elapsed += Duration::from_secs(3700); // behind every throttle
        self.settings.sessions_per_account = 4;
        self.handle(None, Input::Reloaded(self.settings.clone()));
        let accounts: Vec<_> =
            self.oracle.model.accounts.values().filter(|account| !account.erased && !account.banned).collect();
        let last = |account: &&super::model::Account| {
            let secret = account.passwords.last().map(|(_, password)| password.clone()).unwrap_or_default();
            (account.name.clone(), secret)
        };
        let accounts: Vec<(String, String)> = accounts.iter().map(last).collect();
        for (n, (name, secret)) in accounts.iter().enumerate() {
            let id = self.open(IpAddr::from(Ipv4Addr::new(198, 51, 100, n as u8)));
            let typed = self.people.enter_as(name, secret);
            if let Some(conn) = self.conn(id) {
                conn.lines.push_back(typed);
            }
            self.feed(id, 1);
        }
        self.quiesce();
        for id in self.conns.values().map(|conn| conn.id).collect::<Vec<_>>() {
            let entered = self.oracle.view(id).is_some_and(|view| view.login.as_ref().is_some_and(|login| login.ready));
            let entered = if entered { Ok(()) } else { Err("a login at the end failed".to_owned()) };
            self.check(Some(id), entered);
        }
        self.shut_down();
        self.all_gone();
    }

    fn shut_down(&mut self) {
        self.trace.note(None, format_args!("shutting down"));
        self.type_lines();
        self.handle(None, Input::ShuttingDown);
        let ids: Vec<ConnId> = self.conns.values().map(|conn| conn.id).collect();
        for conn in self.conns.values_mut() {
            conn.ended = true;
            conn.ready = true;
        }
        // What was typed is still answered; then everybody is told.
        for _ in 0..200 {
            self.commit();
            while !self.backend.written.is_empty() {
                self.tell_write();
            }
            self.read();
            self.tell_read();
            self.tell_hash();
            for id in &ids {
                let queued = self.conn(*id).map_or(0, |conn| conn.sent - conn.taken);
                self.flush(*id, queued);
                self.feed(*id, 1000);
            }
        }
        for id in ids {
            let told = self.oracle.view(id).is_some_and(|view| view.closing && view.bye.is_some());
            let quit = self.oracle.view(id).is_some_and(|view| view.closing && view.expected.is_empty());
            let ended = if told || quit { Ok(()) } else { Err("not told of the end".to_owned()) };
            self.check(Some(id), ended);
        }
    }
}

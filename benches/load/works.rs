//! What the servers are made to do.

use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::Failure;
use crate::fleet::{Fleet, Says};
use crate::report::Figures;
use crate::servers::{Kind, Pair, Server, cpu};

/// Clients in the middle of connecting at once: below every server's backlog.
const AT_ONCE: usize = 32;
/// What a message says: 128 bytes.
const BODY: [u8; 128] = [b'x'; 128];
/// How long a set-up may take.
const SETUP: Duration = Duration::from_secs(60);
/// How long a fixed amount of work may take.
const WORK: Duration = Duration::from_secs(120);
/// Before measuring.
const WARM: Duration = Duration::from_millis(400);

/// Messages of a page.
pub(crate) const PAGE: usize = 1000;

pub(crate) fn body() -> &'static str {
    std::str::from_utf8(&BODY).unwrap_or_default()
}

/// Accounts of DownStream, made once and copied for each work.
pub(crate) struct Accounts {
    tokens: Vec<String>,
}

impl Accounts {
    /// Registers `count` people, `u0` on, in the data directory under `dir`.
    pub(crate) fn make(dir: &Path, pair: &Pair, count: usize) -> Result<Accounts, Failure> {
        let server = Server::start(Kind::Downstream, dir, pair)?;
        let mut fleet = Fleet::new(server.address)?;
        let mut tokens = vec![String::new(); count];
        let mut begun = 0;
        let mut done = 0;
        while done < count {
            while begun < count && begun - done < AT_ONCE {
                let index = fleet.connect()?;
                fleet.say(index, &format!("/register u{index} password-of-{index}\n"))?;
                begun += 1;
            }
            let mut ended = Vec::new();
            fleet.turn(&mut |index, line, says| {
                let line = String::from_utf8_lossy(line);
                if line.starts_with("OK register") {
                    says.push((index, "/token bench\n".to_owned()));
                } else if let Some((_, token)) = line.split_once(" token=") {
                    tokens[index] = token.split(' ').next().unwrap_or_default().to_owned();
                    ended.push(index);
                } else if line.starts_with("ERR") {
                    eprintln!("{line}");
                }
            })?;
            done += ended.len();
            ended.into_iter().for_each(|index| fleet.close(index));
        }
        Ok(Accounts { tokens })
    }
}

/// A started server, for one work.
pub(crate) struct Stage<'a> {
    pub(crate) server: &'a Server,
    pub(crate) accounts: &'a Accounts,
}

impl Stage<'_> {
    fn kind(&self) -> Kind {
        self.server.kind
    }

    /// What a client says first.
    fn hello(&self, who: usize, room: usize) -> String {
        match self.kind() {
            Kind::Bare => format!("JOIN r{room}\n"),
            Kind::Downstream => format!("/login u{who} {}\n", self.accounts.tokens[who]),
            Kind::Inspircd | Kind::Ngircd => format!("NICK u{who}\r\nUSER u{who} 0 * :bench\r\n"),
        }
    }

    fn is_welcome(&self, line: &[u8]) -> bool {
        match self.kind() {
            Kind::Bare => line == b"OK",
            Kind::Downstream => line.starts_with(b"OK login"),
            Kind::Inspircd | Kind::Ngircd => command(line) == b"001",
        }
    }

    /// How a room is entered; the bare server has done so.
    fn join(&self, room: usize) -> Option<String> {
        match self.kind() {
            Kind::Bare => None,
            Kind::Downstream => Some(format!("/join #r{room}\n")),
            Kind::Inspircd | Kind::Ngircd => Some(format!("JOIN #r{room}\r\n")),
        }
    }

    fn is_joined(&self, line: &[u8]) -> bool {
        match self.kind() {
            Kind::Bare => false,
            Kind::Downstream => line.starts_with(b"OK join"),
            Kind::Inspircd | Kind::Ngircd => command(line) == b"366",
        }
    }

    pub(crate) fn message(&self, room: usize) -> String {
        match self.kind() {
            Kind::Bare => format!("{}\n", body()),
            Kind::Downstream => format!("/msg #r{room} {}\n", body()),
            Kind::Inspircd | Kind::Ngircd => format!("PRIVMSG #r{room} :{}\r\n", body()),
        }
    }

    pub(crate) fn is_delivery(&self, line: &[u8]) -> bool {
        match self.kind() {
            Kind::Bare => line.len() == BODY.len(),
            Kind::Downstream => line.starts_with(b"* msg "),
            Kind::Inspircd | Kind::Ngircd => command(line) == b"PRIVMSG",
        }
    }

    /// Connects `count` clients and waits until each is logged in and, if `rooms` says so, in the room of
    /// its number. Their indices are 0 to `count`.
    pub(crate) fn arrive(
        &self,
        fleet: &mut Fleet,
        count: usize,
        rooms: Option<&dyn Fn(usize) -> usize>,
    ) -> Result<(), Failure> {
        let (mut begun, mut done) = (0, 0);
        // InspIRCd welcomes people once a second.
        let at_once = if self.kind() == Kind::Inspircd { 8 * AT_ONCE } else { AT_ONCE };
        let start = Instant::now();
        while done < count {
            if start.elapsed() > SETUP {
                return Err(format!("{}: {done} of {count} logged in", self.kind().name()).into());
            }
            while begun < count && begun - done < at_once {
                let index = fleet.connect()?;
                let room = rooms.map_or(index, |rooms| rooms(index));
                fleet.say(index, &self.hello(index, room))?;
                begun += 1;
            }
            let mut failed = None;
            fleet.turn(&mut |index, line, says| {
                if self.is_welcome(line) {
                    match rooms.and_then(|rooms| self.join(rooms(index))) {
                        Some(join) => says.push((index, join)),
                        None => done += 1,
                    }
                } else if self.is_joined(line) {
                    done += 1;
                } else if line.starts_with(b"PING") {
                    let pong = String::from_utf8_lossy(line).replacen("PING", "PONG", 1);
                    says.push((index, format!("{}\r\n", pong.trim_end())));
                } else if line.starts_with(b"ERR") {
                    failed = Some(String::from_utf8_lossy(line).into_owned());
                }
            })?;
            if let Some(line) = failed {
                return Err(format!("{}: {line}", self.kind().name()).into());
            }
        }
        Ok(())
    }

    /// `rooms` rooms of `members`, one sender in each with `window` messages on their way: the next is sent
    /// when the oldest has reached everybody. The time is that from sending to the last receiver. `beside` are
    /// further people, each alone in a room, who say nothing.
    pub(crate) fn rooms(
        &self,
        rooms: usize,
        members: usize,
        window: usize,
        beside: usize,
        length: Duration,
    ) -> Result<Figures, Failure> {
        struct Room {
            message: String,
            sent: VecDeque<Instant>,
            arrived: usize,
        }
        let mut fleet = Fleet::new(self.server.address)?;
        let talking = rooms * members;
        let room = |index| if index < talking { index / members } else { rooms + index };
        self.arrive(&mut fleet, talking + beside, Some(&room))?;
        let mut state: Vec<Room> =
            (0..rooms).map(|room| Room { message: self.message(room), sent: VecDeque::new(), arrived: 0 }).collect();
        for (room, state) in state.iter_mut().enumerate() {
            for _ in 0..window {
                fleet.say(room * members, &state.message)?;
                state.sent.push_back(Instant::now());
            }
        }
        let mut deliveries: u64 = 0;
        let mut times: Vec<Duration> = Vec::new();
        let mut on = |deliveries: &mut u64, times: &mut Vec<Duration>, index: usize, line: &[u8], says: &mut Says| {
            if !self.is_delivery(line) {
                return;
            }
            *deliveries += 1;
            let number = index / members;
            let room = &mut state[number];
            room.arrived += 1;
            if room.arrived == members - 1 {
                room.arrived = 0;
                let now = Instant::now();
                times.extend(room.sent.pop_front().map(|sent| now - sent));
                room.sent.push_back(now);
                says.push((number * members, room.message.clone()));
            }
        };
        let begun = Instant::now();
        while begun.elapsed() < WARM {
            fleet.turn(&mut |index, line, says| on(&mut deliveries, &mut times, index, line, says))?;
        }
        (deliveries, times) = (0, Vec::new());
        let mut meter = Meter::start(self.server, &fleet)?;
        while meter.begun.elapsed() < length {
            fleet.turn(&mut |index, line, says| on(&mut deliveries, &mut times, index, line, says))?;
        }
        meter.stop(self.server, &fleet)?;
        if deliveries == 0 {
            return Err(format!("{}: no message arrived", self.kind().name()).into());
        }
        let mut figures = meter.figures("delivery", deliveries);
        figures.times(&mut times);
        Ok(figures)
    }

    /// `count` people one after the other, a few at once: full handshake, login, gone.
    pub(crate) fn storm(&self, count: usize) -> Result<Figures, Failure> {
        let mut fleet = Fleet::new(self.server.address)?;
        let mut meter = Meter::start(self.server, &fleet)?;
        let (mut begun, mut done) = (0, 0);
        while done < count {
            while begun < count && begun - done < AT_ONCE {
                let index = fleet.connect()?;
                fleet.say(index, &self.hello(index, index))?;
                begun += 1;
            }
            let mut ended = Vec::new();
            fleet.turn(&mut |index, line, _| {
                if self.is_welcome(line) {
                    ended.push(index);
                }
            })?;
            done += ended.len();
            ended.into_iter().for_each(|index| fleet.close(index));
            if meter.begun.elapsed() > WORK {
                return Err(format!("{}: {done} of {count} logins", self.kind().name()).into());
            }
        }
        meter.stop(self.server, &fleet)?;
        Ok(meter.figures("login", count as u64))
    }

    /// Resident memory of `count` people who are logged in and say nothing.
    pub(crate) fn idle(&self, count: usize) -> Result<Figures, Failure> {
        let mut fleet = Fleet::new(self.server.address)?;
        let before = self.server.resident()?;
        self.arrive(&mut fleet, count, None)?;
        // What follows a login is over when nothing has come for a while.
        let quiet = Duration::from_millis(500);
        let mut last = Instant::now();
        while last.elapsed() < quiet {
            let reads = fleet.reads;
            fleet.turn(&mut |_, _, _| {})?;
            if fleet.reads != reads {
                last = Instant::now();
            }
        }
        let after = self.server.resident()?;
        let mut figures = Figures::default();
        figures.set("KiB a session", after.saturating_sub(before) as f64 / 1024.0 / count as f64);
        Ok(figures)
    }

    // ---- what only a server with a store does ------------------------------------------------------

    /// `senders` people write to as many who are not there, each waiting for its `OK`.
    pub(crate) fn offline(&self, senders: usize, length: Duration) -> Result<Figures, Failure> {
        let mut fleet = Fleet::new(self.server.address)?;
        self.arrive(&mut fleet, senders, None)?;
        let lines: Vec<String> = (0..senders).map(|i| format!("/msg u{} {}\n", senders + i, body())).collect();
        let mut sent = vec![Instant::now(); senders];
        for (index, line) in lines.iter().enumerate() {
            fleet.say(index, line)?;
        }
        let mut stored: u64 = 0;
        let mut times = Vec::new();
        let mut on = |stored: &mut u64, times: &mut Vec<Duration>, index: usize, line: &[u8], says: &mut Says| {
            if line.starts_with(b"OK msg") {
                *stored += 1;
                let now = Instant::now();
                times.push(now - std::mem::replace(&mut sent[index], now));
                says.push((index, lines[index].clone()));
            }
        };
        let begun = Instant::now();
        while begun.elapsed() < WARM {
            fleet.turn(&mut |index, line, says| on(&mut stored, &mut times, index, line, says))?;
        }
        (stored, times) = (0, Vec::new());
        let mut meter = Meter::start(self.server, &fleet)?;
        while meter.begun.elapsed() < length {
            fleet.turn(&mut |index, line, says| on(&mut stored, &mut times, index, line, says))?;
        }
        meter.stop(self.server, &fleet)?;
        let mut figures = meter.figures("message", stored.max(1));
        figures.times(&mut times);
        Ok(figures)
    }

    /// Fills a log of `count` messages that somebody has missed, who then comes back: the client that reads.
    fn missed(&self, fleet: &mut Fleet, count: usize) -> Result<usize, Failure> {
        /// Messages on their way while the log is filled: the daemon's own window.
        const WINDOW: usize = 64;
        self.arrive(fleet, 1, None)?;
        let line = format!("/msg u1 {}\n", body());
        let (mut sent, mut stored) = (0, 0);
        while sent < WINDOW.min(count) {
            fleet.say(0, &line)?;
            sent += 1;
        }
        let begun = Instant::now();
        while stored < count {
            fleet.turn(&mut |_, answer, says| {
                if answer.starts_with(b"OK msg") {
                    stored += 1;
                    if sent < count {
                        sent += 1;
                        says.push((0, line.clone()));
                    }
                }
            })?;
            if begun.elapsed() > WORK {
                return Err(format!("{stored} of {count} messages stored").into());
            }
        }
        let reader = fleet.connect()?;
        fleet.say(reader, &format!("/ack manual\n/login u1 {}\n", self.accounts.tokens[1]))?;
        let mut logged_in = false;
        while !logged_in {
            fleet.turn(&mut |_, line, _| logged_in |= line.starts_with(b"OK login"))?;
        }
        Ok(reader)
    }

    /// A log of `count` messages: what its newest page of 100 costs.
    pub(crate) fn history(&self, count: usize) -> Result<Figures, Failure> {
        const PAGES: usize = 500;
        let mut fleet = Fleet::new(self.server.address)?;
        let reader = self.missed(&mut fleet, count)?;
        let ask = "/fetch u0 limit=100\n";
        let mut meter = Meter::start(self.server, &fleet)?;
        fleet.say(reader, ask)?;
        let (mut pages, mut asked, mut times) = (0, Instant::now(), Vec::new());
        while pages < PAGES {
            fleet.turn(&mut |_, line, says| {
                if line.starts_with(b"OK fetch") {
                    pages += 1;
                    let now = Instant::now();
                    times.push(now - std::mem::replace(&mut asked, now));
                    if pages < PAGES {
                        says.push((reader, ask.to_owned()));
                    }
                }
            })?;
            if meter.begun.elapsed() > WORK {
                return Err(format!("{pages} of {PAGES} pages fetched").into());
            }
        }
        meter.stop(self.server, &fleet)?;
        let mut figures = meter.figures("page", PAGES as u64);
        figures.times(&mut times);
        Ok(figures)
    }

    /// How the page behind a message is asked for. The bare server has one page, and never a last one.
    fn ask(&self, after: &str) -> String {
        match self.kind() {
            Kind::Bare => crate::bare::ASK.to_owned(),
            _ => format!("/fetch u0 after={after} limit={PAGE}\n"),
        }
    }

    /// Somebody missed `count` messages and fetches them, a page after the other.
    pub(crate) fn fetch(&self, count: usize) -> Result<Figures, Failure> {
        let mut fleet = Fleet::new(self.server.address)?;
        let reader = if self.kind() == Kind::Bare {
            self.arrive(&mut fleet, 1, None)?;
            0
        } else {
            self.missed(&mut fleet, count)?
        };
        let mut meter = Meter::start(self.server, &fleet)?;
        fleet.say(reader, &self.ask("0"))?;
        let (mut rows, mut last, mut ended) = (0, String::new(), false);
        while !ended {
            fleet.turn(&mut |_, line, says| {
                if let Some(row) = line.strip_prefix(b"- msg ") {
                    rows += 1;
                    let id = row.split(|&byte| byte == b' ').next().unwrap_or_default();
                    last.clear();
                    last.push_str(&String::from_utf8_lossy(id));
                } else if line.starts_with(b"OK fetch") {
                    ended = !holds(line, b"more=yes") || rows >= count;
                    if !ended {
                        says.push((reader, self.ask(&last)));
                    }
                }
            })?;
            if meter.begun.elapsed() > WORK {
                return Err(format!("{rows} of {count} messages fetched").into());
            }
        }
        meter.stop(self.server, &fleet)?;
        if rows != count {
            return Err(format!("{rows} messages fetched, {count} sent").into());
        }
        Ok(meter.figures("message", count as u64))
    }
}

/// Measures between two moments.
pub(crate) struct Meter {
    pub(crate) begun: Instant,
    server: Duration,
    own: Duration,
    reads: u64,
    took: Duration,
}

impl Meter {
    pub(crate) fn start(server: &Server, fleet: &Fleet) -> Result<Meter, Failure> {
        let (server, own) = (server.cpu()?, cpu("/proc/self")?);
        Ok(Meter { begun: Instant::now(), server, own, reads: fleet.reads, took: Duration::ZERO })
    }

    pub(crate) fn stop(&mut self, server: &Server, fleet: &Fleet) -> Result<(), Failure> {
        self.took = self.begun.elapsed();
        self.server = server.cpu()? - self.server;
        self.own = cpu("/proc/self")? - self.own;
        self.reads = fleet.reads - self.reads;
        Ok(())
    }

    /// Between start and stop.
    pub(crate) fn took(&self) -> Duration {
        self.took
    }

    /// `unit` is what is counted.
    pub(crate) fn figures(&self, unit: &str, count: u64) -> Figures {
        let mut figures = Figures::default();
        let (took, count) = (self.took.as_secs_f64(), count as f64);
        figures.set(&format!("CPU us a {unit}"), self.server.as_secs_f64() * 1e6 / count);
        figures.set("a second", count / took);
        figures.set("server CPU share", self.server.as_secs_f64() / took);
        figures.set("generator CPU share", self.own.as_secs_f64() / took);
        figures.set("a read", count / self.reads.max(1) as f64);
        figures
    }
}

/// The second word of a line, which is the command of what an IRC server sends.
fn command(line: &[u8]) -> &[u8] {
    line.split(|&byte| byte == b' ').nth(1).unwrap_or_default()
}

/// Whether `part` stands in the first 160 bytes of a line.
fn holds(line: &[u8], part: &[u8]) -> bool {
    let head = &line[..line.len().min(160)];
    head.windows(part.len()).any(|window| window == part)
}

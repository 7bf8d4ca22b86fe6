//! One connection to a server: opened, asked, listened to, and given up when it is dead.
//!
//! One thread, one socket that never blocks, `poll(2)`. Nothing that a server sends makes this program
//! hold more than the limits of [`dialogue`], or wait longer than the times below.

pub(crate) mod backoff;
mod dialogue;
pub(crate) mod endpoint;
mod known;
pub(crate) mod open;
pub(crate) mod trust;
mod wire;

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use downstream::protocol::answer::SERVER_LINE_MAX;
use downstream::protocol::{Hello, LineFault, LineSplitter, escaped};

use self::dialogue::{Admitted, Dialogue};
use self::wire::{End, Fault, Turn, Wire};
use crate::error::Failure;
use crate::server::{Answer, Lost, Server};

pub(crate) use self::endpoint::Endpoint;
pub(crate) use self::open::OpenError;
pub(crate) use self::trust::{FirstUse, Trust};

/// How long each address of a server may take to answer, and then the handshake with the greeting: patient
/// with a bad line, and short for who waits at a terminal.
pub(crate) const OPEN_TIME: Duration = Duration::from_secs(15);
/// How long a server may be silent, with no byte in either direction, while it owes an answer. The
/// slowest thing it does is to hash a password behind some hundred others.
pub(crate) const SILENCE: Duration = Duration::from_secs(60);
/// How long the next answer may take, whatever else comes meanwhile: eight MiB over the slowest of lines.
/// A server that trickles would otherwise hold a program for ever.
pub(crate) const ANSWER_TIME: Duration = Duration::from_secs(600);
/// After so long without a byte from the server, it is asked whether it is there. A dead one is noticed
/// within two minutes, and routers that forget an idle connection after a few (RFC 5382, REQ-5, asks them
/// for two hours) keep this one.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// How long leaving may take.
pub(crate) const QUIT_TIME: Duration = Duration::from_secs(2);
/// Bytes of commands that wait to be sent; those behind them are made when there is room.
const OUT_MAX: usize = 256 * 1024;

/// A connection, and what is to be shown about it.
#[derive(Debug)]
pub(crate) struct Opened {
    /// The connection.
    pub(crate) connection: Connection,
    /// Set where the server was trusted on first use.
    pub(crate) first_use: Option<FirstUse>,
}

/// Why [`Connection::next_event`] returns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wake {
    /// An event, without its `* `.
    Event(String),
    /// The other descriptor can be read, or has ended.
    Input,
    /// The time has come.
    Deadline,
}

/// A connection to a server that has greeted.
pub(crate) struct Connection {
    endpoint: Endpoint,
    hello: Hello,
    wire: Wire,
    lines: LineSplitter,
    dialogue: Dialogue,
    times: Times,
    /// When the last byte came from the server.
    heard: Instant,
    /// When the last byte went in either direction.
    moved: Instant,
    /// An event was the last thing given: now the others have their turn.
    gave_event: bool,
    /// Why the connection is of no more use.
    fault: Option<String>,
}

/// The times of a connection; tests have shorter ones.
#[derive(Debug, Clone, Copy)]
struct Times {
    silence: Duration,
    answer: Duration,
    keep_alive: Duration,
}

impl Connection {
    /// Connects to a server, judges its certificate and is greeted. Each address of its name has `timeout`
    /// ([`OPEN_TIME`] for people), and then the handshake with the greeting; resolving the name takes what
    /// the system's resolver takes.
    ///
    /// # Errors
    /// [`OpenError`]; nothing was said to the server but TLS.
    pub(crate) fn open(endpoint: &Endpoint, trust: &Trust, timeout: Duration) -> Result<Opened, OpenError> {
        let greeted = open::open(endpoint, trust, timeout)?;
        let now = Instant::now();
        let connection = Connection {
            endpoint: endpoint.clone(),
            dialogue: Dialogue::new(greeted.hello.max_line),
            hello: greeted.hello,
            wire: greeted.wire,
            lines: greeted.lines,
            times: Times { silence: SILENCE, answer: ANSWER_TIME, keep_alive: KEEP_ALIVE },
            heard: now,
            moved: now,
            gave_event: false,
            fault: None,
        };
        Ok(Opened { connection, first_use: greeted.first_use })
    }

    /// How the server greeted: its limits.
    pub(crate) fn hello(&self) -> &Hello {
        &self.hello
    }

    /// From now on events are dropped as they come: for commands that do not look at them, which then need
    /// not be read either however many they are.
    pub(crate) fn ignore_events(&mut self) {
        self.dialogue.ignore_events();
    }

    /// Waits for the next event, for something to read from `also`, or for `deadline`; with none of the
    /// three for ever, as long as the server is there. Events that came earlier come first, but never two
    /// while one of the others is due. A server that is silent is asked with `/ping` whether it is there:
    /// to a session in `/ack auto` that is a line like any other.
    ///
    /// # Errors
    /// [`Lost::Network`]: the connection is of no more use, and every event that came was given.
    pub(crate) fn next_event(&mut self, also: Option<BorrowedFd<'_>>, deadline: Option<Instant>) -> Result<Wake, Lost> {
        let due = |now: Instant| deadline.is_some_and(|deadline| deadline <= now);
        loop {
            if std::mem::take(&mut self.gave_event) {
                if let Some(fd) = also
                    && wire::is_ready(fd).map_err(|fault| self.fail(fault.to_string()))?
                {
                    return Ok(Wake::Input);
                }
                if due(Instant::now()) {
                    return Ok(Wake::Deadline);
                }
            }
            let taken = self.take_lines();
            if let Some(event) = self.dialogue.take_event() {
                self.gave_event = true;
                return Ok(Wake::Event(event));
            }
            taken?;
            self.check_open()?;
            let now = Instant::now();
            if due(now) {
                return Ok(Wake::Deadline);
            }
            let check = self.check_alive(now)?;
            let until = deadline.map_or(check, |deadline| deadline.min(check));
            match self.turn(also, until) {
                Ok(turn) if turn.input => return Ok(Wake::Input),
                // What came before a fault is still given.
                Ok(_) | Err(_) => {}
            }
        }
    }

    /// Says goodbye and leaves, within [`QUIT_TIME`].
    pub(crate) fn quit(mut self) {
        let until = Instant::now() + QUIT_TIME;
        self.dialogue.ignore_events();
        // The server is told; what it makes of that is no longer of interest.
        let _ = self.exchange(&["/quit"], Some(until));
        self.wire.close(until);
    }

    /// Asks whether the server is there when that is due. Answers when to look again.
    fn check_alive(&mut self, now: Instant) -> Result<Instant, Lost> {
        let Times { silence, keep_alive, .. } = self.times;
        if self.dialogue.is_waiting() {
            let end = self.heard.max(self.moved) + silence;
            return if now < end { Ok(end) } else { Err(self.fail("the server does not answer".to_owned())) };
        }
        let next = self.heard + keep_alive;
        if now < next {
            return Ok(next);
        }
        let line = self.dialogue.keep_alive();
        self.wire.send(line);
        self.moved = now;
        Ok(now + silence)
    }

    /// Sends commands, as many at once as there is room for, and takes their answers.
    fn exchange(&mut self, commands: &[&str], until: Option<Instant>) -> Result<Vec<Answer>, Lost> {
        let mut answers = Vec::with_capacity(commands.len());
        let mut commands = commands.iter();
        let mut take = |answer| {
            answers.push(answer);
            Ok(())
        };
        self.pump(&mut || Ok(commands.next()), &mut take, true, until)?;
        Ok(answers)
    }

    /// Sends what `next` makes as there is room for it, and gives `take` the answers as they come; whether it
    /// keeps them decides how much they may be together. After a failure of either, what was sent is answered
    /// first, so that the connection can be used on.
    fn pump<C: AsRef<str>, E: From<Lost>>(
        &mut self,
        next: &mut dyn FnMut() -> Result<Option<C>, E>,
        take: &mut dyn FnMut(Answer) -> Result<(), E>,
        kept: bool,
        until: Option<Instant>,
    ) -> Result<(), E> {
        self.dialogue.begin();
        // Made, and to be judged when what is before it is answered.
        let mut held: Option<C> = None;
        let mut done: Option<Result<(), E>> = None;
        let mut asked = Instant::now();
        self.moved = asked;
        loop {
            if done.is_none() {
                self.check_open()?;
            }
            while done.is_none() && self.dialogue.has_room() && self.wire.queued() < OUT_MAX {
                let command = match held.take().map_or_else(&mut *next, |command| Ok(Some(command))) {
                    Ok(Some(command)) => command,
                    Ok(None) => {
                        done = Some(Ok(()));
                        break;
                    }
                    Err(error) => {
                        done = Some(Err(error));
                        break;
                    }
                };
                match self.dialogue.admit(command.as_ref()) {
                    Admitted::Send(line) => self.wire.send(line),
                    Admitted::Later => {
                        held = Some(command);
                        break;
                    }
                    Admitted::Refused(refusal) => {
                        if let Err(error) = take(Answer { rows: Vec::new(), reply: Err(refusal) }) {
                            done = Some(Err(error));
                        }
                    }
                }
            }
            if !self.dialogue.is_waiting() {
                match done {
                    Some(done) => return done,
                    None if self.wire.queued() < OUT_MAX => continue,
                    // Answered before it was sent: a strange server, and no reason to turn in circles.
                    None => {}
                }
            }
            // What the operating system takes at once makes room for more.
            let stuffed = done.is_none() && self.wire.queued() >= OUT_MAX;
            let waited = match self.flush() {
                Ok(()) if stuffed && self.wire.queued() < OUT_MAX => continue,
                Ok(()) => self.wait_for_answer(asked, until),
                Err(lost) => Err(lost),
            };
            if let Err(lost) = waited {
                return Err(match done {
                    Some(Err(error)) => error,
                    _ => lost.into(),
                });
            }
            while let Some(answer) = self.dialogue.take_answer() {
                asked = Instant::now();
                if !kept {
                    self.dialogue.begin();
                }
                if !matches!(done, Some(Err(_)))
                    && let Err(error) = take(answer)
                {
                    done = Some(Err(error));
                }
            }
        }
    }

    /// Sends and reads once, within the times that an answer may take.
    fn wait_for_answer(&mut self, asked: Instant, until: Option<Instant>) -> Result<(), Lost> {
        self.check_open()?;
        let limit = (self.moved + self.times.silence).min(asked + self.times.answer);
        let limit = until.map_or(limit, |until| until.min(limit));
        if Instant::now() >= limit {
            return Err(self.fail("the server does not answer".to_owned()));
        }
        self.turn(None, limit)?;
        self.take_lines()
    }

    /// Sends what can be sent at once.
    fn flush(&mut self) -> Result<(), Lost> {
        match self.wire.flush() {
            Ok(true) => self.moved = Instant::now(),
            Ok(false) => {}
            Err(fault) => return Err(self.fail(explain(&fault))),
        }
        Ok(())
    }

    /// Waits and reads once.
    fn turn(&mut self, also: Option<BorrowedFd<'_>>, until: Instant) -> Result<Turn, Lost> {
        let turn = match self.wire.turn(also, Some(until), &mut self.lines) {
            Ok(turn) => turn,
            Err(fault) => return Err(self.fail(explain(&fault))),
        };
        let now = Instant::now();
        if turn.heard {
            self.heard = now;
        }
        if turn.heard || turn.sent {
            self.moved = now;
        }
        Ok(turn)
    }

    /// Takes every whole line that has come.
    fn take_lines(&mut self) -> Result<(), Lost> {
        let why = loop {
            match self.lines.next_line() {
                None => return Ok(()),
                Some(Ok(line)) => match self.dialogue.take(line) {
                    Ok(()) => {}
                    Err(why) => break why,
                },
                Some(Err(LineFault::TooLong(max))) => break format!("it sent a line of more than {max} bytes"),
                Some(Err(LineFault::Nul | LineFault::BareCr | LineFault::NotUtf8)) => {
                    break "it sent something that is no line of text".to_owned();
                }
            }
        };
        // Nothing behind such a line means anything.
        self.lines = LineSplitter::new(SERVER_LINE_MAX);
        Err(self.fail(format!("the server does not keep to the protocol: {why}")))
    }

    /// Whether there is still something to wait for.
    fn check_open(&mut self) -> Result<(), Lost> {
        if let Some(why) = &self.fault {
            return Err(Lost::Network(why.clone()));
        }
        let why = match (self.wire.end(), self.dialogue.bye()) {
            (None, _) => return Ok(()),
            (Some(_), Some(bye)) => format!("the server ended it: {bye}"),
            (Some(End::Cleanly), None) => "the server closed it".to_owned(),
            (Some(End::Cut), None) => "it was cut".to_owned(),
        };
        Err(self.fail(why))
    }

    /// Notes that the connection is of no more use.
    fn fail(&mut self, why: String) -> Lost {
        let why = format!("the connection to {} is lost: {why}", self.endpoint);
        self.fault = Some(why.clone());
        Lost::Network(why)
    }
}

fn explain(fault: &Fault) -> String {
    escaped(&fault.to_string())
}

impl Server for Connection {
    fn ask_all(&mut self, commands: &[&str]) -> Result<Vec<Answer>, Lost> {
        self.exchange(commands, None)
    }

    fn stream(
        &mut self,
        next: &mut dyn FnMut() -> Result<Option<String>, Failure>,
        take: &mut dyn FnMut(Answer) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.pump(next, take, false, None)
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("endpoint", &self.endpoint)
            .field("fault", &self.fault)
            .finish_non_exhaustive()
    }
}

// They make certificates, with what the daemon makes its own with.
#[cfg(feature = "daemon")]
#[cfg(test)]
mod tests;

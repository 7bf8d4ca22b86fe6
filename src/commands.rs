//! The core's only entry: an input goes in, effects come out.
//!
//! [`Core::handle`] never blocks, never fails and never panics, whatever a peer sends. It reads no clock
//! and draws no randomness of its own. A command that needs the store or the hasher leaves a [`Pending`]
//! behind under its ticket; the answer finds it again, unless its connection is gone.

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

mod account;
mod admin;
mod login;
mod messages;
mod people;
mod rooms;

use crate::hub::Hub;
use crate::hub::effects::{Effect, Expiry, Gauges, Input, Now};
use crate::hub::settings::Settings;
use crate::hub::throttle::{Network, Throttle};
use crate::ops::{
    AccountId, AddressBlock, Done, HashDone, HashOp, Op, Outcome, OutsideChange, Person, Query, Refused, Ticket,
};
use crate::protocol::request::{Command, ParseError, Sentence};
use crate::protocol::verb::{self, Verb};
use crate::protocol::{Code, Head, Line, LineFault, MAX_BODY, MAX_LINE, MAX_LINE_BEFORE_LOGIN, PROTOCOL, Request};
use crate::session::delivery::Lines;
use crate::session::{ConnId, Peer, State};

/// Passwords in the hasher and its queue at once. At 19 MiB and some 20 ms each this is a second or two
/// of work: whoever comes later is better told to come back.
pub const HASHES_MAX: usize = 64;

/// Bytes that events which may not be dropped can add behind a full queue, in multiples of the outbound
/// limit. Who reads so little that even these pile up is told `too-slow`; the log keeps the messages.
const EVENT_OVERRUN: u64 = 2;

/// Where randomness comes from.
pub type Random = Box<dyn FnMut(&mut [u8]) -> Result<(), RandomFailed>>;

/// The operating system gave no randomness.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the operating system gave no randomness")]
pub struct RandomFailed;

/// A command, or work of the core's own, that waits for an answer.
#[derive(Debug)]
struct Pending {
    /// Whose command it is, if a command waits.
    conn: Option<ConnId>,
    /// Who was logged in there: what is stored for them happens also where the connection is gone.
    me: Option<Person>,
    head: Head,
    wait: Wait,
}

/// What is to be done with the answer.
#[derive(Debug)]
enum Wait {
    Login(login::Wait),
    Account(account::Wait),
    People(people::Wait),
    Rooms(rooms::Wait),
    Messages(messages::Wait),
    Admin(admin::Wait),
    /// Read markers that a line of theirs moved.
    AutoAck(Person),
    /// A page for a session that fell behind, of the login that it belongs to.
    Backlog(u64),
    /// A piece of what was too old was deleted.
    Sweep,
    /// Nobody asked.
    Nothing,
}

/// Counts since the start, for `/admin stats`.
#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    stored: u64,
    delivered: u64,
    logins: u64,
    failed_logins: u64,
}

/// Everything that the server knows and decides. See the module.
pub struct Core {
    hub: Hub,
    throttle: Throttle,
    random: Random,
    blocks: BTreeSet<AddressBlock>,
    pending: HashMap<Ticket, Pending>,
    next_ticket: u64,
    hashing: usize,
    counts: Counts,
    sweeping: bool,
    shutting_down: bool,
    now: Now,
    out: Vec<Effect>,
}

impl Core {
    /// A core in which nobody is here. `blocks` are the addresses that the store knows to be banned.
    pub fn new(settings: Settings, blocks: Vec<AddressBlock>, random: Random, now: Now) -> Core {
        Core {
            hub: Hub::new(settings),
            throttle: Throttle::default(),
            random,
            blocks: blocks.into_iter().collect(),
            pending: HashMap::new(),
            next_ticket: 0,
            hashing: 0,
            counts: Counts::default(),
            sweeping: false,
            shutting_down: false,
            now,
            out: Vec::new(),
        }
    }

    /// Takes one input; what is to be done is appended to `effects`.
    pub fn handle(&mut self, input: Input<'_>, now: Now, effects: &mut Vec<Effect>) {
        self.now = now;
        std::mem::swap(&mut self.out, effects);
        match input {
            Input::Opened(conn, peer) => self.opened(conn, peer),
            Input::Line(conn, line) => self.line(conn, line),
            Input::Ended(conn) => self.ended(conn),
            Input::Flushed(conn, bytes) => self.flushed(conn, bytes),
            Input::Expired(conn, expiry) => self.expired(conn, expiry),
            Input::Closed(conn) => self.closed(conn),
            Input::Stored(ticket, done) => self.stored(ticket, done),
            Input::Hashed(ticket, done) => self.hashed(ticket, done),
            Input::Measured(ticket, gauges) => self.measured(ticket, gauges),
            Input::Outside(change) => self.outside(change),
            Input::Reloaded(settings) => self.hub.settings = settings,
            Input::Tick => self.sweep(),
            Input::ShuttingDown => self.shutting_down = true,
        }
        std::mem::swap(&mut self.out, effects);
    }

    /// Whether the next line of a connection may come: nothing is under way that it would have to wait
    /// for, and what was answered before is being read.
    pub fn takes_line(&self, conn: ConnId) -> bool {
        self.hub.session(conn).is_some_and(|session| {
            session.takes_line()
                && session.queued() <= self.hub.settings.outbound_bytes as u64
                && session.member().is_none_or(|member| member.delivery.takes_own())
        })
    }

    /// Who is here, for tests and simulations.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// How many answers the store, the hasher and the loop still owe.
    pub fn waiting(&self) -> usize {
        self.pending.len()
    }

    // ---- the connection ----------------------------------------------------------------------------

    fn opened(&mut self, conn: ConnId, peer: Peer) {
        self.hub.open(conn, peer);
        let settings = &self.hub.settings;
        let greeting = Line::event("hello")
            .arg(PROTOCOL)
            .key("server", &settings.server_name)
            .key("version", env!("CARGO_PKG_VERSION"))
            .key("max-line", MAX_LINE)
            .key("max-body", MAX_BODY)
            .key("max-file", 0)
            .key("registration", settings.registration.as_str())
            .text("type /help; /register NAME PASSWORD or /login NAME PASSWORD");
        self.send(conn, greeting.finish());
        self.wait_for_login(conn);
    }

    /// Starts the time that a connection has to log in, with the limits of a stranger.
    fn wait_for_login(&mut self, conn: ConnId) {
        let deadline = self.hub.settings.login_timeout.map(|timeout| self.now.monotonic + timeout);
        self.out.push(Effect::Deadline(conn, deadline));
        self.out.push(Effect::MaxLine(conn, MAX_LINE_BEFORE_LOGIN));
    }

    fn wait_for_anything(&mut self, conn: ConnId) {
        let deadline = self.hub.settings.idle_timeout.map(|timeout| self.now.monotonic + timeout);
        self.out.push(Effect::Deadline(conn, deadline));
    }

    fn ended(&mut self, conn: ConnId) {
        if let Some(session) = self.hub.session_mut(conn) {
            session.ended = true;
            self.settle(conn);
        }
    }

    fn expired(&mut self, conn: ConnId, expiry: Expiry) {
        let Some(session) = self.hub.session(conn) else { return };
        let limit = self.hub.settings.outbound_bytes as u64;
        match expiry {
            Expiry::Stalled => {
                let behind = session.member().is_some_and(|member| member.delivery.is_behind());
                if behind || session.queued() > limit {
                    self.bye(conn, "too-slow", Some("nothing was read for too long; your messages are kept"));
                }
            }
            // Its answer is on the way.
            Expiry::Session if session.in_flight > 0 && session.is_ready() => self.wait_for_anything(conn),
            Expiry::Session if session.in_flight > 0 => self.wait_for_login(conn),
            Expiry::Session | Expiry::Line => self.bye(conn, "idle", None),
        }
    }

    fn closed(&mut self, conn: ConnId) {
        self.leave_account(conn);
        self.hub.close(conn);
    }

    /// Ends the session's part in its account: presence, rooms, watching.
    fn leave_account(&mut self, conn: ConnId) {
        if let Some((person, last)) = self.hub.exit(conn)
            && last
        {
            self.persist_quietly(Wait::Nothing, Op::SeenLast { account: person.id });
            self.tell_watchers(&person.name, Line::event("offline").arg(&person.name));
        }
    }

    /// Says goodbye and closes once that was sent.
    fn bye(&mut self, conn: ConnId, reason: &str, text: Option<&str>) {
        if self.hub.session(conn).is_some_and(|session| !session.closing) {
            log::info!("connection {conn}: bye {reason}");
            self.send(conn, Line::event("bye").arg(reason).maybe_text(text).finish());
            self.close(conn);
        }
    }

    fn close(&mut self, conn: ConnId) {
        let Some(session) = self.hub.session_mut(conn) else { return };
        session.closing = true;
        session.parked = None;
        self.leave_account(conn);
        self.out.push(Effect::Close(conn));
    }

    fn is_closing(&self, conn: ConnId) -> bool {
        self.hub.session(conn).is_some_and(|session| session.closing)
    }

    fn flushed(&mut self, conn: ConnId, bytes: u64) {
        if let Some(session) = self.hub.session_mut(conn) {
            session.flushed = bytes.min(session.sent);
            if session.member().is_some_and(|member| member.delivery.is_behind()) {
                self.read_back(conn);
            }
        }
    }

    // ---- sending -----------------------------------------------------------------------------------

    fn send(&mut self, conn: ConnId, bytes: Vec<u8>) {
        if let Some(session) = self.hub.session_mut(conn).filter(|session| !session.closing) {
            session.sent += bytes.len() as u64;
            self.out.push(Effect::Send(conn, bytes));
        }
    }

    /// The one reply to a command.
    fn reply(&mut self, conn: ConnId, line: Line) {
        self.send(conn, line.finish());
    }

    fn ok(&mut self, conn: ConnId, head: &Head) {
        self.reply(conn, Line::ok(head));
    }

    fn error(&mut self, conn: ConnId, head: &Head, code: Code, text: &str) {
        self.reply(conn, Line::err(head, code).text(text));
    }

    /// An event that may not be dropped: a session that reads so little that it does not fit is closed.
    fn event(&mut self, to: &[ConnId], except: Option<ConnId>, line: Line) {
        let limit = self.hub.settings.outbound_bytes as u64 * EVENT_OVERRUN;
        let lines: Lines = line.finish().into();
        let mut due = Vec::with_capacity(to.len());
        let mut slow = Vec::new();
        for &conn in to.iter().filter(|&&conn| Some(conn) != except) {
            let Some(session) = self.hub.session_mut(conn).filter(|session| session.is_ready()) else { continue };
            if session.queued() + lines.len() as u64 > limit {
                slow.push(conn);
            } else {
                session.sent += lines.len() as u64;
                due.push(conn);
            }
        }
        if !due.is_empty() {
            self.out.push(Effect::Fanout(due, lines));
        }
        for conn in slow {
            self.bye(conn, "too-slow", None);
        }
    }

    /// An event of the moment, which a session with a full queue does not get.
    fn ephemeral(&mut self, to: &[ConnId], except: Option<ConnId>, line: Line) {
        let limit = self.hub.settings.outbound_bytes as u64;
        let lines: Lines = Rc::from(line.finish());
        let mut due = Vec::new();
        for &conn in to.iter().filter(|&&conn| Some(conn) != except) {
            let Some(session) = self.hub.session_mut(conn).filter(|session| session.is_ready()) else { continue };
            if session.queued() + lines.len() as u64 <= limit {
                session.sent += lines.len() as u64;
                due.push(conn);
            }
        }
        if !due.is_empty() {
            self.out.push(Effect::Fanout(due, lines));
        }
    }

    fn tell_watchers(&mut self, name: &crate::protocol::UserName, line: Line) {
        let watchers = self.hub.watchers(name);
        if !watchers.is_empty() {
            self.ephemeral(&watchers, None, line);
        }
    }

    // ---- lines -------------------------------------------------------------------------------------

    fn line(&mut self, conn: ConnId, line: Result<&str, LineFault>) {
        let Some(session) = self.hub.session_mut(conn).filter(|session| !session.closing) else { return };
        let first = !std::mem::replace(&mut session.greeted_back, true);
        if matches!(session.state, State::Ready(_)) {
            self.wait_for_anything(conn);
        }
        let sentence = match line {
            Ok(line) if first && is_http(line) => {
                log::info!("connection {conn}: an HTTP request; closed");
                return self.close(conn);
            }
            Ok(line) => Sentence::read(line),
            Err(_) => Sentence::Blank,
        };
        if line.is_ok() {
            if sentence == Sentence::Blank {
                return;
            }
            self.auto_ack(conn);
        }
        let Some(session) = self.hub.session_mut(conn) else { return };
        if session.in_flight == 0 {
            return self.run(conn, line, sentence);
        }
        // Messages may overlap; everything else, and what would be answered at once, waits its turn.
        if !messages::is_append(&sentence) || self.append(conn, &sentence).is_err() {
            let parked = line.map(Box::from);
            if let Some(session) = self.hub.session_mut(conn) {
                session.parked = Some(parked);
            }
        }
    }

    fn run(&mut self, conn: ConnId, line: Result<&str, LineFault>, sentence: Sentence<'_>) {
        match line {
            Err(fault) => self.unreadable(conn, fault),
            Ok(_) if messages::is_append(&sentence) => {
                if let Err(reply) = self.append(conn, &sentence) {
                    self.reply(conn, reply);
                }
            }
            Ok(_) => match sentence {
                Sentence::Command(command) => self.command(conn, &command),
                Sentence::Fault(head, error) => self.reply(conn, fault(&head, &error)),
                Sentence::Blank | Sentence::Text(_) => {}
            },
        }
    }

    /// Answers what could not be a line.
    fn unreadable(&mut self, conn: ConnId, fault: LineFault) {
        let reply = Line::err(&Head::none(), Code::Syntax);
        let reply = match fault {
            LineFault::TooLong(max) => {
                Line::err(&Head::none(), Code::TooLong).key("max", max).text("the line is too long")
            }
            LineFault::Nul => reply.text("the line holds a NUL byte"),
            LineFault::BareCr => reply.text("the line holds a carriage return"),
            LineFault::NotUtf8 => reply.text("the line is not UTF-8"),
        };
        self.reply(conn, reply);
        let stranger = self.hub.session(conn).is_some_and(|session| matches!(session.state, State::Anonymous));
        if stranger && matches!(fault, LineFault::TooLong(_)) {
            self.close(conn);
        }
    }

    /// Moves the read markers over what this session shows to have got.
    fn auto_ack(&mut self, conn: ConnId) {
        let Some(session) = self.hub.session_mut(conn).filter(|session| !session.manual_ack) else { return };
        let flushed = session.flushed;
        let Some(member) = session.member_mut() else { return };
        let marks = member.delivery.read_by_line(flushed);
        if !marks.is_empty() {
            let reader = member.person.clone();
            let account = reader.id;
            self.persist_quietly(Wait::AutoAck(reader), Op::AutoAck { account, marks });
        }
    }

    /// The gate, once for every command; then the arguments; then its handler.
    fn command(&mut self, conn: ConnId, command: &Command<'_>) {
        let head = command.head();
        let Some(session) = self.hub.session(conn) else { return };
        let me = match &session.state {
            State::Ready(member) => Some(member.person.clone()),
            State::Anonymous | State::Authenticating(_) => None,
        };
        if me.is_none() && !command.verb.before_login {
            return self.error(conn, &head, Code::NotLoggedIn, "/login or /register first");
        }
        if me.is_some() && matches!(command.verb.name, "register" | "login" | "takeover") {
            return self.error(conn, &head, Code::AlreadyLoggedIn, "/logout first");
        }
        match command.request() {
            Err(error) => self.reply(conn, fault(&head, &error)),
            Ok(request) => match me {
                Some(me) => self.request(conn, head, me, request),
                None => self.request_of_a_stranger(conn, head, request),
            },
        }
    }

    /// What works without a login.
    fn request_of_a_stranger(&mut self, conn: ConnId, head: Head, request: Request<'_>) {
        match request {
            Request::Help { verb } => self.help(conn, &head, verb.as_deref()),
            Request::Ping { text } => self.reply(conn, Line::ok(&head).maybe_text(text)),
            Request::Version => {
                let line = Line::ok(&head).key("version", env!("CARGO_PKG_VERSION")).key("protocol", PROTOCOL);
                self.reply(conn, line.key("server", &self.hub.settings.server_name));
            }
            Request::Whoami => {
                let line = match self.hub.member(conn) {
                    Some(member) => Line::ok(&head).key("user", &member.person.name).key("since", member.since),
                    None => Line::ok(&head).key("user", "").text("nobody is logged in here"),
                };
                self.reply(conn, line);
            }
            Request::Quit => {
                self.ok(conn, &head);
                self.close(conn);
            }
            Request::Register { user, password, invite } => self.register(conn, head, user, password, invite),
            Request::Login { user, password, takeover } => self.login(conn, head, user, password, takeover),
            Request::AckMode { manual } => {
                if let Some(session) = self.hub.session_mut(conn) {
                    session.manual_ack = manual;
                }
                self.ok(conn, &head);
            }
            _ => self.error(conn, &head, Code::NotLoggedIn, "/login or /register first"),
        }
    }

    /// What a logged-in person asks for.
    fn request(&mut self, conn: ConnId, head: Head, me: Person, request: Request<'_>) {
        match request {
            Request::Logout => self.logout(conn, &head),
            Request::Passwd { old, new } => self.passwd(conn, head, &me, old, new),
            Request::Unregister { password } => self.unregister(conn, head, &me, password),
            Request::Token { name } => self.token(conn, head, &me, name),
            Request::Tokens => self.ask(conn, head, account::Wait::Tokens, Query::Tokens(me.id)),
            Request::Revoke { name } => {
                let op = Op::DropToken { account: me.id, name: name.to_string() };
                self.persist(conn, head, account::Wait::Done, op);
            }
            Request::CertAdd => self.cert_add(conn, head, &me),
            Request::CertList => self.ask(conn, head, account::Wait::Certificates, Query::Certificates(me.id)),
            Request::CertDrop { sha256 } => self.cert_drop(conn, head, &me, sha256),
            Request::ProfileSet(change) => {
                self.persist(conn, head, account::Wait::Done, Op::SetProfile { account: me.id, change });
            }
            Request::Receipts { on } => {
                self.persist(conn, head, account::Wait::Receipts(on), Op::SetReceipts { account: me.id, on });
            }
            Request::Profile { user } => self.profile(conn, head, &me, user),
            Request::Users { glob, after } => self.users(conn, head, glob, after),
            Request::Who { target } => self.who(conn, head, &me, target),
            Request::Watch { users } => self.watch(conn, head, users),
            Request::Unwatch { users } => self.unwatch(conn, &head, &users),
            Request::Away { text } => self.away(conn, &head, &me, text),
            Request::Back => self.back(conn, &head, &me),
            Request::Typing { target } => self.typing(conn, head, &me, target),
            Request::Create { room, private, e2e, topic } => {
                let topic = topic.map(str::to_owned);
                let op = Op::CreateRoom { account: me.id, room, private, e2e, topic };
                self.persist(conn, head, rooms::Wait::Join, op);
            }
            Request::Join { room } => {
                self.persist(conn, head, rooms::Wait::Join, Op::JoinRoom { account: me.id, room });
            }
            Request::Leave { room, reason } => {
                let wait = rooms::Wait::Leave(reason.map(str::to_owned));
                self.persist(conn, head, wait, Op::LeaveRoom { account: me.id, room });
            }
            Request::Rooms { glob, after } => self.rooms(conn, head, &me, glob, after),
            Request::Members { room } => {
                let query = Query::Members { account: me.id, room: room.clone() };
                self.ask(conn, head, rooms::Wait::Members(room), query);
            }
            Request::Moderate { act, room, user, reason } => {
                let wait = rooms::Wait::Moderate(act, reason.map(str::to_owned));
                self.persist(conn, head, wait, Op::Moderate { actor: me.id, room, act, subject: user });
            }
            Request::Topic { room, text } => self.topic(conn, head, &me, room, text),
            Request::To { target } => self.to(conn, head, &me, target),
            Request::FetchUnread => self.fetch_unread(conn, head, &me),
            Request::Fetch { target, bound, limit } => self.fetch(conn, head, &me, target, bound, limit),
            Request::Unread { all } => {
                self.ask(conn, head, messages::Wait::Unread, Query::UnreadCounts { account: me.id, all });
            }
            Request::Ack { target, id } => {
                let op = Op::Ack { account: me.id, target: target.clone(), id: crate::ops::MessageId(id) };
                self.persist(conn, head, messages::Wait::Ack(target), op);
            }
            Request::Admin(request) => self.admin(conn, head, &me, request),
            Request::Help { .. }
            | Request::Ping { .. }
            | Request::Version
            | Request::Whoami
            | Request::Quit
            | Request::Register { .. }
            | Request::Login { .. }
            | Request::AckMode { .. } => self.request_of_a_stranger(conn, head, request),
            Request::Msg { .. } | Request::Post { .. } => self.misfit(conn, &head), // see `run`
        }
    }

    fn help(&mut self, conn: ConnId, head: &Head, verb: Option<&str>) {
        let wanted = verb.map(|verb| verb.trim_start_matches('/').to_ascii_lowercase());
        let mut out = Vec::new();
        let mut row = |prefix: &str, verb: &Verb| {
            let usage = format!("{prefix}{} {}", verb.name, verb.usage);
            out.extend_from_slice(format!("- help /{} — {}\n", usage.trim_end(), verb.about).as_bytes());
        };
        match wanted.as_deref() {
            None => verb::VERBS.iter().for_each(|verb| row("", verb)),
            Some(name) => match verb::find(name) {
                None => return self.error(conn, head, Code::NotFound, "no such command; /help lists them"),
                Some(verb) => {
                    row("", verb);
                    if name == "admin" {
                        verb::ADMIN_VERBS.iter().for_each(|verb| row("admin ", verb));
                    }
                }
            },
        }
        Line::ok(head).finish_into(&mut out);
        self.send(conn, out);
    }

    // ---- waiting for answers -----------------------------------------------------------------------

    fn ticket(&mut self, pending: Pending) -> Ticket {
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        self.pending.insert(ticket, pending);
        ticket
    }

    fn suspend(&mut self, conn: ConnId, head: Head, wait: Wait) -> Ticket {
        if let Some(session) = self.hub.session_mut(conn) {
            session.in_flight += 1;
            session.only_appends = wait.is_append();
        }
        let me = self.hub.member(conn).map(|member| member.person.clone());
        self.ticket(Pending { conn: Some(conn), me, head, wait })
    }

    /// Submits a write whose answer a command waits for.
    fn persist(&mut self, conn: ConnId, head: Head, wait: impl Into<Wait>, op: Op) {
        let ticket = self.suspend(conn, head, wait.into());
        self.out.push(Effect::Persist(ticket, op));
    }

    /// Submits a read whose answer a command waits for.
    fn ask(&mut self, conn: ConnId, head: Head, wait: impl Into<Wait>, query: Query) {
        let ticket = self.suspend(conn, head, wait.into());
        self.out.push(Effect::Ask(ticket, query));
    }

    /// Submits a password, unless too many wait already; then the command was answered.
    fn hash(&mut self, conn: ConnId, head: Head, wait: impl Into<Wait>, op: HashOp) -> bool {
        if self.hashing >= HASHES_MAX {
            let line = Line::err(&head, Code::Busy).key("retry-after", 1);
            self.reply(conn, line.text("too many logins at once; try again"));
            return false;
        }
        self.hashing += 1;
        let ticket = self.suspend(conn, head, wait.into());
        self.out.push(Effect::Hash(ticket, op));
        true
    }

    /// Submits a write that no command waits for.
    fn persist_quietly(&mut self, wait: Wait, op: Op) {
        let ticket = self.ticket(Pending { conn: None, me: None, head: Head::none(), wait });
        self.out.push(Effect::Persist(ticket, op));
    }

    fn stored(&mut self, ticket: Ticket, done: Done) {
        let Some(Pending { conn, me, head, wait }) = self.pending.remove(&ticket) else { return };
        if !matches!(wait, Wait::Backlog(_)) {
            self.answered(conn);
        }
        let conn_or_none = conn.unwrap_or(ConnId { slot: u32::MAX, generation: u32::MAX });
        match (wait, done) {
            (Wait::AutoAck(reader), Done::Op(Ok(Outcome::Acked(acked)))) => self.acked(&reader, &acked),
            (Wait::Backlog(login), Done::Query(answer)) => self.backlog(conn_or_none, login, answer),
            (Wait::Sweep, Done::Op(result)) => {
                self.sweeping = false;
                if matches!(result, Ok(Outcome::Swept { more: true })) {
                    self.sweep();
                }
            }
            (Wait::AutoAck(_) | Wait::Nothing, _) => {}
            // A connection that was told to close enters nothing any more.
            (Wait::Login(_), _) if self.is_closing(conn_or_none) => {}
            (Wait::Login(wait), done) => self.login_answered(conn_or_none, head, wait, done),
            (Wait::Account(wait), done) => self.account_answered(conn_or_none, head, me, wait, done),
            (Wait::People(wait), done) => self.people_answered(conn_or_none, head, wait, done),
            (Wait::Rooms(wait), done) => self.rooms_answered(conn_or_none, head, me, wait, done),
            (Wait::Messages(wait), done) => self.messages_answered(conn_or_none, head, me, wait, done),
            (Wait::Admin(wait), done) => self.admin_answered(conn_or_none, head, wait, done),
            (Wait::Backlog(_) | Wait::Sweep, _) => debug_assert!(false, "an answer of the wrong kind"),
        }
        self.settle_after(conn);
    }

    fn hashed(&mut self, ticket: Ticket, done: HashDone) {
        self.hashing = self.hashing.saturating_sub(1);
        let Some(Pending { conn: Some(conn), head, wait, .. }) = self.pending.remove(&ticket) else { return };
        self.answered(Some(conn));
        match wait {
            Wait::Login(_) if self.is_closing(conn) => {}
            Wait::Login(wait) => self.login_hashed(conn, head, wait, done),
            Wait::Account(wait) => self.account_hashed(conn, head, wait, done),
            _ => debug_assert!(false, "only logins and passwords are hashed"),
        }
        self.settle_after(Some(conn));
    }

    fn measured(&mut self, ticket: Ticket, gauges: Gauges) {
        let Some(Pending { conn: Some(conn), head, wait: Wait::Admin(admin::Wait::Gauges(totals)), .. }) =
            self.pending.remove(&ticket)
        else {
            return;
        };
        self.answered(Some(conn));
        self.stats(conn, &head, &totals, &gauges);
        self.settle_after(Some(conn));
    }

    fn answered(&mut self, conn: Option<ConnId>) {
        if let Some(session) = conn.and_then(|conn| self.hub.session_mut(conn)) {
            session.in_flight = session.in_flight.saturating_sub(1);
        }
    }

    fn settle_after(&mut self, conn: Option<ConnId>) {
        if let Some(conn) = conn {
            self.settle(conn);
        }
    }

    /// A command was answered: runs the line that waited for it, or closes what has ended.
    fn settle(&mut self, conn: ConnId) {
        let Some(session) = self.hub.session_mut(conn).filter(|session| !session.closing) else { return };
        if session.in_flight == 0 {
            if let Some(parked) = session.parked.take() {
                let line = parked.as_deref().map_err(|fault| *fault);
                self.run(conn, line, Sentence::read(line.unwrap_or_default()));
                return self.settle(conn);
            }
            if session.ended {
                if self.shutting_down {
                    return self.bye(conn, "shutdown", None);
                }
                return self.close(conn);
            }
        }
        self.out.push(Effect::Resume(conn));
    }

    // ---- refusals ----------------------------------------------------------------------------------

    /// The reply to a command that the store refused, where its handler has no better words.
    fn refuse(&mut self, conn: ConnId, head: &Head, refused: Refused) {
        let (code, text) = match refused {
            Refused::NoSuchUser => (Code::NoSuchUser, "no account of that name"),
            Refused::NoSuchRoom => (Code::NoSuchRoom, "no room of that name"),
            Refused::NotMember => (Code::NotMember, "/join the room first"),
            Refused::SubjectNotMember => (Code::NotMember, "they are not in the room"),
            Refused::Forbidden => (Code::Forbidden, "you may not do that here"),
            Refused::Banned => (Code::Banned, "banned"),
            Refused::NameTaken => (Code::NameTaken, "that name is taken"),
            Refused::RegistrationClosed => (Code::RegistrationClosed, "that invitation is not valid (any more)"),
            Refused::AuthFailed => (Code::AuthFailed, "wrong name or password"),
            Refused::E2eRequired => (Code::E2eRequired, "this room takes only end-to-end encrypted messages"),
            Refused::NotFound => (Code::NotFound, "nothing of that name"),
            Refused::Conflict(id) => {
                let line = Line::err(head, Code::Conflict).key("id", id);
                return self.reply(conn, line.text("that key was used for something else"));
            }
            Refused::Quota(max) => {
                let line = Line::err(head, Code::Quota).key("max", max);
                return self.reply(conn, line.text("there are too many already"));
            }
            Refused::Internal => (Code::Internal, "the server could not store or read that; nothing was changed"),
        };
        self.error(conn, head, code, text);
    }

    /// An answer that does not fit its question is a defect of ours; the peer still gets its reply.
    fn misfit(&mut self, conn: ConnId, head: &Head) {
        debug_assert!(false, "an answer of the wrong kind to {head}");
        self.refuse(conn, head, Refused::Internal);
    }

    // ---- housekeeping ------------------------------------------------------------------------------

    fn sweep(&mut self) {
        if !self.sweeping {
            self.sweeping = true;
            let day = 24 * 3600 * 1000;
            let messages_before =
                self.hub.settings.retention_days.map(|days| self.now.wall.earlier_by(u64::from(days) * day));
            self.persist_quietly(Wait::Sweep, Op::Sweep { messages_before });
        }
    }

    fn outside(&mut self, change: OutsideChange) {
        match change {
            OutsideChange::EndSessions(account) => {
                self.end_sessions(account, None, "kicked", Some("the operator changed your account"));
            }
            OutsideChange::Admin(account, admin) => {
                if let Some(online) = self.hub.online_mut(account) {
                    online.admin = admin;
                }
            }
            OutsideChange::Deleted(account, rooms) => {
                self.end_sessions(account, None, "kicked", Some("the operator deleted your account"));
                self.left_rooms(account, None, &rooms);
            }
        }
    }

    /// Ends the sessions of an account, except one.
    fn end_sessions(&mut self, account: AccountId, except: Option<ConnId>, reason: &str, text: Option<&str>) {
        for conn in self.hub.sessions_of(account) {
            if Some(conn) != except {
                self.bye(conn, reason, text);
            }
        }
    }

    fn network(&self, conn: ConnId) -> Option<Network> {
        self.hub.session(conn).map(|session| Network::of(session.peer.address))
    }
}

/// The reply to what comes too often.
fn rate_limited(head: &Head, wait: std::time::Duration) -> Line {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    Line::err(head, Code::RateLimited).key("retry-after", seconds.max(1)).text("too fast; try again later")
}

/// The reply to a line that is no request.
fn fault(head: &Head, error: &ParseError) -> Line {
    let line = match error {
        ParseError::UnknownCommand => Line::err(head, Code::UnknownCommand),
        ParseError::Syntax(_) => Line::err(head, Code::Syntax),
        ParseError::Name(name) => Line::err(head, Code::NameInvalid).key("max", name.max),
        ParseError::TooMany(max, _) => Line::err(head, Code::TooLong).key("max", max),
    };
    line.text(&error.to_string())
}

/// Whether a line is what a web browser says first.
fn is_http(line: &str) -> bool {
    let mut words = line.split(' ');
    let method = words.next().unwrap_or_default();
    let version = words.next_back().unwrap_or_default();
    words.next().is_some()
        && !method.is_empty()
        && method.bytes().all(|b| b.is_ascii_uppercase())
        && version.strip_prefix("HTTP/").is_some_and(|v| v.bytes().all(|b| b.is_ascii_digit() || b == b'.'))
}

/// `yes` or `no`, as flags stand on the wire.
fn yes_no(flag: bool) -> &'static str {
    if flag { "yes" } else { "no" }
}

#[cfg(test)]
mod tests;

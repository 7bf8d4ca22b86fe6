//! From a line to its handler: the first look, the turn it has to wait for, the gate before login.

use super::{Core, Pending, Wait, account, files, keys, messages, rooms};
use crate::hub::effects::Effect;
use crate::ops::{MessageId, Op, Person, Query};
use crate::protocol::request::{Command, ParseError, Sentence};
use crate::protocol::verb::{self, Verb};
use crate::protocol::{Code, Head, Line, LineFault, PROTOCOL, Request};
use crate::session::{ConnId, Overlap, State};

impl Core {
    pub(super) fn line(&mut self, conn: ConnId, line: Result<&str, LineFault>) {
        let Some(session) = self.hub.session_mut(conn).filter(|session| !session.closing) else { return };
        let first = !std::mem::replace(&mut session.greeted_back, true);
        if matches!(session.state, State::Ready(_)) && self.hub.settings.idle_timeout.is_some() {
            self.wait_for_anything(conn);
        }
        self.read_back(conn); // where that failed before
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
            self.auto_ack(conn, messages::reads_markers(&sentence));
        }
        self.run(conn, line, sentence);
    }

    /// Runs a line, or parks it until it is its turn: beside what is under way only more of the same kind may go, and
    /// nothing that would be answered at once.
    pub(super) fn run(&mut self, conn: ConnId, line: Result<&str, LineFault>, sentence: Sentence<'_>) {
        let Some(session) = self.hub.session(conn) else { return };
        let (alone, kind) = (session.in_flight == 0, overlap(&sentence));
        if !alone && (kind == Overlap::Nothing || kind != session.overlap) {
            return self.park(conn, line);
        }
        if kind == Overlap::Chunks && !self.chunks.takes(conn) {
            self.park(conn, line);
            return self.wait_for_room(conn);
        }
        match line {
            Err(fault) => self.unreadable(conn, fault),
            Ok(_) if kind != Overlap::Nothing => match self.submit(conn, &sentence) {
                Ok(()) => {}
                Err(reply) if alone => self.send(conn, reply),
                Err(_) => self.park(conn, line),
            },
            Ok(_) => match sentence {
                Sentence::Command(command) => self.command(conn, &command),
                Sentence::Fault(head, error) => self.reply(conn, fault(&head, &error)),
                Sentence::Blank | Sentence::Text(_) => {}
            },
        }
    }

    fn park(&mut self, conn: ConnId, line: Result<&str, LineFault>) {
        if let Some(session) = self.hub.session_mut(conn) {
            session.parked = Some(line.map(Box::from));
        }
    }

    /// Answers what could not be a line.
    pub(super) fn unreadable(&mut self, conn: ConnId, fault: LineFault) {
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

    /// Moves the read markers over what this session shows to have got. A command that reads them waits
    /// until they are where it will look.
    pub(super) fn auto_ack(&mut self, conn: ConnId, command_waits: bool) {
        let Some(session) = self.hub.session_mut(conn).filter(|session| !session.manual_ack) else { return };
        let (flushed, under_way) = (session.flushed, session.acks_in_flight > 0);
        let Some(member) = session.member_mut() else { return };
        let marks = member.delivery.read_by_line(flushed);
        let reader = member.person.clone();
        // Without marks the answer only says that those before it are stored.
        let command_waits = command_waits && (under_way || !marks.is_empty());
        if marks.is_empty() && !command_waits {
            return;
        }
        session.acks_in_flight += 1;
        if command_waits {
            session.in_flight += 1;
            session.overlap = Overlap::Nothing;
        }
        let account = reader.id;
        let wait = Wait::AutoAck { reader, command_waits };
        let ticket = self.ticket(Pending { conn: Some(conn), me: None, head: Head::none(), wait });
        self.out.push(Effect::Persist(ticket, Op::AutoAck { account, marks }));
    }

    /// The gate, once for every command; then the arguments; then its handler.
    pub(super) fn command(&mut self, conn: ConnId, command: &Command<'_>) {
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
        let admin = me.as_ref().and_then(|me| self.hub.online(me.id)).is_some_and(|online| online.admin);
        if command.verb.name == "admin" && !admin {
            return self.error(conn, &head, Code::Forbidden, "only administrators may do that");
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
    pub(super) fn request_of_a_stranger(&mut self, conn: ConnId, head: Head, request: Request<'_>) {
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
    pub(super) fn request(&mut self, conn: ConnId, head: Head, me: Person, request: Request<'_>) {
        if changes_a_room(&request) {
            let ((rate, burst), now) = (self.hub.settings.change_rate(), self.now.monotonic);
            let taken = self.hub.online_mut(me.id).map(|online| online.rates.changes.take(1, rate, burst, now));
            if let Some(Err(wait)) = taken {
                return self.reply(conn, rate_limited(&head, wait));
            }
        }
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
                let op = Op::Ack { account: me.id, target: target.clone(), id: MessageId(id) };
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
            Request::Signals { after } => self.signals(conn, head, &me, after),
            Request::KeysPut(upload) => self.keys_put(conn, head, &me, upload),
            Request::KeysGet { user, device, only_certificates } => {
                self.keys_get(conn, head, &me, user, device, only_certificates);
            }
            Request::KeysStatus => self.ask(conn, head, keys::Wait::Status, Query::Pools(me.id)),
            Request::Roster { room, after } => self.roster(conn, head, &me, room, after),
            Request::RosterAdd { room, epoch, entry } => self.roster_add(conn, head, &me, room, epoch, entry),
            Request::SendFile { target, name, size, sha256 } => {
                self.send_file(conn, head, me, target, name, size, sha256);
            }
            Request::GetFile { file, offset, length } => {
                let query = Query::FilePart { account: me.id, file, offset, length };
                self.ask(conn, head, files::Wait::Get(file), query);
            }
            Request::Files { target, after, sha256 } => self.files(conn, head, &me, target, after, sha256),
            Request::DropFile { file } => {
                self.persist(conn, head, files::Wait::Drop(file), Op::DropFile { account: me.id, file });
            }
            Request::Msg { .. }
            | Request::Post { .. }
            | Request::Signal { .. }
            | Request::AckSignal { .. }
            | Request::Chunk { .. } => self.misfit(conn, &head), // see `run`
        }
    }

    pub(super) fn help(&mut self, conn: ConnId, head: &Head, verb: Option<&str>) {
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
}

/// Which lines may follow this one before it is answered: each of them is one write, whose answer is the reply.
fn overlap(sentence: &Sentence<'_>) -> Overlap {
    match sentence {
        Sentence::Text(_) => Overlap::Messages,
        Sentence::Command(command) => match command.verb.name {
            "msg" | "post" | "signal" => Overlap::Messages,
            "ack" if matches!(command.request(), Ok(Request::AckSignal { .. })) => Overlap::Messages,
            "chunk" => Overlap::Chunks,
            _ => Overlap::Nothing,
        },
        Sentence::Blank | Sentence::Fault(..) => Overlap::Nothing,
    }
}

/// Whether everybody in a room is told of it.
fn changes_a_room(request: &Request<'_>) -> bool {
    matches!(
        request,
        Request::Create { .. }
            | Request::Join { .. }
            | Request::Leave { .. }
            | Request::Moderate { .. }
            | Request::Topic { text: Some(_), .. }
            | Request::RosterAdd { .. }
    )
}

/// The reply to what comes too often.
pub(super) fn rate_limited(head: &Head, wait: std::time::Duration) -> Line {
    over_rate(head, wait, "too fast; try again later")
}

/// The same, in other words.
pub(super) fn over_rate(head: &Head, wait: std::time::Duration, text: &str) -> Line {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    Line::err(head, Code::RateLimited).key("retry-after", seconds.max(1)).text(text)
}

/// The reply to a line that is no request.
pub(super) fn fault(head: &Head, error: &ParseError) -> Line {
    let line = match error {
        ParseError::UnknownCommand => Line::err(head, Code::UnknownCommand),
        ParseError::Syntax(_) => Line::err(head, Code::Syntax),
        ParseError::Name(name) => Line::err(head, Code::NameInvalid).key("max", name.max),
        ParseError::TooMany(max, _) => Line::err(head, Code::TooLong).key("max", max),
    };
    line.text(&error.to_string())
}

/// Whether a line is what a web browser says first.
pub(super) fn is_http(line: &str) -> bool {
    let mut words = line.split(' ');
    let method = words.next().unwrap_or_default();
    let version = words.next_back().unwrap_or_default();
    words.next().is_some()
        && !method.is_empty()
        && method.bytes().all(|b| b.is_ascii_uppercase())
        && version.strip_prefix("HTTP/").is_some_and(|v| v.bytes().all(|b| b.is_ascii_digit() || b == b'.'))
}

//! A connection's life beside its commands: greeting, deadlines, the end; and what is sent to it.

use std::rc::Rc;

use super::{Core, Wait};
use crate::hub::Exit;
use crate::hub::effects::{Effect, Expiry};
use crate::ops::Op;
use crate::protocol::{Code, Head, Line, MAX_BODY, MAX_LINE, MAX_LINE_BEFORE_LOGIN, PROTOCOL, UserName};
use crate::session::delivery::Lines;
use crate::session::{ConnId, Peer};

/// Bytes that events which may not be dropped can add behind a full queue, in multiples of the outbound
/// limit. Who reads so little that even these pile up is told `too-slow`; the log keeps the messages. A page that was
/// asked for does not count: it is longer than the limit where all of it is being read.
const EVENT_OVERRUN: u64 = 2;

impl Core {
    pub(super) fn opened(&mut self, conn: ConnId, peer: Peer) {
        self.hub.open(conn, peer);
        let settings = &self.hub.settings;
        let greeting = Line::event("hello")
            .arg(PROTOCOL)
            .key("server", &settings.server_name)
            .key("version", env!("CARGO_PKG_VERSION"))
            .key("max-line", MAX_LINE)
            .key("max-body", MAX_BODY)
            .key("max-file", settings.max_file)
            .key("registration", settings.registration.as_str())
            .text("type /help; /register NAME PASSWORD or /login NAME PASSWORD");
        self.send(conn, greeting.finish());
        self.wait_for_login(conn);
    }

    /// Starts the time that a connection has to log in, with the limits of a stranger.
    pub(super) fn wait_for_login(&mut self, conn: ConnId) {
        let deadline = self.hub.settings.login_timeout.map(|timeout| self.now.monotonic + timeout);
        self.out.push(Effect::Deadline(conn, deadline));
        self.out.push(Effect::MaxLine(conn, MAX_LINE_BEFORE_LOGIN));
    }

    /// Starts the time that a member may say nothing.
    pub(super) fn wait_for_anything(&mut self, conn: ConnId) {
        let deadline = self.hub.settings.idle_timeout.map(|timeout| self.now.monotonic + timeout);
        self.out.push(Effect::Deadline(conn, deadline));
    }

    pub(super) fn wait_again(&mut self, conn: ConnId) {
        if self.hub.session(conn).is_some_and(|session| session.is_ready()) {
            self.wait_for_anything(conn);
        } else {
            self.wait_for_login(conn);
        }
    }

    pub(super) fn ended(&mut self, conn: ConnId) {
        if let Some(session) = self.hub.session_mut(conn) {
            session.ended = true;
            self.settle(conn);
        }
    }

    pub(super) fn expired(&mut self, conn: ConnId, expiry: Expiry) {
        let Some(session) = self.hub.session(conn) else { return };
        let limit = self.hub.settings.outbound_bytes as u64;
        match expiry {
            Expiry::Stalled => {
                if session.is_behind() || session.queued() > limit {
                    self.bye(conn, "too-slow", Some("nothing was read for too long; your messages are kept"));
                }
            }
            // A login, or a command, is under way: its end sets the next deadline.
            Expiry::Session if session.in_flight > 0 || session.waits_for_room => self.wait_again(conn),
            Expiry::Session | Expiry::Line => self.bye(conn, "idle", None),
        }
    }

    pub(super) fn closed(&mut self, conn: ConnId) {
        self.stop_waiting(conn);
        self.leave_account(conn);
        self.hub.close(conn);
    }

    /// Ends the session's part in its account: presence, rooms, watching.
    pub(super) fn leave_account(&mut self, conn: ConnId) {
        let Some(Exit { person, last: true, announced }) = self.hub.exit(conn) else { return };
        self.persist_quietly(Wait::Nothing, Op::SeenLast { account: person.id });
        if announced {
            self.tell_watchers(&person.name, Line::event("offline").arg(&person.name));
        }
    }

    /// Says goodbye and closes once that was sent.
    pub(super) fn bye(&mut self, conn: ConnId, reason: &str, text: Option<&str>) {
        if self.hub.session(conn).is_some_and(|session| !session.closing) {
            log::info!("connection {conn}: bye {reason}");
            self.send(conn, Line::event("bye").arg(reason).maybe_text(text).finish());
            self.close(conn);
        }
    }

    pub(super) fn close(&mut self, conn: ConnId) {
        let Some(session) = self.hub.session_mut(conn) else { return };
        session.closing = true;
        session.parked = None;
        self.stop_waiting(conn);
        self.leave_account(conn);
        self.out.push(Effect::Close(conn));
    }

    pub(super) fn is_closing(&self, conn: ConnId) -> bool {
        self.hub.session(conn).is_some_and(|session| session.closing)
    }

    pub(super) fn flushed(&mut self, conn: ConnId, bytes: u64) {
        if let Some(session) = self.hub.session_mut(conn) {
            session.flushed = bytes.min(session.sent);
            if session.is_behind() {
                self.read_back(conn);
            }
        }
    }

    // ---- sending -----------------------------------------------------------------------------------

    pub(super) fn send(&mut self, conn: ConnId, bytes: Vec<u8>) {
        let limit = self.hub.settings.outbound_bytes as u64;
        if let Some(session) = self.hub.session_mut(conn).filter(|session| !session.closing) {
            session.sent += bytes.len() as u64;
            session.note_reply(bytes.len() as u64, limit);
            self.out.push(Effect::Send(conn, bytes));
        }
    }

    /// The one reply to a command.
    pub(super) fn reply(&mut self, conn: ConnId, line: Line) {
        self.send(conn, line.finish());
    }

    pub(super) fn ok(&mut self, conn: ConnId, head: &Head) {
        self.reply(conn, Line::ok(head));
    }

    pub(super) fn error(&mut self, conn: ConnId, head: &Head, code: Code, text: &str) {
        self.reply(conn, Line::err(head, code).text(text));
    }

    /// An event that may not be dropped: a session that reads so little that it does not fit is closed.
    pub(super) fn event(&mut self, to: &[ConnId], except: Option<ConnId>, line: Line) {
        let limit = self.hub.settings.outbound_bytes as u64 * EVENT_OVERRUN;
        let lines: Lines = line.finish().into();
        let mut due = Vec::with_capacity(to.len());
        let mut slow = Vec::new();
        for &conn in to.iter().filter(|&&conn| Some(conn) != except) {
            let Some(session) = self.hub.session_mut(conn).filter(|session| session.is_ready()) else { continue };
            if session.queued_unasked() + lines.len() as u64 > limit {
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
    pub(super) fn ephemeral(&mut self, to: &[ConnId], except: Option<ConnId>, line: Line) {
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

    pub(super) fn tell_watchers(&mut self, name: &UserName, line: Line) {
        let watchers = self.hub.watchers(name);
        if !watchers.is_empty() {
            self.ephemeral(&watchers, None, line);
        }
    }
}

//! The core's only entry: an input goes in, effects come out.
//!
//! [`Core::handle`] never blocks, never fails and never panics, whatever a peer sends. It reads no clock
//! and draws no randomness of its own. A command that needs the store or the hasher leaves a `Pending`
//! behind under its ticket; the answer finds it again, unless its connection is gone.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

mod account;
mod admin;
mod connection;
mod dispatch;
mod files;
mod keys;
mod login;
mod messages;
mod people;
mod rooms;
mod rosters;
mod signals;

pub use files::CHUNKS_MAX;
pub use login::weakness;

use dispatch::{fault, rate_limited};

use crate::hub::Hub;
use crate::hub::effects::{Effect, Gauges, Input, Now};
use crate::hub::settings::Settings;
use crate::hub::throttle::{Network, Throttle};
use crate::ops::{
    AccountId, AddressBlock, Done, HashDone, HashOp, Op, Outcome, OutsideChange, Person, Query, Refused, Sweep, Ticket,
};
use crate::protocol::request::Sentence;
use crate::protocol::{Code, Head, Line};
use crate::session::{ConnId, Overlap};

/// Passwords in the hasher and its queue at once. At 19 MiB and some 20 ms each this is a second or two
/// of work: whoever comes later is better told to come back.
pub const HASHES_MAX: usize = 64;

/// Seconds after which a sender may try again where the disk is nearly full: somebody has to make room.
const DISK_RETRY: u64 = 60;

/// How often old things are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(600);

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
    Signals(signals::Wait),
    Keys(keys::Wait),
    Rosters(rosters::Wait),
    Files(files::Wait),
    Admin(admin::Wait),
    /// Read markers that a line of theirs moved; whether its command waits for them.
    AutoAck {
        reader: Person,
        command_waits: bool,
    },
    /// A page for a session that fell behind, of the login that it belongs to.
    Backlog(u64),
    /// The same for signals.
    SignalBacklog(u64),
    /// A piece of what was too old was deleted.
    Sweep,
    /// Nobody asked.
    Nothing,
}

impl Wait {
    /// Which others of its connection may be under way beside it.
    fn overlap(&self) -> Overlap {
        match self {
            Wait::Messages(wait) => wait.overlap(),
            Wait::Signals(wait) => wait.overlap(),
            Wait::Files(wait) => wait.overlap(),
            _ => Overlap::Nothing,
        }
    }
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
    /// Logins that wait for others; at most one of each connection.
    queued_logins: Vec<login::Queued>,
    random: Random,
    blocks: BTreeSet<AddressBlock>,
    pending: HashMap<Ticket, Pending>,
    next_ticket: u64,
    hashing: usize,
    chunks: files::Chunks,
    counts: Counts,
    sweeping: bool,
    sweep_at: Instant,
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
            queued_logins: Vec::new(),
            random,
            blocks: blocks.into_iter().collect(),
            pending: HashMap::new(),
            next_ticket: 0,
            hashing: 0,
            chunks: files::Chunks::default(),
            counts: Counts::default(),
            sweeping: false,
            sweep_at: now.monotonic + SWEEP_INTERVAL,
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
            Input::Tick => {
                self.read_back_again();
                self.hub.forget_rates(now.monotonic);
                if self.sweep_at <= now.monotonic {
                    self.sweep_at = now.monotonic + SWEEP_INTERVAL;
                    self.sweep();
                }
            }
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
                && session.member().is_none_or(|member| member.delivery.takes_own() && member.signals.takes_own())
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

    /// Which connection's command waits for an answer, for simulations: a login that waited for others is
    /// submitted when one of those ends.
    pub fn asker(&self, ticket: Ticket) -> Option<ConnId> {
        self.pending.get(&ticket).and_then(|pending| pending.conn)
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
            session.overlap = wait.overlap();
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
            self.busy(conn, &head);
            return false;
        }
        self.hashing += 1;
        let ticket = self.suspend(conn, head, wait.into());
        self.out.push(Effect::Hash(ticket, op));
        true
    }

    /// The answer where too many passwords wait already.
    fn busy(&mut self, conn: ConnId, head: &Head) {
        let line = Line::err(head, Code::Busy).key("retry-after", 1);
        self.reply(conn, line.text("too many logins at once; try again"));
    }

    /// Submits a write that no command waits for.
    fn persist_quietly(&mut self, wait: Wait, op: Op) {
        let ticket = self.ticket(Pending { conn: None, me: None, head: Head::none(), wait });
        self.out.push(Effect::Persist(ticket, op));
    }

    fn stored(&mut self, ticket: Ticket, done: Done) {
        let Some(Pending { conn, me, head, wait }) = self.pending.remove(&ticket) else { return };
        match &wait {
            Wait::Backlog(_) | Wait::SignalBacklog(_) => {}
            Wait::AutoAck { command_waits, .. } => {
                if let Some(session) = conn.and_then(|conn| self.hub.session_mut(conn)) {
                    session.acks_in_flight = session.acks_in_flight.saturating_sub(1);
                    session.in_flight = session.in_flight.saturating_sub(u32::from(*command_waits));
                }
            }
            _ => self.answered(conn),
        }
        let conn_or_none = conn.unwrap_or(ConnId { slot: u32::MAX, generation: u32::MAX });
        match (wait, done) {
            (Wait::AutoAck { reader, .. }, Done::Op(Ok(Outcome::Acked(acked)))) => self.acked(&reader, &acked),
            (Wait::Backlog(login), Done::Query(answer)) => self.backlog(conn_or_none, login, answer),
            (Wait::SignalBacklog(login), Done::Query(answer)) => self.signal_backlog(conn_or_none, login, answer),
            (Wait::Sweep, Done::Op(result)) => {
                self.sweeping = false;
                if matches!(result, Ok(Outcome::Swept { more: true })) {
                    self.sweep();
                }
            }
            (Wait::AutoAck { .. } | Wait::Nothing, _) => {}
            // A connection that was told to close enters nothing any more.
            (Wait::Login(wait), _) if self.is_closing(conn_or_none) => self.login_dropped(wait),
            (Wait::Login(wait), done) => self.login_answered(conn_or_none, head, wait, done),
            (Wait::Account(wait), done) => self.account_answered(conn_or_none, head, me, wait, done),
            (Wait::People(wait), done) => self.people_answered(conn_or_none, head, wait, done),
            (Wait::Rooms(wait), done) => self.rooms_answered(conn_or_none, head, me, wait, done),
            (Wait::Messages(wait), done) => self.messages_answered(conn_or_none, head, me, wait, done),
            (Wait::Signals(wait), done) => self.signals_answered(conn_or_none, head, wait, done),
            (Wait::Keys(wait), done) => self.keys_answered(conn_or_none, head, wait, done),
            (Wait::Rosters(wait), done) => self.rosters_answered(conn_or_none, head, wait, done),
            (Wait::Files(wait), done) => self.files_answered(conn_or_none, head, me, wait, done),
            (Wait::Admin(wait), done) => self.admin_answered(conn_or_none, head, wait, done),
            (Wait::Backlog(_) | Wait::SignalBacklog(_) | Wait::Sweep, _) => {
                debug_assert!(false, "an answer of the wrong kind")
            }
        }
        self.settle_after(conn);
        self.resume_chunks();
    }

    fn hashed(&mut self, ticket: Ticket, done: HashDone) {
        self.hashing = self.hashing.saturating_sub(1);
        let Some(Pending { conn: Some(conn), head, wait, .. }) = self.pending.remove(&ticket) else { return };
        self.answered(Some(conn));
        match wait {
            Wait::Login(wait) if self.is_closing(conn) => self.login_dropped(wait),
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
        if session.waits_for_room {
            return;
        }
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
            Refused::Epoch(last) => {
                let line = Line::err(head, Code::Conflict).key("epoch", last);
                return self.reply(conn, line.text("the next place of the log is the one behind the last"));
            }
            Refused::Offset(next) => {
                let line = Line::err(head, Code::Conflict).key("offset", next);
                return self.reply(conn, line.text("that is not the next piece; go on at offset="));
            }
            Refused::NotBase64 => (Code::Syntax, "that is no base64 (RFC 4648 §4, with padding)"),
            Refused::Checksum => (Code::Checksum, "the file has another SHA-256 than was announced"),
            Refused::DiskLow => {
                let line = Line::err(head, Code::Busy).key("retry-after", DISK_RETRY);
                return self.reply(conn, line.text("the server's disk is nearly full; what was sent so far is kept"));
            }
            Refused::Quota(max) => {
                let line = Line::err(head, Code::Quota).key("max", max);
                return self.reply(conn, line.text("there are too many already"));
            }
            Refused::TooLong(max) => {
                let line = Line::err(head, Code::TooLong).key("max", max);
                return self.reply(conn, line.text("the pattern is too long, or has too many stars"));
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
            let hours_ago = |hours: u64| self.now.wall.earlier_by(hours * 3600 * 1000);
            let days_ago = |days: u32| hours_ago(u64::from(days) * 24);
            let settings = &self.hub.settings;
            let sweep = Sweep {
                messages_before: settings.retention_days.map(days_ago),
                uploads_before: settings.partial_hours.map(|hours| hours_ago(u64::from(hours))),
                files_before: settings.file_days.map(days_ago),
            };
            self.persist_quietly(Wait::Sweep, Op::Sweep(sweep));
        }
    }

    /// Sessions for which reading back failed, and that say nothing.
    fn read_back_again(&mut self) {
        let behind: Vec<ConnId> =
            self.hub.sessions().filter(|session| session.is_behind()).map(|session| session.conn).collect();
        for conn in behind {
            self.read_back(conn);
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

/// `yes` or `no`, as flags stand on the wire.
fn yes_no(flag: bool) -> &'static str {
    if flag { "yes" } else { "no" }
}

#[cfg(test)]
mod tests;

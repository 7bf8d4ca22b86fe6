//! Judges what the transport was given by what the store committed, line by line, as it happens. Long,
//! because the rules of one line, one login and one message share the same few records.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};

use downstream::ops::{AccountId, Answer, ConversationId, Op, Outcome, Query, Refused, Sha256};
use downstream::protocol::{Target, Timestamp};
use downstream::session::ConnId;

use super::backend::Written;
use super::exchanges::{rows_of_answer, rows_of_outcome};
use super::files::{reply_of, rows_of};
use super::model::{Message, Model, News};
use super::wire::ServerLine;

/// What a line that was given to the core is.
#[derive(Debug, Clone)]
pub enum Kind {
    /// `/msg` or bare text; of bare text the targets are not known.
    Msg {
        targets: Vec<String>,
        body: String,
    },
    Post {
        target: String,
        body: String,
    },
    Enter {
        user: String,
        secret: String,
    },
    Register {
        user: String,
    },
    /// `/logout` and `/unregister`.
    Leave,
    AckMode {
        manual: bool,
    },
    Watch(Vec<String>),
    Unwatch(Vec<String>),
    FetchUnread,
    FetchPage,
    Signal {
        user: String,
        body: String,
    },
    /// Commands whose rows are exactly what the store answered.
    Rows,
    /// Commands whose reply is.
    Reply,
    Other,
}

/// A line that was given to the core and is to be answered.
#[derive(Debug, Clone)]
pub struct Given {
    /// `verb[@label]`, as the reply must begin.
    pub head: String,
    pub kind: Kind,
    /// Writes committed when it was given.
    pub index: u64,
}

/// A login, from the commit of its opening.
pub struct Login {
    pub account: AccountId,
    pub name: String,
    /// It was answered.
    pub ready: bool,
    fresh: bool,
    /// Messages that it must get.
    pub due: BTreeMap<ConversationId, BTreeSet<u64>>,
    /// Messages that it may get, until the core hears that it left.
    optional: BTreeMap<ConversationId, BTreeSet<u64>>,
    last: BTreeMap<ConversationId, u64>,
    /// All that was unread at the opening, in order: time, log, number, bytes.
    missed: Vec<(Timestamp, ConversationId, u64, usize)>,
    got_missed: Vec<(ConversationId, u64)>,
    got_unread: Vec<(String, u64, u64, u64)>,
    claimed: u64,
    /// A room was left since the opening.
    touched: bool,
    /// What was written to it, by the count of bytes at its end.
    written: VecDeque<(u64, ConversationId, u64)>,
    /// What it was sent as an event or by `/fetch`.
    sent: BTreeSet<(ConversationId, u64)>,
    /// Signals that it must get.
    signals: BTreeSet<u64>,
    /// Signals that were acknowledged before they were sent: it may get them.
    late_signals: BTreeSet<u64>,
    last_signal: u64,
}

/// One connection, seen from outside.
#[derive(Default)]
pub struct View {
    pub expected: VecDeque<Given>,
    rows: Vec<String>,
    greeted: bool,
    pub bye: Option<String>,
    /// The core has let go of it.
    pub closing: bool,
    pub manual: bool,
    pub login: Option<Login>,
    /// Bytes so far.
    pub sent: u64,
    watching: BTreeSet<String>,
}

#[derive(Default)]
pub struct Oracle {
    pub model: Model,
    pub views: BTreeMap<ConnId, View>,
    /// Messages that some session of the account has shown to have got, in auto mode.
    shown: HashSet<(AccountId, ConversationId, u64)>,
    /// Accounts whose markers a lost batch has kept back.
    pub unlucky: BTreeSet<AccountId>,
    pub delivered: u64,
    /// Tokens that were shown, with whose they are.
    pub tokens: Vec<(String, String)>,
    /// The rows that the reply under way on a connection must have.
    rows: BTreeMap<ConnId, Vec<String>>,
}

type Checked = Result<(), String>;

const MISSED_MAX: usize = 100;
const MISSED_BYTES: usize = 48 * 1024;
const ROW: usize = 160;

fn wrong<T>(text: impl Into<String>) -> Result<T, String> {
    Err(text.into())
}

impl Oracle {
    pub fn opened(&mut self, conn: ConnId) {
        self.views.insert(conn, View::default());
    }

    pub fn view(&self, conn: ConnId) -> Option<&View> {
        self.views.get(&conn)
    }

    pub fn closing(&mut self, conn: ConnId) {
        if let Some(view) = self.views.get_mut(&conn) {
            view.closing = true;
            view.login = None;
        }
    }

    /// A line goes to the core; `flushed` are the bytes that the core knows to be taken.
    pub fn given(&mut self, conn: ConnId, given: Option<Given>, readable: bool, flushed: u64) {
        let index = self.model.index;
        let Some(view) = self.views.get_mut(&conn) else { return };
        if readable
            && !view.manual
            && let Some(login) = view.login.as_mut().filter(|login| login.ready)
        {
            let count = login.written.iter().take_while(|(end, ..)| *end <= flushed).count();
            for (_, conversation, id) in login.written.drain(..count) {
                self.shown.insert((login.account, conversation, id));
            }
        }
        view.expected.extend(given.map(|given| Given { index, ..given }));
    }

    /// The core submits a write while it handles something of `conn`.
    pub fn submitted(&mut self, conn: Option<ConnId>, op: &Op) -> Checked {
        let Op::AutoAck { account, marks } = op else { return Ok(()) };
        if conn.and_then(|conn| self.view(conn)).is_none_or(|view| view.manual) {
            return wrong("read markers move by themselves in manual mode");
        }
        for (conversation, id) in marks {
            let shown = |message: &Message| self.shown.contains(&(*account, *conversation, message.id));
            let mut unread = self.model.unread_in(*account, *conversation);
            let jumped = unread.find(|message| message.id <= id.0 && !message.old && !shown(message));
            if let Some(message) = jumped {
                return wrong(format!("the marker of {conversation:?} goes to {id} over {}", message.id));
            }
        }
        Ok(())
    }

    // ---- the store ---------------------------------------------------------------------------------

    pub fn committed(&mut self, written: &Written, passwords: &BTreeMap<[u8; 32], String>) -> Checked {
        let mut news = Vec::new();
        self.model.committed(&written.op, &written.result, written.owner, passwords, &mut news)?;
        self.rows.extend(written.owner.zip(written.result.as_ref().ok().and_then(rows_of_outcome)));
        if let (Op::DropSignal { account, id }, Ok(_)) = (&written.op, &written.result) {
            for login in self.views.values_mut().filter_map(|view| view.login.as_mut()) {
                if login.account == *account && login.signals.remove(id) {
                    login.late_signals.insert(*id);
                }
            }
        }
        match &written.result {
            Ok(Outcome::SessionOpened(opened)) => self.opening(written.owner, opened.account),
            Ok(Outcome::Registered(account)) => self.opening(written.owner, *account),
            Ok(Outcome::Acked(_)) => {
                if let Op::AutoAck { account, .. } | Op::Ack { account, .. } = &written.op {
                    self.prune(*account);
                }
            }
            _ => {}
        }
        for item in news {
            match item {
                News::Message(conversation, at) => self.message(written.owner, conversation, at),
                News::Left(account, conversation) => {
                    for login in self.views.values_mut().filter_map(|view| view.login.as_mut()) {
                        if login.account == account {
                            let due = login.due.remove(&conversation).unwrap_or_default();
                            login.optional.entry(conversation).or_default().extend(due);
                            login.touched = true;
                        }
                    }
                }
                News::Old => self.aged(),
            }
        }
        Ok(())
    }

    fn opening(&mut self, owner: Option<ConnId>, account: AccountId) {
        let mut missed = Vec::new();
        for id in self.model.conversations_of(account) {
            let unread = self.model.unread_in(account, id);
            missed.extend(unread.map(|message| (message.time, id, message.id, message.body.len())));
        }
        missed.sort();
        let name = self.model.accounts.get(&account).map(|account| account.name.clone()).unwrap_or_default();
        let Some(view) = owner.and_then(|conn| self.views.get_mut(&conn)).filter(|view| !view.closing) else { return };
        view.login = Some(Login {
            account,
            name,
            ready: false,
            fresh: false,
            due: BTreeMap::new(),
            optional: BTreeMap::new(),
            last: BTreeMap::new(),
            missed,
            got_missed: Vec::new(),
            got_unread: Vec::new(),
            claimed: 0,
            touched: false,
            written: VecDeque::new(),
            sent: BTreeSet::new(),
            signals: BTreeSet::new(),
            late_signals: BTreeSet::new(),
            last_signal: 0,
        });
    }

    fn message(&mut self, owner: Option<ConnId>, conversation: ConversationId, at: usize) {
        let Some(found) = self.model.conversations.get(&conversation) else { return };
        let Some(message) = found.log.get(at) else { return };
        for (conn, view) in &mut self.views {
            if let Some(login) = view.login.as_mut().filter(|login| found.members.contains(&login.account))
                && owner != Some(*conn)
            {
                login.due.entry(conversation).or_default().insert(message.id);
            }
        }
    }

    /// What is old may be deleted before it is delivered.
    fn aged(&mut self) {
        for login in self.views.values_mut().filter_map(|view| view.login.as_mut()) {
            for (conversation, due) in &mut login.due {
                let log = self.model.conversations.get(conversation).map_or(&[][..], |found| &found.log);
                let old: Vec<u64> =
                    due.iter().filter(|id| log.get(**id as usize - 1).is_none_or(|m| m.old)).copied().collect();
                for id in old {
                    due.remove(&id);
                    login.optional.entry(*conversation).or_default().insert(id);
                }
            }
        }
    }

    /// Forgets what lies below the markers.
    fn prune(&mut self, account: AccountId) {
        if self.shown.len() > 4096 {
            let markers = &self.model.markers;
            self.shown.retain(|(owner, conversation, id)| {
                *owner != account || markers.get(&(*owner, *conversation)).is_none_or(|marker| id > marker)
            });
        }
    }

    /// A read was answered.
    pub fn looked_up(&mut self, owner: Option<ConnId>, query: &Query, answer: &Answer) -> Checked {
        self.rows.extend(owner.zip(rows_of_answer(query, answer).or_else(|| rows_of(query, answer))));
        self.model.looked_up(query, answer)
    }

    /// Before the core is told.
    pub fn telling(&mut self, owner: Option<ConnId>, op: &Op, result: &Result<Outcome, Refused>) {
        self.model.telling(op, result);
        let reply = result.as_ref().ok().and_then(reply_of);
        self.rows.extend(owner.zip(reply.map(|reply| vec![reply])));
        let Ok(Outcome::Signalled(stored)) = result else { return };
        let waits = self.model.exchanges.waiting(stored.receiver.id).any(|(id, _)| id == stored.id);
        for (conn, view) in &mut self.views {
            let login = view.login.as_mut().filter(|login| login.ready && login.account == stored.receiver.id);
            if let Some(login) = login
                && owner != Some(*conn)
            {
                if waits {
                    login.signals.insert(stored.id)
                } else {
                    login.late_signals.insert(stored.id)
                };
            }
        }
    }

    /// The core was told.
    pub fn told(&mut self, op: &Op, result: &Result<Outcome, Refused>) {
        for (account, conversation) in self.model.told(op, result) {
            for login in self.views.values_mut().filter_map(|view| view.login.as_mut()) {
                if login.account == account {
                    login.optional.remove(&conversation);
                }
            }
        }
    }

    // ---- the wire ----------------------------------------------------------------------------------

    /// Bytes were queued for a connection.
    pub fn queued(&mut self, conn: ConnId, bytes: &[u8]) -> Checked {
        let text = std::str::from_utf8(bytes).map_err(|_| "not UTF-8")?;
        if !text.ends_with('\n') {
            return wrong("a line without an ending");
        }
        for line in text.split_terminator('\n') {
            let Some(view) = self.views.get_mut(&conn) else { return wrong("sent to a connection that is gone") };
            if view.closing {
                return wrong("sent behind the end");
            }
            view.sent += line.len() as u64 + 1;
            self.line(conn, line).map_err(|why| {
                let cut = (0..=200.min(line.len())).rev().find(|at| line.is_char_boundary(*at)).unwrap_or(0);
                format!("{why}\n  in the line {:?}", &line[..cut])
            })?;
        }
        self.welcomed(conn)
    }

    fn line(&mut self, conn: ConnId, line: &str) -> Checked {
        let Some(view) = self.views.get_mut(&conn) else { return Ok(()) };
        if view.bye.is_some() {
            return wrong("a line behind the goodbye");
        }
        let read = ServerLine::read(line)?;
        if !std::mem::replace(&mut view.greeted, true) && !line.starts_with("* hello ") {
            return wrong("no greeting");
        }
        match read.class {
            "-" => {
                if view.expected.is_empty() {
                    return wrong("a row that nobody asked for");
                }
                view.rows.push(line.to_owned());
                Ok(())
            }
            "*" => {
                if !view.rows.is_empty() {
                    return wrong("an event between rows and their reply");
                }
                read.check_event()?;
                self.event(conn, &read)
            }
            class => {
                let Some(given) = view.expected.pop_front() else { return wrong("a reply to nothing") };
                if given.head != read.word(0)? {
                    return wrong(format!("a reply to {} where one to {} is due", read.words[0], given.head));
                }
                let rows = std::mem::take(&mut view.rows);
                if class == "OK" {
                    return self.accepted(conn, given, &read, &rows);
                }
                read.check_error()?;
                if !rows.is_empty() {
                    return wrong("rows in front of an error");
                }
                self.refused(conn, &given, &read)
            }
        }
    }

    /// The message that a line shows, which must be there exactly so.
    fn find(&self, id: u64, body: &str, target: &str, sender: &str) -> Option<(ConversationId, &Message)> {
        self.model.by_body.get(body)?.iter().find_map(|(conversation, at)| {
            let message = self.model.conversations.get(conversation)?.log.get(*at)?;
            let fits = message.id == id
                && &*message.body == body
                && message.target.as_str() == target
                && message.sender_name.as_str() == sender;
            fits.then_some((*conversation, message))
        })
    }

    fn accepted(&mut self, conn: ConnId, given: Given, read: &ServerLine<'_>, rows: &[String]) -> Checked {
        let name = self.view(conn).and_then(|view| view.login.as_ref()).map_or("", |login| login.name.as_str());
        let stored = |id: u64, body: &str, target: &str| -> Checked {
            match self.find(id, body, target, name) {
                Some((_, message)) if message.answered => Ok(()),
                Some(_) => wrong("acknowledged too early"),
                None => wrong("acknowledged, but not stored"),
            }
        };
        match &given.kind {
            Kind::Msg { targets, body } if targets.len() > 1 => {
                let (mut count, mut failed) = (0, 0);
                if rows.len() != targets.len() {
                    return wrong("not one row a target");
                }
                for (row, target) in rows.iter().zip(targets) {
                    let row = ServerLine::read(row)?;
                    if row.word(1)? != target.as_str() {
                        return wrong(format!("a row for {} where {target} is due", row.words[1]));
                    }
                    if row.word(0)? == "msg" {
                        stored(row.number("id")?, body, target)?;
                        count += 1;
                    } else {
                        let by_body = self.model.by_body.get(body.as_str()).into_iter().flatten();
                        let refused_but_there = by_body
                            .filter_map(|(c, at)| self.model.conversations.get(c)?.log.get(*at))
                            .any(|m| m.target.as_str() == target.as_str());
                        if refused_but_there {
                            return wrong(format!("refused to {target}, but stored"));
                        }
                        failed += 1;
                    }
                }
                if (read.number("count")?, read.number("failed")?) != (count, failed) {
                    return wrong("the reply counts otherwise than its rows");
                }
            }
            Kind::Msg { body, .. } | Kind::Post { body, .. } => {
                let to = read.key("to").ok_or("no to=")?;
                if let Kind::Post { target, .. } = &given.kind
                    && to != target
                {
                    return wrong("sent to somebody else");
                }
                stored(read.number("id")?, body, to)?;
            }
            Kind::Enter { user, secret } => {
                self.proven(user, secret, given.index)?;
                return self.entered(conn, user, read.number("unread")?);
            }
            Kind::Register { user } => return self.entered(conn, user, 0),
            Kind::Leave => {
                if let Some(view) = self.views.get_mut(&conn) {
                    view.login = None;
                    view.manual = false;
                    view.watching.clear();
                }
            }
            Kind::AckMode { manual } => {
                if let Some(view) = self.views.get_mut(&conn) {
                    view.manual = *manual;
                }
            }
            Kind::Watch(names) => {
                if let Some(view) = self.views.get_mut(&conn) {
                    view.watching.extend(names.iter().cloned());
                }
            }
            Kind::Unwatch(names) => {
                if let Some(view) = self.views.get_mut(&conn) {
                    view.watching.retain(|name| !names.contains(name));
                }
            }
            Kind::Signal { user, body } => {
                let found = self.model.exchanges.signal_by_body.get(body.as_str());
                let (to, id) = found.ok_or("acknowledged, but not stored")?;
                let name = self.model.accounts.get(to).map_or("", |account| account.name.as_str());
                let signal = self.model.exchanges.signals.get(&(*to, *id)).filter(|signal| signal.answered);
                let fits = name == user && read.number("id")? == *id;
                if !fits || signal.is_none_or(|signal| read.key("time") != Some(&*signal.time.to_string())) {
                    return wrong("acknowledged as another, or too early");
                }
            }
            Kind::Rows => {
                let expected = self.rows.remove(&conn).ok_or("rows that nobody read")?;
                if *rows != expected {
                    return wrong(format!("{} rows, not the {} that were read", rows.len(), expected.len()));
                }
            }
            Kind::Reply => {
                let expected = self.rows.remove(&conn).ok_or("a reply to what nobody stored")?;
                let found = read.words.get(1..).unwrap_or_default().join(" ");
                if expected != [found] {
                    return wrong(format!("the reply is not {expected:?}"));
                }
            }
            Kind::FetchUnread | Kind::FetchPage => return self.fetched(conn, &given, read, rows),
            Kind::Other => {
                let name = self.view(conn).and_then(|view| view.login.as_ref()).map(|login| login.name.clone());
                self.tokens.extend(name.zip(read.key("token").map(str::to_owned)));
            }
        }
        Ok(())
    }

    fn refused(&mut self, conn: ConnId, given: &Given, read: &ServerLine<'_>) -> Checked {
        match &given.kind {
            Kind::Msg { body, .. } if self.model.by_body.contains_key(body.as_str()) => {
                return wrong(format!("refused as {}, but stored", read.words[1]));
            }
            Kind::Signal { body, .. } if self.model.exchanges.signal_by_body.contains_key(body.as_str()) => {
                return wrong(format!("refused as {}, but stored", read.words[1]));
            }
            Kind::Enter { .. } | Kind::Register { .. } => {
                if let Some(view) = self.views.get_mut(&conn)
                    && view.login.as_ref().is_some_and(|login| !login.ready)
                {
                    view.login = None;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether a secret was good at some time since the line was given.
    fn proven(&self, user: &str, secret: &str, since: u64) -> Checked {
        let account = self.model.accounts.values().find(|account| account.name == user).ok_or("nobody logged in")?;
        let good = if secret.is_empty() {
            true // by certificate: checked where it was committed
        } else if secret.starts_with("token:") {
            let hash = Sha256::of(secret.as_bytes());
            account.tokens.iter().any(|(known, _, ended)| *known == hash && ended.is_none_or(|ended| ended > since))
        } else {
            let mut ends = account.passwords.iter().skip(1).map(|(from, _)| *from).chain([u64::MAX]);
            account.passwords.iter().any(|(_, known)| ends.next().is_some_and(|end| end > since) && known == secret)
        };
        if good { Ok(()) } else { wrong("logged in with a wrong secret") }
    }

    fn entered(&mut self, conn: ConnId, user: &str, unread: u64) -> Checked {
        let login = self.views.get_mut(&conn).and_then(|view| view.login.as_mut());
        let Some(login) = login.filter(|login| login.name == user && !login.ready) else {
            return wrong("a login that was not stored");
        };
        (login.ready, login.fresh, login.claimed) = (true, true, unread);
        Ok(())
    }

    fn fetched(&mut self, conn: ConnId, given: &Given, read: &ServerLine<'_>, rows: &[String]) -> Checked {
        if read.number("count")? != rows.len() as u64 || rows.len() > 1000 {
            return wrong("a page with another count of rows");
        }
        let mut found = Vec::new();
        for row in rows {
            let row = ServerLine::read(row)?;
            let (id, time, target, sender, body) = row.message()?;
            let Some((conversation, _)) = self.find(id, body, target, sender) else {
                return wrong(format!("a page shows message {id} of {target}, which is not there"));
            };
            found.push((time, conversation, id));
        }
        if !found.is_sorted_by(|a, b| a < b) {
            return wrong("a page out of order");
        }
        let Some(view) = self.views.get_mut(&conn) else { return Ok(()) };
        let end = view.sent;
        if let Some(login) = &mut view.login {
            for (_, conversation, id) in found {
                login.written.push_back((end, conversation, id));
                if matches!(given.kind, Kind::FetchUnread) {
                    login.sent.insert((conversation, id));
                }
            }
        }
        Ok(())
    }

    // ---- events ------------------------------------------------------------------------------------

    fn event(&mut self, conn: ConnId, read: &ServerLine<'_>) -> Checked {
        let kind = read.word(0)?;
        let Some(view) = self.views.get_mut(&conn) else { return Ok(()) };
        match kind {
            "hello" => return if view.sent > 400 { wrong("a late greeting") } else { Ok(()) },
            "bye" => {
                view.bye = Some(read.word(1)?.to_owned());
                return Ok(());
            }
            "msg" | "file" => return self.message_event(conn, read),
            "signal" => return self.signal_event(conn, read),
            _ => {}
        }
        let Some(login) = view.login.as_mut().filter(|login| login.ready) else {
            return wrong("an event for nobody");
        };
        let account = login.account;
        let in_room = |name: &str| self.model.known_of(account).any(|(_, known)| known == name);
        match kind {
            "unread" if login.fresh => {
                let row =
                    (read.word(1)?.to_owned(), read.number("count")?, read.number("first")?, read.number("last")?);
                login.got_unread.push(row);
                Ok(())
            }
            "unread" => wrong("an unread event without a login"),
            "roster" => {
                let room = self.model.room_of(account, read.word(1)?).filter(|_| in_room(read.word(1).unwrap_or("")));
                let last = room.map_or(0, |room| self.model.exchanges.last_epoch(room));
                // Who has left by now, where the core does not know yet, still hears it.
                if room.is_none() && in_room(read.word(1)?) || read.word(2)?.parse::<usize>().is_ok_and(|e| e <= last) {
                    Ok(())
                } else {
                    wrong("a roster of others, or an entry that is not there")
                }
            }
            "join" | "leave" | "kick" | "unban" | "op" | "deop" | "topic" => {
                if in_room(read.word(1)?) {
                    Ok(())
                } else {
                    wrong("a room event for a stranger")
                }
            }
            "ban" => {
                let room = read.word(1)?;
                let open = || {
                    let mut rooms = self.model.conversations.values().filter_map(|c| c.room.as_ref());
                    rooms.any(|info| info.name.as_str() == room && !info.private)
                };
                if in_room(room) || (read.word(2)? == login.name && open()) {
                    Ok(())
                } else {
                    wrong("a ban that is nobody's business")
                }
            }
            "typing" => {
                let target = read.word(1)?;
                let own = read.word(2)? == login.name;
                if !own && (target == login.name || in_room(target)) { Ok(()) } else { wrong("typing for a stranger") }
            }
            "online" | "offline" | "away" => {
                if view.watching.contains(read.word(1)?) {
                    Ok(())
                } else {
                    wrong("presence that nobody asked for")
                }
            }
            "seen" => {
                let pair = |c: &super::model::Conversation| {
                    let names = |id: &AccountId| self.model.accounts.get(id).is_some_and(|a| read.words[2] == a.name);
                    c.room.is_none() && c.members.contains(&account) && c.members.iter().any(names)
                };
                if self.model.conversations.values().any(pair) { Ok(()) } else { wrong("a receipt from a stranger") }
            }
            _ => Ok(()),
        }
    }

    fn signal_event(&mut self, conn: ConnId, read: &ServerLine<'_>) -> Checked {
        let (id, time, sender, body) = read.signal()?;
        let Some(view) = self.views.get_mut(&conn) else { return Ok(()) };
        let Some(login) = view.login.as_mut().filter(|login| login.ready) else {
            return wrong("a signal for nobody");
        };
        let Some(signal) = self.model.exchanges.signals.get(&(login.account, id)) else {
            return wrong("a signal that is not stored");
        };
        if (signal.time, &*signal.sender, &*signal.body) != (time, sender, body) || !signal.answered {
            return wrong("a signal before its commit, or another");
        }
        if signal.from == Some(conn) {
            return wrong("its own signal");
        }
        if id <= login.last_signal || !(login.signals.remove(&id) || login.late_signals.remove(&id)) {
            return wrong("a signal a second time, out of order, or from before the login");
        }
        login.last_signal = id;
        Ok(())
    }

    fn message_event(&mut self, conn: ConnId, read: &ServerLine<'_>) -> Checked {
        let (id, time, target, sender, body) = read.message()?;
        let missed = read.key("missed").is_some();
        let Some((conversation, message)) = self.find(id, body, target, sender) else {
            return wrong("a message that is not stored");
        };
        if message.time != time || !message.answered || message.is_file != (read.words[0] == "file") {
            return wrong("a message before its commit, or with another time");
        }
        let is_room = matches!(message.target, Target::Room(_));
        let found = self.model.conversations.get(&conversation).ok_or("no conversation")?;
        let Some(view) = self.views.get_mut(&conn) else { return Ok(()) };
        let Some(login) = view.login.as_mut().filter(|login| login.ready) else {
            return wrong("a message for nobody");
        };
        let place = (login.account, conversation);
        if !(if is_room { self.model.known.contains_key(&place) } else { found.members.contains(&login.account) }) {
            return wrong("a message for a stranger");
        }
        if missed {
            if !login.fresh {
                return wrong("a missed message without a login");
            }
            login.got_missed.push((conversation, id));
        } else if let Some(due) = login.due.get_mut(&conversation).filter(|due| due.contains(&id)) {
            if let Some(first) = due.first().filter(|first| **first < id) {
                return wrong(format!("message {first} was passed over"));
            }
            due.remove(&id);
        } else if !login.optional.get_mut(&conversation).is_some_and(|optional| optional.remove(&id)) {
            return wrong("a message that is not due: its own, read or left before, or a second time");
        }
        let last = login.last.entry(conversation).or_default();
        if id <= *last {
            return wrong(format!("message {id} behind {last}"));
        }
        *last = id;
        login.written.push_back((view.sent, conversation, id));
        login.sent.insert((conversation, id));
        self.delivered += 1;
        Ok(())
    }

    /// After the piece that held the reply to a login: all that was unread must have come, or been told.
    fn welcomed(&mut self, conn: ConnId) -> Checked {
        let Some(view) = self.views.get_mut(&conn) else { return Ok(()) };
        let manual = view.manual;
        let Some(login) = view.login.as_mut().filter(|login| login.fresh) else { return Ok(()) };
        login.fresh = false;
        let got = std::mem::take(&mut login.got_missed);
        let mut announced = std::mem::take(&mut login.got_unread);
        let missed = std::mem::take(&mut login.missed);
        if self.model.swept || login.touched {
            let fits = |(conversation, id): &(_, _)| missed.iter().any(|(_, c, i, _)| c == conversation && i == id);
            return if got.iter().all(fits) { Ok(()) } else { wrong("missed messages that were read") };
        }
        let mut left = MISSED_BYTES;
        let prefix = missed.iter().take(if manual { 0 } else { MISSED_MAX }).enumerate().take_while(|(n, message)| {
            let fits = *n == 0 || message.3 + ROW <= left;
            left = left.saturating_sub(message.3 + ROW);
            fits
        });
        let expected: Vec<_> = prefix.map(|(_, (_, conversation, id, _))| (*conversation, *id)).collect();
        if got != expected || login.claimed != missed.len() as u64 {
            return wrong(format!("missed {got:?} of {}, not {expected:?} of {}", login.claimed, missed.len()));
        }
        let account = login.account;
        let mut rest: BTreeMap<ConversationId, (u64, u64, u64)> = BTreeMap::new();
        for (_, conversation, id, _) in &missed[expected.len()..] {
            let row = rest.entry(*conversation).or_insert((0, *id, *id));
            (row.0, row.1, row.2) = (row.0 + 1, row.1.min(*id), row.2.max(*id));
        }
        let mut rest: Vec<_> =
            rest.into_iter().map(|(id, (n, first, last))| (self.model.named(account, id), n, first, last)).collect();
        rest.sort();
        announced.sort();
        if rest == announced { Ok(()) } else { wrong(format!("unread {announced:?}, not {rest:?}")) }
    }

    // ---- when nothing is under way -----------------------------------------------------------------

    /// Everybody who reads has got everything.
    pub fn complete(&self, conn: ConnId) -> Checked {
        let Some(view) = self.view(conn).filter(|view| !view.closing) else { return Ok(()) };
        if let Some(given) = view.expected.front() {
            return wrong(format!("{} was never answered", given.head));
        }
        if let Some(login) = view.login.as_ref().filter(|login| !login.signals.is_empty()) {
            return wrong(format!("never got the signals {:?}", login.signals));
        }
        let mut due = view.login.iter().flat_map(|login| &login.due);
        match due.find(|(_, due)| !due.is_empty()) {
            Some((conversation, due)) => wrong(format!("never got {due:?} of {conversation:?}")),
            None => Ok(()),
        }
    }

    /// Everything unread that this session was sent without a gap, and answered with a line, is read.
    pub fn acknowledged(&self, conn: ConnId) -> Checked {
        let Some(view) = self.view(conn).filter(|view| !view.manual) else { return Ok(()) };
        let Some(login) = view.login.as_ref().filter(|login| !self.unlucky.contains(&login.account)) else {
            return Ok(());
        };
        for id in self.model.conversations_of(login.account) {
            let first = self.model.unread_in(login.account, id).next();
            if let Some(message) = first.filter(|message| login.sent.contains(&(id, message.id))) {
                return wrong(format!("message {} of {id:?} was sent and shown, but is unread", message.id));
            }
        }
        Ok(())
    }
}

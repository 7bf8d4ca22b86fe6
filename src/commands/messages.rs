//! Messages: sending, reading, and what counts as read.

use std::sync::Arc;

use super::{Core, Wait as AnyWait, fault, rate_limited, yes_no};
use crate::hub::Audience;
use crate::hub::effects::Effect;
use crate::ops::{
    Acked, Answer, Appended, ConversationId, Destination, Done, Entry, Form, MessageId, Op, Outcome, Page, PageRow,
    Person, Query, Refused, UnreadRow,
};
use crate::protocol::request::{Addressee, Bound, ParseError, Sentence, message_body};
use crate::protocol::{Code, Head, Line, PostKey, Request, Target};
use crate::session::delivery::Lines;
use crate::session::{ConnId, Overlap, Session};

/// Messages of one page.
pub(super) const PAGE_MAX: usize = 1000;
/// Messages of a page where the client names no number.
const PAGE_DEFAULT: usize = 100;
/// Bytes of one page.
pub(super) const PAGE_BYTES: usize = 1 << 20;

/// What a command about messages waits for.
#[derive(Debug)]
pub(super) enum Wait {
    /// Messages on their way to the disk.
    Append(Box<Append>),
    FetchUnread,
    /// A page, and behind which message it begins, where it begins behind one.
    Fetch(Option<MessageId>),
    Unread,
    Ack(Target),
}

/// What was said, to be told once it is stored.
#[derive(Debug)]
pub(super) struct Append {
    sender: Person,
    body: Arc<str>,
    /// In the order of the command: a target, or the row that it failed with.
    rows: Vec<Result<Target, String>>,
    /// The command named one target, so that its reply is no list.
    single: bool,
}

impl From<Wait> for AnyWait {
    fn from(wait: Wait) -> AnyWait {
        AnyWait::Messages(wait)
    }
}

impl Wait {
    /// Which others may be under way beside it.
    pub(super) fn overlap(&self) -> Overlap {
        match self {
            Wait::Append(_) => Overlap::Messages,
            Wait::FetchUnread | Wait::Fetch(_) | Wait::Unread | Wait::Ack(_) => Overlap::Nothing,
        }
    }
}

/// Whether a line asks for what is unread.
pub(super) fn reads_markers(sentence: &Sentence<'_>) -> bool {
    matches!(sentence, Sentence::Command(command) if matches!(command.verb.name, "fetch" | "unread"))
}

/// An `unread` row or event.
pub(super) fn unread(line: Line, row: &UnreadRow) -> Line {
    line.arg(&row.target).key("count", row.count).key("first", row.first).key("last", row.last)
}

impl Core {
    /// Submits a line that overlaps others. Nothing has happened where a reply comes back.
    ///
    /// # Errors
    /// The reply, if it can be given at once.
    pub(super) fn submit(&mut self, conn: ConnId, sentence: &Sentence<'_>) -> Result<(), Vec<u8>> {
        let head = match sentence {
            Sentence::Command(command) => command.head(),
            _ => Head { verb: "msg".into(), label: None },
        };
        let Some(member) = self.hub.session(conn).filter(|session| session.is_ready()).and_then(Session::member) else {
            return Err(Line::err(&head, Code::NotLoggedIn).text("/login or /register first").into());
        };
        let sender = member.person.clone();
        let (rows, single, body, key) = match sentence {
            Sentence::Text(text) => {
                let target = member.target.clone();
                let body = message_body(Some(text)).map_err(|error| fault(&head, &error))?;
                let target = target
                    .ok_or_else(|| fault(&head, &ParseError::Syntax("say /join #room or /to NAME first".to_owned())))?;
                (vec![Ok(target)], true, body, None)
            }
            Sentence::Command(command) => match command.request().map_err(|error| fault(&head, &error))? {
                Request::Msg { targets, body } => {
                    let single = targets.len() == 1;
                    (targets.into_iter().map(row).collect(), single, body, None)
                }
                Request::Post { target, key, body } => (vec![Ok(target)], true, body, Some(key)),
                Request::Signal { user, body } => return self.signal(conn, head, sender, user, body),
                Request::AckSignal { id } => {
                    self.ack_signal(conn, head, &sender, id);
                    return Ok(());
                }
                Request::Chunk { file, offset, data } => {
                    self.chunk(conn, head, &sender, file, offset, data);
                    return Ok(());
                }
                _ => return Err(Line::err(&head, Code::Internal).into()),
            },
            Sentence::Blank | Sentence::Fault(..) => return Err(Line::err(&head, Code::Internal).into()),
        };
        self.append(conn, head, sender, rows, single, body, key)
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of a message, used here and nowhere else")]
    fn append(
        &mut self,
        conn: ConnId,
        head: Head,
        sender: Person,
        rows: Vec<Result<Target, String>>,
        single: bool,
        body: &str,
        key: Option<PostKey>,
    ) -> Result<(), Vec<u8>> {
        if rows.iter().all(Result::is_err) {
            // Nothing to store; every row is known.
            let mut out = Vec::new();
            for invalid in rows.iter().filter_map(|row| row.as_ref().err()) {
                invalid_row(invalid).finish_into(&mut out);
            }
            Line::ok(&head).key("count", 0).key("failed", rows.len()).finish_into(&mut out);
            return Err(out);
        }
        let settings = &self.hub.settings;
        let (rate, burst, now) = (settings.messages_per_second, settings.message_burst, self.now.monotonic);
        if let Some(online) = self.hub.online_mut(sender.id) {
            online.rates.messages.take(rows.len(), rate, burst, now).map_err(|wait| rate_limited(&head, wait))?;
        }
        let targets: Vec<Target> = rows.iter().flatten().cloned().collect();
        let body: Arc<str> = body.into();
        let wait = Wait::Append(Box::new(Append { sender: sender.clone(), body: body.clone(), rows, single }));
        self.persist(conn, head, wait, Op::Append { sender, targets, body, key });
        Ok(())
    }

    pub(super) fn fetch_unread(&mut self, conn: ConnId, head: Head, me: &Person) {
        let query = Query::Unread { account: me.id, limit: PAGE_MAX, max_bytes: PAGE_BYTES };
        self.ask(conn, head, Wait::FetchUnread, query);
    }

    pub(super) fn fetch(
        &mut self,
        conn: ConnId,
        head: Head,
        me: &Person,
        target: Target,
        bound: Bound,
        limit: Option<u64>,
    ) {
        let limit = limit.map_or(PAGE_DEFAULT, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        if limit > PAGE_MAX {
            return self.reply(conn, fault(&head, &ParseError::TooMany(PAGE_MAX, "messages at a time")));
        }
        let (bound, after) = match bound {
            Bound::Newest => (crate::ops::Bound::Newest, None),
            Bound::Before(id) => (crate::ops::Bound::Before(MessageId(id)), None),
            Bound::After(id) => (crate::ops::Bound::After(MessageId(id)), Some(MessageId(id))),
        };
        let query = Query::Page { account: me.id, target, bound, limit, max_bytes: PAGE_BYTES };
        self.ask(conn, head, Wait::Fetch(after), query);
    }

    pub(super) fn messages_answered(&mut self, conn: ConnId, head: Head, me: Option<Person>, wait: Wait, done: Done) {
        match (wait, done) {
            (Wait::Append(append), Done::Op(Ok(Outcome::Appended(results)))) => {
                self.appended(conn, &head, &append, results);
            }
            (_, Done::Op(Err(refused)) | Done::Query(Err(refused))) => self.refuse(conn, &head, refused),
            (Wait::FetchUnread, Done::Query(Ok(Answer::Page(page)))) => {
                let Page { lines, rows, more, .. } = page;
                self.page(conn, &head, lines, rows.len(), more);
                self.note_unread(conn, &rows, more);
            }
            (Wait::Fetch(after), Done::Query(Ok(Answer::Page(page)))) => {
                let Page { lines, rows, more, oldest } = page;
                self.page(conn, &head, lines, rows.len(), more);
                if let (Some(first), Some(last)) = (rows.first(), rows.last()) {
                    let from = match after {
                        Some(after) => after,
                        // Of what lies before the first that there is nothing is left: no gap.
                        None if oldest == Some(first.id) => MessageId(0),
                        None => MessageId(first.id.0.saturating_sub(1)),
                    };
                    self.note_read(conn, first.conversation, from, last.id);
                }
            }
            (Wait::Unread, Done::Query(Ok(Answer::UnreadRows(rows)))) => {
                let mut out = Vec::new();
                for row in &rows {
                    unread(Line::row("unread"), row).finish_into(&mut out);
                }
                Line::ok(&head).key("count", rows.len()).finish_into(&mut out);
                self.send(conn, out);
            }
            (Wait::Ack(target), Done::Op(Ok(Outcome::Acked(acked)))) => {
                let read = acked.first().map_or(MessageId(0), |acked| acked.read);
                self.reply(conn, Line::ok(&head).key("target", target).key("id", read));
                if let Some(me) = me {
                    self.acked(&me, &acked);
                }
            }
            _ => self.misfit(conn, &head),
        }
    }

    // ---- what was stored ---------------------------------------------------------------------------

    fn appended(&mut self, conn: ConnId, head: &Head, append: &Append, results: Vec<Result<Appended, Refused>>) {
        let mut results = results.into_iter();
        if append.single {
            match results.next() {
                Some(Ok(appended)) => {
                    self.reply(conn, self.stored_line(head, &appended));
                    self.tell(conn, append, appended);
                }
                Some(Err(refused)) => self.refuse(conn, head, refused),
                None => self.misfit(conn, head),
            }
            return;
        }
        let mut out = Vec::new();
        let mut stored = Vec::new();
        for row in &append.rows {
            let line = match row {
                Err(invalid) => invalid_row(invalid),
                Ok(target) => match results.next() {
                    Some(Ok(appended)) => {
                        let line = Line::row("msg").arg(target).key("id", appended.id).key("time", appended.time);
                        stored.push(appended);
                        line
                    }
                    Some(Err(refused)) => Line::row("err").arg(target).arg(code(refused)),
                    None => Line::row("err").arg(target).arg(Code::Internal),
                },
            };
            line.finish_into(&mut out);
        }
        let failed = append.rows.len() - stored.len();
        Line::ok(head).key("count", stored.len()).key("failed", failed).finish_into(&mut out);
        self.send(conn, out);
        for appended in stored {
            self.tell(conn, append, appended);
        }
    }

    fn stored_line(&self, head: &Head, appended: &Appended) -> Line {
        let line = Line::ok(head).key("id", appended.id).key("time", appended.time);
        let line = match &appended.to {
            Destination::Room(room) => line.key("to", room),
            Destination::User(person) => line.key("to", &person.name).key("peer", self.whether_online(person)),
        };
        if appended.duplicate { line.key("dup", "yes") } else { line }
    }

    /// Tells everybody whom a stored message is for, encoded once.
    fn tell(&mut self, sender: ConnId, append: &Append, appended: Appended) {
        if appended.duplicate {
            return;
        }
        let Appended { to, conversation, id, time, .. } = appended;
        let (audience, target) = audience(&append.sender, conversation, to);
        let entry = Entry { conversation, id, time, target: &target, sender: &append.sender.name, file: None };
        self.tell_entry(sender, audience, &entry, &append.body);
    }

    /// Tells everybody of the audience what was stored, except the session that sent it; encoded once.
    pub(super) fn tell_entry(&mut self, sender: ConnId, audience: Audience, entry: &Entry<'_>, text: &str) {
        self.counts.stored += 1;
        let lines: Lines = entry.line(Form::Event, Vec::with_capacity(96)).text(text).finish().into();
        let due = self.hub.deliver(audience, entry.conversation, entry.id, Some(sender), &lines);
        self.counts.delivered += due.len() as u64;
        if !due.is_empty() {
            self.out.push(Effect::Fanout(due, lines));
        }
    }

    // ---- what was read -----------------------------------------------------------------------------

    /// The rows, as they were read, and the reply.
    fn page(&mut self, conn: ConnId, head: &Head, mut lines: Vec<u8>, count: usize, more: bool) {
        Line::ok(head).key("count", count).key("more", yes_no(more)).finish_into(&mut lines);
        self.counts.delivered += count as u64;
        self.send(conn, lines);
    }

    /// A page of all that is unread: of each conversation its first unread messages, without a gap. The
    /// last such page leaves no gap anywhere, also where one's own messages are the last of a log.
    fn note_unread(&mut self, conn: ConnId, rows: &[PageRow], more: bool) {
        let mut last: Vec<(ConversationId, MessageId)> = Vec::new();
        for row in rows {
            match last.iter_mut().find(|(conversation, _)| *conversation == row.conversation) {
                Some((_, id)) => *id = row.id,
                None => last.push((row.conversation, row.id)),
            }
        }
        for (conversation, id) in last {
            self.note_read(conn, conversation, MessageId(0), id);
        }
        let Some(session) = self.hub.session_mut(conn).filter(|_| !more) else { return };
        let at = session.sent;
        if let Some(member) = session.member_mut() {
            member.delivery.queued_all_unread(at);
        }
    }

    fn note_read(&mut self, conn: ConnId, conversation: ConversationId, from: MessageId, to: MessageId) {
        let Some(session) = self.hub.session_mut(conn) else { return };
        let at = session.sent;
        if let Some(member) = session.member_mut() {
            member.delivery.queued_unread(conversation, from, to, at);
        }
    }

    /// Markers of an account moved: its sessions know, and who wants to see it is told.
    pub(super) fn acked(&mut self, reader: &Person, acked: &[Acked]) {
        for mark in acked {
            for conn in self.hub.sessions_of(reader.id) {
                if let Some(member) = self.hub.member_mut(conn) {
                    member.delivery.marker_moved(mark.conversation, mark.read);
                }
            }
            if let Some(peer) = mark.tell {
                let sessions = self.hub.sessions_of(peer);
                let line = Line::event("seen").arg(&reader.name).arg(&reader.name).key("id", mark.read);
                self.event(&sessions, None, line);
            }
        }
    }

    // ---- who fell behind ---------------------------------------------------------------------------

    /// Reads back what a session missed, if it is time.
    pub(super) fn read_back(&mut self, conn: ConnId) {
        self.read_back_messages(conn);
        self.read_back_signals(conn);
    }

    fn read_back_messages(&mut self, conn: ConnId) {
        let limit = self.hub.settings.outbound_bytes as u64;
        let Some(session) = self.hub.session_mut(conn).filter(|session| session.is_ready()) else { return };
        let queued = session.queued();
        let Some(member) = session.member_mut() else { return };
        let login = member.login;
        let Some(ranges) = member.delivery.read_back(queued, limit) else { return };
        let max_bytes = usize::try_from(limit / 2).unwrap_or(usize::MAX);
        let pending = super::Pending { conn: Some(conn), me: None, head: Head::none(), wait: AnyWait::Backlog(login) };
        let ticket = self.ticket(pending);
        self.out.push(Effect::Ask(ticket, Query::Backlog { ranges, max_bytes }));
    }

    pub(super) fn backlog(&mut self, conn: ConnId, login: u64, answer: Result<Answer, Refused>) {
        let Some(session) = self.hub.session_mut(conn).filter(|session| session.is_ready()) else { return };
        let mut sent = session.sent;
        let Some(member) = session.member_mut().filter(|member| member.login == login) else { return };
        let Ok(Answer::Page(page)) = answer else {
            // Tried again when the reader has taken more or says something, or some time later; until then
            // it stays where it was.
            member.delivery.page_failed();
            return;
        };
        let mut out = Vec::new();
        let mut marks = Vec::new();
        member.delivery.take_page(&page.rows, page.more, |row| {
            out.extend_from_slice(page.line(row));
            marks.push((row.conversation, row.id, sent + out.len() as u64));
        });
        for &(conversation, id, at) in &marks {
            member.delivery.queued_live(conversation, id, at);
        }
        sent += out.len() as u64;
        debug_assert!(sent >= session.sent);
        self.counts.delivered += marks.len() as u64;
        if !out.is_empty() {
            self.send(conn, out);
        }
        self.catch_up(conn);
    }

    /// Sends what was held while the last page was read; asks for the next page where one is left.
    pub(super) fn catch_up(&mut self, conn: ConnId) {
        let Some(session) = self.hub.session_mut(conn) else { return };
        let mut at = session.sent;
        let Some(member) = session.member_mut() else { return };
        let mut due: Vec<(ConversationId, MessageId, u64)> = Vec::new();
        let mut lines: Vec<Lines> = Vec::new();
        member.delivery.catch_up(|conversation, id, held| {
            at += held.len() as u64;
            due.push((conversation, id, at));
            lines.push(held.clone());
        });
        for &(conversation, id, at) in &due {
            member.delivery.queued_live(conversation, id, at);
        }
        session.sent = at;
        self.counts.delivered += due.len() as u64;
        for held in lines {
            self.out.push(Effect::Fanout(vec![conn], held));
        }
        self.read_back_messages(conn);
    }
}

/// For whom something stored is, and what its line names as the target.
pub(super) fn audience(sender: &Person, conversation: ConversationId, to: Destination) -> (Audience, Target) {
    match to {
        Destination::Room(room) => (Audience::Room(conversation), Target::Room(room)),
        Destination::User(person) => (Audience::Pair(sender.id, person.id), Target::User(person.name)),
    }
}

/// The row of a list for what is no name.
fn invalid_row(text: &str) -> Line {
    Line::row("err").arg(text).arg(Code::NameInvalid)
}

fn row(addressee: Addressee<'_>) -> Result<Target, String> {
    match addressee {
        Addressee::Target(target) => Ok(target),
        Addressee::Invalid(text, _) => Err(text.to_owned()),
    }
}

/// The code that a row of a list shows for what the store refused.
fn code(refused: Refused) -> Code {
    match refused {
        Refused::NoSuchUser => Code::NoSuchUser,
        Refused::NoSuchRoom => Code::NoSuchRoom,
        Refused::NotMember | Refused::SubjectNotMember => Code::NotMember,
        Refused::E2eRequired => Code::E2eRequired,
        Refused::Quota(_) => Code::Quota,
        Refused::TooLong(_) => Code::TooLong,
        Refused::Forbidden => Code::Forbidden,
        Refused::Banned => Code::Banned,
        Refused::Conflict(_) | Refused::Epoch(_) | Refused::Offset(_) => Code::Conflict,
        Refused::NotBase64 => Code::Syntax,
        Refused::Checksum => Code::Checksum,
        Refused::DiskLow => Code::Busy,
        Refused::NotFound => Code::NotFound,
        Refused::NameTaken => Code::NameTaken,
        Refused::AuthFailed => Code::AuthFailed,
        Refused::RegistrationClosed => Code::RegistrationClosed,
        Refused::Internal => Code::Internal,
    }
}

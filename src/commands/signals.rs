//! Signals: small messages between programs, outside every conversation, kept until they are acknowledged.

use std::sync::Arc;

use super::messages::{PAGE_BYTES, PAGE_MAX};
use super::{Core, Wait as AnyWait, rate_limited, yes_no};
use crate::hub::effects::Effect;
use crate::hub::settings::EXCHANGE_BYTES;
use crate::ops::{Answer, Done, Op, Outcome, Person, Query, Refused, Signal, SignalStored};
use crate::protocol::{Code, Head, Line, UserName, is_envelope};
use crate::session::delivery::Lines;
use crate::session::{ConnId, Overlap};

/// What a command about signals waits for.
#[derive(Debug)]
pub(super) enum Wait {
    /// One on its way to the disk, to be told once it is there: from whom, and what.
    Add(Person, Arc<str>),
    Read,
    Drop(u64),
}

impl Wait {
    /// Which others may be under way beside it.
    pub(super) fn overlap(&self) -> Overlap {
        match self {
            Wait::Add(..) | Wait::Drop(_) => Overlap::Messages,
            Wait::Read => Overlap::Nothing,
        }
    }
}

impl From<Wait> for AnyWait {
    fn from(wait: Wait) -> AnyWait {
        AnyWait::Signals(wait)
    }
}

impl Core {
    /// Submits a signal.
    ///
    /// # Errors
    /// The reply, if it can be given at once.
    pub(super) fn signal(
        &mut self,
        conn: ConnId,
        head: Head,
        sender: Person,
        receiver: UserName,
        body: &str,
    ) -> Result<(), Vec<u8>> {
        // The rate comes first: what is no envelope costs as much to look at.
        self.take_exchanges(&head, &sender, body.len()).map_err(Line::finish)?;
        if !is_envelope(body) {
            let line = Line::err(&head, Code::E2eRequired);
            return Err(line.text("a signal is e2e: and base64, as an encrypting program makes it").into());
        }
        let body: Arc<str> = body.into();
        let op = Op::AddSignal { sender: sender.clone(), receiver, body: body.clone() };
        self.persist(conn, head, Wait::Add(sender, body), op);
        Ok(())
    }

    /// Counts an exchange of so many bytes.
    ///
    /// # Errors
    /// The reply where it comes too soon.
    pub(super) fn take_exchanges(&mut self, head: &Head, me: &Person, bytes: usize) -> Result<(), Line> {
        let ((rate, burst), now) = (self.hub.settings.exchange_rate(), self.now.monotonic);
        let Some(online) = self.hub.online_mut(me.id) else { return Ok(()) };
        let count = bytes.div_ceil(EXCHANGE_BYTES).max(1);
        online.rates.exchanges.take(count, rate, burst, now).map_err(|wait| rate_limited(head, wait))
    }

    pub(super) fn ack_signal(&mut self, conn: ConnId, head: Head, me: &Person, id: u64) {
        self.persist(conn, head, Wait::Drop(id), Op::DropSignal { account: me.id, id });
    }

    pub(super) fn signals(&mut self, conn: ConnId, head: Head, me: &Person, after: u64) {
        let query = Query::Signals { account: me.id, after, limit: PAGE_MAX, max_bytes: PAGE_BYTES };
        self.ask(conn, head, Wait::Read, query);
    }

    pub(super) fn signals_answered(&mut self, conn: ConnId, head: Head, wait: Wait, done: Done) {
        match (wait, done) {
            (Wait::Add(sender, body), Done::Op(Ok(Outcome::Signalled(stored)))) => {
                self.reply(conn, Line::ok(&head).key("id", stored.id).key("time", stored.time));
                self.tell_signal(conn, &sender, &body, &stored);
            }
            (Wait::Add(..), Done::Op(Err(Refused::Quota(max)))) => {
                let line = Line::err(&head, Code::Quota).key("max", max);
                self.reply(conn, line.text("so many of your signals to them wait already"));
            }
            (Wait::Drop(_), Done::Op(Err(Refused::NotFound))) => {
                self.error(conn, &head, Code::NotFound, "no signal of that number waits (any more)");
            }
            (_, Done::Op(Err(refused)) | Done::Query(Err(refused))) => self.refuse(conn, &head, refused),
            (Wait::Drop(id), Done::Op(Ok(_))) => {
                self.reply(conn, Line::ok(&head).key("target", "signals").key("id", id));
            }
            (Wait::Read, Done::Query(Ok(Answer::Signals { rows, more }))) => {
                let mut out = Vec::with_capacity(rows.iter().map(|row| row.body.len() + 128).sum::<usize>() + 64);
                for row in &rows {
                    signal_line(Line::row("signal"), row).finish_into(&mut out);
                }
                Line::ok(&head).key("count", rows.len()).key("more", yes_no(more)).finish_into(&mut out);
                self.send(conn, out);
            }
            _ => self.misfit(conn, &head),
        }
    }

    /// Tells the receiver's sessions, encoded once.
    fn tell_signal(&mut self, from: ConnId, sender: &Person, body: &Arc<str>, stored: &SignalStored) {
        let signal = Signal { id: stored.id, time: stored.time, sender: sender.clone(), body: body.clone() };
        let lines: Lines = signal_line(Line::event("signal"), &signal).finish().into();
        let due = self.hub.signal(stored.receiver.id, stored.id, Some(from), &lines);
        if !due.is_empty() {
            self.out.push(Effect::Fanout(due, lines));
        }
    }

    // ---- who fell behind ---------------------------------------------------------------------------

    /// Reads back the signals that a session missed, if it is time.
    pub(super) fn read_back_signals(&mut self, conn: ConnId) {
        let limit = self.hub.settings.outbound_bytes as u64;
        let Some(session) = self.hub.session_mut(conn).filter(|session| session.is_ready()) else { return };
        let queued = session.queued();
        let Some(member) = session.member_mut() else { return };
        let (account, login) = (member.person.id, member.login);
        let Some(after) = member.signals.read_back(queued, limit) else { return };
        let max_bytes = usize::try_from(limit / 2).unwrap_or(usize::MAX);
        let wait = AnyWait::SignalBacklog(login);
        let ticket = self.ticket(super::Pending { conn: Some(conn), me: None, head: Head::none(), wait });
        self.out.push(Effect::Ask(ticket, Query::Signals { account, after, limit: PAGE_MAX, max_bytes }));
    }

    pub(super) fn signal_backlog(&mut self, conn: ConnId, login: u64, answer: Result<Answer, Refused>) {
        let Some(session) = self.hub.session_mut(conn).filter(|session| session.is_ready()) else { return };
        let Some(member) = session.member_mut().filter(|member| member.login == login) else { return };
        let Ok(Answer::Signals { rows, more }) = answer else {
            // As with messages: tried again when the reader takes more or says something, or some time later.
            return member.signals.page_failed();
        };
        let ids: Vec<u64> = rows.iter().map(|row| row.id).collect();
        let due = member.signals.take_page(&ids, more);
        let mut out = Vec::new();
        for (row, _) in rows.iter().zip(due).filter(|(_, due)| *due) {
            signal_line(Line::event("signal"), row).finish_into(&mut out);
        }
        if !out.is_empty() {
            self.send(conn, out);
        }
        self.read_back_signals(conn);
    }
}

/// `signal ID TIME SENDER :BODY`, as a row or as an event.
fn signal_line(line: Line, signal: &Signal) -> Line {
    line.arg(signal.id).arg(signal.time).arg(&signal.sender.name).text(&signal.body)
}

//! The outbox: what was sealed goes out in order, each until the server has acknowledged it.

use std::collections::BTreeMap;

use downstream::e2e::inner::Inner;
use downstream::e2e::name::{MsgId, RoomId};
use downstream::protocol::{Target, Timestamp};

use super::receive::account;
use super::{Client, notice, now};
use crate::error::{Exit, Failure};
use crate::event::Mark;
use crate::server::{Refusal, Reply};
use crate::store::{Entry, Line, Outgoing, Tx, What};

/// Signals sent at once: a room's worth of keys in a few round trips, each within the server's input
/// limits.
const SIGNALS_AT_ONCE: usize = 32;

/// A message that another process sends within so many milliseconds is told of by the one that has it.
const LATE_MS: u64 = 10_000;

/// A stored message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Delivered {
    /// Where.
    pub(crate) target: Target,
    /// The server's number.
    pub(crate) id: u64,
    /// When it was stored, as the server says.
    pub(crate) time: Option<String>,
    /// Whether the receiver is online, in a direct conversation.
    pub(crate) peer: Option<String>,
    /// It had come through before.
    pub(crate) duplicate: bool,
}

impl Client<'_> {
    /// Sends everything that waits. What the server refuses for good is dropped and said.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.send_out(None).map(drop)
    }

    /// Sends everything up to an item of the outbox; what became of that one. `msg` is the message's own id,
    /// by which it is found if another process was quicker.
    pub(super) fn deliver(&mut self, item: u64, target: &Target, msg: Option<MsgId>) -> Result<Delivered, Failure> {
        let sent = self.send_out(Some(item)).map_err(|failure| match failure.exit {
            Exit::Network => failure.hint("the message waits in the outbox and goes out first with the next command"),
            _ => failure,
        })?;
        match sent {
            Some(delivered) => Ok(delivered),
            None => self.sent_by_another(target, msg),
        }
    }

    /// A message that another process has taken out of the outbox: it stands in the history, if it was stored.
    pub(super) fn sent_by_another(&mut self, target: &Target, msg: Option<MsgId>) -> Result<Delivered, Failure> {
        let entry = match msg {
            Some(msg) => self.transact(|tx| Ok(tx.entry_of(target, msg)?))?,
            None => None,
        };
        match entry {
            Some(Entry { id: Some(id), time_ms, .. }) => Ok(Delivered {
                target: target.clone(),
                id,
                time: Some(Timestamp::from_millis(time_ms).to_string()),
                peer: None,
                duplicate: false,
            }),
            _ => Err(Failure::failed("another dsc has taken this message out of the outbox")
                .hint(format!("`dsc fetch '{target}'` shows whether it was stored"))),
        }
    }

    fn send_out(&mut self, wanted: Option<u64>) -> Result<Option<Delivered>, Failure> {
        let mut wanted = wanted;
        // Rooms in which nothing can be sealed now: what is for them waits, and nobody else waits for it.
        let mut stuck: BTreeMap<RoomId, Failure> = BTreeMap::new();
        let mut waits = 0;
        // An item is sealed again at most once a round, when its room has changed; then it stands last.
        loop {
            let waiting = self.transact(|tx| Ok(tx.outbox()?))?;
            let is_stuck = |item: &Outgoing| item.room.as_ref().and_then(|room| stuck.get(room));
            let at = waiting.iter().position(|(_, item)| is_stuck(item).is_none());
            let Some((first, item)) = at.and_then(|at| waiting.get(at)).cloned() else {
                let left = waiting.iter().find(|(id, _)| wanted == Some(*id));
                return left.and_then(|(_, item)| is_stuck(item)).map_or(Ok(None), |failure| Err(failure.clone()));
            };
            match &item.line {
                Line::Signal { .. } => {
                    let batch: Vec<(u64, Outgoing)> = waiting
                        .into_iter()
                        .skip(at.unwrap_or(0))
                        .take_while(|(_, item)| matches!(item.line, Line::Signal { .. }))
                        .take(SIGNALS_AT_ONCE)
                        .collect();
                    let (tries, most) = super::PATIENCE;
                    if let Some(refusal) = self.send_signals(&batch)? {
                        waits += 1;
                        match refusal.retry_after().filter(|seconds| *seconds <= most && waits <= tries) {
                            Some(seconds) => std::thread::sleep(std::time::Duration::from_secs(seconds)),
                            None => return Err(refusal.into()),
                        }
                    }
                }
                Line::Post { target, .. } if self.is_outdated(&item)? => match self.seal_again(first, &item) {
                    Ok(queued) => {
                        if wanted == Some(first) {
                            wanted = Some(queued);
                        }
                    }
                    Err(failure) if failure.exit == Exit::Network => return Err(failure),
                    Err(failure) if matches!(failure.exit, Exit::NoSession | Exit::Refused) && item.room.is_some() => {
                        stuck.extend(item.room.map(|room| (room, failure)));
                    }
                    Err(failure) => self.drop_item(first, &item, wanted, target, failure)?,
                },
                Line::Post { target, key, body } => {
                    let answer = self.ask(&format!("/post {target} {key} {body}"))?;
                    let stored = match answer.reply {
                        Ok(reply) => Some((reply, false)),
                        Err(refusal) if refusal.code == "conflict" && self.came_through(&item, target, &refusal)? => {
                            Some((Reply { keys: refusal.keys, text: None }, true))
                        }
                        Err(refusal) if !refusal.is_temporary() => {
                            self.drop_item(first, &item, wanted, target, refusal.into())?;
                            None
                        }
                        Err(refusal) => return Err(refusal.into()),
                    };
                    if let Some((reply, before)) = stored {
                        let delivered = self.stored(first, &item, target, &reply)?;
                        if wanted == Some(first) {
                            // What comes behind it is not waited for: its failure would look like this one's.
                            let duplicate = delivered.duplicate || before;
                            return Ok(Some(Delivered { duplicate, ..delivered }));
                        }
                        if now().ms().saturating_sub(item.made_ms) < LATE_MS {
                            continue;
                        }
                        let text = format!("a message to {target} that waited is sent: number {}", delivered.id);
                        self.say(&notice("sent-late", Some(target.as_str()), text))?;
                    }
                }
            }
        }
    }

    /// Takes out of the outbox what can never be sent, and says so.
    ///
    /// # Errors
    /// The failure itself, for the item that was asked for.
    fn drop_item(
        &mut self,
        item: u64,
        sent: &Outgoing,
        wanted: Option<u64>,
        target: &Target,
        why: Failure,
    ) -> Result<(), Failure> {
        self.transact(|tx| take_out(tx, item, sent))?;
        if wanted == Some(item) {
            return Err(why);
        }
        let text = format!("a message to {target} that waited cannot be sent and is dropped: {why}");
        self.say(&notice("dropped", Some(target.as_str()), text))
    }

    /// Whether a message is the one that the server has stored under its key before: it was sealed again
    /// since, or a program says it once more. Another message under that key, or one to somebody else, is
    /// not: its number belongs to that one.
    fn came_through(&mut self, item: &Outgoing, target: &Target, refusal: &Refusal) -> Result<bool, Failure> {
        let Some(id) = refusal.key("id").and_then(|id| id.parse().ok()) else { return Ok(false) };
        let body = |raw: &[u8]| Inner::parse(raw).ok().map(|inner| inner.body);
        self.transact(|tx| {
            let me = account(tx)?;
            Ok(match (tx.entry(target, id)?, &item.inner) {
                (Some(Entry { what: What::Sealed { inner, .. }, sender, .. }), Some(raw)) => {
                    sender == me && body(&inner) == body(raw)
                }
                (Some(Entry { what: What::Sealed { .. } | What::Plain { .. } | What::File(_), .. }), _) => false,
                (Some(Entry { what: What::Failed { .. }, .. }) | None, _) => item.tries > 0,
            })
        })
    }

    /// Whether a message to a room was sealed under an older roster than is known now, or the room has two.
    fn is_outdated(&mut self, item: &Outgoing) -> Result<bool, Failure> {
        let Some(id) = item.room else { return Ok(false) };
        self.transact(|tx| {
            let room = tx.state().and_then(|state| state.rooms.get(&id));
            Ok(room.is_some_and(|room| room.roster.head().0 != item.epoch || room.roster.forked()))
        })
    }

    /// Sends signals; the refusal, if some have to wait.
    fn send_signals(&mut self, batch: &[(u64, Outgoing)]) -> Result<Option<Refusal>, Failure> {
        let lines: Vec<String> = batch
            .iter()
            .filter_map(|(_, item)| match &item.line {
                Line::Signal { to, body } => Some(format!("/signal {to} {body}")),
                Line::Post { .. } => None,
            })
            .collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let answers = self.server.ask_all(&lines)?;
        let (mut gone, mut slow) = (Vec::new(), None);
        for ((id, _), answer) in batch.iter().zip(answers) {
            match answer.reply {
                // A device that cannot be given its key asks for it when it needs it.
                Ok(_) => gone.push(*id),
                Err(refusal) if !refusal.is_temporary() => gone.push(*id),
                Err(refusal) => slow = Some(refusal),
            }
        }
        self.transact(|tx| gone.iter().try_for_each(|id| Ok(tx.sent(*id)?)))?;
        Ok(slow)
    }

    /// Takes a stored message out of the outbox and into the history.
    fn stored(&mut self, item: u64, sent: &Outgoing, target: &Target, reply: &Reply) -> Result<Delivered, Failure> {
        let id = reply.key("id").and_then(|id| id.parse::<u64>().ok());
        let Some(id) = id else { return Err(Failure::failed("the server acknowledged a message without a number")) };
        let time = reply.key("time").map(str::to_owned);
        let time_ms = time.as_deref().and_then(Timestamp::parse).map_or_else(|| now().ms(), Timestamp::as_millis);
        self.transact(|tx| {
            let me = account(tx)?;
            let (what, marks) = match (&sent.inner, tx.state()) {
                (Some(inner), Some(state)) => {
                    (What::Sealed { device: state.me.address().device, inner: inner.clone() }, Vec::new())
                }
                _ => match &sent.line {
                    Line::Post { body, .. } => (What::Plain { text: body.clone() }, vec![Mark::Plain]),
                    Line::Signal { .. } => return Ok(()),
                },
            };
            take_out(tx, item, sent)?;
            if tx.entry(target, id)?.is_none() {
                tx.record(Entry { target: target.clone(), id: Some(id), time_ms, sender: me, what, marks })?;
            }
            // Nothing of others lies in between: the cursor need not stay behind one's own words.
            if tx.cursor(target).unwrap_or(0).checked_add(1) == Some(id) {
                tx.set_cursor(target, id);
            }
            Ok(())
        })?;
        let duplicate = reply.key("dup") == Some("yes");
        let peer = reply.key("peer").map(str::to_owned);
        Ok(Delivered { target: target.clone(), id, time, peer, duplicate })
    }
}

/// Takes a message out of the outbox, and with it the upload that it announced.
fn take_out(tx: &mut Tx<'_>, item: u64, sent: &Outgoing) -> Result<(), Failure> {
    if let Line::Post { key, .. } = &sent.line {
        tx.end_upload(key)?;
    }
    Ok(tx.sent(item)?)
}

//! The outbox: what was sealed goes out in order, each until the server has acknowledged it.

use downstream::protocol::Target;

use super::receive::account;
use super::{Client, is_final, notice, now};
use crate::error::{Exit, Failure};
use crate::event::Mark;
use crate::server::Reply;
use crate::store::{Entry, Line, Outgoing, What};

/// Signals sent at once: a room's worth of keys in a few round trips, each within the server's input
/// limits.
const SIGNALS_AT_ONCE: usize = 32;

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

    /// Sends everything up to an item of the outbox; what became of that one.
    pub(super) fn deliver(&mut self, item: u64) -> Result<Delivered, Failure> {
        let sent = self.send_out(Some(item)).map_err(|failure| match failure.exit {
            Exit::Network => failure.hint("the message waits in the outbox and goes out first with the next command"),
            _ => failure,
        })?;
        sent.ok_or_else(|| Failure::failed("another dsc has sent this message").hint("`dsc fetch` shows it"))
    }

    fn send_out(&mut self, wanted: Option<u64>) -> Result<Option<Delivered>, Failure> {
        let mut wanted = wanted;
        let mut result = None;
        // An item is sealed again at most once a round, when its room has changed; then it stands last.
        loop {
            let waiting = self.transact(|tx| Ok(tx.outbox()?))?;
            let Some((first, item)) = waiting.first().cloned() else { return Ok(result) };
            match &item.line {
                Line::Signal { .. } => {
                    let batch: Vec<(u64, Outgoing)> = waiting
                        .into_iter()
                        .take_while(|(_, item)| matches!(item.line, Line::Signal { .. }))
                        .take(SIGNALS_AT_ONCE)
                        .collect();
                    self.send_signals(&batch)?;
                }
                Line::Post { .. } if self.is_outdated(&item)? => {
                    let queued = self.seal_again(first, &item)?;
                    if wanted == Some(first) {
                        wanted = Some(queued);
                    }
                }
                Line::Post { target, key, body } => {
                    let answer = self.ask(&format!("/post {target} {key} {body}"))?;
                    match answer.reply {
                        Ok(reply) => {
                            let delivered = self.stored(first, &item, target, &reply)?;
                            if wanted == Some(first) {
                                result = Some(delivered);
                            }
                        }
                        // The key is known with another body: the first sealing had come through.
                        Err(refusal) if refusal.code == "conflict" && refusal.key("id").is_some() => {
                            let reply = Reply { keys: refusal.keys.clone(), text: None };
                            let delivered = self.stored(first, &item, target, &reply)?;
                            if wanted == Some(first) {
                                result = Some(Delivered { duplicate: true, ..delivered });
                            }
                        }
                        Err(refusal) if is_final(&refusal) => {
                            self.transact(|tx| Ok(tx.sent(first)?))?;
                            let failure = Failure::from(refusal);
                            if wanted == Some(first) {
                                return Err(failure);
                            }
                            let text =
                                format!("a message to {target} that waited was refused and is dropped: {failure}");
                            self.say(&notice("dropped", Some(target.as_str()), text))?;
                        }
                        Err(refusal) => return Err(refusal.into()),
                    }
                }
            }
        }
    }

    /// Whether a message to a room was sealed under an older roster than is known now.
    fn is_outdated(&mut self, item: &Outgoing) -> Result<bool, Failure> {
        let Some(id) = item.room else { return Ok(false) };
        self.transact(|tx| {
            let room = tx.state().and_then(|state| state.rooms.get(&id));
            Ok(room.is_some_and(|room| room.roster.head().0 != item.epoch && !room.roster.forked()))
        })
    }

    fn send_signals(&mut self, batch: &[(u64, Outgoing)]) -> Result<(), Failure> {
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
                Err(refusal) if is_final(&refusal) => gone.push(*id),
                Err(refusal) => slow = Some(refusal),
            }
        }
        self.transact(|tx| gone.iter().try_for_each(|id| Ok(tx.sent(*id)?)))?;
        let Some(refusal) = slow else { return Ok(()) };
        let seconds: Option<u64> = refusal.key("retry-after").and_then(|seconds| seconds.parse().ok());
        match seconds {
            Some(seconds) if seconds <= super::PATIENCE.1 => {
                std::thread::sleep(std::time::Duration::from_secs(seconds));
                Ok(())
            }
            _ => Err(refusal.into()),
        }
    }

    /// Takes a stored message out of the outbox and into the history.
    fn stored(&mut self, item: u64, sent: &Outgoing, target: &Target, reply: &Reply) -> Result<Delivered, Failure> {
        let id = reply.key("id").and_then(|id| id.parse::<u64>().ok());
        let Some(id) = id else { return Err(Failure::failed("the server acknowledged a message without a number")) };
        let time = reply.key("time").map(str::to_owned);
        let time_ms = time
            .as_deref()
            .and_then(downstream::protocol::Timestamp::parse)
            .map_or_else(|| now().ms(), downstream::protocol::Timestamp::as_millis);
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
            tx.sent(item)?;
            if tx.entry(target, id)?.is_none() {
                tx.record(Entry { target: target.clone(), id: Some(id), time_ms, sender: me, what, marks })?;
            }
            // Nothing of others lies in between: the cursor need not stay behind one's own words.
            if tx.cursor(target).unwrap_or(0) + 1 == id {
                tx.set_cursor(target, id);
            }
            Ok(())
        })?;
        let duplicate = reply.key("dup") == Some("yes");
        let peer = reply.key("peer").map(str::to_owned);
        Ok(Delivered { target: target.clone(), id, time, peer, duplicate })
    }
}

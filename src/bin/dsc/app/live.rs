//! Events as they come.

use std::collections::BTreeMap;

use downstream::protocol::{Fields, RoomName, SignalLine, Target};

use super::receive::{Reading, account};
use super::take::LogLine;
use super::{Client, notice};
use crate::error::Failure;
use crate::event::Event;

impl Client<'_> {
    /// Takes in events of the server (without their `* `), in order. Messages of conversations that are not
    /// read wait where they are: their cursor stays behind them.
    ///
    /// Returns the reason of a `* bye`, with which the server ends the connection.
    ///
    /// # Errors
    /// [`Failure`].
    pub(crate) fn live(&mut self, lines: &[String], reading: Reading<'_>) -> Result<Option<String>, Failure> {
        let mut log: Vec<LogLine> = Vec::new();
        let mut read: BTreeMap<Target, u64> = BTreeMap::new();
        let me = self.transact(|tx| account(tx))?;
        for line in lines {
            let fields = Fields::parse(line);
            if let Some(message) = LogLine::read(&fields) {
                let conversation = message.conversation(&me);
                if reading.covers(&conversation) {
                    read.insert(conversation, message.id);
                    log.push(message);
                }
                continue;
            }
            // Whatever comes between messages may be what opens the next ones: order is kept.
            self.take_log(&std::mem::take(&mut log))?;
            match fields.word(0) {
                Some("signal") => {
                    if let Ok(signal) = SignalLine::read(&fields) {
                        self.take_signals(&[signal])?;
                    }
                }
                Some("roster") => {
                    let room = fields.word(1).and_then(|name| RoomName::parse(name).ok());
                    if let Some(room) = room {
                        let covered = reading.covers(&Target::Room(room.clone()));
                        self.heard_of_roster(&room, covered)?;
                    }
                }
                Some("keys-low") => self.upkeep()?,
                // How much is unread when the session begins: the logs are read anyway.
                Some("unread" | "hello") => {}
                Some("bye") => {
                    self.say(&server_event(&fields))?;
                    return Ok(Some(fields.word(1).unwrap_or("error").to_owned()));
                }
                // These are dsc's own to say, or were no lines of that kind: shown as they came, they could pass
                // for what was opened.
                Some("msg" | "file" | "dsc") => {
                    let text = format!("the server said what cannot be read: {line}");
                    self.say(&notice("unreadable-line", None, text))?;
                }
                _ => self.say(&server_event(&fields))?,
            }
        }
        self.take_log(&log)?;
        self.flush()?;
        for (target, id) in read {
            self.mark_read(&target, id)?;
        }
        Ok(None)
    }
}

fn server_event(fields: &Fields<'_>) -> Event {
    let mut words = fields.words().map(str::to_owned);
    Event::Server {
        kind: words.next().unwrap_or_default(),
        words: words.collect(),
        text: fields.text().map(str::to_owned),
    }
}

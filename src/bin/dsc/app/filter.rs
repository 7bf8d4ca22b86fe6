//! The filters for people at `openssl s_client`: a line of the server in, what it says out. Nothing is
//! asked of a server; what is missing is the exact command to type.

use std::collections::BTreeSet;

use downstream::e2e::error::Error;
use downstream::e2e::name::User;
use downstream::protocol::{ServerLine, SignalLine};

use super::receive::account;
use super::shown::entry_event;
use super::take::{
    After, LogLine, LogWhat, Taken, Wish, give_up, is_ciphertext, is_in_sealed_room, take_line, take_signal, unreadable,
};
use super::{Client, notice};
use crate::error::Failure;
use crate::event::Event;
use crate::store::{Tx, What};

/// What became of a line.
#[derive(Debug)]
pub(crate) enum ByHand {
    /// It holds nothing to open.
    Pass,
    /// It was opened, before or now; what is to be shown.
    Opened(Vec<Event>),
    /// It cannot be opened; what is to be shown.
    Failed(Vec<Event>),
    /// It can be opened once this was typed and its answer imported or opened.
    Wants(String),
}

impl Client<'_> {
    /// Opens one line.
    ///
    /// # Errors
    /// [`Failure`] of the store.
    pub(crate) fn open_line(&mut self, line: &str) -> Result<ByHand, Failure> {
        let parsed = ServerLine::parse(line);
        let (ServerLine::Row(fields) | ServerLine::Event(fields)) = &parsed else { return Ok(ByHand::Pass) };
        if let Some(message) = LogLine::read(fields) {
            return match &message.what {
                LogWhat::Body(_) => self.open_message(&message),
                LogWhat::File(file) => self.transact(|tx| {
                    let e2e_room = is_in_sealed_room(tx, &message.target)?;
                    if !e2e_room || is_ciphertext(file, &message.target, e2e_room) {
                        return Ok(ByHand::Pass);
                    }
                    let target = message.target.as_str();
                    Ok(ByHand::Failed(vec![unreadable(target, &message.sender, Some(message.id), Error::Plain)]))
                }),
            };
        }
        match SignalLine::read(fields) {
            Ok(signal) => self.open_signal(&signal),
            Err(_) => Ok(ByHand::Pass),
        }
    }

    fn open_message(&mut self, line: &LogLine) -> Result<ByHand, Failure> {
        self.transact(|tx| {
            let me = account(tx)?;
            let conversation = line.conversation(&me);
            // What failed before may open now: a list or a key may have come.
            if let Some(entry) = tx.entry(&conversation, line.id)?
                && !matches!(entry.what, What::Failed { .. })
            {
                return Ok(ByHand::Opened(entry_event(tx, &me, &entry)?.into_iter().collect()));
            }
            let mut after = After::default();
            let taken = take_line(tx, &me, line, &conversation, &mut after)?;
            Ok(match taken {
                Taken::Wants(Wish::List(user)) if first_time(tx, &user) => ByHand::Wants(list_of(&user)),
                Taken::Wants(Wish::List(_)) => {
                    give_up(tx, line, &conversation, Error::UnlistedDevice, &mut after)?;
                    ByHand::Failed(after.events)
                }
                Taken::Wants(Wish::Roster(room)) => ByHand::Wants(format!("/roster {room}")),
                Taken::Wants(Wish::Signals | Wish::Log(..)) | Taken::Hold => ByHand::Wants("/signals".to_owned()),
                Taken::Done if after.events.is_empty() => ByHand::Opened(vec![not_shown(&line.sender, line.id)]),
                Taken::Done => finished(after),
            })
        })
    }

    fn open_signal(&mut self, signal: &SignalLine<'_>) -> Result<ByHand, Failure> {
        self.transact(|tx| {
            let mut after = After::default();
            let taken = take_signal(tx, signal, true, &mut after)?;
            Ok(match taken {
                None => ByHand::Opened(vec![notice(
                    "other-device",
                    Some(signal.sender.as_str()),
                    format!("signal {} of {} is for another device", signal.id, signal.sender),
                )]),
                Some(Taken::Wants(Wish::List(user))) if first_time(tx, &user) => ByHand::Wants(list_of(&user)),
                Some(Taken::Wants(Wish::List(_))) => {
                    let event = unreadable(signal.sender.as_str(), &signal.sender, None, Error::UnlistedDevice);
                    ByHand::Failed(vec![event])
                }
                Some(Taken::Wants(Wish::Roster(room))) => ByHand::Wants(format!("/roster {room}")),
                Some(Taken::Hold | Taken::Wants(Wish::Signals | Wish::Log(..))) => {
                    ByHand::Failed(vec![unreadable(signal.sender.as_str(), &signal.sender, None, Error::NeedRoster)])
                }
                Some(Taken::Done) => {
                    if after.events.is_empty() {
                        let text = format!(
                            "{} has sent a room's key; `/ack signals {}` erases it at the server",
                            signal.sender, signal.id
                        );
                        after.events.push(notice("signal", Some(signal.sender.as_str()), text));
                    }
                    finished(after)
                }
            })
        })
    }
}

fn list_of(user: &User) -> String {
    format!("/keys get {user} only=certs")
}

/// Whether the list of this account that is known now has not been asked for because of an unlisted device:
/// a device that is missing from the newest list too is refused, not asked for for ever.
fn first_time(tx: &mut Tx<'_>, user: &User) -> bool {
    let version = tx.state().and_then(|state| state.contacts.get(user)).map_or(0, |contact| contact.list_version());
    let (key, version) = (format!("unlisted/{user}"), version.to_be_bytes());
    let before = tx.setting(&key);
    if before.is_some_and(|before| before.as_slice() == version) {
        return false;
    }
    tx.set_setting(&key, &version);
    true
}

fn finished(after: After) -> ByHand {
    let mut events = after.events;
    for user in &after.lists {
        events.push(notice(
            "list-wanted",
            Some(user.as_str()),
            format!("before you answer: type /keys get {user} only=certs and give its rows to `dsc import`"),
        ));
    }
    if !after.resets.is_empty() {
        let who: BTreeSet<String> = after.resets.iter().map(|(address, _, _)| address.to_string()).collect();
        let who = who.into_iter().collect::<Vec<_>>().join(", ");
        events.push(notice(
            "reset-wanted",
            None,
            format!("the session with {who} is broken: the next `dsc fetch` begins it anew"),
        ));
    }
    let failed = events.iter().any(|event| matches!(event, Event::Unreadable { .. }));
    if failed { ByHand::Failed(events) } else { ByHand::Opened(events) }
}

fn not_shown(sender: &downstream::protocol::UserName, id: u64) -> Event {
    notice(
        "not-shown",
        Some(sender.as_str()),
        format!("message {id} of {sender} is one's own, or was sealed before this device was listed"),
    )
}

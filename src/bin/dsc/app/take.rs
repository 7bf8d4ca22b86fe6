//! Opening one line: a message of a log, or a signal. What it changes is staged in the caller's
//! transaction; what it asks for is handed back.

use std::collections::BTreeSet;

use downstream::e2e::armour;
use downstream::e2e::contact::Contact;
use downstream::e2e::envelope::Envelope;
use downstream::e2e::error::Error;
use downstream::e2e::inner::{Body, Via};
use downstream::e2e::marks;
use downstream::e2e::name::{Address, ChainId, Mark as EnvelopeMark, RoomId, RoomName as SealedRoom, User};
use downstream::e2e::receive::{Line, Opened, Target as SealedTarget};
use downstream::e2e::state::State;
use downstream::protocol::file::SEALED_NAME;
use downstream::protocol::{Fields, FileLine, MessageLine, SignalLine, Target, Timestamp, UserName};

use super::shown::{entry_event, message_event};
use super::{Os, alarm, device_name, is_sealed_room, notice, now, save, sealed_room, sealed_user, state};
use crate::error::Failure;
use crate::event::{Event, Mark};
use crate::store::{Entry, Held, PlainFile, Tx, What};

/// Accounts that are known at most: whoever can make accounts could otherwise fill this device with first
/// contacts. Far above the people of a server that somebody hosts for themselves.
const CONTACTS_MAX: usize = 20_000;
/// Seconds between two requests to one device for its chain in one room.
const ASK_CHAIN_EVERY: u64 = 3600;

/// A line of a log.
#[derive(Debug, Clone)]
pub(super) struct LogLine {
    pub(super) id: u64,
    pub(super) time: Timestamp,
    /// As on the line: the room or the receiver.
    pub(super) target: Target,
    pub(super) sender: UserName,
    pub(super) what: LogWhat,
}

#[derive(Debug, Clone)]
pub(super) enum LogWhat {
    Body(String),
    /// A file: the server's number of it, its bytes, their SHA-256, the name it has there.
    File(PlainFile),
}

impl LogLine {
    /// Reads a row or event of a log.
    pub(super) fn read(fields: &Fields<'_>) -> Option<LogLine> {
        if let Ok(MessageLine { id, time, target, sender, body, .. }) = MessageLine::read(fields) {
            return Some(LogLine { id, time, target, sender, what: LogWhat::Body(body.to_owned()) });
        }
        let FileLine { id, time, target, sender, file, size, sha256, name, .. } = FileLine::read(fields).ok()?;
        let what = LogWhat::File(PlainFile { file, size, sha256, name: name.to_owned() });
        Some(LogLine { id, time, target, sender, what })
    }

    /// The room, or the other person.
    pub(super) fn conversation(&self, me: &UserName) -> Target {
        match &self.target {
            Target::User(receiver) if receiver == me => Target::User(self.sender.clone()),
            target => target.clone(),
        }
    }
}

/// What a line wants before it can be opened.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wish {
    List(User),
    Roster(SealedRoom),
    Signals,
    /// The log of a room, up to a time (Unix milliseconds).
    Log(SealedRoom, u64),
}

/// What is to be done once a batch is committed.
#[derive(Debug, Default)]
pub(super) struct After {
    pub(super) events: Vec<Event>,
    pub(super) lists: BTreeSet<User>,
    pub(super) resets: Vec<(Address, Error, EnvelopeMark)>,
    pub(super) chain_requests: Vec<(Address, RoomId)>,
    pub(super) ask_chains: Vec<(Address, RoomId, ChainId)>,
    pub(super) new_chain: bool,
}

/// What became of one line.
pub(super) enum Taken {
    Done,
    /// It is to be kept until its key or roster is there.
    Hold,
    Wants(Wish),
}

/// Opens one line of a log; what it changes is staged.
pub(super) fn take_line(
    tx: &mut Tx<'_>,
    me: &UserName,
    line: &LogLine,
    conversation: &Target,
    after: &mut After,
) -> Result<Taken, Failure> {
    let e2e_room = is_in_sealed_room(tx, conversation)?;
    let body = match &line.what {
        LogWhat::Body(body) => body,
        // What was sealed is announced by a message that says what it is.
        LogWhat::File(file) if is_ciphertext(file, conversation, e2e_room) => return Ok(Taken::Done),
        LogWhat::File(_) if e2e_room => {
            after.events.push(unreadable(conversation.as_str(), &line.sender, Some(line.id), Error::Plain));
            return Ok(Taken::Done);
        }
        LogWhat::File(file) => {
            let what = What::File(file.clone());
            return take_clear(tx, me, line, conversation, what, after).map(|()| Taken::Done);
        }
    };
    let sealed = body.starts_with(armour::BODY_PREFIX);
    if !sealed && !e2e_room {
        let what = What::Plain { text: body.clone() };
        return take_clear(tx, me, line, conversation, what, after).map(|()| Taken::Done);
    }
    if tx.state().is_none() {
        // Said once, and not of each message: `catch_up`.
        return Ok(Taken::Done);
    }
    let Ok(sender) = sealed_user(&line.sender) else { return Ok(Taken::Done) };
    let (user, room);
    let target = match &line.target {
        Target::User(receiver) => {
            user = sealed_user(receiver)?;
            SealedTarget::User(&user)
        }
        Target::Room(name) => {
            room = sealed_room(name)?;
            SealedTarget::Room(&room)
        }
    };
    let sealed_line = Line { via: Via::Message, sender: &sender, target, body };
    if is_one_too_many(state(tx)?, &sender) {
        return Ok(Taken::Done);
    }
    let marked = state(tx)?.mark_of(&sealed_line);
    if let Some((from, mark)) = &marked {
        tx.seen(from, *mark)?;
    }
    let opened = match state(tx)?.open(&sealed_line, now(), &mut Os) {
        Ok(opened) => opened,
        Err(error) => return not_opened(tx, line, conversation, target, &sender, marked, error, after),
    };
    let fresh = !tx.heard(&opened.from, opened.inner.msg_id)?;
    let marks = marks_of(&opened);
    before_commit(tx, &opened, &sender, after)?;
    if fresh {
        let entry = Entry {
            target: conversation.clone(),
            id: Some(line.id),
            time_ms: line.time.as_millis(),
            sender: line.sender.clone(),
            what: What::Sealed { device: opened.from.device, inner: opened.raw.clone() },
            marks: marks.clone(),
        };
        let event = message_event(&entry, me, device_name(tx, &opened.from), &opened.inner);
        after.events.push(Event::Message(event));
        save::note(tx, me, &entry, after);
        tx.record(entry)?;
    }
    let place = opened.place;
    let from = opened.from.clone();
    let missed_before = missing_before(tx, &opened)?;
    tx.apply(opened.change);
    if let Some(place) = place
        && place.missing > missed_before
    {
        after.events.push(Event::Missing {
            target: conversation.to_string(),
            sender: line.sender.to_string(),
            device: device_name(tx, &from),
            count: place.missing,
        });
    }
    Ok(Taken::Done)
}

/// Takes in what was said in clear: once, also if it was seen before.
fn take_clear(
    tx: &mut Tx<'_>,
    me: &UserName,
    line: &LogLine,
    conversation: &Target,
    what: What,
    after: &mut After,
) -> Result<(), Failure> {
    let known = tx.entry(conversation, line.id)?;
    if known.is_some_and(|known| known.sender == line.sender && known.what == what) {
        return Ok(());
    }
    let entry = plain_entry(line, conversation, what);
    after.events.extend(entry_event(tx, me, &entry)?);
    save::note(tx, me, &entry, after);
    tx.record(entry)?;
    Ok(())
}

/// What stands in the history of a line in clear.
fn plain_entry(line: &LogLine, conversation: &Target, what: What) -> Entry {
    Entry {
        target: conversation.clone(),
        id: Some(line.id),
        time_ms: line.time.as_millis(),
        sender: line.sender.clone(),
        what,
        marks: vec![Mark::Plain],
    }
}

/// Whether a conversation is a room in which nothing is said in clear.
pub(super) fn is_in_sealed_room(tx: &Tx<'_>, conversation: &Target) -> Result<bool, Failure> {
    match conversation {
        Target::Room(room) => is_sealed_room(tx, room),
        Target::User(_) => Ok(false),
    }
}

/// Whether a file is one that the server cannot read: in a room without encryption there is none, whatever
/// its name.
pub(super) fn is_ciphertext(file: &PlainFile, conversation: &Target, e2e_room: bool) -> bool {
    file.name == SEALED_NAME && (e2e_room || matches!(conversation, Target::User(_)))
}

/// Whether the sender would be one account more than are kept.
fn is_one_too_many(state: &State, sender: &User) -> bool {
    state.contacts.len() >= CONTACTS_MAX && !state.contacts.contains_key(sender)
}

fn missing_before(tx: &Tx<'_>, opened: &Opened) -> Result<u64, Failure> {
    let key = (opened.from.clone(), opened.inner.conversation);
    Ok(state(tx)?.threads.get(&key).map_or(0, downstream::e2e::thread::Thread::missing))
}

/// What is said of the sender beside a message that opened.
fn before_commit(tx: &Tx<'_>, opened: &Opened, sender: &User, after: &mut After) -> Result<(), Failure> {
    if opened.notes.fetch_list {
        after.lists.insert(sender.clone());
    }
    if opened.notes.first_contact && !opened.notes.sent_copy {
        let me = &state(tx)?.me;
        let aik = opened.change.contacts.iter().find(|contact| contact.user() == sender).map(Contact::aik);
        if let Some(aik) = aik {
            let number = downstream::e2e::number::safety_number((me.user(), me.aik()), (sender, aik));
            let number = downstream::e2e::number::grouped(&number);
            after.events.push(notice(
                "first-contact",
                Some(sender.as_str()),
                format!("first contact with {sender}; compare this number with them: {number}"),
            ));
        }
    }
    Ok(())
}

fn marks_of(opened: &Opened) -> Vec<Mark> {
    let notes = &opened.notes;
    let all = [
        (notes.first_contact && !notes.sent_copy, Mark::FirstContact),
        (notes.weak, Mark::Weak),
        (opened.place.is_some_and(|place| place.conflict), Mark::Conflict),
        (notes.room.removed, Mark::Removed),
        (notes.room.old_roster, Mark::OldRoster),
    ];
    all.into_iter().filter_map(|(holds, mark)| holds.then_some(mark)).collect()
}

#[expect(clippy::too_many_arguments, reason = "all that is known of a line that failed; it has one caller")]
fn not_opened(
    tx: &mut Tx<'_>,
    line: &LogLine,
    conversation: &Target,
    target: SealedTarget<'_>,
    sender: &User,
    marked: Option<(Address, EnvelopeMark)>,
    error: Error,
    after: &mut After,
) -> Result<Taken, Failure> {
    match error {
        Error::Random => return Err(super::no_random()),
        Error::NotForThisDevice | Error::BeforeChain => return Ok(Taken::Done),
        // Opened by hand, with the cursor still behind it: the same line again is no replay.
        Error::Replay if is_kept(tx, conversation, line)? => return Ok(Taken::Done),
        Error::Own => {
            // One's own words stand in the history; those that were only printed get their number now.
            if let LogWhat::Body(body) = &line.what
                && let Ok(raw) = armour::envelope(body)
            {
                tx.came_back(conversation, marks::mark(&raw), line.id, line.time.as_millis())?;
            }
            return Ok(Taken::Done);
        }
        Error::UnlistedDevice => return Ok(Taken::Wants(Wish::List(sender.clone()))),
        Error::NeedRoster => {
            if let SealedTarget::Room(room) = target {
                return Ok(Taken::Wants(Wish::Roster(room.clone())));
            }
        }
        Error::NoChain => return Ok(Taken::Wants(Wish::Signals)),
        _ => {}
    }
    if error == Error::Identity {
        after.events.push(alarm(
            "identity-changed",
            sender.as_str(),
            format!("a message of {sender} is not under the identity that is pinned; it is not opened"),
        ));
    }
    give_up(tx, line, conversation, error, after)?;
    if let Some((from, mark)) = marked
        && error.calls_for_reset()
        && matches!(target, SealedTarget::User(_))
    {
        after.resets.push((from, error, mark));
    }
    Ok(Taken::Done)
}

/// Whether an opened message of the sender stands under a line's number.
fn is_kept(tx: &Tx<'_>, conversation: &Target, line: &LogLine) -> Result<bool, Failure> {
    let entry = tx.entry(conversation, line.id)?;
    Ok(entry.is_some_and(|entry| entry.sender == line.sender && matches!(entry.what, What::Sealed { .. })))
}

/// Records and shows that a line cannot be opened.
pub(super) fn give_up(
    tx: &mut Tx<'_>,
    line: &LogLine,
    conversation: &Target,
    error: Error,
    after: &mut After,
) -> Result<(), Failure> {
    tx.record(Entry {
        target: conversation.clone(),
        id: Some(line.id),
        time_ms: line.time.as_millis(),
        sender: line.sender.clone(),
        what: What::Failed { code: error.code().to_owned() },
        marks: Vec::new(),
    })?;
    after.events.push(unreadable(conversation.as_str(), &line.sender, Some(line.id), error));
    Ok(())
}

/// Keeps a line until its key is there, and asks its sender for it.
pub(super) fn hold(tx: &mut Tx<'_>, line: &LogLine, conversation: &Target, after: &mut After) -> Result<(), Failure> {
    let LogWhat::Body(body) = &line.what else { return Ok(()) };
    let dropped = tx.hold(Held {
        target: Some(conversation.clone()),
        id: line.id,
        time_ms: line.time.as_millis(),
        sender: line.sender.clone(),
        body: body.clone(),
        since_ms: now().ms(),
    })?;
    let_go(tx, &dropped, after)?;
    let text = format!("a message of {} in {conversation} waits for its key", line.sender);
    after.events.push(notice("waiting", Some(line.sender.as_str()), text));
    if let Ok(raw) = armour::envelope(body)
        && let Ok(Envelope::Group(group)) = Envelope::parse(&raw)
    {
        let from = Address { user: sealed_user(&line.sender)?, device: group.device };
        let Some(key) = may_have_chain(state(tx)?, &from, group.room) else { return Ok(()) };
        let last = tx.setting(&key).and_then(|bytes| bytes.as_slice().try_into().ok()).map_or(0, u64::from_be_bytes);
        if now().secs().saturating_sub(last) >= ASK_CHAIN_EVERY {
            tx.set_setting(&key, &now().secs().to_be_bytes());
            after.ask_chains.push((from, group.room, group.chain));
        }
    }
    Ok(())
}

/// Where it is noted when a device was asked for its chain in a room; `None` if it can have none there.
///
/// Chain and device are unauthenticated words of whoever sent the line: nobody outside the roster is asked,
/// and there is one note for each device that the account lists and one for all that it does not (yet), so
/// that junk makes neither signals nor notes without end.
fn may_have_chain(known: &State, from: &Address, room: RoomId) -> Option<String> {
    let roster = &known.rooms.get(&room)?.roster;
    roster.members().iter().find(|member| member.user == from.user)?;
    let listed = known.contacts.get(&from.user).and_then(|contact| contact.device(from.device));
    let device = listed.map(|cert| cert.address().device.to_string()).unwrap_or_default();
    Some(format!("asked/{room}/{}/{device}", from.user))
}

/// Lines that waited for a key until there was no time or room for them any more.
pub(super) fn let_go(tx: &mut Tx<'_>, lines: &[Held], after: &mut After) -> Result<(), Failure> {
    for held in lines {
        let Some(target) = &held.target else { continue };
        tx.record(Entry {
            target: target.clone(),
            id: Some(held.id),
            time_ms: held.time_ms,
            sender: held.sender.clone(),
            what: What::Failed { code: Error::NoChain.code().to_owned() },
            marks: Vec::new(),
        })?;
        after.events.push(unreadable(target.as_str(), &held.sender, Some(held.id), Error::NoChain));
    }
    Ok(())
}

/// Opens a signal; `None` if it is for another device. A link that would take the place of an older one is
/// taken once its room's log was read up to it (`read`): what was said in the older chain would be lost.
pub(super) fn take_signal(
    tx: &mut Tx<'_>,
    signal: &SignalLine<'_>,
    read: bool,
    after: &mut After,
) -> Result<Option<Taken>, Failure> {
    let Some(known) = tx.state() else { return Ok(None) };
    let me = known.me.user().clone();
    let Ok(sender) = sealed_user(&signal.sender) else { return Ok(Some(Taken::Done)) };
    if let Ok(raw) = armour::envelope(signal.body)
        && super::link::is_link(&raw)
    {
        // What belongs to the linking of a device is between `dsc link` here and there.
        let passed = super::link::passed_by(tx, &sender, signal, &raw, &mut after.events)?;
        return Ok(passed.map(|()| Taken::Done));
    }
    let line = Line { via: Via::Signal, sender: &sender, target: SealedTarget::User(&me), body: signal.body };
    let marked = known.mark_of(&line);
    if marked.is_some() && is_one_too_many(known, &sender) {
        return Ok(Some(Taken::Done));
    }
    if let Some((from, mark)) = &marked {
        tx.seen(from, *mark)?;
    }
    let opened = match state(tx)?.open(&line, now(), &mut Os) {
        Ok(opened) => opened,
        // One's own signal waits for another device of the account: that one erases it.
        Err(Error::NotForThisDevice | Error::Own) => return Ok(None),
        Err(Error::Replay) => return Ok(Some(Taken::Done)),
        Err(Error::Random) => return Err(super::no_random()),
        Err(Error::UnlistedDevice) => return Ok(Some(Taken::Wants(Wish::List(sender)))),
        Err(Error::NeedRoster) => {
            // While the roster is behind what others know, nothing is sent there.
            let heard = state(tx)?.epoch_of_link(&line, now(), &mut Os);
            let Some((room, epoch, member)) = heard else { return Ok(Some(Taken::Hold)) };
            let Some(name) = state(tx)?.rooms.get(&room).map(|room| room.roster.name().clone()) else {
                return Ok(Some(Taken::Hold));
            };
            if member {
                let change = state(tx)?.hold_room(&room, epoch);
                tx.apply(change);
            }
            return Ok(Some(Taken::Wants(Wish::Roster(name))));
        }
        Err(error) => {
            after.events.push(unreadable(signal.sender.as_str(), &signal.sender, None, error));
            if let Some((from, mark)) = marked
                && error.calls_for_reset()
            {
                after.resets.push((from, error, mark));
            }
            return Ok(Some(Taken::Done));
        }
    };
    if !read && let Some(room) = displaces(state(tx)?, &opened) {
        return Ok(Some(Taken::Wants(Wish::Log(room, signal.time.as_millis()))));
    }
    before_commit(tx, &opened, &sender, after)?;
    let shown = format!("{sender}/{}", device_name(tx, &opened.from));
    match &opened.inner.body {
        Body::SenderKey(_) => after.new_chain = true,
        Body::Reset => after.events.push(notice(
            "reset",
            Some(sender.as_str()),
            format!("{shown} could not open a message and began anew; ask whether something is missing"),
        )),
        Body::ChainRequest { room, .. } => after.chain_requests.push((opened.from.clone(), *room)),
        Body::Receipt { read, messages } => {
            let what = if *read { "read" } else { "received" };
            after.events.push(notice(
                what,
                Some(sender.as_str()),
                format!("{shown} has {what} {} message(s)", messages.len()),
            ));
        }
        Body::Text(_) | Body::File(_) | Body::Change { .. } => {}
    }
    tx.apply(opened.change);
    Ok(Some(Taken::Done))
}

/// The room in which an opened link takes the place of an older one of the same device: only so many of each
/// are kept, and whoever was away for longer than that gets all of them before the first line of the log.
fn displaces(state: &State, opened: &Opened) -> Option<SealedRoom> {
    let Body::SenderKey(skdm) = &opened.inner.body else { return None };
    let room = state.rooms.get(&skdm.room)?;
    let (_, chains) = opened.change.chains.iter().find(|(id, _)| *id == skdm.room)?;
    let replaced = chains.held() <= room.chains.held() && *chains.to_row() != *room.chains.to_row();
    replaced.then(|| room.roster.name().clone())
}

pub(super) fn held_signal(signal: &SignalLine<'_>) -> Held {
    Held {
        target: None,
        id: signal.id,
        time_ms: signal.time.as_millis(),
        sender: signal.sender.clone(),
        body: signal.body.to_owned(),
        since_ms: now().ms(),
    }
}

/// The event for a line that cannot be opened.
pub(super) fn unreadable(target: &str, sender: &UserName, id: Option<u64>, error: Error) -> Event {
    Event::Unreadable {
        target: target.to_owned(),
        sender: sender.to_string(),
        id,
        code: error.code().to_owned(),
        text: meaning(error).to_owned(),
    }
}

/// What a code means for the reader.
pub(crate) fn meaning(error: Error) -> &'static str {
    match error {
        Error::Syntax => "this is no envelope",
        Error::Plain => "clear text where only sealed messages are said",
        Error::Identity => "sealed under another identity than the pinned one",
        Error::UnlistedDevice => "from a device that its account does not list",
        Error::NoSession => "the session it belongs to is not here (any more)",
        Error::NoPrekey => "made with a key that is used or expired",
        Error::Handshake | Error::LowOrder => "the handshake does not hold",
        Error::Signature => "a signature does not hold",
        Error::Commit | Error::Auth => "it was changed on the way, or sealed with another key",
        Error::Payload => "its parts do not belong together",
        Error::Padding | Error::Inner => "its sender does not keep to the rules",
        Error::Replay => "it was opened before",
        Error::Reused => "its place was used by another message: a restored or cloned store",
        Error::TooFar => "too many messages before it are missing",
        Error::Clock => "its time is too far ahead",
        Error::NotForThisDevice => "sealed before this device was listed",
        Error::Own => "sealed by this device, which keeps no copy",
        Error::NeedRoster => "the room's roster has not been read so far",
        Error::NoChain => "its key has not come",
        Error::BeforeChain => "sealed before this device was given the key",
        Error::ClosedChain => "sealed with a key that its sender has given up",
        Error::NotMember => "its sender is no member of the room",
        Error::ChainTaken => "its key belongs to somebody else",
        Error::Fork => "its sender knows another history of the room",
        Error::Room => "sealed for another room, or by another device",
        Error::Random => "the random source of this machine failed",
    }
}

/// What is shown of a line that the history does not hold: clear text as it is, an envelope that was read
/// and is not kept any more (or never was for this device) as a word.
pub(super) fn unkept(
    tx: &Tx<'_>,
    me: &UserName,
    line: &LogLine,
    conversation: &Target,
) -> Result<Option<Event>, Failure> {
    let e2e_room = is_in_sealed_room(tx, conversation)?;
    let refused = || unreadable(conversation.as_str(), &line.sender, Some(line.id), Error::Plain);
    let what = match &line.what {
        LogWhat::File(file) if is_ciphertext(file, conversation, e2e_room) => return Ok(None),
        LogWhat::File(_) if e2e_room => return Ok(Some(refused())),
        LogWhat::File(file) => What::File(file.clone()),
        LogWhat::Body(body) if body.starts_with(armour::BODY_PREFIX) => {
            return Ok(Some(Event::Unreadable {
                target: conversation.to_string(),
                sender: line.sender.to_string(),
                id: Some(line.id),
                code: "not-kept".to_owned(),
                text: "read before and not kept, or not sealed for this device".to_owned(),
            }));
        }
        LogWhat::Body(_) if e2e_room => return Ok(Some(refused())),
        LogWhat::Body(body) => What::Plain { text: body.clone() },
    };
    entry_event(tx, me, &plain_entry(line, conversation, what))
}

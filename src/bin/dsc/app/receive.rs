//! Taking in what the server has: rosters first, then signals, then the logs, each from where this
//! device stopped.
//!
//! A line is opened once. What it changes is committed together with its text and the cursor of its
//! conversation, and only then shown; whatever is seen again is answered from the history or passed over.

use std::collections::BTreeSet;

use downstream::e2e::armour;
use downstream::e2e::contact::Contact;
use downstream::e2e::error::Error;
use downstream::e2e::inner::{Body, Via};
use downstream::e2e::marks;
use downstream::e2e::name::{Address, ChainId, Mark as EnvelopeMark, RoomId, RoomName as SealedRoom, User};
use downstream::e2e::receive::{Line, Opened, Target as SealedTarget};
use downstream::protocol::{
    Fields, FileLine, MessageLine, RoomName, SignalLine, Target, Timestamp, UnreadLine, UserName,
};

use super::shown::message_event;
use super::{
    Client, Os, alarm, device_name, is_sealed_room, notice, now, sealed_room, sealed_user, state,
};
use crate::error::{Exit, Failure};
use crate::event::{Content, Event, Mark, Message};
use crate::store::{Entry, Held, Tx, What};

/// Lines opened in one transaction: a page costs one sync of the disk, not a hundred, and other
/// processes that share the home get their turn in between.
const BATCH: usize = 100;
/// Messages asked for at once: the most that the server gives.
const PAGE: usize = 1000;
/// Pages of signals read in one go; a server that always says `more` ends here, not never.
const SIGNAL_PAGES: usize = 64;
/// Seconds between two requests for the same chain.
const ASK_CHAIN_EVERY: u64 = 3600;

/// Which logs are read.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Reading<'t> {
    /// All of them.
    All,
    /// These.
    Only(&'t [Target]),
}

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
    /// A file sent in clear: size, SHA-256, name.
    File {
        size: u64,
        sha256: String,
        name: String,
    },
}

impl LogLine {
    /// Reads a row or event of a log.
    pub(super) fn read(fields: &Fields<'_>) -> Option<LogLine> {
        if let Ok(MessageLine { id, time, target, sender, body, .. }) = MessageLine::read(fields) {
            return Some(LogLine { id, time, target, sender, what: LogWhat::Body(body.to_owned()) });
        }
        let FileLine { id, time, target, sender, size, sha256, name, .. } = FileLine::read(fields).ok()?;
        let what = LogWhat::File { size, sha256: armour::hex(&sha256), name: name.to_owned() };
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

impl Client<'_> {
    /// Rosters, signals, logs.
    pub(crate) fn catch_up(&mut self, reading: Reading<'_>) -> Result<(), Failure> {
        let after = self.transact(|tx| {
            let mut after = After::default();
            let old = tx.expire(now().ms())?;
            let_go(tx, &old, &mut after)?;
            Ok(after)
        })?;
        self.follow(after)?;
        self.read_rosters()?;
        self.read_signals()?;
        self.read_logs(reading)?;
        if self.transact(|tx| Ok(!tx.held()?.is_empty()))? {
            // A key may have come while the logs were read.
            self.read_signals()?;
        }
        self.flush()?;
        Ok(())
    }

    fn read_logs(&mut self, reading: Reading<'_>) -> Result<(), Failure> {
        let targets = match reading {
            Reading::Only(targets) => targets.to_vec(),
            Reading::All => {
                let (rows, _) = self.command("/unread all")?;
                let mut behind = Vec::new();
                for row in &rows {
                    let Ok(unread) = UnreadLine::read(&Fields::parse(row)) else { continue };
                    let cursor = self.transact(|tx| Ok(tx.cursor(&unread.target).unwrap_or(0)))?;
                    if unread.count > 0 || unread.last > cursor {
                        behind.push(unread.target);
                    }
                }
                behind
            }
        };
        targets.iter().try_for_each(|target| self.read_log(target))
    }

    /// Reads one log from the cursor to its end.
    fn read_log(&mut self, target: &Target) -> Result<(), Failure> {
        let begun = self.transact(|tx| Ok(tx.cursor(target).unwrap_or(0)))?;
        let mut cursor = begun;
        loop {
            let (rows, reply) = self.command(&format!("/fetch {target} after={cursor} limit={PAGE}"))?;
            let lines: Vec<LogLine> = rows
                .iter()
                .filter_map(|row| LogLine::read(&Fields::parse(row)))
                .filter(|line| line.id > cursor)
                .collect();
            let Some(last) = lines.iter().map(|line| line.id).max() else { break };
            self.take_log(&lines)?;
            cursor = last;
            if reply.key("more") != Some("yes") {
                break;
            }
        }
        if let Target::Room(room) = target {
            self.transact(|tx| read_to_end(tx, room))?;
        }
        if cursor > begun {
            self.mark_read(target, cursor)?;
        }
        Ok(())
    }

    /// Tells the server how far the account has read. A refusal is no failure of reading.
    pub(crate) fn mark_read(&mut self, target: &Target, id: u64) -> Result<(), Failure> {
        self.ask(&format!("/ack {target} {id}"))?;
        Ok(())
    }

    /// Takes in lines of logs, in order: live ones and those of a page alike.
    pub(super) fn take_log(&mut self, lines: &[LogLine]) -> Result<(), Failure> {
        let me = self.transact(|tx| account(tx))?;
        let mut rest = lines;
        // What was asked for once and did not help is not asked for again: a log of junk costs one question.
        let mut tried = BTreeSet::new();
        while !rest.is_empty() {
            let (done, wish, after) = self.transact(|tx| {
                let mut after = After::default();
                for (i, line) in rest.iter().take(BATCH).enumerate() {
                    let conversation = line.conversation(&me);
                    if line.id <= tx.cursor(&conversation).unwrap_or(0) {
                        continue;
                    }
                    match take_line(tx, &me, line, &conversation, &mut after)? {
                        Taken::Done => {}
                        Taken::Wants(wish) if !tried.contains(&wish) => return Ok((i, Some(wish), after)),
                        Taken::Wants(Wish::List(_)) => {
                            give_up(tx, line, &conversation, Error::UnlistedDevice, &mut after)?
                        }
                        Taken::Hold | Taken::Wants(_) => hold(tx, line, &conversation, &mut after)?,
                    }
                    tx.set_cursor(&conversation, line.id);
                }
                Ok((rest.len().min(BATCH), None, after))
            })?;
            self.follow(after)?;
            rest = rest.get(done..).unwrap_or_default();
            if let Some(wish) = wish {
                self.grant(&wish)?;
                tried.insert(wish);
            }
        }
        Ok(())
    }

    /// Reads all waiting signals.
    pub(super) fn read_signals(&mut self) -> Result<(), Failure> {
        let mut after = 0;
        for _ in 0..SIGNAL_PAGES {
            let (rows, reply) = self.command(&format!("/signals after={after}"))?;
            let signals: Vec<SignalLine<'_>> =
                rows.iter().filter_map(|row| SignalLine::read(&Fields::parse(row)).ok()).collect();
            let Some(last) = signals.iter().map(|signal| signal.id).max() else { break };
            self.take_signals(&signals)?;
            if reply.key("more") != Some("yes") || last <= after {
                break;
            }
            after = last;
        }
        Ok(())
    }

    /// Takes in signals and acknowledges those that were for this device.
    pub(super) fn take_signals(&mut self, signals: &[SignalLine<'_>]) -> Result<(), Failure> {
        let mut rest = signals;
        let mut tried = BTreeSet::new();
        while !rest.is_empty() {
            let (done, wish, after, erase) = self.transact(|tx| {
                let (mut after, mut erase) = (After::default(), Vec::new());
                for (i, signal) in rest.iter().take(BATCH).enumerate() {
                    match take_signal(tx, signal, &mut after)? {
                        Some(Taken::Done) => erase.push(signal.id),
                        Some(Taken::Wants(wish)) if !tried.contains(&wish) => return Ok((i, Some(wish), after, erase)),
                        Some(Taken::Wants(Wish::List(_))) => {
                            let event = unreadable(signal.sender.as_str(), &signal.sender, None, Error::UnlistedDevice);
                            after.events.push(event);
                            erase.push(signal.id);
                        }
                        Some(Taken::Hold | Taken::Wants(_)) => {
                            let dropped = tx.hold(held_signal(signal))?;
                            let_go(tx, &dropped, &mut after)?;
                            erase.push(signal.id);
                        }
                        None => {}
                    }
                }
                Ok((rest.len().min(BATCH), None, after, erase))
            })?;
            self.follow(after)?;
            let erase: Vec<String> = erase.iter().map(|id| format!("/ack signals {id}")).collect();
            let erase: Vec<&str> = erase.iter().map(String::as_str).collect();
            // A signal that is gone already (another process was quicker) is as good.
            self.server.ask_all(&erase)?;
            rest = rest.get(done..).unwrap_or_default();
            if let Some(wish) = wish {
                self.grant(&wish)?;
                tried.insert(wish);
            }
        }
        Ok(())
    }

    /// Opens again what waited for a key or a roster.
    pub(super) fn retry_held(&mut self) -> Result<(), Failure> {
        let after = self.transact(|tx| {
            let me = account(tx)?;
            let (mut after, mut released) = (After::default(), false);
            for (key, held) in tx.held()? {
                let taken = match &held.target {
                    None => {
                        let signal = SignalLine {
                            id: held.id,
                            time: Timestamp::from_millis(held.time_ms),
                            sender: held.sender.clone(),
                            body: &held.body,
                        };
                        take_signal(tx, &signal, &mut after)?.unwrap_or(Taken::Done)
                    }
                    Some(target) => {
                        let line = LogLine {
                            id: held.id,
                            time: Timestamp::from_millis(held.time_ms),
                            target: target.clone(),
                            sender: held.sender.clone(),
                            what: LogWhat::Body(held.body.clone()),
                        };
                        let before = after.events.len();
                        let taken = take_line(tx, &me, &line, target, &mut after)?;
                        for event in after.events.iter_mut().skip(before) {
                            if let Event::Message(message) = event {
                                message.marks.push(Mark::Late);
                            }
                        }
                        taken
                    }
                };
                if matches!(taken, Taken::Done) {
                    tx.release(key)?;
                    released = true;
                }
            }
            // A key that was held itself may open more; what opened nothing is not tried again.
            after.new_chain &= released;
            Ok(after)
        })?;
        self.follow(after)
    }

    fn grant(&mut self, wish: &Wish) -> Result<(), Failure> {
        match wish {
            Wish::List(user) => self.learn_or_alarm(user),
            Wish::Roster(room) => self.read_roster(room),
            Wish::Signals => self.read_signals(),
        }
    }

    /// Fetches an account's list; an identity that changed was shown as an alarm and is no reason to stop
    /// reading.
    pub(super) fn learn_or_alarm(&mut self, user: &User) -> Result<(), Failure> {
        match self.learn(user) {
            Err(failure) if matches!(failure.exit, Exit::Network | Exit::NoSession) => Err(failure),
            _ => Ok(()),
        }
    }

    /// Shows what was committed and does what it asks for.
    fn follow(&mut self, after: After) -> Result<(), Failure> {
        self.say_all(&after.events)?;
        for user in &after.lists {
            self.learn_or_alarm(user)?;
        }
        for (address, error, mark) in after.resets {
            self.reset(&address, error, mark)?;
        }
        for (address, room) in after.chain_requests {
            self.answer_chain_request(&address, &room)?;
        }
        for (address, room, chain) in after.ask_chains {
            self.ask_for_chain(&address, room, chain)?;
        }
        if after.new_chain {
            self.retry_held()?;
        }
        Ok(())
    }
}

/// This device's account, by its name on the wire.
pub(crate) fn account(tx: &Tx<'_>) -> Result<UserName, Failure> {
    if let Some(state) = tx.state() {
        return super::wire_user(state.me.user());
    }
    tx.profile().user.ok_or_else(super::no_keys)
}

fn read_to_end(tx: &mut Tx<'_>, room: &RoomName) -> Result<(), Failure> {
    let name = sealed_room(room)?;
    let Some(known) = tx.state().and_then(|state| state.room_named(&name)) else { return Ok(()) };
    let change = state(tx)?.read_to_end(&known.roster.id());
    let changed = change.chains.iter().any(|(_, chains)| *chains.to_row() != *known.chains.to_row());
    if changed {
        tx.apply(change);
    }
    Ok(())
}

/// Opens one line of a log; what it changes is staged.
pub(super) fn take_line(
    tx: &mut Tx<'_>,
    me: &UserName,
    line: &LogLine,
    conversation: &Target,
    after: &mut After,
) -> Result<Taken, Failure> {
    let body = match &line.what {
        LogWhat::Body(body) => body,
        LogWhat::File { size, sha256, name } => {
            let content = Content::File { name: name.clone(), size: *size, mime: String::new(), blob: sha256.clone() };
            after.events.push(Event::Message(plain_message(me, line, conversation, content)));
            return Ok(Taken::Done);
        }
    };
    let sealed = body.starts_with(armour::BODY_PREFIX);
    let e2e_room = match conversation {
        Target::Room(room) => is_sealed_room(tx, room)?,
        Target::User(_) => false,
    };
    if !sealed && !e2e_room {
        let entry = Entry {
            target: conversation.clone(),
            id: Some(line.id),
            time_ms: line.time.as_millis(),
            sender: line.sender.clone(),
            what: What::Plain { text: body.clone() },
            marks: vec![Mark::Plain],
        };
        tx.record(entry)?;
        after.events.push(Event::Message(plain_message(me, line, conversation, Content::Text { text: body.clone() })));
        return Ok(Taken::Done);
    }
    if tx.state().is_none() {
        after.events.push(unreadable(conversation.as_str(), &line.sender, Some(line.id), Error::NotForThisDevice));
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
fn hold(tx: &mut Tx<'_>, line: &LogLine, conversation: &Target, after: &mut After) -> Result<(), Failure> {
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
        && let Ok(downstream::e2e::envelope::Envelope::Group(group)) = downstream::e2e::envelope::Envelope::parse(&raw)
    {
        let from = Address { user: sealed_user(&line.sender)?, device: group.device };
        let key = format!("asked/{}", group.chain);
        let last = tx.setting(&key).and_then(|bytes| bytes.as_slice().try_into().ok()).map_or(0, u64::from_be_bytes);
        if now().secs().saturating_sub(last) >= ASK_CHAIN_EVERY {
            tx.set_setting(&key, &now().secs().to_be_bytes());
            after.ask_chains.push((from, group.room, group.chain));
        }
    }
    Ok(())
}

/// Lines that waited for a key until there was no time or room for them any more.
fn let_go(tx: &mut Tx<'_>, lines: &[Held], after: &mut After) -> Result<(), Failure> {
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

/// Opens a signal; `None` if it is for another device.
pub(super) fn take_signal(
    tx: &mut Tx<'_>,
    signal: &SignalLine<'_>,
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
    if let Some((from, mark)) = &marked {
        tx.seen(from, *mark)?;
    }
    let opened = match state(tx)?.open(&line, now(), &mut Os) {
        Ok(opened) => opened,
        Err(Error::NotForThisDevice) => return Ok(None),
        Err(Error::Own | Error::Replay) => return Ok(Some(Taken::Done)),
        Err(Error::Random) => return Err(super::no_random()),
        Err(Error::UnlistedDevice) => return Ok(Some(Taken::Wants(Wish::List(sender)))),
        Err(Error::NeedRoster) => {
            // While the roster is behind what others know, nothing is sent there.
            let heard = state(tx)?.epoch_of_link(&line, now(), &mut Os);
            let Some((room, epoch)) = heard else { return Ok(Some(Taken::Hold)) };
            let Some(name) = state(tx)?.rooms.get(&room).map(|room| room.roster.name().clone()) else {
                return Ok(Some(Taken::Hold));
            };
            let change = state(tx)?.hold_room(&room, epoch);
            tx.apply(change);
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

fn held_signal(signal: &SignalLine<'_>) -> Held {
    Held {
        target: None,
        id: signal.id,
        time_ms: signal.time.as_millis(),
        sender: signal.sender.clone(),
        body: signal.body.to_owned(),
        since_ms: now().ms(),
    }
}

fn plain_message(me: &UserName, line: &LogLine, conversation: &Target, content: Content) -> Message {
    Message {
        target: conversation.to_string(),
        sender: line.sender.to_string(),
        device: None,
        id: Some(line.id),
        time: Some(line.time.to_string()),
        msg_id: None,
        encrypted: false,
        own: line.sender == *me,
        content,
        marks: vec![Mark::Plain],
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
pub(super) fn unkept(me: &UserName, line: &LogLine, conversation: &Target) -> Option<Event> {
    match &line.what {
        LogWhat::File { size, sha256, name } => {
            let content = Content::File { name: name.clone(), size: *size, mime: String::new(), blob: sha256.clone() };
            Some(Event::Message(plain_message(me, line, conversation, content)))
        }
        LogWhat::Body(body) if body.starts_with(armour::BODY_PREFIX) => Some(Event::Unreadable {
            target: conversation.to_string(),
            sender: line.sender.to_string(),
            id: Some(line.id),
            code: "not-kept".to_owned(),
            text: "read before and not kept, or sealed for another device".to_owned(),
        }),
        LogWhat::Body(body) => {
            Some(Event::Message(plain_message(me, line, conversation, Content::Text { text: body.clone() })))
        }
    }
}

//! Taking in what the server has: rosters first, then signals, then the logs, each from where this
//! device stopped.
//!
//! A line is opened once. What it changes is committed together with its text and the cursor of its
//! conversation, and only then shown; whatever is seen again is answered from the history or passed over.

use std::collections::{BTreeMap, BTreeSet};

use downstream::e2e::error::Error;
use downstream::e2e::name::{RoomName as SealedRoom, User};
use downstream::protocol::{Fields, RoomName, SignalLine, Target, Timestamp, UnreadLine, UserName};

use super::take::{
    After, LogLine, LogWhat, Taken, Wish, give_up, held_signal, hold, let_go, take_line, take_signal, unreadable,
};
use super::{Client, entry_event, notice, now, save, sealed_room, state, wire_room};
use crate::error::{Exit, Failure};
use crate::event::{Event, Mark};
use crate::store::Tx;

/// Lines opened in one transaction: a page costs one sync of the disk, not a hundred, and other
/// processes that share the home get their turn in between.
const BATCH: usize = 100;
/// Messages asked for at once: the most that the server gives.
const PAGE: usize = 1000;
/// Messages that another process took in and that are shown late, at most, of one conversation.
const TAKEN_MAX: u64 = 1000;
/// Pages of signals read in one go; a server that always says `more` ends here, not never.
const SIGNAL_PAGES: usize = 64;
/// Pages of one log read in one go, which have up to 1 MiB each: what a server makes up without end would
/// fill the disk before the history is swept.
const LOG_PAGES: usize = 4096;

/// Which logs are read.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Reading<'t> {
    /// All of them.
    All,
    /// These.
    Only(&'t [Target]),
}

impl Reading<'_> {
    /// Whether a conversation is read.
    pub(super) fn covers(self, conversation: &Target) -> bool {
        match self {
            Reading::All => true,
            Reading::Only(targets) => targets.contains(conversation),
        }
    }
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
        if self.transact(|tx| Ok(tx.state().is_none()))? {
            let text =
                "this device has no keys: what is sealed cannot be read here; `dsc link` joins it to the account";
            self.say(&notice("no-keys", None, text))?;
        }
        self.show_what_others_took()?;
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

    /// What other processes have taken in of the conversations that this one shows, while it was away.
    fn show_what_others_took(&mut self) -> Result<(), Failure> {
        let Some(mut shown) = self.store.shown().take() else { return Ok(()) };
        let took = self.transact(|tx| {
            let (me, mut after) = (account(tx)?, After::default());
            for (target, cursor) in tx.cursors() {
                show_taken(tx, &me, &mut shown, &target, cursor, &mut after)?;
            }
            Ok(after.events)
        });
        *self.store.shown() = Some(shown);
        self.say_all(&took?)
    }

    fn read_logs(&mut self, reading: Reading<'_>) -> Result<(), Failure> {
        let targets = match reading {
            Reading::Only(targets) => targets.iter().map(|target| (target.clone(), false)).collect(),
            Reading::All => {
                let (rows, _) = self.command("/unread all")?;
                let unread: Vec<UnreadLine> =
                    rows.iter().filter_map(|row| UnreadLine::read(&Fields::parse(row)).ok()).collect();
                self.transact(|tx| {
                    let mut behind = Vec::new();
                    for unread in unread {
                        if unread.count > 0 || unread.last > tx.cursor(&unread.target).unwrap_or(0) {
                            behind.push((unread.target, unread.count > 0));
                        }
                    }
                    // The others have been read to their end, after the rosters were.
                    for room in rooms(tx) {
                        let target = Target::Room(room.clone());
                        if !behind.iter().any(|(behind, _)| *behind == target) {
                            read_to_end(tx, &room)?;
                        }
                    }
                    Ok(behind)
                })?
            }
        };
        targets.iter().try_for_each(|(target, is_unread)| self.read_log(target, *is_unread))
    }

    /// Reads one log from the cursor to its end.
    /// `is_unread`: the server counts something of it as unread, though this device may have all of it.
    pub(super) fn read_log(&mut self, target: &Target, is_unread: bool) -> Result<(), Failure> {
        let begun = self.transact(|tx| Ok(tx.cursor(target).unwrap_or(0)))?;
        let mut cursor = begun;
        let me = self.transact(|tx| account(tx))?;
        let mut ended = false;
        for _ in 0..LOG_PAGES {
            let (rows, reply) = self.command(&format!("/fetch {target} after={cursor} limit={PAGE}"))?;
            let lines: Vec<LogLine> = rows
                .iter()
                .filter_map(|row| LogLine::read(&Fields::parse(row)))
                // Of another conversation nothing was asked for, and its numbers are others.
                .filter(|line| line.id > cursor && line.conversation(&me) == *target)
                .collect();
            if let Some(last) = lines.iter().map(|line| line.id).max() {
                self.take_log(&lines)?;
                cursor = last;
            }
            ended = reply.key("more") != Some("yes");
            if ended || lines.is_empty() {
                break;
            }
        }
        if let Target::Room(room) = target
            && ended
        {
            self.transact(|tx| read_to_end(tx, room))?;
        }
        if cursor > 0 && (cursor > begun || is_unread) {
            self.mark_read(target, cursor)?;
        }
        Ok(())
    }

    /// Tells the server how far the account has read. A refusal is no failure of reading.
    pub(crate) fn mark_read(&mut self, target: &Target, id: u64) -> Result<(), Failure> {
        if self.transact(|tx| Ok(tx.state().is_none()))? {
            // A device without keys has read next to nothing of it.
            return Ok(());
        }
        self.ask(&format!("/ack {target} {id}"))?;
        Ok(())
    }

    /// Reads the log of a room from the cursor up to a time, while signals are being read.
    fn read_log_until(&mut self, room: &SealedRoom, until_ms: u64) -> Result<(), Failure> {
        let target = Target::Room(wire_room(room)?);
        let (me, mut cursor) = self.transact(|tx| Ok((account(tx)?, tx.cursor(&target).unwrap_or(0))))?;
        for _ in 0..LOG_PAGES {
            let answer = self.ask(&format!("/fetch {target} after={cursor} limit={PAGE}"))?;
            // Who is not in the room for the server (any more) has nothing to lose there.
            let Ok(reply) = answer.reply else { return Ok(()) };
            let lines: Vec<LogLine> = answer
                .rows
                .iter()
                .filter_map(|row| LogLine::read(&Fields::parse(row)))
                .filter(|line| line.id > cursor && line.conversation(&me) == target)
                .collect();
            let Some(last) = lines.iter().map(|line| line.id).max() else { return Ok(()) };
            let until = lines.iter().position(|line| line.time.as_millis() > until_ms).unwrap_or(lines.len());
            // The signals are being read: what lacks one waits.
            self.take_lines(lines.get(..until).unwrap_or_default(), BTreeSet::from([Wish::Signals]))?;
            if until < lines.len() || reply.key("more") != Some("yes") {
                return Ok(());
            }
            cursor = last;
        }
        Ok(())
    }

    /// Takes in lines of logs, in order: live ones and those of a page alike.
    pub(super) fn take_log(&mut self, lines: &[LogLine]) -> Result<(), Failure> {
        self.take_lines(lines, BTreeSet::new())
    }

    /// What was asked for once (`tried`) and did not help is not asked for again: a log of junk costs one
    /// question.
    fn take_lines(&mut self, lines: &[LogLine], mut tried: BTreeSet<Wish>) -> Result<(), Failure> {
        let me = self.transact(|tx| account(tx))?;
        let mut rest = lines;
        while !rest.is_empty() {
            let mut shown = self.store.shown().take();
            let took = self.transact(|tx| {
                let mut after = After::default();
                for (i, line) in rest.iter().take(BATCH).enumerate() {
                    let conversation = line.conversation(&me);
                    if line.id <= tx.cursor(&conversation).unwrap_or(0) {
                        if let Some(shown) = &mut shown {
                            show_taken(tx, &me, shown, &conversation, line.id, &mut after)?;
                        }
                        continue;
                    }
                    if let Some(shown) = &mut shown {
                        // All that lies before this line was taken in by another process.
                        let before = tx.cursor(&conversation).unwrap_or(0);
                        show_taken(tx, &me, shown, &conversation, before, &mut after)?;
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
                    mark_shown(&mut shown, &conversation, line.id);
                }
                Ok((rest.len().min(BATCH), None, after))
            });
            *self.store.shown() = shown;
            let (done, wish, after) = took?;
            self.follow(after)?;
            rest = rest.get(done..).unwrap_or_default();
            if let Some(wish) = wish {
                self.grant(&wish)?;
                tried.insert(wish);
            }
        }
        Ok(())
    }

    /// What was said in a room between the invitation and the joining was sealed for this device too: it is
    /// shown. What it cannot open was not for it, and is passed over in silence.
    pub(super) fn take_earlier(&mut self, target: &Target) -> Result<(), Failure> {
        let (rows, _) = self.command(&format!("/fetch {target} limit={PAGE}"))?;
        let me = self.transact(|tx| account(tx))?;
        let lines: Vec<LogLine> = rows
            .iter()
            .filter_map(|row| LogLine::read(&Fields::parse(row)))
            .filter(|line| line.conversation(&me) == *target)
            .collect();
        for lines in lines.chunks(BATCH) {
            let after = self.transact(|tx| {
                let (me, mut all) = (account(tx)?, After::default());
                for line in lines {
                    if line.id > tx.cursor(target).unwrap_or(0) || tx.entry(target, line.id)?.is_some() {
                        continue;
                    }
                    let mut after = After::default();
                    take_line(tx, &me, line, target, &mut after)?;
                    after.events.retain(|event| !matches!(event, Event::Unreadable { .. } | Event::Missing { .. }));
                    all.events.extend(after.events);
                    all.lists.extend(after.lists);
                }
                Ok(all)
            })?;
            self.follow(after)?;
        }
        Ok(())
    }

    /// Reads all waiting signals.
    pub(super) fn read_signals(&mut self) -> Result<(), Failure> {
        let mut after = 0;
        for _ in 0..SIGNAL_PAGES {
            let answer = match after {
                0 => self.ask("/signals")?,
                after => self.ask(&format!("/signals after={after}"))?,
            };
            let (rows, reply) = match answer.reply {
                Ok(reply) => (answer.rows, reply),
                // A server without pages of signals: the rest comes once these are erased.
                Err(refusal) if after > 0 && refusal.code == "syntax" => break,
                Err(refusal) => return Err(refusal.into()),
            };
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
                    let mut taken = take_signal(tx, signal, false, &mut after)?;
                    if matches!(&taken, Some(Taken::Wants(wish @ Wish::Log(..))) if tried.contains(wish)) {
                        taken = take_signal(tx, signal, true, &mut after)?;
                    }
                    match taken {
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
                        take_signal(tx, &signal, true, &mut after)?.unwrap_or(Taken::Done)
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
            Wish::Log(room, until_ms) => self.read_log_until(room, *until_ms),
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

/// Messages of others, up to `to`, that another process has taken in and this one has not shown: from the
/// history. What was sent from this device is news to nobody here.
fn show_taken(
    tx: &mut Tx<'_>,
    me: &UserName,
    shown: &mut BTreeMap<Target, u64>,
    conversation: &Target,
    to: u64,
    after: &mut After,
) -> Result<(), Failure> {
    let from = shown.get(conversation).copied().unwrap_or(0);
    for id in from.max(to.saturating_sub(TAKEN_MAX)).saturating_add(1)..=to {
        let Some(entry) = tx.entry(conversation, id)? else { continue };
        if !save::is_own(tx, me, &entry) {
            after.events.extend(entry_event(tx, me, &entry)?);
            save::note(tx, me, &entry, after);
        }
    }
    shown.insert(conversation.clone(), from.max(to));
    Ok(())
}

fn mark_shown(shown: &mut Option<BTreeMap<Target, u64>>, conversation: &Target, id: u64) {
    if let Some(shown) = shown {
        shown.insert(conversation.clone(), id);
    }
}

/// The rooms of which this device has a roster.
fn rooms(tx: &Tx<'_>) -> Vec<RoomName> {
    let rooms = tx.state().map(|state| state.rooms.values()).into_iter().flatten();
    rooms.filter_map(|room| RoomName::parse(room.roster.name().as_str()).ok()).collect()
}

/// Whether somebody was removed from a room and may still be heard there until its log was read to its end.
pub(super) fn awaits_end(tx: &Tx<'_>, room: &SealedRoom) -> bool {
    let known = tx.state().and_then(|state| state.room_named(room));
    known.is_some_and(|known| known.chains.awaits_end())
}

fn read_to_end(tx: &mut Tx<'_>, room: &RoomName) -> Result<(), Failure> {
    let name = sealed_room(room)?;
    if awaits_end(tx, &name)
        && let Some(known) = tx.state().and_then(|state| state.room_named(&name))
    {
        let change = state(tx)?.read_to_end(&known.roster.id());
        tx.apply(change);
    }
    Ok(())
}

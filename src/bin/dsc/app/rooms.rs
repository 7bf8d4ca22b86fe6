//! Rooms: the signed roster decides who is sealed to, the server's membership only who is delivered to.
//! Every change is written into the roster first.

use std::collections::BTreeSet;

use downstream::e2e::armour;
use downstream::e2e::contact::Contact;
use downstream::e2e::error::Error;
use downstream::e2e::name::{RoomName as SealedRoom, User};
use downstream::e2e::roster::{Entry, Op};
use downstream::e2e::roster_log::{Roster, Skip, Verdict};
use downstream::protocol::{Fields, RoomName, Target, UserName};

use super::directory::{Learned, no_keys_of};
use super::receive::awaits_end;
use super::{Client, Os, alarm, cannot_seal, is_sealed_room, no_random, notice, now, sealed_room, sealed_user, state};
use crate::error::{Exit, Failure};
use crate::event::{Event, Row};
use crate::server::{Answer, Refusal};
use crate::store::Tx;

/// How often a roster entry is signed anew because another one took its place.
const CONFLICTS: usize = 16;
/// Pages of a roster, or of the list of rooms, read in one go.
const PAGES: usize = 256;

/// What is done to a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Member {
    /// Let in.
    Invite,
    /// Put out.
    Kick,
    /// Put out and kept out.
    Ban,
    /// Made an admin.
    Op,
    /// Made a member only.
    Deop,
}

impl Member {
    fn op(self) -> Op {
        match self {
            Member::Invite => Op::Add,
            Member::Kick | Member::Ban => Op::Remove,
            Member::Op => Op::Promote,
            Member::Deop => Op::Demote,
        }
    }

    fn verb(self) -> &'static str {
        match self {
            Member::Invite => "invite",
            Member::Kick => "kick",
            Member::Ban => "ban",
            Member::Op => "op",
            Member::Deop => "deop",
        }
    }
}

impl Client<'_> {
    /// Reads the rosters of all end-to-end rooms that the account is in.
    pub(super) fn read_rosters(&mut self) -> Result<(), Failure> {
        if self.transact(|tx| Ok(tx.state().is_none()))? {
            return Ok(());
        }
        let mut page = String::new();
        for _ in 0..PAGES {
            let (rows, reply) = self.command(&format!("/rooms{page}"))?;
            let mut last = None;
            for row in &rows {
                let fields = Fields::parse(row);
                let Some(room) = fields.word(1).and_then(|name| RoomName::parse(name).ok()) else { continue };
                last = Some(room.clone());
                if fields.key("joined") == Some("yes") {
                    self.read_roster_of(&room, fields.key("e2e") == Some("yes"))?;
                }
            }
            match last {
                Some(room) if reply.key("more") == Some("yes") => page = format!(" after={room}"),
                _ => break,
            }
        }
        Ok(())
    }

    /// Reads the roster of a room that the server calls end to end, or says that it is none any more.
    fn read_roster_of(&mut self, room: &RoomName, e2e: bool) -> Result<(), Failure> {
        if e2e {
            return self.read_roster(&sealed_room(room)?);
        }
        if self.transact(|tx| is_sealed_room(tx, room))? {
            let text =
                format!("the server calls {room} a plain room; it is end to end, and nothing is said there in clear");
            self.say(&alarm("downgrade", room.as_str(), text))?;
        }
        Ok(())
    }

    /// Reads the roster of a room from where this device stopped.
    ///
    /// # Errors
    /// [`Failure`] of the network; what the entries say is shown.
    pub(super) fn read_roster(&mut self, room: &SealedRoom) -> Result<(), Failure> {
        self.is_roster_shown(room).map(drop)
    }

    /// The same; whether the server shows the roster at all, which it does to whom it has in the room.
    pub(super) fn is_roster_shown(&mut self, room: &SealedRoom) -> Result<bool, Failure> {
        for _ in 0..PAGES {
            let after =
                self.transact(|tx| Ok(tx.state().and_then(|s| s.room_named(room)).map_or(0, |r| r.roster.read())))?;
            let answer = self.ask(&format!("/roster {room} after={after}"))?;
            let reply = match answer.reply {
                Ok(reply) => reply,
                // Not in the room for the server (any more): nothing to read.
                Err(Refusal { code, .. }) if matches!(code.as_str(), "not-member" | "no-such-room" | "forbidden") => {
                    return Ok(false);
                }
                Err(refusal) => return Err(refusal.into()),
            };
            let rows: Vec<(String, String, String)> = answer.rows.iter().filter_map(|row| roster_row(row)).collect();
            let read = rows.len();
            self.import_roster_rows(&rows)?;
            let last = reply.key("epoch").and_then(|epoch| epoch.parse::<u32>().ok()).unwrap_or(0);
            self.check_length(room, last)?;
            if reply.key("more") != Some("yes") || read == 0 {
                break;
            }
        }
        Ok(true)
    }

    /// A log that is shorter than what was read of it has been cut.
    fn check_length(&mut self, room: &SealedRoom, last: u32) -> Result<(), Failure> {
        let read =
            self.transact(|tx| Ok(tx.state().and_then(|s| s.room_named(room)).map_or(0, |r| r.roster.read())))?;
        if last < read {
            let text =
                format!("the server shows only {last} of the {read} roster entries of {room} that were read before");
            self.say(&alarm("roster-cut", room.as_str(), text))?;
        }
        Ok(())
    }

    /// Takes in rows of `/roster`: room, place, base64.
    pub(super) fn import_roster_rows(&mut self, rows: &[(String, String, String)]) -> Result<(), Failure> {
        let (events, newer) = self.transact(|tx| {
            let (mut events, mut newer) = (Vec::new(), BTreeSet::new());
            for (room, place, base64) in rows {
                let (Ok(room), Ok(place)) = (SealedRoom::parse(room), place.parse::<u32>()) else { continue };
                let Ok(raw) = armour::unbase64(base64) else {
                    events.push(skipped(&room, place, "it is no base64"));
                    continue;
                };
                let begun = tx.state().is_some_and(|state| state.room_named(&room).is_some());
                match state(tx)?.read_roster(&room, place, &raw, now()) {
                    // A name stands for the room that was first met under it, also after this device has
                    // begun anew.
                    Ok((change, _))
                        if change.rosters.iter().any(|new| tx.room_pin(&room).is_some_and(|pin| pin != new.id())) =>
                    {
                        let text =
                            format!("the server shows another room under the name {room}: nothing is sent there");
                        events.push(alarm("room-changed", room.as_str(), text));
                    }
                    Ok((change, verdict)) => {
                        events.extend(verdict_event(&room, place, begun, &verdict));
                        tx.apply(change);
                        newer.extend(shows_newer_list(tx, &verdict));
                    }
                    Err(Error::NeedRoster) => {
                        return Err(Failure::new(
                            Exit::NoSession,
                            format!("entries of the roster of {room} are missing before {place}"),
                        )
                        .hint(format!("type /roster {room} and give its rows to `dsc import`")));
                    }
                    Err(error) => events.push(skipped(&room, place, error.code())),
                }
            }
            Ok((events, newer))
        })?;
        let news = !events.is_empty();
        self.say_all(&events)?;
        if !self.server.is_offline() {
            // Also what is said to them outside of the room should reach a new device.
            newer.iter().try_for_each(|user| self.learn_or_alarm(user))?;
        }
        if news { self.retry_held() } else { Ok(()) }
    }

    /// The server says that a roster has grown. That is its word: nothing is held back for a number that it
    /// may never show, and whoever sends reads the roster first.
    pub(super) fn heard_of_roster(&mut self, room: &RoomName, is_read: bool) -> Result<(), Failure> {
        let name = sealed_room(room)?;
        self.read_roster(&name)?;
        // Whoever was put out by it is heard up to here and no further.
        if is_read && self.transact(|tx| Ok(awaits_end(tx, &name)))? {
            self.read_log(&Target::Room(room.clone()), false)?;
        }
        Ok(())
    }

    /// Makes a room, end to end unless `plain`.
    pub(crate) fn create(
        &mut self,
        room: &RoomName,
        open: bool,
        plain: bool,
        topic: Option<&str>,
    ) -> Result<(), Failure> {
        let topic = topic.map(|topic| format!(" :{topic}")).unwrap_or_default();
        let private = if open { "" } else { " private" };
        if plain {
            self.command(&format!("/create {room}{private}{topic}"))?;
            return Ok(());
        }
        if self.transact(|tx| {
            state(tx)?;
            is_sealed_room(tx, room)
        })? {
            return Err(Failure::failed(format!("{room} is known here already")).hint("choose another name"));
        }
        let answer = self.ask(&format!("/create {room}{private} e2e{topic}"))?;
        if let Err(refusal) = answer.reply {
            // Made by an earlier try that broke off before the roster was begun?
            let unfinished = refusal.code == "name-taken"
                && self.ask(&format!("/roster {room}"))?.reply.is_ok_and(|reply| reply.key("epoch") == Some("0"));
            if !unfinished {
                return Err(refusal.into());
            }
        }
        self.begin_roster(room, open)
    }

    /// Writes the first entry of a room's roster.
    fn begin_roster(&mut self, room: &RoomName, open: bool) -> Result<(), Failure> {
        let name = sealed_room(room)?;
        let raw = self.transact(|tx| {
            let known = state(tx)?;
            let list = own_list(known)?;
            Entry::create(&known.me, &name, open, &list, now(), &mut Os).map_err(|_| no_random())
        })?;
        let answer = self.ask(&format!("/roster-add {room} 1 {}", armour::base64(&raw)))?;
        if let Err(refusal) = answer.reply {
            if refusal.code != "conflict" {
                return Err(refusal.into());
            }
            return Err(Failure::failed(format!("{room} has a roster already: somebody else began it"))
                .hint(format!("`dsc join '{room}'`")));
        }
        self.read_roster(&name)
    }

    /// Enters a room; whether it is an end-to-end room.
    ///
    /// # Errors
    /// [`Failure`].
    pub(crate) fn join(&mut self, room: &RoomName) -> Result<bool, Failure> {
        // The server would make a room that is missing, a plain one, of a mistyped name too.
        if self.command(&format!("/rooms {room}"))?.0.is_empty() {
            return Err(Failure::new(Exit::Refused, format!("there is no {room} that you may enter")).hint(format!(
                "`dsc create '{room}'` makes it; into a closed one somebody in it has to `dsc invite '{room}'` you"
            )));
        }
        let (_, reply) = self.command(&format!("/join {room}"))?;
        let target = Target::Room(room.clone());
        let last = reply.key("last").and_then(|last| last.parse::<u64>().ok()).unwrap_or(0);
        let first = self.transact(|tx| {
            // What was said before is not news.
            let first = tx.cursor(&target).is_none();
            if first {
                tx.set_cursor(&target, last);
            }
            Ok(first)
        })?;
        let pinned = self.transact(|tx| is_sealed_room(tx, room))?;
        if reply.key("e2e") != Some("yes") {
            if pinned {
                return Err(Failure::failed(format!(
                    "the server calls {room} a plain room; it is end to end, and nothing is said there in clear"
                )));
            }
            return Ok(false);
        }
        let name = sealed_room(room)?;
        self.read_roster(&name)?;
        let standing = self.transact(|tx| {
            let known = state(tx)?;
            let Some(found) = known.room_named(&name) else { return Ok(None) };
            let open = found.roster.is_open() && !found.roster.is_put_out(known.me.aik());
            Ok(Some((found.roster.member(known.me.user(), known.me.aik()).is_some(), open)))
        })?;
        if first && last > 0 && matches!(standing, Some((true, _))) {
            self.read_signals()?;
            self.take_earlier(&target)?;
        }
        match standing {
            Some((true, _)) => self.announce_in(&name),
            Some((false, true)) => self.add_entry(&name, Op::Join, None),
            Some((false, false)) => self.say(&notice(
                "not-in-roster",
                Some(room.as_str()),
                format!(
                    "the server has let you into {room}, its members have not (again): an admin has to `dsc invite '{room}'` you"
                ),
            )),
            None => self.say(&notice("no-roster", Some(room.as_str()), format!("{room} has no roster yet: whoever made it has to begin it"))),
        }?;
        Ok(true)
    }

    /// Leaves a room: in the roster, then at the server.
    pub(crate) fn leave(&mut self, room: &RoomName, reason: Option<&str>) -> Result<(), Failure> {
        let name = sealed_room(room)?;
        if self.transact(|tx| is_sealed_room(tx, room))? {
            self.read_roster(&name)?;
            let member = self.transact(|tx| {
                let known = state(tx)?;
                Ok(known.room_named(&name).is_some_and(|r| r.roster.member(known.me.user(), known.me.aik()).is_some()))
            })?;
            if member {
                self.add_entry(&name, Op::Leave, None)?;
            }
        }
        let reason = reason.map(|reason| format!(" {reason}")).unwrap_or_default();
        self.command(&format!("/leave {room}{reason}"))?;
        Ok(())
    }

    /// Does something to a member: in the roster first (of an end-to-end room), then at the server. Whether
    /// it was shown as an entry of the roster.
    pub(crate) fn change_member(
        &mut self,
        room: &RoomName,
        user: &UserName,
        what: Member,
        reason: Option<&str>,
    ) -> Result<bool, Failure> {
        let name = sealed_room(room)?;
        let subject = sealed_user(user)?;
        let sealed = self.transact(|tx| is_sealed_room(tx, room))?;
        let mut shown = false;
        if sealed {
            self.read_roster(&name)?;
            if what == Member::Invite {
                // The entry carries their list: the newest there is, under the pinned identity.
                if self.learn(&subject)? == Learned::NoKeys {
                    return Err(no_keys_of(&subject));
                }
            }
            let needed = self.transact(|tx| {
                let known = state(tx)?;
                let found = known
                    .room_named(&name)
                    .ok_or_else(|| cannot_seal(downstream::e2e::error::SealError::NeedRoster))?;
                let member = found.roster.members().iter().find(|member| member.user == subject);
                Ok(match what {
                    Member::Invite => member.is_none(),
                    Member::Kick | Member::Ban => member.is_some(),
                    Member::Op => member.is_some_and(|member| !member.admin),
                    Member::Deop => member.is_some_and(|member| member.admin),
                })
            })?;
            if needed {
                self.add_entry(&name, what.op(), Some(&subject))?;
                shown = true;
            }
        }
        let reason = reason.map(|reason| format!(" {reason}")).unwrap_or_default();
        let answer = self.ask(&format!("/{} {room} {user}{reason}", what.verb()))?;
        match answer.reply {
            Ok(_) => Ok(shown),
            // The roster is what counts; who is not there for the server need not be put out.
            Err(Refusal { code, .. }) if sealed && matches!(what, Member::Kick) && code == "not-member" => Ok(shown),
            Err(refusal) if what == Member::Invite && refusal.code == "banned" => {
                Err(Failure::from(refusal).hint(format!("`dsc unban '{room}' {user}`, and then invite them again")))
            }
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// Signs the next entry of a room's roster and adds it; again from what is there, if another entry
    /// was quicker.
    fn add_entry(&mut self, room: &SealedRoom, op: Op, about: Option<&User>) -> Result<(), Failure> {
        for _ in 0..CONFLICTS {
            let (place, raw) = self.transact(|tx| proposal(tx, room, op, about))?;
            let answer = self.ask(&format!("/roster-add {room} {place} {}", armour::base64(&raw)))?;
            let conflict = match answer.reply {
                Ok(_) => false,
                Err(refusal) if refusal.code == "conflict" => true,
                Err(refusal) => return Err(refusal.into()),
            };
            self.read_roster(room)?;
            if !conflict {
                let hash = Entry::verify(&raw).map(|entry| entry.hash());
                let accepted = self.transact(|tx| {
                    let found = state(tx)?.room_named(room);
                    Ok(found.and_then(|found| found.roster.hash_at(place)))
                })?;
                if accepted.is_some() && accepted == hash.ok() {
                    return Ok(());
                }
                return Err(Failure::failed(format!("the entry is not valid in the roster of {room}"))
                    .hint("you have to be an admin of the room, and they a member (or not yet)"));
            }
        }
        Err(Failure::failed(format!("the roster of {room} changes faster than it can be read")).hint("try again"))
    }

    /// Shows the newest own device list in every room whose roster holds an older one, so that members
    /// seal to a new device and not to a dropped one.
    pub(crate) fn announce_devices(&mut self) -> Result<(), Failure> {
        let rooms: Vec<SealedRoom> = self.transact(|tx| {
            Ok(tx.state().map(|s| s.rooms.values().map(|r| r.roster.name().clone()).collect()).unwrap_or_default())
        })?;
        rooms.iter().try_for_each(|room| self.announce_in(room))
    }

    fn announce_in(&mut self, room: &SealedRoom) -> Result<(), Failure> {
        let due = self.transact(|tx| {
            let known = state(tx)?;
            let own = known.contacts.get(known.me.user()).map_or(0, Contact::list_version);
            let member = known.room_named(room).and_then(|found| found.roster.member(known.me.user(), known.me.aik()));
            Ok(member.is_some_and(|member| member.list().version() < own))
        })?;
        if !due {
            return Ok(());
        }
        match self.add_entry(room, Op::Devices, None) {
            Err(failure) if failure.exit == Exit::Refused => Ok(()),
            other => other,
        }
    }

    /// The members of a room, as the server and the roster have them.
    pub(crate) fn members(&mut self, room: &RoomName) -> Result<Vec<Event>, Failure> {
        let answer: Answer = self.ask(&format!("/members {room}"))?;
        if let Err(refusal) = &answer.reply {
            return Err(refusal.clone().into());
        }
        let name = sealed_room(room)?;
        if self.transact(|tx| is_sealed_room(tx, room))? {
            self.read_roster(&name)?;
        }
        self.transact(|tx| {
            let state = tx.state();
            let roster = state.and_then(|state| state.room_named(&name)).map(|found| &found.roster);
            let standing = |user: &str| roster.and_then(|r| r.members().iter().find(|m| m.user.as_str() == user));
            let trust = |user: &str| {
                let contact = User::parse(user).ok().and_then(|user| state?.contacts.get(&user));
                let differs = contact.zip(standing(user)).is_some_and(|(contact, member)| *contact.aik() != member.aik);
                match contact {
                    _ if roster.is_none() => None,
                    _ if differs => Some("changed"),
                    None => Some("unknown"),
                    Some(contact) if contact.verified() => Some("verified"),
                    Some(_) => Some("unverified"),
                }
            };
            let row = |user: &str, role: Option<&str>, online: bool| {
                Event::Row(Row::Member {
                    user: user.to_owned(),
                    role: role.map(str::to_owned),
                    roster: standing(user).map(|member| if member.admin { "admin" } else { "member" }.to_owned()),
                    online,
                    trust: trust(user).map(str::to_owned),
                })
            };
            let mut rows = Vec::new();
            for text in &answer.rows {
                let words: Vec<&str> = text.split(' ').collect();
                if let ["member", user, role, presence, ..] = words.as_slice() {
                    rows.push((*user, row(user, Some(role), *presence == "online")));
                }
            }
            for member in roster.iter().flat_map(|roster| roster.members()) {
                if !rows.iter().any(|(user, _)| *user == member.user.as_str()) {
                    rows.push((member.user.as_str(), row(member.user.as_str(), None, false)));
                }
            }
            Ok(rows.into_iter().map(|(_, row)| row).collect())
        })
    }
}

/// Whose entry carries a newer device list than the pinned one, under the pinned identity.
fn shows_newer_list(tx: &Tx<'_>, verdict: &Verdict) -> Option<User> {
    let Verdict::Accepted(entry) = verdict else { return None };
    let contact = tx.state()?.contacts.get(&entry.user)?;
    let newer = entry.list().is_some_and(|list| list.version() > contact.list_version());
    (newer && *contact.aik() == entry.aik).then(|| entry.user.clone())
}

/// The next entry of a roster, signed: its place and bytes.
fn proposal(tx: &Tx<'_>, room: &SealedRoom, op: Op, about: Option<&User>) -> Result<(u32, Vec<u8>), Failure> {
    let known = state(tx)?;
    let found = known.room_named(room).ok_or_else(|| cannot_seal(downstream::e2e::error::SealError::NeedRoster))?;
    let roster: &Roster = &found.roster;
    if roster.forked() {
        return Err(cannot_seal(downstream::e2e::error::SealError::Fork));
    }
    let place = roster.read().saturating_add(1);
    let me = &known.me;
    let subject = about.unwrap_or(me.user());
    let contact = known.contacts.get(subject);
    // Whom an entry is about is who the roster has; whom it adds is who is pinned here.
    let member = roster.members().iter().find(|member| member.user == *subject);
    let aik = match (op, member) {
        (Op::Remove | Op::Promote | Op::Demote, Some(member)) => member.aik,
        _ => *contact.map(Contact::aik).ok_or_else(|| no_keys_of(subject))?,
    };
    let list = if op.carries_list() {
        Some(contact.and_then(Contact::list).ok_or_else(|| no_keys_of(subject))?)
    } else {
        None
    };
    Ok((place, roster.propose(me, op, (subject, &aik), list, now())))
}

fn own_list(known: &downstream::e2e::state::State) -> Result<downstream::e2e::device_list::DeviceList, Failure> {
    let own = known.contacts.get(known.me.user()).and_then(Contact::list);
    own.cloned().ok_or_else(super::no_keys)
}

fn roster_row(row: &str) -> Option<(String, String, String)> {
    let mut words = row.split(' ');
    match (words.next()?, words.next()?, words.next()?, words.next()?) {
        ("roster", room, place, base64) => Some((room.to_owned(), place.to_owned(), base64.to_owned())),
        _ => None,
    }
}

fn skipped(room: &SealedRoom, place: u32, why: &str) -> Event {
    notice(
        "roster-skipped",
        Some(room.as_str()),
        format!("entry {place} of the roster of {room} does not count ({why})"),
    )
}

/// What is said about an entry that was read.
fn verdict_event(room: &SealedRoom, place: u32, begun: bool, verdict: &Verdict) -> Option<Event> {
    let entry = match verdict {
        Verdict::Known => return None,
        Verdict::Fork => {
            return Some(alarm(
                "fork",
                room.as_str(),
                format!("the server shows another roster of {room} than before: nothing is sent there any more"),
            ));
        }
        Verdict::Skipped(skip) => {
            let why = match skip {
                Skip::Broken(error) => error.code(),
                Skip::Misplaced => "it does not follow the entry before",
                Skip::NotAllowed => "its signer may not do that",
            };
            return Some(skipped(room, place, why));
        }
        Verdict::Accepted(entry) => entry,
    };
    let (who, by) = (&entry.user, entry.signed_by());
    let text = match entry.op {
        Op::CreateClosed | Op::CreateOpen if begun => return None,
        Op::CreateClosed => format!("{room} was made by {who}, for those whom admins add"),
        Op::CreateOpen => format!("{room} was made by {who}, for whoever joins"),
        Op::Add => format!("{by} has added {who} to {room}"),
        Op::Remove => format!("{by} has removed {who} from {room}"),
        Op::Promote => format!("{by} has made {who} an admin of {room}"),
        Op::Demote => format!("{by} has taken the admin's part of {who} in {room}"),
        Op::Join => format!("{who} has joined {room}"),
        Op::Leave => format!("{who} has left {room}"),
        Op::Devices => format!("{who} shows a new device list in {room}"),
    };
    Some(notice("roster", Some(room.as_str()), text))
}

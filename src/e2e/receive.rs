//! Opening a line of the server: the one way in for everything that others sealed.
//!
//! 1. Parse.
//! 2. Find the own slot, refuse what was opened before, find or derive the session.
//! 3. Work on copies.
//! 4. Open the slot, compare, open the payload, check the inner message.
//!
//! What is left to the caller: commit [`Opened::change`] and the text in one transaction, and only
//! then print.

use std::borrow::Cow;

use super::armour;
use super::bundle::AHEAD;
use super::cert::Certificate;
use super::contact::Contact;
use super::envelope::{Envelope, Group, Multi, Prekey, Slot};
use super::error::Error;
use super::inner::{Body, Conversation, Inner, Plain, Via, direct_id, inner_hash};
use super::marks;
use super::multi;
use super::name::{Address, Mark, Party, RoomId, RoomName, User};
use super::pqxdh;
use super::prekeys::{Prekeys, handshake_hash};
use super::ratchet::Session;
use super::rng::Rng;
use super::room::RoomNotes;
use super::sessions::Peer;
use super::state::{Change, State};
use super::thread::Place;
use super::time::Now;

/// Where a line says it belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    /// A direct conversation: the receiver. Of a signal: oneself.
    User(&'a User),
    /// A room.
    Room(&'a RoomName),
}

/// A line as the server sent it: nothing of it is believed.
#[derive(Debug, Clone, Copy)]
pub struct Line<'a> {
    /// Message or signal.
    pub via: Via,
    /// SENDER.
    pub sender: &'a User,
    /// TARGET.
    pub target: Target<'a>,
    /// BODY.
    pub body: &'a str,
}

/// An opened line.
#[derive(Debug)]
pub struct Opened {
    /// To be committed together with the text; then applied.
    pub change: Change,
    /// Who sealed it.
    pub from: Address,
    /// What it says.
    pub inner: Inner,
    /// The same, as bytes without padding.
    pub raw: Plain,
    /// What is said beside it.
    pub notes: Notes,
    /// In the log: how it fits into what this device said before.
    pub place: Option<Place>,
}

/// What is said beside the text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Notes {
    /// Sent by another device of the own account.
    pub sent_copy: bool,
    /// `fs=weak`: the session began without a one-time prekey and was not answered yet.
    pub weak: bool,
    /// The identity of the sender was pinned by this very line.
    pub first_contact: bool,
    /// No device list of the sender is known yet, or a newer one than the pinned was spoken of: fetch
    /// it.
    pub fetch_list: bool,
    /// The line began a session.
    pub new_session: bool,
    /// In a room.
    pub room: RoomNotes,
}

/// A session found or derived for a slot.
struct Found<'a> {
    session: Cow<'a, Session>,
    contact: Cow<'a, Contact>,
    prekeys: Option<Prekeys>,
    first_contact: bool,
    fresh: bool,
}

/// Where an opened session came from.
struct Origin<'a> {
    contact: Cow<'a, Contact>,
    prekeys: Option<Prekeys>,
    first_contact: bool,
    fresh: bool,
}

/// A MULTI that holds.
struct Read<'a> {
    from: Address,
    mark: Mark,
    found: Origin<'a>,
    session: Session,
    raw: Plain,
    inner: Inner,
}

impl State {
    /// Opens a line and applies what it changes; a convenience for callers that keep no other state.
    ///
    /// # Errors
    /// As [`State::open`]; the state is then what it was.
    pub fn receive(&mut self, line: &Line<'_>, now: Now, rng: &mut dyn Rng) -> Result<Opened, Error> {
        #[cfg(feature = "break-verify-order")]
        if let Ok(raw) = armour::envelope(line.body) {
            let from = Address { user: line.sender.clone(), device: super::name::DeviceId([0; 16]) };
            self.marks.entry(from).or_default().insert(marks::mark(&raw));
        }
        let opened = self.open(line, now, rng)?;
        self.apply(opened.change.clone());
        Ok(opened)
    }

    /// Opens a line.
    ///
    /// `rng` is drawn from only after the line has proved authentic, for the answering half of the
    /// ratchet: 32 bytes at most.
    ///
    /// # Errors
    /// The code of `cannot open (code)`.
    pub fn open(&self, line: &Line<'_>, now: Now, rng: &mut dyn Rng) -> Result<Opened, Error> {
        let raw = armour::envelope(line.body)?;
        match (Envelope::parse(&raw)?, line.via, line.target) {
            (Envelope::Multi(multi), via, Target::User(target)) => {
                let signal = via == Via::Signal;
                let ours = line.sender == self.me.user() || target == self.me.user();
                if !ours || (signal && (multi.slots.len() != 1 || target != self.me.user())) {
                    return Err(Error::Syntax);
                }
                self.open_multi(&multi, via, line.sender, target, now, rng)
            }
            (Envelope::Group(group), Via::Message, Target::Room(room)) => {
                self.open_group(&group, line.sender, room, now)
            }
            _ => Err(Error::Syntax),
        }
    }

    /// Which device a line says it is from, and the mark that it leaves once it was opened: what a
    /// client that keeps its marks in a table looks up before [`State::open`]. `None` if it is no
    /// envelope, or not for this device.
    pub fn mark_of(&self, line: &Line<'_>) -> Option<(Address, Mark)> {
        let raw = armour::envelope(line.body).ok()?;
        let (device, mark) = match Envelope::parse(&raw).ok()? {
            Envelope::Multi(multi) => (multi.device, marks::mark(multi.slot(self.me.address().device)?.raw)),
            Envelope::Group(group) => (group.device, marks::mark(group.raw)),
            Envelope::LinkRequest(_) | Envelope::LinkAnswer(_) => return None,
        };
        Some((Address { user: line.sender.clone(), device }, mark))
    }

    /// The room, the epoch and whether the sender is a member, of the link that a signal carries, where
    /// opening it said [`Error::NeedRoster`]: if a member says so, the roster goes at least so far, and
    /// until it was read there nothing is sent in that room ([`State::hold_room`]). What anybody else says
    /// is worth reading the roster for, and no more: it would be a way to silence the room.
    pub fn epoch_of_link(&self, line: &Line<'_>, now: Now, rng: &mut dyn Rng) -> Option<(RoomId, u32, bool)> {
        let raw = armour::envelope(line.body).ok()?;
        let (Envelope::Multi(multi), Target::User(receiver)) = (Envelope::parse(&raw).ok()?, line.target) else {
            return None;
        };
        let read = self.read_multi(&multi, line.via, line.sender, receiver, now, rng).ok()?;
        match &read.inner.body {
            Body::SenderKey(skdm) => {
                let room = self.rooms.get(&skdm.room);
                let member = room.and_then(|room| room.roster.member(line.sender, read.session.peer_aik()));
                Some((skdm.room, skdm.epoch, member.is_some()))
            }
            _ => None,
        }
    }

    fn open_multi(
        &self,
        multi: &Multi<'_>,
        via: Via,
        sender: &User,
        receiver: &User,
        now: Now,
        rng: &mut dyn Rng,
    ) -> Result<Opened, Error> {
        let Read { from, mark, found, session, raw, inner } =
            self.read_multi(multi, via, sender, receiver, now, rng)?;
        let mut change = Change { prekeys: found.prekeys, mark: Some((from.clone(), mark)), ..Change::default() };
        if let Body::SenderKey(skdm) = &inner.body {
            let room = self.rooms.get(&skdm.room).ok_or(Error::NeedRoster)?;
            let sender = Party { address: from.clone(), aik: *session.peer_aik(), dik: *session.peer_dik() };
            change.chains.push((skdm.room, room.accept(skdm, &sender, now)?.chains));
        }
        let mut notes = Notes {
            sent_copy: sender == self.me.user(),
            weak: session.weak(),
            first_contact: found.first_contact,
            new_session: found.fresh,
            ..Notes::default()
        };
        let sid = session.sid();
        let stranger = Peer::default();
        let mut peer = self.peers.get(&from).unwrap_or(&stranger).with(session, now);
        if inner.body == Body::Reset {
            peer.reset_received(sid);
        }
        change.peers.push((from.clone(), Some(peer)));
        let place = self.note_order(&mut change, &inner, &raw, &from);
        notes.fetch_list = self.note_list(&mut change, found.contact, inner.dl_version);
        Ok(Opened { change, from, inner, raw, notes, place })
    }

    /// Opens a MULTI and checks what it says, all on copies.
    fn read_multi(
        &self,
        multi: &Multi<'_>,
        via: Via,
        sender: &User,
        receiver: &User,
        now: Now,
        rng: &mut dyn Rng,
    ) -> Result<Read<'_>, Error> {
        let from = Address { user: sender.clone(), device: multi.device };
        if from == *self.me.address() {
            return Err(Error::Own);
        }
        let slot = multi.slot(self.me.address().device).ok_or(Error::NotForThisDevice)?;
        let mark = self.fresh_mark(&from, slot.raw)?;

        let Found { session, contact, prekeys, first_contact, fresh } = self.session_of(&from, slot, now)?;
        let (session, slot_text) = session.open(slot, now, rng)?;
        let padded = multi::open(multi, &slot_text, &from, receiver)?;
        let raw = Plain::unpadded(padded)?;
        let inner = Inner::parse(&raw)?;
        inner.check(via, sender)?;
        self.check_conversation(&inner, via, &session, sender, receiver)?;
        let found = Origin { contact, prekeys, first_contact, fresh };
        Ok(Read { from, mark, found, session, raw, inner })
    }

    /// The session that a slot belongs to: known, or derived from the handshake in front of it.
    fn session_of(&self, from: &Address, slot: &Slot<'_>, now: Now) -> Result<Found<'_>, Error> {
        if let Some(session) = self.peers.get(from).and_then(|peer| peer.session(slot.ratchet.sid)) {
            // The pin is looked at in the same step as the key is used.
            let contact = self.contacts.get(&from.user).ok_or(Error::Identity)?;
            if contact.aik() != session.peer_aik() {
                return Err(Error::Identity);
            }
            let (session, contact) = (Cow::Borrowed(session), Cow::Borrowed(contact));
            return Ok(Found { session, contact, prekeys: None, first_contact: false, fresh: false });
        }
        self.accept(from, slot.prekey.as_ref().ok_or(Error::NoSession)?, now)
    }

    /// A handshake: who it is from, that it is current, that it is new; then the keys.
    fn accept(&self, from: &Address, prekey: &Prekey<'_>, now: Now) -> Result<Found<'_>, Error> {
        let cert = Certificate::verify(prekey.cert)?;
        if cert.address() != from && !cfg!(feature = "break-session-sender") {
            return Err(Error::Identity);
        }
        let known = self.contacts.get(&from.user);
        let contact = match known {
            Some(contact) => Cow::Borrowed(contact),
            None if from.user == *self.me.user() => Cow::Owned(Contact::pinned(&from.user, *self.me.aik())),
            None => Cow::Owned(Contact::pinned(&from.user, *cert.aik())),
        };
        contact.check_current(&cert, now)?;
        if prekey.born_ms > now.ms().saturating_add(AHEAD * 1000) && !cfg!(feature = "break-born-clock") {
            return Err(Error::Clock);
        }
        let keys = self.prekeys.find(prekey.named, now)?;
        let handshake = handshake_hash(&prekey.ek, prekey.ciphertext);
        self.prekeys.check_replay(prekey.named, &handshake)?;
        let agreed = pqxdh::accept(&self.me, prekey, cert.dik(), &keys)?;
        let own = self.me.cert_of(&keys.dc).ok_or(Error::NoPrekey)?;
        let weak = keys.opk.is_none();
        let session = Session::respond(agreed, prekey.born_ms, own.party(), cert.party(), &keys.spk, weak, now);
        let prekeys = Some(self.prekeys.consume(prekey.named, handshake));
        Ok(Found { session: Cow::Owned(session), contact, prekeys, first_contact: known.is_none(), fresh: true })
    }

    /// That a message is about the conversation it came in.
    fn check_conversation(
        &self,
        inner: &Inner,
        via: Via,
        session: &Session,
        sender: &User,
        receiver: &User,
    ) -> Result<(), Error> {
        if cfg!(feature = "break-conv-id") {
            return Ok(());
        }
        let me = self.me.aik();
        let own = sender == self.me.user();
        let with_sender = Conversation::Direct(direct_id(session.peer_aik(), me));
        let fits = match (&inner.body, inner.conversation) {
            (Body::SenderKey(skdm), conversation) => conversation == Conversation::Room(skdm.room),
            (Body::ChainRequest { room, .. }, Conversation::Room(id)) => id == *room,
            // Own devices tell each other of every conversation, and of a room anybody may.
            (Body::Receipt { .. }, Conversation::Room(_)) => true,
            (Body::Receipt { .. }, Conversation::Direct(_)) if own => true,
            (_, conversation) if via == Via::Message && own && receiver != self.me.user() => {
                // A sent copy. If it names another identity than the pinned one, the server has shown
                // two of our devices two identities of one account: alarm.
                let pinned = self.direct(receiver);
                if pinned.is_some_and(|pinned| pinned != conversation) {
                    return Err(Error::Identity);
                }
                matches!(conversation, Conversation::Direct(_))
            }
            (_, conversation) => conversation == with_sender,
        };
        if fits { Ok(()) } else { Err(Error::Inner) }
    }

    fn open_group(&self, group: &Group<'_>, sender: &User, name: &RoomName, now: Now) -> Result<Opened, Error> {
        let from = Address { user: sender.clone(), device: group.device };
        if from == *self.me.address() {
            return Err(Error::Own);
        }
        let mark = self.fresh_mark(&from, group.raw)?;
        let room = self.room_named(name).ok_or(Error::NeedRoster)?;
        let (chains, padded, room_notes) = room.open(group, sender, now)?;
        let raw = Plain::unpadded(padded)?;
        let inner = Inner::parse(&raw)?;
        inner.check(Via::Message, sender)?;
        if inner.conversation != Conversation::Room(group.room) {
            return Err(Error::Inner);
        }
        let mut change = Change { mark: Some((from.clone(), mark)), ..Change::default() };
        change.chains.push((group.room, chains));
        let place = self.note_order(&mut change, &inner, &raw, &from);
        let contact = self.contacts.get(sender);
        let fetch_list =
            contact.is_some_and(|contact| self.note_list(&mut change, Cow::Borrowed(contact), inner.dl_version));
        let sent_copy = sender == self.me.user();
        let notes = Notes { sent_copy, fetch_list, room: room_notes, ..Notes::default() };
        Ok(Opened { change, from, inner, raw, notes, place })
    }

    fn fresh_mark(&self, from: &Address, envelope: &[u8]) -> Result<Mark, Error> {
        let mark = marks::mark(envelope);
        let seen = self.marks.get(from).is_some_and(|marks| marks.contains(mark));
        if seen { Err(Error::Replay) } else { Ok(mark) }
    }

    fn note_order(&self, change: &mut Change, inner: &Inner, raw: &[u8], from: &Address) -> Option<Place> {
        if inner.seq == 0 {
            return None;
        }
        let key = (from.clone(), inner.conversation);
        let thread = self.threads.get(&key).cloned().unwrap_or_default();
        let (thread, place) = thread.note(inner.seq, inner.prev, inner_hash(raw));
        change.threads.push((key, thread));
        Some(place)
    }

    /// Notes the list version that the sender speaks of; whether a list is to be fetched.
    fn note_list(&self, change: &mut Change, mut contact: Cow<'_, Contact>, version: u32) -> bool {
        if contact.is_news(version) {
            contact.to_mut().claim(version);
        }
        let fetch = contact.needs_list();
        // It is owned if it has just been made or changed.
        if let Cow::Owned(contact) = contact {
            change.contacts.push(contact);
        }
        fetch
    }
}

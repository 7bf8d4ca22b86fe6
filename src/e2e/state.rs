//! All that a device knows, and how it changes: whole rows at a time, after success.
//!
//! Opening ([`State::open`]) and sealing ([`State::seal_message`] and its like) borrow the state and
//! return a [`Change`]; the caller commits that in one transaction, together with the text or the
//! outbox, and then applies it. Whatever fails leaves every byte as it was, because nothing could
//! have been changed.
//!
//! A caller need not load the whole store: the rows that a line or a message touches are enough.

use std::collections::BTreeMap;

use super::contact::{Contact, Contacts, ListChange, ListError};
use super::error::Error;
use super::identity::Identity;
use super::inner::{Conversation, direct_id};
use super::marks::Marks;
use super::name::{Address, DeviceId, Mark, RoomId, RoomName, User};
use super::prekeys::Prekeys;
use super::room::{Chains, Room};
use super::roster_log::{Roster, Verdict};
use super::sessions::Peer;
use super::thread::{Outgoing, Thread};
use super::time::Now;

/// A device's state. Every map is a table, every value a row with its `to_row` and `from_row`.
#[derive(Debug, Clone)]
pub struct State {
    /// This device.
    pub me: Identity,
    /// Its private prekeys.
    pub prekeys: Prekeys,
    /// Accounts, the own one included.
    pub contacts: Contacts,
    /// Sessions, by the other device.
    pub peers: BTreeMap<Address, Peer>,
    /// Envelopes opened, by sending device.
    pub marks: BTreeMap<Address, Marks>,
    /// Rooms with a roster.
    pub rooms: BTreeMap<RoomId, Room>,
    /// What was seen of each device in each conversation.
    pub threads: BTreeMap<(Address, Conversation), Thread>,
    /// What this device says next in each conversation.
    pub outgoing: BTreeMap<Conversation, Outgoing>,
}

/// Rows to write. Whatever is not named stays.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// The private prekeys, if one was used or made.
    pub prekeys: Option<Prekeys>,
    /// Contacts, by their user.
    pub contacts: Vec<Contact>,
    /// Sessions; `None` erases them.
    pub peers: Vec<(Address, Option<Peer>)>,
    /// An envelope was opened.
    pub mark: Option<(Address, Mark)>,
    /// Rosters, by their id.
    pub rosters: Vec<Roster>,
    /// Sender chains of rooms.
    pub chains: Vec<(RoomId, Chains)>,
    /// Order of what others say.
    pub threads: Vec<((Address, Conversation), Thread)>,
    /// Order of what this device says.
    pub outgoing: Vec<(Conversation, Outgoing)>,
}

impl State {
    /// The state of a device that knows its own account only. `own` is the account's list and
    /// certificates, this device's among them.
    ///
    /// # Errors
    /// [`ListError`].
    pub fn new(me: Identity, prekeys: Prekeys, list: &[u8], certs: &[&[u8]]) -> Result<Self, ListError> {
        let (own, _) = Contact::pinned(me.user(), *me.aik()).learn(list, certs)?;
        let mut state = Self {
            me,
            prekeys,
            contacts: Contacts::default(),
            peers: BTreeMap::new(),
            marks: BTreeMap::new(),
            rooms: BTreeMap::new(),
            threads: BTreeMap::new(),
            outgoing: BTreeMap::new(),
        };
        state.contacts.insert(own.user().clone(), own);
        Ok(state)
    }

    /// Writes the rows of a change into the maps.
    pub fn apply(&mut self, change: Change) {
        if let Some(prekeys) = change.prekeys {
            self.prekeys = prekeys;
        }
        // Who asks for the map to change it makes forgotten what was computed from it.
        if !change.contacts.is_empty() {
            self.contacts.extend(change.contacts.into_iter().map(|contact| (contact.user().clone(), contact)));
        }
        for (address, peer) in change.peers {
            match peer {
                Some(peer) => drop(self.peers.insert(address, peer)),
                None => drop(self.peers.remove(&address)),
            }
        }
        if let Some((address, mark)) = change.mark {
            self.marks.entry(address).or_default().insert(mark);
        }
        for roster in change.rosters {
            let chains = self.rooms.remove(&roster.id()).map(|room| room.chains).unwrap_or_default();
            self.rooms.insert(roster.id(), Room { roster, chains });
        }
        for (id, chains) in change.chains {
            if let Some(room) = self.rooms.get_mut(&id) {
                room.chains = chains;
            }
        }
        for (key, thread) in change.threads {
            let place = self.threads.entry(key).or_default();
            // The one before is gone by then, so that this one shares with nobody.
            *place = thread;
            place.settle();
        }
        self.outgoing.extend(change.outgoing);
    }

    /// The room that is pinned to a name.
    pub fn room_named(&self, name: &RoomName) -> Option<&Room> {
        self.rooms.values().find(|room| room.roster.name() == name)
    }

    /// The conversation with an account, once its identity is pinned.
    pub fn direct(&self, user: &User) -> Option<Conversation> {
        let contact = self.contacts.get(user)?;
        Some(Conversation::Direct(direct_id(self.me.aik(), contact.aik())))
    }

    /// Takes in a device list and certificates of an account: first contact, or news under the pins.
    /// What a list drops is erased: the sessions of the device at once, its sender chains as a removed
    /// member's.
    ///
    /// # Errors
    /// [`ListError`].
    pub fn learn(
        &self,
        user: &User,
        list: &[u8],
        certs: &[&[u8]],
        now: Now,
    ) -> Result<(Change, ListChange), ListError> {
        let (contact, news) = match self.contacts.get(user) {
            Some(known) => known.learn(list, certs)?,
            None if user == self.me.user() => Contact::pinned(user, *self.me.aik()).learn(list, certs)?,
            None => Contact::first(user, list, certs)?,
        };
        let mut change = self.without(user, &news.dropped, now);
        change.contacts.push(contact);
        Ok((change, news))
    }

    /// Accepts another identity for an account, unverified, after a person has said so. All sessions
    /// and chains of the old identity are erased.
    ///
    /// # Errors
    /// [`ListError::Refused`].
    pub fn repin(&self, user: &User, list: &[u8], certs: &[&[u8]], now: Now) -> Result<Change, ListError> {
        let (contact, _) = Contact::first(user, list, certs)?;
        let devices: Vec<DeviceId> =
            self.peers.keys().filter(|peer| peer.user == *user).map(|peer| peer.device).collect();
        let mut change = self.without(user, &devices, now);
        change.contacts.push(contact);
        Ok(change)
    }

    fn without(&self, user: &User, devices: &[DeviceId], now: Now) -> Change {
        let mut change = Change::default();
        for device in devices {
            let address = Address { user: user.clone(), device: *device };
            if self.peers.contains_key(&address) {
                change.peers.push((address, None));
            }
        }
        if !devices.is_empty() {
            change.chains = self
                .rooms
                .iter()
                .map(|(id, room)| {
                    let room =
                        devices.iter().fold(room.clone(), |room, device| room.without_device(user, *device, now));
                    (*id, room.chains)
                })
                .collect();
        }
        change
    }

    /// Takes in one row of `/roster`: the entry at a place of the room's log, in order. Before the
    /// create entry was read, junk is an error and is passed over.
    ///
    /// # Errors
    /// As [`Roster::begin`] and [`Roster::append`].
    pub fn read_roster(&self, name: &RoomName, place: u32, raw: &[u8], now: Now) -> Result<(Change, Verdict), Error> {
        let mut change = Change::default();
        let Some(room) = self.room_named(name) else {
            let entry = super::roster::Entry::verify(raw)?;
            change.rosters.push(Roster::begin(name, place, raw)?);
            return Ok((change, Verdict::Accepted(Box::new(entry))));
        };
        let (next, verdict) = room.append(place, raw, now)?;
        change.chains.push((next.roster.id(), next.chains));
        change.rosters.push(next.roster);
        Ok((change, verdict))
    }

    /// Notes that a room has an epoch which its roster here has not reached: nothing is sealed there
    /// until it was read.
    pub fn hold_room(&self, room: &RoomId, epoch: u32) -> Change {
        let chains = self.rooms.get(room).map(|known| (*room, known.heard_of(epoch).chains));
        Change { chains: chains.into_iter().collect(), ..Change::default() }
    }

    /// This device has read a room's log to its end.
    pub fn read_to_end(&self, room: &RoomId) -> Change {
        let chains = self.rooms.get(room).map(|known| (*room, known.read_to_end().chains));
        Change { chains: chains.into_iter().collect(), ..Change::default() }
    }
}

//! Who is here, who is in which room, who receives what.
//!
//! What is kept of accounts and rooms is a mirror of the store, of those parts only that somebody online
//! needs: it changes when the store has answered, in the order of its answers.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::collections::HashMap;
use std::time::Instant;

pub mod effects;
pub mod settings;
pub mod throttle;

use crate::ops::{AccountId, ConversationId, DEVICES_MAX, MessageId, POOL_LOW, Person, Pools, RoomInfo};
use crate::protocol::{DeviceName, RoomName, Timestamp, UserName};
use crate::session::delivery::{Lines, Verdict};
use crate::session::{ConnId, Member, Peer, Session, State};
use settings::Settings;
use throttle::Bucket;

/// An account with at least one session.
#[derive(Debug)]
pub struct Online {
    /// Who.
    pub person: Person,
    /// Its sessions, the oldest first.
    pub sessions: Vec<ConnId>,
    /// The rooms it is a member of.
    pub rooms: Vec<ConversationId>,
    /// May use `/admin`.
    pub admin: bool,
    /// Has read receipts on.
    pub receipts: bool,
    /// Said to be away, with these words.
    pub away: Option<Option<Box<str>>>,
    /// Since when it is there, or away.
    pub since: Timestamp,
    /// What it may still do.
    pub rates: Rates,
    /// Those who watch it have been told that it is there.
    pub announced: bool,
    /// What its sessions were last told of pools that are low, by device, nothing above [`POOL_LOW`]; at most
    /// [`DEVICES_MAX`].
    pub told_low: Vec<Pools>,
}

/// What an account may still do; kept beyond its sessions until it is full again, so that coming back
/// does not fill it.
#[derive(Debug, Clone, Copy)]
pub struct Rates {
    /// Messages to send.
    pub messages: Bucket,
    /// Changes to rooms.
    pub changes: Bucket,
    /// What programs exchange beside messages.
    pub exchanges: Bucket,
}

/// Accounts without a session whose rates are remembered. More than log out in the time that a bucket
/// takes to fill are forgotten early.
const RATES_MAX: usize = 65_536;

/// How a session left its account.
#[derive(Debug)]
pub struct Exit {
    /// Whose it was.
    pub person: Person,
    /// It was the last.
    pub last: bool,
    /// Those who watch the account know that it was there.
    pub announced: bool,
}

impl Online {
    /// `online` or `away`.
    pub fn state(&self) -> &'static str {
        if self.away.is_some() { "away" } else { "online" }
    }

    /// Whether its sessions have not been told yet that a device's pools are so low. Only what is low counts, so
    /// that between two refills they are told at most once for each of the last keys of a pool.
    pub fn should_tell(&mut self, pools: Pools) -> bool {
        let (dh, post_quantum) = (pools.dh.min(POOL_LOW), pools.post_quantum.min(POOL_LOW));
        let told = Pools { device: pools.device, dh, post_quantum };
        if !pools.low() || self.told_low.contains(&told) {
            return false;
        }
        self.told_low.retain(|told| told.device != pools.device);
        if self.told_low.len() >= DEVICES_MAX {
            self.told_low.remove(0); // a device that is not there any more
        }
        self.told_low.push(told);
        true
    }

    /// The owner has put keys: what was told before says nothing any more.
    pub fn refilled(&mut self, device: DeviceName) {
        self.told_low.retain(|told| told.device != device);
    }
}

/// A room with at least one member online.
#[derive(Debug)]
pub struct Room {
    /// As the store knows it.
    pub info: RoomInfo,
    /// Every session of every member.
    pub sessions: Vec<ConnId>,
}

/// To whom a message goes.
#[derive(Debug, Clone, Copy)]
pub enum Audience {
    /// Everybody in a room.
    Room(ConversationId),
    /// Two people, or one and the same.
    Pair(AccountId, AccountId),
}

/// See the module.
#[derive(Debug)]
pub struct Hub {
    /// What the operator decided.
    pub settings: Settings,
    sessions: Vec<Option<Session>>,
    accounts: HashMap<AccountId, Online>,
    names: HashMap<UserName, AccountId>,
    rooms: HashMap<ConversationId, Room>,
    room_names: HashMap<RoomName, ConversationId>,
    watchers: HashMap<UserName, Vec<ConnId>>,
    rates: HashMap<AccountId, Rates>,
}

impl Hub {
    /// Nobody is here.
    pub fn new(settings: Settings) -> Hub {
        Hub {
            settings,
            sessions: Vec::new(),
            accounts: HashMap::new(),
            names: HashMap::new(),
            rooms: HashMap::new(),
            room_names: HashMap::new(),
            watchers: HashMap::new(),
            rates: HashMap::new(),
        }
    }

    // ---- sessions ----------------------------------------------------------------------------------

    /// A connection is there.
    pub fn open(&mut self, conn: ConnId, peer: Peer) {
        let slot = conn.slot as usize;
        if self.sessions.len() <= slot {
            self.sessions.resize_with(slot + 1, || None);
        }
        if let Some(place) = self.sessions.get_mut(slot) {
            debug_assert!(place.is_none(), "a slot is closed before it is opened again");
            *place = Some(Session::new(conn, peer));
        }
    }

    /// A connection is gone. Its account must have been left before ([`Hub::exit`]).
    pub fn close(&mut self, conn: ConnId) -> Option<Session> {
        self.session(conn)?;
        self.sessions.get_mut(conn.slot as usize)?.take()
    }

    /// The session of a connection that is still there.
    pub fn session(&self, conn: ConnId) -> Option<&Session> {
        self.sessions.get(conn.slot as usize)?.as_ref().filter(|session| session.conn == conn)
    }

    /// As [`Hub::session`].
    pub fn session_mut(&mut self, conn: ConnId) -> Option<&mut Session> {
        self.sessions.get_mut(conn.slot as usize)?.as_mut().filter(|session| session.conn == conn)
    }

    /// Every session.
    pub fn sessions(&self) -> impl Iterator<Item = &Session> {
        self.sessions.iter().flatten()
    }

    /// The logged-in part of a session.
    pub fn member(&self, conn: ConnId) -> Option<&Member> {
        self.session(conn)?.member()
    }

    /// As [`Hub::member`].
    pub fn member_mut(&mut self, conn: ConnId) -> Option<&mut Member> {
        self.session_mut(conn)?.member_mut()
    }

    // ---- accounts ----------------------------------------------------------------------------------

    /// A session of an account begins; `fresh` is for its first.
    pub fn enter(&mut self, conn: ConnId, member: Member, fresh: impl FnOnce() -> Online, rooms: Vec<RoomInfo>) {
        let (id, name) = (member.person.id, member.person.name.clone());
        let Some(session) = self.session_mut(conn) else { return };
        session.state = State::Authenticating(Some(Box::new(member)));
        let first = !self.accounts.contains_key(&id);
        let online = self.accounts.entry(id).or_insert_with(fresh);
        online.rates = self.rates.remove(&id).unwrap_or(online.rates);
        online.sessions.push(conn);
        self.names.insert(name, id);
        // The first session brings the rooms; for a further one the mirror is already right.
        if first {
            for room in rooms {
                self.join(id, room);
            }
        } else {
            for id in online.rooms.clone() {
                if let Some(room) = self.rooms.get_mut(&id) {
                    room.sessions.push(conn);
                }
            }
        }
    }

    /// A session of an account ends.
    pub fn exit(&mut self, conn: ConnId) -> Option<Exit> {
        let session = self.session_mut(conn)?;
        let member = match std::mem::replace(&mut session.state, State::Anonymous) {
            State::Anonymous | State::Authenticating(None) => return None,
            State::Authenticating(Some(member)) | State::Ready(member) => member,
        };
        for name in &member.watching {
            self.unwatch(conn, name);
        }
        let online = self.accounts.get_mut(&member.person.id)?;
        online.sessions.retain(|&other| other != conn);
        let (last, announced, rates) = (online.sessions.is_empty(), online.announced, online.rates);
        for id in online.rooms.clone() {
            self.remove_from_room(id, |other| other == conn);
        }
        if last {
            self.accounts.remove(&member.person.id);
            self.names.remove(&member.person.name);
            if self.rates.len() < RATES_MAX {
                self.rates.insert(member.person.id, rates);
            }
        }
        Some(Exit { person: member.person, last, announced })
    }

    /// Forgets the rates of accounts without a session that are full again.
    pub fn forget_rates(&mut self, now: Instant) {
        let (message_rate, message_burst) = (self.settings.messages_per_second, self.settings.message_burst);
        let (change_rate, change_burst) = self.settings.change_rate();
        let (exchange_rate, exchange_burst) = self.settings.exchange_rate();
        self.rates.retain(|_, rates| {
            !rates.messages.is_full(message_rate, message_burst, now)
                || !rates.changes.is_full(change_rate, change_burst, now)
                || !rates.exchanges.is_full(exchange_rate, exchange_burst, now)
        });
    }

    /// An account with a session.
    pub fn online(&self, id: AccountId) -> Option<&Online> {
        self.accounts.get(&id)
    }

    /// As [`Hub::online`].
    pub fn online_mut(&mut self, id: AccountId) -> Option<&mut Online> {
        self.accounts.get_mut(&id)
    }

    /// An account with a session, by its name.
    pub fn online_by_name(&self, name: &UserName) -> Option<&Online> {
        self.accounts.get(self.names.get(name)?)
    }

    /// How many accounts have a session.
    pub fn online_count(&self) -> usize {
        self.accounts.len()
    }

    /// The sessions of an account, the oldest first.
    pub fn sessions_of(&self, id: AccountId) -> Vec<ConnId> {
        self.accounts.get(&id).map(|online| online.sessions.clone()).unwrap_or_default()
    }

    // ---- rooms -------------------------------------------------------------------------------------

    /// An account is a member of a room from now on.
    pub fn join(&mut self, account: AccountId, info: RoomInfo) {
        let Some(online) = self.accounts.get_mut(&account) else { return };
        if online.rooms.contains(&info.id) {
            return;
        }
        online.rooms.push(info.id);
        self.room_names.insert(info.name.clone(), info.id);
        let room = self.rooms.entry(info.id).or_insert_with(|| Room { info, sessions: Vec::new() });
        room.sessions.extend_from_slice(&online.sessions);
    }

    /// An account is no member of a room any more.
    pub fn leave(&mut self, account: AccountId, id: ConversationId) {
        let Some(online) = self.accounts.get_mut(&account) else { return };
        online.rooms.retain(|&room| room != id);
        let sessions = online.sessions.clone();
        let name = self.rooms.get(&id).map(|room| room.info.name.clone());
        for &conn in &sessions {
            if let Some(member) = self.member_mut(conn) {
                member.delivery.leave(id);
                if member
                    .target
                    .as_ref()
                    .zip(name.as_ref())
                    .is_some_and(|(target, name)| target.as_str() == name.as_str())
                {
                    member.target = None;
                }
            }
        }
        self.remove_from_room(id, |conn| sessions.contains(&conn));
    }

    fn remove_from_room(&mut self, id: ConversationId, gone: impl Fn(ConnId) -> bool) {
        let Some(room) = self.rooms.get_mut(&id) else { return };
        room.sessions.retain(|&conn| !gone(conn));
        if room.sessions.is_empty()
            && let Some(room) = self.rooms.remove(&id)
        {
            self.room_names.remove(&room.info.name);
        }
    }

    /// A room with a member online.
    pub fn room(&self, id: ConversationId) -> Option<&Room> {
        self.rooms.get(&id)
    }

    /// A room that the account is a member of, by its name.
    pub fn room_of(&self, account: AccountId, name: &RoomName) -> Option<&Room> {
        let room = self.rooms.get(self.room_names.get(name)?)?;
        self.accounts.get(&account)?.rooms.contains(&room.info.id).then_some(room)
    }

    /// How many rooms have a member online.
    pub fn active_rooms(&self) -> usize {
        self.rooms.len()
    }

    // ---- watching ----------------------------------------------------------------------------------

    /// A session hears of somebody's coming and going from now on.
    pub fn watch(&mut self, conn: ConnId, name: UserName) {
        let watchers = self.watchers.entry(name).or_default();
        if !watchers.contains(&conn) {
            watchers.push(conn);
        }
    }

    /// It does not any more.
    pub fn unwatch(&mut self, conn: ConnId, name: &UserName) {
        if let Some(watchers) = self.watchers.get_mut(name) {
            watchers.retain(|&other| other != conn);
            if watchers.is_empty() {
                self.watchers.remove(name);
            }
        }
    }

    /// Who hears of somebody's coming and going.
    pub fn watchers(&self, name: &UserName) -> Vec<ConnId> {
        self.watchers.get(name).cloned().unwrap_or_default()
    }

    /// How many names are watched.
    pub fn watched(&self) -> usize {
        self.watchers.len()
    }

    // ---- messages ----------------------------------------------------------------------------------

    /// Offers a stored message to every session that it is for, except the one that sent it, and answers
    /// those whose queue takes it now.
    pub fn deliver(
        &mut self,
        audience: Audience,
        conversation: ConversationId,
        id: MessageId,
        sender: Option<ConnId>,
        lines: &Lines,
    ) -> Vec<ConnId> {
        let limit = self.settings.outbound_bytes as u64;
        let of = |account| self.accounts.get(&account).map_or(&[][..], |online: &Online| &online.sessions);
        let (one, other): (&[ConnId], &[ConnId]) = match audience {
            Audience::Room(room) => (self.rooms.get(&room).map_or(&[], |room| &room.sessions), &[]),
            Audience::Pair(a, b) if a == b => (of(a), &[]),
            Audience::Pair(a, b) => (of(a), of(b)),
        };
        let mut due = Vec::with_capacity(one.len() + other.len());
        for &conn in one.iter().chain(other) {
            let place = self.sessions.get_mut(conn.slot as usize).and_then(Option::as_mut);
            let Some(session) = place.filter(|session| session.conn == conn && !session.closing) else { continue };
            let (queued, sent) = (session.queued(), session.sent);
            let Some(member) = session.member_mut() else { continue };
            if sender == Some(conn) {
                member.delivery.sent_by_itself(conversation, id);
                continue;
            }
            if member.delivery.offer(conversation, id, lines, queued, limit) == Verdict::Send {
                let end = sent + lines.len() as u64;
                member.delivery.queued_live(conversation, id, end);
                session.sent = end;
                due.push(conn);
            }
        }
        due
    }

    /// Offers a stored signal to every session of its receiver, except the one that sent it, and answers those
    /// whose queue takes it now.
    pub fn signal(&mut self, receiver: AccountId, id: u64, sender: Option<ConnId>, lines: &Lines) -> Vec<ConnId> {
        let (limit, bytes) = (self.settings.outbound_bytes as u64, lines.len() as u64);
        let mut due = Vec::new();
        for conn in self.sessions_of(receiver) {
            // Who is still logging in reads what waits when that is done.
            let Some(session) = self.session_mut(conn).filter(|session| session.is_ready()) else { continue };
            let queued = session.queued();
            let Some(member) = session.member_mut() else { continue };
            if sender == Some(conn) {
                member.signals.sent_by_itself(id);
            } else if member.signals.offer(id, bytes, queued, limit) == Verdict::Send {
                session.sent += bytes;
                due.push(conn);
            }
        }
        due
    }
}

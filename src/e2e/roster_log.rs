//! A room's membership: the log of entries, ordered by the server and believed by nobody unchecked.
//!
//! Whether an entry is valid depends on the log alone, no clock and no key server, so all members
//! agree. Invalid entries are skipped and block nothing. What is pinned is every accepted
//! (epoch, hash): another entry in an accepted place is a fork.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::device_list::DeviceList;
use super::error::{Damaged, Error};
use super::identity::Identity;
use super::name::{RoomId, RoomName, User};
use super::roster::{Entry, Op};
use super::time::Now;
use super::wire::{Malformed, Put, Reader};

/// Accepted entries of one room at most. Every member keeps all of their hashes.
pub const ENTRIES_MAX: usize = 65_536;

const ROW_VERSION: u8 = 1;

/// A member, as the roster has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The account.
    pub user: User,
    /// Its identity key according to the roster; sealed to only if the pin says the same.
    pub aik: [u8; 32],
    /// Whether they may add and remove.
    pub admin: bool,
    /// The entry that made them a member.
    pub since: u32,
    list: DeviceList,
}

impl Member {
    /// The device list that the roster has seen last.
    pub fn list(&self) -> &DeviceList {
        &self.list
    }
}

/// A room's roster. One row of the store. Copies share its lists: every message that is sealed or opened makes
/// one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roster {
    name: RoomName,
    id: RoomId,
    open: bool,
    /// Places of the server's log that were read, valid or not.
    read: u32,
    /// Accepted (epoch, hash), ascending.
    accepted: Arc<Vec<(u32, [u8; 32])>>,
    /// In the order in which they became members.
    members: Arc<Vec<Member>>,
    /// Identities that were removed and not added again.
    put_out: Arc<BTreeSet<[u8; 32]>>,
    forked: bool,
}

/// Why an entry was skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skip {
    /// It does not hold by itself: form or signature.
    Broken(Error),
    /// It does not fit the log: epoch, room, id or the hash before.
    Misplaced,
    /// The signer may not do that, or there is nothing to do.
    NotAllowed,
}

/// What became of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Valid: the roster has a new head.
    Accepted(Box<Entry>),
    /// Not valid: shown and passed over.
    Skipped(Skip),
    /// Read before.
    Known,
    /// Another entry in an accepted place: alarm. Nothing is rolled back, sending stops.
    Fork,
}

impl Roster {
    /// Begins with the entry in the first places of a room's log. `place` is the server's EPOCH for
    /// it, from 1; places before the create entry hold junk.
    ///
    /// # Errors
    /// [`Error`] of [`Entry::verify`]; [`Error::Room`] if this is no create entry of `name`.
    pub fn begin(name: &RoomName, place: u32, raw: &[u8]) -> Result<Self, Error> {
        let entry = Entry::verify(raw)?;
        let fits = entry.op.creates() && entry.room == *name && entry.epoch == place && place > 0;
        let list = entry.list.clone().filter(|_| fits && entry.names_itself()).ok_or(Error::Room)?;
        if !entry.by_oneself() || !entry.lists_signer() {
            return Err(Error::Room);
        }
        let first = Member { user: entry.user.clone(), aik: entry.aik, admin: true, since: place, list };
        Ok(Self {
            name: name.clone(),
            id: entry.room_id,
            open: entry.op == Op::CreateOpen,
            read: place,
            accepted: Arc::new(vec![(place, entry.hash())]),
            members: Arc::new(vec![first]),
            put_out: Arc::default(),
            forked: false,
        })
    }

    /// Takes in the entry at a place of the server's log. Places are to be read in order.
    ///
    /// # Errors
    /// [`Error::NeedRoster`] if places before it were not read; [`Error::Room`] past
    /// [`ENTRIES_MAX`].
    pub fn append(&self, place: u32, raw: &[u8]) -> Result<(Self, Verdict), Error> {
        if place <= self.read {
            return Ok(self.again(place, raw));
        }
        if Some(place) != self.read.checked_add(1) {
            return Err(Error::NeedRoster);
        }
        if self.accepted.len() >= ENTRIES_MAX {
            return Err(Error::Room);
        }
        let mut next = self.clone();
        next.read = place;
        let verdict = match Entry::verify(raw) {
            Err(error) => Verdict::Skipped(Skip::Broken(error)),
            Ok(entry) => match next.apply(place, &entry) {
                Err(skip) => {
                    next = Self { read: place, ..self.clone() };
                    Verdict::Skipped(skip)
                }
                Ok(()) => {
                    Arc::make_mut(&mut next.accepted).push((place, entry.hash()));
                    Verdict::Accepted(Box::new(entry))
                }
            },
        };
        Ok((next, verdict))
    }

    /// A place that was read before.
    fn again(&self, place: u32, raw: &[u8]) -> (Self, Verdict) {
        let same = self.hash_at(place).is_none_or(|hash| hash == super::kdf::hash(&[raw]));
        if same || cfg!(feature = "break-fork") {
            return (self.clone(), Verdict::Known);
        }
        (Self { forked: true, ..self.clone() }, Verdict::Fork)
    }

    /// The rules. On an error the roster may be half changed: the caller drops it.
    fn apply(&mut self, place: u32, entry: &Entry) -> Result<(), Skip> {
        let (_, head) = self.head();
        let placed = entry.epoch == place && entry.room_id == self.id && entry.room == self.name && entry.prev == head;
        if !placed {
            return Err(Skip::Misplaced);
        }
        let about = self.members.iter().position(|m| m.user == entry.user && m.aik == entry.aik);
        let taken = self.members.iter().any(|m| m.user == entry.user || m.aik == entry.aik);
        let allowed = |condition: bool| if condition { Ok(()) } else { Err(Skip::NotAllowed) };

        match entry.op {
            Op::CreateClosed | Op::CreateOpen => return Err(Skip::NotAllowed),
            Op::Join => {
                allowed(self.open && entry.by_oneself() && entry.lists_signer())?;
                allowed(!taken && !self.put_out.contains(&entry.aik))?;
                self.welcome(place, entry)?;
            }
            Op::Devices => {
                allowed(entry.by_oneself() && entry.lists_signer())?;
                let list = entry.list.clone().ok_or(Skip::NotAllowed)?;
                let member = self.member_at(about)?;
                allowed(list.version() > member.list.version())?;
                member.list = list;
            }
            Op::Leave => {
                self.check_signer(entry, false)?;
                allowed(entry.by_oneself())?;
                self.dismiss(about)?;
            }
            Op::Add => {
                self.check_signer(entry, true)?;
                allowed(!taken)?;
                Arc::make_mut(&mut self.put_out).remove(&entry.aik);
                self.welcome(place, entry)?;
            }
            Op::Remove => {
                self.check_signer(entry, true)?;
                allowed(!entry.by_oneself())?;
                self.dismiss(about)?;
                Arc::make_mut(&mut self.put_out).insert(entry.aik);
            }
            Op::Promote | Op::Demote => {
                self.check_signer(entry, true)?;
                let member = self.member_at(about)?;
                let promote = entry.op == Op::Promote;
                allowed(member.admin != promote)?;
                member.admin = promote;
            }
        }
        if !self.members.iter().any(|member| member.admin)
            && let Some(oldest) = Arc::make_mut(&mut self.members).first_mut()
        {
            oldest.admin = true;
        }
        Ok(())
    }

    /// The signer is a member, with a certificate that is in the list the *roster* holds for them.
    fn check_signer(&self, entry: &Entry, admin: bool) -> Result<(), Skip> {
        let signer = &entry.signer;
        let member = self.members.iter().find(|m| m.user == signer.address().user && m.aik == *signer.aik());
        let holds = member.is_some_and(|m| m.list.lists(&signer.hash()) && (m.admin || !admin));
        if holds { Ok(()) } else { Err(Skip::NotAllowed) }
    }

    fn member_at(&mut self, at: Option<usize>) -> Result<&mut Member, Skip> {
        at.and_then(|at| Arc::make_mut(&mut self.members).get_mut(at)).ok_or(Skip::NotAllowed)
    }

    fn welcome(&mut self, place: u32, entry: &Entry) -> Result<(), Skip> {
        let list = entry.list.clone().ok_or(Skip::NotAllowed)?;
        let members = Arc::make_mut(&mut self.members);
        members.push(Member { user: entry.user.clone(), aik: entry.aik, admin: false, since: place, list });
        Ok(())
    }

    fn dismiss(&mut self, at: Option<usize>) -> Result<(), Skip> {
        let at = at.filter(|at| *at < self.members.len()).ok_or(Skip::NotAllowed)?;
        Arc::make_mut(&mut self.members).remove(at);
        Ok(())
    }

    /// Signs the entry that would be next. Whether it is valid shows when it comes back: the server
    /// may have put another one in its place.
    pub fn propose(
        &self,
        me: &Identity,
        op: Op,
        about: (&User, &[u8; 32]),
        list: Option<&DeviceList>,
        now: Now,
    ) -> Vec<u8> {
        let (_, head) = self.head();
        let place = (self.id, self.read.saturating_add(1), head);
        Entry::sign(me, place, &self.name, op, about, list, now)
    }

    /// The room's name.
    pub fn name(&self) -> &RoomName {
        &self.name
    }

    /// The room's id.
    pub fn id(&self) -> RoomId {
        self.id
    }

    /// Whether any account may join.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Places of the server's log that were read: `/roster ROOM after=` this.
    pub fn read(&self) -> u32 {
        self.read
    }

    /// Epoch and hash of the last valid entry.
    pub fn head(&self) -> (u32, [u8; 32]) {
        self.accepted.last().copied().unwrap_or_default()
    }

    /// The hash of the accepted entry at a place.
    pub fn hash_at(&self, epoch: u32) -> Option<[u8; 32]> {
        let at = self.accepted.binary_search_by_key(&epoch, |(epoch, _)| *epoch).ok()?;
        self.accepted.get(at).map(|(_, hash)| *hash)
    }

    /// The members, by standing.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The same, as copies of this roster share them: another list is at another place.
    pub(crate) fn shared_members(&self) -> &Arc<Vec<Member>> {
        &self.members
    }

    /// A member by account and identity.
    pub fn member(&self, user: &User, aik: &[u8; 32]) -> Option<&Member> {
        self.members.iter().find(|m| m.user == *user && m.aik == *aik)
    }

    /// Whether an identity was removed and not added again since: it cannot join by itself.
    pub fn is_put_out(&self, aik: &[u8; 32]) -> bool {
        self.put_out.contains(aik)
    }

    /// Whether a second history was seen. It stays so: what to believe is for people to settle.
    pub fn forked(&self) -> bool {
        self.forked
    }

    /// The row.
    pub fn to_row(&self) -> Vec<u8> {
        let mut row = vec![ROW_VERSION];
        row.put_lp(self.name.as_bytes()).put(&self.id.0).put_bool(self.open).put_u32(self.read).put_bool(self.forked);
        row.put_count(self.accepted.len());
        for (epoch, hash) in self.accepted.iter() {
            row.put_u32(*epoch).put(hash);
        }
        row.put_count(self.members.len());
        for m in self.members.iter() {
            row.put_lp(m.user.as_bytes()).put(&m.aik).put_bool(m.admin).put_u32(m.since).put_lp(m.list.bytes());
        }
        row.put_count(self.put_out.len());
        self.put_out.iter().for_each(|aik| {
            row.put(aik);
        });
        row
    }

    /// Reads a row.
    ///
    /// # Errors
    /// [`Damaged`].
    pub fn from_row(row: &[u8]) -> Result<Self, Damaged> {
        let mut r = Reader::new(row);
        r.expect_bytes(&[ROW_VERSION])?;
        let name = RoomName::parse(r.lp_str()?)?;
        let (id, open, read, forked) = (RoomId(r.array()?), r.bool()?, r.u32()?, r.bool()?);
        let accepted = (0..r.u32()?).map(|_| Ok((r.u32()?, r.array()?))).collect::<Result<Vec<_>, Malformed>>()?;
        let members: Vec<_> = (0..r.u32()?)
            .map(|_| {
                Ok(Member {
                    user: User::parse(r.lp_str()?)?,
                    aik: r.array()?,
                    admin: r.bool()?,
                    since: r.u32()?,
                    list: DeviceList::parse(r.lp()?)?,
                })
            })
            .collect::<Result<_, Malformed>>()?;
        let put_out: BTreeSet<_> = (0..r.u32()?).map(|_| r.array()).collect::<Result<_, Malformed>>()?;
        r.end()?;
        if accepted.is_empty() {
            return Err(Damaged);
        }
        let (accepted, members, put_out) = (Arc::new(accepted), Arc::new(members), Arc::new(put_out));
        Ok(Self { name, id, open, read, accepted, members, put_out, forked })
    }
}

//! The sender chains of a room: our own and when it rotates, the others' and how long they are
//! believed.

use std::collections::BTreeMap;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::audience::{Audience, Known};
use super::contact::Contacts;
use super::envelope::Group;
use super::error::{Damaged, Error, NoRandom, SealError};
use super::identity::Identity;
use super::name::{Address, DeviceId, Party, User};
use super::rng::Rng;
use super::roster::Op;
use super::roster_log::{Roster, Verdict};
use super::sender_key::{OwnChain, Skdm, TheirChain, read_address, write_address};
use super::time::{DAY, HOUR, Now};
use super::wire::{Malformed, Put, Reader};

/// Chains kept of one sending device; the oldest goes first.
pub const CHAINS_PER_DEVICE: usize = 3;
/// How long a removed member's chains are kept at most, in seconds, for what was sealed before.
pub const REMOVED_KEEP: u64 = DAY;
/// Seconds between two answers to one device that asks for our link.
pub const ANSWER_EVERY: u64 = HOUR;

const ROW_VERSION: u8 = 1;

/// The sender chains of one room. One row of the store, beside the roster's. Copies share the chains: every message
/// makes one, and changes one chain at most.
#[derive(Debug, Clone, Default)]
pub struct Chains {
    own: Option<OwnChain>,
    /// In the order in which they were given to us.
    theirs: Arc<Vec<Arc<TheirChain>>>,
    /// Who was answered a request for our link within the hour, Unix seconds.
    answered: BTreeMap<Address, u64>,
    /// The newest epoch heard of: while the roster is behind it, nothing is sent.
    heard: u32,
    /// To whom the last message went, and when that may be relied on. In memory only.
    known: Option<Arc<Known>>,
}

/// A room as this device knows it: who is in it, and the chains.
#[derive(Debug, Clone)]
pub struct Room {
    /// Membership.
    pub roster: Roster,
    /// Sender keys.
    pub chains: Chains,
}

/// What is said beside the text of a room message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RoomNotes {
    /// Sealed before its sender was removed, as far as can be known.
    pub removed: bool,
    /// Sealed under an older roster than the newest.
    pub old_roster: bool,
}

impl Room {
    /// A room whose create entry was read.
    pub fn new(roster: Roster) -> Self {
        Self { roster, chains: Chains::default() }
    }

    /// Takes in a roster entry ([`Roster::append`]) and marks the chains of whoever it takes out.
    ///
    /// # Errors
    /// As [`Roster::append`].
    pub fn append(&self, place: u32, raw: &[u8], now: Now) -> Result<(Self, Verdict), Error> {
        let (roster, verdict) = self.roster.append(place, raw)?;
        let mut next = Self { roster, chains: self.chains.clone() };
        if let Verdict::Accepted(entry) = &verdict
            && matches!(entry.op, Op::Remove | Op::Leave)
        {
            next.chains.remove_of(now, |owner| owner.user == entry.user);
        }
        Ok((next, verdict))
    }

    /// Treats the chains of a device that its account lists no more as a removed member's.
    #[must_use]
    pub fn without_device(&self, user: &User, device: DeviceId, now: Now) -> Self {
        let mut next = self.clone();
        next.chains.remove_of(now, |owner| owner.user == *user && owner.device == device);
        next
    }

    /// This device has read the room's log to its end: what removed members still have to say is not
    /// believed any more, and their chains are erased.
    #[must_use]
    pub fn read_to_end(&self) -> Self {
        let mut next = self.clone();
        Arc::make_mut(&mut next.chains.theirs).retain(|chain| chain.removed.is_none());
        next
    }

    /// Notes that an epoch exists which the roster has not reached.
    #[must_use]
    pub fn heard_of(&self, epoch: u32) -> Self {
        let mut next = self.clone();
        next.chains.heard = next.chains.heard.max(epoch);
        next
    }

    /// Takes in a link that came in a session with `sender`.
    ///
    /// # Errors
    /// [`Error::Room`], [`Error::NeedRoster`], [`Error::Fork`], [`Error::NotMember`],
    /// [`Error::ChainTaken`].
    pub(crate) fn accept(&self, skdm: &Skdm, sender: &Party, now: Now) -> Result<Self, Error> {
        if skdm.room != self.roster.id() {
            return Err(Error::Room);
        }
        if skdm.epoch > self.roster.read() {
            return Err(Error::NeedRoster);
        }
        if self.roster.hash_at(skdm.epoch) != Some(skdm.roster_hash) && !cfg!(feature = "break-fork") {
            return Err(Error::Fork);
        }
        // Since then without a break: who left and came back makes a new chain.
        let member = self.roster.member(&sender.address.user, &sender.aik);
        if member.is_none_or(|member| member.since > skdm.epoch) {
            return Err(Error::NotMember);
        }
        let mut next = self.clone();
        next.chains.expire(now);
        match next.chains.theirs.iter().find(|chain| chain.id == skdm.chain) {
            Some(known) if known.owner == sender.address => {}
            Some(_) => return Err(Error::ChainTaken),
            None => next.chains.add(TheirChain::from_link(skdm, sender)),
        }
        Ok(next)
    }

    /// Opens a GROUP that the server says `sender` sent to this room: the padded inner message.
    ///
    /// # Errors
    /// [`Error::Room`], [`Error::NeedRoster`], [`Error::NotMember`], [`Error::NoChain`], and those
    /// of the chain: [`Error::Signature`], [`Error::ClosedChain`], [`Error::BeforeChain`],
    /// [`Error::Reused`], [`Error::TooFar`], [`Error::Commit`], [`Error::Auth`].
    pub(crate) fn open(
        &self,
        group: &Group<'_>,
        sender: &User,
        now: Now,
    ) -> Result<(Chains, Zeroizing<Vec<u8>>, RoomNotes), Error> {
        if group.room != self.roster.id() {
            return Err(Error::Room);
        }
        let mut next = self.chains.clone();
        next.expire(now);
        let found = next.theirs.iter().enumerate().find(|(_, chain)| chain.id == group.chain);
        let Some((at, chain)) = found else {
            let member = self.roster.members().iter().any(|member| member.user == *sender);
            return Err(match (group.epoch > self.roster.read(), member) {
                (true, _) => Error::NeedRoster,
                (false, true) => Error::NoChain,
                (false, false) => Error::NotMember,
            });
        };
        let named = Address { user: sender.clone(), device: group.device };
        if chain.owner != named || chain.epoch != group.epoch {
            return Err(Error::Room);
        }
        let (moved, text) = chain.open(group, now)?;
        let (head, _) = self.roster.head();
        let notes = RoomNotes { removed: moved.removed.is_some(), old_roster: moved.epoch < head };
        if let Some(place) = Arc::make_mut(&mut next.theirs).get_mut(at) {
            *place = Arc::new(moved);
        }
        Ok((next, text, notes))
    }

    /// Who the next message goes to: the current devices of every member by the newer of pinned and
    /// roster list, own other devices too.
    ///
    /// # Errors
    /// [`SealError::Fork`], [`SealError::NotMember`]; [`SealError::NeedRoster`] while the roster is
    /// behind; [`SealError::NeedList`] for a member without a pin or with a newer list than the pinned,
    /// unless `no_list` says that it cannot be had.
    pub fn audience(
        &self,
        me: &Identity,
        contacts: &Contacts,
        no_list: &[User],
        now: Now,
    ) -> Result<Audience, SealError> {
        self.known_audience(me, contacts, no_list, now).map(|known| known.audience().clone())
    }

    /// The same, with what it was computed from.
    pub(crate) fn known_audience(
        &self,
        me: &Identity,
        contacts: &Contacts,
        no_list: &[User],
        now: Now,
    ) -> Result<Arc<Known>, SealError> {
        if self.roster.forked() {
            return Err(SealError::Fork);
        }
        if self.chains.heard > self.roster.read() {
            return Err(SealError::NeedRoster);
        }
        match &self.chains.known {
            Some(known) if known.holds(me, &self.roster, contacts, now) => Ok(Arc::clone(known)),
            _ => Known::compute(me, &self.roster, contacts, no_list, now).map(Arc::new),
        }
    }

    /// Makes sure that the own chain may seal the next message, and says which devices of the
    /// audience lack it.
    pub(crate) fn prepare(
        &self,
        known: Arc<Known>,
        now: Now,
        rng: &mut dyn Rng,
    ) -> Result<(Self, Vec<Address>), NoRandom> {
        let mut next = self.clone();
        let audience = &known.audience().devices;
        let (epoch, hash) = self.roster.head();
        let mut chain = match &self.chains.own {
            Some(chain) if !chain.spent(epoch, audience, now) => chain.clone(),
            before => OwnChain::start((epoch, hash), before.as_ref(), now, rng)?,
        };
        let lacking = chain.lacking(audience);
        next.chains.own = Some(chain);
        next.chains.known = Some(known);
        Ok((next, lacking))
    }

    /// The current link of the own chain, to be given to `device`.
    pub(crate) fn give(&mut self, device: &Address) -> Option<Skdm> {
        let id = self.roster.id();
        let chain = self.chains.own.as_mut()?;
        chain.given_to(device);
        Some(chain.link(id))
    }

    /// Seals an inner message under the own chain.
    pub(crate) fn seal(self, me: &Party, inner: &[u8], rng: &mut dyn Rng) -> Result<(Chains, Vec<u8>), SealError> {
        let own = self.chains.own.as_ref().ok_or(SealError::NeedRoster)?;
        let (own, envelope) = own.seal(me, self.roster.id(), inner, rng)?;
        Ok((Chains { own: Some(own), ..self.chains }, envelope))
    }

    /// Whether a device that asks for our link is answered now: it is in the audience, there is a
    /// chain, and it was not answered within the hour. The state to commit with the answer.
    #[must_use]
    pub fn answer_to(&self, device: &Address, audience: &Audience, now: Now) -> Option<Self> {
        let mut next = self.clone();
        next.chains.answered.retain(|_, at| now.since(*at) < ANSWER_EVERY);
        let answered = next.chains.answered.contains_key(device);
        if answered || self.chains.own.is_none() || !audience.devices.contains(device) {
            return None;
        }
        next.chains.answered.insert(device.clone(), now.secs());
        Some(next)
    }
}

impl Chains {
    /// Chains of others held, for status displays.
    pub fn held(&self) -> usize {
        self.theirs.len()
    }

    /// Whether there are chains of somebody who was removed, to be erased once the room's log was read to
    /// its end.
    pub fn awaits_end(&self) -> bool {
        self.theirs.iter().any(|chain| chain.removed.is_some())
    }

    /// Keys of skipped messages kept, over all chains.
    pub fn skipped_keys(&self) -> usize {
        self.theirs.iter().map(|chain| chain.skipped_keys()).sum()
    }

    fn add(&mut self, mut chain: TheirChain) {
        let owner = chain.owner.clone();
        let theirs = Arc::make_mut(&mut self.theirs);
        // A successor says how many messages the chain before it carried, whichever came first.
        for known in theirs.iter_mut().filter(|known| known.owner == owner) {
            if chain.prev.0 == known.id {
                Arc::make_mut(known).end = Some(chain.prev.1);
            }
            if known.prev.0 == chain.id {
                chain.end = Some(known.prev.1);
            }
        }
        theirs.push(Arc::new(chain));
        while theirs.iter().filter(|known| known.owner == owner).count() > CHAINS_PER_DEVICE {
            if let Some(oldest) = theirs.iter().position(|known| known.owner == owner) {
                theirs.remove(oldest);
            }
        }
    }

    fn remove_of(&mut self, now: Now, whose: impl Fn(&Address) -> bool) {
        for chain in Arc::make_mut(&mut self.theirs).iter_mut().filter(|chain| whose(&chain.owner)) {
            let chain = Arc::make_mut(chain);
            chain.removed = chain.removed.or(Some(now.secs()));
        }
    }

    fn expire(&mut self, now: Now) {
        let gone = |chain: &Arc<TheirChain>| chain.removed.is_some_and(|at| now.since(at) > REMOVED_KEEP);
        if self.theirs.iter().any(gone) {
            Arc::make_mut(&mut self.theirs).retain(|chain| !gone(chain));
        }
    }

    /// The row.
    pub fn to_row(&self) -> Zeroizing<Vec<u8>> {
        let mut row = Zeroizing::new(Vec::with_capacity(1024 + 512 * self.theirs.len() + 44 * self.skipped_keys()));
        row.put_u8(ROW_VERSION).put_u32(self.heard).put_bool(self.own.is_some());
        if let Some(own) = &self.own {
            own.write(&mut row);
        }
        row.put_count(self.theirs.len());
        self.theirs.iter().for_each(|chain| chain.write(&mut row));
        row.put_count(self.answered.len());
        for (device, at) in &self.answered {
            write_address(&mut row, device);
            row.put_u64(*at);
        }
        row
    }

    /// Reads a row.
    ///
    /// # Errors
    /// [`Damaged`].
    pub fn from_row(row: &[u8]) -> Result<Self, Damaged> {
        let mut r = Reader::new(row);
        r.expect_bytes(&[ROW_VERSION])?;
        let heard = r.u32()?;
        let own = if r.bool()? { Some(OwnChain::read(&mut r)?) } else { None };
        let theirs = (0..r.u32()?).map(|_| TheirChain::read(&mut r).map(Arc::new)).collect::<Result<_, _>>()?;
        let answered =
            (0..r.u32()?).map(|_| Ok((read_address(&mut r)?, r.u64()?))).collect::<Result<_, Malformed>>()?;
        r.end()?;
        Ok(Self { own, theirs: Arc::new(theirs), answered, heard, known: None })
    }
}

//! Sender keys: one symmetric chain and one signing key for each (room, device, epoch).
//!
//! A message to a room is sealed once, under a chain that every member's devices were given over
//! their pairwise sessions. The chain key keeps outsiders out; the signature keeps the other members,
//! who all know the chain key, from writing in the sender's name.

use std::collections::BTreeSet;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::caead::{self, OVERHEAD};
use super::envelope::{Group, HEADER_LEN};
use super::error::{Damaged, Error, NoRandom, SealError};
use super::kdf;
use super::labels;
use super::name::{Address, ChainId, DeviceId, Party, RoomId, User};
use super::padding::{pad_onto, padded};
use super::rng::{self, Rng};
use super::secret::Secret;
use super::sign::{PublicKey, SIGNATURE_LEN, SignKey};
use super::skipped::{Lookup, Skipped};
use super::time::{DAY, Now};
use super::wire::{Malformed, Put, Reader};

/// Age of an own chain, in seconds, after which the next message starts a new one: until then a thief
/// of the chain reads on.
pub const ROTATE_AFTER: u64 = 7 * DAY;
/// Messages of an own chain after which the next starts a new one.
pub const ROTATE_AT: u32 = 1000;
/// Counters jumped over at most in one chain.
pub const SKIP_MAX: u32 = 2000;

const LABEL: labels::Label = labels::GROUP;

/// A link of a chain, as it is given to a device (SKDM):
/// `room_id 16 ‖ epoch 4 ‖ roster_hash 32 ‖ chain_id 16 ‖ n 4 ‖ ck 32 ‖ sig_pub 32 ‖ prev_chain 16 ‖ prev_n 4`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skdm {
    /// The room.
    pub room: RoomId,
    /// The roster entry under which the chain was made.
    pub epoch: u32,
    /// Its hash, as the sender's log has it.
    pub roster_hash: [u8; 32],
    /// The chain.
    pub chain: ChainId,
    /// The counter of the link.
    pub n: u32,
    pub(crate) ck: Secret<32>,
    pub(crate) sig_pub: [u8; 32],
    /// The same device's chain before; zeros for none.
    pub prev_chain: ChainId,
    /// How many messages that one carried.
    pub prev_n: u32,
}

impl Skdm {
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.put(&self.room.0).put_u32(self.epoch).put(&self.roster_hash).put(&self.chain.0).put_u32(self.n);
        out.put(self.ck.expose()).put(&self.sig_pub).put(&self.prev_chain.0).put_u32(self.prev_n);
    }

    pub(crate) fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            room: RoomId(r.array()?),
            epoch: r.u32()?,
            roster_hash: r.array()?,
            chain: ChainId(r.array()?),
            n: r.u32()?,
            ck: r.secret()?,
            sig_pub: r.array()?,
            prev_chain: ChainId(r.array()?),
            prev_n: r.u32()?,
        })
    }
}

/// `AD_g = H(L"ad-group" ‖ P(sender) ‖ room_id ‖ roster_hash)`: who, where, and under which roster.
fn associated_data(sender: &Party, room: RoomId, roster_hash: &[u8; 32]) -> [u8; 32] {
    kdf::hash(&[labels::AD_GROUP.bytes(), &sender.bytes(), &room.0, roster_hash])
}

/// The chain this device seals with in a room.
#[derive(Debug, Clone)]
pub(crate) struct OwnChain {
    id: ChainId,
    epoch: u32,
    roster_hash: [u8; 32],
    n: u32,
    ck: Secret<32>,
    sig: SignKey,
    /// Unix seconds.
    made: u64,
    prev: (ChainId, u32),
    /// The devices that were given a link; shared by copies, because every message makes one.
    holders: Arc<BTreeSet<Address>>,
}

impl OwnChain {
    /// Starts a chain under a roster entry, after `before`.
    pub(crate) fn start(
        (epoch, roster_hash): (u32, [u8; 32]),
        before: Option<&Self>,
        now: Now,
        rng: &mut dyn Rng,
    ) -> Result<Self, NoRandom> {
        Ok(Self {
            id: ChainId(rng::bytes(rng)?),
            epoch,
            roster_hash,
            n: 0,
            ck: rng::secret(rng)?,
            sig: SignKey::draw(rng)?,
            made: now.secs(),
            prev: before.map_or((ChainId([0; 16]), 0), |chain| (chain.id, chain.n)),
            holders: Arc::default(),
        })
    }

    /// Whether the next message wants a new chain: another epoch, a device that holds this one and
    /// should not, a week, or a thousand messages.
    pub(crate) fn spent(&self, epoch: u32, audience: &Arc<BTreeSet<Address>>, now: Now) -> bool {
        self.epoch != epoch
            || !(Arc::ptr_eq(&self.holders, audience) || self.holders.is_subset(audience))
            || now.since(self.made) >= ROTATE_AFTER
            || self.n >= ROTATE_AT
    }

    /// The devices of the audience that were not given a link yet. If there are none, both are one set, and its copies
    /// are shared: then the next message sees at once that nothing has changed.
    pub(crate) fn lacking(&mut self, audience: &Arc<BTreeSet<Address>>) -> Vec<Address> {
        if Arc::ptr_eq(&self.holders, audience) {
            return Vec::new();
        }
        let lacking: Vec<_> = audience.difference(&self.holders).cloned().collect();
        if lacking.is_empty() && self.holders.len() == audience.len() {
            self.holders = Arc::clone(audience);
        }
        lacking
    }

    pub(crate) fn given_to(&mut self, device: &Address) {
        Arc::make_mut(&mut self.holders).insert(device.clone());
    }

    /// The current link.
    pub(crate) fn link(&self, room: RoomId) -> Skdm {
        Skdm {
            room,
            epoch: self.epoch,
            roster_hash: self.roster_hash,
            chain: self.id,
            n: self.n,
            ck: self.ck.clone(),
            sig_pub: self.sig.public(),
            prev_chain: self.prev.0,
            prev_n: self.prev.1,
        }
    }

    /// Pads and seals an inner message: the next chain and the GROUP envelope.
    pub(crate) fn seal(
        &self,
        me: &Party,
        room: RoomId,
        inner: &[u8],
        rng: &mut dyn Rng,
    ) -> Result<(Self, Vec<u8>), SealError> {
        let (ck, key) = kdf::chain_step(&self.ck);
        let n = self.n.checked_add(1).ok_or(SealError::Exhausted)?;
        let next = Self { ck, n, ..self.clone() };
        let salt = caead::draw_salt(rng)?;
        let ad = associated_data(me, room, &self.roster_hash);
        let len = padded(inner);
        let mut envelope = Vec::with_capacity(HEADER_LEN + OVERHEAD + len + SIGNATURE_LEN);
        Group::write_header(&mut envelope, (room, me.address.device), self.epoch, (self.id, self.n), &salt);
        let bound = [&ad[..], &envelope].concat();
        caead::seal_onto(&mut envelope, &key, &salt, &bound, len, |out| pad_onto(out, inner))?;
        let sig = self.sig.sign(LABEL, &[&ad, &envelope]);
        envelope.extend_from_slice(&sig);
        Ok((next, envelope))
    }

    pub(crate) fn write(&self, row: &mut Vec<u8>) {
        row.put(&self.id.0).put_u32(self.epoch).put(&self.roster_hash).put_u32(self.n).put(self.ck.expose());
        row.put(self.sig.seed().expose()).put_u64(self.made).put(&self.prev.0.0).put_u32(self.prev.1);
        row.put_count(self.holders.len());
        self.holders.iter().for_each(|device| write_address(row, device));
    }

    pub(crate) fn read(r: &mut Reader<'_>) -> Result<Self, Damaged> {
        Ok(Self {
            id: ChainId(r.array()?),
            epoch: r.u32()?,
            roster_hash: r.array()?,
            n: r.u32()?,
            ck: r.secret()?,
            sig: SignKey::from_seed(&r.secret()?),
            made: r.u64()?,
            prev: (ChainId(r.array()?), r.u32()?),
            holders: Arc::new((0..r.u32()?).map(|_| read_address(r)).collect::<Result<_, _>>()?),
        })
    }
}

pub(crate) fn write_address(row: &mut Vec<u8>, address: &Address) {
    row.put_short(address.user.as_bytes()).put(&address.device.0);
}

pub(crate) fn read_address(r: &mut Reader<'_>) -> Result<Address, Malformed> {
    Ok(Address { user: User::parse(r.short_str()?)?, device: DeviceId(r.array()?) })
}

/// A chain that another device seals with, as far as this device was given it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TheirChain {
    pub(crate) id: ChainId,
    pub(crate) owner: Address,
    pub(crate) epoch: u32,
    ad: [u8; 32],
    /// The counter of the link that was given: nothing before it can be read.
    start: u32,
    n: u32,
    ck: Secret<32>,
    sig_pub: PublicKey,
    skipped: Skipped,
    pub(crate) prev: (ChainId, u32),
    /// How many messages the chain carried, once its successor has said so.
    pub(crate) end: Option<u32>,
    /// When its owner was seen to be no member any more, Unix seconds.
    pub(crate) removed: Option<u64>,
}

impl TheirChain {
    /// The chain of a link that came in a session with `sender`.
    pub(crate) fn from_link(skdm: &Skdm, sender: &Party) -> Self {
        let mut skipped = Skipped::default();
        skipped.begin([0; 32]);
        Self {
            id: skdm.chain,
            owner: sender.address.clone(),
            epoch: skdm.epoch,
            ad: associated_data(sender, skdm.room, &skdm.roster_hash),
            start: skdm.n,
            n: skdm.n,
            ck: skdm.ck.clone(),
            sig_pub: PublicKey::new(skdm.sig_pub),
            skipped,
            prev: (skdm.prev_chain, skdm.prev_n),
            end: None,
            removed: None,
        }
    }

    /// Opens an envelope of this chain: the next chain and the padded inner message. The signature is
    /// verified before the chain moves.
    ///
    /// # Errors
    /// [`Error::Signature`]; then [`Error::ClosedChain`], [`Error::BeforeChain`], [`Error::Reused`],
    /// [`Error::TooFar`]; then [`Error::Commit`], [`Error::Auth`].
    pub(crate) fn open(&self, group: &Group<'_>, now: Now) -> Result<(Self, Zeroizing<Vec<u8>>), Error> {
        if !cfg!(feature = "break-group-signature") {
            self.sig_pub.verify(LABEL, &[&self.ad, group.signed], group.sig)?;
        }
        if self.end.is_some_and(|end| group.n >= end) && !cfg!(feature = "break-closed-chain") {
            return Err(Error::ClosedChain);
        }
        let mut next = self.clone();
        next.skipped.expire(now);
        let key = next.key(group.n, now)?;
        let aad = [&self.ad[..], group.header].concat();
        let text = caead::open(&key, &group.salt, &aad, group.sealed)?;
        Ok((next, text))
    }

    fn key(&mut self, n: u32, now: Now) -> Result<Secret<32>, Error> {
        if n < self.start {
            return Err(Error::BeforeChain);
        }
        if n < self.n {
            return match self.skipped.take(&[0; 32], n) {
                Lookup::Kept(key) => Ok(key),
                Lookup::Gone | Lookup::Unknown => Err(Error::Reused),
            };
        }
        if n - self.n > SKIP_MAX {
            return Err(Error::TooFar);
        }
        loop {
            let (ck, key) = kdf::chain_step(&self.ck);
            let at = self.n;
            self.ck = ck;
            self.n = at.checked_add(1).ok_or(Error::TooFar)?;
            if at == n {
                return Ok(key);
            }
            self.skipped.push(at, key, now);
        }
    }

    /// Keys of skipped messages kept.
    pub(crate) fn skipped_keys(&self) -> usize {
        self.skipped.len()
    }

    pub(crate) fn write(&self, row: &mut Vec<u8>) {
        row.put(&self.id.0);
        write_address(row, &self.owner);
        row.put_u32(self.epoch).put(&self.ad).put_u32(self.start).put_u32(self.n).put(self.ck.expose());
        row.put(self.sig_pub.bytes());
        self.skipped.write(row);
        row.put(&self.prev.0.0).put_u32(self.prev.1);
        row.put_bool(self.end.is_some()).put_u32(self.end.unwrap_or(0));
        row.put_bool(self.removed.is_some()).put_u64(self.removed.unwrap_or(0));
    }

    pub(crate) fn read(r: &mut Reader<'_>) -> Result<Self, Damaged> {
        Ok(Self {
            id: ChainId(r.array()?),
            owner: read_address(r)?,
            epoch: r.u32()?,
            ad: r.array()?,
            start: r.u32()?,
            n: r.u32()?,
            ck: r.secret()?,
            sig_pub: PublicKey::new(r.array()?),
            skipped: Skipped::read(r)?,
            prev: (ChainId(r.array()?), r.u32()?),
            end: {
                let (some, end) = (r.bool()?, r.u32()?);
                some.then_some(end)
            },
            removed: {
                let (some, at) = (r.bool()?, r.u64()?);
                some.then_some(at)
            },
        })
    }
}

/// Bytes of a sealed group message beside its padded text.
pub const GROUP_OVERHEAD: usize = 74 + caead::OVERHEAD + SIGNATURE_LEN;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::e2e::envelope::Envelope;
    use crate::e2e::padding::pad;
    use crate::e2e::testing::{Seeded, alice};

    const NOW: Now = Now::from_secs(5);

    #[test]
    fn two_thousand_are_skipped_and_no_more() {
        let (a, room) = (alice(), RoomId([1; 16]));
        let mut rng = Seeded(1);
        let mut own = OwnChain::start((1, [2; 32]), None, NOW, &mut rng).unwrap();
        let theirs = TheirChain::from_link(&own.link(room), a.me.party());
        let mut seal = || {
            let (next, envelope) = own.seal(a.me.party(), room, b"inner", &mut rng).unwrap();
            own = next;
            envelope
        };
        let many: Vec<_> = (0..2002).map(|_| seal()).collect();
        let open = |chain: &TheirChain, i: usize| {
            let Ok(Envelope::Group(group)) = Envelope::parse(&many[i]) else { panic!("refused") };
            chain.open(&group, NOW)
        };
        assert_eq!(open(&theirs, 2001).unwrap_err(), Error::TooFar);
        let (next, text) = open(&theirs, 2000).unwrap();
        assert_eq!((text.as_slice(), next.skipped_keys()), (&pad(b"inner")[..], 2000));
        let (next, _) = open(&next, 2001).unwrap();
        assert_eq!(open(&next, 2000).unwrap_err(), Error::Reused);
        let (next, _) = open(&next, 0).unwrap();
        assert_eq!(next.skipped_keys(), 1999);
        let mut row = Vec::new();
        next.write(&mut row);
        assert_eq!(TheirChain::read(&mut Reader::new(&row)), Ok(next));
    }
}

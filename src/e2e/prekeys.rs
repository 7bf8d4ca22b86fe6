//! The private halves of this device's prekeys: making them, finding them for a handshake, and
//! erasing them.
//!
//! Each is stored with the hash of the certificate it was signed under: a handshake is over *that*
//! certificate, even if the device has been certified anew since.

use std::collections::{BTreeMap, BTreeSet};

use zeroize::Zeroizing;

use super::bundle::{KeyKind, NO_ID, OPK_POOL, PQK_POOL, PublicKey, Record};
use super::cert::{CertHash, Certificate};
use super::dh::DhPair;
use super::error::{Damaged, Error, SealError};
use super::identity::Identity;
use super::rng::Rng;
use super::secret::Secret;
use super::time::{DAY, Now};
use super::wire::{Put, Reader};
use super::{kdf, kem};

/// The signed prekey and the key of last resort are replaced after this many seconds.
pub const ROTATE_AFTER: u64 = 7 * DAY;
/// Their private parts are kept so long after they were replaced, in seconds: a bundle fetched just
/// before may be used late. It is also how long bundles are believed.
pub const KEEP_REPLACED: u64 = 30 * DAY;
/// A pool on the server that has fewer keys than this is filled up.
pub const REFILL_BELOW: usize = 25;
/// One-time private keys kept of each kind: keys that the server handed out to people who never
/// wrote would otherwise pile up for ever. The oldest go first.
pub const ONE_TIME_MAX: usize = 1000;
/// Handshakes without a one-time prekey that are remembered for a signed prekey. Past it such
/// handshakes are refused until the next rotation, rather than a replay let in.
pub const REPLAY_CACHE_MAX: usize = 8192;

const ROW_VERSION: u8 = 1;

/// A private prekey of `N` bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Held<const N: usize> {
    secret: Secret<N>,
    /// Unix seconds.
    created: u64,
    /// H of the certificate that it was signed under.
    dc: CertHash,
    /// When another took its place; never for one-time keys.
    replaced: Option<u64>,
}

/// The private prekeys of a device: one row of the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prekeys {
    /// The last id given out; one counter over all kinds, never reused.
    last_id: u32,
    spk: BTreeMap<u32, Held<32>>,
    opk: BTreeMap<u32, Held<32>>,
    pqk: BTreeMap<u32, Held<{ kem::SEED_LEN }>>,
    last: BTreeMap<u32, Held<{ kem::SEED_LEN }>>,
    /// H(EK_A ‖ ct) of the handshakes without a one-time prekey, with the signed prekey they used.
    cache: BTreeSet<(u32, [u8; 32])>,
}

/// The prekeys that a handshake names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) spk: u32,
    pub(crate) opk: Option<u32>,
    pub(crate) pqk: u32,
}

/// The private keys for a handshake.
pub(crate) struct Found {
    pub(crate) dc: CertHash,
    pub(crate) spk: DhPair,
    pub(crate) opk: Option<DhPair>,
    pub(crate) pqk: Secret<{ kem::SEED_LEN }>,
}

impl Prekeys {
    /// Makes a new signed prekey and a new key of last resort; the ones before are kept for
    /// handshakes under way. To be called first, and whenever [`Prekeys::rotation_due`].
    ///
    /// # Errors
    /// [`SealError::Random`], or [`SealError::Exhausted`] after 2³² − 2 keys.
    pub fn rotate(&self, me: &Identity, now: Now, rng: &mut dyn Rng) -> Result<(Self, Vec<Record>), SealError> {
        let mut next = self.expire(now);
        next.spk.values_mut().for_each(|held| held.replace(now));
        next.last.values_mut().for_each(|held| held.replace(now));
        let dc = me.cert().hash();

        let (id, spk) = (next.next_id()?, DhPair::draw(rng)?);
        next.spk.insert(id, Held::new(spk.private().clone(), dc, now));
        let public = spk.public().to_vec();
        let spk = PublicKey::sign(KeyKind::Spk, me.dsk(), &dc, id, now.secs(), public);

        let (id, seed) = (next.next_id()?, kem::draw(rng)?);
        let last = PublicKey::sign(KeyKind::PqkLast, me.dsk(), &dc, id, now.secs(), kem::public(&seed));
        next.last.insert(id, Held::new(seed, dc, now));
        Ok((next, vec![Record::Spk(spk), Record::PqkLast(last)]))
    }

    /// Makes one-time keys until the server's pools, which hold `opk` and `pqk` keys now, are full
    /// again; a pool with enough keys is left alone.
    ///
    /// # Errors
    /// As [`Prekeys::rotate`].
    pub fn refill(
        &self,
        me: &Identity,
        (opk, pqk): (usize, usize),
        now: Now,
        rng: &mut dyn Rng,
    ) -> Result<(Self, Vec<Record>), SealError> {
        let mut next = self.expire(now);
        let dc = me.cert().hash();
        let missing = |have: usize, pool: usize| if have < REFILL_BELOW { pool - have } else { 0 };

        let mut opks = Vec::new();
        for _ in 0..missing(opk, OPK_POOL) {
            let (id, pair) = (next.next_id()?, DhPair::draw(rng)?);
            opks.push(PublicKey::sign(KeyKind::Opk, me.dsk(), &dc, id, now.secs(), pair.public().to_vec()));
            next.opk.insert(id, Held::new(pair.private().clone(), dc, now));
        }
        let mut pqks = Vec::new();
        for _ in 0..missing(pqk, PQK_POOL) {
            let (id, seed) = (next.next_id()?, kem::draw(rng)?);
            pqks.push(PublicKey::sign(KeyKind::Pqk, me.dsk(), &dc, id, now.secs(), kem::public(&seed)));
            next.pqk.insert(id, Held::new(seed, dc, now));
        }
        while next.opk.len() > ONE_TIME_MAX {
            next.opk.pop_first();
        }
        while next.pqk.len() > ONE_TIME_MAX {
            next.pqk.pop_first();
        }
        let records =
            [(!opks.is_empty()).then_some(Record::Opks(opks)), (!pqks.is_empty()).then_some(Record::Pqks(pqks))];
        Ok((next, records.into_iter().flatten().collect()))
    }

    /// Whether the signed prekey is a week old, or was signed under another certificate than the
    /// device has now: then everything is made anew ([`Prekeys::rotate`], then [`Prekeys::refill`]
    /// of empty pools if the certificate has changed, for the server drops what was signed before).
    pub fn rotation_due(&self, me: &Identity, now: Now) -> bool {
        let newest = self.spk.values().find(|held| held.replaced.is_none());
        newest.is_none_or(|held| now.since(held.created) >= ROTATE_AFTER || held.dc != me.cert().hash())
    }

    /// Whether the newest signed prekey was signed under this certificate: if not, the directory has
    /// dropped every key before.
    pub fn signed_under(&self, cert: &Certificate) -> bool {
        self.spk.values().any(|held| held.replaced.is_none() && held.dc == cert.hash())
    }

    /// Erases what was replaced more than 30 days ago, with its part of the replay cache.
    #[must_use]
    pub fn expire(&self, now: Now) -> Self {
        let mut next = self.clone();
        next.spk.retain(|_, held| held.alive(now));
        next.last.retain(|_, held| held.alive(now));
        next.cache.retain(|(spk, _)| next.spk.contains_key(spk));
        next
    }

    /// The private keys that a handshake names.
    ///
    /// # Errors
    /// [`Error::NoPrekey`] if one is not (or no longer) held, or they were not signed under one
    /// certificate, as the keys of a bundle are.
    pub(crate) fn find(&self, named: Named, now: Now) -> Result<Found, Error> {
        let spk = self.spk.get(&named.spk).filter(|held| held.alive(now)).ok_or(Error::NoPrekey)?;
        let opk = match named.opk {
            Some(id) => Some(self.opk.get(&id).ok_or(Error::NoPrekey)?),
            None => None,
        };
        let last = self.last.get(&named.pqk).filter(|held| held.alive(now));
        let pqk = self.pqk.get(&named.pqk).or(last).ok_or(Error::NoPrekey)?;
        if pqk.dc != spk.dc || opk.is_some_and(|held| held.dc != spk.dc) {
            return Err(Error::NoPrekey);
        }
        let pair = |held: &Held<32>| DhPair::from_private(held.secret.clone());
        Ok(Found { dc: spk.dc, spk: pair(spk), opk: opk.map(pair), pqk: pqk.secret.clone() })
    }

    /// Refuses a handshake without a one-time prekey that was seen before: with one, the erased key
    /// refuses it.
    ///
    /// # Errors
    /// [`Error::Replay`]; [`Error::NoPrekey`] if no more can be remembered under this signed prekey.
    pub(crate) fn check_replay(&self, named: Named, handshake: &[u8; 32]) -> Result<(), Error> {
        if named.opk.is_some() || cfg!(feature = "break-replay-cache") {
            return Ok(());
        }
        if self.cache.contains(&(named.spk, *handshake)) {
            return Err(Error::Replay);
        }
        let used = self.cache.range((named.spk, [0; 32])..=(named.spk, [255; 32])).count();
        if used < REPLAY_CACHE_MAX { Ok(()) } else { Err(Error::NoPrekey) }
    }

    /// After the first message of a session opened: erases its one-time keys, or remembers the
    /// handshake if there was no one-time prekey.
    #[must_use]
    pub(crate) fn consume(&self, named: Named, handshake: [u8; 32]) -> Self {
        let mut next = self.clone();
        match named.opk {
            Some(id) => {
                next.opk.remove(&id);
            }
            None => {
                next.cache.insert((named.spk, handshake));
            }
        }
        next.pqk.remove(&named.pqk);
        next
    }

    fn next_id(&mut self) -> Result<u32, SealError> {
        let next = self.last_id.checked_add(1).filter(|id| *id != NO_ID).ok_or(SealError::Exhausted)?;
        self.last_id = next;
        Ok(next)
    }

    /// How many one-time keys of each kind (X25519, ML-KEM) are held.
    pub fn one_time_left(&self) -> (usize, usize) {
        (self.opk.len(), self.pqk.len())
    }

    /// The private keys by kind and id, as test vectors print them.
    pub fn private_keys(&self) -> impl Iterator<Item = (KeyKind, u32, &[u8])> {
        let dh = each(KeyKind::Spk, &self.spk).chain(each(KeyKind::Opk, &self.opk));
        dh.chain(each(KeyKind::Pqk, &self.pqk)).chain(each(KeyKind::PqkLast, &self.last))
    }

    /// Puts a private key in as it is, as when test vectors are replayed; `created` in Unix seconds.
    ///
    /// # Errors
    /// [`Damaged`] if the length is not the kind's.
    pub fn insert(
        &mut self,
        kind: KeyKind,
        id: u32,
        private: &[u8],
        dc: CertHash,
        created: u64,
    ) -> Result<(), Damaged> {
        fn held<const N: usize>(private: &[u8], dc: CertHash, created: u64) -> Result<Held<N>, Damaged> {
            let secret = Secret::copy_from(private.try_into().map_err(|_| Damaged)?);
            Ok(Held { secret, created, dc, replaced: None })
        }
        match kind {
            KeyKind::Spk => drop(self.spk.insert(id, held(private, dc, created)?)),
            KeyKind::Opk => drop(self.opk.insert(id, held(private, dc, created)?)),
            KeyKind::Pqk => drop(self.pqk.insert(id, held(private, dc, created)?)),
            KeyKind::PqkLast => drop(self.last.insert(id, held(private, dc, created)?)),
        }
        self.last_id = self.last_id.max(id);
        Ok(())
    }

    /// The row.
    pub fn to_row(&self) -> Zeroizing<Vec<u8>> {
        let keys = self.spk.len() + self.opk.len() + self.pqk.len() + self.last.len();
        let mut row = Zeroizing::new(Vec::with_capacity(32 + keys * 128 + self.cache.len() * 36));
        row.put_u8(ROW_VERSION).put_u32(self.last_id);
        write_map(&mut row, &self.spk);
        write_map(&mut row, &self.opk);
        write_map(&mut row, &self.pqk);
        write_map(&mut row, &self.last);
        row.put_count(self.cache.len());
        for (spk, handshake) in &self.cache {
            row.put_u32(*spk).put(handshake);
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
        let last_id = r.u32()?;
        let (spk, opk) = (read_map(&mut r)?, read_map(&mut r)?);
        let (pqk, last) = (read_map(&mut r)?, read_map(&mut r)?);
        let n = r.u32()?;
        let cache = (0..n).map(|_| Ok((r.u32()?, r.array()?))).collect::<Result<_, Damaged>>()?;
        r.end()?;
        Ok(Self { last_id, spk, opk, pqk, last, cache })
    }
}

impl<const N: usize> Held<N> {
    fn new(secret: Secret<N>, dc: CertHash, now: Now) -> Self {
        Self { secret, created: now.secs(), dc, replaced: None }
    }

    fn replace(&mut self, now: Now) {
        self.replaced = self.replaced.or(Some(now.secs()));
    }

    fn alive(&self, now: Now) -> bool {
        self.replaced.is_none_or(|at| now.since(at) <= KEEP_REPLACED)
    }
}

fn each<const N: usize>(kind: KeyKind, map: &BTreeMap<u32, Held<N>>) -> impl Iterator<Item = (KeyKind, u32, &[u8])> {
    map.iter().map(move |(id, held)| (kind, *id, &held.secret.expose()[..]))
}

fn write_map<const N: usize>(row: &mut Vec<u8>, map: &BTreeMap<u32, Held<N>>) {
    row.put_count(map.len());
    for (id, held) in map {
        row.put_u32(*id).put_u64(held.created).put_u64(held.replaced.unwrap_or(u64::MAX));
        row.put(&held.dc).put(held.secret.expose());
    }
}

fn read_map<const N: usize>(r: &mut Reader<'_>) -> Result<BTreeMap<u32, Held<N>>, Damaged> {
    let n = r.u32()?;
    (0..n)
        .map(|_| {
            let (id, created, replaced) = (r.u32()?, r.u64()?, r.u64()?);
            let (dc, secret) = (r.array()?, r.secret()?);
            Ok((id, Held { secret, created, dc, replaced: (replaced != u64::MAX).then_some(replaced) }))
        })
        .collect()
}

/// What is remembered of a handshake without a one-time prekey: H(EK_A ‖ ct).
pub(crate) fn handshake_hash(ek: &[u8; 32], ciphertext: &[u8]) -> [u8; 32] {
    kdf::hash(&[ek, ciphertext])
}

//! The sealed store: how its key is kept under a passphrase, and how each row is sealed.
//!
//! ```text
//! slot  "DSKS" 01 ‖ u32 m_kib ‖ u32 t ‖ u8 p ‖ argon_salt 16 ‖ salt 16 ‖ CAEAD(KEK, salt, aad = all before, DEK)
//! KEK   = Argon2id v0x13 (RFC 9106), m = 64 MiB, t = 3, p = 4
//! row   salt 16 ‖ CAEAD(HKDF(salt = 00×32, ikm = DEK, info = L"store" ‖ lp(table), 32), salt,
//!                       aad = lp(table) ‖ u64 rowid ‖ u32 schema_version, blob)
//! ```
//!
//! One DEK for the life of the store; several slots (a passphrase, recovery words), one file each.

use argon2::{Algorithm, Argon2, Params, Version};
use zeroize::Zeroizing;

use super::caead::{self, SALT_LEN};
use super::error::{Damaged, Error, NoRandom, SealError};
use super::kdf;
use super::labels;
use super::rng::{self, Rng};
use super::secret::Secret;
use super::wire::{Malformed, Put, Reader};

/// What a passphrase costs to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// Memory, in KiB.
    pub m_kib: u32,
    /// Passes.
    pub t: u32,
    /// Lanes.
    pub p: u8,
}

impl Cost {
    /// RFC 9106 §4, the second recommended option: 64 MiB, 3 passes, 4 lanes.
    pub const DEFAULT: Self = Self { m_kib: 64 * 1024, t: 3, p: 4 };
    /// The least a slot may ask for, so that an edited file cannot make guessing cheap.
    pub const FLOOR: Self = Self { m_kib: 19 * 1024, t: 2, p: 1 };
    /// The most, so that an edited file cannot exhaust the machine.
    pub const CEILING: Self = Self { m_kib: 1024 * 1024, t: 16, p: 16 };

    /// The cost that a slot file asks for. Reads the file; tries no passphrase.
    ///
    /// # Errors
    /// [`SlotError::Damaged`] if this is no slot, or asks for a cost out of bounds.
    pub fn of_slot(slot: &[u8]) -> Result<Self, SlotError> {
        Slot::parse(slot).map(|slot| slot.cost)
    }

    fn allowed(self) -> bool {
        (Self::FLOOR.m_kib..=Self::CEILING.m_kib).contains(&self.m_kib)
            && (Self::FLOOR.t..=Self::CEILING.t).contains(&self.t)
            && (Self::FLOOR.p..=Self::CEILING.p).contains(&self.p)
    }
}

/// Why a slot does not give the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SlotError {
    /// The file is no slot, or asks for a cost out of bounds.
    #[error("this is no key slot")]
    Damaged,
    /// The passphrase is wrong, or the file was edited: there is no telling which.
    #[error("wrong passphrase")]
    WrongPassphrase,
    /// Not enough memory for the cost that the slot asks for.
    #[error("not enough memory to check the passphrase")]
    NoMemory,
    /// The random source failed.
    #[error("the random source failed")]
    Random,
}

impl From<Malformed> for SlotError {
    fn from(Malformed: Malformed) -> Self {
        Self::Damaged
    }
}

impl From<NoRandom> for SlotError {
    fn from(NoRandom: NoRandom) -> Self {
        Self::Random
    }
}

const MAGIC: &[u8] = b"DSKS\x01";

/// A slot file in its parts, its cost within the bounds.
struct Slot<'a> {
    cost: Cost,
    argon_salt: [u8; 16],
    salt: [u8; SALT_LEN],
    aad: &'a [u8],
    sealed: &'a [u8],
}

impl<'a> Slot<'a> {
    fn parse(raw: &'a [u8]) -> Result<Self, SlotError> {
        let mut r = Reader::new(raw);
        r.expect_bytes(MAGIC)?;
        let cost = Cost { m_kib: r.u32()?, t: r.u32()?, p: r.u8()? };
        let (argon_salt, salt) = (r.array()?, r.array()?);
        let aad = r.consumed();
        let sealed = r.take(32 + caead::OVERHEAD)?;
        r.end()?;
        if cost.allowed() { Ok(Self { cost, argon_salt, salt, aad, sealed }) } else { Err(SlotError::Damaged) }
    }
}

/// The key of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dek(Secret<32>);

impl Dek {
    /// Draws the key of a new store.
    ///
    /// # Errors
    /// [`NoRandom`].
    pub fn draw(rng: &mut dyn Rng) -> Result<Self, NoRandom> {
        rng::secret(rng).map(Self)
    }

    /// The key of 32 bytes, as an agent holds them.
    pub fn from_bytes(bytes: Secret<32>) -> Self {
        Self(bytes)
    }

    /// The bytes, for an agent.
    pub fn bytes(&self) -> &Secret<32> {
        &self.0
    }

    /// A slot file that gives this key to whoever knows the passphrase. Takes as long as `cost` says.
    ///
    /// # Errors
    /// [`SlotError::Random`], [`SlotError::NoMemory`], [`SlotError::Damaged`] for a cost out of bounds.
    pub fn to_slot(&self, passphrase: &[u8], cost: Cost, rng: &mut dyn Rng) -> Result<Vec<u8>, SlotError> {
        let argon_salt: [u8; 16] = rng::bytes(rng)?;
        let salt = caead::draw_salt(rng)?;
        let mut slot = MAGIC.to_vec();
        slot.put_u32(cost.m_kib).put_u32(cost.t).put_u8(cost.p).put(&argon_salt).put(&salt);
        let kek = kek(passphrase, &argon_salt, cost)?;
        let sealed = caead::seal(&kek, &salt, &slot, self.0.expose()).map_err(|_| SlotError::Damaged)?;
        slot.put(&sealed);
        Ok(slot)
    }

    /// Opens a slot file.
    ///
    /// # Errors
    /// [`SlotError`].
    pub fn from_slot(slot: &[u8], passphrase: &[u8]) -> Result<Self, SlotError> {
        let Slot { cost, argon_salt, salt, aad, sealed } = Slot::parse(slot)?;
        let kek = kek(passphrase, &argon_salt, cost)?;
        let dek = caead::open(&kek, &salt, aad, sealed).map_err(|_| SlotError::WrongPassphrase)?;
        let dek: &[u8; 32] = dek.as_slice().try_into().map_err(|_| SlotError::Damaged)?;
        Ok(Self(Secret::copy_from(dek)))
    }

    /// Seals a row of the store.
    ///
    /// # Errors
    /// [`SealError::Random`].
    pub fn seal_row(&self, place: &Place<'_>, blob: &[u8], rng: &mut dyn Rng) -> Result<Vec<u8>, SealError> {
        let salt = caead::draw_salt(rng)?;
        let sealed = caead::seal(&self.row_key(place.table), &salt, &place.aad(), blob)?;
        Ok([&salt[..], &sealed].concat())
    }

    /// Opens a row of the store, from the place where it was sealed.
    ///
    /// # Errors
    /// [`Damaged`].
    pub fn open_row(&self, place: &Place<'_>, row: &[u8]) -> Result<Zeroizing<Vec<u8>>, Damaged> {
        let (salt, sealed) = row.split_first_chunk::<SALT_LEN>().ok_or(Damaged)?;
        caead::open(&self.row_key(place.table), salt, &place.aad(), sealed).map_err(|_: Error| Damaged)
    }

    fn row_key(&self, table: &str) -> Secret<32> {
        let mut info = labels::STORE.bytes().to_vec();
        info.put_lp(table.as_bytes());
        kdf::hkdf(&[0; 32], self.0.expose(), &[&info])
    }
}

/// Where a row stands: it opens nowhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    /// The table's name.
    pub table: &'a str,
    /// The row's id.
    pub rowid: u64,
    /// The version of the schema that the blob was written under.
    pub schema_version: u32,
}

impl Place<'_> {
    fn aad(&self) -> Vec<u8> {
        let mut aad = Vec::new();
        aad.put_lp(self.table.as_bytes()).put_u64(self.rowid).put_u32(self.schema_version);
        aad
    }
}

/// Argon2id over a passphrase; the cost is checked first.
fn kek(passphrase: &[u8], salt: &[u8; 16], cost: Cost) -> Result<Secret<32>, SlotError> {
    if !cost.allowed() {
        return Err(SlotError::Damaged);
    }
    let params = Params::new(cost.m_kib, cost.t, u32::from(cost.p), Some(32)).map_err(|_| SlotError::Damaged)?;
    let mut out = Secret::zero();
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase, salt, out.expose_mut())
        .map_err(|_| SlotError::NoMemory)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::e2e::testing::Seeded;

    fn slot() -> (Dek, Vec<u8>) {
        let dek = Dek::draw(&mut Seeded(1)).unwrap();
        let slot = dek.to_slot(b"correct horse", Cost::FLOOR, &mut Seeded(2)).unwrap();
        (dek, slot)
    }

    #[test]
    fn a_slot_opens_with_its_passphrase_only() {
        let (dek, slot) = slot();
        assert_eq!((slot.len(), Cost::of_slot(&slot)), (46 + 80, Ok(Cost::FLOOR)));
        assert_eq!(Dek::from_slot(&slot, b"correct horse"), Ok(dek.clone()));
        assert_eq!(Dek::from_slot(&slot, b"correct horsf"), Err(SlotError::WrongPassphrase));
        assert!(!slot.windows(16).any(|w| dek.bytes().expose().windows(16).any(|d| d == w)));
    }

    #[test]
    fn edited_costs_and_every_other_byte_are_refused() {
        let (_, slot) = slot();
        let edited = |at: usize, bytes: &[u8]| {
            let mut bad = slot.clone();
            bad[at..at + bytes.len()].copy_from_slice(bytes);
            Dek::from_slot(&bad, b"correct horse")
        };
        assert_eq!(edited(5, &(19 * 1024_u32 - 1).to_be_bytes()), Err(SlotError::Damaged));
        assert_eq!(edited(5, &(1024 * 1024_u32 + 1).to_be_bytes()), Err(SlotError::Damaged));
        assert_eq!(edited(9, &1_u32.to_be_bytes()), Err(SlotError::Damaged));
        assert_eq!(edited(9, &17_u32.to_be_bytes()), Err(SlotError::Damaged));
        assert_eq!(edited(13, &[0]), Err(SlotError::Damaged));
        assert_eq!(edited(9, &3_u32.to_be_bytes()), Err(SlotError::WrongPassphrase));
        for at in (0..5).chain([14, 29, 30, 45, 46, 78, 125]) {
            assert!(edited(at, &[slot[at] ^ 1]).is_err(), "{at}");
        }
        for n in 0..slot.len() {
            assert_eq!(Dek::from_slot(&slot[..n], b"correct horse"), Err(SlotError::Damaged));
        }
    }

    #[test]
    fn a_row_opens_in_its_place_only() {
        let dek = Dek::draw(&mut Seeded(1)).unwrap();
        let place = Place { table: "peers", rowid: 7, schema_version: 1 };
        let row = dek.seal_row(&place, b"blob", &mut Seeded(3)).unwrap();
        assert_eq!(dek.open_row(&place, &row).unwrap().as_slice(), b"blob");
        for other in
            [Place { table: "rooms", ..place }, Place { rowid: 8, ..place }, Place { schema_version: 2, ..place }]
        {
            assert!(dek.open_row(&other, &row).is_err());
        }
        for at in 0..row.len() {
            let mut bad = row.clone();
            bad[at] ^= 0x80;
            assert!(dek.open_row(&place, &bad).is_err());
            assert!(dek.open_row(&place, &row[..at]).is_err());
        }
    }
}

//! The committing AEAD (deviation D1): AES-256-GCM (NIST SP 800-38D) whose key, nonce and a
//! commitment to both come out of one HKDF.
//!
//! ```text
//! HKDF(salt = salt16, ikm = key, info = L"caead" ‖ H(aad), 76) -> key32 ‖ nonce12 ‖ com32
//! sealed = com32 ‖ AES-256-GCM(key, nonce, aad, pt)
//! ```
//!
//! GCM alone does not commit to its key: one body can be made that opens under two keys to two
//! texts (Dodis et al. 2018, "invisible salamanders"), and its tag is an oracle on a set of keys
//! (Len et al. 2021). The commitment is compared first, so a wrong key is told before GCM runs.
//!
//! The nonce is never chosen, never a counter and never sent: with 128 fresh random bits of salt in
//! its derivation a (key, nonce) pair repeats only if the state *and* the salt repeat
//! (deviation D2), so a restored or cloned store stays safe.

use aes_gcm::aead::{Aead, AeadInOut, Payload};
use aes_gcm::{Aes256Gcm, KeyInit};
use zeroize::{Zeroize, Zeroizing};

use super::error::{Error, NoRandom, SealError};
use super::kdf;
use super::labels;
use super::rng::{self, Rng};
use super::secret::{self, Secret};

/// Bytes of salt that travel beside every sealed text.
pub const SALT_LEN: usize = 16;
/// Bytes of commitment in front of the ciphertext.
pub const COM_LEN: usize = 32;
/// Bytes of GCM tag behind it.
pub const TAG_LEN: usize = 16;
/// What sealing adds to a text's length.
pub const OVERHEAD: usize = COM_LEN + TAG_LEN;

/// The salt of a sealed text.
pub type Salt = [u8; SALT_LEN];

/// Draws the salt for one sealing. It is never used twice.
pub(crate) fn draw_salt(rng: &mut dyn Rng) -> Result<Salt, NoRandom> {
    if cfg!(feature = "break-salt") {
        return Ok([0; SALT_LEN]);
    }
    rng::bytes(rng)
}

/// What one HKDF gives: key, nonce, commitment.
struct Derived {
    gcm: Aes256Gcm,
    okm: Secret<76>,
}

impl Derived {
    fn nonce(&self) -> &[u8; 12] {
        kdf::part::<32, 12, _>(self.okm.expose())
    }

    fn com(&self) -> &[u8; COM_LEN] {
        kdf::part::<44, COM_LEN, _>(self.okm.expose())
    }
}

fn derive(key: &Secret<32>, salt: &Salt, aad: &[u8]) -> Derived {
    let okm: Secret<76> = kdf::hkdf(salt, key.expose(), &[labels::CAEAD.bytes(), &kdf::hash(&[aad])]);
    Derived { gcm: Aes256Gcm::new(kdf::part::<0, 32, _>(okm.expose()).into()), okm }
}

/// `CAEAD(key, salt, aad, pt)` = com32 ‖ ct ‖ tag16.
pub(crate) fn seal(key: &Secret<32>, salt: &Salt, aad: &[u8], pt: &[u8]) -> Result<Vec<u8>, SealError> {
    let mut out = Vec::new();
    seal_onto(&mut out, key, salt, aad, pt.len(), |out| out.extend_from_slice(pt))?;
    Ok(out)
}

/// Appends com32 ‖ ct ‖ tag16 to what stands before it. `put` appends the text, of `len` bytes, and it is sealed where it
/// stands.
pub(crate) fn seal_onto(
    out: &mut Vec<u8>,
    key: &Secret<32>,
    salt: &Salt,
    aad: &[u8],
    len: usize,
    put: impl FnOnce(&mut Vec<u8>),
) -> Result<(), SealError> {
    // There is room for all of it, so that no text stays behind where the bytes stood before.
    out.reserve(OVERHEAD + len);
    let derived = derive(key, salt, aad);
    out.extend_from_slice(derived.com());
    let at = out.len();
    put(out);
    debug_assert_eq!(out.len(), at + len);
    let text = out.get_mut(at..).unwrap_or_default();
    match derived.gcm.encrypt_inout_detached(derived.nonce().into(), aad, (&mut *text).into()) {
        Ok(tag) => {
            out.extend_from_slice(&tag);
            Ok(())
        }
        Err(_) => {
            text.zeroize();
            Err(SealError::TooLong(GCM_MAX))
        }
    }
}

/// The longest text GCM takes (SP 800-38D §5.2.1.1); far above anything sealed here.
const GCM_MAX: usize = (1 << 36) - 32;

/// Opens `com32 ‖ ct ‖ tag16`.
///
/// # Errors
/// [`Error::Commit`] if the commitment differs (compared first, in constant time),
/// [`Error::Auth`] if the tag does, [`Error::Syntax`] if there is no room for both.
pub(crate) fn open(key: &Secret<32>, salt: &Salt, aad: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
    let (com, ct) = sealed.split_at_checked(COM_LEN).ok_or(Error::Syntax)?;
    if ct.len() < TAG_LEN {
        return Err(Error::Syntax);
    }
    let derived = derive(key, salt, aad);
    if !secret::equal(com, derived.com()) && !cfg!(feature = "break-commitment") {
        return Err(Error::Commit);
    }
    derived.gcm.decrypt(derived.nonce().into(), Payload { msg: ct, aad }).map(Zeroizing::new).map_err(|_| Error::Auth)
}

/// Key and nonce of one sealing, for the tests that no pair repeats.
#[cfg(test)]
pub(crate) fn key_and_nonce(key: &Secret<32>, salt: &Salt, aad: &[u8]) -> [u8; 44] {
    let okm = derive(key, salt, aad).okm;
    okm.expose()[..44].try_into().unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::e2e::armour::hex;

    const KEY: [u8; 32] = [1; 32];
    const SALT: Salt = [2; 16];

    #[test]
    fn matches_the_worked_example() {
        let pair = hex(&key_and_nonce(&Secret::copy_from(&KEY), &SALT, b"aad"));
        assert!(pair.starts_with("c3704a43") && pair.ends_with("2451c575dfce873259609c02f29ede"), "{pair}");
        let sealed = seal(&Secret::copy_from(&KEY), &SALT, b"aad", b"hi").unwrap();
        assert_eq!(
            hex(&sealed),
            "853a33b6913caf461da73c225710e7cbc12edc1dc9354b673aed01fe0a55933747946c847159be667e19f8724e5c18959d40"
        );
        let opened = open(&Secret::copy_from(&KEY), &SALT, b"aad", &sealed).unwrap();
        assert_eq!(opened.as_slice(), b"hi");
    }

    #[test]
    fn a_cloned_state_repeats_no_key_and_nonce() {
        // A hundred copies of one chain key, a thousand sealings each: only the salts tell them apart.
        let key = Secret::copy_from(&KEY);
        let mut seen = std::collections::HashSet::new();
        for copy in 0..100 {
            let mut rng = crate::e2e::testing::Seeded(copy);
            for _ in 0..1000 {
                let salt = draw_salt(&mut rng).unwrap();
                assert!(seen.insert(key_and_nonce(&key, &salt, b"aad")));
            }
        }
    }

    #[test]
    fn every_bit_counts() {
        let key = Secret::copy_from(&KEY);
        let sealed = seal(&key, &SALT, b"aad", b"hi").unwrap();
        for bit in 0..sealed.len() * 8 {
            let mut bad = sealed.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let want = if bit / 8 < COM_LEN { Error::Commit } else { Error::Auth };
            assert_eq!(open(&key, &SALT, b"aad", &bad).unwrap_err(), want);
        }
        assert_eq!(open(&key, &SALT, b"aae", &sealed).unwrap_err(), Error::Commit);
        assert_eq!(open(&key, &[3; 16], b"aad", &sealed).unwrap_err(), Error::Commit);
        assert_eq!(open(&Secret::copy_from(&[9; 32]), &SALT, b"aad", &sealed).unwrap_err(), Error::Commit);
    }

    /// Multiplication in GCM's field (SP 800-38D §6.3).
    fn mul(x: u128, y: u128) -> u128 {
        let (mut z, mut v) = (0, y);
        for i in (0..128).rev() {
            if x >> i & 1 == 1 {
                z ^= v;
            }
            v = if v & 1 == 1 { v >> 1 ^ (0xe1 << 120) } else { v >> 1 };
        }
        z
    }

    /// x^(2^128 - 2).
    fn invert(x: u128) -> u128 {
        let (mut out, mut power) = (1 << 127, mul(x, x));
        for _ in 1..128 {
            out = mul(out, power);
            power = mul(power, power);
        }
        out
    }

    /// E_K(J0) and the hash key H, out of two tags over nothing.
    fn tag_parts(derived: &Derived) -> (u128, u128) {
        let tag = |aad: &[u8]| {
            let tag = derived.gcm.encrypt(derived.nonce().into(), Payload { msg: &[], aad }).unwrap();
            u128::from_be_bytes(tag.try_into().unwrap())
        };
        let mask = tag(&[]);
        (mask, mul(tag(&[0; 16]) ^ mask, invert(128 << 64)))
    }

    #[test]
    fn a_salamander_is_refused() {
        // One GCM body, valid under two keys (Dodis et al. 2018): the second block is solved for.
        let keys = [Secret::copy_from(&[1; 32]), Secret::copy_from(&[2; 32])];
        let derived = [derive(&keys[0], &SALT, b"aad"), derive(&keys[1], &SALT, b"aad")];
        let [(e1, h1), (e2, h2)] = [tag_parts(&derived[0]), tag_parts(&derived[1])];
        let (aad, first, lengths) = (0x0061_6164 << 104, 7_u128 << 64, 24 << 64 | 256);
        let rest = |e: u128, h: u128| {
            let (hh, hhh) = (mul(h, h), mul(h, mul(h, h)));
            e ^ mul(aad, mul(hh, hh)) ^ mul(first, hhh) ^ mul(lengths, h)
        };
        let (r1, r2) = (rest(e1, h1), rest(e2, h2));
        let second = mul(r1 ^ r2, invert(mul(h1, h1) ^ mul(h2, h2)));
        let tag = r1 ^ mul(second, mul(h1, h1));
        let body = [first, second, tag].map(u128::to_be_bytes).concat();
        for derived in &derived {
            let opened = derived.gcm.decrypt(derived.nonce().into(), Payload { msg: &body, aad: b"aad" });
            assert!(opened.is_ok(), "GCM takes it under both");
        }
        let sealed = [&derived[0].com()[..], &body].concat();
        assert!(open(&keys[0], &SALT, b"aad", &sealed).is_ok());
        assert_eq!(open(&keys[1], &SALT, b"aad", &sealed).unwrap_err(), Error::Commit);
    }

    #[test]
    fn every_cut_is_refused() {
        let key = Secret::copy_from(&KEY);
        let sealed = seal(&key, &SALT, b"aad", b"hi").unwrap();
        for n in 0..sealed.len() {
            assert!(open(&key, &SALT, b"aad", &sealed[..n]).is_err());
        }
    }
}

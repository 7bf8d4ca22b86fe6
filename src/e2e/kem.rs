//! ML-KEM-768 (FIPS 203).

use ml_kem::kem::{Decapsulate, KeyExport};
use ml_kem::ml_kem_768::{Ciphertext, DecapsulationKey, EncapsulationKey};
use ml_kem::{B32, Seed};
use zeroize::Zeroize;

use super::error::{Error, NoRandom, SealError};
use super::rng::{self, Rng};
use super::secret::Secret;

/// Bytes of an encapsulation key.
pub const PUBLIC_LEN: usize = 1184;
/// Bytes of a ciphertext.
pub const CIPHERTEXT_LEN: usize = 1088;
/// Bytes of a private key as it is stored: the seed `d ‖ z` (FIPS 203 §3.3).
pub const SEED_LEN: usize = 64;

/// Draws a private key.
pub(crate) fn draw(rng: &mut dyn Rng) -> Result<Secret<SEED_LEN>, NoRandom> {
    rng::secret(rng)
}

/// The encapsulation key of a seed.
pub(crate) fn public(seed: &Secret<SEED_LEN>) -> Vec<u8> {
    expand(seed).encapsulation_key().to_bytes().to_vec()
}

/// Encapsulates to a peer's key with fresh randomness: the ciphertext and the shared secret.
pub(crate) fn encapsulate(public: &[u8; PUBLIC_LEN], rng: &mut dyn Rng) -> Result<(Vec<u8>, Secret<32>), SealError> {
    let key = EncapsulationKey::new(&(*public).into()).map_err(|_| SealError::Bundle(Error::Handshake))?;
    let m: Secret<32> = rng::secret(rng)?;
    let mut m = B32::from(*m.expose());
    let (ciphertext, mut shared) = key.encapsulate_deterministic(&m);
    m.zeroize();
    let secret = Secret::copy_from(shared.as_ref());
    shared.zeroize();
    Ok((ciphertext.to_vec(), secret))
}

/// Decapsulates. Never fails: a forged ciphertext gives an unrelated secret (implicit rejection),
/// and the session id derived from it does not match.
pub(crate) fn decapsulate(seed: &Secret<SEED_LEN>, ciphertext: &[u8; CIPHERTEXT_LEN]) -> Secret<32> {
    let mut shared = expand(seed).decapsulate(&Ciphertext::from(*ciphertext));
    let secret = Secret::copy_from(shared.as_ref());
    shared.zeroize();
    secret
}

fn expand(seed: &Secret<SEED_LEN>) -> DecapsulationKey {
    let mut copy = Seed::from(*seed.expose());
    let key = DecapsulationKey::from_seed(copy);
    copy.zeroize();
    key
}

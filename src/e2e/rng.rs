//! Randomness, passed in.

use super::error::NoRandom;
use super::secret::Secret;

/// A source of cryptographically secure random bytes: `getrandom::fill` in the client, a seeded
/// generator in tests.
pub trait Rng {
    /// Fills `out` whole.
    ///
    /// # Errors
    /// [`NoRandom`] if even one byte is missing; the operation that asked is then abandoned.
    fn fill(&mut self, out: &mut [u8]) -> Result<(), NoRandom>;
}

/// `N` public random bytes, as an id or a salt needs.
pub(crate) fn bytes<const N: usize>(rng: &mut dyn Rng) -> Result<[u8; N], NoRandom> {
    let mut out = [0; N];
    rng.fill(&mut out)?;
    Ok(out)
}

/// `N` secret random bytes.
pub(crate) fn secret<const N: usize>(rng: &mut dyn Rng) -> Result<Secret<N>, NoRandom> {
    let mut out = Secret::zero();
    rng.fill(out.expose_mut())?;
    Ok(out)
}

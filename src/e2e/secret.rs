//! Secret bytes: wiped on drop, silent in `Debug`, compared in constant time.

use core::fmt;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// `N` secret bytes.
///
/// On the heap, so that moving one moves a pointer and leaves no copy behind on the stack.
#[derive(Clone)]
pub struct Secret<const N: usize>(Box<[u8; N]>);

impl<const N: usize> Secret<N> {
    pub(crate) fn zero() -> Self {
        Self(Box::new([0; N]))
    }

    /// Takes the bytes and wipes the place they came from.
    pub fn take(from: &mut [u8; N]) -> Self {
        let secret = Self(Box::new(*from));
        from.zeroize();
        secret
    }

    /// Copies the bytes; for callers that read them out of a buffer which is itself wiped.
    pub fn copy_from(from: &[u8; N]) -> Self {
        Self(Box::new(*from))
    }

    /// Takes the next `N` bytes of longer key material, without a copy on the way. What is missing stays
    /// zero; the callers' lengths are constants.
    pub(crate) fn cut<'a>(from: &mut impl Iterator<Item = &'a u8>) -> Self {
        let mut secret = Self::zero();
        secret.0.iter_mut().zip(from).for_each(|(place, byte)| *place = *byte);
        secret
    }

    /// The bytes themselves: for the primitive that needs them, or the sealed store.
    pub fn expose(&self) -> &[u8; N] {
        &self.0
    }

    pub(crate) fn expose_mut(&mut self) -> &mut [u8; N] {
        &mut self.0
    }
}

impl<const N: usize> Drop for Secret<N> {
    fn drop(&mut self) {
        self.0.as_mut().zeroize();
    }
}

impl<const N: usize> ZeroizeOnDrop for Secret<N> {}

impl<const N: usize> fmt::Debug for Secret<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret<{N}>")
    }
}

impl<const N: usize> PartialEq for Secret<N> {
    fn eq(&self, other: &Self) -> bool {
        equal(self.0.as_ref(), other.0.as_ref())
    }
}

impl<const N: usize> Eq for Secret<N> {}

/// Constant-time equality, for whatever an attacker could learn from by timing.
pub(crate) fn equal(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_the_length_only() {
        assert_eq!(format!("{:?}", Secret::copy_from(&[7_u8; 32])), "Secret<32>");
    }

    #[test]
    fn taking_wipes_the_source() {
        let mut source = [9; 4];
        let secret = Secret::take(&mut source);
        assert_eq!((source, secret.expose()), ([0; 4], &[9; 4]));
        assert!(secret == Secret::copy_from(&[9; 4]) && secret != Secret::zero());
    }
}

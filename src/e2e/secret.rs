//! Secret bytes: wiped on drop, silent in `Debug`, compared in constant time.

use core::fmt;
use std::sync::Arc;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// `N` secret bytes.
///
/// On the heap, so that moving one moves a pointer and leaves no copy behind on the stack. Clones share the bytes,
/// so that the copies of a state on which all work is done multiply no key; the last one wipes them.
#[derive(Clone)]
pub struct Secret<const N: usize>(Arc<Wiped<N>>);

/// The bytes, wiped when the last of those who share them is gone.
#[derive(Clone)]
struct Wiped<const N: usize>([u8; N]);

impl<const N: usize> Drop for Wiped<N> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<const N: usize> Secret<N> {
    pub(crate) fn zero() -> Self {
        Self(Arc::new(Wiped([0; N])))
    }

    /// Takes the bytes and wipes the place they came from.
    pub fn take(from: &mut [u8; N]) -> Self {
        let secret = Self::copy_from(from);
        from.zeroize();
        secret
    }

    /// Copies the bytes; for callers that read them out of a buffer which is itself wiped.
    pub fn copy_from(from: &[u8; N]) -> Self {
        let mut secret = Self::zero();
        secret.expose_mut().copy_from_slice(from);
        secret
    }

    /// Takes the next `N` bytes of longer key material, without a copy on the way. What is missing stays
    /// zero; the callers' lengths are constants.
    pub(crate) fn cut<'a>(from: &mut impl Iterator<Item = &'a u8>) -> Self {
        let mut secret = Self::zero();
        secret.expose_mut().iter_mut().zip(from).for_each(|(place, byte)| *place = *byte);
        secret
    }

    /// The bytes themselves: for the primitive that needs them, or the sealed store.
    pub fn expose(&self) -> &[u8; N] {
        &self.0.0
    }

    /// For whoever fills a fresh one. What is shared already stays as it is for the others.
    pub(crate) fn expose_mut(&mut self) -> &mut [u8; N] {
        &mut Arc::make_mut(&mut self.0).0
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
        equal(self.expose(), other.expose())
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
    fn changing_one_leaves_those_it_was_shared_with() {
        let first = Secret::copy_from(&[1; 4]);
        let mut second = first.clone();
        second.expose_mut()[0] = 2;
        assert_eq!((first.expose(), second.expose()), (&[1; 4], &[2, 1, 1, 1]));
    }

    #[test]
    fn taking_wipes_the_source() {
        let mut source = [9; 4];
        let secret = Secret::take(&mut source);
        assert_eq!((source, secret.expose()), ([0; 4], &[9; 4]));
        assert!(secret == Secret::copy_from(&[9; 4]) && secret != Secret::zero());
    }
}

//! X25519 (RFC 7748): key pairs and the one function that agrees on a secret.

use std::sync::OnceLock;

use x25519_dalek::{PublicKey, StaticSecret};

use super::error::{Error, NoRandom};
use super::rng::{self, Rng};
use super::secret::Secret;

/// An X25519 key pair. The private half is kept as the 32 bytes that were drawn (clamped in use).
#[derive(Clone, Debug)]
pub struct DhPair {
    private: Secret<32>,
    /// Computed when it is asked for first: that costs as much as all the rest of sealing a message, which
    /// names the same key until the other side answers.
    public: OnceLock<[u8; 32]>,
}

/// The private half says all.
impl PartialEq for DhPair {
    fn eq(&self, other: &Self) -> bool {
        self.private == other.private
    }
}

impl Eq for DhPair {}

impl DhPair {
    /// Draws a fresh pair.
    ///
    /// # Errors
    /// [`NoRandom`].
    pub fn draw(rng: &mut dyn Rng) -> Result<Self, NoRandom> {
        rng::secret(rng).map(Self::from_private)
    }

    /// The pair of a known private key.
    pub fn from_private(private: Secret<32>) -> Self {
        Self { private, public: OnceLock::new() }
    }

    /// The public half.
    pub fn public(&self) -> &[u8; 32] {
        self.public.get_or_init(|| PublicKey::from(&StaticSecret::from(*self.private.expose())).to_bytes())
    }

    /// The private half, for the sealed store.
    pub fn private(&self) -> &Secret<32> {
        &self.private
    }

    /// X25519 with a peer's public key.
    ///
    /// # Errors
    /// [`Error::LowOrder`] if the result is all zeros: the peer chose a point of small order, and
    /// the "secret" is known to everybody (RFC 7748 §6.1; RUSTSEC-2026-0072).
    pub(crate) fn agree(&self, theirs: &[u8; 32]) -> Result<Secret<32>, Error> {
        let shared = StaticSecret::from(*self.private.expose()).diffie_hellman(&PublicKey::from(*theirs));
        if !shared.was_contributory() && !cfg!(feature = "break-contributory") {
            return Err(Error::LowOrder);
        }
        Ok(Secret::copy_from(shared.as_bytes()))
    }
}

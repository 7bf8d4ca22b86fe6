//! Ed25519 (RFC 8032), always under a label: a signature by K under x is
//! `Ed25519(K, L"x" ‖ 00 ‖ body)`. Verification is strict: no small-order key, no second encoding.

use core::fmt;
use std::sync::OnceLock;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

use super::error::{Error, NoRandom};
use super::labels::Label;
use super::rng::{self, Rng};
use super::secret::Secret;

/// Bytes of a signature.
pub const SIGNATURE_LEN: usize = 64;

/// An Ed25519 signing key: an account's identity (AIK), a device's (DSK), or a sender chain's.
#[derive(Clone)]
pub struct SignKey {
    key: SigningKey,
}

impl SignKey {
    /// Draws a fresh key.
    ///
    /// # Errors
    /// [`NoRandom`].
    pub fn draw(rng: &mut dyn Rng) -> Result<Self, NoRandom> {
        rng::secret(rng).map(|seed| Self::from_seed(&seed))
    }

    /// The key of a 32-byte seed (RFC 8032 §5.1.5), as a paper copy or the store holds it.
    pub fn from_seed(seed: &Secret<32>) -> Self {
        Self { key: SigningKey::from_bytes(seed.expose()) }
    }

    /// The seed, for the sealed store or a paper copy.
    pub fn seed(&self) -> Secret<32> {
        Secret::copy_from(self.key.as_bytes())
    }

    /// The public half.
    pub fn public(&self) -> [u8; 32] {
        self.key.verifying_key().to_bytes()
    }

    pub(crate) fn sign(&self, label: Label, body: &[&[u8]]) -> [u8; SIGNATURE_LEN] {
        self.key.sign(&signed(label, body)).to_bytes()
    }
}

impl fmt::Debug for SignKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SignKey")
    }
}

/// `L"x" ‖ 00 ‖ body`, the body in parts, one behind the other.
fn signed(label: Label, body: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::with_capacity(label.nul().len() + body.iter().map(|part| part.len()).sum::<usize>());
    out.extend_from_slice(label.nul());
    body.iter().for_each(|part| out.extend_from_slice(part));
    out
}

/// Verifies a signature under a label.
pub(crate) fn verify(public: &[u8; 32], label: Label, body: &[u8], sig: &[u8; SIGNATURE_LEN]) -> Result<(), Error> {
    PublicKey::new(*public).verify(label, &[body], sig)
}

/// A public key that many signatures are verified under: its point is computed once.
#[derive(Clone)]
pub(crate) struct PublicKey {
    bytes: [u8; 32],
    /// `None` inside: the bytes are no point.
    key: OnceLock<Option<VerifyingKey>>,
}

impl PublicKey {
    pub(crate) fn new(bytes: [u8; 32]) -> Self {
        Self { bytes, key: OnceLock::new() }
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// Verifies a signature under a label; the body in parts, one behind the other.
    pub(crate) fn verify(&self, label: Label, body: &[&[u8]], sig: &[u8; SIGNATURE_LEN]) -> Result<(), Error> {
        let key =
            self.key.get_or_init(|| VerifyingKey::from_bytes(&self.bytes).ok()).as_ref().ok_or(Error::Signature)?;
        key.verify_strict(&signed(label, body), &Signature::from_bytes(sig)).map_err(|_| Error::Signature)
    }
}

/// The bytes say all.
impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for PublicKey {}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PublicKey")
    }
}

//! The keys of an open store: what seals its rows, and what makes look-ups by a name possible without
//! the name standing in the file.

use downstream::e2e::error::Damaged;
use downstream::e2e::keyslot::{Dek, Place};
use downstream::e2e::rng::Rng;
use downstream::e2e::secret::Secret;
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::StoreError;

/// HKDF info of the look-up key. The row keys of the same DEK begin with the protocol's name.
const LOOK_UP: &[u8] = b"dsc look-up";

/// The version of what is inside the rows. It is authenticated with each of them.
const ROW_VERSION: u32 = 1;

/// Bytes of a [`Tag`] of a thing: 128 bits, so that no two things that a store will ever see share one.
const TAG_LEN: usize = 16;

/// A keyed hash by which a row is found. Who has the file but not the key learns from two equal tags
/// that two rows are about one thing, and there are no two such rows.
pub(super) type Tag = [u8; TAG_LEN];

/// Randomness of the operating system.
pub struct OsRandom;

impl Rng for OsRandom {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), downstream::e2e::error::NoRandom> {
        getrandom::fill(out).map_err(|_| downstream::e2e::error::NoRandom)
    }
}

/// The keys of an open store, in memory only.
pub(super) struct Vault {
    dek: Dek,
    /// As long as a block of the hash, so that it is used as it is.
    look_up: Secret<64>,
}

impl Vault {
    pub(super) fn new(dek: Dek) -> Vault {
        let mut look_up = [0; 64];
        let expanded = Hkdf::<Sha256>::new(None, dek.bytes().expose()).expand(LOOK_UP, &mut look_up);
        debug_assert!(expanded.is_ok(), "two blocks of at most 255");
        Vault { dek, look_up: Secret::take(&mut look_up) }
    }

    pub(super) fn dek(&self) -> &Dek {
        &self.dek
    }

    /// Seals a row for its place.
    pub(super) fn seal(&self, table: &str, id: i64, plain: &[u8]) -> Result<Vec<u8>, StoreError> {
        Ok(self.dek.seal_row(&place(table, id), plain, &mut OsRandom)?)
    }

    /// Opens a row that stands in its place.
    pub(super) fn open(&self, table: &str, id: i64, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        self.dek
            .open_row(&place(table, id), sealed)
            .map_err(|Damaged| StoreError::damaged(format!("row {id} of {table} is not what was written there")))
    }

    /// The tag of a thing of a kind.
    pub(super) fn tag(&self, kind: &str, parts: &[&[u8]]) -> Tag {
        let mut mac = <Hmac<Sha256> as KeyInit>::new(self.look_up.expose().into());
        for part in [kind.as_bytes()].iter().chain(parts) {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        let whole: [u8; 32] = mac.finalize().into_bytes().into();
        let mut tag = [0; TAG_LEN];
        tag.iter_mut().zip(whole).for_each(|(place, byte)| *place = byte);
        tag
    }
}

fn place(table: &str, id: i64) -> Place<'_> {
    // Ids are those that SQLite gives, from 1; another stands for itself all the same.
    Place { table, rowid: id.cast_unsigned(), schema_version: ROW_VERSION }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_tell_kinds_parts_and_stores_apart() {
        let vault = |n| Vault::new(Dek::from_bytes(Secret::copy_from(&[n; 32])));
        let (one, two) = (vault(1), vault(2));
        let tags = [
            one.tag("mark", &[b"ab", b"c"]),
            one.tag("mark", &[b"a", b"bc"]),
            one.tag("mark", &[b"abc"]),
            one.tag("mark", &[b"abc", b""]),
            one.tag("message", &[b"abc"]),
            one.tag("", &[b"mark", b"abc"]),
            two.tag("mark", &[b"abc"]),
        ];
        for (at, tag) in tags.iter().enumerate() {
            assert!(!tags[..at].contains(tag), "{at}");
        }
        assert_eq!(one.tag("mark", &[b"abc"]), vault(1).tag("mark", &[b"abc"]));
        assert_ne!(one.look_up.expose()[..32], one.dek.bytes().expose()[..]);
    }
}

//! The device list (DL): an account's identity key says "these devices, and no others, are mine".
//!
//! ```text
//! 0 1 01   1 1 11   2 1 ulen   3 ulen user
//! then list_version 4 (from 1)   prev 32   n 1 (1..16)   n × H(DC), strictly ascending   sig 64 by AIK
//! ```

use super::cert::CertHash;
use super::error::Error;
use super::kdf;
use super::labels;
use super::name::User;
use super::sign::{self, SIGNATURE_LEN, SignKey};
use super::wire::{Malformed, Put, Reader};

/// The most devices of one account: it bounds the slots of an envelope and the signals that a room
/// costs.
pub const DEVICES_MAX: usize = 16;

const VERSION: u8 = 1;
const TYPE: u8 = 0x11;
const LABEL: labels::Label = labels::DEVICE_LIST;

/// A device list in its form. [`DeviceList::verify`] is the way in for received bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceList {
    raw: Vec<u8>,
    user: User,
    version: u32,
    prev: [u8; 32],
    certs: Vec<CertHash>,
}

impl DeviceList {
    /// Signs the list that follows `previous` (the first one without it). The hashes may come in any
    /// order.
    ///
    /// # Errors
    /// [`Malformed`] unless there are 1 to 16 different hashes and the version can go up.
    pub fn issue(aik: &SignKey, user: &User, previous: Option<&Self>, certs: &[CertHash]) -> Result<Self, Malformed> {
        let (version, prev) = match previous {
            None => (1, [0; 32]),
            Some(list) => (list.version.checked_add(1).ok_or(Malformed)?, list.hash()),
        };
        let mut certs = certs.to_vec();
        certs.sort_unstable();
        let mut raw = vec![VERSION, TYPE];
        raw.put_short(user.as_bytes()).put_u32(version).put(&prev);
        raw.put_u8(u8::try_from(certs.len()).map_err(|_| Malformed)?);
        certs.iter().for_each(|hash| {
            raw.put(hash);
        });
        let sig = aik.sign(LABEL, &[&raw]);
        raw.put(&sig);
        Self::parse(&raw)
    }

    /// Parses a list and verifies that it is `user`'s, signed by `aik`.
    ///
    /// # Errors
    /// [`Error::Syntax`], [`Error::Identity`] for another user's list, [`Error::Signature`].
    pub fn verify(raw: &[u8], user: &User, aik: &[u8; 32]) -> Result<Self, Error> {
        let list = Self::parse(raw)?;
        if list.user != *user {
            return Err(Error::Identity);
        }
        let (body, sig) = raw.split_last_chunk::<SIGNATURE_LEN>().ok_or(Error::Syntax)?;
        sign::verify(aik, LABEL, body, sig)?;
        Ok(list)
    }

    /// The form alone.
    pub(crate) fn parse(raw: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(raw);
        r.expect_bytes(&[VERSION, TYPE])?;
        let user = User::parse(r.short_str()?)?;
        let (version, prev) = (r.u32()?, r.array()?);
        let n = usize::from(r.u8()?);
        if version == 0 || !(1..=DEVICES_MAX).contains(&n) || (version == 1 && prev != [0; 32]) {
            return Err(Malformed);
        }
        let certs = (0..n).map(|_| r.array()).collect::<Result<Vec<CertHash>, _>>()?;
        r.take(SIGNATURE_LEN)?;
        r.end()?;
        if !certs.is_sorted_by(|a, b| a < b) {
            return Err(Malformed);
        }
        Ok(Self { raw: raw.to_vec(), user, version, prev, certs })
    }

    /// The bytes as received or made.
    pub fn bytes(&self) -> &[u8] {
        &self.raw
    }

    /// H(DL).
    pub fn hash(&self) -> [u8; 32] {
        kdf::hash(&[&self.raw])
    }

    /// Whose list it is.
    pub fn user(&self) -> &User {
        &self.user
    }

    /// Its number, from 1.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// H of the list before; zeros in version 1.
    pub fn prev(&self) -> &[u8; 32] {
        &self.prev
    }

    /// The listed certificates, ascending.
    pub fn certs(&self) -> &[CertHash] {
        &self.certs
    }

    /// Whether this certificate is listed.
    pub fn lists(&self, cert: &CertHash) -> bool {
        self.certs.binary_search(cert).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::e2e::testing::alice;

    #[test]
    fn a_list_is_one_of_a_chain() {
        let a = alice();
        let user = &a.me.address().user;
        let first = DeviceList::issue(&a.aik, user, None, &[[2; 32], [1; 32]]).unwrap();
        assert_eq!((first.version(), first.prev(), first.certs()), (1, &[0; 32], &[[1; 32], [2; 32]][..]));
        let second = DeviceList::issue(&a.aik, user, Some(&first), &[[3; 32]]).unwrap();
        assert_eq!((second.version(), second.prev()), (2, &first.hash()));
        assert_eq!(DeviceList::verify(second.bytes(), user, &a.aik.public()), Ok(second.clone()));
        let bob = User::parse("bob").unwrap();
        assert_eq!(DeviceList::verify(second.bytes(), &bob, &a.aik.public()), Err(Error::Identity));
        assert_eq!(DeviceList::verify(second.bytes(), user, &[7; 32]), Err(Error::Signature));
    }

    #[test]
    fn count_order_and_duplicates_are_checked() {
        let a = alice();
        let issue = |certs: &[CertHash]| DeviceList::issue(&a.aik, &a.me.address().user, None, certs);
        assert!(issue(&[]).is_err() && issue(&[[1; 32], [1; 32]]).is_err());
        let many: Vec<_> = (0..17).map(|i| [i; 32]).collect();
        assert!(issue(&many[..16]).is_ok() && issue(&many).is_err());
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_refused() {
        let a = alice();
        let (user, raw) = (a.me.address().user.clone(), a.list.bytes().to_vec());
        let verify = |raw: &[u8]| DeviceList::verify(raw, &user, &a.aik.public());
        assert!(verify(&raw).is_ok());
        for bit in 0..raw.len() * 8 {
            let mut bad = raw.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(verify(&bad).is_err(), "bit {bit}");
        }
        for n in 0..raw.len() {
            assert_eq!(verify(&raw[..n]), Err(Error::Syntax));
        }
    }
}

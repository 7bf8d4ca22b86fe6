//! The device certificate (DC): an account's identity key says "this device is mine".
//!
//! ```text
//! 0 1 01   1 1 10   2 1 ulen (1..32)   3 ulen user
//! then device_id 16   AIK 32   DSK 32   DIK 32   not_before 8   not_after 8   sig 64 by AIK
//! ```

use super::error::Error;
use super::kdf;
use super::labels;
use super::name::{Address, DeviceId, Party, User};
use super::sign::{self, SIGNATURE_LEN, SignKey};
use super::time::{DAY, Now};
use super::wire::{Malformed, Put, Reader};

/// The longest life of a certificate, in seconds: a first contact can be shown an old device list
/// only until the certificates on it expire.
pub const LIFE_MAX: u64 = 400 * DAY;

/// How far a clock may run behind the signer's, in seconds.
pub(crate) const CLOCK_SLACK: u64 = DAY;

const VERSION: u8 = 1;
const TYPE: u8 = 0x10;
const LABEL: labels::Label = labels::DEVICE_CERT;

/// H(DC): over all its bytes, the signature included.
pub type CertHash = [u8; 32];

/// A certificate whose signature by the AIK it names was verified. That this AIK is the account's
/// is the pin's business, and that the device is still listed the device list's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    raw: Vec<u8>,
    party: Party,
    dsk: [u8; 32],
    not_before: u64,
    not_after: u64,
}

impl Certificate {
    /// Signs a certificate for a device.
    ///
    /// # Errors
    /// [`Malformed`] unless `not_before <= not_after <= not_before + 400 days` (Unix seconds).
    pub fn issue(
        aik: &SignKey,
        address: &Address,
        dsk: &[u8; 32],
        dik: &[u8; 32],
        not_before: u64,
        not_after: u64,
    ) -> Result<Self, Malformed> {
        let mut raw = vec![VERSION, TYPE];
        raw.put_short(address.user.as_bytes()).put(&address.device.0);
        raw.put(&aik.public()).put(dsk).put(dik).put_u64(not_before).put_u64(not_after);
        let sig = aik.sign(LABEL, &[&raw]);
        raw.put(&sig);
        Self::parse(&raw)
    }

    /// Parses a certificate and verifies its signature.
    ///
    /// # Errors
    /// [`Error::Syntax`], or [`Error::Signature`].
    pub fn verify(raw: &[u8]) -> Result<Self, Error> {
        let cert = Self::parse(raw)?;
        let (body, sig) = raw.split_last_chunk::<SIGNATURE_LEN>().ok_or(Error::Syntax)?;
        sign::verify(&cert.party.aik, LABEL, body, sig)?;
        Ok(cert)
    }

    /// The form alone: for bytes that were verified before they came into our own store.
    pub(crate) fn parse(raw: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(raw);
        r.expect_bytes(&[VERSION, TYPE])?;
        let user = User::parse(r.short_str()?)?;
        let device = DeviceId(r.array()?);
        let (aik, dsk, dik) = (r.array()?, r.array()?, r.array()?);
        let (not_before, not_after) = (r.u64()?, r.u64()?);
        r.take(SIGNATURE_LEN)?;
        r.end()?;
        let life = not_after.checked_sub(not_before).ok_or(Malformed)?;
        if life > LIFE_MAX {
            return Err(Malformed);
        }
        let party = Party { address: Address { user, device }, aik, dik };
        Ok(Self { raw: raw.to_vec(), party, dsk, not_before, not_after })
    }

    /// The bytes as received or made.
    pub fn bytes(&self) -> &[u8] {
        &self.raw
    }

    /// H(DC).
    pub fn hash(&self) -> CertHash {
        kdf::hash(&[&self.raw])
    }

    /// Account, device and identity keys.
    pub fn party(&self) -> &Party {
        &self.party
    }

    /// Account and device.
    pub fn address(&self) -> &Address {
        &self.party.address
    }

    /// The account's identity key.
    pub fn aik(&self) -> &[u8; 32] {
        &self.party.aik
    }

    /// The device's signing key.
    pub fn dsk(&self) -> &[u8; 32] {
        &self.dsk
    }

    /// The device's identity key for key agreement.
    pub fn dik(&self) -> &[u8; 32] {
        &self.party.dik
    }

    /// The first second of its life, and the first after it.
    pub fn life(&self) -> (u64, u64) {
        (self.not_before, self.not_after)
    }

    /// Whether `now` is in [not_before − 1 day, not_after).
    pub fn in_time(&self, now: Now) -> bool {
        (self.not_before.saturating_sub(CLOCK_SLACK)..self.not_after).contains(&now.secs())
    }

    /// The seconds around `now`, the first one and the first one after them, in which [`Certificate::in_time`] says the
    /// same.
    pub(crate) fn steady(&self, now: Now) -> (u64, u64) {
        let turns = [self.not_before.saturating_sub(CLOCK_SLACK), self.not_after];
        let past = turns.into_iter().filter(|at| *at <= now.secs()).max();
        let ahead = turns.into_iter().filter(|at| *at > now.secs()).min();
        (past.unwrap_or(0), ahead.unwrap_or(u64::MAX))
    }

    /// Whether this is the other's device still, only certified anew.
    pub(crate) fn same_device(&self, other: &Self) -> bool {
        self.party == other.party && self.dsk == other.dsk
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::e2e::armour::hex;
    use crate::e2e::testing::{alice, bob};

    #[test]
    fn matches_the_worked_example() {
        let (a, b) = (hex(&alice().me.cert().hash()), hex(&bob().me.cert().hash()));
        assert!(a.starts_with("d761f331") && a.ends_with("6b893f"), "{a}");
        assert!(b.starts_with("dcd37ab5") && b.ends_with("3d7477"), "{b}");
        assert_eq!(alice().me.cert().bytes().len(), 200);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_refused() {
        let raw = alice().me.cert().bytes().to_vec();
        assert!(Certificate::verify(&raw).is_ok());
        for bit in 0..raw.len() * 8 {
            let mut bad = raw.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Certificate::verify(&bad).is_err(), "bit {bit}");
        }
        for n in 0..raw.len() {
            assert_eq!(Certificate::verify(&raw[..n]), Err(Error::Syntax));
        }
        assert_eq!(Certificate::verify(&[&raw[..], &[0]].concat()), Err(Error::Syntax));
    }

    #[test]
    fn its_time_has_a_day_of_slack_in_front_and_none_behind() {
        let cert = alice().me.cert().clone();
        let (from, to) = cert.life();
        assert!(cert.in_time(Now::from_secs(from - DAY)) && !cert.in_time(Now::from_secs(from - DAY - 1)));
        assert!(cert.in_time(Now::from_secs(to - 1)) && !cert.in_time(Now::from_secs(to)));
        for at in [0, from - DAY - 1, from - DAY, from, to - 1, to, to + 1].map(Now::from_secs) {
            let (first, after) = cert.steady(at);
            assert!((first..after).contains(&at.secs()));
            assert_eq!([first, after - 1].map(|at| cert.in_time(Now::from_secs(at))), [cert.in_time(at); 2]);
        }
        let me = alice();
        let issue = |life| Certificate::issue(&me.aik, cert.address(), cert.dsk(), cert.dik(), 10, 10 + life);
        assert!(issue(LIFE_MAX).is_ok() && issue(LIFE_MAX + 1).is_err());
        assert!(Certificate::issue(&me.aik, cert.address(), cert.dsk(), cert.dik(), 10, 9).is_err());
    }
}

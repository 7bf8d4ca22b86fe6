//! This device: its name, its private keys, and the certificates it was given.

use zeroize::Zeroizing;

use super::cert::{CertHash, Certificate};
use super::dh::DhPair;
use super::error::{Damaged, Error, NoRandom};
use super::name::{Address, DeviceId, Party, User};
use super::rng::{self, Rng};
use super::sign::SignKey;
use super::wire::{Put, Reader};

const ROW_VERSION: u8 = 1;

/// Certificates kept beside the newest, for handshakes over prekeys that were signed under them.
/// Prekeys outlive their certificate by 37 days at most, so more than a few is a runaway client.
const OLDER_MAX: usize = 15;

/// The keys of a device that has no certificate yet: what a certificate is then issued for.
#[derive(Clone, Debug)]
pub struct DeviceKeys {
    /// Account and device.
    pub address: Address,
    /// Signs prekeys and roster entries.
    pub dsk: SignKey,
    /// The device's part in every key agreement.
    pub dik: DhPair,
}

impl DeviceKeys {
    /// Draws a device id and both keys.
    ///
    /// # Errors
    /// [`NoRandom`].
    pub fn draw(user: &User, rng: &mut dyn Rng) -> Result<Self, NoRandom> {
        let device = DeviceId(rng::bytes(rng)?);
        let address = Address { user: user.clone(), device };
        Ok(Self { address, dsk: SignKey::draw(rng)?, dik: DhPair::draw(rng)? })
    }

    /// The device with its first certificate.
    ///
    /// # Errors
    /// [`Error::Identity`] if the certificate is for other keys.
    pub fn certified(self, cert: Certificate) -> Result<Identity, Error> {
        self.check(&cert)?;
        Ok(Identity { keys: self, cert, older: Vec::new() })
    }

    fn check(&self, cert: &Certificate) -> Result<(), Error> {
        let ours =
            *cert.address() == self.address && *cert.dsk() == self.dsk.public() && cert.dik() == self.dik.public();
        if ours { Ok(()) } else { Err(Error::Identity) }
    }
}

/// A certified device. One row of the store.
#[derive(Clone, Debug)]
pub struct Identity {
    keys: DeviceKeys,
    cert: Certificate,
    /// Certificates before, newest first: prekeys signed under them may still be out.
    older: Vec<Certificate>,
}

impl Identity {
    /// The device with a newer certificate for the same keys.
    ///
    /// # Errors
    /// [`Error::Identity`] if the certificate is for other keys or another account identity.
    pub fn renewed(&self, cert: Certificate) -> Result<Self, Error> {
        self.keys.check(&cert)?;
        if cert.aik() != self.aik() {
            return Err(Error::Identity);
        }
        let mut older: Vec<_> =
            std::iter::once(&self.cert).chain(&self.older).filter(|known| **known != cert).cloned().collect();
        older.truncate(OLDER_MAX);
        Ok(Self { keys: self.keys.clone(), cert, older })
    }

    /// Account and device.
    pub fn address(&self) -> &Address {
        &self.keys.address
    }

    /// The account.
    pub fn user(&self) -> &User {
        &self.keys.address.user
    }

    /// The certificate in use: the newest.
    pub fn cert(&self) -> &Certificate {
        &self.cert
    }

    /// An own certificate by its hash, current or not.
    pub(crate) fn cert_of(&self, hash: &CertHash) -> Option<&Certificate> {
        std::iter::once(&self.cert).chain(&self.older).find(|cert| cert.hash() == *hash)
    }

    /// What a session's associated data binds of us.
    pub fn party(&self) -> &Party {
        self.cert().party()
    }

    /// The account's identity key.
    pub fn aik(&self) -> &[u8; 32] {
        self.cert().aik()
    }

    /// The signing key.
    pub fn dsk(&self) -> &SignKey {
        &self.keys.dsk
    }

    /// The key agreement pair.
    pub fn dik(&self) -> &DhPair {
        &self.keys.dik
    }

    /// The row.
    pub fn to_row(&self) -> Zeroizing<Vec<u8>> {
        let DeviceKeys { address, dsk, dik } = &self.keys;
        let mut row = Zeroizing::new(Vec::with_capacity(4096));
        row.put_u8(ROW_VERSION).put_short(address.user.as_bytes()).put(&address.device.0);
        row.put(dsk.seed().expose()).put(dik.private().expose());
        row.put_lp(self.cert.bytes()).put_count(self.older.len());
        self.older.iter().for_each(|cert| {
            row.put_lp(cert.bytes());
        });
        row
    }

    /// Reads a row.
    ///
    /// # Errors
    /// [`Damaged`].
    pub fn from_row(row: &[u8]) -> Result<Self, Damaged> {
        let mut r = Reader::new(row);
        r.expect_bytes(&[ROW_VERSION])?;
        let user = User::parse(r.short_str()?)?;
        let address = Address { user, device: DeviceId(r.array()?) };
        let dsk = SignKey::from_seed(&r.secret()?);
        let dik = DhPair::from_private(r.secret()?);
        let cert = Certificate::parse(r.lp()?)?;
        let older = (0..r.u32()?).map(|_| Certificate::parse(r.lp()?)).collect::<Result<_, _>>()?;
        r.end()?;
        Ok(Self { keys: DeviceKeys { address, dsk, dik }, cert, older })
    }
}

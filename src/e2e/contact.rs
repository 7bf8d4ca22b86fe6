//! What is known of an account, and the rules by which that may change: the pins.
//!
//! `unknown → unverified (trust on first use) → verified`; any other identity key for that name is
//! refused. Device lists are accepted only under the pinned key and only forward, so a server that
//! shows two lists, or an old one, is caught.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::cert::Certificate;
use super::device_list::{DEVICES_MAX, DeviceList};
use super::error::{Damaged, Error};
use super::name::{DeviceId, User};
use super::time::Now;
use super::wire::{Put, Reader};

const ROW_VERSION: u8 = 1;

/// An account as this device knows it. Plain data, one row of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    user: User,
    aik: [u8; 32],
    verified: bool,
    list: Option<DeviceList>,
    /// Certificates that `list` names; one may be missing if the server withheld it.
    certs: Vec<Certificate>,
    /// The newest list version that the account's own messages have spoken of.
    claimed: u32,
}

/// The contacts, by their user: a map that tells when it may have changed.
#[derive(Clone, Debug, Default)]
pub struct Contacts {
    map: BTreeMap<User, Contact>,
    version: Version,
}

/// Stands for what the contacts are at a moment. Equal ones are of equal contacts: one goes along with copies, and
/// whoever may change the map gets it with a new one if the old one is held anywhere else.
#[derive(Clone, Debug, Default)]
pub(crate) struct Version(Arc<u8>);

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Contacts {
    pub(crate) fn version(&self) -> &Version {
        &self.version
    }
}

impl From<BTreeMap<User, Contact>> for Contacts {
    fn from(map: BTreeMap<User, Contact>) -> Self {
        Self { map, version: Version::default() }
    }
}

impl Deref for Contacts {
    type Target = BTreeMap<User, Contact>;

    fn deref(&self) -> &Self::Target {
        &self.map
    }
}

impl DerefMut for Contacts {
    fn deref_mut(&mut self) -> &mut Self::Target {
        // Nobody else holds it: then nobody can compare it with what comes.
        if Arc::get_mut(&mut self.version.0).is_none() {
            self.version = Version::default();
        }
        &mut self.map
    }
}

/// Why keys from the directory are not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// A structure that does not hold by itself.
    #[error("a certificate or list is refused: {0}")]
    Refused(Error),
    /// The account shows another identity key than the pinned one: alarm.
    #[error("the identity has changed")]
    Changed,
    /// A device list that is older than the pinned one, or beside it: alarm.
    #[error("the server shows two device lists")]
    Equivocation,
    /// One device id stands for two listed devices: alarm.
    #[error("a device is listed twice")]
    DuplicateDevice,
}

impl From<Error> for ListError {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

/// What a new list changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListChange {
    /// Devices that were not known before: each prints a notice once.
    pub added: Vec<DeviceId>,
    /// Devices that are listed no more: their sessions are erased, their sender chains closed.
    pub dropped: Vec<DeviceId>,
    /// How many listed certificates the directory did not show.
    pub missing: usize,
}

impl Contact {
    /// First contact: pins the identity key that the listed certificates carry, unverified.
    ///
    /// # Errors
    /// [`ListError::Refused`] if list or certificates do not hold together.
    pub fn first(user: &User, list: &[u8], certs: &[&[u8]]) -> Result<(Self, ListChange), ListError> {
        let shown = DeviceList::parse(list).map_err(Error::from)?;
        let listed = certs
            .iter()
            .filter_map(|raw| Certificate::verify(raw).ok())
            .find(|cert| shown.lists(&cert.hash()) && cert.address().user == *user)
            .ok_or(Error::UnlistedDevice)?;
        Self::pinned(user, *listed.aik()).learn(list, certs)
    }

    /// Pins an identity key without a list: at first contact without a network, and when a linked
    /// device is handed its account's pins.
    pub fn pinned(user: &User, aik: [u8; 32]) -> Self {
        Self { user: user.clone(), aik, verified: false, list: None, certs: Vec::new(), claimed: 0 }
    }

    /// Takes in a device list and the certificates shown with it. Certificates that the list does not
    /// name are passed over. The same list again may bring certificates that were missing.
    ///
    /// # Errors
    /// [`ListError`]; the contact stays as it is.
    pub fn learn(&self, list: &[u8], certs: &[&[u8]]) -> Result<(Self, ListChange), ListError> {
        let list = DeviceList::verify(list, &self.user, &self.aik).map_err(|e| self.blame(e, certs))?;
        if let Some(pinned) = &self.list {
            let follows = Some(list.version()) == pinned.version().checked_add(1);
            let forward = list.version() > pinned.version() && (!follows || *list.prev() == pinned.hash());
            if !forward && list != *pinned {
                return Err(ListError::Equivocation);
            }
        }
        let mut known: Vec<Certificate> = Vec::new();
        for raw in certs.iter().copied().chain(self.certs.iter().map(Certificate::bytes)) {
            let Ok(cert) = Certificate::parse(raw) else { continue };
            if !list.lists(&cert.hash()) || known.contains(&cert) {
                continue;
            }
            let cert = Certificate::verify(raw)?;
            if cert.address().user != self.user || *cert.aik() != self.aik {
                return Err(Error::Identity.into());
            }
            if known.iter().any(|k| k.address() == cert.address()) {
                return Err(ListError::DuplicateDevice);
            }
            known.push(cert);
        }
        known.sort_by_key(|cert| cert.address().device);
        let gone = |from: &[Certificate], to: &[Certificate]| -> Vec<DeviceId> {
            from.iter().filter(|c| !to.iter().any(|k| k.same_device(c))).map(|c| c.address().device).collect()
        };
        let change = ListChange {
            added: gone(&known, &self.certs),
            dropped: gone(&self.certs, &known),
            missing: list.certs().len() - known.len(),
        };
        Ok((Self { list: Some(list), certs: known, ..self.clone() }, change))
    }

    /// A list that fails under the pinned key: another identity, if the certificates beside it agree
    /// on one.
    fn blame(&self, error: Error, certs: &[&[u8]]) -> ListError {
        let other = certs
            .iter()
            .filter_map(|raw| Certificate::verify(raw).ok())
            .any(|cert| cert.address().user == self.user && *cert.aik() != self.aik);
        if other { ListError::Changed } else { ListError::Refused(error) }
    }

    /// The account.
    pub fn user(&self) -> &User {
        &self.user
    }

    /// The pinned identity key.
    pub fn aik(&self) -> &[u8; 32] {
        &self.aik
    }

    /// Whether a person has compared the safety number.
    pub fn verified(&self) -> bool {
        self.verified
    }

    /// Records that a person has compared the safety number (or takes it back).
    pub fn set_verified(&mut self, verified: bool) {
        self.verified = verified;
    }

    /// The newest accepted list.
    pub fn list(&self) -> Option<&DeviceList> {
        self.list.as_ref()
    }

    /// The version of the newest accepted list, 0 without one.
    pub fn list_version(&self) -> u32 {
        self.list.as_ref().map_or(0, DeviceList::version)
    }

    /// The certificates that the list names, whatever the time.
    pub fn certs(&self) -> &[Certificate] {
        &self.certs
    }

    /// The devices that may be sealed to: listed, and in their time.
    pub fn current(&self, now: Now) -> impl Iterator<Item = &Certificate> {
        self.certs.iter().filter(move |cert| cert.in_time(now))
    }

    /// The certificate of a listed device.
    pub fn device(&self, device: DeviceId) -> Option<&Certificate> {
        self.certs.iter().find(|cert| cert.address().device == device)
    }

    /// Whether a certificate is *current*: under the pinned key, in the newest list, and in its time.
    /// Without a list (first contact without a network) there is nothing to be missing from.
    ///
    /// # Errors
    /// [`Error::Identity`] or [`Error::UnlistedDevice`].
    pub(crate) fn check_current(&self, cert: &Certificate, now: Now) -> Result<(), Error> {
        if (cert.address().user != self.user || *cert.aik() != self.aik) && !cfg!(feature = "break-pin") {
            return Err(Error::Identity);
        }
        let listed = |list: &DeviceList| list.lists(&cert.hash()) || cfg!(feature = "break-unlisted");
        if self.list.as_ref().is_none_or(listed) && cert.in_time(now) { Ok(()) } else { Err(Error::UnlistedDevice) }
    }

    /// Whether no message of this account spoke of so new a list before.
    pub(crate) fn is_news(&self, version: u32) -> bool {
        version > self.claimed
    }

    /// Notes the list version that a message of this account speaks of.
    pub(crate) fn claim(&mut self, version: u32) {
        self.claimed = self.claimed.max(version);
    }

    /// Whether a list must be fetched before anything is sealed to this account: there is none, or
    /// its own messages speak of a newer one (a server that freezes the list is exposed so).
    pub fn needs_list(&self) -> bool {
        self.list.is_none() || self.claimed > self.list_version()
    }

    /// The row.
    pub fn to_row(&self) -> Vec<u8> {
        let mut row = vec![ROW_VERSION];
        row.put_short(self.user.as_bytes()).put(&self.aik).put_bool(self.verified).put_u32(self.claimed);
        row.put_lp(self.list.as_ref().map_or(&[], DeviceList::bytes)).put_count(self.certs.len());
        self.certs.iter().for_each(|cert| {
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
        let (aik, verified, claimed) = (r.array()?, r.bool()?, r.u32()?);
        let list = match r.lp()? {
            [] => None,
            raw => Some(DeviceList::parse(raw)?),
        };
        let n = r.u32()? as usize;
        if n > DEVICES_MAX {
            return Err(Damaged);
        }
        let certs = (0..n).map(|_| Certificate::parse(r.lp()?)).collect::<Result<_, _>>()?;
        r.end()?;
        Ok(Self { user, aik, verified, list, certs, claimed })
    }
}

//! Prekeys as the world sees them: single keys, the bundle that the server assembles, and the
//! records of `/keys put`.
//!
//! A key is `u32 id ‖ u64 created ‖ public ‖ sig`, signed by the device's DSK over
//! `label ‖ 00 ‖ H(DC) ‖ id ‖ created ‖ public`. Every kind has its own label, so one kind cannot be
//! served as another, and H(DC) ties each to the certificate it was made under.

use super::cert::{CertHash, Certificate};
use super::contact::Contact;
use super::device_list::DeviceList;
use super::error::Error;
use super::kem;
use super::labels::{self, Label};
use super::name::DeviceId;
use super::sign::{self, SIGNATURE_LEN, SignKey};
use super::time::{DAY, Now};
use super::wire::{Malformed, Put, Reader};

/// The id that means "none".
pub(crate) const NO_ID: u32 = u32::MAX;

/// A replaceable key older than this is refused, in seconds: its device is gone, or the server
/// serves a stale bundle.
pub(crate) const STALE: u64 = 30 * DAY;

/// How far ahead of our clock a key may have been created, in seconds.
pub(crate) const AHEAD: u64 = DAY;

/// Which of a device's prekeys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// The signed prekey (X25519), replaced every week.
    Spk,
    /// A one-time prekey (X25519).
    Opk,
    /// A one-time ML-KEM-768 key.
    Pqk,
    /// The ML-KEM-768 key of last resort, replaced with the signed prekey.
    PqkLast,
}

impl KeyKind {
    fn label(self) -> Label {
        match self {
            Self::Spk => labels::SPK,
            Self::Opk if cfg!(feature = "break-prekey-label") => Self::Spk.label(),
            Self::Opk => labels::OPK,
            Self::Pqk => labels::PQK,
            Self::PqkLast => labels::PQK_LAST,
        }
    }

    /// Bytes of the public key.
    pub fn public_len(self) -> usize {
        match self {
            Self::Spk | Self::Opk => 32,
            Self::Pqk | Self::PqkLast => kem::PUBLIC_LEN,
        }
    }

    /// Bytes of the whole key: 108 for X25519, 1260 for ML-KEM.
    pub fn key_len(self) -> usize {
        4 + 8 + self.public_len() + SIGNATURE_LEN
    }
}

/// A signed public prekey.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    /// From one counter a device, over all kinds, from 1.
    pub id: u32,
    /// Unix seconds.
    pub created: u64,
    /// The bare public key.
    pub public: Vec<u8>,
    sig: [u8; SIGNATURE_LEN],
}

impl PublicKey {
    pub(crate) fn sign(kind: KeyKind, dsk: &SignKey, dc: &CertHash, id: u32, created: u64, public: Vec<u8>) -> Self {
        let sig = dsk.sign(kind.label(), &[&signed_part(dc, id, created, &public)]);
        Self { id, created, public, sig }
    }

    fn verify(&self, kind: KeyKind, cert: &Certificate) -> Result<(), Error> {
        let body = signed_part(&cert.hash(), self.id, self.created, &self.public);
        sign::verify(cert.dsk(), kind.label(), &body, &self.sig)
    }

    fn read(kind: KeyKind, r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (id, created) = (r.u32()?, r.u64()?);
        if id == 0 || id == NO_ID {
            return Err(Malformed);
        }
        let public = r.take(kind.public_len())?.to_vec();
        Ok(Self { id, created, public, sig: r.array()? })
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.put_u32(self.id).put_u64(self.created).put(&self.public).put(&self.sig);
    }

    fn fresh(&self, now: Now) -> bool {
        now.since(self.created) <= STALE && self.created <= now.secs().saturating_add(AHEAD)
    }
}

fn signed_part(dc: &CertHash, id: u32, created: u64, public: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(44 + public.len());
    body.put(dc).put_u32(id).put_u64(created).put(public);
    body
}

/// What starts a session with one device: all of it verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    cert: Certificate,
    spk: PublicKey,
    opk: Option<PublicKey>,
    pq_kind: KeyKind,
    pqk: PublicKey,
}

impl Bundle {
    /// Parses and verifies a bundle of a device of `contact`: the certificate is current, every key
    /// is signed under it and its own label, and the replaceable keys are fresh.
    ///
    /// # Errors
    /// [`Error::Syntax`], [`Error::Signature`], [`Error::Identity`], [`Error::UnlistedDevice`], or
    /// [`Error::Clock`] for a stale key.
    pub fn verify(raw: &[u8], contact: &Contact, now: Now) -> Result<Self, Error> {
        let bundle = Self::parse(raw)?;
        Certificate::verify(bundle.cert.bytes())?;
        contact.check_current(&bundle.cert, now)?;
        bundle.spk.verify(KeyKind::Spk, &bundle.cert)?;
        if let Some(opk) = &bundle.opk {
            opk.verify(KeyKind::Opk, &bundle.cert)?;
        }
        bundle.pqk.verify(bundle.pq_kind, &bundle.cert)?;
        if !bundle.spk.fresh(now) || (bundle.pq_kind == KeyKind::PqkLast && !bundle.pqk.fresh(now)) {
            return Err(Error::Clock);
        }
        Ok(bundle)
    }

    /// The form alone.
    fn parse(raw: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(raw);
        let cert = Certificate::parse(r.lp()?)?;
        let spk = PublicKey::read(KeyKind::Spk, &mut r)?;
        let opk = if r.bool()? { Some(PublicKey::read(KeyKind::Opk, &mut r)?) } else { None };
        let pq_kind = if r.bool()? { KeyKind::PqkLast } else { KeyKind::Pqk };
        let pqk = PublicKey::read(pq_kind, &mut r)?;
        r.end()?;
        Ok(Self { cert, spk, opk, pq_kind, pqk })
    }

    /// Assembles a bundle, as the server does from a device's records.
    pub fn assemble(
        cert: &Certificate,
        spk: &PublicKey,
        opk: Option<&PublicKey>,
        pq_kind: KeyKind,
        pqk: &PublicKey,
    ) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_lp(cert.bytes());
        spk.write(&mut out);
        out.put_bool(opk.is_some());
        if let Some(opk) = opk {
            opk.write(&mut out);
        }
        out.put_bool(pq_kind == KeyKind::PqkLast);
        pqk.write(&mut out);
        out
    }

    /// The device's certificate.
    pub fn cert(&self) -> &Certificate {
        &self.cert
    }

    pub(crate) fn spk(&self) -> &PublicKey {
        &self.spk
    }

    pub(crate) fn opk(&self) -> Option<&PublicKey> {
        self.opk.as_ref()
    }

    pub(crate) fn pqk(&self) -> &PublicKey {
        &self.pqk
    }
}

/// One record of `/keys put`: `01 ‖ type ‖ device_id 16 ‖ body`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// Type 10: the device's certificate.
    Certificate(Certificate),
    /// Type 10 with an empty body: the server forgets this device.
    Forget,
    /// Type 11: the account's device list.
    List(DeviceList),
    /// Type 12: the signed prekey; replaces the one before.
    Spk(PublicKey),
    /// Type 13: one-time prekeys.
    Opks(Vec<PublicKey>),
    /// Type 14: one-time ML-KEM keys.
    Pqks(Vec<PublicKey>),
    /// Type 15: the ML-KEM key of last resort; replaces the one before.
    PqkLast(PublicKey),
}

/// The most one-time prekeys in a record, and in the server's pool.
pub const OPK_POOL: usize = 100;
/// The most one-time ML-KEM keys in a record, and in the server's pool: their bytes fill a line.
pub const PQK_POOL: usize = 50;

const RECORD_VERSION: u8 = 1;

impl Record {
    /// The bytes for `/keys put`.
    pub fn to_bytes(&self, device: DeviceId) -> Vec<u8> {
        let type_ = match self {
            Self::Certificate(_) | Self::Forget => 0x10,
            Self::List(_) => 0x11,
            Self::Spk(_) => 0x12,
            Self::Opks(_) => 0x13,
            Self::Pqks(_) => 0x14,
            Self::PqkLast(_) => 0x15,
        };
        let mut out = vec![RECORD_VERSION, type_];
        out.put(&device.0);
        match self {
            Self::Certificate(cert) => {
                out.put(cert.bytes());
            }
            Self::Forget => {}
            Self::List(list) => {
                out.put(list.bytes());
            }
            Self::Spk(key) | Self::PqkLast(key) => key.write(&mut out),
            Self::Opks(keys) | Self::Pqks(keys) => keys.iter().for_each(|key| key.write(&mut out)),
        }
        out
    }

    /// Parses a record: its form, no signature.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn parse(raw: &[u8]) -> Result<(DeviceId, Self), Malformed> {
        let mut r = Reader::new(raw);
        r.expect_bytes(&[RECORD_VERSION])?;
        let (type_, device) = (r.u8()?, DeviceId(r.array()?));
        let one = |kind, r: &mut Reader<'_>| PublicKey::read(kind, r);
        let many = |kind: KeyKind, max, r: &mut Reader<'_>| {
            let n = r.left() / kind.key_len();
            if n == 0 || n > max {
                return Err(Malformed);
            }
            (0..n).map(|_| PublicKey::read(kind, r)).collect::<Result<Vec<_>, _>>()
        };
        let record = match type_ {
            0x10 if r.left() == 0 => Self::Forget,
            0x10 => Self::Certificate(Certificate::parse(r.rest())?),
            0x11 => Self::List(DeviceList::parse(r.rest())?),
            0x12 => Self::Spk(one(KeyKind::Spk, &mut r)?),
            0x13 => Self::Opks(many(KeyKind::Opk, OPK_POOL, &mut r)?),
            0x14 => Self::Pqks(many(KeyKind::Pqk, PQK_POOL, &mut r)?),
            0x15 => Self::PqkLast(one(KeyKind::PqkLast, &mut r)?),
            _ => return Err(Malformed),
        };
        r.end()?;
        Ok((device, record))
    }
}

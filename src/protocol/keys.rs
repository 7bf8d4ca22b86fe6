//! What the key directory carries, as far as the server looks into it: ids and lengths, nothing else.
//! What the bytes mean is between the clients; whoever believes them has verified them.

use std::fmt;

use super::name::{ROOM_NAME_MAX, USER_NAME_MAX};

/// Devices of one account at most: as many as a device list can name.
pub const DEVICES_MAX: usize = 16;
/// One-time X25519 keys in one record, and kept for a device.
pub const DH_POOL: usize = 100;
/// One-time ML-KEM keys in one record, and kept for a device.
pub const POST_QUANTUM_POOL: usize = 50;
/// Bytes of an X25519 prekey: id, time, 32 bytes of key, signature.
pub const DH_KEY_LEN: usize = 4 + 8 + 32 + 64;
/// Bytes of an ML-KEM-768 prekey: id, time, 1184 bytes of key, signature.
pub const POST_QUANTUM_KEY_LEN: usize = 4 + 8 + 1184 + 64;
/// Bytes of a device certificate without its user's name: version, type, the name's length, device id, three
/// keys, two times, signature.
pub const CERTIFICATE_LEN: usize = 3 + 16 + 3 * 32 + 2 * 8 + 64;
/// Bytes of a device list that names nobody and no device: version, type, the name's length, the list's
/// version, hash of the one before, number of devices, signature.
pub const DEVICE_LIST_LEN: usize = 3 + 4 + 32 + 1 + 64;
/// Longest entry of a roster, in bytes. The longest that says anything is `ROSTER_ENTRY_NEEDED`; the rest
/// leaves room for a later version, so that the server need not know the form.
pub const ROSTER_ENTRY_MAX: usize = 2048;
/// An entry with the longest names and the longest device list: its head, room, user and identity key, the
/// list, a certificate, a signature.
const ROSTER_ENTRY_NEEDED: usize = {
    let head = 2 + 16 + 4 + 32 + 8 + 1;
    let names = 2 + 1 + ROOM_NAME_MAX + 2 + USER_NAME_MAX;
    let list = 2 + DEVICE_LIST_LEN + USER_NAME_MAX + DEVICES_MAX * 32;
    let certificate = 2 + CERTIFICATE_LEN + USER_NAME_MAX;
    head + names + 32 + list + certificate + 64
};
const _: () = assert!(ROSTER_ENTRY_NEEDED <= ROSTER_ENTRY_MAX);

/// A device of an account: 16 bytes that the device drew at random.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceName(pub [u8; 16]);

impl DeviceName {
    /// Reads 32 hexadecimal digits, of either case.
    pub fn parse(text: &str) -> Option<DeviceName> {
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let mut bytes = [0; 16];
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        }
        Some(DeviceName(bytes))
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A public prekey: its id and its bytes (id and signature included) as they came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrekeyBytes {
    /// Chosen by the device; one counter over all kinds.
    pub id: u32,
    /// 108 bytes for X25519, 1260 for ML-KEM-768.
    pub bytes: Vec<u8>,
}

/// Which pool a one-time key belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PoolKind {
    /// X25519.
    Dh,
    /// ML-KEM-768.
    PostQuantum,
}

/// One record of `/keys put`, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyRecord {
    /// Type 10: the device's certificate. Another one than before drops the device's prekeys.
    Certificate(Vec<u8>),
    /// Type 10 with an empty body: forget the device.
    Forget,
    /// Type 11: the account's device list.
    DeviceList(Vec<u8>),
    /// Type 12: the signed prekey; replaces the one before.
    SignedPrekey(PrekeyBytes),
    /// Types 13 and 14: one-time keys; an id that is there already is passed over.
    OneTime(PoolKind, Vec<PrekeyBytes>),
    /// Type 15: the ML-KEM key of last resort; replaces the one before.
    LastResort(PrekeyBytes),
}

impl KeyRecord {
    /// Bytes of its body.
    pub fn body_len(&self) -> usize {
        match self {
            KeyRecord::Forget => 0,
            KeyRecord::Certificate(bytes) | KeyRecord::DeviceList(bytes) => bytes.len(),
            KeyRecord::SignedPrekey(key) | KeyRecord::LastResort(key) => key.bytes.len(),
            KeyRecord::OneTime(_, keys) => keys.iter().map(|key| key.bytes.len()).sum(),
        }
    }
}

/// What `/keys put` carries: `01`, a type, 16 bytes of device id, and the body that the type names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyUpload {
    /// The device that it is about.
    pub device: DeviceName,
    /// The record.
    pub record: KeyRecord,
}

/// Why bytes are no [`KeyUpload`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each says itself what is wrong")]
pub enum RecordFault {
    #[error("a record begins with the byte 01, a type of 10 to 15, and 16 bytes of device id")]
    Head,
    #[error("a certificate has 195 bytes and those of its user's name; an empty one forgets the device")]
    Certificate,
    #[error("a device list has 104 bytes, those of its user's name, and 32 for each of 1 to 16 devices")]
    DeviceList,
    #[error("an X25519 key has 108 bytes")]
    DhKey,
    #[error("an ML-KEM key has 1260 bytes")]
    PostQuantumKey,
    /// More keys than a record takes.
    #[error("at most {0} keys of that kind in a record")]
    TooMany(usize),
}

/// The first byte of a record.
const VERSION: u8 = 1;

impl KeyUpload {
    /// Reads a record. Only lengths and ids are looked at.
    ///
    /// # Errors
    /// What is wrong with its form.
    pub fn parse(bytes: &[u8]) -> Result<KeyUpload, RecordFault> {
        let ([VERSION, kind], rest) = bytes.split_first_chunk().ok_or(RecordFault::Head)? else {
            return Err(RecordFault::Head);
        };
        let (device, body) = rest.split_first_chunk().ok_or(RecordFault::Head)?;
        let record = match kind {
            0x10 if body.is_empty() => KeyRecord::Forget,
            0x10 => KeyRecord::Certificate(certificate(body)?),
            0x11 => KeyRecord::DeviceList(device_list(body)?),
            0x12 => KeyRecord::SignedPrekey(prekey(body, DH_KEY_LEN).ok_or(RecordFault::DhKey)?),
            0x13 => KeyRecord::OneTime(PoolKind::Dh, prekeys(body, PoolKind::Dh)?),
            0x14 => KeyRecord::OneTime(PoolKind::PostQuantum, prekeys(body, PoolKind::PostQuantum)?),
            0x15 => KeyRecord::LastResort(prekey(body, POST_QUANTUM_KEY_LEN).ok_or(RecordFault::PostQuantumKey)?),
            _ => return Err(RecordFault::Head),
        };
        Ok(KeyUpload { device: DeviceName(*device), record })
    }

    /// The bytes that read back as it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let (kind, bodies): (u8, Vec<&[u8]>) = match &self.record {
            KeyRecord::Forget => (0x10, Vec::new()),
            KeyRecord::Certificate(bytes) => (0x10, vec![bytes]),
            KeyRecord::DeviceList(bytes) => (0x11, vec![bytes]),
            KeyRecord::SignedPrekey(key) => (0x12, vec![&key.bytes]),
            KeyRecord::OneTime(PoolKind::Dh, keys) => (0x13, keys.iter().map(|key| key.bytes.as_slice()).collect()),
            KeyRecord::OneTime(PoolKind::PostQuantum, keys) => {
                (0x14, keys.iter().map(|key| key.bytes.as_slice()).collect())
            }
            KeyRecord::LastResort(key) => (0x15, vec![&key.bytes]),
        };
        let head = [&[VERSION, kind], self.device.0.as_slice()].concat();
        [head, bodies.concat()].concat()
    }
}

/// The length that a structure says its user's name has, at the place where both kinds have it.
fn name_len(bytes: &[u8]) -> Option<usize> {
    bytes.get(2).map(|&len| usize::from(len)).filter(|len| (1..=USER_NAME_MAX).contains(len))
}

fn certificate(bytes: &[u8]) -> Result<Vec<u8>, RecordFault> {
    let fits = name_len(bytes).is_some_and(|name| bytes.len() == CERTIFICATE_LEN + name);
    if fits { Ok(bytes.to_vec()) } else { Err(RecordFault::Certificate) }
}

fn device_list(bytes: &[u8]) -> Result<Vec<u8>, RecordFault> {
    let fits = name_len(bytes).is_some_and(|name| {
        // In front of the number stand version, type, name, the list's version and the hash of the one before.
        let devices = bytes.get(3 + name + 4 + 32).map_or(0, |&n| usize::from(n));
        (1..=DEVICES_MAX).contains(&devices) && bytes.len() == DEVICE_LIST_LEN + name + devices * 32
    });
    if fits { Ok(bytes.to_vec()) } else { Err(RecordFault::DeviceList) }
}

/// Exactly one key of this length.
fn prekey(bytes: &[u8], len: usize) -> Option<PrekeyBytes> {
    let id = u32::from_be_bytes(*bytes.first_chunk()?);
    (bytes.len() == len).then(|| PrekeyBytes { id, bytes: bytes.to_vec() })
}

/// One key behind the other.
fn prekeys(bytes: &[u8], pool: PoolKind) -> Result<Vec<PrekeyBytes>, RecordFault> {
    let (len, max, fault) = match pool {
        PoolKind::Dh => (DH_KEY_LEN, DH_POOL, RecordFault::DhKey),
        PoolKind::PostQuantum => (POST_QUANTUM_KEY_LEN, POST_QUANTUM_POOL, RecordFault::PostQuantumKey),
    };
    if bytes.is_empty() || !bytes.len().is_multiple_of(len) {
        return Err(fault);
    }
    if bytes.len() / len > max {
        return Err(RecordFault::TooMany(max));
    }
    bytes.chunks_exact(len).map(|key| prekey(key, len).ok_or(fault)).collect()
}

#[cfg(test)]
mod tests;

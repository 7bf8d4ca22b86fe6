//! What the key directory carries, as far as the server looks into it: ids and lengths, nothing else.
//! What the bytes mean is between the clients; whoever believes them has verified them.

use std::fmt;

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

//! Keys, signals and rosters: what the server keeps for clients that encrypt end to end, unread.

use std::sync::Arc;

use super::{Person, RoomInfo};
pub use crate::protocol::keys::{DEVICES_MAX, DH_POOL, POST_QUANTUM_POOL};
use crate::protocol::{DeviceName, Timestamp};

/// A pool with fewer keys than this is told to its owner (`* keys-low`).
pub const POOL_LOW: u64 = 25;
/// Signals that wait from one sender to one receiver.
pub const SIGNALS_MAX: u64 = 1000;
/// How long a signal waits to be acknowledged: 30 days.
pub const SIGNAL_LIFE_MS: u64 = 30 * 24 * 3600 * 1000;
/// Entries of one room's roster; a client need not read more either.
pub const ROSTER_MAX: u32 = 65_536;

/// How many one-time keys a device has in the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pools {
    /// Whose.
    pub device: DeviceName,
    /// X25519 keys.
    pub dh: u64,
    /// ML-KEM keys.
    pub post_quantum: u64,
}

impl Pools {
    /// Whether one of them should be filled up.
    pub fn low(&self) -> bool {
        self.dh < POOL_LOW || self.post_quantum < POOL_LOW
    }
}

/// What `/keys get` takes out of the directory.
#[derive(Debug, Clone)]
pub struct Bundles {
    /// Whose.
    pub person: Person,
    /// The account's device list, if one was put.
    pub list: Option<Vec<u8>>,
    /// Each device that has a certificate, a signed prekey and any ML-KEM key, by device: the bundle, laid
    /// out as clients expect it.
    pub bundles: Vec<(DeviceName, Vec<u8>)>,
    /// What is left of the pools of each of these devices.
    pub left: Vec<Pools>,
}

/// What `/keys get … only=certs` reads; nothing is used up.
#[derive(Debug, Clone)]
pub struct DeviceCertificates {
    /// Whose.
    pub person: Person,
    /// The account's device list, if one was put.
    pub list: Option<Vec<u8>>,
    /// Certificates by device.
    pub certificates: Vec<(DeviceName, Vec<u8>)>,
}

/// A signal as it was stored.
#[derive(Debug, Clone)]
pub struct SignalStored {
    /// Its number, rising for the receiver.
    pub id: u64,
    /// When it was stored.
    pub time: Timestamp,
    /// To whom.
    pub receiver: Person,
}

/// A row of `/signals`.
#[derive(Debug, Clone)]
pub struct Signal {
    /// Its number.
    pub id: u64,
    /// When it was stored.
    pub time: Timestamp,
    /// Who sent it.
    pub sender: Person,
    /// The envelope.
    pub body: Arc<str>,
}

/// An entry was appended to a roster.
#[derive(Debug, Clone)]
pub struct RosterAdded {
    /// The room.
    pub room: RoomInfo,
    /// The entry's place.
    pub epoch: u32,
}

/// A page of a roster.
#[derive(Debug, Clone)]
pub struct RosterPage {
    /// Place and bytes of each entry, rising.
    pub rows: Vec<(u32, Vec<u8>)>,
    /// The last place of the log, 0 where it is empty.
    pub last: u32,
    /// Whether the log goes on behind the rows.
    pub more: bool,
}

//! Names and ids: newtypes whose parser is the only way in.

use core::fmt;
use std::sync::Arc;

use super::wire::{Malformed, Put};

/// The longest user name, in bytes.
pub const USER_MAX: usize = 32;
/// The longest room name without its `#`, in bytes.
pub const ROOM_MAX: usize = 48;

/// `a-z 0-9 . _ -`, first a letter or digit: the server's canonical (folded) form.
fn is_canonical(name: &str, max: usize) -> bool {
    let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    (1..=max).contains(&name.len())
        && name.bytes().all(|b| letter(b) || b"._-".contains(&b))
        && name.bytes().next().is_some_and(letter)
}

/// An account's name in canonical form, 1 to 32 bytes. Clones share it: every message names accounts many times.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct User(Arc<str>);

impl User {
    /// # Errors
    /// [`Malformed`] unless canonical: `a-z 0-9 . _ -`, first a letter or digit, 1 to 32 bytes.
    pub fn parse(name: &str) -> Result<Self, Malformed> {
        if is_canonical(name, USER_MAX) { Ok(Self(name.into())) } else { Err(Malformed) }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// A room's name in canonical form, with its `#`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoomName(Arc<str>);

impl RoomName {
    /// # Errors
    /// [`Malformed`] unless `#` and 1 to 48 bytes of a user name's alphabet.
    pub fn parse(name: &str) -> Result<Self, Malformed> {
        match name.strip_prefix('#') {
            Some(bare) if is_canonical(bare, ROOM_MAX) => Ok(Self(name.into())),
            _ => Err(Malformed),
        }
    }

    /// The name, with its `#`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

macro_rules! shown_as_text {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}
shown_as_text!(User, RoomName);

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 16]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    )*};
}
ids! {
    /// A device of an account: 16 random bytes, chosen by the device.
    DeviceId,
    /// A session between two devices: the last 16 bytes that PQXDH derives.
    SessionId,
    /// A message: 16 random bytes, chosen by the sender.
    MsgId,
    /// A conversation: derived from two account identities, or a room's id.
    ConvId,
    /// A room: derived from its create entry.
    RoomId,
    /// A sender key chain: 16 random bytes, chosen by the sender.
    ChainId,
    /// What is remembered of an opened envelope: the first 16 bytes of its hash.
    Mark,
}

/// One device of one account.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// The account.
    pub user: User,
    /// Its device.
    pub device: DeviceId,
}

impl fmt::Display for Address {
    /// As people see it: `alice/3f2a`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, ..] = self.device.0;
        write!(f, "{}/{a:02x}{b:02x}", self.user)
    }
}

/// One end of a session with its identity keys: what an associated data binds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Party {
    /// Account and device.
    pub address: Address,
    /// The account's identity key (Ed25519).
    pub aik: [u8; 32],
    /// The device's identity key (X25519).
    pub dik: [u8; 32],
}

impl Party {
    /// `P(x) = lp(user) ‖ device_id ‖ AIK ‖ DIK`.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(2 + USER_MAX + 16 + 32 + 32);
        out.put_lp(self.address.user.as_bytes());
        out.put(&self.address.device.0).put(&self.aik).put(&self.dik);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_canonical_or_refused() {
        for good in ["a", "0", "alice", "a.b_c-d", &"x".repeat(32)] {
            assert!(User::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "Alice", ".a", "-a", "_a", "a b", "ä", "a\0", &"x".repeat(33)] {
            assert!(User::parse(bad).is_err(), "{bad}");
        }
        assert!(RoomName::parse("#r").is_ok() && RoomName::parse(&format!("#{}", "x".repeat(48))).is_ok());
        for bad in ["r", "#", "##", "#R", &format!("#{}", "x".repeat(49))] {
            assert!(RoomName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_address_shows_four_digits_of_its_device() {
        let mut id = [0; 16];
        id[..2].copy_from_slice(&[0x3f, 0x2a]);
        let address = Address { user: User::parse("alice").unwrap(), device: DeviceId(id) };
        assert_eq!(address.to_string(), "alice/3f2a");
    }
}

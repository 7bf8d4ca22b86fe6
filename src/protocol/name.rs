//! Names on the wire: newtypes whose parser is the only constructor, so that a name that exists is
//! a name that is well-formed and folded to lower case.

use std::fmt;
use std::sync::Arc;

/// Longest user name, in bytes.
pub const USER_NAME_MAX: usize = 32;
/// Longest room name, in bytes, without its `#`.
pub const ROOM_NAME_MAX: usize = 48;
/// Longest command label, in bytes.
pub const LABEL_MAX: usize = 64;
/// Shortest and longest key of `/post`, in bytes. Eight are enough to make a chance collision of a
/// careless program's keys unlikely within a day.
pub const POST_KEY_LEN: std::ops::RangeInclusive<usize> = 8..=64;

/// Words that stand where a user name could: `/ack auto`, `/admin …`.
const RESERVED: [&str; 7] = ["auto", "manual", "signals", "set", "system", "server", "admin"];

/// Why a text is no name, with the limit that the answer names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a name is {} to {max} of a-z 0-9 . _ -, first a letter or digit", 1)]
pub struct NameInvalid {
    /// The most bytes that this kind of name may have.
    pub max: usize,
}

fn well_formed(text: &str, max: usize) -> bool {
    let first_fits = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    first_fits
        && text.len() <= max
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

macro_rules! text_newtype {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The text as it stands on the wire.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        // A map keyed by the newtype answers a look-up by `&str`.
        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

text_newtype! {
    /// The name of an account: 1 to [`USER_NAME_MAX`] of `a-z 0-9 . _ -`, first a letter or digit,
    /// folded to lower case, none of the reserved words.
    UserName
}

impl UserName {
    /// Reads a user name, folding it to lower case.
    ///
    /// # Errors
    /// [`NameInvalid`] for every other text, reserved words included.
    pub fn parse(text: &str) -> Result<UserName, NameInvalid> {
        let folded = text.to_ascii_lowercase();
        if well_formed(text, USER_NAME_MAX) && !RESERVED.contains(&folded.as_str()) {
            Ok(UserName(folded.into()))
        } else {
            Err(NameInvalid { max: USER_NAME_MAX })
        }
    }
}

text_newtype! {
    /// The name of a room with its `#`: `#` and 1 to [`ROOM_NAME_MAX`] of the alphabet of
    /// [`UserName`], folded to lower case.
    RoomName
}

impl RoomName {
    /// Reads a room name, folding it to lower case.
    ///
    /// # Errors
    /// [`NameInvalid`] for every other text.
    pub fn parse(text: &str) -> Result<RoomName, NameInvalid> {
        match text.strip_prefix('#') {
            Some(rest) if well_formed(rest, ROOM_NAME_MAX) => Ok(RoomName(text.to_ascii_lowercase().into())),
            _ => Err(NameInvalid { max: ROOM_NAME_MAX }),
        }
    }
}

/// Where a message can go: a person or a room.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// A room, by its name with `#`.
    Room(RoomName),
    /// A person, by account name.
    User(UserName),
}

impl Target {
    /// Reads a target: what begins with `#` is a room, anything else a user.
    ///
    /// # Errors
    /// [`NameInvalid`] with the limit of the kind that was meant.
    pub fn parse(text: &str) -> Result<Target, NameInvalid> {
        if text.starts_with('#') {
            RoomName::parse(text).map(Target::Room)
        } else {
            UserName::parse(text).map(Target::User)
        }
    }

    /// The text as it stands on the wire.
    pub fn as_str(&self) -> &str {
        match self {
            Target::Room(room) => room.as_str(),
            Target::User(user) => user.as_str(),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

fn is_label_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

text_newtype! {
    /// A label that a client hangs on a command and finds in its one reply.
    Label
}

impl Label {
    /// Reads a label: 1 to [`LABEL_MAX`] of `A-Z a-z 0-9 . _ -`, case kept.
    pub fn parse(text: &str) -> Option<Label> {
        let fits = (1..=LABEL_MAX).contains(&text.len()) && text.bytes().all(is_label_byte);
        fits.then(|| Label(text.into()))
    }
}

text_newtype! {
    /// The idempotency key of `/post`, of the alphabet of [`Label`].
    PostKey
}

impl PostKey {
    /// Reads a key of [`POST_KEY_LEN`] bytes.
    pub fn parse(text: &str) -> Option<PostKey> {
        let fits = POST_KEY_LEN.contains(&text.len()) && text.bytes().all(is_label_byte);
        fits.then(|| PostKey(text.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_names_fold_and_refuse() {
        assert_eq!(UserName::parse("Alice.B-1_x").unwrap().as_str(), "alice.b-1_x");
        assert_eq!(UserName::parse(&"a".repeat(32)).unwrap().as_str().len(), 32);
        for bad in ["", "-a", ".a", "_a", "a b", "ä", "a\u{0}", "#a", "Admin", "auto", "manual", "set", &"a".repeat(33)]
        {
            assert_eq!(UserName::parse(bad), Err(NameInvalid { max: 32 }), "{bad:?}");
        }
    }

    #[test]
    fn targets_tell_rooms_from_people() {
        assert_eq!(Target::parse("#Ops").unwrap(), Target::Room(RoomName::parse("#ops").unwrap()));
        assert_eq!(Target::parse("bob").unwrap(), Target::User(UserName::parse("bob").unwrap()));
        assert_eq!(Target::parse("#"), Err(NameInvalid { max: 48 }));
        assert!(Target::parse(&format!("#{}", "r".repeat(48))).is_ok());
        assert_eq!(Target::parse(&format!("#{}", "r".repeat(49))), Err(NameInvalid { max: 48 }));
        assert!(Target::parse("#auto").is_ok(), "only user names are reserved");
    }

    #[test]
    fn labels_and_keys() {
        assert_eq!(Label::parse("Ab.9_-").unwrap().as_str(), "Ab.9_-");
        assert!(Label::parse("").is_none() && Label::parse("a b").is_none() && Label::parse(&"x".repeat(65)).is_none());
        assert!(PostKey::parse("1234567").is_none() && PostKey::parse("12345678").is_some());
    }
}

//! Why something cannot be opened, and why something cannot be sealed.

use super::name::{Address, User};
use super::wire::Malformed;

/// Why a received line cannot be opened: the code of `cannot open (code)`.
///
/// Whoever gets one holds a state that is byte for byte what it was. The codes are stable; people
/// read [`Error::code`], programs match the variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[error("cannot open ({})", self.code())]
pub enum Error {
    /// No structure of this protocol, or not at its exact length.
    Syntax,
    /// No `e2e:` body where only an encrypted one may stand.
    Plain,
    /// Another account identity than the pinned one, or a certificate of somebody else than SENDER.
    Identity,
    /// The certificate is not in the newest known device list, or is outside its time.
    UnlistedDevice,
    /// A message of a session that this device does not hold.
    NoSession,
    /// A handshake over a prekey that is used up, expired, or was never ours.
    NoPrekey,
    /// The derived session is not the one that the header names.
    Handshake,
    /// An X25519 public key of small order: the result would not depend on our secret.
    LowOrder,
    /// A signature does not verify.
    Signature,
    /// The commitment to the key does not match (deviation D1).
    Commit,
    /// The AEAD tag does not match.
    Auth,
    /// The slot opened, the payload is not the one that the slot was made for.
    Payload,
    /// The padding is not the one possible.
    Padding,
    /// The inner message breaks its rules, or rides where its kind may not.
    Inner,
    /// This very envelope was opened before.
    Replay,
    /// The message key of this counter was used by another envelope.
    Reused,
    /// The counter is further ahead than keys will be skipped for.
    TooFar,
    /// Made at a time that cannot be.
    Clock,
    /// No slot for this device.
    NotForThisDevice,
    /// Sent by this very device; its text is in the history.
    Own,
    /// Refers to a roster entry that was not read yet.
    NeedRoster,
    /// No such sender chain here, yet or any more.
    NoChain,
    /// From before this device was given the chain.
    BeforeChain,
    /// The sender has said that this chain ended earlier.
    ClosedChain,
    /// The sender is no member of the room.
    NotMember,
    /// A chain id that belongs to somebody else.
    ChainTaken,
    /// The room has two histories.
    Fork,
    /// Another room, sender, device or epoch than the chain's.
    Room,
    /// The random source of this machine failed: no verdict on the line, try again. Not a code of
    /// the contract.
    Random,
}

/// At whose door an [`Error`] lies, as far as the bytes can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The one who sealed it: the bytes are authentic and break a rule.
    Sender,
    /// The sender or whoever carried the bytes; unauthenticated bytes do not tell.
    SenderOrServer,
    /// Ours: a key, a list or a roster that this device does not hold (any more, or yet).
    Local,
    /// Nobody's: the line is not for this device, or is known already.
    Nobody,
}

impl Error {
    /// The code printed in `cannot open (code)`.
    pub fn code(self) -> &'static str {
        match self {
            Self::Syntax => "syntax",
            Self::Plain => "plain",
            Self::Identity => "identity",
            Self::UnlistedDevice => "unlisted-device",
            Self::NoSession => "no-session",
            Self::NoPrekey => "no-prekey",
            Self::Handshake => "handshake",
            Self::LowOrder => "low-order",
            Self::Signature => "signature",
            Self::Commit => "commit",
            Self::Auth => "auth",
            Self::Payload => "payload",
            Self::Padding => "padding",
            Self::Inner => "inner",
            Self::Replay => "replay",
            Self::Reused => "reused",
            Self::TooFar => "too-far",
            Self::Clock => "clock",
            Self::NotForThisDevice => "not-for-this-device",
            Self::Own => "own",
            Self::NeedRoster => "need-roster",
            Self::NoChain => "no-chain",
            Self::BeforeChain => "before-chain",
            Self::ClosedChain => "closed-chain",
            Self::NotMember => "not-member",
            Self::ChainTaken => "chain-taken",
            Self::Fork => "fork",
            Self::Room => "room",
            Self::Random => "random",
        }
    }

    /// Whose fault it is.
    pub fn fault(self) -> Fault {
        match self {
            Self::Padding | Self::Inner | Self::ChainTaken | Self::ClosedChain => Fault::Sender,
            Self::Syntax
            | Self::Plain
            | Self::Identity
            | Self::UnlistedDevice
            | Self::Handshake
            | Self::LowOrder
            | Self::Signature
            | Self::Commit
            | Self::Auth
            | Self::Payload
            | Self::Reused
            | Self::TooFar
            | Self::Clock
            | Self::NotMember
            | Self::Fork
            | Self::Room => Fault::SenderOrServer,
            Self::NoSession | Self::NoPrekey | Self::NeedRoster | Self::NoChain | Self::Random => Fault::Local,
            Self::Replay | Self::NotForThisDevice | Self::Own | Self::BeforeChain => Fault::Nobody,
        }
    }

    /// Whether a pairwise envelope that failed so may be answered by a reset: the two sides have
    /// lost their common state, and a new session heals it. Everything else would only hand whoever
    /// can make it happen a lever.
    pub fn calls_for_reset(self) -> bool {
        matches!(self, Self::NoSession | Self::NoPrekey | Self::Handshake | Self::Commit | Self::Auth | Self::Reused)
    }
}

impl From<Malformed> for Error {
    fn from(Malformed: Malformed) -> Self {
        Self::Syntax
    }
}

/// Why something cannot be sealed. Nothing was changed; most name what to fetch first.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// No session with these devices: fetch their bundles and try again.
    #[error("no session with {} device(s): fetch their keys", .0.len())]
    NeedBundles(Vec<Address>),
    /// No device list of this account, or one older than its own messages speak of.
    #[error("the device list of {0} is missing or old: fetch it")]
    NeedList(User),
    /// The account shows another identity than the pinned one.
    #[error("the identity of {0} has changed")]
    Identity(User),
    /// The account has no current device to seal to.
    #[error("{0} has no current device")]
    NoDevice(User),
    /// A bundle or certificate that does not hold.
    #[error("a key of the bundle is refused: {0}")]
    Bundle(Error),
    /// Longer than the contract allows.
    #[error("too long: at most {0} bytes")]
    TooLong(usize),
    /// This kind of message does not travel that way.
    #[error("this kind of message does not travel that way")]
    Kind,
    /// No such room, or its roster was not read.
    #[error("the roster of the room was not read")]
    NeedRoster,
    /// The room has two histories: nothing is sent there.
    #[error("the room has two histories")]
    Fork,
    /// This account is no member of the room.
    #[error("not a member of the room")]
    NotMember,
    /// A counter would wrap; the next session or chain starts at zero.
    #[error("a counter is used up")]
    Exhausted,
    /// The random source of this machine failed.
    #[error("the random source of this machine failed")]
    Random,
}

/// A row of the sealed store that is not what this module wrote: a bug or a hand-edited store,
/// never the network's doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a row of the key store is damaged")]
pub struct Damaged;

impl From<Malformed> for Damaged {
    fn from(Malformed: Malformed) -> Self {
        Self
    }
}

/// The operating system gave no randomness. Whatever needed it is not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the random source failed")]
pub struct NoRandom;

impl From<NoRandom> for Error {
    fn from(NoRandom: NoRandom) -> Self {
        Self::Random
    }
}

impl From<NoRandom> for SealError {
    fn from(NoRandom: NoRandom) -> Self {
        Self::Random
    }
}

//! The inner message: what is under the padding of every MULTI and GROUP.
//!
//! ```text
//! 0 1 kind   1 1 flags (0)   2 8 sent_ms   10 16 msg_id   26 4 conv_seq   30 32 conv_prev
//! 62 1 conv_type (0 direct, 1 room)   63 16 conv_id   79 4 dl_version   83 .. body
//! ```

use core::fmt;
use zeroize::Zeroizing;

use super::descriptor::Descriptor;
use super::error::Error;
use super::kdf;
use super::labels;
use super::name::{ChainId, ConvId, DeviceId, MsgId, RoomId, User};
use super::padding::unpad;
use super::sender_key::Skdm;
use super::wire::{Malformed, Put, Reader};

/// The longest text, in bytes.
pub const TEXT_MAX: usize = 16_384;

/// How a line came, or is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Via {
    /// `/msg`, `/post`: the log of a conversation.
    Message,
    /// `/signal`: outside every conversation, erased once acknowledged.
    Signal,
}

/// What a message belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Conversation {
    /// Between two accounts.
    Direct(ConvId),
    /// In a room.
    Room(RoomId),
}

/// An inner message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inner {
    /// The sender's clock, Unix milliseconds; for people only.
    pub sent_ms: u64,
    /// 16 random bytes.
    pub msg_id: MsgId,
    /// In the log: this device's count in this conversation, from 1. In signals 0.
    pub seq: u32,
    /// In the log: H(this device's inner message before, unpadded), zeros at 1. In signals zeros.
    pub prev: [u8; 32],
    /// Where it belongs.
    pub conversation: Conversation,
    /// The version of the sender account's own newest device list.
    pub dl_version: u32,
    /// What it says.
    pub body: Body,
}

/// What a [`Body::Change`] does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// A reaction; the text is the reaction.
    React,
    /// Another text; only for a message of the author's own account.
    Edit,
    /// Taken back; only for a message of the author's own account.
    Delete,
}

/// What an inner message says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Kind 1: text, at most [`TEXT_MAX`] bytes.
    Text(String),
    /// Kind 2: a file.
    File(Descriptor),
    /// Kind 8: a change to another message.
    Change {
        /// Which.
        kind: ChangeKind,
        /// The account that wrote the other message.
        author: User,
        /// The device that sent it.
        device: DeviceId,
        /// Its id.
        msg_id: MsgId,
        /// The reaction or the new text, at most [`TEXT_MAX`] bytes.
        text: String,
    },
    /// Kind 3: a sender chain of a room.
    SenderKey(Skdm),
    /// Kind 4: delivered, or read.
    Receipt {
        /// Read, not only delivered.
        read: bool,
        /// Of which messages; at least one.
        messages: Vec<MsgId>,
    },
    /// Kind 5 `00`: the session before was lost; go on in this one.
    Reset,
    /// Kind 5 `01`: send me your current link of the room's chain.
    ChainRequest {
        /// The room.
        room: RoomId,
        /// The chain that is missing.
        chain: ChainId,
    },
}

const HEADER_LEN: usize = 83;

/// The bytes of an inner message: wiped on drop, silent in `Debug`, for they may hold keys.
#[derive(Clone, PartialEq, Eq)]
pub struct Plain(Zeroizing<Vec<u8>>);

impl Plain {
    pub(crate) fn copy_of(bytes: &[u8]) -> Self {
        Self(Zeroizing::new(bytes.to_vec()))
    }

    /// Takes the padding off where the bytes stand; what is cut off is wiped with them.
    ///
    /// # Errors
    /// [`Error::Padding`].
    pub(crate) fn unpadded(mut padded: Zeroizing<Vec<u8>>) -> Result<Self, Error> {
        let len = unpad(&padded)?.len();
        padded.truncate(len);
        Ok(Self(padded))
    }
}

impl core::ops::Deref for Plain {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Plain({} bytes)", self.0.len())
    }
}

impl Body {
    /// In which kind of line it travels.
    pub fn via(&self) -> Via {
        match self {
            Self::Text(_) | Self::File(_) | Self::Change { .. } => Via::Message,
            Self::SenderKey(_) | Self::Receipt { .. } | Self::Reset | Self::ChainRequest { .. } => Via::Signal,
        }
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Text(_) => 1,
            Self::File(_) => 2,
            Self::SenderKey(_) => 3,
            Self::Receipt { .. } => 4,
            Self::Reset | Self::ChainRequest { .. } => 5,
            Self::Change { .. } => 8,
        }
    }

    /// Bytes enough for what [`Body::write`] appends, for all but many receipts: what is reserved is
    /// wiped, needed or not.
    fn room(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Change { text, .. } => 128 + text.len(),
            _ => 512,
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Text(text) => {
                out.put(text.as_bytes());
            }
            Self::File(descriptor) => descriptor.write(out),
            Self::Change { kind, author, device, msg_id, text } => {
                out.put_u8(match kind {
                    ChangeKind::React => 1,
                    ChangeKind::Edit => 2,
                    ChangeKind::Delete => 3,
                });
                out.put_lp(author.as_bytes()).put(&device.0).put(&msg_id.0).put(text.as_bytes());
            }
            Self::SenderKey(skdm) => skdm.write(out),
            Self::Receipt { read, messages } => {
                out.put_u8(if *read { 2 } else { 1 });
                messages.iter().for_each(|id| {
                    out.put(&id.0);
                });
            }
            Self::Reset => {
                out.put_u8(0);
            }
            Self::ChainRequest { room, chain } => {
                out.put_u8(1).put(&room.0).put(&chain.0);
            }
        }
    }

    fn read(kind: u8, r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(match kind {
            1 => Self::Text(text(r)?),
            2 => Self::File(Descriptor::read(r)?),
            3 => Self::SenderKey(Skdm::read(r)?),
            4 => {
                let read = match r.u8()? {
                    1 => false,
                    2 => true,
                    _ => return Err(Malformed),
                };
                let mut messages = vec![MsgId(r.array()?)];
                while r.left() > 0 {
                    messages.push(MsgId(r.array()?));
                }
                Self::Receipt { read, messages }
            }
            5 => match r.u8()? {
                0 => Self::Reset,
                1 => Self::ChainRequest { room: RoomId(r.array()?), chain: ChainId(r.array()?) },
                _ => return Err(Malformed),
            },
            8 => {
                let kind = match r.u8()? {
                    1 => ChangeKind::React,
                    2 => ChangeKind::Edit,
                    3 => ChangeKind::Delete,
                    _ => return Err(Malformed),
                };
                let author = User::parse(r.lp_str()?)?;
                Self::Change { kind, author, device: DeviceId(r.array()?), msg_id: MsgId(r.array()?), text: text(r)? }
            }
            _ => return Err(Malformed),
        })
    }
}

fn text(r: &mut Reader<'_>) -> Result<String, Malformed> {
    let bytes = r.rest();
    if bytes.len() > TEXT_MAX {
        return Err(Malformed);
    }
    str::from_utf8(bytes).map(str::to_owned).map_err(|_| Malformed)
}

impl Inner {
    /// The bytes, unpadded.
    pub fn to_bytes(&self) -> Plain {
        let mut out = Zeroizing::new(Vec::with_capacity(HEADER_LEN + self.body.room()));
        out.put_u8(self.body.kind()).put_u8(0).put_u64(self.sent_ms).put(&self.msg_id.0);
        out.put_u32(self.seq).put(&self.prev);
        match self.conversation {
            Conversation::Direct(id) => out.put_u8(0).put(&id.0),
            Conversation::Room(id) => out.put_u8(1).put(&id.0),
        };
        out.put_u32(self.dl_version);
        self.body.write(&mut out);
        Plain(out)
    }

    /// Parses an unpadded inner message: its form, whoever sent it.
    ///
    /// # Errors
    /// [`Error::Inner`].
    pub fn parse(raw: &[u8]) -> Result<Self, Error> {
        Self::read(raw).map_err(|Malformed| Error::Inner)
    }

    fn read(raw: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(raw);
        let kind = r.u8()?;
        r.expect_bytes(&[0])?;
        let (sent_ms, msg_id) = (r.u64()?, MsgId(r.array()?));
        let (seq, prev) = (r.u32()?, r.array()?);
        let conversation = match r.u8()? {
            0 => Conversation::Direct(ConvId(r.array()?)),
            1 => Conversation::Room(RoomId(r.array()?)),
            _ => return Err(Malformed),
        };
        let dl_version = r.u32()?;
        let body = Body::read(kind, &mut r)?;
        r.end()?;
        Ok(Self { sent_ms, msg_id, seq, prev, conversation, dl_version, body })
    }

    /// Checks what holds for every message of an account: its kind may travel so, its count and hash
    /// are those of a log or of a signal, and changes are made to messages of the own account only.
    pub(crate) fn check(&self, via: Via, sender: &User) -> Result<(), Error> {
        let numbered = match via {
            Via::Message => self.seq > 0 && (self.seq > 1 || self.prev == [0; 32]),
            Via::Signal => self.seq == 0 && self.prev == [0; 32],
        };
        let entitled = match &self.body {
            Body::Change { kind: ChangeKind::Edit | ChangeKind::Delete, author, .. } => author == sender,
            _ => true,
        };
        if self.body.via() == via && numbered && entitled { Ok(()) } else { Err(Error::Inner) }
    }
}

/// The id of the conversation between two accounts:
/// `H(L"direct" ‖ the two AIKs, lower first)[0..16]`.
pub fn direct_id(a: &[u8; 32], b: &[u8; 32]) -> ConvId {
    ConvId(kdf::first16(kdf::hash(&[labels::DIRECT.bytes(), a.min(b), a.max(b)])))
}

/// H(inner message): what the next one's `prev` is.
pub fn inner_hash(raw: &[u8]) -> [u8; 32] {
    kdf::hash(&[raw])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::e2e::testing::{alice, bob};
    use proptest::prelude::*;

    #[test]
    fn the_conversation_id_matches_the_worked_example() {
        let (a, b) = (alice(), bob());
        let id = direct_id(a.me.aik(), b.me.aik());
        assert_eq!(id.to_string(), "cc9cf5b07d37df97aae03bfa9681d59f");
        assert_eq!(id, direct_id(b.me.aik(), a.me.aik()));
    }

    fn inner(body: Body) -> Inner {
        Inner {
            sent_ms: 1,
            msg_id: MsgId([2; 16]),
            seq: 3,
            prev: [4; 32],
            conversation: Conversation::Direct(ConvId([5; 16])),
            dl_version: 6,
            body,
        }
    }

    fn bodies() -> Vec<Body> {
        let user = User::parse("alice").unwrap();
        let change = |kind| Body::Change {
            kind,
            author: user.clone(),
            device: DeviceId([1; 16]),
            msg_id: MsgId([2; 16]),
            text: "x".into(),
        };
        vec![
            Body::Text("hällo".into()),
            Body::Text(String::new()),
            change(ChangeKind::React),
            change(ChangeKind::Edit),
            change(ChangeKind::Delete),
            Body::Receipt { read: true, messages: vec![MsgId([1; 16]), MsgId([2; 16])] },
            Body::Receipt { read: false, messages: vec![MsgId([1; 16])] },
            Body::Reset,
            Body::ChainRequest { room: RoomId([1; 16]), chain: ChainId([2; 16]) },
        ]
    }

    #[test]
    fn parsing_undoes_writing_and_refuses_what_is_longer_or_shorter() {
        for body in bodies() {
            let inner = inner(body);
            let raw = inner.to_bytes();
            assert_eq!(Inner::parse(&raw), Ok(inner.clone()));
            for n in 0..raw.len() {
                assert!(Inner::parse(&raw[..n]).map_or(true, |cut| cut.to_bytes()[..] == raw[..n]));
            }
            if !matches!(inner.body, Body::Text(_) | Body::Change { .. }) {
                assert_eq!(Inner::parse(&[&raw[..], &[0]].concat()), Err(Error::Inner));
            }
        }
    }

    #[test]
    fn flags_kinds_types_and_lengths_are_checked() {
        let raw = inner(Body::Text("hi".into())).to_bytes();
        for (at, value) in [(0, 0), (0, 6), (0, 7), (0, 9), (1, 1), (62, 2)] {
            let mut bad = raw.to_vec();
            bad[at] = value;
            assert_eq!(Inner::parse(&bad), Err(Error::Inner), "{at} {value}");
        }
        assert!(Inner::parse(&inner(Body::Text("x".repeat(TEXT_MAX))).to_bytes()).is_ok());
        assert!(Inner::parse(&inner(Body::Text("x".repeat(TEXT_MAX + 1))).to_bytes()).is_err());
        let mut not_utf8 = raw.to_vec();
        not_utf8[HEADER_LEN] = 0xff;
        assert!(Inner::parse(&not_utf8).is_err());
        let empty = Inner::parse(&inner(Body::Receipt { read: true, messages: vec![] }).to_bytes());
        assert_eq!(empty, Err(Error::Inner));
    }

    #[test]
    fn a_kind_out_of_its_place_is_refused() {
        let (alice, bob) = (User::parse("alice").unwrap(), User::parse("bob").unwrap());
        for body in bodies() {
            let via = body.via();
            let logged = Inner { seq: 1, prev: [0; 32], ..inner(body.clone()) };
            let signal = Inner { seq: 0, prev: [0; 32], ..inner(body.clone()) };
            assert_eq!(logged.check(Via::Message, &alice).is_ok(), via == Via::Message);
            assert_eq!(signal.check(Via::Signal, &alice).is_ok(), via == Via::Signal);
            assert!(logged.check(Via::Signal, &alice).is_err() && signal.check(Via::Message, &alice).is_err());
            let owned = matches!(&body, Body::Change { kind: ChangeKind::Edit | ChangeKind::Delete, .. });
            assert_eq!(logged.check(Via::Message, &bob).is_ok(), via == Via::Message && !owned);
        }
        let text = inner(Body::Text("hi".into()));
        assert!(text.check(Via::Message, &alice).is_ok());
        assert!(Inner { seq: 1, ..text.clone() }.check(Via::Message, &alice).is_err());
        assert!(Inner { seq: 0, ..text }.check(Via::Message, &alice).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(raw in proptest::collection::vec(any::<u8>(), 0..300), kind in 0_u8..10) {
            let mut raw = raw;
            let _ = Inner::parse(&raw);
            if raw.len() > 62 {
                (raw[0], raw[1], raw[62]) = (kind, 0, kind & 1);
            }
            if let Ok(inner) = Inner::parse(&raw) {
                prop_assert_eq!(inner.to_bytes().to_vec(), raw);
            }
        }
    }
}

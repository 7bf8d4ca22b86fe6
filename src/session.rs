//! The state of one connection, from the end of its TLS handshake to its close.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

pub mod delivery;
pub mod signals;

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::Instant;

use self::delivery::Delivery;
use self::signals::SignalDelivery;
use crate::ops::{Person, Sha256};
use crate::protocol::file::CHUNK_TEXT_MAX;
use crate::protocol::{LineFault, Target, Timestamp, UserName};

/// Names a connection: a slot that is used again, and how often it was. An answer for a connection
/// that is gone finds nobody, not the next one in its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId {
    /// Index into the tables of the loop and of the core.
    pub slot: u32,
    /// How often the slot was used before.
    pub generation: u32,
}

impl std::fmt::Display for ConnId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.slot, self.generation)
    }
}

/// What the transport knows of the other side.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its address; IPv4 also where it came mapped into IPv6.
    pub address: IpAddr,
    /// `1.3` or `1.2`.
    pub tls: &'static str,
    /// SHA-256 of the client certificate whose possession the handshake proved.
    pub certificate: Option<Sha256>,
}

/// How far a connection has come.
#[derive(Debug)]
pub enum State {
    /// Nobody is logged in.
    Anonymous,
    /// A login is under way; `Some` once its proof held and the session counts for the account.
    Authenticating(Option<Box<Member>>),
    /// Somebody is logged in.
    Ready(Box<Member>),
}

/// What a logged-in connection has.
#[derive(Debug)]
pub struct Member {
    /// Who.
    pub person: Person,
    /// Which login this is, of all since the start: an answer for an earlier one finds nobody.
    pub login: u64,
    /// Since when.
    pub since: Timestamp,
    /// Where bare text goes.
    pub target: Option<Target>,
    /// What it was sent and what it has read.
    pub delivery: Delivery,
    /// Which signals it was sent.
    pub signals: SignalDelivery,
    /// Whose coming and going it hears of.
    pub watching: HashSet<UserName>,
    /// When `/typing` last passed, by target; forgotten when older than its interval.
    pub typing: Vec<(Target, Instant)>,
}

/// One connection.
#[derive(Debug)]
pub struct Session {
    /// Its name.
    pub conn: ConnId,
    /// What the transport knows.
    pub peer: Peer,
    /// How far it has come.
    pub state: State,
    /// `/ack manual` was said.
    pub manual_ack: bool,
    /// Whether a line was seen yet.
    pub greeted_back: bool,
    /// Operations whose answers its commands wait for.
    pub in_flight: u32,
    /// Read markers on their way to the disk.
    pub acks_in_flight: u32,
    /// What they are of: a further one of the same kind may follow at once.
    pub overlap: Overlap,
    /// Bytes of base64 in the chunks among them.
    pub chunk_bytes: usize,
    /// A line that waits for them.
    pub parked: Option<Result<Box<str>, LineFault>>,
    /// The parked line is a chunk that waits for others' to be written.
    pub waits_for_room: bool,
    /// No further line will come: it is closed as soon as everything is answered.
    pub ended: bool,
    /// It was told to close; nothing more is sent or run.
    pub closing: bool,
    /// Bytes given to the connection since it opened.
    pub sent: u64,
    /// How many of them the operating system has taken.
    pub flushed: u64,
    /// The last reply that is longer than the queue may be: the count of bytes at its end, and its length.
    pub long_reply: (u64, u64),
}

/// Which commands of one connection may be on their way to the disk beside each other: those of one kind, because
/// the store answers these in the order in which they came, and so the replies keep theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overlap {
    /// None: it goes alone.
    #[default]
    Nothing,
    /// Messages and signals.
    Messages,
    /// Pieces of files.
    Chunks,
}

/// Commands of one connection that may be on their way to the disk at once. Enough to fill a group commit from one
/// sender.
pub const WINDOW: u32 = 64;
/// The same for chunks, in bytes of base64: some 3 MiB of a file, which keep a line of a gigabit a second full over
/// 25 ms. Below [`CHUNKS_MAX`], so that one sender does not have all the room.
///
/// [`CHUNKS_MAX`]: crate::commands::CHUNKS_MAX
pub const CHUNK_WINDOW: usize = 4 << 20;

impl Session {
    /// A connection whose handshake is done.
    pub fn new(conn: ConnId, peer: Peer) -> Session {
        Session {
            conn,
            peer,
            state: State::Anonymous,
            manual_ack: false,
            greeted_back: false,
            in_flight: 0,
            acks_in_flight: 0,
            overlap: Overlap::Nothing,
            chunk_bytes: 0,
            parked: None,
            waits_for_room: false,
            ended: false,
            closing: false,
            sent: 0,
            flushed: 0,
            long_reply: (0, 0),
        }
    }

    /// Bytes that wait for the reader.
    pub fn queued(&self) -> u64 {
        self.sent - self.flushed
    }

    /// Notes that the last `bytes` that were sent are one reply, if that is longer than the queue may be.
    pub fn note_reply(&mut self, bytes: u64, limit: u64) {
        if bytes > limit {
            self.long_reply = (self.sent, bytes);
        }
    }

    /// Of these, the bytes that are not of a long reply: what came without having been asked for, in the main.
    pub fn queued_unasked(&self) -> u64 {
        let (end, len) = self.long_reply;
        self.queued() - end.saturating_sub(self.flushed).min(len)
    }

    /// The logged-in account's part, once the proof held.
    pub fn member(&self) -> Option<&Member> {
        match &self.state {
            State::Anonymous | State::Authenticating(None) => None,
            State::Authenticating(Some(member)) | State::Ready(member) => Some(member),
        }
    }

    /// As [`Session::member`].
    pub fn member_mut(&mut self) -> Option<&mut Member> {
        match &mut self.state {
            State::Anonymous | State::Authenticating(None) => None,
            State::Authenticating(Some(member)) | State::Ready(member) => Some(member),
        }
    }

    /// Whether events go to it: not before its login was answered.
    pub fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready(_)) && !self.closing
    }

    /// Whether messages or signals wait for it in the store.
    pub fn is_behind(&self) -> bool {
        self.member().is_some_and(|member| member.delivery.is_behind() || member.signals.is_behind())
    }

    /// Whether the next line may be given to the core.
    pub fn takes_line(&self) -> bool {
        let may_overlap = match self.overlap {
            Overlap::Nothing => false,
            Overlap::Messages => self.in_flight < WINDOW,
            Overlap::Chunks => self.in_flight < WINDOW && self.chunk_bytes + CHUNK_TEXT_MAX <= CHUNK_WINDOW,
        };
        (self.in_flight == 0 || may_overlap) && self.parked.is_none() && !self.closing
    }
}

//! What goes into the core and what comes out of it.

use std::time::{Duration, Instant};

use super::settings::Settings;
use crate::ops::{AddressBlock, Done, HashDone, HashOp, Op, OutsideChange, Query, Ticket};
use crate::protocol::{LineFault, Timestamp};
use crate::session::delivery::Lines;
use crate::session::{ConnId, Peer};

/// The one reading of the clocks that a turn of the loop works with.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// For intervals.
    pub monotonic: Instant,
    /// For people.
    pub wall: Timestamp,
}

/// Which deadline of the transport has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// The one that [`Effect::Deadline`] set.
    Session,
    /// A line was begun and not finished.
    Line,
    /// Bytes wait and the reader took none for the time of `stalled_seconds`.
    Stalled,
}

/// What only the loop can measure, for `/admin stats`.
#[derive(Debug, Clone, Default)]
pub struct Gauges {
    /// How long the daemon runs.
    pub uptime: Duration,
    /// Open connections, logged in or not.
    pub connections: u64,
    /// Resident memory in bytes.
    pub memory: u64,
    /// Commits since the start.
    pub commits: u64,
    /// Writes in those commits.
    pub committed: u64,
    /// Writes in the largest commit.
    pub largest_batch: u64,
    /// Writes that wait for the store.
    pub write_queue: u64,
    /// Reads that wait for the store.
    pub read_queue: u64,
}

/// Something that happened.
#[derive(Debug)]
pub enum Input<'a> {
    /// A handshake is done.
    Opened(ConnId, Peer),
    /// A line came, or what could not be one. Only while [`Session::takes_line`].
    ///
    /// [`Session::takes_line`]: crate::session::Session::takes_line
    Line(ConnId, Result<&'a str, LineFault>),
    /// No further line will come; the other side may still read.
    Ended(ConnId),
    /// The operating system has taken so many bytes since the connection opened.
    Flushed(ConnId, u64),
    /// A deadline has passed.
    Expired(ConnId, Expiry),
    /// The connection is gone.
    Closed(ConnId),
    /// The store's answer.
    Stored(Ticket, Done),
    /// The hasher's answer.
    Hashed(Ticket, HashDone),
    /// The loop's answer to [`Effect::Measure`].
    Measured(Ticket, Gauges),
    /// The operator changed an account beside the daemon.
    Outside(OutsideChange),
    /// New settings hold from now on.
    Reloaded(Settings),
    /// Some seconds have passed: what failed may be tried again, old things may be deleted.
    Tick,
    /// The server is to end: whoever ends from now on is told so.
    ShuttingDown,
}

/// Something to do.
#[derive(Debug)]
pub enum Effect {
    /// Queue these lines for one connection.
    Send(ConnId, Vec<u8>),
    /// Queue the same lines for several connections.
    Fanout(Vec<ConnId>, Lines),
    /// Submit a write.
    Persist(Ticket, Op),
    /// Submit a read.
    Ask(Ticket, Query),
    /// Submit a password.
    Hash(Ticket, HashOp),
    /// Report the gauges.
    Measure(Ticket),
    /// Wake the session at this time unless told otherwise before.
    Deadline(ConnId, Option<Instant>),
    /// Lines of the connection may from now on be so long, in bytes with the ending.
    MaxLine(ConnId, usize),
    /// Lines of the connection that waited may come now.
    Resume(ConnId),
    /// Close once everything queued was sent.
    Close(ConnId),
    /// Refuse connections from these addresses.
    Blocked(Vec<AddressBlock>),
    /// End the server.
    ShutDown,
}

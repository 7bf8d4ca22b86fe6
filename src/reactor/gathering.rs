//! A large audience waits a moment where more for it is about to be stored.
//!
//! Writing to a hundred connections takes longer than a commit on a fast disk. Were each message written as soon as
//! it is stored, those of a busy room would reach its readers one by one, each as a record and a write of its own,
//! while the next are being committed. Waiting for the commit that is under way, once, brings them together; who
//! answers to what was read then answers together too, so that commits become larger as well, and soon nothing has to
//! wait. Small audiences never wait, nothing does where the store is idle or the disk is slow, and nobody's own
//! replies do.

use std::time::{Duration, Instant};

use crate::session::ConnId;

/// Readers of a message that are written to in about the time that a commit takes, some 5 µs each.
const LARGE: usize = 32;
/// The longest wait, and the slowest commit that is waited for: what poll(2) can wait at least, and as long as
/// writing to two hundred readers takes.
pub(super) const GATHER_TIME: Duration = Duration::from_millis(1);

/// Connections that have something to be written, which waits.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    /// The readers of each message that waits.
    waiting: Vec<Vec<ConnId>>,
    until: Option<Instant>,
}

impl Gathering {
    /// Whether a message for so many readers is worth a wait for the commit that is under way.
    pub(super) fn is_worth(readers: usize) -> bool {
        readers >= LARGE
    }

    /// Lets these wait.
    pub(super) fn wait(&mut self, readers: Vec<ConnId>, now: Instant) {
        self.waiting.push(readers);
        self.until.get_or_insert(now + GATHER_TIME);
    }

    /// When the wait is over at the latest.
    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }

    /// The wait is over.
    pub(super) fn release(&mut self) -> impl Iterator<Item = ConnId> + use<> {
        self.until = None;
        std::mem::take(&mut self.waiting).into_iter().flatten()
    }
}

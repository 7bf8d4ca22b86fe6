//! Deadlines of connections, the next first.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use crate::session::ConnId;

/// A queue in which a connection stands for its next deadline. A deadline that moves back is noticed when
/// the old one comes: the connection is put in again, so that traffic costs nothing here.
#[derive(Debug, Default)]
pub(super) struct Timers {
    queue: BinaryHeap<Reverse<(Instant, ConnId)>>,
}

impl Timers {
    /// Puts a connection in; `armed` is for when it already stands there.
    pub(super) fn arm(&mut self, id: ConnId, next: Option<Instant>, armed: &mut Option<Instant>) {
        if let Some(next) = next
            && armed.is_none_or(|armed| next < armed)
        {
            *armed = Some(next);
            self.queue.push(Reverse((next, id)));
        }
    }

    /// The next connection whose time has come, and which time that was.
    pub(super) fn due(&mut self, now: Instant) -> Option<(ConnId, Instant)> {
        let Reverse((at, _)) = self.queue.peek()?;
        if *at > now {
            return None;
        }
        self.queue.pop().map(|Reverse((at, id))| (id, at))
    }

    /// How long until then.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        self.queue.peek().map(|Reverse((at, _))| at.saturating_duration_since(now))
    }
}

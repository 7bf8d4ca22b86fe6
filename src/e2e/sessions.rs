//! The sessions with one device: which one is used, how many are kept, and when a reset may be sent.
//!
//! Both sides may start a session at the same moment, and a restored store starts one behind the
//! peer's back. The rule that picks the active session is the same on both sides and depends on
//! nothing but the sessions, so they converge (Signal, "The Sesame Algorithm", does it by use).

use std::collections::VecDeque;

use zeroize::Zeroizing;

use super::error::{Damaged, Error};
use super::name::{Mark, SessionId};
use super::ratchet::Session;
use super::time::{DAY, HOUR, Now};
use super::wire::{Malformed, Put, Reader};

/// Sessions beside the active one: they only receive what is still under way.
pub const OTHERS_MAX: usize = 2;
/// How long such a session lives after its last use, in seconds.
pub const OTHERS_KEEP: u64 = 7 * DAY;
/// Resets to one device in a day, and the seconds between two: whoever can corrupt messages can
/// cause resets, and each costs the peer a one-time prekey.
pub const RESETS_PER_DAY: usize = 6;
/// See [`RESETS_PER_DAY`].
pub const RESET_EVERY: u64 = HOUR;
/// Failed envelopes remembered, so that the same one again is no new failure.
pub const FAILURES_MAX: usize = 64;

const ROW_VERSION: u8 = 1;

/// What this device shares with one other device. One row of the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// The active session first, the others by last use.
    sessions: Vec<Session>,
    /// A reset arrived in a session that is not the active one: the next message starts a new one.
    restart: bool,
    /// When resets were sent in the last day, Unix seconds.
    resets: VecDeque<u64>,
    failures: VecDeque<Mark>,
}

/// How a device can be sealed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// The active session serves.
    Nothing,
    /// The active session serves, a new one is due: fetch a bundle if one can be had.
    BundleIfPossible,
    /// Only a new session serves: a bundle must be fetched.
    Bundle,
}

impl Peer {
    /// The session that is used for sending: the greatest `born_ms`, at a tie the lower sid.
    pub fn active(&self) -> Option<&Session> {
        self.sessions.first()
    }

    /// All sessions, the active one first.
    pub fn sessions(&self) -> &[Session] {
        &self.sessions
    }

    /// A session by its id.
    pub fn session(&self, sid: SessionId) -> Option<&Session> {
        self.sessions.iter().find(|session| session.sid() == sid)
    }

    /// What it takes to seal to this device.
    pub fn need(&self, now: Now) -> Need {
        match self.active() {
            Some(session) if !self.restart && !session.exhausted() => {
                if session.aged(now) {
                    Need::BundleIfPossible
                } else {
                    Need::Nothing
                }
            }
            _ => Need::Bundle,
        }
    }

    /// The `born_ms` of a session made now: after every known one, whatever the clocks say.
    pub(crate) fn next_born_ms(&self, now: Now) -> u64 {
        let newest = self.sessions.iter().map(Session::born_ms).max();
        newest.map_or(now.ms(), |newest| now.ms().max(newest.saturating_add(1)))
    }

    /// With a session put in (or put back after use), in order and within the limits.
    #[must_use]
    pub(crate) fn with(&self, session: Session, now: Now) -> Self {
        let others = self.sessions.iter().filter(|known| known.sid() != session.sid()).cloned();
        let mut next = Self { sessions: others.collect(), ..self.without_sessions() };
        next.sessions.push(session);
        // The active one is a matter of birth, so an old session can never become active again, and a
        // stolen old state cannot draw traffic back.
        next.sessions.sort_by(|a, b| b.born_ms().cmp(&a.born_ms()).then(a.sid().cmp(&b.sid())));
        if let Some((_, others)) = next.sessions.split_first_mut() {
            others.sort_by_key(|session| core::cmp::Reverse(session.used()));
        }
        next.sessions.truncate(1 + OTHERS_MAX);
        next.expire(now)
    }

    fn without_sessions(&self) -> Self {
        let (resets, failures) = (self.resets.clone(), self.failures.clone());
        Self { sessions: Vec::new(), restart: self.restart, resets, failures }
    }

    /// Without the sessions that have had their time.
    #[must_use]
    pub fn expire(mut self, now: Now) -> Self {
        let active = self.active().map(Session::sid);
        self.sessions.retain(|session| Some(session.sid()) == active || now.since(session.used()) <= OTHERS_KEEP);
        self
    }

    /// Notes that a new session was started by us: whatever asked for one is answered.
    pub(crate) fn started(&mut self) {
        self.restart = false;
    }

    /// Notes a reset that was opened in session `sid`.
    pub(crate) fn reset_received(&mut self, sid: SessionId) {
        self.restart = self.active().is_some_and(|active| active.sid() != sid);
    }

    /// Notes an envelope from this device that could not be opened. `Some` is the state to commit
    /// together with a reset that may be sent now; `None` if the failure calls for none, was seen
    /// before, or the budget is used up (then nothing changes).
    ///
    /// The reset itself is a new session whose first message is [`super::inner::Body::Reset`].
    #[must_use]
    pub fn reset_after(&self, error: Error, mark: Mark, now: Now) -> Option<Self> {
        let mut next = self.clone();
        next.resets.retain(|at| now.since(*at) < DAY);
        let allowed = next.resets.len() < RESETS_PER_DAY
            && next.resets.back().is_none_or(|last| now.since(*last) >= RESET_EVERY)
            && error.calls_for_reset()
            && !next.failures.contains(&mark);
        if !allowed {
            return None;
        }
        next.resets.push_back(now.secs());
        next.failures.push_back(mark);
        while next.failures.len() > FAILURES_MAX {
            next.failures.pop_front();
        }
        // The session that failed is not trusted with the answer.
        next.restart = true;
        Some(next)
    }

    /// The row.
    pub fn to_row(&self) -> Zeroizing<Vec<u8>> {
        let keys: usize = self.sessions.iter().map(Session::skipped_keys).sum();
        let mut row = Zeroizing::new(Vec::with_capacity(512 + 2048 * self.sessions.len() + 44 * keys));
        row.put_u8(ROW_VERSION).put_bool(self.restart).put_count(self.resets.len());
        self.resets.iter().for_each(|at| {
            row.put_u64(*at);
        });
        row.put_count(self.failures.len());
        self.failures.iter().for_each(|mark| {
            row.put(&mark.0);
        });
        row.put_count(self.sessions.len());
        self.sessions.iter().for_each(|session| session.write(&mut row));
        row
    }

    /// Reads a row.
    ///
    /// # Errors
    /// [`Damaged`].
    pub fn from_row(row: &[u8]) -> Result<Self, Damaged> {
        let mut r = Reader::new(row);
        r.expect_bytes(&[ROW_VERSION])?;
        let restart = r.bool()?;
        let resets = (0..r.u32()?).map(|_| r.u64()).collect::<Result<_, Malformed>>()?;
        let failures = (0..r.u32()?).map(|_| r.array().map(Mark)).collect::<Result<_, Malformed>>()?;
        let sessions = (0..r.u32()?).map(|_| Session::read(&mut r)).collect::<Result<_, _>>()?;
        r.end()?;
        Ok(Self { sessions, restart, resets, failures })
    }
}

//! Order in a conversation: what one device said there, in its own numbering.
//!
//! In the log, conv_seq counts from 1 for each (sending device, conversation), and conv_prev is the
//! hash of the inner message before. The receiver sees from it what a server dropped, and that a
//! store was cloned or restored: two messages under one number, or a number that follows another
//! message than the one that was seen.

use std::collections::VecDeque;
use std::sync::Arc;

use super::error::Damaged;
use super::wire::{Malformed, Put, Reader};

/// Messages whose hashes are kept, to tell the same message again from another under its number.
pub const RECENT_MAX: usize = 128;
/// Runs of numbers kept apart; when there are more gaps than that, the oldest count as final.
pub const RUNS_MAX: usize = 64;

const ROW_VERSION: u8 = 1;

/// What this device is to put on its next message in a conversation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outgoing {
    /// The number of the last message, 0 before the first.
    pub(crate) seq: u32,
    /// H(that inner message); zeros before the first.
    pub(crate) prev: [u8; 32],
}

impl Outgoing {
    /// The row.
    pub fn to_row(&self) -> Vec<u8> {
        let mut row = vec![ROW_VERSION];
        row.put_u32(self.seq).put(&self.prev);
        row
    }

    /// Reads a row.
    ///
    /// # Errors
    /// [`Damaged`].
    pub fn from_row(row: &[u8]) -> Result<Self, Damaged> {
        let mut r = Reader::new(row);
        r.expect_bytes(&[ROW_VERSION])?;
        let out = Self { seq: r.u32()?, prev: r.array()? };
        r.end()?;
        Ok(out)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    seq: u32,
    hash: [u8; 32],
    prev: [u8; 32],
}

/// What was seen of one device in one conversation. One row of the store.
///
/// Every message makes a copy, which shares the hashes with the thread before it and has its own beside them; once
/// it has taken the other's place, `settle` puts it in.
#[derive(Clone, Debug, Default)]
pub struct Thread {
    /// Runs of numbers seen, first and last, ascending and apart.
    runs: Vec<(u32, u32)>,
    /// Missing numbers in gaps that are no longer kept apart.
    lost: u64,
    recent: Arc<VecDeque<Seen>>,
    /// The newest, if it was not settled yet.
    latest: Option<Seen>,
}

/// Whether it is settled is no difference.
impl PartialEq for Thread {
    fn eq(&self, other: &Self) -> bool {
        self.runs == other.runs && self.lost == other.lost && self.seen().eq(other.seen())
    }
}

impl Eq for Thread {}

/// How a message fits into its conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// How many messages of this device are missing here, from the lowest number opened.
    pub missing: u64,
    /// Another message under a known number, or one that does not follow the one before it: a cloned
    /// or restored store.
    pub conflict: bool,
}

impl Thread {
    /// Notes a message; `hash` is H(inner message). The thread after it, and how it fits.
    #[must_use]
    pub fn note(&self, seq: u32, prev: [u8; 32], hash: [u8; 32]) -> (Self, Place) {
        let mut next = self.clone();
        let [mut before, mut same, mut after] = [None; 3];
        for seen in self.seen() {
            if seen.seq == seq {
                same.get_or_insert(seen);
            } else if Some(seen.seq) == seq.checked_sub(1) {
                before.get_or_insert(seen);
            } else if Some(seen.seq) == seq.checked_add(1) {
                after.get_or_insert(seen);
            }
        }
        let known = same.is_some_and(|seen| seen.hash == hash);
        let conflict = (self.contains(seq) && !known)
            || before.is_some_and(|before| before.hash != prev)
            || after.is_some_and(|after| after.prev != hash);
        if !known {
            next.add(seq);
            next.settle();
            next.latest = Some(Seen { seq, hash, prev });
        }
        let missing = next.missing();
        (next, Place { missing, conflict })
    }

    /// Puts the newest hash with the others, in place if nobody shares them any more.
    pub(crate) fn settle(&mut self) {
        if let Some(latest) = self.latest.take() {
            let recent = Arc::make_mut(&mut self.recent);
            recent.push_back(latest);
            while recent.len() > RECENT_MAX {
                recent.pop_front();
            }
        }
    }

    /// The newest hashes, oldest first.
    fn seen(&self) -> impl Iterator<Item = &Seen> {
        let all = self.recent.len() + usize::from(self.latest.is_some());
        self.recent.iter().chain(&self.latest).skip(all.saturating_sub(RECENT_MAX))
    }

    /// How many numbers between the lowest and the highest seen are missing.
    pub fn missing(&self) -> u64 {
        let gaps =
            self.runs.iter().zip(self.runs.iter().skip(1)).map(|((_, end), (start, _))| u64::from(start - end - 1));
        self.lost.saturating_add(gaps.sum::<u64>())
    }

    fn contains(&self, seq: u32) -> bool {
        self.runs.iter().any(|(start, end)| (*start..=*end).contains(&seq))
    }

    fn add(&mut self, seq: u32) {
        if self.contains(seq) {
            return;
        }
        // Number and run are apart by at least one, or they join.
        let at = self.runs.partition_point(|(_, end)| *end < seq);
        self.runs.insert(at, (seq, seq));
        self.runs.dedup_by(|right, left| {
            let joins = left.1.checked_add(1) == Some(right.0);
            if joins {
                left.1 = right.1;
            }
            joins
        });
        while self.runs.len() > RUNS_MAX {
            let first = self.runs.remove(0);
            if let Some(second) = self.runs.first_mut() {
                self.lost = self.lost.saturating_add(u64::from(second.0 - first.1 - 1));
                second.0 = first.0;
            }
        }
    }

    /// The row.
    pub fn to_row(&self) -> Vec<u8> {
        let mut row = vec![ROW_VERSION];
        row.put_u64(self.lost).put_count(self.runs.len());
        for (start, end) in &self.runs {
            row.put_u32(*start).put_u32(*end);
        }
        row.put_count(self.seen().count());
        for seen in self.seen() {
            row.put_u32(seen.seq).put(&seen.hash).put(&seen.prev);
        }
        row
    }

    /// Reads a row.
    ///
    /// # Errors
    /// [`Damaged`].
    pub fn from_row(row: &[u8]) -> Result<Self, Damaged> {
        let mut r = Reader::new(row);
        r.expect_bytes(&[ROW_VERSION])?;
        let lost = r.u64()?;
        let runs = (0..r.u32()?).map(|_| Ok((r.u32()?, r.u32()?))).collect::<Result<Vec<(u32, u32)>, Malformed>>()?;
        let recent = (0..r.u32()?)
            .map(|_| Ok(Seen { seq: r.u32()?, hash: r.array()?, prev: r.array()? }))
            .collect::<Result<_, Malformed>>()?;
        r.end()?;
        let apart = runs.is_sorted_by(|a, b| a.1 < b.0) && runs.iter().all(|(start, end)| start <= end);
        if apart { Ok(Self { runs, lost, recent: Arc::new(recent), latest: None }) } else { Err(Damaged) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn h(seq: u32) -> [u8; 32] {
        if seq == 0 { [0; 32] } else { [seq as u8; 32] }
    }

    fn note(thread: &mut Thread, seq: u32) -> Place {
        let (next, place) = thread.note(seq, h(seq - 1), h(seq));
        let mut settled = next.clone();
        settled.settle();
        assert!(settled == next && settled.to_row() == next.to_row());
        *thread = if seq.is_multiple_of(2) { next } else { settled };
        place
    }

    #[test]
    fn gaps_are_counted_from_the_lowest_number_opened() {
        let mut thread = Thread::default();
        assert_eq!(note(&mut thread, 5).missing, 0);
        assert_eq!(note(&mut thread, 8).missing, 2);
        assert_eq!(note(&mut thread, 3).missing, 3);
        assert_eq!(note(&mut thread, 6).missing, 2);
        assert_eq!(note(&mut thread, 7).missing, 1);
        assert_eq!(note(&mut thread, 4), Place { missing: 0, conflict: false });
        assert_eq!(thread.runs, [(3, 8)]);
        assert_eq!(Thread::from_row(&thread.to_row()), Ok(thread));
    }

    #[test]
    fn another_history_is_a_conflict() {
        let mut thread = Thread::default();
        note(&mut thread, 1);
        note(&mut thread, 3);
        assert!(!note(&mut thread, 3).conflict, "the same again is none");
        assert!(thread.note(3, h(2), [9; 32]).1.conflict, "another message under a known number");
        assert!(thread.note(4, [9; 32], h(4)).1.conflict, "follows another message");
        assert!(thread.note(2, h(1), [9; 32]).1.conflict, "is followed by another message");
    }

    proptest! {
        #[test]
        fn any_order_comes_to_the_same_count(order in Just((1..100_u32).collect::<Vec<_>>()).prop_shuffle(), keep in 1_usize..99) {
            let mut thread = Thread::default();
            order[..keep].iter().for_each(|seq| { note(&mut thread, *seq); });
            let (low, high) = (order[..keep].iter().min().unwrap(), order[..keep].iter().max().unwrap());
            prop_assert_eq!(thread.missing(), u64::from(high - low + 1) - keep as u64);
            prop_assert!(thread.runs.len() <= RUNS_MAX && thread.seen().count() <= RECENT_MAX);
            prop_assert_eq!(Thread::from_row(&thread.to_row()), Ok(thread));
        }
    }
}

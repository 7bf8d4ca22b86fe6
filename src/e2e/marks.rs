//! Replay marks: what is remembered of envelopes that were opened.

use std::collections::{BTreeSet, VecDeque};

use super::error::Damaged;
use super::kdf;
use super::name::Mark;
use super::wire::{Malformed, Put, Reader};

/// Marks kept for each sending device; the oldest go first. The ratchet itself refuses what is older
/// (its keys are gone); the marks tell a repetition from a failure that would call for a reset.
pub const MARKS_MAX: usize = 10_000;

const ROW_VERSION: u8 = 1;

/// H(envelope)[0..16]: of a slot, or of a whole GROUP.
pub fn mark(envelope: &[u8]) -> Mark {
    Mark(kdf::first16(kdf::hash(&[envelope])))
}

/// The newest marks of one sending device, oldest first. A store may hold them as a row of bytes, or
/// as a table from which the client fills this set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    order: VecDeque<Mark>,
    set: BTreeSet<Mark>,
}

impl Marks {
    /// Whether the envelope was opened before.
    pub fn contains(&self, mark: Mark) -> bool {
        self.set.contains(&mark) && !cfg!(feature = "break-replay-mark")
    }

    /// Remembers an envelope. Returns the mark that had to go for it.
    pub fn insert(&mut self, mark: Mark) -> Option<Mark> {
        if !self.set.insert(mark) {
            return None;
        }
        self.order.push_back(mark);
        if self.order.len() <= MARKS_MAX {
            return None;
        }
        let oldest = self.order.pop_front()?;
        self.set.remove(&oldest);
        Some(oldest)
    }

    /// The row.
    pub fn to_row(&self) -> Vec<u8> {
        let mut row = Vec::with_capacity(1 + 16 * self.order.len());
        row.put_u8(ROW_VERSION);
        self.order.iter().for_each(|mark| {
            row.put(&mark.0);
        });
        row
    }

    /// Reads a row.
    ///
    /// # Errors
    /// [`Damaged`].
    pub fn from_row(row: &[u8]) -> Result<Self, Damaged> {
        let mut r = Reader::new(row);
        r.expect_bytes(&[ROW_VERSION])?;
        if r.left() > 16 * MARKS_MAX {
            return Err(Damaged);
        }
        let order =
            (0..r.left().div_ceil(16)).map(|_| r.array().map(Mark)).collect::<Result<VecDeque<_>, Malformed>>()?;
        let set = order.iter().copied().collect();
        Ok(Self { order, set })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_ten_thousand_are_known() {
        let of = |i: u32| mark(&i.to_be_bytes());
        let mut marks = Marks::default();
        for i in 0..10_000 {
            assert_eq!(marks.insert(of(i)), None);
        }
        assert_eq!(marks.insert(of(5)), None);
        assert_eq!(marks.insert(of(10_000)), Some(of(0)));
        assert!(!marks.contains(of(0)) && (marks.contains(of(1)) || cfg!(feature = "break-replay-mark")));
        assert_eq!(Marks::from_row(&marks.to_row()), Ok(marks));
        assert_eq!(Marks::from_row(&[1, 2]), Err(Damaged));
    }
}

//! Saying once in a while what would otherwise be said with every request.

use std::time::{Duration, Instant};

/// A disk that fails or is full is logged at most this often.
const COMPLAINT_EVERY: Duration = Duration::from_secs(10);

/// When something was complained about last; nothing while it works.
#[derive(Debug, Default)]
pub(super) struct Complaint(Option<Instant>);

impl Complaint {
    /// Whether to complain at this moment.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        let due = self.0.is_none_or(|since| now.saturating_duration_since(since) >= COMPLAINT_EVERY);
        if due {
            self.0 = Some(now);
        }
        due
    }

    /// It works; whether there was a complaint.
    pub(super) fn settle(&mut self) -> bool {
        self.0.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_comes_at_once_and_then_seldom() {
        let (mut complaint, begun) = (Complaint::default(), Instant::now());
        assert!(!complaint.settle() && complaint.is_due(begun));
        assert!((0..1000).all(|n| !complaint.is_due(begun + COMPLAINT_EVERY * n / 1000)));
        assert!(complaint.is_due(begun + COMPLAINT_EVERY));
        assert!(complaint.settle() && !complaint.settle(), "said once");
        assert!(complaint.is_due(begun + COMPLAINT_EVERY), "that was another one");
    }
}

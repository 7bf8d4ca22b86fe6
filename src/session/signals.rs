//! Which signals one session was sent, and which wait for it in the store.
//!
//! As with messages ([`super::delivery`]): while the queue has room, a signal goes straight into it. When it
//! has none, only the range of numbers is noted; when the reader has taken most of the queue, the range is
//! read back, a page at a time. What was acknowledged meanwhile is gone and is not sent. Nothing is held
//! in memory but numbers, and nothing here acknowledges: that is for the client to say.

use super::delivery::{OWN_MAX, PART, Verdict};

#[derive(Debug)]
struct Lag {
    /// Everything up to here was sent, or is not for this session.
    after: u64,
    /// The last that came.
    upto: u64,
    /// Those that this session sent to its own account meanwhile.
    own: Vec<u64>,
    /// Up to where the page under way was asked for; `None` while none is.
    reading: Option<u64>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct SignalDelivery {
    lag: Option<Lag>,
}

impl SignalDelivery {
    /// Whether signals wait in the store.
    pub fn is_behind(&self) -> bool {
        self.lag.is_some()
    }

    /// Whether its own signals can still be told from those that wait.
    pub fn takes_own(&self) -> bool {
        self.lag.as_ref().is_none_or(|lag| lag.own.len() < OWN_MAX)
    }

    /// A signal of so many bytes is there for it. `queued` are the bytes in its queue, `limit` the most that may
    /// be; an empty queue takes one of any length, since no drained byte would ever call for it.
    pub fn offer(&mut self, id: u64, bytes: u64, queued: u64, limit: u64) -> Verdict {
        match &mut self.lag {
            None if queued == 0 || queued + bytes <= limit => return Verdict::Send,
            None => self.lag = Some(Lag { after: id.saturating_sub(1), upto: id, own: Vec::new(), reading: None }),
            Some(lag) => lag.upto = id,
        }
        Verdict::Wait
    }

    /// The session itself sent this one, so it is not for it.
    pub fn sent_by_itself(&mut self, id: u64) {
        if let Some(lag) = &mut self.lag {
            lag.own.push(id);
        }
    }

    /// Behind which number to read now, if it is time: some wait, no page is being read, the queue is short.
    pub fn read_back(&mut self, queued: u64, limit: u64) -> Option<u64> {
        let lag = self.lag.as_mut().filter(|lag| lag.reading.is_none() && queued <= limit / PART)?;
        lag.reading = Some(lag.upto);
        Some(lag.after)
    }

    /// Takes the numbers of a page that was read back, rising: answers for each whether it is due. Afterwards
    /// the session is live, or has more to read.
    pub fn take_page(&mut self, ids: &[u64], more: bool) -> Vec<bool> {
        let Some(lag) = &mut self.lag else { return vec![false; ids.len()] };
        // What lies behind the last that the session was offered will be offered yet.
        let due = |id: &u64| *id > lag.after && *id <= lag.upto && !lag.own.contains(id);
        let due = ids.iter().map(due).collect();
        let asked = lag.reading.take().unwrap_or(lag.after);
        let last = ids.last().copied().unwrap_or(lag.after);
        let seen = if more { last } else { last.max(asked) };
        lag.after = lag.after.max(seen.min(lag.upto));
        if lag.after >= lag.upto {
            self.lag = None;
        }
        due
    }

    /// The page could not be read: it is asked for again.
    pub fn page_failed(&mut self) {
        if let Some(lag) = &mut self.lag {
            lag.reading = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = 1000;

    #[test]
    fn a_full_queue_goes_behind_and_comes_back() {
        let mut signals = SignalDelivery::default();
        assert_eq!(signals.offer(3, 2000, 0, LIMIT), Verdict::Send, "an empty queue takes any length");
        assert_eq!(signals.offer(4, 100, 950, LIMIT), Verdict::Wait);
        assert_eq!(signals.read_back(600, LIMIT), None, "the queue is still long");
        assert_eq!(signals.read_back(250, LIMIT), Some(3));
        assert_eq!(signals.read_back(0, LIMIT), None, "a page is being read");
        assert_eq!(signals.offer(5, 100, 0, LIMIT), Verdict::Wait, "not in front of those that wait");
        signals.sent_by_itself(6);
        assert_eq!(signals.offer(7, 100, 0, LIMIT), Verdict::Wait);
        // 5 was in the snapshot; 8 is stored, and not offered yet.
        assert_eq!(signals.take_page(&[4, 5], false), [true, true]);
        assert_eq!(signals.read_back(0, LIMIT), Some(5));
        assert_eq!(signals.take_page(&[6, 7, 8], false), [false, true, false]);
        assert!(!signals.is_behind());
        assert_eq!(signals.offer(8, 100, 0, LIMIT), Verdict::Send);
    }

    #[test]
    fn what_was_acknowledged_meanwhile_leaves_nothing_to_wait_for() {
        let mut signals = SignalDelivery::default();
        signals.offer(4, 100, LIMIT, LIMIT);
        assert_eq!(signals.read_back(0, LIMIT), Some(3));
        assert_eq!(signals.take_page(&[], false), [true; 0]);
        assert!(!signals.is_behind());
    }

    #[test]
    fn a_page_that_ends_early_goes_on_and_a_failed_one_again() {
        let mut signals = SignalDelivery::default();
        signals.offer(4, 100, LIMIT, LIMIT);
        signals.offer(9, 100, LIMIT, LIMIT);
        assert_eq!(signals.read_back(0, LIMIT), Some(3));
        assert_eq!(signals.take_page(&[4, 5], true), [true, true]);
        assert_eq!(signals.read_back(0, LIMIT), Some(5));
        signals.page_failed();
        assert_eq!(signals.read_back(0, LIMIT), Some(5));
        assert_eq!(signals.take_page(&[10, 11], true), [false, false], "all up to 9 are gone");
        assert!(!signals.is_behind());
    }

    #[test]
    fn a_signal_that_came_behind_the_page_is_not_taken_for_sent() {
        let mut signals = SignalDelivery::default();
        signals.offer(1, 100, LIMIT, LIMIT);
        assert_eq!(signals.read_back(0, LIMIT), Some(0));
        signals.offer(2, 100, LIMIT, LIMIT);
        assert_eq!(signals.take_page(&[1], false), [true]);
        assert_eq!(signals.read_back(0, LIMIT), Some(1));
    }
}

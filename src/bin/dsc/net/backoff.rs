//! How long to wait before a lost connection is tried again.

use std::time::Duration;

/// The longest first wait. A server that restarts is back within a second or so.
pub(crate) const FIRST: Duration = Duration::from_millis(500);
/// The longest wait of all. A server that was away for hours is found again within a minute.
pub(crate) const LONGEST: Duration = Duration::from_secs(60);
/// A connection that lived so long was a good one. A shorter one counts as a failure, or two programs
/// that replace each other at the session limit would do so as fast as they can.
pub(crate) const LIVED: Duration = Duration::from_secs(30);

/// Exponential back-off with full jitter: each wait is uniform between nothing and a ceiling that doubles
/// with each failure. All clients of a server that was restarted then come back spread out, with the
/// least work for everyone (M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Backoff {
    ceiling: Duration,
}

impl Backoff {
    /// Before the first failure.
    pub(crate) fn new() -> Backoff {
        Backoff { ceiling: FIRST }
    }

    /// The wait after one more failure. `random` is uniform over all its values.
    pub(crate) fn next(&mut self, random: u64) -> Duration {
        let ceiling = self.ceiling;
        self.ceiling = ceiling.saturating_mul(2).min(LONGEST);
        // The upper half of the product of two 64-bit numbers is uniform below the second.
        let nanos = u64::try_from(ceiling.as_nanos()).unwrap_or(u64::MAX);
        let wait = (u128::from(random) * u128::from(nanos)) >> 64;
        Duration::from_nanos(u64::try_from(wait).unwrap_or(nanos))
    }

    /// Tells how long the last connection lived: a good one forgets the failures before it.
    pub(crate) fn lived(&mut self, time: Duration) {
        if time >= LIVED {
            *self = Backoff::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ceilings_double_up_to_the_longest() {
        let mut backoff = Backoff::new();
        let ceilings: Vec<u128> = (0..10).map(|_| backoff.next(u64::MAX).as_millis()).collect();
        // Just below each ceiling.
        assert_eq!(ceilings, [499, 999, 1999, 3999, 7999, 15_999, 31_999, 59_999, 59_999, 59_999]);
        assert_eq!(backoff.next(0), Duration::ZERO);
        assert_eq!(backoff.next(1 << 63), LONGEST / 2);
    }

    #[test]
    fn only_a_connection_that_lived_resets() {
        let mut backoff = Backoff::new();
        backoff.next(1);
        backoff.next(1);
        backoff.lived(LIVED - Duration::from_millis(1));
        assert_ne!(backoff, Backoff::new());
        backoff.lived(LIVED);
        assert_eq!(backoff, Backoff::new());
    }

    proptest! {
        #[test]
        fn waits_stay_below_their_ceiling(randoms in proptest::collection::vec(any::<u64>(), 1..40)) {
            let mut backoff = Backoff::new();
            for (n, random) in randoms.into_iter().enumerate() {
                let ceiling = FIRST.saturating_mul(1 << n.min(20)).min(LONGEST);
                prop_assert!(backoff.next(random) < ceiling);
            }
        }
    }
}

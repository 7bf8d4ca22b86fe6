//! Time, passed in. The module never reads a clock.

/// Unix time in milliseconds, as the caller's clock says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now(u64);

/// Seconds in a minute, an hour and a day.
pub(crate) const MINUTE: u64 = 60;
pub(crate) const HOUR: u64 = 60 * MINUTE;
pub(crate) const DAY: u64 = 24 * HOUR;

impl Now {
    /// From Unix milliseconds.
    pub const fn from_ms(ms: u64) -> Self {
        Self(ms)
    }

    /// From Unix seconds.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// Unix milliseconds.
    pub const fn ms(self) -> u64 {
        self.0
    }

    /// Unix seconds, rounded down.
    pub const fn secs(self) -> u64 {
        self.0 / 1000
    }

    /// Seconds since `then`; 0 if `then` is ahead.
    pub(crate) const fn since(self, then: u64) -> u64 {
        self.secs().saturating_sub(then)
    }
}

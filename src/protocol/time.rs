//! Points in time as the wire shows them: RFC 3339, UTC, milliseconds.

use std::fmt;

/// Milliseconds since 1970-01-01T00:00:00Z, at most the last day but one of the year 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Timestamp(u64);

/// 9999-12-30T22:00:00.000Z, the last that the time library can write in every zone.
const MAX_MS: u64 = 253_402_207_200_000;

impl Timestamp {
    /// The point `ms` milliseconds after the epoch; what lies behind the last becomes the last.
    pub fn from_millis(ms: u64) -> Timestamp {
        Timestamp(ms.min(MAX_MS))
    }

    /// Milliseconds since the epoch.
    pub fn as_millis(self) -> u64 {
        self.0
    }

    /// This point moved back by `ms` milliseconds, not beyond the epoch.
    pub fn earlier_by(self, ms: u64) -> Timestamp {
        Timestamp(self.0.saturating_sub(ms))
    }

    /// Reads what [`fmt::Display`] wrote, and any other RFC 3339 time since 1970.
    pub fn parse(text: &str) -> Option<Timestamp> {
        let time: jiff::Timestamp = text.parse().ok()?;
        Some(Timestamp::from_millis(time.as_millisecond().try_into().ok()?))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = i64::try_from(self.0).unwrap_or(i64::MAX);
        match jiff::Timestamp::from_millisecond(ms) {
            Ok(time) => write!(f, "{time:.3}"),
            Err(_) => Err(fmt::Error), // not reached: the constructor keeps the range
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_and_reads_rfc_3339() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_700_000_000_001, "2023-11-14T22:13:20.001Z"),
            (MAX_MS, "9999-12-30T22:00:00.000Z"),
        ] {
            assert_eq!(Timestamp::from_millis(ms).to_string(), text);
            assert_eq!(Timestamp::parse(text), Some(Timestamp::from_millis(ms)));
        }
        assert_eq!(Timestamp::from_millis(u64::MAX).as_millis(), MAX_MS);
        assert_eq!(Timestamp::parse("yesterday"), None);
    }
}

//! Padding: ISO 7816-4 (`80` and zeros) up to a length that says little about the text.
//!
//! The lengths are those of Padmé (Nikitin et al., "Reducing Metadata Leakage from Encrypted Files
//! and Communication with PURBs", 2019), with a floor: a text grows by at most 12 %, and its length
//! leaks O(log log L) bits.

use zeroize::Zeroizing;

use super::error::Error;

/// The first bucket: every short text looks alike.
pub const FLOOR: u64 = 256;

/// `max(256, Padmé(len))`, or `None` past 2⁶³, where rounding up could wrap.
pub(crate) fn padded_len(len: u64) -> Option<u64> {
    if len > 1 << 63 {
        return None;
    }
    let Some(e) = len.checked_ilog2().filter(|e| *e > 0) else { return Some(FLOOR) };
    let s = e.ilog2() + 1;
    let step = 1_u64 << e.saturating_sub(s);
    Some(len.next_multiple_of(step).max(FLOOR))
}

/// `x ‖ 80 ‖ zeros`.
pub fn pad(x: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(Vec::with_capacity(padded(x)));
    pad_onto(&mut out, x);
    out
}

/// How many bytes [`pad`] makes of a text.
pub(crate) fn padded(x: &[u8]) -> usize {
    target(x.len()).unwrap_or(x.len() + 1)
}

/// Appends what [`pad`] makes of a text.
pub(crate) fn pad_onto(out: &mut Vec<u8>, x: &[u8]) {
    let end = out.len() + padded(x);
    out.extend_from_slice(x);
    out.push(0x80);
    out.resize(end, 0);
}

/// Takes the padding off.
///
/// # Errors
/// [`Error::Padding`] unless the padding is the one that [`pad`] makes.
pub fn unpad(padded: &[u8]) -> Result<&[u8], Error> {
    let end = padded.iter().rposition(|b| *b != 0).ok_or(Error::Padding)?;
    let (x, mark) = padded.split_at_checked(end).ok_or(Error::Padding)?;
    if mark.first() != Some(&0x80) {
        return Err(Error::Padding);
    }
    if target(x.len()) != Some(padded.len()) && !cfg!(feature = "break-padding") {
        return Err(Error::Padding);
    }
    Ok(x)
}

fn target(len: usize) -> Option<usize> {
    padded_len(u64::try_from(len).ok()?.checked_add(1)?)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn matches_the_worked_example() {
        for (len, want) in [
            (0, 256),
            (257, 272),
            (1000, 1024),
            (1025, 1088),
            (20_000, 20_480),
            (100_000, 100_352),
            ((1 << 20) + 1, 1_081_344),
        ] {
            assert_eq!(padded_len(len), Some(want), "{len}");
        }
        assert_eq!(padded_len(u64::MAX), None);
    }

    #[test]
    fn another_length_or_pad_is_refused() {
        let good = pad(b"hello");
        assert_eq!((good.len(), unpad(&good)), (256, Ok(&b"hello"[..])));
        assert_eq!(unpad(&good[..255]), Err(Error::Padding));
        assert_eq!(unpad(&[&good[..], &[0]].concat()), Err(Error::Padding));
        assert_eq!(unpad(&[0; 256]), Err(Error::Padding));
        assert_eq!(unpad(&[1; 256]), Err(Error::Padding));
        assert_eq!(unpad(&[]), Err(Error::Padding));
    }

    proptest! {
        #[test]
        fn unpad_undoes_pad(x in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let padded = pad(&x);
            prop_assert_eq!(unpad(&padded), Ok(&x[..]));
            prop_assert!(padded.len() >= 256 && padded.len() <= (x.len() + 1) * 112 / 100 + 256);
        }
    }
}

//! The one reader and the one writer: big-endian integers, fixed arrays, `lp(x)` = u16 length ‖ x.
//!
//! Every parser of the module is a walk of `Reader` that ends in `Reader::end`, so a structure
//! is accepted at its exact length or not at all.

use super::secret::Secret;

/// The bytes are no structure of the kind that was asked for. Says nothing of why on purpose:
/// a parser's answer to hostile bytes is one bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed bytes")]
pub struct Malformed;

/// A cursor over borrowed bytes. Never panics, never allocates, never reads past the end.
#[derive(Clone)]
pub(crate) struct Reader<'a> {
    whole: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(whole: &'a [u8]) -> Self {
        Self { whole, at: 0 }
    }

    /// The next `n` bytes.
    pub(crate) fn take(&mut self, n: usize) -> Result<&'a [u8], Malformed> {
        let end = self.at.checked_add(n).ok_or(Malformed)?;
        let taken = self.whole.get(self.at..end).ok_or(Malformed)?;
        self.at = end;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed)
    }

    /// `N` bytes of a row of our own store, straight into a place that is wiped.
    pub(crate) fn secret<const N: usize>(&mut self) -> Result<Secret<N>, Malformed> {
        self.take(N).map(|bytes| Secret::cut(&mut bytes.iter()))
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    /// A byte that is 0 or 1.
    pub(crate) fn bool(&mut self) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed),
        }
    }

    /// `u16 length ‖ bytes`.
    pub(crate) fn lp(&mut self) -> Result<&'a [u8], Malformed> {
        let n = self.u16()?;
        self.take(usize::from(n))
    }

    /// UTF-8 behind a u8 length.
    pub(crate) fn short_str(&mut self) -> Result<&'a str, Malformed> {
        let n = self.u8()?;
        str::from_utf8(self.take(usize::from(n))?).map_err(|_| Malformed)
    }

    /// UTF-8 behind a u16 length.
    pub(crate) fn lp_str(&mut self) -> Result<&'a str, Malformed> {
        str::from_utf8(self.lp()?).map_err(|_| Malformed)
    }

    /// Exactly these bytes, as a magic number or a version must be.
    pub(crate) fn expect_bytes(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        if self.take(bytes.len())? == bytes { Ok(()) } else { Err(Malformed) }
    }

    /// All that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        let rest = self.whole.get(self.at..).unwrap_or_default();
        self.at = self.whole.len();
        rest
    }

    /// How many bytes are left.
    pub(crate) fn left(&self) -> usize {
        self.whole.len().saturating_sub(self.at)
    }

    /// What has been read so far, from byte 0: the raw bytes that go into hashes and AADs.
    pub(crate) fn consumed(&self) -> &'a [u8] {
        self.whole.get(..self.at).unwrap_or_default()
    }

    /// Refuses trailing bytes.
    pub(crate) fn end(self) -> Result<(), Malformed> {
        if self.left() == 0 { Ok(()) } else { Err(Malformed) }
    }
}

/// Appending, the mirror of [`Reader`].
pub(crate) trait Put {
    fn put(&mut self, bytes: &[u8]) -> &mut Self;

    fn put_u8(&mut self, x: u8) -> &mut Self {
        self.put(&[x])
    }
    fn put_u16(&mut self, x: u16) -> &mut Self {
        self.put(&x.to_be_bytes())
    }
    fn put_u32(&mut self, x: u32) -> &mut Self {
        self.put(&x.to_be_bytes())
    }
    fn put_u64(&mut self, x: u64) -> &mut Self {
        self.put(&x.to_be_bytes())
    }
    fn put_bool(&mut self, x: bool) -> &mut Self {
        self.put_u8(u8::from(x))
    }
    /// `u16 length ‖ bytes`. Whatever is written so is bounded far below 64 KiB where it is made
    /// (names 32 and 48, certificates 227, lists 625, keys 1184, file names 255); a longer value is
    /// cut to what the length says, which no parser of a peer takes for the original.
    fn put_lp(&mut self, bytes: &[u8]) -> &mut Self {
        debug_assert!(bytes.len() <= usize::from(u16::MAX));
        let n = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        self.put_u16(n);
        self.put(bytes.get(..usize::from(n)).unwrap_or(bytes))
    }
    /// `u8 length ‖ bytes`, for user names.
    fn put_short(&mut self, bytes: &[u8]) -> &mut Self {
        debug_assert!(bytes.len() <= usize::from(u8::MAX));
        self.put_u8(u8::try_from(bytes.len()).unwrap_or(u8::MAX));
        self.put(bytes)
    }
    /// A count, as u32.
    fn put_count(&mut self, n: usize) -> &mut Self {
        self.put_u32(u32::try_from(n).unwrap_or(u32::MAX))
    }
}

impl Put for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) -> &mut Self {
        self.extend_from_slice(bytes);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_was_written_and_refuses_the_rest() {
        let mut bytes = Vec::new();
        bytes.put_u8(7).put_u16(8).put_u32(9).put_u64(10).put_bool(true);
        bytes.put_lp(b"ab").put_short(b"c").put_u8(9);
        let mut r = Reader::new(&bytes);
        assert_eq!(r.u8(), Ok(7));
        assert_eq!(r.u16(), Ok(8));
        assert_eq!(r.u32(), Ok(9));
        assert_eq!(r.u64(), Ok(10));
        assert_eq!(r.bool(), Ok(true));
        assert_eq!(r.lp(), Ok(&b"ab"[..]));
        assert_eq!(r.short_str(), Ok("c"));
        assert_eq!(r.clone().end(), Err(Malformed));
        assert_eq!(r.u8(), Ok(9));
        assert_eq!(r.consumed(), &bytes[..]);
        assert_eq!(r.u8(), Err(Malformed));
        assert_eq!(r.end(), Ok(()));
    }

    #[test]
    fn a_length_past_the_end_is_refused() {
        assert_eq!(Reader::new(&[0, 3, 1, 2]).lp(), Err(Malformed));
        assert_eq!(Reader::new(&[2]).bool(), Err(Malformed));
        assert_eq!(Reader::new(&[1]).take(usize::MAX), Err(Malformed));
    }
}

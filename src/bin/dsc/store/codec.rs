//! What stands in a row before it is sealed: numbers as they are, everything else behind its length.
//!
//! Rows hold keys, so what is written is wiped wherever it was, also when the buffer has to grow.

use downstream::e2e::error::Damaged;
use zeroize::Zeroizing;

/// The length that says that there is no value.
const NONE: u32 = u32::MAX;

/// A row in the making.
pub(super) struct Row(Zeroizing<Vec<u8>>);

impl Row {
    pub(super) fn new() -> Row {
        Row(Zeroizing::new(Vec::with_capacity(256)))
    }

    fn raw(&mut self, bytes: &[u8]) {
        let needed = self.0.len().saturating_add(bytes.len());
        if needed > self.0.capacity() {
            // A vector that grows by itself leaves its old bytes behind; this one wipes them.
            let mut wider = Zeroizing::new(Vec::with_capacity(needed.saturating_mul(2)));
            wider.extend_from_slice(&self.0);
            self.0 = wider;
        }
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn byte(mut self, value: u8) -> Row {
        self.raw(&[value]);
        self
    }

    pub(super) fn number(mut self, value: u64) -> Row {
        self.raw(&value.to_be_bytes());
        self
    }

    /// An array whose length the reader knows.
    pub(super) fn array<const N: usize>(mut self, value: &[u8; N]) -> Row {
        self.raw(value);
        self
    }

    /// At most 4 GiB less a byte; everything that is kept is bounded far below, where it is made.
    pub(super) fn bytes(mut self, value: &[u8]) -> Row {
        let length = u32::try_from(value.len()).unwrap_or(NONE);
        debug_assert!(length < NONE);
        self.raw(&length.to_be_bytes());
        self.raw(value);
        self
    }

    pub(super) fn text(self, value: &str) -> Row {
        self.bytes(value.as_bytes())
    }

    pub(super) fn maybe(mut self, value: Option<&[u8]>) -> Row {
        match value {
            Some(value) => self.bytes(value),
            None => {
                self.raw(&NONE.to_be_bytes());
                self
            }
        }
    }

    pub(super) fn maybe_number(self, value: Option<u64>) -> Row {
        let bytes = value.map(u64::to_be_bytes);
        self.maybe(bytes.as_ref().map(<[u8; 8]>::as_slice))
    }

    pub(super) fn done(self) -> Zeroizing<Vec<u8>> {
        self.0
    }
}

/// A row being read. Every error is [`Damaged`]: the row was sealed by this program.
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn of(row: &'a [u8]) -> Fields<'a> {
        Fields(row)
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], Damaged> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or(Damaged)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        self.take(N)?.try_into().map_err(|_| Damaged)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Damaged> {
        self.array().map(|[byte]| byte)
    }

    pub(super) fn number(&mut self) -> Result<u64, Damaged> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn maybe(&mut self) -> Result<Option<&'a [u8]>, Damaged> {
        match u32::from_be_bytes(self.array()?) {
            NONE => Ok(None),
            length => self.take(length as usize).map(Some),
        }
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Damaged> {
        self.maybe()?.ok_or(Damaged)
    }

    pub(super) fn text(&mut self) -> Result<&'a str, Damaged> {
        str::from_utf8(self.bytes()?).map_err(|_| Damaged)
    }

    pub(super) fn maybe_text(&mut self) -> Result<Option<&'a str>, Damaged> {
        self.maybe()?.map(|bytes| str::from_utf8(bytes).map_err(|_| Damaged)).transpose()
    }

    pub(super) fn maybe_number(&mut self) -> Result<Option<u64>, Damaged> {
        self.maybe()?.map(|bytes| bytes.try_into().map(u64::from_be_bytes).map_err(|_| Damaged)).transpose()
    }

    pub(super) fn end(self) -> Result<(), Damaged> {
        if self.0.is_empty() { Ok(()) } else { Err(Damaged) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn reading_undoes_writing(parts in proptest::collection::vec((any::<u64>(), any::<Option<Vec<u8>>>(), ".{0,40}"), 0..20)) {
            let mut row = Row::new();
            for (number, maybe, text) in &parts {
                row = row.number(*number).maybe(maybe.as_deref()).text(text).maybe_number(Some(*number)).array(&[7; 3]).byte(9);
            }
            let row = row.maybe_number(None).done();
            let mut fields = Fields::of(&row);
            for (number, maybe, text) in &parts {
                prop_assert_eq!(fields.number(), Ok(*number));
                prop_assert_eq!(fields.maybe(), Ok(maybe.as_deref()));
                prop_assert_eq!(fields.maybe_text(), Ok(Some(text.as_str())));
                prop_assert_eq!(fields.maybe_number(), Ok(Some(*number)));
                prop_assert_eq!(fields.array(), Ok([7; 3]));
                prop_assert_eq!(fields.byte(), Ok(9));
            }
            prop_assert_eq!(fields.maybe_number(), Ok(None));
            prop_assert_eq!(fields.end(), Ok(()));
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut fields = Fields::of(&bytes);
            while fields.maybe_text().is_ok() && !fields.0.is_empty() {}
            let _ = Fields::of(&bytes).maybe_number();
        }
    }

    #[test]
    fn what_is_short_or_long_is_damaged() {
        let row = Row::new().text("ab").done();
        assert_eq!(Fields::of(&row[..5]).bytes(), Err(Damaged));
        assert_eq!(Fields::of(&row).number().and(Fields::of(&row).end()), Err(Damaged));
        assert_eq!(Fields::of(&Row::new().maybe(None).done()).bytes(), Err(Damaged));
        assert_eq!(Fields::of(&Row::new().bytes(&[0xff]).done()).text(), Err(Damaged));
        assert_eq!(Fields::of(&Row::new().bytes(&[1]).done()).maybe_number(), Err(Damaged));
    }
}

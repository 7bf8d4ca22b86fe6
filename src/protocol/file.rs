//! Files on the wire: their numbers, their names, and in which pieces they travel.

use std::fmt;
use std::sync::Arc;

use super::name::NameInvalid;

/// Most bytes of one `/chunk`, and of one row of `/get-file`: in base64 it fits a line with room to spare.
pub const CHUNK_MAX: usize = 65_536;
/// Most characters of base64 of one `/chunk`.
pub const CHUNK_TEXT_MAX: usize = CHUNK_MAX.div_ceil(3) * 4;
/// Bytes that one `/get-file` gives where it is not told.
pub const GET_DEFAULT: u64 = CHUNK_MAX as u64;
/// Most bytes of one `/get-file`, as much as a page of a log has.
pub const GET_MAX: u64 = 1 << 20;
/// Longest name of a file, in bytes: what file systems take.
pub const FILE_NAME_MAX: usize = 255;

/// The only name of a file in an end-to-end room: the true one is in what the server cannot read.
pub const SEALED_NAME: &str = "sealed";

/// The server's number of a file; rises, and is never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct FileId(pub u64);

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a sender calls a file: 1 to [`FILE_NAME_MAX`] bytes without control characters. A label for people,
/// never a path of the server's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileName(Arc<str>);

impl FileName {
    /// Takes a text as a name.
    ///
    /// # Errors
    /// [`NameInvalid`] for an empty text, one that is too long, and one with control characters.
    pub fn parse(text: &str) -> Result<FileName, NameInvalid> {
        let fits = (1..=FILE_NAME_MAX).contains(&text.len()) && !text.chars().any(char::is_control);
        if fits { Ok(FileName(text.into())) } else { Err(NameInvalid { max: FILE_NAME_MAX }) }
    }

    /// The text as it stands on the wire.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_fits_a_line() {
        let head =
            "/chunk@".len() + super::super::name::LABEL_MAX + 2 * (1 + u64::MAX.to_string().len()) + "\r\n".len();
        assert!(head + 1 + CHUNK_TEXT_MAX < super::super::MAX_LINE);
    }

    #[test]
    fn names_are_labels() {
        let longest = "x".repeat(FILE_NAME_MAX);
        for good in ["a", "report 2.pdf", "../../etc/passwd", "naïve ☃", "=", ":x", &longest] {
            assert_eq!(FileName::parse(good).unwrap().as_str(), good);
        }
        let too_long = "x".repeat(FILE_NAME_MAX + 1);
        for bad in ["", "a\u{1b}[31m", "a\tb", "\u{85}", &too_long] {
            assert!(FileName::parse(bad).is_err(), "{bad:?}");
        }
    }
}

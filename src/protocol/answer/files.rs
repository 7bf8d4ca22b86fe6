//! Rows and events that speak of files.

use base64ct::{Base64, Encoding as _};

use super::{Fields, Malformed, Reader, conversation, read_number, read_target, read_user};
use crate::protocol::file::{CHUNK_MAX, CHUNK_TEXT_MAX, FileId};
use crate::protocol::{Target, Timestamp, UserName};

/// `file ID TIME TARGET SENDER file=F size=N sha256=H [gone=yes] :NAME`, a row or an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileLine<'a> {
    /// The number in the conversation.
    pub id: u64,
    /// When it was finished.
    pub time: Timestamp,
    /// The room, or the receiver in a direct conversation.
    pub target: Target,
    /// Who sent it.
    pub sender: UserName,
    /// Whether it is one of those that had been missed before the login.
    pub missed: bool,
    /// By which number `/get-file` gives it.
    pub file: FileId,
    /// In bytes.
    pub size: u64,
    /// Of the whole file.
    pub sha256: [u8; 32],
    /// Whether its bytes were deleted: there is nothing to get any more.
    pub gone: bool,
    /// As the sender called it.
    pub name: &'a str,
}

impl<'a> FileLine<'a> {
    /// Reads a row or an event of the kind `file`.
    ///
    /// # Errors
    /// [`Malformed`], also for another kind.
    pub fn read(fields: &Fields<'a>) -> Result<FileLine<'a>, Malformed> {
        let reader = Reader::new("file", fields)?;
        Ok(FileLine {
            id: reader.word(1, "ID", read_number)?,
            time: reader.word(2, "TIME", Timestamp::parse)?,
            target: reader.word(3, "TARGET", read_target)?,
            sender: reader.word(4, "SENDER", read_user)?,
            missed: fields.key("missed") == Some("yes"),
            file: reader.key("file", read_file)?,
            size: reader.key("size", read_number)?,
            sha256: reader.key("sha256", read_sha256)?,
            gone: fields.key("gone") == Some("yes"),
            name: reader.text("NAME")?,
        })
    }

    /// The room, or the other person, for `me`.
    pub fn conversation(&self, me: &UserName) -> Target {
        conversation(&self.target, &self.sender, me)
    }
}

/// `upload F TIME TARGET SENDER size=N sha256=H state=partial|done [offset=N] :NAME`, a row of `/files`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadLine<'a> {
    /// Its number.
    pub file: FileId,
    /// When it was finished; of one that is not, when it last grew.
    pub time: Timestamp,
    /// The room, or the receiver.
    pub target: Target,
    /// Who sends it.
    pub sender: UserName,
    /// Its bytes when it is whole.
    pub size: u64,
    /// Of all of them.
    pub sha256: [u8; 32],
    /// Bytes that the server has, while it is not whole.
    pub partial: Option<u64>,
    /// As the sender called it.
    pub name: &'a str,
}

impl<'a> UploadLine<'a> {
    /// Reads a row of the kind `upload`.
    ///
    /// # Errors
    /// [`Malformed`], also for another kind.
    pub fn read(fields: &Fields<'a>) -> Result<UploadLine<'a>, Malformed> {
        let reader = Reader::new("upload", fields)?;
        let partial = match reader.key("state", Some)? {
            "done" => None,
            "partial" => Some(reader.number_or("offset", 0)?),
            _ => return reader.need("state", None),
        };
        Ok(UploadLine {
            file: reader.word(1, "F", read_file)?,
            time: reader.word(2, "TIME", Timestamp::parse)?,
            target: reader.word(3, "TARGET", read_target)?,
            sender: reader.word(4, "SENDER", read_user)?,
            size: reader.key("size", read_number)?,
            sha256: reader.key("sha256", read_sha256)?,
            partial,
            name: reader.text("NAME")?,
        })
    }

    /// The room, or the other person, for `me`.
    pub fn conversation(&self, me: &UserName) -> Target {
        conversation(&self.target, &self.sender, me)
    }
}

/// `chunk F OFFSET BASE64`, a row of `/get-file`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkLine<'a> {
    /// Of which file.
    pub file: FileId,
    /// Where the bytes begin.
    pub offset: u64,
    /// The bytes in base64, not decoded yet; stand for 1 to [`CHUNK_MAX`](crate::protocol::file::CHUNK_MAX).
    pub data: &'a str,
}

impl<'a> ChunkLine<'a> {
    /// Reads a row of the kind `chunk`.
    ///
    /// # Errors
    /// [`Malformed`], also for another kind.
    pub fn read(fields: &Fields<'a>) -> Result<ChunkLine<'a>, Malformed> {
        let reader = Reader::new("chunk", fields)?;
        Ok(ChunkLine {
            file: reader.word(1, "F", read_file)?,
            offset: reader.word(2, "OFFSET", read_number)?,
            data: reader.word(3, "BASE64", |data| {
                ((1..=CHUNK_TEXT_MAX).contains(&data.len()) && data.len().is_multiple_of(4)).then_some(data)
            })?,
        })
    }

    /// The bytes.
    ///
    /// # Errors
    /// [`Malformed`] where they are no base64, or too many.
    pub fn bytes(&self) -> Result<Vec<u8>, Malformed> {
        let bytes = Base64::decode_vec(self.data).ok().filter(|bytes| bytes.len() <= CHUNK_MAX);
        bytes.ok_or(Malformed { kind: "chunk", part: "BASE64" })
    }
}

fn read_file(text: &str) -> Option<FileId> {
    read_number(text).map(FileId)
}

/// 64 hexadecimal digits.
fn read_sha256(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

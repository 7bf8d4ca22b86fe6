//! An upload that this process works at: what it is to the server, and where its bytes are.

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use downstream::e2e::armour;
use downstream::e2e::descriptor::safe_name;
use downstream::protocol::FileName;
use downstream::protocol::file::SEALED_NAME;
use zeroize::Zeroizing;

use crate::error::Failure;
use crate::server::command;
use crate::spool::{self, Held, Opened};
use crate::store::{Source, Stage, Upload};

/// An upload that this process works at, and no other as long as this is.
pub(crate) struct Work {
    pub(crate) upload: Upload,
    pub(super) held: Held,
}
/// Where the bytes of an upload are.
pub(super) enum Body<'a> {
    Spool(&'a Held),
    Source(File, &'a Source),
}
impl Work {
    /// The line with which the server is told of it.
    pub(crate) fn opening_line(&self) -> Result<String, Failure> {
        let Upload { target, name, stage, .. } = &self.upload;
        match stage {
            Stage::Sealed(file) => {
                Ok(format!("/send-file {target} {SEALED_NAME} {} {}", file.ct_len, armour::hex(&file.blob_id)))
            }
            Stage::Clear { size, sha256, .. } => {
                let (size, sha256) = (size.to_string(), armour::hex(sha256));
                Ok(command(&["/send-file", target.as_str(), &plain_name(name), &size, &sha256]).to_string())
            }
            Stage::Preparing | Stage::Announced(_) => Err(Failure::failed(format!("{name} is not ready to be sent"))),
        }
    }

    /// How many bytes the server gets.
    pub(super) fn length(&self) -> u64 {
        match &self.upload.stage {
            Stage::Sealed(file) => file.ct_len,
            Stage::Clear { size, .. } => *size,
            Stage::Preparing | Stage::Announced(_) => 0,
        }
    }

    /// Where its bytes are.
    ///
    /// # Errors
    /// The source is gone, or is not what it was.
    pub(super) fn body(&self) -> Result<Body<'_>, Failure> {
        match (&self.upload.stage, &self.upload.source) {
            (Stage::Clear { spooled: false, .. }, Some(source)) => match spool::open(&source.path) {
                Ok(Opened::File(file, now)) if now == *source => Ok(Body::Source(file, source)),
                _ => Err(Failure::failed(format!("{} has changed since its upload was begun", self.upload.name))
                    .hint("send it again, from its beginning")),
            },
            _ => Ok(Body::Spool(&self.held)),
        }
    }

    /// Whether the copy has its length.
    pub(super) fn is_whole(&self) -> Result<bool, Failure> {
        Ok(match &self.upload.stage {
            Stage::Preparing => false,
            Stage::Sealed(file) => self.held.len()? == file.ct_len,
            Stage::Clear { size, spooled: true, .. } => self.held.len()? == *size,
            Stage::Clear { spooled: false, .. } | Stage::Announced(_) => true,
        })
    }

    /// Whether what would be sent has the SHA-256 that the server was told.
    pub(super) fn is_intact(&self) -> Result<bool, Failure> {
        let (length, wanted) = match &self.upload.stage {
            Stage::Sealed(file) => (self.length(), file.blob_id),
            Stage::Clear { sha256, .. } => (self.length(), *sha256),
            Stage::Preparing | Stage::Announced(_) => return Ok(false),
        };
        let body = self.body()?;
        let mut input = Bytes { body: &body, at: 0, length };
        let found = spool::digest(&mut input, length, &self.upload.name, &mut |_| Ok(()));
        Ok(found.is_ok_and(|found| found == wanted))
    }
}

impl Body<'_> {
    /// Bytes from the middle of it.
    ///
    /// # Errors
    /// They cannot be read.
    pub(super) fn read_at(&self, offset: u64, bytes: &mut [u8]) -> Result<(), Failure> {
        match self {
            Body::Spool(held) => held.read_at(offset, bytes),
            Body::Source(file, source) => {
                file.read_exact_at(bytes, offset).map_err(|error| spool::failed(&source.path, &error))
            }
        }
    }
}

/// The lines that carry a body from one offset to another.
pub(super) struct Pieces<'a> {
    body: &'a Body<'a>,
    file: &'a str,
    left: Range<u64>,
    bytes: Zeroizing<Vec<u8>>,
}

impl<'a> Pieces<'a> {
    /// Of the server's `file`, with at most `size` bytes a line.
    pub(super) fn new(body: &'a Body<'a>, file: &'a str, left: Range<u64>, size: usize) -> Pieces<'a> {
        Pieces { body, file, left, bytes: Zeroizing::new(vec![0; size]) }
    }

    /// The next line; `None` behind the last.
    ///
    /// # Errors
    /// The body cannot be read.
    pub(super) fn next(&mut self) -> Result<Option<String>, Failure> {
        let Range { start: at, end } = self.left;
        let most = self.bytes.len();
        let count = usize::try_from(end - at).map_or(most, |left| left.min(most));
        if count == 0 {
            return Ok(None);
        }
        let piece = self.bytes.get_mut(..count).unwrap_or_default();
        self.body.read_at(at, piece)?;
        self.left.start = at + count as u64;
        Ok(Some(format!("/chunk {} {at} {}", self.file, armour::base64(piece))))
    }
}

/// A body from its beginning.
struct Bytes<'a> {
    body: &'a Body<'a>,
    at: u64,
    length: u64,
}

impl Read for Bytes<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        let left = usize::try_from(self.length - self.at).map_or(bytes.len(), |left| left.min(bytes.len()));
        let piece = bytes.get_mut(..left).unwrap_or_default();
        self.body.read_at(self.at, piece).map_err(|failure| std::io::Error::other(failure.message))?;
        self.at += left as u64;
        Ok(left)
    }
}

/// A name on a line of the protocol, where it has no control characters.
fn plain_name(name: &str) -> String {
    match FileName::parse(name) {
        Ok(name) => name.as_str().to_owned(),
        Err(_) => safe_name(name),
    }
}

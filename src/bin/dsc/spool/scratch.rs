//! A stream of unknown length, kept until its length is known: what is sealed is padded, and by how much
//! depends on its size.
//!
//! It may be larger than memory, and clear text does not belong on a disk. So it is sealed, piece by piece,
//! under a key that is drawn for it and is only in memory, into a file that has no name: whatever ends this
//! process ends both.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek as _, Write};
use std::path::PathBuf;

use downstream::e2e::keyslot::{Dek, Place};
use zeroize::Zeroizing;

use super::{Limit, failed};
use crate::error::Failure;
use crate::store::OsRandom;

/// Bytes of a piece.
const PIECE: usize = 64 * 1024;
/// More than sealing adds to a piece.
const SEALED_MAX: usize = PIECE + 1024;

/// Takes the stream in.
pub(crate) struct Scratch {
    file: BufWriter<File>,
    path: PathBuf,
    key: Dek,
    piece: Zeroizing<Vec<u8>>,
    pieces: u64,
    length: u64,
    name: String,
    limit: Limit,
    /// What went wrong, in more words than an I/O error has.
    fault: Option<Failure>,
}

/// Gives the stream back.
pub(crate) struct Unpacked {
    file: BufReader<File>,
    key: Dek,
    /// Read up to `at`.
    piece: Zeroizing<Vec<u8>>,
    at: usize,
    pieces: u64,
    next: u64,
}

fn place(piece: u64) -> Place<'static> {
    Place { table: "scratch", rowid: piece, schema_version: 1 }
}

impl Scratch {
    pub(super) fn new(file: File, path: PathBuf, name: &str, limit: Limit) -> Result<Scratch, Failure> {
        let key = Dek::draw(&mut OsRandom).map_err(|_| Failure::failed("the random source of this machine failed"))?;
        let piece = Zeroizing::new(Vec::with_capacity(PIECE));
        let file = BufWriter::with_capacity(SEALED_MAX, file);
        let name = name.to_owned();
        Ok(Scratch { file, path, key, piece, pieces: 0, length: 0, name, limit, fault: None })
    }

    /// Takes everything that `input` has.
    ///
    /// # Errors
    /// It cannot be read or kept, or is longer than what can be sent.
    pub(crate) fn fill(
        &mut self,
        input: &mut dyn Read,
        step: &mut dyn FnMut(u64) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut bytes = Zeroizing::new(vec![0; PIECE]);
        loop {
            let count = match input.read(&mut bytes) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Failure::failed(format!("{} cannot be read: {error}", self.name))),
            };
            self.take(bytes.get(..count).unwrap_or_default())?;
            step(self.length)?;
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.length = self.length.saturating_add(bytes.len() as u64);
        self.limit.check(&self.name, self.length)?;
        let mut rest = bytes;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(PIECE - self.piece.len()));
            self.piece.extend_from_slice(now);
            rest = later;
            if self.piece.len() == PIECE {
                self.seal()?;
            }
        }
        Ok(())
    }

    fn seal(&mut self) -> Result<(), Failure> {
        let sealed = self.key.seal_row(&place(self.pieces), &self.piece, &mut OsRandom);
        let sealed = sealed.map_err(|_| Failure::failed("the random source of this machine failed"))?;
        let length = u32::try_from(sealed.len()).unwrap_or(u32::MAX).to_be_bytes();
        let written = self.file.write_all(&length).and_then(|()| self.file.write_all(&sealed));
        written.map_err(|error| failed(&self.path, &error))?;
        self.pieces += 1;
        self.piece.clear();
        Ok(())
    }

    /// Ends the stream; how long it was, and the stream again.
    ///
    /// # Errors
    /// It cannot be kept.
    pub(crate) fn finish(mut self) -> Result<(u64, Unpacked), Failure> {
        if !self.piece.is_empty() {
            self.seal()?;
        }
        let path = self.path;
        let file = self.file.into_inner().map_err(|error| failed(&path, error.error()))?;
        let mut file = file;
        file.rewind().map_err(|error| failed(&path, &error))?;
        let file = BufReader::with_capacity(SEALED_MAX, file);
        let piece = Zeroizing::new(Vec::new());
        Ok((self.length, Unpacked { file, key: self.key, piece, at: 0, pieces: self.pieces, next: 0 }))
    }

    /// Why a write failed, if it did.
    pub(crate) fn fault(&mut self) -> Option<Failure> {
        self.fault.take()
    }
}

/// For what writes streams; the reason of a failure is then in [`Scratch::fault`].
impl Write for Scratch {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.take(bytes).map_err(|failure| {
            let error = io::Error::other(failure.message.clone());
            self.fault = Some(failure);
            error
        })?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
impl Unpacked {
    /// Takes the first piece for the second.
    pub(super) fn skip_piece(&mut self) {
        self.next += 1;
    }
}

impl Read for Unpacked {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.at == self.piece.len() {
            if self.next == self.pieces {
                return Ok(0);
            }
            let mut length = [0; 4];
            self.file.read_exact(&mut length)?;
            let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
            let damaged = || io::Error::other("the temporary file is not what was written");
            if length > SEALED_MAX {
                return Err(damaged());
            }
            let mut sealed = vec![0; length];
            self.file.read_exact(&mut sealed)?;
            self.piece = self.key.open_row(&place(self.next), &sealed).map_err(|_| damaged())?;
            self.at = 0;
            self.next += 1;
        }
        let rest = self.piece.get(self.at..).unwrap_or_default();
        let count = rest.len().min(out.len());
        out.iter_mut().zip(rest).for_each(|(place, byte)| *place = *byte);
        self.at += count;
        Ok(count)
    }
}

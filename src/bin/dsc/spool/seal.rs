//! Sealing into the spool, and the copy and the digest of what is sent in clear.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, ErrorKind, Read, Write as _};

use downstream::e2e::descriptor::Descriptor;
use downstream::e2e::file::{CHUNK, Sealer};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::{Held, Limit, mark};
use crate::error::Failure;
use crate::store::{OsRandom, Source};

/// Bytes that are read or written at once.
const BUFFER: usize = 256 * 1024;
/// Bytes between two words about how far it is.
const STEP: u64 = 1 << 20;

/// Says how far it is.
type Tell<'a> = &'a mut dyn FnMut(u64) -> Result<(), Failure>;

/// Seals `size` bytes into the spool, on stable storage when this returns.
///
/// # Errors
/// The input is shorter or longer; it cannot be read, or the disk does not take it. The copy is of no use
/// then.
pub(crate) fn seal(
    input: &mut dyn Read,
    size: u64,
    held: &Held,
    (name, mime): (&str, &str),
    tell: Tell<'_>,
) -> Result<Descriptor, Failure> {
    let sealer =
        Sealer::new(size, &mut OsRandom).map_err(|_| Failure::failed("the random source of this machine failed"))?;
    let mut sealer = sealer.ok_or_else(|| Failure::usage(format!("{name} is too large")))?;
    held.file().set_len(0).map_err(|error| held.failed(&error))?;
    let mut input = BufReader::with_capacity(BUFFER, input);
    let mut out = BufWriter::with_capacity(BUFFER, held.file());
    out.write_all(sealer.header()).map_err(|error| held.failed(&error))?;
    let mut chunk = Zeroizing::new([0; CHUNK]);
    let (mut done, mut told) = (0, 0);
    while let Some(wanted) = sealer.wants() {
        let bytes = chunk.get_mut(..wanted).unwrap_or_default();
        input.read_exact(bytes).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => changed(name),
            _ => Failure::failed(format!("{name} cannot be read: {error}")),
        })?;
        let sealed = sealer.seal(bytes).ok_or_else(|| changed(name))?;
        out.write_all(&sealed).map_err(|error| held.failed(&error))?;
        done += wanted as u64;
        if done - told >= STEP {
            told = done;
            tell(done)?;
        }
    }
    if !at_end(&mut input, name)? {
        return Err(changed(name));
    }
    out.flush().map_err(|error| held.failed(&error))?;
    held.sync()?;
    sealer.finish(name, mime).ok_or_else(|| Failure::failed(format!("{name} is no name for a file")))
}

/// That a file is still in the state in which it was opened.
///
/// # Errors
/// It is not.
pub(crate) fn unchanged(file: &File, source: &Source, name: &str) -> Result<(), Failure> {
    let found = file.metadata().map_err(|error| Failure::failed(format!("{name}: {error}")))?;
    if mark(&source.path, &found) == *source { Ok(()) } else { Err(changed(name)) }
}

/// The SHA-256 of `size` bytes that are sent as they are.
///
/// # Errors
/// As [`seal`].
pub(crate) fn digest(input: &mut dyn Read, size: u64, name: &str, tell: Tell<'_>) -> Result<[u8; 32], Failure> {
    let mut hash = Sha256::new();
    let read = each(input, name, tell, &mut |bytes| {
        hash.update(bytes);
        Ok(())
    })?;
    if read == size { Ok(hash.finalize().into()) } else { Err(changed(name)) }
}

/// Copies a stream that is sent in clear into the spool, on stable storage when this returns: its length, and
/// its SHA-256.
///
/// # Errors
/// It cannot be read, the disk does not take it, or it is longer than what can be sent.
pub(crate) fn copy(
    input: &mut dyn Read,
    held: &Held,
    name: &str,
    limit: Limit,
    tell: Tell<'_>,
) -> Result<(u64, [u8; 32]), Failure> {
    held.file().set_len(0).map_err(|error| held.failed(&error))?;
    let (mut hash, mut length) = (Sha256::new(), 0_u64);
    let read = each(input, name, tell, &mut |bytes| {
        length = length.saturating_add(bytes.len() as u64);
        limit.check(name, length)?;
        hash.update(bytes);
        held.file().write_all(bytes).map_err(|error| held.failed(&error))
    })?;
    held.sync()?;
    Ok((read, hash.finalize().into()))
}

fn each(
    input: &mut dyn Read,
    name: &str,
    tell: Tell<'_>,
    take: &mut dyn FnMut(&[u8]) -> Result<(), Failure>,
) -> Result<u64, Failure> {
    let mut bytes = vec![0; BUFFER];
    let (mut done, mut told) = (0, 0);
    loop {
        let count = match input.read(&mut bytes) {
            Ok(0) => return Ok(done),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(Failure::failed(format!("{name} cannot be read: {error}"))),
        };
        take(bytes.get(..count).unwrap_or_default())?;
        done += count as u64;
        if done - told >= STEP {
            told = done;
            tell(done)?;
        }
    }
}

fn at_end(input: &mut dyn Read, name: &str) -> Result<bool, Failure> {
    let mut byte = Zeroizing::new([0; 1]);
    loop {
        match input.read(byte.as_mut_slice()) {
            Ok(count) => return Ok(count == 0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Failure::failed(format!("{name} cannot be read: {error}"))),
        }
    }
}

fn changed(name: &str) -> Failure {
    Failure::failed(format!("{name} was changed while it was read: nothing of it is sent"))
        .hint("try again when nothing writes to it, or send a copy")
}

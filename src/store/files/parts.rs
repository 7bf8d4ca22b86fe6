//! Reading files.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::super::seal::{SEAL_OVERHEAD, Sealer};
use super::data::Data;
use super::uploads::{BLOCK, SLOT, block_key, row};
use crate::ops::{FilePart, Refused};
use crate::protocol::FileId;
use crate::protocol::file::CHUNK_MAX;

/// Reads a piece of a whole file of `size` bytes and opens it. [`Refused::NotFound`] where its data is missing or
/// short: it may have been dropped a moment ago.
pub(in crate::store) fn read(
    data: &dyn Data,
    sealer: &Sealer,
    file: FileId,
    size: u64,
    offset: u64,
    length: u64,
) -> Result<FilePart, Refused> {
    if offset > size {
        return Err(Refused::Offset(size));
    }
    let next = offset.saturating_add(length).min(size);
    let mut part = FilePart { rows: Vec::new(), next, size };
    if next == offset {
        return Ok(part);
    }
    let (block, slot) = (BLOCK as u64, SLOT as u64);
    let (first, end) = (offset / block, next.div_ceil(block));
    // The last block of a file may be shorter.
    let upto = end.saturating_mul(block).min(size);
    let short = end.saturating_mul(block) - upto;
    let bytes = |count: u64| usize::try_from(count).map_err(|_| Refused::Internal);
    let mut sealed = vec![0; bytes((end - first).saturating_mul(slot) - short)?];
    match data.read(file, first * slot, &mut sealed) {
        Ok(true) => {}
        Ok(false) => return Err(Refused::NotFound),
        Err(error) => {
            log::error!("reading the data of file {file}: {error}; look into the kernel log");
            return Err(Refused::Internal);
        }
    }
    let key = block_key(sealer, file);
    let mut plain = Vec::with_capacity(sealed.len());
    for (index, slot) in (first..).zip(sealed.chunks(SLOT)) {
        let Some(block) = key.open(row(index), slot) else {
            log::error!("block {index} of file {file} does not open: its data is damaged");
            return Err(Refused::Internal);
        };
        plain.extend_from_slice(&block);
    }
    debug_assert_eq!(plain.len() + sealed.len().div_ceil(SLOT) * SEAL_OVERHEAD, sealed.len());
    let from = bytes(offset - first * block)?;
    let wanted = plain.get(from..from + bytes(next - offset)?).ok_or(Refused::Internal)?;
    let rows = (offset..).step_by(CHUNK_MAX).zip(wanted.chunks(CHUNK_MAX));
    part.rows = rows.map(|(at, piece)| (at, STANDARD.encode(piece))).collect();
    Ok(part)
}

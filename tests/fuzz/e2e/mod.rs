//! The fuzz targets of `src/e2e`; the main package replays their corpora through the same bodies.
//!
//! The rule for all: nothing panics, what is taken is written back as it was, what is refused changes nothing.
//! No fuzzer gets past a signature by chance. So beside bytes as they come, some targets take bytes that choose:
//! who signs what with keys of a prepared scene, and what an honest session carries of dishonest content.
#![allow(dead_code, unreachable_pub, reason = "each target uses a part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a fuzz target fails loudly")]

#[path = "../../e2e_common/mod.rs"]
mod common;
pub(crate) mod forms;
mod scene;
pub(crate) mod seeds;
pub(crate) mod states;

/// `u16 length ‖ bytes` off the front; what is left if there is less.
fn piece<'a>(data: &mut &'a [u8]) -> &'a [u8] {
    let Some((head, rest)) = data.split_first_chunk::<2>() else { return core::mem::take(data) };
    let (piece, rest) = rest.split_at(usize::from(u16::from_be_bytes(*head)).min(rest.len()));
    *data = rest;
    piece
}

/// What [`piece`] reads.
fn as_piece(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

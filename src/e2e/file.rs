//! Files: C2SP chunked encryption, Cobblestone-256 (<https://c2sp.org/chunked-encryption>), with
//! zero padding to a Padmé length inside.
//!
//! ```text
//! salt 24 ‖ com 32 ‖ chunks of 16 KiB + tag 16, the last one always shorter, maybe empty
//! key32 ‖ base12 ‖ com32 = HKDF-Expand-SHA512(prk = file key, info, 76)
//! info = "c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM" ‖ 00 ‖ salt ‖ L"file"
//! nonce of chunk k = base12 XOR k (96-bit big-endian), empty AAD
//! ```
//!
//! A file is sealed once, into a spool, and resumed from there: sealing a source that may have
//! changed again under the same key and salt would repeat nonces over other bytes. So [`Sealer`]
//! goes forward only, draws its key itself, and cannot be saved.

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, KeyInit};
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256, Sha512};
use zeroize::Zeroizing;

use super::descriptor::{Descriptor, MIME_MAX, NAME_MAX};
use super::error::{Error, NoRandom};
use super::labels;
use super::padding::padded_len;
use super::rng::{self, Rng};
use super::secret::{self, Secret};

/// Bytes of text in a chunk.
pub const CHUNK: usize = 16_384;
/// Bytes of a sealed chunk.
pub const SEALED_CHUNK: usize = CHUNK + TAG;
/// Bytes in front of the chunks: salt and commitment.
pub const HEADER: usize = 24 + 32;
/// The largest file, in bytes: what Cobblestone is defined for (4 PiB).
pub const SIZE_MAX: u64 = 1 << 52;

const TAG: usize = 16;
const ALGORITHM: &[u8] = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM";

/// How the bytes of a file of a given size lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Bytes of the file.
    pub size: u64,
    /// Bytes with the zeros behind it.
    pub padded: u64,
    /// Bytes of ciphertext: 56 + padded + 16 a chunk.
    pub ct_len: u64,
    /// Chunks, the last one (which is shorter than 16 KiB, maybe empty) included.
    pub chunks: u64,
}

impl Layout {
    /// The layout of a file of `size` bytes; `None` over [`SIZE_MAX`].
    pub fn of(size: u64) -> Option<Self> {
        let padded = padded_len(size).filter(|_| size <= SIZE_MAX)?;
        let chunks = padded / CHUNK as u64 + 1;
        let ct_len = HEADER as u64 + padded + TAG as u64 * chunks;
        Some(Self { size, padded, ct_len, chunks })
    }

    /// Bytes of text, padding included, in chunk `k`.
    fn text_len(&self, k: u64) -> Option<usize> {
        if k >= self.chunks {
            return None;
        }
        let left = self.padded - k * CHUNK as u64;
        Some(usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK)))
    }

    /// Bytes of the file itself in chunk `k`.
    pub fn file_len(&self, k: u64) -> usize {
        let left = k.checked_mul(CHUNK as u64).map_or(0, |start| self.size.saturating_sub(start));
        usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK))
    }

    /// Bytes of sealed chunk `k`; 0 behind the last.
    pub fn sealed_len(&self, k: u64) -> usize {
        self.text_len(k).map_or(0, |n| n + TAG)
    }

    /// Where sealed chunk `k` begins in the ciphertext.
    pub fn offset(k: u64) -> u64 {
        (HEADER as u64).saturating_add(k.saturating_mul(SEALED_CHUNK as u64))
    }
}

/// The keys of one (file key, salt).
pub(crate) struct Keys {
    gcm: Aes256Gcm,
    base: [u8; 12],
    pub(crate) com: [u8; 32],
}

/// Key, base nonce and commitment of a (file key, salt) in our context.
fn derive(key: &Secret<32>, salt: &[u8; 24]) -> Keys {
    derive_in(key, salt, labels::FILE.bytes())
}

pub(crate) fn derive_in(key: &Secret<32>, salt: &[u8; 24], context: &[u8]) -> Keys {
    let mut block = Secret::<128>::zero();
    block.expose_mut().iter_mut().zip(key.expose()).for_each(|(place, byte)| *place = *byte);
    let hmac = |parts: &[&[u8]]| -> Secret<64> {
        let mut mac = <Hmac<Sha512> as KeyInit>::new(block.expose().into());
        parts.iter().for_each(|part| mac.update(part));
        let mut out: [u8; 64] = mac.finalize().into_bytes().into();
        Secret::take(&mut out)
    };
    // HKDF-Expand (RFC 5869 §2.3) over HMAC-SHA512: `hkdf` insists on a key as long as the hash.
    let info = [ALGORITHM, &[0], salt, context].concat();
    let first = hmac(&[&info, &[1]]);
    let second = hmac(&[first.expose(), &info, &[2]]);
    let mut bytes = first.expose().iter().chain(second.expose());
    let gcm_key = Secret::<32>::cut(&mut bytes);
    let (base, com) = (Secret::<12>::cut(&mut bytes), Secret::<32>::cut(&mut bytes));
    Keys { gcm: Aes256Gcm::new(gcm_key.expose().into()), base: *base.expose(), com: *com.expose() }
}

impl Keys {
    fn nonce(&self, k: u64) -> [u8; 12] {
        let k = if cfg!(feature = "break-file-order") { 0 } else { k };
        let mut nonce = self.base;
        nonce.iter_mut().rev().zip(k.to_be_bytes().iter().rev()).for_each(|(place, byte)| *place ^= *byte);
        nonce
    }

    pub(crate) fn seal(&self, k: u64, text: &[u8]) -> Option<Vec<u8>> {
        self.gcm.encrypt(&self.nonce(k).into(), Payload { msg: text, aad: &[] }).ok()
    }

    fn open(&self, k: u64, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
        let opened = self.gcm.decrypt(&self.nonce(k).into(), Payload { msg: sealed, aad: &[] });
        opened.map(Zeroizing::new).map_err(|_| Error::Auth)
    }
}

/// Seals one file, front to back, once.
pub struct Sealer {
    layout: Layout,
    key: Secret<32>,
    keys: Keys,
    header: [u8; HEADER],
    next: u64,
    blob: Sha256,
}

impl Sealer {
    /// Draws a key and a salt for a file of `size` bytes. `None` for a file that is too large.
    ///
    /// # Errors
    /// [`NoRandom`].
    pub fn new(size: u64, rng: &mut dyn Rng) -> Result<Option<Self>, NoRandom> {
        let key = rng::secret(rng)?;
        let salt: [u8; 24] = rng::bytes(rng)?;
        let keys = derive(&key, &salt);
        let mut header = [0; HEADER];
        header.iter_mut().zip(salt.iter().chain(&keys.com)).for_each(|(place, byte)| *place = *byte);
        let blob = Sha256::new_with_prefix(header);
        Ok(Layout::of(size).map(|layout| Self { layout, key, keys, header, next: 0, blob }))
    }

    /// The first bytes of the ciphertext.
    pub fn header(&self) -> &[u8; HEADER] {
        &self.header
    }

    /// How many bytes of the file the next chunk takes; `None` when all are sealed. It may be 0: the
    /// chunk is then padding, or the empty last one.
    pub fn wants(&self) -> Option<usize> {
        (self.next < self.layout.chunks).then(|| self.layout.file_len(self.next))
    }

    /// Seals the next chunk of the file. `None` if `bytes` is not what [`Sealer::wants`]: the file
    /// has changed its length, and must be sealed from the start with a new sealer.
    pub fn seal(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        if self.wants()? != bytes.len() {
            return None;
        }
        let mut text = Zeroizing::new(Vec::with_capacity(CHUNK));
        text.extend_from_slice(bytes);
        text.resize(self.layout.text_len(self.next)?, 0);
        let sealed = self.keys.seal(self.next, &text)?;
        self.next += 1;
        self.blob.update(&sealed);
        Some(sealed)
    }

    /// What a message says of the file, once all is sealed.
    pub fn finish(self, name: &str, mime: &str) -> Option<Descriptor> {
        let Layout { ct_len, size, .. } = self.layout;
        let named = (1..=NAME_MAX).contains(&name.len());
        let typed = mime.len() <= MIME_MAX && mime.is_ascii();
        if self.wants().is_some() || !named || !typed {
            return None;
        }
        let blob_id = self.blob.finalize().into();
        Some(Descriptor { key: self.key, blob_id, ct_len, size, name: name.to_owned(), mime: mime.to_owned() })
    }
}

/// Opens chunks of one file, in any order.
pub struct Opener {
    layout: Layout,
    keys: Keys,
}

impl Opener {
    /// Starts with the first 56 bytes of the ciphertext.
    ///
    /// # Errors
    /// [`Error::Commit`] if the ciphertext was not made under this key; [`Error::Inner`] for a
    /// descriptor that does not fit itself.
    pub fn new(descriptor: &Descriptor, header: &[u8; HEADER]) -> Result<Self, Error> {
        let layout = Layout::of(descriptor.size).filter(|l| l.ct_len == descriptor.ct_len).ok_or(Error::Inner)?;
        let (salt, com) = header.split_first_chunk::<24>().ok_or(Error::Syntax)?;
        let keys = derive(&descriptor.key, salt);
        if !secret::equal(com, &keys.com) && !cfg!(feature = "break-commitment") {
            return Err(Error::Commit);
        }
        Ok(Self { layout, keys })
    }

    /// Opens chunk `k`: the bytes of the file in it, without padding.
    ///
    /// # Errors
    /// [`Error::Syntax`] for another length than the chunk has, [`Error::Auth`],
    /// [`Error::Padding`] if the zeros are none.
    pub fn open(&self, k: u64, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
        if k >= self.layout.chunks || sealed.len() != self.layout.sealed_len(k) {
            return Err(Error::Syntax);
        }
        let mut text = self.keys.open(k, sealed)?;
        let zeros = text.get(self.layout.file_len(k)..).unwrap_or_default();
        if zeros.iter().any(|b| *b != 0) && !cfg!(feature = "break-padding") {
            return Err(Error::Padding);
        }
        text.truncate(self.layout.file_len(k));
        Ok(text)
    }

    /// How the file lies.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }
}

/// Receives a whole file front to back and vouches for it at the end: every chunk, the length, the
/// padding, and the blob id.
pub struct Receiver {
    opener: Opener,
    blob: Sha256,
    blob_id: [u8; 32],
    next: u64,
}

impl Receiver {
    /// As [`Opener::new`].
    ///
    /// # Errors
    /// As [`Opener::new`].
    pub fn new(descriptor: &Descriptor, header: &[u8; HEADER]) -> Result<Self, Error> {
        let opener = Opener::new(descriptor, header)?;
        Ok(Self { opener, blob: Sha256::new_with_prefix(header), blob_id: descriptor.blob_id, next: 0 })
    }

    /// How many bytes of ciphertext the next chunk has; `None` after the last.
    pub fn wants(&self) -> Option<usize> {
        (self.next < self.opener.layout.chunks).then(|| self.opener.layout.sealed_len(self.next))
    }

    /// Opens the next chunk.
    ///
    /// # Errors
    /// As [`Opener::open`]; the receiver stays where it is.
    pub fn chunk(&mut self, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
        let text = self.opener.open(self.next, sealed)?;
        self.blob.update(sealed);
        self.next += 1;
        Ok(text)
    }

    /// Goes over a chunk that an earlier receiver has opened: `text` is the file's bytes in it. They are sealed
    /// again, as the sender did, to count for the blob id, and the ciphertext goes nowhere. Bytes that are not
    /// those of the file show at the end, like any other ciphertext: nothing else has to be remembered.
    ///
    /// # Errors
    /// [`Error::Syntax`] for another length than the chunk has; the receiver stays where it is.
    pub fn again(&mut self, text: &[u8]) -> Result<(), Error> {
        let layout = &self.opener.layout;
        let whole = layout.text_len(self.next).filter(|_| layout.file_len(self.next) == text.len());
        let mut padded = Zeroizing::new(Vec::with_capacity(CHUNK));
        padded.extend_from_slice(text);
        padded.resize(whole.ok_or(Error::Syntax)?, 0);
        let sealed = self.opener.keys.seal(self.next, &padded).ok_or(Error::Syntax)?;
        self.blob.update(&sealed);
        self.next += 1;
        Ok(())
    }

    /// Says whether the file is whole: only then may it take its final name.
    ///
    /// # Errors
    /// [`Error::Syntax`] if chunks are missing, [`Error::Payload`] if this is another ciphertext than
    /// the message spoke of.
    pub fn finish(self) -> Result<(), Error> {
        if self.wants().is_some() {
            return Err(Error::Syntax);
        }
        let blob_id: [u8; 32] = self.blob.finalize().into();
        let same = secret::equal(&blob_id, &self.blob_id) || cfg!(feature = "break-blob-id");
        if same { Ok(()) } else { Err(Error::Payload) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::e2e::testing::Seeded;

    fn sealed(content: &[u8]) -> (Vec<u8>, Descriptor) {
        let mut sealer = Sealer::new(content.len() as u64, &mut Seeded(5)).unwrap().unwrap();
        let (mut out, mut rest) = (sealer.header().to_vec(), content);
        while let Some(n) = sealer.wants() {
            let (now, later) = rest.split_at(n);
            out.extend(sealer.seal(now).unwrap());
            rest = later;
        }
        (out, sealer.finish("a.txt", "text/plain").unwrap())
    }

    fn opened(descriptor: &Descriptor, ct: &[u8]) -> Result<Vec<u8>, Error> {
        let (header, mut rest) = ct.split_first_chunk::<HEADER>().ok_or(Error::Syntax)?;
        let mut receiver = Receiver::new(descriptor, header)?;
        let mut out = Vec::new();
        while let Some(n) = receiver.wants() {
            let (now, later) = rest.split_at(n.min(rest.len()));
            out.extend_from_slice(&receiver.chunk(now)?);
            rest = later;
        }
        if !rest.is_empty() {
            return Err(Error::Syntax);
        }
        receiver.finish().map(|()| out)
    }

    #[test]
    fn lengths_match_the_worked_example() {
        for (size, ct_len) in [(0, 328), (16_384, 16_472), (16_385, 17_496), (100_000, 100_520)] {
            assert_eq!(Layout::of(size).unwrap().ct_len, ct_len, "{size}");
        }
        assert_eq!(Layout::of(SIZE_MAX + 1), None);
        assert_eq!(Layout::of(u64::MAX), None);
        assert_eq!(Layout::offset(3), 56 + 3 * 16_400);
        // A claim of 1 TiB costs no memory.
        assert_eq!(Layout::of(1 << 40).unwrap().chunks, (1 << 26) + 1);
    }

    #[test]
    fn files_come_back_whole() {
        for size in [0, 1, 255, 256, 257, 16_383, 16_384, 16_385, 32_768, 50_000] {
            let content: Vec<u8> = (0..size).map(|i| i as u8).collect();
            let (ct, descriptor) = sealed(&content);
            assert_eq!(ct.len() as u64, descriptor.ct_len);
            assert_eq!(opened(&descriptor, &ct), Ok(content));
        }
    }

    #[test]
    fn cuts_swaps_and_flips_are_refused() {
        let content = vec![7; 40_000];
        let (ct, descriptor) = sealed(&content);
        for border in [0, 24, 56, 56 + 16_400, 56 + 2 * 16_400, ct.len() - 16, ct.len() - 1] {
            assert!(opened(&descriptor, &ct[..border]).is_err(), "cut at {border}");
        }
        assert_eq!(opened(&descriptor, &[&ct[..], &[0]].concat()), Err(Error::Syntax));
        let mut swapped = ct.clone();
        swapped[56..56 + 2 * 16_400].rotate_left(16_400);
        assert_eq!(opened(&descriptor, &swapped), Err(Error::Auth));
        for at in (0..ct.len()).step_by(97) {
            let mut bad = ct.clone();
            bad[at] ^= 0x20;
            assert!(opened(&descriptor, &bad).is_err(), "flip at {at}");
        }
        let other = Descriptor { blob_id: [0; 32], ..descriptor.clone() };
        assert_eq!(opened(&other, &ct), Err(Error::Payload));
        let other = Descriptor { key: Secret::zero(), ..descriptor.clone() };
        assert_eq!(opened(&other, &ct), Err(Error::Commit));
        let other = Descriptor { size: descriptor.size - 1, ..descriptor };
        assert_eq!(opened(&other, &ct), Err(Error::Padding));
    }

    #[test]
    fn a_receiver_goes_on_where_another_stopped() {
        for size in [0, 1, 16_384, 40_000, 70_000] {
            let content: Vec<u8> = (0..size).map(|i| (i / 7) as u8).collect();
            let (ct, descriptor) = sealed(&content);
            let header = ct.first_chunk().unwrap();
            let chunks = Layout::of(size).unwrap().chunks;
            for had in 0..=chunks {
                let go_on = |kept: &[u8]| {
                    let mut receiver = Receiver::new(&descriptor, header).unwrap();
                    let mut rest = kept;
                    for k in 0..had {
                        let (now, later) = rest.split_at(receiver.opener.layout.file_len(k));
                        receiver.again(now).unwrap();
                        rest = later;
                    }
                    let mut at = Layout::offset(had) as usize;
                    while let Some(n) = receiver.wants() {
                        receiver.chunk(&ct[at..at + n]).unwrap();
                        at += n;
                    }
                    receiver.finish()
                };
                assert_eq!(go_on(&content), Ok(()), "{size} bytes, {had} chunks");
                let mut changed = content.clone();
                if had > 0 && size > 0 {
                    changed[0] ^= 1;
                    assert_eq!(go_on(&changed), Err(Error::Payload), "{size} bytes, {had} chunks");
                }
            }
            let mut receiver = Receiver::new(&descriptor, header).unwrap();
            assert_eq!(receiver.again(&content[..content.len().saturating_sub(1) / 2]).is_ok(), size == 0);
        }
    }

    #[test]
    fn a_source_that_changes_its_length_is_not_sealed_on() {
        let mut sealer = Sealer::new(20_000, &mut Seeded(5)).unwrap().unwrap();
        assert!(sealer.seal(&[0; 100]).is_none());
        assert!(sealer.seal(&[0; CHUNK]).is_some());
        assert!(sealer.seal(&[0; 20_000 - CHUNK - 1]).is_none());
        assert!(sealer.finish("x", "").is_none());
    }

    #[test]
    fn chunks_open_in_any_order() {
        let content: Vec<u8> = (0..40_000_u32).map(|i| (i / 100) as u8).collect();
        let (ct, descriptor) = sealed(&content);
        let opener = Opener::new(&descriptor, ct.first_chunk().unwrap()).unwrap();
        for k in [2, 0, 1] {
            let at = Layout::offset(k) as usize;
            let chunk = opener.open(k, &ct[at..at + opener.layout().sealed_len(k)]).unwrap();
            assert_eq!(chunk.as_slice(), &content[k as usize * CHUNK..][..chunk.len()]);
        }
        assert_eq!(opener.open(3, &[]), Err(Error::Syntax));
        assert_eq!(opener.open(u64::MAX, &[]), Err(Error::Syntax));
    }
}

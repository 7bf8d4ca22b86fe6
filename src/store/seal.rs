//! The server's key and what it seals at rest.
//!
//! One file of 32 random bytes, `server.key`. HKDF-SHA256 (RFC 5869) makes one key for each purpose
//! from it: the secret input of Argon2, the digests of `/post` keys, and the keys that seal columns of
//! the database and the data of files with AES-256-GCM (NIST SP 800-38D).
//!
//! Each row of a sealed column has a key of its own, each log one for its bodies, each account one for the
//! signals to it, and each file one for its blocks. Nonces are 96 random bits: a counter would repeat after a transaction that was rolled back, and after a restored
//! backup. SP 800-38D bounds a key with random nonces at 2^32 seals; a log ends at
//! [`MESSAGES_MAX`](super::sqlite::MESSAGES_MAX) = 2^31 messages and a mailbox at as many, so no key gets there even if half of
//! the transactions were rolled back; a file has a block for each 16 KiB. The associated data names table, column
//! and row, or the block: what is moved to another place does not open there.

use std::cell::RefCell;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::{Zeroize, Zeroizing};

use super::{DATABASE_FILE, StoreError};

/// The key's file name, in the data directory and among systemd's credentials.
const KEY_FILE: &str = "server.key";
/// Bytes of the key.
const KEY_LEN: usize = 32;
/// Bytes of a nonce, which stands behind the sealed bytes and their tag.
const NONCE_LEN: usize = 12;
/// Bytes of the tag.
const TAG_LEN: usize = 16;
/// Bytes that sealing adds: tag and nonce.
pub(super) const SEAL_OVERHEAD: usize = TAG_LEN + NONCE_LEN;

/// The server's key: what everything secret in the data directory depends on. Wiped when dropped, not
/// shown by `Debug`.
pub struct ServerKey(Zeroizing<[u8; KEY_LEN]>);

impl ServerKey {
    /// Reads the key of the data directory `dir`, or the one among systemd's `credentials`
    /// (`$CREDENTIALS_DIRECTORY`) if it holds a `server.key`. Makes directory and key where there are
    /// none; what is made is on stable storage when this returns.
    ///
    /// # Errors
    /// A key file of a wrong size or open to others, a key missing beside a database that was sealed
    /// with it, and what the file system says.
    pub fn load_or_create(dir: &Path, credentials: Option<&Path>) -> Result<ServerKey, StoreError> {
        if let Some(path) = credentials.map(|dir| dir.join(KEY_FILE)) {
            // systemd guards its credentials itself, with modes and access lists of its own.
            if let Some(key) = ServerKey::read(&path, false)? {
                return Ok(key);
            }
        }
        make_directory(dir)?;
        let path = dir.join(KEY_FILE);
        if let Some(key) = ServerKey::read(&path, true)? {
            return Ok(key);
        }
        let database = dir.join(DATABASE_FILE);
        if fs::metadata(&database).is_ok_and(|meta| meta.len() > 0) {
            return Err(StoreError::KeyMissing { key: path, database });
        }
        ServerKey::create(dir, &path)?;
        // Another process may have been first; whoever linked the file decided.
        ServerKey::read(&path, true)?.ok_or_else(|| StoreError::io(&path, io::ErrorKind::NotFound.into()))
    }

    /// A random key that is written nowhere, for an engine in memory.
    ///
    /// # Errors
    /// [`StoreError::Random`]
    pub fn ephemeral() -> Result<ServerKey, StoreError> {
        let mut key = ServerKey(Zeroizing::new([0; KEY_LEN]));
        getrandom::fill(key.0.as_mut()).map_err(|_| StoreError::Random)?;
        Ok(key)
    }

    /// The secret input of Argon2 (RFC 9106, 3.1: "secret value K").
    pub fn password_secret(&self) -> Zeroizing<[u8; 32]> {
        expand(&self.root(), &[b"argon2 secret"])
    }

    fn root(&self) -> Zeroizing<[u8; 32]> {
        let (mut prk, _) = Hkdf::<Sha256>::extract(Some(b"downstream server key 1"), self.0.as_ref());
        let root = Zeroizing::new(prk.into());
        prk.zeroize();
        root
    }

    fn read(path: &Path, strict: bool) -> Result<Option<ServerKey>, StoreError> {
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::io(path, error)),
        };
        let meta = file.metadata().map_err(|error| StoreError::io(path, error))?;
        if strict && meta.permissions().mode() & 0o077 != 0 {
            return Err(StoreError::KeyExposed { path: path.to_owned(), mode: meta.permissions().mode() & 0o7777 });
        }
        if meta.len() != KEY_LEN as u64 {
            return Err(StoreError::KeySize { path: path.to_owned(), len: meta.len() });
        }
        let mut key = ServerKey(Zeroizing::new([0; KEY_LEN]));
        file.read_exact(key.0.as_mut()).map_err(|error| StoreError::io(path, error))?;
        Ok(Some(key))
    }

    /// Writes a new key beside its place and links it there, so that the file is whole or missing and
    /// an existing one is never replaced.
    fn create(dir: &Path, path: &Path) -> Result<(), StoreError> {
        let key = ServerKey::ephemeral()?;
        let draft = Draft(dir.join(format!("{KEY_FILE}.{}.new", std::process::id())));
        let io = |error| StoreError::io(&draft.0, error);
        let _ = fs::remove_file(&draft.0);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft.0).map_err(io)?;
        file.write_all(key.0.as_ref()).and_then(|()| file.sync_all()).map_err(io)?;
        match fs::hard_link(&draft.0, path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(StoreError::io(path, error)),
            _ => sync_directory(dir),
        }
    }
}

/// A file on its way to its place; gone when this is dropped.
pub(super) struct Draft(pub(super) PathBuf);

impl Drop for Draft {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Makes the data directory where there is none, for its owner only.
pub(super) fn make_directory(dir: &Path) -> Result<(), StoreError> {
    if dir.is_dir() {
        return Ok(());
    }
    let io = |error| StoreError::io(dir, error);
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io)?;
    let parent = fs::canonicalize(dir).map_err(io)?;
    parent.parent().map_or(Ok(()), sync_directory)
}

/// Puts a directory's entries on stable storage.
pub(super) fn sync_directory(dir: &Path) -> Result<(), StoreError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| StoreError::io(dir, error))
}

fn expand(root: &[u8; 32], info: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    // Neither can fail: a PRK of 32 bytes is long enough, and 32 bytes are far below 255 blocks.
    let made = Hkdf::<Sha256>::from_prk(root).map(|hkdf| hkdf.expand_multi_info(info, key.as_mut()));
    debug_assert!(matches!(made, Ok(Ok(()))));
    key
}

/// A sealed column: its place in the associated data.
#[derive(Debug, Clone, Copy)]
pub(super) enum Column {
    /// A message's body; the key is its log's.
    Body,
    /// A signal's body; the key is its receiver's.
    Signal,
    /// A file's name.
    FileName,
    /// The data of a file, block by block.
    FileBlock,
    /// What an upload goes on with.
    FileRest,
    /// What is kept of a password.
    Verifier,
    /// Names, address and note of a person.
    Profile,
    /// A room's topic.
    Topic,
    /// The value that tells whether the key is the database's.
    Check,
}

impl Column {
    fn name(self) -> &'static [u8] {
        match self {
            Column::Body => b"message.body",
            Column::Signal => b"signal.body",
            Column::FileName => b"file.name",
            Column::FileBlock => b"file.block",
            Column::FileRest => b"file.rest",
            Column::Verifier => b"account.verifier",
            Column::Profile => b"account.profile",
            Column::Topic => b"room.topic",
            Column::Check => b"meta.check",
        }
    }
}

/// Makes the keys of sealed columns.
pub(super) struct Sealer {
    root: Zeroizing<[u8; 32]>,
    digest: Zeroizing<[u8; 32]>,
}

impl Sealer {
    pub(super) fn new(key: &ServerKey) -> Sealer {
        let root = key.root();
        Sealer { digest: expand(&root, &[b"post digest"]), root }
    }

    /// The key for one row of a column; for [`Column::Body`] that of one log, for [`Column::Signal`] that of
    /// one receiver.
    pub(super) fn key(&self, column: Column, scope: i64) -> SealKey {
        let key = expand(&self.root, &[b"seal ", column.name(), &scope.to_be_bytes()]);
        // A key of the right length is refused only where memory is short; then nothing seals and nothing opens.
        let cipher = UnboundKey::new(&AES_256_GCM, key.as_ref()).ok().map(LessSafeKey::new);
        debug_assert!(cipher.is_some());
        SealKey { cipher, column }
    }

    /// A digest that tells nothing to who has only the database: HMAC-SHA256, which is what
    /// HKDF-Extract computes (RFC 5869, 2.2).
    pub(super) fn digest(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = hkdf::HkdfExtract::<Sha256>::new(Some(self.digest.as_ref()));
        for part in parts {
            mac.input_ikm(&(part.len() as u64).to_be_bytes());
            mac.input_ikm(part);
        }
        mac.finalize().0.into()
    }
}

/// The keys of logs, or of mailboxes, that were appended to: the same ones are written to again and again,
/// and making one costs more than sealing a short body with it.
pub(super) struct LogKeys {
    column: Column,
    kept: RefCell<Vec<Option<(i64, SealKey)>>>,
}

/// Keys kept, under a megabyte.
const LOG_KEYS: usize = 1024;

impl LogKeys {
    pub(super) fn new(column: Column) -> LogKeys {
        LogKeys { column, kept: RefCell::new((0..LOG_KEYS).map(|_| None).collect()) }
    }

    /// Seals the body of a message or signal.
    pub(super) fn seal(&self, sealer: &Sealer, log: i64, row: i64, body: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut kept = self.kept.borrow_mut();
        let slot = usize::try_from(log).unwrap_or(0) % LOG_KEYS;
        let slot = kept.get_mut(slot).ok_or(SealError)?;
        let (_, key) = match slot {
            Some((of, _)) if *of == log => slot.as_mut().ok_or(SealError)?,
            _ => slot.insert((log, sealer.key(self.column, log))),
        };
        key.seal(row, body)
    }
}

/// Nonces asked of the operating system at once: a call for each message would cost as much as sealing it.
const NONCES: usize = 128;

thread_local! {
    /// Nonces that wait. Each is taken once; none is secret.
    static WAITING: RefCell<Vec<[u8; NONCE_LEN]>> = const { RefCell::new(Vec::new()) };
}

fn random_nonce() -> Result<[u8; NONCE_LEN], SealError> {
    WAITING.with_borrow_mut(|waiting| {
        if waiting.is_empty() {
            let mut bytes = [0; NONCES * NONCE_LEN];
            getrandom::fill(&mut bytes).map_err(|_| SealError)?;
            waiting.extend(bytes.as_chunks().0);
        }
        waiting.pop().ok_or(SealError)
    })
}

/// The key of one row, one log, or one file.
pub(super) struct SealKey {
    cipher: Option<LessSafeKey>,
    column: Column,
}

/// The operating system gave no randomness, or a text was too long to seal.
#[derive(Debug)]
pub(super) struct SealError;

impl SealKey {
    fn associated(&self, row: i64) -> ([u8; 32], usize) {
        let name = self.column.name();
        let mut data = [0; 32];
        let len = name.len() + 8;
        for (slot, byte) in data.iter_mut().zip(name.iter().chain(&row.to_be_bytes())) {
            *slot = *byte;
        }
        (data, len)
    }

    /// Seals `plain` for `row`.
    pub(super) fn seal(&self, row: i64, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let nonce = random_nonce()?;
        let mut sealed = Vec::with_capacity(plain.len() + SEAL_OVERHEAD);
        sealed.extend_from_slice(plain);
        let (data, len) = self.associated(row);
        let data = Aad::from(data.get(..len).ok_or(SealError)?);
        let cipher = self.cipher.as_ref().ok_or(SealError)?;
        let sealed_with = Nonce::assume_unique_for_key(nonce);
        cipher.seal_in_place_append_tag(sealed_with, data, &mut sealed).map_err(|_| SealError)?;
        sealed.extend_from_slice(&nonce);
        Ok(sealed)
    }

    /// Opens what was sealed for `row`; `None` where it was changed, moved, or sealed with another key.
    pub(super) fn open(&self, row: i64, sealed: &[u8]) -> Option<Vec<u8>> {
        let mut plain = Vec::with_capacity(sealed.len());
        self.open_onto(row, sealed, &mut plain).then_some(plain)
    }

    /// The same, appended to `out`, which is as it was where nothing opens. Whether it did.
    pub(super) fn open_onto(&self, row: i64, sealed: &[u8], out: &mut Vec<u8>) -> bool {
        let begin = out.len();
        let opened = self.try_open_onto(row, sealed, out).is_some();
        if !opened {
            out.truncate(begin);
        }
        opened
    }

    fn try_open_onto(&self, row: i64, sealed: &[u8], out: &mut Vec<u8>) -> Option<()> {
        let (sealed, nonce) = sealed.split_last_chunk::<NONCE_LEN>()?;
        let (sealed, tag) = sealed.split_last_chunk::<TAG_LEN>()?;
        let (data, len) = self.associated(row);
        let begin = out.len();
        out.extend_from_slice(sealed);
        let (nonce, data) = (Nonce::assume_unique_for_key(*nonce), Aad::from(data.get(..len)?));
        self.cipher.as_ref()?.open_in_place_separate_tag(nonce, data, tag, out.get_mut(begin..)?).ok()?;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_only_where_it_was_sealed() {
        let sealer = Sealer::new(&ServerKey::ephemeral().unwrap());
        let key = sealer.key(Column::Body, 7);
        let sealed = key.seal(42, b"hello").unwrap();
        assert_eq!(sealed.len(), 5 + SEAL_OVERHEAD);
        assert_eq!(key.open(42, &sealed).unwrap(), b"hello");
        assert!(key.open(43, &sealed).is_none(), "another row");
        assert!(sealer.key(Column::Body, 8).open(42, &sealed).is_none(), "another log");
        assert!(sealer.key(Column::Topic, 7).open(42, &sealed).is_none(), "another column");
        let other = Sealer::new(&ServerKey::ephemeral().unwrap());
        assert!(other.key(Column::Body, 7).open(42, &sealed).is_none(), "another server");
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(key.open(42, &changed).is_none(), "byte {at}");
            assert!(key.open(42, &sealed[..at]).is_none(), "cut at {at}");
        }
        assert_ne!(key.seal(42, b"hello").unwrap(), sealed, "nonces are random");
    }

    /// Frozen: a change here makes every database that exists unreadable.
    #[test]
    fn derivations_are_stable() {
        let server = ServerKey(Zeroizing::new([7; 32]));
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        assert_eq!(hex(server.password_secret().as_ref()), include_str!("testdata/password_secret.hex").trim());
        let sealer = Sealer::new(&server);
        assert_eq!(hex(&sealer.digest(&[b"a", b"bc"])), include_str!("testdata/digest.hex").trim());
        assert_ne!(sealer.digest(&[b"a", b"bc"]), sealer.digest(&[b"ab", b"c"]));
        let sealed = include_str!("testdata/sealed_body.hex").trim();
        let sealed: Vec<u8> =
            (0..sealed.len()).step_by(2).map(|i| u8::from_str_radix(&sealed[i..i + 2], 16).unwrap()).collect();
        let opened = sealer.key(Column::Body, 3).open(3 << 32 | 9, &sealed);
        assert_eq!(opened.unwrap(), "written once, read for ever".as_bytes());
    }

    #[test]
    fn the_key_file_is_made_once_and_guarded() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("a/data");
        let first = ServerKey::load_or_create(&dir, None).unwrap();
        let path = dir.join(KEY_FILE);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o7777, 0o700);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "no draft is left");
        assert_eq!(*ServerKey::load_or_create(&dir, None).unwrap().0, *first.0);

        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = ServerKey::load_or_create(&dir, None).err().unwrap();
        assert!(matches!(error, StoreError::KeyExposed { mode: 0o640, .. }));
        assert!(error.to_string().contains("chmod 600"), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, [1; 31]).unwrap();
        assert!(matches!(ServerKey::load_or_create(&dir, None), Err(StoreError::KeySize { len: 31, .. })));

        let credentials = tempfile::tempdir().unwrap();
        fs::write(credentials.path().join(KEY_FILE), [9; 32]).unwrap();
        assert_eq!(*ServerKey::load_or_create(&dir, Some(credentials.path())).unwrap().0, [9; 32]);

        fs::remove_file(&path).unwrap();
        fs::write(dir.join(DATABASE_FILE), b"x").unwrap();
        let error = ServerKey::load_or_create(&dir, None).err().unwrap();
        assert!(matches!(error, StoreError::KeyMissing { .. }), "{error}");
        assert!(!path.exists());
    }
}

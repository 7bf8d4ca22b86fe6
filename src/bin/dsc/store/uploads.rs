//! Uploads that are not finished: what it takes to go on with them.
//!
//! A file is sealed once, under a key that is drawn for it, into the spool. The key and what the message will
//! say of the file stand here. What was not sealed to its end has no key here: it is sealed anew, under
//! another one.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

use downstream::e2e::descriptor::Descriptor;
use downstream::e2e::error::Damaged;
use downstream::e2e::file::Layout;
use downstream::e2e::name::MsgId;
use downstream::e2e::secret::Secret;
use downstream::protocol::{PostKey, Target};
use zeroize::Zeroizing;

use super::StoreError;
use super::codec::{Fields, Row};
use super::tx::Tx;

/// Under which keys the small values lie.
const PREFIX: &str = "upload/";
/// The form of a row.
const VERSION: u8 = 1;
/// Uploads that are begun and not finished, at most: as many as the server keeps for an account.
pub const UPLOADS_MAX: usize = 100;

/// An upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// By which people and the spool name it: 16 hexadecimal digits, drawn.
    pub id: String,
    /// The room or person.
    pub target: Target,
    /// As the receiver will read it.
    pub name: String,
    /// Its media type.
    pub mime: String,
    /// In clear text, for everybody to read.
    pub plain: bool,
    /// The lines are printed for a person to send; no command does it for them.
    pub by_hand: bool,
    /// What it was read from, where that can be read again.
    pub source: Option<Source>,
    /// Under which the message is posted: once, however often it is tried.
    pub key: PostKey,
    /// When it was begun, Unix milliseconds.
    pub made_ms: u64,
    /// How far it is.
    pub stage: Stage,
}

/// How far an upload is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// Its copy in the spool is being made. Found without a process that works at it, it is worth nothing.
    Preparing,
    /// Its sealed copy is whole.
    Sealed(Descriptor),
    /// It is sent in clear, from the spool or from where it lies.
    Clear {
        /// Bytes.
        size: u64,
        /// Of all of them.
        sha256: [u8; 32],
        /// There is a copy in the spool.
        spooled: bool,
    },
    /// The server has all of it; the message that says so waits in the outbox.
    Announced(MsgId),
}

/// A file of this machine, in the state in which it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// From the root.
    pub path: PathBuf,
    /// Bytes.
    pub size: u64,
    /// Device and inode.
    pub inode: (u64, u64),
    /// When it was last written, and last changed in any way; both Unix time in nanoseconds. The second cannot
    /// be set back.
    pub times: (i128, i128),
}

impl Tx<'_> {
    /// Every upload that is not finished, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Damaged`].
    pub fn uploads(&self) -> Result<Vec<Upload>, StoreError> {
        let rows = self.settings_under(PREFIX).into_iter();
        let mut uploads: Vec<Upload> = rows
            .map(|(key, row)| Upload::from_row(key.strip_prefix(PREFIX).unwrap_or_default(), &row))
            .collect::<Result<_, _>>()?;
        uploads.sort_by(|a, b| (a.made_ms, &a.id).cmp(&(b.made_ms, &b.id)));
        Ok(uploads)
    }

    /// An upload by its id.
    ///
    /// # Errors
    /// [`StoreError::Damaged`].
    pub fn upload(&self, id: &str) -> Result<Option<Upload>, StoreError> {
        let row = self.setting(&format!("{PREFIX}{id}"));
        Ok(row.map(|row| Upload::from_row(id, &row)).transpose()?)
    }

    /// Writes an upload, a new one or one that is further now.
    ///
    /// # Errors
    /// [`StoreError::Full`] for one too many.
    pub fn put_upload(&mut self, upload: &Upload) -> Result<(), StoreError> {
        let key = format!("{PREFIX}{}", upload.id);
        if self.setting(&key).is_none() && self.settings_under(PREFIX).len() >= UPLOADS_MAX {
            return Err(StoreError::Full("list of uploads"));
        }
        self.set_setting(&key, &upload.to_row());
        Ok(())
    }

    /// Erases an upload.
    pub fn drop_upload(&mut self, id: &str) {
        self.drop_setting(&format!("{PREFIX}{id}"));
    }

    /// Notes that the message of an upload waits in the outbox, if it is one: to be done in the transaction
    /// that puts it there.
    ///
    /// # Errors
    /// [`StoreError::Damaged`].
    pub fn announce_upload(&mut self, key: &PostKey, message: MsgId) -> Result<(), StoreError> {
        if let Some(upload) = self.uploads()?.into_iter().find(|upload| upload.key == *key) {
            self.put_upload(&Upload { stage: Stage::Announced(message), ..upload })?;
        }
        Ok(())
    }

    /// Erases the upload whose message has left the outbox, if it is one: to be done in the same transaction.
    ///
    /// # Errors
    /// [`StoreError::Damaged`].
    pub fn end_upload(&mut self, key: &PostKey) -> Result<(), StoreError> {
        if let Some(upload) = self.uploads()?.into_iter().find(|upload| upload.key == *key) {
            self.drop_upload(&upload.id);
        }
        Ok(())
    }
}

impl Upload {
    fn to_row(&self) -> Zeroizing<Vec<u8>> {
        let row = Row::new().byte(VERSION).text(self.target.as_str()).text(&self.name).text(&self.mime);
        let row = row.byte(self.plain.into()).byte(self.by_hand.into()).text(self.key.as_str()).number(self.made_ms);
        let row = match &self.source {
            None => row.byte(0),
            Some(Source { path, size, inode: (device, inode), times: (written, changed) }) => {
                let row = row.byte(1).bytes(path.as_os_str().as_bytes()).number(*size).number(*device).number(*inode);
                row.array(&written.to_be_bytes()).array(&changed.to_be_bytes())
            }
        };
        match &self.stage {
            Stage::Preparing => row.byte(1),
            Stage::Sealed(file) => {
                row.byte(2).array(file.key.expose()).array(&file.blob_id).number(file.ct_len).number(file.size)
            }
            Stage::Clear { size, sha256, spooled } => row.byte(3).number(*size).array(sha256).byte((*spooled).into()),
            Stage::Announced(message) => row.byte(4).array(&message.0),
        }
        .done()
    }

    fn from_row(id: &str, row: &[u8]) -> Result<Upload, Damaged> {
        let mut fields = Fields::of(row);
        if fields.byte()? != VERSION {
            return Err(Damaged);
        }
        let target = Target::parse(fields.text()?).map_err(|_| Damaged)?;
        let (name, mime) = (fields.text()?.to_owned(), fields.text()?.to_owned());
        let (plain, by_hand) = (flag(&mut fields)?, flag(&mut fields)?);
        let key = PostKey::parse(fields.text()?).ok_or(Damaged)?;
        let made_ms = fields.number()?;
        let source = match flag(&mut fields)? {
            false => None,
            true => Some(Source {
                path: OsString::from_vec(fields.bytes()?.to_vec()).into(),
                size: fields.number()?,
                inode: (fields.number()?, fields.number()?),
                times: (i128::from_be_bytes(fields.array()?), i128::from_be_bytes(fields.array()?)),
            }),
        };
        let stage = match fields.byte()? {
            1 => Stage::Preparing,
            2 => {
                let key = Secret::take(&mut fields.array()?);
                let (blob_id, ct_len, size) = (fields.array()?, fields.number()?, fields.number()?);
                Layout::of(size).filter(|layout| layout.ct_len == ct_len).ok_or(Damaged)?;
                let (name, mime) = (name.clone(), mime.clone());
                Stage::Sealed(Descriptor { key, blob_id, ct_len, size, name, mime })
            }
            3 => Stage::Clear { size: fields.number()?, sha256: fields.array()?, spooled: flag(&mut fields)? },
            4 => Stage::Announced(MsgId(fields.array()?)),
            _ => return Err(Damaged),
        };
        fields.end()?;
        Ok(Upload { id: id.to_owned(), target, name, mime, plain, by_hand, source, key, made_ms, stage })
    }
}

fn flag(fields: &mut Fields<'_>) -> Result<bool, Damaged> {
    match fields.byte()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Damaged),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn uploads() -> Vec<Upload> {
        let descriptor = Descriptor {
            key: Secret::copy_from(&[7; 32]),
            blob_id: [8; 32],
            ct_len: Layout::of(70_000).unwrap().ct_len,
            size: 70_000,
            name: "ü.txt".to_owned(),
            mime: "text/plain".to_owned(),
        };
        let path = OsString::from_vec(b"/home/a/\xff.txt".to_vec()).into();
        let source = Source { path, size: 70_000, inode: (1, u64::MAX), times: (-1, i128::MAX) };
        let stages = [
            Stage::Preparing,
            Stage::Sealed(descriptor),
            Stage::Clear { size: 3, sha256: [9; 32], spooled: true },
            Stage::Announced(MsgId([5; 16])),
        ];
        let upload = |(n, stage): (usize, Stage)| Upload {
            id: format!("{n:016x}"),
            target: Target::parse(if n == 0 { "#r" } else { "bob" }).unwrap(),
            name: "ü.txt".to_owned(),
            mime: "text/plain".to_owned(),
            plain: n == 2,
            by_hand: n == 1,
            source: (n < 2).then(|| source.clone()),
            key: PostKey::parse("dsc-12345678").unwrap(),
            made_ms: 99,
            stage,
        };
        stages.into_iter().enumerate().map(upload).collect()
    }

    #[test]
    fn reading_undoes_writing_and_takes_nothing_else() {
        for upload in uploads() {
            let row = upload.to_row();
            assert_eq!(Upload::from_row(&upload.id, &row), Ok(upload.clone()));
            for cut in 0..row.len() {
                assert_eq!(Upload::from_row("x", &row[..cut]), Err(Damaged), "{cut}");
            }
            assert_eq!(Upload::from_row("x", &[&row[..], &[0]].concat()), Err(Damaged));
            let mut newer = row.to_vec();
            newer[0] = 2;
            assert_eq!(Upload::from_row("x", &newer), Err(Damaged));
        }
    }

    proptest! {
        #[test]
        fn no_row_panics(which in 0_usize..4, at in 0_usize..200, byte: u8, noise in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Upload::from_row("x", &noise);
            let mut row = uploads()[which].to_row().to_vec();
            let at = at % row.len();
            row[at] = byte;
            if let Ok(upload) = Upload::from_row("x", &row) {
                prop_assert_eq!(Upload::from_row("x", &upload.to_row()), Ok(upload));
            }
        }
    }
}

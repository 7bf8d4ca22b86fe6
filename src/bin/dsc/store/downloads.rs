//! Downloads that are not finished, and files that `tail --save` has still to get.
//!
//! How far a download is does not stand here: that is the length of its part. The key of a sealed file stands in
//! the history, with the message that speaks of it.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

use downstream::e2e::error::Damaged;
use downstream::protocol::{FileId, Target};
use zeroize::Zeroizing;

use super::StoreError;
use super::codec::{Fields, Row};
use super::history::Entry;
use super::tx::Tx;
use crate::folder::PartId;

/// Under which keys the small values lie.
const DOWNLOADS: &str = "download/";
const SAVES: &str = "save/";
/// The form of a row.
const VERSION: u8 = 1;
/// Downloads that are begun and not finished, at most.
pub const DOWNLOADS_MAX: usize = 1000;
/// Files that wait for `tail --save`, at most: whoever can send one can send many.
pub const SAVES_MAX: usize = 1000;

/// How a file is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileRef {
    /// By the server's number.
    Number(FileId),
    /// By the message that speaks of it: the conversation, and its number there.
    Message(Target, u64),
}

impl std::fmt::Display for FileRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            FileRef::Number(file) => file.fmt(f),
            FileRef::Message(target, id) => write!(f, "{target}/{id}"),
        }
    }
}

/// A download.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Download {
    /// By which people name it: 16 hexadecimal digits, drawn.
    pub id: String,
    /// What was asked for.
    pub wanted: FileRef,
    /// The room, or the other person.
    pub target: Target,
    /// SHA-256 of what the server has.
    pub blob: [u8; 32],
    /// Bytes of the file.
    pub size: u64,
    /// As it will be called.
    pub name: String,
    /// Where it goes, from the root.
    pub folder: PathBuf,
    /// Device and inode of that.
    pub folder_inode: (u64, u64),
    /// What is there of it.
    pub part: PartId,
    /// When it was begun, Unix milliseconds.
    pub made_ms: u64,
}

/// A file that waits for `tail --save`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Save {
    key: String,
    /// The message that speaks of it.
    pub wanted: FileRef,
}

impl Tx<'_> {
    /// Every download that is not finished, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Damaged`].
    pub fn downloads(&self) -> Result<Vec<Download>, StoreError> {
        let rows = self.settings_under(DOWNLOADS).into_iter();
        let mut downloads: Vec<Download> = rows
            .map(|(key, row)| Download::from_row(key.strip_prefix(DOWNLOADS).unwrap_or_default(), &row))
            .collect::<Result<_, _>>()?;
        downloads.sort_by(|a, b| (a.made_ms, &a.id).cmp(&(b.made_ms, &b.id)));
        Ok(downloads)
    }

    /// Writes a download.
    ///
    /// # Errors
    /// [`StoreError::Full`] for one too many.
    pub fn put_download(&mut self, download: &Download) -> Result<(), StoreError> {
        let key = format!("{DOWNLOADS}{}", download.id);
        if self.setting(&key).is_none() && self.settings_under(DOWNLOADS).len() >= DOWNLOADS_MAX {
            return Err(StoreError::Full("list of downloads"));
        }
        self.set_setting(&key, &download.to_row());
        Ok(())
    }

    /// Erases a download.
    pub fn drop_download(&mut self, id: &str) {
        self.drop_setting(&format!("{DOWNLOADS}{id}"));
    }

    /// Files that wait for `tail --save`, oldest message first.
    pub fn saves(&self) -> Vec<Save> {
        let read = |key: String| {
            let (_, place) = key.strip_prefix(SAVES)?.split_once('/')?;
            let (target, id) = place.rsplit_once('/')?;
            let wanted = FileRef::Message(Target::parse(target).ok()?, id.parse().ok()?);
            Some(Save { key, wanted })
        };
        self.settings_under(SAVES).into_iter().filter_map(|(key, _)| read(key)).collect()
    }

    /// Has the file of an entry wait; whether there was room. To be done in the transaction that takes it in.
    pub fn put_save(&mut self, entry: &Entry) -> bool {
        let Some(id) = entry.id else { return true };
        if self.settings_under(SAVES).len() >= SAVES_MAX {
            return false;
        }
        // Sorted as numbers are.
        self.set_setting(&format!("{SAVES}{:020}/{}/{id}", entry.time_ms, entry.target), &[]);
        true
    }

    /// Erases a file that waited.
    pub fn drop_save(&mut self, save: &Save) {
        self.drop_setting(&save.key);
    }
}

impl Download {
    fn to_row(&self) -> Zeroizing<Vec<u8>> {
        let row = Row::new().byte(VERSION);
        let row = match &self.wanted {
            FileRef::Number(file) => row.byte(1).number(file.0),
            FileRef::Message(target, id) => row.byte(2).text(target.as_str()).number(*id),
        };
        let (folder_device, folder_inode) = self.folder_inode;
        let PartId { name, inode: (device, inode), mode } = &self.part;
        row.text(self.target.as_str())
            .array(&self.blob)
            .number(self.size)
            .text(&self.name)
            .bytes(self.folder.as_os_str().as_bytes())
            .number(folder_device)
            .number(folder_inode)
            .text(name)
            .number(*device)
            .number(*inode)
            .array(&mode.to_be_bytes())
            .number(self.made_ms)
            .done()
    }

    fn from_row(id: &str, row: &[u8]) -> Result<Download, Damaged> {
        let mut fields = Fields::of(row);
        let target = |fields: &mut Fields<'_>| Target::parse(fields.text()?).map_err(|_| Damaged);
        if fields.byte()? != VERSION {
            return Err(Damaged);
        }
        let wanted = match fields.byte()? {
            1 => FileRef::Number(FileId(fields.number()?)),
            2 => FileRef::Message(target(&mut fields)?, fields.number()?),
            _ => return Err(Damaged),
        };
        let download = Download {
            id: id.to_owned(),
            wanted,
            target: target(&mut fields)?,
            blob: fields.array()?,
            size: fields.number()?,
            name: fields.text()?.to_owned(),
            folder: OsString::from_vec(fields.bytes()?.to_vec()).into(),
            folder_inode: (fields.number()?, fields.number()?),
            part: PartId {
                name: fields.text()?.to_owned(),
                inode: (fields.number()?, fields.number()?),
                mode: u32::from_be_bytes(fields.array()?),
            },
            made_ms: fields.number()?,
        };
        fields.end()?;
        Ok(download)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn downloads() -> [Download; 2] {
        let bob = || Target::parse("bob").unwrap();
        let download = |wanted, n: u64| Download {
            id: format!("{n:016x}"),
            wanted,
            target: bob(),
            blob: [9; 32],
            size: 1 << 40,
            name: "ü.txt".to_owned(),
            folder: OsString::from_vec(b"/home/a/\xff".to_vec()).into(),
            folder_inode: (n, u64::MAX),
            part: PartId { name: "ü.txt.part".to_owned(), inode: (3, 4), mode: 0o644 },
            made_ms: 99,
        };
        [download(FileRef::Number(FileId(7)), 1), download(FileRef::Message(bob(), 17), 2)]
    }

    #[test]
    fn reading_undoes_writing_and_takes_nothing_else() {
        for download in downloads() {
            let row = download.to_row();
            assert_eq!(Download::from_row(&download.id, &row), Ok(download));
            for cut in 0..row.len() {
                assert_eq!(Download::from_row("x", &row[..cut]), Err(Damaged), "{cut}");
            }
            assert_eq!(Download::from_row("x", &[&row[..], &[0]].concat()), Err(Damaged));
            let mut newer = row.to_vec();
            newer[0] = 2;
            assert_eq!(Download::from_row("x", &newer), Err(Damaged));
        }
    }

    proptest! {
        #[test]
        fn no_row_panics(which in 0_usize..2, at in 0_usize..200, byte: u8, noise in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Download::from_row("x", &noise);
            let mut row = downloads()[which].to_row().to_vec();
            let at = at % row.len();
            row[at] = byte;
            if let Ok(download) = Download::from_row("x", &row) {
                let again = download.to_row();
                prop_assert!(again.as_slice() == row.as_slice() || downloads()[which].to_row().len() == row.len());
            }
        }
    }
}

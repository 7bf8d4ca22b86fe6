//! A directory as one stream: a tar archive.

use std::fs::{self, File, Metadata};
use std::io::{self, Read as _, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use tar::{Builder, EntryType, Header};

use crate::error::Failure;

/// Writes a directory and all that is in it to `out`, under its own name. Links stay links. Pipes, sockets
/// and devices are left out. Owners are left out too: they mean nothing on another machine. Gives back how many
/// entries were written, and how many left out.
///
/// # Errors
/// Something cannot be read, or `out` does not take it.
pub(crate) fn pack(directory: &Path, out: &mut dyn Write) -> Result<(u64, u64), Failure> {
    let top = directory.file_name().map_or_else(|| PathBuf::from("files"), PathBuf::from);
    let mut archive = Builder::new(out);
    let (mut written, mut left_out) = (0, 0);
    // What is still to be written, the next one last: a directory stands before what is in it.
    let mut waiting = vec![(directory.to_owned(), top)];
    while let Some((path, name)) = waiting.pop() {
        let failed = |error: io::Error| Failure::failed(format!("{}: {error}", path.display()));
        let found = fs::symlink_metadata(&path).map_err(failed)?;
        let mut header = header(&found);
        if found.is_dir() {
            header.set_entry_type(EntryType::Directory);
            archive.append_data(&mut header, &name, io::empty()).map_err(failed)?;
            let mut inside = Vec::new();
            for entry in fs::read_dir(&path).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                inside.push((entry.path(), name.join(entry.file_name())));
            }
            inside.sort();
            waiting.extend(inside.into_iter().rev());
        } else if found.is_symlink() {
            let target = fs::read_link(&path).map_err(failed)?;
            header.set_entry_type(EntryType::Symlink);
            archive.append_link(&mut header, &name, target).map_err(failed)?;
        } else if found.is_file() {
            let file = File::open(&path).map_err(failed)?;
            // Of the file that is open, whatever has its name now.
            let size = file.metadata().map_err(failed)?.len();
            header.set_entry_type(EntryType::Regular);
            header.set_size(size);
            let mut exactly = Exactly { file: file.take(size), left: size };
            archive.append_data(&mut header, &name, &mut exactly).map_err(failed)?;
        } else {
            left_out += 1;
            continue;
        }
        written += 1;
    }
    archive.finish().map_err(|error| Failure::failed(format!("{}: {error}", directory.display())))?;
    Ok((written, left_out))
}

fn header(found: &Metadata) -> Header {
    let mut header = Header::new_gnu();
    header.set_uid(0);
    header.set_gid(0);
    header.set_mode(found.mode() & 0o777);
    header.set_mtime(u64::try_from(found.mtime()).unwrap_or(0));
    header.set_size(0);
    header
}

/// As many bytes as the archive was told, or an error: an archive does not notice.
struct Exactly {
    file: io::Take<File>,
    left: u64,
}

impl io::Read for Exactly {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(bytes)?;
        self.left -= count as u64;
        match count {
            0 if self.left > 0 && !bytes.is_empty() => Err(io::Error::other("it became shorter while it was read")),
            count => Ok(count),
        }
    }
}

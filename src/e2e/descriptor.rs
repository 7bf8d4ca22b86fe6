//! What a message says of a file: where its ciphertext is, how long it is, its key, and its name.
//!
//! `file_key 32 ‖ blob_id 32 ‖ u64 ct_len ‖ u64 size ‖ lp(name) ‖ lp(mime)`

use super::file::Layout;
use super::secret::Secret;
use super::wire::{Malformed, Put, Reader};

/// The longest name, in bytes: what file systems take.
pub const NAME_MAX: usize = 255;
/// The longest media type, in bytes.
pub const MIME_MAX: usize = 127;

/// A file, as a message describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// The key of this one file.
    pub key: Secret<32>,
    /// SHA-256 of the whole ciphertext; the server finds the file by it.
    pub blob_id: [u8; 32],
    /// Bytes of ciphertext; follows from the size.
    pub ct_len: u64,
    /// Bytes of the file.
    pub size: u64,
    /// The sender's name for it, 1 to 255 bytes of UTF-8. For people: a name on disk is
    /// [`Descriptor::safe_name`].
    pub name: String,
    /// The sender's media type, ASCII, at most 127 bytes, maybe empty.
    pub mime: String,
}

impl Descriptor {
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.put(self.key.expose()).put(&self.blob_id).put_u64(self.ct_len).put_u64(self.size);
        out.put_lp(self.name.as_bytes()).put_lp(self.mime.as_bytes());
    }

    pub(crate) fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let key = r.secret()?;
        let (blob_id, ct_len, size) = (r.array()?, r.u64()?, r.u64()?);
        let (name, mime) = (r.lp_str()?.to_owned(), r.lp_str()?.to_owned());
        let fits = Layout::of(size).is_some_and(|layout| layout.ct_len == ct_len);
        let named = (1..=NAME_MAX).contains(&name.len()) && mime.len() <= MIME_MAX && mime.is_ascii();
        if fits && named { Ok(Self { key, blob_id, ct_len, size, name, mime }) } else { Err(Malformed) }
    }

    /// The name made safe for a directory of ours.
    pub fn safe_name(&self) -> String {
        safe_name(&self.name)
    }
}

/// A file name that names a plain file in the directory it is joined to, and looks like what it is:
/// the last path component, without leading dots, without control, bidirectional or invisible
/// characters; a leading dash, which programs take for an option, becomes `_`. Never empty.
pub fn safe_name(name: &str) -> String {
    if cfg!(feature = "break-file-name") {
        return name.to_owned();
    }
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let clean: String = last.chars().filter(|c| !c.is_control() && !is_deceptive(*c)).collect();
    let bare = clean.trim_start_matches(['.', ' ']).trim_end_matches(['.', ' ']);
    match bare.strip_prefix('-') {
        _ if bare.is_empty() => "file".to_owned(),
        Some(rest) => format!("_{rest}"),
        None => bare.to_owned(),
    }
}

/// Characters that reorder or hide what stands around them: bidirectional controls (UAX #9),
/// line and paragraph separators, zero-width characters, and the tag block.
fn is_deceptive(c: char) -> bool {
    matches!(c,
        '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hostile_names_become_plain_ones() {
        for (name, want) in [
            ("report.pdf", "report.pdf"),
            ("../../.ssh/x", "x"),
            ("..\\..\\x.exe", "x.exe"),
            ("/etc/passwd", "passwd"),
            ("..", "file"),
            ("a/", "file"),
            (".bashrc", "bashrc"),
            ("-rf", "_rf"),
            ("a\0b\r\nc\x1b[31m", "abc[31m"),
            ("\u{202e}fdp.exe", "fdp.exe"),
            ("\u{200b}.\u{feff}x", "x"),
            ("naïve ☃.txt", "naïve ☃.txt"),
        ] {
            assert_eq!(safe_name(name), want, "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn every_name_is_safe(name in "\\PC{0,40}|[./\\\\\\-a\u{202e}\u{0}]{0,20}") {
            let safe = safe_name(&name);
            prop_assert!(!safe.is_empty() && !safe.starts_with(['.', '-', ' ']));
            let hostile = ['/', '\\', '\0', '\n', '\r', '\u{1b}', '\u{202e}'];
            prop_assert!(!safe.contains(hostile));
            prop_assert!(safe.len() <= name.len().max(4));
        }
    }
}

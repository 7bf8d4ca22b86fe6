//! Files by hand: what a malicious peer's own program uploads, and what it says of it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use hmac::{Hmac, Mac};
use sha2::Sha512;

use crate::common::Seeded;
use crate::common::e2e::armour::{base64, hex, unbase64};
use crate::common::e2e::descriptor::Descriptor;
use crate::common::e2e::file::{Layout, Sealer};
use crate::common::e2e::inner::Body;
use crate::common::e2e::secret::Secret;
use crate::evil::dsc::Ran;
use crate::evil::forge::{self, Derived, draw};
use crate::evil::{Caught, Dsc, Lab, Verdict};

/// Bytes in front of the chunks.
pub(crate) const HEADER: usize = 56;
/// Bytes of text in a chunk.
pub(crate) const CHUNK: usize = 16_384;
/// Bytes of a sealed chunk.
pub(crate) const SEALED: usize = CHUNK + 16;
/// Bytes of one `/chunk`.
const PIECE: usize = 65_536;

/// Key, base nonce and commitment of a file.
pub(crate) fn derive(key: &[u8; 32], salt: &[u8; 24]) -> Derived {
    let info = [b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0", &salt[..], &forge::label("file")].concat();
    let hmac = |parts: [&[u8]; 3]| {
        let mut mac = <Hmac<Sha512> as KeyInit>::new_from_slice(key).unwrap();
        parts.iter().for_each(|part| mac.update(part));
        mac.finalize().into_bytes()
    };
    let first = hmac([&[], &info, &[1]]);
    let okm = [first, hmac([&first, &info, &[2]])].concat();
    Derived {
        gcm: Aes256Gcm::new(okm[..32].try_into().unwrap()),
        nonce: okm[32..44].try_into().unwrap(),
        com: okm[44..76].try_into().unwrap(),
    }
}

/// Chunk `k`.
pub(crate) fn seal_chunk(derived: &Derived, k: u64, text: &[u8]) -> Vec<u8> {
    let mut nonce = derived.nonce;
    nonce[4..].iter_mut().zip(k.to_be_bytes()).for_each(|(place, byte)| *place ^= byte);
    derived.gcm.encrypt(&Nonce::from(nonce), Payload { msg: text, aad: &[] }).unwrap()
}

/// A sealed file, and its key.
#[derive(Debug, Clone)]
pub(crate) struct Blob {
    pub(crate) key: [u8; 32],
    /// Bytes of the file, as is said of it.
    pub(crate) size: u64,
    pub(crate) bytes: Vec<u8>,
}

impl Blob {
    /// Seals a file as it should be.
    pub(crate) fn seal(content: &[u8], rng: &mut Seeded) -> Blob {
        Blob::under(&draw(rng), &draw(rng), content)
    }

    /// The same under a given key and salt.
    pub(crate) fn under(key: &[u8; 32], salt: &[u8; 24], content: &[u8]) -> Blob {
        let mut text = content.to_vec();
        text.resize(usize::try_from(layout(content.len() as u64).padded).unwrap(), 0);
        Blob::of_text(key, salt, &text, content.len() as u64)
    }

    /// Seals a text that has its padding, of whatever bytes that is.
    pub(crate) fn of_text(key: &[u8; 32], salt: &[u8; 24], text: &[u8], size: u64) -> Blob {
        let derived = derive(key, salt);
        let mut bytes = [&salt[..], &derived.com].concat();
        for k in 0..=text.len() / CHUNK {
            let chunk = &text[k * CHUNK..text.len().min((k + 1) * CHUNK)];
            bytes.extend(seal_chunk(&derived, k as u64, chunk));
        }
        Blob { key: *key, size, bytes }
    }

    /// Seals a file by the library: what an honest program sends.
    pub(crate) fn by_library(content: &[u8], rng: &mut Seeded) -> Blob {
        let mut sealer = Sealer::new(content.len() as u64, rng).unwrap().unwrap();
        let (mut bytes, mut rest) = (sealer.header().to_vec(), content);
        while let Some(wanted) = sealer.wants() {
            let (now, later) = rest.split_at(wanted);
            bytes.extend(sealer.seal(now).unwrap());
            rest = later;
        }
        let key = *sealer.finish("x", "").unwrap().key.expose();
        Blob { key, size: content.len() as u64, bytes }
    }

    /// What a message says of it: the hash of what it is now, and otherwise what its size calls for.
    pub(crate) fn descriptor(&self, name: &str) -> Descriptor {
        Descriptor {
            key: Secret::copy_from(&self.key),
            blob_id: forge::hash(&[&self.bytes]),
            ct_len: layout(self.size).ct_len,
            size: self.size,
            name: name.to_owned(),
            mime: "text/plain".to_owned(),
        }
    }

    /// The same with other bytes.
    pub(crate) fn with(&self, change: impl FnOnce(&mut Vec<u8>)) -> Blob {
        let mut other = self.clone();
        change(&mut other.bytes);
        other
    }
}

/// A descriptor as it stands in a message, whatever it says.
pub(crate) fn words(descriptor: &Descriptor) -> Vec<u8> {
    let Descriptor { key, blob_id, ct_len, size, name, mime } = descriptor;
    let lengths = [ct_len.to_be_bytes(), size.to_be_bytes()].concat();
    [&key.expose()[..], blob_id, &lengths, &forge::lp(name.as_bytes()), &forge::lp(mime.as_bytes())].concat()
}

/// How a file of a size lies.
pub(crate) fn layout(size: u64) -> Layout {
    Layout::of(size).unwrap()
}

impl Lab {
    /// Gives the server a file that it cannot read; the server's number of it.
    pub(crate) fn upload(&mut self, target: &str, bytes: &[u8]) -> u64 {
        self.upload_as(target, "sealed", bytes)
    }

    /// Gives the server a file under a name.
    pub(crate) fn upload_as(&mut self, target: &str, name: &str, bytes: &[u8]) -> u64 {
        let (size, hash) = (bytes.len(), hex(&forge::hash(&[bytes])));
        let begun = self.command(&format!("/send-file {target} \"{name}\" {size} {hash}"));
        let file = begun.key("file").unwrap().parse().unwrap();
        if begun.key("done").is_none() {
            for (i, piece) in bytes.chunks(PIECE).enumerate() {
                self.command(&format!("/chunk {file} {} {}", i * PIECE, base64(piece)));
            }
        }
        file
    }

    /// Tells an account of a file; how `get-file` names it there.
    pub(crate) fn announce(&mut self, to: &str, descriptor: Descriptor) -> String {
        let body = self.seal(to, Body::File(descriptor));
        format!("{}/{}", self.user(), self.msg(to, &body))
    }
}

/// A row with a piece of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) file: u64,
    pub(crate) offset: u64,
    pub(crate) bytes: Vec<u8>,
}

impl Row {
    /// Reads a row of `/get-file`.
    pub(crate) fn read(caught: &Caught) -> Option<Row> {
        let ["-", "chunk", file, offset, bytes] = caught.words()[..] else { return None };
        Some(Row { file: file.parse().ok()?, offset: offset.parse().ok()?, bytes: unbase64(bytes).ok()? })
    }

    /// The line.
    pub(crate) fn line(&self) -> String {
        format!("- chunk {} {} {}", self.file, self.offset, base64(&self.bytes))
    }
}

/// A server that changes the bytes of files on their way to `user`: `change` is given each piece and where it
/// lies.
pub(crate) fn changes(
    user: &str,
    mut change: impl FnMut(u64, &mut Vec<u8>) + Send + 'static,
) -> impl FnMut(&Caught) -> Verdict + Send + 'static {
    let user = user.to_owned();
    move |caught| match Row::read(caught).filter(|_| caught.user == user) {
        None => Verdict::Pass,
        Some(mut row) => {
            change(row.offset, &mut row.bytes);
            Verdict::Instead(vec![row.line()])
        }
    }
}

/// What a client has given to the server of one file, by the `/chunk` lines that came from it: each piece with
/// its place, as often as it was sent.
pub(crate) fn pieces_up(captured: &[Caught], user: &str) -> Vec<Row> {
    let up = captured.iter().filter(|caught| caught.user == user && caught.is_command("/chunk"));
    up.map(|caught| {
        let words = caught.words();
        Row { file: words[1].parse().unwrap(), offset: words[2].parse().unwrap(), bytes: unbase64(words[3]).unwrap() }
    })
    .collect()
}

/// Somebody with the real `dsc`, and the folder into which their files go. It lies deep enough that whatever leaves
/// it upwards is still in a place of the test's own, and is found there.
#[derive(Debug)]
pub(crate) struct Inbox {
    pub(crate) dsc: Dsc,
}

impl Inbox {
    /// An empty one.
    pub(crate) fn of(dsc: Dsc) -> Inbox {
        let inbox = Inbox { dsc };
        std::fs::create_dir_all(inbox.path()).unwrap();
        inbox
    }

    /// The folder.
    pub(crate) fn path(&self) -> PathBuf {
        self.dsc.path("up/and/up/inbox")
    }

    /// Gets a file.
    pub(crate) fn get(&self, file: &str) -> Ran {
        self.dsc.run(&["get-file", file, "-o", self.path().to_str().unwrap()])
    }

    /// Gets a file that has to be refused for this reason and to leave nothing.
    #[track_caller]
    pub(crate) fn refuses(&self, what: &str, file: &str, code: &str) {
        let before = self.files();
        let ran = self.get(file);
        assert_eq!(ran.code, 1, "{what}: {ran:?}");
        assert!(ran.out.contains(&format!("({code})")), "{what} is not refused for {code}: {ran:?}");
        assert!(ran.of("file-received").is_empty(), "{what}: {ran:?}");
        assert_eq!(self.files(), before, "{what} leaves something");
    }

    /// Gets a file that has to be right.
    #[track_caller]
    pub(crate) fn takes(&self, file: &str, content: &[u8]) -> PathBuf {
        let ran = self.get(file).ok();
        let received = ran.of("file-received");
        assert_eq!(received.len(), 1, "{ran:?}");
        let path = PathBuf::from(received[0]["path"].as_str().unwrap());
        assert!(std::fs::read(&path).unwrap() == content, "{} has other bytes", path.display());
        path
    }

    /// What is in the folder: names and bytes. Nothing may be beside it that was not there.
    #[track_caller]
    pub(crate) fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        let mut others = Vec::new();
        let (top, inbox) = (self.dsc.path(""), self.path());
        let mut waiting = vec![top.clone()];
        while let Some(directory) = waiting.pop() {
            for entry in std::fs::read_dir(&directory).unwrap() {
                let path = entry.unwrap().path();
                let kind = path.symlink_metadata().unwrap();
                if path == self.dsc.home() || path == self.dsc.path("password") || path == self.dsc.path("keep") {
                    continue;
                }
                if directory == inbox {
                    let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                    let bytes = if kind.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
                    files.insert(name, bytes);
                } else if kind.is_dir() {
                    waiting.push(path);
                } else {
                    others.push(path);
                }
            }
        }
        assert!(others.is_empty(), "written beside the folder: {others:?}");
        files
    }

    /// The names in the folder.
    #[track_caller]
    pub(crate) fn names(&self) -> Vec<String> {
        self.files().into_keys().collect()
    }
}

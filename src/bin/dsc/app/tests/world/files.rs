//! The server's files.

use downstream::e2e::armour;
use downstream::protocol::{FileId, Request};
use sha2::{Digest as _, Sha256};

use super::{Logged, Maps, What, World, pair};
use crate::server::Answer;

/// A file; its number is its place, from 1.
pub(super) struct Stored {
    pub(super) sender: String,
    pub(super) target: String,
    pub(super) name: String,
    pub(super) size: u64,
    pub(super) sha256: [u8; 32],
    pub(super) bytes: Vec<u8>,
    /// Its number in the log, once it is whole.
    pub(super) id: Option<usize>,
    pub(super) dropped: bool,
}

impl Maps {
    /// The commands about files.
    pub(super) fn files(&mut self, me: &str, request: &Request<'_>) -> Option<Answer> {
        let at = |file: &FileId| usize::try_from(file.0).unwrap().wrapping_sub(1);
        Some(match request {
            Request::SendFile { target, name, size, sha256 } => {
                let (target, name) = (target.as_str(), name.as_str());
                if self.rooms.get(target).is_some_and(|room| room.e2e && name != "sealed") {
                    return Some(Self::err("send-file", "e2e-required", &[]));
                }
                let same = |file: &Stored| {
                    !file.dropped
                        && (file.sender.as_str(), file.target.as_str(), file.size, file.sha256)
                            == (me, target, *size, *sha256)
                };
                let at = self.files.iter().position(same).unwrap_or_else(|| {
                    self.files.push(Stored {
                        sender: me.to_owned(),
                        target: target.to_owned(),
                        name: name.to_owned(),
                        size: *size,
                        sha256: *sha256,
                        bytes: Vec::new(),
                        id: None,
                        dropped: false,
                    });
                    self.files.len() - 1
                });
                self.grown("send-file", at, &[])
            }
            Request::Chunk { file, offset, data } => {
                let at = at(file);
                match self.files.get(at) {
                    Some(file) if file.sender == me && !file.dropped && file.id.is_none() => {
                        let here = file.bytes.len();
                        if here as u64 != *offset {
                            return Some(Self::err("chunk", "conflict", &[("offset", here.to_string())]));
                        }
                    }
                    _ => return Some(Self::err("chunk", "not-found", &[])),
                }
                let bytes = armour::unbase64(data).unwrap();
                assert!(bytes.len() <= downstream::protocol::file::CHUNK_MAX);
                self.grown("chunk", at, &bytes)
            }
            Request::GetFile { file, offset, length } => {
                let Some(stored) = self.files.get(at(file)).filter(|file| !file.dropped && file.id.is_some()) else {
                    return Some(Self::err("get-file", "not-found", &[]));
                };
                let begin = usize::try_from(*offset).unwrap().min(stored.bytes.len());
                let end = begin.saturating_add(usize::try_from(*length).unwrap()).min(stored.bytes.len());
                let pieces = stored.bytes[begin..end].chunks(downstream::protocol::file::CHUNK_MAX).enumerate();
                let row = |(n, piece): (usize, &[u8])| {
                    let offset = begin + n * downstream::protocol::file::CHUNK_MAX;
                    format!("chunk {file} {offset} {}", armour::base64(piece))
                };
                let more = if end < stored.bytes.len() { "yes" } else { "no" };
                let keys = [("file", file.to_string()), ("offset", end.to_string())];
                let more = [("size", stored.size.to_string()), ("more", more.to_owned())];
                Self::ok(pieces.map(row).collect(), &[keys, more].concat())
            }
            Request::Files { target, after, sha256 } => {
                let conversation = |file: &Stored| match file.target.as_str() {
                    target if target == me => file.sender.clone(),
                    target => target.to_owned(),
                };
                let sees = |file: &Stored| {
                    let here = match self.rooms.get(&file.target) {
                        Some(room) => room.members.contains(me),
                        None => file.target == me || file.sender == me,
                    };
                    !file.dropped && here && (file.id.is_some() || file.sender == me)
                };
                let wanted = |(at, file): &(usize, &Stored)| {
                    *at as u64 >= after.0
                        && sees(file)
                        && target.as_ref().is_none_or(|target| target.as_str() == conversation(file))
                        && sha256.is_none_or(|sha256| sha256 == file.sha256)
                };
                let row = |(at, file): (usize, &Stored)| {
                    let Stored { target, sender, size, sha256, name, .. } = file;
                    let state = if file.id.is_some() { "done" } else { "partial" };
                    let (time, sha256) = (Self::time(at as u64), armour::hex(sha256));
                    format!(
                        "upload {} {time} {target} {sender} size={size} sha256={sha256} state={state} :{name}",
                        at + 1
                    )
                };
                let rows: Vec<String> = self.files.iter().enumerate().filter(wanted).map(row).collect();
                let count = rows.len().to_string();
                Self::ok(rows, &[("count", count), ("more", "no".to_owned())])
            }
            Request::DropFile { file } => match self.files.get_mut(at(file)) {
                Some(stored) if stored.sender == me => {
                    stored.dropped = true;
                    Self::ok(Vec::new(), &[])
                }
                _ => Self::err("drop-file", "not-found", &[]),
            },
            _ => return None,
        })
    }

    /// A file that gets bytes, and is finished by the last.
    pub(super) fn grown(&mut self, verb: &str, at: usize, bytes: &[u8]) -> Answer {
        let file = &mut self.files[at];
        file.bytes.extend_from_slice(bytes);
        let mut keys = vec![("file", (at + 1).to_string()), ("offset", file.bytes.len().to_string())];
        if verb == "send-file" {
            keys.push(("chunk", downstream::protocol::file::CHUNK_MAX.to_string()));
        }
        let here = file.bytes.len() as u64;
        if here > file.size {
            file.bytes.truncate(file.bytes.len() - bytes.len());
            return Self::err(verb, "too-long", &[("max", file.size.to_string())]);
        }
        if here == file.size {
            let sha256: [u8; 32] = Sha256::digest(&file.bytes).into();
            if sha256 != file.sha256 {
                file.dropped = true;
                return Self::err(verb, "checksum", &[]);
            }
            let id = match file.id {
                Some(id) => id,
                None => {
                    let line =
                        Logged { target: file.target.clone(), sender: file.sender.clone(), what: What::File(at) };
                    let log = self.logs.entry(pair(&line.sender, &line.target)).or_default();
                    log.push(line);
                    *file.id.insert(log.len())
                }
            };
            keys.extend([("done", "yes".to_owned()), ("id", id.to_string())]);
        }
        Self::ok(Vec::new(), &keys)
    }
}

impl World {
    /// Has the server claim another size of a file.
    pub(in crate::app::tests) fn claim_size(&self, file: usize, size: u64) {
        self.0.borrow_mut().files[file - 1].size = size;
    }

    /// Puts a file into a conversation, whole, as somebody by hand would.
    pub(in crate::app::tests) fn put_file(&self, sender: &str, target: &str, name: &str, bytes: &[u8]) -> usize {
        let mut maps = self.0.borrow_mut();
        maps.files.push(Stored {
            sender: sender.to_owned(),
            target: target.to_owned(),
            name: name.to_owned(),
            size: bytes.len() as u64,
            sha256: Sha256::digest(bytes).into(),
            bytes: Vec::new(),
            id: None,
            dropped: false,
        });
        let at = maps.files.len() - 1;
        maps.grown("chunk", at, bytes);
        at + 1
    }
}

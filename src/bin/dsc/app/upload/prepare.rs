//! From what a person names to a copy in the spool that can be sent.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use downstream::protocol::Target;
use downstream::protocol::file::FILE_NAME_MAX;

use super::{Teller, Work, given_up};
use crate::app::send::post_key;
use crate::app::{Client, is_sealed_room, notice, now};
use crate::error::Failure;
use crate::event::{Event, Phase};
use crate::spool::{self, Held, Limit, Opened, Spool};
use crate::store::{Source, Stage, Upload};

/// What is to be sent.
pub(crate) struct Sending<'a> {
    /// To whom.
    pub(crate) target: &'a Target,
    /// What it is called there; else after its source.
    pub(crate) name: Option<&'a str>,
    /// Its media type; else after its name.
    pub(crate) mime: Option<&'a str>,
    /// In clear.
    pub(crate) plain: bool,
    /// For lines that a person types.
    pub(crate) by_hand: bool,
    /// Where from.
    pub(crate) from: Origin<'a>,
}

/// Where from.
pub(crate) enum Origin<'a> {
    /// A path; whether a directory is sent as an archive.
    Path(&'a Path, bool),
    /// A stream.
    Stream(&'a mut dyn Read),
}
impl Client<'_> {
    /// That a file can be sent there at all: before it is sealed, which may take long.
    ///
    /// # Errors
    /// What sending a message would fail with.
    pub(crate) fn check_receiver(&mut self, target: &Target, plain: bool) -> Result<(), Failure> {
        match target {
            Target::Room(room) if plain => match self.transact(|tx| is_sealed_room(tx, room))? {
                true => Err(Failure::usage(format!("{room} is an end-to-end room: nothing is sent there in clear"))),
                false => Ok(()),
            },
            Target::User(_) if plain => Ok(()),
            Target::Room(room) => self.require_e2e(room).and_then(|()| self.try_sealing(target)),
            Target::User(_) => self.try_sealing(target),
        }
    }

    /// Seals what is to be sent into the spool, or finds what was sealed of it before and not sent to its end.
    ///
    /// # Errors
    /// It cannot be read, is too large or changes meanwhile; the disk is full. Nothing is left behind then.
    pub(crate) fn begin_upload(&mut self, sending: Sending<'_>, max_file: Option<u64>) -> Result<Work, Failure> {
        self.sweep_spool()?;
        let limit = Limit { max_file, plain: sending.plain };
        let Sending { target, plain, by_hand, .. } = sending;
        let told = |name: &str| Teller { target: target.clone(), name: name.to_owned() };
        match sending.from {
            Origin::Stream(input) => {
                let name = file_name(sending.name.unwrap_or("input"));
                let mime = media_type(sending.mime, &name);
                let begin = |source| Upload::begin(target, &name, &mime, plain, by_hand, source);
                self.spool_stream(input, begin(None)?, limit, &told(&name))
            }
            Origin::Path(path, as_archive) => {
                let opened = spool::open(path)?;
                let last =
                    |path: &Path| path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
                let archive = matches!(opened, Opened::Directory(_));
                let own = match &opened {
                    Opened::File(_, Source { path, .. }) => last(path),
                    Opened::Directory(path) => format!("{}.tar", last(path)),
                    Opened::Stream(_) => last(path),
                };
                let name = file_name(sending.name.unwrap_or(&own));
                let mime = media_type(sending.mime, if archive { "x.tar" } else { &name });
                match opened {
                    // Its lines are made again from the path, for pieces that are sent later.
                    Opened::Directory(_) | Opened::Stream(_) if by_hand => {
                        Err(Failure::usage(format!("{} is no file, and by hand only files are sent", path.display()))
                            .hint(
                                "write it to a file first: a directory with `tar`, what comes from a pipe with `cat`",
                            ))
                    }
                    Opened::Directory(path) if !as_archive => {
                        Err(Failure::usage(format!("{} is a directory", path.display()))
                            .hint("--tar sends it as one archive"))
                    }
                    Opened::Directory(path) => {
                        let upload = Upload::begin(target, &name, &mime, plain, by_hand, None)?;
                        self.spool_directory(&path, upload, limit, &told(&name))
                    }
                    Opened::Stream(mut input) => {
                        let upload = Upload::begin(target, &name, &mime, plain, by_hand, None)?;
                        self.spool_stream(&mut input, upload, limit, &told(&name))
                    }
                    Opened::File(file, source) => {
                        limit.check(&name, source.size)?;
                        let upload = Upload::begin(target, &name, &mime, plain, by_hand, Some(source))?;
                        match self.begun_before(&upload)? {
                            Some(work) => Ok(work),
                            None => self.spool_file(file, upload, limit, &told(&name)),
                        }
                    }
                }
            }
        }
    }

    /// What was begun of the same file for the same target. Of a file that has changed since, what was begun
    /// is given up: another text is never sealed under its key.
    fn begun_before(&mut self, new: &Upload) -> Result<Option<Work>, Failure> {
        let spool = Spool::of(self.store.home());
        let path = |upload: &Upload| upload.source.as_ref().map(|source| source.path.clone());
        let same = |old: &Upload| {
            (&old.target, &old.name, old.plain, old.by_hand, path(old))
                == (&new.target, &new.name, new.plain, new.by_hand, path(new))
        };
        let found = self.transact(|tx| Ok(tx.uploads()?.into_iter().find(same)))?;
        let Some(old) = found else { return Ok(None) };
        let held = spool.take(&old.id)?;
        // It may have been finished meanwhile.
        let Some(old) = self.transact(|tx| Ok(tx.upload(&old.id)?))? else { return held.remove().map(|()| None) };
        let work = Work { upload: old, held };
        if work.upload.source == new.source && work.upload.stage != Stage::Preparing && work.is_whole()? {
            return Ok(Some(work));
        }
        if work.upload.source != new.source {
            let text = format!("{} has changed since its upload was begun: it is sent from its beginning", new.name);
            self.say(&notice("upload-anew", Some(new.target.as_str()), text))?;
        }
        self.drop_upload(work)?;
        Ok(None)
    }

    fn spool_file(&mut self, file: File, upload: Upload, limit: Limit, told: &Teller) -> Result<Work, Failure> {
        let Some(source) = upload.source.clone() else { return Err(Failure::failed("a file without a state")) };
        self.prepare(upload, limit, |held, upload, show| {
            let mut input = &file;
            let size = source.size;
            let mut tell = |done| show(&told.event(Phase::Reading, done, Some(size)));
            let stage = if upload.plain {
                let sha256 = spool::digest(&mut input, size, &upload.name, &mut tell)?;
                Stage::Clear { size, sha256, spooled: false }
            } else {
                let names = (upload.name.as_str(), upload.mime.as_str());
                Stage::Sealed(spool::seal(&mut input, size, held, names, &mut tell)?)
            };
            spool::unchanged(&file, &source, &upload.name)?;
            Ok(stage)
        })
    }

    fn spool_stream(
        &mut self,
        input: &mut dyn Read,
        upload: Upload,
        limit: Limit,
        told: &Teller,
    ) -> Result<Work, Failure> {
        let spool = Spool::of(self.store.home());
        self.prepare(upload, limit, |held, upload, show| {
            let mut tell = |done| show(&told.event(Phase::Reading, done, None));
            if upload.plain {
                let (size, sha256) = spool::copy(input, held, &upload.name, limit, &mut tell)?;
                return Ok(Stage::Clear { size, sha256, spooled: true });
            }
            let mut scratch = spool.scratch(&upload.name, limit)?;
            scratch.fill(input, &mut tell)?;
            seal_scratch(scratch, held, upload, told, show)
        })
    }

    fn spool_directory(&mut self, path: &Path, upload: Upload, limit: Limit, told: &Teller) -> Result<Work, Failure> {
        let spool = Spool::of(self.store.home());
        let (mut written, mut left_out) = (0, 0);
        let work = self.prepare(upload, limit, |held, upload, show| {
            let mut scratch = spool.scratch(&upload.name, limit)?;
            match spool::pack(path, &mut scratch) {
                Ok(counts) => (written, left_out) = counts,
                Err(failure) => return Err(scratch.fault().unwrap_or(failure)),
            }
            if !upload.plain {
                return seal_scratch(scratch, held, upload, told, show);
            }
            let (_, mut whole) = scratch.finish()?;
            let mut tell = |done| show(&told.event(Phase::Reading, done, None));
            let (size, sha256) = spool::copy(&mut whole, held, &upload.name, limit, &mut tell)?;
            Ok(Stage::Clear { size, sha256, spooled: true })
        })?;
        let left = match left_out {
            0 => String::new(),
            count => format!("; {count} pipes, sockets or devices are left out"),
        };
        let text = format!("{} has {written} entries{left}", work.upload.name);
        self.say(&notice("archive", Some(told.target.as_str()), text))?;
        Ok(work)
    }

    /// Makes the copy of an upload, between a record that it is being made and one that it is whole.
    fn prepare(
        &mut self,
        mut upload: Upload,
        limit: Limit,
        make: impl FnOnce(&Held, &Upload, &mut dyn FnMut(&Event) -> Result<(), Failure>) -> Result<Stage, Failure>,
    ) -> Result<Work, Failure> {
        let held = Spool::of(self.store.home()).create()?;
        held.id().clone_into(&mut upload.id);
        self.transact(|tx| Ok(tx.put_upload(&upload)?))?;
        let made = make(&held, &upload, self.show).and_then(|stage| {
            let size = match &stage {
                Stage::Sealed(file) => file.size,
                Stage::Clear { size, .. } => *size,
                Stage::Preparing | Stage::Announced(_) => 0,
            };
            limit.check(&upload.name, size).map(|()| stage)
        });
        let written = made.and_then(|stage| {
            held.sync()?;
            let whole = Upload { stage, ..upload.clone() };
            self.transact(|tx| {
                // Somebody may have given it up meanwhile.
                tx.upload(&whole.id)?.ok_or_else(|| given_up(&whole))?;
                Ok(tx.put_upload(&whole)?)
            })?;
            Ok(whole)
        });
        match written {
            Ok(upload) => Ok(Work { upload, held }),
            Err(failure) => {
                // The failure is what counts; what this leaves is swept up the next time.
                let _ = held.remove();
                let _ = self.transact(|tx| {
                    tx.drop_upload(&upload.id);
                    Ok(())
                });
                Err(failure)
            }
        }
    }

    /// What was begun of a file.
    pub(super) fn find_upload(&mut self, sending: Sending<'_>) -> Result<Option<Work>, Failure> {
        let Sending { target, plain, by_hand, .. } = sending;
        let Origin::Path(path, _) = sending.from else { return Ok(None) };
        let Opened::File(_, source) = spool::open(path)? else { return Ok(None) };
        let own = source.path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let name = file_name(sending.name.unwrap_or(&own));
        self.begun_before(&Upload::begin(target, &name, "", plain, by_hand, Some(source))?)
    }
}

fn seal_scratch(
    scratch: spool::Scratch,
    held: &Held,
    upload: &Upload,
    told: &Teller,
    show: &mut dyn FnMut(&Event) -> Result<(), Failure>,
) -> Result<Stage, Failure> {
    let (size, mut whole) = scratch.finish()?;
    let mut tell = |done| show(&told.event(Phase::Reading, done, Some(size)));
    let names = (upload.name.as_str(), upload.mime.as_str());
    Ok(Stage::Sealed(spool::seal(&mut whole, size, held, names, &mut tell)?))
}
impl Upload {
    fn begin(
        target: &Target,
        name: &str,
        mime: &str,
        plain: bool,
        by_hand: bool,
        source: Option<Source>,
    ) -> Result<Upload, Failure> {
        Ok(Upload {
            id: String::new(),
            target: target.clone(),
            name: name.to_owned(),
            mime: mime.to_owned(),
            plain,
            by_hand,
            source,
            key: post_key()?,
            made_ms: now().ms(),
            stage: Stage::Preparing,
        })
    }
}

/// A name as it can travel: 1 to 255 bytes.
fn file_name(name: &str) -> String {
    let mut end = name.len().min(FILE_NAME_MAX);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    match name.get(..end) {
        None | Some("") => "file".to_owned(),
        Some(name) => name.to_owned(),
    }
}

/// The media type: as it was given, else after the name.
fn media_type(given: Option<&str>, name: &str) -> String {
    given.map_or_else(|| mime_guess::from_path(name).first_or_octet_stream().to_string(), str::to_owned)
}

//! Sending files: sealed into the spool, given to the server piece by piece, and announced by a message.
//!
//! ```text
//! record: preparing ─▶ sealed copy whole, key in the record ─▶ the server has all ─▶ announced: the message
//!         stands in the outbox, with the record's change in one transaction ─▶ posted: no record
//! ```
//!
//! Killed anywhere in between, it goes on from the last arrow. The server knows an upload by its target, size
//! and SHA-256, and the message by its key: neither is there twice.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use downstream::e2e::armour;
use downstream::protocol::file::{CHUNK_MAX, FILE_NAME_MAX};
use downstream::protocol::{FileName, Target};
use zeroize::Zeroizing;

use super::send::post_key;
use super::{Client, Content, is_sealed_room, notice, now};
use crate::error::{Exit, Failure};
use crate::event::{Event, Phase};
use crate::server::{Answer, Refusal, Reply, command};
use crate::spool::{self, Held, Limit, Opened, Spool};
use crate::store::{Line, Source, Stage, Upload};

/// How often the server may change its mind about where an upload stands, without taking anything of it.
const DISAGREEMENTS: usize = 8;
/// As [`super::PATIENCE`], of who has hours: how often the server may be busy in a row, and for how many
/// seconds each time.
const TRANSFER_PATIENCE: (usize, u64) = (60, 60);
/// The name under which the server has files that it cannot read.
const SEALED_NAME: &str = "sealed";

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

/// An upload that this process works at, and no other as long as this is.
pub(crate) struct Work {
    pub(crate) upload: Upload,
    held: Held,
}

/// A file that its receivers were told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SentFile {
    pub(crate) target: Target,
    pub(crate) name: String,
    pub(crate) size: u64,
    /// The number of its message.
    pub(crate) id: u64,
    pub(crate) encrypted: bool,
    /// The server had it already.
    pub(crate) duplicate: bool,
}

impl SentFile {
    /// What is shown of it.
    pub(crate) fn event(&self) -> Event {
        let SentFile { target, name, size, id, encrypted, duplicate } = self.clone();
        Event::FileSent { target: target.to_string(), name, size, id, encrypted, duplicate }
    }
}

/// Where the bytes of an upload are.
enum Body<'a> {
    Spool(&'a Held),
    Source(File, &'a Source),
}

/// How a run of pieces ended.
enum Run {
    /// With the last piece; the number of the file's message.
    Done(u64),
    /// With a refusal.
    Refused(Refusal),
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

    /// Goes on with an upload until the receivers are told. A lost connection leaves it where it is: this can
    /// be called again, by this process or a later one.
    ///
    /// # Errors
    /// [`Failure`].
    pub(crate) fn finish_upload(&mut self, work: &mut Work) -> Result<SentFile, Failure> {
        let Some(upload) = self.transact(|tx| Ok(tx.upload(&work.upload.id)?))? else {
            return Err(given_up(&work.upload));
        };
        work.upload = upload;
        let Upload { target, name, key, stage, .. } = work.upload.clone();
        match stage {
            Stage::Preparing => Err(Failure::failed(format!("{name} was not sealed to its end"))),
            Stage::Sealed(file) => {
                self.upload(work)?;
                let size = file.size;
                let sent = self.send_once(&target, Content::File(file), &key);
                self.let_go(work)?;
                let sent = sent?;
                Ok(SentFile { target, name, size, id: sent.id, encrypted: true, duplicate: sent.duplicate })
            }
            Stage::Clear { size, .. } => {
                let (id, duplicate) = self.upload(work)?;
                self.transact(|tx| {
                    tx.drop_upload(&work.upload.id);
                    Ok(())
                })?;
                work.held.remove()?;
                Ok(SentFile { target, name, size, id, encrypted: false, duplicate })
            }
            Stage::Announced(message) => {
                let waiting = self.transact(|tx| Ok(tx.outbox()?))?;
                let item =
                    waiting.iter().find(|(_, item)| matches!(&item.line, Line::Post { key: of, .. } if *of == key));
                let sent = match item {
                    Some((item, _)) => self.deliver(*item, &target, Some(message)),
                    None => self.sent_by_another(&target, Some(message)),
                };
                self.let_go(work)?;
                let (sent, size) = (sent?, self.size_of(&target, message)?);
                Ok(SentFile { target, name, size, id: sent.id, encrypted: true, duplicate: sent.duplicate })
            }
        }
    }

    /// What the history says of a file that was announced.
    fn size_of(&mut self, target: &Target, message: downstream::e2e::name::MsgId) -> Result<u64, Failure> {
        use downstream::e2e::inner::{Body, Inner};
        let entry = self.transact(|tx| Ok(tx.entry_of(target, message)?))?;
        let inner = entry.and_then(|entry| match entry.what {
            crate::store::What::Sealed { inner, .. } => Inner::parse(&inner).ok(),
            _ => None,
        });
        Ok(inner.map_or(0, |inner| if let Body::File(file) = inner.body { file.size } else { 0 }))
    }

    /// Takes the sealed copy of an upload off the disk once nothing needs it: its message waits in the outbox,
    /// or is gone from there.
    fn let_go(&mut self, work: &Work) -> Result<(), Failure> {
        let stage = self.transact(|tx| Ok(tx.upload(&work.upload.id)?.map(|upload| upload.stage)))?;
        match stage {
            None | Some(Stage::Announced(_)) => work.held.remove(),
            Some(_) => Ok(()),
        }
    }

    /// Gives the server what it does not have. The number of the file's message, and whether it was there
    /// before.
    fn upload(&mut self, work: &Work) -> Result<(u64, bool), Failure> {
        let (begin, length) = (work.opening_line()?, work.length());
        let told = Teller { target: work.upload.target.clone(), name: work.upload.name.clone() };
        let (tries, most) = TRANSFER_PATIENCE;
        let (mut waits, mut disagreements, mut checksums) = (0, 0, 0);
        let mut before = None;
        loop {
            let answer = self.ask_within(&begin, TRANSFER_PATIENCE)?;
            let reply = answer.reply.map_err(|refusal| refused(&work.upload, refusal))?;
            if let Some(id) = finished(&reply)? {
                return Ok((id, before.is_none()));
            }
            let (file, offset) = (word(&reply, "file")?, number(&reply, "offset")?);
            if offset > length {
                return Err(broken("it has more of the file than there is"));
            }
            // Patience is for a server that does not get on; one that does may say "busy" for hours.
            if before.is_some_and(|before| before < offset) {
                (waits, disagreements) = (0, 0);
            }
            before = Some(offset);
            let size = reply.key("chunk").and_then(|size| size.parse().ok()).unwrap_or(CHUNK_MAX).clamp(1, CHUNK_MAX);
            let body = work.body()?;
            self.say(&told.event(Phase::Sending, offset, Some(length)))?;
            let refusal = match self.send_pieces(&body, &file, offset, length, size, &told)? {
                Run::Done(id) => return Ok((id, false)),
                Run::Refused(refusal) => refusal,
            };
            match refusal.code.as_str() {
                // Where it stands, or under which number, is asked again.
                "conflict" | "not-found" if disagreements < DISAGREEMENTS => disagreements += 1,
                "rate-limited" | "busy" | "internal" if waits < tries => {
                    waits += 1;
                    let seconds = refusal.key("retry-after").and_then(|seconds| seconds.parse().ok()).unwrap_or(1);
                    std::thread::sleep(std::time::Duration::from_secs(std::cmp::min(seconds, most)));
                }
                "checksum" => {
                    // What is here is looked at: was it this side, or the way?
                    if !work.is_intact()? {
                        return Err(self.damaged(work)?);
                    }
                    checksums += 1;
                    if checksums > 1 {
                        return Err(refused(&work.upload, refusal));
                    }
                    before = None;
                }
                _ => return Err(refused(&work.upload, refusal)),
            }
        }
    }

    /// Sends pieces from `offset` on, a window of them at a time.
    fn send_pieces(
        &mut self,
        body: &Body<'_>,
        file: &str,
        offset: u64,
        length: u64,
        size: usize,
        told: &Teller,
    ) -> Result<Run, Failure> {
        let mut at = offset;
        let mut bytes = Zeroizing::new(vec![0; size]);
        let mut next = || {
            let left = usize::try_from(length - at).map_or(size, |left| left.min(size));
            if left == 0 {
                return Ok(None);
            }
            let piece = bytes.get_mut(..left).unwrap_or_default();
            body.read_at(at, piece)?;
            let line = format!("/chunk {file} {at} {}", armour::base64(piece));
            at += left as u64;
            Ok(Some(line))
        };
        let (mut done, mut refusal) = (None, None);
        let Client { server, show, .. } = self;
        let mut take = |answer: Answer| match answer.reply {
            // Behind one that was refused the others are too: the first says why.
            Err(first) => {
                refusal = Some(first);
                Err(Failure::failed("refused"))
            }
            Ok(reply) => {
                done = finished(&reply)?;
                show(&told.event(Phase::Sending, number(&reply, "offset")?, Some(length)))
            }
        };
        let streamed = server.stream(&mut next, &mut take);
        match (refusal, done) {
            (Some(refusal), _) => Ok(Run::Refused(refusal)),
            (None, Some(id)) => streamed.map(|()| Run::Done(id)),
            (None, None) => streamed.and(Err(broken("it took the last piece and did not finish the file"))),
        }
    }

    /// The copy that is sent is not what was sealed: it is of no use any more.
    fn damaged(&mut self, work: &Work) -> Result<Failure, Failure> {
        let Upload { id, name, plain, stage, .. } = &work.upload;
        self.transact(|tx| {
            tx.drop_upload(id);
            Ok(())
        })?;
        work.held.remove()?;
        Ok(match stage {
            Stage::Clear { spooled: false, .. } => {
                Failure::failed(format!("{name} was changed while it was sent: the server has taken nothing"))
                    .hint("send it again when nothing writes to it")
            }
            _ => {
                let what = if *plain { "copy" } else { "sealed copy" };
                Failure::failed(format!("the {what} of {name} on this disk is damaged: the server has taken nothing"))
                    .hint("send it again: a new one is made")
            }
        })
    }

    // ---- by hand -------------------------------------------------------------------------------

    /// Prints the lines of an upload from `offset` on, then those of the message that announces it. It must
    /// have been begun: what the server was told of is what is printed.
    ///
    /// # Errors
    /// [`Failure`].
    pub(crate) fn print_upload(
        &mut self,
        sending: Sending<'_>,
        file: &str,
        offset: u64,
        print: &mut dyn FnMut(&str) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let Sending { target, plain, .. } = sending;
        let Some(work) = self.find_upload(sending)? else {
            return Err(Failure::usage("this file was not begun for this target").hint("first without --file"));
        };
        if !plain {
            // Before gigabytes are printed for nothing.
            self.try_sealing(target)?;
        }
        let length = work.length();
        if offset > length {
            return Err(Failure::usage(format!("--offset {offset} is behind the end: {length} bytes are sent")));
        }
        let body = work.body()?;
        let mut bytes = Zeroizing::new(vec![0; CHUNK_MAX]);
        let mut at = offset;
        while at < length {
            let left = usize::try_from(length - at).map_or(CHUNK_MAX, |left| left.min(CHUNK_MAX));
            let piece = bytes.get_mut(..left).unwrap_or_default();
            body.read_at(at, piece)?;
            print(&format!("/chunk {file} {at} {}", armour::base64(piece)))?;
            at += left as u64;
        }
        let Stage::Sealed(descriptor) = work.upload.stage.clone() else { return Ok(()) };
        let content = Content::File(descriptor);
        let lines = match target {
            Target::User(user) => self.seal_direct(user, content)?,
            Target::Room(room) => self.seal_room(room, content, false)?,
        };
        for (user, body) in &lines.signals {
            print(&format!("/signal {user} {body}"))?;
        }
        // Under the upload's own key: printed and typed twice, it is there once.
        print(&format!("/post {target} {} {}", work.upload.key.as_str(), lines.body))
    }

    /// What was begun of a file.
    fn find_upload(&mut self, sending: Sending<'_>) -> Result<Option<Work>, Failure> {
        let Sending { target, plain, by_hand, .. } = sending;
        let Origin::Path(path, _) = sending.from else { return Ok(None) };
        let Opened::File(_, source) = spool::open(path)? else { return Ok(None) };
        let own = source.path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let name = file_name(sending.name.unwrap_or(&own));
        self.begun_before(&Upload::begin(target, &name, "", plain, by_hand, Some(source))?)
    }

    // ---- what is left of earlier commands ------------------------------------------------------

    /// Every upload that is not finished.
    pub(crate) fn uploads(&mut self) -> Result<Vec<Upload>, Failure> {
        self.sweep_spool()?;
        self.transact(|tx| Ok(tx.uploads()?))
    }

    /// Takes an upload to go on with it; `None` if another process works at it, or has just finished it.
    /// What was being sealed when a process died is sealed anew, under another key, if its source is still
    /// there.
    ///
    /// # Errors
    /// [`Failure`].
    pub(crate) fn take_upload(&mut self, id: &str, max_file: Option<u64>) -> Result<Option<Work>, Failure> {
        let Some(held) = Spool::of(self.store.home()).try_take(id)? else { return Ok(None) };
        let Some(upload) = self.transact(|tx| Ok(tx.upload(id)?))? else { return held.remove().map(|()| None) };
        let work = Work { upload, held };
        if work.upload.stage != Stage::Preparing && work.is_whole()? {
            return Ok(Some(work));
        }
        let Upload { target, name, mime, plain, by_hand, source, .. } = work.upload.clone();
        self.drop_upload(work)?;
        let again =
            source.filter(|source| matches!(spool::open(&source.path), Ok(Opened::File(_, now)) if now == *source));
        let Some(Source { path, .. }) = again else {
            let text = format!("{name} for {target} was not read to its end, and cannot be read again: send it again");
            self.say(&notice("upload-dropped", Some(target.as_str()), text))?;
            return Ok(None);
        };
        let (name, mime) = (Some(name.as_str()), Some(mime.as_str()));
        let from = Origin::Path(&path, false);
        self.begin_upload(Sending { target: &target, name, mime, plain, by_hand, from }, max_file).map(Some)
    }

    /// Gives an upload up: what is here of it, and, with a server, what is there.
    ///
    /// # Errors
    /// [`Failure`]. Its message stands in the outbox already: it is sent.
    pub(crate) fn give_up_upload(&mut self, id: &str) -> Result<Upload, Failure> {
        let held = Spool::of(self.store.home()).take(id)?;
        let Some(upload) = self.transact(|tx| Ok(tx.upload(id)?))? else {
            held.remove()?;
            return Err(Failure::failed("it has just been finished"));
        };
        if matches!(upload.stage, Stage::Announced(_)) {
            return Err(Failure::failed(format!("{} is sent, and only its message waits in the outbox", upload.name))
                .hint("`dsc resend` sends it"));
        }
        let work = Work { upload, held };
        if !self.server.is_offline() && !work.upload.by_hand {
            self.drop_partial(&work.upload)?;
        }
        let upload = work.upload.clone();
        self.drop_upload(work)?;
        Ok(upload)
    }

    /// Has the server forget what it has of an upload. One that it does not know is no failure.
    fn drop_partial(&mut self, upload: &Upload) -> Result<(), Failure> {
        let sha256 = match &upload.stage {
            Stage::Sealed(file) => armour::hex(&file.blob_id),
            Stage::Clear { sha256, .. } => armour::hex(sha256),
            Stage::Preparing | Stage::Announced(_) => return Ok(()),
        };
        let (rows, _) = self.command(&format!("/files {} sha256={sha256}", upload.target))?;
        for row in &rows {
            let words: Vec<&str> = row.split(' ').collect();
            // What is whole has been announced, or is somebody else's.
            if let ["upload", file, ..] = words.as_slice()
                && words.contains(&"state=partial")
            {
                let answer = self.ask(&format!("/drop-file {file}"))?;
                match answer.reply {
                    Err(refusal) if refusal.code != "not-found" => return Err(refusal.into()),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn drop_upload(&mut self, work: Work) -> Result<(), Failure> {
        self.transact(|tx| {
            tx.drop_upload(&work.upload.id);
            Ok(())
        })?;
        work.held.remove()
    }

    /// Removes what processes that died have left in the spool: files without a record.
    fn sweep_spool(&mut self) -> Result<(), Failure> {
        let spool = Spool::of(self.store.home());
        for id in spool.ids()? {
            if self.transact(|tx| Ok(tx.upload(&id)?))?.is_some() {
                continue;
            }
            if let Some(held) = spool.try_take(&id)? {
                // Its record may have come between the two looks.
                if self.transact(|tx| Ok(tx.upload(&id)?))?.is_none() {
                    held.remove()?;
                }
            }
        }
        Ok(())
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

impl Work {
    /// The line with which the server is told of it.
    pub(crate) fn opening_line(&self) -> Result<String, Failure> {
        let Upload { target, name, stage, .. } = &self.upload;
        match stage {
            Stage::Sealed(file) => {
                Ok(format!("/send-file {target} {SEALED_NAME} {} {}", file.ct_len, armour::hex(&file.blob_id)))
            }
            Stage::Clear { size, sha256, .. } => {
                let (size, sha256) = (size.to_string(), armour::hex(sha256));
                Ok(command(&["/send-file", target.as_str(), &plain_name(name), &size, &sha256]).to_string())
            }
            Stage::Preparing | Stage::Announced(_) => Err(Failure::failed(format!("{name} is not ready to be sent"))),
        }
    }

    /// How many bytes the server gets.
    fn length(&self) -> u64 {
        match &self.upload.stage {
            Stage::Sealed(file) => file.ct_len,
            Stage::Clear { size, .. } => *size,
            Stage::Preparing | Stage::Announced(_) => 0,
        }
    }

    /// Where its bytes are.
    ///
    /// # Errors
    /// The source is gone, or is not what it was.
    fn body(&self) -> Result<Body<'_>, Failure> {
        match (&self.upload.stage, &self.upload.source) {
            (Stage::Clear { spooled: false, .. }, Some(source)) => match spool::open(&source.path) {
                Ok(Opened::File(file, now)) if now == *source => Ok(Body::Source(file, source)),
                _ => Err(Failure::failed(format!("{} has changed since its upload was begun", self.upload.name))
                    .hint("send it again, from its beginning")),
            },
            _ => Ok(Body::Spool(&self.held)),
        }
    }

    /// Whether the copy has its length.
    fn is_whole(&self) -> Result<bool, Failure> {
        Ok(match &self.upload.stage {
            Stage::Preparing => false,
            Stage::Sealed(file) => self.held.len()? == file.ct_len,
            Stage::Clear { size, spooled: true, .. } => self.held.len()? == *size,
            Stage::Clear { spooled: false, .. } | Stage::Announced(_) => true,
        })
    }

    /// Whether what would be sent has the SHA-256 that the server was told.
    fn is_intact(&self) -> Result<bool, Failure> {
        let (length, wanted) = match &self.upload.stage {
            Stage::Sealed(file) => (self.length(), file.blob_id),
            Stage::Clear { sha256, .. } => (self.length(), *sha256),
            Stage::Preparing | Stage::Announced(_) => return Ok(false),
        };
        let body = self.body()?;
        let mut input = Bytes { body: &body, at: 0, length };
        let found = spool::digest(&mut input, length, &self.upload.name, &mut |_| Ok(()));
        Ok(found.is_ok_and(|found| found == wanted))
    }
}

impl Body<'_> {
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> Result<(), Failure> {
        match self {
            Body::Spool(held) => held.read_at(offset, bytes),
            Body::Source(file, source) => {
                file.read_exact_at(bytes, offset).map_err(|error| spool::failed(&source.path, &error))
            }
        }
    }
}

/// A body from its beginning.
struct Bytes<'a> {
    body: &'a Body<'a>,
    at: u64,
    length: u64,
}

impl Read for Bytes<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        let left = usize::try_from(self.length - self.at).map_or(bytes.len(), |left| left.min(bytes.len()));
        let piece = bytes.get_mut(..left).unwrap_or_default();
        self.body.read_at(self.at, piece).map_err(|failure| std::io::Error::other(failure.message))?;
        self.at += left as u64;
        Ok(left)
    }
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

/// Of whom and what progress is told.
struct Teller {
    target: Target,
    name: String,
}

impl Teller {
    fn event(&self, phase: Phase, done: u64, size: Option<u64>) -> Event {
        Event::Progress { phase, target: self.target.to_string(), name: self.name.clone(), done, size }
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

/// The same on a line of the protocol, where it has no control characters.
fn plain_name(name: &str) -> String {
    match FileName::parse(name) {
        Ok(name) => name.as_str().to_owned(),
        Err(_) => downstream::e2e::descriptor::safe_name(name),
    }
}

/// The media type: as it was given, else after the name.
fn media_type(given: Option<&str>, name: &str) -> String {
    given.map_or_else(|| mime_guess::from_path(name).first_or_octet_stream().to_string(), str::to_owned)
}

fn finished(reply: &Reply) -> Result<Option<u64>, Failure> {
    match reply.key("done") {
        Some("yes") => number(reply, "id").map(Some),
        _ => Ok(None),
    }
}

fn word(reply: &Reply, key: &str) -> Result<String, Failure> {
    let word = reply.key(key).filter(|word| downstream::protocol::Label::parse(word).is_some());
    word.map(str::to_owned).ok_or_else(|| broken(&format!("its answer has no {key}=")))
}

fn number(reply: &Reply, key: &str) -> Result<u64, Failure> {
    let number = reply.key(key).and_then(|number| number.parse().ok());
    number.ok_or_else(|| broken(&format!("its answer has no {key}=")))
}

fn broken(what: &str) -> Failure {
    Failure::new(Exit::Network, format!("the server does not keep to the protocol: {what}"))
}

fn given_up(upload: &Upload) -> Failure {
    Failure::failed(format!("the upload of {} was given up meanwhile, or finished by another dsc", upload.name))
}

/// Why the server does not take a file.
fn refused(upload: &Upload, refusal: Refusal) -> Failure {
    let (code, max) = (refusal.code.clone(), refusal.key("max").unwrap_or("?").to_owned());
    let Upload { name, id, target, .. } = upload;
    let failure = Failure::from(refusal);
    match code.as_str() {
        "too-long" => failure.hint(format!("the server takes files of at most {max} bytes: send {name} in parts")),
        "quota" => failure.hint(format!(
            "files of this account may take {max} bytes there: `dsc files` lists them. `dsc resume` goes on, `dsc resume --drop {id}` gives {name} up"
        )),
        "e2e-required" => failure.hint(format!("{target} is end to end encrypted: send it without --plain")),
        _ => failure.hint(format!("`dsc resume` tries again, `dsc resume --drop {id}` gives {name} up")),
    }
}

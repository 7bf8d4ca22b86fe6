//! Getting a file: asked for in pieces, each checked before a byte of it is written, and named when all of it was.
//!
//! A download is a value that is moved on step by step, so that what else comes on the connection gets its turn,
//! and that outlives the connection. What it has written is all that there is to know of how far it is: whoever
//! goes on later seals (or hashes) that again, and the hash of the whole vouches for it together with the rest.

mod fetching;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use downstream::e2e::armour::hex;
use downstream::e2e::error::Error;
use downstream::e2e::file::{CHUNK, HEADER};

use self::fetching::{Fault, Place, Target};
use super::files::Found;
use super::take::meaning;
use super::{Client, PATIENCE, no_random, notice, now, wait_for};
use crate::error::Failure;
use crate::event::Event;
use crate::folder::{Before, Folder, Part};
use crate::store::{Download, FileRef, Save};

pub(crate) use self::fetching::Fetching;

/// Bytes asked for in one command. With the commands that a connection has on their way, 16 MiB are.
const PIECE: u64 = 256 << 10;

/// Where a file goes.
#[derive(Debug, Clone)]
pub(crate) enum To {
    /// To standard output.
    Output,
    /// Into a folder, which is made if it is not there and `make` says so; under a name of one's own, or the
    /// sender's made safe.
    Folder { path: PathBuf, make: bool, name: Option<String> },
}

impl Client<'_> {
    /// Begins to get a file, or goes on where an earlier process stopped. `saving` is what waits for it, which
    /// ends with it, and the most bytes that it may have. `None` where an earlier process had done all but say so.
    ///
    /// # Errors
    /// [`Failure`]: it cannot be got, is too large, does not fit, or another process is getting it.
    pub(crate) fn begin_download(
        &mut self,
        wanted: &FileRef,
        to: &To,
        saving: Option<(&Save, u64)>,
    ) -> Result<Option<Box<Fetching>>, Failure> {
        let found = self.find_file(wanted)?;
        let save = saving.map(|(save, _)| save.clone());
        if saving.is_some_and(|(_, most)| found.size() > most) {
            let message = format!("{} has {} bytes, more than --save-max allows", found.name(), found.size());
            return Err(Failure::failed(message).hint(format!("`dsc get-file '{wanted}'` gets it")));
        }
        let To::Folder { path, make, name } = to else {
            return Ok(Some(Fetching::new(found, Place::Output, 0, save)));
        };
        let folder = Folder::open(path, *make)?;
        let name = name.clone().unwrap_or_else(|| found.name());
        let same = |known: &Download| (known.blob, known.folder_inode) == (found.blob(), folder.identity());
        let known = self.downloads()?.into_iter().find(same);
        if let Some(known) = known {
            match folder.again(&known.part, &known.name, found.size())? {
                Before::Part(mut part) => {
                    let had = usable(&part, &found)?;
                    folder.has_room(found.size().saturating_sub(had))?;
                    part.cut(had).map_err(|error| cannot_write(&error))?;
                    let record = Download { name, ..known };
                    self.transact(|tx| Ok(tx.put_download(&record)?))?;
                    let place = Place::Folder(Box::new(Target { folder, part, record }));
                    return Ok(Some(Fetching::new(found, place, had, save)));
                }
                Before::Named(path) => {
                    self.end_download(&known.id, save.as_ref())?;
                    self.say(&received(&found, &path))?;
                    return Ok(None);
                }
                Before::Busy => {
                    return Err(Failure::failed(format!("another dsc is getting {wanted} into the same folder")));
                }
                Before::Gone => self.end_download(&known.id, None)?,
            }
        }
        folder.has_room(found.size())?;
        let mut id = [0; 8];
        getrandom::fill(&mut id).map_err(|_| no_random())?;
        let part = folder.begin(&name)?;
        let record = Download {
            id: hex(&id),
            wanted: wanted.clone(),
            target: found.target.clone(),
            blob: found.blob(),
            size: found.size(),
            name,
            folder: folder.path().to_owned(),
            folder_inode: folder.identity(),
            part: part.id().clone(),
            made_ms: now().ms(),
        };
        if let Err(failure) = self.transact(|tx| Ok(tx.put_download(&record)?)) {
            folder.discard(part)?;
            return Err(failure);
        }
        let place = Place::Folder(Box::new(Target { folder, part, record }));
        Ok(Some(Fetching::new(found, place, 0, save)))
    }

    /// Moves a download on by about `most` bytes. Whether it is over; that is said then.
    ///
    /// # Errors
    /// [`Failure`]. After one of the connection, and after one that passes, the same download can be moved on
    /// with another connection. A file that is not what was sent leaves nothing behind.
    pub(crate) fn move_on(&mut self, work: &mut Fetching, most: u64) -> Result<bool, Failure> {
        let moved = if work.again > 0 { self.go_over(work) } else { self.take_pieces(work, most) };
        match moved.and_then(|()| work.is_whole()) {
            Ok(true) => self.name_it(work).map(|()| true),
            Ok(false) => Ok(false),
            Err(Fault::Check(error)) => self.refuse(work, error).map(|()| false),
            Err(Fault::Other(failure)) => Err(failure),
        }
    }

    /// Gets a file from where it is to its end, and says so.
    ///
    /// # Errors
    /// As [`Client::move_on`].
    pub(crate) fn download(&mut self, work: &mut Fetching) -> Result<(), Failure> {
        while !self.move_on(work, u64::MAX)? {}
        Ok(())
    }

    /// Goes over what an earlier process has written.
    fn go_over(&mut self, work: &mut Fetching) -> Result<(), Fault> {
        if work.wants_header() {
            let answer = self.ask(&command(&work.found, 0, HEADER as u64))?;
            work.take(answer, HEADER as u64)?;
        }
        work.go_over()
    }

    /// Asks for pieces, as many at once as the connection takes, and takes them in.
    fn take_pieces(&mut self, work: &mut Fetching, most: u64) -> Result<(), Fault> {
        let end = work.found.total().min(work.at.saturating_add(most));
        let (mut asked, mut taken) = (work.at, work.at);
        let piece = |at: u64| PIECE.min(end.saturating_sub(at));
        let found = work.found.clone();
        let (mut fault, mut wait) = (None, None);
        let Client { server, show, .. } = self;
        let streamed = server.stream(
            &mut || {
                let length = piece(asked);
                let command = (length > 0).then(|| command(&found, asked, length));
                asked = asked.saturating_add(length);
                Ok(command)
            },
            &mut |answer| {
                let length = piece(taken);
                let slow = wait_for(&answer, PATIENCE.1);
                if let Err(why) = work.take(answer, length) {
                    (fault, wait) = (Some(why), slow);
                    // It ends the stream; the fault itself says why.
                    return Err(Failure::failed("a piece of a file was not taken"));
                }
                taken = taken.saturating_add(length);
                show(&work.progress())
            },
        );
        match (fault, wait) {
            (Some(_), Some(wait)) if work.waited < PATIENCE.0 => {
                work.waited += 1;
                std::thread::sleep(wait.max(Duration::from_millis(1)));
                Ok(())
            }
            (Some(fault), _) => Err(fault),
            (None, _) => Ok(streamed?),
        }
    }

    /// Gives a whole file its name.
    fn name_it(&mut self, work: &mut Fetching) -> Result<(), Failure> {
        match &work.place {
            Place::Folder(target) => {
                let path = target.folder.finish(&target.part, &target.record.name)?;
                self.end_download(&target.record.id, work.save.as_ref())?;
                work.place = Place::None;
                self.say(&received(&work.found, &path))
            }
            Place::Output => io::stdout().lock().flush().map_err(|error| cannot_write(&error)),
            Place::None => Ok(()),
        }
    }

    /// A download is over: what was noted of it goes, all at once.
    fn end_download(&mut self, id: &str, save: Option<&Save>) -> Result<(), Failure> {
        self.transact(|tx| {
            tx.drop_download(id);
            save.into_iter().for_each(|save| tx.drop_save(save));
            Ok(())
        })
    }

    /// A file that is not what was sent is erased. If a part was gone on with, that may have been changed
    /// meanwhile, or not have been written when the machine lost its power: then it begins anew, once.
    fn refuse(&mut self, work: &mut Fetching, error: Error) -> Result<(), Failure> {
        let (name, at) = (work.found.name(), work.at);
        if work.begin_anew()? {
            let text = format!("what was there of {name} is not what was sent; it is got anew");
            return self.say(&notice("part-changed", Some(work.found.target.as_str()), text));
        }
        let kept = match std::mem::replace(&mut work.place, Place::None) {
            Place::Folder(target) => {
                let Target { folder, part, record } = *target;
                folder.discard(part)?;
                self.end_download(&record.id, None)?;
                "nothing of it was kept"
            }
            Place::Output => "what was written to standard output is not the whole file",
            Place::None => "it was over",
        };
        let (code, why) = (error.code(), meaning(error));
        let message = format!("{name} is refused behind {at} of {} bytes ({code}): {why}", work.found.total());
        Err(Failure::failed(message).hint(format!("{kept}; ask its sender to send it again")))
    }

    /// Every download that is not finished.
    ///
    /// # Errors
    /// [`Failure`] of the store.
    pub(crate) fn downloads(&mut self) -> Result<Vec<Download>, Failure> {
        self.transact(|tx| Ok(tx.downloads()?))
    }

    /// Goes on with a download that an earlier process began.
    ///
    /// # Errors
    /// As [`Client::move_on`].
    pub(crate) fn finish_download(&mut self, id: &str) -> Result<(), Failure> {
        let Some(known) = self.downloads()?.into_iter().find(|known| known.id == id) else { return Ok(()) };
        let to = To::Folder { path: known.folder, make: false, name: Some(known.name) };
        match self.begin_download(&known.wanted, &to, None)? {
            Some(mut work) => self.download(&mut work),
            None => Ok(()),
        }
    }

    /// Gives a download up, and erases what is there of it. Its name.
    ///
    /// # Errors
    /// Another process is at it.
    pub(crate) fn give_up_download(&mut self, id: &str) -> Result<String, Failure> {
        let known = self.downloads()?.into_iter().find(|known| known.id == id);
        let known = known.ok_or_else(|| Failure::usage(format!("there is no download {id}")))?;
        // A folder that is gone has no part in it.
        if let Ok(folder) = Folder::open(&known.folder, false) {
            match folder.again(&known.part, &known.name, known.size)? {
                Before::Busy => return Err(Failure::failed(format!("another dsc is getting {}", known.name))),
                Before::Part(part) => folder.discard(part)?,
                Before::Named(_) | Before::Gone => {}
            }
        }
        self.end_download(id, None)?;
        Ok(known.name)
    }
}

/// The command for a piece of a file.
fn command(found: &Found, at: u64, length: u64) -> String {
    format!("/get-file {} offset={at} length={length}", found.file)
}

/// Bytes of a part that can be gone on with: whole chunks, and not more than the file has.
fn usable(part: &Part, found: &Found) -> Result<u64, Failure> {
    let there = part.len().map_err(|error| cannot_write(&error))?.min(found.size());
    Ok(there - there % CHUNK as u64)
}

fn received(found: &Found, path: &Path) -> Event {
    Event::FileReceived {
        target: found.target.to_string(),
        id: found.id,
        file: found.file.0,
        path: path.display().to_string(),
        size: found.size(),
        blob: hex(&found.blob()),
        encrypted: found.is_sealed(),
    }
}

/// A file or standard output that takes no more.
fn cannot_write(error: &io::Error) -> Failure {
    let failure = Failure::failed(format!("cannot write the file: {error}"));
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::closed(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            failure.hint("what is there stays: make room, and the same command goes on")
        }
        _ => failure,
    }
}

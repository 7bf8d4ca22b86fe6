//! Getting a file: asked for in pieces, each checked before a byte of it is written, and named when all of it was.
//!
//! A download is a value that is moved on step by step, so that what else comes on the connection gets its turn,
//! and that outlives the connection. What it has written is all that there is to know of how far it is: whoever
//! goes on later seals (or hashes) that again, and the hash of the whole vouches for it together with the rest.

use std::io::{self, Read as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use downstream::e2e::armour::hex;
use downstream::e2e::error::Error;
use downstream::e2e::file::{CHUNK, HEADER, Receiver, SEALED_CHUNK};
use downstream::protocol::{ChunkLine, Fields};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::files::{Found, Kind};
use super::take::meaning;
use super::{Client, PATIENCE, no_random, notice, now, wait_for};
use crate::error::Failure;
use crate::event::{Event, Phase};
use crate::folder::{Before, Folder, Part};
use crate::server::Answer;
use crate::store::{Download, FileRef, Save};

/// Bytes asked for in one command. With the commands that a connection has on their way, 16 MiB are.
pub(crate) const PIECE: u64 = 256 << 10;
/// Bytes of a part that are gone over in one step: well below a second.
const AGAIN: u64 = 32 << 20;

/// Where a file goes.
#[derive(Debug, Clone)]
pub(crate) enum To {
    /// To standard output.
    Output,
    /// Into a folder, which is made if it is not there and `make` says so; under a name of one's own, or the
    /// sender's made safe.
    Folder { path: PathBuf, make: bool, name: Option<String> },
}

/// A download at work.
pub(crate) struct Fetching {
    found: Found,
    place: Place,
    check: Check,
    /// Bytes of the server's that were taken.
    at: u64,
    /// Those of them that make no chunk yet.
    rest: Vec<u8>,
    /// Bytes of the part that are still to be gone over.
    again: u64,
    /// Some of it was written by an earlier process.
    resumed: bool,
    /// How often the server said that it is too fast, since it last gave something.
    waited: usize,
    /// What waits for it.
    save: Option<Save>,
}

enum Place {
    Output,
    Folder {
        folder: Folder,
        part: Part,
        record: Download,
    },
    /// It is over.
    None,
}

enum Check {
    /// Sealed, and its first bytes have not come.
    Header,
    Sealed(Box<Receiver>),
    Plain(Sha256),
}

/// What [`Client::begin_download`] came to.
pub(crate) enum Begun {
    /// There is something to do.
    Fetching(Box<Fetching>),
    /// An earlier process had done it.
    Done(Event),
}

/// Why a piece was not taken.
enum Fault {
    /// It is not what was sealed (or hashed): nothing of the file is believed any more.
    Check(Error),
    Other(Failure),
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Fault {
        Fault::Other(failure)
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Fault {
        Fault::Other(match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::closed(),
            _ => cannot_write(&error),
        })
    }
}

impl Client<'_> {
    /// Begins to get a file, or goes on where an earlier process stopped. `saving` is what waits for it, which
    /// ends with it, and the most bytes that it may have.
    ///
    /// # Errors
    /// [`Failure`]: it cannot be got, is too large, does not fit, or another process is getting it.
    pub(crate) fn begin_download(
        &mut self,
        wanted: &FileRef,
        to: &To,
        saving: Option<(&Save, u64)>,
    ) -> Result<Begun, Failure> {
        let found = self.find_file(wanted)?;
        let save = saving.map(|(save, _)| save.clone());
        if saving.is_some_and(|(_, most)| found.size() > most) {
            let message = format!("{} has {} bytes, more than --save-max allows", found.name(), found.size());
            return Err(Failure::failed(message).hint(format!("`dsc get-file '{wanted}'` gets it")));
        }
        let To::Folder { path, make, name } = to else { return Ok(Fetching::begun(found, Place::Output, 0, save)) };
        let folder = Folder::open(path, *make)?;
        let name = name.clone().unwrap_or_else(|| found.name());
        let same = |known: &Download| (known.blob, known.folder_inode) == (found.blob(), folder.identity());
        let known = self.transact(|tx| Ok(tx.downloads()?.into_iter().find(same)))?;
        if let Some(known) = known {
            match folder.again(&known.part, &known.name, found.size())? {
                Before::Part(mut part) => {
                    let had = usable(&part, &found)?;
                    folder.has_room(found.size().saturating_sub(had))?;
                    part.cut(had).map_err(|error| cannot_write(&error))?;
                    let record = Download { name, ..known };
                    self.transact(|tx| Ok(tx.put_download(&record)?))?;
                    return Ok(Fetching::begun(found, Place::Folder { folder, part, record }, had, save));
                }
                Before::Named(path) => {
                    self.end_download(&known.id, save.as_ref())?;
                    return Ok(Begun::Done(received(&found, &path)));
                }
                Before::Busy => {
                    return Err(Failure::failed(format!("another dsc is getting {wanted} into the same folder")));
                }
                Before::Gone => self.transact(|tx| Ok(tx.drop_download(&known.id)))?,
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
        Ok(Fetching::begun(found, Place::Folder { folder, part, record }, 0, save))
    }

    /// Moves a download on by about `most` bytes. When it is over, what is to be said of it; nothing of a file
    /// that went to standard output.
    ///
    /// # Errors
    /// [`Failure`]. After one of the connection, and after one that passes, the same download can be moved on
    /// with another connection. A file that is not what was sent leaves nothing behind.
    pub(crate) fn move_on(&mut self, work: &mut Fetching, most: u64) -> Result<Option<Option<Event>>, Failure> {
        let total = work.found.total();
        let moved = if work.again > 0 { self.go_over(work) } else { self.take_pieces(work, most) };
        let ended = match moved {
            Ok(()) if work.again == 0 && work.at == total => work.check_whole(),
            Ok(()) => return Ok(None),
            Err(fault) => Err(fault),
        };
        match ended {
            Ok(()) => self.name_it(work).map(Some),
            Err(Fault::Check(error)) => self.refuse(work, error),
            Err(Fault::Other(failure)) => Err(failure),
        }
    }

    /// Gets a file from where it is to its end, and says so.
    ///
    /// # Errors
    /// As [`Client::move_on`].
    pub(crate) fn download(&mut self, work: &mut Fetching) -> Result<(), Failure> {
        loop {
            if let Some(ended) = self.move_on(work, u64::MAX)? {
                return ended.map_or(Ok(()), |event| self.say(&event));
            }
        }
    }

    /// Goes over what an earlier process has written.
    fn go_over(&mut self, work: &mut Fetching) -> Result<(), Fault> {
        if matches!(work.check, Check::Header) {
            let answer = self.ask(&work.command(0, HEADER as u64))?;
            work.take(answer, HEADER as u64)?;
        }
        let Place::Folder { part, .. } = &mut work.place else { return Ok(()) };
        let mut chunk = Zeroizing::new(vec![0; CHUNK]);
        let end = work.again.saturating_sub(AGAIN);
        while work.again > end {
            let length = usize::try_from(work.again).map_or(CHUNK, |left| left.min(CHUNK));
            let chunk = chunk.get_mut(..length).unwrap_or_default();
            part.read_exact(chunk)?;
            match &mut work.check {
                Check::Sealed(receiver) => receiver.again(chunk).map_err(Fault::Check)?,
                Check::Plain(hash) => hash.update(&*chunk),
                Check::Header => {}
            }
            // Whole chunks, all of them.
            let passed = if matches!(work.check, Check::Sealed(_)) { SEALED_CHUNK } else { length };
            work.again = work.again.saturating_sub(length as u64);
            work.at = work.at.saturating_add(passed as u64);
        }
        Ok(())
    }

    /// Asks for pieces, as many at once as the connection takes, and takes them in.
    fn take_pieces(&mut self, work: &mut Fetching, most: u64) -> Result<(), Fault> {
        let end = work.found.total().min(work.at.saturating_add(most));
        let (mut asked, mut taken) = (work.at, work.at);
        let piece = |at: u64| PIECE.min(end.saturating_sub(at));
        let commands = Commands { file: work.found.file.to_string() };
        let (mut fault, mut wait) = (None, None);
        let Client { server, show, .. } = self;
        let streamed = server.stream(
            &mut || {
                let length = piece(asked);
                let command = (length > 0).then(|| commands.piece(asked, length));
                asked = asked.saturating_add(length);
                Ok(command)
            },
            &mut |answer| {
                let length = piece(taken);
                let slow = wait_for(&answer, PATIENCE.1);
                if let Err(why) = work.take(answer, length) {
                    wait = slow;
                    fault = Some(why);
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
    fn name_it(&mut self, work: &mut Fetching) -> Result<Option<Event>, Failure> {
        match &work.place {
            Place::Folder { folder, part, record } => {
                let path = folder.finish(part, &record.name)?;
                let event = received(&work.found, &path);
                self.end_download(&record.id, work.save.as_ref())?;
                work.place = Place::None;
                Ok(Some(event))
            }
            Place::Output => {
                io::stdout().lock().flush().map_err(|error| cannot_write(&error))?;
                Ok(None)
            }
            Place::None => Ok(None),
        }
    }

    /// A download has ended well: what was noted of it goes, all at once.
    fn end_download(&mut self, id: &str, save: Option<&Save>) -> Result<(), Failure> {
        self.transact(|tx| {
            tx.drop_download(id);
            save.into_iter().for_each(|save| tx.drop_save(save));
            Ok(())
        })
    }

    /// A file that is not what was sent is erased. If a part was gone on with, that may have been changed
    /// meanwhile, or not have been written when the machine lost its power: then it begins anew, once.
    fn refuse(&mut self, work: &mut Fetching, error: Error) -> Result<Option<Option<Event>>, Failure> {
        let name = work.found.name();
        if let Place::Folder { part, .. } = &mut work.place
            && std::mem::take(&mut work.resumed)
        {
            part.cut(0).map_err(|error| cannot_write(&error))?;
            (work.at, work.again, work.check) = (0, 0, Check::new(&work.found));
            work.rest.clear();
            let text = format!("what was there of {name} is not what was sent; it is got anew");
            self.say(&notice("part-changed", Some(work.found.target.as_str()), text))?;
            return Ok(None);
        }
        if let Place::Folder { folder, part, record } = std::mem::replace(&mut work.place, Place::None) {
            self.transact(|tx| Ok(tx.drop_download(&record.id)))?;
            folder.discard(part)?;
        }
        let (code, why) = (error.code(), meaning(error));
        let message = format!("{name} is refused behind {} of {} bytes ({code}): {why}", work.at, work.found.total());
        let kept = match work.place {
            Place::Output => "what was written to standard output is not the whole file",
            Place::Folder { .. } | Place::None => "nothing of it was kept",
        };
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
            Begun::Fetching(mut work) => self.download(&mut work),
            Begun::Done(event) => self.say(&event),
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
        self.transact(|tx| Ok(tx.drop_download(id)))?;
        Ok(known.name)
    }
}

impl Fetching {
    fn begun(found: Found, place: Place, had: u64, save: Option<Save>) -> Begun {
        let check = Check::new(&found);
        let resumed = had > 0;
        Begun::Fetching(Box::new(Fetching {
            found,
            place,
            check,
            at: 0,
            rest: Vec::new(),
            again: had,
            resumed,
            waited: 0,
            save,
        }))
    }

    fn command(&self, at: u64, length: u64) -> String {
        Commands { file: self.found.file.to_string() }.piece(at, length)
    }

    fn progress(&self) -> Event {
        Event::Progress {
            phase: Phase::Receiving,
            target: self.found.target.to_string(),
            name: self.found.name(),
            done: self.at,
            size: Some(self.found.total()),
        }
    }

    /// Takes the answer to a question for the next `length` bytes.
    fn take(&mut self, answer: Answer, length: u64) -> Result<(), Fault> {
        let reply = answer.reply.map_err(|refusal| match refusal.code.as_str() {
            "not-found" => super::files::gone(&self.found.name()),
            _ => refusal.into(),
        })?;
        // Another connection would hear the same: it is not tried again by itself.
        let stray = |why: &str| Failure::failed(format!("the server does not keep to the protocol: {why}"));
        if reply.key("size").and_then(|size| size.parse().ok()) != Some(self.found.total()) {
            return Err(stray("a file has another size than was said").into());
        }
        let end = self.at.saturating_add(length);
        for row in &answer.rows {
            let chunk = ChunkLine::read(&Fields::parse(row)).map_err(|why| stray(&why.to_string()))?;
            let bytes = chunk.bytes().map_err(|why| stray(&why.to_string()))?;
            if (chunk.file, chunk.offset) != (self.found.file, self.at) {
                return Err(stray("it gave another piece of a file than the next").into());
            }
            let next = self.at.saturating_add(bytes.len() as u64);
            if next > end {
                return Err(stray("it gave more of a file than was asked for").into());
            }
            self.fill(&bytes)?;
            self.at = next;
        }
        if self.at != end {
            return Err(stray("it gave less of a file than was asked for").into());
        }
        self.waited = 0;
        Ok(())
    }

    /// Checks bytes and writes what they say.
    fn fill(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        if let Check::Plain(hash) = &mut self.check {
            hash.update(bytes);
            return Ok(self.place.write(bytes)?);
        }
        self.rest.extend_from_slice(bytes);
        let mut used = 0;
        loop {
            let left = self.rest.get(used..).unwrap_or_default();
            match &mut self.check {
                Check::Header => {
                    let (Some(header), Kind::Sealed(descriptor)) = (left.first_chunk::<HEADER>(), &self.found.kind)
                    else {
                        break;
                    };
                    let receiver = Receiver::new(descriptor, header).map_err(Fault::Check)?;
                    self.check = Check::Sealed(Box::new(receiver));
                    used += HEADER;
                }
                Check::Sealed(receiver) => {
                    let Some(sealed) = receiver.wants().and_then(|wants| left.get(..wants)) else { break };
                    let text = receiver.chunk(sealed).map_err(Fault::Check)?;
                    used += sealed.len();
                    self.place.write(&text)?;
                }
                Check::Plain(_) => break,
            }
        }
        self.rest.drain(..used);
        Ok(())
    }

    /// That all of it is what was sent.
    fn check_whole(&mut self) -> Result<(), Fault> {
        match std::mem::replace(&mut self.check, Check::new(&self.found)) {
            Check::Sealed(receiver) if self.rest.is_empty() => receiver.finish().map_err(Fault::Check),
            Check::Plain(hash) if hash.clone().finalize().as_slice() == self.found.blob() => Ok(()),
            Check::Plain(_) => Err(Fault::Check(Error::Payload)),
            Check::Sealed(_) | Check::Header => Err(Fault::Check(Error::Syntax)),
        }
    }
}

impl Check {
    fn new(found: &Found) -> Check {
        match found.kind {
            Kind::Sealed(_) => Check::Header,
            Kind::Plain(_) => Check::Plain(Sha256::new()),
        }
    }
}

impl Place {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Place::Output => io::stdout().lock().write_all(bytes),
            Place::Folder { part, .. } => part.write_all(bytes),
            Place::None => Ok(()),
        }
    }
}

/// The commands for pieces of one file.
struct Commands {
    file: String,
}

impl Commands {
    fn piece(&self, at: u64, length: u64) -> String {
        format!("/get-file {} offset={at} length={length}", self.file)
    }
}

/// Bytes of a part that can be gone on with: whole chunks, and not more than the file has.
fn usable(part: &Part, found: &Found) -> Result<u64, Failure> {
    let there = part.len().map_err(|error| cannot_write(&error))?.min(found.size());
    Ok(there - there % CHUNK as u64)
}

fn received(found: &Found, path: &std::path::Path) -> Event {
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

fn cannot_write(error: &io::Error) -> Failure {
    let failure = Failure::failed(format!("cannot write the file: {error}"));
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            failure.hint("what is there stays: make room, and the same command goes on")
        }
        _ => failure,
    }
}

//! One download at work: which piece is next, what it must be, and where its bytes go.

use std::io::{self, Read as _, Write as _};

use downstream::e2e::error::Error;
use downstream::e2e::file::{CHUNK, HEADER, Receiver, SEALED_CHUNK};
use downstream::protocol::{ChunkLine, Fields};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::cannot_write;
use crate::app::broken;
use crate::app::files::{Found, Kind, gone};
use crate::error::Failure;
use crate::event::{Event, Phase};
use crate::folder::{Folder, Part};
use crate::server::Answer;
use crate::store::{Download, Save};

/// Bytes of a part that are gone over in one step: well below a second.
const AGAIN: u64 = 32 << 20;

/// A download at work.
pub(crate) struct Fetching {
    pub(super) found: Found,
    pub(super) place: Place,
    check: Check,
    /// Bytes of the server's that were taken.
    pub(super) at: u64,
    /// Those of them that make no chunk yet.
    rest: Vec<u8>,
    /// Bytes of the part that are still to be gone over.
    pub(super) again: u64,
    /// Some of it was written by an earlier process.
    resumed: bool,
    /// How often the server said that it is too fast, since it last gave something.
    pub(super) waited: usize,
    /// What waits for it.
    pub(super) save: Option<Save>,
}

/// Where the bytes go.
pub(super) enum Place {
    /// To standard output.
    Output,
    Folder(Box<Target>),
    /// It is over.
    None,
}

/// A file in the making.
pub(super) struct Target {
    pub(super) folder: Folder,
    pub(super) part: Part,
    pub(super) record: Download,
}

enum Check {
    /// Sealed, and its first bytes have not come.
    Header,
    Sealed(Box<Receiver>),
    Plain(Sha256),
}

/// Why a piece was not taken.
pub(super) enum Fault {
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
        Fault::Other(cannot_write(&error))
    }
}

impl Fetching {
    /// Of whose part the first `had` bytes are there.
    pub(super) fn new(found: Found, place: Place, had: u64, save: Option<Save>) -> Box<Fetching> {
        let check = Check::new(&found);
        let (rest, resumed) = (Vec::new(), had > 0);
        Box::new(Fetching { found, place, check, at: 0, rest, again: had, resumed, waited: 0, save })
    }

    /// Back to the beginning; false where it had begun there.
    pub(super) fn begin_anew(&mut self) -> Result<bool, Failure> {
        let Place::Folder(target) = &mut self.place else { return Ok(false) };
        if !std::mem::take(&mut self.resumed) {
            return Ok(false);
        }
        target.part.cut(0).map_err(|error| cannot_write(&error))?;
        (self.at, self.again, self.check) = (0, 0, Check::new(&self.found));
        self.rest.clear();
        Ok(true)
    }

    /// Whether the file's first bytes are needed before anything else.
    pub(super) fn wants_header(&self) -> bool {
        self.again > 0 && matches!(self.check, Check::Header)
    }

    /// What is shown of it on its way.
    pub(super) fn progress(&self) -> Event {
        Event::Progress {
            phase: Phase::Receiving,
            target: self.found.target.to_string(),
            name: self.found.name(),
            done: self.at,
            size: Some(self.found.total()),
        }
    }

    /// Goes over some of what an earlier process has written.
    pub(super) fn go_over(&mut self) -> Result<(), Fault> {
        let Place::Folder(target) = &mut self.place else { return Ok(()) };
        let mut chunk = Zeroizing::new(vec![0; CHUNK]);
        let end = self.again.saturating_sub(AGAIN);
        while self.again > end {
            target.part.read_exact(&mut chunk)?;
            let passed = match &mut self.check {
                Check::Sealed(receiver) => {
                    receiver.again(&chunk).map_err(Fault::Check)?;
                    SEALED_CHUNK
                }
                Check::Plain(hash) => {
                    hash.update(&*chunk);
                    CHUNK
                }
                Check::Header => 0,
            };
            // Whole chunks, all of them: `usable`.
            self.again = self.again.saturating_sub(CHUNK as u64);
            self.at = self.at.saturating_add(passed as u64);
        }
        Ok(())
    }

    /// Takes the answer to a question for the next `length` bytes.
    pub(super) fn take(&mut self, answer: Answer, length: u64) -> Result<(), Fault> {
        let reply = answer.reply.map_err(|refusal| match refusal.code.as_str() {
            "not-found" => gone(&self.found.name()),
            _ => refusal.into(),
        })?;
        if reply.key("size").and_then(|size| size.parse().ok()) != Some(self.found.total()) {
            return Err(broken("a file has another size than was said").into());
        }
        let end = self.at.saturating_add(length);
        for row in &answer.rows {
            let chunk = ChunkLine::read(&Fields::parse(row)).map_err(|why| broken(&why.to_string()))?;
            let bytes = chunk.bytes().map_err(|why| broken(&why.to_string()))?;
            if (chunk.file, chunk.offset) != (self.found.file, self.at) {
                return Err(broken("it gave another piece of a file than the next").into());
            }
            let next = self.at.saturating_add(bytes.len() as u64);
            if next > end {
                return Err(broken("it gave more of a file than was asked for").into());
            }
            self.fill(&bytes)?;
            self.at = next;
        }
        if self.at != end {
            return Err(broken("it gave less of a file than was asked for").into());
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

    /// Whether all of it was taken; then it is what was sent.
    pub(super) fn is_whole(&mut self) -> Result<bool, Fault> {
        if self.again > 0 || self.at < self.found.total() {
            return Ok(false);
        }
        match std::mem::replace(&mut self.check, Check::Header) {
            Check::Sealed(receiver) if self.rest.is_empty() => receiver.finish().map_err(Fault::Check)?,
            Check::Plain(hash) if hash.clone().finalize().as_slice() == self.found.blob() => {}
            Check::Plain(_) => return Err(Fault::Check(Error::Payload)),
            Check::Sealed(_) | Check::Header => return Err(Fault::Check(Error::Syntax)),
        }
        Ok(true)
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
            Place::Folder(target) => target.part.write_all(bytes),
            Place::None => Ok(()),
        }
    }
}

//! Sending files: sealed into the spool, given to the server piece by piece, and announced by a message.
//!
//! ```text
//! record: preparing ─▶ sealed copy whole, key in the record ─▶ the server has all ─▶ announced: the message
//!         stands in the outbox, with the record's change in one transaction ─▶ posted: no record
//! ```
//!
//! Killed anywhere in between, it goes on from the last arrow. The server knows an upload by its target, size
//! and SHA-256, and the message by its key: neither is there twice.

mod by_hand;
mod kept;
mod prepare;
mod work;

use downstream::e2e::inner::{Body as Said, Inner};
use downstream::e2e::name::MsgId;
use downstream::protocol::file::CHUNK_MAX;
use downstream::protocol::{Label, Target};

pub(crate) use self::prepare::{Origin, Sending};
pub(crate) use self::work::Work;

use self::work::{Body, Pieces};
use super::{Client, Content, broken};
use crate::error::Failure;
use crate::event::{Event, Phase};
use crate::server::{Answer, Refusal, Reply};
use crate::store::{Line, Stage, Upload, What};

/// How often the server may change its mind about where an upload stands, without taking anything of it.
const DISAGREEMENTS: usize = 8;
/// As [`super::PATIENCE`], of who has hours: how often the server may be busy in a row, and for how many
/// seconds each time.
const TRANSFER_PATIENCE: (usize, u64) = (60, 60);

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
/// How a run of pieces ended.
enum Run {
    /// With the last piece; the number of the file's message.
    Done(u64),
    /// With a refusal.
    Refused(Refusal),
}

impl Client<'_> {
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
    fn size_of(&mut self, target: &Target, message: MsgId) -> Result<u64, Failure> {
        let entry = self.transact(|tx| Ok(tx.entry_of(target, message)?))?;
        let body = match entry.map(|entry| entry.what) {
            Some(What::Sealed { inner, .. }) => Inner::parse(&inner).ok().map(|inner| inner.body),
            _ => None,
        };
        Ok(if let Some(Said::File(file)) = body { file.size } else { 0 })
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
        let mut furthest = None;
        loop {
            let answer = self.ask_within(&begin, TRANSFER_PATIENCE)?;
            let reply = answer.reply.map_err(|refusal| refused(&work.upload, refusal))?;
            if let Some(id) = finished(&reply)? {
                return Ok((id, furthest.is_none()));
            }
            let (file, offset) = (word(&reply, "file")?, number(&reply, "offset")?);
            if offset > length {
                return Err(broken("it has more of the file than there is"));
            }
            // Patience is for a server that does not get on; one that does may say "busy" for hours. It gets on when
            // it has more than ever: one that goes back and forth does not.
            if furthest.is_some_and(|furthest| furthest < offset) {
                (waits, disagreements) = (0, 0);
            }
            furthest = furthest.max(Some(offset));
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
                _ if refusal.is_temporary() && waits < tries => {
                    waits += 1;
                    let seconds = refusal.retry_after().unwrap_or(1).min(most);
                    std::thread::sleep(std::time::Duration::from_secs(seconds));
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
                    furthest = None;
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
        let mut pieces = Pieces::new(body, file, offset..length, size);
        let mut next = || pieces.next();
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
}

fn finished(reply: &Reply) -> Result<Option<u64>, Failure> {
    match reply.key("done") {
        Some("yes") => number(reply, "id").map(Some),
        _ => Ok(None),
    }
}

fn word(reply: &Reply, key: &str) -> Result<String, Failure> {
    let word = reply.key(key).filter(|word| Label::parse(word).is_some());
    word.map(str::to_owned).ok_or_else(|| broken(&format!("its answer has no {key}=")))
}

fn number(reply: &Reply, key: &str) -> Result<u64, Failure> {
    let number = reply.key(key).and_then(|number| number.parse().ok());
    number.ok_or_else(|| broken(&format!("its answer has no {key}=")))
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

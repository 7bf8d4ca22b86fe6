//! Files: what people type about them, and what the store was seen to commit. Small ones: how much is under way at
//! once is bounded elsewhere; here it is who may do what, and that what is told is there.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use base64ct::{Base64, Encoding as _};
use downstream::ops::{
    AccountId, Answer, Appended, ConversationId, FileRow, Finished, Op, Outcome, Person, Query, Refused, Sha256,
};
use downstream::protocol::{FileId, Target};

use super::client::{People, Typed};
use super::model::Conversation;
use super::oracle::{Kind, Oracle};
use super::rng::Rng;

type Checked<T> = Result<T, String>;

/// How many different files there are.
const CONTENTS: usize = 24;

/// One of them; the first is empty.
fn content(n: usize) -> Vec<u8> {
    (0..n * 31 % 300).map(|i| (i * n + n) as u8).collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Partial,
    Whole,
    Gone,
}

pub struct File {
    pub sender: Person,
    pub target: Target,
    name: String,
    size: u64,
    sha256: Sha256,
    /// `None` where it was announced with a hash that no file has.
    content: Option<Vec<u8>>,
    pub stored: u64,
    /// What is stored are the bytes that were announced.
    right: bool,
    pub state: State,
    conversation: Option<ConversationId>,
    /// The room that it goes to, as it was when it was announced.
    room: Option<ConversationId>,
    /// Nobody was in its room when a sweep came, which takes away what went to a room that is gone.
    doubtful: bool,
}

/// Whether nobody is in the room that a file goes to: it may be gone, and the file with it.
fn goes_nowhere(file: &File, conversations: &BTreeMap<ConversationId, Conversation>) -> bool {
    file.room.and_then(|room| conversations.get(&room)).is_some_and(|room| room.members.is_empty())
}

#[derive(Default)]
pub struct Files(pub BTreeMap<FileId, File>);

/// A file that became a message: by whom, to whom, under which name.
pub type Told = (Person, Target, String, Appended);

impl Files {
    /// A write was committed and not refused; what it says to others.
    /// `room` is the one that the op names.
    pub fn committed(&mut self, op: &Op, outcome: &Outcome, room: Option<ConversationId>) -> Checked<Option<Told>> {
        match (op, outcome) {
            (Op::BeginUpload { sender, target, name, size, sha256, .. }, Outcome::Upload(upload)) => {
                if let Some(file) = self.0.get(&upload.file) {
                    let same =
                        (file.sender.id, &file.target, file.size, file.sha256) == (sender.id, target, *size, *sha256);
                    let done = upload.done.as_ref().map(|done| done.new);
                    let expected = (file.state == State::Whole).then_some(false);
                    if !same || file.state == State::Gone || done != expected || upload.offset != file.stored {
                        return Err(format!("file {} was found again as another", upload.file));
                    }
                    return Ok(None);
                }
                let again = self.0.iter().find(|(_, file)| {
                    (file.sender.id, &file.target, file.size, file.sha256) == (sender.id, target, *size, *sha256)
                        && file.state != State::Gone
                        && matches!(target, Target::User(_))
                });
                if let Some((known, _)) = again {
                    return Err(format!("file {known} was begun twice, now as {}", upload.file));
                }
                if upload.offset != 0 || self.0.last_key_value().is_some_and(|(last, _)| *last >= upload.file) {
                    return Err(format!("a new file is {upload:?}"));
                }
                let known = (0..CONTENTS).map(content).find(|content| Sha256::of(content) == *sha256);
                let file = File {
                    sender: sender.clone(),
                    target: target.clone(),
                    name: name.as_str().to_owned(),
                    size: *size,
                    sha256: *sha256,
                    content: known.filter(|content| content.len() as u64 == *size),
                    stored: 0,
                    right: true,
                    state: State::Partial,
                    conversation: None,
                    room,
                    doubtful: false,
                };
                self.0.insert(upload.file, file);
                self.finished(upload.file, upload.done.as_ref())
            }
            (Op::WriteChunk { account, file: id, offset, data }, Outcome::ChunkWritten(written)) => {
                let file = self.0.get_mut(id).filter(|file| file.state == State::Partial);
                let file = file.filter(|file| file.sender.id == *account).ok_or("a chunk of no upload")?;
                if *offset != file.stored {
                    return Err(format!("a chunk at {offset} behind {}", file.stored));
                }
                file.take(data)?;
                if written.file != *id || written.offset != file.stored {
                    return Err(format!("an upload at {} counts {written:?}", file.stored));
                }
                self.finished(*id, written.done.as_ref())
            }
            (Op::DropFile { account, file }, _) => {
                let file = self.0.get_mut(file).filter(|file| file.state != State::Gone).ok_or("dropped twice")?;
                if file.state == State::Partial && file.sender.id != *account {
                    return Err("an upload was dropped by another".into());
                }
                file.state = State::Gone;
                Ok(None)
            }
            (Op::Unregister { account, .. }, _) => {
                let own = self.0.values_mut().filter(|file| file.sender.id == *account);
                own.filter(|file| file.state == State::Partial).for_each(|file| file.state = State::Gone);
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    /// What has outlived its time was deleted.
    pub fn swept(&mut self, conversations: &BTreeMap<ConversationId, Conversation>) {
        self.0.values_mut().for_each(|file| file.doubtful |= goes_nowhere(file, conversations));
    }

    /// A write was committed and refused.
    pub fn refused(&mut self, op: &Op, refused: Refused) -> Checked<()> {
        let Op::WriteChunk { account, file, offset, data } = op else { return Ok(()) };
        let Some(file) = self.0.get_mut(file).filter(|file| file.sender.id == *account) else { return Ok(()) };
        match refused {
            Refused::Offset(next) if next != file.stored || next == *offset => {
                Err(format!("a chunk at {offset} conflicts with {next}, and {} are stored", file.stored))
            }
            Refused::Checksum => {
                file.take(data)?;
                file.state = State::Gone;
                let wrong = file.stored == file.size && !(file.right && file.content.is_some());
                if wrong { Ok(()) } else { Err("the right bytes, refused".into()) }
            }
            _ => Ok(()),
        }
    }

    fn finished(&mut self, id: FileId, done: Option<&Finished>) -> Checked<Option<Told>> {
        let file = self.0.get_mut(&id).ok_or("no file")?;
        let Some(done) = done else {
            let whole = file.stored == file.size;
            return if whole { Err("all is there, and it is not finished".into()) } else { Ok(None) };
        };
        let same = (done.file.id, done.file.size, done.file.sha256) == (id, file.size, file.sha256);
        if !same || !done.new || !file.right || file.content.is_none() || file.stored != file.size {
            return Err(format!("finished as {done:?}"));
        }
        (file.state, file.conversation) = (State::Whole, Some(done.conversation));
        let (to, conversation, id, time) = (done.to.clone(), done.conversation, done.id, done.time);
        let appended = Appended { to, conversation, id, time, duplicate: false };
        Ok(Some((file.sender.clone(), file.target.clone(), file.name.clone(), appended)))
    }

    /// A read was answered from what is committed now.
    pub fn looked_up(
        &self,
        query: &Query,
        answer: &Answer,
        conversations: &BTreeMap<ConversationId, Conversation>,
        swept: bool,
    ) -> Checked<()> {
        let reads = |account: &AccountId, file: &File| {
            let found = file.conversation.and_then(|id| conversations.get(&id));
            file.state == State::Whole && found.is_some_and(|found| found.members.contains(account))
        };
        match (query, answer) {
            (Query::FilePart { account, file, offset, length }, Answer::FilePart(part)) => {
                let found = self.0.get(file).filter(|file| reads(account, file)).ok_or("a file for a stranger")?;
                let next = offset.saturating_add(*length).min(found.size);
                let bytes: Vec<u8> =
                    part.rows.iter().flat_map(|(_, row)| Base64::decode_vec(row).unwrap_or_default()).collect();
                let expected = found.content.as_deref().and_then(|all| all.get(*offset as usize..next as usize));
                if (part.next, part.size) != (next, found.size) || expected != Some(&bytes) {
                    return Err(format!("file {file} reads otherwise from {offset} on"));
                }
            }
            (Query::Files(wanted), Answer::Files { rows, more: false }) if wanted.target.is_none() && !swept => {
                let fits = |file: &File| wanted.sha256.is_none_or(|sha256| sha256 == file.sha256);
                // What one has sent one sees also where one is no more.
                let own = |file: &File| file.state != State::Gone && file.sender.id == wanted.account;
                let expected: BTreeSet<FileId> = self
                    .0
                    .iter()
                    .filter(|(id, file)| {
                        **id > wanted.after && fits(file) && (own(file) || reads(&wanted.account, file))
                    })
                    .map(|(id, _)| *id)
                    .collect();
                let found: Vec<FileId> = rows.iter().map(|row| row.id).collect();
                let doubtful = |file: &File| file.doubtful || goes_nowhere(file, conversations);
                let certain = |id: &&FileId| found.contains(id) || !self.0.get(id).is_some_and(doubtful);
                if !found.iter().eq(expected.iter().filter(certain)) {
                    return Err(format!("the files are {found:?}, not {expected:?}"));
                }
                let right = |row: &FileRow| {
                    let file = self.0.get(&row.id)?;
                    let partial = (file.state == State::Partial).then_some(file.stored);
                    Some((row.partial, row.name.as_str(), row.size) == (partial, file.name.as_str(), file.size))
                };
                if let Some(row) = rows.iter().find(|row| right(row) != Some(true)) {
                    return Err(format!("a file is listed as {row:?}"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl File {
    fn take(&mut self, data: &str) -> Checked<()> {
        let bytes = Base64::decode_vec(data).map_err(|_| "stored, and no base64")?;
        let from = self.stored as usize;
        let announced = self.content.as_deref().and_then(|content| content.get(from..from + bytes.len()));
        self.right &= announced == Some(&bytes);
        self.stored += bytes.len() as u64;
        if self.stored > self.size { Err("more than was announced".into()) } else { Ok(()) }
    }
}

/// What the reply says, by what the store answered.
pub fn reply_of(outcome: &Outcome) -> Option<String> {
    let (file, offset, chunk, done) = match outcome {
        Outcome::Upload(upload) => (upload.file, upload.offset, " chunk=65536", &upload.done),
        Outcome::ChunkWritten(written) => (written.file, written.offset, "", &written.done),
        _ => return None,
    };
    let done = done.as_ref().map_or(String::new(), |done| format!(" done=yes id={} time={}", done.id, done.time));
    Some(format!("file={file} offset={offset}{chunk}{done}"))
}

/// The rows of a reply, by what the store answered.
pub fn rows_of(query: &Query, answer: &Answer) -> Option<Vec<String>> {
    match (query, answer) {
        (Query::FilePart { file, .. }, Answer::FilePart(part)) => {
            Some(part.rows.iter().map(|(offset, data)| format!("- chunk {file} {offset} {data}")).collect())
        }
        (Query::Files(_), Answer::Files { rows, .. }) => {
            let row = |row: &FileRow| {
                let state = row.partial.map_or("done".to_owned(), |offset| format!("partial offset={offset}"));
                format!(
                    "- upload {} {} {} {} size={} sha256={} state={state} :{}",
                    row.id,
                    row.time,
                    row.target,
                    row.sender.name,
                    row.size,
                    row.sha256.to_hex(),
                    row.name
                )
            };
            Some(rows.iter().map(row).collect())
        }
        _ => None,
    }
}

impl People {
    /// A line about files.
    pub fn transfer(&mut self, rng: &mut Rng, me: &str, oracle: &Oracle) -> Typed {
        let files = &oracle.model.files.0;
        let is_own = |file: &File| file.sender.name.as_str() == me && file.state == State::Partial;
        let own: Vec<FileId> = files.iter().filter(|(_, file)| is_own(file)).map(|(id, _)| *id).collect();
        let any: Vec<FileId> = files.keys().copied().collect();
        let some = rng.pick(&any).copied().unwrap_or(FileId(rng.below(9) as u64));
        let (verb, rest, kind) = match rng.weighted(&[8, 24, 6, 3, 1]) {
            0 => {
                let n = rng.below(CONTENTS);
                let (bytes, wrong) = (content(n), rng.one_in(12));
                let hash = Sha256::of(if wrong { b"none" } else { &bytes }).to_hex();
                let name = match rng.below(3) {
                    0 => "sealed".to_owned(),
                    _ => format!("\"f{} cat\"", self.number()),
                };
                (
                    "send-file",
                    format!(" {} {name} {} {hash}", self.reachable(rng, me, oracle), bytes.len()),
                    Kind::Reply,
                )
            }
            1 => {
                let id = rng.pick(&own).copied().filter(|_| !rng.one_in(20)).unwrap_or(some);
                let (stored, size) = files.get(&id).map_or((0, 9), |file| (file.stored, file.size));
                let typed = self.typed_chunks.get(&id).copied().filter(|_| !rng.one_in(5));
                let at = typed.filter(|typed| *typed < size).unwrap_or(stored);
                let length = rng.within(30, 400).min((size - at.min(size)) as usize + usize::from(rng.one_in(20)));
                let content = files.get(&id).and_then(|file| file.content.as_deref());
                let right = content.and_then(|all| all.get(at as usize..at as usize + length));
                let bytes = right.filter(|_| !rng.one_in(40)).map_or_else(|| vec![9; length.max(1)], <[u8]>::to_vec);
                self.typed_chunks.insert(id, at + bytes.len() as u64);
                let junk = if rng.one_in(40) { "!" } else { "" };
                ("chunk", format!(" {id} {at} {}{junk}", Base64::encode_string(&bytes)), Kind::Reply)
            }
            2 => {
                let offset = if rng.one_in(2) { format!(" offset={}", rng.below(310)) } else { String::new() };
                let length = if rng.one_in(2) { format!(" length={}", rng.within(1, 310)) } else { String::new() };
                ("get-file", format!(" {some}{offset}{length}"), Kind::Rows)
            }
            3 => {
                let target = if rng.one_in(4) { format!(" {}", self.target(rng)) } else { String::new() };
                let after = if rng.one_in(3) { format!(" after={}", rng.below(30)) } else { String::new() };
                ("files", format!("{target}{after}"), Kind::Rows)
            }
            _ => ("drop-file", format!(" {some}"), Kind::Other),
        };
        self.labelled(verb, &rest, kind)
    }

    /// Somebody who is there, or a room that the account is in; sometimes anything.
    fn reachable(&self, rng: &mut Rng, me: &str, oracle: &Oracle) -> String {
        let accounts = || oracle.model.accounts.iter().filter(|(_, account)| !account.erased);
        let own = accounts().find(|(_, account)| account.name == me).map(|(id, _)| *id);
        let rooms = oracle.model.conversations.values().filter_map(|found| {
            let room = found.room.as_ref().filter(|_| own.is_some_and(|own| found.members.contains(&own)));
            room.map(|room| room.name.to_string())
        });
        let mut known: Vec<String> = rooms.collect();
        if rng.one_in(3) {
            known = accounts().map(|(_, account)| account.name.clone()).collect();
        }
        rng.pick(&known).filter(|_| !rng.one_in(8)).cloned().unwrap_or_else(|| self.target(rng))
    }
}

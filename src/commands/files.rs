//! Files: sent in pieces, finished as a message of their conversation, read back in pieces.
//!
//! A chunk is held in memory until it is on stable storage. How much of that there is at once is bounded for a
//! connection ([`CHUNK_WINDOW`](crate::session::CHUNK_WINDOW)) and for all of them ([`CHUNKS_MAX`]); where all is
//! used up, the next chunk of a connection waits, and with it what that connection sends behind it. Nobody else
//! waits: not who sends messages, not who reads.

use std::collections::VecDeque;

use super::messages::{PAGE_MAX, audience};
use super::{Core, Wait as AnyWait, rate_limited, yes_no};
use crate::ops::{
    Answer, Done, Entry, FilePart, FileRow, FilesWanted, Finished, Op, Outcome, Person, Query, Refused, Sha256,
};
use crate::protocol::file::{CHUNK_MAX, CHUNK_TEXT_MAX, SEALED_NAME};
use crate::protocol::request::Sentence;
use crate::protocol::{Code, FileId, FileName, Head, Line, Target};
use crate::session::{ConnId, Overlap};

/// Bytes of base64 in the chunks that are on their way to the disk, of everybody: what the daemon's memory may grow
/// by, with as much again for copies on the way and below 16 MiB; two senders at full speed fit.
pub const CHUNKS_MAX: usize = 8 << 20;

/// What is said to whoever would call a file otherwise than [`SEALED_NAME`] in an end-to-end room.
const ONLY_SEALED: &str = "in this room a file is an end-to-end ciphertext, and its name is the word sealed";

/// What a command about files waits for.
#[derive(Debug)]
pub(super) enum Wait {
    Send,
    /// A piece on its way to the disk, of so many bytes of base64.
    Chunk(usize),
    Get(FileId),
    List,
    Drop(FileId),
}

impl Wait {
    /// Which others may be under way beside it.
    pub(super) fn overlap(&self) -> Overlap {
        match self {
            Wait::Chunk(..) => Overlap::Chunks,
            Wait::Send | Wait::Get(_) | Wait::List | Wait::Drop(_) => Overlap::Nothing,
        }
    }
}

impl From<Wait> for AnyWait {
    fn from(wait: Wait) -> AnyWait {
        AnyWait::Files(wait)
    }
}

/// The chunks that are on their way to the disk.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    /// Their bytes of base64.
    bytes: usize,
    /// Connections whose next one waits until there is room, in the order in which they came. Each is here once.
    waiting: VecDeque<ConnId>,
}

impl Chunks {
    fn has_room(&self) -> bool {
        self.bytes + CHUNK_TEXT_MAX <= CHUNKS_MAX
    }

    /// Whether the next chunk of a connection may come: there is room, and nobody came before.
    pub(super) fn takes(&self, conn: ConnId) -> bool {
        self.has_room() && self.waiting.front().is_none_or(|&first| first == conn)
    }
}

impl Core {
    #[expect(clippy::too_many_arguments, reason = "the parts of an announcement, used here and nowhere else")]
    pub(super) fn send_file(
        &mut self,
        conn: ConnId,
        head: Head,
        sender: Person,
        target: Target,
        name: FileName,
        size: u64,
        sha256: [u8; 32],
    ) {
        let settings = &self.hub.settings;
        let (max, limits) = (settings.max_file, settings.file_limits);
        if max == 0 || size > max {
            let line = Line::err(&head, Code::TooLong).key("max", max);
            let text =
                if max == 0 { "this server takes no files" } else { "the file is larger than this server takes" };
            return self.reply(conn, line.text(text));
        }
        let sealed = name.as_str() == SEALED_NAME;
        let room = match &target {
            Target::Room(room) => self.hub.room_of(sender.id, room),
            Target::User(_) => None,
        };
        if !sealed && room.is_some_and(|room| room.info.e2e) {
            return self.error(conn, &head, Code::E2eRequired, ONLY_SEALED);
        }
        // It makes a message, now or with its last chunk.
        let (rate, burst, now) = (settings.messages_per_second, settings.message_burst, self.now.monotonic);
        let taken = self.hub.online_mut(sender.id).map(|online| online.rates.messages.take(1, rate, burst, now));
        if let Some(Err(wait)) = taken {
            return self.reply(conn, rate_limited(&head, wait));
        }
        let op = Op::BeginUpload { sender, target, name, size, sha256: Sha256(sha256), limits };
        self.persist(conn, head, Wait::Send, op);
    }

    /// Submits a chunk for which there is room.
    pub(super) fn chunk(&mut self, conn: ConnId, head: Head, me: &Person, file: FileId, offset: u64, data: &str) {
        self.chunks.bytes += data.len();
        if let Some(session) = self.hub.session_mut(conn) {
            session.chunk_bytes += data.len();
        }
        let op = Op::WriteChunk { account: me.id, file, offset, data: data.into() };
        self.persist(conn, head, Wait::Chunk(data.len()), op);
    }

    pub(super) fn files(
        &mut self,
        conn: ConnId,
        head: Head,
        me: &Person,
        target: Option<Target>,
        after: FileId,
        sha256: Option<[u8; 32]>,
    ) {
        let sha256 = sha256.map(Sha256);
        let wanted = FilesWanted { account: me.id, target, after, sha256, limit: PAGE_MAX };
        self.ask(conn, head, Wait::List, Query::Files(wanted));
    }

    pub(super) fn files_answered(&mut self, conn: ConnId, head: Head, me: Option<Person>, wait: Wait, done: Done) {
        if let Wait::Chunk(bytes) = &wait {
            self.chunks.bytes = self.chunks.bytes.saturating_sub(*bytes);
            if let Some(session) = self.hub.session_mut(conn) {
                session.chunk_bytes = session.chunk_bytes.saturating_sub(*bytes);
            }
        }
        match (wait, done) {
            (Wait::Send, Done::Op(Ok(Outcome::Upload(upload)))) => {
                let line = Line::ok(&head).key("file", upload.file).key("offset", upload.offset);
                self.reply(conn, finished_keys(line.key("chunk", CHUNK_MAX), upload.done.as_ref()));
                self.tell_file(conn, me, upload.done);
            }
            (Wait::Chunk(..), Done::Op(Ok(Outcome::ChunkWritten(written)))) => {
                let line = Line::ok(&head).key("file", written.file).key("offset", written.offset);
                self.reply(conn, finished_keys(line, written.done.as_ref()));
                self.tell_file(conn, me, written.done);
            }
            (Wait::Get(file), Done::Query(Ok(Answer::FilePart(part)))) => self.file_part(conn, &head, file, part),
            (Wait::List, Done::Query(Ok(Answer::Files { rows, more }))) => {
                let mut out = Vec::with_capacity(rows.len() * 320 + 64);
                for row in &rows {
                    upload_row(row).finish_into(&mut out);
                }
                Line::ok(&head).key("count", rows.len()).key("more", yes_no(more)).finish_into(&mut out);
                self.send(conn, out);
            }
            (Wait::Drop(file), Done::Op(Ok(_))) => self.reply(conn, Line::ok(&head).key("file", file)),
            (wait, Done::Op(Err(refused)) | Done::Query(Err(refused))) => {
                self.refuse_file(conn, &head, &wait, refused);
            }
            _ => self.misfit(conn, &head),
        }
    }

    /// The rows go out one by one, so that each is copied once and forgotten when it was sent.
    fn file_part(&mut self, conn: ConnId, head: &Head, file: FileId, part: FilePart) {
        let FilePart { rows, next, size } = part;
        let before = self.hub.session(conn).map_or(0, |session| session.sent);
        for (offset, data) in rows {
            self.reply(conn, Line::row("chunk").arg(file).arg(offset).last_arg(&data));
        }
        let line = Line::ok(head).key("file", file).key("offset", next).key("size", size);
        self.reply(conn, line.key("more", yes_no(next < size)));
        let limit = self.hub.settings.outbound_bytes as u64;
        if let Some(session) = self.hub.session_mut(conn) {
            session.note_reply(session.sent - before, limit);
        }
    }

    /// Tells everybody whom a file is for that it is there.
    fn tell_file(&mut self, conn: ConnId, sender: Option<Person>, finished: Option<Finished>) {
        let Some(Finished { to, conversation, id, time, file, name, new: true }) = finished else { return };
        let Some(sender) = sender else { return };
        let (audience, target) = audience(&sender, conversation, to);
        let entry = Entry { conversation, id, time, target: &target, sender: &sender.name, file: Some(file) };
        self.tell_entry(conn, audience, &entry, name.as_str());
    }

    // ---- chunks that wait --------------------------------------------------------------------------

    /// The parked line of a connection is a chunk that waits until there is room.
    pub(super) fn wait_for_room(&mut self, conn: ConnId) {
        if let Some(session) = self.hub.session_mut(conn)
            && !std::mem::replace(&mut session.waits_for_room, true)
        {
            self.chunks.waiting.push_back(conn);
        }
    }

    /// Nothing of the connection waits any more.
    pub(super) fn stop_waiting(&mut self, conn: ConnId) {
        if let Some(session) = self.hub.session_mut(conn)
            && std::mem::take(&mut session.waits_for_room)
        {
            self.chunks.waiting.retain(|&other| other != conn);
        }
    }

    /// Runs the chunks that there is room for, first come, first served.
    pub(super) fn resume_chunks(&mut self) {
        while self.chunks.has_room()
            && let Some(&conn) = self.chunks.waiting.front()
        {
            let parked = self.hub.session_mut(conn).and_then(|session| {
                session.waits_for_room = false;
                session.parked.take()
            });
            if let Some(parked) = parked {
                let line = parked.as_deref().map_err(|fault| *fault);
                self.run(conn, line, Sentence::read(line.unwrap_or_default()));
            }
            self.chunks.waiting.pop_front();
            self.settle(conn);
        }
    }

    // ---- refusals ----------------------------------------------------------------------------------

    /// The reply where the store refused, in words about files.
    fn refuse_file(&mut self, conn: ConnId, head: &Head, wait: &Wait, refused: Refused) {
        let (code, text) = match (wait, refused) {
            (Wait::Send, Refused::E2eRequired) => (Code::E2eRequired, ONLY_SEALED),
            (Wait::Send, Refused::Checksum) => {
                (Code::Checksum, "a file of no bytes has the SHA-256 e3b0c442…7852b855; see sha256sum /dev/null")
            }
            (Wait::Chunk(_), Refused::NotFound) => {
                (Code::NotFound, "you have no upload of that number (any more); /send-file begins one")
            }
            (Wait::Chunk(_), Refused::NoSuchUser) => (Code::NoSuchUser, "who the file is for has left this server"),
            (Wait::Chunk(_), Refused::NotMember) => {
                (Code::NotMember, "you are not in the room (any more) that the file is for")
            }
            (Wait::Chunk(_), Refused::Checksum) => {
                (Code::Checksum, "these are other bytes than /send-file announced; the upload is void, begin it again")
            }
            (Wait::Get(_) | Wait::Drop(_), Refused::NotFound) => {
                (Code::NotFound, "no file of that number for you (any more); /files lists them")
            }
            (Wait::Drop(_), Refused::Forbidden) => {
                (Code::Forbidden, "only who sent it, or an operator of the room, may drop it")
            }
            (_, Refused::Quota(max)) => {
                let line = Line::err(head, Code::Quota).key("max", max);
                let text = "so much is kept already; /files lists what is yours, /drop-file makes room";
                return self.reply(conn, line.text(text));
            }
            (Wait::Chunk(_), Refused::TooLong(max)) => {
                let line = Line::err(head, Code::TooLong).key("max", max);
                return self.reply(conn, line.text("that is more than /send-file announced"));
            }
            (Wait::Get(_), Refused::Offset(size)) => {
                let line = Line::err(head, Code::Conflict).key("offset", size);
                return self.reply(conn, line.text("the file ends before that"));
            }
            _ => return self.refuse(conn, head, refused),
        };
        self.error(conn, head, code, text);
    }
}

/// What the reply to the last piece says of the message that the file became.
fn finished_keys(line: Line, finished: Option<&Finished>) -> Line {
    match finished {
        Some(finished) => line.key("done", "yes").key("id", finished.id).key("time", finished.time),
        None => line,
    }
}

/// `upload F TIME TARGET SENDER size=N sha256=H state=partial|done [offset=N] :NAME`
fn upload_row(row: &FileRow) -> Line {
    let line = Line::row("upload").arg(row.id).arg(row.time).arg(&row.target).arg(&row.sender.name);
    let line = line.key("size", row.size).key("sha256", row.sha256.to_hex());
    let line = match row.partial {
        Some(offset) => line.key("state", "partial").key("offset", offset),
        None => line.key("state", "done"),
    };
    line.text(row.name.as_str())
}

//! Messages as lines: written once, by who read them or for all who get them.

use super::{ConversationId, FileRef, MessageId};
use crate::protocol::{Line, Target, Timestamp, UserName};

/// As what a message is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A row of a reply.
    Row,
    /// An event.
    Event,
    /// An event behind a login, with `missed=yes`.
    Missed,
}

/// One message as it was stored, but for its text; of a file that is its name.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// Its log.
    pub conversation: ConversationId,
    /// Its number.
    pub id: MessageId,
    /// When it was stored.
    pub time: Timestamp,
    /// The room, or the receiver.
    pub target: &'a Target,
    /// Who sent it.
    pub sender: &'a UserName,
    /// Set where it is a file.
    pub file: Option<FileRef>,
}

impl Entry<'_> {
    /// `* msg ID TIME TARGET SENDER`, or what else the form and a file make of it, to be ended by the text. It
    /// stands behind `lines`.
    pub fn line(&self, form: Form, lines: Vec<u8>) -> Line {
        let line = match (form, &self.file) {
            (Form::Row, None) => Line::row_behind("msg", lines),
            (Form::Row, Some(_)) => Line::row_behind("file", lines),
            (Form::Event | Form::Missed, None) => Line::event_behind("msg", lines),
            (Form::Event | Form::Missed, Some(_)) => Line::event_behind("file", lines),
        };
        let line = line.arg(self.id).arg(self.time).arg(self.target).arg(self.sender);
        let line = match &self.file {
            Some(file) => file.keys(line),
            None => line,
        };
        if form == Form::Missed { line.key("missed", "yes") } else { line }
    }
}

impl FileRef {
    /// What a line says of a file: its number, its bytes, and whether they are still there.
    pub fn keys(&self, line: Line) -> Line {
        let line = line.key("file", self.id).key("size", self.size).key("sha256", self.sha256.to_hex());
        if self.gone { line.key("gone", "yes") } else { line }
    }
}

/// Messages of one or several logs, ready to be sent: whoever reads them writes their lines, so that the loop
/// has only to queue them.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// The lines, in the order that the query names.
    pub lines: Vec<u8>,
    /// What they are.
    pub rows: Vec<PageRow>,
    /// Whether the log goes on in the direction of the query.
    pub more: bool,
    /// The first message that its log still holds behind the query's bound, where the query reads one
    /// log; a marker below it has no gap in between.
    pub oldest: Option<MessageId>,
}

/// One message of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRow {
    /// Its log.
    pub conversation: ConversationId,
    /// Its number.
    pub id: MessageId,
    /// The log is a room's.
    pub in_room: bool,
    /// Where its line begins in the page's lines.
    pub begin: usize,
    /// Where it ends.
    pub end: usize,
}

impl Page {
    /// Adds a message; `text` appends what it says, which is one line.
    pub fn push(&mut self, form: Form, entry: &Entry<'_>, text: impl FnOnce(&mut Vec<u8>)) {
        let begin = self.lines.len();
        self.lines = entry.line(form, std::mem::take(&mut self.lines)).text_by(text).finish();
        self.rows.push(PageRow {
            conversation: entry.conversation,
            id: entry.id,
            in_room: matches!(entry.target, Target::Room(_)),
            begin,
            end: self.lines.len(),
        });
    }

    /// The line of one of its rows.
    pub fn line(&self, row: &PageRow) -> &[u8] {
        self.lines.get(row.begin..row.end).unwrap_or_default()
    }
}

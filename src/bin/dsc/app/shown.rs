//! From what was opened or kept to what is shown.

use downstream::e2e::descriptor::safe_name;
use downstream::e2e::inner::{Body, ChangeKind, Inner};
use downstream::e2e::name::Address;
use downstream::protocol::{Fields, Timestamp, UserName};

use super::{Client, device_name, receive, sealed_user, take};
use crate::error::Failure;
use crate::event::{Content, Event, Mark, Message};
use crate::store::{Entry, Tx, What};

/// What an inner message of a log says. Key material has no content.
fn content_of(inner: &Inner) -> Content {
    match &inner.body {
        Body::Text(text) => Content::Text { text: text.clone() },
        Body::File(file) => Content::File {
            name: file.safe_name(),
            size: file.size,
            mime: file.mime.clone(),
            blob: downstream::e2e::armour::hex(&file.blob_id),
            file: None,
        },
        Body::Change { kind, author, msg_id, text, .. } => {
            let msg_id = msg_id.to_string();
            match kind {
                ChangeKind::React => Content::React { author: author.to_string(), msg_id, text: text.clone() },
                ChangeKind::Edit => Content::Edit { msg_id, text: text.clone() },
                ChangeKind::Delete => Content::Delete { msg_id },
            }
        }
        Body::SenderKey(_) | Body::Receipt { .. } | Body::Reset | Body::ChainRequest { .. } => {
            Content::Text { text: String::new() }
        }
    }
}

/// The event of a sealed message.
pub(super) fn message_event(entry: &Entry, me: &UserName, device: String, inner: &Inner) -> Message {
    Message {
        target: entry.target.to_string(),
        sender: entry.sender.to_string(),
        device: Some(device),
        id: entry.id,
        time: Some(Timestamp::from_millis(entry.time_ms).to_string()),
        msg_id: Some(inner.msg_id.to_string()),
        encrypted: true,
        own: entry.sender == *me,
        content: content_of(inner),
        marks: entry.marks.clone(),
    }
}

/// The event of an entry of the history.
pub(crate) fn entry_event(tx: &Tx<'_>, me: &UserName, entry: &Entry) -> Result<Option<Event>, Failure> {
    Ok(match &entry.what {
        What::Sealed { device, inner } => {
            let address = Address { user: sealed_user(&entry.sender)?, device: *device };
            let Ok(inner) = Inner::parse(inner) else { return Ok(None) };
            Some(Event::Message(message_event(entry, me, device_name(tx, &address), &inner)))
        }
        What::Plain { .. } | What::File(_) => {
            let content = match &entry.what {
                What::File(file) => Content::File {
                    name: safe_name(&file.name),
                    size: file.size,
                    mime: String::new(),
                    blob: downstream::e2e::armour::hex(&file.sha256),
                    file: Some(file.file.0),
                },
                What::Plain { text } => Content::Text { text: text.clone() },
                What::Sealed { .. } | What::Failed { .. } => return Ok(None),
            };
            let mut marks = entry.marks.clone();
            if !marks.contains(&Mark::Plain) {
                marks.push(Mark::Plain);
            }
            Some(Event::Message(Message {
                target: entry.target.to_string(),
                sender: entry.sender.to_string(),
                device: None,
                id: entry.id,
                time: Some(Timestamp::from_millis(entry.time_ms).to_string()),
                msg_id: None,
                encrypted: false,
                own: entry.sender == *me,
                content,
                marks,
            }))
        }
        What::Failed { code } => Some(Event::Unreadable {
            target: entry.target.to_string(),
            sender: entry.sender.to_string(),
            id: entry.id,
            code: code.clone(),
            text: "it could not be opened when it came".to_owned(),
        }),
    })
}

/// The message of a row of a log: from the history, or as the server has it, if it is in clear and may be.
pub(crate) fn message_of_row(tx: &Tx<'_>, me: &UserName, row: &Fields<'_>) -> Result<Option<Message>, Failure> {
    let Some(line) = take::LogLine::read(row) else { return Ok(None) };
    let conversation = line.conversation(me);
    let event = match tx.entry(&conversation, line.id)? {
        Some(entry) => entry_event(tx, me, &entry)?,
        None => take::unkept(tx, me, &line, &conversation)?,
    };
    Ok(match event {
        Some(Event::Message(message)) => Some(message),
        _ => None,
    })
}

impl Client<'_> {
    /// A page of a conversation: the lines of the server's log, each answered from the history, where it
    /// stands once it was read. What is new is taken in first.
    ///
    /// # Errors
    /// [`Failure`].
    pub(crate) fn page(
        &mut self,
        target: &downstream::protocol::Target,
        bound: Option<(&str, u64)>,
        limit: usize,
    ) -> Result<(), Failure> {
        self.quietly_catch_up(target)?;
        let bound = bound.map(|(key, id)| format!(" {key}={id}")).unwrap_or_default();
        let (rows, _) = self.command(&format!("/fetch {target}{bound} limit={limit}"))?;
        let lines: Vec<take::LogLine> =
            rows.iter().filter_map(|row| take::LogLine::read(&Fields::parse(row))).collect();
        let events = self.transact(|tx| {
            let me = receive::account(tx)?;
            let mut events = Vec::new();
            let read = tx.cursor(target).unwrap_or(0);
            // What came since is new, and for the next time.
            for line in lines.iter().filter(|line| line.id <= read && line.conversation(&me) == *target) {
                match tx.entry(target, line.id)? {
                    Some(entry) => events.extend(entry_event(tx, &me, &entry)?),
                    None => events.extend(take::unkept(tx, &me, line, target)?),
                }
            }
            Ok(events)
        })?;
        self.say_all(&events)
    }

    /// Takes in what is new in one conversation without showing its messages: the page that follows does.
    fn quietly_catch_up(&mut self, target: &downstream::protocol::Target) -> Result<(), Failure> {
        let mut others = Vec::new();
        {
            let mut keep = |event: &Event| {
                let shown_by_page = match event {
                    Event::Message(message) => message.target == target.as_str(),
                    Event::Unreadable { target: of, id, .. } => of == target.as_str() && id.is_some(),
                    _ => false,
                };
                if !shown_by_page {
                    others.push(event.clone());
                }
                Ok(())
            };
            let mut quiet = Client { store: self.store, server: self.server, show: &mut keep };
            quiet.catch_up(receive::Reading::Only(std::slice::from_ref(target)))?;
        }
        self.say_all(&others)
    }
}

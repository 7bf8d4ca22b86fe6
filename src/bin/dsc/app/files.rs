//! Which file is meant: from a message, or from the server's number, to what it takes to get and check it.

use downstream::e2e::armour::{self, hex};
use downstream::e2e::descriptor::{Descriptor, safe_name};
use downstream::e2e::inner::{Body, Inner};
use downstream::protocol::{Fields, FileId, FileLine, MessageLine, Target, UploadLine, UserName};

use super::Client;
use super::receive::account;
use super::take::{is_ciphertext, is_in_sealed_room};
use crate::error::{Exit, Failure};
use crate::event::{Event, Row};
use crate::store::{Entry, FileRef, PlainFile, Tx, What};

/// Pages of `/files` that are read: a million files. A server that always has more would never end.
const PAGES_MAX: usize = 1000;

/// A file that can be got.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// The server's number.
    pub(super) file: FileId,
    /// The room, or the other person.
    pub(super) target: Target,
    /// The message that speaks of it, where that is known.
    pub(super) id: Option<u64>,
    /// How it is checked.
    pub(super) kind: Kind,
}

/// How a file is checked.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    /// Sealed end to end.
    Sealed(Box<Descriptor>),
    /// Sent in clear.
    Plain(PlainFile),
}

impl Found {
    /// Its name, made safe.
    pub(super) fn name(&self) -> String {
        match &self.kind {
            Kind::Sealed(file) => file.safe_name(),
            Kind::Plain(file) => safe_name(&file.name),
        }
    }

    /// Bytes of the file, as was said of it.
    pub(super) fn size(&self) -> u64 {
        match &self.kind {
            Kind::Sealed(file) => file.size,
            Kind::Plain(file) => file.size,
        }
    }

    /// Bytes that the server has.
    pub(super) fn total(&self) -> u64 {
        match &self.kind {
            Kind::Sealed(file) => file.ct_len,
            Kind::Plain(file) => file.size,
        }
    }

    /// SHA-256 of them.
    pub(super) fn blob(&self) -> [u8; 32] {
        match &self.kind {
            Kind::Sealed(file) => file.blob_id,
            Kind::Plain(file) => file.sha256,
        }
    }

    /// Whether it was sealed end to end.
    pub(super) fn is_sealed(&self) -> bool {
        matches!(self.kind, Kind::Sealed(_))
    }
}

/// What the server says of a file.
struct Listed {
    file: PlainFile,
    target: Target,
    sender: UserName,
    time: String,
    partial: Option<u64>,
}

impl Listed {
    fn read(row: &str, me: &UserName) -> Option<Listed> {
        let line = UploadLine::read(&Fields::parse(row)).ok()?;
        let target = line.conversation(me);
        let UploadLine { file, time, sender, size, sha256, partial, name, .. } = line;
        let file = PlainFile { file, size, sha256, name: name.to_owned() };
        Some(Listed { file, target, sender, time: time.to_string(), partial })
    }
}

impl Client<'_> {
    /// Finds a file.
    ///
    /// # Errors
    /// There is none, or none that can be got; what can be done about it is the hint.
    pub(crate) fn find_file(&mut self, wanted: &FileRef) -> Result<Found, Failure> {
        match wanted {
            FileRef::Number(file) => self.find_by_number(*file),
            FileRef::Message(target, id) => self.find_by_message(target, *id),
        }
    }

    fn find_by_number(&mut self, file: FileId) -> Result<Found, Failure> {
        let unknown = || {
            let failure = Failure::new(Exit::Refused, format!("the server has no file {file} that you may see"));
            failure.hint("`dsc files` lists those that it has; one may have been dropped or have outlived its time")
        };
        let before = file.0.checked_sub(1).ok_or_else(unknown)?;
        let rows = self.list(&format!("/files after={before}"))?;
        let listed = rows.into_iter().find(|listed| listed.file.file == file).ok_or_else(unknown)?;
        whole(&listed)?;
        self.find_listed(&listed, None)
    }

    /// A file of the server, as a message that was opened here speaks of it, or else as it is. `id` is its own
    /// line in the log, if it was asked for there: then no message of another conversation is meant.
    fn find_listed(&mut self, listed: &Listed, id: Option<u64>) -> Result<Found, Failure> {
        self.transact(|tx| {
            let known = tx.entries_of_blob(&listed.file.sha256)?;
            let spoken = spoken_of(known, listed);
            match spoken.filter(|(entry, _)| id.is_none() || entry.target == listed.target) {
                Some((entry, descriptor)) => found(entry.target, entry.id, descriptor, listed),
                None => in_clear(tx, &listed.target, id, &listed.file),
            }
        })
    }

    fn find_by_message(&mut self, target: &Target, id: u64) -> Result<Found, Failure> {
        let no_file = || Failure::usage(format!("message {id} of {target} is no file"));
        let entry = self.transact(|tx| Ok(tx.entry(target, id)?))?;
        match entry.map(|entry| entry.what) {
            Some(What::Sealed { inner, .. }) => match Inner::parse(&inner).map(|inner| inner.body) {
                Ok(Body::File(descriptor)) => self.locate(target, id, descriptor),
                _ => Err(no_file()),
            },
            Some(What::File(file)) => self.transact(|tx| in_clear(tx, target, Some(id), &file)),
            Some(What::Plain { .. }) => Err(no_file()),
            Some(What::Failed { code }) => {
                Err(Failure::failed(format!("message {id} of {target} could not be opened here ({code})")))
            }
            None => self.find_by_line(target, id),
        }
    }

    /// A message that the history does not have: what the server's log says of it.
    fn find_by_line(&mut self, target: &Target, id: u64) -> Result<Found, Failure> {
        let before = id.saturating_sub(1);
        let (rows, _) = self.command(&format!("/fetch {target} after={before} limit=1"))?;
        let row = rows.first().map(|row| Fields::parse(row));
        let me = self.transact(|tx| account(tx))?;
        // A line of another conversation is no answer: what is sealed here may be in clear there.
        if let Some(Ok(line)) = row.map(|row| FileLine::read(&row))
            && (line.id, &line.conversation(&me)) == (id, target)
        {
            if line.gone {
                return Err(gone(&format!("{target}/{id}")));
            }
            let FileLine { file, size, sha256, name, time, .. } = &line;
            let file = PlainFile { file: *file, size: *size, sha256: *sha256, name: (*name).to_owned() };
            let (sender, time) = (line.sender.clone(), time.to_string());
            let listed = Listed { file, target: target.clone(), sender, time, partial: None };
            return self.find_listed(&listed, Some(id));
        }
        let message = row.and_then(|row| MessageLine::read(&row).ok());
        let message = message.filter(|line| (line.id, &line.conversation(&me)) == (id, target));
        match message {
            Some(line) if line.body.starts_with(armour::BODY_PREFIX) => {
                let read = self.transact(|tx| Ok(tx.cursor(target).unwrap_or(0)))?;
                if read >= id {
                    let why = "was not sealed for this device, or its key is not kept any more";
                    return Err(Failure::failed(format!("message {id} of {target} {why}")));
                }
                Err(unopened(target))
            }
            Some(_) => Err(Failure::usage(format!("message {id} of {target} is no file"))),
            None => Err(Failure::new(Exit::Refused, format!("{target} has no message {id}"))),
        }
    }

    /// Where the server has what a message speaks of.
    fn locate(&mut self, target: &Target, id: u64, descriptor: Descriptor) -> Result<Found, Failure> {
        let rows = self.list(&format!("/files sha256={}", hex(&descriptor.blob_id)))?;
        let mut there = rows.iter().filter(|listed| listed.partial.is_none());
        let listed = there.clone().find(|listed| listed.target == *target).or_else(|| there.next());
        let Some(listed) = listed else {
            return Err(match rows.first() {
                Some(listed) => whole(listed).err().unwrap_or_else(|| gone(&format!("{target}/{id}"))),
                None => gone(&format!("{target}/{id}")),
            });
        };
        found(target.clone(), Some(id), descriptor, listed)
    }

    fn list(&mut self, command: &str) -> Result<Vec<Listed>, Failure> {
        let (rows, _) = self.command(command)?;
        let me = self.transact(|tx| account(tx))?;
        Ok(rows.iter().filter_map(|row| Listed::read(row, &me)).collect())
    }

    /// Shows the files of a conversation, or of all.
    ///
    /// # Errors
    /// [`Failure`].
    pub(crate) fn show_files(&mut self, target: Option<&Target>) -> Result<(), Failure> {
        let me = self.transact(|tx| account(tx))?;
        let target = target.map(|target| format!(" {target}")).unwrap_or_default();
        let mut after = 0;
        for _ in 0..PAGES_MAX {
            let (rows, reply) = self.command(&format!("/files{target} after={after}"))?;
            let rows: Vec<Listed> = rows.iter().filter_map(|row| Listed::read(row, &me)).collect();
            let last = rows.iter().map(|listed| listed.file.file.0).max().unwrap_or(after);
            let events: Vec<Event> =
                self.transact(|tx| rows.iter().map(|listed| Ok(Event::Row(row(tx, listed)?))).collect())?;
            self.say_all(&events)?;
            if reply.key("more") != Some("yes") || last <= after {
                break;
            }
            after = last;
        }
        Ok(())
    }
}

/// A row of `dsc files`.
fn row(tx: &Tx<'_>, listed: &Listed) -> Result<Row, Failure> {
    let Listed { file, target, sender, time, partial } = listed;
    let known = tx.entries_of_blob(&file.sha256)?;
    let e2e_room = is_in_sealed_room(tx, target)?;
    let mut plain = known.iter().filter(|entry| matches!(&entry.what, What::File(known) if known.file == file.file));
    let plain = plain.find_map(|entry| entry.id);
    let spoken = spoken_of(known, listed);
    let id = spoken.as_ref().and_then(|(entry, _)| entry.id).or(plain);
    let (name, size, mime, encrypted) = match spoken {
        Some((_, descriptor)) => {
            (Some(descriptor.safe_name()), descriptor.size, Some(descriptor.mime).filter(|mime| !mime.is_empty()), true)
        }
        None if is_ciphertext(file, target, e2e_room) => (None, file.size, None, true),
        None => (Some(safe_name(&file.name)), file.size, None, false),
    };
    Ok(Row::File {
        file: file.file.0,
        target: target.to_string(),
        sender: sender.to_string(),
        time: time.clone(),
        name,
        size,
        mime,
        id,
        blob: hex(&file.sha256),
        encrypted,
        partial: *partial,
    })
}

/// What a message that was opened here says of a file of the server, out of those that speak of its bytes.
/// Anybody can speak of anybody's file: who has sent it, in the same conversation, is believed first, and
/// then who spoke first.
fn spoken_of(known: Vec<Entry>, listed: &Listed) -> Option<(Entry, Descriptor)> {
    let read = |entry: Entry| match &entry.what {
        What::Sealed { inner, .. } => match Inner::parse(inner).ok()?.body {
            Body::File(descriptor) => Some((entry, descriptor)),
            _ => None,
        },
        _ => None,
    };
    let known = known.into_iter().filter_map(read);
    known.max_by_key(|(entry, _)| (entry.target == listed.target, entry.sender == listed.sender))
}

/// A sealed file, if the server has as much as its message says.
fn found(target: Target, id: Option<u64>, descriptor: Descriptor, listed: &Listed) -> Result<Found, Failure> {
    let file = listed.file.file;
    if listed.file.size != descriptor.ct_len {
        let message = format!(
            "the server has {} bytes of file {file}, and its message speaks of {}: it is not what was sent",
            listed.file.size, descriptor.ct_len
        );
        return Err(Failure::failed(message));
    }
    Ok(Found { file, target, id, kind: Kind::Sealed(Box::new(descriptor)) })
}

/// A file that was sent in clear, where that is done.
fn in_clear(tx: &Tx<'_>, target: &Target, id: Option<u64>, file: &PlainFile) -> Result<Found, Failure> {
    let e2e_room = is_in_sealed_room(tx, target)?;
    if is_ciphertext(file, target, e2e_room) {
        return Err(unopened(target));
    }
    if e2e_room {
        let message = format!("file {} was sent in clear to {target}, where only sealed ones are sent", file.file);
        return Err(Failure::failed(message).hint("the server could have made it up: ask its sender"));
    }
    Ok(Found { file: file.file, target: target.clone(), id, kind: Kind::Plain(file.clone()) })
}

/// That an upload was finished.
fn whole(listed: &Listed) -> Result<(), Failure> {
    match listed.partial {
        None => Ok(()),
        Some(done) => {
            let Listed { file, sender, .. } = listed;
            let message = format!("file {} is not whole: {sender} has sent {done} of {} bytes", file.file, file.size);
            Err(Failure::new(Exit::Refused, message))
        }
    }
}

pub(super) fn gone(what: &str) -> Failure {
    Failure::new(Exit::Refused, format!("{what} is not on the server any more"))
        .hint("its sender dropped it, or it has outlived its time there; ask for it again")
}

fn unopened(target: &Target) -> Failure {
    Failure::new(Exit::NoSession, "the message with the key of this file was not opened here").hint(format!(
        "`dsc fetch '{target}'` opens what is new; what was sealed before this device was listed it cannot open"
    ))
}

//! Which line of the server answers which command: labels, rows, replies and events, without a socket.

use std::collections::VecDeque;

use downstream::protocol::answer::Fields;
use downstream::protocol::{MAX_LINE_BEFORE_LOGIN, ServerLine, escaped};
use zeroize::Zeroizing;

use crate::server::{Answer, Refusal, Reply};

/// Commands that wait for their answers at once. As many as the server has on their way to the disk for
/// one connection; more would only wait there.
pub(super) const WINDOW: usize = 64;
/// Most bytes of commands that wait for their answers; the last may go beyond. It keeps a line of 300 Mbit/s
/// with 100 ms there and back full, and a server busy that syncs several pieces of a file at a time.
pub(super) const WINDOW_BYTES: usize = 4 << 20;
/// Most rows of one answer: the longest list without pages is the members of a room, and a room of so
/// many is beyond this program.
pub(super) const ROWS_MAX: usize = 100_000;
/// Most bytes of the rows of one answer. A page of messages has one MiB, a piece of a file 1.4 MiB, the
/// members of the largest room that [`ROWS_MAX`] allows 7 MiB.
pub(super) const ANSWER_MAX: usize = 8 << 20;
/// Most bytes of all answers to commands that were asked together.
pub(super) const ANSWERS_MAX: usize = 64 << 20;
/// Most `key=value` of one reply: several times what any has. Each takes some hundred bytes of memory for
/// four on the wire.
pub(super) const KEYS_MAX: usize = 64;
/// Most events that are kept while an answer is awaited, and
pub(super) const EVENTS_MAX: usize = 100_000;
/// most of their bytes: the hundred missed messages after a login, each of the greatest length, and half
/// as much again.
pub(super) const EVENTS_BYTES_MAX: usize = 16 << 20;
/// What a line costs in memory beyond its bytes.
const LINE_COST: usize = 32;

/// A command whose answer has not come.
#[derive(Debug)]
struct Pending {
    label: String,
    verb: String,
    /// Asked by the connection itself, to hear whether the server is there.
    keep_alive: bool,
    /// Bytes of the command.
    sent: usize,
    rows: Vec<String>,
    bytes: usize,
}

/// What becomes of a command.
#[derive(Debug)]
pub(super) enum Admitted {
    /// The line to send.
    Send(Zeroizing<Vec<u8>>),
    /// It can be judged only after the commands before it are answered.
    Later,
    /// The server would refuse it, or worse, misread it.
    Refused(Refusal),
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Dialogue {
    pending: VecDeque<Pending>,
    /// Bytes of their commands.
    unanswered: usize,
    /// Answered and not taken yet.
    answers: VecDeque<Answer>,
    /// Bytes of the answers since [`Dialogue::begin`], those of whole ones that nobody keeps left out.
    answered: usize,
    events: VecDeque<String>,
    events_bytes: usize,
    ignores_events: bool,
    labels: u64,
    max_line: usize,
    logged_in: bool,
    /// Why the server ends the connection, as it says.
    bye: Option<String>,
}

impl Dialogue {
    /// With a server that takes lines of `max_line` bytes, ending included, from who is logged in.
    pub(super) fn new(max_line: usize) -> Dialogue {
        Dialogue { max_line, ..Dialogue::default() }
    }

    /// From now on events are not kept.
    pub(super) fn ignore_events(&mut self) {
        self.ignores_events = true;
        self.events.clear();
        self.events_bytes = 0;
    }

    /// Counts the bytes of answers anew: those of before are not kept.
    pub(super) fn begin(&mut self) {
        self.answered = 0;
    }

    /// Whether another command may be sent.
    pub(super) fn has_room(&self) -> bool {
        self.pending.len() < WINDOW && self.unanswered < WINDOW_BYTES
    }

    /// Whether an answer is awaited.
    pub(super) fn is_waiting(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Why the server ends the connection, as far as it said.
    pub(super) fn bye(&self) -> Option<&str> {
        self.bye.as_deref()
    }

    /// The next answer.
    pub(super) fn take_answer(&mut self) -> Option<Answer> {
        self.answers.pop_front()
    }

    /// The next event, without its `* `.
    pub(super) fn take_event(&mut self) -> Option<String> {
        let event = self.events.pop_front()?;
        self.events_bytes -= event.len() + LINE_COST;
        Some(event)
    }

    /// How many events wait.
    #[cfg(test)]
    pub(super) fn queued_events(&self) -> usize {
        self.events.len()
    }

    /// Puts a label on a command and waits for its answer from now on.
    pub(super) fn admit(&mut self, command: &str) -> Admitted {
        let verb_end = command.find(' ').unwrap_or(command.len());
        let (head, rest) = command.split_at(verb_end);
        let verb = head.strip_prefix('/').unwrap_or_default().to_ascii_lowercase();
        let named = (1..=32).contains(&verb.len()) && verb.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
        let refused = |code: &str, keys: &[(String, String)], text: &str| Refusal {
            verb: verb.clone(),
            code: code.into(),
            keys: keys.to_vec(),
            text: text.into(),
        };
        let fault = if !named {
            Some(refused("syntax", &[], "a command begins with / and a verb, without a label"))
        } else if command.contains(['\n', '\r', '\0']) {
            Some(refused("syntax", &[], "a command is one line, without line feeds, carriage returns and NUL"))
        } else {
            None
        };
        let label = (self.labels + 1).to_string();
        let limit = if self.logged_in { self.max_line } else { MAX_LINE_BEFORE_LOGIN.min(self.max_line) };
        let length = command.len() + "@".len() + label.len() + "\n".len();
        let fault = fault.or_else(|| {
            let keys = [("max".to_owned(), limit.to_string())];
            (length > limit).then(|| refused("too-long", &keys, "the command is longer than the server takes"))
        });
        match fault {
            // Its answer has its place behind theirs, and a login among them may raise the limit.
            Some(_) if self.is_waiting() => Admitted::Later,
            Some(refusal) => Admitted::Refused(refusal),
            None => Admitted::Send(self.label(&verb, rest, label, false)),
        }
    }

    /// The line that asks the server whether it is there.
    pub(super) fn keep_alive(&mut self) -> Zeroizing<Vec<u8>> {
        let label = (self.labels + 1).to_string();
        self.label("ping", "", label, true)
    }

    fn label(&mut self, verb: &str, rest: &str, label: String, keep_alive: bool) -> Zeroizing<Vec<u8>> {
        // Made with the room that it needs: a buffer that grows leaves copies behind.
        let mut line = Zeroizing::new(Vec::with_capacity(verb.len() + label.len() + rest.len() + 3));
        for part in ["/", verb, "@", &label, rest, "\n"] {
            line.extend_from_slice(part.as_bytes());
        }
        self.labels += 1;
        self.unanswered += line.len();
        let (verb, sent) = (verb.to_owned(), line.len());
        self.pending.push_back(Pending { label, verb, keep_alive, sent, rows: Vec::new(), bytes: 0 });
        line
    }

    /// Takes a line of the server.
    ///
    /// # Errors
    /// What is wrong with it; the connection is of no use then.
    pub(super) fn take(&mut self, line: &str) -> Result<(), String> {
        match ServerLine::parse(line) {
            ServerLine::Row(fields) => self.take_row(fields.whole()),
            ServerLine::Event(fields) => self.take_event_line(&fields),
            ServerLine::Ok { verb, label, fields } => {
                let pending = self.answered_by(verb, label)?;
                match verb {
                    "login" | "register" | "takeover" => self.logged_in = true,
                    "logout" | "unregister" => self.logged_in = false,
                    _ => {}
                }
                let reply = Reply { keys: keys(&fields)?, text: fields.text().map(str::to_owned) };
                self.answer(pending, Ok(reply), line.len())
            }
            ServerLine::Err { verb: "*", label: None, code, fields } => {
                let text = escaped(fields.text().unwrap_or_default());
                Err(format!("it could not read what was sent: {code}: {text}"))
            }
            ServerLine::Err { verb, label, code, fields } => {
                let pending = self.answered_by(verb, label)?;
                let refusal = Refusal {
                    verb: verb.to_owned(),
                    code: code.to_owned(),
                    keys: keys(&fields)?,
                    text: fields.text().unwrap_or_default().to_owned(),
                };
                self.answer(pending, Err(refusal), line.len())
            }
            ServerLine::Other => Err(format!("it said {}", quoted(line))),
        }
    }

    fn take_row(&mut self, row: &str) -> Result<(), String> {
        let Some(pending) = self.pending.front_mut() else {
            return Err(format!("it sent a row that belongs to no command: {}", quoted(row)));
        };
        let cost = row.len() + LINE_COST;
        pending.bytes += cost;
        self.answered += cost;
        if pending.rows.len() == ROWS_MAX || pending.bytes > ANSWER_MAX || self.answered > ANSWERS_MAX {
            let verb = &pending.verb;
            return Err(format!("its answer to /{verb} is longer than {ROWS_MAX} rows or {} MiB", ANSWER_MAX >> 20));
        }
        pending.rows.push(row.to_owned());
        Ok(())
    }

    fn take_event_line(&mut self, fields: &Fields<'_>) -> Result<(), String> {
        if fields.kind() == "bye" {
            let reason = fields.word(1).unwrap_or_default();
            let text = fields.text().map(|text| format!(": {text}")).unwrap_or_default();
            self.bye = Some(escaped(&format!("{reason}{text}")));
        }
        if self.ignores_events {
            return Ok(());
        }
        self.events_bytes += fields.whole().len() + LINE_COST;
        if self.events.len() == EVENTS_MAX || self.events_bytes > EVENTS_BYTES_MAX {
            return Err(format!(
                "it sent more than {EVENTS_MAX} events or {} MiB of them before it answered",
                EVENTS_BYTES_MAX >> 20
            ));
        }
        self.events.push_back(fields.whole().to_owned());
        Ok(())
    }

    /// The command that a reply belongs to, which is the oldest that waits.
    fn answered_by(&mut self, verb: &str, label: Option<&str>) -> Result<Pending, String> {
        let fits = |pending: &Pending| label == Some(&pending.label) && verb == pending.verb;
        match self.pending.pop_front() {
            Some(pending) if fits(&pending) => {
                self.unanswered -= pending.sent;
                Ok(pending)
            }
            Some(Pending { verb: asked, label: own, .. }) => {
                let label = label.map(|label| format!("@{label}")).unwrap_or_default();
                Err(format!("it answered {} where /{asked}@{own} was next", quoted(&format!("/{verb}{label}"))))
            }
            None => Err(format!("it answered {}, which was not asked", quoted(verb))),
        }
    }

    fn answer(&mut self, pending: Pending, reply: Result<Reply, Refusal>, bytes: usize) -> Result<(), String> {
        if pending.keep_alive {
            return Ok(());
        }
        self.answered += bytes + LINE_COST;
        if self.answered > ANSWERS_MAX {
            return Err(format!("its answers together are longer than {} MiB", ANSWERS_MAX >> 20));
        }
        self.answers.push_back(Answer { rows: pending.rows, reply });
        Ok(())
    }
}

fn keys(fields: &Fields<'_>) -> Result<Vec<(String, String)>, String> {
    let keys: Vec<_> =
        fields.keys().take(KEYS_MAX + 1).map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    match keys.len() > KEYS_MAX {
        true => Err(format!("its reply has more than {KEYS_MAX} keys")),
        false => Ok(keys),
    }
}

/// The beginning of what somebody else said, for an error.
pub(super) fn quoted(text: &str) -> String {
    /// As much as tells an HTTP server from a mail server.
    const SHOWN: usize = 60;
    let mut shown: String = text.chars().take(SHOWN).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    format!("\"{}\"", escaped(&shown))
}

#[cfg(test)]
mod tests;

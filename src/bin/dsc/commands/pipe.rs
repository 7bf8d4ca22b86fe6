//! `dsc pipe`: a line session for programs. Lines of the protocol in (or, with `--json`, objects), lines
//! of the protocol out (or objects); what is sealed is opened on the way, what is said is sealed.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use serde::Deserialize;

use downstream::protocol::{Fields, Label, LineFault, LineSplitter, MessageLine, PostKey, Target, UserName};

use super::talk::check_text;
use crate::app::{self, Client, Content, Delivered, Reading, message_of_row};
use crate::context::Context;
use crate::error::{Exit, Failure};
use crate::event::{Event, Reply};
use crate::net::backoff::Backoff;
use crate::net::{Connection, Wake};
use crate::server::Answer;
use crate::show::{message_line, wire_line};

/// Read from standard input at once.
const INPUT_CHUNK: usize = 64 * 1024;
/// Events taken in before standard input gets its turn.
const EVENTS_AT_ONCE: usize = 256;
/// How often a live session looks after its keys, in seconds.
const UPKEEP_EVERY: u64 = 3600;

/// What dsc does by itself: a program that did it too would pull the session from under it.
const OWN_BUSINESS: &[&str] = &[
    "login",
    "logout",
    "register",
    "takeover",
    "unregister",
    "passwd",
    "token",
    "tokens",
    "revoke",
    "ack",
    "keys",
    "signal",
    "signals",
    "roster",
    "roster-add",
    "cert",
];

/// A line of standard input.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    label: Option<String>,
    verb: String,
    what: What,
}

#[derive(Debug, PartialEq, Eq)]
enum What {
    Send { to: Vec<Target>, text: String, plain: bool, key: Option<PostKey> },
    Command(String),
    Quit,
    Wrong(String),
}

/// A line of standard input with `--json`.
#[derive(Debug, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
enum Object {
    /// Says something.
    Send {
        to: String,
        text: String,
        #[serde(default)]
        plain: bool,
        #[serde(default)]
        key: Option<String>,
        #[serde(default)]
        label: Option<String>,
    },
    /// Gives a command to the server.
    Command {
        line: String,
        #[serde(default)]
        label: Option<String>,
    },
    /// Ends the session.
    Quit,
}

/// Where output goes, and in which form.
struct Out {
    out: crate::show::Output,
    json: bool,
    me: UserName,
}

impl Out {
    fn show(&mut self, event: &Event) -> Result<(), Failure> {
        if self.json {
            self.out.show(event)
        } else {
            self.out.print(&format!("{}\n", wire_line(event, self.me.as_str())))
        }
    }
}

/// Standard input, cut into lines.
struct Input {
    file: File,
    lines: LineSplitter,
    /// Read and not done yet: what a lost connection leaves is done in the next.
    pending: VecDeque<Result<String, String>>,
    ended: bool,
}

impl Input {
    fn open() -> Result<Input, Failure> {
        let fd =
            rustix::io::dup(std::io::stdin()).map_err(|error| Failure::failed(format!("standard input: {error}")))?;
        Ok(Input {
            file: File::from(fd),
            lines: LineSplitter::new(downstream::protocol::MAX_LINE),
            pending: VecDeque::new(),
            ended: false,
        })
    }

    /// Reads once, and keeps the whole lines of it.
    fn read(&mut self) -> Result<(), Failure> {
        let mut bytes = vec![0; INPUT_CHUNK];
        let read = match self.file.read(&mut bytes) {
            Ok(read) => read,
            Err(error) if matches!(error.kind(), std::io::ErrorKind::Interrupted | std::io::ErrorKind::WouldBlock) => {
                return Ok(());
            }
            Err(error) => return Err(Failure::failed(format!("standard input: {error}"))),
        };
        if read == 0 && !self.ended && self.lines.is_inside_line() {
            // Of a program that died in the middle of it: half a message is not sent.
            self.pending.push_back(Err("the input ended within this line: it was not done".to_owned()));
        }
        self.ended = read == 0;
        self.lines.fill(bytes.get(..read).unwrap_or_default());
        while let Some(line) = self.lines.next_line() {
            self.pending.push_back(line.map(str::to_owned).map_err(|fault| unreadable(fault).to_owned()));
        }
        Ok(())
    }
}

fn unreadable(fault: LineFault) -> &'static str {
    match fault {
        LineFault::TooLong(_) => "the line is too long",
        _ => "the line is no UTF-8, or has a NUL or a bare carriage return in it",
    }
}

/// `dsc pipe`
pub(crate) fn pipe(ctx: &mut Context) -> Result<(), Failure> {
    let mut input = Input::open()?;
    let mut backoff = Backoff::new();
    ctx.store()?.show_all()?;
    loop {
        let begun = Instant::now();
        match session(ctx, &mut input) {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(failure) if failure.is_passing() => {
                let me = own(ctx)?;
                let json = ctx.out.is_json();
                let notice = Event::Notice {
                    kind: "reconnecting".to_owned(),
                    subject: None,
                    text: format!("{failure}; trying again"),
                };
                Out { out: ctx.out, json, me }.show(&notice)?;
            }
            Err(failure) => return Err(failure),
        }
        backoff.lived(begun.elapsed());
        std::thread::sleep(backoff.next(app::random()?));
    }
}

fn own(ctx: &mut Context) -> Result<UserName, Failure> {
    let store = ctx.store()?;
    store.transact(|tx| app::own_name(tx))
}

/// One connection's time; whether it was ended by the program.
fn session(ctx: &mut Context, input: &mut Input) -> Result<bool, Failure> {
    let me = own(ctx)?;
    let json = ctx.out.is_json();
    let mut connection = ctx.connect()?;
    let (out, days) = (ctx.out, ctx.settings.history_days);
    let store = ctx.store()?;
    let mut out = Out { out, json, me };
    let mut show = |event: &Event| out.show(event);
    {
        let mut client = Client { store, server: &mut connection, show: &mut show };
        client.upkeep()?;
        client.catch_up(Reading::All)?;
        (client.show)(&Event::Notice {
            kind: "ready".to_owned(),
            subject: None,
            text: "everything that was missed has been read".to_owned(),
        })?;
    }
    let mut upkeep = Instant::now() + Duration::from_secs(UPKEEP_EVERY);
    loop {
        let events =
            if input.pending.is_empty() && !input.ended { wait(&mut connection, input, upkeep)? } else { Vec::new() };
        let mut client = Client { store, server: &mut connection, show: &mut show };
        if client.live(&events, Reading::All)?.is_some() {
            return Ok(false);
        }
        while let Some(line) = input.pending.pop_front() {
            let asked = match line {
                Ok(line) if line.trim().is_empty() => continue,
                Ok(line) => read_line(&line, json),
                Err(fault) => Asked { label: None, verb: "*".to_owned(), what: What::Wrong(fault) },
            };
            if asked.what == What::Quit {
                connection.quit();
                return Ok(true);
            }
            do_one(&mut client, asked)?;
        }
        if input.ended {
            connection.quit();
            return Ok(true);
        }
        if Instant::now() >= upkeep {
            let mut client = Client { store, server: &mut connection, show: &mut show };
            client.upkeep()?;
            client.catch_up(Reading::All)?;
            super::sweep(client.store, days)?;
            upkeep = Instant::now() + Duration::from_secs(UPKEEP_EVERY);
        }
    }
}

/// Waits for what comes next: events, or lines of the program, which wait in `input` then.
fn wait(connection: &mut Connection, input: &mut Input, upkeep: Instant) -> Result<Vec<String>, Failure> {
    let (mut events, mut deadline) = (Vec::new(), upkeep);
    while events.len() < EVENTS_AT_ONCE {
        match connection.next_event(Some(input.file.as_fd()), Some(deadline))? {
            Wake::Event(line) => events.push(line),
            Wake::Input => {
                input.read()?;
                break;
            }
            Wake::Deadline => break,
        }
        deadline = Instant::now();
    }
    Ok(events)
}

/// Does what one line asks for, and answers it.
fn do_one(client: &mut Client<'_>, asked: Asked) -> Result<(), Failure> {
    let Asked { label, verb, what } = asked;
    let reply = |ok: bool| Reply {
        label: label.clone(),
        verb: verb.clone(),
        ok,
        code: None,
        keys: Vec::new(),
        rows: Vec::new(),
        text: None,
    };
    match what {
        What::Quit => Ok(()),
        What::Wrong(why) => {
            (client.show)(&Event::Reply(Reply { code: Some("syntax".to_owned()), text: Some(why), ..reply(false) }))
        }
        What::Send { to, text, plain, key } => {
            let mut lost: Option<Failure> = None;
            for target in &to {
                let sent = match &key {
                    // Each target has its answer, also when the connection is gone before its turn.
                    _ if lost.is_some() => Err(Failure::new(Exit::Network, "the connection is lost: not sent")),
                    _ if plain => client.send_plain(target, &text),
                    Some(key) => client.send_once(target, Content::Text(text.clone()), key),
                    None => client.send(target, Content::Text(text.clone())),
                };
                let answer = match sent {
                    Ok(delivered) => Reply { keys: keys_of(&delivered), ..reply(true) },
                    Err(failure) => {
                        let unsealed = failure.exit == Exit::Network && lost.is_none();
                        // The hint says that it waits in the outbox, where it does: a connection that is lost
                        // before anything was sealed leaves nothing there.
                        let text = match &failure.hint {
                            Some(hint) => format!("{failure}; {hint}"),
                            None if unsealed => format!("{failure}; it was not sealed yet: say it again"),
                            None => failure.to_string(),
                        };
                        let keys = vec![("to".to_owned(), target.to_string())];
                        (client.show)(&Event::Reply(Reply {
                            code: Some(code_of(&failure).to_owned()),
                            keys,
                            text: Some(text),
                            ..reply(false)
                        }))?;
                        if failure.exit == Exit::Network {
                            lost.get_or_insert(failure);
                        }
                        continue;
                    }
                };
                (client.show)(&Event::Reply(answer))?;
            }
            lost.map_or(Ok(()), Err)
        }
        What::Command(line) => {
            let answer = match client.server.ask(&line) {
                Ok(answer) => answer,
                Err(lost) => {
                    let failure = Failure::from(lost);
                    let (code, text) =
                        (code_of(&failure).to_owned(), format!("{failure}; whether it was done is not known"));
                    (client.show)(&Event::Reply(Reply { code: Some(code), text: Some(text), ..reply(false) }))?;
                    return Err(failure);
                }
            };
            let rows = open_rows(client, &answer)?;
            let answer = match answer.reply {
                Ok(ok) => Reply { keys: ok.keys, text: ok.text, rows, ..reply(true) },
                Err(refusal) => Reply {
                    code: Some(refusal.code),
                    keys: refusal.keys,
                    text: Some(refusal.text),
                    rows,
                    ..reply(false)
                },
            };
            (client.show)(&Event::Reply(answer))
        }
    }
}

fn keys_of(delivered: &Delivered) -> Vec<(String, String)> {
    let mut keys = vec![("id".to_owned(), delivered.id.to_string())];
    keys.extend(delivered.time.clone().map(|time| ("time".to_owned(), time)));
    keys.push(("to".to_owned(), delivered.target.to_string()));
    keys.extend(delivered.peer.clone().map(|peer| ("peer".to_owned(), peer)));
    if delivered.duplicate {
        keys.push(("dup".to_owned(), "yes".to_owned()));
    }
    keys
}

/// A word for programs.
fn code_of(failure: &Failure) -> &'static str {
    match failure.exit {
        Exit::Done | Exit::Failed => "failed",
        Exit::Usage => "usage",
        Exit::NoSession => "no-session",
        Exit::IdentityChanged => "identity-changed",
        Exit::Network => "network",
        Exit::Refused => "refused",
    }
}

/// The rows of an answer, with the text of envelopes that this device has opened. Of a message's row only
/// what dsc knows is passed on: whether it was sealed, and by which device, is not the server's to say.
fn open_rows(client: &mut Client<'_>, answer: &Answer) -> Result<Vec<String>, Failure> {
    if !answer.rows.iter().any(|row| row.starts_with("msg ")) {
        return Ok(answer.rows.clone());
    }
    client.store.transact(|tx| -> Result<Vec<String>, Failure> {
        let me = app::own_name(tx)?;
        let mut rows = Vec::with_capacity(answer.rows.len());
        for row in &answer.rows {
            let fields = Fields::parse(row);
            rows.push(match (fields.word(0), MessageLine::read(&fields)) {
                (Some("msg"), Ok(line)) => match message_of_row(tx, &me, &fields)? {
                    Some(message) => message_line(&message, me.as_str()),
                    None => format!("msg {} {} {} {} :{}", line.id, line.time, line.target, line.sender, line.body),
                },
                (Some("msg"), Err(_)) => format!("unreadable :{row}"),
                _ => row.clone(),
            });
        }
        Ok(rows)
    })
}

/// Reads one line of the program.
fn read_line(line: &str, json: bool) -> Asked {
    if json && line.trim_start().starts_with('{') {
        return read_object(line);
    }
    let Some(rest) = line.strip_prefix('/') else {
        return wrong(None, "*", "a line begins with / (or, with --json, with {)");
    };
    let (head, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let (verb, label) = head.split_once('@').map_or((head, None), |(verb, label)| (verb, Some(label)));
    let verb = verb.to_ascii_lowercase();
    let label = match label {
        None => None,
        Some(label) if Label::parse(label).is_some() => Some(label.to_owned()),
        Some(_) => return wrong(None, &verb, "that label cannot be read"),
    };
    match verb.as_str() {
        "quit" => Asked { label, verb, what: What::Quit },
        "msg" | "plain" => {
            let (to, text) = rest.split_once(' ').unwrap_or((rest, ""));
            let plain = verb == "plain";
            send(label, verb, to, text, plain, None)
        }
        "post" => {
            let mut words = rest.splitn(3, ' ');
            let (to, key, text) = (words.next().unwrap_or(""), words.next().unwrap_or(""), words.next().unwrap_or(""));
            let Some(key) = PostKey::parse(key) else { return wrong(label, &verb, "that key cannot be read") };
            send(label, verb, to, text, false, Some(key))
        }
        own if OWN_BUSINESS.contains(&own) => wrong(label, own, "dsc does that itself"),
        _ => Asked { label, what: What::Command(format!("/{verb} {rest}").trim_end().to_owned()), verb },
    }
}

fn read_object(line: &str) -> Asked {
    match serde_json::from_str(line) {
        Ok(Object::Quit) => Asked { label: None, verb: "quit".to_owned(), what: What::Quit },
        Ok(Object::Command { line, label }) => match read_line(&line, false) {
            Asked { verb, what: what @ (What::Command(_) | What::Wrong(_)), .. } => Asked { label, verb, what },
            Asked { verb, .. } => wrong(label, &verb, "say that with \"do\""),
        },
        Ok(Object::Send { to, text, plain, key, label }) => match key.map(|key| PostKey::parse(&key)) {
            Some(None) => wrong(label, "send", "that key cannot be read"),
            key => send(label, "send".to_owned(), &to, &text, plain, key.flatten()),
        },
        Err(error) => wrong(None, "*", &format!("that object cannot be read: {error}")),
    }
}

fn send(label: Option<String>, verb: String, to: &str, text: &str, plain: bool, key: Option<PostKey>) -> Asked {
    let targets: Result<Vec<Target>, _> = to.split(',').map(Target::parse).collect();
    let what = match targets {
        Err(error) => What::Wrong(error.to_string()),
        Ok(to) if key.is_some() && (plain || to.len() != 1) => {
            drop(to);
            What::Wrong("a key is for one target, and for sealed messages".to_owned())
        }
        Ok(to) => match check_text(text) {
            Ok(()) => What::Send { to, text: text.to_owned(), plain, key },
            Err(failure) => What::Wrong(failure.to_string()),
        },
    };
    Asked { label, verb, what }
}

fn wrong(label: Option<String>, verb: &str, why: &str) -> Asked {
    Asked { label, verb: verb.to_owned(), what: What::Wrong(why.to_owned()) }
}

//! Saying and reading: `send`, `fetch`, `tail`, `search`, `react`, `edit`, `delete`, `resend`.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::time::{Duration, Instant};

use downstream::e2e::inner::{ChangeKind, TEXT_MAX};
use downstream::e2e::name::{DeviceId, MsgId, User};
use downstream::protocol::Target;

use super::{offline, online};
use crate::app::{self, Client, Content, Reading, Saver, entry_event};
use crate::cli::{Fetch, MessageArg, MessageRef, Search, Send, Tail};
use crate::context::Context;
use crate::error::{Exit, Failure};
use crate::event::Event;
use crate::net::Wake;
use crate::net::backoff::Backoff;
use crate::store::{Store, What};

/// Events taken in at once: what came in one read of the socket, mostly.
const EVENTS_AT_ONCE: usize = 256;
/// How often a live session looks after its keys, in seconds.
const UPKEEP_EVERY: u64 = 3600;
/// Addresses of logins that are told apart in one connection.
const LOGINS_MAX: usize = 1000;
/// A page of `fetch TARGET`, in messages.
const PAGE: u32 = 100;

/// `dsc send`
pub(crate) fn send(ctx: &mut Context, send: &Send) -> Result<(), Failure> {
    let text = if send.text.is_empty() { from_input()? } else { send.text.join(" ") };
    check_text(&text)?;
    let mut begun = false;
    let sent = online(ctx, |client| {
        begun = true;
        let mut failed: Option<Failure> = None;
        for target in send.targets.0.iter() {
            let sent = if send.plain {
                client.send_plain(target, &text)
            } else {
                client.send(target, Content::Text(text.clone()))
            };
            match sent {
                Ok(delivered) => (client.show)(&sent_event(&delivered, !send.plain))?,
                Err(failure) if failure.exit == Exit::Network => return Err(failure),
                // The others get it all the same; the first failure is what the program ends with.
                Err(failure) => match &failed {
                    None => failed = Some(failure),
                    Some(_) => (client.show)(&failed_event(target, &failure))?,
                },
            }
        }
        failed.map_or(Ok(()), Err)
    });
    match sent {
        Err(failure) if failure.exit == Exit::Network && !begun => Err(unreached(ctx, send, &text, failure)?),
        sent => sent,
    }
}

/// The server cannot be reached: what can be sealed without it waits in the outbox. The failure to end with,
/// which says what became of the text.
fn unreached(ctx: &mut Context, send: &Send, text: &str, failure: Failure) -> Result<Failure, Failure> {
    let targets = send.targets.0.iter();
    if send.plain || ctx.profile()?.user.is_none() {
        return Ok(failure.hint("nothing was sent or kept"));
    }
    let (mut waits, mut lost) = (Vec::new(), Vec::new());
    offline(ctx, |client| {
        for target in targets {
            match client.leave_in_outbox(target, Content::Text(text.to_owned())) {
                Ok(()) => waits.push(target.to_string()),
                Err(_) => lost.push(target.to_string()),
            }
        }
        Ok(())
    })?;
    let waits = (!waits.is_empty()).then(|| {
        format!("for {} it waits in the outbox and goes out with the next command that gets through", waits.join(", "))
    });
    let lost =
        (!lost.is_empty()).then(|| format!("for {} it was not kept: sealing it needs the server", lost.join(", ")));
    let hint: Vec<String> = waits.into_iter().chain(lost).collect();
    Ok(failure.hint(hint.join("; ")))
}

fn failed_event(target: &Target, failure: &Failure) -> Event {
    Event::Error {
        exit: failure.exit as u8,
        message: format!("not sent to {target}: {failure}"),
        hint: failure.hint.clone(),
    }
}

/// The event of a message that was stored.
pub(crate) fn sent_event(delivered: &app::Delivered, encrypted: bool) -> Event {
    Event::Sent { target: delivered.target.to_string(), id: delivered.id, encrypted, duplicate: delivered.duplicate }
}

/// Standard input as one text, without its last line ending.
fn from_input() -> Result<String, Failure> {
    let mut bytes = Vec::new();
    // One byte more than may be sent, so that what is too long is known to be.
    let most = u64::try_from(TEXT_MAX).unwrap_or(u64::MAX).saturating_add(2);
    std::io::stdin()
        .lock()
        .take(most)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::failed(format!("standard input: {error}")))?;
    let mut text = String::from_utf8(bytes).map_err(|_| Failure::usage("standard input is no UTF-8 text"))?;
    if text.ends_with('\n') {
        text.pop();
    }
    if text.ends_with('\r') {
        text.pop();
    }
    Ok(text)
}

/// That a text can be sent at all.
pub(crate) fn check_text(text: &str) -> Result<(), Failure> {
    if text.is_empty() {
        return Err(Failure::usage("there is no text to send").hint("give it behind the target, or on standard input"));
    }
    if text.len() > TEXT_MAX {
        return Err(Failure::usage(format!("a text has at most {TEXT_MAX} bytes")));
    }
    Ok(())
}

/// `dsc resend`
pub(crate) fn resend(ctx: &mut Context) -> Result<(), Failure> {
    online(ctx, |client| client.flush())
}

/// `dsc fetch`
pub(crate) fn fetch(ctx: &mut Context, fetch: &Fetch) -> Result<(), Failure> {
    online(ctx, |client| {
        let Some(target) = &fetch.target else { return client.catch_up(Reading::All) };
        let bound = match (fetch.before, fetch.after) {
            (Some(id), _) => Some(("before", id)),
            (None, Some(id)) => Some(("after", id)),
            (None, None) => None,
        };
        let limit = usize::try_from(fetch.limit.unwrap_or(PAGE)).unwrap_or(usize::MAX);
        client.page(target, bound, limit)
    })
}

/// `dsc tail`: returns only with a failure that reconnecting cannot mend.
pub(crate) fn tail(ctx: &mut Context, tail: &Tail) -> Result<(), Failure> {
    let mut backoff = Backoff::new();
    let mut saver = tail.save.as_ref().map(|path| Saver::new(path, tail.save_max)).transpose()?;
    let store = ctx.store()?;
    store.show_all()?;
    if saver.is_some() {
        store.save_files();
    }
    // Why there is no connection, as it was told: the same is not told again at each try.
    let mut away: Option<String> = None;
    loop {
        let begun = Instant::now();
        match follow(ctx, &tail.targets, &mut saver, &mut away) {
            Ok(()) => {}
            Err(failure) if failure.is_passing() => {
                if away.as_ref() != Some(&failure.message) {
                    ctx.out.show(&lost(&failure))?;
                }
                away = Some(failure.message);
            }
            Err(failure) => return Err(failure),
        }
        backoff.lived(begun.elapsed());
        std::thread::sleep(backoff.next(app::random()?));
    }
}

fn lost(failure: &Failure) -> Event {
    Event::Notice { kind: "reconnecting".to_owned(), subject: None, text: format!("{failure}; trying again") }
}

/// One connection's time: everything that was missed, then what comes.
fn follow(
    ctx: &mut Context,
    targets: &[Target],
    saver: &mut Option<Saver>,
    away: &mut Option<String>,
) -> Result<(), Failure> {
    let mut connection = ctx.connect()?;
    if away.take().is_some() {
        ctx.out.notice("reconnected", "connected again")?;
    }
    let (out, days) = (ctx.out, ctx.settings.history_days);
    let store = ctx.store()?;
    // Each command of the account is a login: told of once from each address.
    let mut logins = BTreeSet::new();
    let mut show = |event: &Event| match event {
        Event::Server { kind, words, .. }
            if kind == "login" && logins.len() < LOGINS_MAX && !logins.insert(words.clone()) =>
        {
            Ok(())
        }
        // Of files that come by the way the end is told.
        Event::Progress { .. } => Ok(()),
        event => out.show(event),
    };
    // What was not asked for is not taken in either: it is there for the next command that reads it.
    let reading = if targets.is_empty() { Reading::All } else { Reading::Only(targets) };
    let mut client = Client { store, server: &mut connection, show: &mut show };
    client.upkeep()?;
    client.catch_up(reading)?;
    let mut upkeep = Instant::now() + Duration::from_secs(UPKEEP_EVERY);
    loop {
        let mut client = Client { store, server: &mut connection, show: &mut show };
        let busy = saver.as_mut().map_or(Ok(false), |saver| saver.step(&mut client))?;
        let mut lines = Vec::new();
        // While a file comes, nothing is waited for: what came between its pieces is here.
        let mut deadline = if busy { Instant::now() } else { upkeep };
        while lines.len() < EVENTS_AT_ONCE {
            match connection.next_event(None, Some(deadline))? {
                Wake::Event(line) => lines.push(line),
                Wake::Input => {}
                Wake::Deadline => break,
            }
            // What is here already comes along; nothing more is waited for.
            deadline = Instant::now();
        }
        let mut client = Client { store, server: &mut connection, show: &mut show };
        if let Some(reason) = client.live(&lines, reading)? {
            return match reason.as_str() {
                "replaced" | "kicked" => {
                    Err(Failure::new(Exit::Refused, format!("the server ended the session: {reason}")))
                }
                _ => Ok(()),
            };
        }
        if Instant::now() >= upkeep {
            client.upkeep()?;
            client.catch_up(reading)?;
            super::sweep(client.store, days)?;
            upkeep = Instant::now() + Duration::from_secs(UPKEEP_EVERY);
        }
    }
}

/// `dsc search`
pub(crate) fn search(ctx: &mut Context, search: &Search) -> Result<(), Failure> {
    let out = ctx.out;
    let store = ctx.store()?;
    let events = store.transact(|tx| -> Result<Vec<Event>, Failure> {
        let me = app::own_name(tx)?;
        let limit = usize::try_from(search.limit).unwrap_or(usize::MAX);
        let found = tx.search(&search.words, search.target.as_ref(), limit)?;
        let mut events = Vec::new();
        for entry in &found {
            events.extend(entry_event(tx, &me, entry)?);
        }
        Ok(events)
    })?;
    events.iter().try_for_each(|event| out.show(event))
}

/// `dsc react`, `edit`, `delete`
pub(crate) fn change(
    ctx: &mut Context,
    kind: ChangeKind,
    message: &MessageArg,
    text: &[String],
) -> Result<(), Failure> {
    let text = text.join(" ");
    if kind != ChangeKind::Delete {
        check_text(&text)?;
    }
    let store = ctx.store()?;
    let (author, device, msg_id) = find(store, message)?;
    let me = store.transact(|tx| app::own_name(tx))?;
    if kind != ChangeKind::React && author.as_str() != me.as_str() {
        return Err(Failure::usage(format!("that message is of {author}: only one's own can be edited or deleted")));
    }
    online(ctx, |client| {
        let content = Content::Change { kind, author, device, msg_id, text };
        let delivered = client.send(&message.target, content)?;
        (client.show)(&sent_event(&delivered, true))
    })
}

/// The message that is meant, in the history.
fn find(store: &mut Store, message: &MessageArg) -> Result<(User, DeviceId, MsgId), Failure> {
    let target = &message.target;
    let entry = store.transact(|tx| -> Result<_, Failure> {
        Ok(match &message.message {
            MessageRef::Id(id) => tx.entry(target, *id)?,
            MessageRef::MsgId(id) => tx.entry_of(target, *id)?,
        })
    })?;
    let unknown = || Failure::failed(format!("that message of {target} is not in this device's history"));
    let entry = entry.ok_or_else(unknown)?;
    let What::Sealed { device, inner } = &entry.what else {
        return Err(Failure::usage("only messages that were sealed can be changed"));
    };
    let inner = downstream::e2e::inner::Inner::parse(inner).map_err(|_| unknown())?;
    let author = User::parse(entry.sender.as_str()).map_err(|_| unknown())?;
    Ok((author, *device, inner.msg_id))
}

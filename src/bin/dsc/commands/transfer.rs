//! Transfers: work that outlives a connection, and what goes on with it later (`resume`).

use std::time::{Duration, Instant};

use super::{offline, online, online_with};
use crate::app::{self, Client};
use crate::cli::Resume;
use crate::context::Context;
use crate::error::{Exit, Failure};
use crate::event::{Event, Phase, Row};
use crate::net::backoff::Backoff;
use crate::show::Progress;
use crate::store::{Download, Stage, Upload};

/// How long a transfer that does not get on is tried again before the command ends: a server that restarts is
/// back by then, and who waits at a terminal has not forgotten why.
const RETRY_FOR: Duration = Duration::from_secs(120);

/// What can be interrupted, and how one goes on with it.
struct Kind {
    /// What is not finished.
    list: fn(&mut Client<'_>) -> Result<Vec<Row>, Failure>,
    /// Goes on with one of them. The number is the largest file that the server takes.
    finish: fn(&mut Client<'_>, &str, Option<u64>) -> Result<(), Failure>,
    /// Gives one up; what it was.
    drop: fn(&mut Client<'_>, &str) -> Result<String, Failure>,
}

/// Every kind of transfer.
const KINDS: [Kind; 2] = [
    Kind { list: list_uploads, finish: finish_upload, drop: drop_upload },
    Kind { list: list_downloads, finish: finish_download, drop: drop_download },
];

/// Works with one connection after the other until it is done: what a lost one leaves, the next goes on with.
/// Gives up when nothing has moved for [`RETRY_FOR`], and at once if the server cannot be reached to begin
/// with.
///
/// # Errors
/// Those of `work`.
pub(super) fn persistently(
    ctx: &mut Context,
    mut work: impl FnMut(&mut Client<'_>, Option<u64>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let out = ctx.out;
    let mut progress = Progress::new(out);
    let mut backoff = Backoff::new();
    let (mut begun, mut moved, mut reached) = (false, Instant::now(), 0);
    loop {
        let connected = Instant::now();
        let mut show = |event: &Event| {
            match event {
                Event::Progress { phase: Phase::Sending | Phase::Receiving, done, .. } if *done > reached => {
                    (reached, moved) = (*done, Instant::now());
                }
                Event::Progress { phase: Phase::Reading, .. } => moved = Instant::now(),
                Event::FileSent { .. } | Event::FileReceived { .. } => (reached, moved) = (0, Instant::now()),
                _ => {}
            }
            progress.show(event)
        };
        let done = online_with(ctx, &mut show, |client, max_file| {
            begun = true;
            work(client, max_file)
        });
        match done {
            Err(failure) if failure.is_passing() && begun && moved.elapsed() < RETRY_FOR => {
                let text = format!("{failure}; trying again");
                progress.show(&Event::Notice { kind: "reconnecting".to_owned(), subject: None, text })?;
            }
            done => return done,
        }
        backoff.lived(connected.elapsed());
        std::thread::sleep(backoff.next(app::random()?));
    }
}

/// Keeps the first failure, which the program ends with, and shows the others. A lost connection ends it all.
pub(super) fn set_aside(client: &mut Client<'_>, first: &mut Option<Failure>, failure: Failure) -> Result<(), Failure> {
    if failure.is_passing() || failure.is_closed() {
        return Err(failure);
    }
    match first {
        None => *first = Some(failure),
        Some(_) => {
            let Failure { exit, message, hint, .. } = failure;
            (client.show)(&Event::Error { exit: exit as u8, message, hint })?;
        }
    }
    Ok(())
}

/// `dsc resume`
pub(crate) fn resume(ctx: &mut Context, resume: &Resume) -> Result<(), Failure> {
    if let Some(id) = &resume.drop {
        return give_up(ctx, id);
    }
    if resume.list {
        return offline(ctx, |client| {
            for kind in KINDS {
                for row in (kind.list)(client)? {
                    (client.show)(&Event::Row(row))?;
                }
            }
            Ok(())
        });
    }
    let (mut tried, mut failed) = (Vec::new(), None);
    let done = persistently(ctx, |client, max_file| {
        client.flush()?;
        for kind in KINDS {
            for row in (kind.list)(client)? {
                let Row::Transfer { transfer, waits: None, .. } = row else { continue };
                if tried.contains(&transfer) {
                    continue;
                }
                match (kind.finish)(client, &transfer, max_file) {
                    Ok(()) => {}
                    Err(failure) => set_aside(client, &mut failed, failure)?,
                }
                tried.push(transfer);
            }
        }
        Ok(())
    });
    match done {
        Err(failure) if failure.exit == Exit::Network => {
            Err(failure.hint("everything stays as it is: `dsc resume` goes on later"))
        }
        Err(failure) => Err(failure),
        Ok(()) if tried.is_empty() => ctx.out.notice("nothing-waits", "there is nothing to go on with"),
        Ok(()) => failed.map_or(Ok(()), Err),
    }
}

/// `dsc resume --drop`
fn give_up(ctx: &mut Context, wanted: &str) -> Result<(), Failure> {
    let mut found = Vec::new();
    offline(ctx, |client| {
        for (at, kind) in KINDS.iter().enumerate() {
            for row in (kind.list)(client)? {
                if let Row::Transfer { transfer, waits, .. } = row
                    && transfer.starts_with(wanted)
                {
                    found.push((at, transfer, waits.is_some()));
                }
            }
        }
        Ok(())
    })?;
    let (at, id, by_hand) = match found.as_slice() {
        [one] => one.clone(),
        [] => {
            return Err(Failure::usage(format!("there is no transfer {wanted}"))
                .hint("`dsc resume --list` lists those that are not finished"));
        }
        _ => return Err(Failure::usage(format!("{wanted} begins several transfers: give more of it"))),
    };
    let Some(kind) = KINDS.get(at) else { return Err(Failure::failed("no such kind")) };
    let mut reached = false;
    let dropped = match by_hand {
        // Of one that a person sends the server is the person's too.
        true => offline(ctx, |client| (kind.drop)(client, &id)),
        false => online(ctx, |client| {
            reached = true;
            (kind.drop)(client, &id)
        }),
    };
    let name = match dropped {
        Err(failure) if failure.exit == Exit::Network && !reached => {
            let name = offline(ctx, |client| (kind.drop)(client, &id))?;
            let text = "the server cannot be reached: what it has of it goes when its time is over";
            ctx.out.notice("partial-left", text)?;
            name
        }
        dropped => dropped?,
    };
    ctx.out.notice("dropped", format!("{name} is given up"))
}

fn list_uploads(client: &mut Client<'_>) -> Result<Vec<Row>, Failure> {
    let row = |upload: Upload| {
        let size = match &upload.stage {
            Stage::Preparing | Stage::Announced(_) => upload.source.as_ref().map(|source| source.size),
            Stage::Sealed(file) => Some(file.size),
            Stage::Clear { size, .. } => Some(*size),
        };
        Row::Transfer {
            transfer: upload.id,
            direction: "sending".to_owned(),
            target: upload.target.to_string(),
            name: upload.name,
            size,
            since: downstream::protocol::Timestamp::from_millis(upload.made_ms).to_string(),
            waits: upload.by_hand.then(|| "for `dsc encode`".to_owned()),
        }
    };
    Ok(client.uploads()?.into_iter().map(row).collect())
}

fn finish_upload(client: &mut Client<'_>, id: &str, max_file: Option<u64>) -> Result<(), Failure> {
    let Some(mut work) = client.take_upload(id, max_file)? else { return Ok(()) };
    let sent = client.finish_upload(&mut work)?;
    (client.show)(&sent.event())
}

fn drop_upload(client: &mut Client<'_>, id: &str) -> Result<String, Failure> {
    Ok(client.give_up_upload(id)?.name)
}

fn list_downloads(client: &mut Client<'_>) -> Result<Vec<Row>, Failure> {
    let row = |download: Download| Row::Transfer {
        transfer: download.id,
        direction: "receiving".to_owned(),
        target: download.target.to_string(),
        name: download.name,
        size: Some(download.size),
        since: downstream::protocol::Timestamp::from_millis(download.made_ms).to_string(),
        waits: None,
    };
    Ok(client.downloads()?.into_iter().map(row).collect())
}

fn finish_download(client: &mut Client<'_>, id: &str, _: Option<u64>) -> Result<(), Failure> {
    client.finish_download(id)
}

fn drop_download(client: &mut Client<'_>, id: &str) -> Result<String, Failure> {
    client.give_up_download(id)
}

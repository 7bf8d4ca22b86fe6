//! Sending files: `send-file`, and `encode` for a session by hand.

use std::path::Path;

use super::offline;
use super::transfer::{persistently, set_aside};
use crate::app::{Origin, Sending, Work};
use crate::cli::{Encode, SendFile};
use crate::context::Context;
use crate::error::{Exit, Failure};

/// The path that stands for standard input.
const INPUT: &str = "-";

/// `dsc send-file`
pub(crate) fn send_file(ctx: &mut Context, args: &SendFile) -> Result<(), Failure> {
    let is_input = |path: &Path| path.as_os_str() == INPUT;
    if args.name.is_some() && args.paths.len() > 1 {
        return Err(Failure::usage("--name is for one file"));
    }
    if args.paths.iter().filter(|path| is_input(path)).count() > 1 {
        return Err(Failure::usage("standard input can be sent once"));
    }
    // What is in work outlives a lost connection.
    let (mut waiting, mut work, mut failed) = (args.paths.iter(), None::<Work>, None);
    let mut next = waiting.next();
    let mut kept = false;
    let done = persistently(ctx, |client, max_file| {
        while let Some(path) = next {
            let one = match &mut work {
                Some(work) => client.finish_upload(work),
                None => client.check_receiver(&args.target, args.plain).and_then(|()| {
                    let mut input = std::io::stdin().lock();
                    let from = match is_input(path) {
                        true => Origin::Stream(&mut input),
                        false => Origin::Path(path, args.tar),
                    };
                    let (name, mime) = (args.name.as_deref(), args.mime.as_deref());
                    let (target, plain) = (&args.target, args.plain);
                    let sending = Sending { target, name, mime, plain, by_hand: false, from };
                    let begun = client.begin_upload(sending, max_file)?;
                    kept = true;
                    client.finish_upload(work.insert(begun))
                }),
            };
            match one {
                Ok(sent) => (client.show)(&sent.event())?,
                Err(failure) => set_aside(client, &mut failed, failure)?,
            }
            (work, kept) = (None, false);
            next = waiting.next();
        }
        Ok(())
    });
    match done {
        Err(failure) if failure.exit == Exit::Network && kept => {
            Err(failure.hint("`dsc resume`, or the same command, goes on where it stopped"))
        }
        Err(failure) if failure.exit == Exit::Network => Err(failure.hint("nothing of it was sent or kept")),
        Err(failure) => Err(failure),
        Ok(()) => failed.map_or(Ok(()), Err),
    }
}

/// `dsc encode`
pub(crate) fn encode(ctx: &mut Context, args: &Encode) -> Result<(), Failure> {
    let out = ctx.out;
    let mut print = |line: &str| out.print(&format!("{line}\n"));
    let again = format!("dsc encode {} '{}' --file F", args.path.display(), args.target);
    offline(ctx, |client| {
        let (name, mime) = (args.name.as_deref(), args.mime.as_deref());
        let from = Origin::Path(&args.path, false);
        let sending = Sending { target: &args.target, name, mime, plain: args.plain, by_hand: true, from };
        match &args.file {
            None => {
                let work = client.begin_upload(sending, None)?;
                print(&work.opening_line()?)
            }
            Some(file) => client.print_upload(sending, file.as_str(), args.offset, &mut print),
        }
    })?;
    match args.file {
        None => {
            out.notice("by-hand", format!("its answer names the file, file=F: the pieces are then made by {again}"))
        }
        Some(_) => out.notice(
            "by-hand",
            "`dsc resume --list` shows the copy that was kept for this, `dsc resume --drop` removes it",
        ),
    }
}

//! Getting files: `files` and `get-file`.

use std::path::{Path, PathBuf};

use downstream::protocol::Target;

use super::online;
use super::transfer::{persistently, set_aside};
use crate::app::{Fetching, To};
use crate::cli::GetFile;
use crate::context::Context;
use crate::error::{Exit, Failure};
use crate::folder::Folder;

/// The path that stands for standard output.
const OUTPUT: &str = "-";

/// `dsc files`
pub(crate) fn files(ctx: &mut Context, target: Option<&Target>) -> Result<(), Failure> {
    online(ctx, |client| client.show_files(target))
}

/// `dsc get-file`
pub(crate) fn get_file(ctx: &mut Context, args: &GetFile) -> Result<(), Failure> {
    let to = destination(ctx, args)?;
    // What is in work outlives a lost connection.
    let (mut waiting, mut work, mut failed) = (args.files.iter(), None::<Box<Fetching>>, None);
    let mut next = waiting.next();
    let done = persistently(ctx, |client, _| {
        while let Some(file) = next {
            let begun = match &mut work {
                Some(_) => Ok(()),
                None => client.begin_download(file, &to, None).map(|begun| work = begun),
            };
            let one = begun.and_then(|()| work.as_mut().map_or(Ok(()), |work| client.download(work)));
            if let Err(failure) = one {
                set_aside(client, &mut failed, failure)?;
            }
            work = None;
            next = waiting.next();
        }
        Ok(())
    });
    match done {
        Err(failure) if failure.exit == Exit::Network => Err(match to {
            To::Output => failure.hint("what was written to standard output is not the whole file"),
            To::Folder { .. } => failure.hint("`dsc resume`, or the same command, goes on where it stopped"),
        }),
        Err(failure) => Err(failure),
        Ok(()) => failed.map_or(Ok(()), Err),
    }
}

/// Where files go.
fn destination(ctx: &Context, args: &GetFile) -> Result<To, Failure> {
    let Some(path) = &args.output else {
        return Ok(To::Folder { path: ctx.downloads(), make: true, name: None });
    };
    if path.as_os_str() == OUTPUT {
        return match ctx.out.is_json() {
            true => Err(Failure::usage("standard output is for one of the two: --json, or a file with -o -")),
            false => Ok(To::Output),
        };
    }
    if path.is_dir() {
        return Ok(To::Folder { path: path.clone(), make: false, name: None });
    }
    let shown = path.display();
    if args.files.len() > 1 {
        return Err(Failure::usage(format!("{shown} is no folder, and one file cannot be several")));
    }
    let no_folder = || Failure::usage(format!("{shown} is no folder")).hint("make it, or leave the / at its end away");
    let name = path.file_name().filter(|_| !ends_in_slash(path)).ok_or_else(no_folder)?;
    let name = name.to_str().ok_or_else(|| Failure::usage("the name of a file must be UTF-8"))?;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    };
    if Folder::open(&folder, false)?.has(name) {
        return Err(Failure::failed(format!("{shown} is there already")).hint("nothing is overwritten: name another"));
    }
    Ok(To::Folder { path: folder, make: false, name: Some(name.to_owned()) })
}

/// Whether a path is written as that of a directory.
fn ends_in_slash(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(b"/")
}

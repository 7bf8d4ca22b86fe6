//! `dsc`: the helper client. It seals what people say before the server sees it, and opens what comes.

#![forbid(unsafe_code)]
#![expect(unreachable_pub, reason = "a binary: `pub` means open to the other modules of dsc")]

mod app;
mod cli;
mod commands;
mod context;
mod error;
mod event;
mod folder;
#[cfg(test)]
mod manual;
mod net;
mod prompt;
mod server;
mod session;
mod settings;
mod show;
mod spool;
mod store;
#[cfg(test)]
mod testing;

use std::process::ExitCode;

use cli::{Cli, ColorChoice};
use context::Context;
use show::Output;

fn main() -> ExitCode {
    let Cli { options, command } = match cli::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too, with exit code 0. A closed pipe has nobody to tell.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    // What is wrong with the settings has to be told before they are known.
    let mut out = Output::new(options.json, options.quiet, options.color.unwrap_or(ColorChoice::Auto));
    let done = Context::new(options).and_then(|mut context| {
        out = context.out;
        commands::run(&mut context, command)
    });
    match done {
        Ok(()) => error::Exit::Done.into(),
        Err(failure) => {
            out.fail(&failure);
            failure.exit.into()
        }
    }
}

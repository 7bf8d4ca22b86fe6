//! `downstream`: arguments → configuration → TLS and store → loop, or a command of the operator.
//!
//! The only place that prints or exits.
#![expect(clippy::print_stderr, reason = "the program speaks to its operator here")]

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use downstream::cli::{Cli, Command};
use downstream::config::Source;
use downstream::operator::{self, Failure, Operator, Terminal};
use downstream::reactor::{Exit, Reactor, Setup};
use downstream::startup::{self, Prepared};
use downstream::{logging, service};

fn main() -> ExitCode {
    let (source, command) = match Cli::try_parse().and_then(Cli::split) {
        Ok(split) => split,
        Err(error) => {
            // Help and version come this way too, with exit code 0. A closed pipe has nobody to tell.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    logging::start();
    let done = match command {
        Command::Serve(_) => serve(source),
        Command::Check => check(&source).map(|()| ExitCode::SUCCESS),
        command => operate(&source, command).map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|failure| {
        eprintln!("{failure}");
        ExitCode::from(failure.exit_code())
    })
}

/// Serves until a signal ends it.
fn serve(source: Source) -> Result<ExitCode, Failure> {
    let Prepared { config, tls, database, key, listeners, service, reload, welcome } = startup::prepare(source)?;
    let setup = Setup { config, tls, database, key, listeners, service, reload };
    let reactor = Reactor::new(setup).map_err(Failure::because)?;
    let addresses = reactor.addresses();
    let mut out = std::io::stdout().lock();
    // Who closed standard output does not want to know; the daemon is there for others.
    if out.write_all(welcome.text(&addresses).as_bytes()).and_then(|()| out.flush()).is_err() {
        welcome.log(&addresses);
    }
    drop(out);
    match reactor.run().map_err(Failure::because)? {
        Exit::Graceful => Ok(ExitCode::SUCCESS),
        Exit::AtOnce => Ok(ExitCode::FAILURE),
    }
}

/// Reports on configuration and certificates.
fn check(source: &Source) -> Result<(), Failure> {
    let credentials = service::credentials();
    let checked = operator::check(source, credentials.as_deref(), service::raise_descriptors())?;
    for warning in checked.warnings {
        eprintln!("warning: {warning}");
    }
    Ok(std::io::stdout().write_all(checked.report.as_bytes())?)
}

/// Does a command of the operator on the database.
fn operate(source: &Source, command: Command) -> Result<(), Failure> {
    let loaded = source.load()?;
    let credentials = service::credentials();
    let (mut prompt, mut out) = (Terminal::default(), std::io::stdout());
    let mut operator =
        Operator { config: &loaded.config, credentials: credentials.as_deref(), prompt: &mut prompt, out: &mut out };
    operator.run(command)
}

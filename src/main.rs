//! The daemon and the operator's commands: arguments → configuration → TLS and store → loop.
//!
//! The only place that prints or exits.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is the program")]

use std::process::ExitCode;

use clap::Parser as _;
use downstream::cli::{Cli, Command};
use downstream::reactor::{Exit, Reactor, Setup};
use downstream::store::{Database, ServerKey};
use downstream::{logging, service, tls};

fn main() -> ExitCode {
    let (source, command) = match Cli::parse().split() {
        Ok(split) => split,
        Err(error) => error.exit(),
    };
    logging::start();
    match run(source, command) {
        Ok(Exit::Graceful) => ExitCode::SUCCESS,
        Ok(Exit::AtOnce) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("downstream: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(source: downstream::config::Source, command: Command) -> Result<Exit, Box<dyn std::error::Error>> {
    let Command::Serve(_) = command else { return Err("not yet".into()) };
    let loaded = source.load()?;
    let config = loaded.config;
    let credentials = service::credentials();
    let files =
        tls::Files::choose(&config.certificate, &config.key, config.names_certificate(), credentials.as_deref());
    if files.to_be_generated() {
        files.generate(&config.name)?;
    }
    let tls = tls::Tls::load(&files)?;
    let key = ServerKey::load_or_create(&config.data, credentials.as_deref())?;
    let database = Database::open(&config.data, &key)?;
    let listeners = service::listeners(&config.listen)?;
    let reload = Box::new(move |running: &downstream::config::Config| {
        let reloaded = source.reload(running).map_err(|e| e.to_string())?;
        let tls = tls::Tls::load(&files).map_err(|e| e.to_string())?;
        Ok((reloaded.config, tls))
    });
    let fingerprint = tls.fingerprint;
    let service = service::Service::from_env();
    let reactor = Reactor::new(Setup { config, tls, database, key, listeners, service, reload })?;
    for address in reactor.addresses() {
        println!("listening on {address}");
    }
    println!("certificate sha256 {}", fingerprint.to_hex());
    Ok(reactor.run()?)
}

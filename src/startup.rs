//! From the command line to everything that the loop starts from, and what the start tells a person.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use crate::config::{Config, Source};
use crate::hub::settings::Registration;
use crate::logging::Escaped;
use crate::operator::{Failure, files};
use crate::ops::Sha256;
use crate::service::{self, Service};
use crate::store::{Database, ServerKey};
use crate::tls::Tls;

/// Reads configuration and certificates anew for a daemon that runs with the given one.
pub type Reload = Box<dyn FnMut(&Config) -> Result<(Config, Tls), String>>;

/// Everything that the loop starts from.
pub struct Prepared {
    /// What was configured.
    pub config: Config,
    /// What handshakes start from.
    pub tls: Tls,
    /// The opened database.
    pub database: Database,
    /// Its key.
    pub key: ServerKey,
    /// Sockets that listen already.
    pub listeners: Vec<TcpListener>,
    /// The line to systemd.
    pub service: Service,
    /// For SIGHUP.
    pub reload: Reload,
    /// What a person is told once clients may connect.
    pub welcome: Welcome,
}

/// Opens and reads everything; makes what a first start makes. Warnings go to the log.
///
/// # Errors
/// What the operator has to mend.
pub fn prepare(source: Source) -> Result<Prepared, Failure> {
    let service = Service::from_env();
    let credentials = service::credentials();
    let loaded = source.load()?;
    match &loaded.file {
        Some(file) => log::info!("configuration {}", file.display()),
        None => log::info!("no configuration file, running with defaults"),
    }
    warn(&loaded.warnings);
    let config = loaded.config;
    let descriptors = service::raise_descriptors();
    warn(service::descriptor_warning(config.limits().connections, descriptors));
    let tls = load_tls(&config, credentials.as_deref())?;
    let key = ServerKey::load_or_create(&config.data, credentials.as_deref())?;
    let database = Database::open(&config.data, &key)?;
    let first = database.users()?.is_empty();
    let listeners = service::listeners(&config.listen).map_err(Failure::because)?;
    let welcome = Welcome { fingerprint: tls.fingerprint, registration: config.settings().registration, first };
    Ok(Prepared { config, tls, database, key, listeners, service, reload: reload(source, credentials), welcome })
}

fn load_tls(config: &Config, credentials: Option<&Path>) -> Result<Tls, Failure> {
    let files = files(config, credentials);
    if files.generate(&config.name).map_err(|error| Failure::Config(vec![error.to_string()]))? {
        log::info!("made a self-signed certificate at {}", config.certificate.display());
    }
    let tls = Tls::load(&files)?;
    warn(&tls.warnings);
    Ok(tls)
}

fn warn<T: std::fmt::Display>(warnings: impl IntoIterator<Item = T>) {
    for warning in warnings {
        log::warn!("{warning}");
    }
}

/// All or nothing: problems are logged one by one, and nothing of what was read holds.
fn reload(source: Source, credentials: Option<PathBuf>) -> Reload {
    Box::new(move |running| {
        let read = || -> Result<(Config, Tls), Failure> {
            let reloaded = source.reload(running)?;
            let tls = load_tls(&reloaded.config, credentials.as_deref())?;
            warn(&reloaded.warnings);
            for key in &reloaded.restart {
                log::warn!("{key} was changed; the new value holds after a restart");
            }
            Ok((reloaded.config, tls))
        };
        read().map_err(|failure| {
            let problems = match failure {
                Failure::Config(problems) => problems,
                Failure::Failed(problem) => vec![problem],
            };
            for problem in &problems {
                log::error!("not reloaded: {problem}");
            }
            format!("{} problems in the new configuration; the old one stays", problems.len())
        })
    })
}

/// What a person at the terminal needs to know when the daemon has started.
#[derive(Debug, Clone)]
pub struct Welcome {
    fingerprint: Sha256,
    registration: Registration,
    first: bool,
}

impl Welcome {
    /// A line `listening on ADDRESS:PORT` for each address, the fingerprint of the certificate, and a line
    /// to connect with; at a first start also how to begin.
    pub fn text(&self, addresses: &[SocketAddr]) -> String {
        let mut out = String::new();
        // Writing to a string does not fail.
        for address in addresses {
            let _ = writeln!(out, "listening on {address}");
        }
        let _ = writeln!(out, "certificate SHA-256 {}", self.fingerprint.to_hex());
        if let Some(&address) = addresses.first() {
            let _ = writeln!(out, "connect with: openssl s_client -quiet -connect {}", reachable(address));
        }
        if self.first {
            let _ = writeln!(out, "{}", match self.registration {
                Registration::Open => "then type: /register NAME PASSWORD and /join #lobby; /help shows the rest",
                Registration::Invite => "then type: /register NAME PASSWORD CODE, with a code of: downstream invite",
                Registration::Closed => "there is no account yet; add one with: downstream user add NAME",
            });
        }
        out
    }

    /// The same for the log, where standard output is not read.
    pub fn log(&self, addresses: &[SocketAddr]) {
        for address in addresses {
            log::info!("listening on {address}");
        }
        log::info!("certificate SHA-256 {}", Escaped(self.fingerprint.to_hex()));
    }
}

/// An address to connect to from this machine: one that stands for all interfaces becomes loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

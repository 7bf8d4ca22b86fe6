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
    warn(&loaded.warnings);
    let config = loaded.config;
    let short = service::descriptor_warning(config.limits().connections, service::raise_descriptors());
    match &loaded.file {
        Some(file) => {
            log::info!("configuration {}", file.display());
            warn(short);
        }
        // Nobody asked for so many: then the descriptors are the limit, and running out of them is met.
        None => log::info!("no configuration file, running with defaults"),
    }
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

/// All or nothing. Problems are logged one by one: a line each is easier to read than all in one.
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
            "see the problems above".to_owned()
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
            let _ = writeln!(
                out,
                "{}",
                match self.registration {
                    Registration::Open => "then type: /register NAME PASSWORD and /join #lobby; /help shows the rest",
                    Registration::Invite =>
                        "then type: /register NAME PASSWORD CODE, with a code of: downstream invite",
                    Registration::Closed => "there is no account yet; add one with: downstream user add NAME",
                }
            );
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

#[cfg(test)]
mod tests {
    use super::*;

    fn welcome(registration: Registration, first: bool) -> Welcome {
        Welcome { fingerprint: Sha256([0xab; 32]), registration, first }
    }

    #[test]
    fn the_start_says_where_to_connect_and_how_to_begin() {
        let addresses = ["0.0.0.0:7667", "[::]:7667", "192.0.2.1:1"].map(|text| text.parse().expect("an address"));
        assert_eq!(
            welcome(Registration::Open, true).text(&addresses),
            format!(
                "listening on 0.0.0.0:7667\nlistening on [::]:7667\nlistening on 192.0.2.1:1\n\
                 certificate SHA-256 {}\n\
                 connect with: openssl s_client -quiet -connect 127.0.0.1:7667\n\
                 then type: /register NAME PASSWORD and /join #lobby; /help shows the rest\n",
                "ab".repeat(32)
            )
        );
        let last = |registration, first, from: usize| {
            let text = welcome(registration, first).text(&addresses[from..]);
            text.lines().last().expect("a line").to_owned()
        };
        assert_eq!(
            last(Registration::Invite, true, 0),
            "then type: /register NAME PASSWORD CODE, with a code of: downstream invite"
        );
        assert_eq!(
            last(Registration::Closed, true, 0),
            "there is no account yet; add one with: downstream user add NAME"
        );
        assert_eq!(last(Registration::Open, false, 1), "connect with: openssl s_client -quiet -connect [::1]:7667");
        assert_eq!(last(Registration::Open, false, 2), "connect with: openssl s_client -quiet -connect 192.0.2.1:1");
    }

    #[test]
    fn a_reload_is_whole_or_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        let pair = |cn: &str| {
            let key = rcgen::KeyPair::generate().expect("a key");
            let cert = rcgen::CertificateParams::new(vec![cn.to_owned()]).expect("names").self_signed(&key);
            (cert.expect("a certificate").pem(), key.serialize_pem())
        };
        let put = |name: &str, text: &str| std::fs::write(at(name), text).expect("a file");
        let config = |name: &str| {
            let tls = format!("cert = \"{}\"\nkey = \"{}\"", at("c.pem").display(), at("k.pem").display());
            put("d.toml", &format!("name = \"{name}\"\ndata = \"{}\"\n[tls]\n{tls}\n", at("data").display()));
        };
        let source = Source { file: Some(at("d.toml")), ..Source::default() };
        let (cert, key) = pair("one");
        put("c.pem", &cert);
        put("k.pem", &key);
        config("one");
        let running = source.load().expect("a usable file").config;
        let first = load_tls(&running, None).expect("a usable pair").fingerprint;
        let mut reload = reload(source, None);

        let (cert, key) = pair("two");
        config("two");
        put("c.pem", &cert); // the moment in the middle of a renewal
        assert!(reload(&running).is_err());
        put("k.pem", &key);
        let (config, tls) = reload(&running).expect("both are good");
        assert_eq!((config.name.as_str(), tls.fingerprint != first), ("two", true));
        put("d.toml", "nme = 3\n");
        assert_eq!(reload(&running).err().as_deref(), Some("see the problems above"));
    }
}

//! What the operator wrote (TOML) → what it means.
//!
//! One table (`config/keys.rs`) holds every key with its kind, default, bounds and reason. Reading reports every
//! problem at once, each with its line and what would be allowed; `config/example.rs` prints the table for
//! people. A key of zero is switched off where the table says so.

mod example;
mod keys;
mod read;
mod size;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use example::{markdown as keys_as_markdown, toml as example_toml};

use crate::hub::settings::{Registration, Settings};
use crate::ops::FileLimits;
use crate::ops::HashParams;

/// The file that is read where none is named and it exists.
pub const DEFAULT_FILE: &str = "./downstream.toml";
/// Largest configuration file, in bytes: a hundred times the annotated example; a device or a database
/// named by mistake is not read into memory.
const FILE_MAX: u64 = 1_048_576;

/// Everything that the operator decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Addresses to listen on; at least one.
    pub listen: Vec<SocketAddr>,
    /// Directory of the database and its key.
    pub data: PathBuf,
    /// The server's name in the greeting; no spaces.
    pub name: String,
    /// Certificate chain, PEM.
    pub certificate: PathBuf,
    /// Private key, PEM.
    pub key: PathBuf,
    registration: Registration,
    sessions_per_account: u64,
    argon2_memory_kib: u64,
    argon2_iterations: u64,
    argon2_parallelism: u64,
    messages_per_second: u64,
    message_burst: u64,
    logins_per_minute: u64,
    registrations_per_hour: u64,
    connections: u64,
    connections_per_address: u64,
    handshake_seconds: u64,
    login_seconds: u64,
    line_seconds: u64,
    outbound_bytes: u64,
    stalled_seconds: u64,
    idle_seconds: u64,
    retention_days: u64,
    max_file: u64,
    file_quota: u64,
    file_total: u64,
    partial_hours: u64,
    file_days: u64,
}

/// What the loop itself enforces, below the core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Open connections in all; `usize::MAX` where switched off.
    pub connections: usize,
    /// Open connections of one address (IPv6: one /64); `usize::MAX` where switched off.
    pub connections_per_address: usize,
    /// Time for the TLS handshake.
    pub handshake: Option<Duration>,
    /// Time to finish a line once begun.
    pub line: Option<Duration>,
    /// Time without a byte taken by a session whose queue is full.
    pub stalled: Option<Duration>,
    /// Bytes queued for one session; at least 65536.
    pub outbound_bytes: usize,
}

impl Default for Config {
    /// The defaults of the table.
    fn default() -> Config {
        let mut config = Config {
            listen: Vec::new(),
            data: PathBuf::new(),
            name: String::new(),
            certificate: PathBuf::new(),
            key: PathBuf::new(),
            registration: Registration::Closed,
            sessions_per_account: 0,
            argon2_memory_kib: 0,
            argon2_iterations: 0,
            argon2_parallelism: 0,
            messages_per_second: 0,
            message_burst: 0,
            logins_per_minute: 0,
            registrations_per_hour: 0,
            connections: 0,
            connections_per_address: 0,
            handshake_seconds: 0,
            login_seconds: 0,
            line_seconds: 0,
            outbound_bytes: 0,
            stalled_seconds: 0,
            idle_seconds: 0,
            retention_days: 0,
            max_file: 0,
            file_quota: 0,
            file_total: 0,
            partial_hours: 0,
            file_days: 0,
        };
        for key in keys::KEYS {
            key.kind.apply_default(&mut config);
        }
        config
    }
}

/// Numbers are within the bounds of the table, which fit every type they are turned into; a value that
/// did not would become the type's largest.
fn fit<T: TryFrom<u64>>(number: u64, largest: T) -> T {
    T::try_from(number).unwrap_or(largest)
}

/// What is switched off by zero.
fn unless_zero<T: TryFrom<u64>>(number: u64) -> Option<T> {
    if number == 0 { None } else { T::try_from(number).ok() }
}

fn deadline(seconds: u64) -> Option<Duration> {
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

impl Config {
    /// What the core must know.
    pub fn settings(&self) -> Settings {
        Settings {
            server_name: self.name.clone(),
            registration: self.registration,
            sessions_per_account: fit(self.sessions_per_account, usize::MAX),
            messages_per_second: fit(self.messages_per_second, u32::MAX),
            message_burst: fit(self.message_burst, u32::MAX),
            logins_per_minute: fit(self.logins_per_minute, u32::MAX),
            registrations_per_hour: fit(self.registrations_per_hour, u32::MAX),
            login_timeout: deadline(self.login_seconds),
            idle_timeout: deadline(self.idle_seconds),
            outbound_bytes: fit(self.outbound_bytes, usize::MAX),
            retention_days: unless_zero(self.retention_days),
            max_file: self.max_file,
            file_limits: FileLimits { quota: unless_zero(self.file_quota), total: unless_zero(self.file_total) },
            partial_hours: unless_zero(self.partial_hours),
            file_days: unless_zero(self.file_days),
        }
    }

    /// What the loop must know.
    pub fn limits(&self) -> Limits {
        let count = |number: u64| if number == 0 { usize::MAX } else { fit(number, usize::MAX) };
        Limits {
            connections: count(self.connections),
            connections_per_address: count(self.connections_per_address),
            handshake: deadline(self.handshake_seconds),
            line: deadline(self.line_seconds),
            stalled: deadline(self.stalled_seconds),
            outbound_bytes: fit(self.outbound_bytes, usize::MAX),
        }
    }

    /// Whether certificate and key are at other than the default paths: then they must be there, and none
    /// are made.
    pub fn names_certificate(&self) -> bool {
        (self.certificate.as_path(), self.key.as_path())
            != (Path::new(keys::DEFAULT_CERT), Path::new(keys::DEFAULT_KEY))
    }

    /// What the password hasher must know.
    pub fn argon2(&self) -> HashParams {
        HashParams {
            memory_kib: fit(self.argon2_memory_kib, u32::MAX),
            iterations: fit(self.argon2_iterations, u32::MAX),
            parallelism: fit(self.argon2_parallelism, u32::MAX),
        }
    }
}

/// One thing that is wrong with a configuration, or that its operator should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The line, from 1; `None` where the file as a whole is meant.
    line: Option<usize>,
    /// The key, or empty where no key is meant.
    key: String,
    /// What is wrong, and what would be allowed.
    what: String,
}

impl Problem {
    fn new(line: usize, key: &str, what: String) -> Problem {
        Problem { line: Some(line), key: key.to_owned(), what }
    }

    /// The whole message: `file:line: key: what is wrong; allowed …`, control characters escaped.
    fn text(&self, file: &Path) -> String {
        let mut out = file.display().to_string();
        if let Some(line) = self.line {
            out.push_str(&format!(":{line}"));
        }
        if !self.key.is_empty() {
            out.push_str(&format!(": {}", self.key));
        }
        out.push_str(&format!(": {}", self.what));
        crate::logging::escaped(&out)
    }
}

/// A configuration that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// Every problem it has, each a line of its own.
    pub problems: Vec<String>,
    /// What could be read, with defaults for the rest: `check` goes on with it to the certificates.
    pub understood: Box<Config>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problems.join("\n"))
    }
}

/// A usable configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// What the operator should know, each with file and line.
    pub warnings: Vec<String>,
    /// The file that was read; `None` where the defaults stand alone.
    pub file: Option<PathBuf>,
}

/// A configuration that was read again for a running daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reloaded {
    /// The values, with those that need a restart as they were.
    pub config: Config,
    /// What the operator should know.
    pub warnings: Vec<String>,
    /// Keys whose new value waits for a restart.
    pub restart: Vec<&'static str>,
}

/// Where the configuration comes from: the file, and what the command line says over it. Kept by the
/// daemon so that a reload reads the same.
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// A file named by `--config`; `None` reads [`DEFAULT_FILE`] if it is there.
    pub file: Option<PathBuf>,
    /// Addresses of `--listen`; they replace `listen`.
    pub listen: Vec<SocketAddr>,
    /// Directory of `--data`; it replaces `data`.
    pub data: Option<PathBuf>,
}

impl Source {
    /// Reads the configuration.
    ///
    /// # Errors
    /// A named file that cannot be read, and every problem in it.
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        let path = self.file.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_FILE));
        let mut loaded = match read_text(&path) {
            Ok(text) => parse(&path, &text)?,
            Err(Unreadable::Missing) if self.file.is_none() => {
                Loaded { config: Config::default(), warnings: Vec::new(), file: None }
            }
            Err(fault) => {
                return Err(ConfigError { problems: vec![fault.text(&path)], understood: Box::default() });
            }
        };
        if !self.listen.is_empty() {
            loaded.config.listen.clone_from(&self.listen);
        }
        if let Some(data) = &self.data {
            loaded.config.data.clone_from(data);
        }
        Ok(loaded)
    }

    /// Reads the configuration again for a daemon that runs with `running`.
    ///
    /// # Errors
    /// As [`Source::load`]; the daemon then goes on with what it has.
    pub fn reload(&self, running: &Config) -> Result<Reloaded, ConfigError> {
        let Loaded { mut config, warnings, .. } = self.load()?;
        let mut restart = Vec::new();
        for key in keys::KEYS.iter().filter(|key| !key.reload) {
            if key.kind.keep(&mut config, running) {
                restart.push(key.path);
            }
        }
        Ok(Reloaded { config, warnings, restart })
    }
}

/// Reads a configuration text that stands in `file`.
///
/// # Errors
/// Every problem in it.
pub fn parse(file: &Path, text: &str) -> Result<Loaded, ConfigError> {
    let read = read::read(text);
    let texts = |problems: &[Problem]| problems.iter().map(|problem| problem.text(file)).collect::<Vec<_>>();
    if read.errors.is_empty() {
        Ok(Loaded { config: read.config, warnings: texts(&read.warnings), file: Some(file.to_owned()) })
    } else {
        Err(ConfigError { problems: texts(&read.errors), understood: Box::new(read.config) })
    }
}

/// Why a file gives no text.
enum Unreadable {
    Missing,
    Io(std::io::Error),
    TooLarge,
    /// With the line of the first wrong byte.
    NotUtf8(usize),
}

impl Unreadable {
    fn text(&self, path: &Path) -> String {
        let file = path.display();
        crate::logging::escaped(&match self {
            Unreadable::Missing => {
                format!(
                    "{file}: no such file; leave --config out to run with defaults, or begin with downstream.example.toml"
                )
            }
            Unreadable::Io(error) => format!("{file}: cannot be read: {error}"),
            Unreadable::TooLarge => format!("{file}: is larger than {FILE_MAX} bytes; is it the right file?"),
            Unreadable::NotUtf8(line) => format!("{file}:{line}: not UTF-8 text"),
        })
    }
}

fn read_text(path: &Path) -> Result<String, Unreadable> {
    let file = std::fs::File::open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Unreadable::Missing,
        _ => Unreadable::Io(error),
    })?;
    let mut bytes = Vec::new();
    file.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(Unreadable::Io)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(Unreadable::TooLarge);
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        Unreadable::NotUtf8(good.iter().filter(|&&byte| byte == b'\n').count() + 1)
    })
}

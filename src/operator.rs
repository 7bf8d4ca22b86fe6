//! What the operator does on the machine: accounts, invitations, backups, the check of a configuration.
//!
//! Nothing here prints or exits: text goes to a writer that is passed in, failures are returned with the
//! exit code that they stand for.

use std::fmt;
use std::io::{self, Read, Write};
use std::path::Path;

use base64ct::{Base64UrlUnpadded, Encoding as _};
use zeroize::Zeroizing;

use crate::cli::{Command, PasswordFrom, User};
use crate::commands::weakness;
use crate::config::{Config, ConfigError, Source};
use crate::hasher;
use crate::logging::{Escaped, escaped};
use crate::ops::{AccountRow, Password, Sha256};
use crate::protocol::{Timestamp, UserName};
use crate::service;
use crate::store::{Database, ServerKey};
use crate::tls::{self, Files, Tls};

/// Most bytes that are read of a password file: a longer one is a mistake, and not a password.
const PASSWORD_FILE_MAX: u64 = 4096;
/// Random bytes of an invitation code: nobody guesses 128 bits.
const INVITE_BYTES: usize = 16;

/// Why a command was not done, and the exit code for it.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// The configuration or the usage is wrong: exit code 2. A line for each problem.
    Config(Vec<String>),
    /// It did not work: exit code 1.
    Failed(String),
}

impl Failure {
    /// The exit code: 2 for usage and configuration, 1 for all else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::Config(_) => 2,
            Failure::Failed(_) => 1,
        }
    }

    /// A failure with this text.
    pub fn because(error: impl fmt::Display) -> Failure {
        Failure::Failed(error.to_string())
    }
}

impl fmt::Display for Failure {
    /// The text for standard error, control characters escaped. Problems of a file begin with its name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Config(problems) => f.write_str(&lines(problems)),
            Failure::Failed(text) => write!(f, "downstream: {}", escaped(text)),
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        Failure::Config(error.problems)
    }
}

impl From<tls::TlsErrors> for Failure {
    fn from(errors: tls::TlsErrors) -> Failure {
        Failure::Config(errors.0.iter().map(ToString::to_string).collect())
    }
}

impl From<crate::store::StoreError> for Failure {
    fn from(error: crate::store::StoreError) -> Failure {
        Failure::because(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::because(error)
    }
}

fn lines(texts: &[String]) -> String {
    texts.iter().map(|text| escaped(text)).collect::<Vec<_>>().join("\n")
}

/// How a command asks the person in front of it.
pub trait Prompt {
    /// Asks for a password without echo.
    ///
    /// # Errors
    /// There is no terminal.
    fn password(&mut self, question: &str) -> io::Result<Zeroizing<String>>;

    /// Asks a question; its answer is a line without its ending.
    ///
    /// # Errors
    /// There is no terminal.
    fn line(&mut self, question: &str) -> io::Result<String>;

    /// Standard input, for `--password-file -`.
    fn input(&mut self) -> &mut dyn Read;
}

/// The terminal of the process and its standard input.
pub struct Terminal(io::Stdin);

impl Default for Terminal {
    fn default() -> Terminal {
        Terminal(io::stdin())
    }
}

impl Prompt for Terminal {
    fn password(&mut self, question: &str) -> io::Result<Zeroizing<String>> {
        rpassword::prompt_password(question).map(Zeroizing::new)
    }

    fn line(&mut self, question: &str) -> io::Result<String> {
        // Not standard input: what is piped in there is not an answer to a question.
        let mut terminal = std::fs::OpenOptions::new().read(true).write(true).open("/dev/tty")?;
        terminal.write_all(question.as_bytes())?;
        let mut answer = String::new();
        io::BufRead::read_line(&mut io::BufReader::new(terminal.take(PASSWORD_FILE_MAX)), &mut answer)?;
        Ok(answer.trim_end_matches(['\n', '\r']).to_owned())
    }

    fn input(&mut self) -> &mut dyn Read {
        &mut self.0
    }
}

// ---- check -------------------------------------------------------------------------------------

/// What `downstream check` found.
#[derive(Debug, PartialEq, Eq)]
pub struct Checked {
    /// What is as it should be, for standard output.
    pub report: String,
    /// What the operator should know, for standard error.
    pub warnings: Vec<String>,
}

/// Reads configuration and certificates.
///
/// # Errors
/// [`Failure::Config`] with every problem of both.
pub fn check(source: &Source, credentials: Option<&Path>, descriptors: u64) -> Result<Checked, Failure> {
    let (config, mut warnings, from, mut problems) = match source.load() {
        Ok(loaded) => {
            let from = loaded.file.map_or("defaults".to_owned(), |file| file.display().to_string());
            (loaded.config, loaded.warnings, from, Vec::new())
        }
        Err(error) => (*error.understood, Vec::new(), String::new(), error.problems),
    };
    let files = files(&config, credentials);
    let certificate = if files.to_be_generated() {
        "will be made at the first start".to_owned()
    } else {
        match Tls::load(&files) {
            Ok(tls) => {
                warnings.extend(tls.warnings);
                format!("SHA-256 {}", tls.fingerprint.to_hex())
            }
            Err(errors) => {
                problems.extend(errors.0.iter().map(ToString::to_string));
                String::new()
            }
        }
    };
    warnings.extend(service::descriptor_warning(config.limits().connections, descriptors));
    if !problems.is_empty() {
        return Err(Failure::Config(problems));
    }
    let listen: Vec<String> = config.listen.iter().map(ToString::to_string).collect();
    let report = format!(
        "configuration {}\nlisten {}\ndata {}\ncertificate {certificate}\n",
        escaped(&from),
        listen.join(" "),
        Escaped(config.data.display()),
    );
    Ok(Checked { report, warnings: warnings.iter().map(|warning| escaped(warning)).collect() })
}

/// Where the certificate of this configuration is.
pub fn files(config: &Config, credentials: Option<&Path>) -> Files {
    Files::choose(&config.certificate, &config.key, config.names_certificate(), credentials)
}

// ---- the database ------------------------------------------------------------------------------

/// A command on the database of a data directory.
pub struct Operator<'a> {
    /// What to open and how to hash.
    pub config: &'a Config,
    /// Where systemd put its credentials.
    pub credentials: Option<&'a Path>,
    /// Whom to ask.
    pub prompt: &'a mut dyn Prompt,
    /// Where results go.
    pub out: &'a mut dyn Write,
}

impl Operator<'_> {
    /// Does a command that works on the database. The others ([`Command::Serve`] and [`Command::Check`])
    /// are not for here and do nothing.
    ///
    /// # Errors
    /// See [`Failure`].
    pub fn run(&mut self, command: Command) -> Result<(), Failure> {
        match command {
            Command::Serve(_) | Command::Check => Ok(()),
            Command::User(user) => self.user(user),
            Command::Invite => self.invite(),
            Command::Backup { file } => {
                self.open(Fresh::Refused)?.database.backup(&file)?;
                let file = Escaped(file.display());
                writeln!(
                    self.out,
                    "wrote {file}; keep server.key too, in another place: the copy does not open without it"
                )?;
                writeln!(self.out, "files that were sent are not in it: now copy the directory files, too")?;
                Ok(())
            }
        }
    }

    fn user(&mut self, user: User) -> Result<(), Failure> {
        match user {
            User::Add { name, admin, password } => {
                let mut opened = self.open(Fresh::Made)?;
                if opened.row(&name)?.is_some() {
                    return Err(Failure::Failed(format!("there is a user {name} already")));
                }
                let password = self.password(&name, &password)?;
                let verifier =
                    hasher::create(&password, self.config.argon2(), &opened.secret).map_err(Failure::because)?;
                opened.database.add_user(&name, &verifier, admin, now())?;
                writeln!(self.out, "added {name}{}", if admin { ", an administrator" } else { "" })?;
            }
            User::Passwd { name, password } => {
                let mut opened = self.open(Fresh::Refused)?;
                opened.existing(&name)?;
                let password = self.password(&name, &password)?;
                let verifier =
                    hasher::create(&password, self.config.argon2(), &opened.secret).map_err(Failure::because)?;
                opened.database.set_password(&name, &verifier, now())?;
                writeln!(self.out, "{name} has a new password; sessions and tokens have ended")?;
            }
            User::List => {
                for row in self.open(Fresh::Refused)?.database.users()? {
                    writeln!(self.out, "{}", row_text(&row))?;
                }
            }
            User::Disable { name } => {
                self.open(Fresh::Refused)?.database.set_disabled(&name, true, now())?;
                writeln!(self.out, "{name} cannot log in any more; sessions have ended")?;
            }
            User::Enable { name } => {
                self.open(Fresh::Refused)?.database.set_disabled(&name, false, now())?;
                writeln!(self.out, "{name} can log in again")?;
            }
            User::Delete { name, yes } => {
                let mut opened = self.open(Fresh::Refused)?;
                opened.existing(&name)?;
                if !yes {
                    let question = format!("Erase {name} for ever? Type the name to go on: ");
                    let answer = self.prompt.line(&question).map_err(|error| no_terminal(&error, "--yes"))?;
                    if answer != name.as_str() {
                        return Err(Failure::Failed(format!("{name} was not erased")));
                    }
                }
                opened.database.delete_user(&name, now())?;
                writeln!(self.out, "erased {name}; the name stays reserved")?;
            }
            User::Admin { name, revoke } => {
                self.open(Fresh::Refused)?.database.set_admin(&name, !revoke, now())?;
                writeln!(self.out, "{name} {} use /admin", if revoke { "can no longer" } else { "may now" })?;
            }
        }
        Ok(())
    }

    fn invite(&mut self) -> Result<(), Failure> {
        let mut opened = self.open(Fresh::Made)?;
        let mut bytes = Zeroizing::new([0; INVITE_BYTES]);
        getrandom::fill(bytes.as_mut_slice()).map_err(Failure::because)?;
        let code = Zeroizing::new(Base64UrlUnpadded::encode_string(bytes.as_slice()));
        opened.database.add_invite(&Sha256::of(code.as_bytes()), now())?;
        // Alone on a line, for scripts.
        writeln!(self.out, "{}", code.as_str())?;
        Ok(())
    }

    fn open(&self, fresh: Fresh) -> Result<Opened, Failure> {
        let data = &self.config.data;
        if fresh == Fresh::Refused && !data.exists() {
            let data = data.display();
            return Err(Failure::Failed(format!(
                "{data} does not exist; name the data directory with --data or --config"
            )));
        }
        let key = ServerKey::load_or_create(data, self.credentials)?;
        let secret = key.password_secret();
        Ok(Opened { database: Database::open(data, &key)?, secret })
    }

    /// Reads a password, or asks for it twice.
    fn password(&mut self, name: &UserName, from: &PasswordFrom) -> Result<Password, Failure> {
        let password = match &from.file {
            Some(path) => self.password_file(path)?,
            None => {
                let asked = |error| no_terminal(&error, "--password-file");
                let first = self.prompt.password(&format!("Password for {name}: ")).map_err(asked)?;
                let again = self.prompt.password("Again: ").map_err(asked)?;
                if first != again {
                    return Err(Failure::Failed("the two passwords differ; nothing was changed".to_owned()));
                }
                Password(first)
            }
        };
        match weakness(name, &password) {
            Some(why) => Err(Failure::Failed(format!("{why}; nothing was changed"))),
            None => Ok(password),
        }
    }

    fn password_file(&mut self, path: &Path) -> Result<Password, Failure> {
        let shown = if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() };
        let failed = |what: &dyn fmt::Display| Failure::Failed(format!("{shown}: {what}"));
        let mut bytes = Zeroizing::new(Vec::with_capacity(PASSWORD_FILE_MAX as usize + 1));
        let read = if path == Path::new("-") {
            self.prompt.input().take(PASSWORD_FILE_MAX + 1).read_to_end(&mut bytes)
        } else {
            std::fs::File::open(path).and_then(|file| file.take(PASSWORD_FILE_MAX + 1).read_to_end(&mut bytes))
        };
        read.map_err(|error| failed(&error))?;
        if bytes.len() as u64 > PASSWORD_FILE_MAX {
            return Err(failed(&format_args!("is larger than {PASSWORD_FILE_MAX} bytes; is it the right file?")));
        }
        let text = std::str::from_utf8(&bytes).map_err(|_| failed(&"not UTF-8 text"))?;
        let line = text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
        if line.contains(['\n', '\r', '\0']) {
            return Err(failed(&"has a line break or a NUL in it; a password is one line"));
        }
        Ok(Password::new(line))
    }
}

/// Whether a command may be the first on a data directory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fresh {
    /// Then the directory is made, as a first start would.
    Made,
    /// Then the directory is likely a wrong one.
    Refused,
}

struct Opened {
    database: Database,
    secret: hasher::Secret,
}

impl Opened {
    fn row(&self, name: &UserName) -> Result<Option<AccountRow>, Failure> {
        Ok(self.database.users()?.into_iter().find(|row| row.person.name == *name))
    }

    fn existing(&self, name: &UserName) -> Result<(), Failure> {
        self.row(name)?.map(drop).ok_or_else(|| Failure::Failed(format!("there is no user {name}")))
    }
}

fn no_terminal(error: &io::Error, instead: &str) -> Failure {
    Failure::Failed(format!("there is no terminal to ask on ({error}); use {instead}"))
}

/// The clock, which the commands read themselves: no loop does it for them.
fn now() -> Timestamp {
    let ms = jiff::Timestamp::now().as_millisecond();
    Timestamp::from_millis(u64::try_from(ms).unwrap_or(0))
}

/// A line of `user list`: name, state, and when it was made and last there.
fn row_text(row: &AccountRow) -> String {
    let mut text = row.person.name.to_string();
    for (holds, word) in [(row.admin, "admin"), (row.disabled, "disabled"), (row.banned, "banned")] {
        if holds {
            text.push(' ');
            text.push_str(word);
        }
    }
    format!("{text} created={} seen={}", row.created, row.last_seen)
}

#[cfg(test)]
mod tests;

//! The command line of `downstream`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::Source;
use crate::protocol::UserName;

/// A self-hosted chat server with a text protocol over TLS.
///
/// Without a command it serves: on 127.0.0.1:7667, with its data in ./data and a certificate made in
/// ./certs at the first start.
#[derive(Debug, Parser)]
#[command(
    name = "downstream",
    version,
    after_help = "The log goes to standard error; RUST_LOG=debug shows more of it."
)]
pub struct Cli {
    /// Configuration file [default: ./downstream.toml if it is there]
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// Data directory, instead of the configuration's
    #[arg(long, value_name = "DIR", global = true)]
    pub data: Option<PathBuf>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "a text here would become the help of the command")]
    pub listen: Listen,
    #[command(subcommand)]
    #[expect(missing_docs, reason = "as above")]
    pub command: Option<Command>,
}

/// Options of `serve`, which may also stand without it.
#[derive(Debug, Default, Args)]
pub struct Listen {
    /// Address to listen on, instead of the configuration's; may be given several times, port 0 takes a free one
    #[arg(long = "listen", value_name = "ADDRESS:PORT")]
    pub addresses: Vec<SocketAddr>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve (what happens without a command)
    Serve(Listen),
    /// Read configuration and certificates and report every problem at once
    Check,
    /// Manage accounts, also while the server runs
    #[command(subcommand)]
    User(User),
    /// Print an invitation code: good for one registration within 7 days
    Invite,
    /// Copy the database to FILE, also while the server runs, and verify the copy
    ///
    /// The files that people sent are not in it: copy the directory `files` of the data directory after it.
    Backup {
        /// Where the copy goes; must not exist
        file: PathBuf,
    },
}

/// What to do with an account.
#[derive(Debug, Subcommand)]
pub enum User {
    /// Add an account
    Add {
        /// Its name
        #[arg(value_parser = name)]
        name: UserName,
        /// It may use /admin
        #[arg(long)]
        admin: bool,
        #[command(flatten)]
        #[expect(missing_docs, reason = "a text here would become the help of the command")]
        password: PasswordFrom,
    },
    /// Give an account a new password; ends its sessions and tokens
    Passwd {
        /// Its name
        #[arg(value_parser = name)]
        name: UserName,
        #[command(flatten)]
        #[expect(missing_docs, reason = "as above")]
        password: PasswordFrom,
    },
    /// List all accounts
    List,
    /// Keep an account from logging in; ends its sessions
    Disable {
        /// Its name
        #[arg(value_parser = name)]
        name: UserName,
    },
    /// Let a disabled account log in again
    Enable {
        /// Its name
        #[arg(value_parser = name)]
        name: UserName,
    },
    /// Erase an account; its name stays reserved for ever
    Delete {
        /// Its name
        #[arg(value_parser = name)]
        name: UserName,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Let an account use /admin
    Admin {
        /// Its name
        #[arg(value_parser = name)]
        name: UserName,
        /// No longer
        #[arg(long)]
        revoke: bool,
    },
}

/// Where a password comes from: never from an argument, which every user of the machine can read.
#[derive(Debug, Default, Args)]
pub struct PasswordFrom {
    /// Read the password from FILE (- is standard input) instead of asking for it
    #[arg(long = "password-file", value_name = "FILE")]
    pub file: Option<PathBuf>,
}

fn name(text: &str) -> Result<UserName, crate::protocol::NameInvalid> {
    UserName::parse(text)
}

impl Cli {
    /// Splits the arguments into where the configuration comes from and what to do.
    ///
    /// # Errors
    /// `--listen` with a command that does not listen; a usage error.
    pub fn split(self) -> Result<(Source, Command), clap::Error> {
        let mut listen = self.listen.addresses;
        let command = match self.command {
            None => Command::Serve(Listen::default()),
            Some(Command::Serve(more)) => {
                listen.extend(more.addresses);
                Command::Serve(Listen::default())
            }
            Some(_) if !listen.is_empty() => {
                use clap::CommandFactory as _;
                let text = "--listen goes with serve only";
                return Err(Cli::command().error(clap::error::ErrorKind::ArgumentConflict, text));
            }
            Some(other) => other,
        };
        Ok((Source { file: self.config, data: self.data, listen }, command))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn parse(line: &str) -> Result<(Source, Command), clap::Error> {
        Cli::try_parse_from(std::iter::once("downstream").chain(line.split_whitespace())).and_then(Cli::split)
    }

    fn refused(line: &str) -> String {
        let error = parse(line).expect_err("a usage error");
        assert_eq!(error.exit_code(), 2, "{line}");
        error.to_string()
    }

    #[test]
    fn clap_finds_no_fault_in_the_definitions() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn serving_is_what_happens_without_a_command() {
        for line in ["", "serve"] {
            let (source, command) = parse(line).expect("a command");
            assert!(matches!(command, Command::Serve(_)), "{line}");
            assert_eq!((source.file, source.data, source.listen.len()), (None, None, 0));
        }
        for line in [
            "--listen 127.0.0.1:0 --listen [::1]:5",
            "serve --listen 127.0.0.1:0 --listen [::1]:5",
            "--listen 127.0.0.1:0 serve --listen [::1]:5",
        ] {
            let (source, _) = parse(line).expect("a command");
            let listen: Vec<String> = source.listen.iter().map(ToString::to_string).collect();
            assert_eq!(listen, ["127.0.0.1:0", "[::1]:5"], "{line}");
        }
    }

    #[test]
    fn configuration_and_data_may_stand_before_or_after_a_command() {
        for line in [
            "--config c --data d serve",
            "serve --config c --data d",
            "--config c user --data d list",
            "user list --config c --data d",
            "--data d invite --config c",
            "backup --data d file --config c",
            "check --config c --data d",
        ] {
            let (source, _) = parse(line).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(source.file.as_deref(), Some(Path::new("c")), "{line}");
            assert_eq!(source.data.as_deref(), Some(Path::new("d")), "{line}");
        }
    }

    #[test]
    fn names_are_checked_and_folded_here() {
        let Ok((_, Command::User(User::Add { name, admin, password }))) =
            parse("user add Ann --admin --password-file -")
        else {
            panic!("not read");
        };
        assert_eq!((name.as_str(), admin, password.file.as_deref()), ("ann", true, Some(Path::new("-"))));
        assert!(refused("user add #room").contains("a name is 1 to 32 of a-z 0-9 . _ -, first a letter or digit"));
    }

    #[test]
    fn usage_errors_say_what_is_wrong() {
        assert!(refused("user list --listen 127.0.0.1:0").contains("unexpected argument '--listen'"));
        assert!(refused("--listen 127.0.0.1:0 check").contains("--listen goes with serve only"));
        assert!(refused("--listen localhost:5").contains("invalid socket address"));
        assert!(refused("user add ann secret").contains("unexpected argument 'secret'"));
        assert!(refused("user").contains("Usage: downstream user"));
    }

    #[test]
    fn help_and_version_are_no_errors() {
        for line in ["--help", "--version", "user --help"] {
            assert_eq!(parse(line).expect_err("a text").exit_code(), 0);
        }
    }
}

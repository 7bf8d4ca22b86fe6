//! The command line of `dsc`: one table of definitions, from which parsing, help, completions, the manual
//! page and the table in `docs/dsc.md` follow.
//!
//! Names are checked and folded here, so that what a command gets is well-formed.

mod commands;
mod values;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser};
use downstream::protocol::UserName;

use crate::net::Endpoint;
use crate::net::trust::Fingerprint;

pub use commands::*;
pub use values::{ColorChoice, MessageRef, joined};

/// Chat on a DownStream server, end to end encrypted
///
/// dsc keeps the keys of one account in its home directory and talks to one server. `dsc register` or `dsc
/// login` once, and no other command needs an option.
#[derive(Debug, Parser)]
#[command(
    name = "dsc",
    version,
    after_help = "\
Examples:
  dsc register --server chat.example.org --user alice
  dsc send bob 'hello, bob'
  dsc tail

Write a room's name in quotes: for the shell, a # begins a comment.
Exit codes: 0 done, 1 failed, 2 usage, 3 no session yet, 4 identity changed, 5 network, 6 refused by the server."
)]
pub struct Cli {
    #[command(flatten)]
    pub options: Options,
    #[command(subcommand)]
    pub command: Command,
}

/// What may stand before and after every command.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Global options")]
pub struct Options {
    /// The server; port 7667 unless it is given. Kept by register and login
    #[arg(long, value_name = "HOST[:PORT]", value_parser = Endpoint::parse, global = true)]
    pub server: Option<Endpoint>,
    /// The account's name. Kept by register and login
    #[arg(long = "user", id = "account", value_name = "NAME", value_parser = values::user, global = true)]
    pub account: Option<UserName>,
    /// Where keys, history and settings are [default: $DSC_HOME, else dsc in the XDG data directory]
    #[arg(long, value_name = "DIR", global = true)]
    pub home: Option<PathBuf>,
    /// Print one JSON object a line; `dsc schema` describes them
    #[arg(long, global = true)]
    pub json: bool,
    /// Print only what was asked for: no notices, no confirmations
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Colours in what is printed [default: auto]
    #[arg(long, value_name = "WHEN", value_enum, global = true)]
    pub color: Option<ColorChoice>,
    /// Believe the authorities in this PEM file, in place of the system's, of a server that is new here
    #[arg(long, value_name = "FILE", global = true)]
    pub ca: Option<PathBuf>,
    /// Believe only the server certificate with this fingerprint, from now on
    #[arg(long, value_name = "sha256:HEX", value_parser = values::pin, global = true)]
    pub pin: Option<Fingerprint>,
    /// Read the account password from the first line of FILE (- is standard input) instead of asking
    #[arg(long, value_name = "FILE", global = true)]
    pub password_file: Option<PathBuf>,
    /// Read the passphrase of the key store from the first line of FILE (- is standard input)
    #[arg(long, value_name = "FILE", global = true)]
    pub passphrase_file: Option<PathBuf>,
    /// Read the passphrase of the key store from the first line of this open file descriptor
    #[arg(long, value_name = "N", conflicts_with = "passphrase_file", global = true)]
    pub pass_fd: Option<u32>,
    /// Answer every question with yes
    #[arg(short, long, global = true)]
    pub yes: bool,
}

/// The commands as `dsc --help` lists them: headings, and the names below each.
pub const GROUPS: [(&str, &[&str]); 8] = [
    ("Account", &["register", "login", "logout", "passwd", "whoami"]),
    ("Messages", &["send", "fetch", "tail", "unread", "search", "react", "edit", "delete", "resend"]),
    ("Files", &["send-file", "files", "get-file", "resume"]),
    (
        "Rooms",
        &["rooms", "create", "join", "leave", "members", "invite", "kick", "ban", "unban", "op", "deop", "topic"],
    ),
    ("People", &["users", "who", "away", "back"]),
    (
        "Keys and trust",
        &["init", "keys", "number", "verify", "trust", "devices", "link", "export", "import", "passphrase"],
    ),
    ("By hand and for programs", &["seal", "open", "encode", "inspect", "pipe", "schema"]),
    ("About dsc", &["completions", "man", "help"]),
];

/// The definitions as help shows them: the commands of [`GROUPS`] under their headings, and one help, which
/// is short enough for `--help` and says enough for `-h`.
pub fn command() -> clap::Command {
    let command = short(Cli::command());
    let styles = command.get_styles().clone();
    let (header, literal) = (styles.get_header(), styles.get_literal());
    let width = GROUPS.iter().flat_map(|(_, names)| *names).map(|name| name.len()).max().unwrap_or(0);
    let mut listing = String::new();
    for (heading, names) in GROUPS {
        listing.push_str(&format!("\n{header}{heading}:{header:#}\n"));
        for name in names {
            let about = command.find_subcommand(name).and_then(clap::Command::get_about);
            let about = about.map_or_else(|| "Print this, or the help of a command".to_owned(), ToString::to_string);
            listing.push_str(&format!("  {literal}{name}{literal:#}{:gap$}  {about}\n", "", gap = width - name.len()));
        }
    }
    let template = format!(
        "{{about-with-newline}}\n{{before-help}}{{usage-heading}} {{usage}}\n{listing}\n\
         {header}Options:{header:#}\n{{options}}{{after-help}}"
    );
    let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    names.into_iter().fold(command, |command, name| command.mut_subcommand(name, short)).help_template(template)
}

/// What stands behind the first line of a documentation comment goes in front of the usage. As a long
/// description it would have clap print a second, longer help, with every option on two lines.
fn short(command: clap::Command) -> clap::Command {
    let text = |text: Option<&clap::builder::StyledStr>| text.map(ToString::to_string).unwrap_or_default();
    let (about, long) = (text(command.get_about()), text(command.get_long_about()));
    match long.strip_prefix(&about).map(str::trim).filter(|details| !details.is_empty()) {
        None => command,
        Some(details) => command
            .before_help(details.to_owned())
            .long_about(None)
            .help_template("{about-with-newline}\n{before-help}{usage-heading} {usage}\n\n{all-args}{after-help}"),
    }
}

/// Parses the arguments of the process.
///
/// # Errors
/// A usage error; or help and version, which are no errors but what is to be printed.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let mut command = command().color(asked_colour(&arguments));
    let matches = command.try_get_matches_from_mut(arguments);
    let cli = matches.and_then(|matches| Cli::from_arg_matches(&matches));
    cli.map_err(|error| with_quoting_tip(error.format(&mut command)))
}

/// What `--color` says, read before the arguments are parsed: it also holds for the error that they may be.
fn asked_colour(arguments: &[OsString]) -> clap::ColorChoice {
    let mut words = arguments.iter().filter_map(|word| word.to_str()).take_while(|word| *word != "--");
    let mut choice = clap::ColorChoice::Auto;
    while let Some(word) = words.next() {
        let value = match word {
            "--color" => words.next(),
            word => word.strip_prefix("--color="),
        };
        choice = match value {
            Some("always") => clap::ColorChoice::Always,
            Some("never") => clap::ColorChoice::Never,
            Some("auto") => clap::ColorChoice::Auto,
            _ => choice,
        };
    }
    choice
}

/// A missing room is most often one whose `#` the shell took for a comment.
fn with_quoting_tip(mut error: clap::Error) -> clap::Error {
    let names_a_room =
        |value: &ContextValue| value.to_string().contains("ROOM") || value.to_string().contains("TARGET");
    if error.kind() == ErrorKind::MissingRequiredArgument
        && error.get(ContextKind::InvalidArg).is_some_and(names_a_room)
    {
        let tip = "a # begins a comment for the shell: write the name of a room in quotes, '#room'";
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
}

#[cfg(test)]
mod tests;

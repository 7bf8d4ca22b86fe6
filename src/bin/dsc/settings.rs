//! `dsc.toml` in the home: what a person sets once, and what `register` and `login` remember.
//!
//! A flag overrides the file, the file overrides the default. The file is the person's: what `dsc`
//! remembers is written into it without touching the rest.

use std::fmt;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use downstream::protocol::UserName;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::cli::ColorChoice;
use crate::error::Failure;
use crate::net::Endpoint;

/// The name of the file.
pub const FILE: &str = "dsc.toml";
/// The largest file that is read: the settings are a few lines.
const FILE_MAX: u64 = 64 * 1024;
/// How long history is kept, in days, unless the file says otherwise.
const HISTORY_DAYS: u32 = 365;
/// The longest retention that can be set, in days: a century.
const HISTORY_DAYS_MAX: u32 = 36_500;

/// What the file says, with defaults where it says nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The server that commands talk to.
    pub server: Option<Endpoint>,
    /// The account.
    pub user: Option<UserName>,
    /// When to use colours.
    pub color: ColorChoice,
    /// A PEM file with the authorities to believe, in place of the system's.
    pub ca: Option<PathBuf>,
    /// For how many days opened messages are kept in the sealed history; 0 keeps none.
    pub history_days: u32,
    /// Where files go that are got.
    pub downloads: Option<PathBuf>,
}

/// A key of the file, for its errors and for the documents.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What it takes.
    pub allowed: &'static str,
    /// What holds without it.
    pub default: &'static str,
    /// What it is for.
    pub about: &'static str,
}

/// Every key.
pub const KEYS: [Key; 6] = [
    Key {
        name: "server",
        allowed: "HOST, HOST:PORT or [IPV6]:PORT",
        default: "none",
        about: "the server; written by register and login",
    },
    Key {
        name: "user",
        allowed: "1 to 32 of a-z 0-9 . _ -, first a letter or digit",
        default: "none",
        about: "the account; written by register and login",
    },
    Key { name: "color", allowed: "\"auto\", \"always\" or \"never\"", default: "auto", about: "when to use colours" },
    Key {
        name: "ca",
        allowed: "a path, from the home if it is relative",
        default: "none",
        about: "a PEM file with the authorities to believe in place of the system's",
    },
    Key {
        name: "history_days",
        allowed: "0 to 36500 days; 0 keeps no history",
        default: "365",
        about: "how long opened messages stay in the sealed history, which `search` and `get-file` read",
    },
    Key {
        name: "downloads",
        allowed: "a path, from the home if it is relative",
        default: "the download folder of the desktop, else `downloads` where dsc is called",
        about: "the folder into which `get-file` puts files",
    },
];

impl Settings {
    /// What holds without a file.
    pub fn defaults() -> Settings {
        Settings {
            server: None,
            user: None,
            color: ColorChoice::Auto,
            ca: None,
            history_days: HISTORY_DAYS,
            downloads: None,
        }
    }

    /// Reads the file in a home; a missing one is an empty one.
    ///
    /// # Errors
    /// [`Exit::Usage`](crate::error::Exit::Usage) with every problem of the file.
    pub fn load(home: &Path) -> Result<Settings, Failure> {
        let path = home.join(FILE);
        let text = read(&path)?;
        let (settings, mut problems) = parse(&text, home);
        if problems.is_empty() {
            return Ok(settings);
        }
        let shown = path.display();
        let first = problems.remove(0);
        let failure = match problems.len() {
            0 => Failure::usage(format!("{shown}: {first}")),
            more => {
                let rest: Vec<String> = problems.iter().map(ToString::to_string).collect();
                Failure::usage(format!("{shown}: {first} ({more} more)")).hint(rest.join("\n"))
            }
        };
        Err(failure)
    }
}

/// Writes server and account into the file of a home, whole or not at all, and leaves the rest of it as
/// it is.
///
/// # Errors
/// The file cannot be read or written.
pub fn remember(home: &Path, server: &Endpoint, user: &UserName) -> Result<(), Failure> {
    let path = home.join(FILE);
    let before = read(&path)?;
    let text = if before.is_empty() { template() } else { before.clone() };
    let text = set(&text, "server", &server.to_string());
    let text = set(&text, "user", user.as_str());
    if text == before {
        return Ok(());
    }
    replace(&path, &text).map_err(|error| Failure::failed(format!("cannot write {}: {error}", path.display())))
}

/// A new file: the keys that a person may want, as comments.
fn template() -> String {
    let remembered = ["server", "user"];
    let rows = KEYS.iter().filter(|key| !remembered.contains(&key.name));
    let rows = rows.map(|Key { name, allowed, default, about }| {
        format!("# {name}: {about}. It takes {allowed}. Default: {default}.\n")
    });
    format!("# Settings of dsc. Options on the command line come first.\n#\n{}\n", rows.collect::<String>())
}

fn read(path: &Path) -> Result<String, Failure> {
    let failed = |what: &dyn fmt::Display| Failure::usage(format!("cannot read {}: {what}", path.display()));
    match std::fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        Ok(file) if file.len() > FILE_MAX => return Err(failed(&"it is no file of settings, it is too large")),
        _ => {}
    }
    std::fs::read_to_string(path).map_err(|error| failed(&error))
}

/// Replaces a file by a finished one: whoever reads sees the old text or the new one. A link stays a link.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mut beside = path.clone().into_os_string();
    beside.push(format!(".{}", std::process::id()));
    let beside = PathBuf::from(beside);
    let written =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside).and_then(
            |mut file| {
                file.write_all(text.as_bytes())?;
                file.sync_all()
            },
        );
    if let Err(error) = written.and_then(|()| std::fs::rename(&beside, &path)) {
        let _ = std::fs::remove_file(&beside);
        return Err(error);
    }
    match path.parent() {
        Some(directory) => std::fs::File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

/// The text with `key = "value"` in it: in the place of the key's value, else on a line of its own at the
/// end. The values need no escape in TOML: addresses and names.
fn set(text: &str, key: &str, value: &str) -> String {
    let (document, _) = DeTable::parse_recoverable(text);
    let place = document.get_ref().get(key).map(Spanned::span);
    match place.and_then(|span| Some((text.get(..span.start)?, text.get(span.end..)?))) {
        Some((before, after)) => format!("{before}\"{value}\"{after}"),
        None => {
            let gap = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
            format!("{text}{gap}{key} = \"{value}\"\n")
        }
    }
}

/// What is wrong in one line of the file.
#[derive(Debug, PartialEq, Eq)]
struct Problem {
    line: usize,
    what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

fn parse(text: &str, home: &Path) -> (Settings, Vec<Problem>) {
    let (document, syntax) = DeTable::parse_recoverable(text);
    let line_of = |offset: usize| {
        text.as_bytes().get(..offset).unwrap_or_default().iter().filter(|&&byte| byte == b'\n').count() + 1
    };
    if !syntax.is_empty() {
        // What the parser made up behind a line that is no TOML says nothing about what was meant.
        let problem = |error: &toml::de::Error| {
            let line = error.span().map_or(1, |span| line_of(span.start));
            Problem { line, what: format!("not TOML: {}", error.message()) }
        };
        return (Settings::defaults(), syntax.iter().map(problem).collect());
    }
    let mut settings = Settings::defaults();
    let mut problems = Vec::new();
    for (name, value) in document.get_ref().iter() {
        let (line, name) = (line_of(name.span().start), name.get_ref().as_ref());
        let what = match KEYS.iter().find(|key| key.name == name) {
            None => Some(format!("{name}: unknown key; the nearest known key is {}", nearest(name))),
            Some(key) => {
                let wrong = take(&mut settings, name, value, home).err();
                wrong.map(|what| format!("{name} {what}; it takes {}", key.allowed))
            }
        };
        problems.extend(what.map(|what| Problem { line, what }));
    }
    problems.sort_by_key(|problem| problem.line);
    (settings, problems)
}

/// Checks the value of a known key and sets it.
fn take(settings: &mut Settings, name: &str, value: &Spanned<DeValue<'_>>, home: &Path) -> Result<(), String> {
    let text = || value.get_ref().as_str().ok_or_else(|| format!("is {}, but must be a text in quotes", kind(value)));
    let path = || match text()? {
        "" => Err("is empty".to_owned()),
        text if text.contains('\0') => Err("has a NUL in it".to_owned()),
        text => Ok(home.join(text)),
    };
    match name {
        "server" => {
            settings.server =
                Some(Endpoint::parse(text()?).map_err(|_| format!("\"{}\" is no address", shown(value)))?);
        }
        "user" => {
            settings.user = Some(UserName::parse(text()?).map_err(|_| format!("\"{}\" is no name", shown(value)))?);
        }
        "color" => {
            let found = ColorChoice::ALL.into_iter().find(|(word, _)| text() == Ok(*word));
            text()?;
            settings.color = found.ok_or_else(|| format!("\"{}\" is none of them", shown(value)))?.1;
        }
        "ca" => settings.ca = Some(path()?),
        "downloads" => settings.downloads = Some(path()?),
        "history_days" => {
            let number = value.get_ref().as_integer();
            let number = number.ok_or_else(|| format!("is {}, but must be a whole number", kind(value)))?;
            let days = u32::from_str_radix(number.as_str(), number.radix()).ok();
            let days = days.filter(|days| *days <= HISTORY_DAYS_MAX);
            settings.history_days = days.ok_or_else(|| format!("is {}", number.as_str()))?;
        }
        other => debug_assert!(false, "{other} is in KEYS and has no field"),
    }
    Ok(())
}

fn shown<'v>(value: &'v Spanned<DeValue<'_>>) -> &'v str {
    value.get_ref().as_str().unwrap_or_default()
}

/// The type of a value in words.
fn kind(value: &Spanned<DeValue<'_>>) -> &'static str {
    match value.get_ref() {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "a truth value",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a section",
    }
}

/// The known key that looks most like `name`.
fn nearest(name: &str) -> &'static str {
    let likeness = |known: &str| strsim::normalized_damerau_levenshtein(name, known);
    let best = KEYS.iter().max_by(|a, b| likeness(a.name).total_cmp(&likeness(b.name)));
    best.map_or("", |key| key.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home() -> &'static Path {
        Path::new("/home/a/dsc")
    }

    fn problems(text: &str) -> Vec<String> {
        parse(text, home()).1.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_key_is_read() {
        let text = "server = \"Chat.example.org\"\nuser = \"Alice\"\ncolor = \"never\"\nca = \"ca.pem\"\n\
                    history_days = 0\ndownloads = \"d\"\n";
        let (settings, problems) = parse(text, home());
        assert_eq!(problems, []);
        assert_eq!(settings.server.unwrap().to_string(), "chat.example.org:7667");
        assert_eq!(settings.user.unwrap().as_str(), "alice");
        assert_eq!((settings.color, settings.history_days), (ColorChoice::Never, 0));
        assert_eq!(settings.ca.unwrap(), home().join("ca.pem"));
        assert_eq!(settings.downloads.unwrap(), home().join("d"));
        assert_eq!(parse("", home()), (Settings::defaults(), vec![]));
        for key in KEYS {
            assert!(text.contains(&format!("{} = ", key.name)), "{} is not tried here", key.name);
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, expected) in [
            ("\nservr = \"x\"", "line 2: servr: unknown key; the nearest known key is server"),
            ("server = 7", "line 1: server is a whole number, but must be a text in quotes; it takes HOST"),
            ("server = \"a b\"", "line 1: server \"a b\" is no address; it takes HOST"),
            ("user = \"admin\"", "line 1: user \"admin\" is no name; it takes 1 to 32 of"),
            ("color = \"blue\"", "line 1: color \"blue\" is none of them; it takes \"auto\", \"always\" or \"never\""),
            ("color = true", "line 1: color is a truth value, but must be a text in quotes; it takes"),
            ("ca = \"\"", "line 1: ca is empty; it takes a path"),
            ("history_days = 36501", "line 1: history_days is 36501; it takes 0 to 36500 days"),
            ("history_days = -1", "line 1: history_days is -1; it takes 0 to 36500"),
            ("history_days = \"7\"", "line 1: history_days is a text, but must be a whole number; it takes"),
            ("[server]\nx = 1", "line 1: server is a section, but must be a text in quotes; it takes"),
            ("user", "line 1: not TOML: "),
        ] {
            let found = problems(text);
            assert!(found.len() == 1 && found[0].starts_with(expected), "{text:?}: {found:?}");
        }
        assert_eq!(problems("colour = 1\nuser = 2\n").len(), 2, "all of them at once");
    }

    #[test]
    fn what_a_person_wrote_stays() {
        let text = "# mine\nuser = 'bob' # me\nhistory_days = 3";
        let text = set(&set(text, "server", "h:7"), "user", "alice");
        assert_eq!(text, "# mine\nuser = \"alice\" # me\nhistory_days = 3\nserver = \"h:7\"\n");
        assert_eq!(set("", "user", "a"), "user = \"a\"\n");
    }

    #[test]
    fn a_new_file_says_what_else_could_be_in_it() {
        let text = set(&template(), "user", "alice");
        let (settings, problems) = parse(&text, home());
        assert_eq!((settings.user.unwrap().as_str(), problems), ("alice", vec![]));
        for key in KEYS {
            assert!(text.contains(&format!("# {}: {}", key.name, key.about)) || ["server", "user"].contains(&key.name));
        }
    }

    #[test]
    fn remembering_is_readable_again() {
        let home = tempfile::tempdir().unwrap();
        let (server, user) = (Endpoint::parse("[::1]:7").unwrap(), UserName::parse("alice").unwrap());
        for _ in 0..2 {
            remember(home.path(), &server, &user).unwrap();
            let settings = Settings::load(home.path()).unwrap();
            assert_eq!((settings.server.as_ref(), settings.user.as_ref()), (Some(&server), Some(&user)));
        }
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 1, "nothing is left beside it");
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(home.path().join(FILE)).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn several_problems_are_one_failure() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join(FILE), "colour = 1\nuser = 2\n").unwrap();
        let failure = Settings::load(home.path()).unwrap_err();
        assert_eq!(failure.exit, crate::error::Exit::Usage);
        assert!(failure.message.ends_with("line 1: colour: unknown key; the nearest known key is color (1 more)"));
        assert!(failure.hint.unwrap().starts_with("line 2: user is a whole number"));
    }
}

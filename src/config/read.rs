//! TOML → values: every key against the table, every problem with its place, all in one pass.

use std::net::SocketAddr;
use std::path::PathBuf;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{self, KEYS, Key, Kind, LISTEN_MAX, NAME_MAX, REGISTRATION, Zero};
use super::{Config, Problem, size};

/// What reading a text found.
pub(super) struct Read {
    /// The values, with defaults where the text has none or a wrong one.
    pub config: Config,
    /// What makes the text unusable.
    pub errors: Vec<Problem>,
    /// What the operator should know.
    pub warnings: Vec<Problem>,
}

/// Reads a configuration text.
pub(super) fn read(text: &str) -> Read {
    let (document, syntax) = DeTable::parse_recoverable(text);
    let mut reader = Reader {
        text,
        read: Read { config: Config::default(), errors: Vec::new(), warnings: Vec::new() },
        seen: Vec::new(),
    };
    for error in &syntax {
        // Without a span the fault is the text as a whole.
        let line = error.span().map_or(1, |span| reader.line(span.start));
        reader.read.errors.push(Problem::new(line, "", format!("not TOML: {}", error.message())));
    }
    // A line that is no TOML was reported; what the parser made up in its place would be reported again.
    let broken: Vec<usize> = reader.read.errors.iter().filter_map(|problem| problem.line).collect();
    reader.table("", document.get_ref());
    reader.whole();
    let mut read = reader.read;
    let mut first = syntax.len();
    read.errors.retain(|problem| {
        let keep = first > 0 || problem.line.is_none_or(|line| !broken.contains(&line));
        first = first.saturating_sub(1);
        keep
    });
    read.errors.sort_by_key(|problem| problem.line);
    read
}

struct Reader<'a> {
    text: &'a str,
    read: Read,
    /// Keys that the text sets, with their lines.
    seen: Vec<(&'static str, usize)>,
}

impl Reader<'_> {
    /// The line of a byte offset, from 1.
    fn line(&self, offset: usize) -> usize {
        let before = self.text.as_bytes().get(..offset).unwrap_or_default();
        before.iter().filter(|&&byte| byte == b'\n').count() + 1
    }

    fn error(&mut self, line: usize, key: &str, what: String) {
        self.read.errors.push(Problem::new(line, key, what));
    }

    fn table(&mut self, prefix: &str, table: &DeTable<'_>) {
        for (name, value) in table.iter() {
            let line = self.line(name.span().start);
            let path =
                if prefix.is_empty() { name.get_ref().to_string() } else { format!("{prefix}.{}", name.get_ref()) };
            if let Some(key) = keys::find(&path) {
                self.seen.push((key.path, line));
                self.value(line, key, value);
            } else if let DeValue::Table(inner) = value.get_ref() {
                if inner.is_empty() && !keys::is_section(&path) {
                    let nearest = keys::nearest_section(&path);
                    self.error(line, &path, format!("unknown section; the nearest known section is {nearest}"));
                }
                self.table(&path, inner);
            } else if keys::is_section(&path) {
                let what = format!("is {}, but must be a section: write [{path}] on a line of its own", kind_of(value));
                self.error(line, &path, what);
            } else {
                self.unknown(line, &path);
            }
        }
    }

    fn unknown(&mut self, line: usize, path: &str) {
        self.error(line, path, format!("unknown key; the nearest known key is {}", keys::nearest(path)));
    }

    /// Checks one value and sets its field, or says what is wrong with it.
    fn value(&mut self, line: usize, key: &'static Key, value: &Spanned<DeValue<'_>>) {
        let result = match &key.kind {
            Kind::Addresses { field, .. } => addresses(value).map(|list| *field(&mut self.read.config) = list),
            Kind::Path { field, .. } => path(value).map(|path| *field(&mut self.read.config) = path),
            Kind::Name { field, .. } => name(value).map(|name| *field(&mut self.read.config) = name),
            Kind::Registration { field, .. } => string(value).and_then(|text| {
                let word = REGISTRATION.into_iter().find(|word| word.as_str() == text);
                word.map(|word| *field(&mut self.read.config) = word)
                    .ok_or_else(|| format!("\"{text}\" is none of them"))
            }),
            Kind::Size { min, max, field, .. } => {
                bytes(value, *min, *max).map(|bytes| *field(&mut self.read.config) = bytes)
            }
            Kind::Number { min, max, zero, default, field } => number(value, *min, *max, *zero).map(|number| {
                if number == 0 && *zero == Zero::OffWarned {
                    let what = format!(
                        "0 switches this deadline off: who does nothing keeps a place for ever; default {default}"
                    );
                    self.read.warnings.push(Problem::new(line, key.path, what));
                }
                *field(&mut self.read.config) = number;
            }),
        };
        if let Err(what) = result {
            self.error(line, key.path, format!("{what}; {}", key.kind.allowed()));
        }
    }

    /// What only shows when all keys are known.
    fn whole(&mut self) {
        let line_of = |path: &str| self.seen.iter().find(|(seen, _)| *seen == path).map(|(_, line)| *line);
        let (cert, key) = (line_of("tls.cert"), line_of("tls.key"));
        let half = match (cert, key) {
            (Some(line), None) => Some((line, "tls.cert", "tls.key")),
            (None, Some(line)) => Some((line, "tls.key", "tls.cert")),
            _ => None,
        };
        if let Some((line, one, other)) = half {
            self.error(line, one, format!("is set without {other}; allowed: both or none of the two"));
        }
        debug_assert!(self.seen.iter().all(|(seen, _)| KEYS.iter().any(|key| key.path == *seen)));
    }
}

/// The type of a value in words.
fn kind_of(value: &Spanned<DeValue<'_>>) -> &'static str {
    match value.get_ref() {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "a truth value",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a section",
    }
}

fn string<'v>(value: &'v Spanned<DeValue<'_>>) -> Result<&'v str, String> {
    value.get_ref().as_str().ok_or_else(|| format!("is {}, but must be a string in quotes", kind_of(value)))
}

fn addresses(value: &Spanned<DeValue<'_>>) -> Result<Vec<SocketAddr>, String> {
    let list = value.get_ref().as_array().ok_or_else(|| format!("is {}, but must be a list", kind_of(value)))?;
    if list.is_empty() {
        return Err("is empty".to_owned());
    }
    if list.len() > LISTEN_MAX {
        return Err(format!("has {} addresses", list.len()));
    }
    let mut found: Vec<SocketAddr> = Vec::with_capacity(list.len());
    for item in list.iter() {
        let text = string(item)?;
        let address: SocketAddr = text.parse().map_err(|_| format!("\"{text}\" is not an address with a port"))?;
        // Port 0 takes another port each time.
        if address.port() != 0 && found.contains(&address) {
            return Err(format!("{address} is there twice"));
        }
        found.push(address);
    }
    Ok(found)
}

fn path(value: &Spanned<DeValue<'_>>) -> Result<PathBuf, String> {
    match string(value)? {
        "" => Err("is empty".to_owned()),
        text if text.contains('\0') => Err("has a NUL in it".to_owned()),
        text => Ok(PathBuf::from(text)),
    }
}

fn name(value: &Spanned<DeValue<'_>>) -> Result<String, String> {
    let text = string(value)?;
    let fits = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    match text.len() {
        0 => Err("is empty".to_owned()),
        length if length > NAME_MAX => Err(format!("has {length} bytes")),
        _ if !fits => Err(format!("\"{text}\" has other characters in it")),
        _ => Ok(text.to_owned()),
    }
}

fn number(value: &Spanned<DeValue<'_>>, min: u64, max: u64, zero: Zero) -> Result<u64, String> {
    let written =
        value.get_ref().as_integer().ok_or_else(|| format!("is {}, but must be a whole number", kind_of(value)))?;
    // TOML numbers are 64 bits with a sign; what does not even fit 128 is out of every bound.
    let number = i128::from_str_radix(written.as_str(), written.radix()).unwrap_or(i128::MAX);
    if number == 0 && zero != Zero::Refused {
        return Ok(0);
    }
    match u64::try_from(number) {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        _ if number > i128::from(max) => Err(format!("{} is too large", written.as_str())),
        _ => Err(format!("{} is too small", written.as_str())),
    }
}

fn bytes(value: &Spanned<DeValue<'_>>, min: u64, max: u64) -> Result<u64, String> {
    let text = match value.get_ref() {
        DeValue::Integer(_) => return number(value, min, max, Zero::Off),
        DeValue::String(text) => text,
        _ => return Err(format!("is {}, but must be a size", kind_of(value))),
    };
    match size::parse(text) {
        None => Err(format!("\"{text}\" is no size")),
        Some(bytes) if bytes > max => Err(format!("{text} is too large")),
        Some(bytes) if bytes < min && bytes > 0 => Err(format!("{text} is too small")),
        Some(bytes) => Ok(bytes),
    }
}

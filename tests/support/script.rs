//! The dialogue files: how they are written and read.
//!
//! A file is a list of steps, one a line. Order within one connection is strict: each line that the
//! server sends must be expected, at its place.
//!
//! ```text
//! # a comment ("# " or "#" alone)
//! | [limits]                      configuration of the daemon, TOML, before the first step
//! new alice [option…]             connect; the greeting is expected and left out
//!                                 options: greeting (keep it), tls=1.2, cert=LABEL (a client certificate)
//! user alice bob                  connect and register with the password `password-NAME`
//! session phone alice             connect as `phone`, log in as alice
//! alice> /msg bob hi              send a line
//! alice>raw a\r\nb\0c             send bytes; \r \n \t \0 \\ \xFF mean what they say; no ending is added
//! alice< OK msg id=<ID:a> ...     expect a line (see `pattern`)
//! alice<~ * join #r alice         the next line may be this one
//! alice<* - help <REST>           any number of these
//! 100x alice< - err u<n> quota    a step a hundred times, <n> counting from 1
//! quiet alice                     nothing has arrived that was not expected
//! half-close alice                say that nothing more comes, and go on reading
//! close alice | kill alice        end the connection properly, or as a crash would
//! closed alice                    the server ended the connection, cleanly
//! assert a < b < c                captured numbers rise
//! file NAME CONTENT               write a file into the daemon's directory
//! cli> invite                     run a subcommand on the daemon's data; must exit with 0
//! cli< <WORD:code>                expect a line of its output; all of it must be expected
//! restart | crash                 SIGTERM or kill -9, then start again; ends every connection
//! stopped | start                 the daemon has ended by itself, with success; start it again
//! ```
//!
//! In what is sent or expected, `<name>` is what was captured, `<98304*x>` is `x` so many times,
//! `<u1..u100>` is `u1,u2,…,u100`.

use std::fmt;

/// One step and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) line: usize,
    pub(crate) source: String,
    pub(crate) times: usize,
    pub(crate) act: Act,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Act {
    New { name: String, options: Vec<String> },
    User { names: Vec<String> },
    Session { name: String, user: String },
    Send { name: String, text: String },
    Raw { name: String, text: String },
    Expect { name: String, pattern: String, how: Expected },
    Quiet { names: Vec<String> },
    HalfClose { name: String },
    Close { name: String },
    Kill { name: String },
    Closed { name: String },
    Assert { names: Vec<String> },
    File { name: String, content: String },
    Restart,
    Crash,
    Stopped,
    Start,
}

/// How often an expected line comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    Once,
    Perhaps,
    AnyNumber,
}

/// A whole file.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    /// TOML that is laid over the tests' own configuration.
    pub(crate) config: String,
    pub(crate) steps: Vec<Step>,
}

/// Why a file cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ScriptError {
    pub(crate) line: usize,
    pub(crate) why: String,
}

impl fmt::Display for ScriptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.why)
    }
}

impl Script {
    /// Reads a file.
    pub(crate) fn parse(text: &str) -> Result<Script, ScriptError> {
        let mut script = Script { config: String::new(), steps: Vec::new() };
        for (index, source) in text.lines().enumerate() {
            let line = index + 1;
            let fail = |why: &str| ScriptError { line, why: format!("{why}: {source}") };
            if source.trim().is_empty() || source == "#" || source.starts_with("# ") {
                continue;
            }
            if let Some(toml) = source.strip_prefix('|') {
                if !script.steps.is_empty() {
                    return Err(fail("configuration stands before the first step"));
                }
                script.config.push_str(toml.strip_prefix(' ').unwrap_or(toml));
                script.config.push('\n');
                continue;
            }
            let (times, step) = match source.split_once("x ") {
                Some((n, rest)) if !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()) => {
                    (n.parse().map_err(|_| fail("too often"))?, rest)
                }
                _ => (1, source),
            };
            let act = act(step).ok_or_else(|| fail("not a step"))?;
            script.steps.push(Step { line, source: source.to_owned(), times, act });
        }
        Ok(script)
    }
}

fn act(step: &str) -> Option<Act> {
    let end = step.find(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_')).unwrap_or(step.len());
    let (word, rest) = step.split_at(end);
    let name = word.to_owned();
    if word.is_empty() {
        return None;
    }
    if let Some(text) = rest.strip_prefix(">raw ") {
        return Some(Act::Raw { name, text: text.to_owned() });
    }
    if let Some(text) = rest.strip_prefix("> ") {
        return Some(Act::Send { name, text: text.to_owned() });
    }
    for (mark, how) in [("< ", Expected::Once), ("<~ ", Expected::Perhaps), ("<* ", Expected::AnyNumber)] {
        if let Some(pattern) = rest.strip_prefix(mark) {
            return Some(Act::Expect { name, pattern: pattern.to_owned(), how });
        }
    }
    let words: Vec<String> = rest.split_whitespace().map(str::to_owned).collect();
    let one = || match words.as_slice() {
        [one] => Some(one.clone()),
        _ => None,
    };
    let some = || (!words.is_empty()).then(|| words.clone());
    match word {
        "new" => {
            let (name, options) = words.split_first()?;
            Some(Act::New { name: name.clone(), options: options.to_vec() })
        }
        "user" => Some(Act::User { names: some()? }),
        "session" => match words.as_slice() {
            [name, user] => Some(Act::Session { name: name.clone(), user: user.clone() }),
            _ => None,
        },
        "quiet" => Some(Act::Quiet { names: some()? }),
        "half-close" => Some(Act::HalfClose { name: one()? }),
        "close" => Some(Act::Close { name: one()? }),
        "kill" => Some(Act::Kill { name: one()? }),
        "closed" => Some(Act::Closed { name: one()? }),
        "assert" => {
            let names: Vec<String> = rest.split('<').map(|name| name.trim().to_owned()).collect();
            (names.len() >= 2 && names.iter().all(|name| !name.is_empty())).then_some(Act::Assert { names })
        }
        "file" => {
            let (name, content) = rest.trim_start().split_once(' ')?;
            Some(Act::File { name: name.to_owned(), content: content.to_owned() })
        }
        "restart" if words.is_empty() => Some(Act::Restart),
        "crash" if words.is_empty() => Some(Act::Crash),
        "stopped" if words.is_empty() => Some(Act::Stopped),
        "start" if words.is_empty() => Some(Act::Start),
        _ => None,
    }
}

/// Replaces `<N*text>`, `<p1..p9>` and, in a repeated step, `<n>`.
pub(crate) fn expand(text: &str, n: Option<usize>) -> String {
    let text = match n {
        Some(n) => text.replace("<n>", &n.to_string()),
        None => text.to_owned(),
    };
    let mut out = String::new();
    let mut rest = text.as_str();
    while let Some(open) = rest.find('<') {
        let (before, from) = rest.split_at(open);
        out.push_str(before);
        let done = from.find('>').and_then(|close| Some((generated(from.get(1..close)?)?, close)));
        match done {
            Some((value, close)) => {
                out.push_str(&value);
                rest = from.get(close + 1..).unwrap_or_default();
            }
            None => {
                out.push('<');
                rest = from.get(1..).unwrap_or_default();
            }
        }
    }
    out.push_str(rest);
    out
}

fn generated(inner: &str) -> Option<String> {
    if let Some((count, text)) = inner.split_once('*') {
        return Some(text.repeat(count.parse().ok()?));
    }
    let (first, last) = inner.split_once("..")?;
    let digits = first.find(|c: char| c.is_ascii_digit())?;
    let (prefix, from) = first.split_at(digits);
    let (from, to): (usize, usize) = (from.parse().ok()?, last.strip_prefix(prefix)?.parse().ok()?);
    Some((from..=to).map(|n| format!("{prefix}{n}")).collect::<Vec<_>>().join(","))
}

/// Reads the escapes of a `raw` step.
pub(crate) fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        out.push(match bytes.next() {
            Some(b'r') => b'\r',
            Some(b'n') => b'\n',
            Some(b't') => b'\t',
            Some(b'0') => 0,
            Some(b'\\') => b'\\',
            Some(b'x') => {
                let digits = [bytes.next().unwrap_or(b'?'), bytes.next().unwrap_or(b'?')];
                let digits = std::str::from_utf8(&digits).map_err(|e| e.to_string())?;
                u8::from_str_radix(digits, 16).map_err(|e| e.to_string())?
            }
            other => return Err(format!("unknown escape {other:?}")),
        });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_read() {
        let text = "# comment\n| [limits]\n|\n| x = 1\n\nnew alice tls=1.2\nalice> /ping  a\nalice< OK ping : a\n\
                    3x bob<* - row <n>\nbob>raw \\x00\\n\nassert a < b\ncli> invite\nalice> #room is text\n";
        let script = Script::parse(text).unwrap();
        assert_eq!(script.config, "[limits]\n\nx = 1\n");
        let acts: Vec<&Act> = script.steps.iter().map(|step| &step.act).collect();
        assert_eq!(
            acts,
            [
                &Act::New { name: "alice".into(), options: vec!["tls=1.2".into()] },
                &Act::Send { name: "alice".into(), text: "/ping  a".into() },
                &Act::Expect { name: "alice".into(), pattern: "OK ping : a".into(), how: Expected::Once },
                &Act::Expect { name: "bob".into(), pattern: "- row <n>".into(), how: Expected::AnyNumber },
                &Act::Raw { name: "bob".into(), text: "\\x00\\n".into() },
                &Act::Assert { names: vec!["a".into(), "b".into()] },
                &Act::Send { name: "cli".into(), text: "invite".into() },
                &Act::Send { name: "alice".into(), text: "#room is text".into() },
            ]
        );
        assert_eq!(script.steps[3].times, 3);
    }

    #[test]
    fn what_is_no_step_is_refused_with_its_line() {
        for (text, line) in [("new a\nfrobnicate\n", 2), ("new\n", 1), ("alice>/ping\n", 1), ("new a\n| x = 1\n", 2)] {
            assert_eq!(Script::parse(text).unwrap_err().line, line, "{text}");
        }
    }

    #[test]
    fn expansions() {
        assert_eq!(expand("a<3*xy>b <u1..u3> m<n> <other>", Some(7)), "axyxyxyb u1,u2,u3 m7 <other>");
        assert_eq!(unescape("a\\x00\\r\\n\\\\").unwrap(), b"a\0\r\n\\");
        assert!(unescape("\\q").is_err() && unescape("\\xg0").is_err());
    }
}

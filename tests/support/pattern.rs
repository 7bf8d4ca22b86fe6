//! Patterns for the lines of the server.
//!
//! A pattern is the line itself, with placeholders where it varies: `<TIME>` (RFC 3339, UTC,
//! milliseconds), `<ID>` and `<NUM>` (decimal), `<SECONDS>` (decimal, at least 1), `<HEX64>`, `<WORD>`
//! (no space), `<TEXT>` (at least one character), `<REST>` (anything, also nothing). `<KIND:name>`
//! remembers what stood there; where `name` is known already, the same must stand there again. The word
//! `...` stands for further ` key=value` pairs, also none. A pattern that begins with `ERR ` and has no
//! text accepts any, since the text is for people and may change; further keys it does not accept.

use std::collections::BTreeMap;

/// What placeholders captured, by name.
pub(crate) type Captures = BTreeMap<String, String>;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Hole { kind: Kind, name: Option<String> },
    Keys,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Time,
    Number,
    Seconds,
    Hex64,
    Word,
    Text,
    Rest,
}

/// A parsed pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    parts: Vec<Part>,
}

impl Pattern {
    /// Reads a pattern.
    pub(crate) fn parse(text: &str) -> Result<Pattern, String> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            if let Some(tail) = rest.strip_prefix(" ...")
                && (tail.is_empty() || tail.starts_with(' '))
            {
                flush(&mut parts, &mut literal);
                parts.push(Part::Keys);
                rest = tail;
            } else if let Some((hole, tail)) = hole(rest)? {
                flush(&mut parts, &mut literal);
                parts.push(hole);
                rest = tail;
            } else {
                literal.push(first);
                rest = rest.get(first.len_utf8()..).unwrap_or_default();
            }
        }
        flush(&mut parts, &mut literal);
        if text.starts_with("ERR ") && !text.contains(" :") {
            parts.push(Part::Literal(" :".into()));
            parts.push(Part::Hole { kind: Kind::Text, name: None });
        }
        Ok(Pattern { parts })
    }

    /// Whether `line` fits; if so, `captures` gains the new names.
    pub(crate) fn matches(&self, line: &str, captures: &mut Captures) -> bool {
        let mut found = captures.clone();
        let fits = fits(&self.parts, line, &mut found);
        if fits {
            *captures = found;
        }
        fits
    }
}

/// Replaces every `<name>` and `<KIND:name>` whose name was captured.
pub(crate) fn substitute(text: &str, captures: &Captures) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(open) = rest.find('<') {
        let (before, from) = rest.split_at(open);
        out.push_str(before);
        let known = from.find('>').and_then(|close| {
            let inner = from.get(1..close)?;
            let name = inner.split_once(':').map_or(inner, |(_, name)| name);
            Some((captures.get(name)?, close))
        });
        match known {
            Some((value, close)) => {
                out.push_str(value);
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

fn flush(parts: &mut Vec<Part>, literal: &mut String) {
    if !literal.is_empty() {
        parts.push(Part::Literal(std::mem::take(literal)));
    }
}

fn hole(text: &str) -> Result<Option<(Part, &str)>, String> {
    let Some(inner) = text.strip_prefix('<') else { return Ok(None) };
    let Some((inner, tail)) = inner.split_once('>') else { return Ok(None) };
    let (kind, name) = inner.split_once(':').map_or((inner, None), |(kind, name)| (kind, Some(name.to_owned())));
    let kind = match kind {
        "TIME" => Kind::Time,
        "ID" | "NUM" => Kind::Number,
        "SECONDS" => Kind::Seconds,
        "HEX64" => Kind::Hex64,
        "WORD" => Kind::Word,
        "TEXT" => Kind::Text,
        "REST" => Kind::Rest,
        _ if name.is_none() && !kind.is_empty() && kind.chars().all(|c| c.is_ascii_uppercase()) => {
            return Err(format!("<{inner}> is no placeholder"));
        }
        _ => return Ok(None),
    };
    Ok(Some((Part::Hole { kind, name }, tail)))
}

fn fits(parts: &[Part], line: &str, captures: &mut Captures) -> bool {
    let Some((part, parts)) = parts.split_first() else { return line.is_empty() };
    match part {
        Part::Literal(text) => line.strip_prefix(text.as_str()).is_some_and(|rest| fits(parts, rest, captures)),
        Part::Keys => {
            let mut rest = line;
            loop {
                if fits(parts, rest, captures) {
                    return true;
                }
                match key_value(rest) {
                    Some(tail) => rest = tail,
                    None => return false,
                }
            }
        }
        Part::Hole { kind, name } => {
            let widest = kind.widest(line);
            // What stands last covers all that is left; trying less would be a long way to nothing.
            let narrowest = if parts.is_empty() { line.len() } else { 0 };
            let ends = (narrowest..=widest).rev().filter(|&end| line.is_char_boundary(end));
            for end in ends {
                let (value, rest) = line.split_at(end);
                if !kind.accepts(value) {
                    continue;
                }
                let mut found = captures.clone();
                if let Some(name) = name
                    && *found.entry(name.clone()).or_insert_with(|| value.to_owned()) != value
                {
                    continue;
                }
                if fits(parts, rest, &mut found) {
                    *captures = found;
                    return true;
                }
            }
            false
        }
    }
}

/// What follows ` key=value` at the beginning of `text`.
fn key_value(text: &str) -> Option<&str> {
    let text = text.strip_prefix(' ')?;
    let end = text.find(' ').unwrap_or(text.len());
    let (pair, rest) = text.split_at(end);
    let (key, _) = pair.split_once('=')?;
    let well_formed = !key.is_empty() && key.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    well_formed.then_some(rest)
}

impl Kind {
    /// How many bytes of `line` this could cover at most.
    fn widest(self, line: &str) -> usize {
        match self {
            Kind::Text | Kind::Rest => line.len(),
            Kind::Time => line.len().min(24),
            Kind::Hex64 => line.len().min(64),
            Kind::Number | Kind::Seconds => line.bytes().take_while(u8::is_ascii_digit).count(),
            Kind::Word => line.find(' ').unwrap_or(line.len()),
        }
    }

    fn accepts(self, value: &str) -> bool {
        match self {
            Kind::Rest => true,
            Kind::Text | Kind::Word => !value.is_empty(),
            Kind::Number => value.parse::<u64>().is_ok_and(|n| n.to_string() == value),
            Kind::Seconds => value.parse::<u64>().is_ok_and(|n| n >= 1 && n.to_string() == value),
            Kind::Hex64 => value.len() == 64 && value.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')),
            Kind::Time => {
                let shape = b"dddd-dd-ddTdd:dd:dd.dddZ";
                value.len() == shape.len()
                    && value.bytes().zip(shape).all(|(b, s)| if *s == b'd' { b.is_ascii_digit() } else { b == *s })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, line: &str, captures: &mut Captures) -> bool {
        Pattern::parse(pattern).unwrap().matches(line, captures)
    }

    fn fits(pattern: &str, line: &str) -> bool {
        matches(pattern, line, &mut Captures::new())
    }

    #[test]
    fn placeholders_accept_what_they_name() {
        assert!(fits("OK msg id=<ID> time=<TIME> to=bob", "OK msg id=7 time=2026-01-02T03:04:05.678Z to=bob"));
        assert!(!fits("OK msg id=<ID>", "OK msg id="));
        assert!(!fits("OK msg id=<ID>", "OK msg id=007"));
        assert!(!fits("<TIME>", "2026-01-02T03:04:05Z"));
        assert!(!fits("a<WORD>", "ab c"));
        assert!(fits("a<REST>", "a") && !fits("a<TEXT>", "a"));
        assert!(!fits("retry-after=<SECONDS>", "retry-after=0"));
        assert!(Pattern::parse("<TYME>").is_err());
        assert!(fits("a < b > c", "a < b > c"));
    }

    #[test]
    fn the_same_name_means_the_same_text() {
        let mut captures = Captures::new();
        assert!(matches("OK id=<ID:first>", "OK id=12", &mut captures));
        assert!(!matches("OK id=<ID:first>", "OK id=13", &mut captures));
        assert!(matches("OK id=<ID:second>", "OK id=13", &mut captures));
        assert_eq!(substitute("/ack bob <first> <ID:second> <other> <", &captures), "/ack bob 12 13 <other> <");
    }

    #[test]
    fn dots_stand_for_keys_only() {
        assert!(fits("OK join room=#a ...", "OK join room=#a"));
        assert!(fits("OK join room=#a ...", "OK join room=#a members=2 e2e=no"));
        assert!(fits("OK post id=1 ... dup=yes ...", "OK post id=1 time=x dup=yes"));
        assert!(!fits("OK join room=#a ...", "OK join room=#a text"));
        assert!(!fits("OK join room=#a", "OK join room=#a members=2"));
        assert!(fits("OK x ... :t", "OK x k=v :t"));
    }

    #[test]
    fn the_text_of_an_error_is_free() {
        assert!(fits("ERR msg syntax", "ERR msg syntax :anything"));
        assert!(!fits("ERR msg syntax", "ERR msg syntax"));
        assert!(!fits("ERR msg syntax", "ERR msg syntax max=3 :anything"));
        assert!(!fits("ERR msg syntax :this", "ERR msg syntax :that"));
    }
}

//! Splits what stands behind a verb: arguments, quotes, `key=value`, and the body.

use std::borrow::Cow;

use crate::protocol::MAX_TEXT;

use super::{Body, NameInvalid, ParseError, Password, RoomName, Target, UserName, Verb, syntax};

/// The arguments of one command, split by its row of the table.
pub(super) struct Args<'a> {
    verb: &'static Verb,
    positional: std::vec::IntoIter<Cow<'a, str>>,
    pub(super) options: Vec<(&'static str, Cow<'a, str>)>,
    pub(super) body: Option<&'a str>,
}

impl<'a> Args<'a> {
    /// Splits `rest`, what stands behind the verb and its label.
    pub(super) fn read(verb: &'static Verb, rest: &'a str) -> Result<Args<'a>, ParseError> {
        let usage = || syntax(format!("usage: {}", verb.usage_line()));
        let (fewest, most) = verb.args;
        let mut positional = Vec::new();
        let mut options: Vec<(&'static str, Cow<'a, str>)> = Vec::new();
        let mut rest = rest;
        let mut body = None;
        if verb.body == Body::Table {
            return Ok(Args { verb, positional: positional.into_iter(), options, body });
        }
        loop {
            let next = rest.trim_start_matches(' ');
            if verb.body == Body::Colon && next.starts_with(':') {
                body = Some(next.strip_prefix(':').unwrap_or_default());
                rest = "";
                break;
            }
            if next.is_empty() {
                // Nothing but spaces is left: where a body may come they would be an empty one.
                rest = if verb.body == Body::None || verb.body == Body::Colon { "" } else { rest };
                break;
            }
            let (word, behind) = word(next)?;
            if let Some((key, value)) = option(verb, &word)? {
                if options.iter().any(|(known, _)| *known == key) {
                    return Err(syntax(format!("{key}= stands twice")));
                }
                options.push((key, value));
            } else if positional.len() < most {
                positional.push(word);
            } else {
                break;
            }
            rest = behind;
        }
        if positional.len() < fewest {
            return Err(usage());
        }
        if matches!(verb.body, Body::Optional | Body::Required) {
            // Exactly one space ends the last argument; what follows is the body, byte for byte.
            body = match rest.strip_prefix(' ') {
                None if rest.is_empty() => None,
                Some(text) => Some(text),
                None => return Err(usage()),
            };
            if body.is_none() && verb.body == Body::Required {
                return Err(usage());
            }
        } else if !rest.is_empty() {
            return Err(usage());
        }
        if body == Some("") {
            return Err(syntax(format!("the text is empty; usage: {}", verb.usage_line())));
        }
        Ok(Args { verb, positional: positional.into_iter(), options, body })
    }

    pub(super) fn usage(&self) -> ParseError {
        syntax(format!("usage: {}", self.verb.usage_line()))
    }

    /// The next argument, if there is one.
    pub(super) fn take(&mut self) -> Option<Cow<'a, str>> {
        self.positional.next()
    }

    /// The next argument.
    pub(super) fn next(&mut self) -> Result<Cow<'a, str>, ParseError> {
        self.take().ok_or_else(|| self.usage())
    }

    pub(super) fn user(&mut self) -> Result<UserName, ParseError> {
        Ok(UserName::parse(&self.next()?)?)
    }

    pub(super) fn room(&mut self) -> Result<RoomName, ParseError> {
        Ok(RoomName::parse(&self.next()?)?)
    }

    pub(super) fn target(&mut self) -> Result<Target, ParseError> {
        Ok(Target::parse(&self.next()?)?)
    }

    pub(super) fn password(&mut self) -> Result<Password, ParseError> {
        Ok(Password::new(&self.next()?))
    }

    /// The body, where it is a text that is repeated to others.
    pub(super) fn text(&self) -> Result<Option<&'a str>, ParseError> {
        match self.body {
            Some(text) if text.len() > MAX_TEXT => Err(ParseError::TooMany(MAX_TEXT, "bytes in such a text")),
            body => Ok(body),
        }
    }

    /// All that is left, as names.
    pub(super) fn users(&mut self) -> Result<Vec<UserName>, ParseError> {
        self.positional.by_ref().map(|name| Ok(UserName::parse(&name)?)).collect()
    }

    /// The value of `key=`, read as a name.
    pub(super) fn option<T>(
        &self,
        key: &str,
        parse: impl Fn(&str) -> Result<T, NameInvalid>,
    ) -> Result<Option<T>, ParseError> {
        Ok(self.value(key).map(parse).transpose()?)
    }

    /// The value of `key=`, read as a number.
    pub(super) fn number(&self, key: &str) -> Result<Option<u64>, ParseError> {
        self.value(key)
            .map(|text| number(text).ok_or_else(|| syntax(format!("{key}= takes a decimal number"))))
            .transpose()
    }

    /// The value of `key=`.
    pub(super) fn value(&self, key: &str) -> Option<&str> {
        self.options.iter().find(|(name, _)| *name == key).map(|(_, value)| value.as_ref())
    }
}

/// A decimal of digits only. What is too large for 64 bits counts as the largest, as an ID above the
/// last counts as the last.
pub(super) fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

/// The word at the beginning of `text`, which begins with no space, and what stands behind it.
fn word(text: &str) -> Result<(Cow<'_, str>, &str), ParseError> {
    let Some(quoted) = text.strip_prefix('"') else {
        let (word, rest) = text.split_at(text.find(' ').unwrap_or(text.len()));
        return Ok((Cow::Borrowed(word), rest));
    };
    let mut unescaped: Option<String> = None;
    let mut from = 0;
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        let piece = quoted.get(from..at).unwrap_or_default();
        match c {
            '"' => {
                let rest = quoted.get(at + 1..).unwrap_or_default();
                if !rest.is_empty() && !rest.starts_with(' ') {
                    return Err(syntax("a space is missing behind the closing quote"));
                }
                let word = match unescaped {
                    None => Cow::Borrowed(piece),
                    Some(before) => Cow::Owned(before + piece),
                };
                return Ok((word, rest));
            }
            '\\' => match chars.next() {
                Some((next, escaped @ ('"' | '\\'))) => {
                    let word = unescaped.get_or_insert_default();
                    word.push_str(piece);
                    word.push(escaped);
                    from = next + 1;
                }
                _ => return Err(syntax("inside quotes, \\ stands before \" or \\ only")),
            },
            _ => {}
        }
    }
    Err(syntax("a closing quote is missing"))
}

/// Reads a word as `key=value` where the command has such arguments.
fn option<'a>(verb: &'static Verb, word: &Cow<'a, str>) -> Result<Option<(&'static str, Cow<'a, str>)>, ParseError> {
    if verb.options.is_empty() {
        return Ok(None);
    }
    let Some((key, value)) = word.split_once('=') else { return Ok(None) };
    let folded = key.to_ascii_lowercase();
    if let Some(known) = verb.options.iter().find(|known| **known == folded) {
        if matches!(word, Cow::Borrowed(_)) && value.starts_with('"') {
            return Err(syntax(format!("quotes go around the whole: \"{known}=…\"")));
        }
        let value = match word {
            Cow::Borrowed(word) => Cow::Borrowed(word.get(key.len() + 1..).unwrap_or_default()),
            Cow::Owned(_) => Cow::Owned(value.to_owned()),
        };
        return Ok(Some((known, value)));
    }
    // Where a body follows, a word with an equals sign may well belong to it; and base64 may end with some.
    let is_padding = matches!(value, "" | "=");
    let looks_like_an_option = !is_padding && !folded.is_empty() && folded.bytes().all(|b| b.is_ascii_lowercase());
    if looks_like_an_option && verb.body == Body::None {
        return Err(syntax(format!("unknown option {folded}=; usage: {}", verb.usage_line())));
    }
    Ok(None)
}

//! Text of others, made harmless for a terminal or a log.

use std::fmt::{self, Write as _};

/// Text for a terminal or a log: control characters, and the marks that reorder text, escaped as in a
/// Rust string (`\n`, `\u{1b}`).
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if needs_escape(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// [`escaped`] as something to print.
pub struct Escaped<T>(pub T);

impl<T: fmt::Display> fmt::Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        write!(text, "{}", self.0)?;
        f.write_str(&escaped(&text))
    }
}

fn needs_escape(c: char) -> bool {
    c.is_control()
        // Line and paragraph separators, and the bidirectional controls (UAX #9): they move what a
        // reader sees away from what is there.
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_text_can_steer_a_terminal_or_forge_a_line() {
        assert_eq!(escaped("plain, ünïcode ✓"), "plain, ünïcode ✓");
        assert_eq!(escaped("a\nb\r\u{1b}[2J\u{9b}\0"), "a\\nb\\r\\u{1b}[2J\\u{9b}\\u{0}");
        assert_eq!(escaped("\u{202e}gnp.exe"), "\\u{202e}gnp.exe");
        assert_eq!(Escaped("x\ty").to_string(), "x\\ty");
    }
}

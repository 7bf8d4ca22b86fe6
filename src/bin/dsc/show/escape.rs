//! What others wrote, made harmless: nothing in it can steer a terminal or look like another line.

/// Stands for a line break in a text, so that a message is one line. The sign itself is escaped.
const LINE_BREAK: char = '\u{23ce}';

/// Whether a character steers a terminal, or moves what a reader sees away from what is there: controls,
/// line and paragraph separators, and the bidirectional controls of UAX #9.
fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text in one line: `⏎` for each line break (LF or CR LF), every other character that steers escaped as
/// in a Rust text (`\t`, `\u{1b}`).
pub fn line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\n' => out.push(LINE_BREAK),
            '\r' if chars.next_if_eq(&'\n').is_some() => out.push(LINE_BREAK),
            c if steers(c) || c == LINE_BREAK => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out
}

/// JSON with the characters that steer escaped as `\u....`: they can only stand inside of its texts.
pub fn json_escaped(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if steers(c) {
            let mut units = [0; 2];
            c.encode_utf16(&mut units).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}")));
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_one_line_and_steers_nothing() {
        assert_eq!(line("plain, ünïcode ✓ 👍🏽"), "plain, ünïcode ✓ 👍🏽");
        assert_eq!(line("a\nb\r\nc\rd"), "a⏎b⏎c\\rd");
        assert_eq!(line("a⏎b"), "a\\u{23ce}b", "nobody can write the sign of a line break");
        assert_eq!(line("\u{1b}[2J\u{9b}\0\u{7f}\t"), "\\u{1b}[2J\\u{9b}\\u{0}\\u{7f}\\t");
        assert_eq!(line("\u{202e}gnp.exe\u{2028}\u{2066}"), "\\u{202e}gnp.exe\\u{2028}\\u{2066}");
    }

    #[test]
    fn json_means_the_same_when_escaped() {
        let text = "a\n\u{9b}31m\u{202e}\u{2028}é👍\"\\";
        let written = json_escaped(&serde_json::to_string(text).unwrap());
        assert!(!written.chars().any(steers), "{written}");
        assert_eq!(serde_json::from_str::<String>(&written).unwrap(), text);
    }
}

//! The table of keys for people: the annotated example file and the table in the manual.

use super::keys::{KEYS, Kind, Zero};
use super::size;

/// Where comments of the example file wrap.
const WIDTH: usize = 100;

/// The text of `downstream.example.toml`: every key with its default, its meaning and its bounds.
pub fn toml() -> String {
    let mut out = String::from(
        "# DownStream configuration. Every key is here with its default; a file needs only what it changes.\n\
         # Used when it is named with --config, or as ./downstream.toml. `downstream check` reads it and reports\n\
         # every problem at once. SIGHUP reads it again; only what is marked [restart] needs a restart.\n\
         # Relative paths start at the working directory of the daemon.\n",
    );
    let mut section = "";
    for key in KEYS {
        let (of, name) = key.path.rsplit_once('.').unwrap_or(("", key.path));
        out.push('\n');
        if of != section {
            out.push_str(&format!("[{of}]\n"));
            section = of;
        }
        out.push_str(&wrap(key.doc));
        let restart = if key.reload { "" } else { "[restart]" };
        let note = format!("{} {restart}", bounds(&key.kind));
        if !note.trim().is_empty() {
            out.push_str(&wrap(&note));
        }
        out.push_str(&format!("{name} = {}\n", key.kind.default_text()));
    }
    out
}

/// The rows of the key table in `docs/operating.md`, header included.
pub fn markdown() -> String {
    let mut out = String::from("| key | default | bounds | meaning |\n|---|---|---|---|\n");
    for key in KEYS {
        let restart = if key.reload { "" } else { " Needs a restart." };
        let default = key.kind.default_text();
        out.push_str(&format!("| `{}` | `{default}` | {} | {}{restart} |\n", key.path, bounds(&key.kind), key.doc));
    }
    out
}

/// The bounds of a number in short; other kinds have theirs in their description.
fn bounds(kind: &Kind) -> String {
    match kind {
        Kind::Size { min, max, .. } => format!("{} to {}, 0 = off.", size::show(*min), size::show(*max)),
        Kind::Number { min, max, zero: Zero::Refused, .. } => format!("{min} to {max}."),
        Kind::Number { min, max, .. } => format!("{min} to {max}, 0 = off."),
        _ => String::new(),
    }
}

/// Breaks a text into comment lines.
fn wrap(text: &str) -> String {
    let mut out = String::new();
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.len() + 1 + word.len() > WIDTH {
            out.push_str(&line);
            out.push('\n');
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    out.push_str(&line);
    out.push('\n');
    out
}

//! What happened, for whoever reads a failure.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};

use downstream::session::ConnId;

/// Entries remembered.
const KEPT: usize = 20_000;
/// Entries shown of the connections that a failure is about.
const SHOWN: usize = 50;
/// Bytes of an entry that are shown.
const WIDTH: usize = 200;

/// Takes the beginning of a text and refuses the rest, so that long bodies are not written out.
struct Brief(String);

impl fmt::Write for Brief {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = WIDTH.saturating_sub(self.0.len());
        let cut = (0..=room.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        self.0.push_str(&text[..cut]);
        if cut < text.len() { Err(fmt::Error) } else { Ok(()) }
    }
}

pub struct Trace {
    /// Whether anything is remembered at all.
    kept: bool,
    entries: VecDeque<(u64, Option<ConnId>, String)>,
    pub step: u64,
}

impl Trace {
    pub fn new(kept: bool) -> Trace {
        Trace { kept, entries: VecDeque::new(), step: 0 }
    }

    pub fn note(&mut self, conn: Option<ConnId>, text: fmt::Arguments<'_>) {
        if !self.kept {
            return;
        }
        if self.entries.len() == KEPT {
            self.entries.pop_front();
        }
        let mut brief = Brief(String::new());
        if brief.write_fmt(text).is_err() {
            brief.0.push('…');
        }
        self.entries.push_back((self.step, conn, brief.0));
    }

    /// The last of what concerned `conns`, or of everything where none is named.
    pub fn show(&self, conns: &[ConnId]) -> String {
        let all = conns.is_empty() || std::env::var_os("SIM_ALL").is_some();
        let concerned = |conn: &Option<ConnId>| all || conn.is_some_and(|conn| conns.contains(&conn));
        let mut shown: Vec<String> = self
            .entries
            .iter()
            .rev()
            .filter(|(_, conn, _)| concerned(conn))
            .take(std::env::var("SIM_SHOW").ok().and_then(|text| text.parse().ok()).unwrap_or(SHOWN))
            .map(|(step, conn, text)| {
                let conn = conn.map_or_else(|| "-".to_owned(), |conn| conn.to_string());
                format!("{step:>8} {conn:>7} {text}")
            })
            .collect();
        shown.reverse();
        shown.join("\n")
    }
}

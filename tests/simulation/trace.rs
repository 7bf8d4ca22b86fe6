//! What happened, for whoever reads a failure.

use std::collections::VecDeque;

use downstream::session::ConnId;

/// Entries remembered.
const KEPT: usize = 20_000;
/// Entries shown of the connections that a failure is about.
const SHOWN: usize = 50;
/// Bytes of an entry that are shown.
const WIDTH: usize = 200;

#[derive(Default)]
pub struct Trace {
    entries: VecDeque<(u64, Option<ConnId>, String)>,
    pub step: u64,
}

impl Trace {
    pub fn note(&mut self, conn: Option<ConnId>, text: impl FnOnce() -> String) {
        if self.entries.len() == KEPT {
            self.entries.pop_front();
        }
        let mut text = text();
        if text.len() > WIDTH {
            let more = text.len();
            let cut = (0..=WIDTH).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            text.truncate(cut);
            text.push_str(&format!("… ({more} bytes)"));
        }
        self.entries.push_back((self.step, conn, text));
    }

    /// The last of what concerned `conns`, or of everything where none is named.
    pub fn show(&self, conns: &[ConnId]) -> String {
        let concerned = |conn: &Option<ConnId>| conns.is_empty() || conn.is_some_and(|conn| conns.contains(&conn));
        let mut shown: Vec<String> = self
            .entries
            .iter()
            .rev()
            .filter(|(_, conn, _)| concerned(conn))
            .take(SHOWN)
            .map(|(step, conn, text)| {
                let conn = conn.map_or_else(|| "-".to_owned(), |conn| conn.to_string());
                format!("{step:>8} {conn:>7} {text}")
            })
            .collect();
        shown.reverse();
        shown.join("\n")
    }
}

//! What everybody knows: what was sent, what was answered, what was heard. In the end the logs are judged by it.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

/// A text, short enough to keep a million of them. `DefaultHasher::new` is the same one every time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Digest(u64);

impl Digest {
    pub(crate) fn of(body: &str) -> Digest {
        let mut hasher = DefaultHasher::new();
        body.hash(&mut hasher);
        Digest(hasher.finish())
    }
}

/// A message or a file as a `* msg`, `- msg`, `* file` or `- file` line shows it.
#[derive(Debug)]
pub(crate) struct Shown<'a> {
    pub(crate) id: u64,
    pub(crate) time: &'a str,
    /// The room, or the two people in the order of their names.
    pub(crate) place: String,
    pub(crate) body: Cow<'a, str>,
    pub(crate) file: Option<ShownFile<'a>>,
}

/// What the line of a file says beside.
#[derive(Debug)]
pub(crate) struct ShownFile<'a> {
    pub(crate) number: u64,
    pub(crate) sender: &'a str,
    pub(crate) name: &'a str,
    pub(crate) size: u64,
    pub(crate) sha256: &'a str,
    pub(crate) gone: bool,
}

impl<'a> Shown<'a> {
    /// Reads a line; `None` where it shows no message and no file.
    pub(crate) fn read(line: &'a str) -> Option<Shown<'a>> {
        let (kind, row) = line.strip_prefix("* ").or_else(|| line.strip_prefix("- "))?.split_once(' ')?;
        if !["msg", "file"].contains(&kind) {
            return None;
        }
        let (head, text) = row.split_once(" :").unwrap_or_else(|| panic!("no body: {line}"));
        let words: Vec<&str> = head.split(' ').collect();
        let [id, time, target, sender, ..] = words[..] else { panic!("too few words: {line}") };
        let key = |key| value(head, key).unwrap_or_else(|| panic!("no {key}: {line}"));
        let file = (kind == "file").then(|| ShownFile {
            number: key("file").parse().unwrap(),
            sender,
            name: text,
            size: key("size").parse().unwrap(),
            sha256: key("sha256"),
            gone: value(head, "gone") == Some("yes"),
        });
        let body = match &file {
            Some(file) => file_body(file.name, file.size, file.sha256).into(),
            None => text.into(),
        };
        Some(Shown { id: id.parse().unwrap(), time, place: place(target, sender), body, file })
    }
}

/// What stands for a file where messages have a body.
pub(crate) fn file_body(name: &str, size: u64, sha256: &str) -> String {
    format!("file {name} {size} {sha256}")
}

/// The value of ` key=` in a line.
pub(crate) fn value<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    line.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
}

/// The conversation of somebody with a target.
pub(crate) fn place(target: &str, sender: &str) -> String {
    let mut pair = [target, sender];
    pair.sort_unstable();
    if target.starts_with('#') { target.to_owned() } else { pair.join("+") }
}

/// What is known of a log so far: digests by number.
pub(crate) type Log = BTreeMap<u64, Digest>;

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Everything that was ever put into a line.
    sent: HashSet<Digest>,
    /// What was refused: it must be nowhere.
    refused: HashMap<Digest, String>,
    /// What was answered `internal`. Where the commit itself failed, a crash right after it may bring it back.
    failed: HashSet<Digest>,
    acknowledged: Vec<(String, u64, Digest)>,
    /// What anybody was ever shown, and what every other must then have been shown too.
    seen: HashMap<(String, u64), Digest>,
}

impl Ledger {
    pub(crate) fn sent(&mut self, body: &str) {
        self.sent.insert(Digest::of(body));
    }

    pub(crate) fn acknowledged(&mut self, place: &str, id: u64, body: &str) {
        self.acknowledged.push((place.to_owned(), id, Digest::of(body)));
        self.saw(place, id, body);
    }

    pub(crate) fn refused(&mut self, body: &str, why: &str) {
        if why.contains(" internal ") {
            self.failed.insert(Digest::of(body));
        } else {
            self.refused.insert(Digest::of(body), why.to_owned());
        }
    }

    /// Somebody was shown a message: the same one that everybody is shown.
    pub(crate) fn saw(&mut self, place: &str, id: u64, body: &str) {
        let digest = Digest::of(body);
        let known = *self.seen.entry((place.to_owned(), id)).or_insert(digest);
        assert_eq!(known, digest, "message {id} of {place} is another one: {body}");
    }

    /// The conversations in which anything was acknowledged or shown.
    pub(crate) fn places(&self) -> HashSet<String> {
        self.seen.keys().map(|(place, _)| place.clone()).collect()
    }

    /// How many messages were acknowledged, how many the disk refused, and how many were ever shown.
    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        (self.acknowledged.len(), self.failed.len(), self.seen.len())
    }

    /// How many messages that the disk refused are there all the same and were not repeated.
    pub(crate) fn came_back(&self, logs: &BTreeMap<String, Log>) -> usize {
        let acknowledged: HashSet<Digest> = self.acknowledged.iter().map(|(_, _, digest)| *digest).collect();
        let all = logs.values().flat_map(|log| log.values());
        all.filter(|digest| self.failed.contains(digest) && !acknowledged.contains(digest)).count()
    }

    /// Judges the whole logs, which must hold all that was acknowledged or shown to anybody, once.
    pub(crate) fn judge(&self, logs: &BTreeMap<String, Log>) {
        for (place, log) in logs {
            let last = log.keys().next_back().copied().unwrap_or(0);
            assert_eq!(log.len() as u64, last, "{place} has gaps");
            let mut once = HashSet::new();
            for (id, digest) in log {
                assert!(once.insert(digest), "message {id} of {place} is there twice");
                assert!(self.sent.contains(digest), "message {id} of {place} was never sent");
                let refused = self.refused.get(digest);
                assert!(refused.is_none(), "message {id} of {place} was refused: {refused:?}");
            }
        }
        for (place, id, digest) in &self.acknowledged {
            let there = logs.get(place).and_then(|log| log.get(id));
            assert_eq!(there, Some(digest), "acknowledged as {id} in {place}, and not there");
        }
        for ((place, id), digest) in &self.seen {
            let there = logs.get(place).and_then(|log| log.get(id));
            assert_eq!(there, Some(digest), "{id} in {place} was shown to somebody, and is not there");
        }
    }
}

//! The documents against the code: the table of commands, the codes, the events, the limits, the links.
//!
//! `UPDATE_GOLDEN=1 cargo test --test docs` writes the table of `docs/protocol.md` and the worked example of
//! `docs/encryption.md` anew.
#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first thing that is wrong")]

#[cfg(feature = "client")]
#[path = "docs/encryption.rs"]
mod encryption;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use downstream::commands::Core;
use downstream::hub::effects::{Effect, Input, Now};
use downstream::hub::throttle::BUNDLES_MAX;
use downstream::ops::{Act, ROSTER_MAX, SIGNAL_LIFE_MS, SIGNALS_MAX, UPLOADS_PER_ACCOUNT};
use downstream::protocol::file::{CHUNK_MAX, FILE_NAME_MAX, GET_MAX};
use downstream::protocol::keys::{DEVICES_MAX, DH_POOL, POST_QUANTUM_POOL, ROSTER_ENTRY_MAX};
use downstream::protocol::name::{LABEL_MAX, POST_KEY_LEN, ROOM_NAME_MAX, USER_NAME_MAX};
use downstream::protocol::request::PROFILE_PART_MAX;
use downstream::protocol::verb::{ADMIN_VERBS, VERBS, Verb, WATCH_MAX};
use downstream::protocol::{Code, MAX_BODY, MAX_LINE, MAX_LINE_BEFORE_LOGIN, MAX_TARGETS, MAX_TEXT, Timestamp};
use downstream::session::{CHUNK_WINDOW, ConnId, Peer, WINDOW};

const PROTOCOL: &str = "docs/protocol.md";
const BEGIN: &str = "<!-- commands:";
const END: &str = "<!-- end of commands -->";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The text of a section of `docs/protocol.md`, by the beginning of its heading.
fn section(heading: &str) -> String {
    let text = read(PROTOCOL);
    let begin = text.find(&format!("\n{heading}")).unwrap_or_else(|| panic!("no section {heading:?}"));
    let rest = &text[begin + 1..];
    let level = heading.split(' ').next().unwrap();
    let end = rest[1..].find(&format!("\n{level} ")).map_or(rest.len(), |end| end + 1);
    rest[..end].to_owned()
}

/// What stands in the first cell of each row of the tables in a text.
fn first_cells(text: &str) -> Vec<String> {
    let rows = text.lines().filter_map(|line| line.strip_prefix("| "));
    rows.map(|row| row.replace("\\|", "\u{1}").split(" |").next().unwrap().replace('\u{1}', "|")).collect()
}

// ---- commands --------------------------------------------------------------------------------------

fn table() -> String {
    let mut out = String::from("| command | what it does |\n|---|---|\n");
    let mut row = |prefix: &str, verb: &Verb| {
        let usage = format!("/{prefix}{} {}", verb.name, verb.usage);
        let mark = if verb.before_login { " °" } else { "" };
        let usage = usage.trim_end().replace('|', "\\|");
        out.push_str(&format!("| `{usage}`{mark} | {} |\n", verb.about));
    };
    VERBS.iter().for_each(|verb| row("", verb));
    ADMIN_VERBS.iter().for_each(|verb| row("admin ", verb));
    out
}

#[test]
fn the_table_of_commands_is_that_of_the_code() {
    let text = read(PROTOCOL);
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (marker, rest) = rest.split_once('\n').unwrap();
    let (found, after) = rest.split_once(END).unwrap();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let text = format!("{before}{BEGIN}{marker}\n{}{END}{after}", table());
        return std::fs::write(root().join(PROTOCOL), text).unwrap();
    }
    assert_eq!(found, table(), "UPDATE_GOLDEN=1 cargo test --test docs writes it anew");
}

/// What the code answers to one line of a stranger.
fn answer(line: &str) -> String {
    let config = downstream::config::Config::default();
    let now = Now { monotonic: Instant::now(), wall: Timestamp::from_millis(0) };
    let mut core = Core::new(config.settings(), Vec::new(), Box::new(|_| Ok(())), now);
    let conn = ConnId { slot: 0, generation: 0 };
    let peer = Peer { address: IpAddr::from([192, 0, 2, 1]), tls: "1.3", certificate: None };
    let mut effects = Vec::new();
    core.handle(Input::Opened(conn, peer), now, &mut effects);
    effects.clear();
    core.handle(Input::Line(conn, Ok(line)), now, &mut effects);
    let sent = effects.into_iter().filter_map(|effect| match effect {
        Effect::Send(to, bytes) if to == conn => Some(String::from_utf8(bytes).unwrap()),
        _ => None,
    });
    sent.collect()
}

#[test]
fn help_is_the_table_of_commands() {
    let rows = |prefix: &str, verbs: &[Verb]| -> String {
        let row = |verb: &Verb| {
            let usage = format!("{prefix}{} {}", verb.name, verb.usage);
            format!("- help /{} — {}\n", usage.trim_end(), verb.about)
        };
        verbs.iter().map(row).collect()
    };
    assert_eq!(answer("/help"), format!("{}OK help\n", rows("", VERBS)));
    for verb in VERBS {
        let more = if verb.name == "admin" { rows("admin ", ADMIN_VERBS) } else { String::new() };
        let expected = format!("{}{more}OK help\n", rows("", std::slice::from_ref(verb)));
        assert_eq!(answer(&format!("/help {}", verb.name)), expected);
    }
}

#[test]
fn every_command_and_option_is_explained_beyond_the_table() {
    let text = section("## 4.");
    let (_, rest) = text.split_once(END).unwrap();
    let cells = first_cells(rest).join(" \n");
    for (prefix, verbs) in [("/", VERBS), ("/admin ", ADMIN_VERBS)] {
        for verb in verbs.iter().filter(|verb| verb.name != "admin") {
            let name = format!("{prefix}{}", verb.name);
            let whole = [" ", "`"].iter().any(|end| cells.contains(&format!("`{name}{end}")));
            assert!(whole, "{name} has no row that gives its reply");
            for option in verb.options {
                let named = rest.contains(&format!("{option}=")) || rest.contains(&format!("`{option}`"));
                assert!(named, "{name} {option}=");
            }
        }
    }
}

// ---- codes and events ------------------------------------------------------------------------------

#[test]
fn every_code_is_explained_and_no_other() {
    let explained: Vec<String> = first_cells(&section("## 6."))
        .into_iter()
        .filter(|cell| cell.starts_with('`'))
        .map(|cell| cell.trim_matches('`').to_owned())
        .collect();
    let codes: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(explained, codes);
}

fn sources(directory: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// The code of the core as it ships, in one piece and without line breaks.
fn core_code() -> String {
    let mut files = vec![root().join("src/commands.rs"), root().join("src/ops.rs")];
    sources(&root().join("src/commands"), &mut files);
    sources(&root().join("src/ops"), &mut files);
    let code = files.iter().map(|file| read(file).split("\n#[cfg(test)]\nmod ").next().unwrap().to_owned());
    code.collect::<String>().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The text literals that stand first behind each `call` in a code.
fn literals(code: &str, call: &str) -> BTreeSet<String> {
    let behind = code.split(call).skip(1);
    let literal = |rest: &str| rest.trim_start().strip_prefix('"')?.split('"').next().map(str::to_owned);
    behind.filter_map(literal).collect()
}

#[test]
fn every_event_is_explained_and_no_other() {
    let mut kinds = literals(&core_code(), "Line::event(");
    kinds.extend(literals(&core_code(), "Line::event_behind("));
    assert!(kinds.len() > 10, "the code writes events in another way: {kinds:?}");
    let acts = [Act::Invite, Act::Kick, Act::Ban, Act::Unban, Act::Op, Act::Deop];
    kinds.extend(acts.map(|act| act.as_str().to_owned()));
    let explained: BTreeSet<String> = first_cells(&section("## 5."))
        .iter()
        .filter_map(|cell| cell.strip_prefix("`* "))
        .map(|event| event.trim_end_matches('`').split(' ').next().unwrap().to_owned())
        .collect();
    assert_eq!(explained, kinds);
}

#[test]
fn every_reason_of_bye_is_explained() {
    let code = core_code();
    let mut reasons = BTreeSet::new();
    // `bye(conn, "reason", …)` and `end_sessions(account, except, "reason", …)`.
    for (call, at) in [("self.bye(", 1), ("self.end_sessions(", 2)] {
        for arguments in code.split(call).skip(1) {
            let argument = arguments.split(", ").nth(at).unwrap_or_default();
            reasons.extend(argument.strip_prefix('"').and_then(|text| text.strip_suffix('"')).map(str::to_owned));
        }
    }
    // What stands in a match, or is passed on by `end_sessions`, was found at its own place.
    assert!(reasons.contains("shutdown") && reasons.contains("kicked"), "{reasons:?}");
    let explained = first_cells(&section("## 5."));
    for reason in reasons {
        assert!(explained.contains(&format!("`{reason}`")), "bye {reason}");
    }
}

// ---- limits and links ------------------------------------------------------------------------------

#[test]
fn the_limits_are_those_of_the_code() {
    let fixed = section("## 8.");
    let row = |name: &str| {
        let row = fixed.lines().find(|line| line.starts_with(&format!("| {name} |")));
        row.unwrap_or_else(|| panic!("no row {name:?}")).to_owned()
    };
    for (name, numbers) in [
        ("a line; before login", vec![MAX_LINE, MAX_LINE_BEFORE_LOGIN]),
        ("a body", vec![MAX_BODY]),
        ("a topic, a reason, an away text, a notice", vec![MAX_TEXT]),
        ("targets of one `/msg`", vec![MAX_TARGETS]),
        ("a part of a profile", vec![PROFILE_PART_MAX]),
        ("names of one `/watch`; of a session", vec![WATCH_MAX]),
        ("passwords waiting to be checked", vec![downstream::commands::HASHES_MAX]),
        ("the name of a file", vec![FILE_NAME_MAX]),
        ("a chunk; a piece of `/get-file`", vec![CHUNK_MAX, GET_MAX as usize]),
        ("uploads of an account that are not finished", vec![UPLOADS_PER_ACCOUNT as usize]),
        (
            "chunks on their way to the disk: of a connection; of all",
            vec![WINDOW as usize, CHUNK_WINDOW >> 20, downstream::commands::CHUNKS_MAX >> 20],
        ),
        ("devices of an account", vec![DEVICES_MAX]),
        ("one-time keys in a record, and kept for a device: X25519; ML-KEM", vec![DH_POOL, POST_QUANTUM_POOL]),
        ("bundles that one account takes of another", vec![BUNDLES_MAX as usize]),
        ("an entry of a roster", vec![ROSTER_ENTRY_MAX]),
        ("entries of a roster", vec![ROSTER_MAX as usize]),
        ("signals that wait from one sender to one receiver", vec![SIGNALS_MAX as usize]),
        ("a signal that nobody acknowledges", vec![(SIGNAL_LIFE_MS / (24 * 3600 * 1000)) as usize]),
    ] {
        let row = row(name);
        for number in numbers {
            assert!(row.split(|c: char| !c.is_ascii_digit()).any(|word| word == number.to_string()), "{row}: {number}");
        }
    }
    let low = format!("with fewer than {} keys", downstream::ops::POOL_LOW);
    assert!(section("## 4.").contains(&low), "{low}");
    let text = section("## 2.");
    let keys = format!("KEY is {} to {}", POST_KEY_LEN.start(), POST_KEY_LEN.end());
    assert!(section("## 4.").contains(&keys));
    for limit in
        [format!("1 to {USER_NAME_MAX} of"), format!("1 to {ROOM_NAME_MAX} of"), format!("1 to {LABEL_MAX} of")]
    {
        assert!(text.contains(&limit), "{limit}");
    }

    // What the operator can change: the defaults of the example file.
    let example = read("downstream.example.toml");
    let default = |key: &str| {
        let line = example.lines().find(|line| line.starts_with(&format!("{key} = ")));
        line.unwrap_or_else(|| panic!("no key {key}")).split(" = ").nth(1).unwrap().to_owned()
    };
    let (_, changeable) = fixed.split_once("| limit | default |").unwrap();
    let (changeable, _) = changeable.split_once("\n\n").unwrap();
    let rows = changeable.lines().filter(|line| line.starts_with("| `"));
    let mut seen = 0;
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").collect();
        let digits = |text: &str| -> Vec<String> {
            let words = text.split(|c: char| !c.is_ascii_digit()).filter(|word| !word.is_empty());
            words.map(str::to_owned).collect()
        };
        for (key, number) in cells[0].split(", ").zip(digits(cells[1])) {
            let key = key.trim().trim_matches('`');
            let name = key.rsplit('.').next().unwrap();
            assert_eq!([number], digits(&default(name))[..], "{key}");
            seen += 1;
        }
    }
    assert_eq!(seen, 19, "every key of [limits] and [files], sessions_per_account and retention.days");
}

fn documents() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for directory in ["", "docs", "certs"] {
        for entry in std::fs::read_dir(root().join(directory)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// What GitHub makes of a heading: lower case, no punctuation, dashes for spaces.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().trim().to_lowercase().replace(' ', "-")
}

fn anchors(text: &str) -> BTreeSet<String> {
    let mut code = false;
    let mut found = BTreeSet::new();
    for line in text.lines() {
        code ^= line.starts_with("```");
        if !code && line.starts_with('#') {
            found.insert(anchor(line.trim_start_matches('#')));
        }
    }
    found
}

#[test]
fn links_lead_somewhere() {
    let mut links = 0;
    for document in documents() {
        let text = read(&document);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            links += 1;
            let (file, part) = link.split_once('#').map_or((link, None), |(file, part)| (file, Some(part)));
            let path = if file.is_empty() { document.clone() } else { document.parent().unwrap().join(file) };
            assert!(path.exists(), "{}: {link}", document.display());
            if let Some(part) = part {
                assert!(anchors(&read(&path)).contains(part), "{}: {link}", document.display());
            }
        }
    }
    assert!(links > 10, "links are written in another way");
}

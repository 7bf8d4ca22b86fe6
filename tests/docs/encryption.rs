//! `docs/encryption.md` against `src/e2e`: lengths, labels, codes, limits, the worked example.

#[path = "example.rs"]
mod example;

use downstream::e2e::armour::ENVELOPE_MAX;
use downstream::e2e::bundle::{KeyKind, OPK_POOL, PQK_POOL};
use downstream::e2e::cert::LIFE_MAX;
use downstream::e2e::descriptor::{MIME_MAX, NAME_MAX};
use downstream::e2e::device_list::DEVICES_MAX;
use downstream::e2e::envelope::SLOTS_MAX;
use downstream::e2e::error::Error;
use downstream::e2e::inner::TEXT_MAX;
use downstream::e2e::keyslot::Cost;
use downstream::e2e::name::{ROOM_MAX, USER_MAX};
use downstream::e2e::{file, link, marks, padding, prekeys, ratchet, room, roster_log, sender_key, sessions};
use downstream::e2e::{skipped, thread};

use super::{first_cells, read, root};

const FILE: &str = "docs/encryption.md";
const BEGIN: &str = "<!-- example:";
const END: &str = "<!-- end of example -->";
const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// The text of a section, by its number.
fn section(number: u32) -> String {
    let text = read(FILE);
    let (_, rest) = text.split_once(&format!("\n## {number}. ")).unwrap_or_else(|| panic!("no section {number}"));
    rest.split("\n## ").next().unwrap().to_owned()
}

/// The rows of the tables in a text that begin with a code, cell by cell.
fn coded_rows(text: &str) -> Vec<Vec<String>> {
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| row.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect()).collect()
}

/// Every word in backquotes.
fn quoted(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn the_labels_are_those_of_the_code() {
    let code = read("src/e2e/labels.rs");
    let code = code.split("#[cfg(test)]").next().unwrap();
    // A comment stands over the labels of each use.
    let groups = code.split("\n// ").skip(1).map(|group| {
        let labels = group.split("label!(\"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned());
        labels.collect::<Vec<_>>()
    });
    let rows = section(20);
    let rows = rows.lines().filter(|line| line.starts_with("| ") && line.contains(" | `"));
    let documented: Vec<Vec<String>> = rows.map(|row| quoted(row.split(" | ").nth(1).unwrap())).collect();
    assert_eq!(documented, groups.collect::<Vec<_>>());
    assert_eq!(documented.concat().len(), 21);
    // And what the text calls a label is one.
    let text = read(FILE);
    for used in text.split("L\"").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(used == "x" || documented.concat().iter().any(|label| label == used), "{used}");
    }
}

#[test]
fn the_codes_are_those_of_the_code() {
    let all = [
        Error::Syntax,
        Error::Plain,
        Error::Identity,
        Error::UnlistedDevice,
        Error::NoSession,
        Error::NoPrekey,
        Error::Handshake,
        Error::LowOrder,
        Error::Signature,
        Error::Commit,
        Error::Auth,
        Error::Payload,
        Error::Padding,
        Error::Inner,
        Error::Replay,
        Error::Reused,
        Error::TooFar,
        Error::Clock,
        Error::NotForThisDevice,
        Error::Own,
        Error::NeedRoster,
        Error::NoChain,
        Error::BeforeChain,
        Error::ClosedChain,
        Error::NotMember,
        Error::ChainTaken,
        Error::Fork,
        Error::Room,
    ];
    let text = section(11);
    let documented: Vec<(String, bool)> =
        coded_rows(&text).iter().map(|row| (row[0].trim_matches('`').to_owned(), row[2].contains("yes"))).collect();
    let expected: Vec<(String, bool)> = all.iter().map(|e| (e.code().to_owned(), e.calls_for_reset())).collect();
    assert_eq!(documented, expected);
    // One that was added to the code is missing above: all but `random`, which is no verdict.
    let code = read("src/e2e/error.rs");
    let code = code.split("pub fn code(self)").nth(1).unwrap().split("\n    }\n").next().unwrap();
    assert_eq!(code.matches(" => \"").count(), all.len() + 1);
    assert!(text.contains(&format!("`{}` is no verdict", Error::Random.code())));
}

#[test]
fn the_limits_are_those_of_the_code() {
    let text = section(21);
    let mut rows = first_cells(&text);
    rows.retain(|name| name != "limit");
    let hours = |seconds: u64| seconds / HOUR;
    let days = |seconds: u64| seconds / DAY;
    let n = |count: usize| count as u64;
    let (floor, ceiling) = (Cost::FLOOR, Cost::CEILING);
    let expected: Vec<(&str, Vec<u64>)> = vec![
        ("bytes of an envelope", vec![n(ENVELOPE_MAX)]),
        ("bytes of a text", vec![n(TEXT_MAX)]),
        ("bytes of a user's, of a room's name (without `#`)", vec![n(USER_MAX), n(ROOM_MAX)]),
        ("bytes of a file's name; of its media type", vec![n(NAME_MAX), n(MIME_MAX)]),
        ("bytes of a file", vec![file::SIZE_MAX]),
        ("slots of a MULTI", vec![n(SLOTS_MAX)]),
        ("devices of an account", vec![n(DEVICES_MAX)]),
        ("days of a certificate", vec![days(LIFE_MAX)]),
        ("hours that a clock may be behind the one that made a certificate, prekey or handshake", vec![24]),
        ("days after which a signed prekey, or one of last resort, is not taken", vec![days(prekeys::KEEP_REPLACED)]),
        ("one-time keys in a record: X25519; ML-KEM", vec![n(OPK_POOL), n(PQK_POOL)]),
        (
            "messages skipped in a chain of a session; of a room",
            vec![ratchet::SKIP_MAX.into(), sender_key::SKIP_MAX.into()],
        ),
        (
            "skipped keys of a session, or of a chain of a room; days that they are kept",
            vec![n(skipped::KEYS_MAX), days(skipped::KEEP)],
        ),
        ("receiving chains of a session before the current one", vec![n(skipped::OLD_CHAINS_MAX)]),
        (
            "messages of a chain of a session; days until a new session is due",
            vec![ratchet::REKEY_AT.into(), days(ratchet::REKEY_AFTER)],
        ),
        ("messages of a chain of a room; days", vec![sender_key::ROTATE_AT.into(), days(sender_key::ROTATE_AFTER)]),
        ("chains kept of a sending device in a room", vec![n(room::CHAINS_PER_DEVICE)]),
        ("hours that chains of a removed member are kept", vec![hours(room::REMOVED_KEEP)]),
        ("minutes that a link code is good; pins handed over", vec![link::LIFE / MINUTE, n(link::PINS_MAX)]),
        (
            "resets to a device in 24 hours; hours between two",
            vec![n(sessions::RESETS_PER_DAY), hours(sessions::RESET_EVERY)],
        ),
        ("hours between two links to a device that asks", vec![hours(room::ANSWER_EVERY)]),
        (
            "sessions beside the active one; days after their last use",
            vec![n(sessions::OTHERS_MAX), days(sessions::OTHERS_KEEP)],
        ),
        (
            "days after which signed prekeys are replaced; that the private part is kept",
            vec![days(prekeys::ROTATE_AFTER), days(prekeys::KEEP_REPLACED)],
        ),
        ("fewer one-time keys than these, and the pool is filled", vec![n(prekeys::REFILL_BELOW)]),
        (
            "KiB, passes and lanes of a slot at least; at most",
            vec![
                floor.m_kib.into(),
                floor.t.into(),
                floor.p.into(),
                ceiling.m_kib.into(),
                ceiling.t.into(),
                ceiling.p.into(),
            ],
        ),
        ("bytes of the smallest padded text", vec![padding::FLOOR]),
        ("replay marks of a sending device", vec![n(marks::MARKS_MAX)]),
        ("handshakes without an OPK that are remembered for an SPK", vec![n(prekeys::REPLAY_CACHE_MAX)]),
        ("one-time private keys of a kind", vec![n(prekeys::ONE_TIME_MAX)]),
        ("failed envelopes remembered of a device", vec![n(sessions::FAILURES_MAX)]),
        ("hashes kept of a device in a conversation, to tell a conflict", vec![n(thread::RECENT_MAX)]),
        ("gaps kept apart of a device in a conversation", vec![n(thread::RUNS_MAX)]),
        ("accepted entries of a roster", vec![n(roster_log::ENTRIES_MAX)]),
    ];
    assert_eq!(rows, expected.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    for (name, numbers) in expected {
        let row = text.lines().find(|line| line.starts_with(&format!("| {name} |"))).unwrap();
        let value = row.split(" | ").nth(1).unwrap();
        let found: Vec<u64> = value.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect();
        assert!(found.ends_with(&numbers), "{row}: {numbers:?}");
    }
}

#[test]
fn the_lengths_are_those_of_the_code() {
    let text = read(FILE).split_whitespace().collect::<Vec<_>>().join(" ");
    let dh = KeyKind::Spk.key_len();
    let kem = KeyKind::Pqk.key_len();
    let bundle = 2 + 200 + 1 + 1 + 2 * dh + kem;
    let short = 256 + sender_key::GROUP_OVERHEAD;
    for sentence in [
        format!("It has {dh} bytes with an X25519 key and {kem} with an ML-KEM-768 key"),
        format!("{bundle} bytes for \"alice\" with an OPK"),
        format!("A short line is {short} bytes."),
        format!("{} bytes of text and a tag of 16 each", file::CHUNK),
        format!("chunk k stands at {} + k · {}", file::HEADER, file::SEALED_CHUNK),
        format!("m = {}, t = {}, p = {}", Cost::DEFAULT.m_kib, Cost::DEFAULT.t, Cost::DEFAULT.p),
    ] {
        assert!(text.contains(&sentence), "{sentence}");
    }
}

/// A value on lines of 32 bytes, behind its name.
fn entry(name: &str, value: &str) -> String {
    let lines: Vec<&str> = match value.contains(' ') {
        true => vec![value],
        false => value.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect(),
    };
    format!("{name}\n    {}\n", lines.join("\n    "))
}

#[test]
fn the_worked_example_is_what_the_formulas_give() {
    let values: String = example::values().iter().map(|(name, value)| entry(name, value)).collect();
    let text = read(FILE);
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (marker, rest) = rest.split_once('\n').unwrap();
    let (found, after) = rest.split_once(END).unwrap();
    let block = format!("```\n{values}```\n");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let text = format!("{before}{BEGIN}{marker}\n{block}{END}{after}");
        return std::fs::write(root().join(FILE), text).unwrap();
    }
    assert_eq!(found, block, "UPDATE_GOLDEN=1 cargo test --test docs writes it anew");
}

//! Whether every file is there in the end: in its log, in the lists, on the disk, byte for byte; and nothing else.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::cast::{CAST, LISTENER, below};
use crate::files::{SENDER, SENDERS};
use crate::ledger::{Shown, value};
use crate::readers;
use crate::shelf::{Item, Shelf, State};
use crate::stage::{Session, Stage};
use crate::support::Home;
use crate::support::client::wait_until;

/// Where the daemon keeps the data, below its home.
const DIRECTORY: &str = "data/files";

/// Looks at everything; all logs were read before, so that whatever stands in them is known. Says what was there.
pub(crate) fn take(stage: &Stage, home: &Home) -> String {
    let uploads = uploads(stage);
    finish_drops(stage);
    let items = stage.shelf.lock().unwrap().items();
    let whole = items.iter().filter(|item| item.state == State::Whole).count();
    look_up(stage, &items);
    rows(stage, &items);
    let bytes = read_back(stage, &items);
    wait_until("nothing else lies on the disk", || on_disk(home) == stage.shelf.lock().unwrap().data());
    use_of_disk(stage, &items);
    format!(
        "{} files of which {whole} were not dropped, {bytes} bytes: all there; {uploads} uploads were under way",
        items.len()
    )
}

/// What lies in the daemon's directory.
fn on_disk(home: &Home) -> HashSet<u64> {
    let entries = std::fs::read_dir(home.path(DIRECTORY)).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap().parse().unwrap()).collect()
}

/// All pages of `/files`, by number.
fn list(session: &mut Session<'_>) -> BTreeMap<u64, String> {
    let mut all = BTreeMap::new();
    loop {
        let after = all.keys().next_back().copied().unwrap_or(0);
        session.client.say(&format!("/files after={after}"));
        let answer = session.reply(|row| {
            let number = row.split(' ').nth(2).unwrap().parse().unwrap();
            assert!(number > after && all.insert(number, row.to_owned()).is_none(), "{row}");
        });
        if value(&answer.unwrap(), "more") == Some("no") {
            return all;
        }
    }
}

/// Every upload is where its sender was told that it is; then they are dropped. How many there were.
fn uploads(stage: &Stage) -> usize {
    let mut count = 0;
    for user in (0..SENDERS).map(|n| format!("{SENDER}{n}")).chain(["vandal0".to_owned()]) {
        let mut session = stage.login(&user).unwrap();
        let mut listed = list(&mut session);
        listed.retain(|_, row| value(row, "state") == Some("partial"));
        let known = acknowledged(&stage.shelf.lock().unwrap(), &user);
        for (number, acknowledged) in known {
            let row = listed.get(&number).map(|row| value(row, "offset").unwrap().parse::<usize>().unwrap());
            assert!(
                row.is_some_and(|offset| offset >= acknowledged),
                "{user}: {number} is not at {acknowledged}: {row:?}"
            );
        }
        count += listed.len();
        for number in listed.keys() {
            let answer = session.ask(&format!("/drop-file {number}")).unwrap();
            assert_eq!(answer, format!("OK drop-file file={number}"));
        }
    }
    count
}

/// The uploads that a sender must find, and how far they had come. Those that the last answer may have ended are
/// not among them.
fn acknowledged(shelf: &Shelf, user: &str) -> HashMap<u64, usize> {
    let hand = shelf.hands().filter(|(owner, _)| *owner == user).flat_map(|(_, hand)| hand);
    let going = hand.filter(|parcel| !parcel.may_be_void() && parcel.sent < parcel.size);
    going.filter_map(|parcel| Some((parcel.number?, parcel.acknowledged))).collect()
}

/// Where nobody heard whether a file is dropped, it is now.
fn finish_drops(stage: &Stage) {
    for item in stage.shelf.lock().unwrap().items() {
        if item.state == State::Dropping {
            let mut session = stage.login(&item.sender).unwrap();
            let answer = session.ask(&format!("/drop-file {}", item.number)).unwrap();
            assert!(
                ["OK ", "ERR drop-file not-found "].iter().any(|end| answer.starts_with(end)),
                "{item:?}: {answer}"
            );
            stage.shelf.lock().unwrap().set(item.number, State::Gone);
        }
    }
}

/// The lists have all files that are whole, and no others.
fn look_up(stage: &Stage, items: &[Item]) {
    for part in CAST {
        let user = part.account(0);
        let listed: Vec<u64> = list(&mut stage.login(&user).unwrap()).into_keys().collect();
        let there = items.iter().filter(|item| item.state == State::Whole && item.is_for(&user));
        assert_eq!(listed, there.map(|item| item.number).collect::<Vec<_>>(), "the list of {user}");
    }
}

/// Who reads a file of this conversation.
fn reader_of(place: &str) -> (&str, &str) {
    place.split_once('+').unwrap_or((LISTENER, place))
}

/// By conversation.
fn by_place(items: &[Item]) -> BTreeMap<&str, Vec<&Item>> {
    let mut places: BTreeMap<&str, Vec<&Item>> = BTreeMap::new();
    items.iter().for_each(|item| places.entry(&item.place).or_default().push(item));
    places
}

/// Each row of a log says whether the bytes are still there.
fn rows(stage: &Stage, items: &[Item]) {
    for (place, items) in by_place(items) {
        let (reader, target) = reader_of(place);
        let mut session = stage.login(reader).unwrap();
        for item in items {
            session.client.say(&format!("/fetch {target} after={} limit=1", item.id - 1));
            let mut gone = None;
            let answer = session.reply(|row| gone = Shown::read(row).and_then(|shown| Some(shown.file?.gone))).unwrap();
            assert_eq!(gone, Some(item.state == State::Gone), "{item:?}: {answer}");
        }
    }
}

/// Reads every file, or hears that it is gone; how many bytes there were.
fn read_back(stage: &Stage, items: &[Item]) -> u64 {
    let mut bytes = 0;
    for (place, items) in by_place(items) {
        let (one, target) = reader_of(place);
        // Of two people now the one and now the other.
        let reader = if below(2, items.len() as u64, 60) == 0 || place.starts_with('#') { one } else { target };
        let mut session = stage.login(reader).unwrap();
        for item in items {
            if item.state == State::Whole {
                assert!(readers::get(&mut session, item, 0).unwrap(), "{item:?} cannot be read");
                bytes += item.size;
            } else {
                let answer = session.ask(&format!("/get-file {}", item.number)).unwrap();
                assert!(answer.starts_with("ERR get-file not-found "), "{item:?}: {answer}");
            }
        }
    }
    bytes
}

/// What counts against quotas is what is there.
fn use_of_disk(stage: &Stage, items: &[Item]) {
    let mut session = stage.login(LISTENER).unwrap();
    let mut found = HashMap::new();
    session.client.say("/admin stats");
    session
        .reply(|row| {
            let (key, count) = row.strip_prefix("- stat ").unwrap().split_once(' ').unwrap();
            found.insert(key.to_owned(), count.trim_start_matches(':').to_owned());
        })
        .unwrap();
    let whole: Vec<u64> = items.iter().filter(|item| item.state == State::Whole).map(|item| item.size).collect();
    let counted: u64 = whole.iter().map(|size| (*size).max(downstream::ops::FILE_BYTES_MIN)).sum();
    assert_eq!(found["files"], whole.len().to_string(), "{found:?}");
    assert_eq!(found["file-bytes"], counted.to_string(), "{found:?}");
}

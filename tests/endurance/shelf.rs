//! What everybody knows of files: those that stand in a conversation, and those that are on their way. In the end
//! the daemon is judged by it, and its directory.

use std::collections::{BTreeMap, HashMap, HashSet};

use downstream::ops::Sha256;

use crate::cast::below;
use crate::ledger::{ShownFile, file_body};
use crate::support::noise;

/// What becomes of a parcel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It arrives.
    Arrive,
    /// Its bytes are not those that were announced.
    Forged,
    /// Nobody goes on with it from about here.
    Left(usize),
    /// It is dropped from about here.
    Dropped(usize),
}

/// A file on its way, as its sender knows it.
#[derive(Debug)]
pub(crate) struct Parcel {
    pub(crate) name: String,
    pub(crate) target: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) size: usize,
    /// As it is announced, in hexadecimal.
    pub(crate) sha256: String,
    pub(crate) fate: Fate,
    /// The daemon's number.
    pub(crate) number: Option<u64>,
    /// So many bytes were acknowledged.
    pub(crate) acknowledged: usize,
    /// So many were ever sent.
    pub(crate) sent: usize,
    /// Where the next chunk begins; it must be announced where there is nothing.
    pub(crate) next: Option<usize>,
    /// Somebody has asked to drop it, and the answer did not come yet.
    pub(crate) dropping: bool,
    /// Nobody goes on with it for now.
    pub(crate) left: bool,
    pub(crate) over: bool,
}

impl Parcel {
    /// A file from `user` whose name says what its bytes are.
    pub(crate) fn new(user: &str, target: &str, number: u64, size: usize, fate: Fate) -> Parcel {
        let name = format!("{user}.{number}.{size}");
        let bytes = noise(number, size);
        let announced =
            if fate == Fate::Forged { Sha256::of(&[b"other ", &*bytes].concat()) } else { Sha256::of(&bytes) };
        Parcel {
            name,
            target: target.to_owned(),
            bytes,
            size,
            sha256: announced.to_hex(),
            fate,
            number: None,
            acknowledged: 0,
            sent: 0,
            next: None,
            dropping: false,
            left: false,
            over: false,
        }
    }

    /// As it would stand in a log.
    pub(crate) fn body(&self) -> String {
        file_body(&self.name, self.size as u64, &self.sha256)
    }

    /// How far it goes at most.
    pub(crate) fn end(&self) -> usize {
        match self.fate {
            Fate::Arrive | Fate::Forged => self.size,
            Fate::Left(at) | Fate::Dropped(at) => at,
        }
    }

    /// The daemon may have thrown it away for a reason.
    pub(crate) fn may_be_void(&self) -> bool {
        self.dropping || (self.fate == Fate::Forged && self.sent == self.size)
    }
}

/// The bytes of a file whose name says them.
pub(crate) fn bytes_of(name: &str) -> Vec<u8> {
    let words: Vec<&str> = name.split('.').collect();
    let [_, number, size] = words[..] else { panic!("nobody sent a file of the name {name}") };
    noise(number.parse().unwrap(), size.parse().unwrap())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Whole,
    /// Its sender has asked to drop it.
    Dropping,
    /// And was told that it is gone.
    Gone,
}

/// A file that stands in a conversation.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub(crate) number: u64,
    pub(crate) place: String,
    pub(crate) id: u64,
    pub(crate) sender: String,
    pub(crate) name: String,
    pub(crate) size: u64,
    pub(crate) state: State,
}

impl Item {
    /// Whether an account may get it.
    pub(crate) fn is_for(&self, user: &str) -> bool {
        self.place.starts_with('#') || self.place.split('+').any(|person| person == user)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Shelf {
    items: BTreeMap<u64, Item>,
    /// What each sender is about, also while its connection is gone.
    hands: HashMap<String, Vec<Parcel>>,
    /// Numbers of uploads, the last ones.
    uploads: Vec<(String, u64)>,
    highest: u64,
}

impl Shelf {
    /// A line showed a file: the same one that it always was.
    pub(crate) fn saw(&mut self, place: &str, id: u64, file: &ShownFile<'_>) {
        let ShownFile { number, sender, name, size, gone, .. } = *file;
        self.put(place, id, number, sender, name, size);
        let state = self.items[&number].state;
        assert!(!gone || state != State::Whole, "file {number} is shown as gone, and nobody dropped it");
    }

    /// A file became message `id` of a conversation.
    pub(crate) fn put(&mut self, place: &str, id: u64, number: u64, sender: &str, name: &str, size: u64) {
        self.highest = self.highest.max(number);
        let item = self.items.entry(number).or_insert_with(|| Item {
            number,
            place: place.to_owned(),
            id,
            sender: sender.to_owned(),
            name: name.to_owned(),
            size,
            state: State::Whole,
        });
        let known = (&*item.place, item.id, &*item.sender, &*item.name, item.size);
        assert_eq!(known, (place, id, sender, name, size), "file {number} is another one");
    }

    /// An upload has this number.
    pub(crate) fn began(&mut self, user: &str, number: u64) {
        self.highest = self.highest.max(number);
        if self.uploads.len() >= 64 {
            self.uploads.remove(0);
        }
        self.uploads.push((user.to_owned(), number));
    }

    /// The highest number that was ever given, as far as anybody knows.
    pub(crate) fn highest(&self) -> u64 {
        self.highest
    }

    /// An upload of somebody else.
    pub(crate) fn upload_of_others(&self, user: &str, salt: u64) -> Option<u64> {
        let others: Vec<u64> = self.uploads.iter().filter(|(who, _)| who != user).map(|(_, number)| *number).collect();
        others.get(below(others.len().max(1) as u64, salt, 1) as usize).copied()
    }

    pub(crate) fn state(&self, number: u64) -> Option<State> {
        self.items.get(&number).map(|item| item.state)
    }

    pub(crate) fn set(&mut self, number: u64, state: State) {
        self.items.get_mut(&number).unwrap().state = state;
    }

    pub(crate) fn items(&self) -> Vec<Item> {
        self.items.values().cloned().collect()
    }

    /// One of those that fit.
    pub(crate) fn draw(&self, salt: u64, fits: impl Fn(&Item) -> bool) -> Option<Item> {
        let all: Vec<&Item> = self.items.values().filter(|item| fits(item)).collect();
        all.get(below(all.len().max(1) as u64, salt, 2) as usize).map(|item| (*item).clone())
    }

    pub(crate) fn count(&self, fits: impl Fn(&Item) -> bool) -> usize {
        self.items.values().filter(|item| fits(item)).count()
    }

    /// What a sender was about when its connection ended. Nothing is known of where the daemon is with it.
    pub(crate) fn take_hand(&mut self, user: &str) -> Vec<Parcel> {
        let mut hand = self.hands.remove(user).unwrap_or_default();
        hand.iter_mut().for_each(|parcel| parcel.next = None);
        hand
    }

    pub(crate) fn put_hand(&mut self, user: &str, hand: Vec<Parcel>) {
        self.hands.insert(user.to_owned(), hand);
    }

    /// The parcels that are not over, by sender.
    pub(crate) fn hands(&self) -> impl Iterator<Item = (&String, &Vec<Parcel>)> {
        self.hands.iter()
    }

    /// What must lie in the daemon's directory.
    pub(crate) fn data(&self) -> HashSet<u64> {
        let whole = self.items.values().filter(|item| item.state == State::Whole && item.size > 0);
        whole.map(|item| item.number).collect()
    }
}

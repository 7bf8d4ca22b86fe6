//! End-to-end works, for both programs that measure: two people who talk, a room of many, a file. On the pure
//! library, with the world of devices of its tests; what it costs to fetch and to store is no part of it.

#![allow(dead_code, reason = "each of the two programs uses its own part")]
#![expect(clippy::expect_used, reason = "a work that cannot be done has to end the measurement")]

use std::hint::black_box;

use downstream::e2e::file::{HEADER, Opener, Sealer};
use downstream::e2e::inner::{Body, Via};
use downstream::e2e::name::{RoomId, RoomName};
use downstream::e2e::receive::{Line, Target};
use downstream::e2e::roster::Op;
use downstream::e2e::send::Answers;

pub(crate) use common::Seeded;
use common::{Device, Sent, World, at, user};

#[path = "../../tests/e2e_common/mod.rs"]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "the tests' own world of devices: it fails loudly"
)]
mod common;

/// What a message says: 128 bytes, as in the other works.
fn text() -> String {
    "x".repeat(128)
}

/// A sender and one of its receivers, with their sessions under way.
#[derive(Clone)]
pub(crate) struct Talk {
    from: Device,
    to: Device,
    room: Option<(RoomId, RoomName)>,
}

impl Talk {
    /// Two people with a device each, after a word from each.
    pub(crate) fn direct() -> Talk {
        let mut world = World::new(1);
        let (mut from, mut to) = (world.device("alice"), world.device("bob"));
        world.learn(&mut to, &user("alice"), at(1));
        let line = world.say(&mut from, "bob", "hello", at(2));
        to.text(&line, at(2));
        let line = world.say(&mut to, "alice", "hello", at(3));
        from.text(&line, at(3));
        Talk { from, to, room: None }
    }

    /// A room of `members` people with a device each, all of whom were given the sender's chain.
    pub(crate) fn room(members: usize) -> Talk {
        let mut world = World::new(2);
        let mut from = world.device_with("alice", false);
        let mut to = world.device_with("bob", false);
        let room = world.create_room(&mut from, "#hall", false);
        let others = (2..members).map(|i| format!("m{i}"));
        for name in std::iter::once("bob".to_owned()).chain(others) {
            if name != "bob" {
                world.device_with(&name, false);
            }
            world.roster(&mut from, &room, Op::Add, &user(&name), at(1));
        }
        world.read_roster(&mut to, &room, at(1));
        world.learn(&mut to, &user("alice"), at(1));
        let (signals, line) = world.say_room(&mut from, &room, "hello", at(2)).expect("everybody has keys");
        for signal in signals.iter().filter(|signal| signal.to == "bob") {
            drop(to.open(signal, at(2)));
        }
        to.text(&line, at(2));
        let id = from.state.room_named(&room).map(|room| room.roster.id());
        Talk { room: id.zip(Some(room)), from, to }
    }

    /// Seals a message.
    pub(crate) fn seal(&mut self) -> Sent {
        let Device { state, rng } = &mut self.from;
        let (body, none, now) = (Body::Text(text()), Answers::default(), at(10));
        let (sealed, to) = match &self.room {
            None => {
                let to = self.to.state.me.user().clone();
                (state.seal_message(&to, body, &none, now, rng), to.to_string())
            }
            Some((id, name)) => {
                (state.seal_room(id, body, &none, now, rng).map(|sealed| sealed.message), name.to_string())
            }
        };
        let sealed = sealed.expect("the sessions are there");
        state.apply(sealed.change);
        let sender = state.me.user().clone();
        Sent { via: Via::Message, sender, to, body: sealed.body }
    }

    /// Opens it, as `dsc` does: what changes goes into the state.
    pub(crate) fn open(&mut self, line: &Sent) {
        let Device { state, rng } = &mut self.to;
        let me = state.me.user().clone();
        let target = self.room.as_ref().map_or(Target::User(&me), |(_, name)| Target::Room(name));
        let received = Line { via: line.via, sender: &line.sender, target, body: &line.body };
        let mut opened = state.open(&received, at(10), rng).expect("it was sealed for this device");
        state.apply(std::mem::take(&mut opened.change));
        black_box(opened);
    }

    /// The other speaks from now on.
    pub(crate) fn turn(&mut self) {
        std::mem::swap(&mut self.from, &mut self.to);
    }
}

/// A sealed file.
pub(crate) struct SealedFile {
    pub(crate) header: [u8; HEADER],
    pub(crate) chunks: Vec<Vec<u8>>,
    pub(crate) descriptor: downstream::e2e::descriptor::Descriptor,
}

pub(crate) fn seal_file(file: &[u8]) -> SealedFile {
    let mut rng = Seeded::new(3);
    let sealer = Sealer::new(file.len() as u64, &mut rng).expect("randomness");
    let mut sealer = sealer.expect("it is not too large");
    let header = *sealer.header();
    let (mut chunks, mut rest) = (Vec::new(), file);
    while let Some(wants) = sealer.wants() {
        let (chunk, behind) = rest.split_at(wants);
        chunks.push(sealer.seal(chunk).expect("it has the length that was asked for"));
        rest = behind;
    }
    let descriptor = sealer.finish("file", "text/plain").expect("all is sealed");
    SealedFile { header, chunks, descriptor }
}

pub(crate) fn open_file(sealed: &SealedFile) {
    let opener = Opener::new(&sealed.descriptor, &sealed.header).expect("its own key");
    for (k, chunk) in (0..).zip(&sealed.chunks) {
        black_box(opener.open(k, chunk).expect("its own chunk"));
    }
}

//! The client's core: what this device does with what people want and with what the server says.
//!
//! It knows no socket and no terminal. A [`Server`] answers its questions, the [`Store`] keeps what it
//! knows, [`Event`]s come out. Three rules hold everywhere:
//!
//! - The store is locked for one step, never while the network is waited for.
//! - Whatever changes keys is committed before anything of it is emitted or shown.
//! - What the server says is a claim; only what opens or verifies under a pinned identity is believed.

mod deliver;
mod directory;
mod download;
mod files;
mod filter;
mod identity;
mod keys;
mod link;
mod live;
mod receive;
mod rooms;
mod save;
mod send;
mod shown;
mod take;
#[cfg(test)]
mod tests;
mod upload;

pub(crate) use self::deliver::Delivered;
pub(crate) use self::download::{Fetching, To};
pub(crate) use self::filter::ByHand;
pub(crate) use self::identity::{
    Number, draw_account, looks_like_words, number_of, own_number, seed_from_words, seed_words,
};
pub(crate) use self::keys::{new_keys, publish_lines};
pub(crate) use self::link::LOOK_EVERY;
pub(crate) use self::receive::{Reading, account as own_name};
pub(crate) use self::rooms::Member;
pub(crate) use self::save::Saver;
pub(crate) use self::send::Content;
pub(crate) use self::shown::{entry_event, message_of_row};
pub(crate) use self::upload::{Origin, Sending, Work};

use downstream::e2e::error::{Error, NoRandom, SealError};
use downstream::e2e::name::{Address, DeviceId, RoomName as SealedRoom, User};
use downstream::e2e::number;
use downstream::e2e::rng::Rng;
use downstream::e2e::state::State;
use downstream::e2e::time::Now;
use downstream::protocol::{RoomName, UserName};

use crate::error::{Exit, Failure};
use crate::event::Event;
use crate::server::{Answer, Reply, Server};
use crate::store::{Store, Tx};

/// How often a command that the server refuses for its rate is tried again, and for how many seconds one
/// may be told to wait: a burst of room keys is worth a short wait, a limit by the hour is not.
const PATIENCE: (usize, u64) = (60, 5);

/// Randomness of the operating system.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Os;

impl Rng for Os {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), NoRandom> {
        getrandom::fill(out).map_err(|_| NoRandom)
    }
}

/// Random bits for jitter.
pub(crate) fn random() -> Result<u64, Failure> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|_| no_random())?;
    Ok(u64::from_le_bytes(bytes))
}

/// The clock of this machine.
pub(crate) fn now() -> Now {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Now::from_ms(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// One device at work.
pub(crate) struct Client<'a> {
    /// What it knows.
    pub(crate) store: &'a mut Store,
    /// Who answers.
    pub(crate) server: &'a mut dyn Server,
    /// Where events go. A failure (the output is closed) ends the work.
    pub(crate) show: &'a mut dyn FnMut(&Event) -> Result<(), Failure>,
}

impl Client<'_> {
    fn say(&mut self, event: &Event) -> Result<(), Failure> {
        (self.show)(event)
    }

    fn say_all(&mut self, events: &[Event]) -> Result<(), Failure> {
        events.iter().try_for_each(|event| (self.show)(event))
    }

    fn transact<T>(&mut self, f: impl FnOnce(&mut Tx<'_>) -> Result<T, Failure>) -> Result<T, Failure> {
        self.store.transact(f)
    }

    /// Asks, and waits where the server says that it is too fast.
    fn ask(&mut self, command: &str) -> Result<Answer, Failure> {
        self.ask_within(command, PATIENCE)
    }

    /// The same, with as many tries as the first number says, each after at most the second in seconds.
    fn ask_within(&mut self, command: &str, (tries, most): (usize, u64)) -> Result<Answer, Failure> {
        let mut answer = self.server.ask(command)?;
        for _ in 0..tries {
            match wait_for(&answer, most) {
                Some(wait) => std::thread::sleep(wait),
                None => break,
            }
            answer = self.server.ask(command)?;
        }
        Ok(answer)
    }

    /// Asks; a refusal is a failure.
    pub(crate) fn command(&mut self, command: &str) -> Result<(Vec<String>, Reply), Failure> {
        let answer = self.ask(command)?;
        Ok((answer.rows, answer.reply?))
    }
}

/// How long to wait before a refused command is tried again, if that is worth it.
fn wait_for(answer: &Answer, most: u64) -> Option<std::time::Duration> {
    let seconds = answer.reply.as_ref().err()?.retry_after()?;
    (seconds <= most).then(|| std::time::Duration::from_secs(seconds))
}

/// The state of a device that has keys.
fn state<'t>(tx: &'t Tx<'_>) -> Result<&'t State, Failure> {
    tx.state().ok_or_else(no_keys)
}

fn no_keys() -> Failure {
    Failure::new(Exit::NoSession, "this device has no keys yet")
        .hint("`dsc init` makes keys for a new account, `dsc link` joins an account that has devices")
}

/// A name of the wire as the encryption knows it; both have the same alphabet.
fn sealed_user(user: &UserName) -> Result<User, Failure> {
    User::parse(user.as_str()).map_err(|_| Failure::failed(format!("{user} is no name that keys can stand for")))
}

fn sealed_room(room: &RoomName) -> Result<SealedRoom, Failure> {
    SealedRoom::parse(room.as_str()).map_err(|_| Failure::failed(format!("{room} is no name that keys can stand for")))
}

/// Whether a room was ever known to be end to end, whatever the server calls it now.
fn is_sealed_room(tx: &Tx<'_>, room: &RoomName) -> Result<bool, Failure> {
    Ok(tx.room_pinned(&sealed_room(room)?))
}

fn wire_room(room: &SealedRoom) -> Result<RoomName, Failure> {
    RoomName::parse(room.as_str()).map_err(|_| Failure::failed(format!("{room} is no name that the server can have")))
}

fn wire_user(user: &User) -> Result<UserName, Failure> {
    UserName::parse(user.as_str()).map_err(|_| Failure::failed(format!("{user} is no name that the server can have")))
}

/// A device as people see it: its local name, or the first four digits of its id.
fn device_name(tx: &Tx<'_>, address: &Address) -> String {
    tx.device_name(address).unwrap_or_else(|| short(address.device))
}

fn short(device: DeviceId) -> String {
    device.to_string().chars().take(4).collect()
}

/// The safety number with an account, as people compare it.
fn number_with(state: &State, user: &User) -> Option<String> {
    let contact = state.contacts.get(user)?;
    Some(number::grouped(&number::safety_number((state.me.user(), state.me.aik()), (user, contact.aik()))))
}

fn notice(kind: &str, subject: Option<&str>, text: impl Into<String>) -> Event {
    Event::Notice { kind: kind.to_owned(), subject: subject.map(str::to_owned), text: text.into() }
}

fn alarm(kind: &str, subject: &str, text: impl Into<String>) -> Event {
    Event::Alarm { kind: kind.to_owned(), subject: subject.to_owned(), text: text.into() }
}

/// An answer that is none. Another connection would hear the same: it is not tried again by itself.
fn broken(what: &str) -> Failure {
    Failure::failed(format!("the server does not keep to the protocol: {what}"))
}

fn no_random() -> Failure {
    Failure::failed("the random source of this machine failed").hint("nothing was changed; try again")
}

/// What an account with another identity than the pinned one is answered with.
fn identity_changed(user: &str) -> Failure {
    Failure::new(Exit::IdentityChanged, format!("the identity of {user} is not the one that is pinned: nothing is sent"))
        .hint(format!(
            "ask {user} by another way whether they began anew; `dsc number {user}` shows the numbers, `dsc trust {user} --accept DIGITS` accepts the new one"
        ))
}

/// Why something cannot be sealed, where nothing can be fetched that would help.
fn cannot_seal(error: SealError) -> Failure {
    match error {
        SealError::Identity(user) => identity_changed(user.as_str()),
        SealError::NoDevice(user) => {
            Failure::new(Exit::NoSession, format!("{user} has no device that can be sealed to"))
                .hint("their device has to be online once to renew its keys; `--plain` sends clear text, which the server can read")
        }
        SealError::Bundle(Error::Identity) => Failure::new(Exit::IdentityChanged, "the keys that the server shows are of another identity"),
        SealError::Bundle(error) => Failure::failed(format!("the keys that the server shows are refused ({})", error.code())),
        SealError::TooLong(max) => Failure::usage(format!("too long: at most {max} bytes")),
        SealError::Fork => Failure::failed("this room has two histories: nothing is sent there")
            .hint("somebody shows different members different rosters; talk to the others by another way and make a new room"),
        SealError::NotMember => Failure::failed("you are not in the room's signed roster").hint("an admin of the room has to `dsc invite` you; an open room is entered by `dsc join`"),
        SealError::NeedRoster => Failure::new(Exit::NoSession, "the roster of the room has not been read to its end"),
        SealError::NeedList(user) => Failure::new(Exit::NoSession, format!("the device list of {user} is missing")),
        SealError::NeedBundles(devices) => {
            Failure::new(Exit::NoSession, format!("no session with {}", list(&devices)))
        }
        SealError::Exhausted => Failure::failed("a counter is used up").hint("start anew with `dsc init`"),
        SealError::Kind => Failure::failed("this does not travel that way"),
        SealError::Random => no_random(),
    }
}

fn list(devices: &[Address]) -> String {
    devices.iter().map(Address::to_string).collect::<Vec<_>>().join(", ")
}

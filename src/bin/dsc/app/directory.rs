//! The key directory: fetching what the server shows of an account, and believing only what holds under
//! the pins.

use downstream::e2e::armour;
use downstream::e2e::bundle::Bundle;
use downstream::e2e::contact::{ListChange, ListError};
use downstream::e2e::name::{Address, DeviceId, User};
use downstream::e2e::state::State;

use super::{Client, alarm, device_name, identity_changed, notice, now, number_with, state, wire_user};
use crate::error::{Exit, Failure};
use crate::event::Event;
use crate::server::Answer;
use crate::store::Tx;

/// What the rows of `/keys get` hold, decoded but not believed.
#[derive(Debug, Default)]
pub(super) struct Shown {
    pub(super) list: Option<Vec<u8>>,
    pub(super) certs: Vec<Vec<u8>>,
    pub(super) bundles: Vec<Vec<u8>>,
}

impl Shown {
    /// Takes one row (`devices`, `cert`, `keys`) of `user`; whether it was one.
    pub(super) fn take(&mut self, user: &str, row: &str) -> bool {
        let words: Vec<&str> = row.split(' ').collect();
        match words.as_slice() {
            ["devices", of, base64] if *of == user => match armour::unbase64(base64) {
                Ok(list) => self.list = Some(list),
                Err(_) => return false,
            },
            ["cert", of, _, base64] if *of == user => match armour::unbase64(base64) {
                Ok(cert) => self.certs.push(cert),
                Err(_) => return false,
            },
            ["keys", of, _, base64] if *of == user => match armour::unbase64(base64) {
                Ok(bundle) => {
                    // A bundle begins with its certificate, length first.
                    let cert = bundle
                        .split_first_chunk::<2>()
                        .and_then(|(len, rest)| rest.get(..usize::from(u16::from_be_bytes(*len))));
                    self.certs.extend(cert.map(<[u8]>::to_vec));
                    self.bundles.push(bundle);
                }
                Err(_) => return false,
            },
            _ => return false,
        }
        true
    }

    fn of(user: &User, answer: &Answer) -> Shown {
        let mut shown = Shown::default();
        for row in &answer.rows {
            shown.take(user.as_str(), row);
        }
        shown
    }
}

/// What became of asking for an account's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Learned {
    /// The pinned list is as new as the server's.
    Known,
    /// The account shows no keys.
    NoKeys,
}

impl Client<'_> {
    /// Fetches the device list and certificates of an account and takes in what holds.
    ///
    /// # Errors
    /// [`Exit::IdentityChanged`] for another identity or a second list, after the alarm was shown.
    pub(super) fn learn(&mut self, user: &User) -> Result<Learned, Failure> {
        let answer = self.ask(&format!("/keys get {user} only=certs"))?;
        if let Err(refusal) = &answer.reply
            && refusal.code != "no-such-user"
        {
            return Err(refusal.clone().into());
        }
        self.learn_shown(user, &Shown::of(user, &answer))
    }

    /// The same for several accounts, asked at once; what became of each.
    ///
    /// # Errors
    /// [`Failure`] of the network. What an account shows is in its own result.
    pub(super) fn learn_all(&mut self, users: &[User]) -> Result<Vec<Result<Learned, Failure>>, Failure> {
        let questions: Vec<String> = users.iter().map(|user| format!("/keys get {user} only=certs")).collect();
        let questions: Vec<&str> = questions.iter().map(String::as_str).collect();
        let answers = self.server.ask_all(&questions)?;
        Ok(users.iter().zip(&answers).map(|(user, answer)| self.learn_shown(user, &Shown::of(user, answer))).collect())
    }

    /// Takes in what was shown of an account.
    pub(super) fn learn_shown(&mut self, user: &User, shown: &Shown) -> Result<Learned, Failure> {
        let Some(list) = &shown.list else { return Ok(Learned::NoKeys) };
        let certs: Vec<&[u8]> = shown.certs.iter().map(Vec::as_slice).collect();
        let (events, outcome) = self.transact(|tx| {
            let known = state(tx)?;
            match known.learn(user, list, &certs, now()) {
                Ok((change, news)) => {
                    let before = known.contacts.get(user).map(|contact| contact.list().is_some());
                    tx.apply(change);
                    Ok((news_of(tx, user, before, &news)?, Ok(())))
                }
                Err(error) => {
                    let (event, failure) = refused(known, user, error);
                    Ok((vec![event], Err(failure)))
                }
            }
        })?;
        self.say_all(&events)?;
        outcome?;
        Ok(Learned::Known)
    }

    /// Fetches bundles for devices that need one and keeps those that hold. Returns the devices for
    /// which there is none. In a room, an account whose keys are refused (the alarm is shown) has none.
    ///
    /// # Errors
    /// As [`Client::learn`]; in a room those of the network.
    pub(super) fn fetch_bundles(&mut self, devices: &[Address], in_room: bool) -> Result<Vec<Address>, Failure> {
        let questions: Vec<String> =
            devices.iter().map(|a| format!("/keys get {} device={}", a.user, a.device)).collect();
        let questions: Vec<&str> = questions.iter().map(String::as_str).collect();
        let answers = self.server.ask_all(&questions)?;
        let mut missing = Vec::new();
        for (device, answer) in devices.iter().zip(&answers) {
            let shown = Shown::of(&device.user, answer);
            // The list beside a bundle is only what the directory has now: news are taken in first.
            if shown.list.is_some() {
                match self.learn_shown(&device.user, &Shown { bundles: Vec::new(), ..clone_of(&shown) }) {
                    Err(failure) if in_room && !failure.is_closed() => {
                        missing.push(device.clone());
                        continue;
                    }
                    learned => learned.map(drop)?,
                }
            }
            if !self.keep_bundles(&device.user, &shown.bundles)?.contains(device) {
                missing.push(device.clone());
            }
        }
        Ok(missing)
    }

    /// Verifies bundles and keeps them for the next message; which devices they are of.
    pub(super) fn keep_bundles(&mut self, user: &User, bundles: &[Vec<u8>]) -> Result<Vec<Address>, Failure> {
        let (kept, events) = self.transact(|tx| {
            let (mut kept, mut events) = (Vec::new(), Vec::new());
            for raw in bundles {
                let known = state(tx)?;
                let Some(contact) = known.contacts.get(user) else { continue };
                match Bundle::verify(raw, contact, now()) {
                    Ok(bundle) => {
                        let address = bundle.cert().address().clone();
                        tx.put_bundle(raw.clone(), &address, now().ms());
                        kept.push(address);
                    }
                    Err(error) => events.push(notice(
                        "bundle-refused",
                        Some(user.as_str()),
                        format!("keys of {user} that the server shows are refused ({})", error.code()),
                    )),
                }
            }
            Ok((kept, events))
        })?;
        self.say_all(&events)?;
        Ok(kept)
    }

    /// Takes in rows that a person pasted from a server.
    ///
    /// # Errors
    /// As [`Client::learn`]; [`Exit::Usage`] if there is nothing to take in.
    pub(crate) fn import_rows(&mut self, text: &str) -> Result<usize, Failure> {
        let mut accounts: Vec<(User, Shown)> = Vec::new();
        let mut rosters = Vec::new();
        let mut taken = 0;
        for line in text.lines() {
            let Some(row) = line.trim_end().strip_prefix("- ") else { continue };
            let words: Vec<&str> = row.split(' ').collect();
            if let ["roster", room, place, base64] = words.as_slice() {
                rosters.push(((*room).to_owned(), (*place).to_owned(), (*base64).to_owned()));
                taken += 1;
                continue;
            }
            let Some(user) = words.get(1).and_then(|name| User::parse(name).ok()) else { continue };
            if !accounts.iter().any(|(known, _)| *known == user) {
                accounts.push((user.clone(), Shown::default()));
            }
            if let Some((_, shown)) = accounts.iter_mut().find(|(known, _)| *known == user)
                && shown.take(user.as_str(), row)
            {
                taken += 1;
            }
        }
        if taken == 0 {
            return Err(Failure::usage("there is nothing to import: neither words of a seed nor rows of a server")
                .hint("paste the rows that begin with `- devices`, `- cert`, `- keys` or `- roster`"));
        }
        for (user, shown) in &accounts {
            self.learn_shown(user, shown)?;
            self.keep_bundles(user, &shown.bundles)?;
        }
        self.import_roster_rows(&rosters)?;
        Ok(taken)
    }

    /// Accepts another identity for an account, after a person has compared its first ten digits.
    ///
    /// # Errors
    /// [`Exit::Usage`] if the digits are not those of the identity that the server shows now.
    pub(crate) fn trust(&mut self, user: &User, digits: Option<&str>, was_verified: bool) -> Result<(), Failure> {
        let answer = self.ask(&format!("/keys get {user} only=certs"))?;
        answer.reply.as_ref().map_err(|refusal| Failure::from(refusal.clone()))?;
        let shown = Shown::of(user, &answer);
        let list = shown.list.clone().ok_or_else(|| no_keys_of(user))?;
        let certs: Vec<&[u8]> = shown.certs.iter().map(Vec::as_slice).collect();
        let events = self.transact(|tx| {
            let known = state(tx)?;
            if user == known.me.user() {
                return Err(Failure::usage("this is your own account"));
            }
            let change = known.repin(user, &list, &certs, now()).map_err(|error| refused(known, user, error).1)?;
            let new = change.contacts.first().map(|contact| *contact.aik());
            let old = known.contacts.get(user);
            if old.map(|contact| *contact.aik()) == new {
                return Ok(vec![notice(
                    "unchanged",
                    Some(user.as_str()),
                    format!("{user} has the identity that is pinned"),
                )]);
            }
            let Some(new) = new else { return Err(no_keys_of(user)) };
            let number = downstream::e2e::number::safety_number((known.me.user(), known.me.aik()), (user, &new));
            let grouped = downstream::e2e::number::grouped(&number);
            let wanted: String = digits.unwrap_or_default().chars().filter(char::is_ascii_digit).collect();
            let first: String = number.chars().take(10).collect();
            if digits.is_none() {
                return Err(Failure::new(
                    Exit::IdentityChanged,
                    format!("the new safety number with {user} is {grouped}"),
                )
                .hint(format!("compare it with {user}; if it is theirs: `dsc trust {user} --accept {first}`")));
            }
            if wanted != first {
                return Err(Failure::usage(format!("these are not the first ten digits of the new number, {grouped}"))
                    .hint("compare the number with them by another way, then give its first ten digits"));
            }
            if old.is_some_and(downstream::e2e::contact::Contact::verified) && !was_verified {
                return Err(Failure::new(
                    Exit::IdentityChanged,
                    format!("{user} was verified; a verified identity does not change by itself"),
                )
                .hint(format!(
                    "if they told you that they began anew: `dsc trust {user} --accept {first} --was-verified`"
                )));
            }
            tx.apply(change);
            Ok(vec![notice(
                "trusted",
                Some(user.as_str()),
                format!("the new identity of {user} is pinned, unverified: {grouped}"),
            )])
        })?;
        self.say_all(&events)
    }
}

fn clone_of(shown: &Shown) -> Shown {
    Shown { list: shown.list.clone(), certs: shown.certs.clone(), bundles: Vec::new() }
}

pub(super) fn no_keys_of(user: &User) -> Failure {
    Failure::new(Exit::NoSession, format!("there is no account {user}, or it has no keys: nothing can be sealed for it"))
        .hint(format!(
            "`dsc users {user}` shows whether it is there; its keys are made by `dsc register` or `dsc login`; `--plain` sends clear text, which the server can read"
        ))
}

/// What is said about a list that was taken in. `before`: whether the account was known, and a list of it.
fn news_of(tx: &Tx<'_>, user: &User, before: Option<bool>, news: &ListChange) -> Result<Vec<Event>, Failure> {
    let state = state(tx)?;
    let mut events = Vec::new();
    let own = user == state.me.user();
    if before.is_none() && !own {
        let number = number_with(state, user).unwrap_or_default();
        events.push(notice(
            "first-contact",
            Some(user.as_str()),
            format!("first contact with {user}; compare this number with them: {number}"),
        ));
        return Ok(events);
    }
    // The first list of somebody who wrote before it was fetched: nothing in it is new.
    let added = if before == Some(true) || own { news.added.as_slice() } else { &[] };
    for device in added {
        let address = Address { user: user.clone(), device: *device };
        if address != *state.me.address() {
            let whose = if own { "your account".to_owned() } else { user.to_string() };
            events.push(notice(
                "new-device",
                Some(user.as_str()),
                format!("new device of {whose}: {}", full(tx, &address)?),
            ));
        }
    }
    for device in &news.dropped {
        let address = Address { user: user.clone(), device: *device };
        events.push(notice(
            "device-gone",
            Some(user.as_str()),
            format!("{user} no longer lists the device {}", full(tx, &address)?),
        ));
    }
    Ok(events)
}

fn full(tx: &Tx<'_>, address: &Address) -> Result<String, Failure> {
    Ok(format!("{}/{}", wire_user(&address.user)?, device_name(tx, address)))
}

/// The alarm and the failure for keys that are not believed.
fn refused(state: &State, user: &User, error: ListError) -> (Event, Failure) {
    let name = user.as_str();
    match error {
        ListError::Changed => {
            let own = user == state.me.user();
            let text = if own {
                "the server shows another identity for your own account: it lies, or somebody began your account anew with `dsc init`".to_owned()
            } else {
                format!("the identity of {user} has changed: they began anew, or somebody stands between you")
            };
            (alarm("identity-changed", name, text), identity_changed(name))
        }
        ListError::Refused(downstream::e2e::error::Error::Identity) => (
            alarm("identity-changed", name, format!("the server shows keys of another identity for {user}")),
            identity_changed(name),
        ),
        ListError::Equivocation => (
            alarm(
                "two-lists",
                name,
                format!("the server shows two device lists of {user}, or an old one: nothing is sent to them"),
            ),
            Failure::new(Exit::IdentityChanged, format!("the server shows two device lists of {user}"))
                .hint("somebody hides or adds devices; ask them and the operator of the server"),
        ),
        ListError::DuplicateDevice => (
            alarm(
                "duplicate-device",
                name,
                format!("the device list of {user} names one device twice: nothing is sent to them"),
            ),
            Failure::new(Exit::IdentityChanged, format!("the device list of {user} names one device twice")),
        ),
        ListError::Refused(error) => (
            alarm("keys-refused", name, format!("the keys of {user} do not hold ({})", error.code())),
            Failure::failed(format!("the keys of {user} do not hold ({})", error.code())),
        ),
    }
}

/// The device ids of an account that are listed and in their time.
pub(super) fn current_devices(state: &State, user: &User) -> Vec<DeviceId> {
    let contact = state.contacts.get(user);
    contact.map(|contact| contact.current(now()).map(|cert| cert.address().device).collect()).unwrap_or_default()
}

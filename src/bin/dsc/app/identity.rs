//! Who is who, for people: safety numbers, pins, devices, the account's words.

use bip39::Mnemonic;
use zeroize::Zeroizing;

use downstream::e2e::cert::Certificate;
use downstream::e2e::device_list::DeviceList;
use downstream::e2e::name::{Address, User};
use downstream::e2e::number;
use downstream::e2e::secret::Secret;
use downstream::e2e::sign::SignKey;
use downstream::protocol::{Timestamp, UserName};

use super::directory::{Learned, Shown, current_devices, no_keys_of};
use super::keys::{NewKeys, new_keys, relist};
use super::{Client, notice, sealed_user, state};
use crate::error::{Exit, Failure};
use crate::event::{Event, Row};
use crate::store::Tx;

/// A safety number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Number {
    /// With whom; oneself stands for one's own fingerprint.
    pub(crate) user: String,
    /// Sixty digits (thirty for oneself alone), in groups of five.
    pub(crate) grouped: String,
    /// Whether a person has compared it.
    pub(crate) verified: bool,
}

impl Client<'_> {
    /// The safety number with an account; its identity is fetched if it is not pinned yet.
    pub(crate) fn number(&mut self, user: &UserName) -> Result<Number, Failure> {
        let subject = sealed_user(user)?;
        let known = self.transact(|tx| Ok(state(tx)?.contacts.contains_key(&subject)))?;
        if !known && self.learn(&subject)? == Learned::NoKeys {
            return Err(no_keys_of(&subject));
        }
        self.transact(|tx| number_of(tx, &subject))
    }

    /// Records that a person has compared this number, if it still is the one that is pinned.
    pub(crate) fn verify(&mut self, user: &UserName, compared: &Number) -> Result<(), Failure> {
        let subject = sealed_user(user)?;
        self.transact(|tx| {
            if number_of(tx, &subject)?.grouped != compared.grouped {
                return Err(Failure::new(
                    Exit::IdentityChanged,
                    format!("the identity of {user} was changed meanwhile"),
                )
                .hint(format!("`dsc verify {user}` shows the number that it has now")));
            }
            let mut contact = state(tx)?.contacts.get(&subject).cloned().ok_or_else(|| no_keys_of(&subject))?;
            contact.set_verified(true);
            tx.set_contact(contact);
            Ok(())
        })?;
        self.say(&notice("verified", Some(user.as_str()), format!("{user} is verified")))
    }

    /// The devices of an account, its list fetched.
    pub(crate) fn devices(&mut self, user: &UserName) -> Result<Vec<Event>, Failure> {
        let subject = sealed_user(user)?;
        if self.learn(&subject)? == Learned::NoKeys {
            return Err(no_keys_of(&subject));
        }
        self.transact(|tx| {
            let known = state(tx)?;
            let current = current_devices(known, &subject);
            let contact = known.contacts.get(&subject).ok_or_else(|| no_keys_of(&subject))?;
            Ok(contact
                .certs()
                .iter()
                .map(|cert| {
                    Event::Row(Row::Device {
                        user: subject.to_string(),
                        device: cert.address().device.to_string(),
                        name: tx.device_name(cert.address()),
                        this: cert.address() == known.me.address(),
                        until: Timestamp::from_millis(cert.life().1.saturating_mul(1000)).to_string(),
                        current: current.contains(&cert.address().device),
                    })
                })
                .collect())
        })
    }

    /// Gives a device a local name, or takes it.
    pub(crate) fn name_device(&mut self, user: &UserName, device: &str, name: Option<&str>) -> Result<(), Failure> {
        let subject = sealed_user(user)?;
        self.transact(|tx| {
            let address = find_device(tx, &subject, device)?;
            {
                tx.set_device_name(&address, name);
                Ok(())
            }
        })
    }

    /// Takes a device out of the own account's list, on the primary device.
    pub(crate) fn drop_device(&mut self, device: &str) -> Result<(), Failure> {
        let records = self.transact(|tx| {
            let known = state(tx)?;
            let (me, this) = (known.me.user().clone(), known.me.address().clone());
            let account = tx.account_key().cloned().ok_or_else(|| {
                Failure::failed("only the primary device, which holds the account's key, can drop others")
            })?;
            let address = find_device(tx, &me, device)?;
            if address == this {
                return Err(Failure::usage("this device cannot drop itself").hint("`dsc logout` ends its session"));
            }
            let own = known.contacts.get(&me).ok_or_else(super::no_keys)?;
            let certs: Vec<Certificate> =
                own.certs().iter().filter(|cert| *cert.address() != address).cloned().collect();
            relist(tx, &account, certs)
        })?;
        self.publish(&records)?;
        self.announce_devices()
    }

    /// Makes this device the first of the account, or with `seed` the one that takes the primary's place.
    ///
    /// # Errors
    /// [`Exit::IdentityChanged`] if the directory shows another identity for the account.
    pub(crate) fn begin_account(&mut self, user: &UserName, seed: Option<SignKey>) -> Result<(), Failure> {
        let name = sealed_user(user)?;
        let answer = self.ask(&format!("/keys get {name} only=certs"))?;
        let mut shown = Shown::default();
        for row in &answer.rows {
            shown.take(name.as_str(), row);
        }
        let keys = match (&shown.list, seed) {
            (None, seed) => self.new_account(&name, seed, None)?,
            (Some(_), None) => {
                return Err(Failure::new(Exit::NoSession, format!("the account {user} has devices already"))
                    .hint("`dsc link` joins them; with the account's words, `dsc import` takes the place of a lost primary device"));
            }
            (Some(list), Some(seed)) => {
                let list = DeviceList::verify(list, &name, &seed.public()).map_err(|_| {
                    Failure::new(
                        Exit::IdentityChanged,
                        format!("the words are not those of {user}: the server shows another identity"),
                    )
                })?;
                let certs: Vec<Certificate> = shown
                    .certs
                    .iter()
                    .filter_map(|raw| Certificate::verify(raw).ok())
                    .filter(|cert| list.lists(&cert.hash()))
                    .collect();
                self.new_account(&name, Some(seed), Some((&list, &certs)))?
            }
        };
        self.publish(&keys.records)?;
        self.begin_cursors()
    }

    fn new_account(
        &mut self,
        name: &User,
        seed: Option<SignKey>,
        before: Option<(&DeviceList, &[Certificate])>,
    ) -> Result<NewKeys, Failure> {
        let account = match seed {
            Some(seed) => seed,
            None => draw_account()?,
        };
        let keys = new_keys(&account, name, before)?;
        let state = keys.state.clone();
        self.transact(|tx| {
            if tx.state().is_some() {
                return Err(Failure::failed("this device has keys already").hint("use another --home to begin anew"));
            }
            Ok(tx.begin(state, Some(account))?)
        })?;
        Ok(keys)
    }

    /// What was said before this device existed is not news: every log is read from the account's marker.
    pub(crate) fn begin_cursors(&mut self) -> Result<(), Failure> {
        let (rows, _) = self.command("/unread all")?;
        self.transact(|tx| {
            for row in &rows {
                let words: Vec<&str> = row.split(' ').collect();
                let number = |key: &str| {
                    let value = words.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
                    value.and_then(|value| value.parse::<u64>().ok()).unwrap_or(0)
                };
                let Some(target) = words.get(1).and_then(|word| downstream::protocol::Target::parse(word).ok()) else {
                    continue;
                };
                let read = if number("count") > 0 { number("first").saturating_sub(1) } else { number("last") };
                if tx.cursor(&target).is_none() {
                    tx.set_cursor(&target, read);
                }
            }
            Ok(())
        })
    }
}

/// The safety number with an account whose identity is pinned.
pub(crate) fn number_of(tx: &Tx<'_>, user: &User) -> Result<Number, Failure> {
    let known = state(tx)?;
    let contact = known.contacts.get(user).ok_or_else(|| no_keys_of(user))?;
    let digits = number::safety_number((known.me.user(), known.me.aik()), (user, contact.aik()));
    Ok(Number { user: user.to_string(), grouped: number::grouped(&digits), verified: contact.verified() })
}

/// The thirty digits of one's own account.
pub(crate) fn own_number(tx: &mut Tx<'_>) -> Result<Number, Failure> {
    let me = &state(tx)?.me;
    let digits = number::own_digits(me.user(), me.aik());
    Ok(Number { user: me.user().to_string(), grouped: number::grouped(&digits), verified: true })
}

/// A key for a new account.
pub(crate) fn draw_account() -> Result<SignKey, Failure> {
    SignKey::draw(&mut super::Os).map_err(|_| super::no_random())
}

fn find_device(tx: &Tx<'_>, user: &User, device: &str) -> Result<Address, Failure> {
    let contact = state(tx)?.contacts.get(user).ok_or_else(|| no_keys_of(user))?;
    let fits = |cert: &&Certificate| {
        cert.address().device.to_string().starts_with(device)
            || tx.device_name(cert.address()).as_deref() == Some(device)
    };
    let mut found = contact.certs().iter().filter(fits).map(Certificate::address);
    match (found.next(), found.next()) {
        (Some(address), None) if !device.is_empty() => Ok(address.clone()),
        (None, _) => {
            Err(Failure::usage(format!("{user} has no device {device}"))
                .hint(format!("`dsc devices {user}` lists them")))
        }
        _ => Err(Failure::usage(format!("{device} stands for several devices of {user}")).hint("give more digits")),
    }
}

/// The account's key as 24 words (BIP 39: 32 bytes and a check sum).
pub(crate) fn seed_words(account: &SignKey) -> Result<Zeroizing<String>, Failure> {
    let words = Mnemonic::from_entropy(account.seed().expose())
        .map_err(|_| Failure::failed("the account's key cannot be written as words"))?;
    Ok(Zeroizing::new(words.to_string()))
}

/// The account's key from its words.
///
/// # Errors
/// [`Exit::Usage`], which says what is wrong with them.
pub(crate) fn seed_from_words(text: &str) -> Result<SignKey, Failure> {
    let words = Mnemonic::parse_normalized(&text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase())
        .map_err(|error| {
            Failure::usage(format!("these are not the words of a seed: {error}"))
                .hint("24 words of the English list, in order")
        })?;
    let entropy = Zeroizing::new(words.to_entropy());
    let seed: &[u8; 32] = entropy.as_slice().try_into().map_err(|_| Failure::usage("a seed has 24 words"))?;
    Ok(SignKey::from_seed(&Secret::copy_from(seed)))
}

/// Whether a text looks like words of a seed, and not like rows of a server.
pub(crate) fn looks_like_words(text: &str) -> bool {
    let mut words = text.split_whitespace();
    words.clone().count() >= 12 && words.all(|word| word.bytes().all(|b| b.is_ascii_alphabetic()))
}

//! Linking a second device to an account: a code shown on the new one, typed on the primary one.

use downstream::e2e::armour;
use downstream::e2e::cert::Certificate;
use downstream::e2e::contact::Contact;
use downstream::e2e::link::{self, Code, LIFE, Pending, PinnedAccount, Request};
use downstream::e2e::name::User;
use downstream::e2e::state::{Change, State};
use downstream::protocol::{Fields, SignalLine, UserName};

use super::directory::Shown;
use super::keys::{account_records, certify, fresh_prekeys, relist};
use super::{Client, Os, cannot_seal, no_random, notice, now, sealed_user, state};
use crate::error::Failure;
use crate::event::Event;
use crate::store::Tx;

/// How long the new device waits between two looks, in seconds, where no event comes.
pub(crate) const LOOK_EVERY: u64 = 5;

/// Version 1, LINK REQUEST and LINK ANSWER.
const REQUEST: [u8; 2] = [1, 5];
const ANSWER: [u8; 2] = [1, 6];

/// Whether an envelope belongs to the linking of a device.
pub(super) fn is_link(raw: &[u8]) -> bool {
    raw.starts_with(&REQUEST) || raw.starts_with(&ANSWER)
}

/// What any other command does with such a signal: it tells the primary device of a fresh request, and
/// erases what nobody can use any more. `None` leaves it where it is.
pub(super) fn passed_by(
    tx: &Tx<'_>,
    sender: &User,
    signal: &SignalLine<'_>,
    raw: &[u8],
    events: &mut Vec<Event>,
) -> Result<Option<()>, Failure> {
    let own = sender == state(tx)?.me.user();
    let old = now().ms().saturating_sub(signal.time.as_millis()) > LIFE * 1000;
    if !own || old {
        return Ok(Some(()));
    }
    if raw.starts_with(&REQUEST) && tx.account_key().is_some() {
        let text = "a new device asks to join your account; if it is yours, `dsc link --approve CODE` with the code that it shows";
        events.push(notice("link-request", Some(sender.as_str()), text));
    }
    Ok(None)
}

/// The new device, while it waits for its answer.
#[derive(Debug)]
pub(crate) struct Waiting {
    pending: Pending,
    user: User,
    /// The request's signal, erased at the end.
    signal: u64,
}

impl Client<'_> {
    /// Asks the account's primary device to link this one. The code is to be shown to the person.
    pub(crate) fn link_begin(&mut self, user: &UserName) -> Result<(Waiting, String), Failure> {
        if self.transact(|tx| Ok(tx.state().is_some()))? {
            return Err(Failure::failed("this device has keys already")
                .hint("use another --home for a second device of one machine"));
        }
        let user = sealed_user(user)?;
        let pending = Pending::begin(&user, now(), &mut Os).map_err(|_| no_random())?;
        let (_, reply) = self.command(&format!("/signal {user} {}", armour::body(pending.request())))?;
        let signal = reply.key("id").and_then(|id| id.parse().ok()).unwrap_or(0);
        let code = pending.code().show().to_string();
        Ok((Waiting { pending, user, signal }, code))
    }

    /// Looks whether the answer is there; if so, this device is one of the account.
    ///
    /// # Errors
    /// [`Failure`] after ten minutes.
    pub(crate) fn link_look(&mut self, waiting: &Waiting) -> Result<bool, Failure> {
        let (rows, _) = self.command("/signals")?;
        for row in &rows {
            let Ok(signal) = SignalLine::read(&Fields::parse(row)) else { continue };
            let Ok(raw) = armour::envelope(signal.body) else { continue };
            if signal.sender.as_str() != waiting.user.as_str() || !raw.starts_with(&ANSWER) {
                continue;
            }
            match waiting.pending.finish(&raw, now()) {
                Ok(linked) => {
                    self.link_finish(waiting, linked)?;
                    self.server.ask_all(&[
                        &format!("/ack signals {}", signal.id),
                        &format!("/ack signals {}", waiting.signal),
                    ])?;
                    return Ok(true);
                }
                Err(downstream::e2e::error::Error::Clock) => break,
                Err(downstream::e2e::error::Error::NotForThisDevice) => {}
                Err(error) => {
                    let text = format!("an answer that does not know the code was refused ({})", error.code());
                    self.say(&notice("link-refused", None, text))?;
                }
            }
        }
        if waiting.pending.expired(now()) {
            let signal = waiting.signal;
            self.ask(&format!("/ack signals {signal}"))?;
            return Err(Failure::failed("nobody answered within ten minutes").hint("begin again with `dsc link`"));
        }
        Ok(false)
    }

    fn link_finish(&mut self, waiting: &Waiting, linked: link::Linked) -> Result<(), Failure> {
        let link::Linked { me, list, pins } = linked;
        let user = &waiting.user;
        let answer = self.ask(&format!("/keys get {user} only=certs"))?;
        let mut shown = Shown::default();
        for row in &answer.rows {
            shown.take(user.as_str(), row);
        }
        let cert = me.cert().clone();
        let mut certs: Vec<&[u8]> = shown.certs.iter().map(Vec::as_slice).collect();
        certs.push(cert.bytes());
        let (prekeys, records) = fresh_prekeys(&me, now())?;
        let device = me.address().device;
        let mut all = vec![downstream::e2e::bundle::Record::Certificate(cert.clone())];
        all.extend(records);
        let mut state = State::new(me, prekeys, list.bytes(), &certs)
            .map_err(|_| Failure::failed("the account's device list does not hold together"))?;
        let contacts = pins
            .iter()
            .filter(|pin| pin.user != *user)
            .map(|pin| {
                let mut contact = Contact::pinned(&pin.user, pin.aik);
                contact.set_verified(pin.verified);
                contact
            })
            .collect();
        state.apply(Change { contacts, ..Change::default() });
        self.transact(|tx| Ok(tx.begin(state, None)?))?;
        let records: Vec<Vec<u8>> = all.iter().map(|record| record.to_bytes(device)).collect();
        self.publish(&records)?;
        self.begin_cursors()?;
        self.read_rosters()?;
        self.announce_devices()
    }

    /// Links the device that shows `code`, on the primary device. `confirm` is asked with the new
    /// device's id, and fails if the answer is no.
    pub(crate) fn link_approve(
        &mut self,
        code: &Code,
        confirm: &dyn Fn(&str) -> Result<(), Failure>,
    ) -> Result<String, Failure> {
        let (me, primary) = self.transact(|tx| Ok((state(tx)?.me.user().clone(), tx.account_key().is_some())))?;
        if !primary {
            return Err(Failure::failed("only the primary device, which holds the account's key, can link others")
                .hint("run this on the device where the account was made, or `dsc import` the account's words there"));
        }
        let (rows, _) = self.command("/signals")?;
        let mut found = None;
        for row in &rows {
            let Ok(signal) = SignalLine::read(&Fields::parse(row)) else { continue };
            let Ok(raw) = armour::envelope(signal.body) else { continue };
            if let Ok(request) = Request::parse(&raw)
                && signal.sender.as_str() == me.as_str()
                && code.names(&request)
            {
                let old = now().ms().saturating_sub(signal.time.as_millis()) > LIFE * 1000;
                found = Some((signal.id, request, old));
            }
        }
        let Some((signal, request, old)) = found else {
            return Err(Failure::failed("no device with that code asks to be linked").hint(
                "check the code; it is good for ten minutes, and the new device has to be logged in as this account",
            ));
        };
        if old {
            return Err(Failure::failed("the code is older than ten minutes")
                .hint("begin again with `dsc link` on the new device"));
        }
        let device = request.device.to_string();
        confirm(&device)?;
        let (records, answer) = self.transact(|tx| {
            let account = tx.account_key().cloned().ok_or_else(super::no_keys)?;
            let known = state(tx)?;
            let own = known.contacts.get(&me).ok_or_else(super::no_keys)?;
            let mut certs: Vec<Certificate> = own.certs().to_vec();
            let listed = certs.iter().find(|cert| cert.address().device == request.device).cloned();
            let again = listed.as_ref().is_some_and(|cert| *cert.dsk() == request.dsk && *cert.dik() == request.dik);
            let cert = match listed {
                // An earlier try that broke off before the answer was given.
                Some(cert) if again => cert,
                Some(_) => return Err(Failure::failed("another device of that number is linked already")),
                None => {
                    let cert = certify(&account, &me, request.device, &request.dsk, &request.dik, now())?;
                    certs.push(cert.clone());
                    cert
                }
            };
            let pins: Vec<PinnedAccount> = known
                .contacts
                .values()
                .filter(|contact| *contact.user() != me)
                .take(link::PINS_MAX)
                .map(|contact| PinnedAccount {
                    user: contact.user().clone(),
                    aik: *contact.aik(),
                    verified: contact.verified(),
                })
                .collect();
            let records = if again { account_records(tx)? } else { relist(tx, &account, certs)? };
            let list = state(tx)?.contacts.get(&me).and_then(Contact::list).cloned().ok_or_else(super::no_keys)?;
            let answer = link::answer(&request, code, &cert, &list, &pins, &mut Os).map_err(cannot_seal)?;
            Ok((records, answer))
        })?;
        self.publish(&records)?;
        self.command(&format!("/signal {me} {}", armour::body(&answer)))?;
        self.ask(&format!("/ack signals {signal}"))?;
        self.announce_devices()?;
        Ok(device)
    }
}

//! This device's own keys: making them, publishing them, and renewing them before they run out.

use downstream::e2e::armour;
use downstream::e2e::bundle::Record;
use downstream::e2e::cert::Certificate;
use downstream::e2e::device_list::DeviceList;
use downstream::e2e::identity::DeviceKeys;
use downstream::e2e::name::{DeviceId, User};
use downstream::e2e::prekeys::{Prekeys, REFILL_BELOW};
use downstream::e2e::sign::SignKey;
use downstream::e2e::state::State;
use downstream::e2e::time::Now;

use super::{Client, Os, cannot_seal, no_random, notice, now, state};
use crate::error::Failure;
use crate::server::Reply;
use crate::store::Tx;

/// How long a certificate is good: 395 days of the 400 that are allowed, begun a day early for clocks that
/// are behind.
const CERTIFICATE_DAYS: u64 = 394;
/// A certificate that ends within so many days is renewed by the primary device.
const RENEW_BEFORE_DAYS: u64 = 60;
const DAY: u64 = 24 * 3600;

/// Keys for a device, made but not stored.
pub(crate) struct NewKeys {
    /// The state that begins with them.
    pub(crate) state: State,
    /// The records to publish, as bytes for `/keys put`.
    pub(crate) records: Vec<Vec<u8>>,
}

/// Certifies a device with the account's key.
pub(super) fn certify(
    account: &SignKey,
    user: &User,
    device: DeviceId,
    dsk: &[u8; 32],
    dik: &[u8; 32],
    now: Now,
) -> Result<Certificate, Failure> {
    let begin = now.secs().saturating_sub(DAY);
    let address = downstream::e2e::name::Address { user: user.clone(), device };
    Certificate::issue(account, &address, dsk, dik, begin, begin + CERTIFICATE_DAYS * DAY).map_err(|_| {
        Failure::failed("the clock of this machine is out of its range").hint("set the clock and try again")
    })
}

/// Makes the keys of an account's first device, or of the one that takes its place: `before` is the list
/// that the directory shows under the same account key, with its certificates, all of which stay listed.
pub(crate) fn new_keys(
    account: &SignKey,
    user: &User,
    before: Option<(&DeviceList, &[Certificate])>,
) -> Result<NewKeys, Failure> {
    let now = now();
    let keys = DeviceKeys::draw(user, &mut Os).map_err(|_| no_random())?;
    let cert = certify(account, user, keys.address.device, &keys.dsk.public(), keys.dik.public(), now)?;
    let mut certs: Vec<Certificate> = before.map(|(_, certs)| certs.to_vec()).unwrap_or_default();
    certs.push(cert.clone());
    let list = issue_list(account, user, before.map(|(list, _)| list), &certs)?;
    let me = keys.certified(cert.clone()).map_err(|_| Failure::failed("the new certificate does not fit its keys"))?;
    let (prekeys, records) = fresh_prekeys(&me, now)?;
    let raw: Vec<&[u8]> = certs.iter().map(Certificate::bytes).collect();
    let device = me.address().device;
    let state = State::new(me, prekeys, list.bytes(), &raw)
        .map_err(|_| Failure::failed("the new keys do not hold together"))?;
    let mut all = vec![Record::Certificate(cert), Record::List(list)];
    all.extend(records);
    Ok(NewKeys { state, records: all.iter().map(|record| record.to_bytes(device)).collect() })
}

pub(super) fn issue_list(
    account: &SignKey,
    user: &User,
    before: Option<&DeviceList>,
    certs: &[Certificate],
) -> Result<DeviceList, Failure> {
    let mut hashes: Vec<_> = certs.iter().map(Certificate::hash).collect();
    hashes.sort_unstable();
    DeviceList::issue(account, user, before, &hashes)
        .map_err(|_| Failure::failed("an account has at most 16 devices").hint("`dsc devices --drop DEVICE` first"))
}

/// The prekeys of a device that has none: all kinds, full pools.
pub(super) fn fresh_prekeys(
    me: &downstream::e2e::identity::Identity,
    now: Now,
) -> Result<(Prekeys, Vec<Record>), Failure> {
    let (prekeys, mut records) = Prekeys::default().rotate(me, now, &mut Os).map_err(cannot_seal)?;
    let (prekeys, more) = prekeys.refill(me, (0, 0), now, &mut Os).map_err(cannot_seal)?;
    records.extend(more);
    Ok((prekeys, records))
}

/// `/keys put` lines for records.
pub(crate) fn publish_lines(records: &[Vec<u8>]) -> Vec<String> {
    records.iter().map(|record| format!("/keys put {}", armour::base64(record))).collect()
}

/// The account's list and certificates as this device has them, to be put again.
fn directory_records(tx: &Tx<'_>) -> Result<Vec<Vec<u8>>, Failure> {
    let state = state(tx)?;
    let own = state.contacts.get(state.me.user());
    let mut records = vec![Record::Certificate(state.me.cert().clone()).to_bytes(state.me.address().device)];
    records.extend(
        own.and_then(|own| own.list()).map(|list| Record::List(list.clone()).to_bytes(state.me.address().device)),
    );
    Ok(records)
}

/// The certificates of all devices that the account lists, and the list.
pub(super) fn account_records(tx: &Tx<'_>) -> Result<Vec<Vec<u8>>, Failure> {
    let state = state(tx)?;
    let own = state.contacts.get(state.me.user());
    let certs = own.map(|own| own.certs()).unwrap_or_default();
    let mut records: Vec<Vec<u8>> =
        certs.iter().map(|cert| Record::Certificate(cert.clone()).to_bytes(cert.address().device)).collect();
    let list = own.and_then(|own| own.list()).cloned();
    records.extend(list.map(|list| Record::List(list).to_bytes(state.me.address().device)));
    Ok(records)
}

/// Whether the directory shows an earlier list of this account than this device has.
fn shows_older_list(tx: &Tx<'_>, rows: &[String]) -> Result<bool, Failure> {
    let state = state(tx)?;
    let me = state.me.user();
    let mut shown = super::directory::Shown::default();
    for row in rows {
        shown.take(me.as_str(), row);
    }
    let ours = state.contacts.get(me).map_or(0, |own| own.list_version());
    let list = shown.list.and_then(|raw| DeviceList::verify(&raw, me, state.me.aik()).ok());
    Ok(list.is_some_and(|list| list.version() < ours))
}

/// Prekeys that are due: new ones, committed, and the records to put.
fn due(tx: &mut Tx<'_>, pools: (usize, usize)) -> Result<Vec<Vec<u8>>, Failure> {
    let now = now();
    let known = state(tx)?;
    let (me, device) = (known.me.clone(), known.me.address().device);
    let (mut prekeys, mut records, mut pools) = (known.prekeys.clone(), Vec::new(), pools);
    if prekeys.rotation_due(&me, now) {
        // After a new certificate the directory has dropped what was signed under the old one.
        if !prekeys.signed_under(me.cert()) {
            pools = (0, 0);
        }
        let (next, more) = prekeys.rotate(&me, now, &mut Os).map_err(cannot_seal)?;
        prekeys = next;
        records.extend(more);
    }
    let (next, more) = prekeys.refill(&me, pools, now, &mut Os).map_err(cannot_seal)?;
    records.extend(more);
    if !records.is_empty() {
        tx.apply(downstream::e2e::state::Change { prekeys: Some(next), ..Default::default() });
    }
    Ok(records.iter().map(|record| record.to_bytes(device)).collect())
}

impl Client<'_> {
    /// Everything that the directory should hold of this device, made anew where it is used up: the
    /// certificate, the list, prekeys of every kind.
    pub(crate) fn publishable(&mut self) -> Result<Vec<Vec<u8>>, Failure> {
        self.transact(|tx| {
            let mut records = directory_records(tx)?;
            let known = state(tx)?;
            let (me, device) = (known.me.clone(), known.me.address().device);
            let (next, mut more) = known.prekeys.rotate(&me, now(), &mut Os).map_err(cannot_seal)?;
            let (next, pools) = next.refill(&me, (0, 0), now(), &mut Os).map_err(cannot_seal)?;
            more.extend(pools);
            tx.apply(downstream::e2e::state::Change { prekeys: Some(next), ..Default::default() });
            records.extend(more.iter().map(|record| record.to_bytes(device)));
            Ok(records)
        })
    }

    /// Puts records into the directory.
    pub(crate) fn publish(&mut self, records: &[Vec<u8>]) -> Result<Option<Reply>, Failure> {
        let lines = publish_lines(records);
        let mut last = None;
        for line in &lines {
            last = Some(self.command(line)?.1);
        }
        Ok(last)
    }

    /// What every command that is online does first: certificates that end soon are renewed (on the
    /// primary device), prekeys that are due are replaced, pools are filled, the account's own list is
    /// looked at.
    pub(crate) fn upkeep(&mut self) -> Result<(), Failure> {
        let (me, device) = {
            let Some((me, device)) =
                self.transact(|tx| Ok(tx.state().map(|state| (state.me.user().clone(), state.me.address().device))))?
            else {
                return Ok(());
            };
            (me, device)
        };
        let own = format!("/keys get {me} only=certs");
        let mut answers = self.server.ask_all(&["/keys status", own.as_str()])?.into_iter();
        let (Some(status), Some(certs)) = (answers.next(), answers.next()) else { return Ok(()) };
        let hex = device.to_string();
        let row = status.rows.iter().find(|row| row.split(' ').nth(1) == Some(hex.as_str()));
        let pools = row.map(|row| (count(row, "opk"), count(row, "pqk")));
        let listed = certs.rows.iter().any(|row| row.starts_with("devices "));
        let mut shown = certs.rows;
        if listed && self.transact(|tx| shows_older_list(tx, &shown))? {
            // An earlier publishing broke off, the server was restored from a backup, or a dropped device put
            // its list again. Whoever heard of the newest seals nothing to this account until it is shown.
            let records = self.transact(|tx| account_records(tx))?;
            self.publish(&records)?;
            self.say(&notice("list-restored", None, "the newest device list of this account was put there again"))?;
            shown = self.command(&own)?.0;
            self.announce_devices()?;
        }
        if listed {
            self.check_own(&me, &shown)?;
            // To put its list again would undo what the account's owner has done.
            if self.transact(|tx| Ok(is_dropped(state(tx)?)))? {
                let failure = Failure::failed(format!("this device was taken off the account {me}"));
                return Err(failure
                    .hint("its history stays here; `dsc login` and `dsc link` in a new --home make another device"));
            }
        }
        if pools.is_none() || !listed {
            // The directory has never seen this device, or has lost it: an earlier publishing broke off.
            self.republish()?;
        }
        self.renew()?;
        let pools = pools.unwrap_or((0, 0));
        if pools.0 < REFILL_BELOW || pools.1 < REFILL_BELOW || self.transact(|tx| rotation_due(tx))? {
            self.refill(pools)?;
        }
        Ok(())
    }

    /// Fills the pools, which hold so many keys now, and rotates what is due.
    pub(crate) fn refill(&mut self, pools: (usize, usize)) -> Result<(), Failure> {
        let records = self.transact(|tx| due(tx, pools))?;
        self.publish(&records)?;
        Ok(())
    }

    /// Puts certificate and list again.
    pub(crate) fn republish(&mut self) -> Result<(), Failure> {
        let records = self.transact(|tx| directory_records(tx))?;
        self.publish(&records)?;
        let records = self.transact(|tx| {
            let known = state(tx)?;
            let (me, device) = (known.me.clone(), known.me.address().device);
            let (prekeys, more) = known.prekeys.rotate(&me, now(), &mut Os).map_err(cannot_seal)?;
            tx.apply(downstream::e2e::state::Change { prekeys: Some(prekeys), ..Default::default() });
            Ok(more.iter().map(|record| record.to_bytes(device)).collect::<Vec<_>>())
        })?;
        self.publish(&records)?;
        Ok(())
    }

    /// The account's own list as the server shows it: another device of the account, or an alarm.
    fn check_own(&mut self, me: &User, rows: &[String]) -> Result<(), Failure> {
        let mut shown = super::directory::Shown::default();
        for row in rows {
            shown.take(me.as_str(), row);
        }
        // The alarm was shown; what is pinned stays in use.
        if let Err(failure) = self.learn_shown(me, &shown)
            && failure.exit != crate::error::Exit::IdentityChanged
        {
            return Err(failure);
        }
        let adopted = self.transact(|tx| {
            let known = state(tx)?;
            let listed =
                known.contacts.get(known.me.user()).and_then(|own| own.device(known.me.address().device)).cloned();
            match listed {
                Some(cert) if cert != *known.me.cert() && *cert.aik() == *known.me.aik() => {
                    let renewed = known
                        .me
                        .renewed(cert)
                        .map_err(|_| Failure::failed("the server lists this device with other keys"))?;
                    tx.set_identity(renewed);
                    Ok(true)
                }
                _ => Ok(false),
            }
        })?;
        if adopted {
            self.say(&notice("renewed", None, "this device has a new certificate"))?;
            self.refill((0, 0))?;
        }
        Ok(())
    }

    /// Renews the certificates of all devices of the account, where they end soon and this device holds
    /// the account's key.
    fn renew(&mut self) -> Result<(), Failure> {
        let records = self.transact(|tx| {
            let now = now();
            let known = state(tx)?;
            let (Some(account), Some(own)) = (tx.account_key().cloned(), known.contacts.get(known.me.user()).cloned())
            else {
                return Ok(Vec::new());
            };
            let ends_soon = |cert: &Certificate| cert.life().1 < now.secs() + RENEW_BEFORE_DAYS * DAY;
            if !own.certs().iter().any(ends_soon) {
                return Ok(Vec::new());
            }
            let user = known.me.user().clone();
            let mut certs = Vec::new();
            for cert in own.certs() {
                let device = cert.address().device;
                certs.push(if ends_soon(cert) {
                    certify(&account, &user, device, cert.dsk(), cert.dik(), now)?
                } else {
                    cert.clone()
                });
            }
            relist(tx, &account, certs)
        })?;
        if !records.is_empty() {
            self.publish(&records)?;
            self.announce_devices()?;
        }
        Ok(())
    }
}

/// Issues and stores a list of these certificates; the records to publish. This device's own new
/// certificate, if it is among them, is taken into use.
pub(super) fn relist(tx: &mut Tx<'_>, account: &SignKey, certs: Vec<Certificate>) -> Result<Vec<Vec<u8>>, Failure> {
    let known = state(tx)?;
    let (user, me) = (known.me.user().clone(), known.me.clone());
    let before = known.contacts.get(&user).cloned();
    let list = issue_list(account, &user, before.as_ref().and_then(|own| own.list()), &certs)?;
    let raw: Vec<&[u8]> = certs.iter().map(Certificate::bytes).collect();
    let (change, _) = known
        .learn(&user, list.bytes(), &raw, now())
        .map_err(|_| Failure::failed("the new device list does not hold together"))?;
    tx.apply(change);
    let mine = certs.iter().find(|cert| cert.address() == me.address());
    if let Some(cert) = mine
        && cert != me.cert()
    {
        let renewed =
            me.renewed(cert.clone()).map_err(|_| Failure::failed("the new certificate does not fit its keys"))?;
        tx.set_identity(renewed);
    }
    let mut records: Vec<Vec<u8>> = Vec::new();
    let known: Vec<_> = before.iter().flat_map(|own| own.certs()).cloned().collect();
    for cert in certs.iter().filter(|cert| !known.contains(cert)) {
        records.push(Record::Certificate(cert.clone()).to_bytes(cert.address().device));
    }
    let gone = known.iter().filter(|old| !certs.iter().any(|cert| cert.address() == old.address()));
    records.extend(gone.map(|old| Record::Forget.to_bytes(old.address().device)));
    records.push(Record::List(list).to_bytes(me.address().device));
    Ok(records)
}

/// Whether the account's newest list has no place for this device.
fn is_dropped(known: &State) -> bool {
    let own = known.contacts.get(known.me.user());
    own.is_some_and(|own| own.list().is_some() && own.device(known.me.address().device).is_none())
}

fn rotation_due(tx: &Tx<'_>) -> Result<bool, Failure> {
    let state = state(tx)?;
    Ok(state.prekeys.rotation_due(&state.me, now()))
}

fn count(row: &str, key: &str) -> usize {
    let value = row.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    value.and_then(|value| value.parse().ok()).unwrap_or(0)
}

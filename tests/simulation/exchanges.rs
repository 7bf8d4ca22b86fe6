//! What programs exchange beside messages, as the store was seen to commit it: signals, the key directory,
//! rosters. Kept apart from the store, from its answers alone.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use base64ct::{Base64, Encoding as _};
use downstream::ops::{
    AccountId, Answer, Bundles, ConversationId, DEVICES_MAX, Op, Outcome, Pools, Query, Refused, SIGNALS_MAX,
};
use downstream::protocol::keys::{DH_KEY_LEN, DH_POOL, POST_QUANTUM_KEY_LEN, POST_QUANTUM_POOL};
use downstream::protocol::{DeviceName, KeyRecord, PoolKind, PrekeyBytes, Timestamp};
use downstream::session::ConnId;

type Checked = Result<(), String>;

pub struct Signal {
    pub sender: String,
    pub body: Arc<str>,
    pub time: Timestamp,
    /// The connection that sent it.
    pub from: Option<ConnId>,
    /// The core knows of it.
    pub answered: bool,
    /// Not acknowledged.
    pub waits: bool,
}

/// One-time keys of one kind.
#[derive(Default)]
struct Pool {
    keys: BTreeMap<u32, Vec<u8>>,
    /// Given away, for as long as the device is known.
    given: HashSet<u32>,
}

#[derive(Default)]
struct Device {
    certificate: Vec<u8>,
    signed: Option<Vec<u8>>,
    last: Option<Vec<u8>>,
    dh: Pool,
    post_quantum: Pool,
}

impl Device {
    fn pools(&self, device: DeviceName) -> Pools {
        Pools { device, dh: self.dh.keys.len() as u64, post_quantum: self.post_quantum.keys.len() as u64 }
    }

    fn has_bundle(&self) -> bool {
        self.signed.is_some() && (self.last.is_some() || !self.post_quantum.keys.is_empty())
    }
}

#[derive(Default)]
pub struct Exchanges {
    pub signals: BTreeMap<(AccountId, u64), Signal>,
    pub signal_by_body: HashMap<Arc<str>, (AccountId, u64)>,
    rosters: BTreeMap<ConversationId, Vec<Vec<u8>>>,
    lists: BTreeMap<AccountId, Vec<u8>>,
    devices: BTreeMap<(AccountId, DeviceName), Device>,
}

impl Exchanges {
    /// A write was committed and not refused. `room` is that of a roster, with its members.
    pub fn committed(&mut self, op: &Op, outcome: &Outcome, from: Option<ConnId>) -> Checked {
        match (op, outcome) {
            (Op::AddSignal { sender, body, receiver }, Outcome::Signalled(stored)) => {
                let to = stored.receiver.id;
                if stored.receiver.name != *receiver {
                    return Err(format!("a signal to {receiver} went to {:?}", stored.receiver));
                }
                let last = self.signals_to(to).last().map_or(0, |(id, _)| id);
                if stored.id <= last {
                    return Err(format!("signal {} behind {last}", stored.id));
                }
                let waiting = self.waiting(to).filter(|(_, signal)| signal.sender == sender.name.as_str()).count();
                if waiting as u64 >= SIGNALS_MAX {
                    return Err("more signals wait than may".into());
                }
                let signal = Signal {
                    sender: sender.name.to_string(),
                    body: body.clone(),
                    time: stored.time,
                    from,
                    answered: false,
                    waits: true,
                };
                self.signals.insert((to, stored.id), signal);
                self.signal_by_body.insert(body.clone(), (to, stored.id));
            }
            (Op::DropSignal { account, id }, _) => {
                let signal = self.signals.get_mut(&(*account, *id)).filter(|signal| signal.waits);
                signal.ok_or("a signal was erased that does not wait")?.waits = false;
            }
            (Op::PutKeys { account, device, record }, Outcome::Pools(pools)) => {
                self.put(*account, *device, record)?;
                let empty = Pools { device: *device, dh: 0, post_quantum: 0 };
                let expected = self.devices.get(&(*account, *device)).map_or(empty, |known| known.pools(*device));
                if *pools != expected {
                    return Err(format!("the pools are {pools:?}, not {expected:?}"));
                }
            }
            (Op::TakeBundles { device, .. }, Outcome::Bundles(bundles)) => self.taken(*device, bundles)?,
            (Op::AddRoster { epoch, entry, .. }, Outcome::RosterAdded(added)) => {
                let roster = self.rosters.entry(added.room.id).or_default();
                if added.epoch != *epoch || *epoch as usize != roster.len() + 1 || !added.room.e2e {
                    return Err(format!("entry {epoch} behind {}", roster.len()));
                }
                roster.push(entry.clone());
            }
            (Op::Unregister { account, .. }, _) => {
                self.devices.retain(|(owner, _), _| owner != account);
                self.lists.remove(account);
                let all = (*account, 0)..=(*account, u64::MAX);
                self.signals.range_mut(all).for_each(|(_, signal)| signal.waits = false);
            }
            _ => {}
        }
        Ok(())
    }

    /// A write was committed and refused; `room` is that of a roster.
    pub fn refused(&self, op: &Op, refused: Refused, room: Option<ConversationId>) -> Checked {
        match (op, refused) {
            (Op::DropSignal { account, id }, Refused::NotFound) => {
                match self.signals.get(&(*account, *id)).filter(|signal| signal.waits) {
                    Some(_) => Err(format!("signal {id} waits, and was not found")),
                    None => Ok(()),
                }
            }
            (Op::AddSignal { sender, .. }, Refused::Quota(_)) => {
                let from = |signal: &&Signal| signal.waits && signal.sender == sender.name.as_str();
                let waiting = self.signals.values().filter(from).count() as u64;
                if waiting >= SIGNALS_MAX { Ok(()) } else { Err(format!("a quota at {waiting}")) }
            }
            (Op::PutKeys { account, .. }, Refused::Quota(_)) => {
                let devices = self.devices.keys().filter(|(owner, _)| owner == account).count();
                if devices >= DEVICES_MAX { Ok(()) } else { Err(format!("a quota at {devices} devices")) }
            }
            (Op::AddRoster { epoch, .. }, Refused::Epoch(last)) => {
                let expected = room.and_then(|room| self.rosters.get(&room)).map_or(0, Vec::len);
                if last as usize == expected && u64::from(*epoch) != u64::from(last) + 1 {
                    Ok(())
                } else {
                    Err(format!("entry {epoch} conflicts with {last}, and the last is {expected}"))
                }
            }
            _ => Ok(()),
        }
    }

    /// What a device lacks for a bundle: the type of a record.
    pub fn wanted(&self, account: AccountId, device: DeviceName) -> Option<u8> {
        match self.devices.get(&(account, device)) {
            None => Some(0x10),
            Some(device) if device.signed.is_none() => Some(0x12),
            Some(device) if !device.has_bundle() => Some(0x15),
            Some(_) => None,
        }
    }

    /// A room's number stands for another room now.
    pub fn room_made(&mut self, room: ConversationId) {
        self.rosters.remove(&room);
    }

    /// The last place of a roster.
    pub fn last_epoch(&self, room: ConversationId) -> usize {
        self.rosters.get(&room).map_or(0, Vec::len)
    }

    fn signals_to(&self, account: AccountId) -> impl Iterator<Item = (u64, &Signal)> {
        self.signals.range((account, 0)..=(account, u64::MAX)).map(|((_, id), signal)| (*id, signal))
    }

    /// The signals that wait for an account, by number.
    pub fn waiting(&self, account: AccountId) -> impl Iterator<Item = (u64, &Signal)> {
        self.signals_to(account).filter(|(_, signal)| signal.waits)
    }

    // ---- keys --------------------------------------------------------------------------------------

    fn put(&mut self, account: AccountId, name: DeviceName, record: &KeyRecord) -> Checked {
        let place = (account, name);
        match record {
            KeyRecord::DeviceList(list) => {
                self.lists.insert(account, list.clone());
                return Ok(());
            }
            KeyRecord::Forget => {
                self.devices.remove(&place);
                return Ok(());
            }
            KeyRecord::Certificate(certificate) => {
                let device = self.devices.entry(place).or_default();
                if device.certificate != *certificate {
                    device.certificate.clone_from(certificate);
                    (device.signed, device.last) = (None, None);
                    device.dh.keys.clear();
                    device.post_quantum.keys.clear();
                }
                return Ok(());
            }
            KeyRecord::SignedPrekey(_) | KeyRecord::OneTime(..) | KeyRecord::LastResort(_) => {}
        }
        let device = self.devices.get_mut(&place).ok_or("a prekey of a device that has no certificate")?;
        match record {
            KeyRecord::SignedPrekey(key) => device.signed = Some(key.bytes.clone()),
            KeyRecord::LastResort(key) => device.last = Some(key.bytes.clone()),
            KeyRecord::OneTime(PoolKind::Dh, keys) => device.dh.fill(keys, DH_POOL),
            KeyRecord::OneTime(PoolKind::PostQuantum, keys) => device.post_quantum.fill(keys, POST_QUANTUM_POOL),
            _ => {}
        }
        Ok(())
    }

    /// Bundles were given away: every part must be there, and no one-time key was given away before.
    fn taken(&mut self, only: Option<DeviceName>, taken: &Bundles) -> Checked {
        let owner = taken.person.id;
        if taken.list != self.lists.get(&owner).cloned() {
            return Err("another device list than was put".into());
        }
        let all = (owner, DeviceName([0; 16]))..=(owner, DeviceName([255; 16]));
        let wanted = |name: &DeviceName| only.is_none_or(|only| only == *name);
        let mut expected = BTreeSet::new();
        for ((_, name), device) in self.devices.range(all) {
            if wanted(name) && device.has_bundle() {
                expected.insert(*name);
            }
        }
        if taken.bundles.iter().map(|(name, _)| *name).collect::<BTreeSet<_>>() != expected {
            return Err(format!("bundles of {:?}, not of {expected:?}", taken.bundles.len()));
        }
        for ((name, bundle), left) in taken.bundles.iter().zip(&taken.left) {
            let device = self.devices.get_mut(&(owner, *name)).ok_or("a bundle of no device")?;
            device.took(bundle).map_err(|why| format!("the bundle of {name}: {why}"))?;
            if *left != device.pools(*name) {
                return Err(format!("{left:?} are left, not {:?}", device.pools(*name)));
            }
        }
        Ok(())
    }

    // ---- reads -------------------------------------------------------------------------------------

    /// A read was answered from what is committed now; `room` is that of a roster.
    pub fn looked_up(&self, query: &Query, answer: &Answer, room: Option<ConversationId>) -> Checked {
        match (query, answer) {
            (Query::Signals { account, after, .. }, Answer::Signals { rows, more }) => {
                let mut expected = self.waiting(*account).filter(|(id, _)| id > after);
                for row in rows {
                    let fits = expected.next().is_some_and(|(id, signal)| {
                        (row.id, row.time, row.sender.name.as_str()) == (id, signal.time, &*signal.sender)
                            && row.body == signal.body
                    });
                    if !fits {
                        return Err(format!("signal {} is read, and does not wait there", row.id));
                    }
                }
                if *more != expected.next().is_some() {
                    return Err(format!("more={more} behind {} signals", rows.len()));
                }
            }
            (Query::Roster { after, .. }, Answer::Roster(page)) => {
                let roster = room.and_then(|room| self.rosters.get(&room)).map_or(&[][..], Vec::as_slice);
                let behind = roster.get(*after as usize..).unwrap_or_default();
                let places = (u64::from(*after) + 1..).zip(behind);
                let prefix = page
                    .rows
                    .iter()
                    .zip(places)
                    .all(|((epoch, entry), (place, known))| u64::from(*epoch) == place && entry == known);
                let whole = page.rows.len() == behind.len();
                if !prefix || page.rows.len() > behind.len() || page.more == whole || page.last as usize != roster.len()
                {
                    return Err(format!("a roster of {} reads as {:?}", roster.len(), page.rows.len()));
                }
            }
            (Query::Pools(account), Answer::Pools(pools)) => {
                let own = self.devices.iter().filter(|((owner, _), _)| owner == account);
                let expected: Vec<Pools> = own.map(|((_, name), device)| device.pools(*name)).collect();
                if *pools != expected {
                    return Err(format!("the pools are {pools:?}, not {expected:?}"));
                }
            }
            (Query::DeviceCertificates { device: only, .. }, Answer::DeviceCertificates(found)) => {
                let owner = found.person.id;
                let own = self.devices.iter().filter(|((of, name), _)| *of == owner && only.is_none_or(|o| o == *name));
                let expected: Vec<_> = own.map(|((_, name), device)| (*name, device.certificate.clone())).collect();
                if found.certificates != expected || found.list != self.lists.get(&owner).cloned() {
                    return Err(format!("the certificates are {:?}", found.certificates.len()));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl Pool {
    fn fill(&mut self, keys: &[PrekeyBytes], most: usize) {
        for key in keys {
            // What was given away must not come back; nor do ids below it, which a device never uses again. Ids
            // begin at 1.
            let last = self.given.iter().max().copied().unwrap_or(0);
            if key.id > last && self.keys.len() < most {
                self.keys.entry(key.id).or_insert_with(|| key.bytes.clone());
            }
        }
    }

    /// Exactly these bytes were given away, or nothing where nothing is left.
    fn take(&mut self, bytes: Option<&[u8]>) -> Checked {
        let Some(bytes) = bytes else {
            return if self.keys.is_empty() { Ok(()) } else { Err("no one-time key, though some are left".into()) };
        };
        let id = u32::from_be_bytes(bytes.first_chunk().copied().unwrap_or_default());
        if !self.given.insert(id) {
            return Err(format!("key {id} was given away twice"));
        }
        match self.keys.remove(&id) {
            Some(known) if known == bytes => Ok(()),
            Some(_) => Err(format!("key {id} with other bytes")),
            None => Err(format!("key {id}, which is not there")),
        }
    }
}

impl Device {
    fn took(&mut self, bundle: &[u8]) -> Checked {
        let signed = self.signed.as_deref().unwrap_or_default();
        let head = [&(self.certificate.len() as u16).to_be_bytes(), self.certificate.as_slice(), signed].concat();
        let rest = bundle.strip_prefix(head.as_slice()).ok_or("not its certificate and signed prekey")?;
        let (dh, rest) = match rest.split_first().ok_or("too short")? {
            (0, rest) => (None, rest),
            (1, rest) => rest.split_at_checked(DH_KEY_LEN).map(|(key, rest)| (Some(key), rest)).ok_or("too short")?,
            _ => return Err("neither with nor without a one-time key".into()),
        };
        self.dh.take(dh)?;
        match rest.split_first() {
            Some((0, key)) if key.len() == POST_QUANTUM_KEY_LEN => self.post_quantum.take(Some(key)),
            Some((1, key)) if self.last.as_deref() == Some(key) => self.post_quantum.take(None),
            _ => Err("no ML-KEM key that is one".into()),
        }
    }
}

/// The rows that a command's reply must have, by what the store answered.
pub fn rows_of_outcome(outcome: &Outcome) -> Option<Vec<String>> {
    match outcome {
        Outcome::Bundles(taken) => {
            Some(device_rows(taken.person.name.as_str(), taken.list.as_deref(), "keys", &taken.bundles))
        }
        _ => None,
    }
}

/// The same of a read.
pub fn rows_of_answer(query: &Query, answer: &Answer) -> Option<Vec<String>> {
    match (query, answer) {
        // Not what is read back for a session that fell behind: those pages are smaller.
        (Query::Signals { max_bytes, .. }, Answer::Signals { rows, .. }) if *max_bytes == 1 << 20 => {
            let row =
                |s: &downstream::ops::Signal| format!("- signal {} {} {} :{}", s.id, s.time, s.sender.name, s.body);
            Some(rows.iter().map(row).collect())
        }
        (Query::Roster { room, .. }, Answer::Roster(page)) => {
            let row =
                |(epoch, entry): &(u32, Vec<u8>)| format!("- roster {room} {epoch} {}", Base64::encode_string(entry));
            Some(page.rows.iter().map(row).collect())
        }
        (_, Answer::Pools(pools)) => {
            let row = |p: &Pools| format!("- keys-status {} opk={} pqk={}", p.device, p.dh, p.post_quantum);
            Some(pools.iter().map(row).collect())
        }
        (_, Answer::DeviceCertificates(found)) => {
            Some(device_rows(found.person.name.as_str(), found.list.as_deref(), "cert", &found.certificates))
        }
        _ => None,
    }
}

fn device_rows(user: &str, list: Option<&[u8]>, kind: &str, rows: &[(DeviceName, Vec<u8>)]) -> Vec<String> {
    let list = list.map(|list| format!("- devices {user} {}", Base64::encode_string(list)));
    let row =
        |(name, bytes): &(DeviceName, Vec<u8>)| format!("- {kind} {user} {name} {}", Base64::encode_string(bytes));
    list.into_iter().chain(rows.iter().map(row)).collect()
}

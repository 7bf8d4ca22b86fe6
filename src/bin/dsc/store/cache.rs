//! What of the store is held in memory: all but marks, history, outbox and lines that wait.

use std::collections::{BTreeMap, BTreeSet};

use downstream::e2e::contact::Contact;
use downstream::e2e::error::Damaged;
use downstream::e2e::identity::Identity;
use downstream::e2e::inner::Conversation;
use downstream::e2e::name::{Address, ConvId, DeviceId, RoomId, RoomName, User};
use downstream::e2e::prekeys::Prekeys;
use downstream::e2e::room::{Chains, Room};
use downstream::e2e::roster_log::Roster;
use downstream::e2e::secret::Secret;
use downstream::e2e::sessions::Peer;
use downstream::e2e::sign::SignKey;
use downstream::e2e::state::State;
use downstream::e2e::thread::{Outgoing, Thread};
use downstream::protocol::Target;
use rusqlite::{Connection, Transaction};
use zeroize::Zeroizing;

use super::codec::{Fields, Row};
use super::profile::Profile;
use super::rows::{Rows, Single};
use super::vault::Vault;
use super::{StoreError, outbox, schema};

/// A conversation of the server.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Log {
    /// How far this device has read.
    pub(super) cursor: Option<u64>,
}

/// A bundle that was fetched and not used yet.
#[derive(Debug, Clone)]
pub(super) struct KeptBundle {
    pub(super) raw: Vec<u8>,
    /// When it was put in, Unix milliseconds.
    pub(super) since_ms: u64,
}

/// Rows and bytes of a table that is not held in memory.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Volume {
    pub(super) rows: usize,
    pub(super) bytes: usize,
}

/// What was loaded, as of one version of the file.
pub(super) struct Cache {
    /// The file's version, [`schema::data_version`].
    pub(super) version: i64,
    pub(super) state: Option<State>,
    pub(super) account_key: Option<SignKey>,
    pub(super) profile: Profile,
    pub(super) logs: BTreeMap<Target, Log>,
    pub(super) pins: BTreeMap<RoomName, RoomId>,
    pub(super) device_names: BTreeMap<Address, String>,
    pub(super) bundles: BTreeMap<Address, KeptBundle>,
    pub(super) settings: BTreeMap<String, Zeroizing<Vec<u8>>>,
    pub(super) outbox: Volume,
    pub(super) held: Volume,
    pub(super) rows: Tables,
}

/// Where the rows stand, and which are to be written.
pub(super) struct Tables {
    pub(super) singles: BTreeSet<Single>,
    pub(super) contacts: Rows<User>,
    pub(super) peers: Rows<Address>,
    pub(super) rosters: Rows<RoomId>,
    pub(super) chains: Rows<RoomId>,
    pub(super) threads: Rows<(Address, Conversation)>,
    pub(super) outgoing: Rows<Conversation>,
    pub(super) pins: Rows<RoomName>,
    pub(super) logs: Rows<Target>,
    pub(super) device_names: Rows<Address>,
    pub(super) bundles: Rows<Address>,
    pub(super) settings: Rows<String>,
}

impl Cache {
    /// Loads and opens everything. A row that does not open, or is there twice, is damage: no part of a
    /// store is used without the rest.
    pub(super) fn load(sql: &Transaction<'_>, vault: &Vault) -> Result<Cache, StoreError> {
        let single = |which: Single| which.read(sql, vault);
        let mut contacts = BTreeMap::new();
        let contact_rows = Rows::load(sql, vault, "contact", |row| {
            let contact = Contact::from_row(row)?;
            let user = contact.user().clone();
            contacts.insert(user.clone(), contact);
            Ok(user)
        })?;
        let mut peers = BTreeMap::new();
        let peer_rows = keyed(sql, vault, "peer", read_address, |address, row| {
            peers.insert(address, Peer::from_row(row)?);
            Ok(())
        })?;
        let mut rosters = Vec::new();
        let roster_rows = Rows::load(sql, vault, "roster", |row| {
            rosters.push(Roster::from_row(row)?);
            rosters.last().map(Roster::id).ok_or(Damaged)
        })?;
        let mut chains = BTreeMap::new();
        let chain_rows = keyed(sql, vault, "chains", read_room, |room, row| {
            chains.insert(room, Chains::from_row(row)?);
            Ok(())
        })?;
        let mut threads = BTreeMap::new();
        let read_thread = |fields: &mut Fields<'_>| Ok((read_address(fields)?, read_conversation(fields)?));
        let thread_rows = keyed(sql, vault, "thread", read_thread, |key, row| {
            threads.insert(key, Thread::from_row(row)?);
            Ok(())
        })?;
        let mut outgoing = BTreeMap::new();
        let outgoing_rows = keyed(sql, vault, "outgoing", read_conversation, |key, row| {
            outgoing.insert(key, Outgoing::from_row(row)?);
            Ok(())
        })?;

        let mut rooms = BTreeMap::new();
        for roster in rosters {
            let chains = chains.remove(&roster.id()).unwrap_or_default();
            rooms.insert(roster.id(), Room { roster, chains });
        }
        if !chains.is_empty() {
            return Err(StoreError::damaged("a room has sender keys and no roster"));
        }
        let state = match (single(Single::Identity)?, single(Single::Prekeys)?) {
            (None, None) => None,
            (Some(me), Some(prekeys)) => Some(State {
                me: Identity::from_row(&me)?,
                prekeys: Prekeys::from_row(&prekeys)?,
                contacts: contacts.into(),
                peers,
                marks: BTreeMap::new(),
                rooms,
                threads,
                outgoing,
            }),
            _ => return Err(StoreError::damaged("one of identity and prekeys is missing")),
        };
        let account_key = single(Single::AccountKey)?
            .map(|seed| {
                Ok::<_, Damaged>(SignKey::from_seed(&Secret::copy_from(seed[..].try_into().map_err(|_| Damaged)?)))
            })
            .transpose()?;
        let profile = single(Single::Profile)?.map(|row| Profile::from_row(&row)).transpose()?.unwrap_or_default();

        let mut logs = BTreeMap::new();
        let log_rows = Rows::load(sql, vault, "conversation", |row| {
            let mut fields = Fields::of(row);
            let target = Target::parse(fields.text()?).map_err(|_| Damaged)?;
            logs.insert(target.clone(), Log { cursor: fields.maybe_number()? });
            fields.end()?;
            Ok(target)
        })?;
        let mut pins = BTreeMap::new();
        let pin_rows = Rows::load(sql, vault, "pin", |row| {
            let mut fields = Fields::of(row);
            let name = RoomName::parse(fields.text()?)?;
            pins.insert(name.clone(), read_room(&mut fields)?);
            fields.end()?;
            Ok(name)
        })?;
        let mut device_names = BTreeMap::new();
        let device_name_rows = keyed(sql, vault, "device_name", read_address, |address, name| {
            device_names.insert(address, str::from_utf8(name).map_err(|_| Damaged)?.to_owned());
            Ok(())
        })?;
        let mut bundles = BTreeMap::new();
        let bundle_rows = keyed(sql, vault, "bundle", read_address, |address, row| {
            let mut fields = Fields::of(row);
            let bundle = KeptBundle { since_ms: fields.number()?, raw: fields.bytes()?.to_vec() };
            bundles.insert(address, bundle);
            fields.end()
        })?;
        let mut settings = BTreeMap::new();
        let read_key = |fields: &mut Fields<'_>| fields.text().map(str::to_owned);
        let setting_rows = keyed(sql, vault, "setting", read_key, |key, value| {
            settings.insert(key, Zeroizing::new(value.to_vec()));
            Ok(())
        })?;

        Ok(Cache {
            version: schema::data_version(sql)?,
            state,
            account_key,
            profile,
            logs,
            pins,
            device_names,
            bundles,
            settings,
            outbox: outbox::volume(sql, "outbox")?,
            held: outbox::volume(sql, "held")?,
            rows: Tables {
                singles: BTreeSet::new(),
                contacts: contact_rows,
                peers: peer_rows,
                rosters: roster_rows,
                chains: chain_rows,
                threads: thread_rows,
                outgoing: outgoing_rows,
                pins: pin_rows,
                logs: log_rows,
                device_names: device_name_rows,
                bundles: bundle_rows,
                settings: setting_rows,
            },
        })
    }

    /// Writes every row that was touched, as it is now.
    pub(super) fn write(&mut self, sql: &Transaction<'_>, vault: &Vault) -> Result<(), StoreError> {
        let Cache { state, rows, .. } = self;
        let state = state.as_ref();
        for single in std::mem::take(&mut rows.singles) {
            let plain = match single {
                Single::Check => continue,
                Single::Identity => state.map(|state| state.me.to_row()),
                Single::Prekeys => state.map(|state| state.prekeys.to_row()),
                Single::AccountKey => self.account_key.as_ref().map(|key| Zeroizing::new(key.seed().expose().to_vec())),
                Single::Profile => Some(self.profile.to_row()),
            };
            single.write(sql, vault, plain)?;
        }
        rows.contacts.write(sql, vault, |user| Some(Zeroizing::new(state?.contacts.get(user)?.to_row())))?;
        rows.peers.write(sql, vault, |at| {
            let row = state?.peers.get(at)?.to_row();
            Some(write_address(at).bytes(&row).done())
        })?;
        rows.rosters.write(sql, vault, |id| Some(Zeroizing::new(state?.rooms.get(id)?.roster.to_row())))?;
        rows.chains.write(sql, vault, |id| {
            let row = state?.rooms.get(id)?.chains.to_row();
            Some(Row::new().array(&id.0).bytes(&row).done())
        })?;
        rows.threads.write(sql, vault, |key| {
            let row = state?.threads.get(key)?.to_row();
            Some(write_conversation(write_address(&key.0), key.1).bytes(&row).done())
        })?;
        rows.outgoing.write(sql, vault, |key| {
            let row = state?.outgoing.get(key)?.to_row();
            Some(write_conversation(Row::new(), *key).bytes(&row).done())
        })?;
        rows.pins
            .write(sql, vault, |name| Some(Row::new().text(name.as_str()).array(&self.pins.get(name)?.0).done()))?;
        rows.logs.write(sql, vault, |target| {
            let log = self.logs.get(target)?;
            Some(Row::new().text(target.as_str()).maybe_number(log.cursor).done())
        })?;
        rows.device_names.write(sql, vault, |at| Some(write_address(at).text(self.device_names.get(at)?).done()))?;
        rows.bundles.write(sql, vault, |at| {
            let bundle = self.bundles.get(at)?;
            let row = Row::new().number(bundle.since_ms).bytes(&bundle.raw).done();
            Some(write_address(at).bytes(&row).done())
        })?;
        rows.settings.write(sql, vault, |key| Some(Row::new().text(key).bytes(self.settings.get(key)?).done()))
    }
}

/// Reads a table whose rows are a key and one value behind it.
fn keyed<K: Ord + Clone>(
    sql: &Connection,
    vault: &Vault,
    table: &'static str,
    key: impl Fn(&mut Fields<'_>) -> Result<K, Damaged>,
    mut take: impl FnMut(K, &[u8]) -> Result<(), Damaged>,
) -> Result<Rows<K>, StoreError> {
    Rows::load(sql, vault, table, |row| {
        let mut fields = Fields::of(row);
        let key = key(&mut fields)?;
        take(key.clone(), fields.bytes()?)?;
        fields.end()?;
        Ok(key)
    })
}

fn write_address(address: &Address) -> Row {
    Row::new().text(address.user.as_str()).array(&address.device.0)
}

fn read_address(fields: &mut Fields<'_>) -> Result<Address, Damaged> {
    Ok(Address { user: User::parse(fields.text()?)?, device: DeviceId(fields.array()?) })
}

fn read_room(fields: &mut Fields<'_>) -> Result<RoomId, Damaged> {
    fields.array().map(RoomId)
}

fn write_conversation(row: Row, conversation: Conversation) -> Row {
    match conversation {
        Conversation::Direct(id) => row.byte(0).array(&id.0),
        Conversation::Room(id) => row.byte(1).array(&id.0),
    }
}

fn read_conversation(fields: &mut Fields<'_>) -> Result<Conversation, Damaged> {
    match fields.byte()? {
        0 => Ok(Conversation::Direct(ConvId(fields.array()?))),
        1 => Ok(Conversation::Room(RoomId(fields.array()?))),
        _ => Err(Damaged),
    }
}

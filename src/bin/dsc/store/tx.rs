//! A transaction on the store: what is done in it is done whole or not at all.

use downstream::e2e::contact::Contact;
use downstream::e2e::identity::Identity;
use downstream::e2e::marks::MARKS_MAX;
use downstream::e2e::name::{Address, Mark, RoomId, RoomName};
use downstream::e2e::sign::SignKey;
use downstream::e2e::state::{Change, State};
use downstream::protocol::Target;
use rusqlite::{OptionalExtension, Transaction};
use zeroize::Zeroizing;

use super::StoreError;
use super::cache::{Cache, KeptBundle};
use super::profile::Profile;
use super::rows::Single;
use super::vault::{Tag, Vault};

/// Bundles kept at most, the oldest go first: what a person can have pasted, and 2 MiB in memory.
pub const BUNDLES_MAX: usize = 1000;
/// How long a bundle is kept, in milliseconds. Its signed prekey is refused when it is 30 days old.
pub const BUNDLE_KEEP_MS: u64 = 30 * 24 * 3600 * 1000;

/// A transaction. It is exclusive: no other process reads or writes the store meanwhile.
///
/// What stands in memory is changed at once and written at the end, each row once; history, outbox and
/// lines that wait are written at once. Either way a failure undoes it.
pub struct Tx<'a> {
    pub(super) sql: Transaction<'a>,
    pub(super) vault: &'a Vault,
    pub(super) cache: Cache,
    /// Envelopes opened in this transaction.
    marks: Vec<(Address, Mark)>,
    /// Whether anything was changed.
    pub(super) touched: bool,
    /// Whether this process saves files as they come.
    saving: bool,
}

impl<'a> Tx<'a> {
    pub(super) fn new(sql: Transaction<'a>, vault: &'a Vault, cache: Cache, saving: bool) -> Tx<'a> {
        Tx { sql, vault, cache, marks: Vec::new(), touched: false, saving }
    }

    /// Whether this process saves files as they come ([`super::Store::save_files`]).
    pub fn saves_files(&self) -> bool {
        self.saving
    }

    /// Writes everything, on stable storage. Gives back what is held in memory.
    pub(super) fn commit(mut self) -> Result<Cache, StoreError> {
        if self.touched {
            self.cache.write(&self.sql, self.vault)?;
            self.write_marks()?;
            self.sql.commit()?;
        }
        Ok(Tx::settled(self.cache))
    }

    /// Undoes everything. Gives back what is held in memory, if it is still what the file says.
    pub(super) fn abandon(self) -> Option<Cache> {
        (!self.touched).then(|| Tx::settled(self.cache))
    }

    /// The marks of one transaction are not held for the next: they are in the file.
    fn settled(mut cache: Cache) -> Cache {
        if let Some(state) = &mut cache.state {
            state.marks.clear();
        }
        cache
    }

    // ---- keys and what is known of others ------------------------------------------------------

    /// The device's state; `None` until there are keys. Of the marks it holds those that
    /// [`Tx::seen`] has put there.
    pub fn state(&self) -> Option<&State> {
        self.cache.state.as_ref()
    }

    /// Begins with new keys: init, link, import. Those of before are erased, with all sessions, pins of
    /// people, marks and bundles. History, cursors, outbox and the pins of rooms stay.
    ///
    /// # Errors
    /// [`StoreError::OtherAccount`] if there are keys of another account: its history would be read as
    /// this one's.
    pub fn begin(&mut self, state: State, account_key: Option<SignKey>) -> Result<(), StoreError> {
        if let Some(before) = &self.cache.state
            && before.me.user() != state.me.user()
        {
            return Err(StoreError::OtherAccount(before.me.user().to_string()));
        }
        self.touched = true;
        self.marks.clear();
        self.sql.execute("DELETE FROM mark", [])?;
        let rows = &mut self.cache.rows;
        rows.singles.extend([Single::Identity, Single::Prekeys, Single::AccountKey]);
        rows.contacts.replace(state.contacts.keys());
        rows.peers.replace(state.peers.keys());
        rows.rosters.replace(state.rooms.keys());
        rows.chains.replace(state.rooms.keys());
        rows.threads.replace(state.threads.keys());
        rows.outgoing.replace(state.outgoing.keys());
        rows.bundles.replace([]);
        self.cache.bundles.clear();
        for room in state.rooms.values() {
            self.cache.pins.entry(room.roster.name().clone()).or_insert(room.roster.id());
            rows.pins.touch(room.roster.name());
        }
        self.cache.account_key = account_key;
        self.cache.state = Some(state);
        Ok(())
    }

    /// Applies a change to the state; its rows are written with the transaction.
    pub fn apply(&mut self, change: Change) {
        let Cache { state: Some(state), rows, pins, .. } = &mut self.cache else {
            debug_assert!(false, "there are no keys to change anything of");
            return;
        };
        self.touched = true;
        if change.prekeys.is_some() {
            rows.singles.insert(Single::Prekeys);
        }
        rows.contacts.touch_each(change.contacts.iter().map(Contact::user));
        rows.peers.touch_each(change.peers.iter().map(|(address, _)| address));
        for roster in &change.rosters {
            rows.rosters.touch(&roster.id());
            rows.pins.touch(roster.name());
            pins.entry(roster.name().clone()).or_insert(roster.id());
        }
        rows.chains.touch_each(change.chains.iter().map(|(room, _)| room));
        rows.threads.touch_each(change.threads.iter().map(|(key, _)| key));
        rows.outgoing.touch_each(change.outgoing.iter().map(|(key, _)| key));
        self.marks.extend(change.mark.clone());
        state.apply(change);
    }

    /// Gives this device a renewed certificate.
    pub fn set_identity(&mut self, me: Identity) {
        let Some(state) = &mut self.cache.state else {
            debug_assert!(false, "there are no keys to renew");
            return;
        };
        state.me = me;
        self.cache.rows.singles.insert(Single::Identity);
        self.touched = true;
    }

    /// The account's identity key, which the primary device holds.
    pub fn account_key(&self) -> Option<&SignKey> {
        self.cache.account_key.as_ref()
    }

    /// Puts the account's identity key in, or erases it.
    #[cfg(test)]
    pub fn set_account_key(&mut self, key: Option<SignKey>) {
        self.cache.account_key = key;
        self.cache.rows.singles.insert(Single::AccountKey);
        self.touched = true;
    }

    /// Writes a contact, as when a person has compared the safety number.
    pub fn set_contact(&mut self, contact: Contact) {
        self.apply(Change { contacts: vec![contact], ..Change::default() });
    }

    // ---- marks ---------------------------------------------------------------------------------

    /// Whether this envelope of a device was opened before. If so the mark is put into the state, so
    /// that opening it again is refused as a replay: to be asked before [`State::open`].
    ///
    /// # Errors
    /// [`StoreError::Sql`].
    pub fn seen(&mut self, from: &Address, mark: Mark) -> Result<bool, StoreError> {
        let tag = self.mark_tag(from, mark);
        let found = self.sql.prepare_cached("SELECT 1 FROM mark WHERE tag = ?1")?.exists([tag])?;
        let now = self.marks.iter().any(|(address, known)| address == from && *known == mark);
        if found && let Some(state) = &mut self.cache.state {
            state.marks.entry(from.clone()).or_default().insert(mark);
        }
        Ok(found || now)
    }

    fn mark_tag(&self, from: &Address, mark: Mark) -> Tag {
        self.vault.tag("mark", &[from.user.as_str().as_bytes(), &from.device.0, &mark.0])
    }

    fn write_marks(&mut self) -> Result<(), StoreError> {
        for (from, mark) in std::mem::take(&mut self.marks) {
            let device = self.vault.tag("device", &[from.user.as_str().as_bytes(), &from.device.0]);
            let last: Option<i64> = self
                .sql
                .prepare_cached("SELECT number FROM mark WHERE device = ?1 ORDER BY number DESC LIMIT 1")?
                .query_row([device], |row| row.get(0))
                .optional()?;
            let number = last.unwrap_or(0).saturating_add(1);
            let tag = self.mark_tag(&from, mark);
            let inserted = self
                .sql
                .prepare_cached("INSERT OR IGNORE INTO mark(device, number, tag) VALUES (?1, ?2, ?3)")?
                .execute((device, number, tag))?;
            // One that was known takes nobody's place.
            if inserted > 0 {
                let beyond = number.saturating_sub(MARKS_MAX as i64);
                self.sql
                    .prepare_cached("DELETE FROM mark WHERE device = ?1 AND number <= ?2")?
                    .execute((device, beyond))?;
            }
        }
        Ok(())
    }

    // ---- small things --------------------------------------------------------------------------

    /// Server, user and token.
    pub fn profile(&self) -> Profile {
        self.cache.profile.clone()
    }

    /// Writes server, user and token.
    pub fn set_profile(&mut self, profile: Profile) {
        self.cache.profile = profile;
        self.cache.rows.singles.insert(Single::Profile);
        self.touched = true;
    }

    /// The server's number up to which this device has read a conversation.
    pub fn cursor(&self, target: &Target) -> Option<u64> {
        self.cache.logs.get(target)?.cursor
    }

    /// Writes how far a conversation was read.
    pub fn set_cursor(&mut self, target: &Target, read: u64) {
        self.cache.rows.logs.touch(target);
        self.cache.logs.entry(target.clone()).or_default().cursor = Some(read);
        self.touched = true;
    }

    /// All cursors.
    pub fn cursors(&self) -> Vec<(Target, u64)> {
        self.cache.logs.iter().filter_map(|(target, log)| Some((target.clone(), log.cursor?))).collect()
    }

    /// The local name of a device.
    pub fn device_name(&self, device: &Address) -> Option<String> {
        self.cache.device_names.get(device).cloned()
    }

    /// Gives a device a local name, or takes it.
    pub fn set_device_name(&mut self, device: &Address, name: Option<&str>) {
        self.cache.rows.device_names.touch(device);
        match name {
            Some(name) => drop(self.cache.device_names.insert(device.clone(), name.to_owned())),
            None => drop(self.cache.device_names.remove(device)),
        }
        self.touched = true;
    }

    /// Whether a room of this name was ever known to be end to end. Leaving it, and new keys, change
    /// nothing about that: nothing is sent there in plain.
    pub fn room_pinned(&self, name: &RoomName) -> bool {
        self.room_pin(name).is_some()
    }

    /// The room that was first known under a name.
    pub fn room_pin(&self, name: &RoomName) -> Option<RoomId> {
        self.cache.pins.get(name).copied()
    }

    /// Pins another room to a name, or none, after a person has said so.
    #[cfg(test)]
    pub fn set_room_pin(&mut self, name: &RoomName, room: Option<RoomId>) {
        self.cache.rows.pins.touch(name);
        match room {
            Some(room) => drop(self.cache.pins.insert(name.clone(), room)),
            None => drop(self.cache.pins.remove(name)),
        }
        self.touched = true;
    }

    /// A small value of the client's own.
    pub fn setting(&self, key: &str) -> Option<Zeroizing<Vec<u8>>> {
        self.cache.settings.get(key).cloned()
    }

    /// Writes a small value.
    pub fn set_setting(&mut self, key: &str, value: &[u8]) {
        self.cache.rows.settings.touch(&key.to_owned());
        self.cache.settings.insert(key.to_owned(), Zeroizing::new(value.to_vec()));
        self.touched = true;
    }

    /// All small values whose key begins so, by key.
    pub fn settings_under(&self, prefix: &str) -> Vec<(String, Zeroizing<Vec<u8>>)> {
        let from = self.cache.settings.range(prefix.to_owned()..);
        let under = from.take_while(|(key, _)| key.starts_with(prefix));
        under.map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// Erases a small value.
    pub fn drop_setting(&mut self, key: &str) {
        if self.cache.settings.remove(key).is_some() {
            self.cache.rows.settings.touch(&key.to_owned());
            self.touched = true;
        }
    }

    // ---- bundles -------------------------------------------------------------------------------

    /// Keeps a bundle until it is used. The one of before for that device goes, and above
    /// [`BUNDLES_MAX`] the oldest.
    pub fn put_bundle(&mut self, raw: Vec<u8>, device: &Address, now_ms: u64) {
        self.cache.rows.bundles.touch(device);
        self.cache.bundles.insert(device.clone(), KeptBundle { raw, since_ms: now_ms });
        self.touched = true;
        while self.cache.bundles.len() > BUNDLES_MAX
            && let Some((oldest, _)) = self.cache.bundles.iter().min_by_key(|(_, bundle)| bundle.since_ms)
        {
            let oldest = oldest.clone();
            self.drop_bundle(&oldest);
        }
    }

    /// All bundles that are kept.
    pub fn bundles(&self) -> Vec<(Address, Vec<u8>)> {
        self.cache.bundles.iter().map(|(device, bundle)| (device.clone(), bundle.raw.clone())).collect()
    }

    /// Erases a bundle: it was used, or is refused.
    pub fn drop_bundle(&mut self, device: &Address) {
        if self.cache.bundles.remove(device).is_some() {
            self.cache.rows.bundles.touch(device);
            self.touched = true;
        }
    }

    pub(super) fn expire_bundles(&mut self, now_ms: u64) {
        let old = |bundle: &KeptBundle| now_ms.saturating_sub(bundle.since_ms) > BUNDLE_KEEP_MS;
        let gone: Vec<_> =
            self.cache.bundles.iter().filter(|(_, bundle)| old(bundle)).map(|(device, _)| device.clone()).collect();
        gone.iter().for_each(|device| self.drop_bundle(device));
    }
}

//! The key directory: what devices published, and handing each one-time key out once.
//!
//! A pool is handed out lowest id first, and remembers how far that went. A key at or below that mark is
//! passed over when it is put, so that a record that is put twice, because its answer was lost, brings no
//! key back that somebody has by now. The mark outlives the certificate: a device never uses an id again.

use super::{Fault, Outcomes, Sqlite};
use crate::ops::{
    AccountId, Answer, Bundles, DEVICES_MAX, DH_POOL, DeviceCertificates, Outcome, POST_QUANTUM_POOL, Pools, Refused,
};
use crate::protocol::{DeviceName, KeyRecord, PoolKind, PrekeyBytes, UserName};

/// Most devices there can be: a pool's number is the upper half of the row keys of its keys.
const DEVICE_ROWS_MAX: i64 = 1 << 30;

/// A pool's number: which device and which kind.
#[derive(Debug, Clone, Copy)]
struct Pool(i64);

impl Pool {
    fn new(device: i64, kind: PoolKind) -> Pool {
        Pool(device << 1 | i64::from(kind == PoolKind::PostQuantum))
    }

    /// The row key of one of its keys.
    fn key(self, id: u32) -> i64 {
        self.0 << 32 | i64::from(id)
    }

    /// The row keys that it can have, for BETWEEN.
    fn keys(self) -> (i64, i64) {
        (self.key(0), self.key(u32::MAX))
    }
}

/// How many keys a pool takes.
fn capacity(kind: PoolKind) -> usize {
    match kind {
        PoolKind::Dh => DH_POOL,
        PoolKind::PostQuantum => POST_QUANTUM_POOL,
    }
}

/// A device's row.
struct Device {
    row: i64,
    name: DeviceName,
    certificate: Vec<u8>,
    signed_prekey: Option<Vec<u8>>,
    last_resort: Option<Vec<u8>>,
}

impl Sqlite {
    pub(super) fn put_keys(&self, account: AccountId, device: &DeviceName, record: &KeyRecord) -> Outcomes<Outcome> {
        self.require_account(account)?;
        match record {
            KeyRecord::Certificate(certificate) => self.put_certificate(account, device, certificate)?,
            KeyRecord::Forget => {
                if let Some(row) = self.device_row(account, device)? {
                    self.forget_device(row)?;
                }
            }
            KeyRecord::DeviceList(list) => {
                self.execute("INSERT OR REPLACE INTO device_list(account, list) VALUES (?1, ?2)", (account, list))?;
            }
            KeyRecord::SignedPrekey(key) => {
                let row = self.device_row(account, device)?.ok_or(Refused::NotFound)?;
                self.execute("UPDATE device SET signed_prekey = ?2 WHERE id = ?1", (row, &key.bytes))?;
            }
            KeyRecord::LastResort(key) => {
                let row = self.device_row(account, device)?.ok_or(Refused::NotFound)?;
                self.execute("UPDATE device SET last_resort = ?2 WHERE id = ?1", (row, &key.bytes))?;
            }
            KeyRecord::OneTime(kind, keys) => {
                let row = self.device_row(account, device)?.ok_or(Refused::NotFound)?;
                self.fill_pool(Pool::new(row, *kind), capacity(*kind), keys)?;
            }
        }
        let row = self.device_row(account, device)?;
        let empty = Pools { device: *device, dh: 0, post_quantum: 0 };
        Ok(Outcome::Pools(row.map(|row| self.pools_of(row, *device)).transpose()?.unwrap_or(empty)))
    }

    fn device_row(&self, account: AccountId, device: &DeviceName) -> Outcomes<Option<i64>> {
        let sql = "SELECT id FROM device WHERE account = ?1 AND name = ?2";
        Ok(self.find(sql, (account, device), |row| row.get(0))?)
    }

    /// Another certificate than before drops the prekeys, which were signed under the one before.
    fn put_certificate(&self, account: AccountId, device: &DeviceName, certificate: &[u8]) -> Outcomes<()> {
        let sql = "SELECT id, certificate = ?3 FROM device WHERE account = ?1 AND name = ?2";
        match self.find(sql, (account, device, certificate), |row| Ok((row.get(0)?, row.get(1)?)))? {
            Some((_, true)) => Ok(()),
            Some((row, false)) => {
                self.drop_prekeys(row)?;
                let sql = "UPDATE device SET certificate = ?2, signed_prekey = NULL, last_resort = NULL WHERE id = ?1";
                self.execute(sql, (row, certificate))?;
                Ok(())
            }
            None => {
                let devices = self.count("SELECT count(*) FROM device WHERE account = ?1", [account])?;
                if devices >= DEVICES_MAX as u64 {
                    return Err(Refused::Quota(DEVICES_MAX as u64).into());
                }
                let sql = "INSERT INTO device(account, name, certificate) VALUES (?1, ?2, ?3)";
                self.execute(sql, (account, device, certificate))?;
                match self.conn.last_insert_rowid() {
                    row if row < DEVICE_ROWS_MAX => Ok(()),
                    _ => Err(Fault::Ours("no more devices can be numbered")),
                }
            }
        }
    }

    /// Adds keys in the order in which they come until the pool is full; the answer says how many there are.
    fn fill_pool(&self, pool: Pool, capacity: usize, keys: &[PrekeyBytes]) -> Outcomes<()> {
        let taken: u32 =
            self.find("SELECT taken FROM pool WHERE id = ?1", [pool.0], |row| row.get(0))?.unwrap_or_default();
        let mut room = capacity.saturating_sub(usize::try_from(self.pool_size(pool)?).unwrap_or(usize::MAX));
        for PrekeyBytes { id, bytes } in keys.iter().filter(|key| key.id > taken) {
            if room == 0 {
                break;
            }
            let sql = "INSERT OR IGNORE INTO prekey(id, bytes) VALUES (?1, ?2)";
            room -= self.execute(sql, (pool.key(*id), bytes))?;
        }
        Ok(())
    }

    fn pool_size(&self, pool: Pool) -> Outcomes<u64> {
        self.count("SELECT count(*) FROM prekey WHERE id BETWEEN ?1 AND ?2", pool.keys()).map_err(Fault::from)
    }

    fn pools_of(&self, row: i64, device: DeviceName) -> Outcomes<Pools> {
        Ok(Pools {
            device,
            dh: self.pool_size(Pool::new(row, PoolKind::Dh))?,
            post_quantum: self.pool_size(Pool::new(row, PoolKind::PostQuantum))?,
        })
    }

    fn drop_prekeys(&self, row: i64) -> Outcomes<()> {
        for kind in [PoolKind::Dh, PoolKind::PostQuantum] {
            self.execute("DELETE FROM prekey WHERE id BETWEEN ?1 AND ?2", Pool::new(row, kind).keys())?;
        }
        Ok(())
    }

    fn forget_device(&self, row: i64) -> Outcomes<()> {
        self.drop_prekeys(row)?;
        for kind in [PoolKind::Dh, PoolKind::PostQuantum] {
            self.execute("DELETE FROM pool WHERE id = ?1", [Pool::new(row, kind).0])?;
        }
        self.execute("DELETE FROM device WHERE id = ?1", [row])?;
        Ok(())
    }

    /// Forgets everything that an account published.
    pub(super) fn erase_devices(&self, account: AccountId) -> Outcomes<()> {
        let rows: Vec<i64> = self.list("SELECT id FROM device WHERE account = ?1", [account], |row| row.get(0))?;
        for row in rows {
            self.forget_device(row)?;
        }
        self.execute("DELETE FROM device_list WHERE account = ?1", [account])?;
        Ok(())
    }

    // ---- handing out ----

    pub(super) fn take_bundles(&self, subject: &UserName, device: Option<&DeviceName>) -> Outcomes<Outcome> {
        let person = self.person_named(subject)?;
        let list = self.device_list(person.id)?;
        let (mut bundles, mut left) = (Vec::new(), Vec::new());
        for device in self.devices(person.id, device)? {
            if let Some(bundle) = self.take_bundle(&device)? {
                bundles.push((device.name, bundle));
                left.push(self.pools_of(device.row, device.name)?);
            }
        }
        Ok(Outcome::Bundles(Bundles { person, list, bundles, left }))
    }

    /// The bundle of a device, its one-time keys taken out of their pools; `None`, and nothing taken, where
    /// a part is missing.
    fn take_bundle(&self, device: &Device) -> Outcomes<Option<Vec<u8>>> {
        let Some(signed_prekey) = &device.signed_prekey else { return Ok(None) };
        let post_quantum = self.take_key(Pool::new(device.row, PoolKind::PostQuantum))?;
        let (last, post_quantum) = match (&post_quantum, &device.last_resort) {
            (Some(key), _) => (false, key),
            (None, Some(key)) => (true, key),
            (None, None) => return Ok(None),
        };
        let one_time = self.take_key(Pool::new(device.row, PoolKind::Dh))?;
        let len = u16::try_from(device.certificate.len());
        let len = len.map_err(|_| Fault::Ours("a certificate is too long for a bundle"))?;
        let mut bundle = len.to_be_bytes().to_vec();
        bundle.extend_from_slice(&device.certificate);
        bundle.extend_from_slice(signed_prekey);
        bundle.push(one_time.is_some().into());
        bundle.extend_from_slice(one_time.as_deref().unwrap_or_default());
        bundle.push(last.into());
        bundle.extend_from_slice(post_quantum);
        Ok(Some(bundle))
    }

    /// Takes the lowest key out of a pool and moves the mark up to it.
    fn take_key(&self, pool: Pool) -> Outcomes<Option<Vec<u8>>> {
        let sql = "SELECT id, bytes FROM prekey WHERE id BETWEEN ?1 AND ?2 ORDER BY id LIMIT 1";
        let found: Option<(i64, Vec<u8>)> = self.find(sql, pool.keys(), |row| Ok((row.get(0)?, row.get(1)?)))?;
        let Some((key, bytes)) = found else { return Ok(None) };
        self.execute("DELETE FROM prekey WHERE id = ?1", [key])?;
        let sql = "INSERT OR REPLACE INTO pool(id, taken) VALUES (?1, ?2)";
        self.execute(sql, (pool.0, key & i64::from(u32::MAX)))?;
        Ok(Some(bytes))
    }

    fn device_list(&self, account: AccountId) -> Outcomes<Option<Vec<u8>>> {
        Ok(self.find("SELECT list FROM device_list WHERE account = ?1", [account], |row| row.get(0))?)
    }

    /// The devices of an account by name, or the one asked for; `NotFound` where that is none.
    fn devices(&self, account: AccountId, only: Option<&DeviceName>) -> Outcomes<Vec<Device>> {
        let sql = "SELECT id, name, certificate, signed_prekey, last_resort FROM device
                   WHERE account = ?1 AND (?2 IS NULL OR name = ?2) ORDER BY name";
        let devices = self.list(sql, (account, only), |row| {
            Ok(Device {
                row: row.get(0)?,
                name: row.get(1)?,
                certificate: row.get(2)?,
                signed_prekey: row.get(3)?,
                last_resort: row.get(4)?,
            })
        })?;
        if devices.is_empty() && only.is_some() { Err(Refused::NotFound.into()) } else { Ok(devices) }
    }

    // ---- looking ----

    pub(super) fn device_certificates(&self, subject: &UserName, device: Option<&DeviceName>) -> Outcomes<Answer> {
        let person = self.person_named(subject)?;
        let list = self.device_list(person.id)?;
        let devices = self.devices(person.id, device)?;
        let certificates = devices.into_iter().map(|device| (device.name, device.certificate)).collect();
        Ok(Answer::DeviceCertificates(DeviceCertificates { person, list, certificates }))
    }

    pub(super) fn pools(&self, account: AccountId) -> Outcomes<Answer> {
        let sql = "SELECT id, name FROM device WHERE account = ?1 ORDER BY name";
        let devices: Vec<(i64, DeviceName)> = self.list(sql, [account], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let pools = devices.into_iter().map(|(row, device)| self.pools_of(row, device));
        Ok(Answer::Pools(pools.collect::<Outcomes<_>>()?))
    }
}

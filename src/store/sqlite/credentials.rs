//! What proves whose a login is, beside the password: tokens, certificates; and who may register or
//! connect at all.

use std::net::IpAddr;

use zeroize::Zeroizing;

use super::{ADDRESS_BANS, CERTIFICATES_PER_ACCOUNT, CODES, Outcomes, Sqlite, TOKENS_PER_ACCOUNT};
use crate::ops::{AccountId, AddressBlock, Answer, INVITE_LIFE_MS, Outcome, Refused, Sha256, TokenRow, Verifier};
use crate::protocol::Timestamp;

/// A verifier as it is sealed: three numbers, salt, hash.
pub(super) fn encode(verifier: &Verifier) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(60));
    for number in [verifier.memory_kib, verifier.iterations, verifier.parallelism] {
        bytes.extend_from_slice(&number.to_be_bytes());
    }
    bytes.extend_from_slice(&verifier.salt);
    bytes.extend_from_slice(&verifier.hash);
    bytes
}

/// Reads what [`encode`] wrote.
pub(super) fn decode(bytes: &[u8]) -> Option<Verifier> {
    let (memory, rest) = bytes.split_first_chunk()?;
    let (iterations, rest) = rest.split_first_chunk()?;
    let (parallelism, rest) = rest.split_first_chunk()?;
    let (salt, hash) = rest.split_first_chunk()?;
    Some(Verifier {
        memory_kib: u32::from_be_bytes(*memory),
        iterations: u32::from_be_bytes(*iterations),
        parallelism: u32::from_be_bytes(*parallelism),
        salt: *salt,
        hash: hash.try_into().ok()?,
    })
}

impl Sqlite {
    pub(super) fn add_token(
        &self,
        now: Timestamp,
        account: AccountId,
        name: Option<&str>,
        hash: &Sha256,
    ) -> Outcomes<Outcome> {
        self.require_account(account)?;
        let taken: Vec<String> = self.list("SELECT name FROM token WHERE account = ?1", [account], |row| row.get(0))?;
        if name.is_some_and(|name| taken.iter().any(|other| other == name)) {
            return Err(Refused::NameTaken.into());
        }
        if taken.len() as u64 >= TOKENS_PER_ACCOUNT {
            return Err(Refused::Quota(TOKENS_PER_ACCOUNT).into());
        }
        let name = match name {
            Some(name) => name.to_owned(),
            None => (1..).map(|n| format!("token-{n}")).find(|name| !taken.contains(name)).unwrap_or_default(),
        };
        let sql = "INSERT INTO token(account, name, hash, created) VALUES (?1, ?2, ?3, ?4)";
        self.execute(sql, (account, &name, hash.0, now))?;
        Ok(Outcome::TokenNamed(name))
    }

    pub(super) fn drop_token(&self, account: AccountId, name: &str) -> Outcomes<Outcome> {
        match self.execute("DELETE FROM token WHERE account = ?1 AND name = ?2", (account, name))? {
            0 => Err(Refused::NotFound.into()),
            _ => Ok(Outcome::Nothing),
        }
    }

    /// Whether the account has this token; remembers that it was used.
    pub(super) fn use_token(&self, now: Timestamp, account: AccountId, hash: &Sha256) -> Outcomes<bool> {
        let sql = "UPDATE token SET used = ?3 WHERE account = ?1 AND hash = ?2";
        Ok(self.execute(sql, (account, hash.0, now))? > 0)
    }

    pub(super) fn tokens(&self, account: AccountId) -> Outcomes<Answer> {
        let sql = "SELECT name, created, used FROM token WHERE account = ?1 ORDER BY name";
        Ok(Answer::Tokens(
            self.list(sql, [account], |row| {
                Ok(TokenRow { name: row.get(0)?, created: row.get(1)?, used: row.get(2)? })
            })?,
        ))
    }

    pub(super) fn add_certificate(&self, account: AccountId, certificate: &Sha256) -> Outcomes<Outcome> {
        self.require_account(account)?;
        if self.has_certificate(account, certificate)? {
            return Ok(Outcome::Nothing);
        }
        if self.count("SELECT count(*) FROM certificate WHERE account = ?1", [account])? >= CERTIFICATES_PER_ACCOUNT {
            return Err(Refused::Quota(CERTIFICATES_PER_ACCOUNT).into());
        }
        self.execute("INSERT INTO certificate(account, hash) VALUES (?1, ?2)", (account, certificate.0))?;
        Ok(Outcome::Nothing)
    }

    pub(super) fn drop_certificate(&self, account: AccountId, certificate: &Sha256) -> Outcomes<Outcome> {
        match self.execute("DELETE FROM certificate WHERE account = ?1 AND hash = ?2", (account, certificate.0))? {
            0 => Err(Refused::NotFound.into()),
            _ => Ok(Outcome::Nothing),
        }
    }

    pub(super) fn has_certificate(&self, account: AccountId, certificate: &Sha256) -> Outcomes<bool> {
        let sql = "SELECT 1 FROM certificate WHERE account = ?1 AND hash = ?2";
        Ok(self.find(sql, (account, certificate.0), |_| Ok(()))?.is_some())
    }

    pub(super) fn certificates(&self, account: AccountId) -> Outcomes<Answer> {
        let sql = "SELECT hash FROM certificate WHERE account = ?1 ORDER BY hash";
        Ok(Answer::Certificates(self.list(sql, [account], |row| row.get(0).map(Sha256))?))
    }

    pub(super) fn add_code(&self, now: Timestamp, code: &Sha256) -> Outcomes<()> {
        if self.count("SELECT count(*) FROM code WHERE expires > ?1", [now])? >= CODES {
            return Err(Refused::Quota(CODES).into());
        }
        let expires = Timestamp::from_millis(now.as_millis().saturating_add(INVITE_LIFE_MS));
        self.execute("INSERT OR REPLACE INTO code(hash, expires) VALUES (?1, ?2)", (code.0, expires))?;
        Ok(())
    }

    /// Uses an invitation code up.
    pub(super) fn use_code(&self, now: Timestamp, code: &Sha256) -> Outcomes<()> {
        match self.execute("DELETE FROM code WHERE hash = ?1 AND expires > ?2", (code.0, now))? {
            0 => Err(Refused::RegistrationClosed.into()),
            _ => Ok(()),
        }
    }

    pub(super) fn ban_address(&self, block: &AddressBlock, banned: bool) -> Outcomes<Outcome> {
        let address = match block.address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        if banned {
            if self.count("SELECT count(*) FROM address_ban", [])? >= ADDRESS_BANS {
                return Err(Refused::Quota(ADDRESS_BANS).into());
            }
            let sql = "INSERT OR IGNORE INTO address_ban(address, prefix) VALUES (?1, ?2)";
            self.execute(sql, (address, block.prefix))?;
        } else if self.execute("DELETE FROM address_ban WHERE address = ?1 AND prefix = ?2", (address, block.prefix))?
            == 0
        {
            return Err(Refused::NotFound.into());
        }
        Ok(Outcome::Nothing)
    }

    /// All banned addresses.
    pub(in crate::store) fn address_bans(&self) -> Outcomes<Vec<AddressBlock>> {
        let rows: Vec<(Vec<u8>, u8)> =
            self.list("SELECT address, prefix FROM address_ban", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let block = |(bytes, prefix): (Vec<u8>, u8)| {
            let address = <[u8; 4]>::try_from(bytes.as_slice())
                .map(IpAddr::from)
                .or_else(|_| <[u8; 16]>::try_from(bytes.as_slice()).map(IpAddr::from));
            address.ok().map(|address| AddressBlock { address, prefix })
        };
        Ok(rows.into_iter().filter_map(block).collect())
    }
}

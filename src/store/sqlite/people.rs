//! Who there is, and what they tell about themselves.

use super::super::seal::Column;
use super::{Fault, Glob, Outcomes, Sqlite, cut, one_more, person};
use crate::ops::{AccountId, AccountRow, Answer, Outcome, Profile, ProfileChange, Refused, Show};
use crate::protocol::UserName;

/// A profile as it is sealed: who may see it, then the texts, each with its length in front.
fn encode(profile: &Profile) -> Vec<u8> {
    let mut bytes = vec![match profile.show {
        Show::All => 0,
        Show::Rooms => 1,
        Show::Nobody => 2,
    }];
    for text in [&profile.name, &profile.email, &profile.note] {
        bytes.extend_from_slice(&(text.len() as u64).to_be_bytes());
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes
}

fn decode(bytes: &[u8]) -> Option<Profile> {
    let (show, mut rest) = bytes.split_first()?;
    let mut text = || {
        let (len, tail) = rest.split_first_chunk()?;
        let (text, tail) = tail.split_at_checked(u64::from_be_bytes(*len).try_into().ok()?)?;
        rest = tail;
        String::from_utf8(text.to_vec()).ok()
    };
    let show = match show {
        0 => Show::All,
        1 => Show::Rooms,
        2 => Show::Nobody,
        _ => return None,
    };
    Some(Profile { name: text()?, email: text()?, note: text()?, show })
}

impl Sqlite {
    fn stored_profile(&self, account: AccountId) -> Outcomes<Profile> {
        let sql = "SELECT profile FROM account WHERE id = ?1 AND erased = 0";
        let sealed: Option<Option<Vec<u8>>> = self.find(sql, [account], |row| row.get(0))?;
        match sealed {
            None => Err(Refused::NoSuchUser.into()),
            Some(None) => Ok(Profile::default()),
            Some(Some(sealed)) => self
                .sealer
                .key(Column::Profile, account.0)
                .open(account.0, &sealed)
                .and_then(|plain| decode(&plain))
                .ok_or(Fault::Ours("a profile does not open: the database was changed by others")),
        }
    }

    pub(super) fn set_profile(&self, account: AccountId, change: &ProfileChange) -> Outcomes<Outcome> {
        let mut profile = self.stored_profile(account).map_err(|fault| match fault {
            Fault::Refused(Refused::NoSuchUser) => Refused::AuthFailed.into(),
            other => other,
        })?;
        for (text, new) in
            [(&mut profile.name, &change.name), (&mut profile.email, &change.email), (&mut profile.note, &change.note)]
        {
            if let Some(new) = new {
                text.clone_from(new);
            }
        }
        profile.show = change.show.unwrap_or(profile.show);
        let sealed = if profile == Profile::default() {
            None
        } else {
            Some(self.sealer.key(Column::Profile, account.0).seal(account.0, &encode(&profile))?)
        };
        self.execute("UPDATE account SET profile = ?2 WHERE id = ?1", (account, sealed))?;
        Ok(Outcome::Nothing)
    }

    pub(super) fn profile(&self, viewer: AccountId, subject: &UserName) -> Outcomes<Answer> {
        let subject = self.person_named(subject)?.id;
        let profile = self.stored_profile(subject)?;
        let visible = subject == viewer
            || match profile.show {
                Show::All => true,
                Show::Nobody => false,
                Show::Rooms => {
                    let sql = "SELECT 1 FROM marker mine JOIN member theirs ON theirs.room = mine.conversation
                               WHERE mine.account = ?1 AND theirs.account = ?2 LIMIT 1";
                    self.find(sql, (viewer, subject), |_| Ok(()))?.is_some()
                }
            };
        if visible { Ok(Answer::Profile(profile)) } else { Err(Refused::Forbidden.into()) }
    }

    pub(super) fn set_receipts(&self, account: AccountId, on: bool) -> Outcomes<Outcome> {
        match self.execute("UPDATE account SET receipts = ?2 WHERE id = ?1 AND erased = 0", (account, on))? {
            0 => Err(Refused::AuthFailed.into()),
            _ => Ok(Outcome::Nothing),
        }
    }

    pub(super) fn people(&self, names: &[UserName]) -> Outcomes<Answer> {
        let mut found = Vec::new();
        for name in names {
            let sql = "SELECT id, name, last_seen FROM account WHERE name = ?1 AND erased = 0";
            found.extend(self.find(sql, [name], |row| Ok((person(row, 0, 1)?, row.get(2)?)))?);
        }
        Ok(Answer::People(found))
    }

    pub(super) fn users(&self, glob: Option<&str>, after: Option<&UserName>, limit: usize) -> Outcomes<Answer> {
        let glob = Glob::new(glob)?;
        let sql = "SELECT id, name FROM account
                   WHERE name >= ?1 AND name < ?2 AND name > ?3 AND name GLOB ?4 AND erased = 0
                   ORDER BY name LIMIT ?5";
        let after = after.map_or("", UserName::as_str);
        let params = (&glob.from, &glob.to, after, &glob.pattern, one_more(limit));
        let mut rows = self.list(sql, params, |row| person(row, 0, 1))?;
        let more = cut(&mut rows, limit);
        Ok(Answer::Users { rows, more })
    }

    pub(super) fn accounts(&self, glob: Option<&str>, after: Option<&UserName>, limit: usize) -> Outcomes<Answer> {
        let (rows, more) = self.account_rows(glob, after, limit)?;
        Ok(Answer::Accounts { rows, more })
    }

    pub(super) fn account_rows(
        &self,
        glob: Option<&str>,
        after: Option<&UserName>,
        limit: usize,
    ) -> Outcomes<(Vec<AccountRow>, bool)> {
        let glob = Glob::new(glob)?;
        let sql = "SELECT id, name, admin, banned, disabled, created, last_seen FROM account
                   WHERE name >= ?1 AND name < ?2 AND name > ?3 AND name GLOB ?4 AND erased = 0
                   ORDER BY name LIMIT ?5";
        let after = after.map_or("", UserName::as_str);
        let params = (&glob.from, &glob.to, after, &glob.pattern, one_more(limit));
        let mut rows = self.list(sql, params, |row| {
            Ok(AccountRow {
                person: person(row, 0, 1)?,
                admin: row.get(2)?,
                banned: row.get(3)?,
                disabled: row.get(4)?,
                created: row.get(5)?,
                last_seen: row.get(6)?,
            })
        })?;
        let more = cut(&mut rows, limit);
        Ok((rows, more))
    }
}

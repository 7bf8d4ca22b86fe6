//! Rosters: the log of signed entries that an end-to-end room has, in the order in which they came.

use super::logs::ROW_OVERHEAD;
use super::upkeep::Budget;
use super::{Fault, Outcomes, Sqlite};
use crate::ops::{AccountId, Answer, ConversationId, Outcome, ROSTER_MAX, Refused, RoomInfo, RosterAdded, RosterPage};
use crate::protocol::RoomName;

/// Most rosters: the upper half of an entry's row key, which is never negative.
const ROSTERS_MAX: i64 = 1 << 31;

/// The key of an entry's row: those of one roster lie together, in order.
fn row_key(roster: i64, epoch: u32) -> i64 {
    roster << 32 | i64::from(epoch)
}

impl Sqlite {
    pub(super) fn add_roster(
        &self,
        account: AccountId,
        name: &RoomName,
        epoch: u32,
        entry: &[u8],
    ) -> Outcomes<Outcome> {
        let room = self.sealed_room(account, name)?;
        let found = self.roster_of(room.id)?;
        let last = found.map_or(0, |(_, last)| last);
        if last.checked_add(1) != Some(epoch) {
            return Err(Refused::Epoch(last).into());
        }
        if epoch > ROSTER_MAX {
            return Err(Refused::Quota(ROSTER_MAX.into()).into());
        }
        let roster = match found {
            Some((roster, _)) => {
                self.execute("UPDATE roster SET last = ?2 WHERE id = ?1", (roster, epoch))?;
                roster
            }
            None => {
                self.execute("INSERT INTO roster(room, last) VALUES (?1, ?2)", (room.id, epoch))?;
                self.conn.last_insert_rowid()
            }
        };
        if roster >= ROSTERS_MAX {
            return Err(Fault::Ours("no more rosters can be numbered"));
        }
        self.execute("INSERT INTO roster_entry(id, entry) VALUES (?1, ?2)", (row_key(roster, epoch), entry))?;
        Ok(Outcome::RosterAdded(RosterAdded { room, epoch }))
    }

    /// The end-to-end room of that name, for its members.
    fn sealed_room(&self, account: AccountId, name: &RoomName) -> Outcomes<RoomInfo> {
        let (room, _) = self.room_of_member(name, account)?;
        if room.e2e { Ok(room) } else { Err(Refused::Forbidden.into()) }
    }

    /// The roster of a room and its last epoch; none before the first entry.
    fn roster_of(&self, room: ConversationId) -> Outcomes<Option<(i64, u32)>> {
        Ok(self.find("SELECT id, last FROM roster WHERE room = ?1", [room], |row| Ok((row.get(0)?, row.get(1)?)))?)
    }

    pub(super) fn roster(
        &self,
        account: AccountId,
        name: &RoomName,
        after: u32,
        limit: usize,
        max_bytes: usize,
    ) -> Outcomes<Answer> {
        let room = self.sealed_room(account, name)?;
        let mut page = RosterPage { rows: Vec::new(), last: 0, more: false };
        let Some((roster, last)) = self.roster_of(room.id)? else { return Ok(Answer::Roster(page)) };
        page.last = last;
        let sql = "SELECT id, entry FROM roster_entry WHERE id > ?1 AND id <= ?2 ORDER BY id";
        let mut statement = self.statement(sql)?;
        let mut found = statement.query((row_key(roster, after), row_key(roster, last)))?;
        let mut left = max_bytes;
        while let Some(row) = found.next()? {
            let entry = row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
            let bytes = entry.len().div_ceil(3).saturating_mul(4) + ROW_OVERHEAD;
            // The first always fits, so that paging goes on.
            if page.rows.len() >= limit || (bytes > left && !page.rows.is_empty()) {
                page.more = true;
                break;
            }
            left = left.saturating_sub(bytes);
            let key: i64 = row.get(0)?;
            let epoch = u32::try_from(key & 0xffff_ffff).unwrap_or(0);
            page.rows.push((epoch, entry.to_vec()));
        }
        Ok(Answer::Roster(page))
    }

    /// Takes the roster away from a room that is being removed; its entries go with the sweeps that follow.
    pub(super) fn abandon_roster(&self, room: ConversationId) -> Outcomes<()> {
        self.execute("UPDATE roster SET room = NULL WHERE room = ?1", [room])?;
        Ok(())
    }

    /// Deletes the entries of rosters whose room is gone.
    pub(super) fn sweep_rosters(&self, budget: &mut Budget) -> Outcomes<()> {
        while !budget.is_used_up() {
            let next = self.find("SELECT id FROM roster WHERE room IS NULL LIMIT 1", [], |row| row.get(0))?;
            let Some(roster) = next else { break };
            let mut old: Vec<i64> = Vec::new();
            {
                let sql = "SELECT id, length(entry) FROM roster_entry WHERE id > ?1 AND id <= ?2 ORDER BY id";
                let mut statement = self.statement(sql)?;
                let mut rows = statement.query((row_key(roster, 0), row_key(roster, u32::MAX)))?;
                while !budget.is_used_up() {
                    let Some(row) = rows.next()? else { break };
                    old.push(row.get(0)?);
                    budget.take(row.get(1)?);
                }
            }
            for entry in old {
                self.execute("DELETE FROM roster_entry WHERE id = ?1", [entry])?;
            }
            if !budget.is_used_up() {
                self.execute("DELETE FROM roster WHERE id = ?1", [roster])?;
                budget.take(0);
            }
        }
        Ok(())
    }
}

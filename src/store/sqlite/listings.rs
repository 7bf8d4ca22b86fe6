//! Seeing files: the list of `/files`, and who may read one.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::values::bytes;
use super::{Outcomes, Sqlite, cut, person};
use crate::ops::{AccountId, Answer, ConversationId, FileRow, FilesWanted, Refused};
use crate::protocol::{FileId, RoomName, Target, UserName};

impl Sqlite {
    /// The size of a whole file, for who may read it: who is in its conversation.
    pub(in crate::store) fn readable(&self, account: AccountId, file: FileId) -> Result<u64, Refused> {
        let sql = "SELECT f.size FROM file f JOIN marker m ON m.account = ?1 AND m.conversation = f.conversation
                   WHERE f.id = ?2 AND f.state = 1";
        let found = self.find(sql, (account, file), |row| bytes(row, 0));
        found.map_err(|error| self.internal(&error.into()))?.ok_or(Refused::NotFound)
    }

    pub(super) fn files(&self, wanted: &FilesWanted) -> Outcomes<Answer> {
        let most = wanted.limit.saturating_add(1);
        let logs = match &wanted.target {
            Some(target) => self.own_conversation(wanted.account, target)?.into_iter().collect(),
            None => {
                let sql = "SELECT conversation FROM marker WHERE account = ?1";
                self.list(sql, [wanted.account], |row| row.get(0))?
            }
        };
        let mut ids = match wanted.sha256 {
            Some(_) => self.files_of_content(wanted, &logs, most)?,
            None => self.files_of_logs(&logs, wanted.after, most)?,
        };
        ids.extend(self.own_uploads(wanted)?);
        ids.extend(self.own_files(wanted, most)?);
        ids.sort_unstable();
        ids.dedup();
        let more = cut(&mut ids, wanted.limit);
        let rows = ids.into_iter().map(|id| self.file_row(id)).collect::<Outcomes<Vec<_>>>()?;
        Ok(Answer::Files { rows: rows.into_iter().flatten().collect(), more })
    }

    /// The first whole files of some logs behind a number: one look into an index for each log and each file.
    fn files_of_logs(&self, logs: &[ConversationId], after: FileId, most: usize) -> Outcomes<Vec<FileId>> {
        let sql = "SELECT id FROM file WHERE conversation = ?1 AND state = 1 AND id > ?2 ORDER BY id LIMIT 1";
        let next = |log: ConversationId, after: FileId| -> Outcomes<Option<Reverse<(FileId, i64)>>> {
            Ok(self.find(sql, (log, after), |row| row.get(0))?.map(|id| Reverse((id, log.0))))
        };
        let mut waiting = BinaryHeap::new();
        for log in logs {
            waiting.extend(next(*log, after)?);
        }
        let mut ids = Vec::new();
        while ids.len() < most {
            let Some(Reverse((id, log))) = waiting.pop() else { break };
            ids.push(id);
            waiting.extend(next(ConversationId(log), id)?);
        }
        Ok(ids)
    }

    /// The first whole files of some bytes in some logs of the account: in all, or in one.
    fn files_of_content(&self, wanted: &FilesWanted, logs: &[ConversationId], most: usize) -> Outcomes<Vec<FileId>> {
        let only = wanted.target.as_ref().and(logs.first());
        if wanted.target.is_some() && only.is_none() {
            return Ok(Vec::new());
        }
        // An upload is in no conversation yet, so the join leaves it out.
        let sql = "SELECT f.id FROM file f JOIN marker m ON m.account = ?1 AND m.conversation = f.conversation
                   WHERE f.sha256 = ?2 AND f.state < 2 AND f.id > ?3
                     AND (?4 IS NULL OR f.conversation = ?4) ORDER BY f.id LIMIT ?5";
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        Ok(self.list(sql, (wanted.account, wanted.sha256, wanted.after, only, most), |row| row.get(0))?)
    }

    /// What the account has not finished sending.
    fn own_uploads(&self, wanted: &FilesWanted) -> Outcomes<Vec<FileId>> {
        let sql = "SELECT f.id FROM file f LEFT JOIN room r ON r.id = f.room LEFT JOIN account a ON a.id = f.receiver
                   WHERE f.sender = ?1 AND f.state = 0 AND f.id > ?2
                     AND (?3 IS NULL OR coalesce(r.name, a.name) = ?3) AND (?4 IS NULL OR f.sha256 = ?4)";
        let target = wanted.target.as_ref().map(Target::as_str);
        Ok(self.list(sql, (wanted.account, wanted.after, target, wanted.sha256), |row| row.get(0))?)
    }

    /// What the account has sent, also to rooms that it left: it counts, and can be dropped.
    fn own_files(&self, wanted: &FilesWanted, most: usize) -> Outcomes<Vec<FileId>> {
        if wanted.target.is_some() {
            return Ok(Vec::new());
        }
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        Ok(match wanted.sha256 {
            Some(sha256) => {
                let sql = "SELECT id FROM file WHERE sha256 = ?2 AND sender = ?1 AND state < 2 AND id > ?3
                           ORDER BY id LIMIT ?4";
                self.list(sql, (wanted.account, sha256, wanted.after, most), |row| row.get(0))?
            }
            None => {
                let sql = "SELECT id FROM file WHERE sender = ?1 AND state = 1 AND id > ?2 ORDER BY id LIMIT ?3";
                self.list(sql, (wanted.account, wanted.after, most), |row| row.get(0))?
            }
        })
    }

    fn file_row(&self, id: FileId) -> Outcomes<Option<FileRow>> {
        let sql = "SELECT f.time, r.name, a.name, s.id, s.name, f.size, f.sha256, f.state, f.stored, f.name
                   FROM file f JOIN account s ON s.id = f.sender
                   LEFT JOIN room r ON r.id = f.room LEFT JOIN account a ON a.id = f.receiver WHERE f.id = ?1";
        let found = self.find(sql, [id], |row| {
            let (room, receiver): (Option<RoomName>, Option<UserName>) = (row.get(1)?, row.get(2)?);
            let target = room.map(Target::Room).or(receiver.map(Target::User));
            let partial = if row.get::<_, i64>(7)? == 0 { Some(bytes(row, 8)?) } else { None };
            let name: Vec<u8> = row.get(9)?;
            Ok((row.get(0)?, target, person(row, 3, 4)?, bytes(row, 5)?, row.get(6)?, partial, name))
        })?;
        // An upload to a room that went a moment ago has no target.
        let Some((time, Some(target), sender, size, sha256, partial, name)) = found else { return Ok(None) };
        let name = self.file_name(id, &name)?;
        Ok(Some(FileRow { id, time, target, sender, size, sha256, partial, name }))
    }
}

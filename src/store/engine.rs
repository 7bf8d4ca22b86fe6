//! The store without threads and disk.

use std::sync::Arc;

use super::files::{Chunk, Data, Memory, Results, Uploads, outcome, read_part};
use super::seal::Sealer;
use super::sqlite::{BatchLost, Guard, Sqlite};
use super::{ServerKey, StoreError};
use crate::ops::{Answer, Op, Outcome, Query, Refused};
use crate::protocol::{FileId, Timestamp};

/// The same records and rules as behind a [`Store`](super::Store), in memory, on the caller's thread.
///
/// Between [`Engine::begin`] and [`Engine::commit`] everything is one batch; [`Engine::rollback`] loses
/// it, as a crash before the commit would. Outside a batch each write is one of its own.
pub struct Engine {
    sqlite: Sqlite,
    sealer: Arc<Sealer>,
    data: Arc<dyn Data>,
    uploads: Uploads,
}

impl Engine {
    /// An empty store.
    ///
    /// # Errors
    /// What SQLite says, which is that memory is short.
    pub fn in_memory(key: &ServerKey) -> Result<Engine, StoreError> {
        Engine::with_data(key, Arc::new(Memory::default()))
    }

    /// The same with data of files that may stand elsewhere.
    pub(super) fn with_data(key: &ServerKey, data: Arc<dyn Data>) -> Result<Engine, StoreError> {
        let sealer = Arc::new(Sealer::new(key));
        let sqlite = Sqlite::in_memory(Arc::clone(&sealer))?;
        let uploads = Uploads::new(Arc::clone(&data), Arc::clone(&sealer));
        Ok(Engine { sqlite, sealer, data, uploads })
    }

    /// Begins a batch.
    ///
    /// # Errors
    /// Where one is open already.
    pub fn begin(&mut self) -> Result<(), StoreError> {
        self.sqlite.begin().map_err(|lost| StoreError::lost("beginning a batch", lost))
    }

    /// Ends a batch and keeps it.
    ///
    /// # Errors
    /// Where none is open.
    pub fn commit(&mut self) -> Result<(), StoreError> {
        self.sqlite.commit().map_err(|lost| StoreError::lost("committing a batch", lost))?;
        self.empty_trash().map_err(|lost| StoreError::lost("emptying the trash", lost))
    }

    /// Ends a batch and loses it.
    pub fn rollback(&mut self) {
        self.sqlite.rollback();
    }

    /// Applies one write.
    ///
    /// # Errors
    /// As [`Op`] says.
    pub fn apply(&mut self, now: Timestamp, op: &Op) -> Result<Outcome, Refused> {
        let internal = |lost: BatchLost| {
            log::error!("the database in memory failed: {lost}");
            Refused::Internal
        };
        if self.sqlite.in_batch() {
            return self.apply_in_batch(now, op).unwrap_or_else(|lost| Err(internal(lost)));
        }
        let applied = self.sqlite.begin().and_then(|()| {
            let answer = self.apply_in_batch(now, op)?;
            self.sqlite.commit()?;
            self.empty_trash().map(|()| answer)
        });
        self.sqlite.rollback();
        applied.unwrap_or_else(|lost| Err(internal(lost)))
    }

    fn apply_in_batch(&mut self, now: Timestamp, op: &Op) -> Result<Result<Outcome, Refused>, BatchLost> {
        let Op::WriteChunk { account, file, offset, data } = op else {
            self.sqlite.set_spare(self.data.spare().unwrap_or(u64::MAX));
            return self.sqlite.apply(now, op, Guard::Always);
        };
        let chunk = Chunk { account: *account, file: *file, now, offset: *offset, data };
        self.uploads.look_at_disk();
        let taken = self.uploads.take(&chunk, || self.sqlite.upload(*account, *file));
        let mut results = Results::new();
        for progress in self.uploads.sync() {
            results.insert(progress.file, self.sqlite.record(&progress)?);
        }
        let refused = self.uploads.refusal(*file).map_or(Ok(()), Err);
        // The next chunk begins with the row again, also where this batch is lost.
        self.uploads.forget_all();
        Ok(taken.and_then(|taken| refused.and_then(|()| outcome(*file, taken, &results))))
    }

    /// Deletes the data that the last batch threw away.
    fn empty_trash(&self) -> Result<(), BatchLost> {
        let (all, internal) = (usize::MAX, |_| BatchLost::Unguarded);
        while self.sqlite.take_trashed() {
            let trash = self.sqlite.trash(FileId(0), all).map_err(internal)?;
            trash.iter().try_for_each(|file| self.data.remove(*file)).map_err(|_| BatchLost::Unguarded)?;
            self.sqlite.begin()?;
            self.sqlite.empty_trash(&trash)?.map_err(internal)?;
            self.sqlite.commit()?;
        }
        Ok(())
    }

    /// Answers one read; inside a batch it sees what the batch did.
    ///
    /// # Errors
    /// As [`Query`] says.
    pub fn answer(&self, query: &Query) -> Result<Answer, Refused> {
        if let Query::FilePart { account, file, offset, length } = query {
            let size = self.sqlite.readable(*account, *file)?;
            return read_part(&*self.data, &self.sealer, *file, size, *offset, *length).map(Answer::FilePart);
        }
        self.sqlite.answer(query)
    }

    /// The records, for tests that look or change behind everybody's back.
    #[cfg(test)]
    pub(super) fn records(&self) -> &Sqlite {
        &self.sqlite
    }
}

//! The store without threads and disk.

use std::sync::Arc;

use super::seal::Sealer;
use super::sqlite::{BatchLost, Guard, Sqlite};
use super::{ServerKey, StoreError};
use crate::ops::{Answer, Op, Outcome, Query, Refused};
use crate::protocol::Timestamp;

/// The same records and rules as behind a [`Store`](super::Store), in memory, on the caller's thread.
///
/// Between [`Engine::begin`] and [`Engine::commit`] everything is one batch; [`Engine::rollback`] loses
/// it, as a crash before the commit would. Outside a batch each write is one of its own.
pub struct Engine {
    sqlite: Sqlite,
}

impl Engine {
    /// An empty store.
    ///
    /// # Errors
    /// What SQLite says, which is that memory is short.
    pub fn in_memory(key: &ServerKey) -> Result<Engine, StoreError> {
        let sqlite = Sqlite::in_memory(Arc::new(Sealer::new(key)))?;
        Ok(Engine { sqlite })
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
        self.sqlite.commit().map_err(|lost| StoreError::lost("committing a batch", lost))
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
            return self.sqlite.apply(now, op, Guard::Always).unwrap_or_else(|lost| Err(internal(lost)));
        }
        let applied = self.sqlite.begin().and_then(|()| {
            let answer = self.sqlite.apply(now, op, Guard::Always)?;
            self.sqlite.commit().map(|()| answer)
        });
        self.sqlite.rollback();
        applied.unwrap_or_else(|lost| Err(internal(lost)))
    }

    /// Answers one read; inside a batch it sees what the batch did.
    ///
    /// # Errors
    /// As [`Query`] says.
    pub fn answer(&self, query: &Query) -> Result<Answer, Refused> {
        self.sqlite.answer(query)
    }

    /// The records, for tests that look or change behind everybody's back.
    #[cfg(test)]
    pub(super) fn records(&self) -> &Sqlite {
        &self.sqlite
    }
}

//! The store: what [`crate::ops`] asks for, kept in one SQLite file.
//!
//! ```text
//!  loop ── submit ──▶ queue ──▶ writer thread ─┐ one transaction for all that waits:
//!    │                                         │ BEGIN · (SAVEPOINT op · RELEASE)… · COMMIT
//!    │                                         ▼
//!    ◀── wake, drain ──── outbox ◀──── answers, only after the commit
//!    │                      ▲
//!    └─── ask ──▶ queue ──▶ reader thread: its own read-only connection, a snapshot a query
//! ```
//!
//! The data of files takes a way of its own, over two more threads: `files`.
//!
//! What is answered is on stable storage: write-ahead log, `synchronous=FULL`. A write that is refused
//! or fails is rolled back to its savepoint and takes no other with it; where the disk, memory or the
//! file itself fails, the whole batch is given up and answered `Internal`, and the next is tried afresh.
//!
//! Nothing here blocks the loop. Both queues are bounded by [`Store::has_room`]: while it is false the
//! loop reads no socket, so what it can still add is one operation for each connection that it was
//! serving in that turn. Answers to reads wait in the outbox only up to 8 MiB and one more; then the
//! reader thread waits.
//!
//! Chunks and pieces of files do not count there: a transfer delays no message. How many are under way is bounded
//! by who hands them over.
//!
//! [`Database`] is the opened file, as operator commands use it, also beside a running daemon;
//! [`Store`] is the handle of the loop; [`Engine`] is the same without threads and disk, for simulations.
//!
//! The store and the programs are the only ones here that touch files and start threads.

mod complaint;
mod database;
mod engine;
mod error;
mod files;
mod queue;
mod readers;
mod schema;
mod seal;
mod sqlite;
mod worker;

pub use database::{Database, Loaded};
pub use engine::Engine;
pub use error::StoreError;
pub use seal::ServerKey;
pub use worker::{News, Store, StoreStats, Wake};

/// The database's file name in the data directory.
const DATABASE_FILE: &str = "downstream.db";
/// The file that a running daemon has locked.
const LOCK_FILE: &str = "lock";

#[cfg(test)]
mod bench;
#[cfg(test)]
pub(super) mod tests;

//! What SQLite itself does on this disk: the reference for everything that waits for a commit.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::Failure;
use crate::report::Figures;

/// Inserts of one transaction, as the goal names them.
const BATCH: usize = 100;
/// Bytes of a sealed body of 128.
const BLOB: usize = 156;

/// Inserts rows like the daemon's messages, with its pragmas: in batches for `length`, then one at a time.
pub(crate) fn inserts(dir: &Path, length: Duration) -> Result<Figures, Failure> {
    let conn = Connection::open(dir.join("reference.db")).map_err(|e| e.to_string())?;
    let mut figures = Figures::default();
    run(&conn, length, &mut figures).map_err(|e| e.to_string())?;
    Ok(figures)
}

fn run(conn: &Connection, length: Duration, figures: &mut Figures) -> rusqlite::Result<()> {
    conn.pragma_update(None, "journal_mode", "WAL")?;
    conn.pragma_update(None, "synchronous", "FULL")?;
    conn.pragma_update(None, "cache_size", -32 * 1024)?;
    conn.pragma_update(None, "wal_autocheckpoint", 0)?;
    conn.pragma_update(None, "secure_delete", true)?;
    conn.execute_batch(
        "CREATE TABLE message(id INTEGER PRIMARY KEY, time INTEGER NOT NULL, sender INTEGER NOT NULL, body BLOB NOT NULL) STRICT",
    )?;
    let mut insert = conn.prepare("INSERT INTO message(id, time, sender, body) VALUES (?1, ?2, ?3, ?4)")?;
    let mut begin = conn.prepare("BEGIN IMMEDIATE")?;
    let mut commit = conn.prepare("COMMIT")?;
    let blob = [0x55; BLOB];
    let mut id: i64 = 0;
    let mut batch = |rows: usize| -> rusqlite::Result<Duration> {
        let begun = Instant::now();
        begin.execute([])?;
        for _ in 0..rows {
            id += 1;
            // Two hundred logs in turn, as the senders of the work write them.
            insert.execute(((id % 200) << 32 | id, 1_700_000_000_000_i64 + id, id % 200, &blob[..]))?;
        }
        commit.execute([])?;
        Ok(begun.elapsed())
    };
    let begun = Instant::now();
    let mut rows = 0;
    let mut batches = Vec::new();
    while begun.elapsed() < length {
        batches.push(batch(BATCH)?);
        rows += BATCH;
    }
    figures.set("a second", rows as f64 / begun.elapsed().as_secs_f64());
    let mut commits = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() < length / 2 {
        commits.push(batch(1)?);
    }
    figures.times(&mut commits);
    Ok(())
}

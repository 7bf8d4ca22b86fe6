//! The threads that read: one the records, one the data of files.

use std::time::Duration;

use super::files::{Data, read_part};
use super::queue::{Lane, Taken, locked};
use super::seal::Sealer;
use super::sqlite::Sqlite;
use super::worker::{ANSWER_BYTES, BUNDLE_BYTES, Delivery, News, PartJob, Shared};
use crate::ops::{Answer, DEVICES_MAX, Done, Page, PageRow, Refused};

pub(super) fn read(sqlite: &Sqlite, shared: &Shared) {
    loop {
        match shared.reads.take(1, 1, Duration::MAX) {
            Taken::Jobs(jobs, _) => {
                for (ticket, query) in jobs {
                    shared.outbox.wait_for_room(Lane::Records, ANSWER_BYTES);
                    let answer = shared.gate.read(|| sqlite.answer(&query));
                    let bytes = answer.as_ref().map_or(0, answer_bytes);
                    locked(&shared.stats).queries += 1;
                    let news = vec![News::Answer(ticket, Done::Query(answer))];
                    shared.deliver(Delivery { news, queries: 1, ..Delivery::default() }, Lane::Records, bytes);
                }
            }
            Taken::Nothing => {}
            Taken::Closed => return,
        }
    }
}

pub(super) fn read_parts(records: &Sqlite, data: &dyn Data, sealer: &Sealer, shared: &Shared) {
    loop {
        match shared.parts.take(1, 1, Duration::MAX) {
            Taken::Jobs(jobs, _) => {
                for PartJob { ticket, account, file, offset, length } in jobs {
                    shared.outbox.wait_for_room(Lane::Files, ANSWER_BYTES);
                    // The database is asked for a moment only; the data is read beside everybody.
                    let readable = || shared.gate.read(|| records.readable(account, file));
                    let part = match readable() {
                        Ok(size) => {
                            let part = read_part(data, sealer, file, size, offset, length);
                            // Still there after that: nobody dropped it meanwhile.
                            if matches!(part, Err(Refused::NotFound)) && readable().is_ok() {
                                log::error!(
                                    "the data of file {file} is missing or short: put it back from where backups of `files` are"
                                );
                            }
                            part
                        }
                        Err(refused) => Err(refused),
                    };
                    let bytes = part.as_ref().map_or(0, |part| part.rows.iter().map(|(_, row)| row.len()).sum());
                    locked(&shared.stats).parts += 1;
                    let news = vec![News::Answer(ticket, Done::Query(part.map(Answer::FilePart)))];
                    shared.deliver(Delivery { news, parts: 1, ..Delivery::default() }, Lane::Files, bytes);
                }
            }
            Taken::Nothing => {}
            Taken::Closed => return,
        }
    }
}

/// Bytes that an answer holds, about.
fn answer_bytes(answer: &Answer) -> usize {
    let page = |page: &Page| page.lines.len() + size_of_val::<[PageRow]>(&page.rows);
    match answer {
        Answer::Page(found) => page(found),
        Answer::Arrival(arrival) => page(&arrival.page),
        Answer::Rooms { rows, .. } => rows.iter().map(|row| row.topic.as_ref().map_or(0, String::len) + 160).sum(),
        Answer::Members(rows) => rows.len() * 96,
        Answer::Users { rows, .. } => rows.len() * 64,
        Answer::Accounts { rows, .. } => rows.len() * 96,
        Answer::UnreadRows(rows) => rows.len() * 96,
        // A name of 255 bytes, the digest, and what stands around them.
        Answer::Files { rows, .. } => rows.len() * 512,
        Answer::Signals { rows, .. } => rows.iter().map(|row| row.body.len() + 160).sum(),
        Answer::Roster(page) => page.rows.iter().map(|(_, entry)| entry.len() + 64).sum(),
        Answer::DeviceCertificates(_) => DEVICES_MAX * BUNDLE_BYTES,
        _ => 256,
    }
}

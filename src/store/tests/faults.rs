//! A disk that can be told to fail, to be full, or to stand still.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use rustix::io::Errno;

use super::super::files::{Data, Directory, Numbers, Writing};
use super::threads::PATIENCE;
use crate::protocol::FileId;

/// What goes wrong, and what was done.
#[derive(Default)]
pub(super) struct Faults {
    pub(super) syncs: AtomicU64,
    pub(super) name_syncs: AtomicU64,
    /// Bytes that a write may still take before there is no room, and the error then.
    pub(super) room: Mutex<Option<(u64, Errno)>>,
    pub(super) sync_fails: AtomicBool,
    pub(super) name_sync_fails: AtomicBool,
    pub(super) remove_fails: AtomicBool,
    pub(super) low: AtomicBool,
    /// Syncs and reads wait while this is set.
    held: Mutex<bool>,
    released: Condvar,
    /// How many wait.
    waiting: AtomicU64,
}

impl Faults {
    pub(super) fn hold(&self, held: bool) {
        *self.held.lock().unwrap() = held;
        self.released.notify_all();
    }

    fn pass(&self) {
        let held = self.held.lock().unwrap();
        self.waiting.fetch_add(1, Ordering::SeqCst);
        drop(self.released.wait_while(held, |held| *held).unwrap());
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }

    pub(super) fn wait_for(&self, waiting: u64) {
        let since = Instant::now();
        while self.waiting.load(Ordering::SeqCst) < waiting {
            assert!(since.elapsed() < PATIENCE);
            std::thread::yield_now();
        }
    }
}

pub(super) struct Faulty(pub(super) Directory, pub(super) Arc<Faults>);

struct FaultyWriting(Box<dyn Writing>, Arc<Faults>);

fn fails(when: &AtomicBool) -> io::Result<()> {
    if when.load(Ordering::SeqCst) { Err(Errno::IO.into()) } else { Ok(()) }
}

impl Data for Faulty {
    fn open(&self, file: FileId, len: u64) -> io::Result<Option<(Box<dyn Writing>, u64)>> {
        let wrap = |data| Box::new(FaultyWriting(data, Arc::clone(&self.1))) as Box<dyn Writing>;
        Ok(self.0.open(file, len)?.map(|(data, found)| (wrap(data), found)))
    }

    fn sync_names(&self) -> io::Result<()> {
        self.1.name_syncs.fetch_add(1, Ordering::SeqCst);
        fails(&self.1.name_sync_fails)?;
        self.0.sync_names()
    }

    fn read(&self, file: FileId, offset: u64, into: &mut [u8]) -> io::Result<bool> {
        self.1.pass();
        self.0.read(file, offset, into)
    }

    fn remove(&self, file: FileId) -> io::Result<()> {
        fails(&self.1.remove_fails)?;
        self.0.remove(file)
    }

    fn numbers(&self) -> io::Result<Numbers> {
        self.0.numbers()
    }

    fn spare(&self) -> io::Result<u64> {
        if self.1.low.load(Ordering::SeqCst) { Ok(0) } else { self.0.spare() }
    }
}

impl Writing for FaultyWriting {
    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut room = self.1.room.lock().unwrap();
        if let Some((left, error)) = &mut *room {
            let fits = bytes.len().min(usize::try_from(*left).unwrap());
            *left -= fits as u64;
            if fits < bytes.len() {
                // A part of it is written, as a disk does.
                self.0.write(offset, &bytes[..fits])?;
                return Err((*error).into());
            }
        }
        self.0.write(offset, bytes)
    }

    fn cut(&mut self, len: u64) -> io::Result<()> {
        self.0.cut(len)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.1.pass();
        self.1.syncs.fetch_add(1, Ordering::SeqCst);
        fails(&self.1.sync_fails)?;
        self.0.sync()
    }
}

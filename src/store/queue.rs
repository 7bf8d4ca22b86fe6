//! What passes between the loop and the threads of the store.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Takes a lock; what it guards is whole at every moment, also if a thread ended while holding it.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Jobs with their weight in bytes, in order, for one thread that takes them.
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    jobs: VecDeque<(T, usize)>,
    closed: bool,
    /// Who took is gone, and nobody will.
    abandoned: bool,
}

/// What a thread finds.
pub(super) enum Taken<T> {
    /// Jobs, at least one, and their weight.
    Jobs(Vec<T>, usize),
    /// Nothing came in time.
    Nothing,
    /// Nothing is left and nothing will come.
    Closed,
}

impl<T> Queue<T> {
    pub(super) fn new() -> Queue<T> {
        Queue {
            state: Mutex::new(State { jobs: VecDeque::new(), closed: false, abandoned: false }),
            changed: Condvar::new(),
        }
    }

    /// Adds a job; never blocks. The bound is kept by who adds, see [`Store::has_room`](super::Store::has_room).
    pub(super) fn push(&self, job: T, weight: usize) {
        self.push_all(std::iter::once((job, weight)));
    }

    /// Adds jobs with their weights, which are found together.
    pub(super) fn push_all(&self, jobs: impl Iterator<Item = (T, usize)>) {
        let mut state = locked(&self.state);
        if state.abandoned {
            return;
        }
        let was_empty = state.jobs.is_empty();
        state.jobs.extend(jobs);
        let wakes = was_empty && !state.jobs.is_empty();
        drop(state);
        // The one thread that takes sleeps only while nothing is here; waking it for each job costs a call
        // of the operating system each.
        if wakes {
            self.changed.notify_one();
        }
    }

    /// Lets the thread end once it has taken everything.
    pub(super) fn close(&self) {
        locked(&self.state).closed = true;
        self.changed.notify_all();
    }

    /// Drops everything that waits and that still comes, so that who waits for a job hears that it is lost.
    pub(super) fn abandon(&self) {
        let mut state = locked(&self.state);
        (state.closed, state.abandoned) = (true, true);
        let jobs = std::mem::take(&mut state.jobs);
        drop(state);
        drop(jobs);
    }

    /// Waits for jobs and takes what is there, up to `most` jobs and about `weight` bytes.
    pub(super) fn take(&self, most: usize, weight: usize, patience: Duration) -> Taken<T> {
        let idle = |state: &mut State<T>| state.jobs.is_empty() && !state.closed;
        let (mut state, _) = self
            .changed
            .wait_timeout_while(locked(&self.state), patience, idle)
            .unwrap_or_else(PoisonError::into_inner);
        let mut taken = Vec::with_capacity(most.min(state.jobs.len()));
        let mut sum: usize = 0;
        while taken.len() < most && sum < weight {
            let Some((job, weight)) = state.jobs.pop_front() else { break };
            sum = sum.saturating_add(weight);
            taken.push(job);
        }
        match taken.is_empty() {
            false => Taken::Jobs(taken, sum),
            true if state.closed => Taken::Closed,
            true => Taken::Nothing,
        }
    }
}

/// Who delivers: each waits only for room of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// Answers of the database.
    Records,
    /// Pieces of files.
    Files,
}

/// Deliveries on their way to the loop.
pub(super) struct Outbox<T> {
    /// Whether there are deliveries; changed under the lock.
    filled: AtomicBool,
    state: Mutex<Waiting<T>>,
    emptied: Condvar,
}

struct Waiting<T> {
    deliveries: Vec<T>,
    bytes: [usize; 2],
    closing: bool,
}

impl<T> Outbox<T> {
    pub(super) fn new() -> Outbox<T> {
        let state = Waiting { deliveries: Vec::new(), bytes: [0; 2], closing: false };
        Outbox { filled: AtomicBool::new(false), state: Mutex::new(state), emptied: Condvar::new() }
    }

    /// Adds a delivery.
    pub(super) fn put(&self, delivery: T, lane: Lane, bytes: usize) {
        let mut state = locked(&self.state);
        state.deliveries.push(delivery);
        self.filled.store(true, Ordering::Relaxed);
        let [records, files] = &mut state.bytes;
        let waiting = if lane == Lane::Records { records } else { files };
        *waiting = waiting.saturating_add(bytes);
    }

    /// Whether a delivery waits. A hint: only what [`Outbox::take`] finds is there.
    pub(super) fn is_filled(&self) -> bool {
        self.filled.load(Ordering::Relaxed)
    }

    /// Waits until less than `most` bytes of a lane wait for the loop, or the loop is ending and takes all.
    pub(super) fn wait_for_room(&self, lane: Lane, most: usize) {
        let full = |state: &mut Waiting<T>| {
            let [records, files] = state.bytes;
            let bytes = if lane == Lane::Records { records } else { files };
            bytes >= most && !state.closing
        };
        drop(self.emptied.wait_while(locked(&self.state), full));
    }

    /// Takes everything.
    pub(super) fn take(&self) -> Vec<T> {
        let mut state = locked(&self.state);
        state.bytes = [0; 2];
        self.filled.store(false, Ordering::Relaxed);
        self.emptied.notify_all();
        std::mem::take(&mut state.deliveries)
    }

    /// Nobody waits from now on.
    pub(super) fn close(&self) {
        locked(&self.state).closing = true;
        self.emptied.notify_all();
    }
}

/// Lets threads read, and another hold reading up for a moment. Who holds up goes first: a plain mutex
/// would let reads that follow each other closely pass before it for ever.
#[derive(Default)]
pub(super) struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    /// How many are.
    reading: usize,
    held_up: bool,
}

impl Gate {
    /// Reads, once nobody holds it up.
    pub(super) fn read<T>(&self, read: impl FnOnce() -> T) -> T {
        let held_up = |state: &mut GateState| state.held_up;
        let state = self.changed.wait_while(locked(&self.state), held_up);
        state.unwrap_or_else(PoisonError::into_inner).reading += 1;
        let _reading = Reading(self);
        read()
    }

    /// Waits for the reads that are under way, and keeps the next from beginning meanwhile.
    pub(super) fn hold_up<T>(&self, act: impl FnOnce() -> T) -> T {
        let mut state = locked(&self.state);
        state.held_up = true;
        let reading = |state: &mut GateState| state.reading > 0;
        drop(self.changed.wait_while(state, reading));
        let done = act();
        locked(&self.state).held_up = false;
        self.changed.notify_all();
        done
    }
}

/// A read under way; over when dropped, also by a panic.
struct Reading<'a>(&'a Gate);

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let mut state = locked(&self.0.state);
        state.reading = state.reading.saturating_sub(1);
        drop(state);
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_bounded_and_in_order() {
        let queue = Queue::new();
        for job in 0..10 {
            queue.push(job, 100);
        }
        let take = |most, weight| match queue.take(most, weight, Duration::ZERO) {
            Taken::Jobs(jobs, weight) => (jobs, weight),
            Taken::Nothing | Taken::Closed => (Vec::new(), 0),
        };
        assert_eq!(take(3, usize::MAX), (vec![0, 1, 2], 300));
        assert_eq!(take(9, 250), (vec![3, 4, 5], 300), "the job that goes over the weight is the last");
        assert_eq!(take(9, 1), (vec![6], 100), "at least one");
        assert_eq!(take(9, usize::MAX).0, vec![7, 8, 9]);
        assert!(matches!(queue.take(9, 9, Duration::ZERO), Taken::Nothing));
    }

    #[test]
    fn what_was_queued_before_the_end_is_taken() {
        let queue = Queue::new();
        queue.push('a', 1);
        queue.close();
        assert!(matches!(queue.take(9, 9, Duration::MAX), Taken::Jobs(jobs, 1) if jobs == ['a']));
        assert!(matches!(queue.take(9, 9, Duration::MAX), Taken::Closed));
    }
}

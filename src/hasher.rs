//! Argon2id (RFC 9106) on a small pool of threads, never on the loop.
//!
//! The number of passwords under way is bounded; what comes beyond is refused at once, so that a flood
//! of logins costs its senders a wait and the others nothing. Every verification costs the same with
//! today's parameters, whether or not the account exists.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use argon2::{Algorithm, Argon2, Block, Version};
use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize as _, Zeroizing};

use crate::ops::{
    ARGON2_ITERATIONS_MAX, ARGON2_MEMORY_KIB_MAX, ARGON2_PARALLELISM_MAX, HashDone, HashOp, HashParams, Password,
    Ticket, Verifier,
};

/// Most passwords between [`Hasher::try_submit`] and [`Hasher::drain`]. One takes about 20 ms with the
/// default parameters, so that the last of so many waits under six seconds even for a single thread:
/// longer, and people would give up and come again.
pub const MAX_UNDER_WAY: usize = 256;
/// Most threads of the pool: each holds its own memory area, and logins must not take every core from
/// the loop and the store.
pub const MAX_THREADS: usize = 4;

/// The server's secret, which is part of every hash: stolen verifiers alone cannot be attacked.
pub type Secret = Zeroizing<[u8; 32]>;

/// [`MAX_UNDER_WAY`] passwords are under way; the peer may come again in a second or so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many logins at once")]
pub struct Full;

/// Why a hash was not computed. Ours or the machine's, never a peer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// No memory for the area.
    #[error("out of memory")]
    Memory,
    /// No random bytes for a salt.
    #[error("the operating system gives no random bytes")]
    Randomness,
    /// Parameters that Argon2 does not take, as a damaged record may hold.
    #[error("parameters out of range")]
    Params,
}

/// The pool. Dropping it ends its threads after what they compute right now; what still waits is
/// forgotten.
pub struct Hasher {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    work: Condvar,
    secret: Secret,
    wake: Box<dyn Fn() + Send + Sync>,
}

struct State {
    params: HashParams,
    waiting: VecDeque<(Ticket, HashOp)>,
    running: usize,
    done: Vec<(Ticket, HashDone)>,
    stop: bool,
}

impl Shared {
    /// Nothing panics while it holds the lock, and the state is whole between any two statements.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many threads suit this machine: one core stays for the loop and the store.
pub fn default_threads() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    cores.saturating_sub(1).clamp(1, MAX_THREADS)
}

impl Hasher {
    /// Starts a pool of `threads` (1 to [`MAX_THREADS`], else the nearest). `wake` is called on one of them
    /// after each answer, and must neither block nor panic.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub fn start(
        threads: usize,
        params: HashParams,
        secret: Secret,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> std::io::Result<Hasher> {
        let state = State { params, waiting: VecDeque::new(), running: 0, done: Vec::new(), stop: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), work: Condvar::new(), secret, wake: Box::new(wake) });
        let mut hasher = Hasher { shared, threads: Vec::new() };
        for number in 0..threads.clamp(1, MAX_THREADS) {
            let shared = Arc::clone(&hasher.shared);
            let thread = std::thread::Builder::new().name(format!("hasher-{number}"));
            hasher.threads.push(thread.spawn(move || run(&shared))?);
        }
        Ok(hasher)
    }

    /// Hands in a password; its answer comes with [`Hasher::drain`].
    ///
    /// # Errors
    /// [`Full`]: the peer is answered `busy`.
    pub fn try_submit(&self, ticket: Ticket, op: HashOp) -> Result<(), Full> {
        let mut state = self.shared.lock();
        if under_way(&state) >= MAX_UNDER_WAY {
            return Err(Full);
        }
        state.waiting.push_back((ticket, op));
        drop(state);
        self.shared.work.notify_one();
        Ok(())
    }

    /// Gives every answer that is ready to `each`, in the order in which they were found.
    pub fn drain(&self, mut each: impl FnMut(Ticket, HashDone)) {
        let done = std::mem::take(&mut self.shared.lock().done);
        for (ticket, answer) in done {
            each(ticket, answer);
        }
    }

    /// Passwords under way; at most [`MAX_UNDER_WAY`].
    pub fn depth(&self) -> usize {
        under_way(&self.shared.lock())
    }

    /// Uses other parameters from the next password on.
    pub fn set_params(&self, params: HashParams) {
        self.shared.lock().params = params;
    }
}

impl Drop for Hasher {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.stop = true;
        state.waiting.clear();
        drop(state);
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            // A thread that panicked has nothing more to say.
            let _ = thread.join();
        }
    }
}

fn under_way(state: &State) -> usize {
    state.waiting.len() + state.running + state.done.len()
}

/// One thread of the pool.
fn run(shared: &Shared) {
    let mut area = Area::default();
    loop {
        let mut state = shared.lock();
        let (ticket, op) = loop {
            if state.stop {
                return;
            }
            if let Some(next) = state.waiting.pop_front() {
                break next;
            }
            state = shared.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        };
        state.running += 1;
        let params = state.params;
        drop(state);

        let answer = area.answer(op, params, &shared.secret).unwrap_or_else(|error| {
            log::error!("password hashing failed: {error}");
            HashDone::Failed
        });
        area.shrink_to(params);

        let mut state = shared.lock();
        state.running -= 1;
        state.done.push((ticket, answer));
        drop(state);
        (shared.wake)();
    }
}

/// Makes a verifier here and now, for a command of the operator.
///
/// # Errors
/// See [`HashError`].
pub fn create(password: &Password, params: HashParams, secret: &Secret) -> Result<Verifier, HashError> {
    Area::default().create(password, params, secret)
}

/// A thread's memory, reused from one password to the next: allocating and faulting in 19 MiB takes
/// about as long as one pass over it.
#[derive(Default)]
struct Area(Vec<Block>);

impl Area {
    fn answer(&mut self, op: HashOp, params: HashParams, secret: &Secret) -> Result<HashDone, HashError> {
        match op {
            HashOp::Create(password) => self.create(&password, params, secret).map(HashDone::Created),
            HashOp::Verify(password, Some(verifier)) => {
                let old = HashParams::of(&verifier);
                let found = self.hash(&password, &verifier.salt, old, secret)?;
                let matches = bool::from(found.ct_eq(&verifier.hash));
                let upgraded = match matches && old != params {
                    true => Some(self.create(&password, params, secret)?),
                    false => None,
                };
                Ok(HashDone::Verified { matches, upgraded })
            }
            HashOp::Verify(password, None) => {
                // The salt does not matter: what is found is compared with nothing.
                self.hash(&password, &[0; 16], params, secret)?;
                Ok(HashDone::Verified { matches: false, upgraded: None })
            }
        }
    }

    fn create(&mut self, password: &Password, params: HashParams, secret: &Secret) -> Result<Verifier, HashError> {
        let mut salt = [0; 16];
        getrandom::fill(&mut salt).map_err(|_| HashError::Randomness)?;
        let hash = *self.hash(password, &salt, params, secret)?;
        let HashParams { memory_kib, iterations, parallelism } = params;
        Ok(Verifier { memory_kib, iterations, parallelism, salt, hash })
    }

    fn hash(
        &mut self,
        password: &Password,
        salt: &[u8; 16],
        params: HashParams,
        secret: &Secret,
    ) -> Result<Zeroizing<[u8; 32]>, HashError> {
        let HashParams { memory_kib, iterations, parallelism } = params;
        if memory_kib > ARGON2_MEMORY_KIB_MAX
            || iterations > ARGON2_ITERATIONS_MAX
            || parallelism > ARGON2_PARALLELISM_MAX
        {
            return Err(HashError::Params);
        }
        let mut hash = Zeroizing::new([0; 32]);
        let costs = argon2::Params::new(memory_kib, iterations, parallelism, Some(hash.len()))
            .map_err(|_| HashError::Params)?;
        let blocks = self.blocks(costs.block_count())?;
        let argon2 = Argon2::new_with_secret(secret.as_slice(), Algorithm::Argon2id, Version::V0x13, costs)
            .map_err(|_| HashError::Params)?;
        let result =
            argon2.hash_password_into_with_memory(password.0.as_bytes(), salt, hash.as_mut_slice(), &mut *blocks);
        // The first blocks are a fast hash of the password: whoever read them could guess cheaply.
        for block in blocks {
            block.zeroize();
        }
        result.map_err(|_| HashError::Params)?;
        Ok(hash)
    }

    fn blocks(&mut self, count: usize) -> Result<&mut [Block], HashError> {
        let missing = count.saturating_sub(self.0.len());
        self.0.try_reserve_exact(missing).map_err(|_| HashError::Memory)?;
        self.0.resize_with(self.0.len() + missing, Block::default);
        self.0.get_mut(..count).ok_or(HashError::Memory)
    }

    /// Gives back what an old verifier with greater parameters took.
    fn shrink_to(&mut self, params: HashParams) {
        let count = usize::try_from(params.memory_kib).unwrap_or(usize::MAX);
        if self.0.len() > count {
            self.0.truncate(count);
            self.0.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    /// Small, because the tests are about the pool and not about the cost.
    const SMALL: HashParams = HashParams { memory_kib: 64, iterations: 1, parallelism: 1 };
    const OTHER: HashParams = HashParams { memory_kib: 128, iterations: 2, parallelism: 2 };

    fn secret(byte: u8) -> Secret {
        Zeroizing::new([byte; 32])
    }

    /// A pool and a way to wait for its answers.
    fn pool(threads: usize, params: HashParams) -> (Hasher, mpsc::Receiver<()>) {
        let (woken, wakes) = mpsc::channel();
        let hasher = Hasher::start(threads, params, secret(7), move || {
            let _ = woken.send(());
        });
        (hasher.expect("threads"), wakes)
    }

    fn answer(hasher: &Hasher, wakes: &mpsc::Receiver<()>, op: HashOp) -> HashDone {
        hasher.try_submit(Ticket(1), op).expect("room");
        loop {
            wakes.recv_timeout(Duration::from_secs(60)).expect("an answer");
            let mut found = None;
            hasher.drain(|ticket, done| {
                assert_eq!(ticket, Ticket(1));
                found = Some(done);
            });
            if let Some(done) = found {
                return done;
            }
        }
    }

    fn verified(done: HashDone) -> (bool, Option<Verifier>) {
        match done {
            HashDone::Verified { matches, upgraded } => (matches, upgraded),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_password_matches_its_own_verifier_and_no_other() {
        let (hasher, wakes) = pool(2, SMALL);
        let HashDone::Created(verifier) = answer(&hasher, &wakes, HashOp::Create(Password::new("correct horse")))
        else {
            panic!("no verifier");
        };
        assert_eq!(HashParams::of(&verifier), SMALL);
        let verify = |text: &str, verifier: Option<&Verifier>| {
            verified(answer(&hasher, &wakes, HashOp::Verify(Password::new(text), verifier.cloned())))
        };
        assert_eq!(verify("correct horse", Some(&verifier)), (true, None));
        assert_eq!(verify("correct hors", Some(&verifier)), (false, None));
        assert_eq!(verify("correct horse", None), (false, None));
    }

    #[test]
    fn the_tag_is_argon2id_keyed_with_the_secret() {
        let verifier = create(&Password::new("correct horse"), SMALL, &secret(7)).expect("a verifier");
        let argon2 = |secret: &[u8]| {
            let params = argon2::ParamsBuilder::new().m_cost(64).t_cost(1).p_cost(1).output_len(32).build();
            let mut out = [0; 32];
            Argon2::new_with_secret(secret, Algorithm::Argon2id, Version::V0x13, params.expect("params"))
                .expect("a secret")
                .hash_password_into(b"correct horse", &verifier.salt, &mut out)
                .expect("a hash");
            out
        };
        assert_eq!(verifier.hash, argon2(&[7; 32]));
        assert_ne!(verifier.hash, argon2(&[8; 32]));
        let again = create(&Password::new("correct horse"), SMALL, &secret(7)).expect("a verifier");
        assert_ne!(verifier.salt, again.salt);
    }

    #[test]
    fn other_parameters_are_brought_up_to_date_once_the_password_was_right() {
        let (hasher, wakes) = pool(1, SMALL);
        let old = create(&Password::new("correct horse"), OTHER, &secret(7)).expect("a verifier");
        let verify = |text: &str, verifier: &Verifier| {
            verified(answer(&hasher, &wakes, HashOp::Verify(Password::new(text), Some(verifier.clone()))))
        };
        assert_eq!(verify("wrong", &old), (false, None));
        let (matches, upgraded) = verify("correct horse", &old);
        let new = upgraded.expect("an upgrade");
        assert!(matches);
        assert_eq!(HashParams::of(&new), SMALL);
        assert_eq!(verify("correct horse", &new), (true, None));

        hasher.set_params(OTHER);
        let (_, upgraded) = verify("correct horse", &new);
        assert_eq!(upgraded.map(|verifier| HashParams::of(&verifier)), Some(OTHER));
    }

    #[test]
    fn a_flood_is_refused_and_everything_accepted_is_answered_once() {
        let (hasher, wakes) = pool(2, SMALL);
        let mut accepted = 0;
        while hasher.try_submit(Ticket(accepted), HashOp::Verify(Password::new("x"), None)).is_ok() {
            accepted += 1;
        }
        assert_eq!(accepted, MAX_UNDER_WAY as u64, "nothing was drained, so that answers count too");
        assert_eq!(hasher.depth(), MAX_UNDER_WAY);
        let mut seen = std::collections::BTreeSet::new();
        while seen.len() < MAX_UNDER_WAY {
            wakes.recv_timeout(Duration::from_secs(60)).expect("an answer");
            hasher.drain(|ticket, _| assert!(seen.insert(ticket)));
        }
        assert_eq!(hasher.depth(), 0);
        assert_eq!(hasher.try_submit(Ticket(0), HashOp::Create(Password::new("x"))), Ok(()));
    }

    #[test]
    fn a_damaged_record_fails_and_the_pool_goes_on() {
        let (hasher, wakes) = pool(1, SMALL);
        for (memory_kib, iterations, parallelism) in [(0, 0, 0), (u32::MAX, 1, 1), (64, u32::MAX, 1), (64, 1, u32::MAX)]
        {
            let damaged = Verifier { memory_kib, iterations, parallelism, salt: [0; 16], hash: [0; 32] };
            let done = answer(&hasher, &wakes, HashOp::Verify(Password::new("x"), Some(damaged)));
            assert!(matches!(done, HashDone::Failed));
        }
        assert_eq!(verified(answer(&hasher, &wakes, HashOp::Verify(Password::new("x"), None))), (false, None));
    }

    #[test]
    fn the_area_is_wiped_after_use_and_shrinks_back() {
        let mut area = Area::default();
        area.create(&Password::new("correct horse"), OTHER, &secret(7)).expect("a verifier");
        assert_eq!(area.0.len(), 128);
        assert!(area.0.iter().all(|block| block.as_ref().iter().all(|&word| word == 0)));
        area.shrink_to(SMALL);
        assert_eq!(area.0.len(), 64);
    }

    #[test]
    fn dropping_the_pool_does_not_wait_for_what_is_queued() {
        let (hasher, _wakes) = pool(1, SMALL);
        for number in 0..MAX_UNDER_WAY as u64 {
            hasher.try_submit(Ticket(number), HashOp::Verify(Password::new("x"), None)).expect("room");
        }
        drop(hasher);
    }
}

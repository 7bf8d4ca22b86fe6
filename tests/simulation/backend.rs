//! The store and the hasher behind the core: the store's own engine in memory, whose answers come when
//! the schedule says, and a hasher that costs nothing.

use std::collections::{BTreeMap, VecDeque};

use downstream::ops::{Done, HashDone, HashOp, Op, Outcome, Query, Refused, Sha256, Ticket, Verifier};
use downstream::protocol::Timestamp;
use downstream::session::ConnId;
use downstream::store::{Engine, ServerKey};

/// A write on its way to the disk.
pub struct Write {
    pub ticket: Ticket,
    pub owner: Option<ConnId>,
    pub now: Timestamp,
    pub op: Op,
}

/// A write that was decided, and whose answer is on its way back.
pub struct Written {
    pub ticket: Ticket,
    pub owner: Option<ConnId>,
    pub op: Op,
    pub result: Result<Outcome, Refused>,
}

/// A read on its way, there or back.
pub struct Read<T> {
    pub ticket: Ticket,
    pub owner: Option<ConnId>,
    pub what: T,
}

pub struct Backend {
    pub engine: Engine,
    pub writes: VecDeque<Write>,
    pub written: VecDeque<Written>,
    pub reads: VecDeque<Read<Query>>,
    pub answers: VecDeque<Read<Done>>,
    pub hashes: VecDeque<Read<HashOp>>,
    /// The password behind each verifier that was made.
    pub passwords: BTreeMap<[u8; 32], String>,
    salts: u64,
}

impl Backend {
    pub fn new() -> Backend {
        let key = ServerKey::ephemeral().expect("randomness");
        Backend {
            engine: Engine::in_memory(&key).expect("a database in memory"),
            writes: VecDeque::new(),
            written: VecDeque::new(),
            reads: VecDeque::new(),
            answers: VecDeque::new(),
            hashes: VecDeque::new(),
            passwords: BTreeMap::new(),
            salts: 0,
        }
    }

    /// Everything that the core waits for.
    pub fn outstanding(&self) -> usize {
        self.writes.len() + self.written.len() + self.reads.len() + self.answers.len() + self.hashes.len()
    }

    fn verifier(&mut self, password: &str, memory_kib: u32) -> Verifier {
        self.salts += 1;
        let mut salt = [0; 16];
        salt[..8].copy_from_slice(&self.salts.to_be_bytes());
        let hash = tag(&salt, password);
        self.passwords.insert(hash, password.to_owned());
        Verifier { memory_kib, iterations: 2, parallelism: 1, salt, hash }
    }

    /// `upgrade` asks for a verifier with other parameters where the password matches.
    pub fn hash(&mut self, op: HashOp, upgrade: bool) -> HashDone {
        match op {
            HashOp::Create(password) => HashDone::Created(self.verifier(&password.0, 19_456)),
            HashOp::Verify(password, verifier) => {
                let matches = verifier.is_some_and(|known| tag(&known.salt, &password.0) == known.hash);
                let upgraded = (matches && upgrade).then(|| self.verifier(&password.0, 65_536));
                HashDone::Verified { matches, upgraded }
            }
        }
    }
}

fn tag(salt: &[u8; 16], password: &str) -> [u8; 32] {
    let mut bytes = salt.to_vec();
    bytes.extend_from_slice(password.as_bytes());
    Sha256::of(&bytes).0
}

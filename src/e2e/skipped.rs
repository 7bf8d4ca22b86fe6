//! Message keys of counters that were jumped over, kept for the messages that are still under way.
//!
//! Every limit is one: a sender can make a receiver skip keys at will, so what is kept is bounded in
//! number, in age, and in chains (Signal, "The Double Ratchet Algorithm" rev. 4, §8.4).

use std::collections::VecDeque;
use std::sync::Arc;

use super::error::Damaged;
use super::secret::Secret;
use super::time::{DAY, Now};
use super::wire::{Malformed, Put, Reader};

/// Keys kept at most; the oldest go first.
pub const KEYS_MAX: usize = 2000;
/// How long a key is kept, in seconds: what is later than that is lost.
pub const KEEP: u64 = 14 * DAY;
/// Receive chains before the current one whose keys are kept.
pub const OLD_CHAINS_MAX: usize = 5;

/// The skipped keys of one receive chain, by rising counter.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Chain {
    /// The sender's ratchet key, or zeros where there is one chain only.
    id: [u8; 32],
    keys: VecDeque<Key>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    n: u32,
    /// When it was skipped, Unix seconds.
    at: u64,
    key: Secret<32>,
}

/// The skipped keys of a session, or of a sender chain. The last chain is the current one. Copies share the keys until
/// they change any: every message makes a copy, and few change these.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Skipped {
    chains: Arc<VecDeque<Chain>>,
}

/// What is known of a counter.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Lookup {
    /// A key was kept; it is gone from the set now.
    Kept(Secret<32>),
    /// The chain is known and this key is not kept: used, or forgotten.
    Gone,
    /// No old chain of this id.
    Unknown,
}

impl Skipped {
    /// Starts a chain; keys pushed from now on are its own.
    pub(crate) fn begin(&mut self, id: [u8; 32]) {
        let chains = Arc::make_mut(&mut self.chains);
        chains.push_back(Chain { id, keys: VecDeque::new() });
        while chains.len() > OLD_CHAINS_MAX + 1 {
            chains.pop_front();
        }
    }

    /// Keeps the key of a counter of the current chain.
    pub(crate) fn push(&mut self, n: u32, key: Secret<32>, now: Now) {
        if let Some(chain) = Arc::make_mut(&mut self.chains).back_mut() {
            chain.keys.push_back(Key { n, at: now.secs(), key });
        }
        while self.len() > KEYS_MAX {
            self.drop_oldest();
        }
    }

    /// Takes a key out of a chain.
    pub(crate) fn take(&mut self, id: &[u8; 32], n: u32) -> Lookup {
        let Some(which) = self.chains.iter().position(|chain| chain.id == *id) else { return Lookup::Unknown };
        let at = self.chains.get(which).and_then(|chain| chain.keys.binary_search_by_key(&n, |key| key.n).ok());
        let Some(at) = at else { return Lookup::Gone };
        let taken = Arc::make_mut(&mut self.chains).get_mut(which).and_then(|chain| chain.keys.remove(at));
        taken.map_or(Lookup::Gone, |key| Lookup::Kept(key.key))
    }

    /// Erases what is older than [`KEEP`].
    pub(crate) fn expire(&mut self, now: Now) {
        let old = |key: &Key| now.since(key.at) > KEEP;
        if !self.chains.iter().any(|chain| chain.keys.iter().any(old)) {
            return;
        }
        for chain in Arc::make_mut(&mut self.chains) {
            chain.keys.retain(|key| !old(key));
        }
    }

    /// How many keys are kept.
    pub(crate) fn len(&self) -> usize {
        self.chains.iter().map(|chain| chain.keys.len()).sum()
    }

    fn drop_oldest(&mut self) {
        if let Some(chain) = Arc::make_mut(&mut self.chains).iter_mut().find(|chain| !chain.keys.is_empty()) {
            chain.keys.pop_front();
        }
    }

    pub(crate) fn write(&self, row: &mut Vec<u8>) {
        row.put_count(self.chains.len());
        for chain in self.chains.iter() {
            row.put(&chain.id).put_count(chain.keys.len());
            for key in &chain.keys {
                row.put_u32(key.n).put_u64(key.at).put(key.key.expose());
            }
        }
    }

    pub(crate) fn read(r: &mut Reader<'_>) -> Result<Self, Damaged> {
        let chains = (0..r.u32()?)
            .map(|_| {
                let id = r.array()?;
                let keys = (0..r.u32()?)
                    .map(|_| Ok(Key { n: r.u32()?, at: r.u64()?, key: r.secret()? }))
                    .collect::<Result<_, Malformed>>()?;
                Ok(Chain { id, keys })
            })
            .collect::<Result<_, Malformed>>()?;
        Ok(Self { chains: Arc::new(chains) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(i: u32) -> Secret<32> {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&i.to_be_bytes());
        Secret::copy_from(&bytes)
    }

    #[test]
    fn a_key_is_given_once() {
        let mut skipped = Skipped::default();
        skipped.begin([1; 32]);
        (0..3).for_each(|n| skipped.push(n, key(n), Now::from_secs(5)));
        assert_eq!(skipped.take(&[1; 32], 1), Lookup::Kept(key(1)));
        assert_eq!(skipped.take(&[1; 32], 1), Lookup::Gone);
        assert_eq!(skipped.take(&[2; 32], 1), Lookup::Unknown);
        let mut row = Vec::new();
        skipped.write(&mut row);
        assert_eq!(Skipped::read(&mut Reader::new(&row)), Ok(skipped));
    }

    #[test]
    fn number_age_and_chains_are_bounded() {
        let mut skipped = Skipped::default();
        for chain in 0..20_u8 {
            skipped.begin([chain; 32]);
            (0..1000).for_each(|n| skipped.push(n, key(n), Now::from_secs(u64::from(chain))));
            assert!(skipped.len() <= KEYS_MAX && skipped.chains.len() <= OLD_CHAINS_MAX + 1);
        }
        assert_eq!(skipped.take(&[13; 32], 0), Lookup::Unknown);
        assert_eq!(skipped.take(&[14; 32], 0), Lookup::Gone);
        assert_eq!(skipped.take(&[18; 32], 999), Lookup::Kept(key(999)));
        skipped.expire(Now::from_secs(19 + KEEP));
        assert_eq!(skipped.len(), 1000);
        skipped.expire(Now::from_secs(20 + KEEP));
        assert_eq!(skipped.len(), 0);
    }
}

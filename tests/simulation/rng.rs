//! The one source of chance: SplitMix64 (Steele, Lea, Flood, OOPSLA 2014), so that a seed is a run; or what
//! a fuzzer wrote, as far as it goes.

#[derive(Default)]
pub struct Rng {
    state: u64,
    /// What decides as long as there is some.
    script: Vec<u8>,
    at: usize,
}

impl Rng {
    pub fn new(seed: u64) -> Rng {
        Rng { state: seed, ..Rng::default() }
    }

    /// Decides by these bytes, and behind their end by what follows from them.
    pub fn scripted(script: &[u8]) -> Rng {
        let mut rng = Rng::default();
        rng.follow(script);
        rng
    }

    /// Decides by these bytes from now on.
    pub fn follow(&mut self, script: &[u8]) {
        // FNV-1a: nothing but a number that another script does not have.
        let fold = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        self.state = script.iter().fold(0xcbf2_9ce4_8422_2325, fold);
        self.script.clear();
        self.script.extend_from_slice(script);
        self.at = 0;
    }

    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`; 0 where `n` is 0. Takes as much of a script as `n` needs.
    pub fn below(&mut self, n: usize) -> usize {
        if n < 2 {
            return 0;
        }
        let bytes = (usize::BITS - (n - 1).leading_zeros()).div_ceil(8) as usize;
        match self.script.get(self.at..self.at + bytes) {
            Some(decided) => {
                self.at += bytes;
                decided.iter().fold(0, |value, byte| value << 8 | usize::from(*byte)) % n
            }
            None => (self.next() % n as u64) as usize,
        }
    }

    /// From `low` to `high`, both included.
    pub fn within(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }

    /// True in `percent` of a hundred.
    pub fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// True once in `n`.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        of.get(self.below(of.len()))
    }

    /// An index, chosen by weight.
    pub fn weighted(&mut self, weights: &[usize]) -> usize {
        let mut at = self.below(weights.iter().sum());
        for (index, weight) in weights.iter().enumerate() {
            if at < *weight {
                return index;
            }
            at -= weight;
        }
        0
    }
}

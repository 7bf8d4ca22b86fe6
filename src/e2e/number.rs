//! The safety number: 60 digits that two people compare to know that no one stands between them.
//!
//! As Signal's numeric fingerprint, version 0: 5200 rounds of SHA-512, so that a collision on the
//! 30 digits of one side costs more. Over the account identity only, so a new device changes nothing.

use sha2::{Digest, Sha512};

use super::name::User;

/// Rounds of SHA-512.
const ROUNDS: u32 = 5200;

/// The 30 digits of one account: of its name and its identity key.
pub(crate) fn half(name: &[u8], key: &[u8]) -> String {
    let start = Sha512::new().chain_update([0, 0]).chain_update(key).chain_update(name).chain_update(key);
    let mut h: [u8; 64] = start.finalize().into();
    for _ in 1..ROUNDS {
        h = Sha512::new().chain_update(h).chain_update(key).finalize().into();
    }
    h.chunks_exact(5)
        .take(6)
        .map(|five| five.iter().fold(0_u64, |n, b| n << 8 | u64::from(*b)) % 100_000)
        .map(|group| format!("{group:05}"))
        .collect()
}

/// The number of two accounts: 60 digits without spaces, the same on both sides.
pub fn safety_number(a: (&User, &[u8; 32]), b: (&User, &[u8; 32])) -> String {
    let (a, b) = (half(a.0.as_bytes(), a.1), half(b.0.as_bytes(), b.1));
    if a <= b { a + &b } else { b + &a }
}

/// The 30 digits of one account alone: its half of every number.
pub fn own_digits(user: &User, aik: &[u8; 32]) -> String {
    half(user.as_bytes(), aik)
}

/// As people read it: 12 groups of five.
pub fn grouped(number: &str) -> String {
    let mut out = String::with_capacity(71);
    for (i, digit) in number.chars().enumerate() {
        if i > 0 && i % 5 == 0 {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::e2e::testing::{alice, bob};

    #[test]
    fn matches_the_worked_example() {
        let (a, b) = (alice(), bob());
        let (a, b) = ((a.me.user(), a.me.aik()), (b.me.user(), b.me.aik()));
        assert_eq!(
            grouped(&safety_number(a, b)),
            "53038 54937 12373 09197 86412 61072 82421 73128 25625 36382 61779 52524"
        );
        assert_eq!(safety_number(a, b), safety_number(b, a));
    }
}

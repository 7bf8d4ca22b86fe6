//! Hashing and key derivation: SHA-256, HKDF-SHA256 (RFC 5869), HMAC-SHA256 (RFC 2104), and the two
//! KDFs of the Double Ratchet (Signal, "The Double Ratchet Algorithm" rev. 4, §5.2).

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::labels;
use super::secret::Secret;

/// `H`, SHA-256.
pub(crate) fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut h = Sha256::new();
    for part in parts {
        h.update(part);
    }
    h.finalize().into()
}

/// The first 16 bytes of a hash: ids are cut so.
pub(crate) fn first16(hash: [u8; 32]) -> [u8; 16] {
    let [first, _]: [[u8; 16]; 2] = split(&hash);
    first
}

/// `HKDF(salt, ikm, info, N)`; the info in parts, one behind the other.
pub(crate) fn hkdf<const N: usize>(salt: &[u8], ikm: &[u8], info: &[&[u8]]) -> Secret<N> {
    const { assert!(N <= 255 * 32, "RFC 5869: at most 255 blocks") };
    let mut out = Secret::zero();
    let expanded = Hkdf::<Sha256>::new(Some(salt), ikm).expand_multi_info(info, out.expose_mut());
    debug_assert!(expanded.is_ok(), "the length was checked at compile time");
    out
}

/// HMAC-SHA256 with a 32-byte key, handed over zero-filled to the hash's block as RFC 2104 §2 does.
fn keyed(key: &Secret<32>) -> Hmac<Sha256> {
    let mut block = Zeroizing::new([0; 64]);
    block.iter_mut().zip(key.expose()).for_each(|(place, byte)| *place = *byte);
    <Hmac<Sha256> as KeyInit>::new((&*block).into())
}

fn finish(mut mac: Hmac<Sha256>, message: &[u8]) -> Secret<32> {
    mac.update(message);
    let mut out: [u8; 32] = mac.finalize().into_bytes().into();
    Secret::take(&mut out)
}

/// `KDF_RK(rk, dh) -> rk' ‖ ck`: one step of the root chain.
pub(crate) fn root_step(root: &Secret<32>, dh: &Secret<32>) -> (Secret<32>, Secret<32>) {
    let okm: Secret<64> = hkdf(root.expose(), dh.expose(), &[labels::ROOT.bytes()]);
    (Secret::copy_from(part::<0, 32, _>(okm.expose())), Secret::copy_from(part::<32, 32, _>(okm.expose())))
}

/// `KDF_CK(ck) -> (ck', mk)`: one step of a symmetric chain. Both are under one key, which is taken in once.
pub(crate) fn chain_step(chain: &Secret<32>) -> (Secret<32>, Secret<32>) {
    let mac = keyed(chain);
    (finish(mac.clone(), &[2]), finish(mac, &[1]))
}

/// The `N` bytes at `AT` of an array that is long enough, which is checked at compile time.
pub(crate) fn part<const AT: usize, const N: usize, const A: usize>(whole: &[u8; A]) -> &[u8; N] {
    const { assert!(AT + N <= A) };
    whole.get(AT..).and_then(<[u8]>::first_chunk).unwrap_or(const { &[0; N] })
}

/// Cuts an array into `K` equal arrays. `A` must be `K * N`, checked at compile time.
pub(crate) fn split<const A: usize, const N: usize, const K: usize>(whole: &[u8; A]) -> [[u8; N]; K] {
    const { assert!(A == N * K) };
    let mut out = [[0; N]; K];
    for (part, bytes) in out.iter_mut().zip(whole.chunks_exact(N)) {
        part.copy_from_slice(bytes);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::e2e::armour::hex;

    #[test]
    fn chain_step_matches_the_worked_example() {
        let (next, mk) = chain_step(&Secret::copy_from(&[0; 32]));
        assert_eq!(hex(mk.expose()), "3d7afb663124ecbf2c953f863d4fc8796eeb2d372b64aad58697ec5264649cdb");
        assert_eq!(hex(next.expose()), "4ee7be0c7872360ca67414608081e9bd60fd580a7bbd209701d2a5a0b4316d0d");
    }

    #[test]
    fn root_step_matches_the_worked_example() {
        let (root, chain) = root_step(&Secret::copy_from(&[0; 32]), &Secret::copy_from(&[1; 32]));
        let (root, chain) = (hex(root.expose()), hex(chain.expose()));
        assert!(root.starts_with("e2fb0021") && root.ends_with("a91ccf"), "{root}");
        assert!(chain.starts_with("5a8a4d86") && chain.ends_with("766714"), "{chain}");
    }
}

//! What the unit tests share: the two parties of the worked example, and scripted randomness.

use super::bundle::{Bundle, KeyKind, PublicKey};
use super::cert::Certificate;
use super::contact::Contact;
use super::device_list::DeviceList;
use super::dh::DhPair;
use super::error::NoRandom;
use super::identity::{DeviceKeys, Identity};
use super::kem;
use super::name::{Address, DeviceId, User};
use super::prekeys::Prekeys;
use super::rng::Rng;
use super::secret::Secret;
use super::sign::SignKey;
use super::time::DAY;

/// The first second of both certificates.
pub(crate) const T0: u64 = 1_800_000_000;

/// A party with one device.
pub(crate) struct Sample {
    pub(crate) aik: SignKey,
    pub(crate) me: Identity,
    pub(crate) list: DeviceList,
    pub(crate) prekeys: Prekeys,
}

fn sample(name: &str, tens: u8) -> Sample {
    let key = |i: u8| Secret::copy_from(&[tens + i; 32]);
    let aik = SignKey::from_seed(&key(1));
    let address = Address { user: User::parse(name).unwrap(), device: DeviceId([tens + 2; 16]) };
    let dsk = SignKey::from_seed(&key(3));
    let dik = DhPair::from_private(key(4));
    let cert = Certificate::issue(&aik, &address, &dsk.public(), dik.public(), T0, T0 + 365 * DAY).unwrap();
    let list = DeviceList::issue(&aik, &address.user, None, &[cert.hash()]).unwrap();
    let me = DeviceKeys { address, dsk, dik }.certified(cert).unwrap();
    let mut prekeys = Prekeys::default();
    let dc = me.cert().hash();
    prekeys.insert(KeyKind::Spk, 1, &[tens + 5; 32], dc, T0).unwrap();
    prekeys.insert(KeyKind::Opk, 2, &[tens + 6; 32], dc, T0).unwrap();
    prekeys.insert(KeyKind::Pqk, 3, &[tens + 7; 64], dc, T0).unwrap();
    Sample { aik, me, list, prekeys }
}

/// Alice of the worked example.
pub(crate) fn alice() -> Sample {
    sample("alice", 0x10)
}

/// Bob of the worked example: SPK 25×32 id 1, OPK 26×32 id 2, one-time PQK seed 27×64 id 3.
pub(crate) fn bob() -> Sample {
    sample("bob", 0x20)
}

/// The bundle with all three prekeys of a sample, and the contact that believes it.
pub(crate) fn bundle_of(of: &Sample) -> (Vec<u8>, Contact) {
    let keys: Vec<_> = of
        .prekeys
        .private_keys()
        .map(|(kind, id, private)| {
            let public = match kind {
                KeyKind::Spk | KeyKind::Opk => {
                    DhPair::from_private(Secret::copy_from(private.try_into().unwrap())).public().to_vec()
                }
                KeyKind::Pqk | KeyKind::PqkLast => kem::public(&Secret::copy_from(private.try_into().unwrap())),
            };
            PublicKey::sign(kind, of.me.dsk(), &of.me.cert().hash(), id, T0, public)
        })
        .collect();
    let raw = Bundle::assemble(of.me.cert(), &keys[0], Some(&keys[1]), KeyKind::Pqk, &keys[2]);
    (raw, contact_of(of))
}

/// A contact pinned with its list.
pub(crate) fn contact_of(of: &Sample) -> Contact {
    Contact::first(of.me.user(), of.list.bytes(), &[of.me.cert().bytes()]).unwrap().0
}

/// Randomness that was written down: each `fill` takes the next block's front.
pub(crate) struct Script(Vec<[u8; 32]>);

impl Script {
    pub(crate) fn new(blocks: &[[u8; 32]]) -> Self {
        Self(blocks.iter().rev().copied().collect())
    }
}

impl Rng for Script {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), NoRandom> {
        let block = self.0.pop().ok_or(NoRandom)?;
        out.copy_from_slice(&block[..out.len()]);
        Ok(())
    }
}

/// Seeded randomness without end: a 64-bit linear congruential generator, for tests only.
pub(crate) struct Seeded(pub(crate) u64);

impl Rng for Seeded {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), NoRandom> {
        for byte in out {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = (self.0 >> 56) as u8;
        }
        Ok(())
    }
}

/// The u-coordinates of small order, with and without the top bit (curve25519 and its twist; the
/// list is Bernstein's, <https://cr.yp.to/ecdh.html>).
pub(crate) fn small_order_points() -> Vec<[u8; 32]> {
    let mut p = [0xff_u8; 32]; // 2^255 - 19, little-endian
    (p[0], p[31]) = (0xed, 0x7f);
    let plus = |n: u8| {
        let mut x = p;
        x[0] = x[0].wrapping_add(n);
        x
    };
    let mut minus_one = p;
    minus_one[0] -= 1;
    let mut one = [0_u8; 32];
    one[0] = 1;
    let order8 = [
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    ]
    .map(|h| super::armour::unhex(h).unwrap());
    let mut all = vec![[0; 32], one, minus_one, p, plus(1)];
    all.extend(order8);
    let topped: Vec<_> = all
        .iter()
        .map(|u| {
            let mut u = *u;
            u[31] |= 0x80;
            u
        })
        .collect();
    all.extend(topped);
    all
}

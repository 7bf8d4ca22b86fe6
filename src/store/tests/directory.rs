use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::protocol::{DeviceName, KeyRecord, PoolKind, PrekeyBytes};

pub(super) fn device(n: u8) -> DeviceName {
    DeviceName([n; 16])
}

/// A key of the right length whose bytes tell what it is.
pub(super) fn dh(tag: u8, id: u32) -> PrekeyBytes {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.resize(108, tag);
    PrekeyBytes { id, bytes }
}

pub(super) fn post_quantum(tag: u8, id: u32) -> PrekeyBytes {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.resize(1260, tag);
    PrekeyBytes { id, bytes }
}

pub(super) fn certificate(n: u8) -> KeyRecord {
    KeyRecord::Certificate(vec![n; 200])
}

fn signed(tag: u8) -> KeyRecord {
    KeyRecord::SignedPrekey(dh(tag, 1))
}

fn last_resort(tag: u8) -> KeyRecord {
    KeyRecord::LastResort(post_quantum(tag, 2))
}

fn dh_keys(ids: impl IntoIterator<Item = u32>) -> KeyRecord {
    KeyRecord::OneTime(PoolKind::Dh, ids.into_iter().map(|id| dh(0xd1, id)).collect())
}

fn post_quantum_keys(ids: impl IntoIterator<Item = u32>) -> KeyRecord {
    KeyRecord::OneTime(PoolKind::PostQuantum, ids.into_iter().map(|id| post_quantum(0xa1, id)).collect())
}

/// A bundle, taken apart: certificate, signed prekey, one-time key, ML-KEM key and whether it is the last.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Parts {
    certificate: Vec<u8>,
    signed: Vec<u8>,
    one_time: Option<u32>,
    post_quantum: u32,
    last: bool,
}

fn parts(bundle: &[u8]) -> Parts {
    let number = |bytes: &[u8]| u32::from_be_bytes(bytes[..4].try_into().unwrap());
    let (len, rest) = bundle.split_at(2);
    let (certificate, rest) = rest.split_at(usize::from(u16::from_be_bytes(len.try_into().unwrap())));
    let (signed, rest) = rest.split_at(108);
    let (one_time, rest) = match rest[0] {
        0 => (None, &rest[1..]),
        1 => (Some(number(&rest[1..])), &rest[109..]),
        other => panic!("{other}"),
    };
    assert_eq!(rest.len(), 1261);
    assert!(rest[0] < 2);
    Parts {
        certificate: certificate.to_vec(),
        signed: signed.to_vec(),
        one_time,
        post_quantum: number(&rest[1..]),
        last: rest[0] == 1,
    }
}

impl World {
    fn put(&mut self, who: &Person, of: u8, record: KeyRecord) -> Result<(u64, u64), Refused> {
        match self.apply(Op::PutKeys { account: who.id, device: device(of), record })? {
            Outcome::Pools(pools) => {
                assert_eq!(pools.device, device(of));
                Ok((pools.dh, pools.post_quantum))
            }
            other => panic!("{other:?}"),
        }
    }

    /// A device with everything but one-time keys.
    fn publish(&mut self, who: &Person, of: u8) {
        for record in [certificate(of), signed(of), last_resort(of)] {
            self.put(who, of, record).unwrap();
        }
    }

    fn take(&mut self, whose: &str, of: Option<u8>) -> Result<Bundles, Refused> {
        self.apply(Op::TakeBundles { subject: name(whose), device: of.map(device) }).map(|outcome| match outcome {
            Outcome::Bundles(bundles) => bundles,
            other => panic!("{other:?}"),
        })
    }

    /// The one bundle of an account with one device that has any.
    fn take_one(&mut self, whose: &str) -> Parts {
        let taken = self.take(whose, None).unwrap();
        assert_eq!(taken.bundles.len(), 1);
        parts(&taken.bundles[0].1)
    }

    fn certificates(&self, whose: &str, of: Option<u8>) -> Result<DeviceCertificates, Refused> {
        let query = Query::DeviceCertificates { subject: name(whose), device: of.map(device) };
        self.ask(query).map(|answer| match answer {
            Answer::DeviceCertificates(found) => found,
            other => panic!("{other:?}"),
        })
    }

    fn pools(&self, who: &Person) -> Vec<(u8, u64, u64)> {
        match self.ask(Query::Pools(who.id)).unwrap() {
            Answer::Pools(rows) => rows.iter().map(|row| (row.device.0[0], row.dh, row.post_quantum)).collect(),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_bundle_is_laid_out_as_clients_expect_it() {
    let mut world = World::new();
    let alice = world.person("alice");
    world.publish(&alice, 1);
    world.put(&alice, 1, KeyRecord::DeviceList(vec![0xee; 141])).unwrap();
    assert_eq!(world.put(&alice, 1, dh_keys([7])).unwrap(), (1, 0));
    assert_eq!(world.put(&alice, 1, post_quantum_keys([9])).unwrap(), (1, 1));

    let taken = world.take("alice", None).unwrap();
    assert_eq!((&taken.person, taken.list.as_deref()), (&alice, Some([0xee; 141].as_slice())));
    let (name, bundle) = &taken.bundles[0];
    let wanted =
        [[0, 200].as_slice(), &[1; 200], &dh(1, 1).bytes, &[1], &dh(0xd1, 7).bytes, &[0], &post_quantum(0xa1, 9).bytes];
    assert_eq!((name, bundle), (&device(1), &wanted.concat()));
    assert_eq!(bundle.len(), 1680);
    assert_eq!(taken.left, [Pools { device: device(1), dh: 0, post_quantum: 0 }]);

    let again = world.take("alice", None).unwrap();
    let wanted = [[0, 200].as_slice(), &[1; 200], &dh(1, 1).bytes, &[0], &[1], &post_quantum(1, 2).bytes];
    assert_eq!(again.bundles[0].1, wanted.concat(), "without one-time keys: the key of last resort");
    assert_eq!(world.take("alice", None).unwrap().bundles, again.bundles, "which stays");
}

#[test]
fn one_time_keys_are_handed_out_once_and_lowest_first() {
    let mut world = World::new();
    let alice = world.person("alice");
    world.publish(&alice, 1);
    world.put(&alice, 1, dh_keys([30, 10, 20])).unwrap();
    world.put(&alice, 1, post_quantum_keys([12, 11])).unwrap();
    let mut taken = Vec::new();
    for _ in 0..4 {
        let Parts { one_time, post_quantum, last, .. } = world.take_one("alice");
        taken.push((one_time, post_quantum, last));
    }
    assert_eq!(taken, [(Some(10), 11, false), (Some(20), 12, false), (Some(30), 2, true), (None, 2, true)]);
    assert_eq!(world.pools(&alice), [(1, 0, 0)]);
}

/// A client whose connection broke before the answer puts the same record again.
#[test]
fn what_was_handed_out_never_comes_back() {
    let mut world = World::new();
    let alice = world.person("alice");
    world.publish(&alice, 1);
    let records = [dh_keys(1..=5), post_quantum_keys(6..=8)];
    for record in records.clone() {
        world.put(&alice, 1, record).unwrap();
    }
    assert_eq!(world.take_one("alice").one_time, Some(1));
    assert_eq!(world.take_one("alice").post_quantum, 7);
    for record in records.clone() {
        assert_eq!(world.put(&alice, 1, record).unwrap(), (3, 1));
    }
    // Nor under a renewed certificate, which drops what waits; the device goes on counting.
    world.put(&alice, 1, certificate(9)).unwrap();
    for record in [signed(9), last_resort(9)].into_iter().chain(records) {
        world.put(&alice, 1, record).unwrap();
    }
    assert_eq!(world.pools(&alice), [(1, 3, 1)]);
    let Parts { one_time, post_quantum, .. } = world.take_one("alice");
    assert_eq!((one_time, post_quantum), (Some(3), 8));
    assert_eq!(world.put(&alice, 1, dh_keys(100..=101)).unwrap(), (4, 0));
    assert_eq!(world.take_one("alice").one_time, Some(4));
    // The mark is that of one pool.
    assert_eq!(world.put(&alice, 1, post_quantum_keys([9])).unwrap(), (3, 1));
}

#[test]
fn ids_reach_as_far_as_their_four_bytes() {
    let mut world = World::new();
    let alice = world.person("alice");
    for of in [1, 2] {
        world.publish(&alice, of);
        world.put(&alice, of, dh_keys([u32::MAX - 1, 1])).unwrap();
        world.put(&alice, of, post_quantum_keys([u32::MAX - 1, 1])).unwrap();
    }
    for wanted in [1, u32::MAX - 1] {
        let taken = world.take("alice", None).unwrap();
        for (_, bundle) in &taken.bundles {
            let Parts { one_time, post_quantum, .. } = parts(bundle);
            assert_eq!((one_time, post_quantum), (Some(wanted), wanted));
        }
        assert_eq!(taken.bundles.len(), 2);
    }
    assert_eq!(world.pools(&alice), [(1, 0, 0), (2, 0, 0)]);
    assert_eq!(world.put(&alice, 1, dh_keys([u32::MAX - 1])).unwrap(), (0, 0));
}

#[test]
fn a_device_that_lacks_a_part_is_left_out_and_loses_nothing() {
    let mut world = World::new();
    let alice = world.person("alice");
    assert!(world.take("alice", None).unwrap().bundles.is_empty());
    world.put(&alice, 1, certificate(1)).unwrap();
    world.put(&alice, 1, dh_keys([1])).unwrap();
    world.put(&alice, 1, post_quantum_keys([2])).unwrap();
    world.put(&alice, 2, certificate(2)).unwrap();
    world.put(&alice, 2, signed(2)).unwrap();
    world.put(&alice, 2, dh_keys([1])).unwrap();
    world.publish(&alice, 3);
    let taken = world.take("alice", None).unwrap();
    let names = |bundles: &Bundles| bundles.bundles.iter().map(|(name, _)| name.0[0]).collect::<Vec<_>>();
    assert_eq!((names(&taken), taken.left.len()), (vec![3], 1));
    assert_eq!(world.pools(&alice), [(1, 1, 1), (2, 1, 0), (3, 0, 0)], "nothing was taken");
    let all: Vec<_> = world.certificates("alice", None).unwrap().certificates;
    assert_eq!(all.iter().map(|(name, _)| name.0[0]).collect::<Vec<_>>(), [1, 2, 3]);

    world.put(&alice, 1, signed(1)).unwrap();
    world.put(&alice, 2, last_resort(2)).unwrap();
    let taken = world.take("alice", None).unwrap();
    assert_eq!(names(&taken), [1, 2, 3], "by device");
    let parts: Vec<_> = taken.bundles.iter().map(|(_, bundle)| parts(bundle)).collect();
    assert_eq!((parts[0].one_time, parts[0].post_quantum, parts[0].last), (Some(1), 2, false));
    assert_eq!((parts[1].one_time, parts[1].post_quantum, parts[1].last), (Some(1), 2, true));
}

#[test]
fn one_device_can_be_asked_for() {
    let mut world = World::new();
    let [alice, _] = world.people(["alice", "bob"]);
    for of in [1, 2] {
        world.publish(&alice, of);
        world.put(&alice, of, dh_keys([1, 2])).unwrap();
    }
    let taken = world.take("alice", Some(2)).unwrap();
    assert_eq!(taken.bundles.iter().map(|(name, _)| *name).collect::<Vec<_>>(), [device(2)]);
    assert_eq!(taken.left, [Pools { device: device(2), dh: 1, post_quantum: 0 }]);
    assert_eq!(world.pools(&alice), [(1, 2, 0), (2, 1, 0)]);
    assert_eq!(world.certificates("alice", Some(1)).unwrap().certificates, [(device(1), vec![1; 200])]);

    assert_eq!(world.take("alice", Some(3)).unwrap_err(), Refused::NotFound);
    assert_eq!(world.certificates("alice", Some(3)).unwrap_err(), Refused::NotFound);
    assert_eq!(world.take("bob", Some(1)).unwrap_err(), Refused::NotFound);
    assert_eq!(world.take("nobody", None).unwrap_err(), Refused::NoSuchUser);
    assert_eq!(world.certificates("nobody", None).unwrap_err(), Refused::NoSuchUser);
    let found = world.certificates("bob", None).unwrap();
    assert!(found.list.is_none() && found.certificates.is_empty());
}

#[test]
fn another_certificate_drops_the_prekeys_and_the_same_one_nothing() {
    let mut world = World::new();
    let alice = world.person("alice");
    world.publish(&alice, 1);
    world.publish(&alice, 2);
    world.put(&alice, 1, dh_keys(1..=3)).unwrap();
    world.put(&alice, 1, post_quantum_keys(1..=3)).unwrap();
    world.put(&alice, 2, dh_keys(1..=3)).unwrap();
    assert_eq!(world.put(&alice, 1, certificate(1)).unwrap(), (3, 3));
    assert_eq!(world.take("alice", Some(1)).unwrap().bundles.len(), 1);

    assert_eq!(world.put(&alice, 1, certificate(9)).unwrap(), (0, 0));
    assert!(world.take("alice", Some(1)).unwrap().bundles.is_empty(), "also signed prekey and last resort");
    assert_eq!(world.certificates("alice", Some(1)).unwrap().certificates[0].1, [9; 200]);
    assert_eq!(world.pools(&alice), [(1, 0, 0), (2, 3, 0)], "another device keeps its own");
    assert_eq!(world.rows("prekey"), 3);
}

#[test]
fn signed_prekey_last_resort_and_list_are_replaced() {
    let mut world = World::new();
    let alice = world.person("alice");
    world.put(&alice, 1, KeyRecord::DeviceList(vec![1; 137])).unwrap();
    assert_eq!(world.certificates("alice", None).unwrap().list.unwrap(), [1; 137], "also before a certificate");
    world.publish(&alice, 1);
    world.put(&alice, 1, signed(0x51)).unwrap();
    world.put(&alice, 1, last_resort(0x52)).unwrap();
    world.put(&alice, 1, KeyRecord::DeviceList(vec![2; 169])).unwrap();
    let taken = world.take("alice", None).unwrap();
    assert_eq!(taken.list.unwrap(), [2; 169]);
    let wanted = [[0, 200].as_slice(), &[1; 200], &dh(0x51, 1).bytes, &[0], &[1], &post_quantum(0x52, 2).bytes];
    assert_eq!(taken.bundles[0].1, wanted.concat());
}

#[test]
fn pools_and_devices_are_bounded() {
    let mut world = World::new();
    let alice = world.person("alice");
    world.publish(&alice, 1);
    assert_eq!(world.put(&alice, 1, dh_keys(1..=80)).unwrap(), (80, 0));
    assert_eq!(world.put(&alice, 1, dh_keys(41..=140)).unwrap(), (100, 0), "those that come when it is full");
    assert_eq!(world.put(&alice, 1, dh_keys(101..=140)).unwrap(), (100, 0));
    assert_eq!(world.put(&alice, 1, post_quantum_keys(1..=50)).unwrap(), (100, 50));
    assert_eq!(world.put(&alice, 1, post_quantum_keys(51..=90)).unwrap(), (100, 50));
    // The first that came are in, the others are not; they may be put again.
    for wanted in 1..=100 {
        assert_eq!(world.take_one("alice").one_time, Some(wanted));
    }
    assert_eq!(world.take_one("alice").one_time, None);
    assert_eq!(world.put(&alice, 1, dh_keys(81..=140)).unwrap(), (40, 0));
    assert_eq!(world.take_one("alice").one_time, Some(101));

    for of in 2..=16 {
        world.put(&alice, of, certificate(of)).unwrap();
    }
    assert_eq!(world.put(&alice, 17, certificate(17)).unwrap_err(), Refused::Quota(16));
    assert_eq!(world.put(&alice, 16, certificate(61)).unwrap(), (0, 0), "not a new device");
    world.put(&alice, 3, KeyRecord::Forget).unwrap();
    assert_eq!(world.put(&alice, 17, certificate(17)).unwrap(), (0, 0));
    assert_eq!(world.pools(&alice).len(), 16);
}

#[test]
fn prekeys_need_a_certificate() {
    let mut world = World::new();
    let [alice, bob] = world.people(["alice", "bob"]);
    world.publish(&bob, 1);
    for record in [signed(1), last_resort(1), dh_keys([1]), post_quantum_keys([1])] {
        assert_eq!(world.put(&alice, 1, record).unwrap_err(), Refused::NotFound, "another's is none");
    }
    assert_eq!(world.put(&alice, 1, KeyRecord::Forget).unwrap(), (0, 0), "forgotten twice is forgotten");
    assert_eq!((world.rows("prekey"), world.rows("device")), (0, 1));
}

#[test]
fn a_forgotten_device_begins_anew() {
    let mut world = World::new();
    let alice = world.person("alice");
    world.publish(&alice, 1);
    world.publish(&alice, 2);
    for of in [1, 2] {
        world.put(&alice, of, dh_keys(1..=3)).unwrap();
        world.put(&alice, of, post_quantum_keys(1..=3)).unwrap();
    }
    world.take("alice", None).unwrap();
    assert_eq!(world.put(&alice, 1, KeyRecord::Forget).unwrap(), (0, 0));
    assert_eq!(world.pools(&alice), [(2, 2, 2)]);
    assert_eq!((world.rows("prekey"), world.rows("pool"), world.rows("device")), (4, 2, 1));
    assert_eq!(world.put(&alice, 1, dh_keys([9])).unwrap_err(), Refused::NotFound);
    world.publish(&alice, 1);
    assert_eq!(world.pools(&alice), [(1, 0, 0), (2, 2, 2)]);
}

#[test]
fn an_erased_account_leaves_no_keys() {
    let mut world = World::new();
    let [alice, bob] = world.people(["alice", "bob"]);
    for who in [&alice, &bob] {
        for of in [1, 2] {
            world.publish(who, of);
            world.put(who, of, dh_keys(1..=9)).unwrap();
            world.put(who, of, post_quantum_keys(1..=9)).unwrap();
        }
        world.put(who, 1, KeyRecord::DeviceList(vec![1; 169])).unwrap();
        world.take(who.name.as_str(), None).unwrap();
    }
    world.unregister(&alice);
    for (table, rows) in [("device", 2), ("device_list", 1), ("prekey", 32), ("pool", 4)] {
        assert_eq!(world.rows(table), rows, "{table}: only the other's are left");
    }
    assert_eq!(world.take("alice", None).unwrap_err(), Refused::NoSuchUser);
    assert_eq!(world.put(&alice, 1, certificate(1)).unwrap_err(), Refused::AuthFailed, "a session that lags behind");
    assert_eq!(world.rows("device"), 2);
    assert_eq!(world.pools(&bob), [(1, 8, 8), (2, 8, 8)]);
}

// ---- against a naive oracle ----

#[derive(Debug, Clone)]
enum Act {
    Certificate(usize, u8, u8),
    Forget(usize, u8),
    Signed(usize, u8, u8),
    Last(usize, u8, u8),
    OneTime(usize, u8, PoolKind, Vec<u32>),
    Take(usize, Option<u8>),
    /// What follows is one batch; it is kept or lost at the next of these.
    Batch(bool),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let who = || (0..2usize, 0..3u8);
    let kind = prop_oneof![Just(PoolKind::Dh), Just(PoolKind::PostQuantum)];
    let act = prop_oneof![
        3 => (who(), 0..3u8).prop_map(|((who, of), tag)| Act::Certificate(who, of, tag)),
        1 => who().prop_map(|(who, of)| Act::Forget(who, of)),
        4 => (who(), 0..3u8).prop_map(|((who, of), tag)| Act::Signed(who, of, tag)),
        3 => (who(), 0..3u8).prop_map(|((who, of), tag)| Act::Last(who, of, tag)),
        8 => (who(), kind, proptest::collection::vec(1..40u32, 1..20))
            .prop_map(|((who, of), kind, ids)| Act::OneTime(who, of, kind, ids)),
        1 => (who(), 1..90u32).prop_map(|((who, of), from)| {
            Act::OneTime(who, of, PoolKind::Dh, (from..from + 100).collect())
        }),
        12 => (0..2usize, proptest::option::of(0..3u8)).prop_map(|(who, of)| Act::Take(who, of)),
        2 => any::<bool>().prop_map(Act::Batch),
    ];
    proptest::collection::vec(act, 1..120)
}

#[derive(Debug, Clone, Default)]
struct Shelf {
    certificate: u8,
    signed: Option<u8>,
    last: Option<u8>,
    /// What waits of each kind, and every id that was ever handed out.
    pools: BTreeMap<PoolKind, BTreeSet<u32>>,
    gone: BTreeMap<PoolKind, BTreeSet<u32>>,
}

impl Shelf {
    fn pop(&mut self, kind: PoolKind) -> Option<u32> {
        let id = self.pools.entry(kind).or_default().pop_first()?;
        assert!(self.gone.entry(kind).or_default().insert(id), "{kind:?} {id} was handed out twice");
        Some(id)
    }

    fn sizes(&self) -> (u64, u64) {
        let size = |kind| self.pools.get(&kind).map_or(0, |pool| pool.len() as u64);
        (size(PoolKind::Dh), size(PoolKind::PostQuantum))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_directory_is_what_a_naive_one_is(acts in acts()) {
        let mut world = World::new();
        let people = world.people(["anna", "ben"]);
        let mut oracle: BTreeMap<(usize, u8), Shelf> = BTreeMap::new();
        let mut kept = oracle.clone();
        world.engine.begin().unwrap();
        for act in acts {
            let put = match &act {
                Act::Certificate(who, of, tag) => {
                    let shelf = oracle.entry((*who, *of)).or_default();
                    let same = shelf.certificate == *tag + 1;
                    if !same {
                        let gone = std::mem::take(&mut shelf.gone);
                        *shelf = Shelf { certificate: *tag + 1, gone, ..Shelf::default() };
                    }
                    Some((*who, *of, certificate(*tag + 1)))
                }
                Act::Forget(who, of) => {
                    oracle.remove(&(*who, *of));
                    Some((*who, *of, KeyRecord::Forget))
                }
                Act::Signed(who, of, tag) => {
                    oracle.entry((*who, *of)).and_modify(|shelf| shelf.signed = Some(*tag));
                    Some((*who, *of, signed(*tag)))
                }
                Act::Last(who, of, tag) => {
                    oracle.entry((*who, *of)).and_modify(|shelf| shelf.last = Some(*tag));
                    Some((*who, *of, last_resort(*tag)))
                }
                Act::OneTime(who, of, kind, ids) => {
                    oracle.entry((*who, *of)).and_modify(|shelf| {
                        let above = shelf.gone.entry(*kind).or_default().last().copied().unwrap_or(0);
                        let pool = shelf.pools.entry(*kind).or_default();
                        let capacity = if *kind == PoolKind::Dh { 100 } else { 50 };
                        for id in ids {
                            if *id > above && pool.len() < capacity {
                                pool.insert(*id);
                            }
                        }
                    });
                    let record = match kind {
                        PoolKind::Dh => dh_keys(ids.iter().copied()),
                        PoolKind::PostQuantum => post_quantum_keys(ids.iter().copied()),
                    };
                    Some((*who, *of, record))
                }
                Act::Take(who, of) => {
                    let taken = world.take(people[*who].name.as_str(), *of);
                    let known = |of: &u8| oracle.contains_key(&(*who, *of));
                    if of.as_ref().is_some_and(|of| !known(of)) {
                        prop_assert_eq!(taken.unwrap_err(), Refused::NotFound);
                        continue;
                    }
                    let taken = taken.unwrap();
                    let mut wanted = Vec::new();
                    let mut left = Vec::new();
                    for ((_, name), shelf) in oracle.range_mut((*who, 0)..=(*who, u8::MAX)) {
                        let has_any = shelf.last.is_some() || shelf.sizes().1 > 0;
                        let (Some(signed), true, true) = (shelf.signed, has_any, of.is_none_or(|of| of == *name)) else {
                            continue;
                        };
                        let one_time = shelf.pop(PoolKind::Dh);
                        let post = shelf.pop(PoolKind::PostQuantum);
                        let parts = Parts {
                            certificate: vec![shelf.certificate; 200],
                            signed: dh(signed, 1).bytes,
                            one_time,
                            post_quantum: post.unwrap_or(2),
                            last: post.is_none(),
                        };
                        wanted.push((device(*name), parts));
                        let (dh, post_quantum) = shelf.sizes();
                        left.push(Pools { device: device(*name), dh, post_quantum });
                    }
                    let found: Vec<_> = taken.bundles.iter().map(|(name, bundle)| (*name, parts(bundle))).collect();
                    prop_assert_eq!(found, wanted);
                    prop_assert_eq!(taken.left, left);
                    None
                }
                Act::Batch(keep) => {
                    if *keep {
                        world.engine.commit().unwrap();
                        kept = oracle.clone();
                    } else {
                        world.engine.rollback();
                        oracle = kept.clone();
                    }
                    world.engine.begin().unwrap();
                    None
                }
            };
            if let Some((who, of, record)) = put {
                let found = world.put(&people[who], of, record);
                match oracle.get(&(who, of)) {
                    Some(shelf) => prop_assert_eq!(found, Ok(shelf.sizes())),
                    None if matches!(act, Act::Forget(..)) => prop_assert_eq!(found, Ok((0, 0))),
                    None => prop_assert_eq!(found, Err(Refused::NotFound)),
                }
            }
        }
        for (who, person) in people.iter().enumerate() {
            let mine = oracle.iter().filter(|((account, _), _)| *account == who);
            let wanted: Vec<_> = mine.map(|((_, of), shelf)| (*of, shelf.sizes().0, shelf.sizes().1)).collect();
            prop_assert_eq!(world.pools(person), wanted);
        }
        let waiting: u64 = oracle.values().map(|shelf| shelf.sizes().0 + shelf.sizes().1).sum();
        prop_assert_eq!(world.rows("prekey"), waiting as i64);
        prop_assert_eq!(world.rows("device"), oracle.len() as i64);
    }
}

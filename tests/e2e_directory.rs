//! What the key directory shows: bundles, lists, certificates, records, and linking a device.
#![cfg(feature = "client")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

#[path = "e2e_common/mod.rs"]
mod common;

use common::e2e::bundle::{Bundle, Record};
use common::e2e::cert::Certificate;
use common::e2e::contact::{Contact, ListError};
use common::e2e::device_list::DeviceList;
use common::e2e::error::{Error, SealError};
use common::e2e::link::{self, Code, Pending, PinnedAccount, Request};
use common::e2e::name::Address;
use common::e2e::rng::Rng;
use common::e2e::sign::SignKey;
use common::*;

fn bob_and_contact(seed: u64) -> (World, Device, Contact) {
    let mut world = World::new(seed);
    let b = world.device("bob");
    let contact = b.state.contacts[&user("bob")].clone();
    (world, b, contact)
}

#[test]
fn a_bundle_is_verified_byte_for_byte() {
    let (mut world, b, contact) = bob_and_contact(1);
    let raw = world.directory.bundle(b.me());
    assert_eq!(raw.len(), 1680 - 2, "1680 bytes for alice");
    assert!(Bundle::verify(&raw, &contact, at(1)).is_ok());
    for i in 0..raw.len() {
        for mask in [0x01, 0x80] {
            let mut bad = raw.clone();
            bad[i] ^= mask;
            assert!(Bundle::verify(&bad, &contact, at(1)).is_err(), "byte {i}");
        }
    }
    for n in 0..raw.len() {
        assert_eq!(Bundle::verify(&raw[..n], &contact, at(1)), Err(Error::Syntax));
    }
}

#[test]
fn one_kind_of_key_is_not_served_as_another() {
    let (mut world, b, contact) = bob_and_contact(2);
    let raw = world.directory.bundle(b.me());
    let (cert_end, key) = (2 + usize::from(u16::from_be_bytes([raw[0], raw[1]])), 108);
    let spk = raw[cert_end..cert_end + key].to_vec();
    let opk = raw[cert_end + key + 1..cert_end + 2 * key + 1].to_vec();
    let mut swapped = raw.clone();
    swapped[cert_end..cert_end + key].copy_from_slice(&opk);
    assert_eq!(Bundle::verify(&swapped, &contact, at(1)), Err(Error::Signature), "OPK as SPK");
    let mut swapped = raw.clone();
    swapped[cert_end + key + 1..cert_end + 2 * key + 1].copy_from_slice(&spk);
    assert_eq!(Bundle::verify(&swapped, &contact, at(1)), Err(Error::Signature), "SPK as OPK");
    let mut swapped = raw.clone();
    swapped[cert_end + 2 * key + 1] ^= 1;
    assert_eq!(Bundle::verify(&swapped, &contact, at(1)), Err(Error::Signature), "one-time as last resort");
}

#[test]
fn stale_bundles_and_expired_certificates_are_refused() {
    let (mut world, b, contact) = bob_and_contact(3);
    let raw = world.directory.bundle(b.me());
    assert!(Bundle::verify(&raw, &contact, at(30 * DAY)).is_ok());
    assert_eq!(Bundle::verify(&raw, &contact, at(30 * DAY + 1)), Err(Error::Clock));
    assert_eq!(Bundle::verify(&raw, &contact, common::e2e::time::Now::from_secs(T0 - DAY)).map(|_| ()), Ok(()));
    let early = common::e2e::time::Now::from_secs(T0 - DAY - 1);
    assert_eq!(Bundle::verify(&raw, &contact, early), Err(Error::UnlistedDevice));
    assert_eq!(Bundle::verify(&raw, &contact, at(YEAR + 1)), Err(Error::UnlistedDevice));
    let nobody = Contact::pinned(&user("bob"), [1; 32]);
    assert_eq!(Bundle::verify(&raw, &nobody, at(1)), Err(Error::Identity));
}

#[test]
fn ghost_devices_are_not_sealed_to() {
    let mut world = World::new(4);
    let (mut a, b) = (world.device("alice"), world.device("bob"));
    world.learn(&mut a, &user("bob"), at(1));
    let pinned = a.state.contacts[&user("bob")].clone();
    let old_list = world.directory.list(&user("bob"));
    let b2 = world.device("bob");
    let (list, certs) = (world.directory.list(&user("bob")), world.directory.certs(&user("bob")));
    let refs: Vec<&[u8]> = certs.iter().map(Vec::as_slice).collect();
    // Of the right account but not in the list.
    let (same, change) = pinned.learn(&old_list, &refs).unwrap();
    assert_eq!((same.current(at(1)).count(), change.added.len()), (1, 0));
    let ghost = world.directory.bundle(b2.me());
    assert_eq!(Bundle::verify(&ghost, &pinned, at(1)), Err(Error::UnlistedDevice));
    // The new list, then the old one again, then another of the same number.
    let (newer, change) = pinned.learn(&list, &refs).unwrap();
    assert_eq!(change.added, [b2.me().device]);
    assert_eq!(newer.learn(&old_list, &refs).unwrap_err(), ListError::Equivocation);
    let account = world.accounts[&user("bob")].clone();
    let first = DeviceList::verify(&old_list, &user("bob"), &account.aik.public()).unwrap();
    let beside = DeviceList::issue(&account.aik, &user("bob"), Some(&first), first.certs()).unwrap();
    assert_eq!(newer.learn(beside.bytes(), &refs).unwrap_err(), ListError::Equivocation);
    // One further, on another list before it.
    let unchained = DeviceList::issue(&account.aik, &user("bob"), Some(&beside), first.certs()).unwrap();
    assert_eq!(newer.learn(unchained.bytes(), &refs).unwrap_err(), ListError::Equivocation);
    // Signed by somebody else, or another user's.
    let forged = DeviceList::issue(&SignKey::draw(&mut world.rng).unwrap(), &user("bob"), Some(&first), first.certs());
    assert_eq!(newer.learn(forged.unwrap().bytes(), &refs).unwrap_err(), ListError::Refused(Error::Signature));
    // A withheld certificate is counted, and comes later under the same list.
    let (less, change) = pinned.learn(&list, &[b.state.me.cert().bytes()]).unwrap();
    assert_eq!((change.missing, less.current(at(1)).count()), (1, 1));
    let (more, change) = less.learn(&list, &refs).unwrap();
    assert_eq!((change.missing, change.added.len(), more.current(at(1)).count()), (0, 1, 2));
}

#[test]
fn one_device_id_stands_for_one_device() {
    let mut world = World::new(5);
    let b = world.device("bob");
    let account = &world.accounts[&user("bob")];
    let again = Certificate::issue(&account.aik, b.me(), &[1; 32], &[2; 32], T0, T0 + YEAR).unwrap();
    let hashes = [b.state.me.cert().hash(), again.hash()];
    let list = DeviceList::issue(&account.aik, &user("bob"), account.list.as_ref(), &hashes).unwrap();
    let certs = [b.state.me.cert().bytes(), again.bytes()];
    let contact = &b.state.contacts[&user("bob")];
    assert_eq!(contact.learn(list.bytes(), &certs).unwrap_err(), ListError::DuplicateDevice);
}

#[test]
fn a_renewed_certificate_keeps_the_sessions() {
    let mut world = World::new(6);
    let (mut a, mut b) = (world.device("alice"), world.device("bob"));
    let line = world.say(&mut a, "bob", "one", at(1));
    b.open(&line, at(1)).unwrap();
    world.learn(&mut b, &user("alice"), at(1));
    let line = world.say(&mut b, "alice", "two", at(1));
    a.open(&line, at(1)).unwrap();
    // Bob is certified anew.
    let account = world.accounts.get_mut(&user("bob")).unwrap();
    let old = b.state.me.cert().clone();
    let cert = Certificate::issue(&account.aik, b.me(), old.dsk(), old.dik(), T0 + DAY, T0 + YEAR + DAY).unwrap();
    account.certs = vec![cert.clone()];
    world.relist("bob");
    world.directory.put(&user("bob"), &Record::Certificate(cert.clone()).to_bytes(b.me().device));
    b.state.me = b.state.me.renewed(cert).unwrap();
    assert!(b.state.prekeys.rotation_due(&b.state.me, at(2 * DAY)));
    let (prekeys, mut records) = b.state.prekeys.rotate(&b.state.me, at(2 * DAY), &mut b.rng).unwrap();
    let (prekeys, more) = prekeys.refill(&b.state.me, (0, 0), at(2 * DAY), &mut b.rng).unwrap();
    records.extend(more);
    b.state.prekeys = prekeys;
    assert!(!b.state.prekeys.rotation_due(&b.state.me, at(2 * DAY)));
    for record in records {
        world.directory.put(&user("bob"), &record.to_bytes(b.me().device));
    }
    let news = world.learn(&mut a, &user("bob"), at(2 * DAY));
    assert!(news.added.is_empty() && news.dropped.is_empty());
    let line = world.say(&mut a, "bob", "three", at(2 * DAY));
    assert_eq!(b.text(&line, at(2 * DAY)), "three");
    // A stranger starts with the new certificate; a handshake over the old one still opens.
    let mut c = world.device("carol");
    let line = world.say(&mut c, "bob", "four", at(2 * DAY));
    assert_eq!(b.text(&line, at(2 * DAY)), "four");
}

#[test]
fn records_are_what_was_written() {
    let (mut world, b, _) = bob_and_contact(7);
    let (device, me) = (b.me().device, &b.state.me);
    let (prekeys, mut records) = b.state.prekeys.rotate(me, at(1), &mut world.rng).unwrap();
    let (_, more) = prekeys.refill(me, (24, 24), at(1), &mut world.rng).unwrap();
    records.extend(more);
    records.push(Record::Certificate(me.cert().clone()));
    records.push(Record::List(world.accounts[&user("bob")].list.clone().unwrap()));
    records.push(Record::Forget);
    for record in records {
        let raw = record.to_bytes(device);
        assert_eq!(Record::parse(&raw), Ok((device, record)));
        assert!(common::e2e::armour::base64(&raw).len() < 98_304);
        let mut bad = raw.clone();
        bad[0] = 0;
        assert!(Record::parse(&bad).is_err());
        bad[..2].copy_from_slice(&[1, 0x16]);
        assert!(Record::parse(&bad).is_err());
        assert!(Record::parse(&[&raw[..], &[0]].concat()).is_err());
    }
    // A pool with enough keys is left alone.
    assert!(prekeys.refill(me, (25, 25), at(1), &mut world.rng).unwrap().1.is_empty());
}

#[test]
fn replaced_prekeys_serve_thirty_days_more() {
    let mut world = World::new(8);
    let (mut a, mut b) = (world.device("alice"), world.device("bob"));
    world.learn(&mut b, &user("alice"), at(1));
    let line = world.say(&mut a, "bob", "late", at(1));
    let (prekeys, _) = b.state.prekeys.rotate(&b.state.me, at(7 * DAY), &mut b.rng).unwrap();
    b.state.prekeys = prekeys;
    let mut later = b.clone();
    assert_eq!(b.text(&line, at(37 * DAY)), "late");
    assert_eq!(later.refuses(&line, at(37 * DAY + 1)), Error::NoPrekey);
    later.state.prekeys = later.state.prekeys.expire(at(37 * DAY + 1));
    assert_eq!(later.refuses(&line, at(1)), Error::NoPrekey);
}

#[test]
fn a_device_is_linked() {
    let mut world = World::new(9);
    let a = world.device("alice");
    let pending = Pending::begin(&user("alice"), at(10), &mut world.rng).unwrap();
    let request = Request::parse(pending.request()).unwrap();
    assert_eq!(pending.request().len(), 2 + 16 + 3 * 32);
    let shown = pending.code().show().to_string();
    assert_eq!(shown.replace('-', "").len(), 52);
    let code = Code::parse(&shown.to_lowercase().replace('-', " ")).unwrap();
    assert!(code.names(&request) && code == pending.code());

    // The primary device certifies what the request names.
    let account = &world.accounts[&user("alice")];
    let address = Address { user: user("alice"), device: request.device };
    let cert = Certificate::issue(&account.aik, &address, &request.dsk, &request.dik, T0, T0 + YEAR).unwrap();
    let hashes = [a.state.me.cert().hash(), cert.hash()];
    let list = DeviceList::issue(&account.aik, &user("alice"), account.list.as_ref(), &hashes).unwrap();
    let pins = [PinnedAccount { user: user("bob"), aik: [7; 32], verified: true }];
    let answer = link::answer(&request, &code, &cert, &list, &pins, &mut world.rng).unwrap();
    let linked = pending.finish(&answer, at(10 + 600)).unwrap();
    assert_eq!((linked.me.address(), &linked.list, &linked.pins[..]), (&address, &list, &pins[..]));

    assert_eq!(pending.finish(&answer, at(10 + 601)).unwrap_err(), Error::Clock);
    for i in 0..answer.len() {
        let mut bad = answer.clone();
        bad[i] ^= 0x01;
        assert!(pending.finish(&bad, at(11)).is_err(), "byte {i}");
    }
    // Another request under the same code, another code, a certificate for other keys, no listing.
    let other = Pending::begin(&user("alice"), at(10), &mut world.rng).unwrap();
    let swapped = Request::parse(other.request()).unwrap();
    let identity = Err(SealError::Bundle(Error::Identity));
    assert_eq!(link::answer(&swapped, &code, &cert, &list, &pins, &mut world.rng), identity);
    assert_eq!(link::answer(&swapped, &other.code(), &cert, &list, &pins, &mut world.rng), identity);
    let unlisted = account.list.as_ref().unwrap();
    assert_eq!(link::answer(&request, &code, &cert, unlisted, &pins, &mut world.rng), identity);
    assert_eq!(other.finish(&answer, at(11)).unwrap_err(), Error::NotForThisDevice);
    // Who does not know s makes no answer.
    let mut guess = [0; 32];
    world.rng.fill(&mut guess).unwrap();
    let mut text = shown.replace('-', "");
    text.replace_range(30..31, if &text[30..31] == "A" { "B" } else { "A" });
    let wrong = Code::parse(&text).unwrap();
    assert!(wrong.names(&request));
    let answer = link::answer(&request, &wrong, &cert, &list, &pins, &mut world.rng).unwrap();
    assert_eq!(pending.finish(&answer, at(11)).unwrap_err(), Error::Commit);
}

#[test]
fn debug_output_holds_no_secret() {
    let mut world = World::new(10);
    let (mut a, mut b) = (world.device("alice"), world.device("bob"));
    let line = world.say(&mut a, "bob", "x", at(1));
    b.open(&line, at(1)).unwrap();
    let pending = Pending::begin(&user("alice"), at(1), &mut world.rng).unwrap();
    let shown = format!("{:?} {:?} {:?}", a.state, b.state, pending);
    let secrets = [*a.state.me.dsk().seed().expose(), *a.state.me.dik().private().expose()];
    let prekeys = b.state.prekeys.private_keys().map(|(_, _, key)| key[..32].try_into().unwrap());
    for secret in secrets.into_iter().chain(prekeys) {
        assert!(!shown.contains(&format!("{secret:?}")) && !shown.contains(&common::e2e::armour::hex(&secret)));
    }
    assert!(!shown.contains(&format!("{:?}", pending.code().show().as_str())));
}

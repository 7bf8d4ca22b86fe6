//! The forms: whatever is parsed out of bytes or text.

use downstream::protocol::keys::KeyUpload;
use downstream::protocol::{self as wire, is_envelope};

use super::common::e2e::bundle::{Bundle, Record};
use super::common::e2e::cert::Certificate;
use super::common::e2e::descriptor::{Descriptor, safe_name};
use super::common::e2e::device_list::DeviceList;
use super::common::e2e::envelope::{Envelope, Slot};
use super::common::e2e::error::Error;
use super::common::e2e::file::{HEADER, Layout, Receiver, SEALED_CHUNK, Sealer};
use super::common::e2e::inner::{Body, Inner};
use super::common::e2e::keyslot::{Cost, Dek, Place, SlotError};
use super::common::e2e::link::{self, Code, PinnedAccount, Request};
use super::common::e2e::name::{Address, RoomName, User};
use super::common::e2e::secret::Secret;
use super::common::e2e::send::Answers;
use super::common::e2e::time::Now;
use super::common::e2e::{armour, padding};
use super::common::{DAY, Seeded, T0, at, user};
use super::scene::{NOW, Scene, USERS, days_later, scene};

/// Base64, base32, hexadecimal, names: the first byte chooses.
pub(crate) fn text(data: &[u8]) {
    let [which, bytes @ ..] = data else { return };
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match which % 6 {
        0 => {
            if let Ok(raw) = armour::unbase64(text) {
                assert_eq!(armour::base64(&raw), text, "a second spelling");
            }
        }
        1 => match armour::envelope(text) {
            Ok(raw) => {
                assert_eq!(armour::body(&raw), text);
                assert_eq!(is_envelope(text), !raw.is_empty(), "the server sees it otherwise");
            }
            Err(error) => {
                assert!(matches!(error, Error::Plain | Error::Syntax));
                assert!(!is_envelope(text) || text.len() > 98_304, "the server sees it otherwise");
            }
        },
        2 => {
            if let Ok(raw) = armour::unhex::<16>(text) {
                assert_eq!(armour::hex(&raw), text);
            }
        }
        3 => {
            if let Ok(code) = Code::parse(text) {
                assert_eq!(Code::parse(&code.show()), Ok(code));
            }
        }
        4 => names(text),
        _ => {
            let safe = safe_name(text);
            assert!(!safe.is_empty() && safe != ".." && !safe.starts_with(['.', '-', ' ']), "{safe:?}");
            assert!(!safe.contains(['/', '\\', '\0', '\n', '\r', '\u{1b}', '\u{202e}', '\u{200b}']), "{safe:?}");
            assert_eq!(safe_name(&safe), safe);
        }
    }
}

/// The names of the client are the server's in canonical form.
fn names(text: &str) {
    let canonical = |parsed: Option<String>| parsed.filter(|name| name == text);
    let reserved = ["auto", "manual", "signals", "set", "system", "server", "admin"].contains(&text);
    let ours = User::parse(text).ok().filter(|_| !reserved).map(|name| name.to_string());
    assert_eq!(ours, canonical(wire::UserName::parse(text).ok().map(|name| name.to_string())));
    let ours = RoomName::parse(text).ok().map(|name| name.to_string());
    assert_eq!(ours, canonical(wire::RoomName::parse(text).ok().map(|name| name.to_string())));
}

/// Envelopes and their slots, as bytes.
pub(crate) fn envelope(data: &[u8]) {
    if let Ok(Envelope::Multi(multi)) = Envelope::parse(data) {
        assert!(!multi.slots.is_empty());
        assert!(multi.slots.iter().all(|(device, _)| multi.slot(*device).is_some()));
    }
    let round = armour::envelope(&armour::body(data));
    assert_eq!(round.is_ok(), data.len() <= armour::ENVELOPE_MAX);
    if Slot::parse(data).is_ok() {
        assert!(Slot::parse(&[data, &[0]].concat()).is_err(), "something behind");
        assert!(Slot::parse(&data[..data.len() - 1]).is_err(), "cut");
    }
}

/// The inner message and its padding.
pub(crate) fn inner(data: &[u8]) {
    if let Ok(inner) = Inner::parse(data) {
        assert!(inner.to_bytes()[..] == *data, "written back otherwise");
    }
    if let Ok(text) = padding::unpad(data) {
        assert!(padding::pad(text)[..] == *data, "another padding");
    }
    let padded = padding::pad(data);
    assert!(padded.len() >= 256 && padded.len() > data.len());
    assert_eq!(padding::unpad(&padded), Ok(data));
}

/// Certificates, device lists and the records of `/keys put`, here and as the server reads them.
pub(crate) fn certificate(data: &[u8]) {
    let [which, raw @ ..] = data else { return };
    match which % 4 {
        0 => {
            if let Ok(cert) = Certificate::verify(raw) {
                assert_eq!(cert.bytes(), raw);
            }
        }
        1 => {
            let bob = scene().bob.state.me.clone();
            if let Ok(list) = DeviceList::verify(raw, bob.user(), bob.aik()) {
                assert_eq!((list.bytes(), list.user()), (raw, bob.user()));
            }
        }
        2 => {
            let served = KeyUpload::parse(raw);
            if let Ok(upload) = &served {
                assert_eq!(upload.to_bytes(), raw);
            }
            if let Ok((device, record)) = Record::parse(raw) {
                assert_eq!(record.to_bytes(device), raw);
                assert!(served.is_ok(), "the server refuses what a client makes: {served:?}");
            }
        }
        _ => {
            let Some((times, _)) = raw.split_first_chunk::<16>() else { return };
            let [from, to] = [&times[..8], &times[8..]].map(|t| u64::from_be_bytes(t.try_into().unwrap()));
            let bob = &scene().bob.state.me;
            let aik = &scene().world.accounts[bob.user()].aik;
            let cert = Certificate::issue(aik, bob.address(), &bob.dsk().public(), bob.dik().public(), from, to);
            assert_eq!(cert.is_ok(), from <= to && to - from <= 400 * DAY);
            let Ok(cert) = cert else { return };
            assert_eq!(Certificate::verify(cert.bytes()), Ok(cert.clone()));
            let now = Now::from_secs(T0);
            assert_eq!(cert.in_time(now), from.saturating_sub(DAY) <= now.secs() && now.secs() < to);
        }
    }
}

/// Bundles; the first byte is how many days later.
pub(crate) fn bundle(data: &[u8]) {
    let [days, raw @ ..] = data else { return };
    let carol = &scene().bob.state.contacts[scene().carol.state.me.user()];
    let Ok(bundle) = Bundle::verify(raw, carol, days_later(*days)) else { return };
    assert_eq!(bundle.cert(), scene().carol.state.me.cert());
    assert!(Bundle::verify(&[raw, &[0]].concat(), carol, days_later(*days)).is_err(), "something behind");
    // It serves.
    let mut bob = scene().bob.clone();
    bob.state.peers.clear();
    let answers = Answers { bundles: &[bundle], no_list: &[], no_bundle: &[] };
    let now = days_later(*days);
    let to = scene().carol.me();
    let text = Body::Reset;
    let conversation = bob.state.direct(&to.user).unwrap();
    bob.state.seal_signal(to, conversation, text, &answers, now, &mut bob.rng).unwrap();
}

/// Key slots, without trying a passphrase, and rows of the sealed store.
pub(crate) fn keyslot(data: &[u8]) {
    match Cost::of_slot(data) {
        Ok(cost) => {
            assert_eq!(data.len(), 126);
            assert!((19 * 1024..=1024 * 1024).contains(&cost.m_kib) && (2..=16).contains(&cost.t) && cost.p > 0);
        }
        Err(error) => {
            assert_eq!(error, SlotError::Damaged);
            // Nothing was spent on it.
            assert_eq!(Dek::from_slot(data, b"passphrase"), Err(SlotError::Damaged));
        }
    }
    let dek = Dek::from_bytes(Secret::copy_from(&[1; 32]));
    let place = Place { table: "peers", rowid: 7, schema_version: 1 };
    if let Ok(blob) = dek.open_row(&place, data) {
        assert_eq!(data.len(), blob.len() + 64);
        assert!(dek.open_row(&Place { rowid: 8, ..place }, data).is_err());
    }
}

/// Link requests, answers and codes; the first byte chooses.
pub(crate) fn link(data: &[u8]) {
    let [which, raw @ ..] = data else { return };
    let Scene { pending, code, alice, .. } = scene();
    match which % 4 {
        0 => {
            if let Ok(request) = Request::parse(raw) {
                assert_eq!(code.names(&request), raw == pending.request());
            }
        }
        1 => {
            if let Ok(linked) = pending.finish(raw, NOW) {
                assert!(linked.list.lists(&linked.me.cert().hash()));
            }
            assert_eq!(pending.finish(raw, at(1 + 601)).err(), Some(Error::Clock));
        }
        2 => text(&[&[3], raw].concat()),
        _ => {
            // Any pins come through an answer as they were put in.
            let request = Request::parse(pending.request()).unwrap();
            let account = &scene().world.accounts[alice.state.me.user()];
            let address = Address { user: alice.user(), device: request.device };
            let (from, to) = (T0, T0 + DAY);
            let cert = Certificate::issue(&account.aik, &address, &request.dsk, &request.dik, from, to).unwrap();
            let list = DeviceList::issue(&account.aik, &address.user, None, &[cert.hash()]).unwrap();
            let pin = |byte: &u8| PinnedAccount {
                user: user(USERS[usize::from(*byte) % 4]),
                aik: [*byte; 32],
                verified: byte & 4 != 0,
            };
            let pins: Vec<_> = raw.iter().map(pin).collect();
            match link::answer(&request, code, &cert, &list, &pins, &mut Seeded::new(1)) {
                Ok(answer) => {
                    let linked = pending.finish(&answer, NOW).unwrap();
                    assert_eq!((linked.pins, linked.list), (pins, list));
                }
                Err(error) => assert!(pins.len() > link::PINS_MAX, "{error}"),
            }
        }
    }
}

/// Layouts, sealing and opening of files; the first byte chooses.
pub(crate) fn file(data: &[u8]) {
    let [which, rest @ ..] = data else { return };
    match which % 3 {
        0 => {
            let Some((size, _)) = rest.split_first_chunk() else { return };
            let size = u64::from_be_bytes(*size);
            let Some(l) = Layout::of(size) else { return assert!(size > 1 << 52) };
            assert!(l.size == size && l.padded >= size.max(256) && l.padded <= size.max(229) / 8 * 9 + 9);
            let last = l.chunks - 1;
            assert_eq!(Layout::offset(last) + l.sealed_len(last) as u64, l.ct_len);
            assert!(l.sealed_len(last) < SEALED_CHUNK && l.sealed_len(l.chunks) == 0);
            assert!(last == 0 || l.sealed_len(0) == SEALED_CHUNK);
        }
        1 => {
            // A file comes through; with one byte changed it does not.
            let ([at, flip], rest) = rest.split_first_chunk::<2>().unwrap_or((&[0, 0], rest));
            let mut sealer = Sealer::new(rest.len() as u64, &mut Seeded::new(3)).unwrap().unwrap();
            let mut sealed = vec![sealer.header().to_vec()];
            let mut left = rest;
            while let Some(n) = sealer.wants() {
                let (now, later) = left.split_at(n);
                sealed.push(sealer.seal(now).unwrap());
                left = later;
            }
            let descriptor = sealer.finish("name", "").unwrap();
            assert_eq!(receive(&descriptor, &sealed).as_deref(), Ok(rest));
            if *flip != 0 {
                let part = usize::from(*at) % sealed.len();
                let place = usize::from(*at) * 7 % sealed[part].len();
                sealed[part][place] ^= flip;
                assert!(receive(&descriptor, &sealed).is_err());
            }
        }
        _ => {
            let Some((size, ciphertext)) = rest.split_first_chunk() else { return };
            let size = u64::from(u16::from_be_bytes(*size));
            let layout = Layout::of(size).unwrap();
            let key = Secret::copy_from(&[5; 32]);
            let (name, mime) = ("name".to_owned(), String::new());
            let d = Descriptor { key, blob_id: [6; 32], ct_len: layout.ct_len, size, name, mime };
            let (header, body) = ciphertext.split_at(HEADER.min(ciphertext.len()));
            let sealed: Vec<_> = [header].into_iter().chain(body.chunks(SEALED_CHUNK)).map(<[u8]>::to_vec).collect();
            assert!(receive(&d, &sealed).is_err());
        }
    }
}

fn receive(descriptor: &Descriptor, sealed: &[Vec<u8>]) -> Result<Vec<u8>, Error> {
    let (header, chunks) = sealed.split_first().ok_or(Error::Syntax)?;
    let mut receiver = Receiver::new(descriptor, header[..].try_into().map_err(|_| Error::Syntax)?)?;
    let mut whole = Vec::new();
    for chunk in chunks {
        whole.extend_from_slice(&receiver.chunk(chunk)?);
    }
    receiver.finish().map(|()| whole)
}

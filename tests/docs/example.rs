//! The worked example of `docs/encryption.md`, computed from the primitives by the document's formulas alone.
//! The module's part is at the end: it opens what was made here.

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{Aead as _, KeyInit as _, Payload};
use ed25519_dalek::{Signer as _, SigningKey};
use hkdf::Hkdf;
use hmac::{Hmac, Mac as _};
use ml_kem::kem::KeyExport as _;
use ml_kem::ml_kem_768::DecapsulationKey;
use ml_kem::{B32, Seed};
use sha2::{Digest as _, Sha256, Sha512};
use x25519_dalek::{PublicKey, StaticSecret};

use downstream::e2e::armour;
use downstream::e2e::bundle::KeyKind;
use downstream::e2e::cert::Certificate;
use downstream::e2e::contact::Contact;
use downstream::e2e::dh::DhPair;
use downstream::e2e::error::NoRandom;
use downstream::e2e::file::Receiver;
use downstream::e2e::identity::DeviceKeys;
use downstream::e2e::inner::{Body, Inner, Via};
use downstream::e2e::keyslot::{Dek, Place};
use downstream::e2e::name::{Address, DeviceId, RoomName, User};
use downstream::e2e::number::{grouped, safety_number};
use downstream::e2e::padding::pad;
use downstream::e2e::prekeys::Prekeys;
use downstream::e2e::receive::{Line, Target};
use downstream::e2e::rng::Rng;
use downstream::e2e::secret::Secret;
use downstream::e2e::sign::SignKey;
use downstream::e2e::state::State;
use downstream::e2e::time::Now;

const T0: u64 = 1_800_000_000;
const BORN: u64 = T0 * 1000;
const DAY: u64 = 24 * 3600;

fn h(parts: &[&[u8]]) -> [u8; 32] {
    Sha256::digest(parts.concat()).into()
}

fn label(name: &str) -> Vec<u8> {
    format!("DownStream/1 {name}").into_bytes()
}

fn lp(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

fn hkdf(salt: &[u8], ikm: &[u8], info: &[u8], n: usize) -> Vec<u8> {
    let mut okm = vec![0; n];
    Hkdf::<Sha256>::new(Some(salt), ikm).expand(info, &mut okm).unwrap();
    okm
}

fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    Hmac::<Sha256>::new_from_slice(key).unwrap().chain_update(message).finalize().into_bytes().to_vec()
}

fn sign(seed: u8, name: &str, body: &[u8]) -> Vec<u8> {
    let key = SigningKey::from_bytes(&[seed; 32]);
    key.sign(&[&label(name)[..], &[0], body].concat()).to_bytes().to_vec()
}

fn signed(seed: u8, name: &str, body: Vec<u8>) -> Vec<u8> {
    let sig = sign(seed, name, &body);
    [body, sig].concat()
}

fn ed(seed: u8) -> [u8; 32] {
    SigningKey::from_bytes(&[seed; 32]).verifying_key().to_bytes()
}

fn x(private: u8) -> [u8; 32] {
    PublicKey::from(&StaticSecret::from([private; 32])).to_bytes()
}

fn dh(private: u8, public: [u8; 32]) -> Vec<u8> {
    StaticSecret::from([private; 32]).diffie_hellman(&PublicKey::from(public)).to_bytes().to_vec()
}

/// key 32 ‖ nonce 12 ‖ com 32
fn caead_keys(key: &[u8], salt: &[u8], aad: &[u8]) -> Vec<u8> {
    hkdf(salt, key, &[&label("caead")[..], &h(&[aad])].concat(), 76)
}

fn caead(key: &[u8], salt: &[u8], aad: &[u8], text: &[u8]) -> Vec<u8> {
    let okm = caead_keys(key, salt, aad);
    let gcm = Aes256Gcm::new_from_slice(&okm[..32]).unwrap();
    let nonce: [u8; 12] = okm[32..44].try_into().unwrap();
    let sealed = gcm.encrypt(&nonce.into(), Payload { msg: text, aad }).unwrap();
    [&okm[44..], &sealed].concat()
}

fn root_step(root: &[u8], dh: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let okm = hkdf(root, dh, &label("root"), 64);
    (okm[..32].to_vec(), okm[32..].to_vec())
}

/// A party of the example, by the tens of its keys.
struct Party {
    name: &'static str,
    tens: u8,
}

const ALICE: Party = Party { name: "alice", tens: 0x10 };
const BOB: Party = Party { name: "bob", tens: 0x20 };

impl Party {
    fn device(&self) -> [u8; 16] {
        [self.tens + 2; 16]
    }

    fn certificate(&self) -> Vec<u8> {
        let mut body = vec![1, 0x10, self.name.len() as u8];
        body.extend(self.name.bytes());
        body.extend([&self.device()[..], &ed(self.tens + 1), &ed(self.tens + 3), &x(self.tens + 4)].concat());
        body.extend(T0.to_be_bytes());
        body.extend((T0 + 365 * DAY).to_be_bytes());
        signed(self.tens + 1, "device-cert", body)
    }

    fn list(&self) -> Vec<u8> {
        let mut body = vec![1, 0x11, self.name.len() as u8];
        body.extend(self.name.bytes());
        body.extend([&1_u32.to_be_bytes()[..], &[0; 32], &[1], &h(&[&self.certificate()])].concat());
        signed(self.tens + 1, "device-list", body)
    }

    /// P(x)
    fn bytes(&self) -> Vec<u8> {
        [&lp(self.name.as_bytes())[..], &self.device(), &ed(self.tens + 1), &x(self.tens + 4)].concat()
    }
}

/// Five digits of six five-byte groups.
fn fingerprint(party: &Party) -> String {
    let key = ed(party.tens + 1);
    let mut hash = Sha512::digest([&[0, 0], &key[..], party.name.as_bytes(), &key].concat());
    for _ in 0..5199 {
        hash = Sha512::digest([&hash[..], &key].concat());
    }
    let five = |group: &[u8]| group.iter().fold(0, |n: u64, byte| n << 8 | u64::from(*byte)) % 100_000;
    hash.chunks(5).take(6).map(|group| format!("{:05}", five(group))).collect()
}

/// The session that Alice begins with Bob, and her first chain in it.
struct Session {
    th: [u8; 32],
    root: Vec<u8>,
    sid: Vec<u8>,
    kem_ct: Vec<u8>,
    prekey: Vec<u8>,
    ad: [u8; 32],
    next_root: Vec<u8>,
    chain: Vec<u8>,
}

impl Session {
    fn new() -> Self {
        let (ek, spk, opk) = (x(0x15), x(0x25), x(0x26));
        let pqk = DecapsulationKey::from_seed(Seed::from([0x27; 64]));
        let pqk = pqk.encapsulation_key();
        let (kem_ct, shared) = pqk.encapsulate_deterministic(&B32::from([0x16; 32]));
        let (kem_ct, pqk) = (kem_ct.to_vec(), pqk.to_bytes().to_vec());
        let (dc_a, dc_b) = (ALICE.certificate(), BOB.certificate());
        let id = |id: u32| id.to_be_bytes();
        let th = h(&[
            &label("pqxdh-transcript"),
            &lp(&dc_a),
            &lp(&dc_b),
            &ek,
            &BORN.to_be_bytes(),
            &id(1),
            &spk,
            &id(2),
            &lp(&opk),
            &id(3),
            &lp(&pqk),
            &lp(&kem_ct),
        ]);
        let dhs = [dh(0x14, spk), dh(0x15, x(0x24)), dh(0x15, spk), dh(0x15, opk)].concat();
        let okm = hkdf(&[0; 32], &[&[0xff; 32], &dhs[..], &shared].concat(), &[&label("pqxdh")[..], &th].concat(), 48);
        let (root, sid) = (okm[..32].to_vec(), okm[32..].to_vec());
        let head = [&[1, 1], &sid[..], &ek, &id(1), &id(2), &id(3), &BORN.to_be_bytes()].concat();
        let prekey = [head, kem_ct.clone(), lp(&dc_a)].concat();
        let ad = h(&[&label("ad-1to1"), &ALICE.bytes(), &BOB.bytes()]);
        // Alice's ratchet pair is 17×32.
        let (next_root, chain) = root_step(&root, &dh(0x17, spk));
        Self { th, root, sid, kem_ct, prekey, ad, next_root, chain }
    }

    /// A MULTI of Alice to Bob's device with a slot under the chain's message key `n`.
    fn multi(&self, n: u32, key: &[u8], inner: &[u8]) -> Multi {
        let salt = [0x1a; 16];
        let who = [&lp(b"alice")[..], &ALICE.device(), &lp(b"bob")].concat();
        let aad = [&label("multi")[..], &[0], &who].concat();
        let tail = [&salt[..], &caead(&[0x19; 32], &salt, &aad, &pad(inner))].concat();
        let head = [&[1, 2], &self.sid[..], &x(0x17), &0_u32.to_be_bytes(), &n.to_be_bytes(), &[0x18; 16]].concat();
        let authenticated = [&self.prekey[..], &head].concat();
        let text = [&[0x19; 32][..], &h(&[&tail])].concat();
        let sealed = caead(key, &[0x18; 16], &[&self.ad[..], &authenticated].concat(), &text);
        let slot = [&authenticated[..], &sealed].concat();
        let start = [&[1, 4], &ALICE.device()[..], &[1], &BOB.device(), &lp(&slot)].concat();
        Multi { sealed, envelope: [start, tail.clone()].concat(), slot, tail }
    }
}

struct Multi {
    sealed: Vec<u8>,
    slot: Vec<u8>,
    tail: Vec<u8>,
    envelope: Vec<u8>,
}

fn inner(kind: u8, msg_id: u8, seq: u32, conversation: (u8, &[u8]), body: &[u8]) -> Vec<u8> {
    let head = [&[kind, 0], &BORN.to_be_bytes()[..], &[msg_id; 16], &seq.to_be_bytes(), &[0; 32]].concat();
    [&head[..], &[conversation.0], conversation.1, &1_u32.to_be_bytes(), body].concat()
}

/// The create entry of the closed room `#garden`, before its signature.
fn create(room_id: &[u8]) -> Vec<u8> {
    let head = [&[1, 0x20], room_id, &1_u32.to_be_bytes(), &[0x1f; 32], &T0.to_be_bytes(), &[1]].concat();
    let about = [lp(b"#garden"), lp(b"alice"), ed(0x11).to_vec()].concat();
    [head, about, lp(&ALICE.list()), lp(&ALICE.certificate())].concat()
}

/// Every value of the example by its name, in the order of the document; and the check that the module is of
/// the same opinion.
pub(crate) fn values() -> Vec<(&'static str, String)> {
    let mut all: Vec<(&'static str, String)> = Vec::new();
    let mut add = |name, bytes: &[u8]| all.push((name, armour::hex(bytes)));

    add("KDF_CK: mk", &hmac(&[0; 32], &[1]));
    add("KDF_CK: ck'", &hmac(&[0; 32], &[2]));
    let (root, chain) = root_step(&[0; 32], &[1; 32]);
    add("KDF_RK: rk'", &root);
    add("KDF_RK: ck", &chain);
    let okm = caead_keys(&[1; 32], &[2; 16], b"aad");
    add("CAEAD: key", &okm[..32]);
    add("CAEAD: nonce", &okm[32..44]);
    add("CAEAD: com ‖ ct ‖ tag", &caead(&[1; 32], &[2; 16], b"aad", b"hi"));

    for (party, names) in [
        (&ALICE, ["alice: AIK", "alice: DSK", "alice: DIK", "alice: DC", "alice: H(DC)", "alice: DL", "alice: H(DL)"]),
        (&BOB, ["bob: AIK", "bob: DSK", "bob: DIK", "bob: DC", "bob: H(DC)", "bob: DL", "bob: H(DL)"]),
    ] {
        add(names[0], &ed(party.tens + 1));
        add(names[1], &ed(party.tens + 3));
        add(names[2], &x(party.tens + 4));
        add(names[3], &party.certificate());
        add(names[4], &h(&[&party.certificate()]));
        add(names[5], &party.list());
        add(names[6], &h(&[&party.list()]));
    }

    let s = Session::new();
    add("H(kem_ct)", &h(&[&s.kem_ct]));
    add("th", &s.th);
    add("RK0", &s.root);
    add("sid", &s.sid);
    add("AD alice → bob", &s.ad);
    add("RK1", &s.next_root);
    add("CK of alice's first chain", &s.chain);
    let mk = hmac(&s.chain, &[1]);
    add("mk of message 0", &mk);
    let (low, high) = (ed(0x11).min(ed(0x21)), ed(0x11).max(ed(0x21)));
    let conversation = h(&[&label("direct"), &low, &high])[..16].to_vec();
    add("direct conv_id", &conversation);
    let hi = inner(1, 0x1b, 1, (0, &conversation), b"hi");
    add("inner message", &hi);
    let multi = s.multi(0, &mk, &hi);
    add("payload: H(salt ‖ com ‖ ct ‖ tag)", &h(&[&multi.tail]));
    add("slot: com ‖ ct ‖ tag", &multi.sealed);
    add("replay mark of the slot", &h(&[&multi.slot])[..16]);
    add("H(MULTI)", &h(&[&multi.envelope]));

    let zeroed = create(&[0; 16]);
    let room_id = h(&[&label("room-id"), &[0], &zeroed])[..16].to_vec();
    let entry = signed(0x13, "roster", create(&room_id));
    let roster_hash = h(&[&entry]);
    add("room_id", &room_id);
    add("roster hash", &roster_hash);
    let ad_g = h(&[&label("ad-group"), &ALICE.bytes(), &room_id, &roster_hash]);
    add("AD_g", &ad_g);
    let head =
        [&[1, 3], &room_id[..], &ALICE.device(), &1_u32.to_be_bytes(), &[0x1c; 16], &[0; 4], &[0x1d; 16]].concat();
    let in_room = inner(1, 0x1e, 1, (1, &room_id), b"hi");
    let aad = [&ad_g[..], &head].concat();
    let sealed = caead(&hmac(&[0x2a; 32], &[1]), &[0x1d; 16], &aad, &pad(&in_room));
    let unsigned = [head, sealed].concat();
    let group = [&unsigned[..], &sign(0x2b, "group", &[&ad_g[..], &unsigned].concat())].concat();
    add("GROUP: com", &group[74..106]);
    add("GROUP: sig", &group[group.len() - 64..]);
    add("H(GROUP)", &h(&[&group]));

    let row_key = hkdf(&[0; 32], &[0x30; 32], &[&label("store")[..], &lp(b"peers")].concat(), 32);
    let aad = [&lp(b"peers")[..], &7_u64.to_be_bytes(), &1_u32.to_be_bytes()].concat();
    let row = [&[0x31; 16], &caead(&row_key, &[0x31; 16], &aad, b"blob")[..]].concat();
    add("row", &row);

    let (mut prk, salt) = ([0; 128], [0x33; 24]);
    prk[..32].fill(0x32);
    let info = [b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM", &[0][..], &salt, &label("file")].concat();
    let expand = |before: &[u8], i: u8| {
        let mac = Hmac::<Sha512>::new_from_slice(&prk).unwrap();
        mac.chain_update(before).chain_update(&info).chain_update([i]).finalize().into_bytes().to_vec()
    };
    let first = expand(&[], 1);
    let okm = [first.clone(), expand(&first, 2)].concat();
    let gcm = Aes256Gcm::new_from_slice(&okm[..32]).unwrap();
    let nonce: [u8; 12] = okm[32..44].try_into().unwrap();
    let mut text = [0; 256];
    text[..5].copy_from_slice(b"hello");
    let chunk = gcm.encrypt(&nonce.into(), &text[..]).unwrap();
    let file = [&salt[..], &okm[44..76], &chunk].concat();
    add("file: com", &okm[44..76]);
    add("file: blob_id", &h(&[&file]));

    let mut halves = [fingerprint(&ALICE), fingerprint(&BOB)];
    halves.sort();
    all.push(("number", grouped(&halves.concat())));

    agrees(&s, &mk, &multi, (&room_id, &entry, &roster_hash, &group), &row, &file);
    let (a, b) = (User::parse("alice").unwrap(), User::parse("bob").unwrap());
    assert_eq!(safety_number((&a, &ed(0x11)), (&b, &ed(0x21))), halves.concat());
    all
}

/// Bob's device, by the module, opens what Alice made by hand.
fn agrees(
    s: &Session,
    mk: &[u8],
    multi: &Multi,
    (room_id, entry, roster_hash, group): (&[u8], &[u8], &[u8], &[u8]),
    row: &[u8],
    file: &[u8],
) {
    let (alice, bob) = (User::parse("alice").unwrap(), User::parse("bob").unwrap());
    let now = Now::from_secs(T0);
    let certificate = Certificate::verify(&BOB.certificate()).unwrap();
    let dc = certificate.hash();
    let keys = DeviceKeys {
        address: Address { user: bob.clone(), device: DeviceId(BOB.device()) },
        dsk: SignKey::from_seed(&Secret::copy_from(&[0x23; 32])),
        dik: DhPair::from_private(Secret::copy_from(&[0x24; 32])),
    };
    let mut prekeys = Prekeys::default();
    prekeys.insert(KeyKind::Spk, 1, &[0x25; 32], dc, T0).unwrap();
    prekeys.insert(KeyKind::Opk, 2, &[0x26; 32], dc, T0).unwrap();
    prekeys.insert(KeyKind::Pqk, 3, &[0x27; 64], dc, T0).unwrap();
    let me = keys.certified(certificate).unwrap();
    let mut state = State::new(me, prekeys, &BOB.list(), &[&BOB.certificate()]).unwrap();
    let (known, _) = Contact::first(&alice, &ALICE.list(), &[&ALICE.certificate()]).unwrap();
    state.contacts.insert(alice.clone(), known);

    let open = |state: &mut State, via, target, envelope: &[u8]| {
        let body = armour::body(envelope);
        state.receive(&Line { via, sender: &alice, target, body: &body }, now, &mut Zeros).unwrap().inner
    };
    let hi = open(&mut state, Via::Message, Target::User(&bob), &multi.envelope);
    assert_eq!(hi.body, Body::Text("hi".into()));

    let name = RoomName::parse("#garden").unwrap();
    let (change, _) = state.read_roster(&name, 1, entry, now).unwrap();
    state.apply(change);
    assert_eq!(state.room_named(&name).unwrap().roster.head(), (1, roster_hash.try_into().unwrap()));
    let skdm =
        [room_id, &1_u32.to_be_bytes(), roster_hash, &[0x1c; 16], &[0; 4], &[0x2a; 32], &ed(0x2b), &[0; 16], &[0; 4]]
            .concat();
    let skdm = inner(3, 0x1b, 0, (1, room_id), &skdm);
    assert!(Inner::parse(&skdm).is_ok() && skdm.len() == 83 + 156);
    let next = hmac(&hmac(&s.chain, &[2]), &[1]);
    assert_ne!(next, mk);
    let signal = s.multi(1, &next, &skdm);
    open(&mut state, Via::Signal, Target::User(&bob), &signal.envelope);
    let hi = open(&mut state, Via::Message, Target::Room(&name), group);
    assert_eq!(hi.body, Body::Text("hi".into()));

    let dek = Dek::from_bytes(Secret::copy_from(&[0x30; 32]));
    let place = Place { table: "peers", rowid: 7, schema_version: 1 };
    assert_eq!(dek.open_row(&place, row).unwrap()[..], *b"blob");

    let descriptor = [&[0x32; 32], &h(&[file])[..], &(file.len() as u64).to_be_bytes(), &5_u64.to_be_bytes()].concat();
    let descriptor = [descriptor, lp(b"name"), lp(b"")].concat();
    let message = Inner::parse(&inner(2, 0, 1, (1, room_id), &descriptor)).unwrap();
    let Body::File(descriptor) = message.body else { panic!("no file") };
    let mut receiver = Receiver::new(&descriptor, file[..56].try_into().unwrap()).unwrap();
    assert_eq!(receiver.chunk(&file[56..]).unwrap()[..], *b"hello");
    receiver.finish().unwrap();
}

/// Bob's draws are no part of the example.
struct Zeros;

impl Rng for Zeros {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), NoRandom> {
        out.fill(0);
        Ok(())
    }
}

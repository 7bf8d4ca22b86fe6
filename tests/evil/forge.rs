//! The encryption by hand, in full freedom: what a malicious peer's own program would do.
//!
//! The library seals only what is right. Here every structure of the design is built byte by byte out of
//! the primitives, after the text of `docs/encryption.md` and without the library's code, so that a
//! test can sign a point of small order, jump a counter, or hand out somebody else's chain. What is built
//! without a twist opens on an honest device, which the harness checks first: a forgery is then refused for
//! its twist and for nothing else.

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use ed25519_dalek::{Signer, SigningKey};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use ml_kem::ml_kem_768::EncapsulationKey;
use sha2::{Digest, Sha256};

use crate::common::e2e::name::{Address, DeviceId, Party, User};
use crate::common::e2e::padding::pad;
use crate::common::e2e::rng::Rng;
use crate::common::{Seeded, e2e};

/// `L"x"`.
pub(crate) fn label(name: &str) -> Vec<u8> {
    format!("DownStream/1 {name}").into_bytes()
}

/// SHA-256 of the parts behind each other.
pub(crate) fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize().into()
}

fn first16(hash: [u8; 32]) -> [u8; 16] {
    hash[..16].try_into().unwrap()
}

/// A length of two bytes, then the bytes.
pub(crate) fn lp(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}

fn hkdf(salt: &[u8], ikm: &[u8], info: &[u8], n: usize) -> Vec<u8> {
    let mut out = vec![0; n];
    Hkdf::<Sha256>::new(Some(salt), ikm).expand(info, &mut out).unwrap();
    out
}

fn hmac(key: &[u8; 32], message: &[u8]) -> [u8; 32] {
    let mut mac = <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(key).unwrap();
    mac.update(message);
    mac.finalize().into_bytes().into()
}

/// One step of a chain: the key of the message, and the next link.
pub(crate) fn chain_step(chain: &[u8; 32]) -> ([u8; 32], [u8; 32]) {
    (hmac(chain, &[1]), hmac(chain, &[2]))
}

/// Bytes out of a seeded source.
pub(crate) fn draw<const N: usize>(rng: &mut Seeded) -> [u8; N] {
    let mut out = [0; N];
    rng.fill(&mut out).unwrap();
    out
}

/// Key, nonce and commitment of one sealing.
pub(crate) struct Derived {
    pub(crate) gcm: Aes256Gcm,
    pub(crate) nonce: [u8; 12],
    pub(crate) com: [u8; 32],
}

/// The derivation of the committing AEAD.
pub(crate) fn derive(key: &[u8], salt: &[u8], aad: &[u8]) -> Derived {
    let okm = hkdf(salt, key, &[&label("caead")[..], &hash(&[aad])].concat(), 76);
    Derived {
        gcm: Aes256Gcm::new(okm[..32].try_into().unwrap()),
        nonce: okm[32..44].try_into().unwrap(),
        com: okm[44..].try_into().unwrap(),
    }
}

impl Derived {
    /// The plain AES-GCM of it, without the commitment.
    pub(crate) fn gcm(&self, aad: &[u8], text: &[u8]) -> Vec<u8> {
        self.gcm.encrypt(&Nonce::from(self.nonce), Payload { msg: text, aad }).unwrap()
    }
}

/// `com ‖ ct ‖ tag`.
pub(crate) fn caead(key: &[u8], salt: &[u8], aad: &[u8], text: &[u8]) -> Vec<u8> {
    let derived = derive(key, salt, aad);
    [&derived.com[..], &derived.gcm(aad, text)].concat()
}

/// A signature under a label.
pub(crate) fn sign(key: &e2e::sign::SignKey, name: &str, body: &[u8]) -> [u8; 64] {
    sign_seed(key.seed().expose(), name, body)
}

fn sign_seed(seed: &[u8; 32], name: &str, body: &[u8]) -> [u8; 64] {
    SigningKey::from_bytes(seed).sign(&[&label(name)[..], &[0], body].concat()).to_bytes()
}

/// `P(x)`.
pub(crate) fn party(party: &Party) -> Vec<u8> {
    [&lp(party.address.user.as_str().as_bytes())[..], &party.address.device.0, &party.aik, &party.dik].concat()
}

/// `id ‖ created ‖ public ‖ sig`, signed under any label.
pub(crate) fn prekey(
    dsk: &e2e::sign::SignKey,
    cert: &[u8],
    name: &str,
    id: u32,
    created: u64,
    public: &[u8],
) -> Vec<u8> {
    let head = [&id.to_be_bytes()[..], &created.to_be_bytes(), public].concat();
    let sig = sign(dsk, name, &[&hash(&[cert])[..], &head].concat());
    [&head[..], &sig].concat()
}

/// The places of the parts in a bundle.
#[derive(Debug, Clone)]
pub(crate) struct BundleParts {
    pub(crate) cert: Vec<u8>,
    pub(crate) spk: Vec<u8>,
    pub(crate) opk: Option<Vec<u8>>,
    /// 0 one-time, 1 last resort.
    pub(crate) pq_kind: u8,
    pub(crate) pqk: Vec<u8>,
}

impl BundleParts {
    /// Cuts a bundle.
    pub(crate) fn cut(raw: &[u8]) -> BundleParts {
        let n = usize::from(u16::from_be_bytes([raw[0], raw[1]]));
        let (cert, rest) = raw[2..].split_at(n);
        let (spk, rest) = rest.split_at(108);
        let (opk, rest) = if rest[0] == 1 { (Some(rest[1..109].to_vec()), &rest[109..]) } else { (None, &rest[1..]) };
        BundleParts { cert: cert.to_vec(), spk: spk.to_vec(), opk, pq_kind: rest[0], pqk: rest[1..].to_vec() }
    }

    /// Puts it together again.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let opk = self.opk.as_ref().map_or(vec![0], |opk| [&[1], &opk[..]].concat());
        [&lp(&self.cert)[..], &self.spk, &opk, &[self.pq_kind], &self.pqk].concat()
    }
}

/// The id in front of a prekey.
fn id_of(key: &[u8]) -> [u8; 4] {
    key[..4].try_into().unwrap()
}

/// The bare public key in a prekey.
pub(crate) fn public_of(key: &[u8]) -> &[u8] {
    &key[12..key.len() - 64]
}

/// Who initiates a session.
pub(crate) struct Initiator<'a> {
    pub(crate) party: &'a Party,
    pub(crate) cert: &'a [u8],
    pub(crate) dik: [u8; 32],
}

/// What is bent in a handshake or in the header of the first messages.
#[derive(Debug, Clone, Default)]
pub(crate) struct Twist {
    /// Shown as EK; every DH with it is then what the receiver's would be for a point of small order.
    pub(crate) ek: Option<[u8; 32]>,
    /// Shown as the ratchet key; the DH with it is zero.
    pub(crate) dh: Option<[u8; 32]>,
}

/// A session of the initiating side, which has heard nothing yet: it repeats its PREKEY.
#[derive(Clone)]
pub(crate) struct Session {
    sid: [u8; 16],
    dh_pub: [u8; 32],
    chain: [u8; 32],
    prefix: Vec<u8>,
    ad: [u8; 32],
    /// The next message's place in its chain.
    pub(crate) n: u32,
    /// How many messages the chain before had.
    pub(crate) pn: u32,
}

impl Session {
    /// PQXDH with the device of a bundle, and the first chain.
    pub(crate) fn start(me: &Initiator<'_>, bundle: &[u8], born_ms: u64, twist: &Twist, rng: &mut Seeded) -> Session {
        let parts = BundleParts::cut(bundle);
        let theirs = e2e::cert::Certificate::verify(&parts.cert).unwrap().party().clone();
        let spk: [u8; 32] = public_of(&parts.spk).try_into().unwrap();
        let opk: Option<[u8; 32]> = parts.opk.as_deref().map(|opk| public_of(opk).try_into().unwrap());
        let ek: [u8; 32] = draw(rng);
        let with_ek = |point: [u8; 32]| if twist.ek.is_some() { [0; 32] } else { x25519_dalek::x25519(ek, point) };
        let ek_pub = twist.ek.unwrap_or_else(|| base(ek));
        let pqk: [u8; 1184] = public_of(&parts.pqk).try_into().unwrap();
        let m: [u8; 32] = draw(rng);
        let (ct, ss) = EncapsulationKey::new(&pqk.into()).unwrap().encapsulate_deterministic(&m.into());
        let none = [0xff; 4];
        let opk_id = parts.opk.as_deref().map_or(none, id_of);
        let born = born_ms.to_be_bytes();
        let th = hash(&[
            &label("pqxdh-transcript"),
            &lp(me.cert),
            &lp(&parts.cert),
            &ek_pub,
            &born,
            &id_of(&parts.spk),
            &spk,
            &opk_id,
            &lp(opk.as_ref().map_or(&[], |opk| &opk[..])),
            &id_of(&parts.pqk),
            &lp(&pqk),
            &lp(&ct),
        ]);
        let mut ikm = vec![0xff; 32];
        ikm.extend(x25519_dalek::x25519(me.dik, spk));
        ikm.extend(with_ek(theirs.dik));
        ikm.extend(with_ek(spk));
        ikm.extend(opk.map(with_ek).into_iter().flatten());
        ikm.extend_from_slice(&ss);
        let okm = hkdf(&[0; 32], &ikm, &[&label("pqxdh")[..], &th].concat(), 48);
        let sid: [u8; 16] = okm[32..].try_into().unwrap();
        let prefix =
            [&[1, 1][..], &sid, &ek_pub, &id_of(&parts.spk), &opk_id, &id_of(&parts.pqk), &born, &ct, &lp(me.cert)]
                .concat();
        let ours: [u8; 32] = draw(rng);
        let dh = if twist.dh.is_some() { [0; 32] } else { x25519_dalek::x25519(ours, spk) };
        let root = hkdf(&okm[..32], &dh, &label("root"), 64);
        Session {
            sid,
            dh_pub: twist.dh.unwrap_or_else(|| base(ours)),
            chain: root[32..].try_into().unwrap(),
            prefix,
            ad: hash(&[&label("ad-1to1"), &party(me.party), &party(&theirs)]),
            n: 0,
            pn: 0,
        }
    }

    /// A slot with the PREKEY in front. `text` is 64 bytes, in a proper one.
    pub(crate) fn slot(&mut self, text: &[u8], rng: &mut Seeded) -> Vec<u8> {
        let (key, next) = chain_step(&self.chain);
        let salt: [u8; 16] = draw(rng);
        let head =
            [&self.prefix[..], &[1, 2], &self.sid, &self.dh_pub, &self.pn.to_be_bytes(), &self.n.to_be_bytes(), &salt]
                .concat();
        let sealed = caead(&key, &salt, &[&self.ad[..], &head].concat(), text);
        self.chain = next;
        self.n += 1;
        [&head[..], &sealed].concat()
    }

    /// Passes over message keys, as if so many messages had been sent.
    pub(crate) fn skip(&mut self, count: u32) {
        for _ in 0..count {
            (_, self.chain) = chain_step(&self.chain);
        }
        self.n += count;
    }
}

fn base(private: [u8; 32]) -> [u8; 32] {
    x25519_dalek::x25519(private, x25519_dalek::X25519_BASEPOINT_BYTES)
}

/// A payload of a MULTI.
pub(crate) struct Tail {
    /// `salt ‖ com ‖ ct ‖ tag`.
    pub(crate) bytes: Vec<u8>,
    /// `content_key ‖ H(tail)`: what a slot says.
    pub(crate) slot_text: Vec<u8>,
}

impl Tail {
    /// Seals a padded inner message.
    pub(crate) fn seal(sender: &Address, receiver: &User, padded: &[u8], rng: &mut Seeded) -> Tail {
        let (key, salt): ([u8; 32], [u8; 16]) = (draw(rng), draw(rng));
        let bytes = [&salt[..], &caead(&key, &salt, &multi_aad(sender, receiver), padded)].concat();
        let slot_text = [key, hash(&[&bytes])].concat();
        Tail { bytes, slot_text }
    }
}

/// What the payload of a MULTI is bound to.
pub(crate) fn multi_aad(sender: &Address, receiver: &User) -> Vec<u8> {
    let who = [&lp(sender.user.as_str().as_bytes())[..], &sender.device.0, &lp(receiver.as_str().as_bytes())].concat();
    [&label("multi")[..], &[0], &who].concat()
}

/// A MULTI envelope.
pub(crate) fn multi(sender: DeviceId, slots: &[(DeviceId, Vec<u8>)], tail: &[u8]) -> Vec<u8> {
    let mut out = [&[1, 4][..], &sender.0, &[u8::try_from(slots.len()).unwrap()]].concat();
    for (to, slot) in slots {
        out.extend(to.0);
        out.extend(lp(slot));
    }
    out.extend_from_slice(tail);
    out
}

/// The places of the parts of a MULTI.
#[derive(Debug, Clone)]
pub(crate) struct MultiParts {
    pub(crate) device: DeviceId,
    pub(crate) slots: Vec<(DeviceId, Vec<u8>)>,
    pub(crate) tail: Vec<u8>,
}

impl MultiParts {
    /// Cuts an envelope.
    pub(crate) fn cut(raw: &[u8]) -> MultiParts {
        let device = DeviceId(raw[2..18].try_into().unwrap());
        let (mut slots, mut rest) = (Vec::new(), &raw[19..]);
        for _ in 0..raw[18] {
            let n = usize::from(u16::from_be_bytes([rest[16], rest[17]]));
            slots.push((DeviceId(rest[..16].try_into().unwrap()), rest[18..18 + n].to_vec()));
            rest = &rest[18 + n..];
        }
        MultiParts { device, slots, tail: rest.to_vec() }
    }

    /// Puts it together again.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        multi(self.device, &self.slots, &self.tail)
    }
}

/// Where the RATCHET part of a slot begins: behind the PREKEY, if there is one.
pub(crate) fn ratchet_at(slot: &[u8]) -> usize {
    if slot[1] == 2 {
        return 0;
    }
    1160 + usize::from(u16::from_be_bytes([slot[1158], slot[1159]]))
}

/// (dh_pub, n) of a slot: what must never be emitted twice.
pub(crate) fn place_of(slot: &[u8]) -> ([u8; 32], u32) {
    let at = ratchet_at(slot);
    (slot[at + 18..at + 50].try_into().unwrap(), u32::from_be_bytes(slot[at + 54..at + 58].try_into().unwrap()))
}

/// An inner message in the making.
#[derive(Debug, Clone)]
pub(crate) struct Inner {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) sent_ms: u64,
    pub(crate) msg_id: [u8; 16],
    pub(crate) seq: u32,
    pub(crate) prev: [u8; 32],
    /// 0 direct, 1 room.
    pub(crate) conv_type: u8,
    pub(crate) conv_id: [u8; 16],
    pub(crate) dl_version: u32,
    pub(crate) body: Vec<u8>,
}

impl Inner {
    /// The first text of a conversation.
    pub(crate) fn text(conv: (u8, [u8; 16]), text: &str, rng: &mut Seeded) -> Inner {
        Inner {
            kind: 1,
            flags: 0,
            sent_ms: crate::evil::now().ms(),
            msg_id: draw(rng),
            seq: 1,
            prev: [0; 32],
            conv_type: conv.0,
            conv_id: conv.1,
            dl_version: 1,
            body: text.as_bytes().to_vec(),
        }
    }

    /// Any kind that rides in a signal.
    pub(crate) fn signal(conv: (u8, [u8; 16]), kind: u8, body: Vec<u8>, rng: &mut Seeded) -> Inner {
        Inner { kind, seq: 0, body, ..Inner::text(conv, "", rng) }
    }

    /// The bytes without padding.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        [
            &[self.kind, self.flags][..],
            &self.sent_ms.to_be_bytes(),
            &self.msg_id,
            &self.seq.to_be_bytes(),
            &self.prev,
            &[self.conv_type],
            &self.conv_id,
            &self.dl_version.to_be_bytes(),
            &self.body,
        ]
        .concat()
    }

    /// The bytes with their padding.
    pub(crate) fn padded(&self) -> Vec<u8> {
        pad(&self.bytes()).to_vec()
    }
}

/// The direct conversation of two accounts.
pub(crate) fn direct(a: &[u8; 32], b: &[u8; 32]) -> (u8, [u8; 16]) {
    (0, first16(hash(&[&label("direct"), a.min(b), a.max(b)])))
}

/// A chain of a room: one's own, or one that was given to us.
#[derive(Debug, Clone)]
pub(crate) struct Chain {
    pub(crate) room: [u8; 16],
    pub(crate) epoch: u32,
    pub(crate) roster_hash: [u8; 32],
    pub(crate) id: [u8; 16],
    pub(crate) n: u32,
    pub(crate) ck: [u8; 32],
    /// The public half that the link names.
    pub(crate) sig_pub: [u8; 32],
    pub(crate) prev: ([u8; 16], u32),
}

impl Chain {
    /// A fresh one, and the seed of its signature key.
    pub(crate) fn fresh(room: [u8; 16], epoch: u32, roster_hash: [u8; 32], rng: &mut Seeded) -> (Chain, [u8; 32]) {
        let seed = draw(rng);
        let sig_pub = SigningKey::from_bytes(&seed).verifying_key().to_bytes();
        let (id, ck) = (draw(rng), draw(rng));
        (Chain { room, epoch, roster_hash, id, n: 0, ck, sig_pub, prev: ([0; 16], 0) }, seed)
    }

    /// Reads a link (the body of kind 3).
    pub(crate) fn read(skdm: &[u8]) -> Chain {
        let mut rest = skdm;
        let mut take = |n: usize| {
            let (now, later) = rest.split_at(n);
            rest = later;
            now
        };
        let chain = Chain {
            room: take(16).try_into().unwrap(),
            epoch: u32::from_be_bytes(take(4).try_into().unwrap()),
            roster_hash: take(32).try_into().unwrap(),
            id: take(16).try_into().unwrap(),
            n: u32::from_be_bytes(take(4).try_into().unwrap()),
            ck: take(32).try_into().unwrap(),
            sig_pub: take(32).try_into().unwrap(),
            prev: (take(16).try_into().unwrap(), u32::from_be_bytes(take(4).try_into().unwrap())),
        };
        assert!(rest.is_empty(), "a link has 156 bytes");
        chain
    }

    /// The link.
    pub(crate) fn skdm(&self) -> Vec<u8> {
        [
            &self.room[..],
            &self.epoch.to_be_bytes(),
            &self.roster_hash,
            &self.id,
            &self.n.to_be_bytes(),
            &self.ck,
            &self.sig_pub,
            &self.prev.0,
            &self.prev.1.to_be_bytes(),
        ]
        .concat()
    }

    /// A GROUP envelope at the chain's present place, in the name of `sender`, signed with any key.
    pub(crate) fn seal(&mut self, sender: &Party, padded: &[u8], seed: &[u8; 32], rng: &mut Seeded) -> Vec<u8> {
        let salt: [u8; 16] = draw(rng);
        let (derived, next, aad) = self.derived(sender, &salt);
        let sealed = [&derived.com[..], &derived.gcm(&aad, padded)].concat();
        let envelope = self.signed(sender, &salt, &sealed, seed);
        (self.ck, self.n) = (next, self.n + 1);
        envelope
    }

    /// One GROUP envelope whose GCM body opens under the keys of two chains; committed to the first.
    pub(crate) fn salamander(
        one: &Chain,
        two: &Chain,
        sender: &Party,
        padded: &[u8],
        at: usize,
        seed: &[u8; 32],
        rng: &mut Seeded,
    ) -> Vec<u8> {
        let salt: [u8; 16] = draw(rng);
        let ((first, _, aad), (second, ..)) = (one.derived(sender, &salt), two.derived(sender, &salt));
        let body = salamander(&first, &second, &aad, padded, at);
        one.signed(sender, &salt, &[&first.com[..], &body].concat(), seed)
    }

    /// The key of the next message, the next link, and what is authenticated with it.
    fn derived(&self, sender: &Party, salt: &[u8; 16]) -> (Derived, [u8; 32], Vec<u8>) {
        let (key, next) = chain_step(&self.ck);
        let aad = [&self.ad(sender)[..], &self.header(sender, salt)].concat();
        (derive(&key, salt, &aad), next, aad)
    }

    fn ad(&self, sender: &Party) -> [u8; 32] {
        hash(&[&label("ad-group"), &party(sender), &self.room, &self.roster_hash])
    }

    fn header(&self, sender: &Party, salt: &[u8; 16]) -> Vec<u8> {
        let device = &sender.address.device.0;
        [&[1, 3][..], &self.room, device, &self.epoch.to_be_bytes(), &self.id, &self.n.to_be_bytes(), salt].concat()
    }

    fn signed(&self, sender: &Party, salt: &[u8; 16], sealed: &[u8], seed: &[u8; 32]) -> Vec<u8> {
        let signed = [&self.header(sender, salt)[..], sealed].concat();
        let sig = sign_seed(seed, "group", &[&self.ad(sender)[..], &signed].concat());
        [&signed[..], &sig].concat()
    }
}

/// A roster entry in the making.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) room_id: [u8; 16],
    pub(crate) epoch: u32,
    pub(crate) prev: [u8; 32],
    pub(crate) op: u8,
    pub(crate) room: String,
    pub(crate) user: String,
    pub(crate) aik: [u8; 32],
    pub(crate) list: Vec<u8>,
}

impl Entry {
    /// Signed by a device.
    pub(crate) fn sign(&self, cert: &[u8], dsk: &e2e::sign::SignKey) -> Vec<u8> {
        let body = [
            &[1, 0x20][..],
            &self.room_id,
            &self.epoch.to_be_bytes(),
            &self.prev,
            &crate::evil::now().secs().to_be_bytes(),
            &[self.op],
            &lp(self.room.as_bytes()),
            &lp(self.user.as_bytes()),
            &self.aik,
            &lp(&self.list),
            &lp(cert),
        ]
        .concat();
        let sig = sign(dsk, "roster", &body);
        [&body[..], &sig].concat()
    }
}

/// The seven points of small order of Curve25519 as u-coordinates (Bernstein, "Curve25519: new
/// Diffie-Hellman speed records", and its list on cr.yp.to): 0, 1, two of order 8, and p − 1, p, p + 1.
pub(crate) const SMALL_ORDER: [[u8; 32]; 7] = [
    [0; 32],
    *b"\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
    *b"\xe0\xeb\x7a\x7c\x3b\x41\xb8\xae\x16\x56\xe3\xfa\xf1\x9f\xc4\x6a\xda\x09\x8d\xeb\x9c\x32\xb1\xfd\x86\x62\x05\x16\x5f\x49\xb8\x00",
    *b"\x5f\x9c\x95\xbc\xa3\x50\x8c\x24\xb1\xd0\xb1\x55\x9c\x83\xef\x5b\x04\x44\x5c\xc4\x58\x1c\x8e\x86\xd8\x22\x4e\xdd\xd0\x9f\x11\x57",
    *b"\xec\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
    *b"\xed\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
    *b"\xee\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
];

/// All of them, without and with the top bit, which X25519 ignores.
pub(crate) fn small_order_points() -> Vec<[u8; 32]> {
    let with_top = |mut point: [u8; 32]| {
        point[31] |= 0x80;
        point
    };
    SMALL_ORDER.into_iter().chain(SMALL_ORDER.map(with_top)).collect()
}

/// One GCM body that opens under two keys (Dodis, Grubbs, Ristenpart, Woodage 2018): block `at` of the
/// first text is given up and solved for. Returns `ct ‖ tag`; what it says under `second` is noise.
pub(crate) fn salamander(first: &Derived, second: &Derived, aad: &[u8], text: &[u8], at: usize) -> Vec<u8> {
    assert!(text.len().is_multiple_of(16), "whole blocks");
    let sealed = first.gcm(aad, text);
    let mut blocks: Vec<u128> = sealed[..text.len()].chunks(16).map(block).collect();
    let lengths = (aad.len() as u128 * 8) << 64 | (text.len() as u128 * 8);
    let aads: Vec<u128> = aad.chunks(16).map(block).collect();
    blocks[at] = 0;
    // The tag is E(J0) ^ GHASH, and GHASH is a polynomial of H: here all of it but the block, and the
    // power of H at which the block stands.
    let parts = |derived: &Derived| {
        let (mask, h) = tag_parts(derived);
        let all = aads.iter().chain(&blocks).chain([&lengths]);
        let power = (0..blocks.len() - at).fold(h, |power, _| mul(power, h));
        (mask ^ all.fold(0, |sum, block| mul(sum ^ block, h)), power)
    };
    let ((rest1, power1), (rest2, power2)) = (parts(first), parts(second));
    blocks[at] = mul(rest1 ^ rest2, invert(power1 ^ power2));
    let tag = rest1 ^ mul(blocks[at], power1);
    blocks.iter().chain([&tag]).flat_map(|block| block.to_be_bytes()).collect()
}

fn block(bytes: &[u8]) -> u128 {
    let mut whole = [0; 16];
    whole[..bytes.len()].copy_from_slice(bytes);
    u128::from_be_bytes(whole)
}

/// Multiplication in GCM's field (SP 800-38D §6.3).
fn mul(x: u128, y: u128) -> u128 {
    let (mut z, mut v) = (0, y);
    for i in (0..128).rev() {
        if x >> i & 1 == 1 {
            z ^= v;
        }
        v = if v & 1 == 1 { v >> 1 ^ (0xe1 << 120) } else { v >> 1 };
    }
    z
}

/// x^(2^128 − 2).
fn invert(x: u128) -> u128 {
    let (mut out, mut power) = (1 << 127, mul(x, x));
    for _ in 1..128 {
        out = mul(out, power);
        power = mul(power, power);
    }
    out
}

/// E_K(J0) and the hash key H, out of two tags over nothing.
fn tag_parts(derived: &Derived) -> (u128, u128) {
    let tag = |aad: &[u8]| block(&derived.gcm(aad, &[]));
    let mask = tag(&[]);
    (mask, mul(tag(&[0; 16]) ^ mask, invert(128 << 64)))
}

//! Sealing and opening by the end-to-end library, beside the primitives that it cannot do without: the same
//! crates, called in a row, with nothing parsed, looked up or kept. Which those are, and over how many bytes, follows
//! from docs/encryption.md; its sections stand beside the calls. What is the same for every message (the associated
//! data of a session or chain, a conversation's id, the point of a public key) is none of them, and neither is base64.

use std::cell::RefCell;
use std::hint::black_box;
use std::time::Duration;

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, KeyInit};
use downstream::e2e::rng::Rng;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

use crate::Failure;
use crate::e2e::{Seeded, Talk};
use crate::report::Figures;
use crate::servers::cpu;

/// Messages before everything begins anew: below the thousand after which a room's chain is changed, so that
/// what is measured is a message and not the giving of a chain.
const ROUND: usize = 500;
/// The inner message, with its 128 bytes of text, and what its padding makes of it (§10).
const INNER: usize = 83 + 128;
const PADDED: usize = 256;
/// A salt, and what a sealing adds to a text: the commitment and the tag (§8).
const SALT: usize = 16;
const OVERHEAD: usize = 32 + 16;
/// The associated data AD, and a RATCHET or GROUP up to its salt: what a slot and a room's text are bound to (§9, §15).
const HEADER: usize = 74;
const BOUND: usize = 32 + HEADER;
/// The label and who talks to whom, "alice" and "bob": what a payload is bound to (§9).
const BOUND_PAYLOAD: usize = 19 + 7 + 16 + 5;
/// A slot holds the key and the hash of the payload (§9).
const SLOT: usize = 64;
/// The label of a GROUP's signature, AD_g and all before it (§15).
const SIGNED: usize = 19 + BOUND + OVERHEAD + PADDED;

/// One measured kind.
pub(crate) struct Case {
    pub(crate) work: &'static str,
    pub(crate) by: &'static str,
    pub(crate) figures: Figures,
}

/// Everything, for about `length` each.
pub(crate) fn cases(length: Duration, members: usize) -> Result<Vec<Case>, Failure> {
    let mut cases = Vec::new();
    let talks = [("direct", Talk::direct()), ("room", Talk::room(members))];
    for (kind, talk) in talks {
        let names = if kind == "room" { ["seal in a room", "open in a room"] } else { ["seal", "open"] };
        let (mut sealing, mut opening, mut messages) = (Duration::ZERO, Duration::ZERO, 0);
        while sealing + opening < 2 * length {
            let mut talk = talk.clone();
            let begun = cpu("/proc/self")?;
            let lines: Vec<_> = (0..ROUND).map(|_| talk.seal()).collect();
            let sealed = cpu("/proc/self")?;
            lines.iter().for_each(|line| talk.open(line));
            opening += cpu("/proc/self")? - sealed;
            sealing += sealed - begun;
            messages += ROUND;
        }
        for (work, took) in names.into_iter().zip([sealing, opening]) {
            cases.push(Case { work, by: "dsc", figures: rate(took, messages) });
        }
        let (seal, open) = if kind == "room" { primitives_room() } else { primitives_direct() };
        for (work, once) in names.into_iter().zip([seal, open]) {
            let (mut took, mut messages) = (Duration::ZERO, 0);
            while took < length {
                let begun = cpu("/proc/self")?;
                (0..ROUND).for_each(|_| once());
                took += cpu("/proc/self")? - begun;
                messages += ROUND;
            }
            cases.push(Case { work, by: "primitives", figures: rate(took, messages) });
        }
    }
    Ok(cases)
}

fn rate(took: Duration, messages: usize) -> Figures {
    let mut figures = Figures::default();
    figures.set("CPU us a message", took.as_secs_f64() * 1e6 / messages as f64);
    figures.set("a second", messages as f64 / took.as_secs_f64());
    figures
}

type Once = Box<dyn Fn()>;

/// One to one: both salts, the content key and the message's id are drawn, and the inner message hashed for the next
/// one. A step of the chain, then the payload is sealed, and its hash and key into the slot (§8 to §10). Whoever opens
/// it hashes the slot first, to know it again (§11).
fn primitives_direct() -> (Once, Once) {
    let slot = committed(&[0; BOUND], &[1; SLOT]);
    let payload = committed(&[0; BOUND_PAYLOAD], &[2; PADDED]);
    let rng = RefCell::new(Seeded::new(1));
    let seal = move || {
        draw(&rng, [16, 32, SALT, SALT]);
        hash(&[3; INNER]);
        black_box(committed(&[0; BOUND_PAYLOAD], &[2; PADDED]));
        hash(&[2; SALT + OVERHEAD + PADDED]);
        chain_step();
        black_box(committed(&[0; BOUND], &[1; SLOT]));
    };
    let open = move || {
        hash(&[1; HEADER + OVERHEAD + SLOT]);
        chain_step();
        black_box(opened(&[0; BOUND], &slot));
        hash(&[2; SALT + OVERHEAD + PADDED]);
        black_box(opened(&[0; BOUND_PAYLOAD], &payload));
        hash(&[3; INNER]);
    };
    (Box::new(seal), Box::new(open))
}

/// In a room: salt and id are drawn, and the inner message hashed for the next one. A step of the chain, the text is
/// sealed, and all of it signed (§8, §10, §15). Whoever opens it hashes it all first, to know it again (§15).
fn primitives_room() -> (Once, Once) {
    let key = SigningKey::from_bytes(&[5; 32]);
    let public: VerifyingKey = key.verifying_key();
    let sealed = committed(&[0; BOUND], &[2; PADDED]);
    let signature: Signature = key.sign(&[6; SIGNED]);
    let rng = RefCell::new(Seeded::new(1));
    let seal = move || {
        draw(&rng, [16, SALT]);
        hash(&[3; INNER]);
        chain_step();
        black_box(committed(&[0; BOUND], &[2; PADDED]));
        black_box(key.sign(black_box(&[6; SIGNED])));
    };
    let open = move || {
        hash(&[1; HEADER + OVERHEAD + PADDED + 64]);
        black_box(public.verify_strict(black_box(&[6; SIGNED]), &signature).is_ok());
        chain_step();
        black_box(opened(&[0; BOUND], &sealed));
        hash(&[3; INNER]);
    };
    (Box::new(seal), Box::new(open))
}

/// From the generator that the library is given here as well.
fn draw<const N: usize>(rng: &RefCell<Seeded>, lengths: [usize; N]) {
    for length in lengths {
        let mut bytes = [0; 32];
        // It never fails.
        let _ = rng.borrow_mut().fill(&mut bytes[..length]);
        black_box(bytes);
    }
}

fn hash(bytes: &[u8]) {
    black_box(Sha256::digest(black_box(bytes)));
}

/// The next key of a chain, and the message's; both are under one key, which is taken in once (§8).
fn chain_step() {
    let chain = <Hmac<Sha256> as KeyInit>::new(black_box(&[3; 64].into()));
    for byte in [1, 2] {
        let mut mac = chain.clone();
        mac.update(&[byte]);
        black_box(mac.finalize().into_bytes());
    }
}

/// Key, nonce and commitment of a sealing, and the cipher (§8).
fn derived(bound: &[u8]) -> (Aes256Gcm, [u8; 12]) {
    let bound = Sha256::digest(black_box(bound));
    let mut okm = [0; 76];
    // The length is one that HKDF gives.
    let _ = Hkdf::<Sha256>::new(Some(&[4; SALT]), &[3; 32])
        .expand_multi_info(&[black_box(b"DownStream/1 caead"), &bound], &mut okm);
    let okm = black_box(okm);
    let mut nonce = [0; 12];
    nonce.copy_from_slice(&okm[32..44]);
    let mut key = [0; 32];
    key.copy_from_slice(&okm[..32]);
    (Aes256Gcm::new(&key.into()), nonce)
}

fn committed(bound: &[u8], text: &[u8]) -> Vec<u8> {
    let (gcm, nonce) = derived(bound);
    gcm.encrypt(&nonce.into(), Payload { msg: text, aad: bound }).unwrap_or_default()
}

fn opened(bound: &[u8], sealed: &[u8]) -> Vec<u8> {
    let (gcm, nonce) = derived(bound);
    gcm.decrypt(&nonce.into(), Payload { msg: sealed, aad: bound }).unwrap_or_default()
}

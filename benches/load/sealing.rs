//! Sealing and opening by the end-to-end library, beside the primitives that it cannot do without: the same
//! crates, called in a row, with nothing parsed, looked up or kept.

use std::hint::black_box;
use std::time::Duration;

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, KeyInit};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

use crate::Failure;
use crate::e2e::Talk;
use crate::report::Figures;
use crate::servers::cpu;

/// Messages before everything begins anew: below the thousand after which a room's chain is changed, so that
/// what is measured is a message and not the giving of a chain.
const ROUND: usize = 500;
/// What the padded text of 128 bytes has, with what stands around it inside.
const PADDED: usize = 256;
/// What is bound to a sealed text: names, counters, the header of the envelope.
const BOUND: usize = 150;
/// A slot of an envelope holds the key and the hash of the payload.
const SLOT: usize = 64;

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

/// One to one: a step of the chain, then the slot and the payload are sealed, and the payload hashed into the
/// slot.
fn primitives_direct() -> (Once, Once) {
    let slot = committed(&[1; SLOT]);
    let payload = committed(&[2; PADDED]);
    let seal = || {
        chain_step();
        black_box(committed(&[1; SLOT]));
        black_box(Sha256::digest(committed(&[2; PADDED])));
    };
    let open = move || {
        chain_step();
        black_box(opened(&slot));
        black_box(Sha256::digest(&payload));
        black_box(opened(&payload));
    };
    (Box::new(seal), Box::new(open))
}

/// In a room: a step of the chain, the text is sealed, and all of it signed.
fn primitives_room() -> (Once, Once) {
    let key = SigningKey::from_bytes(&[5; 32]);
    let public: VerifyingKey = key.verifying_key();
    let sealed = committed(&[2; PADDED]);
    let signature: Signature = key.sign(&sealed);
    let seal = move || {
        chain_step();
        let sealed = committed(&[2; PADDED]);
        black_box(key.sign(&sealed));
    };
    let open = move || {
        black_box(public.verify_strict(&sealed, &signature).is_ok());
        chain_step();
        black_box(opened(&sealed));
    };
    (Box::new(seal), Box::new(open))
}

/// The next key of a chain, and the message's.
fn chain_step() {
    for byte in [1, 2] {
        let mut mac = <Hmac<Sha256> as KeyInit>::new(black_box(&[3; 64].into()));
        mac.update(&[byte]);
        black_box(mac.finalize().into_bytes());
    }
}

/// Key, nonce and commitment of a sealing, and the cipher.
fn derived() -> (Aes256Gcm, [u8; 12]) {
    let bound = Sha256::digest(black_box([0; BOUND]));
    let mut okm = [0; 76];
    // The length is one that HKDF gives.
    let _ = Hkdf::<Sha256>::new(Some(&[4; 16]), &[3; 32]).expand(&bound, &mut okm);
    let okm = black_box(okm);
    let mut nonce = [0; 12];
    nonce.copy_from_slice(&okm[32..44]);
    let mut key = [0; 32];
    key.copy_from_slice(&okm[..32]);
    (Aes256Gcm::new(&key.into()), nonce)
}

fn committed(text: &[u8]) -> Vec<u8> {
    let (gcm, nonce) = derived();
    gcm.encrypt(&nonce.into(), Payload { msg: text, aad: &[0; BOUND] }).unwrap_or_default()
}

fn opened(sealed: &[u8]) -> Vec<u8> {
    let (gcm, nonce) = derived();
    gcm.decrypt(&nonce.into(), Payload { msg: sealed, aad: &[0; BOUND] }).unwrap_or_default()
}

//! The payload of a MULTI envelope: sealed once, for every slot.
//!
//! `CAEAD(content_key, salt, aad = L"multi" ‖ 00 ‖ lp(sender user) ‖ sender device ‖ lp(receiver user), pad(inner))`
//!
//! A slot's text is `content_key 32 ‖ H(salt ‖ com ‖ ct ‖ tag) 32`: every receiver learns the content
//! key, so the hash keeps one of them from putting another payload under the others' slots.

use zeroize::Zeroizing;

use super::caead::{self, OVERHEAD, SALT_LEN};
use super::envelope::{Multi, SLOT_TEXT_LEN};
use super::error::{Error, SealError};
use super::kdf;
use super::labels;
use super::name::{Address, User};
use super::padding::{pad_onto, padded};
use super::rng::{self, Rng};
use super::secret::{self, Secret};
use super::wire::Put;

/// What the payload is bound to: who sealed it, and to which account the line goes.
fn associated_data(sender: &Address, receiver: &User) -> Vec<u8> {
    let mut who = Vec::with_capacity(128);
    who.put(labels::MULTI.nul()).put_lp(sender.user.as_bytes()).put(&sender.device.0);
    if !cfg!(feature = "break-multi-aad") {
        who.put_lp(receiver.as_bytes());
    }
    who
}

/// A sealed payload.
pub(crate) struct Payload {
    /// `salt ‖ com ‖ ct ‖ tag`.
    pub(crate) tail: Vec<u8>,
    /// What goes into every slot.
    pub(crate) slot_text: Zeroizing<[u8; SLOT_TEXT_LEN]>,
}

/// Seals an inner message for the slots.
pub(crate) fn seal(sender: &Address, receiver: &User, inner: &[u8], rng: &mut dyn Rng) -> Result<Payload, SealError> {
    let content_key: Secret<32> = rng::secret(rng)?;
    let salt = caead::draw_salt(rng)?;
    let len = padded(inner);
    let mut tail = Vec::with_capacity(SALT_LEN + OVERHEAD + len);
    tail.put(&salt);
    let bound = associated_data(sender, receiver);
    caead::seal_onto(&mut tail, &content_key, &salt, &bound, len, |out| pad_onto(out, inner))?;
    let mut slot_text = Zeroizing::new([0; SLOT_TEXT_LEN]);
    let (key, hash) = slot_text.split_at_mut(32);
    key.copy_from_slice(content_key.expose());
    hash.copy_from_slice(&kdf::hash(&[&tail]));
    Ok(Payload { tail, slot_text })
}

/// Opens the payload with what a slot said: the padded inner message.
///
/// # Errors
/// [`Error::Payload`]: not the payload that the slot was made for, or moved to another conversation.
pub(crate) fn open(
    multi: &Multi<'_>,
    slot_text: &[u8],
    sender: &Address,
    receiver: &User,
) -> Result<Zeroizing<Vec<u8>>, Error> {
    let (content_key, hash) = slot_text.split_first_chunk::<32>().ok_or(Error::Payload)?;
    let content_key = Secret::copy_from(content_key);
    if !secret::equal(hash, &kdf::hash(&[multi.tail])) && !cfg!(feature = "break-slot-hash") {
        return Err(Error::Payload);
    }
    // Whatever is wrong from here on is no matter of the session, and no reset heals it.
    caead::open(&content_key, &multi.salt, &associated_data(sender, receiver), multi.payload)
        .map_err(|_| Error::Payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::e2e::envelope::Envelope;
    use crate::e2e::padding::{pad, unpad};
    use crate::e2e::testing::{Seeded, alice, bob};

    /// An envelope with that payload; its one slot is of no matter here.
    fn envelope(tail: &[u8]) -> Vec<u8> {
        let slot = [&[1, 2][..], &[0; 72], &[0; 112]].concat();
        Multi::write(alice().me.address().device, &[(bob().me.address().device, slot)], tail)
    }

    fn opened(tail: &[u8], slot_text: &[u8], sender: &Address, receiver: &User) -> Result<Vec<u8>, Error> {
        let raw = envelope(tail);
        let Ok(Envelope::Multi(multi)) = Envelope::parse(&raw) else { panic!("refused") };
        open(&multi, slot_text, sender, receiver).map(|padded| unpad(&padded).unwrap().to_vec())
    }

    #[test]
    fn who_knows_the_content_key_puts_no_other_payload_under_a_slot() {
        let (from, to) = (alice().me.address().clone(), bob().me.user().clone());
        let good = seal(&from, &to, b"good", &mut Seeded(1)).unwrap();
        assert_eq!(opened(&good.tail, &good.slot_text[..], &from, &to), Ok(b"good".to_vec()));
        // Another receiver of the same message seals its own text under the content key.
        let key = Secret::copy_from(good.slot_text[..32].try_into().unwrap());
        let salt = [7; 16];
        let sealed = caead::seal(&key, &salt, &associated_data(&from, &to), &pad(b"evil")).unwrap();
        let evil = [&salt[..], &sealed].concat();
        assert_eq!(opened(&evil, &good.slot_text[..], &from, &to), Err(Error::Payload));
    }

    #[test]
    fn a_payload_opens_from_its_sender_to_its_receiver_only() {
        let (a, b) = (alice(), bob());
        let (from, to) = (a.me.address(), b.me.user());
        let good = seal(from, to, b"good", &mut Seeded(1)).unwrap();
        assert_eq!(opened(&good.tail, &good.slot_text[..], from, a.me.user()), Err(Error::Payload));
        assert_eq!(opened(&good.tail, &good.slot_text[..], b.me.address(), to), Err(Error::Payload));
        assert_eq!(opened(&good.tail, &good.slot_text[..63], from, to), Err(Error::Payload));
    }
}

//! The forms of everything that travels in an `e2e:` body: where each byte of it stands.
//!
//! ```text
//! 01 01 PREKEY and 01 02 RATCHET   only in the slots of a MULTI
//! 01 03 GROUP                      a message to a room
//! 01 04 MULTI                      all that is pairwise
//! 01 05 REQUEST and 01 06 ANSWER   linking a device, see `link`
//! ```
//!
//! Parsing borrows and checks form only; a parsed envelope is as untrusted as its bytes.

use super::armour::ENVELOPE_MAX;
use super::bundle::NO_ID;
use super::caead::{COM_LEN, OVERHEAD, SALT_LEN, Salt, TAG_LEN};
use super::kem;
use super::name::{ChainId, DeviceId, RoomId, SessionId};
use super::prekeys::Named;
use super::sign::SIGNATURE_LEN;
use super::wire::{Malformed, Put, Reader};

const VERSION: u8 = 1;
const PREKEY: u8 = 1;
const RATCHET: u8 = 2;
const GROUP: u8 = 3;
const MULTI: u8 = 4;
pub(crate) const REQUEST: u8 = 5;
pub(crate) const ANSWER: u8 = 6;

/// Bytes 0 to 74 of a RATCHET, and of a GROUP: all before what is sealed.
pub(crate) const HEADER_LEN: usize = 74;

/// The most slots of a MULTI: 16 devices of the receiver and 15 others of the sender.
pub const SLOTS_MAX: usize = 32;

/// A slot's plaintext: the content key and the hash of the payload.
pub(crate) const SLOT_TEXT_LEN: usize = 32 + 32;

/// A received envelope, by type.
#[derive(Debug, Clone)]
pub enum Envelope<'a> {
    /// A message or signal to single devices.
    Multi(Multi<'a>),
    /// A message to a room.
    Group(Group<'a>),
    /// A new device asks to be linked.
    LinkRequest(&'a [u8]),
    /// The primary device answers.
    LinkAnswer(&'a [u8]),
}

impl<'a> Envelope<'a> {
    /// Parses an envelope.
    ///
    /// # Errors
    /// [`Malformed`]: another version or type, another length, or more than 73 725 bytes.
    pub fn parse(raw: &'a [u8]) -> Result<Self, Malformed> {
        if raw.len() > ENVELOPE_MAX {
            return Err(Malformed);
        }
        match raw {
            [VERSION, MULTI, ..] => Multi::parse(raw).map(Self::Multi),
            [VERSION, GROUP, ..] => Group::parse(raw).map(Self::Group),
            [VERSION, REQUEST, ..] => Ok(Self::LinkRequest(raw)),
            [VERSION, ANSWER, ..] => Ok(Self::LinkAnswer(raw)),
            _ => Err(Malformed),
        }
    }
}

/// A MULTI envelope:
/// `01 04 ‖ sender device 16 ‖ n 1 ‖ n × (device 16 ‖ u16 len ‖ slot) ‖ salt 16 ‖ com 32 ‖ ct ‖ tag 16`.
#[derive(Debug, Clone)]
pub struct Multi<'a> {
    /// The device that says it sealed this.
    pub device: DeviceId,
    /// For whom it is, in the order of the bytes.
    pub slots: Vec<(DeviceId, Slot<'a>)>,
    pub(crate) salt: Salt,
    /// `com ‖ ct ‖ tag`.
    pub(crate) payload: &'a [u8],
    /// `salt ‖ com ‖ ct ‖ tag`: what the slots hash.
    pub(crate) tail: &'a [u8],
}

impl<'a> Multi<'a> {
    fn parse(raw: &'a [u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(raw);
        r.expect_bytes(&[VERSION, MULTI])?;
        let device = DeviceId(r.array()?);
        let n = usize::from(r.u8()?);
        if !(1..=SLOTS_MAX).contains(&n) {
            return Err(Malformed);
        }
        let mut slots: Vec<(DeviceId, Slot<'a>)> = Vec::with_capacity(n);
        for _ in 0..n {
            let to = DeviceId(r.array()?);
            if slots.iter().any(|(known, _)| *known == to) {
                return Err(Malformed);
            }
            slots.push((to, Slot::parse(r.lp()?)?));
        }
        let tail = r.rest();
        let mut r = Reader::new(tail);
        let salt = r.array()?;
        let payload = r.rest();
        if payload.len() < OVERHEAD {
            return Err(Malformed);
        }
        Ok(Self { device, slots, salt, payload, tail })
    }

    /// The slot for a device.
    pub fn slot(&self, device: DeviceId) -> Option<&Slot<'a>> {
        self.slots.iter().find(|(to, _)| *to == device).map(|(_, slot)| slot)
    }

    /// Writes an envelope; `tail` is `salt ‖ com ‖ ct ‖ tag`.
    pub(crate) fn write(device: DeviceId, slots: &[(DeviceId, Vec<u8>)], tail: &[u8]) -> Vec<u8> {
        let room = 16 + 2;
        let len = 2 + 16 + 1 + slots.iter().map(|(_, slot)| room + slot.len()).sum::<usize>() + tail.len();
        let mut out = Vec::with_capacity(len);
        out.put(&[VERSION, MULTI]).put(&device.0).put_u8(u8::try_from(slots.len()).unwrap_or(u8::MAX));
        for (to, slot) in slots {
            out.put(&to.0).put_lp(slot);
        }
        out.put(tail);
        out
    }
}

/// A slot: `[PREKEY] RATCHET`.
#[derive(Debug, Clone)]
pub struct Slot<'a> {
    /// All its bytes.
    pub(crate) raw: &'a [u8],
    /// The handshake in front, until the sender has heard from the receiver.
    pub prekey: Option<Prekey<'a>>,
    /// The message.
    pub ratchet: Ratchet,
    /// The envelope from its byte 0 up to and including the salt.
    pub(crate) authenticated: &'a [u8],
    /// `com ‖ ct ‖ tag`.
    pub(crate) sealed: &'a [u8],
}

impl<'a> Slot<'a> {
    /// Parses a slot: exact length, one session id in both parts.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn parse(raw: &'a [u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(raw);
        let prekey = match raw {
            [VERSION, PREKEY, ..] => Some(Prekey::read(&mut r)?),
            _ => None,
        };
        let ratchet = Ratchet::read(&mut r)?;
        let authenticated = r.consumed();
        let sealed = r.take(COM_LEN + SLOT_TEXT_LEN + TAG_LEN)?;
        r.end()?;
        if prekey.as_ref().is_some_and(|p| p.sid != ratchet.sid) {
            return Err(Malformed);
        }
        Ok(Self { raw, prekey, ratchet, authenticated, sealed })
    }
}

/// The handshake part, PREKEY:
/// `01 01 ‖ sid 16 ‖ EK 32 ‖ spk_id 4 ‖ opk_id 4 ‖ pq_id 4 ‖ born_ms 8 ‖ kem_ct 1088 ‖ lp(DC)`.
#[derive(Debug, Clone)]
pub struct Prekey<'a> {
    /// The session that it starts.
    pub sid: SessionId,
    pub(crate) ek: [u8; 32],
    pub(crate) named: Named,
    /// When the sender made the session, Unix milliseconds; orders sessions.
    pub born_ms: u64,
    pub(crate) ciphertext: &'a [u8; kem::CIPHERTEXT_LEN],
    pub(crate) cert: &'a [u8],
}

impl<'a> Prekey<'a> {
    fn read(r: &mut Reader<'a>) -> Result<Self, Malformed> {
        r.expect_bytes(&[VERSION, PREKEY])?;
        let (sid, ek) = (SessionId(r.array()?), r.array()?);
        let (spk, opk, pqk) = (r.u32()?, r.u32()?, r.u32()?);
        let born_ms = r.u64()?;
        let ciphertext = r.take(kem::CIPHERTEXT_LEN)?.try_into().map_err(|_| Malformed)?;
        // Every session starts with both kinds of prekey; ids count from 1.
        if spk == NO_ID || pqk == NO_ID || [spk, opk, pqk].contains(&0) {
            return Err(Malformed);
        }
        let named = Named { spk, opk: (opk != NO_ID).then_some(opk), pqk };
        Ok(Self { sid, ek, named, born_ms, ciphertext, cert: r.lp()? })
    }

    pub(crate) fn write(&self) -> Vec<u8> {
        let mut out = vec![VERSION, PREKEY];
        out.put(&self.sid.0).put(&self.ek);
        out.put_u32(self.named.spk).put_u32(self.named.opk.unwrap_or(NO_ID)).put_u32(self.named.pqk);
        out.put_u64(self.born_ms).put(self.ciphertext).put_lp(self.cert);
        out
    }
}

/// The message part, RATCHET:
/// `01 02 ‖ sid 16 ‖ dh_pub 32 ‖ pn 4 ‖ n 4 ‖ salt 16`, then `com 32 ‖ ct ‖ tag 16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ratchet {
    /// The session.
    pub sid: SessionId,
    /// The sender's ratchet key.
    pub dh: [u8; 32],
    /// How many messages the sender's chain before this one had.
    pub pn: u32,
    /// This message's place in its chain, from 0.
    pub n: u32,
    pub(crate) salt: Salt,
}

impl Ratchet {
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        r.expect_bytes(&[VERSION, RATCHET])?;
        Ok(Self { sid: SessionId(r.array()?), dh: r.array()?, pn: r.u32()?, n: r.u32()?, salt: r.array()? })
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.put(&[VERSION, RATCHET]).put(&self.sid.0).put(&self.dh);
        out.put_u32(self.pn).put_u32(self.n).put(&self.salt);
    }
}

/// A message to a room, GROUP:
/// `01 03 ‖ room 16 ‖ device 16 ‖ epoch 4 ‖ chain 16 ‖ n 4 ‖ salt 16 ‖ com 32 ‖ ct ‖ tag 16 ‖ sig 64`.
#[derive(Debug, Clone)]
pub struct Group<'a> {
    /// All its bytes.
    pub(crate) raw: &'a [u8],
    /// The room.
    pub room: RoomId,
    /// The device that says it sealed this.
    pub device: DeviceId,
    /// The roster entry under which the chain was made.
    pub epoch: u32,
    /// The sender's chain.
    pub chain: ChainId,
    /// The place in the chain, from 0.
    pub n: u32,
    pub(crate) salt: Salt,
    /// Bytes 0 to 74.
    pub(crate) header: &'a [u8],
    /// `com ‖ ct ‖ tag`.
    pub(crate) sealed: &'a [u8],
    /// All but the signature.
    pub(crate) signed: &'a [u8],
    pub(crate) sig: &'a [u8; SIGNATURE_LEN],
}

impl<'a> Group<'a> {
    fn parse(raw: &'a [u8]) -> Result<Self, Malformed> {
        let (signed, sig) = raw.split_last_chunk::<SIGNATURE_LEN>().ok_or(Malformed)?;
        let mut r = Reader::new(signed);
        r.expect_bytes(&[VERSION, GROUP])?;
        let (room, device) = (RoomId(r.array()?), DeviceId(r.array()?));
        let (epoch, chain, n) = (r.u32()?, ChainId(r.array()?), r.u32()?);
        let salt: [u8; SALT_LEN] = r.array()?;
        let header = r.consumed();
        let sealed = r.rest();
        if sealed.len() < OVERHEAD {
            return Err(Malformed);
        }
        Ok(Self { raw, room, device, epoch, chain, n, salt, header, sealed, signed, sig })
    }

    /// Appends bytes 0 to 74 of an envelope.
    pub(crate) fn write_header(
        out: &mut Vec<u8>,
        (room, device): (RoomId, DeviceId),
        epoch: u32,
        (chain, n): (ChainId, u32),
        salt: &Salt,
    ) {
        out.put(&[VERSION, GROUP]).put(&room.0).put(&device.0).put_u32(epoch).put(&chain.0).put_u32(n).put(salt);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_bytes_panic(raw in proptest::collection::vec(any::<u8>(), 0..400), type_ in 0_u8..8) {
            let mut raw = raw;
            let _ = Slot::parse(&raw);
            if let [version, second, ..] = raw.as_mut_slice() {
                (*version, *second) = (VERSION, type_);
            }
            let _ = (Slot::parse(&raw), Envelope::parse(&raw));
        }

        #[test]
        fn writing_undoes_parsing(sid in any::<[u8; 16]>(), dh in any::<[u8; 32]>(), pn: u32, n: u32, salt in any::<[u8; 16]>(),
                                  sealed in any::<[[u8; 16]; 7]>(), opk in 1_u32.., cert in proptest::collection::vec(any::<u8>(), 0..300)) {
            let ratchet = Ratchet { sid: SessionId(sid), dh, pn, n, salt };
            let mut plain = Vec::new();
            ratchet.write(&mut plain);
            plain.extend_from_slice(sealed.as_flattened());
            let slot = Slot::parse(&plain).unwrap();
            prop_assert_eq!(slot.ratchet, ratchet);
            prop_assert_eq!([slot.authenticated, slot.sealed].concat(), plain.clone());

            let named = Named { spk: 7, opk: (opk != NO_ID).then_some(opk), pqk: 9 };
            let prekey = Prekey { sid: SessionId(sid), ek: dh, named, born_ms: 5, ciphertext: &[1; 1088], cert: &cert };
            let raw = [prekey.write(), plain].concat();
            let slot = Slot::parse(&raw).unwrap();
            prop_assert_eq!(slot.prekey.as_ref().unwrap().write(), prekey.write());
            prop_assert!(Slot::parse(&[&raw[..], &[0]].concat()).is_err());

            let device = DeviceId(sid);
            let tail = [3; 64];
            let envelope = Multi::write(device, &[(device, raw.clone()), (DeviceId([7; 16]), raw)], &tail);
            if sid != [7; 16] {
                let Ok(Envelope::Multi(multi)) = Envelope::parse(&envelope) else { panic!("refused") };
                let slots: Vec<_> = multi.slots.iter().map(|(to, slot)| (*to, slot.raw.to_vec())).collect();
                prop_assert_eq!(Multi::write(multi.device, &slots, multi.tail), envelope);
            }
        }
    }

    #[test]
    fn a_device_with_two_slots_is_refused() {
        let slot = [&[1, 2][..], &[0; 72], &[0; 112]].concat();
        let id = DeviceId([1; 16]);
        assert!(Envelope::parse(&Multi::write(id, &[(id, slot.clone())], &[0; 64])).is_ok());
        assert!(Envelope::parse(&Multi::write(id, &[(id, slot.clone()), (id, slot)], &[0; 64])).is_err());
        assert!(Envelope::parse(&Multi::write(id, &[], &[0; 64])).is_err());
    }
}

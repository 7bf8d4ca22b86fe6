//! One entry of a room's membership log: its form and its signatures.
//!
//! ```text
//! 0 1 01   1 1 20   2 16 room_id   18 4 epoch   22 32 prev   54 8 time   62 1 op
//! 63 .. lp(room, with #) ‖ lp(user) ‖ AIK 32 ‖ lp(DL or empty) ‖ lp(DC signer) ‖ sig 64 by the signer's DSK
//! ```

use super::cert::Certificate;
use super::device_list::DeviceList;
use super::error::{Error, NoRandom};
use super::identity::Identity;
use super::kdf;
use super::labels;
use super::name::{RoomId, RoomName, User};
use super::rng::{self, Rng};
use super::sign::{self, SIGNATURE_LEN};
use super::time::Now;
use super::wire::{Malformed, Put, Reader};

const VERSION: u8 = 1;
const TYPE: u8 = 0x20;
const LABEL: labels::Label = labels::ROSTER;

/// What an entry does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Op {
    /// The room begins; members are added by admins.
    CreateClosed = 1,
    /// The room begins; any account may join.
    CreateOpen = 2,
    /// An admin adds an account.
    Add = 3,
    /// An admin removes a member.
    Remove = 4,
    /// An admin makes a member one.
    Promote = 5,
    /// An admin makes an admin a member only.
    Demote = 6,
    /// An account joins an open room.
    Join = 7,
    /// A member leaves.
    Leave = 8,
    /// A member shows a newer device list.
    Devices = 9,
}

impl Op {
    fn read(byte: u8) -> Result<Self, Malformed> {
        Ok(match byte {
            1 => Self::CreateClosed,
            2 => Self::CreateOpen,
            3 => Self::Add,
            4 => Self::Remove,
            5 => Self::Promote,
            6 => Self::Demote,
            7 => Self::Join,
            8 => Self::Leave,
            9 => Self::Devices,
            _ => return Err(Malformed),
        })
    }

    /// Whether the entry carries a device list.
    pub fn carries_list(self) -> bool {
        matches!(self, Self::CreateClosed | Self::CreateOpen | Self::Add | Self::Join | Self::Devices)
    }

    /// Whether it begins a room.
    pub fn creates(self) -> bool {
        matches!(self, Self::CreateClosed | Self::CreateOpen)
    }
}

/// An entry whose signatures hold: the signer's certificate is signed by the AIK it names, the entry
/// by that certificate's device, the device list (if the op carries one) by the AIK of the account it
/// is about. Whether the entry is *valid* depends on the log before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    raw: Vec<u8>,
    pub(crate) room_id: RoomId,
    pub(crate) epoch: u32,
    pub(crate) prev: [u8; 32],
    /// When the author says it was made, Unix seconds; for people only.
    pub time: u64,
    /// What it does.
    pub op: Op,
    pub(crate) room: RoomName,
    /// Whom it is about.
    pub user: User,
    /// Their identity key.
    pub aik: [u8; 32],
    pub(crate) list: Option<DeviceList>,
    pub(crate) signer: Certificate,
}

impl Entry {
    /// Makes and signs an entry. `place` is (room_id, epoch, prev) as [`super::roster_log::Roster`]
    /// gives it for the next one.
    pub(crate) fn sign(
        me: &Identity,
        (room_id, epoch, prev): (RoomId, u32, [u8; 32]),
        room: &RoomName,
        op: Op,
        (user, aik): (&User, &[u8; 32]),
        list: Option<&DeviceList>,
        now: Now,
    ) -> Vec<u8> {
        let mut raw = vec![VERSION, TYPE];
        raw.put(&room_id.0).put_u32(epoch).put(&prev).put_u64(now.secs()).put_u8(op as u8);
        raw.put_lp(room.as_bytes()).put_lp(user.as_bytes()).put(aik);
        raw.put_lp(list.map_or(&[], DeviceList::bytes)).put_lp(me.cert().bytes());
        if op.creates() {
            let id = room_id_of(&raw);
            raw.iter_mut().skip(2).zip(id.0).for_each(|(place, byte)| *place = byte);
        }
        let sig = me.dsk().sign(LABEL, &[&raw]);
        raw.put(&sig);
        raw
    }

    /// A create entry for a new room: op is [`Op::CreateClosed`] or [`Op::CreateOpen`].
    ///
    /// # Errors
    /// [`NoRandom`].
    pub fn create(
        me: &Identity,
        room: &RoomName,
        open: bool,
        list: &DeviceList,
        now: Now,
        rng: &mut dyn Rng,
    ) -> Result<Vec<u8>, NoRandom> {
        let op = if open { Op::CreateOpen } else { Op::CreateClosed };
        let place = (RoomId([0; 16]), 1, rng::bytes(rng)?);
        Ok(Self::sign(me, place, room, op, (me.user(), me.aik()), Some(list), now))
    }

    /// Parses an entry and verifies every signature in it.
    ///
    /// # Errors
    /// [`Error::Syntax`], [`Error::Identity`] for a list of somebody else, [`Error::Signature`].
    pub fn verify(raw: &[u8]) -> Result<Self, Error> {
        let entry = Self::parse(raw)?;
        Certificate::verify(entry.signer.bytes())?;
        let (body, sig) = raw.split_last_chunk::<SIGNATURE_LEN>().ok_or(Error::Syntax)?;
        sign::verify(entry.signer.dsk(), LABEL, body, sig)?;
        if let Some(list) = &entry.list {
            DeviceList::verify(list.bytes(), &entry.user, &entry.aik)?;
        }
        Ok(entry)
    }

    /// The form alone.
    pub(crate) fn parse(raw: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(raw);
        r.expect_bytes(&[VERSION, TYPE])?;
        let (room_id, epoch, prev) = (RoomId(r.array()?), r.u32()?, r.array()?);
        let (time, op) = (r.u64()?, Op::read(r.u8()?)?);
        let (room, user) = (RoomName::parse(r.lp_str()?)?, User::parse(r.lp_str()?)?);
        let aik = r.array()?;
        let list = match r.lp()? {
            [] => None,
            list => Some(DeviceList::parse(list)?),
        };
        let signer = Certificate::parse(r.lp()?)?;
        r.take(SIGNATURE_LEN)?;
        r.end()?;
        if list.is_some() != op.carries_list() {
            return Err(Malformed);
        }
        Ok(Self { raw: raw.to_vec(), room_id, epoch, prev, time, op, room, user, aik, list, signer })
    }

    /// The device list that it carries.
    pub fn list(&self) -> Option<&DeviceList> {
        self.list.as_ref()
    }

    /// Who signed it.
    pub fn signed_by(&self) -> &User {
        &self.signer.address().user
    }

    /// H(entry), its signature included.
    pub fn hash(&self) -> [u8; 32] {
        kdf::hash(&[&self.raw])
    }

    /// Whether the signer is the account that the entry is about.
    pub(crate) fn by_oneself(&self) -> bool {
        self.signer.address().user == self.user && *self.signer.aik() == self.aik
    }

    /// Whether the device list in the entry names the signer's certificate.
    pub(crate) fn lists_signer(&self) -> bool {
        self.list.as_ref().is_some_and(|list| list.lists(&self.signer.hash()))
    }

    /// Whether a create entry carries the id that follows from its bytes.
    pub(crate) fn names_itself(&self) -> bool {
        let Some((body, _)) = self.raw.split_last_chunk::<SIGNATURE_LEN>() else { return false };
        let mut zeroed = body.to_vec();
        zeroed.iter_mut().skip(2).take(16).for_each(|byte| *byte = 0);
        room_id_of(&zeroed) == self.room_id
    }
}

/// `H(L"room-id" ‖ 00 ‖ the create entry before sig, with room_id zeroed)[0..16]`.
fn room_id_of(zeroed: &[u8]) -> RoomId {
    RoomId(kdf::first16(kdf::hash(&[labels::ROOM_ID.nul(), zeroed])))
}

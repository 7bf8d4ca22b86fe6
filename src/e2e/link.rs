//! Linking a new device to an account: what the two devices say to each other, and the code that a
//! person carries from one to the other.
//!
//! ```text
//! REQUEST 01 05 ‖ device_id 16 ‖ DSK 32 ‖ DIK 32 ‖ EK 32
//! code    base32(H(L"link-code" ‖ 00 ‖ request)[0..16] ‖ s), s = 16 random bytes
//! ANSWER  01 06 ‖ device_id 16 ‖ PEK 32 ‖ salt 16 ‖ CAEAD(k, salt, aad = the 66 bytes before,
//!           pad(lp(DC) ‖ lp(DL) ‖ u16 count ‖ count × (lp(user) ‖ AIK 32 ‖ u8 1 unverified | 2 verified)))
//! k       = HKDF(salt = s, ikm = DH(PEK, EK), info = L"link" ‖ H(request) ‖ PEK, 32)
//! ```
//!
//! The code names the request by its hash, so the server cannot put another one in its place, and
//! carries a secret that never travels otherwise, so it cannot make an answer either.

use zeroize::Zeroizing;

use super::armour;
use super::caead::{self, Salt};
use super::cert::Certificate;
use super::device_list::DeviceList;
use super::dh::DhPair;
use super::envelope::{ANSWER, REQUEST};
use super::error::{Error, NoRandom, SealError};
use super::identity::{DeviceKeys, Identity};
use super::kdf;
use super::labels;
use super::name::{DeviceId, User};
use super::padding::{pad, unpad};
use super::rng::{self, Rng};
use super::secret::{self, Secret};
use super::time::{MINUTE, Now};
use super::wire::{Malformed, Put, Reader};

/// How long a request and its code are good, in seconds.
pub const LIFE: u64 = 10 * MINUTE;
/// Pins handed over at most: an envelope's worth.
pub const PINS_MAX: usize = 500;

const VERSION: u8 = 1;

/// A parsed request. Who made it is known only by the code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    raw: Vec<u8>,
    /// The new device's id.
    pub device: DeviceId,
    /// Its signing key.
    pub dsk: [u8; 32],
    /// Its key agreement key.
    pub dik: [u8; 32],
    ek: [u8; 32],
}

impl Request {
    /// Parses a request.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn parse(raw: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(raw);
        r.expect_bytes(&[VERSION, REQUEST])?;
        let (device, dsk, dik, ek) = (DeviceId(r.array()?), r.array()?, r.array()?, r.array()?);
        r.end()?;
        Ok(Self { raw: raw.to_vec(), device, dsk, dik, ek })
    }

    fn name(&self) -> [u8; 16] {
        kdf::first16(kdf::hash(&[labels::LINK_CODE.nul(), &self.raw]))
    }

    fn key(&self, s: &Secret<16>, shared: &Secret<32>, pek: &[u8; 32]) -> Secret<32> {
        kdf::hkdf(s.expose(), shared.expose(), &[labels::LINK.bytes(), &kdf::hash(&[&self.raw]), pek])
    }
}

/// The code that a person carries from the new device to the primary one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Code {
    name: [u8; 16],
    s: Secret<16>,
}

impl Code {
    /// Reads what the person typed: base32; case, spaces and dashes do not matter.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let bytes = Zeroizing::new(armour::unbase32::<32>(text)?);
        let [name, s] = kdf::split(&bytes);
        Ok(Self { name, s: Secret::copy_from(&s) })
    }

    /// What the new device shows: 52 letters in groups of four.
    pub fn show(&self) -> Zeroizing<String> {
        let letters = Zeroizing::new(armour::base32(&[&self.name[..], self.s.expose()].concat()));
        let mut out = Zeroizing::new(String::with_capacity(72));
        for (i, letter) in letters.chars().enumerate() {
            if i > 0 && i % 4 == 0 {
                out.push('-');
            }
            out.push(letter);
        }
        out
    }

    /// Whether the code is for this request.
    pub fn names(&self, request: &Request) -> bool {
        secret::equal(&self.name, &request.name())
    }
}

/// The new device, while it waits.
#[derive(Debug)]
pub struct Pending {
    keys: DeviceKeys,
    ek: DhPair,
    s: Secret<16>,
    request: Request,
    /// Unix seconds.
    made: u64,
}

/// A pin that the primary device hands over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinnedAccount {
    /// The account.
    pub user: User,
    /// Its identity key.
    pub aik: [u8; 32],
    /// Whether its safety number was compared.
    pub verified: bool,
}

/// What the new device has learned.
#[derive(Debug)]
pub struct Linked {
    /// The device, certified.
    pub me: Identity,
    /// The account's device list.
    pub list: DeviceList,
    /// The account's pins.
    pub pins: Vec<PinnedAccount>,
}

impl Pending {
    /// Begins on the new device: draws its keys, the request and the code.
    ///
    /// # Errors
    /// [`NoRandom`].
    pub fn begin(user: &User, now: Now, rng: &mut dyn Rng) -> Result<Self, NoRandom> {
        let keys = DeviceKeys::draw(user, rng)?;
        let ek = DhPair::draw(rng)?;
        let s = rng::secret(rng)?;
        let mut raw = vec![VERSION, REQUEST];
        raw.put(&keys.address.device.0).put(&keys.dsk.public()).put(keys.dik.public()).put(ek.public());
        let (device, dsk, dik) = (keys.address.device, keys.dsk.public(), *keys.dik.public());
        let request = Request { raw, device, dsk, dik, ek: *ek.public() };
        Ok(Self { keys, ek, s, request, made: now.secs() })
    }

    /// The bytes to signal to the own account.
    pub fn request(&self) -> &[u8] {
        &self.request.raw
    }

    /// The code to show.
    pub fn code(&self) -> Code {
        Code { name: self.request.name(), s: self.s.clone() }
    }

    /// Whether the code's ten minutes are over.
    pub fn expired(&self, now: Now) -> bool {
        now.since(self.made) > LIFE
    }

    /// Opens the answer. The caller drops the pending state once this succeeds: it is good once.
    ///
    /// # Errors
    /// [`Error::Clock`] after 10 minutes; [`Error::NotForThisDevice`] for another device's answer;
    /// [`Error::LowOrder`], [`Error::Commit`], [`Error::Auth`], [`Error::Padding`] if whoever made it
    /// does not know the code; [`Error::Inner`], [`Error::Signature`], [`Error::Identity`],
    /// [`Error::UnlistedDevice`] if what it says does not hold. The right answer may still come.
    pub fn finish(&self, answer: &[u8], now: Now) -> Result<Linked, Error> {
        if self.expired(now) {
            return Err(Error::Clock);
        }
        let mut r = Reader::new(answer);
        r.expect_bytes(&[VERSION, ANSWER])?;
        let (device, pek, salt): (_, _, Salt) = (DeviceId(r.array()?), r.array()?, r.array()?);
        let aad = r.consumed();
        if device != self.keys.address.device {
            return Err(Error::NotForThisDevice);
        }
        let key = self.request.key(&self.s, &self.ek.agree(&pek)?, &pek);
        let padded = caead::open(&key, &salt, aad, r.rest())?;
        let (cert, list, pins) = read_answer(unpad(&padded)?).map_err(|Malformed| Error::Inner)?;

        let cert = Certificate::verify(cert)?;
        let list = DeviceList::verify(list, &self.keys.address.user, cert.aik())?;
        if !list.lists(&cert.hash()) {
            return Err(Error::UnlistedDevice);
        }
        let me = self.keys.clone().certified(cert)?;
        Ok(Linked { me, list, pins })
    }
}

type Answer<'a> = (&'a [u8], &'a [u8], Vec<PinnedAccount>);

fn read_answer(raw: &[u8]) -> Result<Answer<'_>, Malformed> {
    let mut r = Reader::new(raw);
    let (cert, list) = (r.lp()?, r.lp()?);
    let n = usize::from(r.u16()?);
    if n > PINS_MAX {
        return Err(Malformed);
    }
    let mut pins = Vec::with_capacity(n);
    for _ in 0..n {
        let (user, aik) = (User::parse(r.lp_str()?)?, r.array()?);
        let verified = match r.u8()? {
            1 => false,
            2 => true,
            _ => return Err(Malformed),
        };
        pins.push(PinnedAccount { user, aik, verified });
    }
    r.end()?;
    Ok((cert, list, pins))
}

/// Answers a request on the primary device, which has issued `cert` and `list` for it.
///
/// # Errors
/// [`SealError::Bundle`] with [`Error::Identity`] if the code is for another request or the
/// certificate for other keys; [`SealError::TooLong`] past 500 pins; [`SealError::Random`].
pub fn answer(
    request: &Request,
    code: &Code,
    cert: &Certificate,
    list: &DeviceList,
    pins: &[PinnedAccount],
    rng: &mut dyn Rng,
) -> Result<Vec<u8>, SealError> {
    let theirs = cert.address().device == request.device && *cert.dsk() == request.dsk && *cert.dik() == request.dik;
    if !code.names(request) || !theirs || !list.lists(&cert.hash()) {
        return Err(SealError::Bundle(Error::Identity));
    }
    if pins.len() > PINS_MAX {
        return Err(SealError::TooLong(PINS_MAX));
    }
    let mut text = Zeroizing::new(Vec::new());
    text.put_lp(cert.bytes()).put_lp(list.bytes()).put_u16(u16::try_from(pins.len()).unwrap_or(u16::MAX));
    for pin in pins {
        text.put_lp(pin.user.as_bytes()).put(&pin.aik).put_u8(if pin.verified { 2 } else { 1 });
    }
    let pek = DhPair::draw(rng)?;
    let salt = caead::draw_salt(rng)?;
    let shared = pek.agree(&request.ek).map_err(SealError::Bundle)?;
    let mut out = vec![VERSION, ANSWER];
    out.put(&request.device.0).put(pek.public()).put(&salt);
    let sealed = caead::seal(&request.key(&code.s, &shared, pek.public()), &salt, &out, &pad(&text))?;
    out.put(&sealed);
    Ok(out)
}

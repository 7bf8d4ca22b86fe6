//! One session between two devices: the Double Ratchet (Signal, rev. 4, §3, without header
//! encryption) with the committing AEAD.
//!
//! A session is plain data. Opening and sealing borrow it and return the next one; an error leaves
//! nothing behind.

use zeroize::Zeroizing;

use super::caead::{self, OVERHEAD};
use super::dh::DhPair;
use super::envelope::{HEADER_LEN, Ratchet, SLOT_TEXT_LEN, Slot};
use super::error::{Damaged, Error, SealError};
use super::kdf;
use super::labels;
use super::name::{Party, SessionId};
use super::pqxdh::Agreed;
use super::rng::Rng;
use super::secret::Secret;
use super::skipped::{Lookup, Skipped};
use super::time::{DAY, Now};
use super::wire::{Put, Reader};

/// Counters jumped over at most in one chain, for `pn` and for `n` each: it bounds the work that an
/// unauthenticated header can cause.
pub const SKIP_MAX: u32 = 1000;
/// Messages of one chain before a new session is due.
pub const REKEY_AT: u32 = 1 << 31;
/// Age of a session, in seconds, at which a new one is due: post-quantum secrecy and healing come
/// from the start of a session.
pub const REKEY_AFTER: u64 = 7 * DAY;

/// A session with one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    sid: SessionId,
    /// Orders the sessions of a pair of devices, Unix milliseconds.
    born_ms: u64,
    /// The peer's identity keys when the session was made: account (AIK) and device (DIK).
    peer_aik: [u8; 32],
    peer_dik: [u8; 32],
    /// AD of what we seal, and of what we open.
    ad: [[u8; 32]; 2],
    /// When it was made and last used here, Unix seconds.
    made: u64,
    used: u64,

    root: Secret<32>,
    /// Our ratchet pair.
    ours: DhPair,
    /// The peer's ratchet key.
    theirs: Option<[u8; 32]>,
    sending: Option<Secret<32>>,
    receiving: Option<Secret<32>>,
    ns: u32,
    nr: u32,
    pn: u32,
    skipped: Skipped,

    /// The PREKEY bytes, in front of every message until the first from the peer opens.
    prefix: Vec<u8>,
    /// Started by the peer without a one-time prekey, and not answered yet.
    weak: bool,
}

/// `AD = H(L"ad-1to1" ‖ P(sender) ‖ P(recipient))`. The sender comes first, so a reflected or
/// re-addressed message fails.
fn associated_data(sender: &Party, recipient: &Party) -> [u8; 32] {
    let recipient = if cfg!(feature = "break-ad-recipient") { Vec::new() } else { recipient.bytes() };
    kdf::hash(&[labels::AD_1TO1.bytes(), &sender.bytes(), &recipient])
}

impl Session {
    fn new(agreed: Agreed, born_ms: u64, me: &Party, peer: &Party, ours: DhPair, now: Now) -> Self {
        Self {
            sid: agreed.sid,
            born_ms,
            peer_aik: peer.aik,
            peer_dik: peer.dik,
            ad: [associated_data(me, peer), associated_data(peer, me)],
            made: now.secs(),
            used: now.secs(),
            root: agreed.root,
            ours,
            theirs: None,
            sending: None,
            receiving: None,
            ns: 0,
            nr: 0,
            pn: 0,
            skipped: Skipped::default(),
            prefix: Vec::new(),
            weak: false,
        }
    }

    /// The initiator's session: a fresh pair, and the signed prekey as the peer's ratchet key.
    #[allow(clippy::too_many_arguments, reason = "one call, and each is a thing of its own")]
    pub(crate) fn initiate(
        agreed: Agreed,
        prefix: Vec<u8>,
        born_ms: u64,
        me: &Party,
        peer: &Party,
        spk: &[u8; 32],
        now: Now,
        rng: &mut dyn Rng,
    ) -> Result<Self, SealError> {
        let ours = DhPair::draw(rng)?;
        let dh = ours.agree(spk).map_err(SealError::Bundle)?;
        let mut session = Self::new(agreed, born_ms, me, peer, ours, now);
        let (root, chain) = kdf::root_step(&session.root, &dh);
        session.root = root;
        session.sending = Some(chain);
        session.theirs = Some(*spk);
        session.prefix = prefix;
        Ok(session)
    }

    /// The recipient's session, before its first message: our pair is the signed prekey's.
    pub(crate) fn respond(
        agreed: Agreed,
        born_ms: u64,
        me: &Party,
        peer: &Party,
        spk: &DhPair,
        weak: bool,
        now: Now,
    ) -> Self {
        let mut session = Self::new(agreed, born_ms, me, peer, spk.clone(), now);
        session.weak = weak;
        session
    }

    /// Seals the 64 bytes of a slot; the next session and the slot's envelope.
    ///
    /// # Errors
    /// [`SealError::Random`]; [`SealError::Exhausted`] at the end of the counter, which a session
    /// that is renewed in time never sees.
    pub(crate) fn seal(
        &self,
        text: &Zeroizing<[u8; SLOT_TEXT_LEN]>,
        now: Now,
        rng: &mut dyn Rng,
    ) -> Result<(Self, Vec<u8>), SealError> {
        let (chain, key) = kdf::chain_step(self.sending.as_ref().ok_or(SealError::Exhausted)?);
        let ns = self.ns.checked_add(1).ok_or(SealError::Exhausted)?;
        let next = Self { sending: Some(chain), ns, used: now.secs(), weak: false, ..self.clone() };

        let salt = caead::draw_salt(rng)?;
        let dh = *next.ours.public();
        let header = Ratchet { sid: self.sid, dh, pn: self.pn, n: self.ns, salt };
        let len = self.prefix.len() + HEADER_LEN;
        let mut envelope = Vec::with_capacity(len + OVERHEAD + SLOT_TEXT_LEN);
        envelope.put(&self.prefix);
        header.write(&mut envelope);
        let [ad, _] = &self.ad;
        let bound = [&ad[..], &envelope].concat();
        caead::seal_onto(&mut envelope, &key, &salt, &bound, SLOT_TEXT_LEN, |out| out.extend_from_slice(&text[..]))?;
        Ok((next, envelope))
    }

    /// Opens a slot of this session; the next session and the slot's text.
    ///
    /// # Errors
    /// [`Error::Reused`], [`Error::TooFar`], [`Error::LowOrder`], [`Error::Commit`],
    /// [`Error::Auth`], [`Error::Random`].
    pub(crate) fn open(
        &self,
        slot: &Slot<'_>,
        now: Now,
        rng: &mut dyn Rng,
    ) -> Result<(Self, Zeroizing<Vec<u8>>), Error> {
        let header = &slot.ratchet;
        // Copies share what they do not change.
        let mut next = self.clone();
        next.skipped.expire(now);
        let mut turned = false;
        let key = if Some(header.dh) == self.theirs && self.receiving.is_some() {
            next.key_of_current_chain(header.n, &header.dh, now)?
        } else {
            match next.skipped.take(&header.dh, header.n) {
                Lookup::Kept(key) => key,
                Lookup::Gone => return Err(Error::Reused),
                Lookup::Unknown => {
                    turned = true;
                    next.turn(header, now)?
                }
            }
        };
        let [_, ad] = &self.ad;
        let text = caead::open(&key, &header.salt, &[&ad[..], slot.authenticated].concat(), slot.sealed)?;
        if turned {
            next.answer(rng)?;
        }
        next.prefix = Vec::new();
        next.used = now.secs();
        Ok((next, text))
    }

    /// The key of a counter of the chain that is being received.
    fn key_of_current_chain(&mut self, n: u32, dh: &[u8; 32], now: Now) -> Result<Secret<32>, Error> {
        if n < self.nr {
            return match self.skipped.take(dh, n) {
                Lookup::Kept(key) => Ok(key),
                Lookup::Gone | Lookup::Unknown => Err(Error::Reused),
            };
        }
        self.skip_to(n, now)?;
        let chain = self.receiving.take().ok_or(Error::Reused)?;
        let (chain, key) = kdf::chain_step(&chain);
        self.receiving = Some(chain);
        self.nr = n.checked_add(1).ok_or(Error::TooFar)?;
        Ok(key)
    }

    /// Keeps the keys before `n` of the current chain. Both limits are checked before any work.
    fn skip_to(&mut self, n: u32, now: Now) -> Result<(), Error> {
        let Some(mut chain) = self.receiving.take() else { return Ok(()) };
        if n.saturating_sub(self.nr) > SKIP_MAX && !cfg!(feature = "break-max-skip") {
            return Err(Error::TooFar);
        }
        while self.nr < n {
            let (next, key) = kdf::chain_step(&chain);
            self.skipped.push(self.nr, key, now);
            chain = next;
            self.nr = self.nr.checked_add(1).ok_or(Error::TooFar)?;
        }
        self.receiving = Some(chain);
        Ok(())
    }

    /// The receiving half of a Diffie-Hellman ratchet step: a new chain from the peer's new key.
    fn turn(&mut self, header: &Ratchet, now: Now) -> Result<Secret<32>, Error> {
        if (header.pn.saturating_sub(self.nr) > SKIP_MAX || header.n > SKIP_MAX) && !cfg!(feature = "break-max-skip") {
            return Err(Error::TooFar);
        }
        let dh = self.ours.agree(&header.dh)?;
        self.skip_to(header.pn, now)?;
        let (root, chain) = kdf::root_step(&self.root, &dh);
        self.root = root;
        self.receiving = Some(chain);
        self.theirs = Some(header.dh);
        self.nr = 0;
        self.skipped.begin(header.dh);
        self.key_of_current_chain(header.n, &header.dh, now)
    }

    /// The sending half, once the message has proved to be the peer's: a fresh pair and chain.
    fn answer(&mut self, rng: &mut dyn Rng) -> Result<(), Error> {
        let ours = DhPair::draw(rng)?;
        let theirs = self.theirs.ok_or(Error::Handshake)?;
        let (root, chain) = kdf::root_step(&self.root, &ours.agree(&theirs)?);
        self.root = root;
        self.ours = ours;
        self.sending = Some(chain);
        self.pn = self.ns;
        self.ns = 0;
        Ok(())
    }

    /// The session's id.
    pub fn sid(&self) -> SessionId {
        self.sid
    }

    /// When it was born, Unix milliseconds, as its initiator says.
    pub fn born_ms(&self) -> u64 {
        self.born_ms
    }

    /// The peer's account identity.
    pub fn peer_aik(&self) -> &[u8; 32] {
        &self.peer_aik
    }

    /// The peer's device identity key.
    pub(crate) fn peer_dik(&self) -> &[u8; 32] {
        &self.peer_dik
    }

    /// When it was last used here, Unix seconds.
    pub fn used(&self) -> u64 {
        self.used
    }

    /// Whether it was started by the peer without a one-time prekey and not answered yet: whoever
    /// steals our signed prekey can read what came so far.
    pub fn weak(&self) -> bool {
        self.weak
    }

    /// Keys of skipped messages kept.
    pub fn skipped_keys(&self) -> usize {
        self.skipped.len()
    }

    /// Whether the counter asks for a new session: nothing more is sealed in this one.
    pub(crate) fn exhausted(&self) -> bool {
        self.ns >= REKEY_AT
    }

    /// Whether the age asks for a new session, which may wait while no bundle can be had.
    pub(crate) fn aged(&self, now: Now) -> bool {
        now.since(self.made) >= REKEY_AFTER
    }

    pub(crate) fn write(&self, row: &mut Vec<u8>) {
        let [sealing, opening] = &self.ad;
        row.put(&self.sid.0).put_u64(self.born_ms).put(&self.peer_aik).put(&self.peer_dik).put(sealing).put(opening);
        row.put_u64(self.made).put_u64(self.used);
        row.put(self.root.expose()).put(self.ours.private().expose());
        put_optional(row, self.theirs.as_ref());
        put_optional(row, self.sending.as_ref().map(Secret::expose));
        put_optional(row, self.receiving.as_ref().map(Secret::expose));
        row.put_u32(self.ns).put_u32(self.nr).put_u32(self.pn);
        self.skipped.write(row);
        row.put_lp(&self.prefix).put_bool(self.weak);
    }

    pub(crate) fn read(r: &mut Reader<'_>) -> Result<Self, Damaged> {
        Ok(Self {
            sid: SessionId(r.array()?),
            born_ms: r.u64()?,
            peer_aik: r.array()?,
            peer_dik: r.array()?,
            ad: [r.array()?, r.array()?],
            made: r.u64()?,
            used: r.u64()?,
            root: r.secret()?,
            ours: DhPair::from_private(r.secret()?),
            theirs: optional(r)?,
            sending: optional_secret(r)?,
            receiving: optional_secret(r)?,
            ns: r.u32()?,
            nr: r.u32()?,
            pn: r.u32()?,
            skipped: Skipped::read(r)?,
            prefix: r.lp()?.to_vec(),
            weak: r.bool()?,
        })
    }
}

fn put_optional(row: &mut Vec<u8>, bytes: Option<&[u8; 32]>) {
    row.put_bool(bytes.is_some());
    if let Some(bytes) = bytes {
        row.put(bytes);
    }
}

fn optional_secret(r: &mut Reader<'_>) -> Result<Option<Secret<32>>, Damaged> {
    Ok(if r.bool()? { Some(r.secret()?) } else { None })
}

fn optional(r: &mut Reader<'_>) -> Result<Option<[u8; 32]>, Damaged> {
    Ok(if r.bool()? { Some(r.array()?) } else { None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::e2e::armour::hex;
    use crate::e2e::testing::{Seeded, alice, bob, small_order_points};

    const NOW: Now = Now::from_secs(1_800_000_000);

    fn pair() -> (Session, Session) {
        let agreed = || Agreed { root: Secret::copy_from(&[1; 32]), sid: SessionId([2; 16]) };
        let (a, b) = (alice(), bob());
        let spk = DhPair::from_private(Secret::copy_from(&[0x25; 32]));
        let mut rng = Seeded(1);
        let (pa, pb) = (a.me.party(), b.me.party());
        let initiator = Session::initiate(agreed(), vec![], 1, pa, pb, spk.public(), NOW, &mut rng).unwrap();
        (initiator, Session::respond(agreed(), 1, pb, pa, &spk, false, NOW))
    }

    fn text(i: u8) -> Zeroizing<[u8; 64]> {
        Zeroizing::new([i; 64])
    }

    fn pass(from: &mut Session, to: &mut Session, i: u8) {
        let envelope = send(from, i);
        assert_eq!(receive(to, &envelope), Ok(i));
    }

    fn send(from: &mut Session, i: u8) -> Vec<u8> {
        let (next, envelope) = from.seal(&text(i), NOW, &mut Seeded(u64::from(i) + 7)).unwrap();
        *from = next;
        envelope
    }

    fn receive(to: &mut Session, envelope: &[u8]) -> Result<u8, Error> {
        let before = to.clone();
        let opened = to.open(
            &Slot::parse(envelope).unwrap(),
            NOW,
            &mut Seeded(u64::from(envelope[80]) << 8 | u64::from(envelope[81])),
        );
        assert!(*to == before);
        let (next, text) = opened?;
        *to = next;
        Ok(text[0])
    }

    #[test]
    fn the_associated_data_matches_the_worked_example() {
        let ad = hex(&associated_data(alice().me.party(), bob().me.party()));
        assert!(ad.starts_with("d2c6f157") && ad.ends_with("9ef6fe1"), "{ad}");
    }

    #[test]
    fn messages_pass_in_any_order_once() {
        let (mut a, mut b) = pair();
        let first: Vec<_> = (0..5).map(|i| send(&mut a, i)).collect();
        for i in [3, 0, 4, 1] {
            assert_eq!(receive(&mut b, &first[i]), Ok(i as u8));
        }
        pass(&mut b, &mut a, 50);
        pass(&mut a, &mut b, 60);
        assert_eq!(receive(&mut b, &first[2]), Ok(2));
        for old in &first {
            assert_eq!(receive(&mut b, old), Err(Error::Reused));
        }
        assert_eq!(b.skipped_keys(), 0);
        let mut row = Vec::new();
        b.write(&mut row);
        assert_eq!(Session::read(&mut Reader::new(&row)), Ok(b));
    }

    #[test]
    fn a_thousand_are_skipped_and_no_more() {
        let (mut a, mut b) = pair();
        let many: Vec<_> = (0..1002).map(|_| send(&mut a, 7)).collect();
        assert_eq!(receive(&mut b, &many[1001]), Err(Error::TooFar));
        assert_eq!(b.skipped_keys(), 0);
        assert_eq!(receive(&mut b, &many[1000]), Ok(7));
        assert_eq!(b.skipped_keys(), 1000);
        assert_eq!(receive(&mut b, &many[1001]), Ok(7));
    }

    #[test]
    fn adversarial_headers_cost_nothing() {
        let (mut a, mut b) = pair();
        pass(&mut a, &mut b, 1);
        let good = send(&mut a, 2);
        let started = std::time::Instant::now();
        for i in 0..10_000_u32 {
            let mut bad = good.clone();
            bad[18..22].copy_from_slice(&i.to_be_bytes());
            bad[50..58].fill(0xff);
            assert_eq!(receive(&mut b, &bad), Err(Error::TooFar));
        }
        assert!(started.elapsed().as_millis() < 10_000);
        assert_eq!((b.skipped_keys(), receive(&mut b, &good)), (0, Ok(2)));
    }

    #[test]
    fn a_ratchet_key_of_small_order_is_refused() {
        let (mut a, mut b) = pair();
        pass(&mut a, &mut b, 1);
        let good = send(&mut a, 2);
        for u in small_order_points() {
            let mut bad = good.clone();
            bad[18..50].copy_from_slice(&u);
            assert_eq!(receive(&mut b, &bad), Err(Error::LowOrder));
        }
    }

    #[test]
    fn a_reflected_message_is_refused() {
        let (mut a, mut b) = pair();
        pass(&mut a, &mut b, 1);
        pass(&mut b, &mut a, 2);
        let own = send(&mut a, 3);
        assert_eq!(receive(&mut a, &own), Err(Error::Commit));
    }

    #[test]
    fn the_limits_of_a_session_are_told() {
        let (mut a, _) = pair();
        assert!(!a.exhausted() && !a.aged(NOW));
        assert!(a.aged(Now::from_secs(NOW.secs() + REKEY_AFTER)));
        a.ns = REKEY_AT;
        assert!(a.exhausted());
        a.ns = u32::MAX;
        assert_eq!(a.seal(&text(1), NOW, &mut Seeded(1)), Err(SealError::Exhausted));
    }

    #[test]
    fn debug_shows_no_secret() {
        let (a, _) = pair();
        let shown = format!("{a:?}");
        for secret in [&a.root, a.ours.private(), a.sending.as_ref().unwrap()] {
            assert!(!shown.contains(&format!("{:?}", secret.expose())) && !shown.contains(&hex(secret.expose())));
        }
        assert!(shown.contains("Secret<32>"));
    }
}

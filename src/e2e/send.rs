//! Sealing: messages to an account, signals to a device, messages to a room.
//!
//! Each returns a [`Change`] and the line's body. The caller commits the change and the body in one
//! transaction, and emits the body only after that, so that no ratchet key is ever used for two texts.

use zeroize::Zeroizing;

use super::armour::{self, ENVELOPE_MAX};
use super::audience::Audience;
use super::bundle::Bundle;
use super::contact::Contact;
use super::envelope::{Multi, SLOT_TEXT_LEN};
use super::error::{Error, SealError};
use super::inner::{Body, Conversation, Inner, Plain, TEXT_MAX, Via, inner_hash};
use super::multi;
use super::name::{Address, MsgId, RoomId, User};
use super::pqxdh;
use super::ratchet::Session;
use super::rng::{self, Rng};
use super::room::Room;
use super::sessions::{Need, Peer};
use super::state::{Change, State};
use super::thread::Outgoing;
use super::time::Now;

/// A sealed line.
#[derive(Debug)]
pub struct Sealed {
    /// To be committed before the line is emitted; then applied.
    pub change: Change,
    /// `e2e:` and base64.
    pub body: String,
    /// What was sealed, for the history.
    pub inner: Inner,
    /// The same, as bytes: an unacknowledged room message is sealed again from them.
    pub raw: Plain,
    /// Devices that are left out because no bundle could be had ([`Answers::no_bundle`]).
    pub left_out: Vec<Address>,
}

/// A sealed message to a room, and the signals that must go before it.
#[derive(Debug)]
pub struct SealedRoom {
    /// The message.
    pub message: Sealed,
    /// `/signal USER BODY`, each, first.
    pub signals: Vec<(User, String)>,
    /// Members that are not sealed to, and why.
    pub audience: Audience,
}

/// What the key directory has answered so far. Sealing asks for what it lacks; what cannot be had is
/// named here and then left out, knowingly, so that one account that is gone (or that claims a list
/// it never shows) does not silence a room.
#[derive(Debug, Clone, Copy, Default)]
pub struct Answers<'a> {
    /// Verified bundles of devices that need one; more do no harm.
    pub bundles: &'a [Bundle],
    /// Accounts for which it shows no list, or none that is new enough. Left out of rooms.
    pub no_list: &'a [User],
    /// Devices for which it has no bundle. Left out where a new session is needed.
    pub no_bundle: &'a [Address],
}

impl<'a> Answers<'a> {
    /// Bundles, and nothing that could not be had.
    pub fn of(bundles: &'a [Bundle]) -> Self {
        Self { bundles, ..Self::default() }
    }

    fn bundle(&self, of: &Address) -> Option<&'a Bundle> {
        self.bundles.iter().find(|bundle| bundle.cert().address() == of)
    }
}

impl State {
    /// The devices that a message to `to` goes to, and what each still needs. The caller fetches
    /// bundles for [`Need::Bundle`] (it must) and [`Need::BundleIfPossible`] (it should try).
    ///
    /// # Errors
    /// [`SealError::NeedList`], [`SealError::NoDevice`].
    pub fn recipients(&self, to: &User, now: Now) -> Result<Vec<(Address, Need)>, SealError> {
        let all = self.devices_for(to, now)?;
        Ok(all.into_iter().map(|address| (address.clone(), self.need(address, now))).collect())
    }

    /// Every current device of `to` and each other one of ours, in order.
    fn devices_for(&self, to: &User, now: Now) -> Result<Vec<&Address>, SealError> {
        let own = self.listed(self.me.user())?;
        let contact = self.listed(to)?;
        // A device id that is also one of ours cannot have a slot of its own.
        let ours = |a: &Address| own.device(a.device).is_some();
        let theirs = contact.current(now).map(|cert| cert.address());
        let mut all: Vec<_> = theirs.filter(|a| to == self.me.user() || !ours(a)).collect();
        if all.is_empty() {
            return Err(SealError::NoDevice(to.clone()));
        }
        all.extend(own.current(now).map(|cert| cert.address()));
        all.sort_unstable();
        all.dedup();
        all.retain(|address| *address != self.me.address());
        // Notes to oneself need a second device.
        if all.is_empty() { Err(SealError::NoDevice(to.clone())) } else { Ok(all) }
    }

    /// What it takes to seal to a device.
    pub fn need(&self, address: &Address, now: Now) -> Need {
        self.peers.get(address).map_or(Need::Bundle, |peer| peer.need(now))
    }

    /// A contact that may be sealed to: pinned, with a list as new as its own messages say.
    fn listed(&self, user: &User) -> Result<&Contact, SealError> {
        let contact = self.contacts.get(user).filter(|contact| !contact.needs_list());
        contact.ok_or_else(|| SealError::NeedList(user.clone()))
    }

    /// Seals a message to an account: a slot for each of its current devices and each other one of
    /// ours.
    ///
    /// # Errors
    /// [`SealError`]; [`SealError::NeedBundles`] and [`SealError::NeedList`] say what to fetch.
    pub fn seal_message(
        &self,
        to: &User,
        body: Body,
        answers: &Answers<'_>,
        now: Now,
        rng: &mut dyn Rng,
    ) -> Result<Sealed, SealError> {
        let all = self.devices_for(to, now)?.into_iter().cloned().collect();
        let conversation = self.direct(to).ok_or_else(|| SealError::NeedList(to.clone()))?;
        let (inner, raw, outgoing) = self.compose(body, Via::Message, conversation, now, rng)?;
        let (devices, left_out) = self.reachable(all, answers, now);
        if !devices.iter().any(|address| address.user == *to) {
            return Err(SealError::NoDevice(to.clone()));
        }
        let (mut change, envelope) = self.seal_multi(&devices, to, &raw, answers, now, rng)?;
        change.outgoing.push((conversation, outgoing));
        Ok(Sealed { change, body: armour::body(&envelope), inner, raw, left_out })
    }

    /// Seals a signal to one device. `conversation` is what it is about: the direct one with the
    /// account ([`State::direct`]), or a room.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn seal_signal(
        &self,
        to: &Address,
        conversation: Conversation,
        body: Body,
        answers: &Answers<'_>,
        now: Now,
        rng: &mut dyn Rng,
    ) -> Result<Sealed, SealError> {
        self.check_device(to, now)?;
        let (inner, raw, _) = self.compose(body, Via::Signal, conversation, now, rng)?;
        let (change, envelope) = self.seal_multi(std::slice::from_ref(to), &to.user, &raw, answers, now, rng)?;
        Ok(Sealed { change, body: armour::body(&envelope), inner, raw, left_out: Vec::new() })
    }

    /// Who can be sealed to, and who is left out for want of a bundle.
    fn reachable(&self, devices: Vec<Address>, answers: &Answers<'_>, now: Now) -> (Vec<Address>, Vec<Address>) {
        let gone = |a: &Address| self.need(a, now) == Need::Bundle && answers.no_bundle.contains(a);
        devices.into_iter().partition(|address| !gone(address))
    }

    fn check_device(&self, to: &Address, now: Now) -> Result<(), SealError> {
        let current = self.listed(&to.user)?.current(now).any(|cert| cert.address() == to);
        if current && to != self.me.address() { Ok(()) } else { Err(SealError::NoDevice(to.user.clone())) }
    }

    /// To whom the next message of a room goes: the caller fetches lists until this gives an answer,
    /// and bundles when sealing asks for them.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn audience(&self, room: &RoomId, no_list: &[User], now: Now) -> Result<Audience, SealError> {
        self.rooms.get(room).ok_or(SealError::NeedRoster)?.audience(&self.me, &self.contacts, no_list, now)
    }

    /// Seals a message to a room: the signals that give the chain to whoever lacks it, then the
    /// message.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn seal_room(
        &self,
        room: &RoomId,
        body: Body,
        answers: &Answers<'_>,
        now: Now,
        rng: &mut dyn Rng,
    ) -> Result<SealedRoom, SealError> {
        let conversation = Conversation::Room(*room);
        let (inner, raw, outgoing) = self.compose(body, Via::Message, conversation, now, rng)?;
        let mut sealed = self.seal_in_room(room, inner, raw, answers, now, rng)?;
        sealed.message.change.outgoing.push((conversation, outgoing));
        Ok(sealed)
    }

    /// Seals an unacknowledged message of an older epoch again: the same inner bytes.
    ///
    /// # Errors
    /// [`SealError`]; [`SealError::Kind`] if the bytes are no message of that room.
    pub fn reseal_room(
        &self,
        room: &RoomId,
        raw: &[u8],
        answers: &Answers<'_>,
        now: Now,
        rng: &mut dyn Rng,
    ) -> Result<SealedRoom, SealError> {
        let inner = Inner::parse(raw).map_err(|_| SealError::Kind)?;
        if inner.conversation != Conversation::Room(*room) || inner.body.via() != Via::Message {
            return Err(SealError::Kind);
        }
        self.seal_in_room(room, inner, Plain::copy_of(raw), answers, now, rng)
    }

    fn seal_in_room(
        &self,
        id: &RoomId,
        inner: Inner,
        raw: Plain,
        answers: &Answers<'_>,
        now: Now,
        rng: &mut dyn Rng,
    ) -> Result<SealedRoom, SealError> {
        let known = self.rooms.get(id).ok_or(SealError::NeedRoster)?;
        let heard = known.known_audience(&self.me, &self.contacts, answers.no_list, now)?;
        let audience = heard.audience().clone();
        let (mut room, lacking) = known.prepare(heard, now, rng)?;
        let (lacking, left_out) = self.reachable(lacking, answers, now);
        let (mut change, signals) = self.give_link(&mut room, &lacking, answers, now, rng)?;
        let (chains, envelope) = room.seal(self.me.party(), &raw, rng)?;
        fits(&envelope)?;
        change.chains.push((*id, chains));
        let message = Sealed { change, body: armour::body(&envelope), inner, raw, left_out };
        Ok(SealedRoom { message, signals, audience })
    }

    /// Signals the current link of the own chain to devices.
    fn give_link(
        &self,
        room: &mut Room,
        devices: &[Address],
        answers: &Answers<'_>,
        now: Now,
        rng: &mut dyn Rng,
    ) -> Result<(Change, Vec<(User, String)>), SealError> {
        self.check_bundles(devices, answers, now)?;
        let conversation = Conversation::Room(room.roster.id());
        let (mut change, mut signals) = (Change::default(), Vec::new());
        for device in devices {
            let skdm = room.give(device).ok_or(SealError::NeedRoster)?;
            let (_, raw, _) = self.compose(Body::SenderKey(skdm), Via::Signal, conversation, now, rng)?;
            let (more, envelope) =
                self.seal_multi(std::slice::from_ref(device), &device.user, &raw, answers, now, rng)?;
            change.peers.extend(more.peers);
            signals.push((device.user.clone(), armour::body(&envelope)));
        }
        Ok((change, signals))
    }

    /// Answers a device that asks for our link in a room: at most once an hour, and only if it is one
    /// of the room's. `None` if it is not answered now.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn answer_chain_request(
        &self,
        from: &Address,
        room: &RoomId,
        answers: &Answers<'_>,
        now: Now,
        rng: &mut dyn Rng,
    ) -> Result<Option<(Change, String)>, SealError> {
        let audience = self.audience(room, answers.no_list, now)?;
        let known = self.rooms.get(room).ok_or(SealError::NeedRoster)?;
        let Some(mut next) = known.answer_to(from, &audience, now) else { return Ok(None) };
        let (mut change, signals) = self.give_link(&mut next, std::slice::from_ref(from), answers, now, rng)?;
        change.chains.push((*room, next.chains));
        Ok(signals.into_iter().next().map(|(_, body)| (change, body)))
    }

    /// The inner message, and what the conversation's count is after it.
    fn compose(
        &self,
        body: Body,
        via: Via,
        conversation: Conversation,
        now: Now,
        rng: &mut dyn Rng,
    ) -> Result<(Inner, Plain, Outgoing), SealError> {
        let before = match via {
            Via::Message => self.outgoing.get(&conversation).copied().unwrap_or_default(),
            Via::Signal => Outgoing::default(),
        };
        let seq = match via {
            Via::Message => before.seq.checked_add(1).ok_or(SealError::Exhausted)?,
            Via::Signal => 0,
        };
        let dl_version = self.listed(self.me.user())?.list_version();
        let msg_id = MsgId(rng::bytes(rng)?);
        let inner = Inner { sent_ms: now.ms(), msg_id, seq, prev: before.prev, conversation, dl_version, body };
        inner.check(via, self.me.user()).map_err(|_| SealError::Kind)?;
        let raw = inner.to_bytes();
        // What we could not read back is not sent: an over-long text, a descriptor that does not fit.
        if Inner::parse(&raw).as_ref() != Ok(&inner) {
            return Err(SealError::TooLong(TEXT_MAX));
        }
        let outgoing = Outgoing { seq, prev: inner_hash(&raw) };
        Ok((inner, raw, outgoing))
    }

    /// All devices that need a bundle have one.
    fn check_bundles(&self, devices: &[Address], answers: &Answers<'_>, now: Now) -> Result<(), SealError> {
        let without = |a: &&Address| self.need(a, now) == Need::Bundle && answers.bundle(a).is_none();
        let missing: Vec<Address> = devices.iter().filter(without).cloned().collect();
        if missing.is_empty() { Ok(()) } else { Err(SealError::NeedBundles(missing)) }
    }

    fn seal_multi(
        &self,
        devices: &[Address],
        receiver: &User,
        raw: &[u8],
        answers: &Answers<'_>,
        now: Now,
        rng: &mut dyn Rng,
    ) -> Result<(Change, Vec<u8>), SealError> {
        self.check_bundles(devices, answers, now)?;
        let payload = multi::seal(self.me.address(), receiver, raw, rng)?;
        let (mut change, mut slots) = (Change::default(), Vec::new());
        for address in devices {
            let (peer, slot) = self.seal_slot(address, &payload.slot_text, answers, now, rng)?;
            change.peers.push((address.clone(), Some(peer)));
            slots.push((address.device, slot));
        }
        let envelope = Multi::write(self.me.address().device, &slots, &payload.tail);
        fits(&envelope)?;
        Ok((change, envelope))
    }

    /// A slot for one device, in a new session if it needs one (or one is due and can be had).
    fn seal_slot(
        &self,
        address: &Address,
        text: &Zeroizing<[u8; SLOT_TEXT_LEN]>,
        answers: &Answers<'_>,
        now: Now,
        rng: &mut dyn Rng,
    ) -> Result<(Peer, Vec<u8>), SealError> {
        let (stranger, mut started) = (Peer::default(), None);
        let known = self.peers.get(address).unwrap_or(&stranger);
        let pinned = self.contacts.get(&address.user).map(Contact::aik);
        let session = match (known.need(now), answers.bundle(address)) {
            (Need::Nothing, _) | (Need::BundleIfPossible, None) => known.active(),
            (_, Some(bundle)) => {
                if Some(bundle.cert().aik()) != pinned {
                    return Err(SealError::Identity(address.user.clone()));
                }
                let session = self.initiate(bundle, known.next_born_ms(now), now, rng)?;
                Some(&*started.insert(session))
            }
            (Need::Bundle, None) => None,
        };
        let session = session.ok_or_else(|| SealError::NeedBundles(vec![address.clone()]))?;
        // The pin is looked at in the same step as the key is used.
        if Some(session.peer_aik()) != pinned {
            return Err(SealError::Identity(address.user.clone()));
        }
        let (session, slot) = session.seal(text, now, rng)?;
        let mut peer = known.with(session, now);
        if started.is_some() {
            peer.started();
        }
        Ok((peer, slot))
    }

    fn initiate(&self, bundle: &Bundle, born_ms: u64, now: Now, rng: &mut dyn Rng) -> Result<Session, SealError> {
        let (agreed, prefix) = pqxdh::initiate(&self.me, bundle, born_ms, rng)?;
        let spk = bundle.spk().public.as_slice().try_into().map_err(|_| SealError::Bundle(Error::Syntax))?;
        let (me, peer) = (self.me.party(), bundle.cert().party());
        Session::initiate(agreed, prefix, born_ms, me, peer, spk, now, rng)
    }
}

fn fits(envelope: &[u8]) -> Result<(), SealError> {
    if envelope.len() <= ENVELOPE_MAX { Ok(()) } else { Err(SealError::TooLong(ENVELOPE_MAX)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::e2e::inner::{ChangeKind, direct_id};
    use crate::e2e::name::{ChainId, ConvId, DeviceId};
    use crate::e2e::receive::{Line, Target};
    use crate::e2e::secret::Secret;
    use crate::e2e::sender_key::Skdm;
    use crate::e2e::testing::{Sample, Seeded, T0, alice, bob, bundle_of, contact_of};

    const NOW: Now = Now::from_secs(T0);

    fn state(of: &Sample, knows: &Sample) -> State {
        let certs = [of.me.cert().bytes()];
        let mut state = State::new(of.me.clone(), of.prekeys.clone(), of.list.bytes(), &certs).unwrap();
        state.contacts.insert(knows.me.user().clone(), contact_of(knows));
        state
    }

    /// What a hostile peer can do: seal any inner bytes in a proper session.
    fn refusal(raw: &[u8], via: Via) -> Error {
        let (a, b) = (alice(), bob());
        let (sender, receiver) = (state(&a, &b), state(&b, &a));
        let (bundle, contact) = bundle_of(&b);
        let bundles = [Bundle::verify(&bundle, &contact, NOW).unwrap()];
        let to = [b.me.address().clone()];
        let (_, envelope) =
            sender.seal_multi(&to, b.me.user(), raw, &Answers::of(&bundles), NOW, &mut Seeded(1)).unwrap();
        let body = armour::body(&envelope);
        let line = Line { via, sender: a.me.user(), target: Target::User(b.me.user()), body: &body };
        receiver.open(&line, NOW, &mut Seeded(2)).map(|opened| opened.inner).unwrap_err()
    }

    fn inner(body: Body, seq: u32) -> Inner {
        let conversation = Conversation::Direct(direct_id(alice().me.aik(), bob().me.aik()));
        Inner { sent_ms: 0, msg_id: MsgId([1; 16]), seq, prev: [0; 32], conversation, dl_version: 1, body }
    }

    #[test]
    fn a_hostile_peer_gets_no_broken_message_through() {
        let text = || Body::Text("x".into());
        let elsewhere = Conversation::Direct(ConvId([9; 16]));
        let room = RoomId([5; 16]);
        let skdm = Skdm {
            room,
            epoch: 1,
            roster_hash: [0; 32],
            chain: ChainId([1; 16]),
            n: 0,
            ck: Secret::zero(),
            sig_pub: [0; 32],
            prev_chain: ChainId([0; 16]),
            prev_n: 0,
        };
        let edit = Body::Change {
            kind: ChangeKind::Edit,
            author: bob().me.user().clone(),
            device: DeviceId([1; 16]),
            msg_id: MsgId([1; 16]),
            text: "put into Bob's mouth".into(),
        };
        for (bad, via) in [
            (inner(text(), 0), Via::Message),
            (inner(text(), 1), Via::Signal),
            (inner(text(), 0), Via::Signal),
            (inner(Body::Reset, 0), Via::Message),
            (inner(Body::Reset, 1), Via::Signal),
            (inner(edit, 1), Via::Message),
            (Inner { prev: [1; 32], ..inner(text(), 1) }, Via::Message),
            (Inner { conversation: elsewhere, ..inner(text(), 1) }, Via::Message),
            (Inner { conversation: Conversation::Room(room), ..inner(text(), 1) }, Via::Message),
            (Inner { conversation: elsewhere, ..inner(Body::Reset, 0) }, Via::Signal),
            (inner(Body::SenderKey(skdm.clone()), 0), Via::Signal),
            (Inner { conversation: Conversation::Room(room), ..inner(Body::SenderKey(skdm.clone()), 1) }, Via::Message),
        ] {
            assert_eq!(refusal(&bad.to_bytes(), via), Error::Inner, "{bad:?}");
        }
        // A link of a room that is not known asks for its roster.
        let link = Inner { conversation: Conversation::Room(room), ..inner(Body::SenderKey(skdm), 0) };
        assert_eq!(refusal(&link.to_bytes(), Via::Signal), Error::NeedRoster);
        // Flags, kinds and lengths that are none.
        let good = inner(text(), 1).to_bytes();
        for (at, value) in [(0, 6), (1, 1), (62, 2), (83, 0xff)] {
            let mut bad = good.to_vec();
            bad[at] = value;
            assert_eq!(refusal(&bad, Via::Message), Error::Inner);
        }
        for n in [0, 1, 82] {
            assert_eq!(refusal(&good[..n], Via::Message), Error::Inner);
        }
    }
}

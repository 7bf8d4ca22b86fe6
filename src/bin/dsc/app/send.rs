//! Sealing what people say, and putting it into the outbox in the same transaction. One file, because each way to
//! seal (to a person, to a room, as a trial, by hand) is the same loop of tries and what they lack.

use downstream::e2e::armour;
use downstream::e2e::bundle::Bundle;
use downstream::e2e::descriptor::Descriptor;
use downstream::e2e::error::{Error, SealError};
use downstream::e2e::inner::{Body, ChangeKind, Conversation};
use downstream::e2e::marks;
use downstream::e2e::name::{
    Address, ChainId, DeviceId, Mark as EnvelopeMark, MsgId, RoomId, RoomName as SealedRoom, User,
};
use downstream::e2e::send::Answers;
use downstream::e2e::state::{Change, State};
use downstream::protocol::{PostKey, RoomName, Target, UserName};

use super::deliver::Delivered;
use super::directory::{Learned, current_devices, no_keys_of};
use super::{
    Client, Os, alarm, cannot_seal, is_sealed_room, list, no_random, notice, now, sealed_room, sealed_user, state,
    wire_user,
};
use crate::error::{Exit, Failure};
use crate::event::Event;
use crate::store::{Entry, Line, Outgoing, Tx, What};

/// How often sealing may ask for something more: a list and bundles for each member of a room, and then
/// once more for each whose list was newer than thought.
const ROUNDS: usize = 2048;

/// What is to be said.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    /// A text.
    Text(String),
    /// A file that the server has.
    File(Descriptor),
    /// A change to a message.
    Change {
        /// What.
        kind: ChangeKind,
        /// Who wrote it.
        author: User,
        /// With which device.
        device: DeviceId,
        /// Its id.
        msg_id: MsgId,
        /// Reaction or new text.
        text: String,
    },
}

impl From<Content> for Body {
    fn from(content: Content) -> Body {
        match content {
            Content::Text(text) => Body::Text(text),
            Content::File(file) => Body::File(file),
            Content::Change { kind, author, device, msg_id, text } => {
                Body::Change { kind, author, device, msg_id, text }
            }
        }
    }
}

/// A sealed message that was committed.
#[derive(Debug)]
pub(crate) struct SealedLines {
    /// Signals (receiver and body) that must go first.
    pub(crate) signals: Vec<(UserName, String)>,
    /// The message's body.
    pub(crate) body: String,
    /// Its own id.
    pub(super) msg_id: MsgId,
}

/// What the directory could not give, so far.
#[derive(Debug, Default)]
struct Lacking {
    lists: Vec<User>,
    bundles: Vec<Address>,
}

/// What one try to seal came to.
enum Step<T> {
    Done(T),
    Lists(Vec<User>),
    Bundles(Vec<Address>),
}

impl<T> Step<T> {
    /// The same without what was made.
    fn forget(self) -> Step<()> {
        match self {
            Step::Done(_) => Step::Done(()),
            Step::Lists(users) => Step::Lists(users),
            Step::Bundles(devices) => Step::Bundles(devices),
        }
    }
}

impl Client<'_> {
    /// Seals for a person or a room, sends, and says what became of it.
    ///
    /// # Errors
    /// [`Failure`]; what was committed to the outbox before a lost connection goes out with the next
    /// command.
    pub(crate) fn send(&mut self, target: &Target, content: Content) -> Result<Delivered, Failure> {
        let key = post_key()?;
        self.send_once(target, content, &key)
    }

    /// The same under a key of the caller's own: the server stores what comes under one key once in 24 hours.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub(crate) fn send_once(&mut self, target: &Target, content: Content, key: &PostKey) -> Result<Delivered, Failure> {
        let (lines, id) = match target {
            Target::User(user) => self.queue_direct(user, content.into(), Some(key))?,
            Target::Room(room) => {
                match self.require_e2e(room) {
                    // Sealed for those who are known now; again, if it turns out that they are others.
                    Err(failure) if failure.exit == Exit::Network => {}
                    other => other?,
                }
                self.queue_room(room, content.into(), Some(key), false)?
            }
        };
        self.deliver(id, target, Some(lines.msg_id))
    }

    /// Seals for whom this device can seal without a server, and leaves it in the outbox.
    ///
    /// # Errors
    /// [`Failure`]; nothing waits then.
    pub(crate) fn leave_in_outbox(&mut self, target: &Target, content: Content) -> Result<(), Failure> {
        let key = post_key()?;
        match target {
            Target::User(user) => self.queue_direct(user, content.into(), Some(&key)).map(drop),
            Target::Room(room) => self.queue_room(room, content.into(), Some(&key), false).map(drop),
        }
    }

    /// Sends clear text, which the server can read.
    ///
    /// # Errors
    /// [`Exit::Usage`] for a room that is known to be end to end: nothing is ever said there in clear.
    pub(crate) fn send_plain(&mut self, target: &Target, text: &str) -> Result<Delivered, Failure> {
        if let Target::Room(room) = target
            && self.transact(|tx| is_sealed_room(tx, room))?
        {
            return Err(Failure::usage(format!("{room} is an end-to-end room: nothing is said there in clear")));
        }
        if text.starts_with(downstream::e2e::armour::BODY_PREFIX) {
            return Err(Failure::usage("a clear text cannot begin with `e2e:`"));
        }
        let id = self.transact(|tx| {
            let key = post_key()?;
            let line = Line::Post { target: target.clone(), key, body: text.to_owned() };
            Ok(tx.queue(Outgoing { line, room: None, epoch: 0, inner: None, made_ms: now().ms(), tries: 0 })?)
        })?;
        self.deliver(id, target, None)
    }

    /// Seals for a person, for the filters: committed, and then only printed.
    pub(crate) fn seal_direct(&mut self, to: &UserName, content: Content) -> Result<SealedLines, Failure> {
        Ok(self.queue_direct(to, content.into(), None)?.0)
    }

    /// Seals for a room, for the filters. `alone` refuses, before anything is spent, a message that signals
    /// have to go before.
    pub(crate) fn seal_room(&mut self, room: &RoomName, content: Content, alone: bool) -> Result<SealedLines, Failure> {
        Ok(self.queue_room(room, content.into(), None, alone)?.0)
    }

    pub(super) fn queue_direct(
        &mut self,
        to: &UserName,
        body: Body,
        key: Option<&PostKey>,
    ) -> Result<(SealedLines, u64), Failure> {
        let user = sealed_user(to)?;
        let target = Target::User(to.clone());
        let (done, lacking) = self.sealing(None, |tx, answers| {
            let sealed = state(tx)?.seal_message(&user, body.clone(), answers, now(), &mut Os);
            let sealed = match step(sealed)? {
                Step::Done(sealed) => sealed,
                Step::Lists(users) => return Ok(Step::Lists(users)),
                Step::Bundles(devices) => return Ok(Step::Bundles(devices)),
            };
            use_bundles(tx, &sealed.change)?;
            tx.apply(sealed.change);
            let lines = SealedLines { signals: Vec::new(), body: sealed.body, msg_id: sealed.inner.msg_id };
            let posted = key.map_or_else(post_key, |key| Ok(key.clone()))?;
            let item = Outgoing {
                line: Line::Post { target: target.clone(), key: posted, body: lines.body.clone() },
                room: None,
                epoch: 0,
                inner: Some(sealed.raw),
                made_ms: now().ms(),
                tries: 0,
            };
            let id = if key.is_some() { put_out(tx, item, lines.msg_id)? } else { record_printed(tx, &target, &item)? };
            Ok(Step::Done((lines, id)))
        })?;
        self.say_left_out(&lacking)?;
        Ok(done)
    }

    fn queue_room(
        &mut self,
        room: &RoomName,
        body: Body,
        key: Option<&PostKey>,
        alone: bool,
    ) -> Result<(SealedLines, u64), Failure> {
        let name = sealed_room(room)?;
        let target = Target::Room(room.clone());
        if self.transact(|tx| is_behind(tx, &name))? {
            self.read_roster(&name)?;
        }
        let id = self.transact(|tx| room_id(tx, &name))?;
        let ((done, events), lacking) = self.sealing(Some(id), |tx, answers| {
            let sealed = state(tx)?.seal_room(&id, body.clone(), answers, now(), &mut Os);
            let sealed = match step(sealed)? {
                Step::Done(sealed) => sealed,
                Step::Lists(users) => return Ok(Step::Lists(users)),
                Step::Bundles(devices) => return Ok(Step::Bundles(devices)),
            };
            if alone && !sealed.signals.is_empty() {
                return Err(Failure::usage("room keys have to be sent first, so --raw is not enough")
                    .hint("use it without --raw"));
            }
            let epoch = state(tx)?.rooms.get(&id).map_or(0, |room| room.roster.head().0);
            use_bundles(tx, &sealed.message.change)?;
            tx.apply(sealed.message.change);
            let mut signals = Vec::new();
            for (user, body) in sealed.signals {
                signals.push((wire_user(&user)?, body));
            }
            let lines = SealedLines { signals, body: sealed.message.body, msg_id: sealed.message.inner.msg_id };
            if key.is_some() {
                queue_signals(tx, &lines.signals)?;
            }
            let posted = key.map_or_else(post_key, |key| Ok(key.clone()))?;
            let item = Outgoing {
                line: Line::Post { target: target.clone(), key: posted, body: lines.body.clone() },
                room: Some(id),
                epoch,
                inner: Some(sealed.message.raw),
                made_ms: now().ms(),
                tries: 0,
            };
            let queued =
                if key.is_some() { put_out(tx, item, lines.msg_id)? } else { record_printed(tx, &target, &item)? };
            let events = audience_events(tx, &name, &sealed.audience)?;
            Ok(Step::Done(((lines, queued), events)))
        })?;
        self.say_all(&events)?;
        self.say_left_out(&lacking)?;
        Ok(done)
    }

    /// That a message can be sealed for a target now; what is fetched for it is kept for the message itself.
    ///
    /// # Errors
    /// As [`Client::send`]; nothing is sealed.
    pub(super) fn try_sealing(&mut self, target: &Target) -> Result<(), Failure> {
        let body = Body::Text(String::new());
        match target {
            Target::User(user) => {
                let user = sealed_user(user)?;
                self.sealing(None, |tx, answers| {
                    step(state(tx)?.seal_message(&user, body.clone(), answers, now(), &mut Os)).map(Step::forget)
                })?;
            }
            Target::Room(room) => {
                let name = sealed_room(room)?;
                if self.transact(|tx| is_behind(tx, &name))? {
                    self.read_roster(&name)?;
                }
                let id = self.transact(|tx| room_id(tx, &name))?;
                self.sealing(Some(id), |tx, answers| {
                    step(state(tx)?.seal_room(&id, body.clone(), answers, now(), &mut Os)).map(Step::forget)
                })?;
            }
        }
        Ok(())
    }

    /// Seals an unsent message of an older epoch again, under the same key of `/post`. Its new place in
    /// the outbox.
    pub(super) fn seal_again(&mut self, item: u64, old: &Outgoing) -> Result<u64, Failure> {
        let (Some(id), Some(inner), Line::Post { target, key, .. }) = (old.room, &old.inner, &old.line) else {
            return Ok(item);
        };
        let (queued, lacking) = self.sealing(Some(id), |tx, answers| {
            let sealed = state(tx)?.reseal_room(&id, inner, answers, now(), &mut Os);
            let sealed = match step(sealed)? {
                Step::Done(sealed) => sealed,
                Step::Lists(users) => return Ok(Step::Lists(users)),
                Step::Bundles(devices) => return Ok(Step::Bundles(devices)),
            };
            let epoch = state(tx)?.rooms.get(&id).map_or(0, |room| room.roster.head().0);
            use_bundles(tx, &sealed.message.change)?;
            tx.apply(sealed.message.change);
            let mut signals = Vec::new();
            for (user, body) in sealed.signals {
                signals.push((wire_user(&user)?, body));
            }
            tx.sent(item)?;
            queue_signals(tx, &signals)?;
            let line = Line::Post { target: target.clone(), key: key.clone(), body: sealed.message.body };
            let (inner, tries) = (Some(sealed.message.raw), old.tries.saturating_add(1));
            Ok(Step::Done(tx.queue(Outgoing { line, epoch, inner, tries, ..old.clone() })?))
        })?;
        self.say_left_out(&lacking)?;
        Ok(queued)
    }

    /// Begins anew with a device whose envelope could not be opened, where that is allowed.
    pub(super) fn reset(&mut self, to: &Address, error: Error, mark: EnvelopeMark) -> Result<(), Failure> {
        let allowed = self.transact(|tx| {
            let known = state(tx)?;
            let Some(conversation) = known.direct(&to.user) else { return Ok(None) };
            // The device is what the envelope says: only one that could be answered is worth a row.
            if !is_current(known, to) {
                return Ok(None);
            }
            let peer = known.peers.get(to).cloned().unwrap_or_default();
            let Some(next) = peer.reset_after(error, mark, now()) else { return Ok(None) };
            tx.apply(Change { peers: vec![(to.clone(), Some(next))], ..Change::default() });
            Ok(Some(conversation))
        })?;
        let Some(conversation) = allowed else { return Ok(()) };
        if self.signal(to, conversation, &Body::Reset)? {
            let text = format!(
                "the session with {to} could not be used and is begun anew; what could not be opened has to be said again"
            );
            self.say(&notice("reset-sent", Some(to.user.as_str()), text))?;
            self.flush()?;
        }
        Ok(())
    }

    /// Asks a device for its current link of a room's chain.
    pub(super) fn ask_for_chain(&mut self, from: &Address, room: RoomId, chain: ChainId) -> Result<(), Failure> {
        if self.signal(from, Conversation::Room(room), &Body::ChainRequest { room, chain })? {
            self.flush()?;
        }
        Ok(())
    }

    /// Answers such a request, at most once an hour to each device.
    pub(super) fn answer_chain_request(&mut self, from: &Address, room: &RoomId) -> Result<(), Failure> {
        let answered = self.sealing(Some(*room), |tx, answers| {
            let answer = state(tx)?.answer_chain_request(from, room, answers, now(), &mut Os);
            match step(answer)? {
                Step::Done(Some((change, body))) => {
                    use_bundles(tx, &change)?;
                    tx.apply(change);
                    queue_signals(tx, &[(wire_user(&from.user)?, body)])?;
                    Ok(Step::Done(()))
                }
                Step::Done(None) => Ok(Step::Done(())),
                Step::Lists(users) => Ok(Step::Lists(users)),
                Step::Bundles(devices) => Ok(Step::Bundles(devices)),
            }
        });
        match answered {
            Err(failure) if failure.exit == Exit::Network => Err(failure),
            _ => self.flush(),
        }
    }

    /// Seals and queues a signal to one device; whether it could be sealed.
    fn signal(&mut self, to: &Address, conversation: Conversation, body: &Body) -> Result<bool, Failure> {
        let receiver = wire_user(&to.user)?;
        let sealed = self.sealing(None, |tx, answers| {
            let sealed = state(tx)?.seal_signal(to, conversation, body.clone(), answers, now(), &mut Os);
            match step(sealed)? {
                Step::Done(sealed) => {
                    use_bundles(tx, &sealed.change)?;
                    tx.apply(sealed.change);
                    queue_signals(tx, &[(receiver.clone(), sealed.body)])?;
                    Ok(Step::Done(()))
                }
                Step::Lists(users) => Ok(Step::Lists(users)),
                Step::Bundles(devices) => Ok(Step::Bundles(devices)),
            }
        });
        match sealed {
            Ok(_) => Ok(true),
            Err(failure) if failure.exit == Exit::Network => Err(failure),
            // The device is gone, or shows no keys: its next message begins a session anyway.
            Err(_) => Ok(false),
        }
    }

    /// Fetches lists that sealing lacks. In a room, who shows none (or another identity than the pinned one:
    /// the alarm was shown) is left out and silences nobody; to a person, it is the end.
    fn fetch_lists(&mut self, users: &[User], room: Option<RoomId>, lacking: &mut Lacking) -> Result<(), Failure> {
        for user in users {
            if lacking.lists.contains(user) {
                return Err(no_keys_of(user));
            }
            if self.server.is_offline() {
                // One command that brings list and bundles alike: less to type.
                self.command(&format!("/keys get {user}"))?;
            }
        }
        let known = match room {
            // Everybody at once: a big room's first message should not cost a round trip a member.
            Some(room) => self.transact(|tx| Ok(members_without_list(tx, &room, &lacking.lists)))?,
            None => Vec::new(),
        };
        let known = if known.is_empty() { users.to_vec() } else { known };
        for (user, learned) in known.iter().zip(self.learn_all(&known)?) {
            match learned {
                Ok(Learned::Known) if !self.still_old(user)? => {}
                Err(failure) if room.is_none() || failure.exit == Exit::Network => return Err(failure),
                _ => lacking.lists.push(user.clone()),
            }
        }
        Ok(())
    }

    /// Seals, fetching what is missing in between: `seal` runs in a transaction of its own each time.
    fn sealing<T>(
        &mut self,
        room: Option<RoomId>,
        mut seal: impl FnMut(&mut Tx<'_>, &Answers<'_>) -> Result<Step<T>, Failure>,
    ) -> Result<(T, Vec<Address>), Failure> {
        let mut lacking = Lacking::default();
        for _ in 0..ROUNDS {
            let step = self.transact(|tx| {
                let bundles = bundles(tx)?;
                let answers = Answers { bundles: &bundles, no_list: &lacking.lists, no_bundle: &lacking.bundles };
                seal(tx, &answers)
            })?;
            match step {
                Step::Done(done) => return Ok((done, lacking.bundles)),
                Step::Lists(users) => self.fetch_lists(&users, room, &mut lacking)?,
                Step::Bundles(devices) => {
                    let missing = self.fetch_bundles(&devices, room.is_some())?;
                    if missing.iter().all(|device| lacking.bundles.contains(device)) && !missing.is_empty() {
                        return Err(cannot_seal(SealError::NeedBundles(missing)));
                    }
                    lacking.bundles.extend(missing);
                }
            }
        }
        Err(Failure::failed("the server's answers do not come to an end"))
    }

    /// Whether the list is older than the account's own messages say, even after it was fetched.
    fn still_old(&mut self, user: &User) -> Result<bool, Failure> {
        let old = self.transact(|tx| Ok(state(tx)?.contacts.get(user).is_none_or(|contact| contact.needs_list())))?;
        if old {
            let text = format!("the server hides the newest device list of {user}: nothing is sealed to them");
            self.say(&alarm("list-hidden", user.as_str(), text))?;
        }
        Ok(old)
    }

    fn say_left_out(&mut self, devices: &[Address]) -> Result<(), Failure> {
        if devices.is_empty() {
            return Ok(());
        }
        self.say(&notice(
            "left-out",
            None,
            format!("no keys could be had for {}: it was not sent there", list(devices)),
        ))
    }

    /// That a room is end to end and its roster is read.
    pub(super) fn require_e2e(&mut self, room: &RoomName) -> Result<(), Failure> {
        let name = sealed_room(room)?;
        let shown = self.is_roster_shown(&name)?;
        self.transact(|tx| room_id(tx, &name).map(drop)).map_err(|failure| match failure.exit {
            Exit::NoSession => Failure::usage(format!("{room} is no end-to-end room that this device is in"))
                .hint(format!("`dsc join '{room}'` enters it; in a plain room, `--plain` sends clear text, which the server can read")),
            _ => failure,
        })?;
        if !shown {
            // Sealed and then refused, it would be missing for those who are there.
            let failure = Failure::new(Exit::Refused, format!("for the server you are not in {room} (any more)"));
            return Err(failure.hint(format!("`dsc join '{room}'` enters it, if it is open or you were invited")));
        }
        Ok(())
    }
}

/// Members of a room whose device list is missing, or older than it is said to be.
fn members_without_list(tx: &Tx<'_>, room: &RoomId, without: &[User]) -> Vec<User> {
    let Some(state) = tx.state() else { return Vec::new() };
    let members = state.rooms.get(room).map(|room| room.roster.members()).unwrap_or_default();
    let lacks = |member: &&downstream::e2e::roster_log::Member| match state.contacts.get(&member.user) {
        None => true,
        Some(contact) if *contact.aik() != member.aik => false,
        Some(contact) => contact.needs_list() || contact.list_version() < member.list().version(),
    };
    members.iter().filter(lacks).map(|member| member.user.clone()).filter(|user| !without.contains(user)).collect()
}

/// One try, sorted into done, something to fetch, or a failure.
fn step<T>(sealed: Result<T, SealError>) -> Result<Step<T>, Failure> {
    match sealed {
        Ok(done) => Ok(Step::Done(done)),
        Err(SealError::NeedList(user)) => Ok(Step::Lists(vec![user])),
        Err(SealError::NeedBundles(devices)) => Ok(Step::Bundles(devices)),
        Err(error) => Err(cannot_seal(error)),
    }
}

/// The bundles at hand that still hold.
fn bundles(tx: &Tx<'_>) -> Result<Vec<Bundle>, Failure> {
    let Some(state) = tx.state() else { return Ok(Vec::new()) };
    let mut all = Vec::new();
    for (address, raw) in tx.bundles() {
        if let Some(contact) = state.contacts.get(&address.user)
            && let Ok(bundle) = Bundle::verify(&raw, contact, now())
        {
            all.push(bundle);
        }
    }
    Ok(all)
}

/// A bundle serves one session: those of devices that have one now are dropped in the same transaction.
fn use_bundles(tx: &mut Tx<'_>, change: &Change) -> Result<(), Failure> {
    for (address, _) in &change.peers {
        tx.drop_bundle(address);
    }
    Ok(())
}

/// Puts a message into the outbox. An upload that it announces is done with the same stroke: it is announced
/// once.
fn put_out(tx: &mut Tx<'_>, item: Outgoing, message: MsgId) -> Result<u64, Failure> {
    if let Line::Post { key, .. } = &item.line {
        tx.announce_upload(key, message)?;
    }
    Ok(tx.queue(item)?)
}

/// What is only printed goes into the history at once: nobody will acknowledge it.
fn record_printed(tx: &mut Tx<'_>, target: &Target, item: &Outgoing) -> Result<u64, Failure> {
    let me = super::receive::account(tx)?;
    if let (Some(inner), Some(state)) = (&item.inner, tx.state()) {
        let what = What::Sealed { device: state.me.address().device, inner: inner.clone() };
        let entry =
            Entry { target: target.clone(), id: None, time_ms: item.made_ms, sender: me, what, marks: Vec::new() };
        if let Line::Post { body, .. } = &item.line
            && let Ok(raw) = armour::envelope(body)
        {
            tx.record_sealed(entry, marks::mark(&raw))?;
        }
    }
    Ok(0)
}

fn queue_signals(tx: &mut Tx<'_>, signals: &[(UserName, String)]) -> Result<(), Failure> {
    for (to, body) in signals {
        let line = Line::Signal { to: to.clone(), body: body.clone() };
        tx.queue(Outgoing { line, room: None, epoch: 0, inner: None, made_ms: now().ms(), tries: 0 })?;
    }
    Ok(())
}

/// Whether a device is listed by its account, in its time.
pub(super) fn is_current(known: &State, device: &Address) -> bool {
    current_devices(known, &device.user).contains(&device.device)
}

fn room_id(tx: &Tx<'_>, name: &SealedRoom) -> Result<RoomId, Failure> {
    let known: Option<&State> = tx.state();
    let room = known.and_then(|state| state.room_named(name));
    room.map(|room| room.roster.id()).ok_or_else(|| cannot_seal(SealError::NeedRoster))
}

/// Whether the room's roster is not known here, or not so far as others know it.
fn is_behind(tx: &Tx<'_>, name: &SealedRoom) -> Result<bool, Failure> {
    let known = state(tx)?;
    Ok(known
        .room_named(name)
        .is_none_or(|room| matches!(known.audience(&room.roster.id(), &[], now()), Err(SealError::NeedRoster))))
}

/// Who is not sealed to, and why.
fn audience_events(
    _tx: &Tx<'_>,
    room: &SealedRoom,
    audience: &downstream::e2e::audience::Audience,
) -> Result<Vec<Event>, Failure> {
    let mut events = Vec::new();
    for user in &audience.differing {
        let text = format!(
            "{user} stands in the roster of {room} with another identity than the pinned one: not sealed to them"
        );
        events.push(alarm("identity-changed", user.as_str(), text));
    }
    for user in &audience.unlisted {
        events.push(notice(
            "left-out",
            Some(user.as_str()),
            format!("no device list of {user} could be had: not sealed to them in {room}"),
        ));
    }
    Ok(events)
}

/// A fresh key for `/post`: 128 random bits.
pub(super) fn post_key() -> Result<PostKey, Failure> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| no_random())?;
    PostKey::parse(&format!("dsc-{}", downstream::e2e::armour::hex(&bytes))).ok_or_else(no_random)
}

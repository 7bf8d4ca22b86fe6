//! A prepared scene for the fuzz targets of `src/e2e`: accounts, devices in the middle of talking, a room, and
//! lines that Bob has not opened yet. Made once, from a fixed seed, so that an input found today does the
//! same tomorrow.

use std::sync::OnceLock;

use super::common::e2e::bundle::Record;
use super::common::e2e::device_list::DeviceList;
use super::common::e2e::inner::{Body, Via};
use super::common::e2e::link::{Code, Pending};
use super::common::e2e::name::{MsgId, RoomId, RoomName, User};
use super::common::e2e::roster::{Entry, Op};
use super::common::e2e::time::Now;
use super::common::{Device, Seeded, Sent, World, at, room_name, user};

/// When everything in the scene happened.
pub(crate) const NOW: Now = at_one();

const fn at_one() -> Now {
    Now::from_secs(super::common::T0 + 1)
}

/// Who can be named as a sender or asked about.
pub(crate) const USERS: [&str; 4] = ["alice", "bob", "carol", "dave"];

pub(crate) struct Scene {
    pub(crate) world: World,
    pub(crate) alice: Device,
    pub(crate) bob: Device,
    pub(crate) carol: Device,
    /// The closed room of Alice, Bob and Carol.
    pub(crate) room: RoomId,
    /// The create entry of a closed and of an open room that nobody else is in.
    pub(crate) creates: [(RoomName, Vec<u8>); 2],
    /// For each of [`USERS`] the device list of the scene, and two after it.
    pub(crate) lists: Vec<[DeviceList; 3]>,
    /// What Bob is to open, by a name.
    pub(crate) lines: Vec<(&'static str, Sent)>,
    /// A device that waits to be linked to Alice's account.
    pub(crate) pending: Pending,
    pub(crate) code: Code,
}

/// The scene.
pub(crate) fn scene() -> &'static Scene {
    static SCENE: OnceLock<Scene> = OnceLock::new();
    SCENE.get_or_init(Scene::new)
}

impl Scene {
    fn new() -> Self {
        let mut world = World::new(7);
        let [mut alice, mut bob, mut carol, mut dave] = USERS.map(|name| world.device(name));
        let mut bob2 = world.device("bob");
        for device in [&mut alice, &mut bob, &mut carol, &mut bob2] {
            USERS[..3].iter().for_each(|name| drop(world.learn(device, &user(name), NOW)));
        }
        world.learn(&mut dave, &user("bob"), NOW);
        let room = world.create_room(&mut alice, "#r", false);
        for name in ["bob", "carol"] {
            world.roster(&mut alice, &room, Op::Add, &user(name), NOW);
        }
        for device in [&mut bob, &mut carol, &mut bob2] {
            world.read_roster(device, &room, NOW);
        }

        // Bob and Carol have talked, and Bob has her chain.
        let mut seen = world.say(&mut carol, "bob", "one", NOW);
        for _ in 0..2 {
            bob.open(&seen, NOW).unwrap();
            carol.open(&world.say(&mut bob, "carol", "two", NOW), NOW).unwrap();
            seen = world.say(&mut carol, "bob", "three", NOW);
        }
        bob.open(&seen, NOW).unwrap();
        let (links, group) = world.say_room(&mut carol, &room, "four", NOW).unwrap();
        links.iter().for_each(|link| drop(bob.open(link, NOW)));

        // What he has not opened.
        let late = world.say(&mut carol, "bob", "late", NOW);
        let msg_id = MsgId([7; 16]);
        let react = Body::Change {
            kind: super::common::e2e::inner::ChangeKind::React,
            author: user("bob"),
            device: bob.me().device,
            msg_id,
            text: "👍".into(),
        };
        let to_bob = bob.me().clone();
        let receipt = Body::Receipt { read: true, messages: vec![msg_id] };
        let mut lines = vec![
            ("seen", seen),
            ("ratchet", world.say(&mut carol, "bob", "next", NOW)),
            ("late", late),
            ("prekey", world.say(&mut alice, "bob", "first", NOW)),
            ("reaction", world.say_body(&mut carol, "bob", react, NOW)),
            ("receipt", world.signal(&mut carol, &to_bob, receipt, NOW)),
            ("reset", world.signal(&mut alice, &to_bob, Body::Reset, NOW)),
            ("copy", world.say(&mut bob2, "carol", "from my other device", NOW)),
            ("group", group),
            ("group-next", world.say_room(&mut carol, &room, "five", NOW).unwrap().1),
        ];
        let (links, group) = world.say_room(&mut alice, &room, "six", NOW).unwrap();
        lines.extend(links.into_iter().map(|link| ("link", link)).filter(|(_, link)| link.to == "bob"));
        lines.push(("group-unknown", group));
        world.directory.withhold = true;
        lines.push(("stranger", world.say(&mut dave, "bob", "hello, stranger", NOW)));

        let creates = [false, true].map(|open| {
            let name = room_name(if open { "#open" } else { "#closed" });
            let list = alice.state.contacts[&user("alice")].list().unwrap().clone();
            let entry = Entry::create(&alice.state.me, &name, open, &list, NOW, &mut alice.rng).unwrap();
            (name, entry)
        });
        let lists = USERS.map(|name| {
            let account = &world.accounts[&user(name)];
            let list = account.list.clone().unwrap();
            let again = DeviceList::issue(&account.aik, &user(name), Some(&list), list.certs()).unwrap();
            let other = DeviceList::issue(&account.aik, &user(name), Some(&again), &[[9; 32]]).unwrap();
            [list, again, other]
        });
        let pending = Pending::begin(&user("alice"), NOW, &mut Seeded::new(8)).unwrap();
        let code = pending.code();
        let room = bob.state.room_named(&room).unwrap().roster.id();
        Self { world, alice, bob, carol, room, creates, lists: lists.into(), lines, pending, code }
    }

    /// The bundle that the key directory hands out for Carol's device.
    pub(crate) fn bundle(&self, withhold: bool) -> Vec<u8> {
        let mut directory = self.world.directory.clone();
        directory.withhold = withhold;
        directory.bundle(self.carol.me())
    }

    /// A record of `/keys put` for each kind, with one key in it.
    pub(crate) fn records(&self) -> Vec<(&'static str, Vec<u8>)> {
        let me = &self.bob.state.me;
        let device = me.address().device;
        let mut rng = Seeded::new(9);
        let prekeys = super::common::e2e::prekeys::Prekeys::default();
        let (prekeys, records) = prekeys.rotate(me, NOW, &mut rng).unwrap();
        let (_, pools) = prekeys.refill(me, (0, 0), NOW, &mut rng).unwrap();
        let one = |record: Record| match record {
            Record::Opks(keys) => Record::Opks(keys[..2].to_vec()),
            Record::Pqks(keys) => Record::Pqks(keys[..1].to_vec()),
            other => other,
        };
        let mut all = vec![
            ("certificate", Record::Certificate(me.cert().clone())),
            ("forget", Record::Forget),
            ("list", Record::List(self.lists[1][0].clone())),
        ];
        all.extend(["spk", "pqk-last", "opk", "pqk"].into_iter().zip(records.into_iter().chain(pools).map(one)));
        all.into_iter().map(|(name, record)| (name, record.to_bytes(device))).collect()
    }
}

/// A line with other words on its envelope: `how` says via, sender and target.
pub(crate) fn addressed(how: u8, envelope: &[u8]) -> Sent {
    let via = if how & 1 == 0 { Via::Message } else { Via::Signal };
    let to = ["bob", "alice", "carol", "#r"][usize::from(how >> 3) % 4];
    let body = super::common::e2e::armour::body(envelope);
    Sent { via, sender: sender(how), to: to.into(), body }
}

fn sender(how: u8) -> User {
    user(USERS[usize::from(how >> 1) % 4])
}

/// The `how` of a line of the scene, for [`addressed`].
pub(crate) fn how(line: &Sent) -> u8 {
    let fits = |how: &u8| {
        let other = addressed(*how, &[]);
        (other.via, &other.sender, &other.to) == (line.via, &line.sender, &line.to)
    };
    (0..32).find(fits).unwrap()
}

/// A point in time of the scene, so many days later.
pub(crate) fn days_later(days: u8) -> Now {
    at(1 + u64::from(days) * super::common::DAY)
}

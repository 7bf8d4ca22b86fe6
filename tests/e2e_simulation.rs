//! A seeded simulation: three accounts, two of them with two devices, and a network that delays,
//! reorders, repeats and loses. Whatever is delivered is right, everything converges, nothing grows
//! without bound, no (key, counter) is used twice.
#![cfg(feature = "client")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

#[path = "e2e_common/mod.rs"]
mod common;

use std::collections::BTreeSet;

use common::e2e::error::Error;
use common::e2e::inner::Body;
use common::*;

const NAMES: [&str; 3] = ["alice", "bob", "carol"];

struct Sim {
    world: World,
    devices: Vec<Device>,
    /// For each device, the lines on their way, with the text if it is one.
    wire: Vec<Vec<Sent>>,
    delivered: usize,
    lost: usize,
    headers: BTreeSet<Vec<u8>>,
}

impl Sim {
    fn new(seed: u64) -> Self {
        let mut world = World::new(seed);
        let mut devices: Vec<_> = ["alice", "bob", "carol", "alice", "bob"].map(|n| world.device(n)).into();
        for device in &mut devices {
            for name in NAMES {
                world.learn(device, &user(name), at(1));
            }
        }
        let wire = devices.iter().map(|_| Vec::new()).collect();
        Self { world, devices, wire, delivered: 0, lost: 0, headers: BTreeSet::new() }
    }

    fn say(&mut self, from: usize, to: &str, secs: u64, n: usize) {
        let text = format!("{n} from {} to {to}", self.devices[from].me());
        let line = self.world.say(&mut self.devices[from], to, &text, at(secs));
        self.note_headers(&line);
        for (i, device) in self.devices.iter().enumerate() {
            let user = device.user();
            if i != from && (user.as_str() == to || user == line.sender) {
                self.wire[i].push(line.clone());
            }
        }
    }

    /// Every (sid, dh_pub, n) is emitted once.
    fn note_headers(&mut self, line: &Sent) {
        let raw = line.bytes();
        let Ok(common::e2e::envelope::Envelope::Multi(multi)) = common::e2e::envelope::Envelope::parse(&raw) else {
            panic!("no MULTI")
        };
        for (_, slot) in &multi.slots {
            let r = slot.ratchet;
            let header = [&r.sid.0[..], &r.dh, &r.n.to_be_bytes()].concat();
            assert!(self.headers.insert(header), "a counter was used twice");
        }
    }

    fn deliver(&mut self, to: usize, secs: u64) {
        if self.wire[to].is_empty() {
            return;
        }
        let pick = self.world.rng.below(self.wire[to].len());
        let line = self.wire[to][pick].clone();
        match self.world.rng.below(20) {
            0 => {
                // Lost for good.
                self.wire[to].remove(pick);
                self.lost += 1;
                return;
            }
            1 => {} // Comes again later.
            _ => drop(self.wire[to].remove(pick)),
        }
        match self.devices[to].open(&line, at(secs)) {
            Ok(opened) => {
                let Body::Text(text) = &opened.inner.body else { panic!("no text") };
                assert!(text.ends_with(&format!("from {} to {}", opened.from, line.to)), "{text}");
                assert!(!opened.place.unwrap().conflict);
                self.delivered += 1;
            }
            Err(Error::Replay) => {}
            Err(error) => panic!("{error}: {line:?}"),
        }
        let state = &self.devices[to].state;
        assert!(state.peers.values().all(|peer| peer.sessions().len() <= 3));
        assert!(state.peers.values().flat_map(|peer| peer.sessions()).all(|s| s.skipped_keys() <= 2000));
    }
}

fn run(seed: u64, steps: usize) {
    let mut sim = Sim::new(seed);
    for step in 0..steps {
        let secs = 10 + step as u64;
        let who = sim.world.rng.below(sim.devices.len());
        if sim.world.rng.below(3) == 0 {
            let to = NAMES[sim.world.rng.below(NAMES.len())];
            let alone = to == "carol" && sim.devices[who].user() == user("carol");
            if !alone {
                sim.say(who, to, secs, step);
            }
        } else {
            sim.deliver(who, secs);
        }
    }
    // The network calms down: all that is left arrives.
    let secs = 10 + steps as u64;
    for to in 0..sim.devices.len() {
        while !sim.wire[to].is_empty() {
            sim.deliver(to, secs);
        }
    }
    assert!(sim.delivered > steps / 8, "{} delivered, {} lost", sim.delivered, sim.lost);
    // After one message each way, every pair uses one session.
    for round in 0..2 {
        for from in 0..sim.devices.len() {
            for to in NAMES {
                if !(to == "carol" && sim.devices[from].user() == user("carol")) {
                    sim.say(from, to, secs + 1, round);
                }
            }
        }
        for to in 0..sim.devices.len() {
            while !sim.wire[to].is_empty() {
                sim.deliver(to, secs + 1);
            }
        }
    }
    for x in &sim.devices {
        for y in &sim.devices {
            if x.me() != y.me() {
                let active = |x: &Device, y: &Device| x.state.peers[y.me()].active().unwrap().sid();
                assert_eq!(active(x, y), active(y, x));
            }
        }
    }
}

#[test]
fn three_parties_converge_under_any_interleaving_loss_and_reorder() {
    for seed in 0..6 {
        run(seed, 400);
    }
}

#[test]
fn hostile_counters_keep_within_the_limits() {
    let mut world = World::new(77);
    let (mut a, mut b) = (world.device("alice"), world.device("bob"));
    world.learn(&mut b, &user("alice"), at(1));
    let line = world.say(&mut a, "bob", "hello", at(1));
    b.open(&line, at(1)).unwrap();
    // A peer that jumps as far as it may, turn after turn.
    for turn in 0..12 {
        let answer = world.say(&mut b, "alice", "turn", at(2));
        a.open(&answer, at(2)).unwrap();
        let many: Vec<_> = (0..1001).map(|_| world.say(&mut a, "bob", "x", at(2))).collect();
        assert_eq!(b.text(&many[1000], at(2)), "x", "{turn}");
        let session = b.state.peers[a.me()].active().unwrap();
        assert!(session.skipped_keys() <= 2000);
        assert!(b.state.peers[a.me()].to_row().len() < 200_000);
    }
    let session = b.state.peers[a.me()].active().unwrap();
    assert_eq!(session.skipped_keys(), 2000);
    let honest = world.say(&mut a, "bob", "honest", at(2));
    assert_eq!(b.text(&honest, at(2)), "honest");
}

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

impl World {
    fn add_roster(&mut self, who: &Person, of: &str, epoch: u32, entry: &[u8]) -> Result<RosterAdded, Refused> {
        let op = Op::AddRoster { account: who.id, room: room(of), epoch, entry: entry.to_vec() };
        self.apply(op).map(|outcome| match outcome {
            Outcome::RosterAdded(added) => added,
            other => panic!("{other:?}"),
        })
    }

    fn roster_page(
        &self,
        who: &Person,
        of: &str,
        after: u32,
        limit: usize,
        max_bytes: usize,
    ) -> Result<RosterPage, Refused> {
        let query = Query::Roster { account: who.id, room: room(of), after, limit, max_bytes };
        self.ask(query).map(|answer| match answer {
            Answer::Roster(page) => page,
            other => panic!("{other:?}"),
        })
    }

    fn roster(&self, who: &Person, of: &str) -> Vec<(u32, Vec<u8>)> {
        let page = self.roster_page(who, of, 0, usize::MAX, usize::MAX).unwrap();
        assert!(!page.more);
        assert_eq!(page.last, page.rows.last().map_or(0, |(epoch, _)| *epoch));
        page.rows
    }
}

#[test]
fn a_roster_grows_by_one_place_at_a_time() {
    let mut world = World::new();
    let [alice, bob] = world.people(["alice", "bob"]);
    let made = world.create(&alice, "#e", false, true).unwrap();
    world.join(&bob, "#e");
    assert!(world.roster(&bob, "#e").is_empty());
    assert_eq!(world.add_roster(&alice, "#e", 0, b"x").unwrap_err(), Refused::Epoch(0));
    assert_eq!(world.add_roster(&alice, "#e", 2, b"x").unwrap_err(), Refused::Epoch(0));
    let added = world.add_roster(&alice, "#e", 1, b"one").unwrap();
    assert_eq!((added.epoch, added.room), (1, made.room));
    assert_eq!(world.add_roster(&bob, "#e", 1, b"other").unwrap_err(), Refused::Epoch(1), "of two, one wins");
    assert_eq!(world.add_roster(&bob, "#e", u32::MAX, b"x").unwrap_err(), Refused::Epoch(1));
    assert_eq!(world.add_roster(&bob, "#e", 2, b"two").unwrap().epoch, 2);
    assert_eq!(world.roster(&alice, "#e"), [(1, b"one".to_vec()), (2, b"two".to_vec())]);

    // Each room has its own.
    world.create(&bob, "#f", false, true).unwrap();
    assert_eq!(world.add_roster(&bob, "#f", 1, b"f").unwrap().epoch, 1);
    assert_eq!(world.roster(&bob, "#f"), [(1, b"f".to_vec())]);
    assert_eq!(world.roster(&bob, "#e").len(), 2);
}

#[test]
fn rosters_are_for_members_of_end_to_end_rooms() {
    let mut world = World::new();
    let [alice, bob, carol] = world.people(["alice", "bob", "carol"]);
    world.create(&alice, "#plain", false, false).unwrap();
    world.create(&alice, "#open", false, true).unwrap();
    world.create(&alice, "#private", true, true).unwrap();
    world.moderate(&alice, "#private", Act::Invite, "carol").unwrap();
    let refusals = [
        (&alice, "#plain", Refused::Forbidden),
        (&bob, "#plain", Refused::NotMember),
        (&bob, "#open", Refused::NotMember),
        (&bob, "#private", Refused::NoSuchRoom),
        (&carol, "#private", Refused::NotMember),
        (&alice, "#none", Refused::NoSuchRoom),
    ];
    for (who, of, refused) in refusals {
        assert_eq!(world.add_roster(who, of, 1, b"x").unwrap_err(), refused, "{of}");
        assert_eq!(world.roster_page(who, of, 0, 9, 9).unwrap_err(), refused, "{of}");
    }
    world.add_roster(&alice, "#open", 1, b"x").unwrap();
    world.join(&bob, "#open");
    assert_eq!(world.roster(&bob, "#open").len(), 1, "a new member reads all of it");
    world.moderate(&alice, "#open", Act::Kick, "bob").unwrap();
    assert_eq!(world.add_roster(&bob, "#open", 2, b"x").unwrap_err(), Refused::NotMember);
    assert_eq!(world.rows("roster_entry"), 1);
}

#[test]
fn pages_of_a_roster_are_bounded_but_never_empty() {
    let mut world = World::new();
    let alice = world.person("alice");
    world.create(&alice, "#e", false, true).unwrap();
    for epoch in 1..=5 {
        world.add_roster(&alice, "#e", epoch, &[7; 100]).unwrap();
    }
    let page = |after, limit, bytes| {
        let page = world.roster_page(&alice, "#e", after, limit, bytes).unwrap();
        assert_eq!(page.last, 5);
        (page.rows.iter().map(|(epoch, _)| *epoch).collect::<Vec<_>>(), page.more)
    };
    assert_eq!(page(0, 9, usize::MAX), (vec![1, 2, 3, 4, 5], false));
    assert_eq!(page(0, 5, usize::MAX), (vec![1, 2, 3, 4, 5], false));
    assert_eq!(page(1, 2, usize::MAX), (vec![2, 3], true));
    assert_eq!(page(3, 2, usize::MAX), (vec![4, 5], false));
    let row = 136 + 160; // 100 bytes in base64
    assert_eq!(page(0, 9, row * 2), (vec![1, 2], true));
    assert_eq!(page(0, 9, row * 3 - 1), (vec![1, 2], true));
    assert_eq!(page(0, 9, 0), (vec![1], true));
    assert_eq!(page(5, 9, 0), (vec![], false));
    assert_eq!(page(u32::MAX, 9, 9), (vec![], false));
    assert_eq!(page(0, 0, usize::MAX), (vec![], true));
}

#[test]
fn a_roster_is_bounded() {
    let mut world = World::new();
    let alice = world.person("alice");
    world.create(&alice, "#e", false, true).unwrap();
    world.add_roster(&alice, "#e", 1, b"x").unwrap();
    world.engine.records().change(&format!("UPDATE roster SET last = {}", ROSTER_MAX - 1));
    assert_eq!(world.add_roster(&alice, "#e", ROSTER_MAX, b"x").unwrap().epoch, ROSTER_MAX);
    assert_eq!(world.add_roster(&alice, "#e", ROSTER_MAX, b"x").unwrap_err(), Refused::Epoch(ROSTER_MAX));
    assert_eq!(world.add_roster(&alice, "#e", ROSTER_MAX + 1, b"x").unwrap_err(), Refused::Quota(65_536));
}

#[test]
fn a_roster_goes_with_its_room() {
    let mut world = World::new();
    let [alice, bob] = world.people(["alice", "bob"]);
    // Nothing was said: the room is gone with its last member.
    world.create(&alice, "#e", false, true).unwrap();
    world.add_roster(&alice, "#e", 1, b"x").unwrap();
    world.leave(&alice, "#e");
    world.create(&bob, "#e", false, true).unwrap();
    assert!(world.roster(&bob, "#e").is_empty(), "also before it was swept, and if the room's number is used again");
    world.add_roster(&bob, "#e", 1, b"y").unwrap();
    world.sweep(None);
    assert_eq!(world.roster(&bob, "#e"), [(1, b"y".to_vec())]);
    assert_eq!((world.rows("roster"), world.rows("roster_entry")), (1, 1));

    // Something was said: both stay for the retention time.
    world.say(&bob, "#e", "e2e:AAAA");
    world.leave(&bob, "#e");
    let left = world.now;
    world.sweep(Some(at(left)));
    world.join(&alice, "#e");
    assert_eq!(world.roster(&alice, "#e").len(), 1);
    world.leave(&alice, "#e");
    world.now += 1000;
    world.sweep(Some(at(world.now)));
    assert_eq!((world.rows("room"), world.rows("roster"), world.rows("roster_entry")), (0, 0, 0));

    // Of an erased account too.
    world.create(&alice, "#f", false, true).unwrap();
    world.add_roster(&alice, "#f", 1, b"x").unwrap();
    world.unregister(&alice);
    world.sweep(None);
    assert_eq!((world.rows("room"), world.rows("roster_entry")), (0, 0));
}

#[test]
fn a_long_roster_goes_in_pieces() {
    let mut world = World::new();
    let alice = world.person("alice");
    for (of, entry) in [("#long", 1), ("#large", 2000)] {
        world.create(&alice, of, false, true).unwrap();
        world.engine.begin().unwrap();
        for epoch in 1..=2500 {
            world.add_roster(&alice, of, epoch, &vec![0; entry]).unwrap();
        }
        world.engine.commit().unwrap();
        world.leave(&alice, of);
        world.now += 1;
        assert!(matches!(world.apply(Op::Sweep(Sweep::default())), Ok(Outcome::Swept { more: true })));
        assert_eq!(world.rows("roster_entry"), 1500, "a thousand at once");
        world.sweep(None);
        assert_eq!((world.rows("roster"), world.rows("roster_entry")), (0, 0));
    }
}

#[test]
fn a_lost_batch_leaves_no_entry() {
    let mut world = World::new();
    let alice = world.person("alice");
    world.create(&alice, "#e", false, true).unwrap();
    world.engine.begin().unwrap();
    world.add_roster(&alice, "#e", 1, b"lost").unwrap();
    world.engine.rollback();
    assert!(world.roster(&alice, "#e").is_empty());
    world.add_roster(&alice, "#e", 1, b"kept").unwrap();
    assert_eq!(world.roster(&alice, "#e"), [(1, b"kept".to_vec())]);
}

// ---- against a naive oracle ----

#[derive(Debug, Clone)]
enum Step {
    Enter(usize, usize),
    Leave(usize, usize),
    Say(usize, usize),
    /// Who, where, and how far from the right place.
    Add(usize, usize, i64),
    Sweep(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let at = || (0..3usize, 0..2usize);
    let step = prop_oneof![
        4 => at().prop_map(|(who, of)| Step::Enter(who, of)),
        3 => at().prop_map(|(who, of)| Step::Leave(who, of)),
        1 => at().prop_map(|(who, of)| Step::Say(who, of)),
        10 => (at(), -1..2i64).prop_map(|((who, of), off)| Step::Add(who, of, off)),
        1 => any::<bool>().prop_map(Step::Sweep),
    ];
    proptest::collection::vec(step, 1..100)
}

/// A room that exists.
#[derive(Default)]
struct Naive {
    members: Vec<usize>,
    said: bool,
    entries: Vec<Vec<u8>>,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn rosters_are_what_a_naive_log_holds(steps in steps()) {
        let mut world = World::new();
        let people = world.people(["anna", "ben", "cleo"]);
        let names = ["#x", "#y"];
        let mut oracle: BTreeMap<usize, Naive> = BTreeMap::new();
        let mut number = 0u32;
        for step in steps {
            match step {
                Step::Enter(who, of) => {
                    if let Some(naive) = oracle.get_mut(&of) {
                        world.join(&people[who], names[of]);
                        if !naive.members.contains(&who) {
                            naive.members.push(who);
                        }
                    } else {
                        world.create(&people[who], names[of], false, true).unwrap();
                        oracle.insert(of, Naive { members: vec![who], ..Naive::default() });
                    }
                }
                Step::Leave(who, of) => {
                    let op = Op::LeaveRoom { account: people[who].id, room: room(names[of]) };
                    let left = world.change(op).is_ok();
                    let mut gone = false;
                    if let Some(naive) = oracle.get_mut(&of) {
                        prop_assert_eq!(left, naive.members.contains(&who));
                        naive.members.retain(|member| *member != who);
                        gone = naive.members.is_empty() && !naive.said;
                    }
                    if gone {
                        oracle.remove(&of);
                    }
                }
                Step::Say(who, of) => {
                    let said = world.send(&people[who], names[of], "e2e:AAAA").is_ok();
                    if let Some(naive) = oracle.get_mut(&of) {
                        naive.said |= said;
                    }
                }
                Step::Add(who, of, off) => {
                    number += 1;
                    let entry = number.to_be_bytes().to_vec();
                    let last = oracle.get(&of).map_or(0, |naive| naive.entries.len() as u32);
                    let epoch = (i64::from(last) + 1 + off) as u32;
                    let found = world.add_roster(&people[who], names[of], epoch, &entry).map(|added| added.epoch);
                    let wanted = match oracle.get_mut(&of) {
                        None => Err(Refused::NoSuchRoom),
                        Some(naive) if !naive.members.contains(&who) => Err(Refused::NotMember),
                        Some(_) if off != 0 => Err(Refused::Epoch(last)),
                        Some(naive) => {
                            naive.entries.push(entry);
                            Ok(epoch)
                        }
                    };
                    prop_assert_eq!(found, wanted);
                }
                Step::Sweep(everything) => {
                    world.now += 10;
                    world.sweep(everything.then(|| at(world.now)));
                    if everything {
                        oracle.retain(|_, naive| !naive.members.is_empty());
                    }
                }
            }
            for (of, naive) in &oracle {
                for who in &naive.members {
                    let wanted: Vec<_> = (1..).zip(naive.entries.iter().cloned()).collect();
                    prop_assert_eq!(world.roster(&people[*who], names[*of]), wanted);
                }
            }
        }
        world.sweep(None);
        let entries: usize = oracle.values().map(|naive| naive.entries.len()).sum();
        prop_assert_eq!(world.rows("roster_entry"), entries as i64);
    }
}

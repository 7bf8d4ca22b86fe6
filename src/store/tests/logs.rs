use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[test]
fn pages_go_both_ways() {
    let mut world = World::new();
    let [alice, bob, carol] = world.people(["alice", "bob", "carol"]);
    for n in 1..=10 {
        let (from, to) = if n % 2 == 0 { (&alice, "bob") } else { (&bob, "alice") };
        world.say(from, to, &format!("m{n}"));
    }
    let page = |bound, limit| {
        let page = world.page(&alice, "bob", bound, limit).unwrap();
        (ids(&page), page.more, page.oldest.map(|id| id.0))
    };
    let id = MessageId;
    assert_eq!(page(Bound::Newest, 3), (vec![8, 9, 10], true, Some(1)));
    assert_eq!(page(Bound::Newest, 10), ((1..=10).collect(), false, Some(1)));
    assert_eq!(page(Bound::After(id(0)), 3), (vec![1, 2, 3], true, Some(1)));
    assert_eq!(page(Bound::After(id(7)), 3), (vec![8, 9, 10], false, Some(8)));
    assert_eq!(page(Bound::After(id(10)), 3), (vec![], false, None));
    assert_eq!(page(Bound::After(id(u64::MAX)), 3), (vec![], false, None));
    assert_eq!(page(Bound::Before(id(4)), 2), (vec![2, 3], true, Some(1)));
    assert_eq!(page(Bound::Before(id(4)), 3), (vec![1, 2, 3], false, Some(1)));
    assert_eq!(page(Bound::Before(id(1)), 3), (vec![], false, None));
    assert_eq!(page(Bound::Before(id(0)), 3), (vec![], false, None));
    assert_eq!(page(Bound::Before(id(u64::MAX)), 2), (vec![9, 10], true, Some(1)));
    assert_eq!(page(Bound::Newest, 0), (vec![], true, None));

    let shown = shown(&world.page(&bob, "alice", Bound::Newest, 2).unwrap());
    assert_eq!((&shown[0].target, &shown[0].sender), (&target("alice"), &bob.name));
    assert_eq!((&shown[1].target, &shown[1].sender), (&target("bob"), &alice.name));
    assert!(world.page(&carol, "alice", Bound::Newest, 9).unwrap().rows.is_empty());
    assert_eq!(world.page(&carol, "zed", Bound::Newest, 9).unwrap_err(), Refused::NoSuchUser);
    assert_eq!(world.page(&carol, "#zed", Bound::Newest, 9).unwrap_err(), Refused::NoSuchRoom);
}

#[test]
fn pages_are_bounded_in_bytes_but_never_empty() {
    let mut world = World::new();
    let [alice, bob] = world.people(["alice", "bob"]);
    for _ in 0..5 {
        world.say(&alice, "bob", &"x".repeat(1000));
    }
    let page = |bound, bytes| {
        let page = world.page_of_bytes(&bob, "alice", bound, 100, bytes).unwrap();
        (ids(&page), page.more)
    };
    assert_eq!(page(Bound::After(MessageId(0)), 1160 * 2), (vec![1, 2], true));
    assert_eq!(page(Bound::After(MessageId(0)), 1160 * 3 - 1), (vec![1, 2], true));
    assert_eq!(page(Bound::Newest, 1160 * 2), (vec![4, 5], true), "the newest stay");
    assert_eq!(page(Bound::Newest, 0), (vec![5], true));
    assert_eq!(page(Bound::Newest, 1160 * 5), (vec![1, 2, 3, 4, 5], false));
    let unread = world.unread(&bob, 100, 1160 * 3);
    assert_eq!((ids(&unread), unread.more), (vec![1, 2, 3], true));
    assert!(world.unread(&bob, 100, 0).rows.len() == 1);
}

#[test]
fn a_login_is_told_the_oldest_and_what_is_left() {
    let mut world = World::new();
    let [alice, bob, carol] = world.people(["alice", "bob", "carol"]);
    world.join(&bob, "#a");
    world.join(&carol, "#a");
    world.say(&alice, "carol", "a1");
    world.say(&bob, "#a", "r1");
    world.say(&carol, "#a", "mine");
    world.say(&bob, "#a", "r2");
    world.say(&alice, "carol", "a2");
    let session = world.open("carol");
    world.say(&alice, "carol", "after the login");
    let arrival = world.arrival(&carol, session.behind.clone(), 2);
    assert_eq!((bodies(&arrival.page), arrival.unread), (vec!["a1".to_owned(), "r1".to_owned()], 4));
    let rest: Vec<_> =
        arrival.rest.iter().map(|row| (row.target.to_string(), row.count, row.first.0, row.last.0)).collect();
    assert_eq!(rest, [("#a".to_owned(), 1, 3, 3), ("alice".to_owned(), 1, 2, 2)]);
    let none = world.arrival(&carol, session.behind.clone(), 0);
    assert_eq!((none.page.rows.len(), none.unread, none.rest.len()), (0, 4, 2));
    assert_eq!((none.rest[0].first.0, none.rest[0].last.0), (1, 3));
    world.leave(&carol, "#a");
    assert_eq!(world.arrival(&carol, session.behind, 9).unread, 2, "a room that was left is nobody's business");
}

#[test]
fn twenty_thousand_missed_messages_are_counted_and_not_read() {
    let mut world = World::new();
    let [alice, bob] = world.people(["alice", "bob"]);
    world.engine.begin().unwrap();
    for _ in 0..20_000 {
        world.say(&alice, "bob", "x");
    }
    world.say(&bob, "alice", "y");
    world.engine.commit().unwrap();
    let behind = world.open("bob").behind;
    let arrival = world.arrival(&bob, behind, 100);
    assert_eq!((arrival.unread, arrival.page.rows.len()), (20_000, 100));
    let row = &arrival.rest[0];
    assert_eq!((row.count, row.first.0, row.last.0), (19_900, 101, 20_000));
    assert_eq!(world.unread(&bob, 10, usize::MAX).rows.len(), 10);
    assert_eq!(world.counts(&bob, false), [("alice".to_owned(), 20_000, 1, 20_000)]);
    world.ack(&bob, "alice", 5_000).unwrap();
    assert_eq!(world.counts(&bob, false), [("alice".to_owned(), 15_000, 5_001, 20_000)]);
}

// ---- against a naive oracle ----

const PEOPLE: [&str; 3] = ["anna", "ben", "cleo"];
const TARGETS: [&str; 5] = ["anna", "ben", "cleo", "#x", "#y"];

#[derive(Debug, Clone)]
enum Act {
    Say(usize, usize, u64),
    Ack(usize, usize, u64),
    Join(usize, usize),
    Leave(usize, usize),
    Open(usize),
    Sweep(u64),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        8 => (0..3usize, 0..5usize, 0..2u64).prop_map(|(who, to, tick)| Act::Say(who, to, tick)),
        3 => (0..3usize, 0..5usize, 0..12u64).prop_map(|(who, of, id)| Act::Ack(who, of, id)),
        3 => (0..3usize, 3..5usize).prop_map(|(who, of)| Act::Join(who, of)),
        1 => (0..3usize, 3..5usize).prop_map(|(who, of)| Act::Leave(who, of)),
        2 => (0..3usize).prop_map(Act::Open),
        1 => (0..20u64).prop_map(Act::Sweep),
    ];
    proptest::collection::vec(act, 1..80)
}

/// A message of the oracle: conversation, id, time, sender, body.
type Said = (ConversationId, u64, u64, usize, String);

#[derive(Default)]
struct Oracle {
    said: Vec<Said>,
    last: BTreeMap<ConversationId, u64>,
    read: BTreeMap<(usize, ConversationId), u64>,
}

impl Oracle {
    /// What lies in (after, upto] of a log and is by others, sorted as it is shown.
    fn foreign(&self, who: usize, log: ConversationId, after: u64, upto: u64) -> Vec<&Said> {
        self.said.iter().filter(|said| said.0 == log && said.1 > after && said.1 <= upto && said.3 != who).collect()
    }

    fn sorted(mut found: Vec<&Said>) -> Vec<String> {
        found.sort_by_key(|said| (said.2, said.0, said.1));
        found.into_iter().map(|said| said.4.clone()).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn unread_arrival_and_backlog_are_what_a_naive_reading_finds(acts in acts(), limit in 0usize..12) {
        let mut world = World::new();
        let people = world.people(PEOPLE);
        let mut oracle = Oracle::default();
        let mut logs: BTreeMap<String, ConversationId> = BTreeMap::new();
        let mut opened: Vec<(usize, Vec<Behind>)> = Vec::new();
        let log_name = |who: usize, to: usize| match TARGETS[to] {
            room if room.starts_with('#') => room.to_owned(),
            _ => format!("{}-{}", who.min(to), who.max(to)),
        };
        let mut number = 0;
        for act in acts {
            match act {
                Act::Say(who, to, tick) => {
                    number += 1;
                    let body = format!("body {number}");
                    world.now -= 1 - tick; // the clock may stand still
                    if let Ok(sent) = world.send(&people[who], TARGETS[to], &body) {
                        let log = sent.conversation;
                        logs.insert(log_name(who, to), log);
                        *oracle.last.entry(log).or_default() += 1;
                        prop_assert_eq!(oracle.last[&log], sent.id.0);
                        if to < 3 {
                            oracle.read.entry((who, log)).or_default();
                            oracle.read.entry((to, log)).or_default();
                        }
                        oracle.said.push((log, sent.id.0, sent.time.as_millis(), who, body));
                    }
                }
                Act::Ack(who, of, id) => {
                    if let Ok(acked) = world.ack(&people[who], TARGETS[of], id) {
                        let last = oracle.last.get(&acked.conversation).copied().unwrap_or(0);
                        let read = oracle.read.get_mut(&(who, acked.conversation)).unwrap();
                        *read = (*read).max(id.min(last));
                        prop_assert_eq!(acked.read.0, *read);
                    }
                }
                Act::Join(who, of) => {
                    let joined = world.join(&people[who], TARGETS[of]);
                    if joined.entered {
                        logs.insert(TARGETS[of].to_owned(), joined.room.id);
                        if joined.last.0 == 0 {
                            oracle.last.remove(&joined.room.id); // perhaps a number used again
                        }
                        oracle.read.insert((who, joined.room.id), joined.last.0);
                    }
                }
                Act::Leave(who, of) => {
                    let op = Op::LeaveRoom { account: people[who].id, room: room(TARGETS[of]) };
                    if let Ok(change) = world.change(op) {
                        oracle.read.remove(&(who, change.room.id));
                        if world.rooms(&people[0], Some(TARGETS[of])).is_empty() {
                            logs.remove(TARGETS[of]); // nothing was said there, its number is used again
                        }
                    }
                }
                Act::Open(who) => opened.push((who, world.open(PEOPLE[who]).behind)),
                Act::Sweep(age) => {
                    let cut = world.now - age;
                    oracle.said.retain(|said| said.2 >= cut);
                    world.sweep(Some(at(cut)));
                    // An empty room may be gone, and its number be used again.
                    let rooms = world.rooms(&people[0], None);
                    for name in ["#x", "#y"] {
                        if !rooms.iter().any(|row| row.room.name == room(name))
                            && let Some(log) = logs.remove(name)
                        {
                            oracle.last.remove(&log);
                            for (_, behind) in &mut opened {
                                behind.retain(|behind| behind.conversation != log);
                            }
                        }
                    }
                }
            }
        }

        for (who, person) in people.iter().enumerate() {
            let mine: Vec<_> = oracle.read.iter().filter(|((account, _), _)| *account == who).collect();
            let mut all = Vec::new();
            let mut counts = BTreeMap::new();
            for ((_, log), read) in mine {
                let found = oracle.foreign(who, *log, *read, u64::MAX);
                if let (Some(first), Some(last)) = (found.first(), found.last()) {
                    counts.insert(*log, (found.len() as u64, first.1, last.1));
                }
                all.extend(found);
            }
            let all = Oracle::sorted(all);
            let page = world.unread(person, limit, usize::MAX);
            prop_assert_eq!(bodies(&page), all.iter().take(limit).cloned().collect::<Vec<_>>());
            prop_assert_eq!(page.more, all.len() > limit);
            let shown: Vec<_> = world.counts(person, false);
            let mut wanted: Vec<_> = counts
                .iter()
                .map(|(log, (count, first, last))| {
                    let name = logs.iter().find(|(_, id)| *id == log).unwrap().0;
                    let name = match name.split_once('-') {
                        Some((a, b)) if a == who.to_string() => PEOPLE[b.parse::<usize>().unwrap()].to_owned(),
                        Some((a, _)) => PEOPLE[a.parse::<usize>().unwrap()].to_owned(),
                        None => name.clone(),
                    };
                    (name, *count, *first, *last)
                })
                .collect();
            wanted.sort();
            prop_assert_eq!(shown, wanted);
        }

        for (who, behind) in opened {
            let mut wanted = Vec::new();
            let mut ranges = Vec::new();
            for Behind { conversation, read, last } in &behind {
                if oracle.read.contains_key(&(who, *conversation)) {
                    wanted.extend(oracle.foreign(who, *conversation, read.0, last.0));
                }
                ranges.push(Range { conversation: *conversation, after: *read, upto: *last });
            }
            let wanted = Oracle::sorted(wanted);
            let arrival = world.arrival(&people[who], behind, limit);
            prop_assert_eq!(arrival.unread, wanted.len() as u64);
            prop_assert_eq!(bodies(&arrival.page), wanted.iter().take(limit).cloned().collect::<Vec<_>>());
            let rest: u64 = arrival.rest.iter().map(|row| row.count).sum();
            prop_assert_eq!(rest, wanted.len().saturating_sub(limit) as u64);

            let everything = Oracle::sorted(ranges.iter().flat_map(|range| {
                let within = |said: &&Said| {
                    said.0 == range.conversation && said.1 > range.after.0 && said.1 <= range.upto.0
                };
                oracle.said.iter().filter(within).collect::<Vec<_>>()
            }).collect());
            let max_bytes = 175 * limit;
            let Ok(Answer::Page(page)) = world.ask(Query::Backlog { ranges, max_bytes }) else { panic!() };
            let shown = bodies(&page);
            prop_assert_eq!(shown.as_slice(), &everything[..shown.len()]);
            prop_assert_eq!(page.more, shown.len() < everything.len());
            prop_assert!(!shown.is_empty() || everything.is_empty());
        }
    }
}

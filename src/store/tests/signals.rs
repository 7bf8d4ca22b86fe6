use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

impl World {
    fn signal(&mut self, sender: &Person, to: &str, body: &str) -> Result<SignalStored, Refused> {
        let op = Op::AddSignal { sender: sender.clone(), receiver: name(to), body: body.into() };
        self.apply(op).map(|outcome| match outcome {
            Outcome::Signalled(stored) => stored,
            other => panic!("{other:?}"),
        })
    }

    fn drop_signal(&mut self, who: &Person, id: u64) -> Result<(), Refused> {
        self.apply(Op::DropSignal { account: who.id, id }).map(drop)
    }

    fn signals_of(&self, who: &Person, after: u64, limit: usize, max_bytes: usize) -> (Vec<Signal>, bool) {
        match self.ask(Query::Signals { account: who.id, after, limit, max_bytes }).unwrap() {
            Answer::Signals { rows, more } => (rows, more),
            other => panic!("{other:?}"),
        }
    }

    fn waiting(&self, who: &Person) -> Vec<(u64, String, String)> {
        let (rows, more) = self.signals_of(who, 0, usize::MAX, usize::MAX);
        assert!(!more);
        rows.into_iter().map(|row| (row.id, row.sender.name.to_string(), row.body.to_string())).collect()
    }

    fn signal_ids(&self, who: &Person, after: u64, limit: usize, max_bytes: usize) -> (Vec<u64>, bool) {
        let (rows, more) = self.signals_of(who, after, limit, max_bytes);
        (rows.iter().map(|row| row.id).collect(), more)
    }

    /// The counts of pairs are those of the rows.
    fn check_counts(&self) {
        let found = "SELECT count(*) FROM (SELECT id >> 32 AS receiver, sender, count(*) AS signals FROM signal
                     GROUP BY 1, 2 EXCEPT SELECT receiver, sender, signals FROM waiting)";
        assert_eq!(self.engine.records().number(found), 0);
        let pairs = "SELECT count(*) FROM (SELECT DISTINCT id >> 32, sender FROM signal)";
        assert_eq!(self.engine.records().number(pairs), self.rows("waiting"));
    }
}

#[test]
fn a_signal_waits_until_it_is_dropped() {
    let mut world = World::new();
    let [alice, bob] = world.people(["alice", "bob"]);
    let first = world.signal(&alice, "bob", "e2e:AAAA").unwrap();
    assert_eq!((first.id, &first.receiver, first.time), (1, &bob, at(world.now)));
    assert_eq!(world.signal(&bob, "bob", "e2e:BBBB").unwrap().id, 2, "to one's own devices");
    assert_eq!(world.signal(&bob, "alice", "e2e:CCCC").unwrap().id, 1, "each receiver has numbers of its own");
    assert_eq!(world.signal(&alice, "nobody", "e2e:AAAA").unwrap_err(), Refused::NoSuchUser);
    let row = |id, sender: &str, body: &str| (id, sender.to_owned(), body.to_owned());
    assert_eq!(world.waiting(&bob), [row(1, "alice", "e2e:AAAA"), row(2, "bob", "e2e:BBBB")]);
    let (rows, _) = world.signals_of(&bob, 0, 1, usize::MAX);
    assert_eq!((rows[0].time, &rows[0].sender), (first.time, &alice));

    world.drop_signal(&bob, 1).unwrap();
    assert_eq!(world.waiting(&bob), [row(2, "bob", "e2e:BBBB")], "exactly that one");
    for id in [0, 1, 3, 1 << 31, 1 << 32, (1 << 32) + 2, u64::MAX] {
        assert_eq!(world.drop_signal(&bob, id).unwrap_err(), Refused::NotFound, "{id}");
    }
    assert_eq!(world.waiting(&alice).len(), 1);
    world.check_counts();
}

#[test]
fn a_number_is_never_used_again() {
    let mut world = World::new();
    let [alice, bob] = world.people(["alice", "bob"]);
    for wanted in 1..=3 {
        assert_eq!(world.signal(&alice, "bob", "e2e:AAAA").unwrap().id, wanted);
        world.drop_signal(&bob, wanted).unwrap();
    }
    assert!(world.waiting(&bob).is_empty());
    assert_eq!((world.rows("waiting"), world.rows("mailbox")), (0, 1));
    assert_eq!(world.signal(&alice, "bob", "e2e:AAAA").unwrap().id, 4);
    world.now += SIGNAL_LIFE_MS;
    world.sweep(None);
    assert!(world.waiting(&bob).is_empty());
    assert_eq!(world.signal(&alice, "bob", "e2e:AAAA").unwrap().id, 5);
}

#[test]
fn times_are_those_of_the_store() {
    let mut world = World::new();
    let [alice, _] = world.people(["alice", "bob"]);
    let first = world.signal(&alice, "bob", "e2e:AAAA").unwrap().time;
    world.now -= 1000; // the clock was set back
    assert_eq!(world.signal(&alice, "bob", "e2e:AAAA").unwrap().time, first);
    assert_eq!(world.send(&alice, "bob", "e2e:AAAA").unwrap().time, first, "one clock for the whole store");
}

#[test]
fn a_thousand_of_one_pair_wait_and_no_more() {
    let mut world = World::new();
    let [alice, bob, carol] = world.people(["alice", "bob", "carol"]);
    world.engine.begin().unwrap();
    for _ in 0..SIGNALS_MAX {
        world.signal(&alice, "bob", "e2e:AAAA").unwrap();
    }
    world.engine.commit().unwrap();
    assert_eq!(world.signal(&alice, "bob", "e2e:AAAA").unwrap_err(), Refused::Quota(1000));
    assert_eq!(world.signal(&carol, "bob", "e2e:AAAA").unwrap().id, 1001, "the refused one took no number");
    assert_eq!(world.signal(&bob, "alice", "e2e:AAAA").unwrap().id, 1, "the other way round");
    world.drop_signal(&bob, 500).unwrap();
    assert_eq!(world.signal(&alice, "bob", "e2e:AAAA").unwrap().id, 1002);
    assert_eq!(world.signal(&alice, "bob", "e2e:AAAA").unwrap_err(), Refused::Quota(1000));
    world.check_counts();
    world.now += SIGNAL_LIFE_MS;
    assert!(world.sweep(None) > 1, "in pieces");
    assert_eq!((world.rows("signal"), world.rows("waiting")), (0, 0));
    assert!(world.signal(&alice, "bob", "e2e:AAAA").is_ok());
}

#[test]
fn nothing_is_found_by_reading_a_table() {
    let world = World::new();
    for (sql, wanted) in [
        ("SELECT signals FROM waiting WHERE receiver = 1 AND sender = 2", "PRIMARY KEY"),
        ("SELECT id FROM signal WHERE time <= 5 ORDER BY time", "signal_time"),
        ("SELECT account FROM mailbox WHERE abandoned = 1 LIMIT 1", "mailbox_abandoned"),
        ("SELECT id FROM roster WHERE room IS NULL LIMIT 1", "sqlite_autoindex_roster_1"),
        ("SELECT id FROM device WHERE account = 1 AND (2 IS NULL OR name = 2) ORDER BY name", "device_name"),
        ("SELECT id FROM prekey WHERE id BETWEEN 1 AND 2 ORDER BY id LIMIT 1", "PRIMARY KEY"),
    ] {
        let plan = world.engine.records().plan(sql);
        assert!(plan.contains(wanted) && !plan.contains("TEMP"), "{sql}: {plan}");
    }
}

#[test]
fn pages_of_signals_are_bounded_but_never_empty() {
    let mut world = World::new();
    let [alice, bob] = world.people(["alice", "bob"]);
    for _ in 0..5 {
        world.signal(&alice, "bob", &"x".repeat(1000)).unwrap();
    }
    world.drop_signal(&bob, 3).unwrap();
    assert_eq!(world.signal_ids(&bob, 0, 2, usize::MAX), (vec![1, 2], true));
    assert_eq!(world.signal_ids(&bob, 2, 2, usize::MAX), (vec![4, 5], false));
    assert_eq!(world.signal_ids(&bob, 0, 4, usize::MAX), (vec![1, 2, 4, 5], false));
    assert_eq!(world.signal_ids(&bob, 0, 9, 1160 * 2), (vec![1, 2], true));
    assert_eq!(world.signal_ids(&bob, 0, 9, 1160 * 3 - 1), (vec![1, 2], true));
    assert_eq!(world.signal_ids(&bob, 0, 9, 0), (vec![1], true));
    assert_eq!(world.signal_ids(&bob, 5, 9, 0), (vec![], false));
    assert_eq!(world.signal_ids(&bob, u64::MAX, 9, 9), (vec![], false));
    assert_eq!(world.signal_ids(&bob, 0, 0, usize::MAX), (vec![], true));
    assert_eq!(world.signal_ids(&alice, 0, 9, usize::MAX), (vec![], false));
}

#[test]
fn signals_expire_after_thirty_days() {
    let mut world = World::new();
    let [alice, bob] = world.people(["alice", "bob"]);
    let first = world.signal(&alice, "bob", "e2e:AAAA").unwrap();
    world.now += 1000;
    world.signal(&alice, "bob", "e2e:BBBB").unwrap();
    let life = 30 * 24 * 3600 * 1000;
    world.now = first.time.as_millis() + life - 2;
    world.sweep(Some(at(world.now)));
    assert_eq!(world.signal_ids(&bob, 0, 9, usize::MAX).0, [1, 2], "retention of messages is something else");
    world.sweep(None);
    assert_eq!(world.signal_ids(&bob, 0, 9, usize::MAX).0, [2]);
    assert_eq!(world.drop_signal(&bob, 1).unwrap_err(), Refused::NotFound);
    world.check_counts();
    world.now += life;
    world.sweep(None);
    assert_eq!((world.rows("signal"), world.rows("waiting")), (0, 0));
}

#[test]
fn large_signals_expire_in_smaller_pieces() {
    let mut world = World::new();
    let [alice, _] = world.people(["alice", "bob"]);
    for _ in 0..50 {
        world.signal(&alice, "bob", &"x".repeat(98_304)).unwrap();
    }
    world.now += SIGNAL_LIFE_MS;
    assert_eq!(world.sweep(None), 2, "4 MiB at once");
}

#[test]
fn an_erased_account_gets_no_signals_and_what_it_sent_is_kept() {
    let mut world = World::new();
    let [alice, bob, carol] = world.people(["alice", "bob", "carol"]);
    world.engine.begin().unwrap();
    for _ in 0..900 {
        world.signal(&bob, "alice", "e2e:AAAA").unwrap();
        world.signal(&carol, "alice", "e2e:AAAA").unwrap();
    }
    world.signal(&alice, "alice", "e2e:AAAA").unwrap();
    world.signal(&alice, "bob", "e2e:AAAA").unwrap();
    world.signal(&carol, "bob", "e2e:BBBB").unwrap();
    world.engine.commit().unwrap();
    world.unregister(&alice);
    assert_eq!(world.rows("signal"), 801 + 2, "a bounded piece at once");
    world.check_counts();
    assert_eq!(world.signal(&bob, "alice", "e2e:AAAA").unwrap_err(), Refused::NoSuchUser);
    assert_eq!(world.signal(&alice, "bob", "e2e:AAAA").unwrap_err(), Refused::NoSuchUser, "a session that lags");
    world.sweep(None);
    assert!(world.waiting(&alice).is_empty());
    assert_eq!((world.rows("signal"), world.rows("waiting"), world.rows("mailbox")), (2, 2, 1));
    // They may hold the keys to what was said before.
    let row = |id, sender: &str, body: &str| (id, sender.to_owned(), body.to_owned());
    assert_eq!(world.waiting(&bob), [row(1, "alice", "e2e:AAAA"), row(2, "carol", "e2e:BBBB")]);

    // A small mailbox is gone at once.
    world.unregister(&bob);
    assert_eq!((world.rows("signal"), world.rows("waiting"), world.rows("mailbox")), (0, 0, 0));
}

#[test]
fn a_lost_batch_leaves_no_signal_and_uses_no_number() {
    let mut world = World::new();
    let [alice, bob] = world.people(["alice", "bob"]);
    world.signal(&alice, "bob", "e2e:AAAA").unwrap();
    world.engine.begin().unwrap();
    world.signal(&alice, "bob", "e2e:BBBB").unwrap();
    world.drop_signal(&bob, 1).unwrap();
    world.engine.rollback();
    assert_eq!(world.signal_ids(&bob, 0, 9, usize::MAX), (vec![1], false));
    assert_eq!(world.signal(&alice, "bob", "e2e:CCCC").unwrap().id, 2);
    world.check_counts();
}

// ---- against a naive oracle ----

#[derive(Debug, Clone)]
enum Act {
    Signal(usize, usize),
    Drop(usize, u64),
    Sweep(u64),
    Erase(usize),
    /// What follows is one batch; it is kept or lost at the next of these.
    Batch(bool),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        12 => (0..4usize, 0..4usize).prop_map(|(from, to)| Act::Signal(from, to)),
        6 => (0..4usize, 0..12u64).prop_map(|(who, id)| Act::Drop(who, id)),
        1 => (0..30u64).prop_map(Act::Sweep),
        1 => (0..12usize).prop_map(|who| if who < 4 { Act::Erase(who) } else { Act::Signal(0, who % 4) }),
        2 => any::<bool>().prop_map(Act::Batch),
    ];
    proptest::collection::vec(act, 1..120)
}

#[derive(Debug, Clone, Default)]
struct Oracle {
    /// Receiver and number; time, sender, body.
    waiting: BTreeMap<(usize, u64), (u64, usize, String)>,
    last: [u64; 4],
    erased: [bool; 4],
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn signals_are_what_a_naive_mailbox_holds(acts in acts(), limit in 0usize..6, after in 0u64..8) {
        let mut world = World::new();
        let names = ["anna", "ben", "cleo", "dora"];
        let people = world.people(names);
        let mut oracle = Oracle::default();
        let mut kept = oracle.clone();
        let mut number = 0;
        world.engine.begin().unwrap();
        for act in acts {
            match act {
                Act::Signal(from, to) => {
                    number += 1;
                    let body = format!("e2e:{number}");
                    let sent = world.signal(&people[from], names[to], &body);
                    if oracle.erased[from] || oracle.erased[to] {
                        prop_assert_eq!(sent.unwrap_err(), Refused::NoSuchUser);
                    } else {
                        oracle.last[to] += 1;
                        let sent = sent.unwrap();
                        prop_assert_eq!(sent.id, oracle.last[to]);
                        prop_assert_eq!(&sent.receiver, &people[to]);
                        oracle.waiting.insert((to, sent.id), (sent.time.as_millis(), from, body));
                    }
                }
                Act::Drop(who, id) => {
                    let wanted = oracle.waiting.remove(&(who, id)).map(drop).ok_or(Refused::NotFound);
                    prop_assert_eq!(world.drop_signal(&people[who], id), wanted);
                }
                Act::Sweep(age) => {
                    // Some later moment, at which those older than `age` steps have had their time.
                    let moment = world.now;
                    world.now = moment + SIGNAL_LIFE_MS - age;
                    let cut = world.now + 1 - SIGNAL_LIFE_MS;
                    oracle.waiting.retain(|_, (time, _, _)| *time > cut);
                    prop_assert_eq!(world.sweep(None), 1);
                    world.now = moment;
                }
                Act::Erase(who) => {
                    if !oracle.erased[who] {
                        world.unregister(&people[who]);
                        oracle.erased[who] = true;
                        oracle.waiting.retain(|(receiver, _), _| *receiver != who);
                    }
                }
                Act::Batch(true) => {
                    world.engine.commit().unwrap();
                    kept = oracle.clone();
                    world.engine.begin().unwrap();
                }
                Act::Batch(false) => {
                    world.engine.rollback();
                    oracle = kept.clone();
                    world.engine.begin().unwrap();
                }
            }
        }
        world.check_counts();
        for (who, person) in people.iter().enumerate() {
            let mine = oracle.waiting.range((who, after + 1)..=(who, u64::MAX));
            let wanted: Vec<_> = mine.map(|((_, id), (time, from, body))| (*id, *time, *from, body.clone())).collect();
            let (rows, more) = world.signals_of(person, after, limit, usize::MAX);
            let found: Vec<_> = rows
                .iter()
                .map(|row| {
                    let from = names.iter().position(|name| *name == row.sender.name.as_str()).unwrap();
                    (row.id, row.time.as_millis(), from, row.body.to_string())
                })
                .collect();
            prop_assert_eq!(more, wanted.len() > limit);
            prop_assert_eq!(found.as_slice(), &wanted[..wanted.len().min(limit)]);
        }
    }
}

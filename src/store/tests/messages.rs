use super::*;

#[test]
fn numbers_are_dense_and_times_never_fall() {
    let mut world = World::new();
    let [alice, bob] = world.people(["alice", "bob"]);
    let first = world.send(&alice, "bob", "one").unwrap();
    assert!(matches!(&first.to, Destination::User(person) if *person == bob));
    world.now -= 1000; // the clock was set back
    let second = world.send(&bob, "alice", "two").unwrap();
    assert_eq!((first.id, second.id), (MessageId(1), MessageId(2)));
    assert_eq!(first.conversation, second.conversation, "one log for both directions");
    assert_eq!(second.time, first.time);
    world.join(&alice, "#a");
    let third = world.send(&alice, "#a", "three").unwrap();
    assert!(matches!(&third.to, Destination::Room(name) if *name == room("#a")));
    assert_eq!((third.id, third.time), (MessageId(1), first.time), "one clock for the whole store");
    assert_ne!(third.conversation, first.conversation);
}

#[test]
fn several_targets_stand_or_fall_alone() {
    let mut world = World::new();
    let [alice, bob] = world.people(["alice", "bob"]);
    world.join(&alice, "#a");
    world.join(&bob, "#b");
    let targets = ["bob", "nobody", "#a", "#none", "#b", "alice", "bob"].map(target).to_vec();
    let op = Op::Append { sender: alice.clone(), targets, body: "hi".into(), key: None };
    let Outcome::Appended(results) = world.apply(op).unwrap() else { panic!() };
    let shown: Vec<_> = results.iter().map(|result| result.as_ref().map(|a| a.id.0).map_err(|e| *e)).collect();
    assert_eq!(
        shown,
        [Ok(1), Err(Refused::NoSuchUser), Ok(1), Err(Refused::NoSuchRoom), Err(Refused::NotMember), Ok(1), Ok(2)]
    );
    assert_eq!(world.totals().messages, 4);
}

#[test]
fn notes_to_oneself_are_never_unread() {
    let mut world = World::new();
    let alice = world.person("alice");
    assert_eq!(world.say(&alice, "alice", "milk"), MessageId(1));
    assert_eq!(world.say(&alice, "alice", "bread"), MessageId(2));
    assert!(world.counts(&alice, false).is_empty());
    assert_eq!(world.counts(&alice, true), [("alice".to_owned(), 0, 0, 2)]);
    let page = world.page(&alice, "alice", Bound::Newest, 9).unwrap();
    assert_eq!(bodies(&page), ["milk", "bread"]);
    assert!(shown(&page).iter().all(|shown| shown.target == target("alice") && shown.sender == alice.name));
    assert_eq!(world.arrival(&alice, world.engine_behind("alice"), 9).unread, 0);
    assert_eq!(world.ack(&alice, "alice", 9).unwrap().read, MessageId(2));
}

impl World {
    fn engine_behind(&self, who: &str) -> Vec<Behind> {
        // A login is a write; this reads what it would be told from the counts.
        let Ok(Answer::People(found)) = self.ask(Query::People(vec![name(who)])) else { panic!() };
        let account = found[0].0.clone();
        let page = self.page(&account, who, Bound::Newest, 1).unwrap();
        page.rows
            .iter()
            .map(|row| Behind { conversation: row.conversation, read: MessageId(0), last: row.id })
            .collect()
    }
}

#[test]
fn only_envelopes_enter_an_end_to_end_room() {
    let mut world = World::new();
    let [alice, bob] = world.people(["alice", "bob"]);
    world.create(&alice, "#e", false, true).unwrap();
    assert_eq!(world.send(&alice, "#e", "hello").unwrap_err(), Refused::E2eRequired);
    assert_eq!(world.send(&alice, "#e", "e2e:no base64").unwrap_err(), Refused::E2eRequired);
    assert_eq!(world.say(&alice, "#e", "e2e:aGVsbG8="), MessageId(1), "the refused ones took no number");
    assert_eq!(world.send(&bob, "#e", "hello").unwrap_err(), Refused::NotMember);
    assert_eq!(world.say(&alice, "bob", "e2e:anything goes between two"), MessageId(1));
}

#[test]
fn a_post_happens_once() {
    let mut world = World::new();
    let [alice, bob, _] = world.people(["alice", "bob", "carol"]);
    let first = world.one(post(&alice, "bob", "key-0001", "hello")).unwrap();
    let again = world.one(post(&alice, "bob", "key-0001", "hello")).unwrap();
    assert!(!first.duplicate && again.duplicate);
    assert_eq!((again.id, again.time, again.conversation), (first.id, first.time, first.conversation));
    assert!(matches!(again.to, Destination::User(person) if person == bob));
    assert_eq!(world.totals().messages, 1);

    let conflict = Refused::Conflict(MessageId(1));
    assert_eq!(world.one(post(&alice, "bob", "key-0001", "other")).unwrap_err(), conflict);
    assert_eq!(world.one(post(&alice, "carol", "key-0001", "hello")).unwrap_err(), conflict);
    assert!(!world.one(post(&bob, "alice", "key-0001", "hello")).unwrap().duplicate, "keys are one's own");
    assert!(!world.one(post(&alice, "bob", "key-0002", "hello")).unwrap().duplicate, "another key");

    // What was refused did not use the key up.
    assert_eq!(world.one(post(&alice, "#a", "key-0003", "x")).unwrap_err(), Refused::NoSuchRoom);
    world.join(&alice, "#a");
    assert!(!world.one(post(&alice, "#a", "key-0003", "x")).unwrap().duplicate);
    // Exactly once also for who left meanwhile: the answer to the first was lost, perhaps.
    world.leave(&alice, "#a");
    assert!(world.one(post(&alice, "#a", "key-0003", "x")).unwrap().duplicate);
}

#[test]
fn a_post_key_is_free_again_after_a_day() {
    let mut world = World::new();
    let [alice, _] = world.people(["alice", "bob"]);
    let first = world.one(post(&alice, "bob", "key-0001", "hello")).unwrap();
    world.now = first.time.as_millis() + POST_KEY_LIFE_MS - 2;
    assert!(world.one(post(&alice, "bob", "key-0001", "hello")).unwrap().duplicate, "within 24 h");
    let later = world.one(post(&alice, "bob", "key-0001", "something else")).unwrap();
    assert!(!later.duplicate && later.id == MessageId(2), "after 24 h");
    let dup = world.one(post(&alice, "bob", "key-0001", "something else")).unwrap();
    assert!(dup.duplicate && dup.id == MessageId(2));
    world.now += POST_KEY_LIFE_MS;
    world.sweep(None);
    assert!(!world.one(post(&alice, "bob", "key-0001", "a third")).unwrap().duplicate);
}

#[test]
fn a_key_with_several_targets_is_our_mistake() {
    let mut world = World::new();
    let [alice, _] = world.people(["alice", "bob"]);
    let key = PostKey::parse("key-0001");
    let targets = vec![target("bob"), target("alice")];
    let op = Op::Append { sender: alice.clone(), targets, body: "x".into(), key };
    assert_eq!(world.refused(op), Refused::Internal);
    assert_eq!(world.totals().messages, 0);
}

#[test]
fn markers_go_up_and_tell_who_wants_to_know() {
    let mut world = World::new();
    let [alice, bob, _] = world.people(["alice", "bob", "carol"]);
    for n in 0..5 {
        world.say(&alice, "bob", &format!("m{n}"));
    }
    assert_eq!(world.ack(&bob, "carol", 1).unwrap_err(), Refused::NotFound);
    assert_eq!(world.ack(&bob, "nobody", 1).unwrap_err(), Refused::NoSuchUser);
    assert_eq!(world.ack(&bob, "#none", 1).unwrap_err(), Refused::NoSuchRoom);
    let acked = world.ack(&bob, "alice", 2).unwrap();
    assert_eq!((acked.read, acked.tell), (MessageId(2), None), "receipts are off");
    assert_eq!(world.ack(&bob, "alice", 1).unwrap().read, MessageId(2), "never down");

    world.apply(Op::SetReceipts { account: alice.id, on: true }).unwrap();
    assert_eq!(world.ack(&bob, "alice", 3).unwrap().tell, None, "on one side only");
    world.apply(Op::SetReceipts { account: bob.id, on: true }).unwrap();
    assert_eq!(world.ack(&bob, "alice", 3).unwrap().tell, None, "it did not move");
    let acked = world.ack(&bob, "alice", u64::MAX).unwrap();
    assert_eq!((acked.read, acked.tell), (MessageId(5), Some(alice.id)), "above the last is the last");
    world.say(&bob, "alice", "mine");
    assert_eq!(world.ack(&bob, "alice", 6).unwrap().tell, None, "only over one's own message");
    assert!(world.open("bob").receipts);

    world.join(&alice, "#a");
    world.join(&bob, "#a");
    let conversation = world.send(&alice, "#a", "x").unwrap().conversation;
    let gone = (ConversationId(9999), MessageId(1));
    let marks = vec![gone, (conversation, MessageId(1)), (conversation, MessageId(1))];
    let Outcome::Acked(moved) = world.apply(Op::AutoAck { account: bob.id, marks: marks.clone() }).unwrap() else {
        panic!()
    };
    assert_eq!(moved.len(), 1);
    assert_eq!((moved[0].conversation, moved[0].read, moved[0].tell), (conversation, MessageId(1), None));
    world.leave(&bob, "#a");
    let Outcome::Acked(moved) = world.apply(Op::AutoAck { account: bob.id, marks }).unwrap() else { panic!() };
    assert!(moved.is_empty());
}

#[test]
fn a_lost_batch_leaves_nothing() {
    let mut world = World::new();
    let [alice, bob] = world.people(["alice", "bob"]);
    world.say(&alice, "bob", "kept");
    world.engine.begin().unwrap();
    assert_eq!(world.say(&alice, "bob", "lost"), MessageId(2));
    assert_eq!(world.page(&bob, "alice", Bound::Newest, 9).unwrap().rows.len(), 2, "a batch sees itself");
    assert_eq!(world.refused(Op::JoinRoom { account: AccountId(99), room: room("#x") }), Refused::AuthFailed);
    world.join(&bob, "#lost");
    world.engine.rollback();
    assert_eq!(bodies(&world.page(&bob, "alice", Bound::Newest, 9).unwrap()), ["kept"]);
    assert_eq!((world.totals().rooms, world.counts(&bob, false)), (0, vec![("alice".to_owned(), 1, 1, 1)]));
    assert_eq!(world.say(&alice, "bob", "again"), MessageId(2));
}

#[test]
fn old_messages_go_in_pieces_from_the_front() {
    let mut world = World::new();
    let [alice, bob] = world.people(["alice", "bob"]);
    world.join(&alice, "#a");
    for n in 0..1500 {
        world.say(&alice, "bob", &format!("old {n}"));
    }
    world.say(&bob, "alice", "old reply");
    world.say(&alice, "#a", "old");
    let cut = world.now + 1;
    world.now += 1000;
    world.say(&alice, "bob", "young");
    assert_eq!(world.counts(&bob, false), [("alice".to_owned(), 1501, 1, 1502)]);
    assert_eq!(world.apply(Op::Sweep(Sweep::default())).map(|_| world.totals().messages), Ok(1503));

    assert!(matches!(
        world.apply(Op::Sweep(Sweep { messages_before: Some(at(cut)), ..Sweep::default() })),
        Ok(Outcome::Swept { more: true })
    ));
    assert_eq!(world.totals().messages, 503);
    assert_eq!(world.counts(&bob, false), [("alice".to_owned(), 501, 1001, 1502)]);
    let page = world.page(&bob, "alice", Bound::After(MessageId(0)), 2).unwrap();
    assert_eq!((ids(&page), page.oldest, page.more), (vec![1001, 1002], Some(MessageId(1001)), true));
    let behind = world.open("bob").behind;
    assert_eq!((behind[0].read, behind[0].last), (MessageId(1000), MessageId(1502)), "what is gone is behind");

    assert_eq!(world.sweep(Some(at(cut))), 1);
    assert_eq!(world.counts(&bob, false), [("alice".to_owned(), 1, 1502, 1502)]);
    assert_eq!(world.counts(&alice, false), []);
    assert_eq!(world.totals().messages, 1);
    assert_eq!(world.say(&alice, "#a", "next"), MessageId(2), "numbers go on");
    assert_eq!(world.ack(&bob, "alice", 3).unwrap().read, MessageId(3), "below what is left");
    assert_eq!(world.counts(&bob, false), [("alice".to_owned(), 1, 1502, 1502)]);
    world.sweep(Some(at(world.now + 1)));
    assert_eq!(world.totals().messages, 0);
    assert_eq!(world.counts(&bob, true), [("alice".to_owned(), 0, 3, 1502)]);
    assert!(world.open("bob").behind.is_empty());
    assert_eq!(world.say(&alice, "bob", "again"), MessageId(1503));
    assert_eq!(world.counts(&bob, false), [("alice".to_owned(), 1, 1503, 1503)]);
}

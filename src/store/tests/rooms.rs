use super::*;

#[test]
fn creating_and_joining() {
    let mut world = World::new();
    let [alice, bob] = world.people(["alice", "bob"]);
    let made = world.create(&alice, "#a", false, false).unwrap();
    assert_eq!((made.members, made.last, made.entered), (1, MessageId(0), true));
    assert_eq!(world.create(&bob, "#a", false, false).unwrap_err(), Refused::NameTaken);
    world.say(&alice, "#a", "one");
    let joined = world.join(&bob, "#a");
    assert_eq!((joined.members, joined.last, joined.entered), (2, MessageId(1), true));
    assert_eq!(world.counts(&bob, true), [("#a".to_owned(), 0, 1, 1)], "unread begins behind the last");
    assert_eq!(bodies(&world.page(&bob, "#a", Bound::Newest, 9).unwrap()), ["one"], "the whole log");
    assert!(!world.join(&bob, "#a").entered);
    let fresh = world.join(&bob, "#fresh");
    assert!(fresh.entered && !fresh.room.private && !fresh.room.e2e);
    assert_eq!(world.members(&alice, "#fresh").unwrap(), [("bob".to_owned(), Role::Owner)]);
    assert_eq!(
        world.members(&alice, "#a").unwrap(),
        [("alice".to_owned(), Role::Owner), ("bob".to_owned(), Role::Member)]
    );
    assert_eq!(world.members(&alice, "#none").unwrap_err(), Refused::NoSuchRoom);
}

#[test]
fn the_longest_standing_member_inherits() {
    let mut world = World::new();
    let [alice, bob, carol] = world.people(["alice", "bob", "carol"]);
    world.join(&alice, "#a");
    world.join(&bob, "#a");
    world.join(&carol, "#a");
    world.leave(&bob, "#a");
    world.join(&bob, "#a"); // now behind carol
    world.moderate(&alice, "#a", Act::Op, "bob").unwrap();
    let change = world.leave(&alice, "#a");
    assert_eq!(change.heir.as_ref(), Some(&carol));
    assert_eq!(change.subject.as_ref(), Some(&alice));
    assert_eq!(
        world.members(&alice, "#a").unwrap(),
        [("bob".to_owned(), Role::Operator), ("carol".to_owned(), Role::Owner)]
    );
    assert_eq!(world.leave(&bob, "#a").heir, None, "the owner is still there");
    assert_eq!(world.refused(Op::LeaveRoom { account: bob.id, room: room("#a") }), Refused::NotMember);
    assert_eq!(world.refused(Op::LeaveRoom { account: bob.id, room: room("#none") }), Refused::NoSuchRoom);
}

#[test]
fn an_empty_room_keeps_its_log_for_the_retention_time() {
    let mut world = World::new();
    let [alice, bob] = world.people(["alice", "bob"]);
    world.join(&alice, "#silent");
    world.leave(&alice, "#silent");
    assert_eq!(world.totals().rooms, 0, "nothing was said, nothing is kept");

    world.join(&alice, "#a");
    world.say(&alice, "#a", "one");
    world.moderate(&alice, "#a", Act::Ban, "bob").unwrap();
    world.leave(&alice, "#a");
    assert_eq!(world.create(&bob, "#a", true, true).unwrap_err(), Refused::NameTaken);
    assert_eq!(world.refused(Op::JoinRoom { account: bob.id, room: room("#a") }), Refused::Banned);
    let carol = world.person("carol");
    let joined = world.join(&carol, "#a");
    assert_eq!((joined.members, joined.last), (1, MessageId(1)));
    assert_eq!(world.members(&carol, "#a").unwrap(), [("carol".to_owned(), Role::Owner)]);
    world.leave(&carol, "#a");

    let emptied = world.now;
    world.sweep(Some(at(emptied - 1)));
    assert_eq!(world.totals().rooms, 1, "not yet");
    world.sweep(Some(at(emptied + 10)));
    assert_eq!((world.totals().rooms, world.totals().messages), (0, 0));
    assert_eq!(world.join(&bob, "#a").last, MessageId(0), "a new room, without the old bans");
}

#[test]
fn a_private_room_is_missing_for_strangers() {
    let mut world = World::new();
    let [alice, bob, carol] = world.people(["alice", "bob", "carol"]);
    world.create(&alice, "#s", true, false).unwrap();
    world.say(&alice, "#s", "psst");

    // Every command answers as for a room that is not there …
    let every = |world: &mut World, text: &str| {
        vec![
            world.refused(Op::LeaveRoom { account: bob.id, room: room(text) }),
            world.send(&bob, text, "x").unwrap_err(),
            world.ack(&bob, text, 1).unwrap_err(),
            world.page(&bob, text, Bound::Newest, 1).unwrap_err(),
            world.members(&bob, text).unwrap_err(),
            world.ask(Query::Topic { account: bob.id, room: room(text) }).unwrap_err(),
            world.refused(Op::SetTopic { actor: bob.id, room: room(text), topic: "x".into() }),
            world.moderate(&bob, text, Act::Invite, "carol").unwrap_err(),
            world.moderate(&bob, text, Act::Kick, "nobody").unwrap_err(),
        ]
    };
    assert_eq!(every(&mut world, "#s"), every(&mut world, "#missing"));
    assert!(world.rooms(&bob, None).is_empty());
    // … except that its name cannot be used.
    assert_eq!(world.refused(Op::JoinRoom { account: bob.id, room: room("#s") }), Refused::Forbidden);
    assert_eq!(world.create(&bob, "#s", false, false).unwrap_err(), Refused::Forbidden);
    assert_eq!(world.create(&alice, "#s", false, false).unwrap_err(), Refused::NameTaken);

    let change = world.moderate(&alice, "#s", Act::Invite, "bob").unwrap();
    assert!(change.changed && !change.was_member);
    assert!(!world.moderate(&alice, "#s", Act::Invite, "bob").unwrap().changed);
    assert_eq!(world.open("bob").invitations, [(room("#s"), name("alice"))]);
    assert_eq!(world.rooms(&bob, None).len(), 1);
    assert_eq!(world.send(&bob, "#s", "x").unwrap_err(), Refused::NotMember);
    assert_eq!(world.create(&bob, "#s", false, false).unwrap_err(), Refused::NameTaken);
    assert!(world.join(&bob, "#s").entered);
    assert!(world.open("bob").invitations.is_empty(), "taken up");
    assert!(!world.moderate(&alice, "#s", Act::Invite, "bob").unwrap().changed, "a member already");

    world.moderate(&alice, "#s", Act::Invite, "carol").unwrap();
    world.moderate(&alice, "#s", Act::Ban, "carol").unwrap();
    assert_eq!(world.refused(Op::JoinRoom { account: carol.id, room: room("#s") }), Refused::Forbidden);
    assert_eq!(world.moderate(&alice, "#s", Act::Invite, "carol").unwrap_err(), Refused::Banned);
}

#[test]
fn who_may_do_what_to_whom() {
    let mut world = World::new();
    let [owner, op, member, stranger] = world.people(["owner", "op", "member", "stranger"]);
    for who in [&owner, &op, &member] {
        world.join(who, "#a");
    }
    assert!(world.moderate(&owner, "#a", Act::Op, "op").unwrap().changed);
    assert!(!world.moderate(&owner, "#a", Act::Op, "op").unwrap().changed);
    assert!(!world.moderate(&op, "#a", Act::Op, "owner").unwrap().changed, "more than an operator already");

    for act in [Act::Invite, Act::Kick, Act::Ban, Act::Unban, Act::Op, Act::Deop] {
        assert_eq!(world.moderate(&member, "#a", act, "stranger").unwrap_err(), Refused::Forbidden);
        assert_eq!(world.moderate(&stranger, "#a", act, "member").unwrap_err(), Refused::NotMember);
        assert_eq!(world.moderate(&stranger, "#none", act, "member").unwrap_err(), Refused::NoSuchRoom);
        assert_eq!(world.moderate(&owner, "#a", act, "nobody").unwrap_err(), Refused::NoSuchUser);
    }
    for act in [Act::Kick, Act::Ban, Act::Deop] {
        assert_eq!(world.moderate(&op, "#a", act, "owner").unwrap_err(), Refused::Forbidden);
        assert_eq!(world.moderate(&owner, "#a", act, "owner").unwrap_err(), Refused::Forbidden);
    }
    for act in [Act::Kick, Act::Op, Act::Deop] {
        assert_eq!(world.moderate(&op, "#a", act, "stranger").unwrap_err(), Refused::SubjectNotMember);
    }
    assert_eq!(world.moderate(&op, "#a", Act::Unban, "stranger").unwrap_err(), Refused::NotFound);

    let banned = world.moderate(&op, "#a", Act::Ban, "stranger").unwrap();
    assert!(banned.changed && !banned.was_member);
    assert!(!world.moderate(&op, "#a", Act::Ban, "stranger").unwrap().changed);
    assert_eq!(world.refused(Op::JoinRoom { account: stranger.id, room: room("#a") }), Refused::Banned);
    let banned = world.moderate(&op, "#a", Act::Ban, "member").unwrap();
    assert!(banned.changed && banned.was_member && banned.subject.as_ref() == Some(&member));
    assert_eq!(world.send(&member, "#a", "x").unwrap_err(), Refused::NotMember);
    assert!(world.moderate(&op, "#a", Act::Unban, "member").unwrap().changed);
    world.join(&member, "#a");
    assert!(world.moderate(&op, "#a", Act::Kick, "member").unwrap().was_member);
    world.join(&member, "#a");
    assert!(!world.moderate(&owner, "#a", Act::Deop, "member").unwrap().changed);
    assert!(world.moderate(&op, "#a", Act::Deop, "op").unwrap().changed, "one may step down");
    assert_eq!(world.moderate(&op, "#a", Act::Kick, "member").unwrap_err(), Refused::Forbidden);
}

#[test]
fn topics() {
    let mut world = World::new();
    let [alice, bob] = world.people(["alice", "bob"]);
    world.join(&alice, "#a");
    let get = |world: &World, who: &Person| {
        world.ask(Query::Topic { account: who.id, room: room("#a") }).map(|answer| match answer {
            Answer::Topic(topic) => topic,
            other => panic!("{other:?}"),
        })
    };
    let set = |who: &Person, text: &str| Op::SetTopic { actor: who.id, room: room("#a"), topic: text.into() };
    assert_eq!(get(&world, &alice), Ok(None));
    assert!(world.change(set(&alice, "tea")).unwrap().changed);
    assert!(!world.change(set(&alice, "tea")).unwrap().changed);
    assert_eq!(get(&world, &alice), Ok(Some("tea".to_owned())));
    assert_eq!(get(&world, &bob), Err(Refused::NotMember));
    world.join(&bob, "#a");
    assert_eq!(world.change(set(&bob, "coffee")).unwrap_err(), Refused::Forbidden);
    assert_eq!(world.rooms(&bob, None)[0].topic.as_deref(), Some("tea"));
    assert!(world.change(set(&alice, "")).unwrap().changed);
    assert_eq!(get(&world, &bob), Ok(None));
    let op = Op::CreateRoom { account: bob.id, room: room("#b"), private: false, e2e: true, topic: Some("x".into()) };
    world.apply(op).unwrap();
    assert_eq!(world.rooms(&alice, Some("#b"))[0].topic.as_deref(), Some("x"));
}

#[test]
fn lists_of_rooms() {
    let mut world = World::new();
    let [alice, bob] = world.people(["alice", "bob"]);
    world.join(&alice, "#a");
    world.join(&bob, "#b");
    world.create(&alice, "#p", true, true).unwrap();
    let list = |who: &Person, glob| {
        let show = |row: &RoomRow| format!("{} {} {} {}", row.room.name, row.members, row.joined, row.room.private);
        world.rooms(who, glob).iter().map(show).collect::<Vec<_>>()
    };
    assert_eq!(list(&alice, None), ["#a 1 true false", "#b 1 false false", "#p 1 true true"]);
    assert_eq!(list(&bob, None), ["#a 1 false false", "#b 1 true false"]);
    assert_eq!(list(&alice, Some("#[bp]")).len(), 2);
    let query = Query::Rooms { account: alice.id, glob: None, after: Some(room("#a")), limit: 1 };
    let Answer::Rooms { rows, more: true } = world.ask(query).unwrap() else { panic!() };
    assert_eq!(rows[0].room.name, room("#b"));
    assert_eq!(world.open("alice").rooms.len(), 2);
}

#[test]
fn growth_is_bounded() {
    let mut world = World::new();
    let [alice, bob] = world.people(["alice", "bob"]);
    for n in 0..1000 {
        world.join(&alice, &format!("#r{n}"));
    }
    assert_eq!(world.create(&alice, "#more", false, false).unwrap_err(), Refused::Quota(1000), "rooms made");
    world.join(&bob, "#more");
    assert_eq!(
        world.refused(Op::JoinRoom { account: alice.id, room: room("#more") }),
        Refused::Quota(1000),
        "memberships"
    );
    assert_eq!(world.rooms(&bob, Some("#more"))[0].members, 1, "the refused entry left nothing");
    world.leave(&alice, "#r0");
    assert_eq!(world.join(&alice, "#more").members, 2);
}

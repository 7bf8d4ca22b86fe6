use super::*;

#[test]
fn a_name_is_given_once_and_for_ever() {
    let mut world = World::new();
    let alice = world.person("alice");
    let again = Op::Register { name: name("alice"), verifier: verifier(2), invite: None };
    assert_eq!(world.refused(again.clone()), Refused::NameTaken);
    let epoch = world.epoch("alice");
    assert_eq!(world.refused(Op::Unregister { account: alice.id, epoch: epoch + 1 }), Refused::AuthFailed);
    world.apply(Op::Unregister { account: alice.id, epoch }).unwrap();
    assert_eq!(world.refused(again), Refused::NameTaken, "also after it was erased");
    assert!(matches!(world.ask(Query::Credentials(name("alice"))), Ok(Answer::Credentials(None))));
    assert!(matches!(world.ask(Query::Credentials(name("nobody"))), Ok(Answer::Credentials(None))));
    let proof = Proof::Password { epoch, upgraded: None };
    assert_eq!(world.login("alice", proof.clone()).unwrap_err(), Refused::AuthFailed);
    assert_eq!(world.login("nobody", proof).unwrap_err(), Refused::AuthFailed);
    assert_eq!(world.refused(Op::Unregister { account: alice.id, epoch: epoch + 1 }), Refused::AuthFailed, "gone");
}

#[test]
fn credentials_come_back_and_change() {
    let mut world = World::new();
    let alice = world.person("alice");
    let stored = |world: &World| match world.ask(Query::Credentials(name("alice"))).unwrap() {
        Answer::Credentials(Some(credentials)) => credentials,
        other => panic!("{other:?}"),
    };
    let first = stored(&world);
    assert!(first.verifier == verifier(1) && first.account == alice.id);

    // An upgrade at login keeps the epoch, so that tokens and other logins under way stay good.
    world.apply(Op::AddToken { account: alice.id, name: None, hash: Sha256([1; 32]) }).unwrap();
    world.login("alice", Proof::Password { epoch: first.epoch, upgraded: Some(verifier(2)) }).unwrap();
    let second = stored(&world);
    assert!(second.verifier == verifier(2) && second.epoch == first.epoch);

    let change = Op::ChangePassword { account: alice.id, epoch: first.epoch, verifier: verifier(3) };
    world.apply(change.clone()).unwrap();
    let third = stored(&world);
    assert!(third.verifier == verifier(3) && third.epoch > first.epoch);
    assert_eq!(world.refused(change), Refused::AuthFailed, "checked against the old password");
    let late = Proof::Password { epoch: first.epoch, upgraded: Some(verifier(9)) };
    assert_eq!(world.login("alice", late).unwrap_err(), Refused::AuthFailed);
    assert!(stored(&world).verifier == verifier(3));
    assert_eq!(world.login("alice", Proof::Token(Sha256([1; 32]))).unwrap_err(), Refused::AuthFailed, "tokens end");
}

#[test]
fn tokens_are_named_counted_and_dropped() {
    let mut world = World::new();
    let [alice, bob] = world.people(["alice", "bob"]);
    let add = |name: Option<&str>, hash: u8| Op::AddToken {
        account: alice.id,
        name: name.map(str::to_owned),
        hash: Sha256([hash; 32]),
    };
    let named = |world: &mut World, op| match world.apply(op).unwrap() {
        Outcome::TokenNamed(name) => name,
        other => panic!("{other:?}"),
    };
    assert_eq!(named(&mut world, add(None, 1)), "token-1");
    assert_eq!(named(&mut world, add(None, 2)), "token-2");
    assert_eq!(named(&mut world, add(Some("phone"), 3)), "phone");
    assert_eq!(world.refused(add(Some("phone"), 4)), Refused::NameTaken);
    world.apply(Op::DropToken { account: alice.id, name: "token-1".to_owned() }).unwrap();
    assert_eq!(world.refused(Op::DropToken { account: alice.id, name: "token-1".to_owned() }), Refused::NotFound);
    assert_eq!(world.refused(Op::DropToken { account: bob.id, name: "phone".to_owned() }), Refused::NotFound);
    assert_eq!(named(&mut world, add(None, 5)), "token-1", "the next free one");

    assert_eq!(world.login("alice", Proof::Token(Sha256([3; 32]))).unwrap().account, alice.id);
    assert_eq!(world.login("bob", Proof::Token(Sha256([3; 32]))).unwrap_err(), Refused::AuthFailed, "another's");
    assert_eq!(world.login("alice", Proof::Token(Sha256([1; 32]))).unwrap_err(), Refused::AuthFailed, "dropped");
    let Answer::Tokens(rows) = world.ask(Query::Tokens(alice.id)).unwrap() else { panic!() };
    let used: Vec<_> = rows.iter().map(|row| (row.name.as_str(), row.used.is_some())).collect();
    assert_eq!(used, [("phone", true), ("token-1", false), ("token-2", false)]);

    for n in 0..97 {
        world.apply(add(Some(&format!("n{n}")), 100)).unwrap();
    }
    assert_eq!(world.refused(add(None, 9)), Refused::Quota(100));
}

#[test]
fn certificates_bind_and_unbind() {
    let mut world = World::new();
    let alice = world.person("alice");
    let add = |n: u8| Op::AddCertificate { account: alice.id, certificate: Sha256([n; 32]) };
    for n in 0..16 {
        world.apply(add(n)).unwrap();
    }
    world.apply(add(3)).unwrap();
    assert_eq!(world.refused(add(16)), Refused::Quota(16));
    assert!(world.login("alice", Proof::Certificate(Sha256([7; 32]))).is_ok());
    let drop = Op::DropCertificate { account: alice.id, certificate: Sha256([7; 32]) };
    world.apply(drop.clone()).unwrap();
    assert_eq!(world.refused(drop), Refused::NotFound);
    assert_eq!(world.login("alice", Proof::Certificate(Sha256([7; 32]))).unwrap_err(), Refused::AuthFailed);
    let Answer::Certificates(rows) = world.ask(Query::Certificates(alice.id)).unwrap() else { panic!() };
    assert_eq!(rows.len(), 15);
}

#[test]
fn invitation_codes_work_once_for_seven_days() {
    let mut world = World::new();
    world.person("alice");
    let code = |n: u8| Sha256([n; 32]);
    let register = |text: &str, n| Op::Register { name: name(text), verifier: verifier(1), invite: Some(code(n)) };
    assert_eq!(world.refused(register("bob", 1)), Refused::RegistrationClosed);
    assert_eq!(world.refused(register("alice", 1)), Refused::RegistrationClosed, "names are not told without a code");
    world.apply(Op::AddInvite { code: code(1) }).unwrap();
    assert_eq!(world.refused(register("alice", 1)), Refused::NameTaken);
    world.apply(register("bob", 1)).unwrap();
    assert_eq!(world.refused(register("carol", 1)), Refused::RegistrationClosed, "used");

    world.apply(Op::AddInvite { code: code(2) }).unwrap();
    world.now += INVITE_LIFE_MS;
    assert_eq!(world.refused(register("carol", 2)), Refused::RegistrationClosed, "too old");
    for n in 0..1000u32 {
        let mut hash = [9; 32];
        hash[..4].copy_from_slice(&n.to_be_bytes());
        world.apply(Op::AddInvite { code: Sha256(hash) }).unwrap();
    }
    assert_eq!(world.refused(Op::AddInvite { code: code(3) }), Refused::Quota(1000));
}

#[test]
fn a_ban_is_told_only_to_who_proved_to_be_it() {
    let mut world = World::new();
    world.person("alice");
    let ban = |banned| Op::BanAccount { subject: name("alice"), banned };
    assert!(matches!(world.apply(ban(true)), Ok(Outcome::Account(person)) if person.name == name("alice")));
    let epoch = world.epoch("alice");
    let good = Proof::Password { epoch, upgraded: None };
    assert_eq!(world.login("alice", good.clone()).unwrap_err(), Refused::Banned);
    let bad = Proof::Password { epoch: epoch - 1, upgraded: None };
    assert_eq!(world.login("alice", bad).unwrap_err(), Refused::AuthFailed);
    world.apply(ban(false)).unwrap();
    assert!(world.login("alice", good).is_ok());
    assert_eq!(world.refused(Op::BanAccount { subject: name("bob"), banned: true }), Refused::NoSuchUser);
}

#[test]
fn address_bans_are_kept_and_lifted() {
    let mut world = World::new();
    let block = |text: &str, prefix| AddressBlock { address: text.parse().unwrap(), prefix };
    let ban = |block, banned| Op::BanAddress { block, banned };
    world.apply(ban(block("192.0.2.0", 24), true)).unwrap();
    world.apply(ban(block("192.0.2.0", 24), true)).unwrap();
    world.apply(ban(block("2001:db8::", 64), true)).unwrap();
    assert_eq!(world.refused(ban(block("192.0.2.0", 25), false)), Refused::NotFound);
    world.apply(ban(block("192.0.2.0", 24), false)).unwrap();
    assert_eq!(world.refused(ban(block("192.0.2.0", 24), false)), Refused::NotFound);
}

#[test]
fn profiles_are_for_whom_they_are_for() {
    let mut world = World::new();
    let [alice, bob] = world.people(["alice", "bob"]);
    let see = |world: &World, viewer: &Person| {
        let query = Query::Profile { viewer: viewer.id, subject: name("alice") };
        world.ask(query).map(|answer| match answer {
            Answer::Profile(profile) => profile,
            other => panic!("{other:?}"),
        })
    };
    assert_eq!(see(&world, &alice).unwrap(), Profile::default());
    assert_eq!(see(&world, &bob).unwrap_err(), Refused::Forbidden, "no common room");
    let set = |change| Op::SetProfile { account: alice.id, change };
    let change = ProfileChange { name: Some("Alice".into()), note: Some("hi".into()), ..ProfileChange::default() };
    world.apply(set(change)).unwrap();
    world.apply(set(ProfileChange { note: Some(String::new()), ..ProfileChange::default() })).unwrap();
    let wanted = Profile { name: "Alice".into(), ..Profile::default() };
    assert_eq!(see(&world, &alice).unwrap(), wanted);

    world.join(&alice, "#a");
    world.join(&bob, "#a");
    assert_eq!(see(&world, &bob).unwrap(), wanted);
    world.apply(set(ProfileChange { show: Some(Show::Nobody), ..ProfileChange::default() })).unwrap();
    assert_eq!(see(&world, &bob).unwrap_err(), Refused::Forbidden);
    assert_eq!(see(&world, &alice).unwrap().show, Show::Nobody);
    world.apply(set(ProfileChange { show: Some(Show::All), ..ProfileChange::default() })).unwrap();
    world.leave(&bob, "#a");
    assert_eq!(see(&world, &bob).unwrap().name, "Alice");
    let nobody = Query::Profile { viewer: bob.id, subject: name("nobody") };
    assert_eq!(world.ask(nobody).unwrap_err(), Refused::NoSuchUser);
}

#[test]
fn lists_of_people_match_patterns_and_go_on() {
    let mut world = World::new();
    world.people(["anna", "anne", "bob", "a.x", "a_y"]);
    let users = |glob: Option<&str>, after: Option<&str>, limit| {
        let query = Query::Users { glob: glob.map(str::to_owned), after: after.map(name), limit };
        world.ask(query).map(|answer| match answer {
            Answer::Users { rows, more } => {
                (rows.iter().map(|row| row.name.to_string()).collect::<Vec<_>>().join(" "), more)
            }
            other => panic!("{other:?}"),
        })
    };
    let all = |text: &str| Ok((text.to_owned(), false));
    assert_eq!(users(None, None, 10), all("a.x a_y anna anne bob"));
    assert_eq!(users(None, None, 2), Ok(("a.x a_y".into(), true)));
    assert_eq!(users(None, Some("a_y"), 3), all("anna anne bob"));
    assert_eq!(users(Some("ann*"), None, 10), all("anna anne"));
    assert_eq!(users(Some("ANN?"), Some("anna"), 10), all("anne"));
    assert_eq!(users(Some("a[._]?"), None, 10), all("a.x a_y"));
    assert_eq!(users(Some("a_*"), None, 10), all("a_y"), "an underscore is itself");
    assert_eq!(users(Some("bob"), None, 10), all("bob"));
    assert_eq!(users(Some("é"), None, 10), all(""));
    assert_eq!(users(Some(&"a".repeat(257)), None, 10), Err(Refused::TooLong(256)));
    assert_eq!(users(Some("*a*b*c*d*e*f*g*h*i"), None, 10), Err(Refused::TooLong(8)));
    let Answer::People(found) = world.ask(Query::People(vec![name("bob"), name("zed")])).unwrap() else { panic!() };
    assert_eq!(found.len(), 1);
}

#[test]
fn an_erased_account_leaves_only_its_name_and_its_words() {
    let mut world = World::new();
    let [alice, bob, carol] = world.people(["alice", "bob", "carol"]);
    world.join(&alice, "#a");
    world.join(&bob, "#a");
    world.say(&alice, "#a", "in the room");
    world.say(&alice, "bob", "to bob");
    world.say(&alice, "carol", "to carol");
    world.say(&alice, "alice", "a note");
    world.create(&bob, "#secret", true, false).unwrap();
    world.moderate(&bob, "#secret", Act::Invite, "alice").unwrap();
    let epoch = world.epoch("alice");
    let Outcome::Unregistered(left) = world.apply(Op::Unregister { account: alice.id, epoch }).unwrap() else {
        panic!()
    };
    assert_eq!(left.len(), 1);
    assert_eq!((left[0].room.name.as_str(), &left[0].subject), ("#a", &Some(alice.clone())));
    assert_eq!(left[0].heir.as_ref(), Some(&bob));
    assert_eq!(world.members(&bob, "#a").unwrap(), [("bob".to_owned(), Role::Owner)]);

    assert_eq!(world.send(&bob, "alice", "hello?").unwrap_err(), Refused::NoSuchUser);
    assert_eq!(bodies(&world.page(&bob, "alice", Bound::Newest, 10).unwrap()), ["to bob"]);
    assert_eq!(bodies(&world.page(&bob, "#a", Bound::Newest, 10).unwrap()), ["in the room"]);
    let other = world.person("dave");
    assert_eq!(world.page(&other, "alice", Bound::Newest, 10).unwrap_err(), Refused::NoSuchUser);

    // Sessions that still speak for it for a moment reach nothing.
    assert_eq!(world.send(&alice, "bob", "ghost").unwrap_err(), Refused::NoSuchUser);
    assert_eq!(world.send(&alice, "#a", "ghost").unwrap_err(), Refused::NotMember);
    assert_eq!(world.refused(Op::JoinRoom { account: alice.id, room: room("#a") }), Refused::AuthFailed);
    let token = Op::AddToken { account: alice.id, name: None, hash: Sha256([1; 32]) };
    assert_eq!(world.refused(token), Refused::AuthFailed);
    assert!(world.rooms(&alice, Some("#secret")).is_empty(), "the invitation is gone");

    // The note is unreadable now, and so is what carol and alice said once carol is gone too.
    let messages = world.totals().messages;
    world.sweep(None);
    assert_eq!(world.totals().messages, messages - 1);
    world.apply(Op::Unregister { account: carol.id, epoch: world.epoch("carol") }).unwrap();
    world.sweep(None);
    assert_eq!(world.totals().messages, messages - 2);
    assert_eq!(bodies(&world.page(&bob, "alice", Bound::Newest, 10).unwrap()), ["to bob"]);
    assert_eq!(world.totals().accounts, 2);
}

#[test]
fn being_there_is_remembered() {
    let mut world = World::new();
    let [alice, _] = world.people(["alice", "bob"]);
    world.open("alice");
    world.now += 500;
    world.apply(Op::SeenLast { account: alice.id }).unwrap();
    let Answer::People(found) = world.ask(Query::People(vec![name("alice")])).unwrap() else { panic!() };
    assert_eq!(found[0].1.as_millis(), world.now);
    let query = Query::Accounts { glob: None, after: None, limit: 1 };
    let Answer::Accounts { rows, more: true } = world.ask(query).unwrap() else { panic!() };
    assert!(rows[0].last_seen > rows[0].created && !rows[0].admin && !rows[0].banned && !rows[0].disabled);
}

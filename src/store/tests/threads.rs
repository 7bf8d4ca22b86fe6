use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use super::super::{Database, News, Store};
use super::directory::{certificate, device, dh, post_quantum};
use super::*;
use crate::protocol::{KeyRecord, PoolKind};

/// Longer than anything here takes; a test that waits so long has failed.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// A running store in a directory of its own.
pub(super) struct Running {
    pub(super) dir: tempfile::TempDir,
    pub(super) store: Option<Store>,
    pub(super) rung: Receiver<()>,
    pub(super) outside: Vec<OutsideChange>,
    pub(super) next: u64,
}

impl Running {
    pub(super) fn start() -> Running {
        Running::start_in(tempfile::tempdir().unwrap())
    }

    pub(super) fn start_in(dir: tempfile::TempDir) -> Running {
        let (wake, rung) = bell();
        let (store, _) = open(dir.path()).start(wake).unwrap();
        Running { dir, store: Some(store), rung, outside: Vec::new(), next: 0 }
    }

    pub(super) fn store(&mut self) -> &mut Store {
        self.store.as_mut().unwrap()
    }

    pub(super) fn submit(&mut self, op: Op) -> Ticket {
        self.next += 1;
        let ticket = Ticket(self.next);
        let now = at(1_000_000 + self.next);
        self.store().submit(ticket, now, op);
        ticket
    }

    /// Waits until `count` answers are there.
    pub(super) fn answers(&mut self, count: usize) -> Vec<(Ticket, Done)> {
        let since = Instant::now();
        let mut answers = Vec::new();
        while answers.len() < count {
            let left = PATIENCE.checked_sub(since.elapsed()).expect("answers in time");
            let _ = self.rung.recv_timeout(left);
            self.take(&mut answers);
        }
        answers
    }

    fn take(&mut self, answers: &mut Vec<(Ticket, Done)>) {
        let outside = &mut self.outside;
        self.store.as_mut().unwrap().drain(|news| match news {
            News::Answer(ticket, done) => answers.push((ticket, done)),
            News::Outside(change) => outside.push(change),
        });
    }

    pub(super) fn apply(&mut self, op: Op) -> Result<Outcome, Refused> {
        let ticket = self.submit(op);
        match self.answers(1).remove(0) {
            (answered, Done::Op(result)) if answered == ticket => result,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn ask(&mut self, query: Query) -> Result<Answer, Refused> {
        self.store().ask(Ticket(0), query);
        match self.answers(1).remove(0) {
            (Ticket(0), Done::Query(result)) => result,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn person(&mut self, text: &str) -> Person {
        match self.apply(Op::Register { name: name(text), verifier: verifier(1), invite: None }).unwrap() {
            Outcome::Registered(id) => Person { id, name: name(text) },
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn page(&mut self, who: &Person, of: &str) -> Vec<String> {
        let query = Query::Page {
            account: who.id,
            target: target(of),
            bound: Bound::Newest,
            limit: 100_000,
            max_bytes: usize::MAX,
        };
        match self.ask(query).unwrap() {
            Answer::Page(page) => bodies(&page),
            other => panic!("{other:?}"),
        }
    }

    /// Holds the writer back, so that what is submitted meanwhile becomes one batch.
    pub(super) fn hold(&mut self) -> std::sync::mpsc::Sender<()> {
        let (release, held) = std::sync::mpsc::channel::<()>();
        let (began, beginning) = std::sync::mpsc::channel();
        self.store().tamper(move |_| {
            began.send(()).unwrap();
            let _ = held.recv();
        });
        beginning.recv_timeout(PATIENCE).unwrap();
        release
    }

    fn wait_for_outside(&mut self, count: usize) -> Vec<OutsideChange> {
        let since = Instant::now();
        while self.outside.len() < count {
            let left = PATIENCE.checked_sub(since.elapsed()).expect("the change is noticed");
            let _ = self.rung.recv_timeout(left);
            let mut answers = Vec::new();
            self.take(&mut answers);
            assert!(answers.is_empty());
        }
        std::mem::take(&mut self.outside)
    }
}

pub(super) fn open(dir: &std::path::Path) -> Database {
    let key = ServerKey::load_or_create(dir, None).unwrap();
    Database::open(dir, &key).unwrap()
}

fn ids_of(answers: &[(Ticket, Done)]) -> Vec<Result<u64, Refused>> {
    answers
        .iter()
        .map(|(_, done)| match done {
            Done::Op(Ok(Outcome::Appended(results))) => results[0].as_ref().map(|sent| sent.id.0).map_err(|e| *e),
            Done::Op(Err(refused)) => Err(*refused),
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn what_waits_is_one_commit_and_is_answered_in_order() {
    let mut running = Running::start();
    let [alice, bob] = ["alice", "bob"].map(|name| running.person(name));
    let before = running.store().stats();
    let release = running.hold();
    let mut tickets = Vec::new();
    for n in 0..100 {
        // One in ten is refused, and takes no other with it.
        let to = if n % 10 == 9 { "nobody" } else { "bob" };
        tickets.push(running.submit(append(&alice, to, &format!("m{n}"))));
    }
    assert_eq!(running.store().stats().waiting_ops, 100);
    release.send(()).unwrap();
    let answers = running.answers(100);
    assert_eq!(answers.iter().map(|(ticket, _)| *ticket).collect::<Vec<_>>(), tickets);
    let stored: Vec<u64> = ids_of(&answers).into_iter().filter_map(Result::ok).collect();
    assert_eq!(stored, (1..=90).collect::<Vec<_>>());
    let stats = running.store().stats();
    assert_eq!((stats.ops - before.ops, stats.largest_batch, stats.last_batch), (100, 100, 100));
    assert_eq!((stats.commits, stats.failures), (before.commits + 1, 0));
    assert_eq!((stats.waiting_ops, stats.waiting_queries), (0, 0));
    assert_eq!(running.page(&bob, "alice").len(), 90);
}

#[test]
fn a_wake_a_batch() {
    let mut running = Running::start();
    let alice = running.person("alice");
    let release = running.hold();
    while running.rung.try_recv().is_ok() {}
    for _ in 0..50 {
        running.submit(append(&alice, "alice", "x"));
    }
    release.send(()).unwrap();
    running.rung.recv_timeout(PATIENCE).unwrap();
    let mut answers = Vec::new();
    running.take(&mut answers);
    assert_eq!(answers.len(), 50);
    assert!(running.rung.try_recv().is_err());
}

#[test]
fn queues_are_bounded_by_has_room() {
    let mut running = Running::start();
    let alice = running.person("alice");
    let release = running.hold();
    let mut submitted = 0;
    while running.store().has_room() {
        running.submit(append(&alice, "alice", &"x".repeat(90_000)));
        submitted += 1;
    }
    assert!((100..1000).contains(&submitted), "by bytes: {submitted}");
    release.send(()).unwrap();
    running.answers(submitted);
    assert!(running.store().has_room());
    assert!(running.store().stats().largest_batch < submitted as u64, "large bodies make smaller batches");
    let release = running.hold();
    let mut submitted = 0;
    while running.store().has_room() {
        running.submit(append(&alice, "alice", "x"));
        submitted += 1;
    }
    assert!((1000..10_000).contains(&submitted), "by number: {submitted}");
    release.send(()).unwrap();
    running.answers(submitted);
}

#[test]
fn a_loop_that_does_not_drain_holds_only_so_much() {
    let mut running = Running::start();
    let alice = running.person("alice");
    for _ in 0..3 {
        running.apply(append(&alice, "alice", &"x".repeat(90_000))).unwrap();
    }
    let page = Query::Page {
        account: alice.id,
        target: target("alice"),
        bound: Bound::Newest,
        limit: 3,
        max_bytes: usize::MAX,
    };
    let before = running.store().stats();
    for _ in 0..20 {
        running.store().ask(Ticket(7), page.clone()); // 270 kB each
    }
    // The reader pauses, the writer does not.
    let ticket = running.submit(append(&alice, "alice", "still"));
    let since = Instant::now();
    let paused = |stats: super::super::StoreStats| stats.queries - before.queries >= 4 && stats.ops > before.ops;
    while !paused(running.store().stats()) {
        assert!(since.elapsed() < PATIENCE);
        std::thread::yield_now();
    }
    let waiting = running.store().stats().queries - before.queries;
    assert!(waiting <= 5, "paused at a megabyte: {waiting}");
    let answers = running.answers(21);
    assert_eq!(answers.iter().filter(|(answered, _)| *answered == Ticket(7)).count(), 20);
    assert!(answers.iter().any(|(answered, _)| *answered == ticket));
}

#[test]
fn everything_submitted_is_there_after_the_end() {
    let mut running = Running::start();
    let alice = running.person("alice");
    for n in 0..1000 {
        running.submit(append(&alice, "alice", &format!("m{n}")));
    }
    let query = Query::People(vec![name("alice")]);
    running.store().ask(Ticket(0), query);
    let mut answered = 0;
    running.store.take().unwrap().shutdown(|_| answered += 1).unwrap();
    assert_eq!(answered, 1001);
    let wal = running.dir.path().join("downstream.db-wal");
    assert!(std::fs::metadata(wal).map_or(0, |meta| meta.len()) == 0, "the write-ahead log is empty");
    let mut again = Running::start_in(running.dir);
    assert_eq!(again.page(&alice, "alice").len(), 1000);
    // Also where nobody says shutdown.
    again.submit(append(&alice, "alice", "last"));
    drop(again.store.take());
    let mut third = Running::start_in(again.dir);
    assert_eq!(third.page(&alice, "alice").len(), 1001);
}

#[test]
fn a_second_daemon_is_refused() {
    let running = Running::start();
    let (wake, _rung) = bell();
    let error = open(running.dir.path()).start(wake).err().unwrap();
    assert!(error.to_string().contains("another downstream is running"), "{error}");
}

#[test]
fn the_write_ahead_log_stays_short_under_steady_reads() {
    let mut running = Running::start();
    let alice = running.person("alice");
    let size = |running: &Running| std::fs::metadata(running.dir.path().join("downstream.db-wal")).unwrap().len();
    let page = Query::Page {
        account: alice.id,
        target: target("alice"),
        bound: Bound::Newest,
        limit: 3,
        max_bytes: usize::MAX,
    };
    let mut largest = 0;
    for _ in 0..400 {
        // There is always a read under way or waiting.
        while running.store().stats().waiting_queries < 8 {
            running.store().ask(Ticket(0), page.clone());
        }
        let ticket = running.submit(append(&alice, "alice", &"x".repeat(3000)));
        while !running.answers(1).iter().any(|(answered, _)| *answered == ticket) {}
        largest = largest.max(size(&running));
    }
    // Every append changes two pages or more. In tests it is copied back at 64, at the latest at 256.
    assert!(largest < 300 * 4096, "{largest}");
}

// ---- failing disks ----

#[test]
fn a_full_disk_answers_internal_and_recovers() {
    let mut running = Running::start();
    let [alice, bob] = ["alice", "bob"].map(|name| running.person(name));
    running.apply(append(&alice, "bob", "before")).unwrap();
    let limit = |running: &mut Running, pages: i64| {
        running.store().tamper(move |sqlite| sqlite.limit_pages(pages));
    };
    limit(&mut running, 1); // SQLite makes it the present size
    let release = running.hold();
    for n in 0..20 {
        running.submit(append(&alice, "bob", &format!("{n}{}", "x".repeat(50_000))));
    }
    running.submit(append(&alice, "bob", "small, in the same batch"));
    release.send(()).unwrap();
    assert_eq!(ids_of(&running.answers(21)), vec![Err(Refused::Internal); 21]);
    assert_eq!(running.store().stats().failures, 1);
    assert_eq!(running.page(&bob, "alice"), ["before"]);
    assert!(running.store().is_running());

    limit(&mut running, i64::from(i32::MAX));
    let ticket = running.submit(append(&alice, "bob", "after"));
    let answers = running.answers(1);
    assert_eq!((answers[0].0, ids_of(&answers)), (ticket, vec![Ok(2)]), "no number was lost");
    assert_eq!(running.page(&bob, "alice"), ["before", "after"]);
}

#[test]
fn a_failing_commit_answers_internal_to_the_whole_batch() {
    let mut running = Running::start();
    let [alice, bob] = ["alice", "bob"].map(|name| running.person(name));
    running.store().tamper(|sqlite| sqlite.fail_next_commit());
    let release = running.hold();
    let join = Op::JoinRoom { account: alice.id, room: room("#a") };
    running.submit(join.clone());
    for _ in 0..10 {
        running.submit(append(&alice, "bob", "lost"));
    }
    release.send(()).unwrap();
    for (_, done) in running.answers(11) {
        assert!(matches!(done, Done::Op(Err(Refused::Internal))), "{done:?}");
    }
    assert!(running.page(&bob, "alice").is_empty());
    assert!(matches!(running.apply(join), Ok(Outcome::Joined(joined)) if joined.entered));
    assert!(running.apply(append(&alice, "bob", "kept")).is_ok());
    assert_eq!(running.page(&bob, "alice"), ["kept"]);
}

/// Puts a record about the device 1.
fn put(who: &Person, record: KeyRecord) -> Op {
    Op::PutKeys { account: who.id, device: device(1), record }
}

/// Takes `count` bundles of alice in one batch; the ids of the one-time keys in them.
fn take_at_once(running: &mut Running, count: usize) -> Vec<Result<u32, Refused>> {
    let release = running.hold();
    for _ in 0..count {
        running.submit(Op::TakeBundles { subject: name("alice"), device: None });
    }
    release.send(()).unwrap();
    let ids = running.answers(count).into_iter().map(|(_, done)| match done {
        Done::Op(Ok(Outcome::Bundles(taken))) => {
            // Behind the length, the certificate, the signed prekey and the byte that says that there is one.
            let bundle = &taken.bundles[0].1[2 + 200 + 108..];
            assert_eq!(bundle[0], 1);
            Ok(u32::from_be_bytes(bundle[1..5].try_into().unwrap()))
        }
        Done::Op(Err(refused)) => Err(refused),
        other => panic!("{other:?}"),
    });
    ids.collect()
}

#[test]
fn keys_are_handed_out_once_also_to_many_at_a_time_and_across_lost_batches() {
    let mut running = Running::start();
    let alice = running.person("alice");
    let keys = KeyRecord::OneTime(PoolKind::Dh, (1..=100).map(|id| dh(1, id)).collect());
    let signed = KeyRecord::SignedPrekey(dh(1, 101));
    let last = KeyRecord::LastResort(post_quantum(1, 102));
    for record in [certificate(1), signed, last, keys.clone()] {
        running.apply(put(&alice, record)).unwrap();
    }
    let ids = |range: std::ops::RangeInclusive<u32>| range.map(Ok).collect::<Vec<_>>();
    assert_eq!(take_at_once(&mut running, 20), ids(1..=20));
    running.store().tamper(|sqlite| sqlite.fail_next_commit());
    assert_eq!(take_at_once(&mut running, 20), vec![Err(Refused::Internal); 20], "nobody heard of these");
    assert_eq!(take_at_once(&mut running, 20), ids(21..=40));

    // The client's record again, after a restart: its answer was lost.
    drop(running.store.take());
    let mut running = Running::start_in(running.dir);
    match running.apply(put(&alice, keys)).unwrap() {
        Outcome::Pools(pools) => assert_eq!(pools.dh, 60),
        other => panic!("{other:?}"),
    }
    assert_eq!(take_at_once(&mut running, 2), ids(41..=42));
}

#[test]
fn who_is_deleted_on_the_machine_leaves_no_keys_and_no_signals() {
    let mut running = Running::start();
    let [alice, bob] = ["alice", "bob"].map(|name| running.person(name));
    for who in [&alice, &bob] {
        running.apply(put(who, certificate(1))).unwrap();
        let op = Op::AddSignal { sender: alice.clone(), receiver: who.name.clone(), body: "e2e:AAAA".into() };
        running.apply(op).unwrap();
    }
    open(running.dir.path()).delete_user(&name("bob"), at(5_000_000)).unwrap();
    assert_eq!(running.wait_for_outside(1), [OutsideChange::Deleted(bob.id, Vec::new())]);
    let signals = |running: &mut Running, who: &Person| match running
        .ask(Query::Signals { account: who.id, after: 0, limit: 9, max_bytes: 9999 })
        .unwrap()
    {
        Answer::Signals { rows, .. } => rows.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!((signals(&mut running, &alice), signals(&mut running, &bob)), (1, 0));
    let pools = |running: &mut Running, who: &Person| match running.ask(Query::Pools(who.id)).unwrap() {
        Answer::Pools(rows) => rows.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!((pools(&mut running, &alice), pools(&mut running, &bob)), (1, 0));
}

#[test]
fn a_read_only_database_answers_internal() {
    let mut running = Running::start();
    let alice = running.person("alice");
    running.store().tamper(|sqlite| sqlite.read_only(true));
    assert_eq!(running.apply(append(&alice, "alice", "x")).unwrap_err(), Refused::Internal);
    assert!(matches!(running.ask(Query::Totals), Ok(Answer::Totals(_))), "reads go on");
    running.store().tamper(|sqlite| sqlite.read_only(false));
    assert!(running.apply(append(&alice, "alice", "x")).is_ok());
}

#[test]
fn errors_that_say_nothing_about_the_disk_sink_one_write() {
    let mut running = Running::start();
    let [alice, bob] = ["alice", "bob"].map(|name| running.person(name));
    // A row in the way makes the next append break a rule of the table.
    running.apply(append(&alice, "bob", "one")).unwrap();
    running.store().tamper(|sqlite| {
        sqlite.change("INSERT INTO message(id, time, sender, body) SELECT id + 1, time, sender, x'' FROM message");
    });
    let release = running.hold();
    running.submit(append(&alice, "alice", "a note"));
    running.submit(append(&alice, "bob", "two"));
    running.submit(append(&bob, "bob", "another note"));
    release.send(()).unwrap();
    assert_eq!(ids_of(&running.answers(3)), [Ok(1), Err(Refused::Internal), Ok(1)]);
    assert_eq!(running.store().stats().failures, 0);
    running.store().tamper(|sqlite| sqlite.change("DELETE FROM message WHERE body = x''"));
    let ticket = running.submit(append(&alice, "bob", "two"));
    let answers = running.answers(1);
    assert_eq!((answers[0].0, ids_of(&answers)), (ticket, vec![Ok(2)]));
}

#[test]
fn a_locked_database_is_waited_for() {
    let mut running = Running::start();
    let alice = running.person("alice");
    let path = running.dir.path().join("downstream.db");
    let other = rusqlite::Connection::open(path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    running.submit(append(&alice, "alice", "waits"));
    assert!(matches!(running.ask(Query::Totals), Ok(Answer::Totals(_))), "reads do not wait");
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(ids_of(&running.answers(1)), [Ok(1)]);
}

// ---- the operator beside a running daemon ----

#[test]
fn changes_of_the_operator_are_noticed() {
    let mut running = Running::start();
    let [alice, bob] = ["alice", "bob"].map(|name| running.person(name));
    running.apply(Op::JoinRoom { account: alice.id, room: room("#a") }).unwrap();
    running.apply(Op::JoinRoom { account: bob.id, room: room("#a") }).unwrap();
    let mut operator = open(running.dir.path());
    let now = at(5_000_000);
    operator.set_password(&name("bob"), &verifier(7), now).unwrap();
    assert_eq!(running.wait_for_outside(1), [OutsideChange::EndSessions(bob.id)]);
    operator.set_admin(&name("bob"), true, now).unwrap();
    operator.set_admin(&name("bob"), false, now).unwrap();
    operator.set_disabled(&name("bob"), true, now).unwrap();
    operator.set_disabled(&name("bob"), false, now).unwrap();
    assert_eq!(
        running.wait_for_outside(3),
        [OutsideChange::Admin(bob.id, true), OutsideChange::Admin(bob.id, false), OutsideChange::EndSessions(bob.id)]
    );
    operator.delete_user(&name("alice"), now).unwrap();
    let changes = running.wait_for_outside(1);
    let OutsideChange::Deleted(account, rooms) = &changes[0] else { panic!("{changes:?}") };
    assert_eq!((*account, rooms.len()), (alice.id, 1));
    assert_eq!((&rooms[0].room.name, &rooms[0].subject, &rooms[0].heir), (&room("#a"), &Some(alice), &Some(bob)));

    operator.add_user(&name("carol"), &verifier(3), true, now).unwrap();
    assert!(matches!(running.ask(Query::Credentials(name("carol"))), Ok(Answer::Credentials(Some(_)))));
    operator.add_invite(&Sha256([4; 32]), now).unwrap();
    let op = Op::Register { name: name("dave"), verifier: verifier(1), invite: Some(Sha256([4; 32])) };
    assert!(running.apply(op).is_ok());
    assert_eq!(operator.users().unwrap().len(), 3);
}

#[test]
fn changes_stand_in_commit_order_with_the_answers() {
    let mut running = Running::start();
    let alice = running.person("alice");
    let release = running.hold();
    let mut operator = open(running.dir.path());
    operator.delete_user(&name("alice"), at(5)).unwrap();
    running.submit(append(&alice, "alice", "a ghost"));
    release.send(()).unwrap();
    let since = Instant::now();
    let mut news = Vec::new();
    while news.len() < 2 {
        assert!(since.elapsed() < PATIENCE);
        let _ = running.rung.recv_timeout(Duration::from_millis(50));
        running.store().drain(|item| news.push(item));
    }
    assert!(matches!(news[0], News::Outside(OutsideChange::Deleted(account, _)) if account == alice.id), "{news:?}");
    assert!(matches!(&news[1], News::Answer(_, Done::Op(Ok(Outcome::Appended(r)))) if r[0].is_err()), "{news:?}");
}

#[test]
fn announcements_from_before_the_start_are_not_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let mut operator = open(dir.path());
    operator.add_user(&name("alice"), &verifier(1), false, at(1)).unwrap();
    operator.set_disabled(&name("alice"), true, at(2)).unwrap();
    let mut running = Running::start_in(dir);
    operator.set_admin(&name("alice"), true, at(3)).unwrap();
    let changes = running.wait_for_outside(1);
    assert!(matches!(changes[..], [OutsideChange::Admin(_, true)]), "{changes:?}");
}

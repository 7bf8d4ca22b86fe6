//! Signals, keys and rosters against answers made by hand.

use super::*;
use crate::hub::throttle::BUNDLES_MAX;
use crate::ops::{Bundles, Pools, RosterAdded, RosterPage, Signal, SignalStored};
use crate::protocol::DeviceName;

const DEVICE: DeviceName = DeviceName([0xab; 16]);

fn signal(id: u64) -> Signal {
    Signal { id, time: Timestamp::default(), sender: person(2), body: "e2e:QUI=".into() }
}

/// The line of a signal to u1.
fn shown(id: u64, sender: i64) -> String {
    format!("* signal {id} 1970-01-01T00:00:00.000Z u{sender} :e2e:QUI=\n")
}

impl Bench {
    /// The answer to the last write of `effects`.
    fn stored(&mut self, effects: &[Effect], result: Result<Outcome, Refused>) -> Vec<Effect> {
        let ticket = ticket(effects);
        self.handle(Input::Stored(ticket, Done::Op(result)))
    }

    /// `from` sends signal `id` to u1.
    fn signal(&mut self, from: ConnId, id: u64) -> Vec<Effect> {
        let effects = self.line(from, "/signal u1 e2e:QUI=");
        let stored = SignalStored { id, time: Timestamp::default(), receiver: person(1) };
        self.stored(&effects, Ok(Outcome::Signalled(stored)))
    }

    /// The answer to a read of signals.
    fn signals(&mut self, read: Ticket, ids: &[u64], more: bool) -> Vec<Effect> {
        let rows = ids.iter().map(|&id| signal(id)).collect();
        self.handle(Input::Stored(read, Done::Query(Ok(Answer::Signals { rows, more }))))
    }

    /// `/keys get u1`, answered with one bundle, or with none.
    fn take(&mut self, from: ConnId, left: Pools, some: bool) -> Vec<Effect> {
        let effects = self.line(from, "/keys get u1");
        let bundles = if some { vec![(DEVICE, vec![1, 2, 3])] } else { Vec::new() };
        let taken = Bundles { person: person(1), list: Some(vec![4]), bundles, left: vec![left] };
        self.stored(&effects, Ok(Outcome::Bundles(taken)))
    }
}

/// The read that brings a session what it missed: behind which number.
fn backlog(effects: &[Effect]) -> Option<(Ticket, u64)> {
    effects.iter().find_map(|effect| match effect {
        Effect::Ask(ticket, Query::Signals { after, .. }) => Some((*ticket, *after)),
        _ => None,
    })
}

#[test]
fn a_signal_reaches_every_session_but_the_one_that_sent_it() {
    let mut bench = Bench::new();
    let (one, other, sender) = (bench.login(0, 1), bench.login(1, 1), bench.login(2, 2));
    let second = bench.login(3, 2);
    let effects = bench.signal(sender, 7);
    assert_eq!(sent(&effects, sender), "OK signal id=7 time=1970-01-01T00:00:00.000Z\n");
    assert_eq!((sent(&effects, one), sent(&effects, other)), (shown(7, 2), shown(7, 2)));
    assert_eq!(sent(&effects, second), "", "the sender's account has nothing of it");
    let effects = bench.signal(one, 8);
    assert_eq!(sent(&effects, other), shown(8, 1), "to oneself");
    assert_eq!(sent(&effects, one), "OK signal id=8 time=1970-01-01T00:00:00.000Z\n");
}

#[test]
fn a_session_with_a_full_queue_is_read_back_what_it_missed() {
    let mut bench = Bench::new();
    let (slow, sender) = (bench.login(0, 1), bench.login(1, 2));
    let long = "x".repeat(65_500);
    say(&mut bench, 1, &long);
    assert_eq!(sent(&bench.signal(sender, 4), slow), "", "there is no room");
    bench.signal(sender, 5);
    let (read, after) = backlog(&bench.flush(slow)).unwrap();
    assert_eq!(after, 3);
    assert_eq!(sent(&bench.signal(sender, 6), slow), "", "not in front of the others");
    // 4 was acknowledged elsewhere meanwhile; 7 is stored, and its answer on the way.
    let effects = bench.signals(read, &[5, 6, 7], false);
    assert_eq!(sent(&effects, slow), format!("{}{}", shown(5, 2), shown(6, 2)));
    assert_eq!(backlog(&effects), None);
    assert_eq!(sent(&bench.signal(sender, 7), slow), shown(7, 2));
}

#[test]
fn a_page_that_is_not_the_last_is_followed_by_the_next() {
    let mut bench = Bench::new();
    let (slow, sender) = (bench.login(0, 1), bench.login(1, 2));
    say(&mut bench, 1, &"x".repeat(65_500));
    for id in 4..7 {
        bench.signal(sender, id);
    }
    let (read, _) = backlog(&bench.flush(slow)).unwrap();
    let effects = bench.signals(read, &[4, 5], true);
    let (read, after) = backlog(&effects).unwrap();
    assert_eq!((sent(&effects, slow), after), (format!("{}{}", shown(4, 2), shown(5, 2)), 5));
    assert_eq!(sent(&bench.signals(read, &[6], false), slow), shown(6, 2));
}

#[test]
fn a_failed_read_of_signals_is_asked_again() {
    let mut bench = Bench::new();
    let (slow, sender) = (bench.login(0, 1), bench.login(1, 2));
    say(&mut bench, 1, &"x".repeat(65_500));
    bench.signal(sender, 4);
    let (read, _) = backlog(&bench.flush(slow)).unwrap();
    let effects = bench.handle(Input::Stored(read, Done::Query(Err(Refused::Internal))));
    assert_eq!(backlog(&effects), None, "a failing disk is not asked without end");
    let (read, after) = backlog(&bench.handle(Input::Tick)).unwrap();
    assert_eq!(after, 3);
    assert_eq!(sent(&bench.signals(read, &[4], false), slow), shown(4, 2));
}

#[test]
fn what_was_missed_is_not_for_a_later_login() {
    let mut bench = Bench::new();
    let (slow, sender) = (bench.login(0, 1), bench.login(1, 2));
    say(&mut bench, 1, &"x".repeat(65_500));
    bench.signal(sender, 4);
    let (read, _) = backlog(&bench.flush(slow)).unwrap();
    bench.line(slow, "/logout");
    let arrival = bench.opened(slow, 3, &[]);
    assert_eq!(sent(&bench.signals(read, &[4], false), slow), "");
    bench.arrive(arrival, &[]);
    assert_eq!(sent(&bench.signal(sender, 5), slow), "");
}

#[test]
fn a_login_that_is_not_answered_yet_hears_no_signal() {
    let mut bench = Bench::new();
    let (conn, sender) = (bench.open(0), bench.login(1, 2));
    let arrival = bench.opened(conn, 1, &[]);
    assert_eq!(sent(&bench.signal(sender, 4), conn), "");
    bench.arrive(arrival, &[]);
    assert_eq!(sent(&bench.signal(sender, 5), conn), shown(5, 2));
}

#[test]
fn signals_and_messages_overlap_and_their_replies_keep_their_order() {
    let mut bench = Bench::new();
    let (conn, _) = (bench.login(0, 2), bench.login(1, 1));
    let add = ticket(&bench.line(conn, "/signal@a u1 e2e:QUI="));
    let ack = ticket(&bench.line(conn, "/ack@b signals 3"));
    assert!(bench.core.takes_line(conn));
    assert_eq!(sent(&bench.line(conn, "/signal@c u1 plain"), conn), "", "its answer waits for those before it");
    assert!(!bench.core.takes_line(conn));
    let stored = SignalStored { id: 1, time: Timestamp::default(), receiver: person(1) };
    let effects = bench.handle(Input::Stored(add, Done::Op(Ok(Outcome::Signalled(stored)))));
    assert_eq!(sent(&effects, conn), "OK signal@a id=1 time=1970-01-01T00:00:00.000Z\n");
    let effects = bench.handle(Input::Stored(ack, Done::Op(Ok(Outcome::Nothing))));
    let text = sent(&effects, conn);
    assert!(text.starts_with("OK ack@b target=signals id=3\nERR signal@c e2e-required :"), "{text}");
}

#[test]
fn signals_have_a_rate_that_counts_bytes_too() {
    let mut bench = Bench::new();
    let (mut settings, sender) = (bench.core.hub().settings.clone(), bench.login(0, 2));
    (settings.messages_per_second, settings.message_burst) = (10, 1);
    bench.handle(Input::Reloaded(settings));
    // 40 at once: what is longer than 4 KiB counts more than once.
    let long = format!("/signal u1 e2e:{}", "QUJD".repeat(20_000));
    for id in [1, 2] {
        let effects = bench.line(sender, &long);
        bench.stored(
            &effects,
            Ok(Outcome::Signalled(SignalStored { id, time: Timestamp::default(), receiver: person(1) })),
        );
    }
    assert_eq!(
        sent(&bench.line(sender, "/signal u1 e2e:QUI="), sender),
        "ERR signal rate-limited retry-after=1 :too fast; try again later\n"
    );
    let refused = sent(&bench.line(sender, "/keys get u1"), sender);
    assert!(refused.starts_with("ERR keys rate-limited retry-after=1"), "{refused}");
    bench.now.monotonic += Duration::from_secs(1);
    bench.signal(sender, 3);
}

#[test]
fn bundles_are_limited_and_what_was_not_there_is_not_counted() {
    let mut bench = Bench::new();
    let (owner, conn) = (bench.login(0, 1), bench.login(1, 2));
    let full = Pools { device: DEVICE, dh: 90, post_quantum: 40 };
    for _ in 0..20 {
        bench.take(conn, full, false);
        let effects = bench.line(conn, "/keys get u1");
        bench.stored(&effects, Err(Refused::Internal));
        let effects = bench.line(conn, "/keys get nobody");
        bench.stored(&effects, Err(Refused::NoSuchUser));
    }
    for _ in 0..BUNDLES_MAX {
        let text = sent(&bench.take(conn, full, true), conn);
        assert_eq!(text, format!("- devices u1 BA==\n- keys u1 {} AQID\nOK keys user=u1 devices=1\n", "ab".repeat(16)));
    }
    bench.now.monotonic += Duration::from_secs(600);
    assert_eq!(
        sent(&bench.line(conn, "/keys get u1"), conn),
        "ERR keys rate-limited retry-after=3000 :at most 10 bundles of one account an hour\n"
    );
    let certificates = bench.line(conn, "/keys get u1 only=certs");
    assert!(matches!(certificates[..], [.., Effect::Ask(_, Query::DeviceCertificates { .. })]), "{certificates:?}");
    assert!(!sent(&bench.take(owner, full, true), owner).is_empty(), "of others nothing is counted");
}

#[test]
fn who_runs_out_of_keys_is_told_once_for_each_bundle_that_took_one() {
    let mut bench = Bench::new();
    let (owner, other, conn) = (bench.login(0, 1), bench.login(1, 1), bench.login(2, 2));
    let left = |dh, post_quantum| Pools { device: DEVICE, dh, post_quantum };
    let mut told = |pools| sent(&bench.take(conn, pools, true), other);
    assert_eq!(told(left(25, 25)), "");
    assert_eq!(told(left(24, 25)), format!("* keys-low device={DEVICE} opk=24 pqk=25\n"));
    assert_eq!(told(left(24, 70)), "", "the other pool is as little low as it was");
    assert_eq!(told(left(0, 0)), format!("* keys-low device={DEVICE} opk=0 pqk=0\n"));
    assert_eq!(told(left(0, 0)), "", "nothing more was taken");
    let effects = bench.line(owner, &format!("/keys put {}", "ARABAgMEBQYHCAkKCwwNDg8Q"));
    bench.stored(&effects, Ok(Outcome::Pools(left(100, 50))));
    assert_eq!(sent(&bench.take(conn, left(0, 0), true), other), format!("* keys-low device={DEVICE} opk=0 pqk=0\n"));
}

#[test]
fn an_entry_of_a_roster_is_told_to_those_in_the_room() {
    let mut bench = Bench::new();
    let (author, member) = (bench.login(0, 1), bench.login(1, 2));
    let effects = bench.line(author, "/roster-add #r 1 QUI=");
    let effects = bench.stored(&effects, Ok(Outcome::RosterAdded(RosterAdded { room: room(), epoch: 1 })));
    assert_eq!(sent(&effects, author), "OK roster-add room=#r epoch=1\n");
    assert_eq!(sent(&effects, member), "* roster #r 1\n");
    let effects = bench.line(author, "/roster-add #r 3 QUI=");
    let effects = bench.stored(&effects, Err(Refused::Epoch(1)));
    assert_eq!(
        sent(&effects, author),
        "ERR roster-add conflict epoch=1 :the next place of the log is the one behind the last\n"
    );
    let read = ticket(&bench.line(member, "/roster #r"));
    let page = RosterPage { rows: vec![(1, b"AB".to_vec())], last: 1, more: false };
    let effects = bench.handle(Input::Stored(read, Done::Query(Ok(Answer::Roster(page)))));
    assert_eq!(sent(&effects, member), "- roster #r 1 QUI=\nOK roster room=#r epoch=1 more=no\n");
}

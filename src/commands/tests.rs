//! The core against answers made by hand: what happens where they come late, or to nobody.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use super::*;
use crate::hub::effects::Expiry;
use crate::hub::settings::Registration;
use crate::ops::{
    Acked, Answer, Appended, Arrival, Behind, ConversationId, Destination, Entry, FileLimits, FileRef, Form, MessageId,
    Page, RoomInfo, SessionOpened,
};
use crate::protocol::{RoomName, Target, Timestamp, UserName};
use crate::session::Peer;

mod files;
mod programs;

const ROOM: ConversationId = ConversationId(7);

struct Bench {
    core: Core,
    now: Now,
}

impl Bench {
    fn new() -> Bench {
        let settings = Settings {
            server_name: "test".to_owned(),
            registration: Registration::Open,
            sessions_per_account: 4,
            messages_per_second: 0,
            message_burst: 30,
            logins_per_minute: 0,
            registrations_per_hour: 0,
            login_timeout: Some(Duration::from_secs(120)),
            idle_timeout: Some(Duration::from_secs(60)),
            outbound_bytes: 65_536,
            retention_days: None,
            max_file: 1 << 30,
            file_limits: FileLimits { quota: None, total: None },
            partial_hours: None,
            file_days: None,
        };
        let now = Now { monotonic: Instant::now(), wall: Timestamp::from_millis(1_700_000_000_000) };
        Bench { core: Core::new(settings, Vec::new(), Box::new(|_| Ok(())), now), now }
    }

    fn handle(&mut self, input: Input<'_>) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.core.handle(input, self.now, &mut effects);
        effects
    }

    fn open(&mut self, slot: u32) -> ConnId {
        let conn = ConnId { slot, generation: 0 };
        let peer = Peer { address: IpAddr::from(Ipv4Addr::LOCALHOST), tls: "1.3", certificate: None };
        self.handle(Input::Opened(conn, peer));
        conn
    }

    fn line(&mut self, conn: ConnId, line: &str) -> Vec<Effect> {
        self.handle(Input::Line(conn, Ok(line)))
    }

    /// Everything so far was taken.
    fn flush(&mut self, conn: ConnId) -> Vec<Effect> {
        let sent = self.core.hub().session(conn).unwrap().sent;
        self.handle(Input::Flushed(conn, sent))
    }

    /// Begins a login by a token; the ticket of its opening.
    fn begin(&mut self, conn: ConnId, name: &str) -> Ticket {
        ticket(&self.line(conn, &format!("/login {name} token:x")))
    }

    /// A login of an account that is in the room, with `behind` to read, up to the question for it.
    fn opened(&mut self, conn: ConnId, account: i64, behind: &[Behind]) -> Ticket {
        let opening = self.begin(conn, &format!("u{account}"));
        let opened = SessionOpened {
            account: AccountId(account),
            admin: false,
            receipts: false,
            rooms: vec![room()],
            behind: behind.to_vec(),
            invitations: Vec::new(),
        };
        let outcome = Outcome::SessionOpened(Box::new(opened));
        ticket(&self.handle(Input::Stored(opening, Done::Op(Ok(outcome)))))
    }

    fn arrive(&mut self, arrival: Ticket, stored: &[Stored]) -> Vec<Effect> {
        let page = page(Form::Missed, stored);
        let arrival_of = Arrival { unread: stored.len() as u64, page, rest: Vec::new() };
        self.handle(Input::Stored(arrival, Done::Query(Ok(Answer::Arrival(arrival_of)))))
    }

    fn login(&mut self, slot: u32, account: i64) -> ConnId {
        let conn = self.open(slot);
        let arrival = self.opened(conn, account, &[]);
        self.arrive(arrival, &[]);
        self.flush(conn);
        conn
    }
}

fn room() -> RoomInfo {
    RoomInfo { id: ROOM, name: RoomName::parse("#r").unwrap(), e2e: false, private: false }
}

fn person(account: i64) -> Person {
    Person { id: AccountId(account), name: UserName::parse(&format!("u{account}")).unwrap() }
}

/// A message of somebody in the room.
#[derive(Clone)]
struct Stored {
    id: u64,
    body: String,
    file: Option<FileRef>,
}

fn stored(id: u64) -> Stored {
    Stored { id, body: "x".to_owned(), file: None }
}

/// What the store makes of messages.
fn page(form: Form, stored: &[Stored]) -> Page {
    let (target, sender) = (Target::parse("#r").unwrap(), person(9).name);
    let mut page = Page::default();
    for Stored { id, body, file } in stored {
        let (id, time, target, sender) = (MessageId(*id), Timestamp::default(), &target, &sender);
        let entry = Entry { conversation: ROOM, id, time, target, sender, file: *file };
        page.push(form, &entry, |lines| lines.extend_from_slice(body.as_bytes()));
    }
    page
}

/// The ticket of the last request among effects.
fn ticket(effects: &[Effect]) -> Ticket {
    let ticket = |effect: &Effect| match effect {
        Effect::Persist(ticket, _) | Effect::Ask(ticket, _) => Some(*ticket),
        _ => None,
    };
    effects.iter().rev().find_map(ticket).unwrap()
}

/// What a connection is sent.
fn sent(effects: &[Effect], to: ConnId) -> String {
    let mut text = String::new();
    for effect in effects {
        match effect {
            Effect::Send(conn, bytes) if *conn == to => text.push_str(std::str::from_utf8(bytes).unwrap()),
            Effect::Fanout(conns, bytes) if conns.contains(&to) => text.push_str(std::str::from_utf8(bytes).unwrap()),
            _ => {}
        }
    }
    text
}

/// The markers that a line moves by itself.
fn marks(effects: &[Effect]) -> Vec<(ConversationId, MessageId)> {
    let marks = |effect: &Effect| match effect {
        Effect::Persist(_, Op::AutoAck { marks, .. }) => Some(marks.clone()),
        _ => None,
    };
    effects.iter().find_map(marks).unwrap_or_default()
}

#[test]
fn a_login_is_not_shown_what_it_missed_in_a_room_that_it_left_meanwhile() {
    let mut bench = Bench::new();
    let owner = bench.login(0, 1);
    let conn = bench.open(1);
    let behind = Behind { conversation: ROOM, read: MessageId(0), last: MessageId(1) };
    let arrival = bench.opened(conn, 2, &[behind]);
    let kick = ticket(&bench.line(owner, "/kick #r u2"));
    let (subject, heir) = (Some(person(2)), None);
    let change = crate::ops::RoomChange { room: room(), subject, changed: true, was_member: true, heir };
    bench.handle(Input::Stored(kick, Done::Op(Ok(Outcome::RoomChanged(change)))));
    let effects = bench.arrive(arrival, &[stored(1)]);
    assert_eq!(sent(&effects, conn), "OK login user=u2 unread=0\n");
}

#[test]
fn a_login_does_not_enter_where_its_connection_is_being_closed() {
    let mut bench = Bench::new();
    let conn = bench.open(0);
    let opening = bench.begin(conn, "u1");
    assert_eq!(sent(&bench.handle(Input::Expired(conn, Expiry::Line)), conn), "* bye idle\n");
    let opened = SessionOpened {
        account: AccountId(1),
        admin: false,
        receipts: false,
        rooms: Vec::new(),
        behind: Vec::new(),
        invitations: Vec::new(),
    };
    let outcome = Outcome::SessionOpened(Box::new(opened));
    assert!(bench.handle(Input::Stored(opening, Done::Op(Ok(outcome)))).is_empty());
    assert_eq!((bench.core.hub().online_count(), bench.core.waiting()), (0, 0));
}

#[test]
fn a_login_whose_connection_is_being_closed_keeps_nobody_waiting() {
    let mut bench = Bench::new();
    let mut settings = bench.core.hub().settings.clone();
    settings.logins_per_minute = 1;
    bench.handle(Input::Reloaded(settings));
    let (closing, waiting) = (bench.open(0), bench.open(1));
    let opening = bench.begin(closing, "u1");
    // The one failure that is allowed may be under way.
    assert!(bench.line(waiting, "/login u1 token:y").is_empty());
    bench.handle(Input::Expired(closing, Expiry::Line));
    let effects = bench.handle(Input::Stored(opening, Done::Op(Err(Refused::AuthFailed))));
    assert!(matches!(effects[..], [Effect::Persist(_, Op::OpenSession { .. }), ..]), "{effects:?}");
}

#[test]
fn a_member_keeps_long_lines_where_the_idle_deadline_finds_a_command_under_way() {
    let mut bench = Bench::new();
    let conn = bench.login(0, 1);
    bench.line(conn, "/tokens");
    let effects = bench.handle(Input::Expired(conn, Expiry::Session));
    assert!(matches!(effects[..], [Effect::Deadline(_, Some(_))]), "{effects:?}");
}

#[test]
fn a_page_behind_a_bound_does_not_read_what_lies_before_it() {
    let mut bench = Bench::new();
    let conn = bench.open(0);
    let arrival = bench.opened(conn, 1, &[Behind { conversation: ROOM, read: MessageId(0), last: MessageId(9) }]);
    let row = crate::ops::UnreadRow {
        conversation: ROOM,
        target: Target::parse("#r").unwrap(),
        count: 9,
        first: MessageId(1),
        last: MessageId(9),
    };
    let arrival_of = Arrival { unread: 9, page: Page::default(), rest: vec![row] };
    bench.handle(Input::Stored(arrival, Done::Query(Ok(Answer::Arrival(arrival_of)))));
    let mut read = |line: &str, found: &[Stored], oldest: u64| {
        let fetch = ticket(&bench.line(conn, line));
        let page = Page { oldest: Some(MessageId(oldest)), ..page(Form::Row, found) };
        bench.handle(Input::Stored(fetch, Done::Query(Ok(Answer::Page(page)))));
        bench.flush(conn);
        marks(&bench.line(conn, "/ping"))
    };
    assert_eq!(read("/fetch #r after=7", &[stored(8), stored(9)], 8), []);
    assert_eq!(read("/fetch #r before=3", &[stored(2)], 1), []);
    assert_eq!(read("/fetch #r after=0 limit=2", &[stored(1), stored(2)], 1), [(ROOM, MessageId(2))]);
}

#[test]
fn a_marker_moves_for_other_sessions_where_who_moved_it_is_gone() {
    let mut bench = Bench::new();
    let gone = bench.login(0, 1);
    let conn = bench.open(1);
    let behind = Behind { conversation: ROOM, read: MessageId(0), last: MessageId(9) };
    bench.line(conn, "/ack manual");
    let arrival = bench.opened(conn, 1, &[behind]);
    let row = crate::ops::UnreadRow {
        conversation: ROOM,
        target: Target::parse("#r").unwrap(),
        count: 9,
        first: MessageId(1),
        last: MessageId(9),
    };
    let arrival_of = Arrival { unread: 9, page: Page::default(), rest: vec![row] };
    bench.handle(Input::Stored(arrival, Done::Query(Ok(Answer::Arrival(arrival_of)))));

    let ack = ticket(&bench.line(gone, "/ack #r 9"));
    bench.handle(Input::Closed(gone));
    let acked = Acked { conversation: ROOM, read: MessageId(9), tell: None };
    bench.handle(Input::Stored(ack, Done::Op(Ok(Outcome::Acked(vec![acked])))));
    say(&mut bench, 10, "live");
    bench.flush(conn);
    bench.line(conn, "/ack auto");
    assert_eq!(marks(&bench.line(conn, "/ping")), [(ROOM, MessageId(10))]);
}

/// Somebody says something in the room.
fn say(bench: &mut Bench, id: u64, body: &str) -> Vec<Effect> {
    let speaker = match bench.core.hub().online(AccountId(9)).and_then(|online| online.sessions.first()) {
        Some(conn) => *conn,
        None => bench.login(9, 9),
    };
    let append = ticket(&bench.line(speaker, &format!("/msg #r {body}")));
    let to = Destination::Room(RoomName::parse("#r").unwrap());
    let (id, time) = (MessageId(id), Timestamp::default());
    let appended = Appended { to, conversation: ROOM, id, time, duplicate: false };
    bench.flush(speaker);
    bench.handle(Input::Stored(append, Done::Op(Ok(Outcome::Appended(vec![Ok(appended)])))))
}

/// The ticket of a read that catches up, if one is asked for.
fn backlog(effects: &[Effect]) -> Option<Ticket> {
    effects.iter().find_map(|effect| match effect {
        Effect::Ask(ticket, Query::Backlog { .. }) => Some(*ticket),
        _ => None,
    })
}

#[test]
fn a_page_that_could_not_be_read_back_is_asked_for_again() {
    let mut bench = Bench::new();
    let conn = bench.login(0, 1);
    let long = "x".repeat(60_000);
    say(&mut bench, 1, &long);
    assert_eq!(sent(&say(&mut bench, 2, &long), conn), "", "behind");
    let first = backlog(&bench.flush(conn)).unwrap();
    // Nothing is left in the queue: no byte that is taken will call for another try.
    let effects = bench.handle(Input::Stored(first, Done::Query(Err(Refused::Internal))));
    assert_eq!(backlog(&effects), None, "a failing disk is not asked without end");
    let second = backlog(&bench.line(conn, "/ping")).unwrap();
    bench.handle(Input::Stored(second, Done::Query(Err(Refused::Internal))));
    assert!(backlog(&bench.handle(Input::Tick)).is_some(), "who says nothing gets it too");
}

/// One event that may not be dropped, and what it does to a connection.
fn event(bench: &mut Bench, conn: ConnId, bytes: usize) -> Vec<Effect> {
    bench.core.event(&[conn], None, Line::event("topic").arg("#r").text(&"t".repeat(bytes)));
    std::mem::take(&mut bench.core.out)
}

#[test]
fn who_reads_a_long_page_still_hears_of_the_room() {
    let mut bench = Bench::new();
    let conn = bench.login(0, 1);
    let asked = ticket(&bench.line(conn, "/fetch #r"));
    let found: Vec<Stored> = (1..=17).map(|id| Stored { body: "x".repeat(60_000), ..stored(id) }).collect();
    let page = Answer::Page(Page { more: true, ..page(Form::Row, &found) });
    let reply = bench.handle(Input::Stored(asked, Done::Query(Ok(page))));
    assert!(sent(&reply, conn).len() > 1_000_000);
    assert!(sent(&event(&mut bench, conn, 100), conn).starts_with("* topic "), "the page is being read");
    // But not without a bound.
    let told: String = (0..200).map(|_| sent(&event(&mut bench, conn, 1000), conn)).collect();
    assert!(told.ends_with("* bye too-slow\n"), "{}", told.len());
    assert!((120_000..140_000).contains(&told.len()), "twice the limit: {}", told.len());
}

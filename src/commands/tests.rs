use std::net::IpAddr;
use std::time::Instant;

use super::*;
use crate::hub::settings::Registration;
use crate::ops::{Appended, ConversationId, Destination, MessageId, Verifier};
use crate::protocol::{Timestamp, UserName};
use crate::session::Peer;

fn settings() -> Settings {
    Settings {
        server_name: "test".into(),
        registration: Registration::Open,
        sessions_per_account: 8,
        messages_per_second: 0,
        message_burst: 30,
        logins_per_minute: 0,
        registrations_per_hour: 0,
        login_timeout: None,
        idle_timeout: None,
        outbound_bytes: 65_536,
        retention_days: None,
    }
}

/// A core and what it wanted last.
struct Bench {
    core: Core,
    now: Now,
}

impl Bench {
    fn new() -> Bench {
        let now = Now { monotonic: Instant::now(), wall: Timestamp::default() };
        let random = Box::new(|bytes: &mut [u8]| {
            bytes.fill(7);
            Ok(())
        });
        Bench { core: Core::new(settings(), Vec::new(), random, now), now }
    }

    fn give(&mut self, input: Input<'_>) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.core.handle(input, self.now, &mut effects);
        effects
    }

    /// Registers somebody on a connection of their own.
    fn enter(&mut self, number: u32) -> ConnId {
        let conn = ConnId { slot: number, generation: 0 };
        let peer = Peer { address: IpAddr::from([192, 0, 2, 1]), tls: "1.3", certificate: None };
        self.give(Input::Opened(conn, peer));
        let line = format!("/register user{number} password-user");
        let effects = self.give(Input::Line(conn, Ok(&line)));
        let ticket = effects.iter().find_map(|effect| match effect {
            Effect::Hash(ticket, _) => Some(*ticket),
            _ => None,
        });
        let verifier = Verifier { memory_kib: 8192, iterations: 1, parallelism: 1, salt: [0; 16], hash: [0; 32] };
        let effects = self.give(Input::Hashed(ticket.unwrap(), HashDone::Created(verifier)));
        let done = Done::Op(Ok(Outcome::Registered(AccountId(number.into()))));
        self.give(Input::Stored(persisted(&effects).unwrap(), done));
        conn
    }
}

fn persisted(effects: &[Effect]) -> Option<Ticket> {
    effects.iter().find_map(|effect| match effect {
        Effect::Persist(ticket, _) => Some(*ticket),
        _ => None,
    })
}

fn backlog(effects: &[Effect]) -> Option<Ticket> {
    effects.iter().find_map(|effect| match effect {
        Effect::Ask(ticket, Query::Backlog { .. }) => Some(*ticket),
        _ => None,
    })
}

#[test]
fn a_page_that_could_not_be_read_back_is_asked_for_again() {
    let mut bench = Bench::new();
    let (alice, bob) = (bench.enter(1), bench.enter(2));
    let person = Person { id: AccountId(1), name: UserName::parse("user1").unwrap() };
    let body = "x".repeat(40_000);
    for id in 1..=3 {
        let line = format!("/msg user1 {body}");
        let ticket = persisted(&bench.give(Input::Line(bob, Ok(&line)))).unwrap();
        let appended = Appended {
            to: Destination::User(person.clone()),
            conversation: ConversationId(1),
            id: MessageId(id),
            time: Timestamp::default(),
            duplicate: false,
        };
        bench.give(Input::Stored(ticket, Done::Op(Ok(Outcome::Appended(vec![Ok(appended)])))));
    }
    // Everything queued is read; the rest is to come from the log, which fails: no byte is left whose
    // reading would call for another try.
    let ticket = backlog(&bench.give(Input::Flushed(alice, u64::MAX))).unwrap();
    let effects = bench.give(Input::Stored(ticket, Done::Query(Err(Refused::Internal))));
    assert_eq!(backlog(&effects), None, "a failing disk is not asked without end");
    let ticket = backlog(&bench.give(Input::Line(alice, Ok("/ping")))).unwrap();
    bench.give(Input::Stored(ticket, Done::Query(Err(Refused::Internal))));
    assert!(backlog(&bench.give(Input::Tick)).is_some(), "who says nothing gets it too");
}

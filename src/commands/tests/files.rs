//! Files against answers made by hand: who hears of one, how many chunks are under way, who waits for room.

use super::*;
use crate::ops::{ChunkWritten, FilePart, FileRef, FileRow, Finished, Sha256, Upload};
use crate::protocol::file::{CHUNK_MAX, CHUNK_TEXT_MAX, FileId, FileName};
use crate::session::{CHUNK_WINDOW, WINDOW};

const FILE: FileId = FileId(5);
const HASH: &str = "0707070707070707070707070707070707070707070707070707070707070707";

fn file(gone: bool) -> FileRef {
    FileRef { id: FILE, size: 3, sha256: Sha256([7; 32]), gone }
}

fn finished(id: u64, new: bool) -> Finished {
    let to = Destination::Room(RoomName::parse("#r").unwrap());
    let (id, time, name) = (MessageId(id), Timestamp::default(), FileName::parse("my cat.png").unwrap());
    Finished { to, conversation: ROOM, id, time, file: file(false), name, new }
}

/// A chunk as long as may be.
fn longest(offset: u64) -> String {
    format!("/chunk 5 {offset} {}A==", "A".repeat(CHUNK_TEXT_MAX - 3))
}

/// Whether a chunk was submitted.
fn submits(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::Persist(_, Op::WriteChunk { .. })))
}

impl Bench {
    fn written(&mut self, ticket: Ticket, offset: u64, done: Option<Finished>) -> Vec<Effect> {
        let written = ChunkWritten { file: FILE, offset, done };
        self.handle(Input::Stored(ticket, Done::Op(Ok(Outcome::ChunkWritten(Box::new(written))))))
    }

    fn begun(&mut self, ticket: Ticket, offset: u64, done: Option<Finished>) -> Vec<Effect> {
        let upload = Upload { file: FILE, offset, done };
        self.handle(Input::Stored(ticket, Done::Op(Ok(Outcome::Upload(Box::new(upload))))))
    }

    fn refused(&mut self, conn: ConnId, line: &str, refused: Refused) -> String {
        let effects = self.line(conn, line);
        let done = match effects.last() {
            Some(Effect::Ask(..)) => Done::Query(Err(refused)),
            _ => Done::Op(Err(refused)),
        };
        let answer = self.handle(Input::Stored(ticket(&effects), done));
        self.flush(conn);
        sent(&answer, conn)
    }

    /// Sends the longest chunks until no line is taken any more or one waits; their tickets.
    fn fill(&mut self, conn: ConnId) -> Vec<Ticket> {
        let mut tickets = Vec::new();
        while self.core.takes_line(conn) {
            let effects = self.line(conn, &longest(tickets.len() as u64));
            if submits(&effects) {
                tickets.push(ticket(&effects));
            }
        }
        tickets
    }
}

#[test]
fn a_finished_file_is_told_once_to_everybody_but_the_session_that_sent_it() {
    let mut bench = Bench::new();
    let (sender, second, other) = (bench.login(0, 1), bench.login(1, 1), bench.login(2, 2));
    let begun = ticket(&bench.line(sender, &format!("/send-file #r \"my cat.png\" 3 {HASH}")));
    assert_eq!(sent(&bench.begun(begun, 0, None), sender), "OK send-file file=5 offset=0 chunk=65536\n");
    let chunk = ticket(&bench.line(sender, "/chunk@c 5 0 AAAA"));
    let effects = bench.written(chunk, 3, Some(finished(4, true)));
    let time = "1970-01-01T00:00:00.000Z";
    assert_eq!(sent(&effects, sender), format!("OK chunk@c file=5 offset=3 done=yes id=4 time={time}\n"));
    let event = format!("* file 4 {time} #r u1 file=5 size=3 sha256={HASH} :my cat.png\n");
    assert_eq!((sent(&effects, second), sent(&effects, other)), (event.clone(), event));
    let fanouts = effects.iter().filter(|effect| matches!(effect, Effect::Fanout(..))).count();
    assert_eq!(fanouts, 1, "encoded once");

    // Announced again, nothing is new, and nobody hears of it.
    bench.flush(sender);
    let again = ticket(&bench.line(sender, &format!("/send-file #r cat 3 {HASH}")));
    let effects = bench.begun(again, 3, Some(finished(4, false)));
    let line = format!("OK send-file file=5 offset=3 chunk=65536 done=yes id=4 time={time}\n");
    assert_eq!((sent(&effects, sender), sent(&effects, other).as_str()), (line, ""));
    // A file of no bytes is there at once.
    bench.flush(sender);
    let empty = ticket(&bench.line(sender, &format!("/send-file #r cat 0 {HASH}")));
    assert_ne!(sent(&bench.begun(empty, 0, Some(finished(5, true))), other), "");
}

#[test]
fn a_file_is_told_also_where_its_sender_is_gone() {
    let mut bench = Bench::new();
    let (sender, other) = (bench.login(0, 1), bench.login(1, 2));
    let chunk = ticket(&bench.line(sender, "/chunk 5 0 AAAA"));
    bench.handle(Input::Closed(sender));
    assert!(sent(&bench.written(chunk, 3, Some(finished(4, true))), other).starts_with("* file 4 "));
}

#[test]
fn a_slow_reader_gets_a_file_from_the_log() {
    let mut bench = Bench::new();
    let (conn, sender) = (bench.login(0, 1), bench.login(1, 2));
    say(&mut bench, 1, &"x".repeat(60_000));
    say(&mut bench, 2, &"x".repeat(60_000));
    let chunk = ticket(&bench.line(sender, "/chunk 5 0 AAAA"));
    assert_eq!(sent(&bench.written(chunk, 3, Some(finished(3, true))), conn), "");
    let page = backlog(&bench.flush(conn)).unwrap();
    let gone = Stored { file: Some(file(true)), body: "my cat.png".into(), ..stored(3) };
    let read = super::page(Form::Event, &[stored(2), gone]);
    let text = sent(&bench.handle(Input::Stored(page, Done::Query(Ok(Answer::Page(read))))), conn);
    let event = format!("* file 3 1970-01-01T00:00:00.000Z #r u9 file=5 size=3 sha256={HASH} gone=yes :my cat.png\n");
    assert!(text.starts_with("* msg 2 ") && text.ends_with(&event), "{text}");
}

#[test]
fn files_are_rows_of_a_page_and_of_an_arrival() {
    let mut bench = Bench::new();
    let conn = bench.open(0);
    bench.line(conn, "/ack manual");
    let behind = Behind { conversation: ROOM, read: MessageId(0), last: MessageId(3) };
    let arrival = bench.opened(conn, 1, &[behind]);
    let cat = [Stored { file: Some(file(false)), body: "my cat.png".into(), ..stored(3) }];
    let text = sent(&bench.arrive(arrival, &cat), conn);
    assert!(text.ends_with(&format!("file=5 size=3 sha256={HASH} missed=yes :my cat.png\n")), "{text}");
    bench.flush(conn);
    let fetch = ticket(&bench.line(conn, "/fetch #r"));
    let page = Answer::Page(page(Form::Row, &cat));
    let text = sent(&bench.handle(Input::Stored(fetch, Done::Query(Ok(page)))), conn);
    assert!(text.starts_with("- file 3 ") && text.ends_with(":my cat.png\nOK fetch count=1 more=no\n"), "{text}");
}

#[test]
fn what_is_too_large_or_in_clear_does_not_reach_the_store() {
    let mut bench = Bench::new();
    let conn = bench.login(0, 1);
    let announce = |size: u64| format!("/send-file bob x {size} {HASH}");
    let effects = bench.line(conn, &announce((1 << 30) + 1));
    assert_eq!(
        sent(&effects, conn),
        "ERR send-file too-long max=1073741824 :the file is larger than this server takes\n"
    );
    let mut settings = bench.core.hub().settings.clone();
    settings.max_file = 0;
    bench.handle(Input::Reloaded(settings));
    let effects = bench.line(conn, &announce(0));
    assert_eq!(sent(&effects, conn), "ERR send-file too-long max=0 :this server takes no files\n");

    let mut bench = Bench::new();
    let conn = bench.open(0);
    let opening = bench.begin(conn, "u1");
    let opened = SessionOpened {
        account: AccountId(1),
        admin: false,
        receipts: false,
        rooms: vec![RoomInfo { e2e: true, ..room() }],
        behind: Vec::new(),
        invitations: Vec::new(),
    };
    let arrival = ticket(&bench.handle(Input::Stored(opening, Done::Op(Ok(Outcome::SessionOpened(Box::new(opened)))))));
    bench.arrive(arrival, &[]);
    assert!(
        sent(&bench.line(conn, &format!("/send-file #r x 3 {HASH}")), conn).starts_with("ERR send-file e2e-required")
    );
    assert!(matches!(
        bench.line(conn, &format!("/send-file #r sealed 3 {HASH}"))[..],
        [.., Effect::Persist(_, Op::BeginUpload { size: 3, .. })]
    ));
}

#[test]
fn announcing_a_file_counts_as_a_message() {
    let mut bench = Bench::new();
    let mut settings = bench.core.hub().settings.clone();
    (settings.messages_per_second, settings.message_burst) = (1, 2);
    bench.handle(Input::Reloaded(settings));
    let conn = bench.login(0, 1);
    let announce = format!("/send-file bob x 3 {HASH}");
    for _ in 0..2 {
        let begun = ticket(&bench.line(conn, &announce));
        bench.begun(begun, 0, None);
    }
    assert!(sent(&bench.line(conn, &announce), conn).starts_with("ERR send-file rate-limited retry-after=1 "));
    // Its chunks do not.
    assert!(submits(&bench.line(conn, "/chunk 5 0 AAAA")));
}

#[test]
fn refusals_speak_of_files() {
    let mut bench = Bench::new();
    let conn = bench.login(0, 1);
    let announce = format!("/send-file bob x 3 {HASH}");
    for (line, refused, expected) in [
        (announce.as_str(), Refused::Quota(9), "ERR send-file quota max=9 :so much is kept already"),
        (&announce, Refused::DiskLow, "ERR send-file busy retry-after=60 :the server's disk is nearly full"),
        (&announce, Refused::E2eRequired, "ERR send-file e2e-required :in this room a file is"),
        (&announce, Refused::Checksum, "ERR send-file checksum :a file of no bytes"),
        (&announce, Refused::NotMember, "ERR send-file not-member :/join the room first"),
        (&announce, Refused::NoSuchUser, "ERR send-file no-such-user :"),
        ("/chunk 5 0 AAAA", Refused::NotFound, "ERR chunk not-found :you have no upload"),
        ("/chunk 5 0 AAAA", Refused::Offset(7), "ERR chunk conflict offset=7 :"),
        ("/chunk 5 0 A!AA", Refused::NotBase64, "ERR chunk syntax :that is no base64"),
        ("/chunk 5 0 AAAA", Refused::TooLong(2), "ERR chunk too-long max=2 :that is more than"),
        ("/chunk 5 0 AAAA", Refused::Checksum, "ERR chunk checksum :these are other bytes"),
        ("/chunk 5 0 AAAA", Refused::NotMember, "ERR chunk not-member :you are not in the room"),
        ("/chunk 5 0 AAAA", Refused::NoSuchUser, "ERR chunk no-such-user :who the file is for"),
        ("/chunk 5 0 AAAA", Refused::DiskLow, "ERR chunk busy retry-after=60 :the server's disk is nearly full"),
        ("/get-file 5", Refused::NotFound, "ERR get-file not-found :no file of that number"),
        ("/get-file 5 offset=9", Refused::Offset(3), "ERR get-file conflict offset=3 :the file ends before that"),
        ("/files #r", Refused::NotMember, "ERR files not-member :"),
        ("/drop-file 5", Refused::Forbidden, "ERR drop-file forbidden :only who sent it"),
        ("/drop-file 5", Refused::NotFound, "ERR drop-file not-found :no file of that number"),
    ] {
        let answer = bench.refused(conn, line, refused);
        assert!(answer.starts_with(expected), "{line}: {answer}");
    }
}

#[test]
fn a_piece_is_read_in_rows() {
    let mut bench = Bench::new();
    let conn = bench.login(0, 1);
    let get = ticket(&bench.line(conn, "/get-file@g 5 offset=65536 length=65539"));
    let rows = vec![(65_536, "QUJD".to_owned()), (131_072, "REVG".to_owned())];
    let part = FilePart { rows, next: 131_075, size: 131_076 };
    let effects = bench.handle(Input::Stored(get, Done::Query(Ok(Answer::FilePart(part)))));
    let reply = "OK get-file@g file=5 offset=131075 size=131076 more=yes\n";
    assert_eq!(sent(&effects, conn), format!("- chunk 5 65536 QUJD\n- chunk 5 131072 REVG\n{reply}"));

    let get = ticket(&bench.line(conn, "/get-file 5 offset=131076"));
    let part = FilePart { rows: Vec::new(), next: 131_076, size: 131_076 };
    let effects = bench.handle(Input::Stored(get, Done::Query(Ok(Answer::FilePart(part)))));
    assert_eq!(sent(&effects, conn), "OK get-file file=5 offset=131076 size=131076 more=no\n");
}

#[test]
fn what_is_read_of_a_file_is_taken_before_the_next_piece_is_asked_for() {
    let mut bench = Bench::new();
    let conn = bench.login(0, 1);
    let get = ticket(&bench.line(conn, "/get-file 5 length=1048576"));
    assert!(!bench.core.takes_line(conn), "one at a time");
    let row = "A".repeat(CHUNK_TEXT_MAX);
    let rows = (0..16).map(|n| (n * CHUNK_MAX as u64, row.clone())).collect();
    bench
        .handle(Input::Stored(get, Done::Query(Ok(Answer::FilePart(FilePart { rows, next: 1 << 20, size: 1 << 30 })))));
    assert!(!bench.core.takes_line(conn));
    bench.flush(conn);
    assert!(bench.core.takes_line(conn));
}

/// The rows of a piece go out one by one, and are one reply all the same: twice the limit and more.
#[test]
fn who_gets_a_file_still_hears_of_the_room() {
    let mut bench = Bench::new();
    let conn = bench.login(0, 1);
    let get = ticket(&bench.line(conn, "/get-file 5 length=262144"));
    let rows = (0..4).map(|n| (n * CHUNK_MAX as u64, "A".repeat(CHUNK_TEXT_MAX))).collect();
    let part = FilePart { rows, next: 1 << 18, size: 1 << 30 };
    bench.handle(Input::Stored(get, Done::Query(Ok(Answer::FilePart(part)))));
    assert!(sent(&event(&mut bench, conn, 100), conn).starts_with("* topic "), "the piece is being read");
}

#[test]
fn files_are_listed() {
    let mut bench = Bench::new();
    let conn = bench.login(0, 1);
    let effects = bench.line(conn, &format!("/files #r after=4 sha256={HASH}"));
    let [.., Effect::Ask(_, Query::Files(wanted))] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!((wanted.account, wanted.after, wanted.limit), (AccountId(1), FileId(4), 1000));
    let row = |id, partial| FileRow {
        id: FileId(id),
        time: Timestamp::default(),
        target: Target::parse("#r").unwrap(),
        sender: person(1),
        size: 9,
        sha256: Sha256([7; 32]),
        partial,
        name: FileName::parse("my cat.png").unwrap(),
    };
    let answer = Answer::Files { rows: vec![row(5, Some(4)), row(6, None)], more: true };
    let effects = bench.handle(Input::Stored(ticket(&effects), Done::Query(Ok(answer))));
    let head = "1970-01-01T00:00:00.000Z #r u1";
    assert_eq!(
        sent(&effects, conn),
        format!(
            "- upload 5 {head} size=9 sha256={HASH} state=partial offset=4 :my cat.png\n\
             - upload 6 {head} size=9 sha256={HASH} state=done :my cat.png\n\
             OK files count=2 more=yes\n"
        )
    );
    let drop = ticket(&bench.line(conn, "/drop-file 5"));
    let effects = bench.handle(Input::Stored(drop, Done::Op(Ok(Outcome::Nothing))));
    assert_eq!(sent(&effects, conn), "OK drop-file file=5\n");
}

// ---- windows ---------------------------------------------------------------------------------------

#[test]
fn chunks_of_a_connection_overlap_within_a_window_of_counts_and_bytes() {
    let mut bench = Bench::new();
    let conn = bench.login(0, 1);
    let mut small = 0;
    while bench.core.takes_line(conn) {
        assert!(submits(&bench.line(conn, "/chunk 5 0 AAAA")));
        small += 1;
    }
    assert_eq!(small, WINDOW);

    let conn = bench.login(1, 1);
    let tickets = bench.fill(conn);
    assert_eq!(tickets.len(), CHUNK_WINDOW / CHUNK_TEXT_MAX);
    assert!(tickets.len() < WINDOW as usize);
    // Answers come in the order of the chunks, and each makes room for one more.
    let mut offset = 0;
    for ticket in tickets {
        offset += CHUNK_MAX as u64;
        let effects = bench.written(ticket, offset, None);
        assert_eq!(sent(&effects, conn), format!("OK chunk file=5 offset={offset}\n"));
        assert!(effects.iter().any(|effect| matches!(effect, Effect::Resume(to) if *to == conn)));
        assert!(bench.core.takes_line(conn));
    }
}

#[test]
fn chunks_do_not_overlap_with_messages_or_other_commands() {
    let mut bench = Bench::new();
    let conn = bench.login(0, 1);
    for (line, is_there) in [
        ("/msg #r hi", (|effect| matches!(effect, Effect::Persist(_, Op::Append { .. }))) as fn(&Effect) -> bool),
        ("/get-file 5", |effect| matches!(effect, Effect::Ask(_, Query::FilePart { .. }))),
        ("/ping", |effect| matches!(effect, Effect::Send(..))),
        ("/chunk 5 0", |effect| matches!(effect, Effect::Send(..))),
    ] {
        let chunk = ticket(&bench.line(conn, "/chunk 5 0 AAAA"));
        assert!(!bench.line(conn, line).iter().any(is_there), "{line} waits");
        assert!(!bench.core.takes_line(conn));
        let effects = bench.written(chunk, 3, None);
        let at = effects.iter().position(|effect| matches!(effect, Effect::Send(..))).unwrap();
        assert!(effects[at + 1..].iter().any(is_there), "{line}: {effects:?}");
        // Nothing is left under way for the next of them.
        bench.handle(Input::Closed(conn));
        assert_eq!(bench.login(0, 1), conn);
    }
    // And the other way round.
    let append = ticket(&bench.line(conn, "/msg #r hi"));
    assert!(!submits(&bench.line(conn, "/chunk 5 0 AAAA")));
    assert!(submits(&bench.handle(Input::Stored(append, Done::Op(Err(Refused::Internal))))));
}

#[test]
fn who_finds_no_room_waits_and_is_served_in_the_order_of_coming() {
    let mut bench = Bench::new();
    let (one, two) = (bench.login(0, 1), bench.login(1, 1));
    let mut tickets = bench.fill(one);
    tickets.extend(bench.fill(two));
    assert!(CHUNKS_MAX - tickets.len() * CHUNK_TEXT_MAX < 3 * CHUNK_TEXT_MAX, "nearly all is used up");
    let spare = (CHUNKS_MAX / CHUNK_TEXT_MAX) - tickets.len();
    let (three, four) = (bench.login(2, 2), bench.login(3, 3));
    for _ in 0..spare {
        let effects = bench.line(three, &longest(0));
        assert!(submits(&effects));
        tickets.push(ticket(&effects));
    }
    assert!(!submits(&bench.line(three, &longest(1))));
    // Also what would fit waits: nobody is overtaken.
    assert!(!submits(&bench.line(four, &longest(0))));
    assert!(!bench.core.takes_line(three) && !bench.core.takes_line(four));
    // Nobody else waits, nor does what these have under way.
    let talker = bench.login(4, 4);
    assert!(matches!(bench.line(talker, "/msg #r hi")[..], [.., Effect::Persist(_, Op::Append { .. })]));

    let effects = bench.written(tickets[0], 1, None);
    assert_eq!(sent(&effects, one), "OK chunk file=5 offset=1\n");
    assert!(submits(&effects) && bench.core.takes_line(three) && !bench.core.takes_line(four));
    // The first of those that were served comes behind who waits.
    assert!(!submits(&bench.line(one, &longest(9))));
    let effects = bench.written(tickets[1], 2, None);
    assert!(submits(&effects) && bench.core.takes_line(four) && !bench.core.takes_line(one));
    let effects = bench.written(tickets[2], 3, None);
    assert!(submits(&effects) && bench.core.takes_line(one));
}

#[test]
fn who_goes_while_it_waits_leaves_the_queue() {
    let mut bench = Bench::new();
    let (one, two, rest) = (bench.login(0, 1), bench.login(1, 1), bench.login(2, 1));
    let mut tickets = bench.fill(one);
    tickets.extend(bench.fill(two));
    tickets.extend(bench.fill(rest));
    assert!(tickets.len() == CHUNKS_MAX / CHUNK_TEXT_MAX && !bench.core.takes_line(rest), "`rest` waits");
    let (gone, kicked, ended, last) = (bench.login(3, 3), bench.login(4, 4), bench.login(5, 5), bench.login(6, 6));
    for conn in [gone, kicked, ended, last] {
        assert!(!submits(&bench.line(conn, &longest(0))));
    }
    bench.handle(Input::Closed(gone));
    bench.handle(Input::Outside(OutsideChange::EndSessions(AccountId(4))));
    // Who only says nothing more is still answered.
    assert!(!bench.handle(Input::Ended(ended)).iter().any(|effect| matches!(effect, Effect::Close(_))));
    let mut order = Vec::new();
    for &written in &tickets[..3] {
        let effects = bench.written(written, 1, None);
        for effect in &effects {
            if let Effect::Persist(ticket, Op::WriteChunk { account, .. }) = effect {
                order.push((*ticket, *account));
            }
        }
    }
    let accounts: Vec<i64> = order.iter().map(|(_, account)| account.0).collect();
    assert_eq!(accounts, [1, 5, 6]);
    let effects = bench.written(order[1].0, 1, None);
    assert!(sent(&effects, ended).starts_with("OK chunk "));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Close(conn) if *conn == ended)));
    // What was under way for who is gone is room again.
    bench.handle(Input::Closed(one));
    for written in tickets.drain(3..) {
        bench.written(written, 1, None);
    }
    let fresh = bench.login(7, 7);
    assert_eq!(bench.fill(fresh).len(), CHUNK_WINDOW / CHUNK_TEXT_MAX);
}

#[test]
fn a_chunk_that_waits_is_no_idle_session() {
    let mut bench = Bench::new();
    let (one, two, rest) = (bench.login(0, 1), bench.login(1, 1), bench.login(2, 1));
    for conn in [one, two, rest] {
        bench.fill(conn);
    }
    let waits = bench.login(3, 2);
    bench.line(waits, &longest(0));
    let effects = bench.handle(Input::Expired(waits, Expiry::Session));
    assert_eq!(sent(&effects, waits), "");
}

//! Who sends files.
//!
//! A sender is about several files at once, with chunks of all of them in flight, and remembers what was acknowledged:
//! whatever happens to its connection or to the daemon, an upload never goes on from below that.

use std::sync::atomic::Ordering;

use base64ct::{Base64, Encoding as _};
use downstream::protocol::file::CHUNK_MAX;

use crate::cast::{LISTENER, ROOMS, below, enter};
use crate::ledger::{place, value};
use crate::shelf::{Fate, Item, Parcel, State};
use crate::stage::{Gone, Session, Stage};
use crate::support::Link as _;

pub(crate) const SENDER: &str = "sender";
/// So many that with [`HAND`] more uploads are under way than the daemon keeps open, which are 24.
pub(crate) const SENDERS: usize = 3;
/// Files that a sender is about at once.
const HAND: usize = 10;
/// Uploads that it leaves lying, of the 100 that an account may have.
const LEFT: usize = 20;
/// Chunks in flight.
const BURST: u64 = 12;
/// Whole files of a sender that stay; of more, one is dropped for each that comes.
const KEPT: usize = 200;
/// Bytes of a block of the store.
const BLOCK: u64 = 16 * 1024;

/// Sends files, whatever comes between, and drops some of them.
pub(crate) fn sender(stage: &Stage, user: &str, n: usize) -> Result<(), Gone> {
    let mut session = enter(stage, user)?;
    let mut hand = stage.shelf.lock().unwrap().take_hand(user);
    let ended = deal(&mut session, n as u64, &mut hand);
    stage.shelf.lock().unwrap().put_hand(user, hand);
    ended
}

fn deal(session: &mut Session<'_>, salt: u64, hand: &mut Vec<Parcel>) -> Result<(), Gone> {
    let stage = session.stage;
    hand.retain(|parcel| !parcel.over);
    while !stage.is_over() {
        while hand.iter().filter(|parcel| !parcel.left).count() < HAND {
            let parcel = draw(session, salt, hand);
            stage.ledger.lock().unwrap().sent(&parcel.body());
            hand.push(parcel);
        }
        let waits = |parcel: &&mut Parcel| !parcel.over && !parcel.left && !parcel.dropping && parcel.next.is_none();
        for parcel in hand.iter_mut().filter(waits) {
            announce(session, parcel)?;
        }
        burst(session, hand)?;
        for parcel in hand.iter_mut().filter(|parcel| !parcel.over && !parcel.left) {
            if parcel.dropping || parcel.next.is_some_and(|next| next >= parcel.end()) {
                give_up(session, parcel)?;
            }
        }
        for parcel in hand.iter_mut().filter(|parcel| parcel.over && parcel.fate == Fate::Arrive) {
            if below(6, stage.number(), 19) == 0 {
                // As who did not hear that it is there: it is there once.
                announce(session, parcel)?;
            }
        }
        hand.retain(|parcel| !parcel.over);
        if hand.iter().filter(|parcel| parcel.left).count() > LEFT
            && let Some(parcel) = hand.iter_mut().find(|parcel| parcel.left)
        {
            // Where it was left, it must still be.
            (parcel.fate, parcel.left) = (Fate::Dropped(parcel.acknowledged), false);
        }
        drop_one(session)?;
        stage.did("bursts of chunks");
    }
    Ok(())
}

/// The next file. Its bytes are no other's of the same sender, or it would be the same file.
fn draw(session: &Session<'_>, salt: u64, hand: &[Parcel]) -> Parcel {
    let (stage, user) = (session.stage, &session.user);
    let number = stage.number();
    let target = [ROOMS[0], ROOMS[1], LISTENER, "reader0", "reader1"][below(5, number, 18 + salt) as usize];
    let place = place(target, user);
    let there =
        |item: &Item| item.size == 0 && item.sender == *user && item.place == place && item.state != State::Gone;
    let empty = hand.iter().any(|parcel| parcel.size == 0) || stage.shelf.lock().unwrap().count(there) > 0;
    let size = match below(16, number, 10) {
        0 if !empty => 0,
        0..=5 => 16 + below(BLOCK - 16, number, 11),
        6 => BLOCK,
        7..=11 => BLOCK + below(3 * BLOCK, number, 12),
        12 => CHUNK_MAX as u64 + below(3, number, 13) - 1,
        13 | 14 => (1 + below(10, number, 14)) * 10_007,
        _ => 100_000 + below(400_000, number, 15),
    };
    let size = size as usize;
    let at = below(size.max(1) as u64, number, 16) as usize;
    let fate = match below(16, number, 17) {
        0 => Fate::Forged,
        1 if size > 0 => Fate::Left(at),
        2 if size > 0 => Fate::Dropped(at),
        _ => Fate::Arrive,
    };
    Parcel::new(user, target, number, size, fate)
}

/// Whether an answer says that the disk is at fault, or full.
pub(crate) fn is_failure(stage: &Stage, answer: &str) -> bool {
    let failed = answer.starts_with("ERR ") && [" internal ", " busy "].iter().any(|code| answer.contains(code));
    if failed {
        stage.files_failed.fetch_add(1, Ordering::Relaxed);
    }
    failed
}

/// Hears where an upload goes on.
fn announce(session: &mut Session<'_>, parcel: &mut Parcel) -> Result<(), Gone> {
    let Parcel { name, target, size, sha256, .. } = &*parcel;
    let answer = session.ask(&format!("/send-file {target} {name} {size} {sha256}"))?;
    if answer.starts_with("ERR send-file checksum ") {
        assert!(parcel.fate == Fate::Forged && parcel.size == 0, "{answer}: {parcel:?}");
        return refused(session.stage, parcel, "files that were forged");
    }
    if is_failure(session.stage, &answer) {
        return Ok(());
    }
    assert!(answer.starts_with("OK send-file "), "{answer}: {}", parcel.name);
    let number = value(&answer, "file").unwrap().parse().unwrap();
    let offset = value(&answer, "offset").unwrap().parse().unwrap();
    if parcel.number.is_some_and(|known| known != number) {
        assert!(parcel.may_be_void() && offset == 0, "{} was forgotten: {answer}", parcel.describe());
        parcel.acknowledged = 0;
    }
    let reached = parcel.acknowledged..=parcel.sent;
    assert!(reached.contains(&offset), "{} goes on elsewhere: {answer}", parcel.describe());
    if offset > 0 {
        session.stage.count("uploads that went on");
    }
    session.stage.shelf.lock().unwrap().began(&session.user, number);
    (parcel.number, parcel.acknowledged, parcel.next) = (Some(number), offset, Some(offset));
    whole(session, parcel, &answer)
}

/// Takes what an answer says of a file that is whole.
fn whole(session: &Session<'_>, parcel: &mut Parcel, answer: &str) -> Result<(), Gone> {
    if value(answer, "done").is_none() {
        assert!(parcel.acknowledged < parcel.size, "{} is not done: {answer}", parcel.describe());
        return Ok(());
    }
    let (stage, user) = (session.stage, &session.user);
    let complete = parcel.fate == Fate::Arrive && parcel.acknowledged == parcel.size;
    assert!(complete, "{} is done: {answer}", parcel.describe());
    let (id, place) = (value(answer, "id").unwrap().parse().unwrap(), place(&parcel.target, user));
    stage.ledger.lock().unwrap().acknowledged(&place, id, &parcel.body());
    let number = parcel.number.unwrap();
    stage.shelf.lock().unwrap().put(&place, id, number, user, &parcel.name, parcel.size as u64);
    parcel.over = true;
    stage.count("files");
    Ok(())
}

/// An upload that must never become a file.
fn refused(stage: &Stage, parcel: &mut Parcel, why: &'static str) -> Result<(), Gone> {
    stage.ledger.lock().unwrap().refused(&parcel.body(), why);
    parcel.over = true;
    stage.count(why);
    Ok(())
}

/// Sends chunks of some parcels, all at once, and takes the answers.
fn burst(session: &mut Session<'_>, hand: &mut [Parcel]) -> Result<(), Gone> {
    let stage = session.stage;
    let (mut lines, mut flying) = (String::new(), Vec::new());
    for _ in 0..1 + below(BURST, stage.number(), 20) {
        let number = stage.number();
        let at = below(hand.len() as u64, number, 21) as usize;
        let parcel = &mut hand[at];
        let (Some(from), Some(file)) = (parcel.next, parcel.number) else { continue };
        if from >= parcel.end() || parcel.left || parcel.dropping || parcel.over {
            continue;
        }
        let most = [CHUNK_MAX as u64, CHUNK_MAX as u64, BLOCK, BLOCK + 1, 5000, 100][below(6, number, 22) as usize];
        let to = parcel.end().min(from + most as usize);
        let data = Base64::encode_string(&parcel.bytes[from..to]);
        lines += &format!("/chunk {file} {from} {data}\n");
        parcel.next = Some(to);
        parcel.sent = parcel.sent.max(to);
        flying.push((at, to));
    }
    session.send(&lines)?;
    if below(60, stage.number(), 23) == 0 {
        // In the middle of everything; what was sent may still be stored.
        session.client.kill();
        return Err(Gone);
    }
    for (at, to) in flying {
        let answer = session.reply(|_| {})?;
        let parcel = &mut hand[at];
        if answer.starts_with("OK chunk ") {
            let number: u64 = value(&answer, "file").unwrap().parse().unwrap();
            let offset: usize = value(&answer, "offset").unwrap().parse().unwrap();
            assert!(parcel.number == Some(number) && offset == to, "{}, to {to}: {answer}", parcel.describe());
            parcel.acknowledged = parcel.acknowledged.max(to);
            stage.chunks.fetch_add(1, Ordering::Relaxed);
            whole(session, parcel, &answer)?;
        } else if answer.starts_with("ERR chunk checksum ") {
            assert!(parcel.fate == Fate::Forged && to == parcel.size, "{}: {answer}", parcel.describe());
            refused(stage, parcel, "files that were forged")?;
        } else if answer.starts_with("ERR chunk conflict ") {
            // Behind a chunk that failed, or one that an earlier connection had under way came before it.
            let offset: usize = value(&answer, "offset").unwrap().parse().unwrap();
            let reached = parcel.acknowledged..=parcel.sent;
            assert!(reached.contains(&offset), "{} goes on elsewhere: {answer}", parcel.describe());
            parcel.next = None;
        } else if answer.starts_with("ERR chunk not-found ") && parcel.may_be_void() {
            // What an earlier connection had under way was the end of it.
            parcel.next = None;
        } else {
            assert!(is_failure(stage, &answer), "{}, to {to}: {answer}", parcel.describe());
            parcel.next = None;
        }
    }
    Ok(())
}

impl Parcel {
    fn describe(&self) -> String {
        let Parcel { name, number, acknowledged, sent, fate, .. } = self;
        format!("{name} ({number:?}, {acknowledged} acknowledged of {sent} sent, {fate:?})")
    }
}

/// Leaves an upload lying, or drops it.
fn give_up(session: &mut Session<'_>, parcel: &mut Parcel) -> Result<(), Gone> {
    let stage = session.stage;
    match (parcel.fate, parcel.number) {
        (Fate::Left(_), _) => {
            parcel.left = true;
            stage.ledger.lock().unwrap().refused(&parcel.body(), "it was left lying");
            stage.count("uploads that were left lying");
        }
        (Fate::Dropped(_), Some(number)) => {
            let again = std::mem::replace(&mut parcel.dropping, true);
            let answer = session.ask(&format!("/drop-file {number}"))?;
            if answer.starts_with("OK drop-file ") || (again && answer.starts_with("ERR drop-file not-found ")) {
                return refused(stage, parcel, "uploads that were dropped");
            }
            assert!(is_failure(stage, &answer), "{}: {answer}", parcel.describe());
        }
        _ => {}
    }
    Ok(())
}

/// Drops one of the files of a sender now and then, and always where there are many.
fn drop_one(session: &mut Session<'_>) -> Result<(), Gone> {
    let (stage, salt) = (session.stage, session.stage.number());
    let user = session.user.clone();
    let drawn = {
        let shelf = stage.shelf.lock().unwrap();
        let own = |item: &Item| item.sender == user && item.state != State::Gone;
        let waits = shelf.draw(salt, |item| own(item) && item.state == State::Dropping);
        let many = shelf.count(own) > KEPT || below(12, salt, 30) == 0;
        waits.or_else(|| shelf.draw(salt, own).filter(|_| many))
    };
    let Some(item) = drawn else { return Ok(()) };
    stage.shelf.lock().unwrap().set(item.number, State::Dropping);
    let answer = session.ask(&format!("/drop-file {}", item.number))?;
    let again = item.state == State::Dropping && answer.starts_with("ERR drop-file not-found ");
    if answer.starts_with("OK drop-file ") || again {
        stage.shelf.lock().unwrap().set(item.number, State::Gone);
        stage.count("files that were dropped");
    } else {
        assert!(is_failure(stage, &answer), "{item:?}: {answer}");
    }
    Ok(())
}

//! Who reads files: in pieces of any length, at any speed. What comes is compared with what the name of the file says
//! that it is.

use std::sync::atomic::Ordering;

use base64ct::{Base64, Encoding as _};
use downstream::protocol::file::CHUNK_MAX;

use crate::cast::{below, enter};
use crate::files::is_failure;
use crate::shelf::{Item, State, bytes_of};
use crate::stage::{Gone, Session, Stage};

/// Gets files that it may get, asks for others, and looks behind their ends.
pub(crate) fn reader(stage: &Stage, user: &str, n: usize) -> Result<(), Gone> {
    let mut session = enter(stage, user)?;
    while !stage.is_over() {
        let salt = stage.number();
        let any = below(8, salt, 40) == 0;
        let fits = |item: &Item| any || (item.state == State::Whole && item.is_for(user));
        let drawn = stage.shelf.lock().unwrap().draw(salt, fits);
        let Some(item) = drawn else {
            stage.until(|| stage.shelf.lock().unwrap().count(fits) > 0);
            continue;
        };
        if !item.is_for(user) || item.state == State::Gone {
            let answer = session.ask(&format!("/get-file {}", item.number))?;
            assert!(answer.starts_with("ERR get-file not-found "), "{item:?} for {user}: {answer}");
            stage.did("files that are not for everybody");
            continue;
        }
        match below(4, salt, 41) {
            0 => slowly(&mut session, &item, n)?,
            1 => ends(&mut session, &item)?,
            _ => drop(get(&mut session, &item, below(3, salt, 42) * below(item.size + 1, salt, 43))?),
        }
        stage.did("files that were read");
    }
    Ok(())
}

/// Gets a file from an offset on; whether it came to the end.
pub(crate) fn get(session: &mut Session<'_>, item: &Item, from: u64) -> Result<bool, Gone> {
    let bytes = bytes_of(&item.name);
    let mut offset = from.min(item.size);
    loop {
        let length = [CHUNK_MAX as u64, 1 << 20, 1000, 100_000][below(4, session.stage.number(), 44) as usize];
        // So that a long file is not a thousand pieces.
        let length = length.max(item.size / 8);
        session.client.say(&format!("/get-file {} offset={offset} length={length}", item.number));
        let Some(next) = piece(session, item, &bytes, offset, length)? else { return Ok(false) };
        offset = next;
        if offset == item.size {
            return Ok(true);
        }
    }
}

/// Takes a piece and compares it; where the next one begins, or nothing if the file is being dropped or the disk fails.
fn piece(session: &mut Session<'_>, item: &Item, bytes: &[u8], offset: u64, length: u64) -> Result<Option<u64>, Gone> {
    let prefix = format!("- chunk {} ", item.number);
    let (mut at, end) = (offset, item.size.min(offset + length));
    let answer = session.reply(|row| {
        let (from, data) = row.strip_prefix(&prefix).and_then(|row| row.split_once(' ')).unwrap();
        let data = Base64::decode_vec(data).unwrap();
        assert_eq!(from.parse(), Ok(at), "{item:?}");
        let upto = end.min(at + CHUNK_MAX as u64);
        assert!(bytes.get(at as usize..upto as usize) == Some(&*data), "{item:?} has other bytes behind {at}");
        at = upto;
    })?;
    if answer.starts_with("ERR get-file not-found ") {
        let state = session.stage.shelf.lock().unwrap().state(item.number);
        assert!(at == offset && state != Some(State::Whole), "{item:?}, {state:?}: {answer}");
        return Ok(None);
    }
    if at == offset && session.is_ailing() && is_failure(session.stage, &answer) {
        return Ok(None);
    }
    let more = if at < item.size { "yes" } else { "no" };
    let expected = format!("OK get-file file={} offset={end} size={} more={more}", item.number, item.size);
    assert!(at == end && answer == expected, "{item:?} from {offset}, to {at}: {answer}");
    Ok(Some(at))
}

/// Asks for a lot and takes it late.
fn slowly(session: &mut Session<'_>, item: &Item, n: usize) -> Result<(), Gone> {
    let stage = session.stage;
    let (bytes, length) = (bytes_of(&item.name), 1 << 20);
    session.client.pause();
    for _ in 0..4 {
        session.client.say(&format!("/get-file {} length={length}", item.number));
    }
    let (before, here) = (stage.stored.load(Ordering::Relaxed), stage.number_here());
    stage.until(|| stage.stored.load(Ordering::Relaxed) >= before + 30 * (n + 1) || stage.number_here() != here);
    session.client.resume();
    for _ in 0..4 {
        piece(session, item, &bytes, 0, length)?;
    }
    Ok(())
}

/// Looks at the end of a file, and behind it.
fn ends(session: &mut Session<'_>, item: &Item) -> Result<(), Gone> {
    let bytes = bytes_of(&item.name);
    session.client.say(&format!("/get-file {} offset={}", item.number, item.size));
    let there = piece(session, item, &bytes, item.size, 0)?;
    let answer = session.ask(&format!("/get-file {} offset={}", item.number, item.size + 1))?;
    let expected = format!("ERR get-file conflict offset={} ", item.size);
    let dropped = there.is_none() || is_dropped(session.stage, item);
    assert!(answer.starts_with(&expected) || dropped || is_failure(session.stage, &answer), "{item:?}: {answer}");
    Ok(())
}

fn is_dropped(stage: &Stage, item: &Item) -> bool {
    stage.shelf.lock().unwrap().state(item.number) != Some(State::Whole)
}

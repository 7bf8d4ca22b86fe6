//! Who has an account and means files ill: wrong offsets, sizes and base64, the uploads and files of others, floods
//! of chunks whose answers nobody reads.

use std::sync::atomic::Ordering;

use base64ct::{Base64, Encoding as _};
use downstream::protocol::file::CHUNK_MAX;

use crate::cast::{ROOMS, below, enter};
use crate::ledger::value;
use crate::shelf::{Fate, Parcel, State};
use crate::stage::{Gone, Session, Stage};
use crate::support::Link as _;

/// Bytes of what it announces.
const SIZE: usize = 100_000;
/// Chunks of a flood. Their answers fit into what the kernels buffer, so that the flood itself never waits.
const FLOOD: usize = 2000;

pub(crate) fn vandal(stage: &Stage, user: &str, _: usize) -> Result<(), Gone> {
    while !stage.is_over() {
        let mut session = enter(stage, user)?;
        tidy(&mut session)?;
        let parcel = Parcel::new(user, ROOMS[1], stage.number(), SIZE, Fate::Left(0));
        let Parcel { name, target, sha256, .. } = &parcel;
        stage.ledger.lock().unwrap().refused(&parcel.body(), "it never came whole");
        let answer = session.ask(&format!("/send-file {target} {name} {SIZE} {sha256}"))?;
        if fails(&answer) {
            continue;
        }
        let file: u64 = value(&answer, "file").unwrap().parse().unwrap();
        stage.shelf.lock().unwrap().began(user, file);
        match below(3, stage.number(), 50) {
            0 => nonsense(&mut session, file, &parcel)?,
            1 => trespass(&mut session)?,
            _ => flood(&mut session, file, &parcel),
        }
        stage.did("acts of vandalism");
    }
    Ok(())
}

/// Whether an answer says that the disk is at fault, or full.
fn fails(answer: &str) -> bool {
    answer.starts_with("ERR ") && [" internal ", " busy "].iter().any(|code| answer.contains(code))
}

/// Drops what is under way.
fn tidy(session: &mut Session<'_>) -> Result<(), Gone> {
    let mut uploads: Vec<String> = Vec::new();
    session.client.say("/files");
    session.reply(|row| {
        if value(row, "state") == Some("partial") {
            uploads.push(row.split(' ').nth(2).unwrap().to_owned());
        }
    })?;
    for file in uploads {
        let answer = session.ask(&format!("/drop-file {file}"))?;
        assert!(answer.starts_with("OK drop-file ") || fails(&answer), "{answer}");
    }
    Ok(())
}

/// One line that must be refused so, unless the disk is worse.
fn refused(session: &mut Session<'_>, line: &str, codes: &[&str]) -> Result<(), Gone> {
    let answer = session.ask(line)?;
    let expected = codes.iter().any(|code| answer.split(' ').nth(2) == Some(*code));
    let shown: String = line.chars().take(100).collect();
    assert!(answer.starts_with("ERR ") && (expected || fails(&answer)), "{shown}: {answer}");
    Ok(())
}

/// Lines that are wrong.
fn nonsense(session: &mut Session<'_>, file: u64, parcel: &Parcel) -> Result<(), Gone> {
    let (room, hash) = (ROOMS[1], &parcel.sha256);
    let large = Base64::encode_string(&vec![7; CHUNK_MAX + 1]);
    let name = "n".repeat(256);
    for (line, code) in [
        (format!("/chunk {file} 1 AAAA"), "conflict"),
        (format!("/chunk {file} {} AAAA", u64::MAX), "conflict"),
        (format!("/chunk {file} 99999999999999999999999 AAAA"), "conflict"),
        (format!("/chunk {file} -1 AAAA"), "syntax"),
        (format!("/chunk {file} 0 A!AA"), "syntax"),
        (format!("/chunk {file} 0 YR=="), "syntax"),
        (format!("/chunk {file} 0 A"), "syntax"),
        (format!("/chunk {file} 0"), "syntax"),
        (format!("/chunk {file} 0 {large}"), "too-long"),
        (format!("/chunk {} 0 AAAA", u64::MAX), "not-found"),
        ("/chunk 0 0 AAAA".to_owned(), "not-found"),
        ("/chunk x 0 AAAA".to_owned(), "syntax"),
        (format!("/send-file {room} x 5 abc"), "syntax"),
        (format!("/send-file {room} x 5x {hash}"), "syntax"),
        (format!("/send-file {room} x -5 {hash}"), "syntax"),
        (format!("/send-file {room} {name} 5 {hash}"), "name-invalid"),
        (format!("/send-file {room} x {} {hash}", u64::MAX), "too-long"),
        (format!("/send-file {room} x 0 {hash}"), "checksum"),
        (format!("/send-file nobody x 5 {hash}"), "no-such-user"),
        (format!("/send-file #nowhere x 5 {hash}"), "no-such-room"),
        (format!("/get-file {file}"), "not-found"),
        (format!("/get-file {file} length=99999999"), "too-long"),
    ] {
        refused(session, &line, &[code])?;
    }
    // None of it did any harm: the first bytes fit, and only they.
    let data = Base64::encode_string(&parcel.bytes[..1000]);
    let answer = session.ask(&format!("/chunk {file} 0 {data}"))?;
    assert!(answer == format!("OK chunk file={file} offset=1000") || fails(&answer), "{answer}");
    Ok(())
}

/// Reaches for what belongs to others.
fn trespass(session: &mut Session<'_>) -> Result<(), Gone> {
    let (stage, salt) = (session.stage, session.stage.number());
    let user = session.user.clone();
    let upload = stage.shelf.lock().unwrap().upload_of_others(&user, salt);
    if let Some(file) = upload {
        // It may have become a file of a room meanwhile, or be gone.
        refused(session, &format!("/chunk {file} 0 AAAA"), &["not-found"])?;
        refused(session, &format!("/drop-file {file}"), &["not-found", "forbidden"])?;
    }
    let drawn = stage.shelf.lock().unwrap().draw(salt, |item| item.sender != user && item.state == State::Whole);
    if let Some(item) = drawn {
        let codes: &[&str] = if item.is_for(&user) { &["forbidden", "not-found"] } else { &["not-found"] };
        refused(session, &format!("/drop-file {}", item.number), codes)?;
        refused(session, &format!("/chunk {} {} AAAA", item.number, item.size), &["not-found"])?;
        if !item.is_for(&user) {
            refused(session, &format!("/get-file {}", item.number), &["not-found"])?;
        }
    }
    Ok(())
}

/// Chunks of a byte, and large ones for nowhere, without reading an answer.
fn flood(session: &mut Session<'_>, file: u64, parcel: &Parcel) {
    let stage = session.stage;
    session.client.pause();
    let mut lines = String::new();
    for (at, byte) in parcel.bytes[..FLOOD].iter().enumerate() {
        lines += &format!("/chunk {file} {at} {}\n", Base64::encode_string(&[*byte]));
    }
    let large = Base64::encode_string(&parcel.bytes[..CHUNK_MAX]);
    lines += &format!("/chunk {file} 77777 {large}\n").repeat(20);
    if session.client.try_send(lines.as_bytes()).is_ok() {
        // The others go on meanwhile.
        let (before, here) = (stage.stored.load(Ordering::Relaxed), stage.number_here());
        stage.until(|| stage.stored.load(Ordering::Relaxed) >= before + 20 || stage.number_here() != here);
    }
    session.client.kill();
}

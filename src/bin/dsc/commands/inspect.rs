//! `inspect`: what everybody on the way of an envelope can read.

use std::io::{self, BufRead, Read as _};

use downstream::e2e::armour::{self, BODY_PREFIX};
use downstream::e2e::envelope::{Envelope, Slot};
use downstream::e2e::name::DeviceId;
use downstream::protocol::{MAX_LINE, Timestamp};

use crate::context::Context;
use crate::error::Failure;
use crate::event::{Event, Row};

/// Shows the header of each envelope on standard input: in server lines, in lines to a server, or bare.
///
/// # Errors
/// A line holds none, or what it holds is no envelope: the rest is read all the same.
pub fn inspect(ctx: &Context) -> Result<(), Failure> {
    let mut input = io::stdin().lock();
    let (mut number, mut bad) = (0_u64, Vec::new());
    while let Some(line) = next_line(&mut input)? {
        number += 1;
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        match rows(line) {
            Some(rows) => rows.into_iter().try_for_each(|row| ctx.out.show(&Event::Row(row)))?,
            None => bad.push(number.to_string()),
        }
    }
    match bad.as_slice() {
        [] if number > 0 => Ok(()),
        [] => Err(Failure::failed("there was nothing to read on standard input")),
        [one] => Err(Failure::failed(format!("line {one} holds no envelope"))),
        several => Err(Failure::failed(format!("lines {} hold no envelope", several.join(", ")))),
    }
}

/// A line of at most the protocol's length, whatever its bytes.
fn next_line(input: &mut impl BufRead) -> Result<Option<String>, Failure> {
    let mut line = Vec::new();
    let read = input.take(MAX_LINE as u64 + 1).read_until(b'\n', &mut line);
    match read.map_err(|error| Failure::failed(format!("cannot read standard input: {error}")))? {
        0 => Ok(None),
        length if length > MAX_LINE => Err(Failure::failed(format!("a line is longer than {MAX_LINE} bytes"))),
        _ => Ok(Some(String::from_utf8_lossy(&line).into_owned())),
    }
}

/// The header of the envelope in a line, a row for it and one for each slot.
fn rows(line: &str) -> Option<Vec<Row>> {
    // An envelope is the last word of every line that carries one.
    let word = line.rsplit(' ').next()?;
    let word = word.strip_prefix(':').unwrap_or(word);
    let raw = match word.starts_with(BODY_PREFIX) {
        true => armour::envelope(word).ok()?,
        false => armour::unbase64(word).ok()?,
    };
    let bytes = raw.len() as u64;
    let header = |form: &str, device: Option<DeviceId>| Row::Envelope {
        form: form.to_owned(),
        bytes,
        device: device.map(|device| device.to_string()),
        room: None,
        epoch: None,
        chain: None,
        n: None,
        slots: None,
    };
    Some(match Envelope::parse(&raw).ok()? {
        Envelope::LinkRequest(_) => vec![header("link-request", None)],
        Envelope::LinkAnswer(_) => vec![header("link-answer", None)],
        Envelope::Group(group) => vec![Row::Envelope {
            form: "group".to_owned(),
            bytes,
            device: Some(group.device.to_string()),
            room: Some(group.room.to_string()),
            epoch: Some(group.epoch),
            chain: Some(group.chain.to_string()),
            n: Some(group.n),
            slots: None,
        }],
        Envelope::Multi(multi) => {
            let mut first = header("multi", Some(multi.device));
            if let Row::Envelope { slots, .. } = &mut first {
                *slots = Some(multi.slots.len() as u64);
            }
            std::iter::once(first).chain(multi.slots.iter().map(|(to, slot)| slot_row(*to, slot))).collect()
        }
    })
}

fn slot_row(to: DeviceId, slot: &Slot<'_>) -> Row {
    Row::Slot {
        device: to.to_string(),
        session: slot.ratchet.sid.to_string(),
        born: slot.prekey.as_ref().map(|prekey| Timestamp::from_millis(prekey.born_ms).to_string()),
        previous: slot.ratchet.pn,
        n: slot.ratchet.n,
    }
}

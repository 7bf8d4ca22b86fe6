//! Works of the server: the core with the store's engine in memory.

use downstream::protocol::LineSplitter;
use downstream::protocol::request::Sentence;
use downstream::session::ConnId;

use crate::house::House;
use crate::{Failure, counted};

pub(crate) const LINES: u64 = 10_000;
pub(crate) const ROOM100: u64 = 1000;
pub(crate) const ROOMS50: u64 = 2000;
pub(crate) const DIRECT: u64 = 2000;
pub(crate) const LOGINS: u64 = 500;
pub(crate) const FETCHED: u64 = 5000;

/// Messages that one batch of the store carries for each sender, as in the works of the load generator.
const AT_ONCE: u64 = 4;

fn body() -> String {
    "x".repeat(128)
}

/// Splitting what comes into lines and reading them.
pub(crate) fn lines() -> Result<(), Failure> {
    let say = format!("/msg #room {}\n", body());
    let post = format!("/post #room 0123456789abcdef {}\n", body());
    let kinds = [say.as_str(), "bare text into the room\n", &post, "/fetch #room after=17 limit=100\n", "/who #room\n"];
    let text: String = (0..LINES as usize).map(|i| kinds[i % kinds.len()]).collect();
    let read = counted(|| {
        let mut splitter = LineSplitter::new(65_536);
        let mut good: u64 = 0;
        for record in text.as_bytes().chunks(16 * 1024) {
            splitter.fill(record);
            while let Some(line) = splitter.next_line() {
                good += match line.map(Sentence::read) {
                    Ok(Sentence::Command(command)) => u64::from(command.request().is_ok()),
                    Ok(Sentence::Text(_)) => 1,
                    _ => 0,
                };
            }
        }
        good
    });
    if read == LINES { Ok(()) } else { Err(format!("{read} of {LINES} lines were read").into()) }
}

/// People who are logged in, `u0` on, and their tokens.
fn people(house: &mut House, count: u32) -> Result<Vec<(ConnId, String)>, Failure> {
    (0..count)
        .map(|i| {
            let conn = house.connect(i)?;
            house.ask(conn, &format!("/register u{i} correct-horse-battery"))?;
            let reply = house.ask(conn, "/token bench")?;
            let token = reply.split(' ').find_map(|word| word.strip_prefix("token=")).ok_or("no token")?;
            Ok((conn, token.to_owned()))
        })
        .collect()
}

/// `messages` messages in `rooms` rooms of `members`, each room's first member being its sender.
fn rooms(rooms: u32, members: u32, messages: u64) -> Result<(), Failure> {
    let mut house = House::new()?;
    let people = people(&mut house, rooms * members)?;
    for (i, (conn, _)) in people.iter().enumerate() {
        house.ask(*conn, &format!("/join #r{}", i / members as usize))?;
    }
    let lines: Vec<(ConnId, String)> =
        (0..rooms).map(|room| (people[(room * members) as usize].0, format!("/msg #r{room} {}", body()))).collect();
    let before = house.bytes;
    counted(|| {
        for _ in 0..messages / AT_ONCE / u64::from(rooms) {
            for (sender, line) in &lines {
                for _ in 0..AT_ONCE {
                    house.line(*sender, line)?;
                }
            }
            house.turn()?;
        }
        Ok::<(), Failure>(())
    })?;
    let (least, got) = (messages * u64::from(members - 1) * body().len() as u64, house.bytes - before);
    if got > least { Ok(()) } else { Err(format!("{got} bytes were delivered").into()) }
}

pub(crate) fn room100() -> Result<(), Failure> {
    rooms(1, 100, ROOM100)
}

pub(crate) fn rooms50x10() -> Result<(), Failure> {
    rooms(50, 10, ROOMS50)
}

/// Messages to one person who is there.
pub(crate) fn direct() -> Result<(), Failure> {
    let mut house = House::new()?;
    let sender = people(&mut house, 2)?[0].0;
    let line = format!("/msg u1 {}", body());
    let before = house.agreed;
    counted(|| {
        for _ in 0..DIRECT / AT_ONCE {
            for _ in 0..AT_ONCE {
                house.line(sender, &line)?;
            }
            house.turn()?;
        }
        Ok::<(), Failure>(())
    })?;
    let agreed = house.agreed - before;
    if agreed == DIRECT { Ok(()) } else { Err(format!("{agreed} of {DIRECT} messages").into()) }
}

/// Coming by token and going, one after the other, of people who are in a room.
pub(crate) fn logins() -> Result<(), Failure> {
    let mut house = House::new()?;
    let people = people(&mut house, 50)?;
    for (conn, _) in &people {
        house.ask(*conn, "/join #room")?;
    }
    for (conn, _) in &people {
        house.close(*conn)?;
    }
    let lines: Vec<String> = (0..).zip(&people).map(|(i, (_, token))| format!("/login u{i} {token}")).collect();
    let before = house.agreed;
    counted(|| {
        for i in 0..LOGINS as usize {
            let conn = house.connect((i % people.len()) as u32)?;
            house.line(conn, &lines[i % lines.len()])?;
            house.turn()?;
            house.close(conn)?;
        }
        Ok::<(), Failure>(())
    })?;
    let agreed = house.agreed - before;
    if agreed == LOGINS { Ok(()) } else { Err(format!("{agreed} of {LOGINS} logins").into()) }
}

/// Pages of 1000 of what was missed.
pub(crate) fn fetch() -> Result<(), Failure> {
    let mut house = House::new()?;
    let people = people(&mut house, 2)?;
    let (sender, reader) = (people[0].0, people[1].0);
    house.close(reader)?;
    let line = format!("/msg u1 {}", body());
    for _ in 0..FETCHED / AT_ONCE {
        for _ in 0..AT_ONCE {
            house.line(sender, &line)?;
        }
        house.turn()?;
    }
    let reader = house.connect(1)?;
    house.ask(reader, &format!("/login u1 {}", people[1].1))?;
    let before = house.bytes;
    let mut after = 0;
    counted(|| {
        for _ in 0..FETCHED / 1000 {
            house.line(reader, &format!("/fetch u0 after={after} limit=1000"))?;
            house.turn()?;
            after += 1000;
        }
        Ok::<(), Failure>(())
    })?;
    let least = FETCHED * body().len() as u64;
    if house.bytes - before > least { Ok(()) } else { Err("pages were missing".into()) }
}

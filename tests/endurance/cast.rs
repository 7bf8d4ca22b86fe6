//! Who plays: people, programs and enemies, each in a thread of its own, until all is over.
//!
//! A part is a row of [`CAST`] and a function. It gets connections from the stage, which waits while no daemon
//! is there; [`Gone`] is the signal to begin anew.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::TcpStream;
use std::sync::atomic::Ordering;

use crate::files;
use crate::ledger::{Digest, Log, Shown, value};
use crate::readers;
use crate::stage::{Gone, Session, Stage};
use crate::support::{Client, Link, Options};
use crate::vandal;

/// One kind of player.
pub(crate) struct Part {
    /// The account is called this and a number.
    pub(crate) name: &'static str,
    pub(crate) players: usize,
    play: fn(&Stage, &str, usize) -> Result<(), Gone>,
}

/// Everybody.
pub(crate) const CAST: &[Part] = &[
    Part { name: "chatter", players: 3, play: chatter },
    Part { name: "poster", players: 2, play: poster },
    Part { name: "wanderer", players: 2, play: wanderer },
    Part { name: "fetcher", players: 1, play: fetcher },
    Part { name: "comer", players: 2, play: comer },
    Part { name: "sleeper", players: 2, play: sleeper },
    Part { name: "stranger", players: 2, play: stranger },
    Part { name: "mallory", players: 1, play: mallory },
    Part { name: files::SENDER, players: files::SENDERS, play: files::sender },
    Part { name: "reader", players: 2, play: readers::reader },
    Part { name: "vandal", players: 1, play: vandal::vandal },
];

/// The rooms that everybody is in from the beginning.
pub(crate) const ROOMS: [&str; 2] = ["#load", "#den"];
/// The room that people come to and leave.
pub(crate) const HALL: &str = "#hall";
/// The account that is in every room and says nothing.
pub(crate) const LISTENER: &str = "listener";

impl Part {
    pub(crate) fn account(&self, n: usize) -> String {
        format!("{}{n}", self.name)
    }

    /// Plays until all is over.
    pub(crate) fn play(&self, stage: &Stage, n: usize) {
        let user = self.account(n);
        while !stage.is_over() {
            let _ = (self.play)(stage, &user, n);
        }
    }
}

/// A session, or the end of all.
pub(crate) fn enter<'a>(stage: &'a Stage, user: &str) -> Result<Session<'a>, Gone> {
    stage.login(user).ok_or(Gone)
}

/// A number that looks drawn, the same for the same things.
pub(crate) fn below(n: u64, seed: u64, salt: u64) -> u64 {
    (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ salt.wrapping_mul(0xbf58_476d_1ce4_e5b9)).rotate_left(29) % n
}

/// Many messages at once, to rooms and to people, answered in order.
fn chatter(stage: &Stage, user: &str, n: usize) -> Result<(), Gone> {
    let mut session = enter(stage, user)?;
    let targets = [ROOMS[0], ROOMS[1], LISTENER, "chatter0", "sleeper0", "poster1"];
    while !stage.is_over() {
        let burst: Vec<(&str, String)> = (0..1 + below(24, stage.number(), n as u64))
            .map(|_| {
                let number = stage.number();
                let target = targets[below(targets.len() as u64, number, 1) as usize];
                let len = if below(50, number, 2) == 0 { 20_000 } else { below(300, number, 3) };
                (target, format!("{user} {number} {}", "p".repeat(len as usize)))
            })
            .collect();
        let lines: String = burst.iter().map(|(target, body)| format!("/msg {target} {body}\n")).collect();
        burst.iter().for_each(|(_, body)| stage.ledger.lock().unwrap().sent(body));
        session.send(&lines)?;
        let mut last: BTreeMap<&str, u64> = BTreeMap::new();
        for (target, body) in &burst {
            if let Some(id) = session.answered(target, body)? {
                let before = last.insert(target, id).unwrap_or(0);
                assert!(id > before, "{target}: {id} was acknowledged behind {before}");
            }
        }
        for line in ["/typing #load", "/unread", "/who #den", "/members #load"] {
            let answer = session.ask(line)?;
            assert!(answer.starts_with("OK ") || answer.contains(" internal "), "{line}: {answer}");
        }
        stage.did("bursts");
    }
    Ok(())
}

/// Messages that are repeated until they are acknowledged, and stored once.
fn poster(stage: &Stage, user: &str, n: usize) -> Result<(), Gone> {
    while !stage.is_over() {
        let number = stage.number();
        let (key, body) = (format!("key-{user}-{number}"), format!("{user} {number} once"));
        let target = [ROOMS[0], HALL, LISTENER][below(3, number, n as u64) as usize];
        stage.ledger.lock().unwrap().sent(&body);
        // A new connection each time, as a program that was cut off does it; the key is the same.
        let mut tries = 0;
        while !stage.is_over() {
            let Some(mut session) = stage.login(user) else { return Err(Gone) };
            tries += 1;
            session.client.say(&format!("/post {target} {key} {body}"));
            let Ok(Some(_)) = session.answered(target, &body) else { continue };
            if tries > 1 {
                stage.did("posts that were repeated");
            }
            stage.did("posts");
            break;
        }
    }
    Ok(())
}

/// Comes into a room, says something and leaves again.
fn wanderer(stage: &Stage, user: &str, _: usize) -> Result<(), Gone> {
    let mut session = enter(stage, user)?;
    while !stage.is_over() {
        let joined = session.ask(&format!("/join {HALL}"))?;
        assert!(joined.starts_with("OK join ") || joined.contains(" internal "), "{joined}");
        let body = format!("{user} {} in the hall", stage.number());
        stage.ledger.lock().unwrap().sent(&body);
        session.client.say(&format!("/msg {HALL} {body}"));
        session.answered(HALL, &body)?;
        let left = session.ask(&format!("/leave {HALL} for now"))?;
        assert!(
            ["OK leave ", "ERR leave internal ", "ERR leave not-member "].iter().any(|a| left.starts_with(a)),
            "{left}"
        );
        stage.did("walks");
    }
    Ok(())
}

/// Reads pages from anywhere.
fn fetcher(stage: &Stage, user: &str, _: usize) -> Result<(), Gone> {
    let mut session = enter(stage, user)?;
    while !stage.is_over() {
        let number = stage.number();
        let target = ROOMS[below(2, number, 1) as usize];
        let bound = match below(3, number, 2) {
            0 => String::new(),
            1 => format!(" after={}", below(1000, number, 3)),
            _ => format!(" before={}", below(1000, number, 4) + 1),
        };
        let mut last = 0;
        session.client.say(&format!("/fetch {target}{bound} limit=200"));
        let answer = session.reply(|row| {
            let shown = Shown::read(row).unwrap();
            assert!(shown.place == target && shown.id > last, "{last}, then {row}");
            last = shown.id;
        })?;
        assert!(answer.starts_with("OK fetch ") || answer.contains(" internal "), "{answer}");
        stage.did("pages");
    }
    Ok(())
}

/// Logs in by token, looks what is new and goes, politely or not.
fn comer(stage: &Stage, user: &str, _: usize) -> Result<(), Gone> {
    let mut session = enter(stage, user)?;
    session.ask("/revoke endurance")?;
    let answer = session.ask("/token endurance")?;
    // Where the disk fails, by password.
    let secret = value(&answer, "token").map_or_else(|| format!("password-{user}"), str::to_owned);
    while !stage.is_over() {
        let mut session = stage.login_with(user, &secret, "auto").ok_or(Gone)?;
        session.ask("/unread")?;
        session.ask("/fetch")?;
        match below(4, stage.number(), 1) {
            0 => session.client.close(),
            1 => session.client.kill(),
            2 => drop(session.ask("/quit")),
            _ => {
                // In the middle of a line, with answers under way.
                session.send("/fetch #load limit=500\n/unread\n/msg #lo")?;
                session.client.kill();
            }
        }
        stage.did("visits");
    }
    Ok(())
}

/// Reads nothing for a while, then everything, and misses nothing.
fn sleeper(stage: &Stage, user: &str, n: usize) -> Result<(), Gone> {
    let mut session = enter(stage, user)?;
    let mut last: BTreeMap<String, u64> = BTreeMap::new();
    while !stage.is_over() {
        session.client.pause();
        let (before, wanted) = (stage.stored.load(Ordering::Relaxed), 100 * (n + 1));
        let here = stage.number_here();
        stage.until(|| stage.stored.load(Ordering::Relaxed) >= before + wanted || stage.number_here() != here);
        session.client.resume();
        // All that came until this answer. Who says nothing hears every message of a room.
        session.client.say("/ping now");
        loop {
            let line = session.line()?;
            if let Some(shown) = Shown::read(&line).filter(|shown| ROOMS.contains(&&*shown.place)) {
                let before = last.insert(shown.place.clone(), shown.id);
                assert!(
                    before.is_none_or(|before| shown.id == before + 1),
                    "{}: {before:?}, then {}",
                    shown.place,
                    shown.id
                );
            } else if line.starts_with("OK ping") {
                break;
            }
        }
        stage.did("naps");
    }
    Ok(())
}

/// Who does not even log in: noise, half a handshake, lines that never end, wrong passwords.
fn stranger(stage: &Stage, _: &str, n: usize) -> Result<(), Gone> {
    let mut held: Vec<TcpStream> = Vec::new();
    while !stage.is_over() {
        let number = stage.number();
        let (address, _) = stage.address().ok_or(Gone)?;
        match below(6, number, n as u64) {
            0 => {
                let Ok(mut socket) = TcpStream::connect(address) else { continue };
                let noise: Vec<u8> = (0..2000).map(|i| below(256, number, i) as u8).collect();
                let _ = socket.write_all(&noise);
            }
            1 => {
                // Half a record of a handshake, and then nothing.
                let Ok(mut socket) = TcpStream::connect(address) else { continue };
                let _ = socket.write_all(&[22, 3, 1, 2, 0, 1, 0, 1]);
                held.push(socket);
            }
            2 => held.extend((0..20).filter_map(|_| TcpStream::connect(address).ok())),
            3 => held.clear(),
            4 => {
                let Ok(mut client) = Client::try_raw(address, &Options::default()) else { continue };
                // The daemon may cut it off while it is being sent.
                let _ = client.try_send(&vec![b'x'; 300_000]);
                let _ = client.try_send(b"\nGET / HTTP/1.1\r\n\r\n\0\xff\xfe\n/register\n/login \"\n/quit\n");
            }
            _ => {
                let Ok(mut client) = Client::try_raw(address, &Options::default()) else { continue };
                let _ = client.try_send(b"/login listener wrong-password\n/login nobody nothing\n/join #load\n/quit\n");
                let _ = client.drain();
            }
        }
        if held.len() > 100 {
            held.clear();
        }
        stage.did("intrusions");
    }
    Ok(())
}

/// Who has an account and means ill: a flood of commands whose answers nobody reads, lines without an end.
fn mallory(stage: &Stage, user: &str, _: usize) -> Result<(), Gone> {
    while !stage.is_over() {
        let mut session = enter(stage, user)?;
        match below(3, stage.number(), 7) {
            0 => {
                session.client.pause();
                drop(session.send(&"/help\n/fetch #load limit=1000\n/members #load\n".repeat(300)));
            }
            1 => drop(session.send(&"/msg #load ".repeat(40_000))),
            _ => drop(session.send(&format!("/ping {}\n", "x".repeat(100_000)).repeat(20))),
        }
        session.client.kill();
        stage.did("attacks");
    }
    Ok(())
}

/// Hears everything, and keeps it: by itself while the connection lives, and from the logs what it missed.
pub(crate) fn listen(stage: &Stage, logs: &mut BTreeMap<String, Log>) {
    while let Some(mut session) = stage.login(LISTENER) {
        let Ok(()) = hear(&mut session, logs) else { continue };
        return;
    }
}

fn hear(session: &mut Session<'_>, logs: &mut BTreeMap<String, Log>) -> Result<(), Gone> {
    for target in targets() {
        catch_up(session, &target, logs)?;
    }
    while !session.stage.is_over() {
        // An answer at the latest after some messages, so that the end is noticed.
        session.client.say("/ping");
        loop {
            let line = session.line()?;
            if let Some(shown) = Shown::read(&line) {
                let log = logs.entry(shown.place.clone()).or_default();
                let last = log.keys().next_back().copied().unwrap_or(0);
                assert!(shown.id <= last + 1, "{}: {} came behind {last}", shown.place, shown.id);
                log.insert(shown.id, Digest::of(&shown.body));
            } else if line.starts_with("OK ping") {
                break;
            }
        }
        let (stored, here) = (session.stage.stored.load(Ordering::Relaxed), session.stage.number_here());
        session
            .stage
            .until(|| session.stage.stored.load(Ordering::Relaxed) != stored || session.stage.number_here() != here);
    }
    Ok(())
}

/// The conversations that the listener is in.
pub(crate) fn targets() -> Vec<String> {
    let people = CAST.iter().flat_map(|part| (0..part.players).map(|n| part.account(n)));
    ROOMS.iter().chain([&HALL, &LISTENER]).map(|room| (*room).to_owned()).chain(people).collect()
}

/// Reads a log to its end, from the first number that is missing. What comes by itself meanwhile counts as well.
pub(crate) fn catch_up(session: &mut Session<'_>, target: &str, logs: &mut BTreeMap<String, Log>) -> Result<(), Gone> {
    let place = crate::ledger::place(target, &session.user);
    let mut time = String::new();
    loop {
        let log = logs.entry(place.clone()).or_default();
        let mut last = log.keys().zip(1..).take_while(|(id, n)| **id == *n).count() as u64;
        session.client.say(&format!("/fetch {target} after={last} limit=1000"));
        let answer = loop {
            let line = session.line()?;
            let Some(shown) = Shown::read(&line) else {
                if line.starts_with('*') {
                    continue;
                }
                break line;
            };
            if line.starts_with('-') {
                assert!(shown.place == place && shown.id == last + 1, "{place}: {last}, then {line}");
                assert!(*shown.time >= *time, "{place}: {time}, then {line}");
                shown.time.clone_into(&mut time);
                last = shown.id;
            }
            logs.entry(shown.place).or_default().insert(shown.id, Digest::of(&shown.body));
        };
        let failed = answer.starts_with("ERR fetch internal ");
        assert!(failed || answer.starts_with("OK fetch "), "{target}: {answer}");
        if value(&answer, "more") == Some("no") {
            return Ok(());
        }
    }
}

//! Everything at once, for as long as one likes: chat in rooms and between two, comings and goings, pages, files,
//! reconnects, slow readers, enemies; and meanwhile kill -9, a disk that is full or fails, a clock that jumps,
//! storms of SIGHUP. At the end every message and every file that was acknowledged or shown to anybody is there, in
//! order, once, for everybody alike; what was dropped or refused has left nothing behind; and a daemon that lived
//! through it holds no more descriptors and memory than after its first minute.
//!
//! The short form is a test like the others. `ENDURANCE_MINUTES=…` makes it last so long
//! (`scripts/endurance.sh`): half of the time the daemon is killed every few seconds, half of it one daemon
//! lives through everything that it can survive. `ENDURANCE_DISK=…` is a small filesystem that may be filled; the
//! data lies in `TMPDIR`.
#![cfg(feature = "daemon")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test stops at the first thing that is wrong"
)]

#[path = "endurance/cast.rs"]
mod cast;
#[path = "endurance/files.rs"]
mod files;
#[path = "endurance/inventory.rs"]
mod inventory;
#[path = "endurance/ledger.rs"]
mod ledger;
#[path = "endurance/readers.rs"]
mod readers;
#[path = "endurance/shelf.rs"]
mod shelf;
#[path = "endurance/stage.rs"]
mod stage;
mod support;
#[path = "endurance/vandal.rs"]
mod vandal;
#[path = "endurance/weather.rs"]
mod weather;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cast::{CAST, HALL, LISTENER, ROOMS};
use ledger::Log;
use stage::Stage;
use support::client::wait_until;
use support::{Client, Daemon, Home};
use weather::{Weather, work};

/// One of the many sessions of an account must never be refused.
const CONFIG: &str = "[accounts]\nsessions_per_account = 1000";
/// Lives of the daemon, and acts of its longest one, in the short form.
const LIVES: usize = Weather::ALL.len();
const ACTS: usize = 3;
/// In the long form the daemon is killed at the earliest after so long.
const LIFE: Duration = Duration::from_secs(3);
/// Uploads whose data the daemon keeps open.
const OPEN_UPLOADS: usize = 24;
/// What the daemon may hold more after the last act than after the first: the allocator's slack. A kilobyte for each of the
/// thousands of connections and messages of ten minutes would be more.
const GAIN_KIB: u64 = 8 * 1024;
/// The same where those caches are not full yet, in the short form.
const GAIN_COLD_KIB: u64 = 48 * 1024;
/// Messages, and bytes of each, that fill both page caches of the store, 32 and 8 MiB, which would otherwise fill while
/// the memory is watched.
const WARM: usize = 720;
const WARM_BYTES: usize = 60_000;

/// The players of one act.
struct Players {
    threads: Vec<JoinHandle<()>>,
    stage: Arc<Stage>,
}

impl Players {
    fn begin(stage: &Arc<Stage>, logs: &Arc<Mutex<BTreeMap<String, Log>>>) -> Players {
        let mut threads = Vec::new();
        let mut spawn = |name: String, play: Box<dyn FnOnce(&Stage) + Send>| {
            let stage = Arc::clone(stage);
            let thread = std::thread::Builder::new().name(name);
            threads.push(thread.spawn(move || play(&stage)).unwrap());
        };
        for part in CAST {
            for n in 0..part.players {
                spawn(part.account(n), Box::new(move |stage| part.play(stage, n)));
            }
        }
        let logs = Arc::clone(logs);
        spawn(LISTENER.to_owned(), Box::new(move |stage| cast::listen(stage, &mut logs.lock().unwrap())));
        Players { threads, stage: Arc::clone(stage) }
    }

    /// Stops here where one of them has found something wrong.
    fn check(&mut self) {
        if let Some(at) = self.threads.iter().position(JoinHandle::is_finished) {
            let thread = self.threads.swap_remove(at);
            let name = thread.thread().name().unwrap_or_default().to_owned();
            let ended = thread.join();
            assert!(ended.is_ok(), "{name} found something wrong");
            panic!("{name} went before the end");
        }
    }

    /// Everybody goes.
    fn end(mut self) {
        self.stage.end();
        for thread in std::mem::take(&mut self.threads) {
            let name = thread.thread().name().unwrap_or_default().to_owned();
            assert!(thread.join().is_ok(), "{name} found something wrong");
        }
    }
}

impl Drop for Players {
    fn drop(&mut self) {
        self.stage.end();
    }
}

fn register(daemon: &Daemon) {
    let everybody = CAST.iter().flat_map(|part| (0..part.players).map(|n| part.account(n)));
    for user in everybody.chain([LISTENER.to_owned()]) {
        let mut client = Client::connect(daemon.address());
        client.ask(&format!("/register {user} password-{user}"), &format!("OK register user={user}"));
        for room in ROOMS.iter().chain([&HALL]) {
            client.ask(&format!("/join {room}"), &format!("OK join room={room} ..."));
        }
    }
}

/// Descriptors and resident memory in KiB of a daemon to which nobody is connected. The data of uploads that it keeps
/// open does not count: that has a bound of its own.
fn measure(daemon: &Daemon, least: usize) -> (usize, u64) {
    let path = format!("/proc/{}/fd", daemon.pid().as_raw_nonzero());
    let look = || {
        let all = std::fs::read_dir(&path).unwrap().filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok());
        let all: Vec<String> = all.map(|link| link.to_string_lossy().into_owned()).collect();
        let (data, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(|link| link.contains("/data/files/"));
        assert!(data.len() <= OPEN_UPLOADS, "{} uploads are open", data.len());
        (rest.len(), data.iter().any(|link| link.ends_with(" (deleted)")))
    };
    wait_until("all connections are closed, and what was deleted", || {
        let (count, deleted) = look();
        count <= least && !deleted
    });
    (look().0, daemon.memory_kib("VmRSS"))
}

/// Fills what the store may keep in memory: writes a lot, and reads it.
fn warm(stage: &Stage) {
    let mut session = stage.login(LISTENER).unwrap();
    for _ in 0..WARM / 20 {
        let bodies: Vec<String> = (0..20).map(|_| format!("{} {}", stage.number(), "w".repeat(WARM_BYTES))).collect();
        bodies.iter().for_each(|body| stage.ledger.lock().unwrap().sent(body));
        let lines: String = bodies.iter().map(|body| format!("/msg {LISTENER} {body}\n")).collect();
        session.send(&lines).unwrap();
        for body in &bodies {
            session.answered(LISTENER, body).unwrap();
        }
    }
    cast::catch_up(&mut session, LISTENER, &mut BTreeMap::new()).unwrap();
}

/// The whole of every conversation, each read by one who is in it.
fn read_all(stage: &Stage) -> BTreeMap<String, Log> {
    let mut logs = BTreeMap::new();
    for place in stage.ledger.lock().unwrap().places() {
        logs.insert(place, Log::new());
    }
    for place in logs.keys().cloned().collect::<Vec<_>>() {
        let (reader, target) = place.split_once('+').unwrap_or((LISTENER, &place));
        let mut session = stage.login(reader).unwrap();
        cast::catch_up(&mut session, target, &mut logs).unwrap();
    }
    logs
}

#[test]
fn everything_at_once() {
    let minutes: Option<u64> = std::env::var("ENDURANCE_MINUTES").ok().map(|text| text.parse().unwrap());
    let half = minutes.map(|minutes| Duration::from_secs(minutes * 30));
    let home = Home::new(CONFIG);
    let stage = Arc::new(Stage::new(minutes.is_some()));
    let listened = Arc::default();

    // One daemon after the other.
    let begun = Instant::now();
    let mut daemon = Weather::Fair.start(&home, &stage);
    register(&daemon);
    // Who may see what all files take.
    assert!(home.run(&["user", "admin", LISTENER]).status.success());
    daemon.kill();
    let mut players = None;
    let mut lives = 0;
    while half.map_or(lives < LIVES, |half| begun.elapsed() < half) {
        let weather = Weather::ALL[lives % Weather::ALL.len()];
        let born = Instant::now();
        daemon = weather.start(&home, &stage);
        stage.open(daemon.address(), weather.is_failing());
        let players = players.get_or_insert_with(|| Players::begin(&stage, &listened));
        work(&stage, 20);
        weather.befall(&stage, &home, &mut daemon, CONFIG);
        while half.is_some() && born.elapsed() < LIFE {
            work(&stage, 20);
            players.check();
        }
        players.check();
        stage.close();
        daemon.kill();
        lives += 1;
    }
    daemon = Weather::Fair.start(&home, &stage);
    let idle = measure(&daemon, 64).0;
    stage.open(daemon.address(), false);
    if let Some(players) = players {
        players.end();
    }
    eprintln!("{lives} lives: {}", stage.done());

    // One that lives.
    stage.open(daemon.address(), false);
    let gain = if minutes.is_some() { GAIN_KIB } else { GAIN_COLD_KIB };
    if minutes.is_some() {
        warm(&stage);
    }
    let begun = Instant::now();
    let mut figures: Vec<(usize, u64)> = Vec::new();
    while half.map_or(figures.len() < ACTS, |half| begun.elapsed() < half) {
        stage.open(daemon.address(), false);
        let act = Instant::now();
        let mut players = Players::begin(&stage, &listened);
        for weather in Weather::PASSING {
            work(&stage, 50);
            weather.befall(&stage, &home, &mut daemon, CONFIG);
            players.check();
        }
        while half.is_some() && act.elapsed() < Duration::from_secs(60) {
            work(&stage, 50);
            players.check();
        }
        players.end();
        figures.push(measure(&daemon, idle));
        let (descriptors, memory) = figures[figures.len() - 1];
        eprintln!("act {}: {descriptors} descriptors, {memory} KiB resident; {}", figures.len(), stage.done());
    }

    stage.open(daemon.address(), false);
    let logs = read_all(&stage);
    stage.ledger.lock().unwrap().judge(&logs);
    eprintln!("{}", inventory::take(&stage, &home));
    let ledger = stage.ledger.lock().unwrap();
    let (acknowledged, failed, shown) = ledger.counts();
    eprintln!("{acknowledged} acknowledged and {shown} shown: all there, in order, once");
    eprintln!("{failed} refused by the disk, of which {} are there", ledger.came_back(&logs));
    assert!(acknowledged >= LIVES * 100 && failed > 0, "there was hardly any load");
    let (first, last) = (figures[0], figures[figures.len() - 1]);
    assert!(last.0 <= first.0, "descriptors: {figures:?}");
    assert!(last.1 <= first.1 + gain, "memory: {figures:?}");
    drop(ledger);
    // The listener heard all that it could, whoever was killed meanwhile.
    let listened = listened.lock().unwrap();
    for (place, log) in listened.iter() {
        let all = logs.get(place).map_or(0, |all| all.len());
        assert_eq!(log.len(), log.keys().next_back().map_or(0, |last| *last as usize), "{place} was heard with gaps");
        assert!(log.len() <= all, "{place}: {} of {all} were heard", log.len());
    }
    daemon.stop();
}
